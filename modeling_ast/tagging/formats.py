"""The formats of `ast-tag`, one row of `FORMATS` each: all that the command knows of a format stands in its row."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from ..system.names_as_text import csv_row, in_one_line, spreadsheet_safe
from .label_tracks import (
    audacity_labels_of_all,
    audacity_lines,
    combined_lines,
    combined_raven_header,
    raven_header,
    raven_lines,
    raven_rows_of_all,
)
from .none_of_these import NONE_OF_THESE
from .parquet_tables import parquet_header, parquet_lines, table_columns, table_rows, write_parquet
from .text_grids import textgrid_lines


@dataclasses.dataclass(frozen=True)
class TagFormat:
    """How results are written.

    The lines of a file are also what an interrupted `ast-tag --output` keeps of it: they depend on nothing but its result.

    Args:
        lines (callable): makes lines, without line ends, of a [`FileTags`].
        header (callable, *optional*): makes the first line of a file of results; it is told whether they have segments.
        label_file_suffix (`str`, *optional*): of the label file of an audio file, in a format that has one for each.
        needs_timeline (`bool`, defaults to `False`): whether it holds segments only, and so implies `--timeline`.
        opens_in_spreadsheets (`bool`, defaults to `False`): whether a spreadsheet would run names that begin like a
            formula, against which there is `--spreadsheet_safe`.
        finish (callable, *optional*): makes what is written of the lines of all files, where a line depends on those of
            the files before; it yields as it goes.
        write (callable, *optional*): writes the lines, header first, to a path, in a format that is no text.
        clock_time (`bool`, defaults to `False`): whether its rows can hold the time of `--start_time`; its header is then also
            told whether they do.
        channel_column (`bool`, defaults to `False`): whether it has a column for the channel with `--channels each`; its
            header is then also told whether there is one.
        novelty_columns (`bool`, defaults to `False`): whether it has columns for how far a file is from the training clips; its
            header is then also told whether they are there.
        labels_beside_segments (`bool`, defaults to `False`): whether it has the labels of a whole recording with `--timeline`, too.
        combined ([`TagFormat`], *optional*): what `--combine` makes of a format that has a file for each audio file.
        suffix (`str`, defaults to `"txt"`): what names of files of blocks end in.
    """

    lines: Callable
    header: Callable[..., str] | None = None
    label_file_suffix: str | None = None
    needs_timeline: bool = False
    opens_in_spreadsheets: bool = False
    finish: Callable[[Iterable[str]], Iterator[str]] | None = None
    write: Callable[[Iterable[str], Path], None] | None = None
    clock_time: bool = False
    channel_column: bool = False
    novelty_columns: bool = False
    labels_beside_segments: bool = False
    combined: TagFormat | None = None
    suffix: str = "txt"


def with_safe_names(result):
    """A [`FileTags`] for a CSV file that is opened in a spreadsheet: names that begin like a formula get an apostrophe.

    Args:
        result ([`FileTags`]): a tagged file.

    Returns:
        [`FileTags`]: the same with other names; numbers are untouched.
    """

    def safe(row):
        return dataclasses.replace(row, label=spreadsheet_safe(row.label))

    return dataclasses.replace(
        result,
        file=spreadsheet_safe(result.file),
        labels=[safe(tag) for tag in result.labels],
        segments=None if result.segments is None else [safe(segment) for segment in result.segments],
    )


def text_lines(result) -> Iterator[str]:
    """Write a file's name, then a line for each label or segment.

    Args:
        result ([`FileTags`]): a tagged file.

    Yields:
        Lines without line end.
    """
    began = result.began and result.began.after()
    channel = f"  channel {result.channel}" if result.of_each_channel else ""
    yield in_one_line(result.file) + channel + (f"  {began}" if began else "")
    if result.segments is None:
        if result.novelty is not None and result.novelty.is_beyond:
            yield f"  {NONE_OF_THESE}: distance {result.novelty.distance:.4f}, threshold {result.novelty.threshold:.4f}"
        for tag in result.labels:
            yield f"  {tag.score:7.4f}  {in_one_line(tag.label)}"
    else:
        for segment in result.segments:
            label = in_one_line(segment.label)
            clock = f"  {result.began.after(segment.start)}" if began else ""
            yield f"  {segment.start:9.2f} - {segment.end:9.2f} s{clock}  {segment.score:7.4f}  {label}"


def jsonl_lines(result) -> Iterator[str]:
    """Write one JSON object.

    Args:
        result ([`FileTags`]): a tagged file.

    Yields:
        The only line, without line end.
    """
    row = {"file": result.file}
    if result.of_each_channel:
        row["channel"] = result.channel
    if result.began is not None:
        row["start_time"] = result.began.after()
    row["labels"] = [dataclasses.asdict(tag) for tag in result.labels]
    if result.novelty is not None:
        row["none_of_these"] = result.novelty.is_beyond
        row |= {"distance": result.novelty.distance, "distance_threshold": result.novelty.threshold}
    if result.segments is not None:
        keys = ("start", "end", "label", "score")
        row["segments"] = [
            {key: getattr(segment, key) for key in keys} | _clock_times(result, segment) for segment in result.segments
        ]
    if result.notes:
        row["notes"] = [dataclasses.asdict(note) for note in result.notes]
    yield json.dumps(row)


def _clock_times(result, segment) -> dict[str, str | None]:
    if result.began is None:
        return {}
    return {"start_time": result.began.after(segment.start), "end_time": result.began.after(segment.end)}


def csv_header(timeline: bool, clock_time: bool = False, channel: bool = False, novelty: bool = False) -> str:
    """Name the columns.

    Args:
        timeline (`bool`): whether the rows are segments.
        clock_time (`bool`, defaults to `False`): whether they have clock times.
        channel (`bool`, defaults to `False`): whether they have the number of a channel.
        novelty (`bool`, defaults to `False`): see [`table_columns`].

    Returns:
        The first line.
    """
    return ",".join(table_columns(timeline, clock_time, channel, novelty))


def csv_lines(result) -> Iterator[str]:
    """Write a row for each label, or for each segment.

    Args:
        result ([`FileTags`]): a tagged file.

    Yields:
        Lines without line end.
    """
    digits = {"start": 3, "end": 3, "score": 6, "distance": 6}
    for row in table_rows(result):
        cells = {name: f"{row[name]:.{digits[name]}f}" for name in row.keys() & digits.keys()}
        if "none_of_these" in row:
            cells["none_of_these"] = "yes" if row["none_of_these"] else "no"
        yield csv_row((row | cells).values())


FORMATS = {
    "text": TagFormat(text_lines, clock_time=True),
    "jsonl": TagFormat(jsonl_lines, clock_time=True, labels_beside_segments=True, suffix="jsonl"),
    "csv": TagFormat(
        csv_lines,
        csv_header,
        opens_in_spreadsheets=True,
        clock_time=True,
        channel_column=True,
        novelty_columns=True,
        suffix="csv",
    ),
    "audacity": TagFormat(
        audacity_lines,
        label_file_suffix=".txt",
        needs_timeline=True,
        combined=TagFormat(combined_lines, needs_timeline=True, finish=audacity_labels_of_all),
    ),
    "raven": TagFormat(
        raven_lines,
        raven_header,
        ".Table.1.selections.txt",
        needs_timeline=True,
        clock_time=True,
        combined=TagFormat(
            combined_lines, combined_raven_header, needs_timeline=True, finish=raven_rows_of_all, clock_time=True
        ),
    ),
    "textgrid": TagFormat(textgrid_lines, label_file_suffix=".TextGrid", needs_timeline=True),
    "parquet": TagFormat(
        parquet_lines,
        parquet_header,
        write=write_parquet,
        clock_time=True,
        channel_column=True,
        novelty_columns=True,
        suffix="parquet",
    ),
}

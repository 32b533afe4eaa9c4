"""Audacity's label tracks and Raven's selection tables: of one recording, or of several that are heard one after the other.

Label tracks follow Audacity's text import: start, end and label, tab-separated, in seconds. A second line with frequencies,
which Audacity knows, is never written: a model of log-mel spectrograms does not tell at which a label was heard. Selection
tables have the columns of Raven, by the names by which crowsetta and opensoundscape look for them; both read a table with
pandas.

Source: Audacity's manual, "Importing and Exporting Labels"; Raven Pro 1.4 User's Manual: times of a sequence of files count
from the begin of the first, "File Offset (s)" from that of the file in which a selection begins.
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import PurePath

from ..system.names_as_text import in_one_line, selection_table_cell

RAVEN_COLUMNS = (
    "Selection",
    "View",
    "Channel",
    "Begin Time (s)",
    "End Time (s)",
    "Low Freq (Hz)",
    "High Freq (Hz)",
    "Annotation",
    "Score",
)
CLOCK_TIME = "Begin Date Time"
OF_FILES = ("Begin Path", "Begin File", "File Offset (s)")  # in a table of several


def audacity_lines(result) -> Iterator[str]:
    """Write a line of Audacity's label track for each segment.

    Args:
        result ([`FileTags`]): a tagged file with segments.

    Yields:
        Lines without line end.
    """
    for segment in result.segments:
        yield _audacity_label(segment.start, segment.end, label_with_channel(segment.label, segment.channel))


def label_with_channel(label: str, channel: int | None) -> str:
    """Name a label where segments of several channels stand together and there is no other place for the channel.

    Args:
        label (`str`): the label.
        channel (`int`, *optional*): the number of the channel.

    Returns:
        `str`: such as `"dog (channel 2)"`, or the label.
    """
    return label if channel is None else f"{label} (channel {channel})"


def _audacity_label(start: float, end: float, label: str) -> str:
    return f"{start:.6f}\t{end:.6f}\t{in_one_line(label)}"


def raven_header(timeline: bool, clock_time: bool = False) -> str:
    """Name the columns, with which a table without selections is one too.

    Args:
        timeline (`bool`): always true, as the format holds segments only.
        clock_time (`bool`, defaults to `False`): whether rows have clock times.

    Returns:
        The first line.
    """
    return "\t".join((*RAVEN_COLUMNS, *(CLOCK_TIME,) * clock_time))


def raven_lines(result) -> Iterator[str]:
    """Write a row of Raven's selection table for each segment, over all frequencies that the model heard of the
    recording.

    Args:
        result ([`FileTags`]): a tagged file with segments.

    Yields:
        Lines without line end.
    """
    for number, segment in enumerate(result.segments, start=1):
        found = (segment.start, segment.end, segment.label, segment.score)
        clock = () if result.began is None else (result.began.after(segment.start) or "",)
        yield _raven_row(number, segment.channel or result.channel, result.highest_frequency, *found, *clock)


def _raven_row(
    number: int,
    channel: int | None,
    highest_frequency: float,
    start: float,
    end: float,
    label: str,
    score: float,
    *more: str,
) -> str:
    times, frequencies = (f"{start:.6f}", f"{end:.6f}"), ("0.0", f"{highest_frequency:.1f}")
    annotation = (selection_table_cell(label), f"{score:.4f}")
    return "\t".join((str(number), "Spectrogram 1", str(channel or 1), *times, *frequencies, *annotation, *more))


def combined_lines(result) -> Iterator[str]:
    """Keep of a file what its part of a table of several is made of.

    Args:
        result ([`FileTags`]): a tagged file with segments.

    Yields:
        One line of JSON, without line end.
    """
    row = {name: getattr(result, name) for name in ("file", "seconds", "channel", "highest_frequency")}
    row["segments"] = [
        [segment.start, segment.end, segment.label, segment.score, segment.channel] for segment in result.segments
    ]
    if result.began is not None:
        row["clock_times"] = [result.began.after(segment.start) or "" for segment in result.segments]
    yield json.dumps(row)


def audacity_labels_of_all(lines: Iterable[str]) -> Iterator[str]:
    """Write one label track of several files that lie end to end: for each a label with its name over all of it, and then
    those of its segments.

    Args:
        lines (iterable of `str`): from [`combined_lines`], a line a file.

    Yields:
        Lines without line end.
    """
    before = 0.0
    for row in map(json.loads, lines):
        after = before + row["seconds"]
        yield _audacity_label(before, after, PurePath(row["file"]).name)
        for start, end, label, _, channel in row["segments"]:
            yield _audacity_label(before + start, before + end, label_with_channel(label, channel))
        before = after


def combined_raven_header(timeline: bool, clock_time: bool = False) -> str:
    """Name the columns of a table of several files.

    Args:
        timeline (`bool`): always true, as the format holds segments only.
        clock_time (`bool`, defaults to `False`): whether rows have clock times.

    Returns:
        The first line.
    """
    return "\t".join((*RAVEN_COLUMNS, *OF_FILES, *(CLOCK_TIME,) * clock_time))


def raven_rows_of_all(lines: Iterable[str]) -> Iterator[str]:
    """Write the rows of one selection table of several files that Raven opens as a sequence, in this order.

    Args:
        lines (iterable of `str`): from [`combined_lines`], a line a file.

    Yields:
        Lines without line end.
    """
    number, before = 0, 0.0
    for row in map(json.loads, lines):
        path = selection_table_cell(row["file"])
        name = selection_table_cell(PurePath(row["file"]).name)
        for place, (start, end, label, score, channel) in enumerate(row["segments"]):
            heard = (channel or row["channel"], row["highest_frequency"])
            number += 1
            more = (path, name, f"{start:.6f}", *row.get("clock_times", [])[place : place + 1])
            yield _raven_row(number, *heard, before + start, before + end, label, score, *more)
        before += row["seconds"]

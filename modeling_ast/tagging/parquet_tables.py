"""Tables of all files, with a row for each label or segment: what CSV and Parquet have in common, and Parquet.

Source: Apache Parquet's format, written by pyarrow, which comes with `datasets`.
"""

import json
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from ..system.atomic_files import open_atomically

WHOLE_NUMBERS = ("channel",)  # columns of 64-bit integers
TRUTHS = ("none_of_these",)
NUMBERS = ("start", "end", "score", "distance")  # columns of 64-bit floats; the others are text
ROWS_AT_A_TIME = 100_000  # in a row group


def table_columns(timeline: bool, clock_time: bool = False, channel: bool = False, novelty: bool = False) -> list[str]:
    """Name the columns of a table.

    Args:
        timeline (`bool`): whether the rows are segments.
        clock_time (`bool`, defaults to `False`): whether they have clock times.
        channel (`bool`, defaults to `False`): whether they have the number of a channel.
        novelty (`bool`, defaults to `False`): whether they say how far the file is from the training clips; segments do not.

    Returns:
        The names, in their order.
    """
    columns = ["file", *["channel"] * channel, *["start", "end"] * timeline, "label", "score"]
    columns += ["distance", "none_of_these"] * (novelty and not timeline)
    return columns + (["start_time", "end_time"] if timeline else ["start_time"]) * clock_time


def table_rows(result) -> Iterator[dict]:
    """Give the rows of a file.

    Args:
        result ([`FileTags`]): a tagged file.

    Yields:
        The cells of a row by column: numbers, texts, truth values, and `None` for a clock time that is not known.
    """
    settings = (result.began is not None, result.of_each_channel, result.novelty is not None)
    columns = table_columns(result.segments is not None, *settings)
    of_file = [result.file, *[result.channel] * result.of_each_channel]
    for found in result.labels if result.segments is None else result.segments:
        places = (0.0,) if result.segments is None else (found.start, found.end)
        cells = [*of_file, *(() if result.segments is None else places), found.label, found.score]
        if result.novelty is not None and result.segments is None:
            cells += [result.novelty.distance, result.novelty.is_beyond]
        clock = [] if result.began is None else [result.began.after(place) for place in places]
        yield dict(zip(columns, [*cells, *clock], strict=True))


def parquet_header(timeline: bool, clock_time: bool = False, channel: bool = False, novelty: bool = False) -> str:
    """Name the columns.

    Args:
        timeline (`bool`): whether the rows are segments.
        clock_time (`bool`, defaults to `False`): whether they have clock times.
        channel (`bool`, defaults to `False`): whether they have the number of a channel.
        novelty (`bool`, defaults to `False`): see [`table_columns`].

    Returns:
        A list of JSON, which [`write_parquet`] reads.
    """
    return json.dumps(table_columns(timeline, clock_time, channel, novelty))


def parquet_lines(result) -> Iterator[str]:
    """Write a row for each label, or for each segment.

    Args:
        result ([`FileTags`]): a tagged file.

    Yields:
        Lists of JSON, without line end, which [`write_parquet`] reads.
    """
    for row in table_rows(result):
        yield json.dumps(list(row.values()))


def write_parquet(lines: Iterable[str], destination: Path) -> None:
    """Write a Parquet file that appears under its name only when it is complete.

    Args:
        lines (iterable of `str`): of [`parquet_header`], and then those of [`parquet_lines`].
        destination (`Path`): the file.
    """
    import pyarrow
    from pyarrow import parquet

    rows = map(json.loads, lines)
    names = next(rows)
    kinds = dict.fromkeys(NUMBERS, pyarrow.float64()) | dict.fromkeys(WHOLE_NUMBERS, pyarrow.int64())
    kinds |= dict.fromkeys(TRUTHS, pyarrow.bool_())
    schema = pyarrow.schema([(name, kinds.get(name, pyarrow.string())) for name in names])
    with open_atomically(destination) as file, parquet.ParquetWriter(file, schema) as writer:
        while some := list(islice(rows, ROWS_AT_A_TIME)):
            columns = [list(map(_storable, column)) for column in zip(*some, strict=True)]
            writer.write_table(pyarrow.table(dict(zip(names, columns, strict=True)), schema))


def join_parquet(parts: Iterable[Path], destination: Path) -> None:
    """Make one Parquet file of several of the same columns, a part of them in memory at a time.

    Args:
        parts (iterable of `Path`): the files, one at least, in their order.
        destination (`Path`): the file, which appears when it is complete.
    """
    import pyarrow
    from pyarrow import parquet

    parts = list(parts)
    schema = parquet.read_schema(parts[0])
    held = []

    def write():
        writer.write_table(pyarrow.concat_tables(held).combine_chunks())
        held.clear()

    with open_atomically(destination) as file, parquet.ParquetWriter(file, schema) as writer:
        for part in parts:
            held.append(parquet.read_table(part, schema=schema, partitioning=None))
            if sum(table.num_rows for table in held) >= ROWS_AT_A_TIME:
                write()
        if held:
            write()


def _storable(cell):
    """What can be UTF-8: bytes in the name of a file that never were text become escapes."""
    return cell.encode("utf-8", "backslashreplace").decode("utf-8") if isinstance(cell, str) else cell

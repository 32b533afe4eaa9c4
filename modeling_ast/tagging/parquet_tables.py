"""One Parquet table of all files, with a row for each label or segment, as the CSV file has them, and types of its own.

Source: Apache Parquet's format, written by pyarrow, which comes with `datasets`.
"""

import json
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from ..system.atomic_files import open_atomically

NUMBERS = ("start", "end", "score")  # columns of 64-bit floats; the others are text
ROWS_AT_A_TIME = 100_000  # in a row group


def parquet_header(timeline: bool) -> str:
    """Name the columns.

    Args:
        timeline (`bool`): whether the rows are segments.

    Returns:
        A list of JSON, which [`write_parquet`] reads.
    """
    return json.dumps(["file", "start", "end", "label", "score"] if timeline else ["file", "label", "score"])


def parquet_lines(result) -> Iterator[str]:
    """Write a row for each label, or for each segment.

    Args:
        result ([`FileTags`]): a tagged file.

    Yields:
        Lists of JSON, without line end, which [`write_parquet`] reads.
    """
    if result.segments is None:
        rows = [(result.file, tag.label, tag.score) for tag in result.labels]
    else:
        rows = [(result.file, segment.start, segment.end, segment.label, segment.score) for segment in result.segments]
    yield from map(json.dumps, rows)


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
    schema = pyarrow.schema([(name, pyarrow.float64() if name in NUMBERS else pyarrow.string()) for name in names])
    with open_atomically(destination) as file, parquet.ParquetWriter(file, schema) as writer:
        while some := list(islice(rows, ROWS_AT_A_TIME)):
            columns = [list(map(_storable, column)) for column in zip(*some, strict=True)]
            writer.write_table(pyarrow.table(dict(zip(names, columns, strict=True)), schema))


def _storable(cell):
    """What can be UTF-8: bytes in the name of a file that never were text become escapes."""
    return cell.encode("utf-8", "backslashreplace").decode("utf-8") if isinstance(cell, str) else cell

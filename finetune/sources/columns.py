"""Columns of a data set as they are stored: read without a copy of the data set, of its schema or of its other columns."""

from collections.abc import Iterator

import datasets
import pyarrow as pa
from datasets.formatting import query_table

ROWS_AT_ONCE = 1000


def column_batches(rows: datasets.Dataset, name: str) -> Iterator[pa.ChunkedArray]:
    """Go through a column in batches, without copying what is not selected row by row.

    Args:
        rows (`datasets.Dataset`): with that column; its format plays no part.
        name (`str`): of the column.

    Returns:
        The values of up to `ROWS_AT_ONCE` rows, one batch after the other.
    """
    column = rows.data.select([name])
    for start in range(0, len(rows), ROWS_AT_ONCE):
        batch = slice(start, min(start + ROWS_AT_ONCE, len(rows)))
        yield query_table(column, batch, indices=rows._indices)[name]


def column_values(rows: datasets.Dataset, name: str) -> list:
    """List what a column of plain values holds: text, numbers, or lists of these.

    Args:
        rows (`datasets.Dataset`): with that column.
        name (`str`): of the column.

    Returns:
        The value of each row.
    """
    return [value for batch in column_batches(rows, name) for value in batch.to_pylist()]

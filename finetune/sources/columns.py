"""Columns of a data set: read as they are stored, and made, without work that is done for a whole data set otherwise."""

from collections.abc import Iterator

import datasets
import pyarrow as pa
from datasets.fingerprint import generate_random_fingerprint
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


def dataset_of(columns: dict[str, list], features: datasets.Features) -> datasets.Dataset:
    """Make what `datasets.Dataset.from_dict` makes, without pickling all of it for a fingerprint by which nothing is found.

    Args:
        columns (`dict[str, list]`): the values of each column.
        features (`datasets.Features`): what these are.

    Returns:
        `datasets.Dataset`: in memory.
    """
    types = features.arrow_schema
    arrays = [_encoded(columns[name], features[name], types.field(name)) for name in features]
    info = datasets.DatasetInfo(features=features)
    return datasets.Dataset(pa.table(arrays, schema=types), info, fingerprint=generate_random_fingerprint())


def _encoded(values: list, feature, field: pa.Field) -> pa.Array:
    """A column as it is stored. `encode_column` asks for torchcodec for the path of each clip, and reads none of them."""
    if isinstance(feature, datasets.Audio) and all(isinstance(value, str) for value in values):
        return feature.cast_storage(pa.array(values, pa.string()))
    return pa.array(datasets.Features({field.name: feature}).encode_column(values, field.name), field.type)

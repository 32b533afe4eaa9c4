"""Columns read and made directly are those that `datasets` reads and makes."""

import datasets
import numpy as np
import pytest

from finetune.sources import columns
from finetune.sources.columns import column_batches, column_values, dataset_of

AUDIO = datasets.Audio(decode=False)
FRAMES = datasets.List(datasets.List(datasets.Value("float32")))


@pytest.mark.parametrize("chosen", [None, [4, 0, 3, 3], range(1, 4), []], ids=str)
def test_columns_are_read_in_the_order_of_the_rows(monkeypatch, chosen):
    monkeypatch.setattr(columns, "ROWS_AT_ONCE", 2)
    rows = datasets.Dataset.from_dict({"label": [5, 6, 7, 8, 9], "other": list("abcde")})
    rows = rows if chosen is None else rows.select(chosen)
    assert column_values(rows, "label") == rows["label"][:]
    assert [len(batch) for batch in column_batches(rows, "other")] == [2] * (len(rows) // 2) + [1] * (len(rows) % 2)


@pytest.mark.parametrize(
    ("feature", "values"),
    [
        (AUDIO, ["a.wav", None, {"bytes": b"content", "path": None}]),
        (datasets.Value("string"), ["text", "", None]),
        (datasets.ClassLabel(names=["cat", "dog"]), [0, 1, None]),
        (datasets.List(datasets.ClassLabel(names=["cat", "dog"])), [[0, 1], [], [1]]),
        (FRAMES, [np.ones((3, 4), np.float32), [[0.5], [1]], []]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_data_set_made_of_columns_is_that_of_from_dict(feature, values):
    features = datasets.Features({"row": datasets.Value("int64"), "values": feature})
    given = {"row": [3, 1, 2], "values": values}
    ours, theirs = dataset_of(given, features), datasets.Dataset.from_dict(given, features)
    assert ours.features == theirs.features
    assert ours.data.table.equals(theirs.data.table, check_metadata=True)

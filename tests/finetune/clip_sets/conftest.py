"""Clips of drums in a mixed order, in a table to be streamed."""

import random

import pytest

from tests.finetune.clip_sets.streamed_clips import write


@pytest.fixture(scope="session")
def rows(drum_rows):
    """37 training and 13 test clips in no order, with all labels in both."""
    mixed = random.Random(4).sample(drum_rows, len(drum_rows))
    training, test = ([row for row in mixed if row["split"] == split] for split in ("train", "test"))
    return training[:37] + test[:13]


@pytest.fixture(scope="session")
def table(tmp_path_factory, rows):
    """A CSV of these clips."""
    return write(tmp_path_factory.mktemp("streamed"), "csv", rows)

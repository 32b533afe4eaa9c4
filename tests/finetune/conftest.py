"""What the tests of trainings share: 33 drum clips of three labels as a table, and a run that has ended."""

import csv
import shutil
from pathlib import Path

import pytest
from tiny_trainings import write_recipe

from finetune.run_finetune import main

FEW_LABELS = ("bell", "hat_closed", "kick")
TRAINING_CLIPS, TEST_CLIPS = 8, 3  # of a label


@pytest.fixture(scope="session")
def few_rows(drum_rows) -> list[dict]:
    """Rows of eight training and three test clips of three drums."""
    rows = []
    for label in FEW_LABELS:
        for split, count in {"train": TRAINING_CLIPS, "test": TEST_CLIPS}.items():
            rows += [row for row in drum_rows if row["label"] == label and row["split"] == split][:count]
    return rows


@pytest.fixture(scope="session")
def few_drums(tmp_path_factory, few_rows) -> Path:
    """A table of these, with a license and a fold of three."""
    table = tmp_path_factory.mktemp("clips") / "some_drums.csv"
    with open(table, "w", newline="") as file:
        writer = csv.DictWriter(file, ["path", "label", "split", "license", "fold"], extrasaction="ignore")
        writer.writeheader()
        writer.writerows(row | {"fold": place % 3} for place, row in enumerate(few_rows))
    return table


@pytest.fixture
def recipe(few_drums, tmp_path) -> str:
    """A recipe of two epochs of three steps on them, whose output folder is `run` beside it."""
    return write_recipe(tmp_path, few_drums)


@pytest.fixture(scope="session")
def one_epoch(few_drums, tmp_path_factory) -> Path:
    """The folder of such a training that has ended after an epoch; to be copied, not to be changed."""
    place = tmp_path_factory.mktemp("ended")
    assert main([write_recipe(place, few_drums), "--num_train_epochs", "1"]) == 0
    return place / "run"


@pytest.fixture
def ended(one_epoch, tmp_path) -> Path:
    """A copy of it where `recipe` puts its own run."""
    return Path(shutil.copytree(one_epoch, tmp_path / "run"))

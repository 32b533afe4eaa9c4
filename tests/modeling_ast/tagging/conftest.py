"""Checkpoints and recordings that all tests here read, and none changes."""

import pytest
from tagged_models import WINDOW, noise, save_checkpoint, write


@pytest.fixture(scope="session")
def single_label(tmp_path_factory):
    return save_checkpoint(tmp_path_factory.mktemp("single"), "single_label_classification")


@pytest.fixture(scope="session")
def multi_label(tmp_path_factory):
    return save_checkpoint(tmp_path_factory.mktemp("multi"), "multi_label_classification")


@pytest.fixture(scope="session")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    lengths = {"a_short": 8_000, "b_exact": WINDOW, "c_long": 3 * WINDOW + 5_000, "d_other": 20_000}
    return [write(folder / f"{name}.wav", noise(length, seed)) for seed, (name, length) in enumerate(lengths.items())]

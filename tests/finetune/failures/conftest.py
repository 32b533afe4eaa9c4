"""Recipes of trainings that are made to fail, and one that is not."""

import shutil
from pathlib import Path

import pytest
import torch
from failing_trainings import SETTINGS, write_clips
from safetensors.torch import load_file
from tiny_trainings import write_recipe

from finetune.run_finetune import main


@pytest.fixture
def no_pictures(monkeypatch):
    """They take longer than these trainings."""
    for name in ("plot_training_curve", "plot_confusion_matrix", "_plot_example"):
        monkeypatch.setattr(f"finetune.results.publishing.{name}", lambda *_: None)


@pytest.fixture(scope="session")
def clips(tmp_path_factory) -> Path:
    """Their clips; to be copied, as some of these are damaged."""
    write_clips(folder := tmp_path_factory.mktemp("noise"))
    return folder / "clips"


@pytest.fixture
def recipe(clips, tmp_path) -> str:
    shutil.copytree(clips, tmp_path / "clips", copy_function=shutil.copyfile)
    return write_recipe(tmp_path, tmp_path / "clips", **SETTINGS)


@pytest.fixture(scope="session")
def undisturbed(clips, tmp_path_factory) -> dict[str, torch.Tensor]:
    """The weights of a training that nothing happens to."""
    folder = tmp_path_factory.mktemp("undisturbed")
    assert main([write_recipe(folder, clips, **SETTINGS)]) == 0
    return load_file(folder / "run" / "model.safetensors")

"""`--dry_run` of marked recordings, for both heads: the windows of the training, and what is not estimated."""

import json
import re

import pytest
from marked_sounds import write_marked
from tiny_trainings import flags

from finetune.run_finetune import main


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_marked(tmp_path_factory.mktemp("marked") / "recordings")


@pytest.mark.parametrize("head", ["clip", "frame"])
def test_it_counts_and_times_the_windows_of_the_training(folder, tmp_path, capsys, head):
    fields = {"marks": "beside", "head": head, "validation_fraction": 0.2, "mixup_probability": 0.5}
    given = flags(folder, tmp_path / "run", **fields)
    assert main([*given, "--dry_run"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    report = json.loads((tmp_path / "run" / "dry_run" / "dry_run.json").read_text())
    assert report["refused"] == []
    sizes = [
        int(number) for number in re.search(r"data: (\d+) training clips, (\d+) to score, (\d+) to", said).groups()
    ]
    assert list(report["clips"].values()) == sizes
    assert sizes[1] > 10  # windows, and not recordings
    assert f"for {sizes[1]} scored clips" in said
    assert report["cost"]["measured_steps"] > 0
    assert "Not estimated: what the recordings are like" in said
    assert "heard once more for their events, and the validation recordings to choose what makes an event" in said


def test_hard_negatives_are_not_looked_for_and_that_is_said(folder, tmp_path, capsys):
    given = flags(folder, tmp_path / "run", marks="beside", hard_negatives=str(tmp_path))
    assert main([*given, "--dry_run"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "hard negatives, for which all background is scored before a training" in said

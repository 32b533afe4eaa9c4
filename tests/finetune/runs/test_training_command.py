"""What surrounds a training, whichever it is."""

import gc
from pathlib import Path

import pytest

from finetune import run_finetune, run_pretrain
from finetune.arguments.groups import FINE_TUNING
from finetune.runs.training_command import run_training_command


@pytest.fixture
def unfrozen():
    """The tests have frozen what they imported; a process of its own has not."""
    gc.unfreeze()
    yield
    gc.freeze()


def frozen_within(tmp_path, fails: bool = False) -> int:
    """Objects that the collector leaves alone while a training runs."""
    seen = []

    def run(argv, arguments):
        seen.append(gc.get_freeze_count())
        if fails:
            raise KeyError("x")

    argv = ["--dataset_name", str(tmp_path), "--output_dir", str(tmp_path / "run")]
    if fails:
        with pytest.raises(KeyError):
            run_training_command(FINE_TUNING, argv, run)
    else:
        assert run_training_command(FINE_TUNING, argv, run) == 0
    return seen[0]


@pytest.mark.parametrize("fails", [False, True])
def test_the_collector_leaves_alone_what_was_imported(tmp_path, unfrozen, fails):
    here = len(gc.get_objects())
    assert frozen_within(tmp_path, fails) > 0.9 * here
    assert gc.get_freeze_count() == 0


def test_what_a_caller_froze_stays_frozen(tmp_path, unfrozen):
    gc.freeze()
    frozen = gc.get_freeze_count()
    frozen_within(tmp_path)
    assert gc.get_freeze_count() >= 0.9 * frozen


@pytest.mark.parametrize("command", [run_finetune, run_pretrain])
def test_a_start_that_is_not_there_is_named(tmp_path, drum_rows, capsys, command):
    """It could be the id of a model of the Hub, which is not asked here."""
    flags = [
        "--dataset_name",
        str(Path(drum_rows[0]["path"]).parents[1]),
        "--output_dir",
        str(tmp_path / "run"),
        "--model_name_or_path",
        "runs/none",
    ]
    assert command.main(flags) == 2
    said = capsys.readouterr().err
    assert "There is no folder runs/none here, and as a Hub id it cannot be loaded" in said
    assert "HF_HUB_OFFLINE is set" in said
    assert "local directory" not in said

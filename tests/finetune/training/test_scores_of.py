"""What the last evaluation of a training scored is not scored again; other clips, weights or padding are."""

import json

import pytest
from tiny_trainings import SIZES, flags, summary_in, write_tones

from finetune.run_finetune import main
from finetune.training.trainer import ASTTrainer

EACH_EPOCH = {"eval_strategy": "epoch", "save_strategy": "no"}


@pytest.fixture(scope="module")
def tones(tmp_path_factory):
    return write_tones(tmp_path_factory.mktemp("tones") / "tones", count=4)


@pytest.fixture
def passes(monkeypatch):
    """How many clips each pass over scored clips had."""
    counts, evaluation_loop = [], ASTTrainer.evaluation_loop

    def counted(trainer, dataloader, *args, **kwargs):
        counts.append(len(dataloader.dataset))
        return evaluation_loop(trainer, dataloader, *args, **kwargs)

    monkeypatch.setattr(ASTTrainer, "evaluation_loop", counted)
    return counts


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        pytest.param({"eval_strategy": "no"}, 1, id="scored after the training alone"),
        pytest.param(EACH_EPOCH, 2, id="each epoch"),
        pytest.param(EACH_EPOCH | {"eval_strategy": "steps", "eval_steps": 3, "max_steps": 4}, 2, id="not the last step"),
        pytest.param(EACH_EPOCH | {"padding": "longest"}, 3, id="longest, and then as it is saved"),
        pytest.param(EACH_EPOCH | {"validation_fraction": 0.25}, 3, id="other clips"),
        pytest.param({"eval_strategy": "epoch", "load_best_model_at_end": True}, 3, id="weights of a checkpoint"),
        pytest.param(EACH_EPOCH | {"label_smoothing_factor": 0.1}, 2, id="another loss"),
    ],
)  # fmt: skip
def test_clips_are_scored_again_where_something_changed(tones, tmp_path, passes, fields, expected):
    assert main(flags(tones, tmp_path / "run", **fields)) == 0
    assert len(passes) == expected
    assert main([*flags(tones, tmp_path / "told", **fields), "--dry_run"]) == 0
    told = json.loads((tmp_path / "told" / "dry_run" / "dry_run.json").read_text())
    assert told["cost"]["evaluation_passes"] == expected


def test_weights_that_are_put_together_are_scored_again(tones, tmp_path, passes):
    assert main([*flags(tones, tmp_path / "start", **EACH_EPOCH), "--average_epochs", "1", "2"]) == 0
    assert len(passes) == 3
    sizes = dict.fromkeys(set(SIZES) - {"max_length"})
    adapted = EACH_EPOCH | sizes | {"model_name_or_path": tmp_path / "start", "lora_rank": 2}
    assert main(flags(tones, tmp_path / "run", **adapted)) == 0
    assert len(passes) == 6


def test_scores_of_the_last_epoch_are_those_of_a_run_that_scores_once(tones, tmp_path):
    for name in ("no", "epoch"):
        assert main(flags(tones, tmp_path / name, eval_strategy=name, save_strategy="no")) == 0
    once, each = (summary_in(tmp_path / name) for name in ("no", "epoch"))
    assert each["evaluation"].pop("protocol") != once["evaluation"].pop("protocol")
    assert each["evaluation"] == once["evaluation"]
    assert [row["eval_accuracy"] for row in each["history"] if "eval_accuracy" in row][-1] == each["evaluation"][
        "metrics"
    ]["accuracy"]

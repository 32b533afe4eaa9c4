"""The best checkpoint: found again where a run was moved, refused or said where it is lost, was never chosen or cannot be."""

import json
import re
import shutil

import pytest
import torch
from safetensors.torch import load_file
from tiny_trainings import flags, summary_in, write_tones

from finetune.arguments.command_line import parse_arguments
from finetune.run_finetune import main
from finetune.training.checkpoint_files import best_checkpoint
from finetune.training.trainer import ASTTrainer

BEST = {"eval_strategy": "epoch", "load_best_model_at_end": "true", "metric_for_best_model": "accuracy"}
CHECKPOINTS = [3, 6]  # steps of the two epochs


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_tones(tmp_path_factory.mktemp("tones") / "sc_v0.02")


@pytest.fixture(scope="module")
def begun(data, tmp_path_factory):
    """A run of two epochs whose first one, its last checkpoint says, was the best there can be."""
    folder = tmp_path_factory.mktemp("begun") / "run"
    assert main(flags(data, folder, save_total_limit=9, **BEST)) == 0
    for step in CHECKPOINTS:
        path = folder / f"checkpoint-{step}" / "trainer_state.json"
        state = json.loads(path.read_text())
        state |= {"best_metric": 2.0, "best_global_step": 3, "best_model_checkpoint": str(folder / "checkpoint-3")}
        path.write_text(json.dumps(state))
    return folder


@pytest.fixture
def run(begun, tmp_path):
    """A copy of it in another place, as if it had been moved there."""
    shutil.copytree(begun, tmp_path / "run")
    return tmp_path / "run"


def resume(data, run, **fields) -> int:
    settings = BEST | {"num_train_epochs": 3, "save_total_limit": 9, "resume_from_checkpoint": "true"} | fields
    return main(flags(data, run, **settings))


def test_the_best_checkpoint_of_a_moved_run_is_published(data, run, begun, monkeypatch):
    monkeypatch.chdir(run.parent)
    best = load_file(run / "checkpoint-3" / "model.safetensors")
    assert best_checkpoint(run / "checkpoint-6") == run / "checkpoint-3"
    shutil.rmtree(begun / "checkpoint-3")  # of the place that the state names
    try:
        # The folder by its name here, the checkpoint by its whole path.
        assert resume(data, "run", save_total_limit=1, resume_from_checkpoint=run / "checkpoint-6") == 0
    finally:
        shutil.copytree(run / "checkpoint-3", begun / "checkpoint-3")
    published = load_file(run / "model.safetensors")
    assert all(torch.equal(published[name], tensor) for name, tensor in best.items())
    evaluation = summary_in(run)["evaluation"]
    assert evaluation["best_checkpoint"] == {"metric": "accuracy", "step": 3, "value": 2.0}
    assert evaluation["protocol"].startswith("the best checkpoint by accuracy on this same split")


def test_a_best_checkpoint_of_another_folder_stays_the_best(data, run, tmp_path):
    best = load_file(run / "checkpoint-3" / "model.safetensors")
    assert resume(data, tmp_path / "other", resume_from_checkpoint=run / "checkpoint-6") == 0
    published = load_file(tmp_path / "other" / "model.safetensors")
    assert all(torch.equal(published[name], tensor) for name, tensor in best.items())


def lose_folder(checkpoint):
    shutil.rmtree(checkpoint)


def lose_weights(checkpoint):
    (checkpoint / "model.safetensors").unlink()


def cut_weights(checkpoint):
    path = checkpoint / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


LOSSES = {
    lose_folder: "it is not there",
    lose_weights: "its weights are missing",
    cut_weights: "is cut off or damaged",
}


@pytest.mark.parametrize("lose", LOSSES)
def test_a_run_whose_best_checkpoint_is_lost_is_not_resumed(data, run, begun, lose, capsys, monkeypatch):
    for step in CHECKPOINTS:  # it does not lie where it was first, either
        path = run / f"checkpoint-{step}" / "trainer_state.json"
        path.write_text(path.read_text().replace(str(begun), str(run)))
    lose(run / "checkpoint-3")
    before = sorted(path.name for path in run.iterdir())
    assert resume(data, run) == 2
    message = capsys.readouterr().err
    assert "checkpoint-6 records checkpoint-3 as the best by accuracy so far, but" in message
    assert LOSSES[lose] in message
    assert "--load_best_model_at_end false" in message
    assert sorted(path.name for path in run.iterdir()) == before
    # What the message says goes on, and says what it publishes.
    assert resume(data, run, load_best_model_at_end="false", eval_strategy="no", metric_for_best_model=None) == 0
    assert summary_in(run)["evaluation"]["protocol"] == "scored once, after the last epoch"


def test_a_checkpoint_from_before_the_lost_one_is_named(data, run, capsys):
    state = run / "checkpoint-6" / "trainer_state.json"
    state.write_text(
        json.dumps(json.loads(state.read_text()) | {"best_global_step": 5, "best_model_checkpoint": "x/checkpoint-5"})
    )
    assert resume(data, run) == 2
    assert f"--resume_from_checkpoint {run / 'checkpoint-3'}" in capsys.readouterr().err


@pytest.mark.parametrize(
    "changed",
    [{"metric_for_best_model": "loss"}, {"metric_for_best_model": "f1_macro"}],
    ids=lambda fields: str(fields),
)
def test_a_resumed_run_chooses_by_the_score_it_began_with(data, run, changed, capsys):
    assert resume(data, run, **changed) == 2
    assert "is from a run with other score of the best checkpoint" in capsys.readouterr().err


def test_a_choice_among_the_later_epochs_alone_is_refused(data, tmp_path, capsys):
    assert main(flags(data, tmp_path / "run", num_train_epochs=1)) == 0
    assert resume(data, tmp_path / "run") == 2
    assert "is from a run with other score of the best checkpoint" in capsys.readouterr().err


def say_that_it_is_lost(run, printed: str, why: str):
    """Summary, card and output of a run that published the last weights."""
    protocol = f"the last weights, not the best checkpoint by {why}"
    evaluation = summary_in(run)["evaluation"]
    assert evaluation["protocol"].startswith(protocol)
    assert evaluation["best_checkpoint"]["not_chosen"] == why.split(": ", 1)[1]
    assert f"Protocol: {protocol}" in (run / "README.md").read_text()
    assert f"published are {protocol}" in printed


def test_a_best_checkpoint_that_is_lost_in_the_training_is_said(data, tmp_path, monkeypatch, capsys):
    save, published = ASTTrainer._save_checkpoint, {}

    def save_and_lose(self, *args):
        save(self, *args)
        if self.state.global_step == 6:
            published.update({name: tensor.clone() for name, tensor in self.model.state_dict().items()})
            shutil.rmtree(self.state.best_model_checkpoint)

    monkeypatch.setattr(ASTTrainer, "_save_checkpoint", save_and_lose)
    run = tmp_path / "run"
    assert main(flags(data, run, **BEST)) == 0
    name = re.search(r"checkpoint-\d", summary_in(run)["evaluation"]["protocol"]).group()
    say_that_it_is_lost(run, capsys.readouterr().out, f"accuracy: {name} was the best, but it is not there")
    for name, tensor in load_file(run / "model.safetensors").items():
        assert torch.equal(tensor, published[name]), name


def test_scores_that_are_no_number_choose_nothing_and_that_is_said(tmp_path, capsys):
    """Where all scored clips are of one class, there is no area under the curve."""
    write_tones(tmp_path / "data" / "train")
    write_tones(tmp_path / "data" / "test", "a", 3, seed=1)
    run = tmp_path / "run"
    assert main(flags(tmp_path / "data", run, **BEST | {"metric_for_best_model": "roc_auc_macro"})) == 0
    say_that_it_is_lost(run, capsys.readouterr().out, "roc_auc_macro: it was no number in any evaluation")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"eval_strategy": "no", "save_strategy": "no", "metric_for_best_model": None},
            "Pass --eval_strategy epoch with --save_strategy epoch",
        ),
        (
            {"eval_strategy": "no", "save_strategy": "best", "metric_for_best_model": None},
            "Pass --eval_strategy epoch with --save_strategy epoch",
        ),
        (
            {"eval_strategy": "steps", "save_strategy": "steps", "eval_steps": 1, "save_steps": 2},
            "with --eval_steps 1 and --save_steps 2 the best one may have no checkpoint",
        ),
        ({"metric_for_best_model": "f1"}, "expected loss, accuracy, .* Did you mean f1_macro"),
        ({"metric_for_best_model": "eval_mAP"}, "metric_for_best_model='eval_mAP' is no score"),
        ({"load_best_model_at_end": "false", "metric_for_best_model": "foo"}, "is no score of an evaluation"),
        (
            {
                "load_best_model_at_end": "false",
                "lr_scheduler_type": "reduce_lr_on_plateau",
                "metric_for_best_model": "foo",
            },
            "is no score of an evaluation",
        ),
    ],
)
def test_a_best_checkpoint_that_cannot_be_chosen_is_refused(data, tmp_path, fields, message):
    with pytest.raises(ValueError, match=message):
        parse_arguments(flags(data, tmp_path / "run", **BEST | fields))


@pytest.mark.parametrize(
    ("metric", "greater", "words"),
    [
        ("accuracy", "false", "the checkpoint with the lowest accuracy"),
        ("loss", "true", "the checkpoint with the highest loss"),
    ],
)
def test_a_choice_of_the_worst_checkpoint_is_not_called_the_best(data, tmp_path, metric, greater, words, capsys):
    fields = BEST | {"metric_for_best_model": metric, "greater_is_better": greater, "num_train_epochs": 1}
    assert main(flags(data, tmp_path / "run", **fields)) == 0
    assert f"chooses {words}" in capsys.readouterr().out
    assert f"Protocol: {words} on this same split" in (tmp_path / "run" / "README.md").read_text()


@pytest.mark.parametrize(
    ("fields", "end"),
    [
        ({"eval_delay": 3}, "2 epochs"),
        (
            {"eval_delay": 7, "eval_strategy": "steps", "save_strategy": "steps", "eval_steps": 2, "save_steps": 2},
            "6 steps",
        ),
        ({"eval_delay": 2, "max_steps": 4}, "1.33333 epochs"),
    ],
)
def test_scoring_that_would_begin_after_the_end_is_refused(data, tmp_path, fields, end, capsys):
    assert main(flags(data, tmp_path / "run", **BEST | fields)) == 2
    assert f"is beyond the end of the training at {end}" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "fields",
    [
        {"eval_strategy": "steps", "save_strategy": "steps", "eval_steps": 2, "save_steps": 2, "eval_delay": 6},
        {"save_strategy": "best", "eval_delay": 2, "metric_for_best_model": "eval_loss"},
    ],
    ids=["at the last step", "by the last epoch"],
)
def test_the_last_chance_to_be_scored_is_taken(data, tmp_path, fields):
    assert main(flags(data, tmp_path / "run", **BEST | fields)) == 0
    assert summary_in(tmp_path / "run")["evaluation"]["best_checkpoint"]["step"] == 6
    assert summary_in(tmp_path / "run")["data"]["name"] == "sc_v0.02"


def test_an_evaluation_without_a_checkpoint_of_its_step_does_not_become_one(data, tmp_path):
    """Scored every step, saved every second: of equal scores the first is the best, and was not saved."""
    settings = {
        "eval_strategy": "steps",
        "eval_steps": 1,
        "save_strategy": "steps",
        "save_steps": 2,
        "learning_rate": 0,
    }
    assert main(flags(data, tmp_path / "run", metric_for_best_model="loss", **settings)) == 0
    state = json.loads((tmp_path / "run" / "checkpoint-6" / "trainer_state.json").read_text())
    assert (state["best_global_step"], state["best_model_checkpoint"]) == (1, None)

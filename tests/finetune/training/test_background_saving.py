"""A checkpoint that gets onto the disk beside the training: whole or absent, in order, its errors told, waited for."""

import threading

import pytest
import torch
from tiny_trainings import write_recipe
from transformers import TrainerCallback

from finetune.arguments.command_line import parse_arguments
from finetune.run_finetune import main
from finetune.runs.training_run import prepare_run
from finetune.training import trainer as trainer_file
from modeling_ast import ASTForAudioClassification


def names_in(run) -> set[str]:
    return {path.name for path in run.glob("checkpoint-*")}


class Steps(TrainerCallback):
    """Notes what lies in the run's folder at each step, and lets the disk go on at the second."""

    def __init__(self, run, disk: threading.Event):
        self.run, self.disk, self.seen = run, disk, []

    def on_step_end(self, args, state, control, **kwargs):
        self.seen.append(names_in(self.run))
        if state.global_step == 2:
            self.disk.set()


@pytest.fixture
def prepared(few_drums, tmp_path):
    recipe = write_recipe(tmp_path, few_drums, save_strategy="steps", save_steps=1, max_steps=3, num_train_epochs=None)
    return prepare_run([recipe], parse_arguments([recipe]))


def test_training_goes_on_while_the_disk_is_slow_and_the_files_are_those_of_their_step(
    prepared, tmp_path, monkeypatch
):
    run, disk, weights = tmp_path / "run", threading.Event(), {}
    sync = trainer_file.sync
    monkeypatch.setattr(trainer_file, "sync", lambda path: disk.wait(60) and sync(path))
    steps = Steps(run, disk)

    class Weights(TrainerCallback):
        def on_step_end(self, args, state, control, model=None, **kwargs):
            weights[state.global_step] = model.state_dict()["classifier.dense.weight"].clone()

    prepared.trainer.add_callback(steps)
    prepared.trainer.add_callback(Weights)
    prepared.trainer.args.save_total_limit = 2
    prepared.trainer.train()
    assert steps.seen[:2] == [set(), set()]  # the second step came before the first checkpoint was there
    assert names_in(run) == {"checkpoint-2", "checkpoint-3"}
    for step in (2, 3):
        saved = ASTForAudioClassification.from_pretrained(run / f"checkpoint-{step}").classifier.dense.weight
        assert torch.equal(saved, weights[step])
    assert not torch.equal(weights[2], weights[3])


def test_callbacks_that_look_for_the_checkpoint_find_it(prepared, tmp_path):
    found = []

    class Looks(TrainerCallback):
        def on_save(self, args, state, control, **kwargs):
            found.append((tmp_path / "run" / f"checkpoint-{state.global_step}" / "optimizer.pt").is_file())

    prepared.trainer.add_callback(Looks)
    prepared.trainer.train()
    assert found == [True, True, True]


def test_a_full_disk_is_told(few_drums, tmp_path, capsys, monkeypatch):
    recipe = write_recipe(tmp_path, few_drums, num_train_epochs=1)

    def full(path):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(trainer_file, "sync", full)
    assert main([recipe]) == 1
    assert f"The disk of {tmp_path / 'run'} is full" in capsys.readouterr().err
    assert not names_in(tmp_path / "run")

"""Errors of a loader's processes: once they are handled no process is left, without the garbage collector."""

import gc
import traceback
from multiprocessing import active_children

import pytest
from tiny_trainings import write_recipe

from finetune.arguments.command_line import parse_arguments
from finetune.clip_sets import decoding
from finetune.clip_sets.waveforms import ASTDataset
from finetune.failures.stopped_trainings import TrainingStoppedError
from finetune.runs.training_run import PreparedRun, prepare_run, train_run
from finetune.scores.scoring import predict_scores
from modeling_ast.audio import AudioError

NAME = "9.wav"


@pytest.fixture
def left():
    """Tells how many processes run that did not before, while no garbage is collected."""
    before = set(active_children())
    gc.disable()
    yield lambda: len(set(active_children()) - before)
    gc.enable()


@pytest.fixture(scope="module")
def run(few_drums, tmp_path_factory) -> PreparedRun:
    """A training that scores its clips within the epoch and reads them in two processes."""
    recipe = write_recipe(
        tmp_path_factory.mktemp("run"), few_drums, dataloader_num_workers=2, eval_strategy="steps", eval_steps=1,
        save_strategy="no", num_train_epochs=1, memory_for_clips=0,
    )  # fmt: skip
    return prepare_run([recipe], parse_arguments([recipe]))


def fail_in_workers(monkeypatch, dataset: ASTDataset, error: Exception):
    def fail(*_):
        raise error

    monkeypatch.setattr(dataset, "decode", fail)


def train(run: PreparedRun):
    run.trainer.train()


def evaluate(run: PreparedRun):
    run.trainer.evaluate()


def score(run: PreparedRun):
    trainer = run.trainer
    predict_scores(trainer.model, trainer.feature_extractor, run.clips["eval"], 4, num_workers=2)


@pytest.mark.parametrize(("go", "side"), [(train, "train"), (train, "eval"), (evaluate, "eval"), (score, "eval")])
def test_an_error_of_a_process_leaves_none_behind_and_says_where_it_was(run, monkeypatch, left, go, side):
    fail_in_workers(monkeypatch, run.clips[side], ValueError(NAME))
    with pytest.raises(ValueError, match=f"in DataLoader worker process (?s:.*){NAME}") as caught:
        go(run)
    assert traceback.extract_tb(caught.value.__traceback__)[-1].name == "reraise"
    del caught
    assert left() == 0


@pytest.mark.parametrize("side", ["train", "eval"])
def test_a_training_that_a_clip_stops_leaves_no_process_behind(run, monkeypatch, left, side):
    fail_in_workers(monkeypatch, run.clips[side], AudioError(f"{NAME} is empty."))
    with pytest.raises(TrainingStoppedError, match=f"^{NAME} is empty. No checkpoint had been saved"):
        train_run(run)
    assert left() == 0


def test_a_training_that_is_stopped_between_two_batches_leaves_no_process_behind(run, monkeypatch, left):
    def fail(*_):
        raise MemoryError

    monkeypatch.setattr(run.trainer, "training_step", fail)
    with pytest.raises(TrainingStoppedError, match="memory of this machine is full"):
        train_run(run)
    assert left() == 0


def test_a_look_at_clips_that_fails_leaves_no_process_behind(run, monkeypatch, left):
    def fail(*_):
        raise TypeError(NAME)

    monkeypatch.setattr(decoding, "hear_clip", fail)
    clips = run.clips["train"]
    with pytest.raises(TypeError, match=NAME):
        list(decoding.decoded_clips(clips.split, range(8), clips.reader, 16_000, 2, "looking"))
    assert left() == 0

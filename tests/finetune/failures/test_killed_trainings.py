"""Trainings that are killed, in a save and at random moments: resumed, they end bit for bit like one left alone.

A child is killed with its loader workers (SIGKILL to its process group), so that nothing gets a chance to tidy up.
"""

import json
import os
import random
import signal
import time
from pathlib import Path

import forked_python
import psutil
import pytest
import torch
import yaml

from finetune.run_finetune import main
from finetune.training.run_folder import UNFINISHED, checkpoints_in

SETTINGS = {
    "dataset_name": "finetune/sample_data/drums",
    "ignore_labels": ["snare", "tom", "crash", "ride", "kick"],  # leaves 112 clips: 14 updates an epoch
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64, "max_length": 32,
    "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1,
    "mixup_probability": 0.5, "max_frequency_mask": 24, "max_time_mask": 8, "noise_strength": 0.1, "max_roll": 4,
    "max_gain_db": 6, "max_speed_change": 0.1, "train_sampling_strategy": "class_balanced",
    "per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "learning_rate": 1.0e-3,
    "lr_scheduler_type": "cosine", "warmup_steps": 10, "dataloader_num_workers": 2, "disable_tqdm": True,
    "use_cpu": True, "save_strategy": "steps", "save_steps": 3, "logging_strategy": "steps", "logging_steps": 1,
}  # fmt: skip
STATE_FILES = ("model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth")
TIMINGS = {"train_runtime", "train_samples_per_second", "train_steps_per_second"}
TRAINING_STARTS = "[4/6]"
NUM_KILLS, KILL_IN_SAVE = 5, 2  # five kills, the third of them in a save
PATIENCE = 300  # seconds


class Training:
    """`python -m finetune.run_finetune` in a process group of its own, with as many threads as this process has."""

    def __init__(self, recipe: Path, *flags: str):
        self.folder = Path(yaml.safe_load(recipe.read_text())["output_dir"])
        self.log = recipe.with_suffix(".log")
        code = (
            f"import sys, torch; torch.set_num_threads({torch.get_num_threads()})\n"
            "from finetune.run_finetune import main; sys.stdout.reconfigure(write_through=True); sys.exit(main())"
        )
        with self.log.open("w") as log:
            self.process = forked_python.Child(["-c", code, recipe, *flags], log, log, session=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.kill()

    def kill(self):
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(PATIENCE)

    def wait_until(self, condition):
        """Wait for a training that still runs; what it printed is shown if it does not any more."""
        end = time.monotonic() + PATIENCE
        while not condition():
            assert self.process.poll() is None, f"ended too early:\n{self.log.read_text()}"
            assert time.monotonic() < end, f"nothing happened:\n{self.log.read_text()}"
            time.sleep(0.0005)

    def wait_for_its_start(self):
        self.wait_until(lambda: TRAINING_STARTS in self.log.read_text())

    def wait_for_its_end(self):
        code = self.process.wait(PATIENCE)
        assert code == 0, self.log.read_text()

    def kill_in_a_save(self, not_before: int = 0) -> str:
        """Kill it while a checkpoint is written, after this step; returns the checkpoint's name."""

        def written() -> list[str]:
            found = (path.name for path in (self.folder / UNFINISHED).glob("checkpoint-*"))
            return [name for name in found if int(name.split("-")[1]) > not_before]

        while True:
            self.wait_until(written)
            os.killpg(self.process.pid, signal.SIGSTOP)
            self.wait_until(lambda: psutil.Process(self.process.pid).status() == psutil.STATUS_STOPPED)
            if names := written():
                self.kill()
                return names[0]
            os.killpg(self.process.pid, signal.SIGCONT)  # that save ended before the signal came


@pytest.fixture
def write_recipe(tmp_path):
    def write(name: str, **settings) -> Path:
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(SETTINGS | settings | {"output_dir": str(tmp_path / name)}))
        return path

    return write


def assert_same_end(folder: Path, expected: Path):
    """Weights, the last checkpoint's files and every logged loss are those of the other run, bit for bit."""
    assert (folder / "model.safetensors").read_bytes() == (expected / "model.safetensors").read_bytes()
    last, expected_last = checkpoints_in(folder)[-1], checkpoints_in(expected)[-1]
    assert last.name == expected_last.name
    for name in STATE_FILES:
        assert_equal(read(last / name), read(expected_last / name), name)
    losses, expected_losses = (
        [entry for entry in state["log_history"] if not TIMINGS & entry.keys()]
        for state in (json.loads((path / "trainer_state.json").read_text()) for path in (last, expected_last))
    )
    assert losses == expected_losses
    assert not (folder / UNFINISHED).exists()


def read(path: Path):
    return path.read_bytes() if path.suffix == ".safetensors" else torch.load(path, weights_only=False)


def assert_equal(value, expected, place: str):
    if isinstance(expected, dict):
        assert value.keys() == expected.keys(), place
        for key in expected:
            assert_equal(value[key], expected[key], f"{place}: {key}")
    elif isinstance(expected, (list, tuple)):
        assert len(value) == len(expected), place
        for number, (one, other) in enumerate(zip(value, expected, strict=True)):
            assert_equal(one, other, f"{place}: {number}")
    elif isinstance(expected, torch.Tensor):
        assert torch.equal(value, expected), place
    elif hasattr(expected, "tobytes"):
        assert value.tobytes() == expected.tobytes(), place
    else:
        assert value == expected, place


def resume_flags(folder: Path) -> list[str]:
    return ["--resume_from_checkpoint", "true"] if checkpoints_in(folder) else []


def test_a_training_killed_in_a_save_and_resumed_ends_like_one_left_alone(write_recipe, tmp_path):
    settings = {"max_steps": 8, "save_total_limit": 1}
    # Workers change no number; those of a process that has threads already, as this one may, could hang.
    alone = ["--dataloader_num_workers", "0"]
    assert main([str(write_recipe("whole", **settings)), *alone]) == 0
    recipe = write_recipe("killed", **settings)
    with Training(recipe) as training:
        name = training.kill_in_a_save(not_before=3)
    folder = tmp_path / "killed"
    assert (folder / UNFINISHED / name).is_dir()
    assert not (folder / name).exists()
    assert checkpoints_in(folder), "an older checkpoint is kept until the new one is whole"
    assert main([str(recipe), "--resume_from_checkpoint", "true", *alone]) == 0
    assert_same_end(folder, tmp_path / "whole")


@pytest.mark.long
def test_a_training_killed_five_times_ends_like_one_left_alone(write_recipe, tmp_path):
    settings = {"num_train_epochs": 6, "save_total_limit": 2}
    with Training(write_recipe("whole", **settings)) as training:
        training.wait_for_its_start()
        start = time.monotonic()
        training.wait_for_its_end()
        duration = time.monotonic() - start

    recipe, folder, moments = write_recipe("killed", **settings), tmp_path / "killed", random.Random(0)
    reached = []
    for kill in range(NUM_KILLS):
        with Training(recipe, *resume_flags(folder)) as training:
            training.wait_for_its_start()
            moment = time.monotonic() + moments.uniform(0, duration / NUM_KILLS)
            training.wait_until(lambda moment=moment: time.monotonic() >= moment)
            if kill == KILL_IN_SAVE:
                training.kill_in_a_save()
                assert list((folder / UNFINISHED).glob("checkpoint-*"))
            else:
                training.kill()
        reached.append([path.name for path in checkpoints_in(folder)])
    assert reached[-1], "no checkpoint was resumed from"
    with Training(recipe, *resume_flags(folder)) as training:
        training.wait_for_its_end()
    print(f"{duration:.1f} s of training; checkpoints after each kill: {reached}")
    assert_same_end(folder, tmp_path / "whole")


@pytest.mark.long
def test_a_training_killed_in_its_first_save_is_started_anew(write_recipe, tmp_path, capsys):
    recipe = write_recipe("killed", num_train_epochs=1)
    with Training(recipe) as training:
        assert training.kill_in_a_save() == "checkpoint-3"
    assert main([str(recipe), "--resume_from_checkpoint", "true"]) == 2
    error = capsys.readouterr().err
    assert "There is nothing to resume from" in error
    assert "or leave it out" in error
    assert main([str(recipe), "--dataloader_num_workers", "0"]) == 0
    assert main([str(write_recipe("whole", num_train_epochs=1)), "--dataloader_num_workers", "0"]) == 0
    assert_same_end(tmp_path / "killed", tmp_path / "whole")

"""What a training leaves in its output folder when it is refused, ends while its result is written, or replaces a run."""

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import types
from pathlib import Path

import datasets
import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file, save_file
from tiny_trainings import write_recipe

from finetune import InputError
from finetune.arguments.command_line import parse_arguments
from finetune.arguments.groups import ModelArguments
from finetune.failures.input_errors import input_errors_in_words
from finetune.fine_tuning import fine_tune
from finetune.run_finetune import main
from finetune.runs.training_run import prepare_run
from finetune.training.checkpoint_files import fault_of, fault_of_files
from finetune.training.trainer import ASTTrainer
from modeling_ast.system.run_lock import LOCK_NAME, LockedError, hold_lock

EPOCHS = 2
SETTINGS = {
    "max_length": 64, "normalization": [-6.5, 4.5], "num_train_epochs": EPOCHS, "per_device_train_batch_size": 4,
    "save_strategy": "no",
}  # fmt: skip
RESULT = {
    "config.json", "model.safetensors", "preprocessor_config.json", "recipe.yaml", "run_summary.json", "README.md",
    "training_curve.png",
}  # fmt: skip


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    """Noise of two classes, 8 clips to train on and 4 to score."""
    folder = tmp_path_factory.mktemp("clips")
    generator = np.random.default_rng(0)
    for split, count in (("train", 4), ("test", 2)):
        for label in ("a", "b"):
            (folder / split / label).mkdir(parents=True)
            for number in range(count):
                samples = generator.uniform(-0.3, 0.3, 8000).astype(np.float32)
                soundfile.write(folder / split / label / f"{number}.wav", samples, 16_000)
    return folder


pytestmark = pytest.mark.usefixtures("interruptible")


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    """They take longer than these trainings."""
    for name in ("plot_confusion_matrix", "_plot_example"):
        monkeypatch.setattr(f"finetune.results.publishing.{name}", lambda *_: None)
    monkeypatch.setattr("finetune.results.publishing.plot_training_curve", lambda _, path: path.touch())


@pytest.fixture
def recipe(clips, tmp_path) -> str:
    return write_recipe(tmp_path, clips, **SETTINGS)


def stopped(recipe: str, capsys, *flags: str, code: int = 1) -> str:
    """Run it; the one message with which it stops."""
    assert main([recipe, *flags]) == code
    error = capsys.readouterr().err
    assert error.startswith("ast-finetune: ")
    assert error.count("\n") == 1
    return error


def files_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


# A folder that is not needed


def test_a_new_folder_on_a_read_only_disk_is_refused_in_words(recipe, small_disk, capsys):
    disk = small_disk(1)
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    message = stopped(recipe, capsys, "--output_dir", str(disk / "a" / "run"), code=2)
    assert f"Nothing can be written into {disk / 'a' / 'run'}: Read-only file system." in message
    assert "Pass another --output_dir." in message


def test_a_folder_that_can_be_made_but_not_written_is_not_left(recipe, tmp_path, capsys, monkeypatch):
    def refuse(**_):
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    monkeypatch.setattr("finetune.results.output_folder.tempfile.TemporaryFile", refuse)
    assert "Disk quota exceeded. Pass another --output_dir." in stopped(recipe, capsys, code=1)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("flags", [["--dataset_name", "nowhere"], ["--num_attention_heads", "3"]], ids=["data", "model"])  # fmt: skip
def test_a_refused_call_leaves_no_folder(recipe, tmp_path, capsys, flags):
    place = ["--output_dir", str(tmp_path / "new" / "run")]
    stopped(recipe, capsys, *place, *flags, code=2)
    assert not (tmp_path / "new").exists()


def test_a_refused_call_leaves_a_folder_that_was_there(recipe, tmp_path, capsys):
    (tmp_path / "run").mkdir()
    stopped(recipe, capsys, "--dataset_name", "nowhere", code=2)
    assert (tmp_path / "run").is_dir()


# A result that is not written to its end


def test_the_result_is_titled_with_its_folder_and_nothing_is_left_beside_it(recipe, tmp_path):
    assert main([recipe]) == 0
    assert files_in(tmp_path / "run") == RESULT
    assert "\n# run\n" in (tmp_path / "run" / "README.md").read_text()


def test_a_disk_that_is_full_when_the_card_is_written_leaves_nothing_in_the_way(recipe, tmp_path, capsys, monkeypatch):
    def fail(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as context:
        context.setattr("finetune.results.publishing.write_model_card", fail)
        message = stopped(recipe, capsys)
    assert "No checkpoint had been saved; type the same command again to start anew." in message
    assert files_in(tmp_path / "run") == set()
    assert main([recipe]) == 0


class Killed(BaseException):
    """Stands for SIGKILL: nothing of the kit handles it."""


def stop_at_move(monkeypatch, number: int, act):
    """Call `act` before the file of this number, from 0, is moved to its place."""
    replace, moves = os.replace, []

    def counted(source, target):
        if Path(source).parents[1].name == ".unfinished":
            if len(moves) == number:
                act()
            moves.append(target)
        replace(source, target)

    monkeypatch.setattr("finetune.results.publishing.os", types.SimpleNamespace(replace=counted))


@pytest.mark.parametrize("moved", [0, 6])
def test_a_training_killed_while_its_result_is_moved_is_started_anew_by_the_same_command(
    recipe, tmp_path, capsys, monkeypatch, moved
):
    def kill():
        raise Killed

    with monkeypatch.context() as context:
        stop_at_move(context, moved, kill)
        context.setattr("finetune.failures.stopped_trainings.remove_unfinished", lambda _: None)
        with pytest.raises(Killed):
            main([recipe])
    in_place = {path.name for path in (tmp_path / "run").iterdir() if path.is_file()}
    assert len(in_place) == moved
    assert "run_summary.json" not in in_place, "it tells that a run is there"
    capsys.readouterr()
    assert main([recipe]) == 0
    words = f"{tmp_path / 'run'} holds a result that was not written to its end. It is removed and trained anew."
    assert words in capsys.readouterr().out.splitlines()
    assert files_in(tmp_path / "run") == RESULT


def test_an_interruption_while_the_result_is_moved_leaves_nothing_of_it(recipe, tmp_path, capsys, monkeypatch):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("mine")
    with monkeypatch.context() as context:
        stop_at_move(context, 3, lambda: os.kill(os.getpid(), signal.SIGINT))
        message = stopped(recipe, capsys, code=130)
    assert "type the same command again to start anew" in message
    assert files_in(tmp_path / "run") == {"notes.txt"}
    assert main([recipe]) == 0


def test_the_summary_of_a_run_that_was_gone_on_with_never_stands_beside_newer_weights(
    recipe, tmp_path, capsys, monkeypatch
):
    saved = ["--save_strategy", "epoch"]
    assert main([recipe, *saved, "--num_train_epochs", "1"]) == 0
    with monkeypatch.context() as context:
        stop_at_move(context, 4, lambda: os.kill(os.getpid(), signal.SIGINT))
        stopped(recipe, capsys, *saved, "--resume_from_checkpoint", "true", code=130)
    assert not (tmp_path / "run" / "run_summary.json").exists()
    assert main([recipe, *saved, "--resume_from_checkpoint", "true"]) == 0
    assert json.loads((tmp_path / "run" / "run_summary.json").read_text())["history"][-1]["epoch"] == EPOCHS


def test_what_lies_in_a_folder_is_not_taken_for_a_part_of_a_result_because_a_checkpoint_was_being_written(
    recipe, tmp_path, capsys
):
    (tmp_path / "run" / ".unfinished" / "checkpoint-2").mkdir(parents=True)
    (tmp_path / "run" / "README.md").write_text("mine")
    assert "holds a README.md that is not from a run of this kit" in stopped(recipe, capsys, code=2)
    assert (tmp_path / "run" / "README.md").read_text() == "mine"


def test_sources_in_the_folder_of_a_result_that_was_being_moved_are_not_removed(recipe, tmp_path, capsys):
    moved = tmp_path / "run" / ".unfinished" / "run" / "run_summary.json"
    moved.parent.mkdir(parents=True)
    moved.touch()
    source = tmp_path / "run" / "README.md"
    source.touch()
    assert "lies in the output folder" in stopped(recipe, capsys, "--dataset_name", str(source), code=2)
    assert source.exists()


# A checkpoint that is not whole

SAVED = ["--save_strategy", "epoch", "--save_total_limit", "9"]


@pytest.fixture(scope="module")
def saved(clips, tmp_path_factory) -> Path:
    """The checkpoints of a training, `checkpoint-2` and `checkpoint-4`."""
    folder = tmp_path_factory.mktemp("saved")
    command = [write_recipe(folder, clips, **SETTINGS), *SAVED]
    prepare_run(command, parse_arguments(command)).trainer.train()
    return folder / "run"


def cut(path: Path):
    os.truncate(path, path.stat().st_size // 2)


def flip_a_byte(path: Path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        *((name, cut) for name in ("model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth")),
        *((name, cut) for name in ("trainer_state.json", "run_identity.json")),
        ("optimizer.pt", flip_a_byte),
        ("scheduler.pt", lambda path: os.truncate(path, 0)),
    ],
)
def test_a_checkpoint_with_a_file_that_is_not_whole_is_refused_and_an_older_one_is_named(
    recipe, saved, tmp_path, capsys, file, damage
):
    run = tmp_path / "run"
    shutil.copytree(saved, run)
    damage(run / "checkpoint-4" / file)
    damaged = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    message = stopped(recipe, capsys, *SAVED, "--resume_from_checkpoint", "true", code=2)
    size = (run / "checkpoint-4" / file).stat().st_size
    assert (
        f"{run / 'checkpoint-4'} cannot be resumed from: its {file} is cut off or damaged ({size} bytes)." in message
    )
    assert f"Pass --resume_from_checkpoint {run / 'checkpoint-2'}, the newest one that is whole." in message
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == damaged


def test_the_older_checkpoint_that_is_named_is_gone_on_with(recipe, saved, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(saved, run)
    cut(run / "checkpoint-4" / "optimizer.pt")
    message = stopped(recipe, capsys, *SAVED, "--resume_from_checkpoint", "true", code=2)
    named = re.search(r"--resume_from_checkpoint \S+checkpoint-2", message)[0]
    assert main([recipe, *SAVED, *named.split()]) == 0
    expected, resumed = (torch.load(path / "checkpoint-4" / "optimizer.pt") for path in (saved, run))
    assert resumed["state"].keys() == expected["state"].keys()
    for number, slots in expected["state"].items():
        assert all(torch.equal(resumed["state"][number][name], value) for name, value in slots.items())


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("model.safetensors", "its weights are missing"),
        ("optimizer.pt", "its optimizer.pt is missing"),
        ("scheduler.pt", "its scheduler.pt is missing"),
    ],
)
def test_a_checkpoint_that_lacks_what_is_resumed_from_is_refused_and_no_damaged_one_is_named(
    recipe, saved, tmp_path, capsys, file, words
):
    run = tmp_path / "run"
    shutil.copytree(saved, run)
    (run / "checkpoint-4" / file).unlink()
    cut(run / "checkpoint-2" / "model.safetensors")
    message = stopped(recipe, capsys, *SAVED, "--resume_from_checkpoint", "true", code=2)
    assert f"cannot be resumed from: {words}. No other one there is whole" in message
    assert "start anew with --overwrite_output_dir in place of --resume_from_checkpoint" in message


def test_a_file_that_nothing_is_resumed_from_may_be_damaged(saved, tmp_path):
    shutil.copytree(saved / "checkpoint-2", tmp_path / "checkpoint-2")
    cut(tmp_path / "checkpoint-2" / "training_args.bin")
    assert fault_of_files(tmp_path / "checkpoint-2") is None


def test_a_file_that_cannot_be_read_is_not_called_damaged(saved, tmp_path):
    shutil.copytree(saved / "checkpoint-2", tmp_path / "checkpoint-2")
    state = tmp_path / "checkpoint-2" / "optimizer.pt"
    state.unlink()
    state.mkdir()
    assert fault_of_files(tmp_path / "checkpoint-2") == "its optimizer.pt cannot be read: Is a directory"


@pytest.mark.parametrize("slot", ["exp_avg", "exp_avg_sq"])
def test_a_checkpoint_is_sound_only_if_weights_and_optimiser_state_are_numbers(saved, tmp_path, slot):
    checkpoint = tmp_path / "checkpoint-2"
    shutil.copytree(saved / "checkpoint-2", checkpoint)
    assert fault_of(checkpoint) is None
    weights, state = load_file(checkpoint / "model.safetensors"), torch.load(checkpoint / "optimizer.pt")
    state["state"][3][slot].view(-1)[0] = torch.inf
    torch.save(state, checkpoint / "optimizer.pt")
    assert fault_of_files(checkpoint) is None
    assert fault_of(checkpoint) == "its optimiser state is not numbers"
    weights["classifier.dense.bias"][0] = torch.nan
    save_file(weights, checkpoint / "model.safetensors")
    assert fault_of(checkpoint) == "its weights are not numbers"


# Disks that are full in the middle of a file


def test_a_disk_that_fills_in_the_middle_of_the_optimizer_state(recipe, small_disk, capsys, monkeypatch):
    disk = small_disk(5)
    flags = ["--output_dir", str(disk / "run"), "--save_strategy", "epoch", "--hidden_size", "64"]
    save = ASTTrainer._save_optimizer_and_scheduler

    def fill_and_save(self, folder):
        if self.state.epoch == EPOCHS:
            needed = (disk / "run" / "checkpoint-2" / "optimizer.pt").stat().st_size
            free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
            (disk / "filler").write_bytes(bytes(free - needed // 2))
        save(self, folder)

    with monkeypatch.context() as context:
        context.setattr(ASTTrainer, "_save_optimizer_and_scheduler", fill_and_save)
        message = stopped(recipe, capsys, *flags)
    assert f"The disk of {disk / 'run'} is full" in message
    assert f"The last checkpoint is {disk / 'run' / 'checkpoint-2'}" in message
    assert [path.name for path in (disk / "run").iterdir()] == ["checkpoint-2"]
    (disk / "filler").unlink()
    assert main([recipe, *flags, "--resume_from_checkpoint", "true"]) == 0


def disk_error(said: str, cause: Exception | None = None) -> RuntimeError:
    error = RuntimeError(said)
    error.__context__ = cause
    return error


@pytest.mark.parametrize(
    "error",
    [
        disk_error("[enforce fail at inline_container.cc:672] . unexpected pos 367680 vs 367568"),
        disk_error("basic_ios::clear: iostream error"),
        disk_error("the archive could not be closed", OSError(errno.ENOSPC, "No space left on device")),
    ],
    ids=["writer", "stream", "context"],
)
def test_what_writers_say_of_a_full_disk_is_understood(recipe, tmp_path, capsys, monkeypatch, error):
    def fail(self, _):
        raise error

    monkeypatch.setattr(ASTTrainer, "_save_optimizer_and_scheduler", fail)
    message = stopped(recipe, capsys, "--save_strategy", "epoch")
    assert f"The disk of {tmp_path / 'run'} is full" in message
    assert "Make room." in message


@pytest.mark.parametrize("error", [RuntimeError("a bug"), TypeError("a bug")], ids=lambda error: type(error).__name__)
def test_an_unknown_error_leaves_nothing_half_written(recipe, tmp_path, monkeypatch, error):
    def fail(self, _):
        assert (tmp_path / "run" / ".unfinished").is_dir()
        raise error

    monkeypatch.setattr(ASTTrainer, "_save_optimizer_and_scheduler", fail)
    with pytest.raises(type(error), match="a bug"):
        main([recipe, "--save_strategy", "epoch"])
    assert not (tmp_path / "run").exists()


# Memory that is full, and other errors, before a training


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"),
        MemoryError(),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
    ],
    ids=lambda error: type(error).__name__,
)  # fmt: skip
def test_memory_that_is_full_before_the_training_is_told_with_what_to_type(recipe, capsys, monkeypatch, error):
    def fail(*_):
        raise error

    monkeypatch.setattr("finetune.runs.tasks.build_model", fail)
    message = stopped(recipe, capsys, code=1)
    assert "The memory of this machine was full before a training began" in message
    assert str(error) in message
    assert "Given were --hidden_size 32 --num_hidden_layers 1" in message
    assert "Train a smaller model, with a lower --num_hidden_layers or --hidden_size" in message
    assert "pass a lower --max_length" in message


def test_memory_that_is_full_when_the_settings_are_read_is_told(recipe, capsys, monkeypatch):
    def fail(*_):
        raise MemoryError

    monkeypatch.setattr("finetune.runs.training_command.parse_arguments", fail)
    assert "The memory of this machine was full before a training began. Train" in stopped(recipe, capsys, code=1)


def test_an_accelerator_that_is_full_before_the_training_is_named():
    given = ModelArguments(model_name_or_path="large", max_length=512)
    with pytest.raises(InputError, match="memory of the accelerator was full") as caught, input_errors_in_words(given):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
    assert "Given were --model_name_or_path large --max_length 512." in str(caught.value)


@pytest.mark.parametrize("error", [ImportError, RuntimeError, MemoryError])
def test_a_cross_validation_answers_the_same_errors_as_a_training(recipe, clips, capsys, monkeypatch, error):
    def fail(_):
        raise error("no folds")

    monkeypatch.setattr("finetune.runs.cross_validation.load_folds", fail)
    assert "no folds" in stopped(recipe, capsys, "--fold_column_name", "fold", code=1 if error is MemoryError else 2)


def test_other_errors_are_not_taken_for_wrong_input():
    with pytest.raises(KeyError), input_errors_in_words():
        raise KeyError("a bug")


# A run that is replaced


def test_a_run_of_which_only_a_part_was_removed_can_still_be_replaced(recipe, tmp_path, monkeypatch):
    unlink = Path.unlink

    def unlink_or_end(path, **kwargs):
        if path == tmp_path / "run" / "model.safetensors":
            raise Killed
        unlink(path, **kwargs)

    assert main([recipe]) == 0
    with monkeypatch.context() as context:
        context.setattr(Path, "unlink", unlink_or_end)
        with pytest.raises(Killed):
            main([recipe, "--overwrite_output_dir"])
    assert "config.json" not in files_in(tmp_path / "run")
    assert main([recipe, "--overwrite_output_dir"]) == 0
    assert files_in(tmp_path / "run") == RESULT


def test_curves_of_a_run_that_is_replaced_are_not_drawn_with_the_new_ones(recipe, tmp_path):
    reporting = [recipe, "--report_to", "tensorboard", "--logging_strategy", "epoch"]
    assert main(reporting) == 0
    (first,) = (tmp_path / "run" / "runs").rglob("events.out.*")
    mine = tmp_path / "run" / "runs" / "mine" / "events.out.tfevents.1.host"
    mine.parent.mkdir()
    mine.write_text("mine")
    earlier = first.parents[1] / "ast-finetune_earlier"  # a run within the same second has the same name
    os.rename(first.parent, earlier)
    assert main([*reporting, "--overwrite_output_dir"]) == 0
    assert mine.read_text() == "mine"
    assert len(files_in(tmp_path / "run" / "runs")) == 2
    assert not earlier.exists()


def test_a_run_that_is_there_is_not_replaced_without_a_word_about_its_curves(recipe, tmp_path, capsys):
    (tmp_path / "run" / "checkpoint-2").mkdir(parents=True)
    message = stopped(recipe, capsys, code=2)
    assert "Pass --overwrite_output_dir to replace it and what it logged for TensorBoard" in message


def test_curves_of_a_training_that_ended_without_a_checkpoint_stay_until_it_is_started_again(
    recipe, tmp_path, capsys, monkeypatch
):
    flags = ["--report_to", "tensorboard", "--logging_strategy", "steps", "--logging_steps", "1"]

    def fail(self, *_):
        raise MemoryError

    with monkeypatch.context() as context:
        context.setattr("finetune.runs.tasks.evaluate", fail)
        assert "No checkpoint had been saved" in stopped(recipe, capsys, *flags)
    (first,) = (tmp_path / "run" / "runs").rglob("events.out.*")  # to see how it went
    earlier = first.parents[1] / "ast-finetune_earlier"
    os.rename(first.parent, earlier)
    assert main([recipe, *flags]) == 0
    assert not earlier.exists()
    assert len(list((tmp_path / "run" / "runs").rglob("events.out.*"))) == 1


def test_event_files_in_a_folder_without_a_run_stay(recipe, tmp_path):
    event = tmp_path / "run" / "runs" / "mine" / "events.out.tfevents.1.host"
    event.parent.mkdir(parents=True)
    event.write_text("mine")
    assert main([recipe]) == 0
    assert event.read_text() == "mine"


# Two runs in one folder


def test_a_second_run_in_the_folder_is_refused_before_any_data_are_loaded(recipe, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("finetune.runs.preparation.load_clip_sets", lambda *_: pytest.fail("loaded"))
    (tmp_path / "run").mkdir()
    with hold_lock(tmp_path / "run", "ast-finetune", inside=True):
        assert main([recipe]) == 2
        error = capsys.readouterr().err
        assert f"{tmp_path / 'run'} is being written by ast-finetune, process {os.getpid()} on " in error
        assert main([recipe, "--resume_from_checkpoint", "true"]) == 2  # and not because there is none
        assert main([recipe, "--fold_column_name", "fold", "--resume_from_checkpoint", "true"]) == 2
        assert capsys.readouterr().err.count("is being written by") == 2
        with pytest.raises(InputError, match="is being written by"):
            fine_tune(datasets.Dataset.from_dict({}), output_dir=tmp_path / "run")
        monkeypatch.setattr("finetune.run_finetune.dry_run", lambda argv, arguments: print("looks"))
        assert main([recipe, "--dry_run"]) == 0  # which writes nothing that a training does
        assert capsys.readouterr().out == "looks\n"
    assert not list((tmp_path / "run").iterdir())


def test_a_lock_of_another_user_is_told_with_what_to_do(recipe, tmp_path, capsys, monkeypatch):
    def refused(*_):
        raise PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "run"))

    monkeypatch.setattr("modeling_ast.system.run_lock.open_to_lock", refused)
    assert main([recipe]) == 2
    assert (
        f"ast-finetune: {tmp_path / 'run'}: Permission denied. Name a place where you may" in capsys.readouterr().err
    )


def test_the_folder_is_held_as_long_as_the_run(recipe, tmp_path, monkeypatch):
    def second(*_):
        with pytest.raises(LockedError), hold_lock(tmp_path / "run", "ast-finetune", inside=True):
            pytest.fail("two hold it")

    monkeypatch.setattr("finetune.runs.training_run.publish", second)
    assert main([recipe, "--save_strategy", "no"]) == 0
    assert not (tmp_path / "run" / LOCK_NAME).exists()

"""Trainings that fail: what they say, what they leave, and that they go on from there bit for bit."""

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from failing_trainings import STEPS_PER_EPOCH, assert_equal_weights, assert_only_whole_checkpoints, stopped
from safetensors.torch import load_file

from finetune.arguments.command_line import parse_arguments
from finetune.arguments.groups import ASTTrainingArguments, DataArguments
from finetune.failures.stopped_trainings import (
    TrainingStoppedError,
    failures_in_words,
    halving_is_exact,
    memory_flags,
    out_of_memory_message,
)
from finetune.run_finetune import main
from finetune.runs.training_run import prepare_run
from finetune.training.checkpoint_files import ResumeError, states_of_this_training
from finetune.training.progress import duration_in_words
from finetune.training.run_folder import UNFINISHED, checkpoints_in, last_checkpoint
from finetune.training.trainer import ASTTrainer
from modeling_ast.system.installation import install_command

pytestmark = pytest.mark.usefixtures("interruptible", "no_pictures")


# Memory


def training_arguments(**given) -> ASTTrainingArguments:
    return ASTTrainingArguments(output_dir="nowhere", use_cpu=True, **given)


@pytest.mark.parametrize(
    ("given", "padding", "in_training", "expected"),
    [
        (
            {"per_device_train_batch_size": 12, "gradient_accumulation_steps": 3},
            "max_length",
            True,
            ["--per_device_train_batch_size 6 --gradient_accumulation_steps 6", "--activation_checkpointing true", "--padding longest"],
        ),
        (
            {"per_device_train_batch_size": 15, "activation_checkpointing": True},
            "max_length",
            True,
            ["--per_device_train_batch_size 5 --gradient_accumulation_steps 3", "--padding longest", "--max_length 512"],
        ),
        ({"per_device_train_batch_size": 1, "activation_checkpointing": True}, "longest", True, ["--max_length 512"]),
        ({"per_device_eval_batch_size": 8}, "longest", False, ["--per_device_eval_batch_size 4", "--max_length 512"]),
    ],
)  # fmt: skip
def test_the_flags_that_need_less_memory(given, padding, in_training, expected):
    data = DataArguments(dataset_name="clips", padding=padding)
    flags = memory_flags(training_arguments(**given), data, 1024, in_training)
    assert [flag.split(" (")[0] for flag in flags] == expected


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ([], True),
        (["--hidden_dropout_prob", "0.1"], False),
        (["--attention_probs_dropout_prob", "0.1"], False),
        (["--per_device_train_batch_size", "5"], False),
        (["--per_device_train_batch_size", "5", "--dataloader_drop_last", "true"], True),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else None,
)
def test_half_a_batch_has_the_same_result_without_dropout_and_incomplete_batches(recipe, flags, expected):
    command = [recipe, "--hidden_dropout_prob", "0", *flags]
    trainer = prepare_run(command, parse_arguments(command)).trainer
    assert halving_is_exact(trainer) is expected
    words = "(the same result)" if expected else "(nearly the same result)"
    assert words in memory_flags(trainer.args, DataArguments(dataset_name="clips"), 64, True, expected)[0]


def test_bf16_is_named_on_an_accelerator_that_does_not_use_it_yet(monkeypatch):
    monkeypatch.setattr(ASTTrainingArguments, "device", torch.device("cuda:1"))
    args = training_arguments(per_device_train_batch_size=1, activation_checkpointing=True)
    data = DataArguments(dataset_name="clips", padding="longest")
    assert memory_flags(args, data, 1024, True)[0] == "--bf16 true"
    assert "the accelerator (cuda:1) is full" in out_of_memory_message(args, data, 1024, True)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory: you tried to ..."),
        MemoryError("Unable to allocate 3.00 GiB for an array"),
    ],
    ids=lambda error: type(error).__name__,
)  # fmt: skip
def test_a_training_that_needs_too_much_memory_says_what_helps(recipe, tmp_path, capsys, monkeypatch, error):
    training_step = ASTTrainer.training_step

    def fail(self, *args):
        if self.state.global_step == 6:
            raise error
        return training_step(self, *args)

    monkeypatch.setattr(ASTTrainer, "training_step", fail)
    message = stopped(recipe, capsys)
    flags = ["--per_device_train_batch_size 2 --gradient_accumulation_steps 2", "--activation_checkpointing true", "--padding longest"]  # fmt: skip
    places = [message.index(flag) for flag in flags]
    assert places == sorted(places)
    assert "--max_length" not in message
    assert "--gradient_accumulation_steps 2 (nearly the same result)" in message, "there is dropout"
    assert f"The last checkpoint is {tmp_path / 'run' / 'checkpoint-5'}" in message
    assert "--resume_from_checkpoint true" in message
    assert_only_whole_checkpoints(tmp_path / "run", [5])


def test_a_smaller_batch_accumulated_goes_on_with_the_same_training(recipe, tmp_path, undisturbed):
    alike = [recipe, "--hidden_dropout_prob", "0", "--save_total_limit", "9"]  # dropout is drawn by the micro-batch
    assert main([*alike, "--output_dir", str(tmp_path / "whole")]) == 0
    shutil.copytree(tmp_path / "whole" / "checkpoint-5", tmp_path / "run" / "checkpoint-5")
    halved = ["--per_device_train_batch_size", "2", "--gradient_accumulation_steps", "2"]
    assert main([*alike, "--resume_from_checkpoint", "true", *halved, "--activation_checkpointing", "true"]) == 0
    expected = load_file(tmp_path / "whole" / "model.safetensors")
    for name, tensor in load_file(tmp_path / "run" / "model.safetensors").items():
        torch.testing.assert_close(tensor, expected[name], atol=1e-5, rtol=1e-4, msg=name)


@pytest.mark.long
def test_memory_that_is_really_used_up_ends_in_words(recipe, tmp_path):
    code = (
        "import resource, sys; from finetune.run_finetune import main; from finetune.training.trainer import ASTTrainer\n"
        "step = ASTTrainer.training_step\n"
        "def limited(*args):\n"
        "    used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "    resource.setrlimit(resource.RLIMIT_AS, (used + 300_000_000,) * 2)\n"
        "    return step(*args)\n"
        "ASTTrainer.training_step = limited\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    large = ["--hidden_size", "512", "--num_hidden_layers", "8", "--intermediate_size", "2048", "--per_device_train_batch_size", "16"]  # fmt: skip
    command = [sys.executable, "-c", code, recipe, *large, "--max_length", "1024", "--time_stride", "8"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
    child = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    assert child.returncode == 1, child.stderr
    assert "The memory of this machine is full in training." in child.stderr
    assert "--per_device_train_batch_size 8 --gradient_accumulation_steps 2" in child.stderr
    assert "Traceback" not in child.stderr


# Disks and files


def after_checkpoint(monkeypatch, step: int, act):
    """Call `act` once, after the checkpoint of this step is there."""
    save = ASTTrainer._save_checkpoint

    def save_and_act(self, *args):
        save(self, *args)
        if self.state.global_step == step:
            self.wait_for_checkpoint()
            act()

    monkeypatch.setattr(ASTTrainer, "_save_checkpoint", save_and_act)


def fill(disk: Path):
    with (disk / "filler").open("wb") as file:
        try:
            while True:
                file.write(bytes(4096))
                file.flush()
        except OSError:
            return


def test_a_disk_that_fills_in_a_save(recipe, small_disk, capsys, monkeypatch, undisturbed):
    disk = small_disk(20)
    monkeypatch.setenv("TMPDIR", str(disk.parent))
    flags = ["--output_dir", str(disk / "run")]
    with monkeypatch.context() as context:
        after_checkpoint(context, 5, lambda: fill(disk))
        message = stopped(recipe, capsys, *flags)
    assert f"The disk of {disk / 'run'} is full" in message
    assert f"The last checkpoint is {disk / 'run' / 'checkpoint-5'}" in message
    assert "--resume_from_checkpoint true" in message
    assert_only_whole_checkpoints(disk / "run", [5])
    (disk / "filler").unlink()
    assert main([recipe, *flags, "--resume_from_checkpoint", "true"]) == 0
    assert_equal_weights(disk / "run", undisturbed)


@pytest.mark.parametrize(
    "file",
    [
        pytest.param("model.safetensors", marks=pytest.mark.long),
        "optimizer.pt",
        pytest.param("trainer_state.json", marks=pytest.mark.long),
    ],
)
def test_a_disk_that_fills_with_a_part_of_a_checkpoint(recipe, small_disk, capsys, monkeypatch, undisturbed, file):
    disk = small_disk(20)
    flags = ["--output_dir", str(disk / "run")]
    stages = {
        "model.safetensors": "save_model",
        "optimizer.pt": "_save_optimizer_and_scheduler",
        "trainer_state.json": "_save_rng_state",
    }
    write = getattr(ASTTrainer, stages[file])

    def fill_and_write(self, *args, **kwargs):
        if self.state.global_step == 10 and not (disk / "filler").exists():
            fill(disk)
        return write(self, *args, **kwargs)

    with monkeypatch.context() as context:
        context.setattr(ASTTrainer, stages[file], fill_and_write)
        assert "is full" in stopped(recipe, capsys, *flags)
    assert_only_whole_checkpoints(disk / "run", [5])
    (disk / "filler").unlink()
    assert main([recipe, *flags, "--resume_from_checkpoint", "true"]) == 0
    assert_equal_weights(disk / "run", undisturbed)


def test_a_disk_that_fills_while_the_result_is_written(recipe, small_disk, capsys, monkeypatch, undisturbed):
    disk = small_disk(20)
    flags = ["--output_dir", str(disk / "run")]
    with monkeypatch.context() as context:
        after_checkpoint(context, 2 * STEPS_PER_EPOCH, lambda: fill(disk))
        message = stopped(recipe, capsys, *flags)
    assert f"The disk of {disk / 'run'} is full" in message
    last = f"checkpoint-{2 * STEPS_PER_EPOCH}"
    assert f"The last checkpoint is {disk / 'run' / last}" in message
    assert not (disk / "run" / "run_summary.json").exists()
    assert not (disk / "run" / UNFINISHED).exists()
    (disk / "filler").unlink()
    assert main([recipe, *flags, "--resume_from_checkpoint", "true"]) == 0
    assert_equal_weights(disk / "run", undisturbed)
    assert (disk / "run" / "run_summary.json").exists()


def test_a_folder_that_cannot_be_written_is_refused_before_the_training(recipe, small_disk, capsys):
    disk = small_disk(5)
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    message = stopped(recipe, capsys, "--output_dir", str(disk / "run"), code=2)
    assert f"Nothing can be written into {disk / 'run'}: Read-only file system. Pass another --output_dir." in message


def test_a_disk_that_becomes_read_only_in_the_training(recipe, small_disk, capsys, monkeypatch, undisturbed):
    disk = small_disk(5)
    flags = ["--output_dir", str(disk / "run")]
    # Nobody can make a disk read-only on which a file is open for writing, as that of the lock is.
    monkeypatch.setattr("finetune.failures.held_folder.hold_lock", lambda *_, **__: nullcontext())

    def remount(how: str):
        subprocess.run(["mount", "-o", f"remount,{how}", disk], check=True)

    with monkeypatch.context() as context:
        # A disk that fails asks nobody; one with an open file, as the lock is, cannot be remounted.
        context.setattr("finetune.run_finetune.held_output_dir", nullcontext)
        after_checkpoint(context, 5, lambda: remount("ro"))
        message = stopped(recipe, capsys, *flags)
    assert "Read-only file system" in message
    assert f"The last checkpoint is {disk / 'run' / 'checkpoint-5'}" in message
    assert_only_whole_checkpoints(disk / "run", [5])
    remount("rw")
    assert main([recipe, *flags, "--resume_from_checkpoint", "true"]) == 0
    assert_equal_weights(disk / "run", undisturbed)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_file_that_vanishes_in_the_training(recipe, tmp_path, capsys, monkeypatch, undisturbed, workers):
    victim = tmp_path / "clips" / "train" / "b" / "3.wav"
    flags = ["--dataloader_num_workers", str(workers), "--memory_for_clips", "0"]
    with monkeypatch.context() as context:
        after_checkpoint(context, 5, lambda: shutil.move(victim, tmp_path / "away.wav"))
        message = stopped(recipe, capsys, *flags)
    assert message.count(str(victim)) == 1
    assert f"There is no file {victim}. It was there before the training: put it back." in message
    assert "--resume_from_checkpoint true" in message
    (last,) = checkpoints_in(tmp_path / "run")
    assert f"The last checkpoint is {last}" in message
    assert_only_whole_checkpoints(tmp_path / "run", [int(last.name.split("-")[1])])
    shutil.move(tmp_path / "away.wav", victim)
    assert main([recipe, *flags, "--resume_from_checkpoint", "true"]) == 0
    assert_equal_weights(tmp_path / "run", undisturbed)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.EIO, "Input/output error"), "saved; type the same command again with --overwrite_output_dir to start"),
        (MemoryError(), "No checkpoint had been saved. Start anew with --overwrite_output_dir."),
    ],
    ids=["files", "memory"],
)  # fmt: skip
def test_epochs_that_were_kept_without_a_checkpoint_are_replaced_by_what_the_message_says(
    recipe, tmp_path, capsys, monkeypatch, error, words
):
    flags = ["--average_epochs", "1", "2", "--save_strategy", "no"]
    training_step = ASTTrainer.training_step

    def fail(self, *args):
        if self.state.global_step > STEPS_PER_EPOCH:
            raise error
        return training_step(self, *args)

    with monkeypatch.context() as context:
        context.setattr(ASTTrainer, "training_step", fail)
        assert words in stopped(recipe, capsys, *flags)
    assert (tmp_path / "run" / "epochs" / "epoch-1").is_dir()
    assert "already holds a run (epoch-1 is there)" in stopped(recipe, capsys, *flags, code=2)
    assert main([recipe, *flags, "--overwrite_output_dir"]) == 0


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["Ctrl-C", "SIGTERM"])
def test_an_interruption_ends_in_words(recipe, tmp_path, capsys, monkeypatch, undisturbed, number, code):
    before = signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as context:
        after_checkpoint(context, 10, lambda: os.kill(os.getpid(), number))
        message = stopped(recipe, capsys, code=code)
    assert f"It was interrupted ({number.name}) at step 10." in message
    assert f"The last checkpoint is {tmp_path / 'run' / 'checkpoint-10'}" in message
    assert signal.getsignal(signal.SIGTERM) is before
    assert_only_whole_checkpoints(tmp_path / "run", [10])
    assert main([recipe, "--resume_from_checkpoint", "true"]) == 0
    assert_equal_weights(tmp_path / "run", undisturbed)


@pytest.mark.parametrize(("signals", "kept"), [(1, 10), (2, 5)])
def test_an_interruption_lets_a_save_be_finished_and_a_second_one_leaves_no_part_of_it(
    recipe, tmp_path, capsys, monkeypatch, signals, kept
):
    save = ASTTrainer._save_optimizer_and_scheduler

    def interrupted(self, folder):
        save(self, folder)
        if self.state.global_step == 10:
            for _ in range(signals):
                os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(ASTTrainer, "_save_optimizer_and_scheduler", interrupted)
    assert "(SIGINT) at step 10" in stopped(recipe, capsys, code=130)
    assert_only_whole_checkpoints(tmp_path / "run", [kept])


def test_an_interruption_before_the_training_says_that_nothing_was_trained(recipe, capsys, monkeypatch):
    monkeypatch.setattr("finetune.run_finetune.prepare_run", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    assert "interrupted (SIGTERM). It was before a training began" in stopped(recipe, capsys, code=143)


@pytest.mark.parametrize(
    ("signal_name", "words"),
    [
        (
            "Killed. ",
            "most likely because the memory of this machine was full. Pass --dataloader_num_workers 1 (it is 2)",
        ),
        ("Terminated. ", "was terminated from outside"),
    ],
)
def test_a_loader_worker_that_was_killed(recipe, capsys, monkeypatch, signal_name, words):
    def fail(self, *args):
        raise RuntimeError(f"DataLoader worker (pid 12345) is killed by signal: {signal_name}")

    monkeypatch.setattr(ASTTrainer, "get_train_dataloader", fail)
    message = stopped(recipe, capsys, "--dataloader_num_workers", "2")
    assert words in message
    assert "type the same command again" in message


def test_an_interruption_lets_the_step_be_finished(recipe, tmp_path, capsys, monkeypatch):
    training_step = ASTTrainer.training_step

    def interrupted(self, *args):
        if self.state.global_step == 6:
            os.kill(os.getpid(), signal.SIGTERM)
        return training_step(self, *args)

    monkeypatch.setattr(ASTTrainer, "training_step", interrupted)
    assert "(SIGTERM) at step 7" in stopped(recipe, capsys, code=143)
    assert_only_whole_checkpoints(tmp_path / "run", [5])


def test_an_interruption_of_the_scoring_does_not_wait(recipe, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("finetune.runs.tasks.evaluate", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    assert f"(SIGTERM) at step {2 * STEPS_PER_EPOCH}" in stopped(recipe, capsys, code=143)
    assert not (tmp_path / "run" / "run_summary.json").exists()


@pytest.mark.long
def test_a_training_that_is_terminated_with_its_workers_says_one_thing(recipe):
    flags = ["--dataloader_num_workers", "2", "--num_train_epochs", "5000", "--save_strategy", "no"]
    command = [sys.executable, "-u", "-m", "finetune.run_finetune", recipe, *flags]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True
    ) as child:
        for line in child.stdout:
            if line.startswith("epoch 2/"):
                break
        os.killpg(child.pid, signal.SIGTERM)
        _, error = child.communicate(timeout=120)
    assert child.returncode == 143, error
    assert re.fullmatch(r"ast-finetune: training stopped\. It was interrupted \(SIGTERM\) at step \d+\. .*\n", error)


@pytest.mark.parametrize(
    "words",
    ["Connection closed by peer [127.0.0.1]:3127", "Read error: Connection reset by peer", "NCCL: ncclRemoteError"],
)
def test_a_process_that_outlives_another_points_to_its_message(recipe, monkeypatch, words):
    trainer = prepare_run([recipe], parse_arguments([recipe])).trainer
    error = RuntimeError(f"[gloo/transport/tcp/pair.cc:547] {words}")
    with pytest.raises(RuntimeError, match="gloo"), failures_in_words(trainer, DataArguments(dataset_name="clips")):
        raise error
    monkeypatch.setattr(ASTTrainingArguments, "world_size", 2)
    message = "^Another process of this training ended first; its message says why.$"
    with (
        pytest.raises(TrainingStoppedError, match=message),
        failures_in_words(trainer, DataArguments(dataset_name="clips")),
    ):
        raise error


def test_checkpoints_are_folders_named_by_their_step(tmp_path):
    for name in ("checkpoint-20", "checkpoint-3", "checkpoint-30-old", "checkpoint-notes", "checkpoint-"):
        (tmp_path / name).mkdir()
    (tmp_path / "checkpoint-40").write_text("a file")
    assert [path.name for path in checkpoints_in(tmp_path)] == ["checkpoint-3", "checkpoint-20"]
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-20"
    assert last_checkpoint(tmp_path / "nowhere") is None


def test_an_unknown_error_keeps_its_traceback(recipe, monkeypatch):
    def fail(self, *args):
        raise RuntimeError("a bug")

    monkeypatch.setattr(ASTTrainer, "training_step", fail)
    with pytest.raises(RuntimeError, match="a bug"):
        main([recipe])


# What is said while it trains

NUMBER, DURATION = r"-?[\d.]+(?:e[-+]\d+)?", r"[\d.]+ (?:s|min|h)"


def test_each_epoch_has_one_readable_line(recipe, capsys):
    scored = ["--eval_strategy", "epoch", "--metric_for_best_model", "f1_macro"]
    assert main([recipe, "--num_train_epochs", "3", "--save_strategy", "no", *scored]) == 0
    captured = capsys.readouterr()
    lines = [line for line in captured.out.splitlines() if line.startswith("epoch ")]
    assert len(lines) == 3
    values = (
        rf"  loss {NUMBER}  learning rate {NUMBER}  eval loss {NUMBER}  eval accuracy {NUMBER}  eval f1 macro {NUMBER}"
    )
    for number, line in enumerate(lines, 1):
        left = rf", {DURATION} left" if number < 3 else ""
        assert re.fullmatch(rf"epoch {number}/3{values}  {DURATION}{left}", line), line
    assert "{" not in captured.out
    assert captured.err == ""


@pytest.mark.parametrize("logging", [["steps", "--logging_steps", "5"], ["epoch"]], ids=lambda flags: flags[0])
def test_the_line_has_the_mean_loss_and_the_rate_of_the_epochs_last_step(recipe, tmp_path, capsys, logging):
    assert main([recipe, "--logging_strategy", *logging]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("epoch ")]
    state = json.loads((checkpoints_in(tmp_path / "run")[-1] / "trainer_state.json").read_text())
    logs = [entry for entry in state["log_history"] if "loss" in entry]
    assert len(lines) == 2
    # The rate falls in a line to 0 after the last step.
    for number, line in enumerate(lines, 1):
        rate = 1e-3 * (1 - (number * STEPS_PER_EPOCH - 1) / (2 * STEPS_PER_EPOCH))
        assert f"learning rate {rate:.4g}" in line
    inside = [entry for entry in logs if entry["step"] <= STEPS_PER_EPOCH]
    steps = np.diff([0, *(entry["step"] for entry in inside)])
    assert f"loss {np.average([entry['loss'] for entry in inside], weights=steps):.4g}" in lines[0]


def test_without_logs_there_is_still_a_line(recipe, capsys):
    assert main([recipe, "--logging_strategy", "no", "--num_train_epochs", "1"]) == 0
    assert re.search(rf"^epoch 1/1  learning rate {NUMBER}  {DURATION}$", capsys.readouterr().out, re.MULTILINE)


@pytest.mark.parametrize("terminal", [True, False])
def test_the_bar_is_for_terminals(recipe, capsys, monkeypatch, terminal):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    assert main([recipe, "--disable_tqdm", "false", "--num_train_epochs", "1", "--eval_strategy", "epoch"]) == 0
    captured = capsys.readouterr()
    assert len([line for line in captured.out.splitlines() if line.startswith("epoch 1/1")]) == 1
    assert (f"{STEPS_PER_EPOCH}/{STEPS_PER_EPOCH} [" in captured.err) == terminal
    assert terminal or captured.err == ""


def test_durations_are_told_in_the_unit_that_suits():
    assert [duration_in_words(seconds) for seconds in (1.26, 59.6, 300, 9000)] == ["1.3 s", "60 s", "5 min", "2.5 h"]


def test_a_missing_tensorboard_is_answered_with_what_to_install(recipe, capsys, monkeypatch):
    monkeypatch.setattr("finetune.training.progress.is_tensorboard_available", lambda: False)
    message = stopped(recipe, capsys, "--report_to", "tensorboard", code=2)
    assert f"Type: {install_command('tensorboard')}" in message


def test_losses_and_scores_go_to_tensorboard(recipe, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert main([recipe, "--report_to", "tensorboard", "--eval_strategy", "epoch"]) == 0
    (folder,) = (tmp_path / "run" / "runs").iterdir()
    written = EventAccumulator(str(folder)).Reload()
    for name in ("train/loss", "train/learning_rate", "eval/accuracy"):
        assert [event.step for event in written.Scalars(name)] == [STEPS_PER_EPOCH, 2 * STEPS_PER_EPOCH]


def test_a_checkpoint_of_another_training_is_told_and_full_memory_is_not_blamed_on_it(tmp_path):
    words = r"checkpoint-3 cannot .*: its states are not of this training \(KeyError: 'x'\)\. Move it away"
    with pytest.raises(ResumeError, match=words), states_of_this_training(tmp_path / "checkpoint-3", "states"):
        raise KeyError("x")
    for error in (torch.OutOfMemoryError("CUDA is full"), RuntimeError("DefaultCPUAllocator: can't allocate memory")):
        with pytest.raises(type(error)) as caught, states_of_this_training(tmp_path, "states"):
            raise error
        assert caught.value is error

"""What a training will cost, measured on a few of its own steps: seconds, and memory at its highest.

The steps are those of the real training loop, with its loader, augmentation, accumulation and optimiser, so that whatever
is slow there is slow here; the trainer that they were measured with is of no use afterwards.
"""

import contextlib
import io
import math
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Subset
from transformers import EarlyStoppingCallback, TrainerCallback
from transformers.trainer_utils import IntervalStrategy, SaveStrategy

from ..arguments import DataArguments, OptimizationArguments
from ..data import ClipDataset
from ..optimization import HeadOnlyEpochs
from ..results.run_summary import GIGA, highest_process_memory
from ..trainer import ASTTrainer
from ..weight_averaging import EpochFolders

ENOUGH_STEPS, MOST_STEPS = 10, 50  # measured at least, and at most if they take no longer than
ENOUGH_SECONDS = 3.0
FEWEST_STEPS, LONGEST_SECONDS = 3, 60.0  # of slow steps so few are enough once they have taken so long
RANGE = (10, 90)  # percentiles of the steps that are told as fast and slow
EVALUATED_BATCHES = (1, 5)  # two passes of different length tell what starting one costs


@dataclass(frozen=True)
class StepTimes:
    """Seconds of optimiser steps; see [`measure_steps`]."""

    warm_up: int
    seconds: list[float]

    @property
    def mean(self) -> float:
        """Seconds of a step on average."""
        return sum(self.seconds) / len(self.seconds)


@dataclass(frozen=True)
class Steps:
    """Optimiser steps of a training.

    Args:
        epochs (`float`): of the training.
        per_epoch (`float`): steps of an epoch, the last one counted by its share of a full one.
        total (`float`): such steps of the training.
        whole (`int`): steps of the training, each counted as one.
    """

    epochs: float
    per_epoch: float
    total: float
    whole: int


class StepClock(TrainerCallback):
    """Takes the time after every optimiser step, and ends a training that has taken long enough.

    Args:
        warm_up (`int`): first steps that do not count.
        device (`torch.device`): whose work is waited for.
    """

    def __init__(self, warm_up: int, device: torch.device):
        self.warm_up = warm_up
        self.device = device
        self.marks: list[float] = []

    def on_train_begin(self, args, state, control, **kwargs):
        self._mark()

    def on_step_end(self, args, state, control, **kwargs):
        self._mark()
        measured = len(self.marks) - 1 - self.warm_up
        if measured < FEWEST_STEPS:
            return
        seconds = self.marks[-1] - self.marks[self.warm_up]
        if seconds >= LONGEST_SECONDS or (measured >= ENOUGH_STEPS and seconds >= ENOUGH_SECONDS):
            control.should_training_stop = True

    def _mark(self):
        if self.device.type != "cpu":
            torch.accelerator.synchronize(self.device)
        self.marks.append(time.perf_counter())

    def times(self) -> StepTimes:
        """Seconds of the steps after the first ones."""
        marks = self.marks[self.warm_up :]
        return StepTimes(self.warm_up, [after - before for before, after in zip(marks, marks[1:], strict=False)])


def estimate_cost(
    trainer: ASTTrainer, clips: dict[str, ClipDataset], data_args: DataArguments, optimization: OptimizationArguments
) -> dict:
    """Train and score a little with the trainer of a run, save nothing, and tell what the whole run would cost.

    Args:
        trainer ([`ASTTrainer`]): of the run, its output folder another than the run's. Its model is changed.
        clips (`dict[str, ClipDataset]`): of the run, by split.
        data_args ([`DataArguments`]): padding of the training.
        optimization ([`OptimizationArguments`]): which epochs' weights are scored at the end.

    Returns:
        `device`, `threads`, `warm_up_steps`, `measured_steps`, `seconds_per_step` (`mean`, and the percentiles 10 and
        90 as `fast` and `slow`), `steps_per_epoch`, `epochs`, `epoch_seconds`, `evaluation_seconds` (of one pass over
        the scored split), `evaluation_passes`, `run_seconds` (`expected`, and if all steps were `fast` or `slow`),
        `peak_memory_gb`, `memory_before_gb` and `memory_of` (`"process"` or `"accelerator"`).
    """
    args = trainer.args
    expected = count_steps(trainer)
    evaluated = count_evaluated_clips(trainer, clips, data_args, optimization, expected)
    before = reset_peak_memory(args.device)
    with contextlib.redirect_stdout(io.StringIO()):  # what a training prints of itself
        steps = measure_steps(trainer)
        evaluation = measure_evaluation(trainer, clips["eval"])
    peak = peak_memory(args.device)
    scoring = sum(evaluation(number) for number in evaluated)
    fast, slow = np.percentile(steps.seconds, RANGE).tolist()
    return {
        "device": args.device.type,
        "threads": torch.get_num_threads(),
        "warm_up_steps": steps.warm_up,
        "measured_steps": len(steps.seconds),
        "seconds_per_step": {"mean": steps.mean, "fast": fast, "slow": slow},
        "steps_per_epoch": expected.per_epoch,
        "epochs": expected.epochs,
        "epoch_seconds": steps.mean * expected.per_epoch,
        "evaluation_seconds": evaluation(len(clips["eval"])),
        "evaluation_passes": len(evaluated),
        "run_seconds": {
            name: step * expected.total + scoring
            for name, step in (("expected", steps.mean), ("fast", fast), ("slow", slow))
        },
        "peak_memory_gb": peak / GIGA,
        "memory_before_gb": before / GIGA,
        "memory_of": "accelerator" if args.device.type == "cuda" else "process",
    }


def count_steps(trainer: ASTTrainer) -> Steps:
    """The steps of a training that has not begun."""
    args = trainer.args
    _, whole_per_epoch, num_clips, _, clips_per_step, _, whole = trainer.set_initial_training_values(
        args, trainer.get_train_dataloader()
    )
    per_epoch = whole_per_epoch if args.dataloader_drop_last else num_clips / clips_per_step
    if args.max_steps > 0:
        return Steps(whole / whole_per_epoch, per_epoch, per_epoch * whole / whole_per_epoch, whole)
    return Steps(args.num_train_epochs, per_epoch, args.num_train_epochs * per_epoch, whole)


def count_evaluated_clips(
    trainer: ASTTrainer,
    clips: dict[str, ClipDataset],
    data_args: DataArguments,
    optimization: OptimizationArguments,
    steps: Steps,
) -> list[int]:
    """Clips of every pass of scoring of a run: those in training, and those of [`evaluate`] after it."""
    args = trainer.args
    passes = 0
    if args.eval_strategy == IntervalStrategy.EPOCH:
        passes = math.ceil(steps.epochs)
    elif args.eval_strategy == IntervalStrategy.STEPS:  # and after the last step
        every = args.eval_steps if args.eval_steps >= 1 else math.ceil(args.eval_steps * steps.whole)
        passes = math.ceil(steps.whole / every)
    ensemble = optimization.ensemble_epochs
    at_the_end = 1 + (data_args.padding == "longest") + bool(optimization.average_epochs)
    at_the_end += ensemble[1] - ensemble[0] + 1 if ensemble else 0
    return (
        [len(clips.get("validation", clips["eval"]))] * passes
        + [len(clips["eval"])] * at_the_end
        + ([len(clips["validation"])] if "validation" in clips else [])
    )


def measure_steps(trainer: ASTTrainer) -> StepTimes:
    """Train a few steps in which everything learns; nothing is scored or saved.

    The first step warms up, and with loader workers as many as they have read in advance.
    """
    args = trainer.args
    args.eval_strategy, args.save_strategy = IntervalStrategy.NO, SaveStrategy.NO
    args.load_best_model_at_end = False
    for callback in (EarlyStoppingCallback, EpochFolders, HeadOnlyEpochs):
        trainer.remove_callback(callback)
    read_in_advance = args.dataloader_num_workers * (args.dataloader_prefetch_factor or 2)
    clock = StepClock(1 + math.ceil(read_in_advance / args.gradient_accumulation_steps), args.device)
    args.max_steps = clock.warm_up + MOST_STEPS
    trainer.add_callback(clock)
    trainer.train()
    trainer.remove_callback(clock)
    return clock.times()


def measure_evaluation(trainer: ASTTrainer, clips: ClipDataset):
    """Score a few batches.

    Returns:
        A function that tells how many seconds a pass over so many clips takes.
    """
    trainer.feature_extractor.padding = "max_length"
    trainer.compute_metrics = None
    few, many = (min(len(clips), batches * trainer.args.eval_batch_size) for batches in EVALUATED_BATCHES)
    _seconds_of_prediction(trainer, clips, few)  # warms up
    seconds_of_few = _seconds_of_prediction(trainer, clips, few)
    if many == few:
        return lambda number: seconds_of_few * number / few
    per_clip = max(0.0, (_seconds_of_prediction(trainer, clips, many) - seconds_of_few) / (many - few))
    start = max(0.0, seconds_of_few - per_clip * few)
    return lambda number: start + per_clip * number


def _seconds_of_prediction(trainer: ASTTrainer, clips: ClipDataset, number: int) -> float:
    keys = clips.first_keys(number)
    start = time.perf_counter()
    trainer.predict(Subset(clips, keys))
    return time.perf_counter() - start


def reset_peak_memory(device: torch.device) -> int:
    """Begin to look for the highest use of memory anew, where the system can; bytes in use now."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    with contextlib.suppress(OSError):  # Linux only; elsewhere the peak is that since the process began
        Path("/proc/self/clear_refs").write_text("5")
    return _process_memory("VmRSS")


def peak_memory(device: torch.device) -> int:
    """Highest use of memory since [`reset_peak_memory`] in bytes: of the accelerator, or of this whole process."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else _process_memory("VmHWM")


def _process_memory(field: str) -> int:
    """Bytes of this process from Linux' table; elsewhere its highest use, which is all there is to know."""
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = (line for line in status.read_text().splitlines() if line.startswith(f"{field}:"))
        return int(line.split()[1]) * 1024
    return highest_process_memory()

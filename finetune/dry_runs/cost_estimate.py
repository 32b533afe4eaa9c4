"""What a training will cost: seconds, and memory at its highest, measured on a few of its own steps where these are short.

Then the steps are those of the real training loop, with its loader, augmentation, accumulation and optimiser, so that
whatever is slow there is slow here; the trainer that they were measured with is of no use afterwards. Where a few steps
would take longer than a dry run may, shorter passes through the model are timed and their time is extrapolated by
[`TimeModel`]; the report says which.
"""

import contextlib
import io
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Subset
from transformers import EarlyStoppingCallback, TrainerCallback
from transformers.trainer_utils import IntervalStrategy, SaveStrategy

from modeling_ast import ASTConfig, ASTForAudioFrameClassification
from modeling_ast.frame_columns import FrameColumns

from ..arguments.groups import DataArguments, OptimizationArguments
from ..augmentations.augmentation import Augmentation
from ..clip_sets.collator import model_inputs
from ..clip_sets.waveforms import ClipDataset
from ..results.summary_sections import GIGA, highest_process_memory
from ..training.lora import is_adapted
from ..training.optimization import HeadOnlyEpochs
from ..training.trainer import ASTTrainer
from ..training.weight_averaging import EpochFolders
from .clip_statistics import longest_of_batches
from .time_limit import CLIPS_READ, PROPOSALS, SCORING, STEPS, Deadline, TimeLimit, seconds_to_read
from .time_model import (
    CLASS_TOKENS,
    TimeModel,
    Trainable,
    operations,
    shapes_to_time,
    time_passes,
    tokens_of,
    wait_for,
)

ENOUGH_STEPS, MOST_STEPS = 10, 50  # measured at least, and at most if they take no longer than
ENOUGH_SECONDS = 3.0
FEWEST_STEPS = 3  # of slow steps so few are enough
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
        deadline ([`Deadline`]): when it ends with the steps that there are, one that counts in any case.
    """

    def __init__(self, warm_up: int, device: torch.device, deadline: Deadline):
        self.warm_up = warm_up
        self.device = device
        self.deadline = deadline
        self.marks: list[float] = []

    def on_train_begin(self, args, state, control, **kwargs):
        """See `TrainerCallback.on_train_begin`: notes when the first step begins."""
        self._mark()

    def on_step_end(self, args, state, control, **kwargs):
        """See `TrainerCallback.on_step_end`: notes when the step ended, and stops the training once enough were measured."""
        self._mark()
        measured = len(self.marks) - 1 - self.warm_up
        if measured < 1:
            return
        seconds = self.marks[-1] - self.marks[self.warm_up]
        if not self.deadline.left or (measured >= ENOUGH_STEPS and seconds >= ENOUGH_SECONDS):
            control.should_training_stop = True

    def _mark(self):
        wait_for(self.device)
        self.marks.append(time.perf_counter())

    def times(self) -> StepTimes:
        """Seconds of the steps after the first ones.

        Returns:
            [`StepTimes`]: of the steps that count.
        """
        marks = self.marks[self.warm_up :]
        return StepTimes(self.warm_up, [after - before for before, after in zip(marks, marks[1:], strict=False)])


@dataclass
class RunCost:
    """What the parts of a training take, from which the time of other trainings of the same clips is told too.

    Args:
        config ([`ASTConfig`]): of the model.
        trained ([`Trainable`]): what of it learns.
        training, scoring ([`TimeModel`]): passes forward and backward, and forward alone.
        update (`float`): seconds of the optimiser in a step.
        reading (`float`): seconds in which a clip is read for training.
        batch_size, accumulation, eval_batch_size (`int`): clips of a pass, passes of a step, clips of a pass that scores.
        steps ([`Steps`]): of the training.
        scored (`tuple[list[int], list[int]]`): see [`count_evaluations`].
        frames (`np.ndarray`): lengths of clips, to tell how long a batch is that is padded to the longest.
        augmentation ([`Augmentation`], *optional*): of the training, which may leave patches out.
        teaching (`float`, defaults to 0): seconds in which the teacher looks at a pass of the training, if there is one.
    """

    config: ASTConfig
    trained: Trainable
    training: TimeModel
    scoring: TimeModel
    update: float
    reading: float
    batch_size: int
    accumulation: int
    eval_batch_size: int
    steps: Steps
    scored: tuple[list[int], list[int]]
    frames: np.ndarray
    augmentation: Augmentation | None = None
    teaching: float = 0.0

    def step_operations(self, config: ASTConfig, trained: Trainable, padding: str, grouped: bool) -> np.ndarray:
        """Operations of a clip in training, as the mean over batches padded as they will be.

        Args:
            config ([`ASTConfig`]): of the model.
            trained ([`Trainable`]): what learns of it.
            padding (`str`): `"max_length"` or `"longest"`.
            grouped (`bool`): whether clips of a batch are of about the same length.

        Returns:
            `np.ndarray`: operations of a clip, one value a batch of the sample.
        """
        if padding != "longest":
            return self._operations_in_training(config, config.max_length, trained)
        lengths = longest_of_batches(np.minimum(self.frames, config.max_length), self.batch_size, grouped)
        return np.mean(
            [self._operations_in_training(config, max(int(frames), config.patch_size), trained) for frames in lengths],
            axis=0,
        )

    def _operations_in_training(self, config: ASTConfig, frames: int, trained: Trainable) -> np.ndarray:
        patches = None
        if self.augmentation is not None:
            with contextlib.suppress(ValueError):  # a smaller model may have no patches to spare
                self.augmentation.check_model(config)
                patches = self.augmentation.patches_computed(config, frames)[0]
        return operations(config, frames, trained, patches)

    def step(self, work: np.ndarray) -> float:
        """Seconds of an optimiser step with clips of so many operations.

        Args:
            work (`np.ndarray`): from [`RunCost.step_operations`].

        Returns:
            `float`: seconds.
        """
        return self.accumulation * self.training.seconds(self.batch_size, work) + self.beside

    @property
    def beside(self) -> float:
        """Seconds of a step that no choice of model or length changes."""
        return self.update + self.accumulation * (self.batch_size * self.reading + self.teaching)

    def score(self, clips: int, config: ASTConfig) -> float:
        """Seconds in which so many clips are scored.

        Args:
            clips (`int`): how many clips.
            config ([`ASTConfig`]): of the model.

        Returns:
            `float`: seconds.
        """
        number = min(clips, self.eval_batch_size)
        passes = self.scoring.seconds(number, operations(config, config.max_length)) * clips / number
        return passes + clips * self.reading


def estimate_cost(
    trainer: ASTTrainer,
    clips: dict[str, ClipDataset],
    data_args: DataArguments,
    optimization: OptimizationArguments,
    frames: np.ndarray | None = None,
    limit: TimeLimit | None = None,
) -> tuple[dict, RunCost]:
    """Train and score a little with the trainer of a run, save nothing, and tell what the whole run would cost.

    Args:
        trainer ([`ASTTrainer`]): of the run, its output folder another than the run's. Its model is changed.
        clips (`dict[str, ClipDataset]`): of the run, by split.
        data_args ([`DataArguments`]): padding of the training.
        optimization ([`OptimizationArguments`]): which epochs' weights are scored at the end.
        frames (`np.ndarray`, *optional*): lengths of clips; as long as the input if not given.
        limit ([`TimeLimit`], *optional*): of the dry run.

    Returns:
        What the report says, and the parts that it was told from. In the report `device`, `threads`, `warm_up_steps`,
        `measured_steps` (none where passes were timed instead), `timed_passes` (clips, frames and seconds of each), `patchout` (patches of an input of
        `max_length` that are `kept`, `of` how many; only where some are left out), `teacher` (its name, `seconds_per_step` and
        `weights_gb`; only where there is one),
        `seconds_per_step` (`mean`, and the percentiles 10 and 90 as `fast` and `slow`), `steps_per_epoch`, `epochs`,
        `epoch_seconds`, `evaluation_seconds` (of one pass over the scored split), `evaluation_passes`, `run_seconds`
        (`expected`, and if all steps were `fast` or `slow`), `peak_memory_gb`, `memory_before_gb` and `memory_of`
        (`"process"` or `"accelerator"`).
    """
    args, limit = trainer.args, limit or TimeLimit()
    grouped = args.train_sampling_strategy == "group_by_length"
    steps, scored = count_steps(trainer), count_evaluations(trainer, clips, data_args, optimization)
    deadline = limit.share(STEPS, later=SCORING + PROPOSALS)
    teaching = time_teacher(trainer, clips["train"], Deadline(deadline.left / 4)) if trainer.teacher else 0.0
    config, before = trainer.model.config, reset_peak_memory(args.device)
    trained = Trainable.of(trainer.model, config.num_hidden_layers)
    training = time_training(trainer, clips["train"], trained, Deadline(deadline.left / 2))
    cost = RunCost(
        config=config,
        trained=trained,
        training=training,
        scoring=time_scoring(trainer, limit.share(SCORING / 2, later=PROPOSALS)),
        update=0.0,
        reading=seconds_to_read(_read_first(clips["train"])) / max(1, args.dataloader_num_workers),
        batch_size=min(args.train_batch_size, len(clips["train"])),
        accumulation=args.gradient_accumulation_steps,
        eval_batch_size=args.eval_batch_size,
        steps=steps,
        scored=scored,
        frames=np.array([config.max_length]) if frames is None else frames,
        augmentation=trainer.augmentation,
        teaching=teaching,
    )
    work = cost.step_operations(config, trained, data_args.padding, grouped)
    measured = (warm_up_steps(trainer) + FEWEST_STEPS) * cost.step(work) <= deadline.left
    with contextlib.redirect_stdout(io.StringIO()):  # what a training prints of itself
        if measured:
            times = measure_steps(trainer, deadline)
            passes = cost.accumulation * training.seconds(cost.batch_size, work)
            training.factor = max(times.mean - cost.beside, times.mean / 2) / passes
            seconds = {"mean": times.mean} | dict(
                zip(("fast", "slow"), np.percentile(times.seconds, RANGE).tolist(), strict=True)
            )
            peak = peak_memory(args.device)
        else:
            time_training(trainer, clips["train"], trained, deadline, known=training)
            peak = memory_of_step(trainer, training, before, cost.batch_size)
            cost = replace(cost, update=time_update(trainer))
            seconds = {"mean": cost.step(work)} | {
                name: cost.accumulation * value + cost.beside
                for name, value in zip(("fast", "slow"), training.range(cost.batch_size, work), strict=True)
            }
        in_training, at_the_end = scored
        whole = [*in_training, *at_the_end]
        deadline = limit.share(SCORING, later=PROPOSALS)
        tried = sum(EVALUATED_BATCHES, EVALUATED_BATCHES[0]) * args.eval_batch_size
        if cost.score(min(tried, len(clips["eval"])), config) <= deadline.left:
            evaluation = measure_evaluation(trainer, clips["eval"])
            expected = cost.score(len(clips["eval"]), config)
            cost.scoring.factor = max(evaluation(len(clips["eval"])) / expected, 0.1)
        else:
            evaluation = partial(cost.score, config=config)
    scoring = sum(evaluation(number) for number in whole)
    kept, patches = (trainer.augmentation or Augmentation()).patches_computed(config, config.max_length)
    return {
        "device": args.device.type,
        "threads": torch.get_num_threads(),
        "warm_up_steps": times.warm_up if measured else 0,
        "measured_steps": len(times.seconds) if measured else 0,
        "timed_passes": [[timed.clips, timed.frames, timed.seconds] for timed in training.passes],
        **({"patchout": {"kept": kept, "of": patches}} if kept < patches else {}),
        **({"teacher": _describe_teacher(trainer, teaching)} if trainer.teacher else {}),
        "step_shape": [cost.batch_size, config.max_length],
        "seconds_per_step": seconds,
        "steps_per_epoch": steps.per_epoch,
        "epochs": steps.epochs,
        "epoch_seconds": seconds["mean"] * steps.per_epoch,
        "evaluation_seconds": evaluation(len(clips["eval"])),
        "evaluation_passes": len(whole),
        "run_seconds": {
            name: seconds[step] * steps.total + scoring
            for name, step in (("expected", "mean"), ("fast", "fast"), ("slow", "slow"))
        },
        "peak_memory_gb": peak / GIGA,
        "memory_before_gb": before / GIGA,
        "memory_of": "accelerator" if args.device.type == "cuda" else "process",
    }, cost


def time_training(
    trainer: ASTTrainer, clips: ClipDataset, trained: Trainable, deadline: Deadline, known: TimeModel | None = None
) -> TimeModel:
    """Time passes forward and backward over growing batches of noise, as long as there is time.

    Args:
        trainer ([`ASTTrainer`]): its model is left without gradients.
        clips ([`ClipDataset`]): of the training, for what their targets are.
        trained ([`Trainable`]): what of the model learns.
        deadline ([`Deadline`]): of all passes.
        known ([`TimeModel`], *optional*): passes that were timed already, to which longer ones are added.

    Returns:
        [`TimeModel`]: of passes forward and backward.
    """
    model, args = trainer.model, trainer.args
    columns = FrameColumns.of(model.config) if isinstance(model, ASTForAudioFrameClassification) else None
    mixed = bool(trainer.augmentation and trainer.augmentation.label_mixing_strengths)
    vectors = columns is not None or clips.vector_targets or mixed

    def run(number: int, frames: int):
        shape = (number, model.config.num_labels) if vectors else (number,)
        if columns is not None:
            shape = (number, columns.number(frames), model.config.num_labels)
        labels = torch.zeros(shape, dtype=torch.float32 if vectors else torch.long, device=args.device)
        inputs = {"input_values": _noise(trainer, number, frames), "labels": labels}
        if trainer.teacher is not None:
            inputs |= trainer.teacher.stand_ins(inputs)
        with trainer.accelerator.autocast():
            loss = trainer.compute_loss(model, inputs)
        loss.backward()

    model.train()
    if args.gradient_checkpointing:
        model.gradient_checkpointing_enable(args.gradient_checkpointing_kwargs)
    shapes = shapes_to_time(min(args.train_batch_size, len(clips)), model.config.max_length)
    return time_passes(
        run, shapes, lambda frames: operations(model.config, frames, trained), args.device, deadline, known
    )


def time_teacher(trainer: ASTTrainer, clips: ClipDataset, deadline: Deadline) -> float:
    """Time a teacher on the clips of a batch, or on one of them where a batch would take too long.

    Args:
        trainer ([`ASTTrainer`]): with its teacher.
        clips ([`ClipDataset`]): of the training.
        deadline ([`Deadline`]): until which there is time.

    Returns:
        `float`: seconds for the clips of a pass of the training.
    """
    number = min(trainer.args.train_batch_size, len(clips))
    seconds = 0.0
    for count in (1, 1, number):  # the first warms up
        if count * seconds > deadline.left:
            break
        items = [clips[key] for _, key in clips.keys_of_first_epoch(count, trainer.args.seed)]
        batch = trainer._prepare_input(trainer.data_collator(items))  # onto the device
        inputs = model_inputs(batch, trainer.feature_extractor, trainer.augmentation, trainer.model.config)
        wait_for(trainer.args.device)
        start = time.perf_counter()
        trainer.teacher.targets(batch, inputs)
        wait_for(trainer.args.device)
        seconds = (time.perf_counter() - start) / count
    return number * seconds


def _describe_teacher(trainer: ASTTrainer, teaching: float) -> dict:
    return {
        "name": trainer.teacher.name,
        "seconds_per_step": trainer.args.gradient_accumulation_steps * teaching,
        "weights_gb": trainer.teacher.num_bytes / GIGA,
    }


def time_scoring(trainer: ASTTrainer, deadline: Deadline) -> TimeModel:
    """[`time_training`] for passes forward alone.

    Args:
        trainer ([`ASTTrainer`]): the trainer of the run.
        deadline ([`Deadline`]): until which there is time.

    Returns:
        [`TimeModel`]: of passes forward.
    """
    model, args = trainer.model, trainer.args

    @torch.inference_mode()
    def run(number: int, frames: int):
        with trainer.accelerator.autocast():
            model(input_values=_noise(trainer, number, frames))

    model.eval()
    shapes = shapes_to_time(args.eval_batch_size, model.config.max_length)
    times = time_passes(run, shapes, lambda frames: operations(model.config, frames), args.device, deadline)
    model.train()  # which tells what was going on where memory is full
    return times


def _noise(trainer: ASTTrainer, clips: int, frames: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)  # the global one is the run's
    noise = torch.randn(clips, frames, trainer.model.config.num_mel_bins, generator=generator)
    return noise.to(trainer.args.device)


def time_update(trainer: ASTTrainer) -> float:
    """Seconds in which the optimiser makes an update of the gradients that are there; the weights are changed.

    Args:
        trainer ([`ASTTrainer`]): whose parameters have gradients.

    Returns:
        `float`: seconds.
    """
    optimizer, seconds = trainer.create_optimizer(), math.inf
    for _ in range(2):  # the first one also makes the optimiser's state
        start = time.perf_counter()
        if trainer.args.max_grad_norm:
            torch.nn.utils.clip_grad_norm_(trainer.model.parameters(), trainer.args.max_grad_norm)
        optimizer.step()
        wait_for(trainer.args.device)
        seconds = min(seconds, time.perf_counter() - start)
    trainer.model.zero_grad()
    return seconds


def memory_of_step(trainer: ASTTrainer, training: TimeModel, before: int, batch_size: int) -> int:
    """Highest use of memory of a whole step, extrapolated from that of the largest pass that was timed; bytes.

    Weights' gradients and an optimiser's two values a weight are there once; what a pass keeps for its backward pass grows
    with the tokens, or with eager attention as its operations do.

    Args:
        trainer ([`ASTTrainer`]): the trainer of the run.
        training ([`TimeModel`]): of the passes that were timed.
        before (`int`): bytes in use before them.
        batch_size (`int`): clips of a step.

    Returns:
        `int`: bytes.
    """
    config = trainer.model.config
    learning = sum(
        parameter.numel() * parameter.element_size()
        for parameter in trainer.model.parameters()
        if parameter.requires_grad
    )
    augmentation = trainer.augmentation or Augmentation()
    tokens = CLASS_TOKENS + augmentation.patches_computed(config, config.max_length)[0]
    largest = training.passes[-1]
    kept = max(0, peak_memory(trainer.args.device) - before - learning)
    growth = batch_size * tokens / (largest.clips * tokens_of(config, largest.frames))
    if config._attn_implementation == "eager":
        growth = max(
            growth,
            batch_size
            * operations(config, config.max_length, patches=tokens - CLASS_TOKENS)[1]
            / (largest.clips * operations(config, largest.frames)[1]),
        )
    return int(before + 3 * learning + kept * growth)


def _read_first(clips: ClipDataset) -> Iterator[dict]:
    """Items of the first clips, each read when it is asked for."""
    for key in clips.first_keys(min(CLIPS_READ, len(clips))):
        yield clips[key]


def count_steps(trainer: ASTTrainer) -> Steps:
    """The steps of a training that has not begun.

    Args:
        trainer ([`ASTTrainer`]): the trainer of the run.

    Returns:
        [`Steps`]: of an epoch and of the training.
    """
    args = trainer.args
    _, whole_per_epoch, num_clips, _, clips_per_step, _, whole = trainer.set_initial_training_values(
        args, trainer.get_train_dataloader()
    )
    per_epoch = whole_per_epoch if args.dataloader_drop_last else num_clips / clips_per_step
    if args.max_steps > 0:
        return Steps(whole / whole_per_epoch, per_epoch, per_epoch * whole / whole_per_epoch, whole)
    return Steps(args.num_train_epochs, per_epoch, args.num_train_epochs * per_epoch, whole)


def count_evaluations(
    trainer: ASTTrainer,
    clips: dict[str, ClipDataset],
    data_args: DataArguments,
    optimization: OptimizationArguments,
) -> tuple[list[int], list[int]]:
    """Clips of every pass of scoring of a run: those in training, and those of [`evaluate`] after it.

    Args:
        trainer ([`ASTTrainer`]): the trainer of the run.
        clips (`dict[str, ClipDataset]`): by the name of the split.
        data_args ([`DataArguments`]): where the clips are and how they are heard.
        optimization ([`OptimizationArguments`]): what is optimised how.

    Returns:
        `tuple[list[int], list[int]]`: clips of each pass, in training and after it.
    """
    args, steps, passes = trainer.args, count_steps(trainer), 0
    if args.eval_strategy == IntervalStrategy.EPOCH:
        passes = math.ceil(steps.epochs)
    elif args.eval_strategy == IntervalStrategy.STEPS:  # and after the last step
        every = args.eval_steps if args.eval_steps >= 1 else math.ceil(args.eval_steps * steps.whole)
        passes = math.ceil(steps.whole / every)
    ensemble = optimization.ensemble_epochs
    at_the_end = 1 + (data_args.padding == "longest") + bool(optimization.average_epochs)
    at_the_end += ensemble[1] - ensemble[0] + 1 if ensemble else 0
    chosen_on = [len(clips["validation"])] if "validation" in clips else []
    # What the last of them scored is not scored again with the same weights and padding: see `ASTTrainer.scores_of`.
    longest, averaged = data_args.padding == "longest", bool(optimization.average_epochs)
    other_weights = args.load_best_model_at_end or ensemble or is_adapted(trainer.model)
    if passes and trainer.gives_scores_again and not other_weights:
        if chosen_on and not longest and not averaged:
            chosen_on = []
        elif not chosen_on and not (longest and averaged):
            at_the_end -= 1
    return [len(clips.get("validation", clips["eval"]))] * passes, [len(clips["eval"])] * at_the_end + chosen_on


def warm_up_steps(trainer: ASTTrainer) -> int:
    """Steps that do not count: the first, and with loader workers as many as they have read in advance.

    Args:
        trainer ([`ASTTrainer`]): the trainer of the run.

    Returns:
        `int`: steps.
    """
    args = trainer.args
    read_in_advance = args.dataloader_num_workers * (args.dataloader_prefetch_factor or 2)
    return 1 + math.ceil(read_in_advance / args.gradient_accumulation_steps)


def measure_steps(trainer: ASTTrainer, deadline: Deadline) -> StepTimes:
    """Train a few steps in which everything learns; nothing is scored or saved. See [`warm_up_steps`].

    Args:
        trainer ([`ASTTrainer`]): the trainer of the run.
        deadline ([`Deadline`]): until which there is time.

    Returns:
        [`StepTimes`]: of the steps that count.
    """
    args = trainer.args
    args.eval_strategy, args.save_strategy = IntervalStrategy.NO, SaveStrategy.NO
    args.load_best_model_at_end = False
    for callback in (EarlyStoppingCallback, EpochFolders, HeadOnlyEpochs):
        trainer.remove_callback(callback)
    clock = StepClock(warm_up_steps(trainer), args.device, deadline)
    args.max_steps = clock.warm_up + MOST_STEPS
    trainer.fits_head = False
    trainer.add_callback(clock)
    trainer.train()
    trainer.remove_callback(clock)
    return clock.times()


def measure_evaluation(trainer: ASTTrainer, clips: ClipDataset):
    """Score a few batches.

    Args:
        trainer ([`ASTTrainer`]): the trainer of the run.
        clips ([`ClipDataset`]): that are scored.

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
    """Begin to look for the highest use of memory anew, where the system can; bytes in use now.

    Args:
        device (`torch.device`): on which is trained.

    Returns:
        `int`: bytes.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    with contextlib.suppress(OSError):  # Linux only; elsewhere the peak is that since the process began
        Path("/proc/self/clear_refs").write_text("5")
    return _process_memory("VmRSS")


def peak_memory(device: torch.device) -> int:
    """Highest use of memory since [`reset_peak_memory`] in bytes: of the accelerator, or of this whole process.

    Args:
        device (`torch.device`): on which is trained.

    Returns:
        `int`: bytes.
    """
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else _process_memory("VmHWM")


def _process_memory(field: str) -> int:
    """Bytes of this process from Linux' table; elsewhere its highest use, which is all there is to know."""
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = (line for line in status.read_text().splitlines() if line.startswith(f"{field}:"))
        return int(line.split()[1]) * 1024
    return highest_process_memory()

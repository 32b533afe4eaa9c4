"""Which flags make a training take less time, with the time that each set of them would take by the dry run's estimate.

Frozen layers and a smaller model are measured where there is time for it, lengths, strides and padding are told from the
operations that they leave; see [`TimeModel`].
"""

import copy
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch

from modeling_ast import ASTConfig, ASTForAudioClassification

from ..arguments.groups import DataArguments, RunArguments
from ..clip_sets.waveforms import ClipDataset
from ..training.optimization import freeze_lowest_layers
from ..training.trainer import ASTTrainer
from .cost_estimate import RunCost, time_training
from .time_limit import Deadline, TimeLimit
from .time_model import TimeModel, Trainable

MINUTES = (2, 5, 10, 15, 30, 60, 120, 240, 480, 1440, 2880)  # for which flags are proposed
WORTH_IT = 10.0  # minutes of a run, under which nothing is proposed
MOST_LINES = 3
APART = 2.5  # times that lines are apart
LESS = 0.9  # of the time without a flag that it has to save to be proposed
ROOM = 0.95  # of the minutes that a proposal may take by an estimate
WIDE_STRIDE = 16  # patches that do not overlap
FROZEN_SHARES = (0.5, 0.75)  # of the layers
SMALLER = {"hidden_size": 192, "num_attention_heads": 3, "intermediate_size": 768}  # DeiT-tiny's
SMALLER_START = "facebook/deit-tiny-distilled-patch16-224"
EPOCH_SHARES = (0.5, 0.25)


@dataclass(frozen=True)
class Choice:
    """Flags that are set together.

    Args:
        flags (`str`): as they are typed; empty for leaving all as it is.
        burden (`float`): how much may be lost by them, to take what costs least first.
        first (`str`): a command that has to be run before.
        config (`dict`): fields of the configuration that they change.
        frozen (`int`): lowest layers that they freeze.
        smaller (`bool`): whether the model is another, smaller one.
        longest, grouped (`bool`): whether they pad to the longest, and group clips by length.
        epochs (`float`): by which they multiply the epochs.
    """

    flags: str = ""
    burden: float = 0.0
    first: str = ""
    config: tuple[tuple[str, int], ...] = ()
    frozen: int = 0
    smaller: bool = False
    longest: bool = False
    grouped: bool = False
    epochs: float = 1.0


def propose(
    trainer: ASTTrainer,
    clips: dict[str, ClipDataset],
    arguments: RunArguments,
    cost: RunCost,
    report: dict,
    limit: TimeLimit,
) -> list[dict]:
    """Find flags for less time; none for a run of a few minutes.

    Args:
        trainer ([`ASTTrainer`]): of the run. Its model is changed and restored.
        clips (`dict[str, ClipDataset]`): of the run, by split.
        arguments ([`RunArguments`]): of the run.
        cost ([`RunCost`]): from [`estimate_cost`].
        report (`dict`): of the dry run, with `cost`, `folds` and where clips were looked at `frames`.
        limit ([`TimeLimit`]): of the dry run.

    Returns:
        A row for each number of minutes, longest first: `minutes`, `flags`, `first` (a command to run before, or empty),
        `seconds` that it would take, `fits` (whether that is less than so many minutes), and of what was `measured`.
    """
    runs = max(1, len(report["folds"]))
    whole = runs * report["cost"]["run_seconds"]["expected"]
    if whole < 60 * WORTH_IT:
        return []
    estimates = Estimates(trainer, clips["train"], cost, limit.rest)
    options = []
    for choices in itertools.product(*kinds_of_choices(trainer, arguments, cost, report)):
        seconds = runs * estimates.run_seconds(choices, trainer.args.train_sampling_strategy, arguments.data.padding)
        options.append((sum(choice.burden for choice in choices), seconds, choices))
    rows = []
    for minutes in _targets(whole / 60):
        fitting = [option for option in options if option[1] <= ROOM * 60 * minutes]
        _, seconds, choices = (
            min(fitting, key=lambda option: option[:2]) if fitting else min(options, key=lambda option: option[1])
        )
        flags = [choice.flags for choice in choices if choice.flags]
        if flags and (not rows or rows[-1]["flags"] != " ".join(flags)):
            rows.append(
                {
                    "minutes": minutes,
                    "flags": " ".join(flags),
                    "first": "; ".join(choice.first for choice in choices if choice.first),
                    "seconds": seconds,
                    "fits": bool(fitting),
                    "measured": estimates.measured,
                }
            )
    return rows


def _targets(whole: float) -> list[int]:
    """Minutes to propose something for, of a run of so many: the next round number below, and ones well below that."""
    targets, below = [], whole * LESS
    while len(targets) < MOST_LINES and (lower := [minutes for minutes in MINUTES if minutes <= below]):
        targets.append(lower[-1])
        below = lower[-1] / APART
    return targets


def kinds_of_choices(
    trainer: ASTTrainer,
    arguments: RunArguments,
    cost: RunCost,
    report: dict,
) -> Iterator[list[Choice]]:
    """For each kind of flag what may be chosen, the first of them to leave it as it is.

    Args:
        trainer ([`ASTTrainer`]): of the training that was measured.
        arguments ([`RunArguments`]): of that training.
        cost ([`RunCost`]): what its parts take.
        report (`dict`): what is known of its clips.

    Yields:
        Choices of which one can be taken.
    """
    model_args, data_args, optimization = arguments.model, arguments.data, arguments.optimization
    config, args = cost.config, trainer.args
    yield _lengths(report.get("frames"), config)
    yield _paddings(report.get("frames"), data_args, args.train_sampling_strategy, trainer.train_dataset.at_hand)
    frozen = [Choice()]
    if model_args.model_name_or_path and not optimization.lora_rank:
        for place, share in enumerate(FROZEN_SHARES):
            layers = round(share * config.num_hidden_layers)
            if layers > optimization.frozen_layers:
                frozen.append(Choice(f"--frozen_layers {layers}", 0.8 + 0.8 * place, frozen=layers))
    yield frozen
    wide = [Choice()]
    if max(config.frequency_stride, config.time_stride) < WIDE_STRIDE <= config.patch_size:
        strides = (("frequency_stride", WIDE_STRIDE), ("time_stride", WIDE_STRIDE))
        wide.append(Choice(" ".join(f"--{name} {stride}" for name, stride in strides), 1.0, config=strides))
    yield wide
    smaller = [Choice()]
    if config.hidden_size > 2 * SMALLER["hidden_size"] and not optimization.lora_rank:
        if model_args.model_name_or_path:
            first = f"ast-convert --imagenet_start {SMALLER_START} tiny-start --max_length {config.max_length} --num_labels {config.num_labels}"
            smaller.append(Choice("--model_name_or_path tiny-start", 4.0, first, smaller=True))
        else:
            smaller.append(Choice(" ".join(f"--{name} {size}" for name, size in SMALLER.items()), 3.0, smaller=True))
    yield smaller
    fewer = [Choice()]
    if args.max_steps > 0:
        for place, share in enumerate(EPOCH_SHARES):
            fewer.append(Choice(f"--max_steps {max(1, round(share * args.max_steps))}", 0.7 + place, epochs=share))
    elif not (optimization.average_epochs or optimization.ensemble_epochs):
        for place, share in enumerate(EPOCH_SHARES):
            epochs = max(1, round(share * args.num_train_epochs))
            if epochs < args.num_train_epochs:
                share = epochs / args.num_train_epochs
                fewer.append(Choice(f"--num_train_epochs {epochs}", 0.7 + place, epochs=share))
    yield fewer


def _lengths(frames: dict | None, config: ASTConfig) -> list[Choice]:
    lengths = [Choice()]
    fitting = frames["fitting"] if frames else None
    if fitting and fitting["max_length"] < config.max_length:
        chosen = fitting["max_length"]
        lengths.append(Choice(f"--max_length {chosen}", 0.2, config=(("max_length", chosen),)))
    shorter = lengths[-1].config[0][1] // 2 if lengths[-1].config else config.max_length // 2
    if shorter >= 4 * config.patch_size:
        lengths.append(Choice(f"--max_length {shorter}", 1.2, config=(("max_length", shorter),)))
    return lengths


def _paddings(frames: dict | None, data_args: DataArguments, strategy: str, at_hand: bool) -> list[Choice]:
    if frames is None or frames["share_padding"] < 1 - LESS:
        return [Choice()]
    flags, grouped = [], strategy == "group_by_length"
    if data_args.padding != "longest":
        flags.append("--padding longest")
    if strategy == "random" and at_hand:
        flags.append("--train_sampling_strategy group_by_length")
        grouped = True
    if not flags:
        return [Choice()]
    return [Choice(), Choice(" ".join(flags), 0.1, longest=True, grouped=grouped)]


class Estimates:
    """Seconds of trainings with other flags, told from those of one.

    Args:
        trainer ([`ASTTrainer`]): of the training that was measured.
        clips ([`ClipDataset`]): that it trains.
        cost ([`RunCost`]): what its parts take.
        deadline ([`Deadline`]): of passes that are timed for this.
    """

    def __init__(self, trainer: ASTTrainer, clips: ClipDataset, cost: RunCost, deadline: Deadline):
        self.trainer, self.clips, self.cost, self.deadline = trainer, clips, cost, deadline
        self.measured: list[str] = []
        self._of_frozen: dict[int, float] = {}  # by which frozen layers take longer than their operations say
        self._of_smaller: tuple[RunCost, Trainable] | None = None

    def run_seconds(self, choices: tuple[Choice, ...], strategy: str, padding: str) -> float:
        """Seconds of the whole training with these flags; `strategy` and `padding` are those without them.

        Args:
            choices (`tuple[Choice, ...]`): the flags.
            strategy (`str`): order of the clips; see `train_sampling_strategy`.
            padding (`str`): `"max_length"` or `"longest"`.

        Returns:
            `float`: seconds.
        """
        cost, factor = self.cost, 1.0
        trained = cost.trained
        smaller = any(choice.smaller for choice in choices)
        frozen = max(choice.frozen for choice in choices)
        if smaller:
            cost, trained = self._smaller()
        config = _changed(cost.config, dict(itertools.chain.from_iterable(choice.config for choice in choices)))
        if frozen:
            trained = trained.without_lowest(frozen)
            factor = 1.0 if smaller else self._frozen(frozen)
        longest = padding == "longest" or any(choice.longest for choice in choices)
        grouped = strategy == "group_by_length" or any(choice.grouped for choice in choices)
        work = cost.step_operations(config, trained, "longest" if longest else padding, grouped)
        step = factor * (cost.step(work) - cost.beside) + cost.beside
        epochs = float(np.prod([choice.epochs for choice in choices]))
        in_training, at_the_end = cost.scored
        more = [at_the_end[0]] if longest and padding != "longest" else []  # both ways are scored then
        scoring = epochs * sum(cost.score(number, config) for number in in_training)
        scoring += sum(cost.score(number, config) for number in [*at_the_end, *more])
        return epochs * cost.steps.total * step + scoring

    def _frozen(self, layers: int) -> float:
        """Measured time of a pass with frozen layers over that which its operations say; 1 without time to measure."""
        if layers not in self._of_frozen:
            self._of_frozen[layers] = self._measure_frozen(layers)
        return self._of_frozen[layers]

    def _measure_frozen(self, layers: int) -> float:
        cost, model = self.cost, self.trainer.model
        first = cost.training.passes[0]
        if 3 * first.seconds > self.deadline.left:
            return 1.0
        learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
        trained = cost.trained.without_lowest(layers)
        try:
            freeze_lowest_layers(model, cost.config.num_hidden_layers, layers)
            times = time_training(self.trainer, self.clips, trained, Deadline(min(2.0, self.deadline.left / 2)))
        finally:
            for parameter in learning:
                parameter.requires_grad_(True)
        self.measured.append(f"--frozen_layers {layers}")
        largest = times.passes[-1]
        alike = next(
            timed for timed in cost.training.passes if (timed.clips, timed.frames) == (largest.clips, largest.frames)
        )
        expected = alike.seconds * largest.operations.sum() / alike.operations.sum()
        return largest.seconds / expected

    def _smaller(self) -> tuple[RunCost, Trainable]:
        """What the parts of a training of a smaller model take."""
        if self._of_smaller is None:
            self._of_smaller = self._measure_smaller()
        return self._of_smaller

    def _measure_smaller(self) -> tuple[RunCost, Trainable]:
        config = _changed(self.cost.config, SMALLER)
        trained = Trainable.whole(config.num_hidden_layers)
        training, scoring = self.cost.training, self.cost.scoring
        if self.deadline.left > 1.0:
            whole = self.trainer.model
            with torch.random.fork_rng(devices=[]):
                self.trainer.model = ASTForAudioClassification(config).to(self.trainer.args.device)
            try:
                training = time_training(self.trainer, self.clips, trained, Deadline(min(3.0, self.deadline.left)))
            finally:
                self.trainer.model = whole
            training.factor = self.cost.training.factor
            # A backward pass takes twice as long as one forward.
            scoring = TimeModel(
                [
                    replace(timed, operations=timed.operations / 3, seconds=timed.seconds / 3)
                    for timed in training.passes
                ],
                self.cost.scoring.factor,
            )
            self.measured.append("the smaller model")
        share = (SMALLER["hidden_size"] / self.cost.config.hidden_size) ** 2
        cost = replace(
            self.cost,
            config=config,
            trained=trained,
            training=training,
            scoring=scoring,
            update=self.cost.update * share,
        )
        return cost, trained


def _changed(config: ASTConfig, fields: dict[str, int]) -> ASTConfig:
    config = copy.deepcopy(config)
    for name, value in fields.items():
        setattr(config, name, value)
    return config

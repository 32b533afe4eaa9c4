"""How long passes through a model take, told from a few short ones that are timed.

A pass over a batch takes a time for itself and one for each floating-point operation of its matrix products, of which those
of attention (quadratic in the tokens) and all others (linear) run at speeds of their own. Operations are counted from the
sizes, the three times fitted to the passes that were timed; what is longer is extrapolated.
"""

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from scipy.optimize import nnls
from torch import nn

from modeling_ast import ASTConfig
from modeling_ast.layers.patch_grid import patches_along

from ..training.optimization import depth_of
from .time_limit import Deadline

SHORTEST_PASS = 128  # frames of the first pass that is timed, of one clip
LONG_ENOUGH = 0.5  # seconds of a pass above which it is not timed twice
CLASS_TOKENS = 2
RATIOS = np.geomspace(0.25, 4.0, 33)  # of the time of an operation of attention to that of another, that are tried
PRIOR = 0.01  # on the squared logarithm of the ratio: twice as slow counts as an error of 7 % in one pass


@dataclass(frozen=True)
class Trainable:
    """Which part of a model learns, which decides what a backward pass has to compute.

    Args:
        embeddings (`bool`): whether the patch embedding does.
        weights (`list[float]`): of each layer, the share of its weights that learns.
        reached (`list[bool]`): of each layer, whether anything in it or below it learns, so that gradients go through it.
    """

    embeddings: bool
    weights: list[float]
    reached: list[bool]

    @classmethod
    def of(cls, model: nn.Module, num_layers: int) -> "Trainable":
        """Of a model with so many layers, as its parameters are set.

        Args:
            model (`torch.nn.Module`): whose `requires_grad` counts.
            num_layers (`int`): layers of its transformer.

        Returns:
            [`Trainable`]: what learns of it.
        """
        learning, sizes = np.zeros(num_layers + 2), np.zeros(num_layers + 2)
        for name, parameter in model.named_parameters():
            depth = depth_of(name, num_layers)
            sizes[depth] += parameter.numel()
            learning[depth] += parameter.numel() * parameter.requires_grad
        shares = (learning[1:-1] / np.maximum(sizes[1:-1], 1)).tolist()
        return cls(bool(learning[0]), shares, [bool(learning[: layer + 2].any()) for layer in range(num_layers)])

    @classmethod
    def whole(cls, num_layers: int) -> "Trainable":
        """Of a model that learns as a whole.

        Args:
            num_layers (`int`): layers of its transformer.

        Returns:
            [`Trainable`]: all of it.
        """
        return cls(True, [1.0] * num_layers, [True] * num_layers)

    def without_lowest(self, frozen_layers: int) -> "Trainable":
        """The same with `--frozen_layers`, of which 0 freezes nothing.

        Args:
            frozen_layers (`int`): layers that do not learn, and with them the embeddings.

        Returns:
            [`Trainable`]: the rest.
        """
        return Trainable(
            self.embeddings and not frozen_layers,
            [0.0 if layer < frozen_layers else share for layer, share in enumerate(self.weights)],
            [False if layer < frozen_layers else reached for layer, reached in enumerate(self.reached)],
        )


def tokens_of(config: ASTConfig, frames: int) -> int:
    """Tokens of a clip: patches and class tokens.

    Args:
        config ([`ASTConfig`]): of the model.
        frames (`int`): of the clip, padding included.

    Returns:
        `int`: tokens.
    """
    rows = patches_along(config.num_mel_bins, config.patch_size, config.frequency_stride)
    return rows * max(1, patches_along(frames, config.patch_size, config.time_stride)) + CLASS_TOKENS


def operations(
    config: ASTConfig, frames: int, trained: Trainable | None = None, patches: int | None = None
) -> np.ndarray:
    """Floating-point operations of the matrix products of a pass of one clip.

    Args:
        config ([`ASTConfig`]): sizes of the model.
        frames (`int`): of the clip, padding included.
        trained ([`Trainable`], *optional*): what learns; a forward pass alone if not given.
        patches (`int`, *optional*): so many of its patches are computed; all if not given.

    Returns:
        `np.ndarray` of shape `(2,)`: those that are linear in the tokens, and those of attention.
    """
    all_tokens, width, layers = tokens_of(config, frames), config.hidden_size, config.num_hidden_layers
    tokens = all_tokens if patches is None else patches + CLASS_TOKENS
    linear = np.full(layers, 2.0 * tokens * (4 * width**2 + 2 * width * config.intermediate_size))
    attention = np.full(layers, 4.0 * tokens**2 * width)
    # A classifier reads the class tokens alone: of the last layer the others need keys and values only.
    linear[-1] = 2.0 * tokens * 2 * width**2 + linear[-1] * CLASS_TOKENS / tokens
    attention[-1] *= CLASS_TOKENS / tokens
    embedding = 2.0 * (all_tokens - CLASS_TOKENS) * config.patch_size**2 * width
    if trained is None:
        return np.array([linear.sum() + embedding, attention.sum()])
    # A forward pass costs 1, gradients of inputs and those of weights as much again each.
    reached = np.array(trained.reached, dtype=float)
    linear *= 1 + reached + np.array(trained.weights)
    attention *= 1 + 2 * reached
    return np.array([linear.sum() + embedding * (1 + trained.embeddings), attention.sum()])


@dataclass(frozen=True)
class TimedPass:
    """One pass over a batch that was timed.

    Args:
        clips (`int`): of the batch.
        frames (`int`): of each clip.
        operations (`np.ndarray` of shape `(2,)`): of each clip; see [`operations`].
        seconds (`float`): that it took.
    """

    clips: int
    frames: int
    operations: np.ndarray
    seconds: float


@dataclass
class TimeModel:
    """Times of passes, from some that were timed; see the head of this file."""

    passes: list[TimedPass] = field(default_factory=list)
    factor: float = 1.0  # by which whole steps take longer than their passes

    def seconds(self, clips: int, operations: np.ndarray) -> float:
        """Seconds of a pass over clips of so many operations each.

        Args:
            clips (`int`): clips in one pass.
            operations (`np.ndarray`): floating-point operations of each clip.

        Returns:
            `float`: seconds.
        """
        return float(self.factor * self._times @ [1.0, *(clips * operations)])

    def range(self, clips: int, operations: np.ndarray) -> tuple[float, float]:
        """The same if all operations ran as fast as in the fastest, and the slowest, of the larger half of the passes.

        Args:
            clips (`int`): clips in one pass.
            operations (`np.ndarray`): floating-point operations of each clip.

        Returns:
            `tuple[float, float]`: seconds, the lower first.
        """
        speeds = [
            timed.seconds / (timed.clips * timed.operations.sum()) for timed in self.passes[len(self.passes) // 2 :]
        ]
        total, expected = float(clips * operations.sum() * self.factor), self.seconds(clips, operations)
        return min(expected, min(speeds) * total), max(expected, max(speeds) * total)

    @property
    def _times(self) -> np.ndarray:
        """Seconds of a pass for itself, of a linear operation and of one of attention.

        Short passes have little attention and say little of its speed: what they leave open is as fast as the rest.
        """
        counted = np.array([timed.clips * timed.operations for timed in self.passes])
        seconds = np.array([timed.seconds for timed in self.passes])
        if len(self.passes) < 2:
            return np.array([0.0, *(2 * [seconds[0] / counted[0].sum()])])
        best = None
        for ratio in RATIOS:
            work = counted @ [1.0, ratio]
            table = np.stack([np.ones(len(work)), work / work.max()], axis=1)
            (own, longest), residual = nnls(table / seconds[:, None], np.ones(len(work)))  # of relative errors
            loss = residual**2 + PRIOR * np.log(ratio) ** 2
            if best is None or loss < best[0]:
                best = loss, np.array([own, longest / work.max(), ratio * longest / work.max()])
        return best[1]


def shapes_to_time(clips: int, frames: int) -> Iterator[tuple[int, int]]:
    """Shapes of growing cost, from one short clip to the whole batch.

    Args:
        clips (`int`): of the whole batch.
        frames (`int`): of its clips.

    Yields:
        Clips and frames of a batch.
    """
    length = min(SHORTEST_PASS, frames)
    while length < frames:
        yield 1, length
        length *= 2
    number = 1
    while number < clips:
        yield number, frames
        number *= 2
    yield clips, frames


def time_passes(
    run: Callable[[int, int], None],
    shapes: Sequence[tuple[int, int]] | Iterator[tuple[int, int]],
    operations_of: Callable[[int], np.ndarray],
    device: torch.device,
    deadline: Deadline,
    known: TimeModel | None = None,
) -> TimeModel:
    """Time passes of growing cost while there is time for the next one.

    Args:
        run (callable): makes a pass over `clips` clips of `frames` frames.
        shapes (iterable of `tuple[int, int]`): `(clips, frames)` of each pass, as [`shapes_to_time`] has them; the first is
            timed in any case.
        operations_of (callable): of a clip of so many frames; see [`operations`].
        device (`torch.device`): whose work is waited for.
        deadline ([`Deadline`]): of all of them.
        known ([`TimeModel`], *optional*): with the first of these passes, which are not timed again.

    Returns:
        [`TimeModel`]: of what was timed.
    """
    model = known or TimeModel()
    for clips, frames in itertools.islice(shapes, len(model.passes), None):
        work = operations_of(frames)
        if not model.passes:
            _seconds_of(run, clips, frames, device)  # warms up
        elif model.seconds(clips, work) > deadline.left:
            break
        seconds = _seconds_of(run, clips, frames, device)
        if seconds < min(LONG_ENOUGH, deadline.left):
            seconds = min(seconds, _seconds_of(run, clips, frames, device))
        model.passes.append(TimedPass(clips, frames, work, seconds))
    return model


def _seconds_of(run: Callable[[int, int], None], clips: int, frames: int, device: torch.device) -> float:
    start = time.perf_counter()
    run(clips, frames)
    wait_for(device)
    return time.perf_counter() - start


def wait_for(device: torch.device):
    """Wait until an accelerator has done what it was given.

    Args:
        device (`torch.device`): a CPU has nothing to wait for.
    """
    if device.type != "cpu":
        torch.accelerator.synchronize(device)

"""Measure two ways to the same result alternately in one process, and what the machine can do at all."""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

GIGA = 1e9


@dataclass(frozen=True)
class Timing:
    """Medians over the rounds: seconds of the peer and of this project, and of the ratio within a round."""

    peer_seconds: float
    our_seconds: float
    ratio: float
    lowest_ratio: float
    highest_ratio: float


def alternate(peer: Callable, ours: Callable, rounds: int) -> Timing:
    """Call both in turn, once for warming up and then `rounds` times, each first every other time.

    On a shared machine a ratio of neighbours in time says more than a ratio of averages.
    """
    pairs = []
    for turn in range(rounds + 1):
        if turn % 2:
            own = seconds_of(ours)
            pairs.append((seconds_of(peer), own))
        else:
            pairs.append((seconds_of(peer), seconds_of(ours)))
    pairs = pairs[1:]
    ratios = [theirs / own for theirs, own in pairs]
    return Timing(
        peer_seconds=statistics.median(theirs for theirs, _ in pairs),
        our_seconds=statistics.median(own for _, own in pairs),
        ratio=statistics.median(ratios),
        lowest_ratio=min(ratios),
        highest_ratio=max(ratios),
    )


def seconds_of(call: Callable, clock: Callable[[], float] | None = None) -> float:
    """Time of one call, by the wall clock or another one."""
    clock = clock or time.perf_counter
    start = clock()
    call()
    return clock() - start


@torch.inference_mode()
def matrix_multiply_rate() -> float:
    """Floating-point operations per second of float32 matrix products of the size in AST's layers, on the faster library.

    A linear layer goes to BLAS, a convolution of width 1 and the operator of PyTorch's compiler to oneDNN.
    """
    rows, width = 1214, 3072
    left, right = torch.randn(rows, width), torch.randn(width, width)
    image, kernel = left.T[None, :, None].contiguous(memory_format=torch.channels_last), right[:, :, None, None]
    # With one thread only a convolution with a stride goes to oneDNN; over an image of one row it changes nothing.
    products = [
        lambda: nn.functional.linear(left, right),
        lambda: nn.functional.conv2d(image, kernel),
        lambda: nn.functional.conv2d(image, kernel, stride=(2, 1)),
    ]
    if hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        products.append(lambda: torch.ops.mkldnn._linear_pointwise(left, right, None, "none", [], ""))
    fastest = min(min(seconds_of(product) for _ in range(10)) for product in products)
    return 2 * rows * width * width / fastest


def forward_operations(config, time_patches: int) -> float:
    """Floating-point operations of the full transformer on one clip, every token of every layer.

    Args:
        config ([`ASTConfig`]): the sizes.
        time_patches (`int`): patches along time.
    """
    tokens = 2 + config.patch_grid[0] * time_patches
    linear = 4 * config.hidden_size**2 + 2 * config.hidden_size * config.intermediate_size
    attention = 2 * tokens * config.hidden_size
    patches = (tokens - 2) * config.hidden_size * config.patch_size**2
    return 2 * (config.num_hidden_layers * tokens * (linear + attention) + patches)


def feature_operations(frames: int, num_mel_bins: int = 128) -> float:
    """Nominal operations of the filter bank: the Fourier transform's 2.5 n log2 n, and the filters as a full matrix."""
    transform = 2.5 * 512 * 9
    return frames * (5 * 400 + transform + 3 * 257 + 2 * 257 * num_mel_bins)


def in_a_process(code: str, *arguments) -> dict:
    """Run code that prints one JSON object as its last line, in a process of its own.

    Args:
        code (`str`): Python source; `sys.argv[1:]` are the arguments.
        arguments: their `str` is passed.
    """
    command = [sys.executable, "-c", code, *map(str, arguments)]
    outcome = subprocess.run(command, capture_output=True, text=True)
    if outcome.returncode:
        raise RuntimeError(f"A measuring process failed:\n{outcome.stderr}")
    return json.loads(outcome.stdout.splitlines()[-1])

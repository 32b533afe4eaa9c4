"""The order in which training clips are visited."""

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler

ORDER_STREAM = 1  # sets these random numbers apart from other uses of the same seed and epoch


class EpochSampler(Sampler):
    """Yields (epoch, index) in an order that is a function of (seed, epoch), so that no worker holds a stale epoch."""

    def __init__(self, num_clips: int, seed: int):
        self.num_clips = num_clips
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int):
        """Choose the order of the next pass."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.num_clips

    def __iter__(self) -> Iterator[tuple[int, int]]:
        order = np.random.default_rng((ORDER_STREAM, self.seed, self.epoch)).permutation(self.num_clips)
        return iter([(self.epoch, int(index)) for index in order])

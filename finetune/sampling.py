"""The order in which training clips are visited."""

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler

SAMPLING_STRATEGIES = ("random", "group_by_length")  # those of `TrainingArguments` that there are here
ORDER_STREAM = 1  # sets these random numbers apart from other uses of the same seed and epoch
GROUPS_SORTED_TOGETHER = 50  # enough for groups of almost one length, few enough that each epoch has other groups


class EpochSampler(Sampler):
    """Yields (epoch, index) in an order that is a function of (seed, epoch), so that no worker holds a stale epoch.

    Args:
        num_clips (`int`): size of the training set.
        seed (`int`): seed of the order.
        lengths (`np.ndarray` of shape `(num_clips,)`, *optional*): length of each clip; clips of similar length are then
            visited together, for `padding="longest"`.
        group_size (`int`, defaults to 1): clips that are visited together: those of one update over all processes.
    """

    def __init__(self, num_clips: int, seed: int, lengths: np.ndarray | None = None, group_size: int = 1):
        self.num_clips = num_clips
        self.seed = seed
        self.lengths = lengths
        self.group_size = group_size
        self.epoch = 0

    def set_epoch(self, epoch: int):
        """Choose the order of the next pass."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.num_clips

    def __iter__(self) -> Iterator[tuple[int, int]]:
        generator = np.random.default_rng((ORDER_STREAM, self.seed, self.epoch))
        order = generator.permutation(self.num_clips)
        if self.lengths is not None:
            order = self._grouped_by_length(order, generator)
        return iter([(self.epoch, int(index)) for index in order])

    def _grouped_by_length(self, order: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        together = self.group_size * GROUPS_SORTED_TOGETHER
        groups = []
        for start in range(0, len(order), together):
            part = order[start : start + together]
            part = part[np.argsort(self.lengths[part], kind="stable")]
            groups += [part[first : first + self.group_size] for first in range(0, len(part), self.group_size)]
        whole = [group for group in groups if len(group) == self.group_size]
        rest = [group for group in groups if len(group) < self.group_size]  # last, or all groups after it were shifted
        return np.concatenate([whole[place] for place in generator.permutation(len(whole))] + rest)

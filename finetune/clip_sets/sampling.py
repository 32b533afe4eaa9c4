"""The order in which training clips are visited.

Source of the class-balanced draw: Gong et al. 2021, the weights that the released code computes for the full AudioSet.
Differs from it in that, with several processes, no clip goes to two of them in one update.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler

ORDER_STREAM = 1  # sets these random numbers apart from other uses of the same seed and epoch
GROUPS_SORTED_TOGETHER = 50  # enough for groups of almost one length, few enough that each epoch has other groups
# A clip with the label l weighs 1000 / (count of l + 0.01) for it; Gong et al. 2021, released code.
LABEL_MASS, COUNT_OFFSET = 1000.0, 0.01
REDRAWS = 200  # enough for all but a handful of clips that have almost all the weight; these are left to an exact draw


class EpochSampler(Sampler):
    """Yields (epoch, index) in an order that is a function of (seed, epoch), so that no worker holds a stale epoch.

    With `weights` it yields (epoch, index, visit), `visit` telling how often the index came before in this epoch.

    Args:
        num_clips (`int`): size of the training set, and of an epoch.
        seed (`int`): seed of the order.
        lengths (`np.ndarray` of shape `(num_clips,)`, *optional*): length of each clip; clips of similar length are then
            visited together, for `padding="longest"`; not where the clips of a group are `distinct`.
        group_size (`int`, defaults to 1): clips that are visited together: those of one update over all processes.
        weights (`np.ndarray` of shape `(num_clips,)`, *optional*): clips are then drawn with replacement, in proportion
            to these; see [`class_balanced_weights`], [`set_balanced_weights`].
        distinct (`bool`, defaults to `False`): with `weights`, draw no clip twice in a group. The last group, if it is
            smaller, counts with those of the first that Accelerate fills it up with.
        heard_lengths (function, *optional*): of lengths and keys (epoch, index, visit) to the lengths as they are heard in
            these visits, where padding is heard; see [`ClipDataset.heard_lengths`].

    Raises:
        ValueError: if there is not one weight per clip, or fewer clips with a weight than have to be drawn together.
    """

    def __init__(
        self,
        num_clips: int,
        seed: int,
        lengths: np.ndarray | None = None,
        group_size: int = 1,
        weights: np.ndarray | None = None,
        distinct: bool = False,
        heard_lengths: Callable[[np.ndarray, list[tuple[int, int, int]]], np.ndarray] | None = None,
    ):
        self.num_clips = num_clips
        self.seed = seed
        self.lengths = lengths
        self.group_size = group_size
        self.weights = weights
        self.distinct = distinct
        self.heard_lengths = heard_lengths
        self.epoch = 0
        if weights is None:
            return
        if len(weights) != num_clips:
            raise ValueError(f"{len(weights)} weights were given for {num_clips} clips, expected one for each.")
        needed, drawable = group_size if distinct else 1, np.count_nonzero(weights)
        if drawable < needed:
            raise ValueError(
                f"A balanced train_sampling_strategy needs {needed} clips with a label, as many as go into one update "
                f"over all processes, but only {drawable} of {num_clips} have one. Pass a smaller "
                "--per_device_train_batch_size, or --train_sampling_strategy random."
            )
        self._cumulative_weights = np.cumsum(weights, dtype=np.float64)

    def set_epoch(self, epoch: int):
        """Choose the order of the next pass.

        Args:
            epoch (`int`): which has an order of its own.
        """
        self.epoch = epoch

    def __len__(self) -> int:
        return self.num_clips

    def __iter__(self) -> Iterator[tuple[int, ...]]:
        generator = np.random.default_rng((ORDER_STREAM, self.seed, self.epoch))
        if self.weights is not None:
            order = self._draw(self.num_clips, generator)
            if self.distinct:
                order = self._with_distinct_groups(order, generator)
            visits = _visits(order)
            if self.lengths is not None and not self.distinct:
                places = self._grouped_by_length(order, visits, generator)
                order, visits = order[places], visits[places]
            return zip(itertools.repeat(self.epoch), order.tolist(), visits.tolist(), strict=False)
        order = generator.permutation(self.num_clips)
        if self.lengths is not None:
            order = order[self._grouped_by_length(order, np.zeros_like(order), generator)]
        return zip(itertools.repeat(self.epoch), order.tolist(), strict=False)

    def _grouped_by_length(self, order: np.ndarray, visits: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """Places of an order in which groups have clips of almost one length."""
        together = self.group_size * GROUPS_SORTED_TOGETHER
        lengths = self.lengths[order]
        if self.heard_lengths is not None:
            keys = zip(itertools.repeat(self.epoch), order.tolist(), visits.tolist(), strict=False)
            lengths = self.heard_lengths(lengths, list(keys))
        groups = []
        for start in range(0, len(order), together):
            part = np.arange(start, min(start + together, len(order)))
            part = part[np.argsort(lengths[part], kind="stable")]
            groups += [part[first : first + self.group_size] for first in range(0, len(part), self.group_size)]
        whole = [group for group in groups if len(group) == self.group_size]
        rest = [group for group in groups if len(group) < self.group_size]  # last, or all groups after it were shifted
        return np.concatenate([whole[place] for place in generator.permutation(len(whole))] + rest)

    def _draw(self, size: int, generator: np.random.Generator) -> np.ndarray:
        """Indices in proportion to their weights, with replacement: `(size,)`."""
        points = generator.random(size) * self._cumulative_weights[-1]
        return np.searchsorted(self._cumulative_weights, points, side="right")  # the right side: never a weight of 0

    def _with_distinct_groups(self, order: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        whole = len(order) // self.group_size * self.group_size
        groups = order[:whole].reshape(-1, self.group_size)
        self._redraw_repeats(groups, generator)
        rest = order[whole:]
        if len(rest):
            # The processes' last batches are filled up with the first clips of the epoch: they stand first here, and
            # what stands first is not drawn again.
            filling = groups[0, : self.group_size - len(rest)]
            rest = np.concatenate([filling, rest])[None]
            self._redraw_repeats(rest, generator)
            rest = rest[0, len(filling) :]
        return np.concatenate([groups.reshape(-1), rest])

    def _redraw_repeats(self, groups: np.ndarray, generator: np.random.Generator):
        """Replace, in place, what repeats an earlier index of its row of `(groups, group size)`.

        What comes of it is the draw without replacement: each next clip in proportion to the weights of those left.
        """
        open_rows = np.arange(len(groups))
        for _ in range(REDRAWS):
            repeats = _repeats(groups[open_rows])
            open_rows, repeats = open_rows[repeats.any(axis=1)], repeats[repeats.any(axis=1)]
            if not len(open_rows):
                return
            row, column = np.nonzero(repeats)
            groups[open_rows[row], column] = self._draw(len(row), generator)
        for row in open_rows:
            repeats = _repeats(groups[row][None])[0]
            left = np.array(self.weights, dtype=np.float64)
            left[groups[row]] = 0
            groups[row, repeats] = generator.choice(len(left), repeats.sum(), replace=False, p=left / left.sum())


def class_balanced_weights(label_lists: Sequence[Sequence[int]], num_labels: int) -> np.ndarray:
    """Weigh each clip as the original's class-balanced draw does: by the sum over its labels of 1000 / (count + 0.01).

    Args:
        label_lists (sequence of sequences of `int`): label indices of each training clip.
        num_labels (`int`): number of labels there are.

    Returns:
        `np.ndarray` of shape `(clips,)`, float64. A clip without a label has the weight 0 and is never drawn.

    Raises:
        ValueError: if a label is not an index below `num_labels`.

    Source: Gong et al. 2021, the released code's weight file for the full AudioSet.
    """
    sizes = np.fromiter(map(len, label_lists), dtype=np.int64, count=len(label_lists))
    labels = np.fromiter(itertools.chain.from_iterable(label_lists), dtype=np.int64, count=sizes.sum())
    outside = labels[(labels < 0) | (labels >= num_labels)]
    if len(outside):
        raise ValueError(f"A clip has the label {outside[0]}, expected an index from 0 to {num_labels - 1}.")
    label_weights = LABEL_MASS / (np.bincount(labels, minlength=num_labels) + COUNT_OFFSET)
    clips = np.repeat(np.arange(len(sizes)), sizes)  # the clip that each of the labels belongs to
    return np.bincount(clips, weights=label_weights[labels], minlength=len(sizes))


def set_balanced_weights(
    label_lists: Sequence[Sequence[int]], set_of_label: np.ndarray, share_of_set: np.ndarray | None = None
) -> np.ndarray:
    """Weigh each clip so that all sets of labels are drawn alike, or by their shares, and within a set all its clips alike.

    Args:
        label_lists (sequence of sequences of `int`): the one label index of each training clip.
        set_of_label (`np.ndarray` of shape `(labels,)`): the number of each label's set, from 0.
        share_of_set (`np.ndarray` of shape `(sets,)`, *optional*): how often a set is drawn, against the other sets.

    Returns:
        `np.ndarray` of shape `(clips,)`, float64: share / (clips of its set), so that each set has its share as the sum.
    """
    sets = set_of_label[np.fromiter((labels[0] for labels in label_lists), dtype=np.int64, count=len(label_lists))]
    shares = np.ones(set_of_label.max() + 1) if share_of_set is None else np.asarray(share_of_set, dtype=np.float64)
    return shares[sets] / np.bincount(sets)[sets]


def _repeats(rows: np.ndarray) -> np.ndarray:
    """Whether a value stands further left in its row too: `(rows, columns)`."""
    places = np.argsort(rows, axis=1, kind="stable")
    ordered = np.take_along_axis(rows, places, axis=1)
    repeats = np.zeros(rows.shape, dtype=bool)
    np.put_along_axis(repeats, places[:, 1:], ordered[:, 1:] == ordered[:, :-1], axis=1)
    return repeats


def _visits(order: np.ndarray) -> np.ndarray:
    """How often each value came before: `(order,)`."""
    places = np.argsort(order, kind="stable")
    ordered = order[places]
    is_first = np.ones(len(order), dtype=bool)
    is_first[1:] = ordered[1:] != ordered[:-1]
    first = np.maximum.accumulate(np.where(is_first, np.arange(len(order)), 0))
    visits = np.empty_like(order)
    visits[places] = np.arange(len(order)) - first
    return visits

"""Recordings that a frame head scores: labels of every column of the patch grid, put together on one grid of the recording.

Windows begin a whole number of columns apart, so that columns of different windows that stand for the same time are the same
place of that grid, whose score is their mean. What is made of these scores is what is made of those of windows: runs of
places, the rules of events, a reduction to one score for each label.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np

from ..frame_columns import FrameColumns
from .errors import TaggingError
from .events import chosen_for_labels
from .scoring import Recording
from .segments import runs_of_true
from .windows import WindowCutter

Places = list[
    tuple[np.ndarray, np.ndarray]
]  # of each run of places with scores their edges in samples, and the scores


class FrameRecording(Recording):
    """One waveform whose columns are being scored.

    Args:
        name (`str`): what messages call it.
        cutter ([`WindowCutter`]): makes its windows, each of which begins a whole number of columns after the first.
        channel (`int`, *optional*): see [`Recording`].
        columns ([`FrameColumns`]): of the model.
        sampling_rate (`int`): in Hz.
    """

    def __init__(
        self, name: str, cutter: WindowCutter, channel: int | None, columns: FrameColumns, sampling_rate: int
    ):
        super().__init__(name, cutter, channel)
        self.columns, self.sampling_rate = columns, sampling_rate
        self._sums = np.zeros((0, 0), np.float32)
        self._counts = np.zeros(0, np.uint16)  # of windows, each of which moves on by a column at least

    def keep(self, number: int, scores: np.ndarray):
        """Take the scores of a window's columns; the window's own are their highest, as what sounds somewhere sounds in it.

        Args:
            number (`int`): from [`Recording.add_window`].
            scores (`np.ndarray` of shape `(columns, labels)`): float32; what is behind the sound is not looked at.
        """
        first, after = self._places_of(number)
        scores = scores[: after - first]
        if after > len(self._sums):
            room = max(2 * len(self._sums), after, 1024)
            sums, counts = np.zeros((room, scores.shape[1]), np.float32), np.zeros(room, np.uint16)
            sums[: len(self._sums)] = self._sums.reshape(-1, scores.shape[1])
            counts[: len(self._counts)] = self._counts
            self._sums, self._counts = sums, counts
        self._sums[first:after] += scores
        self._counts[first:after] += 1
        super().keep(number, scores.max(axis=0))

    def _places_of(self, number: int) -> tuple[int, int]:
        """The first place that a window has a column for, and the one after its last."""
        from ..features.kaldi import frame_length, num_frames

        start = self.starts[number]
        samples = min(self.cutter.window_samples, self.num_samples - start)
        frames = num_frames(max(samples, frame_length(self.sampling_rate)), self.sampling_rate)
        first = round(start / (self.columns.seconds * self.sampling_rate))
        return first, first + self.columns.number(frames)

    def places(self) -> Places:
        """Put the scores together.

        Places that lie in a silent window have no scores, whatever other windows say of them.

        Returns:
            For each run of places that have scores their edges, `np.ndarray` of shape `(places + 1,)` in samples, and the
            scores, float32 of shape `(places, labels)`. The first place begins with the recording, the last one ends with it.
        """
        if not self.num_scored:
            return []
        last = self._places_of(len(self.starts) - 1)[1]
        edges = self.columns.first_edge + np.arange(last + 1) * self.columns.seconds
        edges = np.round(edges * self.sampling_rate).astype(np.int64)
        edges[0], edges[-1] = 0, self.num_samples
        begins, ends = self.silent_spans()
        first, after = np.searchsorted(edges, begins), np.searchsorted(edges, ends, side="right") - 1
        changes = np.zeros(last + 1, np.int64)  # in how many silent windows wholly cover a place
        np.add.at(changes, first, first < after)
        np.subtract.at(changes, after, first < after)
        counts = np.where(np.cumsum(changes)[:last] > 0, 0, self._counts[:last])
        means = self._sums[:last] / np.maximum(counts, 1)[:, None]
        return [(edges[first : end + 2], means[first : end + 1]) for first, end in runs_of_true(counts > 0)]


def smoothed(places: Places, width: int | np.ndarray) -> Places:
    """Smooth scores along time by their median, each run by itself.

    Args:
        places (list): from [`FrameRecording.places`], or of windows from [`Recording.runs`].
        width (`int` or `np.ndarray` of shape `(labels,)`): an odd number of places, for all labels or each; with 1 nothing changes.
            Beyond the ends of a run its outermost scores go on.

    Returns:
        The same places with other scores.
    """
    if np.all(width == 1):
        return places
    return [
        (
            edges,
            np.stack(
                [_median(*each) for each in zip(means.T, np.broadcast_to(width, means.shape[1]), strict=True)], axis=1
            ),
        )
        for edges, means in places
    ]


def _median(scores: np.ndarray, width: int) -> np.ndarray:
    if width == 1:
        return scores
    width = min(width, 2 * len(scores) - 1)  # beyond which more of the ends' scores change nothing for memory's sake
    padded = np.pad(scores, width // 2, mode="edge")
    return np.median(np.lib.stride_tricks.sliding_window_view(padded, width), axis=1)


def reduced_places(
    places: Places, reduction: str, num_samples: int, find_active: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray | None:
    """Make one score for each label of the scores of a recording's places.

    Args:
        places (list): from [`FrameRecording.places`].
        reduction (`str`): the `"mean"` over their time, their `"max"`, or the `"share"` of the recording's time in which a
            label is active.
        num_samples (`int`): length of the recording.
        find_active (callable): tells of scores of shape `(places, labels)` which labels are active, as `bool` of that shape.

    Returns:
        `np.ndarray` of shape `(labels,)`, float32; `None` if there are no scores.
    """
    if not places:
        return None
    if reduction == "max":
        return np.max([means.max(axis=0) for _, means in places], axis=0)
    if reduction == "share":
        return (share_of_time(places, find_active) / num_samples).astype(np.float32)
    total = sum(np.diff(edges) @ means.astype(np.float64) for edges, means in places)
    return (total / sum(edges[-1] - edges[0] for edges, _ in places)).astype(np.float32)


def share_of_time(places: Places, find_active: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Count the samples in which each label is active.

    Args:
        places (list): of each run of places their edges in samples, and their scores.
        find_active (callable): see [`reduced_places`].

    Returns:
        `np.ndarray` of shape `(labels,)`, float64.
    """
    return sum(np.diff(edges) @ find_active(means).astype(np.float64) for edges, means in places)


def median_width(seconds: float | None, spacing: float) -> tuple[int, float]:
    """Tell over how many scores along time these are smoothed.

    Args:
        seconds (`float`, *optional*): that was asked for; nothing is smoothed if not given.
        spacing (`float`): seconds from one score to the next: a column of a frame head, or the hop of windows.

    Returns:
        An odd number of scores, so that there is one in the middle, and how many seconds they stand for.

    Raises:
        TaggingError: if it is not above 0 and finite.
    """
    if seconds is None:
        return 1, spacing
    if not 0 < seconds < float("inf"):
        raise TaggingError(
            f"median_filter={seconds} is no time. Pass --median_filter with seconds above 0, such as 0.5."
        )
    width = 2 * max(round((seconds / spacing - 1) / 2), 0) + 1
    return width, width * spacing


def chosen_medians(config, columns: FrameColumns | None) -> np.ndarray:
    """Tell over how many columns the checkpoint has the scores of each label smoothed.

    Args:
        config ([`ASTConfig`]): with `event_rules`, or without.
        columns ([`FrameColumns`], *optional*): of a model with a frame head; of others nothing is smoothed.

    Returns:
        `np.ndarray` of shape `(labels,)`, int: odd, 1 for what is not smoothed.
    """
    seconds = chosen_for_labels(config, "median_filter").tolist()
    return np.array(
        [1 if columns is None or math.isnan(each) else median_width(each, columns.seconds)[0] for each in seconds],
        np.int64,
    )


def refuse_for_frames(segments: str | None, tells_frames: bool, readings: Sequence[str]):
    """Refuse what is about the other kind of head.

    Args:
        segments (`str`, *optional*): as a user gave it.
        tells_frames (`bool`): whether the model has a frame head.
        readings (sequence of `str`): what `segments` may be for a model with a clip head.

    Raises:
        TaggingError: if something is given that says nothing of this model.
    """
    if segments is not None and segments not in readings:
        raise TaggingError(f"segments={segments!r} is none of {', '.join(readings)}. Pass one of them.")
    if tells_frames and segments is not None:
        raise TaggingError(
            f"segments={segments!r} is about where in a window a label was heard, which this model says itself: it has a frame "
            "head. Leave --segments out."
        )

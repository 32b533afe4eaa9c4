"""From the scores of windows along a recording to segments: stretches in which a label was heard, and how sure that is.

A window that holds a short call says that the call is somewhere in it. Where, only its neighbours can tell: with windows
that overlap, the call is where all those that heard it overlap. `benchmarks/timeline_segments.py` measures the readings below.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

SEGMENT_READINGS = ("hop", "window")

# Windows that hold a call in part lift the means around it. Both numbers were chosen by benchmarks/timeline_segments.py on
# recordings other than those that its table is made of.
REACH = 0.5  # of a window, from a segment's end: how far that is looked for
DROP = 0.8  # of the highest mean within reach; what stays below it is cut off


@dataclass(frozen=True)
class Stretch:
    """Where a label was heard: samples from `start` up to `end`, the label's index, and its mean score there."""

    start: int
    end: int
    label: int
    score: float


def label_stretches(
    scores: np.ndarray,
    starts: Sequence[int],
    window_samples: int,
    num_samples: int,
    find_active: Callable[[np.ndarray], np.ndarray],
    reading: str = "hop",
) -> Iterator[Stretch]:
    """Find where each label was heard.

    With `"hop"` a score is given to every stretch between two starts or ends of windows: the mean of the windows that cover
    it. A segment is a run of stretches in which a label is active by these means. At either end it is drawn in to where the
    mean reaches `DROP` of its highest within `REACH` of a window from there, because windows that only touch a call lift what
    is around it. Its score is the mean over its time.

    With `"window"` a segment is all that a run of neighbouring windows in which a label is active covers, so that it is no
    shorter than a window; its score is the mean of these windows.

    Args:
        scores (`np.ndarray` of shape `(windows, labels)`): of each window.
        starts (sequence of `int`): first samples of the windows, ascending, as of [`window_starts`].
        window_samples (`int`): length of a window.
        num_samples (`int`): length of the recording.
        find_active (callable): tells of scores of shape `(n, labels)` which labels are active, as `bool` of the same shape.
        reading (`str`, *optional*, defaults to `"hop"`): one of `SEGMENT_READINGS`.

    Yields:
        [`Stretch`]: label by label, in the order of time.
    """
    begins = np.asarray(starts)
    ends = np.minimum(begins + window_samples, num_samples)
    if reading == "window":
        active = find_active(scores)
        for label in range(scores.shape[1]):
            for first, last in runs_of_true(active[:, label]):
                score = float(scores[first : last + 1, label].mean())
                yield Stretch(int(begins[first]), int(ends[last]), label, score)
        return
    edges, means = hop_means(scores, begins, ends)
    active = find_active(means)
    for label in range(scores.shape[1]):
        for first, last in runs_of_true(active[:, label]):
            first, last = _draw_in(means[:, label], edges, first, last, REACH * window_samples)
            lengths = np.diff(edges[first : last + 2])
            score = float(np.average(means[first : last + 1, label], weights=lengths))
            yield Stretch(int(edges[first]), int(edges[last + 1]), label, score)


def hop_means(scores: np.ndarray, begins: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean score of the windows that cover each stretch between two of their starts or ends.

    Args:
        scores (`np.ndarray` of shape `(windows, labels)`): of each window.
        begins (`np.ndarray` of shape `(windows,)`): the first sample of each window, ascending, without a gap between
            windows.
        ends (`np.ndarray` of shape `(windows,)`): the sample after each window's last, ascending.

    Returns:
        The edges of the stretches in samples, of shape `(stretches + 1,)`, and the means, float32 of shape
        `(stretches, labels)`.
    """
    edges = np.unique(np.concatenate([begins, ends]))
    # Of windows of one length those that cover a stretch are neighbours.
    first = np.searchsorted(ends, edges[:-1], side="right")
    after = np.searchsorted(begins, edges[:-1], side="right")
    sums = np.zeros((len(scores) + 1, scores.shape[1]))
    np.cumsum(scores, axis=0, out=sums[1:])
    # In the scores' own precision again, or a mean of equal scores could fall below a threshold that they reach.
    return edges, ((sums[after] - sums[first]) / (after - first)[:, None]).astype(np.float32)


def _draw_in(means: np.ndarray, edges: np.ndarray, first: int, last: int, reach: float) -> tuple[int, int]:
    """Leave out the stretches at both ends of a run whose means are far below the highest nearby."""
    indices = np.arange(first, last + 1)
    near_start = indices[edges[indices] < edges[first] + reach]
    near_end = indices[edges[indices + 1] > edges[last + 1] - reach]
    kept_start = near_start[means[near_start] >= DROP * means[near_start].max()]
    kept_end = near_end[means[near_end] >= DROP * means[near_end].max()]
    return int(kept_start[0]), int(kept_end[-1])


def window_starts(num_samples: int, window_samples: int, hop_samples: int) -> list[int]:
    """Place windows on a waveform: every `hop_samples` from its start, and a last one that ends with it.

    Args:
        num_samples (`int`): of the waveform.
        window_samples (`int`): of a window.
        hop_samples (`int`): between the starts of two windows.

    Returns:
        First samples of the windows, ascending; `[0]` if the waveform is not longer than a window.
    """
    last = max(num_samples - window_samples, 0)
    return [*range(0, last, hop_samples), last]


def runs_of_true(flags: np.ndarray) -> list[tuple[int, int]]:
    """Find the runs of `True` in a vector.

    Args:
        flags (boolean `np.ndarray` of shape `(length,)`): the vector.

    Returns:
        Pairs of the first and the last index of each run, ascending.
    """
    edges = np.flatnonzero(np.diff(flags.astype(np.int8), prepend=0, append=0))
    return [(int(first), int(end) - 1) for first, end in zip(edges[::2], edges[1::2], strict=True)]

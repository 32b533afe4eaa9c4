"""From the scores of windows along a recording to segments: stretches in which a label was heard, and how sure that is.

A window that holds a short call says that the call is somewhere in it. Where, only its neighbours can tell: with windows
that overlap, the call is where all those that heard it overlap. `benchmarks/timeline_segments.py` measures the readings below.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

SEGMENT_READINGS = ("hop", "window")

# Windows that hold a call in part lift the means around it. Both numbers were chosen by benchmarks/timeline_segments.py on
# recordings other than those that its table is made of.
REACH = 0.5  # of a window, from a segment's end: how far that is looked for
DROP = 0.8  # of the highest mean within reach; what stays below it is cut off

LEAST_REST = 0.1  # seconds behind windows side by side that have a window of their own, if these are not short; see `least_rest`


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
    find_held: Callable[[np.ndarray], np.ndarray] | None = None,
    min_samples: float | np.ndarray = 0,
    gap_samples: float | np.ndarray | None = None,
) -> Iterator[Stretch]:
    """Find where each label was heard.

    With `"hop"` a score is given to every stretch between two starts or ends of windows: the mean of the windows that cover
    it. A segment is a run of stretches in which a label is active by these means. At either end it is drawn in to where the
    mean reaches `DROP` of its highest within `REACH` of a window from there, because windows that only touch a call lift what
    is around it. Its score is the mean over its time.

    With `"window"` a segment is all that a run of neighbouring windows in which a label is active covers, so that it is no
    shorter than a window; its score is the mean of these windows.

    With `find_held`, a label that became active stays so as long as that says. Then segments of a label with a short gap
    between them become one, whose score is the mean over all of it, and of what there is then short ones are left out.

    Args:
        scores (`np.ndarray` of shape `(windows, labels)`): of each window.
        starts (sequence of `int`): first samples of the windows, ascending, as of [`window_starts`].
        window_samples (`int`): length of a window.
        num_samples (`int`): length of the recording.
        find_active (callable): tells of scores of shape `(n, labels)` which labels are active, as `bool` of the same shape.
        reading (`str`, *optional*, defaults to `"hop"`): one of `SEGMENT_READINGS`.
        find_held (callable, *optional*): tells as `find_active` which labels stay active if they were; those that are
            active if not given. True wherever `find_active` is.
        min_samples (`float` or `np.ndarray` of shape `(labels,)`, defaults to 0): segments that are shorter are left out.
        gap_samples (`float` or `np.ndarray` of shape `(labels,)`, *optional*): what may lie between two segments that become one;
            see [`without_gaps`].

    Yields:
        [`Stretch`]: label by label, in the order of time.
    """
    begins = np.asarray(starts)
    ends = np.minimum(begins + window_samples, num_samples)
    rules = (find_active, find_held, min_samples, gap_samples)
    if reading == "hop":
        yield from stretches_of_means(*hop_means(scores, begins, ends), REACH * window_samples, *rules)
    else:
        yield from _stretches(scores, begins, ends, None, None, *rules)


def stretches_of_means(
    edges: np.ndarray,
    means: np.ndarray,
    reach: float | None,
    find_active: Callable[[np.ndarray], np.ndarray],
    find_held: Callable[[np.ndarray], np.ndarray] | None = None,
    min_samples: float | np.ndarray = 0,
    gap_samples: float | np.ndarray | None = None,
    label: int | None = None,
    averaged: bool = True,
) -> Iterator[Stretch]:
    """Find where each label was heard by scores along the time line: the reading `"hop"` of [`label_stretches`].

    Args:
        edges (`np.ndarray` of shape `(places + 1,)`): samples between which the places of scores lie, ascending.
        means (`np.ndarray` of shape `(places, labels)`): the score of each label in each place.
        reach (`float`, *optional*): samples from a segment's end within which it is drawn in; it is not if not given.
        find_active (callable): see [`label_stretches`].
        find_held (callable, *optional*): see [`label_stretches`].
        min_samples (`float` or `np.ndarray` of shape `(labels,)`, defaults to 0): see [`label_stretches`].
        gap_samples (`float` or `np.ndarray` of shape `(labels,)`, *optional*): see [`label_stretches`].
        label (`int`, *optional*): the only label that is looked for; all if not given.
        averaged (`bool`, defaults to `True`): whether stretches have their mean score, which takes most of the time; else it is NaN.

    Returns:
        An iterator over [`Stretch`]: label by label, in the order of time.
    """
    rules = (find_active, find_held, min_samples, gap_samples)
    return _stretches(means, edges[:-1], edges[1:], edges, reach, *rules, label, averaged)


def _stretches(
    places, begins, ends, edges, reach, find_active, find_held, min_samples, gap_samples, only=None, averaged=True
):
    """Stretches of labels by the scores of places; with `edges` these lie side by side, with `reach` their ends are drawn in."""
    active = find_active(places)
    held = active if find_held is None else find_held(places)
    for label in range(places.shape[1]) if only is None else (only,):
        runs = event_runs(active[:, label], held[:, label])
        if reach is not None:
            runs = [_draw_in(places[:, label], edges, first, last, reach) for first, last in runs]
        for first, last in without_gaps(runs, begins, ends, of_label(gap_samples, label)):
            start, end = int(begins[first]), int(ends[last])
            if end - start < of_label(min_samples, label):
                continue
            if not averaged:
                yield Stretch(start, end, label, math.nan)
                continue
            scores = places[first : last + 1, label]
            lengths = None if edges is None else np.diff(edges[first : last + 2])
            score = scores.mean() if lengths is None else np.average(scores, weights=lengths)
            yield Stretch(start, end, label, float(score))


def hop_means(scores: np.ndarray, begins: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean score of the windows that cover each stretch between two of their starts or ends.

    Args:
        scores (`np.ndarray` of shape `(windows, labels)`): of each window.
        begins (`np.ndarray` of shape `(windows,)`): the first sample of each window, ascending.
        ends (`np.ndarray` of shape `(windows,)`): the sample after each window's last, ascending.

    Returns:
        The edges of the stretches in samples, of shape `(stretches + 1,)`, and the means, float32 of shape
        `(stretches, labels)`; NaN where no window covers a stretch.
    """
    edges = np.unique(np.concatenate([begins, ends]))
    # Of windows of one length those that cover a stretch are neighbours.
    first = np.searchsorted(ends, edges[:-1], side="right")
    after = np.searchsorted(begins, edges[:-1], side="right")
    sums = np.zeros((len(scores) + 1, scores.shape[1]))
    np.cumsum(scores, axis=0, out=sums[1:])
    # In the scores' own precision again, or a mean of equal scores could fall below a threshold that they reach.
    with np.errstate(invalid="ignore"):
        return edges, ((sums[after] - sums[first]) / (after - first)[:, None]).astype(np.float32)


def hop_places(
    runs: Sequence[tuple[Sequence[int], np.ndarray]],
    window_samples: int,
    num_samples: int,
    silent: tuple[np.ndarray, np.ndarray] | None = None,
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Give every place of a recording the mean score of the windows that cover it, but for what lies in a silent window.

    Args:
        runs (sequence): of each run of neighbouring windows with scores their first samples, ascending, and the scores, of
            shape `(windows, labels)`.
        window_samples (`int`): length of a window.
        num_samples (`int`): length of the recording.
        silent (`tuple` of two `np.ndarray`, *optional*): see [`parts_with_sound`]; none are silent if not given.

    Returns:
        For each stretch in which all places have scores their edges in samples and the means, as of [`hop_means`].
    """
    places = []
    for starts, scores in runs:
        begins = np.asarray(starts)
        of_run = hop_means(scores, begins, np.minimum(begins + window_samples, num_samples))
        places += [of_run] if silent is None else parts_with_sound(*of_run, *silent)
    return places


def parts_with_sound(
    edges: np.ndarray, means: np.ndarray, silent_begins: np.ndarray, silent_ends: np.ndarray
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Leave out of places with scores what lies in silent windows: nothing is heard there, whatever a window that reaches
    beyond has heard.

    Args:
        edges (`np.ndarray` of shape `(places + 1,)`): samples between which the places lie, ascending.
        means (`np.ndarray` of shape `(places, labels)`): their scores.
        silent_begins (`np.ndarray` of shape `(windows,)`): the first sample of each silent window, ascending.
        silent_ends (`np.ndarray` of shape `(windows,)`): the sample after each one's last, ascending.

    Returns:
        For each stretch that is left the edges of its places and their scores.
    """
    # Both ascend, as windows have one length: those that touch these places are neighbours.
    near = slice(np.searchsorted(silent_ends, edges[0], side="right"), np.searchsorted(silent_begins, edges[-1]))
    silent_begins, silent_ends = silent_begins[near], silent_ends[near]
    cuts = np.concatenate([silent_begins, silent_ends])
    cuts = np.unique(np.concatenate([edges, cuts[(cuts > edges[0]) & (cuts < edges[-1])]]))
    begun = np.searchsorted(silent_begins, cuts[:-1], side="right")
    ended = np.searchsorted(silent_ends, cuts[:-1], side="right")
    places = np.searchsorted(edges, cuts[:-1], side="right") - 1
    return [(cuts[first : last + 2], means[places[first : last + 1]]) for first, last in runs_of_true(begun == ended)]


def _draw_in(means: np.ndarray, edges: np.ndarray, first: int, last: int, reach: float) -> tuple[int, int]:
    """Leave out the stretches at both ends of a run whose means are far below the highest nearby."""
    indices = np.arange(first, last + 1)
    near_start = indices[edges[indices] < edges[first] + reach]
    near_end = indices[edges[indices + 1] > edges[last + 1] - reach]
    kept_start = near_start[means[near_start] >= DROP * means[near_start].max()]
    kept_end = near_end[means[near_end] >= DROP * means[near_end].max()]
    return int(kept_start[0]), int(kept_end[-1])


def window_starts(num_samples: int, window_samples: int, hop_samples: int, rest_samples: int = 1) -> list[int]:
    """Place windows on a waveform: every `hop_samples` from its start, and a last one that ends with it.

    Args:
        num_samples (`int`): of the waveform.
        window_samples (`int`): of a window.
        hop_samples (`int`): between the starts of two windows.
        rest_samples (`int`, defaults to 1): how many there are at least behind the other windows where there is a last one,
            such as [`least_rest`].

    Returns:
        First samples of the windows, ascending; `[0]` if less than `rest_samples` are behind the first window.
    """
    last = max(num_samples - window_samples, 0)
    starts = [*range(0, last, hop_samples)]
    return [*starts, last] if not starts or last - starts[-1] >= rest_samples else starts


def least_rest(sampling_rate: int, window_samples: int) -> int:
    """Tell how much of a recording has to be left behind windows that lie side by side, for a last one that ends with it.

    It would hear almost nothing but what the one before heard, and count as much. The model itself leaves out as much at
    the end of what it hears: the frames after its last whole patch, less than the paper's stride of 10.

    Args:
        sampling_rate (`int`): in Hz.
        window_samples (`int`): of a window.

    Returns:
        Samples: those of `LEAST_REST` seconds, but no more than an eighth of a window.
    """
    return min(round(LEAST_REST * sampling_rate), window_samples // 8)


def event_runs(active: np.ndarray, held: np.ndarray) -> list[tuple[int, int]]:
    """Find the runs of places in which a label's events lie: each begins where it is active and ends before the first
    place after it where it is not held.

    Args:
        active (boolean `np.ndarray` of shape `(places,)`): where an event may begin.
        held (boolean `np.ndarray` of shape `(places,)`): where it goes on; true wherever `active` is.

    Returns:
        Pairs of the first and the last place of each event, ascending.
    """
    runs = []
    for first, last in runs_of_true(held):
        begun = np.flatnonzero(active[first : last + 1])
        if begun.size:
            runs.append((first + int(begun[0]), last))
    return runs


def without_gaps(
    runs: Sequence[tuple[int, int]], begins: np.ndarray, ends: np.ndarray, gap_samples: float | None
) -> list[tuple[int, int]]:
    """Join runs of a label that lie near each other.

    Args:
        runs (sequence of `(int, int)`): first and last place of each, ascending.
        begins (`np.ndarray` of shape `(places,)`): the first sample of each place.
        ends (`np.ndarray` of shape `(places,)`): the sample after each place's last.
        gap_samples (`float`, *optional*): what may lie between two of them; none are joined if not given, or with `-inf`.

    Returns:
        The runs, joined where no more than `gap_samples` lies between the end of one and the begin of the next.
    """
    if gap_samples is None:
        return list(runs)
    joined = []
    for first, last in runs:
        if joined and begins[first] - ends[joined[-1][1]] <= gap_samples:
            joined[-1] = (joined[-1][0], last)
        else:
            joined.append((first, last))
    return joined


def of_label(limits: float | np.ndarray | None, label: int) -> float | None:
    """Take what holds for a label.

    Args:
        limits (`float` or `np.ndarray` of shape `(labels,)`, *optional*): one for all labels, or one for each.
        label (`int`): index of the label.

    Returns:
        `float`, *optional*: its limit, if there is one.
    """
    return limits if np.ndim(limits) == 0 else limits[label]


def runs_of_true(flags: np.ndarray) -> list[tuple[int, int]]:
    """Find the runs of `True` in a vector.

    Args:
        flags (boolean `np.ndarray` of shape `(length,)`): the vector.

    Returns:
        Pairs of the first and the last index of each run, ascending.
    """
    edges = np.flatnonzero(np.diff(flags.astype(np.int8), prepend=0, append=0))
    return [(int(first), int(end) - 1) for first, end in zip(edges[::2], edges[1::2], strict=True)]

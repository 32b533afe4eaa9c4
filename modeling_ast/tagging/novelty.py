"""From the distances of a recording's windows to what is said of it: how far it is, and which stretches are beyond."""

import math

import numpy as np

from .events import EventRules, events_of_means, events_of_runs
from .none_of_these import NONE_OF_THESE
from .results import Novelty, Segment
from .scoring import Recording
from .segments import hop_places, runs_of_true


def novelty_of(
    recording: Recording,
    farthest: float,
    window_samples: int,
    sampling_rate: int,
    rules: EventRules,
    reading: str | None = None,
) -> Novelty:
    """Say how far a recording is from the training clips.

    Args:
        recording ([`Recording`]): with a distance of each window that is not silent; at least one.
        farthest (`float`): the largest distance of what is like the training clips.
        window_samples (`int`): length of a window.
        sampling_rate (`int`): in Hz.
        rules ([`EventRules`]): of the labels' segments, for the gaps that are closed and the shortest that count.
        reading (`str`, *optional*): one of `SEGMENT_READINGS`, where stretches are wanted: those whose windows are beyond in their
            mean, or all that a run of windows beyond covers.

    Returns:
        [`Novelty`].
    """
    distances, scored = np.array(recording.distances), np.frombuffer(recording.scored, bool)
    distance = float(distances[scored].mean())
    if reading is None:
        return Novelty(distance, farthest)
    # What was chosen for each label is of these alone, what a user gives is of all segments.
    shortest, gap = (
        limit if np.ndim(limit) == 0 else none for limit, none in ((rules.min_samples, 0), (rules.gap_samples, None))
    )
    beyond = EventRules(math.nextafter(farthest, math.inf), None, False, shortest, gap)
    begins = np.array(recording.starts)
    parts = [slice(first, last + 1) for first, last in runs_of_true(scored)]
    runs = [(begins[part], distances[part, None]) for part in parts]
    if reading == "window":
        found = events_of_runs(runs, window_samples, recording.num_samples, beyond, reading)
    else:
        places = hop_places(runs, window_samples, recording.num_samples, recording.silent_spans())
        found = events_of_means(places, None, beyond)
    times = [(stretch.start / sampling_rate, stretch.end / sampling_rate, stretch.score) for stretch in found]
    segments = [Segment(recording.name, start, end, NONE_OF_THESE, score) for start, end, score in times]
    return Novelty(distance, farthest, segments)

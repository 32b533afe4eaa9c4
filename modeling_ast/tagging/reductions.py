"""One score for each label of a recording, of the scores of its windows."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from .segments import hop_means, parts_with_sound

if TYPE_CHECKING:
    from .scoring import Recording

REDUCTIONS = ("mean", "max", "share")


def reduced(
    recording: Recording, reduction: str, find_active: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray | None:
    """Make one score for each label of the scores of a recording's windows.

    Args:
        recording ([`Recording`]): all of whose windows were scored, but for silent ones.
        reduction (`str`): the `"mean"` or `"max"` of the windows, or the `"share"` of the recording's time in which the mean
            of the windows that cover it is active, but for what lies in silent windows.
        find_active (callable): tells of scores of shape `(n, labels)` which labels are active, as `bool` of the same shape.

    Returns:
        `np.ndarray` of shape `(labels,)`, float32; `None` if all windows are silent.
    """
    runs = recording.runs()
    if not runs:
        return None
    if reduction == "share":
        begins = np.concatenate([starts for starts, _ in runs])
        ends = np.minimum(begins + recording.cutter.window_samples, recording.num_samples)
        if begins[-1] == recording.starts[-1]:
            ends[-1] = recording.num_samples  # a rest that has no window of its own counts with the one before it
        places = hop_means(np.concatenate([scores for _, scores in runs]), begins, ends)
        parts = parts_with_sound(*places, *recording.silent_spans())
        samples = np.zeros(runs[0][1].shape[1])  # without parts, if silent windows cover all of the ones between them
        for edges, means in parts:
            samples += np.diff(edges) @ find_active(means).astype(np.float64)
        return (samples / recording.num_samples).astype(np.float32)
    scores = runs[0][1] if len(runs) == 1 else np.concatenate([scores for _, scores in runs])
    # Summed in double precision: of 100,000 windows float32 loses the third digit.
    return scores.max(axis=0) if reduction == "max" else scores.mean(axis=0, dtype=np.float64).astype(np.float32)

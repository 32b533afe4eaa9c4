"""From the items of a data set to its clips: one score of a clip that was heard in several windows."""

import numpy as np

from ..clip_sets.waveforms import ClipDataset
from .metrics import mean_loss


def _clips(dataset) -> np.ndarray | None:
    return getattr(dataset, "clip_of_item", None)


def scores_of_clips(scores: np.ndarray, dataset: ClipDataset) -> np.ndarray:
    """Make one score for each label of a clip of those of its windows.

    Args:
        scores (`np.ndarray` of shape `(items, labels)`): probabilities, in the order of the items.
        dataset ([`ClipDataset`]): whose items they are; its `reduction` is obeyed.

    Returns:
        `np.ndarray` of shape `(clips, labels)`, float32; the scores as they are where each item is a clip.
    """
    clips = _clips(dataset)
    if clips is None:
        return scores
    starts = np.flatnonzero(np.diff(clips, prepend=-1))  # the windows of a clip stand together
    if dataset.reduction == "max":
        return np.maximum.reduceat(scores, starts, axis=0)
    # Summed in double precision, as those of ast-tag.
    sums = np.add.reduceat(scores.astype(np.float64), starts, axis=0)
    return (sums / np.diff(starts, append=len(clips))[:, None]).astype(np.float32)


def means_of_clips(values: np.ndarray, clip_of_item: np.ndarray | None) -> np.ndarray:
    """Make one number for each clip of those of its windows: their mean.

    Args:
        values (`np.ndarray` of shape `(items,)`): of the items.
        clip_of_item (`np.ndarray` of shape `(items,)`, *optional*): the clip of each item, in any order; each item is a clip if
            not given.

    Returns:
        `np.ndarray` of shape `(clips,)`, of the clips that have items.
    """
    if clip_of_item is None:
        return values
    of_clip = np.unique(clip_of_item, return_inverse=True)[1]
    return np.bincount(of_clip, values) / np.bincount(of_clip)


def references_of_clips(references: np.ndarray, dataset: ClipDataset) -> np.ndarray:
    """Take what each clip has for labels.

    Args:
        references (`np.ndarray` of shape `(items, ...)`): of the items, which those of a clip have in common.
        dataset ([`ClipDataset`]): whose items they are.

    Returns:
        `np.ndarray` of shape `(clips, ...)`.
    """
    clips = _clips(dataset)
    return references if clips is None else references[np.flatnonzero(np.diff(clips, prepend=-1))]


def loss_of_clips(logits: np.ndarray, references: np.ndarray, problem_type: str, dataset: ClipDataset) -> float:
    """Compute the model's loss, each clip counting once: of a clip in several windows, the mean of theirs.

    Args:
        logits (`np.ndarray` of shape `(items, labels)`): the model's output.
        references (`np.ndarray` of shape `(items, ...)`): see [`mean_loss`].
        problem_type (`str`): see [`mean_loss`].
        dataset ([`ClipDataset`]): whose items they are.

    Returns:
        `float`: mean over the clips.
    """
    clips = _clips(dataset)
    if clips is None:
        return mean_loss(logits, references, problem_type)
    num_windows = np.bincount(clips)[clips]  # of the clip of each item
    total = 0.0
    for number in np.unique(num_windows):
        alike = num_windows == number
        total += mean_loss(logits[alike], references[alike], problem_type) * alike.sum() / number
    return float(total / (clips[-1] + 1))

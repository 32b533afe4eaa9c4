"""Scores of frames: each frame of each clip is one thing to be scored, whatever clip it is of."""

import numpy as np
from scipy.special import expit

from .metrics import classification_scores


def scored_frames(values: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Take the frames that count out of padded batches.

    Args:
        values (`np.ndarray` of shape `(clips, columns, labels)`): logits, scores or the labels themselves.
        labels (`np.ndarray` of shape `(clips, columns, labels)`): negative in frames that do not count, such as those of padding.

    Returns:
        `np.ndarray` of shape `(frames, labels)`.
    """
    return values[(labels >= 0).all(axis=2)]


def frame_scores(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Score the frames of clips.

    Args:
        logits (`np.ndarray` of shape `(clips, columns, labels)`): the model's output, padded with whatever.
        labels (`np.ndarray` of shape `(clips, columns, labels)`): see [`scored_frames`].

    Returns:
        `loss`, the mean binary cross-entropy, and the scores of [`classification_scores`] over frames; the accuracy is of the
        best label of frames that have any.
    """
    logits, truth = scored_frames(logits, labels).astype(np.float64), scored_frames(labels, labels) >= 0.5
    scores = expit(logits)
    return {"loss": frame_loss(logits, truth)} | classification_scores(
        scores, truth.astype(np.int64), multi_label=True
    )


def frame_loss(logits: np.ndarray, truth: np.ndarray) -> float:
    """Mean binary cross-entropy of frames.

    Args:
        logits (`np.ndarray` of shape `(frames, labels)`): float64.
        truth (`np.ndarray` of shape `(frames, labels)`): which labels each frame has.

    Returns:
        `float`.
    """
    # log(1 + exp(-x)) of the logit of what is true, without an overflow.
    return float(np.logaddexp(0, np.where(truth, -logits, logits)).mean())

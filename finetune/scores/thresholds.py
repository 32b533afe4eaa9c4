"""The score from which a label counts, chosen for each class of a multi-label model on validation data.

Binary cross-entropy on rare labels leaves scores far below 0.5, so that one threshold for all classes finds nothing of
some. The original code has no thresholds: its scores are all of rankings.
"""

import numpy as np

from modeling_ast.scores import MULTI_LABEL_THRESHOLD

from ..sources.data_errors import names_in_short


def choose_thresholds(scores: np.ndarray, references: np.ndarray, labels: list[str]) -> dict[str, float]:
    """For each class the threshold with the best F1.

    Thresholds lie halfway between two neighbouring scores of the class (the lowest one between 0 and its lowest score);
    of equally good ones the nearest to 0.5 is taken. A class without a positive or without a negative clip says nothing
    about a threshold and keeps 0.5.

    Args:
        scores (`np.ndarray` of shape `(clips, labels)`): sigmoid scores of validation clips, that is of clips which are
            neither trained on nor scored afterwards: on those clips the choice would flatter the score.
        references (`np.ndarray` of shape `(clips, labels)`): multi-hot.
        labels (`list[str]`): names in output order.

    Returns:
        `dict[str, float]`: a threshold for each label, as `ASTConfig.label_thresholds` takes them. What they change is
        told by [`macro_f1`] with and without them.

    Raises:
        ValueError: if the shapes do not fit, the references are not 0 and 1, or the scores are no probabilities.
    """
    if scores.shape != (len(scores), len(labels)) or references.shape != scores.shape:
        raise ValueError(
            f"scores have shape {scores.shape}, references {references.shape}, expected both as (clips, {len(labels)}) "
            "for these labels. Thresholds are for multi-label data; with one label a clip the top score decides."
        )
    if not np.isin(references, (0, 1)).all():
        raise ValueError("references hold other values than 0 and 1. Pass the clips' own labels, not mixed ones.")
    if not ((scores >= 0) & (scores <= 1)).all():
        raise ValueError(
            f"scores run from {scores.min():.3g} to {scores.max():.3g}, expected 0 to 1. Pass the sigmoid of the logits."
        )
    # In double precision there is always a number between two float32 scores.
    columns = zip(labels, scores.astype(np.float64).T, references.T.astype(bool), strict=True)
    return {label: _best_threshold(column, truth) for label, column, truth in columns}


def not_chosen(references: np.ndarray, labels: list[str]) -> list[str]:
    """Names of the labels whose threshold stays at 0.5, as none of these clips has them, or all have.

    Args:
        references (`np.ndarray` of shape `(clips, labels)`): multi-hot, of the validation clips.
        labels (`list[str]`): names in output order.

    Returns:
        `list[str]`: in output order.
    """
    positives = references.astype(bool).sum(axis=0)
    return [label for label, count in zip(labels, positives, strict=True) if count in (0, len(references))]


def not_chosen_note(names: list[str]) -> str | None:
    """What [`not_chosen`] found, in words; `None` if there is a threshold for each label.

    Args:
        names (`list[str]`): what [`not_chosen`] returned.

    Returns:
        `str`, *optional*: the words.
    """
    if not names:
        return None
    which = (
        f"the threshold of {names[0]} stays" if len(names) == 1 else f"the thresholds of {names_in_short(names)} stay"
    )
    return f"{which} at {MULTI_LABEL_THRESHOLD}: no validation clip has the label, or all have it"


def _best_threshold(scores: np.ndarray, truth: np.ndarray) -> float:
    """The threshold for one class; `scores` and `truth` have the shape `(clips,)`."""
    positives = int(truth.sum())
    if not 0 < positives < len(truth):
        return MULTI_LABEL_THRESHOLD
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    found = np.arange(1, len(ranked) + 1)  # clips at or above a threshold right below the score of this rank
    f1 = 2 * np.cumsum(truth[order]) / (found + positives)
    thresholds = (ranked + np.append(ranked[1:], 0.0)) / 2
    between = ranked != np.append(ranked[1:], -1.0)  # equal scores cannot be told apart
    f1, thresholds = f1[between], thresholds[between]
    best = thresholds[f1 == f1.max()]
    return float(best[np.abs(best - MULTI_LABEL_THRESHOLD).argmin()])

"""How much models doubt the labels that clips were given, told from scores of models that were not trained on them.

Some labels are scored lower than others wherever they are right. So a score is held against what is usual for its label, the
mean over the clips that were given it. With exclusive labels the doubt is the margin by which another label is ahead of the
given one then; with independent ones it is told of each label by itself, where it is given (it may be superfluous) and where it
is not (it may be missing). Beside it stands whether the clip counts as an error in the confident joint: whether the score of
another label is at least what is usual for that.

Source: Northcutt, Jiang and Chuang 2021, "Confident Learning: Estimating Uncertainty in Dataset Labels", sections 3.1 and 3.2, for
the thresholds, the confident joint and the normalised margin. [`cleanlab`](https://github.com/cleanlab/cleanlab) 2.9 computes
the same margin as `get_label_quality_scores(..., method="normalized_margin", adjust_pred_probs=True)`, from 1 for a label without doubt
to 0.
"""

from dataclasses import dataclass

import numpy as np

NEVER_REACHED = 2.0  # the threshold of a label that no clip was given; scores are at most 1


@dataclass(frozen=True)
class LabelDoubts:
    """Doubts of the labels of clips, one for each pair of a clip and a label that it has or might have.

    Args:
        clips (`np.ndarray` of shape `(pairs,)`): the place of the clip.
        labels (`np.ndarray` of shape `(pairs,)`): index of the label.
        suggested (`np.ndarray` of shape `(pairs,)`, *optional*): with exclusive labels the index of the one that the models
            would give, which may be the given one.
        missing (`np.ndarray` of shape `(pairs,)`, *optional*): with independent labels whether the label was not given and may
            be missing; else it was given and may be superfluous.
        doubts (`np.ndarray` of shape `(pairs,)`): from 0 to 1; above 0.5 the models say otherwise.
        likely (`np.ndarray` of shape `(pairs,)`): bool, whether the confident joint counts it as an error.
    """

    clips: np.ndarray
    labels: np.ndarray
    doubts: np.ndarray
    likely: np.ndarray
    suggested: np.ndarray | None = None
    missing: np.ndarray | None = None

    def sorted(self) -> "LabelDoubts":
        """Sort them.

        Returns:
            [`LabelDoubts`]: most doubtful first, and in the order of the clips where the doubt is the same.
        """
        order = np.argsort(-self.doubts, kind="stable")
        columns = {name: column if column is None else column[order] for name, column in vars(self).items()}
        return LabelDoubts(**columns)


def exclusive_doubts(scores: np.ndarray, given: np.ndarray) -> LabelDoubts:
    """Tell how much each clip's only label is doubted.

    Args:
        scores (`np.ndarray` of shape `(clips, labels)`): probabilities of two labels or more, of models that were not trained
            on the clip.
        given (`np.ndarray` of shape `(clips,)`): index of the label that each clip was given.

    Returns:
        [`LabelDoubts`]: a pair for each clip, in their order. With scores from which the mean of their label was taken, brought
        to shares that are not negative and add up to 1, the doubt is (1 + highest other share - share of the label) / 2, and
        the label with the highest share is suggested.

    Source: the normalised margin of Northcutt et al. 2021, turned round and brought to 0 to 1.
    """
    scores, rows = np.asarray(scores, np.float64), np.arange(len(given))
    given = np.asarray(given)
    one_hot = np.eye(scores.shape[1], dtype=bool)[given]
    usual = usual_scores(scores, one_hot)
    shares = np.where(usual < NEVER_REACHED, scores - usual + usual[usual < NEVER_REACHED].max(), 0)
    shares /= shares.sum(axis=1, keepdims=True)
    others = np.where(one_hot, -np.inf, shares)
    doubts = (1 + others.max(axis=1) - shares[rows, given]) / 2
    found = confident_labels(scores, one_hot)
    likely = (found >= 0) & (found != given)
    return LabelDoubts(rows, given, doubts, likely, suggested=shares.argmax(axis=1))


def independent_doubts(scores: np.ndarray, given: np.ndarray) -> LabelDoubts:
    """Tell how much each label of clips with any number of labels is doubted.

    Each label is a problem of its own with two classes, those that have it and those that do not. As a rare label is seldom
    scored as high as a common one, a score says as much for the label as against it halfway between its mean over the clips
    that were given the label and its mean over the others; from there to 0 and to 1 the doubt is linear.

    Args:
        scores (`np.ndarray` of shape `(clips, labels)`): probabilities of models that were not trained on the clip.
        given (`np.ndarray` of shape `(clips, labels)`): 1 where a clip was given a label, 0 elsewhere.

    Returns:
        [`LabelDoubts`]: a pair for each label that a clip was given, and for each other one that is doubted by more than 0.5,
        clip by clip. None of a label that all clips have, or none has, or that is scored no higher where it was given:
        there is nothing to compare its scores with.

    Source: the means are the thresholds of Northcutt et al. 2021, of each label against the rest; the scale between them is
    this kit's own.
    """
    scores, given = np.asarray(scores, np.float64), np.asarray(given, bool)
    doubts, likely = np.zeros(scores.shape), np.zeros(scores.shape, bool)
    learned = np.zeros(scores.shape[1], bool)
    for label in np.flatnonzero(given.any(axis=0) & ~given.all(axis=0)):
        has, of_label = given[:, label], scores[:, label]
        middle = (of_label[has].mean() + of_label[~has].mean()) / 2
        if of_label[has].mean() <= middle:
            continue
        learned[label] = True
        presence = np.interp(of_label, [0, middle, 1], [0, 0.5, 1])
        doubts[:, label] = np.where(has, 1 - presence, presence)
        found = confident_labels(np.stack([1 - of_label, of_label], axis=1), np.stack([~has, has], axis=1))
        likely[:, label] = (found >= 0) & (found != has)
    listed = learned & (given | (doubts > 0.5))
    clips, labels = np.nonzero(listed)
    return LabelDoubts(clips, labels, doubts[listed], likely[listed], missing=~given[listed])


def confident_labels(scores: np.ndarray, given: np.ndarray) -> np.ndarray:
    """Find the label that the models are confident a clip has.

    Args:
        scores (`np.ndarray` of shape `(clips, labels)`): probabilities of exclusive labels.
        given (boolean `np.ndarray` of shape `(clips, labels)`): which label each clip was given.

    Returns:
        `np.ndarray` of shape `(clips,)`: index of the label with the highest score among those whose score is at least the
        mean over the clips that were given it; -1 where there is none.

    Source: Northcutt et al. 2021, equation 1.
    """
    reached = scores >= usual_scores(scores, given)
    best = np.where(reached, scores, -1).argmax(axis=1)
    return np.where(reached.any(axis=1), best, -1)


def usual_scores(scores: np.ndarray, given: np.ndarray) -> np.ndarray:
    """Tell the score that is usual for each label where it was given.

    Args:
        scores (`np.ndarray` of shape `(clips, labels)`): probabilities.
        given (boolean `np.ndarray` of shape `(clips, labels)`): which labels each clip was given.

    Returns:
        `np.ndarray` of shape `(labels,)`: the mean over the clips that were given the label; `NEVER_REACHED` of one that none
        was given.

    Source: Northcutt et al. 2021, equation 2.
    """
    counts = given.sum(axis=0)
    sums = np.where(given, scores, 0).sum(axis=0)
    return np.where(counts > 0, sums / np.maximum(counts, 1), NEVER_REACHED)

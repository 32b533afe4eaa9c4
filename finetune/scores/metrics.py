"""Scores of audio classification as an `evaluate.Metric` that needs no download.

Macro averages over classes, by scikit-learn's definitions; d-prime as in the AudioSet papers. A class without a
positive clip has none of these scores and is left out of their means; [`left_out`] names it. Without any positive clip
at all there is nothing to average, and every score is NaN.
"""

from collections.abc import Sequence

import datasets
import evaluate
import numpy as np
import torch
from scipy.stats import norm
from sklearn.metrics import (
    average_precision_score,
    confusion_matrix,
    precision_recall_fscore_support,
    roc_auc_score,
)

from modeling_ast.modeling_ast import classification_loss
from modeling_ast.scores import MULTI_LABEL_THRESHOLD

NAMES_SHOWN = 10  # of the classes listed in a note


class ASTMetrics(evaluate.Metric):
    """Accuracy, macro F1, macro mean average precision, macro area under the ROC curve, and d-prime.

    `compute(predictions=..., references=...)` takes

    - predictions of shape `(clips, labels)`: scores of every label, probabilities of any kind;
    - references of shape `(clips,)`: label indices; or, with `multi_label`, of shape `(clips, labels)`: multi-hot;
    - with `multi_label` perhaps `thresholds` of shape `(labels,)`: scores from which F1 takes a label as found, 0.5 each
      if not given;

    and returns a dictionary of floats: `accuracy`, `f1_macro`, `mean_average_precision`, `roc_auc_macro` and `d_prime`.
    Accuracy and F1 of label indices are by the top label, also where the scores are independent (sigmoid). Accuracy of
    multi-hot references is the original code's, the top label being the first true one, over the clips that have a label:
    there a clip without one counts as one of the first class. Of a single label, which a clip has or has not, all count.

    Without `multi_label` the predictions may also be label indices of shape `(clips,)`, as
    `evaluate.evaluator("audio-classification")` hands them over. It wants a checkpoint folder,
    `label_mapping={name: index}`, and clips as arrays (a data set `.with_format("numpy")`; after
    [`~modeling_ast.register`] paths will do). Indices say nothing about the order of the labels below the top one, so
    only `accuracy` and `f1_macro` are returned.

    Args:
        multi_label (`bool`, defaults to `False`): whether references are multi-hot.

    Source: scikit-learn for all but d-prime, which is sqrt(2) times the normal quantile of the area under the curve
    (Hershey et al. 2017, and `stats.py` of the released code).
    """

    def __init__(self, multi_label: bool = False, **kwargs):
        super().__init__(config_name="multi_label" if multi_label else "single_label", keep_in_memory=True, **kwargs)

    def _build_data_dir(self) -> str:
        """No folder: nothing is stored, and the home may not be writable."""
        return self._data_dir_root

    @property
    def multi_label(self) -> bool:
        """Whether references are multi-hot."""
        return self.config_name == "multi_label"

    def _info(self) -> evaluate.MetricInfo:
        scores, index = datasets.Sequence(datasets.Value("float64")), datasets.Value("int64")
        if self.multi_label:
            features = datasets.Features({"predictions": scores, "references": datasets.Sequence(index)})
        else:  # the first that fits is taken
            features = [
                datasets.Features({"predictions": predictions, "references": index}) for predictions in (scores, index)
            ]
        return evaluate.MetricInfo(
            description="Audio classification scores: accuracy, macro F1, mAP, AUC and d-prime.",
            citation="",
            inputs_description="predictions: scores (clips, labels), or label indices; references: indices (clips,) or "
            "multi-hot.",
            features=features,
        )

    def add_batch(self, *, predictions=None, references=None, **kwargs):
        """As the stock method; names of labels are refused, as only their indices can be compared.

        Args:
            predictions (sequence, *optional*): label indices, or scores of every label.
            references (sequence, *optional*): label indices, or multi-hot.
            **kwargs: whatever else the stock method takes.

        Raises:
            ValueError: if predictions are names of labels.
        """
        if predictions is not None and len(predictions) and isinstance(predictions[0], str):
            raise ValueError(
                f"The predictions are names of labels ({predictions[0]!r}), expected indices or scores. Pass the evaluator "
                "label_mapping=model.config.label2id."
            )
        super().add_batch(predictions=predictions, references=references, **kwargs)

    def _compute(self, predictions, references, thresholds: Sequence[float] | None = None) -> dict[str, float]:
        return classification_scores(predictions, references, self.multi_label, thresholds)


def classification_scores(
    predictions: np.ndarray,
    references: np.ndarray,
    multi_label: bool = False,
    thresholds: Sequence[float] | None = None,
) -> dict[str, float]:
    """Compute what [`ASTMetrics`] gives, of arrays at hand: nothing is written into an Arrow table first.

    Args:
        predictions (`np.ndarray`): scores of shape `(clips, labels)`; single labels also as indices of shape `(clips,)`.
        references (`np.ndarray`): indices of shape `(clips,)`, or with `multi_label` multi-hot of shape `(clips, labels)`.
        multi_label (`bool`, defaults to `False`): whether references are multi-hot.
        thresholds (sequence of `float`, *optional*): with `multi_label`, of each label, the score from which F1 takes it as
            found; 0.5 each if not given.

    Returns:
        `dict[str, float]`: the scores by their names.

    Raises:
        ValueError: if thresholds were given for single labels, or an index is that of no label.
    """
    scores, references = np.asarray(predictions), np.asarray(references)
    if thresholds is not None:
        if not multi_label:
            raise ValueError(
                "thresholds were given for references with one label a clip, whose F1 is by the top label. Leave them "
                "out, or use ASTMetrics(multi_label=True)."
            )
        thresholds = np.asarray(thresholds)
    if scores.ndim == 1:
        found = as_multi_hot(scores, max(scores.max(), references.max()) + 1)
        return {
            "accuracy": float((scores == references).mean()),
            "f1_macro": _mean_f1(as_multi_hot(references, found.shape[1]), found),
        }
    scores = scores.astype(np.float64)
    truth = as_multi_hot(references, scores.shape[1])
    hits = (scores.argmax(axis=1) == truth.argmax(axis=1))[truth.any(axis=1)]
    if scores.shape[1] == 1:  # there is no other label to prefer
        hits = decide(scores, True, thresholds)[:, 0] == truth[:, 0]
    average_precisions, areas = ranking_scores(scores, truth)
    area = _mean(areas)
    return {
        "accuracy": float(hits.mean()) if truth.any() else float("nan"),
        "f1_macro": macro_f1(scores, references, thresholds),
        "mean_average_precision": _mean(average_precisions),
        "roc_auc_macro": area,
        "d_prime": float(np.sqrt(2) * norm.ppf(area)),
    }


def mean_loss(logits: np.ndarray, references: np.ndarray, problem_type: str) -> float:
    """The model's loss over a whole split, each clip counting once.

    `Trainer` averages the losses of batches, in which several processes repeat clips to fill the last one, and smooths
    labels where training does; this is neither. The original's validation loss is of sigmoid outputs taken as logits;
    this is of logits.

    Args:
        logits (`np.ndarray` of shape `(clips, labels)`): the model's output, before softmax or sigmoid.
        references (`np.ndarray`): indices of shape `(clips,)`, or multi-hot, or shares from 0 to 1.
        problem_type (`str`): the model's; `"multi_label_classification"` is binary cross-entropy, also of indices.

    Returns:
        `float`: mean over clips (and over labels, if they are independent).
    """
    if problem_type == "multi_label_classification" and references.ndim == 1:
        references = as_multi_hot(references, logits.shape[1])
    loss = classification_loss(torch.from_numpy(logits), torch.from_numpy(references), problem_type)
    return float(loss)


def as_multi_hot(references: np.ndarray, num_labels: int) -> np.ndarray:
    """Label indices of shape `(clips,)` as multi-hot `(clips, labels)`; multi-hot is returned as it is.

    Args:
        references (`np.ndarray`): indices of shape `(clips,)`, or multi-hot.
        num_labels (`int`): labels of the model.

    Returns:
        `np.ndarray` of shape `(clips, labels)`: 0 or 1, int64.

    Raises:
        ValueError: if an index is that of no label.
    """
    if references.ndim == 2:
        return references.astype(np.int64)
    wrong = references[(references < 0) | (references >= num_labels)]
    if len(wrong):
        remedy = " Data sets mark clips without a label so: leave these out." if wrong[0] == -1 else ""
        raise ValueError(f"{wrong[0]} is the index of no label, expected 0 to {num_labels - 1}.{remedy}")
    return np.eye(num_labels, dtype=np.int64)[references]


def decide(scores: np.ndarray, multi_label: bool, thresholds: np.ndarray | None = None) -> np.ndarray:
    """Multi-hot decisions of shape `(clips, labels)`.

    Args:
        scores (`np.ndarray` of shape `(clips, labels)`): scores.
        multi_label (`bool`): whether all labels from their threshold on are taken, or only the top one.
        thresholds (`np.ndarray` of shape `(labels,)`, *optional*): of multi-label scores; 0.5 each if not given.

    Returns:
        `np.ndarray` of shape `(clips, labels)`: 0 or 1, int64.
    """
    if multi_label:
        return (scores >= (MULTI_LABEL_THRESHOLD if thresholds is None else thresholds)).astype(np.int64)
    return as_multi_hot(scores.argmax(axis=1), scores.shape[1])


def macro_f1(scores: np.ndarray, references: np.ndarray, thresholds: np.ndarray | None = None) -> float:
    """Mean F1 of the classes that have a positive clip; NaN if none has.

    Args:
        scores (`np.ndarray` of shape `(clips, labels)`): scores.
        references (`np.ndarray`): indices of shape `(clips,)`, or multi-hot.
        thresholds (`np.ndarray` of shape `(labels,)`, *optional*): of multi-label scores; 0.5 each if not given.

    Returns:
        `float`: from 0 to 1, or NaN.
    """
    return _mean_f1(as_multi_hot(references, scores.shape[1]), decide(scores, references.ndim == 2, thresholds))


def _precision_recall_f1_support(truth: np.ndarray, found: np.ndarray) -> list[np.ndarray]:
    """Four arrays of shape `(labels,)`; 0 where there is nothing to divide by."""
    # With a column more, scikit-learn does not take a single label for a choice between two.
    truth, found = (np.pad(array, ((0, 0), (0, 1))) for array in (truth, found))
    scores = precision_recall_fscore_support(truth, found, average=None, zero_division=0.0)
    return [values[:-1] for values in scores]


def _mean_f1(truth: np.ndarray, found: np.ndarray) -> float:
    f1 = _precision_recall_f1_support(truth, found)[2]
    return _mean(np.where(truth.any(axis=0), f1, np.nan))


def _mean(values: np.ndarray) -> float:
    """Mean of what is known; NaN, without NumPy's warning, if nothing is."""
    return float("nan") if np.isnan(values).all() else float(np.nanmean(values))


def ranking_scores(scores: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Average precision and area under the ROC curve of each class, NaN where the class does not allow one.

    Args:
        scores (`np.ndarray` of shape `(clips, labels)`): scores.
        truth (`np.ndarray` of shape `(clips, labels)`): multi-hot.

    Returns:
        Two arrays of shape `(labels,)`.
    """
    average_precisions, areas = np.full((2, truth.shape[1]), np.nan)
    positives = truth.sum(axis=0)
    for values, score, possible in (
        (average_precisions, average_precision_score, positives > 0),
        (areas, roc_auc_score, (positives > 0) & (positives < len(truth))),
    ):
        if possible.any():
            values[possible] = score(truth[:, possible], scores[:, possible], average=None)
    return average_precisions, areas


def per_class_table(
    scores: np.ndarray, references: np.ndarray, labels: list[str], thresholds: dict[str, float] | None = None
) -> list[dict]:
    """Precision, recall, F1, average precision, area under the curve and number of clips of each class.

    Args:
        scores (`np.ndarray` of shape `(clips, labels)`): scores.
        references (`np.ndarray`): indices of shape `(clips,)`, or multi-hot.
        labels (`list[str]`): names in output order.
        thresholds (`dict[str, float]`, *optional*): from [`choose_thresholds`], for precision, recall and F1 of
            multi-label scores; 0.5 each if not given.

    Returns:
        A row per label. Ranking scores that the class does not allow are `None`.
    """
    truth = as_multi_hot(references, len(labels))
    levels = None if thresholds is None else np.array([thresholds[label] for label in labels])
    precision, recall, f1, support = _precision_recall_f1_support(truth, decide(scores, references.ndim == 2, levels))
    average_precisions, areas = ranking_scores(scores, truth)
    return [
        {
            "label": name,
            "precision": float(precision[index]),
            "recall": float(recall[index]),
            "f1": float(f1[index]),
            "average_precision": _number_or_none(average_precisions[index]),
            "roc_auc": _number_or_none(areas[index]),
            "support": int(support[index]),
        }
        for index, name in enumerate(labels)
    ]


def left_out(references: np.ndarray, labels: list[str]) -> list[str]:
    """Names of the classes without a positive clip, which have no part in the means.

    Args:
        references (`np.ndarray`): indices of shape `(clips,)`, or multi-hot.
        labels (`list[str]`): names in output order.

    Returns:
        `list[str]`: in output order.
    """
    present = as_multi_hot(references, len(labels)).any(axis=0)
    return [name for name, is_there in zip(labels, present, strict=True) if not is_there]


def left_out_note(names: list[str], num_labels: int) -> str | None:
    """What [`left_out`] found, in words; `None` if every class has a positive clip.

    Args:
        names (`list[str]`): what [`left_out`] returned.
        num_labels (`int`): how many classes there are.

    Returns:
        `str`, *optional*: the words.
    """
    if not names:
        return None
    if len(names) == num_labels:
        return "no clip of the scored split has a label, so there is no score"
    shown = ", ".join(names[:NAMES_SHOWN]) + (" ..." if len(names) > NAMES_SHOWN else "")
    return f"{len(names)} of {num_labels} classes have no clip in the scored split and no part in the means: {shown}"


def clips_without_labels(references: np.ndarray) -> int:
    """How many clips have no part in the accuracy as they have none of several labels.

    Args:
        references (`np.ndarray`): indices of shape `(clips,)`, or multi-hot.

    Returns:
        `int`: clips; 0 where each has exactly one label.
    """
    if references.ndim == 1 or references.shape[1] == 1:
        return 0
    return int((~references.astype(bool).any(axis=1)).sum())


def without_labels_note(count: int, num_clips: int) -> str | None:
    """What [`clips_without_labels`] found, in words; `None` if every clip has a label.

    Args:
        count (`int`): what [`clips_without_labels`] returned.
        num_clips (`int`): all clips that were scored.

    Returns:
        `str`, *optional*: the words.
    """
    return f"{count} of {num_clips} clips have no label and no part in the accuracy" if count else None


def confusion(scores: np.ndarray, references: np.ndarray, num_labels: int) -> list[list[int]]:
    """Confusion matrix of single-label references of shape `(clips,)`: rows are the truth, columns the top label.

    Args:
        scores (`np.ndarray` of shape `(clips, labels)`): scores.
        references (`np.ndarray` of shape `(clips,)`): label indices.
        num_labels (`int`): labels of the model.

    Returns:
        `list[list[int]]`: clips, a row per true label.
    """
    return confusion_matrix(references, scores.argmax(axis=1), labels=range(num_labels)).tolist()


def _number_or_none(value: float) -> float | None:
    return None if np.isnan(value) else float(value)

"""Scores of audio classification as an `evaluate.Metric` that needs no download.

Macro averages over classes, by scikit-learn's definitions; d-prime as in the AudioSet papers. A class without a
positive clip has none of these scores and is left out of their means; [`per_class_table`] tells which.
"""

import datasets
import evaluate
import numpy as np
from scipy.stats import norm
from sklearn.metrics import (
    average_precision_score,
    confusion_matrix,
    f1_score,
    precision_recall_fscore_support,
    roc_auc_score,
)

DECISION_THRESHOLD = 0.5  # of a multi-label score, until thresholds are chosen on validation data


class ASTMetrics(evaluate.Metric):
    """Accuracy, macro F1, macro mean average precision, macro area under the ROC curve, and d-prime.

    `compute(predictions=..., references=...)` takes

    - predictions of shape `(clips, labels)`: scores of every label, probabilities of any kind;
    - references of shape `(clips,)`: label indices, or of shape `(clips, labels)`: multi-hot.

    and returns a dictionary of floats: `accuracy` (of multi-hot references: the top label is the first true one, as in
    the original code), `f1_macro`, `mean_average_precision`, `roc_auc_macro` and `d_prime`.

    Source: scikit-learn for all but d-prime, which is sqrt(2) times the normal quantile of the area under the curve
    (Hershey et al. 2017, and `stats.py` of the released code).
    """

    def __init__(self, multi_label: bool = False, **kwargs):
        super().__init__(config_name="multi_label" if multi_label else "single_label", keep_in_memory=True, **kwargs)

    def _info(self) -> evaluate.MetricInfo:
        multi_label = self.config_name == "multi_label"
        references = datasets.Sequence(datasets.Value("int64")) if multi_label else datasets.Value("int64")
        return evaluate.MetricInfo(
            description="Audio classification scores: accuracy, macro F1, mAP, AUC and d-prime.",
            citation="",
            inputs_description="predictions: scores (clips, labels); references: indices (clips,) or multi-hot.",
            features=datasets.Features(
                {"predictions": datasets.Sequence(datasets.Value("float64")), "references": references}
            ),
        )

    def _compute(self, predictions, references) -> dict[str, float]:
        scores, truth = np.asarray(predictions), as_multi_hot(np.asarray(references), len(predictions[0]))
        average_precisions, areas = ranking_scores(scores, truth)
        area = float(np.nanmean(areas)) if not np.isnan(areas).all() else float("nan")
        f1 = f1_score(truth, decide(scores, self.config_name == "multi_label"), average=None, zero_division=0.0)
        return {
            "accuracy": float((scores.argmax(axis=1) == truth.argmax(axis=1)).mean()),
            "f1_macro": float(f1[truth.any(axis=0)].mean()),
            "mean_average_precision": float(np.nanmean(average_precisions)),
            "roc_auc_macro": area,
            "d_prime": float(np.sqrt(2) * norm.ppf(area)),
        }


def as_multi_hot(references: np.ndarray, num_labels: int) -> np.ndarray:
    """Label indices of shape `(clips,)` as multi-hot `(clips, labels)`; multi-hot is returned as it is."""
    if references.ndim == 2:
        return references.astype(np.int64)
    return np.eye(num_labels, dtype=np.int64)[references]


def decide(scores: np.ndarray, multi_label: bool) -> np.ndarray:
    """Multi-hot decisions of shape `(clips, labels)`: all labels above the threshold, or only the top one."""
    if multi_label:
        return (scores >= DECISION_THRESHOLD).astype(np.int64)
    return as_multi_hot(scores.argmax(axis=1), scores.shape[1])


def ranking_scores(scores: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Average precision and area under the ROC curve of each class, NaN where the class does not allow one.

    Args:
        scores (`np.ndarray` of shape `(clips, labels)`): scores.
        truth (`np.ndarray` of shape `(clips, labels)`): multi-hot.

    Returns:
        Two arrays of shape `(labels,)`.
    """
    average_precisions, areas = np.full((2, truth.shape[1]), np.nan)
    for label in range(truth.shape[1]):
        positives = truth[:, label].sum()
        if positives:
            average_precisions[label] = average_precision_score(truth[:, label], scores[:, label])
        if 0 < positives < len(truth):
            areas[label] = roc_auc_score(truth[:, label], scores[:, label])
    return average_precisions, areas


def per_class_table(scores: np.ndarray, references: np.ndarray, labels: list[str]) -> list[dict]:
    """Precision, recall, F1, average precision, area under the curve and number of clips of each class.

    Args:
        scores (`np.ndarray` of shape `(clips, labels)`): scores.
        references (`np.ndarray`): indices of shape `(clips,)`, or multi-hot.
        labels (`list[str]`): names in output order.

    Returns:
        A row per label. Ranking scores that the class does not allow are `None`.
    """
    truth = as_multi_hot(references, len(labels))
    precision, recall, f1, support = precision_recall_fscore_support(
        truth, decide(scores, references.ndim == 2), average=None, zero_division=0.0
    )
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


def confusion(scores: np.ndarray, references: np.ndarray, num_labels: int) -> list[list[int]]:
    """Confusion matrix of single-label references of shape `(clips,)`: rows are the truth, columns the top label."""
    return confusion_matrix(references, scores.argmax(axis=1), labels=range(num_labels)).tolist()


def _number_or_none(value: float) -> float | None:
    return None if np.isnan(value) else float(value)

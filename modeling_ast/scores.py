"""Logits to scores: what kind of problem a model was trained for, and from which score on a label counts."""

import numpy as np

MULTI_LABEL_THRESHOLD = 0.5  # where a checkpoint names no other


def problem_type_of(config) -> str:
    """Tell the kind of problem; without a `problem_type`, one output is a regression and several are exclusive labels.

    Args:
        config ([`ASTConfig`]): of this project or of stock Transformers.

    Returns:
        `"multi_label_classification"`, `"single_label_classification"` or `"regression"`.
    """
    if config.problem_type is not None:
        return config.problem_type
    return "regression" if config.num_labels == 1 else "single_label_classification"


def label_thresholds(config) -> np.ndarray:
    """Give the score from which each label of a multi-label model counts.

    Args:
        config ([`ASTConfig`]): of this project or of stock Transformers, which has no field for thresholds.

    Returns:
        `np.ndarray` of shape `(labels,)`, float64, in the order of the labels: 0.5 for those without a chosen one.
    """
    chosen = getattr(config, "label_thresholds", None) or {}
    return np.array([chosen.get(config.id2label[index], MULTI_LABEL_THRESHOLD) for index in range(config.num_labels)])


def scores_from_logits(logits, problem_type: str):
    """Turn logits into scores: sigmoid for multi-label, softmax for single-label, unchanged for regression.

    Args:
        logits (`torch.Tensor` of shape `(batch, labels)`): the model's output, of any float type.
        problem_type (`str`): as [`problem_type_of`] gives it.

    Returns:
        `torch.Tensor` of shape `(batch, labels)` and type float32.
    """
    logits = logits.float()
    if problem_type == "multi_label_classification":
        return logits.sigmoid()
    return logits if problem_type == "regression" else logits.softmax(dim=-1)

"""Losses of a training: functions of one signature, of which [`ASTTrainer`] takes one.

Without one, the model computes its own from the labels ([`~modeling_ast.modeling_ast.classification_loss`], which
`label_smoothing_factor` replaces with that of `Trainer`). `Trainer(compute_loss_func=...)` does not do here: it gets the
labels alone and none of the other inputs, takes what it returns for normalised over all accumulated batches, and stands in
evaluations too.
"""

from collections.abc import Sequence
from functools import partial
from typing import Protocol

import numpy as np
import torch
from torch import nn
from transformers.utils import ModelOutput

CROSS_ENTROPY, BINARY_CROSS_ENTROPY = "cross_entropy", "binary_cross_entropy"
# What the model computes itself, by its `problem_type`.
OWN_LOSSES = {
    "single_label_classification": CROSS_ENTROPY,
    "multi_label_classification": BINARY_CROSS_ENTROPY,
    "regression": "mean_squared_error",
}


class TrainingLoss(Protocol):
    """What a training minimises.

    It is a mean over the clips of a batch: `Trainer` then gives each of the accumulated batches, and each process, its
    share. Its name in the run summary is that of the function.
    """

    def __call__(self, outputs: ModelOutput, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """Compute the loss of a batch.

        Args:
            outputs (`ModelOutput`): what the model gives for the inputs that its `forward` takes, without `labels`.
            inputs (`dict[str, torch.Tensor]`): the whole batch on the training device: what the model was given,
                `labels`, and the further tensors that a collator puts into `batch["targets"]`, by their names.

        Returns:
            `torch.Tensor`: a scalar, float32.
        """


def loss_name(loss: TrainingLoss | None, problem_type: str | None, label_smoothing: float = 0.0) -> str:
    """The name of a loss, for the run summary.

    Args:
        loss ([`TrainingLoss`], *optional*): the loss of the training, if it is not the model's own.
        problem_type (`str`, *optional*): of the model's configuration.
        label_smoothing (`float`, defaults to 0): share of a label that is spread over all labels.

    Returns:
        `str`: the function's name, such as `"weighted_cross_entropy"`; of the model's own loss `"cross_entropy"`,
        `"binary_cross_entropy"`, `"mean_squared_error"`, or `"model_loss"` if it tells from the labels which one it is.
    """
    if loss is None:
        own = OWN_LOSSES.get(problem_type, "model_loss")
        return f"label_smoothed_{own}" if label_smoothing else own
    function = loss.func if isinstance(loss, partial) else loss
    return getattr(function, "__name__", type(function).__name__)


def class_weights(counts: np.ndarray, num_clips: int, loss: str) -> torch.Tensor:
    """Weights under which every class has the same share of the loss, however many clips it has.

    Args:
        counts (`np.ndarray` of shape `(num_labels,)`): training clips of each label of the model.
        num_clips (`int`): all training clips.
        loss (`str`): `"cross_entropy"`: clips / (classes * clips of the class), scikit-learn's "balanced", where classes
            are those that have clips; these weights are 1 on average over the clips. `"binary_cross_entropy"`: the weight
            of a positive, negatives / positives of the class. A class that no clip has, or for the binary loss all
            clips have, gets the weight 1, as there is nothing to balance.

    Returns:
        `torch.Tensor` of shape `(num_labels,)`, float32.

    Raises:
        ValueError: if there are not as many labels as clips and the loss is cross entropy.
    """
    if loss == CROSS_ENTROPY and counts.sum() != num_clips:
        raise ValueError(
            f"Weights for the cross entropy need exactly one label a clip, and {num_clips} clips have {counts.sum()}. Pass "
            "--loss binary_cross_entropy, or --class_weights none."
        )
    if loss == CROSS_ENTROPY:
        balanced = counts > 0
        totals, parts = np.full(len(counts), num_clips), counts * balanced.sum()
    else:
        balanced = (counts > 0) & (counts < num_clips)
        totals, parts = num_clips - counts, counts
    weights = np.ones(len(counts))
    weights[balanced] = totals[balanced] / parts[balanced]
    return torch.from_numpy(weights).float()


def weighted_loss(weights: torch.Tensor, problem_type: str, num_labels: int) -> TrainingLoss:
    """The loss of a classification whose classes have weights.

    Args:
        weights (`torch.Tensor` of shape `(num_labels,)`): from [`class_weights`].
        problem_type (`str`): of the model; it chooses [`weighted_cross_entropy`] or [`weighted_binary_cross_entropy`].
        num_labels (`int`): of the model.

    Returns:
        [`TrainingLoss`]: one of the two with these weights.

    Raises:
        ValueError: if there is not one weight for each label, or the problem is of another type.
    """
    if weights.shape != (num_labels,):
        raise ValueError(
            f"The weights have shape {tuple(weights.shape)}, expected one weight for each of the model's labels: "
            f"({num_labels},). Take them from class_weights."
        )
    functions = {
        "single_label_classification": weighted_cross_entropy,
        "multi_label_classification": weighted_binary_cross_entropy,
    }
    if problem_type not in functions:
        raise ValueError(
            f"Class weights are for single- or multi-label classification, not problem_type={problem_type!r}. Pass "
            "--class_weights none, or set config.problem_type."
        )
    return partial(functions[problem_type], weights=weights)


def weighted_cross_entropy(
    outputs: ModelOutput, inputs: dict[str, torch.Tensor], weights: torch.Tensor
) -> torch.Tensor:
    """Cross entropy in which each class has its weight, divided by the clips of the batch, in float32.

    It is divided by the number of clips and not, as torch's weighted mean is, by the sum of the batch's own weights: that
    would take out again what the weights do among batches, all of it where a batch is one clip. So an update is the same
    however its clips are cut into batches, micro-batches and processes, as long as these are equally many.

    Args:
        outputs (`ModelOutput`): with `logits` of shape `(batch, num_labels)`.
        inputs (`dict[str, torch.Tensor]`): with `labels`: indices of shape `(batch,)`, or for soft labels, as mixup makes
            them, floats of shape `(batch, num_labels)`; a soft label is as much of each class as it says.
        weights (`torch.Tensor` of shape `(num_labels,)`): from [`class_weights`].

    Returns:
        `torch.Tensor`: a scalar, float32.
    """
    logits = outputs.logits.float()
    labels = inputs["labels"].to(logits.device)
    labels = labels.float() if labels.is_floating_point() else labels.long()
    return nn.functional.cross_entropy(logits, labels, weight=weights.to(logits.device), reduction="sum") / len(logits)


def label_sets_loss(
    outputs: ModelOutput, inputs: dict[str, torch.Tensor], sets: Sequence[Sequence[int]]
) -> torch.Tensor:
    """Cross entropy of each clip among the labels of its own set alone, in float32: each set has a head of its own.

    A clip that mixup made of two sets counts for both heads, each with its share.

    Args:
        outputs (`ModelOutput`): with `logits` of shape `(batch, num_labels)`.
        inputs (`dict[str, torch.Tensor]`): with `labels`: indices of shape `(batch,)`, or shares of shape
            `(batch, num_labels)`.
        sets (sequence of sequences of `int`): places of the labels of each set.

    Returns:
        `torch.Tensor`: a scalar, float32: the mean over the clips.
    """
    logits = outputs.logits.float()
    labels = inputs["labels"].to(logits.device)
    if not labels.is_floating_point():
        labels = nn.functional.one_hot(labels.long(), logits.shape[1]).float()
    heads = [
        nn.functional.cross_entropy(logits[:, places], labels[:, places], reduction="sum")
        for places in map(list, sets)
    ]
    return torch.stack(heads).sum() / len(logits)


def masked_modeling_loss(
    outputs: ModelOutput, inputs: dict[str, torch.Tensor], reconstruction_weight: float
) -> torch.Tensor:
    """Loss of a masked pretraining: matching and reconstruction of the hidden patches together, the mean over clips.

    Args:
        outputs (`ModelOutput`): of [`ASTForMaskedSpectrogramModeling`], with `matching_losses` and `reconstruction_errors`
            of shape `(batch,)`.
        inputs (`dict[str, torch.Tensor]`): of which nothing is needed.
        reconstruction_weight (`float`): the paper's lambda, of the reconstruction beside the matching.

    Returns:
        `torch.Tensor`: a scalar, float32.

    Source: SSAST (Gong et al., AAAI 2022), algorithm 1.
    """
    return (outputs.matching_losses + reconstruction_weight * outputs.reconstruction_errors).mean()


def weighted_binary_cross_entropy(
    outputs: ModelOutput, inputs: dict[str, torch.Tensor], weights: torch.Tensor
) -> torch.Tensor:
    """Binary cross entropy in which the positives of each class have its weight: the mean over clips and labels, in float32.

    Args:
        outputs (`ModelOutput`): with `logits` of shape `(batch, num_labels)`.
        inputs (`dict[str, torch.Tensor]`): with `labels` of shape `(batch, num_labels)`: 0 or 1, or shares in between.
        weights (`torch.Tensor` of shape `(num_labels,)`): from [`class_weights`].

    Returns:
        `torch.Tensor`: a scalar, float32.
    """
    logits = outputs.logits.float()
    labels = inputs["labels"].to(logits.device).float()
    return nn.functional.binary_cross_entropy_with_logits(logits, labels, pos_weight=weights.to(logits.device))

"""How well a model with a head for each set of labels tells the labels of a set apart, on clips of that set."""

import numpy as np
from scipy.special import log_softmax
from transformers import EvalPrediction

from ..arguments.groups import DataArguments, OptimizationArguments
from ..clip_sets.waveforms import ClipDataset
from ..scores.scoring import probabilities
from ..sources.label_sets import label_sets, set_of_each_label
from ..sources.labels import label_names
from ..training.trainer import ASTTrainer
from .evaluation import best_section, protocol_in_words


def evaluate_label_sets(
    trainer: ASTTrainer, clips: dict[str, ClipDataset], data_args: DataArguments, optimization: OptimizationArguments
) -> dict:
    """Score the held-out clips, each among the labels of its own set; the feature extractor is left padding as it will be
    saved.

    Args:
        trainer ([`ASTTrainer`]): after its training.
        clips (`dict[str, ClipDataset]`): with `"eval"`.
        data_args ([`DataArguments`]): name of the split.
        optimization ([`OptimizationArguments`]): what is optimised how.

    Returns:
        The section `evaluation` of the run summary: `split`, `clips`, `protocol`, `metrics`, and in `label_sets` labels, clips
        and accuracy of each set that has clips there.

    Raises:
        DivergedError: if scores are not numbers.
    """
    labels = label_names(clips["eval"].split)
    prediction = trainer.scores_of(clips["eval"])
    trainer.feature_extractor.padding = "max_length"
    return {
        "split": data_args.eval_split_name,
        "clips": len(clips["eval"]),
        "protocol": protocol_in_words(trainer, optimization, has_validation=False),
        "metrics": {name: prediction.metrics[f"eval_{name}"] for name in ("loss", "accuracy")},
        "label_sets": scores_by_set(prediction, labels),
    } | best_section(trainer)


def label_set_scores(prediction: EvalPrediction, labels: list[str]) -> dict[str, float]:
    """Score an evaluation in training.

    Args:
        prediction (`EvalPrediction`): logits of shape `(clips, labels)`, label indices of shape `(clips,)`.
        labels (`list[str]`): names in output order.

    Returns:
        `accuracy`: the mean over the sets of each one's share of right clips, and `loss`: the mean over all clips of the
        cross entropy within a clip's set.
    """
    references = prediction.label_ids
    log_shares = within_sets(prediction.predictions, references, labels)
    accuracies = [row["accuracy"] for row in scores_by_set(prediction, labels).values()]
    own = log_shares[np.arange(len(references)), references]
    return {"loss": float(-own.mean()), "accuracy": float(np.mean(accuracies))}


def scores_by_set(prediction: EvalPrediction, labels: list[str]) -> dict[str, dict[str, float]]:
    """Score each set by its own clips.

    Args:
        prediction (`EvalPrediction`): as of [`label_set_scores`].
        labels (`list[str]`): names in output order.

    Returns:
        By set that has clips: `labels`, `clips` and `accuracy`, the share of them whose top label within the set is right.
    """
    references = prediction.label_ids
    right = within_sets(prediction.predictions, references, labels).argmax(axis=1) == references
    of_clips = set_of_each_label(labels)[references]
    return {
        name: {"labels": len(members), "clips": int(mine.sum()), "accuracy": float(right[mine].mean())}
        for number, (name, members) in enumerate(label_sets(labels).items())
        if (mine := of_clips == number).any()
    }


def within_sets(logits: np.ndarray, references: np.ndarray, labels: list[str]) -> np.ndarray:
    """Logarithm of the softmax of each clip among the labels of the set that it belongs to.

    Args:
        logits (`np.ndarray` of shape `(clips, labels)`): the model's output.
        references (`np.ndarray` of shape `(clips,)`): label indices.
        labels (`list[str]`): names in output order.

    Returns:
        `np.ndarray` of shape `(clips, labels)`, float64: minus infinity outside the set.

    Raises:
        DivergedError: if the logits of all clips are not numbers.
        ClipScoresError: if those of some clips are not.
    """
    probabilities(logits, "single_label_classification")  # are they numbers?
    numbers = set_of_each_label(labels)
    logits = np.where(numbers[None] == numbers[references][:, None], logits.astype(np.float64), -np.inf)
    return log_softmax(logits, axis=1)

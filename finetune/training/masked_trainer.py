"""[`ASTTrainer`] for a masked pretraining: what it minimises, and what its evaluations say."""

from functools import partial

import numpy as np
import torch
from transformers import EvalPrediction

from modeling_ast.masked_modeling import RECONSTRUCTION_WEIGHT

from .losses import masked_modeling_loss
from .trainer import ASTTrainer

# Of what the model tells of each clip, in the order in which [`clip_scores`] puts them.
MATCHING_LOSS, MATCHING_ACCURACY, RECONSTRUCTION_ERROR = range(3)
PRETEXT_SCORES = ("matching_accuracy", "matching_loss", "reconstruction_error")


class MaskedTrainer(ASTTrainer):
    """[`ASTTrainer`] of an [`ASTForMaskedSpectrogramModeling`], whose clips have no labels.

    Args:
        args: as of [`ASTTrainer`].
        reconstruction_weight (`float`, defaults to 10): the paper's lambda, in what is minimised. The loss of evaluations
            has the paper's 10, to be comparable between runs.
        kwargs: as of [`ASTTrainer`], but for its loss and metrics. Its collator gives `patches_masked`, see
            [`MaskedCollator`](finetune.clip_sets.unlabelled.MaskedCollator).
    """

    def __init__(self, *args, reconstruction_weight: float = RECONSTRUCTION_WEIGHT, **kwargs):
        super().__init__(
            *args,
            loss=partial(masked_modeling_loss, reconstruction_weight=reconstruction_weight),
            compute_metrics=pretext_scores,
            preprocess_logits_for_metrics=clip_scores,
            **kwargs,
        )

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """Compute the loss of a batch, without its labels, in which nothing is; see [`ASTTrainer.compute_loss`].

        Args:
            model (`torch.nn.Module`): the model, perhaps wrapped.
            inputs (`dict[str, torch.Tensor]`): the batch.
            return_outputs (`bool`, defaults to `False`): whether the outputs are wanted too.
            num_items_in_batch (`int`, *optional*): see [`~transformers.Trainer.compute_loss`].

        Returns:
            `torch.Tensor`: a scalar; with `return_outputs` it and the model's outputs.
        """
        inputs = {name: value for name, value in inputs.items() if name != "labels"}
        return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)


def clip_scores(outputs: tuple[torch.Tensor, ...], labels: torch.Tensor) -> torch.Tensor:
    """Keep of the model's outputs what is scored, before they are gathered: not the values of all patches.

    Args:
        outputs (`tuple[torch.Tensor, ...]`): those of [`ASTMaskedSpectrogramOutput`] but for the loss, in their order.
        labels (`torch.Tensor` of shape `(batch, 0)`): none.

    Returns:
        `torch.Tensor` of shape `(batch, 3)`: matching loss, matching accuracy and reconstruction error of each clip.
    """
    reconstruction_errors, matching_losses, matching_accuracies, *_ = outputs
    return torch.stack([matching_losses, matching_accuracies, reconstruction_errors], dim=1)


def pretext_scores(prediction: EvalPrediction) -> dict[str, float]:
    """Means over the scored clips.

    Args:
        prediction (`EvalPrediction`): its `predictions` of shape `(clips, 3)`, from [`clip_scores`].

    Returns:
        `loss` with the paper's weight, `matching_accuracy`, `matching_loss` and `reconstruction_error`.
    """
    means = np.asarray(prediction.predictions, dtype=np.float64).mean(axis=0).tolist()
    return {
        "loss": means[MATCHING_LOSS] + RECONSTRUCTION_WEIGHT * means[RECONSTRUCTION_ERROR],
        "matching_accuracy": means[MATCHING_ACCURACY],
        "matching_loss": means[MATCHING_LOSS],
        "reconstruction_error": means[RECONSTRUCTION_ERROR],
    }

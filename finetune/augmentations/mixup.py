"""Mixup of the waveforms and labels of two clips, by the rule of the original.

Source: Gong et al. 2021, `_wav2fbank` of the released data loader. Differs from it in that the partner of a clip that is
streamed comes from the clips that are held at that moment.
"""

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch

from modeling_ast.frame_classification import NOT_SCORED

from .augmentation_step import ORIGINAL_STREAM, AugmentationStep, TrainingClip


@dataclass(frozen=True)
class Mixup(AugmentationStep):
    """Mix a share of the clips with another one, drawn uniformly from the training set."""

    name: ClassVar[str] = "mixup"
    stream: ClassVar[int] = ORIGINAL_STREAM
    strengths: ClassVar[tuple[str, ...]] = ("mixup_probability",)
    mixes_labels: ClassVar[bool] = True

    mixup_probability: float = field(default=0.0, metadata={"help": "Share of clips mixed with another one."})
    mixup_alpha: float = field(default=10.0, metadata={"help": "Mixing weight is drawn from Beta(alpha, alpha)."})

    def __post_init__(self):
        if not 0 <= self.mixup_probability <= 1:
            raise ValueError(
                f"mixup_probability={self.mixup_probability} is a share of the clips. Pass a number from 0 to 1."
            )
        super().__post_init__()
        if self.mixup_alpha == 0:
            raise ValueError("mixup_alpha=0 makes no Beta distribution. Pass --mixup_probability 0 to turn mixup off.")

    def draw(self, generator: np.random.Generator, num_clips: int) -> dict:
        """See [`AugmentationStep.draw`]: draws the `"partner"` and the clip's own `"weight"` in the mixture."""
        mixed = generator.random() < self.mixup_probability
        partner, weight = int(generator.integers(num_clips)), float(generator.beta(self.mixup_alpha, self.mixup_alpha))
        return {"partner": partner if mixed else None, "weight": weight}

    def change_waveform(self, clip: TrainingClip, drawn: dict, partner: TrainingClip | None) -> TrainingClip:
        """See [`AugmentationStep.change_waveform`]: mixes a clip with its partner, if it has one."""
        if partner is None:
            return clip
        weight = drawn["weight"]
        waveform = mix_waveforms(clip.waveform, partner.waveform, weight)
        others = fitted_labels(partner.label, clip.label)
        label = weight * clip.label + (1 - weight) * others
        # Frames of which nothing is known, in one of the two, are not known after mixing.
        unknown = (clip.label < 0) | (others < 0)
        return clip._replace(waveform=waveform, label=np.where(unknown, np.float32(NOT_SCORED), label))

    def mix_scores(self, scores: torch.Tensor, drawn: dict, partners: torch.Tensor) -> torch.Tensor:
        """See [`AugmentationStep.mix_scores`]: mixes them with the weight of the waveforms, as labels are."""
        mixed = [
            weight if partner is not None else 1.0
            for partner, weight in zip(drawn["partner"], drawn["weight"], strict=True)
        ]
        weights = torch.tensor(mixed, dtype=scores.dtype, device=scores.device)[:, None]
        return weights * scores + (1 - weights) * partners


def fitted_labels(labels: np.ndarray, like: np.ndarray) -> np.ndarray:
    """Cut labels of another clip's frames, or add frames without labels, to those of the clip that it is mixed into.

    Args:
        labels (`np.ndarray` of shape `(columns, labels)` or `(labels,)`): those of the other clip.
        like (`np.ndarray`): those of the clip.

    Returns:
        `np.ndarray` of the shape of `like`: labels of whole clips as they are.
    """
    if labels.shape == like.shape:
        return labels
    fitted = np.zeros_like(like)
    shared = min(len(labels), len(like))
    fitted[:shared] = labels[:shared]
    return fitted


def mix_waveforms(waveform: np.ndarray, partner: np.ndarray, weight: float) -> np.ndarray:
    """Mix two clips by the original's rule.

    Args:
        waveform (`np.ndarray` of shape `(samples,)`): the clip, whose length the result has.
        partner (`np.ndarray` of shape `(partner samples,)`): cut, or padded with zeros, to that length.
        weight (`float`): share of `waveform`, in [0, 1].

    Returns:
        `np.ndarray` of shape `(samples,)`, float32, with mean 0 like each of the two before mixing.

    Source: `_wav2fbank` of the released data loader.
    """
    waveform = waveform - waveform.mean()
    fitted = np.zeros_like(waveform)
    shared = min(len(waveform), len(partner))
    fitted[:shared] = (partner - partner.mean())[:shared]
    mixed = weight * waveform + (1 - weight) * fitted
    return (mixed - mixed.mean()).astype(np.float32)

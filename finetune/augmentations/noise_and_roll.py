"""Noise on normalised features, and a roll of them along time, which the original turns on by one switch.

Source: Gong et al. 2021, `AudiosetDataset.__getitem__` of the released data loader.
"""

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch

from .augmentation_step import ORIGINAL_STREAM, AugmentationStep


@dataclass(frozen=True)
class NoiseAndRoll(AugmentationStep):
    """Uniform noise of random strength, then a roll along time."""

    name: ClassVar[str] = "noise_and_roll"
    stream: ClassVar[int] = ORIGINAL_STREAM
    strengths: ClassVar[tuple[str, ...]] = ("noise_strength", "max_roll")

    noise_strength: float = field(
        default=0.0, metadata={"help": "Strongest uniform noise on normalised features (original: 0.1)."}
    )
    max_roll: int = field(default=0, metadata={"help": "Farthest roll along time, in frames (original: 10)."})

    def draw(self, generator: np.random.Generator, num_clips: int) -> dict:
        """See [`AugmentationStep.draw`]: draws `"strength"`, the upper end of the clip's noise, `"roll"`, by how many frames
        it moves on, and the `"seed"` of its noise."""
        return {
            "strength": np.float32(generator.random() * self.noise_strength),
            # -max_roll .. max_roll - 1, as numpy.random.randint(-10, 10) in the original
            "roll": np.int64(generator.integers(-self.max_roll, self.max_roll) if self.max_roll else 0),
            "seed": int(generator.integers(2**63 - 1)),  # read by the host: a tensor would be waited for
        }

    def change_normalized(self, features: torch.Tensor, frames: torch.Tensor, drawn: dict) -> torch.Tensor:
        """See [`AugmentationStep.change_normalized`]: adds noise, the same for a clip in whatever batch, and rolls the
        clip's first `frames`; the frames after those stay."""
        if self.noise_strength:
            generator = torch.Generator(features.device)
            noise = torch.stack(
                [
                    torch.rand(features.shape[1:], device=features.device, generator=generator.manual_seed(seed))
                    for seed in drawn["seed"]
                ]
            )
            features = features + noise * drawn["strength"][:, None, None]
        if self.max_roll:
            positions = torch.arange(features.shape[1], device=features.device)
            rolled = (positions - drawn["roll"][:, None]) % frames[:, None]  # (batch, frames)
            source = torch.where(positions < frames[:, None], rolled, positions)
            features = features.take_along_dim(source[:, :, None], dim=1)
        return features

"""A random filter on a clip, against microphones, rooms and makers that colour the sound differently; not in the original AST.

Source: Nam et al., "FilterAugment: An acoustic environmental data augmentation method" (ICASSP 2022), its linear type: gains at
random frequencies, joined by straight lines in dB over the mel scale. Here its weakest and strongest gain are of one size, bands
may be of any width, and digital silence and padding stay as they are.
"""

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch

from .augmentation_step import AugmentationStep

FEWEST_BANDS, MOST_BANDS = 2, 5
CURVE_POINTS = 65  # along the mel scale, whatever the number of mel bins
DECIBELS = 10 / np.log(10)  # of one unit of log-mel energy


@dataclass(frozen=True)
class FilterAugment(AugmentationStep):
    """Raise and lower stretches of the spectrum, each by a gain that is uniform in dB; level changes with it.

    As with a change of level, what was scored of the clip as it is stays right of what it makes.
    """

    name: ClassVar[str] = "filter_augment"
    stream: ClassVar[int] = 6
    strengths: ClassVar[tuple[str, ...]] = ("max_filter_db",)

    max_filter_db: float = field(
        default=0.0,
        metadata={
            "help": "Largest gain of a random filter, in dB up or down: against other microphones and rooms; not in the original."
        },
    )

    def draw(self, generator: np.random.Generator, num_clips: int) -> dict:
        """See [`AugmentationStep.draw`]: draws the `"curve"`, float32 of shape `(CURVE_POINTS,)`, added to log-mel values
        from the lowest bin to the highest."""
        bands = FEWEST_BANDS + int(generator.random() * (MOST_BANDS - FEWEST_BANDS + 1))
        inner, gains = generator.random(MOST_BANDS - 1), generator.uniform(-1, 1, MOST_BANDS + 1)
        edges = np.concatenate([[0.0], np.sort(inner[: bands - 1]), [1.0]])
        curve = np.interp(np.linspace(0, 1, CURVE_POINTS), edges, gains[: bands + 1])
        return {"curve": (curve * self.max_filter_db / DECIBELS).astype(np.float32)}

    def change_log_mel(self, features: torch.Tensor, frames: torch.Tensor, drawn: dict) -> torch.Tensor:
        """See [`AugmentationStep.change_log_mel`]: adds the curve to each of a clip's frames in which
        there is a sound."""
        curve = torch.nn.functional.interpolate(
            drawn["curve"][:, None], size=features.shape[2], mode="linear", align_corners=True
        )
        heard = features.amin(dim=2) < features.amax(
            dim=2
        )  # (batch, frames); all bins are alike in silence and in padding
        return features + curve.to(features.dtype) * heard[:, :, None]

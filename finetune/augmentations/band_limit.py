"""Recordings of less bandwidth: telephones, old files, lossy codecs; not in the original AST.

Above a drawn frequency a clip is almost silent, as it is where a recording of a lower sampling rate was converted to a higher one. The
filters of such conversions let a little pass, which the drawn attenuation stands for; what is left is no less than digital silence.
"""

import math
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch

from .augmentation_step import AugmentationStep
from .log_mel_bins import FLOOR, SAMPLING_RATE, bin_weights, fft_frequencies, own_frames

LOWEST_LIMIT, HIGHEST_LIMIT = 2000.0, SAMPLING_RATE / 2  # Hz
WEAKEST_DB, STRONGEST_DB = 40.0, 100.0  # attenuation above the limit: from short filters to those of studios
NEPERS = math.log(10) / 10  # of one dB


@dataclass(frozen=True)
class BandLimit(AugmentationStep):
    """Take the upper frequencies of a share of the clips away."""

    name: ClassVar[str] = "band_limit"
    stream: ClassVar[int] = 11
    strengths: ClassVar[tuple[str, ...]] = ("band_limit_probability",)

    band_limit_probability: float = field(
        default=0.0,
        metadata={
            "help": "Share of the training clips that lose all above a drawn frequency from 2 kHz on: against telephones and "
            "recordings of lower sampling rates; not in the original."
        },
    )

    def __post_init__(self):
        super().__post_init__()
        if self.band_limit_probability > 1:
            raise ValueError(
                f"band_limit_probability={self.band_limit_probability} is more than all clips. Pass a share up to 1, for "
                "example --band_limit_probability 0.3."
            )

    def draw(self, generator: np.random.Generator, num_clips: int) -> dict:
        """See [`AugmentationStep.draw`]: draws `"limit"`, uniform in octaves, in Hz, infinite for a clip that keeps all, and the
        attenuation `"db"` above it."""
        is_limited, limit, attenuation = generator.random(3)
        return {
            "limit": np.float32(
                LOWEST_LIMIT * (HIGHEST_LIMIT / LOWEST_LIMIT) ** limit
                if is_limited < self.band_limit_probability
                else np.inf
            ),
            "db": np.float32(WEAKEST_DB + attenuation * (STRONGEST_DB - WEAKEST_DB)),
        }

    def change_log_mel(self, features: torch.Tensor, frames: torch.Tensor, drawn: dict) -> torch.Tensor:
        """See [`AugmentationStep.change_log_mel`]: lowers the bins above the limit in the frames that are no padding, and the
        bin that the limit lies in by the part of it that is above."""
        above = fft_frequencies(features.device) > drawn["limit"][:, None]  # (batch, fft bins)
        share = above.to(features.dtype) @ bin_weights(features.shape[2], features.device).to(features.dtype)
        passed = (-NEPERS * drawn["db"][:, None]).exp()
        change = torch.log1p(share.clamp(max=1) * (passed - 1)).clamp(
            min=-NEPERS * drawn["db"][:, None]
        )  # (batch, bins)
        # A filter before this one may have left less than the floor, which is not raised.
        lowered = torch.maximum(features + change[:, None].to(features.dtype), features.clamp(max=FLOOR))
        return torch.where(own_frames(features, frames)[:, :, None], lowered, features)

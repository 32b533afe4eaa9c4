"""SpecAugment's masks over mel bins and frames.

Source: Park et al. 2019, "SpecAugment", as the data loader of Gong et al. 2021 applies it with
`torchaudio.transforms.FrequencyMasking` and `TimeMasking`. Those draw from torch's global generator and one number for a
whole batch; here the same rule takes numbers that were drawn for each clip.
"""

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch

from .augmentation_step import ORIGINAL_STREAM, AugmentationStep


@dataclass(frozen=True)
class Masks(AugmentationStep):
    """One frequency and one time mask per clip, set to raw 0 before normalising, as in the original."""

    name: ClassVar[str] = "masks"
    stream: ClassVar[int] = ORIGINAL_STREAM
    strengths: ClassVar[tuple[str, ...]] = ("max_frequency_mask", "max_time_mask")

    max_frequency_mask: int = field(default=0, metadata={"help": "Widest frequency mask, in mel bins."})
    max_time_mask: int = field(default=0, metadata={"help": "Longest time mask, in frames."})

    def draw(self, generator: np.random.Generator, num_clips: int) -> dict:
        """See [`AugmentationStep.draw`]: draws `"spans"`, float32 of shape `(4,)`, as shares: width and start of the
        frequency mask, width and start of the time mask."""
        return {"spans": generator.random(4, dtype=np.float32)}

    def hidden(self, size: tuple[int, int], frames: torch.Tensor, drawn: dict) -> torch.Tensor:
        """See [`AugmentationStep.hidden`]: the two spans of every clip."""
        width, bins = size
        spans, all_bins = drawn["spans"], torch.full_like(frames, bins)
        masked_bins = _span(spans[:, 0], spans[:, 1], self.max_frequency_mask, all_bins, bins)  # (batch, bins)
        masked_frames = _span(spans[:, 2], spans[:, 3], self.max_time_mask, frames, width)  # (batch, frames)
        return masked_bins[:, None, :] | masked_frames[:, :, None]

    def change_log_mel(self, features: torch.Tensor, frames: torch.Tensor, drawn: dict) -> torch.Tensor:
        """See [`AugmentationStep.change_log_mel`]: sets what is masked to 0."""
        return features.masked_fill(self.hidden(features.shape[1:], frames, drawn), 0.0)


def _span(
    width_draw: torch.Tensor, start_draw: torch.Tensor, widest: int, sizes: torch.Tensor, num_positions: int
) -> torch.Tensor:
    """Masked span within each clip's size, `(batch, positions)`, as `torchaudio.functional.mask_along_axis` draws it."""
    width = width_draw * sizes.clamp(max=widest)
    start = (start_draw * (sizes - width)).long()
    positions = torch.arange(num_positions, device=width.device)
    return (positions >= start[:, None]) & (positions < (start + width.long())[:, None])

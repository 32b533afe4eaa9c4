"""Padding that is heard: the model learns clips of a batch both as they are and padded; not in the original AST, which always pads.

With `padding="longest"` the padding of a batch is masked, so that a model never learns what padding sounds like; stock Transformers
and its pipeline pad every clip to `max_length` and mask nothing. What is heard ends at a length that is drawn, as a batch may hold
one clip that is far longer than the others.
"""

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch

from .augmentation_step import AugmentationStep

LONGEST_HEARD = 4  # times a clip's own length


@dataclass(frozen=True)
class HeardPadding(AugmentationStep):
    """Let the padding of some clips be heard, as all of it is with `padding="max_length"`, up to a length between one and four times
    the clip's own, and the longest of the batch."""

    name: ClassVar[str] = "heard_padding"
    stream: ClassVar[int] = 7
    strengths: ClassVar[tuple[str, ...]] = ("heard_padding_share",)

    heard_padding_share: float = field(
        default=0.0,
        metadata={
            "help": "Share of the training clips whose padding is heard with --padding longest, so that the model knows padded "
            "clips too; not in the original."
        },
    )

    def __post_init__(self):
        super().__post_init__()
        if self.heard_padding_share > 1:
            raise ValueError(
                f"heard_padding_share={self.heard_padding_share} is more than all clips. Pass a share up to 1, for example "
                "--heard_padding_share 0.5."
            )

    def draw(self, generator: np.random.Generator, num_clips: int) -> dict:
        """See [`AugmentationStep.draw`]: draws `"times"`, the length that is heard by the clip's own; 1 where no padding is."""
        is_heard, length = generator.random(2)
        return {"times": np.float32(1 + (LONGEST_HEARD - 1) * length * (is_heard < self.heard_padding_share))}

    def frames_heard(self, frames: torch.Tensor, width: int, drawn: dict) -> torch.Tensor:
        """See [`AugmentationStep.frames_heard`]: more than the clip's own where padding is heard."""
        return (frames * drawn["times"]).long().clamp(max=width)

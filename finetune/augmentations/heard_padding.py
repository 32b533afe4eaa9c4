"""Padding that is heard: the model learns clips of a batch both as they are and padded; not in the original AST, which always pads.

With `padding="longest"` the padding of a batch is masked, so that a model never learns what padding sounds like; stock Transformers
and its pipeline pad every clip to `max_length` and mask nothing. What is heard ends at a length that is drawn, as not every clip is
worth the time of a whole `max_length`.
"""

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch

from .augmentation_step import AugmentationStep

LONGEST_HEARD = 4  # times a clip's own length
SHORTEST_LIMIT = 128  # frames; four times a very short clip would be short too


@dataclass(frozen=True)
class HeardPadding(AugmentationStep):
    """Let the padding of some clips be heard, as all of it is with `padding="max_length"`: up to a length between the clip's own and
    four times that (128 frames if that is more), and no more than `max_length`. Batches are padded to what is heard of them."""

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
        """See [`AugmentationStep.draw`]: draws `"way"`, how far from the clip's own length to the longest; 0 where no padding is heard."""
        is_heard, way = generator.random(2)
        return {"way": np.float32(way * (is_heard < self.heard_padding_share))}

    def frames_heard(self, frames: torch.Tensor, max_length: int, drawn: dict) -> torch.Tensor:
        """See [`AugmentationStep.frames_heard`]: more than the clip's own where padding is heard."""
        longest = (LONGEST_HEARD * frames).clamp(min=SHORTEST_LIMIT).clamp(max=max_length)
        return frames + ((longest - frames) * drawn["way"]).long()

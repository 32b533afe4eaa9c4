"""Change of speed, which moves pitch and tempo together.

Source: Ko et al. 2015, "Audio augmentation for speech recognition"; not in the original AST.
"""

import math
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
from torchaudio.functional import resample

from .augmentation_step import AugmentationStep, TrainingClip

SPEED_STEPS = 100  # speeds are multiples of 1/100: resampling by such a ratio needs a filter of a few hundred values


@dataclass(frozen=True)
class SpeedChange(AugmentationStep):
    """Play a clip faster or slower, before all other augmentations. A mixup partner keeps its speed."""

    name: ClassVar[str] = "speed_change"
    stream: ClassVar[int] = 3
    strengths: ClassVar[tuple[str, ...]] = ("max_speed_change",)

    max_speed_change: float = field(
        default=0.0,
        metadata={
            "help": "Largest change of speed, which moves pitch and tempo together: 0.1 draws factors from 0.9 to 1.1; not "
            "in the original."
        },
    )

    def __post_init__(self):
        super().__post_init__()
        if self.max_speed_change and not 1 / SPEED_STEPS <= self.max_speed_change <= 0.5:
            raise ValueError(
                f"max_speed_change={self.max_speed_change} is not from {1 / SPEED_STEPS} to 0.5. Pass for example "
                "--max_speed_change 0.1, or 0 to turn it off."
            )

    def draw(self, generator: np.random.Generator, num_clips: int) -> dict:
        """See [`AugmentationStep.draw`]: draws `"factor"`, by which the clip is played faster."""
        widest = int(self.max_speed_change * SPEED_STEPS + 1e-6)  # 0.29 * 100 is 28.999...
        return {"factor": 1 + int(generator.integers(-widest, widest + 1)) / SPEED_STEPS}

    def samples_needed(self, max_samples: int) -> int:
        """See [`AugmentationStep.samples_needed`]: the samples that the fastest speed turns into `max_samples`, and a few more."""
        # The filter of the resampling reaches over a few samples of the block that the last one is in.
        return math.ceil(max_samples * (1 + self.max_speed_change)) + 2 * SPEED_STEPS

    def change_heard(self, clip: TrainingClip, drawn: dict) -> TrainingClip:
        """See [`AugmentationStep.change_heard`]: plays a clip at the speed that was drawn."""
        if drawn["factor"] == 1:
            return clip
        return clip._replace(waveform=change_speed(clip.waveform, drawn["factor"]))


def change_speed(waveform: np.ndarray, speed: float) -> np.ndarray:
    """Play a clip faster or slower, which moves pitch and tempo together.

    Args:
        waveform (`np.ndarray` of shape `(samples,)`, float32): the clip, at any sampling rate.
        speed (`float`): factor of pitch and tempo, a multiple of 1/100; above 1 the clip gets shorter and higher.

    Returns:
        `np.ndarray` of shape `(samples / speed, rounded up,)`, float32. What a faster clip lacks at its end the caller
        has if it cuts the clip to its length only afterwards.

    Source: Ko et al. 2015, "Audio augmentation for speech recognition".
    """
    return resample(torch.from_numpy(waveform), round(speed * SPEED_STEPS), SPEED_STEPS).numpy()

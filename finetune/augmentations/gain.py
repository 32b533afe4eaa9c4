"""Change of level, against recordings of different loudness; not in the original AST."""

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from .augmentation_step import AugmentationStep, TrainingClip


@dataclass(frozen=True)
class Gain(AugmentationStep):
    """Make a clip, or what mixup made of it, louder or softer: uniformly in dB."""

    name: ClassVar[str] = "gain"
    stream: ClassVar[int] = 4
    strengths: ClassVar[tuple[str, ...]] = ("max_gain_db",)
    sounds_the_same: ClassVar[bool] = True

    max_gain_db: float = field(
        default=0.0,
        metadata={
            "help": "Largest change of level, in dB up or down: against recordings of different loudness; not in the original."
        },
    )

    def draw(self, generator: np.random.Generator, num_clips: int) -> dict:
        """See [`AugmentationStep.draw`]: draws the `"factor"` of the samples."""
        return {"factor": 10 ** (generator.uniform(-1, 1) * self.max_gain_db / 20)}

    def change_waveform(self, clip: TrainingClip, drawn: dict, partner: TrainingClip | None) -> TrainingClip:
        """See [`AugmentationStep.change_waveform`]: multiplies the samples by the factor."""
        return clip._replace(waveform=clip.waveform * np.float32(drawn["factor"]))

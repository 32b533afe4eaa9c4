"""Quiet before and after a clip, against recordings that are cut less closely than those of the training; not in the original AST.

A model that hears only clips which begin with their sound learns where that lies in a spectrogram, and fails where somebody else
pressed the button a tenth of a second earlier.
"""

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import scipy.fft

from .augmentation_step import AugmentationStep, TrainingClip

SOFTEST_DB, LOUDEST_DB = -70.0, -30.0  # of the quiet against the clip: from studios to laptops


@dataclass(frozen=True)
class QuietEnds(AugmentationStep):
    """Put quiet before half of the clips and, independently, after half of them.

    It is a soft noise with the spectrum of the clip itself, so that it has the bandwidth of its recording. What of the clip the model
    does not hear any more, as the quiet before it takes its place, is lost.
    """

    name: ClassVar[str] = "quiet_ends"
    stream: ClassVar[int] = 12
    strengths: ClassVar[tuple[str, ...]] = ("max_quiet_seconds",)

    max_quiet_seconds: float = field(
        default=0.0,
        metadata={
            "help": "Longest quiet before and after a training clip, in seconds; half of the clips get none before, half none after: "
            "against recordings that are cut less closely; not in the original."
        },
    )

    def draw(self, generator: np.random.Generator, num_clips: int) -> dict:
        """See [`AugmentationStep.draw`]: draws the seconds of quiet `"before"` and `"after"`, how many `"db"` it is louder than the
        clip, a negative number, and the `"seed"` of its noise."""
        before, after = np.maximum(generator.uniform(-1, 1, 2), 0) * self.max_quiet_seconds
        return {
            "before": float(before),
            "after": float(after),
            "db": float(generator.uniform(SOFTEST_DB, LOUDEST_DB)),
            "seed": int(generator.integers(2**63 - 1)),
        }

    def samples_heard(self, samples: np.ndarray, sampling_rate: int, drawn: dict) -> np.ndarray:
        """See [`AugmentationStep.samples_heard`]: quiet is added at both ends."""
        ends = [np.round(np.array(drawn[end]) * sampling_rate).astype(samples.dtype) for end in ("before", "after")]
        return samples + sum(ends)

    def change_heard(self, clip: TrainingClip, drawn: dict) -> TrainingClip:
        """See [`AugmentationStep.change_heard`]: puts quiet around the clip."""
        before, after = (round(drawn[end] * clip.sampling_rate) for end in ("before", "after"))
        if not before + after or not len(clip.waveform):
            return clip
        generator = np.random.default_rng(drawn["seed"])
        noise = noise_like(clip.waveform, before + after, generator) * np.float32(10 ** (drawn["db"] / 20))
        return clip._replace(waveform=np.concatenate([noise[:before], clip.waveform, noise[before:]]))


def noise_like(waveform: np.ndarray, length: int, generator: np.random.Generator) -> np.ndarray:
    """Make a steady noise with the power and the spectrum of a clip: its Fourier transform with other phases.

    Args:
        waveform (`np.ndarray` of shape `(samples,)`): the clip.
        length (`int`): samples of the noise; where they are more than the clip's it is repeated.
        generator (`np.random.Generator`): draws the phases.

    Returns:
        `np.ndarray` of shape `(length,)`, float32, without the clip's mean.
    """
    spectrum = scipy.fft.rfft(waveform)  # in single precision, as the waveform
    spectrum[0] = 0
    turns = generator.random(len(spectrum), dtype=np.float32) * np.float32(2 * np.pi)
    noise = scipy.fft.irfft(spectrum * (np.cos(turns) + 1j * np.sin(turns)), len(waveform))
    return np.resize(noise, length).astype(np.float32, copy=False)

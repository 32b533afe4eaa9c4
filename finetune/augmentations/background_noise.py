"""Background noise from recordings of it, at a signal-to-noise ratio that is drawn; not in the original AST.

Source: the additive noises of Snyder et al. 2018, "X-vectors: Robust DNN embeddings for speaker recognition", a method as old as
multi-condition training. Differs from it in that the ratio is drawn between two ends rather than from a list.
"""

from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar

import numpy as np

from modeling_ast.audio import is_silent

from .augmentation_step import AugmentationStep, TrainingClip
from .sound_folder import SoundFolder


@dataclass(frozen=True)
class BackgroundNoise(AugmentationStep):
    """Mix a drawn stretch of a drawn noise into a share of the clips, or of what mixup made of them."""

    name: ClassVar[str] = "background_noise"
    stream: ClassVar[int] = 8
    strengths: ClassVar[tuple[str, ...]] = ("noise_probability",)
    may_be_negative: ClassVar[tuple[str, ...]] = ("min_snr_db", "max_snr_db")
    folder_fields: ClassVar[tuple[str, ...]] = ("noise_dir",)

    noise_dir: str | None = field(
        default=None,
        metadata={
            "help": "Folder of recordings of noise, at any depth, of which stretches are mixed into training clips; not in the "
            "original."
        },
    )
    noise_probability: float = field(
        default=0.5, metadata={"help": "Share of the training clips that get a noise of --noise_dir."}
    )
    min_snr_db: float = field(
        default=0.0, metadata={"help": "Lowest ratio of a clip's power to that of its noise, in dB; may be negative."}
    )
    max_snr_db: float = field(
        default=20.0, metadata={"help": "Highest such ratio; each clip's is drawn uniformly between the two."}
    )

    def __post_init__(self):
        super().__post_init__()
        if self.noise_probability > 1:
            raise ValueError(
                f"noise_probability={self.noise_probability} is a share of the clips. Pass a number from 0 to 1."
            )
        if self.min_snr_db > self.max_snr_db:
            raise ValueError(
                f"min_snr_db={self.min_snr_db:g} is above max_snr_db={self.max_snr_db:g}. Pass the lower one as --min_snr_db."
            )

    @property
    def strengths_given(self) -> list[str]:
        """See [`AugmentationStep.strengths_given`]: off without a folder."""
        return super().strengths_given if self.noise_dir else []

    @cached_property
    def folder(self) -> SoundFolder:
        """The noises."""
        return SoundFolder(self.noise_dir, "noise_dir")

    def folders(self) -> dict[str, SoundFolder]:
        """See [`AugmentationStep.folders`]."""
        return {"noises": self.folder} if self.strengths_given else {}

    def look_at_files(self) -> list[str]:
        """See [`AugmentationStep.look_at_files`]: looks at every header."""
        return [self.folder.in_words("noises")] if self.strengths_given else []

    def draw(self, generator: np.random.Generator, num_clips: int) -> dict:
        """See [`AugmentationStep.draw`]: draws the ratio `"snr_db"`, `None` for a clip that gets no noise; which `"file"`, all
        alike, and the `"place"` in it, both in [0, 1)."""
        is_noisy, level, file, place = generator.random(4).tolist()
        snr_db = self.min_snr_db + level * (self.max_snr_db - self.min_snr_db)
        return {"snr_db": snr_db if is_noisy < self.noise_probability else None, "file": file, "place": place}

    def change_waveform(self, clip: TrainingClip, drawn: dict, partner: TrainingClip | None) -> TrainingClip:
        """See [`AugmentationStep.change_waveform`]: adds the noise to a clip that has one."""
        if drawn["snr_db"] is None:
            return clip
        file = self.folder.files[int(drawn["file"] * len(self.folder.files))]
        noise = file.stretch(drawn["place"], len(clip.waveform), clip.sampling_rate)
        return clip._replace(waveform=mix_in(clip.waveform, noise, drawn["snr_db"]))


def mix_in(waveform: np.ndarray, noise: np.ndarray, snr_db: float) -> np.ndarray:
    """Add noise to a clip, which keeps its level.

    Args:
        waveform (`np.ndarray` of shape `(samples,)`): the clip.
        noise (`np.ndarray` of shape `(samples,)`): at any level.
        snr_db (`float`): ratio of the power of the clip to that of the noise, in dB; each is the variance of all samples, as a
            constant offset is not heard.

    Returns:
        `np.ndarray` of shape `(samples,)`, float32; may go beyond full scale. Of a clip or noise that is silent, see
        [`is_silent`], there is no ratio: the clip stays as it is.
    """
    if is_silent(waveform) or is_silent(noise):
        return waveform
    noise = noise - noise.mean(dtype=np.float64)
    ratio = waveform.var(dtype=np.float64) / np.mean(noise**2)
    return (waveform + noise * np.sqrt(ratio * 10 ** (-snr_db / 10))).astype(np.float32)

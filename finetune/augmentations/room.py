"""The sound of rooms, from their impulse responses; not in the original AST.

Source: Ko et al. 2017, "A study on data augmentation of reverberant speech for robust speech recognition". Differs from it in that
the direct sound keeps its level, where there the clip keeps its power.
"""

from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import ClassVar

import numpy as np
from scipy import fft

from modeling_ast.audio import SILENT, AudioError, AudioReader

from .augmentation_step import AugmentationStep, TrainingClip
from .sound_folder import SoundFile, SoundFolder

LONGEST_RESPONSE = 30.0  # seconds; the reverberation of cathedrals lasts a dozen
LOOKED_AT = 50  # responses that are decoded before a training
KEPT = 64  # responses that stay in the memory of a process


@dataclass(frozen=True)
class Room(AugmentationStep):
    """Let a share of the clips, or of what mixup made of them, sound in a drawn room."""

    name: ClassVar[str] = "room"
    stream: ClassVar[int] = 9
    strengths: ClassVar[tuple[str, ...]] = ("impulse_response_probability",)
    folder_fields: ClassVar[tuple[str, ...]] = ("impulse_response_dir",)

    impulse_response_dir: str | None = field(
        default=None,
        metadata={
            "help": "Folder of impulse responses of rooms, at any depth, with which training clips are convolved; not in the "
            "original."
        },
    )
    impulse_response_probability: float = field(
        default=0.5, metadata={"help": "Share of the training clips that get a room of --impulse_response_dir."}
    )

    def __post_init__(self):
        super().__post_init__()
        if self.impulse_response_probability > 1:
            raise ValueError(
                f"impulse_response_probability={self.impulse_response_probability} is a share of the clips. Pass a number from "
                "0 to 1."
            )

    @property
    def strengths_given(self) -> list[str]:
        """See [`AugmentationStep.strengths_given`]: off without a folder."""
        return super().strengths_given if self.impulse_response_dir else []

    @cached_property
    def folder(self) -> SoundFolder:
        """The impulse responses."""
        return SoundFolder(self.impulse_response_dir, "impulse_response_dir")

    def folders(self) -> dict[str, SoundFolder]:
        """See [`AugmentationStep.folders`]."""
        return {"impulse_responses": self.folder} if self.strengths_given else {}

    def look_at_files(self) -> list[str]:
        """See [`AugmentationStep.look_at_files`]: looks at every header, and decodes some."""
        if not self.strengths_given:
            return []
        files, faults = self.folder.files, []
        self.folder.refuse([_too_long(file) for file in files if file.seconds > LONGEST_RESPONSE])
        for file in files[:: -(-len(files) // LOOKED_AT)]:
            try:
                impulse_response(file.path, AudioReader().sampling_rate)
            except AudioError as error:
                faults.append(str(error))
        self.folder.refuse(faults)
        return [self.folder.in_words("impulse responses")]

    def draw(self, generator: np.random.Generator, num_clips: int) -> dict:
        """See [`AugmentationStep.draw`]: draws which `"file"`, in [0, 1) and all alike; `None` for a clip that gets no room."""
        in_room, file = generator.random(2).tolist()
        return {"file": file if in_room < self.impulse_response_probability else None}

    def change_waveform(self, clip: TrainingClip, drawn: dict, partner: TrainingClip | None) -> TrainingClip:
        """See [`AugmentationStep.change_waveform`]: convolves a clip that has a room."""
        if drawn["file"] is None:
            return clip
        files = self.folder.files
        response, direct = impulse_response(files[int(drawn["file"] * len(files))].path, clip.sampling_rate)
        return clip._replace(waveform=convolve(clip.waveform, response, direct))


def _too_long(file: SoundFile) -> str:
    return (
        f"{file.path} lasts {file.seconds:.0f} s, and no impulse response is longer than {LONGEST_RESPONSE:.0f} s: noises go into "
        "--noise_dir."
    )


@lru_cache(maxsize=KEPT)
def impulse_response(path: str, sampling_rate: int) -> tuple[np.ndarray, int]:
    """Read an impulse response.

    Args:
        path (`str`): its file, of which the first channel is read: a mean of two ears would be the sound of neither.
        sampling_rate (`int`): to which it is converted, in Hz.

    Returns:
        Samples of shape `(samples,)`, float32, of which the direct sound, the largest by magnitude, is 1; and its place.

    Raises:
        AudioError: if it cannot be decoded, holds NaN or is silent.
    """
    reader = AudioReader(sampling_rate, channels=1, refused=frozenset({SILENT}))
    response = reader.hear(path, max_samples=int(LONGEST_RESPONSE * sampling_rate)).waveform
    direct = int(np.abs(response).argmax())
    if not response[direct]:
        raise AudioError(f"{path} is silent. Leave it out.")
    return response / response[direct], direct


def convolve(waveform: np.ndarray, response: np.ndarray, direct: int) -> np.ndarray:
    """Convolve a clip with an impulse response.

    Args:
        waveform (`np.ndarray` of shape `(samples,)`): the clip.
        response (`np.ndarray` of shape `(taps,)`): of a room.
        direct (`int`): place of its direct sound, before which a sound of the clip does not move.

    Returns:
        `np.ndarray` of shape `(samples,)`, float32: reverberation that outlasts the clip is cut off.
    """
    response = response[: direct + len(waveform)]
    size = fft.next_fast_len(len(waveform) + len(response) - 1, real=True)
    whole = fft.irfft(fft.rfft(waveform, size) * fft.rfft(response, size), size)
    return whole[direct : direct + len(waveform)].astype(np.float32)

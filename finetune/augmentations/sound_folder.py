"""Folders of noises or impulse responses: which files they hold, what those are, and a stretch of one without the rest of it."""

import hashlib
import math
import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from modeling_ast.audio import AudioError, AudioReader, audio_duration, find_audio_files, resample
from modeling_ast.audio.excerpts import layout_of_format

FAULTS_SHOWN = 5


@dataclass(frozen=True)
class SoundFile:
    """A file that stretches are read of.

    Args:
        path (`str`): where it is.
        seconds (`float`): how long it is.
        samples (`int`, *optional*): how many samples it has at `sampling_rate`; `None` if libsndfile cannot seek in it.
        sampling_rate (`int`, *optional*): its own, in Hz, likewise.
    """

    path: str
    seconds: float
    samples: int | None = None
    sampling_rate: int | None = None

    def stretch(self, place: float, length: int, sampling_rate: int) -> np.ndarray:
        """Read a stretch, without decoding what stands before it where libsndfile can seek.

        Args:
            place (`float`): in [0, 1): where it begins, among all places at which it fits into the file. A file that is
                shorter than it begins there and is repeated.
            length (`int`): samples of the stretch.
            sampling_rate (`int`): of these, in Hz.

        Returns:
            `np.ndarray` of shape `(length,)`, float32: the mean of all channels.

        Raises:
            AudioError: if it cannot be decoded, or holds NaN.
        """
        rate = self.sampling_rate or sampling_rate
        samples = self.samples or max(1, int(self.seconds * rate))
        wanted = math.ceil(length * rate / sampling_rate)
        first = 0 if samples < wanted else int(place * (samples - wanted + 1))
        decoded = self._decoded(first, min(wanted, samples), rate)
        if not np.isfinite(decoded).all():
            raise AudioError(f"{self.path} holds NaN or infinity. Write it anew, or leave it out.")
        heard = resample(decoded, rate, sampling_rate)
        if samples < wanted:
            return np.resize(np.roll(heard, -int(place * len(heard))), length)
        return heard[:length] if len(heard) >= length else np.resize(heard, length)

    def _decoded(self, first: int, count: int, rate: int) -> np.ndarray:
        """Samples of one channel, at least one."""
        found = self._sought(first, count) if self.samples else self._streamed(first, count, rate)
        if not len(found):
            raise AudioError(
                f"{self.path} ends before {first / rate:.1f} s, where it should hold sound. Leave it out."
            )
        return found

    def _sought(self, first: int, count: int) -> np.ndarray:
        import soundfile

        try:
            with soundfile.SoundFile(self.path) as file:
                place = layout_of_format(file.format, self.samples, file.samplerate).place_before(first)
                file.seek(place)
                found = file.read(first - place + count, dtype="float32", always_2d=True)
                return np.ascontiguousarray(found[first - place :].mean(axis=1))
        except (OSError, soundfile.SoundFileError) as error:
            raise AudioError(f"{self.path} cannot be decoded at {first} samples: {error}. Leave it out.") from error

    def _streamed(self, first: int, count: int, rate: int) -> np.ndarray:
        """What only FFmpeg reads is decoded from its beginning, block by block."""
        return AudioReader(rate).stream(self.path).heard_by(lambda: _Part(first, count), _Part.take).samples()


class _Part:
    """Samples `first` to `first + count` of blocks, fewer where these end before."""

    def __init__(self, first: int, count: int):
        self.first, self.end, self.begin, self.parts = first, first + count, 0, [np.empty(0, np.float32)]

    def take(self, block: np.ndarray) -> bool:
        self.parts.append(block[0][max(0, self.first - self.begin) : max(0, self.end - self.begin)])
        self.begin += block.shape[1]
        return self.begin >= self.end

    def samples(self) -> np.ndarray:
        return np.concatenate(self.parts)


@dataclass(frozen=True)
class SoundFolder:
    """The audio files of a folder and of those below it.

    Args:
        path (`str`): the folder, or a single file.
        flag (`str`): the field that names it, for messages.
    """

    path: str
    flag: str

    @cached_property
    def paths(self) -> list[str]:
        """Of its files, sorted.

        Raises:
            AudioError: if there is no such folder, or no audio file in it.
        """
        try:
            return [str(path) for path in find_audio_files(self.path)]
        except AudioError as error:
            raise AudioError(f"--{self.flag} {self.path} gives no sounds. {error}") from error

    @cached_property
    def files(self) -> list[SoundFile]:
        """What is known of its files by their headers.

        Raises:
            AudioError: if one cannot be used; the message names the first of them.
        """
        files, faults = [], []
        for path in self.paths:
            try:
                files.append(_looked_at(path))
            except AudioError as error:
                faults.append(str(error))
        self.refuse(faults)
        return files

    def refuse(self, faults: list[str]):
        """Refuse files in one message.

        Args:
            faults (`list[str]`): why each cannot be used.

        Raises:
            AudioError: if there are any.
        """
        if faults:
            more = f" And {len(faults) - FAULTS_SHOWN} more." if len(faults) > FAULTS_SHOWN else ""
            raise AudioError(
                f"{len(faults)} of {len(self.paths)} files of --{self.flag} {self.path} cannot be used. "
                f"{' '.join(faults[:FAULTS_SHOWN])}{more} Mend or remove them."
            )

    def recorded(self) -> dict:
        """Tell these sounds from others, wherever they lie.

        Returns:
            `dict`: number of `files`, and `sha256` over their names within the folder and their sizes.
        """
        digest = hashlib.sha256()
        for path in self.paths:
            name = os.path.relpath(path, self.path) if os.path.isdir(self.path) else os.path.basename(path)
            digest.update(os.fsencode(Path(name).as_posix()) + f"\0{os.path.getsize(path)}\0".encode())
        return {"files": len(self.paths), "sha256": digest.hexdigest()}

    def in_words(self, kind: str) -> str:
        """Say what it holds.

        Args:
            kind (`str`): of sound, in the plural.

        Returns:
            Words.
        """
        return f"{kind}: {len(self.files)} file(s), {lasting(file.seconds for file in self.files)}, in {self.path}"


def lasting(seconds: Iterable[float]) -> str:
    """Write how long several files last together.

    Args:
        seconds (iterable of `float`): of each.

    Returns:
        Words.
    """
    total = sum(seconds)
    return f"{total / 3600:.1f} h" if total >= 3600 else f"{total / 60:.1f} min" if total >= 60 else f"{total:.1f} s"


def _looked_at(path: str) -> SoundFile:
    import soundfile

    try:
        with soundfile.SoundFile(path) as file:
            # A FLAC file that was cut off while it was written announces 2^63 samples.
            if 0 < file.frames < 1 << 62 and file.samplerate and file.seekable():
                return SoundFile(path, file.frames / file.samplerate, file.frames, file.samplerate)
    except (OSError, soundfile.SoundFileError):
        pass  # perhaps FFmpeg reads it
    seconds = audio_duration(path)
    if not seconds:
        raise AudioError(f"{path} holds no sound.")
    return SoundFile(path, seconds)

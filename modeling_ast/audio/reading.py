"""Decode audio files to mono float32 waveforms at one sampling rate.

`soundfile` decodes WAV, FLAC, OGG and MP3 on a bare machine; what it cannot read goes to torchcodec, which needs FFmpeg's
libraries. Stock Transformers' pipeline decodes with the `ffmpeg` program instead; channels are averaged and rates
converted here as they are there.
"""

import io
import logging
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from .errors import CHECK_SPELLING, AudioError, AudioNote, MissingAudioError
from .resampling import DEFAULT_RESAMPLER, resample

logger = logging.getLogger(__name__)

SECONDS_BEYOND = 60.0  # that a file is decoded beyond what is asked for, if it lasts that long
SMALLEST_BYTE_RATE = 500  # a second, far below that of any music or speech; smaller files are not that long
UNKNOWN_WAV_SIZE = 0x7FFF_0000  # sox writes 0x7ffff000 and less a header, FFmpeg 0xffffffff
SOUNDFILE_FORMATS = frozenset(("WAV", "FLAC", "OGG", "MP3", "AIFF", "CAF"))

FFMPEG_COMMANDS = {
    "Debian, Ubuntu": "sudo apt-get install ffmpeg",
    "macOS": "brew install ffmpeg",
    "conda": "conda install -c conda-forge ffmpeg",
}

# (offset, first bytes, format), from the formats' own specifications.
_SIGNATURES = (
    (0, b"RIFF", "WAV"),
    (0, b"RF64", "WAV"),
    (0, b"fLaC", "FLAC"),
    (0, b"OggS", "OGG"),
    (0, b"ID3", "MP3"),
    (0, b"\xff\xfb", "MP3"),
    (0, b"\xff\xf3", "MP3"),
    (0, b"\xff\xf2", "MP3"),
    (0, b"\xff\xf1", "AAC"),
    (0, b"\xff\xf9", "AAC"),
    (4, b"ftyp", "MP4/M4A"),
    (0, b"FORM", "AIFF"),
    (0, b"caff", "CAF"),
    (0, b"\x1a\x45\xdf\xa3", "WebM/Matroska"),
    (0, b"\x30\x26\xb2\x75", "WMA"),
    (0, b"#!AMR", "AMR"),
    (0, b"wvpk", "WavPack"),
)


class _FFmpegMissingError(Exception):
    """torchcodec is unusable because FFmpeg's libraries cannot be loaded."""


@dataclass(frozen=True)
class DecodedAudio:
    """What a file holds, as it is.

    Args:
        samples (`np.ndarray` of shape `(samples, channels)`): float32, full scale at -1 and 1.
        sampling_rate (`int`): in Hz.
        notes (`tuple[AudioNote, ...]`): what of the file was not heard, and what its header says wrongly.
    """

    samples: np.ndarray
    sampling_rate: int
    notes: tuple[AudioNote, ...] = ()


@dataclass(frozen=True)
class Heard:
    """A file as a model hears it.

    Args:
        waveform (`np.ndarray` of shape `(samples,)`): mono float32, full scale at -1 and 1.
        notes (`tuple[AudioNote, ...]`): what the user should know about it.
    """

    waveform: np.ndarray
    notes: tuple[AudioNote, ...] = ()


@dataclass(frozen=True)
class AudioReader:
    """How files become the waveforms of a model; see also [`ASTFeatureExtractor.audio_reader`].

    Args:
        sampling_rate (`int`, *optional*, defaults to 16000): of the waveforms, in Hz.
        channels (`str` or `int`, *optional*, defaults to `"mean"`): which channels are heard: the `"mean"` of all,
            `"left"`, `"right"`, or the number of one, counted from 1.
        resampler (`str`, *optional*, defaults to `"torchaudio"`): see [`resample`].
        refused (`frozenset[str]`, *optional*): kinds of notes that are errors, such as `frozenset({CUT_OFF})`.
    """

    sampling_rate: int = 16_000
    channels: str | int = "mean"
    resampler: str = DEFAULT_RESAMPLER
    refused: frozenset[str] = frozenset()

    def hear(
        self,
        source: str | os.PathLike | bytes | BinaryIO | dict,
        name: str | None = None,
        max_samples: int | None = None,
    ) -> Heard:
        """Decode an audio file, make one channel of its channels and convert its sampling rate.

        Args:
            source, name, max_samples: see [`read_audio`].

        Raises:
            AudioError, TypeError: see [`read_audio`]; also for what is `refused`.
        """
        seconds = None if max_samples is None else max_samples / self.sampling_rate
        name = name or _name_of(source)
        decoded = decode_audio(source, name, seconds)
        waveform = decoded.samples.mean(axis=1)  # (samples,)
        if waveform.size == 0:
            raise AudioError(
                f"{name} is an audio file without a single sample. Record or export it again, or leave it out."
            )
        if not np.isfinite(waveform).all():
            raise AudioError(f"{name} contains NaN or infinite samples. Export it again, for example as 16-bit WAV.")
        for note in decoded.notes:
            if note.kind in self.refused:
                raise AudioError(note.text)
        return Heard(resample(waveform, decoded.sampling_rate, self.sampling_rate, self.resampler), decoded.notes)

    def read(
        self,
        source: str | os.PathLike | bytes | BinaryIO | dict,
        name: str | None = None,
        max_samples: int | None = None,
    ) -> np.ndarray:
        """The waveform of [`AudioReader.hear`]; its notes are logged as warnings."""
        heard = self.hear(source, name, max_samples)
        for note in heard.notes:
            logger.warning(note.text)
        return heard.waveform


def read_audio(
    source: str | os.PathLike | bytes | BinaryIO | dict,
    sampling_rate: int = 16_000,
    name: str | None = None,
    max_samples: int | None = None,
) -> np.ndarray:
    """Decode an audio file, average its channels and resample it; [`AudioReader`] has more settings.

    Args:
        source (`str`, `os.PathLike`, `bytes`, file object or `dict`):
            Path of an audio file, the content of one, a file object opened for reading bytes, or the dictionary
            `{"bytes": ..., "path": ...}` that a `datasets` column gives when it is cast to `Audio(decode=False)`.
        sampling_rate (`int`, *optional*, defaults to 16000):
            Sampling rate of the result in Hz.
        name (`str`, *optional*):
            What messages call the file; by default its path, where there is one.
        max_samples (`int`, *optional*):
            How many samples of the result are of interest. A file that lasts a minute longer is decoded only up to
            there, so that one of hours costs little time and memory; shorter ones come whole.

    Returns:
        `np.ndarray` of shape `(samples,)` and type float32: mono, full scale at -1 and 1. What of the file was not heard
        is logged as a warning.

    Raises:
        AudioError: if there is no such file, it is empty or cannot be decoded, no decoder for its format is installed, or
            its samples are not finite.
        TypeError: if `source` is of another type.
    """
    return AudioReader(sampling_rate).read(source, name, max_samples)


def _name_of(source) -> str | None:
    """What messages call a file by itself; `None` if it is known when it is read."""
    path = source.get("path") if isinstance(source, dict) else source
    return str(path) if isinstance(path, (str, os.PathLike)) else None


def _beginning_of_long(source, seconds: float) -> tuple[np.ndarray, int] | None:
    """The beginning of a file that lasts much longer than that, as of [`decode_audio`]; `None` of all others."""
    import soundfile

    path = source.get("path") if isinstance(source, dict) and source.get("bytes") is None else source
    # So much is decoded that resampling gives, bit for bit, what it gives of the whole file.
    seconds += SECONDS_BEYOND
    if not isinstance(path, (str, os.PathLike)) or not os.path.isfile(path):
        return None
    if os.path.getsize(path) < seconds * SMALLEST_BYTE_RATE:
        return None
    try:
        with soundfile.SoundFile(os.fspath(path)) as file:
            wanted = round(seconds * file.samplerate)
            if file.frames <= wanted:
                return None
            return file.read(wanted, dtype="float32", always_2d=True), file.samplerate
    except soundfile.SoundFileError:  # decoded another way, or refused in words, as a whole
        return None


def decode_audio(
    source: str | os.PathLike | bytes | BinaryIO | dict, name: str | None = None, seconds: float | None = None
) -> DecodedAudio:
    """Decode an audio file as it is, with all its channels and at its own sampling rate.

    Args:
        source, name: see [`read_audio`].
        seconds (`float`, *optional*): how much of it is of interest; of a file that lasts much longer no more than a
            minute beyond is decoded.

    Returns:
        [`DecodedAudio`], whose samples may be none or not finite.

    Raises:
        AudioError, TypeError: see [`read_audio`].
    """
    beginning = None if seconds is None else _beginning_of_long(source, seconds)
    if beginning is not None:
        return DecodedAudio(*beginning)
    content, name = _read_bytes(source, name)
    _refuse_cut_off_wav(content, name)
    return DecodedAudio(*_decode(content, name))


def audio_duration(source: str | os.PathLike | bytes | BinaryIO | dict) -> float:
    """How long an audio file lasts, told from its header where that says it.

    Args:
        source: see [`read_audio`].

    Returns:
        Seconds.

    Raises:
        AudioError, TypeError: see [`read_audio`].
    """
    import soundfile

    path = source.get("path") if isinstance(source, dict) and source.get("bytes") is None else source
    if isinstance(path, (str, os.PathLike)) and os.path.isfile(path):  # the header alone is read
        header, content = os.fspath(path), None
    else:
        content, name = _read_bytes(source, None)
        header = io.BytesIO(content)
    try:
        return soundfile.info(header).duration
    except soundfile.SoundFileError:
        if content is None:
            content, name = _read_bytes(source, None)
        seconds = _seconds_from_header(content)
        if seconds is not None:
            return seconds
        samples, file_rate = _decode(content, name)
        return len(samples) / file_rate


def _seconds_from_header(content: bytes) -> float | None:
    """What FFmpeg reads of a file's length without decoding it; `None` if that is not there or cannot be read."""
    try:
        from torchcodec.decoders import AudioDecoder

        return AudioDecoder(content).metadata.duration_seconds_from_header
    except (ImportError, OSError, RuntimeError, ValueError):  # decoding says in words what is wrong
        return None


def _read_bytes(source, name: str | None) -> tuple[bytes, str]:
    """Fetch the encoded file, which is not empty, and the name for messages about it."""
    content, name = _fetch_bytes(source, name)
    if not content:
        raise AudioError(f"{name} is empty (0 bytes). Copy or download it again, or leave it out.")
    return content, name


def _fetch_bytes(source, name: str | None) -> tuple[bytes, str]:
    if isinstance(source, dict):
        content, path = source.get("bytes"), source.get("path")
        if content is None and path is None:
            raise AudioError(
                f"{name or 'The audio'} is a dictionary with keys {sorted(source)} and neither 'bytes' nor 'path' is set. "
                "Cast the column with datasets.Audio(decode=False)."
            )
        return _fetch_bytes(path if content is None else content, name or path)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return bytes(source), name or "The audio given as bytes"
    if hasattr(source, "read"):
        return source.read(), str(name or getattr(source, "name", "The audio given as a file object"))
    if not isinstance(source, (str, os.PathLike)):
        raise TypeError(
            f"cannot read audio from {type(source).__name__}; pass a path, bytes, a file object or the dictionary of a "
            "data set column cast with datasets.Audio(decode=False)"
        )
    path = Path(source)
    if path.is_dir():
        raise AudioError(f"{path} is a folder. Pass the audio files in it.")
    try:
        return path.read_bytes(), name or str(path)
    except FileNotFoundError:
        looked_for = "" if path.is_absolute() else f", looked for as {path.absolute()}"
        raise MissingAudioError(f"There is no file {path}{looked_for}. {CHECK_SPELLING}") from None
    except OSError as error:
        raise AudioError(f"{path} cannot be read: {error.strerror}.") from error


def _refuse_cut_off_wav(content: bytes, name: str):
    """Compare what a WAV file says of its length with what is there: libsndfile reads half a download without a word."""
    if content[:4] != b"RIFF" or content[8:12] != b"WAVE":
        return
    offset = 12
    while offset + 8 <= len(content):
        chunk, size = struct.unpack_from("<4sI", content, offset)
        if chunk == b"data":
            present = len(content) - offset - 8
            # Programs that write to a pipe cannot know the size and put 0 or a huge number there.
            if present < size < UNKNOWN_WAV_SIZE:
                raise AudioError(
                    f"{name} is cut off: {present} of its {size} bytes of samples are there. Copy or download it again."
                )
            return
        offset += 8 + size + size % 2  # chunks are padded to even sizes


def _decode(content: bytes, name: str) -> tuple[np.ndarray, int]:
    """Decode with soundfile, then with torchcodec.

    Returns:
        The samples as float32 of shape `(samples, channels)`, and their sampling rate in Hz.
    """
    import soundfile

    try:
        return soundfile.read(io.BytesIO(content), dtype="float32", always_2d=True)
    except soundfile.SoundFileError as error:
        # The text of an error about a stream begins with the stream's address; what went wrong comes last.
        soundfile_words = str(error).rpartition(">: ")[2].rstrip(".")

    audio_format = _sniff_format(content)
    if audio_format is None and _looks_like_text(content):
        raise AudioError(
            f"{name} holds text, not audio; it begins with {content[:40]!r}. A web page or a Git LFS pointer saved under "
            "an audio file's name looks like that: download the file again."
        )
    suffix = Path(name).suffix
    described = f"{name} ({audio_format or f'unknown format, suffix {suffix!r}'})"
    try:
        return _decode_with_torchcodec(content)
    except _FFmpegMissingError as error:
        if audio_format in SOUNDFILE_FORMATS:
            raise AudioError(
                f"{described} cannot be decoded: soundfile says '{soundfile_words}'. The file is probably damaged: export or "
                "download it again. (An unusual codec within it would need FFmpeg; ast-doctor shows whether it is there.)"
            ) from error
        commands = "; ".join(f"{system}: {command}" for system, command in FFMPEG_COMMANDS.items())
        raise AudioError(
            f"{described} cannot be decoded: soundfile says '{soundfile_words}', and torchcodec, which reads what "
            f"soundfile cannot, finds no FFmpeg libraries. Install FFmpeg ({commands}) or convert the file to WAV or "
            "FLAC. If FFmpeg is installed, ast-doctor shows what is wrong with it."
        ) from error
    except (RuntimeError, ValueError) as error:
        raise AudioError(
            f"{described} cannot be decoded: soundfile says '{soundfile_words}', torchcodec says "
            f"'{_first_line(error)}'. The file is probably damaged or not audio: export or download it again."
        ) from error


def _decode_with_torchcodec(content: bytes) -> tuple[np.ndarray, int]:
    """Decode with FFmpeg's libraries; see [`_decode`] for what is returned."""
    try:
        from torchcodec.decoders import AudioDecoder
    except (ImportError, OSError, RuntimeError) as error:  # torchcodec not installed, or built for another torch
        raise _FFmpegMissingError(_first_line(error)) from error
    try:
        samples = AudioDecoder(content).get_all_samples()
    except RuntimeError as error:
        # torchcodec 0.17 imports without FFmpeg and fails at the first decoder, with no error class of its own.
        if "Could not load libtorchcodec" in str(error):
            raise _FFmpegMissingError(_first_line(error)) from error
        raise
    return samples.data.numpy().T, samples.sample_rate  # (samples, channels)


def _sniff_format(content: bytes) -> str | None:
    """Name the format by its first bytes, which say more than a suffix does."""
    for offset, signature, audio_format in _SIGNATURES:
        if content.startswith(signature, offset):
            return audio_format
    return None


def _looks_like_text(content: bytes) -> bool:
    return all(byte >= 32 or byte in b"\t\n\r" for byte in content[:512])


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]

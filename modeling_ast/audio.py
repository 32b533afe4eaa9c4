"""Decode audio files to mono float32 waveforms at one sampling rate.

`soundfile` decodes WAV, FLAC, OGG and MP3 on a bare machine; what it cannot read goes to torchcodec, which needs FFmpeg's
libraries. Stock Transformers' pipeline decodes with the `ffmpeg` program instead; channels are averaged and rates
converted here as they are there.
"""

import io
import os
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

import numpy as np

# fmt: off
AUDIO_SUFFIXES = frozenset((
    ".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".m4a", ".m4b", ".mp4", ".aac", ".aif", ".aiff", ".aifc", ".au",
    ".snd", ".caf", ".w64", ".rf64", ".wma", ".webm", ".mka", ".amr", ".3gp", ".ac3", ".wv", ".ape",
))
# fmt: on

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


CHECK_SPELLING = "Check the spelling."


class AudioError(ValueError):
    """A file that cannot be used as audio; the message names the file and says what to do about it."""


class MissingAudioError(AudioError):
    """A file that is not there; the message ends with [`CHECK_SPELLING`]."""


class _FFmpegMissingError(Exception):
    """torchcodec is unusable because FFmpeg's libraries cannot be loaded."""


def read_audio(
    source: str | os.PathLike | bytes | BinaryIO | dict,
    sampling_rate: int = 16_000,
    name: str | None = None,
    max_samples: int | None = None,
) -> np.ndarray:
    """Decode an audio file, average its channels and resample it.

    Args:
        source (`str`, `os.PathLike`, `bytes`, file object or `dict`):
            Path of an audio file, the content of one, a file object opened for reading bytes, or the dictionary
            `{"bytes": ..., "path": ...}` that a `datasets` column gives when it is cast to `Audio(decode=False)`.
        sampling_rate (`int`, *optional*, defaults to 16000):
            Sampling rate of the result in Hz.
        name (`str`, *optional*):
            What error messages call the file; by default its path, where there is one.
        max_samples (`int`, *optional*):
            How many samples of the result are of interest. A file that lasts a minute longer is decoded only up to
            there, so that one of hours costs little time and memory; shorter ones come whole.

    Returns:
        `np.ndarray` of shape `(samples,)` and type float32: mono, full scale at -1 and 1.

    Raises:
        AudioError: if there is no such file, it is empty, cannot be decoded or is a WAV that was cut off, no decoder
            for its format is installed, or its samples are not finite.
        TypeError: if `source` is of another type.

    Source: `torchaudio.functional.resample` with its defaults, as in the audio classification pipeline of Transformers.
    """
    beginning = None if max_samples is None else _beginning_of_long(source, max_samples / sampling_rate)
    if beginning is None:
        content, name = _read_bytes(source, name)
        samples, file_rate = decode_audio(content, name)  # (samples, channels)
    else:
        samples, file_rate = beginning
        name = name or str(source["path"] if isinstance(source, dict) else source)
    waveform = samples.mean(axis=1)  # (samples,)
    if waveform.size == 0:
        raise AudioError(
            f"{name} is an audio file without a single sample. Record or export it again, or leave it out."
        )
    if not np.isfinite(waveform).all():
        raise AudioError(f"{name} contains NaN or infinite samples. Export it again, for example as 16-bit WAV.")
    if file_rate != sampling_rate:
        import torch
        from torchaudio.functional import resample

        waveform = resample(torch.from_numpy(waveform), file_rate, sampling_rate).numpy()
    return waveform


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
) -> tuple[np.ndarray, int]:
    """Decode an audio file as it is, with all its channels and at its own sampling rate.

    Args:
        source, name: see [`read_audio`].
        seconds (`float`, *optional*): how much of it is of interest; of a file that lasts much longer no more than a
            minute beyond is decoded.

    Returns:
        Samples of shape `(samples, channels)`, float32, and their sampling rate in Hz. They may be none or not finite.

    Raises:
        AudioError, TypeError: see [`read_audio`].
    """
    beginning = None if seconds is None else _beginning_of_long(source, seconds)
    if beginning is not None:
        return beginning
    content, name = _read_bytes(source, name)
    _refuse_cut_off_wav(content, name)
    return _decode(content, name)


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


def find_audio_files(paths: str | os.PathLike | Iterable[str | os.PathLike]) -> list[Path]:
    """List audio files: files as they are given, and what the folders among `paths` hold at any depth.

    Args:
        paths (`str`, `os.PathLike` or an iterable of them):
            Files, taken whatever their suffix, and folders, searched for the suffixes in `AUDIO_SUFFIXES`.

    Returns:
        Each file once, in the order of `paths`, a folder's files sorted; hidden files and folders are left out.

    Raises:
        AudioError: if a path does not exist or a folder holds no audio file.
    """
    files = []
    for path in map(Path, [paths] if isinstance(paths, (str, os.PathLike)) else paths):
        if not path.exists():
            raise AudioError(f"There is no file or folder {path} (looked in {Path.cwd()}). Check the spelling.")
        if not path.is_dir():
            files.append(path)
            continue
        found = sorted(
            file for file in path.rglob("*") if _is_visible_audio(file.relative_to(path)) and file.is_file()
        )
        if not found:
            raise AudioError(
                f"{path} and the folders below it hold no audio file. Looked for names ending in "
                f"{' '.join(sorted(AUDIO_SUFFIXES))}; a file with another ending must be named itself."
            )
        files.extend(found)
    return list(dict.fromkeys(files))


def _is_visible_audio(path: Path) -> bool:
    return path.suffix.lower() in AUDIO_SUFFIXES and not any(part.startswith(".") for part in path.parts)


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

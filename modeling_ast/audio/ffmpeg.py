"""Decoding by FFmpeg: its libraries through torchcodec, and its program where these do not give all that is there."""

import os
import shutil
import subprocess
from dataclasses import dataclass

import numpy as np

from ..atomic_files import temporary_folder
from .content import BytesContent, Content
from .errors import first_line
from .sample_regions import sample_region

FFMPEG_COMMANDS = {
    "Debian, Ubuntu": "sudo apt-get install ffmpeg",
    "macOS": "brew install ffmpeg",
    "conda": "conda install -c conda-forge ffmpeg",
}


class FFmpegMissingError(Exception):
    """torchcodec is unusable because FFmpeg's libraries cannot be loaded."""


class FFmpegError(Exception):
    """FFmpeg cannot decode a file; the message says why in its words."""


@dataclass(frozen=True)
class FFmpegSamples:
    """What FFmpeg makes of a file.

    Args:
        samples (`np.ndarray` of shape `(samples, channels)`): float32.
        sampling_rate (`int`): in Hz.
        announced (`float`, *optional*): seconds that its container announces.
        complaint (`str`, *optional*): the first error that it met and passed over.
    """

    samples: np.ndarray
    sampling_rate: int
    announced: float | None = None
    complaint: str | None = None

    @property
    def seconds(self) -> float:
        """How long the samples last."""
        return len(self.samples) / self.sampling_rate


def decode_with_torchcodec(content: Content) -> FFmpegSamples:
    """Decode with FFmpeg's libraries.

    Raises:
        FFmpegMissingError: if they cannot be loaded.
        FFmpegError: if they cannot decode it, or fail in its middle.
    """
    decoder = _torchcodec_decoder(content)
    try:
        samples = decoder.get_all_samples()
    except (RuntimeError, ValueError) as error:
        raise FFmpegError(first_line(error)) from error
    announced = decoder.metadata.duration_seconds_from_header
    return FFmpegSamples(samples.data.numpy().T, samples.sample_rate, announced)


def announced_seconds(content: Content) -> float | None:
    """How long a file lasts by its container's word; `None` if that is not there or cannot be read."""
    try:
        return _torchcodec_decoder(content).metadata.duration_seconds_from_header
    except (FFmpegMissingError, FFmpegError):  # decoding says in words what is wrong
        return None


def begin_seconds(content: Content) -> float:
    """At which second of its container's time a file's audio begins; 0 if that is not there or cannot be read."""
    try:
        return max(0.0, _torchcodec_decoder(content).metadata.begin_stream_seconds_from_header or 0.0)
    except (FFmpegMissingError, FFmpegError):
        return 0.0


def _torchcodec_decoder(content: Content):
    try:
        from torchcodec.decoders import AudioDecoder
    except (ImportError, OSError, RuntimeError) as error:  # torchcodec not installed, or built for another torch
        raise FFmpegMissingError(first_line(error)) from error
    try:
        return AudioDecoder(content.path or content.read(0, content.size))
    except (RuntimeError, ValueError) as error:
        # torchcodec 0.17 imports without FFmpeg and fails at the first decoder, with no error class of its own.
        if "Could not load libtorchcodec" in str(error):
            raise FFmpegMissingError(first_line(error)) from error
        raise FFmpegError(first_line(error)) from error


def has_program() -> bool:
    """Whether the `ffmpeg` program is there."""
    return shutil.which("ffmpeg") is not None


def decode_with_program(content: Content) -> FFmpegSamples:
    """Decode with the `ffmpeg` program, which passes over damaged spots and decodes some files that torchcodec does not.

    Raises:
        FFmpegError: if nothing could be decoded.
    """
    if content.path is None:
        # Some containers cannot be read from a pipe.
        with temporary_folder("ast-kit") as folder:
            with open(folder / "audio", "wb") as file:
                for offset in range(0, content.size, 1 << 24):
                    file.write(content.read(offset, 1 << 24))
            return _run_program(file.name)
    return _run_program(os.path.abspath(content.path))


def _run_program(path: str) -> FFmpegSamples:
    command = ["ffmpeg", "-nostdin", "-v", "error", "-protocol_whitelist", "file,pipe", "-i", f"file:{path}"]
    command += ["-map", "0:a:0", "-c:a", "pcm_f32le", "-f", "wav", "-"]
    finished = subprocess.run(command, capture_output=True, check=False)
    complaint = finished.stderr.decode(errors="replace").replace(f"file:{path}: ", "").strip()
    written = BytesContent(finished.stdout)
    region = sample_region(written)
    if region is None or not region.size:
        raise FFmpegError(first_line(complaint) if complaint else f"ffmpeg ended with {finished.returncode}")
    channels = int.from_bytes(region.format_chunk[2:4], "little")
    sampling_rate = int.from_bytes(region.format_chunk[4:8], "little")
    count = region.size // (4 * channels)
    samples = np.frombuffer(finished.stdout, dtype="<f4", count=count * channels, offset=region.offset)
    return FFmpegSamples(
        samples.reshape(count, channels), sampling_rate, complaint=first_line(complaint) if complaint else None
    )

"""Decoding by FFmpeg: its libraries through torchcodec, and its program where these do not give all that is there.

The program is called in place of `torchcodec.decoders.AudioDecoder` where that gives less than the container announces, as
of damaged files and of streams whose rate changes.
"""

import math
import os
import selectors
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import numpy as np

from ..system.atomic_files import temporary_folder
from .content import BytesContent, Content
from .errors import first_line
from .limits import Allowance
from .sample_regions import sample_region

FFMPEG_COMMANDS = {
    "Debian, Ubuntu": "sudo apt-get install ffmpeg",
    "macOS": "brew install ffmpeg",
    "conda": "conda install -c conda-forge ffmpeg",
}


LONGEST_PAUSE = 60.0  # seconds that the ffmpeg program may give nothing, as where it looks for an index on a slow disk
PIECE = 1 << 20  # bytes
# Seconds into the next frame, of containers that count milliseconds; frames are longer.
BETWEEN_FRAMES = 0.001
UNEVEN_TIMES = 0.0015  # seconds by which rounded times of two pieces may be apart; a lost or doubled frame is more
NO_FRAMES = "No audio frames were decoded"  # in torchcodec's words
_TORCHCODEC_ERRORS = (AssertionError, LookupError, RuntimeError, TypeError, ValueError)  # over what a file says


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


def decode_with_torchcodec(
    content: Content, allowance: Allowance, by_time: bool, seconds: float | None
) -> FFmpegSamples:
    """Decode with FFmpeg's libraries.

    They end by the times that a container gives, which may be untrue. Where somebody set limits, the `ffmpeg` program,
    if it is there, counts the samples first.

    Args:
        content ([`Content`]): the file.
        allowance ([`Allowance`]): what it may become.
        by_time (`bool`): whether the times in it go on from its beginning without a jump, so that decoding can end at one.
        seconds (`float`, *optional*): how much of its beginning is wanted; all if not given.

    Returns:
        [`FFmpegSamples`].

    Raises:
        FFmpegMissingError: if they cannot be loaded.
        FFmpegError: if they cannot decode it, or fail in its middle.
        TooMuchError: if it becomes more than it may.
    """
    decoder = _torchcodec_decoder(content)
    if allowance.limits is not None and has_program():
        with suppress(FFmpegError), _as_file(content) as path:  # the same words then, with limits and without
            _run_program(path, str(decoder.stream_index), allowance, kept=PIECE)
    try:
        metadata = decoder.metadata
        channels, rate = metadata.num_channels or 1, metadata.sample_rate or 1
        most, stop = allowance.samples(channels, rate), None
        if by_time:
            begin = max(0.0, metadata.begin_stream_seconds_from_header or 0.0)
            longest = (most + 1) / rate
            stop = begin + (longest if seconds is None else min(seconds, longest))
        samples = decoder.get_samples_played_in_range(stop_seconds=stop)
    except _TORCHCODEC_ERRORS as error:
        raise FFmpegError(first_line(error)) from error
    if samples.data.shape[1] > most:
        raise allowance.error(channels, rate)
    return FFmpegSamples(samples.data.numpy().T, samples.sample_rate, metadata.duration_seconds_from_header)


class FFmpegStream:
    """A file that FFmpeg's libraries decode piece by piece, in whole frames of its codec.

    `AudioDecoder.get_samples_played_in_range` does not do: it cuts within frames, and what it gives of a stretch that begins
    within one is not what the whole has there. What it is made of gives whole frames.

    Args:
        content ([`Content`]): a file with a path.

    Raises:
        FFmpegMissingError: if they cannot be loaded.
        FFmpegError: if they cannot decode it, or not piece by piece.
    """

    def __init__(self, content: Content):
        self._decoder = _torchcodec_decoder(content)
        metadata = self._decoder.metadata
        self.channels, self.sampling_rate = metadata.num_channels or 0, metadata.sample_rate or 0
        self.announced = metadata.duration_seconds_from_header
        try:
            from torchcodec._core import get_frames_by_pts_in_range_audio
        except ImportError as error:
            raise FFmpegError(first_line(error)) from error
        self._frames = get_frames_by_pts_in_range_audio

    def pieces(self, seconds: float) -> Iterator[np.ndarray]:
        """Decode it.

        Args:
            seconds (`float`): about how long a piece is to be.

        Yields:
            Samples of shape `(samples, channels)`, float32.

        Raises:
            FFmpegError: if a piece does not go on where the one before it ended, as where times jump or are rounded, and
                where decoding fails.
        """
        end = None
        while True:
            start = 0.0 if end is None else end + BETWEEN_FRAMES
            piece = self.stretch(start, start + seconds)
            if piece is None:
                if end is None or self.stretch(start, None) is not None:
                    raise FFmpegError("a piece is missing")
                return
            samples, begin = piece
            if end is not None and abs(begin - end) > UNEVEN_TIMES:
                raise FFmpegError("times jump")
            end = begin + samples.shape[1] / self.sampling_rate
            yield samples.numpy().T

    def stretch(self, start: float, stop: float | None) -> tuple | None:
        """Decode the frames that play between two times.

        Args:
            start (`float`): in seconds of the container.
            stop (`float`, *optional*): likewise; the end of the file if not given.

        Returns:
            `torch.Tensor` of shape `(channels, samples)`, and when the first frame plays; `None` if there are none.

        Raises:
            FFmpegError: if decoding fails.
        """
        try:
            samples, begin = self._frames(self._decoder._decoder, start_seconds=start, stop_seconds=stop)
        except _TORCHCODEC_ERRORS as error:
            if NO_FRAMES in str(error):
                return None
            raise FFmpegError(first_line(error)) from error
        return (samples, float(begin)) if samples.shape[1] else None


def announced_seconds(content: Content) -> float | None:
    """Tell how long a file lasts by its container's word.

    Args:
        content ([`Content`]): the file.

    Returns:
        Seconds; `None` if that is not there or cannot be read.
    """
    try:
        return _torchcodec_decoder(content).metadata.duration_seconds_from_header
    except (FFmpegMissingError, FFmpegError):  # decoding says in words what is wrong
        return None


def begin_seconds(content: Content) -> float:
    """Tell when, in its container's time, a file's audio begins.

    Args:
        content ([`Content`]): the file.

    Returns:
        Seconds; 0 if that is not there or cannot be read.
    """
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
    except _TORCHCODEC_ERRORS as error:
        # torchcodec 0.17 imports without FFmpeg and fails at the first decoder, with no error class of its own.
        if "Could not load libtorchcodec" in str(error):
            raise FFmpegMissingError(first_line(error)) from error
        raise FFmpegError(first_line(error)) from error


def has_program() -> bool:
    """Tell whether the `ffmpeg` program is there.

    Returns:
        `bool`.
    """
    return shutil.which("ffmpeg") is not None


def decode_with_program(content: Content, allowance: Allowance) -> FFmpegSamples:
    """Decode with the `ffmpeg` program, which passes over damaged spots and decodes some files that torchcodec does not.

    Args:
        content ([`Content`]): the file.
        allowance ([`Allowance`]): what it may become.

    Returns:
        [`FFmpegSamples`].

    Raises:
        FFmpegError: if nothing could be decoded, or the program stands still.
        TooMuchError: if it becomes more than it may.
    """
    with _as_file(content) as path:
        written, channels, sampling_rate, count, complaint = _run_program(path, "a:0", allowance)
    offset = sample_region(BytesContent(written)).offset
    samples = np.frombuffer(written, dtype="<f4", count=count * channels, offset=offset)
    return FFmpegSamples(
        samples.reshape(count, channels), sampling_rate, complaint=first_line(complaint) if complaint else None
    )


@contextmanager
def _as_file(content: Content) -> Iterator[str]:
    """The path of a content, for a while of a copy: some containers cannot be read from a pipe."""
    if content.path is not None:
        yield os.path.abspath(content.path)
        return
    with temporary_folder("ast-kit") as folder:
        with open(folder / "audio", "wb") as file:
            for offset in range(0, content.size, 1 << 24):
                file.write(content.read(offset, 1 << 24))
        yield file.name


def _run_program(
    path: str, stream: str, allowance: Allowance, kept: float = math.inf
) -> tuple[bytearray, int, int, int, str]:
    """Let the `ffmpeg` program make a WAV of a file.

    Args:
        path (`str`): the file.
        stream (`str`): which one of it, as `-map` calls it.
        allowance ([`Allowance`]): what it may become.
        kept (`float`, *optional*): bytes of the WAV that are kept; all if not given.

    Returns:
        The bytes that are kept, the number of channels, the sampling rate, the number of samples that there are, and what
        the program complains of.
    """
    command = ["ffmpeg", "-nostdin", "-v", "error", "-protocol_whitelist", "file,pipe", "-i", f"file:{path}"]
    command += ["-map", f"0:{stream}", "-c:a", "pcm_f32le", "-f", "wav", "-"]
    written, size = bytearray(), 0
    with (
        tempfile.TemporaryFile() as complaints,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=complaints) as program,
        selectors.DefaultSelector() as waiting,  # `select` takes no file beyond the 1024th that a process has open
    ):
        waiting.register(program.stdout, selectors.EVENT_READ)
        try:
            while True:
                if not waiting.select(LONGEST_PAUSE):
                    raise FFmpegError(f"ffmpeg gave nothing for {LONGEST_PAUSE:.0f} s")
                piece = os.read(program.stdout.fileno(), PIECE)
                if not piece:
                    break
                size += len(piece)
                if len(written) < kept:
                    written += piece
                # Samples of one channel take the least; with more, or of a low rate, it is looked at below.
                if size > 4 * allowance.samples(1, math.inf) + PIECE:
                    raise allowance.error(*_channels_and_rate(written))
        finally:
            program.kill()
        program.wait()
        complaints.seek(0)
        complaint = complaints.read(PIECE).decode(errors="replace").replace(f"file:{path}: ", "").strip()
    region = sample_region(BytesContent(written))
    if region is None or size <= region.offset:
        raise FFmpegError(first_line(complaint) if complaint else f"ffmpeg ended with {program.returncode}")
    channels, sampling_rate = _channels_and_rate(written)
    count = (size - region.offset) // (4 * channels)
    if count > allowance.samples(channels, sampling_rate):
        raise allowance.error(channels, sampling_rate)
    return written, channels, sampling_rate, count, complaint


def _channels_and_rate(written: bytearray) -> tuple[int, int]:
    """What the header of a WAV that the ffmpeg program writes says."""
    region = sample_region(BytesContent(bytes(written[:PIECE])))
    header = region.format_chunk
    return int.from_bytes(header[2:4], "little"), int.from_bytes(header[4:8], "little")

"""Where to go in a file that FFmpeg reads, so that a stretch of it is what the whole decode has there.

FFmpeg goes to any time of a file, and what it gives there need not be what it gives on the way from the beginning: the decoders of AAC
and AC-3 fill bands with noise whose random numbers run on, and containers round times. So nothing is believed of a format: a file is
decoded as a whole once more, and block by block, each from a fresh decoder, and only where all blocks are the same bit for bit are they
read by themselves from then on.
"""

import math
import os
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from .content import Content
from .ffmpeg import FFmpegError, FFmpegMissingError, FFmpegStream

BLOCK_SECONDS = 8.0
LEAD_SECONDS = 0.3  # decoded before a block: frames need what the one before them left
BEHIND_SECONDS = 0.1  # and behind it, as times are rounded
ROUNDED_SECONDS = 0.002  # by which a time of a container may be wrong
PROBED = 256  # samples in which the place of a block is looked for


@dataclass(frozen=True)
class FFmpegPlaces:
    """Blocks of a file, each of which was seen to be right when it is decoded by itself.

    Args:
        frames (`int`): samples of each channel.
        sampling_rate (`int`): of the file, in Hz.
        covered (`tuple[int, int]`): the first sample that a block has, and that behind the last one: FFmpeg gives some first and last
            frames with the whole alone.
        block (`int`): samples of a block; the last one may have less.
        places (`tuple[tuple[float, float | None, int], ...]`): of each block between which times of the container it is decoded, and
            which sample of the file the first one is that comes then.
        version (`tuple[int, int]`): size and time of change of the file.
    """

    frames: int
    sampling_rate: int
    covered: tuple[int, int]
    block: int
    places: tuple[tuple[float, float | None, int], ...]
    version: tuple[int, int]

    def stretch(self, content: Content, begin: int, end: int) -> np.ndarray | None:
        """Decode a stretch.

        Args:
            content ([`Content`]): the file.
            begin (`int`): its first sample.
            end (`int`): the sample behind its last one.

        Returns:
            `np.ndarray` of shape `(samples, channels)`, float32; `None` if the file is another one by now, or that is not covered.
        """
        if _version(content) != self.version or begin < self.covered[0] or end > self.covered[1]:
            return None
        parts = []
        for number in range(begin // self.block, -(-end // self.block)):
            start, stop, first = self.places[number]
            low, high = max(begin, number * self.block), min(end, (number + 1) * self.block)
            piece = _decoded_block(content, start, stop)
            if piece is None or first > low or first + len(piece[0]) < high:
                return None
            parts.append(piece[0][low - first : high - first])
        return np.concatenate(parts) if parts else None


def proven_places(content: Content, whole: np.ndarray, sampling_rate: int) -> FFmpegPlaces | None:
    """Try out whether blocks of a file are right when each is decoded by itself.

    Args:
        content ([`Content`]): the file, with a path.
        whole (`np.ndarray` of shape `(samples, channels)`): what FFmpeg makes of all of it.
        sampling_rate (`int`): of the file, in Hz.

    Returns:
        [`FFmpegPlaces`]; `None` if a block is not bit for bit what the whole has there.
    """
    version = _version(content)
    beginning = _decoded_block(content, 0.0, BEHIND_SECONDS)
    behind = round(BEHIND_SECONDS * sampling_rate)
    if beginning is None or len(whole) < 2 * behind or beginning[0].shape[1] != whole.shape[1]:
        return None
    samples, origin = beginning
    begin = _place_in(whole, samples[:PROBED], range(behind))
    if begin is None:
        return None
    end, places, block = begin, [], round(BLOCK_SECONDS * sampling_rate)
    reach = math.ceil(ROUNDED_SECONDS * sampling_rate)
    for low in range(0, len(whole), block):
        high = min(low + block, len(whole))
        start = max(origin + low / sampling_rate - LEAD_SECONDS, 0.0) if low else 0.0
        stop = None if high == len(whole) else origin + high / sampling_rate + BEHIND_SECONDS
        piece = _decoded_block(content, start, stop)
        if piece is None:
            return None
        samples, seconds = piece
        about, middle = begin + round((seconds - origin) * sampling_rate), len(samples) // 2
        firsts = sorted(range(about - reach, about + reach + 1), key=lambda first: abs(first - about))
        place = _place_in(whole, samples[middle : middle + PROBED], [first + middle for first in firsts])
        if place is None:
            return None
        first = place - middle
        low, end = max(low, begin), min(high, first + len(samples))
        # A last frame that comes of the whole alone is left to it.
        if first > low or end < high - (behind if high == len(whole) else 0):
            return None
        if not np.array_equal(samples[low - first : end - first], whole[low:end]):
            return None
        places.append((start, stop, first))
    return FFmpegPlaces(len(whole), sampling_rate, (begin, end), block, tuple(places), version)


def _place_in(whole: np.ndarray, probe: np.ndarray, places: Iterable[int]) -> int | None:
    """The first of some places at which the whole has these samples."""
    for place in places:
        if place >= 0 and np.array_equal(whole[place : place + len(probe)], probe):
            return place
    return None


def _decoded_block(content: Content, start: float, stop: float | None) -> tuple[np.ndarray, float] | None:
    """What a fresh decoder gives between two times, and when that begins."""
    try:
        piece = FFmpegStream(content).stretch(start, stop)
    except (FFmpegError, FFmpegMissingError):
        return None
    return piece if piece is None else (np.ascontiguousarray(piece[0].numpy().T), piece[1])


def _version(content: Content) -> tuple[int, int]:
    found = os.stat(content.path)
    return found.st_size, found.st_mtime_ns

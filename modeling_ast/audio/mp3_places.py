"""Where the frames of a long MP3 lie, so that a stretch of it is decoded without reading the rest.

libsndfile steps over all frames of a file each time it is opened, and again to each place that it goes to. Here a stretch is cut
out as a small stream of its own: some frames before it, without their sound, for what later frames take from them, and its own.

Sources: ISO/IEC 11172-3 and 13818-3, layer III: frame headers, side information and the bit reservoir.
"""

from dataclasses import dataclass

import numpy as np

from .content import Content
from .mp3 import DECODER_DELAY, FrameHeader, Mp3Stream, frame_header, frame_without_audio

FRAMES_APART = 16  # whose places are kept; those between are stepped over
FRAMES_OF_STATE = 2  # before a place, whose overlap and filter memory are heard in it
PIECE = 1 << 20


@dataclass(frozen=True)
class Mp3Places:
    """Where every sixteenth frame of a stream lies.

    Args:
        header ([`FrameHeader`]): of its first frame.
        starts (`np.ndarray` of shape `(ceil(frames / 16),)`): int64, the first byte of each sixteenth frame in the file.
        frames (`int`): how many there are.
        stop (`int`): the byte behind the last one.
        skipped (`int`): samples decoded of the first frames that are not the recording's.
    """

    header: FrameHeader
    starts: np.ndarray
    frames: int
    stop: int
    skipped: int

    def stretch(self, content: Content, begin: int, end: int) -> tuple[bytes, int]:
        """Cut out what has to be decoded for a stretch.

        Args:
            content ([`Content`]): the file.
            begin (`int`): the first sample of the stretch, counted from the recording's first.
            end (`int`): the sample behind its last one.

        Returns:
            `tuple[bytes, int]`: a stream for libsndfile, and how many samples of it come before the stretch.
        """
        samples = self.header.samples
        first = min((begin + self.skipped) // samples, self.frames - 1)
        last = min(-(-(end + self.skipped) // samples), self.frames)
        with_state = max(first - FRAMES_OF_STATE, 0)
        # So many frames hold more than a reservoir: the smallest has eleven bytes of sound, a reservoir 255, of MPEG-1 75 and 511.
        place = max(with_state - 24, 0) // FRAMES_APART
        until = -(-last // FRAMES_APART)
        stop = int(self.starts[until]) if until < len(self.starts) else self.stop
        base = int(self.starts[place])
        piece = content.read(base, stop - base)
        bounds = _bounds(piece, last - place * FRAMES_APART)
        first_fed = place * FRAMES_APART
        start = with_state - first_fed
        needed, kept = 511 if self.header.version == 3 else 255, 0
        while start > 0 and kept < needed:
            start -= 1
            kept += bounds[start + 1] - bounds[start] - _sound_offset(piece[bounds[start] :][:2], self.header)
        fed = bytearray(piece[bounds[start] : bounds[-1]])
        self._silence(fed, [bound - bounds[start] for bound in bounds[start : with_state - first_fed + 1]])
        head = piece[bounds[start] :][:4]
        count = len(bounds) - 1 - start
        stream = frame_without_audio(head, count + 1) + frame_without_audio(head) + bytes(fed)
        lead = samples - DECODER_DELAY  # the frame of silence, of which the decoder takes its own delay
        return stream, lead + begin + self.skipped - (first_fed + start) * samples

    def _silence(self, fed: bytearray, bounds: list[int]):
        """Take the sound of frames away and leave what later ones find in them; what they would look for before is not there."""
        there = 0
        for begin, end in zip(bounds, bounds[1:], strict=False):
            side = begin + (4 if fed[begin + 1] & 1 else 6)
            size = begin + _sound_offset(fed[begin : begin + 2], self.header) - side
            bits = 9 if self.header.version == 3 else 8
            wanted = int.from_bytes(fed[side : side + 2], "big") >> 16 - bits
            taken = min(wanted, there)
            fed[side : side + size] = (taken << 16 - bits).to_bytes(2, "big") + bytes(size - 2)
            there += end - side - size


def _sound_offset(head: bytes, header: FrameHeader) -> int:
    """Bytes of a frame before its sound: header, checksum where there is one, side information."""
    return header.tag_offset + (0 if head[1] & 1 else 2)


def _bounds(piece: bytes, count: int) -> list[int]:
    """Where so many frames begin, and where the last one ends."""
    bounds = [0]
    for _ in range(count):
        header = frame_header(piece[bounds[-1] : bounds[-1] + 4])
        if header is None or bounds[-1] + header.size > len(piece):
            break
        bounds.append(bounds[-1] + header.size)
    return bounds


def mp3_places(content: Content, stream: Mp3Stream, decoded_by_itself: bool = True) -> Mp3Places | None:
    """Find the frames of a stream.

    Args:
        content ([`Content`]): the file.
        stream ([`Mp3Stream`]): its only stream, without damage.
        decoded_by_itself (`bool`, defaults to `True`): whether libsndfile is given the whole file as it is, or what
            [`stream_content`] makes of it.

    Returns:
        [`Mp3Places`]; `None` if it is not of layer III, or cannot be told which sample is the recording's first.
    """
    if stream.header.layer != 3 or (decoded_by_itself and stream.has_tag and not stream.delay):
        return None
    begin = stream.start + (stream.header.size if stream.has_tag else 0)
    starts, frames, offset, base, piece = [], 0, begin, begin, b""
    while offset < stream.stop:
        place = offset - base
        if place + 4 > len(piece):
            base, piece, place = offset, content.read(offset, PIECE), 0
        header = frame_header(piece[place : place + 4])
        if header is None or offset + header.size > stream.stop:
            break
        if frames % FRAMES_APART == 0:
            starts.append(offset)
        frames, offset = frames + 1, offset + header.size
    if frames != stream.frames:
        return None
    skipped = stream.delay + DECODER_DELAY if stream.delay else 0
    return Mp3Places(stream.header, np.array(starts, dtype=np.int64), frames, offset, skipped)

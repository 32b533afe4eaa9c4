"""Where the frames of a long MP3 lie, so that a stretch of it is decoded without reading the rest.

libsndfile steps over all frames of a file each time it is opened, and again to each place that it goes to. Here a stretch is cut
out as a small stream of its own: some frames before it, without their sound, for what later frames take from them, and its own.

Sources: ISO/IEC 11172-3 and 13818-3, layer III: frame headers, side information and the bit reservoir.
"""

from dataclasses import dataclass

import numpy as np

from .content import Content
from .mp3 import DECODER_DELAY, FRAMES_APART, FrameHeader, Mp3Stream, frame_header, frame_without_audio

FRAMES_OF_STATE = 2  # before a place, whose overlap and filter memory are heard in it
CHECKSUM = 2  # bytes


@dataclass(frozen=True, eq=False)
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

    def stretch(self, content: Content, begin: int, end: int) -> tuple[bytes, int] | None:
        """Cut out what has to be decoded for a stretch.

        Args:
            content ([`Content`]): the file.
            begin (`int`): the first sample of the stretch, counted from the recording's first.
            end (`int`): the sample behind its last one.

        Returns:
            `tuple[bytes, int]`: a stream for libsndfile, and how many samples of it come before the stretch; `None` if the frames are
            not where they were.
        """
        samples = self.header.samples
        heard = max(min((begin + self.skipped) // samples, self.frames - 1) - FRAMES_OF_STATE, 0)
        last = min(-(-(end + self.skipped) // samples), self.frames)
        row = self._row_before(heard)
        first = row * FRAMES_APART
        after = -(-last // FRAMES_APART)
        stop = int(self.starts[after]) if after < len(self.starts) else self.stop
        piece = content.read(int(self.starts[row]), stop - int(self.starts[row]))
        bounds = self._bounds(piece, last - first)
        if bounds is None:
            return None
        # `fed` is the first frame that is decoded: from it on there is all that the frame `heard` takes from earlier ones.
        fed, kept = heard - first, 0
        while fed > 0 and kept < self._reservoir:
            fed -= 1
            kept += bounds[fed + 1] - bounds[fed] - self._sound_offset(piece[bounds[fed] + 1])
        frames = bytearray(piece[bounds[fed] : bounds[-1]])
        self._silence(frames, [bound - bounds[fed] for bound in bounds[fed : heard - first + 1]])
        head = bytes(frames[:4])
        stream = frame_without_audio(head, len(bounds) - fed) + frame_without_audio(head) + bytes(frames)
        lead = samples - DECODER_DELAY  # the frame of silence, of which the decoder takes its own delay
        return stream, lead + begin + self.skipped - (first + fed) * samples

    @property
    def _reservoir(self) -> int:
        """Bytes of earlier frames that a frame may take from, at most."""
        return 511 if self.header.version == 3 else 255

    def _row_before(self, frame: int) -> int:
        """The row of `starts` from which a reservoir is full at a frame, however small the frames between are."""
        row = until = frame // FRAMES_APART
        while row > 0:
            row -= 1
            size = int(self.starts[until] - self.starts[row])
            if size - (until - row) * FRAMES_APART * (self.header.tag_offset + CHECKSUM) >= self._reservoir:
                break
        return row

    def _bounds(self, piece: bytes, count: int) -> list[int] | None:
        """Where so many frames begin, and where the last one ends; `None` if there are other bytes."""
        bounds = [0]
        for _ in range(count):
            header = frame_header(piece[bounds[-1] : bounds[-1] + 4])
            if header is None or header.kind != self.header.kind or bounds[-1] + header.size > len(piece):
                return None
            bounds.append(bounds[-1] + header.size)
        return bounds

    def _sound_offset(self, second: int) -> int:
        """Bytes of a frame before its sound, by the second one: header, checksum where there is one, side information."""
        return self.header.tag_offset + (0 if second & 1 else CHECKSUM)

    def _silence(self, fed: bytearray, bounds: list[int]):
        """Take the sound of frames away and leave what later ones find in them; what they would look for before is not there."""
        there = 0
        for begin, end in zip(bounds, bounds[1:], strict=False):
            side = begin + (4 if fed[begin + 1] & 1 else 6)
            size = begin + self._sound_offset(fed[begin + 1]) - side
            bits = 9 if self.header.version == 3 else 8
            wanted = int.from_bytes(fed[side : side + 2], "big") >> 16 - bits
            taken = min(wanted, there)
            fed[side : side + size] = (taken << 16 - bits).to_bytes(2, "big") + bytes(size - 2)
            there += end - side - size


def mp3_places(stream: Mp3Stream, decoded_by_itself: bool) -> Mp3Places | None:
    """Tell where the frames of a stream are.

    Args:
        stream ([`Mp3Stream`]): the only stream of a file, without damage.
        decoded_by_itself (`bool`): whether libsndfile is given it as it is, or what [`stream_content`] makes of it.

    Returns:
        [`Mp3Places`]; `None` if it is not of layer III, or cannot be told which sample is the recording's first.
    """
    if stream.header.layer != 3 or (decoded_by_itself and stream.has_tag and not stream.delay):
        return None
    skipped = stream.delay + DECODER_DELAY if stream.delay else 0
    return Mp3Places(stream.header, np.array(stream.starts, dtype=np.int64), stream.frames, stream.stop, skipped)

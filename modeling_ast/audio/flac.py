"""FLAC frame by frame, without decoding: how many samples are there, and a whole stream in place of a damaged one.

`soundfile.read` alone does not do: libsndfile fails where STREAMINFO gives no length, as in what is written to a pipe, and
loses the whole recording where a frame is damaged or the end is missing. Here frames are checked by their own checksums,
and those that are not whole are replaced by silence of the same length, so that what follows keeps its time.

Source: RFC 9639.
"""

import re
import struct
from dataclasses import dataclass, replace

from .checksums import checksum, checksums
from .content import BytesContent, Content, SplicedContent
from .limits import MOST_TAGS, Allowance
from .tags import TRAILERS, trailing_tags

STREAMINFO_SIZE = 34
SAMPLE_RATES = (0, 88200, 176400, 192000, 8000, 16000, 22050, 24000, 32000, 44100, 48000, 96000)
SAMPLE_SIZES = (0, 8, 12, None, 16, 20, 24, 32)
TAILS = (1 << 14, 1 << 18)  # bytes at the end in which the last frame is looked for, and if it is larger
FRAME_HEADER, FRAME = (8, 0x07), (16, 0x8005)  # width and polynomial of the checksums
SYNC = re.compile(rb"\xff[\xf8\xf9]")


@dataclass(frozen=True)
class StreamInfo:
    """What the first block of a FLAC stream says.

    Args:
        frames_offset (`int`): where the first frame begins.
        block (`bytes`): the content of STREAMINFO.
    """

    frames_offset: int
    block: bytes

    @property
    def largest_block(self) -> int:
        """Samples of a frame at most."""
        return struct.unpack_from(">H", self.block, 2)[0]

    @property
    def largest_frame(self) -> int:
        """Bytes that no frame goes beyond: as much again as samples take that are not compressed."""
        return 64 + 2 * self.channels * (8 + self.largest_block * (self.sample_size + 1) // 8)

    @property
    def sampling_rate(self) -> int:
        """In Hz."""
        return int.from_bytes(self.block[10:13], "big") >> 4

    @property
    def channels(self) -> int:
        """How many there are."""
        return (self.block[12] >> 1 & 7) + 1

    @property
    def sample_size(self) -> int:
        """Bits of a sample."""
        return (int.from_bytes(self.block[12:14], "big") >> 4 & 31) + 1

    @property
    def samples(self) -> int:
        """Samples of the stream, per channel; 0 if unknown."""
        return int.from_bytes(self.block[13:18], "big") & (1 << 36) - 1

    def with_samples(self, samples: int) -> bytes:
        """Make the beginning of a stream of another length, up to its first frame: no other block, no checksum of all
        samples.

        Args:
            samples (`int`): of each channel.

        Returns:
            The bytes.
        """
        first = int.from_bytes(self.block[10:18], "big") >> 36 << 36 | samples
        block = self.block[:4] + bytes(6) + first.to_bytes(8, "big") + bytes(16)
        return b"fLaC" + struct.pack(">I", 0x80 << 24 | STREAMINFO_SIZE) + block


@dataclass(frozen=True)
class FlacFrame:
    """A frame of a stream.

    Args:
        start, stop (`int`): its bytes.
        first_sample (`int`): of the stream.
        samples (`int`): per channel.
    """

    start: int
    stop: int
    first_sample: int
    samples: int


@dataclass(frozen=True)
class MendedFlac:
    """A stream put together of the frames that are whole.

    Args:
        content ([`Content`]): the stream, for libsndfile.
        samples (`int`): its length, with silence in damaged spots.
        damaged (`list[tuple[int, int]]`): first samples and ends of these spots.
        ends_within_frame (`bool`): whether the last frame is not whole, as in a file that was cut off.
    """

    content: Content
    samples: int
    damaged: list[tuple[int, int]]
    ends_within_frame: bool = False


def stream_info(content: Content) -> StreamInfo | None:
    """Read STREAMINFO.

    Args:
        content ([`Content`]): the file.

    Returns:
        [`StreamInfo`]; `None` if there is none, or the other blocks are not whole or no end of them.
    """
    head = content.read(0, 8 + STREAMINFO_SIZE)
    if head[:4] != b"fLaC" or len(head) < 8 + STREAMINFO_SIZE or head[4] & 0x7F:
        return None
    at = 4
    for _ in range(MOST_TAGS):
        block = content.read(at, 4)
        if len(block) < 4:
            return None
        at += 4 + int.from_bytes(block[1:], "big")
        if block[0] & 0x80:
            return StreamInfo(at, head[8:])
    return None


def last_sample(content: Content, info: StreamInfo) -> int | None:
    """Find where the last frame that begins within the content ends.

    Args:
        content ([`Content`]): the file.
        info ([`StreamInfo`]): of it.

    Returns:
        That end in samples; `None` if no frame is found at the content's end.
    """
    for length in TAILS:
        start = max(info.frames_offset, content.size - length)
        tail = content.read(start, content.size - start)
        for match in reversed(list(SYNC.finditer(tail))):
            header = _frame_header(tail, match.start(), info)
            if header is not None:
                first, samples, _ = header
                return first + samples
    return None


def mended(content: Content, info: StreamInfo) -> MendedFlac | None:
    """Put a stream together of the frames that are whole.

    Args:
        content ([`Content`]): the file.
        info ([`StreamInfo`]): of it.

    Returns:
        [`MendedFlac`]; `None` if no frame is whole.
    """
    data = content.read(info.frames_offset, content.size - info.frames_offset)
    frames = _whole_frames(data, info)
    if not frames:
        return None
    parts: list[bytes | tuple[Content, int, int]] = []
    damaged, sample = [], 0
    most = Allowance("", content.size).samples(info.channels, info.sampling_rate)
    for frame in frames:
        if not sample <= frame.first_sample <= most:  # does not belong to this stream
            continue
        if frame.first_sample > sample:
            damaged.append((sample, frame.first_sample))
            parts.append(_silence(info, sample, frame.first_sample, data[frame.start : frame.start + 2]))
        start = info.frames_offset + frame.start
        parts.append((content, start, info.frames_offset + frame.stop))
        sample = frame.first_sample + frame.samples
    end = last_sample(content, info) or sample
    if end == info.samples and most >= end > sample:  # the end is there, but damaged
        damaged.append((sample, end))
        parts.append(_silence(info, sample, end, data[frames[-1].start : frames[-1].start + 2]))
        sample = end
    stream = SplicedContent([info.with_samples(sample), *_joined(parts)])
    return MendedFlac(stream, sample, damaged, ends_within_frame=end > sample)


def _joined(parts: list) -> list:
    """Neighbouring parts of one content as one."""
    joined: list = []
    for part in parts:
        last = joined[-1] if joined else None
        if isinstance(part, tuple) and isinstance(last, tuple) and last[2] == part[1]:
            joined[-1] = (part[0], last[1], part[2])
        else:
            joined.append(part)
    return joined


def _whole_frames(data: bytes, info: StreamInfo) -> list[FlacFrame]:
    """Frames whose checksums are right, in their order."""
    headers = [(match.start(), _frame_header(data, match.start(), info)) for match in SYNC.finditer(data)]
    headers = [(start, *header[:2]) for start, header in headers if header is not None]
    if not headers:
        return []
    stops = [start for start, *_ in headers[1:]] + [len(data)]
    frames = [
        FlacFrame(start, stop, first, samples) for (start, first, samples), stop in zip(headers, stops, strict=True)
    ]
    right = _are_whole(data, frames, info)
    # Bytes may stand between a frame and the next one that was found, such as the remains of a damaged one or a tag behind
    # the last: then the frame ends earlier, with its own checksum.
    found = [frame for frame, is_right in zip(frames, right, strict=True) if is_right]
    if not right[-1]:
        last = frames[-1]
        ends = [trailing_tags(BytesContent(data)), *(data.find(tag, last.start) for tag in (*TRAILERS, b"\0\0"))]
        for end in ends:
            shorter = replace(last, stop=end)
            if end > last.start and _are_whole(data, [shorter], info)[0]:
                return [*found, shorter]
    return found


def _are_whole(data: bytes, frames: list[FlacFrame], info: StreamInfo) -> list[bool]:
    """Whether the checksum at the end of each frame is right."""
    # Bytes behind the largest frame that there can be are not checked: checksums take time.
    stops = [min(frame.stop, frame.start + info.largest_frame) for frame in frames]
    # A checksum over data and the checksum behind them is 0.
    found = checksums(data, [frame.start for frame in frames], stops, FRAME)
    return [stop == frame.stop and value == 0 for stop, frame, value in zip(stops, frames, found, strict=True)]


def _frame_header(data: bytes, at: int, info: StreamInfo) -> tuple[int, int, int] | None:
    """First sample, samples and bytes of a frame's header; `None` if none begins there or it is of another stream."""
    head = data[at : at + 16]
    if len(head) < 6:
        return None
    is_variable, size_code, rate_code = head[1] & 1, head[2] >> 4, head[2] & 15
    channel_code, depth_code = head[3] >> 4, head[3] >> 1 & 7
    if size_code == 0 or rate_code == 15 or channel_code > 10 or depth_code == 3 or head[3] & 1:
        return None
    if (channel_code + 1 if channel_code < 8 else 2) != info.channels:
        return None
    if rate_code and rate_code < 12 and SAMPLE_RATES[rate_code] != info.sampling_rate:
        return None
    if depth_code and SAMPLE_SIZES[depth_code] != info.sample_size:
        return None
    number, length = _coded_number(head[4:])
    if number is None:
        return None
    end = 4 + length
    if size_code == 1:
        samples = 192
    elif size_code < 6:
        samples = 576 << size_code - 2
    elif size_code == 6:
        samples, end = head[end] + 1 if len(head) > end else 0, end + 1
    elif size_code == 7:
        samples, end = int.from_bytes(head[end : end + 2], "big") + 1, end + 2
    else:
        samples = 256 << size_code - 8
    end += {12: 1, 13: 2, 14: 2}.get(rate_code, 0)
    if len(head) <= end or samples > max(info.largest_block, 16) or checksum(head[:end], FRAME_HEADER) != head[end]:
        return None
    return (number if is_variable else number * info.largest_block), samples, end + 1


def _coded_number(data: bytes) -> tuple[int | None, int]:
    """A number in UTF-8's coding, of up to 36 bits, and how many bytes it takes."""
    first = data[0]
    if first < 0x80:
        return first, 1
    length = next((count for count in range(2, 8) if not first & 0x80 >> count), 0)
    if length == 0 or first < 0xC0 or len(data) < length:
        return None, 0
    number = first & (0x7F >> length)
    for byte in data[1:length]:
        if byte & 0xC0 != 0x80:
            return None, 0
        number = number << 6 | byte & 0x3F
    return number, length


def _with_coding(number: int) -> bytes:
    """A number in UTF-8's coding, of up to 36 bits."""
    if number < 0x80:
        return bytes([number])
    length = 2
    while number >> 5 * length + 1:
        length += 1
    tail = [0x80 | number >> 6 * place & 0x3F for place in reversed(range(length - 1))]
    return bytes([0xFF << 8 - length & 0xFF | number >> 6 * (length - 1), *tail])


def _silence(info: StreamInfo, start: int, stop: int, sync: bytes) -> bytes:
    """Frames of silence from one sample to another.

    Args:
        info ([`StreamInfo`]): of the stream.
        start (`int`): the first sample.
        stop (`int`): the sample after the last.
        sync (`bytes`): the first two bytes of the stream's frames, which say whether its blocks are of unlike lengths.
    """
    frames = []
    while start < stop:
        samples = min(info.largest_block, stop - start)
        number = start if sync[1] & 1 else start // info.largest_block
        head = sync + bytes([7 << 4, info.channels - 1 << 4]) + _with_coding(number) + struct.pack(">H", samples - 1)
        head += bytes([checksum(head, FRAME_HEADER)])
        # A constant subframe for each channel: eight bits of header, then the sample.
        bits = info.channels * (8 + info.sample_size)
        body = head + bytes((bits + 7) // 8)
        frames.append(body + checksum(body, FRAME).to_bytes(2, "big"))
        start += samples
    return b"".join(frames)

"""MPEG audio (MP3, MP2, MP1) frame by frame, without decoding: what a stream holds, told from the frames themselves.

`soundfile.read` alone does not do: libsndfile guesses the length of a stream without a Xing, Info or VBRI header from its
first frames, stops after as many frames as such a header names, and where a spot is damaged skips it, so that what follows
comes too early, or gives up. Here frames are counted and put together so that it hears all.

Sources: ISO/IEC 11172-3 and 13818-3 for frame headers; the Xing, LAME and VBRI headers as their authors describe them.
"""

import re
import struct
from bisect import bisect_left
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

from .content import Content, SplicedContent
from .tags import TRAILERS, id3_size, leading_tags

# kbit/s by (MPEG-1 or not, layer) and index.
BITRATES = {
    (True, 1): (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
SAMPLING_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}  # by version bits
DECODER_DELAY = 529  # samples that mpg123 takes off a stream with a tag, the delay of every decoder of layer III
TAG_NAMES = (b"Xing", b"Info", b"VBRI")
FARTHEST_TAG = 44  # bytes from the beginning of a frame within which a tag begins
FRAMES_OF_A_STREAM = 4  # that follow each other before bytes within other ones are taken for a stream
FRAMES_MEASURED = 32  # at the beginning of a stream
SEARCHED = 1 << 16  # bytes at the beginning of a file in which its first frame is looked for
PIECE = 1 << 20
FRAMES_APART = 16  # of a stream whose places are kept; those between are stepped over
# A frame header as far as three of its bytes tell: MPEG version, layer, bit rate and sampling rate are of those there are.
FRAME_HEADER = re.compile(
    rb"\xff[\xe2-\xe7\xf2-\xf7\xfa-\xff][\x10-\x1b\x20-\x2b\x30-\x3b\x40-\x4b\x50-\x5b\x60-\x6b\x70-\x7b"
    rb"\x80-\x8b\x90-\x9b\xa0-\xab\xb0-\xbb\xc0-\xcb\xd0-\xdb\xe0-\xeb][\x00-\xff]"
)


class FrameHeader(NamedTuple):
    """The four bytes that each frame begins with."""

    kind: tuple[int, int, int, int]  # what is the same for all frames of a stream: the fields below
    size: int  # bytes of the frame

    @property
    def version(self) -> int:
        """Bits: 3 is MPEG-1, 2 is MPEG-2, 0 is MPEG-2.5."""
        return self.kind[0]

    @property
    def layer(self) -> int:
        """1 to 3."""
        return self.kind[1]

    @property
    def sampling_rate(self) -> int:
        """In Hz."""
        return self.kind[2]

    @property
    def channels(self) -> int:
        """1 or 2."""
        return self.kind[3]

    @property
    def samples(self) -> int:
        """Samples of a frame, per channel."""
        if self.layer == 1:
            return 384
        return 576 if self.layer == 3 and self.version != 3 else 1152

    @property
    def tag_offset(self) -> int:
        """Where a Xing or Info tag stands within its frame."""
        stereo = self.channels == 2
        side_information = (32 if stereo else 17) if self.version == 3 else (17 if stereo else 9)
        return 4 + side_information


@dataclass
class Mp3Stream:
    """One stream of a file, which may hold several, one after the other.

    Args:
        start (`int`): where its first frame begins, in bytes.
        header ([`FrameHeader`]): of its first frame.
        announced (`int`, *optional*): frames that its Xing, Info or VBRI tag announces.
        announced_bytes (`int`, *optional*): bytes from its first frame to its end, by the same tag.
        has_tag (`bool`): whether its first frame is such a tag and holds no audio.
        delay (`int`): samples at its beginning that the encoder put there, as a LAME tag says.
        frames (`int`): frames of audio that are there.
        stop (`int`): where its last frame ends, in bytes.
        is_counted (`bool`): whether its frames were counted to its end.
        gaps (`list[tuple[int, int, int]]`): damaged spots: frames before it, start and stop in bytes.
        tags (`list[tuple[int, int]]`): start and stop of tags and zeros behind frames of it.
        starts (`list[int]`): where every sixteenth frame of audio begins, in bytes.
    """

    start: int
    header: FrameHeader
    announced: int | None = None
    announced_bytes: int | None = None
    has_tag: bool = False
    delay: int = 0
    frames: int = 0
    stop: int = 0
    is_counted: bool = True
    gaps: list[tuple[int, int, int]] = field(default_factory=list)
    tags: list[tuple[int, int]] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)

    @property
    def is_whole(self) -> bool:
        """Whether its tag announces no more bytes than there are, however many frames it announces."""
        return self.announced_bytes is not None and self.announced_bytes <= self.stop - self.start

    @property
    def seconds(self) -> float:
        """How long its frames last."""
        return self.frames * self.header.samples / self.header.sampling_rate


@lru_cache(1 << 12)  # a stream has a handful of them
def frame_header(head: bytes) -> FrameHeader | None:
    """Read a frame header.

    Args:
        head (`bytes`): four bytes.

    Returns:
        [`FrameHeader`]; `None` if they are none.
    """
    if len(head) < 4:
        return None
    first, second, third, fourth = head
    version, layer_bits = second >> 3 & 3, second >> 1 & 3
    bitrate_index, rate_index = third >> 4, third >> 2 & 3
    if first != 0xFF or second < 0xE0 or version == 1 or not layer_bits or bitrate_index in (0, 15) or rate_index == 3:
        return None
    layer, padding = 4 - layer_bits, third >> 1 & 1
    rate = SAMPLING_RATES[version][rate_index]
    bitrate = 1000 * BITRATES[version == 3, layer][bitrate_index]
    if layer == 1:
        size = (12 * bitrate // rate + padding) * 4
    else:
        size = (72 if layer == 3 and version != 3 else 144) * bitrate // rate + padding
    return FrameHeader((version, layer, rate, 1 if fourth >> 6 == 3 else 2), size)


class _Window:
    """A content of which a piece is held, so that its frames are not read one by one."""

    def __init__(self, content: Content):
        self.content = content
        self.begin, self.piece = 0, b""

    def at(self, offset: int, count: int) -> bytes:
        begin = offset - self.begin
        if begin < 0 or begin + count > len(self.piece):
            self.begin, self.piece, begin = offset, self.content.read(offset, max(count, PIECE)), 0
        return self.piece[begin : begin + count]

    def from_there(self, offset: int) -> bytes:
        """The piece from a place on, as far as it is held, or a new one."""
        if not self.begin <= offset < self.begin + len(self.piece) - 4:
            self.at(offset, 1)
        return self.piece[offset - self.begin :]


def first_frame(content: Content, start: int = 0, stop: int | None = None) -> int:
    """Where a stream begins: the first place from which four frames follow each other.

    Args:
        content ([`Content`]): the file.
        start (`int`, defaults to 0): the first byte at which a frame is looked for.
        stop (`int`, *optional*): the byte before which it has to begin; by default 64 KiB after `start`.

    Returns:
        The place in bytes; -1 if there is none.
    """
    window = _Window(content)
    stop = start + SEARCHED if stop is None else stop
    while start < stop:
        found = FRAME_HEADER.search(window.at(start, 4096))
        if found is None:
            start += 4096 - 3  # a header may lie across the end
            if start >= content.size:
                break
            continue
        start += found.start()
        if start >= stop:
            break
        if _frames_follow(window, start):
            return start
        start += 1
    return -1


def _frames_follow(window: _Window, offset: int, like: FrameHeader | None = None) -> bool:
    """Whether four frames follow each other from there, or as many as there are bytes for."""
    number = 0
    while number < FRAMES_OF_A_STREAM:
        if number and offset >= window.content.size:
            break
        header = frame_header(window.at(offset, 4))
        if header is None or (like is not None and header.kind != like.kind):
            return False
        like, offset, number = header, offset + header.size, number + 1
    return True


def mp3_streams(content: Content, seconds: float | None = None, most: int = 1000) -> list[Mp3Stream]:
    """Find the streams of a file and count their frames.

    Args:
        content ([`Content`]): the file, which may begin with ID3v2 tags.
        seconds (`float`, *optional*): how much is of interest; no more frames are counted than last so long.
        most (`int`, defaults to 1000): streams that are looked for.

    Returns:
        `list[Mp3Stream]`, in their order; empty if there is no stream.
    """
    streams = _walk(content, seconds, [], most)
    if len(streams) == 1 and streams[0].has_tag and streams[0].announced == streams[0].frames:
        return streams
    start = streams[0].start if streams else 0
    tags = sorted(at for name in TAG_NAMES for at in content.find_all(name, start + FARTHEST_TAG))
    return _walk(content, seconds, tags, most) if tags else streams


def _walk(content: Content, seconds: float | None, tags: list[int], most: int) -> list[Mp3Stream]:
    """[`mp3_streams`], with the places of what looks like tags of later streams."""
    window = _Window(content)
    offset = first_frame(content, leading_tags(content))
    streams: list[Mp3Stream] = []
    passed = 0.0  # seconds of finished streams
    while 0 <= offset < content.size:
        header = frame_header(window.at(offset, 4))
        stream = streams[-1] if streams else None
        is_like = stream is not None and header is not None and header.kind == stream.header.kind
        if not is_like and (header is None or (stream is not None and not _frames_follow(window, offset))):
            following = _next_frame(window, offset, stream.header if stream else None)
            # A tag between two streams, or behind the last, is no damage.
            if stream is not None and following >= 0:
                if _is_tag(window, offset, following):
                    stream.tags.append((offset, following))
                else:
                    stream.gaps.append((stream.frames, offset, following))
            offset = following
            continue
        tag = None
        if stream is None or bisect_left(tags, offset) < bisect_left(tags, offset + FARTHEST_TAG):
            tag = _tag(window.at(offset, min(header.size, 256)), header)
        if not is_like or tag is not None:
            if len(streams) == most:
                break
            if stream is not None:
                passed += stream.seconds
            stream = Mp3Stream(offset, header)
            streams.append(stream)
            if tag is not None:
                stream.announced, stream.delay, stream.has_tag = tag.frames or None, tag.delay, True
                stream.announced_bytes = tag.size or None
                offset += header.size
                stream.stop = offset
                continue
        if offset + header.size > content.size:  # the end of a file that was cut off within a frame
            break
        following = bisect_left(tags, offset + FARTHEST_TAG)
        stop = tags[following] - FARTHEST_TAG if following < len(tags) else content.size
        offset = _run(window, offset, stream, stop)
        if seconds is not None and passed + stream.seconds > seconds and offset < content.size:
            stream.is_counted = False
            break
    return [stream for stream in streams if stream.frames]


def _run(window: _Window, offset: int, stream: Mp3Stream, stop: int) -> int:
    """Step over frames of a stream, of which one begins at `offset`: a piece of them, up to where `stop` is in reach.

    Returns:
        Where the last one ends.
    """
    piece, kind = window.from_there(offset), stream.header.kind
    place, end = 0, min(stop - offset, len(piece))
    frames = stream.frames
    while place < end:
        header = frame_header(piece[place : place + 4])
        if header is None or header.kind != kind or place + header.size > len(piece):
            break
        if frames % FRAMES_APART == 0:
            stream.starts.append(offset + place)
        place += header.size
        frames += 1
    if frames == stream.frames:  # one that goes beyond the piece
        if frames % FRAMES_APART == 0:
            stream.starts.append(offset)
        place, frames = frame_header(window.at(offset, 4)).size, frames + 1
    stream.frames, stream.stop = frames, offset + place
    return stream.stop


def _next_frame(window: _Window, offset: int, like: FrameHeader | None) -> int:
    """Where frames go on behind something else; -1 if nowhere."""
    size = window.content.size
    while offset < size:
        skipped = id3_size(window.at(offset, 10))
        if skipped:
            offset += skipped
            if _frames_follow(window, offset):
                return offset
            continue
        found = FRAME_HEADER.search(window.at(offset + 1, 4096))
        if found is None:
            offset += 4096 - 3  # a header may lie across the end
            continue
        offset += 1 + found.start()
        if _frames_follow(window, offset, like) or _frames_follow(window, offset):
            return offset
    return -1


def _is_tag(window: _Window, start: int, stop: int) -> bool:
    """Whether bytes between frames are tags, or zeros, as programs leave them between two files and before a tag."""
    piece = window.content.read(start, stop - start).lstrip(b"\0")
    return not piece or piece.startswith(TRAILERS)


@dataclass(frozen=True)
class _Tag:
    frames: int = 0  # 0 if it does not say
    size: int = 0  # in bytes, likewise
    delay: int = 0


def _tag(frame: bytes, header: FrameHeader) -> _Tag | None:
    """What a Xing, Info or VBRI tag says; `None` if the frame is none."""
    if header.layer != 3:
        return None
    frame = frame.ljust(256, b"\0")
    for offset in (header.tag_offset, header.tag_offset + 2):  # behind a checksum
        if frame[offset : offset + 4] in (b"Xing", b"Info"):
            flags, frames = struct.unpack_from(">II", frame, offset + 4)
            delay = int.from_bytes(frame[offset + 141 : offset + 143], "big") >> 4
            is_lame = flags & 15 == 15 and frame[offset + 120 : offset + 124] in (b"LAME", b"Lavc", b"Lavf")
            size = int.from_bytes(frame[offset + 12 : offset + 16], "big") if flags & 3 == 3 else 0
            return _Tag(frames if flags & 1 else 0, size, delay if is_lame else 0)
    if frame[36:40] == b"VBRI":
        size, frames = struct.unpack_from(">II", frame, 36 + 10)
        return _Tag(frames, size)
    return None


def stream_content(content: Content, stream: Mp3Stream) -> tuple[Content, int]:
    """A stream for libsndfile: so that it reads all frames, and without damaged spots.

    Args:
        content ([`Content`]): the file.
        stream ([`Mp3Stream`]): one of [`mp3_streams`].

    Returns:
        The content, and how many samples of its beginning do not belong to the stream.
    """
    begin = stream.start
    if stream.has_tag:
        begin += stream.header.size
    parts: list[bytes | tuple[Content, int, int]]
    if stream.header.layer == 3:  # which alone has tags that announce the frames
        head = content.read(begin, 4)
        # The decoder takes its own delay off a stream with a tag, off silence here.
        parts = [frame_without_audio(head, stream.frames + 1), frame_without_audio(head)]
        skipped = stream.header.samples - DECODER_DELAY
        if stream.delay:
            skipped += stream.delay + DECODER_DELAY
    else:
        parts, skipped = [_room(content, stream)], 0
    for start, stop in sorted([*stream.tags, *((start, stop) for _, start, stop in stream.gaps)]):
        if start >= stream.stop:  # between this stream and the next
            break
        parts.append((content, begin, start))
        begin = stop
    return SplicedContent([*parts, (content, begin, stream.stop)]), skipped


def _room(content: Content, stream: Mp3Stream) -> bytes:
    """An ID3 tag that makes a stream so large that libsndfile, which guesses its frames by its size, guesses enough."""
    largest, at = 0, stream.start
    for _ in range(FRAMES_MEASURED):
        header = frame_header(content.read(at, 4))
        if header is None:
            break
        largest, at = max(largest, header.size), at + header.size
    missing = (stream.frames + FRAMES_MEASURED) * largest - (stream.stop - stream.start)
    size = min(max(0, missing), (1 << 28) - 1)
    return b"ID3\x04\0\0" + bytes(size >> shift & 127 for shift in (21, 14, 7, 0)) + bytes(size)


def frame_without_audio(first_bytes: bytes, announced: int | None = None) -> bytes:
    """Make a frame of silence, or a tag.

    Args:
        first_bytes (`bytes`): the header of a frame of the stream.
        announced (`int`, *optional*): how many frames the tag says that there are.

    Returns:
        `bytes`: the frame.
    """
    head = bytearray(first_bytes)
    head[1] |= 1  # no checksum
    for index in range(1, 15):  # the smallest frame into which a tag fits
        head[2] = index << 4 | head[2] & 0x0C
        header = frame_header(bytes(head))
        if header is not None and header.size >= header.tag_offset + 16:
            break
    tag = b"" if announced is None else struct.pack(">4sII", b"Info", 1, announced)
    return (bytes(head) + bytes(header.tag_offset - 4) + tag).ljust(header.size, b"\0")

"""Where the samples of WAV, RF64, W64, AIFF, AU, CAF and SPHERE files lie, and whether the header is true about it.

These formats say in their header how many bytes of samples follow. Programs that write to a pipe, die or pass 4 GiB leave
sizes there that are 0, unknown, wrapped or too large, and a download that breaks off leaves fewer samples than announced.
`soundfile.read` alone does not do: libsndfile believes such sizes and says nothing of what is missing.

Sources: Microsoft's RIFF and the EBU's RF64 (Tech 3306) specifications, Sony's W64, Apple's AIFF-C and CAF, NeXT's AU,
NIST's SPHERE.
"""

import math
import struct
from collections.abc import Callable
from dataclasses import dataclass, replace

from .content import PIECE, Content, SplicedContent
from .limits import MOST_TAGS
from .tags import TRAILERS

UNKNOWN_WAV_SIZE = 0x7FFF_0000  # sox writes 0x7ffff000 and less a header, FFmpeg 0xffffffff
UNKNOWN_SIZE = (1 << 63) - 1
W64_RIFF = bytes.fromhex("726966662e91cf11a5d628db04c10000")  # the identifiers that Sony's W64 has in place of names
W64_WAVE = bytes.fromhex("77617665f3acd3118cd100c04f8edb8a")
W64_FMT = bytes.fromhex("666d7420f3acd3118cd100c04f8edb8a")
W64_DATA = bytes.fromhex("64617461f3acd3118cd100c04f8edb8a")
CHUNK_NAME = frozenset(range(0x20, 0x7F))
LONGEST_HEADER = 128  # bytes that a size may be too large by without a word: chunks of padding are no header
AU_SAMPLE_BYTES = {1: 1, 2: 1, 3: 2, 4: 3, 5: 4, 6: 4, 7: 8, 27: 1}


@dataclass(frozen=True)
class SampleRegion:
    """The samples within a file.

    Args:
        container (`str`): `"WAV"`, `"RF64"`, `"W64"`, `"AIFF"`, `"AU"`, `"CAF"` or `"NIST SPHERE"`.
        offset (`int`): where they begin, in bytes.
        size (`int`): bytes of samples that are there.
        announced (`int`): bytes that the header announces; of an unknown or wrapped size, what is there.
        byte_rate (`float`): bytes of a second; 0 if unknown.
        said (`int`, *optional*): bytes that a header announces which is wrong; all that are there are heard.
        format_chunk (`bytes`): of WAV, RF64 and W64 the content of `fmt `, of AIFF and CAF nothing.
        must_be_patched (`bool`): whether libsndfile would not read these samples by this header.
    """

    container: str
    offset: int
    size: int
    announced: int
    byte_rate: float
    said: int | None = None
    format_chunk: bytes = b""
    must_be_patched: bool = False

    @property
    def holds_mp3(self) -> bool:
        """Whether the samples of a WAV are an MP3 stream."""
        return self.container in ("WAV", "RF64") and self.format_chunk[:2] == b"\x55\x00"

    @property
    def is_cut_off(self) -> bool:
        """Whether more samples are missing than a header is long; sizes that count the header as well are common."""
        return self.announced - self.size > self._tolerated

    @property
    def has_wrong_header(self) -> bool:
        """Whether the header says another number of samples than are there, by more than a header is long."""
        return self.said is not None and abs(self.size - self.said) > self._tolerated

    @property
    def _tolerated(self) -> int:
        return min(self.offset, LONGEST_HEADER)


def sample_region(content: Content) -> SampleRegion | None:
    """Find the samples of a file.

    Args:
        content ([`Content`]): the file.

    Returns:
        [`SampleRegion`], or `None` of another format, and where the header says too little to find them.
    """
    head = content.read(0, 40)
    if head[:4] in (b"RIFF", b"RF64", b"BW64") and head[8:12] == b"WAVE":
        return _wav(content, "<")
    if head[:4] == b"RIFX" and head[8:12] == b"WAVE":
        return _wav(content, ">")
    if head[:16] == W64_RIFF and head[24:40] == W64_WAVE:
        return _w64(content)
    if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        return _aiff(content)
    if head[:4] in (b".snd", b"dns."):
        return _au(content)
    if head[:4] == b"caff":
        return _caf(content)
    if head[:8] == b"NIST_1A\n":
        return _sphere(content)
    return None


def patched(content: Content, region: SampleRegion) -> Content:
    """The same samples behind a header that libsndfile reads all of them by.

    Args:
        content ([`Content`]): the file.
        region ([`SampleRegion`]): of it.

    Returns:
        [`Content`]: CAF, AU and AIFF with another size, all else as WAV, or RF64 from 4 GiB on.
    """
    samples = (content, region.offset, region.offset + region.size)
    if region.container == "CAF":
        size = struct.pack(">q", region.size + 4)  # with the edit count before the samples
        return SplicedContent(
            [(content, 0, region.offset - 12), size, (content, region.offset - 4, region.offset), samples]
        )
    if region.container == "AU":
        return SplicedContent([(content, 0, 8), b"\xff\xff\xff\xff", (content, 12, region.offset), samples])
    if region.container == "AIFF":
        size = struct.pack(">I", min(region.size + 8, 0xFFFF_FFFF))
        begin = region.offset - 12
        return SplicedContent([(content, 0, begin), size, (content, begin + 4, region.offset), samples])
    order = ">" if content.read(0, 4) == b"RIFX" else "<"
    fmt = struct.pack(f"{order}4sI", b"fmt ", len(region.format_chunk)) + region.format_chunk
    total = 4 + len(fmt) + 8 + region.size
    if total < 1 << 32:
        name = b"RIFX" if order == ">" else b"RIFF"
        header = struct.pack(f"{order}4sI4s", name, total, b"WAVE") + fmt
        return SplicedContent([header + struct.pack(f"{order}4sI", b"data", region.size), samples])
    unknown = 0xFFFF_FFFF
    frames = region.size // max(1, struct.unpack_from("<H", region.format_chunk, 12)[0])
    ds64 = struct.pack("<4sIQQQI", b"ds64", 28, total + 36, region.size, frames, 0)
    header = struct.pack("<4sI4s", b"RF64", unknown, b"WAVE") + ds64 + fmt + struct.pack("<4sI", b"data", unknown)
    return SplicedContent([header, samples])


def _wav(content: Content, order: str) -> SampleRegion | None:
    container = "WAV" if content.read(0, 3) == b"RIF" else "RF64"
    offset, format_chunk, long_size = 12, b"", None
    for _ in range(MOST_TAGS):
        if offset + 8 > content.size:
            return None
        name, size = struct.unpack(f"{order}4sI", content.read(offset, 8))
        if name == b"data":
            break
        if name == b"fmt ":
            format_chunk = content.read(offset + 8, min(size, 1 << 16))
        if name == b"ds64" and size >= 16:
            long_size = struct.unpack("<Q", content.read(offset + 16, 8))[0]
        offset += 8 + size + size % 2  # chunks are padded to even sizes
    else:
        return None
    if len(format_chunk) < 16:
        return None
    rate, byte_rate, block = struct.unpack_from(f"{order}IIH", format_chunk, 4)
    offset += 8
    present = content.size - offset
    is_unknown = size >= UNKNOWN_WAV_SIZE and size > present
    if long_size is not None and size == 0xFFFF_FFFF:
        size = long_size
        is_unknown = size == 0xFFFF_FFFF or size >= UNKNOWN_SIZE
    region = SampleRegion(container, offset, present, present, byte_rate or rate * block, format_chunk=format_chunk)
    wrapped = (present - size) >> 32
    if is_unknown:
        return replace(region, must_be_patched=long_size is not None)
    if size == 0 and present and not _chunks_follow(content, offset, order):
        return replace(region, must_be_patched=True, said=0)
    if container == "WAV" and wrapped > 0 and not _chunks_follow(content, offset + size + size % 2, order):
        whole = size + (wrapped << 32)
        return replace(region, size=whole, announced=whole, must_be_patched=True, said=size)
    return _of_announced_size(content, region, size, lambda start: _chunks_follow(content, start, order))


def _w64(content: Content) -> SampleRegion | None:
    offset, format_chunk = 40, b""
    for _ in range(MOST_TAGS):
        if offset + 24 > content.size:
            return None
        name, size = content.read(offset, 16), int.from_bytes(content.read(offset + 16, 8), "little")
        if name == W64_DATA:
            break
        if name == W64_FMT:
            format_chunk = content.read(offset + 24, min(size - 24, 1 << 16))
        offset += max(24, (size + 7) // 8 * 8)
    else:
        return None
    if len(format_chunk) < 16:
        return None
    rate, byte_rate, block = struct.unpack_from("<IIH", format_chunk, 4)
    offset += 24
    present = content.size - offset
    region = SampleRegion("W64", offset, present, present, byte_rate or rate * block, format_chunk=format_chunk)
    if size <= 24 or size >= UNKNOWN_SIZE:
        return replace(region, must_be_patched=True)

    def chunks_follow(start: int) -> bool:
        return content.read((start + 7) // 8 * 8, 16)[4:] == W64_DATA[4:]

    return _of_announced_size(content, region, size - 24, chunks_follow)


def _aiff(content: Content) -> SampleRegion | None:
    offset, byte_rate = 12, 0.0
    for _ in range(MOST_TAGS):
        if offset + 8 > content.size:
            return None
        name, size = struct.unpack(">4sI", content.read(offset, 8))
        if name == b"COMM":
            channels, _, bits = struct.unpack(">hIh", content.read(offset + 8, 8))
            exponent, mantissa = struct.unpack(">HQ", content.read(offset + 16, 10))  # an 80-bit float
            rate = math.ldexp(mantissa, (exponent & 0x7FFF) - 16383 - 63)
            byte_rate = rate * channels * ((bits + 7) // 8)
        if name == b"SSND":
            break
        offset += 8 + size + size % 2
    else:
        return None
    offset += 16  # with offset and block size
    present = content.size - offset
    region = SampleRegion("AIFF", offset, present, present, byte_rate)
    if size <= 8 or size == 0xFFFF_FFFF:  # of unknown length; libsndfile reads to the end
        return region
    return _of_announced_size(content, region, size - 8, lambda start: _chunks_follow(content, start, ">"))


def _au(content: Content) -> SampleRegion | None:
    order = ">" if content.read(0, 4) == b".snd" else "<"
    if content.size < 24:
        return None
    offset, size, encoding, rate, channels = struct.unpack(f"{order}5I", content.read(4, 20))
    if offset > content.size:
        return None
    byte_rate = float(rate * channels * AU_SAMPLE_BYTES.get(encoding, 0))
    present = content.size - offset
    region = SampleRegion("AU", offset, present, present, byte_rate)
    if size == 0xFFFF_FFFF:
        return region
    if size == 0:
        return replace(region, said=0, must_be_patched=True) if present else region
    region = _of_announced_size(content, region, size, lambda start: False)
    # libsndfile takes the larger sizes for negative ones.
    return replace(region, must_be_patched=True) if size >> 31 and size > present else region


def _caf(content: Content) -> SampleRegion | None:
    offset, byte_rate = 8, 0.0
    for _ in range(MOST_TAGS):
        if offset + 12 > content.size:
            return None
        name, size = struct.unpack(">4sq", content.read(offset, 12))
        if name == b"desc":
            rate, _, _, packet_bytes, packet_frames = struct.unpack(">d4sIII", content.read(offset + 12, 24))
            byte_rate = rate * packet_bytes / packet_frames if packet_frames else 0.0
        if name == b"data":
            break
        if size < 0:
            return None
        offset += 12 + size
    else:
        return None
    offset += 16  # with the edit count
    present = content.size - offset
    # Packets of unlike sizes are FFmpeg's, which needs the file as it is.
    if size < 4:
        return SampleRegion("CAF", offset, present, present, byte_rate, must_be_patched=byte_rate > 0)
    region = SampleRegion("CAF", offset, present, present, byte_rate)
    if byte_rate > 0 and size - 4 > present:
        return replace(region, announced=size - 4, must_be_patched=True)

    def chunks_follow(start: int) -> bool:
        name, length = struct.unpack(">4sq", content.read(start, 12).ljust(12, b"\0"))
        return set(name) <= CHUNK_NAME and 0 <= length <= content.size

    return _of_announced_size(content, region, size - 4, chunks_follow)


def _sphere(content: Content) -> SampleRegion | None:
    head = content.read(0, 1024).split(b"end_head")[0]
    fields = {words[0]: words[2] for line in head.split(b"\n") if len(words := line.split()) == 3}
    try:
        offset = int(head[8:16])
        count, width, channels, rate = (
            int(fields[name]) for name in (b"sample_count", b"sample_n_bytes", b"channel_count", b"sample_rate")
        )
    except (KeyError, ValueError):
        return None
    if offset > content.size or fields.get(b"sample_coding", b"pcm") not in (b"pcm", b"ulaw", b"mu-law", b"alaw"):
        return None  # such as compressed by Shorten
    present, announced = content.size - offset, count * width * channels
    byte_rate = float(rate * width * channels)
    return SampleRegion("NIST SPHERE", offset, min(present, announced), announced, byte_rate)


def _chunks_follow(content: Content, offset: int, order: str) -> bool:
    """Whether the rest of a RIFF file, if there is any, is chunks up to its end."""
    is_padded = True
    for _ in range(MOST_TAGS):
        if content.size - offset < 8:
            break
        name, size = struct.unpack(f"{order}4sI", content.read(offset, 8))
        if not set(name) <= CHUNK_NAME:
            if is_padded:
                return False
            offset, is_padded = offset - 1, True  # some programs leave the padding out
            continue
        offset, is_padded = offset + 8 + size + size % 2, not size % 2
    rest = content.read(offset, 8)
    return offset <= content.size + 1 and not any(rest)


def _of_announced_size(
    content: Content, region: SampleRegion, size: int, chunks_follow: Callable[[int], bool]
) -> SampleRegion:
    """A region of as many bytes as its header announces, or of all that are there if these are samples as well.

    A program that writes the sizes now and then, and dies, leaves those of the last time: what stands behind the announced
    samples is then no chunk, no tag and not all one byte, and longer than the header.

    Args:
        content ([`Content`]): the file.
        region ([`SampleRegion`]): of all that is there.
        size (`int`): bytes that the header announces.
        chunks_follow (`Callable[[int], bool]`): whether chunks begin at a place.
    """
    end = region.offset + size
    is_longer = content.size - end > min(region.offset, LONGEST_HEADER) and region.byte_rate > 0
    is_no_sound = is_longer and any(
        chunks_follow(start) or content.read(start, 16).startswith(TRAILERS) for start in (end, end + end % 2)
    )
    if is_longer and not is_no_sound and not _is_constant(content, end):
        return replace(region, must_be_patched=True, said=size)
    return replace(region, size=min(region.size, size), announced=size)


def _is_constant(content: Content, start: int) -> bool:
    """Whether a file goes on with one and the same byte to its end, as it was made longer or memory was erased."""
    first = content.read(start, 1)
    return all(not content.read(offset, PIECE).strip(first) for offset in range(start, content.size, PIECE))

"""Ogg pages, without decoding: where streams begin, whether the last page is whole, where pages are damaged.

`soundfile.read` alone does not do: libsndfile decodes the first of several chained streams and leaves damaged pages out
without a word.

Source: RFC 3533; RFC 7845 for Opus.
"""

import struct
import zlib
from dataclasses import dataclass, field

from .content import Content

CAPTURE = b"OggS\x00"
FIRST_PAGE, LAST_PAGE = 2, 4  # flags of a page
REVERSED_BITS = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
LARGEST_PAGE = 65_307
NO_GRANULE = (1 << 64) - 1  # of a page on which no packet ends
OPUS_RATE = 48_000  # in which Opus counts, whatever its sampling rate


@dataclass(frozen=True)
class Page:
    """The header of a page.

    Args:
        start, stop (`int`): its bytes.
        flags (`int`): `FIRST_PAGE`, `LAST_PAGE` and others.
        granule (`int`): samples up to its end, as the codec counts them.
        number (`int`): of the page within its stream.
    """

    start: int
    stop: int
    flags: int
    granule: int
    number: int


def page_at(content: Content, start: int) -> Page | None:
    """Read the header of a page.

    Args:
        content ([`Content`]): the file.
        start (`int`): a place in bytes.

    Returns:
        [`Page`]; `None` if none begins there.
    """
    head = content.read(start, 27 + 255)
    if len(head) < 27 or head[:5] != CAPTURE:
        return None
    segments = head[26]
    stop = start + 27 + segments + sum(head[27 : 27 + segments])
    return Page(start, stop, head[5], *struct.unpack_from("<Q4xI", head, 6))


def beginnings(content: Content) -> list[int]:
    """Find where chained streams begin; of several that are interleaved, as in video, the first.

    Args:
        content ([`Content`]): the file.

    Returns:
        Places in bytes, ascending.
    """
    found, group_stop = [], -1
    for start in content.find_all(CAPTURE):
        page = page_at(content, start)
        if page is None or not page.flags & FIRST_PAGE:
            continue
        if start != group_stop:
            found.append(start)
        group_stop = page.stop
    return found


def ends_within_page(content: Content) -> bool:
    """Tell whether the last page is not whole, as in a file that was cut off.

    Args:
        content ([`Content`]): the file.

    Returns:
        `bool`.
    """
    start = max(0, content.size - 2 * LARGEST_PAGE)
    tail = content.read(start, content.size - start)
    at = tail.rfind(CAPTURE)
    page = page_at(content, start + at) if at >= 0 else None
    if at < 0:
        return False
    if page is None or page.stop > content.size:
        return True
    # Remains of a page whose beginning is lost.
    return not page.flags & LAST_PAGE and any(content.read(page.stop, LARGEST_PAGE))


def page_checksum(page: bytes) -> int:
    """Compute the checksum of a page, whose own field counts as 0.

    It has the polynomial of zlib's, and other bits first: zlib gives it of reversed bytes, some hundred times faster than
    [`checksums`].

    Args:
        page (`bytes`): all of it.

    Returns:
        The checksum, 32 bits.
    """
    reversed_bits = (page[:22] + bytes(4) + page[26:]).translate(REVERSED_BITS)
    value = zlib.crc32(reversed_bits, 0xFFFF_FFFF) ^ 0xFFFF_FFFF  # begins with 0, and nothing is inverted
    return int.from_bytes(value.to_bytes(4, "little").translate(REVERSED_BITS), "big")


@dataclass
class PageDamage:
    """What of a stream's pages is missing or damaged.

    Args:
        holes (`list[tuple[float, float]]`): begin and end of each such stretch in seconds.
        ends_damaged (`bool`): whether the last page is damaged, so that nobody can tell how long the stream was.
        seconds (`float`): how long it is by its last whole page.
        begins_damaged (`bool`): whether the first pages with sound are, so that libsndfile takes what follows for the beginning.
    """

    holes: list[tuple[float, float]] = field(default_factory=list)
    ends_damaged: bool = False
    seconds: float = 0.0
    begins_damaged: bool = False


def page_damage(content: Content, sampling_rate: int) -> PageDamage:
    """Look at all pages of a stream.

    Args:
        content ([`Content`]): a single stream.
        sampling_rate (`int`): in Hz, in which Vorbis counts.

    Returns:
        [`PageDamage`].
    """
    head = content.read(0, 512).ljust(1024, b"\0")
    opus = head.find(b"OpusHead")
    rate = OPUS_RATE if opus >= 0 else sampling_rate
    skipped = struct.unpack_from("<H", head, opus + 10)[0] if opus >= 0 else 0
    damage, number, granule, is_missing, end = PageDamage(), None, 0, False, 0
    for start in content.find_all(CAPTURE):
        page = page_at(content, start)
        if start < end or page is None or page.stop > content.size:
            continue
        data = content.read(start, page.stop - start)
        is_whole = page_checksum(data) == struct.unpack_from("<I", data, 22)[0]
        # Bytes that are of no page have been one.
        damage.ends_damaged |= not is_whole or start > end > 0
        if not is_whole:
            continue
        is_missing |= damage.ends_damaged or (number is not None and page.number > number + 1)
        number, end = page.number, page.stop
        if page.granule == NO_GRANULE:
            continue
        if is_missing and page.granule > granule:
            damage.holes.append((max(0, granule - skipped) / rate, (page.granule - skipped) / rate))
            damage.begins_damaged |= not granule and damage.ends_damaged
        granule, is_missing, damage.ends_damaged = page.granule, False, False
    damage.seconds = max(0, granule - skipped) / rate
    return damage

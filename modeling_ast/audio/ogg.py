"""Ogg pages, without decoding: where streams begin, whether the last page is whole, where pages are damaged.

libsndfile decodes the first of several chained streams and leaves damaged pages out without a word.

Source: RFC 3533; RFC 7845 for Opus.
"""

import re
import struct
from dataclasses import dataclass

import numpy as np

from .checksums import checksums
from .content import Content

CAPTURE = b"OggS\x00"
BEGINS, ENDS = 2, 4  # flags of a page
PAGE_CHECKSUM = (32, 0x04C11DB7)
LARGEST_PAGE = 65_307
NO_GRANULE = (1 << 64) - 1  # of a page on which no packet ends
OPUS_RATE = 48_000  # in which Opus counts, whatever its sampling rate


@dataclass(frozen=True)
class Page:
    """The header of a page.

    Args:
        start, stop (`int`): its bytes.
        flags (`int`): `BEGINS`, `ENDS` and others.
        granule (`int`): samples up to its end, as the codec counts them.
        number (`int`): of the page within its stream.
    """

    start: int
    stop: int
    flags: int
    granule: int
    number: int


def page_at(content: Content, start: int) -> Page | None:
    """Read the header of a page; `None` if none begins there.

    Args:
        content ([`Content`]): the file.
        start (`int`): a place in bytes.
    """
    head = content.read(start, 27 + 255)
    if len(head) < 27 or head[:5] != CAPTURE:
        return None
    segments = head[26]
    stop = start + 27 + segments + sum(head[27 : 27 + segments])
    return Page(start, stop, head[5], *struct.unpack_from("<Q4xI", head, 6))


def beginnings(content: Content) -> list[int]:
    """Where chained streams begin, in bytes; of several that are interleaved, as in video, the first."""
    found, group_stop = [], -1
    for start in content.find_all(CAPTURE):
        page = page_at(content, start)
        if page is None or not page.flags & BEGINS:
            continue
        if start != group_stop:
            found.append(start)
        group_stop = page.stop
    return found


def ends_within_page(content: Content) -> bool:
    """Whether the last page is not whole, as in a file that was cut off."""
    start = max(0, content.size - 2 * LARGEST_PAGE)
    tail = content.read(start, content.size - start)
    at = tail.rfind(CAPTURE)
    page = page_at(content, start + at) if at >= 0 else None
    if at < 0:
        return False
    if page is None or page.stop > content.size:
        return True
    # Remains of a page whose beginning is lost.
    return not page.flags & ENDS and any(content.read(page.stop, LARGEST_PAGE))


def damaged_stretches(content: Content, sampling_rate: int) -> list[tuple[float, float]]:
    """Where pages are missing or damaged.

    Args:
        content ([`Content`]): a single stream.
        sampling_rate (`int`): in Hz, in which Vorbis counts.

    Returns:
        Begin and end of each such stretch in seconds.
    """
    data = content.read(0, content.size)
    pages = [page_at(content, match.start()) for match in re.finditer(re.escape(CAPTURE), data)]
    pages = [page for page in pages if page is not None and page.stop <= content.size]
    if not pages:
        return []
    without_checksums = np.frombuffer(data, dtype=np.uint8).copy()
    for page in pages:
        without_checksums[page.start + 22 : page.start + 26] = 0
    found = checksums(without_checksums, [page.start for page in pages], [page.stop for page in pages], PAGE_CHECKSUM)
    whole = [
        page
        for page, value in zip(pages, found, strict=True)
        if value == struct.unpack_from("<I", data, page.start + 22)[0]
    ]
    is_opus = data.find(b"OpusHead", 0, 512) >= 0
    rate = OPUS_RATE if is_opus else sampling_rate
    skipped = struct.unpack_from("<H", data, data.find(b"OpusHead") + 10)[0] if is_opus else 0
    stretches, number, granule, is_missing = [], None, 0, False
    for page in whole:
        is_missing |= number is not None and page.number > number + 1
        number = page.number
        if page.granule == NO_GRANULE:
            continue
        if is_missing and page.granule > granule:
            stretches.append((max(0, granule - skipped) / rate, (page.granule - skipped) / rate))
        granule, is_missing = page.granule, False
    return stretches

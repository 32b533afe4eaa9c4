"""Tags that programs put before and behind a recording without a container around them: ID3, APE and Lyrics3."""

import struct

from .content import Content
from .limits import MOST_TAGS

TRAILERS = (b"TAG", b"ID3", b"APETAGEX", b"LYRICSBEGIN", b"3DI")  # how such tags begin


def id3_size(head: bytes) -> int:
    """Measure an ID3v2 tag.

    Args:
        head (`bytes`): ten bytes, with which one may begin.

    Returns:
        Bytes of the tag; 0 if none begins there.
    """
    if len(head) < 10 or head[:3] != b"ID3" or max(head[6:10]) > 127:
        return 0
    return 10 + _synchsafe(head[6:10]) + (10 if head[5] & 0x10 else 0)  # with a footer


def leading_tags(content: Content) -> int:
    """Measure the ID3v2 tags at the beginning of a file.

    Args:
        content ([`Content`]): the file.

    Returns:
        Bytes of all of them; 0 if there are none.
    """
    start = 0
    for _ in range(MOST_TAGS):
        size = id3_size(content.read(start, 10))
        if not size:
            break
        start += size
    return start


def trailing_tags(content: Content) -> int:
    """Find the tags at the end of a file.

    Args:
        content ([`Content`]): the file.

    Returns:
        Where they begin; the file's size if there are none, or none that say how long they are.
    """
    end = content.size
    for _ in range(MOST_TAGS):
        size = _size_before(content.read(max(0, end - 128), min(end, 128)))
        if not 0 < size <= end:
            break
        end -= size
    return end


def _size_before(tail: bytes) -> int:
    """Bytes of a tag that ends with these bytes; 0 if none does."""
    if len(tail) == 128 and tail[:3] == b"TAG":
        return 128
    if tail[-32:-24] == b"APETAGEX":
        size, _, flags = struct.unpack("<III", tail[-20:-8])
        return size + (32 if flags >> 31 else 0)  # with a header
    if tail[-9:] == b"LYRICS200" and tail[-15:-9].isdigit():
        return int(tail[-15:-9]) + 15
    if tail[-10:-7] == b"3DI":
        return _synchsafe(tail[-4:]) + 20
    return 0


def _synchsafe(number: bytes) -> int:
    """A number of seven bits a byte."""
    return number[0] << 21 | number[1] << 14 | number[2] << 7 | number[3]

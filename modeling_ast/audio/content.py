"""The bytes of an audio file, wherever they are: in memory, on a disk that is read piece by piece, or put together."""

import bisect
import io
import itertools
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

from ..system.regular_files import only_files

PIECE = 1 << 22  # bytes read at a time where a file is searched


class Content(ABC):
    """Bytes that are read by place.

    Args:
        size (`int`): how many there are.
        path (`str`, *optional*): the file that consists of them and nothing else.
    """

    def __init__(self, size: int, path: str | None = None):
        self.size = size
        self.path = path

    @abstractmethod
    def read(self, offset: int, count: int) -> bytes:
        """Read bytes.

        Args:
            offset (`int`): place of the first byte.
            count (`int`): how many bytes are wanted.

        Returns:
            The bytes; fewer than `count` where the content ends.
        """

    def find(self, pattern: bytes, start: int = 0) -> int:
        """Find a pattern.

        Args:
            pattern (`bytes`): what is looked for.
            start (`int`, defaults to 0): place to begin at.

        Returns:
            The place where it is found first; -1 if nowhere.
        """
        while start + len(pattern) <= self.size:
            at = self.read(start, PIECE + len(pattern) - 1).find(pattern)
            if at >= 0:
                return start + at
            start += PIECE
        return -1

    def find_all(self, pattern: bytes, start: int = 0) -> Iterator[int]:
        """Find all places of a pattern, which do not overlap.

        Args:
            pattern (`bytes`): what is looked for.
            start (`int`, defaults to 0): place to begin at.

        Yields:
            Places, ascending.
        """
        while start + len(pattern) <= self.size:
            piece = self.read(start, PIECE + len(pattern) - 1)
            at = piece.find(pattern)
            end = start + PIECE
            while at >= 0:
                yield start + at
                end = max(end, start + at + len(pattern))
                at = piece.find(pattern, at + len(pattern))
            start = end

    def part(self, start: int, stop: int) -> "Content":
        """Take a part of the content; nothing is read.

        Args:
            start (`int`): place of its first byte.
            stop (`int`): place after its last byte.

        Returns:
            [`Content`].
        """
        return self if (start, stop) == (0, self.size) else SplicedContent([(self, start, stop)])

    def file(self) -> io.RawIOBase | io.BytesIO:
        """Make a file object of the content; a path would tell libraries a suffix, by which some guess a format.

        Returns:
            A binary file, open for reading.
        """
        return _ContentFile(self)


class BytesContent(Content):
    """Bytes in memory; see [`Content`]."""

    def __init__(self, content: bytes, path: str | None = None):
        super().__init__(len(content), path)
        self.content = content

    def read(self, offset: int, count: int) -> bytes:
        """Read bytes.

        Args:
            offset (`int`): place of the first byte.
            count (`int`): how many bytes are wanted.

        Returns:
            The bytes; fewer than `count` where the content ends.
        """
        return self.content[offset : offset + count]

    def find(self, pattern: bytes, start: int = 0) -> int:
        """Find a pattern.

        Args:
            pattern (`bytes`): what is looked for.
            start (`int`, defaults to 0): place to begin at.

        Returns:
            The place where it is found first; -1 if nowhere.
        """
        return self.content.find(pattern, start)

    def file(self) -> io.BytesIO:
        """Make a file object of the content.

        Returns:
            A binary file, open for reading.
        """
        return io.BytesIO(self.content)


class FileContent(Content):
    """A file that is not read as a whole; see [`Content`]. It is closed with [`FileContent.close`]."""

    def __init__(self, path: str):
        self.opened = open(path, "rb", buffering=0, opener=only_files)  # noqa: SIM115
        super().__init__(os.fstat(self.opened.fileno()).st_size, path)

    def read(self, offset: int, count: int) -> bytes:
        """Read bytes.

        Args:
            offset (`int`): place of the first byte.
            count (`int`): how many bytes are wanted.

        Returns:
            The bytes; fewer than `count` where the content ends.
        """
        self.opened.seek(offset)
        pieces = []
        while count > 0 and (piece := self.opened.read(count)):  # one call gives up to 2 GiB
            pieces.append(piece)
            count -= len(piece)
        return b"".join(pieces)

    def close(self):
        """Close the file."""
        self.opened.close()


class SplicedContent(Content):
    """Parts of other contents one after the other.

    Args:
        parts (sequence of `bytes` or of `tuple[Content, int, int]`): bytes, or a content with start and stop.
    """

    def __init__(self, parts: Sequence[bytes | tuple[Content, int, int]]):
        self.parts = [(BytesContent(part), 0, len(part)) if isinstance(part, bytes) else part for part in parts]
        self.ends = list(itertools.accumulate(stop - start for _, start, stop in self.parts))
        super().__init__(self.ends[-1] if self.ends else 0)

    def read(self, offset: int, count: int) -> bytes:
        """Read bytes.

        Args:
            offset (`int`): place of the first byte.
            count (`int`): how many bytes are wanted.

        Returns:
            The bytes; fewer than `count` where the content ends.
        """
        stop = min(offset + count, self.size)
        pieces = []
        index = bisect.bisect_right(self.ends, offset)
        while offset < stop:
            content, start, end = self.parts[index]
            begin = self.ends[index] - (end - start)  # of the part within this content
            wanted = min(stop, self.ends[index]) - offset
            piece = content.read(start + offset - begin, wanted)
            pieces.append(piece)
            if len(piece) < wanted:  # a file that has become shorter
                break
            offset += wanted
            index += 1
        return b"".join(pieces)


class _ContentFile(io.RawIOBase):
    def __init__(self, content: Content):
        self.content = content
        self.position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self.position = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self.position, os.SEEK_END: self.content.size}[whence]
        return self.position

    def tell(self) -> int:
        return self.position

    def readinto(self, buffer) -> int:
        piece = self.content.read(self.position, len(buffer))
        buffer[: len(piece)] = piece
        self.position += len(piece)
        return len(piece)

"""The list of a run in blocks: what is to be tagged as rows in a file, read a block at a time, however many there are."""

import hashlib
import json
import os
import sys
from array import array
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from ..audio.errors import AudioError
from ..audio.files import suffixes_in_words, walk_folder
from ..system.atomic_files import open_atomically
from ..system.regular_files import SpecialFileError, only_files
from .sources import STANDARD_INPUT, list_unreadable, matches


def rows_of(
    paths: Iterable[str], files_from: str | None, say: Callable[[str], None] = lambda words: None
) -> Iterator[str]:
    """List what is to be tagged as it stands there, row by row: nothing is opened, and a row that comes twice is two rows.

    Args:
        paths (iterable of `str`): files, folders and patterns, see [`tagged_files`]. The files of a folder come folder by folder,
            sorted in each.
        files_from (`str`, *optional*): a file with a path on each line, or `-` for standard input; a path of it is no folder.
        say (callable, *optional*): told of what is left out in a folder, in a sentence.

    Yields:
        Names of files.

    Raises:
        AudioError: if one of `paths` does not exist or holds no audio file, or the list cannot be read.
    """
    for path in (match for named in paths for match in matches(named)):
        if not os.path.lexists(path):
            raise AudioError(f"There is no file or folder {path} (looked in {Path.cwd()}). Check the spelling.")
        if os.path.isdir(path):
            yield from _rows_of_folder(Path(path), say)
        else:
            yield path
    if files_from is not None:
        yield from _rows_of_list(files_from)


def _rows_of_folder(folder: Path, say: Callable[[str], None]) -> Iterator[str]:
    is_empty = True
    for file, left_out in walk_folder(folder):
        if left_out is None:
            is_empty = False
            yield str(file)
        else:
            say(f"{file} is left out: {left_out}")
    if is_empty:
        raise AudioError(f"{folder} and the folders below it hold no audio file, {suffixes_in_words()}.")


def _rows_of_list(files_from: str) -> Iterator[str]:
    is_input = files_from == STANDARD_INPUT
    name = "standard input" if is_input else files_from
    is_empty = True
    try:
        with nullcontext(sys.stdin.buffer) if is_input else open(files_from, "rb", opener=only_files) as file:
            for number, line in enumerate(file):
                line = line.rstrip(b"\r\n").removeprefix(b"" if number else b"\xef\xbb\xbf")
                if b"\0" in line:
                    raise AudioError(f"--files_from: {name} is no text. Pass a file with a path on each line.")
                if line.strip():
                    is_empty = False
                    yield os.fsdecode(line)
    except SpecialFileError as error:
        raise AudioError(f"--files_from: {error}") from None
    except OSError as error:
        raise list_unreadable(files_from, error) from error
    if is_empty:
        raise AudioError(f"--files_from: {name} names no file. Write a path on each line.")


@dataclass
class ListDigest:
    """What tells a list from all others, while its rows go by.

    Args:
        number (`int`): of the rows so far.
        has_relative (`bool`): whether a row so far is a path from the working directory.
    """

    number: int = 0
    has_relative: bool = False
    _digest: "hashlib._Hash" = field(default_factory=hashlib.sha256)

    def passing(self, rows: Iterable[str]) -> Iterator[bytes]:
        """Look at rows.

        Args:
            rows (iterable of `str`): names of files.

        Yields:
            Each as a line of JSON.
        """
        for row in rows:
            line = json.dumps(row).encode("ascii") + b"\n"
            self._digest.update(line)
            self.number += 1
            self.has_relative = self.has_relative or not os.path.isabs(row)
            yield line

    @property
    def digest(self) -> str:
        """Of all rows that went by, 64 hexadecimal digits."""
        return self._digest.hexdigest()


def write_list(rows: Iterable[str], path: Path) -> ListDigest:
    """Write rows into a file that appears when it is complete.

    Args:
        rows (iterable of `str`): names of files.
        path (`Path`): the file.

    Returns:
        [`ListDigest`] of them.
    """
    digest = ListDigest()
    with open_atomically(path) as file:
        file.writelines(digest.passing(rows))
    return digest


def digest_list(rows: Iterable[str]) -> ListDigest:
    """Look at rows and keep none.

    Args:
        rows (iterable of `str`): names of files.

    Returns:
        [`ListDigest`] of them.
    """
    digest = ListDigest()
    for _ in digest.passing(rows):
        pass
    return digest


@dataclass
class BlockList:
    """A list that [`write_list`] wrote, in blocks of rows.

    Args:
        path (`Path`): the file.
        block_size (`int`): rows of a block; the last one has what is left.
    """

    path: Path
    block_size: int
    number: int = 0  # of rows
    _places: array = field(default_factory=partial(array, "q"))  # where blocks begin

    def __post_init__(self):
        place = 0
        with open(self.path, "rb") as file:
            for line in file:
                if self.number % self.block_size == 0:
                    self._places.append(place)
                place += len(line)
                self.number += 1

    def __len__(self) -> int:
        """How many blocks there are."""
        return len(self._places)

    def rows(self, block: int) -> list[str]:
        """Read a block.

        Args:
            block (`int`): its number, from 0 on.

        Returns:
            `list[str]`: names of files.
        """
        with open(self.path, "rb") as file:
            file.seek(self._places[block])
            count = min(self.block_size, self.number - block * self.block_size)
            return [json.loads(file.readline()) for _ in range(count)]

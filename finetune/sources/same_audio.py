"""Recordings that are one byte for byte, wherever they lie and whatever they are called, found without reading all of all."""

import hashlib
import io
import os
from collections import defaultdict
from collections.abc import Hashable, Sequence
from typing import BinaryIO

from modeling_ast.system.regular_files import only_files

PIECE = 4096  # bytes of the beginning, middle and end by which files of one size are told apart before they are read through


def same_in_several(audio: Sequence[dict], groups: Sequence[Hashable]) -> list[list[int]]:
    """Find recordings of one content that are in more than one group.

    Only what has the size of something in another group is opened, only what has the same beginning, middle and end is read through,
    a piece at a time, and a file with several names (hard links) once.

    Args:
        audio (sequence of `dict`): `{"bytes", "path"}` of each, undecoded.
        groups (sequence): of each, such as its split.

    Returns:
        Places of those of one content, for each content that is in several groups.

    Raises:
        OSError: for a file that is not there.
    """
    classes = [list(range(len(audio)))]
    files = [None if item["bytes"] is not None else os.stat(item["path"]) for item in audio]

    def size(place: int) -> int:
        return len(audio[place]["bytes"]) if files[place] is None else files[place].st_size

    def file(place: int) -> Hashable:
        # Where a system numbers no files, each path is one.
        of_file = files[place]
        return (
            place if of_file is None else (of_file.st_dev, of_file.st_ino) if of_file.st_ino else audio[place]["path"]
        )

    digests: dict[tuple[Hashable, bool], bytes] = {}

    def digest(place: int, whole: bool) -> bytes:
        key = file(place), whole
        if key not in digests:
            digests[key] = _digest(audio[place], whole)
        return digests[key]

    for told in (size, lambda place: digest(place, False), lambda place: digest(place, True)):
        finer = []
        for places in classes:
            by_value = defaultdict(list)
            for place in places:
                by_value[told(place)].append(place)
            finer += by_value.values()
        classes = [places for places in finer if len({groups[place] for place in places}) > 1]
    return classes


def _digest(audio: dict, whole: bool) -> bytes:
    """SHA-256 of a recording as it is stored, or of its beginning, middle and end."""
    if audio["bytes"] is not None:
        return _digest_of(io.BytesIO(audio["bytes"]), whole)
    with open(audio["path"], "rb", opener=only_files) as file:
        return _digest_of(file, whole)


def _digest_of(file: BinaryIO, whole: bool) -> bytes:
    if whole:
        return hashlib.file_digest(file, "sha256").digest()
    size, digest = file.seek(0, os.SEEK_END), hashlib.sha256()
    for start in (0, size // 2, max(size - PIECE, 0)):
        file.seek(start)
        digest.update(file.read(PIECE))
    return digest.digest()

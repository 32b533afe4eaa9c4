"""Undecoded audio columns read a batch at a time: paths, sizes and digests of all clips, each file looked at once."""

import hashlib
import os
from collections.abc import Iterator

import datasets
import pyarrow as pa
import pyarrow.compute as pc

from modeling_ast.system.regular_files import only_files

from .columns import column_batches


def audio_paths(rows: datasets.Dataset) -> list[str | None]:
    """List the paths of all clips.

    Args:
        rows (`datasets.Dataset`): with the column `"audio"`, undecoded.

    Returns:
        The path of each clip, `None` for one that is bytes without a name.
    """
    return [path for paths, _ in audio_batches(rows) for path in paths.to_pylist()]


def rows_without_audio(rows: datasets.Dataset) -> list[int]:
    """Find the rows that have neither a path nor bytes.

    Args:
        rows (`datasets.Dataset`): with the column `"audio"`, undecoded.

    Returns:
        Their places, from 0.
    """
    empty = []
    for paths, contents in audio_batches(rows):
        empty += pc.and_(pc.is_null(paths), pc.is_null(contents)).to_pylist()
    return [row for row, nothing in enumerate(empty) if nothing]


def missing_files(rows: datasets.Dataset) -> list[str]:
    """Find the files that clips without bytes name and that are not there.

    Args:
        rows (`datasets.Dataset`): with the column `"audio"`, undecoded.

    Returns:
        Their paths, each once.
    """
    found: dict[str, None] = {}
    for paths, contents in audio_batches(rows):
        found |= dict.fromkeys(pc.filter(paths, pc.is_null(contents)).to_pylist())
    return [path for path in found if not os.path.isfile(path)]


def audio_sizes(rows: datasets.Dataset) -> list[int]:
    """Look up how large the clips are; a file that several rows name is looked up once.

    Args:
        rows (`datasets.Dataset`): with the column `"audio"`, undecoded.

    Returns:
        Bytes of each clip.

    Raises:
        OSError: for a file that is not there.
    """
    of_file: dict[str, int] = {}
    sizes = []
    for paths, contents in audio_batches(rows):
        for path, size in zip(paths.to_pylist(), pc.binary_length(contents).to_pylist(), strict=True):
            if size is None:
                if path not in of_file:
                    of_file[path] = os.path.getsize(path)
                size = of_file[path]
            sizes.append(size)
    return sizes


def audio_digests(rows: datasets.Dataset, num_bytes: int | None = None) -> list[bytes]:
    """Compute the SHA-256 of every clip as it is stored; a file that several rows name is read once, a piece at a time.

    Args:
        rows (`datasets.Dataset`): with the column `"audio"`, undecoded.
        num_bytes (`int`, *optional*): how much of each clip to look at, from its beginning; all if not given.

    Returns:
        32 bytes for each clip.

    Raises:
        OSError: for a file that is not there.
    """
    of_file: dict[str, bytes] = {}
    digests = []
    for paths, contents in audio_batches(rows):
        for path, content in zip(paths.to_pylist(), contents, strict=True):
            if content.is_valid:
                digests.append(hashlib.sha256(content.as_buffer()[:num_bytes]).digest())
                continue
            if path not in of_file:
                with open(path, "rb", opener=only_files) as file:
                    whole = num_bytes is None
                    digest = hashlib.file_digest(file, "sha256") if whole else hashlib.sha256(file.read(num_bytes))
                of_file[path] = digest.digest()
            digests.append(of_file[path])
    return digests


def audio_batches(rows: datasets.Dataset) -> Iterator[tuple[pa.Array, pa.Array]]:
    """Go through the clips in batches, without copying their content, which would take the memory of all of them.

    Args:
        rows (`datasets.Dataset`): with the column `"audio"`, undecoded.

    Returns:
        Paths and contents of the clips of a batch, one batch after the other; contents are null for clips that are
        files.
    """
    for audio in column_batches(rows, "audio"):
        yield pc.struct_field(audio, "path"), pc.struct_field(audio, "bytes")

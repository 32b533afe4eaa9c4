"""Files that appear under their name only when they are complete."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


@contextmanager
def open_atomically(path: str | os.PathLike, mode: str = "wb", **kwargs) -> Iterator[IO]:
    """Open a file for writing so that at every moment either the old one or the new one is there, whole.

    Args:
        path (`str` or `os.PathLike`): file to write; its folder must exist.
        mode (`str`, defaults to `"wb"`): a mode that writes a new file.
        kwargs: as `open`.

    Yields:
        The open file, under a temporary name in the same folder. It is synced and renamed at the end of the block, or
        removed if the block raises.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, mode, **kwargs) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)

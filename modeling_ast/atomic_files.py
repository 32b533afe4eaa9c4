"""Files and folders that appear under their name only when they are complete."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from .regular_files import refuse_special_output


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
    refuse_special_output(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, mode, **kwargs) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def make_folder_atomically(path: str | os.PathLike) -> Iterator[Path]:
    """Fill a new folder that nobody sees before it is complete.

    Args:
        path (`str` or `os.PathLike`): folder to make, see [`refuse_existing`]. Missing parents are made.

    Yields:
        The folder to fill, of the same name, inside a temporary one beside `path`. Its files are synced and it is renamed
        at the end of the block, or removed if the block raises.

    Raises:
        FileExistsError: if there is already something at `path`.
    """
    refuse_existing(path)
    path = Path(os.path.realpath(path))
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with make_parents(path):
        try:
            folder = temporary / path.name
            folder.mkdir(parents=True)
            yield folder
            for file in folder.iterdir():
                sync(file)
            os.replace(folder, path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def refuse_existing(path: str | os.PathLike):
    """Make sure that a new folder can be put somewhere: nothing is there, or an empty folder.

    Args:
        path (`str` or `os.PathLike`): where.

    Raises:
        FileExistsError: if something is there, a parent is a file, or the place is a mount point.
    """
    path = Path(path)
    if os.path.ismount(path):
        raise FileExistsError(
            f"{path} is a mount point, which cannot be replaced. Name a folder in it: {path / 'ast'}"
        )
    if any(parent.is_file() for parent in path.parents):
        raise FileExistsError(f"A part of {path} is a file, not a folder. Name another place.")
    if path.is_file() or (path.is_dir() and any(path.iterdir())):
        raise FileExistsError(f"{path} already exists. Name another one, or remove it first.")


@contextmanager
def make_parents(path: str | os.PathLike) -> Iterator[None]:
    """Make the missing parents of a path, and remove them again, as far as they are empty, if the block raises.

    Args:
        path (`str` or `os.PathLike`): whose parents are needed.
    """
    path = Path(path)
    missing = [parent for parent in path.parents if not parent.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        for parent in missing:
            with suppress(OSError):
                parent.rmdir()
        raise


def sync(path: str | os.PathLike):
    """Wait until a file or folder is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

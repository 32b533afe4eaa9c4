"""Files and folders that appear under their name only when they are complete, and others that are only for a while.

Until then they have random names that end in `.ast-tmp`, and their writer holds a lock on them, which dies with it (see
[`modeling_ast.system.run_lock`]). What has such a name and no lock was left by a run that was killed; the next one that
writes into the same folder removes it. Where there are no locks, it goes by age: what is older than a day was left. Of two
that write one file at once the last one wins, whole.

`tempfile` with `os.replace` does not do alone: it syncs neither the file nor its folder, and nothing tells what a killed run
left from what another process still writes.
"""

import errno
import os
import re
import secrets
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from .regular_files import refuse_special_output
from .run_lock import NoLocksError, is_at, lock, open_to_lock, shortened, unlock

TEMPORARY_SUFFIX = ".ast-tmp"
_RANDOM_BYTES = 8
_TEMPORARY_NAME = re.compile(rf".*\.[0-9a-f]{{{2 * _RANDOM_BYTES}}}{re.escape(TEMPORARY_SUFFIX)}", re.DOTALL)
OLDEST_ALIVE = 24 * 3600.0  # seconds; of what lies where there are no locks
LOOK_AGAIN = 10.0  # seconds until leftovers are looked for once more in a folder, whose files may be many
_IN_USE = ".in-use"  # the file in a temporary folder that is locked
_NOT_LOCKED = -1  # in place of a descriptor
_looked: dict[str, float] = {}  # when leftovers were looked for, by folder


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

    Raises:
        OSError: if the file cannot be written, which is told at the beginning as far as it can be known then.
    """
    path = Path(path)
    refuse_special_output(path)
    _refuse_impossible(path)
    remove_leftovers(path.parent)
    temporary, held = _new_name(path), None
    try:
        try:
            while (held := _create_locked(temporary)) is None:
                temporary = _new_name(path)
        except OSError as error:
            raise type(error)(error.errno, error.strerror, str(path)) from None
        with open(temporary, mode, **kwargs) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
        if held is not None:
            unlock(held)


@contextmanager
def make_folder_atomically(path: str | os.PathLike) -> Iterator[Path]:
    """Fill a new folder that nobody sees before it is complete.

    Args:
        path (`str` or `os.PathLike`): folder to make, see [`refuse_existing`]. Missing parents are made.

    Yields:
        The folder to fill, of the same name, inside a temporary one beside `path`. Its files are synced and it is renamed
        at the end of the block, or removed if the block raises.

    Raises:
        FileExistsError: if there is already something at `path`, or is at the end.
    """
    refuse_existing(path)
    path = Path(os.path.realpath(path))
    with make_parents(path), temporary_folder(path.name, path.parent) as temporary:
        folder = temporary / path.name
        folder.mkdir()
        yield folder
        for file in folder.iterdir():
            sync(file)
        try:
            os.replace(folder, path)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise
            raise FileExistsError(
                f"{path} was made by somebody else meanwhile, and is kept. Name another place, or remove it first."
            ) from None


@contextmanager
def temporary_folder(name: str, parent: str | os.PathLike | None = None) -> Iterator[Path]:
    """Make a folder for the time of the block, which only this user can look into where it is in the system's place.

    Args:
        name (`str`): what its name begins with.
        parent (`str` or `os.PathLike`, *optional*): where it is made, by default where Python puts temporary files
            (`TMPDIR`).

    Yields:
        The folder.
    """
    mode, prefix = (0o700, "") if parent is None else (0o777, ".")  # as of `tempfile`, or of what stands beside files
    parent = Path(tempfile.gettempdir() if parent is None else parent)
    remove_leftovers(parent)
    folder, held = _new_name(parent / name, prefix), None
    try:
        folder.mkdir(mode)
        while (held := _create_locked(folder / _IN_USE)) is None:
            folder = _new_name(parent / name, prefix)
            folder.mkdir(mode)
        yield folder
    finally:
        _remove_folder(folder)
        if held is not None:
            unlock(held)


def give_usual_mode(path: str | os.PathLike):
    """Let those read a file who may read what `open` makes beside it: safetensors 0.8 makes files for their owner alone.

    Args:
        path (`str` or `os.PathLike`): the file.
    """
    probe = _new_name(Path(path))
    descriptor = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)  # the umask cannot be asked for safely
    try:
        os.chmod(path, stat.S_IMODE(os.fstat(descriptor).st_mode))
    finally:
        os.close(descriptor)
        probe.unlink()


def remove_leftovers(folder: str | os.PathLike):
    """Remove from a folder what killed runs left there; what is being written stays, and so does what is not this user's.

    Args:
        folder (`str` or `os.PathLike`): where this process writes; in one that it wrote into just now it does not look again.
    """
    key, now = os.path.abspath(folder), time.monotonic()
    if now - _looked.get(key, -LOOK_AGAIN) < LOOK_AGAIN:
        return
    _looked[key] = now
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in [entry for entry in entries if _TEMPORARY_NAME.fullmatch(entry.name)]:
            with suppress(OSError):
                _remove_if_left(Path(entry.path))


def _remove_if_left(path: Path):
    status = path.lstat()
    if hasattr(os, "getuid") and status.st_uid != os.getuid():
        return
    is_folder = path.is_dir() and not path.is_symlink()
    locked = path / _IN_USE if is_folder else path
    try:
        descriptor = open_to_lock(locked)
    except FileNotFoundError:
        path.rmdir()  # it is empty: its maker was killed before it locked it, or is just about to and will make another
        return
    try:
        try:
            is_left = lock(descriptor)
        except NoLocksError:
            is_left = time.time() - os.fstat(descriptor).st_mtime > OLDEST_ALIVE
        if is_left and is_folder:
            _remove_folder(path)
        elif is_left:
            path.unlink()
    finally:
        unlock(descriptor)


def _remove_folder(folder: Path):
    """Remove a temporary folder, the file that is locked last: if this is killed too, the rest is still known for what it
    is."""
    with suppress(OSError):
        for path in folder.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            elif path.name != _IN_USE:
                path.unlink()
    with suppress(OSError):
        (folder / _IN_USE).unlink()
    with suppress(OSError):
        folder.rmdir()


def _create_locked(path: Path) -> int | None:
    """Make a file that is known as in use; `None` if somebody took it for a leftover before it was locked."""
    try:
        held = open_to_lock(path, os.O_CREAT | os.O_EXCL)
    except FileNotFoundError:
        if path.name == _IN_USE and not path.parent.exists():
            return None
        raise
    try:
        if lock(held) and is_at(held, path):
            return held
    except NoLocksError:
        unlock(held)
        return _NOT_LOCKED
    unlock(held)
    return None


def _new_name(path: Path, prefix: str = ".") -> Path:
    return path.with_name(f"{prefix}{shortened(path.name)}.{secrets.token_hex(_RANDOM_BYTES)}{TEMPORARY_SUFFIX}")


def _refuse_impossible(path: Path):
    """Raise now what renaming to this name would raise in the end."""
    with suppress(FileNotFoundError):
        os.lstat(path)  # a name that is too long
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))


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

    Returns:
        A context manager.
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
    """Wait until a file or folder is on the disk.

    Args:
        path (`str` or `os.PathLike`): the file or folder.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""Locks that die with their process: on temporary files while they are written, and on an output for a whole run.

They are `flock` locks. Other than those of `fcntl.lockf` they hold between two threads, stay when the file is opened and
closed once more, and can be kept from forked processes, such as loader workers, that outlive a killed parent. On a network
disk they hold between machines where its server keeps locks (NFS 4; NFS 3 with lockd; Lustre mounted with flock). Not
covered: file systems that keep locks for each machine alone (s3fs, gcsfuse, NFS with local_lock), and Windows.

`filelock.FileLock` does not do: it locks a file of its own, which a killed run leaves, where here the temporary file itself
is locked, and it does not say who holds an output.
"""

import errno
import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

LOCK_NAME = ".ast-lock"  # of the lock in a folder; `.NAME.ast-lock` lies beside a file
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.EBADF)
_open: set[int] = set()  # descriptors, which a forked process closes: a lock lasts until nobody has it open
_said: set[Path] = set()  # of which folders it was said that they have no locks


class LockedError(ValueError):
    """Another run is writing there; the message says which, and what to do."""


class NoLocksError(OSError):
    """The file system, or Python on this system, has no locks."""


def open_to_lock(path: str | os.PathLike, flags: int = 0) -> int:
    """Open a file, for writing as network disks need it, to be locked and closed with [`unlock`].

    Args:
        path (`str` or `os.PathLike`): the file; no link.
        flags (`int`, defaults to 0): more flags of `os.open`.

    Returns:
        Its descriptor, which forked processes close.
    """
    descriptor = os.open(path, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0) | flags, 0o666)
    _open.add(descriptor)
    return descriptor


def lock(descriptor: int) -> bool:
    """Lock an open file until it is unlocked with [`unlock`] or the process ends, however it does.

    Args:
        descriptor (`int`): from [`open_to_lock`].

    Returns:
        Whether it was free.

    Raises:
        NoLocksError: if there are no locks.
    """
    if fcntl is None:
        raise NoLocksError(errno.ENOSYS, "Python has no locks of files on this system")
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES, errno.EAGAIN):  # some network disks say it otherwise
            return False
        if error.errno in _NO_LOCKS:
            raise NoLocksError(error.errno, error.strerror) from None
        raise
    return True


def unlock(descriptor: int):
    """Close what [`open_to_lock`] opened; in a forked process it is closed already.

    Args:
        descriptor (`int`): from [`open_to_lock`].
    """
    if descriptor in _open:
        _open.remove(descriptor)
        os.close(descriptor)


def is_at(descriptor: int, path: str | os.PathLike) -> bool:
    """Tell whether an open file is still the one that has this name.

    Args:
        descriptor (`int`): of the open file.
        path (`str` or `os.PathLike`): the name.

    Returns:
        `bool`.
    """
    try:
        there = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return os.path.samestat(os.fstat(descriptor), there)


@contextmanager
def hold_lock(output: str | os.PathLike, program: str, inside: bool = False) -> Iterator[None]:
    """Keep other runs from writing to the same place.

    The lock is a small file that names its holder. It is removed at the end of the block; one that a killed run left is
    taken over. Where the file system has no locks, the block runs all the same, and standard error says so once.

    Args:
        output (`str` or `os.PathLike`): file or folder that is written; the folder it lies in must exist.
        program (`str`): who writes, for the message.
        inside (`bool`, defaults to `False`): whether the lock lies in the folder `output`, which must exist, and not beside
            it: it then holds by whatever way runs come there, such as mounts of several containers.

    Returns:
        A context manager.

    Raises:
        LockedError: if another run holds it; the message names its host, its process and since when.
        OSError: if the lock cannot be written.
    """
    path = lock_path(output, inside)
    descriptor = _take(path, output, program)
    try:
        yield
    finally:
        if descriptor in _open:
            with suppress(OSError):  # of a disk that is gone or became read-only
                path.unlink()
            unlock(descriptor)


def lock_path(output: str | os.PathLike, inside: bool = False) -> Path:
    """Name the file of an output's lock.

    Args:
        output (`str` or `os.PathLike`): see [`hold_lock`].
        inside (`bool`, defaults to `False`): see [`hold_lock`].

    Returns:
        `Path`.
    """
    output = Path(output)
    if inside:
        return output / LOCK_NAME
    output = Path(os.path.realpath(output))
    return output.with_name(f".{shortened(output.name)}{LOCK_NAME}")


def refuse_locked(output: str | os.PathLike, inside: bool = False):
    """Make sure that no run is writing to a place now.

    Args:
        output (`str` or `os.PathLike`): see [`hold_lock`].
        inside (`bool`, defaults to `False`): see [`hold_lock`].

    Raises:
        LockedError: if one is.
    """
    path = lock_path(output, inside)
    try:
        descriptor = open_to_lock(path)
    except OSError:  # there is none, or no place for one
        return
    try:
        with suppress(NoLocksError):
            if not lock(descriptor):
                raise LockedError(_in_words(path, output))
    finally:
        unlock(descriptor)


def shortened(name: str, limit: int = 100) -> str:
    """Take the beginning of a file's name: a name made from it is none too long for a disk.

    Args:
        name (`str`): the file's name.
        limit (`int`, defaults to 100): bytes; a character is not cut.

    Returns:
        The name, of at most `limit` bytes.
    """
    return name if len(os.fsencode(name)) <= limit else os.fsencode(name)[:limit].decode(errors="ignore")


def _take(path: Path, output: str | os.PathLike, program: str) -> int:
    while True:
        try:
            descriptor = open_to_lock(path, os.O_CREAT)
        except OSError as error:
            raise type(error)(error.errno, error.strerror, str(output)) from None
        try:
            if not lock(descriptor):
                unlock(descriptor)
                raise LockedError(_in_words(path, output))
        except NoLocksError:
            unlock(descriptor)
            path.unlink(missing_ok=True)
            _say_once(path.parent, program)
            return -1
        if is_at(descriptor, path):
            break
        unlock(descriptor)  # its holder ended, and removed it, just now
    now = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
    holder = {"program": program, "host": socket.gethostname(), "process": os.getpid(), "since": now}
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(holder).encode(), 0)
    return descriptor


def _say_once(folder: Path, program: str):
    if folder not in _said:
        _said.add(folder)
        print(
            f"{program}: the file system of {folder} has no locks: another run that writes there at the same time is not "
            "noticed.",
            file=sys.stderr,
        )


def _in_words(path: Path, output: str | os.PathLike) -> str:
    """Who holds a lock; who has it only just now may not have written it yet."""
    for _ in range(20):
        with suppress(OSError, ValueError, KeyError, TypeError):
            holder = json.loads(path.read_text(encoding="utf-8"))
            process = f"{holder['program']}, process {holder['process']} on {holder['host']}"
            who = f"{process}, since {holder['since']}"
            break
        time.sleep(0.01)
    else:
        who = "another run"
    return f"{output} is being written by {who}. Wait for its end, end it, or name another place."


def _close_in_child():
    for descriptor in _open:
        with suppress(OSError):
            os.close(descriptor)
    _open.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_child)

"""Only files are opened as files: opening a named pipe waits for whoever writes into it, and a device has no end."""

import errno
import os
import stat
from pathlib import Path

_KINDS = {
    stat.S_IFIFO: "a pipe, not a file. Save what comes out of it to a file, and pass that.",
    stat.S_IFCHR: "a device, not a file.",
    stat.S_IFBLK: "a device, not a file.",
    stat.S_IFSOCK: "a socket, not a file.",
}


class SpecialFileError(OSError):
    """What was given as a file is a pipe, a device, a socket or a link in a circle; the message names it."""


def only_files(path: str | os.PathLike, flags: int) -> int:
    """The `opener` of `open` that refuses what is no file, without waiting for it, and leaves no gap between look and opening.

    Args:
        path (`str` or `os.PathLike`): the file.
        flags (`int`): of `os.open`.

    Returns:
        The descriptor.

    Raises:
        SpecialFileError: for a pipe, a device, a socket or a link that leads in a circle.
    """
    refuse_special(path)  # opening a device may already do something to it
    descriptor = os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
    kind = _kind(os.fstat(descriptor).st_mode)
    if kind is not None:
        os.close(descriptor)
        raise SpecialFileError(f"{os.fspath(path)} is {kind}")
    return descriptor


def refuse_special(path: str | os.PathLike):
    """Refuse what would be waited for or read without end; files, folders and what is not there pass.

    Args:
        path (`str` or `os.PathLike`): links are followed.

    Raises:
        SpecialFileError: for a pipe, a device, a socket or a link that leads in a circle.
    """
    kind = what_is_special(path)
    if kind is not None:
        raise SpecialFileError(f"{os.fspath(path)} is {kind}")


def refuse_special_output(path: str | os.PathLike):
    """Refuse to write where the new file would take the place of a device, /dev/null for everybody, or of a pipe.

    Args:
        path (`str` or `os.PathLike`): what is to be written.

    Raises:
        SpecialFileError: if something that is no file or folder is there.
    """
    if what_is_special(path) is not None:
        raise SpecialFileError(f"{os.fspath(path)} is no file and would be replaced by one. Pass the name of a file.")


def refuse_special_in(folder: str | os.PathLike):
    """[`refuse_special`] for each entry of a folder, hidden ones aside, before a library opens some of them by their names.

    Args:
        folder (`str` or `os.PathLike`): nothing is done if it is none.
    """
    if os.path.isdir(folder):
        for name in sorted(os.listdir(folder)):
            if not name.startswith("."):
                refuse_special(Path(folder, name))


def what_is_special(path: str | os.PathLike) -> str | None:
    """Tell what something is that cannot be opened as a file.

    Args:
        path (`str` or `os.PathLike`): links are followed.

    Returns:
        What a sentence says after "is"; `None` for anything else.
    """
    try:
        return _kind(os.stat(path).st_mode)
    except OSError as error:
        return (
            "a link that leads in a circle. Let it lead to a file, or remove it."
            if error.errno == errno.ELOOP
            else None
        )
    except ValueError:  # a zero byte in the name
        return None


def _kind(mode: int) -> str | None:
    return _KINDS.get(stat.S_IFMT(mode))

"""Whether an error says that memory is full, or that a process was ended from outside, as it is where memory is full."""

import errno
import re

import torch

_MEMORY_WORDS = ("can't allocate memory", "out of memory", "OutOfMemoryError", "std::bad_alloc")
# What a loader says of its processes.
_READER_TERMINATED = "is killed by signal: Terminated"
_READER_KILLED = re.compile(r"DataLoader worker \(pid\(?s?\)? [\d, ]+\) .*(killed by signal|exited unexpectedly)")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that there is not enough memory, on an accelerator, the host, or in a loader's worker.

    Args:
        error (`BaseException`): of any kind.

    Returns:
        `bool`: whether it does.
    """
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _MEMORY_WORDS)


def reader_terminated(error: BaseException) -> bool:
    """Whether an error says that a process which reads clips was asked to end by somebody else.

    Args:
        error (`BaseException`): of any kind.

    Returns:
        `bool`: whether it does.
    """
    return isinstance(error, RuntimeError) and _READER_TERMINATED in str(error)


def reader_killed(error: BaseException) -> bool:
    """Whether an error says that a process which reads clips was killed, as systems do where memory is full.

    Args:
        error (`BaseException`): of any kind.

    Returns:
        `bool`: whether it does; not where [`reader_terminated`].
    """
    return isinstance(error, RuntimeError) and bool(_READER_KILLED.search(str(error))) and not reader_terminated(error)

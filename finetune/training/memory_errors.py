"""Whether an error says that memory is full."""

import errno

import torch

_MEMORY_WORDS = ("can't allocate memory", "out of memory", "OutOfMemoryError", "std::bad_alloc")


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

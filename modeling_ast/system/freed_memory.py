"""What the C library does with memory that was freed: kept for the next pass of a model, in place of given back to the system.

A model's pass takes and frees the same tensors of some MB over and over. glibc hands such memory back, and each time the system has
to fill new pages with zeros, which can take a tenth of a pass of a small model and more.
"""

import ctypes
import os

# Parameters of glibc's `mallopt`, from its header `malloc.h`.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
# Bytes: what is larger comes from the system and goes back to it at once. Before glibc 2.35 no more may be asked for (`mallopt(3)`).
LARGEST_KEPT = 32 * 2**20
MOST_KEPT = 256 * 2**20  # bytes that lie free at the end of the heap; beyond them they go back
# By these a user tells glibc what to do.
_SAID_OTHERWISE = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TOP_PAD_", "MALLOC_MMAP_MAX_")


def keep_freed_memory() -> bool:
    """Have this process keep memory that it freed, up to `MOST_KEPT`. Processes that it forks off do so, too.

    Returns:
        `bool`: whether it does; not where the C library is not glibc, or the user told glibc by the environment what to do.
    """
    if any(name in os.environ for name in _SAID_OTHERWISE) or "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", ""):
        return False
    try:
        libc = ctypes.CDLL(None)
        mallopt = libc.mallopt
        libc.gnu_get_libc_version  # noqa: B018 - another library's `mallopt` may have other numbers
    except (OSError, TypeError, AttributeError):  # TypeError: on Windows there is no library without a name
        return False
    return bool(mallopt(_MMAP_THRESHOLD, LARGEST_KEPT) and mallopt(_TRIM_THRESHOLD, MOST_KEPT))

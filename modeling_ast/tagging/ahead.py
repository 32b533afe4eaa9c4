"""Files that are decoded by other threads while the model works: libsndfile, soxr and PyTorch leave Python's lock while they do.

What is ahead is bounded by bytes of the files, not by their number, so that memory does not grow with either. A large file is
heard block by block when its turn comes.
"""

import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

from ..audio.reading import SoundStream

MOST_AHEAD = 64  # files
BYTES_AHEAD = 1 << 23  # of all files that are decoded ahead; at 6 kbit/s three hours of speech
LARGEST_AHEAD = 1 << 21  # bytes of a file
MOST_THREADS = 4  # more are of no use beside one that holds Python's lock half of its time


def decoding_threads() -> int:
    """Tell by how many threads files are decoded ahead.

    Returns:
        `int`: one for each processor that the model's thread leaves, 4 at most; 0 where there is one processor, or the user
        gave a process one (`OMP_NUM_THREADS=1`).
    """
    return 0 if os.environ.get("OMP_NUM_THREADS") == "1" else min(processors() - 1, MOST_THREADS)


def threads_beside(processes: int, on_cpu: bool) -> int:
    """Tell by how many threads each of several processes decodes ahead.

    Args:
        processes (`int`): of this machine, which share its processors.
        on_cpu (`bool`): whether the model takes a processor, too.

    Returns:
        `int`: what is left for each, 4 at most; one at least where the model is on another device, which else would wait.
    """
    share = processors() // processes - 1
    return min(max(share, 0 if on_cpu else 1), MOST_THREADS)


def processors() -> int:
    """Count the processors that this process may use.

    Returns:
        `int`.
    """
    has = getattr(os, "sched_getaffinity", None)
    return len(has(0)) if has else os.cpu_count() or 1


def ahead(streams: Iterable[SoundStream], threads: int) -> Iterator[SoundStream]:
    """Have files decoded some way ahead of whoever takes them.

    Args:
        streams (iterable of [`SoundStream`]): of the files, in their order.
        threads (`int`): how many decode; 0 for none, where each file is decoded when its turn comes.

    Yields:
        The same, in the same order.
    """
    if not threads:
        yield from streams
        return
    pool = ThreadPoolExecutor(threads, "ast-decoding")
    waiting: deque[tuple[SoundStream, int]] = deque()
    held = 0
    try:
        for stream in streams:
            size = _size(stream.source)
            while waiting and (len(waiting) == MOST_AHEAD or held + size > BYTES_AHEAD):
                first, its_size = waiting.popleft()
                held -= its_size
                yield first
            if size <= LARGEST_AHEAD:
                stream.hear_ahead(pool)
            else:
                size = 0  # nothing of it is held
            waiting.append((stream, size))
            held += size
        while waiting:
            yield waiting.popleft()[0]
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _size(source) -> int:
    if isinstance(source, dict):
        content = source.get("bytes")
        return len(content) if content is not None else _size(source.get("path"))
    try:
        return os.stat(source).st_size
    except (OSError, TypeError, ValueError):
        return 0  # whoever opens it says in words what is wrong

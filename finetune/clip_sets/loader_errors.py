"""Errors of a loader's processes hold nothing that has to be waited for when it is freed."""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

_MODULES_OF_LOADERS = ("torch.utils.data.", "torch._utils", "accelerate.data_loader")


@contextmanager
def loader_errors() -> Iterator[None]:
    """Let an error that a `DataLoader` raises pass without what the loader's own frames hold; its traceback stays whole.

    torch raises the error of a process from a frame that keeps the error (`ExceptionWrapper.reraise`), a cycle that holds the
    loader's iterator too. It would be left to the garbage collector, which closes the queues to the processes before the
    iterator uses them to let these end; the iterator then waits five seconds for each of them.
    """
    try:
        yield
    except Exception as error:
        traceback.clear_frames(_frames_of_loader(error.__traceback__))
        raise


def _frames_of_loader(trace: TracebackType | None) -> TracebackType | None:
    """The part of a traceback from which on all frames are those of a loader; none where a loader did not raise it."""
    first = None
    while trace is not None:
        of_loader = trace.tb_frame.f_globals.get("__name__", "").startswith(_MODULES_OF_LOADERS)
        first = (first or trace) if of_loader else None
        trace = trace.tb_next
    return first

"""Ctrl-C, SIGTERM and SIGHUP end a command alike: with its clean-up and in words. A second signal does not wait.

What is done where nothing may be broken off, such as the steps of a training, puts the end off with [`put_off`] and asks
with [`raise_if_interrupted`] when it may come: a handler may run where Python swallows what it raises.
"""

import _thread
import functools
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

DELIVER_AGAIN = 0.05  # seconds after an interruption that was raised where Python cannot raise
_NAMES = ("SIGINT", "SIGTERM", "SIGHUP")  # Windows has no SIGHUP

# Signals belong to the process, and so does what is known of them.
_received: list[signal.Signals] = []
_is_put_off = False
_comes_again = False  # a signal whose exception Python dropped


class Interrupted(KeyboardInterrupt):
    """The program was asked to end.

    Args:
        number (`signal.Signals`): by which signal.
    """

    def __init__(self, number: signal.Signals):
        super().__init__(number)
        self.number = number


@contextmanager
def interruptions() -> Iterator[None]:
    """Let Ctrl-C, SIGTERM, as schedulers send it, and the end of the terminal raise [`Interrupted`].

    A signal that is ignored, as SIGHUP by `nohup`, stays ignored. In other threads than the main one, which alone gets
    signals, and inside another such block nothing is changed.

    Returns:
        A context manager.
    """
    numbers = [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]
    numbers = [number for number in numbers if signal.getsignal(number) not in (signal.SIG_IGN, None)]
    is_nested = any(signal.getsignal(number) is _interrupt for number in numbers)
    if is_nested or threading.current_thread() is not threading.main_thread():
        yield
        return
    global _comes_again
    put_off(False)
    before = {number: signal.signal(number, _interrupt) for number in numbers}
    hook_before = sys.unraisablehook
    sys.unraisablehook = functools.partial(_deliver_again, hook_before)
    try:
        yield
    finally:
        sys.unraisablehook = hook_before
        for number, handler in before.items():
            signal.signal(number, handler)
        _received.clear()
        _comes_again = False
        put_off(False)


def put_off(until_asked: bool):
    """Let the first signal wait until [`raise_if_interrupted`] is called, or no longer.

    Args:
        until_asked (`bool`): which of the two.
    """
    global _is_put_off
    _is_put_off = until_asked


def raise_if_interrupted():
    """End what is done if a signal came in [`interruptions`].

    Raises:
        Interrupted: if one came.
    """
    if _received:
        raise Interrupted(_received[-1])


def signal_of(error: BaseException) -> signal.Signals | None:
    """Tell by which signal the program was asked to end, also if the error is one of loader workers that ended by it.

    Args:
        error (`BaseException`): what ended it.

    Returns:
        The signal; `None` if it was none.
    """
    if isinstance(error, Interrupted):
        return error.number
    if isinstance(error, KeyboardInterrupt):
        return signal.SIGINT
    return _received[-1] if _received and "DataLoader worker" in str(error) else None


def last_signal() -> signal.Signals | None:
    """Tell which signal came in [`interruptions`], whatever was made of it.

    Libraries that are being imported turn what it raises into errors of their own.

    Returns:
        The signal; `None` if none came.
    """
    return _received[-1] if _received else None


def _interrupt(number: int, frame):
    global _comes_again
    if not _comes_again:
        _received.append(signal.Signals(number))
    _comes_again = False
    # Loader workers get the signal too, and torch would take their end for a failure.
    if hasattr(signal, "SIGCHLD"):
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if not _is_put_off or len(_received) > 1:
        raise_if_interrupted()


def _deliver_again(other: Callable, unraisable):
    """Python drops what is raised in a destructor, or in a callback of an import: it is raised once more, a little later."""
    if not isinstance(unraisable.exc_value, Interrupted):
        other(unraisable)
        return
    global _comes_again
    _comes_again = True  # and is no second signal
    # `threading.Thread` waits for its beginning, and the signal could come in here, where Python drops it once more.
    _thread.start_new_thread(_send_again, (unraisable.exc_value.number,))


def _send_again(number: signal.Signals):
    time.sleep(DELIVER_AGAIN)
    if _comes_again:  # else the block is over, and with it what takes the signal
        os.kill(os.getpid(), number)

"""Ctrl-C and SIGTERM end a training alike: with its clean-up and in words.

A signal's handler may run where Python swallows what it raises, such as a garbage collector's callback. So the signal is
remembered too, and raised again at the end of the step.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from transformers import TrainerCallback

_received: list[signal.Signals] = []  # of the process, to which signals belong


class Interrupted(KeyboardInterrupt):
    """The program was asked to end.

    Args:
        number (`signal.Signals`): by which signal.
    """

    def __init__(self, number: signal.Signals):
        super().__init__(number)
        self.number = number


class InterruptionCheck(TrainerCallback):
    """Raises an interruption that got lost, after each step and each batch of an evaluation."""

    def on_step_end(self, args, state, control, **kwargs):
        raise_if_interrupted()

    def on_substep_end(self, args, state, control, **kwargs):
        raise_if_interrupted()

    def on_prediction_step(self, args, state, control, **kwargs):
        raise_if_interrupted()


@contextmanager
def interruptions() -> Iterator[None]:
    """Let SIGTERM, as schedulers send it, and Ctrl-C raise [`Interrupted`]; a signal that is ignored stays ignored."""
    if threading.current_thread() is not threading.main_thread():  # the only one that gets signals
        yield
        return
    numbers = [number for number in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, _interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _received.clear()


def raise_if_interrupted():
    """Raise the [`Interrupted`] of a signal that came in [`interruptions`]."""
    if _received:
        raise Interrupted(_received[-1])


def signal_of(error: KeyboardInterrupt) -> signal.Signals:
    """The signal by which the program was asked to end."""
    return error.number if isinstance(error, Interrupted) else signal.SIGINT


def _interrupt(number: int, frame):
    _received.append(signal.Signals(number))
    # Loader workers get the signal too, and torch would take their end for a failure.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    raise_if_interrupted()

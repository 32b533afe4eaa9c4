"""Ctrl-C and SIGTERM end a training alike: with its clean-up and in words.

In a training the signal only takes effect at the end of the step, or of the checkpoint that is being written: a handler
may run where Python swallows what it raises. A second signal does not wait.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from transformers import TrainerCallback

# Signals belong to the process, and so does what is known of them.
_received: list[signal.Signals] = []
_trainings: list[TrainerCallback] = []  # that look for a signal at the end of each step


class Interrupted(KeyboardInterrupt):
    """The program was asked to end.

    Args:
        number (`signal.Signals`): by which signal.
    """

    def __init__(self, number: signal.Signals):
        super().__init__(number)
        self.number = number


class InterruptionCheck(TrainerCallback):
    """Raises [`Interrupted`] after the step, checkpoint or batch of an evaluation in which a signal came."""

    def on_train_begin(self, args, state, control, **kwargs):
        _trainings[:] = [self]

    def on_train_end(self, args, state, control, **kwargs):
        _trainings.clear()
        raise_if_interrupted()

    def on_step_end(self, args, state, control, **kwargs):
        raise_if_interrupted()

    def on_substep_end(self, args, state, control, **kwargs):
        raise_if_interrupted()

    def on_save(self, args, state, control, **kwargs):
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
        _trainings.clear()


def raise_if_interrupted():
    """Raise the [`Interrupted`] of a signal that came in [`interruptions`]."""
    if _received:
        raise Interrupted(_received[-1])


def signal_of(error: BaseException) -> signal.Signals | None:
    """The signal by which the program was asked to end, also if the error is one of loader workers that ended by it.

    Args:
        error (`BaseException`): what ended it.
    """
    if isinstance(error, Interrupted):
        return error.number
    if isinstance(error, KeyboardInterrupt):
        return signal.SIGINT
    return _received[-1] if _received and "DataLoader worker" in str(error) else None


def _interrupt(number: int, frame):
    _received.append(signal.Signals(number))
    # Loader workers get the signal too, and torch would take their end for a failure.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if not _trainings or len(_received) > 1:
        raise_if_interrupted()

"""Processes that tag blocks of one run: those of `accelerate launch`, and on a CPU those that a process forks off itself."""

import multiprocessing
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass

from ..system.interruption import signal_of
from .backends import choose_device
from .errors import TaggingError


@dataclass(frozen=True)
class Place:
    """Which process this is.

    Args:
        rank (`int`): its number among those of `accelerate launch`, from 0 on.
        world (`int`): how many these are.
        of_machine (`int`): how many of these run on this machine.
    """

    rank: int = 0
    world: int = 1
    of_machine: int = 1


def place_of_process(device: str) -> Place:
    """Ask Accelerate which of its processes this is, which also gives each its own GPU.

    Args:
        device (`str`): what was passed as `--device`.

    Returns:
        [`Place`]: the only one, where nobody launched several.

    Raises:
        TaggingError: if Accelerate is not installed, or the device is not there.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return Place()
    try:
        from accelerate import PartialState
    except ImportError:
        raise TaggingError("Several processes need Accelerate. Type: pip install accelerate") from None
    state = PartialState(cpu=choose_device(device).type == "cpu")
    of_machine = int(os.environ.get("LOCAL_WORLD_SIZE", state.num_processes))
    return Place(state.process_index, state.num_processes, of_machine)


def is_launched() -> bool:
    """Tell whether a launcher such as `accelerate launch` or `torchrun` started this process, also if it is the only one.

    Returns:
        `bool`.
    """
    return "LOCAL_RANK" in os.environ or "ACCELERATE_MIXED_PRECISION" in os.environ


def in_processes(work: Callable[[int], None], number: int) -> None:
    """Have forked processes and this one do the same work, which they divide among themselves; wait for all of them.

    Args:
        work (callable): called with the number of a process, from 0 on; this one is 0.
        number (`int`): how many processes there are with this one.

    Raises:
        OSError: if no process can be made.
    """
    context = multiprocessing.get_context("fork") if number > 1 else None
    parent = os.getpid()
    others = [context.Process(target=_other, args=(work, each, parent)) for each in range(1, number)]
    try:
        for other in others:
            other.start()
        work(0)
        for other in others:
            other.join()
    finally:
        for other in others:
            if other.is_alive():
                other.terminate()
                other.join()
    lost = [other for other in others if other.exitcode]
    if lost:
        print(
            f"ast-tag: {len(lost)} of {number} processes ended early; this one does what they left.", file=sys.stderr
        )
        work(0)


def _other(work: Callable[[int], None], number: int, parent: int):
    """A forked process: it ends with its parent, and without a word when that ends it."""
    try:
        work(number)
    except BaseException as error:
        if signal_of(error) is None and os.getppid() == parent:
            print(f"ast-tag: {error}", file=sys.stderr)
        sys.stderr.flush()
        os._exit(1)


def end_without(parent: int) -> None:
    """End a forked process whose parent is gone, as nobody waits for it.

    Args:
        parent (`int`): number of the process that forked it off.
    """
    if os.getpid() != parent and os.getppid() != parent:
        os._exit(1)

"""How a command that trains ends, whichever it is."""

import gc
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import datasets
from accelerate import PartialState
from transformers.utils import logging

from modeling_ast.system.terminal import ended_by

from ..arguments.command_line import parse_arguments
from ..arguments.groups import Command, RunArguments
from ..failures.input_errors import InputError, input_errors_in_words
from ..failures.stopped_trainings import TrainingStoppedError
from ..results.pushing import NotPushedError
from ..training.checkpoint_files import ResumeError


def run_training_command(
    command: Command, argv: list[str] | None, run: Callable[[list[str], RunArguments], None]
) -> int:
    """Read the command line, do what it asks for, and say in words what went wrong.

    Args:
        command ([`Command`]): which it is.
        argv (`list[str]`, *optional*): arguments after the program's name, by default those of the process.
        run (`Callable`): does it, given the command line and what it says.

    Returns:
        `int`: 0; 2 for wrong input; 1 if a training, or what comes before it, failed; 3 if a run is whole but was not pushed;
        128 + the signal's number if interrupted.
    """
    argv = sys.argv[1:] if argv is None else argv
    logging.set_verbosity_error()
    logging.disable_progress_bar()  # of loading and saving; training has its own
    datasets.disable_progress_bars()
    try:
        with input_errors_in_words():
            arguments = parse_arguments(argv, command)
        with _imports_uncollected():
            run(argv, arguments)
    except (InputError, ResumeError) as error:
        return ended_by(command.name, error)
    except TrainingStoppedError as error:
        if not error.in_all_processes or PartialState().is_main_process:
            print(f"{command.name}: training stopped. {error}", file=sys.stderr)
        return error.exit_code
    except NotPushedError as error:
        print(f"{command.name}: the run was not pushed. {error}", file=sys.stderr)
        return error.exit_code
    return 0


@contextmanager
def _imports_uncollected() -> Iterator[None]:
    """Spare the garbage collector what was there before: the libraries alone take it a third of a second when `Trainer` begins."""
    if gc.get_freeze_count():  # whoever calls this has done so, and has it go on
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()

"""One run at a time in an output folder."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from accelerate import PartialState
from accelerate.utils import broadcast_object_list

from modeling_ast.system.run_lock import LockedError, hold_lock
from modeling_ast.system.terminal import WRONG_INPUT, exit_code_of

from ..arguments.groups import FINE_TUNING
from ..results.output_folder import make_output_dir, refuse_file
from .input_errors import InputError, said_of


@contextmanager
def held_output_dir(folder: str | os.PathLike, command: str = FINE_TUNING.name) -> Iterator[None]:
    """Keep other runs out of an output folder, which is made if it is not there, for as long as this one goes on.

    All processes of a launched training are one run; the main one holds the lock. Where the file system has no locks, see
    [`hold_lock`], another run is not noticed.

    Args:
        folder (`str` or `os.PathLike`): output folder.
        command (`str`, defaults to `"ast-finetune"`): what another run is told that holds it.

    Raises:
        InputError: if another run is writing into it, or the folder cannot be written, in all processes.
    """
    folder, refused, code = Path(folder), None, WRONG_INPUT
    with ExitStack() as held:
        if PartialState().is_main_process:
            try:
                refuse_file(folder)
                held.enter_context(make_output_dir(folder))
                held.enter_context(hold_lock(folder, f"a training ({command})", inside=True))
            except LockedError as error:
                refused = f"{error} Two trainings into one --output_dir would spoil each other."
            except (OSError, ValueError) as error:
                refused, code = said_of(error), exit_code_of(error, reading=True)
        if PartialState().num_processes > 1:
            refused, code = broadcast_object_list([refused, code])
        if refused:
            raise InputError(refused, code)
        yield

"""What is said of wrong input: one error for all of it, which tells what to type."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from modeling_ast.system.hub_answers import hub_answers
from modeling_ast.system.terminal import FAILED, WRONG_INPUT, exit_code_of, storage_failure_in_words

from ..arguments.groups import ModelArguments
from ..training.memory_errors import is_out_of_memory, reader_killed, reader_terminated

# What reading settings, loading clips and building a model raise for input that cannot be used.
INPUT_ERRORS = (ValueError, OSError, ImportError, RuntimeError, MemoryError)


class InputError(ValueError):
    """What was asked for cannot be done; nothing was trained.

    Args:
        message (`str`): in words.
        exit_code (`int`, defaults to 2): of the program; 1 where nothing is wrong with what was given.
    """

    def __init__(self, message: str, exit_code: int = WRONG_INPUT):
        super().__init__(message)
        self.exit_code = exit_code


@contextmanager
def input_errors_in_words(model_args: ModelArguments | None = None) -> Iterator[None]:
    """Turn whatever is wrong with the input, or keeps the Hub from giving it, into an [`InputError`].

    Args:
        model_args ([`ModelArguments`], *optional*): for what is said about memory, where they are known already.

    Raises:
        InputError: for one of `INPUT_ERRORS`; other errors pass.
    """
    try:
        with hub_answers():
            yield
    except INPUT_ERRORS as error:
        if is_out_of_memory(error):
            raise InputError(out_of_memory_before_training(error, model_args), FAILED) from error
        if ended := reader_ended_in_words(error):
            raise InputError(ended, FAILED) from error
        raise InputError(said_of(error), exit_code_of(error, reading=True)) from error


def said_of(error: Exception) -> str:
    """What an error says; that a disk is full, or a file may not be read or written, in words and with what to do.

    Args:
        error (`Exception`): one of `INPUT_ERRORS`.

    Returns:
        `str`: the words.
    """
    return (storage_failure_in_words(error) if isinstance(error, OSError) else None) or str(error)


def reader_ended_in_words(error: Exception) -> str | None:
    """What to type where a process that reads clips was ended from outside, before a training or in a scoring.

    Args:
        error (`Exception`): of any kind.

    Returns:
        The words; `None` for other errors.
    """
    if reader_terminated(error):
        return "A worker that reads clips was terminated from outside. Type the same command again."
    if reader_killed(error):
        return (
            "A worker that reads clips was killed, most likely because the memory of this machine was full. Pass "
            "--dataloader_num_workers 0."
        )
    return None


def out_of_memory_before_training(error: BaseException, model_args: ModelArguments | None) -> str:
    """What to type where there is not enough memory for the model itself.

    Args:
        error (`BaseException`): by which that was known.
        model_args ([`ModelArguments`], *optional*): the sizes that were given are named.

    Returns:
        `str`: the words.
    """
    where = "the accelerator" if isinstance(error, torch.OutOfMemoryError) else "this machine"
    said = str(error).strip().splitlines()
    words = f"The memory of {where} was full before a training began{f' ({said[0]})' if said else ''}."
    given = [f"--{name} {size}" for name, size in (model_args.sizes() if model_args else {}).items()]
    if model_args and model_args.model_name_or_path:
        given.insert(0, f"--model_name_or_path {model_args.model_name_or_path}")
    asked = f" Given were {' '.join(given)}." if given else ""
    return (
        f"{words}{asked} Train a smaller model, with a lower --num_hidden_layers or --hidden_size or from a smaller "
        "--model_name_or_path, or pass a lower --max_length."
    )

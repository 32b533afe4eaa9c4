"""What a command needs around it before libraries are imported, in containers with no home, cache or user."""

import logging
import os
import sys
import tempfile
import warnings

from .atomic_files import temporary_folder
from .freed_memory import keep_freed_memory

# What matplotlib says where its folders cannot be written to; it then makes one of its own, for as long as it runs.
_USELESS = ("mkdir -p failed for path", "Matplotlib created a temporary cache directory")
# Variables by which the Hub's libraries are told to stay offline.
OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")


def prepare_process(program: str):
    """Look for a folder for temporary files, which libraries want at their import, silence what is of no use, and keep memory
    that was freed.

    A second call does no more than the first.

    Args:
        program (`str`): the command's name, for messages.

    Raises:
        SystemExit: with 2, after a sentence on the error stream, if there is no such folder.
    """
    try:
        tempfile.gettempdir()
    except FileNotFoundError as error:
        print(
            f"{program}: {error.strerror}. Set TMPDIR to a folder that can be written to: TMPDIR=FOLDER {program} ...",
            file=sys.stderr,
        )
        raise SystemExit(2) from None
    # ONNX Runtime otherwise reports to its makers, and complains where it cannot store an identifier for that.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    logging.getLogger("matplotlib").addFilter(_is_of_use)
    warnings.filterwarnings("ignore", message=".*joblib will operate in serial mode")
    keep_freed_memory()


def _is_of_use(record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith(_USELESS)


def hub_hint(is_here: bool = False) -> str:
    """Tell what to add to an error of the Hub's libraries where they cannot write into their caches, or were told not to ask it.

    Args:
        is_here (`bool`, defaults to `False`): whether what was wanted is on this machine, so that the Hub has no part in it.

    Returns:
        A sentence with a space before it; empty where there is nothing to say.
    """
    home = os.environ.get("HF_HOME") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "huggingface"
    )
    for variable, name in (("HF_HUB_CACHE", "hub"), ("HF_DATASETS_CACHE", "datasets")):
        folder = os.environ.get(variable) or os.path.join(home, name)
        if not _can_be_written(folder):
            advice = variable if variable in os.environ else "HF_HOME"
            return f" {folder} cannot be written to: set {advice} to a folder that can."
    from huggingface_hub import constants

    if not is_here and constants.HF_HUB_OFFLINE and any(map(_is_on, OFFLINE)):
        return (
            f" The Hub was not asked, as {offline_variable()} is set: unset it to fetch what is not on this machine."
        )
    return ""


def offline_variable() -> str:
    """Tell which variable of the environment forbids to ask the Hub.

    Returns:
        Its name: the first of `OFFLINE` if none of them is set any more.
    """
    return next(filter(_is_on, OFFLINE), OFFLINE[0])


def _is_on(variable: str) -> bool:
    return os.environ.get(variable, "").upper() in ("1", "ON", "YES", "TRUE")


def _can_be_written(folder: str) -> bool:
    """Whether a folder takes new ones, or can be made, told by trying: permissions are not all that may forbid it."""
    while not os.path.lexists(folder) and os.path.dirname(folder) not in ("", folder):
        folder = os.path.dirname(folder)
    try:
        with temporary_folder("ast-kit", folder):
            return True
    except OSError:
        return False

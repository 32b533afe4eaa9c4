"""The names in the folder of a run that a training and what goes on with it have in common."""

import os
import time
from pathlib import Path

from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

# Folder in the output folder for what is being written; its name never looks like a checkpoint's.
UNFINISHED = ".unfinished"
IDENTITY_NAME = "run_identity.json"
# Settings of the training that may be others when a run is gone on with: an update is over the same clips however it is cut
# into micro-batches (see `halving_is_exact` for what may differ), and which weights are published changes none of them.
FREE_SETTINGS = (
    "epochs",
    "max_steps",
    "gradient_accumulation_steps",
    "load_best_model_at_end",
    "metric_for_best_model",
)
BEST_CHECKPOINT = "score of the best checkpoint"  # in a run's identity; none where none is chosen
# TensorBoard draws each folder in there as a curve; those of this kit are known by their name.
EVENTS_DIR, PREFIX_EVENTS_DIR = "runs", "ast-finetune_"


def checkpoints_in(folder: str | os.PathLike) -> list[Path]:
    """The folders `checkpoint-N` of a run, in the order of their steps.

    Args:
        folder (`str` or `os.PathLike`): output folder of a run.

    Returns:
        `list[Path]`: the folders.
    """
    found = [path for path in Path(folder).glob(f"{PREFIX_CHECKPOINT_DIR}-*") if path.is_dir()]
    return sorted((path for path in found if _number(path).isdecimal()), key=step_of)


def last_checkpoint(folder: str | os.PathLike) -> Path | None:
    """The last `checkpoint-N` of a run, `None` if it has none.

    Args:
        folder (`str` or `os.PathLike`): output folder of a run.

    Returns:
        `Path`, *optional*: the folder.
    """
    checkpoints = checkpoints_in(folder)
    return checkpoints[-1] if checkpoints else None


def step_of(checkpoint: Path) -> int:
    """N of a folder `checkpoint-N`.

    Args:
        checkpoint (`Path`): a folder `checkpoint-N`.

    Returns:
        `int`: optimiser steps up to it.
    """
    return int(_number(checkpoint))


def events_dir(folder: str | os.PathLike) -> str:
    """Where a run that begins now logs for TensorBoard: `runs/ast-finetune_DATE_TIME`.

    Args:
        folder (`str` or `os.PathLike`): output folder of a run.

    Returns:
        `str`: path of a folder that need not be there.
    """
    return os.path.join(folder, EVENTS_DIR, time.strftime(f"{PREFIX_EVENTS_DIR}%Y-%m-%d_%H-%M-%S"))


def _number(path: Path) -> str:
    return path.name.removeprefix(f"{PREFIX_CHECKPOINT_DIR}-")

"""Whether a training can go on from a checkpoint: its files are whole, its weights and optimiser state are numbers."""

import dataclasses
import pickle
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from transformers.trainer import (
    OPTIMIZER_NAME,
    OPTIMIZER_NAME_BIN,
    SCHEDULER_NAME,
    TRAINER_STATE_NAME,
    TRAINING_ARGS_NAME,
)
from transformers.trainer_callback import TrainerState
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from modeling_ast.checkpoints.fields import TEXT, TRUTH, Row, check_fields, number, or_none, read_json, whole

from .memory_errors import is_out_of_memory
from .run_folder import checkpoints_in, step_of

MOST = 1 << 60  # steps, clips, operations
_COUNT, _NUMBER = whole(0, MOST), or_none(number(-1e300, 1e300))
_HISTORY = Row(
    lambda value: isinstance(value, list) and all(isinstance(row, dict) for row in value), "a list of objects"
)
# Of `trainer_state.json`, which is taken as it is when a training goes on.
STATE_FIELDS = {
    "epoch": or_none(number(0, 1e9)),
    "global_step": _COUNT,
    "max_steps": _COUNT,
    "logging_steps": number(0, 1e18),
    "eval_steps": number(0, 1e18),
    "save_steps": number(0, 1e18),
    "train_batch_size": or_none(_COUNT),
    "num_train_epochs": number(0, 1e9),
    "num_input_tokens_seen": _NUMBER,
    "total_flos": number(0, 1e300),
    "log_history": _HISTORY,
    "best_metric": _NUMBER,
    "best_global_step": or_none(_COUNT),
    "best_model_checkpoint": or_none(TEXT),
    "is_local_process_zero": TRUTH,
    "is_world_process_zero": TRUTH,
    "trial_name": or_none(TEXT),
    "stateful_callbacks": Row(
        lambda value: isinstance(value, dict) and "TrainerControl" in value, "an object with TrainerControl"
    ),
}
OPTIMIZER_NAMES = (OPTIMIZER_NAME, OPTIMIZER_NAME_BIN)  # the second of FSDP


class ResumeError(ValueError):
    """A checkpoint that a training cannot go on from, as only shows when it is loaded; the message says what to type."""


def fault_of_files(checkpoint: Path, needs_all: bool = True) -> str | None:
    """What is wrong with the files that a training is resumed from, in words; `None` if nothing is.

    Args:
        checkpoint (`Path`): a folder `checkpoint-N`.
        needs_all (`bool`, defaults to `True`): whether weights, optimiser and schedule are in these files, and not in
            those of DeepSpeed.

    Returns:
        `str`, *optional*: the fault.
    """
    names = sorted(path.name for path in checkpoint.iterdir())
    for name in names:
        if name == TRAINING_ARGS_NAME:  # which nothing is resumed from
            continue
        fault = _fault_of_file(checkpoint / name)
        if fault is not None:
            return fault
    fault = _fault_of_state(checkpoint) if TRAINER_STATE_NAME in names else None
    if fault is not None or not needs_all:
        return fault
    if not any(name.endswith(".safetensors") for name in names):
        return "its weights are missing"
    if not any(name in names for name in OPTIMIZER_NAMES):
        return f"its {OPTIMIZER_NAME} is missing"
    return None if SCHEDULER_NAME in names else f"its {SCHEDULER_NAME} is missing"


def _fault_of_file(path: Path) -> str | None:
    read = _READERS.get(path.suffix)
    if read is None:
        return None
    try:
        read(path)
    except OSError as error:
        return f"its {path.name} cannot be read: {error.strerror or error}"
    except (ValueError, SafetensorError, zipfile.BadZipFile):
        return f"its {path.name} is cut off or damaged ({path.stat().st_size} bytes)"
    return None


def _fault_of_state(checkpoint: Path) -> str | None:
    state = read_json(checkpoint / TRAINER_STATE_NAME)
    if not isinstance(state, dict):
        return f"its {TRAINER_STATE_NAME} is no JSON object"
    unknown = sorted(state.keys() - {item.name for item in dataclasses.fields(TrainerState)})
    if unknown:
        return f"its {TRAINER_STATE_NAME} has the unknown field {unknown[0]!r:.60}"
    try:
        check_fields({"global_step": None} | state, STATE_FIELDS)
    except ValueError as error:
        return f"in its {TRAINER_STATE_NAME} {str(error).rstrip('.')}"
    if state["global_step"] != step_of(checkpoint):
        return f"its {TRAINER_STATE_NAME} is of step {state['global_step']}"
    return None


@contextmanager
def states_of_this_training(checkpoint: str | Path, what: str) -> Iterator[None]:
    """Say it in words if what is loaded in the block is whole but of another training, or of none.

    Args:
        checkpoint (`str` or `Path`): a folder `checkpoint-N`.
        what (`str`): that is loaded, for the message.

    Raises:
        ResumeError: for whatever libraries raise on it, but for memory that is full.
    """
    try:
        yield
    except (ValueError, TypeError, LookupError, AttributeError, RuntimeError, pickle.UnpicklingError) as error:
        if is_out_of_memory(error):
            raise
        reason = " ".join(str(error).split())
        raise ResumeError(
            f"{checkpoint} cannot be resumed from: its {what} are not of this training ({type(error).__name__}: {reason:.200}). "
            "Move it away, and the same command goes on from the one before it; or start anew with --overwrite_output_dir in "
            "place of --resume_from_checkpoint."
        ) from error


def fault_of_weights(checkpoint: Path, needs_files: bool = True) -> str | None:
    """Why the weights of a checkpoint cannot be loaded, in words; `None` if they can.

    Args:
        checkpoint (`Path`): a folder `checkpoint-N`, which need not be there.
        needs_files (`bool`, defaults to `True`): whether they are in safetensors files, and not in those of DeepSpeed.

    Returns:
        `str`, *optional*: the fault.
    """
    if not checkpoint.is_dir():
        return "it is not there"
    files = sorted(checkpoint.glob("*.safetensors"))
    if needs_files and not files:
        return "its weights are missing"
    return next(filter(None, map(_fault_of_file, files)), None)


def best_checkpoint(checkpoint: Path) -> Path | None:
    """The checkpoint that another one's state records as the best so far; `None` if it records none.

    It is looked for beside the other one first, as a run's folder may have been moved or be called by another path now.

    Args:
        checkpoint (`Path`): a folder `checkpoint-N` with the state of its training.

    Returns:
        `Path`, *optional*: a folder `checkpoint-N`, which need not be there any more.
    """
    state = read_json(checkpoint / TRAINER_STATE_NAME)
    recorded, step = state.get("best_model_checkpoint"), state.get("best_global_step")
    if recorded is None:
        return checkpoint.parent / f"{PREFIX_CHECKPOINT_DIR}-{step}" if step else None
    beside = checkpoint.parent / Path(recorded).name
    return Path(recorded) if Path(recorded).is_dir() and not beside.is_dir() else beside


def fault_of_values(checkpoint: Path) -> str | None:
    """Which values of a checkpoint are not numbers, in words; `None` if all are.

    Args:
        checkpoint (`Path`): a folder `checkpoint-N` whose files are whole.

    Returns:
        `str`, *optional*: the fault.
    """
    for path in sorted(checkpoint.glob("*.safetensors")):
        if not all(_is_finite(tensor) for tensor in _weights(path)):
            return "its weights are not numbers"
    for name in OPTIMIZER_NAMES:
        if not (checkpoint / name).is_file():
            continue
        try:
            state = torch.load(checkpoint / name, map_location="cpu", weights_only=True, mmap=True)["state"]
        except (RuntimeError, pickle.UnpicklingError) as error:
            return f"its {name} cannot be read: {error}"
        slots = (value for of_parameter in state.values() for value in of_parameter.values())
        if not all(_is_finite(value) for value in slots if isinstance(value, torch.Tensor)):
            return "its optimiser state is not numbers"
    return None


def fault_of(checkpoint: Path, needs_all: bool = True) -> str | None:
    """What speaks against going on from a checkpoint, in words; `None` if nothing does.

    Args:
        checkpoint (`Path`): a folder `checkpoint-N`.
        needs_all (`bool`, defaults to `True`): see [`fault_of_files`].

    Returns:
        `str`, *optional*: the fault.
    """
    return fault_of_files(checkpoint, needs_all) or fault_of_values(checkpoint)


def newest_sound_checkpoint(folder: Path, needs_all: bool = True) -> Path | None:
    """The last `checkpoint-N` of a run with nothing wrong about it; `None` if there is none.

    Args:
        folder (`Path`): of the run.
        needs_all (`bool`, defaults to `True`): see [`fault_of_files`].

    Returns:
        `Path`, *optional*: the folder.
    """
    return next((path for path in reversed(checkpoints_in(folder)) if fault_of(path, needs_all) is None), None)


def _weights(path: Path) -> Iterator[torch.Tensor]:
    with safe_open(path, framework="pt") as tensors:
        for name in tensors.keys():  # noqa: SIM118 - no mapping
            yield tensors.get_tensor(name)


def _is_finite(tensor: torch.Tensor) -> bool:
    return not tensor.is_floating_point() or bool(tensor.isfinite().all())


def _read_header(path: Path):
    with safe_open(path, framework="pt"):  # which compares the length of the file with what its header says
        pass


def _read_archive(path: Path):
    """What `torch.save` writes is a zip archive: its table of contents stands at the end, checksums are in it."""
    with zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()
    if damaged is not None:
        raise zipfile.BadZipFile(f"{damaged} is not as its checksum says")


_READERS = {
    ".json": read_json,
    ".safetensors": _read_header,
    ".pt": _read_archive,
    ".pth": _read_archive,
    ".bin": _read_archive,
}

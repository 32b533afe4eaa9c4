"""The mean of several epochs' weights, and the folders in which a run keeps those epochs.

Follows the weight averaging of Gong et al. 2021 (epochs 1-5 of AudioSet, 6-25 of its balanced part). Differs from the
released code in that the mean is taken in float64, over one tensor of one file at a time, and in that each epoch is a
checkpoint folder of its own, which loads, tags and is scored like any other.
"""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from accelerate import PartialState
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from transformers import Trainer, TrainerCallback
from transformers.trainer import TRAINING_ARGS_NAME
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME

from modeling_ast.system.atomic_files import give_usual_mode, sync, temporary_folder

from ..sources.data_errors import names_in_short
from .lora import saving_merged
from .run_folder import UNFINISHED

EPOCHS_DIR = "epochs"
PREFIX_EPOCH_DIR = "epoch"


class AveragingError(ValueError):
    """Checkpoints that have no mean, or epochs that are not there; the message says what to do."""


def average_weights(files: Sequence[str | os.PathLike], output: str | os.PathLike) -> None:
    """Write the mean of several checkpoints' weights.

    Every tensor is summed in float64 and saved in the type it has in the files. What is in memory is the mean so far and
    one tensor of one file, however many files there are.

    Args:
        files (sequence of `str` or `os.PathLike`): safetensors files with the same tensors.
        output (`str` or `os.PathLike`): safetensors file to write; it appears under its name when it is whole.

    Raises:
        AveragingError: if there is no file, one cannot be read, their tensors differ in name, shape or type, a whole
            number differs, or a weight is not a number; the message says which.
    """
    files, output = [Path(file) for file in files], Path(output)
    if not files:
        raise AveragingError("No checkpoint was given, so there is nothing to average. Name at least one.")
    layouts = [_layout(file) for file in files]
    for file, layout in zip(files[1:], layouts[1:], strict=True):
        _refuse_other_layout(files[0], layouts[0], file, layout)
    mean = {name: _mean_tensor(name, files) for name in layouts[0]}
    with temporary_folder(
        output.name, output.parent
    ) as folder:  # safetensors puts a new file in the place of any other
        save_file(mean, folder / output.name, metadata={"format": "pt"})
        give_usual_mode(folder / output.name)
        sync(folder / output.name)
        os.replace(folder / output.name, output)


def weights_file(folder: str | os.PathLike) -> Path:
    """The one file that holds a checkpoint's weights.

    Args:
        folder (`str` or `os.PathLike`): of a checkpoint.

    Returns:
        `Path`: a safetensors file.

    Raises:
        AveragingError: if there is none, or the weights are spread over several.
    """
    folder = Path(folder)
    if (folder / SAFE_WEIGHTS_INDEX_NAME).is_file():
        raise AveragingError(
            f"{folder} is sharded: its weights lie in several files. Load it and save it again in one: "
            "model.save_pretrained(folder, max_shard_size='50GB')."
        )
    if not (folder / SAFE_WEIGHTS_NAME).is_file():
        raise AveragingError(f"{folder} has no {SAFE_WEIGHTS_NAME}. Name folders that hold a whole checkpoint.")
    return folder / SAFE_WEIGHTS_NAME


def _layout(file: Path) -> dict[str, tuple[list[int], str]]:
    """Shape and type of every tensor of a file, from its header."""
    try:
        with safe_open(file, framework="pt") as tensors:
            slices = {name: tensors.get_slice(name) for name in tensors.keys()}  # noqa: SIM118 - no mapping
            return {name: (part.get_shape(), part.get_dtype()) for name, part in slices.items()}
    except (OSError, SafetensorError) as error:
        raise AveragingError(f"{file} cannot be read as safetensors ({error}). Name a whole checkpoint.") from error


def _refuse_other_layout(first: Path, expected: dict, file: Path, given: dict):
    missing = [name for name in expected if name not in given]
    unknown = [name for name in given if name not in expected]
    if missing or unknown:
        lacks = [f"has no {names_in_short(missing)}"] if missing else []
        adds = [f"has {names_in_short(unknown)} besides"] if unknown else []
        raise AveragingError(
            f"{file} {' and '.join(lacks + adds)}, compared with {first}. Average checkpoints of one architecture."
        )
    different = [name for name in expected if given[name] != expected[name]]
    if different:
        name = different[0]
        (shape, dtype), (expected_shape, expected_dtype) = given[name], expected[name]
        raise AveragingError(
            f"{name} is {dtype} of shape {tuple(shape)} in {file} and {expected_dtype} of shape {tuple(expected_shape)} "
            f"in {first}. Average checkpoints of one architecture, saved in one type."
        )


def _mean_tensor(name: str, files: list[Path]) -> torch.Tensor:
    total = None
    for file in files:
        # Opened anew for each tensor: the pages of a file that stays open count as this process's memory.
        with safe_open(file, framework="pt") as tensors:
            value = tensors.get_tensor(name)
            if not value.is_floating_point():
                total = value.clone() if total is None else total
                if not torch.equal(total, value):
                    raise AveragingError(
                        f"{name} holds whole numbers that differ between {files[0]} and {file}; these have no mean. "
                        "Average checkpoints of one run."
                    )
                continue
            if not value.isfinite().all():
                raise AveragingError(
                    f"{name} of {file} holds values that are not numbers: its training diverged. Leave this checkpoint out."
                )
            total = value.to(torch.float64, copy=True) if total is None else total.add_(value)
        dtype = value.dtype
        del value
    return total.div_(len(files)).to(dtype) if total.is_floating_point() else total


class EpochFolders(TrainerCallback):
    """Keeps the weights of a range of epochs as `output_dir/epochs/epoch-N`, N counted from 1.

    Each is a checkpoint folder with weights, `config.json` and `preprocessor_config.json`. It is written under another
    name, synced and renamed, by the main process. An epoch that is cut short by `max_steps` is not kept. When a run is
    resumed, an epoch that is there already stays as it is, and one that ended just before the interruption is written
    from the checkpoint that was resumed from.

    Args:
        trainer ([`~transformers.Trainer`]): whose model is saved.
        first_epoch (`int`): first epoch to keep, from 1.
        last_epoch (`int`): last epoch to keep.

    Raises:
        AveragingError: at the start of a resumed training, if an earlier epoch of the range is not in the folder.
    """

    def __init__(self, trainer: Trainer, first_epoch: int, last_epoch: int):
        self.trainer = trainer
        self.first_epoch = first_epoch
        self.last_epoch = last_epoch

    def on_train_begin(self, args, state, control, **kwargs):
        """See `TrainerCallback.on_train_begin`: asks for the earlier epochs of a resumed run, and keeps one that just ended."""
        trained = int(state.epoch or 0)
        # Between the last step of an epoch and its end there may be a checkpoint, but there is no other time to come back.
        self._keep_epoch(state.epoch)
        if PartialState().is_main_process and trained >= self.first_epoch:
            epochs_between(args.output_dir, self.first_epoch, min(trained, self.last_epoch))

    def on_epoch_end(self, args, state, control, **kwargs):
        """See `TrainerCallback.on_epoch_end`: keeps the weights, if the epoch is in the range."""
        self._keep_epoch(state.epoch)

    def _keep_epoch(self, epoch: float | None):
        if not epoch or epoch != int(epoch) or not self.first_epoch <= epoch <= self.last_epoch:
            return
        parent = Path(self.trainer.args.output_dir) / EPOCHS_DIR
        unfinished, final = parent / UNFINISHED, parent / f"{PREFIX_EPOCH_DIR}-{int(epoch)}"
        is_main = PartialState().is_main_process
        if is_main:
            shutil.rmtree(unfinished, ignore_errors=True)
        PartialState().wait_for_everyone()
        # All processes take part, also where the folder is there: sharded weights are gathered from all of them.
        with saving_merged(self.trainer):  # the mean of adapters is not the adapter of the mean
            self.trainer.save_model(str(unfinished), _internal_call=True)
        PartialState().wait_for_everyone()
        if is_main:
            if final.is_dir():
                shutil.rmtree(unfinished)
            else:
                (unfinished / TRAINING_ARGS_NAME).unlink(missing_ok=True)  # a pickle, and of no use here
                for path in (*unfinished.iterdir(), unfinished):
                    sync(path)
                os.replace(unfinished, final)
                sync(parent)
        PartialState().wait_for_everyone()


def epochs_in(output_dir: str | os.PathLike) -> list[Path]:
    """The folders `epochs/epoch-N` of a run, in the order of the epochs.

    Args:
        output_dir (`str` or `os.PathLike`): output folder of a run.

    Returns:
        `list[Path]`: the folders.
    """
    found = [path for path in (Path(output_dir) / EPOCHS_DIR).glob(f"{PREFIX_EPOCH_DIR}-*") if path.is_dir()]
    numbers = {path: path.name.removeprefix(f"{PREFIX_EPOCH_DIR}-") for path in found}
    return sorted((path for path in found if numbers[path].isdecimal()), key=lambda path: int(numbers[path]))


def epochs_between(output_dir: str | os.PathLike, first_epoch: int, last_epoch: int) -> list[Path]:
    """The folders of these epochs of a run, first and last included.

    Args:
        output_dir (`str` or `os.PathLike`): output folder of a run.
        first_epoch (`int`): counted from 1.
        last_epoch (`int`): included.

    Returns:
        `list[Path]`: the folders, in the order of the epochs.

    Raises:
        AveragingError: if one of them is not there.
    """
    there = {path.name: path for path in epochs_in(output_dir)}
    wanted = [f"{PREFIX_EPOCH_DIR}-{number}" for number in range(first_epoch, last_epoch + 1)]
    missing = [name for name in wanted if name not in there]
    if missing:
        raise AveragingError(
            f"{Path(output_dir) / EPOCHS_DIR} has no {names_in_short(missing)}, which the run was to keep (those kept for an average "
            "are removed when it has finished). Put the folder(s) back, or train anew without --resume_from_checkpoint."
        )
    return [there[name] for name in wanted]


def remove_epochs(output_dir: str | os.PathLike) -> None:
    """Remove the epochs' folders of a run and what is left of an unfinished one; other files there stay.

    Args:
        output_dir (`str` or `os.PathLike`): output folder of a run.
    """
    parent = Path(output_dir) / EPOCHS_DIR
    for path in epochs_in(output_dir):
        shutil.rmtree(path)
    shutil.rmtree(parent / UNFINISHED, ignore_errors=True)
    if parent.is_dir() and not any(parent.iterdir()):
        parent.rmdir()

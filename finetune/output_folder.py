"""The folder that a training writes into: what it may hold before, what is resumed from, what is replaced."""

import json
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

from accelerate import PartialState
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from model_card.run_summary import RUN_SUMMARY_NAME

from .arguments import ASTTrainingArguments, DataArguments, ModelArguments
from .lora import ADAPTER_DIR
from .trainer import IDENTITY_NAME, UNFINISHED
from .weight_averaging import epochs_in, remove_epochs

RECIPE_NAME = "recipe.yaml"
TRAINING_CURVE_NAME = "training_curve.png"
CONFUSION_MATRIX_NAME = "confusion_matrix.png"
SPECTROGRAM_NAME = "spectrogram.png"
# What a run leaves in its folder beside checkpoint-N and the run summary, which tell that there is one.
PRODUCTS = (
    RECIPE_NAME,
    "config.json",
    "model.safetensors",
    "preprocessor_config.json",
    "README.md",
    TRAINING_CURVE_NAME,
    CONFUSION_MATRIX_NAME,
    SPECTROGRAM_NAME,
    ADAPTER_DIR,
)


def check_output_dir(args: ASTTrainingArguments, model_args: ModelArguments, data_args: DataArguments) -> str | None:
    """Refuse an output folder in which something would be lost. Nothing is removed yet.

    Args:
        args ([`ASTTrainingArguments`]): output folder, and whether to replace or resume a run.
        model_args ([`ModelArguments`]): where the model starts.
        data_args ([`DataArguments`]): where the clips lie.

    Returns:
        The checkpoint folder to resume from, if that was asked for.

    Raises:
        ValueError: if the folder holds a run, something else that the run would replace, or what the run is made
            from; if there is nothing to resume from.
    """
    folder = Path(args.output_dir)
    refuse_file(folder)
    resume_from = _checkpoint_to_resume(args, folder) if args.resume_from_checkpoint else None
    if resume_from and Path(resume_from).resolve().parent == folder.resolve():
        return resume_from
    if (folder / IDENTITY_NAME).exists():
        raise ValueError(f"{folder} holds a cross-validation. Pass another --output_dir.")
    run = [path for path in (folder / RUN_SUMMARY_NAME, *checkpoints_in(folder), *epochs_in(folder)) if path.exists()]
    strangers = [folder / name for name in PRODUCTS if (folder / name).exists()]
    if run and not args.overwrite_output_dir:
        refuse_occupied(folder, run[0])
    if strangers and not run:
        raise ValueError(
            f"{folder} holds a {strangers[0].name} that is not from a run of this kit and would be replaced. Pass another "
            "--output_dir."
        )
    if run:
        refuse_own_sources(folder, model_args, data_args)
    return resume_from


def refuse_file(folder: Path):
    """Raise a `ValueError` if there is a file where a folder is wanted."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file. Pass another --output_dir.")


def refuse_occupied(folder: Path, found: Path):
    """Raise the `ValueError` that tells how to go on with a folder that already holds a run."""
    raise ValueError(
        f"{folder} already holds a run ({found.name} is there). Pass --overwrite_output_dir to replace it, "
        "--resume_from_checkpoint true to go on with it, or another --output_dir."
    )


def refuse_own_sources(folder: Path, model_args: ModelArguments, data_args: DataArguments):
    """Raise a `ValueError` if what the run is made from lies in the folder whose run will be removed."""
    sources = (model_args.model_name_or_path, *data_args.sources())
    for source in sources:
        if source and Path(source).exists() and Path(source).resolve().is_relative_to(folder.resolve()):
            raise ValueError(
                f"{source} lies in the output folder {folder}, whose run would be removed first. Pass another --output_dir."
            )


def _checkpoint_to_resume(args: ASTTrainingArguments, folder: Path) -> str:
    refuse_resume_and_overwrite(args)
    wanted = Path(args.resume_from_checkpoint)
    if args.resume_from_checkpoint.lower() == "true":
        wanted = checkpoints_in(folder)[-1] if checkpoints_in(folder) else folder / f"{PREFIX_CHECKPOINT_DIR}-N"
    if not (wanted / TRAINER_STATE_NAME).is_file():
        raise ValueError(
            f"There is nothing to resume from: {wanted} holds no {TRAINER_STATE_NAME}. Pass --resume_from_checkpoint true "
            f"for the last {PREFIX_CHECKPOINT_DIR}-N in {folder}, or such a folder, or leave it out."
        )
    return str(wanted)


def refuse_resume_and_overwrite(args: ASTTrainingArguments):
    """Raise a `ValueError` if a run is to be both replaced and gone on with."""
    if args.resume_from_checkpoint and args.overwrite_output_dir:
        raise ValueError("Both resume_from_checkpoint and overwrite_output_dir were given. Pass only one of them.")


def checkpoints_in(folder: Path) -> list[Path]:
    """The folders `checkpoint-N` of a run, in the order of their steps."""
    found = [path for path in folder.glob(f"{PREFIX_CHECKPOINT_DIR}-*") if path.name.split("-")[1].isdigit()]
    return sorted(found, key=lambda path: int(path.name.split("-")[1]))


def refuse_another_run(folder: Path, identity: dict):
    """Compare what a checkpoint, or a finished run, was trained on with what this run would go on with.

    Raises:
        ValueError: if data, split, seed, sizes or augmentation differ; the message says which.
    """
    path = folder / IDENTITY_NAME
    recorded = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    changed = [name for name in identity if recorded.get(name) != json.loads(json.dumps(identity[name]))]
    if changed:
        raise ValueError(
            f"{folder} is from a run with other {', '.join(changed)}; going on would mix the two. Pass the flags and "
            "data of that run, or start anew without --resume_from_checkpoint."
        )


def clear_output_dir(folder: Path):
    """Make the output folder and remove the run that it holds, and nothing else.

    Raises:
        OSError: see [`make_output_dir`].
    """
    make_output_dir(folder)
    remove([*(folder / name for name in (RUN_SUMMARY_NAME, *PRODUCTS, UNFINISHED)), *checkpoints_in(folder)])
    if PartialState().is_main_process:
        remove_epochs(folder)
    PartialState().wait_for_everyone()


def make_output_dir(folder: Path):
    """Make the output folder if it is not there.

    Raises:
        OSError: if it cannot be made, or nothing can be written into it: now, and not at the first checkpoint.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OSError(f"Nothing can be written into {folder}: {error.strerror}. Pass another --output_dir.") from error


def remove(paths: Iterable[Path]):
    """Remove files and folders, by the main process."""
    if PartialState().is_main_process:
        for path in paths:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
    PartialState().wait_for_everyone()

"""The folder that a training writes into: what it may hold before, what is resumed from, what is replaced."""

import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from accelerate import PartialState
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from model_card.file_names import (
    ADAPTER_DIR,
    CARD_NAME,
    CONFIG_NAME,
    FEATURE_EXTRACTOR_NAME,
    KNOWN_CLIPS_NAME,
    PICTURES,
    RECIPE_NAME,
    WEIGHTS_NAME,
)
from model_card.licenses import NOTICE_NAME
from model_card.run_summary import RUN_SUMMARY_NAME
from modeling_ast.checkpoints.fields import read_json
from modeling_ast.system.atomic_files import make_parents

from ..arguments.groups import ASTTrainingArguments, DataArguments, ModelArguments
from ..training.checkpoint_files import best_checkpoint, fault_of_files, fault_of_weights, newest_sound_checkpoint
from ..training.run_folder import (
    BEST_CHECKPOINT,
    EVENTS_DIR,
    FREE_SETTINGS,
    IDENTITY_NAME,
    PREFIX_EVENTS_DIR,
    UNFINISHED,
    checkpoints_in,
    last_checkpoint,
    step_of,
)
from ..training.weight_averaging import EPOCHS_DIR, epochs_in, remove_epochs

# What a run leaves in its folder beside checkpoint-N and the run summary, which tell that there is one.
PRODUCTS = (
    RECIPE_NAME,
    CONFIG_NAME,
    WEIGHTS_NAME,
    FEATURE_EXTRACTOR_NAME,
    CARD_NAME,
    NOTICE_NAME,
    *PICTURES,
    KNOWN_CLIPS_NAME,
    ADAPTER_DIR,
)
EVENT_FILES = f"{EVENTS_DIR}/{PREFIX_EVENTS_DIR}*/**/events.out.tfevents.*"


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
    resume_from = _checkpoint_to_resume(args, data_args, folder) if args.resume_from_checkpoint else None
    if resume_from and Path(resume_from).resolve().parent == folder.resolve():
        return resume_from
    if (folder / IDENTITY_NAME).exists():
        raise ValueError(f"{folder} holds a cross-validation. Pass another --output_dir.")
    run = run_in(folder)
    strangers = [folder / name for name in PRODUCTS if (folder / name).exists()]
    if run and not args.overwrite_output_dir:
        refuse_occupied(folder, run[0])
    if strangers and not run and not publishing_ended_early(folder):
        raise ValueError(
            f"{folder} holds a {strangers[0].name} that is not from a run of this kit and would be replaced. Pass another "
            "--output_dir."
        )
    if run or publishing_ended_early(folder):
        refuse_own_sources(folder, model_args, data_args)
    return resume_from


def run_in(folder: Path) -> list[Path]:
    """What tells that a folder holds a run: its summary, checkpoints and kept epochs, as far as they are there.

    Args:
        folder (`Path`): output folder of a run.

    Returns:
        `list[Path]`: what was found; empty where there is no run.
    """
    return [path for path in (folder / RUN_SUMMARY_NAME, *checkpoints_in(folder), *epochs_in(folder)) if path.exists()]


def publishing_ended_early(folder: Path) -> bool:
    """Whether a result was being moved to its place file by file, of which the summary is the last.

    Args:
        folder (`Path`): output folder of a run.

    Returns:
        `bool`: whether it was.
    """
    return not (folder / RUN_SUMMARY_NAME).exists() and any((folder / UNFINISHED).glob(f"*/{RUN_SUMMARY_NAME}"))


def refuse_file(folder: Path):
    """Raise a `ValueError` if there is a file where a folder is wanted.

    Args:
        folder (`Path`): output folder of a run.
    """
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file. Pass another --output_dir.")


def refuse_occupied(folder: Path, found: Path):
    """Raise the `ValueError` that tells how to go on with a folder that already holds a run.

    Args:
        folder (`Path`): output folder of a run.
        found (`Path`): what tells that a run is there.
    """
    raise ValueError(
        f"{folder} already holds a run ({found.name} is there). Pass --overwrite_output_dir to replace it and what it logged "
        "for TensorBoard, --resume_from_checkpoint true to go on with it, or another --output_dir."
    )


def refuse_own_sources(folder: Path, model_args: ModelArguments, data_args: DataArguments):
    """Raise a `ValueError` if what the run is made from lies in the folder whose run will be removed.

    Args:
        folder (`Path`): output folder of a run.
        model_args ([`ModelArguments`]): which model.
        data_args ([`DataArguments`]): where the clips are and how they are heard.
    """
    sources = (model_args.model_name_or_path, *data_args.sources())
    for source in sources:
        if source and Path(source).exists() and Path(source).resolve().is_relative_to(folder.resolve()):
            raise ValueError(
                f"{source} lies in the output folder {folder}, whose run would be removed first. Pass another --output_dir."
            )


def _checkpoint_to_resume(args: ASTTrainingArguments, data_args: DataArguments, folder: Path) -> str:
    refuse_resume_and_overwrite(args)
    wanted = Path(args.resume_from_checkpoint)
    if args.resume_from_checkpoint.lower() == "true":
        wanted = last_checkpoint(folder) or folder / f"{PREFIX_CHECKPOINT_DIR}-N"
    if not (wanted / TRAINER_STATE_NAME).is_file():
        raise ValueError(
            f"There is nothing to resume from: {wanted} holds no {TRAINER_STATE_NAME}. Pass --resume_from_checkpoint true "
            f"for the last {PREFIX_CHECKPOINT_DIR}-N in {folder}, or such a folder, or leave it out."
        )
    _refuse_damaged(wanted, args, data_args)
    if args.load_best_model_at_end:
        _refuse_lost_best(wanted, args)
    return str(wanted)


def _refuse_damaged(checkpoint: Path, args: ASTTrainingArguments, data_args: DataArguments):
    """Raise a `ValueError` if a file of a checkpoint is not whole; it names a checkpoint that is sound, if there is one."""
    needs_all = args.deepspeed is None
    fault = fault_of_files(checkpoint, needs_all)
    if fault is None:
        return
    run = checkpoint.parent
    other = newest_sound_checkpoint(run, needs_all)
    if data_args.fold_column_name:  # whose command names no checkpoint
        goes_on = f"goes on from {other.name}" if other else "trains this fold anew"
        way = f"Move {checkpoint if other else run} away, and the same command {goes_on}."
    elif other:
        way = f"Pass --resume_from_checkpoint {other}, the newest one that is whole."
    else:
        way = (
            "No other one there is whole: start anew with --overwrite_output_dir in place of --resume_from_checkpoint."
        )
    raise ValueError(f"{checkpoint} cannot be resumed from: {fault}. {way}")


def _refuse_lost_best(checkpoint: Path, args: ASTTrainingArguments):
    """Raise a `ValueError` if the best checkpoint so far, which would be published, is gone or damaged."""
    needs_all = args.deepspeed is None
    best = best_checkpoint(checkpoint)
    fault = None if best is None else fault_of_weights(best, needs_all)
    if fault is None:
        return
    earlier = [
        path
        for path in checkpoints_in(checkpoint.parent)
        if step_of(path) < step_of(best) and fault_of_files(path, needs_all) is None
    ]
    again = f", go on from before it with --resume_from_checkpoint {earlier[-1]}" if earlier else ""
    raise ValueError(
        f"{checkpoint} records {best.name} as the best by {args.metric_for_best_model} so far, but {fault}: it could not be "
        f"published at the end. Put it back{again}, publish the last weights in its place with --load_best_model_at_end false, "
        "or start anew with --overwrite_output_dir in place of --resume_from_checkpoint."
    )


def refuse_resume_and_overwrite(args: ASTTrainingArguments):
    """Raise a `ValueError` if a run is to be both replaced and gone on with.

    Args:
        args ([`ASTTrainingArguments`]): of the training.
    """
    if args.resume_from_checkpoint and args.overwrite_output_dir:
        raise ValueError("Both resume_from_checkpoint and overwrite_output_dir were given. Pass only one of them.")


def refuse_another_run(folder: Path, identity: dict):
    """Compare what a checkpoint, or a finished run, was trained on with what this run would go on with.

    Args:
        folder (`Path`): of the checkpoint or the finished run.
        identity (`dict`): of this run; see [`identity`](finetune.results.summary_sections.identity).

    Raises:
        ValueError: if data, split, seed, sizes or augmentation differ; the message says which.
    """
    path = folder / IDENTITY_NAME
    recorded = read_json(path) if path.is_file() else {}
    recorded = recorded if isinstance(recorded, dict) else {}
    settings = recorded.get("training settings")
    settings = settings if isinstance(settings, dict) else {}
    for name in FREE_SETTINGS:  # which an older version of the kit recorded too
        settings.pop(name, None)
    changed = [name for name in identity if recorded.get(name) != json.loads(json.dumps(identity[name]))]
    # The best checkpoint need not be chosen any more; otherwise it is the best of all by one score.
    if BEST_CHECKPOINT in changed and (identity[BEST_CHECKPOINT] is None or BEST_CHECKPOINT not in recorded):
        changed.remove(BEST_CHECKPOINT)
    if changed:
        raise ValueError(
            f"{folder} is from a run with other {', '.join(changed)}; going on would mix the two. Pass the flags and "
            "data of that run, or start anew without --resume_from_checkpoint."
        )


@contextmanager
def make_output_dir(folder: Path) -> Iterator[None]:
    """Make the output folder, if it is not there, for what is done in the block.

    If the block raises, a folder that was made for it is removed again, unless there is something in it by then.

    Args:
        folder (`Path`): to make.

    Raises:
        OSError: if it cannot be made, or nothing can be written into it: now, and not at the first checkpoint.
    """
    with ExitStack() as made:
        try:
            made.enter_context(make_parents(folder / RUN_SUMMARY_NAME))
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise OSError(
                f"Nothing can be written into {folder}: {error.strerror}. Pass another --output_dir."
            ) from error
        yield


def clear_output_dir(folder: Path):
    """Remove the run that the output folder holds, and nothing else.

    Args:
        folder (`Path`): output folder of a run.
    """
    if PartialState().is_main_process:
        if publishing_ended_early(folder):
            print(
                f"{folder} holds a result that was not written to its end. It is removed and trained anew.", flush=True
            )
        _remove_event_files(folder)
        remove_epochs(folder)
    marks = [folder / UNFINISHED, *checkpoints_in(folder), folder / RUN_SUMMARY_NAME]
    remove([*(folder / name for name in PRODUCTS), *marks])  # what tells whose the products are goes after them


def _remove_event_files(folder: Path):
    """Remove what TensorBoard would draw beside the curves of the next run, also of one that had no checkpoint; files of
    others stay."""
    for path in sorted(folder.glob(EVENT_FILES)):
        path.unlink()
        for parent in path.relative_to(folder).parents[:-1]:
            with suppress(OSError):  # something else is in it
                (folder / parent).rmdir()


def remove_unfinished(folder: Path):
    """Remove what was being written when a training ended: a checkpoint, an epoch, or a part of its result.

    Args:
        folder (`Path`): output folder, in which only this process removes something now.
    """
    begun = PRODUCTS if publishing_ended_early(folder) else ()
    for path in (*(folder / name for name in begun), folder / UNFINISHED, folder / EPOCHS_DIR / UNFINISHED):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with suppress(OSError):  # of a disk that became read-only; the error that ended the training is told
                path.unlink()


def remove(paths: Iterable[Path]):
    """Remove files and folders, by the main process.

    Args:
        paths (iterable of `Path`): which need not be there.
    """
    if PartialState().is_main_process:
        for path in paths:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
    PartialState().wait_for_everyone()

"""K-fold cross-validation: one training per fold, scored on the clips of that fold.

Which epoch counts is chosen, as in the ESC-50 protocol of the released code, on the mean over the folds of the curve that
`--eval_strategy epoch` gives, and not for each fold by itself, which would flatter the score. Where nothing is scored in
training, or something else says which weights count, the score of each fold's checkpoint stands.
"""

import json
import statistics
from collections import Counter
from pathlib import Path

import datasets
from accelerate import PartialState

from model_card.render import write_model_card
from model_card.run_summary import RUN_SUMMARY_NAME, write_run_summary
from modeling_ast.system.atomic_files import open_atomically

from ..arguments.command_line import merged_recipe, parse_arguments
from ..arguments.groups import ASTTrainingArguments, RunArguments
from ..clip_sets.clip_datasets import clip_set
from ..failures.input_errors import input_errors_in_words
from ..results.label_doubts_file import HELD_OUT_NAME, LABEL_DOUBTS_NAME, write_label_doubts
from ..results.output_folder import (
    make_output_dir,
    refuse_another_run,
    refuse_file,
    refuse_occupied,
    refuse_own_sources,
    refuse_resume_and_overwrite,
    remove,
)
from ..sources.data_errors import names_in_short
from ..sources.labels import is_multi_label
from ..sources.splits import load_folds
from ..training.run_folder import IDENTITY_NAME, checkpoints_in
from .training_run import PreparedRun, prepare_run, train_run

RESULTS_NAME, TABLE_NAME = "cross_validation.json", "cross_validation.md"
PREFIX_FOLD_DIR = "fold-"
# What may be another when a cross-validation is gone on with: it changes no result.
FREE_FIELDS = (
    "output_dir", "disable_tqdm", "dataloader_num_workers", "report_to", "save_total_limit", "waveform_cache",
    "memory_for_clips", "keep_features", "save_in_background",
    "per_device_eval_batch_size", "activation_checkpointing", "gradient_checkpointing",
)  # fmt: skip
# How the clips of an update are cut into micro-batches; see `halving_is_exact`.
MICRO_BATCH_FIELDS = ("per_device_train_batch_size", "gradient_accumulation_steps")


def cross_validate(argv: list[str], arguments: RunArguments) -> dict:
    """Train and score every fold in `output_dir/fold-NAME`, then write the table of all.

    With `--resume_from_checkpoint true` finished folds are kept and the unfinished one goes on from its last checkpoint.

    Args:
        argv (`list[str]`): the command line.
        arguments ([`RunArguments`]): what [`parse_arguments`] makes of it.

    Returns:
        What `cross_validation.json` holds; see [`summarize_folds`]. In the main process also `label_doubts`: the `file`, its
        `clips`, and those of them with a label that is likely wrong, `likely_errors`; `None` if there is no such file.

    Raises:
        InputError: for whatever is wrong with the input; the message says what to type.
        TrainingStoppedError: see [`train_run`].
    """
    data_args, training_args = arguments.data, arguments.training
    folder = Path(training_args.output_dir)
    with input_errors_in_words():
        check_fold_choices(training_args)
        folds, split_method = load_folds(data_args)
        identity = check_folds_dir(argv, arguments, folds)
    PartialState().wait_for_everyone()  # before one process makes the first fold's folder, which another would find
    names, summaries = [name for name, _ in folds], []
    begun = bool(training_args.resume_from_checkpoint)
    for number, (name, splits) in enumerate(folds, 1):
        fold_folder = folder / _folder_name(name)
        summary = fold_folder / RUN_SUMMARY_NAME
        finished = begun and summary.is_file()
        _say(f"fold {name}, {number} of {len(folds)}" + (": finished before" if finished else ""))
        if not finished:
            run = _prepare_fold(argv, fold_folder, (splits, f"{split_method}; fold {name} is scored"), begun)
            if not begun:  # a cross-validation whose first fold is refused leaves everything as it was
                with input_errors_in_words():
                    _begin_folder(folder, identity, fold_folder)
                begun = True
            train_run(run, fold_folder / HELD_OUT_NAME)
        summaries.append(json.loads(summary.read_text(encoding="utf-8")))

    metric = "mean_average_precision" if is_multi_label(folds[0][1]["train"]) else "accuracy"
    results = summarize_folds(names, summaries, metric)
    if PartialState().is_main_process:
        results["label_doubts"] = _doubt_labels(folder, names, summaries)
        table = markdown_table(results)
        for name, text in ((RESULTS_NAME, json.dumps(results, indent=2)), (TABLE_NAME, table)):
            with open_atomically(folder / name) as file:
                file.write(f"{text}\n".encode())
        _say(f"\n{table}\n\n{folder / TABLE_NAME}")
    return results


def _doubt_labels(folder: Path, names: list[str], summaries: list[dict]) -> dict | None:
    """Write which labels are doubted, and name that in summary and card of each fold."""
    places = {name: folder / _folder_name(name) for name in names}
    found = write_label_doubts(folder, places)
    if found is None:
        _say(
            f"No {LABEL_DOUBTS_NAME} is written: folds that were finished before kept no {HELD_OUT_NAME}. Train anew with "
            "--overwrite_output_dir to have it."
        )
        return None
    for (name, place), summary in zip(places.items(), summaries, strict=True):
        if summary["evaluation"].get("label_doubts") != found[name]:
            summary["evaluation"]["label_doubts"] = found[name]
            write_run_summary(place, summary)
            write_model_card(place)
    totals = {key: sum(row[key] for row in found.values()) for key in ("clips", "likely_errors")}
    return {"file": LABEL_DOUBTS_NAME} | totals


def check_fold_choices(training_args: ASTTrainingArguments):
    """Raise a `ValueError` if something would be chosen for a fold on its own scored clips.

    Args:
        training_args ([`ASTTrainingArguments`]): of the training.
    """
    strategy = training_args.eval_strategy.value
    if training_args.load_best_model_at_end:
        raise ValueError(
            "load_best_model_at_end would choose the epoch of each fold on the clips it is scored on. Leave it out: with "
            "--eval_strategy epoch one epoch is chosen for all folds."
        )
    if strategy == "steps" or training_args.max_steps > 0:
        raise ValueError(
            f"eval_strategy={strategy}, max_steps={training_args.max_steps}: folds of different size have whole epochs only "
            "in common. Pass --num_train_epochs, and --eval_strategy epoch or no."
        )


def _identity(argv: list[str], args: ASTTrainingArguments, folds: list[tuple]) -> dict:
    """What a cross-validation has in common with one that it goes on with."""
    free = (*FREE_FIELDS, *MICRO_BATCH_FIELDS)
    return {
        "recipe": {name: value for name, value in merged_recipe(argv).items() if name not in free},
        "clips of an update": args.train_batch_size * args.gradient_accumulation_steps * args.world_size,
        "clips": {name: clip_set(splits["eval"]).digest() for name, splits in folds},
    }


def check_folds_dir(argv: list[str], arguments: RunArguments, folds: list[tuple[str, datasets.DatasetDict]]) -> dict:
    """Refuse an output folder in which something would be lost. Nothing is made or removed yet.

    Args:
        argv (`list[str]`): the command line.
        arguments ([`RunArguments`]): what [`parse_arguments`] makes of it.
        folds (`list[tuple[str, datasets.DatasetDict]]`): from [`load_folds`].

    Returns:
        What this cross-validation has in common with one that it goes on with.

    Raises:
        ValueError: if the folder holds a run, two folds would be written into one folder, or there is nothing to go on
            with, or something else.
    """
    model_args, data_args, training_args = arguments.model, arguments.data, arguments.training
    folder, identity = Path(training_args.output_dir), _identity(argv, training_args, folds)
    _refuse_equal_folders([name for name, _ in folds])
    refuse_file(folder)
    refuse_resume_and_overwrite(training_args)
    if training_args.resume_from_checkpoint and training_args.resume_from_checkpoint.lower() != "true":
        raise ValueError(
            f"resume_from_checkpoint={training_args.resume_from_checkpoint!r} names one checkpoint, but every fold has its "
            "own. Pass --resume_from_checkpoint true."
        )
    if training_args.resume_from_checkpoint:
        if not (folder / IDENTITY_NAME).is_file():
            raise ValueError(
                f"There is nothing to resume from: {folder} holds no cross-validation. Leave out --resume_from_checkpoint."
            )
        refuse_another_run(folder, identity)
        return identity
    if (folder / RUN_SUMMARY_NAME).exists():
        raise ValueError(f"{folder} holds a run that is no cross-validation. Pass another --output_dir.")
    found = _fold_folders(folder)
    if found and not training_args.overwrite_output_dir:
        refuse_occupied(folder, found[-1])
    if found:
        refuse_own_sources(folder, model_args, data_args)
    return identity


def _fold_folders(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"{PREFIX_FOLD_DIR}*"))


def _begin_folder(folder: Path, identity: dict, first_fold: Path):
    """Say what cross-validation the folder is of, and remove all folds of an earlier one but the first, which is ready."""
    found = [path for path in _fold_folders(folder) if path != first_fold]
    PartialState().wait_for_everyone()  # before one process removes what another looks for
    remove([*found, *(folder / name for name in (RESULTS_NAME, TABLE_NAME, LABEL_DOUBTS_NAME))])
    if PartialState().is_main_process:
        with make_output_dir(folder), open_atomically(folder / IDENTITY_NAME) as file:
            file.write(json.dumps(identity, indent=1).encode())
    PartialState().wait_for_everyone()


def _prepare_fold(argv: list[str], folder: Path, loaded: tuple[datasets.DatasetDict, str], begun: bool) -> PreparedRun:
    """[`prepare_run`] for a fold, which goes on from its last checkpoint if its cross-validation had begun before."""
    arguments = parse_arguments([*argv, "--output_dir", str(folder)])
    training_args = arguments.training
    asked_for = training_args.overwrite_output_dir
    training_args.resume_from_checkpoint = "true" if begun and checkpoints_in(folder) else None
    # Also what a fold left that was interrupted before its first checkpoint
    training_args.overwrite_output_dir = training_args.resume_from_checkpoint is None
    run = prepare_run(argv, arguments, loaded)
    training_args.overwrite_output_dir = asked_for  # for what is said if it fails
    return run


def summarize_folds(names: list[str], summaries: list[dict], metric: str) -> dict:
    """Scores of all folds at the epoch that is best on the mean of their curves.

    Args:
        names (`list[str]`): of the folds.
        summaries (`list[dict]`): their run summaries.
        metric (`str`): by which the epoch is chosen and the folds are scored.

    Returns:
        `metric`; `epoch`, that was chosen, or `None` where the checkpoints' own scores count; `folds`, with `fold`,
        `clips`, `score` and `seconds` of training each; `mean` and sample `standard_deviation` of the scores; and
        `mean_curve` over the epochs; `padding` of the clips as they were scored.

    Source: `get_esc_result.py` of the released code for the choice of the epoch.
    """
    curves = [
        {row["epoch"]: row[f"eval_{metric}"] for row in summary["history"] if f"eval_{metric}" in row}
        for summary in summaries
    ]
    averaged = any("averaged_epochs" in summary["evaluation"] for summary in summaries)
    epochs = [] if averaged else sorted(curves[0])
    mean_curve = {epoch: statistics.fmean(curve[epoch] for curve in curves) for epoch in epochs}
    chosen = max(mean_curve, key=mean_curve.get) if mean_curve else None  # the first of equally good ones
    scores = [
        curve[chosen] if mean_curve else summary["evaluation"]["metrics"][metric]
        for curve, summary in zip(curves, summaries, strict=True)
    ]
    return {
        "metric": metric,
        "epoch": chosen,
        "folds": [
            {
                "fold": name,
                "clips": summary["evaluation"]["clips"],
                "score": score,
                "seconds": summary.get("time", {}).get("training_seconds"),
            }
            for name, summary, score in zip(names, summaries, scores, strict=True)
        ],
        "mean": statistics.fmean(scores),
        "standard_deviation": statistics.stdev(scores),
        "mean_curve": [[epoch, value] for epoch, value in mean_curve.items()],
        # The curve is that of the training, the score of a finished checkpoint that of the padding it is saved with.
        "padding": summaries[0]["training"]["padding"] if mean_curve else "max_length",
    }


def markdown_table(results: dict) -> str:
    """The scores of all folds with their mean and spread; seconds are those of a training that was not interrupted.

    Args:
        results (`dict`): what was written of all folds.

    Returns:
        `str`: lines of a table.
    """
    title = results["metric"].replace("_", " ")
    rows = [f"| fold | clips | {title} | s of training |", "|---|---|---|---|"]
    for row in results["folds"]:
        seconds = "-" if row["seconds"] is None else f"{row['seconds']:.0f}"
        rows.append(f"| {row['fold']} | {row['clips']} | {row['score']:.3f} | {seconds} |")
    rows.append(
        f"| **mean** | | **{results['mean']:.3f}** (standard deviation {results['standard_deviation']:.3f}) | |"
    )
    if results["epoch"] is not None:
        epoch = f"{results['epoch']:g}"
        padding = (
            "" if results["padding"] == "max_length" else f", clips padded to the {results['padding']} of a batch"
        )
        rows.append(
            f"\nOf epoch {epoch}, the best on the mean over the folds, which makes it a little optimistic{padding}."
        )
    if doubts := results.get("label_doubts"):
        rows.append(
            f"\nLabels of {doubts['likely_errors']} of {doubts['clips']} clips are likely wrong by models that were not trained on "
            f"them: {doubts['file']}, the most doubtful first."
        )
    return "\n".join(rows)


def _folder_name(fold: str) -> str:
    return PREFIX_FOLD_DIR + "".join(sign if sign.isalnum() or sign in "-_." else "_" for sign in fold)


def _refuse_equal_folders(names: list[str]):
    folders = Counter(_folder_name(name).lower() for name in names)  # also for file systems that do not tell case
    equal = [name for name in names if folders[_folder_name(name).lower()] > 1]
    if equal:
        raise ValueError(
            f"The folds {names_in_short(equal)} would be written into one folder. Rename them in the fold column."
        )


def _say(message: str):
    if PartialState().is_main_process:
        print(message, flush=True)

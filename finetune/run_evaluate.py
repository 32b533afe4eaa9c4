"""`ast-evaluate`: scores of one checkpoint, or of several as an ensemble, on clips with labels.

The labels and their order are the checkpoint's; those of the data are matched to them by name. Clips are found with the
flags of `ast-finetune`.
"""

import dataclasses
import json
import os
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from modeling_ast.system.flags import nearest_flags
from modeling_ast.system.terminal import FAILED, command_imports, ended_by, exit_code_of, shell_command

with command_imports("ast-evaluate"):
    import datasets
    import numpy as np
    from transformers import HfArgumentParser
    from transformers.utils import logging

    from model_card.run_summary import RUN_SUMMARY_NAME
    from modeling_ast import ASTConfig, ASTFeatureExtractor
    from modeling_ast.audio import (
        HEARD_LESS,
        AudioError,
        AudioNote,
        files_of_each_kind,
        notes_in_words,
        parse_channels,
    )
    from modeling_ast.checkpoints.fields import CONFIG, EXTRACTOR
    from modeling_ast.checkpoints.shipped import folder_of, is_shipped
    from modeling_ast.scores import label_thresholds
    from modeling_ast.system.atomic_files import open_atomically
    from modeling_ast.system.hub_answers import hub_answers
    from modeling_ast.system.installation import package_version
    from modeling_ast.system.names_as_text import csv_row, in_one_line, spreadsheet_safe
    from modeling_ast.tagging.label_files import refuse_to_overwrite

    from .arguments.given import ArgumentGroup, read_groups
    from .arguments.groups import DataArguments
    from .arguments.void_fields import EFFECTS, Effect, void_fields
    from .clip_sets.audio_clips import look_at_every_clip
    from .clip_sets.clip_datasets import clip_set
    from .clip_sets.clip_set import ClipSet
    from .clip_sets.waveform_cache import WaveformCache
    from .failures.input_errors import INPUT_ERRORS, reader_ended_in_words, said_of
    from .scores.metrics import left_out_note, without_labels_note
    from .scores.scoring import DivergedError, Hearing, common_labels, ensemble_scores, evaluation_section, label_order
    from .sources.annotations import join_annotations, unjoined_in_words
    from .sources.clips import Clips, load_clips
    from .sources.data_errors import DataError, counted, names_in_short, own_message
    from .sources.labels import SHARE_THAT_COUNTS, is_multi_label
    from .sources.split_names import PREFERRED, named_splits, recognised_split
    from .sources.splits import parse_clip_labels, with_encoded_labels
    from .training.memory_errors import is_out_of_memory

# The flags of ast-finetune that say which clips there are, with the same defaults and the same help.
DATA_FLAGS = (
    "dataset_name",
    "eval_file",
    "dataset_config_name",
    "train_split_name",
    "eval_split_name",
    "validation_split_name",
    "audio_column_name",
    "features_column_name",
    "label_column_name",
    "label_columns",
    "join_annotations",
    "ignore_columns",
    "split_column_name",
    "label_separator",
    "label_csv",
    "ignore_labels",
    "channels",
    "strict_audio",
    "skip_bad_audio",
    "score_windows",
)
ClipArguments = dataclasses.make_dataclass(
    "ClipArguments",
    [
        (
            item.name,
            item.type,
            field(default=item.default, default_factory=item.default_factory, metadata=item.metadata),
        )
        for item in dataclasses.fields(DataArguments)
        if item.name in DATA_FLAGS
    ],
    bases=(ArgumentGroup,),
)
SPLITS = ("train", "validation", "eval", "all")
_PARTS = Effect(
    "says how the clips are split, and all are scored",
    "Leave it out, or pass --dataset_name and another --split",
    ("eval_file", "split"),
    lambda run: not run.eval_file and run.split != "all",
)
# When one of these flags has an effect; see `void_fields.py`.
EFFECTS_HERE = {
    "dataset_config_name": (
        Effect(
            "names a configuration of --dataset_name",
            "Pass --dataset_name in place of the file, or leave it out",
            ("eval_file",),
            lambda run: not run.eval_file,
        ),
    ),
    **dict.fromkeys(("train_split_name", "eval_split_name", "validation_split_name", "split_column_name"), (_PARTS,)),
    **{name: EFFECTS[name] for name in ("audio_column_name", "label_column_name")},
}
# Columns of the printed tables.
METRICS = {
    "accuracy": "accuracy",
    "f1_macro": "macro F1",
    "mean_average_precision": "mAP",
    "roc_auc_macro": "AUC",
    "d_prime": "d-prime",
}
CLASS_COLUMNS = {"precision": "precision", "recall": "recall", "f1": "F1", "average_precision": "AP", "roc_auc": "AUC"}
# Files that scores are made of, in a model's folder or that of the clips.
READ = (
    CONFIG,
    EXTRACTOR,
    RUN_SUMMARY_NAME,
    "metadata.csv",
    "metadata.jsonl",
    "metadata.parquet",
    "recipe.yaml",
    "README.md",
)
WEIGHTS = (".safetensors", ".bin", ".pth")
SEVERAL_LABELS = ";"  # between the labels of a clip in --predictions


@dataclass
class EvaluationArguments(ArgumentGroup):
    """Which models, which part of the clips, and where the scores go."""

    model_name_or_path: list[str] = field(
        metadata={
            "help": "Checkpoint folder or Hub id; of several, as of runs/mine/epochs/*, the mean of their probabilities is "
            "scored too."
        }
    )
    split: str | None = field(
        default=None,
        metadata={
            "help": "Which clips: those of --train_split_name, --validation_split_name or --eval_split_name, or all. eval if "
            "the data says how it is split, else all.",
            "choices": [*SPLITS],
        },
    )
    per_device_eval_batch_size: int = field(default=8, metadata={"help": "Clips in one pass of a model."})
    dataloader_num_workers: int | None = field(
        default=None,
        metadata={
            "help": "Processes that decode clips; if not given, none while models work, and where clips are only decoded "
            "(--waveform_cache, --skip_bad_audio) as many as help."
        },
    )
    waveform_cache: str | None = field(
        default=None, metadata={"help": "Folder of decoded clips, as ast-finetune keeps them; it is filled as needed."}
    )
    function: str | None = field(
        default=None,
        metadata={
            "help": "softmax or sigmoid, what makes probabilities of a model's outputs; as its config.json says if not given.",
            "choices": ["softmax", "sigmoid"],
        },
    )
    device: str = field(default="auto", metadata={"help": "cpu, cuda, mps, or auto for the fastest that is there."})
    per_class: bool = field(default=False, metadata={"help": "Print a table of the classes as well."})
    output: str | None = field(
        default=None, metadata={"help": "JSON file for all scores, with a table of the classes."}
    )
    predictions: str | None = field(
        default=None,
        metadata={"help": "CSV file for the probabilities of every clip (their mean, of several models)."},
    )
    spreadsheet_safe: bool = field(
        default=False,
        metadata={
            "help": "In --predictions, put an apostrophe before names that begin with = + - @, a tab or a carriage return, "
            "which a spreadsheet would run as a formula. Programs that read the file then find other names."
        },
    )

    def __post_init__(self):
        if self.per_device_eval_batch_size < 1:
            raise ValueError(
                f"per_device_eval_batch_size={self.per_device_eval_batch_size} is less than 1. Pass for example 8."
            )
        if self.dataloader_num_workers is not None and self.dataloader_num_workers < 0:
            raise ValueError(f"dataloader_num_workers={self.dataloader_num_workers} is negative. Pass 0 or more.")
        if self.spreadsheet_safe and not self.predictions:
            raise ValueError("spreadsheet_safe is about the CSV file of --predictions. Pass both, or leave it out.")
        for name in ("output", "predictions"):
            path = getattr(self, name)
            if path and (Path(path).is_dir() or not Path(path).parent.is_dir()):
                raise ValueError(f"{name}={path!r} is no file in a folder that is there. Pass another --{name}.")


@shell_command("ast-evaluate")
def main(argv: list[str] | None = None) -> int:
    """Run from the command line; see `ast-evaluate --help`.

    Args:
        argv (`list[str]`, *optional*): arguments after the program's name, by default those of the process.

    Returns:
        `int`: 0; 2 for wrong input; 1 for a failure: a clip that cannot be decoded, scores that are not numbers, memory or a
        disk that is full, a file that cannot be written; 128 + the signal's number if interrupted.
    """
    logging.set_verbosity_error()
    logging.disable_progress_bar()  # of loading
    datasets.disable_progress_bars()
    try:
        with hub_answers():
            args, clip_args = parse_arguments(sys.argv[1:] if argv is None else argv)
            if _written(args):
                refuse_to_write_over_tables(args, clip_args)
            labels = common_labels(args.model_name_or_path)
            split, words = load_scored_clips(clip_args, args.split, labels)
            refuse_to_write_over_clips(args, split)
            hearing = Hearing(clip_args.channels, HEARD_LESS if clip_args.strict_audio else frozenset())
            skipped = []
            if clip_args.skip_bad_audio:
                split, skipped = without_bad_audio(args, clip_args, split, hearing)
                words += f" but {len(skipped)} that cannot be used" if skipped else ""
            print(f"{len(split)} clips, {words}", flush=True)
            if longer := windows_note(args, clip_args, split):
                print(longer, flush=True)
            for apart in sets_notes(args.model_name_or_path):
                print(apart, flush=True)
            evaluations, scores = evaluate_models(args, split, words, labels, hearing)
    except (AudioError, DivergedError) as error:
        print(f"ast-evaluate: {own_message(error)}", file=sys.stderr)
        return FAILED
    except INPUT_ERRORS as error:
        print(f"ast-evaluate: {_in_words(error)}", file=sys.stderr)
        if is_out_of_memory(error) or reader_ended_in_words(error):
            return FAILED
        return exit_code_of(error, reading=True)
    try:
        write_predictions(args.predictions, split, labels, scores, args.spreadsheet_safe)
        noted = dict.fromkeys(note for of_clip in hearing.noted for note in of_clip)
        write_evaluations(args.output, evaluations, labels, noted, skipped)
    except OSError as error:
        return ended_by("ast-evaluate", error)
    print_evaluations(evaluations, args.per_class)
    odd = notes_in_words(files_of_each_kind(hearing.noted), len(split))
    if odd:
        print(f"\n{'; '.join(odd)} (named above)")
    name, evaluation = list(evaluations.items())[-1]
    metric = "mean_average_precision" if is_multi_label(split) else "accuracy"
    place = f"{args.output}: " if args.output else ""
    print(f"\n{place}{name}, {METRICS[metric]} {evaluation['metrics'][metric]:.4f} on {evaluation['clips']} clips")
    return 0


def _in_words(error: Exception) -> str:
    """What to say of wrong input; that memory is full, errors say in no words or in those of an allocator or a loader."""
    if not is_out_of_memory(error):
        return reader_ended_in_words(error) or said_of(error)
    said = str(error).strip().splitlines()
    return (
        f"There is not enough memory to score the clips{f' ({said[0]})' if said else ''}. Pass a lower "
        "--per_device_eval_batch_size or fewer --dataloader_num_workers."
    )


def parse_arguments(argv: list[str]) -> tuple[EvaluationArguments, ClipArguments]:
    """Read the flags.

    Args:
        argv (`list[str]`): arguments after the program's name.

    Returns:
        `tuple[EvaluationArguments, ClipArguments]`: what to score how, and where the clips are.

    Raises:
        ValueError: for values that do not fit together.
    """
    parser = HfArgumentParser(
        (EvaluationArguments, ClipArguments),
        prog="ast-evaluate",
        usage="ast-evaluate --model_name_or_path DIR [DIR ...] --dataset_name DATA [--field value ...]",
        description="Score a checkpoint on clips with labels, or several as an ensemble.",
        epilog="Example: ast-evaluate --model_name_or_path runs/mine/epochs/* --dataset_name clips --output scores.json. "
        "Labels that the checkpoint has and the clips have not are named and have no part in the means.",
        allow_abbrev=False,
    )
    for action in parser._actions:
        if "--help" not in action.option_strings:
            action.option_strings = action.option_strings[:1]  # --with-dashes still works and need not be shown
    (args, clip_args), rest = read_groups(parser, argv)
    if rest:
        hint = " ".join(nearest_flags(rest, parser)) or "See ast-evaluate --help."
        raise ValueError(f"{rest[0]!r} belongs to no flag. {hint}")
    if bool(clip_args.dataset_name) == bool(clip_args.eval_file):
        given = "Both were" if clip_args.eval_file else "Neither was"
        raise ValueError(
            f"{given} given of dataset_name and eval_file. Pass --dataset_name DATA or --eval_file TABLE."
        )
    if clip_args.eval_file and args.split not in (None, "all"):
        raise ValueError(f"All clips of eval_file={clip_args.eval_file!r} are scored. Leave out --split {args.split}.")
    for void in void_fields((args, clip_args), EFFECTS_HERE):
        raise ValueError(str(void))
    if clip_args.channels is not None:
        clip_args.channels = parse_channels(clip_args.channels)
    if clip_args.features_column_name and (args.waveform_cache or clip_args.skip_bad_audio):
        raise ValueError(
            "waveform_cache and skip_bad_audio are about audio, features_column_name names finished features. Pass one of them."
        )
    return args, clip_args


def refuse_to_write_over_tables(args: EvaluationArguments, clip_args: ClipArguments):
    """Make sure that scores are not written over what they are made of, before any work is done.

    Args:
        args ([`EvaluationArguments`]): models, and where the scores go.
        clip_args (`ClipArguments`): where the clips are.

    Raises:
        OutputError: if a table or a file of a model would be lost, or --output and --predictions are one file.
    """
    named = [Path(name) for name in (clip_args.dataset_name, clip_args.eval_file, clip_args.label_csv) if name]
    read = [path for path in named if path.is_file()]
    for folder in (*named, *(Path(folder_of(model)) for model in args.model_name_or_path)):
        read += [path for path in folder.glob("*") if path.name in READ or path.suffix in WEIGHTS]
    refuse_to_overwrite(read, _written(args), "the input")


def refuse_to_write_over_clips(args: EvaluationArguments, split: ClipSet):
    """Make sure that scores are not written over a clip.

    Args:
        args ([`EvaluationArguments`]): where the scores go.
        split ([`ClipSet`]): the clips.

    Raises:
        OutputError: if one would be lost.
    """
    written = _written(args)
    names = {path.name for paths in written.values() for path in paths if path.exists()}
    if names:
        clips = (Path(name) for name in map(split.name, range(len(split))) if os.path.basename(name) in names)
        refuse_to_overwrite(clips, written, "the clip")


def _written(args: EvaluationArguments) -> dict[str, list[Path]]:
    return {name: [Path(path)] for name in ("output", "predictions") if (path := getattr(args, name))}


def sets_notes(models: Sequence[str]) -> list[str]:
    """Say of models whose labels were trained in sets apart that the scores of all labels together were not.

    Args:
        models (sequence of `str`): checkpoint folders or Hub ids.

    Returns:
        `list[str]`: a line for each that is known to be such a model.
    """
    return [
        f"{model} was trained on several sets of labels, each apart; these are scores of all labels together, which were not "
        "trained. Fine-tune it on the labels that you want, or see the scores of the sets on its card."
        for model in models
        if is_shipped(model) or _has_sets(Path(model, RUN_SUMMARY_NAME))
    ]


def _has_sets(summary: Path) -> bool:
    try:
        return "label_sets" in json.loads(summary.read_text(encoding="utf-8"))["evaluation"]
    except (OSError, ValueError, KeyError, TypeError):  # none, or not of this kit
        return False


def load_scored_clips(args: ClipArguments, split: str | None, labels: list[str]) -> tuple[ClipSet, str]:
    """Load the clips to score.

    Args:
        args (`ClipArguments`): where the clips are and what the columns are called. Of `eval_file` all clips are taken.
        split (`str`, *optional*): one of `SPLITS`; `"eval"` if the data says how it is split and `"all"` if not.
        labels (`list[str]`): the checkpoint's labels, in output order.

    Returns:
        The clips, whose label indices count in `labels`; and in words which clips these are.

    Raises:
        DataError: if there is no such split, no clip is left, or one has a label that the checkpoint does not know.
    """
    fields = {name: getattr(args, name) for name in args.given - {"eval_file"}}
    data = DataArguments(**fields | {"dataset_name": args.dataset_name or args.eval_file})
    clips = load_clips(data, pooled=True)
    if args.eval_file:
        split = "all"
    elif split is None:
        split = "all" if clips.splits is None else "eval"
    rows, words = _rows_of_split(clips, split, data)
    if clips.splits is None and not args.eval_file:
        words += ", also those that a model was trained on, as the data does not say which these are"

    clip_labels = parse_clip_labels(clips, data)
    kept = set(clip_labels.rows_without(data.ignore_labels))
    rows = [row for row in rows if row in kept]
    unjoined = unjoined_in_words(clips.rows, clip_labels, rows, data)
    clip_labels, rows, joined = join_annotations(clips.rows, clip_labels, rows, data, clips.row_name)
    words += joined + (f"; {unjoined}" if unjoined else "")
    if clip_labels.shares is not None:
        words += f"; soft labels, of which those count whose share is {SHARE_THAT_COUNTS} or more"
    if not rows:
        raise DataError(f"No clip is left of {words} without those of --ignore_labels. Leave it out.")
    unknown = sorted(clip_labels.found(rows) - set(labels))
    if unknown:
        quoted = " ".join(f'"{name}"' if " " in name else name for name in unknown)
        raise DataError(
            f"The clips have {names_in_short(unknown)}, which the checkpoint does not know; its labels are {names_in_short(labels)}. Rename "
            f"them, or pass --ignore_labels {quoted} to leave these clips out."
        )
    split = clip_set(with_encoded_labels(clips, clip_labels, rows, labels).select(rows))
    return split.with_windows(data.windows_scored()), words


def windows_note(args: EvaluationArguments, clip_args: ClipArguments, split: ClipSet) -> str | None:
    """Say how clips are scored that last longer than the first model hears.

    Args:
        args ([`EvaluationArguments`]): names the models.
        clip_args (`ClipArguments`): which channels are heard.
        split ([`ClipSet`]): from [`load_scored_clips`].

    Returns:
        `str`, *optional*: words; `None` if there is no such clip, or all are heard from their beginning.
    """
    changes = {} if clip_args.channels is None else {"channels": clip_args.channels}
    extractor = ASTFeatureExtractor.from_pretrained(args.model_name_or_path[0], **changes)
    dataset = split.dataset(extractor)
    if dataset.clip_of_item is None:
        return None
    seconds = extractor.max_samples / extractor.sampling_rate
    return (
        f"{dataset.num_longer} of {len(split)} clips are longer than the {seconds:.2f} s that the model hears: scored by the "
        f"{dataset.reduction} of all their windows (--score_windows)"
    )


def _rows_of_split(clips: Clips, split: str, data: DataArguments) -> tuple[list[int], str]:
    """Rows of the clips of a split, and in words which these are."""
    if split == "all":
        return list(range(len(clips.labels))), "all there are"
    flag = f"{split}_split_name"
    if clips.splits is None:
        raise DataError(
            f"The data says of no clip which split it is in. Leave out --split {split} to score all clips, or name the column "
            "that says it with --split_column_name."
        )
    present = [name for name in dict.fromkeys(clips.splits) if isinstance(name, str)]
    # What ast-finetune would train on, such as the dev of dev and eval, is no validation split.
    named = {} if split == "eval" else named_splits(present, data)
    others = [name for name in present if name not in named.values()]
    name = named.get(split) or recognised_split(split, others, data) or PREFERRED[split]
    rows = [row for row, value in enumerate(clips.splits) if value == name]
    if not rows:
        raise DataError(
            f"No clip is in the split {name!r}; the data has {counted(Counter(clips.splits))}. Pass --{flag} with one of "
            "these, or --split all."
        )
    return rows, f"the split {name!r}"


def without_bad_audio(
    args: EvaluationArguments, clip_args: ClipArguments, split: ClipSet, hearing: Hearing
) -> tuple[ClipSet, list[dict]]:
    """Decode every clip as the first model hears it, and leave out those that cannot be used.

    Args:
        args ([`EvaluationArguments`]): models and workers.
        clip_args (`ClipArguments`): where the clips are.
        split (`datasets.Dataset`): from [`load_scored_clips`].
        hearing ([`Hearing`]): how clips are heard.

    Returns:
        The others; and of each that was left out, which is also said on the error stream, its `file` and the `reason`.

    Raises:
        DataError: if none can be used.
    """
    changes = {} if hearing.channels is None else {"channels": hearing.channels}
    extractor = ASTFeatureExtractor.from_pretrained(args.model_name_or_path[0], **changes)
    reader = extractor.audio_reader(refused=hearing.refused)
    longest, cache = extractor.max_samples, None
    if args.waveform_cache:
        cache = WaveformCache(args.waveform_cache, reader, longest)
    splits, skipped, _ = look_at_every_clip(
        {"eval": split}, clip_args, reader, longest, args.dataloader_num_workers, cache
    )
    for clip in skipped:
        print(f"ast-evaluate: left out: {clip['reason']}", file=sys.stderr)
    return splits["eval"], [{"file": clip["file"], "reason": clip["reason"]} for clip in skipped]


def evaluate_models(
    args: EvaluationArguments, split: ClipSet, words: str, labels: list[str], hearing: Hearing
) -> tuple[dict[str, dict], np.ndarray]:
    """Score every model and, if there are several, the mean of their probabilities.

    Args:
        args ([`EvaluationArguments`]): models, batch size, device.
        split ([`ClipSet`]): from [`load_scored_clips`].
        words (`str`): what these clips are called.
        labels (`list[str]`): names in output order.
        hearing ([`Hearing`]): how clips are heard; to which is added what is to be said of them.

    Returns:
        A section as of [`evaluation_section`] for each model, and for the ensemble last; and the scores of the last, of
        shape `(clips, labels)`.

    Raises:
        ScoringError: see [`ensemble_scores`].
        DivergedError: if a model's scores are not numbers.
        AudioError: if a clip cannot be decoded.
    """
    evaluations = {}

    def evaluate_one(model: str, scores: np.ndarray, references: np.ndarray):
        # Chosen for this model's own probabilities; those of the ensemble have none.
        config = ASTConfig.from_pretrained(model)
        thresholds = None
        if config.label_thresholds and not args.function:
            thresholds = dict(zip(label_order(config), label_thresholds(config).tolist(), strict=True))
        evaluations[model] = evaluation_section(scores, references, labels, words, thresholds=thresholds)
        if model in hearing.novelty:
            evaluations[model]["none_of_these"] = dataclasses.asdict(hearing.novelty[model])

    models = args.model_name_or_path
    batch_size, workers = args.per_device_eval_batch_size, args.dataloader_num_workers
    scores, references = ensemble_scores(
        models, split, batch_size, args.device, workers, args.function, evaluate_one, args.waveform_cache, hearing
    )
    if len(models) > 1:
        evaluations[f"mean of {len(models)} models"] = evaluation_section(scores, references, labels, words)
    return evaluations, scores


def print_evaluations(evaluations: dict[str, dict], per_class: bool):
    """Print a table of the models, what was left out, and the classes of the last row if asked for.

    Args:
        evaluations (`dict[str, dict]`): from [`evaluate_models`].
        per_class (`bool`): whether the classes are asked for.
    """
    print()
    print_table(
        ["model", *METRICS.values()],
        [[name, *(section["metrics"][key] for key in METRICS)] for name, section in evaluations.items()],
    )
    evaluation = list(evaluations.values())[-1]
    notes = (
        left_out_note(evaluation["left_out"], len(evaluation["per_class"])),
        without_labels_note(evaluation.get("clips_without_labels", 0), evaluation["clips"]),
    )
    for note in filter(None, notes):
        print(f"\n{note}")
    for name, section in evaluations.items():
        if "none_of_these" in section:
            print(f"\n{name}: {novelty_note(section['none_of_these'])}")
    if per_class:
        print()
        rows = [
            [row["label"], row["support"], *(row[key] for key in CLASS_COLUMNS)] for row in evaluation["per_class"]
        ]
        print_table(["label", "clips", *CLASS_COLUMNS.values()], rows)


def novelty_note(section: dict) -> str:
    """Say how many clips are unlike those that a model was trained on.

    Args:
        section (`dict`): of [`UnlikeClips`].

    Returns:
        `str`: a line.
    """
    return (
        f"{section['beyond']} of {section['scored']} clips are none of these: farther than {section['threshold']:.4f} from the "
        "training clips"
    )


def print_table(head: list[str], rows: list[list]):
    """Print a table: the first column to the left, numbers to the right, `-` for what there is not.

    Args:
        head (`list[str]`): names of the columns.
        rows (`list[list]`): text, numbers and `None`.
    """
    texts = [head] + [[_cell(value) for value in row] for row in rows]
    widths = [max(len(row[column]) for row in texts) for column in range(len(head))]
    for name, *values in texts:
        numbers = (f"{value:>{width}}" for value, width in zip(values, widths[1:], strict=True))
        print("  ".join([f"{name:{widths[0]}}", *numbers]))


def _cell(value: str | int | float | None) -> str:
    if value is None or value != value:  # NaN is the one value that differs from itself
        return "-"
    return f"{value:.4f}" if isinstance(value, float) else in_one_line(str(value))


def write_evaluations(
    path: str | None,
    evaluations: dict[str, dict],
    labels: list[str],
    noted: Iterable[AudioNote] = (),
    skipped: Sequence[dict] = (),
):
    """Write all scores as JSON if a file was named; what is not a number becomes null, as JSON knows no NaN.

    Args:
        path (`str`, *optional*): file to write, all or nothing.
        evaluations (`dict[str, dict]`): from [`evaluate_models`].
        labels (`list[str]`): names in output order.
        noted (iterable of [`AudioNote`]): what is to be said of clips.
        skipped (`Sequence[dict]`): clips that were left out.
    """
    if path is None:
        return
    content = {
        "kit_version": package_version("ast-kit"),
        "labels": labels,
        "evaluations": [{"model": name} | section for name, section in evaluations.items()],
    }
    notes = [dataclasses.asdict(note) for note in noted]
    content |= {"audio_notes": notes} if notes else {}
    content |= {"skipped_clips": list(skipped)} if skipped else {}
    plain = json.loads(json.dumps(content), parse_constant=lambda constant: None)
    with open_atomically(path) as file:
        file.write(f"{json.dumps(plain, indent=2, ensure_ascii=False)}\n".encode("utf-8", "backslashreplace"))


def write_predictions(
    path: str | None, split: ClipSet, labels: list[str], scores: np.ndarray, make_safe: bool = False
):
    """Write a CSV with a row per clip if a file was named: its file, its labels, and the probability of every label.

    Args:
        path (`str`, *optional*): file to write, all or nothing.
        split (`datasets.Dataset`): the scored clips.
        labels (`list[str]`): names in output order.
        scores (`np.ndarray` of shape `(clips, labels)`): scores.
        make_safe (`bool`, defaults to `False`): whether a spreadsheet takes no name for a formula.
    """
    if path is None:
        return
    with open_atomically(path, "w", encoding="utf-8", errors="surrogateescape", newline="\n") as file:
        safe = spreadsheet_safe if make_safe else str
        print(csv_row(["file", "truth", *map(safe, labels)]), file=file)
        rows = zip(split.names(), split.label_lists(), scores, strict=True)
        for number, (name, indices, values) in enumerate(rows, 1):
            truth = SEVERAL_LABELS.join(labels[index] for index in indices)
            print(
                csv_row([safe(name or f"clip {number}"), safe(truth), *(f"{value:.7g}" for value in values)]),
                file=file,
            )


if __name__ == "__main__":
    sys.exit(main())

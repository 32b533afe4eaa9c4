"""The sections of `run_summary.json` that a training writes: what it was given and what came out."""

import re
import resource
import sys
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

import torch
from transformers.trainer_utils import TrainOutput

from model_card import run_summary
from modeling_ast.audio import DEFAULT_RESAMPLER

from ..arguments.command_line import recorded_arguments
from ..arguments.groups import (
    FINE_TUNING,
    ASTTrainingArguments,
    AugmentationArguments,
    DataArguments,
    OptimizationArguments,
)
from ..arguments.optimization_arguments import LOADED
from ..augmentations.augmentation import AUGMENTATIONS
from ..augmentations.band_limit import BandLimit
from ..augmentations.filter_augment import FilterAugment
from ..augmentations.heard_padding import HeardPadding
from ..augmentations.noise_floor import NoiseFloor
from ..augmentations.patchout import Patchout
from ..augmentations.quiet_ends import QuietEnds
from ..clip_sets.clip_notes import NotedClip
from ..clip_sets.clip_set import ClipSet
from ..clip_sets.split_checks import windows_in_words
from ..sources.folders import data_folder
from ..sources.labels import SHARE_THAT_COUNTS, has_soft_labels
from ..sources.tables import TABLE_SUFFIXES
from ..training.run_folder import BEST_CHECKPOINT, FREE_SETTINGS
from ..training.trainer_card import hub_id_or_none, shown_checkpoint

GIGA = 1e9
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
FOLDER_FIELDS = tuple(
    name for kind in AUGMENTATIONS for name in kind.folder_fields
)  # what they hold counts, not their name
RESAMPLER_OF_OLD_RUNS = ("resampler", DEFAULT_RESAMPLER)
HEAD_OF_OLD_RUNS = ("head_start", LOADED)
NEW_AUGMENTATIONS = (  # fields that older runs do not record
    Patchout.strengths
    + FilterAugment.strengths
    + HeardPadding.strengths
    + NoiseFloor.strengths
    + BandLimit.strengths
    + QuietEnds.strengths
)


def origin_section(argv: list[str], start: str | None, command: str = FINE_TUNING.name) -> dict:
    """Which version of the kit was called how and when, and what was trained further.

    Args:
        argv (`list[str]`): the command line; see [`recorded_arguments`] for what is left out.
        start (`str`, *optional*): the checkpoint that was trained further.
        command (`str`, defaults to `"ast-finetune"`): what was called.

    Returns:
        `dict`: see `model_card.run_summary.origin_section`.
    """
    base = shown_checkpoint(start) if start else None
    return run_summary.origin_section([command, *recorded_arguments(argv)], base)


def data_section(args: DataArguments, splits: dict[str, ClipSet], split_method: str) -> dict:
    """Where the clips came from, how they were split, how many there are of each label.

    Args:
        args ([`DataArguments`]): where the clips are and how they are heard.
        splits (`dict[str, ClipSet]`): the clips, by side.
        split_method (`str`): in words how they were split.

    Returns:
        `dict`: the section `data`.
    """
    name = hub_id_or_none(args.dataset_name) or _local_name(args)
    hub_id = hub_id_or_none(args.dataset_name)
    section = {
        "name": name,
        "hub_id": hub_id if HUB_ID.fullmatch(hub_id or "") else None,  # data in Python may have any name
        **(
            {"features_column": args.features_column_name}
            if args.features_column_name
            else {"audio_column": args.audio_column_name}
        ),
        **(_label_columns(args) if args.labelled else {}),
        # What the share of a soft label has to be for its clip to be counted and scored as one that has it.
        **({"share_that_counts": SHARE_THAT_COUNTS} if has_soft_labels(splits["train"]) else {}),
        "split_method": split_method,
        "splits": {_split_name(args, side): split.described() for side, split in splits.items()},
    }
    if args.hard_negatives:
        section["hard_negatives"] = shown_checkpoint(args.hard_negatives)
    if splits["train"].licenses is not None:
        licenses = {name for split in splits.values() for name in split.licenses or ()}
        section["license"] = sorted(filter(None, licenses))
    return section


def windows_section(splits: dict[str, ClipSet]) -> dict:
    """What is heard of clips that last longer than the model hears.

    Args:
        splits (`dict[str, ClipSet]`): the clips, by side.

    Returns:
        `dict`: what of the training clips, how those that are scored, and both in words.
    """
    windows = {side: split.windows for side, split in splits.items()}
    return {
        "training": windows["train"],
        "scores": windows["eval"],
        "in_words": f"Of clips longer than the model hears, {windows_in_words(windows)}.",
    }


def skipped_section(args: DataArguments, skipped: list[dict]) -> list[dict]:
    """Clips that were left out because they cannot be used: `split`, `file` (see [`shown_file`]) and `reason` of each.

    Args:
        args ([`DataArguments`]): what the splits are called.
        skipped (`list[dict]`): as [`look_at_every_clip`] returns them.

    Returns:
        `list[dict]`: a row for each clip.
    """
    return [clip | {"split": _split_name(args, clip["split"])} for clip in skipped]


def audio_notes_section(args: DataArguments, noted: Iterable[NotedClip]) -> list[dict]:
    """What is to be said of clips that are used: `split`, `file`, `kind` and `text` of each note.

    Args:
        args ([`DataArguments`]): what the splits are called.
        noted (iterable of [`NotedClip`]): as [`look_at_every_clip`] finds them.

    Returns:
        `list[dict]`: a row for each note.
    """
    folder = data_folder(args)
    return [row | {"split": _split_name(args, row["split"])} for clip in noted for row in clip.rows(folder)]


def _local_name(args: DataArguments) -> str | None:
    """Name of the table or folder, or of the folder in which the splits have files of their own; data in Python has none."""
    if args.dataset_name:
        path = Path(args.dataset_name).resolve()
        return path.stem if path.suffix.lower() in TABLE_SUFFIXES and not path.is_dir() else path.name
    return Path(args.train_file).resolve().parent.name if args.train_file else None


def _split_name(args: DataArguments, side: str) -> str:
    names = {"train": args.train_split_name, "eval": args.eval_split_name, "validation": args.validation_split_name}
    return names[side] or side


def _label_columns(args: DataArguments) -> dict:
    return {"label_columns": args.label_columns} if args.label_columns else {"label_column": args.label_column_name}


def training_section(
    args: ASTTrainingArguments,
    augmentation: AugmentationArguments,
    optimization: OptimizationArguments,
    data_args: DataArguments,
    model,
) -> dict:
    """The settings that decide what is learned.

    Args:
        args ([`ASTTrainingArguments`]): of the training.
        augmentation ([`AugmentationArguments`]): of the training clips.
        optimization ([`OptimizationArguments`]): what is optimised how.
        data_args ([`DataArguments`]): where the clips are and how they are heard.
        model ([`ASTForAudioClassification`]): whose dropout is named.

    Returns:
        `dict`: the section `training`.
    """
    return {
        "epochs": args.num_train_epochs,
        "max_steps": args.max_steps if args.max_steps > 0 else None,
        "batch_size": args.train_batch_size * args.gradient_accumulation_steps * args.world_size,
        "gradient_accumulation_steps": args.gradient_accumulation_steps,
        "optimizer": optimization.optimizer if optimization.optimizer != "trainer" else str(args.optim.value),
        "learning_rate": args.learning_rate,
        "lr_scheduler_type": _schedule_in_words(args, optimization),
        "warmup_steps": args.warmup_steps,
        "weight_decay": args.weight_decay,
        "max_grad_norm": args.max_grad_norm,
        "adam_beta1": args.adam_beta1,
        "adam_beta2": args.adam_beta2,
        "adam_epsilon": args.adam_epsilon,
        "hidden_dropout_prob": model.config.hidden_dropout_prob,
        "attention_probs_dropout_prob": model.config.attention_probs_dropout_prob,
        "data_seed": args.data_seed,
        "label_smoothing_factor": args.label_smoothing_factor,
        "precision": "bfloat16" if args.bf16 else "float16" if args.fp16 else "float32",
        "padding": data_args.padding,
        "train_sampling_strategy": args.train_sampling_strategy,
        **({"set_shares": " ".join(args.set_shares)} if args.set_shares else {}),
        **({"shuffle_buffer": data_args.shuffle_buffer} if data_args.streaming else {}),
        "augmentation": augmentation.augmentation().recorded(),
        # What there is to say of adapters, and of a teacher, has a section of its own, where there are any.
        "optimization": {
            name: value for name, value in asdict(optimization).items() if not name.startswith(("lora_", "teacher"))
        },
        "load_best_model_at_end": args.load_best_model_at_end,
        **({"metric_for_best_model": args.metric_for_best_model} if args.load_best_model_at_end else {}),
    }


def _schedule_in_words(args: ASTTrainingArguments, optimization: OptimizationArguments) -> str:
    first, every, factor = optimization.decay_after_epoch, optimization.decay_every, optimization.decay_factor
    if first is None:
        return args.lr_scheduler_type.value
    return (
        f"constant, times {factor:g} after epoch {first} and every {every} epoch(s) from there"
        if first
        else "constant"
    )


def identity(summary: dict, splits: dict[str, ClipSet]) -> dict:
    """What two runs must have in common for one to go on with the other's checkpoint.

    Args:
        summary (`dict`): the sections that are known before training.
        splits (`dict[str, ClipSet]`): the clips, of which names, sizes and labels count, not where they lie.

    Returns:
        Names of what has to be the same, and its values.
    """
    clips = {side: split.digest() for side, split in splits.items()}
    training = {name: value for name, value in summary["training"].items() if name not in FREE_SETTINGS}
    # Nor of an augmentation that they did not have, which is the same as one that is off.
    augmentation = training.get("augmentation", {}).items()
    training |= {
        "augmentation": {
            name: value
            for name, value in augmentation
            if name not in FOLDER_FIELDS and (value or name not in NEW_AUGMENTATIONS)
        }
    }
    if "optimization" in training:  # what is kept of the clips afterwards changes nothing of what is learned
        kept = training["optimization"].items()
        training["optimization"] = {
            name: value for name, value in kept if name != "none_of_these" and (name, value) != HEAD_OF_OLD_RUNS
        }
    if "teacher" in training:  # known by its digest, wherever it lies
        training["teacher"] = {
            name: value for name, value in training["teacher"].items() if name not in ("name", "revision")
        }
    # Older runs say nothing of it and were made with the one that is meant where none is named.
    features = {name: value for name, value in summary["features"].items() if (name, value) != RESAMPLER_OF_OLD_RUNS}
    return {
        "seed": summary["seed"],
        "labels": summary["labels"],
        "training clips": clips["train"],
        "scored clips": clips["eval"],
        "validation clips": clips.get("validation"),
        "features": features,
        "model sizes": summary["model"],
        "training settings": training,
        "windows of longer clips": _windows_told_apart(splits),
        BEST_CHECKPOINT: summary["training"].get("metric_for_best_model"),
    }


def _windows_told_apart(splits: dict[str, ClipSet]) -> list[str] | None:
    """What is heard of longer clips, whether or not one was among those looked at; `None` for their beginnings."""
    heard = [splits[side].windows for side in ("train", "eval")]
    return None if set(heard) == {"beginning"} else heard


def cost_section(outcome: TrainOutput, args: ASTTrainingArguments) -> dict:
    """What a training cost: seconds, samples a second, seconds of a step, and peak memory in GB.

    The time includes the fit of a classifier before the first step, evaluations and checkpoints in training. Memory is that of this process's accelerator or, without
    one, of this whole process.

    Args:
        outcome (`TrainOutput`): of the training.
        args ([`ASTTrainingArguments`]): of the training.

    Returns:
        `dict`: the section `time`.
    """
    on_cuda = args.device.type == "cuda"
    peak = torch.cuda.max_memory_allocated(args.device) if on_cuda else highest_process_memory()
    return {
        "training_seconds": outcome.metrics["train_runtime"],
        "train_samples_per_second": outcome.metrics["train_samples_per_second"],
        "seconds_per_step": outcome.metrics["train_runtime"] / max(outcome.global_step, 1),
        "peak_memory_gb": peak / GIGA,
    }


def highest_process_memory() -> int:
    """Bytes that this process has used at most since it began.

    Returns:
        `int`: bytes.
    """
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def cost_in_words(cost: dict) -> str:
    """Seconds of a step and peak memory in GB, as a part of a line.

    Args:
        cost (`dict`): from [`cost_section`].

    Returns:
        `str`: a part of a line.
    """
    return f"{cost['seconds_per_step']:.3g} s a step, {cost['peak_memory_gb']:.2f} GB at most"

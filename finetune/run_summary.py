"""The sections of `run_summary.json` that a training writes: what it was given and what came out."""

import hashlib
import platform
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import datasets
import torch

from model_card import run_summary

from .arguments import (
    SIZE_FIELDS,
    ASTTrainingArguments,
    AugmentationArguments,
    DataArguments,
    local_or_shipped,
    recorded_arguments,
)
from .data import audio_size

PACKAGES = ("torch", "torchaudio", "transformers", "datasets", "accelerate", "evaluate")


def origin_section(argv: list[str], start: str | None) -> dict:
    """Which version of the kit was called how and when, and what was trained further.

    Args:
        argv (`list[str]`): the command line; see [`recorded_arguments`] for what is left out.
        start (`str`, *optional*): the checkpoint that was trained further.
    """
    base = hub_id_or_none(start)
    if start and not base:
        base = f"./{Path(start).name}"  # the card calls it a local checkpoint; its place is nobody else's business
    return run_summary.origin_section(["ast-finetune", *recorded_arguments(argv)], base)


def hub_id_or_none(name: str | None) -> str | None:
    """`name` if it is an id on the Hub; folders and files of this machine are nobody else's business."""
    return None if name is None or local_or_shipped(name).exists() else name


def data_section(args: DataArguments, splits: datasets.DatasetDict, split_method: str) -> dict:
    """Where the clips came from, how they were split, how many there are of each label."""
    section = {
        "name": hub_id_or_none(args.dataset_name) or Path(args.dataset_name).stem,
        "hub_id": hub_id_or_none(args.dataset_name),
        "audio_column": args.audio_column_name,
        "label_column": args.label_column_name,
        "split_method": split_method,
        "splits": {
            args.train_split_name: _describe_split(splits["train"]),
            args.eval_split_name: _describe_split(splits["eval"]),
        },
    }
    if "license" in splits["train"].column_names:
        licenses = {name for split in splits.values() for name in split.unique("license")}
        section["license"] = sorted(filter(None, licenses))
    return section


def _describe_split(split: datasets.Dataset) -> dict:
    counts = Counter(split["label"])
    names = split.features["label"].names
    return {"clips": len(split), "label_counts": {name: counts[index] for index, name in enumerate(names)}}


def model_section(model) -> dict:
    """Parameters and sizes."""
    return {"parameters": model.num_parameters()} | {name: getattr(model.config, name) for name in SIZE_FIELDS}


def training_section(
    args: ASTTrainingArguments, augmentation: AugmentationArguments, data_args: DataArguments, model
) -> dict:
    """The settings that decide what is learned."""
    return {
        "epochs": args.num_train_epochs,
        "max_steps": args.max_steps if args.max_steps > 0 else None,
        "batch_size": args.train_batch_size * args.gradient_accumulation_steps * args.world_size,
        "gradient_accumulation_steps": args.gradient_accumulation_steps,
        "optimizer": getattr(args.optim, "value", args.optim),
        "learning_rate": args.learning_rate,
        "lr_scheduler_type": getattr(args.lr_scheduler_type, "value", args.lr_scheduler_type),
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
        "augmentation": asdict(augmentation),
    }


def identity(summary: dict, splits: datasets.DatasetDict) -> dict:
    """What two runs must have in common for one to go on with the other's checkpoint.

    Args:
        summary (`dict`): the sections that are known before training.
        splits (`datasets.DatasetDict`): the clips, of which names, sizes and labels count, not where they lie.
    """
    clips = {side: _digest_of_clips(split) for side, split in splits.items()}
    training = {name: value for name, value in summary["training"].items() if name not in ("epochs", "max_steps")}
    return {
        "seed": summary["seed"],
        "labels": summary["labels"],
        "training clips": clips["train"],
        "scored clips": clips["eval"],
        "features": summary["features"],
        "model sizes": summary["model"],
        "training settings": training,
    }


def _digest_of_clips(split: datasets.Dataset) -> str:
    digest = hashlib.sha256()
    for row in split:
        audio = row["audio"]
        name = Path(audio["path"]).name.encode() if audio["path"] else b""
        digest.update(name + b"\0%d %d\0" % (audio_size(audio), row["label"]))
    return digest.hexdigest()


def history_section(log_history: list[dict]) -> list[dict]:
    """One row per logged point of the epoch axis, training and evaluation values together."""
    rows: dict[float, dict] = {}
    for entry in log_history:
        if "loss" in entry or any(name.startswith("eval_") for name in entry):
            values = {name: value for name, value in entry.items() if name not in ("step", "grad_norm")}
            rows.setdefault(entry["epoch"], {}).update(values)
    return [rows[epoch] for epoch in sorted(rows)]


def environment_section(args: ASTTrainingArguments) -> dict:
    """Versions, device and threads."""
    return {
        "python": platform.python_version(),
        **run_summary.versions(PACKAGES),
        "device": args.device.type,
        "threads": torch.get_num_threads(),
        "processes": args.world_size,
    }


def time_section(metrics: dict[str, float]) -> dict:
    """Seconds and samples per second of the training, without evaluation."""
    return {
        "training_seconds": metrics["train_runtime"],
        "train_samples_per_second": metrics["train_samples_per_second"],
    }

"""`run_summary.json`: what a checkpoint was made from and how, the only source of the numbers on its card.

Trainings and conversions write it with sections of their own; what is here is common to both.
"""

import json
import math
import os
import shlex
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from modeling_ast.atomic_files import open_atomically
from modeling_ast.installation import package_version

RUN_SUMMARY_NAME = "run_summary.json"
_FEATURE_FIELDS = ("sampling_rate", "num_mel_bins", "max_length", "mean", "std", "resampler")


def origin_section(command: Sequence[str], base_model: str | None) -> dict:
    """Which version of the kit was called how and when, and which checkpoint it started from.

    Args:
        command (`Sequence[str]`): program and arguments, without what is nobody else's business.
        base_model (`str`, *optional*): Hub id, or `./name` of a local checkpoint.
    """
    return {
        "kit_version": package_version("ast-kit"),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join(command),
        "base_model": base_model,
    }


def shown_name(path: str | os.PathLike) -> str:
    """Name of a file or folder for summary and card: where it lies on this machine is nobody else's business."""
    return os.path.basename(os.path.abspath(path)) or os.fspath(path)


def shown_word(word: str) -> str:
    """A word of a command line as it is or, where it is a file or folder of this machine, its name."""
    return shown_name(word) if os.path.exists(word) else word


def features_section(feature_extractor, normalization: str) -> dict:
    """What the model hears.

    Args:
        feature_extractor ([`ASTFeatureExtractor`]): of the checkpoint; rate in Hz, length in frames of 10 ms; the
            channels that are heard, if it is not their mean.
        normalization (`str`): in words, how its mean and standard deviation were got.
    """
    heard = {} if feature_extractor.channels == "mean" else {"channels": feature_extractor.channels}
    fields = {name: getattr(feature_extractor, name) for name in _FEATURE_FIELDS}
    return fields | heard | {"normalization": normalization}


def versions(packages: Iterable[str]) -> dict[str, str | None]:
    """Versions of installed packages by name."""
    return {name: package_version(name) for name in packages}


def write_run_summary(folder: str | os.PathLike, summary: dict) -> Path:
    """Write the summary into a checkpoint folder; what is not a number becomes null, as JSON knows no NaN."""
    path = Path(folder) / RUN_SUMMARY_NAME
    text = json.dumps(_without_nan(summary), indent=2, ensure_ascii=False, allow_nan=False)
    with open_atomically(path) as file:
        # What Python writes for a byte of a file's name that is no text is an escape of JSON too.
        file.write(f"{text}\n".encode("utf-8", "backslashreplace"))
    return path


def _without_nan(value):
    if isinstance(value, dict):
        return {name: _without_nan(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

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

from modeling_ast.system.atomic_files import open_atomically
from modeling_ast.system.installation import package_version

RUN_SUMMARY_NAME = "run_summary.json"
# Of a training, whose values are labels or names of columns: `/m/09x0r` is a label of AudioSet's and no place.
FIELDS_OF_LABELS = frozenset(
    ("ignore_labels", "label_column_name", "label_columns", "label_names", "label_separator", "labels")
)
OUTSIDE = "outside the data folder"
_FEATURE_FIELDS = ("sampling_rate", "num_mel_bins", "max_length", "mean", "std", "resampler")


def origin_section(command: Sequence[str], base_model: str | None) -> dict:
    """Record which version of the kit was called how and when, and which checkpoint it started from.

    Args:
        command (`Sequence[str]`): program and arguments, without what is nobody else's business.
        base_model (`str`, *optional*): Hub id, or `./name` of a local checkpoint.

    Returns:
        Fields of the summary.
    """
    return {
        "kit_version": package_version("ast-kit"),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join(command),
        "base_model": base_model,
    }


def shown_name(path: str | os.PathLike) -> str:
    """Name a file or folder in summary and card: where it lies on this machine is nobody else's business.

    Args:
        path (`str` or `os.PathLike`): the file or folder, there or not.

    Returns:
        The last part of its path.
    """
    return os.path.basename(os.path.abspath(path)) or os.fspath(path)


def shown_word(word: str) -> str:
    """Show a word of a command line: as it is or, where it is a place on this machine, also one not yet there, by its
    name.

    Args:
        word (`str`): a flag, a value or a path.

    Returns:
        The word.
    """
    return shown_name(word) if os.path.exists(word) or is_place(word) else word


def is_place(word: str) -> bool:
    """Tell whether a word says where something lies on this machine.

    Args:
        word (`str`): of a command line.

    Returns:
        `bool`.
    """
    return os.path.isabs(os.path.expanduser(word))


def shown_file(path: str, folder: str | os.PathLike | None) -> str:
    """What a clip is called in what is stored of a run, without the folders of this machine.

    Args:
        path (`str`): of its file.
        folder (`str` or `os.PathLike`, *optional*): in which the data is; only names are shown if it is not known, as of
            what the Hub's client has in its cache.

    Returns:
        `str`: where it is in that folder; of a file elsewhere its name, and that it is outside.
    """
    if folder is None:
        return os.path.basename(path)
    place = Path(os.path.relpath(os.path.abspath(path), os.path.abspath(folder)))
    return f"{OUTSIDE}: {place.name}" if place.parts[:1] == (os.pardir,) else place.as_posix()


def without_places(words: str, path: str | None, folder: str | os.PathLike | None = None) -> str:
    """Take places on this machine out of what is said of a file: its name stands for its path, however that is written.

    Args:
        words (`str`): a message.
        path (`str`, *optional*): of the file.
        folder (`str` or `os.PathLike`, *optional*): in which the data is.

    Returns:
        The message.
    """
    if path:
        words = words.replace(f", looked for as {os.path.abspath(path)}", "")  # which says nothing but the folder
        written = {path, str(Path(path)), str(Path(path).absolute()), os.path.abspath(path)}
        shown = shown_file(path, folder).removeprefix(f"{OUTSIDE}: ")
        for spelling in sorted(written, key=len, reverse=True):
            words = words.replace(spelling, shown)
    places = {os.path.abspath(place) for place in (folder, os.getcwd(), os.path.expanduser("~")) if place is not None}
    for place in sorted(places - {os.path.abspath(os.sep)}, key=len, reverse=True):
        words = words.replace(place + os.sep, "")
    return words


def features_section(feature_extractor, normalization: str) -> dict:
    """Record what the model hears.

    Args:
        feature_extractor ([`ASTFeatureExtractor`]): of the checkpoint; rate in Hz, length in frames of 10 ms; the
            channels that are heard, if it is not their mean.
        normalization (`str`): in words, how its mean and standard deviation were got.

    Returns:
        Fields of the summary.
    """
    heard = {} if feature_extractor.channels == "mean" else {"channels": feature_extractor.channels}
    fields = {name: getattr(feature_extractor, name) for name in _FEATURE_FIELDS}
    return fields | heard | {"normalization": normalization}


def versions(packages: Iterable[str]) -> dict[str, str | None]:
    """Look up the versions of installed packages.

    Args:
        packages (iterable of `str`): their names as pip knows them.

    Returns:
        Versions by name; `None` of what is not installed.
    """
    return {name: package_version(name) for name in packages}


def write_run_summary(folder: str | os.PathLike, summary: dict) -> Path:
    """Write the summary into a checkpoint folder; what is not a number becomes null, as JSON knows no NaN.

    Args:
        folder (`str` or `os.PathLike`): of the checkpoint.
        summary (`dict`): what is written.

    Returns:
        `Path` of the file.
    """
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

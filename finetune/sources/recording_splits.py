"""Marked recordings into splits: as folders, a column or the data set say it, or drawn; never through a recording.

As with clips, a name that is not there, and a split without its other half, are refused and not passed over.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..arguments.groups import DataArguments
from .data_errors import DataError, names_in_short
from .split_names import PREFERRED, flags_to_name, how_to_name, named_splits, side_of

FOLDER, COLUMN, SPLIT = "folder", "column", "split"  # what may say the split of a recording


def splits_of_folders(files: Sequence[Path], source: Path, data: DataArguments) -> dict[Path, str]:
    """Tell in which folder each recording lies that may be a split; a folder that holds all is looked into.

    Args:
        files (sequence of `Path`): all recordings below `source`.
        source (`Path`): the folder of them.
        data ([`DataArguments`]): a folder whose name was given for a split is not looked into.

    Returns:
        By recording, the name of its folder; nothing of those that lie beside these folders.
    """
    parts = {path: path.relative_to(source).parts[:-1] for path in files}
    given, depth = set(data.given_split_names().values()), 0
    while True:
        names = {folders[depth] if len(folders) > depth else "" for folders in parts.values()}
        if len(names) != 1 or names & {"", *given}:
            return {path: folders[depth] if len(folders) > depth else "" for path, folders in parts.items()}
        depth += 1


def split_recordings(
    splits: Sequence[str], names: Sequence[str], kind: str, data: DataArguments, seed: int
) -> tuple[dict[str, list[int]], str]:
    """Split recordings.

    Args:
        splits (sequence of `str`): what the data says of each one's split, nothing where it says nothing.
        names (sequence of `str`): what the recordings are called, for messages.
        kind (`str`): what says the splits, one of `FOLDER`, `COLUMN` and `SPLIT`.
        data ([`DataArguments`]): which splits there are or have to be made.
        seed (`int`): of a split that has to be made.

    Returns:
        By side (`"train"`, `"eval"` and perhaps `"validation"`) the places of its recordings, and in words what says it.

    Raises:
        DataError: for a name that is not there, a split without its other half, and too few recordings.
    """
    found = Counter(filter(None, splits))
    _refuse_absent(found, kind, data)
    empty = [name for name, split in zip(names, splits, strict=True) if not split]
    by_side = named_splits(found, data) if found else {}
    whole = len(found) == 1 and not empty and kind != COLUMN and not data.asked_splits(found)
    said = bool(data.given_split_names()) or any(map(side_of, found))
    if found and said and not whole:
        if not {"train", "eval"} <= by_side.keys():
            raise _unclear(found, bool(empty), by_side, kind, data)
        if kind == COLUMN and empty:
            raise DataError(
                f"{len(empty)} recording(s) have nothing in the column {data.split_column_name!r}: {names_in_short(empty)}. Fill it in, or "
                "remove their rows."
            )
        places = defaultdict(list)
        for place, split in enumerate(splits):
            places[split].append(place)
        sides = {side: places[name] for side, name in by_side.items()}
        words = "split by recording, as the data says"
        others = {name: count for name, count in found.items() if name not in by_side.values()}
        if others:
            shown = ", ".join(f"{name!r} ({count} recordings)" for name, count in others.items())
            words += f", without {shown}, {how_to_name(others)}"
        if empty:
            words += f", without {len(empty)} recordings beside the folders"
    else:
        train, held_out = _held_out(list(range(len(splits))), data.eval_fraction, seed)
        sides = {"train": train, "eval": held_out}
        words = f"{len(held_out)} of {len(splits)} recordings held out at random by recording (seed {seed})"
    if data.validation_fraction:
        number = len(sides["train"])
        sides["train"], sides["validation"] = _held_out(sides["train"], data.validation_fraction, seed + 1)
        words += f"; {len(sides['validation'])} of {number} recordings set apart for validation"
    return sides, words


def _refuse_absent(found: Counter, kind: str, data: DataArguments):
    """Refuse names of splits that the data does not have."""
    for side, name in data.given_split_names().items():
        if name in found:
            continue
        flag = f"{side}_split_name"
        if not found:
            instead = "pass --validation_fraction 0.1 instead" if side == "validation" else f"leave out --{flag}"
            raise DataError(
                f"{flag}={name!r} was given, but the data says of no recording which split it is in. Put the recordings of each split "
                f"into a folder of its name, or {instead}."
            )
        if kind == COLUMN:
            what = (
                f"The column {data.split_column_name!r} of {data.dataset_name} says {name!r} of no recording; it has"
            )
        else:
            what = f"{data.dataset_name} has no {kind} {name!r} with marked recordings; it has"
        raise DataError(
            f"{flag}={name!r}: {what} {names_in_short([*map(repr, found)])}. Pass --{flag} with one of these, or leave it out."
        )


def _unclear(found: Counter, loose: bool, by_side: dict[str, str], kind: str, data: DataArguments) -> DataError:
    """The error for a split that is named, or called like one, without the others that make a training."""
    missing = [side for side in ("train", "eval") if side not in by_side]
    others = [name for name in found if name not in by_side.values()]
    told = [f"{name!r} is trained on" if side == "train" else f"{name!r} is scored" for side, name in by_side.items()
            if side != "validation"]  # fmt: skip
    shown = f"{data.dataset_name} has the {kind}s {names_in_short([*map(repr, found)])}" + (
        " and recordings beside them" if loose and kind == FOLDER else ""
    )
    halves = " and ".join({"train": "which is trained on", "eval": "which is scored"}[side] for side in missing)
    if not others:
        remedy = f"Put the recordings of the other into a folder {PREFERRED[missing[0]]}/"
        remedy = remedy if kind == FOLDER else f"Add recordings of a split {PREFERRED[missing[0]]!r}"
    elif len(missing) == 1:
        remedy = f"Pass {flags_to_name(missing[0], found, data)}"
    else:
        remedy = "Pass --train_split_name and --eval_split_name with two of these"
    if data.given_split_names():
        otherwise = "leave the names of splits out for a random split"
    elif kind == FOLDER:
        otherwise = "call the folder otherwise if it is no split"
    else:
        otherwise = f"correct the {kind}"
    return DataError(
        f"{shown}{', of which ' + ' and '.join(told) if told else ''}, but not {halves}. {remedy}, or {otherwise}."
    )


def _held_out(places: list[int], fraction: float, seed: int) -> tuple[list[int], list[int]]:
    """Draw a share of recordings: those that are left, and those that are drawn."""
    number = max(1, round(fraction * len(places)))
    if len(places) - number < 1:
        raise DataError(
            f"{len(places)} recording(s) cannot be split: windows of one recording are never on both sides. Add recordings, or give the data "
            "folders train/ and test/."
        )
    drawn = {places[drawn] for drawn in np.random.default_rng(seed).permutation(len(places))[:number].tolist()}
    return [place for place in places if place not in drawn], [place for place in places if place in drawn]

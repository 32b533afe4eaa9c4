"""Which clips have to stay together when a split is made: by a column, or by a part of their file names."""

import os
import re
import shlex
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable
from pathlib import Path

import datasets
import pyarrow.compute as pc

from ..arguments.groups import DataArguments
from .audio_columns import audio_batches, audio_digests, audio_paths
from .data_errors import DataError, is_empty, names_in_short, require_column
from .labels import label_lists
from .stored_features import FEATURES_COLUMN
from .tables import PATH_COLUMNS

AT_RANDOM = "at random"  # in the words on every split that is made here
BEFORE_LAST_PART = "^.+(?=[_-])"  # "take" of take_12 or take-12
FEWEST_RECORDINGS = 5  # of which the default --eval_fraction can hold out one


def file_names(rows: datasets.Dataset) -> list[str | None]:
    """List the names of the clips' files, without folder and suffix.

    Args:
        rows (`datasets.Dataset`): with the column `"audio"`, undecoded, or `"features"`.

    Returns:
        The name of each clip, `None` for what has no name.
    """
    if "audio" in rows.column_names:
        paths = audio_paths(rows)
    elif rows.features["features"] == datasets.Value("string"):
        paths = rows["features"][:]
    else:
        paths = [None] * len(rows)
    return [None if path is None else Path(path).stem for path in paths]


def groups_by_file(data: DataArguments, columns: Iterable[str]) -> bool:
    """Tell whether clips are grouped by the file itself: several rows, as of several annotators, may be of one.

    Args:
        data ([`DataArguments`]): its `group_column_name` may be the column of the clips, under any name that it can have.
        columns (iterable of `str`): those of the rows, in which that column is called "audio" or "features".

    Returns:
        `True` if they are.
    """
    name = data.group_column_name
    if name in ("audio", FEATURES_COLUMN):
        return name in columns
    if name in (data.audio_column_name, data.features_column_name):
        return name is not None
    return name in PATH_COLUMNS and name not in columns


def clip_keys(
    rows: datasets.Dataset, chosen: list[int], data: DataArguments, row_name: Callable[[int], str]
) -> dict[int, str]:
    """Tell the clips of rows from each other.

    Args:
        rows (`datasets.Dataset`): all clips.
        chosen (`list[int]`): rows that are asked for.
        data ([`DataArguments`]): what the columns are called.
        row_name (`Callable`): what to call a row in a message.

    Returns:
        By row, the path of its file, or, of bytes, their SHA-256.

    Raises:
        DataError: for features that are in the table itself, which have no file.
    """
    if "audio" not in rows.column_names:
        if rows.features[FEATURES_COLUMN] != datasets.Value("string"):
            raise DataError(
                f"The features of row {row_name(chosen[0])} are in the column {data.features_column_name!r} itself and have no "
                "file by which rows belong together. Pass --group_column_name with a column that says it."
            )
        paths = rows[FEATURES_COLUMN][:]
        return {row: os.path.normpath(paths[row]) for row in chosen}
    paths = file_paths(rows.select(chosen))
    nameless = [row for row, path in zip(chosen, paths, strict=True) if path is None]
    digests = dict(zip(nameless, audio_digests(rows.select(nameless)), strict=True)) if nameless else {}
    return {
        row: digests[row].hex() if path is None else os.path.normpath(path)
        for row, path in zip(chosen, paths, strict=True)
    }


def file_paths(rows: datasets.Dataset) -> list[str | None]:
    """List the paths of the clips' files.

    Args:
        rows (`datasets.Dataset`): with the column `"audio"`, undecoded.

    Returns:
        The path of each clip, `None` for bytes, whose name, if there is one, may be that of others too.
    """
    return [
        path if in_file else None
        for paths, contents in audio_batches(rows)
        for path, in_file in zip(paths.to_pylist(), pc.is_null(contents).to_pylist(), strict=True)
    ]


def groups_of(
    rows: datasets.Dataset, chosen: list[int], data: DataArguments, row_name: Callable[[int], str]
) -> dict[int, str]:
    """Find the group of each of the chosen clips.

    Args:
        rows (`datasets.Dataset`): all clips.
        chosen (`list[int]`): those that are grouped.
        data ([`DataArguments`]): its `group_column_name` or `group_file_pattern` says by what.
        row_name (`Callable`): what to call a row in a message.

    Returns:
        By row, what its group is called.

    Raises:
        DataError: if the column is not there or empty for a clip, a clip has no file name, or the pattern finds nothing in it.
    """
    if groups_by_file(data, rows.column_names):
        return clip_keys(rows, chosen, data, row_name)
    if data.group_column_name:
        require_column("group_column_name", data.group_column_name, rows.column_names)
        values = rows[data.group_column_name][:]
        strange = next((values[row] for row in chosen if not isinstance(values[row], Hashable)), None)
        if strange is not None:
            raise DataError(
                f"The column {data.group_column_name!r} holds {type(strange).__name__} values such as {strange!r:.80}, expected "
                "a text or number that says what belongs together. Name another with --group_column_name; that of the audio "
                "stands for the file itself."
            )
        empty = [row_name(row) for row in chosen if is_empty(values[row])]
        if empty:
            raise DataError(
                f"Row(s) {names_in_short(empty)} have nothing in the column {data.group_column_name!r}. Fill in what they belong "
                "to (a value of its own for a clip that belongs to no other), remove them, or leave out "
                "--group_column_name."
            )
        return {row: values[row] for row in chosen}
    names = file_names(rows)
    nameless = [row_name(row) for row in chosen if names[row] is None]
    if nameless:
        raise DataError(
            f"Row(s) {names_in_short(nameless)} have no file name, in which group_file_pattern={data.group_file_pattern!r} could find "
            "anything. Pass --group_column_name with a column that says what belongs together."
        )
    pattern = re.compile(data.group_file_pattern)
    matches = {row: pattern.search(names[row]) for row in chosen}
    part = min(pattern.groups, 1)  # the first group of the pattern, or all of it
    unmatched = [
        f"{names[row]} (row {row_name(row)})" for row, match in matches.items() if match is None or not match[part]
    ]
    if unmatched:
        raise DataError(
            f"group_file_pattern={data.group_file_pattern!r} finds nothing in {len(unmatched)} of {len(chosen)} file names: "
            f"{names_in_short(unmatched)}. Pass a --group_file_pattern that finds something in each of them (without folder and "
            "suffix), or rename these files."
        )
    return {row: match[part] for row, match in matches.items()}


def grouping_in_words(data: DataArguments) -> str:
    """Say what clips are grouped by.

    Args:
        data ([`DataArguments`]): its `group_column_name` or `group_file_pattern`.

    Returns:
        In words, to stand within a sentence.
    """
    if data.group_column_name:
        return f"the column {data.group_column_name!r}"
    return f"the part of file names that matches {data.group_file_pattern!r}"


def torn_recordings_note(splits: datasets.DatasetDict, split_method: str, data: DataArguments) -> str | None:
    """Look whether a split was made regardless of recordings and file names look like pieces of recordings.

    They do if most clips share with another what stands before the last _ or - of their names, and if this is not just
    their label.

    Args:
        splits (`datasets.DatasetDict`): from [`load_splits`].
        split_method (`str`): from there too; tells whether a split was made.
        data ([`DataArguments`]): by what it was made.

    Returns:
        What to say of them, with the flag to type; `None` if there are none.
    """
    if AT_RANDOM not in split_method or data.grouping_field():
        return None
    sizes, sides, labels = Counter(), defaultdict(set), defaultdict(set)
    for side, split in splits.items():
        for name, label in zip(file_names(split), label_lists(split), strict=True):
            match = re.search(BEFORE_LAST_PART, name or "")
            if match:
                sizes[match[0]] += 1
                sides[match[0]].add(side)
                labels[tuple(label)].add(match[0])
    num_clips = sum(map(len, splits.values()))
    in_several = sum(size for size in sizes.values() if size > 1)
    torn = sorted(beginning for beginning, found in sides.items() if len(found) > 1)
    named_by_label = all(len(beginnings) == 1 for beginnings in labels.values())
    if not torn or 2 * in_several <= num_clips or len(sizes) < FEWEST_RECORDINGS or named_by_label:
        return None
    pattern = BEFORE_LAST_PART if sizes.total() == num_clips else f"{BEFORE_LAST_PART}|^.+"
    return (
        f"file names look like pieces of {len(sizes)} recordings, of which {len(torn)} ({names_in_short(torn)}) are on both sides of the "
        "split, which makes the score too good if they are; keep them together with --group_file_pattern "
        f"{shlex.quote(pattern)}"
    )

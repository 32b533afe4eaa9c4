"""Clips as lists of columns, from tables of every kind and from the original's JSON layout."""

import json
import os
import shlex
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import datasets
import fsspec
import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from modeling_ast.audio import AudioError

from ..arguments.groups import DataArguments
from .array_columns import RATE, encoded_arrays, is_array_value
from .data_errors import DataError, is_empty, missing_column, names_in_short, refuse_no_files, require_column
from .labels import class_names, label_rows, label_texts, looks_like_label_column
from .split_names import named_splits, side_of
from .stored_features import FEATURES_COLUMN, refuse_shape
from .stretches import refuse_stretches

PATH_COLUMNS = ("file_name", "path", "file", "filename")  # tried when the audio column is not in a table
TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".json", ".parquet")
NO_LABELS = ("id", "index", "fold", "split")  # columns of numbers that nobody means as labels
FOLDERS_OF_FILES = "as the folders of the table's files say"
DEFAULT_AUDIO_COLUMN, DEFAULT_SPLIT_COLUMN = "audio", "split"  # of DataArguments
ORIGINAL_LIST, ORIGINAL_KEYS, ORIGINAL_SEPARATOR = "data", ("wav", "labels"), ","  # Gong et al. 2021, released code


@dataclass(frozen=True)
class ClipTable:
    """Clips of a folder or table.

    Args:
        columns (`dict[str, list]`): `"audio"` (full paths, or `{"bytes", "path"}`), or `"features"` (full paths of .npy
            files, or arrays of shape `(frames, mel bins)`), `"label"` as it stands in the table, perhaps `"split"`, and the
            columns that came along under their own names.
        original_layout (`bool`, defaults to `False`): whether it is the original's JSON, whose labels are lists.
        label_order (`list[str]`, *optional*): names of the `ClassLabel` that a Parquet file has for its labels; in
            `"label"` they stand in place of its indices. Or those of the columns that are labels themselves.
        split_words (`str`, *optional*): in words, what says how it is split, if that is not a column of it.
        part_words (`str`): in words, which part of a folder this is, where nothing says how it is split.
        unclear_splits (`str`): why no split may be made of it without being asked for, and what to type; empty if one may.
    """

    columns: dict[str, list]
    original_layout: bool = False
    label_order: list[str] | None = None
    split_words: str | None = None
    part_words: str = ""
    unclear_splits: str = ""


def parquet_features(file: str | os.PathLike) -> datasets.Features:
    """Read the types of a Parquet file's columns, as `datasets` wrote them down if it made the file.

    Args:
        file (`str` or `os.PathLike`): path, or where it lies elsewhere, such as hf://datasets/...

    Returns:
        `datasets.Features`.
    """
    with fsspec.open(str(file), "rb") as opened:
        return datasets.Features.from_arrow_schema(pq.read_schema(opened))


def read_table(table: Path, data: DataArguments) -> ClipTable:
    """Read a table, with audio as full paths (relative ones are below the table's folder) or bytes.

    Args:
        table (`Path`): CSV, TSV, JSON, JSON-lines or Parquet file, or a JSON file of the original's layout.
        data ([`DataArguments`]): what the columns are called; the original's layout has names of its own.

    Returns:
        [`ClipTable`].

    Raises:
        DataError: if it is no such table, is empty, lacks a column, or names files that are not there.
    """
    columns, original_layout = _read_columns(table)
    if data.dataset_name:  # of several tables one may be without
        for name in data.ignore_columns:
            require_column("ignore_columns", name, columns)
    columns = {name: values for name, values in columns.items() if name not in data.ignore_columns}
    label_name = ORIGINAL_KEYS[1] if original_layout else data.label_column_name
    clips, clips_name = clip_column(columns, data, original_layout)
    files = [value for value in columns[clips_name] if isinstance(value, str)]
    refuse_stretches(columns, data, str(table), repeated=len(set(files)) < len(files))
    label_feature, label_order = None, list(data.label_columns) or None
    if not data.labelled:
        label_name = "label"
        columns = columns | {label_name: [None] * len(columns[clips_name])}
    elif data.label_columns:
        refuse_other_label_columns(columns, data)
        label_name = "label"
        columns = columns | {label_name: label_rows(columns, label_order, lambda row: f"{row + 1} of {table}")}
    elif label_name not in columns:
        raise missing_labels(label_name, columns, {clips_name, data.split_column_name})
    elif table.suffix.lower() == ".parquet":
        label_feature = parquet_features(table).get(label_name)
        label_order = class_names(label_feature)
    if data.split_column_name != DEFAULT_SPLIT_COLUMN:
        require_column("split_column_name", data.split_column_name, columns)
    chosen = {clips: clips_name, "label": label_name, "split": data.split_column_name}
    others = {
        name: values
        for name, values in columns.items()
        if name not in {*chosen, *chosen.values(), *data.label_columns} and not isinstance(values[0], (bytes, dict))
    }
    columns = {name: columns[given] for name, given in chosen.items() if given in columns} | others
    columns["label"] = label_texts(columns["label"], label_feature)
    empty = [row for row, value in enumerate(columns[clips], 1) if is_empty(value)]
    if empty:
        raise DataError(
            f"{table}: row(s) {names_in_short(empty)} have nothing in the column {clips_name!r}. Fill them in or remove them."
        )
    if clips == FEATURES_COLUMN:
        columns[clips] = _resolve_features(columns[clips], table, clips_name)
    else:
        values = encoded_arrays(columns[clips], columns.get(RATE), str(table))
        columns[clips] = [resolve_audio(value, table.parent) for value in values]

    paths = dict.fromkeys(path for path in columns[clips] if isinstance(path, str))
    missing = [path for path in paths if not os.path.isfile(path)]
    refuse_no_files(str(table), missing)
    if missing:
        raise DataError(
            f"{table} names {len(missing)} file(s) that are not there: {names_in_short(missing)}. Paths are taken as relative to "
            f"{table.parent}. Correct or remove these rows."
        )
    return ClipTable(columns, original_layout, label_order)


def refuse_other_label_columns(names: Iterable[str], data: DataArguments):
    """Refuse columns of labels that are not there.

    Args:
        names (iterable of `str`): names of the columns that there are.
        data ([`DataArguments`]): its `label_columns` are looked for.

    Raises:
        DataError: if one is not there.
    """
    names = list(names)
    missing = [name for name in data.label_columns if name not in names]
    if not missing:
        return
    parts = [part.strip() for name in missing for part in name.split(",")]
    if len(parts) > len(missing) and set(parts) <= set(names):
        raise DataError(
            f"label_columns names {names_in_short([*map(repr, missing)])}, which is no column but several. Write them with spaces: "
            f"{shlex.join(['--label_columns', *parts])}."
        )
    raise DataError(
        f"label_columns names {names_in_short([*map(repr, missing)])}, which the data set has not; it has "
        f"{', '.join(map(repr, names))}. Pass --label_columns with some of these."
    )


def missing_labels(name: str, columns: dict[str, list], others: set[str]) -> DataError:
    """Make the error for data without the label column, with the columns that look like labels themselves.

    Args:
        name (`str`): the label column.
        columns (`dict[str, list]`): those that there are, with what they hold.
        others (`set[str]`): which of them have another meaning.

    Returns:
        [`DataError`], to be raised.
    """
    error = missing_column("label_column_name", name, columns)
    labels = [
        column
        for column, values in columns.items()
        if column not in others and column.lower() not in NO_LABELS and looks_like_label_column(values)
    ]
    if len(labels) < 2:
        return error
    return DataError(
        f"{error} If each of the columns that hold only numbers from 0 to 1 is a label: "
        f"{shlex.join(['--label_columns', *labels])}."
    )


def with_splits_of_paths(clips: ClipTable, folder: Path, data: DataArguments) -> ClipTable:
    """Take the folders in which a table's files lie for their splits, if the table says nothing else.

    A split that is asked for in another way (a share that is held out, folds) is made of all clips.

    Args:
        clips ([`ClipTable`]): from [`read_table`].
        folder (`Path`): in which its files are.
        data ([`DataArguments`]): what was given.

    Returns:
        The table with the column `"split"`; as it was; or with what to say where a split has to be made of it, if files lie in
        other folders beside those of splits.

    Raises:
        DataError: if it is not clear which split is which.
    """
    asked_for = data.fold_column_name or "eval_fraction" in data.given
    paths = clips.columns[FEATURES_COLUMN if data.features_column_name else "audio"]
    if "split" in clips.columns or asked_for or not all(isinstance(path, str) for path in paths):
        return clips
    parts = [Path(os.path.relpath(path, folder)).parts[:-1] for path in paths]
    shared = len(os.path.commonprefix(parts))
    splits = [folders[shared] if len(folders) > shared else "." for folders in parts]
    present, given = dict.fromkeys(splits), data.given_split_names()
    if not given and "eval" not in map(side_of, present):
        return clips
    names = named_splits(present, data)
    developed = next((name for name in present if side_of(name) == "validation" and name not in names.values()), None)
    guessed = "train" not in names and developed is not None  # as dev beside eval and others
    names |= {"train": developed} if guessed else {}
    if not {"train", "eval"} <= names.keys() or not set(names.values()) & present.keys():
        return clips
    unclear = [name for name in present if side_of(name) is None and name not in names.values()]
    if (unclear or guessed) and not {"train", "eval"} <= given.keys():
        flags = [word for side in sorted(names, reverse=True) for word in (f"--{side}_split_name", names[side])]
        odd = f", of which {names_in_short(unclear)} are no splits" if unclear else ""
        words = (
            f"The files of the table lie in the folders {names_in_short(list(present))}{odd}. Pass {shlex.join(flags)} if these two are "
            "splits, or --eval_fraction 0.2 to hold out a share of all clips."
        )
        return replace(clips, unclear_splits=words)
    return replace(clips, columns=clips.columns | {"split": splits}, split_words=FOLDERS_OF_FILES)


def clip_column(columns: Iterable[str], data: DataArguments, original_layout: bool = False) -> tuple[str, str]:
    """Find the column of the clips.

    Args:
        columns (iterable of `str`): names of the columns that there are.
        data ([`DataArguments`]): what they should be called.
        original_layout (`bool`, defaults to `False`): whether they are those of the original's JSON.

    Returns:
        What the clips are, `"audio"` or `"features"`, and the name of their column.

    Raises:
        DataError: if there is no such column.
    """
    if data.features_column_name:
        require_column("features_column_name", data.features_column_name, columns)
        return FEATURES_COLUMN, data.features_column_name
    audio_name = ORIGINAL_KEYS[0] if original_layout else data.audio_column_name
    if audio_name == DEFAULT_AUDIO_COLUMN and audio_name not in columns:
        audio_name = next((name for name in PATH_COLUMNS if name in columns), None)
    if audio_name not in columns:
        raise missing_column("audio_column_name", data.audio_column_name, columns)
    return "audio", audio_name


def _read_columns(table: Path) -> tuple[dict[str, list], bool]:
    """All columns as they stand in the table, and whether it is of the original's layout."""
    suffix = table.suffix.lower()
    if suffix == ".json":
        records = _original_records(table)
        if records is not None:
            return records, True
    if suffix in (".csv", ".tsv"):
        frame = _read_text_table(table, "\t" if suffix == ".tsv" else ",")
    elif suffix in (".jsonl", ".json"):
        frame = _parse_json(table, suffix == ".jsonl")
    elif suffix == ".parquet":
        frame = pd.read_parquet(table)
    else:
        raise DataError(f"{table} is no table this kit reads. Pass one of {' '.join(TABLE_SUFFIXES)}, or a folder.")
    if frame.empty:
        raise no_rows(table)
    refuse_doubled_columns(table, frame.columns)
    return {name: frame[name].tolist() for name in frame.columns if name != ""}, False


def refuse_doubled_columns(table: Path, names: Iterable[str]):
    """Refuse a table of which it is not clear which column is meant.

    Args:
        table (`Path`): the file, for the message.
        names (iterable of `str`): names of its columns; several may have none.

    Raises:
        DataError: if two have one name.
    """
    doubled = sorted(str(name) for name, count in Counter(names).items() if count > 1 and name != "")
    if doubled:
        raise DataError(
            f"{table} has more than one column {names_in_short([repr(name) for name in doubled])}. Rename or remove all of them but one "
            "each."
        )


def _read_text_table(table: Path, separator: str) -> pd.DataFrame:
    """A CSV or TSV as it stands: everything is text, so that a label "001" or "NA" stays what it is."""
    try:
        # With its names as a first row: of two equal names in a header, pandas would rename the second.
        frame = pd.read_csv(table, sep=separator, header=None, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except pd.errors.EmptyDataError as error:
        raise no_rows(table) from error
    except UnicodeDecodeError as error:
        raise DataError(f"{table} is not in UTF-8 ({error}). Save it as CSV in UTF-8.") from error
    except pd.errors.ParserError as error:
        raise DataError(
            f"{table} cannot be read: {str(error).strip()}. Put cells that hold {separator!r} in double quotes."
        ) from error
    frame.columns = frame.iloc[0].tolist()
    return frame.iloc[1:]


def _parse_json(table: Path, lines: bool) -> pd.DataFrame:
    try:
        return pd.read_json(table, lines=lines, dtype=False)
    except ValueError as error:
        raise DataError(
            f"{table} is no JSON with an object per {'line' if lines else 'clip'}: {error}. Correct it, or pass a CSV."
        ) from error


def _original_records(table: Path) -> dict[str, list] | None:
    """Columns of the original's JSON, labels as lists; `None` for a list of records or an object of columns."""
    try:
        content = json.loads(table.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(
            f"{table} is no JSON: {error}. Objects on lines of their own belong in a .jsonl file."
        ) from error
    if not isinstance(content, dict):
        return None
    expected = f'Expected the original\'s {{"{ORIGINAL_LIST}": [{{"wav": PATH, "labels": "LABEL,LABEL"}}, ...]}}'
    if ORIGINAL_LIST not in content:
        if all(isinstance(column, dict) or _is_plain_list(column) for column in content.values()):
            return None
        raise DataError(
            f"{table} has {names_in_short([*map(repr, content)])} in place of {ORIGINAL_LIST!r}. {expected}."
        )
    records = content[ORIGINAL_LIST]
    if not isinstance(records, list):
        raise DataError(f"{table} has under {ORIGINAL_LIST!r} no list of clips. {expected}.")
    if not records:
        raise no_rows(table)
    for place, record in enumerate(records, 1):
        texts = isinstance(record, dict) and all(isinstance(record.get(key), str) for key in ORIGINAL_KEYS)
        if not texts:
            raise DataError(f"Entry {place} of {ORIGINAL_LIST!r} in {table} is {record!r:.120}. {expected}.")
    # A key that only some of the clips have is nothing to go by.
    common = set.intersection(*map(set, records))
    columns = {name: [record[name] for record in records] for name in records[0] if name in common}
    columns["labels"] = [
        [label.strip() for label in labels.split(ORIGINAL_SEPARATOR) if label.strip()] for labels in columns["labels"]
    ]
    return columns


def _is_plain_list(column) -> bool:
    return isinstance(column, list) and not any(isinstance(value, dict) and "wav" in value for value in column)


def no_rows(table: Path | str) -> DataError:
    """Make the error for a table without a clip.

    Args:
        table (`Path` or `str`): the table, for the message.

    Returns:
        [`DataError`], to be raised.
    """
    return DataError(f"{table} has no rows. Expected one per clip, with the columns file_name and label.")


def _resolve_features(values: list, table: Path, column_name: str) -> list[str] | list[np.ndarray]:
    """Paths of .npy files below the table's folder, or the nested lists of the table as float32 arrays."""
    if all(isinstance(value, str) for value in values):
        strange = [row for row, value in enumerate(values, 1) if not value.lower().endswith(".npy")]
        if strange:
            raise DataError(
                f"{table}: row(s) {names_in_short(strange)} of the column {column_name!r} are no paths of .npy files, such as "
                f"{values[strange[0] - 1]!r:.80}. Name another with --features_column_name."
            )
        return [str(table.parent / value) for value in values]
    arrays = []
    for row, value in enumerate(values, 1):
        if not isinstance(value, (list, np.ndarray)):
            raise DataError(
                f"{table}: row {row} of the column {column_name!r} holds {value!r:.80}, expected lists of frames, or paths of "
                ".npy files, in all rows. Correct it, or name another with --features_column_name."
            )
        name = f"{table}: row {row} of the column {column_name!r}"
        try:
            array = np.array(value.tolist() if isinstance(value, np.ndarray) else value)
        except ValueError as error:  # lists of different lengths
            raise DataError(
                f"{name} has frames of different lengths, expected as many mel bins in each. Compute its features again, or "
                "remove it."
            ) from error
        if array.dtype == object:
            array = array.astype(np.float64)  # a null becomes NaN, which is found where clips are looked at
        try:
            refuse_shape(array, name)
        except AudioError as error:
            raise DataError(str(error)) from error
        with np.errstate(over="ignore"):  # found as infinite, likewise
            arrays.append(array.astype(np.float32))
    return arrays


def resolve_audio(value, folder: Path) -> str | dict:
    """Read a value of a table's audio column.

    Args:
        value: what the audio column holds.
        folder (`Path`): what relative paths are relative to.

    Returns:
        A path below the folder, or the bytes of a `{"bytes", "path"}` value in such a dictionary.

    Raises:
        DataError: for anything else than a path, bytes, or such a value.
    """
    if is_array_value(value):
        raise DataError(
            "The audio column holds arrays, which are not read a piece at a time. Leave out --streaming, or store the clips as "
            "files."
        )
    if isinstance(value, dict):
        content = value.get("bytes")
        path = value.get("path")
        return resolve_audio(path, folder) if content is None else {"bytes": content, "path": path}
    if isinstance(value, bytes):
        return {"bytes": value, "path": None}
    if isinstance(value, str):
        return os.path.join(folder, value)
    raise DataError(
        f"The audio column holds {value!r:.80}, expected the path of a file, or its bytes. Name another with "
        "--audio_column_name."
    )

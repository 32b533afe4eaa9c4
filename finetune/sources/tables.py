"""Clips as lists of columns: from a folder per class, from tables of every kind, and from the original's JSON layout.

Folders are read here and not by `datasets`' audiofolder builder, which takes a word like "test" in a file name for the
name of a split.
"""

import json
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import datasets
import fsspec
import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from modeling_ast.audio import AUDIO_SUFFIXES, AudioError

from ..arguments import DataArguments
from .data_errors import DataError, is_empty, missing_column, require_column, some
from .labels import class_names, label_texts
from .stored_features import FEATURES_COLUMN, refuse_shape

METADATA_FILES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
PATH_COLUMNS = ("file_name", "path", "file", "filename")  # tried when the audio column is not in a table
TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".json", ".parquet")
DEFAULT_AUDIO_COLUMN, DEFAULT_SPLIT_COLUMN = "audio", "split"  # of DataArguments
ORIGINAL_LIST, ORIGINAL_KEYS, ORIGINAL_SEPARATOR = "data", ("wav", "labels"), ","  # Gong et al. 2021, released code


@dataclass(frozen=True)
class ClipTable:
    """Clips of a folder or table.

    Args:
        columns (`dict[str, list]`): `"audio"` (full paths, or `{"bytes", "path"}`), or `"features"` (full paths of .npy
            files, or arrays of shape `(frames, mel bins)`), `"label"` as it stands in the table, perhaps `"split"`, and the columns that came along under their own names.
        original_layout (`bool`, defaults to `False`): whether it is the original's JSON, whose labels are lists.
        label_order (`list[str]`, *optional*): names of the `ClassLabel` that a Parquet file has for its labels; in
            `"label"` they stand in place of its indices.
    """

    columns: dict[str, list]
    original_layout: bool = False
    label_order: list[str] | None = None


def metadata_table(root: Path) -> Path | None:
    """The table that says what the clips of a folder are, if there is one."""
    return next((root / name for name in METADATA_FILES if (root / name).is_file()), None)


def is_parquet_data_set(root: Path) -> bool:
    """Whether a folder is laid out like a data set on the Hub: Parquet files, without a table of clips or audio files."""
    if metadata_table(root) is not None or next(_audio_files(root), None) is not None:
        return False
    return any(root.rglob("*.parquet"))


def parquet_features(file: str | os.PathLike) -> datasets.Features:
    """The types of a Parquet file's columns, as `datasets` wrote them down if it made the file.

    Args:
        file (`str` or `os.PathLike`): path, or where it lies elsewhere, such as hf://datasets/...
    """
    with fsspec.open(str(file), "rb") as opened:
        return datasets.Features.from_arrow_schema(pq.read_schema(opened))


def read_folder(root: Path, data: DataArguments) -> ClipTable:
    """Clips of a folder: by its metadata file if there is one, else below a folder per class.

    Raises:
        DataError: if there is no audio, or a clip or split folder is not where it is expected.
    """
    table = metadata_table(root)
    if table is None and data.features_column_name:
        raise DataError(
            f"{root} has no {' or '.join(METADATA_FILES)} with the column {data.features_column_name!r} of features. Pass "
            "such a table as --dataset_name, or leave out --features_column_name to train on audio."
        )
    return _read_class_folders(root, data) if table is None else read_table(table, data)


def _read_class_folders(root: Path, data: DataArguments) -> ClipTable:
    """Clips below a folder per class, perhaps below a folder per split."""
    split_folders = _split_folders(root, data)
    columns: dict[str, list] = defaultdict(list)
    for base in split_folders or [root]:
        for path in _audio_files(base):
            _refuse_other_encodings(path)
            label, *rest = path.relative_to(base).parts
            if len(rest) != 1:
                where = f"{len(rest)} folders deep" if rest else "in no class folder"
                raise DataError(
                    f"{path} lies {where}. Expected {base}/CLASS/{path.name}: move it, or pass a table of files and labels "
                    "as --dataset_name."
                )
            columns["audio"].append(str(path))
            columns["label"].append(label)
            if split_folders:
                columns["split"].append(base.name)
    if not columns:
        raise DataError(
            f"{root} holds no audio file ({' '.join(sorted(AUDIO_SUFFIXES))}). Expected a folder per class with clips in "
            "it, or a metadata.csv with the columns file_name and label. Pass another --dataset_name."
        )
    return ClipTable(columns)


def _refuse_other_encodings(path: Path):
    """Refuse a name that no text can hold: file systems take any bytes, columns and summaries UTF-8."""
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"The name {ascii(str(path))} is not in UTF-8, as those of audio files and their folders have to be. Rename it."
        ) from error


def _split_folders(root: Path, data: DataArguments) -> list[Path]:
    """The folders of the splits, none if the classes lie in the root itself."""
    wanted = {"train_split_name": data.train_split_name, "eval_split_name": data.eval_split_name}
    present = [name for name in wanted.values() if (root / name).is_dir()]
    found = sorted(path.name for path in root.iterdir() if path.is_dir())
    if len(present) == 1:
        raise DataError(
            f"{root} holds the folders {some(found)}: {present[0]!r} looks like a split, but its other half is missing. "
            "Name both with --train_split_name and --eval_split_name."
        )
    validation = data.validation_split_name
    if present and validation and not (root / validation).is_dir():
        raise DataError(
            f"{root} has no folder {validation!r}; it holds {some(found)}. Pass --validation_split_name with one of these."
        )
    return [root / name for name in [*present, *filter(None, [validation])]] if present else []


def _audio_files(folder: Path) -> Iterator[Path]:
    for directory, folders, files in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith(".") and Path(name).suffix.lower() in AUDIO_SUFFIXES:
                yield Path(directory, name)


def read_table(table: Path, data: DataArguments) -> ClipTable:
    """Columns of a table, with audio as full paths (relative ones are below the table's folder) or bytes.

    Args:
        table (`Path`): CSV, TSV, JSON, JSON-lines or Parquet file, or a JSON file of the original's layout.
        data ([`DataArguments`]): what the columns are called; the original's layout has names of its own.

    Raises:
        DataError: if it is no such table, is empty, lacks a column, or names files that are not there.
    """
    columns, original_layout = _read_columns(table)
    label_name = ORIGINAL_KEYS[1] if original_layout else data.label_column_name
    clips, clips_name = clip_column(columns, data, original_layout)
    require_column("label_column_name", label_name, columns)
    label_feature = parquet_features(table).get(label_name) if table.suffix.lower() == ".parquet" else None
    if data.split_column_name != DEFAULT_SPLIT_COLUMN:
        require_column("split_column_name", data.split_column_name, columns)
    chosen = {clips: clips_name, "label": label_name, "split": data.split_column_name}
    others = {
        name: values
        for name, values in columns.items()
        if name not in {*chosen, *chosen.values()} and not isinstance(values[0], (bytes, dict))
    }
    columns = {name: columns[given] for name, given in chosen.items() if given in columns} | others
    columns["label"] = label_texts(columns["label"], label_feature)
    empty = [row for row, value in enumerate(columns[clips], 1) if is_empty(value)]
    if empty:
        raise DataError(
            f"{table}: row(s) {some(empty)} have nothing in the column {clips_name!r}. Fill them in or remove them."
        )
    if clips == FEATURES_COLUMN:
        columns[clips] = _resolve_features(columns[clips], table, clips_name)
    else:
        columns[clips] = [resolve_audio(value, table.parent) for value in columns[clips]]

    paths = dict.fromkeys(path for path in columns[clips] if isinstance(path, str))
    missing = [path for path in paths if not os.path.isfile(path)]
    if missing:
        raise DataError(
            f"{table} names {len(missing)} file(s) that are not there: {some(missing)}. Paths are taken as relative to "
            f"{table.parent}. Correct or remove these rows."
        )
    return ClipTable(columns, original_layout, class_names(label_feature))


def clip_column(columns: Iterable[str], data: DataArguments, original_layout: bool = False) -> tuple[str, str]:
    """What the clips are, `"audio"` or `"features"`, and the name of their column.

    Args:
        columns (iterable of `str`): names of the columns that there are.
        data ([`DataArguments`]): what they should be called.
        original_layout (`bool`, defaults to `False`): whether they are those of the original's JSON.

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
            f"{table} has more than one column {some([repr(name) for name in doubled])}. Rename or remove all of them but one "
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
        raise DataError(f"{table} has {some([*map(repr, content)])} in place of {ORIGINAL_LIST!r}. {expected}.")
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
    """The error for a table without a clip."""
    return DataError(f"{table} has no rows. Expected one per clip, with the columns file_name and label.")


def _resolve_features(values: list, table: Path, column_name: str) -> list[str] | list[np.ndarray]:
    """Paths of .npy files below the table's folder, or the nested lists of the table as float32 arrays."""
    if all(isinstance(value, str) for value in values):
        strange = [row for row, value in enumerate(values, 1) if not value.lower().endswith(".npy")]
        if strange:
            raise DataError(
                f"{table}: row(s) {some(strange)} of the column {column_name!r} are no paths of .npy files, such as "
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
    """A path below the table's folder, or the bytes of a `{"bytes", "path"}` value.

    Args:
        value: what the audio column holds.
        folder (`Path`): what relative paths are relative to.

    Raises:
        DataError: for anything else than a path, bytes, or such a value.
    """
    if isinstance(value, dict):
        content = value.get("bytes")
        path = value.get("path")
        return resolve_audio(path, folder) if content is None else {"bytes": content, "path": path}
    if isinstance(value, bytes):
        return {"bytes": value, "path": None}
    if isinstance(value, str):
        return os.path.join(folder, value)
    raise DataError(
        f"The audio column holds {value!r}, expected the path of a file, or its bytes. Name another with "
        "--audio_column_name."
    )

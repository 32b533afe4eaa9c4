"""Tables and splits of the Hub that are read a piece at a time, so that memory does not grow with the data set.

Tables are read with the readers of `tables.py` (pandas; Parquet with pyarrow, page by page, as one row group may hold all
the audio), data sets on the Hub with `datasets.IterableDataset` or, if they are Parquet, like local tables.
"""

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import datasets
import fsspec
import pandas as pd
import pyarrow.parquet as pq

from modeling_ast.audio.saved_data_sets import is_saved_data_set
from modeling_ast.system.regular_files import refuse_special
from modeling_ast.system.surroundings import hub_hint

from ..arguments.groups import DataArguments
from ..arguments.shipped_files import local_or_shipped
from .array_columns import is_array_value
from .data_errors import DataError, names_in_short, require_column
from .folders import METADATA_FILES, is_parquet_data_set, metadata_table
from .split_names import flags_to_name, how_to_name, split_names, take_split_names
from .stretches import refuse_stretches
from .tables import (
    TABLE_SUFFIXES,
    clip_column,
    no_rows,
    parquet_features,
    refuse_doubled_columns,
    refuse_other_label_columns,
    resolve_audio,
)

PAGE_BUFFER = 1 << 20  # bytes of a Parquet column read together
STREAMED_SUFFIXES = tuple(suffix for suffix in TABLE_SUFFIXES if suffix != ".json")  # which has to be read whole


@dataclass(frozen=True)
class StreamSource:
    """A table, or a split of a data set on the Hub, that is read in pieces.

    Args:
        name (`str`): what to call it in messages.
        columns (`list[str]`): names of its columns.
        audio_column (`str`): which of them holds the audio.
        paths (`bool`): whether that column holds nothing but paths.
        label_feature: type of the label column, where the data says it: a `ClassLabel` has names for its indices.
        pieces (`Callable`): makes an iterator over dictionaries of columns, as lists, of the columns that are named and
            as many rows as are asked for.
        folder (`Path`, *optional*): what paths are relative to.
    """

    name: str
    columns: list[str]
    audio_column: str
    paths: bool
    label_feature: object
    pieces: Callable[[list[str], int], Iterator[dict[str, list]]]
    folder: Path | None = None

    def audio(self, value) -> dict:
        """Read a value of the audio column.

        Args:
            value: a path, bytes, or a dictionary of both.

        Returns:
            `{"bytes", "path"}`.

        Raises:
            DataError: if it is none of these.
        """
        if isinstance(value, bytes):
            return {"bytes": value, "path": None}
        if is_array_value(value) or (self.folder is not None and not (isinstance(value, str) and "://" in value)):
            value = resolve_audio(value, self.folder)
        return value if isinstance(value, dict) else {"bytes": None, "path": value}


def stream_parts(data: DataArguments) -> tuple[list[tuple[StreamSource, str | None, str | None]], str]:
    """Find the sources of a run.

    Args:
        data ([`DataArguments`]): where the clips are, and what splits and columns are called.

    Returns:
        The sources, each with its column of splits, if it has several, or the name of its split; and in words who says
        so.

    Raises:
        DataError: if a table or column is not there, or the data cannot be streamed or does not say how it is split.
    """
    if data.train_file:
        names = split_names(data)
        files = {side: local_or_shipped(getattr(data, f"{side}_file")) for side in names}
        for (side, path), (other, twin) in itertools.combinations(files.items(), 2):
            if path.resolve() == twin.resolve():
                raise DataError(
                    f"{side}_file and {other}_file are both {path}. Pass a table of other clips for one of them."
                )
        parts = [(table_source(path, data, f"--{side}_file"), None, side) for side, path in files.items()]
        return parts, "as the files say"
    path = local_or_shipped(data.dataset_name)
    refuse_special(path)
    table = path if path.is_file() else metadata_table(path)
    if table is not None:
        source = table_source(table, data, "--dataset_name")
        if data.split_column_name not in source.columns:
            raise DataError(
                f"{table} has no column {data.split_column_name!r} that says which clips are trained on and which are scored, "
                "and a stream cannot be split at random. Pass --split_column_name, a table for each split as --train_file "
                "and --eval_file, or leave out --streaming."
            )
        return [(source, data.split_column_name, None)], f"as the column {data.split_column_name!r} says"
    if is_saved_data_set(path):
        raise DataError(
            f"{path} was written by save_to_disk. It is mapped from the disk, so that its clips are not held in memory anyway: "
            "leave out --streaming."
        )
    if path.is_dir() and not is_parquet_data_set(path):
        raise DataError(
            f"{path} is a folder without a table. Of the clips of folders only the names are held in memory anyway: leave out "
            f"--streaming, or give it a {METADATA_FILES[0]} with the columns file_name, label and split."
        )
    if not path.is_dir() and (path.suffix in TABLE_SUFFIXES or data.dataset_name.startswith((".", "/", "~"))):
        raise DataError(f"{path} is not there. Pass --dataset_name with a table, or a Hub id like user/name.")
    sources, words = hub_sources(str(path) if path.is_dir() else data.dataset_name, data)
    names = split_names(data)
    return [(sources[side], None, name) for side, name in names.items()], f"as the data set says{words}"


def table_source(table: Path, data: DataArguments, flag: str) -> StreamSource:
    """Open a CSV, TSV, JSON-lines or Parquet file to be read in pieces.

    Args:
        table (`Path`): the file; relative paths in it are below its folder.
        data ([`DataArguments`]): what the columns are called.
        flag (`str`): with which it was given, for messages.

    Returns:
        [`StreamSource`].

    Raises:
        DataError: if it is not there, is no such table, is empty, or lacks a column.
    """
    refuse_special(table)
    if not table.is_file():
        raise DataError(f"{table} is {'a folder' if table.is_dir() else 'not there'}. Pass {flag} with a table.")
    suffix, features = table.suffix.lower(), {}
    if suffix not in STREAMED_SUFFIXES:
        raise DataError(
            f"{table} cannot be read in pieces. Pass one of {' '.join(STREAMED_SUFFIXES)}, or leave out --streaming."
        )
    if suffix == ".parquet":
        pieces = partial(_parquet_pieces, [str(table)])
        features = parquet_features(table)
        columns = list(features)
    else:
        pieces = partial(_text_pieces, table)
        columns = _text_columns(table)
        if not columns:
            raise no_rows(table)
        refuse_doubled_columns(table, columns)
    _, audio = clip_column(columns, data)
    _check_columns(columns, data, str(table))
    paths = suffix != ".parquet" or _holds_text(features[audio])
    label = features.get(data.label_column_name)
    return StreamSource(str(table), columns, audio, paths, label, pieces, table.parent)


def _check_columns(columns: list[str], data: DataArguments, where: str):
    """Refuse a source without the columns of labels, or with columns that mark stretches."""
    for name in data.ignore_columns:
        require_column("ignore_columns", name, columns)
    refuse_stretches(columns, data, where)
    if data.label_columns:
        refuse_other_label_columns(columns, data)
    else:
        require_column("label_column_name", data.label_column_name, columns)


def hub_sources(name: str, data: DataArguments) -> tuple[dict[str, StreamSource], str]:
    """The named splits of a data set on the Hub, or of a folder that is laid out like one.

    Args:
        name (`str`): its id, or the folder.
        data ([`DataArguments`]): configuration, names of splits and columns; those of splits become the data's own.

    Returns:
        The sources by side; and in words which splits were recognised, and which take no part.

    Raises:
        DataError: if there is no such data set, or it has no such split or column.
    """
    try:
        builder = datasets.load_dataset_builder(name, data.dataset_config_name)
        files = builder.config.data_files if "parquet" in type(builder).__name__.lower() else None
        streams = None if files else builder.as_streaming_dataset()
    except (FileNotFoundError, ConnectionError, OSError, ValueError) as error:  # ValueError: another configuration
        raise DataError(
            f"{data.dataset_name} is neither a table here nor a data set that the Hub gives ({error}). Check --dataset_name "
            f"and --dataset_config_name.{hub_hint()}"
        ) from error
    sources, present = {}, list(map(str, files or streams))
    words = take_split_names(present, data)
    for side, split in split_names(data).items():
        if split not in present:
            raise DataError(
                f"{data.dataset_name} has no split {split!r}; it has {names_in_short(present)}. Pass "
                f"{flags_to_name(side, present, data)}."
            )
        if files:
            pieces = partial(_parquet_pieces, list(files[split]))
            features = builder.info.features or parquet_features(files[split][0])
        else:
            stream = streams[split]
            pieces, features = partial(_stream_pieces, stream), stream.features
            if features is None:  # of tables that do not say it themselves
                (first,) = itertools.islice(stream.with_format("arrow").iter(1), 1)
                features = datasets.Features.from_arrow_schema(first.schema)
        _, audio = clip_column(features, data)
        _check_columns(list(features), data, f"The split {split!r}")
        label = features.get(data.label_column_name)
        paths = _holds_text(features[audio])
        folder = Path(name) if Path(name).is_dir() else None
        sources[side] = StreamSource(f"the split {split!r}", list(features), audio, paths, label, pieces, folder)
    others = [split for split in present if split not in split_names(data).values()]
    if others:
        words += f", without the split(s) {names_in_short(others)}, {how_to_name(others)}"
    return sources, words


def _holds_text(feature) -> bool:
    return isinstance(feature, datasets.Value) and "string" in feature.dtype


def _parquet_pieces(files: list[str], columns: list[str], rows: int) -> Iterator[dict[str, list]]:
    for file in files:
        with fsspec.open(file, "rb") as opened:
            # Read ahead or mapped into memory, a row group would be there as a whole.
            table = pq.ParquetFile(opened, buffer_size=PAGE_BUFFER, pre_buffer=False)
            for batch in table.iter_batches(rows, columns=columns):
                yield batch.to_pydict()


def _text_columns(table: Path) -> list[str]:
    with _readable(table):
        if table.suffix.lower() == ".jsonl":
            with pd.read_json(table, lines=True, dtype=False, chunksize=1) as reader:
                return next((list(row.columns) for row in reader if len(row)), [])  # of a blank line there is none
        # With its names as a first row: of two equal names in a header, pandas would rename the second.
        return pd.read_csv(table, header=None, nrows=1, **_text_options(table)).iloc[0].tolist()


def _text_pieces(table: Path, columns: list[str], rows: int) -> Iterator[dict[str, list]]:
    """Columns of a CSV, TSV or JSON-lines table as [`read_table`] has them."""
    with _readable(table):
        if table.suffix.lower() == ".jsonl":
            reader = pd.read_json(table, lines=True, dtype=False, chunksize=rows)
        else:
            reader = pd.read_csv(table, usecols=columns, chunksize=rows, **_text_options(table))
        with reader:
            for frame in reader:
                frame = frame.reindex(columns=columns)  # of JSON, a key that no row of a piece has
                if len(frame):
                    yield {name: frame[name].tolist() for name in columns}


def _text_options(table: Path) -> dict:
    separator = "\t" if table.suffix.lower() == ".tsv" else ","
    return {"sep": separator, "dtype": str, "keep_default_na": False, "encoding": "utf-8-sig"}


@contextmanager
def _readable(table: Path) -> Iterator[None]:
    try:
        yield
    except pd.errors.EmptyDataError as error:
        raise no_rows(table) from error
    except ValueError as error:  # what pandas raises for a table it cannot parse is one
        raise DataError(
            f"{table} cannot be read: {str(error).strip()}. Repair it (it has to be in UTF-8), or pass another table."
        ) from error


def _stream_pieces(stream: datasets.IterableDataset, columns: list[str], rows: int) -> Iterator[dict[str, list]]:
    for piece in stream.select_columns(columns).with_format("arrow").iter(rows):
        yield piece.to_pydict()

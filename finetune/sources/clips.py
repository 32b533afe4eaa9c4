"""From a folder, tables, a Hub data set or a data set in memory to one table of clips, labels apart and not yet read.

Audio comes as undecoded `datasets` audio columns. What is wrong with the data is said before training, in words that name
the flag to type.
"""

import bisect
import itertools
import os
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import datasets
import pyarrow as pa

from modeling_ast.audio.saved_data_sets import is_saved_data_set, load_saved
from modeling_ast.system.regular_files import refuse_special

from ..arguments.data_arguments import SIDES
from ..arguments.groups import DataArguments
from ..arguments.shipped_files import local_or_shipped
from .array_columns import array_key, arrays_as_files, refuse_clipped_integers
from .audio_columns import missing_files, rows_without_audio
from .columns import dataset_of
from .data_errors import DataError, is_empty, names_in_short, refuse_no_files, require_column
from .folders import is_parquet_data_set, read_folder
from .grouping import file_paths
from .hub import load_hub
from .labels import class_names, joined_order, label_rows, label_texts
from .split_names import flags_to_name, others_in_words, split_names, take_split_names
from .stored_features import FEATURES_COLUMN
from .stretches import refuse_stretches
from .tables import (
    DEFAULT_SPLIT_COLUMN,
    TABLE_SUFFIXES,
    ClipTable,
    clip_column,
    missing_labels,
    read_table,
    refuse_other_label_columns,
    with_splits_of_paths,
)

FEATURES_TYPE = datasets.List(datasets.List(datasets.Value("float32")))


@dataclass(frozen=True)
class Clips:
    """Clips of a run in one table, labels apart and as they stand in the data.

    Args:
        rows (`datasets.Dataset`): `"audio"`, undecoded, or `"features"`, and the columns that came along.
        labels (`list`): what the label column holds, with names in place of a `ClassLabel`'s indices.
        splits (`list[str]`, *optional*): the split of each clip, where the data says it.
        split_words (`str`): in words, what says it.
        parts (`dict[str, int]`): clips of each file or Hub split of which the rows are made, in their order.
        split_column (`bool`): whether it is a column of the rows, `"split"`.
        label_order (`list[str]`, *optional*): names of the data's `ClassLabel`.
        original_layout (`bool`): whether all of it is the original's JSON.
        part_words (`str`): in words, which part of a data set this is, where nothing says how it is split.
        unclear_splits (`str`): see [`ClipTable`].
    """

    rows: datasets.Dataset
    labels: list
    splits: list[str] | None
    split_words: str
    parts: dict[str, int]
    split_column: bool = False
    label_order: list[str] | None = None
    original_layout: bool = False
    part_words: str = ""
    unclear_splits: str = ""

    def is_split(self, name: str) -> bool:
        """Tell whether the clips are, or are among others, those of a split that was loaded by its name.

        Args:
            name (`str`): of the split.

        Returns:
            `True` if so.
        """
        return _of_split(name) in self.parts

    def row_name(self, row: int) -> str:
        """Tell what to call a row in a message.

        Args:
            row (`int`): place of the row, from 0.

        Returns:
            Its number in its file or split, from 1; of several, with what these are called.
        """
        starts = list(itertools.accumulate(self.parts.values(), initial=0))
        part = bisect.bisect_right(starts, row) - 1
        number = row - starts[part] + 1
        return str(number) if len(self.parts) == 1 else f"{number} of {list(self.parts)[part]}"


def _of_split(name: str) -> str:
    """What a part of [`Clips`] is called that is a split."""
    return f"the split {name!r}"


def load_clips(data: DataArguments, pooled: bool) -> Clips:
    """Load all clips as the user has them, without reading their labels.

    Args:
        data ([`DataArguments`]): where they are and what the columns are called.
        pooled (`bool`): whether all splits of a data set on the Hub are wanted, not only those that are named.

    Returns:
        [`Clips`].

    Raises:
        DataError: if there are none.
    """
    if data.train_file:
        return _load_files(data)
    source = local_or_shipped(data.dataset_name)
    refuse_special(source)
    if is_saved_data_set(source):
        return clips_of_dataset(
            load_saved(source), data, data.dataset_name, pooled=pooled, split_words="as the data set says"
        )
    if source.is_dir() and is_parquet_data_set(source):
        return _load_hub(data, pooled)
    if source.is_dir():
        return _from_tables(read_folder(source, data), data)
    if source.is_file():
        table = with_splits_of_paths(read_table(source, data), source.parent, data)
        return _from_tables({data.dataset_name: table}, data)
    if source.suffix in TABLE_SUFFIXES or len(source.parts) != 2 or data.dataset_name.startswith((".", "/", "~")):
        raise DataError(
            f"{data.dataset_name} is not there. Pass --dataset_name with a folder, a table, or a Hub id like user/name."
        )
    return _load_hub(data, pooled)


def _load_files(data: DataArguments) -> Clips:
    """Tables of which each is a split."""
    tables, splits = {}, []
    for side in SIDES:
        flag = f"{side}_file"
        path = getattr(data, flag)
        if path is None:
            continue
        source = local_or_shipped(path)
        refuse_special(source)
        if not source.is_file():
            raise DataError(
                f"{flag}={path!r} is {'a folder' if source.is_dir() else 'not there'}. Pass --{flag} with a table "
                f"({' '.join(TABLE_SUFFIXES)})."
            )
        # The same file twice is found as identical clips later.
        tables[f"{flag} {path}"] = table = read_table(source, data)
        splits += [side] * len(table.columns["label"])
    return _from_tables(tables, data, splits)


def _from_tables(tables: dict[str, ClipTable], data: DataArguments, splits: list[str] | None = None) -> Clips:
    """Join tables; a column that only some of them have stays behind."""
    common = set.intersection(*(set(table.columns) for table in tables.values()))
    first = next(iter(tables.values()))
    columns = {
        name: [value for table in tables.values() for value in table.columns[name]]
        for name in first.columns
        if name in common
    }
    labels = columns.pop("label")
    if splits is None:
        splits = columns.get("split")
        split_column = splits is not None and first.split_words is None
        words = first.split_words or f"as the column {data.split_column_name!r} or the folders of the data set say"
    else:
        split_column, words = False, "as the files say"
    clips_name = FEATURES_COLUMN if data.features_column_name else "audio"
    # The mixed types of a table's other columns are nobody's concern here: they come along as text.
    texts = {
        name: ["" if is_empty(value) else str(value) for value in values]
        for name, values in columns.items()
        if name not in ("audio", clips_name)  # audio is not carried along with features
    }
    kind = datasets.Audio(decode=False)
    if data.features_column_name:
        kind = _type_of_features(columns[clips_name], data)
    features = datasets.Features({clips_name: kind} | dict.fromkeys(texts, datasets.Value("string")))
    rows = dataset_of({clips_name: columns[clips_name]} | texts, features)
    parts = {name: len(table.columns["label"]) for name, table in tables.items()}
    original_layout = all(table.original_layout for table in tables.values())
    order = joined_order([table.label_order for table in tables.values()])
    clips = Clips(rows, labels, splits, words, parts, split_column, order, original_layout, first.part_words)
    return replace(clips, unclear_splits=first.unclear_splits)


def _type_of_features(clips: list, data: DataArguments) -> datasets.Value | datasets.List:
    """The type of a column of .npy files or of arrays, which tables of a run have in common."""
    of_files = sum(isinstance(clip, str) for clip in clips)
    if 0 < of_files < len(clips):
        raise DataError(
            f"The column {data.features_column_name!r} holds paths of files in one table and features in another. Store them "
            "alike in all."
        )
    return datasets.Value("string") if of_files else FEATURES_TYPE


def _load_hub(data: DataArguments, pooled: bool) -> Clips:
    """Splits of a data set on the Hub, or of a folder laid out like one: those that are named, or all of them."""
    source = local_or_shipped(data.dataset_name)
    folder = source if source.is_dir() else None
    loaded = load_hub(data, folder)
    words = "as the data set on the Hub says" if folder is None else "as the data set says"
    return clips_of_dataset(loaded, data, data.dataset_name, pooled=pooled, folder=folder, split_words=words)


def clips_of_dataset(
    loaded: datasets.Dataset | datasets.DatasetDict,
    data: DataArguments,
    name: str,
    *,
    pooled: bool = False,
    folder: Path | None = None,
    split_words: str | None = None,
) -> Clips:
    """Take all clips of a data set in memory or from the Hub.

    Of several splits those are taken that are named, and each has to be there. A single split is taken as it is: a
    column may say how it is split, and if none does, it has to be made.

    Args:
        loaded (`datasets.Dataset` or `datasets.DatasetDict`): all of it, or its splits; audio decoded or not.
        data ([`DataArguments`]): what splits and columns are called.
        name (`str`): what to call the data set.
        pooled (`bool`): whether all splits are wanted, not only those that are named.
        folder (`Path`, *optional*): what paths in an audio column of text are relative to; the working folder if not
            given.
        split_words (`str`, *optional*): in words, that it says itself how it is split; by its name if not given.

    Returns:
        [`Clips`].

    Raises:
        DataError: if a split or column is not there, or a clip has no audio.
    """
    whole = isinstance(loaded, datasets.Dataset)
    if whole:
        loaded = datasets.DatasetDict({data.train_split_name: loaded})
    single = len(loaded) == 1 and not data.asked_splits(loaded)
    words = split_words or f"as {name} says"
    if not pooled and not single:
        words += take_split_names(loaded, data)
    wanted = list(loaded) if pooled or single else list(split_names(data).values())
    for side, split_name in split_names(data).items():
        if split_name in wanted and split_name not in loaded:
            remedy = f"--{side}_split_name, or leave out the names of splits to have one made"
            remedy = remedy if len(loaded) == 1 else flags_to_name(side, loaded, data)
            raise DataError(
                f"{name} has no split {split_name!r}; it has {names_in_short(list(loaded))}. Pass {remedy}."
            )
    _refuse_unused_columns(loaded, data)
    tables, labels, features = [], [], []
    for name in wanted:
        refuse_stretches(loaded[name].column_names, data, f"The split {name!r}")
        split = _named_columns(loaded[name], data, folder)
        features.append(split.features["label"])
        labels += label_texts(split["label"][:], split.features["label"])
        tables.append(split.remove_columns("label"))
    if data.features_column_name and len({str(table.features[FEATURES_COLUMN]) for table in tables}) > 1:
        # Such as arrays of another fixed length in each split.
        tables = [table.cast_column(FEATURES_COLUMN, FEATURES_TYPE) for table in tables]
    # A column that not every split has, or has in another type, stays behind.
    common = [
        name
        for name, feature in tables[0].features.items()
        if all(table.features.get(name) == feature for table in tables)
    ]
    rows = datasets.concatenate_datasets([table.select_columns(common) for table in tables])
    order = list(data.label_columns) or joined_order([class_names(feature) for feature in features])
    parts = {_of_split(split): len(table) for split, table in zip(wanted, tables, strict=True)}
    words += others_in_words(Counter({name: len(loaded[name]) for name in loaded if name not in wanted}), data)
    clips = Clips(rows, labels, None, words, parts, label_order=order)
    if not data.features_column_name:
        _refuse_missing_audio(clips)
        files = [path for path in file_paths(rows) if path is not None]
        columns = loaded[wanted[0]].column_names
        refuse_stretches(columns, data, f"The split {wanted[0]!r}", repeated=len(set(files)) < len(files))
    if single and not (pooled and data.split_column_name not in rows.column_names):
        columns = loaded[wanted[0]].column_names  # as the user knows them
        return _split_by_column(clips, data, columns, "" if whole else f" of its only split {wanted[0]!r}")
    if data.split_column_name != DEFAULT_SPLIT_COLUMN and not pooled:
        raise DataError(
            f"split_column_name={data.split_column_name!r} was given, but {name} has the splits {names_in_short(list(loaded))}. Leave out "
            "--split_column_name, or name two of these with --train_split_name and --eval_split_name."
        )
    splits = [split for split, table in zip(wanted, tables, strict=True) for _ in range(len(table))]
    return replace(clips, splits=splits)


def _split_by_column(clips: Clips, data: DataArguments, columns: list[str], part_words: str) -> Clips:
    """Clips of a single split, with the splits that a column of it says, as for a table."""
    column, rows = data.split_column_name, clips.rows
    if column != DEFAULT_SPLIT_COLUMN:
        require_column("split_column_name", column, columns)
    if column not in rows.column_names:
        return replace(clips, part_words=part_words)
    splits = label_texts(rows[column][:], rows.features[column])
    if column != DEFAULT_SPLIT_COLUMN:
        in_the_way = [name for name in rows.column_names if name == DEFAULT_SPLIT_COLUMN]
        rows = rows.remove_columns(in_the_way).rename_column(column, DEFAULT_SPLIT_COLUMN)
    return replace(clips, rows=rows, splits=splits, split_words=f"as the column {column!r} says", split_column=True)


def _refuse_missing_audio(clips: Clips):
    """Refuse rows without audio, and files that are not there."""
    empty = [clips.row_name(row) for row in rows_without_audio(clips.rows)]
    if empty:
        raise DataError(f"Row(s) {names_in_short(empty)} have no audio. Fill them in or remove them.")
    missing = missing_files(clips.rows)
    refuse_no_files("The audio column", missing)
    if missing:
        raise DataError(
            f"The audio column names {len(missing)} file(s) that are not there: {names_in_short(missing)}. Correct or remove these rows."
        )


def _refuse_unused_columns(loaded: datasets.DatasetDict, data: DataArguments):
    """Refuse names of columns to ignore that no split has."""
    for name in data.ignore_columns:
        require_column("ignore_columns", name, {name for split in loaded.values() for name in split.column_names})


def _named_columns(split: datasets.Dataset, data: DataArguments, folder: Path | None) -> datasets.Dataset:
    """A split of the Hub with its columns called "audio", undecoded, or "features", and "label"."""
    split = split.with_format(None).remove_columns(
        [name for name in data.ignore_columns if name in split.column_names]
    )
    clips, clips_name = clip_column(split.column_names, data)
    wanted = {clips: clips_name, "label": data.label_column_name if data.labelled else "label"}
    if not data.labelled:
        split = split.remove_columns([name for name in split.column_names if name == "label"])
        split = split.add_column("label", [None] * len(split), feature=datasets.Value("string"))
    elif data.label_columns:
        refuse_other_label_columns(split.column_names, data)
        columns = {name: split[name][:] for name in data.label_columns}
        values = label_rows(columns, data.label_columns, lambda row: str(row + 1))
        split = split.remove_columns(list({*data.label_columns, "label"} & set(split.column_names)))
        split = split.add_column("label", values, feature=datasets.List(datasets.Value("float64")))
    elif data.label_column_name not in split.column_names:
        plain = [name for name, kind in split.features.items() if isinstance(kind, datasets.Value)]
        raise missing_labels(
            data.label_column_name,
            {name: split[name][:] if name in plain else [] for name in split.column_names},
            {clips_name, data.split_column_name},
        )
    in_the_way = [name for name in set(wanted) & set(split.column_names) if wanted[name] != name]
    split = split.remove_columns(in_the_way)
    split = split.rename_columns({given: column for column, given in wanted.items() if given != column})
    if data.features_column_name:
        kinds = split.features.items()
        audio = [name for name, kind in kinds if name == "audio" or isinstance(kind, datasets.Audio)]
        return split.remove_columns(audio)  # not decoded, nor carried along
    return _undecoded(split, folder)


def _undecoded(split: datasets.Dataset, folder: Path | None) -> datasets.Dataset:
    """Its column "audio" as undecoded `datasets.Audio`, whether it was decoded, or paths, bytes or arrays of another type."""
    feature = split.features["audio"]
    if array_key(feature) is not None:
        return arrays_as_files(split)
    if folder is not None and getattr(feature, "dtype", None) in ("string", "large_string"):
        paths = [path and os.path.join(folder, path) for path in split["audio"][:]]
        split = split.remove_columns("audio").add_column("audio", paths, feature=datasets.Value("string"))
        feature = split.features["audio"]
    narrow = {"large_string": "string", "large_binary": "binary"}
    try:
        if getattr(feature, "dtype", None) in narrow:  # which `Audio` does not take
            split = split.cast_column("audio", datasets.Value(narrow[feature.dtype]))
        undecoded = split.cast_column("audio", datasets.Audio(decode=False))
    except (TypeError, ValueError, ImportError, pa.ArrowException) as error:
        raise DataError(
            f"The audio column holds {feature}, expected datasets.Audio, paths or bytes of files, or arrays with their "
            "sampling_rate. Name another with --audio_column_name, or store the clips as files."
        ) from error
    refuse_clipped_integers(undecoded)
    return undecoded

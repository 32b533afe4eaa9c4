"""From a folder, tables or a Hub data set to its splits or folds, as undecoded `datasets` audio columns.

What is wrong with the data is said before training, in words that name the flag to type.
"""

import bisect
import itertools
import os
import re
import shlex
import unicodedata
import warnings
from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from pathlib import Path

import datasets
import pyarrow as pa
from sklearn.model_selection import GroupKFold, StratifiedGroupKFold, train_test_split

from modeling_ast.system.regular_files import refuse_special
from modeling_ast.system.surroundings import cache_hint

from ..arguments.data_arguments import SIDES
from ..arguments.groups import DataArguments
from ..arguments.shipped_files import local_or_shipped
from .annotations import join_annotations, refuse_unjoined
from .array_columns import array_key, arrays_as_files, refuse_clipped_integers
from .audio_columns import missing_files, rows_without_audio
from .data_errors import DataError, counted, is_empty, names_in_short, refuse_no_files, require_column
from .folders import is_parquet_data_set, read_folder
from .grouping import AT_RANDOM, file_paths, grouping_in_words, groups_of
from .labels import (
    SHARES_COLUMN,
    ClipLabels,
    class_names,
    joined_order,
    label_feature,
    label_rows,
    label_texts,
    parse_labels,
    read_label_csv,
)
from .saved_data_sets import is_saved_data_set, load_saved
from .split_names import flags_to_name, named_splits, others_in_words, take_split_names
from .stored_features import FEATURES_COLUMN, NAME_COLUMN
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

    def row_name(self, row: int) -> str:
        """What to call a row in a message: its number in its file, from 1."""
        starts = list(itertools.accumulate(self.parts.values(), initial=0))
        part = bisect.bisect_right(starts, row) - 1
        number = row - starts[part] + 1
        return str(number) if len(self.parts) == 1 else f"{number} of {list(self.parts)[part]}"


def load_splits(data: DataArguments, seed: int) -> tuple[datasets.DatasetDict, str]:
    """Load the clips and split them.

    Args:
        data ([`DataArguments`]): where the clips are, what the columns are called, and which splits there are.
        seed (`int`): seed of a split that has to be made.

    Returns:
        A `DatasetDict` with the splits `"train"`, `"eval"` and, if asked for, `"validation"`, whose columns `"audio"`
        (undecoded `datasets.Audio`) and `"label"` (`datasets.ClassLabel`, or for multi-label data `datasets.List` of it)
        are followed by those that came along; with `features_column_name` the first is `"features"` and the last
        `"features_from"`, as [`StoredFeatures`] reads them; and in words how it was split.

    Raises:
        DataError: if there is no audio, a file or column is missing, labels cannot be read, a split is empty or cannot
            be made.
    """
    return split_clips(load_clips(data, pooled=False), data, seed)


def split_clips(clips: Clips, data: DataArguments, seed: int) -> tuple[datasets.DatasetDict, str]:
    """Split clips as they come from [`load_clips`] or [`clips_of_dataset`]; see [`load_splits`]."""
    labels, kept, joined = _read_labels(clips, data)
    if clips.splits is not None:
        grouping = data.grouping_field()
        if grouping and not data.validation_fraction:
            column = f", or remove the column {data.split_column_name!r}" if clips.split_column else ""
            raise DataError(
                f"{grouping} was given, but the data set says itself how it is split. Leave out --{grouping}{column}."
            )
        sides, method = _named_sides(clips, kept, data)
    else:
        if data.validation_split_name:
            raise DataError(
                f"validation_split_name={data.validation_split_name!r} was given, but the data says of no clip which split "
                "it is in. Pass --validation_fraction 0.1 instead, or a table with a column of splits."
            )
        held_out, how = _held_out(kept, labels, clips, data.eval_fraction, "eval_fraction", data, seed)
        sides = {row: "eval" if row in held_out else "train" for row in kept}
        method = f"{len(held_out)} of {len(kept)} clips{clips.part_words} held out {AT_RANDOM}{how}"
    sides, words = _set_validation_apart(sides, labels, clips, data, seed)
    # What is in no split, and a label that is only there, is not this run's concern.
    chosen = [row for row, side in sides.items() if side is not None]
    everything = with_encoded_labels(clips, labels, chosen, labels.names(chosen, data.ignore_labels))
    return _select_sides(everything, sides), method + words + joined


def load_folds(data: DataArguments) -> tuple[list[tuple[str, datasets.DatasetDict]], str]:
    """Load the clips for cross-validation: one pair of splits for each value of the fold column.

    Args:
        data ([`DataArguments`]): its `fold_column_name` names the column. Splits that the data has besides are pooled; if
            `split_column_name` is given too, only clips of its training split take part.

    Returns:
        Name and splits of each fold in natural order (10 after 9), as [`load_splits`] returns them: `"eval"` are the
        clips of the fold, `"train"` all others. All folds have the same labels in the same order. And in words how the
        folds were made.

    Raises:
        DataError: as [`load_splits`]; if there are less than two folds, a clip has none, or a group is in two.
    """
    clips = load_clips(data, pooled=True)
    labels, kept, joined = _read_labels(clips, data)
    kept, split_words = _rows_of_folds(clips, kept, data)
    fold_of = _folds(clips, kept, data)
    folds = sorted(set(fold_of.values()), key=_natural_order)
    everything = with_encoded_labels(clips, labels, kept, labels.names(kept, data.ignore_labels))
    pairs = [
        (fold, _select_sides(everything, {row: "eval" if fold_of[row] == fold else "train" for row in kept}))
        for fold in folds
    ]
    method = f"{len(folds)} folds by the column {data.fold_column_name!r}, each scored by a model of the others"
    return pairs, method + split_words + joined


def _natural_order(name: str) -> list:
    return [int(part) if place % 2 else part for place, part in enumerate(re.split(r"(\d+)", name))]


def _rows_of_folds(clips: Clips, kept: list[int], data: DataArguments) -> tuple[list[int], str]:
    """Clips that take part in the folds, and in words what became of the splits that the data has besides."""
    if clips.splits is None or data.fold_column_name == data.split_column_name:
        return kept, ""
    present = Counter(clips.splits[row] for row in kept)
    if not clips.split_column:
        return kept, f", of the splits {names_in_short(list(present))} together" if len(present) > 1 else ""
    column = data.split_column_name
    if "split_column_name" not in data.given:
        return kept, f"; the column {column!r} has no part in it"
    trained_on = named_splits(present, data).get("train", data.train_split_name)
    if not present[trained_on]:
        raise DataError(
            f"No clip is in the split {data.train_split_name!r} of the column {column!r}; the data has {counted(present)}. "
            "Pass --train_split_name with one of these, or leave out --split_column_name to use all clips."
        )
    others = Counter({name: count for name, count in present.items() if name != trained_on})
    words = f"; without {counted(others)} of the column {column!r}" if others else ""
    return [row for row in kept if clips.splits[row] == trained_on], words


def _folds(clips: Clips, kept: list[int], data: DataArguments) -> dict[int, str]:
    """The fold of each clip that takes part."""
    name = data.fold_column_name
    column = "split" if name == data.split_column_name and clips.split_column else name
    require_column("fold_column_name", column, clips.rows.column_names)
    values = clips.rows[column][:]
    empty = [clips.row_name(row) for row in kept if is_empty(values[row])]
    if empty:
        raise DataError(
            f"Row(s) {names_in_short(empty)} have nothing in the column {name!r}. Fill in their folds or remove them."
        )
    fold_of = {row: str(values[row]) for row in kept}
    if len(set(fold_of.values())) < 2:
        raise DataError(
            f"The column {name!r} has {names_in_short(sorted(set(fold_of.values())))} for all clips, expected two folds or more. Name "
            "another with --fold_column_name."
        )
    grouping = data.grouping_field()
    if grouping:
        groups = groups_of(clips.rows, kept, data, clips.row_name)
        first_fold: dict[str, str] = {}
        torn = [groups[row] for row in kept if first_fold.setdefault(groups[row], fold_of[row]) != fold_of[row]]
        if torn:
            words = grouping_in_words(data)
            raise DataError(
                f"{words[0].upper()}{words[1:]} has clips of {names_in_short(list(dict.fromkeys(torn)))} in more than one fold of "
                f"{name!r}. Move them into one, or leave out --{grouping}."
            )
    return fold_of


def load_clips(data: DataArguments, pooled: bool) -> Clips:
    """All clips as the user has them, labels not yet read.

    Args:
        data ([`DataArguments`]): where they are and what the columns are called.
        pooled (`bool`): whether all splits of a data set on the Hub are wanted, not only those that are named.

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
    rows = datasets.Dataset.from_dict({clips_name: columns[clips_name]} | texts, features)
    parts = {name: len(table.columns["label"]) for name, table in tables.items()}
    original_layout = all(table.original_layout for table in tables.values())
    order = joined_order([table.label_order for table in tables.values()])
    return Clips(rows, labels, splits, words, parts, split_column, order, original_layout, first.part_words)


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
    try:
        loaded = datasets.load_dataset(data.dataset_name if folder is None else str(folder), data.dataset_config_name)
    except (FileNotFoundError, ConnectionError, OSError, ValueError) as error:
        # A data set of several configurations is a ValueError that lists them.
        raise DataError(
            f"{data.dataset_name} is neither a folder or table here nor a data set that the Hub gives ({error}). Check "
            f"--dataset_name and --dataset_config_name.{cache_hint()}"
        ) from error
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
    """All clips of a data set in memory or from the Hub.

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
    parts = {f"the split {split!r}": len(table) for split, table in zip(wanted, tables, strict=True)}
    words += others_in_words(Counter({name: len(loaded[name]) for name in loaded if name not in wanted}))
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
    wanted = {clips: clips_name, "label": data.label_column_name}
    if data.label_columns:
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


def split_names(data: DataArguments) -> dict[str, str]:
    """What the splits are called in the data."""
    if data.train_file:
        return {side: side for side in SIDES if getattr(data, f"{side}_file")}
    names = {side: getattr(data, f"{side}_split_name") for side in SIDES}
    return {side: name for side, name in names.items() if name}


def parse_clip_labels(clips: Clips, data: DataArguments) -> ClipLabels:
    """Labels of all clips by name, in whatever form the column has them; see [`parse_labels`]."""
    return parse_labels(
        clips.labels,
        data.label_column_name,
        separator=None if clips.original_layout else data.label_separator,
        table=read_label_csv(local_or_shipped(data.label_csv)) if data.label_csv else None,
        order=data.labels or clips.label_order,
        one_is_single=clips.original_layout,
        row_name=clips.row_name,
    )


def _read_labels(clips: Clips, data: DataArguments) -> tuple[ClipLabels, list[int], str]:
    """Labels of all clips, those clips that have none of the labels to ignore, and how the rows of a clip were joined."""
    labels = parse_clip_labels(clips, data)
    kept = labels.rows_without(data.ignore_labels)
    labels, kept, joined = join_annotations(clips.rows, labels, kept, data, clips.row_name, clips.splits)
    found = labels.found(kept)
    if not found:
        raise DataError(
            f"No clip has a label. Name the right column with --label_column_name (now {data.label_column_name!r})."
        )
    if not labels.multi_label and len(found) < 2:
        raise DataError(
            f"All clips have the label {names_in_short(sorted(found))}. A classifier needs two classes or more: give each its own "
            f"folder, or name the right column with --label_column_name (now {data.label_column_name!r})."
        )
    if labels.order is None:
        refuse_alike(Counter(label for row in kept for label in labels.values(row)), data)
    return labels, kept, joined


def refuse_alike(counts: Counter[str], data: DataArguments):
    """Refuse labels that a reader would take for the same; where an order names them, they are meant.

    Args:
        counts (`Counter`): clips of each label.
        data ([`DataArguments`]): what the label column is called.

    Raises:
        DataError: if labels differ in nothing but case, spaces or the encoding of a letter.
    """
    spellings = defaultdict(list)
    for label in sorted(counts):
        spellings[" ".join(unicodedata.normalize("NFKC", label).split()).casefold()].append(label)
    alike = [label for labels in spellings.values() if len(labels) > 1 for label in labels]
    if alike:
        raise DataError(
            f"Labels differ in nothing but case, spaces or the encoding of a letter: "
            f"{counted(Counter({label: counts[label] for label in alike}))}. Write those that are the same alike in the column "
            f"{data.label_column_name!r} or the names of the folders; if they are different classes, name all labels with "
            f"--labels {shlex.join(sorted(counts))}."
        )


def _named_sides(clips: Clips, kept: list[int], data: DataArguments) -> tuple[dict[int, str | None], str]:
    """The side of each clip as the data says it, `None` for those of other splits; and in words what says it."""
    found = Counter(clips.splits[row] for row in kept)
    names = [name for name in found if isinstance(name, str) and name]
    words = "" if data.train_file else take_split_names(names, data)
    refuse_empty_splits(found, data)
    empty = [clips.row_name(row) for row in kept if is_empty(clips.splits[row])]
    if empty:
        raise DataError(
            f"Row(s) {names_in_short(empty)} have nothing in the column {data.split_column_name!r}. Fill them in or remove them."
        )
    sides = {name: side for side, name in split_names(data).items()}
    others = Counter({name: count for name, count in found.items() if name not in sides})
    return {row: sides.get(clips.splits[row]) for row in kept}, clips.split_words + words + others_in_words(others)


def refuse_empty_splits(found: Counter, data: DataArguments):
    """Refuse data without a clip in a split that is trained on or scored.

    Args:
        found (`Counter`): clips of each split of the data.
        data ([`DataArguments`]): which splits are meant.

    Raises:
        DataError: if one of these has none.
    """
    for side, name in split_names(data).items():
        if not found[name]:
            remedy = f"--{side}_file with other clips" if data.train_file else flags_to_name(side, found, data)
            raise DataError(f"No clip is in the split {name!r}; the data has {counted(found)}. Pass {remedy}.")


def _set_validation_apart(
    sides: dict[int, str | None], labels: ClipLabels, clips: Clips, data: DataArguments, seed: int
) -> tuple[dict[int, str | None], str]:
    """Take `validation_fraction` of the training clips for validation; say in words how."""
    if not data.validation_fraction:
        return sides, ""
    training = [row for row, side in sides.items() if side == "train"]
    chosen, how = _held_out(training, labels, clips, data.validation_fraction, "validation_fraction", data, seed)
    sides = {row: "validation" if row in chosen else side for row, side in sides.items()}
    return (
        sides,
        f"; a share of {data.validation_fraction} of the training clips set apart for validation {AT_RANDOM}{how}",
    )


def _held_out(
    rows: list[int],
    labels: ClipLabels,
    clips: Clips,
    fraction: float,
    flag: str,
    data: DataArguments,
    seed: int,
) -> tuple[set[int], str]:
    """Draw a share of the clips, keeping groups together; stratified for single-label data. Say in words how."""
    texts = None if labels.multi_label else [labels.lists[row][0] for row in rows]
    refuse_unjoined(clips.rows, labels, rows, data)
    try:
        if data.grouping_field():
            groups = groups_of(clips.rows, rows, data, clips.row_name)
            folds = (GroupKFold if texts is None else StratifiedGroupKFold)(
                n_splits=round(1 / fraction), shuffle=True, random_state=seed
            )
            with warnings.catch_warnings():
                # What becomes of a class with fewer clips than folds is said by the checks of the splits.
                warnings.filterwarnings("ignore", "The least populated class", UserWarning)
                places = next(folds.split(rows, texts, [groups[row] for row in rows]))[1].tolist()
        else:
            places = train_test_split(range(len(rows)), test_size=fraction, stratify=texts, random_state=seed)[1]
    except ValueError as error:  # scikit-learn counts the groups and the members of each class
        if isinstance(error, DataError):
            raise
        members = f" ({counted(Counter(texts))})" if texts else ""
        remedy = (
            f"give the data folders {data.train_split_name}/ and {data.eval_split_name}/"
            if flag == "eval_fraction"
            else f"pass another --{flag}"
        )
        raise DataError(
            f"{len(rows)} clips{members} are too few to hold out a share of {fraction}: {error} Add clips, leave a class "
            f"out with --ignore_labels, or {remedy}."
        ) from error
    stratified = "" if labels.multi_label else ", stratified by label"
    together = f", {grouping_in_words(data)} kept together" if data.grouping_field() else ""
    return {rows[place] for place in places}, f"{stratified}{together} (seed {seed})"


def with_encoded_labels(clips: Clips, labels: ClipLabels, chosen: list[int], names: list[str]) -> datasets.Dataset:
    """All rows with the label column, which is empty for clips of no split: selecting first would copy the audio."""
    features = datasets.Features({"label": label_feature(names, labels.multi_label)})
    columns: dict[str, list] = {"label": labels.encode(chosen, names)}
    if labels.shares is not None:
        features |= {SHARES_COLUMN: datasets.List(datasets.Value("float32"))}
        columns[SHARES_COLUMN] = labels.encode_shares(chosen, names)
    column = datasets.Dataset.from_dict(columns, datasets.Features(features))
    clips_name = "audio" if "audio" in clips.rows.column_names else FEATURES_COLUMN
    # A column that is called like that of shares is not one.
    others = [name for name in clips.rows.column_names if name not in (clips_name, NAME_COLUMN, SHARES_COLUMN)]
    parts = [clips.rows.select_columns([clips_name, *others]), column]
    if clips_name == FEATURES_COLUMN:
        others.append(NAME_COLUMN)
        parts.append(_names_of_features(clips))
    return datasets.concatenate_datasets(parts, axis=1).select_columns([clips_name, *columns, *others])


def _names_of_features(clips: Clips) -> datasets.Dataset:
    """What to call each clip in messages, as a column: its file, or its row."""
    if clips.rows.features[FEATURES_COLUMN] == datasets.Value("string"):
        files = clips.rows[FEATURES_COLUMN][:]
        names = [file or f"row {clips.row_name(row)}" for row, file in enumerate(files)]
    else:
        names = [f"row {clips.row_name(row)}" for row in range(len(clips.rows))]
    return datasets.Dataset.from_dict({NAME_COLUMN: names}, datasets.Features({NAME_COLUMN: datasets.Value("string")}))


def _select_sides(everything: datasets.Dataset, sides: dict[int, str | None]) -> datasets.DatasetDict:
    rows: dict[str, list[int]] = {side: [] for side in SIDES}
    for row, side in sides.items():
        if side is not None:
            rows[side].append(row)
    return datasets.DatasetDict({side: everything.select(chosen) for side, chosen in rows.items() if chosen})

"""Clips into splits or folds: as the data says it, or drawn, with groups kept together and labels read and encoded.

What is wrong with the data is said before training, in words that name the flag to type.
"""

import os
import re
import warnings
from collections import Counter

import datasets
from sklearn.model_selection import GroupKFold, StratifiedGroupKFold, train_test_split

from ..arguments.data_arguments import SIDES
from ..arguments.groups import DataArguments
from ..arguments.shipped_files import local_or_shipped
from .annotations import join_annotations, refuse_unjoined
from .clips import Clips, load_clips
from .columns import dataset_of
from .data_errors import DataError, counted, is_empty, names_in_short, require_column
from .grouping import AT_RANDOM, file_paths, grouping_in_words, groups_of
from .label_csv import read_label_csv
from .labels import SHARES_COLUMN, ClipLabels, label_feature, parse_labels, refuse_alike
from .split_names import named_splits, others_in_words, refuse_empty_splits, split_names, take_split_names
from .stored_features import FEATURES_COLUMN, NAME_COLUMN
from .tables import FOLDERS_OF_FILES

NEAR_A_SHARE = 0.02  # of what was asked for, if one part in a whole number of them is as near as this
MOST_PARTS = 20  # of which several are held out, if it is not


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
    """Split clips as they come from [`load_clips`] or [`clips_of_dataset`].

    Args:
        clips ([`Clips`]): all of them.
        data ([`DataArguments`]): which splits there are or have to be made.
        seed (`int`): seed of a split that has to be made.

    Returns:
        A `DatasetDict` with the splits, and in words how it was split; see [`load_splits`].

    Raises:
        DataError: if labels cannot be read, a split is empty or cannot be made.
    """
    labels, kept, joined = _read_labels(clips, data)
    if clips.splits is not None:
        grouping = data.grouping_field()
        if grouping and not data.validation_fraction:
            another = f", or remove the column {data.split_column_name!r}" if clips.split_column else ""
            if clips.split_words == FOLDERS_OF_FILES:
                another = ", or pass --eval_fraction 0.2 too, to hold out a share of all clips"
            raise DataError(
                f"{grouping} was given, but the data set says itself how it is split. Leave out --{grouping}{another}."
            )
        sides, method = _named_sides(clips, kept, data)
        if "eval_fraction" in data.given:
            method += f"; eval_fraction={data.eval_fraction} has no part in it"
    else:
        if data.validation_split_name:
            raise DataError(
                f"validation_split_name={data.validation_split_name!r} was given, but the data says of no clip which split "
                "it is in. Pass --validation_fraction 0.1 instead, or a table with a column of splits."
            )
        if clips.unclear_splits:
            raise DataError(clips.unclear_splits)
        for side, name in data.given_split_names().items():
            if clips.is_split(name):
                continue
            if "eval_fraction" in data.given:
                raise DataError(
                    f"{side}_split_name={name!r} and eval_fraction were given, which holds out a share of all clips. Leave one of them out."
                )
            raise DataError(
                f"{side}_split_name={name!r} was given, but the data says of no clip which split it is in. Leave out "
                f"--{side}_split_name, or pass a table with a column of splits, or whose files lie in folders of these names."
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


def parse_clip_labels(clips: Clips, data: DataArguments) -> ClipLabels:
    """Read the labels of all clips, in whatever form the column has them; see [`parse_labels`].

    Args:
        clips ([`Clips`]): all of them.
        data ([`DataArguments`]): how the label column is read.

    Returns:
        [`ClipLabels`].

    Raises:
        DataError: see [`parse_labels`].
    """
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
    if not data.labelled:  # as clips of several labels each, of which there are none
        kept, joined = _rows_of_files(clips)
        return ClipLabels([[] for _ in clips.rows], True, [], {}), kept, joined
    labels = parse_clip_labels(clips, data)
    kept = labels.rows_without(data.ignore_labels)
    labels, kept, joined = join_annotations(clips.rows, labels, kept, data, clips.row_name, clips.splits)
    found = labels.found(kept)
    if not found and data.join_annotations and not kept:
        raise DataError(
            f"The rows of a clip agree on a label in no clip: join_annotations={data.join_annotations!r} leaves none. Pass "
            "--join_annotations any or share."
        )
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
        refuse_alike(Counter(label for row in kept for label in labels.values(row)), data.label_column_name)
    return labels, kept, joined


def _rows_of_files(clips: Clips) -> tuple[list[int], str]:
    """One row of each file, as of several annotations, in each split that the data says; and in words what was left out."""
    rows = list(range(len(clips.rows)))
    if "audio" not in clips.rows.column_names:
        return rows, ""
    firsts: dict[tuple, int] = {}
    for row, path in enumerate(file_paths(clips.rows)):
        split = None if clips.splits is None else clips.splits[row]
        firsts.setdefault((row if path is None else os.path.normpath(path), split), row)
    kept = list(firsts.values())
    several = len(rows) - len(kept)
    return kept, f"; {len(rows)} rows of {len(kept)} clips, each heard once" if several else ""


def _named_sides(clips: Clips, kept: list[int], data: DataArguments) -> tuple[dict[int, str | None], str]:
    """The side of each clip as the data says it, `None` for those of other splits; and in words what says it."""
    found = Counter(clips.splits[row] for row in kept)
    names = [name for name in found if isinstance(name, str) and not is_empty(name)]
    words = "" if data.train_file else take_split_names(names, data)
    refuse_empty_splits(found, data)
    empty = [clips.row_name(row) for row in kept if is_empty(clips.splits[row])]
    if empty:
        raise DataError(
            f"Row(s) {names_in_short(empty)} have nothing in the column {data.split_column_name!r}. Fill them in or remove them."
        )
    sides = {name: side for side, name in split_names(data).items()}
    others = Counter({name: count for name, count in found.items() if name not in sides})
    return {row: sides.get(clips.splits[row]) for row in kept}, clips.split_words + words + others_in_words(
        others, data
    )


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
    few_groups = ""
    try:
        if data.grouping_field():
            groups = groups_of(clips.rows, rows, data, clips.row_name)
            number = len({groups[row] for row in rows})
            largest_class = len(rows) if texts is None else max(Counter(texts).values())
            parts, one_is_held = _parts_of(fraction, min(number, largest_class))
            if 1 < number < parts:  # so that the share is less than one of them
                parts, few_groups = number, f", of which there are {number}, so that the share is that of whole ones"
            folds = (GroupKFold if texts is None else StratifiedGroupKFold)(
                n_splits=parts, shuffle=True, random_state=seed
            )
            with warnings.catch_warnings():
                # What becomes of a class with fewer clips than folds is said by the checks of the splits.
                warnings.filterwarnings("ignore", "The least populated class", UserWarning)
                divided = (part.tolist() for _, part in folds.split(rows, texts, [groups[row] for row in rows]))
                places = next(divided) if one_is_held else _nearest(list(divided), fraction * len(rows))
        else:
            places = train_test_split(range(len(rows)), test_size=fraction, stratify=texts, random_state=seed)[1]
    except ValueError as error:  # scikit-learn counts the groups and the members of each class
        if isinstance(error, DataError):
            raise
        members = f" ({counted(Counter(texts))})" if texts else ""
        if data.grouping_field() and len({groups[row] for row in rows}) == 1:
            raise DataError(
                f"{len(rows)} clips{members} all have {groups[rows[0]]!r} in {grouping_in_words(data)}, and what is kept together cannot be "
                f"divided. Add clips of others, or leave out --{data.grouping_field()}."
            ) from error
        remedy = (
            f"give the data folders {data.train_split_name}/ and {data.eval_split_name}/"
            if flag == "eval_fraction"
            else f"pass another --{flag}"
        )
        raise DataError(
            f"{len(rows)} clips{members} are too few to hold out a share of {fraction}: {error} Add clips, "
            f"{'leave a class out with --ignore_labels, ' if data.labelled else ''}or {remedy}."
        ) from error
    stratified = "" if labels.multi_label else ", stratified by label"
    together = f", {grouping_in_words(data)} kept together{few_groups}" if data.grouping_field() else ""
    return {rows[place] for place in places}, f"{stratified}{together} (seed {seed})"


def _nearest(parts: list[list[int]], number: float) -> list[int]:
    """Of parts that are not all alike in size those which together have about so many members, taken in their order."""
    chosen: list[int] = []
    for part in parts:
        if abs(len(chosen) + len(part) - number) < abs(len(chosen) - number):
            chosen += part
    return chosen or min(parts, key=len)


def _parts_of(fraction: float, most: int) -> tuple[int, bool]:
    """How many parts clips are divided into, no more than `most` if that can be, and whether one of them is the share."""
    parts = round(1 / fraction)
    if abs(1 / parts - fraction) <= NEAR_A_SHARE * fraction or most < parts:
        return parts, True
    return min(most, MOST_PARTS), False


def with_encoded_labels(clips: Clips, labels: ClipLabels, chosen: list[int], names: list[str]) -> datasets.Dataset:
    """Add the label column to all rows, empty for clips of no split: selecting first would copy the audio.

    Args:
        clips ([`Clips`]): all of them.
        labels ([`ClipLabels`]): of all of them.
        chosen (`list[int]`): rows of clips that are in a split.
        names (`list[str]`): the model's labels, in their order.

    Returns:
        `datasets.Dataset` with as many rows; for its columns see [`load_splits`].
    """
    features = datasets.Features({"label": label_feature(names, labels.multi_label)})
    columns: dict[str, list] = {"label": labels.encode(chosen, names)}
    if labels.shares is not None:
        features |= {SHARES_COLUMN: datasets.List(datasets.Value("float32"))}
        columns[SHARES_COLUMN] = labels.encode_shares(chosen, names)
    column = dataset_of(columns, datasets.Features(features))
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
    return dataset_of({NAME_COLUMN: names}, datasets.Features({NAME_COLUMN: datasets.Value("string")}))


def _select_sides(everything: datasets.Dataset, sides: dict[int, str | None]) -> datasets.DatasetDict:
    rows: dict[str, list[int]] = {side: [] for side in SIDES}
    for row, side in sides.items():
        if side is not None:
            rows[side].append(row)
    return datasets.DatasetDict({side: everything.select(chosen) for side, chosen in rows.items() if chosen})

"""What a label column may hold, read into one form: labels of every clip by name, in the order of the model's outputs.

One label a clip is text, a number or a `ClassLabel`. Several are a text with a separator, a list of any of these, or a
multi-hot row. The order is that of the original's label CSV or of the Hub's `ClassLabel`, and alphabetical without them.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import datasets
import numpy as np
import pandas as pd

from .data_errors import DataError, is_empty, some

LABEL_CSV_COLUMNS = ("index", "mid", "display_name")
SEVERAL = (list, tuple, np.ndarray)


@dataclass(frozen=True)
class LabelTable:
    """The original's label CSV: which labels there are, in which order, under which names data may call them.

    Args:
        names (`list[str]`): display names in the order of the model's outputs.
        name_of (`dict[str, str]`): display name of every mid and of every display name.
    """

    names: list[str]
    name_of: dict[str, str]


@dataclass(frozen=True)
class ClipLabels:
    """Labels of clips by name.

    Args:
        lists (`list[list[str]]`): labels of each clip; a clip of multi-label data may have none.
        multi_label (`bool`): whether the labels are independent of each other.
        order (`list[str]`, *optional*): all labels in the order of the model's outputs, where something says it.
        aliases (`dict[str, str]`): names of labels that are called otherwise in the data.
    """

    lists: list[list[str]]
    multi_label: bool
    order: list[str] | None
    aliases: dict[str, str]

    def resolve(self, labels: list[str]) -> list[str]:
        """The names of labels that may be given as mids."""
        return [self.aliases.get(label, label) for label in labels]

    def rows_without(self, ignored: list[str]) -> list[int]:
        """Clips that have none of these labels.

        Raises:
            DataError: for a label to ignore that there is not.
        """
        ignored = self.resolve(ignored)
        found = {label for labels in self.lists for label in labels} | set(self.order or ())
        unknown = sorted(set(ignored) - found)
        if unknown:
            raise DataError(
                f"ignore_labels names {some(unknown)}, which no clip has; there are {some(sorted(found))}. Correct "
                "--ignore_labels."
            )
        return [row for row, labels in enumerate(self.lists) if not set(labels) & set(ignored)]

    def names(self, rows: list[int], ignored: list[str]) -> list[str]:
        """The model's labels: all that the order names, or those of these clips; without those to ignore.

        Raises:
            DataError: if a clip has a label that the order does not name.
        """
        found = {label for row in rows for label in self.lists[row]}
        if self.order is None:
            return sorted(found)
        unknown = sorted(found - set(self.order))
        if unknown:
            raise DataError(
                f"{len(unknown)} label(s) of the clips are not among those of --label_csv (as a mid or a display name) or "
                f"--labels: {some(unknown)}. Add them there, or leave their clips out with --ignore_labels."
            )
        ignored = self.resolve(ignored)
        return [name for name in self.order if name not in ignored]

    def encode(self, rows: list[int], names: list[str]) -> list[int | list[int] | None]:
        """Indices into `names` of all clips, `None` for those not among `rows`, as [`label_feature`] holds them."""
        index = {name: place for place, name in enumerate(names)}
        encoded: list[int | list[int] | None] = [None] * len(self.lists)
        for row in rows:
            places = sorted({index[label] for label in self.lists[row]})
            encoded[row] = places if self.multi_label else places[0]
        return encoded


def label_feature(names: list[str], multi_label: bool) -> datasets.ClassLabel | datasets.List:
    """Type of the label column: an index, or for multi-label data a sorted list of indices."""
    feature = datasets.ClassLabel(names=names)
    return datasets.List(feature) if multi_label else feature


def is_multi_label(split: datasets.Dataset) -> bool:
    """Whether the clips of a split of [`load_splits`] have lists of labels."""
    return isinstance(split.features["label"], datasets.List)


def label_names(split: datasets.Dataset) -> list[str]:
    """Names of the labels of a split of [`load_splits`], in the order of the model's outputs."""
    feature = split.features["label"]
    return feature.feature.names if is_multi_label(split) else feature.names


def label_lists(split: datasets.Dataset) -> list[list[int]]:
    """Indices of the labels of every clip of such a split; one each for single-label data."""
    labels = split["label"][:]
    return labels if is_multi_label(split) else [[label] for label in labels]


def as_list(label: int | list[int]) -> list[int]:
    """The labels of a clip, one or several."""
    return label if isinstance(label, list) else [label]


def read_label_csv(path: str | Path) -> LabelTable:
    """Read the original's label CSV.

    Args:
        path (`str` or `Path`): CSV with the columns `index`, `mid` and `display_name`.

    Returns:
        [`LabelTable`].

    Raises:
        DataError: if it is not there, lacks a column, or an index, mid or name is missing or doubled.
    """
    try:
        # Everything as text: a label "None" stays what it is.
        frame = pd.read_csv(path, dtype=str, keep_default_na=False, skipinitialspace=True, encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise DataError(f"label_csv={str(path)!r} cannot be read: {error}. Correct --label_csv.") from error
    missing = [name for name in LABEL_CSV_COLUMNS if name not in frame.columns]
    if missing:
        raise DataError(
            f"label_csv={str(path)!r} has the columns {', '.join(map(repr, frame.columns))} without "
            f"{', '.join(map(repr, missing))}. Expected the original's {','.join(LABEL_CSV_COLUMNS)}; add the header line "
            "or pass another --label_csv."
        )
    for column in LABEL_CSV_COLUMNS:
        doubled = [value for value, count in Counter(frame[column]).items() if count > 1 or not value.strip()]
        if doubled:
            raise DataError(
                f"label_csv={str(path)!r} holds {some([repr(value) for value in doubled])} more than once or empty in the "
                f"column {column!r}. Give every label an index, a mid and a name of its own."
            )
    wanted = [str(index) for index in range(len(frame))]
    if set(frame["index"]) != set(wanted):
        raise DataError(
            f"label_csv={str(path)!r} has the indices {some(frame['index'].tolist())}, expected 0 to {len(frame) - 1}, each "
            "once. Number the labels so, in the order of the outputs."
        )
    frame = frame.set_index("index").loc[wanted]
    names = frame["display_name"].tolist()
    return LabelTable(names, dict(zip(names, names, strict=True)) | dict(zip(frame["mid"], names, strict=True)))


def label_texts(values: list, feature) -> list:
    """Values of a Hub data set's label column with names in place of the indices of its `ClassLabel`.

    Args:
        values (`list`): indices, lists of indices, or whatever the column holds.
        feature: type of the column.

    Returns:
        `list`: texts or lists of texts for a `ClassLabel` column, with `None` for -1, which stands for no label there;
        the values as they are for other columns.
    """
    names = class_names(feature)
    if names is None:
        return values
    text = dict(enumerate(names))
    if isinstance(feature, datasets.ClassLabel):
        return [text.get(value) for value in values]
    return [None if value is None else [text.get(index) for index in value] for value in values]


def class_names(feature) -> list[str] | None:
    """Names of a `ClassLabel` column, or of a column of lists of it, in their order; `None` for other columns."""
    inner = getattr(feature, "feature", feature)
    return inner.names if isinstance(inner, datasets.ClassLabel) else None


def parse_labels(
    values: list,
    column_name: str,
    separator: str | None = None,
    table: LabelTable | None = None,
    order: list[str] | None = None,
    one_is_single: bool = False,
    row_name: Callable[[int], str] = lambda row: str(row + 1),
) -> ClipLabels:
    """Read a label column in any of its forms.

    Args:
        values (`list`): what the column holds, one value per clip.
        column_name (`str`): what the column is called, for messages.
        separator (`str`, *optional*): what stands between several labels in a text.
        table ([`LabelTable`], *optional*): which labels there are.
        order (`list[str]`, *optional*): the labels in their order, where the data itself says it.
        one_is_single (`bool`, defaults to `False`): whether lists of exactly one label for every clip are single-label
            data, as the original's layout writes both alike.
        row_name (`Callable`, *optional*): what to call a row in a message; rows count from 1 if not given.

    Returns:
        [`ClipLabels`].

    Raises:
        DataError: for cells without a label in single-label data, texts beside lists, and multi-hot rows that have
            different lengths or hold other numbers than 0 and 1.
    """
    multi_label = bool(separator)
    if any(isinstance(value, SEVERAL) for value in values):
        lists = _listed(values, column_name, separator, row_name)
        if any(isinstance(item, int | float) for labels in lists for item in labels):
            lists, order = _from_multi_hot(lists, column_name, table.names if table else order, row_name)
        multi_label = not one_is_single or any(len(labels) != 1 for labels in lists)
    elif separator:
        lists = [_separated("" if is_empty(value) else _text(value, column_name), separator) for value in values]
    else:
        _refuse_empty(values, column_name, row_name, "Fill them in or remove them")
        _refuse_mixed(values, column_name, row_name)
        lists = [[_text(value, column_name)] for value in values]
    aliases = table.name_of if table else {}
    lists = [[aliases.get(label, label) for label in labels] for labels in lists]
    return ClipLabels(lists, multi_label, table.names if table else order, aliases)


def _separated(text: str, separator: str) -> list[str]:
    return [part.strip() for part in text.split(separator) if part.strip()]


def _text(value, column_name: str) -> str:
    if isinstance(value, dict | bytes):
        raise DataError(
            f"The label column {column_name!r} holds {value!r:.80}, expected a label or a list of labels per clip. Name "
            "another with --label_column_name."
        )
    # Readers make numbers of a column all floats for one that is, and which rows they read together is not the data's say.
    return str(int(value) if isinstance(value, float) and value.is_integer() else value)


def _refuse_empty(values: list, column_name: str, row_name: Callable[[int], str], remedy: str):
    empty = [row_name(row) for row, value in enumerate(values) if is_empty(value)]
    if empty:
        raise DataError(f"Row(s) {some(empty)} have nothing in the column {column_name!r}. {remedy}.")


def _refuse_mixed(values: list, column_name: str, row_name: Callable[[int], str]):
    """Refuse texts beside numbers: is "1" the label 1?"""
    first: dict[bool, int] = {}
    for row, value in enumerate(values):
        first.setdefault(isinstance(value, str), row)
    if len(first) > 1:
        text, number = first[True], first[False]
        raise DataError(
            f"The label column {column_name!r} mixes texts and numbers: row {row_name(text)} has {values[text]!r:.80}, row "
            f"{row_name(number)} has {values[number]!r:.80}. Write all as texts (in quotes), or all as numbers."
        )


def _listed(values: list, column_name: str, separator: str | None, row_name: Callable[[int], str]) -> list[list]:
    """Lists of texts, or of numbers, as they stand in the column."""
    _refuse_empty(values, column_name, row_name, "Write [] for a clip that has none of the labels, or remove it")
    single = next((row for row, value in enumerate(values) if not isinstance(value, SEVERAL)), None)
    if single is not None:
        several = next(row for row, value in enumerate(values) if isinstance(value, SEVERAL))
        raise DataError(
            f"The label column {column_name!r} mixes texts and lists: row {row_name(single)} has {values[single]!r:.80}, "
            f"row {row_name(several)} has {list(values[several])!r:.80}. Write all as lists, or all as texts with "
            "--label_separator."
        )
    if separator:
        raise DataError(
            f"label_separator={separator!r} was given, but the column {column_name!r} holds lists, which need none. Leave "
            "it out."
        )
    lists = [value.tolist() if isinstance(value, np.ndarray) else list(value) for value in values]
    kinds = {type(item) for labels in lists for item in labels}
    texts, figures = kinds & {str}, kinds & {int, float, bool}
    if kinds - texts - figures or (texts and figures):
        raise DataError(
            f"The lists of the label column {column_name!r} hold {some(sorted(kind.__name__ for kind in kinds))}. "
            "Expected names of labels only, or only 0 and 1 for each label there is. Name another with "
            "--label_column_name."
        )
    return lists


def _from_multi_hot(
    lists: list[list], column_name: str, names: list[str] | None, row_name: Callable[[int], str]
) -> tuple[list[list[str]], list[str]]:
    """Names of what is 1 in each row, and of all columns; numbered if they have no names."""
    width = len(lists[0])
    for row, values in enumerate(lists):
        if len(values) != width:
            raise DataError(
                f"The multi-hot rows of the column {column_name!r} have different lengths: row {row_name(0)} has {width} "
                f"values, row {row_name(row)} has {len(values)}. Give every clip one 0 or 1 for each label."
            )
        wrong = [value for value in values if value not in (0, 1)]
        if wrong:
            raise DataError(
                f"Row {row_name(row)} of the multi-hot column {column_name!r} holds {some(wrong)}, expected only 0 and 1. "
                "Write names in place of indices, or name another column with --label_column_name."
            )
    if names is None and width == 1:
        raise DataError(
            f"The lists of the column {column_name!r} hold one number each, which may be an index or the 0 and 1 of a single "
            "label. Write the names of the labels, or pass --labels or --label_csv."
        )
    if names is not None and len(names) != width:
        raise DataError(
            f"The multi-hot rows of the column {column_name!r} have {width} values, but label_csv or labels names "
            f"{len(names)}. Pass the --label_csv or --labels of this data."
        )
    names = names or [str(place) for place in range(width)]
    return [[name for name, value in zip(names, values, strict=True) if value] for values in lists], names

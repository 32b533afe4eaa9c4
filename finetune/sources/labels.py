"""What a label column may hold, read into one form: labels of every clip by name, in the order of the model's outputs.

One label a clip is text, a number or a `ClassLabel`. Several are a text with a separator, a list of any of these, or a
multi-hot row, in one column or as a column for each label. Numbers between 0 and 1 in such a row are soft labels: the
share of annotators who gave the label. They are what a model is trained on; where a clip has a label or not, in counts and
scores, it has those whose share is `SHARE_THAT_COUNTS` or more. The order is that of the original's label CSV, of the
Hub's `ClassLabel` or of the columns, and alphabetical without them.
"""

import shlex
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import datasets
import numpy as np

from .columns import column_values
from .data_errors import DataError, counted, is_empty, names_in_short
from .label_csv import LabelTable

SEVERAL = (list, tuple, np.ndarray)
SHARES_COLUMN = "label_shares"  # of a split with soft labels: the share of every label, beside "label"
SHARE_THAT_COUNTS = 0.5  # as a clip's label: at least as many annotators gave it as did not
TRUTH_VALUES = {"true": 1.0, "false": 0.0}


class Labelled(Protocol):
    """Clips whose labels the type of their column tells.

    Rows of [`load_splits`](finetune.sources.splits.load_splits) are such, and every
    [`ClipSet`](finetune.clip_sets.clip_set.ClipSet).
    """

    features: datasets.Features


@dataclass(frozen=True)
class ClipLabels:
    """Labels of clips by name.

    Args:
        lists (`list[list[str]]`): labels of each clip; a clip of multi-label data may have none.
        multi_label (`bool`): whether the labels are independent of each other.
        order (`list[str]`, *optional*): all labels in the order of the model's outputs, where something says it.
        aliases (`dict[str, str]`): names of labels that are called otherwise in the data.
        shares (`list[dict[str, float]]`, *optional*): of soft labels, the shares above 0 of each clip; `lists` then holds
            those from `SHARE_THAT_COUNTS` on.
    """

    lists: list[list[str]]
    multi_label: bool
    order: list[str] | None
    aliases: dict[str, str]
    shares: list[dict[str, float]] | None = None

    def values(self, row: int) -> dict[str, float]:
        """Tell the share of each label that a clip has.

        Args:
            row (`int`): place of the clip.

        Returns:
            By label, its share: 1, unless the labels are soft.
        """
        return dict.fromkeys(self.lists[row], 1.0) if self.shares is None else self.shares[row]

    def found(self, rows: Iterable[int]) -> set[str]:
        """Find the labels that clips have, with any share.

        Args:
            rows (iterable of `int`): places of the clips.

        Returns:
            Their names.
        """
        return {label for row in rows for label in self.values(row)}

    def resolve(self, labels: list[str]) -> list[str]:
        """Find the names of labels that may be given as mids.

        Args:
            labels (`list[str]`): mids or names.

        Returns:
            A name for each.
        """
        return [self.aliases.get(label, label) for label in labels]

    def rows_without(self, ignored: list[str]) -> list[int]:
        """Find the clips that have none of some labels.

        Args:
            ignored (`list[str]`): mids or names of these labels.

        Returns:
            Places of the clips.

        Raises:
            DataError: for a label to ignore that there is not.
        """
        ignored = self.resolve(ignored)
        found = self.found(range(len(self.lists))) | set(self.order or ())
        unknown = sorted(set(ignored) - found)
        if unknown:
            raise DataError(
                f"ignore_labels names {names_in_short(unknown)}, which no clip has; there are {names_in_short(sorted(found))}. Correct "
                "--ignore_labels."
            )
        return [row for row, labels in enumerate(self.lists) if not set(labels) & set(ignored)]

    def names(self, rows: list[int], ignored: list[str]) -> list[str]:
        """Find the model's labels: all that the order names, or those of some clips.

        Args:
            rows (`list[int]`): places of these clips.
            ignored (`list[str]`): mids or names of labels that are left out.

        Returns:
            Their names, in the order of the model's outputs.

        Raises:
            DataError: if a clip has a label that the order does not name.
        """
        found = self.found(rows) - set(self.resolve(ignored))
        if self.order is None:
            return sorted(found)
        unknown = sorted(found - set(self.order))
        if unknown:
            raise DataError(
                f"{len(unknown)} label(s) of the clips are not among those of --label_csv (as a mid or a display name) or "
                f"--labels: {names_in_short(unknown)}. Add them there, or leave their clips out with --ignore_labels."
            )
        ignored = self.resolve(ignored)
        return [name for name in self.order if name not in ignored]

    def encode(self, rows: list[int], names: list[str]) -> list[int | list[int] | None]:
        """Write the labels of clips as indices, as [`label_feature`] holds them.

        Args:
            rows (`list[int]`): places of these clips.
            names (`list[str]`): labels, in the order of the model's outputs.

        Returns:
            For all clips an index, or for multi-label data a sorted list of indices, into `names`; `None` for those not
            among `rows`.
        """
        index = {name: place for place, name in enumerate(names)}
        encoded: list[int | list[int] | None] = [None] * len(self.lists)
        for row in rows:
            places = sorted({index[label] for label in self.lists[row]})
            encoded[row] = places if self.multi_label else places[0]
        return encoded

    def encode_shares(self, rows: list[int], names: list[str]) -> list[list[float] | None]:
        """Write the labels of clips as shares.

        Args:
            rows (`list[int]`): places of these clips.
            names (`list[str]`): labels, in the order of the model's outputs.

        Returns:
            For all clips the share of each of `names`; `None` for those not among `rows`.
        """
        encoded: list[list[float] | None] = [None] * len(self.lists)
        for row in rows:
            shares = self.values(row)
            encoded[row] = [shares.get(name, 0.0) for name in names]
        return encoded


def label_feature(names: list[str], multi_label: bool) -> datasets.ClassLabel | datasets.List:
    """Make the type of the label column.

    Args:
        names (`list[str]`): labels, in the order of the model's outputs.
        multi_label (`bool`): whether clips have lists of labels.

    Returns:
        A type of indices, or for multi-label data of sorted lists of indices.
    """
    feature = datasets.ClassLabel(names=names)
    return datasets.List(feature) if multi_label else feature


def is_multi_label(split: Labelled) -> bool:
    """Tell whether the clips of a split have lists of labels.

    Args:
        split ([`Labelled`]): the clips.

    Returns:
        `True` if they have.
    """
    return isinstance(split.features["label"], datasets.List)


def has_soft_labels(split: Labelled) -> bool:
    """Tell whether the clips of a split have a share of every label.

    Args:
        split ([`Labelled`]): the clips.

    Returns:
        `True` if they have.
    """
    return SHARES_COLUMN in split.features


def label_of(row: dict) -> int | list[int] | np.ndarray:
    """Tell what a clip is trained on.

    Args:
        row (`dict`): of a split of [`load_splits`], or of a stream.

    Returns:
        An index, a list of indices, or the share of every label as `np.ndarray` of shape `(labels,)`, float32.
    """
    shares = row.get(SHARES_COLUMN)
    return row["label"] if shares is None else np.array(shares, dtype=np.float32)


def share_lists(split: datasets.Dataset) -> list[list[float]] | None:
    """Read the share of every label of every clip.

    Args:
        split (`datasets.Dataset`): of [`load_splits`].

    Returns:
        The shares of each clip; `None` if its labels are not soft.
    """
    return column_values(split, SHARES_COLUMN) if has_soft_labels(split) else None


def label_names(split: Labelled) -> list[str]:
    """Tell the names of the labels.

    Args:
        split ([`Labelled`]): the clips.

    Returns:
        The names, in the order of the model's outputs.
    """
    feature = split.features["label"]
    return feature.feature.names if is_multi_label(split) else feature.names


def label_lists(split: datasets.Dataset) -> list[list[int]]:
    """Read the labels of every clip; with soft labels, those whose share is `SHARE_THAT_COUNTS` or more.

    Args:
        split (`datasets.Dataset`): of [`load_splits`].

    Returns:
        Label indices of each clip; of single-label data one each.
    """
    labels = column_values(split, "label")
    return labels if is_multi_label(split) else [[label] for label in labels]


def count_labels(lists: list[list[int]], num_labels: int) -> np.ndarray:
    """Count the clips of each label.

    Args:
        lists (`list[list[int]]`): label indices of each clip, each once.
        num_labels (`int`): how many labels there are.

    Returns:
        `np.ndarray` of shape `(labels,)`, int64.
    """
    return np.bincount(np.array([label for labels in lists for label in labels], dtype=np.int64), minlength=num_labels)


def as_list(label: int | list[int]) -> list[int]:
    """Make a list of the labels of a clip.

    Args:
        label (`int` or `list[int]`): one or several.

    Returns:
        All of them.
    """
    return label if isinstance(label, list) else [label]


def label_rows(columns: dict[str, list], names: Sequence[str], row_name: Callable[[int], str]) -> list[list[float]]:
    """Make one row of numbers a clip from columns of which each is a label.

    Args:
        columns (`dict[str, list]`): of each label, what its column holds: 0, 1, a truth value or a share between them, as
            a number or text.
        names (sequence of `str`): the labels, in the order of the rows.
        row_name (`Callable`): what to call a row in a message.

    Returns:
        A row for each clip, with the share of each label in the order of `names`.

    Raises:
        DataError: for a cell that is empty, no number, or not from 0 to 1.
    """
    shares = {}
    for name in names:
        values = columns[name]
        empty = [row_name(row) for row, value in enumerate(values) if is_empty(value)]
        if empty:
            raise DataError(
                f"Row(s) {names_in_short(empty)} have nothing in the column {name!r}, one of --label_columns. Write 0 for a clip that "
                "does not have the label, remove the row where it is not known, or leave the column out of --label_columns."
            )
        shares[name] = [_share(value) for value in values]
        wrong = [row for row, share in enumerate(shares[name]) if share is None or not 0 <= share <= 1]
        if wrong:
            shown = names_in_short([f"{values[row]!r:.40} (row {row_name(row)})" for row in wrong])
            raise DataError(
                f"The column {name!r}, one of --label_columns, holds {shown}, expected 0 and 1, or shares between them. "
                "Divide counts by the number of annotators, percentages by 100; or leave the column out of --label_columns."
            )
    return [list(row) for row in zip(*(shares[name] for name in names), strict=True)]


def _share(value) -> float | None:
    """A cell as a number, `None` if it is none."""
    if isinstance(value, str):
        value = TRUTH_VALUES.get(value.strip().lower(), value)
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def looks_like_label_column(values: Iterable) -> bool:
    """Tell whether a column holds nothing but 0, 1 and shares between them.

    Args:
        values (iterable): what the column holds.

    Returns:
        `True` if it does; `False` of an empty column.
    """
    shares = [None if is_empty(value) else _share(value) for value in values]
    return bool(shares) and all(share is not None and 0 <= share <= 1 for share in shares)


def that_count(shares: np.ndarray) -> np.ndarray:
    """Tell which labels clips are counted and scored as having.

    Args:
        shares (`np.ndarray` of shape `(clips, labels)`): share of each label.

    Returns:
        Multi-hot `np.ndarray` of shape `(clips, labels)`.
    """
    return (shares >= SHARE_THAT_COUNTS).astype(shares.dtype)


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
    """Tell the names of a `ClassLabel` column, or of a column of lists of it.

    Args:
        feature: type of the column.

    Returns:
        The names in their order; `None` for other columns.
    """
    inner = getattr(feature, "feature", feature)
    return inner.names if isinstance(inner, datasets.ClassLabel) else None


def joined_order(orders: list[list[str] | None]) -> list[str] | None:
    """Put the labels of all parts of the data into one order.

    Args:
        orders (`list[list[str] | None]`): labels of each part in their order, `None` of a part that has none.

    Returns:
        The labels, each once; `None` if a part has no order of its own.
    """
    return None if None in orders else list(dict.fromkeys(name for names in orders for name in names))


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
            different lengths or hold numbers that are not from 0 to 1.
    """
    multi_label, shares = bool(separator), None
    if any(isinstance(value, SEVERAL) for value in values):
        lists = _listed(values, column_name, separator, row_name)
        if any(isinstance(item, int | float) for labels in lists for item in labels):
            lists, shares, order = _from_multi_hot(lists, column_name, table.names if table else order, row_name)
        multi_label = not one_is_single or any(len(labels) != 1 for labels in lists)
    elif separator:
        lists = [_separated("" if is_empty(value) else _text(value, column_name), separator) for value in values]
    else:
        _refuse_empty(values, column_name, row_name, "Fill them in or remove them")
        _refuse_mixed(values, column_name, row_name)
        lists = [[_text(value, column_name)] for value in values]
    aliases = table.name_of if table else {}
    lists = [[aliases.get(label, label) for label in labels] for labels in lists]
    return ClipLabels(lists, multi_label, table.names if table else order, aliases, shares)


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
        raise DataError(f"Row(s) {names_in_short(empty)} have nothing in the column {column_name!r}. {remedy}.")


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
            f"The lists of the label column {column_name!r} hold {names_in_short(sorted(kind.__name__ for kind in kinds))}. "
            "Expected names of labels only, or only 0 and 1 for each label there is. Name another with "
            "--label_column_name."
        )
    return lists


def _from_multi_hot(
    lists: list[list], column_name: str, names: list[str] | None, row_name: Callable[[int], str]
) -> tuple[list[list[str]], list[dict[str, float]] | None, list[str]]:
    """Names of what each row has, its shares if the labels are soft, and names of all columns; numbered if without."""
    width = len(lists[0])
    for row, values in enumerate(lists):
        if len(values) != width:
            raise DataError(
                f"The multi-hot rows of the column {column_name!r} have different lengths: row {row_name(0)} has {width} "
                f"values, row {row_name(row)} has {len(values)}. Give every clip one 0 or 1 for each label."
            )
        if not all(0 <= value <= 1 for value in values):
            wrong = [value for value in values if value not in (0, 1)]
            raise DataError(
                f"Row {row_name(row)} of the multi-hot column {column_name!r} holds {names_in_short(wrong)}, expected only 0 and 1, or "
                "shares between them. Write names in place of indices, divide counts by the number of annotators, or name "
                "another column with --label_column_name."
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
    rows = [{name: float(value) for name, value in zip(names, values, strict=True) if value} for values in lists]
    soft = any(share != 1 for shares in rows for share in shares.values())
    return [labels_that_count(shares) for shares in rows], rows if soft else None, names


def labels_that_count(shares: dict[str, float]) -> list[str]:
    """Tell which labels a clip has where it has them or not.

    Args:
        shares (`dict[str, float]`): share of each label.

    Returns:
        Names of those whose share is `SHARE_THAT_COUNTS` or more.
    """
    return [name for name, share in shares.items() if share >= SHARE_THAT_COUNTS]


def refuse_alike(counts: Counter[str], column_name: str):
    """Refuse labels that a reader would take for the same; where an order names them, they are meant.

    Args:
        counts (`Counter`): clips of each label.
        column_name (`str`): what the label column is called, for the message.

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
            f"{column_name!r} or the names of the folders; if they are different classes, name all labels with "
            f"--labels {shlex.join(sorted(counts))}."
        )

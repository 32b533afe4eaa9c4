"""The first pass over data that is streamed: labels alone, and paths where audio is paths.

It finds the labels, looks for the files, counts the clips and thereby the steps of an epoch, and leaves counts behind, not
lists.
"""

import dataclasses
import hashlib
import os
from collections import Counter, defaultdict
from dataclasses import dataclass

from ..arguments.groups import DataArguments
from ..arguments.shipped_files import local_or_shipped
from .data_errors import DataError, is_empty, names_in_short, refuse_no_files
from .label_csv import LabelTable, read_label_csv
from .labels import (
    SEVERAL,
    ClipLabels,
    class_names,
    joined_order,
    label_rows,
    label_texts,
    parse_labels,
    refuse_alike,
)
from .split_names import others_in_words, refuse_empty_splits, split_names, take_split_names
from .stream_sources import StreamSource, stream_parts
from .tables import no_rows

LABELS_AT_ONCE = 4096  # rows whose labels are read together


@dataclass(frozen=True)
class LabelReader:
    """How the labels of pieces of a stream are read; see [`parse_labels`].

    Args:
        columns (`list[str]`): the label column, or those of which each is a label.
        separator (`str`, *optional*): as of [`parse_labels`].
        table ([`LabelTable`], *optional*): likewise.
        order (`list[str]`, *optional*): likewise.
        each_is_a_label (`bool`): whether every column is a label itself; see [`label_rows`].
    """

    columns: list[str]
    separator: str | None
    table: LabelTable | None
    order: list[str] | None
    each_is_a_label: bool = False

    def values(self, piece: dict[str, list], source: StreamSource, first_row: int) -> list:
        """Take the labels of a piece, or what a column would hold that had the rows of several.

        Args:
            piece (`dict[str, list]`): columns of some rows.
            source ([`StreamSource`]): where they are from.
            first_row (`int`): place of the first of them, from 0.

        Returns:
            A value for each row.

        Raises:
            DataError: if one of several columns of labels holds no share; see [`label_rows`].
        """
        if not self.each_is_a_label:
            return piece[self.columns[0]]
        return label_rows(piece, self.columns, lambda row: f"{first_row + row + 1} of {source.name}")

    def read(
        self, values: list, source: StreamSource, first_row: int, example: tuple[str, object] | None = None
    ) -> ClipLabels:
        """Read the labels of rows.

        Args:
            values (`list`): from [`LabelReader.values`].
            source ([`StreamSource`]): where they are from.
            first_row (`int`): place of the first of them.
            example (`tuple`, *optional*): from [`LabelReader.example`].

        Returns:
            [`ClipLabels`] of the rows.

        Raises:
            DataError: if labels cannot be read, or are of another form than the example; see [`parse_labels`].
        """
        names = [f"{first_row + row + 1} of {source.name}" for row in range(len(values))]
        texts = label_texts(values, source.label_feature)
        if example is not None:
            names, texts = [example[0], *names], [example[1], *texts]
        labels = parse_labels(
            texts,
            self.columns[0],
            separator=self.separator,
            table=self.table,
            order=self.order or class_names(source.label_feature),
            row_name=lambda row: names[row],
        )
        if example is None:
            return labels
        shares = None if labels.shares is None else labels.shares[1:]
        return dataclasses.replace(labels, lists=labels.lists[1:], shares=shares)

    def example(self, values: list, source: StreamSource, first_row: int) -> tuple[str, object] | None:
        """Choose one of some rows, by which others are read: if possible, one that has labels.

        Args:
            values (`list`): from [`LabelReader.values`].
            source ([`StreamSource`]): where they are from.
            first_row (`int`): place of the first of them, from 0.

        Returns:
            What to call the row, and its labels; `None` if all are empty.
        """
        texts = label_texts(values, source.label_feature)
        filled = [row for row, value in enumerate(texts) if not is_empty(value)]
        telling = [row for row in filled if not _is_empty_list(texts[row])] or filled
        return (f"{first_row + telling[0] + 1} of {source.name}", texts[telling[0]]) if telling else None


def _is_empty_list(value) -> bool:
    """Whether it does not tell what lists hold, names or numbers."""
    return isinstance(value, SEVERAL) and not len(value)


@dataclass(frozen=True)
class FoundLabels:
    """The labels of a source, and what says how they are read.

    Args:
        names (`set[str]`): all of them.
        multi_label (`bool`): as in [`ClipLabels`].
        order (`list[str]`, *optional*): likewise.
        aliases (`dict[str, str]`): likewise.
        soft (`bool`): whether a clip has a share of a label.
        example (`tuple`, *optional*): from [`LabelReader.example`].
    """

    names: set[str]
    multi_label: bool
    order: list[str] | None
    aliases: dict[str, str]
    soft: bool
    example: tuple[str, object] | None


@dataclass
class Survey:
    """Hold what the first pass learns of a split.

    Args:
        clips (`int`): how many there are.
        counts (`Counter`): clips of each label.
        licenses (`set[str]`): of the clips.
        digest: SHA-256 over names and labels so far.
        longest_run (`int`): clips with the same labels, one after the other.
        run_labels (`list[str]`): labels of these.
    """

    clips: int = 0
    counts: Counter = dataclasses.field(default_factory=Counter)
    licenses: set[str] = dataclasses.field(default_factory=set)
    digest: object = dataclasses.field(default_factory=hashlib.sha256)
    longest_run: int = 0  # of clips with the same labels, one after the other
    run_labels: list[str] = dataclasses.field(default_factory=list)
    _last: list | None = None
    _run: int = 0

    def add(self, labels: list[str], shares: dict[str, float], path: str | None, license_name: str | None):
        """Take in a clip.

        Args:
            labels (`list[str]`): those of its labels that count.
            shares (`dict[str, float]`): share of each label that it has.
            path (`str`, *optional*): of its file.
            license_name (`str`, *optional*): its licence.
        """
        self.clips += 1
        self.counts.update(set(labels))
        if not is_empty(license_name):
            self.licenses.add(license_name)
        soft = any(share != 1 for share in shares.values())
        told = sorted(shares.items()) if soft else sorted(labels)
        self.digest.update(f"{os.path.basename(path or '')}\0{told}\0".encode())
        self._run = self._run + 1 if told == self._last else 1
        self._last = told
        if self._run > self.longest_run:
            self.longest_run, self.run_labels = self._run, labels


@dataclass(frozen=True)
class SurveyedSplit:
    """A split that is streamed, as the first pass found it.

    Args:
        source ([`StreamSource`]): where its clips are.
        survey ([`Survey`]): what it holds.
        rows_of (`tuple[str, str]`, *optional*): column of splits and the value that rows of this one have; all rows of the
            source if not given.
    """

    source: StreamSource
    survey: Survey
    rows_of: tuple[str, str] | None


@dataclass(frozen=True)
class FirstPass:
    """What the first pass over all splits found.

    Args:
        splits (`dict[str, SurveyedSplit]`): by side: `"train"`, `"eval"` and perhaps `"validation"`.
        reader ([`LabelReader`]): how labels are read.
        labels (`list[str]`): names of the labels, in the order of the model's outputs.
        multi_label (`bool`): whether clips have lists of labels.
        soft (`bool`): whether clips have a share of every label.
        ignored (`frozenset[str]`): labels whose clips are left out.
        words (`str`): how the data is split.
    """

    splits: dict[str, SurveyedSplit]
    reader: LabelReader
    labels: list[str]
    multi_label: bool
    soft: bool
    ignored: frozenset[str]
    words: str


def survey_splits(data: DataArguments) -> FirstPass:
    """Find the splits and pass over their labels once.

    Args:
        data ([`DataArguments`]): where the clips are, what the columns are called, and which splits there are.

    Returns:
        [`FirstPass`].

    Raises:
        DataError: if a table or column is missing, the data does not say how it is split, labels cannot be read, or a
            split is empty.
    """
    parts, words = stream_parts(data)
    table = read_label_csv(local_or_shipped(data.label_csv)) if data.label_csv else None
    order = data.label_columns or data.labels or None
    columns = data.label_columns or [data.label_column_name]
    reader = LabelReader(columns, data.label_separator, table, order, bool(data.label_columns))
    surveys: dict[str, Survey] = defaultdict(Survey)  # of every split that there is, by its name
    found: Counter = Counter()
    labels_found: list[FoundLabels] = []
    ignored = frozenset(ClipLabels([], False, None, table.name_of if table else {}).resolve(data.ignore_labels))
    for source, column, name in parts:
        example = labels_found[-1].example if labels_found else None
        labels_found.append(_survey(source, column, name, reader, ignored, surveys, found, example))
    words += "" if data.train_file else take_split_names(found, data)
    names = split_names(data)
    labels, multi_label, soft = _all_labels(labels_found, [surveys[name] for name in names.values()], data)
    refuse_empty_splits(found, data)
    splits = {}
    for source, column, name in parts:
        for side, of_side in names.items():
            if column or of_side == name:
                splits[side] = SurveyedSplit(source, surveys[of_side], (column, of_side) if column else None)
    words += others_in_words(
        Counter({name: count for name, count in found.items() if name not in names.values()}), data
    )
    return FirstPass(splits, reader, labels, multi_label, soft, ignored, words)


def _survey(
    source: StreamSource,
    split_column: str | None,
    split_name: str | None,
    reader: LabelReader,
    ignored: frozenset[str],
    surveys: dict[str, Survey],
    found: Counter,
    example: tuple[str, object] | None,
) -> FoundLabels:
    """Pass over the labels of a source, and the paths where its audio is paths."""
    columns = [*reader.columns]
    columns += [source.audio_column] if source.paths else []
    columns += [split_column] if split_column else []
    columns += ["license"] if "license" in source.columns else []
    labels, names, soft = None, set(), False
    first_row = 0
    for piece in source.pieces(list(dict.fromkeys(columns)), LABELS_AT_ONCE):
        values = reader.values(piece, source, first_row)
        labels = reader.read(values, source, first_row, example)
        if example is None or _is_empty_list(example[1]):
            example = reader.example(values, source, first_row) or example
        size = len(values)
        paths = _paths(piece[source.audio_column], source, first_row) if source.paths else [None] * size
        licenses = piece.get("license", [None] * size)
        splits = piece[split_column] if split_column else [split_name] * size
        soft = soft or labels.shares is not None
        names |= labels.found(range(size))
        for row, (texts, split) in enumerate(zip(labels.lists, splits, strict=True)):
            if is_empty(split):
                raise DataError(
                    f"Row {first_row + row + 1} of {source.name} has nothing in the column {split_column!r}. Fill it in or "
                    "remove it."
                )
            if ignored.intersection(texts):
                continue
            found[str(split)] += 1
            surveys[str(split)].add(texts, labels.values(row), paths[row], licenses[row])
        first_row += size
    if labels is None:
        raise no_rows(source.name)
    return FoundLabels(names, labels.multi_label, labels.order, labels.aliases, soft, example)


def _paths(values: list, source: StreamSource, first_row: int) -> list[str | None]:
    """Paths of the rows from `first_row` on, `None` for audio in the row itself; refused if there is no such file."""
    empty = [first_row + row for row, value in enumerate(values, 1) if is_empty(value)]
    if empty:
        raise DataError(
            f"{source.name}: row(s) {names_in_short(empty)} have nothing in the column {source.audio_column!r}. Fill them in or remove "
            "them."
        )
    audio = [source.audio(value) for value in values]
    if source.folder is not None:
        rows: dict[str, int] = {}
        for row, clip in enumerate(audio, first_row + 1):
            if clip["bytes"] is None and "://" not in clip["path"]:
                rows.setdefault(clip["path"], row)
        absent = [path for path in rows if not os.path.isfile(path)]
        refuse_no_files(source.name, absent)
        missing = [f"{path} (row {rows[path]})" for path in absent]
        if missing:
            raise DataError(
                f"{source.name} names {len(missing)} file(s) that are not there, up to row {first_row + len(values)}: "
                f"{names_in_short(missing)}. Paths are taken as relative to {source.folder}. Correct or remove these rows."
            )
    return [clip["path"] for clip in audio]


def _all_labels(found: list[FoundLabels], surveys: list[Survey], data: DataArguments) -> tuple[list[str], bool, bool]:
    """The model's labels, whether clips have lists of them, and whether they have shares of them."""
    multi_label, aliases = found[0].multi_label, found[0].aliases  # of one form in all
    order = joined_order([of_source.order for of_source in found])
    everything = sorted(set().union(*(of_source.names for of_source in found)))
    # Raises the errors for labels to ignore that there are not, and for those that the order does not name.
    ClipLabels([[name] for name in everything], multi_label, order, aliases).rows_without(data.ignore_labels)
    counts = sum((survey.counts for survey in surveys), Counter())
    if not counts and any(survey.clips for survey in surveys):
        raise DataError(
            f"No clip has a label. Name the right column with --label_column_name (now {data.label_column_name!r})."
        )
    if order is None:
        refuse_alike(counts, data.label_column_name)
    labels = ClipLabels([[name] for name in counts], multi_label, order, aliases)
    soft = any(of_source.soft for of_source in found)
    return labels.names(range(len(counts)), data.ignore_labels), multi_label, soft

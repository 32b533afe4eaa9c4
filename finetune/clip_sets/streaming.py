"""Splits that are read clip after clip from where they are, so that memory does not grow with the data set.

Tables are read in pieces with the readers of `tables.py` (pandas; Parquet with pyarrow, page by page, as one row group may
hold all the audio), data sets on the Hub with `datasets.IterableDataset` or, if they are Parquet, like local tables. A
first pass reads the labels alone, with the paths where audio is paths: it finds the labels, looks for the files, counts the
clips and thereby the steps of an epoch, and leaves counts behind, not lists.

The main process reads clips undecoded, shuffles them in a buffer and hands them as keys to the loader's workers, which
decode them. Order and draws are functions of (seed, epoch, place of the clip), so the batches do not depend on the number
of workers, a resumed run takes the batches that were left, without decoding those before, and several processes make the
same global batches as one. Of these each decodes its own part alone and opens no audio files but of these clips and their
mixup partners; a table that holds the audio itself is passed over by each process.

Differs from training on a data set that is at hand: clips that are far apart in the data do not meet in a batch, and the
mixup partner comes from the buffer, not from the whole training set.
"""

import copy
import dataclasses
import hashlib
import itertools
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import datasets
import fsspec
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from torch.utils.data import Sampler

from modeling_ast.audio import AudioError, Heard
from modeling_ast.system.regular_files import refuse_special
from modeling_ast.system.surroundings import cache_hint

from ..arguments.groups import DataArguments, local_or_shipped
from ..augmentations.augmentation import Draws
from ..sources.array_columns import is_array_value
from ..sources.data_errors import DataError, is_empty, names_in_short, refuse_no_files, require_column
from ..sources.folders import METADATA_FILES, is_parquet_data_set, metadata_table
from ..sources.labels import (
    SEVERAL,
    SHARES_COLUMN,
    ClipLabels,
    LabelTable,
    class_names,
    is_multi_label,
    joined_order,
    label_feature,
    label_of,
    label_rows,
    label_texts,
    parse_labels,
    read_label_csv,
)
from ..sources.saved_data_sets import is_saved_data_set
from ..sources.split_names import flags_to_name, how_to_name, others_in_words, take_split_names
from ..sources.splits import refuse_alike, refuse_empty_splits, split_names
from ..sources.stretches import refuse_stretches
from ..sources.tables import (
    TABLE_SUFFIXES,
    clip_column,
    no_rows,
    parquet_features,
    refuse_doubled_columns,
    refuse_other_label_columns,
    resolve_audio,
)
from .sampling import ORDER_STREAM
from .waveforms import ClipDataset, clip_name, fetched

LABELS_AT_ONCE, CLIPS_AT_ONCE = 4096, 16  # rows read together: of labels, and of what may be audio
PAGE_BUFFER = 1 << 20  # bytes of a Parquet column read together
STREAMED_SUFFIXES = tuple(suffix for suffix in TABLE_SUFFIXES if suffix != ".json")  # which has to be read whole


class StreamError(AudioError):
    """Data that is no longer what the first pass over it found, or a row that cannot be read."""


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
        """A value of the audio column as `{"bytes", "path"}`."""
        if isinstance(value, bytes):
            return {"bytes": value, "path": None}
        if is_array_value(value) or (self.folder is not None and not (isinstance(value, str) and "://" in value)):
            value = resolve_audio(value, self.folder)
        return value if isinstance(value, dict) else {"bytes": None, "path": value}


@dataclass(frozen=True)
class LabelReader:
    """How the labels of pieces of a stream are read; see [`parse_labels`].

    Args:
        columns (`list[str]`): the label column, or those of which each is a label.
        separator, table, order: as of [`parse_labels`].
        each_is_a_label (`bool`): whether every column is a label itself; see [`label_rows`].
    """

    columns: list[str]
    separator: str | None
    table: LabelTable | None
    order: list[str] | None
    each_is_a_label: bool = False

    def values(self, piece: dict[str, list], source: StreamSource, first_row: int) -> list:
        """What the label column of a piece holds, or what a column would that had the rows of several."""
        if not self.each_is_a_label:
            return piece[self.columns[0]]
        return label_rows(piece, self.columns, lambda row: f"{first_row + row + 1} of {source.name}")

    def read(
        self, values: list, source: StreamSource, first_row: int, example: tuple[str, object] | None = None
    ) -> ClipLabels:
        """Labels of the rows from `first_row` on, refused if they are of another form than an example.

        Args:
            values (`list`): from [`LabelReader.values`].
            source ([`StreamSource`]): where they are from.
            first_row (`int`): place of the first of them.
            example (`tuple`, *optional*): from [`LabelReader.example`].
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
        """What to call one of these rows and its labels, by which others are read: if possible, of one that has some."""
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
        multi_label, order, aliases: as in [`ClipLabels`].
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
    """What the first pass learns of a split."""

    clips: int = 0
    counts: Counter = dataclasses.field(default_factory=Counter)
    licenses: set[str] = dataclasses.field(default_factory=set)
    digest: object = dataclasses.field(default_factory=hashlib.sha256)
    longest_run: int = 0  # of clips with the same labels, one after the other
    run_labels: list[str] = dataclasses.field(default_factory=list)
    _last: list | None = None
    _run: int = 0

    def add(self, labels: list[str], shares: dict[str, float], path: str | None, license_name: str | None):
        """Take in a clip with the labels that count, and the share of each that it has."""
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


class ClipStream:
    """A split of clips that is read from its first clip to its last, as often as wanted.

    Iterating gives rows as those of [`load_splits`]: `"audio"`, undecoded as `{"bytes", "path"}`, and `"label"`, an index
    or a list of indices; of soft labels also `"label_shares"`.

    Args:
        source ([`StreamSource`]): where the clips are.
        reader ([`LabelReader`]): how their labels are read.
        labels (`list[str]`): names of the labels, in the order of the model's outputs.
        multi_label (`bool`): whether clips have lists of labels.
        survey ([`Survey`]): what the first pass found.
        split (`tuple[str, str]`, *optional*): column of splits and the one that is meant; all rows if not given.
        ignored (`frozenset[str]`): labels whose clips are left out.
        shuffle_buffer (`int`): undecoded clips that are held at once where the stream is shuffled.
        soft (`bool`): whether clips have a share of every label.

    Attributes:
        features (`datasets.Features`): of the rows.
        label_counts (`np.ndarray` of shape `(labels,)`): clips of each label, of soft labels those where it counts.
        longest_run, run_labels: how many clips with the same labels come one after the other, and these labels, before any
            clip was left out.
    """

    def __init__(
        self,
        source: StreamSource,
        reader: LabelReader,
        labels: list[str],
        multi_label: bool,
        survey: Survey,
        split: tuple[str, str] | None = None,
        ignored: frozenset[str] = frozenset(),
        shuffle_buffer: int = 1000,
        soft: bool = False,
    ):
        self.source = source
        self.reader = reader
        self.split = split
        self.ignored = ignored
        self.shuffle_buffer = shuffle_buffer
        self.left_out: frozenset[int] = frozenset()  # places of clips, all counted
        self.features = datasets.Features(
            {"audio": datasets.Audio(decode=False), "label": label_feature(labels, multi_label)}
        )
        if soft:
            self.features[SHARES_COLUMN] = datasets.List(datasets.Value("float32"))
        self.place_of_label = {name: place for place, name in enumerate(labels)}
        self.num_clips = survey.clips
        self.label_counts = np.array([survey.counts[name] for name in labels])
        self.digest_of_all = survey.digest.hexdigest()
        self.licenses = sorted(survey.licenses)
        self.longest_run, self.run_labels = survey.longest_run, survey.run_labels

    @property
    def column_names(self) -> list[str]:
        """Columns that are known of the clips."""
        return [*self.features, *(["license"] if self.licenses else [])]

    @property
    def digest(self) -> str:
        """SHA-256 over labels, and names where the audio is paths, in their order."""
        if not self.left_out:
            return self.digest_of_all
        return hashlib.sha256(f"{self.digest_of_all} {sorted(self.left_out)}".encode()).hexdigest()

    def label_sets(self) -> set[tuple[int, ...]]:
        """Labels that clips have, one by one; of multi-label clips that all had the same labels, these together."""
        found = np.flatnonzero(self.label_counts).tolist()
        if is_multi_label(self) and (self.label_counts[found] == len(self)).all():  # all clips have all of these
            return {tuple(found)}
        return {(label,) for label in found} | ({()} if is_multi_label(self) else set())

    def __len__(self) -> int:
        return self.num_clips

    def __iter__(self) -> Iterator[dict]:
        read = 0
        for place, row in enumerate(self._rows()):
            if place not in self.left_out:
                read += 1
                yield row
        if read != self.num_clips:
            raise StreamError(
                f"{self.source.name} has {read} clips of this split, but had {self.num_clips} when it was first read. Do not "
                "change the data while it is trained on; start again with --overwrite_output_dir."
            )

    def _rows(self) -> Iterator[dict]:
        source, multi_label = self.source, is_multi_label(self)
        soft = SHARES_COLUMN in self.features
        columns = [source.audio_column, *self.reader.columns, *([self.split[0]] if self.split else [])]
        first_row = 0
        for piece in self._pieces(columns):
            values = piece[source.audio_column]
            try:
                labels = self.reader.read(self.reader.values(piece, source, first_row), source, first_row)
            except DataError as error:  # which the first pass did not meet
                raise StreamError(str(error)) from error
            for row, names in enumerate(labels.lists):
                if self.split and str(piece[self.split[0]][row]) != self.split[1]:
                    continue
                if self.ignored.intersection(names):
                    continue
                name = f"Row {first_row + row + 1} of {source.name}"
                if is_empty(values[row]):
                    raise StreamError(
                        f"{name} has nothing in the column {source.audio_column!r}. Fill it in or remove it."
                    )
                try:
                    places = sorted({self.place_of_label[label] for label in names})
                except KeyError as error:
                    raise StreamError(
                        f"{name} has the label {error}, which no clip had when the data was first read. Do not change the data "
                        "while it is trained on."
                    ) from error
                clip = {"audio": source.audio(values[row]), "label": places if multi_label else places[0]}
                if soft:
                    clip[SHARES_COLUMN] = [labels.values(row).get(label, 0.0) for label in self.place_of_label]
                yield clip
            first_row += len(values)

    def _pieces(self, columns: list[str]) -> Iterator[dict[str, list]]:
        """What the first pass could read, and now perhaps no longer can be."""
        try:
            yield from self.source.pieces(columns, CLIPS_AT_ONCE)
        except FileNotFoundError as error:
            name = error.filename or self.source.name
            raise StreamError(f"{name} is no longer there. Put it back as it was.") from error
        except (OSError, ValueError) as error:
            reason = str(error).rstrip(".")
            raise StreamError(
                f"{self.source.name} can no longer be read ({reason}). Put it back as it was."
            ) from error

    def without(self, places: Iterable[int], label_lists: Iterable[list[int]]) -> "ClipStream":
        """The stream without some of its clips.

        Args:
            places (iterable of `int`): which, counted from 0 among those that it has now.
            label_lists (iterable of `list[int]`): their labels.
        """
        smaller = copy.copy(self)
        places, before = np.array(list(places), dtype=np.int64), np.array(sorted(self.left_out), dtype=np.int64)
        # Past a clip that was left out before goes every place that is not less than the number of clips before it.
        among_all = places + np.searchsorted(before - np.arange(len(before)), places, side="right")
        smaller.left_out = self.left_out.union(among_all.tolist())
        smaller.num_clips = self.num_clips - len(places)
        lost = np.bincount([label for labels in label_lists for label in labels], minlength=len(self.label_counts))
        smaller.label_counts = self.label_counts - lost
        return smaller


@dataclass(frozen=True)
class StreamedClip:
    """An undecoded clip on its way to where it is decoded: the key of an item of [`StreamedClips`].

    Args:
        row (`dict`): `"audio"` and `"label"` of the clip.
        draws ([`Draws`], *optional*): random numbers of this visit, for a clip that is augmented.
        partners (`dict[str, dict]`): rows of the clips that take part in it, by the names of the augmentations that want them.
    """

    row: dict
    draws: Draws | None = None
    partners: dict[str, dict] = dataclasses.field(default_factory=dict)


class StreamedClips(ClipDataset):
    """Decoded clips of a stream, with their targets, asked for by the [`StreamedClip`] keys of [`StreamSampler`].

    They can also be asked for by their place in the stream, which reads it from its beginning.

    Args:
        split ([`ClipStream`]): the clips.
        args, kwargs: as [`ClipDataset`].

    Attributes:
        order_seed (`int`, *optional*): seed of the order of the training that is going on.
    """

    order_seed: int | None = None

    def __getitem__(self, key: StreamedClip | int) -> dict:
        if isinstance(key, int):
            key = StreamedClip(self._row(key))
        if key.draws is None:
            return self._plain(key.row)
        return self._augmented(key.row, key.draws, key.partners)

    def _row(self, index: int) -> dict:
        return next(itertools.islice(self.split, index, None))

    def name(self, index: int) -> str:
        """What to call a clip in a message, by its place in the stream, which is read from its beginning."""
        return clip_name(self._row(index)["audio"])

    def label_counts(self) -> np.ndarray:
        """Clips of each label, as the first pass found them: `(labels,)`."""
        return self.split.label_counts

    def _decoded(self, row: dict) -> tuple[Heard, int | list[int] | np.ndarray]:
        return self._hear(fetched(row["audio"])), label_of(row)

    def training_sampler(self, seed: int) -> "StreamSampler":
        """The clips in the shuffled order of an epoch, with the draws of their augmentation."""
        self.order_seed = seed
        return StreamSampler(self, seed)

    def evaluation_sampler(self) -> "StreamSampler":
        """The clips in their order."""
        return StreamSampler(self)

    def first_keys(self, count: int) -> list[StreamedClip]:
        """Keys of the first clips of the stream."""
        return list(itertools.islice(self.evaluation_sampler(), count))

    def keys_of_first_epoch(self, count: int, seed: int) -> list[tuple[StreamedClip, StreamedClip]]:
        """Of the first clips of the shuffled order of epoch 0 each without and with its draws."""
        augmented = itertools.islice(StreamSampler(self, seed), count)
        return [(StreamedClip(clip.row), clip) for clip in augmented]

    def sample(self, count: int, seed: int) -> Iterator[np.ndarray]:
        """The first clips of the shuffled order of epoch 0, without augmentation; nothing after them is read.

        Args:
            count (`int`): how many; 0 for all.
            seed (`int`): seed of the order.
        """
        rows = (row for _, row, _ in shuffled(self.split, self.split.shuffle_buffer, seed, 0))
        return (self._read(row)[0] for row in itertools.islice(rows, count or None))


class StreamSampler(Sampler):
    """Yields [`StreamedClip`] keys in an order that is a function of (seed, epoch).

    Args:
        clips ([`StreamedClips`]): what is read, with the augmentation whose draws go with the clips and its seed.
        seed (`int`, *optional*): seed of the order; the order of the stream, without augmentation, if not given.
    """

    def __init__(self, clips: StreamedClips, seed: int | None = None):
        self.clips = clips
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int):
        """Choose the order of the next pass."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.clips)

    def __iter__(self) -> Iterator[StreamedClip]:
        clips, epoch = self.clips, self.epoch
        if self.seed is None:
            yield from map(StreamedClip, clips.split)
            return
        for place, row, buffer in shuffled(clips.split, clips.split.shuffle_buffer, self.seed, epoch):
            if clips.augmentation is None:
                yield StreamedClip(row)
                continue
            draws = clips.augmentation.draw(clips.seed, epoch, place, len(buffer))
            partners = {name: buffer[drawn] for name, drawn in draws.partners.items()}
            draws = draws.with_partners({name: of_stream for name, (of_stream, _) in partners.items()})
            yield StreamedClip(row, draws, {name: partner for name, (_, partner) in partners.items()})


def shuffled(
    rows: Iterable[dict], buffer_size: int, seed: int, epoch: int
) -> Iterator[tuple[int, dict, list[tuple[int, dict]]]]:
    """Rows in a random order, of which no more are held than the buffer takes.

    Args:
        rows (iterable of `dict`): the stream.
        buffer_size (`int`): how many are held; each next one is drawn among these.
        seed (`int`): seed of the order.
        epoch (`int`): which has an order of its own.

    Yields:
        The place of the row in the stream, the row, and the buffer of (place, row) from which it was drawn, which still
        holds it.
    """
    generator = np.random.default_rng((ORDER_STREAM, seed, epoch))
    numbered = enumerate(rows)
    buffer = list(itertools.islice(numbered, buffer_size))
    for arrived in numbered:
        drawn = int(generator.integers(buffer_size))
        yield *buffer[drawn], buffer
        buffer[drawn] = arrived
    for drawn in generator.permutation(len(buffer)):
        yield *buffer[drawn], buffer


def load_streams(data: DataArguments) -> tuple[dict[str, ClipStream], str]:
    """Find the splits and pass over their labels once.

    Args:
        data ([`DataArguments`]): where the clips are, what the columns are called, and which splits there are.

    Returns:
        The streams `"train"`, `"eval"` and, if asked for, `"validation"`; and in words how the data is split.

    Raises:
        DataError: if a table or column is missing, the data does not say how it is split, labels cannot be read, or a
            split is empty.
    """
    parts, words = _parts(data)
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
    streams = {}
    for source, column, name in parts:
        for side, of_side in names.items():
            if column or of_side == name:
                split = (column, of_side) if column else None
                survey = surveys[of_side]
                streams[side] = ClipStream(
                    source, reader, labels, multi_label, survey, split, ignored, data.shuffle_buffer, soft
                )
    words += others_in_words(Counter({name: count for name, count in found.items() if name not in names.values()}))
    return streams, f"{words}, streamed without looking for clips that are in two splits"


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
        refuse_alike(counts, data)
    labels = ClipLabels([[name] for name in counts], multi_label, order, aliases)
    soft = any(of_source.soft for of_source in found)
    return labels.names(range(len(counts)), data.ignore_labels), multi_label, soft


def _parts(data: DataArguments) -> tuple[list[tuple[StreamSource, str | None, str | None]], str]:
    """Sources, each with its column of splits, if it has several, or the name of its split; and in words who says so."""
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
    """A CSV, TSV, JSON-lines or Parquet file, read in pieces.

    Args:
        table (`Path`): the file; relative paths in it are below its folder.
        data ([`DataArguments`]): what the columns are called.
        flag (`str`): with which it was given, for messages.

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
            f"and --dataset_config_name.{cache_hint()}"
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
                return list(next(reader, pd.DataFrame()).columns)
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

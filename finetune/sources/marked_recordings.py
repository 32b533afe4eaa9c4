"""Long recordings with marked stretches: which files they are, what is marked in each, and which are trained on.

A split goes by recording, and never through one. Nothing is decoded here: how long a recording lasts, its header tells.
"""

import hashlib
import logging
import os
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

import datasets

from modeling_ast.audio import AudioError, FileLayout, file_layout
from modeling_ast.audio.files import search_folder
from modeling_ast.audio.saved_data_sets import is_saved_data_set, load_saved
from modeling_ast.system.regular_files import refuse_special

from ..arguments.groups import DataArguments
from ..arguments.shipped_files import local_or_shipped
from .columns import column_values
from .data_errors import DataError, is_empty, missing_column, names_in_short, require_column
from .hub import load_hub
from .mark_files import (
    FILE_COLUMNS,
    TEXTGRID,
    has_columns,
    is_one_of_several,
    marks_of_columns,
    named_after,
    read_mark_file,
    table_columns,
    textgrid_refused,
)
from .mark_lists import with_names
from .mark_owners import Owners, path_parts
from .marks import Mark, joined_marks, refuse_wrong_marks
from .recording_splits import COLUMN, FOLDER, SPLIT, split_recordings, splits_of_folders
from .tables import DEFAULT_SPLIT_COLUMN, resolve_audio

logger = logging.getLogger(__name__)

BESIDE, COLUMNS = "beside", "columns"  # what --marks may be in place of a path
MARK_SUFFIXES = (".txt", ".csv", ".tsv", ".parquet")
METADATA = ("metadata", "readme", "license", "licenses", "licence", "notes")  # stems of texts that mark nothing


@dataclass(frozen=True)
class Recording:
    """A recording and what is marked in it.

    Args:
        audio (`dict`): `{"bytes", "path"}`, undecoded.
        name (`str`): what it is called.
        seconds (`float`): how long it lasts.
        marks (`list[Mark]`): in the order of time; those of a label do not overlap.
        unknown (`list[Mark]`): stretches whose labels are left out: neither trained on nor background.
        split (`str`): what the data says of its split, if it does.
        size (`int`): bytes of the file.
    """

    audio: dict
    name: str
    seconds: float
    marks: list[Mark]
    unknown: list[Mark] = field(default_factory=list)
    split: str = ""
    size: int = 0

    def digest(self) -> bytes:
        """Tell whether a run is resumed with it, wherever it lies; what is one recording, its content tells (`same_audio`).

        Returns:
            SHA-256 over its name, size and marks.
        """
        text = f"{os.path.basename(self.name)}\0{self.size}\0"
        text += "\0".join(f"{mark.start:.6f} {mark.end:.6f} {mark.label}" for mark in [*self.marks, *self.unknown])
        return hashlib.sha256(text.encode(errors="surrogateescape")).digest()


@dataclass(frozen=True)
class MarkedData:
    """Recordings by side, with the labels of all.

    Args:
        sides (`dict[str, list[Recording]]`): `"train"`, `"eval"` and perhaps `"validation"`.
        labels (`list[str]`): names in the order of the model's outputs.
        words (`str`): how they were split, and what else there is to say.
    """

    sides: dict[str, list[Recording]]
    labels: list[str]
    words: str


def load_marked(data: DataArguments, seed: int) -> MarkedData:
    """Find recordings and what is marked in them, and split them.

    Args:
        data ([`DataArguments`]): its `marks` says where stretches are marked.
        seed (`int`): of a split that has to be made.

    Returns:
        [`MarkedData`].

    Raises:
        DataError: for recordings without marks and the reverse, stretches that cannot be, and splits that cannot be made.
    """
    found, notes, kind = _recordings(data)
    _refuse_unknown_labels(found, data)
    found, more = _checked(found, data)
    labels = _labels(found, data)
    places, words = split_recordings(
        [recording.split for recording in found], [recording.name for recording in found], kind, data, seed
    )
    sides = {side: [found[place] for place in of_side] for side, of_side in places.items()}
    return MarkedData(sides, labels, "; ".join([words, *notes, *more]))


def recordings_in(folder: Path) -> list[Recording]:
    """Read the recordings of a folder that have a file of marks beside them.

    Args:
        folder (`Path`): where they are, and in folders below it.

    Returns:
        `list[Recording]`.

    Raises:
        DataError: for a folder without recordings or marks, marks without a recording, and stretches that cannot be.
    """
    data = DataArguments(dataset_name=str(folder), marks=BESIDE, unmarked="ignore")
    return _checked(_recordings(data)[0], data)[0]


def _recordings(data: DataArguments) -> tuple[list[Recording], list[str], str]:
    """All recordings, not looked into yet, with what files or columns mark in them; what is to be said, and what says splits."""
    if data.marks == COLUMNS:
        found, kind = _of_columns(data)
        return found, [], kind
    if data.split_column_name != DEFAULT_SPLIT_COLUMN:
        raise DataError(
            f"split_column_name={data.split_column_name!r} was given, but folders say the splits of recordings with files of marks. Leave "
            "it out, and put the recordings into folders train/ and test/, or name two folders with --train_split_name and "
            "--eval_split_name."
        )
    source = local_or_shipped(data.dataset_name)
    refuse_special(source)
    if not source.is_dir():
        raise DataError(
            f"dataset_name={data.dataset_name!r} is no folder of recordings. Pass one, or --marks columns for a table or data set "
            "with a row for each stretch."
        )
    files, reasons = search_folder(source)
    for words in reasons:
        logger.warning(words)
    if not files:
        raise DataError(
            f"{source} and the folders below it hold no audio file. Pass the folder of the recordings, beside which their marks lie."
        )
    marks = _marks_of_files(source, files, data)
    unmarked = [path for path in files if path not in marks]
    notes = _not_read(data)
    if unmarked:
        if data.unmarked is None:
            raise DataError(
                f"{len(unmarked)} of {len(files)} recordings have no marks: {names_in_short([*map(str, unmarked)])}. Pass --unmarked "
                "background if nothing is to be heard in them, or --unmarked ignore to leave them out."
            )
        words = "are background as a whole" if data.unmarked == "background" else "are left out"
        notes.append(f"{len(unmarked)} recordings without marks {words}")
    if data.unmarked == "background":
        marks |= dict.fromkeys(unmarked, [])
    splits = splits_of_folders(files, source, data)
    recordings = [
        Recording({"bytes": None, "path": str(path)}, str(path), 0.0, marks[path], split=splits[path])
        for path in files
        if path in marks
    ]
    return recordings, notes, FOLDER


def _not_read(data: DataArguments) -> list[str]:
    """What is to be said of a table of marks with a column of splits: folders say them here."""
    place = local_or_shipped(data.marks)
    if data.marks == BESIDE or not place.is_file() or not has_columns(place):
        return []
    return [
        f"the column {name!r} of {place.name} is not read, as folders say splits (to read it, pass the table as --dataset_name, with --marks "
        "columns)"
        for name in table_columns(place)
        if name.casefold() == DEFAULT_SPLIT_COLUMN
    ]


def _marks_of_files(source: Path, files: list[Path], data: DataArguments) -> dict[Path, list[Mark]]:
    """What is marked in each recording that has marks, though it may be nothing."""
    recordings = Owners(files, source, data.given_split_names().values())
    if data.marks != BESIDE:
        place = local_or_shipped(data.marks)
        refuse_special(place)
        if place.is_file():
            read = read_mark_file(place, data.mark_label_column)
            if not any(read.values()) and None in read:
                raise DataError(
                    f"{place} marks nothing. Write a row with file, start, end and label for each stretch, and one with the file alone for a "
                    "recording in which nothing is to be heard."
                )
            return _assigned([(place, read)], {}, recordings)
        if not place.is_dir():
            raise DataError(
                f"marks={data.marks!r} is not there. Pass --marks beside for files beside the recordings, a folder of such files, a table "
                "with the columns file, start, end, label, or columns."
            )
        beside = sorted(path for path in place.rglob("*") if _is_mark_file(path))
    else:
        place = source
        beside = sorted(path for path in source.rglob("*") if _is_mark_file(path))
    _refuse_textgrids(place, {named_after(path) for path in beside}, data)
    if not beside:
        raise DataError(
            f"{place} holds no file of marks ({', '.join(MARK_SUFFIXES)}). Name where they are with --marks: a folder, or a table."
        )
    if data.mark_label_column and not any(map(has_columns, beside)):
        raise DataError(
            f"mark_label_column={data.mark_label_column!r} was given, but the files of marks in {place} are label tracks of Audacity, which "
            "have no columns. Leave it out, or name other files with --marks."
        )
    read, owners, folders = [], {}, {path.parent for path in beside}
    elsewhere = Owners((file for file in files if file.parent not in folders), source)
    for path in beside:
        read.append((path, read_mark_file(path, data.mark_label_column)))
        name = named_after(path)
        near = recordings.beside(path.parent, name)
        if not near and place != source:
            near = recordings.of_path(str(path.relative_to(place).with_name(name)))
        elif not near and path.parent not in recordings.folders:  # where recordings lie, theirs lie beside them
            near = elsewhere.called(name)
        owners[path] = near
    return _assigned(read, owners, recordings)


def _refuse_textgrids(place: Path, marked: set[str], data: DataArguments):
    """Refuse TextGrids of recordings that no other file marks, which would be taken for recordings without marks."""
    if data.unmarked == "ignore":
        return
    grids = sorted(path for path in place.rglob("*") if path.suffix.lower() == TEXTGRID)
    grids = [path for path in grids if named_after(path) not in marked]
    if grids:
        more = f" There are {len(grids)} of them." if len(grids) > 1 else ""
        raise DataError(f"{textgrid_refused(grids[0])}{more}")


def _is_mark_file(path: Path) -> bool:
    is_text = path.suffix.lower() in MARK_SUFFIXES and path.is_file() and not path.name.startswith(".")
    return is_text and path.stem.casefold() not in METADATA


def _assigned(
    read: list[tuple[Path, dict[str | None, list[Mark]]]],
    owners: dict[Path, list[Path]],
    recordings: Owners,
) -> dict[Path, list[Mark]]:
    """Give what files mark to the recordings that they are about."""
    found: dict[Path, list[Mark]] = {}
    read_from: dict[Path, list[Path]] = defaultdict(list)
    alone, clashes = [], []
    for file, by_recording in read:
        named: dict[Path, str] = {}
        for name, marks in by_recording.items():
            own = owners.get(file, [])
            last = named_after(file) if name is None else "".join(path_parts(name)[-1:])
            if name is None:
                candidates = own
            else:
                # What lies beside a recording is about it, wherever that lay when it was marked.
                candidates = [path for path in own if last in (path.name, path.stem)]
                candidates = candidates if len(candidates) == 1 else recordings.of_path(name)
            if not candidates and name is None and has_columns(file) and len(read) == 1:
                raise DataError(
                    f"{file} has no column that names the recording of a row. Add a column file with the names of the recordings, or write "
                    "a file for each recording, called like it."
                )
            if not candidates:
                elsewhere = recordings.called(last)
                where = f"in {file}" if name is not None else ""
                where += (", " if where else "") + f"not {names_in_short([*map(str, elsewhere)])}" if elsewhere else ""
                alone.append(f"{file if name is None else name}{f' ({where})' if where else ''}")
                continue
            if len(candidates) > 1:
                raise DataError(
                    f"{name or file} may be about {names_in_short([*map(str, candidates)])}. Put the file of marks beside its recording, or "
                    "write the path of the recording in the table."
                )
            (recording,) = candidates
            if name is not None and path_parts(named.setdefault(recording, name)) != path_parts(name):
                alone.append(f"{name} (in {file}; {recording} is there, and is {named[recording]} as well)")
                continue
            before = [other for other in read_from[recording] if other != file]
            if before and not all(map(is_one_of_several, [*before, file])):
                clashes.append(f"{recording} ({before[0].name} and {file.name})")
                continue
            read_from[recording].append(file)
            # Several tables of one person or of several, which may have rows in common.
            known = set(found.get(recording, [])) if before else set()
            found[recording] = [*found.get(recording, []), *(mark for mark in marks if mark not in known)]
    if clashes:
        raise DataError(
            f"{len(clashes)} recording(s) have two files of marks: {names_in_short(clashes)}. Keep one of each. Selection tables of "
            "Raven are taken together if they are called NAME.Table.1.selections.txt, NAME.Table.2.selections.txt and so on."
        )
    if alone:
        raise DataError(
            f"{len(alone)} file(s) of marks are about a recording that is not there: {names_in_short(alone)}. Put the recordings there, "
            "remove the files (or rows), or, where they mark nothing, give them another ending. If one is meant that lies in another "
            "folder, correct the path, or write its name alone."
        )
    return found


def _of_columns(data: DataArguments) -> tuple[list[Recording], str]:
    """Recordings of a table or data set with a row for each stretch, and what says their splits."""
    source = local_or_shipped(data.dataset_name)
    refuse_special(source)
    tables, kind = ([_rows_of_table(source, data)], COLUMN) if source.is_file() else _rows_of_data_set(source, data)
    kept: dict[str, dict] = {}
    by_key: dict[str | None, list[Mark]] = defaultdict(list)
    rows: list[tuple[str, str]] = []
    for table in tables:
        keys = _each_once(table, kept)
        others = {name: values for name, values in table.columns.items() if name.casefold() not in FILE_COLUMNS}
        # Each on its own: the columns of one split may be others than those of the next.
        of_table = marks_of_columns(others | {"file": keys}, table.name, data.mark_label_column)
        for key, marks in of_table.items():
            by_key[key] += marks
        rows += zip(keys, table.splits, strict=True)
    found: dict[str, Recording] = {}
    for key, split in rows:
        name = kept[key]["path"] or f"recording {len(found) + 1}"
        first = found.setdefault(key, Recording(kept[key], name, 0.0, by_key[key], split=split))
        if first.split != split:
            raise DataError(
                f"{first.name} has stretches in the splits {first.split!r} and {split!r}, and a recording is in one of them. Move its rows "
                "together."
            )
    return list(found.values()), kind


class _Rows(NamedTuple):
    """Rows of a table or of a split: what messages call it, its other columns, and the audio and split of each."""

    name: str
    columns: dict[str, list]
    audio: Iterable[dict | None]
    splits: list[str]


def _each_once(table: _Rows, kept: dict[str, dict]) -> list[str]:
    """By what the recording of each row is known, of which `kept` has the audio once."""
    keys, empty = [], []
    for number, value in enumerate(table.audio, 1):
        if value is None or (value["bytes"] is None and not value["path"]):
            empty.append(number)
            continue
        is_file = value["bytes"] is None
        key = os.path.realpath(value["path"]) if is_file else hashlib.sha256(value["bytes"]).hexdigest()
        kept.setdefault(key, value)
        keys.append(key)
    if empty:
        raise DataError(
            f"{table.name}: row(s) {names_in_short(empty)} have no audio. Fill them in or remove them, or name another column with "
            "--audio_column_name."
        )
    return keys


def _rows_of_table(source: Path, data: DataArguments) -> _Rows:
    columns = table_columns(source)
    by_name = {name.casefold(): name for name in columns}
    column = data.audio_column_name if data.audio_column_name in columns else None
    column = column or next((by_name[name] for name in FILE_COLUMNS if name in by_name), None)
    if column is None:
        raise DataError(
            f"{source} has the columns {names_in_short([*map(repr, columns)])}, of which none names the recordings. Pass --audio_column_name."
        )
    values = [None if is_empty(value) else resolve_audio(value, source.parent) for value in columns.pop(column)]
    audio = [{"bytes": None, "path": value} if isinstance(value, str) else value for value in values]
    files = {value["path"] for value in audio if value and value["bytes"] is None}
    missing = sorted(path for path in files if not os.path.isfile(path))
    if missing:
        raise DataError(
            f"{source} names {len(missing)} recording(s) that are not there: {names_in_short(missing)}. Paths are taken as relative to "
            f"{source.parent}. Correct or remove these rows."
        )
    if data.split_column_name != DEFAULT_SPLIT_COLUMN:
        require_column("split_column_name", data.split_column_name, columns)
    return _Rows(
        data.dataset_name, columns, audio, _split_texts(columns.get(data.split_column_name) or [""] * len(audio))
    )


def _split_texts(values: list) -> list[str]:
    return ["" if is_empty(value) else str(value).strip() for value in values]


def _rows_of_data_set(source: Path, data: DataArguments) -> tuple[list[_Rows], str]:
    """The rows of each split, and what says splits."""
    loaded = load_saved(source) if is_saved_data_set(source) else load_hub(data, source if source.is_dir() else None)
    parts = loaded if isinstance(loaded, datasets.DatasetDict) else {"": loaded}
    by_column = data.split_column_name != DEFAULT_SPLIT_COLUMN
    kind = SPLIT
    tables = []
    for split, part in parts.items():
        name = data.dataset_name if len(parts) == 1 else f"{data.dataset_name} (split {split!r})"
        if data.audio_column_name not in part.column_names:
            raise DataError(
                f"{name} has the columns {names_in_short([*map(repr, part.column_names)])}. Name that of the recordings with "
                "--audio_column_name."
            )
        if by_column and data.split_column_name not in part.column_names:
            missing = missing_column("split_column_name", data.split_column_name, part.column_names)
            raise missing if len(parts) == 1 else DataError(f"{name} is without the column of splits: {missing}")
        feature = part.features[data.audio_column_name]
        if getattr(feature, "dtype", None) == "large_string":  # which `Audio` does not take
            part = part.cast_column(data.audio_column_name, datasets.Value("string"))
        undecoded = part.cast_column(data.audio_column_name, datasets.Audio(decode=False)).with_format(None)
        audio = map(itemgetter(data.audio_column_name), undecoded.select_columns(data.audio_column_name))
        columns = {
            column: with_names(column_values(part, column), feature)
            for column, feature in part.features.items()
            if column != data.audio_column_name
        }
        splits = [split] * len(part)
        if data.split_column_name in columns and (len(parts) == 1 or by_column):
            splits, kind = _split_texts(columns[data.split_column_name]), COLUMN
        tables.append(_Rows(name, columns, audio, splits))
    return tables, kind


def _checked(found: list[Recording], data: DataArguments) -> tuple[list[Recording], list[str]]:
    """Recordings with their lengths, and with stretches that can be; and what is to be said of them."""
    checked, faults, absorbed, whole = [], [], 0, []
    for recording in found:
        try:
            layout: FileLayout = file_layout(recording.audio, recording.name)
        except AudioError as error:
            faults.append(str(error))
            continue
        seconds = layout.frames / layout.sampling_rate
        if not layout.goes_there:
            whole.append(recording.name)
        marks = refuse_wrong_marks(recording.marks, seconds, recording.name)
        ignored = set(data.ignore_labels)
        kept, joined = joined_marks(mark for mark in marks if mark.label not in ignored)
        absorbed += joined
        unknown = [mark for mark in marks if mark.label in ignored]
        audio = recording.audio
        size = os.path.getsize(audio["path"]) if audio["bytes"] is None else len(audio["bytes"])
        checked.append(replace(recording, seconds=seconds, marks=kept, unknown=unknown, size=size))
    if faults:
        listed = "".join(f"\n  {fault}" for fault in faults[:5])
        raise DataError(f"{len(faults)} of {len(found)} recordings cannot be used:{listed}\nRepair or remove them.")
    notes = [f"{absorbed} stretches that overlap others of their label are joined with them"] if absorbed else []
    if whole:
        notes.append(
            f"{len(whole)} recordings may have to be decoded as a whole for each window ({names_in_short(whole)}): convert them to FLAC or WAV"
        )
    return checked, notes


def _refuse_unknown_labels(found: Iterable[Recording], data: DataArguments):
    """Refuse labels to ignore that nothing is marked with."""
    present = {mark.label for recording in found for mark in recording.marks} | set(data.labels)
    unknown = sorted(set(data.ignore_labels) - present)
    if unknown and present:
        raise DataError(
            f"ignore_labels names {names_in_short(unknown)}, with which nothing is marked; there are {names_in_short(sorted(present))}. "
            "Correct --ignore_labels."
        )


def _labels(found: Iterable[Recording], data: DataArguments) -> list[str]:
    counts = Counter(mark.label for recording in found for mark in recording.marks)
    if not counts:
        raise DataError(
            "Nothing is marked in any recording. Mark what the model is to hear, or name the files with --marks."
        )
    background = data.background_label
    if background in counts:
        raise DataError(
            f"background_label={background!r} is marked in recordings too. Pass another name, or leave these stretches out with "
            f"--ignore_labels {background}: what is not marked is background."
        )
    extra = [background] if background else []
    if data.labels:
        unknown = sorted((counts.keys() | set(extra)) - set(data.labels))
        if unknown:
            raise DataError(
                f"labels does not name {names_in_short(unknown)}. Add them to --labels, or leave them out with --ignore_labels."
            )
        return list(data.labels)
    return [*sorted(counts), *extra]

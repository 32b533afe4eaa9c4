"""Tables of marked and of found stretches, and of scores along time: read, checked, and matched by their recordings."""

import math
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from modeling_ast.audio import audio_duration

from ..sources.data_errors import DataError
from ..sources.mark_files import FILE_COLUMNS, LABEL_COLUMNS, TEXTGRID, label_text, table_columns, textgrid_refused
from ..sources.marked_recordings import recordings_in

# Names of the columns: those that `ast-tag` writes, and those of DCASE's and other tables.
COLUMNS = {
    "file": FILE_COLUMNS,
    "start": ("start", "onset", "onset_s"),
    "end": ("end", "offset", "offset_s"),
    "label": LABEL_COLUMNS,
}
DURATIONS = ("duration",)
ROUNDED = 0.011  # seconds; tables round to hundredths
TABLES = (".csv", ".tsv", ".txt", ".parquet")
BEYOND_END = 0.1  # seconds by which a stretch may pass the end of its recording, as times are rounded
NAMES_SHOWN = 5


class EventTableError(ValueError):
    """A table that cannot be scored as it is; the message says what to type."""


class Event(NamedTuple):
    """A stretch of a recording in which a label is heard.

    Args:
        start (`float`): seconds from the beginning of the recording.
        end (`float`): likewise.
        label (`str`): what is heard.
    """

    start: float
    end: float
    label: str


@dataclass
class EventTable:
    """The stretches of some recordings.

    Args:
        name (`str`): of the table, for messages.
        events (`dict[str, list[Event]]`): of each recording, sorted; recordings without any may be among them.
        durations (`dict[str, float]`): seconds of those whose length is known.
    """

    name: str
    events: dict[str, list[Event]]
    durations: dict[str, float] = field(default_factory=dict)

    @property
    def labels(self) -> list[str]:
        """Of all events, sorted."""
        return sorted({event.label for events in self.events.values() for event in events})


@dataclass
class ScoreTable:
    """The scores of a recording along time.

    Args:
        times (`np.ndarray` of shape `(places + 1,)`): ascending; a score counts from one to the next.
        scores (`np.ndarray` of shape `(places, labels)`): minus infinity where there are none.
        labels (`list[str]`): of the columns.
    """

    times: np.ndarray
    scores: np.ndarray
    labels: list[str]


def read_events(path: str | os.PathLike) -> EventTable:
    """Read a table of stretches, or what is marked beside the recordings of a folder.

    Args:
        path (`str` or `os.PathLike`): CSV, TSV or Parquet with the columns file, start, end and label, by these or DCASE's names,
            and perhaps duration. A row with a file alone is a recording in which nothing is marked. Or a folder of recordings
            with label tracks of Audacity, selection tables of Raven or tables beside them, as `ast-finetune --marks beside` takes
            it; recordings without such a file are left out.

    Returns:
        [`EventTable`].

    Raises:
        EventTableError: for a column that is missing, and for rows that are no stretches; it names the first.
        DataError: for a folder whose marks cannot be read, or belong to no recording.
        FileNotFoundError: if there is no such file.
    """
    path = Path(path)
    if path.is_dir():
        return _events_of_folder(path)
    table = _read(path)
    names = _columns(table, path, COLUMNS)
    events: dict[str, list[Event]] = {}
    for number, row in _rows(table, names):
        place = f"{path}, row {number}"
        of_file = events.setdefault(_text(row["file"], "file", place), [])
        if all(_is_missing(row[name]) for name in ("start", "end", "label")):
            continue
        start, end = (_seconds(row[name], name, place) for name in ("start", "end"))
        if end < start:
            raise EventTableError(
                f"{place}: the stretch ends at {end:g} s before it starts, at {start:g} s. Correct it."
            )
        of_file.append(Event(start, end, _label(row["label"], place)))
    return EventTable(
        str(path), {file: sorted(found) for file, found in events.items()}, _durations(table, path, names)
    )


def _events_of_folder(folder: Path) -> EventTable:
    recordings = recordings_in(folder)
    return EventTable(
        str(folder),
        {
            recording.name: sorted(Event(mark.start, mark.end, mark.label) for mark in recording.marks)
            for recording in recordings
        },
        {recording.name: recording.seconds for recording in recordings},
    )


def read_scores(path: str | os.PathLike) -> dict[str, ScoreTable]:
    """Read a table of the scores of neighbouring windows or frames.

    Args:
        path (`str` or `os.PathLike`): as of [`read_events`], with a column score: a row for each window and label.

    Returns:
        `dict[str, ScoreTable]`: by recording. Where there is no row for a label there is no score.

    Raises:
        EventTableError: see [`read_events`]; also for windows that overlap, and labels that have several scores in one.
    """
    path = Path(path)
    table = _read(path)
    names = _columns(table, path, COLUMNS | {"score": ("score",)})
    values: dict[str, dict[tuple[float, float], dict[str, float]]] = {}
    for number, row in _rows(table, names):
        place = f"{path}, row {number}"
        window = tuple(_seconds(row[name], name, place) for name in ("start", "end"))
        file, label = _text(row["file"], "file", place), _label(row["label"], place)
        of_window = values.setdefault(file, {}).setdefault(window, {})
        if label in of_window:
            raise EventTableError(f"{place}: {label!r} has a second score in this window. Leave one of them out.")
        of_window[label] = _number(row["score"], "score", place)
    return {file: _score_table(windows, file, path) for file, windows in values.items()}


def _score_table(windows: dict[tuple[float, float], dict[str, float]], file: str, path: Path) -> ScoreTable:
    labels = sorted({label for scores in windows.values() for label in scores})
    times, rows = [], []
    for (start, end), scores in sorted(windows.items()):
        if times and start < times[-1] - 1e-6:
            raise EventTableError(
                f"{path}: a window of {file} starts at {start:g} s within another, which ends at {times[-1]:g} s. Write the mean "
                "of windows that overlap, one row for each step."
            )
        if not times:
            times.append(start)
        elif start > times[-1] + 1e-6:
            times.append(start)
            rows.append([-np.inf] * len(labels))
        if end <= times[-1]:
            raise EventTableError(f"{path}: a window of {file} ends at {end:g} s where it starts. Leave it out.")
        times.append(end)
        rows.append([scores.get(label, -np.inf) for label in labels])
    return ScoreTable(np.array(times), np.array(rows), labels)


def matched(reference: Iterable[str], others: Iterable[str], name: str) -> dict[str, str]:
    """Find the recordings of the reference that others are, by their paths or else by their names.

    Args:
        reference (iterable of `str`): its recordings.
        others (iterable of `str`): paths as another table has them.
        name (`str`): of that table, for messages.

    Returns:
        `dict[str, str]`: the recording of the reference for each of the others.

    Raises:
        EventTableError: for a path that is none of them, and for two that are one.
    """
    reference, found = list(reference), {}
    names = Counter(map(_name, reference))
    by_name = {_name(file): file for file in reference if names[_name(file)] == 1}
    for file in others:
        found[file] = file if file in reference else by_name.get(_name(file))
    unknown = [file for file, own in found.items() if own is None]
    if unknown:
        shown = ", ".join(unknown[:NAMES_SHOWN]) + (
            f" and {len(unknown) - NAMES_SHOWN} more" if unknown[NAMES_SHOWN:] else ""
        )
        raise EventTableError(
            f"{name} names {shown}, which the reference does not, or not by one name. Add a row with its file alone for a recording in "
            "which nothing is marked, or leave it out."
        )
    twice = [own for own, count in Counter(found.values()).items() if count > 1]
    if twice:
        raise EventTableError(f"{name} has two recordings called {_name(twice[0])}. Give both tables whole paths.")
    return found


def durations_of(files: Iterable[str], known: Mapping[str, float], folder: str | None = None) -> dict[str, float]:
    """Find how long recordings last.

    Args:
        files (iterable of `str`): of the reference.
        known (mapping of `str` to `float`): what tables say.
        folder (`str`, *optional*): where the recordings lie, by their paths below it or by their names.

    Returns:
        `dict[str, float]`: seconds of those whose length is known, or that are there to be looked at.

    Raises:
        EventTableError: if a recording is not in the folder that was given.
        AudioError: if one cannot be read.
    """
    found = {}
    for file in files:
        places = [file] if folder is None else [os.path.join(folder, file), os.path.join(folder, _name(file))]
        place = next(filter(os.path.isfile, places), None)
        if file in known:
            found[file] = known[file]
        elif place is not None:
            found[file] = audio_duration(place)
        elif folder is not None:
            raise EventTableError(f"--audio_dir {folder} has no {file}. Put it there, or leave out --audio_dir.")
    return found


def refuse_beyond_end(table: EventTable, durations: Mapping[str, float]):
    """Refuse stretches that pass the end of their recording.

    Args:
        table ([`EventTable`]): the stretches.
        durations (mapping of `str` to `float`): seconds of recordings.

    Raises:
        EventTableError: for the first of them.
    """
    for file, events in table.events.items():
        last = max((event.end for event in events), default=0.0)
        if last > durations.get(file, math.inf) + BEYOND_END:
            raise EventTableError(
                f"{table.name}: a stretch of {file} ends at {last:g} s, and the recording lasts {durations[file]:g} s. Correct the times, "
                "which are seconds, or the duration."
            )


def _name(file: str) -> str:
    return file.replace("\\", "/").rpartition("/")[2]


def _read(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}. Check the spelling.")
    if path.suffix.lower() == TEXTGRID:
        raise EventTableError(textgrid_refused(path))
    if path.suffix.lower() not in TABLES:
        raise EventTableError(f"{path} is no table of stretches: expected one of {', '.join(TABLES)}. Save it as CSV.")
    try:
        # Labels such as "NA", "null" and "01" are what they look like.
        return pd.DataFrame(table_columns(path), dtype=object)
    except DataError as error:
        raise EventTableError(str(error)) from error
    except (ValueError, OSError) as error:  # also those of pandas and pyarrow
        raise EventTableError(f"{path} cannot be read as a table: {error}. Save it as CSV in UTF-8.") from error


def _columns(table: pd.DataFrame, path: Path, wanted: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
    """Names of the columns as they stand in the table."""
    own = {str(name).strip().lower(): name for name in table.columns}
    found = {name: next((own[other] for other in others if other in own), None) for name, others in wanted.items()}
    missing = [name for name, column in found.items() if column is None]
    if missing:
        raise EventTableError(
            f"{path} has no column {', '.join(missing)}; it has {', '.join(map(str, table.columns))}. The first line names file, start, "
            "end and label, with commas between them in .csv, and tabs in .tsv and .txt."
        )
    return found


def _rows(table: pd.DataFrame, names: Mapping[str, str]) -> Iterable[tuple[int, dict]]:
    """Rows by the names of their columns here, counted from 1 without the header."""
    columns = [table[column].tolist() for column in names.values()]
    return ((number, dict(zip(names, row, strict=True))) for number, row in enumerate(zip(*columns, strict=True), 1))


def _durations(table: pd.DataFrame, path: Path, names: Mapping[str, str]) -> dict[str, float]:
    own = {str(name).strip().lower(): name for name in table.columns}
    column = next((own[name] for name in DURATIONS if name in own), None)
    if column is None:
        return {}
    rows = [
        (f"{path}, row {number}", row)
        for number, row in _rows(table, {**names, "duration": column})
        if not _is_missing(row["duration"])
    ]
    marked = [(place, row) for place, row in rows if not any(_is_missing(row[name]) for name in ("start", "end"))]
    begins = any(
        _seconds(row["start"], "start", place) > 0 for place, row in marked
    )  # or recording and stretch may be one
    if begins and all(_is_of_stretch(row, place) for place, row in marked):
        return _lengths([each for each in rows if each not in marked])
    return _lengths(rows)


def _lengths(rows: list[tuple[str, dict]]) -> dict[str, float]:
    """What rows say of the lengths of their recordings."""
    found: dict[str, float] = {}
    for place, row in rows:
        seconds, file = _seconds(row["duration"], "duration", place), _text(row["file"], "file", place)
        if found.setdefault(file, seconds) != seconds:
            raise EventTableError(
                f"{place}: {file} lasts {seconds:g} s here and {found[file]:g} s above. Correct one."
            )
    return found


def _is_of_stretch(row: Mapping, place: str) -> bool:
    """Whether a duration is how long the stretch lasts, as other programs' tables have it, and not the recording."""
    start, end, seconds = (_seconds(row[name], name, place) for name in ("start", "end", "duration"))
    return abs(end - start - seconds) <= ROUNDED


def _is_missing(value) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value)) or not str(value).strip()


def _text(value, name: str, place: str) -> str:
    if _is_missing(value):
        raise EventTableError(f"{place} has no {name}. Fill it in, or remove the row.")
    return str(value).strip()


def _label(value, place: str) -> str:
    return _text(label_text(value), "label", place)


def _number(value, name: str, place: str) -> float:
    text = _text(value, name, place)
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        hint = " Write a decimal point, not a comma." if "," in text else " Write it as in 12.5."
        raise EventTableError(f"{place}: {name} is {text!r}, expected a number.{hint}")
    return number


def _seconds(value, name: str, place: str) -> float:
    seconds = _number(value, name, place)
    if seconds < 0:
        raise EventTableError(f"{place}: {name} is {seconds:g} s, before the recording begins. Correct it.")
    return seconds

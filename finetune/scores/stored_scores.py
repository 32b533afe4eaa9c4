"""Scores of clips that a model gave earlier, read from a file: what `ast-evaluate --predictions` and `ast-tag` write, or npz.

| file | what it holds |
|---|---|
| `.csv` with the columns `file`, perhaps `truth`, then one for each label | what `ast-evaluate --predictions` writes |
| `.csv` with the columns `file`, `label`, `score`; `.jsonl`, `.json` | what `ast-tag` writes, with all labels of every clip |
| `.npz` with `files`, `labels`, and `scores` or `logits` | texts, texts, and an array of shape (files, labels) |
"""

import csv
import json
import zipfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

import numpy as np

from modeling_ast.system.regular_files import refuse_special

from ..sources.data_errors import DataError, names_in_short

SUFFIXES = (".csv", ".jsonl", ".json", ".npz")
SUM_TOLERANCE = 0.01  # of the scores of a clip, which tools round
LEAST_SIGMOID = 1e-7  # and as far below 1: files give about seven digits
CLIPS_COMPARED = 64  # at least, if there are as many, with all of their name, to find out where the clips lie now
FILES, LABELS, SCORES, LOGITS = "files", "labels", "scores", "logits"


@dataclass(frozen=True)
class StoredScores:
    """Scores of clips as a file has them.

    Args:
        path (`Path`): the file.
        files (`list[str]`): names of the clips.
        labels (`list[str]`): names of the labels.
        values (`np.ndarray` of shape `(files, labels)`): probabilities, or logits, float64.
        are_logits (`bool`, defaults to `False`): which of the two.
    """

    path: Path
    files: list[str]
    labels: list[str]
    values: np.ndarray
    are_logits: bool = False

    @property
    def add_up(self) -> bool | None:
        """Whether the scores of every clip add up to 1, as those of exclusive labels do; `None` of logits, which do not tell."""
        if self.are_logits:
            return None
        return bool((np.abs(self.values.sum(axis=1) - 1) <= SUM_TOLERANCE).all())

    def logits(self) -> np.ndarray:
        """Tell the logits that give these scores, up to a constant of each clip where they add up to 1.

        Returns:
            `np.ndarray` of shape `(files, labels)`, float64.
        """
        if self.are_logits:
            return self.values
        if self.add_up:
            return np.log(np.maximum(self.values, np.finfo(np.float32).tiny))
        scores = self.values.clip(LEAST_SIGMOID, 1 - LEAST_SIGMOID)
        return np.log(scores) - np.log1p(-scores)

    def places_of(self, names: Sequence[str | None]) -> list[int]:
        """Find clips by their names, also where the same clips lie in another folder now.

        Args:
            names (sequence of `str`): what the clips are called, paths mostly.

        Returns:
            The place of each clip among `files`.

        Raises:
            DataError: if a clip has no name, no scores, or scores twice.
        """
        nameless = sum(not name for name in names)
        if nameless:
            raise DataError(
                f"{nameless} of {len(names)} training clips have no name, by which their scores in {self.path} could be found. "
                "Train on a table of files, or pass the model itself as --teacher."
            )
        places = {name: place for place, name in enumerate(self.files)}
        twice = [name for name, count in Counter(self.files).items() if count > 1]
        if twice:
            raise DataError(
                f"{self.path} has scores more than once for {names_in_short(twice)}. Leave one row for each clip."
            )
        found = [places.get(name) for name in names]
        elsewhere = [name for name, place in zip(names, found, strict=True) if place is None]
        if elsewhere:
            here, there = self._folders(elsewhere[:: max(1, len(elsewhere) // CLIPS_COMPARED)])
            found = [places.get(name, places.get(_moved(name, here, there))) for name in names]
        missing = [name for name, place in zip(names, found, strict=True) if place is None]
        if missing:
            raise DataError(
                f"{self.path} has no scores for {len(missing)} of {len(names)} training clips: {names_in_short(missing)}. "
                "Score the training clips with the teacher: ast-evaluate --model_name_or_path TEACHER --dataset_name DATA "
                "--predictions FILE.csv (with --split train where the data has splits)"
            )
        return found

    def _folders(self, names: Iterable[str]) -> tuple[PurePath, PurePath]:
        """The folder of clips here, and that of the file, which name the same for most of some clips."""
        by_end: dict[str, list[PurePath]] = {}
        for name in self.files:
            by_end.setdefault(PurePath(name).name, []).append(PurePath(name))
        pairs: Counter = Counter()
        for name in names:
            path = PurePath(name)
            pairs.update({_heads(path, other) for other in by_end.get(path.name, [])})
        return max(pairs, key=pairs.get, default=(PurePath(), PurePath()))


def _heads(path: PurePath, other: PurePath) -> tuple[PurePath, PurePath]:
    """What is left of two paths without the end that they share."""
    shared = 0
    for one, two in zip(reversed(path.parts), reversed(other.parts), strict=False):
        if one != two:
            break
        shared += 1
    return PurePath(*path.parts[: len(path.parts) - shared]), PurePath(*other.parts[: len(other.parts) - shared])


def _moved(name: str, here: PurePath, there: PurePath) -> str | None:
    path = PurePath(name)
    return str(there / path.relative_to(here)) if path.is_relative_to(here) else None


def read_stored_scores(path: str | Path) -> StoredScores:
    """Read a file of scores; the head of this file says of which kinds.

    Args:
        path (`str` or `Path`): the file.

    Returns:
        [`StoredScores`].

    Raises:
        DataError: if it is of another kind, or what it holds are no scores of all labels for every clip.
    """
    path = Path(path)
    refuse_special(path)
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise DataError(f"{path} is no file of scores, expected {', '.join(SUFFIXES)}. Pass another --teacher.")
    try:
        stored = reader(path)
    except (csv.Error, UnicodeDecodeError, json.JSONDecodeError, zipfile.BadZipFile, KeyError, TypeError) as error:
        reason = f"there is no {error}" if isinstance(error, KeyError) else str(error)
        raise DataError(f"{path} holds no scores of clips that can be read ({reason}). {_KINDS}") from error
    if not stored.files or not stored.labels:
        raise DataError(f"{path} holds no scores. {_KINDS}")
    if not np.isfinite(stored.values).all():
        row, column = np.argwhere(~np.isfinite(stored.values))[0]
        raise DataError(
            f"{path} has no number as the score of {stored.files[row]} for {stored.labels[column]!r}. A teacher needs the scores of "
            "all labels: write them with ast-evaluate --predictions, or with ast-tag and a --top_k that is the number of labels."
        )
    if not stored.are_logits and (stored.values.min() < 0 or stored.values.max() > 1):
        raise DataError(
            f"{path} has scores from {stored.values.min():g} to {stored.values.max():g}, expected probabilities. Logits go into "
            f"an npz file, called {LOGITS}."
        )
    return stored


_KINDS = (
    "Expected is what ast-evaluate --predictions or ast-tag writes, or an npz file with "
    f"{FILES}, {LABELS} and {SCORES} (or {LOGITS})."
)


def _of_table(path: Path) -> StoredScores:
    # A spreadsheet puts a byte order mark before the first name.
    with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        header, *rows = list(csv.reader(file, strict=True)) or [[]]
    if header[:1] != ["file"]:
        raise DataError(f"The first column of {path} is {(header or [''])[0]!r}, expected 'file'. {_KINDS}")
    uneven = next((number for number, row in enumerate(rows, 2) if len(row) != len(header)), None)
    if uneven:
        raise DataError(f"Line {uneven} of {path} has other columns than its first line. Write it again.")
    if header == ["file", "label", "score"]:
        return _of_tags(path, ((name, [(label, score)]) for name, label, score in rows))
    first = 2 if header[1:2] == ["truth"] else 1
    values = [[_number(path, row[0], cell) for cell in row[first:]] for row in rows]
    return StoredScores(path, [row[0] for row in rows], header[first:], np.array(values, dtype=np.float64))


def _of_objects(path: Path) -> StoredScores:
    text = path.read_text(encoding="utf-8-sig")
    if path.suffix.lower() == ".jsonl":
        found = [json.loads(line) for line in text.splitlines() if line.strip()]
    else:
        found = json.loads(text)
    if isinstance(found, dict) and "evaluations" in found:
        raise DataError(
            f"{path} holds scores of a whole split, and none of single clips. Pass what ast-evaluate writes with --predictions."
        )
    rows = found if isinstance(found, list) else [found]
    return _of_tags(path, ((row["file"], [(tag["label"], tag["score"]) for tag in row["labels"]]) for row in rows))


def _of_tags(path: Path, tags: Iterable[tuple[str, list[tuple[str, object]]]]) -> StoredScores:
    """A row for each file of scores that stand one by one; what is missing is NaN."""
    of_files: dict[str, dict[str, float]] = {}
    for name, scores in tags:
        of_file = of_files.setdefault(str(name), {})
        for label, score in scores:
            if label in of_file:
                raise DataError(
                    f"{path} has two scores of {name} for {label!r}: a teacher's are of whole clips. Write the file without "
                    "--timeline, and once."
                )
            of_file[label] = _number(path, name, score)
    labels = list(dict.fromkeys(label for of_file in of_files.values() for label in of_file))
    values = [[of_file.get(label, np.nan) for label in labels] for of_file in of_files.values()]
    return StoredScores(path, list(of_files), labels, np.array(values, dtype=np.float64))


def _number(path: Path, name: str, cell) -> float:
    try:
        return float(cell)
    except (TypeError, ValueError):
        raise DataError(f"{path} has {cell!r} as a score of {name}, expected a number. {_KINDS}") from None


def _of_arrays(path: Path) -> StoredScores:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            are_logits = LOGITS in arrays
            files, labels = arrays[FILES].astype(str), arrays[LABELS].astype(str)
            values = arrays[LOGITS if are_logits else SCORES].astype(np.float64)
    except ValueError as error:  # of Python objects, or of what is no archive
        raise DataError(f"{path} cannot be read ({error}). {_KINDS}") from error
    if values.shape != (files.size, labels.size):
        raise DataError(
            f"{path} has {LOGITS if are_logits else SCORES} of shape {values.shape}, expected a row for each of {files.size} "
            f"{FILES} and a column for each of {labels.size} {LABELS}. Write it again."
        )
    return StoredScores(path, files.ravel().tolist(), labels.ravel().tolist(), values, are_logits)


_READERS = {".csv": _of_table, ".jsonl": _of_objects, ".json": _of_objects, ".npz": _of_arrays}

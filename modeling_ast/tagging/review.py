"""Clips for a person to judge: stretches around the events of which a model is least and most sure, with a table.

The folder is a data set as `ast-finetune --dataset_name` reads it: what is corrected in its `metadata.csv` is what the next
model learns. Doubtful events teach most; sure ones show whether the model is right where it seems to be.

Source: uncertainty sampling, by the distance from the threshold or, with exclusive labels, by the least confidence (Lewis and
Gale 1994, "A sequential algorithm for training text classifiers").
"""

import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..audio.errors import AudioError
from ..audio.excerpt_files import read_excerpts, write_excerpt
from ..system.atomic_files import make_folder_atomically, refuse_existing
from ..system.names_as_text import csv_row
from .errors import TaggingError
from .events import EventRules, event_rules
from .results import FileTags, Segment
from .unfinished import OutputError

TABLE_NAME = "metadata.csv"
# The times are not called start and end alone: columns of that name mark stretches of the files that a table lists.
COLUMNS = ("file_name", "label", "asked", "reason", "score", "recording", "recording_start", "recording_end")
UNCERTAIN, CONFIDENT = "uncertain", "confident"
SEVERAL_LABELS = ";"  # between the labels of a clip with independent ones, as --label_separator takes it
SHARE_OF_EVENT = 0.5  # of an event, or of the clip, that has to lie in the other for the clip to have the label
SHARE_OVERLAP = 0.5  # of a clip, beyond which another one would be heard twice
LONGEST_LABEL = 40  # characters of a label in a file's name


@dataclass(frozen=True)
class Candidate:
    """A clip that may be chosen.

    Args:
        place (`int`): which recording it is of, in their order.
        recording (`str`): the same by name.
        start (`float`): where it begins, in seconds.
        end (`float`): where it ends, in seconds.
        asked (`str`): the label in question.
        score (`float`): of its event.
        distance (`float`): of the score from what decides; the smaller, the less sure.
        counts (`bool`): whether the event counts by the model's thresholds.
        labels (`tuple[str, ...]`): those that the model gives the clip, when it is one of those that may be chosen.
    """

    place: int
    recording: str
    start: float
    end: float
    asked: str
    score: float
    distance: float
    counts: bool
    labels: tuple[str, ...] = ()

    def covers(self, other: "Candidate") -> bool:
        """Tell whether two clips are of the same sound, mostly.

        Args:
            other ([`Candidate`]): the other one.

        Returns:
            `bool`.
        """
        shared = min(self.end, other.end) - max(self.start, other.start)
        shorter = min(self.end - self.start, other.end - other.start)
        return self.place == other.place and shared > SHARE_OVERLAP * shorter

    @property
    def by_doubt(self) -> tuple:
        """Sorts the least sure first."""
        return (self.distance, self.place, self.start)

    @property
    def by_score(self) -> tuple:
        """Sorts the highest score first."""
        return (-self.score, self.place, self.start)


class Review:
    """The clips to judge, chosen while recordings are tagged; no more than may be chosen is held.

    Args:
        labels (sequence of `str`): the model's, in their order.
        rules ([`EventRules`]): by which its events count.
        seconds (`float`): length of a clip.
        per_label (`int`): clips of a label; the larger half of them uncertain ones.
    """

    def __init__(self, labels: Sequence[str], rules: EventRules, seconds: float, per_label: int):
        self.labels, self.rules, self.seconds, self.per_label = list(labels), rules, seconds, per_label
        on = np.broadcast_to(np.asarray(rules.on, float), len(self.labels))
        self._thresholds = dict(zip(self.labels, on.tolist(), strict=True))
        self._doubtful: dict[str, list[Candidate]] = {label: [] for label in self.labels}
        self._sure: dict[str, list[Candidate]] = {label: [] for label in self.labels}
        self._recordings = 0

    def add(self, result: FileTags):
        """Look at the events of a recording.

        Args:
            result ([`FileTags`]): with its segments and fainter ones, in the order of the recordings.
        """
        place, self._recordings = self._recordings, self._recordings + 1
        if result.error is not None or not result.seconds:
            return
        events, faint = _by_label(result.segments or ()), _by_label(result.faint or ())
        for label in events.keys() | faint.keys():
            sure = [self._candidate(place, result, segment, counts=True) for segment in events.get(label, ())]
            apart = _apart(faint.get(label, ()), events.get(label, ()))
            doubtful = sure + [self._candidate(place, result, segment, counts=False) for segment in apart]
            for pool, candidates, order in ((self._doubtful, doubtful, "by_doubt"), (self._sure, sure, "by_score")):
                best = self._best(pool[label] + candidates, order)
                pool[label] = [self._with_labels(one, result) if one.place == place else one for one in best]

    def _candidate(self, place: int, result: FileTags, segment: Segment, counts: bool) -> Candidate:
        length = min(self.seconds, result.seconds)
        middle = (segment.start + segment.end) / 2
        start = min(max(0.0, middle - length / 2), result.seconds - length)
        # Of exclusive labels an event is one because its label is the best: the lower its score, the less sure.
        distance = segment.score if self.rules.exclusive else abs(segment.score - self._thresholds[segment.label])
        return Candidate(place, result.file, start, start + length, segment.label, segment.score, distance, counts)

    def _with_labels(self, candidate: Candidate, result: FileTags) -> Candidate:
        """Give a clip its labels: of independent ones those of events of which much lies in it, or which fill much of it."""
        if self.rules.exclusive:
            return replace(candidate, labels=(candidate.asked,))
        start, end, found = candidate.start, candidate.end, set()
        for segment in result.segments or ():
            shared = min(end, segment.end) - max(start, segment.start)
            if shared > 0 and shared >= SHARE_OF_EVENT * min(segment.end - segment.start, end - start):
                found.add(segment.label)
        return replace(candidate, labels=tuple(label for label in self.labels if label in found))

    def _best(self, candidates: Iterable[Candidate], order: str) -> list[Candidate]:
        """The first of an order that are not of the same sound, as many as may be chosen of either kind."""
        kept: list[Candidate] = []
        for candidate in sorted(candidates, key=lambda candidate: getattr(candidate, order)):
            if len(kept) == 2 * self.per_label:
                break
            if not any(candidate.covers(other) for other in kept):
                kept.append(candidate)
        return kept

    def chosen(self) -> list[tuple[Candidate, str]]:
        """Choose the clips of each label: the larger half uncertain ones, the rest confident, and of either more where there
        are too few of the other.

        Returns:
            Each clip with `"uncertain"` or `"confident"`, label by label in the model's order; no two of the same sound.
        """
        rows: list[tuple[Candidate, str]] = []
        taken: dict[int, list[Candidate]] = {}  # by recording
        for label in self.labels:
            doubtful, sure = self._doubtful[label], self._sure[label]
            picked: list[tuple[Candidate, str]] = []
            half = (min(self.per_label, len(doubtful)) + 1) // 2
            for pool, reason, limit in (
                (doubtful, UNCERTAIN, half),
                (sure, CONFIDENT, self.per_label),
                (doubtful, UNCERTAIN, self.per_label),
            ):
                for candidate in pool:
                    if len(picked) >= limit:
                        break
                    # A person hears all of a clip: what is in one that was chosen for another label is judged there.
                    others = taken.setdefault(candidate.place, [])
                    if not any(candidate.covers(other) for other in others):
                        others.append(candidate)
                        picked.append((candidate, reason))
            rows += sorted(picked, key=lambda pick: pick[1] == CONFIDENT)
        return rows


def review_of(tagger, per_label: int, **settings) -> Review:
    """Make the review of what a model finds; a clip lasts as long as what the model hears at once.

    Args:
        tagger ([`AudioTagger`]): the model, or several.
        per_label (`int`): clips of a label.
        settings: those of [`AudioTagger.tag_files`] with which it tags.

    Returns:
        [`Review`].

    Raises:
        TaggingError: for thresholds that are none; see [`event_rules`].
    """
    names = {"threshold": "on", "off": "off", "min_duration": "min_duration", "close_gaps": "close_gaps"}
    given = {name: settings[setting] for setting, name in names.items() if setting in settings}
    rules = event_rules(tagger.config, tagger.sampling_rate, **given)
    seconds = max(member.window_samples / member.sampling_rate for member in tagger.members)
    labels = [tagger.config.id2label[index] for index in range(tagger.config.num_labels)]
    return Review(labels, rules, settings.get("window") or seconds, per_label)


def words_of_review(review: Review, clips: int, folder: Path) -> str:
    """Say what was written, and how to train on it.

    Args:
        review ([`Review`]): which chose the clips.
        clips (`int`): how many there are.
        folder (`Path`): where they are.

    Returns:
        `str`: a line.
    """
    flags = ["--dataset_name", str(folder), "--group_column_name", "recording"]
    flags += [] if review.rules.exclusive else ["--label_separator", SEVERAL_LABELS]
    return (
        f"{clips} clips to judge are in {folder}: correct the column label of {folder / TABLE_NAME}, then train with "
        f"ast-finetune {shlex.join(flags)}"
    )


def check_review_folder(folder: Path):
    """Make sure that a folder of clips can be made, before any work is done.

    Args:
        folder (`Path`): what was passed as `--review`.

    Raises:
        OutputError: if something is there.
    """
    try:
        refuse_existing(folder)
    except FileExistsError as error:
        raise OutputError(f"--review: {error}") from None


def write_review(review: Review, folder: Path) -> tuple[int, list[str]]:
    """Cut the chosen clips from their recordings and write the table of them. The folder appears when it is complete.

    Args:
        review ([`Review`]): which has seen all recordings.
        folder (`Path`): to make.

    Returns:
        How many clips were written, and what is to be said of recordings that could not be cut.

    Raises:
        TaggingError: if there is no event at all.
        OutputError: if something is at `folder` by now.
    """
    rows = review.chosen()
    if not rows:
        raise TaggingError(
            "No event was found in any recording, of which clips could be made. Pass a lower --threshold, or other recordings."
        )
    cells, said = {}, []
    try:
        with make_folder_atomically(folder) as unfinished:
            for recording, numbers in _by_recording(rows):
                spans = [(rows[number][0].start, rows[number][0].end) for number in numbers]
                try:
                    excerpts = read_excerpts(recording, spans)
                except AudioError as error:
                    said.append(str(error))
                    continue
                for number, excerpt in zip(numbers, excerpts, strict=True):
                    candidate, reason = rows[number]
                    name = _file_name(number, candidate.asked)
                    write_excerpt(unfinished / name, excerpt)
                    cells[number] = _cells(name, candidate, reason)
            if not cells:
                raise TaggingError(f"No clip could be cut. {said[0]}")
            with open(unfinished / TABLE_NAME, "w", encoding="utf-8", errors="surrogateescape", newline="\n") as file:
                for row in (COLUMNS, *(cells[number] for number in sorted(cells))):
                    print(csv_row(row), file=file)
    except FileExistsError as error:
        raise OutputError(f"--review: {error}") from None
    return len(cells), said


def _by_recording(rows: Sequence[tuple[Candidate, str]]) -> Iterator[tuple[str, list[int]]]:
    """The numbers of the clips of each recording, which is opened once."""
    numbers: dict[str, list[int]] = {}
    for number, (candidate, _) in sorted(enumerate(rows), key=lambda row: (row[1][0].place, row[1][0].start)):
        numbers.setdefault(candidate.recording, []).append(number)
    yield from numbers.items()


def _file_name(number: int, label: str) -> str:
    plain = "".join(sign if sign.isascii() and sign.isalnum() else "-" for sign in label).strip("-")
    return f"{number + 1:04d}-{plain[:LONGEST_LABEL] or 'label'}.wav"


def _cells(name: str, candidate: Candidate, reason: str) -> list[str]:
    times = (f"{candidate.start:.3f}", f"{candidate.end:.3f}")
    label = SEVERAL_LABELS.join(candidate.labels)
    return [name, label, candidate.asked, reason, f"{candidate.score:.6f}", candidate.recording, *times]


def _by_label(segments: Iterable[Segment]) -> dict[str, list[Segment]]:
    found: dict[str, list[Segment]] = {}
    for segment in segments:
        found.setdefault(segment.label, []).append(segment)
    return found


def _apart(segments: Sequence[Segment], others: Sequence[Segment]) -> list[Segment]:
    """Those that share no time with any of the others, which lie one after the other."""
    starts = np.sort([other.start for other in others])
    ends = np.sort([other.end for other in others])
    begun = np.searchsorted(starts, [segment.end for segment in segments], side="left")
    over = np.searchsorted(ends, [segment.start for segment in segments], side="right")
    return [segment for segment, shared in zip(segments, begun - over, strict=True) if shared == 0]

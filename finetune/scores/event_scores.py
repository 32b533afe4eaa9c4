"""How well the events of recordings were found: F1 by events and by segments, false alarms per hour, PSDS.

Source: Mesaros et al. 2016, "Metrics for polyphonic sound event detection", counted by sed_eval, whose matching of events is
optimal; Bilen et al. 2020, "A framework for the robust evaluation of sound event detection", computed by sed_scores_eval (Ebbers et
al. 2022). Differs from sed_eval in the macro F1: a label that is marked and never found counts there as 0, and not at all in
sed_eval.
"""

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from modeling_ast.system.installation import install_command

from .event_tables import Event, EventTable, EventTableError, ScoreTable

# The two scenarios of DCASE 2021 to 2023, task 4: what reacts fast, and what does not take labels for each other.
PSDS_SCENARIOS = {
    "psds1": {"dtc_threshold": 0.7, "gtc_threshold": 0.7, "cttc_threshold": None, "alpha_ct": 0.0, "alpha_st": 1.0},
    "psds2": {"dtc_threshold": 0.1, "gtc_threshold": 0.1, "cttc_threshold": 0.3, "alpha_ct": 0.5, "alpha_st": 1.0},
}
MOST_FALSE_POSITIVES = 100.0  # an hour, up to which PSDS looks
NO_NAME = "recording"
AFTER_END, LOWEST = 1e-3, -1e300  # seconds of a moment after a recording, and a score below all others


@dataclass(frozen=True)
class EventRule:
    """When a found event counts as a marked one.

    Args:
        collar (`float`, defaults to 0.2): seconds by which its start may be off, and its end.
        length_share (`float`, defaults to 0.2): by which share of the marked event's length its end may be off, where that is more.
        segment (`float`, defaults to 1.0): seconds of the segments that are compared besides.

    Raises:
        ValueError: for a number that cannot be.
    """

    collar: float = 0.2
    length_share: float = 0.2
    segment: float = 1.0

    def __post_init__(self):
        for name, value in asdict(self).items():
            if not math.isfinite(value) or value < 0 or (name == "segment" and not value):
                raise ValueError(f"{name}={value} is no tolerance. Pass --{name} as a number above 0.")


class Counts(NamedTuple):
    """What was counted of a label.

    Args:
        hits (`int`): marked and found.
        marked (`int`): in the reference.
        found (`int`): in the predictions.
    """

    hits: int = 0
    marked: int = 0
    found: int = 0

    def plus(self, other: "Counts") -> "Counts":
        """Add what was counted elsewhere.

        Args:
            other ([`Counts`]): counted in another recording or of another label.

        Returns:
            [`Counts`].
        """
        return Counts(*(own + more for own, more in zip(self, other, strict=True)))

    def scores(self) -> dict[str, float | None]:
        """Compute what these say.

        Returns:
            `dict`: `f1`, `precision` and `recall`; `None` for what has no meaning, as nothing is marked or found.
        """
        return {
            "f1": _ratio(2 * self.hits, self.marked + self.found),
            "precision": _ratio(self.hits, self.found),
            "recall": _ratio(self.hits, self.marked),
        }


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def score_events(
    reference: EventTable,
    predicted: EventTable,
    durations: Mapping[str, float],
    rule: EventRule | None = None,
    labels: Sequence[str] | None = None,
) -> dict:
    """Score the events that were found in recordings.

    Args:
        reference ([`EventTable`]): what is marked. Its recordings are scored.
        predicted ([`EventTable`]): what was found, by the same names of recordings.
        durations (mapping of `str` to `float`): seconds of the recordings. There are no false alarms per hour if one is missing.
        rule ([`EventRule`], *optional*): the tolerances.
        labels (sequence of `str`, *optional*): which labels are scored; by default all that are marked or found.

    Returns:
        `dict`: `rule`, `hours`, `event_based` and `segment_based` (each with the F1, precision and recall of all events
        together, as `micro`, and the mean F1 of all labels that are marked or found, as `macro_f1`), `false_alarms_per_hour`,
        and the same `per_label` and `per_recording`; `neither`, labels without a mark or a find.

    Raises:
        ImportError: without sed_eval; the message says how to install it.
        EventTableError: if there is nothing to score.
    """
    rule = rule or EventRule()
    labels = list(labels) if labels is not None else sorted({*reference.labels, *predicted.labels})
    if not reference.events or not labels:
        raise EventTableError(
            f"{reference.name} marks nothing, and nothing was found. Pass tables that hold stretches."
        )
    counted = {
        file: _counted(events, predicted.events.get(file, []), labels, rule, durations.get(file))
        for file, events in reference.events.items()
    }
    known = all(file in durations for file in reference.events)
    hours = sum(durations[file] for file in reference.events) / 3600 if known else None
    of_labels = {
        label: tuple(_sum(of_file[kind][label] for of_file in counted.values()) for kind in (0, 1)) for label in labels
    }
    together = tuple(_sum(counts[kind] for counts in of_labels.values()) for kind in (0, 1))
    return {
        "rule": asdict(rule),
        "hours": hours,
        "event_based": _summed(together[0], [counts[0] for counts in of_labels.values()]),
        "segment_based": _summed(together[1], [counts[1] for counts in of_labels.values()]),
        "false_alarms_per_hour": _false_alarms(together[0], hours),
        "per_label": {label: _row(*counts, hours) for label, counts in of_labels.items()},
        "per_recording": {
            file: _row(
                _sum(counts[0].values()),
                _sum(counts[1].values()),
                durations[file] / 3600 if file in durations else None,
            )
            for file, counts in counted.items()
        },
        "neither": [label for label, counts in of_labels.items() if not counts[0].marked + counts[0].found],
    }


def _sum(counts) -> Counts:
    total = Counts()
    for of_one in counts:
        total = total.plus(of_one)
    return total


def _summed(together: Counts, of_labels: list[Counts]) -> dict:
    values = [counts.scores()["f1"] for counts in of_labels if counts.marked + counts.found]
    return {
        "micro": together.scores(),
        "macro_f1": sum(values) / len(values) if values else None,
        "labels_in_macro": len(values),
    }


def _false_alarms(counts: Counts, hours: float | None) -> float | None:
    return (counts.found - counts.hits) / hours if hours else None


def _row(events: Counts, segments: Counts, hours: float | None) -> dict:
    return {
        "marked": events.marked,
        "found": events.found,
        "hits": events.hits,
        "event_based": events.scores(),
        "segment_based": segments.scores(),
        "false_alarms_per_hour": _false_alarms(events, hours),
    }


def _counted(
    marked: list[Event], found: list[Event], labels: list[str], rule: EventRule, duration: float | None
) -> tuple[dict[str, Counts], dict[str, Counts]]:
    """Counts of events and of segments of a recording by label."""
    sound_event, container = _sed_eval()
    # Names of its own for labels: dcase_util takes a label "none" for no label, and cuts spaces off others.
    number_of = {label: str(number) for number, label in enumerate(labels)}
    lists = [
        container(
            [
                {"file": NO_NAME, "onset": event.start, "offset": event.end, "event_label": number_of[event.label]}
                for event in events
                if event.label in number_of
            ]
        )
        for events in (marked, found)
    ]
    if not lists[0] and not lists[1]:
        return ({label: Counts() for label in labels},) * 2
    numbers = list(number_of.values())
    by_events = sound_event.EventBasedMetrics(
        event_label_list=numbers, t_collar=rule.collar, percentage_of_length=rule.length_share
    )
    by_events.evaluate(*lists)
    by_segments = sound_event.SegmentBasedMetrics(event_label_list=numbers, time_resolution=rule.segment)
    by_segments.evaluate(*lists, evaluated_length_seconds=duration)
    return tuple(
        {
            label: Counts(*(int(metrics.class_wise[number][name]) for name in ("Ntp", "Nref", "Nsys")))
            for label, number in number_of.items()
        }
        for metrics in (by_events, by_segments)
    )


def _sed_eval():
    try:
        with warnings.catch_warnings():  # of dcase_util's own imports
            warnings.simplefilter("ignore", UserWarning)
            from dcase_util.containers import MetaDataContainer
            from sed_eval import sound_event
    except ImportError as error:
        raise ImportError(
            f"The scores of events need the package sed_eval, which cannot be imported ({error}). Type {install_command('events')}."
        ) from error
    return sound_event, MetaDataContainer


class _WritableScores(pd.DataFrame):
    """A table whose array may be written to.

    sed_scores_eval 0.0.4 asks for such arrays although it only reads them, and those that pandas 3 gives are for reading.
    """

    @property
    def _constructor(self):
        return _WritableScores

    def to_numpy(self, *values, **settings) -> np.ndarray:
        """See `pandas.DataFrame.to_numpy`.

        Args:
            values: as there.
            settings: as there.

        Returns:
            `np.ndarray`: a copy.
        """
        return np.array(super().to_numpy(*values, **settings))


def psds(reference: EventTable, scores: Mapping[str, ScoreTable], durations: Mapping[str, float]) -> dict:
    """Compute the polyphonic sound detection scores of scores along time, over all thresholds.

    Args:
        reference ([`EventTable`]): what is marked; stretches of a label that overlap or touch are one. Its labels are scored.
        scores (mapping of `str` to [`ScoreTable`]): of each of its recordings.
        durations (mapping of `str` to `float`): seconds of each.

    Returns:
        `dict`: `psds1` and `psds2`, see `PSDS_SCENARIOS`, and `per_label` both for each label.

    Raises:
        ImportError: without sed_scores_eval; the message says how to install it.
        EventTableError: if recordings have no scores or no known length, or nothing is marked.
    """
    for what, known in (("scores", scores), ("known length", durations)):
        missing = [file for file in reference.events if file not in known]
        if missing:
            raise EventTableError(
                f"PSDS needs all recordings, and {len(missing)} have no {what}, such as {missing[0]}. Add them to the table of scores, or "
                "pass --audio_dir."
            )
    labels = reference.labels
    if not labels:
        raise EventTableError(f"{reference.name} marks nothing, so that there is no PSDS. Leave out --scores.")
    try:
        from sed_scores_eval.intersection_based import psds as computed
    except ImportError as error:
        raise ImportError(
            f"PSDS needs the package sed_scores_eval, which cannot be imported ({error}). Type {install_command('psds')}."
        ) from error
    scenarios = PSDS_SCENARIOS
    if len(labels) == 1:
        # No other label that it could be taken for: sed_scores_eval 0.0.4 ends with a TypeError if it is to look for one.
        scenarios = {name: each | {"cttc_threshold": None, "alpha_ct": 0.0} for name, each in PSDS_SCENARIOS.items()}
    given = {
        "scores": {file: _frame_of(scores[file], labels) for file in reference.events},
        "ground_truth": {file: [*map(tuple, joined(events))] for file, events in reference.events.items()},
        "audio_durations": {file: durations[file] for file in reference.events},
        "max_efpr": MOST_FALSE_POSITIVES,
    }
    found = {name: computed(**given, **each)[:2] for name, each in scenarios.items()}
    per_label = {label: {name: float(of_label[label]) for name, (_, of_label) in found.items()} for label in labels}
    return {name: float(value) for name, (value, _) in found.items()} | {"per_label": per_label}


def _frame_of(table: ScoreTable, labels: list[str]) -> pd.DataFrame:
    """The scores of a recording as sed_scores_eval takes them.

    sed_scores_eval 0.0.4 ends with an IndexError at a label that has no score anywhere. A label without any in the recording has one
    in a moment behind its end: below all others and in no marked stretch, it adds false alarms at a threshold that finds no more.
    """
    places = {label: place for place, label in enumerate(table.labels)}
    nothing = np.full(len(table.scores), -np.inf)
    columns = [table.scores[:, places[label]] if label in places else nothing for label in labels]
    times = [*table.times, table.times[-1] + AFTER_END]
    lowest = [LOWEST if not np.isfinite(column).any() else -np.inf for column in columns]
    scores = np.concatenate([np.stack(columns, axis=1), [lowest]])
    return _WritableScores(np.column_stack([times[:-1], times[1:], scores]), columns=["onset", "offset", *labels])


def joined(events: list[Event]) -> list[Event]:
    """Join stretches of a label that overlap or touch.

    Args:
        events (`list[Event]`): of a recording.

    Returns:
        `list[Event]`: sorted by label and start.
    """
    found: list[Event] = []
    for event in sorted(events, key=lambda event: (event.label, event.start)):
        if found and found[-1].label == event.label and event.start <= found[-1].end:
            found[-1] = found[-1]._replace(end=max(found[-1].end, event.end))
        else:
            found.append(event)
    return found

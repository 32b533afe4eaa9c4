"""The rules of events: two thresholds, gaps that are closed, and a minimum length, of a model and of what a user gives.

The two thresholds are a Schmitt trigger over the scores in the order of time, as voice activity detection uses one; gaps
are closed before short events are dropped, as `Binarize` of pyannote.audio does. [`label_stretches`] applies the rules.

Source: Gelly and Gauvain 2015, "Minimum word error training of RNN-based voice activity detection", section 2.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..checkpoints.fields import EVENT_SCORES
from ..scores import label_thresholds, problem_type_of
from .errors import TaggingError
from .segments import REACH, Stretch, hop_places, label_stretches, of_label, stretches_of_means

FAINT = 0.5  # of the scores with which events begin and end, for those that do not count but may be some


@dataclass(frozen=True)
class EventRules:
    """What makes an event of scores.

    Args:
        on (`float` or `np.ndarray` of shape `(labels,)`): score with which an event of a label begins.
        off (`float` or `np.ndarray` of shape `(labels,)`, *optional*): score down to which it goes on, besides
            where it could begin; nowhere else if not given.
        exclusive (`bool`, defaults to `False`): whether labels exclude each other: an event begins only where its label is
            the best, and goes on there whatever the score.
        min_samples (`float` or `np.ndarray` of shape `(labels,)`, defaults to 0): events that are shorter are dropped.
        gap_samples (`float` or `np.ndarray` of shape `(labels,)`, *optional*): events of a label with no more than that between
            them are one; none are joined if not given, or of a label with `-inf`.
    """

    on: float | np.ndarray
    off: float | np.ndarray | None = None
    exclusive: bool = False
    min_samples: float | np.ndarray = 0
    gap_samples: float | np.ndarray | None = None

    def find_active(self, scores: np.ndarray) -> np.ndarray:
        """Tell where events may begin.

        Args:
            scores (`np.ndarray` of shape `(places, labels)`): in the order of time.

        Returns:
            `np.ndarray` of the same shape and type bool.
        """
        active = scores >= self.on
        if self.exclusive:
            active &= np.arange(scores.shape[1]) == scores.argmax(axis=1, keepdims=True)
        return active

    def find_held(self, scores: np.ndarray) -> np.ndarray:
        """Tell where events that have begun go on.

        Args:
            scores (`np.ndarray` of shape `(places, labels)`): in the order of time.

        Returns:
            `np.ndarray` of the same shape and type bool: true wherever [`EventRules.find_active`] is, among others.
        """
        active = self.find_active(scores)
        return active if self.off is None else active | (scores >= self.off)

    def without_use_of_off(self) -> np.ndarray:
        """Tell for which labels `off` changes nothing, as it is above the score with which their events begin.

        Returns:
            Boolean `np.ndarray` of shape `(labels,)`, or `()` where one `on` holds for all; none without an `off`.
        """
        if self.off is None:
            return np.zeros(np.shape(self.on), bool)
        above = np.greater(self.off, self.on) & np.isfinite(self.off)
        # Of exclusive labels it also holds an event where another is the best; beyond a half none is.
        return above & np.greater(self.off, 0.5) if self.exclusive else above

    def of_label(self, label: int) -> "EventRules":
        """Take the rules of a label, for its scores alone.

        Args:
            label (`int`): index of the label.

        Returns:
            [`EventRules`]: with one number for each rule.
        """
        names = ("on", "off", "min_samples", "gap_samples")
        return replace(self, **{name: of_label(getattr(self, name), label) for name in names})

    def fainter(self) -> "EventRules | None":
        """Lower the scores, so that what just does not count is found as well.

        Returns:
            [`EventRules`]: with `FAINT` of each score; `None` if any score makes an event already.
        """
        if not np.any(self.on):
            return None
        return replace(self, on=FAINT * self.on, off=None if self.off is None else FAINT * self.off)


def event_rules(
    config,
    sampling_rate: int,
    on: float | None = None,
    off: float | None = None,
    min_duration: float | None = None,
    close_gaps: float | None = None,
    chosen: bool = True,
) -> EventRules:
    """Make the rules of a model's events, in samples, out of what a user gives in seconds.

    Args:
        config ([`ASTConfig`]): the model's, for its thresholds, and for whether its labels exclude each other.
        sampling_rate (`int`): of the model's input in Hz.
        on (`float`, *optional*): score with which an event begins. By default what the checkpoint's `event_rules` have for each
            label; for others, if the model is multi-label, its threshold in the checkpoint, or 0.5; 0 otherwise, where only the
            best label begins one.
        off (`float`, *optional*): score down to which an event goes on, besides where it could begin. By default what the
            checkpoint has, if `on` is not given either; nowhere else otherwise.
        min_duration (`float`, *optional*): seconds that an event lasts at least; what the checkpoint has if not given.
        close_gaps (`float`, *optional*): seconds of a gap between events of a label that is closed, at most; what the checkpoint
            has if not given.
        chosen (`bool`, defaults to `True`): whether what the checkpoint's `event_rules` have counts, as it does for events; for a
            share of time its thresholds do.

    Returns:
        [`EventRules`].

    Raises:
        TaggingError: for scores that are not between 0 and 1, an `off` above `on`, and seconds that are not above 0.
    """
    for name, flag, score in (("threshold", "--threshold (or --on)", on), ("off", "--off", off)):
        if score is not None and not 0 <= score <= 1:
            raise TaggingError(f"{name}={score} is not a score. Pass {flag} between 0 and 1.")
    for name, seconds in (("min_duration", min_duration), ("close_gaps", close_gaps)):
        if seconds is not None and not (math.isfinite(seconds) and seconds > 0):
            raise TaggingError(f"{name}={seconds} is no time. Pass --{name} in seconds, above 0, or leave it out.")
    if on is not None and off is not None and off > on:
        raise TaggingError(
            f"off={off} is above the score {on} with which events begin, so that none could go on. Pass an --off below --on."
        )
    problem_type = problem_type_of(config)

    def of_checkpoint(name: str) -> np.ndarray:
        return chosen_for_labels(config, name) if chosen else np.full(config.num_labels, np.nan)

    if on is None:
        on = label_thresholds(config) if problem_type == "multi_label_classification" else np.zeros(config.num_labels)
        chosen_on, chosen_off = map(of_checkpoint, EVENT_SCORES)
        on = np.where(np.isnan(chosen_on), on, chosen_on)
        if off is None and not np.isnan(chosen_off).all():
            off = np.where(np.isnan(chosen_off), np.inf, chosen_off)  # which no score reaches
    shortest, gap = of_checkpoint("min_duration"), of_checkpoint("close_gaps")
    shortest = np.nan_to_num(shortest) if min_duration is None else np.float64(min_duration)
    gap = np.where(np.isnan(gap), -np.inf, gap) if close_gaps is None else np.float64(close_gaps)
    return EventRules(
        on,
        off,
        problem_type == "single_label_classification",
        np.round(shortest * sampling_rate),
        None if np.isneginf(gap).all() else np.round(gap * sampling_rate),
    )


def chosen_for_labels(config, name: str) -> np.ndarray:
    """Read what was chosen for the events of each label.

    Args:
        config ([`ASTConfig`]): of this project or of stock Transformers, which has no field for it.
        name (`str`): of the rule.

    Returns:
        `np.ndarray` of shape `(labels,)`, float64, in the order of the labels: NaN for those of which it says nothing.
    """
    chosen = getattr(config, "event_rules", None) or {}
    labels = (config.id2label[index] for index in range(config.num_labels))
    return np.array([chosen.get(label, {}).get(name, np.nan) for label in labels], np.float64)


def events_of_runs(
    runs: Sequence[tuple[Sequence[int], np.ndarray]],
    window_samples: int,
    num_samples: int,
    rules: EventRules,
    reading: str,
    silent: tuple[np.ndarray, np.ndarray] | None = None,
) -> list[Stretch]:
    """Find the events of a recording of which not all windows have scores, as silent ones have none.

    Args:
        runs (sequence): of each run of neighbouring windows with scores their first samples, ascending, and the scores, of
            shape `(windows, labels)`.
        window_samples (`int`): length of a window.
        num_samples (`int`): length of the recording.
        rules ([`EventRules`]): what makes an event.
        reading (`str`): see [`label_stretches`].
        silent (`tuple` of two `np.ndarray`, *optional*): where silent windows begin and end, see [`parts_with_sound`]. With the
            reading `"hop"` no event is there.

    Returns:
        `list[Stretch]`. Around a silent window there are two events, as with `"window"` around any window without the label. An
        event over a gap that is closed has the mean of what has scores.
    """
    if reading == "hop":
        return events_of_means(hop_places(runs, window_samples, num_samples, silent), REACH * window_samples, rules)
    whole = len(runs) == 1
    limits = (rules.min_samples, rules.gap_samples) if whole else (0, None)
    found = [
        stretch
        for starts, scores in runs
        for stretch in label_stretches(
            scores, starts, window_samples, num_samples, rules.find_active, reading, rules.find_held, *limits
        )
    ]
    if whole or rules.gap_samples is None:
        return [each for each in found if each.end - each.start >= of_label(rules.min_samples, each.label)]
    return joined_events(found, rules, apart=True)


def events_of_means(
    places: Sequence[tuple[np.ndarray, np.ndarray]],
    reach: float | None,
    rules: EventRules,
    label: int | None = None,
    averaged: bool = True,
) -> list[Stretch]:
    """Find the events of a recording by its scores along the time line, of which not all parts have some.

    Args:
        places (sequence): of each run of places with scores their edges in samples, and the scores, of shape
            `(places, labels)`.
        reach (`float`, *optional*): see [`stretches_of_means`].
        rules ([`EventRules`]): what makes an event.
        label (`int`, *optional*): see [`stretches_of_means`].
        averaged (`bool`, defaults to `True`): see [`stretches_of_means`].

    Returns:
        `list[Stretch]`: see [`events_of_runs`].
    """
    whole = len(places) == 1
    limits = (rules.min_samples, rules.gap_samples) if whole else (0, None)
    found = [
        stretch
        for edges, means in places
        for stretch in stretches_of_means(
            edges, means, reach, rules.find_active, rules.find_held, *limits, label=label, averaged=averaged
        )
    ]
    return found if whole else joined_events(found, rules)


def joined_events(found: Sequence[Stretch], rules: EventRules, apart: bool = False) -> list[Stretch]:
    """Make events of what was found in several runs of a recording, between which there are no scores.

    Args:
        found (sequence of [`Stretch`]): of all runs, with their gaps not closed and short ones kept.
        rules ([`EventRules`]): what makes an event.
        apart (`bool`, defaults to `False`): whether those of a label without a gap to close stay two where they overlap.

    Returns:
        `list[Stretch]`: see [`events_of_runs`].
    """
    events: list[Stretch] = []
    scored = 0  # samples of the last event that have scores
    for stretch in sorted(found, key=lambda stretch: (stretch.label, stretch.start)):
        last, length = events[-1] if events else None, stretch.end - stretch.start
        gap = of_label(rules.gap_samples, stretch.label)
        if gap is None or gap < 0:  # nothing is closed
            gap = -np.inf if apart else 0
        if last and last.label == stretch.label and stretch.start - last.end <= gap:
            score = (last.score * scored + stretch.score * length) / (scored + length)
            events[-1], scored = Stretch(last.start, stretch.end, stretch.label, score), scored + length
        else:
            events.append(stretch)
            scored = length
    return [event for event in events if event.end - event.start >= of_label(rules.min_samples, event.label)]

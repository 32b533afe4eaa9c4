"""The rules of a model's events, chosen for each label on the recordings of a validation split.

Chosen is what finds the marked stretches best: by the F1 of events whose start and end may be off by a tolerance, which
[`finetune.scores.event_scores`] tells of the held-out recordings afterwards, counted here by a matching of its own.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching

from modeling_ast.tagging.events import EventRules
from modeling_ast.tagging.frames import median_width
from modeling_ast.tagging.score_tracks import ScoreTrack

from .event_scores import EventRule
from .event_tables import Event

ON_SCORES = (0.02, 0.05, *np.round(np.arange(0.1, 0.95, 0.05), 2).tolist(), 0.95, 0.98)
OFF_SHARES = (0.75, 0.5, 0.25)  # of the score with which an event begins
MEDIANS = (0.3, 0.5, 0.9)  # seconds over which scores of a frame head are smoothed
GAPS = (0.1, 0.25, 0.5, 1.0)  # seconds
LENGTH_SHARES = (0.25, 0.5, 0.8)  # of the shortest stretch but for a tenth of them
ROUNDED = 3  # decimals of seconds and scores, as they are kept


def choose_event_rules(
    tracks: Sequence[ScoreTrack],
    marked: Sequence[Sequence[Event]],
    labels: Sequence[str],
    thresholds: Mapping[str, float],
    rule: EventRule,
    exclusive: bool = False,
) -> dict[str, dict[str, float]]:
    """For each label the rules whose events match the marked stretches best.

    Looked for is one after the other, each with those before it: the score with which an event begins together with the median
    filter, the score down to which it goes on, the gap that is closed, the shortest length. A rule more is taken only if the F1 is
    higher with it; of equally good scores the one in their middle, as the most certain.

    Args:
        tracks (sequence of [`ScoreTrack`]): scores of the validation recordings along time.
        marked (sequence): for each recording its stretches.
        labels (sequence of `str`): names in the order of the scores.
        thresholds (`Mapping[str, float]`): scores that are looked at besides.
        rule ([`EventRule`]): its tolerances.
        exclusive (`bool`, defaults to `False`): see [`EventRules`].

    Returns:
        `dict[str, dict[str, float]]`: as `ASTConfig.event_rules` takes them; without labels that no stretch has.
    """
    chosen = {}
    for place, label in enumerate(labels):
        of_label = [[event for event in events if event.label == label] for events in marked]
        if any(of_label):
            chosen[label] = _best_rules(tracks, of_label, place, thresholds.get(label, 0.5), rule, exclusive)
    return chosen


def _best_rules(
    tracks: Sequence[ScoreTrack],
    marked: list[list[Event]],
    label: int,
    threshold: float,
    rule: EventRule,
    exclusive: bool,
) -> dict[str, float]:
    number = sum(map(len, marked))

    def f1(rules: Mapping[str, float]) -> float:
        hits = found = 0
        for track, events in zip(tracks, marked, strict=True):
            stretches = track.events(*_settings(rules, track, exclusive), label)
            times = [(one.start / track.sampling_rate, one.end / track.sampling_rate) for one in stretches]
            found += len(times)
            hits += num_hits([(event.start, event.end) for event in events], times, rule)
        return 2 * hits / (number + found)

    def best(among: Iterator[dict[str, float]]) -> tuple[float, dict[str, float]]:
        return max(((f1(rules), rules) for rules in among), key=lambda pair: pair[0])

    score, rules = -1.0, {}
    for median in [
        {},
        *({"median_filter": seconds} for seconds in (MEDIANS if tracks[0].columns is not None else ())),
    ]:
        of_ons = {on: f1({"on": on, **median}) for on in sorted({*ON_SCORES, round(threshold, ROUNDED)})}
        highest = max(of_ons.values())
        as_good = [on for on, of_on in of_ons.items() if of_on == highest]
        if highest > score:
            score, rules = highest, {"on": as_good[len(as_good) // 2], **median}
    lengths = sorted(event.end - event.start for events in marked for event in events)
    shortest = lengths[len(lengths) // 10]
    for name, values in (
        ("off", [share * rules["on"] for share in OFF_SHARES]),
        ("close_gaps", GAPS),
        ("min_duration", [share * shortest for share in LENGTH_SHARES]),
    ):
        values = [round(value, ROUNDED) for value in values if round(value, ROUNDED) > 0]
        if values:
            more, with_it = best(rules | {name: value} for value in values)
            score, rules = (more, with_it) if more > score else (score, rules)
    return rules


def _settings(rules: Mapping[str, float], track: ScoreTrack, exclusive: bool) -> tuple[EventRules, int]:
    """The rules in samples, and the columns of the median filter."""
    rate, gap = track.sampling_rate, rules.get("close_gaps")
    gap_samples = None if gap is None else round(gap * rate)
    shortest = round(rules.get("min_duration", 0) * rate)
    width = median_width(rules["median_filter"], track.columns)[0] if "median_filter" in rules else 1
    return EventRules(rules["on"], rules.get("off"), exclusive, shortest, gap_samples), width


def num_hits(marked: Sequence[tuple[float, float]], found: Sequence[tuple[float, float]], rule: EventRule) -> int:
    """Match events of a label in a recording, each with one at most, so that as many as can be are.

    Args:
        marked (sequence of `(float, float)`): start and end in seconds of each stretch that is marked.
        found (sequence of `(float, float)`): of each that was found.
        rule ([`EventRule`]): its collar, and the share of the marked length by which the end may be off.

    Returns:
        `int`: pairs.
    """
    if not len(marked) or not len(found):
        return 0
    marked, found = np.asarray(marked, float), np.asarray(found, float)
    off = np.abs(marked[:, None] - found[None])
    ends = np.maximum(rule.collar, rule.length_share * np.diff(marked, axis=1))
    fits = (off[..., 0] <= rule.collar) & (off[..., 1] <= ends)
    return int((maximum_bipartite_matching(csr_array(fits)) >= 0).sum())

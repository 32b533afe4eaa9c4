"""The rules of a model's events, chosen for each label on the recordings of a validation split.

Chosen is what finds the marked stretches best: by the F1 of events whose start and end may be off by a tolerance, which
[`finetune.scores.event_scores`] tells of the held-out recordings afterwards, counted here by a matching of its own.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching
from tqdm import tqdm

from modeling_ast.tagging.events import EventRules
from modeling_ast.tagging.frames import median_width, smoothed
from modeling_ast.tagging.score_tracks import ScoreTrack

from .event_scores import EventRule
from .event_tables import Event

ON_SCORES = (0.02, 0.05, *np.round(np.arange(0.1, 0.95, 0.05), 2).tolist(), 0.95, 0.98)
OFF_SHARES = (0.75, 0.5, 0.25)  # of the score with which an event begins
MEDIANS = (0.3, 0.5, 0.9)  # seconds over which scores of a frame head are smoothed
GAPS = (0.1, 0.25, 0.5, 1.0)  # seconds
LENGTH_SHARES = (0.25, 0.5, 0.8)  # of the shortest stretch but for a tenth of them
TINY = 1e-6  # seconds
# Of progress bars: on a terminal, if it takes longer than a few seconds.
SHOWN = {"delay": 3.0, "disable": None, "leave": False}
ROUNDED = 3  # decimals of seconds and scores, as they are kept


def choose_event_rules(
    tracks: Sequence[ScoreTrack],
    marked: Sequence[Sequence[Event]],
    labels: Sequence[str],
    thresholds: Mapping[str, float],
    rule: EventRule,
    exclusive: bool = False,
    unknown: Sequence[Sequence[tuple[float, float]]] | None = None,
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
        unknown (sequence, *optional*): for each recording start and end of stretches of which it is not known what is right; what is
            found there does not count.

    Returns:
        `dict[str, dict[str, float]]`: as `ASTConfig.event_rules` takes them; without labels that no stretch has.
    """
    chosen = {}
    for place, label in enumerate(tqdm(labels, "choosing what makes an event", unit="label", **SHOWN)):
        of_label = [[event for event in events if event.label == label] for events in marked]
        if any(of_label):
            chosen[label] = _best_rules(
                tracks, of_label, place, thresholds.get(label, 0.5), rule, exclusive, unknown or [[]] * len(tracks)
            )
    return chosen


def _best_rules(
    tracks: Sequence[ScoreTrack],
    marked: list[list[Event]],
    label: int,
    threshold: float,
    rule: EventRule,
    exclusive: bool,
    unknown: Sequence[Sequence[tuple[float, float]]],
) -> dict[str, float]:
    number, smooth = sum(map(len, marked)), {}

    def smoothed_tracks(median: float | None) -> list[ScoreTrack]:
        if median not in smooth:
            smooth[median] = [_smoothed(track, median, None if exclusive else label) for track in tracks]
        return smooth[median]

    def f1(rules: Mapping[str, float]) -> float:
        hits = found = 0
        of_tracks = smoothed_tracks(rules.get("median_filter"))
        for track, events, ignored in zip(of_tracks, marked, unknown, strict=True):
            settings, only = _settings(rules, track, exclusive), label if exclusive else None
            stretches = track.events(settings, label=only, averaged=False)  # whose scores nobody asks for
            times = [(one.start / track.sampling_rate, one.end / track.sampling_rate) for one in stretches]
            times = [(start, end) for start, end in times if not touches(start, end, ignored)]
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


def touches(start: float, end: float, stretches: Sequence[tuple[float, float]]) -> bool:
    """Tell whether a stretch has time in common with others.

    Args:
        start (`float`): of the stretch, in seconds.
        end (`float`): likewise.
        stretches (sequence of `(float, float)`): the others.

    Returns:
        Whether it has with one of them.
    """
    return any(start < other_end and end > other_start for other_start, other_end in stretches)


def _smoothed(track: ScoreTrack, median: float | None, label: int | None) -> ScoreTrack:
    """Scores, of one label alone if it has nothing to do with the others, after the median filter."""
    places = track.places
    if label is not None:
        places = [(edges, means[:, label : label + 1]) for edges, means in places]
    width = 1 if median is None else median_width(median, track.columns.seconds)[0]
    return replace(track, places=smoothed(places, width))


def _settings(rules: Mapping[str, float], track: ScoreTrack, exclusive: bool) -> EventRules:
    """The rules in samples."""
    rate, gap = track.sampling_rate, rules.get("close_gaps")
    gap_samples = None if gap is None else round(gap * rate)
    shortest = round(rules.get("min_duration", 0) * rate)
    return EventRules(rules["on"], rules.get("off"), exclusive, shortest, gap_samples)


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
    found = found[np.argsort(found[:, 0], kind="stable")]
    # Only those that begin near it are compared with a marked one: of a day's recording there are many thousands of both.
    first = np.searchsorted(found[:, 0], marked[:, 0] - rule.collar - TINY)
    after = np.searchsorted(found[:, 0], marked[:, 0] + rule.collar + TINY, side="right")
    rows = np.repeat(np.arange(len(marked)), after - first)
    columns = np.concatenate([np.arange(*near) for near in zip(first, after, strict=True)])
    ends = np.maximum(rule.collar, rule.length_share * np.diff(marked, axis=1)[:, 0])
    fits = np.abs(marked[rows] - found[columns]) <= np.stack([np.full(len(rows), rule.collar), ends[rows]], axis=1)
    rows, columns = (places[fits.all(axis=1)] for places in (rows, columns))
    graph = csr_array((np.ones(len(rows), bool), (rows, columns)), shape=(len(marked), len(found)))
    return int((maximum_bipartite_matching(graph) >= 0).sum())

"""The rules of events that are chosen on validation recordings: hits counted as sed_eval counts them, rules that find planted events."""

import dataclasses

import numpy as np
import pytest
from sed_eval.sound_event import EventBasedMetrics

from finetune.results.event_evaluation import score_table
from finetune.scores.event_rules import choose_event_rules, num_hits
from finetune.scores.event_scores import EventRule
from finetune.scores.event_tables import Event
from modeling_ast.frame_columns import FrameColumns
from modeling_ast.tagging.events import EventRules
from modeling_ast.tagging.score_tracks import ScoreTrack

RATE, STEP = 16_000, 0.1


def track_of(scores: np.ndarray, frames: bool = True) -> ScoreTrack:
    """Scores `(places, labels)` of a tenth of a second each."""
    edges = np.round(np.arange(len(scores) + 1) * STEP * RATE).astype(np.int64)
    places = [(edges, scores.astype(np.float32))]
    return ScoreTrack("a.wav", int(edges[-1]), RATE, places, None, FrameColumns() if frames else None)


@pytest.mark.parametrize("seed", range(8))
def test_hits_are_those_of_sed_eval(seed):
    generator = np.random.default_rng(seed)

    def events(number: int) -> list[tuple[float, float]]:
        starts = np.sort(generator.uniform(0, 6, number))
        return [
            (float(start), float(start + length))
            for start, length in zip(starts, generator.uniform(0.1, 2.5, number), strict=True)
        ]

    marked, found = events(12), events(25)
    rule = EventRule(collar=0.3, length_share=0.3)
    metrics = EventBasedMetrics(event_label_list=["x"], t_collar=rule.collar, percentage_of_length=rule.length_share)
    lists = [
        [{"file": "a", "onset": start, "offset": end, "event_label": "x"} for start, end in one]
        for one in (marked, found)
    ]
    from dcase_util.containers import MetaDataContainer

    metrics.evaluate(*map(MetaDataContainer, lists))
    assert num_hits(marked, found, rule) == metrics.class_wise["x"]["Ntp"] > 0


def test_what_is_found_where_nobody_knows_what_is_right_does_not_count():
    scores = np.full((100, 1), 0.01)
    scores[10:20], scores[60:70] = 0.6, 0.95
    for start in range(30, 50, 4):  # which without that would have the faint one given up
        scores[start : start + 2] = 0.8
    marked = [[Event(1.0, 2.0, "a"), Event(6.0, 7.0, "a")]]
    chosen = choose_event_rules([track_of(scores)], marked, ["a"], {}, EventRule(), unknown=[[(2.9, 5.2)]])
    assert chosen["a"]["on"] < 0.6
    (stretch,) = track_of(scores).events(EventRules(np.array([0.7]), min_samples=np.array([0.5 * RATE])), label=0)
    assert stretch.start == 6 * RATE


def test_of_a_silent_recording_there_is_a_table_of_nothing():
    silent = ScoreTrack("a.wav", 5 * RATE, RATE, [], None, None)
    table = score_table(silent, ["a", "b"])
    assert table.times.tolist() == [0.0, 5.0]
    assert np.isneginf(table.scores).all()
    assert silent.events(EventRules(0.5)) == []


def test_each_rule_is_found_that_is_needed_and_no_other():
    """Of five labels: a plain one, a faint one, one that breaks off, one with clicks, one whose scores flicker."""
    generator = np.random.default_rng(0)
    tracks, marked = [], []
    for _ in range(3):
        scores, events = np.full((600, 5), 0.01), []
        for label in range(5):
            for start in range(10 + 3 * label, 580, 30):
                length = int(generator.integers(10, 14))
                of_event = np.full(length, 0.92 if label != 1 else 0.12)
                if label == 2:
                    of_event[5:7] = 0.01  # a gap of 0.2 s
                if label == 4:
                    of_event[2::5] = 0.01
                scores[start : start + length, label] = of_event
                if label == 3:
                    scores[start + 18, 3] = 0.97  # a click of 0.1 s
                events.append(Event(start * STEP, (start + length) * STEP, "abcde"[label]))
        tracks.append(track_of(scores))
        marked.append(sorted(events))
    chosen = choose_event_rules(tracks, marked, list("abcdef"), {}, EventRule())
    assert list(chosen) == list("abcde")
    assert set(chosen["a"]) == {"on"}
    assert 0.4 <= chosen["a"]["on"] <= 0.6, "in the middle of what is as good"
    assert chosen["b"] == {"on": 0.05}, "of 0.02, 0.05 and 0.1"
    assert set(chosen["c"]) in ({"on", "close_gaps"}, {"on", "median_filter"})
    assert set(chosen["d"]) in ({"on", "min_duration"}, {"on", "median_filter"})
    assert chosen["e"].get("close_gaps", 0.1) >= 0.1
    assert {"close_gaps", "median_filter"} & set(chosen["e"])
    without = choose_event_rules(
        [track_of(track.places[0][1], frames=False) for track in tracks], marked, list("abcdef"), {}, EventRule()
    )
    assert not any("median_filter" in rules for rules in without.values())
    assert without["d"]["min_duration"] > 0.1
    assert without["c"]["close_gaps"] >= 0.2


@pytest.mark.parametrize("exclusive", [False, True])
@pytest.mark.parametrize("reach", [None, 4_000.0])
def test_events_of_one_label_without_their_scores_are_the_same_events(reach, exclusive):
    generator = np.random.default_rng(0)
    scores = np.clip(np.cumsum(generator.normal(0, 0.2, (400, 3)), axis=0) % 2 - 0.5, 0, 1)
    track = dataclasses.replace(track_of(scores), reach=reach)
    track = dataclasses.replace(track, places=[track.places[0], (track.places[0][0] + 800_000, scores[::-1])])
    rules = EventRules(np.full(3, 0.6), np.full(3, 0.3), exclusive, np.full(3, 2_000.0), np.full(3, 3_000.0))
    of_all = track.events(rules)
    for label in range(3):
        expected = [(one.start, one.end) for one in of_all if one.label == label]
        found = track.events(rules, label=label, averaged=False)
        assert [(one.start, one.end) for one in found] == expected != []
        assert {one.label for one in found} == {label}
        assert all(np.isnan(one.score) for one in found)


def test_rules_are_chosen_without_averages_and_what_takes_long_is_shown(monkeypatch, capsys):
    def refuse(*_, **__):
        raise AssertionError("an average that nobody asked for")

    monkeypatch.setattr(np, "average", refuse)
    monkeypatch.setattr("finetune.scores.event_rules.SHOWN", {"disable": False})
    scores = np.full((100, 1), 0.01)
    scores[10:20] = 0.8
    chosen = choose_event_rules([track_of(scores)], [[Event(1.0, 2.0, "a")]], ["a"], {}, EventRule())
    assert 0.1 < chosen["a"]["on"] < 0.8
    assert "choosing what makes an event: 100%" in capsys.readouterr().err

"""Events by two thresholds, closed gaps and a minimum length, against loops that walk through a recording."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from modeling_ast import run_tagging
from modeling_ast.tagging.events import event_rules, events_of_runs
from modeling_ast.tagging.segments import DROP, REACH, label_stretches, window_starts
from modeling_ast.tagging.tagger import AudioTagger, TaggingError

RATE, WINDOW = 10, 10  # samples a second, and of a window
LABELS = ("a", "b", "c")


def config(problem_type="multi_label_classification", **thresholds):
    return SimpleNamespace(
        problem_type=problem_type, num_labels=3, id2label=dict(enumerate(LABELS)), label_thresholds=thresholds
    )


def find(scores, starts, samples, reading="hop", **options):
    rules = event_rules(options.pop("config", config()), RATE, **options)
    found = label_stretches(
        np.asarray(scores, np.float32),
        starts,
        WINDOW,
        samples,
        rules.find_active,
        reading,
        rules.find_held,
        rules.min_samples,
        rules.gap_samples,
    )
    return [(stretch.label, stretch.start, stretch.end, round(stretch.score, 5)) for stretch in found]


def walk(may_begin, goes_on):
    """Pairs of the first place of an event and the one after its last: it begins at the one sign and lasts as the other."""
    events, begun = [], None
    for place, (begins, lasts) in enumerate([*zip(may_begin, goes_on, strict=True), (False, False)]):
        if begun is None and begins:
            begun = place
        elif begun is not None and not lasts:
            events.append((begun, place))
            begun = None
    return events


def by_hand(scores, starts, samples, reading, on, off, close_gaps, min_duration, exclusive):
    """The definition, in a loop over windows or over samples."""
    off = on if off is None and not exclusive else off
    if reading == "hop":
        over = [[n for n, start in enumerate(starts) if start <= s < start + WINDOW] for s in range(samples)]
        places = [np.mean([scores[n] for n in windows], axis=0) for windows in over]
        times = [(s, s + 1) for s in range(samples)]
    else:
        places, times = scores, [(start, min(start + WINDOW, samples)) for start in starts]
    edges = sorted({*starts, *(min(start + WINDOW, samples) for start in starts)})
    found = []
    for label in range(len(LABELS)):
        best = [not exclusive or max(place) == place[label] for place in places]
        may_begin = [place[label] >= on and is_best for place, is_best in zip(places, best, strict=True)]
        goes_on = [m or (off is not None and place[label] >= off) for m, place in zip(may_begin, places, strict=True)]
        events = walk(may_begin, goes_on)
        if reading == "hop":
            drawn = []
            for first, after in events:
                near = [s for s in range(first, after) if max(e for e in edges if e <= s) < first + REACH * WINDOW]
                start = next(s for s in near if places[s][label] >= DROP * max(places[n][label] for n in near))
                near = [s for s in range(first, after) if min(e for e in edges if e > s) > after - REACH * WINDOW]
                end = [s for s in near if places[s][label] >= DROP * max(places[n][label] for n in near)][-1]
                drawn.append((start, end + 1))
            events = drawn
        joined = []
        for first, after in events:
            gap = times[first][0] - times[joined[-1][1] - 1][1] if joined else None
            if joined and close_gaps is not None and gap <= close_gaps * RATE:
                joined[-1] = (joined[-1][0], after)
            else:
                joined.append((first, after))
        for first, after in joined:
            start, end = times[first][0], times[after - 1][1]
            if min_duration is None or end - start >= min_duration * RATE:
                score = np.mean([places[place][label] for place in range(first, after)])
                found.append((label, start, end, round(float(score), 5)))
    return found


@pytest.mark.parametrize("reading", ["hop", "window"])
@pytest.mark.parametrize("problem_type", ["multi_label_classification", "single_label_classification"])
def test_events_are_those_of_a_loop(reading, problem_type):
    counts = {}
    for seed in range(40):
        random = np.random.default_rng(seed)
        samples = int(random.integers(WINDOW // 2, 25 * WINDOW))
        starts = window_starts(samples, WINDOW, int(random.choice([2, 3, 5, 10])))
        steps = random.normal(size=(len(starts), 3)).cumsum(axis=0)
        scores = (1 / (1 + np.exp(-steps))).astype(np.float32)
        if problem_type.startswith("single"):
            scores /= scores.sum(axis=1, keepdims=True)
        on = float(random.choice([0.2, 0.4, 0.7]))
        off = [None, 0.1, on * 0.6, on][random.integers(4)]
        close_gaps = [None, 0.1, 0.5, 2.0][random.integers(4)]
        min_duration = [None, 0.3, 1.2, 3.0][random.integers(4)]
        found = find(
            scores, starts, samples, reading, config=config(problem_type), on=on, off=off, close_gaps=close_gaps,
            min_duration=min_duration,
        )  # fmt: skip
        exclusive = problem_type.startswith("single")
        expected = by_hand(
            scores.astype(np.float64), starts, samples, reading, on, off, close_gaps, min_duration, exclusive
        )
        assert [event[:3] for event in found] == [event[:3] for event in expected], seed
        np.testing.assert_allclose([event[3] for event in found], [event[3] for event in expected], atol=2e-5)
        plain = find(scores, starts, samples, reading, config=config(problem_type), on=on)
        for name, option in (("off", off), ("gaps", close_gaps), ("length", min_duration)):
            counts[name] = counts.get(name, 0) + (option is not None and plain != found)
    assert min(counts.values()) > 5, "each of the options changed something"


SIDE_BY_SIDE = [10 * number for number in range(8)]


def along(*scores):
    return [[score, 0, 0] for score in scores]


def test_an_event_begins_at_on_and_lasts_down_to_off():
    scores = along(0.3, 0.6, 0.3, 0.5, 0.2, 0.3, 0.6, 0.1)
    assert [event[1:3] for event in find(scores, SIDE_BY_SIDE, 80, "window", on=0.6)] == [(10, 20), (60, 70)]
    assert [event[1:3] for event in find(scores, SIDE_BY_SIDE, 80, "window", on=0.6, off=0.3)] == [(10, 40), (60, 70)]


def test_gaps_are_closed_before_short_events_are_left_out():
    scores = along(0.9, 0.9, 0.1, 0.9, 0.1, 0.1, 0.9, 0.1)

    def places(**options):
        return [event[1:3] for event in find(scores, SIDE_BY_SIDE, 80, "window", on=0.5, **options)]

    assert places() == [(0, 20), (30, 40), (60, 70)]
    assert places(close_gaps=0.9) == places()
    assert places(close_gaps=1.0) == [(0, 40), (60, 70)]
    assert places(min_duration=2.0) == [(0, 20)]
    assert places(close_gaps=1.0, min_duration=2.1) == [(0, 40)]
    assert places(close_gaps=2.0, min_duration=7.1) == []


def test_labels_with_lower_thresholds_of_their_own_keep_them():
    scores = [[0.35, 0.35, 0.35], [0.55, 0.55, 0.55], [0.45, 0.45, 0.45], [0.35, 0.35, 0.35], [0.1, 0.1, 0.1]]
    found = find(scores, SIDE_BY_SIDE[:5], 50, "window", config=config(a=0.3), off=0.4)
    assert [event[:3] for event in found] == [(0, 0, 40), (1, 10, 30), (2, 10, 30)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"off": 1.5}, "off=1.5 is not a score. Pass --off between 0 and 1"),
        ({"threshold": 1.5}, r"threshold=1.5 is not a score. Pass --threshold \(or --on\) between 0 and 1"),
        ({"threshold": 0.4, "off": 0.5}, "off=0.5 is above the score 0.4 with which events begin"),
        ({"close_gaps": 0.0}, "close_gaps=0.0 is no time. Pass --close_gaps in seconds, above 0"),
        ({"min_duration": float("nan")}, "min_duration=nan is no time"),
        ({"min_duration": float("inf")}, "min_duration=inf is no time"),
    ],
)
def test_what_cannot_be_meant_is_refused(multi_label, clips, options, message):
    with pytest.raises(TaggingError, match=message):
        AudioTagger.from_pretrained(multi_label, "cpu").tag_files(clips, timeline=True, **options)


def run(capsys, *arguments):
    assert run_tagging.main([str(argument) for argument in (*arguments, "--device", "cpu", "--format", "jsonl")]) == 0
    (row,) = map(json.loads, capsys.readouterr().out.splitlines())
    return [(segment["label"], segment["start"], segment["end"]) for segment in row["segments"]]


def test_the_flags_are_the_parameters(capsys, multi_label, clips):
    command = (clips[2], "--model_name_or_path", multi_label, "--timeline", "--hop", 0.1)
    tagger = AudioTagger.from_pretrained(multi_label, "cpu")
    seen = [run(capsys, *command)]
    for options in ({"off": 0.35}, {"off": 0.45, "close_gaps": 0.4, "min_duration": 0.9}, {"min_duration": 0.3}):
        flags = [word for name, value in options.items() for word in (f"--{name}", value)]
        (expected,) = tagger.tag_files(clips[2:3], timeline=True, hop=0.1, **options)
        found = run(capsys, *command, *flags)
        assert found == [(segment.label, segment.start, segment.end) for segment in expected.segments]
        assert found not in seen
        seen.append(found)
    (expected,) = tagger.tag_files(clips[2:3], timeline=True, hop=0.1, threshold=0.6)
    found = run(capsys, *command, "--on", 0.6)
    assert found == [(segment.label, segment.start, segment.end) for segment in expected.segments] != seen[0]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--on", "0.5"], "--on is about segments. Add --timeline, or leave it out."),
        (["--off", "0.5"], "--off is about segments. Add --timeline, or leave it out."),
        (["--close_gaps", "0.5"], "--close_gaps is about segments. Add --timeline, or leave it out."),
        (["--min_duration", "0.5"], "--min_duration is about segments. Add --timeline, or leave it out."),
        (["--timeline", "--on", "0.5", "--threshold", "0.5"], "--on and --threshold are two names of one score."),
        (["--timeline", "--reduce", "max"], "--format text has segments alone with --timeline. Pass --format jsonl"),
        (["--format", "raven", "--reduce", "share"], "--format raven has segments alone with --timeline."),
    ],
)
def test_flags_without_effect_are_refused(capsys, flags, words):
    with pytest.raises(SystemExit) as ended:
        run_tagging.main(["x.wav", "--model_name_or_path", "m", *flags])
    assert ended.value.code == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(("close_gaps", "joined"), [(None, False), (0.1, True)])
@pytest.mark.parametrize("silent", [False, True])
def test_windows_that_touch_are_two_segments_beside_silence_too(silent, close_gaps, joined):
    rules = event_rules(config(), RATE, on=0.5, min_duration=1.0, close_gaps=close_gaps)
    starts, scores = [0, 5, 10, 25, 40], np.array(along(0.9, 0.1, 0.7, 0.1, 0.8), np.float32)
    runs = [(starts[:3], scores[:3]), (starts[4:], scores[4:])] if silent else [(starts, scores)]
    found = events_of_runs(runs, WINDOW, 50, rules, "window")
    expected = [(0, 20), (40, 50)] if joined else [(0, 10), (10, 20), (40, 50)]
    assert [(event.start, event.end) for event in found] == expected

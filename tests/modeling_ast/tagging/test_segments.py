"""Segments of a time line, against means and overlaps that are computed sample by sample."""

import numpy as np
import pytest

from modeling_ast.tagging.segments import (
    Stretch,
    hop_means,
    label_stretches,
    least_rest,
    parts_with_sound,
    runs_of_true,
    window_starts,
)

WINDOW = 8
CALL = 0.9


def at_half(scores):
    return scores >= 0.5


def place(scores, starts, num_samples, **keywords):
    scores = np.asarray(scores, dtype=np.float32)
    scores = scores[:, None] if scores.ndim == 1 else scores
    keywords = {"find_active": at_half} | keywords
    return list(label_stretches(scores, starts, WINDOW, num_samples, **keywords))


def places(*arguments, **keywords):
    return [(stretch.start, stretch.end) for stretch in place(*arguments, **keywords)]


def heard_by(starts, call_start, call_end):
    """Scores of windows of which those that hold the whole of a short call hear it."""
    return [CALL if start <= call_start and call_end <= start + WINDOW else 0.0 for start in starts]


def test_runs_of_true():
    assert runs_of_true(np.array([1, 1, 0, 1, 0, 0, 1], dtype=bool)) == [(0, 1), (3, 3), (6, 6)]
    assert runs_of_true(np.zeros(3, dtype=bool)) == []


@pytest.mark.parametrize("hop", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("samples", [5, 8, 9, 21, 40])
def test_means_are_those_of_the_windows_over_each_sample(hop, samples):
    starts = np.array(window_starts(samples, WINDOW, hop))
    scores = np.random.default_rng(samples).random((len(starts), 3)).astype(np.float32)
    ends = np.minimum(starts + WINDOW, samples)
    edges, means = hop_means(scores, starts, ends)
    assert (edges[0], edges[-1]) == (0, samples)
    for sample in range(samples):
        over = (starts <= sample) & (sample < ends)
        found = means[np.searchsorted(edges, sample, side="right") - 1]
        np.testing.assert_allclose(found, scores[over].mean(axis=0), rtol=1e-6)


def test_scores_at_the_threshold_count():
    starts = window_starts(400, WINDOW, 2)
    scores = np.full(len(starts), 0.3, dtype=np.float32)
    scores[:20] = np.random.default_rng(0).random(20) * 1e-9  # whose sum with the others has no exact float64
    threshold = np.float32(0.3)
    assert places(scores, starts, 400, find_active=lambda scores: scores >= threshold) == [(46, 400)]


@pytest.mark.parametrize("hop", [1, 2, 4])
@pytest.mark.parametrize(("start", "end"), [(20, 24), (20, 22), (12, 16)])
def test_a_short_call_is_where_the_windows_that_heard_it_overlap(hop, start, end):
    starts = window_starts(40, WINDOW, hop)
    scores = heard_by(starts, start, end)
    heard = [first for first, score in zip(starts, scores, strict=True) if score == CALL]
    assert places(scores, starts, 40, reading="window") == [(heard[0], heard[-1] + WINDOW)]
    # Seven windows of a hop of 1 hear the shortest call, six the sample beside it: six sevenths is near the highest mean.
    slack = 1 if hop == 1 and end - start == 2 else 0
    assert places(scores, starts, 40) == [(heard[-1] - slack, heard[0] + WINDOW + slack)]


@pytest.mark.parametrize(
    ("samples", "starts"),
    [(3, [0]), (8, [0]), (10, [0]), (11, [0, 3]), (16, [0, 8]), (18, [0, 8]), (19, [0, 8, 11]), (24, [0, 8, 16])],
)
def test_a_rest_that_is_too_short_has_no_window_of_its_own(samples, starts):
    assert window_starts(samples, WINDOW, WINDOW, rest_samples=3) == starts


def test_the_least_rest_is_a_tenth_of_a_second_or_an_eighth_of_a_short_window():
    assert least_rest(16_000, 15_600) == 1_600
    assert least_rest(32_000, 327_680) == 3_200
    assert least_rest(16_000, 400) == 50


def test_calls_at_the_ends_of_a_recording():
    starts = window_starts(40, WINDOW, 2)
    assert places(heard_by(starts, 0, 4), starts, 40) == [(0, 2)]  # which one window covers
    assert places(heard_by(starts, 36, 40), starts, 40) == [(38, 40)]
    starts = window_starts(27, WINDOW, 4)
    assert starts[-2:] == [16, 19]  # the last one is not on the grid
    assert places([0, 0, 0, 0, 0, CALL], starts, 27) == [(24, 27)]
    assert places([0, 0, 0, 0, 0, CALL], starts, 27, reading="window") == [(19, 27)]
    assert places([0, 0, 0, 0, CALL, CALL], starts, 27) == [(20, 27)]


@pytest.mark.parametrize("reading", ["hop", "window"])
def test_without_overlap_both_readings_are_the_windows(reading):
    starts = [0, 8, 16, 24]
    assert places([0, CALL, CALL, 0], starts, 32, reading=reading) == [(8, 24)]
    assert places([CALL], [0], 5, reading=reading) == [(0, 5)]  # shorter than a window
    assert places([0], [0], 5, reading=reading) == []


def test_a_label_of_one_window_in_the_midst_needs_more_than_the_threshold():
    starts = window_starts(24, WINDOW, 4)
    assert places([0, 0, 0.9, 0, 0], starts, 24) == []  # means of 0.45
    assert places([0, 0, 0.9, 0.2, 0], starts, 24) == [(12, 16)]
    assert places([0, 0, 0.9, 0, 0], starts, 24, reading="window") == [(8, 16)]


def test_a_weaker_call_is_not_cut_off_by_a_stronger_one():
    starts = window_starts(64, WINDOW, 1)
    scores = [0.6 if start < 30 else 0.95 for start in starts]
    ((first, last),) = places(scores, starts, 64)
    assert (first, last) == (0, 64)


def test_a_score_is_the_mean_over_the_time_of_the_segment():
    starts = window_starts(27, WINDOW, 4)  # 0 4 8 12 16 19: stretches of 4, 3 and 1 samples
    (stretch,) = place([0, 0, 0, 0.6, 0.8, 1.0], starts, 27)
    assert stretch == Stretch(16, 27, 0, pytest.approx((3 * 0.7 + 1 * 0.8 + 4 * 0.9 + 3 * 1.0) / 11))
    (stretch,) = place([0, 0, 0, 0.6, 0.8, 1.0], starts, 27, reading="window")
    assert stretch == Stretch(12, 27, 0, pytest.approx(0.8))


@pytest.mark.parametrize("seed", range(20))
def test_what_lies_in_silent_windows_is_left_out_of_places(seed):
    draw = np.random.default_rng(seed)
    edges = np.unique(draw.integers(0, 60, 8))
    means = draw.random((len(edges) - 1, 2)).astype(np.float32)
    begins = np.sort(draw.integers(0, 60, seed % 4))
    ends = np.minimum(begins + 9, 60)
    by_sample = np.full((60, 2), np.nan)
    for first, end, row in zip(edges[:-1], edges[1:], means, strict=True):
        by_sample[first:end] = row
    for begin, end in zip(begins, ends, strict=True):
        by_sample[begin:end] = np.nan
    found, parts = np.full((60, 2), np.nan), parts_with_sound(edges, means, begins, ends)
    for of_part, scores in parts:
        assert (np.diff(of_part) > 0).all()
        for first, end, row in zip(of_part[:-1], of_part[1:], scores, strict=True):
            found[first:end] = row
    np.testing.assert_array_equal(found, by_sample)
    assert len(parts) == len(runs_of_true(~np.isnan(by_sample[:, 0])))  # one for each stretch without a gap


def test_labels_are_placed_apart_and_may_overlap():
    starts = window_starts(24, WINDOW, 4)
    scores = np.array([[0, 0], [CALL, 0], [CALL, CALL], [0.2, CALL], [0, 0]])
    assert place(scores, starts, 24) == [
        Stretch(8, 16, 0, pytest.approx((0.9 + 0.55) / 2)),
        Stretch(12, 16, 1, pytest.approx(0.9)),
    ]


def test_exclusive_labels_are_chosen_by_their_means():
    def best(scores):
        return np.arange(scores.shape[1]) == scores.argmax(axis=1, keepdims=True)

    starts = window_starts(16, WINDOW, 4)
    scores = np.array([[0.9, 0.1], [0.45, 0.55], [0.9, 0.1]])
    assert [stretch.label for stretch in place(scores, starts, 16, find_active=best)] == [0]
    assert len(place(scores, starts, 16, find_active=best, reading="window")) == 3

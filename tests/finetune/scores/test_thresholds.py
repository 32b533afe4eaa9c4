"""Chosen thresholds against a search through every possible one, with scikit-learn's F1."""

import numpy as np
import pytest
from sklearn.metrics import f1_score

from finetune.scores.metrics import macro_f1
from finetune.scores.thresholds import choose_thresholds, not_chosen, not_chosen_note


def f1_at(threshold, scores, truth):
    return f1_score(truth, scores >= threshold, zero_division=0.0)


@pytest.mark.parametrize("decimals", [1, 2, 6], ids=["many equal scores", "some", "none"])
@pytest.mark.parametrize("seed", range(3))
def test_no_other_threshold_has_a_better_f1(seed, decimals):
    generator = np.random.default_rng(seed)
    truth = (generator.random((40, 3)) < [0.05, 0.3, 0.8]).astype(int)
    truth[0] = [1, 1, 0]
    scores = (0.3 * truth + 0.7 * generator.random((40, 3))).round(decimals).astype(np.float32)
    thresholds = choose_thresholds(scores, truth, ["a", "b", "c"])
    assert list(thresholds) == ["a", "b", "c"]
    for column, threshold in enumerate(thresholds.values()):
        # Between two neighbouring scores nothing changes, so these are all there are.
        levels = np.unique(scores[:, column].astype(np.float64))
        candidates = np.concatenate([[levels[0] / 2], (levels[:-1] + levels[1:]) / 2])
        f1 = np.array([f1_at(level, scores[:, column], truth[:, column]) for level in candidates])
        best = candidates[f1 == f1.max()]
        assert threshold == pytest.approx(best[np.abs(best - 0.5).argmin()], abs=1e-12)
        assert type(threshold) is float, "what JSON can hold"


def test_thresholds_raise_the_f1_that_a_common_one_misses():
    truth = np.array([[1, 0], [1, 0], [0, 1], [0, 0]])
    scores = np.array([[0.2, 0.6], [0.3, 0.7], [0.1, 0.9], [0.05, 0.1]])
    thresholds = choose_thresholds(scores, truth, ["rare", "common"])
    assert thresholds == {"rare": pytest.approx(0.15), "common": pytest.approx(0.8)}
    assert macro_f1(scores, truth) == pytest.approx((0 + 1 / 2) / 2)
    assert macro_f1(scores, truth, np.array(list(thresholds.values()))) == 1.0


def test_of_equally_good_thresholds_the_nearest_to_one_half_is_taken():
    # Both 1 of 1 found right, 2 missed, and 3 of 9 found right have F1 1/2.
    truth = np.array([1, 0, 0, 0, 0, 0, 1, 0, 1])[:, None]
    for scores, expected in (
        (np.array([0.9, 0.8, 0.7, 0.6, 0.4, 0.3, 0.25, 0.2, 0.1]), 0.85),
        (np.array([0.99, 0.98, 0.9, 0.88, 0.86, 0.84, 0.83, 0.8, 0.7]), 0.35),
    ):
        assert choose_thresholds(scores[:, None], truth, ["a"]) == {"a": pytest.approx(expected)}


@pytest.mark.parametrize("value", [0, 1])
def test_a_class_that_says_nothing_keeps_one_half(value):
    truth = np.array([[value, 1], [value, 0], [value, 0]])
    scores = np.array([[0.1, 0.3], [0.2, 0.2], [0.3, 0.1]])
    assert choose_thresholds(scores, truth, ["a", "b"]) == {"a": 0.5, "b": pytest.approx(0.25)}
    assert not_chosen(truth, ["a", "b"]) == ["a"]
    assert (
        not_chosen_note(["a"]) == "the threshold of a stays at 0.5: no validation clip has the label, or all have it"
    )
    assert not_chosen_note(["a", "c"]).startswith("the thresholds of a, c stay at 0.5")
    assert not_chosen_note([]) is None


@pytest.mark.parametrize(
    ("scores", "references", "message"),
    [
        (np.zeros((4, 2)), np.zeros(4, int), r"references \(4,\).* with one label a clip the top score decides"),
        (np.zeros((4, 3)), np.zeros((4, 3)), r"expected both as \(clips, 2\)"),
        (np.zeros((4, 2)), np.full((4, 2), 0.4), "not mixed ones"),
        (np.full((4, 2), -1.5), np.zeros((4, 2)), r"from -1\.5 to -1\.5, expected 0 to 1\. Pass the sigmoid"),
        (np.full((4, 2), np.nan), np.zeros((4, 2)), "expected 0 to 1"),
    ],
)
def test_what_is_no_multi_label_score_is_refused(scores, references, message):
    with pytest.raises(ValueError, match=message):
        choose_thresholds(scores, references, ["a", "b"])

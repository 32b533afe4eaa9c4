"""Doubts of labels: the formulas of the paper, clip by clip in plain Python, and whether planted errors come first."""

import math

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict

from finetune.scores.label_doubts import confident_labels, exclusive_doubts, independent_doubts


@pytest.fixture(scope="module")
def drawn() -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of five labels for 200 clips, and a label that is mostly the likeliest; nobody has the last one."""
    generator = np.random.default_rng(0)
    scores = generator.dirichlet(np.ones(5), 200)
    given = np.where(generator.random(200) < 0.7, scores[:, :4].argmax(axis=1), generator.integers(0, 4, 200))
    return scores, given


def confident_label(scores: list[float], thresholds: dict[int, float]) -> int:
    """Northcutt et al. 2021, equation 1, of one clip."""
    reached = {label: scores[label] for label, threshold in thresholds.items() if scores[label] >= threshold}
    return max(reached, key=reached.get, default=-1)


def thresholds_of(scores: np.ndarray, given: np.ndarray) -> dict[int, float]:
    """Equation 2: the mean score of a label over the clips that were given it."""
    of_label = {
        int(label): [row[label] for row, own in zip(scores, given, strict=True) if own == label] for label in given
    }
    return {label: math.fsum(values) / len(values) for label, values in of_label.items()}


def test_the_doubt_of_an_exclusive_label_is_the_normalised_margin_over_what_is_usual_for_each(drawn):
    scores, given = drawn
    found = exclusive_doubts(scores.astype(np.float32), given)
    thresholds = thresholds_of(scores.astype(np.float32).astype(float), given)
    for place, row in enumerate(scores.astype(np.float32).tolist()):
        own = int(given[place])
        # As cleanlab has it: thresholds taken away, the largest put back so that nothing is negative, then shares of 1.
        raised = [row[label] - thresholds[label] + max(thresholds.values()) for label in range(4)]
        shares = [value / math.fsum(raised) for value in raised]
        highest = max(share for label, share in enumerate(shares) if label != own)
        quality = (shares[own] - highest + 1) / 2
        assert found.doubts[place] == pytest.approx(1 - quality, abs=1e-12)
        assert (found.doubts[place] > 0.5) == (found.suggested[place] != own)
        assert found.suggested[place] == np.argmax(shares)
        confident = confident_label(row, thresholds)
        assert found.likely[place] == (confident not in (-1, own))
    assert 0 < found.likely.sum() < len(given)
    assert found.clips.tolist() == list(range(200))
    assert found.missing is None


def test_a_label_that_no_clip_was_given_is_never_confident(drawn):
    scores, given = drawn
    certain = np.array([[0, 0, 0, 0, 1.0]])
    found = confident_labels(np.concatenate([scores, certain]), np.eye(5, dtype=bool)[[*given, 0]])
    assert 4 not in found
    assert found[-1] == -1


def test_doubts_are_sorted_and_equal_ones_keep_the_order_of_the_clips():
    scores = np.array([[0.9, 0.1], [0.2, 0.8], [0.9, 0.1], [0.2, 0.8]])
    found = exclusive_doubts(scores, np.array([0, 0, 1, 0])).sorted()
    assert found.clips.tolist() == [1, 3, 2, 0]
    assert found.labels.tolist() == [0, 0, 1, 0]
    # Usual are 1.3 / 3 and 0.1: so much is missing from the label, and the other is beyond it, of 4 / 3 in all.
    expected = [(1 + (0.7 + 0.7 / 3) * 0.75) / 2] * 2 + [(1 + (1.4 / 3) * 0.75) / 2, (1 - (1.4 / 3) * 0.75) / 2]
    assert found.doubts.tolist() == pytest.approx(expected)
    assert found.suggested.tolist() == [1, 1, 0, 0]


def test_a_label_that_is_hard_to_hear_is_not_doubted_for_that_alone():
    """Of ten clips with the label 1 none is scored above 0.4, as of one that has 0 in truth; that one's score is the lowest."""
    generator = np.random.default_rng(0)
    own = np.concatenate([generator.uniform(0.8, 1, 30), generator.uniform(0.3, 0.4, 10), [0.2]])
    given = np.repeat([0, 1], [30, 11])
    wrong = len(given)  # labelled 0, and scored as the clips with 1 are
    scores = np.stack([np.where(given == 0, own, 1 - own), np.where(given == 0, 1 - own, own)], axis=1)
    scores, given = np.concatenate([scores, [[0.62, 0.38]]]), np.concatenate([given, [0]])
    found = exclusive_doubts(scores, given).sorted()
    assert found.clips[:2].tolist() == [wrong, wrong - 1]
    bare = np.argsort(scores[np.arange(len(given)), given])
    assert wrong not in bare[:11]


def test_independent_labels_are_doubted_one_by_one_between_the_means_of_those_with_and_without():
    # A common label that is scored high, and a rare one that never is; nobody can be compared for the last two.
    given = np.array([[1, 0, 1, 0], [1, 0, 1, 0], [1, 1, 1, 0], [0, 1, 1, 0], [0, 0, 1, 0], [0, 0, 1, 0]])
    scores = np.array(
        [
            [0.9, 0.02, 0.5, 0.9],
            [0.1, 0.02, 0.5, 0.9],
            [0.8, 0.30, 0.5, 0.9],
            [0.2, 0.01, 0.5, 0.9],
            [0.7, 0.02, 0.5, 0.9],
            [0.0, 0.34, 0.5, 0.9],
        ]
    )
    found = independent_doubts(scores, given)
    pairs = {
        (int(clip), int(label)): (float(doubt), bool(missing))
        for clip, label, doubt, missing in zip(found.clips, found.labels, found.doubts, found.missing, strict=True)
    }
    # Label 0: mean 0.6 with it, 0.3 without it, so that 0.45 says nothing. Label 1: 0.155 and 0.1, so that 0.1275 does.
    expected = {
        (0, 0): (0.5 * 0.1 / 0.55, False),
        (1, 0): (1 - 0.5 * 0.1 / 0.45, False),
        (2, 0): (0.5 * 0.2 / 0.55, False),
        (4, 0): (0.5 + 0.5 * 0.25 / 0.55, True),
        (2, 1): (0.5 - 0.5 * (0.30 - 0.1275) / 0.8725, False),
        (3, 1): (1 - 0.5 * 0.01 / 0.1275, False),
        (5, 1): (0.5 + 0.5 * (0.34 - 0.1275) / 0.8725, True),
    }
    assert pairs.keys() == expected.keys()
    for pair, (doubt, missing) in expected.items():
        assert pairs[pair] == (pytest.approx(doubt), missing)
    likely = {pair for pair, is_likely in zip(pairs, found.likely, strict=True) if is_likely}
    # Of label 0 the means are 0.6 and, of its absence, 0.7; of label 1 they are 0.155 and 0.9.
    assert likely == {(1, 0), (4, 0), (3, 1), (5, 1)}


def test_a_label_that_is_scored_no_higher_where_it_was_given_is_not_doubted():
    given = np.array([[1, 1], [0, 0], [1, 1], [0, 0]])
    scores = np.array([[0.2, 0.9], [0.8, 0.1], [0.3, 0.8], [0.7, 0.95]])
    found = independent_doubts(scores, given)
    assert set(found.labels.tolist()) == {1}
    assert (found.clips[found.missing].tolist(), found.labels[found.missing].tolist()) == ([3], [1])


def test_planted_errors_come_first_by_scores_of_another_library():
    """Handwritten digits that scikit-learn ships, of which 5 % get another label, and its own cross-validation."""
    pixels, truth = load_digits(return_X_y=True)
    pixels, truth = pixels[:600] / 16, truth[:600]
    generator = np.random.default_rng(1)
    planted = generator.choice(600, 30, replace=False)
    given = truth.copy()
    given[planted] = (truth[planted] + generator.integers(1, 10, 30)) % 10
    scores = cross_val_predict(LogisticRegression(max_iter=300), pixels, given, cv=5, method="predict_proba")
    found = exclusive_doubts(scores, given).sorted()
    first = found.clips[:60]
    assert len(set(planted) & set(first)) >= 27  # 9 in 10, where chance has 1 in 10
    right = [found.suggested[list(found.clips).index(clip)] == truth[clip] for clip in planted]
    assert np.mean(right) > 0.8

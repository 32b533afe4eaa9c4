"""Scores against the original code's scorer and scikit-learn."""

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score

from finetune.metrics import ASTMetrics, confusion, per_class_table

REFERENCE = json.loads((Path(__file__).parent / "reference_metrics.json").read_text())


def test_scores_equal_the_original_scorer():
    state = np.random.RandomState(REFERENCE["predictions_seed"])
    scores, truth = state.rand(200, 12).astype(np.float32), state.rand(200, 12) < 0.2
    computed = ASTMetrics(multi_label=True).compute(predictions=scores, references=truth.astype(int))
    for ours, theirs in (
        ("mean_average_precision", "mAP"),
        ("roc_auc_macro", "mAUC"),
        ("d_prime", "d_prime"),
        ("accuracy", "acc"),
    ):
        assert computed[ours] == pytest.approx(REFERENCE[theirs], abs=1e-9), ours
    assert computed["f1_macro"] == f1_score(truth, scores >= 0.5, average="macro")


@pytest.fixture
def table():
    generator = np.random.default_rng(0)
    scores = generator.random((60, 4))
    return scores / scores.sum(axis=1, keepdims=True), generator.integers(0, 3, 60)  # no clip of the last class


def test_single_label_scores_equal_scikit_learn(table):
    scores, truth = table
    computed = ASTMetrics().compute(predictions=scores, references=truth)
    assert computed["accuracy"] == accuracy_score(truth, scores.argmax(axis=1))
    labels = f1_score(truth, scores.argmax(axis=1), average=None, labels=range(4), zero_division=0.0)
    assert computed["f1_macro"] == pytest.approx(labels[:3].mean()), "the class without clips is left out"


def test_a_class_without_clips_has_no_ranking_scores_and_does_not_spoil_the_mean(table):
    scores, truth = table
    rows = per_class_table(scores, truth, ["a", "b", "c", "d"])
    assert [row["support"] for row in rows] == [*np.bincount(truth), 0]
    assert rows[3]["average_precision"] is None
    assert rows[3]["roc_auc"] is None
    computed = ASTMetrics().compute(predictions=scores, references=truth)
    assert computed["mean_average_precision"] == pytest.approx(np.mean([row["average_precision"] for row in rows[:3]]))
    assert computed["roc_auc_macro"] == pytest.approx(np.mean([row["roc_auc"] for row in rows[:3]]))


def test_confusion_counts_truth_by_row(table):
    scores, truth = table
    matrix = np.array(confusion(scores, truth, 4))
    assert matrix.sum(axis=1).tolist() == [*np.bincount(truth), 0]
    assert matrix.trace() == (scores.argmax(axis=1) == truth).sum()

"""Scores against the original code's scorer, scikit-learn, torch, and stock Transformers."""

import json
import math
import os
import warnings
from pathlib import Path

import datasets
import evaluate
import numpy as np
import pytest
import soundfile
import torch
import transformers
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    f1_score,
    precision_recall_fscore_support,
    roc_auc_score,
)
from transformers import pipeline

from finetune.arguments.groups import ASTTrainingArguments
from finetune.clip_sets.collator import ASTDataCollator
from finetune.scores.metrics import (
    ASTMetrics,
    classification_scores,
    clips_without_labels,
    confusion,
    left_out,
    left_out_note,
    macro_f1,
    mean_loss,
    per_class_table,
    ranking_scores,
    without_labels_note,
)
from finetune.training.trainer import ASTTrainer
from modeling_ast import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification, register, unregister

REFERENCE = json.loads((Path(__file__).parent / "reference_metrics.json").read_text())


def test_scores_equal_the_original_scorer():
    state = np.random.RandomState(REFERENCE["predictions_seed"])
    scores, truth = state.rand(200, 12).astype(np.float32), state.rand(200, 12) < 0.2
    computed = ASTMetrics(multi_label=True).compute(predictions=scores, references=truth.astype(int))
    for ours, theirs in (
        ("mean_average_precision", "mAP"),
        ("roc_auc_macro", "mAUC"),
        ("d_prime", "d_prime"),
    ):
        assert computed[ours] == pytest.approx(REFERENCE[theirs], abs=1e-9), ours
    # There a clip without a label counts as one of the first class; here it has no part in the accuracy.
    right, labelled = scores.argmax(axis=1) == truth.argmax(axis=1), truth.any(axis=1)
    assert right.mean() == pytest.approx(REFERENCE["acc"], abs=1e-9)
    assert computed["accuracy"] == accuracy_score(truth.argmax(axis=1)[labelled], scores.argmax(axis=1)[labelled])
    assert clips_without_labels(truth) == 200 - labelled.sum() == 16
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


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("counts", [(8, 20, 0, 40), (1, 0, 40, 39), (0, 20, 0, 0), (40, 0, 0, 0), (12,)], ids=str)
def test_ranking_scores_of_all_classes_are_those_of_each_alone(counts):
    """Of 40 clips so many are of each class."""
    scores = np.random.default_rng(0).integers(0, 20, (40, len(counts))).astype(np.float32)  # some are the same
    truth = (np.arange(40)[:, None] < counts).astype(int)
    expected = np.full((2, len(counts)), np.nan)
    for label, count in enumerate(counts):
        if count:
            expected[0, label] = average_precision_score(truth[:, label], scores[:, label])
        if 0 < count < 40:
            expected[1, label] = roc_auc_score(truth[:, label], scores[:, label])
    np.testing.assert_array_equal(ranking_scores(scores, truth), expected)


@pytest.mark.parametrize(
    ("index", "words"), [(-1, "-1 is .* expected 0 to 2. Data sets mark"), (3, "3 is .* expected 0 to 2.$")]
)
def test_an_index_of_no_label_is_not_taken_for_that_of_another(index, words):
    scores = np.random.default_rng(0).random((4, 3))
    with pytest.raises(ValueError, match=words):
        classification_scores(scores, np.array([0, 1, 2, index]))


def test_confusion_counts_truth_by_row(table):
    scores, truth = table
    matrix = np.array(confusion(scores, truth, 4))
    assert matrix.sum(axis=1).tolist() == [*np.bincount(truth), 0]
    assert matrix.trace() == (scores.argmax(axis=1) == truth).sum()


def test_thresholds_decide_what_multi_label_f1_takes_as_found(table):
    scores, _ = table
    truth = np.random.default_rng(1).integers(0, 2, scores.shape)
    thresholds = np.array([0.1, 0.2, 0.3, 0.4])
    expected = precision_recall_fscore_support(truth, scores >= thresholds, average=None, zero_division=0.0)
    assert not np.array_equal(scores >= thresholds, scores >= 0.5)
    rows = per_class_table(scores, truth, list("abcd"), dict(zip("dcba", thresholds[::-1], strict=True)))
    for column, values in zip(("precision", "recall", "f1", "support"), expected, strict=True):
        assert [row[column] for row in rows] == values.tolist(), column
    computed = ASTMetrics(multi_label=True).compute(predictions=scores, references=truth, thresholds=thresholds)
    assert computed["f1_macro"] == macro_f1(scores, truth, thresholds) == pytest.approx(expected[2].mean())
    with pytest.raises(ValueError, match="by the top label. Leave them out"):
        ASTMetrics().compute(predictions=scores, references=truth[:, 0], thresholds=thresholds)


def test_exclusive_labels_with_independent_scores_are_scored_by_the_top_label(table):
    _, truth = table
    scores = np.random.default_rng(2).random((60, 4)) * 0.4  # sigmoid scores of which none reaches 0.5
    computed = ASTMetrics().compute(predictions=scores, references=truth)
    top = scores.argmax(axis=1)
    assert computed["accuracy"] == accuracy_score(truth, top)
    assert computed["f1_macro"] == pytest.approx(f1_score(truth, top, average="macro", labels=[0, 1, 2]))
    assert computed["f1_macro"] > 0


@pytest.mark.parametrize("missing", [[], [1], [0, 3]])
def test_classes_without_a_clip_are_named(missing):
    labels = ["a", "b", "c", "d"]
    truth = np.ones((5, 4), int)
    truth[:, missing] = 0
    names = left_out(truth, labels)
    assert names == [labels[index] for index in missing]
    note = left_out_note(names, 4)
    assert note is None if not missing else note.startswith(f"{len(missing)} of 4 classes")
    assert all(name in (note or "").split(": ")[-1] for name in names)
    assert left_out(np.array([0, 2, 2]), labels) == ["b", "d"]


def test_many_classes_without_a_clip_are_not_all_listed():
    note = left_out_note([f"label {index}" for index in range(300)], 527)
    assert "label 9" in note
    assert "label 10" not in note
    assert note.endswith("...")


def test_clips_without_any_label_have_no_score_and_cause_no_warning():
    scores, truth = np.random.default_rng(0).random((6, 3)), np.zeros((6, 3), int)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        computed = ASTMetrics(multi_label=True).compute(predictions=scores, references=truth)
        rows = per_class_table(scores, truth, ["a", "b", "c"])
    assert set(computed) == {"accuracy", "f1_macro", "mean_average_precision", "roc_auc_macro", "d_prime"}
    assert all(math.isnan(value) for value in computed.values())
    assert {row["average_precision"] for row in rows} == {None}
    assert "no clip of the scored split has a label" in left_out_note(left_out(truth, ["a", "b", "c"]), 3)


def test_clips_without_labels_do_not_spoil_the_accuracy_of_a_perfect_model():
    truth = np.zeros((30, 4), int)
    truth[:3, [1, 2, 3]] = np.eye(3)
    scores = np.where(truth, 0.9, 0.1) + [
        0,
        0.02,
        0.03,
        0.04,
    ]  # of a clip without a label, never that of the first class
    computed = ASTMetrics(multi_label=True).compute(predictions=scores, references=truth)
    assert computed["accuracy"] == computed["roc_auc_macro"] == 1
    assert (
        without_labels_note(clips_without_labels(truth), 30)
        == "27 of 30 clips have no label and no part in the accuracy"
    )


@pytest.mark.parametrize("truth", [np.array([0, 2, 1]), np.array([[0], [1], [0]]), np.eye(3, dtype=int)])
def test_clips_that_all_count_are_not_said_to_be_left_out(truth):
    assert clips_without_labels(truth) == 0
    assert without_labels_note(0, len(truth)) is None


def test_label_indices_in_place_of_scores_give_what_they_can(table):
    scores, truth = table
    top = scores.argmax(axis=1)
    assert 3 in top
    assert 3 not in truth
    computed = ASTMetrics().compute(predictions=top, references=truth)
    of_scores = ASTMetrics().compute(predictions=scores, references=truth)
    assert computed == {name: of_scores[name] for name in ("accuracy", "f1_macro")}


@pytest.fixture
def drum_set(drum_rows):
    """Twelve drum clips as arrays, with their paths and label indices; and the labels."""
    rows = drum_rows[::37]
    labels = sorted({row["label"] for row in rows})
    columns = {
        "audio": [soundfile.read(row["path"], dtype="float32")[0] for row in rows],
        "path": [row["path"] for row in rows],
        "label": [labels.index(row["label"]) for row in rows],
    }
    return datasets.Dataset.from_dict(columns).with_format("numpy"), labels


def test_the_evaluator_of_evaluate_takes_a_checkpoint_folder_and_these_metrics(drum_set, tiny_sizes, tmp_path):
    data, labels = drum_set
    torch.manual_seed(0)
    config = ASTConfig(**tiny_sizes, id2label=dict(enumerate(labels)), problem_type="single_label_classification")
    model = ASTForAudioClassification(config)
    torch.nn.init.normal_(model.classifier.dense.weight, std=3.0)  # so that not all clips get one label
    model.save_pretrained(tmp_path)
    ASTFeatureExtractor(max_length=96, mean=-6.5, std=5.5).save_pretrained(tmp_path)

    arguments = {
        "model_or_pipeline": str(tmp_path),
        "data": data,
        "metric": ASTMetrics(),
        "label_mapping": {label: index for index, label in enumerate(labels)},
    }
    computed = evaluate.evaluator("audio-classification").compute(input_column="audio", **arguments)
    stock = pipeline("audio-classification", model=str(tmp_path))
    assert type(stock.model) is transformers.ASTForAudioClassification
    answers = [stock(clip, top_k=None) for clip in data["audio"]]
    scores = np.array([[{a["label"]: a["score"] for a in answer}[label] for label in labels] for answer in answers])
    top, truth = scores.argmax(axis=1), data["label"]
    assert len(set(top)) > 1
    assert computed["accuracy"] == accuracy_score(truth, top)
    present = sorted(set(truth))
    assert computed["f1_macro"] == pytest.approx(f1_score(truth, top, average="macro", labels=present))
    assert "mean_average_precision" not in computed

    register()  # this port reads the files itself
    try:
        of_paths = evaluate.evaluator("audio-classification").compute(input_column="path", **arguments)
    finally:
        unregister()
    assert (of_paths["accuracy"], of_paths["f1_macro"]) == (computed["accuracy"], computed["f1_macro"])


def test_labels_that_the_evaluator_did_not_map_are_refused(table):
    _, truth = table
    with pytest.raises(ValueError, match="label_mapping"):
        ASTMetrics().compute(predictions=["kick"] * 60, references=truth)


@pytest.mark.parametrize("multi_label", [False, True])
def test_the_loss_of_a_split_is_that_of_all_its_clips(tiny_sizes, drum_clips, tmp_path, multi_label):
    """With a last batch that is not full, whose clips must not count more than the others."""
    clips = drum_clips[:7]
    first = torch.arange(7) < 4
    if multi_label:
        truth = first[:, None].expand(7, 9).float()
        problem_type, loss = "multi_label_classification", torch.nn.functional.binary_cross_entropy_with_logits
    else:
        truth = first.long()
        problem_type, loss = "single_label_classification", torch.nn.functional.cross_entropy
    torch.manual_seed(0)
    model = ASTForAudioClassification(ASTConfig(**tiny_sizes, num_labels=9, problem_type=problem_type))
    torch.nn.init.normal_(model.classifier.dense.weight, std=3.0)  # so that batches differ in their loss
    extractor = ASTFeatureExtractor(max_length=96, mean=-6.5, std=5.5)
    trainer = ASTTrainer(
        model=model,
        args=ASTTrainingArguments(
            output_dir=str(tmp_path), per_device_eval_batch_size=4, use_cpu=True, disable_tqdm=True
        ),
        eval_dataset=[{"waveform": clip, "label": label.numpy()} for clip, label in zip(clips, truth, strict=True)],
        data_collator=ASTDataCollator(extractor, compute_features=False),
        feature_extractor=extractor,
    )
    predicted = trainer.predict(trainer.eval_dataset)
    logits = torch.from_numpy(predicted.predictions)
    expected = loss(logits, truth).item()
    halves = [loss(logits[:4], truth[:4]).item(), loss(logits[4:], truth[4:]).item()]
    assert abs(np.mean(halves) - expected) > 0.01
    assert predicted.metrics["test_loss"] == pytest.approx(expected, rel=1e-6)  # float32 sums in another order
    assert mean_loss(predicted.predictions, predicted.label_ids, problem_type) == pytest.approx(expected, rel=1e-6)


def test_the_loss_of_exclusive_labels_under_binary_cross_entropy(table):
    scores, truth = table
    logits = np.log(scores)
    hot = torch.nn.functional.one_hot(torch.from_numpy(truth), 4).double()
    expected = torch.nn.functional.binary_cross_entropy_with_logits(torch.from_numpy(logits), hot).item()
    assert mean_loss(logits, truth, "multi_label_classification") == pytest.approx(expected, abs=1e-6)


def test_a_single_label_that_a_clip_has_or_has_not_is_scored_as_such():
    scores, truth = np.array([[0.9], [0.8], [0.3], [0.6], [0.1]]), np.array([[1], [1], [1], [0], [0]])
    (row,) = per_class_table(scores, truth, ["siren"])
    precision, recall, f1, _ = precision_recall_fscore_support(truth[:, 0], scores[:, 0] >= 0.5, average="binary")
    assert (row["precision"], row["recall"], row["f1"], row["support"]) == (precision, recall, f1, 3)
    metrics = ASTMetrics(multi_label=True).compute(predictions=scores, references=truth)
    assert metrics["f1_macro"] == f1
    assert metrics["accuracy"] == pytest.approx(3 / 5)


def test_no_folder_is_made_for_what_is_not_stored():
    metrics = ASTMetrics(cache_dir=f"{os.devnull}/x")  # which nobody can make
    found = metrics.compute(predictions=[[0.9, 0.1], [0.2, 0.8]], references=[0, 1])
    assert found["accuracy"] == 1

"""Several sets of labels at once: one encoder, a head for each set, all sets drawn alike."""

import csv
import re
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.special import log_softmax
from sklearn.metrics import accuracy_score
from tiny_trainings import SIZES, flags, summary_in, write_tones
from transformers import ASTForAudioClassification as StockModel
from transformers import EvalPrediction

from finetune.arguments.command_line import parse_arguments
from finetune.clip_sets.sampling import set_balanced_weights
from finetune.results.label_set_evaluation import label_set_scores
from finetune.run_finetune import main
from finetune.runs.training_run import prepare_run
from finetune.sources.label_sets import label_sets, set_of_each_label, share_of_each_set
from finetune.training.losses import label_sets_loss
from modeling_ast import ASTFeatureExtractor
from modeling_ast.audio import read_audio

LABELS = ["noises/a", "noises/b", "noises/c", "tones/a", "tones/b"]
SETS = [[0, 1, 2], [3, 4]]


def write_sets(folder):
    """Clips of two sets in a table, the second with fewer labels and clips."""
    rows = []
    for name, labels, count in (("noises", "abc", 6), ("tones", "ab", 3)):
        write_tones(folder / name, labels, count)
        for path in (folder / name).rglob("*.wav"):
            split = "test" if int(path.stem) % 3 == 0 else "train"
            rows.append((path.relative_to(folder), f"{name}/{path.parent.name}", split))
    with (folder / "metadata.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("file_name", "label", "split"), *sorted(rows)])
    return folder / "metadata.csv"


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return write_sets(tmp_path_factory.mktemp("sets"))


def of_sets(table, output_dir, **fields):
    return flags(table, output_dir, **{"loss": "label_sets", "train_sampling_strategy": "set_balanced"} | fields)


@pytest.fixture(scope="module")
def run(table, tmp_path_factory):
    folder = tmp_path_factory.mktemp("label_sets") / "run"
    assert main(of_sets(table, folder, mixup_probability=0.5, eval_strategy="epoch", set_shares="tones=1.5")) == 0
    return folder


def test_the_loss_is_the_cross_entropy_within_the_set_of_each_clip():
    generator = np.random.default_rng(0)
    logits, labels = generator.normal(size=(4, 5)), np.array([0, 2, 4, 3])
    expected = np.mean(
        [
            -log_softmax(row[SETS[int(label > 2)]])[SETS[int(label > 2)].index(label)]
            for row, label in zip(logits, labels, strict=True)
        ]
    )
    outputs = SimpleNamespace(logits=torch.tensor(logits, dtype=torch.float32))
    loss = label_sets_loss(outputs, {"labels": torch.tensor(labels)}, SETS)
    assert loss.item() == pytest.approx(expected, rel=1e-6)
    mixed = 0.3 * np.eye(5)[[0]] + 0.7 * np.eye(5)[[4]]  # of both sets
    one = SimpleNamespace(logits=outputs.logits[:1])
    loss = label_sets_loss(one, {"labels": torch.tensor(mixed)}, SETS)
    of_sets = [-log_softmax(logits[0, places])[place] for places, place in zip(SETS, (0, 1), strict=True)]
    assert loss.item() == pytest.approx(0.3 * of_sets[0] + 0.7 * of_sets[1], rel=1e-6)


def test_sets_are_told_from_the_names():
    shuffled = ["b/x", "a/y/z", "b/w", "a/q"]
    assert {name: places.tolist() for name, places in label_sets(shuffled).items()} == {"b": [0, 2], "a": [1, 3]}
    assert set_of_each_label(shuffled).tolist() == [0, 1, 0, 1]


def test_all_sets_are_drawn_alike():
    weights = set_balanced_weights([[0], [1], [1], [2], [3]], np.array([0, 0, 0, 1]))
    assert weights.tolist() == [0.25, 0.25, 0.25, 0.25, 1]


def test_sets_are_drawn_by_their_shares(table, tmp_path):
    assert share_of_each_set(LABELS, {"tones": 3.0}).tolist() == [1, 3]
    argv = of_sets(table, tmp_path / "run", set_shares="tones=3")
    run = prepare_run(argv, parse_arguments(argv))
    sampler = run.trainer._get_train_sampler()
    numbers = np.array([labels[0] > 2 for labels in run.clips["train"].label_lists()])
    assert [sampler.weights[numbers == number].sum() for number in (0, 1)] == pytest.approx([1, 3])


@pytest.mark.parametrize("words", ["tones", "tones=0", "tones=nan", "=2", "tones=1 tones=2", "tones=inf"])
def test_a_share_that_is_none_is_refused_before_the_data_are_read(words, table, tmp_path):
    with pytest.raises(ValueError, match=f"set_shares has {words.split()[-1]!r}, expected "):
        parse_arguments([*of_sets(table, tmp_path / "run"), "--set_shares", *words.split()])


def test_shares_belong_to_sets_that_there_are(table, tmp_path, capsys):
    assert main(of_sets(table, tmp_path / "run", set_shares="drums=4")) == 2
    printed, told = capsys.readouterr()
    assert "[4/6]" not in printed, "nothing was trained"
    assert "set_shares names drums, and the data has the sets noises, tones" in told


def test_clips_are_scored_among_the_labels_of_their_own_set(run, table):
    summary = summary_in(run)
    assert summary["labels"] == LABELS
    assert summary["training"]["loss"] == "label_sets_loss"
    assert summary["training"]["set_shares"] == "tones=1.5"
    model = StockModel.from_pretrained(run).eval()
    extractor = ASTFeatureExtractor.from_pretrained(run)
    scored = summary["evaluation"]
    rows = [row for row in csv.DictReader(table.open()) if row["split"] == "test"]
    truth, found = {0: [], 1: []}, {0: [], 1: []}
    losses = []
    for row in rows:
        clip = read_audio(table.parent / row["file_name"], 16_000)
        with torch.no_grad():
            logits = model(**extractor(clip, sampling_rate=16_000, return_tensors="pt")).logits[0].double().numpy()
        label = LABELS.index(row["label"])
        number = int(label > 2)
        truth[number].append(label)
        found[number].append(SETS[number][logits[SETS[number]].argmax()])
        losses.append(-log_softmax(logits[SETS[number]])[SETS[number].index(label)])
    assert scored["label_sets"] == {
        name: {
            "labels": len(SETS[number]),
            "clips": len(truth[number]),
            "accuracy": pytest.approx(accuracy_score(truth[number], found[number])),
        }
        for number, name in enumerate(("noises", "tones"))
    }
    assert {number: len(clips) for number, clips in truth.items()} == {0: 6, 1: 2}
    accuracies = [row["accuracy"] for row in scored["label_sets"].values()]
    assert scored["metrics"] == {
        "loss": pytest.approx(np.mean(losses), abs=1e-5),
        "accuracy": pytest.approx(np.mean(accuracies)),
    }
    assert {"eval_loss", "eval_accuracy"} <= summary["history"][1].keys()


def test_a_clip_that_is_wrong_beyond_all_doubt_has_a_loss():
    logits = np.zeros((1, 5), np.float32)
    logits[0, 0] = 2000.0
    scored = label_set_scores(EvalPrediction(logits, np.array([1])), LABELS)
    assert scored == {"loss": pytest.approx(2000), "accuracy": 0}


@pytest.mark.parametrize("padding", ["longest", "max_length"])
def test_the_trainer_draws_all_sets_alike_and_clips_of_one_length_together(table, tmp_path, padding):
    argv = of_sets(table, tmp_path / "run", padding=padding)
    run = prepare_run(argv, parse_arguments(argv))
    sampler = run.trainer._get_train_sampler()
    numbers = np.array([0, 0, 0, 1, 1])[[labels[0] for labels in run.clips["train"].label_lists()]]
    assert [sampler.weights[numbers == number].sum() for number in (0, 1)] == pytest.approx([1, 1])
    if padding == "longest":
        np.testing.assert_array_equal(sampler.lengths, run.clips["train"].lengths())
    else:
        assert sampler.lengths is None


def test_the_card_has_a_row_for_each_set(run):
    card = (run / "README.md").read_text()
    scored = summary_in(run)["evaluation"]["label_sets"]
    for name, row in scored.items():
        assert f"| {name} | {row['labels']} | {row['clips']} | {row['accuracy']:.4f} |" in card
    assert not (run / "spectrogram.png").exists()  # it would show the scores of all sets together


def test_a_fine_tuning_starts_from_the_encoder(run, tmp_path, capsys):
    tones = write_tones(tmp_path / "tones", "ab", 4)
    sizes = dict.fromkeys(set(SIZES) - {"max_length"})
    assert main(flags(tones, tmp_path / "run", **sizes, model_name_or_path=run, num_train_epochs=1)) == 0
    assert f"from {run} with a new classifier" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"class_weights": "balanced"}, "class_weights='balanced' was given, but with --loss label_sets the labels of a set"),
        ({"fold_column_name": "split"}, "fold_column_name='split' was given, but with --loss label_sets there are no folds"),
        ({"average_epochs": "1"}, "average_epochs"),
        ({"metric_for_best_model": "f1_macro"}, "the scores of --loss label_sets are loss and accuracy"),
        ({"loss": None}, "without --loss label_sets there is one set of labels. Pass it too"),
        ({"ignore_labels": "tones/a"}, "A set needs two labels or more to be told apart, and these have one: tones"),
    ],
)  # fmt: skip
def test_what_goes_not_with_several_sets_is_refused(table, tmp_path, capsys, fields, message):
    assert main(of_sets(table, tmp_path / "run", **{"eval_strategy": "epoch"} | fields)) == 2
    assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "run").exists()


def test_labels_without_a_set_are_refused(table, tmp_path, capsys):
    shutil.copytree(table.parent, tmp_path / "sets")
    text = table.read_text().replace("tones/a,", "a,").replace("noises/a,", "noises/,")
    (tmp_path / "sets" / table.name).write_text(text)
    assert main(of_sets(tmp_path / "sets" / table.name, tmp_path / "run")) == 2
    assert "Labels of several sets are written set/label, and these are not: a, noises/" in capsys.readouterr().err

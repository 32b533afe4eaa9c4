"""A column for each label, with 0 and 1 or with the share of annotators who gave it: soft labels."""

import csv
import json

import datasets
import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from sklearn.metrics import average_precision_score, roc_auc_score

from finetune import run_evaluate
from finetune.arguments.groups import DataArguments
from finetune.augmentations.augmentation import Augmentation
from finetune.clip_sets.audio_clips import check_splits
from finetune.clip_sets.clip_datasets import clip_dataset, clip_set, clip_sets
from finetune.clip_sets.collator import ASTDataCollator
from finetune.clip_sets.streaming import load_streams
from finetune.clip_sets.waveforms import ASTDataset
from finetune.results.summary_sections import data_section
from finetune.run_finetune import main
from finetune.scores.metrics import mean_loss
from finetune.sources.clips import clips_of_dataset
from finetune.sources.data_errors import DataError
from finetune.sources.labels import has_soft_labels, is_multi_label, label_lists, label_names
from finetune.sources.splits import load_splits, split_clips
from modeling_ast import ASTFeatureExtractor
from modeling_ast.audio import AudioReader

LABELS = ["dog", "cat", "owl"]  # in no alphabetical order
HARD = np.array([[1, 0, 0], [0, 1, 0], [1, 1, 0], [0, 0, 0], [0, 1, 1], [1, 0, 1], [0, 1, 0], [1, 0, 0]])
SOFT = np.array(
    [[1, 0, 0.2], [0.25, 0.75, 0], [0.5, 0.5, 0], [0, 0, 0.4], [0, 0.6, 0.9], [0.7, 0, 0.6], [0, 1, 0], [0.8, 0.1, 0.1]]
)  # fmt: skip
SPLITS = ["train"] * 5 + ["test"] * 3


@pytest.fixture
def table(tmp_path):
    """Write a table of eight clips with a column for each label."""
    for index in range(len(HARD)):
        soundfile.write(tmp_path / f"{index}.wav", np.random.default_rng(index).uniform(-0.5, 0.5, 1600), 16_000)

    def write(shares, name="clips.csv", **columns):
        frame = pd.DataFrame({"file": [f"{index}.wav" for index in range(len(HARD))]})
        for label, values in zip(LABELS, np.array(shares, dtype=object).T, strict=True):
            frame[label] = list(values)
        frame = frame.assign(**{"split": SPLITS} | columns)
        writers = {
            "jsonl": lambda path: frame.to_json(path, orient="records", lines=True),
            "parquet": frame.to_parquet,
        }
        writers.get(name.rpartition(".")[2], lambda path: frame.to_csv(path, index=False))(tmp_path / name)
        return tmp_path / name

    return write


def arguments(path, **fields):
    return DataArguments(dataset_name=str(path), **{"label_columns": LABELS} | fields)


def targets(clips):
    return np.stack([clips[index]["label"] for index in range(len(clips))])


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("name", ["clips.csv", "clips.jsonl", "clips.parquet"])
@pytest.mark.parametrize("shares", [HARD, HARD.astype(bool), SOFT], ids=["0 and 1", "truth values", "shares"])
def test_a_column_for_each_label_gives_the_targets_it_holds(table, name, shares, streaming):
    data = arguments(table(shares, name), streaming=streaming)
    splits, _ = load_streams(data) if streaming else load_splits(data, seed=0)
    assert label_names(splits["train"]) == LABELS
    assert is_multi_label(splits["train"])
    assert has_soft_labels(splits["train"]) == (shares is SOFT)
    for side, part in (("train", slice(0, 5)), ("eval", slice(5, 8))):
        clips = clip_dataset(splits[side], ASTFeatureExtractor(max_length=32))
        np.testing.assert_allclose(targets(clips), np.array(shares[part], dtype=np.float32))
        assert clips.label_counts().tolist() == (np.array(shares[part], dtype=float) >= 0.5).sum(axis=0).tolist()
    if not streaming:
        assert label_lists(splits["eval"]) == [np.flatnonzero(row >= 0.5).tolist() for row in shares[5:].astype(float)]


def test_the_other_forms_of_soft_labels_give_the_same(table, tmp_path):
    expected = load_splits(arguments(table(SOFT)), seed=0)[0]["train"]
    rows = [
        {"file": f"{i}.wav", "label": list(row), "split": split}
        for i, (row, split) in enumerate(zip(SOFT, SPLITS, strict=True))
    ]
    pd.DataFrame(rows).to_json(tmp_path / "lists.jsonl", orient="records", lines=True)
    lists = load_splits(DataArguments(dataset_name=str(tmp_path / "lists.jsonl"), labels=LABELS), seed=0)[0]["train"]
    frame = pd.read_csv(tmp_path / "clips.csv")
    frame["audio"] = [str(tmp_path / name) for name in frame.pop("file")]
    data = arguments("x")
    python = split_clips(clips_of_dataset(datasets.Dataset.from_pandas(frame), data, "x"), data, 0)[0]["train"]
    for split in (lists, python):
        assert split["label"][:] == expected["label"][:]
        assert split["label_shares"][:] == expected["label_shares"][:]
        assert label_names(split) == LABELS


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("", r"Row\(s\) 2 of .*clips.csv have nothing in the column 'cat', one of --label_columns. Write 0"),
        (
            "yes",
            r"column 'cat', one of --label_columns, holds 'yes' \(row 2 of .*clips.csv\), expected 0 and 1, or shares",
        ),
        ("1.5", r"holds '1.5' \(row 2 of .*\), expected .*Divide counts by the number of annotators"),
        ("-0.1", r"holds '-0.1' \(row 2 of"),
        ("nan", r"holds 'nan' \(row 2 of"),
    ],
)
def test_cells_that_are_no_shares_are_refused_by_row_and_column(table, cell, message, streaming):
    shares = SOFT.astype(object)
    shares[1, 1] = cell
    data = arguments(table(shares))
    with pytest.raises(DataError, match=message):
        load_streams(data) if streaming else load_splits(data, seed=0)


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            ["dog", "cow"],
            "label_columns names 'cow', which the data set has not; it has 'file', 'dog', 'cat', 'owl', 'split'",
        ),
        (["dog,cat,owl"], r"no column but several. Write them with spaces: --label_columns dog cat owl\."),
    ],
)
def test_columns_that_are_not_there(table, columns, message, streaming):
    data = arguments(table(SOFT), label_columns=columns)
    with pytest.raises(DataError, match=message):
        load_streams(data) if streaming else load_splits(data, seed=0)


def test_columns_that_look_like_labels_are_named_if_there_is_no_label_column(table):
    with pytest.raises(DataError, match=r"it has 'file', .* is a label: --label_columns dog cat owl\."):
        load_splits(arguments(table(SOFT, take=range(8), fold=[0, 1] * 4), label_columns=[]), seed=0)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"labels": ["a"]}, "Both label_columns and labels say what the labels are"),
        ({"label_csv": "a.csv"}, "Both label_columns and label_csv"),
        ({"label_separator": ";"}, "Both label_columns and label_separator"),
        ({"label_columns": ["cat", "cat"]}, "label_columns names cat more than once"),
        ({"label_columns": ["cat", "split"]}, "'split' stands in label_columns and is the split_column_name too"),
    ],
)
def test_fields_that_do_not_fit(fields, message):
    with pytest.raises(ValueError, match=message):
        arguments("x", **fields)


def test_ignored_labels_leave_their_clips_and_the_model(table):
    splits, _ = load_splits(arguments(table(SOFT), ignore_labels=["owl"]), seed=0)
    assert label_names(splits["train"]) == ["dog", "cat"]
    np.testing.assert_allclose(splits["train"]["label_shares"], SOFT[:4, :2], atol=1e-7)


def test_labels_of_which_none_counts_are_learned_by_their_shares(table):
    for shares, alike in ((SOFT * 0.4, False), (np.full_like(SOFT, 0.3), True)):
        data = arguments(table(shares))
        splits, _ = load_splits(data, seed=0)
        if alike:
            with pytest.raises(DataError, match="All training clips have the same labels"):
                check_splits(clip_sets(splits), data, AudioReader(), 1600)
        else:
            _, notes = check_splits(clip_sets(splits), data, AudioReader(), 1600)
            assert "in counts and scores a clip has a label from a share of 0.5 on" in "; ".join(notes)


def test_mixup_mixes_shares(table):
    splits, _ = load_splits(arguments(table(SOFT)), seed=0)
    clips = ASTDataset(splits["train"], AudioReader(), 1600, Augmentation(mixup_probability=1.0), seed=1)
    for index in range(5):
        item = clips[0, index]
        weight, partner = (item["draws"]["mixup"][name] for name in ("weight", "partner"))
        expected = weight * SOFT[index] + (1 - weight) * SOFT[partner]
        np.testing.assert_allclose(item["label"], expected, rtol=1e-6)


def test_rows_of_a_split_are_collated_with_their_shares(table):
    splits, _ = load_splits(arguments(table(SOFT)), seed=0)
    batch = ASTDataCollator(ASTFeatureExtractor(max_length=32), num_labels=3)(list(splits["train"]))
    np.testing.assert_allclose(batch["labels"].numpy(), SOFT[:5].astype(np.float32))


def test_finished_features_have_soft_labels_too(table, tmp_path):
    path = table(SOFT)
    for index in range(len(SOFT)):
        np.save(tmp_path / f"{index}.npy", np.random.default_rng(index).normal(0, 4, (20, 128)).astype(np.float32))
    frame = pd.read_csv(path)
    frame["mel"] = [f"{index}.npy" for index in range(len(SOFT))]
    frame.drop(columns="file").to_csv(path, index=False)
    splits, _ = load_splits(arguments(path, features_column_name="mel"), seed=0)
    clips = clip_dataset(splits["train"], ASTFeatureExtractor(max_length=32))
    np.testing.assert_allclose(targets(clips), SOFT[:5].astype(np.float32))
    other, _ = load_splits(arguments(path, features_column_name="mel", label_columns=LABELS[:2]), seed=0)
    assert clip_set(splits["train"]).digest() != clip_set(other["train"]).digest()


def test_a_column_that_is_called_like_that_of_shares_is_none(table):
    splits, _ = load_splits(arguments(table(HARD, label_shares=range(8))), seed=0)
    assert not has_soft_labels(splits["train"])


def test_a_run_with_other_shares_is_another_run(table):
    digests = []
    for shares in (SOFT, np.where(SOFT == 0.6, 0.55, SOFT)):
        splits, _ = load_splits(arguments(table(shares)), seed=0)
        streams, _ = load_streams(arguments(table(shares)))
        digests.append({clip_set(split).digest() for split in (*splits.values(), *streams.values())})
    assert not digests[0] & digests[1]


def test_the_loss_of_soft_labels_is_that_of_torch():
    logits = np.random.default_rng(0).normal(size=SOFT.shape).astype(np.float32)
    shares = torch.tensor(SOFT, dtype=torch.float32)
    expected = torch.nn.functional.binary_cross_entropy_with_logits(torch.from_numpy(logits), shares)
    assert mean_loss(logits, shares.numpy(), "multi_label_classification") == pytest.approx(float(expected), rel=1e-6)


def test_soft_labels_are_trained_on_scored_and_published(table, tmp_path, monkeypatch):
    path = table(SOFT, split=["train"] * 3 + ["test"] * 5)
    monkeypatch.chdir(tmp_path)
    tiny = {
        "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32, "max_length": 32,
        "num_train_epochs": 1, "save_strategy": "no", "disable_tqdm": True, "use_cpu": True, "class_weights": "balanced",
    }  # fmt: skip
    words = [word for name, value in tiny.items() for word in (f"--{name}", str(value))]
    clips = ["--dataset_name", str(path), "--label_columns", *LABELS]
    assert main([*clips, *words, "--output_dir", "run"]) == 0
    summary = json.loads((tmp_path / "run" / "run_summary.json").read_text())
    assert summary["data"]["label_columns"] == LABELS
    assert summary["data"]["splits"]["test"]["label_counts"] == {"dog": 2, "cat": 2, "owl": 2}
    card = (tmp_path / "run" / "README.md").read_text()
    assert "In counts and scores, a clip has a label from a share of 0.5 on." in card

    scored = ["--model_name_or_path", "run", *clips, "--predictions", "scores.csv", "--output", "scores.json"]
    assert run_evaluate.main(scored) == 0
    with open("scores.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    scores = np.array([[float(row[label]) for label in LABELS] for row in rows])
    truth = SOFT[3:] >= 0.5
    assert [row["truth"] for row in rows] == [";".join(np.array(LABELS)[row]) for row in truth]
    metrics = summary["evaluation"]["metrics"]
    assert metrics["mean_average_precision"] == pytest.approx(average_precision_score(truth, scores, average="macro"))
    assert metrics["roc_auc_macro"] == pytest.approx(roc_auc_score(truth, scores, average="macro"))
    expected = -(SOFT[3:] * np.log(scores) + (1 - SOFT[3:]) * np.log(1 - scores)).mean()
    assert metrics["loss"] == pytest.approx(expected, rel=1e-5)
    evaluated = json.loads((tmp_path / "scores.json").read_text())["evaluations"][0]["metrics"]
    assert evaluated["roc_auc_macro"] == pytest.approx(metrics["roc_auc_macro"])


def test_hard_labels_say_nothing_of_shares(table):
    data = arguments(table(HARD))
    splits, method = load_splits(data, seed=0)
    assert "share_that_counts" not in data_section(data, clip_sets(splits), method)

"""Folds of a cross-validation: one pair of splits for each value of a column."""

import datasets
import pandas as pd
import pytest

from finetune.arguments.groups import DataArguments
from finetune.sources.data_errors import DataError
from finetune.sources.labels import label_names
from finetune.sources.splits import load_folds
from tests.finetune.sources.loading import names_of


@pytest.fixture
def fold_rows(table):
    """Five folds of which one is called 10, across the splits of the column "split"."""
    folds = ["10", "2", "1", "9", "3"]
    return [row | {"fold": folds[i % 5]} for i, row in enumerate(table.rows)]


def load_fold_pairs(source, **fields):
    return load_folds(DataArguments(dataset_name=str(source), **fields))


def test_each_fold_is_scored_by_a_model_of_the_others(table, fold_rows):
    folds, method = load_fold_pairs(table(fold_rows), fold_column_name="fold")
    assert [name for name, _ in folds] == ["1", "2", "3", "9", "10"]
    scored = []
    for name, splits in folds:
        assert set(splits["eval"]["fold"]) == {name}
        assert set(splits["train"]["fold"]) == {"1", "2", "3", "9", "10"} - {name}
        assert len(splits["train"]) + len(splits["eval"]) == 20
        scored += [audio["path"] for audio in splits["eval"]["audio"]]
    assert len(set(scored)) == 20, "each clip is scored once"
    assert "5 folds by the column 'fold'" in method
    assert "the column 'split' has no part in it" in method
    folds, method = load_fold_pairs(table(fold_rows), fold_column_name="fold", split_column_name="split")
    assert sum(len(splits["eval"]) for _, splits in folds) == 14, "as asked for, of the training split alone"
    assert "without 'test' (6 clips) of the column 'split'" in method


def test_all_folds_have_the_labels_of_all(table, fold_rows):
    rows = [row | {"label": "cow"} if row["fold"] == "9" and row["label"] == "cat" else row for row in fold_rows]
    folds, _ = load_fold_pairs(table(rows), fold_column_name="fold")
    assert {tuple(label_names(split)) for _, splits in folds for split in splits.values()} == {("cat", "cow", "dog")}
    name, splits = folds[3]
    assert name == "9"
    assert set(splits["eval"]["label"]) == {1, 2}
    assert set(splits["train"]["label"]) == {0, 2}


def test_a_split_column_that_was_asked_for_keeps_its_scored_clips_out_of_the_folds(table, fold_rows):
    rows = [{("part" if name == "split" else name): value for name, value in row.items()} for row in fold_rows]
    folds, method = load_fold_pairs(table(rows), fold_column_name="fold", split_column_name="part")
    assert sum(len(splits["eval"]) for _, splits in folds) == 14
    assert "without 'test' (6 clips) of the column 'part'" in method
    with pytest.raises(DataError, match="No clip is in the split 'learn' of the column 'part'.* --train_split_name"):
        load_fold_pairs(table(rows), fold_column_name="fold", split_column_name="part", train_split_name="learn")


@pytest.mark.parametrize("column", ["split", "part"])
def test_the_split_column_may_hold_the_folds(table, fold_rows, column):
    rows = [{name: row[name] for name in ("file_name", "label")} | {column: row["fold"]} for row in fold_rows]
    folds, method = load_fold_pairs(table(rows), fold_column_name=column, split_column_name=column)
    assert [name for name, _ in folds] == ["1", "2", "3", "9", "10"]
    assert method == f"5 folds by the column {column!r}, each scored by a model of the others"


def test_the_drum_sources_as_folds_of_a_folder_with_metadata(drum_rows):
    folds, _ = load_fold_pairs("finetune/sample_data/drums", fold_column_name="source")
    assert [name for name, _ in folds] == sorted({row["source"] for row in drum_rows})
    assert sum(len(splits["eval"]) for _, splits in folds) == len(drum_rows)


def test_folds_of_the_hub_are_made_of_all_its_splits(class_folders, monkeypatch):
    features = {"audio": datasets.Audio(decode=False), "label": datasets.ClassLabel(names=["dog", "cat"])}
    features = datasets.Features(features | {"fold": datasets.Value("int64")})
    splits = {
        name: datasets.Dataset.from_dict(
            {
                "audio": [str(class_folders / f"{label}/test_{i}.wav") for i in digits for label in ("cat", "dog")],
                "label": [1, 0] * len(digits),
                "fold": [fold for fold in folds for _ in range(2)],
            },
            features,
        )
        for name, digits, folds in (("train", (0, 1), (10, 2)), ("extra", (2,), (2,)))
    }
    monkeypatch.setattr(datasets, "load_dataset", lambda name, config: datasets.DatasetDict(splits))
    folds, method = load_fold_pairs("user/pets", fold_column_name="fold")
    assert [(name, len(splits["eval"])) for name, splits in folds] == [("2", 4), ("10", 2)]
    assert "of the splits train, extra together" in method
    assert names_of(folds[1][1]["eval"]) == {"cat/test_0.wav", "dog/test_0.wav"}
    assert folds[1][1]["eval"]["label"][:] == [1, 0]


@pytest.mark.parametrize(
    ("fold", "fields", "message"),
    [
        ("1", {}, "The column 'fold' has 1 for all clips, expected two folds or more"),
        ("1", {"fold_column_name": "part"}, "fold_column_name='part' is not in the data set; it has"),
        ("", {}, r"Row\(s\) 1, 2, 3, 4, 5 and 15 more have nothing in the column 'fold'"),
    ],
)
def test_columns_that_make_no_folds(table, fold, fields, message):
    rows = [row | {"fold": fold} for row in table.rows]
    with pytest.raises(DataError, match=message):
        load_fold_pairs(table(rows), **{"fold_column_name": "fold"} | fields)


def test_a_group_in_two_folds(table, fold_rows):
    rows = [row | {"take": row["fold"]} for row in fold_rows]
    assert load_fold_pairs(table(rows), fold_column_name="fold", group_column_name="take")
    rows[0]["take"] = "9"
    with pytest.raises(DataError, match="The column 'take' has clips of 9 in more than one fold of 'fold'"):
        load_fold_pairs(table(rows), fold_column_name="fold", group_column_name="take")


def test_a_fold_that_no_json_record_names_is_none(class_folders):
    rows = [{"path": "cat/test_0.wav", "label": "cat", "fold": 1}, {"path": "dog/test_0.wav", "label": "dog"}]
    pd.DataFrame(rows).to_json(class_folders / "clips.jsonl", orient="records", lines=True)
    with pytest.raises(DataError, match=r"Row\(s\) 2 have nothing in the column 'fold'"):
        load_fold_pairs(class_folders / "clips.jsonl", fold_column_name="fold")

"""Folders, tables and columns of users, right and wrong."""

import os
import shutil

import datasets
import numpy as np
import pandas as pd
import pytest
import soundfile
from datasets.exceptions import DatasetGenerationError

from finetune.arguments.groups import DataArguments
from finetune.clip_sets.waveforms import ASTDataset
from finetune.sources.data_errors import DataError
from finetune.sources.labels import label_names
from finetune.sources.marked_recordings import load_marked
from modeling_ast.audio import AudioReader
from tests.finetune.sources.loading import load


def test_class_folders_below_split_folders(class_folders, tmp_path):
    for split, digits in (("train", "0123456"), ("test", "789")):
        for label in ("cat", "dog"):
            (tmp_path / "sorted" / split / label).mkdir(parents=True)
            for digit in digits:
                shutil.copy(class_folders / label / f"test_{digit}.wav", tmp_path / "sorted" / split / label)
    splits, _ = load(tmp_path / "sorted")
    assert (len(splits["train"]), len(splits["eval"])) == (14, 6)
    assert splits["train"].features["label"].names == ["cat", "dog"]


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet", "parquet with bytes"])
def test_tables_of_every_kind(table, class_folders, kind):
    frame = pd.DataFrame(table.rows)
    suffix = kind.split()[0]
    path = class_folders / f"clips.{suffix}"
    if kind == "parquet with bytes":
        content = [(class_folders / name).read_bytes() for name in frame.pop("file_name")]
        frame["audio"] = [{"bytes": one, "path": None} for one in content]
    if suffix == "parquet":
        frame.to_parquet(path)
    elif suffix == "jsonl":
        frame.to_json(path, orient="records", lines=True)
    else:
        frame.to_csv(path, sep="\t" if suffix == "tsv" else ",", index=False)
    splits, _ = load(path)
    assert (len(splits["train"]), len(splits["eval"])) == (14, 6)
    item = ASTDataset(splits["eval"], AudioReader(), 16_000)[0]
    assert item["label"] == 0
    expected = soundfile.read(class_folders / "cat" / "test_7.wav", dtype="float32")[0]
    np.testing.assert_array_equal(item["waveform"], expected)


def test_labels_that_look_like_numbers_or_nothing_stay_text(table):
    rows = [row | {"label": "NA" if row["label"] == "cat" else "007"} for row in table.rows]
    splits, _ = load(table(rows))
    assert splits["train"].features["label"].names == ["007", "NA"]


def test_hidden_files_and_folders_are_passed_over(class_folders, write_clip):
    write_clip(class_folders / "cat" / ".hidden.wav")
    write_clip(class_folders / ".cache" / "old.wav")
    splits, _ = load(class_folders)
    assert sum(map(len, splits.values())) == 20


def test_a_file_name_that_is_not_in_utf_8_is_refused_in_words(class_folders, write_clip):
    name = os.fsdecode(b"m\xfcller.wav")  # Latin-1
    try:
        write_clip(class_folders / "cat" / "new.wav").rename(class_folders / "cat" / name)
    except OSError:
        pytest.skip("this file system takes no such name")
    with pytest.raises(DataError, match=r"cat/m\\udcfcller.wav' is not in UTF-8.* Rename it"):
        load(class_folders)


def test_the_chosen_columns_win_over_others_of_the_usual_names(table):
    rows = [
        row | {"species": row["label"], "label": "pet", "fold": row["split"], "split": "train"} for row in table.rows
    ]
    splits, _ = load(table(rows), label_column_name="species", split_column_name="fold")
    assert splits["train"].features["label"].names == ["cat", "dog"]
    assert (len(splits["train"]), len(splits["eval"])) == (14, 6)


def test_audio_that_is_neither_a_path_nor_bytes(class_folders):
    (class_folders / "clips.jsonl").write_text('{"audio": 5, "label": "cat"}\n')
    with pytest.raises(DataError, match="The audio column holds 5"):
        load(class_folders / "clips.jsonl")


@pytest.mark.parametrize(
    ("label_type", "names"),
    [
        (datasets.Value("string"), ["cat", "dog"]),
        (datasets.ClassLabel(names=["dog", "cow", "newt", "cat"]), ["dog", "newt", "cat"]),
    ],
    ids=["strings", "ClassLabel"],
)
def test_a_hub_data_set_and_the_order_of_its_labels(pets_hub, label_type, names):
    pets_hub(
        {"train": ["cat", "dog", "cat", "dog"], "test": ["x", "x", "x", "x", "dog", "cat", "cow"][4:]}, label_type
    )
    splits, method = load("user/pets", audio_column_name="sound", ignore_labels=["cow"], drop_duplicate_audio=True)
    assert method.startswith("as the data set on the Hub says")
    assert label_names(splits["eval"]) == names
    assert splits["eval"]["label"][:] == [names.index("dog"), names.index("cat")]
    assert splits["train"].features["audio"] == datasets.Audio(decode=False)


def test_columns_in_which_hub_splits_differ_stay_behind(class_folders, monkeypatch):
    splits = {}
    for name, digit, others in (
        ("train", 0, {"take": [1, 2], "note": ["a", "b"], "kit": [1, 1]}),
        ("test", 1, {"take": ["x", "y"], "kit": [2, 2]}),
    ):
        rows = {"audio": [str(class_folders / f"{label}/test_{digit}.wav") for label in ("cat", "dog")]}
        split = datasets.Dataset.from_dict(rows | {"label": ["cat", "dog"]} | others)
        splits[name] = split.cast_column("audio", datasets.Audio(decode=False))
    monkeypatch.setattr(datasets, "load_dataset", lambda name, config: datasets.DatasetDict(splits))
    loaded, _ = load("user/pets")
    assert loaded["train"].column_names == loaded["eval"].column_names == ["audio", "label", "kit"]
    assert loaded["eval"]["kit"][:] == [2, 2]


@pytest.mark.parametrize("label_type", [datasets.Value("string"), datasets.ClassLabel(names=["cat", "dog"])])
def test_a_hub_clip_without_a_label(class_folders, monkeypatch, label_type):
    features = datasets.Features({"audio": datasets.Audio(decode=False), "label": label_type})
    labels = ["cat", "dog", "cat", None if label_type.dtype == "string" else -1]
    paths = [
        str(class_folders / name) for name in ("cat/test_0.wav", "dog/test_0.wav", "cat/test_1.wav", "dog/test_1.wav")
    ]
    splits = {
        name: datasets.Dataset.from_dict({"audio": paths[part], "label": labels[part]}, features)
        for name, part in (("train", slice(0, 2)), ("test", slice(2, 4)))
    }
    monkeypatch.setattr(datasets, "load_dataset", lambda name, config: datasets.DatasetDict(splits))
    with pytest.raises(DataError, match=r"Row\(s\) 2 of the split 'test' have nothing in the column 'label'"):
        load("user/pets")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "audio_column_name='audio' is not in the data set; it has 'sound', 'label'"),
        ({"audio_column_name": "sound", "eval_split_name": "dev"}, "has no split 'dev'; it has train, test"),
    ],
)
def test_a_hub_data_set_with_other_names(pets_hub, fields, message):
    pets_hub({"train": ["cat", "dog"], "test": ["dog", "cat"]}, datasets.Value("string"))
    with pytest.raises(DataError, match=message):
        load("user/pets", **fields)


@pytest.mark.parametrize("kind", [ConnectionError, ValueError, RuntimeError, DatasetGenerationError])
@pytest.mark.parametrize("marks", [None, "columns"])
def test_a_hub_data_set_that_cannot_be_had(monkeypatch, kind, marks):
    def fail(name, config):
        raise kind("offline")

    monkeypatch.setattr(datasets, "load_dataset", fail)
    monkeypatch.setattr("finetune.sources.hub.hub_hint", lambda is_here: " A hint." * (not is_here))
    said = r"user/pets is neither .* nor a data set that the Hub gives \(offline\).* --dataset_config_name\. A hint\."
    with pytest.raises(DataError, match=said):
        load("user/pets") if marks is None else load_marked(DataArguments(dataset_name="user/pets", marks=marks), 0)


def test_ignored_labels_are_left_out(table):
    rows = table.rows + [table.rows[0] | {"label": "noise", "split": "test"}]
    splits, _ = load(table(rows), ignore_labels=["noise"])
    assert splits["eval"].features["label"].names == ["cat", "dog"]


def test_ignoring_a_label_that_is_not_there(class_folders):
    with pytest.raises(DataError, match="ignore_labels names dgo, which no clip has; there are cat, dog"):
        load(class_folders, ignore_labels=["dgo"])


@pytest.mark.parametrize("cell", [{"label": ""}, {"file_name": ""}, {"split": ""}])
def test_empty_cells(table, cell):
    with pytest.raises(DataError, match=rf"(?i)row\(s\) 21 have nothing in the column '{next(iter(cell))}'"):
        load(table(table.rows + [table.rows[0] | cell]))


def test_one_of_two_split_folders(class_folders, tmp_path):
    shutil.copytree(class_folders, tmp_path / "data" / "train")
    shutil.copytree(class_folders, tmp_path / "data" / "validation")
    with pytest.raises(DataError, match="'train' looks like a split.* --train_split_name and --eval_split_name"):
        load(tmp_path / "data")


def test_clips_below_class_folders(class_folders, write_clip):
    write_clip(class_folders / "fold1" / "dog" / "deep.wav")
    with pytest.raises(DataError, match="deep.wav lies 2 folders deep"):
        load(class_folders)


def test_a_folder_without_audio(tmp_path):
    with pytest.raises(DataError, match=r"holds no audio file .* Pass another --dataset_name"):
        load(tmp_path)


def test_clips_outside_class_folders(class_folders, write_clip):
    write_clip(class_folders / "stray.wav")
    with pytest.raises(DataError, match=r"stray.wav lies in no class folder. Expected .*CLASS/stray.wav"):
        load(class_folders)


def test_a_path_that_is_not_there(tmp_path):
    with pytest.raises(DataError, match="Pass --dataset_name with a folder, a table, or a Hub id like user/name"):
        load(tmp_path / "nowhere.csv")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"label_column_name": "class"},
            r"label_column_name='class' is not in the data set; it has 'file_name', 'label'",
        ),
        (
            {"eval_split_name": "validation"},
            r"the data has 'train' \(14 clips\), 'test' \(6 clips\). Pass --eval_split_name",
        ),
    ],
)
def test_a_column_or_split_that_is_not_there(table, fields, message):
    with pytest.raises(DataError, match=message):
        load(table(), **fields)


def test_no_audio_column(table):
    rows = [{"sound": row["file_name"], "label": row["label"]} for row in table.rows]
    with pytest.raises(DataError, match="audio_column_name='audio' is not in the data set; it has 'sound', 'label'"):
        load(table(rows))
    assert load(table(rows), audio_column_name="sound")


def test_other_columns_come_along_whatever_they_are_called(table):
    splits, _ = load(table([row | {"side": "left"} for row in table.rows]))
    assert set(splits["train"]["side"]) == {"left"}

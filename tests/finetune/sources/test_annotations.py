"""Several rows of one file, as of several annotators: kept on one side of a split, or joined into one clip."""

from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import pytest
import soundfile

from finetune.arguments.groups import DataArguments
from finetune.clip_sets.audio_clips import check_splits
from finetune.clip_sets.clip_datasets import clip_sets
from finetune.clip_sets.waveforms import ASTDataset
from finetune.runs.preparation import prepare_data
from finetune.sources.data_errors import DataError
from finetune.sources.labels import is_multi_label, label_names
from finetune.sources.splits import load_folds, load_splits
from modeling_ast import ASTFeatureExtractor
from modeling_ast.audio import AudioReader

# What three annotators gave each of the files that are told apart by their number.
VOTES = {0: ["cat", "cat", "dog"], 1: ["dog", "dog", "dog"], 2: ["cat", "dog", "owl"], 3: ["cat", "cat", "cat"]}


@pytest.fixture
def folder(tmp_path):
    for index in VOTES:
        soundfile.write(tmp_path / f"{index}.wav", np.random.default_rng(index).uniform(-0.5, 0.5, 1600), 16_000)
    return tmp_path


@pytest.fixture
def votes(folder):
    """Write a table with a row for each vote; its audio is paths, or bytes that all have one name."""

    def write(name="clips.csv", votes=VOTES, **columns):
        rows = [
            (index, label)
            for number in range(3)
            for index, of_file in votes.items()
            for label in of_file[number : number + 1]
        ]
        frame = pd.DataFrame({"file": [f"{index}.wav" for index, _ in rows], "label": [label for _, label in rows]})
        for column, values in columns.items():
            frame[column] = [values[index] for index, _ in rows]
        if name.endswith("parquet"):
            frame["file"] = [{"bytes": (folder / path).read_bytes(), "path": "clip.wav"} for path in frame["file"]]
            frame.to_parquet(folder / name)
        else:
            frame.to_csv(folder / name, index=False)
        return folder / name

    return write


def load(path, **fields):
    return load_splits(DataArguments(dataset_name=str(path), **{"eval_fraction": 0.25} | fields), seed=0)


def joined(splits, folder):
    """Targets of every file, as names with their shares."""
    contents = {(folder / f"{index}.wav").read_bytes(): index for index in VOTES}
    found = {}
    for split in splits.values():
        clips, names = ASTDataset(split, AudioReader(), 1600, binary_targets=True), label_names(split)
        for row in range(len(split)):
            audio = split[row]["audio"]
            content = audio["bytes"] or Path(audio["path"]).read_bytes()
            shares = clips[row]["label"]
            found[contents[content]] = {
                name: round(float(share), 3) for name, share in zip(names, shares, strict=True) if share
            }
    return found


@pytest.mark.parametrize("name", ["clips.csv", "clips.parquet"])
@pytest.mark.parametrize(
    ("method", "targets", "multi_label"),
    [
        ("any", {0: {"cat": 1, "dog": 1}, 1: {"dog": 1}, 2: {"cat": 1, "dog": 1, "owl": 1}, 3: {"cat": 1}}, True),
        ("majority", {0: {"cat": 1}, 1: {"dog": 1}, 3: {"cat": 1}}, False),
        ("all", {1: {"dog": 1}, 3: {"cat": 1}}, False),
        (
            "share",
            {0: {"cat": 0.667, "dog": 0.333}, 1: {"dog": 1}, 2: {"cat": 0.333, "dog": 0.333, "owl": 0.333}, 3: {"cat": 1}},
            True,
        ),
    ],
)  # fmt: skip
def test_rows_of_a_file_become_one_clip(votes, folder, name, method, targets, multi_label):
    path = votes(name, split=["train", "train", "train", "test"])
    loaded, words = load(path, audio_column_name="file", join_annotations=method)
    assert joined(loaded, folder) == targets
    assert is_multi_label(loaded["train"]) == multi_label
    assert f"12 rows of 4 clips joined by '{method}' (4 have more than one row)" in words
    assert ("whose labels are independent of each other now" in words) == multi_label
    if method == "majority":
        assert "1 on which the rows do not agree are left out: " in words
        assert "(cat 1, dog 1, owl 1) (--join_annotations any or share keeps them)" in words
        assert str(folder) not in words, "which stands on the card"


def test_rows_with_several_labels_are_joined_label_by_label(folder):
    rows = [
        ["cat;dog", "cat", "cat;owl"],
        ["dog", "dog;cat", ""],
        ["cat;dog", "cat", "", "dog;cat"],
        ["owl", "owl", "owl"],
    ]
    table = [(f"{index}.wav", text) for index, of_file in enumerate(rows) for text in of_file]
    pd.DataFrame(table, columns=["file", "label"]).to_csv(folder / "clips.csv", index=False)
    expected = {
        "any": [{"cat", "dog", "owl"}, {"cat", "dog"}, {"cat", "dog"}, {"owl"}],
        "majority": [{"cat"}, {"dog"}, {"cat"}, {"owl"}],
        "all": [{"cat"}, set(), set(), {"owl"}],
    }
    for method, of_files in expected.items():
        splits, words = load(folder / "clips.csv", label_separator=";", join_annotations=method)
        assert {index: set(shares) for index, shares in joined(splits, folder).items()} == dict(enumerate(of_files))
        assert ("without labels that exactly half of the rows of a clip have (in 1 clips)" in words) == (
            method == "majority"
        )


def test_shares_of_annotators_are_joined_by_their_mean(folder):
    frame = pd.DataFrame(
        {"file": [f"{index // 2}.wav" for index in range(8)], "cat": [0.2, 0.4, 1, 1, 0, 0.5, 0, 0], "dog": 1 / 4}
    )
    frame.to_csv(folder / "clips.csv", index=False)
    fields = {"label_columns": ["cat", "dog"]}
    for method, expected in {"share": 0.3, "any": 0.4, "all": 0.2}.items():
        splits, _ = load(folder / "clips.csv", join_annotations=method, **fields)
        assert joined(splits, folder)[0]["cat"] == expected


def test_rows_that_agree_on_no_clip_are_told(folder):
    table = [("0.wav", "cat"), ("0.wav", "dog"), ("1.wav", "dog"), ("1.wav", "owl")]
    pd.DataFrame(table, columns=["file", "label"]).to_csv(folder / "clips.csv", index=False)
    with pytest.raises(DataError, match="agree on a label in no clip.*Pass --join_annotations any or share"):
        load(folder / "clips.csv", join_annotations="majority")


def test_different_labels_of_a_file_are_refused_with_what_to_type(votes):
    path = votes()
    with pytest.raises(
        DataError, match=r"2 file\(s\) stand in .*--join_annotations any, majority.*--group_column_name audio"
    ):
        load(path)
    with pytest.raises(DataError, match=r"\(cat, dog\)"):
        load(votes(split=["train", "train", "train", "test"]), validation_fraction=0.5)


@pytest.mark.parametrize("name", ["clips.csv", "clips.parquet"])
@pytest.mark.parametrize("column", ["audio", "file", "path"])
def test_the_column_of_the_audio_keeps_the_rows_of_a_file_together(votes, name, column):
    path = votes(name)
    fields = {"audio_column_name": "file"} if name.endswith("parquet") else {}
    splits, words = load(path, group_column_name=column, **fields)
    assert {side: len(split) for side, split in splits.items()} == {"train": 9, "eval": 3}
    assert f"the column {column!r} kept together" in words
    check_splits(clip_sets(splits), DataArguments(dataset_name=str(path)), AudioReader(), 1600)


def test_a_group_column_of_lists_is_refused_in_words(folder):
    frame = pd.DataFrame({"audio": [str(folder / f"{index}.wav") for index in VOTES], "label": list("abab")})
    frame["tags"] = [["x"], ["y"], ["x"], ["z"]]
    dataset = datasets.Dataset.from_pandas(frame)
    dataset.save_to_disk(folder / "saved")
    with pytest.raises(DataError, match=r"The column 'tags' holds list values such as \['x'\].*--group_column_name"):
        load(folder / "saved", group_column_name="tags")


def test_rows_of_a_file_in_two_splits_or_folds_are_not_joined(votes, folder):
    frame = pd.read_csv(votes())
    frame["split"] = ["train"] * 4 + ["test"] * 8
    frame["fold"] = [0] * 4 + [1] * 8
    frame.to_csv(folder / "clips.csv", index=False)
    with pytest.raises(DataError, match="Rows 1 and 5 are of one clip, but have 'train' and 'test' as their split"):
        load(folder / "clips.csv", join_annotations="any")
    frame.drop(columns="split").to_csv(folder / "clips.csv", index=False)
    data = DataArguments(dataset_name=str(folder / "clips.csv"), join_annotations="any", fold_column_name="fold")
    with pytest.raises(DataError, match="have '0' and '1' as their fold"):
        load_folds(data)


def test_a_split_of_the_data_keeps_the_rows_with_a_word_of_advice(votes):
    split = ["train", "train", "test", "test"]
    path = votes(votes=VOTES | {2: ["dog"] * 3}, split=split)
    data = DataArguments(dataset_name=str(path))
    splits, method, notes, _ = prepare_data(data, ASTFeatureExtractor(max_length=32), 0)
    assert len(splits["train"]) == 6
    assert any("1 file(s) stand in several rows with different labels" in note for note in notes)
    assert "different labels" not in method, "advice is no property of the model"
    assert not prepare_data(data.with_changes(join_annotations="any"), ASTFeatureExtractor(max_length=32), 0)[2]


def test_a_split_with_a_file_on_both_sides_is_refused_with_what_to_type(votes, folder):
    frame = pd.read_csv(votes(votes={0: ["cat"] * 3, 1: ["dog"] * 3, 2: ["cat"] * 3, 3: ["dog"] * 3}))
    frame["split"] = ["train"] * 8 + ["test"] * 4
    frame.to_csv(folder / "clips.csv", index=False)
    splits, _ = load(folder / "clips.csv")
    with pytest.raises(DataError, match="--group_column_name audio .* or --join_annotations .*--drop_duplicate_audio"):
        check_splits(clip_sets(splits), DataArguments(dataset_name="x"), AudioReader(), 1600)


def test_only_known_ways_to_join():
    with pytest.raises(ValueError, match="join_annotations='most' is not among any, majority, all, share"):
        DataArguments(dataset_name="x", join_annotations="most")

"""Streams have the rows and labels that the same data has at hand, in every form that it can be read in."""

import json
import re
import shutil
from collections import Counter

import datasets
import numpy as np
import pandas as pd
import pytest

from finetune.arguments.groups import DataArguments
from finetune.clip_sets.streaming import load_streams
from finetune.sources.splits import load_splits
from finetune.sources.stream_sources import hub_sources
from tests.finetune.clip_sets.streamed_clips import arguments, content, write


@pytest.mark.parametrize("form", ["csv", "tsv", "jsonl", "parquet"])
def test_a_stream_has_the_rows_that_the_same_table_has_at_hand(tmp_path, rows, form):
    path = str(write(tmp_path, form, rows))
    streams, words = load_streams(arguments(dataset_name=path, ignore_labels=["bell"]))
    splits, _ = load_splits(DataArguments(dataset_name=path, ignore_labels=["bell"]), seed=0)
    assert words.startswith("as the column 'split' says, streamed without looking for clips that are in two splits")
    assert streams.keys() == splits.keys()
    for side, split in splits.items():
        assert streams[side].features["label"].names == split.features["label"].names
        assert list(streams[side]) == list(split.select_columns(["audio", "label"]))
        assert len(streams[side]) == len(split)
        assert streams[side].label_counts().tolist() == np.bincount(split["label"], minlength=8).tolist()


def test_each_split_may_have_a_table_of_its_own(tmp_path, rows):
    train, test = (
        write(tmp_path, form, [row for row in rows if row["split"] == split], split)
        for split, form in (("train", "parquet"), ("test", "csv"))
    )
    given = {"train_file": str(train), "eval_file": str(test)}
    streams, words = load_streams(arguments(**given))
    splits, _ = load_splits(DataArguments(**given), seed=0)
    assert words.startswith("as the files say")
    assert {side: list(stream) for side, stream in streams.items()} == {
        side: list(split.select_columns(["audio", "label"])) for side, split in splits.items()
    }


@pytest.mark.parametrize("form", ["parquet", "json"])
def test_a_data_set_of_the_hub_keeps_the_order_of_its_labels(tmp_path, rows, form):
    names = sorted({row["label"] for row in rows}, reverse=True)
    for split in ("train", "test"):
        part = [row for row in rows if row["split"] == split]
        for shard in range(2):
            chosen = part[shard::2]
            if form == "parquet":
                audio = [{"bytes": content(row), "path": row["file_name"]} for row in chosen]
                columns = {"audio": audio, "label": [names.index(row["label"]) for row in chosen]}
                kinds = datasets.Features({"audio": datasets.Audio(), "label": datasets.ClassLabel(names=names)})
                datasets.Dataset.from_dict(columns, kinds).to_parquet(
                    tmp_path / "data" / f"{split}-0000{shard}-of-00002.parquet"
                )
            else:
                lines = [json.dumps({"audio": row["path"], "label": row["label"]}) for row in chosen]
                (tmp_path / "data").mkdir(exist_ok=True)
                (tmp_path / "data" / f"{split}-0000{shard}-of-00002.jsonl").write_text("\n".join(lines))
    given = arguments(dataset_name=str(tmp_path))
    if form == "json":  # as a folder of this machine it is told to leave out --streaming
        source = hub_sources(str(tmp_path), given)[0]["eval"]
        pieces = list(source.pieces(["audio", "label"], 4))
        expected = [row for shard in range(2) for row in [row for row in rows if row["split"] == "test"][shard::2]]
        assert [label for piece in pieces for label in piece["label"]] == [row["label"] for row in expected]
        assert max(len(piece["label"]) for piece in pieces) == 4
        assert source.paths
        return
    streams, _ = load_streams(given)
    assert streams["train"].features["label"].names == names
    expected = [row for shard in range(2) for row in [row for row in rows if row["split"] == "test"][shard::2]]
    found = list(streams["eval"])
    assert [(row["audio"]["bytes"], names[row["label"]]) for row in found] == [
        (content(row), row["label"]) for row in expected
    ]
    with pytest.raises(ValueError, match=r"no split 'dev'; it has train, test. Pass --eval_split_name"):
        load_streams(arguments(dataset_name=str(tmp_path), eval_split_name="dev"))


def test_several_labels_and_given_ones_are_read_in_pieces(tmp_path, rows, monkeypatch):
    monkeypatch.setattr("finetune.sources.stream_labels.LABELS_AT_ONCE", 3)
    monkeypatch.setattr("finetune.clip_sets.streaming.CLIPS_AT_ONCE", 3)
    several = [
        row | {"label": ["", row["label"], f"{row['label']}; drum"][place % 3]} for place, row in enumerate(rows)
    ]
    path = str(write(tmp_path, "csv", several))
    order = ["drum", "never", *sorted({row["label"] for row in rows})]
    given = {"dataset_name": path, "label_separator": ";", "labels": order}
    streams, _ = load_streams(arguments(**given))
    splits, _ = load_splits(DataArguments(**given), seed=0)
    assert streams["train"].features["label"].feature.names == order
    assert list(streams["train"]) == list(splits["train"].select_columns(["audio", "label"]))
    counts = Counter(label for labels in splits["train"]["label"] for label in labels)
    assert streams["train"].label_counts().tolist() == [counts[label] for label in range(len(order))]


@pytest.mark.parametrize(
    ("first", "then", "message"),
    [
        ("kick", ["kick"], r"mixes texts and lists: row 1 of .* row 4 of .*--label_separator"),
        (["kick"], "kick", r"mixes texts and lists: row 4 of .* row 1 of .*--label_separator"),
        ([0, 1, 1], [0, 1], r"different lengths: row 1 .* has 3 values, row 4 .* has 2\. Give every clip one 0 or 1"),
        (["kick", "a", "b"], [0, 1, 1], r"hold int, str\. Expected names of labels only, or only 0 and 1"),
        (1, "1", r"mixes texts and numbers: row 4 of .* has '1', row 1 of .* has 1\. Write all as texts"),
        ("1", 1, r"mixes texts and numbers: row 1 of .* has '1', row 4 of .* has 1\. Write all as texts"),
    ],
)
@pytest.mark.parametrize("tables", [1, 2])
def test_a_column_that_changes_its_form_is_refused_as_at_hand(
    tmp_path, rows, monkeypatch, first, then, message, tables
):
    monkeypatch.setattr("finetune.sources.stream_labels.LABELS_AT_ONCE", 3)
    path, other = tmp_path / "clips.jsonl", tmp_path / "other.jsonl"
    lines = [
        json.dumps({"path": rows[0]["path"], "label": label, "split": "train"}) for label in 3 * [first] + 3 * [then]
    ]
    given = {"dataset_name": str(path)}
    if tables == 2:
        given = {"train_file": str(path), "eval_file": str(other)}
        message = message.replace("row 4", "row 1")
        other.write_text("\n".join(lines[3:]))
    path.write_text("\n".join(lines[: 6 if tables == 1 else 3]))
    with pytest.raises(ValueError, match=message):
        load_streams(arguments(**given))
    with pytest.raises(ValueError, match=re.sub(" of .*?has|:.*", ".*", message)):
        load_splits(DataArguments(**given), seed=0)


def test_lists_without_labels_do_not_change_the_form_of_a_column(tmp_path, rows, monkeypatch):
    monkeypatch.setattr("finetune.sources.stream_labels.LABELS_AT_ONCE", 2)
    labels = [[], [], ["kick"], ["snare", "kick"], [], [], ["snare"]]
    lines = [{"path": row["path"], "label": label} for row, label in zip(rows, labels, strict=False)]
    table = tmp_path / "clips.jsonl"
    table.write_text("\n".join(map(json.dumps, lines)))
    (tmp_path / "other.jsonl").write_text(json.dumps(lines[2]))
    streams, _ = load_streams(arguments(train_file=str(table), eval_file=str(tmp_path / "other.jsonl")))
    assert [row["label"] for row in streams["train"]] == [[], [], [0], [0, 1], [], [], [1]]
    assert streams["train"].label_sets() == {(), (0,), (1,)}


def test_blank_lines_before_the_first_row_are_no_rows(tmp_path, rows):
    lines = [json.dumps({name: row[name] for name in ("path", "label", "split")}) for row in rows]
    (tmp_path / "clips.jsonl").write_text("\n\n" + "\n".join(lines))
    streams, _ = load_streams(arguments(dataset_name=str(tmp_path / "clips.jsonl")))
    assert len(list(streams["train"])) + len(list(streams["eval"])) == len(rows)


@pytest.mark.parametrize("empty", [1, 2])
def test_lists_without_labels_do_not_stand_for_those_with_names(tmp_path, rows, monkeypatch, empty):
    monkeypatch.setattr("finetune.sources.stream_labels.LABELS_AT_ONCE", 2)
    labels = [[]] * empty + [["kick"]] * empty + [[0, 1]] * 2
    lines = [{"path": row["path"], "label": label, "split": "train"} for row, label in zip(rows, labels, strict=False)]
    (tmp_path / "clips.jsonl").write_text("\n".join(map(json.dumps, lines)))
    with pytest.raises(ValueError, match=r"hold int, str\. Expected names of labels only"):
        load_streams(arguments(dataset_name=str(tmp_path / "clips.jsonl")))


def test_whole_numbers_are_the_same_labels_however_many_rows_are_read_together(tmp_path, rows):
    labels = ["1.0" if place == 20 else str(place % 2) for place in range(len(rows))]
    lines = [
        f'{{"path": "{row["path"]}", "label": {label}, "split": "{row["split"]}"}}'
        for row, label in zip(rows, labels, strict=True)
    ]
    path = tmp_path / "clips.jsonl"
    path.write_text("\n".join(lines))
    streams, _ = load_streams(arguments(dataset_name=str(path)))
    splits, _ = load_splits(DataArguments(dataset_name=str(path)), seed=0)
    assert streams["train"].features["label"].names == splits["train"].features["label"].names == ["0", "1"]
    for side, split in splits.items():
        assert list(streams[side]) == list(split.select_columns(["audio", "label"]))


def test_labels_that_are_written_in_two_ways_are_refused_unless_they_are_named(tmp_path, rows):
    table = str(write(tmp_path, "csv", [rows[0] | {"label": rows[0]["label"].upper() + " "}, *rows[1:]]))
    with pytest.raises(ValueError, match=rf"'{rows[0]['label'].upper()} ' \(1 clips\).* alike in the column 'label'"):
        load_streams(arguments(dataset_name=table))
    names = sorted({row["label"] for row in rows} | {rows[0]["label"].upper() + " "})
    streams, _ = load_streams(arguments(dataset_name=table, labels=names))
    assert streams["train"].features["label"].names == names


def test_sources_that_are_no_streams_are_refused_with_what_to_type(tmp_path, rows):
    (tmp_path / "folder" / "kick").mkdir(parents=True)
    shutil.copy(rows[0]["path"], tmp_path / "folder" / "kick")
    with pytest.raises(ValueError, match="leave out --streaming, or give it a metadata.csv"):
        load_streams(arguments(dataset_name=str(tmp_path / "folder")))
    (tmp_path / "clips.json").write_text("[]")
    with pytest.raises(ValueError, match=r"cannot be read in pieces. Pass one of .csv .tsv .jsonl .parquet"):
        load_streams(arguments(dataset_name=str(tmp_path / "clips.json")))
    table = str(write(tmp_path, "csv", rows))
    with pytest.raises(
        ValueError, match=r"train_file and eval_file are both .*clips.csv. Pass a table of other clips"
    ):
        load_streams(arguments(train_file=table, eval_file=table))
    with pytest.raises(ValueError, match=r"nowhere.csv is not there. Pass --dataset_name"):
        load_streams(arguments(dataset_name=str(tmp_path / "nowhere.csv")))
    (tmp_path / "empty.csv").write_text("path,label,split\n")
    with pytest.raises(ValueError, match="has no rows"):
        load_streams(arguments(dataset_name=str(tmp_path / "empty.csv")))
    (tmp_path / "nothing.csv").write_bytes(b"")
    with pytest.raises(ValueError, match="nothing.csv has no rows. Expected one per clip"):
        load_streams(arguments(dataset_name=str(tmp_path / "nothing.csv")))
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(ValueError, match="has no rows"):
        load_streams(arguments(dataset_name=str(tmp_path / "empty.jsonl")))
    (tmp_path / "doubled.csv").write_text("path,label,label,split\na.wav,kick,snare,train\n")
    with pytest.raises(ValueError, match=r"more than one column 'label'. Rename or remove"):
        load_streams(arguments(dataset_name=str(tmp_path / "doubled.csv")))
    (tmp_path / "torn.csv").write_text('path,label,split\n"a.wav,kick,train\n')
    with pytest.raises(ValueError, match=r"torn.csv cannot be read: .*Repair it"):
        load_streams(arguments(dataset_name=str(tmp_path / "torn.csv")))


def test_a_folder_of_parquet_files_may_have_paths_under_the_names_that_tables_have(tmp_path, rows):
    for split in ("train", "test"):
        part = pd.DataFrame([{key: row[key] for key in ("path", "label")} for row in rows if row["split"] == split])
        (tmp_path / "data").mkdir(exist_ok=True)
        part.to_parquet(tmp_path / "data" / f"{split}-00000-of-00001.parquet")
    streams, _ = load_streams(arguments(dataset_name=str(tmp_path)))
    assert [row["audio"]["path"] for row in streams["eval"]] == [row["path"] for row in rows if row["split"] == "test"]
    with pytest.raises(ValueError, match=r"other.*Check --dataset_name and --dataset_config_name"):
        load_streams(arguments(dataset_name=str(tmp_path), dataset_config_name="other"))

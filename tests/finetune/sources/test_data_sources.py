"""Data sets of one split, of the Hub and in Python; clips kept together by their file names; each file looked at once."""

import io
import json
import os
from pathlib import Path
from types import SimpleNamespace

import datasets
import numpy as np
import pandas as pd
import pytest
import soundfile
import yaml
from tiny_trainings import FIELDS

import finetune
from finetune import fine_tuning
from finetune.arguments.command_line import parse_arguments
from finetune.arguments.groups import DataArguments
from finetune.clip_sets.audio_clips import check_splits
from finetune.clip_sets.clip_datasets import clip_set, clip_sets
from finetune.clip_sets.streaming import load_streams
from finetune.failures.input_errors import InputError
from finetune.fine_tuning import fine_tune
from finetune.run_finetune import main
from finetune.runs.preparation import prepare_data
from finetune.sources import audio_columns
from finetune.sources.clips import load_clips
from finetune.sources.data_errors import DataError
from finetune.sources.labels import label_names
from finetune.sources.splits import load_folds, load_splits
from modeling_ast import ASTFeatureExtractor
from modeling_ast.audio import AudioReader

TINY = FIELDS | {"max_length": 32, "num_train_epochs": 1, "save_strategy": "no"}
RECORDINGS, PIECES = 8, 3


@pytest.fixture(scope="module")
def pieces(tmp_path_factory):
    """Class folders with three pieces of each of eight recordings a class: cat/r5-2.wav."""
    folder = tmp_path_factory.mktemp("pieces")
    for offset, label in enumerate(("cat", "dog")):
        (folder / label).mkdir()
        for number in range(RECORDINGS * PIECES):
            recording, piece = divmod(number, PIECES)
            samples = np.random.default_rng(2 * number + offset).uniform(-0.5, 0.5, 3200)
            soundfile.write(folder / label / f"r{recording + 10 * offset}-{piece}.wav", samples, 16_000)
    return folder


@pytest.fixture(scope="module")
def rows(pieces):
    paths = sorted(pieces.glob("*/*.wav"))
    return {"audio": list(map(str, paths)), "label": [path.parent.name for path in paths]}


@pytest.fixture(scope="module")
def hub_folder(tmp_path_factory, rows):
    """A folder that `datasets.load_dataset` loads as it does an id of the Hub: configurations, splits, Parquet with bytes."""
    folder = tmp_path_factory.mktemp("hub") / "pets"
    (folder / "data").mkdir(parents=True)
    frame = pd.DataFrame(
        {
            "audio": [{"bytes": Path(path).read_bytes(), "path": Path(path).name} for path in rows["audio"]],
            "label": rows["label"],
        }
    )
    frame.to_parquet(folder / "data" / "all.parquet")
    frame[::2].to_parquet(folder / "data" / "even.parquet")
    frame[1::2].to_parquet(folder / "data" / "odd.parquet")
    files = {"whole": {"train": "all"}, "halves": {"train": "even", "test": "odd"}, "scored": {"test": "all"}}
    configs = [
        {
            "config_name": name,
            "data_files": [{"split": split, "path": f"data/{file}.parquet"} for split, file in splits.items()],
        }
        for name, splits in files.items()
    ]
    (folder / "README.md").write_text(f"---\n{yaml.safe_dump({'configs': configs})}---\n")
    return folder


@pytest.fixture
def hub(hub_folder, monkeypatch, tmp_path):
    """The flags of a data set on the Hub, for which the folder stands."""
    load_dataset = datasets.load_dataset
    monkeypatch.setattr(
        datasets,
        "load_dataset",
        lambda name, config=None: load_dataset(str(hub_folder), config, cache_dir=str(tmp_path / "cache")),
    )
    monkeypatch.chdir(tmp_path)
    return ["--dataset_name", "user/pets", "--output_dir", "run"]


def flags(fields):
    return [word for name, value in fields.items() for word in (f"--{name}", str(value))]


def load(*words):
    data = parse_arguments(["--output_dir", "run", *words]).data
    return load_splits(data, seed=0)


def notes(source, *words):
    """What stage 1 says besides."""
    data = parse_arguments(["--output_dir", "run", "--dataset_name", str(source), *words]).data
    return "; ".join(prepare_data(data, ASTFeatureExtractor(max_length=32), 0)[2])


def together(splits, head=lambda path: Path(path).stem.rpartition("-")[0]):
    """The recordings of each side."""
    return {side: {head(audio["path"]) for audio in split["audio"]} for side, split in splits.items()}


def test_a_hub_data_set_of_one_split_gets_another_made_and_its_card_says_how(hub, capsys):
    assert main([*hub, "--dataset_config_name", "whole", *flags(TINY), "--eval_fraction", "0.25"]) == 0
    method = "12 of 48 clips of its only split 'train' held out at random, stratified by label (seed 42)"
    assert method in (printed := capsys.readouterr().out), printed
    summary = json.loads(Path("run/run_summary.json").read_text())
    assert summary["data"]["split_method"] == method
    assert {name: split["clips"] for name, split in summary["data"]["splits"].items()} == {"train": 36, "test": 12}
    assert summary["data"]["hub_id"] == "user/pets"
    assert method in Path("run/README.md").read_text()


@pytest.fixture
def prepared(monkeypatch):
    """`fine_tune` up to the first step: what it would train on is returned with the summary."""
    monkeypatch.setattr(fine_tuning, "train_run", lambda run: run.summary | {"clips": run.clips})


def test_a_hub_data_set_whose_one_split_has_another_name(hub):
    splits, method = load(*hub, "--dataset_config_name", "scored")
    assert {side: len(split) for side, split in splits.items()} == {"train": 38, "eval": 10}
    assert "of its only split 'test'" in method


def test_a_hub_configuration_with_two_splits_is_taken_as_it_is(hub):
    splits, method = load(*hub, "--dataset_config_name", "halves")
    assert {side: len(split) for side, split in splits.items()} == {"train": 24, "eval": 24}
    assert method == "as the data set on the Hub says"


def test_one_split_of_the_hub_keeps_its_name_where_all_splits_are_wanted(hub):
    data = parse_arguments([*hub, "--dataset_config_name", "scored"]).data
    assert load_clips(data, pooled=True).splits == ["test"] * 48


def test_a_hub_data_set_of_several_configurations_asks_for_one(hub):
    with pytest.raises(DataError, match=r"(?s)whole.*halves.*--dataset_config_name"):
        load(*hub)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (["--eval_split_name", "test"], "no split 'test'; it has train. Pass --eval_split_name, or leave out"),
        (["--eval_split_name", "dev"], "no split 'dev'; it has train. Pass --eval_split_name, or leave out"),
        (["--validation_split_name", "dev"], "it has train. Pass --(eval|validation)_split_name"),
        (["--train_split_name", "learn"], "no split 'learn'; it has train. Pass --train_split_name"),
    ],
)
def test_a_split_that_was_asked_for_has_to_be_there(hub, asked, message):
    with pytest.raises(DataError, match=message):
        load(*hub, "--dataset_config_name", "whole", *asked)


def as_dataset(rows, kind="paths", **columns):
    if kind == "bytes":
        rows = rows | {"audio": [Path(path).read_bytes() for path in rows["audio"]]}
    dataset = datasets.Dataset.from_dict(rows | columns)
    if kind == "decoded":
        return dataset.cast_column("audio", datasets.Audio(sampling_rate=8000))
    return dataset.cast_column("audio", datasets.Audio(decode=False)) if kind == "undecoded" else dataset


def test_a_dataset_in_python_is_fine_tuned_as_a_table_of_the_same_clips(rows, tmp_path):
    dataset = as_dataset(rows, "undecoded")
    summary = fine_tune(dataset, output_dir=tmp_path / "python", **TINY)
    pd.DataFrame(rows).to_csv(tmp_path / "clips.csv", index=False)
    assert (
        main(["--dataset_name", str(tmp_path / "clips.csv"), "--output_dir", str(tmp_path / "t"), *flags(TINY)]) == 0
    )
    table = json.loads((tmp_path / "t" / "run_summary.json").read_text())
    assert summary["history"][0]["loss"] == table["history"][0]["loss"]
    assert summary["evaluation"] == table["evaluation"]
    assert summary["data"]["splits"] == table["data"]["splits"]
    assert {path.name for path in (tmp_path / "python").iterdir()} == {
        path.name for path in (tmp_path / "t").iterdir()
    }


@pytest.mark.parametrize("kind", ["paths", "bytes", "undecoded", "decoded"])
def test_audio_of_a_dataset_may_be_of_any_type(rows, tmp_path, prepared, kind):
    dataset = as_dataset(rows, kind)
    before = dataset.features
    clips = fine_tune(dataset, output_dir=tmp_path / "run", seed=0, keep_features=False, **TINY)["clips"]
    pd.DataFrame(rows).to_csv(tmp_path / "clips.csv", index=False)
    of_table, _ = load("--dataset_name", str(tmp_path / "clips.csv"))
    for side, split in of_table.items():
        assert clips[side].split["label"][:] == split["label"][:]
        for index in range(0, len(split), 6):
            expected = soundfile.read(split[index]["audio"]["path"], dtype="float32")[0]
            np.testing.assert_array_equal(clips[side][index]["waveform"], expected)
    assert dataset.features == before, "the caller's data set stays what it is"


def test_summary_recipe_and_card_do_not_claim_a_name_that_nobody_gave(rows, tmp_path, capsys, monkeypatch):
    fine_tune(as_dataset(rows), output_dir=tmp_path / "run", **TINY, seed=3, overwrite_output_dir=True)
    summary = json.loads((tmp_path / "run" / "run_summary.json").read_text())
    assert (summary["data"]["name"], summary["data"]["hub_id"]) == (None, None)
    assert summary["command"].startswith("fine_tune(dataset, hidden_size=32, num_hidden_layers=1, ")
    assert "overwrite" not in summary["command"]
    card = (tmp_path / "run" / "README.md").read_text()
    assert f"```python\n{summary['command']}\n```" in card

    text = (tmp_path / "run" / "recipe.yaml").read_text()
    assert "fine_tune(dataset, **yaml.safe_load" in text.splitlines()[0]
    assert "dataset_name" not in text
    assert main([str(tmp_path / "run" / "recipe.yaml"), "--overwrite_output_dir"]) == 2, (
        "it cannot be run without data"
    )
    assert "No data was given. Pass --dataset_name" in capsys.readouterr().err
    monkeypatch.setattr(fine_tuning, "train_run", lambda run: run.summary)
    again = fine_tune(as_dataset(rows), **yaml.safe_load(text), overwrite_output_dir=True)
    assert all(again[section] == summary[section] for section in ("data", "training", "model", "features", "seed"))


@pytest.mark.parametrize(("name", "hub_id"), [("user/pets", "user/pets"), ("Pets of mine, v1.2", None)])
def test_a_name_that_was_given_stands_in_the_summary(rows, tmp_path, prepared, name, hub_id):
    summary = fine_tune(as_dataset(rows), output_dir=tmp_path / "run", dataset_name=name, **TINY)
    assert (summary["data"]["name"], summary["data"]["hub_id"]) == (name, hub_id)
    assert f"dataset_name={name!r}" in summary["command"]


def test_a_dataset_dict_and_the_order_of_its_labels(rows, tmp_path, prepared):
    features = datasets.Features({"audio": datasets.Audio(), "label": datasets.ClassLabel(names=["dog", "cat"])})
    dataset = datasets.Dataset.from_dict(rows, features).train_test_split(0.25, seed=1, stratify_by_column="label")
    summary = fine_tune(dataset, output_dir=tmp_path / "run", **TINY)
    assert summary["labels"] == ["dog", "cat"]
    assert summary["data"]["splits"]["test"] == {"clips": 12, "label_counts": {"dog": 6, "cat": 6}}


def test_a_column_of_a_dataset_says_how_it_is_split(rows, tmp_path, prepared):
    side = ["train" if number % 4 else "test" for number in range(48)]
    dataset = as_dataset(rows, side=side).class_encode_column("label").with_format("torch")
    summary = fine_tune(dataset, output_dir=tmp_path / "run", split_column_name="side", **TINY)
    assert summary["data"]["split_method"] == "as the column 'side' says"
    assert summary["data"]["splits"]["test"]["clips"] == 12


@pytest.mark.parametrize(
    ("change", "fields", "message"),
    [
        (lambda rows: rows["label"], {}, "given a list, expected a datasets.Dataset"),
        (lambda rows: as_dataset(rows).to_iterable_dataset(), {}, "IterableDataset.*without streaming=True"),
        (lambda rows: datasets.DatasetDict(), {}, "an empty DatasetDict"),
        (lambda rows: as_dataset(rows), {"learning_rte": 1}, "'learning_rte' .fine_tune.. Did you mean learning_rate"),
        (lambda rows: as_dataset(rows), {"train_file": "a.csv"}, "train_file belong.*was given a data set"),
        (lambda rows: as_dataset(rows), {"label_column_name": "class"}, "it has 'audio', 'label'. Pass"),
        (lambda rows: as_dataset(rows), {"split_column_name": "nope"}, "it has 'audio', 'label'. Pass --split_column_name"),
        (lambda rows: as_dataset(rows), {"num_train_epochs": "three"}, "num_train_epochs: invalid float value: 'three'"),
        (lambda rows: as_dataset(rows), {"padding": "nope"}, "padding"),
        (
            lambda rows: as_dataset(rows, kit=[None, "a", *"bcd" * 15, ""]), {"group_column_name": "kit"},
            r"Row\(s\) 1, 48 have nothing in the column 'kit'. Fill in .*--group_column_name",
        ),
        (lambda rows: as_dataset(rows), {"mixup_probability": 2.0}, "share of the clips"),
        (lambda rows: as_dataset(rows | {"label": ["cat"] * 48}), {}, "All clips have the label cat"),
        (lambda rows: as_dataset(rows | {"audio": [None, *rows["audio"][1:]]}), {}, r"Row\(s\) 1 have no audio"),
        (lambda rows: as_dataset(rows | {"audio": ["no.wav"] * 48}), {}, r"1 file\(s\) that are not there: no.wav"),
        (lambda rows: as_dataset(rows | {"audio": [1.5] * 48}), {}, "audio column holds .*float64.*--audio_column_name"),
    ],
)  # fmt: skip
def test_wrong_data_and_fields_are_answered_in_words(rows, tmp_path, change, fields, message):
    with pytest.raises(InputError, match=message):
        fine_tune(change(rows), output_dir=tmp_path / "run", **TINY | fields)
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def named_labels(tmp_path_factory, rows):
    """A folder as `datasets` and the Hub write it: Parquet below data/, labels as indices with names in no alphabetical order."""
    kind = datasets.ClassLabel(names=["dog", "cat", "cow"])
    features = datasets.Features({"audio": datasets.Audio(decode=False), "label": kind})
    content = [{"bytes": Path(path).read_bytes(), "path": Path(path).name} for path in rows["audio"]]
    dataset = datasets.Dataset.from_dict({"audio": content, "label": rows["label"]}, features)
    folder = tmp_path_factory.mktemp("named") / "pets"
    (folder / "data").mkdir(parents=True)
    for split, part in dataset.train_test_split(0.25, seed=1, stratify_by_column="label").items():
        part.to_parquet(folder / "data" / f"{split}-00000-of-00001.parquet")
    return folder


def test_a_parquet_file_has_the_same_labels_at_hand_and_as_a_stream(named_labels):
    train, test = sorted((named_labels / "data").iterdir(), reverse=True)
    words = ["--output_dir", "run", "--train_file", str(train), "--eval_file", str(test)]
    splits, _ = load(*words)
    assert label_names(splits["train"]) == ["dog", "cat", "cow"]
    streams, _ = load_streams(parse_arguments([*words, "--streaming"]).data)
    for side, split in splits.items():
        assert label_names(split) == label_names(streams[side])
        assert split["label"][:] == [row["label"] for row in streams[side]]


def test_a_downloaded_data_set_is_loaded_as_it_is_streamed(named_labels, monkeypatch, tmp_path):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path))
    words = ["--output_dir", "run", "--dataset_name", str(named_labels)]
    splits, method = load(*words)
    assert method == "as the data set says"
    assert label_names(splits["train"]) == ["dog", "cat", "cow"]
    streams, _ = load_streams(parse_arguments([*words, "--streaming"]).data)
    assert {side: len(split) for side, split in splits.items()} == {"train": 36, "eval": 12}
    for side, split in splits.items():
        for row, streamed in zip(split, streams[side], strict=True):
            assert (row["audio"], row["label"]) == (streamed["audio"], streamed["label"])


def test_paths_in_the_parquet_files_of_a_folder_are_below_it(rows, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    folder = Path(rows["audio"][0]).parents[1]
    (tmp_path / "pets").mkdir()
    frame = pd.DataFrame(rows | {"audio": [f"../clips/{Path(path).relative_to(folder)}" for path in rows["audio"]]})
    (tmp_path / "clips").symlink_to(folder)
    for split, part in {"train": frame[::2], "test": frame[1::2]}.items():
        part.to_parquet(tmp_path / "pets" / f"{split}.parquet")
    splits, _ = load("--dataset_name", str(tmp_path / "pets"))
    assert [os.path.realpath(audio["path"]) for audio in splits["eval"]["audio"]] == list(
        map(os.path.realpath, rows["audio"][1::2])
    )


def test_a_parquet_file_beside_class_folders_changes_nothing(pieces, rows, tmp_path):
    (tmp_path / "pets").symlink_to(pieces)
    (tmp_path / "notes.parquet").write_bytes(b"")
    for label in ("cat", "dog"):
        (tmp_path / label).symlink_to(pieces / label)
    (tmp_path / "pets").unlink()
    assert sum(map(len, load("--dataset_name", str(tmp_path))[0].values())) == 48


def test_a_class_of_few_clips_is_grouped_without_a_warning_of_another_package(rows, tmp_path, recwarn):
    frame = pd.DataFrame(rows | {"kit": [Path(path).stem.partition("-")[0] for path in rows["audio"]]})
    frame.loc[0, "label"] = "cow"
    frame.to_csv(tmp_path / "clips.csv", index=False)
    load("--dataset_name", str(tmp_path / "clips.csv"), "--group_column_name", "kit")
    assert not [warning for warning in recwarn if "least populated" in str(warning.message)]


def test_an_empty_cell_of_a_table_is_no_group(rows, tmp_path):
    pd.DataFrame(rows | {"kit": ["a", "", *"bcde" * 11, "b", "c"]}).to_csv(tmp_path / "clips.csv", index=False)
    with pytest.raises(DataError, match=r"Row\(s\) 2 have nothing in the column 'kit'. Fill in"):
        load("--dataset_name", str(tmp_path / "clips.csv"), "--group_column_name", "kit")


def test_the_package_has_what_a_script_needs():
    assert finetune.fine_tune is fine_tune
    assert finetune.InputError is InputError
    assert issubclass(finetune.TrainingStoppedError, Exception)
    assert {"fine_tune", "InputError", "TrainingStoppedError"} <= set(dir(finetune))
    with pytest.raises(
        AttributeError, match="no attribute 'train'; it has InputError, TrainingStoppedError, fine_tune"
    ):
        finetune.train  # noqa: B018


@pytest.mark.parametrize("pattern", ["^[^-]+", "^(r[0-9]+)-([0-9])"])
def test_clips_stay_together_by_what_a_pattern_finds_in_their_file_names(pieces, pattern):
    words = ["--dataset_name", str(pieces), "--group_file_pattern", pattern, "--validation_fraction", "0.25"]
    splits, method = load(*words)
    sides = together(splits)
    assert not sides["train"] & sides["eval"]
    assert not sides["train"] & sides["validation"]
    assert sum(map(len, sides.values())) == 2 * RECORDINGS
    assert method.count(f"the part of file names that matches {pattern!r} kept together") == 2


def test_a_pattern_looks_at_names_without_folder_and_suffix(pieces):
    with pytest.raises(DataError, match="finds nothing in 48 of 48 file names: r0-0"):
        load("--dataset_name", str(pieces), "--group_file_pattern", "wav$|cat|dog")
    method = load("--dataset_name", str(pieces), "--group_file_pattern", "[0-9]$")[1]
    assert "of which there are 3, so that the share is that of whole ones" in method


def test_clips_without_a_name_or_a_match_are_told_by_their_rows(rows, pieces, tmp_path):
    words = ["--dataset_name", str(pieces), "--group_file_pattern"]
    with pytest.raises(DataError, match=r"finds nothing in 24 of 48 file names: r0-0 \(row 1\), .* and 19 more"):
        load(*words, "r(1[0-9])-")
    with pytest.raises(DataError, match=r"finds nothing in 32 of 48 file names: r0-1 \(row 2\)"):
        load(*words, "r[0-9]+-(0)?")
    frame = pd.DataFrame({"audio": [Path(path).read_bytes() for path in rows["audio"]], "label": rows["label"]})
    frame.to_parquet(tmp_path / "clips.parquet")
    with pytest.raises(DataError, match=r"Row\(s\) 1, 2, 3, 4, 5 and 43 more have no file name.* --group_column_name"):
        load("--dataset_name", str(tmp_path / "clips.parquet"), "--group_file_pattern", "^r")


def test_a_pattern_finds_the_names_that_stand_beside_bytes(hub):
    splits, _ = load(*hub, "--dataset_config_name", "whole", "--group_file_pattern", "^[^-]+")
    sides = together(splits)
    assert not sides["train"] & sides["eval"]


def test_groups_by_file_name_may_not_be_torn_by_folds(rows, tmp_path):
    frame = pd.DataFrame(rows | {"fold": [number % 2 for number in range(48)]})
    frame.to_csv(tmp_path / "clips.csv", index=False)
    fields = {"dataset_name": str(tmp_path / "clips.csv"), "fold_column_name": "fold", "group_file_pattern": "^[^-]+"}
    with pytest.raises(DataError, match=r"The part of file names that matches '\^\[\^-\]\+' has clips of r0, r1, .*"):
        load_folds(DataArguments(**fields))
    frame["fold"] = [number // PIECES % 2 for number in range(48)]
    frame.to_csv(tmp_path / "clips.csv", index=False)
    assert len(load_folds(DataArguments(**fields))[0]) == 2


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"group_file_pattern": "("}, "'\\(' is no regular expression: .*Pass for example --group_file_pattern"),
        ({"group_file_pattern": "a", "group_column_name": "b"}, "Both group_column_name and group_file_pattern"),
        ({"labels": ["a", "b", "a"]}, "labels names a more than once"),
        ({"labels": ["a"], "label_csv": "b.csv"}, "Both labels and label_csv"),
    ],
)
def test_fields_that_do_not_fit(fields, message):
    with pytest.raises(ValueError, match=message):
        DataArguments(dataset_name="pets", **fields)


def test_a_pattern_has_no_say_where_there_is_a_split(rows, tmp_path):
    pd.DataFrame(rows | {"split": ["train", "test"] * 24}).to_csv(tmp_path / "clips.csv", index=False)
    with pytest.raises(DataError, match="group_file_pattern was given, but the data .*Leave out --group_file_pattern"):
        load("--dataset_name", str(tmp_path / "clips.csv"), "--group_file_pattern", "^r")


def test_names_that_look_like_pieces_of_recordings_are_told_with_what_to_type(pieces, tmp_path, capsys):
    words = ["--dataset_name", str(pieces), "--output_dir", str(tmp_path / "run"), *flags(TINY)]
    assert main(words) == 0
    line = capsys.readouterr().out.splitlines()[0]
    assert "file names look like pieces of 16 recordings, of which" in line
    assert line.endswith("keep them together with --group_file_pattern '^.+(?=[_-])'")
    assert "file names look" not in (tmp_path / "run" / "README.md").read_text(), "advice is no property of the model"
    assert not notes(pieces, "--group_file_pattern", "^.+(?=[_-])"), "the pattern that was told is taken"


@pytest.mark.parametrize(
    ("name", "label"),
    [
        (lambda i: f"sound{i % 6}_{i}", lambda i: f"{i % 6}"),
        (lambda i: f"r{i % 4}_{i}", lambda i: f"{i % 2 + i // 12}"),
        (lambda i: f"{i}", lambda i: f"{i % 2}"),
        (lambda i: f"{max(i, 20)}_{i}", lambda i: f"{i % 2}"),
    ],
    ids=["of the labels", "of few recordings", "without a beginning", "mostly alone"],
)
def test_other_names_are_not_taken_for_pieces(rows, tmp_path, name, label):
    for number, path in enumerate(rows["audio"]):
        (tmp_path / "clips" / label(number)).mkdir(parents=True, exist_ok=True)
        (tmp_path / "clips" / label(number) / f"{name(number)}.wav").write_bytes(Path(path).read_bytes())
    assert not notes(tmp_path / "clips")


def test_names_without_a_beginning_are_let_by_the_pattern_that_is_told(rows, tmp_path):
    for number, (path, label) in enumerate(zip(rows["audio"], rows["label"], strict=True)):
        (tmp_path / "clips" / label).mkdir(parents=True, exist_ok=True)
        name = f"{number}" if number % 24 < 4 else Path(path).stem
        (tmp_path / "clips" / label / f"{name}.wav").write_bytes(Path(path).read_bytes())
    pattern = "^.+(?=[_-])|^.+"
    assert f"--group_file_pattern '{pattern}'" in notes(tmp_path / "clips")
    assert not notes(tmp_path / "clips", "--group_file_pattern", pattern)


def test_no_note_where_the_data_says_how_it_is_split(rows, tmp_path):
    pd.DataFrame(rows | {"split": ["train", "test"] * 24}).to_csv(tmp_path / "clips.csv", index=False)
    assert not notes(tmp_path / "clips.csv")


def test_labels_may_be_given_in_their_order(rows, tmp_path):
    pd.DataFrame(rows).to_csv(tmp_path / "clips.csv", index=False)
    splits, _ = load("--dataset_name", str(tmp_path / "clips.csv"), "--labels", "dog", "newt", "cat")
    assert label_names(splits["eval"]) == ["dog", "newt", "cat"]
    with pytest.raises(DataError, match=r"1 label\(s\) of the clips are not among .*--labels: cat. Add them"):
        load("--dataset_name", str(tmp_path / "clips.csv"), "--labels", "dog", "newt")


@pytest.fixture
def opened(monkeypatch):
    """Files whose size is asked for or that are opened, in order."""
    looked_at = {"size": [], "open": []}
    getsize, real_open = os.path.getsize, open

    def record(kind, function):
        return lambda path, *rest, **named: (looked_at[kind].append(path), function(path, *rest, **named))[1]

    monkeypatch.setattr(audio_columns, "os", SimpleNamespace(path=SimpleNamespace(getsize=record("size", getsize))))
    monkeypatch.setattr(audio_columns, "open", record("open", real_open), raising=False)
    return looked_at


def test_a_file_that_many_rows_name_is_looked_at_once(rows, tmp_path, opened):
    side = ["train" if number % 4 else "test" for number in range(48)]
    frame = pd.DataFrame(rows | {"split": side})
    repeated = pd.concat([frame] * 40)
    repeated.to_csv(tmp_path / "clips.csv", index=False)
    data = DataArguments(dataset_name=str(tmp_path / "clips.csv"))
    splits, _ = load_splits(data, seed=0)
    assert len(splits["train"]) == 36 * 40
    check_splits(clip_sets(splits), data, AudioReader(), 16_000)
    assert sorted(opened["size"]) == sorted(rows["audio"])
    # All are of one size, and none is read through as their beginnings differ.
    assert sorted(path for path in opened["open"] if path.endswith(".wav")) == sorted(rows["audio"])
    opened["size"].clear()
    clip_set(splits["train"]).digest()
    assert len(opened["size"]) == 36


def test_files_alike_in_size_and_beginning_are_read_through(tmp_path):
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, 4800)
    for name, last in (("a", 0.1), ("b", 0.2), ("c", 0.2)):
        soundfile.write(tmp_path / f"{name}.wav", np.append(samples, last), 16_000)
    other = np.random.default_rng(1).uniform(-0.5, 0.5, 4800)
    soundfile.write(tmp_path / "d.wav", other, 16_000)
    for table, clips in (("few", "adb"), ("twin", "abdc")):
        rows = [{"file_name": f"{name}.wav", "label": "y" if name == "d" else "x", "split": "train"} for name in clips]
        rows[-1]["split"] = "test"
        pd.DataFrame(rows).to_csv(tmp_path / f"{table}.csv", index=False)
    for table in ("few", "twin"):
        data = DataArguments(dataset_name=str(tmp_path / f"{table}.csv"))
        splits, _ = load_splits(data, seed=0)
        if table == "few":
            check_splits(clip_sets(splits), data, AudioReader(), 16_000)
            continue
        with pytest.raises(DataError, match=r"1 clip\(s\) are in the training and .*b.wav = .*c.wav"):
            check_splits(clip_sets(splits), data, AudioReader(), 16_000)


def test_bytes_are_compared_as_files_are(tmp_path):
    contents = []
    for seed in range(3):
        buffer = io.BytesIO()
        soundfile.write(buffer, np.random.default_rng(seed).uniform(-0.5, 0.5, 4800), 16_000, format="WAV")
        contents.append(buffer.getvalue())
    frame = pd.DataFrame(
        {
            "audio": [contents[0], contents[1], contents[2], contents[1]],
            "label": ["x", "y", "x", "y"],
            "split": ["train", "train", "test", "test"],
        }
    )
    frame.to_parquet(tmp_path / "clips.parquet")
    data = DataArguments(dataset_name=str(tmp_path / "clips.parquet"))
    splits, _ = load_splits(data, seed=0)
    with pytest.raises(DataError, match=r"1 clip\(s\) are in the training and in the scored split"):
        check_splits(clip_sets(splits), data, AudioReader(), 16_000)

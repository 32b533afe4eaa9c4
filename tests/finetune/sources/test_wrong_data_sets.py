"""Twelve data sets as users have them, each through the command: the right result, or one message that says what to type."""

import csv
import json
import os
import shutil
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
import torch
from safetensors.torch import load_file
from tiny_trainings import FIELDS

from finetune import run_finetune

TINY = FIELDS | {"max_length": 32, "num_train_epochs": 1, "save_strategy": "no", "per_device_train_batch_size": 4}
RATE, CLIPS = 16_000, 6


def noise(label, index, rate=RATE, seconds=0.25):
    """A clip of its own for each label and index."""
    generator = np.random.default_rng([index, *label.encode()])
    return generator.integers(-(2**14), 2**14, round(seconds * rate)).astype(np.int16)


def write(path, samples, rate=RATE):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate)


@pytest.fixture
def rows(tmp_path):
    """Rows of a table that is in order: six clips of each of two labels, the last two of each held out."""
    found = []
    for label in ("cat", "dog"):
        for index in range(CLIPS):
            name = f"{label}{index}.wav"
            write(tmp_path / name, noise(label, index))
            found.append({"file_name": name, "label": label, "split": "train" if index < CLIPS - 2 else "test"})
    return found


@pytest.fixture
def run(tmp_path, capsys):
    """Call the command; give its exit code, what it printed, and its error message."""

    def call(source, *words, output="run"):
        settings = [word for name, value in TINY.items() for word in (f"--{name}", str(value))]
        code = run_finetune.main(
            ["--dataset_name", str(source), "--output_dir", str(tmp_path / output), *settings, *words]
        )
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return call


@pytest.fixture
def labels_trained_on(run, monkeypatch):
    """Call the command on data that it has to take, up to the training; give the labels."""
    prepared = []
    monkeypatch.setattr(run_finetune, "train_run", prepared.append)

    def call(source, *words):
        assert run(source, *words)[::2] == (0, "")
        return prepared.pop().summary["labels"]

    return call


@pytest.fixture
def refused(run, tmp_path):
    """Call the command on data that it has to refuse in one message; give that."""

    def call(source, *words):
        code, out, err = run(source, *words)
        assert code == 2
        assert "training:" not in out
        assert err.startswith("ast-finetune: ")
        assert err.count("ast-finetune: ") == 1
        assert "Traceback" not in err
        assert not (tmp_path / "run").exists()
        return err

    return call


def table(path, rows):
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return path


def json_lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_mixed_label_types(rows, tmp_path, refused):
    numbers = {"cat": 1, "dog": 2}
    mixed = [row | {"label": numbers[row["label"]] if row["split"] == "train" else "2"} for row in rows]
    message = refused(json_lines(tmp_path / "clips.jsonl", mixed))
    assert "mixes texts and numbers: row 5 has '2', row 1 has 1. Write all as texts (in quotes)" in message
    lists = [row | {"label": [row["label"]] if row["split"] == "train" else row["label"]} for row in rows]
    message = refused(json_lines(tmp_path / "lists.jsonl", lists))
    assert "mixes texts and lists: row 5 has 'cat', row 1 has ['cat']. Write all as lists" in message


@pytest.mark.parametrize("separator", [";", "\t"])
def test_a_table_whose_columns_are_not_separated_by_commas(rows, tmp_path, refused, separator):
    path = table(tmp_path / "metadata.csv", rows)
    path.write_text(path.read_text().replace(",", separator))
    message = refused(path)
    assert f"the table separates its columns with {separator!r}. Save it as CSV with commas." in message


def test_labels_that_are_numbers_in_all_rows_are_labels(rows, tmp_path, labels_trained_on):
    numbers = {"cat": 1, "dog": 2}
    rows = [row | {"label": numbers[row["label"]]} for row in rows]
    assert labels_trained_on(json_lines(tmp_path / "clips.jsonl", rows)) == ["1", "2"]


@pytest.mark.parametrize("suffix", ["csv", "tsv"])
def test_duplicate_columns(rows, tmp_path, refused, suffix):
    lines = ["file_name,label,split,label", *(",".join([*row.values(), "noise"]) for row in rows)]
    path = tmp_path / f"clips.{suffix}"
    path.write_text("\n".join(lines).replace(",", "\t" if suffix == "tsv" else ","))
    message = refused(path)
    assert "more than one column 'label'. Rename or remove all of them but one" in message


def test_columns_without_a_name_are_no_duplicates(rows, tmp_path, labels_trained_on):
    lines = ["file_name,label,split,,", *(",".join([*row.values(), "", ""]) for row in rows)]
    (tmp_path / "clips.csv").write_text("\n".join(lines))
    assert labels_trained_on(tmp_path / "clips.csv") == ["cat", "dog"]


@pytest.mark.parametrize("kind", ["column", "file", "folder"])
def test_an_empty_split(rows, tmp_path, refused, kind):
    training = [row for row in rows if row["split"] == "train"]
    if kind == "column":
        message = refused(table(tmp_path / "clips.csv", training))
        assert "No clip is in the split 'test'; the data has 'train' (8 clips). Pass --eval_split_name" in message
    elif kind == "file":
        train_file = table(tmp_path / "train.csv", training)
        (tmp_path / "eval.csv").write_text("file_name,label\n")
        message = refused("", "--train_file", str(train_file), "--eval_file", str(tmp_path / "eval.csv"))
        assert "eval.csv has no rows. Expected one per clip, with the columns file_name and label" in message
    else:
        for row in training:
            (tmp_path / "clips" / "train" / row["label"]).mkdir(parents=True, exist_ok=True)
            shutil.copy(tmp_path / row["file_name"], tmp_path / "clips" / "train" / row["label"])
        (tmp_path / "clips" / "test").mkdir()
        message = refused(tmp_path / "clips")
        assert "No clip is in the split 'test'; the data has 'train' (8 clips). Pass --eval_split_name" in message


def test_one_class(rows, tmp_path, refused):
    message = refused(table(tmp_path / "clips.csv", [row for row in rows if row["label"] == "cat"]))
    assert "All clips have the label cat. A classifier needs two classes or more" in message
    assert "--label_column_name (now 'label')" in message


def test_a_label_only_in_the_test_split(rows, tmp_path, refused):
    write(tmp_path / "cow.wav", noise("cow", 0))
    message = refused(
        table(tmp_path / "clips.csv", [*rows, {"file_name": "cow.wav", "label": "cow", "split": "test"}])
    )
    assert "cow: no training clip has this label, but the scored split does." in message
    assert "pass --ignore_labels cow" in message


def test_missing_files(rows, tmp_path, refused):
    for name in ("cat1.wav", "dog5.wav"):
        (tmp_path / name).unlink()
    message = refused(table(tmp_path / "clips.csv", rows))
    assert "names 2 file(s) that are not there" in message
    assert f"{tmp_path / 'cat1.wav'}, {tmp_path / 'dog5.wav'}" in message
    assert "Correct or remove these rows" in message


@pytest.mark.parametrize("content", ["", "\n", "file_name,label,split\n"])
def test_an_empty_csv(tmp_path, refused, content):
    (tmp_path / "clips.csv").write_text(content)
    message = refused(tmp_path / "clips.csv")
    assert "clips.csv has no rows. Expected one per clip, with the columns file_name and label" in message


@pytest.mark.parametrize(
    "alike", [("Dog", "dog"), ("dog ", "dog"), ("big  dog", "Big dog"), ("e\u0301mu", "\u00e9mu")]
)
def test_label_names_that_differ_in_case_or_spaces(rows, tmp_path, refused, labels_trained_on, alike):
    names = {number: alike[number % 2] for number in range(len(rows))}
    rows = [row | {"label": names[i] if row["label"] == "dog" else "cat"} for i, row in enumerate(rows)]
    message = refused(table(tmp_path / "clips.csv", rows))
    first, second = sorted(alike)
    assert (
        f"in nothing but case, spaces or the encoding of a letter: {first!r} (3 clips), {second!r} (3 clips)"
        in message
    )
    assert "Write those that are the same alike in the column 'label'" in message
    assert "--labels" in message
    if alike == ("Dog", "dog"):
        assert "--labels Dog cat dog" in message
        meant = ["Dog", "cat", "dog"]
        assert labels_trained_on(tmp_path / "clips.csv", "--labels", *meant) == meant, "two classes if one says so"


def weights_and_features(folder):
    summary = json.loads((folder / "run_summary.json").read_text())
    return load_file(folder / "model.safetensors"), summary["features"], summary["evaluation"]["metrics"]


def assert_same_run(tmp_path, tolerance):
    """That `run` trained on what `plain` trained on."""
    (weights, features, metrics), (plain, of_plain, metrics_of_plain) = (
        weights_and_features(tmp_path / name) for name in ("run", "plain")
    )
    assert features["mean"] == pytest.approx(of_plain["mean"], abs=tolerance)
    assert features["std"] == pytest.approx(of_plain["std"], abs=tolerance)
    assert metrics["loss"] == pytest.approx(metrics_of_plain["loss"], abs=tolerance)
    for name, tensor in plain.items():
        torch.testing.assert_close(weights[name], tensor, atol=tolerance, rtol=0)


def test_stereo_is_trained_on_as_the_mean_of_its_channels(rows, tmp_path, run):
    for row in rows:
        samples = noise(row["label"], int(row["file_name"][3])).astype(np.int32)
        other = np.roll(samples, 7) // 2 * 2
        left, right = samples + other // 2, samples - other // 2  # whose mean is the mono clip
        write(
            tmp_path / "stereo" / row["file_name"], np.stack([left, right], axis=1).clip(-(2**15), 2**15 - 1) / 2**15
        )
        stored = soundfile.read(tmp_path / "stereo" / row["file_name"])[0]
        soundfile.write(tmp_path / row["file_name"], stored.mean(axis=1), RATE, subtype="FLOAT")
    assert run(table(tmp_path / "stereo" / "clips.csv", rows))[0] == 0
    assert run(table(tmp_path / "clips.csv", rows), output="plain")[0] == 0
    assert_same_run(tmp_path, 1e-6)  # the mean as float32


def test_8_and_96_khz_together_are_trained_on_as_their_16_khz_copies(rows, tmp_path, run):
    for number, row in enumerate(rows):
        rate = (8_000, 96_000)[number % 2]
        samples = noise(row["label"], number, rate) / np.float32(2**15)
        write(tmp_path / "rates" / row["file_name"], samples, rate)
        stored = soundfile.read(tmp_path / "rates" / row["file_name"], dtype="float32")[0]
        copy = soxr.resample(stored, rate, RATE)
        soundfile.write(tmp_path / row["file_name"], copy, RATE, subtype="FLOAT")
    assert run(table(tmp_path / "rates" / "clips.csv", rows))[0] == 0
    assert run(table(tmp_path / "clips.csv", rows), output="plain")[0] == 0
    assert_same_run(tmp_path, 0)


def test_unicode_and_spaces_in_names_of_files_folders_and_labels(rows, tmp_path, run):
    labels = {"cat": "Katze (müde)", "dog": "собака 犬 🐕"}
    root = tmp_path / "meine Töne & 音"
    for row in rows:
        place = root / row["split"] / labels[row["label"]] / f"Ärger #{row['file_name'][3]} 'é' 声.wav"
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(tmp_path / row["file_name"], place)
    code, out, err = run(root)
    assert (code, err) == (0, "")
    assert run(table(tmp_path / "clips.csv", rows), output="plain")[0] == 0
    assert_same_run(tmp_path, 0)
    summary = json.loads((tmp_path / "run" / "run_summary.json").read_text())
    assert summary["labels"] == sorted(labels.values())
    assert summary["data"]["name"] == "meine Töne & 音"
    assert "собака 犬 🐕" in (tmp_path / "run" / "README.md").read_text()
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["id2label"] == {"0": "Katze (müde)", "1": "собака 犬 🐕"}


def make_three_hours(path):
    """Let a WAV file last three hours, 345 MB of which only the beginning takes room on the disk."""
    size = 3 * 3600 * RATE * 2
    with open(path, "r+b") as file:
        content = file.read()
        assert content[36:40] == b"data"
        file.seek(4)
        file.write(struct.pack("<I", size + 36))
        file.seek(40)
        file.write(struct.pack("<I", size))
        os.truncate(path, size + 44)
    assert soundfile.info(path).duration == 3 * 3600


def test_a_file_of_three_hours_among_short_ones_costs_no_more_than_they_do(rows, tmp_path, run):
    for name, label in (("cat0.wav", "cat"), ("dog5.wav", "dog")):  # one to train on, one to score
        write(tmp_path / name, noise(label, 99, seconds=1))
        make_three_hours(tmp_path / name)
    table(tmp_path / "clips.csv", rows)
    tracemalloc.start()
    try:
        code, out, err = run(tmp_path / "clips.csv", "--clip_windows", "beginning")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (code, err) == (0, "")
    assert "2 of 12 clips looked at are longer than the 0." in out
    assert "s that the model hears; the rest of them is cut" in out
    assert peak < 100e6, "345 MB are there, of which 60 s, 4 MB as float32, are decoded"
    assert Path(tmp_path / "run" / "model.safetensors").is_file()

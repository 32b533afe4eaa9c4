"""What the benchmarks of a pretrained start compare: the same clips, and no clip of the test kit where something is chosen."""

import csv
from collections import Counter

import pytest
from sklearn.dummy import DummyClassifier
from transformers import ASTForAudioClassification as StockModel
from transformers import set_seed

from benchmarks import linear_probe, pretrained_start, pretraining_parts
from modeling_ast import ASTConfig, ASTFeatureExtractor


def test_so_many_clips_of_each_label_are_drawn_by_the_seed():
    rows = pretrained_start.drum_rows(0, 10)
    counts = Counter(row["label"] for row in rows if row["split"] == "train")
    whole = Counter(row["label"] for row in pretrained_start.drum_rows(0, None) if row["split"] == "train")
    assert counts == {label: min(10, count) for label, count in whole.items()}
    assert sum(row["split"] == "test" for row in rows) == 84  # the test kit stays whole
    assert rows == pretrained_start.drum_rows(0, 10)
    assert rows != pretrained_start.drum_rows(1, 10)


def test_the_time_to_an_accuracy_is_a_share_of_the_other_training():
    scratch = {"accuracy": 0.7, "epochs": [0.5, 0.7], "seconds": 40.0}
    start = {"accuracy": 0.6, "epochs": [0.5, 0.75, 0.6, 0.6], "seconds": 20.0}
    assert pretrained_start.share_until(scratch, start) == pytest.approx(0.25)
    assert pretrained_start.share_until(scratch | {"accuracy": 0.8}, start) is None


def test_a_part_is_left_out_and_nothing_else(tmp_path):
    rows = [
        ("a.flac", "drums", "drums/kick", "sonic-pi-samples"),
        ("b.flac", "words_en", "words_en/one", "flite"),
        ("c.flac", "language", "language/ru", "festvox-ru"),
        ("d.flac", "drums", "drums/kick", "synthetic"),
        ("e.flac", "", "", "synthetic"),
    ]
    with open(tmp_path / "metadata.csv", "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["file_name", "label_set", "label", "source", "recording"])
        table.writerows([*row, "one"] for row in rows)
    left = {}
    for part in pretraining_parts.PARTS:
        number = pretraining_parts.write_part(tmp_path, tmp_path / part, part)
        with open(tmp_path / part / "clips.csv", newline="") as file:
            left[part] = "".join(sorted(row["file_name"].rpartition("/")[2][0] for row in csv.DictReader(file)))
        assert number == len(left[part])
    assert left == {
        "nothing": "abcd", "speech": "ad", "drums": "bc", "synthesis": "ac", "recordings": "bd", "second stage": "abcd"
    }  # fmt: skip


def test_choices_by_a_linear_classifier_read_no_clip_of_the_test_kit(tmp_path, tiny_sizes, monkeypatch):
    set_seed(0)
    StockModel(ASTConfig(**tiny_sizes, num_labels=2)).save_pretrained(tmp_path)
    ASTFeatureExtractor(max_length=tiny_sizes["max_length"]).save_pretrained(tmp_path)
    heard, read = [], linear_probe.read_audio
    monkeypatch.setattr(linear_probe, "read_audio", lambda path, rate: heard.append(path.name) or read(path, rate))
    monkeypatch.setattr(linear_probe, "LogisticRegression", lambda **_: DummyClassifier())
    assert 0 <= linear_probe.probe(str(tmp_path)) <= 1
    assert len(heard) == 353
    assert not [name for name in heard if name.startswith("FluidR3")]
    assert 0 <= linear_probe.probe(str(tmp_path), test_kit=True) <= 1
    assert len(heard) == 353 + 437

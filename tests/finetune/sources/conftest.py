"""Clips of pets, in class folders, with a table beside them, and as on the Hub."""

import csv

import datasets
import numpy as np
import pytest
import soundfile


@pytest.fixture
def write_clip():
    generator = np.random.default_rng(0)

    def write(path, seconds=0.2, sampling_rate=16_000):
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, generator.uniform(-0.5, 0.5, int(seconds * sampling_rate)), sampling_rate)
        return path

    return write


@pytest.fixture
def class_folders(tmp_path, write_clip):
    """Two classes of ten clips each; a file name with "test" in it is no split."""
    for label in ("cat", "dog"):
        for index in range(10):
            write_clip(tmp_path / "pets" / label / f"test_{index}.wav")
    return tmp_path / "pets"


@pytest.fixture
def table(class_folders):
    """A CSV beside the class folders with a split column."""
    rows = [
        {"file_name": f"{label}/test_{index}.wav", "label": label, "split": "train" if index < 7 else "test"}
        for label in ("cat", "dog")
        for index in range(10)
    ]

    def write(rows=rows, name="clips.csv"):
        path = class_folders / name
        with open(path, "w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
        return path

    write.rows = rows
    return write


@pytest.fixture
def pets_hub(class_folders, monkeypatch):
    """Stands for the Hub: `load_dataset` gives the class folders with labels of the kind asked for."""

    def publish(labels_of_split, label_type):
        splits = {}
        for split, labels in labels_of_split.items():
            paths = [str(class_folders / label / f"test_{i}.wav") for i, label in enumerate(labels) if label != "cow"]
            features = datasets.Features({"sound": datasets.Audio(decode=False), "label": label_type})
            rows = {
                "sound": paths + [paths[0]] * labels.count("cow"),
                "label": [one for one in labels if one != "cow"],
            }
            rows["label"] += ["cow"] * labels.count("cow")
            splits[split] = datasets.Dataset.from_dict(rows, features)
        monkeypatch.setattr(datasets, "load_dataset", lambda name, config: datasets.DatasetDict(splits))

    return publish

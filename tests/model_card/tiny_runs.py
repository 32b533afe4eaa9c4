"""Real trainings of a few seconds, whose folders the card is rendered from; run as a program it stores two of them anew.

`PYTHONPATH=tests .venv/bin/python tests/model_card/tiny_runs.py && git diff tests/model_card` after a change of what
trainings record or of the card. What differs from machine to machine (clock, durations, versions) is pinned, and so are the two ids of the Hub,
which a run without a network cannot have; scores and losses are those that the run gave when it was stored.
"""

import csv
import json
import shutil
import tempfile
from pathlib import Path

import tiny_trainings
import torch
import yaml

from finetune.run_finetune import main
from modeling_ast import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification

HERE = Path(__file__).parent
DRUMS = HERE.parents[1] / "finetune" / "sample_data" / "drums"
STORED = ("config.json", "preprocessor_config.json", "run_summary.json")
FIXTURES = {
    "multi_class": "drums",
    "multi_label": "drum_mixtures",
}  # stored under the first name, titled with the second

SIZES = tiny_trainings.SIZES | {"hidden_size": 16, "max_length": 96}
RECIPE = {name: value for name, value in tiny_trainings.FIELDS.items() if name not in SIZES} | {
    "seed": 7, "dataloader_num_workers": 0, "mixup_probability": 0.5, "max_time_mask": 20,
}  # fmt: skip
LABELS = {"bell": "bell", "hat_closed": "hat_closed", "snare": "snare|rim"}
CLIPS = {"train": 5, "valid": 3, "test": 3}  # of each label; the scored clips hold no snare
NOTICE = {"work": "the weights of somebody", "address": "https://example.org/ast"}


def write_clips(folder: Path) -> Path:
    """A table of drum clips with their splits, licences and labels, some with two, and one file that is no audio."""
    with open(DRUMS / "metadata.csv", newline="") as file:
        drums = list(csv.DictReader(file))
    rows = []
    for drum, label in LABELS.items():
        clips = [row for row in drums if row["label"] == drum]
        for split, count in CLIPS.items():
            chosen, clips = clips[:count], clips[count:]
            for number, row in enumerate(chosen):
                names = [label] + (["bell"] if number == 1 and label != "bell" else [])
                rows.append([DRUMS / row["file_name"], label, ";".join(names), split, row["license"]])
    rows = [row for row in rows if not (row[1] == LABELS["snare"] and row[3] == "test")]
    (folder / "broken.wav").write_bytes(b"RIFF")
    rows.append([folder / "broken.wav", "bell", "bell", "train", "CC0"])
    with open(folder / "three_drums.csv", "w", newline="") as file:
        csv.writer(file).writerows([["path", "label", "labels", "split", "license"], *rows])
    return folder / "three_drums.csv"


def write_base(folder: Path) -> Path:
    """A checkpoint to start from, under BSD-3-Clause, with a classifier of other labels."""
    torch.manual_seed(0)
    base = folder / "base"
    ASTForAudioClassification(ASTConfig(**SIZES, num_labels=4)).save_pretrained(base)
    ASTFeatureExtractor(max_length=SIZES["max_length"]).save_pretrained(base)
    summary = {"license": "bsd-3-clause", "license_notice": NOTICE}
    (base / "run_summary.json").write_text(json.dumps(summary))
    return base


def train(folder: Path, name: str, **fields) -> Path:
    """Train by a recipe that lies in `folder`; the checkpoint is written to `folder / name`."""
    recipe = folder / f"{name}.yaml"
    output = folder / name
    recipe.write_text(yaml.safe_dump(RECIPE | {"output_dir": str(output)} | fields))
    assert main([str(recipe)]) == 0
    return output


def train_multi_class(folder: Path) -> Path:
    """A checkpoint fine-tuned to exclusive labels, with one clip that could not be decoded."""
    clips, base = write_clips(folder), write_base(folder)
    fields = {
        "dataset_name": str(clips), "model_name_or_path": str(base), "skip_bad_audio": True, "learning_rate": 1.0e-4,
    }  # fmt: skip
    return train(folder, FIXTURES["multi_class"], **fields)


def train_multi_label(folder: Path) -> Path:
    """Several labels a clip, with everything that is done besides: adapters, a validation split, epochs averaged and mean
    scores of them, both ways of padding."""
    clips, base = write_clips(folder), write_base(folder)
    fields = {
        "dataset_name": str(clips), "model_name_or_path": str(base), "skip_bad_audio": True, "padding": "longest",
        "label_column_name": "labels", "label_separator": ";", "validation_split_name": "valid", "eval_strategy": "epoch",
        "average_epochs": [1, 2], "ensemble_epochs": [1, 2], "lora_rank": 2, "clip_windows": "beginning",
    }  # fmt: skip
    return train(folder, FIXTURES["multi_label"], **fields)


def pinned(summary: dict) -> dict:
    """The summary with what no two runs have in common replaced."""
    versions = {name: f"{number}.2.3" for number, name in enumerate(summary["environment"], 1)}
    known = {"device": "cpu", "threads": 2, "processes": 1}
    return summary | {
        "kit_version": "0.1.0",
        "created": "2026-11-22T15:00:00+00:00",
        "base_model": "somebody/ast-base-drumless",
        "data": summary["data"] | {"name": "somebody/three-drums", "hub_id": "somebody/three-drums"},
        "environment": versions | known,
        "time": {
            "training_seconds": 150.2, "train_samples_per_second": 90.1, "seconds_per_step": 0.0625, "peak_memory_gb": 0.75,
        },
    }  # fmt: skip


def store(name: str, run: Path):
    """Keep the small files of a run as a fixture."""
    folder = HERE / "fixtures" / name
    folder.mkdir(parents=True, exist_ok=True)
    for file in STORED:
        shutil.copy(run / file, folder / file)
    summary = pinned(json.loads((run / "run_summary.json").read_text()))
    (folder / "run_summary.json").write_text(json.dumps(summary, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        for name, run in {"multi_class": train_multi_class, "multi_label": train_multi_label}.items():
            parent = Path(place, name)
            parent.mkdir()
            store(name, run(parent))

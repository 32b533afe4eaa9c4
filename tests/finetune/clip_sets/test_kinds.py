"""A kind of data set that the package does not know goes through a whole training, its checks, summary and card.

[`ToneClips`] has no files at all: a clip is a tone of a few milliseconds, told by its frequency.
"""

import hashlib
import json

import datasets
import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from finetune.arguments.command_line import parse_arguments
from finetune.clip_sets.clip_set import Checked, ClipSet
from finetune.clip_sets.split_checks import check_labels
from finetune.clip_sets.waveforms import ClipDataset
from finetune.failures.input_errors import InputError
from finetune.runs.training_run import prepare_run, train_run
from modeling_ast.audio import Heard

NAMES = ["low", "high"]
RATE, SECONDS = 16_000, 0.3
TINY = {
    "dataset_name": "nobody/tones", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1,
    "intermediate_size": 16, "max_length": 32, "num_train_epochs": 2, "per_device_train_batch_size": 4,
    "mixup_probability": 0.5, "learning_rate": 1.0e-3, "use_cpu": True, "disable_tqdm": True,
    "save_strategy": "epoch", "lr_scheduler_type": "constant",
}  # fmt: skip


class ToneClips(ClipSet):
    """Tones of these frequencies, in Hz: low ones and high ones."""

    features = datasets.Features({"label": datasets.ClassLabel(names=NAMES)})

    def __init__(self, frequencies):
        self.frequencies = list(frequencies)

    def __len__(self):
        return len(self.frequencies)

    def label_lists(self):
        return [[int(frequency > 1000)] for frequency in self.frequencies]

    def label_counts(self):
        return np.bincount([label for (label,) in self.label_lists()], minlength=2)

    def label_sets(self):
        return {tuple(labels) for labels in self.label_lists()}

    def name(self, index):
        return f"a tone of {self.frequencies[index]} Hz"

    def digest(self):
        return hashlib.sha256(str(self.frequencies).encode()).hexdigest()

    def without(self, left_out):
        return ToneClips(tone for place, tone in enumerate(self.frequencies) if place not in left_out)

    @classmethod
    def check(cls, splits, checks):
        too_high = [
            place for place, tone in enumerate(splits["train"].frequencies) if tone > checks.reader.sampling_rate / 2
        ]
        left_out = {place: splits["train"].label_lists()[place] for place in too_high}
        splits = splits | {"train": splits["train"].without(left_out)}
        return Checked(splits, [f"{len(too_high)} tone(s) cannot be heard", *check_labels(splits)])

    def dataset(self, feature_extractor, augmentation=None, seed=0, *, binary_targets=False, reader=None):
        longest = feature_extractor.max_samples
        return Tones(self, reader, longest, augmentation, seed, binary_targets=binary_targets)


class Tones(ClipDataset):
    """The waveforms of [`ToneClips`]."""

    def decode(self, clip):
        time = np.arange(int(SECONDS * RATE)) / RATE
        tone = np.sin(2 * np.pi * self.split.frequencies[clip] * time) / 2
        return Heard(tone.astype(np.float32)), self.split.label_lists()[clip][0]

    def name(self, index):
        return self.split.name(index)

    def label_counts(self):
        return self.split.label_counts()


def prepare(folder, train, *flags):
    recipe = folder / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(TINY | {"output_dir": str(folder / "run")}))
    argv = [str(recipe), *flags]
    splits = {"train": ToneClips(train), "eval": ToneClips([150, 250, 3000, 4000])}
    return prepare_run(argv, parse_arguments(argv), (splits, "by ear"))


TRAIN = [100, 200, 300, 9000, 2000, 2500, 5000]


def test_a_kind_of_data_set_from_outside_is_checked_trained_on_scored_and_told_of(tmp_path, capsys):
    first = prepare(tmp_path, TRAIN, "--num_train_epochs", "1")
    summary = train_run(first)
    assert "6 training clips, 4 to score, split by ear; 1 tone(s) cannot be heard" in capsys.readouterr().out
    told = summary["data"]["splits"]
    assert told["train"] == {"clips": 6, "label_counts": {"low": 3, "high": 3}}
    assert told["test"] == {"clips": 4, "label_counts": {"low": 2, "high": 2}}
    assert np.sum(summary["evaluation"]["confusion_matrix"], axis=1).tolist() == [2, 2]
    identity = json.loads((tmp_path / "run" / "checkpoint-2" / "run_identity.json").read_text())
    heard = [tone for tone in TRAIN if tone != 9000]
    assert identity["training clips"] == hashlib.sha256(str(heard).encode()).hexdigest()

    with pytest.raises(InputError, match="from a run with other training clips"):
        prepare(tmp_path, [*TRAIN, 6000], "--resume_from_checkpoint", "true")
    train_run(prepare(tmp_path, TRAIN, "--resume_from_checkpoint", "true"))
    resumed = load_file(tmp_path / "run" / "model.safetensors")
    train_run(prepare(tmp_path, TRAIN, "--overwrite_output_dir", "true"))
    whole = load_file(tmp_path / "run" / "model.safetensors")
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)


def test_what_it_finds_wrong_and_what_it_cannot_tell_is_said_as_of_other_kinds(tmp_path):
    with pytest.raises(InputError, match="All training clips have the label low"):
        prepare(tmp_path, [100, 200, 9000])
    grouped = ["--train_sampling_strategy", "group_by_length", "--padding", "longest"]
    with pytest.raises(ValueError, match="Tones does not tell how long its clips are"):
        prepare(tmp_path, TRAIN, *grouped).trainer.get_train_dataloader()
    names = [names for *_, names in prepare(tmp_path, TRAIN).clips["train"].replay([(0, 3, 0)])]
    assert names[0][0] == "a tone of 2000 Hz"

"""Two processes on the CPU: one checkpoint, every clip scored once, a resume in an epoch, the class-balanced draw.

Run by the launcher, as one of its processes, this file trains with that draw and writes down what each process read.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from finetune.arguments import ASTTrainingArguments, DataArguments
from finetune.augmentation import Augmentation
from finetune.collator import ASTDataCollator
from finetune.data import ASTDataset
from finetune.sampling import EpochSampler, class_balanced_weights
from finetune.splits import load_splits
from finetune.trainer import ASTTrainer
from modeling_ast import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification

SETTINGS = {
    "dataset_name": "finetune/sample_data/drums",
    "ignore_labels": ["snare", "tom", "crash", "ride", "kick"],  # leaves 64 clips to train on
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64, "max_length": 32,
    "hidden_dropout_prob": 0.1, "mixup_probability": 0.5, "max_time_mask": 8, "noise_strength": 0.1, "max_roll": 4,
    "num_train_epochs": 2, "per_device_train_batch_size": 8, "learning_rate": 1.0e-3, "disable_tqdm": True,
    "use_cpu": True, "save_strategy": "steps", "save_steps": 2, "save_total_limit": 20,
}  # fmt: skip


def launch_two(module: str, *arguments: str):
    # `accelerate launch` starts several processes on GPUs; on a CPU it leaves that to torch's own launcher.
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", module]
    subprocess.run([*command, *arguments], check=True, timeout=300, stdout=subprocess.DEVNULL)


def launch(folder: Path, *flags: str) -> dict:
    recipe = folder.with_suffix(".yaml")
    recipe.write_text(yaml.safe_dump(SETTINGS | {"output_dir": str(folder)}))
    launch_two("finetune.run_finetune", str(recipe), *flags)
    return json.loads((folder / "run_summary.json").read_text())


def test_a_run_of_two_processes_resumed_in_mid_epoch_ends_with_the_same_weights(tmp_path):
    summary = launch(tmp_path / "whole")
    assert summary["environment"]["processes"] == 2
    assert sum(map(sum, summary["evaluation"]["confusion_matrix"])) == summary["data"]["splits"]["test"]["clips"]
    steps = sorted(int(path.name.split("-")[1]) for path in (tmp_path / "whole").glob("checkpoint-*"))
    in_second_epoch = steps[-2]
    assert steps[-1] / 2 < in_second_epoch < steps[-1], steps

    name = f"checkpoint-{in_second_epoch}"
    shutil.copytree(tmp_path / "whole" / name, tmp_path / "resumed" / name)
    launch(tmp_path / "resumed", "--resume_from_checkpoint", "true")
    whole, resumed = (load_file(tmp_path / run / "model.safetensors") for run in ("whole", "resumed"))
    for tensor in whole:
        assert torch.equal(whole[tensor], resumed[tensor]), tensor


@pytest.mark.long
def test_a_cross_validation_of_two_processes_with_averaged_epochs(tmp_path, drum_rows):
    rows = [row for row in drum_rows if row["label"] in ("kick", "snare")][::4]
    lines = ["path,label,half", *(f"{row['path']},{row['label']},{number % 2}" for number, row in enumerate(rows))]
    (tmp_path / "clips.csv").write_text("\n".join(lines))
    settings = {name: value for name, value in SETTINGS.items() if name not in ("ignore_labels", "save_strategy")}
    settings |= {"dataset_name": str(tmp_path / "clips.csv"), "fold_column_name": "half", "average_epochs": [1, 2]}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(settings | {"output_dir": str(tmp_path / "folds")}))
    for flags in ((), ("--overwrite_output_dir",)):
        launch_two("finetune.run_finetune", str(tmp_path / "recipe.yaml"), *flags)
        results = json.loads((tmp_path / "folds" / "cross_validation.json").read_text())
        assert sum(row["clips"] for row in results["folds"]) == len(rows)
        assert not list((tmp_path / "folds").glob("*/epochs"))


SEED, BATCH, EPOCHS, RESUME_AT = 7, 4, 2, 4  # 22 clips in groups of 8 are 3 updates an epoch, the last one filled up


class RecordedClips(ASTDataset):
    """Training clips that write down what was asked for."""

    def __getitem__(self, key):
        self.asked_for.append(key)
        return super().__getitem__(key)


def recorded_clips() -> RecordedClips:
    splits, _ = load_splits(DataArguments(dataset_name="finetune/sample_data/drums"), seed=0)
    augmentation = Augmentation(mixup_probability=0.5, max_time_mask=8, noise_strength=0.1)
    clips = RecordedClips(splits["train"].select(range(0, 352, 16)), 16_000, 5_200, augmentation)
    clips.asked_for = []
    return clips


def train_and_record(folder: Path, resume_from: str | None = None):
    torch.manual_seed(0)
    extractor = ASTFeatureExtractor(max_length=32, mean=-6.5, std=5.5)
    sizes = {name: SETTINGS[name] for name in ("hidden_size", "num_hidden_layers", "num_attention_heads")}
    clips = recorded_clips()
    trainer = ASTTrainer(
        model=ASTForAudioClassification(ASTConfig(**sizes, intermediate_size=64, max_length=32, num_labels=9)),
        args=ASTTrainingArguments(
            output_dir=str(folder), train_sampling_strategy="class_balanced", per_device_train_batch_size=BATCH,
            num_train_epochs=EPOCHS, seed=SEED, use_cpu=True, disable_tqdm=True, save_strategy="steps", save_steps=1,
            save_total_limit=20,
        ),
        train_dataset=clips,
        data_collator=ASTDataCollator(extractor, compute_features=False),
        feature_extractor=extractor,
        augmentation=clips.augmentation,
    )  # fmt: skip
    trainer.train(resume_from_checkpoint=resume_from)
    (folder / f"process_{trainer.args.process_index}.json").write_text(json.dumps(clips.asked_for))
    trainer.save_model(str(folder))


@pytest.mark.long
def test_two_processes_share_one_class_balanced_order_without_a_clip_twice_in_a_step(tmp_path):
    launch_two("tests.finetune.test_processes", str(tmp_path))
    whole, resumed = (
        [json.loads((tmp_path / run / f"process_{rank}.json").read_text()) for rank in (0, 1)]
        for run in ("whole", "resumed")
    )
    clips = recorded_clips()
    weights = class_balanced_weights(clips.label_lists(), clips.num_labels)
    sampler = EpochSampler(len(clips), SEED, weights=weights, group_size=2 * BATCH, distinct=True)
    steps = len(whole[0]) // BATCH
    assert steps == EPOCHS * 3
    for epoch in range(EPOCHS):
        visited = []
        for step in range(epoch * 3, epoch * 3 + 3):
            together = [item for rank in whole for item in rank[step * BATCH : (step + 1) * BATCH]]
            assert len({index for _, index, _ in together}) == 2 * BATCH, f"step {step}"
            visited += together
        sampler.set_epoch(epoch)
        assert visited[: len(clips)] == [list(item) for item in sampler]

    assert resumed == [rank[RESUME_AT * BATCH :] for rank in whole]
    ended, resumed_end = (load_file(tmp_path / run / "model.safetensors") for run in ("whole", "resumed"))
    for tensor in ended:
        assert torch.equal(ended[tensor], resumed_end[tensor]), tensor


if __name__ == "__main__":
    root = Path(sys.argv[1])
    train_and_record(root / "whole")
    train_and_record(root / "resumed", str(root / "whole" / f"checkpoint-{RESUME_AT}"))

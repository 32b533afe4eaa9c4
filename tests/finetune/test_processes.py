"""Two processes on the CPU: one checkpoint, every clip scored once, and a resume in an epoch."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import torch
import yaml
from safetensors.torch import load_file

SETTINGS = {
    "dataset_name": "finetune/sample_data/drums",
    "ignore_labels": ["snare", "tom", "crash", "ride", "kick"],  # leaves 64 clips to train on
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64, "max_length": 32,
    "hidden_dropout_prob": 0.1, "mixup_probability": 0.5, "max_time_mask": 8, "noise_strength": 0.1, "max_roll": 4,
    "num_train_epochs": 2, "per_device_train_batch_size": 8, "learning_rate": 1.0e-3, "disable_tqdm": True,
    "use_cpu": True, "save_strategy": "steps", "save_steps": 2, "save_total_limit": 20,
}  # fmt: skip


def launch(folder: Path, *flags: str) -> dict:
    recipe = folder.with_suffix(".yaml")
    recipe.write_text(yaml.safe_dump(SETTINGS | {"output_dir": str(folder)}))
    # `accelerate launch` starts several processes on GPUs; on a CPU it leaves that to torch's own launcher.
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command += ["-m", "finetune.run_finetune", str(recipe), *flags]
    subprocess.run(command, check=True, timeout=300, stdout=subprocess.DEVNULL)
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

"""Trainings of noise that are made to fail, and what is looked at afterwards."""

import json
from pathlib import Path

import numpy as np
import soundfile
import torch
from safetensors.torch import load_file
from tiny_trainings import FIELDS

from finetune.arguments.command_line import parse_arguments
from finetune.run_finetune import main
from finetune.runs.training_run import prepare_run
from finetune.training.run_folder import checkpoints_in
from modeling_ast import ASTForAudioClassification

CLIPS, SAMPLES, BATCH = 16, 8000, 4
TRAINED = 2 * CLIPS  # clips of the two classes; as many in a split of their own would be scored
STEPS_PER_EPOCH = TRAINED // BATCH
SETTINGS = FIELDS | {
    "hidden_size": 16, "max_length": 64, "hidden_dropout_prob": 0.1, "mixup_probability": 0.3, "max_time_mask": 12,
    "noise_strength": 0.1, "normalization": [-6.5, 4.5], "per_device_train_batch_size": BATCH, "learning_rate": 1.0e-3,
    "save_strategy": "steps", "save_steps": 5,
}  # fmt: skip


def write_clip(path: Path, loudest: float = 0.3):
    """Noise whose first samples are as loud as that; the file's size does not depend on it."""
    number = sum(map(ord, str(path.relative_to(path.parents[2]))))
    samples = np.random.default_rng(number).uniform(-0.3, 0.3, SAMPLES).astype(np.float32)
    samples[:4000:100] = loudest
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, 16_000, subtype="FLOAT")


def write_clips(folder: Path):
    for split, count in (("train", CLIPS), ("test", 4)):
        for label in ("a", "b"):
            for index in range(count):
                write_clip(folder / "clips" / split / label / f"{index}.wav")


def assert_equal_weights(folder: Path, expected: dict[str, torch.Tensor]):
    weights = load_file(folder / "model.safetensors")
    assert weights.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(weights[name], tensor), name


def assert_only_whole_checkpoints(folder: Path, steps: list[int]):
    """These checkpoints are there and load, and nothing else of the run."""
    assert [path.name for path in checkpoints_in(folder)] == [f"checkpoint-{step}" for step in steps]
    assert folder.exists() == bool(steps)  # one that was made for nothing is removed
    assert {path.name for path in folder.glob("*")} == {f"checkpoint-{step}" for step in steps}
    for path in checkpoints_in(folder):
        model = ASTForAudioClassification.from_pretrained(path)
        assert all(weight.isfinite().all() for weight in model.parameters())
        torch.load(path / "optimizer.pt", weights_only=True)
        assert json.loads((path / "trainer_state.json").read_text())["global_step"] == int(path.name.split("-")[1])


def order_of_clips(recipe: str, *flags: str) -> list[str]:
    """Files of the first epoch in the order in which they are trained on."""
    arguments = parse_arguments([recipe, "--output_dir", str(Path(recipe).parent / "order"), *flags])
    run = prepare_run([recipe], arguments)
    return [run.clips["train"].name(index) for _, index in run.trainer._get_train_sampler()]


def stopped(recipe: str, capsys, *flags: str, code: int = 1) -> str:
    """Run it; the message with which it stops."""
    assert main([recipe, *flags]) == code
    error = capsys.readouterr().err
    assert error.startswith("ast-finetune: ")
    assert error.count("\n") == 1, "one message"
    assert "Traceback" not in error
    return error

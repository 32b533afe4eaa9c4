"""Trainings of a second each: tones of three pitches, and the flags of a tiny model."""

import json
from pathlib import Path

import numpy as np
import soundfile
import yaml

CLIPS_OF_A_CLASS = 10
SIZES = {
    "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32,
    "frequency_stride": 16, "time_stride": 16, "max_length": 48,
}  # fmt: skip
FIELDS = SIZES | {
    "num_train_epochs": 2, "per_device_train_batch_size": 8, "learning_rate": 2.0e-3, "disable_tqdm": True,
    "use_cpu": True,
}  # fmt: skip


def write_tones(folder: Path, labels: str = "abc", count: int = CLIPS_OF_A_CLASS, seed: int = 0) -> Path:
    """A folder for each label with clips of half a second."""
    generator = np.random.default_rng(seed)
    seconds = np.arange(8_000) / 16_000
    for place, label in enumerate(labels):
        (folder / label).mkdir(parents=True)
        for number in range(count):
            noise = 0.01 * generator.standard_normal(8_000)
            tone = 0.3 * np.sin(2 * np.pi * (300 + 900 * place) * seconds) + noise
            soundfile.write(folder / label / f"{number}.wav", tone.astype(np.float32), 16_000)
    return folder


def flags(data: Path | None, output_dir: Path | str, **fields) -> list[str]:
    """The command line of a training on such a folder, of two epochs of three steps where fields do not say otherwise."""
    length = {"num_train_epochs": None} if "max_steps" in fields else {}
    given = FIELDS | {"dataset_name": data, "output_dir": output_dir} | length | fields
    return [f"--{name}={value}" for name, value in given.items() if value is not None]


def write_recipe(folder: Path, data: Path | str | None, **fields) -> str:
    """A recipe of such a training in `recipe.yaml`; it leaves its run in `run` beside it.

    Args:
        folder (`Path`): where the recipe is written.
        data (`Path` or `str`, *optional*): the data set; `None` leaves the field out.
        fields: what takes the place of `FIELDS` or joins them; `None` leaves a field out.

    Returns:
        `str`: the file.
    """
    given = FIELDS | {"dataset_name": data and str(data), "output_dir": str(folder / "run")} | fields
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump({name: value for name, value in given.items() if value is not None}))
    return str(path)


def summary_in(folder: Path) -> dict:
    """What a run says of itself."""
    return json.loads((folder / "run_summary.json").read_text())

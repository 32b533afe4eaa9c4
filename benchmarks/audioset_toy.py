"""The AudioSet recipe on mixed drum clips in the original's JSON layout, and what each of its parts changes.

    python -m benchmarks.audioset_toy [--epochs 20] [--output runs/audioset_toy]

AudioSet cannot be shipped. Here a clip is one to three drum sounds at random times of one second, with the labels of all of
them, rare ones as rare as in the drum clips; training clips are made of the training kits, scored ones of the test kit.
`finetune/recipes/audioset_full.yaml` is run on them with the flags below, from a small start with random weights, for which the masks are
smaller and the learning rate is higher, and again with one part left out at a time. The last rows are the paper's ensembles.
"""

import argparse
import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import soundfile
import torch

from modeling_ast import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification
from modeling_ast.audio import read_audio

DRUMS = Path(__file__).parents[1] / "finetune" / "sample_data" / "drums"
SAMPLING_RATE = 16_000
CLIPS = {"train": 600, "valid": 150, "eval": 300}
STRIDES = (10, 12, 16)
SIZES = {"hidden_size": 96, "num_hidden_layers": 3, "num_attention_heads": 3, "intermediate_size": 384}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=20, help="epochs of each training")
    parser.add_argument("--output", type=Path, default=Path("runs/audioset_toy"), help="folder for data and runs")
    args = parser.parse_args()
    data = args.output / "data"
    write_data(data)
    last = args.epochs
    without = {
        "without balanced sampling": ["--train_sampling_strategy", "random"],
        "without mixup": ["--mixup_probability", 0],
        "without masks": ["--max_frequency_mask", 0, "--max_time_mask", 0],
        "without decay of the rate": ["--decay_after_epoch", 0],
    }
    print("| run | mAP | AUC | d' |\n|---|---|---|---|", flush=True)
    for stride in STRIDES:
        summary = train(args, data, f"stride_{stride}", ["--frequency_stride", stride, "--time_stride", stride])
        evaluation = summary["evaluation"]
        show(f"stride {stride}, weights of epochs {last // 2 + 1} to {last} averaged", evaluation["metrics"])
        if stride == STRIDES[0]:
            show("- without averaging: the last epoch", evaluation["last_epoch"]["metrics"])
            show(f"- mean scores of epochs {last // 2 + 1} to {last} instead", evaluation["ensemble"]["metrics"])
    for name, flags in without.items():
        summary = train(args, data, name.replace(" ", "_"), ["--frequency_stride", 10, "--time_stride", 10, *flags])
        show(f"stride 10, {name}", summary["evaluation"]["metrics"])
    show("ensemble of the strides 10, 12 and 16", ensemble(args.output, data))


def write_data(folder: Path):
    """Mixed clips, a JSON file per split and the label CSV, as the original lays them out; the same at every call."""
    with open(DRUMS / "metadata.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    labels = sorted({row["label"] for row in rows})
    mids = {label: f"/m/{index:02}" for index, label in enumerate(labels)}
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "labels.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(
            [["index", "mid", "display_name"], *([i, mids[label], label] for i, label in enumerate(labels))]
        )
    sounds = [(row, read_audio(DRUMS / row["file_name"], SAMPLING_RATE)) for row in rows]
    for seed, (split, count) in enumerate(CLIPS.items()):
        generator = np.random.default_rng(seed)
        of_split = [sound for sound in sounds if (sound[0]["split"] == "test") == (split == "eval")]
        records = []
        for number in range(count):
            chosen = [of_split[place] for place in generator.integers(len(of_split), size=generator.integers(1, 4))]
            path = folder / split / f"{number:04}.flac"
            path.parent.mkdir(exist_ok=True)
            soundfile.write(path, mix([sound for _, sound in chosen], generator), SAMPLING_RATE)
            names = sorted({row["label"] for row, _ in chosen})
            records.append({"wav": f"{split}/{path.name}", "labels": ",".join(mids[name] for name in names)})
        (folder / f"{split}.json").write_text(json.dumps({"data": records}, indent=1))


def mix(sounds: list[np.ndarray], generator: np.random.Generator) -> np.ndarray:
    """Sounds at random times of one second, at levels up to 6 dB apart."""
    mixed = np.zeros(SAMPLING_RATE, dtype=np.float32)
    for sound in sounds:
        start = int(generator.integers(SAMPLING_RATE // 2))
        part = sound[: SAMPLING_RATE - start]
        mixed[start : start + len(part)] += part * generator.uniform(0.5, 1.0)
    return mixed / max(1.0, np.abs(mixed).max())


def train(args: argparse.Namespace, data: Path, name: str, flags: list) -> dict:
    """One run of the recipe; its summary."""
    folder, last = args.output / name, args.epochs
    second_half = [last // 2 + 1, last]
    settings = {
        "model_name_or_path": start_of(args.output),
        "train_file": data / "train.json", "validation_file": data / "valid.json", "eval_file": data / "eval.json",
        "label_csv": data / "labels.csv", "output_dir": folder, "overwrite_output_dir": "true",
        "max_length": 96, "max_frequency_mask": 16, "max_time_mask": 12, "normalization": "measured",
        "num_train_epochs": last, "learning_rate": 1e-3, "warmup_steps": 100, "warmup_stair": 10,
        "decay_after_epoch": last // 2, "decay_every": max(1, last // 8),
        "average_epochs": second_half, "ensemble_epochs": second_half, "save_strategy": "no", "disable_tqdm": "true",
    }  # fmt: skip
    if "--decay_after_epoch" in flags:
        del settings["decay_every"]
    words = ["finetune/recipes/audioset_full.yaml"]
    for field, value in settings.items():
        words += [f"--{field}", *(value if isinstance(value, list) else [value])]
    words += flags
    command = [sys.executable, "-m", "finetune.run_finetune", *map(str, words)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return json.loads((folder / "run_summary.json").read_text())


def start_of(output: Path) -> Path:
    """A small model with random weights, saved as the start of all runs; its positions are moved for other strides."""
    folder = output / "start"
    if not folder.is_dir():
        torch.manual_seed(0)
        ASTForAudioClassification(ASTConfig(**SIZES, max_length=96, num_labels=9)).save_pretrained(folder)
        ASTFeatureExtractor(max_length=96).save_pretrained(folder)
    return folder


def ensemble(output: Path, data: Path) -> dict:
    """Metrics of the mean scores of the models of all strides, by `ast-evaluate`."""
    models = [str(output / f"stride_{stride}") for stride in STRIDES]
    files = ["--eval_file", str(data / "eval.json"), "--label_csv", str(data / "labels.csv")]
    result = output / "ensemble.json"
    command = [sys.executable, "-m", "finetune.run_evaluate", "--model_name_or_path", *models, *files]
    subprocess.run([*command, "--output", str(result)], check=True, stdout=subprocess.DEVNULL)
    return json.loads(result.read_text())["evaluations"][-1]["metrics"]


def show(name: str, metrics: dict):
    """A row of the table."""
    cells = (metrics[key] for key in ("mean_average_precision", "roc_auc_macro", "d_prime"))
    print(f"| {name} | " + " | ".join(f"{value:.3f}" for value in cells) + " |", flush=True)


if __name__ == "__main__":
    main()

"""The ESC-50 recipe on drum clips in five folds, killed twice and resumed, beside the same run left alone.

    python -m benchmarks.esc50_protocol [--epochs 8]

ESC-50 itself cannot be shipped. Its protocol is run as it is, `finetune/recipes/esc50.yaml` with the flags below, on the
training kits of the drum clips in five folds by source, from a small AST with 527 labels and random weights saved by stock
Transformers. With these weights the recipe's learning rate would learn nothing in so few steps: it is raised.
"""

import argparse
import csv
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from safetensors.numpy import load_file

from .stock_start import save_stock_checkpoint

DRUMS = Path(__file__).parents[1] / "finetune" / "sample_data" / "drums"
SMALL_KITS = ("circAfrique v4", "rumpf_kit_z01_h2")  # one fold together
SIZES = {"hidden_size": 96, "num_hidden_layers": 3, "num_attention_heads": 3, "intermediate_size": 384}
KILLED_IN_FOLDS = (2, 4)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--epochs", type=int, default=8, help="epochs of each fold; the recipe's 25 take three times as long"
    )
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        save_stock_checkpoint(folder / "start", **SIZES)
        write_folds(folder / "clips.csv")
        run(command(folder, "alone", args.epochs), None)
        for fold in KILLED_IN_FOLDS:
            resume = ["--resume_from_checkpoint", "true"] if fold != KILLED_IN_FOLDS[0] else []
            run([*command(folder, "killed", args.epochs), *resume], folder / "killed" / f"fold-{fold}")
        run([*command(folder, "killed", args.epochs), "--resume_from_checkpoint", "true"], None)
        print((folder / "killed" / "cross_validation.md").read_text())
        same = differences(folder / "alone", folder / "killed")
    print("Killed and resumed, the run ended in " + ("the same weights and table." if not same else f"other {same}."))
    return 1 if same else 0


def write_folds(path: Path):
    """The table of clips in the columns that ESC-50 has."""
    with open(DRUMS / "metadata.csv", newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "train"]
    sources = sorted({row["source"] for row in rows} - set(SMALL_KITS))
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["audio", "category", "fold"])
        for row in rows:
            fold = sources.index(row["source"]) + 1 if row["source"] in sources else len(sources) + 1
            writer.writerow([DRUMS / row["file_name"], row["label"], fold])


def command(folder: Path, name: str, epochs: int) -> list[str]:
    """The recipe with what it lacks here."""
    words = [sys.executable, "-m", "finetune.run_finetune", "finetune/recipes/esc50.yaml"]
    words += ["--model_name_or_path", folder / "start", "--dataset_name", folder / "clips.csv", "--max_length", 96]
    words += ["--output_dir", folder / name, "--num_train_epochs", epochs, "--learning_rate", 1e-3]
    words += ["--per_device_train_batch_size", 16, "--max_time_mask", 24, "--normalization", "measured"]
    return [str(word) for word in [*words, "--disable_tqdm", "true"]]


def run(words: list[str], killed_in: Path | None):
    """Run to the end or, once this fold has saved a checkpoint, kill it with SIGKILL and half an epoch later."""
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL)
    while killed_in is not None and process.poll() is None:
        if list(killed_in.glob("checkpoint-*")):
            time.sleep(0.5)
            os.kill(process.pid, signal.SIGKILL)
            print(f"killed in {killed_in.name}", flush=True)
            break
        time.sleep(0.05)
    if process.wait() and killed_in is None:
        raise RuntimeError(f"{' '.join(words)} failed")


def differences(left: Path, right: Path) -> list[str]:
    """What two cross-validations do not have in common: scores, and folds with other weights."""
    results = [json.loads((folder / "cross_validation.json").read_text()) for folder in (left, right)]
    for result in results:
        for row in result["folds"]:
            del row["seconds"]
    other = [] if results[0] == results[1] else ["scores"]
    for path in sorted(left.glob("fold-*")):
        ours, theirs = (load_file(folder / path.name / "model.safetensors") for folder in (left, right))
        if any((ours[name] != theirs[name]).any() for name in ours):
            other.append(path.name)
    return other


if __name__ == "__main__":
    sys.exit(main())

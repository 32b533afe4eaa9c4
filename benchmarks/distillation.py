"""What a teacher brings: a larger model of spoken digits taught to a small one, against the small one by itself.

    python -m benchmarks.distillation FOLDER [--speakers theo george lucas] [--seeds 0 1] [--teacher_start CHECKPOINT]

Every speaker is held out in turn. The larger model is trained on the others by the recipe of the spoken digits, or from
`--teacher_start` by that of benchmarks.pretrained_start; then the small one is trained on them twice, with the same clips, seed and epochs: on the labels, and on the
labels and the larger model. Neither has heard the speaker that is scored. Finished trainings are kept in the results file, so
that a second call goes on where the first ended. `--takes`, `--epochs` and `--teacher_epochs` make it shorter.
"""

import argparse
import csv
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

from modeling_ast.system.atomic_files import open_atomically

from .pretrained_start import STARTS

RECIPE = Path(__file__).with_name("spoken_digits.yaml")
NOT_TAKEN = ("fold_column_name", "output_dir", "seed")
STUDENT = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 256}
MUST, AIM = 0.03, 0.06  # more of the held-out digits right than by labels alone


def main():
    """Train what the results file lacks, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("digits", type=Path, help="folder of the Free Spoken Digits with its metadata.csv")
    parser.add_argument("--speakers", nargs="+", default=["theo", "george", "lucas"], help="held out, one at a time")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1], help="of the small model (default: 0 1)")
    parser.add_argument(
        "--teacher_start", help="checkpoint that the larger model starts from; random weights if not given"
    )
    parser.add_argument("--takes", type=int, default=50, help="of each digit and speaker, at most (default: all 50)")
    parser.add_argument("--epochs", type=int, default=30, help="of the small model (default: %(default)s)")
    parser.add_argument("--teacher_epochs", type=int, help="of the larger model (default: those of its recipe)")
    parser.add_argument("--teacher_temperature", type=float, default=2.0, help="(default: %(default)s)")
    parser.add_argument("--teacher_weight", type=float, default=0.5, help="(default: %(default)s)")
    parser.add_argument(
        "--teacher_layers",
        nargs="+",
        default=[],
        help="whose outputs are compared, as student:teacher (default: none)",
    )
    parser.add_argument("--teacher_layer_weight", type=float, default=1.0, help="(default: %(default)s)")
    parser.add_argument(
        "--runs", type=Path, default=Path("runs/distillation"), help="where models and scores are kept"
    )
    args = parser.parse_args()
    args.runs.mkdir(parents=True, exist_ok=True)
    rows = []
    for speaker in args.speakers:
        table = write_table(args, speaker)
        larger = {}
        if args.teacher_start is not None:
            larger = yaml.safe_load(STARTS.read_text())["digits"] | {"model_name_or_path": args.teacher_start}
        if args.teacher_epochs is not None:
            larger |= {"num_train_epochs": args.teacher_epochs}
        teacher = train(args, f"teacher_{speaker}", table, 0, larger)
        for seed in args.seeds:
            small = STUDENT | {"num_train_epochs": args.epochs}
            taught = small | {
                "teacher": teacher["folder"],
                "teacher_temperature": args.teacher_temperature,
                "teacher_weight": args.teacher_weight,
            }
            if args.teacher_layers:
                taught |= {
                    "teacher_layers": args.teacher_layers,
                    "teacher_layer_weight": args.teacher_layer_weight,
                }
            direct = train(args, f"direct_{speaker}_{seed}", table, seed, small)
            distilled = train(args, f"distilled_{speaker}_{seed}", table, seed, taught)
            rows.append((speaker, seed, teacher, direct, distilled))
            print_row(*rows[-1])
    gains = [distilled["accuracy"] - direct["accuracy"] for *_, direct, distilled in rows]
    gain = statistics.mean(gains)
    state = "reached" if gain >= AIM else "must reached, aim missed" if gain >= MUST else "missed"
    clips = "all clips" if args.takes >= 50 else f"{args.takes} takes of 50"
    print(
        f"mean of {len(gains)} pairs: {100 * gain:+.1f} points (from {100 * min(gains):+.1f} to {100 * max(gains):+.1f}), "
        f"must {100 * MUST:+.0f}, aim {100 * AIM:+.0f}: {state}; {clips}, {args.epochs} epochs"
    )


def print_row(speaker: str, seed: int, teacher: dict, direct: dict, distilled: dict):
    """Print accuracies of a speaker and a seed, parameters, and seconds of the trainings."""
    of_each = {"larger": teacher, "small by labels": direct, "small with teacher": distilled}
    words = [
        f"{name} {model['accuracy']:.3f} ({model['parameters']:,} parameters, {model['seconds']:.0f} s)"
        for name, model in of_each.items()
    ]
    print(f"{speaker}, seed {seed}: {', '.join(words)}", flush=True)


def write_table(args: argparse.Namespace, speaker: str) -> Path:
    """A table of the clips in which a speaker is the test split."""
    with open(args.digits / "metadata.csv", newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if int(row["take"]) < args.takes]
    path = args.runs / f"without_{speaker}.csv"
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["file_name", "label", "split"])
        for row in rows:
            split = "test" if row["speaker"] == speaker else "train"
            writer.writerow([(args.digits / row["file_name"]).resolve(), row["label"], split])
    return path.resolve()


def train(args: argparse.Namespace, name: str, table: Path, seed: int, fields: dict) -> dict:
    """Train unless the results file has it: folder, accuracy on the held-out speaker, parameters and seconds."""
    kept = args.runs / "results.json"
    results = json.loads(kept.read_text()) if kept.exists() else {}
    recipe = {key: value for key, value in yaml.safe_load(RECIPE.read_text()).items() if key not in NOT_TAKEN}
    if "model_name_or_path" in fields:  # which has a size of its own
        recipe = {key: value for key, value in recipe.items() if key not in (*STUDENT, "num_mel_bins")}
    folder = (args.runs / name).resolve()
    recipe |= {"dataset_name": str(table), "output_dir": str(folder), "seed": seed, "save_strategy": "no"} | fields
    key = json.dumps([recipe, args.takes], sort_keys=True)
    if key not in results:
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
            yaml.safe_dump(recipe, file)
            file.flush()
            flags = ["--overwrite_output_dir=true", "--disable_tqdm=true"]
            begun = time.perf_counter()
            command = [sys.executable, "-m", "finetune.run_finetune", file.name, *flags]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        summary = json.loads((folder / "run_summary.json").read_text())
        results[key] = {
            "folder": str(folder),
            "accuracy": summary["evaluation"]["metrics"]["accuracy"],
            "parameters": summary["model"]["parameters"],
            "seconds": time.perf_counter() - begun,
        }
        with open_atomically(kept, "w") as file:
            json.dump(results, file, indent=1)
    return results[key]


if __name__ == "__main__":
    main()

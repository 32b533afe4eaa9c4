"""What a pretrained checkpoint is worth to a fine-tuning: each training beside one of the same clips and seed from random weights.

    python -m benchmarks.pretrained_start [CHECKPOINT] [--clips_a_label 10] [--digits FOLDER --speakers george jackson lucas]

The drums are scored on the kit that is held out, or with `--digits` each speaker of Free Spoken Digits in turn. From random weights the
kit's own recipes train, from the checkpoint those of benchmarks/pretrained_start.yaml. Every epoch is scored, so that it can be told
when the checkpoint's training has reached the accuracy that the other ends with; the last epoch counts. Finished trainings are kept in
the results file, so that a second call goes on where the first ended.
"""

import argparse
import csv
import itertools
import json
import random
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

import yaml

from modeling_ast.system.atomic_files import open_atomically

HERE = Path(__file__).parent
STARTS = HERE / "pretrained_start.yaml"
DRUMS = HERE.parent / "finetune" / "sample_data" / "drums"
DRUMS_RECIPE = HERE.parent / "finetune" / "recipes" / "drums_from_scratch.yaml"
DIGITS_RECIPE = HERE / "spoken_digits.yaml"
NOT_TAKEN = ("fold_column_name", "dataset_name", "output_dir", "seed")
SPEAKERS = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")
PROGRESS = {"eval_strategy": "epoch", "save_strategy": "no", "disable_tqdm": True}


def main():
    """Train what the results file lacks, and print a row for each pair."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", nargs="?", default="ast-small", help="to start from (default: %(default)s)")
    parser.add_argument("--seeds", nargs="+", type=int, help="(default: 0 to 4 of the drums, 0 of the digits)")
    parser.add_argument(
        "--clips_a_label", type=int, help="training clips of each label, drawn by the seed; all if not given"
    )
    parser.add_argument(
        "--digits", type=Path, help="folder of Free Spoken Digits with its metadata.csv, in place of drums"
    )
    parser.add_argument("--speakers", nargs="+", default=list(SPEAKERS), help="held out, one at a time (default: all)")
    parser.add_argument("--starts", type=Path, default=STARTS, help="settings of fine-tunings (default: %(default)s)")
    parser.add_argument(
        "--results", type=Path, default=Path("runs/pretrained_start.json"), help="where scores are kept"
    )
    args = parser.parse_args()
    kind = "digits" if args.digits else "drums"
    start = yaml.safe_load(args.starts.read_text())[kind] | {"model_name_or_path": args.checkpoint}
    scratch = yaml.safe_load((DIGITS_RECIPE if args.digits else DRUMS_RECIPE).read_text())
    scratch = {name: value for name, value in scratch.items() if name not in NOT_TAKEN}
    args.results.parent.mkdir(parents=True, exist_ok=True)
    print(
        "| | from random weights | s | from the checkpoint | s | difference | same accuracy after |\n|---|---|---|---|---|---|---|"
    )
    pairs = []
    seeds = args.seeds or ([0] if args.digits else range(5))
    for seed, speaker in itertools.product(seeds, args.speakers if args.digits else [None]):
        rows = digit_rows(args.digits, speaker) if args.digits else drum_rows(seed, args.clips_a_label)
        pairs.append(tuple(trained(args.results, settings, rows, seed) for settings in (scratch, start)))
        print_row(f"{speaker}, seed {seed}" if args.digits else str(seed), *pairs[-1])
    print_mean(pairs)


def drum_rows(seed: int, clips_a_label: int | None) -> list[dict]:
    """Rows of the drums with full paths; of each label so many training clips, drawn by the seed."""
    with open(DRUMS / "metadata.csv", newline="", encoding="utf-8") as file:
        rows = [row | {"file_name": str(DRUMS / row["file_name"])} for row in csv.DictReader(file)]
    if clips_a_label is None:
        return [{name: row[name] for name in ("file_name", "label", "split")} for row in rows]
    of_label = defaultdict(list)
    for row in rows:
        if row["split"] == "train":
            of_label[row["label"]].append(row["file_name"])
    draw = random.Random(seed)
    kept = {
        name for _, names in sorted(of_label.items()) for name in draw.sample(names, min(clips_a_label, len(names)))
    }
    return [
        {name: row[name] for name in ("file_name", "label", "split")}
        for row in rows
        if row["split"] == "test" or row["file_name"] in kept
    ]


def digit_rows(folder: Path, speaker: str) -> list[dict]:
    """Rows of the digits with full paths, in which a speaker is the test split."""
    with open(folder / "metadata.csv", newline="", encoding="utf-8") as file:
        return [
            {
                "file_name": str((folder / row["file_name"]).resolve()),
                "label": row["label"],
                "split": "test" if row["speaker"] == speaker else "train",
            }
            for row in csv.DictReader(file)
        ]


def trained(results: Path, settings: dict, rows: list[dict], seed: int) -> dict:
    """Train and score unless the results file has it: accuracy of each epoch, seconds, epochs."""
    kept = json.loads(results.read_text()) if results.exists() else {}
    key = json.dumps(
        [settings, seed, sorted(row["file_name"] for row in rows if row["split"] == "train")], sort_keys=True
    )
    if key not in kept:
        with tempfile.TemporaryDirectory() as folder:
            table = Path(folder, "clips.csv")
            with open(table, "w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, rows[0])
                writer.writeheader()
                writer.writerows(rows)
            recipe = Path(folder, "recipe.yaml")
            run = {"dataset_name": str(table), "output_dir": str(Path(folder, "run")), "seed": seed}
            recipe.write_text(yaml.safe_dump(settings | PROGRESS | run))
            command = [sys.executable, "-m", "finetune.run_finetune", str(recipe)]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            summary = json.loads(Path(folder, "run", "run_summary.json").read_text())
        kept[key] = {
            "accuracy": summary["evaluation"]["metrics"]["accuracy"],
            "epochs": [row["eval_accuracy"] for row in summary["history"] if "eval_accuracy" in row],
            "seconds": summary["time"]["training_seconds"],
        }
        with open_atomically(results, "w") as file:
            json.dump(kept, file, indent=1)
    return kept[key]


def share_until(scratch: dict, start: dict) -> float | None:
    """Training time from the checkpoint until the accuracy that the training from random weights ends with, as a share of its time."""
    for number, accuracy in enumerate(start["epochs"], start=1):
        if accuracy >= scratch["accuracy"]:
            return number / len(start["epochs"]) * start["seconds"] / scratch["seconds"]
    return None


def print_row(name: str, scratch: dict, start: dict):
    """One pair; the seconds include the scoring of each epoch."""
    share = share_until(scratch, start)
    cells = [
        name,
        f"{scratch['accuracy']:.3f}",
        f"{scratch['seconds']:.0f}",
        f"{start['accuracy']:.3f}",
        f"{start['seconds']:.0f}",
    ]
    cells += [
        f"{100 * (start['accuracy'] - scratch['accuracy']):+.1f}",
        "never" if share is None else f"{share:.2f} of the time",
    ]
    print(f"| {' | '.join(cells)} |", flush=True)


def print_mean(pairs: list[tuple[dict, dict]]):
    """The means of both and of their differences."""
    scratch, start = ([pair[side]["accuracy"] for pair in pairs] for side in (0, 1))
    gains = [b - a for a, b in zip(scratch, start, strict=True)]
    spread = f", standard deviation {100 * statistics.stdev(gains):.1f}" if len(gains) > 1 else ""
    print(
        f"\nmean of {len(pairs)}: {statistics.mean(scratch):.3f} from random weights, {statistics.mean(start):.3f} from the "
        f"checkpoint: {100 * statistics.mean(gains):+.1f} points{spread}"
    )


if __name__ == "__main__":
    main()

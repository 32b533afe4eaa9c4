"""Scores candidates for the drums recipe by leave-one-kit-out over the training kits; the test kit is never read.

    python -m benchmarks.leave_one_kit_out benchmarks/drums_choices.yaml

Each candidate is trained once per kit on the other kits with `ast-finetune` and scored on the one left out. Finished
trainings are kept in the results file, so that a second call goes on where the first ended.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock

import yaml

from modeling_ast.system.atomic_files import open_atomically

DRUMS = Path(__file__).parents[1] / "finetune" / "sample_data" / "drums"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("choices", type=Path, help="YAML with the mappings base and candidates")
    parser.add_argument(
        "--results", type=Path, default=Path("runs/drums_choices.json"), help="where trainings are kept"
    )
    parser.add_argument("--table", type=Path, default=Path("runs/drums_choices.md"), help="Markdown table to write")
    parser.add_argument("--seed", type=int, default=0, help="seed of every training")
    args = parser.parse_args()

    choices = yaml.safe_load(args.choices.read_text())
    rows = training_rows()
    kits = sorted({row["source"] for row in rows})
    results = json.loads(args.results.read_text()) if args.results.exists() else {}
    for output in (args.results, args.table):
        output.parent.mkdir(parents=True, exist_ok=True)
    lock = Lock()

    def train(job: tuple[str, str]):
        name, kit = job
        settings = choices["base"] | choices["candidates"][name]
        key = json.dumps([settings, kit, args.seed], sort_keys=True)
        if key not in results:
            score = score_on_kit(settings, rows, kit, args.seed)
            with lock, open_atomically(args.results, "w") as file:
                results[key] = score
                json.dump(results, file, indent=1)
            print(f"{name}, {kit}: {score}", flush=True)
        return name, kit, results[key]

    jobs = [(name, kit) for name in choices["candidates"] for kit in kits]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        finished = list(pool.map(train, jobs))
    table = markdown_table(finished, kits, choices["candidates"])
    args.table.write_text(table)
    print(table)


def training_rows() -> list[dict]:
    """Rows of metadata.csv without the test kit, with full paths."""
    with open(DRUMS / "metadata.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "train"]
    return [row | {"file_name": str(DRUMS / row["file_name"])} for row in rows]


def score_on_kit(settings: dict, rows: list[dict], kit: str, seed: int) -> dict:
    """Train on the other kits in a process with one thread; count the right ones among the kit's clips."""
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder, "clips.csv")
        with open(table, "w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(row | {"split": "test" if row["source"] == kit else "train"} for row in rows)
        recipe = Path(folder, "recipe.yaml")
        run = {"dataset_name": str(table), "output_dir": str(Path(folder, "run")), "seed": seed, "save_strategy": "no"}
        recipe.write_text(yaml.safe_dump(settings | run))
        subprocess.run(
            [sys.executable, "-m", "finetune.run_finetune", str(recipe), "--disable_tqdm", "true"],
            check=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL,
        )
        summary = json.loads(Path(folder, "run", "run_summary.json").read_text())
    evaluation, matrix = summary["evaluation"], summary["evaluation"]["confusion_matrix"]
    return {
        "right": sum(matrix[label][label] for label in range(len(matrix))),
        "clips": evaluation["clips"],
        "loss": evaluation["metrics"]["loss"],
        "seconds": summary["time"]["training_seconds"],
    }


def markdown_table(finished: list[tuple], kits: list[str], candidates: dict) -> str:
    """A row per candidate: accuracy on each kit, over all clips, and seconds of a training on one thread."""
    lines = [
        "| candidate | " + " | ".join(kits) + " | all clips | loss | s per training |",
        "|---" * (len(kits) + 4) + "|",
    ]
    for name in candidates:
        scores = {kit: score for candidate, kit, score in finished if candidate == name}
        clips = sum(score["clips"] for score in scores.values())
        right = sum(score["right"] for score in scores.values())
        loss = sum(score["loss"] * score["clips"] for score in scores.values()) / clips
        seconds = sum(score["seconds"] for score in scores.values()) / len(scores)
        cells = [f"{scores[kit]['right'] / scores[kit]['clips']:.2f}" for kit in kits]
        lines.append(f"| {name} | {' | '.join(cells)} | **{right / clips:.3f}** | {loss:.2f} | {seconds:.0f} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()

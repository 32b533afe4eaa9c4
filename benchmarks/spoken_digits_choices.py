"""Scores candidates for the spoken-digits recipe on training speakers; the speaker they are chosen for is never heard.

    python -m benchmarks.spoken_digits_choices FOLDER

Speakers go in pairs. Each candidate is trained without a pair; its score on one of the two tells what is right for the fold
that holds out the other one, whose clips had no part in it. Finished trainings are kept in the results file, so that a
second call goes on where the first ended.
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

from modeling_ast.atomic_files import open_atomically

RECIPE = Path(__file__).with_name("spoken_digits.yaml")
CHOICES = Path(__file__).with_name("spoken_digits_choices.yaml")
PAIRS = (("george", "jackson"), ("lucas", "nicolas"), ("theo", "yweweler"))
NOT_IN_THE_CHOICE = ("fold_column_name", "output_dir", "mixup_probability", "max_speed_change")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("digits", type=Path, help="folder of the Free Spoken Digits with its metadata.csv")
    parser.add_argument(
        "--results", type=Path, default=Path("runs/spoken_digits_choices.json"), help="where scores are kept"
    )
    args = parser.parse_args()
    candidates = yaml.safe_load(CHOICES.read_text())["candidates"]
    base = {name: value for name, value in yaml.safe_load(RECIPE.read_text()).items() if name not in NOT_IN_THE_CHOICE}
    with open(args.digits / "metadata.csv", newline="", encoding="utf-8") as file:
        rows = [row | {"file_name": str(args.digits / row["file_name"])} for row in csv.DictReader(file)]
    results = json.loads(args.results.read_text()) if args.results.exists() else {}
    args.results.parent.mkdir(parents=True, exist_ok=True)
    lock = Lock()

    def score(job: tuple[str, tuple[str, str]]):
        name, pair = job
        key = json.dumps([base | candidates[name], pair], sort_keys=True)
        if key not in results:
            accuracies = accuracies_without(base | candidates[name], rows, pair)
            with lock, open_atomically(args.results, "w") as file:
                results[key] = accuracies
                json.dump(results, file, indent=1)
            print(f"{name}: {accuracies}", flush=True)
        return name, results[key]

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        finished = list(pool.map(score, [(name, pair) for name in candidates for pair in PAIRS]))
    print(markdown_table(candidates, finished))


def accuracies_without(settings: dict, rows: list[dict], pair: tuple[str, str]) -> dict[str, float]:
    """Train on the other speakers in a process with one thread; the accuracy on each of the pair."""
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        with open(folder / "clips.csv", "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, ["file_name", "label", "split"], extrasaction="ignore")
            writer.writeheader()
            writer.writerows(row | {"split": "test" if row["speaker"] in pair else "train"} for row in rows)
        run = {"dataset_name": str(folder / "clips.csv"), "output_dir": str(folder / "run"), "save_strategy": "no"}
        (folder / "recipe.yaml").write_text(yaml.safe_dump(settings | run))
        call("finetune.run_finetune", folder / "recipe.yaml", "--disable_tqdm", "true")
        model, predictions = ("--model_name_or_path", folder / "run"), ("--predictions", folder / "scores.csv")
        call("finetune.run_evaluate", *model, "--dataset_name", folder / "clips.csv", *predictions)
        with open(folder / "scores.csv", newline="", encoding="utf-8") as file:
            scored = list(csv.DictReader(file))
    speakers = {row["file_name"]: row["speaker"] for row in rows}
    right = {speaker: [] for speaker in pair}
    for row in scored:
        top = max((name for name in row if name.isdigit()), key=lambda name: float(row[name]))
        right[speakers[row["file"]]].append(top == row["truth"])
    return {speaker: sum(answers) / len(answers) for speaker, answers in right.items()}


def call(module: str, *words):
    """Run a command of this project in a process with one thread."""
    command = [sys.executable, "-m", module, *map(str, words)]
    subprocess.run(command, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL)


def markdown_table(candidates: dict, finished: list[tuple[str, dict[str, float]]]) -> str:
    """A row per candidate; a column for each held-out speaker with the score of the other one of the pair."""
    partner = {speaker: other for pair in PAIRS for speaker, other in (pair, pair[::-1])}
    scores = {name: {} for name in candidates}
    for name, accuracies in finished:
        scores[name] |= accuracies
    best = {speaker: max(candidates, key=lambda name: scores[name][partner[speaker]]) for speaker in partner}
    lines = ["| candidate | " + " | ".join(f"for {speaker}, on {partner[speaker]}" for speaker in partner) + " |"]
    lines.append("|---" * (len(partner) + 1) + "|")
    for name in candidates:
        cells = [f"{scores[name][partner[speaker]]:.3f}" for speaker in partner]
        cells = [
            f"**{cell}**" if best[speaker] == name else cell for speaker, cell in zip(partner, cells, strict=True)
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()

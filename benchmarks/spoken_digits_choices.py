"""Scores candidates for the spoken-digits recipe on training speakers; the speaker they are chosen for is never scored.

    python -m benchmarks.spoken_digits_choices FOLDER

Speakers go in pairs. Each candidate is trained without a pair and scored on each of the two. For the fold that holds out a
speaker the mean over the other five counts, so that his own clips are in no score that chooses. Finished trainings are kept
in the results file, so that a second call goes on where the first ended.
"""

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock

import yaml

from modeling_ast.system.atomic_files import open_atomically

RECIPE = Path(__file__).with_name("spoken_digits.yaml")
CHOICES = Path(__file__).with_name("spoken_digits_choices.yaml")
PAIRS = (("theo", "yweweler"), ("george", "jackson"), ("lucas", "nicolas"))
NOT_IN_THE_CHOICE = ("fold_column_name", "output_dir", "mixup_probability", "max_speed_change", "max_gain_db")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("digits", type=Path, help="folder of the Free Spoken Digits with its metadata.csv")
    parser.add_argument(
        "--results", type=Path, default=Path("runs/spoken_digits_choices.json"), help="where scores are kept"
    )
    args = parser.parse_args()
    digits = args.digits.resolve()
    candidates = yaml.safe_load(CHOICES.read_text())["candidates"]
    base = {name: value for name, value in yaml.safe_load(RECIPE.read_text()).items() if name not in NOT_IN_THE_CHOICE}
    with open(digits / "metadata.csv", newline="", encoding="utf-8") as file:
        rows = [row | {"file_name": str(digits / row["file_name"])} for row in csv.DictReader(file)]
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
    """A row per candidate: the score on each speaker and, after it, the mean over the other five, which chooses for him."""
    scores = {name: {} for name in candidates}
    for name, accuracies in finished:
        scores[name] |= accuracies
    speakers = [speaker for pair in PAIRS for speaker in pair]

    def others(name: str, speaker: str) -> float:
        return statistics.fmean(score for other, score in scores[name].items() if other != speaker)

    best = {speaker: max(candidates, key=lambda name: others(name, speaker)) for speaker in speakers}
    lines = ["| candidate | " + " | ".join(f"{speaker}, the others" for speaker in speakers) + " | all |"]
    lines.append("|---" * (len(speakers) + 2) + "|")
    for name in candidates:
        cells = []
        for speaker in speakers:
            mean = f"{others(name, speaker):.3f}"
            cells.append(f"{scores[name][speaker]:.3f}, " + (f"**{mean}**" if best[speaker] == name else mean))
        lines.append(f"| {name} | " + " | ".join(cells) + f" | {statistics.fmean(scores[name].values()):.3f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()

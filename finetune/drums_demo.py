"""The last part of `make demo`: the trained folder in this port's pipeline and in stock Transformers, side by side.

python -m finetune.drums_demo runs/drums
"""

import argparse
import csv
import json
import subprocess
import sys
import time
from pathlib import Path

from transformers import pipeline
from transformers.utils import logging

from model_card.run_summary import RUN_SUMMARY_NAME
from modeling_ast import register

DRUMS = Path(__file__).parent / "sample_data" / "drums"
TOLERANCE = 1e-5  # on probabilities; both sides compute in float32


def main() -> int:
    """Print a table of held-out clips; fail if the two disagree.

    Returns:
        `int`: 0, or 1 if the two disagree.
    """
    parser = argparse.ArgumentParser(description="Compare a drums checkpoint with stock Transformers.")
    parser.add_argument("checkpoint_dir", type=Path, help="folder that ast-finetune wrote")
    parser.add_argument(
        "--started_at", type=float, help="when the job began, in seconds since 1970, to print its time"
    )
    args = parser.parse_args()
    folder = args.checkpoint_dir
    logging.set_verbosity_error()
    logging.disable_progress_bar()

    rows = held_out_clips()
    clips = [str(DRUMS / row["file_name"]) for row in rows]
    register()
    classifier = pipeline("audio-classification", model=str(folder))
    ours = [{answer["label"]: answer["score"] for answer in classifier(clip, top_k=None)} for clip in clips]
    stock = scores_of_stock_transformers(folder, clips)

    print(
        f"\nHeld-out clips, given as paths to this port's pipeline and as arrays to stock Transformers ({folder}):\n"
    )
    print(f"{'clip':28}{'truth':12}{'this port':34}{'stock Transformers':34}largest difference")
    worst = 0.0
    for row, here, there in zip(rows, ours, stock, strict=True):
        difference = max(abs(here[label] - there[label]) for label in here)
        worst = max(worst, difference)
        print(f"{row['file_name']:28}{row['label']:12}{top(here):34}{top(there):34}{difference:.1e}")
    if worst > TOLERANCE:
        print(f"\nThe two disagree by {worst:.1e}, more than {TOLERANCE:.0e}.", file=sys.stderr)
        return 1
    if args.started_at:
        print(f"\nThe job took {time.time() - args.started_at:.0f} s, set-up not counted.")
    evaluation = json.loads((folder / RUN_SUMMARY_NAME).read_text(encoding="utf-8"))["evaluation"]
    print(
        f"The checkpoint lies in {folder}: accuracy {evaluation['metrics']['accuracy']:.3f} on the {evaluation['clips']} "
        "clips of a drum kit it never heard."
    )
    return 0


def held_out_clips() -> list[dict]:
    """The first held-out clip of each label.

    Returns:
        `list[dict]`: rows of the table `metadata.csv`.
    """
    with open(DRUMS / "metadata.csv", newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "test"]
    first_of_label = {row["label"]: row for row in reversed(rows)}
    return [first_of_label[label] for label in sorted(first_of_label)]


def scores_of_stock_transformers(folder: Path, clips: list[str]) -> list[dict[str, float]]:
    """Scores of every label, computed in a process of its own that imports nothing of this project.

    Args:
        folder (`Path`): of the checkpoint.
        clips (`list[str]`): paths of audio files.

    Returns:
        `list[dict[str, float]]`: for each clip the score of each label.
    """
    script = Path(__file__).with_name("stock_scores.py")
    request = json.dumps({"model": str(folder), "clips": clips})
    # -I: neither the working folder nor the script's own is searched for modules.
    answer = subprocess.run(
        [sys.executable, "-I", str(script)], input=request, capture_output=True, text=True, check=False
    )
    if answer.returncode:
        raise RuntimeError(f"Stock Transformers failed on {folder}:\n{answer.stderr}")
    return json.loads(answer.stdout)


def top(scores: dict[str, float]) -> str:
    """The best two labels with their scores.

    Args:
        scores (`dict[str, float]`): by label.

    Returns:
        `str`: a part of a line.
    """
    best = sorted(scores, key=scores.get, reverse=True)[:2]
    return ", ".join(f"{label} {scores[label]:.3f}" for label in best)


if __name__ == "__main__":
    sys.exit(main())

"""Scores of clips by stock Transformers, to compare this port with: a script that imports nothing of this project.

    echo '{"model": "runs/drums", "clips": ["a.flac"]}' | python -I finetune/stock_scores.py

Prints a JSON list with a `{label: score}` per clip. Clips are decoded with soundfile and given as arrays, since the stock
pipeline needs the `ffmpeg` program for paths.
"""

import json
import sys

import soundfile
from transformers import pipeline
from transformers.utils import logging


def main():
    """Read a model and clips as JSON from standard input, and print the scores as JSON."""
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    request = json.load(sys.stdin)
    classifier = pipeline("audio-classification", model=request["model"])
    scores = []
    for path in request["clips"]:
        waveform, sampling_rate = soundfile.read(path, dtype="float32")
        answers = classifier({"array": waveform, "sampling_rate": sampling_rate}, top_k=None)
        scores.append({answer["label"]: answer["score"] for answer in answers})
    ours = {"modeling_ast", "finetune", "model_card"} & {name.split(".")[0] for name in sys.modules}
    if ours:
        raise SystemExit(f"{sorted(ours)} were imported: these are not the scores of stock Transformers.")
    json.dump(scores, sys.stdout)


if __name__ == "__main__":
    main()

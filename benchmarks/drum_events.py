"""Events in a long recording of drum strokes at known times: hits, misses and false alarms of `ast-tag --timeline`.

    python -m benchmarks.drum_events CHECKPOINT_DIR [--hours 1] [--threshold 0.5] [--seed 0]

The strokes are the held-out clips of the shipped drums, 2 to 4 s from one to the next, on digital silence and on white noise of
-60 dB. An event with a stroke's label that overlaps it is a hit, a stroke without one a miss, an event that overlaps no stroke
of its label a false alarm. The recording's windows lie a quarter of a window apart. A model that was trained on strokes alone
knows no label for noise: what it says of windows without a stroke are its false alarms.
"""

import argparse
import csv
import sys
import tempfile
from pathlib import Path

import numpy as np
import soundfile

from finetune.drums_demo import DRUMS
from modeling_ast.tagging import AudioTagger

RATE = 16_000
APART = (2.0, 4.0)  # seconds from the begin of a stroke to that of the next
NOISES = {"digital silence": 0.0, "white noise of -60 dB": 1e-3}


def main() -> int:
    """Print the rows of a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint_dir", type=Path, help="model folder, as `make demo` leaves it")
    parser.add_argument("--hours", type=float, default=1.0, help="of the recording (default: %(default)s)")
    parser.add_argument("--threshold", type=float, default=0.5, help="of an event (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of times, strokes and noise (default: %(default)s)")
    args = parser.parse_args()
    tagger = AudioTagger.from_pretrained(args.checkpoint_dir, "cpu")
    hop = round(tagger.window_samples / 4 / 160) / 100
    print("| on | strokes | hits | misses | events | false alarms |\n|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "strokes.wav"
        for name, level in NOISES.items():
            strokes = write_strokes(file, 3600 * args.hours, level, args.seed)
            (tags,) = tagger.tag_files([file], timeline=True, hop=hop, threshold=args.threshold)
            events = [(segment.start, segment.end, segment.label) for segment in tags.segments]
            hits, false_alarms = compare(strokes, events)
            print(
                f"| {name} | {len(strokes)} | {hits} | {len(strokes) - hits} | {len(events)} | {false_alarms} |",
                flush=True,
            )
    return 0


def write_strokes(path: Path, seconds: float, level: float, seed: int) -> list[tuple[float, float, str]]:
    """Write a recording of strokes.

    Args:
        path (`Path`): WAV file to write.
        seconds (`float`): its length.
        level (`float`): standard deviation of the noise, full scale at 1.
        seed (`int`): of all that is drawn.

    Returns:
        `list` of the start and the end of each stroke in seconds, and its label.
    """
    random = np.random.default_rng(seed)
    with open(DRUMS / "metadata.csv", newline="", encoding="utf-8") as table:
        rows = [row for row in csv.DictReader(table) if row["split"] == "test"]
    clips = [(soundfile.read(DRUMS / row["file_name"], dtype="float32"), row["label"]) for row in rows]
    samples = level * random.standard_normal(round(seconds * RATE), dtype=np.float32)
    strokes, start = [], random.uniform(*APART)
    while start < seconds - APART[1]:
        (waveform, rate), label = clips[random.integers(len(clips))]
        if rate != RATE:
            raise ValueError(f"A clip has {rate} Hz, expected {RATE}.")
        first = round(start * RATE)
        samples[first : first + len(waveform)] += waveform
        strokes.append((start, start + len(waveform) / RATE, label))
        start += max(len(waveform) / RATE, random.uniform(*APART))
    soundfile.write(path, samples, RATE, subtype="FLOAT")
    return strokes


def compare(strokes: list[tuple[float, float, str]], events: list[tuple[float, float, str]]) -> tuple[int, int]:
    """Count hits and false alarms.

    Args:
        strokes (`list`): start, end and label of each.
        events (`list`): likewise.

    Returns:
        How many strokes an event of their label overlaps, and how many events overlap no stroke of theirs.
    """

    def overlaps(one: tuple[float, float, str], others: list[tuple[float, float, str]]) -> bool:
        return any(one[2] == label and one[0] < end and start < one[1] for start, end, label in others)

    return sum(overlaps(stroke, events) for stroke in strokes), sum(not overlaps(event, strokes) for event in events)


if __name__ == "__main__":
    sys.exit(main())

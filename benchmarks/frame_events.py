"""Drum strokes in long recordings: events of a frame head trained on marked recordings, beside those of the clip head.

    python -m benchmarks.frame_events [--clip_checkpoint runs/drums] [--recordings 8] [--seconds 120] [--epochs 15] [--seed 0]

Recordings are made of the shipped drum clips, each at a known time, 0.1 to 1.5 s after the one before, on white noise of -60 dB;
labels are drawn alike often. The training kits are in the training recordings, and in one that thresholds are chosen on; the kit
that no model heard is in the test recording. Marked is what of a stroke is louder than the noise. The clip head is that of
`finetune/recipes/drums.yaml`, trained on the clips themselves; the frame head starts from its weights, or with
`--start random` from none, and is trained with binary cross-entropy on windows of the recordings. Both tag the test recording
by `AudioTagger` as `ast-tag --timeline` does; the clip head with windows a quarter of a window apart.

Printed is the F1 of events as `ast-events` counts it: of an event the start may be off by 0.2 s, and the end by as much or a fifth
of its length; and, as the end of an echo is a matter of taste, also with an end that may be off by the whole length. The clip head knows no label for noise, so that
it is shown at several thresholds, the best of which was not chosen on other recordings: that is in its favour.
"""

import argparse
import csv
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import soundfile

from finetune.drums_demo import DRUMS
from finetune.scores.event_scores import EventRule, score_events
from finetune.scores.event_tables import Event, EventTable
from modeling_ast.tagging import AudioTagger

RECIPE = "finetune/recipes/drums.yaml"
RATE = 16_000
GAP = (0.1, 1.5)  # seconds from the end of a stroke to the start of the next
NOISE = 1e-3  # standard deviation, full scale at 1
BLOCK = RATE // 100  # in which it is looked at how loud a stroke is
THRESHOLDS = (0.5, 0.7, 0.9)  # of the clip head
RULES = {"start and end": EventRule(), "start and rough end": EventRule(length_share=1.0)}


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line.

    Args:
        argv (`list[str]`, *optional*): arguments after the program's name, by default those of the process.

    Returns:
        `argparse.Namespace`.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clip_checkpoint", help=f"folder of the clip head (default: trained by {RECIPE})")
    parser.add_argument("--start", choices=("clip", "random"), default="clip", help="of the frame head's encoder")
    parser.add_argument("--recordings", type=int, default=8, help="to train on (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=120.0, help="of each recording (default: %(default)s)")
    parser.add_argument(
        "--test_seconds", type=float, default=300.0, help="of the test recording (default: %(default)s)"
    )
    parser.add_argument("--epochs", type=int, default=15, help="of the frame head (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of recordings and training (default: %(default)s)")
    return parser.parse_args(argv)


def main() -> int:
    """Make the recordings, train, and print the rows of a Markdown table."""
    args = parse_arguments()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clip_head = Path(args.clip_checkpoint or folder / "clips")
        if not args.clip_checkpoint:
            train([RECIPE, "--seed", str(args.seed)], clip_head)
        data = folder / "recordings"
        lengths = {("train", number): args.seconds for number in range(args.recordings)}
        lengths |= {("validation", 0): args.seconds, ("test", 0): args.test_seconds}
        strokes = {}
        for place, ((side, number), seconds) in enumerate(lengths.items()):
            path = data / side / f"{side}{number}.flac"
            clips = read_clips("test" if side == "test" else "train")
            strokes[side, number] = write_recording(path, seconds, clips, (args.seed, place))
        print(f"{sum(map(len, strokes.values())) - len(strokes['test', 0])} strokes to train and choose thresholds on")
        flags = ["--dataset_name", str(data), "--marks", "beside", "--head", "frame", "--loss", "binary_cross_entropy"]
        flags += ["--validation_split_name", "validation", "--num_train_epochs", str(args.epochs)]
        start = start_flags(args.start, clip_head) + ["--learning_rate", "5e-4", "--seed", str(args.seed)]
        summary = train([*flags, *start, "--warmup_steps", "0.1"], folder / "frames")
        evaluation = summary["evaluation"]
        print(
            f"frame head trained in {summary['time']['training_seconds']:.0f} s; mean average precision of frames of "
            f"{1000 * evaluation['frame_seconds']:g} ms: {evaluation['metrics']['mean_average_precision']:.3f}\n"
        )
        print_events(data / "test" / "test0.flac", args.test_seconds, strokes["test", 0], clip_head, folder / "frames")
    return 0


def start_flags(start: str, clip_head: Path) -> list[str]:
    """Tell where the frame head starts from.

    Args:
        start (`str`): `"clip"` or `"random"`.
        clip_head (`Path`): the checkpoint, whose sizes a random one has, too.

    Returns:
        Flags of `ast-finetune`.
    """
    if start == "clip":
        return ["--model_name_or_path", str(clip_head)]
    config = json.loads((clip_head / "config.json").read_text())
    names = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "max_length")
    names += ("frequency_stride", "time_stride")
    return [word for name in names for word in (f"--{name}", str(config[name]))]


def train(flags: list[str], output_dir: Path) -> dict:
    """Train in a process of its own.

    Args:
        flags (`list[str]`): of `ast-finetune`.
        output_dir (`Path`): where the run is written.

    Returns:
        The run summary.
    """
    command = [sys.executable, "-m", "finetune.run_finetune", *flags, "--output_dir", str(output_dir)]
    subprocess.run([*command, "--disable_tqdm", "true"], check=True, stdout=sys.stderr)
    return json.loads((output_dir / "run_summary.json").read_text())


def read_clips(split: str) -> dict[str, list[np.ndarray]]:
    """Read the shipped drum clips.

    Args:
        split (`str`): `"train"` or `"test"`, which is another kit.

    Returns:
        By label, waveforms of shape `(samples,)`, float32, up to where each is as quiet as the noise.
    """
    with open(DRUMS / "metadata.csv", newline="", encoding="utf-8") as table:
        rows = [row for row in csv.DictReader(table) if row["split"] == split]
    clips: dict[str, list[np.ndarray]] = {}
    for row in rows:
        waveform, rate = soundfile.read(DRUMS / row["file_name"], dtype="float32")
        if rate != RATE:
            raise ValueError(f"{row['file_name']} has {rate} Hz, expected {RATE}.")
        blocks = waveform[: len(waveform) // BLOCK * BLOCK].reshape(-1, BLOCK)
        loud = np.flatnonzero(np.sqrt((blocks**2).mean(axis=1)) > NOISE)
        clips.setdefault(row["label"], []).append(waveform[: (loud[-1] + 1) * BLOCK])
    return clips


def write_recording(path: Path, seconds: float, clips: dict[str, list[np.ndarray]], seed: tuple) -> list[Event]:
    """Write a recording of strokes, and a label track that marks them beside it.

    Args:
        path (`Path`): FLAC file to write.
        seconds (`float`): its length.
        clips (`dict[str, list[np.ndarray]]`): strokes by label.
        seed (`tuple`): of all that is drawn.

    Returns:
        `list[Event]`: the strokes.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    samples = NOISE * random.standard_normal(round(seconds * RATE), dtype=np.float32)
    labels, strokes, start = sorted(clips), [], random.uniform(*GAP)
    while start < seconds - GAP[1]:
        label = labels[random.integers(len(labels))]
        waveform = clips[label][random.integers(len(clips[label]))]
        first = round(start * RATE)
        samples[first : first + len(waveform)] += waveform
        strokes.append(Event(first / RATE, (first + len(waveform)) / RATE, label))
        start += len(waveform) / RATE + random.uniform(*GAP)
    soundfile.write(path, samples.clip(-1, 1), RATE)
    path.with_suffix(".txt").write_text(
        "".join(f"{each.start:.6f}\t{each.end:.6f}\t{each.label}\n" for each in strokes)
    )
    return strokes


def print_events(recording: Path, seconds: float, strokes: list[Event], clip_head: Path, frame_head: Path):
    """Tag the recording with both and print what the events are worth.

    Args:
        recording (`Path`): to tag.
        seconds (`float`): its length.
        strokes (`list[Event]`): what is marked in it.
        clip_head (`Path`): checkpoint folder.
        frame_head (`Path`): likewise.
    """
    columns = [f"event F1, {name}" for name in RULES] + ["precision", "recall", "false alarms per hour"]
    print(f"| head | marked | found | {' | '.join(columns)} |\n|{'---|' * (len(columns) + 3)}")
    clips, frames = (AudioTagger.from_pretrained(path, "cpu", frame_heads=True) for path in (clip_head, frame_head))
    hop = round(clips.window_samples / 4 / 160) / 100
    rows = [("frame, thresholds of validation", frames, {})]
    rows += [("frame, the same, median of 0.5 s", frames, {"median_filter": 0.5})]
    rows += [(f"clip, {level}", clips, {"hop": hop, "threshold": level}) for level in THRESHOLDS]
    for name, tagger, settings in rows:
        (tags,) = tagger.tag_files([recording], timeline=True, **settings)
        found = sorted(Event(segment.start, segment.end, segment.label) for segment in tags.segments)
        tables = [EventTable(kind, {"test": events}) for kind, events in (("marked", strokes), ("found", found))]
        scores = [score_events(*tables, {"test": seconds}, rule) for rule in RULES.values()]
        f1 = [f"{each['event_based']['micro']['f1'] or 0:.3f}" for each in scores]
        of_starts = scores[-1]["event_based"]["micro"]
        others = [f"{of_starts['precision'] or 0:.3f}", f"{of_starts['recall'] or 0:.3f}"]
        alarms = f"{scores[-1]['false_alarms_per_hour']:.0f}"
        print(f"| {name} | {len(strokes)} | {len(found)} | {' | '.join([*f1, *others, alarms])} |", flush=True)


if __name__ == "__main__":
    sys.exit(main())

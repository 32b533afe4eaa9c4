"""How well the segments of a time line agree with calls at known places, for each reading of the windows' scores.

    python -m benchmarks.timeline_segments [--output runs/timeline_segments] [--events]

A call is a roll of one drum, made of the shipped clips, or a whistle of one shape, and lasts 0.2 to 5 s. Small models are
trained with `fine_tune` on clips of one window, cut as people cut them: a call shorter than the window lies in it as a whole,
a longer one fills it, and some clips hold noise only. They then tag recordings of a minute, noise with calls between half a
second and eight seconds apart; the drums there are of a kit that was never trained on.

A call is found if a segment of its label overlaps it at an intersection over union above 0.5. For each model, hop and reading
the table gives F1 and precision of segments, the share of calls found by their length, and the median of a segment's length
beside that of the longest call it touches. With `--events` the same is printed for the multi-label model of the shortest
window alone, at a hop of a quarter, for some rules of what makes one event of the scores. Trainings are kept in the folder: a
second call only tags.
"""

import argparse
import contextlib
import csv
import io
import itertools
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import datasets
import numpy as np
import soundfile

from finetune.fine_tuning import fine_tune
from modeling_ast.audio import read_audio
from modeling_ast.tagging.segments import SEGMENT_READINGS
from modeling_ast.tagging.tagger import AudioTagger, Segment

DRUMS = Path(__file__).parents[1] / "finetune" / "sample_data" / "drums"
SAMPLING_RATE = 16_000
DRUM_LABELS = ("handdrum", "snare", "tom")
WHISTLES = {"rising": (1000, 2500), "falling": (5000, 2000), "trill": (3000, 4000)}  # Hz at begin and end
LABELS = (*DRUM_LABELS, *WHISTLES)
BACKGROUND = "background"  # what a single-label model says of noise
LENGTHS = (0.2, 0.5, 1.0, 2.0, 5.0)  # seconds of the calls that are scored
GAPS = (0.5, 8.0)  # seconds between two of them
NOISE_LEVEL = 0.003
NOISE_SHARE = 0.25  # of the training clips
TRAINING_CLIPS, HELD_OUT_CLIPS, EPOCHS = 1500, 200, 20
RECORDINGS, RECORDING_SECONDS = 30, 60
WINDOWS = {"1 s": 98, "2.5 s": 248}  # frames
HOP_PARTS = (2, 4, 8)  # of a window
EVENT_RULES = (
    {},
    {"off": 0.3},
    {"off": 0.2},
    {"threshold": 0.7, "off": 0.3},
    {"close_gaps": 0.3},
    {"close_gaps": 1.0},
    {"min_duration": 0.1},
    {"min_duration": 0.3},
    {"off": 0.3, "close_gaps": 0.3, "min_duration": 0.1},
)
MODEL = {
    "hidden_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "intermediate_size": 384,
    "num_mel_bins": 64,
    "frequency_stride": 16,
    "time_stride": 16,
}


@dataclass(frozen=True)
class Call:
    label: str
    start: float  # seconds
    end: float


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("runs/timeline_segments"), help="folder for data and runs")
    parser.add_argument("--events", action="store_true", help="compare rules of events in place of hops and readings")
    args = parser.parse_args()
    sounds = drum_sounds()
    recordings = write_recordings(args.output / "recordings", sounds["test"])
    lengths = " | ".join(f"{length:g} s" for length in LENGTHS)
    if args.events:
        print(f"| flags | segments | F1 | precision | {lengths} | length |")
        print("|---|---|---|---|" + "---|" * (len(LENGTHS) + 1))
        compare_events(trained(args.output, "multi-label", next(iter(WINDOWS.values())), sounds), recordings)
        return
    print(f"| model | window | hop | segments | F1 | precision | {lengths} | length |")
    print("|---|---|---|---|---|---|" + "---|" * (len(LENGTHS) + 1))
    for kind, (name, frames) in itertools.product(("multi-label", "single-label"), WINDOWS.items()):
        tagger = trained(args.output, kind, frames, sounds)
        for parts, reading in itertools.product(HOP_PARTS, SEGMENT_READINGS):
            hop = tagger.window_samples // parts / SAMPLING_RATE
            results = tagger.tag_files(list(recordings), timeline=True, hop=hop, segments=reading)
            scores = score(
                [(calls, result.segments) for calls, result in zip(recordings.values(), results, strict=True)]
            )
            print(f"| {kind} | {name} | 1/{parts} | {reading} | {scores} |", flush=True)


def trained(output: Path, kind: str, frames: int, sounds: dict) -> AudioTagger:
    """The tagger of a model, which is trained if it is not there."""
    folder = output / f"{kind}_{frames}_frames"
    if not (folder / "model.safetensors").exists():
        train(folder, frames, kind == "multi-label", sounds["train"])
    return AudioTagger.from_pretrained(folder, "cpu")


def compare_events(tagger: AudioTagger, recordings: dict[Path, list[Call]]):
    """Print a row for each of `EVENT_RULES`."""
    hop = tagger.window_samples // 4 / SAMPLING_RATE
    for rules in EVENT_RULES:
        results = list(tagger.tag_files(list(recordings), batch_size=32, timeline=True, hop=hop, **rules))
        segments = [result.segments for result in results]
        names = {name: "on" if name == "threshold" else name for name in rules}
        flags = " ".join(f"`--{names[name]} {value}`" for name, value in rules.items()) or "none"
        count = sum(map(len, segments))
        print(f"| {flags} | {count} | {score(list(zip(recordings.values(), segments, strict=True)))} |", flush=True)


def write_recordings(folder: Path, sounds: dict[str, list[np.ndarray]]) -> dict[Path, list[Call]]:
    """Recordings to be tagged, the same at every call, and the calls in each."""
    folder.mkdir(parents=True, exist_ok=True)
    recordings = {}
    for number in range(RECORDINGS):
        generator = np.random.default_rng(number)
        waveform, calls = noise(RECORDING_SECONDS * SAMPLING_RATE, generator), []
        start = generator.uniform(*GAPS)
        while True:
            label, seconds = LABELS[generator.integers(len(LABELS))], LENGTHS[generator.integers(len(LENGTHS))]
            first, call = round(start * SAMPLING_RATE), make_call(label, seconds, sounds, generator)
            if first + len(call) > len(waveform):
                break
            waveform[first : first + len(call)] += call
            calls.append(Call(label, start, start + seconds))
            start += seconds + np.exp(generator.uniform(*np.log(GAPS)))
        path = folder / f"{number:02}.wav"
        soundfile.write(path, waveform, SAMPLING_RATE, subtype="FLOAT")
        recordings[path] = calls
    return recordings


def score(recordings: Iterable[tuple[list[Call], list[Segment]]]) -> str:
    """The cells of a row: F1, precision, the calls found at each length, and the segments' lengths beside the calls'."""
    found, ratios, num_segments = defaultdict(list), [], 0
    for calls, segments in recordings:
        segments = [segment for segment in segments if segment.label != BACKGROUND]
        num_segments += len(segments)
        overlaps = [[intersection_over_union(call, segment) for segment in segments] for call in calls]
        for call, of_call in zip(calls, overlaps, strict=True):
            # From a half on no other call overlaps the same segment as much.
            found[round(call.end - call.start, 3)].append(max(of_call, default=0) > 0.5)
        for segment, of_segment in zip(segments, zip(*overlaps, strict=True), strict=True):
            touched = [call.end - call.start for call, overlap in zip(calls, of_segment, strict=True) if overlap > 0]
            if touched:
                ratios.append((segment.end - segment.start) / max(touched))
    matches, num_calls = sum(map(sum, found.values())), sum(map(len, found.values()))
    shares = [matches / (num_calls + num_segments) * 2, matches / max(num_segments, 1)]
    shares += [np.mean(found[length]) for length in LENGTHS]
    return " | ".join(f"{value:.2f}" for value in (*shares, np.median(ratios)))


def intersection_over_union(call: Call, segment: Segment) -> float:
    """Of the times of a call and a segment; 0 for different labels."""
    shared = min(call.end, segment.end) - max(call.start, segment.start)
    if call.label != segment.label or shared <= 0:
        return 0.0
    return shared / (max(call.end, segment.end) - min(call.start, segment.start))


def drum_sounds() -> dict[str, dict[str, list[np.ndarray]]]:
    """Waveforms of the shipped clips by split and label."""
    sounds = {"train": defaultdict(list), "test": defaultdict(list)}
    with open(DRUMS / "metadata.csv", newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["label"] in DRUM_LABELS:
                sounds[row["split"]][row["label"]].append(read_audio(DRUMS / row["file_name"], SAMPLING_RATE))
    return sounds


def make_call(label: str, seconds: float, sounds: dict[str, list[np.ndarray]], generator) -> np.ndarray:
    """A call of exactly that length, faded out within its last 10 ms."""
    size = round(seconds * SAMPLING_RATE)
    call = np.zeros(size, np.float32)
    if label in WHISTLES:
        begin, end = np.array(WHISTLES[label]) * generator.uniform(0.85, 1.15)
        period = generator.uniform(0.08, 0.12) if label == "trill" else generator.uniform(0.15, 0.25)
        phase = np.arange(size) / SAMPLING_RATE / period % 1
        frequency = begin + (end - begin) * (phase > 0.5 if label == "trill" else phase)
        call += np.sin(2 * np.pi * np.cumsum(frequency) / SAMPLING_RATE) * np.sin(np.pi * phase) ** 0.5
    else:
        place = 0
        while place < size:
            hit = sounds[label][generator.integers(len(sounds[label]))][: size - place]
            call[place : place + len(hit)] += hit / max(np.abs(hit).max(), 1e-3)
            place += round(generator.uniform(0.1, 0.2) * SAMPLING_RATE)
    fade = min(160, size)
    call[size - fade :] *= np.linspace(1, 0, fade)
    return call * generator.uniform(0.05, 0.5) / max(np.abs(call).max(), 1e-3)


def noise(samples: int, generator) -> np.ndarray:
    return (generator.normal(size=samples) * NOISE_LEVEL * generator.uniform(0.3, 3)).astype(np.float32)


def training_clips(count: int, window: int, multi_label: bool, sounds, generator) -> datasets.Dataset:
    rows = []
    for _ in range(count):
        clip = noise(window, generator)
        labels = []
        if generator.random() > NOISE_SHARE:
            label = LABELS[generator.integers(len(LABELS))]
            seconds = np.exp(generator.uniform(np.log(LENGTHS[0]), np.log(LENGTHS[-1])))
            call = make_call(label, seconds, sounds, generator)
            if len(call) > window:
                first = generator.integers(len(call) - window + 1)
                clip += call[first : first + window]
            else:
                first = generator.integers(window - len(call) + 1)
                clip[first : first + len(call)] += call
            labels = [label]
        content = io.BytesIO()
        soundfile.write(content, clip, SAMPLING_RATE, format="WAV", subtype="FLOAT")
        rows.append(
            {
                "audio": {"bytes": content.getvalue(), "path": None},
                "label": labels if multi_label else (labels or [BACKGROUND])[0],
            }
        )
    return datasets.Dataset.from_list(rows)


def train(folder: Path, frames: int, multi_label: bool, sounds):
    window = 400 + 160 * (frames - 1)
    generator = np.random.default_rng(frames)
    splits = datasets.DatasetDict(
        {
            split: training_clips(count, window, multi_label, sounds, generator)
            for split, count in (("train", TRAINING_CLIPS), ("test", HELD_OUT_CLIPS))
        }
    )
    with contextlib.redirect_stdout(io.StringIO()):
        fine_tune(
            splits,
            output_dir=folder,
            max_length=frames,
            num_train_epochs=EPOCHS,
            per_device_train_batch_size=32,
            learning_rate=1e-3,
            lr_scheduler_type="cosine",
            warmup_steps=0.1,
            seed=0,
            use_cpu=True,
            overwrite_output_dir=True,
            eval_split_name="test",
            **MODEL,
        )


if __name__ == "__main__":
    main()

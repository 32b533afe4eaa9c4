"""Drum strokes in long noisy recordings: events of a frame head, of a clip head on windows, and of one on clips that were cut out.

    python -m benchmarks.frame_events [--seconds 600] [--epochs 10] [--seed 0] [--folder FOLDER]

Six recordings of ten minutes are made of the shipped drum clips, each at a known time, 0.1 to 1.5 s after the one before, over
noises; labels are drawn alike often. Each stroke is -5 to 20 dB above its noise: the mean power of all that is marked of it, beside
that of the noise. One of the six is for choices. Two recordings are not seen in training, of strokes that are not in the others:
one over the kinds of noise of the others, one over a kind that no model heard. They come in six parts, each with strokes of one
level, so that the scores can be told by level. With `--unheard_kit` they are of the kit that `finetune/recipes/drums.yaml` is scored
on.

Three models of the same size and the same number of steps start from random weights:

- `clip, windows`: `ast-finetune --marks beside`, several labels a window or none;
- `frame`: the same with `--head frame`;
- `clip, cut out`: `ast-finetune` on the stretches cut out, one label a clip, as before there were marks.

All are tagged as `ast-tag --timeline` does, with windows half a window apart. What makes events of the first two is chosen in
their training; of the third, the row `default` is what its checkpoint does by itself, the row `chosen` has the same choice as the
others.

Printed are the F1 of events as `ast-events` counts it (start within 0.2 s, end within that or a fifth of the length), false alarms
an hour, and PSDS where sed_scores_eval is installed; then the F1 by level.
"""

import argparse
import csv
import json
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import soundfile

from finetune.drums_demo import DRUMS
from finetune.results.event_evaluation import score_table
from finetune.scores.event_rules import choose_event_rules
from finetune.scores.event_scores import EventRule, psds, score_events
from finetune.scores.event_tables import Event, EventTable, read_events
from modeling_ast.tagging import AudioTagger

RATE = 16_000
GAP = (0.1, 1.5)  # seconds from the end of a stroke to the start of the next
NOISE = 0.02  # root mean square, full scale at 1
LEVELS = (-5, 0, 5, 10, 15, 20)  # dB
BLOCK = RATE // 100  # in which it is looked at how loud a stroke is
FAINTEST = 0.05  # of a clip's loudest block: where what is marked ends
SEEN, UNSEEN = ("white", "pink", "brown", "hum"), "crackle"
HELD_BACK = 5  # every fifth clip of a label is for the unseen recordings
SIZES = {
    "hidden_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 512, "frequency_stride": 16,
    "time_stride": 8, "max_length": 96, "num_mel_bins": 64,
}  # fmt: skip
BATCH = 32


def main() -> int:
    """Make the recordings, train, and print the rows of Markdown tables."""
    args = parse_arguments()
    with tempfile.TemporaryDirectory() as name:
        folder = (
            Path(args.folder or name) / f"{args.seconds:g}_s_{args.epochs}_epochs_seed_{args.seed}"
        )  # one is not taken for another
        folder /= "unheard_kit" if args.unheard_kit else "known_kits"
        data = folder / "recordings"
        marked = write_recordings(data, args)
        number = sum(len(of_file) for file, of_file in marked.items() if file.startswith("train"))
        print(f"{number} strokes to train on, {sum(map(len, marked.values())) - number} to choose and score on")
        steps = ["--max_steps", str(args.epochs * (2 * number // BATCH))]  # windows with a stroke, and as many without
        recordings = [str(data), "--marks", "beside", "--validation_split_name", "validation"]
        cut_out = write_cut_outs(data, folder / "cut_outs", marked)
        models = {
            "clip, windows": train([*recordings, *steps], folder / "windows", args.seed),
            "frame": train([*recordings, *steps, "--head", "frame"], folder / "frames", args.seed),
            "clip, cut out": train([str(cut_out), *steps, "--eval_fraction", "0.1"], folder / "clips", args.seed),
        }
        print_scores(data, models)
    return 0


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line.

    Args:
        argv (`list[str]`, *optional*): arguments after the program's name, by default those of the process.

    Returns:
        `argparse.Namespace`.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=600.0, help="of each recording (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=10, help="over the marked stretches (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of recordings and trainings (default: %(default)s)")
    parser.add_argument(
        "--unheard_kit", action="store_true", help="score on strokes of a kit that is in no other recording"
    )
    parser.add_argument("--folder", type=Path, help="where all is written (default: a temporary one)")
    return parser.parse_args(argv)


def write_recordings(data: Path, args: argparse.Namespace) -> dict[str, list[Event]]:
    """Write all recordings with a label track beside each.

    Args:
        data (`Path`): folder, with one below it for each split.
        args (`argparse.Namespace`): lengths and seed.

    Returns:
        The strokes by `split/name`.
    """
    known, held_back = read_clips("train")
    unseen = read_clips("test")[0] if args.unheard_kit else held_back
    marked = {}
    for number in range(6):
        side = "validation" if number == 5 else "train"
        path = data / side / f"{number}.flac"
        marked[f"{side}/{number}"] = write_recording(path, args.seconds, known, SEEN, LEVELS, (args.seed, number))
    for place, (kind, noises) in enumerate({"seen": SEEN, "unseen": (UNSEEN,)}.items()):
        for level in LEVELS:
            path = data / "test" / f"{kind}_noise_{level}_dB.flac"
            seed = (args.seed, 10 + place, level + 5)
            marked[f"test/{path.stem}"] = write_recording(
                path, args.seconds / len(LEVELS), unseen, noises, (level,), seed
            )
    return marked


def read_clips(split: str) -> tuple[dict[str, list[np.ndarray]], dict[str, list[np.ndarray]]]:
    """Read the shipped drum clips.

    Args:
        split (`str`): `"train"` or `"test"`, which is another kit.

    Returns:
        By label, waveforms of shape `(samples,)`, float32, up to where each is faint beside its loudest part; those of training,
        and every fifth, which is held back; of the other kit all are in the first.
    """
    with open(DRUMS / "metadata.csv", newline="", encoding="utf-8") as table:
        rows = [row for row in csv.DictReader(table) if row["split"] == split]
    kept, held_back = {}, {}
    for row in rows:
        waveform, rate = soundfile.read(DRUMS / row["file_name"], dtype="float32")
        if rate != RATE:
            raise ValueError(f"{row['file_name']} has {rate} Hz, expected {RATE}.")
        blocks = waveform[: len(waveform) // BLOCK * BLOCK].reshape(-1, BLOCK)
        levels = np.sqrt((blocks**2).mean(axis=1))
        loud = np.flatnonzero(levels > FAINTEST * levels.max())
        stroke = waveform[loud[0] * BLOCK : (loud[-1] + 1) * BLOCK]
        number = len(kept.get(row["label"], [])) + len(held_back.get(row["label"], []))
        side = held_back if split == "train" and number % HELD_BACK == HELD_BACK - 1 else kept
        side.setdefault(row["label"], []).append(stroke)
    return kept, held_back


def noise(kind: str, samples: int, random: np.random.Generator) -> np.ndarray:
    """Make a noise by formula.

    Args:
        kind (`str`): `"white"`, `"pink"` or `"brown"`, whose power falls with the frequency by 0, 3 and 6 dB an octave;
            `"hum"`, harmonics of 50 Hz over pink noise; `"crackle"`, short clicks over brown noise.
        samples (`int`): its length.
        random (`np.random.Generator`): of all that is drawn.

    Returns:
        `np.ndarray` of shape `(samples,)`, float32, with the root mean square `NOISE`.
    """
    slope = {"white": 0.0, "pink": 0.5, "hum": 0.5, "brown": 1.0, "crackle": 1.0}[kind]
    spectrum = np.fft.rfft(random.standard_normal(samples))
    found = np.fft.irfft(spectrum / np.maximum(np.arange(len(spectrum)), 20 * samples / RATE) ** slope, samples)
    found /= found.std()
    seconds = np.arange(samples) / RATE
    if kind == "hum":
        found += sum(np.sin(2 * np.pi * 50 * number * seconds + number) / number for number in range(1, 12))
    if kind == "crackle":
        clicks = np.zeros(samples)
        clicks[random.integers(0, samples, samples // 400)] = random.standard_normal(samples // 400)
        found += 8 * np.convolve(clicks, np.exp(-np.arange(30) / 6), "same")
    return (NOISE * found / found.std()).astype(np.float32)


def write_recording(
    path: Path, seconds: float, clips: dict[str, list[np.ndarray]], noises: tuple, levels: tuple, seed: tuple
) -> list[Event]:
    """Write a recording of strokes, and a label track that marks them beside it.

    Args:
        path (`Path`): FLAC file to write.
        seconds (`float`): its length.
        clips (`dict[str, list[np.ndarray]]`): strokes by label.
        noises (`tuple`): kinds, each for as long as the others.
        levels (`tuple`): dB of a stroke above the noise, drawn for each.
        seed (`tuple`): of all that is drawn.

    Returns:
        `list[Event]`: the strokes.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    parts = np.array_split(np.arange(round(seconds * RATE)), len(noises))
    samples = np.concatenate([noise(kind, len(part), random) for kind, part in zip(noises, parts, strict=True)])
    labels, strokes, start = sorted(clips), [], random.uniform(*GAP)
    while True:
        label = labels[random.integers(len(labels))]
        waveform = clips[label][random.integers(len(clips[label]))]
        first = round(start * RATE)
        if first + len(waveform) > len(samples):
            break
        level = 10 ** (levels[random.integers(len(levels))] / 20)
        samples[first : first + len(waveform)] += waveform * (level * NOISE / np.sqrt((waveform**2).mean()))
        strokes.append(Event(first / RATE, (first + len(waveform)) / RATE, label))
        start += len(waveform) / RATE + random.uniform(*GAP)
    soundfile.write(path, samples.clip(-1, 1), RATE)
    path.with_suffix(".txt").write_text(
        "".join(f"{each.start:.6f}\t{each.end:.6f}\t{each.label}\n" for each in strokes)
    )
    return strokes


def write_cut_outs(data: Path, folder: Path, marked: dict[str, list[Event]]) -> Path:
    """Cut the strokes of the training recordings out.

    Args:
        data (`Path`): folder of the recordings.
        folder (`Path`): to write, with a folder for each label.
        marked (`dict[str, list[Event]]`): the strokes by `split/name`.

    Returns:
        The folder.
    """
    for file, strokes in marked.items():
        if not file.startswith("train"):
            continue
        samples, _ = soundfile.read(data / f"{file}.flac", dtype="float32")
        for number, stroke in enumerate(strokes):
            path = folder / stroke.label / f"{Path(file).stem}_{number}.flac"
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, samples[round(stroke.start * RATE) : round(stroke.end * RATE)], RATE)
    return folder


def train(flags: list[str], output_dir: Path, seed: int) -> Path:
    """Train in a process of its own.

    Args:
        flags (`list[str]`): of `ast-finetune`, the data first.
        output_dir (`Path`): where the run is written.
        seed (`int`): of the training.

    Returns:
        Folder of the checkpoint.
    """
    command = [
        sys.executable,
        "-m",
        "finetune.run_finetune",
        "--dataset_name",
        *flags,
        "--output_dir",
        str(output_dir),
    ]
    settings = SIZES | {
        "seed": seed, "learning_rate": 5e-4, "warmup_steps": 0.1, "lr_scheduler_type": "cosine", "weight_decay": 0.05,
        "per_device_train_batch_size": BATCH, "max_frequency_mask": 24, "disable_tqdm": "true",
    }  # fmt: skip
    command += [word for name, value in settings.items() for word in (f"--{name}", str(value))]
    if not (output_dir / "run_summary.json").is_file():
        subprocess.run(command, check=True, stdout=sys.stderr)
    time = json.loads((output_dir / "run_summary.json").read_text()).get(
        "time"
    )  # unknown of one that was gone on with
    print(f"{output_dir.name}: trained" + (f" in {time['training_seconds']:.0f} s" if time else ""), flush=True)
    return output_dir


def print_scores(data: Path, models: dict[str, Path]):
    """Tag the unseen recordings with all models, and print what their events are worth.

    Args:
        data (`Path`): folder of the recordings.
        models (`dict[str, Path]`): checkpoint folders by name.
    """
    reference = read_events(data / "test")
    files = {file: next((data / "test").rglob(Path(file).name)) for file in reference.events}
    durations = {file: soundfile.info(path).duration for file, path in files.items()}
    rows, of_levels = [], []
    for name, folder in models.items():
        tagger = AudioTagger.from_pretrained(folder, "cpu", frame_heads=True)
        tables = {
            file: score_table(track, list(tagger.config.id2label.values()))
            for file, track in zip(files, tagger.score_tracks(files.values()), strict=True)
        }
        ways = {name: None}
        if not tagger.config.event_rules:
            ways = {f"{name}, default": None, f"{name}, chosen": chosen_rules(tagger, data / "validation")}
        for way, rules in ways.items():
            tagger.config.event_rules = tagger.config.event_rules if rules is None else rules
            found = tagged(tagger, files)
            scores = score_events(reference, EventTable("found", found), durations, EventRule())
            micro, sound_scores = scores["event_based"]["micro"], ["-", "-"]
            with suppress(ImportError):
                computed = psds(reference, tables, durations)
                sound_scores = [f"{computed[kind]:.3f}" for kind in ("psds1", "psds2")]
            numbers = [f"{micro[kind] or 0:.3f}" for kind in ("f1", "precision", "recall")]
            rows.append([way, *numbers, f"{scores['false_alarms_per_hour']:.0f}", *sound_scores])
            of_levels.append([way, *(f"{f1:.3f}" for f1 in f1_of_levels(reference, found, durations))])
    number = sum(map(len, reference.events.values()))
    print(f"\n{number} strokes in {sum(durations.values()) / 60:.0f} minutes that no model heard\n")
    print_table(["model", "event F1", "precision", "recall", "false alarms an hour", "PSDS 1", "PSDS 2"], rows)
    print("\nEvent F1 by level above the noise, of kinds that were heard in training and of one that was not\n")
    print_table(
        ["model", *(f"{level} dB" for level in LEVELS), *(f"{level} dB, unseen" for level in LEVELS)], of_levels
    )


def tagged(tagger: AudioTagger, files: dict[str, Path]) -> dict[str, list[Event]]:
    """Find the events of files as `ast-tag --timeline` does.

    Args:
        tagger ([`AudioTagger`]): of the model.
        files (`dict[str, Path]`): by the name that they are scored by.

    Returns:
        The events by that name.
    """
    tags = tagger.tag_files([*files.values()], timeline=True)
    return {
        file: sorted(Event(one.start, one.end, one.label) for one in each.segments)
        for file, each in zip(files, tags, strict=True)
    }


def chosen_rules(tagger: AudioTagger, folder: Path) -> dict[str, dict[str, float]]:
    """Choose what makes events for a model that was not trained on marked recordings.

    Args:
        tagger ([`AudioTagger`]): of the model.
        folder (`Path`): of the recordings to choose on.

    Returns:
        As `ASTConfig.event_rules`.
    """
    reference = read_events(folder)
    paths = [next(folder.rglob(Path(file).name)) for file in reference.events]
    labels = list(tagger.config.id2label.values())
    return choose_event_rules(
        list(tagger.score_tracks(paths)), list(reference.events.values()), labels, {}, EventRule(), exclusive=True
    )


def f1_of_levels(reference: EventTable, found: dict[str, list[Event]], durations: dict[str, float]) -> list[float]:
    """Score the parts of each level by themselves.

    Args:
        reference ([`EventTable`]): what is marked.
        found (`dict[str, list[Event]]`): by file.
        durations (`dict[str, float]`): likewise.

    Returns:
        F1 of events, first of all levels over seen kinds of noise, then over the unseen one.
    """
    scores = []
    for kind in ("seen", "unseen"):
        for level in LEVELS:
            (file,) = [file for file in reference.events if Path(file).stem == f"{kind}_noise_{level}_dB"]
            tables = (EventTable(kind, {file: events[file]}) for events in (reference.events, found))
            scores.append(score_events(*tables, durations)["event_based"]["micro"]["f1"] or 0.0)
    return scores


def print_table(columns: list[str], rows: list[list[str]]):
    """Print a Markdown table.

    Args:
        columns (`list[str]`): their names.
        rows (`list[list[str]]`): cells.
    """
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for row in rows:
        print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    sys.exit(main())

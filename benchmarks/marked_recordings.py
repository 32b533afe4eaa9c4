"""What marked recordings cost: a window of a long file beside the same window as a file of its own, and the start of 60 hours.

    python -m benchmarks.marked_recordings
    python -m benchmarks.marked_recordings --files dawn.m4a dawn.wma

Prints ratios of processor seconds, old and new alternated, and the time and memory until the first step of a training.
"""

import argparse
import os
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile

from finetune.arguments.data_arguments import DataArguments
from finetune.clip_sets.audio_clips import AudioClips
from finetune.clip_sets.clip_datasets import load_clip_sets
from finetune.clip_sets.clip_set import Checks
from finetune.clip_sets.marked_windows import MarkedWindows
from finetune.sources.columns import dataset_of
from modeling_ast import ASTFeatureExtractor
from modeling_ast.audio import AudioReader, ExcerptReader

SECONDS, ROUNDS = 600, 7
FORMATS = {"flac": "PCM_16", "wav": "PCM_16", "ogg": "VORBIS", "mp3": "MPEG_LAYER_III"}
STRETCHES = 50  # of a recording


def write_recording(path: Path, rate: int, seed: int):
    """Write ten minutes of noise with tones where the label track beside it says.

    Args:
        path (`Path`): file to write.
        rate (`int`): in Hz.
        seed (`int`): of the noise and the times.
    """
    generator = np.random.default_rng(seed)
    sound = 0.02 * generator.standard_normal(SECONDS * rate).astype(np.float32)
    starts = np.arange(STRETCHES) * (SECONDS / STRETCHES) + generator.uniform(0, 8, STRETCHES)
    lines = []
    for number, start in enumerate(starts):
        label, pitch = ("low", 500) if number % 2 else ("high", 3000)
        begin, end = round(start * rate), round((start + 0.5) * rate)
        sound[begin:end] += 0.3 * np.sin(2 * np.pi * pitch * np.arange(end - begin) / rate)
        lines.append(f"{start:.3f}\t{start + 0.5:.3f}\t{label}\n")
    with soundfile.SoundFile(path, "w", rate, 1, FORMATS[path.suffix[1:]]) as file:
        for begin in range(0, len(sound), rate):
            file.write(sound[begin : begin + rate])
    path.with_suffix(".txt").write_text("".join(lines))


def cost_of_windows(folder: Path, rate: int):
    """Print what a training sample costs beside the same window as its own file.

    Args:
        folder (`Path`): where files may be written.
        rate (`int`): of the recordings, in Hz.
    """
    extractor = ASTFeatureExtractor()
    for suffix in FORMATS:
        place = folder / f"{suffix}{rate}"
        for side, seed in (("train", 0), ("test", 1)):
            (place / side).mkdir(parents=True)
            write_recording(place / side / f"{side}.{suffix}", rate, seed)
        data = DataArguments(dataset_name=str(place), marks="beside")
        splits, _ = load_clip_sets(data, 0)
        windows = splits["train"].dataset(extractor)
        assert isinstance(windows, MarkedWindows)
        (place / "cut").mkdir()
        files, whole = [], place / "train" / f"train.{suffix}"
        with soundfile.SoundFile(whole) as source:
            for index in range(STRETCHES):
                source.seek(round(windows.heard_as(index).start * rate))
                piece = source.read(round(extractor.max_samples / extractor.sampling_rate * rate), dtype="float32")
                files.append(str(place / "cut" / f"{index}.{suffix}"))
                soundfile.write(files[-1], piece, rate, FORMATS[suffix])
        import datasets

        features = {"audio": datasets.Audio(decode=False), "label": datasets.ClassLabel(names=["a"])}
        rows = dataset_of(
            {"audio": [{"bytes": None, "path": file} for file in files], "label": [0] * len(files)},
            datasets.Features(features),
        )
        alone = AudioClips(rows).dataset(extractor)
        ratios, times = [], []
        for _ in range(ROUNDS + 1):
            spent = []
            for dataset in (alone, windows):
                begin = time.process_time()
                for index in range(STRETCHES):
                    dataset[index]
                spent.append(time.process_time() - begin)
            ratios.append(spent[1] / spent[0])
            times.append(spent)
        own, here = np.median(times[1:], axis=0) / STRETCHES * 1000
        ratio = np.median(ratios[1:])
        print(
            f"{suffix:5}{rate} Hz: {here:6.2f} ms a window, {own:6.2f} ms as its own file: {ratio:.2f} times",
            flush=True,
        )
        shutil.rmtree(place)


def cost_of_files(paths: list[str]):
    """Print what windows of 10 s cost in files of any kind, and how they differ from the whole decode.

    Args:
        paths (`list[str]`): recordings of more than 10 s.
    """
    reader = AudioReader(16_000)
    for path in paths:
        begin = time.process_time()
        whole = reader.hear(path).waveform
        decoded = time.process_time() - begin
        excerpts, spent, largest = ExcerptReader(reader), [], 0.0
        excerpts.hear(path, 0, 1)
        excerpts.forget_whole()  # as where windows of other files come between
        for start in np.random.default_rng(0).integers(0, len(whole) - 160_000, 21):
            begin = time.process_time()
            found = excerpts.hear(path, int(start), 160_000).waveform
            spent.append(time.process_time() - begin)
            excerpts.forget_whole()
            largest = max(largest, float(np.abs(found - whole[start : start + len(found)]).max()))
        print(
            f"{Path(path).name}: {len(whole) / 16_000:.0f} s, decoded as a whole in {decoded:.2f} s; the second window {spent[0]:.2f} s, "
            f"later ones {np.median(spent[1:]) * 1000:.0f} ms; largest difference {largest:.0e}",
            flush=True,
        )


def start_of_hours(folder: Path, hours: int, suffix: str):
    """Print how long it takes until 60 hours can be trained on, and what memory that takes.

    Args:
        folder (`Path`): where files may be written.
        hours (`int`): of the training recordings.
        suffix (`str`): of their format.
    """
    for side, seed, number in (("train", 0, hours * 3600 // SECONDS), ("test", 1, 6)):
        (folder / side).mkdir(parents=True)
        first = folder / f"{side}.{suffix}"
        write_recording(first, 16_000, seed)
        for place in range(number):
            os.link(first, folder / side / f"{place}.{suffix}")
            shutil.copy(first.with_suffix(".txt"), folder / side / f"{place}.txt")
        first.with_suffix(".txt").unlink()
        first.rename(folder.parent / first.name)
    extractor = ASTFeatureExtractor()
    before, begin, wall = memory(), time.process_time(), time.perf_counter()
    data = DataArguments(dataset_name=str(folder), marks="beside")
    splits, _ = load_clip_sets(data, 0)
    checked = splits["train"].check(splits, Checks(data, extractor, extractor.audio_reader()))
    dataset = checked.splits["train"].dataset(extractor)
    dataset[0, 0]
    wall, spent = time.perf_counter() - wall, time.process_time() - begin
    print(
        f"{hours} hours of {suffix} in {len(splits['train'].recordings)} recordings: {wall:.1f} s until the first window ({spent:.1f} s of "
        f"a processor), {(memory() - before) / 1e6:.0f} MB more"
    )
    for number in (200, 400, 800, 1600):
        for index in range(number // 2, number):
            dataset[0, index]
        print(f"  after {number} windows: {(memory() - before) / 1e6:.0f} MB more", flush=True)


def memory() -> int:
    """Tell what this process holds.

    Returns:
        Bytes.
    """
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) * 1024


def main():
    """Measure both, in a folder that is removed afterwards."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hours", type=int, default=60, help="of recordings, most of them hard links to one")
    parser.add_argument("--files", nargs="+", metavar="AUDIO", help="print what windows of these cost instead")
    args = parser.parse_args()
    if args.files:
        cost_of_files(args.files)
        return
    with tempfile.TemporaryDirectory() as folder:
        for rate in (16_000, 44_100):
            cost_of_windows(Path(folder), rate)
        for suffix in ("wav", "flac"):
            start_of_hours(Path(folder) / f"hours_{suffix}", args.hours, suffix)


if __name__ == "__main__":
    main()

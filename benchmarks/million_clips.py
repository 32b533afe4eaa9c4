"""What `ast-tag --blocks` does a second of short files, beside plain `ast-tag`, an earlier build and stock Transformers' pipeline.

    python -m benchmarks.million_clips [--before CHECKOUT] [--model DIR] [--files 2000] [--rounds 3] [--memory 2000 20000] [--without_stock] [--beside WORD ...] [--parts]

Files are hard links to the shipped drum clips, in a temporary folder. Each figure comes from a process of its own, which has tagged
some files before: until then it imports libraries and loads code, whose seconds stand in a column of their own. Sides take turns, and
of each the median counts. Beside the rate stands the processor time of a file, in all processes, which other work on the machine
disturbs less. The pipeline given paths starts a program for each file, so
it gets fewer of them. Memory is the most that a process holds (`VmHWM`, Linux), with one worker. Without `--model` it is the recipe
`drums_from_scratch` with random weights, which takes the same time.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from .tagging_stream import DRUMS, ROOT, random_checkpoint, recording

STOCK_BATCHES = (8, 32, 64)
CALLS = 15
FILES_BY_PATH = 100  # of the pipeline that starts a program for each
FIRST_FILES = 40  # which a process has tagged before its time counts
HEAD = """
import json, resource, sys, time
began = time.perf_counter()
first, listed, model, place, *given = sys.argv[1:]
def used():
    both = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in both)
def peak():
    return int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0]) / 1024
def tell(begin, before):
    print(json.dumps([time.perf_counter() - begin, used() - before, peak(), begin - began]))
"""
ONE_CORE = """
import os
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
"""
COMMAND = """
from modeling_ast import run_tagging
def tag(listed, place, *more):
    flags = ["--files_from", listed, "--model_name_or_path", model, "--format", "jsonl", "--device", "cpu", *given, place, *more]
    assert run_tagging.main(flags) == 0
tag(first, place + "-first", *(["--block_size", "10"] if "--blocks" in given else []))
begin, before = time.perf_counter(), used()
tag(listed, place)
tell(begin, before)
"""
STOCK = """
import soundfile, soxr, torch, transformers
kind, batch_size = given[0], int(given[1])
pipeline = transformers.pipeline("audio-classification", model=model, device="cpu")
rate = pipeline.feature_extractor.sampling_rate
def arrays(names):
    for name in names:
        samples, file_rate = soundfile.read(name, dtype="float32", always_2d=True)
        yield soxr.resample(samples.mean(axis=1), file_rate, rate)
def tag(listed):
    names = open(listed).read().split("\\n")[:-1]
    for result in pipeline(arrays(names) if kind == "arrays" else (name for name in names), batch_size=batch_size, num_workers=0, top_k=5):
        pass
tag(first)
begin, before = time.perf_counter(), used()
tag(listed)
tell(begin, before)
"""


class Cost(NamedTuple):
    """What tagging took."""

    files: int
    seconds: float
    processor_seconds: float
    megabytes: float  # at most, of the process that was started
    start: float  # seconds before these


def main() -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--before", type=Path, help="checkout of an earlier build to compare with")
    parser.add_argument("--model", type=Path, help="checkpoint folder")
    parser.add_argument("--files", type=int, default=2000, help="how many are tagged (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="in which all sides take turns (default: %(default)s)")
    parser.add_argument(
        "--memory", type=int, nargs="*", default=(), metavar="N", help="also measure memory with so many files"
    )
    parser.add_argument(
        "--beside", nargs="+", metavar="WORD", help="of the sides beside the first only those with one of these words"
    )
    parser.add_argument("--without_stock", action="store_true", help="leave out the stock pipeline")
    parser.add_argument(
        "--parts", action="store_true", help="only: processor time of the parts of a clip of 10 s, but for the model"
    )
    args = parser.parse_args()
    if args.parts:
        print(*parts(), sep="\n")
        return 0
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        model = args.model or random_checkpoint(folder / "model")
        for line in lines(args, folder, model.resolve()):
            print(line, flush=True)
    return 0


def lines(args: argparse.Namespace, folder: Path, model: Path):
    """Yield the lines of Markdown tables."""
    sides = sides_of(args, folder, model)
    if args.beside:
        first, *others = sides
        sides = {
            name: sides[name]
            for name in [first, *(name for name in others if any(word in name for word in args.beside))]
        }
    found = {name: [] for name in sides}
    for _ in range(args.rounds):
        for name, side in sides.items():
            found[name].append(side())
    rates = {name: [row.files / row.seconds for row in rows] for name, rows in found.items()}
    yield "| side | files a second | processor microseconds a file | seconds before that | `--blocks` is so many times as fast |"
    yield "|---|---|---|---|---|"
    first = next(iter(sides))
    for name, rows in found.items():
        ratios = [ours / theirs for ours, theirs in zip(rates[first], rates[name], strict=True)]
        cost = statistics.median(1e6 * row.processor_seconds / row.files for row in rows)
        start = statistics.median(row.start for row in rows)
        numbers = f"{statistics.median(rates[name]):.0f} | {cost:.0f} | {start:.1f}"
        yield f"| {name} | {numbers} | {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) |"
    if args.memory:
        yield "\n| files | most memory, MB |"
        yield "|---|---|"
    for number in args.memory:
        yield f"| {number} | {blocks(folder, model, number, 1).megabytes:.0f} |"


def parts():
    """Yield the lines of a table: what decoding and features of a stereo clip of 10 s at 44.1 kHz take."""
    import torch

    from modeling_ast import ASTFeatureExtractor

    torch.set_num_threads(1)
    extractor = ASTFeatureExtractor()
    reader = extractor.audio_reader()
    yield "| part | KB | processor ms a clip |"
    yield "|---|---|---|"
    with tempfile.TemporaryDirectory() as folder:
        for suffix in ("wav", "flac", "mp3"):
            clip = recording(Path(folder) / f"clip.{suffix}", 10.0)
            spent = processor_ms(lambda clip=clip: reader.hear(clip))
            yield f"| {suffix.upper()} to a waveform at 16 kHz | {clip.stat().st_size / 1e3:.0f} | {spent:.1f} |"
        waveforms = [reader.hear(clip).waveform] * 8
    spent = processor_ms(lambda: extractor(waveforms, sampling_rate=16_000, return_tensors="pt")) / 8
    yield f"| waveform to features, 8 at a time | | {spent:.1f} |"


def processor_ms(work) -> float:
    """The median over some calls, after one that warms up."""
    work()
    spent = []
    for _ in range(CALLS):
        begin = time.process_time()
        work()
        spent.append(1e3 * (time.process_time() - begin))
    return statistics.median(spent)


def sides_of(args: argparse.Namespace, folder: Path, model: Path) -> dict[str, Callable[[], Cost]]:
    """What takes turns, by name."""
    number = args.files
    sides = {
        "`ast-tag --blocks`": lambda: blocks(folder, model, number),
        "`ast-tag --blocks --workers 1`": lambda: blocks(folder, model, number, 1),
        "`ast-tag --blocks --workers 1` on one core": lambda: blocks(folder, model, number, 1, one_core=True),
        "`ast-tag --output`": lambda: plain(ROOT, folder, model, number),
    }
    if args.before is not None:
        sides["`ast-tag --output`, earlier build"] = lambda: plain(args.before, folder, model, number)
    if args.without_stock:
        return sides
    for size in STOCK_BATCHES:
        sides[f"stock pipeline given arrays, batches of {size}"] = lambda size=size: measure(
            HEAD + STOCK, ROOT, folder, model, number, folder, "arrays", size
        )
    if shutil.which("ffmpeg") is not None:
        few = min(number, FILES_BY_PATH)
        sides["stock pipeline given paths"] = lambda: measure(
            HEAD + STOCK, ROOT, folder, model, few, folder, "paths", 1
        )
    return sides


def blocks(folder: Path, model: Path, number: int, workers: int | None = None, one_core: bool = False) -> Cost:
    """Tag in blocks."""
    for run in (folder / "run", folder / "run-first"):
        shutil.rmtree(run, ignore_errors=True)
    flags = ("--block_size", max(50, min(1000, number // 8)))
    flags += () if workers is None else ("--workers", workers)
    code = ONE_CORE * one_core + HEAD + COMMAND
    return measure(code, ROOT, folder, model, number, folder / "run", *flags, "--blocks")


def plain(checkout: Path, folder: Path, model: Path, number: int) -> Cost:
    """Tag into a file."""
    return measure(HEAD + COMMAND, checkout, folder, model, number, folder / "tags.jsonl", "--output")


def measure(code: str, checkout: Path, folder: Path, model: Path, number: int, *arguments) -> Cost:
    """Run code in a process with the modules of a checkout, on so many files of a folder."""
    surroundings = os.environ | {"PYTHONPATH": str(Path(checkout).resolve()), "HF_HUB_OFFLINE": "1"}
    lists = linked(folder, FIRST_FILES), linked(folder, number)
    child = subprocess.run(
        [sys.executable, "-c", code, *map(str, (*lists, model, *arguments))],
        capture_output=True,
        text=True,
        env=surroundings,
        cwd=checkout,
    )
    if child.returncode:
        sys.exit(child.stderr)
    return Cost(number, *json.loads(child.stdout.splitlines()[-1]))


def linked(folder: Path, number: int) -> Path:
    """Link to drum clips under so many names, and list these."""
    clips, place = sorted(DRUMS.rglob("*.flac")), folder / "clips"
    place.mkdir(exist_ok=True)
    names = [place / f"{index:07}.flac" for index in range(number)]
    for index, name in enumerate(names):
        if not name.exists():
            try:
                os.link(clips[index % len(clips)], name)
            except OSError:  # on another disk
                shutil.copyfile(clips[index % len(clips)], name)
    listed = folder / f"list-{number}.txt"
    listed.write_text("".join(f"{name}\n" for name in names))
    return listed


if __name__ == "__main__":
    sys.exit(main())

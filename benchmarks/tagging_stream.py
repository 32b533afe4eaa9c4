"""What `ast-tag` takes: memory by length, processor time beside an earlier build and beside stock Transformers' pipeline.

    python -m benchmarks.tagging_stream [--before CHECKOUT] [--model DIR] [--hours 3] [--minutes 60] [--files 2000] [--base384]

Recordings are the shipped drum clips laid end to end, made of 44.1 kHz and two channels, in a temporary folder. Each figure comes
from a process of its own with one thread; builds take turns, and of each the least of its figures counts. Memory is the most that
a process holds (`VmHWM`, Linux) above what it holds after a clip was tagged. Without `--model` it is the recipe `drums_from_scratch` with
random weights, which takes the same time. With `--base384` it is a model of the size of the published one, given files of whole windows and of
a second; the pipeline is given both as arrays.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import soundfile

ROOT = Path(__file__).parents[1]
DRUMS = ROOT / "finetune" / "sample_data" / "drums"
RATE = 44_100
TURNS = 2
STOCK_BATCHES = (1, 8, 32, 64)
# Processes begin like this, with the checkout to be measured as the folder that modules are imported from.
HEAD = """
import resource, sys
import torch
torch.set_num_threads(1)
def cpu():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
def peak():
    status = open("/proc/self/status").read()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024
model, clip, *given = sys.argv[1:]
"""
TAGGER = """
from modeling_ast.system.surroundings import prepare_process
from modeling_ast.tagging import AudioTagger  # where earlier builds have it too
prepare_process("ast-tag")  # as the command does
tagger = AudioTagger.from_pretrained(model, "cpu")
list(tagger.tag_files([clip] * 40))
hop = round(tagger.window_samples / 4 / 160) / 100  # a quarter of a window
list(tagger.tag_files([clip], timeline=True, hop=hop))
begin, held = cpu(), peak()
"""
TIMELINE = "results = list(tagger.tag_files(given, timeline=True, hop=hop))\n"
END = "assert all(tags.error is None for tags in results)\nprint(cpu() - begin, peak() - held)"
ARRAYS = """
import soundfile, transformers
batch_size, *names = given
pipeline = transformers.pipeline("audio-classification", model=model, device="cpu")
arrays = [soundfile.read(name, dtype="float32")[0] for name in names]
pipeline(arrays[:1])
begin = cpu()
list(pipeline((array for array in arrays), batch_size=int(batch_size), num_workers=0, top_k=5))
print(cpu() - begin, 0)
"""
FILES = """
from modeling_ast.system.surroundings import prepare_process
from modeling_ast.tagging import AudioTagger
prepare_process("ast-tag")
tagger = AudioTagger.from_pretrained(model, "cpu")
list(tagger.tag_files(given[:1]))
begin = cpu()
results = list(tagger.tag_files(given))
assert all(tags.error is None for tags in results)
print(cpu() - begin, 0)
"""
STOCK = """
import numpy, soundfile, soxr, transformers
batch_size = int(given[1])
pipeline = transformers.pipeline("audio-classification", model=model, device="cpu")
rate = pipeline.feature_extractor.sampling_rate
frames = pipeline.feature_extractor.max_length
window, hop = 400 + 160 * (frames - 1), 160 * round((400 + 160 * (frames - 1)) / 4 / 160)
samples, file_rate = soundfile.read(given[0], dtype="float32", always_2d=True)
waveform = soxr.resample(samples.mean(axis=1), file_rate, rate)
starts = [*range(0, len(waveform) - window, hop), len(waveform) - window]
windows = [waveform[start : start + window] for start in starts]
pipeline(windows[:8], batch_size=8)
begin = cpu()
list(pipeline(windows, batch_size=batch_size, num_workers=0, top_k=5))
print(cpu() - begin, 0)
"""


def main() -> int:
    """Print the rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--before", type=Path, help="checkout of an earlier build to compare with")
    parser.add_argument("--model", type=Path, help="checkpoint folder")
    parser.add_argument("--hours", type=float, default=3.0, help="of the longest recording (default: %(default)s)")
    parser.add_argument("--minutes", type=float, default=60.0, help="of the time line (default: %(default)s)")
    parser.add_argument("--files", type=int, default=2000, help="clips of a second (default: %(default)s)")
    parser.add_argument("--base384", action="store_true", help="only: a model of the published one's size")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        if args.base384:
            for row in rows_of_base384(folder):
                print(row, flush=True)
            return 0
        model = args.model or random_checkpoint(folder / "model")
        clip = recording(folder / "clip.wav", 1.0)
        for row in rows(args, folder, model, clip):
            print(row, flush=True)
    return 0


def rows(args: argparse.Namespace, folder: Path, model: Path, clip: Path):
    """Yield the lines of a Markdown table."""
    yield "| what | before | new | |"
    yield "|---|---|---|---|"
    for suffix in ("flac", "mp3"):
        for minutes in (10.0, 60 * args.hours):
            file = recording(folder / f"long.{suffix}", 60 * minutes)
            _, held = measure(HEAD + TAGGER + TIMELINE + END, ROOT, model, clip, file)
            yield f"| memory, {minutes:.0f} minutes of stereo {suffix.upper()}, `--timeline` | | {held / 1e6:.0f} MB | |"
            file.unlink()
    file = recording(folder / "timeline.flac", 60 * args.minutes)
    old, new = in_turns(HEAD + TAGGER + TIMELINE + END, args.before, model, clip, file)
    yield f"| time line of {args.minutes:.0f} minutes, a quarter of a window apart, processor s | {numbers(old, new, '.1f')} |"
    stock = {size: measure(HEAD + STOCK, ROOT, model, clip, file, str(size))[0] for size in STOCK_BATCHES}
    best = min(stock, key=stock.get)
    yield (
        f"| the same, stock pipeline given the windows as arrays (batches of {best}, without decoding) | {stock[best]:.1f} | {new:.1f} "
        f"| {stock[best] / new:.2f}x |"
    )
    files = [recording(folder / f"{number:05}.wav", 1.0, number, 16_000, 1) for number in range(args.files)]
    names = folder / "names"
    names.write_text("\n".join(map(str, files)))
    code = "given = open(given[0]).read().split()\nresults = list(tagger.tag_files(given))\n"
    old, new = in_turns(HEAD + TAGGER + code + END, args.before, model, clip, names)
    rate = [None if seconds is None else args.files / seconds for seconds in (old, new)]
    faster = f"{rate[1] / rate[0]:.2f}x" if rate[0] else ""
    yield f"| {args.files} files of a second, files a processor second | {shown(rate[0], '.0f')} | {rate[1]:.0f} | {faster} |"


def rows_of_base384(folder: Path):
    """Yield the lines of a table: a large model on files of whole windows and of a second, beside the pipeline given arrays."""
    import torch

    from modeling_ast import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification

    torch.manual_seed(0)
    model = folder / "base384"
    ASTForAudioClassification(ASTConfig(num_labels=527)).save_pretrained(model)
    # Stock pads all the same.
    ASTFeatureExtractor(padding="longest", return_attention_mask=True).save_pretrained(model)
    yield "| base384, processor s | stock pipeline given arrays | `ast-tag`'s tagger | |"
    yield "|---|---|---|---|"
    for count, seconds in ((20, 10.24), (60, 1.0)):
        files = [recording(folder / f"{seconds}-{number}.wav", seconds, number, 16_000, 1) for number in range(count)]
        stock, ours = {}, []
        for size in (1, 8):
            stock[size] = measure(HEAD + ARRAYS, ROOT, model, files[0], str(size), *files)[0]
            ours.append(measure(HEAD + FILES, ROOT, model, files[0], *files)[0])
        best = min(stock, key=stock.get)
        ratio = f"{stock[best] / min(ours):.2f}x"
        yield f"| {count} files of {seconds} s | {stock[best]:.1f} (batches of {best}) | {min(ours):.1f} | {ratio} |"


def numbers(old: float | None, new: float, form: str) -> str:
    """The cells of two times, and how many times less the second is."""
    return f"{shown(old, form)} | {new:{form}} | {f'{old / new:.2f}x' if old else ''}"


def shown(value: float | None, form: str) -> str:
    """A number, or nothing."""
    return "" if value is None else f"{value:{form}}"


def in_turns(code: str, before: Path | None, *arguments) -> tuple[float | None, float]:
    """The least processor seconds of the earlier build, if there is one, and of this one."""
    old, new = [], []
    for _ in range(TURNS):
        if before is not None:
            old.append(measure(code, before, *arguments)[0])
        new.append(measure(code, ROOT, *arguments)[0])
    return (min(old) if old else None), min(new)


def measure(code: str, checkout: Path, *arguments) -> tuple[float, float]:
    """Run code in a process with the modules of a checkout: the two numbers that it prints."""
    surroundings = os.environ | {
        "PYTHONPATH": str(Path(checkout).resolve()),
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    child = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env=surroundings,
        cwd=checkout,
    )
    first, second = child.stdout.split()[-2:]
    return float(first), float(second)


def recording(path: Path, seconds: float, seed: int = 0, rate: int = RATE, channels: int = 2) -> Path:
    """Lay drum clips end to end."""
    clips = sorted(DRUMS.rglob("*.flac"))
    order, left = np.random.default_rng(seed), round(seconds * rate)
    with soundfile.SoundFile(path, "w", rate, channels) as file:
        while left > 0:
            clip, clip_rate = soundfile.read(clips[order.integers(len(clips))], dtype="float32")
            places = np.arange(0, len(clip), clip_rate / rate)  # played at its own speed
            samples = np.interp(places, np.arange(len(clip)), clip)[:left]
            noise = order.normal(size=(len(samples), channels)) * 1e-3
            file.write(samples[:, None] + noise)
            left -= len(samples)
    return path


def random_checkpoint(folder: Path) -> Path:
    """Save a model of the sizes of `finetune/recipes/drums_from_scratch.yaml`."""
    import torch

    from modeling_ast import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification

    torch.manual_seed(0)
    labels = sorted(path.name for path in DRUMS.iterdir() if path.is_dir())
    config = ASTConfig(
        hidden_size=128,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=512,
        frequency_stride=16,
        time_stride=16,
        max_length=96,
        id2label=dict(enumerate(labels)),
        label2id={label: number for number, label in enumerate(labels)},
        initializer_range=0.1,
    )
    ASTForAudioClassification(config).save_pretrained(folder)
    ASTFeatureExtractor(max_length=96, resampler="soxr").save_pretrained(folder)
    return folder


if __name__ == "__main__":
    sys.exit(main())

"""Which resampler comes nearest to SoX, with which the authors of AST prepared their clips, and what each costs.

    python -m benchmarks.resamplers [--rows aliases features cost rates stock] [--rounds 21]

Needs the programs `sox` and `ffmpeg`. Prints, for files at 44.1 and 48 kHz that a model hears at 16 kHz:

- aliases: how far down a tone above 8 kHz comes back below it, and what is left of tones just below;
- features: how near the log-mel features come to those of the files that `sox` has resampled (`rate -h`, its default), and
  how many labels stay, of a small model that is trained here on what `sox` made of the training clips. The sounds are the
  shipped drum clips as if their samples had been taken at 44.1 or 48 kHz: recorded sounds with all that such rates hold, 2.8
  or 3 times as high and fast as they were played;
- cost: time of resampling, and of reading whole files, alternating;
- rates: time and memory at rates with and without a divisor in common with 16 kHz;
- stock: what the audio classification pipeline of Transformers hears of the same file by path and as an array.
"""

import argparse
import csv
import io
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import soundfile
import torch
import torchaudio

from modeling_ast import ASTFeatureExtractor
from modeling_ast.audio import AudioReader
from modeling_ast.audio.resampling import resample
from modeling_ast.tagging.tagger import AudioTagger

DRUMS = Path(__file__).parents[1] / "finetune" / "sample_data" / "drums"
RATE = 16_000
WIDE_RATES = (44_100, 48_000)
ALIAS_TONES = (8_200, 8_500, 9_000, 10_000, 12_000, 15_000)
KEPT_TONES = (6_000, 7_000, 7_500)
ODD_RATES = (1_001, 11_127, 24_414, 44_117, 96_001, 192_013, 499_979)
USUAL_RATES = (8_000, 11_025, 22_050, 44_100, 48_000, 96_000, 192_000)
KAISER_BEST = {  # librosa's (resampy's) kaiser_best by torchaudio's documentation
    "lowpass_filter_width": 64,
    "rolloff": 0.9475937167399596,
    "resampling_method": "sinc_interp_kaiser",
    "beta": 14.769656459379492,
}
CHILD = """
import json, sys, time
import numpy as np, torch, torchaudio
from modeling_ast.audio.resampling import resample
resampler, rate, seconds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
for name in ("soxr", "torchaudio"):  # what else is loaded once
    resample(np.zeros(2000, np.float32), 32_000, 16_000, name)
waveform = np.random.default_rng(0).standard_normal(rate * seconds, np.float32) / 4
def kilobytes(name):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(name))
with open("/proc/self/clear_refs", "w") as file:
    file.write("5")  # the peak begins anew
before = kilobytes("VmRSS")
def convert():
    if resampler == "functional":
        return torchaudio.functional.resample(torch.from_numpy(waveform), rate, 16_000)
    return resample(waveform, rate, 16_000, resampler)
times = []
for _ in range(9):
    start = time.perf_counter()
    convert()
    times.append(time.perf_counter() - start)
peak = (kilobytes("VmHWM") - before) / 1024
print(json.dumps({"first": times[0] * 1000, "median": sorted(times[1:])[4] * 1000, "peak": peak}))
"""


def with_torchaudio(waveform: np.ndarray, rate: int, **settings) -> np.ndarray:
    """`torchaudio.functional.resample`, which computes its kernel at each call."""
    return torchaudio.functional.resample(torch.from_numpy(waveform), rate, RATE, **settings).numpy()


def with_soxr(waveform: np.ndarray, rate: int, quality: str) -> np.ndarray:
    """libsoxr at one of its qualities."""
    import soxr

    return soxr.resample(waveform, rate, RATE, quality)


def with_torchcodec(waveform: np.ndarray, rate: int) -> np.ndarray:
    """FFmpeg's swresample through torchcodec, which resamples what it decodes: a WAV in memory."""
    from torchcodec.decoders import AudioDecoder

    encoded = float_wav(waveform, rate)
    return AudioDecoder(encoded, sample_rate=RATE).get_all_samples().data[0].numpy()


def float_wav(waveform: np.ndarray, rate: int) -> bytes:
    """A float32 WAV."""
    encoded = io.BytesIO()
    soundfile.write(encoded, waveform, rate, format="WAV", subtype="FLOAT")
    return encoded.getvalue()


def with_sox(waveform: np.ndarray, rate: int) -> np.ndarray:
    """The program `sox` with its default quality, from and to float32 WAV."""
    with tempfile.TemporaryDirectory() as scratch:
        given, made = Path(scratch) / "given.wav", Path(scratch) / "made.wav"
        soundfile.write(given, waveform, rate, subtype="FLOAT")
        subprocess.run(["sox", "-V1", given, "-e", "float", "-b", "32", made, "rate", "-h", str(RATE)], check=True)
        return soundfile.read(made, dtype="float32")[0]


RESAMPLERS: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {
    "torchaudio": with_torchaudio,
    "torchaudio, kaiser_best": lambda waveform, rate: with_torchaudio(waveform, rate, **KAISER_BEST),
    "torchcodec (FFmpeg)": with_torchcodec,
    "soxr MQ": lambda waveform, rate: with_soxr(waveform, rate, "MQ"),
    "soxr HQ": lambda waveform, rate: with_soxr(waveform, rate, "HQ"),
    "soxr VHQ": lambda waveform, rate: with_soxr(waveform, rate, "VHQ"),
}


def level(waveform: np.ndarray, frequency: float) -> float:
    """Amplitude of a tone within a waveform at 16 kHz, in dB of full scale."""
    window = np.hanning(len(waveform))
    turns = np.exp(-2j * np.pi * frequency * np.arange(len(waveform)) / RATE)
    return 20 * np.log10(max(1e-12, 2 * abs((waveform * window * turns).sum()) / window.sum()))


def print_aliases() -> None:
    """Print how far down tones come back, which are above and below half of 16 kHz."""
    for rate in WIDE_RATES:
        tones = [*KEPT_TONES, *ALIAS_TONES]
        heads = [f"{tone / 1000:g} kHz" for tone in KEPT_TONES]
        heads += [f"{tone / 1000:g} at {(RATE - tone) / 1000:g} kHz" for tone in ALIAS_TONES]
        print(f"\nLevel in dB of what is heard of a tone in a file at {rate} Hz:\n")
        print(f"| resampler | {' | '.join(heads)} |\n|---|{'---|' * len(heads)}")
        for name, convert in ({"sox (program)": with_sox} | RESAMPLERS).items():
            levels = []
            for tone in tones:
                waveform = (np.sin(2 * np.pi * tone * np.arange(2 * rate) / rate) / 2).astype(np.float32)
                heard = convert(waveform, rate)[RATE // 2 : -RATE // 2].astype(np.float64)  # away from the ends
                levels.append(level(2 * heard, tone if tone < RATE / 2 else RATE - tone))
            print(f"| {name} | {' | '.join(f'{value:.1f}' for value in levels)} |", flush=True)


def drum_clips() -> list[tuple[dict, np.ndarray]]:
    """Rows of the shipped table, and their samples, where there are enough of them for 0.1 s at 48 kHz."""
    with open(DRUMS / "metadata.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    clips = [(row, soundfile.read(DRUMS / row["file_name"], dtype="float32")[0]) for row in rows]
    return [(row, waveform) for row, waveform in clips if len(waveform) >= 4_800]


def train_on_sox(clips: list[tuple[dict, np.ndarray]], rate: int, folder: Path, epochs: int) -> AudioTagger:
    """Train a small model on the clips, taken as of this rate, that `sox` has brought to 16 kHz."""
    data = folder / "clips"
    data.mkdir()
    with open(data / "metadata.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file_name", "label", "split"])
        for index, (row, waveform) in enumerate(clips):
            soundfile.write(data / f"{index}.wav", with_sox(waveform, rate), RATE, subtype="FLOAT")
            writer.writerow([f"{index}.wav", row["label"], row["split"]])
    command = [sys.executable, "-m", "finetune.run_finetune", DRUMS.parents[1] / "recipes" / "drums_from_scratch.yaml"]
    command += ["--dataset_name", data, "--output_dir", folder / "run", "--max_length", "48", "--time_stride", "8"]
    command += ["--max_time_mask", "12", "--num_train_epochs", str(epochs), "--use_cpu", "true"]
    trained = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    if trained.returncode:
        sys.exit(f"The training of the small model ended with:\n{trained.stderr}")
    return AudioTagger.from_pretrained(str(folder / "run"), device="cpu")


def probabilities(tagger: AudioTagger, waveforms: list[np.ndarray]) -> np.ndarray:
    """Scores of clips, `(clips, labels)`."""
    features = tagger.feature_extractor(waveforms, sampling_rate=RATE, return_tensors="pt")
    with torch.inference_mode():
        return tagger.model(**features).logits.softmax(-1).numpy()


def print_features(epochs: int) -> None:
    """Print distances of features and labels from those of files that `sox` has resampled."""
    clips = drum_clips()
    extractor = ASTFeatureExtractor(do_normalize=False, padding="longest")
    for rate in WIDE_RATES:
        with tempfile.TemporaryDirectory() as scratch:
            tagger = train_on_sox(clips, rate, Path(scratch), epochs)
        held_out = [(row, waveform) for row, waveform in clips if row["split"] == "test"]
        labels = np.array([tagger.model.config.label2id[row["label"]] for row, _ in held_out])
        of_sox = [with_sox(waveform, rate) for _, waveform in held_out]
        scores = probabilities(tagger, of_sox)
        print(
            f"\n{len(held_out)} held-out clips at {rate} Hz; of sox's own files {accuracy(scores, labels)} labels are right:\n"
        )
        heads = ["mean difference of features", "of the 8 highest bins", "largest", "labels as of sox", "labels right"]
        heads += ["mean difference of probabilities"]
        print(f"| resampler | {' | '.join(heads)} |\n|---|{'---|' * len(heads)}")
        for name, convert in RESAMPLERS.items():
            made = [convert(waveform, rate) for _, waveform in held_out]
            differences = []
            for ours, theirs in zip(made, of_sox, strict=True):
                samples = min(len(ours), len(theirs))
                pair = [
                    extractor(each[:samples], RATE, return_tensors="np")["input_values"][0] for each in (ours, theirs)
                ]
                differences.append(np.abs(pair[0] - pair[1]))
            difference = np.concatenate(differences)
            theirs, ours = scores, probabilities(tagger, made)
            kept = int((theirs.argmax(1) == ours.argmax(1)).sum())
            cells = [
                f"{difference.mean():.4f}",
                f"{difference[:, -8:].mean():.3f}",
                f"{difference.max():.2f}",
                str(kept),
            ]
            cells += [accuracy(ours, labels), f"{np.abs(theirs - ours).mean():.5f}"]
            print(f"| {name} | {' | '.join(cells)} |", flush=True)


def accuracy(scores: np.ndarray, labels: np.ndarray) -> str:
    """How many of how many clips have their label as the best."""
    return f"{int((scores.argmax(1) == labels).sum())}"


def medians(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Milliseconds of each call, which alternate."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    for _ in range(rounds):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            times[name].append(1000 * (time.perf_counter() - start))
    return {name: statistics.median(values) for name, values in times.items()}


def print_cost(rounds: int) -> None:
    """Print the time of resampling, and of reading files, for clips of some lengths."""
    generator = np.random.default_rng(0)
    for rate in WIDE_RATES:
        lengths = (0.5, 1, 2, 5, 10)
        columns: dict[float, dict[str, float]] = {}
        for seconds in lengths:
            waveform = generator.standard_normal(int(rate * seconds), np.float32) / 4
            calls = {name: partial(convert, waveform, rate) for name, convert in RESAMPLERS.items()}
            ours = {
                f"the kit's {name}": partial(resample, waveform, rate, RATE, name) for name in ("torchaudio", "soxr")
            }
            columns[seconds] = medians(calls | ours, rounds)
        print(
            f"\nMilliseconds to resample a waveform at {rate} Hz, {torch.get_num_threads()} thread(s); times as fast:\n"
        )
        print(f"| resampler | {' | '.join(f'{seconds:g} s' for seconds in lengths)} |\n|---|{'---|' * len(lengths)}")
        for name in columns[lengths[0]]:
            cells = [f"{of[name]:.2f} ({of['torchaudio'] / of[name]:.2f}x)" for of in columns.values()]
            print(f"| {name} | {' | '.join(cells)} |", flush=True)
    print_cost_of_files(rounds)


def print_cost_of_files(rounds: int) -> None:
    """Print the time of reading 16-bit stereo files, with the kernel computed for each as by `torchaudio.functional`."""
    generator = np.random.default_rng(0)
    print("\nMilliseconds to read a stereo file at 44100 Hz, decoding and mix-down included; times as fast:\n")
    print("| file | torchaudio.functional.resample | the kit's torchaudio | the kit's soxr |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as scratch:
        for suffix in ("wav", "flac"):
            for seconds in (1, 5, 10):
                path = Path(scratch) / f"clip.{suffix}"
                noise = generator.standard_normal((int(44_100 * seconds), 2)) / 8
                soundfile.write(path, noise, 44_100, subtype="PCM_16")
                as_it_is, readers = (
                    AudioReader(44_100),
                    [AudioReader(resampler=name) for name in ("torchaudio", "soxr")],
                )
                calls = {"functional": partial(read_and_resample, as_it_is, path)}
                calls |= {reader.resampler: partial(reader.read, path) for reader in readers}
                times = medians(calls, rounds)
                cells = [f"{value:.2f} ({times['functional'] / value:.2f}x)" for value in times.values()]
                print(f"| {suffix.upper()}, {seconds} s | {' | '.join(cells)} |", flush=True)


def read_and_resample(reader: AudioReader, path: Path) -> np.ndarray:
    """A file as it is, and then `torchaudio.functional.resample`."""
    return with_torchaudio(reader.read(path), reader.sampling_rate)


def print_rates(seconds: int) -> None:
    """Print time and memory of rates with and without a divisor in common with 16 kHz, each in a process of its own."""
    print(f"\n{seconds} s of noise to 16 kHz: milliseconds (of the first call), MB above what was there before:\n")
    print("| rate, Hz | torchaudio.functional.resample | the kit's torchaudio | the kit's soxr |\n|---|---|---|---|")
    for rate in sorted((*USUAL_RATES, *ODD_RATES)):
        cells = []
        for resampler in ("functional", "torchaudio", "soxr"):
            if resampler == "functional" and rate in ODD_RATES:
                cells.append("not tried")
                continue
            command = [sys.executable, "-c", CHILD, resampler, str(rate), str(seconds)]
            found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
            cells.append(f"{found['median']:.2f} ({found['first']:.2f}), {found['peak']:.1f}")
        print(f"| {rate} | {' | '.join(cells)} |", flush=True)


def print_stock() -> None:
    """Print what stock Transformers' pipeline hears of a stereo file by path and as an array, beside the kit."""
    from transformers import pipeline
    from transformers.models.audio_spectrogram_transformer import ASTConfig, ASTForAudioClassification
    from transformers.models.audio_spectrogram_transformer import ASTFeatureExtractor as StockFeatureExtractor

    config = ASTConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, max_length=128)
    extractor = StockFeatureExtractor(max_length=128)
    stock = pipeline(
        "audio-classification", model=ASTForAudioClassification(config), feature_extractor=extractor, device="cpu"
    )
    heard = []
    stock.feature_extractor = lambda waveform, **kwargs: (
        heard.append(np.array(waveform)) or extractor(waveform, **kwargs)
    )
    stock.feature_extractor.sampling_rate = RATE

    generator = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as scratch:
        print(
            "\nWhat is heard of two channels at 44100 Hz: level in dB against the mean of the channels at 16 kHz by sox, and"
        )
        print("a tone of 8.5 kHz at 7.5 kHz in dB against the tone:\n")
        print("| heard by | equal channels | channels of unlike noise | 8.5 at 7.5 kHz |\n|---|---|---|---|")
        one, other = generator.standard_normal((2, 44_100), np.float32) / 8
        tone = np.sin(2 * np.pi * 8_500 * np.arange(44_100) / 44_100).astype(np.float32) / 4
        files = {"equal": (one, one), "unlike": (one, other), "tone": (tone, tone)}
        levels: dict[str, list[float]] = {}
        for kind, channels in files.items():
            path = str(Path(scratch) / f"{kind}.wav")
            soundfile.write(path, np.stack(channels, axis=1), 44_100, subtype="PCM_16")
            mean = np.mean(channels, axis=0)
            preprocessed = (path, {"raw": mean, "sampling_rate": 44_100})
            for given in preprocessed:
                stock.preprocess(given)
            by_stock, by_array = heard[-2:]
            waveforms = {
                "stock pipeline, path (ffmpeg -ac 1 -ar 16000)": by_stock,
                "stock pipeline, array of the mean (torchaudio)": by_array,
                "the kit, path, resampler torchaudio": AudioReader(resampler="torchaudio").read(path),
                "the kit, path, resampler soxr": AudioReader(resampler="soxr").read(path),
            }
            for name, waveform in waveforms.items():
                if kind == "tone":
                    found = level(waveform[1000:-1000], 7_500) - 20 * np.log10(0.25)
                else:
                    found = 20 * np.log10(
                        np.sqrt(np.square(waveform).mean() / np.square(with_sox(mean, 44_100)).mean())
                    )
                levels.setdefault(name, []).append(found)
        for name, values in levels.items():
            print(f"| {name} | {' | '.join(f'{value:+.2f}' for value in values)} |")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    rows = ("aliases", "features", "cost", "rates", "stock")
    parser.add_argument("--rows", nargs="+", choices=rows, default=rows, help="which tables (all)")
    parser.add_argument("--rounds", type=int, default=21, help="rounds of which the median counts")
    parser.add_argument("--epochs", type=int, default=40, help="epochs of the small model")
    args = parser.parse_args()
    missing = [name for name in ("sox", "ffmpeg") if shutil.which(name) is None]
    if missing:
        parser.error(
            f"the program(s) {', '.join(missing)} are needed; on Debian: sudo apt-get install {' '.join(missing)}"
        )
    tables = {
        "aliases": print_aliases,
        "features": lambda: print_features(args.epochs),
        "cost": lambda: print_cost(args.rounds),
        "rates": lambda: print_rates(10),
        "stock": print_stock,
    }
    for row in args.rows:
        tables[row]()


if __name__ == "__main__":
    main()

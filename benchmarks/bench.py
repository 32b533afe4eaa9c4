"""This project beside stock Transformers, row by row: `make bench`.

    python -m benchmarks.bench [--rows features_10s forward ...] [--digits FOLDER] [--output runs/bench.json]

Each row does the same work on the same data alternately with both in one process and prints the median of the ratios. The peer is stock
Transformers set up as well as it goes: sdpa attention, inference mode, the same threads, dtype and batch, arrays instead
of paths. base384 has random weights: no trained one is shipped. Memory is that of a process for each, measured once. There is
no row for a GPU: none was there to measure.
"""

import argparse
import json
import math
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import torch
import transformers
from transformers.models.audio_spectrogram_transformer import modeling_audio_spectrogram_transformer as stock
from transformers.models.audio_spectrogram_transformer.feature_extraction_audio_spectrogram_transformer import (
    ASTFeatureExtractor as StockFeatureExtractor,
)

from finetune.clip_sets.collator import ASTDataCollator, model_inputs
from finetune.clip_sets.sampling import EpochSampler
from modeling_ast import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification
from modeling_ast.audio import find_audio_files, read_audio
from modeling_ast.export_onnx import clip_inputs, open_session
from modeling_ast.features.kaldi import num_frames
from modeling_ast.layers import linear
from modeling_ast.layers.patch_grid import patches_along
from modeling_ast.onnx_sessions import joined_waveforms, run_session
from modeling_ast.quantization import export_quantized_onnx
from modeling_ast.scores import problem_type_of, scores_from_logits
from modeling_ast.system.atomic_files import open_atomically

from .side_by_side import (
    GIGA,
    Timing,
    alternate,
    feature_operations,
    forward_operations,
    in_a_process,
    matrix_multiply_rate,
    seconds_of,
)
from .ten_epochs import compare, in_words, ratio
from .trainer_rows import SmallModel, Waveforms, seconds_to_accuracy

SAMPLING_RATE = 16_000
FULL_LENGTH = 1024  # frames of base384
DRUMS = Path(__file__).parents[1] / "finetune" / "sample_data" / "drums"
DRUMS_RECIPE = Path(__file__).parents[1] / "finetune" / "recipes" / "drums_from_scratch.yaml"
NUM_DRUMS = 9
NUM_LABELS = 527
NUM_DIGITS = 300  # of the spoken digits
LARGEST_SIZE, LABELS_KEPT = 0.3, 0.99  # what an 8-bit file has to keep to


@dataclass(frozen=True)
class Shares:
    """Which part of the matrix-multiply rate, measured right after the row, the peer and this project reached."""

    peer: float
    ours: float
    gflops: float


@dataclass
class Row:
    """What one row says: the ratio to the peer, the ratios it has to have and would like to have, and what to know."""

    name: str
    must: float
    aim: float
    ratio: float
    timing: Timing | None = None
    shares: Shares | None = None
    notes: list[str] = field(default_factory=list)
    smaller_is_better: bool = False
    faults: list[str] = field(default_factory=list)  # conditions beside the ratio that do not hold

    def note_difference(self, of: str, difference: float, tolerance: float):
        """Write down how far the two results are from each other; too far is a fault."""
        self.notes.append(f"largest difference of the {of} {difference:.0e}")
        if difference > tolerance:
            self.faults.append(f"{of} differ by more than {tolerance:g}")

    def verdict(self) -> str:
        """Which of the two marks was reached."""

        def reaches(mark: float) -> bool:
            return self.ratio <= mark if self.smaller_is_better else self.ratio >= mark

        if self.faults or not reaches(self.must):
            return "MISSED" + "".join(f": {fault}" for fault in self.faults)
        return "aim" if reaches(self.aim) else "must"


class Bench:
    """What the rows share: the audio, and base384 in both implementations."""

    def __init__(self, folder: Path, rounds: int, digits: Path | None, bioamla: Path | None = None):
        self.folder = folder
        self.bioamla = bioamla
        self.rounds = rounds
        self.digits = digits
        recordings = [read_audio(path, SAMPLING_RATE) for path in find_audio_files(DRUMS)]
        self.drums = recordings
        self.recording = np.concatenate(recordings)

    @cached_property
    def base384(self) -> Path:
        """Folder of a model of that size; made when a row wants it, so that rows of features run in a fresh process."""
        folder = self.folder / "base384"
        torch.manual_seed(0)
        ASTForAudioClassification(ASTConfig(num_labels=NUM_LABELS)).save_pretrained(folder)
        ASTFeatureExtractor().save_pretrained(folder)
        return folder

    def clips(self, count: int, seconds: float) -> list[np.ndarray]:
        """Stretches of the drum recordings one after the other, of one length."""
        size = round(seconds * SAMPLING_RATE)
        starts = np.linspace(0, len(self.recording) - size, count).astype(int)
        return [self.recording[start : start + size].copy() for start in starts]

    def models(self, train: bool = False):
        """base384 of stock Transformers and of this project, with the same weights."""
        theirs = stock.ASTForAudioClassification.from_pretrained(self.base384, attn_implementation="sdpa")
        ours = ASTForAudioClassification.from_pretrained(self.base384)
        return theirs.train(train), ours.train(train)

    def shares(self, operations: float, timing: Timing, ours: float | None = None) -> Shares:
        """How much of the machine both used; the machine is asked again each time, as others use it too.

        Args:
            operations (`float`): what the peer computes, and this project too unless `ours` is given.
            timing ([`Timing`]): how long it took.
            ours (`float`, *optional*): what this project computes, where it leaves padding out.
        """
        rate = matrix_multiply_rate()
        ours = operations if ours is None else ours
        return Shares(operations / timing.peer_seconds / rate, ours / timing.our_seconds / rate, rate / GIGA)


def time_patches(frames: int, config: ASTConfig) -> int:
    """Patches along time of a clip."""
    return patches_along(frames, config.patch_size, config.time_stride)


def features(bench: Bench, name: str, count: int, seconds: float, max_length: int, must: float, aim: float) -> Row:
    """Same waveforms to the same tensor, padded to `max_length` frames by both."""
    clips = bench.clips(count, seconds)
    settings = {"sampling_rate": SAMPLING_RATE, "return_tensors": "pt"}
    theirs, ours = StockFeatureExtractor(max_length=max_length), ASTFeatureExtractor(max_length=max_length)
    difference = (theirs(clips, **settings).input_values - ours(clips, **settings).input_values).abs().max().item()
    timing = alternate(lambda: theirs(clips, **settings), lambda: ours(clips, **settings), 4 * bench.rounds)
    operations = feature_operations(count * num_frames(len(clips[0]), SAMPLING_RATE))
    row = Row(name, must, aim, timing.ratio, timing, bench.shares(operations, timing))
    row.note_difference("features", difference, 2e-3)
    if max_length < FULL_LENGTH:
        theirs.max_length = FULL_LENGTH
        for padding, said in (
            ("max_length", f"padded to {FULL_LENGTH} frames by both"),
            ("longest", "padded by stock, not here"),
        ):
            other = alternate(
                lambda: theirs(clips, **settings),
                lambda padding=padding: ours(clips, **settings, padding=padding, max_length=FULL_LENGTH),
                4 * bench.rounds,
            )
            row.notes.append(f"{said} {other.ratio:.1f}x")
    return row


def note_without_onednn(row: Row, theirs: Callable[[], object], ours: Callable[[], object], rounds: int):
    """Where linear layers go to oneDNN, write down the ratio that they would have on a processor on which they do not."""
    decide = linear.fastest_product
    if decide() is linear.Product.BLAS:
        return
    linear.fastest_product = lambda: linear.Product.BLAS
    try:
        row.notes.append(f"without oneDNN's matrix products {alternate(theirs, ours, rounds).ratio:.2f}x")
    finally:
        linear.fastest_product = decide


def features_10s(bench: Bench) -> Row:
    """With the 1024 frames of the AudioSet checkpoints."""
    return features(bench, "features, 16 clips of 10 s", 16, 10, FULL_LENGTH, must=3, aim=5)


def features_1s(bench: Bench) -> Row:
    """With the 128 frames of the released checkpoint for clips of 1 s, Speech Commands v2."""
    return features(bench, "features, 64 clips of 1 s, 128 frames", 64, 1, 128, must=5, aim=10)


@torch.inference_mode()
def forward(bench: Bench) -> Row:
    """One clip of full length through base384."""
    theirs, ours = bench.models()
    inputs = ASTFeatureExtractor()(bench.clips(1, 10.24), sampling_rate=SAMPLING_RATE, return_tensors="pt")
    difference = (theirs(**inputs).logits - ours(**inputs).logits).abs().max().item()
    timing = alternate(lambda: theirs(**inputs), lambda: ours(**inputs), 2 * bench.rounds)
    operations = forward_operations(ours.config, ours.config.patch_grid[1])
    row = Row("base384 forward, 10.24 s clip", 1.06, 1.15, timing.ratio, timing, bench.shares(operations, timing))
    row.note_difference("logits", difference, 1e-5)
    note_without_onednn(row, lambda: theirs(**inputs), lambda: ours(**inputs), 2 * bench.rounds)
    return row


@torch.inference_mode()
def tag_1s(bench: Bench) -> Row:
    """One second from waveform to label, without padding; the peer cannot but pad to ten."""
    theirs, ours = bench.models()
    their_features, our_features = StockFeatureExtractor(), ASTFeatureExtractor(padding="longest")
    settings = {"sampling_rate": SAMPLING_RATE, "return_tensors": "pt"}
    (clip,) = bench.clips(1, 1)
    timing = alternate(
        lambda: theirs(**their_features(clip, **settings)).logits.argmax().item(),
        lambda: ours(**our_features(clip, **settings)).logits.argmax().item(),
        2 * bench.rounds,
    )
    operations = forward_operations(ours.config, ours.config.patch_grid[1])
    frames = num_frames(len(clip), SAMPLING_RATE)
    short = forward_operations(ours.config, time_patches(frames, ours.config))
    shares = bench.shares(operations, timing, short)
    row = Row("base384, 1 s clip from waveform to label", 8, 12, timing.ratio, timing, shares)
    trained = trained_on_drums(bench)
    model = ASTForAudioClassification.from_pretrained(trained).eval()
    extractor = ASTFeatureExtractor.from_pretrained(trained)
    longest = top_labels(model, extractor, bench.drums, "longest")
    padded = top_labels(model, extractor, bench.drums, "max_length")
    row.notes.append(
        f"top label as with max_length for {np.mean(longest == padded):.1%} of {len(padded)} drum clips, by the model of "
        "the drums recipe (trained with max_length)"
    )
    return row


def top_labels(model, extractor: ASTFeatureExtractor, clips: list[np.ndarray], padding: str) -> np.ndarray:
    """The best label of each clip, `(clips,)`."""
    tops = []
    for start in range(0, len(clips), 32):
        batch = extractor(clips[start : start + 32], sampling_rate=SAMPLING_RATE, return_tensors="pt", padding=padding)
        with torch.inference_mode():
            tops.append(model(**batch).logits.argmax(dim=1))
    return torch.cat(tops).numpy()


def trained_on_drums(bench: Bench) -> Path:
    """A model of the drums recipe, trained here once."""
    folder = bench.folder / "drums"
    if not folder.exists():
        from finetune.run_finetune import main as finetune

        with torch.inference_mode(False), torch.enable_grad(), redirect_stdout(sys.stderr):
            failed = finetune(
                ["finetune/recipes/drums_from_scratch.yaml", "--output_dir", str(folder), "--disable_tqdm", "true"]
            )
        if failed:
            raise RuntimeError("The training of the drums recipe failed, see above.")
    return folder


def training_step(model, optimizer, **inputs) -> float:
    """Forward, backward, update; the loss."""
    optimizer.zero_grad()
    loss = model(**inputs).loss
    loss.backward()
    optimizer.step()
    return loss.item()


def train_step(bench: Bench) -> Row:
    """A step on two clips of full length, AdamW included."""
    inputs = ASTFeatureExtractor()(bench.clips(2, 10.24), sampling_rate=SAMPLING_RATE, return_tensors="pt")
    inputs["labels"] = torch.nn.functional.one_hot(torch.tensor([3, 5]), NUM_LABELS).float()
    (theirs, their_optimizer), (ours, our_optimizer) = (
        (model, torch.optim.AdamW(model.parameters(), lr=1e-5)) for model in bench.models(train=True)
    )
    their_losses, our_losses = [], []

    def their_step():
        their_losses.append(training_step(theirs, their_optimizer, **inputs))

    def our_step():
        our_losses.append(training_step(ours, our_optimizer, **inputs))

    timing = alternate(their_step, our_step, 2 * bench.rounds)
    operations = 2 * 3 * forward_operations(ours.config, ours.config.patch_grid[1])  # backwards costs twice forwards
    row = Row(
        "training step, base384, 10.24 s clips", 1.05, 1.2, timing.ratio, timing, bench.shares(operations, timing)
    )
    difference = max(abs(theirs - own) for theirs, own in zip(their_losses, our_losses, strict=True))
    row.notes.append(f"{len(our_losses)} losses {our_losses[0]:.4f} ... {our_losses[-1]:.4f}")
    row.note_difference("losses", difference, 1e-4)
    note_without_onednn(row, their_step, our_step, bench.rounds)
    return row


def train_lengths(bench: Bench) -> Row:
    """One epoch over 16 clips of lengths uniform in 1 to 10 s, batches of 4, features included."""
    generator = np.random.default_rng(0)
    clips = [bench.clips(1, seconds)[0] for seconds in generator.uniform(1, 10, size=16)]
    labels = np.eye(NUM_LABELS, dtype=np.float32)[generator.integers(NUM_LABELS, size=16)]
    (theirs, their_optimizer), (ours, our_optimizer) = (
        (model, torch.optim.AdamW(model.parameters(), lr=1e-5)) for model in bench.models(train=True)
    )
    their_features, our_features = StockFeatureExtractor(), ASTFeatureExtractor(padding="longest")
    collate = ASTDataCollator(our_features, compute_features=False)
    sampler = EpochSampler(16, seed=0, lengths=np.array([len(clip) for clip in clips]), group_size=4)

    def their_epoch():
        for start in range(0, 16, 4):
            inputs = their_features(clips[start : start + 4], sampling_rate=SAMPLING_RATE, return_tensors="pt")
            target = torch.from_numpy(labels[start : start + 4])
            training_step(theirs, their_optimizer, **inputs, labels=target)

    def our_epoch():
        order = [index for _, index in sampler]
        for start in range(0, 16, 4):
            items = [{"waveform": clips[index], "label": labels[index]} for index in order[start : start + 4]]
            training_step(ours, our_optimizer, **model_inputs(collate(items), our_features))

    timing = alternate(their_epoch, our_epoch, max(1, bench.rounds // 2))
    operations = 16 * 3 * forward_operations(ours.config, ours.config.patch_grid[1])
    real = sum(
        3 * forward_operations(ours.config, patches_along(num_frames(len(clip), SAMPLING_RATE), 16, 10))
        for clip in clips
    )
    shares = bench.shares(operations, timing, real)
    row = Row("training on clips of 1 to 10 s, from waveform", 1.7, 2.2, timing.ratio, timing, shares)
    row.notes.append(f"mean length {np.mean([len(clip) for clip in clips]) / SAMPLING_RATE:.1f} s; grouped by length")
    note_without_onednn(row, their_epoch, our_epoch, 1)
    return row


def trainer(bench: Bench) -> Row:
    """Samples a second of the drums recipe's model in `Trainer`, on clips cut and padded to one length."""
    labels = [number % NUM_DRUMS for number in range(len(bench.drums))]  # what is learned does not matter here
    waveforms = bench.drums
    start = SmallModel.for_clips(bench.folder / "small", DRUMS_RECIPE, waveforms, NUM_DRUMS)
    settings = {"per_device_train_batch_size": 32, "learning_rate": 5e-4, "num_train_epochs": 2}
    theirs, ours = start.trainers(Waveforms(waveforms, labels), **settings)
    timing = alternate(theirs.train, ours.train, 2 * bench.rounds)
    row = Row("training by Trainer, small model, fixed length", 1.25, 1.6, timing.ratio, timing)
    speeds = [2 * len(waveforms) / seconds for seconds in (timing.peer_seconds, timing.our_seconds)]
    row.notes.append(f"{speeds[0]:.0f} / {speeds[1]:.0f} clips a second, features included, decoding not")
    return row


def ten_epochs(bench: Bench) -> Row:
    """Ten epochs on the drums with scoring and saving each, from the folder of clips to the saved model."""
    folder = bench.folder / "ten_epochs"
    folder.mkdir()
    costs = compare(folder, bench.rounds, bench.bioamla)
    ratios = {peer: ratio(costs, peer) for peer in costs if peer != "ast-finetune"}
    row = Row("ten epochs of a small training, scored and saved each", 1.5, 2.0, min(ratios.values()))
    row.notes.append(", ".join(f"{value:.2f} against {peer}" for peer, value in ratios.items()))
    row.notes.append(in_words(costs))
    return row


def time_to_accuracy(bench: Bench) -> Row:
    """Training time until spoken digits are understood."""
    pairs, words = seconds_to_accuracy(bench.digits, range(bench.rounds))
    peer, own = (np.mean([pair[side].seconds for pair in pairs]) for side in (0, 1))
    row = Row("training time to the same accuracy, spoken digits", 1.0, 1.25, peer / own)
    steps = [f"{', '.join(str(pair[side].steps) for pair in pairs)} steps" for side in (0, 1)]
    row.notes.append(f"{words}: {peer:.0f} s ({steps[0]}) / {own:.0f} s ({steps[1]})")
    return row


MEMORY_OF_A_STEP = """
import gc, json, sys, torch
from transformers.utils import logging
logging.disable_progress_bar()
package, folder, batch = sys.argv[1], sys.argv[2], int(sys.argv[3])
if package == "stock":
    from transformers import ASTForAudioClassification
    model = ASTForAudioClassification.from_pretrained(folder, attn_implementation="sdpa").train()
else:
    from modeling_ast import ASTForAudioClassification
    model = ASTForAudioClassification.from_pretrained(folder).train()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
for parameter in model.parameters():  # the state of the optimiser is made in the first step
    parameter.grad = torch.zeros_like(parameter)
optimizer.step()
optimizer.zero_grad()
inputs = torch.randn(batch, 1024, 128)
labels = torch.zeros(batch, model.config.num_labels)
gc.collect()
def status(field):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(field))
with open("/proc/self/clear_refs", "w") as file:
    file.write("5")  # the peak starts anew
before = status("VmRSS")
model(inputs, labels=labels).loss.backward()
optimizer.step()
print(json.dumps({"bytes": status("VmHWM") - before}))
"""


def memory(bench: Bench) -> Row:
    """Peak of a training step at batch 8 above model and optimiser, in processes of their own."""
    theirs, ours = (
        in_a_process(MEMORY_OF_A_STEP, package, bench.base384, 8)["bytes"] for package in ("stock", "ours")
    )
    row = Row("peak memory of a training step, batch 8", 0.9, 0.7, ours / theirs, smaller_is_better=True)
    row.notes.append(f"stock {theirs / GIGA:.2f} GB, ours {ours / GIGA:.2f} GB, gradients included")
    return row


@torch.inference_mode()
def int8(bench: Bench) -> Row:
    """8-bit weights in ONNX Runtime against float32 in stock Transformers; labels by a model that was trained."""
    theirs, ours = bench.models()
    extractor = ASTFeatureExtractor()
    few = [clip_inputs(clip, extractor) for clip in bench.clips(4, 10.24)]
    report = export_quantized_onnx(ours, extractor, bench.folder / "base384.onnx", few)
    session = open_session(bench.folder / "base384.onnx")
    inputs = few[0]["input_values"]
    timing = alternate(
        lambda: theirs(torch.from_numpy(inputs)), lambda: session.run(["logits"], few[0]), 2 * bench.rounds
    )
    shares = bench.shares(forward_operations(ours.config, ours.config.patch_grid[1]), timing)  # of the rate in float32
    row = Row("8-bit ONNX forward, base384, 10.24 s clip", 1.2, 1.6, timing.ratio, timing, shares)
    size = report.chosen_candidate.size_ratio
    row.notes.append(f"{report.chosen}; file {size:.3f} of the float32 one")
    if size >= LARGEST_SIZE:
        row.faults.append(f"the file is not below {LARGEST_SIZE} of the float32 one")

    folder = trained_on_drums(bench)
    extractor = ASTFeatureExtractor.from_pretrained(folder)
    clips = {"drum": bench.drums}
    if bench.digits:
        files = find_audio_files(bench.digits)
        chosen = np.linspace(0, len(files) - 1, NUM_DIGITS).astype(int)
        clips["digit"] = [read_audio(files[index], SAMPLING_RATE) for index in chosen]
    together = [clip_inputs(clip, extractor) for kind in clips.values() for clip in kind]
    trained = export_quantized_onnx(
        ASTForAudioClassification.from_pretrained(folder).eval(), extractor, bench.folder / "drums.onnx", together
    )
    kept = trained.chosen_candidate.labels_kept
    counts = " and ".join(f"{len(kind)} {name}" for name, kind in clips.items())
    row.notes.append(
        f"model of the drums recipe: {trained.chosen}, top label kept for {kept} of {len(together)} clips ({counts})"
    )
    if kept < LABELS_KEPT * len(together):
        row.faults.append(f"fewer than {LABELS_KEPT:.0%} of the top labels kept")
    return row


@torch.inference_mode()
def int8_waveform(bench: Bench) -> Row:
    """The file of `ast-export --waveform --int8` against stock features and forward pass in float32, from waveform to scores."""
    theirs, ours = bench.models()
    stock_extractor, extractor = StockFeatureExtractor(), ASTFeatureExtractor()
    clips = bench.clips(4, 10.24)
    inputs = [joined_waveforms([clip]) for clip in clips]
    path = bench.folder / "base384.onnx"
    report = export_quantized_onnx(ours, extractor, path, inputs, waveform=True)
    session = open_session(path)

    def stock_scores() -> torch.Tensor:
        features = stock_extractor(clips[0], sampling_rate=SAMPLING_RATE, return_tensors="pt")
        return scores_from_logits(theirs(**features).logits, problem_type_of(ours.config))

    timing = alternate(stock_scores, lambda: run_session(session, inputs[0]), 2 * bench.rounds)
    row = Row("waveform to scores, 8-bit ONNX, base384, 10.24 s clip", 1.7, 2.0, timing.ratio, timing)
    difference = np.abs(stock_scores().numpy() - run_session(session, inputs[0])).max()
    row.notes.append(f"{report.chosen}; largest difference of a score {difference:.0e}")
    row.notes.append(f"ratios from {timing.lowest_ratio:.2f} to {timing.highest_ratio:.2f}")
    pairs = [
        (
            seconds_of(stock_scores, time.process_time),
            seconds_of(lambda: run_session(session, inputs[0]), time.process_time),
        )
        for _ in range(bench.rounds)
    ]
    ratio_of_processor = statistics.median(theirs / ours for theirs, ours in pairs)
    row.notes.append(f"of processor seconds {ratio_of_processor:.2f}")
    return row


@torch.inference_mode()
def growth(bench: Bench) -> dict:
    """Seconds of a forward pass of ours by length of the clip and by size of the batch, features not included."""
    _, ours = bench.models()
    rate = matrix_multiply_rate()

    def forward_of(batch: int, seconds: float) -> dict:
        frames = num_frames(round(seconds * SAMPLING_RATE), SAMPLING_RATE)
        inputs = torch.randn(batch, frames, ours.config.num_mel_bins)
        taken = min(seconds_of(lambda: ours(inputs)) for _ in range(2))
        operations = batch * forward_operations(ours.config, time_patches(frames, ours.config))
        return {"batch": batch, "clip_seconds": seconds, "seconds": taken, "share": operations / taken / rate}

    return {
        "by length": [forward_of(1, seconds) for seconds in (1, 2, 5, 10, 20, 30, 60)],
        "by batch": [forward_of(batch, 1) for batch in (1, 2, 4, 8, 16, 32)],
    }


def check_digits(folder: Path):
    """Refuse a folder that does not hold what the rows need of Free Spoken Digits, before anything is measured."""
    count = len(find_audio_files(folder)) if folder.is_dir() else 0
    has_metadata = (folder / "metadata.csv").is_file()
    if not has_metadata or count < NUM_DIGITS:
        raise ValueError(
            f"{folder} holds {count} clips and {'a' if has_metadata else 'no'} metadata.csv, expected "
            f"{NUM_DIGITS} clips of Free Spoken Digits or more, and a metadata.csv with the columns file_name, label and take"
        )


ROWS = {
    "features_10s": features_10s,
    "features_1s": features_1s,
    "forward": forward,
    "tag_1s": tag_1s,
    "train_step": train_step,
    "train_lengths": train_lengths,
    "trainer": trainer,
    "ten_epochs": ten_epochs,
    "time_to_accuracy": time_to_accuracy,
    "int8": int8,
    "int8_waveform": int8_waveform,
    "memory": memory,
}
NEED_DIGITS = ("time_to_accuracy",)


def machine() -> dict:
    """What the figures were measured on."""
    return {
        "processor": torch.cpu.get_capabilities().get("cpu_name", platform.processor()),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "linear_layers_by": linear.fastest_product().value,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def print_row(row: Row):
    """One line of the table."""
    times, shares = "", ""
    if row.timing:
        times = f"{row.timing.peer_seconds * 1e3:.0f} / {row.timing.our_seconds * 1e3:.0f} ms"
    if row.shares:
        shares = f"{row.shares.peer:.0%} / {row.shares.ours:.0%} of {row.shares.gflops:.0f}"
    comparison = "at most " if row.smaller_is_better else ""
    cells = (row.name, f"{comparison}{row.must}", row.aim, f"**{row.ratio:.2f}**", row.verdict(), times, shares)
    print("| " + " | ".join(str(cell) for cell in (*cells, "; ".join(row.notes))) + " |", flush=True)


def print_growth(measured: dict):
    """How time grows with length and with batch."""
    for title, points in measured.items():
        print(f"\nForward pass, {title} (batch x seconds: time, share of the matrix-multiply rate):")
        print(
            ", ".join(
                f"{point['batch']} x {point['clip_seconds']} s: {point['seconds']:.2f} s, {point['share']:.0%}"
                for point in points
            ),
            flush=True,
        )


def main(argv: list[str] | None = None) -> int:
    """Run the rows and write the table and the JSON; 1 if a row missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", choices=ROWS, help="rows to run, all by default")
    parser.add_argument("--rounds", type=int, default=3, help="pairs of measurements; most rows take a multiple")
    parser.add_argument("--digits", type=Path, help="folder of Free Spoken Digits, for time_to_accuracy and int8")
    parser.add_argument("--bioamla", type=Path, help="folder with bioamla 0.2.14, a rival of the row ten_epochs")
    parser.add_argument("--no_growth", action="store_true", help="leave out how time grows with length and batch")
    parser.add_argument("--output", type=Path, default=Path("runs/bench.json"))
    args = parser.parse_args(argv)
    if args.rounds < 1:
        parser.error(f"--rounds {args.rounds} is too few, expected 1 or more")
    left_out = [name for name in args.rows or ROWS if name in NEED_DIGITS and not args.digits]
    if args.rows and left_out:
        parser.error(
            f"the row {left_out[0]} needs --digits FOLDER with the clips and metadata.csv of Free Spoken Digits"
        )
    if args.digits:
        try:
            check_digits(args.digits)
        except ValueError as error:
            parser.error(f"--digits {error}")
    if args.bioamla and not (args.bioamla / "bioamla").is_dir():
        parser.error(f"--bioamla {args.bioamla} holds no bioamla; benchmarks/ten_epochs.py says how to install it")
    names = args.rows or [name for name in ROWS if name not in left_out]
    if "int8" in names and not args.digits:
        left_out.append("the digit clips of int8")
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), args.rounds, args.digits, args.bioamla)
        environment = machine()
        print(", ".join(f"{name} {value}" for name, value in environment.items()))
        print(
            "\n| row | must | aim | ratio | reached | stock / ours | share of matrix-multiply rate, GFLOPS | |\n|"
            + "---|" * 8
        )
        rows = []
        for name in names:
            try:
                rows.append(ROWS[name](bench))
            except (RuntimeError, ValueError, ImportError, OSError) as error:  # the other rows are still wanted
                missed = Row(name, must=math.nan, aim=math.nan, ratio=math.nan, faults=[f"failed: {error}"])
                rows.append(missed)
            print_row(rows[-1])
        measured = None if args.no_growth else growth(bench)
    if measured:
        print_growth(measured)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    result = {
        "machine": environment,
        "rows": [asdict(row) | {"reached": row.verdict()} for row in rows],
        "growth": measured,
    }
    with open_atomically(args.output) as file:
        file.write(json.dumps(result, indent=1).encode())
    if left_out:
        print(f"\nLeft out: {', '.join(left_out)}, without --digits FOLDER.")
    if "ten_epochs" in names and not args.bioamla:
        print("\nLeft out: bioamla of ten_epochs, without --bioamla FOLDER.")
    print(f"\nNo GPU was measured. {args.output} holds these figures.")
    return int(any(row.verdict().startswith("MISSED") for row in rows))


if __name__ == "__main__":
    sys.exit(main())

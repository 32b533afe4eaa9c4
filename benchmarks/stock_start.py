"""Start as people do: a checkpoint saved by stock Transformers, fine-tuned on a folder of short clips.

    python -m benchmarks.stock_start [--steps 3] [--clips 64]

A base384 with 527 labels and no `problem_type`, as on the Hub (with random weights: none is shipped), is fine-tuned by
`ast-finetune` on a folder with a folder of 1-second drum clips per class. Its positions are cut, its classifier is new, and
the learning rate is the default. The first loss is compared with that of stock Transformers with the same weights.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from transformers.models.audio_spectrogram_transformer import modeling_audio_spectrogram_transformer as stock
from transformers.models.audio_spectrogram_transformer.feature_extraction_audio_spectrogram_transformer import (
    ASTFeatureExtractor as StockFeatureExtractor,
)

from finetune.arguments.command_line import parse_arguments
from finetune.runs.training_run import prepare_run, train_run

DRUMS = Path(__file__).parents[1] / "finetune" / "sample_data" / "drums"
MAX_LENGTH = 128  # frames, a little more than one second
TOLERANCE = 1e-5


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=3, help="training steps")
    parser.add_argument("--clips", type=int, default=64, help="clips in the folder")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        checkpoint, clips = Path(folder, "base384"), Path(folder, "clips")
        save_stock_checkpoint(checkpoint)
        link_clips(clips, args.clips)
        difference = compare(checkpoint, clips, Path(folder), args.steps)
    print(f"First loss: largest difference from stock Transformers with the same weights {difference:.1e}.")
    if difference > TOLERANCE:
        print(f"Missed: {TOLERANCE:g}.", file=sys.stderr)
        return 1
    return 0


def save_stock_checkpoint(folder: Path, **sizes):
    """An AST with random weights as stock Transformers saves it.

    Args:
        folder (`Path`): where to.
        sizes: fields of the configuration other than those of base384.
    """
    torch.manual_seed(0)
    config = stock.ASTConfig(num_labels=527, **sizes)
    stock.ASTForAudioClassification(config).save_pretrained(folder)
    StockFeatureExtractor().save_pretrained(folder)


def link_clips(folder: Path, count: int):
    """A folder per class with some of the drum clips, evenly over all."""
    paths = sorted(DRUMS.glob("*/*.flac"))
    for path in paths[:: len(paths) // count]:
        (folder / path.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, folder / path.parent.name)


def compare(checkpoint: Path, clips: Path, folder: Path, steps: int) -> float:
    """Train for a few steps; return how far the first loss is from that of stock Transformers."""
    argv = ["--dataset_name", clips, "--model_name_or_path", checkpoint, "--output_dir", folder / "run"]
    argv += ["--max_length", MAX_LENGTH, "--max_steps", steps, "--logging_strategy", "steps", "--logging_steps", 1]
    argv = [
        str(word)
        for word in [*argv, "--save_strategy", "no", "--use_cpu", "--disable_tqdm", "true", "--keep_features", "false"]
    ]
    run = prepare_run(argv, parse_arguments(argv))
    run.trainer.model.save_pretrained(folder / "start")
    theirs = stock.ASTForAudioClassification.from_pretrained(folder / "start").train()
    batch = next(iter(run.trainer.get_train_dataloader()))
    ours = run.trainer.feature_extractor
    extractor = StockFeatureExtractor(max_length=MAX_LENGTH, mean=ours.mean, std=ours.std)
    waveforms = [
        waveform[:length].numpy() for waveform, length in zip(batch["waveforms"], batch["lengths"], strict=True)
    ]
    features = extractor(waveforms, sampling_rate=16_000, return_tensors="pt")
    expected = theirs(**features, labels=batch["labels"]).loss.item()
    train_run(run)
    summary = json.loads((folder / "run" / "run_summary.json").read_text())
    print(f"Default learning rate {summary['training']['learning_rate']:g}; losses of the steps:")
    losses = [entry["loss"] for entry in run.trainer.state.log_history if "loss" in entry]
    print("  " + "  ".join(f"{float(loss):.4f}" for loss in losses))
    return abs(float(losses[0]) - expected)


if __name__ == "__main__":
    sys.exit(main())

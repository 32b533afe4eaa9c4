"""What it brings to compute fewer tokens: patchout in training, token merging in inference.

    python -m benchmarks.fewer_tokens [--rows patchout merging labels] [--model_name_or_path runs/drums] [--rounds 5]

- patchout: a training step of base384 on clips of 10.24 s, from waveforms to new weights, with all patches and with half of
  them, alternating;
- merging: a forward pass of base384 of one such clip, with so many tokens merged in each layer and with none, alternating;
- labels: on how many drum clips the best label of a fine-tuned model stays, where the same share of its patches is merged
  before its last layer.

base384 has random weights, so that it has times and no labels. Rows that miss are printed as missed.
"""

import argparse
import csv
import os
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import torch

from finetune.augmentations.augmentation import Augmentation
from finetune.clip_sets.collator import ASTDataCollator, model_inputs
from modeling_ast import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification
from modeling_ast.tagging.tagger import AudioTagger

from .side_by_side import Timing, alternate

ROWS = ("patchout", "merging", "labels")
DRUMS = Path(__file__).parents[1] / "finetune" / "sample_data" / "drums"
SAMPLES = 163_840  # 10.24 s at 16 kHz
HALF = 0.5
SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)  # of the patches, that are merged into others before the last layer
PATCHOUT_MUST, PATCHOUT_AIM = 1.7, 2.2
MERGING_MUST, MERGING_AIM, LABELS_KEPT = 1.3, 1.6, 0.98


def main():
    """Measure the rows that were asked for, and print them."""
    parser = argparse.ArgumentParser(description="What it brings to compute fewer tokens.")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=ROWS, help="what is measured (default: all)")
    parser.add_argument("--model_name_or_path", default="runs/drums", help="a model of drums (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="pairs of measurements (default: %(default)s)")
    parser.add_argument("--batch_size", type=int, default=2, help="clips of a training step (default: %(default)s)")
    args = parser.parse_args()
    print(f"{torch.get_num_threads()} threads")
    if "patchout" in args.rows:
        print_patchout(args.batch_size, args.rounds)
    if "merging" in args.rows or "labels" in args.rows:
        print_merging(args.model_name_or_path if "labels" in args.rows else None, "merging" in args.rows, args.rounds)


def base384() -> ASTForAudioClassification:
    """The size of the AudioSet checkpoints, with random weights."""
    torch.manual_seed(0)
    return ASTForAudioClassification(ASTConfig(num_labels=527, problem_type="multi_label_classification"))


def print_patchout(batch_size: int, rounds: int):
    """Time training steps with all patches, and with half of them."""
    whole, half = Augmentation(), Augmentation(patchout_share=HALF)
    extractor, collate = ASTFeatureExtractor(), ASTDataCollator(ASTFeatureExtractor(), compute_features=False)
    model = base384().train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    noise = np.random.default_rng(0).standard_normal((batch_size, SAMPLES), dtype=np.float32) / 10
    label = np.zeros(527, dtype=np.float32)

    def step(augmentation: Augmentation):
        draws = (augmentation.draw(0, 0, index, batch_size) for index in range(batch_size))
        items = zip(noise, draws, strict=True)
        batch = collate([{"waveform": clip, "label": label, "draws": drawn} for clip, drawn in items])
        model(**model_inputs(batch, extractor, augmentation, model.config)).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    timing = alternate(lambda: step(whole), lambda: step(half), rounds)
    kept, patches = half.patches_computed(model.config, model.config.max_length)
    print(f"\nTraining step of base384, {batch_size} clips of 10.24 s, with {kept} of {patches} patches against all:")
    print("| | seconds a step | clips a second |\n|---|---|---|")
    for name, seconds in (("all patches", timing.peer_seconds), ("half of them", timing.our_seconds)):
        print(f"| {name} | {seconds:.2f} | {batch_size / seconds:.2f} |")
    print(f"{in_words(timing)}: {verdict(timing.ratio, PATCHOUT_MUST, PATCHOUT_AIM)}", flush=True)


def print_merging(model_name_or_path: str | None, timed: bool, rounds: int):
    """Print a row for each share of the tokens: speed of base384, labels that a model of drums keeps, or both."""
    model = base384().eval()
    features = torch.from_numpy(np.random.default_rng(0).standard_normal((1, 1024, 128), dtype=np.float32)) / 2
    drums = None if model_name_or_path is None else DrumLabels(model_name_or_path)
    passed = 0.0
    print("\n| patches merged | base384, a layer | seconds | speed | drums, a layer | labels kept | held out |")
    print("|---|---|---|---|---|---|---|")
    for share in SHARES:
        merged, cells = per_layer(share, model), ["", "", "", "", ""]
        ratio = 0.0
        if timed:
            timing = alternate(lambda: run(model, features, 0), lambda r=merged: run(model, features, r), rounds)
            ratio = timing.ratio
            cells[:2] = f"{timing.peer_seconds:.2f} / {timing.our_seconds:.2f}", in_words(timing)
        if drums is not None:
            of_drums = per_layer(share, drums.tagger.model)
            kept, number, held_out, of_held_out = drums.kept(of_drums)
            cells[2:] = str(of_drums), f"{kept} of {number} ({kept / number:.1%})", f"{held_out} of {of_held_out}"
            if kept / number >= LABELS_KEPT:
                passed = max(passed, ratio)
        print(f"| {share:.0%} | {merged} | {' | '.join(cells)} |", flush=True)
    if timed and drums is not None:
        words = verdict(passed, MERGING_MUST, MERGING_AIM)
        print(f"The fastest that keeps {LABELS_KEPT:.0%} of the labels: {passed:.2f}x: {words}")


def per_layer(share: float, model: ASTForAudioClassification) -> int:
    """Tokens that each layer has to merge so that the last one has this share of the patches less."""
    frequency, time = model.config.patch_grid
    return max(1, round(share * frequency * time / (model.config.num_hidden_layers - 1)))


@torch.inference_mode()
def run(model: ASTForAudioClassification, features: torch.Tensor, merged: int):
    """A forward pass in which so many tokens are merged in each layer."""
    model.merge_tokens(merged)
    model(features)


class DrumLabels:
    """The best label of each shipped drum clip, by a model that was trained on some of them.

    Args:
        model_name_or_path (`str`): the model.
    """

    def __init__(self, model_name_or_path: str):
        self.tagger = AudioTagger.from_pretrained(model_name_or_path, device="cpu")
        with open(DRUMS / "metadata.csv", newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        self.files = [DRUMS / row["file_name"] for row in rows]
        self.held_out = np.array([row["split"] == "test" for row in rows])
        self.labels = self._labels(0)

    def _labels(self, merged: int) -> np.ndarray:
        self.tagger.model.merge_tokens(merged)
        return np.array([found.labels[0].label for found in self.tagger.tag_files(self.files, top_k=1, batch_size=32)])

    def kept(self, merged: int) -> tuple[int, int, int, int]:
        """Of all clips and of those that the model was not trained on: how many keep their label, of how many.

        Args:
            merged (`int`): tokens of each layer.
        """
        same = self._labels(merged) == self.labels
        return int(same.sum()), len(same), int(same[self.held_out].sum()), int(self.held_out.sum())


def in_words(timing: Timing) -> str:
    """The median of the ratios and how far they went."""
    return f"{timing.ratio:.2f}x ({timing.lowest_ratio:.2f} to {timing.highest_ratio:.2f})"


def verdict(ratio: float, must: float, aim: float) -> str:
    """Which mark a ratio reaches."""
    reached = "aim reached" if ratio >= aim else "must reached" if ratio >= must else "MISSED"
    return f"{reached} (must {must}x, aim {aim}x)"


if __name__ == "__main__":
    main()

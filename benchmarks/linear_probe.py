"""Linear classifiers on the vectors that a checkpoint gives of the drum clips, without any fine-tuning.

    python -m benchmarks.linear_probe CHECKPOINT [CHECKPOINT ...] [--test_kit]

One training kit is left out at a time, so that checkpoints may be chosen by the score; the test kit is read with `--test_kit` only. The classifier is
scikit-learn's logistic regression on standardised vectors, with its default strength.
"""

import argparse
import csv
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from modeling_ast import ASTFeatureExtractor, ASTModel
from modeling_ast.audio import read_audio

DRUMS = Path(__file__).parents[1] / "finetune" / "sample_data" / "drums"
BATCH = 32
SECONDS = 0.985  # of a clip, as the drums recipe hears it


def main():
    """Print a row for each checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", nargs="+", help="folders, Hub ids or ast-small")
    parser.add_argument("--test_kit", action="store_true", help="score the held-out kit, not training kits")
    args = parser.parse_args()
    print(f"| checkpoint | {'test kit' if args.test_kit else 'one training kit left out'} |\n|---|---|")
    for checkpoint in args.checkpoints:
        print(f"| {checkpoint} | {probe(checkpoint, args.test_kit):.3f} |", flush=True)


def probe(checkpoint: str, test_kit: bool = False) -> float:
    """Accuracy on the test kit, or over all training clips, each by a classifier that has not heard its kit."""
    with open(DRUMS / "metadata.csv", newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if test_kit or row["split"] == "train"]
    vectors = clip_vectors(checkpoint, [DRUMS / row["file_name"] for row in rows])
    labels, kits = (np.array([row[name] for row in rows]) for name in ("label", "source"))
    scored = {row["source"] for row in rows if row["split"] == "test"} if test_kit else set(kits)
    right = 0
    for kit in sorted(scored):
        held_out = np.isin(kits, list(scored)) if test_kit else kits == kit
        classifier = fitted(vectors[~held_out], labels[~held_out])
        right += int((classifier.predict(vectors[kits == kit]) == labels[kits == kit]).sum())
    return right / int(np.isin(kits, list(scored)).sum())


def fitted(vectors: np.ndarray, labels: np.ndarray):
    """A linear classifier of standardised vectors."""
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)).fit(vectors, labels)


@torch.inference_mode()
def clip_vectors(checkpoint: str, files: list[Path]) -> np.ndarray:
    """The vector of the beginning of each clip, unpadded: `(clips, hidden)`."""
    extractor = ASTFeatureExtractor.from_pretrained(checkpoint, padding="longest", return_attention_mask=True)
    model = ASTModel.from_pretrained(checkpoint, dtype=torch.float32).eval()
    most, found = round(SECONDS * extractor.sampling_rate), []
    waveforms = [read_audio(file, extractor.sampling_rate)[:most] for file in files]
    for start in range(0, len(waveforms), BATCH):
        inputs = extractor(
            waveforms[start : start + BATCH], sampling_rate=extractor.sampling_rate, return_tensors="pt"
        )
        embedded = model.embed(inputs["input_values"], inputs["attention_mask"])
        found.append(embedded.class_token_mean.numpy())
    return np.concatenate(found)


if __name__ == "__main__":
    main()

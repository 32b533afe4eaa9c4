"""How well clips of a class that a model never heard are told from clips of those that it was trained on.

    python -m benchmarks.unseen_classes
    python -m benchmarks.unseen_classes --validation_kit BJA_Pacific --at_once 3
    python -m benchmarks.unseen_classes --kits avl_Black_Pearl BJA_Pacific --at_once 3 --ways

Each class of the shipped drum clips is left out once: `ast-finetune --none_of_these true` trains the drums recipe on the clips of the
others, without those of one kit, and that kit's clips, of seen classes and of the unseen one, are sorted by their distance from the
training clips and by one minus the largest probability. The figures are the area under the ROC curve by scikit-learn: 0.5 is chance.
The last column says how many are beyond the threshold, chosen on the training clips, or on a kit that is left out for that.
`--ways` compares with other ways to sort the same clips; which one the kit has was chosen by it on training kits.
"""

import argparse
import csv
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from scipy.special import logsumexp
from sklearn.covariance import EmpiricalCovariance
from sklearn.metrics import roc_auc_score

from modeling_ast.audio import read_audio
from modeling_ast.tagging import AudioTagger
from modeling_ast.tagging.none_of_these import KnownClips

DRUMS = Path(__file__).parents[1] / "finetune" / "sample_data" / "drums"
RECIPE = "finetune/recipes/drums_from_scratch.yaml"
TEST_KIT = "FluidR3"
DISTANCE, LARGEST = "distance", "1 - largest probability"
NEIGHBOURS = (1, 5, 10, 20)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kits", nargs="+", default=[TEST_KIT], help="each is held out in turn")
    parser.add_argument("--classes", nargs="+", help="those that are left out; all if not given")
    parser.add_argument("--at_once", type=int, default=1, help="classes that one training does without")
    parser.add_argument("--epochs", type=int, default=40, help="of each training")
    parser.add_argument("--validation_kit", help="on which the threshold is chosen, in place of the training clips")
    parser.add_argument("--ways", action="store_true", help="also sort by other scores")
    parser.add_argument("--keep", type=Path, help="folder in which the checkpoints are kept")
    args = parser.parse_args()

    classes = args.classes or sorted({row["label"] for row in drum_rows()})
    groups = [classes[first :: -(-len(classes) // args.at_once)] for first in range(-(-len(classes) // args.at_once))]
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        for kit in args.kits:
            for group in groups:
                name = f"{kit} {args.validation_kit or ''} without {' '.join(group)}".replace(" ", "_")
                folder = (args.keep or Path(temporary)) / name
                for row in rows_of(folder, kit, group, args):
                    if not found:
                        print("| kit | unseen | clips | " + " | ".join(row["scores"]) + " | beyond |")
                        print("|---" * (len(row["scores"]) + 4) + "|", flush=True)
                    for name, score in row["scores"].items():
                        found.setdefault(name, []).append(score)
                    cells = " | ".join(f"{score:.2f}" for score in row["scores"].values())
                    print(f"| {kit} | {row['unseen']} | {row['clips']} | {cells} | {row['beyond']} |", flush=True)
    print(f"| mean | | | {' | '.join(f'{np.mean(scores):.2f}' for scores in found.values())} | |")


def rows_of(folder: Path, kit: str, group: Sequence[str], args: argparse.Namespace) -> list[dict]:
    """Train without a kit and a group of classes; of each of them that the kit has, the row of the table."""
    rows = [row for row in drum_rows() if kit == TEST_KIT or row["source"] != TEST_KIT]
    if not (folder / "run_summary.json").exists():
        sides = {kit: "test"} | ({args.validation_kit: "validation"} if args.validation_kit else {})
        train(folder, [row for row in rows if row["label"] not in group], sides, args.epochs)
    tagger = AudioTagger.from_pretrained(folder, "cpu")
    held_out = [row for row in rows if row["source"] == kit]
    files = [row["path"] for row in held_out]
    tags = list(tagger.tag_files(files, top_k=1))
    scores = {
        DISTANCE: np.array([of_file.novelty.distance for of_file in tags]),
        LARGEST: np.array([1 - of_file.labels[0].score for of_file in tags]),
    }
    if args.ways:
        held_out_kits = (kit, args.validation_kit)
        known = [row for row in rows if row["source"] not in held_out_kits and row["label"] not in group]
        scores |= other_scores(tagger, known, files)
    labels = np.array([row["label"] for row in held_out])
    beyond = np.array([of_file.novelty.is_beyond for of_file in tags])
    seen = ~np.isin(labels, group)
    found = []
    for unseen in group:
        is_unseen = labels == unseen
        if is_unseen.any():
            among = seen | is_unseen
            areas = {name: roc_auc_score(is_unseen[among], score[among]) for name, score in scores.items()}
            words = f"{beyond[is_unseen].mean():.0%} of unseen, {beyond[seen].mean():.0%} of seen"
            clips = f"{is_unseen.sum()} of {among.sum()}"
            found.append({"unseen": unseen, "clips": clips, "scores": areas, "beyond": words})
    return found


def drum_rows() -> list[dict]:
    """All drum clips, with full paths as `path`."""
    with open(DRUMS / "metadata.csv", encoding="utf-8", newline="") as file:
        return [row | {"path": str(DRUMS / row["file_name"])} for row in csv.DictReader(file)]


def train(folder: Path, rows: list[dict], sides: dict[str, str], epochs: int):
    """Run `ast-finetune` on the drums recipe with these clips, of which those of some kits are on other sides."""
    with tempfile.TemporaryDirectory() as place:
        table = Path(place, "clips.csv")
        with open(table, "w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["path", "label", "split"])
            writer.writerows((row["path"], row["label"], sides.get(row["source"], "train")) for row in rows)
        flags = {"dataset_name": table, "output_dir": folder, "num_train_epochs": epochs, "none_of_these": "true"}
        flags |= {"validation_split_name": "validation"} if "validation" in sides.values() else {}
        flags |= {"save_strategy": "no", "disable_tqdm": "true", "overwrite_output_dir": "true"}
        subprocess.run(
            [sys.executable, "-m", "finetune.run_finetune", RECIPE, *(f"--{name}={flags[name]}" for name in flags)],
            check=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL,
        )


def other_scores(tagger: AudioTagger, known: list[dict], files: list[str]) -> dict[str, np.ndarray]:
    """The same clips by other numbers of neighbours, by vectors of other layers, by Mahalanobis distance and by energy."""
    of_known, _ = layers_and_logits(tagger, [row["path"] for row in known])
    of_files, logits = layers_and_logits(tagger, files)
    scores = {"energy": -logsumexp(logits, axis=1)}
    pooled, middle = "before the classifier", f"layer {len(of_known) // 2}"
    places = {pooled: -1, middle: len(of_known) // 2 - 1}
    for count in NEIGHBOURS:
        scores[f"{count} neighbours"] = KnownClips(of_known[-1], count, 0.0).distances(of_files[-1])
    scores[middle] = KnownClips(of_known[places[middle]], 5, 0.0).distances(of_files[places[middle]])
    labels = np.array([row["label"] for row in known])
    for name, place in places.items():
        scores[f"Mahalanobis, {name}"] = mahalanobis(of_known[place], labels, of_files[place])
    return scores


def layers_and_logits(tagger: AudioTagger, files: list[str]) -> tuple[list[np.ndarray], np.ndarray]:
    """Of each file the means over the tokens after each layer, and last what the classifier reads; and the logits."""
    layers: list[list[np.ndarray]] = []
    logits = []
    for file in files:
        waveform = read_audio(file)[: tagger.window_samples]
        inputs = tagger.feature_extractor([waveform], sampling_rate=tagger.sampling_rate, return_tensors="pt")
        with torch.inference_mode():
            body = tagger.model.audio_spectrogram_transformer(**inputs, output_hidden_states=True, return_dict=True)
            logits.append(tagger.model.classifier(body.pooler_output)[0].double().numpy())
        means = [hidden.mean(dim=1)[0].numpy() for hidden in body.hidden_states[1:]]
        layers.append([*means, body.pooler_output[0].numpy()])
    return [np.stack(of_layer) for of_layer in zip(*layers, strict=True)], np.stack(logits)


def mahalanobis(known: np.ndarray, labels: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """The distance to the nearest class mean by one covariance of all classes, as Lee et al. 2018."""
    means = np.stack([known[labels == label].mean(axis=0) for label in np.unique(labels)])
    centred = known - means[np.unique(labels, return_inverse=True)[1]]
    shared = EmpiricalCovariance(assume_centered=True).fit(centred)
    of_class: list[Callable] = [shared.mahalanobis(vectors - mean) for mean in means]
    return np.min(of_class, axis=0)


if __name__ == "__main__":
    main()

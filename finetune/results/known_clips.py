"""What a checkpoint keeps of its training clips, by which clips unlike them are told: `--none_of_these`.

The clips are heard as they are scored: without augmentation, all windows of longer ones where scores are of all. The threshold is
the distance within which 95 % of the validation clips lie, as Sun et al. 2022 have 95 % of what is known taken for known.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import datasets
import numpy as np
import torch
from torch.utils.data import Subset

from modeling_ast import ASTFeatureExtractor, ASTForAudioClassification
from modeling_ast.tagging.none_of_these import FARTHEST, MOST_VECTORS, KnownClips

from ..clip_sets.clip_datasets import clip_set
from ..clip_sets.waveforms import ClipDataset
from ..scores.clip_scores import means_of_clips
from ..scores.scoring import pooled_vectors
from ..sources.labels import label_lists

NEIGHBOURS = 5
WITHIN = 0.95  # of the clips by which the threshold is chosen
DRAW_STREAM = 104  # sets these random numbers apart from others of the seed


class _Vectors(NamedTuple):
    """Of windows what the classifier reads, and the clip of each; and how many clips these are of."""

    vectors: np.ndarray
    clip_of_item: np.ndarray
    num_clips: int


def keep_known_clips(
    folder: Path,
    clips: dict[str, ClipDataset],
    windows: str,
    batch_size: int,
    device: torch.device,
    num_workers: int,
    seed: int,
) -> dict | None:
    """Write into a checkpoint folder the vectors of its training clips, and from which distance on a clip is none of these.

    Of a split with more windows than `MOST_VECTORS` as many are drawn, from each label alike as far as it has some.

    Args:
        folder (`Path`): a checkpoint, whole and with a classifier of clips.
        clips (`dict[str, ClipDataset]`): by side, as they were trained on and scored.
        windows (`str`): what is heard of clips that last longer than the model hears, where they are scored; see
            [`ClipSet.with_windows`].
        batch_size (`int`): windows in one pass of the model.
        device (`torch.device`): where to compute.
        num_workers (`int`): processes that decode.
        seed (`int`): of the draw.

    Returns:
        `None`, and nothing is written, if the model's vectors are not numbers, as those of one that diverged. Otherwise the
        section `none_of_these` of `evaluation`: `clips` that were kept, `windows`, `neighbours`, `threshold`, `chosen_on` in
        words; of the scored clips `scored`, and how many are `beyond`.
    """
    model = ASTForAudioClassification.from_pretrained(folder, dtype=torch.float32)
    extractor = ASTFeatureExtractor.from_pretrained(folder)
    rows = clips["train"].split
    if (
        isinstance(rows, datasets.Dataset) and len(rows) > MOST_VECTORS
    ):  # of millions of files not each is looked at for its length
        rows = rows.select(drawn_items(label_lists(rows), MOST_VECTORS, seed))
    trained = clip_set(rows).with_windows(windows)

    def vectors_of(dataset: ClipDataset) -> _Vectors:
        items = drawn_items(dataset.label_lists(), MOST_VECTORS, seed)
        vectors = pooled_vectors(model, extractor, Subset(dataset, items.tolist()), batch_size, device, num_workers)
        of_item = np.arange(len(dataset)) if dataset.clip_of_item is None else dataset.clip_of_item
        return _Vectors(vectors, of_item[items], len(np.unique(of_item[items])))

    train = vectors_of(trained.dataset(extractor, reader=clips["train"].reader))
    if not np.isfinite(train.vectors).all():
        return None
    neighbours = max(min(NEIGHBOURS, len(train.vectors) - 1), 1)
    known = KnownClips(train.vectors, neighbours, FARTHEST).as_kept()
    if "validation" in clips:
        choice = vectors_of(clips["validation"])
        distances, words = distances_of_clips(known, choice), f"{choice.num_clips} validation clips"
    else:
        distances = distances_of_clips(known, train, left_out=True)
        words = "the training clips, each held against the others, as there is no validation split"
    if not np.isfinite(distances).all():
        return None
    threshold = min(float(np.quantile(distances, WITHIN)), FARTHEST)
    known = replace(known, threshold=threshold)
    known.save(folder)
    scored = vectors_of(clips["eval"])
    beyond = distances_of_clips(known, scored) > known.threshold
    return {
        "clips": train.num_clips,
        "windows": len(train.vectors),
        "neighbours": neighbours,
        "threshold": known.threshold,
        "chosen_on": words,
        "scored": scored.num_clips,
        "beyond": int(beyond.sum()),
    }


def distances_of_clips(known: KnownClips, found: _Vectors, left_out: bool = False) -> np.ndarray:
    """Measure how far clips are: the mean over their windows.

    Args:
        known ([`KnownClips`]): the training clips.
        found (`_Vectors`): of the clips to measure.
        left_out (`bool`, defaults to `False`): whether they are the training clips themselves, each of which is held against
            those of other clips, as far as there are enough.

    Returns:
        `np.ndarray` of shape `(clips,)`.
    """
    own = None
    if left_out:
        own = found.clip_of_item[:, None] == found.clip_of_item[None]
        own[(~own).sum(axis=1) < known.neighbours] = False
    return means_of_clips(known.distances(found.vectors, own), found.clip_of_item)


def drawn_items(labels_of_items: Sequence[Sequence[int]], most: int, seed: int) -> np.ndarray:
    """Choose which windows of a split are looked at: all, or one of each label after the other until there are enough.

    Args:
        labels_of_items (sequence of sequences of `int`): label indices of each window, or clip; those without any count as a label.
        most (`int`): how many at most.
        seed (`int`): of the order within a label.

    Returns:
        `np.ndarray`: places, ascending.
    """
    if len(labels_of_items) <= most:
        return np.arange(len(labels_of_items))
    number = len(labels_of_items)
    order = np.random.default_rng((DRAW_STREAM, seed)).permutation(number)
    rank = np.full(number, number)  # the lowest that a window has among those of one of its labels
    seen: Counter[int | None] = Counter()
    for item in order.tolist():
        for label in labels_of_items[item] or (None,):
            rank[item] = min(rank[item], seen[label])
            seen[label] += 1
    return np.sort(order[np.argsort(rank[order], kind="stable")[:most]])

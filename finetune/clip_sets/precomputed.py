"""Clips whose log-mel features were computed beforehand, in place of audio.

They are read as they were stored, memory-mapped, and cut to what the model hears; padding, masks, normalisation, noise
and roll follow on the training device as for audio. What works on waveforms has no place here.
"""

import hashlib
from collections import Counter
from pathlib import Path

import datasets
import numpy as np

from modeling_ast import ASTFeatureExtractor
from modeling_ast.audio import AudioError
from modeling_ast.features.kaldi import SMALLEST_ENERGY
from modeling_ast.features.padding import MIN_FRAMES

from ..augmentations.augmentation import Augmentation
from ..sources.labels import label_lists, label_of, share_lists
from ..sources.stored_features import StoredFeatures
from .waveforms import ASTDataset

# Raw values reach from the floor of about -16, which some of Kaldi's narrowest filters always give, up to 5 or more;
# normalised ones hardly leave -2 to 2.
LARGEST_NORMALIZED_VALUE = 3.0
LOWEST_VALUE = float(np.log(SMALLEST_ENERGY))  # of the feature extractor


class PrecomputedDataset(ASTDataset):
    """Clips of a split as finished features, with their targets.

    Asked for like items of [`ASTDataset`]; they hold `"features"`, float32 of shape `(frames, mel bins)`, in place of
    `"waveform"`.

    Args:
        split (`datasets.Dataset`): with the columns `"features"`, `"features_from"` and `"label"`.
        feature_extractor ([`ASTFeatureExtractor`]): gives the mel bins and the frames after which a clip is cut.
        augmentation ([`Augmentation`], *optional*): what to draw for items asked for with an epoch; without mixup, speed
            and gain.
        seed (`int`, defaults to 0): seed of these draws.
        binary_targets (`bool`, defaults to `False`): vectors for single-label clips too.

    Raises:
        ValueError: for an augmentation of waveforms.
    """

    def __init__(
        self,
        split: datasets.Dataset,
        feature_extractor: ASTFeatureExtractor,
        augmentation: Augmentation | None = None,
        seed: int = 0,
        *,
        binary_targets: bool = False,
    ):
        if augmentation is not None:
            augmentation.refuse_without_waveforms()
        longest = feature_extractor.max_samples
        super().__init__(
            split, feature_extractor.audio_reader(), longest, augmentation, seed, binary_targets=binary_targets
        )
        self.num_mel_bins, self.max_length = feature_extractor.num_mel_bins, feature_extractor.max_length
        self.stored = StoredFeatures(split)

    def __getitem__(self, key: int | tuple[int, int] | tuple[int, int, int]) -> dict:
        epoch, index, *visit = key if isinstance(key, tuple) else (None, key)
        label = label_of(self.labels_alone[index])  # a row of the whole split holds the features as Python lists
        item = {"features": self.features(index), "label": self._vector(label) if self.vector_targets else label}
        if self.augmentation is None or epoch is None:
            return item
        return item | {"draws": self.augmentation.draw(self.seed, epoch, index, len(self), *visit)}

    def name(self, index: int) -> str:
        """What to call a clip in a message."""
        return self.stored.name(index)

    def _clip(self, index: int) -> np.ndarray:
        return self.features(index)

    def features(self, index: int) -> np.ndarray:
        """A clip's features as the model hears them, `(frames, mel bins)`, not normalised."""
        return self.stored.read(index, self.num_mel_bins, self.max_length)

    def lengths(self) -> np.ndarray:
        """Frames of every clip as the model hears them, told without reading them: `(clips,)`."""
        return np.array([min(len(self.stored.as_stored(index)), self.max_length) for index in range(len(self))])


def look_at_features(features: np.ndarray, name: str) -> str | None:
    """What is odd, though not impossible, about a clip's features; `None` if nothing is.

    Args:
        features (`np.ndarray` of shape `(frames, mel bins)`): raw log-mel values.
        name (`str`): what to call the clip in a message.

    Returns:
        What it has, in words, under which clips are counted.

    Raises:
        AudioError: if they look normalised already.
    """
    lowest, highest = features.min(), features.max()
    if max(-lowest, highest) < LARGEST_NORMALIZED_VALUE:
        raise AudioError(
            f"{name} has values from {lowest:.2f} to {highest:.2f}, which look normalised already, expected raw log-mel "
            f"values, which reach from about {LOWEST_VALUE:.0f} to 5 or more. Store them before normalising; the "
            "normalisation is measured on them in training."
        )
    if lowest < LOWEST_VALUE - 0.1:
        return (
            f"values below {LOWEST_VALUE:.2f}, the least that the feature extractor of the checkpoint computes from "
            "audio: there the model will hear something else than it was trained on"
        )
    if len(features) < MIN_FRAMES:
        return f"less than {MIN_FRAMES} frames, one patch of the model: they are padded"
    return None


def features_in_two_splits(splits: datasets.DatasetDict) -> dict[str, dict[int, bytes]]:
    """Digest by row of the features of each split that those of another split may equal.

    Only those of one size with two equal frames are read through.
    """
    stored = {side: StoredFeatures(split) for side, split in splits.items()}
    signs = {side: [of_side.sign(row) for row in range(len(of_side))] for side, of_side in stored.items()}
    num_splits = Counter(sign for of_side in signs.values() for sign in set(of_side))
    return {
        side: {row: stored[side].digest(row) for row, sign in enumerate(of_side) if num_splits[sign] > 1}
        for side, of_side in signs.items()
    }


def digest_of_features(split: datasets.Dataset) -> str:
    """SHA-256 over the clips' files, or sizes and some of their values, and labels, in their order.

    Where files lie does not count, and not all is read: see [`StoredFeatures.sign`].
    """
    digest, stored = hashlib.sha256(), StoredFeatures(split)
    for index, labels in enumerate(share_lists(split) or label_lists(split)):
        file = stored.file(index)
        sign = stored.sign(index)[1] if file is None else Path(file).name.encode()
        digest.update(sign + f"\0{stored.size(index)} {labels}\0".encode())
    return digest.hexdigest()

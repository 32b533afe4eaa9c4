"""Clips whose log-mel features were computed beforehand, in place of audio.

They are read as they were stored, memory-mapped, and cut to what the model hears; padding, masks, normalisation, noise
and roll follow on the training device as for audio. What works on waveforms has no place here.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Self

import datasets
import numpy as np

from modeling_ast import ASTFeatureExtractor
from modeling_ast.audio import AudioError, AudioReader
from modeling_ast.features.kaldi import SMALLEST_ENERGY, num_samples
from modeling_ast.features.padding import MIN_FRAMES

from ..augmentations.augmentation import Augmentation
from ..sources.data_errors import DataError
from ..sources.labels import label_lists, share_lists
from ..sources.stored_features import NAME_COLUMN, StoredFeatures
from .clip_set import Checked, Checks
from .row_clips import RowClips, advice_on_rows, without_shared_clips
from .split_checks import check_labels, listed, places_to_check
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

    hears_audio: ClassVar[bool] = False
    keeps_clips: ClassVar[bool] = False

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
        return self._item_of_features(key, self.features(key[1] if isinstance(key, tuple) else key))

    def name(self, index: int) -> str:
        """See [`ClipDataset.name`].

        Args:
            index (`int`): place of the clip.

        Returns:
            Its file, or its row.
        """
        return self.stored.name(index)

    def clip(self, index: int) -> np.ndarray:
        """See [`ClipDataset.clip`].

        Args:
            index (`int`): place of the clip.

        Returns:
            `np.ndarray`: see [`PrecomputedDataset.features`].
        """
        return self.features(index)

    def features(self, index: int) -> np.ndarray:
        """Read a clip's features as the model hears them, not normalised.

        Args:
            index (`int`): place of the clip.

        Returns:
            `np.ndarray` of shape `(frames, mel bins)`, float32.

        Raises:
            AudioError: for another shape or type, no frames, or NaN.
        """
        return self.stored.read(index, self.num_mel_bins, self.max_length)

    def lengths(self) -> np.ndarray:
        """See [`ClipDataset.lengths`]; told without reading the features.

        Returns:
            `np.ndarray` of shape `(clips,)`, seconds.
        """
        frames = [min(len(self.stored.as_stored(index)), self.max_length) for index in range(len(self))]
        return np.array([num_samples(number, self.sampling_rate) for number in frames]) / self.sampling_rate


class FeatureClips(RowClips):
    """Clips that are finished features.

    Args:
        rows (`datasets.Dataset`): with the columns `"features"`, `"features_from"` and `"label"`.
    """

    @cached_property
    def stored(self) -> StoredFeatures:
        """The features of the clips, read one by one."""
        return StoredFeatures(self.rows)

    def name(self, index: int) -> str:
        """Tell what to call a clip in a message.

        Args:
            index (`int`): place of the clip.

        Returns:
            Its file, or its row.
        """
        return self.stored.name(index)

    def names(self) -> Iterator[str]:
        """Tell by what a table lists the clips.

        Returns:
            The file or row of each clip, one after the other.
        """
        return iter(self.rows[NAME_COLUMN][:])

    def digest(self) -> str:
        """See [`ClipSet.digest`]; not all is read, see [`StoredFeatures.sign`].

        Returns:
            Hexadecimal SHA-256 over the clips' files, or sizes and some of their values, and labels, in their order.
        """
        digest, stored = hashlib.sha256(), self.stored
        for index, labels in enumerate(share_lists(self.rows) or label_lists(self.rows)):
            file = stored.file(index)
            sign = stored.sign(index)[1] if file is None else Path(file).name.encode()
            digest.update(sign + f"\0{stored.size(index)} {labels}\0".encode())
        return digest.hexdigest()

    def dataset(
        self,
        feature_extractor: ASTFeatureExtractor,
        augmentation: Augmentation | None = None,
        seed: int = 0,
        *,
        binary_targets: bool = False,
        reader: AudioReader | None = None,
    ) -> PrecomputedDataset:
        """See [`ClipSet.dataset`]; there are no audio files, so `reader` has no effect.

        Returns:
            [`PrecomputedDataset`].

        Raises:
            ValueError: for an augmentation of waveforms.
        """
        return PrecomputedDataset(self.rows, feature_extractor, augmentation, seed, binary_targets=binary_targets)

    @classmethod
    def check(cls, splits: dict[str, Self], checks: Checks) -> Checked:
        """See [`ClipSet.check`]: shape, type and values of up to 200 clips, labels, and clips that are in two splits.

        Args:
            splits (`dict[str, FeatureClips]`): of the run, by side.
            checks ([`Checks`]): its `drop_duplicate_audio` is obeyed.

        Returns:
            [`Checked`].

        Raises:
            DataError: as of [`check_splits`](finetune.clip_sets.audio_clips.check_splits); for features of another shape
                or type, with NaN, or normalised already.
        """
        notes = [
            *advice_on_rows(splits, checks),
            f"precomputed features of the column {checks.data.features_column_name!r}",
            *_look_at_splits(splits, checks.feature_extractor),
        ]
        splits, more_notes = without_shared_clips(splits, checks.data)
        return Checked(splits, [*notes, *more_notes, *check_labels(splits)])

    @classmethod
    def digests_in_two_splits(cls, splits: dict[str, Self]) -> dict[str, dict[int, bytes]]:
        """See [`RowClips.digests_in_two_splits`]: only features of one size with two equal frames are read through.

        Args:
            splits (`dict[str, FeatureClips]`): of the run, by side.

        Returns:
            By side, the digest of each of these clips by its place.
        """
        signs = {side: [split.stored.sign(row) for row in range(len(split))] for side, split in splits.items()}
        num_splits = Counter(sign for of_side in signs.values() for sign in set(of_side))
        return {
            side: {row: splits[side].stored.digest(row) for row, sign in enumerate(of_side) if num_splits[sign] > 1}
            for side, of_side in signs.items()
        }


def _look_at_splits(splits: dict[str, FeatureClips], feature_extractor: ASTFeatureExtractor) -> list[str]:
    """Refuse features that are none of a sample of the clips; say in words what is odd about others."""
    num_mel_bins, max_length = feature_extractor.num_mel_bins, feature_extractor.max_length
    places, faults, oddities, num_longer = places_to_check(splits), [], [], 0
    for side, row in places:
        stored = splits[side].stored
        try:
            features = stored.read(row, num_mel_bins, max_length)
            oddities.append(look_at_features(features, stored.name(row)))
            num_longer += len(stored.as_stored(row)) > max_length
        except AudioError as error:
            faults.append(str(error))
    if faults:
        raise DataError(f"{len(faults)} of {len(places)} clips looked at cannot be used:{listed(faults)}")
    notes = [
        f"{count} of {len(places)} clips looked at have {oddity}"
        for oddity, count in Counter(filter(None, oddities)).items()
    ]
    if num_longer:
        notes.append(
            f"{num_longer} of {len(places)} clips looked at have more than the {max_length} frames that the model hears; the "
            "rest of them is cut"
        )
    return notes


def look_at_features(features: np.ndarray, name: str) -> str | None:
    """Say what is odd, though not impossible, about a clip's features.

    Args:
        features (`np.ndarray` of shape `(frames, mel bins)`): raw log-mel values.
        name (`str`): what to call the clip in a message.

    Returns:
        What it has, in words, under which clips are counted; `None` if nothing is odd.

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

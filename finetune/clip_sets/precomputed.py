"""Clips whose log-mel features were computed beforehand, in place of audio.

They are read as they were stored, memory-mapped, and cut to what the model hears; padding, masks, normalisation, noise
and roll follow on the training device as for audio. What works on waveforms has no place here.
"""

import hashlib
import os
from collections import Counter
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from modeling_ast import ASTFeatureExtractor
from modeling_ast.audio import AudioError
from modeling_ast.feature_extraction_ast import MIN_FRAMES
from modeling_ast.log_mel import SMALLEST_ENERGY, num_samples

from ..augmentation import Augmentation, refuse_without_waveforms
from ..data import ASTDataset
from ..sources.labels import label_lists

FEATURES_COLUMN = "features"
NAME_COLUMN = "features_from"  # of each clip in messages: its file, or its row
# Raw values reach from the floor of about -16, which some of Kaldi's narrowest filters always give, up to 5 or more;
# normalised ones hardly leave -2 to 2.
LARGEST_NORMALIZED_VALUE = 3.0
LOWEST_VALUE = float(np.log(SMALLEST_ENERGY))  # of the feature extractor
_REMEDY = "Compute its features again, or remove it."
_LISTS = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)


def is_precomputed(split: datasets.Dataset) -> bool:
    """Whether the clips of a split of [`load_splits`] are finished features."""
    return NAME_COLUMN in split.column_names  # a column "features" may also come along with audio


class StoredFeatures:
    """The column of features of a split, read one clip at a time.

    Args:
        split (`datasets.Dataset`): with the columns `"features"` (nested lists or `datasets.Array2D`, or paths of .npy
            files) and `"features_from"`, what to call each clip.
    """

    def __init__(self, split: datasets.Dataset):
        # One row of an Arrow table is a view of the file it is mapped from.
        self.rows = split.select_columns([FEATURES_COLUMN, NAME_COLUMN]).with_format("arrow")

    def __len__(self) -> int:
        return len(self.rows)

    def name(self, index: int) -> str:
        """What to call a clip in a message."""
        return self.rows[index][NAME_COLUMN][0].as_py()

    def file(self, index: int) -> str | None:
        """Path of a clip's .npy file, `None` for features that are in the table."""
        cell = self.rows[index][FEATURES_COLUMN][0]
        return cell.as_py() if _is_text(cell.type) else None

    def as_stored(self, index: int) -> np.ndarray:
        """A clip's array of any shape and type, not yet read where it can be mapped.

        Raises:
            AudioError: if there is none.
        """
        file = self.file(index)
        if file is not None:
            return _mapped(file)
        return _as_array(self.rows[index][FEATURES_COLUMN].chunk(0), self.name(index))

    def read(self, index: int, num_mel_bins: int, max_length: int | None = None) -> np.ndarray:
        """Read a clip's features and refuse what cannot be raw log-mel features of a model.

        Args:
            index (`int`): the clip.
            num_mel_bins (`int`): mel bins that the model hears.
            max_length (`int`, *optional*): frames after which the clip is cut, and beyond which nothing is looked at.

        Returns:
            `np.ndarray` of shape `(frames, num_mel_bins)`, float32.

        Raises:
            AudioError: for another shape or type, no frames, or NaN; it names the file or row.
        """
        stored = self.as_stored(index)
        refuse_shape(stored, self.name(index), num_mel_bins)
        with np.errstate(over="ignore"):  # found as infinite below
            features = np.array(stored[:max_length], dtype=np.float32)
        if not np.isfinite(features).all():
            frame = int(np.argmin(np.isfinite(features).all(axis=1)))
            raise AudioError(
                f"{self.name(index)} holds NaN or infinite values, the first in frame {frame}. Compute its features again, "
                "or remove it."
            )
        return features

    def size(self, index: int) -> int:
        """Bytes of a clip's features."""
        file = self.file(index)
        return self.as_stored(index).nbytes if file is None else os.path.getsize(file)

    def sign(self, index: int) -> tuple[int, bytes]:
        """Size, first and middle frame of a clip's features, which differ between almost all clips and are read quickly.

        Features of fixed length all have one size, by which alone no two could be told apart.
        """
        stored = self.as_stored(index)
        return stored.nbytes, b"".join(stored[place].tobytes() for place in (0, len(stored) // 2) if len(stored))

    def digest(self, index: int) -> bytes:
        """SHA-256 of a clip's values, type and shape."""
        stored = self.as_stored(index)
        digest = hashlib.sha256(f"{stored.dtype} {stored.shape}".encode())
        digest.update(np.ascontiguousarray(stored).tobytes())
        return digest.digest()


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _mapped(file: str) -> np.ndarray:
    try:
        stored = np.load(file, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:  # what NumPy raises for a strange, a missing and an empty file
        raise AudioError(
            f"{file} cannot be read as a .npy file of numbers ({error}). Save its features with numpy.save, or correct or "
            "remove its row."
        ) from error
    if not isinstance(stored, np.ndarray):
        stored.close()
        raise AudioError(f"{file} is an archive of arrays. Save one array a file, with numpy.save.")
    return stored


def _as_array(cell: pa.Array, name: str) -> np.ndarray:
    """The nested lists of one Arrow row as an array of as many dimensions."""
    values, shape = cell.storage if isinstance(cell, pa.ExtensionArray) else cell, []
    while any(is_kind(values.type) for is_kind in _LISTS):
        lengths = pc.unique(pc.list_value_length(values))
        if lengths.null_count:
            raise AudioError(f"{name} has {'frames' if shape else 'a cell'} without anything in it. {_REMEDY}")
        if len(lengths) > 1:
            raise AudioError(
                f"{name} has frames of {lengths[0]} and of {lengths[1]} values, expected as many in each. {_REMEDY}"
            )
        shape.append(lengths[0].as_py() if len(lengths) else 0)
        values = values.flatten()
    if not shape or not (pa.types.is_primitive(values.type) or pa.types.is_null(values.type)):
        raise AudioError(
            f"{name} holds {cell.type}, expected features of shape (frames, mel bins), or the path of a .npy file. Name "
            "another column with --features_column_name."
        )
    return values.to_numpy(zero_copy_only=False).reshape(shape)


def refuse_shape(stored: np.ndarray, name: str, num_mel_bins: int | None = None):
    """Refuse what cannot be features of a clip.

    Args:
        stored (`np.ndarray`): as it was given.
        name (`str`): what to call the clip in a message.
        num_mel_bins (`int`, *optional*): mel bins that the model hears, where that is known.

    Raises:
        AudioError: for another number of dimensions than two, no frames, another number of mel bins, or values that are
            no floating-point numbers.
    """
    shape = f"{name} has shape {stored.shape}, expected (frames, {num_mel_bins or 'mel bins'})"
    if not stored.size:
        raise AudioError(f"{name} is empty (shape {stored.shape}), expected one frame or more. {_REMEDY}")
    if stored.ndim != 2:
        squeezed = tuple(size for size in stored.shape if size > 1)
        hint = "Save features.squeeze(), one clip at a time" if len(squeezed) == 2 else "Save one array for each clip"
        raise AudioError(f"{shape}. {hint}.")
    if num_mel_bins is not None and stored.shape[1] != num_mel_bins:
        if stored.shape[0] == num_mel_bins:
            raise AudioError(f"{shape}: mel bins and frames are the other way round. Save features.T.")
        raise AudioError(
            f"{shape}, as this model hears {num_mel_bins} mel bins. Compute the features with {num_mel_bins}, or train "
            f"one with --num_mel_bins {stored.shape[1]}."
        )
    if not np.issubdtype(stored.dtype, np.floating):
        raise AudioError(
            f"{name} holds {stored.dtype} values, expected floating-point numbers: the natural logarithm of mel energies. "
            f"{_REMEDY}"
        )


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
            refuse_without_waveforms(augmentation)
        sampling_rate, max_length = feature_extractor.sampling_rate, feature_extractor.max_length
        longest = num_samples(max_length, sampling_rate)
        super().__init__(split, sampling_rate, longest, augmentation, seed, binary_targets=binary_targets)
        self.num_mel_bins, self.max_length = feature_extractor.num_mel_bins, max_length
        self.stored = StoredFeatures(split)

    def __getitem__(self, key: int | tuple[int, int] | tuple[int, int, int]) -> dict:
        epoch, index, *visit = key if isinstance(key, tuple) else (None, key)
        label = self.labels_alone[index]["label"]  # a row of the whole split holds the features as Python lists
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
    for index, labels in enumerate(label_lists(split)):
        file = stored.file(index)
        sign = stored.sign(index)[1] if file is None else Path(file).name.encode()
        digest.update(sign + f"\0{stored.size(index)} {labels}\0".encode())
    return digest.hexdigest()

"""Log-mel features that were computed beforehand, read one clip at a time from a column of nested lists or of .npy files."""

import hashlib
import os
from dataclasses import dataclass

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from modeling_ast.audio import AudioError
from modeling_ast.system.regular_files import refuse_special

FEATURES_COLUMN = "features"
NAME_COLUMN = "features_from"  # of each clip in messages: its file, or its row
REMEDY = "Compute its features again, or remove it."
_LISTS = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)


def is_precomputed(split: datasets.Dataset) -> bool:
    """Tell whether the clips of a split are finished features.

    Args:
        split (`datasets.Dataset`): of [`load_splits`].

    Returns:
        `True` if they are, `False` if they are audio.
    """
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
        """Tell what to call a clip in a message.

        Args:
            index (`int`): place of the clip.

        Returns:
            Its file, or its row.
        """
        return self.rows[index][NAME_COLUMN][0].as_py()

    def file(self, index: int) -> str | None:
        """Tell where a clip's features are.

        Args:
            index (`int`): place of the clip.

        Returns:
            Path of its .npy file, `None` for features that are in the table.
        """
        cell = self.rows[index][FEATURES_COLUMN][0]
        return cell.as_py() if _is_text(cell.type) else None

    def as_stored(self, index: int) -> np.ndarray:
        """Open a clip's array, which is not yet read where it can be mapped.

        Args:
            index (`int`): place of the clip.

        Returns:
            `np.ndarray` of any shape and type.

        Raises:
            AudioError: if there is none.
        """
        file = self.file(index)
        if file is not None:
            return _mapped(file)
        return array_of_cell(self.rows[index][FEATURES_COLUMN].chunk(0), self.name(index))

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
        """Tell how large a clip's features are.

        Args:
            index (`int`): place of the clip.

        Returns:
            Bytes of its file, or of its values in the table.
        """
        file = self.file(index)
        return self.as_stored(index).nbytes if file is None else os.path.getsize(file)

    def sign(self, index: int) -> tuple[int, bytes]:
        """Read what differs between almost all clips and is read quickly.

        Features of fixed length all have one size, by which alone no two could be told apart.

        Args:
            index (`int`): place of the clip.

        Returns:
            Bytes of its array, and its first and middle frame.
        """
        stored = self.as_stored(index)
        return stored.nbytes, b"".join(stored[place].tobytes() for place in (0, len(stored) // 2) if len(stored))

    def digest(self, index: int) -> bytes:
        """Compute the SHA-256 of a clip's values, type and shape.

        Args:
            index (`int`): place of the clip.

        Returns:
            32 bytes.
        """
        stored = self.as_stored(index)
        digest = hashlib.sha256(f"{stored.dtype} {stored.shape}".encode())
        digest.update(np.ascontiguousarray(stored).tobytes())
        return digest.digest()


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _mapped(file: str) -> np.ndarray:
    try:
        refuse_special(file)
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


@dataclass(frozen=True)
class NestedLists:
    """What the lists of a cell are, in messages.

    Args:
        rows (`str`): what the outer list holds.
        values (`str`): what the inner ones hold.
        expected (`str`): what a cell should hold, and what to type.
        remedy (`str`): what to do about a cell that is not whole.
    """

    rows: str
    values: str
    expected: str
    remedy: str


FEATURES = NestedLists(
    "frames",
    "values",
    "features of shape (frames, mel bins), or the path of a .npy file. Name another column with --features_column_name.",
    REMEDY,
)


def array_of_cell(cell: pa.Array, name: str, lists: NestedLists = FEATURES) -> np.ndarray:
    """Read the nested lists of one Arrow row as an array.

    Args:
        cell (`pa.Array` of length 1): lists of any depth.
        name (`str`): what to call it in a message.
        lists ([`NestedLists`], *optional*): what they are.

    Returns:
        `np.ndarray` of as many dimensions as the lists are deep.

    Raises:
        AudioError: if one is missing, they are of different lengths, or hold no numbers.
    """
    values, shape = cell.storage if isinstance(cell, pa.ExtensionArray) else cell, []
    while any(is_kind(values.type) for is_kind in _LISTS):
        lengths = pc.unique(pc.list_value_length(values))
        if lengths.null_count:
            raise AudioError(f"{name} has {lists.rows if shape else 'a cell'} without anything in it. {lists.remedy}")
        if len(lengths) > 1:
            raise AudioError(
                f"{name} has {lists.rows} of {lengths[0]} and of {lengths[1]} {lists.values}, expected as many in each. "
                f"{lists.remedy}"
            )
        shape.append(lengths[0].as_py() if len(lengths) else 0)
        values = values.flatten()
    if not shape or not (pa.types.is_primitive(values.type) or pa.types.is_null(values.type)):
        raise AudioError(f"{name} holds {cell.type}, expected {lists.expected}")
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
        raise AudioError(f"{name} is empty (shape {stored.shape}), expected one frame or more. {REMEDY}")
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
            f"{REMEDY}"
        )

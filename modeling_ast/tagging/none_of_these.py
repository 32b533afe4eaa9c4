"""Clips unlike all that a model was trained on, told by how far their vectors are from those of the training clips.

The vector of a window is what the classifier reads: the mean of its two class tokens, after the last LayerNorm. Its distance is
the Euclidean one to its k-th nearest training vector, all at length 1: from 0, the same, to 2, the opposite. Beyond a threshold,
which was chosen when the model was trained, a clip is none of what the labels are about.

Source: Sun, Ming, Zhu and Li 2022, "Out-of-Distribution Detection with Deep Nearest Neighbors" (ICML), without its search index.
"""

import math
import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..checkpoints.fields import CheckpointError
from ..checkpoints.weights import open_weights
from ..system.atomic_files import give_usual_mode

KNOWN_CLIPS_NAME = "none_of_these.safetensors"  # beside the weights
NONE_OF_THESE = "none of these"
FARTHEST = 2.0
MOST_VECTORS = 5_000  # of training windows that are kept: 8 MB with vectors of 768 numbers
AT_ONCE = 1_000  # vectors whose distances are computed at a time
ON, OFF = "on", "off"  # in place of a distance


@dataclass(frozen=True)
class KnownClips:
    """The vectors of a model's training clips, and from which distance on a clip is none of these.

    Args:
        vectors (`np.ndarray` of shape `(windows, hidden)`): of the training clips, of any length.
        neighbours (`int`): which of the nearest vectors a distance is to, counted from 1.
        threshold (`float`): the largest distance of a clip that is like them.
    """

    vectors: np.ndarray
    neighbours: int
    threshold: float

    def __post_init__(self):
        object.__setattr__(self, "vectors", _of_length_one(self.vectors))

    def distances(self, vectors: np.ndarray, own: np.ndarray | None = None) -> np.ndarray:
        """Measure how far vectors are from the training clips.

        Args:
            vectors (`np.ndarray` of shape `(n, hidden)`): of windows, before the classifier.
            own (`np.ndarray` of shape `(n, windows)` and type bool, *optional*): which training vectors a vector is not
                compared with; at least `neighbours` have to be left.

        Returns:
            `np.ndarray` of shape `(n,)`, float64, from 0 to 2; NaN for vectors that are not numbers.
        """
        found = np.empty(len(vectors))
        for first in range(0, len(vectors), AT_ONCE):
            part = slice(first, first + AT_ONCE)
            cosines = _of_length_one(vectors[part]) @ self.vectors.T
            if own is not None:
                cosines[own[part]] = -np.inf
            nearest = np.partition(cosines, -self.neighbours, axis=1)[:, -self.neighbours]
            found[part] = np.sqrt(np.maximum(2 - 2 * nearest, 0))
        return found

    def as_kept(self) -> "KnownClips":
        """Give them as they are read again when they are saved: half precision moves them a little.

        Returns:
            [`KnownClips`].
        """
        return replace(self, vectors=self.vectors.astype(np.float16))

    def save(self, folder: str | os.PathLike) -> Path:
        """Write them beside the weights of their model, as float16.

        Args:
            folder (`str` or `os.PathLike`): of the checkpoint.

        Returns:
            `Path` of the file.

        Raises:
            ValueError: if the vectors are not numbers or the threshold is no distance: nobody could load that.
        """
        if not np.isfinite(self.vectors).all() or not _is_distance(repr(float(self.threshold))):
            raise ValueError(
                f"threshold={self.threshold} and vectors, expected numbers, and a threshold from 0 to {FARTHEST:g}. The model that "
                "gives others diverged: train it with a lower --learning_rate."
            )
        from safetensors.numpy import save_file

        path = Path(folder) / KNOWN_CLIPS_NAME
        settings = {"neighbours": str(self.neighbours), "threshold": repr(float(self.threshold))}
        save_file({"vectors": self.vectors.astype(np.float16)}, path, settings)
        give_usual_mode(path)
        return path

    @classmethod
    def load(cls, path: str | os.PathLike, hidden_size: int) -> "KnownClips":
        """Read what [`KnownClips.save`] wrote.

        Args:
            path (`str` or `os.PathLike`): the file.
            hidden_size (`int`): of the model.

        Returns:
            [`KnownClips`].

        Raises:
            CheckpointError: if it is damaged, or of another model.
        """
        with open_weights(path) as file:
            names, settings = list(file.keys()), file.metadata() or {}
            if names != ["vectors"]:
                raise _unusable(path, f"holds {', '.join(map(repr, names[:3])) or 'nothing'} in place of 'vectors'")
            kept = file.get_slice("vectors")
            shape, dtype = tuple(kept.get_shape()), kept.get_dtype()
            if len(shape) != 2 or not 1 <= shape[0] <= MOST_VECTORS or dtype != "F16":
                raise _unusable(path, f"holds {dtype} of shape {shape}, expected up to {MOST_VECTORS} rows of F16")
            if shape[1] != hidden_size:
                raise _unusable(path, f"has vectors of {shape[1]} numbers, and those of the model have {hidden_size}")
            vectors = file.get_tensor("vectors")
        neighbours, threshold = settings.get("neighbours", ""), settings.get("threshold", "")
        if not np.isfinite(vectors).all():
            raise _unusable(path, "holds vectors that are not numbers")
        if not neighbours.isdecimal() or len(neighbours) > 6 or not 1 <= int(neighbours) <= len(vectors):
            raise _unusable(path, f"says neighbours={neighbours!r:.20}, expected 1 to {len(vectors)}")
        if not _is_distance(threshold):
            raise _unusable(path, f"says threshold={threshold!r:.20}, expected 0 to {FARTHEST:g}")
        return cls(vectors, int(neighbours), float(threshold))


def load_known_clips(
    model_name_or_path: str | os.PathLike, hidden_size: int, revision: str | None = None
) -> KnownClips | None:
    """Load what a checkpoint keeps of its training clips.

    Args:
        model_name_or_path (`str` or `os.PathLike`): a folder, or a Hub id such as `user/name`.
        hidden_size (`int`): of the model.
        revision (`str`, *optional*): branch, tag or commit of a model of the Hub, if not its main branch.

    Returns:
        [`KnownClips`], or `None` if it keeps nothing.

    Raises:
        CheckpointError: see [`KnownClips.load`].
    """
    path = Path(model_name_or_path) / KNOWN_CLIPS_NAME
    if Path(model_name_or_path).is_dir():
        return KnownClips.load(path, hidden_size) if path.is_file() else None
    from transformers.utils import cached_file

    from ..system.hub_answers import hub_answers

    quiet = ("missing_entries", "connection_errors", "gated_repo")
    with hub_answers():
        found = cached_file(
            str(model_name_or_path),
            KNOWN_CLIPS_NAME,
            revision=revision,
            **{f"_raise_exceptions_for_{what}": False for what in quiet},
        )
    return None if found is None else KnownClips.load(found, hidden_size)


def parse_none_of_these(text: str) -> str | float:
    """Read what a user says of clips that are none of the labels.

    Args:
        text (`str`): `on`, `off`, or a distance.

    Returns:
        `ON`, `OFF`, or the distance.

    Raises:
        ValueError: if it is none of these.
    """
    if text in (ON, OFF):
        return text
    if not _is_distance(text):
        raise ValueError(f"{text!r} is neither {ON} nor {OFF} nor a distance from 0 to {FARTHEST:g}")
    return float(text)


def _is_distance(text: str) -> bool:
    try:
        return math.isfinite(float(text)) and 0 <= float(text) <= FARTHEST
    except ValueError:
        return False


def _of_length_one(vectors: np.ndarray) -> np.ndarray:
    vectors = np.asarray(vectors, np.float64)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.finfo(np.float32).tiny)


def _unusable(path: str | os.PathLike, why: str) -> CheckpointError:
    return CheckpointError(
        f"{path} {why}. Train again with ast-finetune --none_of_these true, or take the file away: labels are given without it."
    )

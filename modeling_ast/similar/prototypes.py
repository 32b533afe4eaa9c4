"""A few marked clips of each label as a classifier, without any training: what is near to them has their label.

With `match="mean"` a label is the mean of its examples' vectors, each of length one (Snell et al. 2017, with cosine similarity); with
`"nearest"` it is as near as the nearest of its examples.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..audio.errors import AudioError
from ..audio.files import AUDIO_SUFFIXES, find_audio_files
from .library import of_length_one

MATCHES = ("mean", "nearest")


class Prototypes:
    """Labels by vectors of their examples.

    Args:
        labels (sequence of `str`): of each example.
        vectors (`np.ndarray` of shape `(examples, hidden)`): theirs.
        match (`str`, defaults to `"mean"`): one of `MATCHES`.

    Attributes:
        labels (`list[str]`): each once, sorted.
        vectors (`np.ndarray` of shape `(n, hidden)`): float32, of length one, those of a label side by side.
    """

    def __init__(self, labels: Sequence[str], vectors: np.ndarray, match: str = "mean"):
        self.labels, of_example = np.unique(np.asarray(labels, dtype=object), return_inverse=True)
        self.labels, vectors = list(self.labels), of_length_one(vectors)
        groups = [vectors[of_example == number] for number in range(len(self.labels))]
        if match == "mean":
            groups = [of_length_one(group.mean(axis=0, keepdims=True)) for group in groups]
        self.vectors = np.concatenate(groups)
        self._begins = np.cumsum([0, *map(len, groups[:-1])])

    def scores(self, cosines: np.ndarray) -> np.ndarray:
        """Score labels.

        Args:
            cosines (`np.ndarray` of shape `(n, vectors)`): similarities to `vectors`.

        Returns:
            `np.ndarray` of shape `(n, labels)`: from -1 to 1, the similarity to the nearest vector of each label.
        """
        return np.maximum.reduceat(cosines, self._begins, axis=1)


def example_files(folder: Path) -> list[tuple[str, Path]]:
    """List marked clips.

    Args:
        folder (`Path`): with a folder for each label, and its clips in that at any depth.

    Returns:
        Label and file of each.

    Raises:
        AudioError: if there is no such folder, it holds no folder, or one of these holds no clip.
    """
    if not folder.is_dir():
        raise AudioError(f"--examples {folder} is no folder. Pass one with a folder of clips for each label.")
    labels = [path for path in sorted(folder.iterdir()) if path.is_dir() and not path.name.startswith(".")]
    if not labels:
        raise AudioError(
            f"--examples {folder} holds no folder. Put the clips of each label into a folder of its name."
        )
    return [(label.name, file) for label in labels for file in find_audio_files([label])]


def without_label(folder: Path) -> list[Path]:
    """List the clips that lie in a folder of examples itself, beside the folders of labels.

    Args:
        folder (`Path`): see [`example_files`].

    Returns:
        `list[Path]`: sorted.
    """
    return sorted(path for path in folder.iterdir() if path.is_file() and path.suffix.lower() in AUDIO_SUFFIXES)

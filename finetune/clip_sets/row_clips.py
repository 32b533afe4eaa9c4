"""What data sets whose clips are rows of a table at hand have in common, be they audio files or finished features."""

from abc import abstractmethod
from collections.abc import Mapping
from functools import cached_property
from typing import Self

import datasets
import numpy as np

from ..arguments.groups import DataArguments
from ..sources.annotations import unjoined_note
from ..sources.columns import column_values
from ..sources.data_errors import DataError, names_in_short
from ..sources.grouping import torn_recordings_note
from ..sources.labels import count_labels, label_lists, label_names, share_lists
from ..sources.marks_beside import tracks_beside_note
from .clip_set import Checks, ClipSet
from .split_checks import SPLIT_WORDS


class RowClips(ClipSet):
    """The clips of a split of [`load_splits`](finetune.sources.splits.load_splits).

    Args:
        rows (`datasets.Dataset`): a row for each clip, with the column `"label"`, with soft labels `"label_shares"`, and
            the columns of the subclass.
    """

    def __init__(self, rows: datasets.Dataset):
        self.rows = rows
        self.features = rows.features

    @cached_property
    def licenses(self) -> list[str] | None:
        """Licences of the clips; `None` without such a column."""
        return (
            list(dict.fromkeys(column_values(self.rows, "license"))) if "license" in self.rows.column_names else None
        )

    def __len__(self) -> int:
        return len(self.rows)

    def label_lists(self) -> list[list[int]]:
        """See [`ClipSet.label_lists`].

        Returns:
            Label indices of each clip; of single-label data one each.
        """
        return label_lists(self.rows)

    def label_counts(self) -> np.ndarray:
        """See [`ClipSet.label_counts`].

        Returns:
            `np.ndarray` of shape `(labels,)`, int64.
        """
        return count_labels(self.label_lists(), len(label_names(self.rows)))

    def label_sets(self) -> set[tuple[int, ...]]:
        """See [`ClipSet.label_sets`].

        Returns:
            The label indices of clips, each combination once.
        """
        return {tuple(labels) for labels in self.label_lists()}

    def shares_differ(self) -> bool:
        """See [`ClipSet.shares_differ`].

        Returns:
            `True` if two clips do, `False` if all are alike or labels are not soft.
        """
        shares = share_lists(self.rows)
        return shares is not None and any(clip != shares[0] for clip in shares)

    def without(self, left_out: Mapping[int, list[int]]) -> Self:
        """See [`ClipSet.without`].

        Args:
            left_out (`Mapping[int, list[int]]`): place and label indices of each clip to leave out.

        Returns:
            The other clips.
        """
        if not left_out:
            return self
        return type(self)(self.rows.select([row for row in range(len(self)) if row not in left_out]))

    @classmethod
    @abstractmethod
    def digests_in_two_splits(cls, splits: dict[str, Self]) -> dict[str, dict[int, bytes]]:
        """Find the clips that a clip of another split may equal byte for byte, without reading large data through.

        Args:
            splits (`dict[str, RowClips]`): of the run, by side.

        Returns:
            By side, the digest of each of these clips by its place.
        """


def drawn_places(splits: dict[str, ClipSet], number: int, seed: int) -> list[tuple[str, int]]:
    """Draw clips among all of a run.

    Args:
        splits (`dict[str, ClipSet]`): of the run, by side; of these only the lengths count.
        number (`int`): how many clips at most.
        seed (`int`): seed of the draw.

    Returns:
        Side and place of each clip, in the order in which they were drawn.
    """
    places = [(side, place) for side, split in splits.items() for place in range(len(split))]
    return [places[drawn] for drawn in np.random.default_rng(seed).permutation(len(places))[:number].tolist()]


def advice_on_rows(splits: dict[str, RowClips], checks: Checks) -> list[str]:
    """Say what may be wrong with how the rows were split or labelled.

    Args:
        splits (`dict[str, RowClips]`): of the run, by side.
        checks ([`Checks`]): what was given, and how the splits were made.

    Returns:
        In words, with the flags to type.
    """
    rows = {side: split.rows for side, split in splits.items()}
    advice = (
        torn_recordings_note(rows, checks.split_method, checks.data),
        unjoined_note(rows, checks.data),
        tracks_beside_note(rows) if checks.data.labelled else None,
    )
    return [note for note in advice if note]


def without_shared_clips(splits: dict[str, RowClips], data: DataArguments) -> tuple[dict[str, RowClips], list[str]]:
    """Refuse clips that are in two splits byte for byte, or leave them out of one.

    What is scored stays as it is; a clip that is there too leaves the validation split, and one of these two training.

    Args:
        splits (`dict[str, RowClips]`): of the run, by side.
        data ([`DataArguments`]): its `drop_duplicate_audio` says whether they are left out.

    Returns:
        The splits without these clips, and in words what was left out.

    Raises:
        DataError: if there are such clips and they are not to be left out, or if no clip of a split is left.
    """
    digests = type(splits["train"]).digests_in_two_splits(splits)
    dropped: dict[str, set[int]] = {side: set() for side in splits}
    notes = []
    pairs = [("validation", "eval"), ("train", "eval"), ("train", "validation")]
    for side, other in pairs:
        if side not in splits or other not in splits:
            continue
        twins = {digest: row for row, digest in digests[other].items()}
        shared = {row: twins[digest] for row, digest in digests[side].items() if digest in twins}
        if not shared:
            continue
        here, there = SPLIT_WORDS[side], SPLIT_WORDS[other]
        if not data.drop_duplicate_audio:
            pairs_of_names = [(splits[side].name(row), splits[other].name(twin)) for row, twin in shared.items()]
            names = [f"{name} = {twin}" for name, twin in pairs_of_names]
            own = any(name == twin for name, twin in pairs_of_names)
            together = (
                ", pass --group_column_name audio to keep the rows of a file on one side of a split that is made, or "
                "--join_annotations to make one clip of them"
                if own
                else ""
            )
            raise DataError(
                f"{len(shared)} clip(s) are in the {here} and in the {there} split: {names_in_short(names)}. The score would be too "
                f"good. Remove them{together}, or pass --drop_duplicate_audio to leave them out of {here}."
            )
        digests[side] = {row: digest for row, digest in digests[side].items() if row not in shared}
        dropped[side] |= shared.keys()
        notes.append(f"{len(shared)} clip(s) also in the {there} split were left out of {here}")
    empty = [SPLIT_WORDS[side] for side, split in splits.items() if len(dropped[side]) == len(split)]
    if empty:
        raise DataError(
            f"All clips of the {empty[0]} split are in another split too, so none is left. Give it clips of its own."
        )
    return {side: split.without(dict.fromkeys(dropped[side], [])) for side, split in splits.items()}, notes

"""A kind of data set: what a run asks of the clips of a split, whatever they are and wherever they lie.

Each kind is one subclass of [`ClipSet`], in a file of its own, with a subclass of [`ClipDataset`] that `Trainer` gets its
items from. A run, its checks, its summary and its dry run ask these two, and none of them asks which kind it has.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

import datasets
import numpy as np

from modeling_ast import ASTFeatureExtractor
from modeling_ast.audio import AudioReader
from modeling_ast.frame_columns import FrameColumns

from ..arguments.groups import DataArguments
from ..augmentations.augmentation import Augmentation
from ..sources.data_errors import DataError
from ..sources.labels import label_names
from .clip_notes import NotedClip
from .waveform_cache import WaveformCache
from .waveforms import ClipDataset


@dataclass(frozen=True)
class Checks:
    """How the splits of a run are checked before it is trained.

    Args:
        data ([`DataArguments`]): says which checks are asked for, and what is done with clips that fail them.
        feature_extractor ([`ASTFeatureExtractor`]): gives the mel bins and the frames that the model hears.
        reader ([`AudioReader`]): how audio files are heard.
        split_method (`str`): how the splits were made, in words.
        num_workers (`int`, *optional*, defaults to 0): processes that decode; see [`read_in_turn`](finetune.clip_sets.decoding.read_in_turn).
        cache ([`WaveformCache`], *optional*): where decoded clips are kept.
        files_known (`bool`, defaults to `False`): whether enough of the files were decoded already.
        noted (`list[NotedClip]`, *optional*): the checks add to it the clips of which there is something to be said.
    """

    data: DataArguments
    feature_extractor: ASTFeatureExtractor
    reader: AudioReader
    split_method: str = ""
    num_workers: int | None = 0
    cache: WaveformCache | None = None
    files_known: bool = False
    noted: list[NotedClip] = field(default_factory=list)

    @property
    def max_samples(self) -> int:
        """Samples that the model hears of a clip."""
        return self.feature_extractor.max_samples


@dataclass(frozen=True)
class Checked:
    """What the checks of the splits of a run found.

    Args:
        splits (`dict[str, ClipSet]`): the splits, without the clips that were left out.
        notes (`list[str]`): in words, what the user should know.
        skipped (`list[dict]`, *optional*): `split`, name of the `file` and `reason` of each clip that was left out because
            it cannot be used.
    """

    splits: dict[str, "ClipSet"]
    notes: list[str]
    skipped: list[dict] = field(default_factory=list)


class UndecodedClip(NamedTuple):
    """A clip that is going to be looked at.

    Attributes:
        side (`str`): split that it is in.
        place (`int`): which of the clips of the split it is.
        audio (`dict`): `{"bytes", "path"}`.
        labels (`list[int]`): indices of its labels.
    """

    side: str
    place: int
    audio: dict
    labels: list[int]


class ClipSet(ABC):
    """The clips of a split, of one kind.

    Attributes:
        at_hand (`bool`): whether each clip can be asked for by its place, so that clips can be drawn among all of them and
            the next one can stand in for one that cannot be used.
        features (`datasets.Features`): type of `"label"`, a `ClassLabel` or a `List` of it, from which
            [`label_names`](finetune.sources.labels.label_names) and its like tell the labels; with soft labels also
            `"label_shares"`.
        licenses (`list[str]`, *optional*): of the clips; `None` where the data says nothing of licences.
        windows (`str`): what is heard of a clip that lasts longer than the model hears; see [`ClipSet.with_windows`].
        num_longer (`int`): clips of the run that were looked at and last longer; 0 before the checks.
    """

    windows: str = "beginning"
    num_longer: int = 0
    at_hand: ClassVar[bool] = True
    features: datasets.Features
    licenses: list[str] | None = None

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of clips."""

    @abstractmethod
    def label_lists(self) -> Iterable[list[int]]:
        """Tell the labels of every clip; with soft labels, those that count.

        Returns:
            Label indices of each clip, one after the other; of single-label data one each.
        """

    @abstractmethod
    def label_counts(self) -> np.ndarray:
        """Count the clips of each label; with soft labels, those in which it counts.

        Returns:
            `np.ndarray` of shape `(labels,)`, int64.
        """

    @abstractmethod
    def label_sets(self) -> set[tuple[int, ...]]:
        """Tell what the clips have for labels, to find labels that cannot be learned.

        Returns:
            The label indices of clips, each combination once. A kind that does not hold all labels at once may give the
            labels one by one, unless all clips have the same.
        """

    @abstractmethod
    def name(self, index: int) -> str:
        """Tell what to call a clip in a message.

        Args:
            index (`int`): place of the clip.

        Returns:
            Its file, or what else the user knows it by.
        """

    @abstractmethod
    def digest(self) -> str:
        """Tell these clips from others, so that no run goes on with the checkpoint of another one.

        Returns:
            Hexadecimal SHA-256 over the clips and their labels, in their order. Where the files lie does not count.
        """

    @abstractmethod
    def without(self, left_out: Mapping[int, list[int]]) -> "ClipSet":
        """Leave out some of the clips.

        Args:
            left_out (`Mapping[int, list[int]]`): place and label indices of each clip to leave out.

        Returns:
            The other clips, of the same kind. These stay as they are.
        """

    @classmethod
    @abstractmethod
    def check(cls, splits: dict[str, "ClipSet"], checks: Checks) -> Checked:
        """Refuse what would give a wrong score or cannot be trained on.

        Args:
            splits (`dict[str, ClipSet]`): all splits of a run by side: `"train"`, `"eval"` and perhaps `"validation"`.
            checks ([`Checks`]): what is looked at, and how.

        Returns:
            [`Checked`].

        Raises:
            DataError: for what is wrong with the data; the message says what to type.
        """

    @abstractmethod
    def dataset(
        self,
        feature_extractor: ASTFeatureExtractor,
        augmentation: Augmentation | None = None,
        seed: int = 0,
        *,
        binary_targets: bool = False,
        reader: AudioReader | None = None,
    ) -> ClipDataset:
        """Make the data set that `Trainer` gets its items from.

        Args:
            feature_extractor ([`ASTFeatureExtractor`]): that of the model; gives the frames and mel bins that it hears.
            augmentation ([`Augmentation`], *optional*): what to draw for items of a training.
            seed (`int`, defaults to 0): seed of these draws.
            binary_targets (`bool`, defaults to `False`): whether exclusive labels are vectors, too.
            reader ([`AudioReader`], *optional*): how audio files are heard; as the feature extractor says if not given.

        Returns:
            [`ClipDataset`].

        Raises:
            ValueError: for an augmentation that this kind of data set cannot have.
        """

    def with_windows(self, windows: str) -> "ClipSet":
        """Choose what is heard of clips that last longer than the model hears.

        Args:
            windows (`str`): their `"beginning"`, a `"random"` window in every epoch, or `"all"` windows; of clips that are
                scored, the `"mean"` or `"max"` of the scores of all.

        Returns:
            Clips heard so; a kind that hears nothing but beginnings stays as it is.
        """
        return self

    def of_length(self, seconds: float, speed_change: float = 0.0) -> "ClipSet":
        """Cut windows of another length.

        Args:
            seconds (`float`): what the model hears.
            speed_change (`float`, defaults to 0): by what share an augmentation changes the speed at most.

        Returns:
            The clips; a kind that cuts no windows out of recordings stays as it is.
        """
        return self

    def with_frames(self, columns: FrameColumns) -> "ClipSet":
        """Have the items of its data sets carry the labels of their frames in place of those of clips.

        Args:
            columns ([`FrameColumns`]): of the model.

        Returns:
            Clips whose data sets have under `"label"` a float32 array of shape `(columns, labels)`: of the columns of a clip as it
            is heard, without padding, from [`FrameColumns.targets`].

        Raises:
            DataError: if no stretches of time are marked in the clips, as in this class.
        """
        raise DataError(
            "head='frame' learns when each label sounds, and these clips have labels of whole clips. Pass data in which stretches "
            "of time are marked, or --head clip."
        )

    def names(self) -> Iterator[str | None]:
        """Tell by what a table lists the clips.

        Returns:
            The name of each clip, one after the other; `None` for a clip that has none.
        """
        return (self.name(index) for index in range(len(self)))

    def shares_differ(self) -> bool:
        """Tell whether two clips with soft labels differ in their shares.

        Returns:
            `True` if two do, `False` if all are alike or labels are not soft.
        """
        return False

    def counts_by_label(self) -> dict[str, int]:
        """Count the clips of each label by its name.

        Returns:
            Name and number of clips, in the order of the model's outputs.
        """
        return dict(zip(label_names(self), self.label_counts().tolist(), strict=True))

    def described(self) -> dict:
        """Tell what the run summary says of the clips.

        Returns:
            `dict`: `clips`, and their number by label as `label_counts`.
        """
        return {"clips": len(self), "label_counts": self.counts_by_label()}

    @classmethod
    def undecoded(cls, splits: dict[str, "ClipSet"], number: int, seed: int) -> Iterator[UndecodedClip]:
        """Choose clips to be decoded by a dry run, which stops when its time is over.

        Args:
            splits (`dict[str, ClipSet]`): all splits of a run, by side.
            number (`int`): how many clips at most.
            seed (`int`): seed of a draw.

        Returns:
            The clips, one after the other; none of a kind without audio files.
        """
        return iter(())

"""The clips of a run as the kinds of data sets that they are: the one place that tells a kind from what was loaded."""

from collections.abc import Mapping

import datasets

from modeling_ast import ASTFeatureExtractor
from modeling_ast.audio import CUT_OFF, HEARD_LESS, AudioReader

from ..arguments.groups import DataArguments
from ..augmentations.augmentation import Augmentation
from ..sources.marked_recordings import load_marked
from ..sources.splits import load_splits
from ..sources.stored_features import is_precomputed
from .audio_clips import AudioClips
from .clip_set import ClipSet
from .marked_windows import marked_clip_sets
from .precomputed import FeatureClips
from .streaming import load_streams
from .waveforms import ClipDataset


def clip_reader(data: DataArguments, feature_extractor: ASTFeatureExtractor) -> AudioReader:
    """Make the reader by which the clips of a training are heard.

    Args:
        data ([`DataArguments`]): with its `strict_audio` whatever is heard less of is refused, else what is cut off.
        feature_extractor ([`ASTFeatureExtractor`]): gives sampling rate, channels and resampler.

    Returns:
        [`AudioReader`].
    """
    refused = HEARD_LESS if data.strict_audio else frozenset({CUT_OFF})
    return feature_extractor.audio_reader(refused=refused)


def load_clip_sets(data: DataArguments, seed: int) -> tuple[dict[str, ClipSet], str]:
    """Load the splits of a run: streamed if that was asked for, else to be at hand.

    Args:
        data ([`DataArguments`]): where the clips are, what the columns are called, and which splits there are.
        seed (`int`): seed of a split that has to be made.

    Returns:
        The splits `"train"`, `"eval"` and, if asked for, `"validation"`; and in words how they were made.

    Raises:
        DataError: see [`load_marked`], [`load_streams`] and [`load_splits`].
    """
    if data.marks:
        found = load_marked(data, seed)
        return marked_clip_sets(found, data), found.words
    if data.streaming:
        return load_streams(data)
    splits, method = load_splits(data, seed)
    return clip_sets(splits), method


def clip_sets(splits: Mapping[str, ClipSet | datasets.Dataset]) -> dict[str, ClipSet]:
    """Make each split the kind of data set that it is.

    Args:
        splits (`Mapping[str, ClipSet | datasets.Dataset]`): by side, as [`clip_set`] takes them.

    Returns:
        The same splits, by side.
    """
    return {side: clip_set(split) for side, split in splits.items()}


def with_windows(splits: Mapping[str, ClipSet], trained: str, scored: str) -> dict[str, ClipSet]:
    """Choose what is heard of clips that last longer than the model hears.

    Args:
        splits (`Mapping[str, ClipSet]`): of a run, by side.
        trained (`str`): what of training clips; see [`ClipSet.with_windows`].
        scored (`str`): what of those that are scored or chosen on.

    Returns:
        The splits, by side.
    """
    return {side: split.with_windows(trained if side == "train" else scored) for side, split in splits.items()}


def clip_set(split: ClipSet | datasets.Dataset) -> ClipSet:
    """Make a split the kind of data set that it is.

    Args:
        split ([`ClipSet`] or `datasets.Dataset`): rows as of [`load_splits`], or what is of a kind already, which stays as
            it is.

    Returns:
        [`ClipSet`].
    """
    if isinstance(split, ClipSet):
        return split
    return FeatureClips(split) if is_precomputed(split) else AudioClips(split)


def clip_dataset(
    split: ClipSet | datasets.Dataset,
    feature_extractor: ASTFeatureExtractor,
    augmentation: Augmentation | None = None,
    seed: int = 0,
    *,
    binary_targets: bool = False,
    reader: AudioReader | None = None,
) -> ClipDataset:
    """Make the data set of a split, from which `Trainer` gets the clips as a model with this feature extractor hears them.

    Args:
        split ([`ClipSet`] or `datasets.Dataset`): as [`clip_set`] takes it.
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
    return clip_set(split).dataset(feature_extractor, augmentation, seed, binary_targets=binary_targets, reader=reader)

"""What is done alike with splits that are at hand, streamed, or finished features: the data set of one, a part of one."""

import datasets

from modeling_ast import ASTFeatureExtractor
from modeling_ast.audio import CUT_OFF, HEARD_LESS, AudioReader

from ..arguments.groups import DataArguments
from ..augmentations.augmentation import Augmentation
from ..sources.stored_features import is_precomputed
from .precomputed import PrecomputedDataset
from .streaming import ClipStream, StreamedClips
from .waveforms import ASTDataset, ClipDataset


def clip_reader(data: DataArguments, feature_extractor: ASTFeatureExtractor) -> AudioReader:
    """How the clips of a training are heard: files that are cut off are refused, with `strict_audio` whatever is heard less of."""
    refused = HEARD_LESS if data.strict_audio else frozenset({CUT_OFF})
    return feature_extractor.audio_reader(refused=refused)


def clip_dataset(
    split: datasets.Dataset | ClipStream,
    feature_extractor: ASTFeatureExtractor,
    augmentation: Augmentation | None = None,
    seed: int = 0,
    *,
    binary_targets: bool = False,
    reader: AudioReader | None = None,
) -> ClipDataset:
    """The clips of a split as a model with this feature extractor hears them; see [`ClipDataset`] for the arguments.

    `reader` is the feature extractor's own if not given.
    """
    if is_precomputed(split):
        return PrecomputedDataset(split, feature_extractor, augmentation, seed, binary_targets=binary_targets)
    reader = feature_extractor.audio_reader() if reader is None else reader
    make = StreamedClips if isinstance(split, ClipStream) else ASTDataset
    return make(split, reader, feature_extractor.max_samples, augmentation, seed, binary_targets=binary_targets)


def without_clips(
    split: datasets.Dataset | ClipStream, left_out: dict[int, list[int]]
) -> datasets.Dataset | ClipStream:
    """A split without some of its clips.

    Args:
        split (`datasets.Dataset` or [`ClipStream`]): the split, which stays as it is.
        left_out (`dict[int, list[int]]`): place and label indices of each clip to leave out.
    """
    if not left_out:
        return split
    if isinstance(split, ClipStream):
        return split.without(left_out.keys(), left_out.values())
    return split.select([row for row in range(len(split)) if row not in left_out])

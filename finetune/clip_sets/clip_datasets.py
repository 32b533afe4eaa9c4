"""Which data set gives the clips of a split: at hand, streamed, or as finished features."""

import datasets

from modeling_ast import ASTFeatureExtractor
from modeling_ast.log_mel import num_samples

from ..augmentation import Augmentation
from ..data import ASTDataset, ClipDataset
from .precomputed import PrecomputedDataset, is_precomputed
from .streaming import ClipStream, StreamedClips


def clip_dataset(
    split: datasets.Dataset | ClipStream,
    feature_extractor: ASTFeatureExtractor,
    augmentation: Augmentation | None = None,
    seed: int = 0,
    *,
    binary_targets: bool = False,
) -> ClipDataset:
    """The clips of a split as a model with this feature extractor hears them; see [`ClipDataset`] for the arguments."""
    if is_precomputed(split):
        return PrecomputedDataset(split, feature_extractor, augmentation, seed, binary_targets=binary_targets)
    sampling_rate = feature_extractor.sampling_rate
    longest = num_samples(feature_extractor.max_length, sampling_rate)
    make = StreamedClips if isinstance(split, ClipStream) else ASTDataset
    return make(split, sampling_rate, longest, augmentation, seed, binary_targets=binary_targets)

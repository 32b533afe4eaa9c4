"""Mean and standard deviation of log-mel features: measured on the training split, and checked wherever they come from.

Measured in one pass, over real frames only: padding would pull both towards zero. The published statistics of the
original recipes include padding, masks and mixup, so a clean measurement does not reproduce them.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from modeling_ast import ASTFeatureExtractor
from modeling_ast.features.padding import frame_mask, pad_clips

CLIPS_PER_BATCH = 32
# Statistics of samples in [-1, 1] that somebody took for those of features, as `waveform.mean(), waveform.std()` are.
LARGEST_WAVEFORM_MEAN, LARGEST_WAVEFORM_STD = 0.1, 1.0
# What a normalised batch may look like. A standard deviation is halfway, as a ratio, between right and wrong by a factor
# of 2. Twelve or more clips of drums or spoken digits, normalised by the statistics of the other, of AudioSet, ESC-50 or
# Speech Commands, lay at means of -0.62 to 0.49 and standard deviations of 0.37 to 0.69.
LARGEST_NORMALIZED_MEAN = 0.7
SMALLEST_NORMALIZED_STD, LARGEST_NORMALIZED_STD = 0.5 / 2**0.5, 0.5 * 2**0.5
FEWEST_CLIPS_JUDGED = 12  # four clips of one sound reach 0.28


@dataclass(frozen=True)
class NormalizationStatistics:
    """Hold statistics of log-mel values and what they were measured on.

    Args:
        mean (`float`): mean of the values.
        std (`float`): their standard deviation.
        clips (`int`): how many clips they are of.
        frames (`int`): how many unpadded frames these have.
    """

    mean: float
    std: float
    clips: int
    frames: int


def measure_normalization(
    clips: Iterable[np.ndarray], feature_extractor: ASTFeatureExtractor
) -> NormalizationStatistics:
    """Measure mean and standard deviation over all real frames and mel bins.

    Args:
        clips (iterable of `np.ndarray`): mono waveforms of shape `(samples,)` at the extractor's sampling rate, or raw
            log-mel features of shape `(frames, mel bins)`, cut as the model hears them.
        feature_extractor ([`ASTFeatureExtractor`]): gives the mel bins and the length at which waveforms are cut.

    Returns:
        [`NormalizationStatistics`].

    Raises:
        ValueError: if there is no clip, or every value is the same.
    """
    count, mean, deviation, num_clips, frames = 0, 0.0, 0.0, 0, 0  # deviation: sum of squared distances from the mean
    for batch in _batches(clips):
        values = _real_frames(batch, feature_extractor).double()  # (frames of all clips, mel bins)
        # Chan et al. 1979: sums of squares would lose the digits in which the standard deviation lies.
        shift, total = values.mean().item() - mean, count + values.numel()
        deviation += (values - values.mean()).square().sum().item() + shift**2 * count * values.numel() / total
        mean += shift * values.numel() / total
        count, num_clips, frames = total, num_clips + len(batch), frames + len(values)
    if not count:
        raise ValueError("There is no clip to measure normalisation on. Pass --normalization with two numbers.")
    std = (deviation / count) ** 0.5
    if std < 1e-3:
        raise ValueError(
            f"The features of the training clips are all the same (mean {mean:.3f}): is the audio silent? Check the "
            "files, or pass --normalization with two numbers."
        )
    return NormalizationStatistics(mean=mean, std=std, clips=num_clips, frames=frames)


def refuse_waveform_statistics(mean: float, std: float, origin: str):
    """Refuse the statistics of a waveform, with which the features would come out ten times too large.

    Args:
        mean (`float`): mean that features are to be normalised with.
        std (`float`): their standard deviation.
        origin (`str`): where the two come from, in words.

    Raises:
        ValueError: if the mean is within 0.1 of 0 and the standard deviation under 1.
    """
    if abs(mean) < LARGEST_WAVEFORM_MEAN and std < LARGEST_WAVEFORM_STD:
        raise ValueError(
            f"mean {mean:.4g} and standard deviation {std:.4g} (from {origin}) are those of a waveform or of features that "
            "are normalised already; expected those of log-mel features, such as AudioSet's -4.27 and 4.57. Pass "
            "--normalization measured, or two numbers of your own."
        )


def normalized_batch_warning(features: torch.Tensor, frames: torch.Tensor) -> str | None:
    """Look whether a normalised batch is far from mean 0 and standard deviation 0.5.

    Finds a standard deviation that is wrong by a factor of 2, statistics of a waveform, and features that are not
    normalised at all; a wrong mean if it is off by more than 1.4 standard deviations. Statistics of another data set of
    natural sounds pass.

    Args:
        features (`torch.Tensor` of shape `(batch, frames, mel bins)`): normalised, without augmentation, of clips drawn
            from the whole data set. Fewer than 12 clips are not judged, as they may all be of one kind.
        frames (`torch.Tensor` of shape `(batch,)`): real frames of each clip; padding does not count.

    Returns:
        What to say of it; `None` if it is not far.
    """
    if len(features) < FEWEST_CLIPS_JUDGED:
        return None
    values = features[frame_mask(frames, features.shape[1])].double()
    mean, std = values.mean().item(), values.std(correction=0).item()
    if abs(mean) <= LARGEST_NORMALIZED_MEAN and SMALLEST_NORMALIZED_STD <= std <= LARGEST_NORMALIZED_STD:
        return None
    return (
        f"The normalised features of {len(features)} clips have mean {mean:.2f} and standard deviation {std:.2f}, expected "
        f"about 0 and 0.5 (within {LARGEST_NORMALIZED_MEAN} of 0, and {SMALLEST_NORMALIZED_STD:.2f} to "
        f"{LARGEST_NORMALIZED_STD:.2f}): the mean and standard deviation they were normalised with do not fit these clips. "
        "Pass --normalization measured."
    )


def _real_frames(batch: list[torch.Tensor], feature_extractor: ASTFeatureExtractor) -> torch.Tensor:
    if batch[0].dim() == 2:
        return torch.cat(batch)
    features, frames = feature_extractor.log_mel(*pad_clips(batch), feature_extractor.max_length)
    return features[frame_mask(frames, features.shape[1])]


def _batches(clips: Iterable[np.ndarray]) -> Iterator[list[torch.Tensor]]:
    batch: list[torch.Tensor] = []
    for clip in clips:
        batch.append(torch.from_numpy(clip))
        if len(batch) == CLIPS_PER_BATCH:
            yield batch
            batch = []
    if batch:
        yield batch

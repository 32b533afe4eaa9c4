"""Mean and standard deviation of log-mel features, measured on the training split.

In one pass, over real frames only: padding would pull both towards zero. The published statistics of the original
recipes include padding, masks and mixup, so a clean measurement does not reproduce them.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch

from modeling_ast import ASTFeatureExtractor

CLIPS_PER_BATCH = 32
MAX_CLIPS = 2000  # enough: the statistics are over hundreds of frames a clip


@dataclass(frozen=True)
class NormalizationStatistics:
    """Statistics of log-mel values and what they were measured on."""

    mean: float
    std: float
    clips: int
    frames: int


def measure_normalization(
    waveforms: Iterable[np.ndarray], feature_extractor: ASTFeatureExtractor
) -> NormalizationStatistics:
    """Mean and standard deviation over all real frames and mel bins.

    Args:
        waveforms (iterable of `np.ndarray` of shape `(samples,)`): mono clips at the extractor's sampling rate.
        feature_extractor ([`ASTFeatureExtractor`]): gives the mel bins and the length at which clips are cut.

    Raises:
        ValueError: if there is no clip, or every value is the same.
    """
    count, total, total_of_squares, clips, frames = 0, 0.0, 0.0, 0, 0
    for batch in _batches(waveforms):
        outputs = feature_extractor.log_mel(
            torch.nn.utils.rnn.pad_sequence(batch, batch_first=True),
            torch.tensor([len(waveform) for waveform in batch]),
            feature_extractor.max_length,
        )
        for features, real_frames in zip(*outputs, strict=True):
            values = features[:real_frames].double()
            count += values.numel()
            total += values.sum().item()
            total_of_squares += values.square().sum().item()
            frames += int(real_frames)
        clips += len(batch)
    if not count:
        raise ValueError("There is no clip to measure normalisation on. Pass --normalization with two numbers.")
    mean = total / count
    std = max(total_of_squares / count - mean**2, 0.0) ** 0.5
    if std < 1e-3:
        raise ValueError(
            f"The features of the training clips are all the same (mean {mean:.3f}): is the audio silent? Check the "
            "files, or pass --normalization with two numbers."
        )
    return NormalizationStatistics(mean=mean, std=std, clips=clips, frames=frames)


def _batches(waveforms: Iterable[np.ndarray]) -> Iterable[list[torch.Tensor]]:
    batch: list[torch.Tensor] = []
    for waveform in waveforms:
        batch.append(torch.from_numpy(waveform))
        if len(batch) == CLIPS_PER_BATCH:
            yield batch
            batch = []
    if batch:
        yield batch

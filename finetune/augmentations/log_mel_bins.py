"""What augmentations of recording conditions know of log-mel features: which frames are a clip's, and which frequencies a bin hears.

At the features there are no more samples to filter or to add to. A bin's response to a filter is that to a spectrum which is flat
within the bin.
"""

import math
from functools import lru_cache

import torch

from modeling_ast.features.kaldi import (
    PRE_EMPHASIS,
    SMALLEST_ENERGY,
    fft_length,
    mel_filter_bank,
    symmetric_hann_window,
)

SAMPLING_RATE = (
    16_000  # Hz, of AST; with a checkpoint of another rate all frequencies are multiplied by the ratio of the two
)
FLOOR = math.log(SMALLEST_ENERGY)  # of digital silence


def own_frames(features: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
    """Tell a clip's frames from padding, also from padding that is heard.

    Args:
        features (`torch.Tensor` of shape `(batch, frames, mel bins)`): raw log-mel values.
        frames (`torch.Tensor` of shape `(batch,)`): frames of each clip that may be changed.

    Returns:
        `torch.Tensor` of shape `(batch, frames)`, bool. Padding has one value in all bins, as no sound has but digital silence,
        which belongs to the clip.
    """
    least, most = features.amin(dim=2), features.amax(dim=2)
    is_padding = (least == most) & ((least - FLOOR).abs() > 1e-3)
    return (torch.arange(features.shape[1], device=features.device) < frames[:, None]) & ~is_padding


@lru_cache(maxsize=8)
def fft_frequencies(device: torch.device) -> torch.Tensor:
    """Give the frequencies of the Fourier transform that the mel bins are made of.

    Args:
        device (`torch.device`): where they are to be.

    Returns:
        `torch.Tensor` of shape `(fft bins,)`, in Hz.
    """
    length = fft_length(SAMPLING_RATE)
    return torch.arange(length // 2 + 1, device=device) * (SAMPLING_RATE / length)


@lru_cache(maxsize=8)
def bin_weights(num_mel_bins: int, device: torch.device) -> torch.Tensor:
    """Give the part that each frequency of a sound has in a bin's energy.

    Args:
        num_mel_bins (`int`): mel bins.
        device (`torch.device`): where they are to be.

    Returns:
        `torch.Tensor` of shape `(fft bins, mel bins)`: columns of sum 1, or 0 for a bin that hears no frequency. Beside a bin's
        triangle there are the neighbouring frequencies, which the window of a frame spreads.
    """
    window = symmetric_hann_window(SAMPLING_RATE, torch.device("cpu"), torch.float64)
    spread = torch.fft.fft(window, fft_length(SAMPLING_RATE)).abs().square()
    heard = torch.arange(len(spread) // 2 + 1)
    weights = spread[(heard[:, None] - heard) % len(spread)] @ mel_filter_bank(num_mel_bins, SAMPLING_RATE).double()
    return (weights / weights.sum(dim=0).clamp(min=torch.finfo(torch.float64).tiny)).float().to(device)


@lru_cache(maxsize=8)
def pre_emphasis(num_mel_bins: int, device: torch.device) -> torch.Tensor:
    """Give the gain that pre-emphasis has in each bin.

    Args:
        num_mel_bins (`int`): mel bins.
        device (`torch.device`): where it is to be.

    Returns:
        `torch.Tensor` of shape `(mel bins,)`, of power; 1 for a bin that hears no frequency.
    """
    turns = 2 * math.pi / SAMPLING_RATE * fft_frequencies(device)
    gain = (1 + PRE_EMPHASIS**2 - 2 * PRE_EMPHASIS * turns.cos()) @ bin_weights(num_mel_bins, device)
    return torch.where(gain > 0, gain, 1.0)

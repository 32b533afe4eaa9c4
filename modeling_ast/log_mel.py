"""Kaldi's log-mel filter bank for a batch of waveforms, in torch, on any device.

Equal to `torchaudio.compliance.kaldi.fbank(waveform, window_type="hanning", num_mel_bins=128)` at its defaults, which
the original AST code and stock Transformers call clip by clip: 25 ms Hann window, 10 ms shift, mean of each frame
removed, pre-emphasis 0.97, power spectrum, triangles on the mel scale from 20 Hz to half the sampling rate, natural
logarithm, no dither. Differs in that clips of several lengths go through one set of tensor operations.
"""

import math
from functools import lru_cache

import torch

FRAME_LENGTH_MS = 25  # Kaldi's default, as in the released code
FRAME_SHIFT_MS = 10
LOWEST_FREQUENCY_HZ = 20.0
PRE_EMPHASIS = 0.97
# Frames computed at once over the whole batch: keeps the working memory in the cache, whatever the recordings' length.
FRAMES_PER_BLOCK = 2048
SMALLEST_ENERGY = torch.finfo(torch.float32).eps  # floor before the logarithm, in every dtype


def frame_length(sampling_rate: int) -> int:
    """Samples of one analysis window."""
    return sampling_rate * FRAME_LENGTH_MS // 1000


def frame_shift(sampling_rate: int) -> int:
    """Samples between the starts of two frames."""
    return sampling_rate * FRAME_SHIFT_MS // 1000


def num_frames(num_samples, sampling_rate: int):
    """Frames that lie completely within `num_samples` samples; works on integers and on integer tensors."""
    return (num_samples - frame_length(sampling_rate)) // frame_shift(sampling_rate) + 1


def num_samples(frames: int, sampling_rate: int) -> int:
    """Fewest samples that give `frames` frames."""
    return frame_length(sampling_rate) + (frames - 1) * frame_shift(sampling_rate)


def mel_scale(frequency_hz: float) -> float:
    """Mel value of a frequency in Hz, by Kaldi's formula."""
    return 1127.0 * math.log(1.0 + frequency_hz / 700.0)


@lru_cache(maxsize=8)
def mel_filter_bank(num_mel_bins: int, sampling_rate: int) -> torch.Tensor:
    """Triangular filters on the mel scale.

    Args:
        num_mel_bins (`int`): number of triangles.
        sampling_rate (`int`): in Hz.

    Returns:
        `torch.Tensor` of shape `(fft bins, num_mel_bins)`, float32. The last row, half the sampling rate, is zero.

    Source: Kaldi's `MelBanks`. The order of operations in float32 is that of torchaudio: a slope close to zero would
    otherwise differ in its leading digits, and so would the logarithm of an almost empty bin.
    """
    num_fft_bins = fft_length(sampling_rate) // 2
    lowest, highest = mel_scale(LOWEST_FREQUENCY_HZ), mel_scale(sampling_rate / 2)
    spacing = (highest - lowest) / (num_mel_bins + 1)
    triangle = torch.arange(num_mel_bins)
    left = lowest + triangle * spacing
    center = lowest + (triangle + 1.0) * spacing
    right = lowest + (triangle + 2.0) * spacing

    frequencies = sampling_rate / fft_length(sampling_rate) * torch.arange(num_fft_bins)
    mel = (1127.0 * (1.0 + frequencies / 700.0).log())[:, None]  # (fft bins, 1)
    rising, falling = (mel - left) / (center - left), (right - mel) / (right - center)
    filters = torch.minimum(rising, falling).clamp(min=0)
    return torch.nn.functional.pad(filters, (0, 0, 0, 1))


def fft_length(sampling_rate: int) -> int:
    """Points of the Fourier transform: the window length rounded up to a power of two."""
    return 1 << (frame_length(sampling_rate) - 1).bit_length()


@lru_cache(maxsize=8)
def _window_and_filters(num_mel_bins: int, sampling_rate: int, device: torch.device, dtype: torch.dtype):
    window = torch.hann_window(frame_length(sampling_rate), periodic=False, device=device, dtype=dtype)
    return window, mel_filter_bank(num_mel_bins, sampling_rate).to(device, dtype)


def log_mel_spectrogram(waveforms: torch.Tensor, sampling_rate: int = 16_000, num_mel_bins: int = 128) -> torch.Tensor:
    """Log-mel features of waveforms of one (padded) length.

    Args:
        waveforms (`torch.Tensor` of shape `(batch, samples)`): float32 or float64, amplitude in [-1, 1].
        sampling_rate (`int`, defaults to 16000): in Hz.
        num_mel_bins (`int`, defaults to 128): mel bins.

    Returns:
        `torch.Tensor` of shape `(batch, frames, num_mel_bins)`, natural logarithm of the energy. Frames that reach
        into a clip's padding are the caller's to cut: see [`num_frames`].

    Raises:
        ValueError: if there are fewer samples than one window.

    Source: Kaldi's `compute-fbank-feats`, as `torchaudio.compliance.kaldi.fbank` computes it.
    """
    length, shift = frame_length(sampling_rate), frame_shift(sampling_rate)
    if waveforms.dim() != 2 or waveforms.shape[1] < length:
        raise ValueError(
            f"waveforms have shape {tuple(waveforms.shape)}, expected (batch, samples) with at least {length} samples "
            f"({FRAME_LENGTH_MS} ms at {sampling_rate} Hz). Pad shorter clips with zeros."
        )
    window, filters = _window_and_filters(num_mel_bins, sampling_rate, waveforms.device, waveforms.dtype)

    frames = waveforms.unfold(1, length, shift)  # (batch, frames, samples of a frame), a view
    features = waveforms.new_empty(*frames.shape[:2], num_mel_bins)
    step = max(1, FRAMES_PER_BLOCK // len(frames))
    for start in range(0, frames.shape[1], step):
        block = frames[:, start : start + step]
        block = block - block.mean(dim=2, keepdim=True)
        previous = torch.cat((block[..., :1], block[..., :-1]), dim=2)
        block = (block - PRE_EMPHASIS * previous) * window
        spectrum = torch.fft.rfft(block, n=fft_length(sampling_rate))  # (batch, step, fft bins)
        energies = spectrum.abs().pow(2) @ filters
        features[:, start : start + step] = energies.clamp(min=SMALLEST_ENERGY).log()
    return features

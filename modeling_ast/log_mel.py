"""Kaldi's log-mel filter bank for a batch of waveforms, in torch, on any device.

Equal to `torchaudio.compliance.kaldi.fbank(waveform, window_type="hanning", num_mel_bins=128)` at its defaults, which
the original AST code and stock Transformers call clip by clip: 25 ms Hann window, 10 ms shift, mean of each frame
removed, pre-emphasis 0.97, power spectrum, triangles on the mel scale from 20 Hz to half the sampling rate, natural
logarithm, no dither. Differs in that a batch goes through one set of tensor operations, in blocks that stay in the
processor's cache.
"""

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache, lru_cache
from threading import get_ident

import numpy as np
import torch

from .linear import linear

FRAME_LENGTH_MS = 25  # Kaldi's default, as in the released code
FRAME_SHIFT_MS = 10
LOWEST_FREQUENCY_HZ = 20.0
PRE_EMPHASIS = 0.97
# Frames computed at once over the whole batch: keeps the working memory small, on a CPU within its cache, whatever the
# recordings' length.
FRAMES_PER_BLOCK = 2048
FRAMES_PER_BLOCK_ON_ACCELERATOR = 65_536
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


def log_mel_spectrogram(waveforms: torch.Tensor, sampling_rate: int = 16_000, num_mel_bins: int = 128) -> torch.Tensor:
    """Log-mel features of waveforms of one (padded) length.

    Args:
        waveforms (`torch.Tensor` of shape `(batch, samples)`): float32 or float64, amplitude in [-1, 1].
        sampling_rate (`int`, defaults to 16000): in Hz.
        num_mel_bins (`int`, defaults to 128): mel bins.

    Returns:
        `torch.Tensor` of shape `(batch, frames, num_mel_bins)`, natural logarithm of the energy, without gradients.
        Frames that reach into a clip's padding are the caller's to cut: see [`num_frames`].

    Raises:
        ValueError: if there are fewer samples than one window.

    Source: Kaldi's `compute-fbank-feats`, as `torchaudio.compliance.kaldi.fbank` computes it.
    """
    blocks = [block for _, block in log_mel_blocks(waveforms, sampling_rate, num_mel_bins)]
    return blocks[0] if len(blocks) == 1 else torch.cat(blocks, dim=1)


def log_mel_blocks(
    waveforms: torch.Tensor, sampling_rate: int, num_mel_bins: int
) -> Iterator[tuple[int, torch.Tensor]]:
    """As [`log_mel_spectrogram`], one stretch of frames after the other, so that a recording's features need not all be
    there at once.

    Yields:
        The first frame's number, and features of shape `(batch, frames of the block, num_mel_bins)`.
    """
    length, shift = frame_length(sampling_rate), frame_shift(sampling_rate)
    if waveforms.dim() != 2 or waveforms.shape[1] < length:
        raise ValueError(
            f"waveforms have shape {tuple(waveforms.shape)}, expected (batch, samples) with at least {length} samples "
            f"({FRAME_LENGTH_MS} ms at {sampling_rate} Hz). Pad shorter clips with zeros."
        )
    batch, total = len(waveforms), num_frames(waveforms.shape[1], sampling_rate)
    at_once = FRAMES_PER_BLOCK if waveforms.device.type == "cpu" else FRAMES_PER_BLOCK_ON_ACCELERATOR
    step = min(total, max(1, at_once // batch))
    for first in range(0, total, step):
        count = min(step, total - first)
        samples = waveforms[:, first * shift : (first + count - 1) * shift + length]
        frames = samples.unfold(1, length, shift)  # (batch, count, length), a view
        yield first, _log_mel_frames(frames, sampling_rate, num_mel_bins)


@torch.no_grad()
def _log_mel_frames(frames: torch.Tensor, sampling_rate: int, num_mel_bins: int) -> torch.Tensor:
    """`(batch, frames, samples of a frame)` to `(batch, frames, mel bins)`."""
    on_cpu = frames.device.type == "cpu"
    kind = (frames.device, frames.dtype)
    rows = frames.shape[0] * frames.shape[1]
    if on_cpu:
        space = _kept_workspace(max(rows, FRAMES_PER_BLOCK), sampling_rate, *kind, get_ident())
    else:
        space = _Workspace(rows, sampling_rate, *kind)
    centered, previous, padded = (
        part[:rows].unflatten(0, frames.shape[:2]) for part in (space.centered, space.previous, space.padded)
    )
    torch.sub(frames, frames.mean(dim=2, keepdim=True), out=centered)
    # Rounded step by step as Kaldi does: almost empty mel bins are rounding errors, and come out the same only so. The
    # first sample of an emphasized frame, which has no predecessor, is left out: the window is zero there.
    torch.mul(centered[..., :-1], PRE_EMPHASIS, out=previous[..., 1:])
    emphasized = torch.sub(centered[..., 1:], previous[..., 1:], out=padded[..., 1 : frames.shape[2]])
    emphasized *= _window(sampling_rate, *kind)[1:]
    _transform(space.padded[:rows], space.spectrum[:rows], torch.get_num_threads() if on_cpu else 1)
    powers = torch.view_as_real(space.spectrum[:rows]).square_().flatten(1)  # real and imaginary parts in turn
    with torch.autocast(frames.device.type, enabled=False):  # energies of 8 bits would be no features
        bands = _filter_bands(num_mel_bins, sampling_rate, *kind)
        energies = torch.cat([linear(powers[:, bins], filters) for bins, filters in bands], dim=1)
    return _log(energies.clamp_(min=SMALLEST_ENERGY), on_cpu).unflatten(0, frames.shape[:2])


class _Workspace:
    """Memory for some frames, written to again and again: fresh pages would cost more than the arithmetic."""

    def __init__(self, rows: int, sampling_rate: int, device: torch.device, dtype: torch.dtype):
        length, points = frame_length(sampling_rate), fft_length(sampling_rate)
        with torch.inference_mode(False):  # or it could be used in that mode alone
            self.centered = torch.empty(rows, length, device=device, dtype=dtype)
            self.previous = torch.empty(rows, length, device=device, dtype=dtype)
            # The first column and all after a frame's samples are zero and stay so.
            self.padded = torch.zeros(rows, points, device=device, dtype=dtype)
            self.spectrum = torch.empty(rows, points // 2 + 1, device=device, dtype=dtype.to_complex())


@lru_cache(maxsize=4)
def _kept_workspace(
    rows: int, sampling_rate: int, device: torch.device, dtype: torch.dtype, thread: int
) -> _Workspace:
    """One for each thread that computes features."""
    return _Workspace(rows, sampling_rate, device, dtype)


def _transform(frames: torch.Tensor, spectrum: torch.Tensor, threads: int):
    """Fourier transform of each row. On a CPU PyTorch transforms one after the other, whatever its threads."""
    if threads == 1:
        torch.fft.rfft(frames, out=spectrum)
        return
    shares = zip(frames.tensor_split(threads), spectrum.tensor_split(threads), strict=True)
    list(_thread_pool(threads).map(lambda share: torch.fft.rfft(share[0], out=share[1]), shares))


def _log(energies: torch.Tensor, on_cpu: bool) -> torch.Tensor:
    """The natural logarithm, in place."""
    if not on_cpu:
        return energies.log_()
    values = energies.numpy()
    np.log(values, out=values)  # about three times as fast as PyTorch's on a CPU
    return energies


@cache
def _thread_pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="log_mel")


@lru_cache(maxsize=8)
def _window(sampling_rate: int, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    return torch.hann_window(frame_length(sampling_rate), periodic=False, device=device, dtype=dtype)


@lru_cache(maxsize=8)
def _filter_bands(
    num_mel_bins: int, sampling_rate: int, device: torch.device, dtype: torch.dtype
) -> list[tuple[slice, torch.Tensor]]:
    """The filters as matrices without most of their zeros.

    Low filters cover few FFT bins and high ones many, so that a CPU multiplies with three small matrices; an accelerator
    does better with one.

    Returns:
        For some neighbouring filters each: the part of `2 * fft bins` (real and imaginary squares in turn) that they
        cover, and the matrix of shape `(filters, that part)`.
    """
    filters = mel_filter_bank(num_mel_bins, sampling_rate).repeat_interleave(2, dim=0).T  # (mel bins, 2 * fft bins)
    cuts = [num_mel_bins // 2, num_mel_bins * 3 // 4] if device.type == "cpu" else []
    bands = []
    for part in filters.tensor_split(cuts):
        covered = part.any(dim=0).nonzero().flatten().tolist() or [0]
        bins = slice(covered[0], covered[-1] + 1)
        bands.append((bins, part[:, bins].to(device, dtype).contiguous()))
    return bands

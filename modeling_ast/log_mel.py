"""Kaldi's log-mel filter bank for a batch of waveforms, in torch, on any device.

Equal to `torchaudio.compliance.kaldi.fbank(waveform, window_type="hanning", num_mel_bins=128)` at its defaults, which
the original AST code and stock Transformers call clip by clip: 25 ms Hann window, 10 ms shift, mean of each frame
removed, pre-emphasis 0.97, power spectrum, triangles on the mel scale from 20 Hz to half the sampling rate, natural
logarithm, no dither. Differs in that a batch goes through one set of tensor operations, in blocks that stay in the
processor's cache.
"""

import math
from collections.abc import Iterator
from functools import lru_cache
from threading import local

import numpy as np
import torch

FRAME_LENGTH_MS = 25  # Kaldi's default, as in the released code
FRAME_SHIFT_MS = 10
LOWEST_FREQUENCY_HZ = 20.0
PRE_EMPHASIS = 0.97
# Frames computed at once over the whole batch: keeps the working memory small, on a CPU within its cache, whatever the
# recordings' length.
FRAMES_PER_BLOCK = 1024
FRAMES_PER_BLOCK_ON_ACCELERATOR = 65_536
FILTERS_PER_BAND = 16  # that a CPU multiplies at once, see `_filter_bands`
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


def frames_per_block(device: torch.device) -> int:
    """Frames computed at once over a whole batch."""
    return FRAMES_PER_BLOCK if device.type == "cpu" else FRAMES_PER_BLOCK_ON_ACCELERATOR


def mel_scale(frequency_hz: float) -> float:
    """Mel value of a frequency in Hz, by Kaldi's formula."""
    return 1127.0 * math.log(1.0 + frequency_hz / 700.0)


def mel_edges(num_mel_bins: int, sampling_rate: int) -> torch.Tensor:
    """Where the triangles of [`mel_filter_bank`] lie.

    Args:
        num_mel_bins (`int`): number of triangles.
        sampling_rate (`int`): in Hz.

    Returns:
        `torch.Tensor` of shape `(num_mel_bins + 2,)`, float64, in Hz: triangle `b` rises from edge `b`, peaks at edge
        `b + 1` and ends at edge `b + 2`.
    """
    lowest, highest = mel_scale(LOWEST_FREQUENCY_HZ), mel_scale(sampling_rate / 2)
    mel = torch.linspace(lowest, highest, num_mel_bins + 2, dtype=torch.float64)
    return 700.0 * torch.expm1(mel / 1127.0)


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
        `torch.Tensor` of shape `(batch, frames, num_mel_bins)`, natural logarithm of the energy, without gradients (a
        compiled, exported or traced graph has them).
        Frames that reach into a clip's padding are the caller's to cut: see [`num_frames`].

    Raises:
        ValueError: if there are fewer samples than one window.

    Source: Kaldi's `compute-fbank-feats`, as `torchaudio.compliance.kaldi.fbank` computes it.
    """
    features = None
    for first, block in log_mel_blocks(waveforms, sampling_rate, num_mel_bins):
        if features is None:
            shape = (len(waveforms), num_frames(waveforms.shape[1], sampling_rate), num_mel_bins)
            features = torch.empty(shape, dtype=block.dtype, device=block.device)
        features[:, first : first + block.shape[1]] = block
    return features


def log_mel_blocks(
    waveforms: torch.Tensor, sampling_rate: int, num_mel_bins: int
) -> Iterator[tuple[int, torch.Tensor]]:
    """As [`log_mel_spectrogram`], one stretch of frames after the other, so that a recording's features need not all be
    there at once.

    Yields:
        The first frame's number, and features of shape `(batch, frames of the block, num_mel_bins)`, which may be written
        to. Whatever computes features next in the same thread overwrites them: use them before.
    """
    length, shift = frame_length(sampling_rate), frame_shift(sampling_rate)
    if waveforms.dim() != 2 or waveforms.shape[1] < length:
        raise ValueError(
            f"waveforms have shape {tuple(waveforms.shape)}, expected (batch, samples) with at least {length} samples "
            f"({FRAME_LENGTH_MS} ms at {sampling_rate} Hz). Pad shorter clips with zeros."
        )
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        yield 0, _traceable_log_mel(waveforms, sampling_rate, num_mel_bins)
        return
    batch, total = len(waveforms), num_frames(waveforms.shape[1], sampling_rate)
    on_cpu, kind = waveforms.device.type == "cpu", (waveforms.device, waveforms.dtype)
    at_once = frames_per_block(waveforms.device)
    step = min(total, max(1, at_once // batch))
    sizes = (max(at_once, batch) if on_cpu else batch * step, sampling_rate, num_mel_bins)
    window = _window(sampling_rate, *kind)
    bands = _filter_bands(num_mel_bins, sampling_rate, *kind)
    one = torch.ones((), device=waveforms.device, dtype=waveforms.dtype)
    waveforms = waveforms.detach()
    for first in range(0, total, step):
        count = min(step, total - first)
        rows = batch * count
        space = _kept_workspace(*sizes, *kind) if on_cpu else _Workspace(rows, *sizes[1:], *kind)
        samples = waveforms[:, first * shift : (first + count - 1) * shift + length]
        frames = samples.unfold(1, length, shift)  # (batch, count, length), a view
        centered = space.centered[:rows]
        torch.sub(frames, frames.mean(dim=2, keepdim=True), out=centered.view(batch, count, length))
        # Rounded step by step as Kaldi does: almost empty mel bins are rounding errors, and come out the same only so.
        # All frames are emphasized as one row of numbers, which is quicker: the first sample of a frame then has the
        # last one of the frame before as its predecessor instead of itself, but the window is zero there.
        flat = centered.view(-1)
        torch.addcmul(flat[1:], flat[:-1], one, value=-PRE_EMPHASIS, out=space.emphasized.view(-1)[1 : len(flat)])
        torch.mul(space.emphasized[:rows], window, out=space.padded[:rows, :length])
        torch.fft.rfft(space.padded[:rows], out=space.spectrum[:rows])
        squares = torch.view_as_real(space.spectrum[:rows]).square_().flatten(1)  # real and imaginary parts in turn
        energies = space.energies[:rows]
        for parts, filters, mel_bins in bands:  # written into place, which autocast also leaves in full precision
            torch.mm(squares[:, parts], filters, out=energies[:, mel_bins])
        energies.clamp_(min=SMALLEST_ENERGY)
        if on_cpu:  # NumPy's logarithm is about three times as fast as PyTorch's
            np.log(energies.numpy(), out=energies.numpy())
        else:
            energies.log_()
        yield first, energies.view(batch, count, num_mel_bins)


class _Workspace:
    """Memory for some frames, written to again and again: fresh pages would cost more than the arithmetic."""

    def __init__(self, rows: int, sampling_rate: int, num_mel_bins: int, device: torch.device, dtype: torch.dtype):
        length, points = frame_length(sampling_rate), fft_length(sampling_rate)
        with torch.inference_mode(False):  # or it could be used in that mode alone
            self.centered = torch.empty(rows, length, device=device, dtype=dtype)
            self.emphasized = torch.zeros(
                rows, length, device=device, dtype=dtype
            )  # the very first is never written to
            # All after a frame's samples is zero and stays so.
            self.padded = torch.zeros(rows, points, device=device, dtype=dtype)
            self.spectrum = torch.empty(rows, points // 2 + 1, device=device, dtype=dtype.to_complex())
            self.energies = torch.empty(rows, num_mel_bins, device=device, dtype=dtype)


_of_thread = local()


def _kept_workspace(*sizes_and_kind) -> _Workspace:
    """The workspace of this thread, made anew if it is of another size or kind."""
    if getattr(_of_thread, "made_for", None) != sizes_and_kind:
        _of_thread.space, _of_thread.made_for = _Workspace(*sizes_and_kind), sizes_and_kind
    return _of_thread.space


def _traceable_log_mel(waveforms: torch.Tensor, sampling_rate: int, num_mel_bins: int) -> torch.Tensor:
    """The same for a graph: one expression, nothing written to, no constant kept from outside or for later."""
    length = frame_length(sampling_rate)
    frames = waveforms.unfold(1, length, frame_shift(sampling_rate))  # (batch, frames, length)
    centered = frames - frames.mean(dim=2, keepdim=True)
    window = torch.hann_window(length, periodic=False, device=waveforms.device, dtype=waveforms.dtype)
    emphasized = (centered[..., 1:] - centered[..., :-1] * PRE_EMPHASIS) * window[1:]
    padded = torch.nn.functional.pad(emphasized, (1, fft_length(sampling_rate) - length))
    spectrum = torch.view_as_real(torch.fft.rfft(padded))
    filters = mel_filter_bank.__wrapped__(num_mel_bins, sampling_rate).to(waveforms.device, waveforms.dtype)
    return (spectrum.square().sum(dim=-1) @ filters).clamp(min=SMALLEST_ENERGY).log()


@lru_cache(maxsize=8)
def _window(sampling_rate: int, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    return torch.hann_window(frame_length(sampling_rate), periodic=False, device=device, dtype=dtype)


@lru_cache(maxsize=8)
def _filter_bands(
    num_mel_bins: int, sampling_rate: int, device: torch.device, dtype: torch.dtype
) -> list[tuple[slice, torch.Tensor, slice]]:
    """The filters as matrices without most of their zeros.

    Low filters cover few FFT bins and high ones many, so that a CPU multiplies with several small matrices; an
    accelerator does better with one.

    Returns:
        For some neighbouring filters each: the part of `2 * fft bins` (the squares of real and imaginary parts in turn)
        that they cover, the matrix of shape `(that part, filters)`, and which filters they are.
    """
    filters = mel_filter_bank(num_mel_bins, sampling_rate).repeat_interleave(2, dim=0)
    width = FILTERS_PER_BAND if device.type == "cpu" else num_mel_bins
    bands = []
    for first in range(0, num_mel_bins, width):
        band = filters[:, first : first + width]
        covered = band.any(dim=1).nonzero().flatten().tolist() or [0]
        parts = slice(covered[0], covered[-1] + 1)
        bands.append((parts, band[parts].to(device, dtype), slice(first, first + width)))
    return bands

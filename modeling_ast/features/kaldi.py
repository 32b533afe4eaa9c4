"""What Kaldi's filter bank is made of: constants, the geometry of frames, the mel bank and the window.

Both ways to compute it stand on this file: [`modeling_ast.features.log_mel`] as one expression, and
[`modeling_ast.features.log_mel_kernels`] by compiled loops.

`mel_filter_bank` stands in place of `torchaudio.compliance.kaldi.get_mel_banks`, which computes on PyTorch's default device,
whichever that is, and anew at each call; `num_frames` in place of what `kaldi.fbank` returns, as frames are counted here
before there are samples. Importing this does not import torch: whoever only counts frames does without.
"""

import math
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

FRAME_LENGTH_MS = 25  # Kaldi's default, as in the released code
FRAME_SHIFT_MS = 10
LOWEST_FREQUENCY_HZ = 20.0
PRE_EMPHASIS = 0.97
SMALLEST_ENERGY = 2.0**-23  # float32's epsilon, the floor before the logarithm in every dtype


def frame_length(sampling_rate: int) -> int:
    """Count the samples of one analysis window.

    Args:
        sampling_rate (`int`): in Hz.

    Returns:
        Samples, 400 at 16 kHz.
    """
    return sampling_rate * FRAME_LENGTH_MS // 1000


def frame_shift(sampling_rate: int) -> int:
    """Count the samples between the starts of two frames.

    Args:
        sampling_rate (`int`): in Hz.

    Returns:
        Samples, 160 at 16 kHz.
    """
    return sampling_rate * FRAME_SHIFT_MS // 1000


def num_frames(num_samples, sampling_rate: int):
    """Count the frames that lie completely within a waveform.

    Args:
        num_samples (`int` or integer array or tensor): samples of the waveform, at least one window.
        sampling_rate (`int`): in Hz.

    Returns:
        Frames, of the type of `num_samples`.
    """
    return (num_samples - frame_length(sampling_rate)) // frame_shift(sampling_rate) + 1


def num_samples(frames, sampling_rate: int):
    """Count the samples that so many frames take: the fewest that give them.

    Args:
        frames (`int` or integer array): frames, at least one.
        sampling_rate (`int`): in Hz.

    Returns:
        Samples, of the type of `frames`.
    """
    return frame_length(sampling_rate) + (frames - 1) * frame_shift(sampling_rate)


def is_cut(length, heard: int, sampling_rate: int):
    """Tell whether whole frames of a clip are lost where only its first samples are heard; a part of a frame is no loss.

    Args:
        length (`int` or integer array): samples of the clip.
        heard (`int`): how many of them are heard at most, such as [`num_samples`] of an input length.
        sampling_rate (`int`): in Hz.

    Returns:
        `bool`, or an array of them.
    """
    return num_frames(length, sampling_rate) > num_frames(heard, sampling_rate)


def kaldi_arguments(sampling_rate: int, num_mel_bins: int) -> dict:
    """Give all that says what the features are: the arguments by which `torchaudio.compliance.kaldi.fbank` computes them.

    Args:
        sampling_rate (`int`): in Hz.
        num_mel_bins (`int`): mel bins.

    Returns:
        Keyword arguments of `fbank`, which can be written as JSON.
    """
    return {
        "sample_frequency": float(sampling_rate),
        "num_mel_bins": num_mel_bins,
        "low_freq": LOWEST_FREQUENCY_HZ,
        "high_freq": sampling_rate / 2,
        "frame_length": float(FRAME_LENGTH_MS),
        "frame_shift": float(FRAME_SHIFT_MS),
        "window_type": "hanning",
        "preemphasis_coefficient": PRE_EMPHASIS,
        "remove_dc_offset": True,
        "dither": 0.0,
        "round_to_power_of_two": True,
        "snip_edges": True,
        "use_power": True,
        "use_log_fbank": True,
        "use_energy": False,
        "subtract_mean": False,
    }


def mel_scale(frequency_hz: float) -> float:
    """Convert a frequency to mels by Kaldi's formula.

    Args:
        frequency_hz (`float`): in Hz.

    Returns:
        The same frequency in mels.
    """
    return 1127.0 * math.log(1.0 + frequency_hz / 700.0)


def mel_edges(num_mel_bins: int, sampling_rate: int) -> "torch.Tensor":
    """Where the triangles of [`mel_filter_bank`] lie.

    Args:
        num_mel_bins (`int`): number of triangles.
        sampling_rate (`int`): in Hz.

    Returns:
        `torch.Tensor` of shape `(num_mel_bins + 2,)`, float64, in Hz: triangle `b` rises from edge `b`, peaks at edge
        `b + 1` and ends at edge `b + 2`.
    """
    import torch

    lowest, highest = mel_scale(LOWEST_FREQUENCY_HZ), mel_scale(sampling_rate / 2)
    mel = torch.linspace(lowest, highest, num_mel_bins + 2, device="cpu", dtype=torch.float64)
    return 700.0 * torch.expm1(mel / 1127.0)


@lru_cache(maxsize=8)
def mel_filter_bank(num_mel_bins: int, sampling_rate: int) -> "torch.Tensor":
    """Triangular filters on the mel scale.

    Args:
        num_mel_bins (`int`): number of triangles.
        sampling_rate (`int`): in Hz.

    Returns:
        `torch.Tensor` of shape `(fft bins, num_mel_bins)`, float32. The last row, half the sampling rate, is zero.

    Source: Kaldi's `MelBanks`. The order of operations in float32 is that of torchaudio: a slope close to zero would
    otherwise differ in its leading digits, and so would the logarithm of an almost empty bin.
    """
    import torch

    num_fft_bins = fft_length(sampling_rate) // 2
    lowest, highest = mel_scale(LOWEST_FREQUENCY_HZ), mel_scale(sampling_rate / 2)
    spacing = (highest - lowest) / (num_mel_bins + 1)
    triangle = torch.arange(num_mel_bins, device="cpu", dtype=torch.float32)
    left = lowest + triangle * spacing
    center = lowest + (triangle + 1.0) * spacing
    right = lowest + (triangle + 2.0) * spacing

    frequencies = (
        sampling_rate / fft_length(sampling_rate) * torch.arange(num_fft_bins, device="cpu", dtype=torch.float32)
    )
    mel = (1127.0 * (1.0 + frequencies / 700.0).log())[:, None]  # (fft bins, 1)
    rising, falling = (mel - left) / (center - left), (right - mel) / (right - center)
    filters = torch.minimum(rising, falling).clamp(min=0)
    return torch.nn.functional.pad(filters, (0, 0, 0, 1))


def fft_length(sampling_rate: int) -> int:
    """Count the points of the Fourier transform: the window's length rounded up to a power of two.

    Args:
        sampling_rate (`int`): in Hz.

    Returns:
        Points, 512 at 16 kHz.
    """
    return 1 << (frame_length(sampling_rate) - 1).bit_length()


@lru_cache(maxsize=8)
def symmetric_hann_window(sampling_rate: int, device: "torch.device", dtype: "torch.dtype") -> "torch.Tensor":
    """Make the window that a frame is multiplied with: zero at both ends.

    Args:
        sampling_rate (`int`): in Hz.
        device (`torch.device`): where it is to be.
        dtype (`torch.dtype`): of its values.

    Returns:
        `torch.Tensor` of shape `(window length,)`.
    """
    import torch

    return torch.hann_window(frame_length(sampling_rate), periodic=False, device=device, dtype=dtype)

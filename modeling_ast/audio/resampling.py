"""Convert the sampling rate of a waveform, by the resampler that a checkpoint names; measured in docs/resampling.md.

`"soxr"` is the library of SoX's resampler, with which the authors of AST prepared their clips; `"torchaudio"` is what the
audio classification pipeline of Transformers does with arrays (paths it gives to the `ffmpeg` program, whose resampler is
another). Either takes time and memory in proportion to the samples, whatever the two rates are.

`torchaudio.functional.resample` itself is not called: it makes its kernel anew at each call, which for 44101 to 16000 Hz
holds 706 million values, and it takes a long waveform in one piece.
"""

import math
import numbers
from collections.abc import Callable
from functools import lru_cache

import numpy as np

from .errors import AudioError

LOWEST_RATE, HIGHEST_RATE = 1_000, 500_000  # Hz
DEFAULT_RESAMPLER = "torchaudio"  # of checkpoints that name none, such as those on the Hub
NEW_RESAMPLER = "soxr"  # of checkpoints that are made here

# torchaudio.functional.resample: a sinc under a Hann window that ends at its sixth zero, a little below half the lower rate.
ZERO_CROSSINGS = 6
ROLLOFF = 0.99
LARGEST_KERNEL = 1 << 19  # values; 44.1 kHz to 16 kHz needs 76,000, 11.025 kHz 291,000, 44.117 kHz 706 million
OUTPUTS_PER_ROW = 4
MAX_TERMS = 12
SMALLEST_TERM = 1e-7  # of the kernel's peak: below what float32 tells
BLOCK_VALUES = 1 << 17  # of windows that are laid side by side at a time, or of the result


def resample(
    waveform: np.ndarray, file_rate: int, sampling_rate: int, resampler: str = DEFAULT_RESAMPLER
) -> np.ndarray:
    """Convert the sampling rate of a waveform.

    Args:
        waveform (`np.ndarray` of shape `(samples,)`): float32.
        file_rate (`int`): its sampling rate in Hz.
        sampling_rate (`int`): the one wanted, in Hz.
        resampler (`str`, *optional*, defaults to `"torchaudio"`): that or `"soxr"`.

    Returns:
        `np.ndarray` of shape `(samples,)` and type float32; at least one sample if any was given.

    Raises:
        AudioError: if a rate is not a whole number from 1000 to 500,000 Hz.
        ValueError: if there is no such resampler.
        ImportError: if the resampler is not installed.
    """
    convert = RESAMPLERS[checked_resampler(resampler)]
    file_rate, sampling_rate = checked_rate(file_rate, "The audio"), checked_rate(sampling_rate, "The result")
    if file_rate == sampling_rate or len(waveform) == 0:
        return waveform
    divisor = math.gcd(file_rate, sampling_rate)
    return convert(np.ascontiguousarray(waveform, np.float32), file_rate // divisor, sampling_rate // divisor)


def checked_resampler(resampler: str) -> str:
    """Check the name of a resampler.

    Args:
        resampler (`str`): one of `RESAMPLERS`.

    Returns:
        The name.

    Raises:
        ValueError: if there is no such resampler.
    """
    if isinstance(resampler, str) and resampler in RESAMPLERS:
        return resampler
    known = " or ".join(repr(name) for name in RESAMPLERS)
    raise ValueError(
        f"resampler={resampler!r} is not known here, expected {known}. Pass one of them, or correct the field resampler "
        "in the checkpoint's preprocessor_config.json."
    )


def checked_rate(rate: float, name: str) -> int:
    """Check a sampling rate.

    Args:
        rate (`float`): in Hz.
        name (`str`): what the message calls that which has it.

    Returns:
        The sampling rate as a whole number of Hz.

    Raises:
        AudioError: if it is not a whole number of Hz, or none that is converted.
    """
    is_number = isinstance(rate, numbers.Real) and not isinstance(rate, bool)
    if is_number and LOWEST_RATE <= rate <= HIGHEST_RATE and rate == int(rate):
        return int(rate)
    raise AudioError(
        f"{name} has a sampling rate of {rate!s} Hz, expected a whole number from {LOWEST_RATE} to {HIGHEST_RATE}. Convert it, "
        "for example with ffmpeg -i FILE -ar 16000 CONVERTED.wav; if only its header is wrong, with sox -r RATE FILE "
        "MENDED.wav."
    )


def _resample_with_soxr(waveform: np.ndarray, old: int, new: int) -> np.ndarray:
    """libsoxr at its high quality, which is that of SoX's `rate` by default; rates without a common divisor."""
    try:
        import soxr
    except ImportError as error:
        raise ImportError(f"The resampler soxr is not installed ({error}). Type pip install soxr.") from error
    # It rounds the number of samples, and of less than half a sample makes none.
    missing = -(-old // new) - len(waveform)
    return soxr.resample(np.pad(waveform, (0, missing)) if missing > 0 else waveform, old, new, "HQ")


def _resample_as_torchaudio(waveform: np.ndarray, old: int, new: int) -> np.ndarray:
    """`torchaudio.functional.resample` with its defaults; rates without a common divisor.

    Its kernel holds a row for each of `new` samples, as long as `old` of the waveform and almost all zeros. Up to
    `LARGEST_KERNEL` values it is used as it is, so that the numbers are those of torchaudio bit for bit. Of other rates
    torchaudio computes places in the kernel in float32, which at 1201 to 1600 Hz puts its result 3e-4 of full scale off;
    [`_PiecewiseKernel`] is within 1e-6 of the formula, at a cost like that of 44.1 kHz.
    """
    import torch

    samples = torch.from_numpy(waveform)
    if new * (old + 2 * _reach(old, new)) <= LARGEST_KERNEL:
        return _convolved(samples, old, new).numpy()
    return _piecewise_kernel(old, new)(samples).numpy()


RESAMPLERS: dict[str, Callable[[np.ndarray, int, int], np.ndarray]] = {
    "soxr": _resample_with_soxr,
    "torchaudio": _resample_as_torchaudio,
}


def _reach(old: int, new: int) -> int:
    """How many samples on either side of a place in the waveform the kernel reaches over."""
    return math.ceil(ZERO_CROSSINGS * old / (min(old, new) * ROLLOFF))


def _convolved(samples, old: int, new: int):
    """torchaudio's convolution, a long waveform in blocks: the same numbers, in a seventh of the memory and half the time.

    Args:
        samples (`torch.Tensor` of shape `(samples,)`): float32.
        old (`int`): the waveform's sampling rate, divided by what both rates have in common.
        new (`int`): the wanted one, likewise.
    """
    import torch

    transform = _torchaudio_kernel(old, new)
    rows, at_a_time = len(samples) // old + 1, max(1, BLOCK_VALUES // new)  # of `new` samples of the result
    if rows <= at_a_time:
        return transform(samples)
    resampled = torch.empty(rows, new)
    for start in range(0, rows - at_a_time + 1, at_a_time):
        # The last one has the rest as well: of a few rows the sums are made in another order.
        stop = rows if start + 2 * at_a_time > rows else start + at_a_time
        begin, end = start * old - transform.width, stop * old + transform.width
        block = samples[max(begin, 0) : end]
        block = torch.nn.functional.pad(block, (max(-begin, 0), max(end - len(samples), 0)))
        resampled[start:stop] = torch.nn.functional.conv1d(block[None, None], transform.kernel, stride=old)[0].T
    # torchaudio rounds the length to float32.
    return resampled.view(-1)[: math.ceil(torch.as_tensor(new * len(samples) / old))]


@lru_cache(maxsize=16)
def _torchaudio_kernel(old: int, new: int):
    import torch
    import torchaudio

    # In float32, as torchaudio.functional.resample computes its kernel at each call.
    return torchaudio.transforms.Resample(old, new, dtype=torch.float32)


@lru_cache(maxsize=16)
def _piecewise_kernel(old: int, new: int) -> "_PiecewiseKernel":
    return _PiecewiseKernel(old, new)


class _PiecewiseKernel:
    """torchaudio's formula for rates whose table would be large, as polynomials (Farrow, ISCAS 1988).

    A sample of the result is the sum of the waveform's samples around its place, weighted by the kernel's values there. As
    the place moves on from one sample of the waveform to the next, each weight is a smooth function of the distance: it is
    interpolated at Chebyshev's nodes, and the terms that float32 does not tell are left out. Rows of a few samples of the
    result share a window of the waveform.

    Args:
        old (`int`): the waveform's sampling rate, divided by what both rates have in common.
        new (`int`): the wanted one, likewise.
    """

    def __init__(self, old: int, new: int):
        import torch

        self.old, self.new = old, new
        self.reach = _reach(old, new)
        base = min(old, new) * ROLLOFF
        in_row = np.arange(OUTPUTS_PER_ROW)[:, None] * old / new
        taps = np.arange(-self.reach, self.reach + math.ceil(in_row.max()) + 2)
        nodes = np.cos(np.pi * (np.arange(MAX_TERMS) + 0.5) / MAX_TERMS)
        places = (nodes + 1) / 2 + in_row  # (outputs, nodes)
        crossings = (taps[:, None, None] - places) * base / old
        crossings = crossings.clip(-ZERO_CROSSINGS, ZERO_CROSSINGS)
        weights = np.sinc(crossings) * np.cos(np.pi * crossings / 2 / ZERO_CROSSINGS) ** 2  # (taps, outputs, nodes)
        terms = weights @ np.polynomial.chebyshev.chebvander(nodes, MAX_TERMS - 1) * 2 / MAX_TERMS
        terms[..., 0] /= 2
        self.num_terms = 1 + int(np.flatnonzero(np.abs(terms).max((0, 1)) > SMALLEST_TERM)[-1])
        powers = [np.polynomial.chebyshev.cheb2poly(row) for row in np.eye(self.num_terms)]
        powers = np.stack([np.pad(row, (0, self.num_terms - len(row))) for row in powers])
        coefficients = terms[..., : self.num_terms] @ powers * base / old  # (taps, outputs, powers)
        self.coefficients = torch.from_numpy(coefficients.T.reshape(-1, len(taps)).astype(np.float32))

    def __call__(self, samples):
        """Resample a tensor of shape `(samples,)` and type float32."""
        import torch

        length = -(-len(samples) * self.new // self.old)
        num_taps = self.coefficients.shape[1]
        windows = torch.nn.functional.pad(samples, (self.reach, num_taps)).unfold(0, num_taps, 1)
        resampled = torch.empty(-(-length // OUTPUTS_PER_ROW), OUTPUTS_PER_ROW)
        for rows in torch.arange(len(resampled)).split(BLOCK_VALUES // num_taps):
            places = rows * (OUTPUTS_PER_ROW * self.old)  # in the waveform, in parts of which a sample has `new`
            starts = places // self.new
            distance = (places - starts * self.new).to(torch.float32) * (2 / self.new) - 1  # from -1 to 1
            by_power = (self.coefficients @ windows.index_select(0, starts).T).view(
                self.num_terms, OUTPUTS_PER_ROW, -1
            )
            sums = by_power[-1]
            for power in range(self.num_terms - 2, -1, -1):  # Horner's rule
                sums = torch.addcmul(by_power[power], sums, distance)
            resampled[rows[0] : rows[-1] + 1] = sums.T
        return resampled.view(-1)[:length]

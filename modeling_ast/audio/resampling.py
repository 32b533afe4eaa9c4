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

from .errors import AudioError, UnknownChoiceError

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
SOON_SECONDS = 0.02  # that are computed at a time where the result is wanted soon
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
    convert = (RESAMPLERS | _NOT_NAMED)[checked_resampler(resampler)]
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
        UnknownChoiceError: if there is no such resampler.
    """
    if isinstance(resampler, str) and (resampler in RESAMPLERS or resampler in _NOT_NAMED):
        return resampler
    known = " or ".join(repr(name) for name in RESAMPLERS)
    raise UnknownChoiceError(
        f"resampler={resampler!r} is not known here, expected {known}.",
        "Pass one of them, or correct the field resampler in the checkpoint's preprocessor_config.json.",
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
    # It rounds the number of samples, and of less than half a sample makes none.
    missing = -(-old // new) - len(waveform)
    return _soxr().resample(np.pad(waveform, (0, missing)) if missing > 0 else waveform, old, new, "HQ")


def _soxr():
    try:
        import soxr
    except ImportError as error:
        raise ImportError(f"The resampler soxr is not installed ({error}). Type pip install soxr.") from error
    return soxr


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


def _resample_without_torch(waveform: np.ndarray, old: int, new: int) -> np.ndarray:
    """torchaudio's formula in NumPy; rates without a common divisor."""
    return _SincBlocks(old, new).rest_of(waveform, len(waveform))


RESAMPLERS: dict[str, Callable[[np.ndarray, int, int], np.ndarray]] = {
    "soxr": _resample_with_soxr,
    "torchaudio": _resample_as_torchaudio,
}
# In place of torchaudio's where PyTorch is not to be imported: what a reader is given, and no checkpoint names.
WITHOUT_TORCH = {"torchaudio": "torchaudio in NumPy"}
_NOT_NAMED = {"torchaudio in NumPy": _resample_without_torch}


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
    convert = _ConvolvedBlocks(old, new)
    return convert.rest_of(samples, len(samples))


class _ConvolvedBlocks:
    """torchaudio's convolution of a waveform that comes bit by bit; see [`_convolved`].

    Args:
        old (`int`): the waveform's sampling rate, divided by what both rates have in common.
        new (`int`): the wanted one, likewise.
        block_values (`int`, *optional*): samples of the result that are computed at a time.
    """

    def __init__(self, old: int, new: int, block_values: int = BLOCK_VALUES):
        self.old, self.new = old, new
        self.transform = _torchaudio_kernel(old, new)
        self.at_a_time = max(1, block_values // new)  # rows, of `new` samples of the result each
        self.row = 0  # of the result, from which on nothing was computed

    @property
    def begin(self) -> int:
        """The first sample of the waveform that is still needed."""
        return max(self.row * self.old - self.transform.width, 0)

    def ready(self, samples, begin: int) -> list:
        """Compute the blocks that are the same whatever follows.

        Args:
            samples (`torch.Tensor` of shape `(samples,)`): the waveform from [`begin`] on, as far as it has come.
            begin (`int`): number of the first of them.

        Returns:
            `list` of `torch.Tensor`.
        """
        found, there = [], begin + len(samples)
        rows = there // self.old + 1
        while self.row + 2 * self.at_a_time <= rows:
            stop = self.row + self.at_a_time
            if stop * self.old + self.transform.width > there:
                break
            found.append(self._rows(samples, begin, stop).reshape(-1))
            self.row = stop
        return found

    def rest_of(self, samples, length: int, begin: int = 0):
        """Compute what is left when the waveform has come to its end.

        Args:
            samples (`torch.Tensor` of shape `(samples,)`): the waveform from [`begin`] on.
            length (`int`): samples of the whole waveform.
            begin (`int`, defaults to 0): number of the first of those given.

        Returns:
            `torch.Tensor` of shape `(samples,)`.
        """
        rows = length // self.old + 1
        if rows <= self.at_a_time:
            return self.transform(samples)
        first = self.row
        resampled = samples.new_empty(rows - first, self.new)
        while self.row < rows:
            # The last one has the rest as well: of a few rows the sums are made in another order.
            stop = rows if self.row + 2 * self.at_a_time > rows else self.row + self.at_a_time
            resampled[self.row - first : stop - first] = self._rows(samples, begin, stop)
            self.row = stop
        # torchaudio rounds the length to float32.
        return resampled.view(-1)[: math.ceil(np.float32(self.new * length / self.old)) - first * self.new]

    def _rows(self, samples, begin: int, stop: int):
        """The rows from `self.row` up to `stop`, of shape `(rows, new)`; beyond its ends the waveform is zero."""
        import torch

        start, end = self.row * self.old - self.transform.width - begin, stop * self.old + self.transform.width - begin
        block = samples[max(start, 0) : end]
        block = torch.nn.functional.pad(block, (max(-start, 0), max(end - len(samples), 0)))
        return torch.nn.functional.conv1d(block[None, None], self.transform.kernel, stride=self.old)[0].T


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
        return _PiecewiseBlocks(self).rest_of(samples, len(samples))

    def rows(self, samples, begin: int, rows):
        """Compute rows of the result.

        Args:
            samples (`torch.Tensor` of shape `(samples,)`): a stretch of the waveform, with zeros where it reaches beyond.
            begin (`int`): number of its first sample, which is negative before the waveform's own first one.
            rows (`torch.Tensor` of integers of shape `(rows,)`): which ones.

        Returns:
            `torch.Tensor` of shape `(rows, OUTPUTS_PER_ROW)`.
        """
        import torch

        windows = samples.unfold(0, self.coefficients.shape[1], 1)
        places = rows * (OUTPUTS_PER_ROW * self.old)  # in the waveform, in parts of which a sample has `new`
        starts = places // self.new
        distance = (places - starts * self.new).to(torch.float32) * (2 / self.new) - 1  # from -1 to 1
        starts = starts - self.reach - begin
        by_power = (self.coefficients @ windows.index_select(0, starts).T).view(self.num_terms, OUTPUTS_PER_ROW, -1)
        sums = by_power[-1]
        for power in range(self.num_terms - 2, -1, -1):  # Horner's rule
            sums = torch.addcmul(by_power[power], sums, distance)
        return sums.T


class _PiecewiseBlocks:
    """[`_PiecewiseKernel`] over a waveform that comes bit by bit; its methods are those of [`_ConvolvedBlocks`].

    Args:
        kernel ([`_PiecewiseKernel`]): of the two rates.
    """

    def __init__(self, kernel: _PiecewiseKernel):
        self.kernel = kernel
        self.num_taps = kernel.coefficients.shape[1]
        self.at_a_time = BLOCK_VALUES // self.num_taps  # rows, of `OUTPUTS_PER_ROW` samples of the result each
        self.row = 0

    @property
    def begin(self) -> int:
        return max(self._start(self.row), 0)

    def ready(self, samples, begin: int) -> list:
        found, there = [], begin + len(samples)
        while self._start(self.row + self.at_a_time) + self.num_taps <= there:
            found.append(self._rows(samples, begin, self.row + self.at_a_time).reshape(-1))
        return found

    def rest_of(self, samples, length: int, begin: int = 0):
        import torch

        first = self.row
        outputs = -(-length * self.kernel.new // self.kernel.old)
        rows = -(-outputs // OUTPUTS_PER_ROW)
        resampled = torch.empty(max(rows - first, 0), OUTPUTS_PER_ROW)
        while self.row < rows:
            start, stop = self.row, min(self.row + self.at_a_time, rows)
            resampled[start - first : stop - first] = self._rows(samples, begin, stop)
        return resampled.view(-1)[: outputs - first * OUTPUTS_PER_ROW]

    def _start(self, row: int) -> int:
        """The first sample of the waveform under a row."""
        return row * OUTPUTS_PER_ROW * self.kernel.old // self.kernel.new - self.kernel.reach

    def _rows(self, samples, begin: int, stop: int):
        """The rows from `self.row` up to `stop`."""
        import torch

        first, end = self._start(self.row), self._start(stop - 1) + self.num_taps
        stretch = samples[max(first - begin, 0) : max(end - begin, 0)]
        missing = max(begin - first, 0)
        stretch = torch.nn.functional.pad(stretch, (missing, max(end - first - missing - len(stretch), 0)))
        rows = torch.arange(self.row, stop)
        self.row = stop
        return self.kernel.rows(stretch, first, rows)


class _SincBlocks:
    """torchaudio's formula in NumPy, over a waveform that comes bit by bit; its methods are those of [`_ConvolvedBlocks`] with
    arrays in place of tensors. Each sample of the result is a sum of its own, so that it does not depend on the blocks.

    Args:
        old (`int`): the waveform's sampling rate, divided by what both rates have in common.
        new (`int`): the wanted one, likewise.
    """

    def __init__(self, old: int, new: int):
        self.old, self.new, self.reach = old, new, _reach(old, new)
        self.num_taps = 2 * self.reach + 2
        self.at_a_time = max(BLOCK_VALUES // self.num_taps, 1)  # samples of the result
        self.place = 0  # in the result, from which on nothing was computed
        self.is_table = new * (old + 2 * self.reach) <= LARGEST_KERNEL
        self.table = self._weights(np.arange(new)) if self.is_table else None

    @property
    def begin(self) -> int:
        return max(self._start(self.place), 0)

    def ready(self, samples: np.ndarray, begin: int) -> list[np.ndarray]:
        found, there = [], begin + len(samples)
        while self._start(self.place + self.at_a_time) + self.num_taps <= there:
            found.append(self._sums(samples, begin, self.place + self.at_a_time))
        return found

    def rest_of(self, samples: np.ndarray, length: int, begin: int = 0) -> np.ndarray:
        # torchaudio rounds the length to float32 where it uses a table.
        wanted = length * self.new / self.old
        outputs = math.ceil(np.float32(wanted)) if self.is_table else -(-length * self.new // self.old)
        found = [np.empty(0, np.float32)]
        while self.place < outputs:
            found.append(self._sums(samples, begin, min(self.place + self.at_a_time, outputs)))
        return np.concatenate(found)

    def _start(self, place: int) -> int:
        return place * self.old // self.new - self.reach

    def _weights(self, phases: np.ndarray) -> np.ndarray:
        """Of shape `(phases, taps)`; a phase is how far beyond a sample a place lies, in parts of which a sample has `new`."""
        base = min(self.old, self.new) * ROLLOFF
        taps = np.arange(-self.reach, self.reach + 2)
        crossings = ((taps - phases[:, None] / self.new) * (base / self.old)).clip(-ZERO_CROSSINGS, ZERO_CROSSINGS)
        weights = np.sinc(crossings) * np.cos(np.pi * crossings / 2 / ZERO_CROSSINGS) ** 2 * base / self.old
        return weights.astype(np.float32)

    def _sums(self, samples: np.ndarray, begin: int, stop: int) -> np.ndarray:
        """The samples of the result from `self.place` up to `stop`; beyond its ends the waveform is zero."""
        first, end = self._start(self.place), self._start(stop - 1) + self.num_taps
        stretch = samples[max(first - begin, 0) : max(end - begin, 0)]
        missing = max(begin - first, 0)
        stretch = np.pad(stretch, (missing, max(end - first - missing - len(stretch), 0)))
        starts, phases = np.divmod(np.arange(self.place, stop, dtype=np.int64) * self.old, self.new)
        windows = np.lib.stride_tricks.sliding_window_view(stretch, self.num_taps)[starts - self.reach - first]
        weights = self._weights(phases) if self.table is None else self.table[phases]
        self.place = stop
        return np.einsum("ij,ij->i", windows, weights)


class StreamResampler:
    """Converts the sampling rate of a waveform that comes bit by bit: together the blocks are what [`resample`] gives of
    the whole, bit for bit.

    Args:
        file_rate (`int`): its sampling rate in Hz.
        sampling_rate (`int`): the one wanted, in Hz.
        resampler (`str`, *optional*, defaults to `"torchaudio"`): that or `"soxr"`.
        soon (`bool`, *optional*, defaults to `False`): whether the result is wanted with little delay. torchaudio's convolution
            then adds fewer samples at a time, in another order: the result differs in the last digits of float32.

    Raises:
        AudioError, ValueError, ImportError: see [`resample`].
    """

    def __init__(self, file_rate: int, sampling_rate: int, resampler: str = DEFAULT_RESAMPLER, soon: bool = False):
        file_rate, sampling_rate = checked_rate(file_rate, "The audio"), checked_rate(sampling_rate, "The result")
        divisor = math.gcd(file_rate, sampling_rate)
        old, new = file_rate // divisor, sampling_rate // divisor
        self._is_same, self._ratio = old == new, (old, new)
        self._length = 0
        self._blocks = self._soxr = None
        if self._is_same:
            return
        if checked_resampler(resampler) == "soxr":
            self._soxr = _soxr().ResampleStream(old, new, 1, dtype="float32", quality="HQ")
            return
        is_table = new * (old + 2 * _reach(old, new)) <= LARGEST_KERNEL
        if resampler in _NOT_NAMED:
            self._blocks = _SincBlocks(old, new)
        elif is_table:
            self._blocks = _ConvolvedBlocks(old, new, int(SOON_SECONDS * sampling_rate) if soon else BLOCK_VALUES)
        else:
            self._blocks = _PiecewiseBlocks(_piecewise_kernel(old, new))
        self._held, self._begin = np.empty(0, np.float32), 0

    def add(self, waveform: np.ndarray) -> np.ndarray:
        """Take the next samples.

        Args:
            waveform (`np.ndarray` of shape `(samples,)`): float32.

        Returns:
            `np.ndarray` of shape `(samples,)` and type float32: as much of the result as can be told; it may be nothing.
        """
        self._length += len(waveform)
        if self._is_same:
            return waveform
        if self._soxr is not None:
            return self._soxr.resample_chunk(np.ascontiguousarray(waveform, np.float32))
        self._held = np.concatenate([self._held, waveform], dtype=np.float32)
        found = self._blocks.ready(self._as_taken(self._held), self._begin)
        used = self._blocks.begin - self._begin
        if used > 0:
            self._held, self._begin = self._held[used:].copy(), self._begin + used
        return np.concatenate([np.asarray(each) for each in found]) if found else np.empty(0, np.float32)

    def finish(self) -> np.ndarray:
        """Give the rest, when all samples were taken.

        Returns:
            `np.ndarray` of shape `(samples,)` and type float32.
        """
        if self._is_same or not self._length:
            return np.empty(0, np.float32)
        if self._soxr is not None:
            old, new = self._ratio
            return self._soxr.resample_chunk(np.zeros(max(-(-old // new) - self._length, 0), np.float32), last=True)
        return np.asarray(self._blocks.rest_of(self._as_taken(self._held), self._length, self._begin))

    def _as_taken(self, samples: np.ndarray):
        """What the blocks take."""
        if isinstance(self._blocks, _SincBlocks):
            return samples
        import torch

        return torch.from_numpy(samples)

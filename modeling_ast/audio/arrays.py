"""Audio that is given as an array: integers at their full scale, one channel, and numbers that are no samples.

Integers of 8, 16 and 32 bits have the full scale that they have in a WAV file: 8 bits without a sign are centred on 128,
32 bits may hold 24 of them in the upper ones. Nothing else says how loud an integer is, so that others are an error.
"""

from dataclasses import dataclass

import numpy as np

from .errors import AudioError
from .resampling import DEFAULT_RESAMPLER, HIGHEST_RATE, LOWEST_RATE, resample

ARRAY_KEYS = ("array", "raw")  # of `datasets`, and of pipelines, beside "sampling_rate"
FILE_KEYS = ("bytes", "path")  # of undecoded `datasets` columns

FAR_BEYOND = 2.0  # full scales; what decoders of lossy formats overshoot by is far less
FAR_BEYOND_SHARE = 0.1  # of the samples, from which on this is no overshooting
LOOKED_AT = 2**20  # samples at the beginning of a clip, a minute, that are enough to tell such a share
COMPARED = 1024  # samples of a row, spread over it, that are compared with those of another row
# Of 780 pairs of drum sounds one in a hundred is alike by more than 0.26, of longer recordings none; the two channels of music
# mostly are by more than this, unless their microphones stood far apart.
ALIKE = 0.4  # correlation of the samples, in either sign
AT_FULL_SCALE_SHARE = 0.9  # of the samples that are not zero: music clipped on purpose has far less

_WAV_BITS = {np.dtype(np.int8): 8, np.dtype(np.uint8): 8, np.dtype(np.int16): 16}
_WIDE = (np.dtype(np.int32), np.dtype(np.int64))  # whose range does not say how much of it the samples use
_CONVERT = "Convert it with audio.astype(numpy.float32) / largest_value."


@dataclass
class IntegerRange:
    """What of their range integers use, of one clip or of all clips of a data set.

    Args:
        smallest, largest (`int`): of all samples.
        low_bits (`int`): which of their lowest eight bits are ever set.
    """

    smallest: int = 0
    largest: int = 0
    low_bits: int = 0

    def add(self, array: np.ndarray):
        """Take the samples of an array in.

        Args:
            array (`np.ndarray` of integers): of any shape.
        """
        if array.size:
            self.smallest = min(self.smallest, int(array.min()))
            self.largest = max(self.largest, int(array.max()))
            self.low_bits |= int(np.bitwise_or.reduce(array, axis=None)) & 0xFF

    @property
    def peak(self) -> int:
        """The largest amplitude."""
        return max(self.largest, -self.smallest)


def sample_bits(dtype: np.dtype, found: IntegerRange, whole_data_set: bool = False) -> int | None:
    """Tell how many bits integer samples have; their full scale is 2 to the power of one less.

    Integers of 32 bits have all of them if they go beyond 24, or if their lowest eight are never set, as is the case
    where samples of 16 or 24 bits were read as 32. Those of 64 bits are what lists of numbers become; of a whole data
    set, which is not silent in all clips, the loudest sample tells.

    Args:
        dtype (`np.dtype`): of the samples.
        found ([`IntegerRange`]): of one clip, or of all.
        whole_data_set (`bool`, defaults to `False`): whether it is of all clips.

    Returns:
        Bits of a sample; `None` if nothing tells.
    """
    dtype = dtype.newbyteorder("=")
    if dtype in _WAV_BITS:
        return _WAV_BITS[dtype]
    if dtype not in _WIDE:
        return None
    if whole_data_set and found.smallest < 0 and 2**7 < found.peak <= 2**15:
        return 16
    if found.peak > 2**31 or (dtype == np.int64 and not whole_data_set):
        return None
    clear = found.peak > 2**23 or not found.low_bits
    return 32 if clear and (dtype == np.int32 or found.peak > 2**23) else None


def full_scale_waveform(array: np.ndarray, name: str) -> np.ndarray:
    """Samples in [-1, 1], whatever type of number they have.

    Args:
        array (`np.ndarray`): floats, which stay as they are, or integers.
        name (`str`): what messages call it.

    Returns:
        `np.ndarray` of the same shape; float32 of integers.

    Raises:
        AudioError: for integers of which nothing tells the full scale, and for what is no number.
    """
    if array.dtype.kind == "f":
        return array
    found = IntegerRange()
    if array.dtype.newbyteorder("=") in _WIDE:
        found.add(array)
    bits = sample_bits(array.dtype, found)
    if bits is None:
        expected = f"{name} has dtype {array.dtype}, expected floats in [-1, 1] or 16-bit integers."
        if array.dtype.newbyteorder("=") == np.int32:
            expected = (
                f"{name} has dtype int32 and no sample beyond {found.peak}, so that as 32-bit samples it would be all but "
                f"silent, and as 16-bit or 24-bit ones it need not be. If they are 16-bit ones, pass "
                "audio.astype(numpy.int16)."
            )
        raise AudioError(f"{expected} {_CONVERT}")
    if array.dtype == np.uint8:
        return array.astype(np.float32) / 2**7 - 1
    return array.astype(np.float32) / 2 ** (bits - 1)


def far_beyond_full_scale(samples: np.ndarray) -> str | None:
    """Look whether floats are no samples in [-1, 1], by more than decoders overshoot.

    Args:
        samples (`np.ndarray` of floats of shape `(..., samples)`): of which the beginning is looked at.

    Returns:
        In words, how far beyond they are; `None` if they are not.
    """
    amplitudes = np.abs(samples[..., :LOOKED_AT])
    share = float(np.mean(amplitudes > FAR_BEYOND)) if amplitudes.size else 0.0
    if share < FAR_BEYOND_SHARE:
        return None
    return f"{share:.0%} of its samples beyond {FAR_BEYOND:g} (up to {np.nanmax(amplitudes):.4g})"


def clipped_to_full_scale(samples: np.ndarray) -> bool:
    """Tell whether nothing but full scale is left of samples, as where integers were taken for floats and clipped.

    Args:
        samples (`np.ndarray` of floats): in [-1, 1], of any shape.

    Returns:
        `bool`.
    """
    amplitudes = np.abs(samples[samples != 0])
    smallest_step = 2**-15
    return amplitudes.size > 0 and float(np.mean(amplitudes >= 1 - smallest_step)) >= AT_FULL_SCALE_SHARE


def look_like_channels(rows) -> bool:
    """Tell whether the waveforms in all rows are like that in the first, as channels of one recording mostly are.

    Args:
        rows (`np.ndarray` or `torch.Tensor` of shape `(channels, samples)`): of which some are looked at. Rows without a
            sound are like no other.

    Returns:
        `bool`.
    """
    some = rows[
        :, :: rows.shape[1] // COMPARED | 1
    ]  # odd, so that no sound of a few samples' period is met in one phase
    some = some.astype(np.float32) if isinstance(some, np.ndarray) else some.detach().float().cpu().numpy()
    some -= some.mean(axis=1, keepdims=True)
    energies = np.einsum("cs,cs->c", some, some)
    if not (energies > 0).all():  # or not a number, which is refused elsewhere
        return False
    return bool((np.abs(some[1:] @ some[0]) >= ALIKE * np.sqrt(energies[1:] * energies[0])).all())


def one_dimensional(array: np.ndarray, name: str) -> np.ndarray:
    """Take the only channel of an array.

    Args:
        array (`np.ndarray` of shape `(samples,)` or `(1, samples)`): one channel.
        name (`str`): what messages call it.

    Returns:
        `np.ndarray` of shape `(samples,)`.

    Raises:
        AudioError: if there are several.
    """
    if array.ndim == 2 and array.shape[0] == 1:
        array = array[0]
    if array.ndim != 1:
        advice = ""
        if array.ndim == 2:
            axis = int(np.argmin(array.shape))
            advice = f" Average its channels first, with audio.mean(axis={axis}), or pass one of them."
        raise AudioError(
            f"{name} has shape {tuple(array.shape)}, expected a single channel of shape (samples,).{advice}"
        )
    return array


def hear_array(
    array: np.ndarray, array_rate: int, sampling_rate: int, name: str, resampler: str = DEFAULT_RESAMPLER
) -> np.ndarray:
    """An array as a model hears it.

    Args:
        array (`np.ndarray` of shape `(samples,)` or `(1, samples)`): floats in [-1, 1], or integers.
        array_rate (`int`): its sampling rate in Hz.
        sampling_rate (`int`): the one wanted, in Hz.
        name (`str`): what messages call it.
        resampler (`str`, *optional*): see [`resample`].

    Returns:
        `np.ndarray` of shape `(samples,)`, floats; float32 if the rate was converted.

    Raises:
        AudioError: for several channels, integers without a full scale, and a rate that is none.
    """
    waveform = full_scale_waveform(one_dimensional(array, name), name)
    rate = whole_rate(array_rate, name)
    if rate == sampling_rate:
        return waveform
    return resample(np.ascontiguousarray(waveform, dtype=np.float32), rate, sampling_rate, resampler)


def whole_rate(rate, name: str) -> int:
    """Check a sampling rate: a whole number of Hz, of those that are converted.

    Args:
        rate: what was given.
        name (`str`): what messages call the audio.

    Returns:
        The sampling rate in Hz.

    Raises:
        AudioError: if it is no such number.
    """
    try:
        whole = int(rate)
    except (TypeError, ValueError, OverflowError):
        whole = 0
    if not LOWEST_RATE <= whole <= HIGHEST_RATE or whole != rate:
        raise AudioError(
            f"{name} has the sampling rate {rate!r}, expected a whole number of Hz such as 16000, from {LOWEST_RATE} to "
            f"{HIGHEST_RATE}."
        )
    return whole

"""Which of a file's channels are heard, and what of them is lost in their mean."""

import math
from collections.abc import Iterator

import numpy as np

from .errors import CANCELLED, SILENT, AudioError, AudioNote, UnknownChoiceError
from .silence import is_silence, is_silent

MEAN = "mean"
PLACES = {"left": 1, "right": 2}  # in every format and layout of two channels or more
BLOCK_SECONDS = 0.5  # over which channels are compared with their mean
DROWNED = (
    15.0  # times less power than the loudest channel (11.8 dB): one living channel of four, or a correlation of -0.87
)
NOTABLE_SHARE = 0.1  # of the energy of a file, in stretches where the channels are drowned
FEW_CHANNELS = 8  # from which on NumPy adds in another order
NOTHING_LEFT = 1e-8  # of the loudest channel's energy (-80 dB)
NEARLY_SILENT = 0.01  # power of a channel beside that of the loudest (-20 dB)


def parse_channels(value: str | int) -> str | int:
    """Read which channels are to be heard.

    Args:
        value (`str` or `int`): `"mean"`, `"left"`, `"right"`, or a number from 1 on, also as text.

    Returns:
        The same as [`AudioReader`] takes it: a word, or a number from 1 on.

    Raises:
        UnknownChoiceError: for anything else.
    """
    if value in (MEAN, *PLACES):
        return value
    text = "" if isinstance(value, bool) else str(value)
    if not (text.isascii() and text.isdecimal()) or int(text) < 1:
        raise UnknownChoiceError(
            f"channels={value!r} is none of mean, left, right, or the number of a channel, counted from 1.",
            "Pass for example --channels left, in Python channels='left'.",
        )
    return int(text)


def channel_number(channels: str | int) -> int | None:
    """Tell which single channel is heard.

    Args:
        channels (`str` or `int`): from [`parse_channels`].

    Returns:
        Its number, counted from 1; `None` for the mean of all.
    """
    return None if channels == MEAN else PLACES.get(channels, channels)


def channel_name(number: int, num_channels: int) -> str:
    """Name a channel as the flag does.

    Args:
        number (`int`): which, counted from 1.
        num_channels (`int`): how many the file has.

    Returns:
        `"left"`, `"right"`, or the number as text.
    """
    return {place: name for name, place in PLACES.items()}[number] if num_channels == 2 else str(number)


def one_channel(samples: np.ndarray, channels: str | int, name: str) -> np.ndarray:
    """Make one channel of a file's channels.

    The one channel of a mono file is also its left one. It is not its right one: a file whose right channel was asked for
    and that has none may be of another recorder or microphone.

    Args:
        samples (`np.ndarray` of shape `(samples, channels)`): of the file.
        channels (`str` or `int`): from [`parse_channels`].
        name (`str`): what to call the file.

    Returns:
        `np.ndarray` of shape `(samples,)`.

    Raises:
        AudioError: if the file has no such channel.
    """
    place, number = channel_number(channels), samples.shape[1]
    if place is None:
        return _mean(samples)
    if place > number:
        has = "is mono" if number == 1 else f"has {number} channels"
        up_to = (
            "--channels left or --channels mean, which both hear its one channel" if number == 1 else "--channels mean"
        )
        wanted = f"{channels} channel" if channels in PLACES else f"channel {channels}"
        raise AudioError(f"{name} {has}, so there is no {wanted} in it. Pass {up_to}, or leave the file out.")
    return np.ascontiguousarray(samples[:, place - 1])


def _mean(samples: np.ndarray) -> np.ndarray:
    if samples.shape[1] == 1:
        return samples[:, 0]
    with np.errstate(over="ignore", invalid="ignore"):  # of samples that are refused afterwards
        if samples.shape[1] >= FEW_CHANNELS:
            return samples.mean(axis=1)
        # The same sums, and for few channels ten times faster.
        total = samples[:, 0].copy()
        for channel in samples.T[1:]:
            total += channel
        total /= samples.shape[1]
        return total


def sound_notes(
    samples: np.ndarray,
    waveform: np.ndarray,
    sampling_rate: int,
    channels: str | int,
    name: str,
    seconds: float | None,
) -> Iterator[AudioNote]:
    """Tell what is to be said of a file whose samples are all there: channels that cancel or drown each other, and
    silence.

    Args:
        samples (`np.ndarray` of shape `(samples, channels)`): of the file, finite.
        waveform (`np.ndarray` of shape `(samples,)`): what [`one_channel`] made of them.
        sampling_rate (`int`): of both, in Hz.
        channels (`str` or `int`): from [`parse_channels`].
        name (`str`): what to call the file.
        seconds (`float`, *optional*): how much of its beginning is heard; all of it if not given.

    Yields:
        [`AudioNote`].
    """
    heard = len(waveform) if seconds is None else math.ceil(seconds * sampling_rate)
    levels = SoundLevels(sampling_rate, channels)
    levels.add(samples[:heard], waveform[:heard])
    for note in levels.notes(name):
        is_of_one_channel = channels != MEAN and levels.alive
        if note.kind == SILENT and not is_of_one_channel and heard < len(waveform) and not is_silent(waveform):
            note = AudioNote(
                SILENT,
                f"{name} is silent in its first {seconds:.2f} s, which is all that is heard of it. What a model says of silence "
                "means nothing: cut the file so that it begins with the sound.",
            )
        yield note


def stretch_notes(
    samples: np.ndarray, waveform: np.ndarray, sampling_rate: int, channels: str | int, name: str
) -> tuple[AudioNote, ...]:
    """Tell what is to be said of a stretch of a longer file: that its channels cancel. Silence is usual there.

    Args:
        samples (`np.ndarray` of shape `(samples, channels)`): of the stretch, finite.
        waveform (`np.ndarray` of shape `(samples,)`): what [`one_channel`] made of them.
        sampling_rate (`int`): of both, in Hz.
        channels (`str` or `int`): from [`parse_channels`].
        name (`str`): what to call the file.

    Returns:
        `tuple[AudioNote, ...]`: of one note at most, in the same words for all stretches, so that it is said once of a file.
    """
    levels = SoundLevels(sampling_rate, channels)
    levels.add(samples, waveform)
    if not any(note.kind == CANCELLED for note in levels.notes(name)):
        return ()
    return (
        AudioNote(
            CANCELLED,
            f"{name}: in a part of it, its channels cancel or are silent but for one, and their mean, which is what is heard, is "
            "quieter than the loudest of them. Pass --channels with the one that is good.",
        ),
    )


class SoundLevels:
    """How loud a file's channels and what is heard of them are, told block by block.

    Args:
        sampling_rate (`int`): in Hz.
        channels (`str` or `int`): from [`parse_channels`].
    """

    def __init__(self, sampling_rate: int, channels: str | int):
        self.sampling_rate, self.channels = sampling_rate, channels
        self.lowest, self.highest = math.inf, -math.inf  # of what is heard; NaN if one sample is
        self._length = 0
        self._ranges: list[list[float]] = []  # lowest and highest sample of each channel, until it is no silence
        self._powers: list[list[float]] = []  # of each channel, in blocks of half a second
        self._powers_of_mean: list[float] = []

    @property
    def block(self) -> int:
        """Samples over which channels are compared."""
        return _block(self.sampling_rate)

    @property
    def alive(self) -> list[int]:
        """The numbers of the channels that are not silent, of a file with several."""
        if len(self._ranges) < 2:
            return []
        return [number for number, range_ in enumerate(self._ranges, start=1) if not is_silence(*range_)]

    @property
    def is_silent(self) -> bool:
        """Whether what is heard is nothing but silence."""
        return is_silence(self.lowest, self.highest)

    def add(self, samples: np.ndarray, waveform: np.ndarray):
        """Take the next samples.

        Args:
            samples (`np.ndarray` of shape `(samples, channels)`): a multiple of [`SoundLevels.block`], but for the last ones.
            waveform (`np.ndarray` of shape `(samples,)`): what [`one_channel`] made of them.
        """
        if not len(waveform):
            return
        self._length += len(waveform)
        self.lowest = float(np.minimum(self.lowest, waveform.min()))  # NaN stays
        self.highest = float(np.maximum(self.highest, waveform.max()))
        if samples.shape[1] < 2:
            return
        self._ranges = self._ranges or [[math.inf, -math.inf] for _ in samples.T]
        for channel, range_ in zip(samples.T, self._ranges, strict=True):
            if is_silence(*range_):
                range_[:] = min(range_[0], float(channel.min())), max(range_[1], float(channel.max()))
        if self.channels == MEAN:
            powers, of_mean = _powers(samples, waveform, self.block)
            self._powers += powers
            self._powers_of_mean += of_mean

    def notes(self, name: str) -> Iterator[AudioNote]:
        """Tell what is to be said of what came: see [`sound_notes`].

        Args:
            name (`str`): what to call the file.

        Yields:
            [`AudioNote`].
        """
        if self._powers:
            note = self._cancelled_note(name)
            if note is not None:
                yield note
                return
        if not self.is_silent:
            return
        if self.channels != MEAN and self.alive:
            yield AudioNote(
                SILENT,
                f"{name} is silent in the channel that --channels {self.channels} chose, and not in others. Pass --channels "
                f"{channel_name(self.alive[0], len(self._ranges))}.",
            )
        else:
            yield AudioNote(
                SILENT,
                f"{name} is silent. Check the microphone and its volume, or export it again: what a model says of silence means "
                "nothing.",
            )

    def _cancelled_note(self, name: str) -> AudioNote | None:
        """What is lost in the mean of a file's channels, if that is more than a little."""
        powers = np.array(self._powers, dtype=np.float64)  # (blocks, channels)
        of_mean = np.array(self._powers_of_mean, dtype=np.float64)
        loudest = powers.max(axis=1)
        drowned = (loudest > 0) & (DROWNED * of_mean <= loudest)
        if not loudest[drowned].sum() >= NOTABLE_SHARE * loudest.sum() or not drowned.any():
            return None
        number, of_channels = powers.shape[1], powers.sum(axis=0)
        best = int(of_channels.argmax())
        if best + 1 not in self.alive:
            return None
        quiet = int(np.count_nonzero(of_channels < NEARLY_SILENT * of_channels[best]))
        what = (
            f"{quiet} of its {number} channels are silent or nearly so" if quiet else f"its {number} channels cancel"
        )
        left = of_mean[drowned].sum() / loudest[drowned].sum()
        loss = (
            "is silent"
            if self.is_silent or left < NOTHING_LEFT
            else f"is {-10 * math.log10(left):.0f} dB quieter than the loudest of them"
        )
        if not drowned[loudest > 0].all():
            length = self._length / self.sampling_rate
            lost = min(int(drowned.sum()) * self.block / self.sampling_rate, length)
            loss += f" for {lost:.1f} of {length:.1f} s"
        return AudioNote(
            CANCELLED,
            f"{name}: {what}, and their mean, which is what is heard, {loss}. Pass --channels "
            f"{channel_name(best + 1, number)}.",
        )


class ChunkLevels:
    """[`SoundLevels`] of sound that comes in chunks of any lengths.

    Args:
        channels (`str` or `int`): from [`parse_channels`].
    """

    def __init__(self, channels: str | int):
        self.channels = channels
        self._levels: SoundLevels | None = None
        self._held: list[tuple[np.ndarray, np.ndarray]] = []  # less than a block
        self._number_held = 0
        self._number_of_channels: int | None = None  # `None` again where it changes: then nothing can be compared

    def add(self, samples: np.ndarray, waveform: np.ndarray, sampling_rate: int):
        """Take the next chunk.

        Args:
            samples (`np.ndarray` of shape `(samples, channels)`): of any length.
            waveform (`np.ndarray` of shape `(samples,)`): what [`one_channel`] made of them.
            sampling_rate (`int`): in Hz, the same for all chunks.
        """
        if self._levels is None:
            self._levels, self._number_of_channels = SoundLevels(sampling_rate, self.channels), samples.shape[1]
        if samples.shape[1] != self._number_of_channels:
            self._number_of_channels, self._held = None, []
            return
        self._held.append((samples.copy(), waveform.copy()))  # whoever gives chunks may fill one array again and again
        self._number_held += len(waveform)
        if self._number_held < self._levels.block:
            return
        whole = self._number_held // self._levels.block * self._levels.block
        samples, waveform = (np.concatenate(parts) for parts in zip(*self._held, strict=True))
        self._levels.add(samples[:whole], waveform[:whole])
        self._held, self._number_held = [(samples[whole:].copy(), waveform[whole:].copy())], len(waveform) - whole

    def notes(self, name: str) -> tuple[AudioNote, ...]:
        """Tell, when all chunks have come, what is to be said of them: see [`SoundLevels.notes`].

        Args:
            name (`str`): what to call the sound.

        Returns:
            `tuple[AudioNote, ...]`: nothing if the number of channels changed.
        """
        if self._number_of_channels is None:
            return ()
        if self._held:
            self._levels.add(*(np.concatenate(parts) for parts in zip(*self._held, strict=True)))
            self._held = []
        return tuple(self._levels.notes(name))


def silent_band_note(name: str, sampling_rate: int) -> AudioNote:
    """Say that nothing but silence is left of a file at the sampling rate of the model.

    Args:
        name (`str`): what to call the file.
        sampling_rate (`int`): of the model, in Hz.

    Returns:
        [`AudioNote`].
    """
    return AudioNote(
        SILENT,
        f"{name} is silent below {sampling_rate / 2:g} Hz, and above that nothing is heard. What a model says of silence means "
        "nothing: leave it out, or slow it down if what it holds is ultrasound.",
    )


def _block(sampling_rate: int) -> int:
    return max(int(BLOCK_SECONDS * sampling_rate), 1)


def _powers(samples: np.ndarray, waveform: np.ndarray, size: int) -> tuple[list[list[float]], list[float]]:
    """Energy of each channel and of their mean in blocks of so many samples, constant offsets aside."""
    powers, of_mean = [], []
    with np.errstate(over="ignore", invalid="ignore"):  # of samples far beyond full scale
        for start in range(0, len(waveform), size):
            # Column by column: along rows of a few channels NumPy is ten times slower.
            powers.append([float(_energy(channel[start : start + size])) for channel in samples.T])
            of_mean.append(float(_energy(waveform[start : start + size])))
    return powers, of_mean


def _energy(block: np.ndarray) -> np.float32:
    centred = block - block.mean()
    return np.dot(centred, centred)

"""How much a file may become in memory, and how loud its samples may be: bounds that no recording meets.

A header can announce 2^36 samples, and a few bytes of FLAC or Opus can hold as much silence as fills a memory. Memory here
grows with what has been decoded, and a file that becomes more than its bytes can hold of sound is refused.
"""

import math
from dataclasses import dataclass

import numpy as np

from .errors import AudioError

# Numbers, which are samples times channels, that any file may become: 70 minutes of mono at 16 kHz, 12 of stereo at 44.1 kHz.
ALWAYS_ALLOWED = 1 << 26
# For each byte of a larger file. Speech in Opus at 6 kbit/s has 64 and silence in FLAC 250 to 512; FLAC can be made to have 6000.
ALLOWED_PER_BYTE = 256
# Hz. A file of a lower rate is counted as what it becomes at this one; rates below `LOWEST_COUNTED`, which are refused
# elsewhere, as if they were that.
COUNTED_RATE, LOWEST_COUNTED = 16_000, 1_000
READ_AT_ONCE = 1 << 22  # numbers whatever the size of a file, and for each byte:
READ_PER_BYTE = 64
MOST_TAGS = 1_000  # or other parts of a file without a sound, one behind the other; music has a handful
# 42 dB above full scale: no mix comes near, and integers of 16 bits that were written as floats go beyond.
LOUDEST = 128.0
_SCALES = ((2.0**15, "16"), (2.0**23, "24"), (2.0**31, "32"))  # of integers, with their bits


class TooMuchError(AudioError):
    """A file that becomes more than it may."""


@dataclass(frozen=True)
class AudioLimits:
    """The most that somebody takes of any recording, kept while it is decoded, whatever its header says.

    Args:
        seconds (`float`): how long it may be.
        numbers (`int`): how many samples times channels; of 4 bytes each.
    """

    seconds: float
    numbers: int


class Allowance:
    """How many numbers a file may still become, and how many seconds.

    Args:
        name (`str`): what messages call the file.
        size (`int`): its bytes.
        limits ([`AudioLimits`], *optional*): of whoever takes it.
    """

    def __init__(self, name: str, size: int, limits: AudioLimits | None = None):
        self.name, self.size, self.limits = name, size, limits
        self.left = max(ALWAYS_ALLOWED, ALLOWED_PER_BYTE * size)
        self.seconds_left = math.inf
        if limits is not None:
            self.left = min(self.left, limits.numbers)
            self.seconds_left = limits.seconds

    def samples(self, channels: int, sampling_rate: float) -> int:
        """Tell how many samples the rest of the allowance is.

        Args:
            channels (`int`): of each sample.
            sampling_rate (`float`): in Hz.

        Returns:
            Samples of each channel.
        """
        by_time = self.seconds_left * max(sampling_rate, 1)
        return int(min(self.left / self._numbers(channels, sampling_rate), by_time))

    def take(self, samples: int, channels: int, sampling_rate: float):
        """Count samples, before memory is taken for them.

        Args:
            samples (`int`): how many.
            channels (`int`): see [`Allowance.samples`].
            sampling_rate (`float`): see [`Allowance.samples`].

        Raises:
            TooMuchError: if that is more than the file may become.
        """
        numbers = int(samples * self._numbers(channels, sampling_rate))
        if numbers > self.left or samples > self.seconds_left * max(sampling_rate, 1):
            raise self.error(channels, sampling_rate)
        self.left -= numbers
        self.seconds_left -= samples / max(sampling_rate, 1)

    @staticmethod
    def _numbers(channels: int, sampling_rate: float) -> float:
        return max(channels, COUNTED_RATE / max(sampling_rate, LOWEST_COUNTED))

    def error(self, channels: int, sampling_rate: float) -> TooMuchError:
        """Make the error that says that the file is more than it may become.

        Args:
            channels (`int`): see [`Allowance.samples`].
            sampling_rate (`float`): see [`Allowance.samples`].

        Returns:
            [`TooMuchError`].
        """
        whole = Allowance(self.name, self.size, self.limits)
        seconds = whole.samples(channels, sampling_rate) / max(sampling_rate, 1)
        if whole.seconds_left <= seconds + 1 / max(sampling_rate, 1):  # not the numbers, the time is the limit
            return TooMuchError(
                f"{self.name} lasts longer than the {whole.seconds_left / 60:g} minutes that are taken here. Cut out a part of "
                "it, or use the command ast-tag, which takes recordings of any length."
            )
        if self.limits is not None and whole.left == self.limits.numbers:
            return TooMuchError(
                f"{self.name} has {channels} channel(s) at {sampling_rate:g} Hz, of which {seconds:.3g} s are taken here, and "
                "lasts longer. Convert it: ffmpeg -i FILE -ac 1 -ar 16000 CONVERTED.wav makes one channel of 16 kHz."
            )
        return TooMuchError(
            f"{self.name} becomes more than {seconds:.0f} s of {channels} channel(s) at {sampling_rate:g} Hz, and has only "
            f"{self.size} bytes, in which so much sound has no room. It is damaged, made to fill memory, or nearly all silence: "
            "leave it out, or cut it in parts."
        )


def is_level_of_sound(lowest: float, highest: float) -> bool:
    """Tell whether samples may be sound; see [`checked_level`].

    Args:
        lowest (`float`): the lowest sample of a waveform.
        highest (`float`): the highest one.

    Returns:
        `bool`.
    """
    return max(-lowest, highest) <= LOUDEST and lowest == lowest  # neither is NaN


def checked_level(lowest: float, highest: float, name: str):
    """Refuse samples that are no sound.

    Args:
        lowest (`float`): the lowest sample of a waveform, full scale at -1 and 1; NaN if one of its samples is.
        highest (`float`): the highest one, likewise.
        name (`str`): what messages call the file.

    Raises:
        AudioError: for NaN and infinite samples, and for samples beyond `LOUDEST`.
    """
    if is_level_of_sound(lowest, highest):
        return
    peak = max(-lowest, highest)
    if not np.isfinite((lowest, highest)).all():
        raise AudioError(f"{name} contains NaN or infinite samples. Export it again, for example as 16-bit WAV.")
    advice = "It is damaged or no audio: export it again, for example as 16-bit WAV, or leave it out."
    for full_scale, bits in _SCALES:
        if peak <= full_scale:
            advice = (
                f"If they are integers of {bits} bits that were written as floats, divide them: ffmpeg -i FILE -af "
                f"volume=1/{full_scale:.0f} -c:a pcm_f32le CONVERTED.wav; else export it again, or leave it out."
            )
            break
    raise AudioError(
        f"{name} has samples up to {peak:.4g} times full scale, expected up to 1 and, of what is not yet mastered, up to "
        f"{LOUDEST:g}. {advice}"
    )

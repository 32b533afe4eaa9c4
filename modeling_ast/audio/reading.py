"""Read audio files: mono float32 waveforms at one sampling rate, and in words what of a file was not heard.

Stock Transformers' pipeline decodes paths with the `ffmpeg` program, which also makes one channel of several and converts
the sampling rate, and leaves what it loses in silence.
"""

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from typing import BinaryIO, TypeVar

import numpy as np

from ..system.regular_files import SpecialFileError, only_files
from .blocks import BLOCK_SECONDS, RecordingBlocks, WholeNeededError
from .channels import SoundLevels, channel_number, one_channel, parse_channels, silent_band_note, sound_notes
from .content import BytesContent, Content, FileContent
from .decoders import (
    DecodedAudio,
    beyond_most_recordings,
    decode_recording,
    one_after_the_other,
    stream_numbers,
    stream_seconds,
    streams_of,
)
from .errors import (
    CANCELLED,
    CHECK_SPELLING,
    LEFT_OUT,
    SILENT,
    AudioError,
    AudioNote,
    MissingAudioError,
    errors_of_file,
)
from .ffmpeg import announced_seconds
from .formats import (
    MOST_RECORDINGS,
    WITHOUT_LENGTH,
    container_is_cut_off,
    is_length_of_audio,
    recordings,
    sniff_format,
    without_tags,
)
from .limits import COUNTED_RATE, Allowance, AudioLimits, TooMuchError, checked_level, is_level_of_sound
from .resampling import DEFAULT_RESAMPLER, StreamResampler, checked_rate, checked_resampler, resample
from .silence import is_silence, is_silent

logger = logging.getLogger(__name__)

SECONDS_BEYOND = 60.0  # that a file is decoded beyond what is asked for, if it lasts that long
UNRELIABLE = WITHOUT_LENGTH | {"AVI", "AAC", None}  # formats whose announced length may be far from the truth
# Recordings joined in a file that cannot be decoded, after which no other is tried: each may take a second.
MOST_FAILED = 10
HELD_WHOLE = 1 << 26  # bytes of a file that are read at once; of a larger one as much as is decoded
DECODED_AHEAD = 1 << 22  # bytes of samples that are held of a file before it is its turn; a minute at 16 kHz
HEARD_WHOLE = 1 << 18  # bytes of a file that is no longer than is decoded at once; 6 minutes of speech at 6 kbit/s
EACH = "each"  # of the channels by itself
T = TypeVar("T")


@dataclass(frozen=True)
class Heard:
    """A file as a model hears it.

    Args:
        waveform (`np.ndarray` of shape `(samples,)`): mono float32, full scale at -1 and 1.
        notes (`tuple[AudioNote, ...]`): what the user should know about it.
        file_rate (`int`, *optional*): the file's own sampling rate in Hz, where that is known.
    """

    waveform: np.ndarray
    notes: tuple[AudioNote, ...] = ()
    file_rate: int | None = None


@dataclass(frozen=True)
class AudioReader:
    """How files become the waveforms of a model; see also [`ASTFeatureExtractor.audio_reader`].

    Args:
        sampling_rate (`int`, *optional*, defaults to 16000): of the waveforms, in Hz.
        channels (`str` or `int`, *optional*, defaults to `"mean"`): which channels are heard: the `"mean"` of all,
            `"left"`, `"right"`, or the number of one, counted from 1.
        resampler (`str`, *optional*, defaults to `"torchaudio"`): see [`resample`].
        refused (`frozenset[str]`, *optional*): kinds of notes that are errors, such as `frozenset({CUT_OFF})`.
        limits ([`AudioLimits`], *optional*): the most that is taken of a recording; more is an error.

    Raises:
        ValueError: if there is no such choice of channels, or no such resampler; the message says which there are.
    """

    sampling_rate: int = 16_000
    channels: str | int = "mean"
    resampler: str = DEFAULT_RESAMPLER
    refused: frozenset[str] = frozenset()
    limits: AudioLimits | None = None

    def __post_init__(self):
        checked_resampler(self.resampler)
        object.__setattr__(self, "channels", parse_channels(self.channels))

    @property
    def key(self) -> str:
        """What tells apart the waveforms of two readers; what is refused or limited is none of it."""
        return f"{self.sampling_rate} {channel_number(self.channels)} {self.resampler}"

    def hear(
        self,
        source: str | os.PathLike | bytes | BinaryIO | dict,
        name: str | None = None,
        max_samples: int | None = None,
    ) -> Heard:
        """Decode an audio file, make one channel of its channels and convert its sampling rate.

        Args:
            source (`str`, `os.PathLike`, `bytes`, binary file or `dict`): see [`read_audio`].
            name (`str`, *optional*): see [`read_audio`].
            max_samples (`int`, *optional*): see [`read_audio`].

        Returns:
            [`Heard`].

        Raises:
            AudioError, TypeError: see [`read_audio`]; also for a channel that the file has not, and for what is `refused`.
        """
        seconds = None if max_samples is None else max_samples / self.sampling_rate
        name = name or _name_of(source)
        return self.convert(*self.decode(source, name, seconds), name, max_samples)

    def stream(
        self,
        source: str | os.PathLike,
        name: str | None = None,
        each_channel: bool = False,
        others: Sequence["AudioReader"] = (),
    ) -> "SoundStream":
        """Hear an audio file block by block, in memory that does not grow with its length.

        Args:
            source (`str` or `os.PathLike`): the file.
            name (`str`, *optional*): see [`read_audio`].
            each_channel (`bool`, *optional*, defaults to `False`): whether each of its channels is heard by itself, in
                place of the reader's own choice.
            others (sequence of [`AudioReader`], *optional*): of the same channels, with other sampling rates or resamplers; what
                is decoded is converted for each of them.

        Returns:
            [`SoundStream`]; nothing is read before its blocks are asked for.
        """
        return SoundStream(self, source, name or _name_of(source), each_channel, others=others)

    def convert(self, decoded: DecodedAudio, waveform: np.ndarray, name: str, max_samples: int | None = None) -> Heard:
        """Convert the sampling rate of what [`AudioReader.decode`] gave.

        Args:
            decoded ([`DecodedAudio`]): of the file, with what is to be said of it.
            waveform (`np.ndarray` of shape `(samples,)`): the channel that is heard, or its beginning.
            name (`str`): what messages call the file.
            max_samples (`int`, *optional*): how many samples of the result are of interest.

        Returns:
            [`Heard`].

        Raises:
            AudioError: if it cannot be converted, or is `refused`.
        """
        if decoded.sampling_rate == self.sampling_rate:
            return Heard(waveform, decoded.notes, decoded.sampling_rate)
        with errors_of_file(name, "resampled"):
            waveform = resample(waveform, decoded.sampling_rate, self.sampling_rate, self.resampler)
            silent = is_silent(waveform[:max_samples])
        if not silent or any(note.kind in (CANCELLED, SILENT) for note in decoded.notes):
            return Heard(waveform, decoded.notes, decoded.sampling_rate)
        notes = self.passed((*decoded.notes, silent_band_note(name, self.sampling_rate)))
        return Heard(waveform, notes, decoded.sampling_rate)

    def decode(
        self,
        source: str | os.PathLike | bytes | BinaryIO | dict,
        name: str | None = None,
        seconds: float | None = None,
        heard: float | None = None,
    ) -> tuple[DecodedAudio, np.ndarray]:
        """Decode an audio file at its own sampling rate.

        Args:
            source (`str`, `os.PathLike`, `bytes`, binary file or `dict`): see [`read_audio`].
            name (`str`, *optional*): see [`read_audio`].
            seconds (`float`, *optional*): how much of it is of interest; see [`decode_audio`].
            heard (`float`, *optional*): how many seconds of that a model hears, of which silence and channels that cancel
                are told; all if not given.

        Returns:
            What the file holds, with all that is to be said of it, and the one channel of it that is heard, of shape
            `(samples,)`.

        Raises:
            AudioError, TypeError: see [`AudioReader.hear`].
        """
        name = name or _name_of(source)
        with errors_of_file(name):
            decoded = decode_audio(source, name, seconds, self.limits)
            if not len(decoded.samples):
                raise AudioError(_without_samples(name))
            checked_rate(decoded.sampling_rate, name)
            waveform = one_channel(decoded.samples, self.channels, name)
            lowest, highest = float(waveform.min()), float(waveform.max())  # NaN if one sample is
            checked_level(lowest, highest, name)
            heard = seconds if heard is None else heard
            if decoded.samples.shape[1] > 1 or heard is not None or is_silence(lowest, highest):
                of_sound = sound_notes(decoded.samples, waveform, decoded.sampling_rate, self.channels, name, heard)
                decoded = replace(decoded, notes=(*decoded.notes, *of_sound))
        self.passed(decoded.notes)
        return decoded, waveform

    def passed(self, notes: tuple[AudioNote, ...]) -> tuple[AudioNote, ...]:
        """Let notes pass if none of them is `refused`.

        Args:
            notes (`tuple[AudioNote, ...]`): of a file.

        Returns:
            The same.

        Raises:
            AudioError: with the words of one that is refused.
        """
        for note in notes:
            if note.kind in self.refused:
                raise AudioError(note.text)
        return notes

    def read(
        self,
        source: str | os.PathLike | bytes | BinaryIO | dict,
        name: str | None = None,
        max_samples: int | None = None,
    ) -> np.ndarray:
        """Hear an audio file as [`AudioReader.hear`] does; its notes are logged as warnings.

        Args:
            source (`str`, `os.PathLike`, `bytes`, binary file or `dict`): see [`read_audio`].
            name (`str`, *optional*): see [`read_audio`].
            max_samples (`int`, *optional*): see [`read_audio`].

        Returns:
            The waveform, float32 `np.ndarray` of shape `(samples,)`.
        """
        heard = self.hear(source, name, max_samples)
        for note in heard.notes:
            logger.warning(note.text)
        return heard.waveform


class SoundStream:
    """A file as a model hears it, block by block; together the blocks are what [`AudioReader.hear`] gives, bit for bit.

    Args:
        reader ([`AudioReader`]): how it is heard.
        source (`str` or `os.PathLike`): the file.
        name (`str`): what messages call it.
        each_channel (`bool`): see [`AudioReader.stream`].
        whole (`bool`): whether the file is heard as a whole, as by [`AudioReader.hear`], however long it is.
        others (sequence of [`AudioReader`]): see [`AudioReader.stream`].

    Attributes:
        file_rate (`int`, *optional*): the file's own sampling rate in Hz, from the first block on.
        num_channels (`int`, *optional*): how many channels it has, from the first block on.
        announced (`float`, *optional*): seconds that it should last, from the first block on.
        notes (`tuple[AudioNote, ...]`): what is to be said of it, when all blocks were given.
    """

    def __init__(
        self,
        reader: AudioReader,
        source: str | os.PathLike,
        name: str,
        each_channel: bool = False,
        whole: bool = False,
        others: Sequence[AudioReader] = (),
    ):
        self.readers = (reader, *others)
        self.reader, self.source, self.name, self.each_channel = reader, source, name, each_channel
        self.file_rate: int | None = None
        self.num_channels: int | None = None
        self.announced: float | None = None
        self.notes: tuple[AudioNote, ...] = ()
        self._needs_whole = whole
        self._ahead: Future | None = None

    def hear_ahead(self, threads: Executor):
        """Have the file decoded by other threads before its blocks are asked for, as far as `DECODED_AHEAD`; errors wait until then.

        Args:
            threads (`Executor`): which do it.
        """
        self._ahead = threads.submit(self._first_blocks)

    def _first_blocks(self) -> Iterator[list[np.ndarray]]:
        """Decode what may be held, and go on with the rest when it is asked for."""
        while True:
            decoded, blocks, held = self._decoded(), [], 0
            try:
                for block in decoded:
                    blocks.append(block)
                    held += sum(waveform.nbytes for waveform in block)
                    if held > DECODED_AHEAD:
                        break
                return chain(blocks, decoded)
            except HeardAnewError:
                continue

    def blocks(self) -> Iterator[np.ndarray]:
        """Decode, make one channel of the file's channels or take each, and convert the sampling rate.

        Of a damaged file, which has to be decoded as a whole, that may show when some blocks were given.

        Yields:
            Waveforms of shape `(channels heard, samples)`, float32, full scale at -1 and 1; about eight seconds, or all of a
            file that is heard as a whole.

        Raises:
            HeardAnewError: if what was given does not count. Calling this method again gives all blocks, rightly.
            AudioError, TypeError: see [`AudioReader.hear`].
        """
        for of_readers in self.blocks_of_readers():
            if of_readers[0].shape[1]:
                yield of_readers[0]

    def heard_by(
        self, begin: Callable[[], T], take: Callable[[T, list[np.ndarray]], bool | None], of_all: bool = False
    ) -> T:
        """Give the blocks to something that takes them, and where what was given does not count, all of them to a new one.

        Args:
            begin (callable): makes what takes the blocks; called once more for each time that the file is heard anew.
            take (callable): called with that and the waveform of each block, of shape `(channels heard, samples)`; if it returns
                `True`, no more are decoded.
            of_all (`bool`, defaults to `False`): whether it is called with a list of the blocks of all readers instead.

        Returns:
            What took all blocks.

        Raises:
            AudioError, TypeError: see [`SoundStream.blocks`].
        """
        while True:
            taker = begin()
            try:
                for block in self.blocks_of_readers() if of_all else self.blocks():
                    if take(taker, block):
                        break
            except HeardAnewError:
                continue
            return taker

    def blocks_of_readers(self) -> Iterator[list[np.ndarray]]:
        """Give the blocks of each reader, as [`SoundStream.blocks`] gives those of the first.

        Returns:
            An iterator over lists of a waveform for each reader, some of which may have no samples yet.

        Raises:
            HeardAnewError, AudioError, TypeError: see [`SoundStream.blocks`].
        """
        decoded, self._ahead = self._ahead, None
        return self._decoded() if decoded is None else decoded.result()

    def _decoded(self) -> Iterator[list[np.ndarray]]:
        if self._needs_whole or self._is_small():
            yield self._whole()
            return
        is_begun = False
        try:
            for block in self._blocks():
                is_begun = True
                yield block
        except WholeNeededError as error:
            self._needs_whole = True
            if is_begun:
                raise HeardAnewError(f"{self.name} is heard anew.") from error
        else:
            return
        yield self._whole()

    def _is_small(self) -> bool:
        try:
            return os.stat(self.source).st_size <= HEARD_WHOLE
        except (OSError, TypeError, ValueError):
            return True  # whoever opens it says in words what is wrong

    def _whole(self) -> list[np.ndarray]:
        reader = self.reader
        if not self.each_channel and len(self.readers) == 1:
            heard = reader.hear(self.source, self.name)
            self.file_rate, self.notes = heard.file_rate, heard.notes
            return [heard.waveform[None]]
        if not self.each_channel:
            decoded, waveform = reader.decode(self.source, self.name)
            heard = [each.convert(decoded, waveform, self.name) for each in self.readers]
            self.file_rate = decoded.sampling_rate
            self.notes = tuple(dict.fromkeys(note for each in heard for note in each.notes))
            return [each.waveform[None] for each in heard]
        with errors_of_file(self.name):
            decoded = decode_audio(self.source, self.name, limits=reader.limits)
        self.file_rate, self.num_channels = decoded.sampling_rate, decoded.samples.shape[1]
        channels = _Channels(
            self.readers, self.name, decoded.sampling_rate, decoded.samples.shape[1], each_channel=True
        )
        with errors_of_file(self.name):
            begins, rests = channels.add(decoded.samples), channels.finish()
            self.notes = reader.passed((*decoded.notes, *channels.notes()))
        return [np.concatenate(blocks, axis=1) for blocks in zip(begins, rests, strict=True)]

    def _blocks(self) -> Iterator[list[np.ndarray]]:
        reader, name = self.reader, self.name
        with opened_audio(self.source, name, HEARD_WHOLE) as (content, name):
            audio_format = sniff_format(content)
            parts = recordings(content, audio_format)
            if len(parts) > 1:
                raise WholeNeededError
            recording = RecordingBlocks(parts[0], audio_format, name, Allowance(name, content.size, reader.limits))
            self.file_rate, self.num_channels = recording.sampling_rate, recording.channels
            self.announced = recording.announced
            channels = None
            rate = checked_rate(recording.sampling_rate, name)
            half_seconds = max(1, int(BLOCK_SECONDS / 0.5))
            for samples in recording.blocks(half_seconds * SoundLevels(rate, reader.channels).block):
                channels = channels or _Channels(self.readers, name, rate, recording.channels, self.each_channel)
                found = channels.add(samples)
                if any(block.shape[1] for block in found):
                    yield found
            if channels is None:
                raise AudioError(_without_samples(name))
            found = channels.finish()
            if any(block.shape[1] for block in found):
                yield found
            self.notes = reader.passed((*recording.notes, *channels.notes()))


class HeardAnewError(Exception):
    """What was given of a file does not count, as it turns out to be damaged; see [`SoundStream.blocks`]."""


class _Channels:
    """The channels of a file that are heard, block by block, at the sampling rates of the readers."""

    def __init__(
        self, readers: Sequence[AudioReader], name: str, file_rate: int, num_channels: int, each_channel: bool
    ):
        self.readers, self.name, self.file_rate = readers, name, file_rate
        self.heard = list(range(1, num_channels + 1)) if each_channel else [readers[0].channels]
        self.levels = [SoundLevels(file_rate, channels) for channels in self.heard]
        self.resamplers = [
            [StreamResampler(file_rate, reader.sampling_rate, reader.resampler) for reader in readers]
            for _ in self.heard
        ]
        self.each_channel = each_channel
        self._is_no_sound = False
        self._ranges = [[(np.inf, -np.inf)] * len(self.heard) for _ in readers]  # of the results

    def add(self, samples: np.ndarray) -> list[np.ndarray]:
        """Take samples of shape `(samples, channels)`; give each reader's result as far as it goes, `(heard, samples)`."""
        found = []
        for channels, levels, resamplers in zip(self.heard, self.levels, self.resamplers, strict=True):
            waveform = one_channel(samples, channels, self.name)
            levels.add(waveform[:, None] if self.each_channel else samples, waveform)
            # Of what is no sound only the loudest sample is still of interest, to say what it is.
            self._is_no_sound |= not is_level_of_sound(levels.lowest, levels.highest)
            with errors_of_file(self.name, "resampled"):
                found.append([waveform[:0] if self._is_no_sound else each.add(waveform) for each in resamplers])
        return self._measured(found if not self._is_no_sound else [[one[:0] for one in of_all] for of_all in found])

    def finish(self) -> list[np.ndarray]:
        """Give the rest of the results; refuse what is no sound."""
        for levels in self.levels:
            checked_level(levels.lowest, levels.highest, self.name)
        with errors_of_file(self.name, "resampled"):
            return self._measured([[each.finish() for each in resamplers] for resamplers in self.resamplers])

    def _measured(self, found: list[list[np.ndarray]]) -> list[np.ndarray]:
        of_readers = list(zip(*found, strict=True))
        for number, pieces in enumerate(of_readers):
            if len(pieces[0]):
                self._ranges[number] = [
                    (min(low, float(piece.min())), max(high, float(piece.max())))
                    for (low, high), piece in zip(self._ranges[number], pieces, strict=True)
                ]
        return [np.stack(pieces) for pieces in of_readers]

    def notes(self) -> Iterator[AudioNote]:
        """What is to be said of the sound."""
        for number, levels, *ranges in zip(self.heard, self.levels, *self._ranges, strict=True):
            name = f"{self.name}, channel {number}," if self.each_channel else self.name
            notes = list(levels.notes(name))
            yield from notes
            if any(note.kind in (CANCELLED, SILENT) for note in notes):
                continue
            for reader, range_ in zip(self.readers, ranges, strict=True):
                if self.file_rate != reader.sampling_rate and is_silence(*range_):
                    yield silent_band_note(name, reader.sampling_rate)


def _without_samples(name: str) -> str:
    return f"{name} is an audio file without a single sample. Record or export it again, or leave it out."


def read_audio(
    source: str | os.PathLike | bytes | BinaryIO | dict,
    sampling_rate: int = 16_000,
    name: str | None = None,
    max_samples: int | None = None,
) -> np.ndarray:
    """Decode an audio file, average its channels and resample it; [`AudioReader`] has more settings.

    Args:
        source (`str`, `os.PathLike`, `bytes`, file object or `dict`):
            Path of an audio file, the content of one, a file object opened for reading bytes, or the dictionary
            `{"bytes": ..., "path": ...}` that a `datasets` column gives when it is cast to `Audio(decode=False)`.
        sampling_rate (`int`, *optional*, defaults to 16000):
            Sampling rate of the result in Hz.
        name (`str`, *optional*):
            What messages call the file; by default its path, where there is one.
        max_samples (`int`, *optional*):
            How many samples of the result are of interest. A file that lasts a minute longer is decoded only up to
            there, so that one of hours costs little time and memory; shorter ones come whole.

    Returns:
        `np.ndarray` of shape `(samples,)` and type float32: mono, full scale at -1 and 1. What of the file was not heard
        is logged as a warning.

    Raises:
        AudioError: if there is no such file, it is empty or cannot be decoded, no decoder for its format is installed, or
            its samples are not finite.
        TypeError: if `source` is of another type.
    """
    return AudioReader(sampling_rate).read(source, name, max_samples)


def _name_of(source) -> str:
    """What messages call a file by itself."""
    path = source.get("path") if isinstance(source, dict) else source
    if isinstance(path, (str, os.PathLike)):
        return str(path)
    if hasattr(path, "read"):
        return str(getattr(path, "name", "The audio given as a file object"))
    return "The audio" if isinstance(source, dict) else "The audio given as bytes"


def decode_audio(
    source: str | os.PathLike | bytes | BinaryIO | dict,
    name: str | None = None,
    seconds: float | None = None,
    limits: AudioLimits | None = None,
) -> DecodedAudio:
    """Decode an audio file as it is, with all its channels and at its own sampling rate.

    Recordings that were joined in one file are heard one after the other, at the sampling rate and with the channels of
    the first.

    Args:
        source (`str`, `os.PathLike`, `bytes`, binary file or `dict`): see [`read_audio`].
        name (`str`, *optional*): see [`read_audio`].
        seconds (`float`, *optional*): how much of it is of interest; of a file that lasts much longer no more than a
            minute beyond is decoded.
        limits ([`AudioLimits`], *optional*): the most that is taken.

    Returns:
        [`DecodedAudio`], whose samples may be none or not finite.

    Raises:
        AudioError, TypeError: see [`read_audio`].
    """
    # So much is decoded that resampling gives, bit for bit, what it gives of the whole file.
    limit = None if seconds is None else seconds + SECONDS_BEYOND
    with opened_audio(source, name) as (content, name):
        audio_format = sniff_format(content)
        allowance = Allowance(name, content.size, limits)
        if limit is not None and isinstance(content, FileContent):
            # Of a long recording the end is not looked at, nor what is joined to it.
            without = without_tags(content, audio_format)
            beginning = decode_recording(without, audio_format, name, limit, allowance)
            if len(beginning.samples) >= round(limit * beginning.sampling_rate):
                return beginning
            allowance = Allowance(name, content.size, limits)
        parts = recordings(content, audio_format)
        if len(parts) == 1:
            return decode_recording(parts[0], audio_format, name, limit, allowance)
        decoded, notes, seconds, failed = [], [], 0.0, 0
        if len(parts) > MOST_RECORDINGS:
            notes.append(beyond_most_recordings(name))
            parts = parts[:MOST_RECORDINGS]
        for number, part in enumerate(parts, start=1):
            try:
                with errors_of_file(name):
                    decoded.append(decode_recording(part, sniff_format(part), name, limit, allowance))
            except AudioError as error:
                if not decoded or isinstance(error, TooMuchError):
                    raise
                failed += 1
                words = f"{name}: recording {number} of the {len(parts)} that are joined in it is not heard. {error}"
                notes.append(AudioNote(LEFT_OUT, words))
                if failed == MOST_FAILED and number < len(parts):
                    words = f"{name}: the {len(parts) - number} recordings behind that were not tried, as {failed} could not be decoded."
                    notes.append(AudioNote(LEFT_OUT, words))
                    break
                continue
            seconds += len(decoded[-1].samples) / decoded[-1].sampling_rate
            if limit is not None and seconds >= limit:
                break
        whole = one_after_the_other(decoded, name, allowance)
        return replace(whole, notes=(*whole.notes, *notes))


@dataclass(frozen=True)
class AudioLength:
    """How long an audio file lasts.

    Args:
        seconds (`float`): what decoding it gives.
        is_estimate (`bool`): whether that is only what its container announces, which may be some hundredths of a second
            away, or wrong.
    """

    seconds: float
    is_estimate: bool = False


def audio_length(source: str | os.PathLike | bytes | BinaryIO | dict) -> AudioLength:
    """How long an audio file lasts, told without decoding it where that can be.

    Args:
        source: see [`read_audio`].

    Returns:
        [`AudioLength`]: of what libsndfile reads, to a sample what decoding gives; of what only FFmpeg reads, an estimate.

    Raises:
        AudioError, TypeError: see [`read_audio`].
    """
    import soundfile

    with opened_audio(source, None) as (content, name):
        parts = recordings(content, sniff_format(content))[:MOST_RECORDINGS]
        try:
            streams = [stream for part in parts for stream in streams_of(part, sniff_format(part), name)]
            # What a header announces beyond that is decoded, which tells how much is there.
            Allowance(name, content.size).take(sum(map(stream_numbers, streams)), 1, COUNTED_RATE)
            return AudioLength(sum(map(stream_seconds, streams)))
        except TooMuchError:
            announced = [None]
        except soundfile.SoundFileError:
            formats = [sniff_format(part) for part in parts]
            announced = [
                None
                if audio_format in UNRELIABLE
                or container_is_cut_off(part, audio_format)
                or not is_length_of_audio(part, audio_format)
                else announced_seconds(part)
                for part, audio_format in zip(parts, formats, strict=True)
            ]
        if all(seconds is not None for seconds in announced):
            return AudioLength(sum(announced), is_estimate=True)
        decoded = decode_audio(source)
        return AudioLength(len(decoded.samples) / decoded.sampling_rate)


def audio_duration(source: str | os.PathLike | bytes | BinaryIO | dict) -> float:
    """Tell how long an audio file lasts, as [`audio_length`] does.

    Args:
        source (`str`, `os.PathLike`, `bytes`, binary file or `dict`): see [`read_audio`].

    Returns:
        Seconds.
    """
    return audio_length(source).seconds


@contextmanager
def opened_audio(
    source: str | os.PathLike | bytes | BinaryIO | dict, name: str | None = None, held_whole: int = HELD_WHOLE
) -> Iterator[tuple[Content, str]]:
    """Open an audio file for the time of the block.

    Args:
        source: see [`read_audio`].
        name (`str`, *optional*): see [`read_audio`].
        held_whole (`int`, *optional*): bytes up to which it is read at once; of a larger one as much as is asked for.

    Yields:
        Its content, which is not empty, and the name for messages about it.

    Raises:
        AudioError, TypeError: see [`read_audio`]; also for what goes wrong in the block over this file.
    """
    content, name = _content(source, name, held_whole)
    if not content.size:
        raise AudioError(f"{name} is empty (0 bytes). Copy or download it again, or leave it out.")
    try:
        with errors_of_file(name):
            yield content, name
    finally:
        if isinstance(content, FileContent):
            content.close()


def _content(source, name: str | None, held_whole: int = HELD_WHOLE) -> tuple[Content, str]:
    """The encoded file, and the name for messages about it; files of more than `held_whole` bytes are read by and by."""
    if isinstance(source, dict):
        content, path = source.get("bytes"), source.get("path")
        if content is None and path is None:
            raise AudioError(
                f"{name or 'The audio'} is a dictionary with keys {sorted(source)} and neither 'bytes' nor 'path' is set. "
                "Cast the column with datasets.Audio(decode=False)."
            )
        return _content(path if content is None else content, name or path, held_whole)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return BytesContent(bytes(source)), name or "The audio given as bytes"
    if hasattr(source, "read"):
        return BytesContent(source.read()), str(name or getattr(source, "name", "The audio given as a file object"))
    if not isinstance(source, (str, os.PathLike)):
        raise TypeError(
            f"cannot read audio from {type(source).__name__}; pass a path, bytes, a file object or the dictionary of a "
            "data set column cast with datasets.Audio(decode=False)"
        )
    path = os.fspath(source)
    try:
        with open(path, "rb", buffering=0, opener=only_files) as file:
            is_small = os.fstat(file.fileno()).st_size <= held_whole
            content = BytesContent(file.readall(), path) if is_small else FileContent(path)
        return content, name or path
    except IsADirectoryError:
        raise AudioError(f"{path} is a folder. Pass the audio files in it.") from None
    except FileNotFoundError:
        looked_for = "" if os.path.isabs(path) else f", looked for as {os.path.abspath(path)}"
        raise MissingAudioError(f"There is no file {path}{looked_for}. {CHECK_SPELLING}") from None
    except SpecialFileError as error:
        raise AudioError(str(error)) from None
    except OSError as error:
        raise AudioError(f"{path} cannot be read: {error.strerror}.") from error

"""Stretches of a file, each decoded by itself: libsndfile goes to where it begins, or of an MP3 is given its frames alone, and nothing
before or far behind it is read.

What comes is what [`AudioReader.hear`] gives of the whole file, from one sample to another. At the file's own sampling rate it
is that bit for bit, of MP3 but for the last one; where the rate is converted, a little more on either side is decoded, so that the
filter of the resampler finds what it would find there. Damaged files and several recordings joined in one are decoded as a whole, in
the words that [`AudioReader`] has for them. So is what only FFmpeg reads the first time; when it is wanted again, it is tried out
whether it can be decoded block by block, see [`modeling_ast.audio.ffmpeg_places`].
"""

import itertools
import math
import os
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from io import BytesIO

import numpy as np

from . import flac
from .channels import one_channel, stretch_notes
from .content import Content
from .decoders import Stream, frames_of, open_stream, streams_of
from .errors import errors_of_file
from .ffmpeg_places import FFmpegPlaces, proven_places
from .formats import recordings, sniff_format
from .limits import checked_level
from .mp3_places import Mp3Places, mp3_places
from .reading import AudioReader, Heard, audio_length, decode_audio, opened_audio
from .resampling import checked_rate, resample

MARGIN_SECONDS = 0.05  # decoded on either side where the rate is converted; both resamplers' filters are shorter
# MP3 frames need what earlier ones left: after so many seconds the samples are those of a decode from the beginning.
MP3_SECONDS = 0.3
OGG_SECONDS = 4.0  # before the end of Ogg: libsndfile 1.2.2 goes to a wrong place within the last page of Vorbis
LOOKED_THROUGH = 1 << 21  # bytes in which it takes no time to look for a second recording
PROBES = 16  # parts of a FLAC file, at whose ends the numbers of its frames are looked at
LAYOUTS_KEPT = 1 << 14  # files of which it is known how they are read; some hundred bytes each, of MP3 70 kB an hour


@dataclass(frozen=True)
class FileLayout:
    """How stretches of a file are read.

    Args:
        frames (`int`): samples of each channel, at the file's rate.
        sampling_rate (`int`): of the file, in Hz.
        goes_there (`bool`): whether a stretch is decoded by itself; if not, the file is decoded as a whole.
        lead (`int`): samples before a place that have to be decoded for what is there to be right.
        latest (`int`, *optional*): the last place that libsndfile goes to rightly; any if not given.
        mp3 ([`Mp3Places`], *optional*): where its frames lie, if a stretch of it is cut out before it is decoded.
        ffmpeg ([`FFmpegPlaces`], *optional*): blocks of it that FFmpeg decodes by themselves.
    """

    frames: int
    sampling_rate: int
    goes_there: bool = True
    lead: int = 0
    latest: int | None = None
    mp3: Mp3Places | None = None
    ffmpeg: FFmpegPlaces | None = None

    def place_before(self, begin: int) -> int:
        """Tell where to go to for what is decoded from a place on to be right.

        Args:
            begin (`int`): the place, a sample of the file.

        Returns:
            That place or an earlier one.
        """
        place = max(begin - self.lead, 0)
        return place if self.latest is None else min(place, self.latest)


class ExcerptReader:
    """Hears stretches of files.

    Args:
        reader ([`AudioReader`]): how files are heard.
    """

    def __init__(self, reader: AudioReader):
        self.reader = reader
        self._layouts: OrderedDict[str, FileLayout] = OrderedDict()
        self._whole: tuple[str, Heard] | None = None  # the last file that was decoded as a whole
        # Of those that were: whether it may be tried to decode it block by block, or how that is done.
        self._of_ffmpeg: OrderedDict[str, bool | FileLayout] = OrderedDict()

    def __getstate__(self) -> dict:
        return {"reader": self.reader}

    def __setstate__(self, state: dict):
        self.__init__(state["reader"])

    def num_samples(self, source: str | os.PathLike | dict, name: str | None = None) -> int:
        """Tell how long a file is as it is heard, from its header.

        Args:
            source (`str`, `os.PathLike` or `dict`): path of an audio file, or `{"bytes", "path"}` as of an undecoded column.
            name (`str`, *optional*): what messages call it.

        Returns:
            Samples at the reader's rate, a part of a sample aside.

        Raises:
            AudioError: if it is not there, is no audio or lasts no time that can be told.
        """
        layout = self.layout(source, name)
        return layout.frames * self.reader.sampling_rate // layout.sampling_rate

    def layout(self, source: str | os.PathLike | dict, name: str | None = None) -> FileLayout:
        """Find out how stretches of a file are read; what was found of a file on this machine is kept.

        Args:
            source (`str`, `os.PathLike` or `dict`): see [`ExcerptReader.num_samples`].
            name (`str`, *optional*): what messages call it.

        Returns:
            [`FileLayout`].

        Raises:
            AudioError: see [`ExcerptReader.num_samples`].
        """
        path = _path_of(source)
        if path is None:
            return file_layout(source, name)
        found = self._layouts.get(path)
        if found is None:
            found = self._layouts[path] = file_layout(source, name)
            if len(self._layouts) > LAYOUTS_KEPT:
                self._layouts.popitem(last=False)
        return found

    def samples_of_file(self, source: str | os.PathLike | dict, name: str | None = None) -> np.ndarray | None:
        """Decode all of a file as stretches of it are decoded.

        Args:
            source (`str`, `os.PathLike` or `dict`): see [`ExcerptReader.num_samples`].
            name (`str`, *optional*): what messages call it.

        Returns:
            `np.ndarray` of shape `(samples, channels)`, float32, at the file's rate: of it stretches are those of [`ExcerptReader.hear`]
            bit for bit. `None` where stretches are not decoded by themselves, and of MP3, whose last bit depends on where they begin.

        Raises:
            AudioError: see [`ExcerptReader.num_samples`].
        """
        layout = self.layout(source, name)
        if not layout.goes_there or layout.mp3 is not None:
            return None
        path = _path_of(source)
        return _decoded(source if path is None else path, layout, 0, layout.frames)

    def hear(
        self,
        source: str | os.PathLike | dict,
        start: int,
        samples: int,
        name: str | None = None,
        decoded_before: Callable[[int, int], np.ndarray] | None = None,
    ) -> Heard:
        """Decode a stretch of a file, make one channel of its channels and convert its sampling rate.

        Args:
            source (`str`, `os.PathLike` or `dict`): see [`ExcerptReader.num_samples`].
            start (`int`): its first sample, at the reader's rate.
            samples (`int`): how many; there are fewer where the file ends before.
            name (`str`, *optional*): what messages call it.
            decoded_before (callable, *optional*): gives what [`ExcerptReader.samples_of_file`] gave of the file, from one sample to
                another; nothing is decoded then.

        Returns:
            [`Heard`]; of its notes those of the whole file where that had to be decoded, else those of [`stretch_notes`].

        Raises:
            AudioError: if it cannot be decoded, is not finite or is refused, or has no such channel.
        """
        path = _path_of(source)
        name = name or path or (source.get("path") if isinstance(source, dict) else None) or "The audio"
        layout, rate = self.layout(source, name), self.reader.sampling_rate
        if not layout.goes_there:
            layout = self._layout_of_ffmpeg(path)
            if layout is None:
                return self._of_whole(source, path, start, samples, name)
        divisor = math.gcd(layout.sampling_rate, rate)
        old, new = layout.sampling_rate // divisor, rate // divisor
        margin = 0 if old == new else math.ceil(MARGIN_SECONDS * layout.sampling_rate)
        # From a place that both rates have in common, or the result would lie between its samples.
        block = max(start // new - math.ceil(margin / old), 0)
        begin = block * old
        end = min(-(-(start + samples) * old // new) + margin, layout.frames)
        decode = decoded_before or partial(_decoded, source if path is None else path, layout)
        with errors_of_file(name):
            decoded = decode(begin, max(end, begin))
        if decoded is None:  # damaged there: the whole decode knows what to do
            return self._of_whole(source, path, start, samples, name)
        with errors_of_file(name):
            waveform = one_channel(decoded, self.reader.channels, name)
            if len(waveform):
                checked_level(float(waveform.min()), float(waveform.max()), name)
        notes = ()
        # What FFmpeg alone reads was judged as a whole, of which every stretch was taken at first.
        if decoded.shape[1] > 1 and len(waveform) and layout.ffmpeg is None:
            found = stretch_notes(decoded, waveform, layout.sampling_rate, self.reader.channels, name)
            notes = self.reader.passed(found)
        if old != new:
            with errors_of_file(name, "resampled"):
                waveform = resample(waveform, layout.sampling_rate, rate, self.reader.resampler)
        first = start - block * new
        samples = max(min(samples, layout.frames * rate // layout.sampling_rate - start), 0)
        return Heard(np.ascontiguousarray(waveform[first : first + samples]), notes, layout.sampling_rate)

    def forget_whole(self):
        """Free the last file that was decoded as a whole."""
        self._whole = None

    def _layout_of_ffmpeg(self, path: str | None) -> FileLayout | None:
        """How stretches of a file are read that was decoded as a whole before; `None` if that has to be done again."""
        found = self._of_ffmpeg.get(path) if path is not None else None
        if found is True and (self._whole is None or self._whole[0] != path):
            found = self._of_ffmpeg[path] = _layout_by_ffmpeg(path) or False
        return found or None if found is not True else None

    def _of_whole(self, source, path: str | None, start: int, samples: int, name: str) -> Heard:
        if self._whole is None or path is None or self._whole[0] != path:
            self._whole = (path or "", self.reader.hear(source, name))
            if path is not None and path not in self._of_ffmpeg:
                self._of_ffmpeg[path] = not self._whole[1].notes  # of the whole: a stretch would not have them
                if len(self._of_ffmpeg) > LAYOUTS_KEPT:
                    self._of_ffmpeg.popitem(last=False)
        heard = self._whole[1]
        return Heard(heard.waveform[start : start + samples].copy(), heard.notes, heard.file_rate)


def file_layout(source: str | os.PathLike | bytes | dict, name: str | None = None) -> FileLayout:
    """Find out how stretches of a file are read.

    Args:
        source (`str`, `os.PathLike`, `bytes` or `dict`): an audio file, as [`read_audio`] takes it.
        name (`str`, *optional*): what messages call it.

    Returns:
        [`FileLayout`].

    Raises:
        AudioError: if it is not there, is empty or no audio.
    """
    import soundfile

    with opened_audio(source, name, held_whole=0) as (content, name):
        try:
            audio_format = sniff_format(content)
            # Of FLAC that is whole, all of it would be read to look for another recording behind it.
            is_one = audio_format == "FLAC" and content.size > LOOKED_THROUGH and _is_one_flac(content)
            parts = [content] if is_one else recordings(content, audio_format)
            streams = streams_of(parts[0], audio_format, name) if len(parts) == 1 else []
            if len(streams) == 1 and _is_plain(streams[0], content.size):
                with open_stream(streams[0]) as file:
                    rate = checked_rate(file.samplerate, name)
                    frames = max(frames_of(streams[0], file), 0)
                    layout = layout_of_format(file.format, frames, rate)
                if streams[0].of_mp3 is not None and audio_format == "MP3":
                    layout = replace(layout, mp3=mp3_places(streams[0].of_mp3, decoded_by_itself=True))
                return layout
            if len(streams) == 1 and audio_format == "MP3" and _is_undamaged_mp3(streams[0]):
                with open_stream(streams[0]) as file:
                    rate = checked_rate(file.samplerate, name)
                    frames = max(frames_of(streams[0], file) - streams[0].skipped, 0)
                places = mp3_places(streams[0].of_mp3, decoded_by_itself=not streams[0].skipped)
                if places is not None:
                    return FileLayout(frames, rate, mp3=places)
        except soundfile.SoundFileError:
            pass  # FFmpeg may read it
    rate = 16_000  # nothing is counted in the file's own samples
    return FileLayout(round(audio_length(source).seconds * rate), rate, goes_there=False)


def _layout_by_ffmpeg(path: str) -> FileLayout | None:
    decoded = decode_audio(path)
    with opened_audio(path, held_whole=0) as (content, _):
        places = None if decoded.notes else proven_places(content, decoded.samples, decoded.sampling_rate)
    return None if places is None else FileLayout(places.frames, places.sampling_rate, ffmpeg=places)


def layout_of_format(name: str, frames: int, sampling_rate: int) -> FileLayout:
    """Tell how stretches of a file are read that libsndfile reads as one recording.

    Args:
        name (`str`): of the format, as libsndfile calls it.
        frames (`int`): samples of each channel.
        sampling_rate (`int`): of the file, in Hz.

    Returns:
        [`FileLayout`].
    """
    lead = math.ceil(MP3_SECONDS * sampling_rate) if name == "MP3" else 0
    latest = max(frames - math.ceil(OGG_SECONDS * sampling_rate), 0) if name == "OGG" else None
    return FileLayout(frames, sampling_rate, lead=lead, latest=latest)


def _is_one_flac(content: Content) -> bool:
    """Whether a FLAC file ends with the last sample that it announces, and its frames are numbered on up to there."""
    info = flac.stream_info(content)
    if info is None or not info.samples or flac.last_sample(content, info) != info.samples:
        return False
    places = (content.part(0, content.size * number // PROBES) for number in range(1, PROBES))
    found = [number for number in (flac.last_sample(part, info) for part in places) if number is not None]
    return all(earlier <= later < info.samples for earlier, later in itertools.pairwise([*found, info.samples - 1]))


def _is_plain(stream: Stream, size: int) -> bool:
    """Whether libsndfile reads a file of so many bytes by itself, and all of it is there."""
    helped = stream.notes or stream.silences or stream.skipped or stream.samples is not None
    return not (helped or stream.announced_share or stream.ends_early) and stream.content.size == size


def _is_undamaged_mp3(stream: Stream) -> bool:
    """Whether it is an MP3 with nothing wrong but what libsndfile needs help for: its length, or bytes before it."""
    found = stream.of_mp3
    is_damaged = bool(stream.notes or stream.silences or stream.announced_share or stream.ends_early)
    return found is not None and not is_damaged and found.is_counted and not found.gaps and not found.tags


def _path_of(source) -> str | None:
    """The path of a file on this machine, `None` for bytes."""
    if isinstance(source, dict):
        return source.get("path") if source.get("bytes") is None else None
    return os.fspath(source) if isinstance(source, str | os.PathLike) else None


def _decoded(source, layout: FileLayout, begin: int, end: int) -> np.ndarray | None:
    """Samples from `begin` to `end`, `(samples, channels)`; `None` if not all of them come."""
    import soundfile

    if layout.ffmpeg is not None:
        with opened_audio(source, held_whole=0) as (content, _):
            return layout.ffmpeg.stretch(content, begin, end)
    if layout.mp3 is not None:
        with opened_audio(source, held_whole=0) as (content, _):
            found = layout.mp3.stretch(content, begin, end)
        if found is None:  # the file is another one by now
            return None
        stretch, place = found
        opened, first = BytesIO(stretch), 0  # MP3 rounds otherwise before its first seek
    else:
        place = begin - layout.place_before(begin)
        opened, first = (BytesIO(source["bytes"]) if isinstance(source, dict) else source), begin - place
    try:
        with soundfile.SoundFile(opened) as file:
            file.seek(first)
            samples = np.empty((place + end - begin, file.channels), np.float32)
            if len(samples) and file.buffer_read_into(samples, "float32") < len(samples):
                return None
            return samples[place:]
    except soundfile.SoundFileError:
        return None

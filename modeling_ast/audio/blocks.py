"""A recording block by block, in memory that does not grow with its length: the same samples as [`decode_recording`] gives.

Only what is healthy is decoded so. Where libsndfile has to be helped past damage, where several recordings are joined, and
where the end tells that what was given is not what the whole decode would give, [`WholeNeededError`] says that the file has to be
decoded as a whole.
"""

from collections.abc import Iterator

import numpy as np

from . import formats, ogg
from .content import Content
from .decoders import (
    LESS_THAN_ANNOUNCED,
    LONGEST_FLAC,
    Stream,
    announced_length,
    described_file,
    frames_of,
    goes_on,
    notes_of_stream,
    streams_of,
    tracks_notes,
)
from .errors import AudioNote
from .ffmpeg import FFmpegError, FFmpegMissingError, FFmpegStream
from .limits import Allowance

BLOCK_SECONDS = (
    2.0  # about, of what is decoded at a time: more makes each block new memory, which costs more than its samples
)
FFMPEG_SECONDS = 8.0  # likewise by FFmpeg, which looks for the begin of each piece
# Formats that FFmpeg reads and that are not decoded block by block: the announced length of WMA counts what no decoder gives, so
# that the ffmpeg program is asked as well; libsndfile reads what is healthy of FLAC.
NEVER_IN_BLOCKS = formats.WITHOUT_LENGTH | {"WMA", "FLAC", None}


class WholeNeededError(Exception):
    """A recording that is only heard rightly when it is decoded as a whole."""


class RecordingBlocks:
    """One recording of a file, decoded block by block, once.

    Args:
        content ([`Content`]): the recording.
        audio_format (`str`, *optional*): from [`sniff_format`].
        name (`str`): what messages call it.
        allowance ([`Allowance`]): what it may become.

    Attributes:
        sampling_rate (`int`): in Hz.
        channels (`int`): how many it has.
        announced (`float`, *optional*): seconds that it should last.
        notes (`list[AudioNote]`): what is to be said of it, complete when all blocks were given.

    Raises:
        WholeNeededError: if it has to be decoded as a whole.
    """

    def __init__(self, content: Content, audio_format: str | None, name: str, allowance: Allowance):
        import soundfile

        self.content, self.audio_format, self.name, self.allowance = content, audio_format, name, allowance
        self.notes: list[AudioNote] = []
        self._ffmpeg = None
        try:
            self._stream = Stream(content) if audio_format == "FLAC" else self._only_stream()
            self._source = self._stream.content.file()
            self._file = _without_seeking(self._source)
        except soundfile.SoundFileError:
            self._open_with_ffmpeg()
            return
        self.sampling_rate, self.channels = self._file.samplerate, self._file.channels
        self._wanted = frames_of(self._stream, self._file)
        if audio_format == "FLAC" and self._wanted > min(
            LONGEST_FLAC, allowance.samples(self.channels, self.sampling_rate)
        ):
            raise WholeNeededError
        self._damage = ogg.PageDamage()
        if self._stream.check_holes:
            self._damage = ogg.page_damage(self._stream.content, self.sampling_rate)
        if self._damage.holes:
            raise WholeNeededError
        self.announced = max(self._wanted - self._stream.skipped, 0) / self.sampling_rate

    def _only_stream(self) -> Stream:
        streams = streams_of(self.content, self.audio_format, self.name)
        if len(streams) != 1 or streams[0].silences:
            raise WholeNeededError
        return streams[0]

    def _open_with_ffmpeg(self):
        content, audio_format = self.content, self.audio_format
        if (
            audio_format in NEVER_IN_BLOCKS
            or content.path is None
            or self.allowance.limits is not None
            or formats.lacks_index(content, audio_format)
            or formats.container_is_cut_off(content, audio_format)
        ):
            raise WholeNeededError
        try:
            self._ffmpeg = FFmpegStream(content)
        except (FFmpegError, FFmpegMissingError) as error:
            raise WholeNeededError from error
        self.sampling_rate, self.channels = self._ffmpeg.sampling_rate, self._ffmpeg.channels
        self.announced = announced_length(content, audio_format, self._ffmpeg.announced)
        if not self.sampling_rate or not self.channels:
            raise WholeNeededError

    def blocks(self, size: int) -> Iterator[np.ndarray]:
        """Decode it.

        Args:
            size (`int`): samples of a block.

        Yields:
            Samples of shape `(samples, channels)`, float32: `size` each time but the last, full scale at -1 and 1.

        Raises:
            WholeNeededError: if it turns out that what was given is not what the whole decode gives.
            AudioError: if it becomes more than it may.
        """
        import soundfile

        try:
            pieces = self._decoded(size) if self._ffmpeg is None else self._decoded_with_ffmpeg(size)
            yield from _of_one_size(pieces, size)
        except (soundfile.SoundFileError, FFmpegError) as error:
            raise WholeNeededError from error

    def _decoded(self, size: int) -> Iterator[np.ndarray]:
        stream, file = self._stream, self._file
        most = self.allowance.samples(self.channels, self.sampling_rate)
        with file:
            if file.format == "MP3":
                file.seek(0)  # as soundfile.read does: the decoder rounds otherwise before its first seek
            read, skipped, piece = 0, stream.skipped, np.empty((0, self.channels), np.float32)
            while read < self._wanted:
                count = min(size, self._wanted - read)
                piece = np.empty((count, self.channels), np.float32)
                found = file.buffer_read_into(piece, "float32")
                read += found
                if read > most:
                    raise self.allowance.error(self.channels, self.sampling_rate)
                yield piece[min(skipped, found) : found]
                skipped -= min(skipped, found)
                if found < count:
                    break
            if self.audio_format == "FLAC":
                is_all = read == self._wanted and not goes_on(self.content, self._source.tell())
                if not is_all:
                    raise WholeNeededError
        there = max(read - stream.skipped, 0)
        self.allowance.take(there, self.channels, self.sampling_rate)
        wanted = self._wanted - stream.skipped
        self.notes += notes_of_stream(stream, self.name, wanted, there, there, self.sampling_rate, self._damage)

    def _decoded_with_ffmpeg(self, size: int) -> Iterator[np.ndarray]:
        most, read = self.allowance.samples(self.channels, self.sampling_rate), 0
        for piece in self._ffmpeg.pieces(max(size / self.sampling_rate, FFMPEG_SECONDS)):
            read += len(piece)
            if read > most:
                raise self.allowance.error(self.channels, self.sampling_rate)
            yield piece
        if self.announced is not None and read / self.sampling_rate < self.announced - LESS_THAN_ANNOUNCED:
            raise WholeNeededError  # the ffmpeg program may give more
        self.allowance.take(read, self.channels, self.sampling_rate)
        self.notes += tracks_notes(self.content, self.audio_format, described_file(self.name, self.audio_format))


def _without_seeking(source):
    """Open a file for libsndfile.

    `soundfile.SoundFile` seeks behind each read to where it is anyway. MP3 then goes on with other roundings, and from frames
    that need what earlier ones left, with other sound.
    """
    import soundfile

    class Unmoved(soundfile.SoundFile):
        def seekable(self) -> bool:
            return False

    return Unmoved(source)


def _of_one_size(pieces: Iterator[np.ndarray], size: int) -> Iterator[np.ndarray]:
    """Pieces of any sizes as blocks of `size` samples, the last one aside."""
    held, count = [], 0
    for piece in pieces:
        while len(piece):
            taken = piece[: size - count]
            held.append(taken)
            count += len(taken)
            piece = piece[len(taken) :]
            if count == size:
                yield held[0] if len(held) == 1 else np.concatenate(held)
                held, count = [], 0
    if count:
        yield np.concatenate(held)

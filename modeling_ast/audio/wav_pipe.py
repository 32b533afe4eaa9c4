"""A WAV that comes through a pipe, in real time or not: its header, and its samples as they come.

libsndfile needs a file in which it can seek. Programs that record to a pipe do not know how long it will be, and write 0 or the
most that a header can hold: the samples end with the pipe then. Behind those of a file whose length is told stand other chunks.
"""

import io
import os
import struct
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np

from .errors import CUT_OFF, AudioError, AudioNote
from .limits import MOST_TAGS
from .resampling import checked_rate

EXTENSIBLE = 0xFFFE
# libsndfile's names by a header's number of the codec and bits of a sample.
SUBTYPES = {
    (1, 8): "PCM_U8", (1, 16): "PCM_16", (1, 24): "PCM_24", (1, 32): "PCM_32", (3, 32): "FLOAT", (3, 64): "DOUBLE",
    (6, 8): "ALAW", (7, 8): "ULAW",
}  # fmt: skip
LARGEST_CHUNK = 1 << 24  # bytes of something that is no sound, before the samples
UNKNOWN_SIZE = 0x7FFF0000  # bytes of samples; what programs write that do not know is from here on, or 0
READ_AT_ONCE = 1 << 16  # bytes that are waited for at most


class WavPipe:
    """A WAV that is read as it comes.

    Args:
        file (`BinaryIO`): where from; it need not seek.
        name (`str`): what messages call it.

    Raises:
        AudioError: if it is no WAV, or one whose samples are coded otherwise than in whole or floating-point numbers.
    """

    def __init__(self, file: BinaryIO, name: str):
        self.file, self.name = file, name
        order = {b"RIFF": "<", b"RF64": "<", b"RIFX": ">"}.get(self._exactly(4))
        self._exactly(4)
        if order is None or self._exactly(4) != b"WAVE":
            raise self._no_wav()
        described, long_size = None, 0
        for _ in range(MOST_TAGS):
            kind, size = struct.unpack(f"{order}4sI", self._exactly(8))
            if kind == b"data":
                break
            if size > LARGEST_CHUNK:
                raise self._no_wav()
            content = self._exactly(size + size % 2)
            described = content if kind == b"fmt " else described
            if kind == b"ds64" and len(content) >= 16:
                long_size = struct.unpack_from(f"{order}Q", content, 8)[0]
        else:
            raise self._no_wav()
        if described is None or len(described) < 16:
            raise self._no_wav()
        codec, self.channels, rate, _, _, bits = struct.unpack_from(f"{order}HHIIHH", described)
        if codec == EXTENSIBLE and len(described) >= 26:
            codec = struct.unpack_from(f"{order}H", described, 24)[0]
        self.sampling_rate = checked_rate(rate, name)
        self._subtype, self._endian = SUBTYPES.get((codec, bits)), "LITTLE" if order == "<" else "BIG"
        if self._subtype is None or not 1 <= self.channels <= 1024:
            raise AudioError(
                f"{name} is a WAV with codec {codec}, {bits} bits and {self.channels} channel(s), which is not read from a pipe. "
                "Send 16-bit samples, as ffmpeg -i SOURCE -c:a pcm_s16le -f wav - does."
            )
        self._frame = self.channels * bits // 8
        size = long_size if long_size and size == 0xFFFFFFFF else size
        is_told = 0 < size < UNKNOWN_SIZE or (0 < long_size == size < 1 << 62)
        self._left = self._told = size if is_told else None  # bytes of samples
        self._has_ended = False

    def chunks(self) -> Iterator[np.ndarray]:
        """Give the samples as they come.

        Yields:
            Samples of shape `(samples, channels)`, float32, full scale at -1 and 1; as many as are there.
        """
        import soundfile

        rest = b""
        while piece := self._some():
            if self._left is not None:
                piece = piece[: self._left]
                self._left -= len(piece)
            rest += piece
            whole = len(rest) // self._frame * self._frame
            if whole:
                samples, _ = soundfile.read(
                    io.BytesIO(rest[:whole]), dtype="float32", always_2d=True, samplerate=self.sampling_rate,
                    channels=self.channels, format="RAW", subtype=self._subtype, endian=self._endian,
                )  # fmt: skip
                yield samples
                rest = rest[whole:]
        self._has_ended = True

    def notes(self, name: str) -> tuple[AudioNote, ...]:
        """Tell, once it has come to its end, whether that was where its header told.

        Args:
            name (`str`): what to call the sound.

        Returns:
            `tuple[AudioNote, ...]`: of one note at most.
        """
        if not self._left or not self._has_ended:
            return ()
        there, told = ((size / self._frame / self.sampling_rate) for size in (self._told - self._left, self._told))
        words = f"{there:.2f} of the {told:.2f} s that its header announces have come"
        return (AudioNote(CUT_OFF, f"{name} is cut off: {words}. Send it again."),)

    def _some(self) -> bytes:
        """What is there, or comes next; nothing at the end."""
        if self._left == 0:
            return b""
        try:
            return os.read(self.file.fileno(), READ_AT_ONCE)
        except (AttributeError, io.UnsupportedOperation):  # a file in memory
            return self.file.read(READ_AT_ONCE)

    def _exactly(self, count: int) -> bytes:
        pieces = b""
        while len(pieces) < count:
            try:
                piece = os.read(self.file.fileno(), count - len(pieces))
            except (AttributeError, io.UnsupportedOperation):
                piece = self.file.read(count - len(pieces))
            if not piece:
                raise self._no_wav()
            pieces += piece
        return pieces

    def _no_wav(self) -> AudioError:
        return AudioError(
            f"{self.name} is no WAV, or ends within its header. Send one, as ffmpeg -i SOURCE -f wav - and arecord do, or pass the "
            "name of a file."
        )

"""When a recording began by its recorder's clock, told by its name or its header, with the time zone that is written there.

Names: AudioMoth `20230514_043000.WAV`, also with a prefix and with `T` for a triggered recording, and by its old firmware
`5EC5A158.WAV`, the seconds since 1970 in UTC; Song Meter `PREFIX_20230514_043000.wav`, `PREFIX_20230514$043000.wav` with its
place known. No name but the old ones says a time zone.

Headers of RIFF, RF64 and BW64 files: AudioMoth's comment (`ICMT` in a `LIST` of type `INFO`), the chunk `guan` of GUANO, which
Song Meters write among others, and `bext` of Broadcast Wave.

Source: firmware and user guide of AudioMoth; user guides of Song Meter; GUANO specification 1.0; EBU Tech 3285 (bext).
"""

import os
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import BinaryIO

from ..system.regular_files import only_files

START_TIMES = ("from_name", "from_file", "none")

_IN_NAME = re.compile(r"(?:.*_)?(\d{8})[_$](\d{6})T?", re.DOTALL)
_OLD_NAME = re.compile(r"[0-9A-F]{8}")
FIRST_OLD_NAME = datetime(
    2017, 1, 1, tzinfo=UTC
).timestamp()  # before any AudioMoth; earlier ones are some other number
_COMMENT = re.compile(
    r"Recorded at (\d\d):(\d\d):(\d\d)(?:\.(\d{3}))? (\d\d)/(\d\d)/(\d{4})(?: \(UTC(?:([+-])(\d{1,2})(?::(\d\d))?)?\))?"
)
_BEXT_DATE = re.compile(r"(\d{4})[-_: ./](\d\d)[-_: ./](\d\d)(\d\d)[-_: ./](\d\d)[-_: ./](\d\d)")
_BEXT_PLACE = 320  # of OriginationDate in the chunk, with OriginationTime behind it
MOST_CHUNKS = 1000
MOST_BYTES = 1 << 20  # of a chunk that are looked at


@dataclass(frozen=True)
class StartTime:
    """When a recording began: `at`, with a time zone if one was written, or `None` if nothing tells."""

    at: datetime | None

    def after(self, seconds: float = 0.0) -> str | None:
        """Tell the clock time of a place in the recording.

        Args:
            seconds (`float`, defaults to 0.0): from its begin.

        Returns:
            ISO 8601 to the millisecond, such as `2023-05-14T04:30:07.495+01:00`, without an offset if no time zone is known.
        """
        if self.at is None:
            return None
        try:
            return (self.at + timedelta(seconds=seconds)).isoformat(timespec="milliseconds")
        except OverflowError:  # a header that says the end of the year 9999
            return None


def start_time(file: str | os.PathLike, source: str) -> StartTime:
    """Tell when a recording began.

    Args:
        file (`str` or `os.PathLike`): the recording.
        source (`str`): `"from_name"` or `"from_file"`.

    Returns:
        [`StartTime`].
    """
    return StartTime(start_from_name(file) if source == "from_name" else start_from_file(file))


def start_from_name(file: str | os.PathLike) -> datetime | None:
    """Read the time in a recorder's file name.

    Args:
        file (`str` or `os.PathLike`): a name, with or without folders.

    Returns:
        `datetime` without a time zone, in UTC for old names of AudioMoth, or `None` if there is none in it.
    """
    stem = Path(file).stem
    if found := _IN_NAME.fullmatch(stem):
        try:
            return datetime.strptime("".join(found.groups()), "%Y%m%d%H%M%S")
        except ValueError:  # no such day
            return None
    if _OLD_NAME.fullmatch(stem) and int(stem, 16) >= FIRST_OLD_NAME:
        return datetime.fromtimestamp(int(stem, 16), UTC)
    return None


def start_from_file(file: str | os.PathLike) -> datetime | None:
    """Read the time in a recorder's header: GUANO's, which may have a time zone, AudioMoth's, or that of Broadcast Wave.

    Args:
        file (`str` or `os.PathLike`): the recording.

    Returns:
        `datetime`, with a time zone if one is written, or `None` if the header tells no time or cannot be read.
    """
    found = {}
    try:
        with open(file, "rb", opener=only_files) as stream:
            for name, content in _chunks(stream):
                if name in _READERS and name not in found and (at := _READERS[name](content)):
                    found[name] = at
    except OSError:
        return None
    return next((found[name] for name in _READERS if name in found), None)


def _chunks(stream: BinaryIO) -> Iterator[tuple[bytes, bytes]]:
    """The chunks of a RIFF file that may tell a time, wherever they are, by name; those within a list too."""
    head = stream.read(12)
    if head[:4] not in (b"RIFF", b"RF64", b"BW64") or head[8:] != b"WAVE":
        return
    of_data = None
    for _ in range(MOST_CHUNKS):
        head = stream.read(8)
        if len(head) < 8:
            return
        name, size = head[:4], struct.unpack("<I", head[4:])[0]
        if name == b"data" and size == 0xFFFFFFFF and of_data is not None:
            size = of_data
        behind = stream.tell() + size + size % 2
        if name == b"ds64" and size >= 16:
            of_data = struct.unpack("<Q", stream.read(16)[8:].ljust(8, b"\0"))[0]
        elif name in _READERS:
            yield name, stream.read(min(size, MOST_BYTES))
        elif name == b"LIST":
            content = stream.read(min(size, MOST_BYTES))
            at = 4 if content[:4] == b"INFO" else len(content)
            while at + 8 <= len(content):
                inner, length = content[at : at + 4], struct.unpack("<I", content[at + 4 : at + 8])[0]
                if inner in _READERS:
                    yield inner, content[at + 8 : at + 8 + length]
                at += 8 + length + length % 2
        stream.seek(behind)


def _from_comment(content: bytes) -> datetime | None:
    found = _COMMENT.match(content.decode("utf-8", "replace"))
    if not found:
        return None
    hour, minute, second, thousandths, day, month, year, sign, hours, minutes = found.groups()
    offset = None
    if found[0].endswith(")"):
        offset = timedelta(hours=int(hours or 0), minutes=int(minutes or 0)) * (-1 if sign == "-" else 1)
    return _moment(year, month, day, hour, minute, second, 1000 * int(thousandths or 0), offset)


def _from_guano(content: bytes) -> datetime | None:
    for line in content.decode("utf-8", "replace").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "Timestamp":
            try:
                return datetime.fromisoformat(value.strip().strip("\0"))
            except ValueError:
                return None
    return None


def _from_bext(content: bytes) -> datetime | None:
    found = _BEXT_DATE.match(content[_BEXT_PLACE : _BEXT_PLACE + 18].decode("latin-1"))
    return _moment(*found.groups()) if found else None


def _moment(year, month, day, hour, minute, second, microsecond=0, offset=None) -> datetime | None:
    try:
        zone = None if offset is None else timezone(offset)
        return datetime(*map(int, (year, month, day, hour, minute, second)), microsecond, zone)
    except ValueError:  # no such day, or an offset of a day
        return None


# In the order in which they are believed.
_READERS = {b"guan": _from_guano, b"ICMT": _from_comment, b"bext": _from_bext}

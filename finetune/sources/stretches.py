"""Columns that mark a stretch of a longer file, found by their names, which are not data yet: a clip is a whole file.

Their names are those of `ast-tag --timeline --format csv` (start, end), of sound event corpora (onset, offset), of Raven
("Begin Time (s)"), Praat (xmin, xmax), NeMo manifests (offset, duration), and the like.
"""

import re
import shlex
from collections.abc import Iterable
from typing import NamedTuple

from ..arguments.groups import DataArguments
from .data_errors import DataError

BEGINNINGS = {"start", "starts", "begin", "begins", "beginning", "onset", "tmin", "xmin", "tstart"}
ENDS = {"end", "ends", "ending", "stop", "stops", "finish", "until", "tmax", "xmax", "tend"}
LENGTHS = {"duration", "dur", "length", "len"}
EITHER = "offset"  # the end beside an onset, the beginning beside a duration
WEAK_PAIRS = (("from", "to"),)  # which alone mean nothing
TELLING_WORDS = {*BEGINNINGS, *ENDS, *LENGTHS, EITHER, *(word for pair in WEAK_PAIRS for word in pair)}
PAIRS = (
    ("t0", "t1"),
    ("t1", "t2"),
    ("t_min", "t_max"),
    ("min_t", "max_t"),
    ("time_min", "time_max"),
    ("min_time", "max_time"),
)
# Seconds in one of each unit that a name may tell.
UNITS = {
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), 1.0),
    **dict.fromkeys(("ms", "msec", "msecs", "millis", "millisecond", "milliseconds"), 1e-3),
    **dict.fromkeys(("us", "usec", "usecs", "\u03bcs", "microsecond", "microseconds"), 1e-6),
    **dict.fromkeys(("ns", "nsec", "nanosecond", "nanoseconds"), 1e-9),
    **dict.fromkeys(("min", "mins", "minute", "minutes"), 60.0),
    **dict.fromkeys(("h", "hour", "hours"), 3600.0),
}
SAMPLES, FRAMES = ("samp", "sample", "samples"), ("frame", "frames", "index", "idx")  # of a length that no name tells
CLOCK = ("hh", "mm", "ss", "hms")
# What else times are of or in.
OTHER_WORDS = {
    *UNITS, *SAMPLES, *FRAMES, *CLOCK, "time", "times", "timestamp", "timecode", "t", "position", "pos", "point",
    "of", "in", "at", "the", "segment", "seg", "clip", "event", "call", "label", "annotation", "window", "box",
    "selection",
}  # fmt: skip


def _words(name: str) -> list[str]:
    """Of which a name is made, in small letters."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    return [part for word in re.findall(r"[^\W_]+", spaced) for part in _parts(word.casefold())]


def _telling_word(name: str) -> str | None:
    """The one word of a name that is neither a unit nor says what the times are of, `None` if there is not just one."""
    telling = [word for word in _words(name) if word not in OTHER_WORDS]
    return telling[0] if len(telling) == 1 else None


def _parts(word: str) -> list[str]:
    """The words of which one is made, as "starttime" is of two."""
    match = re.fullmatch(
        r"(start|begin|end|stop|finish|onset|offset)(times?|secs?|seconds?|ms|frames?|samples?)", word
    )
    return list(match.groups()) if match else [word]


def stretch_columns(names: Iterable[str]) -> list[str]:
    """Those of the columns that mark stretches: a beginning with an end or a length, or a beginning alone.

    Args:
        names (iterable of `str`): names of columns.

    Returns:
        None, the beginning alone, or both.
    """
    names = [name for name in names if isinstance(name, str)]
    plain = {name.strip().casefold(): name for name in names}
    by_word: dict[str, str] = {}
    for name in names:
        by_word.setdefault(_telling_word(name) or "", name)
    for pair in PAIRS:
        if set(pair) <= plain.keys():
            return [plain[name] for name in pair]
    for pair in WEAK_PAIRS:
        if set(pair) <= by_word.keys():
            return [by_word[word] for word in pair]

    def first(words: set[str]) -> str | None:
        return next((name for word, name in by_word.items() if word in words), None)

    beginning, end, length, either = first(BEGINNINGS), first(ENDS), first(LENGTHS), by_word.get(EITHER)
    if beginning is None:
        beginning, either = either, None
    return [name for name in (beginning, end or either or length) if name is not None] if beginning else []


class TimeColumn(NamedTuple):
    """A column of times.

    Attributes:
        name (`str`): of it.
        seconds (`float`): in one of its units.
        is_length (`bool`): whether it tells how long stretches last, and not when they end.
    """

    name: str
    seconds: float
    is_length: bool


def time_columns(names: Iterable[str], where: str) -> list[TimeColumn]:
    """Those of the columns that [`stretch_columns`] finds, with the units that their names tell; seconds where they tell none.

    Where a time stands there in seconds and in samples or frames, it is taken in seconds.

    Args:
        names (iterable of `str`): names of columns.
        where (`str`): what holds the columns, for messages.

    Returns:
        None, the beginning alone, or both.

    Raises:
        DataError: for times in samples, frames or hours and minutes in one, for one time in columns of several units, and for a
            beginning in a unit that its name tells and an end whose name tells none, or the reverse.
    """
    names = list(names)
    found = [_time_column(name, names, where) for name in stretch_columns(names)]
    silent = [each.name for each in found if not _units(each.name)]
    if len({each.seconds for each in found}) > 1 and silent:
        (name,) = silent
        (told,) = (each.name for each in found if each.name != name)
        unit = next(each for each in _words(told) if each in UNITS)
        word = _telling_word(name)
        raise DataError(
            f"{where} has the columns {told!r} and {name!r}, of which only {told!r} tells its unit. Rename {name!r} to {word}_{unit} if it "
            f"is in the same, or to {word}_s if it is in seconds."
        )
    return found


def _time_column(name: str, names: list[str], where: str) -> TimeColumn:
    word = _telling_word(name)
    if word not in TELLING_WORDS:  # "time_min" is the least time
        return TimeColumn(name, 1.0, False)
    alike = [other for other in names if isinstance(other, str) and _telling_word(other) == word]
    told = {other: _seconds_of_unit(other) for other in alike}
    in_time = {other: seconds for other, seconds in told.items() if isinstance(seconds, float)}
    if len(set(in_time.values())) > 1:
        raise DataError(
            f"{where} has the columns {' and '.join(map(repr, in_time))}, which may be one time in two units or parts of it. Keep one "
            f"of them with all of the time, best in seconds and called {word}_s."
        )
    if name not in in_time:
        name = next(iter(in_time), name)
    if name not in in_time:
        example = (
            f"{word}_s = {word} / 16000 at 16 kHz"
            if told[name] == "samples"
            else f"{word}_s = {word} * 0.01 for 10 ms"
        )
        how = {
            "samples": f"counts samples, expected seconds. Divide by the sampling rate of the recordings ({example}), and call it {word}_s",
            "frames": f"counts frames, expected seconds. Multiply by the seconds of one ({example}), and call it {word}_s",
            "clock": f"is by its name in hours, minutes and seconds, expected seconds such as 65.0 for 1:05. Convert it, and call it {word}_s",
        }
        raise DataError(f"{where}: the column {name!r} {how[told[name]]}.")
    return TimeColumn(name, in_time[name], word in LENGTHS)


def _units(name: str) -> set[float]:
    """The seconds in the units that a name tells."""
    return {UNITS[word] for word in _words(name) if word in UNITS}


def _seconds_of_unit(name: str) -> float | str:
    """The seconds in a unit that a name tells, or "samples", "frames" or "clock"."""
    words, units = set(_words(name)), _units(name)
    if words & {*CLOCK} or len(units) > 1:
        return "clock"
    if words & {*SAMPLES}:
        return "samples"
    if words & {*FRAMES}:
        return "frames"
    return units.pop() if units else 1.0


def refuse_stretches(names: Iterable[str], data: DataArguments, where: str, repeated: bool = False):
    """Refuse columns that mark stretches of files, which would be heard from their beginning.

    Args:
        names (iterable of `str`): names of the columns.
        data ([`DataArguments`]): which of them are used for something else, or ignored.
        where (`str`): what holds the columns, for the message.
        repeated (`bool`, defaults to `False`): whether a file stands in several rows; only then a beginning without an end
            is taken for one.

    Raises:
        DataError: if there are such columns; it names them and says what to do.
    """
    used = {
        data.audio_column_name, data.features_column_name, data.label_column_name, data.split_column_name,
        data.group_column_name, data.fold_column_name, *data.label_columns, *data.ignore_columns,
    }  # fmt: skip
    marking = stretch_columns(name for name in names if name not in used)
    if not marking or (len(marking) == 1 and not repeated):
        return
    shown = " and ".join(map(repr, marking))
    several = len(marking) > 1
    raise DataError(
        f"{where} has the column{'s' if several else ''} {shown}, which mark{'' if several else 's'} stretches of files. A clip "
        "here is a whole file, so that every row would be heard from the beginning of its file. To train on the stretches, pass "
        "--marks columns, or cut them into files of their own, for example with: ffmpeg -i FILE -ss START -to END CLIP.wav, and pass a table of these. If "
        f"the clips are cut already and nothing is marked: {shlex.join(['--ignore_columns', *marking])}."
    )

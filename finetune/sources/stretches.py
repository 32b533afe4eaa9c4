"""Columns that mark a stretch of a longer file, found by their names, which are not data yet: a clip is a whole file.

Their names are those of `ast-tag --timeline --format csv` (start, end), of sound event corpora (onset, offset), of Raven
("Begin Time (s)"), Praat (xmin, xmax), NeMo manifests (offset, duration), and the like.
"""

import re
import shlex
from collections.abc import Iterable

from ..arguments.groups import DataArguments
from .data_errors import DataError

BEGINNINGS = {"start", "starts", "begin", "begins", "beginning", "onset", "tmin", "xmin", "tstart"}
ENDS = {"end", "ends", "ending", "stop", "stops", "finish", "until", "tmax", "xmax", "tend"}
LENGTHS = {"duration", "dur", "length", "len"}
EITHER = "offset"  # the end beside an onset, the beginning beside a duration
WEAK_PAIRS = (("from", "to"),)  # which alone mean nothing
PAIRS = (
    ("t0", "t1"),
    ("t1", "t2"),
    ("t_min", "t_max"),
    ("min_t", "max_t"),
    ("time_min", "time_max"),
    ("min_time", "max_time"),
)
# Units, and what times are of or in.
OTHER_WORDS = {
    "time", "times", "timestamp", "timecode", "t", "h", "hh", "hms", "hour", "hours", "min", "mins", "minute",
    "minutes", "mm", "s", "ss", "sec", "secs", "second", "seconds", "ms", "msec", "msecs", "millis", "millisecond",
    "milliseconds", "us", "samp", "sample", "samples", "frame", "frames", "index", "idx", "position", "pos", "point",
    "of", "in", "at", "the", "segment", "seg", "clip", "event", "call", "label", "annotation", "window", "box",
    "selection",
}  # fmt: skip


def _telling_word(name: str) -> str | None:
    """The one word of a name that is neither a unit nor says what the times are of, `None` if there is not just one."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    words = [part for word in re.findall(r"[^\W_]+", spaced) for part in _parts(word.casefold())]
    telling = [word for word in words if word not in OTHER_WORDS]
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

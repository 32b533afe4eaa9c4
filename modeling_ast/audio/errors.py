"""What can be wrong with a file, and what of it was not heard: errors and notes, in words that name the file."""

import re
import struct
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

CHECK_SPELLING = "Check the spelling."

# Kinds of notes. Of the first ones the kit heard less than the file holds or once held.
CUT_OFF = "cut_off"  # the file ends before what its header or its last block announces
DAMAGED = "damaged"  # a stretch within the file cannot be decoded
LEFT_OUT = "left_out"  # there is more in the file than was decoded, such as a second recording
CANCELLED = "cancelled"  # the channels cancel each other in their mean, or one is drowned by silent ones
SILENT = "silent"  # nothing but silence
HEADER = "header"  # everything was heard, but the header says something else
HEARD_LESS = frozenset((CUT_OFF, DAMAGED, LEFT_OUT, CANCELLED))
# What so many files of a kind do, in counts of them.
KINDS_IN_WORDS = {
    CUT_OFF: "are cut off",
    DAMAGED: "are damaged",
    LEFT_OUT: "are heard only in part",
    CANCELLED: "have channels that cancel or drown each other",
    SILENT: "are silent",
    HEADER: "are heard in full, though their headers say something else",
}

# What a decoder, or whatever is done with one file's samples, may raise where a file is damaged in a way nobody thought of.
ERRORS_OF_A_FILE = (
    ArithmeticError,
    AssertionError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    SystemError,
    ValueError,
    struct.error,
)
# In quotes, which are no apostrophes, or too long for a word; and numbers as which bytes are quoted.
_QUOTED = re.compile(r"""(?<!\w)b?(['"`]).*?(?:\1(?!\w)|$)|[\x00-\x1f\x7f]+|\S{61,}|\b0x[0-9a-fA-F]{2,}""")
_MEMORY_WORDS = ("not enough memory", "out of memory", "can't allocate memory")  # of torch


class AudioError(ValueError):
    """A file that cannot be used as audio; the message names the file and says what to do about it."""


class MissingAudioError(AudioError):
    """A file that is not there; the message ends with [`CHECK_SPELLING`]."""


class UnknownChoiceError(ValueError):
    """A choice that there is not.

    Args:
        fact (`str`): what was given and what was expected.
        advice (`str`): what to type; not of use for a choice that a file made.
    """

    def __init__(self, fact: str, advice: str):
        super().__init__(f"{fact} {advice}")
        self.fact = fact


@dataclass(frozen=True)
class AudioNote:
    """Something that the user should know about a file that was heard.

    Args:
        kind (`str`): one of the kinds above.
        text (`str`): a sentence that names the file.
    """

    kind: str
    text: str


def errors_of_file(name: str, what: str = "decoded") -> "_ErrorsOfFile":
    """Make whatever is raised over one file, in a `with` block, that file's own error, so that others are not lost with it.

    Args:
        name (`str`): of the file.
        what (`str`, *optional*, defaults to `"decoded"`): what cannot be done with it.

    Returns:
        A context manager.

    Raises:
        AudioError: for one of `ERRORS_OF_A_FILE`; other errors pass.
    """
    return _ErrorsOfFile(name, what)


class _ErrorsOfFile:
    # Not a generator: that would take a twentieth of the time in which a short clip is decoded.
    def __init__(self, name: str, what: str):
        self.name, self.what = name, what

    def __enter__(self):
        return None

    def __exit__(self, kind, error, traceback) -> None:
        if error is None or isinstance(error, AudioError) or not isinstance(error, ERRORS_OF_A_FILE):
            return
        said, named = first_line(error), type(error).__name__
        is_memory = isinstance(error, MemoryError) or any(words in str(error) for words in _MEMORY_WORDS)
        advice = "It is probably damaged: export or download it again, or leave it out."
        if is_memory:
            advice = (
                "There is not enough memory for it: cut it in parts, or leave it out. If it is short, it is damaged."
            )
        reason = f"{said}{'' if said == named else f' ({named})'}"
        raise AudioError(f"{self.name} cannot be {self.what}: {reason}. {advice}") from error


def first_line(error: object) -> str:
    """Take the first line of an error's words, without places in a library's source or in memory.

    What it quotes is left out: it may be of a file that is nobody else's business, and messages are kept and published.

    Args:
        error (`object`): an exception, or its words.

    Returns:
        The line; the error's name if it has none.
    """
    line = (str(error).strip() or type(error).__name__).splitlines()[0]
    line = re.sub(r"^.*\.(?:cpp|h):\d+, |^\[\S+ @ 0x[0-9a-f]+\] ", "", line)
    return _QUOTED.sub("...", line)


def files_of_each_kind(notes: Iterable[tuple[AudioNote, ...]]) -> Counter[str]:
    """Count the files that have notes of each kind; of one kind a file may have several, as for recordings that are
    joined in it.

    Args:
        notes (iterable of `tuple[AudioNote, ...]`): those of each file.

    Returns:
        Files by kind of note.
    """
    return Counter(kind for of_file in notes for kind in {note.kind for note in of_file})


def notes_in_words(counts: dict[str, int], number: int) -> list[str]:
    """Say of how many files there is something to be said.

    Args:
        counts (`dict[str, int]`): from [`files_of_each_kind`].
        number (`int`): of the files that were looked at.

    Returns:
        A text for each kind of note.
    """
    return [f"{counts[kind]} of {number} clips {words}" for kind, words in KINDS_IN_WORDS.items() if counts.get(kind)]

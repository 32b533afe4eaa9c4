"""What can be wrong with a file, and what of it was not heard: errors and notes, in words that name the file."""

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


class AudioError(ValueError):
    """A file that cannot be used as audio; the message names the file and says what to do about it."""


class MissingAudioError(AudioError):
    """A file that is not there; the message ends with [`CHECK_SPELLING`]."""


@dataclass(frozen=True)
class AudioNote:
    """Something that the user should know about a file that was heard.

    Args:
        kind (`str`): one of the kinds above.
        text (`str`): a sentence that names the file.
    """

    kind: str
    text: str

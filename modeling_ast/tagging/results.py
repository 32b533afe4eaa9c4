"""What tagging finds: labels and their scores, segments along a time line, and all of these of a file, a channel or a window."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..audio.errors import AudioNote
from .clock_time import StartTime
from .embeddings import FileEmbeddings


@dataclass(frozen=True)
class Tag:
    """A label and its score: a probability, or the model's raw output if it is a regression."""

    label: str
    score: float


@dataclass(frozen=True)
class Segment:
    """A stretch of a file, in seconds, in which a label was heard; [`label_stretches`] says where, and what its score is.

    `channel` is the number of the channel in which it was, counted from 1, where segments of several are put together.
    """

    file: str
    start: float
    end: float
    label: str
    score: float
    channel: int | None = None


@dataclass(frozen=True)
class Novelty:
    """How far a file is from the clips that its model was trained on; see [`KnownClips`].

    `distance` is the mean over its windows, `threshold` the largest of a file that is like them. `segments` are the stretches
    beyond it, if a time line was asked for; their score is the mean distance there.
    """

    distance: float
    threshold: float
    segments: list[Segment] | None = None

    @property
    def is_beyond(self) -> bool:
        """Whether the file is none of what the labels are about."""
        return self.distance > self.threshold


@dataclass(frozen=True)
class FileTags:
    """What was found in one file: its best labels, its segments if a time line was asked for, or why it failed.

    `highest_frequency` is the one in Hz up to which the model heard the file: half the lower of their sampling rates.
    `seconds` is its length, `channel` the number of the channel that was heard, counted from 1, if it was one alone.
    `faint` are its segments by lower thresholds, for whoever looks for what just does not count.
    `of_each_channel` tells that it is one of the results of a file that has one for each channel, and `results_of_file` how many
    these are. `began` is for whoever writes clock times, see [`start_time`]. The notes are what was not heard of it, and what
    else the user should know; those of the whole file stand with its first result. A stream that failed has what was found before
    that beside its error. `novelty` is there if the model can tell it, and not all of the file is silent.
    """

    file: str
    labels: list[Tag]
    segments: list[Segment] | None = None
    error: str | None = None
    highest_frequency: float | None = None
    notes: tuple[AudioNote, ...] = ()
    seconds: float | None = None
    channel: int | None = None
    embeddings: FileEmbeddings | None = None
    began: StartTime | None = None
    of_each_channel: bool = False
    faint: list[Segment] | None = None
    results_of_file: int = 1
    novelty: Novelty | None = None


@dataclass(frozen=True)
class WindowTags:
    """What was found in one window of a stream: its start and end in seconds, and its best labels, none if it is silent; and
    whether it is none of what the labels are about, where the model can tell."""

    start: float
    end: float
    labels: list[Tag]
    none_of_these: bool = False


def with_novel_segments(result: FileTags) -> FileTags:
    """Put the stretches that are none of what the labels are about among the segments, as one more label.

    Args:
        result ([`FileTags`]): of a file.

    Returns:
        [`FileTags`]: the same where there are none.
    """
    if result.segments is None or result.novelty is None or not result.novelty.segments:
        return result
    segments = [*result.segments, *result.novelty.segments]
    return replace(result, segments=sorted(segments, key=lambda segment: (segment.start, segment.end)))


def with_channels_together(results: Sequence[FileTags]) -> FileTags:
    """Make one result of those of a file's channels, whose segments tell their channels.

    Args:
        results (sequence of [`FileTags`]): of one file, one for each channel, with segments where there is no error.

    Returns:
        [`FileTags`]: with the labels of the first channel, and the error of any.
    """
    errors = [result.error for result in results if result.error is not None]
    if errors:
        return replace(results[0], labels=[], segments=None, error=errors[0])
    segments = [replace(segment, channel=result.channel) for result in results for segment in result.segments]
    segments.sort(key=lambda segment: (segment.start, segment.end, segment.channel))
    notes = dict.fromkeys(note for result in results for note in result.notes)
    return replace(results[0], segments=segments, notes=tuple(notes), channel=None)

"""Sound from standard input or a microphone, tagged as it comes: what is heard in each window, how long after its end that is told."""

import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from ..audio import AudioError, WavPipe
from ..system.interruption import put_off, raise_if_interrupted
from ..system.names_as_text import in_one_line
from .microphone import Microphone
from .none_of_these import NONE_OF_THESE
from .results import FileTags, WindowTags

NAME, MICROPHONE = "-", "microphone"
AT_ONCE = 1e-3  # seconds within which sound that is there already is taken


class LiveWindows:
    """What is said of each window of live sound, and how late.

    A window cannot be told before its sound has come: latency is the time between the sound with which a window ends and the line
    about it. A chunk that had to be waited for has just come. One that was there already waited in a pipe or a queue: it counts from
    when it came at its own pace since the last that was waited for, but if chunks come faster than they last, as from a file, from
    when it is taken.

    Args:
        say (callable): takes a line.
        clock (callable, *optional*): gives the time in seconds.
    """

    def __init__(self, say: Callable[[str], None], clock: Callable[[], float] = time.perf_counter):
        self.say, self.clock, self.latencies = say, clock, []
        self.taken = clock()  # when the last chunk was
        self.seconds = 0.0  # of sound so far
        self.begin = float("inf")  # when it began, by the last chunk that had not waited
        self.has_just_come = True  # whether that is the last one

    def heard(self, chunks: Iterator[np.ndarray], sampling_rate: int) -> Iterator[np.ndarray]:
        """Pass chunks on, and keep when they came.

        Args:
            chunks (iterator of `np.ndarray`): from [`WavPipe.chunks`] or [`Microphone.chunks`].
            sampling_rate (`int`): in Hz.

        Yields:
            The same.
        """
        asked = self.clock()
        for chunk in chunks:
            self.taken = self.clock()
            self.seconds += len(chunk) / sampling_rate
            begin = self.taken - self.seconds
            self.has_just_come = self.taken - asked > AT_ONCE or begin <= self.begin
            if self.has_just_come:
                self.begin = begin
            yield chunk
            asked = self.clock()

    def tell(self, window: WindowTags):
        """Say what a window holds.

        Args:
            window ([`WindowTags`]): which one.
        """
        came = self.taken if self.has_just_come else self.begin + window.end
        self.latencies.append(self.clock() - came)
        labels = ", ".join(f"{in_one_line(tag.label)} {tag.score:.2f}" for tag in window.labels) or "silence"
        labels = f"{NONE_OF_THESE}: {labels}" if window.none_of_these else labels
        self.say(f"{window.start:9.2f} - {window.end:9.2f} s  {labels}  ({self.latencies[-1]:.3f} s later)")

    def summary(self) -> str:
        """Say how late windows were told.

        Returns:
            A sentence.
        """
        if not self.latencies:
            return "0 windows."
        middle, most = statistics.median(self.latencies), max(self.latencies)
        return (
            f"{len(self.latencies)} windows, told {middle:.3f} s after their end in the middle, {most:.3f} s at most."
        )


def tag_standard_input(tagger, say: Callable[[str], None], **settings) -> tuple[FileTags, KeyboardInterrupt | None]:
    """Tag a WAV that comes through standard input, up to its end or an interruption.

    Args:
        tagger ([`AudioTagger`]): the model.
        say (callable): takes a line about each window, and one at the end.
        settings: of [`AudioTagger.tag_stream`].

    Returns:
        [`FileTags`], and what interrupted it, if anything.

    Raises:
        AudioError: if no WAV comes.
        TaggingError: see [`AudioTagger.tag_stream`].
    """
    if sys.stdin is None or sys.stdin.isatty():
        raise AudioError(
            "Standard input is a terminal. Pipe a WAV into it, as arecord -f S16_LE -r 16000 | ast-tag - does."
        )
    pipe = WavPipe(sys.stdin.buffer, "Standard input")
    result, interruption = _tag_live(tagger, pipe, NAME, say, settings)
    return replace(result, notes=(*pipe.notes(NAME), *result.notes)), interruption


def tag_microphone(
    tagger, device: str | None, say: Callable[[str], None], **settings
) -> tuple[FileTags, KeyboardInterrupt | None]:
    """Tag what a recording device hears, up to an interruption.

    Args:
        tagger ([`AudioTagger`]): the model.
        device (`str`, *optional*): see [`Microphone`].
        say (callable): takes lines, also about the device.
        settings: of [`AudioTagger.tag_stream`].

    Returns:
        [`FileTags`], and what interrupted it, if anything; nothing did if the device is gone.

    Raises:
        AudioError: if there is none.
        TaggingError: see [`AudioTagger.tag_stream`].
    """
    microphone = Microphone(device, tagger.reader.channels)
    say(
        f"Listening to {in_one_line(microphone.name)}, {microphone.channels} channel(s) at {microphone.sampling_rate} Hz; Ctrl-C "
        "ends it."
    )
    found = _tag_live(tagger, microphone, MICROPHONE, say, settings)
    if microphone.losses:
        say(
            f"Sound was lost {microphone.losses} times, as the model takes longer than the sound lasts. Pass a larger --hop, or "
            "leave --timeline out."
        )
    return found


def _tag_live(tagger, source, name: str, say: Callable[[str], None], settings: dict):
    windows, interruption = LiveWindows(say), None

    def until_interrupted() -> Iterator[np.ndarray]:
        nonlocal interruption
        try:
            for chunk in source.chunks():
                put_off(True)  # what is scored of it is not broken off
                yield chunk
                put_off(False)
                raise_if_interrupted()
        except KeyboardInterrupt as error:
            interruption = error

    try:
        chunks = windows.heard(until_interrupted(), source.sampling_rate)
        result = tagger.tag_stream(chunks, source.sampling_rate, name, windows.tell, **settings)
    finally:
        put_off(False)
    say(windows.summary())
    return result, interruption

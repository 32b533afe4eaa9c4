"""Decoded clips, or their features, that stay in memory for later epochs.

The memory is shared: a process that a loader forks finds in it what others have decoded, and leaves there what it decodes.
Where processes are started anew instead of forked, each decodes by itself, as it does without this memory.
"""

import mmap
import multiprocessing
import os
from collections.abc import Sequence

import numpy as np

from modeling_ast.audio import AudioNote, Heard

VALUE = np.dtype(np.float32)
ABSENT, CLAIMED, WHOLE, TOO_LARGE = 0, 1, 2, 3  # states of a clip
# Where the values of a clip begin, and its shape: samples and 0, samples and channels, or frames and mel bins.
RECORD = np.dtype([("state", "<i8"), ("start", "<i8"), ("rows", "<i8"), ("columns", "<i8")])
LONGEST_WAIT = 1.0  # seconds for a lock that is held for microseconds; a process that was killed never gives it back


class ClipMemory:
    """Arrays of the clips of a split by their places, as many as there is room for; those that come first stay.

    Args:
        num_clips (`int`): clips of the split.
        num_bytes (`int`): room for their arrays. Memory is taken when they come.
    """

    def __init__(self, num_clips: int, num_bytes: int):
        self._room = num_bytes // VALUE.itemsize
        try:
            self._values = _shared(self._room, VALUE)
        except OSError:  # the system does not give as much, so that nothing is kept
            self._room, self._values = 0, _shared(0, VALUE)
        self._records = _shared(num_clips, RECORD)
        self._taken = _shared(1, np.dtype(np.int64))
        self._lock = multiprocessing.Lock()
        self._notes: dict[int, tuple[AudioNote, ...]] = {}
        self._process = os.getpid()

    def __getstate__(self) -> dict:
        return {}  # a process that is started anew has no part in it

    def __setstate__(self, state: dict):
        self.__init__(0, 0)

    def __contains__(self, place: int) -> bool:
        return place < len(self._records) and self._records["state"][place] == WHOLE

    def get(self, place: int) -> np.ndarray | None:
        """Find the array of a clip.

        Args:
            place (`int`): of the clip in the split.

        Returns:
            `np.ndarray`: a copy, as it was kept; `None` if it is not there.
        """
        if place not in self:
            return None
        _, start, rows, columns = self._records[place].item()
        values = self._values[start : start + rows * max(columns, 1)].copy()
        return values.reshape(rows, columns) if columns else values

    def has_no_room(self, place: int) -> bool:
        """Tell whether the array of a clip came and found no room; there will be no more of it.

        Args:
            place (`int`): of the clip in the split.

        Returns:
            `bool`.
        """
        return place >= len(self._records) or self._records["state"][place] == TOO_LARGE

    def rows(self, place: int, begin: int, end: int) -> np.ndarray:
        """Take some rows of the array of a clip that is there.

        Args:
            place (`int`): of the clip in the split.
            begin (`int`): the first row.
            end (`int`): behind the last one; there are fewer where the array ends before.

        Returns:
            `np.ndarray` of shape `(rows, columns)`: a copy.
        """
        _, start, rows, columns = self._records[place].item()
        return self._values[start + begin * columns : start + min(end, rows) * columns].copy().reshape(-1, columns)

    def keep(self, place: int, values: np.ndarray):
        """Keep the array of a clip, if there is room and no other process has it or is about to.

        Args:
            place (`int`): of the clip in the split.
            values (`np.ndarray` of shape `(samples,)`, `(samples, channels)` or `(frames, mel bins)`): float32.
        """
        if place >= len(self._records):
            return
        if self._taken[0] + values.size > self._room:
            if self._records["state"][place] == ABSENT:
                self._records["state"][place] = TOO_LARGE
            return
        if not self._lock.acquire(timeout=LONGEST_WAIT):
            return
        try:
            start = int(self._taken[0])
            if self._records["state"][place] in (CLAIMED, WHOLE) or start + values.size > self._room:
                return
            self._records["state"][place] = CLAIMED
            self._taken[0] = start + values.size
        finally:
            self._lock.release()
        self._values[start : start + values.size] = values.ravel()
        self._records[place] = (CLAIMED, start, len(values), values.shape[1] if values.ndim == 2 else 0)
        if self._lock.acquire(timeout=LONGEST_WAIT):  # so that no process sees it whole before its values are there
            self._records["state"][place] = WHOLE
            self._lock.release()

    def heard(self, place: int) -> Heard | None:
        """Find a waveform.

        Args:
            place (`int`): of the clip in the split.

        Returns:
            `Heard`: as it was kept with [`ClipMemory.keep_heard`]; `None` if it is not there.
        """
        waveform = self.get(place)
        return None if waveform is None else Heard(waveform, self._notes.get(place, ()))

    def keep_heard(self, place: int, heard: Heard, samples: int):
        """Keep a waveform and what is to be said of it, if there is room.

        Args:
            place (`int`): of the clip in the split.
            heard (`Heard`): the clip.
            samples (`int`): how many of its samples are of interest.
        """
        if heard.notes:
            if os.getpid() != self._process:
                return  # what a forked process has to say of a clip stays with it
            self._notes[place] = heard.notes
        self.keep(place, heard.waveform[:samples])


def _shared(count: int, kind: np.dtype) -> np.ndarray:
    """Zeros that forked processes share; the system gives the memory where something is written."""
    return np.frombuffer(mmap.mmap(-1, max(count, 1) * kind.itemsize), kind, count)


def divided(num_bytes: int, wanted: Sequence[int]) -> list[int]:
    """Divide room among splits.

    Args:
        num_bytes (`int`): the room.
        wanted (sequence of `int`): bytes that each split could take at most.

    Returns:
        `list[int]`: what each gets: all it wants, or its part.
    """
    total = sum(wanted)
    return list(wanted) if total <= num_bytes else [num_bytes * part // total for part in wanted]

"""Windows of several recordings in common batches, and what comes of them: the scores of each recording, put together."""

import math
from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from ..audio import AudioError, errors_of_file
from ..audio.errors import ERRORS_OF_A_FILE
from .embeddings import WindowVectors
from .segments import runs_of_true
from .windows import Window, WindowCutter


@dataclass(eq=False)
class Recording:
    """One waveform that is being scored: a file, or a channel of it.

    Args:
        name (`str`): what messages call it.
        cutter ([`WindowCutter`]): makes its windows.
        channel (`int`, *optional*): which channel of the file it is, counted from 1, if that is one alone.
    """

    name: str
    cutter: WindowCutter
    channel: int | None = None
    error: str | None = None
    # In arrays, as small objects that stay between large ones that come and go would keep a process from giving memory back.
    starts: array = field(default_factory=partial(array, "q"))  # first sample of each window
    scored: bytearray = field(default_factory=bytearray)  # whether each window has scores; silent ones have none
    scores: np.ndarray = field(default_factory=partial(np.empty, (0, 0), np.float32))  # with room for more windows
    vectors: dict[int, WindowVectors] = field(default_factory=dict)  # likewise, where they are wanted
    distances: array = field(
        default_factory=partial(array, "d")
    )  # of each window from the training clips; NaN of none
    waiting: int = 0  # of its windows, until they are scored

    @property
    def num_samples(self) -> int:
        """How long it is, as far as it has come."""
        return self.cutter.num_samples

    @property
    def num_scored(self) -> int:
        """How many of its windows have scores."""
        return sum(self.scored)

    def add_window(self, start: int) -> int:
        """Take a window without scores.

        Args:
            start (`int`): its first sample.

        Returns:
            Its number.
        """
        self.starts.append(start)
        self.scored.append(False)
        self.distances.append(math.nan)
        return len(self.starts) - 1

    def keep(self, number: int, scores: np.ndarray):
        """Take the scores of a window.

        Args:
            number (`int`): from [`Recording.add_window`].
            scores (`np.ndarray` of shape `(labels,)`): float32.
        """
        if number >= len(self.scores):
            room = np.empty((max(2 * len(self.scores), number + 1, 64), len(scores)), np.float32)
            room[: len(self.scores)] = self.scores.reshape(-1, len(scores))
            self.scores = room
        self.scores[number] = scores
        self.scored[number] = True

    def runs(self) -> list[tuple[list[int], np.ndarray]]:
        """Put its scores together.

        Returns:
            For each run of windows that are not silent their first samples, and their scores of shape `(windows, labels)`.
        """
        starts = self.starts.tolist()
        return [
            (starts[first : last + 1], self.scores[first : last + 1])
            for first, last in runs_of_true(np.frombuffer(self.scored, bool))
        ]

    def silent_spans(self) -> tuple[np.ndarray, np.ndarray]:
        """Tell where its silent windows lie, once all others have scores.

        Returns:
            The first sample of each, ascending, and the sample after each one's last.
        """
        begins = np.array(self.starts)[~np.frombuffer(self.scored, bool)]
        return begins, np.minimum(begins + self.cutter.window_samples, self.num_samples)


class WindowScorer:
    """Scores the windows of recordings as they come, those of several in one batch.

    Args:
        score (callable): scores a list of [`Window`], all with features or all with waveforms: float32 of shape
            `(windows, labels)`, a list of their [`WindowVectors`], or `None`, and their distances from the training clips, or
            `None`.
        batch_size (`int`): windows that are scored at once.
        batches_sorted (`int`, *optional*, defaults to 1): batches whose windows are put in the order of their lengths first, where
            a batch is padded to its longest.
    """

    def __init__(
        self,
        score: Callable[[list[Window]], tuple[np.ndarray, list[WindowVectors] | None, np.ndarray | None]],
        batch_size: int,
        batches_sorted: int = 1,
    ):
        self.score, self.batch_size = score, batch_size
        self._held = batch_size * batches_sorted
        self._waiting: dict[bool, list[tuple[Recording, int, Window]]] = {False: [], True: []}

    def add(self, recording: Recording, windows: list[Window]):
        """Take windows; as many are scored as make whole batches.

        Args:
            recording ([`Recording`]): whose they are.
            windows (`list[Window]`): in their order.
        """
        for window in windows:
            number = recording.add_window(window.start)
            if window.is_silent or recording.error is not None:
                continue
            waiting = self._waiting[window.features is not None]
            waiting.append((recording, number, window))
            recording.waiting += 1
            if len(waiting) == self._held:
                self._score_all(waiting)

    def flush(self):
        """Score what is left."""
        for waiting in self._waiting.values():
            self._score_all(waiting)

    def _score_all(self, waiting: list[tuple[Recording, int, Window]]):
        if self._held > self.batch_size:
            waiting.sort(key=lambda entry: entry[2].samples)
        for first in range(0, len(waiting), self.batch_size):
            self._score(waiting[first : first + self.batch_size])
        for recording, _, _ in waiting:
            recording.waiting -= 1
        waiting.clear()

    def forget(self, recordings: list[Recording]):
        """Drop windows of recordings that are not scored to their end.

        Args:
            recordings (`list[Recording]`): which ones.
        """
        for kind, waiting in self._waiting.items():
            self._waiting[kind] = [entry for entry in waiting if entry[0] not in recordings]

    def _score(self, batch: list[tuple[Recording, int, Window]]):
        """Score a batch; the windows of each recording alone if one of them cannot be scored."""
        try:
            found = self.score([window for _, _, window in batch])
        except ERRORS_OF_A_FILE:
            recordings = list(dict.fromkeys(recording for recording, _, _ in batch))
            for recording in recordings:
                own = [entry for entry in batch if entry[0] is recording]
                try:
                    with errors_of_file(recording.name, "scored"):
                        self._keep(own, *self.score([window for _, _, window in own]))
                except AudioError as error:
                    recording.error = str(error)
            return
        self._keep(batch, *found)

    @staticmethod
    def _keep(
        batch: list[tuple[Recording, int, Window]],
        scores: np.ndarray,
        vectors: list[WindowVectors] | None,
        distances: np.ndarray | None,
    ):
        for (recording, number, _), row in zip(batch, scores, strict=True):
            if recording.error is None and not np.isfinite(row).all():
                recording.error = (
                    f"{recording.name} gets scores that are not numbers. Its samples may be far beyond full scale: export it "
                    "again, for example as 16-bit WAV, or leave it out."
                )
            recording.keep(number, row)
        if vectors is not None:
            for (recording, number, _), of_window in zip(batch, vectors, strict=True):
                recording.vectors[number] = of_window
        if distances is not None:
            for (recording, number, _), distance in zip(batch, distances.tolist(), strict=True):
                recording.distances[number] = distance

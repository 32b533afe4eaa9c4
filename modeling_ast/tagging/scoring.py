"""Windows of several recordings in common batches, and what comes of them: the scores of each recording, put together."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from ..audio import AudioError, errors_of_file
from ..audio.errors import ERRORS_OF_A_FILE
from .embeddings import WindowVectors
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
    windows: list[tuple[int, int]] = field(default_factory=list)  # start and samples of each
    rows: dict[int, np.ndarray] = field(default_factory=dict)  # scores by number of window; silent ones have none
    vectors: dict[int, WindowVectors] = field(default_factory=dict)  # likewise, where they are wanted

    @property
    def num_samples(self) -> int:
        """How long it is, as far as it has come."""
        return self.cutter.num_samples

    @property
    def num_silent(self) -> int:
        """How many of its windows are silent."""
        return len(self.windows) - len(self.rows)

    def runs(self) -> list[tuple[list[int], np.ndarray]]:
        """Put its scores together.

        Returns:
            For each run of windows that are not silent their first samples, and their scores of shape `(windows, labels)`.
        """
        found: list[list[int]] = []
        for number in sorted(self.rows):
            if not found or number != found[-1][-1] + 1:
                found.append([])
            found[-1].append(number)
        return [
            ([self.windows[number][0] for number in run], np.stack([self.rows[number] for number in run]))
            for run in found
        ]


class WindowScorer:
    """Scores the windows of recordings as they come, those of several in one batch.

    Args:
        score (callable): scores a list of [`Window`], all with features or all with waveforms: float32 of shape
            `(windows, labels)`, and a list of their [`WindowVectors`], or `None`.
        batch_size (`int`): windows that are scored at once.
    """

    def __init__(
        self,
        score: Callable[[list[Window]], tuple[np.ndarray, list[WindowVectors] | None]],
        batch_size: int,
    ):
        self.score, self.batch_size = score, batch_size
        self._waiting: dict[bool, list[tuple[Recording, int, Window]]] = {False: [], True: []}

    def add(self, recording: Recording, windows: list[Window]):
        """Take windows; as many are scored as make whole batches.

        Args:
            recording ([`Recording`]): whose they are.
            windows (`list[Window]`): in their order.
        """
        for window in windows:
            number = len(recording.windows)
            recording.windows.append((window.start, window.samples))
            if window.is_silent or recording.error is not None:
                continue
            waiting = self._waiting[window.features is not None]
            waiting.append((recording, number, window))
            if len(waiting) == self.batch_size:
                self._score(waiting)
                waiting.clear()

    def flush(self):
        """Score what is left."""
        for waiting in self._waiting.values():
            if waiting:
                self._score(waiting)
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
    def _keep(batch: list[tuple[Recording, int, Window]], scores: np.ndarray, vectors: list[WindowVectors] | None):
        for (recording, number, _), row in zip(batch, scores, strict=True):
            if recording.error is None and not np.isfinite(row).all():
                recording.error = (
                    f"{recording.name} gets scores that are not numbers. Its samples may be far beyond full scale: export it "
                    "again, for example as 16-bit WAV, or leave it out."
                )
            recording.rows[number] = row
        if vectors is not None:
            for (recording, number, _), of_window in zip(batch, vectors, strict=True):
                recording.vectors[number] = of_window

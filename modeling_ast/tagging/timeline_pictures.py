"""Pictures of time lines: the spectrogram of a recording, and below it, along the same seconds, its segments by label.

Drawn with Matplotlib's `Figure`, see [`modeling_ast.features.log_mel_figure`]; it is imported when a picture is drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..system.names_as_text import storable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_COLUMNS = 2400  # of a spectrogram: about two for each pixel
MOST_LABELS = 30  # that get a lane
LONGEST_LABEL = 28  # characters
BLOCK_SECONDS = 60  # of samples whose frames are computed at a time
FAINTEST = 0.25  # opacity of a segment with a score of 0
COLOUR = "#3b6fb6"


def picture_of(tagger, result, path: str | Path) -> Figure:
    """Draw a tagged file; it is decoded once more for that, block by block.

    Args:
        tagger ([`AudioTagger`]): by which it was tagged.
        result ([`FileTags`]): with segments.
        path (`str` or `Path`): PNG file to write.

    Returns:
        `Figure`: what was written.

    Raises:
        AudioError: if the file cannot be decoded any more.
    """
    stream = tagger.reader.stream(result.file)
    columns = stream.heard_by(
        lambda: LoudestColumns(tagger.sampling_rate, tagger.feature_extractor.num_mel_bins),
        lambda columns, block: columns.add(block[0]),
    )
    title, end = Path(result.file).name, columns.end
    return draw_timeline(columns.log_mel(), result.seconds, result.segments, path, title, tagger.sampling_rate, end)


class LoudestColumns:
    """A log-mel spectrogram that is no wider than can be seen, of a recording that is given block by block: each column is
    the loudest of so many frames, at each mel bin, that short calls stay visible.

    Args:
        sampling_rate (`int`): in Hz.
        num_mel_bins (`int`): mel bins.
        most (`int`, defaults to 2400): whole columns at most, and one of what is left; with more, neighbours are joined.
    """

    def __init__(self, sampling_rate: int, num_mel_bins: int, most: int = MOST_COLUMNS):
        self.sampling_rate, self.num_mel_bins, self.most = sampling_rate, num_mel_bins, most
        self._of_column = 1  # frames
        self._samples = np.empty(0, np.float32)  # of which no frame is computed yet
        self._columns = np.empty((0, num_mel_bins), np.float32)
        self._frames = np.empty((0, num_mel_bins), np.float32)  # behind the last whole column

    @property
    def end(self) -> float:
        """Where the last column ends, in seconds."""
        from ..features.kaldi import FRAME_SHIFT_MS

        return len(self.log_mel()) * self._of_column * FRAME_SHIFT_MS / 1000

    def add(self, samples: np.ndarray):
        """Take the next samples.

        Args:
            samples (`np.ndarray` of shape `(samples,)`): mono float32.
        """
        import torch

        from ..features.kaldi import frame_length, frame_shift, num_frames
        from ..features.log_mel import log_mel_spectrogram

        samples = np.concatenate([self._samples, samples])
        shift = frame_shift(self.sampling_rate)
        # A minute at a time: frames take more memory than samples.
        while samples.size >= frame_length(self.sampling_rate):
            part = samples[: BLOCK_SECONDS * self.sampling_rate]
            log_mel = log_mel_spectrogram(torch.from_numpy(part)[None], self.sampling_rate, self.num_mel_bins)[0]
            samples = samples[num_frames(part.size, self.sampling_rate) * shift :]
            self._add_frames(log_mel.numpy())
        self._samples = samples

    def _add_frames(self, frames: np.ndarray):
        frames = np.concatenate([self._frames, frames])
        whole = len(frames) // self._of_column * self._of_column
        self._columns = np.concatenate([self._columns, self._joined(frames[:whole], self._of_column)])
        self._frames = frames[whole:]
        while len(self._columns) > self.most:
            even = len(self._columns) // 2 * 2
            # A column without a neighbour waits among the frames: its frames are no longer there, but their loudest is.
            waiting = np.repeat(self._columns[even:], self._of_column, axis=0)
            self._frames = np.concatenate([waiting, self._frames])
            self._columns = self._joined(self._columns[:even], 2)
            self._of_column *= 2

    @staticmethod
    def _joined(rows: np.ndarray, count: int) -> np.ndarray:
        return rows.reshape(-1, count, rows.shape[1]).max(axis=1)

    def log_mel(self) -> np.ndarray:
        """Give the spectrogram of all that was added.

        Returns:
            `np.ndarray` of shape `(columns, num_mel_bins)`, natural logarithm of the energy.
        """
        if not len(self._frames):
            return self._columns
        return np.concatenate([self._columns, self._frames.max(axis=0, keepdims=True)])


def draw_timeline(
    log_mel: np.ndarray,
    seconds: float,
    segments: Sequence,
    path: str | Path,
    title: str,
    sampling_rate: int = 16_000,
    end: float | None = None,
) -> Figure:
    """Draw a spectrogram above, and below it a lane for each label with its segments, the darker the higher their scores.

    Args:
        log_mel (`np.ndarray` of shape `(columns, bins)`): log-mel values, evenly spaced from the recording's begin.
        seconds (`float`): its length.
        segments (sequence of [`Segment`]): of the recording; of more than 30 labels those with the highest scores are shown, and
            it is said.
        path (`str` or `Path`): PNG file to write.
        title (`str`): what stands above.
        sampling_rate (`int`, defaults to 16000): of the waveform in Hz; the mel bins end at half of it.
        end (`float`, *optional*): second in which the last column ends; the recording's last if not given.

    Returns:
        `Figure`: what was written.
    """
    from matplotlib.figure import Figure

    from ..features.log_mel_figure import draw_log_mel, save_figure

    best = {}
    for segment in segments:
        best[segment.label] = max(segment.score, best.get(segment.label, 0.0))
    shown = set(sorted(best, key=best.get, reverse=True)[:MOST_LABELS])
    labels = [label for label in best if label in shown]  # in the order in which they are heard first
    height = 0.3 * max(len(labels), 1)
    figure = Figure(figsize=(12, 3 + height), layout="constrained")
    picture, lanes = figure.subplots(2, 1, sharex=True, height_ratios=(2.4, height))
    draw_log_mel(picture, log_mel, sampling_rate).set_extent((0, end or seconds, -0.5, log_mel.shape[1] - 0.5))
    picture.set_ylabel("Hz")
    picture.set_title(storable(title), parse_math=False)
    for lane, label in enumerate(labels):
        own = [segment for segment in segments if segment.label == label]
        opacities = [FAINTEST + (1 - FAINTEST) * min(max(segment.score, 0.0), 1.0) for segment in own]
        places = [(segment.start, segment.end - segment.start) for segment in own]
        # One drawing for all of a label: one for each segment takes a minute for some thousands.
        lanes.broken_barh(places, (lane - 0.4, 0.8), facecolors=[(COLOUR, opacity) for opacity in opacities])
    lanes.set_yticks(range(len(labels)), [_shortened(label) for label in labels], parse_math=False)
    lanes.set_ylim(max(len(labels), 1) - 0.5, -0.5)
    lanes.set_xlim(0, seconds)
    more = len(best) - len(labels)
    lanes.set_xlabel(f"seconds ({more} labels with lower scores are not shown)" if more else "seconds")
    lanes.grid(axis="x", alpha=0.3)
    return save_figure(figure, path)


def _shortened(label: str) -> str:
    label = storable(label)
    return label if len(label) <= LONGEST_LABEL else f"{label[: LONGEST_LABEL - 1]}…"

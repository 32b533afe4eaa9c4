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
BLOCK_SECONDS = 60  # whose frames are computed at a time
FAINTEST = 0.25  # opacity of a segment with a score of 0
COLOUR = "#3b6fb6"


def picture_of(tagger, result, path: str | Path) -> Figure:
    """Draw a tagged file; it is decoded once more for that.

    Args:
        tagger ([`AudioTagger`]): by which it was tagged.
        result ([`FileTags`]): with segments.
        path (`str` or `Path`): PNG file to write.

    Returns:
        `Figure`: what was written.

    Raises:
        AudioError: if the file cannot be decoded any more.
    """
    waveform = tagger.reader.hear(result.file).waveform
    log_mel = columns_of(waveform, tagger.sampling_rate, tagger.feature_extractor.num_mel_bins)
    seconds = waveform.size / tagger.sampling_rate
    return draw_timeline(log_mel, seconds, result.segments, path, Path(result.file).name, tagger.sampling_rate)


def columns_of(waveform: np.ndarray, sampling_rate: int, num_mel_bins: int, most: int = MOST_COLUMNS) -> np.ndarray:
    """Compute a log-mel spectrogram that is no wider than can be seen: each column is the loudest of so many frames that
    short calls stay visible.

    Args:
        waveform (`np.ndarray` of shape `(samples,)`): mono float32, at least one frame long.
        sampling_rate (`int`): in Hz.
        num_mel_bins (`int`): mel bins.
        most (`int`, defaults to 2400): columns at most.

    Returns:
        `np.ndarray` of shape `(columns, num_mel_bins)`, natural logarithm of the energy.
    """
    import torch

    from ..features.kaldi import frame_length, frame_shift, num_frames
    from ..features.log_mel import log_mel_spectrogram

    frames = num_frames(waveform.size, sampling_rate)
    of_column = -(-frames // most)
    at_once = max(BLOCK_SECONDS * 100 // of_column, 1) * of_column
    shift, length = frame_shift(sampling_rate), frame_length(sampling_rate)
    columns = []
    for first in range(0, frames, at_once):
        count = min(at_once, frames - first)
        samples = waveform[first * shift : (first + count - 1) * shift + length]
        log_mel = log_mel_spectrogram(torch.from_numpy(samples)[None], sampling_rate, num_mel_bins)[0].numpy()
        columns.append(np.maximum.reduceat(log_mel, np.arange(0, count, of_column), axis=0))
    return np.concatenate(columns)


def draw_timeline(
    log_mel: np.ndarray, seconds: float, segments: Sequence, path: str | Path, title: str, sampling_rate: int = 16_000
) -> Figure:
    """Draw a spectrogram above, and below it a lane for each label with its segments, the darker the higher their scores.

    Args:
        log_mel (`np.ndarray` of shape `(columns, bins)`): log-mel values, evenly spaced over the recording.
        seconds (`float`): its length.
        segments (sequence of [`Segment`]): of the recording; of more than 30 labels those with the highest scores are shown, and
            it is said.
        path (`str` or `Path`): PNG file to write.
        title (`str`): what stands above.
        sampling_rate (`int`, defaults to 16000): of the waveform in Hz; the mel bins end at half of it.

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
    draw_log_mel(picture, log_mel, sampling_rate).set_extent((0, seconds, -0.5, log_mel.shape[1] - 0.5))
    picture.set_ylabel("Hz")
    picture.set_title(storable(title), parse_math=False)
    for lane, label in enumerate(labels):
        for segment in segments:
            if segment.label == label:
                opacity = FAINTEST + (1 - FAINTEST) * min(max(segment.score, 0.0), 1.0)
                place = [(segment.start, segment.end - segment.start)]
                lanes.broken_barh(place, (lane - 0.4, 0.8), facecolors=COLOUR, alpha=opacity)
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

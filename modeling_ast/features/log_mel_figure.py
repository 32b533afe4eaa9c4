"""Log-mel spectrograms as pictures, with seconds and Hz along the axes.

For Matplotlib's `Figure` objects, never pyplot: no window, no global state, safe in threads. Importing this imports neither
Matplotlib nor torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..system.atomic_files import open_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

DPI = 120
MARKED_FREQUENCIES = (125, 250, 500, 1000, 2000, 4000, 8000, 16000)  # Hz
DARKEST_PERCENTILE = 5  # padding and digital silence lie far below everything that sounds


def draw_log_mel(
    axes: Axes,
    log_mel: np.ndarray,
    sampling_rate: int,
    darkest: float | None = None,
    brightest: float | None = None,
    cmap: str = "magma",
) -> AxesImage:
    """Draw a log-mel spectrogram into axes, time to the right and frequency upwards.

    Args:
        axes (`Axes`): where; get seconds on the one axis, marks in Hz on the other, whose unit is the mel bin.
        log_mel (`np.ndarray` of shape `(frames, bins)`): log-mel values, a frame every 10 ms, normalised or not.
        sampling_rate (`int`): of the waveform in Hz; the mel bins end at half of it.
        darkest (`float`, *optional*): the value at the dark end of the colours; a low percentile if not given.
        brightest (`float`, *optional*): the value at the bright end; the maximum if not given.
        cmap (`str`, defaults to `"magma"`): the colours.

    Returns:
        `AxesImage`: what was drawn.
    """
    from .kaldi import FRAME_SHIFT_MS

    frames, bins = log_mel.shape
    image = axes.imshow(
        log_mel.T,
        origin="lower",
        aspect="auto",
        cmap=cmap,
        interpolation="nearest",
        extent=(0, frames * FRAME_SHIFT_MS / 1000, -0.5, bins - 0.5),
        vmin=np.percentile(log_mel, DARKEST_PERCENTILE) if darkest is None else darkest,
        vmax=log_mel.max() if brightest is None else brightest,
    )
    _set_mel_ticks(axes, bins, sampling_rate)
    return image


def save_figure(figure: Figure, path: str | Path, dpi: float = DPI) -> Figure:
    """Write a figure to a PNG file, which appears only when it is complete.

    Args:
        figure (`Figure`): what is written, with what lies outside its edges.
        path (`str` or `Path`): the file.
        dpi (`float`, defaults to 120): pixels per inch.

    Returns:
        `Figure`: the same.
    """
    with open_atomically(path) as file:
        figure.savefig(file, format="png", dpi=dpi, bbox_inches="tight", pad_inches=0.1)
    return figure


def _set_mel_ticks(axes: Axes, bins: int, sampling_rate: int) -> None:
    """Mark round frequencies on an axis of mel bins, which have equal steps in mel."""
    from .kaldi import LOWEST_FREQUENCY_HZ, mel_scale

    frequencies = [frequency for frequency in MARKED_FREQUENCIES if frequency <= sampling_rate / 2]
    lowest, highest = mel_scale(LOWEST_FREQUENCY_HZ), mel_scale(sampling_rate / 2)
    # The centre of bin b lies b + 1 steps above the lower edge; bins + 1 steps lead to the upper one.
    step = (highest - lowest) / (bins + 1)
    positions = (np.array([mel_scale(frequency) for frequency in frequencies]) - lowest) / step - 1
    axes.set_yticks(np.minimum(positions, bins - 0.5), [str(frequency) for frequency in frequencies])

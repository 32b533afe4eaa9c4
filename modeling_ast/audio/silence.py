"""What counts as silence, for every command alike."""

import numpy as np

SILENT_PEAK = 1e-4  # -80 dB of full scale, three steps of 16 bits: dither alone, or less


def is_silent(waveform: np.ndarray) -> bool:
    """Tell whether a waveform holds nothing but silence; a constant offset is none to the model, which takes it off.

    Args:
        waveform (`np.ndarray` of shape `(samples,)`): one sample or more, full scale at -1 and 1.

    Returns:
        `bool`.
    """
    return is_silence(float(waveform.min()), float(waveform.max()))


def is_silence(lowest: float, highest: float) -> bool:
    """Tell whether a waveform whose lowest and highest sample are known is silent, see [`is_silent`].

    Args:
        lowest (`float`): the lowest sample, full scale at -1 and 1.
        highest (`float`): the highest one.

    Returns:
        `bool`.
    """
    return highest - lowest <= 2 * SILENT_PEAK

"""What is unusual about a clip, in words: what to look for in the files that a result which is no number comes from."""

import numpy as np
import torch

from modeling_ast.audio import is_silent

FULL_SCALE, CLIPPED_SHARE = 0.999, 0.01
LARGE_OFFSET = 0.1  # mean of a waveform
LARGE_FEATURE = 20.0  # of features normalised to a standard deviation of 0.5


def waveform_oddities(waveform: np.ndarray) -> list[str]:
    """Find what is unusual about a clip.

    Args:
        waveform (`np.ndarray` of shape `(samples,)`): as decoded.

    Returns:
        In words, what it is: a text each.
    """
    peak, mean = float(np.abs(waveform).max()), float(waveform.mean(dtype=np.float64))
    found = ["silent"] if is_silent(waveform) else []
    if peak > 1.5:  # decoders of lossy formats overshoot full scale a little
        found.append(f"samples up to {peak:.3g}, expected from -1 to 1")
    else:
        share = float((np.abs(waveform) >= FULL_SCALE).mean())
        if share > CLIPPED_SHARE:
            found.append(f"clipped, {share:.0%} of its samples at full scale")
    if abs(mean) > LARGE_OFFSET:
        found.append(f"its mean is {mean:.3g}, not 0")
    return found


def feature_oddities(features: torch.Tensor) -> list[str]:
    """Find what is unusual about normalised features.

    Args:
        features (`torch.Tensor` of shape `(batch, frames, mel bins)`): as the model gets them.

    Returns:
        In words, what it is: a text each.
    """
    if not features.isfinite().all():
        return ["its features are not numbers"]
    largest = features.abs().max().item()
    return [f"normalised features up to {largest:.3g}"] if largest > LARGE_FEATURE else []

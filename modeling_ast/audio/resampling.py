"""Convert the sampling rate of a waveform."""

import numpy as np

DEFAULT_RESAMPLER = "torchaudio"  # of checkpoints that name none


def resample(
    waveform: np.ndarray, file_rate: int, sampling_rate: int, resampler: str = DEFAULT_RESAMPLER
) -> np.ndarray:
    """Convert the sampling rate of a waveform.

    Args:
        waveform (`np.ndarray` of shape `(samples,)`): float32.
        file_rate (`int`): its sampling rate in Hz.
        sampling_rate (`int`): the one wanted, in Hz.
        resampler (`str`, *optional*, defaults to `"torchaudio"`): `torchaudio.functional.resample` with its defaults, as
            in the audio classification pipeline of Transformers.

    Returns:
        `np.ndarray` of shape `(samples,)` and type float32.
    """
    if file_rate == sampling_rate:
        return waveform
    import torch
    import torchaudio.functional

    return torchaudio.functional.resample(torch.from_numpy(waveform), file_rate, sampling_rate).numpy()

"""Features as `torchaudio.compliance.kaldi` computes them, and how near to them ours are."""

import torch
import torchaudio.compliance.kaldi

# Every step before the Fourier transform is rounded as Kaldi's, so that even almost empty bins come out alike.
MEAN_TOLERANCE, MAX_TOLERANCE = 1e-6, 1e-5


def kaldi_fbank(waveform: torch.Tensor, num_mel_bins: int = 128) -> torch.Tensor:
    return torchaudio.compliance.kaldi.fbank(
        waveform[None], sample_frequency=16_000, window_type="hanning", num_mel_bins=num_mel_bins
    )

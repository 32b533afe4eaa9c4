"""Normalisation statistics against torchaudio's features and NumPy's mean and standard deviation."""

import numpy as np
import pytest
import torch
import torchaudio.compliance.kaldi as kaldi

from finetune.normalization import CLIPS_PER_BATCH, measure_normalization
from modeling_ast import ASTFeatureExtractor


def test_statistics_are_those_of_all_unpadded_frames(drum_clips):
    clips = drum_clips * 2
    assert len(clips) > CLIPS_PER_BATCH, "more than one batch"
    measured = measure_normalization(clips, ASTFeatureExtractor(max_length=60))
    features = [
        kaldi.fbank(torch.from_numpy(clip)[None], window_type="hanning", num_mel_bins=128)[:60].numpy()
        for clip in clips
    ]
    everything = np.concatenate(features).astype(np.float64)
    assert measured.clips == len(clips)
    assert measured.frames == len(everything)
    assert measured.mean == pytest.approx(everything.mean(), abs=1e-5)
    assert measured.std == pytest.approx(everything.std(), abs=1e-5)


@pytest.mark.parametrize(
    ("clips", "message"), [([], "no clip"), ([np.zeros(8000, np.float32)] * 2, "is the audio silent")]
)
def test_no_statistics_from_nothing(clips, message):
    with pytest.raises(ValueError, match=message):
        measure_normalization(clips, ASTFeatureExtractor())

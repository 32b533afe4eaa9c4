"""Normalisation statistics against torchaudio's features and NumPy's mean and standard deviation; what is refused."""

import re

import numpy as np
import pytest
import torch
import torchaudio.compliance.kaldi as kaldi

from finetune.clip_sets.normalization import (
    CLIPS_PER_BATCH,
    measure_normalization,
    normalized_batch_warning,
    refuse_waveform_statistics,
)
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


def test_a_mean_far_from_zero_does_not_eat_the_standard_deviation():
    class FarFromZero(ASTFeatureExtractor):
        def log_mel(self, waveforms, lengths, max_length=None, pad_to=None):
            generator = torch.Generator().manual_seed(len(waveforms))
            features = torch.randn(len(waveforms), 50, 128, generator=generator, dtype=torch.float64) + 1e8
            return features, torch.full((len(waveforms),), 50)

    measured = measure_normalization([np.zeros(8000, np.float32)] * 70, FarFromZero())
    assert measured.mean == pytest.approx(1e8, abs=0.01)
    assert measured.std == pytest.approx(1, abs=0.01)  # 448,000 draws; naive sums of squares are off by more than 1


def test_clips_are_read_one_batch_at_a_time():
    ahead = []

    class Watching(ASTFeatureExtractor):
        def log_mel(self, waveforms, lengths, max_length=None, pad_to=None):
            ahead.append(read - CLIPS_PER_BATCH * len(ahead))
            return super().log_mel(waveforms, lengths, max_length, pad_to)

    read = 0

    def stream():
        nonlocal read
        for seed in range(2 * CLIPS_PER_BATCH + 3):
            read += 1
            yield np.random.default_rng(seed).normal(size=800).astype(np.float32)

    assert measure_normalization(stream(), Watching()).clips == read
    assert ahead == [CLIPS_PER_BATCH, CLIPS_PER_BATCH, 3]


@pytest.mark.parametrize(("mean", "std"), [(0.0, 0.2), (-0.05, 0.99), (0.09, 0.5)])
def test_statistics_of_a_waveform_are_refused(mean, std):
    with pytest.raises(
        ValueError, match=r"\(from the moon\) are those of a waveform .* Pass --normalization measured"
    ):
        refuse_waveform_statistics(mean, std, "the moon")


def test_the_clips_own_samples_have_such_statistics(drum_clips):
    samples = np.concatenate(drum_clips)
    with pytest.raises(ValueError, match="of a waveform"):
        refuse_waveform_statistics(samples.mean(), samples.std(), "the samples")


# AudioSet, ESC-50 and Speech Commands in the original's recipes; a quiet recording may well have mean 0 or a small spread
@pytest.mark.parametrize(
    ("mean", "std"),
    [(-4.2677393, 4.5689974), (-6.6268077, 5.358466), (-6.845978, 5.5654526), (0.0, 1.0), (-0.1, 0.5), (-9.0, 0.9)],
)
def test_statistics_of_features_are_taken(mean, std):
    refuse_waveform_statistics(mean, std, "a recipe")


@pytest.fixture(scope="module")
def drum_features(drum_clips):
    """Log-mel features of 22 drum clips and their lengths in frames, padded far beyond the longest."""
    waveforms = torch.nn.utils.rnn.pad_sequence([torch.from_numpy(clip) for clip in drum_clips], batch_first=True)
    lengths = torch.tensor([len(clip) for clip in drum_clips])
    return ASTFeatureExtractor().log_mel(waveforms, lengths, pad_to=1024)


MEASURED = (-6.58, 5.47)  # of the drum clips


@pytest.mark.parametrize(
    ("mean", "std"), [MEASURED, (-4.2677393, 4.5689974), (-6.6268077, 5.358466), (-6.845978, 5.5654526), (-8.72, 4.6)]
)
def test_statistics_of_natural_sounds_cause_no_warning(drum_features, mean, std):
    features, frames = drum_features
    assert normalized_batch_warning((features - mean) / (2 * std), frames) is None


@pytest.mark.parametrize(
    ("mean", "std", "words"),
    [
        (MEASURED[0], 2 * MEASURED[1], r"standard deviation 0\.2"),
        (MEASURED[0], MEASURED[1] / 2, r"standard deviation 0\.9"),
        (MEASURED[0] + 1.6 * MEASURED[1], MEASURED[1], r"mean -0\.[789]"),
        (MEASURED[0] - 1.6 * MEASURED[1], MEASURED[1], r"mean 0\.[789]"),
        (0.0, 0.5, r"22 clips have mean -[67]\..* expected about 0 and 0\.5 .* Pass --normalization measured"),
    ],
)
def test_statistics_that_do_not_fit_are_told(drum_features, mean, std, words):
    features, frames = drum_features
    assert re.search(words, normalized_batch_warning((features - mean) / (2 * std), frames))


def test_a_few_clips_are_not_judged(drum_features):
    features, frames = drum_features
    assert normalized_batch_warning(features[:11], frames[:11]) is None
    assert normalized_batch_warning(features[:12], frames[:12]) is not None


def test_padding_is_not_judged(drum_features):
    features, frames = drum_features
    normalized = (features - MEASURED[0]) / (2 * MEASURED[1])
    everything = torch.full_like(frames, features.shape[1])
    assert frames.max() < 200
    assert normalized_batch_warning(normalized, frames) is None
    assert normalized_batch_warning(normalized, everything) is not None

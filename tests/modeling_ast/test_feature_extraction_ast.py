"""The features against `torchaudio.compliance.kaldi` and stock Transformers, on real clips."""

import json

import numpy as np
import pytest
import torch
import torchaudio.compliance.kaldi as kaldi
from transformers.models.audio_spectrogram_transformer.feature_extraction_audio_spectrogram_transformer import (
    ASTFeatureExtractor as StockFeatureExtractor,
)

from modeling_ast import ASTFeatureExtractor
from modeling_ast.log_mel import FRAMES_PER_BLOCK, log_mel_spectrogram, mel_filter_bank, num_frames, num_samples

MEAN_TOLERANCE, MAX_TOLERANCE = 1e-5, 2e-3  # float32; the maximum stands in almost empty bins


def kaldi_fbank(waveform: torch.Tensor, num_mel_bins: int = 128) -> torch.Tensor:
    return kaldi.fbank(waveform[None], sample_frequency=16_000, window_type="hanning", num_mel_bins=num_mel_bins)


def test_mel_filters_equal_kaldi_bit_for_bit():
    expected, _ = kaldi.get_mel_banks(128, 512, 16_000.0, 20.0, 0.0, 100.0, -500.0, 1.0)
    filters = mel_filter_bank(128, 16_000)
    assert torch.equal(filters[:-1].T, expected)
    assert not filters[-1].any()


@pytest.mark.parametrize(("dtype", "mean", "largest"), [(torch.float32, 1e-5, 2e-3), (torch.float64, 1e-6, 1e-6)])
def test_log_mel_equals_kaldi_on_real_clips(drum_clips, dtype, mean, largest):
    for clip in drum_clips:
        waveform = torch.from_numpy(clip).to(dtype)
        difference = (log_mel_spectrogram(waveform[None])[0] - kaldi_fbank(waveform)).abs()
        assert difference.mean() < mean
        assert difference.max() < largest


def test_log_mel_of_a_recording_longer_than_a_block_equals_kaldi(drum_clips):
    recording = torch.from_numpy(np.concatenate(drum_clips * 4)).double()
    features = log_mel_spectrogram(recording[None])[0]
    assert len(features) > FRAMES_PER_BLOCK
    assert (features - kaldi_fbank(recording)).abs().max() < 1e-6


@pytest.mark.parametrize("num_mel_bins", [64, 128])
def test_a_batch_of_several_lengths_equals_stock_transformers(drum_clips, num_mel_bins):
    settings = {"max_length": 60, "num_mel_bins": num_mel_bins, "mean": -6.5, "std": 5.5}  # cuts some, pads some
    theirs = StockFeatureExtractor(**settings)(drum_clips, sampling_rate=16_000, return_tensors="pt").input_values
    ours = ASTFeatureExtractor(**settings)(drum_clips, sampling_rate=16_000, return_tensors="pt").input_values
    difference = (ours - theirs).abs() * 2 * settings["std"]
    assert ours.shape == theirs.shape == (len(drum_clips), 60, num_mel_bins)
    assert difference.mean() < MEAN_TOLERANCE
    assert difference.max() < MAX_TOLERANCE


def test_settings_are_interchangeable_with_stock_transformers(tmp_path):
    ours = ASTFeatureExtractor(max_length=64, mean=np.float32(-6.5), std=np.float32(5.5))
    ours.save_pretrained(tmp_path / "ours")
    theirs = StockFeatureExtractor.from_pretrained(tmp_path / "ours")
    assert (theirs.max_length, theirs.mean, theirs.std) == (64, -6.5, 5.5)
    theirs.save_pretrained(tmp_path / "theirs")
    again = ASTFeatureExtractor.from_pretrained(tmp_path / "theirs")
    assert json.loads(again.to_json_string()) == json.loads(ours.to_json_string())


def test_padding_modes(drum_clips):
    extractor = ASTFeatureExtractor(max_length=80)
    frames = [min(num_frames(len(clip), 16_000), 80) for clip in drum_clips]
    full = extractor(drum_clips, sampling_rate=16_000, return_tensors="pt").input_values
    longest = extractor(drum_clips, sampling_rate=16_000, return_tensors="pt", padding="longest")
    assert longest.input_values.shape[1] == max(frames)
    assert longest.attention_mask.sum(dim=1).tolist() == frames
    torch.testing.assert_close(longest.input_values, full[:, : max(frames)])
    padding_value = (0 - extractor.mean) / (2 * extractor.std)
    shortest = int(np.argmin(frames))
    torch.testing.assert_close(
        full[shortest, frames[shortest] :], torch.full((80 - frames[shortest], 128), padding_value)
    )
    unpadded = extractor(drum_clips, sampling_rate=16_000, padding=False).input_values
    assert [len(clip) for clip in unpadded] == [max(count, 16) for count in frames]
    assert extractor(drum_clips, sampling_rate=16_000, max_length=32, return_tensors="np").input_values.shape[1] == 32


def test_without_truncation_a_long_clip_stays_whole():
    clip = np.zeros(num_samples(300, 16_000), np.float32)
    extractor = ASTFeatureExtractor(max_length=100)
    whole = extractor(clip, sampling_rate=16_000, truncation=False, return_tensors="pt").input_values
    assert whole.shape[1] == 300
    assert extractor(clip, sampling_rate=16_000, return_tensors="pt").input_values.shape[1] == 100


def test_a_clip_shorter_than_a_patch_is_padded_to_one():
    outputs = ASTFeatureExtractor()(np.ones(800, np.float32), sampling_rate=16_000, padding="longest")
    assert outputs.input_values[0].shape == (16, 128)


@pytest.mark.parametrize("kind", ["array", "list", "tensor", "int16", "float64", "batch"])
def test_every_kind_of_input_gives_the_same_features(drum_clips, kind):
    clip = (drum_clips[0] * 2**15).astype(np.int16) / np.float32(2**15)
    given = {
        "array": clip,
        "list": clip.tolist(),
        "tensor": torch.from_numpy(clip),
        "int16": (clip * 2**15).astype(np.int16),
        "float64": clip.astype(np.float64),
        "batch": clip[None],
    }[kind]
    extractor = ASTFeatureExtractor(max_length=64)
    expected = extractor([clip], sampling_rate=16_000, return_tensors="pt").input_values
    assert torch.equal(extractor(given, sampling_rate=16_000, return_tensors="pt").input_values, expected)


@pytest.mark.parametrize(
    ("clips", "message"),
    [
        ([np.ones(800, np.float32), np.ones((2, 800), np.float32)], r"Clip 1 has shape \(2, 800\), expected a mono"),
        ([np.ones(399, np.float32)], "Clip 0 has 399 samples, one analysis window needs 400"),
        ([np.ones(800, np.float32), np.zeros(0, np.float32)], "Clip 1 has 0 samples"),
        ([np.full(800, np.nan, np.float32)], "Clip 0 holds NaN"),
        ([np.full(800, np.inf, np.float32)], "Clip 0 holds NaN or infinite"),
        ([np.ones(800, np.int64)], "Clip 0 has dtype torch.int64"),
        ([], "An empty list"),
    ],
)
def test_input_without_sensible_features_is_refused(clips, message):
    with pytest.raises(ValueError, match=message):
        ASTFeatureExtractor()(clips, sampling_rate=16_000)


def test_a_wrong_sampling_rate_is_refused():
    with pytest.raises(ValueError, match=r"44100 Hz, this checkpoint hears 16000 Hz\. Resample"):
        ASTFeatureExtractor()(np.ones(8000, np.float32), sampling_rate=44_100)


def test_unequal_lengths_without_padding_do_not_make_a_tensor():
    clips = [np.ones(8000, np.float32), np.ones(16000, np.float32)]
    with pytest.raises(ValueError, match="padding=False"):
        ASTFeatureExtractor()(clips, sampling_rate=16_000, padding=False, return_tensors="pt")

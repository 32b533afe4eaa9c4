"""FilterAugment: its curves, that they colour a clip and nothing else, and that a filtered waveform has the same features."""

import numpy as np
import pytest
import torch
from scipy import stats

from finetune.augmentations.augmentation import Augmentation, collate_draws
from finetune.augmentations.filter_augment import CURVE_POINTS
from finetune.clip_sets.collator import model_inputs
from modeling_ast import ASTFeatureExtractor

NEPER = 10 / np.log(10)  # dB of one unit of log-mel energy


def curves(strength: float = 10.0, clips: int = 400) -> np.ndarray:
    augmentation = Augmentation(max_filter_db=strength)
    return np.stack([augmentation.draw(0, 0, index, clips)["filter_augment"]["curve"] for index in range(clips)])


def test_curves_are_straight_between_two_to_five_bands():
    drawn = curves() * NEPER
    assert drawn.shape == (400, CURVE_POINTS)
    assert np.abs(drawn).max() <= 10
    # Its edges are uniform in dB from one end to the other, at the lowest bin and at the highest.
    for end in (0, -1):
        assert stats.kstest(drawn[:, end], stats.uniform(-10, 20).cdf).pvalue > 1e-3
    bends = (np.abs(np.diff(drawn, 2)) > 1e-3).sum(axis=1)  # an edge between two points bends the curve at both
    assert bends.min() >= 1
    assert bends.max() == 8
    assert np.abs(np.diff(drawn, 2)).max(axis=1).min() > 0


def test_a_clip_is_coloured_and_its_padding_is_not():
    extractor = ASTFeatureExtractor(max_length=64, padding="longest", do_normalize=False)
    augmentation = Augmentation(max_filter_db=12)
    batch = {
        "features": torch.zeros(2, 64, 128), "lengths": torch.tensor([64, 40]), "labels": torch.zeros(2), "is_padded": True,
        "draws": collate_draws([augmentation.draw(0, 0, index, 2) for index in range(2)]),
    }  # fmt: skip
    heard = model_inputs(batch, extractor, augmentation)["input_values"]
    for row, frames in enumerate((64, 40)):
        curve = augmentation.draw(0, 0, row, 2)["filter_augment"]["curve"]
        expected = np.interp(np.linspace(0, 1, 128), np.linspace(0, 1, CURVE_POINTS), curve)
        np.testing.assert_allclose(heard[row, :frames], np.tile(expected, (frames, 1)), atol=1e-5)
        assert not heard[row, frames:].any()
    assert not torch.equal(heard[0, :40], heard[1, :40])


@pytest.mark.parametrize("bins", [40, 128])
def test_a_gain_of_all_bands_is_a_gain_of_the_waveform(bins, monkeypatch):
    monkeypatch.setattr("numpy.interp", lambda at, edges, gains: np.full(len(at), 0.5))
    drawn = Augmentation(max_filter_db=12).draw(0, 0, 0, 1)
    monkeypatch.undo()
    noise = np.random.default_rng(0).standard_normal(16_000).astype(np.float32) * 0.1
    extractor = ASTFeatureExtractor(max_length=98, num_mel_bins=bins, do_normalize=False)
    plain, louder = (
        extractor(wave, sampling_rate=16_000, return_tensors="pt")["input_values"]
        for wave in (noise, noise * 10 ** (6 / 20))
    )
    augmentation = Augmentation(max_filter_db=12)
    changed = augmentation.change_log_mel(plain, torch.tensor([98]), collate_draws([drawn]))
    heard = plain > plain.min()  # the lowest bins of 128 hear no frequency at all and stay at the floor
    torch.testing.assert_close(changed[heard], louder[heard], atol=1e-4, rtol=1e-5)
    assert heard.float().mean() > 0.98

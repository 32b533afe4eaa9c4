"""FilterAugment: its curves, that they colour a clip and nothing else, and that a filtered waveform has the same features."""

import numpy as np
import pytest
import torch
from scipy import stats

from finetune.augmentations.augmentation import Augmentation, collate_draws
from finetune.augmentations.filter_augment import CURVE_POINTS, FilterAugment
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
    # At the lowest bin and at the highest, gains are uniform in dB.
    for end in (0, -1):
        assert stats.kstest(drawn[:, end], stats.uniform(-10, 20).cdf).pvalue > 1e-3
    bends = (np.abs(np.diff(drawn, 2)) > 1e-3).sum(axis=1)  # an edge between two points bends the curve at both
    assert bends.min() >= 1
    assert bends.max() == 8


@pytest.mark.parametrize("padding", ["longest", "max_length"])
def test_a_clip_is_coloured_and_its_padding_and_digital_silence_are_not(padding):
    extractor = ASTFeatureExtractor(max_length=64, padding=padding, do_normalize=False)
    augmentation = Augmentation(max_filter_db=12)
    plain = torch.randn(2, 64, 128, generator=torch.Generator().manual_seed(0))
    plain[0, 20:25] = -15.9
    batch = {
        "features": plain, "lengths": torch.tensor([64, 40]), "labels": torch.zeros(2), "is_padded": True,
        "draws": collate_draws([augmentation.draw(0, 0, index, 2) for index in range(2)]),
    }  # fmt: skip
    changes = model_inputs(batch, extractor, augmentation)["input_values"] - plain
    for row, heard in enumerate(([*range(20), *range(25, 64)], range(40))):
        curve = augmentation.draw(0, 0, row, 2)["filter_augment"]["curve"]
        expected = np.interp(np.linspace(0, 1, 128), np.linspace(0, 1, CURVE_POINTS), curve)
        np.testing.assert_allclose(changes[row, list(heard)], np.tile(expected, (len(heard), 1)), atol=1e-5)
    assert not changes[0, 20:25].any()
    assert not (changes[1, 40:] + plain[1, 40:]).any(), "padding is 0"
    assert not torch.equal(changes[0, :20], changes[1, :20])


@pytest.mark.parametrize("bins", [40, 128])
def test_a_gain_of_all_bands_is_a_gain_of_the_waveform(bins):
    noise = np.random.default_rng(0).standard_normal(16_000).astype(np.float32) * 0.1
    extractor = ASTFeatureExtractor(max_length=98, num_mel_bins=bins, do_normalize=False)
    plain, louder = (
        extractor(wave, sampling_rate=16_000, return_tensors="pt")["input_values"]
        for wave in (noise, noise * 10 ** (6 / 20))
    )
    drawn = {"curve": torch.full((1, CURVE_POINTS), 6 / NEPER)}
    changed = FilterAugment(12.0).change_log_mel(plain, torch.tensor([98]), drawn)
    heard = plain > plain.min()  # the lowest bins of 128 hear no frequency at all and stay at the floor
    torch.testing.assert_close(changed[heard], louder[heard], atol=1e-4, rtol=1e-5)
    assert heard.float().mean() > 0.98

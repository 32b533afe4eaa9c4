"""Augmentation: drawn by (seed, epoch, clip), masks as torchaudio's, mixup by the original's rule."""

import numpy as np
import pytest
import torch
import torchaudio

from finetune.augmentation import Augmentation, mix_waveforms

EVERYTHING = Augmentation(
    mixup_probability=0.5, max_frequency_mask=24, max_time_mask=40, noise_strength=0.1, max_roll=10
)


def draw(seed=0, epoch=0, index=0):
    return vars(EVERYTHING.draw(seed, epoch, index, 1000)) | {
        "masks": EVERYTHING.draw(seed, epoch, index, 1000).masks.tolist()
    }


def test_draws_are_a_function_of_seed_epoch_and_clip():
    torch.manual_seed(1)
    np.random.seed(1)
    first = draw(3, 4, 5)
    torch.manual_seed(2)
    np.random.seed(2)
    assert draw(3, 4, 5) == first
    assert first["masks"] != draw(4, 4, 5)["masks"] != draw(3, 5, 5)["masks"] != draw(3, 4, 6)["masks"]


def test_draws_have_the_original_distributions():
    draws = [EVERYTHING.draw(0, epoch, index, 1000) for epoch in range(10) for index in range(200)]
    mixed = [one for one in draws if one.partner is not None]
    assert len(mixed) / len(draws) == pytest.approx(0.5, abs=0.04)  # 4 standard deviations of 2000 draws
    assert np.mean([one.mixing_weight for one in mixed]) == pytest.approx(0.5, abs=0.02)
    assert np.std([one.mixing_weight for one in mixed]) == pytest.approx((1 / 84) ** 0.5, abs=0.02)  # Beta(10, 10)
    assert {one.roll for one in draws} == set(range(-10, 10))
    assert 0 <= min(one.noise_strength for one in draws) < 0.01 < 0.09 < max(one.noise_strength for one in draws) < 0.1
    assert 0 <= min(one.partner for one in mixed) < 30 < 970 < max(one.partner for one in mixed) < 1000


def test_masks_are_those_of_torchaudio_for_the_same_random_numbers(monkeypatch):
    features = torch.randn(64, 96, 128, generator=torch.Generator().manual_seed(0)) + 5
    draws = torch.rand(64, 4, generator=torch.Generator().manual_seed(1))
    masked = EVERYTHING.mask(features, torch.full((64,), 96), draws)
    for row in range(64):
        numbers = iter(draws[row])
        monkeypatch.setattr(torch, "rand", lambda *size, numbers=numbers, **_: next(numbers).reshape(size))
        expected = features[row].T[None]  # (1, mel bins, frames)
        expected = torchaudio.functional.mask_along_axis(expected, 24, 0.0, 1)
        expected = torchaudio.functional.mask_along_axis(expected, 40, 0.0, 2)
        assert torch.equal(masked[row], expected[0].T)


def test_a_mask_wider_than_the_clip_stays_within_it():
    draws = torch.tensor([[0.0, 0.0, 0.999, 0.5], [0.0, 0.0, 0.5, 0.999]])
    masked = Augmentation(max_time_mask=500).mask(torch.ones(2, 20, 128), torch.tensor([20, 6]), draws)
    assert 0 < masked[0].sum() < 20 * 128
    assert masked[1, :, 0].tolist() == [1, 1, 0, 0, 0, 1] + [1] * 14, "three of its six frames, none of the padding"


def test_noise_and_roll():
    features = torch.arange(6.0)[None, :, None].expand(2, 6, 3).clone()
    strengths, seeds, rolls = torch.tensor([0.0, 0.1]), [1, 2], torch.tensor([2, -1])
    all_frames = torch.tensor([6, 6])
    disturbed = EVERYTHING.disturb(features, all_frames, strengths, seeds, rolls)
    assert torch.equal(disturbed[0], torch.from_numpy(np.roll(features[0].numpy(), 2, axis=0)))
    noise = disturbed[1].roll(1, 0) - features[1]
    assert 0 <= noise.min() < noise.max() < 0.1
    alone = EVERYTHING.disturb(features[1:], all_frames[1:], strengths[1:], seeds[1:], rolls[1:])
    assert torch.equal(alone[0], disturbed[1]), "a clip's noise does not depend on its batch"


def test_padding_does_not_roll_into_the_clip():
    features = torch.arange(6.0)[None, :, None].expand(1, 6, 3).clone()
    rolled = EVERYTHING.disturb(features, torch.tensor([4]), torch.zeros(1), [1], torch.tensor([1]))
    assert rolled[0, :, 0].tolist() == [3, 0, 1, 2, 4, 5]


@pytest.mark.parametrize("partner_length", [300, 500, 800])
def test_mixup_by_the_original_rule(partner_length):
    generator = np.random.default_rng(0)
    clip, partner = generator.normal(1, 1, 500).astype(np.float32), generator.normal(-2, 1, partner_length)
    mixed = mix_waveforms(clip, partner.astype(np.float32), 0.6)
    fitted = np.pad(partner - partner.mean(), (0, max(0, 500 - partner_length)))[:500]
    expected = 0.6 * (clip - clip.mean()) + 0.4 * fitted
    np.testing.assert_allclose(mixed, expected - expected.mean(), atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mixup_probability": 1.5}, "share of the clips"),
        ({"max_time_mask": -1}, "max_time_mask=-1 is negative"),
        ({"mixup_alpha": 0}, "mixup_probability 0 to turn mixup off"),
    ],
)
def test_impossible_strengths_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Augmentation(**settings)

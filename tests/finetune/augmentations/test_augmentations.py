"""Augmentation: drawn by (seed, epoch, clip), masks as torchaudio's, mixup by the original's rule, speed by the sine."""

from dataclasses import fields

import numpy as np
import pytest
import torch
import torchaudio
from scipy import stats
from torch.nn import functional as F

from finetune.arguments.groups import AugmentationArguments
from finetune.augmentations.augmentation import AUGMENTATIONS, Augmentation
from finetune.augmentations.masks import Masks
from finetune.augmentations.mixup import mix_waveforms
from finetune.augmentations.noise_and_roll import NoiseAndRoll
from finetune.augmentations.speed_change import change_speed
from modeling_ast import ASTConfig, ASTForAudioClassification

STRENGTHS = {
    "mixup_probability": 0.5, "max_frequency_mask": 24, "max_time_mask": 40, "noise_strength": 0.1, "max_roll": 10,
}  # fmt: skip
EVERYTHING = Augmentation(**STRENGTHS)
# From the code before an augmentation was a class of its own: partner, weight, the four shares of the masks, strength, roll
# and seed of the noise, speed and gain, for seed, epoch, clip and visit. Runs that are resumed go on with these.
DRAWN_BEFORE = {
    (0, 0, 0, 0): (
        (109, 0.9874167587156745),
        [0.29849112033843994, 0.3348829746246338, 0.6001005172729492, 0.8131892681121826],
        (0.0187901072204113, 4, 508637860470673231),
        (1.13, 1.844308905637054),
    ),
    (3, 4, 5, 0): (
        (None, 0.23915052688366142),
        [0.15524041652679443, 0.27029627561569214, 0.6071975231170654, 0.5681760311126709],
        (0.08013731241226196, 7, 4501630371277926696),
        (1.02, 1.1688043936402943),
    ),
    (3, 4, 5, 2): (
        (10, 0.07120894520072965),
        [0.10067421197891235, 0.430031955242157, 0.9900374412536621, 0.5611030459403992],
        (0.029672589153051376, -10, 8277741192309162351),
        (0.87, 0.9643675964629961),
    ),
}


def draw(seed=0, epoch=0, index=0, visit=0, augmentation=EVERYTHING):
    values = augmentation.draw(seed, epoch, index, 1000, visit).values
    return values | {"masks": values["masks"]["spans"].tolist()}


def test_draws_are_a_function_of_seed_epoch_and_clip():
    torch.manual_seed(1)
    np.random.seed(1)
    first = draw(3, 4, 5)
    torch.manual_seed(2)
    np.random.seed(2)
    assert draw(3, 4, 5) == first
    assert first["masks"] != draw(4, 4, 5)["masks"] != draw(3, 5, 5)["masks"] != draw(3, 4, 6)["masks"]


@pytest.mark.parametrize("key", DRAWN_BEFORE, ids=str)
def test_the_draws_are_those_of_the_code_before(key):
    augmentation = Augmentation(**STRENGTHS | {"mixup_alpha": 0.5, "max_speed_change": 0.2, "max_gain_db": 6})
    (seed, epoch, index, visit), (mixup, masks, noise_and_roll, (speed, gain)) = key, DRAWN_BEFORE[key]
    drawn = draw(seed, epoch, index, visit, augmentation)
    assert tuple(drawn["mixup"].values()) == mixup
    assert drawn["masks"] == masks
    assert tuple(drawn["noise_and_roll"].values()) == noise_and_roll
    assert (drawn["speed_change"], drawn["gain"]) == ({"factor": speed}, {"factor": pytest.approx(gain, rel=1e-12)})


def test_each_visit_of_an_epoch_draws_its_own_numbers():
    faster = Augmentation(**STRENGTHS, max_speed_change=0.5)
    drawn = [draw(0, 0, 7, visit, faster) for visit in range(50)]
    for name, value in (("mixup", "weight"), ("noise_and_roll", "seed"), ("noise_and_roll", "strength")):
        assert len({one[name][value] for one in drawn}) == 50, name
    assert len({str(one["masks"]) for one in drawn}) == 50
    assert len({one["speed_change"]["factor"] for one in drawn}) > 20
    assert draw(0, 0, 7, visit=3) == draw(0, 0, 7, visit=3)


def test_turning_an_augmentation_on_leaves_the_other_draws_as_they_are():
    strengths = STRENGTHS | {"max_speed_change": 0.1, "max_gain_db": 3, "max_filter_db": 5}
    everything = draw(3, 4, 5, augmentation=Augmentation(**strengths))
    for step in Augmentation(**strengths).active:
        own = {name: value for name, value in strengths.items() if name in step.strengths}
        alone = Augmentation(**own).draw(3, 4, 5, 1000)
        drawn = alone[step.name]
        assert str(drawn["spans"].tolist() if step.name == "masks" else drawn) == str(everything[step.name]), step.name


def test_what_is_off_draws_nothing_unless_it_shares_a_stream():
    assert Augmentation().draw(3, 4, 5, 1000).values == {}
    streams = {step.name: step.stream for step in AUGMENTATIONS}
    for step in EVERYTHING.active:
        own = {name: value for name, value in STRENGTHS.items() if name in step.strengths}
        drawn = Augmentation(**own).draw(3, 4, 5, 1000).values
        assert set(drawn) == {name for name, stream in streams.items() if stream == step.stream}


def test_draws_have_the_original_distributions():
    draws = [EVERYTHING.draw(0, epoch, index, 1000) for epoch in range(10) for index in range(200)]
    mixed = [one["mixup"] for one in draws if one.partners]
    assert len(mixed) / len(draws) == pytest.approx(0.5, abs=0.04)  # 4 standard deviations of 2000 draws
    assert np.mean([one["weight"] for one in mixed]) == pytest.approx(0.5, abs=0.02)
    assert np.std([one["weight"] for one in mixed]) == pytest.approx((1 / 84) ** 0.5, abs=0.02)  # Beta(10, 10)
    assert {int(one["noise_and_roll"]["roll"]) for one in draws} == set(range(-10, 10))
    strengths = [one["noise_and_roll"]["strength"] for one in draws]
    assert 0 <= min(strengths) < 0.01 < 0.09 < max(strengths) < 0.1
    assert 0 <= min(one["partner"] for one in mixed) < 30 < 970 < max(one["partner"] for one in mixed) < 1000


def test_mixing_weights_are_of_the_beta_distribution_and_partners_uniform():
    for alpha in (10.0, 0.5):
        augmentation = Augmentation(mixup_probability=1.0, mixup_alpha=alpha)
        drawn = [augmentation.draw(0, 0, index, 50)["mixup"] for index in range(3000)]
        weights = [one["weight"] for one in drawn]
        assert stats.kstest(weights, stats.beta(alpha, alpha).cdf).pvalue > 1e-3
        assert np.var(weights) == pytest.approx(stats.beta(alpha, alpha).var(), rel=0.1)
        assert stats.chisquare(np.bincount([one["partner"] for one in drawn], minlength=50)).pvalue > 1e-3


def mask(features, frames, spans, **strengths):
    return Masks(**strengths).change_log_mel(features, frames, {"spans": spans})


@pytest.mark.parametrize(
    ("transform", "settings", "axis"),
    [
        (torchaudio.transforms.FrequencyMasking(48), {"max_frequency_mask": 48}, 1),
        (torchaudio.transforms.TimeMasking(60), {"max_time_mask": 60}, 0),
    ],
)
def test_masks_have_the_distribution_of_torchaudios_transforms(transform, settings, axis):
    draws = torch.from_numpy(np.stack([EVERYTHING.draw(0, 0, index, 9)["masks"]["spans"] for index in range(2000)]))
    ours = mask(torch.ones(2000, 96, 128), torch.full((2000,), 96), draws, **settings)
    torch.manual_seed(0)
    theirs = torch.stack([transform(torch.ones(1, 128, 96))[0].T for _ in range(2000)])
    for measure in (lambda masked: masked.sum(dim=-1), lambda masked: masked.int().argmax(dim=-1)):  # width, start
        measured = [measure((features == 0).all(dim=2 - axis)).numpy() for features in (ours, theirs)]
        assert stats.ks_2samp(*measured).pvalue > 1e-3


def test_masks_are_those_of_torchaudio_for_the_same_random_numbers(monkeypatch):
    features = torch.randn(64, 96, 128, generator=torch.Generator().manual_seed(0)) + 5
    draws = torch.rand(64, 4, generator=torch.Generator().manual_seed(1))
    masked = mask(features, torch.full((64,), 96), draws, max_frequency_mask=24, max_time_mask=40)
    for row in range(64):
        numbers = iter(draws[row])
        monkeypatch.setattr(torch, "rand", lambda *size, numbers=numbers, **_: next(numbers).reshape(size))
        expected = features[row].T[None]  # (1, mel bins, frames)
        expected = torchaudio.functional.mask_along_axis(expected, 24, 0.0, 1)
        expected = torchaudio.functional.mask_along_axis(expected, 40, 0.0, 2)
        assert torch.equal(masked[row], expected[0].T)


def test_a_mask_wider_than_the_clip_stays_within_it():
    draws = torch.tensor([[0.0, 0.0, 0.999, 0.5], [0.0, 0.0, 0.5, 0.999]])
    masked = mask(torch.ones(2, 20, 128), torch.tensor([20, 6]), draws, max_time_mask=500)
    assert 0 < masked[0].sum() < 20 * 128
    assert masked[1, :, 0].tolist() == [1, 1, 0, 0, 0, 1] + [1] * 14, "three of its six frames, none of the padding"


def disturb(features, frames, strengths, seeds, rolls):
    drawn = {"strength": strengths, "seed": seeds, "roll": rolls}
    return NoiseAndRoll(noise_strength=0.1, max_roll=10).change_normalized(features, frames, drawn)


def test_noise_and_roll():
    features = torch.arange(6.0)[None, :, None].expand(2, 6, 3).clone()
    strengths, seeds, rolls = torch.tensor([0.0, 0.1]), [1, 2], torch.tensor([2, -1])
    all_frames = torch.tensor([6, 6])
    disturbed = disturb(features, all_frames, strengths, seeds, rolls)
    assert torch.equal(disturbed[0], torch.from_numpy(np.roll(features[0].numpy(), 2, axis=0)))
    noise = disturbed[1].roll(1, 0) - features[1]
    assert 0 <= noise.min() < noise.max() < 0.1
    alone = disturb(features[1:], all_frames[1:], strengths[1:], seeds[1:], rolls[1:])
    assert torch.equal(alone[0], disturbed[1]), "a clip's noise does not depend on its batch"


def test_noise_is_uniform_up_to_its_strength():
    zeros, no_rolls = torch.zeros(2, 96, 128), torch.zeros(2, dtype=torch.int64)
    noise = disturb(zeros, torch.tensor([96, 96]), torch.tensor([0.04, 0.1]), [1, 2], no_rolls)
    for row, strength in zip(noise.numpy(), (0.04, 0.1), strict=True):
        assert stats.kstest(row.ravel() / strength, "uniform").pvalue > 1e-3


def test_padding_does_not_roll_into_the_clip():
    features = torch.arange(6.0)[None, :, None].expand(1, 6, 3).clone()
    rolled = disturb(features, torch.tensor([4]), torch.zeros(1), [1], torch.tensor([1]))
    assert rolled[0, :, 0].tolist() == [3, 0, 1, 2, 4, 5]


@pytest.mark.parametrize("partner_length", [300, 500, 800])
def test_mixup_by_the_original_rule(partner_length):
    generator = np.random.default_rng(0)
    clip, partner = generator.normal(1, 1, 500).astype(np.float32), generator.normal(-2, 1, partner_length)
    mixed = mix_waveforms(clip, partner.astype(np.float32), 0.6)
    fitted = np.pad(partner - partner.mean(), (0, max(0, 500 - partner_length)))[:500]
    expected = 0.6 * (clip - clip.mean()) + 0.4 * fitted
    np.testing.assert_allclose(mixed, expected - expected.mean(), atol=1e-5)


@pytest.mark.parametrize("problem_type", ["single_label_classification", "multi_label_classification"])
def test_the_loss_of_a_mixed_clip_is_the_mean_of_its_two_losses(tiny_sizes, problem_type):
    torch.manual_seed(0)
    model = ASTForAudioClassification(ASTConfig(**tiny_sizes, num_labels=5, problem_type=problem_type)).eval()
    own, partner = torch.tensor([0, 4, 2]), torch.tensor([3, 4, 1])
    weights = torch.tensor([0.7, 0.4, 0.5])
    mixed = weights[:, None] * F.one_hot(own, 5) + (1 - weights[:, None]) * F.one_hot(partner, 5)
    with torch.no_grad():
        output = model(torch.randn(3, 96, 128), labels=mixed)
    if problem_type == "single_label_classification":
        each = [F.cross_entropy(output.logits, labels, reduction="none") for labels in (own, partner)]
    else:
        hot = [F.one_hot(labels, 5).float() for labels in (own, partner)]
        each = [F.binary_cross_entropy(output.logits.sigmoid(), labels, reduction="none").mean(1) for labels in hot]
    expected = (weights * each[0] + (1 - weights) * each[1]).mean()
    torch.testing.assert_close(output.loss, expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("speed", [0.9, 0.97, 1.03, 1.1])
def test_a_change_of_speed_moves_pitch_and_tempo_together(speed):
    rate, pitch = 16_000, 440.0
    clip = np.sin(2 * np.pi * pitch * np.arange(rate) / rate).astype(np.float32)
    changed = change_speed(clip, speed)
    assert len(changed) == np.ceil(rate / speed - 1e-6)
    expected = np.sin(2 * np.pi * pitch * speed * np.arange(len(changed)) / rate)
    inner = slice(100, -100)  # the filter reaches over the ends
    np.testing.assert_allclose(changed[inner], expected[inner], atol=5e-3)  # the ripple of torchaudio's short filter
    assert changed.dtype == np.float32


def test_the_speed_of_one_changes_nothing():
    clip = np.random.default_rng(0).normal(size=500).astype(np.float32)
    np.testing.assert_array_equal(change_speed(clip, 1.0), clip)


@pytest.mark.parametrize("widest", [0.05, 0.1, 0.29])
def test_speeds_are_uniform_hundredths_up_to_the_largest_change(widest):
    augmentation = Augmentation(max_speed_change=widest)
    hundredths = [round(100 * augmentation.draw(0, 0, index, 9)["speed_change"]["factor"]) for index in range(3000)]
    steps = round(100 * widest)
    counts = np.bincount(hundredths, minlength=101 + steps)[100 - steps :]
    assert counts.sum() == 3000
    assert len(counts) == 2 * steps + 1
    assert stats.chisquare(counts).pvalue > 1e-3


def test_nothing_is_augmented_by_default():
    assert AugmentationArguments().augmentation().active == ()
    assert [item.name for item in fields(AugmentationArguments)] == [
        item.name for kind in AUGMENTATIONS for item in fields(kind)
    ]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mixup_probability": 1.5}, "share of the clips"),
        ({"max_time_mask": -1}, "max_time_mask=-1 is negative"),
        ({"mixup_alpha": 0}, "mixup_probability 0 to turn mixup off"),
        ({"max_speed_change": 0.005}, "max_speed_change=0.005 is not from 0.01 to 0.5"),
        ({"max_speed_change": 0.6}, "Pass for example --max_speed_change 0.1"),
    ],
)
def test_impossible_strengths_are_refused(settings, message):
    for make in (Augmentation, AugmentationArguments):
        with pytest.raises(ValueError, match=message):
            make(**settings)

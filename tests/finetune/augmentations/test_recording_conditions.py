"""Steady noise and lost bandwidth: as of waveforms that have them, in a clip's own frames alone, the same in whatever batch."""

import numpy as np
import pytest
import torch
from torchaudio.compliance import kaldi

from finetune.augmentations.augmentation import Augmentation, collate_draws
from finetune.augmentations.band_limit import BandLimit
from finetune.augmentations.noise_floor import NoiseFloor
from modeling_ast.features.kaldi import SMALLEST_ENERGY

RATE, FLOOR = 16_000, np.log(SMALLEST_ENERGY)


def log_mel(waveform: np.ndarray, bins: int) -> torch.Tensor:
    samples = torch.from_numpy(waveform.astype(np.float32))[None]
    return kaldi.fbank(samples, window_type="hanning", num_mel_bins=bins, sample_frequency=RATE)


def burst() -> np.ndarray:
    """A buzz of 0.4 s between pauses of digital silence."""
    time, phases = np.arange(RATE) / RATE, np.random.default_rng(0).uniform(0, 6, 40)
    return (
        sum(np.sin(2 * np.pi * 150 * k * time + phases[k]) / k for k in range(1, 40)) * 0.1 * (abs(time - 0.4) < 0.2)
    )


def coloured(tilt: float, generator: np.random.Generator) -> np.ndarray:
    frequencies = np.fft.rfftfreq(RATE, 1 / RATE)
    gain = np.where(frequencies < 20, 0, 10 ** (tilt * np.log2(np.maximum(frequencies, 1)) / 20))
    noise = np.fft.irfft(np.fft.rfft(generator.standard_normal(RATE)) * gain, RATE)
    return noise / noise.std()


# Largest error of a bin's mean and of its standard deviation, in units of the natural logarithm of power. 50 noises of 44 frames
# leave 0.03. A tilted noise has its power where the lowest bin begins, which is counted otherwise.
@pytest.mark.parametrize(
    ("bins", "tilt", "snr_db", "of_mean", "of_deviation"),
    [(64, 0.0, 0.0, 0.12, 0.1), (64, 0.0, 40.0, 0.12, 0.1), (128, 0.0, 20.0, 0.12, 0.1), (64, -3.0, 20.0, 0.4, 0.1)],
)
def test_noise_is_that_of_a_waveform_with_noise(bins, tilt, snr_db, of_mean, of_deviation):
    clip, generator, clips = burst(), np.random.default_rng(1), 50
    windows = np.lib.stride_tricks.sliding_window_view(clip, 400)[::160]
    power = np.quantile((windows**2).mean(axis=1), 0.95) * 10 ** (-snr_db / 10)
    noisy = np.stack([log_mel(clip + coloured(tilt, generator) * power**0.5, bins) for _ in range(clips)])
    plain = log_mel(clip, bins)
    drawn = {
        "seed": list(range(clips)), "snr_db": torch.full((clips,), snr_db), "tilt": torch.full((clips,), tilt),
    }  # fmt: skip
    frames = torch.full((clips,), len(plain))
    made = NoiseFloor(1.0).change_log_mel(plain.repeat(clips, 1, 1), frames, drawn).numpy()
    hears = noisy.max(axis=(0, 1)) > FLOOR + 0.1  # the lowest of 128 bins hear no frequency
    pause, sound = [*range(16), *range(64, 92)], range(24, 54)
    of_both = [features[:, pause][..., hears].reshape(-1, hears.sum()) for features in (made, noisy)]
    audible = of_both[1].min(axis=0) > FLOOR  # else the floor cuts the distribution
    means, deviations = ([measure(one, axis=0) for one in of_both] for measure in (np.mean, np.std))
    assert np.abs(means[0] - means[1]).max() < of_mean
    assert np.abs(deviations[0] - deviations[1])[audible].max() < of_deviation
    # Where clip and noise are heard together their powers are added, on average.
    difference = (made - noisy)[:, sound].mean(axis=(0, 1))[hears]
    assert np.abs(difference).max() < of_mean + 0.2
    assert made[:, sound][..., hears].mean() - plain[sound][:, hears].numpy().mean() > 0.005


@pytest.mark.parametrize("limit", [2500.0, 4000.0, 6500.0])
def test_a_band_ends_as_that_of_a_filtered_waveform(limit):
    clip = np.random.default_rng(0).standard_normal(RATE) * 0.2
    spectrum = np.fft.rfft(clip)
    spectrum[np.fft.rfftfreq(RATE, 1 / RATE) > limit] *= 10 ** (-50 / 20)
    plain, filtered = log_mel(clip, 64), log_mel(np.fft.irfft(spectrum, RATE), 64)
    drawn = {"limit": torch.tensor([limit]), "db": torch.tensor([50.0])}
    made = BandLimit(1.0).change_log_mel(plain[None], torch.tensor([98]), drawn)[0]
    difference = (made - filtered).mean(dim=0)
    falls = int((filtered - plain).mean(dim=0).diff().argmin())
    # One bin or two hear both sides of the limit; which of their frequencies they hear is known to one point of the transform.
    assert difference.abs().max() < 2
    others = [bin for bin in range(64) if abs(bin - falls) > 2]
    assert difference[others].abs().max() < 0.05
    assert (filtered - plain)[:, others[-1]].max() < -11, "50 dB"


def test_what_is_left_is_no_less_than_digital_silence_and_no_constant():
    plain = torch.randn(1, 20, 64, generator=torch.Generator().manual_seed(0)) - 4
    for db, least in ((40.0, 20), (100.0, 1)):
        drawn = {"limit": torch.tensor([3000.0]), "db": torch.tensor([db])}
        above = BandLimit(1.0).change_log_mel(plain, torch.tensor([20]), drawn)[..., -10:]
        assert above.min() >= FLOOR - 1e-4
        assert len(above.unique()) >= least
        assert above.max() < plain.min()


@pytest.mark.parametrize("name", ["noise_floor_probability", "band_limit_probability"])
def test_padding_stays_and_a_clip_is_changed_alike_in_whatever_batch(name):
    augmentation = Augmentation(**{name: 1.0})
    draws = [augmentation.draw(0, 0, index, 3) for index in range(3)]
    if name == "noise_floor_probability":
        draws[2].values["noise_floor"]["snr_db"] = np.float32(0)  # the loudest noise, for silence
    plain = torch.randn(3, 90, 64, generator=torch.Generator().manual_seed(0)) - 3
    plain[0, 50:] = plain[1, 70:] = 0.0  # padding, of which that of the second clip is heard
    plain[1, 10:20] = FLOOR  # digital silence belongs to the clip
    plain[2] = FLOOR
    frames = torch.tensor([50, 90, 90])
    together = augmentation.change_log_mel(plain, frames, collate_draws(draws))
    for row, own in enumerate((50, 70, 90)):
        alone = augmentation.change_log_mel(
            plain[row : row + 1, :own], torch.tensor([own]), collate_draws([draws[row]])
        )
        torch.testing.assert_close(together[row, :own], alone[0], atol=1e-5, rtol=1e-5)
        assert torch.equal(together[row, own:], plain[row, own:])
    for row in (0, 1):
        assert (together[row, 25:50] - plain[row, 25:50]).abs().mean() > 0.01
    assert (together[1, 10:20].mean() > FLOOR + 0.1) == (name == "noise_floor_probability")
    assert torch.equal(together[2], plain[2]), "there is no level of silence"


def test_as_many_clips_as_asked_for_are_changed_over_the_whole_range():
    augmentation = Augmentation(noise_floor_probability=0.5, band_limit_probability=0.3)
    drawn = [augmentation.draw(0, 0, index, 9).values for index in range(2000)]
    noises, bands = ([values[name] for values in drawn] for name in ("noise_floor", "band_limit"))
    assert np.mean([one["seed"] is not None for one in noises]) == pytest.approx(0.5, abs=0.05)
    limits = np.array([one["limit"] for one in bands if np.isfinite(one["limit"])])
    assert len(limits) / 2000 == pytest.approx(0.3, abs=0.05)
    assert np.mean(limits < 4000) == pytest.approx(0.5, abs=0.08), "uniform in octaves"
    for values, least, most in (
        (limits, 2000, 8000), ([one["snr_db"] for one in noises], 0, 40), ([one["tilt"] for one in noises], -6, 3),
        ([one["db"] for one in bands], 40, 100),
    ):  # fmt: skip
        width = most - least
        assert least <= min(values) < least + width / 50
        assert most - width / 50 < max(values) <= most
    assert len({one["seed"] for one in noises}) > 900


@pytest.mark.parametrize("name", ["noise_floor_probability", "band_limit_probability"])
def test_a_share_of_more_than_all_clips_is_refused(name):
    with pytest.raises(ValueError, match=f"{name}=1.5 is more than all clips. Pass a share up to 1"):
        Augmentation(**{name: 1.5})

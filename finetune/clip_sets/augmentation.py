"""Training augmentation of AST: waveform mixup, SpecAugment masks, noise and roll, in the original's order.

Source: Gong et al. 2021, the released data loader; differs from it by the change of speed (Ko et al. 2015, "Audio
augmentation for speech recognition"), which comes before all others. Every draw is a function of (seed, epoch, index of
the clip, how often it came in this epoch), never of a global generator, so that resuming and the number of workers or
processes change nothing. Scalars are drawn where the clip is read; what touches every value of a spectrogram is applied
to the whole batch on the training device.
"""

import math
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torchaudio.functional import resample

AUGMENTATION_STREAM = 2  # sets these random numbers apart from other uses of the same seed and epoch
SPEED_STREAM = 3  # of its own, so that a change of speed leaves the other draws as they are
GAIN_STREAM = 4  # likewise
SPEED_STEPS = 100  # speeds are multiples of 1/100: resampling by such a ratio needs a filter of a few hundred values


@dataclass(frozen=True)
class Augmentation:
    """Strength of each augmentation; zero turns it off. See `AugmentationArguments` for the units."""

    mixup_probability: float = 0.0
    mixup_alpha: float = 10.0
    max_frequency_mask: int = 0
    max_time_mask: int = 0
    noise_strength: float = 0.0
    max_roll: int = 0
    max_speed_change: float = 0.0
    max_gain_db: float = 0.0

    def __post_init__(self):
        if not 0 <= self.mixup_probability <= 1:
            raise ValueError(
                f"mixup_probability={self.mixup_probability} is a share of the clips. Pass a number from 0 to 1."
            )
        for name, value in asdict(self).items():
            if value < 0:
                raise ValueError(f"{name}={value} is negative. Pass 0 to turn it off.")
        if self.max_speed_change and not 1 / SPEED_STEPS <= self.max_speed_change <= 0.5:
            raise ValueError(
                f"max_speed_change={self.max_speed_change} is not from {1 / SPEED_STEPS} to 0.5. Pass for example "
                "--max_speed_change 0.1, or 0 to turn it off."
            )
        if self.mixup_alpha == 0:
            raise ValueError("mixup_alpha=0 makes no Beta distribution. Pass --mixup_probability 0 to turn mixup off.")

    def draw(self, seed: int, epoch: int, index: int, num_clips: int, visit: int = 0) -> "Draws":
        """All random numbers for one visit to a clip in one epoch.

        Args:
            seed (`int`): seed of the run.
            epoch (`int`): epoch, from 0.
            index (`int`): the clip's place in the training set.
            num_clips (`int`): size of the training set, from which the mixup partner is drawn uniformly.
            visit (`int`, defaults to 0): how often the clip came before in this epoch; each visit has its own numbers.
        """
        key = (seed, epoch, index, visit) if visit else (seed, epoch, index)
        generator = np.random.default_rng((AUGMENTATION_STREAM, *key))
        widest = int(self.max_speed_change * SPEED_STEPS + 1e-6)  # 0.29 * 100 is 28.999...
        speed_step = np.random.default_rng((SPEED_STREAM, *key)).integers(-widest, widest + 1)
        mixed = generator.random() < self.mixup_probability
        partner, weight = int(generator.integers(num_clips)), float(generator.beta(self.mixup_alpha, self.mixup_alpha))
        return Draws(
            key=(epoch, index, visit),
            partner=partner if mixed else None,
            mixing_weight=weight,
            masks=generator.random(4, dtype=np.float32),
            noise_strength=float(generator.random()) * self.noise_strength,
            # -max_roll .. max_roll - 1, as numpy.random.randint(-10, 10) in the original
            roll=int(generator.integers(-self.max_roll, self.max_roll)) if self.max_roll else 0,
            noise_seed=int(generator.integers(2**63 - 1)),
            speed=1 + int(speed_step) / SPEED_STEPS,
            gain=10 ** (np.random.default_rng((GAIN_STREAM, *key)).uniform(-1, 1) * self.max_gain_db / 20),
        )

    def mask(self, features: torch.Tensor, frames: torch.Tensor, draws: torch.Tensor) -> torch.Tensor:
        """One frequency and one time mask per clip, set to raw 0 (before normalising), as in the original.

        Args:
            features (`torch.Tensor` of shape `(batch, frames, mel bins)`): log-mel features, not normalised.
            frames (`torch.Tensor` of shape `(batch,)`): frames of each clip that the time mask may fall on.
            draws (`torch.Tensor` of shape `(batch, 4)`): uniform numbers: width and start of the frequency mask, width
                and start of the time mask.
        """
        _, width, bins = features.shape
        all_bins = torch.full_like(frames, bins)
        masked_bins = _span(draws[:, 0], draws[:, 1], self.max_frequency_mask, all_bins, bins)  # (batch, bins)
        masked_frames = _span(draws[:, 2], draws[:, 3], self.max_time_mask, frames, width)  # (batch, frames)
        return features.masked_fill(masked_bins[:, None, :] | masked_frames[:, :, None], 0.0)

    def disturb(
        self,
        features: torch.Tensor,
        frames: torch.Tensor,
        strengths: torch.Tensor,
        seeds: list[int],
        rolls: torch.Tensor,
    ) -> torch.Tensor:
        """Uniform noise of random strength, then a roll along time, on normalised features.

        Args:
            features (`torch.Tensor` of shape `(batch, frames, mel bins)`): normalised features.
            frames (`torch.Tensor` of shape `(batch,)`): frames of each clip that roll; those after them stay.
            strengths (`torch.Tensor` of shape `(batch,)`): upper end of each clip's noise.
            seeds (`list[int]`): seed of each clip's noise.
            rolls (`torch.Tensor` of shape `(batch,)`, int64): frames by which each clip moves on.
        """
        if self.noise_strength:
            generator = torch.Generator(features.device)
            noise = torch.stack(
                [
                    torch.rand(features.shape[1:], device=features.device, generator=generator.manual_seed(seed))
                    for seed in seeds
                ]
            )
            features = features + noise * strengths[:, None, None]
        if self.max_roll:
            positions = torch.arange(features.shape[1], device=features.device)
            rolled = (positions - rolls[:, None]) % frames[:, None]  # (batch, frames)
            source = torch.where(positions < frames[:, None], rolled, positions)
            features = features.take_along_dim(source[:, :, None], dim=1)
        return features


@dataclass(frozen=True)
class Draws:
    """The random numbers of one visit to a clip; see [`Augmentation.draw`]."""

    key: tuple[int, int, int]  # epoch, index of the clip and visit: with these the clip can be asked for again
    partner: int | None
    mixing_weight: float
    masks: np.ndarray
    noise_strength: float
    roll: int
    noise_seed: int
    speed: float
    gain: float


def change_speed(waveform: np.ndarray, speed: float) -> np.ndarray:
    """Play a clip faster or slower, which moves pitch and tempo together.

    Args:
        waveform (`np.ndarray` of shape `(samples,)`, float32): the clip, at any sampling rate.
        speed (`float`): factor of pitch and tempo, a multiple of 1/100; above 1 the clip gets shorter and higher.

    Returns:
        `np.ndarray` of shape `(samples / speed, rounded up,)`, float32. What a faster clip lacks at its end the caller
        has if it cuts the clip to its length only afterwards.

    Source: Ko et al. 2015, "Audio augmentation for speech recognition".
    """
    return resample(torch.from_numpy(waveform), round(speed * SPEED_STEPS), SPEED_STEPS).numpy()


def samples_needed(max_samples: int, max_speed_change: float) -> int:
    """How many samples of a clip can be among the first `max_samples` at any speed that is drawn.

    Args:
        max_samples (`int`): samples that are kept after the change of speed.
        max_speed_change (`float`): largest change, 0 for none.
    """
    # The filter of the resampling reaches over a few samples of the block that the last one is in.
    return math.ceil(max_samples * (1 + max_speed_change)) + 2 * SPEED_STEPS if max_speed_change else max_samples


def mix_waveforms(waveform: np.ndarray, partner: np.ndarray, weight: float) -> np.ndarray:
    """Mixup of two clips by the original's rule.

    Args:
        waveform (`np.ndarray` of shape `(samples,)`): the clip, whose length the result has.
        partner (`np.ndarray` of shape `(partner samples,)`): cut, or padded with zeros, to that length.
        weight (`float`): share of `waveform`, in [0, 1].

    Returns:
        `np.ndarray` of shape `(samples,)`, float32, with mean 0 like each of the two before mixing.

    Source: `_wav2fbank` of the released data loader.
    """
    waveform = waveform - waveform.mean()
    fitted = np.zeros_like(waveform)
    shared = min(len(waveform), len(partner))
    fitted[:shared] = (partner - partner.mean())[:shared]
    mixed = weight * waveform + (1 - weight) * fitted
    return (mixed - mixed.mean()).astype(np.float32)


def _span(
    width_draw: torch.Tensor, start_draw: torch.Tensor, widest: int, sizes: torch.Tensor, num_positions: int
) -> torch.Tensor:
    """Masked span within each clip's size, `(batch, positions)`, as `torchaudio.functional.mask_along_axis` draws it."""
    width = width_draw * sizes.clamp(max=widest)
    start = (start_draw * (sizes - width)).long()
    positions = torch.arange(num_positions, device=width.device)
    return (positions >= start[:, None]) & (positions < (start + width.long())[:, None])

"""A steady noise under a clip, against hissing microphones, preamplifiers and lines; not in the original AST.

The noise is Gaussian. Its log-mel features are computed as those of a clip are, so that they scatter as those of recorded noise,
in each bin and between neighbouring bins and frames: about as a chi-square distribution with `2 * mean^2 / variance` degrees of
freedom (Welch 1967, "The use of fast Fourier transform for the estimation of power spectra"), measured as 2 in the lowest and 13 in
the highest of 64 bins. Powers are added. Of a sum of waveforms the product of the two is left out, which is zero on average.
"""

import math
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch

from modeling_ast.features.kaldi import SMALLEST_ENERGY, num_samples
from modeling_ast.features.log_mel import log_mel_spectrogram

from .augmentation_step import AugmentationStep
from .log_mel_bins import FLOOR, SAMPLING_RATE, bin_weights, fft_frequencies, own_frames, pre_emphasis

LOWEST_SNR_DB, HIGHEST_SNR_DB = 0.0, 40.0  # of the waveform, against the clip's loud frames
LOUD = 0.95  # quantile of the power of a clip's frames: most short clips are a sound and a pause
STEEPEST_FALL, STEEPEST_RISE = -6.0, 3.0  # dB per octave: from the noise of traffic and wind to that of digital lines
TILTED_ABOUT = 1000.0  # Hz
SAMPLES_AT_ONCE = 8192  # with blocks of one size a clip has the same noise beside clips of any length, on every device
NEPERS = math.log(10) / 10  # of one dB


@dataclass(frozen=True)
class NoiseFloor(AugmentationStep):
    """Add a steady noise of drawn level and colour to a share of the clips."""

    name: ClassVar[str] = "noise_floor"
    stream: ClassVar[int] = 10
    strengths: ClassVar[tuple[str, ...]] = ("noise_floor_probability",)

    noise_floor_probability: float = field(
        default=0.0,
        metadata={
            "help": "Share of the training clips that get a steady noise, 0 to 40 dB below their loud parts: against recordings "
            "that hiss; not in the original."
        },
    )

    def __post_init__(self):
        super().__post_init__()
        if self.noise_floor_probability > 1:
            raise ValueError(
                f"noise_floor_probability={self.noise_floor_probability} is more than all clips. Pass a share up to 1, for "
                "example --noise_floor_probability 0.5."
            )

    def draw(self, generator: np.random.Generator, num_clips: int) -> dict:
        """See [`AugmentationStep.draw`]: draws the `"seed"` of the noise, `None` for a clip that gets none, the ratio `"snr_db"`
        and the `"tilt"` in dB per octave."""
        is_noisy, level, colour = generator.random(3)
        seed = int(generator.integers(2**63 - 1))
        return {
            "seed": seed
            if is_noisy < self.noise_floor_probability
            else None,  # read by the host: a tensor would be waited for
            "snr_db": np.float32(LOWEST_SNR_DB + level * (HIGHEST_SNR_DB - LOWEST_SNR_DB)),
            "tilt": np.float32(STEEPEST_FALL + colour * (STEEPEST_RISE - STEEPEST_FALL)),
        }

    def change_log_mel(self, features: torch.Tensor, frames: torch.Tensor, drawn: dict) -> torch.Tensor:
        """See [`AugmentationStep.change_log_mel`]: adds the noise to the frames of a clip that are no padding; a clip that is
        digital silence has no level to draw from, and stays as it is."""
        noisy = [place for place, seed in enumerate(drawn["seed"]) if seed is not None]
        if not noisy:
            return features
        clips, device, (_, width, bins) = features[noisy], features.device, features.shape
        own = own_frames(clips, frames[noisy])
        heard = fft_frequencies(device)[1:]  # of 0 Hz nothing is: the mean of a frame is removed
        colour = (
            drawn["tilt"][noisy, None] * NEPERS * (heard / TILTED_ABOUT).log2()
        ).exp()  # (clips, fft bins), of power
        weights = bin_weights(bins, device)[1:]
        colour = (colour @ weights / weights.sum(dim=0)).nan_to_num(1.0)  # a bin that hears no frequency has no colour
        noise = white_noise([drawn["seed"][place] for place in noisy], width, bins, device) + colour.log()[:, None]

        loud = torch.nanquantile(_power(clips).masked_fill(~own, torch.nan), LOUD, dim=1)
        of_noise = torch.nanmean(_power(noise).masked_fill(~own, torch.nan), dim=1)
        level = loud.log() - of_noise.log() - drawn["snr_db"][noisy] * NEPERS  # -inf of silence
        sound = clips.masked_fill(clips < FLOOR + 1e-3, -torch.inf)  # the floor is a limit, and adds nothing
        changed = torch.maximum(torch.logaddexp(sound, noise + level[:, None, None]), clips)
        return features.index_copy(
            0, torch.tensor(noisy, device=device), torch.where(own[:, :, None], changed, clips).to(features.dtype)
        )


def white_noise(seeds: list[int], num_frames: int, num_mel_bins: int, device: torch.device) -> torch.Tensor:
    """Compute the log-mel features of white Gaussian noise.

    Args:
        seeds (`list[int]`): one for each clip.
        num_frames (`int`): frames of all clips.
        num_mel_bins (`int`): mel bins.
        device (`torch.device`): where it is drawn; another kind of device draws other numbers.

    Returns:
        `torch.Tensor` of shape `(clips, num_frames, num_mel_bins)`: of noise whose samples have a standard deviation of 1. The
        first frames of a seed are the same for every `num_frames`.
    """
    length, generator, clips = num_samples(num_frames, SAMPLING_RATE), torch.Generator(device), []
    for seed in seeds:
        generator.manual_seed(seed)
        blocks = [
            torch.randn(SAMPLES_AT_ONCE, device=device, generator=generator)
            for _ in range(math.ceil(length / SAMPLES_AT_ONCE))
        ]
        clips.append(torch.cat(blocks)[:length])
    return log_mel_spectrogram(torch.stack(clips), SAMPLING_RATE, num_mel_bins)


def _power(log_mel: torch.Tensor) -> torch.Tensor:
    """Power of the frames, as of the waveform before pre-emphasis, `(batch, frames)`; 0 for digital silence."""
    energy = (log_mel.exp() - SMALLEST_ENERGY * (1 + 1e-5)).clamp(min=0)
    return (energy / pre_emphasis(log_mel.shape[2], log_mel.device)).sum(dim=2)

"""Augmentation of training clips: the third group of fields."""

from dataclasses import dataclass, field

from .given import ArgumentGroup

NEEDS_WAVEFORMS = ("mixup_probability", "max_speed_change", "max_gain_db")


@dataclass
class AugmentationArguments(ArgumentGroup):
    """Augmentation of training clips; nothing is augmented by default."""

    mixup_probability: float = field(default=0.0, metadata={"help": "Share of clips mixed with another one."})
    mixup_alpha: float = field(default=10.0, metadata={"help": "Mixing weight is drawn from Beta(alpha, alpha)."})
    max_frequency_mask: int = field(default=0, metadata={"help": "Widest frequency mask, in mel bins."})
    max_time_mask: int = field(default=0, metadata={"help": "Longest time mask, in frames."})
    noise_strength: float = field(
        default=0.0, metadata={"help": "Strongest uniform noise on normalised features (original: 0.1)."}
    )
    max_roll: int = field(default=0, metadata={"help": "Farthest roll along time, in frames (original: 10)."})
    max_gain_db: float = field(
        default=0.0,
        metadata={
            "help": "Largest change of level, in dB up or down: against recordings of different loudness; not in the original."
        },
    )
    max_speed_change: float = field(
        default=0.0,
        metadata={
            "help": "Largest change of speed, which moves pitch and tempo together: 0.1 draws factors from 0.9 to 1.1; not "
            "in the original."
        },
    )


def refuse_without_waveforms(augmentation):
    """Refuse what cannot be done to finished features.

    Args:
        augmentation ([`Augmentation`] or `AugmentationArguments`): what was asked for.

    Raises:
        ValueError: if it changes waveforms.
    """
    given = [name for name in NEEDS_WAVEFORMS if getattr(augmentation, name)]
    if given:
        raise ValueError(
            f"{', '.join(given)} change(s) waveforms, but with features_column_name there are only finished features. Pass "
            f"{' '.join(f'--{name} 0' for name in given)}; masks, noise and roll work."
        )

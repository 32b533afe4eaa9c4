"""Augmentation of training clips: the third group of fields."""

import dataclasses
from dataclasses import dataclass

from ..augmentations.augmentation import Augmentation, AugmentationFields
from .given import ArgumentGroup


@dataclass
class AugmentationArguments(AugmentationFields, ArgumentGroup):
    """Augmentation of training clips, with the fields of every augmentation; nothing is augmented by default."""

    def __post_init__(self):
        self.augmentation()

    def augmentation(self) -> Augmentation:
        """Make the augmentation that these fields ask for.

        Returns:
            [`Augmentation`]: of the augmentations that the kit has.

        Raises:
            ValueError: for a strength that cannot be.
        """
        return Augmentation(**dataclasses.asdict(self))

"""Patchout: patches that the model neither sees nor computes in training, which makes a step of it as much faster.

Source: Koutini et al., Interspeech 2022, "Efficient Training of Audio Transformers with Patchout". As in their code whole
columns of time and rows of frequency go first, then single patches of what is left; positions are added before. Differs from
it in that each clip draws its own, where one draw served a whole batch, in that single patches are a share and no number, and
in that a padded clip loses columns in proportion to its own length.
"""

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch

from .augmentation_step import AugmentationStep


@dataclass(frozen=True)
class Patchout(AugmentationStep):
    """Leave out rows and columns of the patch grid, and single patches."""

    name: ClassVar[str] = "patchout"
    stream: ClassVar[int] = 5
    strengths: ClassVar[tuple[str, ...]] = ("patchout_frequency", "patchout_time", "patchout_share")

    patchout_frequency: int = field(
        default=0, metadata={"help": "Rows of the patch grid, along frequency, that are left out in training."}
    )
    patchout_time: int = field(
        default=0,
        metadata={
            "help": "Columns of the patch grid, along time, that are left out in training, of the max_length frames; of a "
            "shorter input in proportion."
        },
    )
    patchout_share: float = field(
        default=0.0, metadata={"help": "Share of the patches left by these that are left out one by one in training."}
    )

    def __post_init__(self):
        super().__post_init__()
        if self.patchout_share >= 1:
            raise ValueError(
                f"patchout_share={self.patchout_share} leaves no patch. Pass a share below 1, for example --patchout_share 0.5."
            )

    def check_grid(self, grid: tuple[int, int]) -> None:
        """See [`AugmentationStep.check_grid`]: refuses to leave out every row or every column."""
        for name, along, count in zip(("patchout_frequency", "patchout_time"), ("rows", "columns"), grid, strict=True):
            if getattr(self, name) >= count:
                raise ValueError(
                    f"{name}={getattr(self, name)} leaves no patch: the model's grid has {grid[0]} rows along frequency and "
                    f"{grid[1]} columns along time. "
                    + (f"Pass at most {count - 1}." if count > 1 else f"It has no {along} to spare: leave it out.")
                )

    def draw(self, generator: np.random.Generator, num_clips: int) -> dict:
        """See [`AugmentationStep.draw`]: draws the `"seed"` of the clip's patches, which cannot be drawn before the grid is
        known."""
        return {"seed": int(generator.integers(2**63 - 1))}

    def num_kept(self, columns: int, grid: tuple[int, int]) -> int:
        """Tell how many patches of an input stay.

        Args:
            columns (`int`): patches of the input along time, without padding.
            grid (`tuple[int, int]`): patches along frequency and along time of the model's `max_length`.

        Returns:
            `int`: patches, one at least.
        """
        left = (grid[0] - self.patchout_frequency) * (columns - self._columns_left_out(columns, grid))
        return left - int(self.patchout_share * left)

    def patches_kept(self, columns: list[int], width: int, grid: tuple[int, int], drawn: dict) -> torch.Tensor:
        """See [`AugmentationStep.patches_kept`].

        What stays of a clip depends on its own draw and length alone, never on the others of its batch: beside longer ones it
        is filled up with patches of its padding, which take no part.
        """
        fullest = max(self.num_kept(own, grid) for own in columns)
        kept = [
            self._fill_up(self._of_clip(seed, own, width, grid), own, width, grid[0], fullest)
            for seed, own in zip(drawn["seed"], columns, strict=True)
        ]
        return torch.from_numpy(np.stack(kept))

    def _columns_left_out(self, columns: int, grid: tuple[int, int]) -> int:
        # Rounded down: fewer than all, as long as fewer than all of the whole grid are left out.
        return self.patchout_time * min(columns, grid[1]) // grid[1]

    def _of_clip(self, seed: int, columns: int, width: int, grid: tuple[int, int]) -> np.ndarray:
        """The numbers of the patches of a clip that stay, in their order."""
        generator = np.random.default_rng(seed)
        stays = np.zeros((grid[0], width), dtype=bool)
        stays[:, :columns] = True
        stays[:, generator.permutation(columns)[: self._columns_left_out(columns, grid)]] = False
        stays[generator.permutation(grid[0])[: self.patchout_frequency]] = False
        left = np.flatnonzero(stays)
        return np.sort(generator.permutation(left)[: self.num_kept(columns, grid)])

    @staticmethod
    def _fill_up(kept: np.ndarray, columns: int, width: int, rows: int, count: int) -> np.ndarray:
        # There is always enough padding: a column more in a clip is at most a column of patches more that stay.
        padding = np.arange(rows * width).reshape(rows, width)[:, columns:].ravel()
        return np.concatenate([kept, padding[: count - len(kept)]])

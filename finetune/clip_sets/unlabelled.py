"""Audio files without labels, for a masked pretraining: which patches of a clip are hidden is drawn where it is read.

A draw is a function of (seed, epoch, clip), as those of augmentations, and of a held-out clip of (seed, clip) alone, so that
all epochs are scored on the same task. Masks are drawn on a clip's own patches: padding is never hidden, and the clips that
one is batched with have no part in it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import datasets
import numpy as np
import torch

from modeling_ast import ASTFeatureExtractor
from modeling_ast.audio import AudioReader, audio_duration
from modeling_ast.features.kaldi import num_frames, num_samples
from modeling_ast.layers.patch_grid import patches_along
from modeling_ast.layers.patch_masks import draw_patch_mask, num_masked

from ..augmentations.augmentation import Augmentation
from .audio_clips import AudioClips
from .clip_set import Checked, Checks
from .collator import ASTDataCollator
from .split_checks import BadClip, leave_out
from .waveforms import ASTDataset, clip_name

# Set these random numbers apart from those of augmentations and of the order of clips.
MASK_STREAM, HELD_OUT_MASK_STREAM = 100, 101
FEWEST_PATCHES = 2  # one to hide and one to hear


@dataclass(frozen=True)
class Masking:
    """How many patches of a clip are hidden, and in which clusters.

    Args:
        share (`float`): of the patches of a clip.
        cluster_sides (`tuple[int, int]`): least and largest side of a cluster, in patches.
        patch_size (`int`): side of a patch of the model, in mel bins and frames; patches do not overlap.
    """

    share: float
    cluster_sides: tuple[int, int]
    patch_size: int

    def grid(self, num_samples: int, feature_extractor: ASTFeatureExtractor) -> tuple[int, int]:
        """Count the patches of a clip, without those of padding.

        Args:
            num_samples (`int`): samples of its waveform.
            feature_extractor ([`ASTFeatureExtractor`]): that of the model.

        Returns:
            Patches along frequency and along time; one at least along time, as the model hears a shorter clip.
        """
        frames = min(num_frames(num_samples, feature_extractor.sampling_rate), feature_extractor.max_length)
        along = (feature_extractor.num_mel_bins, max(frames, self.patch_size))
        return tuple(patches_along(size, self.patch_size, self.patch_size) for size in along)

    def num_masked(self, grid: tuple[int, int]) -> int:
        """Count the patches that are hidden.

        Args:
            grid (`tuple[int, int]`): patches along frequency and along time.

        Returns:
            Their number.
        """
        return num_masked(grid, self.share)

    def draw(self, key: tuple[int, ...], grid: tuple[int, int]) -> np.ndarray:
        """Draw the patches to hide.

        Args:
            key (`tuple[int, ...]`): what the draw is a function of.
            grid (`tuple[int, int]`): patches of the clip along frequency and along time.

        Returns:
            `np.ndarray` of shape `grid`, bool.
        """
        return draw_patch_mask(np.random.default_rng(key), grid, self.share, self.cluster_sides)


class MaskedDataset(ASTDataset):
    """Decoded clips, of which each item has under `"patches_masked"` the patches to hide, of shape (frequency, time).

    Args:
        split (`datasets.Dataset`): with the columns `"audio"` (undecoded) and `"label"`, in which nothing is.
        reader ([`AudioReader`]): how their files are heard.
        feature_extractor ([`ASTFeatureExtractor`]): that of the model.
        masking ([`Masking`]): how many patches are hidden.
        augmentation ([`Augmentation`], *optional*): see [`ClipDataset`].
        seed (`int`, defaults to 0): of all draws.
    """

    def __init__(
        self,
        split: datasets.Dataset,
        reader: AudioReader,
        feature_extractor: ASTFeatureExtractor,
        masking: Masking,
        augmentation: Augmentation | None = None,
        seed: int = 0,
    ):
        super().__init__(split, reader, feature_extractor.max_samples, augmentation, seed)
        self.feature_extractor = feature_extractor
        self.masking = masking

    def __getitem__(self, key: int | tuple[int, int] | tuple[int, int, int]) -> dict:
        item = super().__getitem__(key)
        drawn_by = (MASK_STREAM, self.seed, *key) if isinstance(key, tuple) else (HELD_OUT_MASK_STREAM, self.seed, key)
        heard = len(item["waveform"]) if "waveform" in item else num_samples(len(item["features"]), self.sampling_rate)
        grid = self.masking.grid(heard, self.feature_extractor)
        return item | {"patches_masked": self.masking.draw(drawn_by, grid)}

    def chance(self) -> float:
        """Tell how many hidden patches a blind guess would find, by the lengths in the files' headers.

        Returns:
            Share from 0 to 1: the mean over the clips of 1 / hidden patches.
        """
        samples = np.round(self.lengths() * self.sampling_rate).astype(np.int64).tolist()
        hidden = [self.masking.num_masked(self.masking.grid(number, self.feature_extractor)) for number in samples]
        return float(np.mean([1 / max(number, 1) for number in hidden]))


class MaskedCollator(ASTDataCollator):
    """Collates items of [`MaskedDataset`] for [`ASTTrainer`]; see [`ASTDataCollator`].

    Args:
        feature_extractor ([`ASTFeatureExtractor`]): that of the model.
        patch_size (`int`): side of a patch of the model.
    """

    def __init__(self, feature_extractor: ASTFeatureExtractor, patch_size: int):
        super().__init__(feature_extractor, compute_features=False)
        self.patch_size = patch_size

    def __call__(self, examples: list[dict]) -> dict[str, torch.Tensor | list[int] | bool | dict]:
        """Make a batch.

        Args:
            examples (`list[dict]`): items of [`MaskedDataset`].

        Returns:
            As [`ASTDataCollator`], and in `"targets"` the tensor `"patches_masked"` of shape `(batch, patches)`, bool, on
            the grid of the padded batch, with time running fastest.
        """
        masks = [torch.from_numpy(example["patches_masked"]) for example in examples]  # each (frequency, time)
        width = max(mask.shape[1] for mask in masks)
        if self.feature_extractor.padding != "longest":
            width = patches_along(self.feature_extractor.max_length, self.patch_size, self.patch_size)
        padded = [torch.nn.functional.pad(mask, (0, width - mask.shape[1])) for mask in masks]
        return super().__call__(examples) | {"targets": {"patches_masked": torch.stack(padded).flatten(1)}}


class UnlabelledClips(AudioClips):
    """Audio files whose labels, if they have any, are not read.

    Args:
        rows (`datasets.Dataset`): with the columns `"audio"` (undecoded `datasets.Audio`) and `"label"`, in which nothing is.
        masking ([`Masking`]): which patches of a clip are hidden.
    """

    def __init__(self, rows: datasets.Dataset, masking: Masking):
        super().__init__(rows)
        self.masking = masking

    def without(self, left_out: Mapping[int, list[int]]) -> Self:
        """See [`ClipSet.without`].

        Args:
            left_out (`Mapping[int, list[int]]`): place of each clip to leave out, and no labels.

        Returns:
            The other clips.
        """
        kept = [row for row in range(len(self)) if row not in left_out]
        return type(self)(self.rows.select(kept), self.masking) if left_out else self

    def described(self) -> dict:
        """See [`ClipSet.described`]: how many clips there are, and how many seconds they last by their files' headers."""
        seconds = sum(audio_duration(row["audio"]) for row in self.rows.select_columns("audio"))
        return {"clips": len(self), "seconds": round(seconds, 3)}

    def dataset(
        self,
        feature_extractor: ASTFeatureExtractor,
        augmentation: Augmentation | None = None,
        seed: int = 0,
        *,
        binary_targets: bool = False,
        reader: AudioReader | None = None,
    ) -> MaskedDataset:
        """See [`ClipSet.dataset`].

        Returns:
            [`MaskedDataset`].
        """
        reader = feature_extractor.audio_reader() if reader is None else reader
        return MaskedDataset(self.rows, reader, feature_extractor, self.masking, augmentation, seed)

    @classmethod
    def check(cls, splits: dict[str, Self], checks: Checks) -> Checked:
        """Look at the clips as [`AudioClips.check`] does, and refuse those of which no patch could be hidden.

        Args:
            splits (`dict[str, UnlabelledClips]`): of the run, by side.
            checks ([`Checks`]): what is looked at, and how.

        Returns:
            [`Checked`].

        Raises:
            DataError: for clips with fewer than two patches, by their files' headers; see also [`AudioClips.check`].
        """
        checked = super().check(splits, checks)
        bad = [clip for side, split in checked.splits.items() for clip in _too_short(side, split, checks)]
        num_clips = sum(map(len, checked.splits.values()))
        left, skipped, notes = leave_out(checked.splits, bad, checks.data, num_clips)
        return Checked(left, checked.notes + notes, checked.skipped + skipped)


def _too_short(side: str, split: UnlabelledClips, checks: Checks) -> list[BadClip]:
    """The clips of a split that have fewer than two patches."""
    masking, extractor = split.masking, checks.feature_extractor
    if np.prod(masking.grid(1, extractor)) >= FEWEST_PATCHES:  # then the shortest has enough along frequency
        return []
    bad = []
    for place, row in enumerate(split.rows.select_columns("audio")):
        seconds = audio_duration(row["audio"])
        if np.prod(masking.grid(round(seconds * extractor.sampling_rate), extractor)) < FEWEST_PATCHES:
            reason = (
                f"{clip_name(row['audio'])} lasts {seconds:.3g} s, which is shorter than {FEWEST_PATCHES} patches of "
                f"{masking.patch_size} frames of 10 ms: of one alone nothing can be hidden and found again."
            )
            bad.append(BadClip(side, place, reason, row["audio"]["path"], []))
    return bad

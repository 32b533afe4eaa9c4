"""Windows of clips that last longer than the model hears: one that is drawn, or all of them.

What is drawn is a function of (seed, epoch, clip), as of augmentations. Of a file only the window is decoded. A clip that the
model hears to its end stays what it is, bit for bit.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from modeling_ast import ASTFeatureExtractor
from modeling_ast.audio import AudioReader, ExcerptReader, Heard
from modeling_ast.features.kaldi import is_cut
from modeling_ast.tagging.segments import least_rest, window_starts

from ..augmentations.augmentation import Augmentation
from .clip_memory import ClipMemory
from .waveforms import ASTDataset, clip_name, one_thread

WINDOW_STREAM = 102  # sets these random numbers apart from those of augmentations, of masks and of the order of clips
UNKNOWN = -1
MOST_WINDOWS = 4  # of a clip that is decoded as a whole and kept, which pays within as many epochs


class Visit(NamedTuple):
    """A clip as it is heard in one epoch.

    Attributes:
        clip (`int`): its place.
        epoch (`int`): by which its window is drawn.
        visit (`int`): how often the clip came before in this epoch.
    """

    clip: int
    epoch: int = 0
    visit: int = 0


class WindowedDataset(ASTDataset):
    """What data sets of windows have in common.

    Args:
        split (`datasets.Dataset`): see [`ASTDataset`].
        reader ([`AudioReader`]): see [`ASTDataset`].
        *args: see [`ASTDataset`].
        **kwargs: see [`ASTDataset`].
    """

    def __init__(self, split, reader: AudioReader, *args, **kwargs):
        super().__init__(split, reader, *args, **kwargs)
        self.excerpts = ExcerptReader(reader)

    def _window(self, clip: int, start: int) -> Heard:
        """A window of a clip that lasts longer, of `samples_needed` samples where there are as many."""
        if self.cached is not None:
            return Heard(self.cached.piece(clip, start, self.samples_needed))
        audio = self.split[clip]["audio"]
        with one_thread():
            heard = self.excerpts.hear(
                audio, start, self.samples_needed, clip_name(audio), self._decoded_before(clip, audio)
            )
        self.said.log(heard.notes)
        return heard

    def _decoded_before(self, clip: int, audio: dict) -> Callable[[int, int], np.ndarray] | None:
        """What gives the samples of a clip's file from memory; `None` if it is not kept there."""
        return None

    def _length(self, clip: int) -> int:
        """Samples of a clip, told without decoding it."""
        if self.cached is not None:
            return self.cached.length(clip)
        audio = self.split[clip]["audio"]
        return self.excerpts.num_samples(audio, clip_name(audio))


class DrawnWindows(WindowedDataset):
    """Clips of which those that last longer give another window in every epoch; see [`ASTDataset`].

    Asked for by its place alone, a clip is as in the first epoch.

    Args:
        split (`datasets.Dataset`): see [`ASTDataset`].
        *args: see [`ASTDataset`].
        **kwargs: see [`ASTDataset`].
    """

    whole_clips: ClipMemory | None = None

    def __init__(self, split, *args, **kwargs):
        super().__init__(split, *args, **kwargs)
        self._lengths = np.full(len(split), UNKNOWN, np.int64)

    def keep_whole_clips(self, num_bytes: int, epochs: float):
        """Keep clips whose windows are wanted in later epochs decoded as a whole, as far as there is room.

        Args:
            num_bytes (`int`): the room.
            epochs (`float`): that are trained. Clips of more windows than that are not kept, nor those of more than `MOST_WINDOWS`.
        """
        if self.cached is None:
            self.whole_clips = ClipMemory(len(self.split), num_bytes)
            self.longest_kept = int(min(epochs, MOST_WINDOWS) * self.samples_needed)

    def _decoded_before(self, clip: int, audio: dict) -> Callable[[int, int], np.ndarray] | None:
        whole = self.whole_clips
        if whole is None:
            return None
        if clip not in whole and self._lengths[clip] <= self.longest_kept and not whole.has_no_room(clip):
            samples = self.excerpts.samples_of_file(audio, clip_name(audio))
            if samples is not None:
                whole.keep(clip, samples)
        return partial(whole.rows, clip) if clip in whole else None

    def heard_as(self, index: int, epoch: int | None = None, visit: int = 0) -> Visit:
        """See [`ClipDataset.heard_as`].

        Args:
            index (`int`): place of the clip.
            epoch (`int`, *optional*): by which its window is drawn; the first if not given.
            visit (`int`, defaults to 0): how often it came before in this epoch.

        Returns:
            [`Visit`].
        """
        return Visit(index, epoch or 0, visit)

    def decode(self, clip: Visit) -> tuple[Heard, int | list[int] | np.ndarray]:
        """See [`ClipDataset.decode`]."""
        clip = clip if isinstance(clip, Visit) else Visit(clip)
        if self.memory is not None and self.features_by is None and clip.clip in self.memory:
            return super().decode(clip.clip)
        start = self.start_of(clip)
        if start is None:
            return super().decode(clip.clip)
        return self._window(clip.clip, start), self._label(clip.clip)

    def has_windows(self) -> bool:
        """See [`ClipDataset.has_windows`]; told from the files' headers.

        Returns:
            `True` if a clip lasts longer.
        """
        return any(self.start_of(Visit(clip)) is not None for clip in range(len(self)))

    def start_of(self, clip: Visit) -> int | None:
        """Draw where the window of a clip begins.

        Args:
            clip ([`Visit`]): which clip when.

        Returns:
            `int`: a sample; `None` for a clip that the model hears to its end.
        """
        length = self._lengths[clip.clip]
        if length == UNKNOWN:
            length = self._lengths[clip.clip] = self._length(clip.clip)
        if not is_cut(length, self.max_samples, self.sampling_rate):
            return None
        key = (WINDOW_STREAM, self.seed, clip.epoch, clip.clip, *((clip.visit,) if clip.visit else ()))
        # A change of speed takes what it needs beyond the window from the clip as well, as far as that goes.
        return int(np.random.default_rng(key).integers(length - self.max_samples + 1))

    def _features_of(self, clip: Visit) -> np.ndarray:
        clip = clip if isinstance(clip, Visit) else Visit(clip)
        if clip.clip in self.memory or self.start_of(clip) is None:
            return super()._features_of(clip.clip)
        return self._computed_features(clip)


class AllWindows(WindowedDataset):
    """All windows of clips, each an item of its own: those that `ast-tag` scores, side by side from the beginning, and a last one
    that ends with the clip; see [`least_rest`].

    Args:
        split (`datasets.Dataset`): see [`ASTDataset`].
        *args: see [`ASTDataset`].
        reduction (`str`, defaults to `"mean"`): what makes one score of those of a clip's windows, or `"max"`.
        **kwargs: see [`ASTDataset`].

    Attributes:
        num_longer (`int`): clips that last longer than the model hears, with a second window or without.
    """

    def __init__(self, split, *args, reduction: str = "mean", **kwargs):
        super().__init__(split, *args, **kwargs)
        self.reduction = reduction
        self.least_rest = least_rest(self.sampling_rate, self.max_samples)
        self._place(range(len(split)))

    def _place(self, clips: Sequence[int]):
        lengths = np.array([self._length(clip) for clip in clips], np.int64)
        starts = [self._starts(length) for length in lengths.tolist()]
        self.clip_of_item = np.repeat(np.arange(len(starts)), [len(of_clip) for of_clip in starts])
        self.starts = np.array([start for of_clip in starts for start in of_clip], np.int64)
        self._has_several = np.array([len(of_clip) > 1 for of_clip in starts], bool)
        self.num_longer = int(is_cut(lengths, self.max_samples, self.sampling_rate).sum())

    def _starts(self, length: int) -> list[int]:
        return window_starts(length, self.max_samples, self.max_samples, self.least_rest)

    def __len__(self) -> int:
        return len(self.starts)

    def decode(self, clip: int) -> tuple[Heard, int | list[int] | np.ndarray]:
        """See [`ClipDataset.decode`]: the clip is the place of a window."""
        row, keeps = int(self.clip_of_item[clip]), self.memory is not None and self.features_by is None
        heard = self.memory.heard(clip) if keeps else None
        if heard is None:
            heard = self._heard(row, int(self.starts[clip]))
            if keeps:
                self.memory.keep_heard(clip, heard, self.samples_needed)
        return heard, super()._label(row)

    def _heard(self, row: int, start: int) -> Heard:
        if self._has_several[row]:
            return self._window(row, start)
        return Heard(self.cached[row]) if self.cached is not None else self._hear(self.split[row]["audio"])

    def _label(self, clip: int) -> int | list[int] | np.ndarray:
        return super()._label(int(self.clip_of_item[clip]))

    def label_lists(self) -> list[list[int]]:
        """See [`ASTDataset.label_lists`]: of every window.

        Returns:
            Label indices of the clip of each.
        """
        of_clips = super().label_lists()
        return [of_clips[clip] for clip in self.clip_of_item.tolist()]

    def lengths(self) -> np.ndarray:
        """See [`ClipDataset.lengths`]: of every window.

        Returns:
            `np.ndarray` of shape `(windows,)`, seconds.
        """
        return super().lengths()[self.clip_of_item]

    def name(self, index: int) -> str:
        """See [`ClipDataset.name`].

        Args:
            index (`int`): place of the window.

        Returns:
            Path of its clip's file, and where in it the window begins if there are several.
        """
        row = int(self.clip_of_item[index])
        at = f", from {self.starts[index] / self.sampling_rate:.2f} s" if self._has_several[row] else ""
        return f"{self.name_of_clip(row)}{at}"

    def name_of_clip(self, clip: int) -> str:
        """See [`ClipDataset.name_of_clip`].

        Args:
            clip (`int`): place of the clip.

        Returns:
            Path of its file.
        """
        return super().name(clip)


def windowed_dataset(
    split,
    windows: str,
    feature_extractor: ASTFeatureExtractor,
    reader: AudioReader,
    augmentation: Augmentation | None,
    seed: int,
    binary_targets: bool,
) -> ASTDataset:
    """Make the data set of clips of audio.

    Args:
        split (`datasets.Dataset`): see [`ASTDataset`].
        windows (`str`): what is heard of a clip that lasts longer than the model hears: its `"beginning"`, a `"random"` window,
            or `"all"` of them; for scores, the `"mean"` or `"max"` of all.
        feature_extractor ([`ASTFeatureExtractor`]): that of the model.
        reader ([`AudioReader`]): how files are heard.
        augmentation ([`Augmentation`], *optional*): of a training.
        seed (`int`): of all draws.
        binary_targets (`bool`): see [`ClipDataset`].

    Returns:
        [`ASTDataset`]: with an item a clip where none lasts longer.
    """
    arguments = (split, reader, feature_extractor.max_samples, augmentation, seed)
    if windows == "beginning":
        return ASTDataset(*arguments, binary_targets=binary_targets)
    if windows == "random":
        return DrawnWindows(*arguments, binary_targets=binary_targets)
    reduction = windows if windows in ("mean", "max") else "mean"
    dataset = AllWindows(*arguments, binary_targets=binary_targets, reduction=reduction)
    return dataset if dataset.num_longer else ASTDataset(*arguments, binary_targets=binary_targets)

"""Windows of long recordings around and between marked stretches.

In training each stretch has a window in every epoch, placed by (seed, epoch, item) so that the stretch counts in it, and as many
windows more as the share of background asks for hold nothing of any stretch. Scored are all windows side by side; those that hold
so little of a stretch that it does not count, and where it cannot be said to be absent, have no part. For a frame head
([`MarkedClips.with_frames`]) each frame has labels of its own, so that all windows have a part. Of a file no more than the
window is decoded, and of recordings nothing is kept but their names and times.
"""

import copy
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Self

import datasets
import numpy as np

from modeling_ast import ASTFeatureExtractor
from modeling_ast.audio import AudioError, AudioReader, ExcerptReader, Heard, MissingAudioError
from modeling_ast.features.kaldi import frame_length, num_frames
from modeling_ast.frame_classification import NOT_SCORED
from modeling_ast.frame_columns import FrameColumns
from modeling_ast.tagging.segments import window_starts

from ..arguments.groups import DataArguments
from ..augmentations.augmentation import Augmentation
from ..sources.data_errors import DataError, names_in_short
from ..sources.labels import count_labels, label_feature
from ..sources.marked_recordings import MarkedData, Recording
from ..sources.marks import Overlap, parse_overlap, touching
from ..sources.same_audio import same_in_several
from .clip_notes import NotedClip
from .clip_set import Checked, Checks, ClipSet
from .decoding import decoded_rows
from .split_checks import SPLIT_WORDS, check_labels, listed, notes_on_clips
from .waveforms import WHOLE, ClipDataset, one_thread

MARK_STREAM = 103  # sets these random numbers apart from those of augmentations, masks, windows and the order of clips
WINDOWS_CHECKED = 32  # decoded before a training
PLACE_SECONDS = 1e-6  # that a mark without a length lasts, so that it counts in the frame that holds it
GRID = 1000  # windows that are scored begin at whole milliseconds
HARD_SHARE = 0.5  # of the background windows, where there are hard negatives


class Placed(NamedTuple):
    """A window.

    Attributes:
        recording (`int`): place of its recording.
        start (`float`): in seconds.
        labels (`tuple[int, ...]`): that count in it.
        stretches (`tuple[tuple[float, float, int], ...]`): start, end and label of all that it holds anything of, in seconds from
            the window's own start, within the window.
    """

    recording: int
    start: float
    labels: tuple[int, ...]
    stretches: tuple[tuple[float, float, int], ...]


@dataclass(frozen=True)
class WindowRules:
    """How windows are cut and what counts in them.

    Args:
        overlap ([`Overlap`]): how much of a stretch makes its label count.
        background_share (`float`, *optional*): of the training windows; half, as far as there is background, if not given.
        background (`int`, *optional*): label of a window without any stretch; without it labels are independent, and it has none.
    """

    overlap: Overlap
    background_share: float | None = None
    background: int | None = None


class MarkedClips(ClipSet):
    """Windows of the recordings of a split.

    Args:
        recordings (`list[Recording]`): with what is marked in each.
        labels (`list[str]`): names in the order of the model's outputs.
        rules ([`WindowRules`]): how windows are cut.
        trains (`bool`): whether windows are drawn, or all are heard side by side.
        seconds (`float`): of a window; see [`MarkedClips.of_length`].
        hard (`np.ndarray` of shape `(windows, 2)`, *optional*): recording and start of background windows that are drawn more.
        columns ([`FrameColumns`], *optional*): of a model with a frame head; see [`MarkedClips.with_frames`].
        speed_change (`float`, defaults to 0): by what share an augmentation plays a window faster or slower at most, so that more
            or less of the recording is heard in it.
    """

    def __init__(
        self,
        recordings: list[Recording],
        labels: list[str],
        rules: WindowRules,
        trains: bool,
        seconds: float = 10.0,
        hard: np.ndarray | None = None,
        columns: FrameColumns | None = None,
        speed_change: float = 0.0,
    ):
        self.recordings, self.labels, self.rules, self.trains = recordings, labels, rules, trains
        self.seconds, self.hard, self.columns, self.speed_change = seconds, hard, columns, speed_change
        self.features = datasets.Features(
            {"audio": datasets.Audio(decode=False), "label": label_feature(labels, rules.background is None)}
        )
        places = {label: place for place, label in enumerate(labels)}
        self._starts = [np.array([mark.start for mark in item.marks]) for item in recordings]
        self._ends = [np.array([mark.end for mark in item.marks]) for item in recordings]
        self._labels = [np.array([places[mark.label] for mark in item.marks], np.int64) for item in recordings]
        self._marks = [(number, mark) for number, item in enumerate(recordings) for mark in range(len(item.marks))]

    def of_length(self, seconds: float, speed_change: float = 0.0) -> Self:
        """See [`ClipSet.of_length`]."""
        return self._changed(seconds=seconds, speed_change=speed_change)

    def with_hard_negatives(self, windows: np.ndarray) -> Self:
        """Draw half of the background from some windows.

        Args:
            windows (`np.ndarray` of shape `(windows, 2)`): recording and start in seconds of each.

        Returns:
            The same recordings.
        """
        return self._changed(hard=windows if len(windows) else None)

    def with_frames(self, columns: FrameColumns) -> Self:
        """See [`ClipSet.with_frames`]; windows to score are then all of the grid, and each moment of a recording is scored once.

        Args:
            columns ([`FrameColumns`]): of the model.

        Returns:
            The same recordings.
        """
        return self._changed(columns=columns)

    def _changed(self, **fields) -> Self:
        """The same recordings, for windows of which something is different."""
        own = {"seconds": self.seconds, "hard": self.hard, "columns": self.columns, "speed_change": self.speed_change}
        return type(self)(self.recordings, self.labels, self.rules, self.trains, **own | fields)

    @cached_property
    def free(self) -> np.ndarray:
        """Where windows without any stretch may begin, `(spans, 3)`: recording, first and last start in seconds."""
        spans, seconds = [], self.seconds * (1 + self.speed_change)
        for number, item in enumerate(self.recordings):
            last = max(item.seconds - seconds, 0.0)
            blocked = sorted((mark.start, mark.end) for mark in [*item.marks, *item.unknown])
            begin = 0.0
            for start, end in [*blocked, (item.seconds + seconds, np.inf)]:
                # A start in between holds nothing of the stretch before or of this one.
                upto = (
                    min(start - seconds, last) if item.seconds > seconds else (last if start >= item.seconds else -1)
                )
                if upto >= begin:
                    spans.append((number, begin, upto))
                begin = max(begin, np.nextafter(end, np.inf))
        return np.array(spans, np.float64).reshape(-1, 3)

    @cached_property
    def _free_hard(self) -> np.ndarray:
        """Those of the hard negatives that hold nothing of a stretch at any speed, either."""
        if self.hard is None:
            return np.empty((0, 2))
        spans = self.free[:, None]
        inside = (
            (spans[..., 0] == self.hard[:, 0])
            & (spans[..., 1] <= self.hard[:, 1])
            & (self.hard[:, 1] <= spans[..., 2])
        )
        return self.hard[inside.any(axis=0)]

    @cached_property
    def _grid(self) -> list[Placed]:
        """All windows side by side; for labels of windows without those that hold of a stretch less than counts, and of several
        labels where one is told."""
        found, self.num_unclear = [], 0
        for number, item in enumerate(self.recordings):
            length, window = round(item.seconds * GRID), round(self.seconds * GRID)
            for start in window_starts(length, window, window):
                placed = self.placed(number, start / GRID)
                clear = placed is not None and (self.rules.background is None or len(placed.labels) == 1)
                if clear:
                    found.append(placed)
                self.num_unclear += not clear
        return found

    def scored_windows(self) -> list[Placed]:
        """List the windows that are scored.

        Returns:
            All of them.
        """
        return self._grid

    def background_alone(self) -> Self:
        """Take the windows that hold nothing of any stretch, side by side, to score them.

        Returns:
            These windows.
        """
        alone = copy.copy(self)
        background = () if self.rules.background is None else (self.rules.background,)
        alone.trains, alone.num_unclear, alone.columns = False, 0, None
        alone._grid = [
            Placed(int(number), float(start), background, ())
            for number, first, last in self.free
            for start in np.arange(first, last + 1e-9, self.seconds)
        ]
        return alone

    def placed(self, number: int, start: float, centre: int | None = None) -> Placed | None:
        """Tell what a window holds.

        Args:
            number (`int`): place of its recording.
            start (`float`): in seconds.
            centre (`int`, *optional*): the stretch that it is cut around, whose label is the window's where it can have one alone.

        Returns:
            [`Placed`]; `None` if it holds stretches of which none counts, or one whose label is left out. With frames, which have
            labels each, all stretches count that it holds anything of.
        """
        item = self.recordings[number]
        end = min(start + self.seconds, item.seconds)
        starts, ends, labels = self._starts[number], self._ends[number], self._labels[number]
        near = np.flatnonzero(touching(starts, ends, start, end)) if len(starts) else np.empty(0, np.int64)
        counting = near
        if self.columns is None and len(near):
            counting = near[self.rules.overlap.counts(starts[near], ends[near], start, end)]
        unknown = [mark for mark in item.unknown if mark.start < end and mark.end > start]
        if centre is None and self.columns is None and (len(counting) < len(near) or unknown):
            return None
        found = sorted({int(label) for label in labels[counting]})
        if self.rules.background is not None:
            found = [int(labels[centre])] if centre is not None else found or [self.rules.background]
        stretches = tuple(
            (float(max(starts[one] - start, 0)), float(min(ends[one], end) - start), int(labels[one])) for one in near
        )
        return Placed(number, float(start), tuple(found), stretches)

    def frame_targets(self, placed: Placed, start: float, frames: int) -> np.ndarray:
        """Tell the labels of each frame of a window.

        Args:
            placed ([`Placed`]): the window.
            start (`float`): where it begins as it is heard, which is at a whole sample, in seconds.
            frames (`int`): of 10 ms that are heard of it.

        Returns:
            `np.ndarray` of shape `(columns, labels)`, float32: 1 where a column has a label, else 0; -100, which counts nothing,
            where a stretch lies whose label is left out, and in scored windows where the one before tells already.
        """
        number, edges = placed.recording, self.columns.edges(frames)
        starts, ends = self._starts[number] - start, self._ends[number] - start
        near = np.flatnonzero((starts < edges[-1]) & (ends >= 0))
        # Whole stretches, not what the window holds of them: a splinter at its edge is no short sound.
        lasts = np.maximum(ends, starts + PLACE_SECONDS)
        stretches = [(starts[one], lasts[one], self._labels[number][one]) for one in near]
        targets = self.columns.targets(stretches, len(self.labels), frames)
        for mark in self.recordings[number].unknown:
            targets[(mark.start - start < edges[1:]) & (mark.end - start > edges[:-1])] = NOT_SCORED
        if not self.trains:
            # The last window ends with the recording, so that it may begin within the one before.
            window, begin = round(self.seconds * GRID), round(placed.start * GRID)
            again = (edges[:-1] + edges[1:]) / 2 < -begin % window / GRID
            again[-1] = False
            targets[again] = NOT_SCORED
        return targets

    @property
    def num_stretches(self) -> int:
        """Stretches of all recordings."""
        return len(self._marks)

    @property
    def num_background(self) -> int:
        """Background windows of an epoch of training."""
        share = self.rules.background_share
        if not len(self.free):
            return 0
        share = 0.5 if share is None else share
        return round(self.num_stretches * share / (1 - share))

    def __len__(self) -> int:
        return self.num_stretches + self.num_background if self.trains else len(self._grid)

    def window(self, index: int, seed: int = 0, epoch: int = 0, visit: int = 0) -> Placed:
        """Place the window of an item.

        Args:
            index (`int`): of the item: stretches come first, then background.
            seed (`int`, defaults to 0): of all draws.
            epoch (`int`, defaults to 0): of a training.
            visit (`int`, defaults to 0): how often the item came before in this epoch.

        Returns:
            [`Placed`].
        """
        if not self.trains:
            return self._grid[index]
        generator = np.random.default_rng((MARK_STREAM, seed, epoch, index, *((visit,) if visit else ())))
        if index < self.num_stretches:
            number, mark = self._marks[index]
            return self.placed(number, self._start_around(number, mark, generator), mark)
        if len(self._free_hard) and generator.random() < HARD_SHARE:
            number, start = self._free_hard[int(generator.integers(len(self._free_hard)))]
        else:
            sizes = self.free[:, 2] - self.free[:, 1] + 1e-3  # a span of one place can be drawn, too
            span = int(np.searchsorted(np.cumsum(sizes), generator.random() * sizes.sum(), side="right"))
            number, first, last = self.free[min(span, len(self.free) - 1)]
            start = first + generator.random() * (last - first)
        background = () if self.rules.background is None else (self.rules.background,)
        return Placed(int(number), float(start), background, ())

    def _start_around(self, number: int, mark: int, generator: np.random.Generator) -> float:
        """Draw where a window begins in which a stretch counts."""
        start, end = self._starts[number][mark], self._ends[number][mark]
        seconds = self.seconds * (1 - self.speed_change)  # heard in any case
        last = max(self.recordings[number].seconds - self.seconds, 0.0)
        needed = float(
            self.rules.overlap.needed(np.array([end - start]), min(seconds, self.recordings[number].seconds))[0]
        )
        # From where its end is long enough in the window to where its beginning still is.
        lowest, highest = start + needed - seconds, end - needed
        lowest, highest = min(max(lowest, 0.0), last), min(max(highest, 0.0), last)
        return float(lowest + generator.random() * max(highest - lowest, 0.0))

    def _item_labels(self, index: int) -> list[int]:
        if not self.trains:
            return list(self._grid[index].labels)
        if index < self.num_stretches:
            number, mark = self._marks[index]
            return [int(self._labels[number][mark])]
        return [] if self.rules.background is None else [self.rules.background]

    def label_lists(self) -> list[list[int]]:
        """See [`ClipSet.label_lists`]; of a training window the label of the stretch that it is cut around.

        Returns:
            Label indices of each window.
        """
        return [self._item_labels(index) for index in range(len(self))]

    def label_counts(self) -> np.ndarray:
        """See [`ClipSet.label_counts`]."""
        return count_labels(self.label_lists(), len(self.labels))

    def label_sets(self) -> set[tuple[int, ...]]:
        """See [`ClipSet.label_sets`]."""
        return {tuple(labels) for labels in self.label_lists()}

    def name(self, index: int) -> str:
        """See [`ClipSet.name`].

        Args:
            index (`int`): place of the window, as in the first epoch.

        Returns:
            Its recording, and where it begins.
        """
        placed = self.window(index)
        return f"{self.recordings[placed.recording].name}, from {placed.start:.2f} s"

    def digest(self) -> str:
        """See [`ClipSet.digest`]: names, sizes and marks of the recordings, and how windows are cut."""
        digest = hashlib.sha256(f"{self.rules} {self.seconds} {self.trains}".encode())
        for item in self.recordings:
            digest.update(item.digest())
        # Which windows are hard negatives is found anew; on another machine a score may fall on the other side of a threshold.
        digest.update(b"hard" if self.hard is not None else b"")
        if self.columns is not None:
            digest.update(str(self.columns).encode())
        return digest.hexdigest()

    def without(self, left_out: Mapping[int, list[int]]) -> Self:
        """See [`ClipSet.without`]; windows are not left out one by one.

        Args:
            left_out (`Mapping[int, list[int]]`): none.

        Returns:
            These.
        """
        return self

    def described(self) -> dict:
        """See [`ClipSet.described`]: recordings, their seconds and stretches besides."""
        seconds = round(sum(item.seconds for item in self.recordings), 3)
        counts = {"recordings": len(self.recordings), "seconds": seconds, "stretches": self.num_stretches}
        return super().described() | counts

    def dataset(
        self,
        feature_extractor: ASTFeatureExtractor,
        augmentation: Augmentation | None = None,
        seed: int = 0,
        *,
        binary_targets: bool = False,
        reader: AudioReader | None = None,
    ) -> "MarkedWindows":
        """See [`ClipSet.dataset`].

        Returns:
            [`MarkedWindows`].
        """
        reader = feature_extractor.audio_reader() if reader is None else reader
        needed = feature_extractor.max_samples
        change = 0.0 if augmentation is None else augmentation.samples_needed(needed) / needed - 1
        windows = self.of_length(feature_extractor.max_samples / feature_extractor.sampling_rate, change)
        return MarkedWindows(
            windows, reader, feature_extractor.max_samples, augmentation, seed, binary_targets=binary_targets
        )

    @classmethod
    def check(cls, splits: dict[str, Self], checks: Checks) -> Checked:
        """See [`ClipSet.check`]: labels, recordings in two splits, and some windows are decoded, with `check_audio` all of every
        recording.

        Args:
            splits (`dict[str, MarkedClips]`): of the run, by side.
            checks ([`Checks`]): what is looked at, and how.

        Returns:
            [`Checked`].

        Raises:
            DataError: for a label that cannot be learned, a recording in two splits, and what cannot be decoded.
        """
        rate = checks.feature_extractor.sampling_rate
        splits = {side: split.of_length(checks.max_samples / rate) for side, split in splits.items()}
        _refuse_shared(splits)
        train = splits["train"]
        if train.rules.background_share and not len(train.free):
            raise DataError(
                f"background_share={train.rules.background_share:g} was given, but no window of {train.seconds:.2f} s of the training "
                "recordings is without a stretch. Add recordings with background, or pass --background_share 0."
            )
        for side, split in splits.items():
            if not len(split):
                raise DataError(
                    f"No window of the {SPLIT_WORDS[side]} recordings can be used. Give the split other recordings, or pass a smaller "
                    "--mark_overlap."
                )
        notes = [
            f"windows of {train.seconds:.2f} s: {train.num_stretches} around marked stretches and {train.num_background} of background in "
            "every epoch"
        ]
        unclear = sum(split.num_unclear for split in splits.values() if not split.trains)
        if unclear:
            notes.append(f"{unclear} windows to score hold of a stretch too little to count, and have no part")
        notes += check_labels(splits)
        if checks.data.check_audio and not checks.files_known:
            notes += _look_at_recordings(splits, checks)
        elif not checks.files_known:
            _look_at_windows(splits, checks)
        return Checked(splits, notes)


def _refuse_shared(splits: dict[str, MarkedClips]):
    """Refuse recordings that are in two splits byte for byte, whatever they are called there and what is marked in them."""
    items = [(side, item) for side, split in splits.items() for item in split.recordings]
    shared = same_in_several([item.audio for _, item in items], [side for side, _ in items])
    if shared:
        words = []
        for places in shared:
            first = items[places[0]]
            other = next(items[place] for place in places if items[place][0] != first[0])
            words.append(f"{first[1].name} ({SPLIT_WORDS[first[0]]}) = {other[1].name} ({SPLIT_WORDS[other[0]]})")
        raise DataError(
            f"{len(shared)} recording(s) are in two splits, byte for byte: {names_in_short(words)}. The score would be too good. Remove "
            "them, with their marks, from one of the two."
        )


def _look_at_recordings(splits: dict[str, MarkedClips], checks: Checks) -> list[str]:
    """Decode all of every recording; refuse those that cannot be heard, and tell what is to be said of others. With `strict_audio`
    each window is heard by itself, too, as a part of a recording may be worse than all of it."""
    items = [(side, place, item) for side, split in splits.items() for place, item in enumerate(split.recordings)]
    rows = ((number, {"audio": item.audio}) for number, (_, _, item) in enumerate(items))
    decoded = decoded_rows(rows, len(items), checks.reader, WHOLE, checks.num_workers, "Checking recordings")
    clips = [clip for clip, _ in decoded]
    faults = [clip.fault for clip in clips if clip.fault is not None]
    if not faults and checks.data.strict_audio:
        for split in splits.values():
            windows = split.dataset(checks.feature_extractor, reader=checks.reader)
            faults += _faults_of(windows, _side_by_side(split))
    if faults:
        raise DataError(
            f"{len(faults)} of {len(items)} recordings cannot be used:{listed(faults)}\n{_advice(checks.data)}"
        )
    odd = []
    for clip in clips:
        if clip.notes:
            side, place, item = items[clip.row]
            odd.append(NotedClip(side, place, item.audio["path"], clip.notes))
    return [f"all of {len(items)} recordings was decoded", *notes_on_clips(odd, len(items), checks.noted)]


def _side_by_side(split: MarkedClips) -> Iterator[Placed]:
    """Windows over all of every recording, whatever they hold."""
    for number, item in enumerate(split.recordings):
        length, window = round(item.seconds * GRID), round(split.seconds * GRID)
        for start in window_starts(length, window, window):
            yield Placed(number, start / GRID, (0,), ())


def _faults_of(windows: "MarkedWindows", places: Iterable[Placed]) -> list[str]:
    faults = []
    for placed in places:
        try:
            windows.hear(placed)
        except AudioError as error:
            faults.append(str(error))
    return faults


def _advice(data: DataArguments) -> str:
    """What helps where a recording cannot be heard; to leave out clips does not, as there are none."""
    strict = ", or leave out --strict_audio, by which what is heard less of is refused" if data.strict_audio else ""
    every = "" if data.check_audio else " --check_audio looks at all of every recording before a training."
    return f"Mend the recordings, or remove them together with their marks{strict}.{every}"


def _look_at_windows(splits: dict[str, MarkedClips], checks: Checks):
    """Decode some windows; refuse those that cannot be."""
    places = [(side, place) for side, split in splits.items() for place in range(len(split))]
    chosen = np.random.default_rng(0).permutation(len(places))[:WINDOWS_CHECKED].tolist()
    datasets_of = {
        side: split.dataset(checks.feature_extractor, reader=checks.reader) for side, split in splits.items()
    }
    faults = []
    for side, place in (places[number] for number in chosen):
        faults += _faults_of(datasets_of[side], [splits[side].window(place)])
    if faults:
        raise DataError(
            f"{len(faults)} of {len(chosen)} windows looked at cannot be used:{listed(faults)}\n{_advice(checks.data)}"
        )


class MarkedWindows(ClipDataset):
    """Windows of recordings with their labels; see [`ClipDataset`].

    An item's `"stretches"` are start, end and label of all that its window holds anything of, in seconds from its start, before
    an augmentation changes the speed.

    Args:
        split ([`MarkedClips`]): the recordings.
        reader ([`AudioReader`]): how they are heard.
        *args: see [`ClipDataset`].
        **kwargs: see [`ClipDataset`].
    """

    def __init__(self, split: MarkedClips, reader: AudioReader, *args, **kwargs):
        super().__init__(split, reader, *args, **kwargs)
        self.excerpts = ExcerptReader(reader)

    def __getitem__(self, key: int | tuple[int, int] | tuple[int, int, int]) -> dict:
        epoch, index, *visit = key if isinstance(key, tuple) else (None, key)
        return super().__getitem__(key) | {"stretches": list(self.heard_as(index, epoch, *visit).stretches)}

    def heard_as(self, index: int, epoch: int | None = None, visit: int = 0) -> Placed:
        """See [`ClipDataset.heard_as`].

        Args:
            index (`int`): place of the window.
            epoch (`int`, *optional*): by which it is drawn; the first if not given.
            visit (`int`, defaults to 0): how often it came before in this epoch.

        Returns:
            [`Placed`].
        """
        return self.split.window(index, self.seed, epoch or 0, visit)

    def decode(self, clip: Placed) -> tuple[Heard, int | list[int] | np.ndarray]:
        """See [`ClipDataset.decode`]; with frames, the label is an array of shape `(columns, labels)`."""
        heard, start = self.hear(clip), round(clip.start * self.sampling_rate)
        self.said.log(heard.notes)
        if self.split.columns is not None:
            frames = num_frames(min(len(heard.waveform), self.max_samples), self.sampling_rate)
            return heard, self.split.frame_targets(clip, start / self.sampling_rate, frames)
        return heard, list(clip.labels) if self.split.rules.background is None else clip.labels[0]

    def hear(self, clip: Placed) -> Heard:
        """Hear a window.

        Args:
            clip ([`Placed`]): the window.

        Returns:
            [`Heard`].

        Raises:
            AudioError: if it cannot be heard; the message names the recording and where the window lies in it.
        """
        item = self.split.recordings[clip.recording]
        try:
            with one_thread():
                start = round(clip.start * self.sampling_rate)
                heard = self.excerpts.hear(item.audio, start, self.samples_needed, item.name)
            if len(heard.waveform) < frame_length(self.sampling_rate):
                raise AudioError(f"{item.name} has no whole frame there. Remove it, or what is marked there.")
        except MissingAudioError:
            raise
        except AudioError as error:
            end = min(clip.start + self.split.seconds, item.seconds)
            raise AudioError(
                f"{item.name}, window from {clip.start:.2f} to {end:.2f} s: {error} Or remove the recording and its marks."
            ) from error
        return heard

    def name(self, index: int) -> str:
        """See [`ClipDataset.name`]."""
        return self.split.name(index)

    def label_counts(self) -> np.ndarray:
        """See [`ClipDataset.label_counts`]."""
        return self.split.label_counts()

    def label_lists(self) -> list[list[int]]:
        """Tell the labels of every window; see [`MarkedClips.label_lists`].

        Returns:
            Label indices of each.
        """
        return self.split.label_lists()

    def lengths(self) -> np.ndarray:
        """See [`ClipDataset.lengths`]."""
        recordings = self.split.recordings
        found = [recordings[self.split.window(index).recording].seconds for index in range(len(self))]
        return np.minimum(found, self.split.seconds)


def marked_clip_sets(found: MarkedData, data: DataArguments) -> dict[str, MarkedClips]:
    """Make data sets of windows of marked recordings.

    Args:
        found ([`MarkedData`]): the recordings by side.
        data ([`DataArguments`]): how windows are cut.

    Returns:
        By side, windows that are drawn for training, and all for what is scored.
    """
    background = found.labels.index(data.background_label) if data.background_label else None
    rules = WindowRules(parse_overlap(data.mark_overlap), data.background_share, background)
    return {side: MarkedClips(items, found.labels, rules, side == "train") for side, items in found.sides.items()}

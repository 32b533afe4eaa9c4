"""The clips of a split as a data set to train on.

[`ClipSet`](finetune.clip_sets.clip_set.ClipSet) is what is known of a split before, and makes one of these.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import ClassVar

import datasets
import fsspec
import numpy as np
import torch
from fsspec.implementations.local import LocalFileSystem
from torch.utils.data import Dataset

from modeling_ast import ASTFeatureExtractor
from modeling_ast.audio import AudioError, AudioReader, Heard, audio_duration
from modeling_ast.features.kaldi import FRAME_LENGTH_MS, frame_length, num_frames, num_samples
from modeling_ast.features.log_mel import is_alike_in_any_batch
from modeling_ast.system.regular_files import SpecialFileError, refuse_special

from ..augmentations.augmentation import Augmentation, Draws
from ..augmentations.augmentation_step import TrainingClip
from ..sources.columns import column_values
from ..sources.labels import (
    SHARES_COLUMN,
    Labelled,
    count_labels,
    has_soft_labels,
    is_multi_label,
    label_lists,
    label_names,
    label_of,
)
from .clip_memory import VALUE, ClipMemory
from .clip_notes import NotesSaid

WHOLE = 1 << 48  # samples, where all of a clip is wanted


@contextmanager
def one_thread():
    """Have PyTorch compute with one thread, as it does in a loader's workers.

    With several, its convolutions sum in another order: a clip that is resampled in the main process would differ in its
    last bits from the same clip in a worker, and a training from one with another number of workers.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def hear_clip(audio: dict, reader: AudioReader, max_samples: int | None = None) -> Heard:
    """Decode one value of an undecoded audio column, and refuse what is too short for a single frame.

    Args:
        audio (`dict`): `{"bytes": ..., "path": ...}`.
        reader ([`AudioReader`]): how it is heard.
        max_samples (`int`, *optional*): how many samples are of interest; see [`AudioReader.hear`]. There may be more.

    Returns:
        `Heard`: the waveform of shape `(samples,)`, float32, and what is to be said of it.

    Raises:
        AudioError: if it cannot be decoded, is empty or too short, holds NaN, or is refused.
    """
    with one_thread():
        heard = reader.hear(audio, clip_name(audio), None if max_samples == WHOLE else max_samples)
    refuse_too_short(audio, len(heard.waveform), reader)
    return heard


def refuse_too_short(audio: dict, length: int, reader: AudioReader):
    """Refuse a clip that is too short for a single frame.

    Args:
        audio (`dict`): see [`hear_clip`].
        length (`int`): its samples.
        reader ([`AudioReader`]): how it is heard.

    Raises:
        AudioError: if it is.
    """
    rate = reader.sampling_rate
    if length < frame_length(rate):
        raise AudioError(
            f"{clip_name(audio)} lasts {1000 * length / rate:.0f} ms, a frame needs {FRAME_LENGTH_MS} ms. Remove it or pad it "
            "with silence."
        )


def fetched(audio: dict) -> dict:
    """Fetch the content of a file that lies elsewhere, such as hf://datasets/...

    Args:
        audio (`dict`): `{"bytes": ..., "path": ...}`.

    Returns:
        The same with the bytes of the file; audio of this machine as it is.

    Raises:
        AudioError: if there is no such file, or it cannot be had.
    """
    path = audio["path"]
    if audio["bytes"] is not None or path is None or "://" not in path:
        return audio
    try:
        remote = fsspec.open(path, "rb")
        if isinstance(remote.fs, LocalFileSystem):  # file://
            refuse_special(remote.path)
        with remote as file:
            return {"bytes": file.read(), "path": path}
    except FileNotFoundError as error:
        raise AudioError(f"There is no file {path}. Put it there.") from error
    except SpecialFileError as error:
        raise AudioError(str(error)) from None
    except Exception as error:  # each of fsspec's file systems has errors of its own
        raise AudioError(f"{path} cannot be read: {error}. Check the connection.") from error


class ClipDataset(Dataset, ABC):
    """Clips with their targets.

    A training item is asked for by (epoch, index), which also seeds its augmentation, or by (epoch, index, visit) where
    a clip may come several times in an epoch; a clip as it is, by its index. A subclass says how a clip is decoded, what it
    is called and how many have each label; one whose clips are not at hand has keys of its own.

    What is to be said of a file is logged when it is first read, and is under `"notes"` of an item that is not augmented. An
    item's `"label"` is an index, or a float32 vector of shape `(labels,)`: multi-hot for multi-label data, the shares of
    soft labels, one-hot with `binary_targets`, mixed in training with mixup.

    Args:
        split (`datasets.Dataset` or [`ClipSet`]): the clips, as the subclass takes them; its `features` tell the type of
            `"label"`, a `ClassLabel` or a `List` of it.
        reader ([`AudioReader`]): how their files are heard.
        max_samples (`int`): samples after which a clip is cut; the model does not hear the rest.
        augmentation ([`Augmentation`], *optional*): what to draw for items asked for with an epoch.
        seed (`int`, defaults to 0): seed of these draws.
        binary_targets (`bool`, defaults to `False`): vectors for single-label clips too, as binary cross-entropy takes
            them.

    Attributes:
        at_hand (`bool`): whether each clip can be asked for by its place in the split, so that they can be visited in any
            order.
        hears_audio (`bool`): whether its clips are audio, and not finished features.
        keeps_clips (`bool`): whether what it decodes can stay in memory for later epochs; see [`ASTDataset.keep_in_memory`].
        clip_of_item (`np.ndarray` of shape `(items,)`, *optional*): the place of the clip of each item, where a clip may have
            several, whose scores are put together; else each item is a clip.
        reduction (`str`): what puts them together: their `"mean"` or `"max"`.
    """

    at_hand: ClassVar[bool] = True
    hears_audio: ClassVar[bool] = True
    keeps_clips: ClassVar[bool] = False
    clip_of_item: np.ndarray | None = None
    reduction: str = "mean"

    def __init__(
        self,
        split: Labelled,
        reader: AudioReader,
        max_samples: int,
        augmentation: Augmentation | None = None,
        seed: int = 0,
        *,
        binary_targets: bool = False,
    ):
        self.split = split
        self.reader = reader
        self.said = NotesSaid()
        self.max_samples = max_samples
        self.augmentation = augmentation
        self.seed = seed
        self.samples_needed = augmentation.samples_needed(max_samples) if augmentation else max_samples
        self.num_labels = len(label_names(split))
        self.vector_targets = binary_targets or is_multi_label(split)

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, key: int | tuple[int, int] | tuple[int, int, int]) -> dict:
        epoch, index, *visit = key if isinstance(key, tuple) else (None, key)
        clip = self.heard_as(index, epoch, *visit)
        if self.augmentation is None or epoch is None:
            return self._plain(clip)
        draws = self.augmentation.draw(self.seed, epoch, index, len(self), *visit)
        partners = {name: self.heard_as(place, epoch, *visit) for name, place in draws.partners.items()}
        return self._augmented(clip, draws, partners)

    def heard_as(self, index: int, epoch: int | None = None, visit: int = 0):
        """Tell as what [`ClipDataset.decode`] takes a clip, of which another part may be heard in every epoch.

        Args:
            index (`int`): place of the clip.
            epoch (`int`, *optional*): of a training; without it the clip is heard as it is.
            visit (`int`, defaults to 0): how often it came before in this epoch.

        Returns:
            The place, or what else the subclass asks for clips by.
        """
        return index

    @property
    def num_clips(self) -> int:
        """How many clips there are, of which some may have several items."""
        return len(self) if self.clip_of_item is None else len(self.split)

    def has_windows(self) -> bool:
        """Tell whether something else than its beginning is heard of a clip.

        Returns:
            `True` if a clip lasts longer than the model hears, and windows of it are heard.
        """
        return self.clip_of_item is not None

    @property
    def sampling_rate(self) -> int:
        """Of the waveforms, in Hz."""
        return self.reader.sampling_rate

    @abstractmethod
    def decode(self, clip) -> tuple[Heard, int | list[int] | np.ndarray]:
        """Decode a clip.

        Args:
            clip: its place, or what else the subclass asks for clips by.

        Returns:
            `Heard`: its waveform, up to `samples_needed` samples or more, and what is to be said of it; and its label.
        """

    def _hear(self, audio: dict) -> Heard:
        heard = hear_clip(audio, self.reader, self.samples_needed)
        self.said.log(heard.notes)
        return heard

    @abstractmethod
    def name(self, index: int) -> str:
        """Tell what to call a clip in a message.

        Args:
            index (`int`): place of the clip in the split.

        Returns:
            Its file, or what else the user knows it by.
        """

    def name_of_clip(self, clip: int) -> str:
        """Tell what to call a clip as a whole, whatever number of its windows are items.

        Args:
            clip (`int`): its place among the [`num_clips`] clips.

        Returns:
            Its file, or what else the user knows it by.
        """
        return self.name(clip)

    @abstractmethod
    def label_counts(self) -> np.ndarray:
        """Count the clips of each label, without decoding audio; with soft labels, those in which it counts.

        Returns:
            `np.ndarray` of shape `(labels,)`, int64.
        """

    def lengths(self) -> np.ndarray | None:
        """Tell how long the clips are as the model hears them, without decoding them.

        Returns:
            `np.ndarray` of shape `(clips,)`, seconds; `None` where only decoding would tell.
        """
        return None

    def heard_lengths(self, lengths: np.ndarray, keys: list[tuple[int, int, int]]) -> np.ndarray:
        """Tell how long clips are in a training that hears padding or puts quiet around them, from how long they are.

        Args:
            lengths (`np.ndarray` of shape `(visits,)`): of the clips, in seconds.
            keys (`list[tuple[int, int, int]]`): epoch, index and visit of each.

        Returns:
            `np.ndarray` of shape `(visits,)`, seconds; `lengths` where neither is so.
        """
        if self.augmentation is None or not self.augmentation.tells_lengths:
            return lengths
        rate = self.sampling_rate
        samples = np.round(lengths * rate).astype(np.int64)
        frames = self.augmentation.frames_of_visits(
            self.seed, keys, len(self), samples, num_frames(self.max_samples, rate), rate
        )
        return num_samples(frames, rate) / rate

    def sample(self, count: int, seed: int) -> Iterator[np.ndarray]:
        """Read clips without labels or augmentation, as [`measure_normalization`] takes them.

        Args:
            count (`int`): how many; 0 for all.
            seed (`int`): seed of the draw.

        Returns:
            Clips drawn at random, in their order, each a waveform of shape `(samples,)` or features of shape
            `(frames, mel bins)`, float32.
        """
        return (self.clip(index) for index in self.sampled_places(count, seed))

    def sampled_places(self, count: int, seed: int) -> list[int]:
        """Draw the clips of [`ClipDataset.sample`].

        Args:
            count (`int`): how many; 0 for all.
            seed (`int`): seed of the draw.

        Returns:
            `list[int]`: their places, ascending.
        """
        return sorted(self._drawn(count, seed))

    def clip(self, index: int) -> np.ndarray:
        """Read a clip without its label or augmentation.

        Args:
            index (`int`): place of the clip.

        Returns:
            `np.ndarray`: see [`ClipDataset.sample`].
        """
        return self._read(self.heard_as(index))[0]

    def _drawn(self, count: int, seed: int) -> list[int]:
        """Places of clips drawn at random; of all for a `count` of 0."""
        return np.random.default_rng(seed).permutation(len(self))[: count or None].tolist()

    def first_keys(self, count: int) -> Sequence:
        """Tell what to ask for to get the first clips of the split as they are.

        Args:
            count (`int`): how many.

        Returns:
            A key for each of them: its place.
        """
        return range(min(count, len(self)))

    def keys_of_first_epoch(self, count: int, seed: int) -> list[tuple]:
        """Tell what to ask for to get some clips, each as it is and as the first epoch has it.

        Args:
            count (`int`): how many.
            seed (`int`): seed of the draw.

        Returns:
            Pairs of keys: of clips drawn at random, the place of each, and (0, place).
        """
        return [(index, (0, index)) for index in self._drawn(count, seed)]

    def replay(self, draws: Iterable[tuple[int, int, int]]) -> Iterator[tuple[object, list, list[str]]]:
        """Find augmented items of a training again, to look for the clip that it stopped at.

        Args:
            draws (iterable of `tuple[int, int, int]`): epoch, index and visit of each item.

        Yields:
            The key to ask for to get the item again; its clip and those of its partners, if it has any, as
            [`ClipDataset.waveforms`] takes them; and their names.
        """
        for key in draws:
            epoch, index, visit = key
            draws = self.augmentation.draw(self.seed, epoch, index, len(self), visit)
            places = [index, *draws.partners.values()]
            clips = [self.heard_as(place, epoch, visit) for place in places]
            yield key, clips, [self.name(place) for place in places]

    def _plain(self, clip) -> dict:
        heard, label = self.decode(clip)
        item = {"waveform": heard.waveform[: self.max_samples]}
        item["label"] = self._vector(label) if self.vector_targets else label
        return item | ({"notes": heard.notes} if heard.notes else {})

    @one_thread()
    def _augmented(self, clip, draws: Draws, partners: dict) -> dict:
        """An item; the clip and its partners, by the augmentations that want them, are what `decode` takes."""
        heard, label = self.decode(clip)
        # Cut before as well as after: of a clip from the cache no more is there, and nothing else may come of it.
        training_clip = TrainingClip(heard.waveform[: self.samples_needed], label, self.sampling_rate)
        waveform, label, rate = self.augmentation.change_heard(training_clip, draws)
        # A clip of little more than one frame must not become shorter than that.
        missing = frame_length(rate) - len(waveform)
        waveform = np.pad(waveform, (0, missing)) if missing > 0 else waveform
        if self.augmentation.label_mixing_strengths or self.vector_targets:
            label = self._vector(label)
        training_clip = TrainingClip(waveform[: self.max_samples], label, rate)
        others = {name: self._partner(partner) for name, partner in partners.items()}
        training_clip = self.augmentation.change_waveform(training_clip, draws, others)
        return {"waveform": training_clip.waveform, "label": training_clip.label, "draws": draws}

    def _partner(self, clip) -> TrainingClip:
        waveform, label = self._read(clip)
        return TrainingClip(waveform, self._vector(label), self.sampling_rate)

    def _read(self, clip) -> tuple[np.ndarray, int | list[int] | np.ndarray]:
        heard, label = self.decode(clip)
        return heard.waveform[: self.max_samples], label

    def _vector(self, label: int | list[int] | np.ndarray) -> np.ndarray:
        if isinstance(label, np.ndarray):
            return label
        vector = np.zeros(self.num_labels, dtype=np.float32)
        vector[label] = 1
        return vector

    def waveforms(self, clips: Iterable) -> Iterator[np.ndarray]:
        """Decode clips one after the other, without labels or augmentation.

        Args:
            clips (iterable): what this data set decodes: places of clips or, of a stream, their rows.

        Returns:
            Waveforms of shape `(samples,)`, float32.
        """
        return (self._read(clip)[0] for clip in clips)


class UsableWaveforms:
    """Waveforms of a split by their places; in place of a clip that cannot be used the next one that can.

    Args:
        split (`datasets.Dataset`): with the undecoded column `"audio"`.
        reader ([`AudioReader`]): how their files are heard.
        max_samples (`int`): how many of a clip are of interest; see [`hear_clip`].
    """

    def __init__(self, split: datasets.Dataset, reader: AudioReader, max_samples: int):
        self.split, self.reader, self.max_samples = split, reader, max_samples

    def __getitem__(self, index: int) -> np.ndarray:
        for place in range(len(self.split)):
            audio = self.split[(index + place) % len(self.split)]["audio"]
            try:
                return hear_clip(audio, self.reader, self.max_samples).waveform
            except AudioError as error:
                last = error
        raise last

    def length(self, index: int) -> int:
        """Tell how long the waveform of a clip is.

        Args:
            index (`int`): place of the clip.

        Returns:
            Samples.
        """
        return len(self[index])

    def piece(self, index: int, start: int, samples: int) -> np.ndarray:
        """Take a part of the waveform of a clip, or one that lasts as long where not so much of it is decoded.

        Args:
            index (`int`): place of the clip.
            start (`int`): first sample.
            samples (`int`): how many at most.

        Returns:
            `np.ndarray` of shape `(samples,)`.
        """
        waveform = self[index]
        start = max(min(start, len(waveform) - samples), 0)
        return waveform[start : start + samples]


class ASTDataset(ClipDataset):
    """Decoded clips of a split, with their targets.

    Args:
        split (`datasets.Dataset`): with the columns `"audio"` (undecoded) and `"label"` (`ClassLabel`, or `List` of it).
        *args: as of [`ClipDataset`].
        **kwargs: likewise.
    """

    keeps_clips: ClassVar[bool] = True
    cached: Sequence[np.ndarray] | None = None
    memory: ClipMemory | None = None
    features_by: ASTFeatureExtractor | None = None

    def __getitem__(self, key: int | tuple[int, int] | tuple[int, int, int]) -> dict:
        if self.features_by is None:
            return super().__getitem__(key)
        epoch, index, *visit = key if isinstance(key, tuple) else (None, key)
        return self._item_of_features(key, self._features_of(self.heard_as(index, epoch, *visit)))

    def _item_of_features(self, key: int | tuple, features: np.ndarray) -> dict:
        """An item that holds features in place of a waveform, and the draws of what is done to them."""
        epoch, index, *visit = key if isinstance(key, tuple) else (None, key)
        label = self._label(index)
        item = {"features": features, "label": self._vector(label) if self.vector_targets else label}
        if self.augmentation is None or epoch is None:
            return item
        return item | {"draws": self.augmentation.draw(self.seed, epoch, index, len(self), *visit)}

    @cached_property
    def labels_alone(self) -> datasets.Dataset:
        """Rows without the bytes of their audio."""
        columns = ["label", SHARES_COLUMN] if has_soft_labels(self.split) else ["label"]
        return self.split.select_columns(columns)

    def read_from(self, cached: Sequence[np.ndarray]):
        """Take the clips from decoded ones instead of their files.

        Args:
            cached (sequence of `np.ndarray` of shape `(samples,)`): for each clip its first [`samples_needed`] samples or
                more, at the sampling rate of this data set; see [`WaveformCache`].
        """
        self.cached = cached

    def keep_in_memory(self, num_bytes: int, features_by: ASTFeatureExtractor | None = None):
        """Keep what is decoded from now on for later epochs, as much as there is room for.

        Args:
            num_bytes (`int`): the room.
            features_by ([`ASTFeatureExtractor`], *optional*): that of the model, to keep features instead of waveforms where
                [`ASTDataset.has_lasting_features`]; items then hold them, not normalised. Its padding does not matter.
        """
        self.features_by = features_by
        if features_by is not None or self.cached is None:  # a cache of waveforms is as good as memory
            self.memory = ClipMemory(len(self), num_bytes)

    def has_lasting_features(self) -> bool:
        """Tell whether a clip has the same features in every epoch and batch, before masks and their like.

        Returns:
            `True` if no augmentation changes waveforms, and this machine computes each frame by itself.
        """
        steps = self.augmentation.active if self.augmentation else ()
        return is_alike_in_any_batch() and not any(step.needs_waveforms for step in steps)

    def bytes_to_keep(self, features_by: ASTFeatureExtractor | None = None) -> int:
        """Tell how much room all clips take at most.

        Args:
            features_by ([`ASTFeatureExtractor`], *optional*): as of [`ASTDataset.keep_in_memory`].

        Returns:
            `int`: bytes.
        """
        if features_by is not None:
            values = features_by.max_length * features_by.num_mel_bins
        else:
            values = self.samples_needed if self.cached is None else 0
        return len(self) * values * VALUE.itemsize

    def decode(self, clip: int) -> tuple[Heard, int | list[int] | np.ndarray]:
        """See [`ClipDataset.decode`]: the clip is decoded, or taken from the cache or from memory."""
        if self.cached is not None:
            return Heard(self.cached[clip]), self._label(clip)
        if self.memory is None or self.features_by is not None:
            row = self.split[clip]
            return self._hear(row["audio"]), label_of(row)
        heard = self.memory.heard(clip)
        if heard is None:
            heard = self._hear(self.split[clip]["audio"])
            self.memory.keep_heard(clip, heard, self.samples_needed)
        return heard, self._label(clip)

    def _label(self, clip: int) -> int | list[int] | np.ndarray:
        return label_of(self.labels_alone[clip]) if self._indices is None else int(self._indices[clip])

    @cached_property
    def _indices(self) -> np.ndarray | None:
        """The label of each clip where these are exclusive: reading them of a table takes longer than all else of a clip."""
        exclusive = isinstance(self.split.features["label"], datasets.ClassLabel) and not has_soft_labels(self.split)
        return np.array(column_values(self.split, "label")) if exclusive else None

    def clip(self, index: int) -> np.ndarray:
        """See [`ClipDataset.clip`]: features where these are kept.

        Args:
            index (`int`): place of the clip.

        Returns:
            `np.ndarray`: see [`ClipDataset.sample`].
        """
        return super().clip(index) if self.features_by is None else self._features_of(self.heard_as(index))

    def _features_of(self, clip: int) -> np.ndarray:
        """Features of shape `(frames, mel bins)`, not normalised, from memory if they are there."""
        features = self.memory.get(clip)
        if features is None:
            features = self._computed_features(clip)
            self.memory.keep(clip, features)
        return features

    def _computed_features(self, clip) -> np.ndarray:
        waveform = torch.from_numpy(np.ascontiguousarray(self._read(clip)[0]))[None]
        extractor = self.features_by
        lengths = torch.tensor([waveform.shape[1]])
        features, frames = extractor.log_mel(waveform, lengths, extractor.max_length)
        return features[0, : frames[0]].numpy()

    def label_lists(self) -> list[list[int]]:
        """Tell the labels of every clip, without decoding audio; with soft labels, those that count.

        Returns:
            Label indices of each clip; of single-label data one each.
        """
        return label_lists(self.split)

    def label_counts(self) -> np.ndarray:
        """See [`ClipDataset.label_counts`].

        Returns:
            `np.ndarray` of shape `(labels,)`, int64.
        """
        return count_labels(self.label_lists(), self.num_labels)

    def lengths(self) -> np.ndarray:
        """See [`ClipDataset.lengths`]; told from the files' headers.

        Returns:
            `np.ndarray` of shape `(clips,)`, seconds.
        """
        durations = np.array([audio_duration(row["audio"]) for row in self.split.select_columns("audio")])
        # In whole samples: of two clips that are heard alike, none is longer.
        return np.minimum(np.round(durations * self.sampling_rate), self.max_samples) / self.sampling_rate

    def name(self, index: int) -> str:
        """See [`ClipDataset.name`].

        Args:
            index (`int`): place of the clip in the split.

        Returns:
            Path of its file.
        """
        return clip_name(self.split[index]["audio"])


def clip_name(audio: dict) -> str:
    """Tell what to call an undecoded audio value in a message.

    Args:
        audio (`dict`): `{"bytes": ..., "path": ...}`.

    Returns:
        Its path, if it has one.
    """
    return audio["path"] or "a clip without a path"

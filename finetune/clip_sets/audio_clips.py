"""Audio files at hand: a split whose clips are undecoded audio, as paths or bytes, and what is checked of them."""

import copy
import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Self

import datasets
import numpy as np
from accelerate import PartialState
from accelerate.utils import gather_object

from modeling_ast import ASTFeatureExtractor
from modeling_ast.audio import AudioError, AudioReader, ExcerptReader
from modeling_ast.features.kaldi import is_cut

from ..arguments.groups import DataArguments
from ..augmentations.augmentation import Augmentation
from ..sources.audio_columns import audio_digests, audio_paths, audio_sizes
from ..sources.columns import column_values
from ..sources.labels import as_list, share_lists
from .clip_notes import NotedClip
from .clip_set import Checked, Checks, UndecodedClip
from .clip_windows import windowed_dataset
from .decoding import decoded_clips
from .row_clips import RowClips, advice_on_rows, drawn_places, without_shared_clips
from .split_checks import (
    BadClip,
    check_labels,
    leave_out,
    note_on_cut_clips,
    notes_on_clips,
    places_to_check,
    refuse_clips,
)
from .waveform_cache import WaveformCache, in_bytes
from .waveforms import WHOLE, ASTDataset, clip_name

BEGINNING = 4096  # bytes by which files of one size are told apart before they are read through


class AudioClips(RowClips):
    """Clips that are audio files.

    Args:
        rows (`datasets.Dataset`): with the columns `"audio"` (undecoded `datasets.Audio`) and `"label"`.
    """

    def with_windows(self, windows: str) -> Self:
        """See [`ClipSet.with_windows`].

        Args:
            windows (`str`): what is heard of longer clips.

        Returns:
            The same clips.
        """
        return self._changed(windows=windows)

    def without(self, left_out: Mapping[int, list[int]]) -> Self:
        """See [`ClipSet.without`].

        Args:
            left_out (`Mapping[int, list[int]]`): place and label indices of each clip to leave out.

        Returns:
            The other clips.
        """
        left = super().without(left_out)
        left.windows, left.num_longer = self.windows, self.num_longer
        return left

    def _changed(self, **attributes) -> Self:
        changed = copy.copy(self)
        vars(changed).update(attributes)
        return changed

    def name(self, index: int) -> str:
        """Tell what to call a clip in a message.

        Args:
            index (`int`): place of the clip.

        Returns:
            Path of its file.
        """
        return clip_name(self.rows[index]["audio"])

    def names(self) -> Iterator[str | None]:
        """Tell by what a table lists the clips.

        Returns:
            The path of each clip's file, one after the other; `None` for bytes without a name.
        """
        return iter(audio_paths(self.rows))

    def digest(self) -> str:
        """See [`ClipSet.digest`].

        Returns:
            Hexadecimal SHA-256 over the clips' names, sizes in bytes and labels, in their order.
        """
        digest = hashlib.sha256()
        labels = share_lists(self.rows) or column_values(self.rows, "label")
        for path, size, label in zip(audio_paths(self.rows), audio_sizes(self.rows), labels, strict=True):
            name = os.path.basename(path).encode() if path else b""
            digest.update(name + f"\0{size} {label}\0".encode())
        return digest.hexdigest()

    def dataset(
        self,
        feature_extractor: ASTFeatureExtractor,
        augmentation: Augmentation | None = None,
        seed: int = 0,
        *,
        binary_targets: bool = False,
        reader: AudioReader | None = None,
    ) -> ASTDataset:
        """See [`ClipSet.dataset`].

        Returns:
            [`ASTDataset`].
        """
        reader = feature_extractor.audio_reader() if reader is None else reader
        return windowed_dataset(self.rows, self.windows, feature_extractor, reader, augmentation, seed, binary_targets)

    @classmethod
    def check(cls, splits: dict[str, Self], checks: Checks) -> Checked:
        """Look at every clip where a cache or `skip_bad_audio` asks for it, else at some; see [`check_splits`].

        Args:
            splits (`dict[str, AudioClips]`): of the run, by side.
            checks ([`Checks`]): what is looked at, and how.

        Returns:
            [`Checked`].

        Raises:
            DataError: see [`look_at_every_clip`] and [`check_splits`].
        """
        data, reader, longest = checks.data, checks.reader, checks.max_samples
        hints, skipped, notes = advice_on_rows(splits, checks), [], []
        looked_at = checks.cache is not None or data.skip_bad_audio
        if looked_at:
            splits, skipped, notes = look_at_every_clip(
                splits, data, reader, longest, checks.num_workers, checks.cache, checks.noted
            )
        splits, more_notes = check_splits(
            splits, data, reader, longest, looked_at or checks.files_known, checks.noted, checks.num_workers
        )
        if checks.files_known and not looked_at:
            number = _num_longer_by_headers(splits, reader, longest)
            splits = {side: split._changed(num_longer=number) for side, split in splits.items()}
        return Checked(splits, hints + notes + more_notes, skipped)

    @classmethod
    def digests_in_two_splits(cls, splits: dict[str, Self]) -> dict[str, dict[int, bytes]]:
        """See [`RowClips.digests_in_two_splits`]: only files of one size and one beginning can be identical.

        Args:
            splits (`dict[str, AudioClips]`): of the run, by side.

        Returns:
            By side, the SHA-256 of each of these files by the place of its clip.
        """
        found: dict[str, dict[int, int | bytes]] = {
            side: dict(enumerate(audio_sizes(split.rows))) for side, split in splits.items()
        }
        for num_bytes in (BEGINNING, None):
            num_splits = Counter(value for of_split in found.values() for value in set(of_split.values()))
            rows = {
                side: [row for row, value in of_split.items() if num_splits[value] > 1]
                for side, of_split in found.items()
            }
            found = {
                side: dict(zip(rows[side], audio_digests(split.rows.select(rows[side]), num_bytes), strict=True))
                if rows[side]
                else {}
                for side, split in splits.items()
            }
        return found

    @classmethod
    def undecoded(cls, splits: dict[str, Self], number: int, seed: int) -> Iterator[UndecodedClip]:
        """Draw clips among all, as there may be time for fewer than are there.

        Args:
            splits (`dict[str, AudioClips]`): all splits of a run, by side.
            number (`int`): how many clips at most.
            seed (`int`): seed of the draw.

        Yields:
            The clips.
        """
        for side, place in drawn_places(splits, number, seed):
            clip = splits[side].rows[place]
            yield UndecodedClip(side, place, clip["audio"], as_list(clip["label"]))


def audio_of_all(splits: dict[str, AudioClips]) -> datasets.Dataset:
    """Put the audio of all splits together.

    Args:
        splits (`dict[str, AudioClips]`): of the run, by side.

    Returns:
        `datasets.Dataset` with the column `"audio"`, undecoded.
    """
    return datasets.concatenate_datasets([split.rows.select_columns("audio") for split in splits.values()])


def look_at_every_clip(
    splits: dict[str, AudioClips],
    data: DataArguments,
    reader: AudioReader,
    max_samples: int,
    num_workers: int | None = 0,
    cache: WaveformCache | None = None,
    noted: list[NotedClip] | None = None,
) -> tuple[dict[str, AudioClips], list[dict], list[str]]:
    """Decode every clip, into the cache if there is one, and leave out those that cannot be used if that is asked for.

    Of several processes each looks at its part, and all leave out the same clips.

    Args:
        splits (`dict[str, AudioClips]`): of the run, by side.
        data ([`DataArguments`]): its `skip_bad_audio` is obeyed.
        reader ([`AudioReader`]): how clips are heard.
        max_samples (`int`): samples that the model hears of a clip.
        num_workers (`int`, *optional*, defaults to 0): processes that decode; see [`read_in_turn`].
        cache ([`WaveformCache`], *optional*): where decoded clips are kept.
        noted (`list[NotedClip]`, *optional*): to which clips are added of which there is something to be said.

    Returns:
        The splits without clips that cannot be used; of each of these the `split`, the name of the `file` and the
        `reason`; and in words what the user should know.

    Raises:
        DataError: if clips cannot be decoded, are empty, too short or hold NaN, and are not to be left out, or none of
            a split can be used; see also [`WaveformCache.fill`].
    """
    audio = audio_of_all(splits)
    state = PartialState()
    share = np.arange(len(audio))[state.process_index :: state.num_processes]
    notes = []
    if cache is None:
        faults, said, num_longer = {}, {}, 0
        heard = samples_heard(splits, max_samples)
        for clip in decoded_clips(audio, share, reader, heard, num_workers, "looking at clips", keep=False):
            num_longer += is_cut(clip.length, max_samples, reader.sampling_rate)
            if clip.fault is not None:
                faults[clip.row] = clip.fault
            if clip.notes:
                said[clip.row] = clip.notes
    else:
        filled = cache.fill(audio, num_workers)
        said = {row: filled.notes[row] for row in share.tolist() if row in filled.notes}
        faults, num_longer = filled.faults, int(is_cut(filled.lengths[share], max_samples, reader.sampling_rate).sum())
        notes.append(
            f"waveform cache of {len(audio) - len(faults)} clips ({in_bytes(filled.kept_bytes)}) in {cache.folder}, "
            f"{filled.decoded} decoded now"
        )
    gathered = gather_object([(faults, said, num_longer)])
    faults = {row: fault for of_process, *_ in gathered for row, fault in of_process.items()}
    said = {row: of_clip for _, of_process, _ in gathered for row, of_clip in of_process.items()}
    num_longer = sum(number for *_, number in gathered)
    bad, odd, start = [], [], 0
    for side, split in splits.items():
        for place in sorted(row - start for row in faults if start <= row < start + len(split)):
            clip = split.rows[place]
            bad.append(BadClip(side, place, faults[start + place], clip["audio"]["path"], as_list(clip["label"])))
        for place in sorted(row - start for row in said if start <= row < start + len(split)):
            odd.append(NotedClip(side, place, split.rows[place]["audio"]["path"], said[start + place]))
        start += len(split)
    left, skipped, more_notes = leave_out(splits, bad, data, len(audio))
    notes += more_notes + note_on_cut_clips(num_longer, len(audio), max_samples / reader.sampling_rate, left)
    left = {side: split._changed(num_longer=num_longer) for side, split in left.items()}
    return left, skipped, notes + notes_on_clips(odd, len(audio), noted)


def check_splits(
    splits: dict[str, AudioClips],
    data: DataArguments,
    reader: AudioReader,
    max_samples: int,
    looked_at: bool = False,
    noted: list[NotedClip] | None = None,
    num_workers: int | None = 0,
) -> tuple[dict[str, AudioClips], list[str]]:
    """Refuse splits that would give a wrong score, and files that cannot be trained on.

    Args:
        splits (`dict[str, AudioClips]`): of the run, by side.
        data ([`DataArguments`]): its `drop_duplicate_audio` and `check_audio` are obeyed.
        reader ([`AudioReader`]): how clips are heard.
        max_samples (`int`): samples that the model hears of a clip.
        looked_at (`bool`, defaults to `False`): whether enough of the clips were decoded already.
        noted (`list[NotedClip]`, *optional*): see [`look_at_every_clip`].
        num_workers (`int`, *optional*, defaults to 0): see [`look_at_every_clip`].

    Returns:
        The splits, without duplicates if that was asked for, and in words what the user should know.

    Raises:
        DataError: for a label without training clips (of single-label data; for multi-label data it is in the words),
            training clips that all have the same labels, files that are byte for byte in two splits, or files that
            cannot be decoded, are empty or hold NaN (of up to 200 clips; of all with `check_audio`).
    """
    splits, notes = without_shared_clips(splits, data)
    notes += check_labels(splits)
    if not looked_at:
        num_checked, num_longer, odd = _check_files(splits, data, reader, max_samples, num_workers)
        notes += note_on_cut_clips(num_longer, num_checked, max_samples / reader.sampling_rate, splits)
        notes += notes_on_clips(odd, num_checked, noted)
        splits = {side: split._changed(num_longer=num_longer) for side, split in splits.items()}
    return splits, notes


def _check_files(
    splits: dict[str, AudioClips],
    data: DataArguments,
    reader: AudioReader,
    max_samples: int,
    num_workers: int | None,
) -> tuple[int, int, list[NotedClip]]:
    """Decode a sample of the clips, or all.

    Returns:
        How many were decoded, how many of them the model cannot hear to the end, and those of which there is something to
        be said.
    """
    places, num_clips = places_to_check(splits, every=data.check_audio), sum(map(len, splits.values()))
    # A sample is for what is wrong with all: the beginnings of a few hundred recordings of hours tell it in seconds.
    heard = samples_heard(splits, max_samples) if data.check_audio else max_samples
    first, start = {}, 0
    for side, split in splits.items():
        first[side], start = start, start + len(split)
    audio, rows = audio_of_all(splits), [first[side] + place for side, place in places]
    decoded = decoded_clips(audio, rows, reader, heard, num_workers, "looking at clips", keep=False)
    faults, odd, num_longer = [], [], 0
    for (side, place), clip in zip(places, decoded, strict=True):
        num_longer += is_cut(clip.length, max_samples, reader.sampling_rate)
        if clip.fault is not None:
            faults.append(clip.fault)
        if clip.notes:
            odd.append(NotedClip(side, place, splits[side].rows[place]["audio"]["path"], clip.notes))
    if faults:
        refuse_clips(faults, len(places), "" if len(places) == num_clips else "; --check_audio looks at every clip")
    return len(places), num_longer, odd


def samples_heard(splits: dict[str, AudioClips], max_samples: int) -> int:
    """Tell how much of a clip is decoded to find out whether it can be used.

    Args:
        splits (`dict[str, AudioClips]`): of the run, by side.
        max_samples (`int`): samples that the model hears of a clip.

    Returns:
        `int`: these samples, or [`WHOLE`] where windows of longer clips are heard, which may lie anywhere.
    """
    return max_samples if all(split.windows == "beginning" for split in splits.values()) else WHOLE


def _num_longer_by_headers(splits: dict[str, AudioClips], reader: AudioReader, max_samples: int) -> int:
    """Of the clips that would be looked at, how many the model does not hear to their end."""
    excerpts, number = ExcerptReader(reader), 0
    for side, place in places_to_check(splits):
        audio = splits[side].rows[place]["audio"]
        with suppress(AudioError):  # which is left out where it is decoded
            number += is_cut(excerpts.num_samples(audio), max_samples, reader.sampling_rate)
    return number

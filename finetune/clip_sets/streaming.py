"""Splits that are read clip after clip from where they are, so that memory does not grow with the data set.

A first pass has read the labels alone; see [`survey_splits`](finetune.sources.stream_labels.survey_splits). Here are the
passes after it; `stream_order.py` says in which order a training takes the clips.
"""

import copy
import hashlib
import itertools
from collections.abc import Iterator, Mapping
from typing import Self

import datasets
import numpy as np
from accelerate import PartialState
from accelerate.utils import gather_object

from modeling_ast import ASTFeatureExtractor
from modeling_ast.audio import AudioError, AudioReader
from modeling_ast.features.kaldi import is_cut

from ..arguments.groups import DataArguments
from ..augmentations.augmentation import Augmentation
from ..sources.data_errors import DataError, is_empty, names_in_short
from ..sources.labels import SHARES_COLUMN, as_list, has_soft_labels, is_multi_label, label_feature
from ..sources.stream_labels import FirstPass, survey_splits
from .clip_notes import NotedClip
from .clip_set import Checked, Checks, ClipSet, UndecodedClip
from .decoding import decoded_rows
from .split_checks import CLIPS_CHECKED, BadClip, check_labels, leave_out, note_on_cut_clips, notes_on_clips
from .stream_order import StreamedClips
from .waveforms import clip_name

CLIPS_AT_ONCE = 16  # rows read together of what may be audio


class StreamError(AudioError):
    """Data that is no longer what the first pass over it found, or a row that cannot be read."""


class ClipStream(ClipSet):
    """A split of clips that is read from its first clip to its last, as often as wanted.

    Iterating gives rows as those of [`load_splits`](finetune.sources.splits.load_splits): `"audio"`, undecoded as
    `{"bytes", "path"}`, and `"label"`, an index or a list of indices; of soft labels also `"label_shares"`.

    Args:
        found ([`FirstPass`]): what the first pass over all splits found.
        side (`str`): which of them this one is.
        shuffle_buffer (`int`): undecoded clips that are held at once where the stream is shuffled.

    Attributes:
        longest_run, run_labels: how many clips with the same labels come one after the other, and these labels, before any
            clip was left out.
    """

    at_hand = False

    def __init__(self, found: FirstPass, side: str, shuffle_buffer: int = 1000):
        split = found.splits[side]
        self.source, self.reader, self.rows_of = split.source, found.reader, split.rows_of
        self.ignored = found.ignored
        self.shuffle_buffer = shuffle_buffer
        self.left_out: frozenset[int] = frozenset()  # places of clips, all counted
        self.features = datasets.Features(
            {"audio": datasets.Audio(decode=False), "label": label_feature(found.labels, found.multi_label)}
        )
        if found.soft:
            self.features[SHARES_COLUMN] = datasets.List(datasets.Value("float32"))
        self.place_of_label = {name: place for place, name in enumerate(found.labels)}
        survey = split.survey
        self.num_clips = survey.clips
        self.counts = np.array([survey.counts[name] for name in found.labels])
        self.digest_of_all = survey.digest.hexdigest()
        self.licenses = sorted(survey.licenses) or None
        self.longest_run, self.run_labels = survey.longest_run, survey.run_labels

    def __len__(self) -> int:
        return self.num_clips

    def __iter__(self) -> Iterator[dict]:
        read = 0
        for place, row in enumerate(self._rows()):
            if place not in self.left_out:
                read += 1
                yield row
        if read != self.num_clips:
            raise StreamError(
                f"{self.source.name} has {read} clips of this split, but had {self.num_clips} when it was first read. Do not "
                "change the data while it is trained on; start again with --overwrite_output_dir."
            )

    def _rows(self) -> Iterator[dict]:
        source, multi_label = self.source, is_multi_label(self)
        soft = SHARES_COLUMN in self.features
        columns = [source.audio_column, *self.reader.columns, *([self.rows_of[0]] if self.rows_of else [])]
        first_row = 0
        for piece in self._pieces(columns):
            values = piece[source.audio_column]
            try:
                labels = self.reader.read(self.reader.values(piece, source, first_row), source, first_row)
            except DataError as error:  # which the first pass did not meet
                raise StreamError(str(error)) from error
            for row, names in enumerate(labels.lists):
                if self.rows_of and str(piece[self.rows_of[0]][row]) != self.rows_of[1]:
                    continue
                if self.ignored.intersection(names):
                    continue
                name = f"Row {first_row + row + 1} of {source.name}"
                if is_empty(values[row]):
                    raise StreamError(
                        f"{name} has nothing in the column {source.audio_column!r}. Fill it in or remove it."
                    )
                try:
                    places = sorted({self.place_of_label[label] for label in names})
                except KeyError as error:
                    raise StreamError(
                        f"{name} has the label {error}, which no clip had when the data was first read. Do not change the data "
                        "while it is trained on."
                    ) from error
                clip = {"audio": source.audio(values[row]), "label": places if multi_label else places[0]}
                if soft:
                    clip[SHARES_COLUMN] = [labels.values(row).get(label, 0.0) for label in self.place_of_label]
                yield clip
            first_row += len(values)

    def _pieces(self, columns: list[str]) -> Iterator[dict[str, list]]:
        """What the first pass could read, and now perhaps no longer can be."""
        try:
            yield from self.source.pieces(columns, CLIPS_AT_ONCE)
        except FileNotFoundError as error:
            name = error.filename or self.source.name
            raise StreamError(f"{name} is no longer there. Put it back as it was.") from error
        except (OSError, ValueError) as error:
            reason = str(error).rstrip(".")
            raise StreamError(
                f"{self.source.name} can no longer be read ({reason}). Put it back as it was."
            ) from error

    def label_lists(self) -> Iterator[list[int]]:
        """See [`ClipSet.label_lists`]; the stream is read from its beginning.

        Returns:
            Label indices of each clip, one after the other; of single-label data one each.
        """
        return (as_list(row["label"]) for row in self)

    def label_counts(self) -> np.ndarray:
        """See [`ClipSet.label_counts`]; told by the first pass.

        Returns:
            `np.ndarray` of shape `(labels,)`, int64.
        """
        return self.counts

    def label_sets(self) -> set[tuple[int, ...]]:
        """See [`ClipSet.label_sets`]; all labels are not held at once.

        Returns:
            Labels that clips have, one by one; of multi-label clips that all had the same labels, these together.
        """
        found = np.flatnonzero(self.counts).tolist()
        if is_multi_label(self) and (self.counts[found] == len(self)).all():  # all clips have all of these
            return {tuple(found)}
        return {(label,) for label in found} | ({()} if is_multi_label(self) else set())

    def shares_differ(self) -> bool:
        """See [`ClipSet.shares_differ`]; told by the first pass.

        Returns:
            `True` if two clips do, `False` if all are alike or labels are not soft.
        """
        return has_soft_labels(self) and self.longest_run < len(self)

    def name(self, index: int) -> str:
        """Tell what to call a clip in a message; the stream is read from its beginning.

        Args:
            index (`int`): place of the clip.

        Returns:
            Path of its file.
        """
        return clip_name(next(itertools.islice(self, index, None))["audio"])

    def names(self) -> Iterator[str | None]:
        """Tell by what a table lists the clips.

        Returns:
            The path of each clip's file, one after the other; `None` for bytes without a name.
        """
        return (row["audio"]["path"] for row in self)

    def digest(self) -> str:
        """See [`ClipSet.digest`]; told by the first pass.

        Returns:
            Hexadecimal SHA-256 over labels, and names where the audio is paths, in their order.
        """
        if not self.left_out:
            return self.digest_of_all
        return hashlib.sha256(f"{self.digest_of_all} {sorted(self.left_out)}".encode()).hexdigest()

    def without(self, left_out: Mapping[int, list[int]]) -> Self:
        """See [`ClipSet.without`].

        Args:
            left_out (`Mapping[int, list[int]]`): place, among the clips that there are now, and label indices of each clip
                to leave out.

        Returns:
            The stream without these clips.
        """
        if not left_out:
            return self
        smaller = copy.copy(self)
        places, before = np.array(list(left_out), dtype=np.int64), np.array(sorted(self.left_out), dtype=np.int64)
        # Past a clip that was left out before goes every place that is not less than the number of clips before it.
        among_all = places + np.searchsorted(before - np.arange(len(before)), places, side="right")
        smaller.left_out = self.left_out.union(among_all.tolist())
        smaller.num_clips = self.num_clips - len(places)
        lost = np.bincount([label for labels in left_out.values() for label in labels], minlength=len(self.counts))
        smaller.counts = self.counts - lost
        return smaller

    def dataset(
        self,
        feature_extractor: ASTFeatureExtractor,
        augmentation: Augmentation | None = None,
        seed: int = 0,
        *,
        binary_targets: bool = False,
        reader: AudioReader | None = None,
    ) -> StreamedClips:
        """See [`ClipSet.dataset`].

        Returns:
            [`StreamedClips`].
        """
        reader = feature_extractor.audio_reader() if reader is None else reader
        return StreamedClips(
            self, reader, feature_extractor.max_samples, augmentation, seed, binary_targets=binary_targets
        )

    @classmethod
    def check(cls, splits: dict[str, Self], checks: Checks) -> Checked:
        """Decode the first clips of each split, or all; see [`check_streams`].

        Args:
            splits (`dict[str, ClipStream]`): of the run, by side.
            checks ([`Checks`]): what is looked at, and how.

        Returns:
            [`Checked`].

        Raises:
            DataError: see [`check_streams`].
        """
        known = {"num_checked": 0} if checks.files_known else {}
        streams, skipped, notes = check_streams(
            splits, checks.data, checks.reader, checks.max_samples, checks.num_workers, checks.noted, **known
        )
        return Checked(streams, notes, skipped)

    @classmethod
    def undecoded(cls, splits: dict[str, Self], number: int, seed: int) -> Iterator[UndecodedClip]:
        """Take the first clips of the streams, of each in turn.

        Args:
            splits (`dict[str, ClipStream]`): all splits of a run, by side.
            number (`int`): how many clips at most.
            seed (`int`): of no use here, as nothing is drawn.

        Yields:
            The clips.
        """
        firsts = {side: iter(stream) for side, stream in splits.items()}
        for place in range(number // len(splits)):
            for side in list(firsts):
                clip = next(firsts[side], None)
                if clip is None:
                    del firsts[side]
                    continue
                yield UndecodedClip(side, place, clip["audio"], as_list(clip["label"]))


def load_streams(data: DataArguments) -> tuple[dict[str, ClipStream], str]:
    """Find the splits and pass over their labels once.

    Args:
        data ([`DataArguments`]): where the clips are, what the columns are called, and which splits there are.

    Returns:
        The streams `"train"`, `"eval"` and, if asked for, `"validation"`; and in words how the data is split.

    Raises:
        DataError: if a table or column is missing, the data does not say how it is split, labels cannot be read, or a
            split is empty.
    """
    found = survey_splits(data)
    streams = {side: ClipStream(found, side, data.shuffle_buffer) for side in found.splits}
    return streams, f"{found.words}, streamed without looking for clips that are in two splits"


def check_streams(
    streams: dict[str, ClipStream],
    data: DataArguments,
    reader: AudioReader,
    max_samples: int,
    num_workers: int | None = 0,
    noted: list[NotedClip] | None = None,
    num_checked: int = CLIPS_CHECKED,
) -> tuple[dict[str, ClipStream], list[dict], list[str]]:
    """Refuse streams that cannot be trained on, or leave out clips; of all clips only those that are bad are held.

    Whether a clip is in two splits is not looked for.

    Args:
        streams (`dict[str, ClipStream]`): from [`load_streams`].
        data ([`DataArguments`]): its `skip_bad_audio` and `check_audio` have all clips decoded once.
        reader ([`AudioReader`]): how clips are heard.
        max_samples (`int`): samples that the model hears of a clip.
        num_workers (`int`, *optional*, defaults to 0): processes that decode all clips; see [`read_in_turn`].
        noted (`list[NotedClip]`, *optional*): to which clips are added of which there is something to be said.
        num_checked (`int`, defaults to 200): clips that are decoded where not all are.

    Returns:
        The streams, without the clips that cannot be used if that was asked for; which these are, see
        [`look_at_every_clip`](finetune.clip_sets.audio_clips.look_at_every_clip); and in words what the user should know.

    Raises:
        DataError: as of [`check_splits`](finetune.clip_sets.audio_clips.check_splits); of the files, the first of each
            split are decoded.
    """
    every = data.check_audio or data.skip_bad_audio
    state, bad, odd, num_looked_at, num_longer = PartialState(), [], [], 0, 0
    for side, stream in streams.items():
        number = len(stream) if every else min(len(stream), num_checked // len(streams))
        rows, step = enumerate(stream), state.num_processes if every else 1  # each process its part of all
        start = state.process_index if every else 0
        decoded = decoded_rows(
            itertools.islice(rows, start, number, step),
            len(range(start, number, step)),
            reader,
            max_samples,
            num_workers if every else 0,
            "looking at clips",
        )
        for clip, row in decoded:
            num_looked_at += 1
            num_longer += is_cut(clip.length, max_samples, reader.sampling_rate)
            if clip.fault is not None:
                bad.append(BadClip(side, clip.row, clip.fault, row["audio"]["path"], as_list(row["label"])))
            if clip.notes:
                odd.append(NotedClip(side, clip.row, row["audio"]["path"], clip.notes))
    if every:
        gathered = gather_object([(bad, odd, num_looked_at, num_longer)])
        odd = sorted((clip for _, of_process, *_ in gathered for clip in of_process), key=lambda clip: clip.place)
        bad = sorted((clip for of_process, *_ in gathered for clip in of_process), key=lambda clip: clip.place)
        num_looked_at, num_longer = (sum(numbers) for numbers in list(zip(*gathered, strict=True))[2:])
    left, skipped, notes = leave_out(streams, bad, data, num_looked_at, every)
    notes += check_labels(left)
    notes += note_on_cut_clips(num_longer, num_looked_at, max_samples / reader.sampling_rate)
    notes += _order_note(left["train"], data)
    return left, skipped, notes + notes_on_clips(odd, num_looked_at, noted)


def _order_note(stream: ClipStream, data: DataArguments) -> list[str]:
    """What to say of training clips that come class after class, which no buffer shuffles."""
    if stream.longest_run <= data.shuffle_buffer or len(stream) <= data.shuffle_buffer:
        return []
    return [
        f"{stream.longest_run} clips with the label(s) {names_in_short(stream.run_labels)} come one after the other, more than "
        f"--shuffle_buffer {data.shuffle_buffer} mixes with others: shuffle the rows of the data once, or pass a larger buffer"
    ]

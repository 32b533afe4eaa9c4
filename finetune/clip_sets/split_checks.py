"""What is wrong with splits and their files, found before training, in words that name the flag to type."""

import itertools
import random
import shlex
from collections import Counter
from dataclasses import dataclass

import datasets
import numpy as np
from accelerate import PartialState
from accelerate.utils import gather_object

from model_card.run_summary import shown_file, without_places
from modeling_ast import ASTFeatureExtractor
from modeling_ast.audio import AudioError, AudioReader
from modeling_ast.features.kaldi import is_cut

from ..arguments.groups import DataArguments
from ..sources.audio_columns import audio_digests, audio_sizes
from ..sources.data_errors import NAMES_SHOWN, DataError, names_in_short
from ..sources.folders import data_folder
from ..sources.labels import (
    SHARE_THAT_COUNTS,
    as_list,
    has_soft_labels,
    is_multi_label,
    label_lists,
    label_names,
    share_lists,
)
from ..sources.stored_features import StoredFeatures, is_precomputed
from .clip_datasets import without_clips
from .clip_notes import NotedClip, noted_in_words
from .decoding import decoded_clips, decoded_rows
from .precomputed import features_in_two_splits, look_at_features
from .streaming import ClipStream
from .waveform_cache import WaveformCache, in_bytes
from .waveforms import clip_name, hear_clip

CLIPS_CHECKED = 200  # decoded up front without --check_audio
BEGINNING = 4096  # bytes by which files of one size are told apart before they are read through
SOFT_LABELS_NOTE = (
    "soft labels: trained on as the shares that they are; in counts and scores a clip has a label from a share of "
    f"{SHARE_THAT_COUNTS} on"
)
SPLIT_WORDS = {"train": "training", "eval": "scored", "validation": "validation"}


@dataclass(frozen=True)
class BadClip:
    """A clip that cannot be used.

    Args:
        split (`str`): which it is in.
        place (`int`): which of its clips it is.
        reason (`str`): why it cannot be used.
        path (`str`, *optional*): its file.
        labels (`list[int]`): its labels.
    """

    split: str
    place: int
    reason: str
    path: str | None
    labels: list[int]


def look_at_every_clip(
    splits: datasets.DatasetDict,
    data: DataArguments,
    reader: AudioReader,
    max_samples: int,
    num_workers: int = 0,
    cache: WaveformCache | None = None,
    noted: list[NotedClip] | None = None,
) -> tuple[datasets.DatasetDict, list[dict], list[str]]:
    """Decode every clip, into the cache if there is one, and leave out those that cannot be used if that is asked for.

    Of several processes each looks at its part, and all leave out the same clips.

    Args:
        splits (`datasets.DatasetDict`): from [`load_splits`].
        data ([`DataArguments`]): its `skip_bad_audio` is obeyed.
        reader ([`AudioReader`]): how clips are heard.
        max_samples (`int`): samples that the model hears of a clip.
        num_workers (`int`, defaults to 0): processes that decode.
        cache ([`WaveformCache`], *optional*): where decoded clips are kept.
        noted (`list[NotedClip]`, *optional*): to which clips are added of which there is something to be said.

    Returns:
        The splits without clips that cannot be used; of each of these the `split`, the name of the `file` and the
        `reason`; and in words what the user should know.

    Raises:
        DataError: if clips cannot be decoded, are empty, too short or hold NaN, and are not to be left out, or none of
            a split can be used; see also [`WaveformCache.fill`].
    """
    audio = datasets.concatenate_datasets([split.select_columns("audio") for split in splits.values()])
    state = PartialState()
    share = np.arange(len(audio))[state.process_index :: state.num_processes]
    notes = []
    if cache is None:
        faults, said, num_longer = {}, {}, 0
        for clip in decoded_clips(audio, share, reader, max_samples, num_workers, "looking at clips", keep=False):
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
            clip = split[place]
            bad.append(BadClip(side, place, faults[start + place], clip["audio"]["path"], as_list(clip["label"])))
        for place in sorted(row - start for row in said if start <= row < start + len(split)):
            odd.append(NotedClip(side, place, split[place]["audio"]["path"], said[start + place]))
        start += len(split)
    left, skipped, more_notes = _leave_out(splits, bad, data, len(audio))
    notes += more_notes + _cut_note(num_longer, len(audio), max_samples / reader.sampling_rate)
    return datasets.DatasetDict(left), skipped, notes + _odd_notes(odd, len(audio), noted)


def _odd_notes(odd: list[NotedClip], num_checked: int, noted: list[NotedClip] | None) -> list[str]:
    """In words what is to be said of clips, which are added to `noted`."""
    if noted is not None:
        noted += odd
    return noted_in_words([clip.notes for clip in odd], num_checked)


def _leave_out(
    splits: dict[str, datasets.Dataset | ClipStream],
    bad: list[BadClip],
    data: DataArguments,
    num_checked: int,
    every: bool = True,
) -> tuple[dict, list[dict], list[str]]:
    """Leave out clips if that was asked for, else refuse them.

    Args:
        splits (`dict`): of the run, by side.
        bad (`list[BadClip]`): clips that cannot be used.
        data ([`DataArguments`]): its `skip_bad_audio` says whether they are left out.
        num_checked (`int`): how many clips were looked at.
        every (`bool`, defaults to `True`): whether these are all there are.

    Returns:
        The splits; what became of each of the clips, without the folders of a machine; and in words how many these are.
    """
    if bad and not data.skip_bad_audio:
        _refuse([clip.reason for clip in bad], num_checked, "" if every else "; --check_audio looks at every clip")
    left, skipped, folder = {}, [], data_folder(data)
    for side, split in splits.items():
        of_side = [clip for clip in bad if clip.split == side]
        if len(of_side) == len(split):
            _refuse_all(side, [clip.reason for clip in of_side])
        for clip in of_side:
            name = (
                shown_file(clip.path, folder)
                if clip.path
                else f"clip {clip.place + 1} of the {SPLIT_WORDS[side]} split"
            )
            skipped.append({"split": side, "file": name, "reason": without_places(clip.reason, clip.path, folder)})
        left[side] = without_clips(split, {clip.place: clip.labels for clip in of_side})
    if not bad:
        return left, [], []
    counts = Counter(clip.split for clip in bad)
    of_split = ", ".join(f"{SPLIT_WORDS[side]} {counts[side]}" for side in splits if counts[side])
    return left, skipped, [f"{len(bad)} clip(s) that cannot be used left out ({of_split}), listed in the run summary"]


def _refuse_all(side: str, faults: list[str]):
    raise DataError(
        f"None of the {len(faults)} clips of the {SPLIT_WORDS[side]} split can be used, so that --skip_bad_audio leaves no "
        f"clip:{_listed(faults)}\nRepair them, or give the split other clips."
    )


def check_splits(
    splits: datasets.DatasetDict,
    data: DataArguments,
    reader: AudioReader,
    max_samples: int,
    looked_at: bool = False,
    noted: list[NotedClip] | None = None,
) -> tuple[datasets.DatasetDict, list[str]]:
    """Refuse splits that would give a wrong score, and files that cannot be trained on.

    Args:
        splits (`datasets.DatasetDict`): from [`load_splits`].
        data ([`DataArguments`]): its `drop_duplicate_audio` and `check_audio` are obeyed.
        reader ([`AudioReader`]): how clips are heard.
        max_samples (`int`): samples that the model hears of a clip.
        looked_at (`bool`, defaults to `False`): whether [`look_at_every_clip`] has decoded every clip already.
        noted (`list[NotedClip]`, *optional*): see [`look_at_every_clip`].

    Returns:
        The splits, without duplicates if that was asked for, and in words what the user should know.

    Raises:
        DataError: for a label without training clips (of single-label data; for multi-label data it is in the words),
            training clips that all have the same labels, files that are byte for byte in two splits, or files that
            cannot be decoded, are empty or hold NaN (of up to 200 clips; of all with `check_audio`).
    """
    splits, notes = _without_shared_audio(splits, data)
    notes += _check_labels(splits["train"], _label_sets(splits))
    if not looked_at:
        num_checked, num_longer, odd = _check_files(splits, data, reader, max_samples)
        notes += _cut_note(num_longer, num_checked, max_samples / reader.sampling_rate)
        notes += _odd_notes(odd, num_checked, noted)
    return splits, notes


def _cut_note(num_longer: int, num_checked: int, seconds: float) -> list[str]:
    if not num_longer:
        return []
    return [
        f"{num_longer} of {num_checked} clips looked at are longer than the {seconds:.2f} s that the model hears; the rest of "
        "them is cut"
    ]


def _check_labels(train: datasets.Dataset | ClipStream, label_sets: dict[str, set[tuple[int, ...]]]) -> list[str]:
    """Refuse labels that cannot be learned; say in words which of the model's labels no training clip has.

    Args:
        train (`datasets.Dataset` or [`ClipStream`]): the training split.
        label_sets (`dict[str, set]`): by side, what its clips have for labels; see [`ClipStream.label_sets`].
    """
    names = label_names(train)
    if len(label_sets["train"]) < 2 and not _shares_differ(train):
        common = [names[label] for labels in label_sets["train"] for label in labels]
        if is_multi_label(train):
            raise DataError(
                f"All training clips have the same labels ({names_in_short(common) or 'none'}). Nothing can be learned from them; "
                "move clips with other labels into the training split."
            )
        raise DataError(
            f"All training clips have the label {names_in_short(common)}. A classifier needs two classes or more in the training "
            "split."
        )
    labels_of = {side: {label for labels in sets for label in labels} for side, sets in label_sets.items()}
    if not is_multi_label(train):
        for side in sorted(label_sets.keys() - {"train"}):
            untrained = [names[label] for label in sorted(labels_of[side] - labels_of["train"])]
            if untrained:
                raise DataError(
                    f"{names_in_short(untrained)}: no training clip has this label, but the {SPLIT_WORDS[side]} split does. Move "
                    f"clips into the training split, or pass --ignore_labels {shlex.join(untrained)}."
                )
    untrained = [name for label, name in enumerate(names) if label not in labels_of["train"]]
    notes = [SOFT_LABELS_NOTE] if has_soft_labels(train) else []
    return notes + (
        [f"{len(untrained)} label(s) have no training clip: {names_in_short(untrained)}"] if untrained else []
    )


def _shares_differ(split: datasets.Dataset | ClipStream) -> bool:
    """Whether two clips of a split with soft labels differ in them."""
    if isinstance(split, ClipStream):
        return has_soft_labels(split) and split.longest_run < len(split)
    shares = share_lists(split)
    return shares is not None and any(clip != shares[0] for clip in shares)


def _label_sets(splits: datasets.DatasetDict) -> dict[str, set[tuple[int, ...]]]:
    """By side, what its clips have for labels."""
    return {side: {tuple(labels) for labels in label_lists(split)} for side, split in splits.items()}


def _without_shared_audio(splits: datasets.DatasetDict, data: DataArguments) -> tuple[datasets.DatasetDict, list[str]]:
    """Find files that are in two splits byte for byte; return the splits without them, and in words what was left out.

    What is scored stays as it is; a clip that is there too leaves the validation split, and one of these two training.
    """
    digests = _digests_in_two_splits(splits)
    dropped: dict[str, set[int]] = {side: set() for side in splits}
    notes = []
    pairs = [("validation", "eval"), ("train", "eval"), ("train", "validation")]
    for side, other in pairs:
        if side not in splits or other not in splits:
            continue
        twins = {digest: row for row, digest in digests[other].items()}
        shared = {row: twins[digest] for row, digest in digests[side].items() if digest in twins}
        if not shared:
            continue
        here, there = SPLIT_WORDS[side], SPLIT_WORDS[other]
        if not data.drop_duplicate_audio:
            names = [
                f"{_name_of_clip(splits[side], row)} = {_name_of_clip(splits[other], twin)}"
                for row, twin in shared.items()
            ]
            own = any(
                _name_of_clip(splits[side], row) == _name_of_clip(splits[other], twin) for row, twin in shared.items()
            )
            together = (
                ", pass --group_column_name audio to keep the rows of a file on one side of a split that is made, or "
                "--join_annotations to make one clip of them"
                if own and not data.streaming
                else ""
            )
            raise DataError(
                f"{len(shared)} clip(s) are in the {here} and in the {there} split: {names_in_short(names)}. The score would be too "
                f"good. Remove them{together}, or pass --drop_duplicate_audio to leave them out of {here}."
            )
        digests[side] = {row: digest for row, digest in digests[side].items() if row not in shared}
        dropped[side] |= shared.keys()
        notes.append(f"{len(shared)} clip(s) also in the {there} split were left out of {here}")
    kept = {side: [row for row in range(len(split)) if row not in dropped[side]] for side, split in splits.items()}
    empty = [SPLIT_WORDS[side] for side, rows in kept.items() if not rows]
    if empty:
        raise DataError(
            f"All clips of the {empty[0]} split are in another split too, so none is left. Give it clips of its own."
        )
    splits = {side: split.select(kept[side]) if dropped[side] else split for side, split in splits.items()}
    return datasets.DatasetDict(splits), notes


def _name_of_clip(split: datasets.Dataset, row: int) -> str:
    if is_precomputed(split):
        return StoredFeatures(split).name(row)
    return clip_name(split[row]["audio"])


def _digests_in_two_splits(splits: datasets.DatasetDict) -> dict[str, dict[int, bytes]]:
    """Digest by row of the files of each split that a file of another split may equal byte for byte.

    Only files of one size and one beginning can be identical: large data sets are not read through for this.
    """
    if is_precomputed(splits["train"]):
        return features_in_two_splits(splits)
    found: dict[str, dict[int, int | bytes]] = {
        side: dict(enumerate(audio_sizes(split))) for side, split in splits.items()
    }
    for num_bytes in (BEGINNING, None):
        num_splits = Counter(value for of_split in found.values() for value in set(of_split.values()))
        rows = {
            side: [row for row, value in of_split.items() if num_splits[value] > 1] for side, of_split in found.items()
        }
        found = {
            side: dict(zip(rows[side], audio_digests(split.select(rows[side]), num_bytes), strict=True))
            for side, split in splits.items()
        }
    return found


def _check_files(
    splits: datasets.DatasetDict, data: DataArguments, reader: AudioReader, max_samples: int
) -> tuple[int, int, list[NotedClip]]:
    """Decode a sample of the clips, or all.

    Returns:
        How many were decoded, how many of them the model cannot hear to the end, and those of which there is something to
        be said.
    """
    rows = [(side, row) for side, split in splits.items() for row in range(len(split))]
    num_clips = len(rows)
    if not data.check_audio and num_clips > CLIPS_CHECKED:
        rows = random.Random(0).sample(rows, CLIPS_CHECKED)
    faults, odd, num_longer = [], [], 0
    for side, row in rows:
        audio = splits[side][row]["audio"]
        try:
            heard = hear_clip(audio, reader, max_samples)
            num_longer += is_cut(len(heard.waveform), max_samples, reader.sampling_rate)
            if heard.notes:
                odd.append(NotedClip(side, row, audio["path"], heard.notes))
        except AudioError as error:
            faults.append(str(error))
    if faults:
        _refuse(faults, len(rows), "" if len(rows) == num_clips else "; --check_audio looks at every clip")
    return len(rows), num_longer, odd


def check_precomputed_splits(
    splits: datasets.DatasetDict, data: DataArguments, feature_extractor: ASTFeatureExtractor
) -> tuple[datasets.DatasetDict, list[str]]:
    """[`check_splits`] for finished features in place of audio.

    Args:
        splits (`datasets.DatasetDict`): from [`load_splits`] with `features_column_name`.
        data ([`DataArguments`]): its `drop_duplicate_audio` is obeyed.
        feature_extractor ([`ASTFeatureExtractor`]): gives the mel bins and the frames that the model hears.

    Returns:
        The splits, without duplicates if that was asked for, and in words what the user should know.

    Raises:
        DataError: as [`check_splits`]; for features of another shape or type, with NaN, or normalised already, of up to
            200 clips.
    """
    notes = [
        f"precomputed features of the column {data.features_column_name!r}",
        *_look_at_features(splits, feature_extractor),
    ]
    splits, more_notes = _without_shared_audio(splits, data)
    return splits, [*notes, *more_notes, *_check_labels(splits["train"], _label_sets(splits))]


def _look_at_features(splits: datasets.DatasetDict, feature_extractor: ASTFeatureExtractor) -> list[str]:
    """Refuse features that are none of a sample of the clips; say in words what is odd about others."""
    num_mel_bins, max_length = feature_extractor.num_mel_bins, feature_extractor.max_length
    stored = {side: StoredFeatures(split) for side, split in splits.items()}
    rows = [(side, row) for side, of_side in stored.items() for row in range(len(of_side))]
    if len(rows) > CLIPS_CHECKED:
        rows = random.Random(0).sample(rows, CLIPS_CHECKED)
    faults, oddities, num_longer = [], [], 0
    for side, row in rows:
        try:
            features = stored[side].read(row, num_mel_bins, max_length)
            oddities.append(look_at_features(features, stored[side].name(row)))
            num_longer += len(stored[side].as_stored(row)) > max_length
        except AudioError as error:
            faults.append(str(error))
    if faults:
        raise DataError(f"{len(faults)} of {len(rows)} clips looked at cannot be used:{_listed(faults)}")
    notes = [
        f"{count} of {len(rows)} clips looked at have {oddity}"
        for oddity, count in Counter(filter(None, oddities)).items()
    ]
    if num_longer:
        notes.append(
            f"{num_longer} of {len(rows)} clips looked at have more than the {max_length} frames that the model hears; the "
            "rest of them is cut"
        )
    return notes


def check_streams(
    streams: dict[str, ClipStream],
    data: DataArguments,
    reader: AudioReader,
    max_samples: int,
    num_workers: int = 0,
    noted: list[NotedClip] | None = None,
    num_checked: int = CLIPS_CHECKED,
) -> tuple[dict[str, ClipStream], list[dict], list[str]]:
    """[`check_splits`] and [`look_at_every_clip`] for streams, of which only bad clips are held.

    Whether a clip is in two splits is not looked for.

    Args:
        streams (`dict[str, ClipStream]`): from [`load_streams`].
        data ([`DataArguments`]): its `skip_bad_audio` and `check_audio` have all clips decoded once.
        reader ([`AudioReader`]): how clips are heard.
        max_samples (`int`): samples that the model hears of a clip.
        num_workers (`int`, defaults to 0): processes that decode.
        noted (`list[NotedClip]`, *optional*): see [`look_at_every_clip`].
        num_checked (`int`, defaults to 200): clips that are decoded where not all are.

    Returns:
        The streams, without the clips that cannot be used if that was asked for; which these are, see
        [`look_at_every_clip`]; and in words what the user should know.

    Raises:
        DataError: as [`check_splits`], of whose files the first of each split are decoded.
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
    left, skipped, notes = _leave_out(streams, bad, data, num_looked_at, every)
    notes += _check_labels(left["train"], {side: stream.label_sets() for side, stream in left.items()})
    notes += _cut_note(num_longer, num_looked_at, max_samples / reader.sampling_rate)
    notes += _order_note(left["train"], data)
    return left, skipped, notes + _odd_notes(odd, num_looked_at, noted)


def _order_note(stream: ClipStream, data: DataArguments) -> list[str]:
    """What to say of training clips that come class after class, which no buffer shuffles."""
    if stream.longest_run <= data.shuffle_buffer or len(stream) <= data.shuffle_buffer:
        return []
    return [
        f"{stream.longest_run} clips with the label(s) {names_in_short(stream.run_labels)} come one after the other, more than "
        f"--shuffle_buffer {data.shuffle_buffer} mixes with others: shuffle the rows of the data once, or pass a larger buffer"
    ]


def _refuse(faults: list[str], num_checked: int, hint: str):
    raise DataError(
        f"{len(faults)} of {num_checked} clips looked at cannot be used:{_listed(faults)}\nRepair or remove them, or pass "
        f"--skip_bad_audio to leave them out{hint}."
    )


def _listed(faults: list[str]) -> str:
    """The first faults, each on a line of its own, and how many more there are."""
    more = [f"and {len(faults) - NAMES_SHOWN} more"] if len(faults) > NAMES_SHOWN else []
    return "".join(f"\n  {line}" for line in [*faults[:NAMES_SHOWN], *more])

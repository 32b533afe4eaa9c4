"""What is wrong with splits and their files, found before training, in words that name the flag to type."""

import hashlib
import random
import shlex
from collections import Counter
from pathlib import Path

import datasets

from modeling_ast.audio import AudioError

from .arguments import DataArguments
from .data import audio_size, clip_name, read_clip
from .data_errors import DataError, some
from .labels import is_multi_label, label_lists, label_names

CLIPS_CHECKED = 200  # decoded up front without --check_audio
SPLIT_WORDS = {"train": "training", "eval": "scored", "validation": "validation"}


def check_splits(
    splits: datasets.DatasetDict, data: DataArguments, sampling_rate: int, max_samples: int
) -> tuple[datasets.DatasetDict, list[str]]:
    """Refuse splits that would give a wrong score, and files that cannot be trained on.

    Args:
        splits (`datasets.DatasetDict`): from [`load_splits`].
        data ([`DataArguments`]): its `drop_duplicate_audio` and `check_audio` are obeyed.
        sampling_rate (`int`): rate the model hears, in Hz.
        max_samples (`int`): samples that the model hears of a clip.

    Returns:
        The splits, without duplicates if that was asked for, and in words what the user should know.

    Raises:
        DataError: for a label without training clips (of single-label data; for multi-label data it is in the words),
            training clips that all have the same labels, files that are byte for byte in two splits, or files that
            cannot be decoded, are empty or hold NaN (of up to 200 clips; of all with `check_audio`).
    """
    splits, notes = _without_shared_audio(splits, data)
    notes += _check_labels(splits)
    num_checked, num_longer = _check_files(splits, data, sampling_rate, max_samples)
    if num_longer:
        notes.append(
            f"{num_longer} of {num_checked} clips looked at are longer than the {max_samples / sampling_rate:.2f} s that "
            "the model hears; the rest of them is cut"
        )
    return splits, notes


def _check_labels(splits: datasets.DatasetDict) -> list[str]:
    """Refuse labels that cannot be learned; say in words which of the model's labels no training clip has."""
    names = label_names(splits["train"])
    label_sets = {side: {tuple(labels) for labels in label_lists(split)} for side, split in splits.items()}
    if len(label_sets["train"]) < 2:
        common = [names[label] for labels in label_sets["train"] for label in labels]
        if is_multi_label(splits["train"]):
            raise DataError(
                f"All training clips have the same labels ({some(common) or 'none'}). Nothing can be learned from them; "
                "move clips with other labels into the training split."
            )
        raise DataError(
            f"All training clips have the label {some(common)}. A classifier needs two classes or more in the training "
            "split."
        )
    labels_of = {side: {label for labels in sets for label in labels} for side, sets in label_sets.items()}
    if not is_multi_label(splits["train"]):
        for side in sorted(splits.keys() - {"train"}):
            untrained = [names[label] for label in sorted(labels_of[side] - labels_of["train"])]
            if untrained:
                raise DataError(
                    f"{some(untrained)}: no training clip has this label, but the {SPLIT_WORDS[side]} split does. Move "
                    f"clips into the training split, or pass --ignore_labels {shlex.join(untrained)}."
                )
    untrained = [name for label, name in enumerate(names) if label not in labels_of["train"]]
    return [f"{len(untrained)} label(s) have no training clip: {some(untrained)}"] if untrained else []


def _without_shared_audio(splits: datasets.DatasetDict, data: DataArguments) -> tuple[datasets.DatasetDict, list[str]]:
    """Find files that are in two splits byte for byte; return the splits without them, and in words what was left out.

    What is scored stays as it is; a clip that is there too leaves the validation split, and one of these two training.
    """
    digests = _digests_of_equal_sizes(splits)
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
                f"{clip_name(splits[side][row]['audio'])} = {clip_name(splits[other][twin]['audio'])}"
                for row, twin in shared.items()
            ]
            raise DataError(
                f"{len(shared)} clip(s) are in the {here} and in the {there} split: {some(names)}. The score would be too "
                f"good. Remove them, or pass --drop_duplicate_audio to leave them out of {here}."
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


def _digests_of_equal_sizes(splits: datasets.DatasetDict) -> dict[str, dict[int, bytes]]:
    """Digest by row of the files of each split whose size a file of another split has too.

    Only files of one size can be identical: large data sets are not read through for this.
    """
    sizes = {
        side: [audio_size(row["audio"]) for row in split.select_columns("audio")] for side, split in splits.items()
    }
    num_splits = Counter(size for of_split in sizes.values() for size in set(of_split))
    return {
        side: {row: _digest(splits[side][row]["audio"]) for row, size in enumerate(of_split) if num_splits[size] > 1}
        for side, of_split in sizes.items()
    }


def _check_files(
    splits: datasets.DatasetDict, data: DataArguments, sampling_rate: int, max_samples: int
) -> tuple[int, int]:
    """Decode a sample of the clips, or all; return how many, and how many of them the model cannot hear to the end."""
    rows = [(side, row) for side, split in splits.items() for row in range(len(split))]
    if not data.check_audio and len(rows) > CLIPS_CHECKED:
        rows = random.Random(0).sample(rows, CLIPS_CHECKED)
    faults, num_longer = [], 0
    for side, row in rows:
        try:
            num_longer += len(read_clip(splits[side][row]["audio"], sampling_rate)) > max_samples
        except AudioError as error:
            faults.append(str(error))
    if faults:
        listed = "\n  ".join(faults)
        raise DataError(
            f"{len(faults)} of {len(rows)} clips looked at cannot be used:\n  {listed}\nRepair or remove them; "
            "--check_audio looks at every clip."
        )
    return len(rows), num_longer


def _digest(audio: dict) -> bytes:
    content = audio["bytes"] if audio["bytes"] is not None else Path(audio["path"]).read_bytes()
    return hashlib.sha256(content).digest()

"""What the checks of all kinds of data sets have in common: labels, clips that cannot be used, and how they are said."""

import random
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from model_card.run_summary import shown_file, without_places

from ..arguments.groups import DataArguments
from ..sources.data_errors import NAMES_SHOWN, DataError, names_in_short
from ..sources.folders import data_folder
from ..sources.labels import SHARE_THAT_COUNTS, has_soft_labels, is_multi_label, label_names
from .clip_notes import NotedClip, noted_in_words
from .clip_set import ClipSet

CLIPS_CHECKED = 200  # decoded up front without --check_audio
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


def places_to_check(splits: dict[str, ClipSet], every: bool = False) -> list[tuple[str, int]]:
    """Choose the clips that are looked at before a training: all, or of many 200 that are always the same.

    Args:
        splits (`dict[str, ClipSet]`): of the run, by side.
        every (`bool`, defaults to `False`): whether all clips are wanted.

    Returns:
        Side and place of each clip.
    """
    places = [(side, place) for side, split in splits.items() for place in range(len(split))]
    if every or len(places) <= CLIPS_CHECKED:
        return places
    return random.Random(0).sample(places, CLIPS_CHECKED)


def notes_on_clips(odd: list[NotedClip], num_checked: int, noted: list[NotedClip] | None) -> list[str]:
    """Put into words what there is to be said of clips.

    Args:
        odd (`list[NotedClip]`): clips of which there is something to be said.
        num_checked (`int`): how many clips were looked at.
        noted (`list[NotedClip]`, *optional*): to which these clips are added.

    Returns:
        A text for each kind of note.
    """
    if noted is not None:
        noted += odd
    return noted_in_words([clip.notes for clip in odd], num_checked)


def note_on_cut_clips(
    num_longer: int, num_checked: int, seconds: float, splits: dict[str, ClipSet] | None = None
) -> list[str]:
    """Put into words how many clips the model does not hear to their end at once, and what is done with them.

    Args:
        num_longer (`int`): how many these are.
        num_checked (`int`): how many clips were looked at.
        seconds (`float`): how much of a clip the model hears.
        splits (`dict[str, ClipSet]`, *optional*): of the run, by side, which say what is heard of them; the beginning if not
            given.

    Returns:
        One text, or none if there is no such clip.
    """
    if not num_longer:
        return []
    return [
        f"{num_longer} of {num_checked} clips looked at are longer than the {seconds:.2f} s that the model hears; "
        f"{windows_in_words({side: split.windows for side, split in (splits or {}).items()})}"
    ]


def windows_in_words(windows: dict[str, str]) -> str:
    """Say what is heard of clips that last longer than the model hears.

    Args:
        windows (`dict[str, str]`): by side, as of [`ClipSet.with_windows`].

    Returns:
        Words.
    """
    trained, scored = (windows.get(side, "beginning") for side in ("train", "eval"))
    if trained == scored == "beginning":
        return "the rest of them is cut"
    of_training = {
        "beginning": "trained on is their beginning",
        "random": "trained on is a window of each that is drawn in every epoch",
        "all": "trained on are all their windows",
    }
    of_scores = {
        "beginning": "scored is their beginning",
        "mean": "scored is the mean of all their windows",
        "max": "scored is the highest of all their windows",
    }
    return f"{of_training[trained]}, {of_scores[scored]}"


def leave_out(
    splits: dict[str, ClipSet],
    bad: list[BadClip],
    data: DataArguments,
    num_checked: int,
    every: bool = True,
) -> tuple[dict[str, ClipSet], list[dict], list[str]]:
    """Leave out clips that cannot be used if that was asked for, else refuse them.

    Args:
        splits (`dict[str, ClipSet]`): of the run, by side.
        bad (`list[BadClip]`): clips that cannot be used.
        data ([`DataArguments`]): its `skip_bad_audio` says whether they are left out.
        num_checked (`int`): how many clips were looked at.
        every (`bool`, defaults to `True`): whether these are all there are.

    Returns:
        The splits; what became of each of the clips, without the folders of a machine; and in words how many these are.

    Raises:
        DataError: if clips are not to be left out, or none of a split can be used.
    """
    if bad and not data.skip_bad_audio:
        refuse_clips(
            [clip.reason for clip in bad], num_checked, "" if every else "; --check_audio looks at every clip"
        )
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
        left[side] = split.without({clip.place: clip.labels for clip in of_side})
    if not bad:
        return left, [], []
    counts = Counter(clip.split for clip in bad)
    of_split = ", ".join(f"{SPLIT_WORDS[side]} {counts[side]}" for side in splits if counts[side])
    return left, skipped, [f"{len(bad)} clip(s) that cannot be used left out ({of_split}), listed in the run summary"]


def _refuse_all(side: str, faults: list[str]):
    raise DataError(
        f"None of the {len(faults)} clips of the {SPLIT_WORDS[side]} split can be used, so that --skip_bad_audio leaves no "
        f"clip:{listed(faults)}\nRepair them, or give the split other clips."
    )


def check_labels(splits: dict[str, ClipSet]) -> list[str]:
    """Refuse labels that cannot be learned; say which of the model's labels no training clip has.

    Args:
        splits (`dict[str, ClipSet]`): of the run, by side.

    Returns:
        In words, what the user should know.

    Raises:
        DataError: if all training clips have the same labels, or, of exclusive labels, no training clip has one that
            another split has.
    """
    train, label_sets = splits["train"], {side: split.label_sets() for side, split in splits.items()}
    names = label_names(train)
    if not names:  # of a pretraining, which reads none
        return []
    if len(label_sets["train"]) < 2 and not train.shares_differ():
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


def refuse_clips(faults: Sequence[str], num_checked: int, hint: str):
    """Refuse clips that cannot be used, and say how to leave them out.

    Args:
        faults (sequence of `str`): why each of them cannot be used.
        num_checked (`int`): how many clips were looked at.
        hint (`str`): what stands behind the flag that leaves them out.

    Raises:
        DataError: always.
    """
    raise DataError(
        f"{len(faults)} of {num_checked} clips looked at cannot be used:{listed(faults)}\nRepair or remove them, or pass "
        f"--skip_bad_audio to leave them out{hint}."
    )


def listed(faults: Sequence[str]) -> str:
    """List the first faults, each on a line of its own.

    Args:
        faults (sequence of `str`): all of them.

    Returns:
        The lines, each with a line break before it, and how many faults more there are.
    """
    more = [f"and {len(faults) - NAMES_SHOWN} more"] if len(faults) > NAMES_SHOWN else []
    return "".join(f"\n  {line}" for line in [*faults[:NAMES_SHOWN], *more])

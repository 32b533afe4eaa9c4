"""Which split a name means: folders, values of a column and splits of the Hub called "Training", "TEST" or "dev_set".

The words are those of `datasets`' own folder loader (`datasets.data_files.SPLIT_KEYWORDS`) and some more, as whole names.
"""

import re
import shlex
from collections import Counter
from collections.abc import Iterable

from ..arguments.data_arguments import SIDES
from ..arguments.groups import DataArguments
from .data_errors import DataError, counted

SYNONYMS = {
    "train": ("train", "training", "trn", "trainset", "trainingset"),
    "eval": ("test", "testing", "tst", "testset", "eval", "evaluation", "evalset", "holdout", "heldout"),
    "validation": ("validation", "valid", "val", "validset", "valset", "dev", "devel", "development", "devset"),
}  # fmt: skip
PREFERRED = {"train": "train", "eval": "test", "validation": "validation"}
# Two sets of these names alone are those of DCASE and FSD50K: what a system is developed on, and what it is scored on.
DEVELOPMENT = ("dev", "devel", "development", "devset")
EVALUATION = ("eval", "evaluation", "evalset")
FILLING_WORDS = ("set", "split", "data", "dataset", "folder", "audio", "clips", "files", "wav", "wavs")
SIDES_IN_WORDS = {"train": "trained on", "eval": "scored", "validation": "chosen on"}


def _stem(name: str) -> str:
    """A name without case, digits, signs and words that say nothing: "dev" of "Dev_Set 1"."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    words = [word.casefold() for word in re.findall(r"[^\W\d_]+", spaced)]
    return "".join(word for word in words if word not in FILLING_WORDS)


def side_of(name: str) -> str | None:
    """Tell which split a name means, in any case of its letters.

    Args:
        name (`str`): of a folder, a split of the Hub, or a value of a column.

    Returns:
        `"train"`, `"eval"` or `"validation"`; `None` for other names.
    """
    stem = _stem(name)
    return next((side for side, words in SYNONYMS.items() if stem in words), None)


def recognised_split(side: str, found: Iterable[str], data: DataArguments) -> str | None:
    """What the split of a side is called in the data: as it was given, or what is named like it.

    Args:
        side (`str`): one of `SIDES`.
        found (iterable of `str`): names of the splits that the data has.
        data ([`DataArguments`]): what was given.

    Returns:
        The name, `None` if none is named like it.

    Raises:
        DataError: if several are, and none is called by the very word.
    """
    given = data.given_split_names()
    if side in given:
        return given[side]
    taken = set(given.values())
    named = [name for name in found if name not in taken and side_of(name) == side]
    preferred = PREFERRED[side]
    alike = [name for name in named if name.strip().casefold() == preferred]
    if len(named) == 1 or alike == [preferred]:
        return preferred if alike == [preferred] else named[0]
    if not named:
        return None
    shown = " and ".join(map(repr, named))
    raise DataError(
        f"It is not clear which split is {SIDES_IN_WORDS[side]}: the data has {shown}. Pass --{side}_split_name with one of these (and "
        "the name of each other split that takes part with its own flag), or write them alike if they are the same."
    )


def named_splits(found: Iterable[str], data: DataArguments) -> dict[str, str]:
    """Find what the split of each side is called in the data.

    Two splits that are called like development and evaluation, without one that is named like the training split, are
    trained on and scored. What is chosen on decides what is published: a validation split has to be given.

    Args:
        found (iterable of `str`): names of the splits that the data has.
        data ([`DataArguments`]): what was given.

    Returns:
        By side, the name, for those sides that are given or that a split is named like.

    Raises:
        DataError: see [`recognised_split`].
    """
    found = list(dict.fromkeys(found))
    sides = [side for side in SIDES if side != "validation" or side in data.given_split_names()]
    names = {side: name for side in sides if (name := recognised_split(side, found, data)) is not None}
    if "train" not in names and len(found) == 2 and "validation" not in names:
        (developed,) = [name for name in found if name != names.get("eval")][:1]
        if _stem(developed) in DEVELOPMENT and _stem(names.get("eval", "")) in EVALUATION:
            names["train"] = developed
    return names


def take_split_names(found: Iterable[str], data: DataArguments) -> str:
    """Find which of the data's splits are trained on and scored, and write their names into `data`.

    If nothing is named like one of them, all names stay as they are and are then not found.

    Args:
        found (iterable of `str`): names of the splits that the data has, in any order.
        data ([`DataArguments`]): what was given; its names of splits become those of the data.

    Returns:
        In words, what was recognised; nothing where the splits are called as they were asked for.

    Raises:
        DataError: see [`recognised_split`].
    """
    names = named_splits(found, data)
    if not {"train", "eval"} <= names.keys():
        return ""
    recognised = any(getattr(data, f"{side}_split_name") != name for side, name in names.items())
    for side, name in names.items():
        setattr(data, f"{side}_split_name", name)
    if not recognised:
        return ""
    return ": " + ", ".join(f"{name!r} is {SIDES_IN_WORDS[side]}" for side, name in names.items())


def others_in_words(others: Counter, data: DataArguments) -> str:
    """Say which splits have no part in a run, and how one would get it.

    Args:
        others (`Counter`): clips of each of these splits.
        data ([`DataArguments`]): whose clips they are.

    Returns:
        In words, to be added to a sentence; nothing if there are none.
    """
    return f", without {counted(others)}, {how_to_name(others, data.labelled)}" if others else ""


def how_to_name(others: Iterable[str], labelled: bool = True) -> str:
    """Say what to type for splits that have no part in a run to have one.

    Args:
        others (iterable of `str`): names of these splits, at least one.
        labelled (`bool`, defaults to `True`): whether labels are read; without, nothing is chosen on a validation split.

    Returns:
        In words, to stand within a sentence.
    """
    others = list(others)
    if not labelled:
        name = shlex.quote(str(others[0]))
        return f"which takes part if named with --train_split_name {name} or --eval_split_name {name}"
    to_choose_on = next((name for name in others if isinstance(name, str) and side_of(name) == "validation"), None)
    if to_choose_on is not None:
        return f"of which --validation_split_name {shlex.quote(to_choose_on)} makes one to choose on"
    name = shlex.quote(str(others[0]))
    return f"which takes part if named with --validation_split_name {name} or --eval_split_name {name}"


def flags_to_name(side: str, found: Iterable[str], data: DataArguments) -> str:
    """Say what to type where the split of a side was not found.

    Args:
        side (`str`): one of `SIDES`.
        found (iterable of `str`): names of the splits that the data has.
        data ([`DataArguments`]): what was given.

    Returns:
        Flags, or words, to stand after "Pass".
    """
    found = [name for name in dict.fromkeys(found) if isinstance(name, str) and name]
    names = named_splits(found, data)
    others = [name for name in found if name not in (names.get("train"), names.get("eval"))]
    flag = f"--{side}_split_name"
    if side == "validation" or len(others) != 1:
        return f"{flag} with one of these"
    words = [flag, others[0]]
    for other in ("train", "eval"):
        if other != side and names.get(other, PREFERRED[other]) != getattr(data, f"{other}_split_name"):
            words += [f"--{other}_split_name", names[other]]
    return shlex.join(words)


def split_names(data: DataArguments) -> dict[str, str]:
    """Tell what the splits are called in the data.

    Args:
        data ([`DataArguments`]): which splits there are.

    Returns:
        By side, the name of its split; a side without a split is not there.
    """
    if data.train_file:
        return {side: side for side in SIDES if getattr(data, f"{side}_file")}
    names = {side: getattr(data, f"{side}_split_name") for side in SIDES}
    return {side: name for side, name in names.items() if name}


def refuse_empty_splits(found: Counter, data: DataArguments):
    """Refuse data without a clip in a split that is trained on or scored.

    Args:
        found (`Counter`): clips of each split of the data.
        data ([`DataArguments`]): which splits are meant.

    Raises:
        DataError: if one of these has none.
    """
    for side, name in split_names(data).items():
        if not found[name]:
            remedy = f"--{side}_file with other clips" if data.train_file else flags_to_name(side, found, data)
            raise DataError(f"No clip is in the split {name!r}; the data has {counted(found)}. Pass {remedy}.")

"""Several rows of one clip, as of several annotators or with one label each, joined into one.

The labels of the joined clip are computed from the share of its rows that have each: `any` takes those that a row has,
`majority` what most rows say, `all` those that all rows have, and `share` makes soft labels of the shares themselves.
"""

import os
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import replace

import datasets

from ..arguments.groups import DataArguments
from .audio_columns import audio_paths
from .data_errors import DataError, names_in_short
from .grouping import clip_keys, groups_by_file
from .labels import ClipLabels, has_soft_labels, label_lists, label_names, labels_that_count, share_lists

HALF = 0.5


def join_annotations(
    rows: datasets.Dataset,
    labels: ClipLabels,
    kept: list[int],
    data: DataArguments,
    row_name: Callable[[int], str],
    splits: list[str] | None = None,
) -> tuple[ClipLabels, list[int], str]:
    """Join the rows of each clip into its first one, as `join_annotations` says.

    Args:
        rows (`datasets.Dataset`): all clips.
        labels ([`ClipLabels`]): of all rows.
        kept (`list[int]`): rows that take part.
        data ([`DataArguments`]): its `join_annotations`; nothing is done without.
        row_name (`Callable`): what to call a row in a message.
        splits (`list[str]`, *optional*): the split of each row, where the data says it.

    Returns:
        The labels, which for the first row of each clip are the joined ones; these rows, without clips whose rows agree on
        no label where each has just one; and in words what was done.

    Raises:
        DataError: if the rows of a clip are in different splits, folds or groups.
    """
    method = data.join_annotations
    if method is None:
        return labels, kept, ""
    clips: dict[str, list[int]] = defaultdict(list)
    for row, key in clip_keys(rows, kept, data, row_name).items():
        clips[key].append(row)
    torn = {
        name: rows[name][:] for name in (data.group_column_name, data.fold_column_name) if name in rows.column_names
    }
    _refuse_torn(clips, ({"split": splits} if splits is not None else {}) | torn, data, row_name)
    joined = {members[0]: _joined(labels, members, method) for members in clips.values()}
    lists, shares = list(labels.lists), [labels.values(row) for row in range(len(labels.lists))]
    for row, values in joined.items():
        shares[row] = values
        lists[row] = labels_that_count(values)
    firsts = [row for row, values in joined.items() if values or labels.multi_label]
    soft = any(value != 1 for row in firsts for value in shares[row].values())
    multi_label = labels.multi_label or soft or any(len(lists[row]) > 1 for row in firsts)
    result = replace(labels, lists=lists, multi_label=multi_label, shares=shares if soft else None)
    several = sum(len(members) > 1 for members in clips.values())
    words = f"; {len(kept)} rows of {len(clips)} clips joined by {method!r} ({several} have more than one row)"
    left = set(firsts)
    lost = [_votes_in_words(labels, members, rows) for members in clips.values() if members[0] not in left]
    if lost:
        remedy = "--join_annotations any or share keeps them"
        words += (
            f", of which {len(lost)} on which the rows do not agree are left out: {names_in_short(lost)} ({remedy})"
        )
    halved = sum(
        HALF in _means(labels, members).values()
        for members in clips.values()
        if method == "majority" and labels.multi_label
    )
    if halved:
        words += f", without labels that exactly half of the rows of a clip have (in {halved} clips)"
    if multi_label and not labels.multi_label:
        words += ", whose labels are independent of each other now"
    return result, firsts, words


def _means(labels: ClipLabels, members: list[int]) -> dict[str, float]:
    """The share of rows that have each label; of soft labels their mean."""
    found = sorted(labels.found(members))
    return {label: sum(labels.values(row).get(label, 0.0) for row in members) / len(members) for label in found}


def _joined(labels: ClipLabels, members: list[int], method: str) -> dict[str, float]:
    """The share of each label of a clip, those above 0."""
    means = _means(labels, members)
    if method == "share":
        return means
    if method == "majority":
        if labels.multi_label:
            return {label: 1.0 for label, mean in means.items() if mean > HALF}
        most = max(means.values())
        winners = [label for label, mean in means.items() if mean == most]
        return {winners[0]: 1.0} if len(winners) == 1 else {}
    choose = max if method == "any" else min
    values = {label: choose(labels.values(row).get(label, 0.0) for row in members) for label in means}
    return {label: value for label, value in values.items() if value}


def _votes_in_words(labels: ClipLabels, members: list[int], rows: datasets.Dataset) -> str:
    """The name of a clip's file, without its folder, and how many of its rows have each label."""
    counts = {label: round(mean * len(members)) for label, mean in _means(labels, members).items()}
    path = rows[members[0]]["audio"]["path"] if "audio" in rows.column_names else None
    name = os.path.basename(path) if path else f"row {members[0] + 1}"
    return f"{name} ({', '.join(f'{label} {count}' for label, count in counts.items())})"


def _refuse_torn(
    clips: dict[str, list[int]], columns: dict[str, list], data: DataArguments, row_name: Callable[[int], str]
):
    for name, values in columns.items():
        for members in clips.values():
            other = next((row for row in members if values[row] != values[members[0]]), None)
            if other is not None:
                raise DataError(
                    f"Rows {row_name(members[0])} and {row_name(other)} are of one clip, but have {values[members[0]]!r} and "
                    f"{values[other]!r} as their {name}. Give all rows of a clip the same, or leave out --join_annotations."
                )


def refuse_unjoined(rows: datasets.Dataset, labels: ClipLabels, chosen: list[int], data: DataArguments):
    """Refuse to draw a split of rows of which several are of one file with different labels.

    Drawn one by one they would be on both sides, and which of a file's labels is meant is for the user to say.

    Args:
        rows (`datasets.Dataset`): all clips.
        labels ([`ClipLabels`]): of all rows.
        chosen (`list[int]`): rows that the split is made of.
        data ([`DataArguments`]): what was given.

    Raises:
        DataError: if there are such; the message says which flags to type.
    """
    if data.grouping_field() or data.drop_duplicate_audio:
        return
    words = unjoined_in_words(rows, labels, chosen, data)
    if words:
        raise DataError(
            f"A split is to be made, and {words} (any where each row names one of several labels of a clip), or pass "
            "--group_column_name audio to keep every row, those of a file on one side of the split."
        )


def unjoined_in_words(
    rows: datasets.Dataset, labels: ClipLabels, chosen: list[int], data: DataArguments
) -> str | None:
    """Find files that stand in several rows with different labels, as of several annotators.

    Args:
        rows (`datasets.Dataset`): with the column `"audio"`; of features nothing is said.
        labels ([`ClipLabels`]): of all rows.
        chosen (`list[int]`): rows that are looked at.
        data ([`DataArguments`]): what was given.

    Returns:
        What to say of them, with the flags to type; `None` if there are none.
    """
    if data.join_annotations or "audio" not in rows.column_names:
        return None
    paths = audio_paths(rows)
    return _differing_in_words((paths[row], labels.values(row)) for row in chosen)


def unjoined_note(splits: datasets.DatasetDict, data: DataArguments) -> str | None:
    """Find files whose rows with different labels are in one split, of splits that are made.

    Args:
        splits (`datasets.DatasetDict`): from [`load_splits`].
        data ([`DataArguments`]): what was given; nothing is said to those who group by the file.

    Returns:
        What [`unjoined_in_words`] says of them; `None` if there are none.
    """
    train = splits["train"]
    if data.join_annotations or "audio" not in train.column_names or groups_by_file(data, train.column_names):
        return None
    names = label_names(train)
    clips = []
    for split in splits.values():
        if has_soft_labels(split):
            values = [dict(zip(names, shares, strict=True)) for shares in share_lists(split)]
        else:
            values = [dict.fromkeys((names[label] for label in labels), 1.0) for labels in label_lists(split)]
        clips += zip(audio_paths(split), values, strict=True)
    return _differing_in_words(clips)


def _differing_in_words(clips: Iterable[tuple[str | None, dict[str, float]]]) -> str | None:
    """What to say of paths that have different labels, of paths and the share of each label."""
    of_file: dict[str, list[dict[str, float]]] = defaultdict(list)
    for path, values in clips:
        if path is not None:
            of_file[path].append(values)
    differing = {path: found for path, found in of_file.items() if any(values != found[0] for values in found)}
    if not differing:
        return None
    shown = names_in_short(
        [
            f"{path} ({names_in_short(list(dict.fromkeys(_values_in_words(values) for values in found)))})"
            for path, found in differing.items()
        ]
    )
    return (
        f"{len(differing)} file(s) stand in several rows with different labels: {shown}. To make one clip of the rows of a "
        "file, pass --join_annotations any, majority, all or share"
    )


def _values_in_words(values: dict[str, float]) -> str:
    shown = [label if value == 1 else f"{value:.2g} {label}" for label, value in sorted(values.items()) if value]
    return " + ".join(shown) or "none"

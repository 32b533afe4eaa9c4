"""Files that look like marks of recordings beside them, where nobody asked for `--marks`."""

import os
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import datasets

from .grouping import file_paths
from .mark_files import named_after

TRACK = ".txt"  # the end of names of Audacity's and Raven's files, as [`named_after`] knows them
ADVICE = "--marks beside trains on the stretches that label tracks mark"


def tracks_beside(paths: Iterable[str | os.PathLike]) -> list[Path]:
    """Find the text files that are called like recordings beside them.

    Args:
        paths (iterable of `str` or `os.PathLike`): of the recordings.

    Returns:
        `list[Path]`: one for each recording that has some.
    """
    of_folder: dict[str, set[str]] = defaultdict(set)
    for path in paths:
        folder, name = os.path.split(path)
        of_folder[folder].add(name)
    found = []
    for folder, names in of_folder.items():
        try:
            texts = sorted(name for name in os.listdir(folder or ".") if name.lower().endswith(TRACK))
        except OSError:  # gone since
            continue
        called = {named_after(Path(text)): text for text in reversed(texts)}
        found += [
            Path(folder, text) for name in sorted(names) if (text := called.get(name) or called.get(Path(name).stem))
        ]
    return found


def tracks_beside_note(splits: dict[str, datasets.Dataset]) -> str | None:
    """Look whether most clips have a text file of their name beside them.

    Args:
        splits (`dict[str, datasets.Dataset]`): by side, with the undecoded column `"audio"`.

    Returns:
        `str`, *optional*: what to say of them, with the flag to type.
    """
    paths = [path for rows in splits.values() if "audio" in rows.column_names for path in file_paths(rows) if path]
    found = tracks_beside(paths)
    if 2 * len(found) <= sum(map(len, splits.values())):
        return None
    return f"text files lie beside {len(found)} clips ({found[0]} and so on) and are not read; {ADVICE}"

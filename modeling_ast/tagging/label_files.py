"""Names of label files: that of the recording, with as much of its folders as tells it from others of the same name."""

import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path


def label_file_names(files: Sequence[Path], suffix: str) -> dict[str, str]:
    """Name the label file of each recording.

    Args:
        files (sequence of `Path`): the recordings, each once.
        suffix (`str`): with which the names end.

    Returns:
        By recording its stem and the suffix. Recordings of one stem in several folders get the names of their folders before
        it, from the last one up to the first that differs; those of one folder keep their own suffix. Only names that are
        made like that of a third recording are still the same.
    """
    of_stem = defaultdict(list)
    for file in files:
        of_stem[file.stem].append(file)
    names = {}
    for stem, same in of_stem.items():
        folders = {file: Path(os.path.abspath(file)).parent.parts for file in same}
        depth = 0
        while len({folder[len(folder) - depth :] for folder in folders.values()}) < len(set(folders.values())):
            depth += 1
        for file in same:
            is_alone = list(folders.values()).count(folders[file]) == 1
            parts = [part.strip(os.sep) for part in folders[file][len(folders[file]) - depth :]]
            names[str(file)] = "_".join([*filter(None, parts), stem if is_alone else file.name]) + suffix
    return names

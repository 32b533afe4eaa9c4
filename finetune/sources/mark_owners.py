"""About which recording a mark is: paths that tables of other programs and machines have, and files of marks, by their folders.

What two paths have in common from their ends tells it. Folders above the recordings may be called anything on another machine, those
among the recordings may not: `site3/0600.wav` is not about `site1/0600.wav`.
"""

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from .split_names import side_of


def path_parts(name: str) -> tuple[str, ...]:
    """Take a path of any system apart.

    Args:
        name (`str`): with slashes or backslashes.

    Returns:
        Its folders and its name, without what leads upwards.
    """
    parts = [part for part in name.strip().replace("\\", "/").split("/") if part not in ("", ".")]
    upwards = [place for place, part in enumerate(parts) if part == ".."]
    return tuple(parts[upwards[-1] + 1 :] if upwards else parts)


class Owners:
    """The recordings that marks may be about.

    Args:
        files (iterable of `Path`): all recordings.
        source (`Path`): the folder that holds them.
        split_folders (iterable of `str`): folders that were named as splits, which paths elsewhere may be without.
    """

    def __init__(self, files: Iterable[Path], source: Path, split_folders: Iterable[str] = ()):
        self.source, self.split_folders = source, set(split_folders)
        self._by_name: dict[str, list[Path]] = defaultdict(list)
        self._by_stem: dict[str, list[Path]] = defaultdict(list)
        self._here: dict[tuple[Path, str], list[Path]] = defaultdict(list)  # by folder, and by name or stem
        self._below: dict[Path, tuple[str, ...]] = {}
        self._above = source.absolute().parts
        # By name or stem and the folders before it: by all of those below the source, without that of a split, too, and by
        # the last of them, however many. Of a name that every folder has, a path meets a few.
        self._by_all: dict[tuple[str, ...], list[Path]] = defaultdict(list)
        self._by_end: dict[tuple[str, ...], list[Path]] = defaultdict(list)
        self.folders: set[Path] = set()
        for path in files:
            self._by_name[path.name].append(path)
            self._by_stem[path.stem].append(path)
            self.folders.add(path.parent)
            below = self._below[path] = path.relative_to(source).parts
            for name in {path.name, path.stem}:
                self._here[path.parent, name].append(path)
                for folders in self._ways(below[:-1]):
                    self._by_all[*folders, name].append(path)
                for first in range(len(below)):
                    self._by_end[*below[first:-1], name].append(path)

    def called(self, name: str) -> list[Path]:
        """List the recordings of a name, whatever their folders.

        Args:
            name (`str`): with its suffix or without.

        Returns:
            The recordings.
        """
        return self._by_name.get(name) or self._by_stem.get(name) or []

    def beside(self, folder: Path, name: str) -> list[Path]:
        """List the recordings of a name in a folder.

        Args:
            folder (`Path`): which holds them itself.
            name (`str`): with their suffix or without.

        Returns:
            The recordings.
        """
        found = self._here.get((folder, name), [])
        return [path for path in found if path.name == name] or found

    def of_path(self, name: str) -> list[Path]:
        """List the recordings that a path may mean: of those that fit, the ones that have most of it in common.

        Args:
            name (`str`): the path, of this or another system, whole or in part.

        Returns:
            The recordings; none if those of its name lie in other folders.
        """
        parts = path_parts(name)
        common = {path: self._in_common(path, parts) for path in self._near(parts)} if parts else {}
        most = max(common.values(), default=0)
        found = [path for path, number in common.items() if number == most and most]
        if len(found) > 1:  # one may be meant from the folder of all on
            whole = [path for path in found if self._below[path][:-1] == parts[:-1]]
            found = whole if len(whole) == 1 else found
        return found

    def _is_split(self, folder: str) -> bool:
        return folder in self.split_folders or side_of(folder) is not None

    def _ways(self, folders: tuple[str, ...]) -> list[tuple[str, ...]]:
        """The folders below the source, and those that were there before one was moved into the folder of a split."""
        return [folders, folders[1:]] if folders and self._is_split(folders[0]) else [folders]

    def _near(self, parts: tuple[str, ...]) -> list[Path]:
        """The recordings of which all folders are the last of a path, or whose last are all of its."""
        found = dict.fromkeys(self._by_end.get(parts, []))
        for first in range(len(parts)):
            found |= dict.fromkeys(self._by_all.get(parts[first:], []))
        whole = parts[-1] in self._by_name
        return [path for path in found if not whole or path.name == parts[-1]]

    def _in_common(self, path: Path, parts: tuple[str, ...]) -> int:
        """How many parts agree from the end, 0 if a folder among the recordings does not; the names themselves agree."""
        below = self._below[path]
        other = parts[-len(below)] if len(parts) >= len(below) else ""
        best = 0
        for folders in self._ways(below[:-1])[: 1 if self._is_split(other) else 2]:
            whole = [*self._above, *folders, path.name]
            number = 1
            while number < min(len(whole), len(parts)) and whole[-number - 1] == parts[-number - 1]:
                number += 1
            if number >= min(len(folders) + 1, len(parts)):
                best = max(best, number)
        return best

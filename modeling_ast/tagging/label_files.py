"""Files that are written for each recording or beside the output: their names and places, before any work is done.

A name is that of the recording, with as much of its folders as tells it from others of the same name.
"""

import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from ..system.regular_files import what_is_special
from .unfinished import OutputError

PICTURE_SUFFIX = ".png"


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


def plan_pictures(picture: Path | None, files: Sequence[Path], output: Path | None = None) -> dict[str, Path]:
    """Decide where pictures are drawn, and make their folder.

    Args:
        picture (`Path`, *optional*): what was passed as `--picture`.
        files (sequence of `Path`): the recordings.
        output (`Path`, *optional*): what was passed as `--output`.

    Returns:
        The picture of each recording; none if no pictures were asked for.

    Raises:
        OutputError: if they have no folder to go to or the same name, or one cannot be written; see [`check_side_output`].
    """
    if picture is None:
        return {}
    if len(files) == 1 and not picture.is_dir():
        if picture.suffix.lower() != PICTURE_SUFFIX:
            raise OutputError(
                f"--picture {picture} is no name of a PNG. Pass one that ends in {PICTURE_SUFFIX}, or a folder."
            )
        check_side_output("picture", picture, output)
        return {str(files[0]): picture}
    if picture.suffix.lower() == PICTURE_SUFFIX or (os.path.lexists(picture) and not picture.is_dir()):
        raise OutputError(
            f"--picture {picture} is no folder, and there are {len(files)} audio files. Pass the name of a folder."
        )
    pictures = {file: picture / name for file, name in label_file_names(files, PICTURE_SUFFIX).items()}
    if len(set(pictures.values())) < len(files):
        raise OutputError(f"Two audio files would have one picture in {picture}. Tag them apart.")
    picture.mkdir(parents=True, exist_ok=True)
    return pictures


def refuse_to_overwrite(
    files: Iterable[Path], written: dict[str, Sequence[Path]], kind: str = "the recording"
) -> None:
    """Make sure that nothing is written over a file that is read, or over something else of the same run.

    Args:
        files (iterable of `Path`): what is read.
        written (`dict[str, sequence of Path]`): by flag what is written because of it.
        kind (`str`, defaults to `"the recording"`): what such a file is called.

    Raises:
        OutputError: if two of them are one file.
    """
    taken = {os.path.realpath(file): f"{kind} {file}" for file in files}
    for flag, paths in written.items():
        for path in paths:
            place = os.path.realpath(path)
            if place in taken:
                raise OutputError(f"--{flag} would write over {taken[place]}. Pass another name.")
            taken[place] = f"{path} of --{flag}"


def check_side_output(flag: str, path: Path | None, output: Path | None) -> None:
    """Make sure that a file can be written beside the output.

    Args:
        flag (`str`): name of the flag that names it.
        path (`Path`, *optional*): what was passed for it.
        output (`Path`, *optional*): what was passed as `--output`.

    Raises:
        OutputError: if it is the output itself, a folder or something that is no file, or in no folder.
    """
    if path is None:
        return
    if output is not None and path.absolute() == output.absolute():
        raise OutputError(f"--{flag} {path} is the --output itself. Pass another.")
    if path.is_dir() or what_is_special(path):
        raise OutputError(f"--{flag} {path} is no file. Pass the name of one.")
    if not path.parent.is_dir():
        raise OutputError(f"--{flag} {path}: there is no folder {path.parent}. Make it first, or pass another.")

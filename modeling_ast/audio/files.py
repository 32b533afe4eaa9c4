"""Audio files by their names."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from ..system.regular_files import what_is_special
from .errors import AudioError

# What libsndfile and FFmpeg tell by a file's content to be audio, or a film, whose sound is decoded. Not here: files without a
# header (.raw, .pcm, .g722), of which nobody can tell the sampling rate; suffixes that mostly mean something else (.mat, .iff,
# .ts); and formats of computer games.
# fmt: off
AUDIO_SUFFIXES = frozenset((
    # uncompressed, with a header
    ".wav", ".wave", ".wavex", ".bwf", ".rf64", ".w64", ".aif", ".aiff", ".aifc", ".afc", ".au", ".snd", ".caf",
    ".voc", ".sph", ".nist", ".avr", ".htk", ".ircam", ".sf", ".mat4", ".mat5",
    ".mpc2k", ".paf", ".fap", ".pvf", ".sds", ".svx", ".8svx", ".16svx", ".sox", ".wve", ".xi",
    # without loss
    ".flac", ".ape", ".tta", ".tak", ".wv", ".shn", ".mlp", ".thd", ".dsf", ".dff",
    # with loss
    ".mp1", ".mp2", ".mp3", ".mpa", ".m2a", ".ogg", ".oga", ".opus", ".spx", ".aac", ".adts", ".latm", ".loas", ".m4a",
    ".m4b", ".m4r", ".wma", ".amr", ".awb", ".3ga", ".ac3", ".eac3", ".ec3",
    ".dts", ".dtshd", ".mpc", ".mpp", ".ra", ".qcp", ".gsm", ".c2", ".dss", ".vqf", ".oma", ".aa3", ".mka", ".weba",
    # films
    ".mp4", ".m4v", ".mov", ".qt", ".3gp", ".3g2", ".f4v", ".isma", ".webm", ".mkv", ".avi", ".mpg", ".mpeg", ".vob",
    ".m2ts", ".mts", ".asf", ".wmv", ".flv", ".ogv", ".ogm", ".rm", ".mxf", ".nut",
))
# fmt: on
EXAMPLES = (".wav", ".flac", ".mp3", ".ogg", ".m4a")


def suffixes_in_words() -> str:
    """Name the suffixes by which audio files are found, for messages: some, and how many there are besides.

    Returns:
        Words.
    """
    return f"{', '.join(EXAMPLES)} or one of {len(AUDIO_SUFFIXES) - len(EXAMPLES)} others"


def find_audio_files(
    paths: str | os.PathLike | Iterable[str | os.PathLike], left_out: list[str] | None = None
) -> list[Path]:
    """List audio files: files as they are given, and what the folders among `paths` hold at any depth.

    Args:
        paths (`str`, `os.PathLike` or an iterable of them):
            Files, taken whatever their suffix, and folders, searched for the suffixes in `AUDIO_SUFFIXES`.
        left_out (`list[str]`, *optional*): to which a sentence is added for each thing that was left out in a folder.

    Returns:
        Each file once, in the order of `paths`, a folder's files sorted; hidden files and folders are left out.

    Raises:
        AudioError: if a path does not exist or a folder holds no audio file.
    """
    files = []
    for path in map(Path, [paths] if isinstance(paths, (str, os.PathLike)) else paths):
        if not os.path.lexists(path):
            raise AudioError(f"There is no file or folder {path} (looked in {Path.cwd()}). Check the spelling.")
        if not path.is_dir():
            files.append(path)
            continue
        found, reasons = search_folder(path)
        if not found:
            raise AudioError(
                f"{path} and the folders below it hold no audio file. Looked for names ending in "
                f"{suffixes_in_words()}; a file with another ending must be named itself. {' '.join(reasons)}".rstrip()
            )
        files.extend(found)
        if left_out is not None:
            left_out.extend(reasons)
    return list(dict.fromkeys(files))


def search_folder(folder: Path) -> tuple[list[Path], list[str]]:
    """What [`walk_folder`] finds in a folder.

    Args:
        folder (`Path`): where to look.

    Returns:
        The audio files, sorted, and what was left out, in sentences.
    """
    files, left_out = [], []
    for path, reason in walk_folder(folder):
        if reason is None:
            files.append(path)
        else:
            left_out.append(f"{path} is left out: {reason}")
    return sorted(files), left_out


def walk_folder(folder: Path) -> Iterator[tuple[Path, str | None]]:
    """The audio files of a folder at any depth, also of folders that links lead to, each folder searched once.

    Args:
        folder (`Path`): hidden files and folders in it are passed over.

    Yields:
        A file and `None`, or something that is left out and why: a pipe, device or socket with the name of an audio file, a
        link in a circle or to a folder that is searched anyway, a folder that cannot be opened. A link to a file that is
        not there counts as a file, so that whoever opens it tells of it.
    """
    searched = set()
    # Links come last, so that a file is found under its own name rather than through one.
    folders, links = [folder], deque()
    while folders or links:
        here = folders.pop() if folders else links.popleft()
        try:
            status = os.stat(here)
            if (status.st_dev, status.st_ino) in searched:
                yield here, "it leads to a folder whose files are taken already."
                continue
            searched.add((status.st_dev, status.st_ino))
            with os.scandir(here) as entries:
                visible = sorted((entry for entry in entries if not entry.name.startswith(".")), key=_name)
        except OSError as error:
            yield here, f"it cannot be opened ({error.strerror})."
            continue
        for entry in visible:
            path = here / entry.name
            if _is(entry.is_dir):
                (links if entry.is_symlink() else folders).append(path)
            elif path.suffix.lower() in AUDIO_SUFFIXES:
                kind = None if _is(entry.is_file) else what_is_special(path)
                yield path, kind and f"it is {kind}"


def _name(entry: os.DirEntry) -> str:
    return entry.name


def _is(kind: Callable[[], bool]) -> bool:
    try:
        return kind()
    except OSError:  # a link in a circle
        return False

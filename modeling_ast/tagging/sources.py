"""What is tagged: files, folders, patterns such as `*.wav`, and lists of names in a file or from standard input."""

import glob
import os
import sys
from collections.abc import Iterable
from pathlib import Path

from ..audio.errors import AudioError
from ..audio.files import find_audio_files
from ..system.regular_files import SpecialFileError, only_files

STANDARD_INPUT = "-"


def tagged_files(
    paths: Iterable[str], files_from: str | None, left_out: list[str] | None = None, lines_may_lack: bool = False
) -> list[Path]:
    """List the audio files that were asked for.

    Args:
        paths (iterable of `str`): files, folders, and patterns as a shell knows them, `**` for folders at any depth; what is
            there under a name is no pattern.
        files_from (`str`, *optional*): a file with a path on each line, or `-` for standard input.
        left_out (`list[str]`, *optional*): see [`find_audio_files`].
        lines_may_lack (`bool`, defaults to `False`): whether files of the list that are not there are given, too, for whoever
            opens them to tell; if all of a list are not there, it is refused nevertheless.

    Returns:
        Each file once, in their order: first `paths`, then those of the list.

    Raises:
        AudioError: if a path does not exist, a pattern fits nothing, a folder holds no audio file, or the list is none.
    """
    named = [match for path in paths for match in matches(path)]
    listed = [] if files_from is None else _listed(files_from)
    if not lines_may_lack or not any(map(os.path.lexists, listed)):
        return find_audio_files([*named, *listed], left_out)
    files = find_audio_files(named, left_out)
    for line in listed:
        files += find_audio_files(line, left_out) if os.path.lexists(line) else [Path(line)]
    return list(dict.fromkeys(files))


def matches(path: str) -> list[str]:
    """What a name on the command line means: itself, or the files that fit it as a pattern.

    Args:
        path (`str`): a file, a folder or a pattern.

    Returns:
        `list[str]`.

    Raises:
        AudioError: if a pattern fits nothing.
    """
    if os.path.lexists(path) or not glob.has_magic(path):
        return [path]
    found = sorted(glob.glob(path, recursive=True))
    if not found:
        raise AudioError(f"The pattern {path} fits no file or folder (looked in {Path.cwd()}). Check the spelling.")
    return found


def _listed(files_from: str) -> list[str]:
    name = "standard input" if files_from == STANDARD_INPUT else files_from
    try:
        if files_from == STANDARD_INPUT:
            content = sys.stdin.buffer.read()
        else:
            with open(files_from, "rb", opener=only_files) as file:
                content = file.read()
    except SpecialFileError as error:
        raise AudioError(f"--files_from: {error}") from None
    except OSError as error:
        raise list_unreadable(files_from, error) from error
    if b"\0" in content:
        raise AudioError(f"--files_from: {name} is no text. Pass a file with a path on each line.")
    lines = [os.fsdecode(line) for line in content.removeprefix(b"\xef\xbb\xbf").splitlines()]
    paths = [line for line in lines if line.strip()]
    if not paths:
        raise AudioError(f"--files_from: {name} names no file. Write a path on each line.")
    return paths


def list_unreadable(files_from: str, error: OSError) -> AudioError:
    """Say that a list cannot be read.

    Args:
        files_from (`str`): its name.
        error (`OSError`): why.

    Returns:
        [`AudioError`].
    """
    return AudioError(
        f"--files_from {files_from} cannot be read: {error.strerror}. Pass a file with a path on each line, or - for "
        "standard input."
    )

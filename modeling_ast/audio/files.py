"""Audio files by their names."""

import os
from collections.abc import Iterable
from pathlib import Path

from .errors import AudioError

# fmt: off
AUDIO_SUFFIXES = frozenset((
    ".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".m4a", ".m4b", ".mp4", ".aac", ".aif", ".aiff", ".aifc", ".au",
    ".snd", ".caf", ".w64", ".rf64", ".wma", ".webm", ".mka", ".amr", ".3gp", ".ac3", ".wv", ".ape",
))
# fmt: on


def find_audio_files(paths: str | os.PathLike | Iterable[str | os.PathLike]) -> list[Path]:
    """List audio files: files as they are given, and what the folders among `paths` hold at any depth.

    Args:
        paths (`str`, `os.PathLike` or an iterable of them):
            Files, taken whatever their suffix, and folders, searched for the suffixes in `AUDIO_SUFFIXES`.

    Returns:
        Each file once, in the order of `paths`, a folder's files sorted; hidden files and folders are left out.

    Raises:
        AudioError: if a path does not exist or a folder holds no audio file.
    """
    files = []
    for path in map(Path, [paths] if isinstance(paths, (str, os.PathLike)) else paths):
        if not path.exists():
            raise AudioError(f"There is no file or folder {path} (looked in {Path.cwd()}). Check the spelling.")
        if not path.is_dir():
            files.append(path)
            continue
        found = sorted(
            file for file in path.rglob("*") if _is_visible_audio(file.relative_to(path)) and file.is_file()
        )
        if not found:
            raise AudioError(
                f"{path} and the folders below it hold no audio file. Looked for names ending in "
                f"{' '.join(sorted(AUDIO_SUFFIXES))}; a file with another ending must be named itself."
            )
        files.extend(found)
    return list(dict.fromkeys(files))


def _is_visible_audio(path: Path) -> bool:
    return path.suffix.lower() in AUDIO_SUFFIXES and not any(part.startswith(".") for part in path.parts)

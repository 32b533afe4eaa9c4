"""Audio files by their names."""

import os
from collections.abc import Iterable
from pathlib import Path

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
    """The suffixes by which audio files are found, for messages: some, and how many there are besides."""
    return f"{', '.join(EXAMPLES)} or one of {len(AUDIO_SUFFIXES) - len(EXAMPLES)} others"


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
                f"{suffixes_in_words()}; a file with another ending must be named itself."
            )
        files.extend(found)
    return list(dict.fromkeys(files))


def _is_visible_audio(path: Path) -> bool:
    return path.suffix.lower() in AUDIO_SUFFIXES and not any(part.startswith(".") for part in path.parts)

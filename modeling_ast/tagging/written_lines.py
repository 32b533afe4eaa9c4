"""Lines on a stream and in a file."""

from collections.abc import Iterable
from pathlib import Path

from ..system.atomic_files import open_atomically


def print_lines(lines: Iterable[str], stream=None) -> None:
    """Print lines.

    Args:
        lines (iterable of `str`): without line ends.
        stream (`TextIO`, *optional*): where to, by default standard output.
    """
    for line in lines:
        print(line, file=stream)


def write_lines(lines: Iterable[str], destination: Path) -> None:
    """Write a text file that appears under its name only when it is complete.

    Args:
        lines (iterable of `str`): without line ends.
        destination (`Path`): the file.
    """
    # File names that are not valid UTF-8 are written back as the bytes they are.
    with open_atomically(destination, "w", encoding="utf-8", errors="surrogateescape", newline="\n") as file:
        file.writelines(f"{line}\n" for line in lines)

"""What commands check of a checkpoint folder before anything slow; importing nothing but the standard library."""

import os
import re
from pathlib import Path

# Of the file of weights of an exported model beyond 2 GB, behind the name of its graph. A graph names its weights, and the second
# name is for those that take the place of others, which have to stay whole until the graph is replaced.
DATA_SUFFIXES = (".data", ".2.data")
# As a graph writes where a tensor's weights lie: a pair of texts (fields 1 and 2), whose second one follows with its length, here in up to two bytes.
_LOCATION = re.compile(rb"\n\x08location\x12([\x01-\x7f]|[\x80-\xff][\x01-\x7f])")
_PIECE, _LONGEST_NAME = 1 << 20, 1 << 12  # bytes


def check_checkpoint_dir(folder: str | os.PathLike) -> None:
    """Check that a folder is there, for commands that take no Hub id.

    Args:
        folder (`str` or `os.PathLike`): what was given as CHECKPOINT_DIR.

    Raises:
        ValueError: if it is not.
    """
    if not Path(folder).is_dir():
        raise ValueError(
            f"There is no folder {folder}. Pass one that ast-finetune or ast-convert wrote as CHECKPOINT_DIR; "
            "a model of the Hub becomes one with: hf download user/name --local-dir CHECKPOINT_DIR"
        )


def weights_beside(path: str | os.PathLike) -> list[Path]:
    """List where the weights of an exported graph may lie.

    Args:
        path (`str` or `os.PathLike`): the graph.

    Returns:
        Files beside it, which need not be there.
    """
    path = Path(path)
    return [path.with_name(path.name + suffix) for suffix in DATA_SUFFIXES]


def weights_of(path: str | os.PathLike) -> list[Path]:
    """List the files beside an exported graph that it names for its weights; without reading it as a graph.

    Args:
        path (`str` or `os.PathLike`): the graph.

    Returns:
        Files beside it. What a run that was killed left there is not among them.

    Raises:
        OSError: if the graph cannot be read.
    """
    path, names, rest = Path(path), set(), b""
    with open(path, "rb") as file:
        while piece := file.read(_PIECE):
            seen = rest + piece
            for found in _LOCATION.finditer(seen):
                low, *high = found[1]
                length = low & 127 | (high[0] << 7 if high else 0)
                name = seen[found.end() : found.end() + length]
                names |= {name} if len(name) == length else set()  # else it is whole in the next piece
            rest = seen[-_LONGEST_NAME:]
    return sorted(path.with_name(os.fsdecode(name)) for name in names if name and b"/" not in name)

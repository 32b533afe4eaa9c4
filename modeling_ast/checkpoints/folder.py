"""What commands check of a checkpoint folder before anything slow; importing nothing but the standard library."""

import os
from pathlib import Path

# Of the file of weights of an exported model beyond 2 GB, behind the name of its graph. A graph names its weights, and the second
# name is for those that take the place of others, which have to stay whole until the graph is replaced.
DATA_SUFFIXES = (".data", ".2.data")


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

"""Checkpoints that this package ships, called by a name instead of a folder or a Hub id.

A folder of that name where the command is run comes first, as files do everywhere in the kit; `./ast-small` never means the
shipped one. Importing this takes neither torch nor Transformers.
"""

import os
from pathlib import Path

from .fields import CONFIG, CheckpointError

AST_SMALL = "ast-small"
_FOLDERS = {AST_SMALL: Path(__file__).parents[1] / "ast_small"}


def is_shipped(model_name_or_path: str | os.PathLike | None) -> bool:
    """Tell whether a name is that of a checkpoint of this package, and of no folder here.

    Args:
        model_name_or_path (`str` or `os.PathLike`, *optional*): as a user gave it.

    Returns:
        `bool`.
    """
    if not isinstance(model_name_or_path, str | os.PathLike):
        return False
    return os.fspath(model_name_or_path) in _FOLDERS and not os.path.lexists(model_name_or_path)


def is_there(name: str) -> bool:
    """Tell whether the files of a shipped checkpoint were installed.

    Args:
        name (`str`): of a checkpoint of this package.

    Returns:
        `bool`.
    """
    return (_FOLDERS[name] / CONFIG).is_file()


def folder_of(model_name_or_path: str | os.PathLike | None) -> str | os.PathLike | None:
    """Put the folder of a shipped checkpoint in place of its name.

    Args:
        model_name_or_path (`str` or `os.PathLike`, *optional*): a folder, a Hub id, or the name of a shipped checkpoint, such
            as `"ast-small"`.

    Returns:
        `str` or `os.PathLike`: the folder of a shipped one, in which stock Transformers finds it too; all else as it was given.

    Raises:
        CheckpointError: if its files are not there.
    """
    if not is_shipped(model_name_or_path):
        return model_name_or_path
    name = os.fspath(model_name_or_path)
    if not is_there(name):
        raise CheckpointError(
            f"{name} is the name of a checkpoint that the kit ships, and {_FOLDERS[name]} does not hold "
            "it. In a checkout `python -m pretraining.ast_small OUT_DIR` makes it; else pass a folder or a Hub id such as user/name."
        )
    return str(_FOLDERS[name])

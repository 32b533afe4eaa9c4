"""Folders that `save_to_disk` of `datasets` has written: a `Dataset`, a `DatasetDict`, or a folder of the former."""

from pathlib import Path

from ..system.regular_files import refuse_special

STATE, INFO, SPLITS = "state.json", "dataset_info.json", "dataset_dict.json"  # of datasets.config


class SavedDataSetError(ValueError):
    """A folder that `save_to_disk` has written, of which a part is missing or damaged; the message says what to do about it."""


def is_saved_data_set(folder: Path) -> bool:
    """Tell whether a folder holds what `save_to_disk` writes, or a folder of it for each split.

    Args:
        folder (`Path`): which need not be there.

    Returns:
        `True` if it does.
    """
    return (folder / SPLITS).is_file() or _is_saved(folder) or bool(_saved_splits(folder))


def _is_saved(folder: Path) -> bool:
    return (folder / STATE).is_file() and (folder / INFO).is_file()


def _saved_splits(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if _is_saved(path)) if folder.is_dir() else []


def load_saved(folder: Path):
    """Load what was saved, mapped into memory and not decoded.

    Args:
        folder (`Path`): for which [`is_saved_data_set`] is true.

    Returns:
        `datasets.Dataset` or `datasets.DatasetDict`, as it was saved.

    Raises:
        SavedDataSetError: if a part of it is missing or damaged.
    """
    import datasets

    for path in folder.rglob("*"):
        refuse_special(path)
    try:
        if (folder / SPLITS).is_file() or _is_saved(folder):
            return datasets.load_from_disk(str(folder))
        return datasets.DatasetDict({path.name: datasets.load_from_disk(str(path)) for path in _saved_splits(folder)})
    except (OSError, ValueError, KeyError) as error:  # Arrow's errors are ValueErrors
        raise SavedDataSetError(
            f"{folder} looks like a data set that save_to_disk has written, but cannot be loaded ({type(error).__name__}: "
            f"{str(error).rstrip('.')}). Copy it again with all of its files, or save it again."
        ) from error

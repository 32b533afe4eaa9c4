"""Data sets of the Hub, and folders laid out like one, through `datasets`."""

from pathlib import Path

import datasets
from datasets.exceptions import DatasetsError

from modeling_ast.system.surroundings import hub_hint

from ..arguments.groups import DataArguments
from .data_errors import DataError


def load_hub(data: DataArguments, folder: Path | None = None) -> datasets.Dataset | datasets.DatasetDict:
    """Load a data set of the Hub, or a folder laid out like one.

    Args:
        data ([`DataArguments`]): its `dataset_name` and `dataset_config_name`.
        folder (`Path`, *optional*): to load in place of what the name says.

    Returns:
        The data set or its splits.

    Raises:
        DataError: if it cannot be had, for whatever reason the library gives.
    """
    try:
        return datasets.load_dataset(data.dataset_name if folder is None else str(folder), data.dataset_config_name)
    except (OSError, ValueError, RuntimeError, DatasetsError) as error:
        # A data set of several configurations is a ValueError that lists them, one with a loading script a RuntimeError.
        raise DataError(
            f"{data.dataset_name} is neither a folder or table here nor a data set that the Hub gives ({error}). Check "
            f"--dataset_name and --dataset_config_name.{hub_hint(is_here=folder is not None)}"
        ) from error

"""What is wrong with a data set, in words: the error, and the lists of names that its messages hold."""

import math
import os
from collections import Counter
from collections.abc import Iterable

from modeling_ast.audio import AudioError
from modeling_ast.system.regular_files import what_is_special

OTHER_SEPARATORS = ";\t|"  # of tables that are no CSV
NAMES_SHOWN = 5  # of the files or labels listed in a message


class DataError(ValueError):
    """The data set cannot be trained on as it is; the message says what to type."""


def names_in_short(names: list) -> str:
    """Write the first of several names for a message.

    Args:
        names (`list`): all of them.

    Returns:
        The first five, and how many more there are.
    """
    shown = ", ".join(str(name) for name in names[:NAMES_SHOWN])
    return shown if len(names) <= NAMES_SHOWN else f"{shown} and {len(names) - NAMES_SHOWN} more"


def counted(counts: Counter) -> str:
    """Write names with the number of their clips for a message.

    Args:
        counts (`Counter`): clips of each name.

    Returns:
        The first five, and how many more there are.
    """
    shown = ", ".join(f"{name!r} ({count} clips)" for name, count in list(counts.items())[:NAMES_SHOWN])
    return shown if len(counts) <= NAMES_SHOWN else f"{shown} and {len(counts) - NAMES_SHOWN} more"


def own_message(error: Exception) -> str:
    """Take the traceback off a message that a loader's worker has put before it.

    Args:
        error (`Exception`): what was raised.

    Returns:
        The message alone.
    """
    return str(error).rpartition(f"{AudioError.__name__}: ")[2].strip()


def missing_column(flag: str, name: str, columns: Iterable[str]) -> DataError:
    """Make the error for a column that is not there.

    Args:
        flag (`str`): field that named it, without dashes.
        name (`str`): the column.
        columns (iterable of `str`): those that there are.

    Returns:
        [`DataError`], to be raised.
    """
    columns = list(columns)
    separator = next((mark for mark in OTHER_SEPARATORS if len(columns) == 1 and mark in columns[0]), None)
    if separator is not None:  # as spreadsheets write where the comma stands in numbers
        return DataError(
            f"{flag}={name!r} is not in the data set: its only column is {columns[0]!r}, as the table separates its columns "
            f"with {separator!r}. Save it as CSV with commas."
        )
    found = ", ".join(repr(column) for column in columns)
    return DataError(f"{flag}={name!r} is not in the data set; it has {found}. Pass --{flag} with one of these.")


def require_column(flag: str, name: str, columns: Iterable[str]):
    """Refuse data without a column that was asked for.

    Args:
        flag (`str`): field that named it, without dashes.
        name (`str`): the column.
        columns (iterable of `str`): those that there are.

    Raises:
        DataError: if it is not there; the message says which are.
    """
    if name not in columns:
        raise missing_column(flag, name, columns)


def is_empty(value) -> bool:
    """Tell whether a cell holds nothing: an empty or blank text, a null of JSON or Parquet, or what pandas puts in their place.

    Args:
        value: of the cell.

    Returns:
        `True` if it holds nothing.
    """
    return (
        value is None
        or (isinstance(value, str) and not value.strip())
        or (isinstance(value, float) and math.isnan(value))
    )


def refuse_no_files(name: str, paths: Iterable[str]):
    """Refuse pipes, devices and folders among what should be files; what is not there at all passes.

    Args:
        name (`str`): of what names them, such as a table.
        paths (iterable of `str`): of which it is known that there are no files.

    Raises:
        DataError: if there is something else.
    """
    kinds = {path: "a folder." if os.path.isdir(path) else what_is_special(path) for path in paths}
    found = [f"{path} is {kind}" for path, kind in kinds.items() if kind]
    if found:
        raise DataError(
            f"{name} names {len(found)} path(s) that are no files: {names_in_short(found)} Correct or remove these rows."
        )

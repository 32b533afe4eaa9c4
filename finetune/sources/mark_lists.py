"""Tables of marks with a row for each recording, whose cells hold lists: as many data sets of events are stored.

Either start, end and label are columns of lists, or one column holds lists of events (or lists by field, as older `datasets`
store these), each with a start, an end and a label.
"""

from collections.abc import Collection, Mapping

import datasets
import numpy as np

from .data_errors import DataError
from .stretches import stretch_columns


def with_names(values: list, feature) -> list:
    """Put names in place of the indices of labels, within lists and fields, too.

    Args:
        values (`list`): of a column.
        feature: its type in `datasets`.

    Returns:
        The values, with `None` for -1, which stands for no label.
    """
    return [_with_names(value, feature) for value in values] if _has_classes(feature) else values


def _has_classes(feature) -> bool:
    if isinstance(feature, dict):
        return any(map(_has_classes, feature.values()))
    if isinstance(feature, list):
        return _has_classes(feature[0])
    inner = getattr(feature, "feature", None)
    return isinstance(feature, datasets.ClassLabel) or (inner is not None and _has_classes(inner))


def _with_names(value, feature):
    if isinstance(feature, datasets.ClassLabel):
        return None if value is None or value < 0 else feature.int2str(value)
    if isinstance(feature, dict) and isinstance(value, dict):
        return {name: _with_names(inner, feature.get(name)) for name, inner in value.items()}
    inner = feature[0] if isinstance(feature, list) else getattr(feature, "feature", None)
    if inner is not None and isinstance(value, list):
        return [_with_names(item, inner) for item in value]
    return value


def with_fields(
    columns: dict[str, list], name: str, of_files: Collection[str], of_labels: Collection[str]
) -> dict[str, list]:
    """Put the fields of events, which one column holds, into columns of their own.

    Args:
        columns (`dict[str, list]`): of a table.
        name (`str`): what messages call it.
        of_files (collection of `str`): names, in small letters, of fields that are passed over: files are columns of their own.
        of_labels (collection of `str`): names of columns of labels, likewise.

    Returns:
        The columns, with those of the fields in place of that of the events, if there is one. Times, and labels if the events have
        them, are those of the events then, and not those of the recording.

    Raises:
        DataError: if there are several of them.
    """
    plain = {column: [_plain(value) for value in values] for column, values in columns.items()}
    fields = {column: found for column, values in plain.items() if len(stretch_columns(found := _fields(values))) == 2}
    if len(fields) > 1:
        raise DataError(
            f"{name} has several columns of events: {', '.join(map(repr, fields))}. Leave all but one of them out of the data set."
        )
    for column, found in fields.items():
        taken = [field for field in found if field.casefold() not in of_files]
        others = [other for other in plain if other not in {column, *taken}]
        left = {*stretch_columns(others)}
        if any(field.casefold() in of_labels for field in taken):
            left |= {other for other in others if other.casefold() in of_labels}
        of_events = {field: [_field(value, field) for value in plain[column]] for field in taken}
        return of_events | {other: plain[other] for other in others if other not in left}
    return plain


def one_a_row(
    columns: dict[str, list], times: list[str], others: list[str], name: str
) -> tuple[dict[str, list], list[int]]:
    """Give each stretch a row of its own where cells hold lists.

    Args:
        columns (`dict[str, list]`): of a table.
        times (`list[str]`): columns of times.
        others (`list[str]`): columns of labels and frequencies, which are of the stretches, too.
        name (`str`): what messages call it.

    Returns:
        The columns, of which those that are not of the stretches have the same value in all rows of a list, and from which row each
        is, from 0. An empty list gives a row with nothing in the columns of the stretches.

    Raises:
        DataError: if the lists of a row are not as long as each other.
    """
    of_stretches = [*times, *others]
    if not any(isinstance(value, list) for column in of_stretches for value in columns[column]):
        return columns, list(range(len(columns[times[0]])))
    rows: list[int] = []
    found: dict[str, list] = {column: [] for column in columns}
    for row in range(len(columns[times[0]])):
        lengths = {
            column: len(columns[column][row]) for column in of_stretches if isinstance(columns[column][row], list)
        }
        if len(set(lengths.values())) > 1:
            told = ", ".join(f"{count} of {column!r}" for column, count in lengths.items())
            raise DataError(
                f"{name}, row {row + 1}: {told}. Write as many values of each as there are stretches in the recording."
            )
        number = next(iter(lengths.values()), 1)
        for column, values in columns.items():
            if column not in of_stretches:
                found[column] += [values[row]] * max(number, 1)
            elif column in lengths:
                found[column] += values[row] or [None]
            else:
                found[column] += [values[row] if number else None] * max(number, 1)
        rows += [row] * max(number, 1)
    return found, rows


def _plain(value):
    """A cell with lists in place of arrays, as Parquet is read by pandas."""
    return value.tolist() if isinstance(value, np.ndarray) else value


def _fields(values: list) -> list[str]:
    """Names of the fields of events that a column holds, in their order."""
    fields: dict[str, None] = {}
    for value in values:
        for event in value if isinstance(value, list) else [value]:
            if not isinstance(event, Mapping):
                if event is None:
                    continue
                return []
            fields |= dict.fromkeys(map(str, event))
    return list(fields)


def _field(value, field: str):
    """What a cell of events has in a field."""
    if isinstance(value, list):
        return [None if event is None else _plain(event.get(field)) for event in value]
    return [] if value is None else _plain(value.get(field))

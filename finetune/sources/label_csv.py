"""The original's label CSV, such as its `class_labels_indices.csv` of AudioSet."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from .data_errors import DataError, names_in_short

LABEL_CSV_COLUMNS = ("index", "mid", "display_name")


@dataclass(frozen=True)
class LabelTable:
    """Which labels there are, in which order, and under which names data may call them.

    Args:
        names (`list[str]`): display names in the order of the model's outputs.
        name_of (`dict[str, str]`): display name of every mid and of every display name.
    """

    names: list[str]
    name_of: dict[str, str]


def read_label_csv(path: str | Path) -> LabelTable:
    """Read the original's label CSV.

    Args:
        path (`str` or `Path`): CSV with the columns `index`, `mid` and `display_name`.

    Returns:
        [`LabelTable`].

    Raises:
        DataError: if it is not there, lacks a column, or an index, mid or name is missing or doubled.
    """
    try:
        # Everything as text: a label "None" stays what it is.
        frame = pd.read_csv(path, dtype=str, keep_default_na=False, skipinitialspace=True, encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise DataError(f"label_csv={str(path)!r} cannot be read: {error}. Correct --label_csv.") from error
    missing = [name for name in LABEL_CSV_COLUMNS if name not in frame.columns]
    if missing:
        raise DataError(
            f"label_csv={str(path)!r} has the columns {', '.join(map(repr, frame.columns))} without "
            f"{', '.join(map(repr, missing))}. Expected the original's {','.join(LABEL_CSV_COLUMNS)}; add the header line "
            "or pass another --label_csv."
        )
    for column in LABEL_CSV_COLUMNS:
        doubled = [value for value, count in Counter(frame[column]).items() if count > 1 or not value.strip()]
        if doubled:
            raise DataError(
                f"label_csv={str(path)!r} holds {names_in_short([repr(value) for value in doubled])} more than once or empty in the "
                f"column {column!r}. Give every label an index, a mid and a name of its own."
            )
    wanted = [str(index) for index in range(len(frame))]
    if set(frame["index"]) != set(wanted):
        raise DataError(
            f"label_csv={str(path)!r} has the indices {names_in_short(frame['index'].tolist())}, expected 0 to {len(frame) - 1}, each "
            "once. Number the labels so, in the order of the outputs."
        )
    frame = frame.set_index("index").loc[wanted]
    names = frame["display_name"].tolist()
    return LabelTable(names, dict(zip(names, names, strict=True)) | dict(zip(frame["mid"], names, strict=True)))

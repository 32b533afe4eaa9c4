"""Label names: the three tables of the released checkpoints, and tables of the user's own."""

import csv
import difflib
import io
import json
from pathlib import Path

from modeling_ast.system.regular_files import what_is_special

from .errors import ConversionError
from .original_datasets import ORIGINAL_DATASETS, OriginalDataset

NAME_COLUMNS = ("display_name", "label", "name")


def read_labels(name_or_file: str) -> list[str]:
    """Read label names in the order of a model's outputs.

    Args:
        name_or_file (`str`): a built-in table (`"audioset"`, `"speech_commands_v2"`, `"esc50"`); a CSV with a column
            `display_name`, `label` or `name` and perhaps `index`, as the original's; or a JSON with a list of names, an
            object of either direction (`{"0": "dog"}`, `{"dog": 0}`), or a `config.json`.

    Returns:
        `list[str]`.

    Raises:
        ConversionError: if there is no such table, an index is missing or doubled, or a name is doubled or empty.
    """
    built_in = ORIGINAL_DATASETS.get(name_or_file)
    path = built_in.label_table if built_in else Path(name_or_file)
    if kind := what_is_special(path):
        raise ConversionError(f"--labels {path} is {kind}")
    if not path.is_file():
        close = difflib.get_close_matches(name_or_file, ORIGINAL_DATASETS, n=1)
        guess = f" Did you mean {close[0]}?" if close else ""
        raise ConversionError(
            f"--labels {name_or_file} is neither a file nor a built-in table ({', '.join(ORIGINAL_DATASETS)})."
            f"{guess} Give a CSV or JSON file of the names in the order of the outputs."
        )
    try:
        text = path.read_text(encoding="utf-8-sig")
        by_index = _from_json(json.loads(text)) if path.suffix.lower() == ".json" else _from_csv(text)
    except ConversionError as error:
        raise ConversionError(f"{path}: {error}") from None
    except (ValueError, csv.Error) as error:
        raise ConversionError(f"{path} cannot be read as a label table: {error}. Give a CSV or JSON file.") from None
    labels = [name for _, name in sorted(by_index)]
    indices = sorted(index for index, _ in by_index)
    if indices != list(range(len(labels))):
        raise ConversionError(
            f"{path}: the indices of {len(labels)} labels are not 0 to {len(labels) - 1}, each once. Number them so, in "
            "the order of the outputs."
        )
    doubled = sorted({name for name in labels if labels.count(name) > 1})
    if not labels or doubled or not all(name.strip() for name in labels):
        fault = f"{', '.join(doubled[:5])} more than once" if doubled else "no label or an empty one"
        raise ConversionError(f"{path} holds {fault}. Give every output a name of its own.")
    return labels


def dataset_of(labels: list[str]) -> OriginalDataset | None:
    """The authors' data set that has these labels.

    Args:
        labels (`list[str]`): names in the order of the outputs.

    Returns:
        [`OriginalDataset`], or `None` if these are none's labels in this order.
    """
    return next((dataset for name, dataset in ORIGINAL_DATASETS.items() if read_labels(name) == labels), None)


def _from_csv(text: str) -> list[tuple[int, str]]:
    reader = csv.DictReader(io.StringIO(text, newline=""), skipinitialspace=True)
    reader.fieldnames = [column.strip().lower() for column in reader.fieldnames or []]
    columns, rows = reader.fieldnames, list(reader)
    name_column = next((column for column in NAME_COLUMNS if column in columns), None)
    if name_column is None:
        raise ConversionError(
            f"it has the columns {', '.join(map(str, columns)) or 'of no row'}, expected one of "
            f"{', '.join(NAME_COLUMNS)}, and perhaps index. Add that header line."
        )
    for row in rows:
        if None in row or None in row.values():
            raise ConversionError(
                f"the row {', '.join(str(cell) for cell in row.values())} has not {len(columns)} cells. Put names with a "
                "comma into quotes."
            )
    return [(int(row["index"]) if "index" in columns else place, row[name_column]) for place, row in enumerate(rows)]


def _from_json(content) -> list[tuple[int, str]]:
    if isinstance(content, dict) and "id2label" in content:
        content = content["id2label"]
    if isinstance(content, list):
        content = dict(enumerate(content))
    if not isinstance(content, dict):
        raise ConversionError(f"it holds {content!r:.60}, expected a list or an object of label names.")
    others = [value for value in content.values() if not isinstance(value, str | int)]
    if others:
        raise ConversionError(f"it holds {others[0]!r:.60}, expected names.")
    if all(isinstance(index, int) for index in content):
        return [(index, str(name)) for index, name in content.items()]
    if all(isinstance(index, int) for index in content.values()):
        return [(index, name) for name, index in content.items()]
    return [(int(index), str(name)) for index, name in content.items()]

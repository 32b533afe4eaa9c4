"""Files of marked stretches: Audacity's label tracks, Raven's selection tables, and tables of file, start, end, label.

Source: Audacity's manual, "Importing and Exporting Labels" (the second line of a spectral label begins with a backslash); Raven
Pro 1.4 User's Manual (a selection has a row for each view; "File Offset (s)" counts from the begin of the file in which it
lies, "Begin Time (s)" from that of the first of a sequence).
"""

import csv
import io
import os
import re
from collections.abc import Iterable
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq

from .data_errors import DataError, is_empty, names_in_short
from .mark_lists import one_a_row, with_fields, with_names
from .marks import Mark
from .stretches import time_columns

NUMBER = re.compile(r"[+-]?(\d+([.,]\d*)?|[.,]\d+)([eE][+-]?\d+)?")
FREQUENCY_LINE = "\\"  # begins the second line of a label with frequencies
BEGIN, END, LOW, HIGH = "Begin Time (s)", "End Time (s)", "Low Freq (Hz)", "High Freq (Hz)"
SELECTION, VIEW, OFFSET = "Selection", "View", "File Offset (s)"
RAVEN_FILES = ("Begin Path", "Begin File")
NUMBERED_TABLE = re.compile(r"\.Table\.\d+\.selections\.[^.]+$")
RAVEN_LABELS = ("Annotation", "Label")
FILE_COLUMNS = ("file", "file_name", "filename", "path", "audio", "recording", "notated_path")
LABEL_COLUMNS = ("label", "annotation", "class", "event_label", "text")  # the last one of Praat's tables
TEXTGRID = ".textgrid"  # in small letters
OF_PRAAT = 'File type = "ooTextFile"'  # begins the first line
EVENT_LIST = ("file", "start", "end", "label")  # of DCASE's lists of events, which have no header
PARQUET = ".parquet"
TABLES = (".csv", ".tsv", PARQUET)
BEGIN_OF_NUMBER = re.compile(r"[-+]?[.,]?\d")


def read_mark_file(path: Path, label_column: str | None = None) -> dict[str | None, list[Mark]]:
    """Read a file of marked stretches, whichever of the formats it is.

    Args:
        path (`Path`): the file.
        label_column (`str`, *optional*): column of the labels, in a table of Raven or another; found if not given.

    Returns:
        Stretches by the name of the recording as the file has it; `None` stands for the one that the file is about. Of a file that is
        empty, or has a header alone, there are none for that one.

    Raises:
        DataError: if it is none of these, or a line is wrong; the message says what to type.
    """
    if path.suffix.lower() == TEXTGRID:
        raise DataError(textgrid_refused(path))
    if path.suffix.lower() == PARQUET:
        return marks_of_columns(table_columns(path), str(path), label_column)
    lines = _lines(path)
    if not any(line.strip() for line in lines):
        return {None: []}
    if path.suffix.lower() in TABLES:
        return marks_of_columns(table_columns(path), str(path), label_column)
    if lines[0].startswith(OF_PRAAT):
        raise DataError(textgrid_refused(path))
    if _is_label_track(lines):
        return {None: read_label_track(lines, str(path))}
    fields = next(line for line in lines if line.strip()).split("\t")
    if is_event_list(fields):
        return marks_of_columns(_columns(lines, "\t", path), str(path), label_column)
    if len(fields) > 1:
        return read_selection_table(_columns(lines, "\t", path), str(path), label_column)
    raise DataError(
        f"{path} is neither a label track of Audacity (start, end and label with tabs between them) nor a selection table of Raven "
        "(with a header). Export it as one of these, or write a CSV with the columns file, start, end, label."
    )


def has_columns(path: Path) -> bool:
    """Tell whether a file of marks has columns, as all but Audacity's label tracks have.

    Args:
        path (`Path`): the file.

    Returns:
        `True` if so.
    """
    return path.suffix.lower() in TABLES or not _is_label_track(_lines(path))


def _is_label_track(lines: list[str]) -> bool:
    """Whether a file begins with a time, also with one that cannot be read, or is empty."""
    first = next((line for line in lines if line.strip()), "")
    fields = first.split("\t")
    if len(fields) < 2:
        return not first
    looks_so = all(BEGIN_OF_NUMBER.match(field.strip()) for field in fields[:2]) and not is_event_list(fields)
    return looks_so or NUMBER.fullmatch(fields[0].strip()) is not None


def textgrid_refused(path: Path) -> str:
    """Say how to make of a TextGrid what is read.

    Args:
        path (`Path`): the file.

    Returns:
        Words.
    """
    return (
        f"{path} is a TextGrid of Praat, which is not read; a table of it is. In Praat select it, choose Tabulate, Down to Table, then Save, "
        f"Save as tab-separated file, and name that {path.with_suffix('.tsv').name}. Where ast-tag wrote it, --format audacity writes what is read."
    )


def is_event_list(cells: list[str]) -> bool:
    """Tell whether the first line of a table is a stretch and no header, as in DCASE's lists of events.

    Args:
        cells (`list[str]`): of the line.

    Returns:
        Whether it is file, start, end and label.
    """
    return len(cells) == len(EVENT_LIST) and [bool(NUMBER.fullmatch(cell.strip())) for cell in cells[:3]] == [
        False,
        True,
        True,
    ]


def table_columns(path: Path) -> dict[str, list]:
    """Read a table as it stands.

    Args:
        path (`Path`): CSV with commas, semicolons or tabs, TSV, or Parquet; without a header it is a list of file, start, end and
            label.

    Returns:
        What each column holds; of text tables, text.

    Raises:
        DataError: if it is empty, or its cells are not as many as its columns.
    """
    if path.suffix.lower() == PARQUET:
        return _parquet_columns(path)
    lines = _lines(path)
    first = next((line for line in lines if line.strip()), "")
    return _columns(lines, max("\t;,", key=first.count), path)


def _parquet_columns(path: Path) -> dict[str, list]:
    """What a Parquet file holds as it stands there: pandas would make fractions of whole numbers beside empty cells."""
    try:
        table = pq.read_table(path)
    except pa.ArrowException as error:
        raise DataError(f"{path} cannot be read as Parquet: {error}. Save it again, or write a CSV.") from error
    features = datasets.Features.from_arrow_schema(table.schema)
    return {name: with_names(table[name].to_pylist(), features[name]) for name in table.column_names}


def read_label_track(lines: Iterable[str], name: str) -> list[Mark]:
    """Read a label track of Audacity, with or without frequencies.

    Args:
        lines (iterable of `str`): of the file.
        name (`str`): what messages call it.

    Returns:
        The stretches in the order of the lines.

    Raises:
        DataError: for a line that is none of a label track.
    """
    marks: list[Mark] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        place, fields = f"{name}, line {number}", line.rstrip("\n").split("\t")
        if fields[0].strip() == FREQUENCY_LINE:
            if not marks or len(fields) < 3:
                raise DataError(
                    f"{place} has frequencies, but of no label. Export the track again, or remove the line."
                )
            low, high = (_number(field, place, "a frequency") for field in fields[1:3])
            last = marks[-1]
            # Audacity writes -1 for a frequency that was not chosen.
            marks[-1] = Mark(
                last.start, last.end, last.label, low if low >= 0 else None, high if high >= 0 else None, last.place
            )
            continue
        if len(fields) < 2:
            raise DataError(
                f"{place} is {line!r:.80}, expected start, end and label with tabs between them. Export the track again, or correct the "
                "line."
            )
        start, end = (_number(field, place, "seconds") for field in fields[:2])
        label = "\t".join(fields[2:]).strip()
        if not label:
            raise DataError(f"{place} marks a stretch without a label. Write what is heard there, or remove the line.")
        marks.append(Mark(start, end, label, place=place))
    return marks


def read_selection_table(
    columns: dict[str, list], name: str, label_column: str | None = None
) -> dict[str | None, list[Mark]]:
    """Read a selection table of Raven; a selection that several views show counts once.

    Args:
        columns (`dict[str, list]`): of the table.
        name (`str`): what messages call it.
        label_column (`str`, *optional*): column of the labels; `Annotation` or `Label` if not given.

    Returns:
        Stretches by the name of the file in which they begin, where the table tells it, else under `None`.

    Raises:
        DataError: if times or labels are missing.
    """
    missing = [column for column in (BEGIN, END) if column not in columns]
    if missing:
        raise DataError(
            f"{name} has the columns {names_in_short([*map(repr, columns)])} without {' and '.join(map(repr, missing))}. If it is a selection "
            f"table of Raven in another language, rename them to {BEGIN!r} and {END!r} in its first line; if it is another table, "
            "write a CSV with the columns file, start, end, label."
        )
    if label_column is None:
        label_column = next((column for column in RAVEN_LABELS if column in columns), None)
    if label_column not in columns:
        asked = f"no column {label_column!r}" if label_column else f"neither {' nor '.join(map(repr, RAVEN_LABELS))}"
        raise DataError(
            f"{name} has {asked}; it has {names_in_short([*map(repr, columns)])}. Name the column of the labels with --mark_label_column."
        )
    files = next((columns[column] for column in RAVEN_FILES if column in columns), None)
    _refuse_times_of_sequence(columns, files, name)
    found: dict[str | None, list[Mark]] = {}
    seen: dict[tuple, str] = {}  # the label of each selection
    counted: set[tuple] = set()
    for row in range(len(columns[BEGIN])):
        place = f"{name}, row {row + 1}"
        start, end = (_number(columns[column][row], place, column) for column in (BEGIN, END))
        if files is not None and OFFSET in columns and not is_empty(columns[OFFSET][row]):
            offset = _number(columns[OFFSET][row], place, OFFSET)
            start, end = offset, offset + end - start
        file = None if files is None or is_empty(files[row]) else str(files[row])
        label = label_text(columns[label_column][row])
        selection = (file, columns[SELECTION][row], start, end) if {SELECTION, VIEW} <= columns.keys() else (row,)
        before = seen.setdefault(selection, label)
        if before != label:
            raise DataError(
                f"{place}: selection {selection[1]} is {label!r} in one view and {before!r} in another. Write the same in both rows."
            )
        if not label:
            raise DataError(f"{place} has nothing in the column {label_column!r}. Fill it in, or remove the row.")
        if selection in counted:
            continue
        counted.add(selection)
        low, high = (_frequency(columns, column, row, place) for column in (LOW, HIGH))
        found.setdefault(file, []).append(Mark(start, end, label, low, high, place))
    return found or {None: []}


def _refuse_times_of_sequence(columns: dict[str, list], files: list | None, name: str):
    """Refuse a table of several files that does not tell where in each its selections begin, but in the sequence of them."""
    named = list(dict.fromkeys(str(file).strip() for file in files or [] if not is_empty(file)))
    if len(named) < 2:
        return
    offsets = columns.get(OFFSET, [None] * len(files))
    silent = [row + 1 for row, offset in enumerate(offsets) if not is_empty(files[row]) and is_empty(offset)]
    if silent:
        rows = f"row(s) {names_in_short(silent)} have nothing in its" if OFFSET in columns else "it has no"
        raise DataError(
            f"{name} is about {len(named)} files ({names_in_short(named)}), but {rows} column {OFFSET!r}, and Raven counts {BEGIN!r} from the "
            f"beginning of the first of a sequence. In Raven choose the measurement {OFFSET!r} for the table, and save it again. If the "
            f"times count from the beginning of each file, copy the column {BEGIN!r} and call the copy {OFFSET!r}."
        )


def marks_of_columns(
    columns: dict[str, Iterable], name: str, label_column: str | None = None, whole: bool = False
) -> dict[str | None, list[Mark]]:
    """Read a table with a row for each stretch, or for each recording with lists of them.

    Args:
        columns (`dict[str, Iterable]`): of the table; times under names such as start and end, in seconds or what these tell.
        name (`str`): what messages call it.
        label_column (`str`, *optional*): column of the labels; one of `LABEL_COLUMNS` if not given.
        whole (`bool`, defaults to `False`): whether it has to name the files.

    Returns:
        Stretches by the name of the file, as the table has it, or under `None` where it names none; nothing is under that of a table
        without rows.

    Raises:
        DataError: if a column is missing or a cell holds no number.
    """
    columns = {str(column).strip(): list(values) for column, values in columns.items()}
    of_labels = LABEL_COLUMNS if label_column is None else (label_column.casefold(),)
    columns = with_fields(columns, name, FILE_COLUMNS, of_labels)
    if BEGIN in columns or END in columns:
        return read_selection_table(columns, name, label_column)
    by_name = {column.casefold(): column for column in columns}
    if label_column is None:
        label_column = next((by_name[key] for key in LABEL_COLUMNS if key in by_name), None)
    times = time_columns([column for column in columns if column != label_column], name)
    file_column = next((by_name[key] for key in FILE_COLUMNS if key in by_name), None)
    if len(times) < 2 or label_column not in columns or (whole and file_column is None):
        raise DataError(
            f"{name} has the columns {names_in_short([*map(repr, columns)])}, expected file, start, end (in seconds) and label. Rename them, "
            "or name that of the labels with --mark_label_column."
        )
    pitches = [by_name[key] for key in ("low_hz", "high_hz") if key in by_name]
    columns, rows = one_a_row(columns, [each.name for each in times], [label_column, *pitches], name)
    found: dict[str | None, list[Mark]] = {}
    for row, label in enumerate(columns[label_column]):
        place = f"{name}, row {rows[row] + 1}"
        file = None if file_column is None or is_empty(columns[file_column][row]) else str(columns[file_column][row])
        if file is not None and all(
            is_empty(value) for value in (label, *(columns[each.name][row] for each in times))
        ):
            found.setdefault(file, [])  # in which nothing is marked
            continue
        start, end = (_number(columns[each.name][row], place, each.name) * each.seconds for each in times)
        end = start + end if times[1].is_length else end
        labels = label if isinstance(label, list) else [label]  # several of one event
        if any(isinstance(each, (list, dict)) for each in labels):
            raise DataError(
                f"{place}: {label!r:.80} in the column {label_column!r} is no label. Write a text for each stretch, or a list of texts."
            )
        texts = [*map(label_text, labels)]
        if not texts or not all(texts):
            raise DataError(f"{place} has nothing in the column {label_column!r}. Fill it in, or remove the row.")
        frequencies = [_frequency(columns, by_name.get(key), row, place) for key in ("low_hz", "high_hz")]
        found.setdefault(file, []).extend(Mark(start, end, text, *frequencies, place) for text in texts)
    return found or {None: []}


def label_text(value) -> str:
    """Read the label of a cell; tables make a fraction of a whole number where other cells of its column are empty.

    Args:
        value: of the cell.

    Returns:
        The label without spaces around it: of 2.0 "2", of nothing "".
    """
    if is_empty(value):
        return ""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip()


def _lines(path: Path) -> list[str]:
    """Lines as programs write them; other characters that Python splits at, such as U+2028, may be part of a label."""
    return _text(path).replace("\r\n", "\n").replace("\r", "\n").split("\n")


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        content = path.read_bytes()
        if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
            return content.decode("utf-16")
        raise DataError(
            f"{path} is not in UTF-8. Save it in UTF-8, as the programs that write such files do."
        ) from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error


def _columns(lines: list[str], separator: str, path: Path) -> dict[str, list]:
    text = io.StringIO("\n".join(lines), newline="")
    try:
        read = list(csv.reader(text, delimiter=separator, strict=True))
    except csv.Error as error:
        raise DataError(
            f"{path} cannot be read as a table: {error}. Close each quote, and double those within a cell."
        ) from error
    rows = [row for row in read if any(map(str.strip, row))]
    if not rows:
        raise DataError(f"{path} is empty. Write a header and a row for each stretch, or remove it.")
    if is_event_list(rows[0]):
        rows.insert(0, [*EVENT_LIST])
    header = [name.strip() for name in rows[0]]
    doubled = sorted({name for name in header if name and header.count(name) > 1})
    if doubled:
        raise DataError(
            f"{path} has more than one column {names_in_short([*map(repr, doubled)])}. Rename all but one of each."
        )
    long = next((number for number, row in enumerate(rows) if len(row) > len(header)), None)
    if long is not None:
        raise DataError(
            f"{path}, row {long}: {len(rows[long])} cells under {len(header)} columns. Put cells that hold {separator!r} (such as a decimal "
            "comma) in double quotes, or write a point."
        )
    padded = [row + [""] * (len(header) - len(row)) for row in rows[1:]]
    return {name: [row[place] for row in padded] for place, name in enumerate(header) if name}


def _number(value, place: str, what: str) -> float:
    """A cell as a number; a decimal comma is a point."""
    if isinstance(value, str):
        text = value.strip()
        if NUMBER.fullmatch(text):
            return float(text.replace(",", "."))
    elif not is_empty(value):
        try:
            return float(value)
        except (TypeError, ValueError):
            pass
    raise DataError(
        f"{place}: {value!r:.40} is no number of {what}. Write seconds such as 12.5, without units, thousands or minutes."
    )


def _frequency(columns: dict[str, list], column: str | None, row: int, place: str) -> float | None:
    if column is None or column not in columns or is_empty(columns[column][row]):
        return None
    return _number(columns[column][row], place, column)


def is_one_of_several(path: Path) -> bool:
    """Tell whether a file is one of the selection tables that Raven saves of a recording, each with a number.

    Args:
        path (`Path`): such as `dawn.Table.2.selections.txt`.

    Returns:
        `True` if so.
    """
    return NUMBERED_TABLE.search(path.name) is not None


def named_after(path: Path) -> str:
    """Tell the name of the recording that a file of marks beside it is about.

    Args:
        path (`Path`): such as `dawn.txt`, `dawn.wav.txt` or `dawn.Table.1.selections.txt`.

    Returns:
        The name without suffixes.
    """
    return re.sub(r"(\.Table\.\d+)?\.selections$", "", os.path.splitext(path.name)[0])

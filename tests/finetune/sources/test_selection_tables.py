"""Selection tables of Raven that are about several files, and several tables of one recording."""

import pytest
from marked_sounds import RAVEN

from finetune.sources.data_errors import DataError
from finetune.sources.mark_files import read_mark_file


def table(rows: list[dict], columns: tuple[str, ...] = ()) -> str:
    """A selection table of one view, with a row for each selection."""
    header = [*RAVEN, *columns, "Annotation"]
    lines = []
    for number, row in enumerate(rows, 1):
        cells = {
            "Selection": number,
            "View": "Spectrogram 1",
            "Channel": 1,
            "Low Freq (Hz)": 0,
            "High Freq (Hz)": 8000,
        }
        lines.append("\t".join(str((cells | row).get(name, "")) for name in header))
    return "\n".join(["\t".join(header), *lines]) + "\n"


def selection(start: float, end: float, label: str = "owl", **more) -> dict:
    return {"Begin Time (s)": start, "End Time (s)": end, "Annotation": label} | more


SEQUENCE = [
    selection(1, 2, **{"Begin File": "a.wav", "File Offset (s)": 1}),
    selection(12, 13, **{"Begin File": "b.wav", "File Offset (s)": 2}),
]


@pytest.mark.parametrize("suffix", ["txt", "tsv"])
@pytest.mark.parametrize("column", ["Begin File", "Begin Path"])
def test_a_table_of_a_sequence_without_offsets_is_refused(tmp_path, column, suffix):
    rows = [row | {column: row["Begin File"]} for row in SEQUENCE]
    path = tmp_path / f"all.{suffix}"
    path.write_text(table(rows, (column,)))
    said = r"about 2 files \(a.wav, b.wav\), but it has no column 'File Offset \(s\)'.* copy the column 'Begin Time \(s\)'"
    with pytest.raises(DataError, match=said):
        read_mark_file(path)
    # What the message asks for.
    path.write_text(table(rows, (column, "File Offset (s)")))
    found = {file: [(mark.start, mark.end) for mark in marks] for file, marks in read_mark_file(path).items()}
    assert found == {"a.wav": [(1, 2)], "b.wav": [(2, 3)]}
    path.write_text(table([rows[0], rows[1] | {"File Offset (s)": ""}], (column, "File Offset (s)")))
    with pytest.raises(DataError, match=r"but row\(s\) 2 have nothing in its column 'File Offset"):
        read_mark_file(path)


def test_a_table_of_one_file_counts_from_its_begin(tmp_path):
    rows = [row | {"Begin File": "a.wav"} for row in SEQUENCE]
    (tmp_path / "all.txt").write_text(table(rows, ("Begin File",)))
    found = read_mark_file(tmp_path / "all.txt")
    assert [(mark.start, mark.end) for mark in found["a.wav"]] == [(1, 2), (12, 13)]

"""Selection tables of Raven that are about several files, and several tables of one recording."""

import pandas as pd
import pytest
from marked_sounds import RAVEN, TIMES, audacity, raven, write_recordings

from finetune.arguments.groups import DataArguments
from finetune.sources.data_errors import DataError
from finetune.sources.mark_files import read_mark_file
from finetune.sources.marked_recordings import load_marked


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


def marks_of(folder, **fields) -> dict[str, list[tuple]]:
    sides = load_marked(DataArguments(dataset_name=str(folder), marks="beside", **fields), 0).sides
    return {
        item.name[-8:-4]: [(round(mark.start, 6), round(mark.end, 6), mark.label) for mark in item.marks]
        for items in sides.values()
        for item in items
    }


def test_numbered_tables_of_one_recording_are_taken_together(tmp_path):
    write_recordings(tmp_path / "all", TIMES[:2])
    for number, rows in enumerate((TIMES[0][:2], TIMES[0][1:], [(0.5, 1.1, "high"), (0.9, 1.3, "low")]), 1):
        (tmp_path / "all" / f"rec0.Table.{number}.selections.txt").write_text(raven(rows))
    (tmp_path / "all" / "rec1.Table.1.selections.txt").write_text(raven(TIMES[1]))
    # As a person would who puts them below each other: one row of each kind, and what overlaps is one sound.
    together = pd.concat(
        pd.read_csv(path, sep="\t") for path in sorted((tmp_path / "all").glob("rec0.Table.*.selections.txt"))
    ).drop_duplicates(["Begin Time (s)", "End Time (s)", "Annotation"])
    assert len(together) == 5
    expected = [(0.5, 1.3, "low"), (0.5, 1.1, "high"), *TIMES[0][1:]]
    found = marks_of(tmp_path / "all")
    assert sorted(found["rec0"]) == sorted(expected)
    assert found["rec1"] == TIMES[1]


@pytest.mark.parametrize("other", ["rec0.txt", "rec0.selections.txt", "rec0.csv"])
def test_other_files_of_one_recording_are_not(tmp_path, other):
    write_recordings(tmp_path / "all", TIMES[:2])
    for number in (1, 2):
        (tmp_path / "all" / f"rec0.Table.{number}.selections.txt").write_text(raven(TIMES[0]))
    text = {"rec0.txt": audacity(TIMES[0]), "rec0.csv": "start,end,label\n1,2,low\n"}.get(other, raven(TIMES[0]))
    (tmp_path / "all" / other).write_text(text)
    (tmp_path / "all" / "rec1.txt").write_text(audacity(TIMES[1]))
    with pytest.raises(DataError, match=r"have two files of marks: .*Keep one of each.*NAME\.Table\.2\.selections"):
        marks_of(tmp_path / "all")


EMPTY = {
    "no bytes": (["txt", "csv", "tsv", "selections.txt"], ""),
    "lines alone": (["txt", "csv", "tsv", "selections.txt"], "\n\n"),
    "a header": (["csv"], "start,end,label\n"),
    "a header with the file": (["csv"], "file;start;end;label\n"),
    "a header with tabs": (["tsv"], "start\tend\tlabel\n"),
    "a header of Raven": (["selections.txt", "txt", "tsv"], raven([])),
    "Parquet": (["parquet"], None),
}


@pytest.mark.parametrize(("what", "suffix"), [(what, suffix) for what in EMPTY for suffix in EMPTY[what][0]])
def test_any_empty_file_of_marks_says_that_nothing_is_heard(tmp_path, what, suffix):
    folder = tmp_path / "all"
    write_recordings(folder, TIMES[:3])
    for number in (0, 1):
        (folder / f"rec{number}.txt").write_text(audacity(TIMES[number]))
    path, text = folder / f"rec2.{suffix}", EMPTY[what][1]
    frame = pd.DataFrame({"start": [], "end": [], "label": []})
    frame.to_parquet(path) if text is None else path.write_text(text)
    assert marks_of(folder)["rec2"] == []


@pytest.mark.parametrize("text", ["", "file,start,end,label\n"])
def test_an_empty_table_of_all_recordings_is_refused(tmp_path, text):
    write_recordings(tmp_path / "all", TIMES[:3])
    (tmp_path / "marks.csv").write_text(text)
    data = DataArguments(dataset_name=str(tmp_path / "all"), marks=str(tmp_path / "marks.csv"), unmarked="background")
    with pytest.raises(DataError, match=r"marks\.csv marks nothing\. Write a row with file, start, end and label"):
        load_marked(data, 0)

"""Flags that would have no effect with marks, and labels that are numbers."""

import pandas as pd
import pytest
from marked_sounds import TIMES, write_marked, write_recordings

from finetune.arguments.groups import DataArguments
from finetune.scores.event_tables import read_events
from finetune.sources.data_errors import DataError
from finetune.sources.marked_recordings import load_marked


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (
            {"label_column_name": "Species"},
            r"names the labels of clips; .*Pass --mark_label_column Species in its place",
        ),
        ({"label_column_name": "a name"}, r"--mark_label_column 'a name' in its place"),
        ({"marks": "columns", "label_column_name": "Species"}, "--mark_label_column Species"),
        ({"audio_column_name": "wav"}, r"found in the folder dataset_name.*or pass --marks columns"),
        ({"ignore_columns": ["site"]}, r"no other columns are read .*Leave out --ignore_columns"),
        ({"marks": "columns", "unmarked": "ignore"}, r"a file alone says that nothing is heard.*Leave out --unmarked"),
    ],
)
def test_flags_without_effect_are_refused(fields, said):
    with pytest.raises(ValueError, match=said):
        DataArguments(dataset_name="x", **{"marks": "beside"} | fields)


def test_labels_to_ignore_that_are_not_there_are_refused(tmp_path):
    folder = write_marked(tmp_path / "all")
    said = r"ignore_labels names lwo, with which nothing is marked; there are high, low\. Correct --ignore_labels"
    with pytest.raises(DataError, match=said):
        load_marked(DataArguments(dataset_name=str(folder), marks="beside", ignore_labels=["lwo"]), 0)


def test_a_column_of_labels_is_refused_where_no_file_has_columns(tmp_path):
    folder = write_marked(tmp_path / "all")
    data = DataArguments(dataset_name=str(folder), marks="beside", mark_label_column="Species")
    with pytest.raises(DataError, match=r"mark_label_column='Species' was given, but .* label tracks of Audacity"):
        load_marked(data, 0)
    (folder / "rec0.txt").unlink()
    (folder / "rec0.csv").write_text("start,end,Species,label\n1,2,owl,x\n")
    assert "owl" in load_marked(data, 0).labels


@pytest.mark.parametrize("form", ["csv", "parquet", "parquet of whole numbers"])
def test_labels_that_are_whole_numbers_beside_a_recording_without_marks(tmp_path, form):
    write_recordings(tmp_path / "all")
    rows = [
        (f"rec{number}.wav", start, end, TIMES.index(times))
        for number, times in enumerate(TIMES)
        for start, end, _ in times
    ]
    rows.append(("rec5.wav", None, None, None))
    frame = pd.DataFrame(rows, columns=["file", "start", "end", "label"])
    assert frame["label"].dtype == float  # pandas makes these of whole numbers beside nothing
    if form == "parquet of whole numbers":
        frame["label"] = frame["label"].astype("Int64")
    path = tmp_path / f"marks.{form[:7]}" if form != "csv" else tmp_path / "marks.csv"
    if form == "csv":
        frame.astype({"label": "Int64"}).to_csv(path, index=False)
    else:
        frame.to_parquet(path)
    found = load_marked(DataArguments(dataset_name=str(tmp_path / "all"), marks=str(path)), 0)
    assert found.labels == ["0", "1", "2", "3", "4"]
    assert read_events(path).labels == found.labels

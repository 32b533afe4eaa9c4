"""Times of marks in the units that their columns' names tell."""

import numpy as np
import pandas as pd
import pytest
import soundfile

from finetune.arguments.groups import DataArguments
from finetune.sources.data_errors import DataError
from finetune.sources.mark_files import read_mark_file
from finetune.sources.marked_recordings import load_marked

TIMES = [("00:00:01.5", "00:00:02.25"), ("00:02:30", "00:02:45")]  # as pandas reads them
SECONDS = [(pd.Timedelta(start).total_seconds(), pd.Timedelta(end).total_seconds()) for start, end in TIMES]


def written(path, columns: tuple[str, str], unit: str, length: bool = False):
    """A table with the same times in a unit of pandas."""
    starts, ends = (pd.to_timedelta([of_row[side] for of_row in TIMES]) for side in range(2))
    one = pd.Timedelta(1, unit)
    values = {columns[0]: starts / one, columns[1]: (ends - starts if length else ends) / one, "label": ["a", "b"]}
    pd.DataFrame(values).to_csv(path, index=False)
    return path


@pytest.mark.parametrize(
    ("columns", "unit", "length"),
    [
        (("start", "end"), "s", False),
        (("start_ms", "end_ms"), "ms", False),
        (("start (ms)", "end (ms)"), "ms", False),
        (("onset_ms", "offset_ms"), "ms", False),
        (("startMs", "endMs"), "ms", False),
        (("startms", "endms"), "ms", False),
        (("start_milliseconds", "duration_milliseconds"), "ms", True),
        (("start_us", "end_us"), "us", False),
        (("start_\u00b5s", "end_\u03bcs"), "us", False),
        (("start_ns", "end_ns"), "ns", False),
        (("start_min", "end_min"), "min", False),
        (("Begin Time (min)", "End Time (min)"), "min", False),
        (("start_hours", "end_hours"), "h", False),
        (("start", "call_duration"), "s", True),
        (("offset", "Duration (s)"), "s", True),
        (("time_min", "time_max"), "s", False),
        (("from", "to"), "s", False),
        (("from_ms", "to_ms"), "ms", False),
        (("from_min", "to_min"), "min", False),
    ],
)
def test_units_are_told_by_names(tmp_path, columns, unit, length):
    marks = read_mark_file(written(tmp_path / "a.csv", columns, unit, length))[None]
    np.testing.assert_allclose([(mark.start, mark.end) for mark in marks], SECONDS, rtol=1e-12)


def test_each_column_has_a_unit_of_its_own(tmp_path):
    (tmp_path / "a.csv").write_text("start_ms,duration_s,label\n1500,0.75,a\n")
    (mark,) = read_mark_file(tmp_path / "a.csv")[None]
    assert (mark.start, mark.end) == SECONDS[0]


@pytest.mark.parametrize(
    "first", ["onset_s,onset_sample,offset_s,offset_sample", "onset_sample,onset_s,offset_frame,offset_s"]
)
def test_of_seconds_and_samples_seconds_are_taken(tmp_path, first):
    """As generic-seq of crowsetta can have them."""
    row = {
        "onset_s": "1.5",
        "offset_s": "2.25",
        "onset_sample": "24000",
        "offset_sample": "36000",
        "offset_frame": "225",
    }
    cells = ",".join(row[name] for name in first.split(","))
    (tmp_path / "a.csv").write_text(f"label,{first}\na,{cells}\n")
    (mark,) = read_mark_file(tmp_path / "a.csv")[None]
    assert (mark.start, mark.end) == SECONDS[0]


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ("start_sample,end_sample", r"'start_sample' counts samples, .*Divide by the sampling rate .*call it start_s"),
        ("Start (samples),End (samples)", "counts samples"),
        ("start_frame,end_frame", r"'start_frame' counts frames, .*Multiply by the seconds of one .*call it start_s"),
        ("start_idx,end_idx", "counts frames"),
        ("from_sample,to_sample", "'from_sample' counts samples"),
        ("from_frame,to_frame", "'from_frame' counts frames"),
        ("start_s,end_sample", "'end_sample' counts samples"),
        ("Start Time (hh:mm:ss),End Time (hh:mm:ss)", r"expected seconds such as 65\.0 for 1:05"),
        ("start_min,start_sec,end_min,end_sec", r"'start_min' and 'start_sec', which may be one time in two units"),
        ("start_h,end_h,end_min", r"'end_h' and 'end_min', which may be"),
    ],
)
@pytest.mark.parametrize("form", ["csv", "tsv", "parquet"])
def test_units_that_are_no_seconds_are_refused(tmp_path, columns, said, form):
    frame = pd.DataFrame({name: [3] for name in columns.split(",")} | {"label": ["a"]})
    path = tmp_path / f"a.{form}"
    frame.to_parquet(path) if form == "parquet" else frame.to_csv(
        path, sep={"csv": ",", "tsv": "\t"}[form], index=False
    )
    with pytest.raises(DataError, match=said):
        read_mark_file(path)


def test_columns_of_the_data_set_itself(tmp_path):
    for name in "ab":
        soundfile.write(tmp_path / f"{name}.wav", np.zeros(16_000), 16_000)
    (tmp_path / "rows.csv").write_text("file,start_ms,end_ms,label\na.wav,100,400,x\nb.wav,100,400,y\n")
    found = load_marked(DataArguments(dataset_name=str(tmp_path / "rows.csv"), marks="columns"), 0)
    assert {(mark.start, mark.end) for items in found.sides.values() for item in items for mark in item.marks} == {
        (0.1, 0.4)
    }


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ("start_ms,duration", r"only 'start_ms' tells its unit\. Rename 'duration' to duration_ms .*or to duration_s"),
        ("start,end_min", r"only 'end_min' tells its unit\. Rename 'start' to start_min"),
    ],
)
def test_a_unit_of_one_of_two_columns_is_refused(tmp_path, columns, said):
    (tmp_path / "a.csv").write_text(f"{columns},label\n1500,750,a\n")
    with pytest.raises(DataError, match=said):
        read_mark_file(tmp_path / "a.csv")


def test_seconds_may_be_told_by_one_of_two_columns(tmp_path):
    (tmp_path / "a.csv").write_text("start_s,end,label\n1.5,2.25,a\n")
    (mark,) = read_mark_file(tmp_path / "a.csv")[None]
    assert (mark.start, mark.end) == SECONDS[0]

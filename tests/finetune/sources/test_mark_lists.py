"""Data sets with a row for each recording, whose marks are lists."""

from pathlib import Path

import datasets
import pandas as pd
import pytest
from marked_sounds import TIMES, write_recordings

from finetune.arguments.groups import DataArguments
from finetune.sources.data_errors import DataError
from finetune.sources.mark_files import marks_of_columns, read_mark_file
from finetune.sources.marked_recordings import load_marked

NAMES = ["high", "low"]
STARTS, ENDS, LABELS = ([[mark[field] for mark in times] for times in TIMES] for field in range(3))
NUMBER = datasets.Value("float64")
CLASSES = datasets.ClassLabel(names=NAMES)
EVENT = {"onset": NUMBER, "offset": NUMBER, "event_label": CLASSES}
EVENTS = [[dict(zip(EVENT, mark, strict=True)) for mark in times] for times in TIMES]
INDICES = [[event | {"event_label": NAMES.index(event["event_label"])} for event in events] for events in EVENTS]
FORMS = {
    "columns of lists": ({"start": STARTS, "end": ENDS, "label": LABELS}, {}),
    "columns of lists of classes": (
        {"start": STARTS, "end": ENDS, "label": [[NAMES.index(label) for label in labels] for labels in LABELS]},
        {"start": datasets.List(NUMBER), "end": datasets.List(NUMBER), "label": datasets.List(CLASSES)},
    ),
    "milliseconds and lengths": (
        {
            "start_ms": [[1000 * start for start in starts] for starts in STARTS],
            "duration_ms": [
                [1000 * (end - start) for start, end in zip(*both, strict=True)]
                for both in zip(STARTS, ENDS, strict=True)
            ],
            "label": LABELS,
        },
        {},
    ),
    "lists of events": ({"events": INDICES}, {"events": datasets.List(EVENT)}),
    "events by field": (
        {"events": [{field: [event[field] for event in events] for field in EVENT} for events in INDICES]},
        {"events": datasets.Sequence(EVENT)},
    ),
    "a null where nothing is marked": (
        {"start": [*STARTS[:-1], None], "end": [*ENDS[:-1], None], "label": [*LABELS[:-1], None]},
        {},
    ),
}


def tuples(marks) -> list[tuple]:
    return [(round(mark.start, 9), round(mark.end, 9), mark.label) for mark in marks]


def made(folder: Path, form: str) -> datasets.Dataset:
    columns, kinds = FORMS[form]
    paths = list(map(str, write_recordings(folder)))
    rows = datasets.Dataset.from_dict({"audio": paths, "embedding": [[0.0, 1.0]] * len(paths), **columns})
    return rows.cast(datasets.Features(rows.features | {"audio": datasets.Audio(decode=False)} | kinds))


@pytest.mark.parametrize("form", FORMS)
def test_saved_data_sets(tmp_path, form):
    made(tmp_path / "all", form).save_to_disk(tmp_path / "saved")
    found = load_marked(DataArguments(dataset_name=str(tmp_path / "saved"), marks="columns"), 0).sides
    marks = {Path(item.name).stem: tuples(item.marks) for items in found.values() for item in items}
    assert marks == {f"rec{number}": sorted(times) for number, times in enumerate(TIMES)}


@pytest.mark.parametrize("form", FORMS)
def test_parquet_files(tmp_path, form):
    rows = made(tmp_path / "all", form)
    files = [Path(path).name for path in rows.with_format("arrow")["audio"].combine_chunks().field("path").to_pylist()]
    rows.remove_columns("audio").add_column("file", files).to_parquet(tmp_path / "marks.parquet")
    found = {name: tuples(marks) for name, marks in read_mark_file(tmp_path / "marks.parquet").items()}
    assert found == {f"rec{number}.wav": times for number, times in enumerate(TIMES)}


def test_several_labels_of_one_stretch(tmp_path):
    frame = pd.DataFrame({"file": ["a.wav"], "start": [1.0], "end": [2.0], "label": [["owl", "wind"]]})
    frame.to_parquet(tmp_path / "a.parquet")
    assert tuples(read_mark_file(tmp_path / "a.parquet")["a.wav"]) == [(1, 2, "owl"), (1, 2, "wind")]


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        (
            {"start": [[1.0], [1.0, 2.0]], "end": [[2.0], [2.0, 3.0]], "label": [["a"], ["a"]]},
            r"row 2: 2 of 'start', 2 of 'end', 1 of 'label'\. Write as many",
        ),
        (
            {"start": [[1.0], [[1.0]]], "end": [[2.0], [[2.0]]], "label": [["a"], [["a"]]]},
            r"row 2: \[1\.0\] is no number of start",
        ),
        (
            {name: [[{"start": 1.0, "end": 2.0, "label": "a"}]] * 2 for name in ("calls", "noises")},
            "several columns of events: 'calls', 'noises'. Leave all but one",
        ),
    ],
)
def test_lists_that_do_not_fit_are_refused(tmp_path, columns, said):
    with pytest.raises(DataError, match=said):
        marks_of_columns({"file": ["a.wav", "b.wav"]} | columns, "table")


def test_several_labels_of_one_event_are_a_mark_each():
    events = [[{"start": 1.0, "end": 2.0, "label": ["a", "b"]}, {"start": 3.0, "end": 4.0, "label": ["c"]}]]
    for columns in ({"events": events}, {"start": [[1.0, 3.0]], "end": [[2.0, 4.0]], "label": [[["a", "b"], ["c"]]]}):
        found = marks_of_columns({"file": ["a.wav"]} | columns, "table")
        assert tuples(found["a.wav"]) == [(1, 2, "a"), (1, 2, "b"), (3, 4, "c")]


@pytest.mark.parametrize(
    ("label", "said"),
    [
        ([["a"], ["b"]], r"row 1: .* in the column 'label' is no label\. Write a text"),
        ({"name": "a"}, r"row 1: \{'name': 'a'\} in the column 'label' is no label"),
        ([], "row 1 has nothing in the column 'label'"),
    ],
)
def test_labels_of_events_that_are_no_text_are_refused(label, said):
    with pytest.raises(DataError, match=said):
        marks_of_columns({"file": ["a.wav"], "events": [[{"start": 1.0, "end": 2.0, "label": label}]]}, "table")


def test_events_have_their_times_and_labels_and_recordings_their_files():
    event = {"onset": 1.0, "offset": 2.0, "event_label": "owl", "file": "other.wav", "id": 3}
    of_recording = {"file": ["a.wav"], "start": ["06:00"], "end": ["06:10"], "label": ["forest"], "id": [1]}
    found = marks_of_columns(of_recording | {"events": [[event]]}, "table")
    assert {name: tuples(marks) for name, marks in found.items()} == {"a.wav": [(1, 2, "owl")]}


def test_events_without_labels_have_that_of_their_recording():
    found = marks_of_columns(
        {"file": ["a.wav"], "label": ["owl"], "events": [[{"start": 1.0, "end": 2.0}, {"start": 3.0, "end": 4.0}]]},
        "table",
    )
    assert tuples(found["a.wav"]) == [(1, 2, "owl"), (3, 4, "owl")]

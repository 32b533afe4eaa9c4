"""Columns that mark stretches of files, which are no clips yet: refused by name in every kind of data."""

from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import pytest
import soundfile

from finetune.arguments.groups import DataArguments
from finetune.clip_sets.streaming import load_streams
from finetune.failures.input_errors import InputError
from finetune.fine_tuning import fine_tune
from finetune.sources.data_errors import DataError
from finetune.sources.splits import load_splits
from finetune.sources.stretches import stretch_columns

NO_STRETCHES = [
    "date",
    "duration",
    "start_date",
    "end_user",
    "Begin File",
    "from_station",
    "to_station",
    "stop",
    "length",
]


@pytest.mark.parametrize(
    "pair",
    [
        ["start", "end"], ["onset", "offset"], ["begin", "end"], ["Begin Time (s)", "End Time (s)"], ["start", "duration"],
        ["offset", "duration"], ["start_time", "end_time"], ["startTime", "endTime"], ["starttime", "stoptime"],
        ["t_start", "t_end"], ["t0", "t1"], ["tmin", "tmax"], ["xmin", "xmax"], ["min_t", "max_t"], ["from", "to"],
        ["start_ms", "finish_ms"], ["Start (samples)", "End (samples)"], ["segment_start_seconds", "segment_end_seconds"],
        ["onset_frame", "length"], ["Start Time (hh:mm:ss)", "End Time (hh:mm:ss)"], ["START", "STOP"],
    ],
)  # fmt: skip
def test_pairs_of_columns_that_mark_stretches(pair):
    assert stretch_columns(["file", *NO_STRETCHES[:1], pair[0], "label", pair[1], "score"]) == pair


def test_columns_that_mark_none():
    assert stretch_columns(["file", "label", *NO_STRETCHES]) == []


@pytest.fixture
def frame(tmp_path):
    """Two stretches of each of four files, as `ast-tag --timeline --format csv` writes them, with a column of splits."""
    rows = []
    for index in range(4):
        samples = np.random.default_rng(index).uniform(-0.5, 0.5, 3200)
        soundfile.write(tmp_path / f"{index}.wav", samples, 16_000)
        for start in (0.0, 0.1):
            label = "cat" if index % 2 else "dog"
            rows.append([f"{index}.wav", start, start + 0.1, label, 0.9, "train" if index < 2 else "test"])
    return pd.DataFrame(rows, columns=["file", "start", "end", "label", "score", "split"])


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_tables_of_stretches_are_refused_by_name(tmp_path, frame, form, streaming):
    path = tmp_path / f"clips.{form}"
    write = {"csv": frame.to_csv, "jsonl": lambda path: frame.to_json(path, orient="records", lines=True)}
    write.get(form, frame.to_parquet)(path)
    load = load_streams if streaming else lambda data: load_splits(data, seed=0)
    message = r"columns 'start' and 'end', which mark stretches .*ffmpeg .*--ignore_columns start end\."
    with pytest.raises(DataError, match=message):
        load(DataArguments(dataset_name=str(path)))
    splits, _ = load(DataArguments(dataset_name=str(path), ignore_columns=["start", "end"]))
    assert {side: len(split) for side, split in splits.items()} == {"train": 4, "eval": 4}
    assert not {"start", "end"} & set(splits["train"].features)
    with pytest.raises(DataError, match="ignore_columns='strt' is not in the data set; it has .*'start'"):
        load(DataArguments(dataset_name=str(path), ignore_columns=["strt", "end"]))


def test_a_beginning_alone_marks_stretches_where_files_stand_in_several_rows(tmp_path, frame):
    frame.drop(columns="end").to_csv(tmp_path / "clips.csv")
    with pytest.raises(DataError, match=r"column 'start', which marks stretches .*--ignore_columns start\."):
        load_splits(DataArguments(dataset_name=str(tmp_path / "clips.csv")), seed=0)
    frame[::2].drop(columns="end").to_csv(tmp_path / "clips.csv")
    assert load_splits(DataArguments(dataset_name=str(tmp_path / "clips.csv")), seed=0)


def test_columns_that_are_used_for_something_else_mark_nothing(tmp_path, frame):
    frame.drop(columns=["split"]).to_csv(tmp_path / "clips.csv")
    fields = {"group_column_name": "start", "ignore_columns": ["end"], "eval_fraction": 0.5}
    assert load_splits(DataArguments(dataset_name=str(tmp_path / "clips.csv"), **fields), seed=0)


def test_a_data_set_in_python_is_refused_alike(tmp_path, frame):
    frame["file"] = [str(tmp_path / name) for name in frame["file"]]
    dataset = datasets.Dataset.from_pandas(frame.rename(columns={"start": "onset", "end": "offset"}))
    with pytest.raises(InputError, match="columns 'onset' and 'offset', which mark stretches"):
        fine_tune(dataset, output_dir=tmp_path / "run")
    with pytest.raises(InputError, match="column 'onset', which marks stretches"):
        fine_tune(dataset.remove_columns("offset"), output_dir=tmp_path / "run")
    assert not Path(tmp_path / "run").exists()

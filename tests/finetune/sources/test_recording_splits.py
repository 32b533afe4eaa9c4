"""Which recordings are trained on and scored: folders, columns and splits of data sets, and names that are not there."""

import os
from pathlib import Path

import datasets
import pandas as pd
import pytest
import soundfile
from marked_sounds import write_marked

from finetune.arguments.groups import DataArguments
from finetune.sources.data_errors import DataError
from finetune.sources.marked_recordings import load_marked


def into_folders(folder: Path, folders: dict[str, tuple[int, ...]]) -> Path:
    """Six recordings with label tracks, some of them in folders."""
    write_marked(folder)
    for name, numbers in folders.items():
        (folder / name).mkdir(parents=True)
        for path in [path for number in numbers for path in folder.glob(f"rec{number}.*")]:
            path.rename(folder / name / path.name)
    return folder


def sides(source: Path, **fields) -> dict[str, set[int]]:
    found = load_marked(DataArguments(dataset_name=str(source), **{"marks": "beside"} | fields), 0).sides
    return {side: {int(Path(item.name).stem[-1]) for item in items} for side, items in found.items()}


@pytest.mark.parametrize("above", ["", "all/of/it/"])
@pytest.mark.parametrize("fields", [{"eval_split_name": "siteB", "train_split_name": "siteA"}, {}])
def test_folders_that_are_named_or_called_like_splits(tmp_path, fields, above):
    train, test, other = ("siteA", "siteB", "siteC") if fields else ("Training", "test", "val")
    folder = into_folders(tmp_path / "all", {above + train: (0, 1, 2), above + test: (3, 4), above + other: (5,)})
    assert sides(folder, **fields) == {"train": {0, 1, 2}, "eval": {3, 4}}
    chosen = sides(folder, **fields, validation_split_name=other)
    assert chosen == {"train": {0, 1, 2}, "eval": {3, 4}, "validation": {5}}
    words = load_marked(DataArguments(dataset_name=str(folder), marks="beside", **fields), 0).words
    assert f"without '{other}' (1 recordings)" in words
    assert f"--validation_split_name {other}" in words


@pytest.mark.parametrize(
    ("folders", "fields", "said"),
    [
        (
            {"siteA": (0, 1, 2), "siteB": (3, 4, 5)},
            {"eval_split_name": "siteB"},
            r"'siteB' is scored, but not which is trained on\. Pass --train_split_name siteA, or leave",
        ),
        (
            {"siteA": (0, 1, 2), "siteB": (3, 4, 5)},
            {"train_split_name": "siteA"},
            r"'siteA' is trained on, but not which is scored\. Pass --eval_split_name siteB, or leave",
        ),
        (
            {"siteA": (0, 1, 2), "siteB": (3, 4, 5)},
            {"train_split_name": "siteA", "eval_split_name": "siteX"},
            r"no folder 'siteX' with marked recordings; it has 'siteA', 'siteB'\. Pass --eval_split_name with one of these",
        ),
        (
            {"train": (0, 1, 2), "test": (3, 4, 5)},
            {"validation_split_name": "val"},
            r"no folder 'val' with marked recordings; it has 'test', 'train'\. Pass --validation_split_name",
        ),
        (
            {"siteA": (0, 1, 2), "siteB": (3, 4, 5)},
            {"validation_split_name": "siteA"},
            r"not which is trained on and which is scored\. Pass --train_split_name and --eval_split_name with two of these",
        ),
        (
            {"siteA": (0, 1, 2), "test": (3, 4, 5)},
            {},
            r"'test' is scored, but not which is trained on\. Pass --train_split_name siteA, or call the folder otherwise",
        ),
        (
            {"test": (3, 4, 5)},
            {},
            r"recordings beside them, of which 'test' is scored, .*Put the recordings of the other into a folder train/",
        ),
        ({}, {"validation_split_name": "val"}, r"says of no recording .*or pass --validation_fraction 0\.1 instead"),
        ({}, {"eval_split_name": "val"}, r"says of no recording .*or leave out --eval_split_name"),
        ({}, {"split_column_name": "part"}, r"folders say the splits .*--train_split_name"),
    ],
)
def test_names_that_are_not_there_and_halves_are_refused(tmp_path, folders, fields, said):
    folder = into_folders(tmp_path / "all", folders)
    with pytest.raises(DataError, match=said):
        sides(folder, **fields)


def test_a_folder_of_one_split_and_folders_of_other_names_are_drawn_from(tmp_path):
    for name, folders in {"one": {"train": range(6)}, "sites": {"siteA": range(3), "siteB": range(3, 6)}}.items():
        found = sides(into_folders(tmp_path / name, folders))
        assert (len(found["train"]), len(found["eval"])) == (5, 1)


@pytest.fixture
def table(tmp_path) -> pd.DataFrame:
    """A row for each recording, with a column of parts."""
    write_marked(tmp_path / "all")
    files = [str(tmp_path / "all" / f"rec{number}.wav") for number in range(6)]
    columns = {"start": 1.0, "end": 2.0, "label": ["a", "b"] * 3, "part": ["one"] * 3 + ["two"] * 2 + ["three"]}
    return pd.DataFrame({"file": files} | columns)


NAMED = {"train_split_name": "one", "eval_split_name": "two"}


def test_columns_and_data_sets_alike(tmp_path, table):
    table.to_csv(tmp_path / "rows.csv")
    parts = {part: rows.drop(columns="part").rename(columns={"file": "audio"}) for part, rows in table.groupby("part")}
    audio = datasets.Audio(decode=False)
    saved = {part: datasets.Dataset.from_dict(rows.to_dict("list")) for part, rows in parts.items()}
    datasets.DatasetDict({part: rows.cast_column("audio", audio) for part, rows in saved.items()}).save_to_disk(
        tmp_path / "saved"
    )
    expected = {"train": {0, 1, 2}, "eval": {3, 4}}
    of_column = {"marks": "columns", "split_column_name": "part"}
    assert sides(tmp_path / "rows.csv", **of_column, **NAMED) == expected
    assert sides(tmp_path / "saved", marks="columns", **NAMED) == expected
    for source, fields, what in (
        ("rows.csv", of_column, "The column 'part' of"),
        ("saved", {"marks": "columns"}, "has no split 'four'"),
    ):
        with pytest.raises(DataError, match=f"{what}.*'one', .*Pass --validation_split_name with one of these"):
            sides(tmp_path / source, validation_split_name="four", **fields, **NAMED)
    with pytest.raises(DataError, match="split_column_name='fold' is not in the data set; it has .*'part'"):
        sides(tmp_path / "rows.csv", marks="columns", split_column_name="fold")


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_rows_without_a_split_are_refused(tmp_path, table, form):
    table.loc[5, "part"] = None
    getattr(table, f"to_{form}")(tmp_path / f"rows.{form}")
    with pytest.raises(DataError, match=r"1 recording\(s\) have nothing in the column 'part': .*rec5\.wav"):
        sides(tmp_path / f"rows.{form}", marks="columns", split_column_name="part", **NAMED)


def test_recordings_of_one_name_are_drawn_one_by_one(tmp_path):
    for number in range(4):
        (tmp_path / f"site{number}").mkdir()
        soundfile.write(tmp_path / f"site{number}" / "rec0.wav", [0.0] * 8000 * (number + 1), 8000)
    rows = [
        {"bytes": (tmp_path / f"site{number}" / "rec0.wav").read_bytes(), "path": "rec0.wav"} for number in range(4)
    ]
    rows = {"audio": rows, "start": [0.1] * 4, "end": [0.4] * 4, "label": ["a", "b"] * 2}
    rows = datasets.Dataset.from_dict(rows).cast_column("audio", datasets.Audio(decode=False))
    rows.save_to_disk(tmp_path / "saved")
    found = load_marked(DataArguments(dataset_name=str(tmp_path / "saved"), marks="columns"), 0).sides
    assert {side: len(items) for side, items in found.items()} == {"train": 3, "eval": 1}


def test_a_data_set_of_one_split_is_drawn_from_and_a_column_of_one_is_refused(tmp_path, table):
    rows = datasets.Dataset.from_dict(table.drop(columns="part").rename(columns={"file": "audio"}).to_dict("list"))
    rows = rows.cast_column("audio", datasets.Audio(decode=False))
    datasets.DatasetDict({"train": rows}).save_to_disk(tmp_path / "saved")
    found = sides(tmp_path / "saved", marks="columns")
    assert (len(found["train"]), len(found["eval"])) == (5, 1)
    table.assign(split="train").to_csv(tmp_path / "rows.csv")
    with pytest.raises(
        DataError, match=r"'train' is trained on, but not which is scored\. Add recordings of a split 'test'"
    ):
        sides(tmp_path / "rows.csv", marks="columns")


def test_paths_of_pandas_are_taken_as_audio(tmp_path, table):
    rows = pd.DataFrame(table.rename(columns={"file": "audio"})).astype({"audio": "string"})
    rows = datasets.Dataset.from_pandas(rows, preserve_index=False)
    assert rows.features["audio"].dtype == "large_string"
    rows.save_to_disk(tmp_path / "saved")
    expected = {"train": {0, 1, 2}, "eval": {3, 4}}
    assert sides(tmp_path / "saved", marks="columns", split_column_name="part", **NAMED) == expected


def saved_splits(folder: Path, parts: dict[str, pd.DataFrame]) -> Path:
    """A folder that `save_to_disk` wrote for each split, with columns of its own."""
    for part, rows in parts.items():
        rows = datasets.Dataset.from_dict(rows.to_dict("list"))
        rows.cast_column("audio", datasets.Audio(decode=False)).save_to_disk(folder / part)
    return folder


def halves(table: pd.DataFrame, **names: dict[str, str]) -> dict[str, pd.DataFrame]:
    table = table.rename(columns={"file": "audio"})
    parts = {"train": table[:3], "test": table[3:]}
    return {part: rows.rename(columns=names.get(part, {})) for part, rows in parts.items()}


def test_splits_may_have_columns_of_their_own(tmp_path, table):
    table["label"] = list("abcbca")
    expected = dict(zip(map(os.path.basename, table["file"]), table["label"], strict=True))
    names = {"train": {"part": "site"}, "test": {"label": "event_label", "start": "onset", "end": "offset"}}
    folder = saved_splits(tmp_path / "saved", halves(table, **names))
    found = load_marked(DataArguments(dataset_name=str(folder), marks="columns"), 0).sides
    marks = {item.name: [mark.label for mark in item.marks] for items in found.values() for item in items}
    assert marks == {path: [label] for path, label in expected.items()}
    assert {side: len(items) for side, items in found.items()} == {"train": 3, "eval": 3}


@pytest.mark.parametrize("column", ["start", "label"])
def test_a_split_without_marks_is_refused_by_its_name(tmp_path, table, column):
    parts = halves(table)
    parts["test"] = parts["test"].drop(columns=column)
    with pytest.raises(DataError, match=r"\(split 'test'\) has the columns .*expected file, start, end .* and label"):
        sides(saved_splits(tmp_path / "saved", parts), marks="columns")


def test_a_split_without_the_column_of_splits_is_refused_by_its_name(tmp_path, table):
    parts = halves(table)
    parts["test"] = parts["test"].drop(columns="part")
    said = r"\(split 'test'\) is without the column of splits: split_column_name='part' is not in the data set; it has"
    with pytest.raises(DataError, match=said):
        sides(saved_splits(tmp_path / "saved", parts), marks="columns", split_column_name="part", **NAMED)


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_two_ways_to_write_a_path_are_one_recording(tmp_path, table, form):
    (tmp_path / "link").symlink_to(tmp_path / "all")
    rows = [*table["file"], "./all/rec0.wav", "all/../all/rec0.wav", "link/rec0.wav"]
    starts = [number / 2 for number in range(len(rows))]
    frame = pd.DataFrame({"file": rows, "start": starts, "end": [start + 0.25 for start in starts], "label": "a"})
    getattr(frame, f"to_{form}")(tmp_path / f"rows.{form}")
    found = load_marked(DataArguments(dataset_name=str(tmp_path / f"rows.{form}"), marks="columns"), 0).sides
    marks = {Path(item.name).stem: len(item.marks) for items in found.values() for item in items}
    assert sum(map(len, found.values())) == 6
    assert marks == {"rec0": 4} | {f"rec{number}": 1 for number in range(1, 6)}


def test_rows_without_audio_are_refused_with_their_numbers(tmp_path, table):
    table.loc[[1, 4], "file"] = None
    said = (
        r"row\(s\) 2, 5 have no audio\. Fill them in or remove them, or name another column with --audio_column_name"
    )
    for form in ("csv", "parquet"):
        getattr(table, f"to_{form}")(tmp_path / f"rows.{form}")
        with pytest.raises(DataError, match=said):
            sides(tmp_path / f"rows.{form}", marks="columns")
    audio = [None if row in (1, 4) else path for row, path in enumerate(table.pop("file"))]
    rows = datasets.Dataset.from_dict({"audio": audio} | table.to_dict("list"))
    rows.cast_column("audio", datasets.Audio(decode=False)).save_to_disk(tmp_path / "saved")
    with pytest.raises(DataError, match=said):
        sides(tmp_path / "saved", marks="columns")


def test_a_column_of_splits_of_a_table_of_marks_is_told_not_to_be_read(tmp_path, table):
    marks = tmp_path / "marks.csv"
    table.rename(columns={"part": "split"}).to_csv(marks)
    words = load_marked(DataArguments(dataset_name=str(tmp_path / "all"), marks=str(marks)), 0).words
    assert "the column 'split' of marks.csv is not read, as folders say splits" in words
    assert "pass the table as --dataset_name, with --marks columns" in words
    table.to_csv(marks)
    assert "not read" not in load_marked(DataArguments(dataset_name=str(tmp_path / "all"), marks=str(marks)), 0).words

"""Which recordings are trained on and scored: folders, columns and splits of data sets, and names that are not there."""

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

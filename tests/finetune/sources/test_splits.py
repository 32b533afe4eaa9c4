"""How clips come to be trained on, scored and chosen on: as the data says, in files of their own, or held out."""

import shutil

import datasets
import numpy as np
import pandas as pd
import pytest

from finetune.arguments.groups import DataArguments
from finetune.clip_sets.audio_clips import check_splits
from finetune.clip_sets.clip_datasets import clip_sets
from finetune.sources.data_errors import DataError
from finetune.sources.splits import load_splits
from modeling_ast.audio import AudioReader
from tests.finetune.sources.loading import load, names_of

DRUM_LABELS = ["bell", "crash", "handdrum", "hat_closed", "hat_open", "kick", "ride", "snare", "tom"]


def test_the_drums_are_split_by_recording_source(drum_rows):
    splits, _ = load("finetune/sample_data/drums")
    assert splits["train"].features["audio"] == datasets.Audio(decode=False)
    assert splits["train"].features["label"].names == DRUM_LABELS
    assert set(splits["eval"]["source"]) == {"FluidR3"}
    assert "FluidR3" not in splits["train"]["source"]
    assert len(splits["train"]) + len(splits["eval"]) == len(drum_rows)


def test_class_folders_without_a_split_get_a_stratified_one(class_folders):
    splits, method = load(class_folders, eval_fraction=0.2)
    assert (len(splits["train"]), len(splits["eval"])) == (16, 4)
    assert sorted(splits["eval"]["label"]) == [0, 0, 1, 1]
    assert "4 of 20 clips held out" in method
    assert load(class_folders)[0]["eval"]["audio"][:] == splits["eval"]["audio"][:], "the same seed, the same split"


def test_groups_stay_on_one_side(table):
    rows = [
        {name: row[name] for name in ("file_name", "label")} | {"take": str(i % 5)} for i, row in enumerate(table.rows)
    ]
    splits, method = load(table(rows), group_column_name="take")
    assert not set(splits["train"]["take"]) & set(splits["eval"]["take"])
    assert "'take' kept together" in method


@pytest.mark.parametrize("fraction", [0.3, 0.4])
def test_the_share_that_is_held_out_is_the_one_asked_for(class_folders, fraction):
    assert len(load(class_folders, eval_fraction=fraction)[0]["eval"]) == 20 * fraction


def test_a_label_of_an_unused_split_is_no_class(table):
    rows = table.rows + [table.rows[0] | {"label": "cow", "split": "validation"}]
    splits, method = load(table(rows))
    assert splits["train"].features["label"].names == ["cat", "dog"]
    assert "without 'validation' (1 clips)" in method


def test_a_label_of_spaces_is_none(table):
    with pytest.raises(DataError, match="have nothing in the column 'label'"):
        load(table([row | {"label": " "} if row is table.rows[0] else row for row in table.rows]))


def test_groups_have_no_say_where_there_is_a_split(table):
    with pytest.raises(DataError, match="Leave out --group_column_name, or remove the column 'split'"):
        load(table(), group_column_name="file_name")


@pytest.mark.parametrize("number", [2, 3, 4])
def test_of_few_groups_a_whole_one_is_held_out(table, number):
    names = ("file_name", "label")
    rows = [{name: row[name] for name in names} | {"take": str(i % number)} for i, row in enumerate(table.rows)]
    splits, method = load(table(rows), group_column_name="take")
    assert len(set(splits["eval"]["take"])) == 1
    assert set(splits["train"]["take"]) == set(map(str, range(number))) - set(splits["eval"]["take"])
    assert f"kept together, of which there are {number}, so that the share is that of whole ones" in method


@pytest.mark.parametrize("fraction", [0.2, 0.25, 0.35, 0.4, 0.45, 0.5])
@pytest.mark.parametrize("labels", [1, 2])
@pytest.mark.parametrize("groups", [13, 27, 40])
def test_of_many_groups_the_share_asked_for_is_held_out(tmp_path, write_clip, fraction, labels, groups):
    rows = [
        {
            "file_name": f"{i}.wav",
            "label": ("cat;dog" if i % 3 else "dog") if labels == 2 else ["cat", "dog"][i % 2],
            "speaker": i // 2,
        }
        for i in range(2 * groups)
    ]
    for row in rows:
        write_clip(tmp_path / row["file_name"])
    pd.DataFrame(rows).to_csv(tmp_path / "clips.csv", index=False)
    splits, _ = load(
        tmp_path / "clips.csv",
        group_column_name="speaker",
        eval_fraction=fraction,
        label_separator=";" if labels == 2 else None,
    )
    assert len(splits["eval"]) / (2 * groups) == pytest.approx(fraction, abs=0.06)
    assert not set(splits["train"]["speaker"]) & set(splits["eval"]["speaker"])


def test_one_group_cannot_be_divided(table):
    rows = [{name: row[name] for name in ("file_name", "label")} | {"take": "night"} for row in table.rows]
    with pytest.raises(DataError, match=r"all have 'night' in the column 'take'.* leave out --group_column_name"):
        load(table(rows), group_column_name="take")


def test_a_group_column_that_is_not_there(class_folders):
    with pytest.raises(DataError, match="group_column_name='speaker' is not in the data set"):
        load(class_folders, group_column_name="speaker")


def test_too_few_clips_to_split(tmp_path, write_clip):
    for label in ("a", "b"):
        write_clip(tmp_path / label / "only.wav")
    with pytest.raises(DataError, match="too few to hold out"):
        load(tmp_path)


def write_table(path, rows):
    pd.DataFrame(rows).to_csv(path, index=False)
    return path


@pytest.fixture
def files(table, class_folders):
    """A table of its own for each split: digits 0 to 5, 6 to 7 and 8 to 9."""
    parts = {"train_file": range(6), "eval_file": range(6, 8), "validation_file": range(8, 10)}
    rows = [row | {"digit": int(row["file_name"][-5])} for row in table.rows]
    return {
        flag: str(write_table(class_folders / f"{flag}.csv", [row for row in rows if row["digit"] in digits]))
        for flag, digits in parts.items()
    }


def load_files(**fields):
    data = DataArguments(**fields)
    splits, method = load_splits(data, seed=0)
    splits, _ = check_splits(clip_sets(splits), data, AudioReader(), 16_000)
    return {side: split.rows for side, split in splits.items()}, method


def test_a_file_for_each_split(files):
    splits, method = load_files(**files)
    assert {side: set(split["digit"]) for side, split in splits.items()} == {
        "train": set("012345"),
        "eval": set("67"),
        "validation": set("89"),
    }
    assert method == "as the files say", "what their split column says has no part in it"
    del files["validation_file"]
    assert set(load_files(**files)[0]) == {"train", "eval"}


@pytest.mark.parametrize(("side", "told"), [("nowhere.csv", "not there"), ("", "a folder")])
def test_the_file_of_a_split_that_is_not_there(files, class_folders, side, told):
    files["eval_file"] = str(class_folders / side)
    with pytest.raises(DataError, match=f"eval_file=.* is {told}. Pass --eval_file with a table"):
        load_files(**files)


def test_an_empty_label_is_told_with_its_file(files, class_folders, table):
    write_table(class_folders / "eval_file.csv", [table.rows[6], table.rows[7] | {"label": ""}])
    with pytest.raises(DataError, match=r"Row\(s\) 2 of eval_file .*eval_file.csv have nothing in the column 'label'"):
        load_files(**files)


def test_a_validation_split_by_name(table):
    rows = [row | {"split": "dev"} if row["file_name"].endswith("5.wav") else row for row in table.rows]
    splits, method = load(table(rows), validation_split_name="dev")
    assert names_of(splits["validation"]) == {"cat/test_5.wav", "dog/test_5.wav"}
    assert (len(splits["train"]), len(splits["eval"])) == (12, 6)
    assert "without" not in method
    with pytest.raises(DataError, match=r"No clip is in the split 'dve'.*'dev' \(2 clips\).*--validation_split_name"):
        load(table(rows), validation_split_name="dve")


def test_a_validation_folder(class_folders, tmp_path):
    for split, digits in (("train", "0123456"), ("test", "78"), ("dev", "9")):
        for label in ("cat", "dog"):
            (tmp_path / "sorted" / split / label).mkdir(parents=True)
            for digit in digits:
                shutil.copy(class_folders / label / f"test_{digit}.wav", tmp_path / "sorted" / split / label)
    splits, _ = load(tmp_path / "sorted", validation_split_name="dev")
    assert names_of(splits["validation"]) == {"cat/test_9.wav", "dog/test_9.wav"}
    with pytest.raises(
        DataError, match="has no folder 'dve'; it holds dev, test, train. Pass --validation_split_name"
    ):
        load(tmp_path / "sorted", validation_split_name="dve")


def test_a_named_validation_split_needs_data_with_splits(class_folders):
    with pytest.raises(DataError, match="validation_split_name='dev' was given.* Pass --validation_fraction"):
        load(class_folders, validation_split_name="dev")


def test_a_validation_split_of_the_hub(pets_hub):
    pets_hub(
        {"train": ["cat", "dog"] * 4, "test": ["dog"] * 9 + ["cat"], "dev": ["cat"] * 9 + ["dog"]},
        datasets.Value("string"),
    )
    data = DataArguments(dataset_name="user/pets", audio_column_name="sound", validation_split_name="dev")
    splits, _ = load_splits(data, seed=0)
    assert {side: len(split) for side, split in splits.items()} == {"train": 8, "eval": 10, "validation": 10}
    assert splits["validation"]["label"][:] == [0] * 9 + [1]


@pytest.mark.parametrize("own_split", [True, False])
def test_a_share_of_the_training_clips_is_set_apart_for_validation(table, own_split):
    rows = [{name: row[name] for name in row if own_split or name != "split"} for row in table.rows]
    without, _ = load(table(rows))
    splits, method = load(table(rows), validation_fraction=0.25)
    assert names_of(splits["eval"]) == names_of(without["eval"]), "the scored split stays what it is"
    assert not names_of(splits["validation"]) & names_of(splits["train"])
    assert names_of(splits["validation"]) | names_of(splits["train"]) == names_of(without["train"])
    counts = np.bincount(splits["validation"]["label"])
    assert counts.tolist() == [2, 2], "of 14 or 16 training clips"
    assert (
        "a share of 0.25 of the training clips set apart for validation at random, stratified by label (seed 0"
        in method
    )
    again, _ = load(table(rows), validation_fraction=0.25)
    assert names_of(again["validation"]) == names_of(splits["validation"])


def test_groups_stay_on_one_side_of_the_validation_split(table):
    rows = [row | {"take": str(i % 7)} for i, row in enumerate(table.rows)]
    splits, method = load(table(rows), validation_fraction=0.25, group_column_name="take")
    assert splits["validation"]
    assert not set(splits["train"]["take"]) & set(splits["validation"]["take"])
    assert "the column 'take' kept together" in method


def test_too_few_clips_for_a_validation_split(table):
    rows = [row for row in table.rows if row["split"] == "test" or row["file_name"].endswith("0.wav")]
    with pytest.raises(
        DataError, match="2 clips .* too few to hold out a share of 0.5.* pass another --validation_fraction"
    ):
        load(table(rows), validation_fraction=0.5)

"""Data, recipes and tables that are no files: refused in words where they are named, left out of folders with a word."""

import logging

import datasets
import numpy as np
import pytest
from special_paths import WORDS, make_special, never_waits
from tiny_trainings import write_tones

from finetune.arguments.command_line import parse_arguments
from finetune.clip_sets.streaming import load_streams
from finetune.clip_sets.waveforms import fetched, hear_clip
from finetune.sources.data_errors import DataError
from finetune.sources.splits import load_splits
from modeling_ast.audio import AudioError, AudioReader
from modeling_ast.system.regular_files import SpecialFileError


@pytest.fixture(autouse=True)
def _never_waits():
    with never_waits():
        yield


@pytest.fixture
def tones(tmp_path):
    return write_tones(tmp_path / "tones", "ab", 4)


def load(*words, streamed=False):
    data = parse_arguments(["--output_dir", "run", *map(str, words)]).data
    return load_streams(data) if streamed else load_splits(data, seed=0)


def write_table(tones, *others):
    rows = [f"{path},{path.parent.name},{'test' if path.stem == '0' else 'train'}" for path in tones.rglob("*.wav")]
    table = tones.parent / "table.csv"
    table.write_text("\n".join(["file_name,label,split", *sorted(rows), *(f"{path},a,train" for path in others)]))
    return table


def test_class_folders_leave_out_what_is_no_file_with_a_word(tones, caplog):
    for kind in WORDS:
        make_special(tones / "a" / f"{kind}.wav", kind)
    (tones / "a" / "up").symlink_to(tones)
    (tones / "round").symlink_to(tones)
    with caplog.at_level(logging.WARNING):
        splits, _ = load("--dataset_name", tones)
    assert sorted(audio["path"] for split in splits.values() for audio in split["audio"]) == sorted(
        map(str, tones.glob("[ab]/[0-9].wav"))
    )
    said = [record.getMessage() for record in caplog.records if "is left out" in record.getMessage()]
    for kind, words in WORDS.items():
        assert sum(text.startswith(f"{tones / 'a' / f'{kind}.wav'} is left out: it {words}") for text in said) == 1
    for link in (tones / "a" / "up", tones / "round"):
        assert f"{link} is left out: it leads to a folder whose files are taken already." in said
    assert len(said) == len(WORDS) + 2


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("kind", [*WORDS, "folder"])
def test_rows_that_name_no_file(tones, kind, streamed):
    path = tones / "b"
    words = "is a folder."
    if kind != "folder":
        path, words = make_special(tones / "x.wav", kind), WORDS[kind]
    with pytest.raises(DataError) as error:
        load("--dataset_name", write_table(tones, path), streamed=streamed)
    assert f"table.csv names 1 path(s) that are no files: {path} {words}" in str(error.value)
    assert str(error.value).endswith("Correct or remove these rows.")


def test_clips_by_url_that_are_no_files(tones):
    path = make_special(tones / "x.wav", "pipe")
    for name in (str(path), f"file://{path}"):
        with pytest.raises(AudioError, match="x.wav is a pipe, not a file"):
            hear_clip(fetched({"bytes": None, "path": name}), AudioReader(16_000))


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("flag", ["dataset_name", "train_file"])
def test_tables_that_are_no_files(tones, flag, streamed):
    table = make_special(tones.parent / "x.csv", "pipe")
    others = ["--eval_file", write_table(tones)] if flag == "train_file" else []
    with pytest.raises(SpecialFileError, match="x.csv is a pipe, not a file. Save what comes out of it"):
        load(f"--{flag}", table, *others, streamed=streamed)


def test_a_table_of_a_folder_that_is_no_file(tones):
    make_special(tones / "metadata.csv", "pipe")
    with pytest.raises(SpecialFileError, match="metadata.csv is a pipe"):
        load("--dataset_name", tones)


def test_a_saved_data_set_with_a_device(tmp_path):
    datasets.Dataset.from_dict({"audio": ["a"], "label": ["a"]}).save_to_disk(tmp_path / "saved")
    (arrow,) = (tmp_path / "saved").glob("*.arrow")
    arrow.unlink()
    make_special(arrow, "device")  # opening a pipe there could not be interrupted
    with pytest.raises(SpecialFileError, match=f"{arrow.name} is a device"):
        load("--dataset_name", tmp_path / "saved")


def test_parquet_files_that_are_pipes(tmp_path):
    make_special(tmp_path / "train.parquet", "pipe")
    with pytest.raises(SpecialFileError, match="train.parquet is a pipe"):
        load("--dataset_name", tmp_path)


def test_features_that_are_no_files(tmp_path):
    np.save(tmp_path / "good.npy", np.zeros((20, 128), np.float32))
    pipe = make_special(tmp_path / "x.npy", "pipe")
    rows = [f"{name},{label},{split}" for name in ("good.npy", pipe) for label in "ab" for split in ("train", "test")]
    (tmp_path / "table.csv").write_text("\n".join(["features,label,split", *rows]))
    with pytest.raises((AudioError, DataError), match="x.npy is a pipe"):
        splits, _ = load("--dataset_name", tmp_path / "table.csv", "--features_column_name", "features")


def test_a_recipe_that_is_no_file(tmp_path):
    recipe = make_special(tmp_path / "recipe.yaml", "pipe")
    with pytest.raises(SpecialFileError, match="recipe.yaml is a pipe, not a file. Save what comes out of it"):
        parse_arguments([str(recipe)])


def test_a_start_that_is_no_file(tmp_path, tones):
    from finetune.run_finetune import main

    (tmp_path / "start").mkdir()
    make_special(tmp_path / "start" / "config.json", "pipe")
    fields = {"dataset_name": tones, "output_dir": tmp_path / "run", "model_name_or_path": tmp_path / "start"}
    assert main([f"--{name}={value}" for name, value in fields.items()]) == 2

"""Folders that `save_to_disk` of `datasets` wrote, given as `--dataset_name`."""

import os
import shutil
from pathlib import Path

import datasets
import numpy as np
import pytest
import soundfile

from finetune.arguments.groups import DataArguments
from finetune.clip_sets.streaming import load_streams
from finetune.clip_sets.waveforms import ASTDataset
from finetune.run_evaluate import ClipArguments, load_scored_clips
from finetune.sources.data_errors import DataError
from finetune.sources.labels import label_names
from finetune.sources.splits import load_splits
from modeling_ast.audio import AudioReader
from modeling_ast.audio.saved_data_sets import SavedDataSetError

CLIPS = 12


@pytest.fixture
def dataset(tmp_path):
    """Twelve clips whose labels are in no alphabetical order, their audio as `save_to_disk` takes it along."""
    paths = []
    for index in range(CLIPS):
        paths.append(str(tmp_path / f"{index}.wav"))
        soundfile.write(paths[-1], np.random.default_rng(index).uniform(-0.5, 0.5, 1600), 8_000)
    features = datasets.Features({"audio": datasets.Audio(), "label": datasets.ClassLabel(names=["dog", "cat"])})
    return datasets.Dataset.from_dict({"audio": paths, "label": [index % 2 for index in range(CLIPS)]}, features)


def load(folder, **fields):
    return load_splits(DataArguments(dataset_name=str(folder), **fields), seed=0)


def test_a_saved_dataset_is_split_and_heard_without_its_files(dataset, tmp_path):
    expected = [soundfile.read(tmp_path / f"{index}.wav", dtype="float32")[0] for index in range(CLIPS)]
    dataset.save_to_disk(tmp_path / "saved")
    for path in tmp_path.glob("*.wav"):
        path.unlink()
    splits, words = load(tmp_path / "saved")
    assert {side: len(split) for side, split in splits.items()} == {"train": 9, "eval": 3}
    assert label_names(splits["train"]) == ["dog", "cat"]
    assert words.startswith("3 of 12 clips held out at random")
    clips = ASTDataset(splits["eval"], AudioReader(8_000), 1600)
    for index in range(len(clips)):
        number = int(splits["eval"][index]["audio"]["path"].removesuffix(".wav"))
        np.testing.assert_array_equal(clips[index]["waveform"], expected[number])
        assert clips[index]["label"] == number % 2


@pytest.mark.parametrize("form", ["a DatasetDict", "a folder of each"])
def test_saved_splits_are_taken_as_they_are(dataset, tmp_path, form):
    halves = {"Train": dataset.select(range(8)), "test": dataset.select(range(8, CLIPS))}
    if form == "a DatasetDict":
        datasets.DatasetDict(halves).save_to_disk(tmp_path / "saved")
    else:
        for name, half in halves.items():
            half.save_to_disk(tmp_path / "saved" / name)
    splits, words = load(tmp_path / "saved")
    assert {side: len(split) for side, split in splits.items()} == {"train": 8, "eval": 4}
    assert words == "as the data set says: 'Train' is trained on, 'test' is scored"
    clips, _ = load_scored_clips(ClipArguments(dataset_name=str(tmp_path / "saved")), None, ["dog", "cat"])
    assert len(clips) == 4


def test_what_is_not_whole_is_refused_in_words(dataset, tmp_path):
    dataset.save_to_disk(tmp_path / "saved")
    (arrow,) = (tmp_path / "saved").glob("*.arrow")
    content = arrow.read_bytes()
    state = (tmp_path / "saved" / "state.json").read_text()
    for text in ("{}", "{"):
        (tmp_path / "saved" / "state.json").write_text(text)
        with pytest.raises(
            SavedDataSetError, match="saved looks like a data set that save_to_disk has written.*Copy it again"
        ):
            load(tmp_path / "saved")
    (tmp_path / "saved" / "state.json").write_text(state)
    for damaged in (content[: len(content) // 2], b"", None):
        arrow.unlink() if damaged is None else arrow.write_bytes(damaged)
        with pytest.raises(
            SavedDataSetError, match="saved looks like a data set that save_to_disk has written.*Copy it again"
        ):
            load(tmp_path / "saved")


def test_a_saved_data_set_needs_no_streaming(dataset, tmp_path):
    dataset.save_to_disk(tmp_path / "saved")
    with pytest.raises(DataError, match="saved was written by save_to_disk.* leave out --streaming"):
        load_streams(DataArguments(dataset_name=str(tmp_path / "saved"), streaming=True))
    shutil.copytree(tmp_path / "saved", tmp_path / "other")
    (tmp_path / "other" / "state.json").unlink()
    with pytest.raises(DataError, match="holds no audio file"):
        load(tmp_path / "other")


def test_parquet_files_without_a_cache_to_convert_them_in(dataset, tmp_path, monkeypatch):
    dataset.cast_column("audio", datasets.Audio(decode=False)).to_parquet(tmp_path / "pets" / "train.parquet")
    nowhere = f"{os.devnull}/x"  # which nobody can make
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", Path(nowhere))
    monkeypatch.setenv("HF_DATASETS_CACHE", nowhere)
    with pytest.raises(DataError, match=f"{nowhere} cannot be written to: set HF_DATASETS_CACHE to a folder that can"):
        load(tmp_path / "pets")

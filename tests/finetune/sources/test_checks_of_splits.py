"""What is wrong with splits and their files is found before a training: copies, labels, and what cannot be heard."""

import shutil

import datasets
import numpy as np
import pytest
import soundfile

from finetune.arguments.groups import DataArguments
from finetune.clip_sets.audio_clips import check_splits
from finetune.clip_sets.clip_datasets import clip_sets
from finetune.clip_sets.waveforms import ASTDataset
from finetune.sources.data_errors import DataError
from modeling_ast.audio import AudioError, AudioReader
from tests.finetune.sources.loading import load, names_of


def test_clips_that_are_cut_are_counted(class_folders, write_clip):
    write_clip(class_folders / "cat" / "long.wav", seconds=1.5)
    write_clip(class_folders / "cat" / "whole.wav", seconds=16_079 / 16_000)  # 98 frames, as 16,000 samples have
    assert "1 of 22 clips looked at are longer than the 1.00 s" in load(class_folders)[1]


def test_one_class_only_in_training(table):
    rows = [row for row in table.rows if row["label"] == "cat" or row["split"] == "test"]
    with pytest.raises(DataError, match="All training clips have the label cat"):
        load(table(rows))


def test_identical_audio_in_both_splits(table, class_folders):
    shutil.copy(class_folders / "cat" / "test_0.wav", class_folders / "cat" / "copy.wav")
    rows = table.rows + [{"file_name": "cat/copy.wav", "label": "cat", "split": "test"}]
    with pytest.raises(
        DataError, match=r"1 clip\(s\) are in the training and .*test_0.wav = .*copy.wav.*--drop_duplicate"
    ):
        load(table(rows))
    splits, notes = load(table(rows), drop_duplicate_audio=True)
    assert len(splits["train"]) == 13
    assert "1 clip(s) also in the scored split were left out of training" in notes
    assert not any("test_0.wav" in audio["path"] and "cat" in audio["path"] for audio in splits["train"]["audio"])


def test_a_file_and_the_same_audio_as_bytes_are_one_clip(tmp_path):
    paths = [tmp_path / f"{number}.wav" for number in range(4)]
    for number, path in enumerate(paths):
        soundfile.write(path, np.random.default_rng(number).uniform(-0.5, 0.5, 8000), 16_000)
    features = datasets.Features(
        {"audio": datasets.Audio(decode=False), "label": datasets.ClassLabel(names=["a", "b"])}
    )
    in_bytes = {"bytes": paths[1].read_bytes(), "path": None}  # more than is looked at first
    splits = {
        side: datasets.Dataset.from_dict({"audio": audio, "label": [0, 1]}, features)
        for side, audio in (("train", [str(paths[0]), str(paths[1])]), ("eval", [str(paths[2]), in_bytes]))
    }
    with pytest.raises(DataError, match=r"1 clip\(s\) are in the training and in the scored split: .*1.wav = a clip"):
        check_splits(clip_sets(splits), DataArguments(dataset_name="x"), AudioReader(), 16_000)


def test_duplicates_are_dropped_before_labels_are_compared(table, class_folders, write_clip):
    cow = write_clip(class_folders / "cow" / "moo.wav")
    shutil.copy(cow, cow.with_name("moo2.wav"))
    rows = table.rows + [
        {"file_name": f"cow/{n}.wav", "label": "cow", "split": s} for n, s in (("moo", "train"), ("moo2", "test"))
    ]
    with pytest.raises(DataError, match="cow: no training clip has this label"):
        load(table(rows), drop_duplicate_audio=True)


def test_bad_files_are_named_up_front(class_folders, write_clip):
    (class_folders / "cat" / "empty.wav").write_bytes(b"")
    (class_folders / "cat" / "text.wav").write_text("this is no audio")
    soundfile.write(class_folders / "dog" / "nan.wav", np.full(8000, np.nan), 16_000, subtype="FLOAT")
    write_clip(class_folders / "dog" / "short.wav", seconds=0.02)
    with pytest.raises(DataError) as error:
        load(class_folders)
    assert "4 of 24 clips" in str(error.value)
    for name in ("empty.wav", "text.wav", "nan.wav", "short.wav lasts 20 ms, a frame needs 25 ms"):
        assert name in str(error.value)


def test_200_clips_are_looked_at_unless_all_are_asked_for(tmp_path, write_clip):
    for label in ("a", "b"):
        for index in range(150):
            write_clip(tmp_path / label / f"{index}.wav", seconds=0.04)
    (tmp_path / "a" / "bad.wav").write_bytes(b"x" * 50)
    with pytest.raises(DataError, match="1 of 301 clips"):
        load(tmp_path, check_audio=True)
    for index in range(150):
        (tmp_path / "a" / f"{index}.wav").write_bytes(f"{index:050d}".encode())
    with pytest.raises(DataError, match="of 200 clips"):
        load(tmp_path)


def test_a_bad_file_met_later_is_named(class_folders):
    splits, _ = load(class_folders)
    path = splits["train"]["audio"][0]["path"]
    with open(path, "wb") as file:
        file.write(b"")
    with pytest.raises(AudioError, match="test_"):
        ASTDataset(splits["train"], AudioReader(), 16_000)[0]


def test_a_label_of_the_validation_split_missing_in_training(table, class_folders, write_clip):
    write_clip(class_folders / "cow" / "moo.wav")
    rows = table.rows + [{"file_name": "cow/moo.wav", "label": "cow", "split": "dev"}]
    with pytest.raises(DataError, match="cow: no training clip has this label, but the validation split does"):
        load(table(rows), validation_split_name="dev")


@pytest.mark.parametrize(
    ("left", "kept", "told"),
    [
        ("train", "dev", "are in the training and in the validation split"),
        ("dev", "test", "are in the validation and in the scored split"),
        ("train", "test", "are in the training and in the scored split"),
    ],
)
def test_identical_audio_in_any_two_of_three_splits(table, class_folders, write_clip, left, kept, told):
    again = write_clip(class_folders / "dog" / "again.wav")
    shutil.copy(again, again.with_name("twin.wav"))
    write_clip(class_folders / "dog" / "other.wav")
    of_split = {"other": "dev", "again": left, "twin": kept}
    rows = table.rows + [{"file_name": f"dog/{n}.wav", "label": "dog", "split": s} for n, s in of_split.items()]
    with pytest.raises(DataError, match=rf"1 clip\(s\) {told}: .*again.wav = .*twin.wav.*--drop_duplicate_audio"):
        load(table(rows), validation_split_name="dev")
    splits, notes = load(table(rows), drop_duplicate_audio=True, validation_split_name="dev")
    names = {name for split in splits.values() for name in names_of(split)}
    assert len(names) == 22
    assert "dog/again.wav" not in names
    assert "1 clip(s) also in the" in notes


def test_a_clip_in_all_three_splits_stays_in_the_scored_one(table, class_folders, write_clip):
    original = write_clip(class_folders / "dog" / "again.wav")
    write_clip(class_folders / "dog" / "other.wav")
    rows = table.rows + [{"file_name": "dog/other.wav", "label": "dog", "split": "dev"}]
    for split in ("train", "dev", "test"):
        shutil.copy(original, original.with_name(f"{split}.wav"))
        rows.append({"file_name": f"dog/{split}.wav", "label": "dog", "split": split})
    splits, notes = load(table(rows), drop_duplicate_audio=True, validation_split_name="dev")
    assert {side: len(split) for side, split in splits.items()} == {"train": 14, "eval": 7, "validation": 1}
    assert "dog/test.wav" in names_of(splits["eval"])
    assert notes.count("1 clip(s) also in the scored split were left out of") == 2
    assert "also in the validation split" not in notes, "each clip is counted once"


def test_a_split_of_which_no_clip_is_left(table, class_folders):
    shutil.copy(class_folders / "dog" / "test_9.wav", class_folders / "dog" / "twin.wav")
    rows = table.rows + [{"file_name": "dog/twin.wav", "label": "dog", "split": "dev"}]
    with pytest.raises(DataError, match="All clips of the validation split are in another split too"):
        load(table(rows), drop_duplicate_audio=True, validation_split_name="dev")


def test_bad_files_of_the_validation_split_are_named(table, class_folders):
    (class_folders / "dog" / "text.wav").write_text("this is no audio")
    rows = table.rows + [{"file_name": "dog/text.wav", "label": "dog", "split": "dev"}]
    with pytest.raises(DataError, match=r"1 of 21 clips looked at cannot be used:\n.*text.wav"):
        load(table(rows), validation_split_name="dev")

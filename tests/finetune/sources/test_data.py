"""Folders, tables and columns of users, right and wrong."""

import csv
import os
import shutil
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import pytest
import soundfile

from finetune.arguments.groups import DataArguments
from finetune.clip_sets.augmentation import Augmentation, change_speed, mix_waveforms
from finetune.clip_sets.sampling import EpochSampler
from finetune.clip_sets.split_checks import check_splits
from finetune.clip_sets.waveforms import ASTDataset
from finetune.sources.data_errors import DataError
from finetune.sources.labels import label_names
from finetune.sources.splits import load_folds, load_splits
from modeling_ast.audio import AudioError, AudioReader

DRUM_LABELS = ["bell", "crash", "handdrum", "hat_closed", "hat_open", "kick", "ride", "snare", "tom"]


def load(source, **fields):
    data = DataArguments(dataset_name=str(source), **fields)
    splits, method = load_splits(data, seed=0)
    splits, notes = check_splits(splits, data, AudioReader(), 16_000)
    return splits, "; ".join([method, *notes])


@pytest.fixture
def write_clip():
    generator = np.random.default_rng(0)

    def write(path, seconds=0.2, sampling_rate=16_000):
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, generator.uniform(-0.5, 0.5, int(seconds * sampling_rate)), sampling_rate)
        return path

    return write


@pytest.fixture
def class_folders(tmp_path, write_clip):
    """Two classes of ten clips each; a file name with "test" in it is no split."""
    for label in ("cat", "dog"):
        for index in range(10):
            write_clip(tmp_path / "pets" / label / f"test_{index}.wav")
    return tmp_path / "pets"


@pytest.fixture
def table(class_folders):
    """A CSV beside the class folders with a split column."""
    rows = [
        {"file_name": f"{label}/test_{index}.wav", "label": label, "split": "train" if index < 7 else "test"}
        for label in ("cat", "dog")
        for index in range(10)
    ]

    def write(rows=rows, name="clips.csv"):
        path = class_folders / name
        with open(path, "w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
        return path

    write.rows = rows
    return write


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


def test_class_folders_below_split_folders(class_folders, tmp_path):
    for split, digits in (("train", "0123456"), ("test", "789")):
        for label in ("cat", "dog"):
            (tmp_path / "sorted" / split / label).mkdir(parents=True)
            for digit in digits:
                shutil.copy(class_folders / label / f"test_{digit}.wav", tmp_path / "sorted" / split / label)
    splits, _ = load(tmp_path / "sorted")
    assert (len(splits["train"]), len(splits["eval"])) == (14, 6)
    assert splits["train"].features["label"].names == ["cat", "dog"]


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet", "parquet with bytes"])
def test_tables_of_every_kind(table, class_folders, kind):
    frame = pd.DataFrame(table.rows)
    suffix = kind.split()[0]
    path = class_folders / f"clips.{suffix}"
    if kind == "parquet with bytes":
        content = [(class_folders / name).read_bytes() for name in frame.pop("file_name")]
        frame["audio"] = [{"bytes": one, "path": None} for one in content]
    if suffix == "parquet":
        frame.to_parquet(path)
    elif suffix == "jsonl":
        frame.to_json(path, orient="records", lines=True)
    else:
        frame.to_csv(path, sep="\t" if suffix == "tsv" else ",", index=False)
    splits, _ = load(path)
    assert (len(splits["train"]), len(splits["eval"])) == (14, 6)
    item = ASTDataset(splits["eval"], AudioReader(), 16_000)[0]
    assert item["label"] == 0
    expected = soundfile.read(class_folders / "cat" / "test_7.wav", dtype="float32")[0]
    np.testing.assert_array_equal(item["waveform"], expected)


def test_labels_that_look_like_numbers_or_nothing_stay_text(table):
    rows = [row | {"label": "NA" if row["label"] == "cat" else "007"} for row in table.rows]
    splits, _ = load(table(rows))
    assert splits["train"].features["label"].names == ["007", "NA"]


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


def test_hidden_files_and_folders_are_passed_over(class_folders, write_clip):
    write_clip(class_folders / "cat" / ".hidden.wav")
    write_clip(class_folders / ".cache" / "old.wav")
    splits, _ = load(class_folders)
    assert sum(map(len, splits.values())) == 20


def test_a_file_name_that_is_not_in_utf_8_is_refused_in_words(class_folders, write_clip):
    name = os.fsdecode(b"m\xfcller.wav")  # Latin-1
    try:
        write_clip(class_folders / "cat" / "new.wav").rename(class_folders / "cat" / name)
    except OSError:
        pytest.skip("this file system takes no such name")
    with pytest.raises(DataError, match=r"cat/m\\udcfcller.wav' is not in UTF-8.* Rename it"):
        load(class_folders)


def test_the_chosen_columns_win_over_others_of_the_usual_names(table):
    rows = [
        row | {"species": row["label"], "label": "pet", "fold": row["split"], "split": "train"} for row in table.rows
    ]
    splits, _ = load(table(rows), label_column_name="species", split_column_name="fold")
    assert splits["train"].features["label"].names == ["cat", "dog"]
    assert (len(splits["train"]), len(splits["eval"])) == (14, 6)


def test_a_label_of_an_unused_split_is_no_class(table):
    rows = table.rows + [table.rows[0] | {"label": "cow", "split": "validation"}]
    splits, method = load(table(rows))
    assert splits["train"].features["label"].names == ["cat", "dog"]
    assert "without 'validation' (1 clips)" in method


def test_groups_have_no_say_where_there_is_a_split(table):
    with pytest.raises(DataError, match="Leave out --group_column_name, or remove the column 'split'"):
        load(table(), group_column_name="file_name")


def test_audio_that_is_neither_a_path_nor_bytes(class_folders):
    (class_folders / "clips.jsonl").write_text('{"audio": 5, "label": "cat"}\n')
    with pytest.raises(DataError, match="The audio column holds 5"):
        load(class_folders / "clips.jsonl")


def test_clips_that_are_cut_are_counted(class_folders, write_clip):
    write_clip(class_folders / "cat" / "long.wav", seconds=1.5)
    write_clip(class_folders / "cat" / "whole.wav", seconds=16_079 / 16_000)  # 98 frames, as 16,000 samples have
    assert "1 of 22 clips looked at are longer than the 1.00 s" in load(class_folders)[1]


@pytest.fixture
def hub(class_folders, monkeypatch):
    """Stands for the Hub: `load_dataset` gives the class folders with labels of the kind asked for."""

    def publish(labels_of_split, label_type):
        splits = {}
        for split, labels in labels_of_split.items():
            paths = [str(class_folders / label / f"test_{i}.wav") for i, label in enumerate(labels) if label != "cow"]
            features = datasets.Features({"sound": datasets.Audio(decode=False), "label": label_type})
            rows = {
                "sound": paths + [paths[0]] * labels.count("cow"),
                "label": [one for one in labels if one != "cow"],
            }
            rows["label"] += ["cow"] * labels.count("cow")
            splits[split] = datasets.Dataset.from_dict(rows, features)
        monkeypatch.setattr(datasets, "load_dataset", lambda name, config: datasets.DatasetDict(splits))

    return publish


@pytest.mark.parametrize(
    ("label_type", "names"),
    [
        (datasets.Value("string"), ["cat", "dog"]),
        (datasets.ClassLabel(names=["dog", "cow", "newt", "cat"]), ["dog", "newt", "cat"]),
    ],
    ids=["strings", "ClassLabel"],
)
def test_a_hub_data_set_and_the_order_of_its_labels(hub, label_type, names):
    hub({"train": ["cat", "dog", "cat", "dog"], "test": ["x", "x", "x", "x", "dog", "cat", "cow"][4:]}, label_type)
    splits, method = load("user/pets", audio_column_name="sound", ignore_labels=["cow"], drop_duplicate_audio=True)
    assert method.startswith("as the data set on the Hub says")
    assert label_names(splits["eval"]) == names
    assert splits["eval"]["label"][:] == [names.index("dog"), names.index("cat")]
    assert splits["train"].features["audio"] == datasets.Audio(decode=False)


def test_columns_in_which_hub_splits_differ_stay_behind(class_folders, monkeypatch):
    splits = {}
    for name, digit, others in (
        ("train", 0, {"take": [1, 2], "note": ["a", "b"], "kit": [1, 1]}),
        ("test", 1, {"take": ["x", "y"], "kit": [2, 2]}),
    ):
        rows = {"audio": [str(class_folders / f"{label}/test_{digit}.wav") for label in ("cat", "dog")]}
        split = datasets.Dataset.from_dict(rows | {"label": ["cat", "dog"]} | others)
        splits[name] = split.cast_column("audio", datasets.Audio(decode=False))
    monkeypatch.setattr(datasets, "load_dataset", lambda name, config: datasets.DatasetDict(splits))
    loaded, _ = load("user/pets")
    assert loaded["train"].column_names == loaded["eval"].column_names == ["audio", "label", "kit"]
    assert loaded["eval"]["kit"][:] == [2, 2]


@pytest.mark.parametrize("label_type", [datasets.Value("string"), datasets.ClassLabel(names=["cat", "dog"])])
def test_a_hub_clip_without_a_label(class_folders, monkeypatch, label_type):
    features = datasets.Features({"audio": datasets.Audio(decode=False), "label": label_type})
    labels = ["cat", "dog", "cat", None if label_type.dtype == "string" else -1]
    paths = [
        str(class_folders / name) for name in ("cat/test_0.wav", "dog/test_0.wav", "cat/test_1.wav", "dog/test_1.wav")
    ]
    splits = {
        name: datasets.Dataset.from_dict({"audio": paths[part], "label": labels[part]}, features)
        for name, part in (("train", slice(0, 2)), ("test", slice(2, 4)))
    }
    monkeypatch.setattr(datasets, "load_dataset", lambda name, config: datasets.DatasetDict(splits))
    with pytest.raises(DataError, match=r"Row\(s\) 2 of the split 'test' have nothing in the column 'label'"):
        load("user/pets")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "audio_column_name='audio' is not in the data set; it has 'sound', 'label'"),
        ({"audio_column_name": "sound", "eval_split_name": "dev"}, "has no split 'dev'; it has train, test"),
    ],
)
def test_a_hub_data_set_with_other_names(hub, fields, message):
    hub({"train": ["cat", "dog"], "test": ["dog", "cat"]}, datasets.Value("string"))
    with pytest.raises(DataError, match=message):
        load("user/pets", **fields)


def test_a_hub_data_set_that_cannot_be_had(monkeypatch):
    def fail(name, config):
        raise ConnectionError("offline")

    monkeypatch.setattr(datasets, "load_dataset", fail)
    with pytest.raises(DataError, match=r"user/pets is neither .* nor a data set that the Hub gives \(offline\)"):
        load("user/pets")


def test_ignored_labels_are_left_out(table):
    rows = table.rows + [table.rows[0] | {"label": "noise", "split": "test"}]
    splits, _ = load(table(rows), ignore_labels=["noise"])
    assert splits["eval"].features["label"].names == ["cat", "dog"]


def test_ignoring_a_label_that_is_not_there(class_folders):
    with pytest.raises(DataError, match="ignore_labels names dgo, which no clip has; there are cat, dog"):
        load(class_folders, ignore_labels=["dgo"])


@pytest.mark.parametrize("cell", [{"label": ""}, {"file_name": ""}, {"split": ""}])
def test_empty_cells(table, cell):
    with pytest.raises(DataError, match=rf"(?i)row\(s\) 21 have nothing in the column '{next(iter(cell))}'"):
        load(table(table.rows + [table.rows[0] | cell]))


def test_one_of_two_split_folders(class_folders, tmp_path):
    shutil.copytree(class_folders, tmp_path / "data" / "train")
    shutil.copytree(class_folders, tmp_path / "data" / "validation")
    with pytest.raises(DataError, match="'train' looks like a split.* --train_split_name and --eval_split_name"):
        load(tmp_path / "data")


def test_clips_below_class_folders(class_folders, write_clip):
    write_clip(class_folders / "fold1" / "dog" / "deep.wav")
    with pytest.raises(DataError, match="deep.wav lies 2 folders deep"):
        load(class_folders)


def test_a_folder_without_audio(tmp_path):
    with pytest.raises(DataError, match=r"holds no audio file .* Pass another --dataset_name"):
        load(tmp_path)


def test_clips_outside_class_folders(class_folders, write_clip):
    write_clip(class_folders / "stray.wav")
    with pytest.raises(DataError, match=r"stray.wav lies in no class folder. Expected .*CLASS/stray.wav"):
        load(class_folders)


def test_a_path_that_is_not_there(tmp_path):
    with pytest.raises(DataError, match="Pass --dataset_name with a folder, a table, or a Hub id like user/name"):
        load(tmp_path / "nowhere.csv")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"label_column_name": "class"},
            r"label_column_name='class' is not in the data set; it has 'file_name', 'label'",
        ),
        (
            {"eval_split_name": "validation"},
            r"the data has 'train' \(14 clips\), 'test' \(6 clips\). Pass --eval_split_name",
        ),
    ],
)
def test_a_column_or_split_that_is_not_there(table, fields, message):
    with pytest.raises(DataError, match=message):
        load(table(), **fields)


def test_no_audio_column(table):
    rows = [{"sound": row["file_name"], "label": row["label"]} for row in table.rows]
    with pytest.raises(DataError, match="audio_column_name='audio' is not in the data set; it has 'sound', 'label'"):
        load(table(rows))
    assert load(table(rows), audio_column_name="sound")


def test_a_group_column_that_is_not_there(class_folders):
    with pytest.raises(DataError, match="group_column_name='speaker' is not in the data set"):
        load(class_folders, group_column_name="speaker")


def test_one_class_only_in_training(table):
    rows = [row for row in table.rows if row["label"] == "cat" or row["split"] == "test"]
    with pytest.raises(DataError, match="All training clips have the label cat"):
        load(table(rows))


def test_too_few_clips_to_split(tmp_path, write_clip):
    for label in ("a", "b"):
        write_clip(tmp_path / label / "only.wav")
    with pytest.raises(DataError, match="too few to hold out"):
        load(tmp_path)


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
        check_splits(datasets.DatasetDict(splits), DataArguments(dataset_name="x"), AudioReader(), 16_000)


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


def test_mixed_items_carry_soft_labels_and_depend_only_on_seed_epoch_and_index(class_folders):
    splits, _ = load(class_folders)
    always = Augmentation(mixup_probability=1.0)
    dataset = ASTDataset(splits["train"], AudioReader(), 16_000, always, seed=1)
    first, again, later = dataset[0, 3], dataset[0, 3], dataset[1, 3]
    np.testing.assert_array_equal(first["waveform"], again["waveform"])
    assert not np.array_equal(first["waveform"], later["waveform"])
    assert first["label"].sum() == pytest.approx(1)
    assert first["label"].dtype == np.float32
    assert dataset[3]["label"] in (0, 1), "without an epoch nothing is augmented"


def test_the_epoch_sampler_visits_every_clip_once_in_an_order_of_seed_and_epoch():
    sampler = EpochSampler(50, seed=1)
    sampler.set_epoch(2)
    order = list(sampler)
    assert {epoch for epoch, _ in order} == {2}
    assert sorted(index for _, index in order) == list(range(50))
    assert list(sampler) == order
    sampler.set_epoch(3)
    assert [index for _, index in sampler] != [index for _, index in order]


def test_clips_of_similar_length_are_visited_together_in_groups_of_random_order():
    lengths = np.random.default_rng(0).integers(1, 1000, size=397)
    sampler = EpochSampler(397, seed=1, lengths=lengths, group_size=8)
    order = [index for _, index in sampler]
    assert sorted(order) == list(range(397))
    groups = [lengths[order[start : start + 8]] for start in range(0, 392, 8)]  # all of them sorted together
    assert max(np.ptp(group) for group in groups) < 100
    longest = [group.max() for group in groups]
    assert longest != sorted(longest)
    assert [index for _, index in sampler] == order
    sampler.set_epoch(1)
    assert [index for _, index in sampler] != order


def test_other_columns_come_along_whatever_they_are_called(table):
    splits, _ = load(table([row | {"side": "left"} for row in table.rows]))
    assert set(splits["train"]["side"]) == {"left"}


def write_table(path, rows):
    pd.DataFrame(rows).to_csv(path, index=False)
    return path


def names_of(split):
    return {str(Path(audio["path"]).relative_to(Path(audio["path"]).parents[1])) for audio in split["audio"]}


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
    return check_splits(splits, data, AudioReader(), 16_000)[0], method


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


def test_a_validation_split_of_the_hub(hub):
    hub(
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


@pytest.fixture
def fold_rows(table):
    """Five folds of which one is called 10, across the splits of the column "split"."""
    folds = ["10", "2", "1", "9", "3"]
    return [row | {"fold": folds[i % 5]} for i, row in enumerate(table.rows)]


def load_fold_pairs(source, **fields):
    return load_folds(DataArguments(dataset_name=str(source), **fields))


def test_each_fold_is_scored_by_a_model_of_the_others(table, fold_rows):
    folds, method = load_fold_pairs(table(fold_rows), fold_column_name="fold")
    assert [name for name, _ in folds] == ["1", "2", "3", "9", "10"]
    scored = []
    for name, splits in folds:
        assert set(splits["eval"]["fold"]) == {name}
        assert set(splits["train"]["fold"]) == {"1", "2", "3", "9", "10"} - {name}
        assert len(splits["train"]) + len(splits["eval"]) == 20
        scored += [audio["path"] for audio in splits["eval"]["audio"]]
    assert len(set(scored)) == 20, "each clip is scored once"
    assert "5 folds by the column 'fold'" in method
    assert "the column 'split' has no part in it" in method
    folds, method = load_fold_pairs(table(fold_rows), fold_column_name="fold", split_column_name="split")
    assert sum(len(splits["eval"]) for _, splits in folds) == 14, "as asked for, of the training split alone"
    assert "without 'test' (6 clips) of the column 'split'" in method


def test_all_folds_have_the_labels_of_all(table, fold_rows):
    rows = [row | {"label": "cow"} if row["fold"] == "9" and row["label"] == "cat" else row for row in fold_rows]
    folds, _ = load_fold_pairs(table(rows), fold_column_name="fold")
    assert {tuple(label_names(split)) for _, splits in folds for split in splits.values()} == {("cat", "cow", "dog")}
    name, splits = folds[3]
    assert name == "9"
    assert set(splits["eval"]["label"]) == {1, 2}
    assert set(splits["train"]["label"]) == {0, 2}


def test_a_split_column_that_was_asked_for_keeps_its_scored_clips_out_of_the_folds(table, fold_rows):
    rows = [{("part" if name == "split" else name): value for name, value in row.items()} for row in fold_rows]
    folds, method = load_fold_pairs(table(rows), fold_column_name="fold", split_column_name="part")
    assert sum(len(splits["eval"]) for _, splits in folds) == 14
    assert "without 'test' (6 clips) of the column 'part'" in method
    with pytest.raises(DataError, match="No clip is in the split 'learn' of the column 'part'.* --train_split_name"):
        load_fold_pairs(table(rows), fold_column_name="fold", split_column_name="part", train_split_name="learn")


@pytest.mark.parametrize("column", ["split", "part"])
def test_the_split_column_may_hold_the_folds(table, fold_rows, column):
    rows = [{name: row[name] for name in ("file_name", "label")} | {column: row["fold"]} for row in fold_rows]
    folds, method = load_fold_pairs(table(rows), fold_column_name=column, split_column_name=column)
    assert [name for name, _ in folds] == ["1", "2", "3", "9", "10"]
    assert method == f"5 folds by the column {column!r}, each scored by a model of the others"


def test_the_drum_sources_as_folds_of_a_folder_with_metadata(drum_rows):
    folds, _ = load_fold_pairs("finetune/sample_data/drums", fold_column_name="source")
    assert [name for name, _ in folds] == sorted({row["source"] for row in drum_rows})
    assert sum(len(splits["eval"]) for _, splits in folds) == len(drum_rows)


def test_folds_of_the_hub_are_made_of_all_its_splits(class_folders, monkeypatch):
    features = {"audio": datasets.Audio(decode=False), "label": datasets.ClassLabel(names=["dog", "cat"])}
    features = datasets.Features(features | {"fold": datasets.Value("int64")})
    splits = {
        name: datasets.Dataset.from_dict(
            {
                "audio": [str(class_folders / f"{label}/test_{i}.wav") for i in digits for label in ("cat", "dog")],
                "label": [1, 0] * len(digits),
                "fold": [fold for fold in folds for _ in range(2)],
            },
            features,
        )
        for name, digits, folds in (("train", (0, 1), (10, 2)), ("extra", (2,), (2,)))
    }
    monkeypatch.setattr(datasets, "load_dataset", lambda name, config: datasets.DatasetDict(splits))
    folds, method = load_fold_pairs("user/pets", fold_column_name="fold")
    assert [(name, len(splits["eval"])) for name, splits in folds] == [("2", 4), ("10", 2)]
    assert "of the splits train, extra together" in method
    assert names_of(folds[1][1]["eval"]) == {"cat/test_0.wav", "dog/test_0.wav"}
    assert folds[1][1]["eval"]["label"][:] == [1, 0]


@pytest.mark.parametrize(
    ("fold", "fields", "message"),
    [
        ("1", {}, "The column 'fold' has 1 for all clips, expected two folds or more"),
        ("1", {"fold_column_name": "part"}, "fold_column_name='part' is not in the data set; it has"),
        ("", {}, r"Row\(s\) 1, 2, 3, 4, 5 and 15 more have nothing in the column 'fold'"),
    ],
)
def test_columns_that_make_no_folds(table, fold, fields, message):
    rows = [row | {"fold": fold} for row in table.rows]
    with pytest.raises(DataError, match=message):
        load_fold_pairs(table(rows), **{"fold_column_name": "fold"} | fields)


def test_a_group_in_two_folds(table, fold_rows):
    rows = [row | {"take": row["fold"]} for row in fold_rows]
    assert load_fold_pairs(table(rows), fold_column_name="fold", group_column_name="take")
    rows[0]["take"] = "9"
    with pytest.raises(DataError, match="The column 'take' has clips of 9 in more than one fold of 'fold'"):
        load_fold_pairs(table(rows), fold_column_name="fold", group_column_name="take")


def test_a_fold_that_no_json_record_names_is_none(class_folders):
    rows = [{"path": "cat/test_0.wav", "label": "cat", "fold": 1}, {"path": "dog/test_0.wav", "label": "dog"}]
    pd.DataFrame(rows).to_json(class_folders / "clips.jsonl", orient="records", lines=True)
    with pytest.raises(DataError, match=r"Row\(s\) 2 have nothing in the column 'fold'"):
        load_fold_pairs(class_folders / "clips.jsonl", fold_column_name="fold")


def test_the_speed_of_a_training_clip_changes_and_that_of_its_mixup_partner_does_not(tmp_path):
    for name, samples in (("a", 16_000), ("b", 420)):
        tone = np.sin(2 * np.pi * 440 * np.arange(samples) / 16_000)
        soundfile.write(tmp_path / f"{name}.wav", tone / 2, 16_000, subtype="FLOAT")
    (tmp_path / "clips.csv").write_text("file_name,label,split\na.wav,x,train\nb.wav,y,train\na.wav,x,test\n")
    splits, _ = load_splits(DataArguments(dataset_name=str(tmp_path / "clips.csv")), seed=0)
    augmentation = Augmentation(max_speed_change=0.3)
    dataset = ASTDataset(splits["train"], AudioReader(), 32_000, augmentation, seed=0)
    plain, _ = soundfile.read(tmp_path / "a.wav", dtype="float32")
    lengths = set()
    for epoch in range(20):
        speed = augmentation.draw(0, epoch, 0, 2).speed
        waveform = dataset[(epoch, 0)]["waveform"]
        expected = plain if speed == 1 else change_speed(plain, speed)
        np.testing.assert_array_equal(waveform, expected)
        assert len(waveform) == pytest.approx(16_000 / speed, abs=2)
        lengths.add(len(waveform))
        assert len(dataset[(epoch, 1)]["waveform"]) >= 400  # one frame, also of a clip that became shorter
    assert len(lengths) > 10

    louder = Augmentation(max_gain_db=12)
    loud = ASTDataset(splits["train"], AudioReader(), 32_000, louder, seed=0)
    levels = [20 * np.log10(np.abs(loud[(epoch, 0)]["waveform"]).max() / np.abs(plain).max()) for epoch in range(50)]
    assert min(levels) < -8
    assert max(levels) > 8
    assert np.abs(levels).max() <= 12
    assert levels[3] == pytest.approx(20 * np.log10(louder.draw(0, 3, 0, 2).gain), abs=1e-4)

    mixed = ASTDataset(
        splits["train"], AudioReader(), 32_000, Augmentation(mixup_probability=1, max_speed_change=0.3), seed=0
    )
    for epoch in range(10):
        draws = mixed.augmentation.draw(0, epoch, 0, 2)
        own = change_speed(plain, draws.speed) if draws.speed != 1 else plain
        partner, _ = soundfile.read(tmp_path / f"{'ab'[draws.partner]}.wav", dtype="float32")
        expected = mix_waveforms(own, partner, draws.mixing_weight)
        np.testing.assert_array_equal(mixed[(epoch, 0)]["waveform"], expected)

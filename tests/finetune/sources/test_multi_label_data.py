"""Clips with several labels: every form a label column may have, label tables, the original's JSON, targets and mixup."""

import json
import shutil

import datasets
import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from sklearn.preprocessing import MultiLabelBinarizer

from conversion.label_files import read_labels
from conversion.original_datasets import ORIGINAL_DATASETS
from finetune.arguments.groups import DataArguments
from finetune.augmentations.augmentation import Augmentation
from finetune.augmentations.mixup import mix_waveforms
from finetune.clip_sets.audio_clips import check_splits
from finetune.clip_sets.clip_datasets import clip_sets
from finetune.clip_sets.collator import ASTDataCollator
from finetune.clip_sets.waveforms import ASTDataset
from finetune.sources.data_errors import DataError
from finetune.sources.label_csv import read_label_csv
from finetune.sources.labels import is_multi_label, label_lists, label_names, parse_labels
from finetune.sources.splits import load_folds, load_splits
from modeling_ast import ASTFeatureExtractor
from modeling_ast.audio import AudioReader

# Labels of the ten clips 0.wav to 9.wav; one of them has none.
CLIPS = [
    ["cat"],
    ["dog", "cat"],
    ["dog"],
    [],
    ["owl", "cat"],
    ["cat"],
    ["dog"],
    ["owl"],
    ["cat", "dog", "owl"],
    ["dog"],
]
NAMES = ["cat", "dog", "owl"]
INDICES = [[NAMES.index(label) for label in sorted(labels)] for labels in CLIPS]
MULTI_HOT = MultiLabelBinarizer(classes=NAMES).fit_transform(CLIPS).tolist()
SPLITS = ["train"] * 7 + ["test"] * 3
TABLE = "index,mid,display_name\n2,/m/c,cat\n0,/m/o,owl\n1,/m/d,dog\n3,/m/n,newt\n"


@pytest.fixture
def folder(tmp_path):
    """Ten clips, no two alike, and the original's label CSV with a label that no clip has."""
    generator = np.random.default_rng(0)
    for index in range(10):
        soundfile.write(tmp_path / f"{index}.wav", generator.uniform(-0.5, 0.5, 1600 + index), 16_000)
    (tmp_path / "labels.csv").write_text(TABLE)
    return tmp_path


def write(path, labels, **columns):
    rows = {"path": [f"{index}.wav" for index in range(len(labels))], "label": labels, **columns}
    if path.suffix == ".jsonl":
        pd.DataFrame(rows).to_json(path, orient="records", lines=True)
    elif path.suffix == ".parquet":
        pd.DataFrame(rows).to_parquet(path)
    else:
        pd.DataFrame(rows).to_csv(path, index=False)
    return path


def write_original(path, labels, key="data", **changes):
    entries = [{"wav": f"{i}.wav", "labels": ",".join(of_clip)} | changes for i, of_clip in enumerate(labels)]
    path.write_text(json.dumps({key: entries}))
    return path


def load(source, **fields):
    data = DataArguments(dataset_name=str(source), **fields)
    splits, method = load_splits(data, seed=0)
    splits, notes = check_splits(clip_sets(splits), data, AudioReader(), 16_000)
    return {side: split.rows for side, split in splits.items()}, "; ".join([method, *notes])


def in_one(splits):
    """Labels by the clip's number, over all splits."""
    rows = [row for split in splits.values() for row in split]
    return [row["label"] for row in sorted(rows, key=lambda row: row["audio"]["path"])]


@pytest.mark.parametrize(
    ("name", "labels", "fields"),
    [
        ("clips.csv", [";".join(labels) for labels in CLIPS], {"label_separator": ";"}),
        ("clips.csv", [" ; ".join([*labels, ""]) for labels in CLIPS], {"label_separator": ";"}),
        ("clips.jsonl", CLIPS, {}),
        ("clips.jsonl", [labels * 2 for labels in CLIPS], {}),
        ("clips.parquet", CLIPS, {}),
    ],
    ids=["separated text", "with spaces and ends", "JSON lists", "the same label twice", "Parquet lists"],
)
def test_every_form_of_named_labels_gives_the_same_column(folder, name, labels, fields):
    splits, _ = load(write(folder / name, labels, split=SPLITS), **fields)
    assert in_one(splits) == INDICES
    assert splits["train"].features["label"] == datasets.List(datasets.ClassLabel(names=NAMES))
    assert is_multi_label(splits["eval"])
    assert label_names(splits["eval"]) == NAMES
    assert label_lists(splits["eval"]) == INDICES[7:]


@pytest.mark.parametrize("name", ["clips.jsonl", "clips.parquet"])
@pytest.mark.parametrize("kind", [int, float, bool])
def test_multi_hot_rows_are_named_by_number_or_by_the_table(folder, name, kind):
    path = write(folder / name, [[kind(value) for value in row] for row in MULTI_HOT], split=SPLITS)
    splits, _ = load(path)
    assert in_one(splits) == INDICES
    assert label_names(splits["train"]) == ["0", "1", "2"]
    (folder / "labels.csv").write_text("index,mid,display_name\n0,/m/c,cat\n1,/m/d,dog\n2,/m/o,owl\n")
    splits, _ = load(path, label_csv=str(folder / "labels.csv"))
    assert in_one(splits) == INDICES
    assert label_names(splits["train"]) == NAMES


@pytest.fixture
def hub(folder, monkeypatch):
    """Stands for the Hub: gives the ten clips with labels of the type asked for."""

    def publish(labels, label_type):
        features = datasets.Features({"audio": datasets.Audio(decode=False), "label": label_type})
        parts = {"train": slice(0, 7), "test": slice(7, 10)}
        paths = [str(folder / f"{index}.wav") for index in range(10)]
        splits = {
            name: datasets.Dataset.from_dict({"audio": paths[part], "label": labels[part]}, features)
            for name, part in parts.items()
        }
        monkeypatch.setattr(datasets, "load_dataset", lambda name, config: datasets.DatasetDict(splits))

    return publish


def test_lists_of_class_labels_on_the_hub_keep_their_order(hub):
    names = ["owl", "newt", "dog", "cat"]
    hub(CLIPS, datasets.List(datasets.ClassLabel(names=names)))
    splits, method = load("user/pets")
    assert label_names(splits["train"]) == names
    assert in_one(splits) == [sorted(names.index(label) for label in labels) for labels in CLIPS]
    assert "1 label(s) have no training clip: newt" in method


@pytest.mark.parametrize(
    ("labels", "label_type", "fields"),
    [
        (CLIPS, datasets.List(datasets.Value("string")), {}),
        (MULTI_HOT, datasets.List(datasets.Value("int64"), length=3), {}),
        ([",".join(labels) for labels in CLIPS], datasets.Value("string"), {"label_separator": ","}),
    ],
    ids=["lists of texts", "multi-hot", "separated text"],
)
def test_other_labels_of_the_hub(hub, labels, label_type, fields):
    hub(labels, label_type)
    splits, _ = load("user/pets", **fields)
    assert in_one(splits) == INDICES


@pytest.mark.parametrize("alias", ["mid", "display_name"])
def test_the_label_table_says_which_labels_there_are_in_which_order(folder, alias):
    mids = {"cat": "/m/c", "dog": "/m/d", "owl": "/m/o"}
    labels = [[mids[label] if alias == "mid" else label for label in labels] for labels in CLIPS]
    splits, method = load(write(folder / "clips.jsonl", labels, split=SPLITS), label_csv=str(folder / "labels.csv"))
    assert label_names(splits["train"]) == ["owl", "dog", "cat", "newt"]
    assert in_one(splits) == [sorted({"owl": 0, "dog": 1, "cat": 2}[label] for label in labels) for labels in CLIPS]
    assert "1 label(s) have no training clip: newt" in method


@pytest.mark.parametrize("name", ORIGINAL_DATASETS)
def test_the_label_tables_of_the_original_give_its_outputs(folder, name):
    table = ORIGINAL_DATASETS[name].label_table
    rows = pd.read_csv(table, skipinitialspace=True)
    labels = [[rows["mid"][index % len(rows)]] for index in range(10)]
    files = {flag: str(write_original(folder / f"{flag}.json", labels)) for flag in ("train_file", "eval_file")}
    splits, _ = load_splits(DataArguments(**files, label_csv=str(table)), seed=0)
    assert label_names(splits["train"]) == read_labels(name)
    assert splits["train"]["label"][:] == list(range(10))


def test_single_label_data_takes_the_table_too(folder):
    labels = ["cat", "dog"] * 5
    splits, method = load(write(folder / "clips.csv", labels), label_csv=str(folder / "labels.csv"))
    assert splits["train"].features["label"] == datasets.ClassLabel(names=["owl", "dog", "cat", "newt"])
    assert in_one(splits) == [2, 1] * 5
    assert "2 label(s) have no training clip: owl, newt" in method


def test_labels_to_ignore_may_be_mids_and_leave_the_model(folder):
    path = write(folder / "clips.jsonl", CLIPS, split=SPLITS)
    splits, _ = load(path, label_csv=str(folder / "labels.csv"), ignore_labels=["/m/o", "newt"])
    assert label_names(splits["train"]) == ["dog", "cat"]
    assert [len(split) for split in splits.values()] == [6, 1]


def test_a_label_that_is_not_in_the_table(folder):
    path = write(folder / "clips.jsonl", [*CLIPS[:8], ["cat", "yak"], ["emu"]], split=SPLITS)
    with pytest.raises(
        DataError, match=r"2 label\(s\) of the clips are not among those of --label_csv.*: emu, yak\. Add them"
    ):
        load(path, label_csv=str(folder / "labels.csv"))
    with pytest.raises(DataError, match=r"1 label\(s\) .*: emu\."):
        load(path, label_csv=str(folder / "labels.csv"), ignore_labels=["yak"])


def test_a_label_table_may_have_the_mark_of_utf_8_and_spaces_after_its_commas(folder):
    table = "\ufeffindex, mid, display_name\n" + TABLE.partition("\n")[2].replace(",", ", ")
    (folder / "spaced.csv").write_text(table, encoding="utf-8")
    assert read_label_csv(folder / "spaced.csv") == read_label_csv(folder / "labels.csv")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("index,display_name\n0,cat\n1,dog\n", "has the columns 'index', 'display_name' without 'mid'"),
        (
            "index,mid,display_name\n0,/m/c,cat\n0,/m/d,dog\n",
            "holds '0' more than once or empty in the column 'index'",
        ),
        (
            "index,mid,display_name\n0,/m/c,cat\n1,/m/c,dog\n",
            "holds '/m/c' more than once or empty in the column 'mid'",
        ),
        (
            "index,mid,display_name\n0,/m/c,cat\n1,/m/d,cat\n",
            "'cat' more than once or empty in the column 'display_name'",
        ),
        ("index,mid,display_name\n0,/m/c,cat\n1,/m/d,\n", "'' more than once or empty in the column 'display_name'"),
        ("index,mid,display_name\n1,/m/c,cat\n2,/m/d,dog\n", "has the indices 1, 2, expected 0 to 1"),
        ("index,mid,display_name\na,/m/c,cat\nb,/m/d,dog\n", "has the indices a, b, expected 0 to 1"),
        ("", "cannot be read"),
        (None, "cannot be read.* Correct --label_csv"),
    ],
)
def test_label_tables_that_are_wrong(folder, table, message):
    if table is not None:
        (folder / "wrong.csv").write_text(table)
    with pytest.raises(DataError, match=message):
        load(write(folder / "clips.jsonl", CLIPS), label_csv=str(folder / "wrong.csv"))


@pytest.mark.parametrize(
    ("labels", "fields", "message"),
    [
        (["cat", ["dog", "cat"]], {}, r"mixes texts and lists: row 1 has 'cat', row 2 has \['dog', 'cat'\]"),
        ([["cat"], None], {}, r"(?i)row\(s\) 2 have nothing in the column 'label'. Write \[\] for a clip"),
        ([[0, 1], [1, 0, 1]], {}, "different lengths: row 1 has 2 values, row 2 has 3"),
        ([[0, 1], []], {}, "different lengths: row 1 has 2 values, row 2 has 0"),
        ([[0, 1], [2, 0.5]], {}, "Row 2 of the multi-hot column 'label' holds 2, 0.5, expected only 0 and 1"),
        (
            [[0, 1], ["cat", "dog"]],
            {},
            "lists of the label column 'label' hold int, str. Expected names of labels only",
        ),
        ([[["cat"]], [["dog"]]], {}, "lists of the label column 'label' hold list"),
        ([{"cat": 1}, {"dog": 1}], {}, "The label column 'label' holds {'cat': 1"),
        ([["cat"], ["dog"]], {"label_separator": ";"}, "label_separator=';' was given, but .* holds lists"),
        ([[], []], {}, r"No clip has a label. .*--label_column_name \(now 'label'\)"),
        ([["cat"], ["cat"]], {"eval_fraction": 0.5}, r"All training clips have the same labels \(cat\)"),
    ],
)
def test_label_columns_that_are_wrong(folder, labels, fields, message):
    with pytest.raises(DataError, match=message):
        load(write(folder / "clips.jsonl", labels), **fields)


def test_multi_hot_rows_of_another_table(folder):
    with pytest.raises(DataError, match="have 3 values, but label_csv or labels names 4"):
        load(write(folder / "clips.jsonl", MULTI_HOT), label_csv=str(folder / "labels.csv"))


def test_a_scored_label_without_training_clips_is_told(folder):
    clips = [*CLIPS[:9], ["yak"]]
    splits, method = load(write(folder / "clips.jsonl", clips, split=SPLITS))
    assert label_names(splits["train"]) == [*NAMES, "yak"]
    assert "1 label(s) have no training clip: yak" in method


def test_one_label_that_clips_have_or_not_is_multi_label_data(folder):
    splits, _ = load(write(folder / "clips.jsonl", [["cat"], []] * 5))
    assert label_names(splits["train"]) == ["cat"]


def test_a_made_split_of_multi_label_clips_keeps_groups_together(folder):
    path = write(folder / "clips.jsonl", CLIPS, take=[str(index // 2) for index in range(10)])
    splits, method = load(path, group_column_name="take", validation_fraction=0.25)
    takes = [set(split["take"]) for split in splits.values()]
    assert [len(of_split) for of_split in takes] == [3, 1, 1]
    assert len(set.union(*takes)) == 5
    assert method.startswith(
        "2 of 10 clips held out at random, the column 'take' kept together (seed 0); a share of 0.25"
    )
    assert "stratified" not in method
    splits, _ = load(write(folder / "clips.jsonl", CLIPS), eval_fraction=0.3, validation_fraction=0.4)
    assert [len(split) for split in splits.values()] == [4, 3, 3]


def test_the_folds_of_multi_label_clips(folder):
    path = write(folder / "clips.jsonl", CLIPS, fold=[10, 2] * 5)
    folds, _ = load_folds(DataArguments(dataset_name=str(path), fold_column_name="fold"))
    assert [name for name, _ in folds] == ["2", "10"]
    assert label_lists(folds[0][1]["eval"]) == INDICES[1::2]
    assert label_lists(folds[0][1]["train"]) == INDICES[::2]
    assert all(label_names(splits["eval"]) == NAMES for _, splits in folds)


def test_the_original_layout_with_several_labels(folder):
    mids = {"cat": "/m/c", "dog": "/m/d", "owl": "/m/o"}
    path = write_original(folder / "clips.json", [[mids[label] for label in labels] for labels in CLIPS])
    splits, _ = load(path, label_csv=str(folder / "labels.csv"))
    assert label_names(splits["train"]) == ["owl", "dog", "cat", "newt"]
    assert in_one(splits) == [sorted({"owl": 0, "dog": 1, "cat": 2}[label] for label in labels) for labels in CLIPS]
    assert len(splits["eval"]) == 2, "held out, as the layout has no splits"


def test_a_label_that_no_training_clip_has_is_counted_as_having_none(folder):
    splits, _ = load(write(folder / "clips.jsonl", CLIPS, split=SPLITS), label_csv=str(folder / "labels.csv"))
    counts = [sum(name in labels for labels in CLIPS[:7]) for name in ("owl", "dog", "cat", "newt")]
    assert counts[3] == 0
    assert ASTDataset(splits["train"], AudioReader(), 16_000).label_counts().tolist() == counts


def test_what_only_some_entries_of_the_original_layout_have_stays_behind(folder):
    path = write_original(folder / "clips.json", [["cat"], ["dog"]] * 5, kit="a")
    content = json.loads(path.read_text())
    content["data"][0]["take"] = "1"
    path.write_text(json.dumps(content))
    splits, _ = load(path)
    assert splits["train"].column_names == ["audio", "label", "kit"]


def test_the_original_layout_with_one_label_each_is_single_label_data(folder):
    path = write_original(folder / "clips.json", [["cat"], ["dog"]] * 5)
    splits, _ = load(path, label_csv=str(folder / "labels.csv"), label_separator=";")
    assert splits["train"].features["label"] == datasets.ClassLabel(names=["owl", "dog", "cat", "newt"])
    assert in_one(splits) == [2, 1] * 5


def test_one_clip_of_several_labels_in_any_file_makes_all_multi_label(folder):
    train = write_original(folder / "train.json", [["cat"], ["dog"]] * 3)
    (folder / "eval").mkdir()
    for index in (7, 8):
        shutil.copy(folder / f"{index}.wav", folder / "eval" / f"{index - 7}.wav")
    scored = write_original(folder / "eval" / "eval.json", [["cat", "dog"], ["dog"]])
    data = DataArguments(train_file=str(train), eval_file=str(scored))
    splits, method = load_splits(data, seed=0)
    assert label_lists(splits["train"]) == [[0], [1]] * 3
    assert label_lists(splits["eval"]) == [[0, 1], [1]]
    assert is_multi_label(splits["train"])
    assert splits["eval"]["audio"][0]["path"] == str(folder / "eval" / "0.wav"), "below the folder of its own file"
    assert method == "as the files say"


def test_lists_of_another_file_make_the_original_layout_multi_label(folder):
    train = write_original(folder / "train.json", [["cat"], ["dog"]] * 3)
    scored = write(folder / "eval.jsonl", [["cat"], ["dog"]])
    splits, _ = load_splits(DataArguments(train_file=str(train), eval_file=str(scored)), seed=0)
    assert is_multi_label(splits["train"])


@pytest.mark.parametrize("labels", [["cat", "dog"], [["cat"], ["dog", "cat"]]])
def test_json_lists_of_records_stay_what_they_are(folder, labels):
    records = [{"path": f"{index}.wav", "label": labels[index % 2]} for index in range(10)]
    (folder / "clips.json").write_text(json.dumps(records))
    splits, _ = load(folder / "clips.json")
    assert is_multi_label(splits["train"]) == isinstance(labels[0], list)
    assert sum(map(len, splits.values())) == 10


def test_json_objects_of_columns_stay_what_they_are(folder):
    columns = {"path": [f"{index}.wav" for index in range(10)], "label": ["cat", "dog"] * 5}
    (folder / "clips.json").write_text(json.dumps(columns))
    assert sum(map(len, load(folder / "clips.json")[0].values())) == 10


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"clips": [{"wav": "0.wav", "labels": "cat"}]}, "has 'clips' in place of 'data'. Expected the original's"),
        ({"data": {"wav": "0.wav"}}, "has under 'data' no list of clips"),
        ({"data": []}, "has no rows"),
        (
            {"data": [{"wav": "0.wav", "labels": "cat"}, {"labels": "cat"}]},
            "Entry 2 of 'data' in .* is {'labels': 'cat'}",
        ),
        ({"data": [{"wav": "0.wav"}]}, "Entry 1 of 'data' in .* is {'wav': '0.wav'}. Expected the original's"),
        ({"data": [{"wav": "0.wav", "labels": ["cat"]}]}, "Entry 1 of 'data'"),
        ({"data": ["0.wav"]}, "Entry 1 of 'data' in .* is '0.wav'"),
        ({"data": [{"wav": "gone.wav", "labels": "cat"}]}, r"names 1 file\(s\) that are not there: .*gone.wav"),
        ("{", "clips.json is no JSON"),
    ],
)
def test_json_files_that_are_wrong(folder, content, message):
    (folder / "clips.json").write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(DataError, match=message):
        load(folder / "clips.json")


@pytest.fixture
def splits(folder):
    return load(write(folder / "clips.jsonl", CLIPS, split=SPLITS))[0]


@pytest.fixture
def single_label_split(folder):
    return load(write(folder / "single.csv", ["cat", "dog", "cat", "owl", "dog"] * 2, split=SPLITS))[0]["train"]


def test_targets_of_multi_label_clips_are_multi_hot(splits):
    dataset = ASTDataset(splits["train"], AudioReader(), 16_000, Augmentation(max_roll=2))
    for index in range(7):
        for item in (dataset[index], dataset[0, index]):
            assert item["label"].dtype == np.float32
            assert item["label"].tolist() == MULTI_HOT[index]
    assert dataset.num_labels == 3


def test_labels_are_listed_without_decoding(splits, single_label_split, folder):
    for index in range(10):
        (folder / f"{index}.wav").unlink()
    assert ASTDataset(splits["train"], AudioReader(), 16_000).label_lists() == INDICES[:7]
    assert ASTDataset(single_label_split, AudioReader(), 16_000).label_lists() == [[0], [1], [0], [2], [1], [0], [1]]


def test_binary_targets_of_single_label_clips_are_one_hot(single_label_split):
    dataset = ASTDataset(single_label_split, AudioReader(), 16_000, Augmentation(), binary_targets=True)
    expected = torch.nn.functional.one_hot(torch.tensor(single_label_split["label"][:]), 3).tolist()
    assert [dataset[index]["label"].tolist() for index in range(7)] == expected
    assert [dataset[0, index]["label"].tolist() for index in range(7)] == expected
    assert dataset[0]["label"].dtype == np.float32
    plain = ASTDataset(single_label_split, AudioReader(), 16_000, Augmentation())
    assert isinstance(plain[0, 3]["label"], int)
    assert isinstance(plain[3]["label"], int)


@pytest.mark.parametrize("binary_targets", [False, True])
@pytest.mark.parametrize("multi_label", [False, True])
def test_mixup_adds_both_clips_targets_by_their_share(splits, single_label_split, multi_label, binary_targets):
    split = splits["train"] if multi_label else single_label_split
    augmentation = Augmentation(mixup_probability=1.0)
    dataset = ASTDataset(split, AudioReader(), 16_000, augmentation, seed=5, binary_targets=binary_targets)
    clean = ASTDataset(split, AudioReader(), 16_000, binary_targets=True)
    partners = set()
    for index in range(7):
        item, draws = dataset[2, index], augmentation.draw(5, 2, index, 7)
        weight, partner = draws["mixup"]["weight"], draws["mixup"]["partner"]
        one, other = clean[index], clean[partner]
        np.testing.assert_allclose(item["label"], weight * one["label"] + (1 - weight) * other["label"], rtol=1e-6)
        assert item["label"].dtype == np.float32
        np.testing.assert_array_equal(item["waveform"], mix_waveforms(one["waveform"], other["waveform"], weight))
        partners.add(partner)
    assert len(partners) > 2


def test_clips_that_mixup_passes_over_keep_whole_soft_labels(single_label_split):
    dataset = ASTDataset(single_label_split, AudioReader(), 16_000, Augmentation(mixup_probability=1e-9))
    assert dataset[0, 3]["label"].tolist() == [0, 0, 1]


def test_another_visit_of_a_clip_in_an_epoch_is_drawn_anew(splits):
    augmentation = Augmentation(mixup_probability=1.0, max_time_mask=10)
    dataset = ASTDataset(splits["train"], AudioReader(), 16_000, augmentation, seed=5)
    first, same, second = dataset[1, 3], dataset[1, 3, 0], dataset[1, 3, 1]
    np.testing.assert_array_equal(first["waveform"], same["waveform"])
    np.testing.assert_array_equal(first["draws"]["masks"]["spans"], same["draws"]["masks"]["spans"])
    assert not np.array_equal(first["draws"]["masks"]["spans"], second["draws"]["masks"]["spans"])
    np.testing.assert_array_equal(
        second["draws"]["masks"]["spans"], augmentation.draw(5, 1, 3, 7, visit=1)["masks"]["spans"]
    )


def test_batches_of_multi_label_clips(splits):
    dataset = ASTDataset(splits["train"], AudioReader(), 16_000)
    batch = ASTDataCollator(ASTFeatureExtractor(), compute_features=False)([dataset[index] for index in range(7)])
    assert batch["labels"].dtype == torch.float32, "as binary_cross_entropy_with_logits takes them"
    assert batch["labels"].tolist() == MULTI_HOT[:7]


def test_batches_of_rows_with_lists_of_labels(splits):
    rows = [splits["train"][index] for index in range(7)]
    batch = ASTDataCollator(ASTFeatureExtractor(), compute_features=False, num_labels=3)(rows)
    assert batch["labels"].dtype == torch.float32
    assert batch["labels"].tolist() == MULTI_HOT[:7]
    with pytest.raises(ValueError, match="Pass num_labels=model.config.num_labels"):
        ASTDataCollator(ASTFeatureExtractor(), compute_features=False)(rows)


def test_lists_of_one_number_each_are_no_guess():
    with pytest.raises(DataError, match=r"an index or the 0 and 1 of a single label. Write the names"):
        parse_labels([[0], [1], [1]], "label")

"""Splits that are called otherwise than train and test: as folders, as values of a column, and on the Hub."""

import shutil
from collections import Counter
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import pytest
import soundfile
from datasets.data_files import SPLIT_KEYWORDS

from finetune import fine_tuning
from finetune.arguments.data_arguments import SIDES
from finetune.arguments.groups import DataArguments, UnlabelledDataArguments
from finetune.clip_sets.streaming import load_streams
from finetune.fine_tuning import fine_tune
from finetune.run_evaluate import ClipArguments, load_scored_clips
from finetune.sources.clips import load_clips
from finetune.sources.data_errors import DataError
from finetune.sources.labels import label_names
from finetune.sources.split_names import side_of
from finetune.sources.splits import load_folds, load_splits

LABELS = ["cat", "dog"]
CLIPS = 3  # of each label in each split


def write_clip(path: Path):
    path.parent.mkdir(parents=True, exist_ok=True)
    seed = int.from_bytes(str(path).encode()[-20:], "big")
    soundfile.write(path, np.random.default_rng(seed).uniform(-0.5, 0.5, 1600), 16_000)


@pytest.fixture
def tree(tmp_path):
    """Make folders with clips: of a split with a folder a class below it, or, with a dot before it, of a class alone."""

    def make(*folders: str) -> Path:
        for folder in folders:
            classes = [folder[1:]] if folder.startswith(".") else [f"{folder}/{label}" for label in LABELS]
            for below in classes:
                for index in range(CLIPS):
                    write_clip(tmp_path / "data" / below / f"{index}.wav")
        return tmp_path / "data"

    return make


def load(source, **fields):
    data = DataArguments(dataset_name=str(source), **fields)
    splits, words = load_splits(data, seed=0)
    return {side: Path(split[0]["audio"]["path"]).parts[-3] for side, split in splits.items()}, words, splits, data


@pytest.mark.parametrize(
    ("name", "side"),
    [
        ("Train", "train"), ("TRAINING", "train"), ("train_set", "train"), ("TrainAudio", "train"), ("train 1", "train"),
        ("Testing", "eval"), ("TEST", "eval"), ("Evaluation", "eval"), ("hold-out", "eval"), ("test_data", "eval"),
        ("Val", "validation"), ("valid", "validation"), ("dev", "validation"), ("Development Set", "validation"),
        ("train whistle", None), ("protest", None), ("subtrain", None), ("custom", None), ("cat", None), ("", None),
        ("test_drive", None), ("set", None), ("3", None),
    ],
)  # fmt: skip
def test_names_of_splits_are_whole_words_in_any_case(name, side):
    assert side_of(name) == side


def test_every_name_that_datasets_knows_is_known():
    sides = dict(zip((datasets.Split.TRAIN, datasets.Split.TEST, datasets.Split.VALIDATION), SIDES, strict=True))
    for split, words in SPLIT_KEYWORDS.items():
        assert {side_of(word) for word in words} == {sides[split]}


@pytest.mark.parametrize(
    ("folders", "found"),
    [
        (["Train", "Test"], {"train": "Train", "eval": "Test"}),
        (["training", "testing"], {"train": "training", "eval": "testing"}),
        (["train_audio", "test_audio"], {"train": "train_audio", "eval": "test_audio"}),
        (["dev", "eval"], {"train": "dev", "eval": "eval"}),  # as DCASE and FSD50K call them
        (["train", "dev", "eval"], {"train": "train", "eval": "eval"}),
        (["TRAIN", "TEST", "Valid"], {"train": "TRAIN", "eval": "TEST"}),
    ],
)
def test_folders_of_splits_are_recognised_and_said(tree, folders, found):
    sides, words, splits, data = load(tree(*folders))
    assert sides == found
    assert label_names(splits["train"]) == LABELS
    assert {len(split) for split in splits.values()} == {len(LABELS) * CLIPS}
    others = [name for name in folders if name not in found.values()]
    assert all(
        f"without {name!r} (6 clips), of which --validation_split_name {name} makes one" in words for name in others
    )
    for side, name in found.items():
        assert f"{name!r} is " in words
        assert getattr(data, f"{side}_split_name") == name, "what summary and card call it"


def test_folders_are_split_as_datasets_splits_them(tree, tmp_path):
    root = tree("training", "evaluation", "dev")
    _, _, splits, _ = load(root, validation_split_name="dev")
    theirs = datasets.load_dataset("audiofolder", data_dir=str(root), cache_dir=str(tmp_path / "cache"))
    names = {"train": "train", "eval": "test", "validation": "validation"}
    for side, split in splits.items():
        of_theirs = theirs[names[side]].cast_column("audio", datasets.Audio(decode=False))
        assert {clip["path"] for clip in split["audio"]} == {clip["path"] for clip in of_theirs["audio"]}


def test_a_split_of_another_name_is_left_out_with_words_and_taken_if_named(tree):
    root = tree("train", "test", "custom")
    sides, words, _, _ = load(root)
    assert "validation" not in sides
    assert (
        "without 'custom' (6 clips), which takes part if named with --validation_split_name custom or --eval" in words
    )
    assert load(root, validation_split_name="custom")[0]["validation"] == "custom"
    assert load(root, eval_split_name="custom")[0]["eval"] == "custom"


def test_clips_that_no_class_folder_gives_a_label_are_left_out_with_words(tree):
    root = tree("train", "test", ".noise")
    write_clip(root / "stray.wav")
    assert "without noise/ (3 clips), 1 clips beside the folders, which no class folder" in load(root)[1]


def test_a_share_that_is_set_apart_leaves_the_validation_folder_out_with_words(tree):
    _, words, splits, _ = load(tree("train", "test", "val"), validation_fraction=0.34)
    assert len(splits["validation"]) == 3
    assert "without 'val' (6 clips)" in words


@pytest.mark.parametrize(
    ("folders", "fields", "message"),
    [
        (["train", "valid"], {}, r"Name both .* --train_split_name train --eval_split_name valid\. .*--labels train valid"),
        (["train", "custom"], {}, "--train_split_name train --eval_split_name custom"),
        (["test", "val"], {}, "--train_split_name val --eval_split_name test"),
        (["dev", "test"], {}, "--train_split_name dev --eval_split_name test"),
        (["train", "Train", "test"], {}, r"trained on: the data has 'Train' and 'train'. Pass --train_split_name with one"),
        ([".cat", ".dog", ".test"], {}, r"'test' looks like a split.*move .*/test away. If .* --labels cat dog test"),
        ([".train", ".test"], {}, r"no class folder.*train/ \(3 clips\), test/ .*train/metadata.csv .*--labels test train"),
        (["train", ".test"], {}, r"its clips lie in no class folder.*test/ \(3 clips\)\..*--dataset_name .*/data/train"),
        (["train", "test"], {"train_split_name": "Train"}, "no folder 'Train'; it holds test, train. Pass --train_split_name"),
        ([".cat", ".dog"], {"eval_split_name": "dev"}, "no folder 'dev'; it holds cat, dog. Pass --eval_split_name"),
        (["a", "b"], {}, "folders of splits are named with --train_split_name and --eval_split_name"),
    ],
)  # fmt: skip
def test_what_is_not_clear_is_refused_with_the_flags_to_type(tree, folders, fields, message):
    with pytest.raises(DataError, match=message):
        load(tree(*folders), **fields)


def test_what_the_messages_say_helps(tree):
    assert load(tree("train", "valid"), eval_split_name="valid")[0] == {"train": "train", "eval": "valid"}
    assert load(tree("train", "valid", "a"), train_split_name="a", eval_split_name="valid")[0]["train"] == "a"


def test_classes_may_be_called_like_splits_if_all_are_named(tree):
    splits = load(tree(".cat", ".dog", ".test"), labels=["cat", "dog", "test"], eval_fraction=0.34)[2]
    assert label_names(splits["train"]) == ["cat", "dog", "test"]


def test_tables_beside_folders_without_labels_are_named(tree):
    root = tree(".train", ".test")
    for name in ("train", "test"):
        (root / f"{name}.csv").write_text("file_name,label\n")
    with pytest.raises(DataError, match=r"--train_file .*/train.csv --eval_file .*/test.csv"):
        load(root)


@pytest.mark.parametrize("below", ["data", "a/b"])
def test_splits_may_lie_in_the_only_folder(tree, below):
    sides, words, _, _ = load(tree(f"{below}/Train", f"{below}/test"))
    assert sides == {"train": "Train", "eval": "test"}
    assert f"below {below}/" in words


def test_a_single_folder_of_a_split_gets_another_made(tree):
    _, words, splits, _ = load(tree("train"))
    assert len(splits["train"]) + len(splits["eval"]) == 6
    assert "clips below train/ held out" in words


def write_metadata(folder: Path, names: list[str]):
    rows = [{"file_name": name, "label": LABELS[index % 2], "take": index} for index, name in enumerate(names)]
    pd.DataFrame(rows).to_csv(folder / "metadata.csv", index=False)


def test_every_folder_of_a_split_may_have_a_table(tree):
    root = tree(".Train", ".test", ".valid", ".custom")
    for folder in root.iterdir():
        write_metadata(folder, [f"{index}.wav" for index in range(CLIPS)])
    _, words, splits, _ = load(root)
    found = {side: Path(split[0]["audio"]["path"]).parent.name for side, split in splits.items()}
    assert found == {"train": "Train", "eval": "test"}
    assert splits["train"]["take"][:] == ["0", "1", "2"]
    assert "without 'custom' (3 clips), 'valid' (3 clips), of which --validation_split_name valid makes one" in words
    assert load_splits(DataArguments(dataset_name=str(root), validation_split_name="custom"), 0)[0]["validation"]
    (root / "test" / "metadata.csv").unlink()
    with pytest.raises(DataError, match=r"test/ \(3 clips\). One of these helps: write .*/test/metadata.csv"):
        load(root)
    with open(root / "test" / "metadata.csv", "w") as file:
        file.write("file_name,label\n0.wav,cat\n1.wav,\n")
    with pytest.raises(DataError, match=r"Row\(s\) 2 of .*/test have nothing in the column 'label'"):
        load(root)


def test_files_of_a_table_that_lie_in_folders_of_splits_are_split_so(tree):
    root = tree("Training", "test")
    paths = sorted(root.rglob("*.wav"))
    write_metadata(root, [str(path.relative_to(root)) for path in paths])
    sides, words, _, _ = load(root)
    assert sides == {"train": "Training", "eval": "test"}
    assert words.startswith("as the folders of the table's files say: 'Training' is trained on")
    with pytest.raises(DataError, match="group_column_name was given.*or pass --eval_fraction 0.2 too"):
        load(root, group_column_name="take")
    splits = load(root, group_column_name="take", validation_fraction=0.4)[2]
    assert {Path(audio["path"]).parts[-3] for audio in splits["eval"]["audio"]} == {"test"}, "it stays the test"
    words = load(root, group_column_name="take", eval_fraction=0.4)[1]
    assert "held out at random" in words, "another split was asked for"


@pytest.mark.parametrize(
    ("folders", "given"),
    [
        (("dev", "eval"), {}),
        (("lessons", "exam"), {"train_split_name": "lessons", "eval_split_name": "exam"}),
        (("lessons", "exam", "more"), {"train_split_name": "lessons", "eval_split_name": "exam"}),
        (("train", "valid"), {"eval_split_name": "valid"}),
        (("train", "test", "valid"), {}),
    ],
)
@pytest.mark.parametrize("labelled", [True, False])
def test_files_of_a_table_are_split_by_names_that_are_given_too(tree, folders, given, labelled):
    root = tree(*folders)
    write_metadata(root, [str(path.relative_to(root)) for path in sorted(root.rglob("*.wav"))])
    kind = DataArguments if labelled else UnlabelledDataArguments
    splits, _ = load_splits(kind(dataset_name=str(root / "metadata.csv"), **given), 0)
    found = {side: {Path(audio["path"]).parts[-3] for audio in split["audio"]} for side, split in splits.items()}
    assert found == {"train": {folders[0]}, "eval": {folders[1]}}


@pytest.mark.parametrize(("trained", "scored"), [("train", "test"), ("dev", "eval")])
def test_files_of_a_table_in_other_folders_beside_splits_are_asked_about(tree, trained, scored):
    root = tree(trained, scored, "extra")
    write_metadata(root, [str(path.relative_to(root)) for path in sorted(root.rglob("*.wav"))])
    with pytest.raises(
        DataError,
        match=f"of which extra are no splits. Pass --train_split_name {trained} --eval_split_name {scored} if",
    ):
        load(root)
    assert "held out at random" in load(root, eval_fraction=0.4)[1]
    pooled = load_clips(DataArguments(dataset_name=str(root / "metadata.csv")), pooled=True)
    assert len(pooled.rows) == 18, "who scores all clips is not asked"
    with pytest.raises(DataError, match="train_split_name='a' and eval_fraction were given"):
        load(root, eval_fraction=0.4, train_split_name="a")
    with pytest.raises(DataError, match="No clip is in the split 'exam'"):
        load(root, train_split_name=trained, eval_split_name="exam")


@pytest.mark.parametrize("name", ["train_split_name", "eval_split_name"])
def test_names_of_splits_are_refused_where_nothing_says_them(tree, name):
    root = tree(*("." + label for label in LABELS))
    write_metadata(root, [str(path.relative_to(root)) for path in sorted(root.rglob("*.wav"))])
    with pytest.raises(DataError, match=f"{name}='exam' was given, but the data says of no clip which split it is in"):
        load(root, **{name: "exam"})


def test_a_share_or_a_column_beside_folders_of_splits_is_told(tree):
    root = tree("train", "test")
    assert "; eval_fraction=0.3 has no part in it" in load(root, eval_fraction=0.3)[1]
    with pytest.raises(DataError, match="split_column_name='fold' was given, but the clips of .* stand in no table"):
        load(root, split_column_name="fold")
    for side in ("train", "test"):
        files = sorted(path.relative_to(root / side) for path in (root / side).rglob("*.wav"))
        table = pd.DataFrame({"file_name": map(str, files), "label": [file.parts[0] for file in files], "fold": side})
        table.to_csv(root / side / "metadata.csv", index=False)
    found = load_splits(DataArguments(dataset_name=str(root), split_column_name="fold"), 0)[0]
    assert {side: len(split) for side, split in found.items()} == {"train": 6, "eval": 6}


@pytest.fixture
def table(tree):
    """A table with a column of splits, whose values go round."""

    def write(values: list, name: str = "clips.csv") -> Path:
        root = tree(*("." + label for label in LABELS))
        paths = sorted(str(path.relative_to(root)) for path in root.rglob("*.wav"))
        labels = [path.partition("/")[0] for path in paths]
        splits = [values[index % len(values)] for index in range(len(paths))]
        frame = pd.DataFrame({"file_name": paths, "label": labels, "split": splits})
        frame.to_parquet(root / name) if name.endswith("parquet") else frame.to_csv(root / name, index=False)
        return root / name

    return write


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(
    ("values", "found"),
    [
        (["Training", "TEST", "val"], {"train": "Training", "eval": "TEST"}),
        (["Dev", "Eval"], {"train": "Dev", "eval": "Eval"}),
        (["train", "test", "extra"], {"train": "train", "eval": "test"}),
    ],
)
def test_values_of_a_column_are_recognised_at_hand_and_as_a_stream(table, values, found, streaming):
    data = DataArguments(dataset_name=str(table(values)), streaming=streaming)
    splits, words = load_streams(data) if streaming else load_splits(data, seed=0)
    assert splits.keys() == found.keys()
    assert {side: getattr(data, f"{side}_split_name") for side in found} == found
    assert {len(split) for split in splits.values()} == {6 // len(values)}
    assert ("without 'extra' (2 clips), which takes part" in words) == ("extra" in values)


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["train", "valid", "valid"], r"No clip is in the split 'test'.*Pass --eval_split_name valid\."),
        (["Training", "foo"], r"Pass --eval_split_name foo --train_split_name Training\.|Pass --train_split_name"),
        (["train", "Train", "test"], "It is not clear which split is trained on: the data has 'train' and 'Train'"),
        ([0, 1, 1], r"the data has '0' \(2 clips\), '1' \(4 clips\). Pass --train_split_name with one of these"),
    ],
)
def test_values_of_a_column_that_are_not_clear(table, values, message, streaming):
    data = DataArguments(dataset_name=str(table(values)), streaming=streaming)
    with pytest.raises(DataError, match=message):
        load_streams(data) if streaming else load_splits(data, seed=0)


def test_a_column_of_numbers_says_no_split(table):
    with pytest.raises(DataError, match="Pass --train_split_name with one of these"):
        load_splits(DataArguments(dataset_name=str(table([0, 1], "clips.parquet"))), seed=0)


def test_a_dataset_dict_is_recognised_and_what_is_left_out_is_said(tree, tmp_path, monkeypatch):
    monkeypatch.setattr(fine_tuning, "train_run", lambda run: run.summary)
    paths = sorted(map(str, tree(".cat", ".dog").rglob("*.wav")))
    rows = datasets.Dataset.from_dict({"audio": paths, "label": [Path(path).parent.name for path in paths]})
    parts = {"Training": [0, 3], "Testing": [1, 4], "extra": [2, 5]}
    dataset = datasets.DatasetDict({name: rows.select(places) for name, places in parts.items()})
    tiny = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "max_length": 32, "use_cpu": True}
    summary = fine_tune(dataset, output_dir=tmp_path / "run", **tiny)
    assert {name: split["clips"] for name, split in summary["data"]["splits"].items()} == {"Training": 2, "Testing": 2}
    method = summary["data"]["split_method"]
    assert (
        "'Training' is trained on, 'Testing' is scored, without 'extra' (2 clips), which takes part if named" in method
    )


def test_a_hub_folder_is_recognised_at_hand_and_as_a_stream(tree, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    paths = sorted(tree(".cat", ".dog").rglob("*.wav"))
    frame = pd.DataFrame({"audio": [{"bytes": path.read_bytes(), "path": path.name} for path in paths]})
    frame["label"] = [path.parent.name for path in paths]
    (tmp_path / "pets" / "data").mkdir(parents=True)
    configs = []
    for name, places in {"Train": [0, 3], "eval": [1, 4], "extra": [2, 5]}.items():
        frame.iloc[places].to_parquet(tmp_path / "pets" / "data" / f"{name}-0.parquet")
        configs.append(f"  - split: {name}\n    path: data/{name}-0.parquet")
    readme = "---\nconfigs:\n- config_name: default\n  data_files:\n" + "\n".join(configs) + "\n---\n"
    (tmp_path / "pets" / "README.md").write_text(readme)
    for loader in (lambda data: load_splits(data, seed=0), load_streams):
        data = DataArguments(dataset_name=str(tmp_path / "pets"))
        splits, words = loader(data)
        assert {side: len(split) for side, split in splits.items()} == {"train": 2, "eval": 2}
        assert (data.train_split_name, data.eval_split_name) == ("Train", "eval")
        assert "without" in words
        assert "extra" in words


def test_folds_take_the_clips_of_all_folders(tree):
    root = tree("Train", "test", "val")
    paths = sorted(root.rglob("*.wav"))
    for folder in root.iterdir():
        of_folder = [path for path in paths if path.is_relative_to(folder)]
        rows = [
            {"file_name": str(p.relative_to(folder)), "label": p.parent.name, "fold": i % 2}
            for i, p in enumerate(of_folder)
        ]
        pd.DataFrame(rows).to_csv(folder / "metadata.csv", index=False)
    folds, words = load_folds(DataArguments(dataset_name=str(root), fold_column_name="fold"))
    assert sum(len(splits["eval"]) for _, splits in folds) == len(paths)
    assert ", of the splits Train, test, val together" in words


@pytest.mark.parametrize(("split", "words"), [(None, "Testing"), ("validation", "dev"), ("train", "Training")])
def test_ast_evaluate_finds_the_split_by_the_same_names(tree, split, words):
    clips, said = load_scored_clips(ClipArguments(dataset_name=str(tree("Training", "Testing", "dev"))), split, LABELS)
    assert said == f"the split {words!r}"
    assert Counter(Path(name).parts[-3] for name in clips.names()) == {words: 6}


def test_ast_evaluate_takes_the_dev_of_dev_and_eval_for_what_was_trained_on(tree):
    data = ClipArguments(dataset_name=str(tree("dev", "eval")))
    assert load_scored_clips(data, "train", LABELS)[1] == "the split 'dev'"
    with pytest.raises(DataError, match="No clip is in the split 'validation'"):
        load_scored_clips(data, "validation", LABELS)


def test_a_split_folder_without_clips_is_missed_beside_another_alone(tree):
    root = tree("train")
    (root / "Testing").mkdir()
    with pytest.raises(DataError, match=r"the data has 'train' \(6 clips\). Pass --eval_split_name"):
        load(root)
    shutil.rmtree(root / "train")
    (tree(".cat", ".dog") / "eval").mkdir()
    assert label_names(load(root, eval_fraction=0.34)[2]["train"]) == LABELS


def test_a_table_and_class_folders_may_be_of_one_data_set(tree):
    root = tree("Train", ".test")
    write_metadata(root / "test", ["0.wav", "1.wav"])
    sides = load(root)[2]
    assert {side: len(split) for side, split in sides.items()} == {"train": 6, "eval": 2}

"""Trainings on features that were computed beforehand: as on the audio they were computed from, or refused in words."""

import csv
import json
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from safetensors.torch import load_file
from tiny_trainings import flags as training

from finetune import run_evaluate, run_finetune
from finetune.arguments.command_line import parse_arguments
from finetune.arguments.groups import DataArguments
from finetune.augmentations.augmentation import Augmentation
from finetune.clip_sets.clip_datasets import clip_dataset, clip_reader, clip_sets
from finetune.clip_sets.clip_set import Checks
from finetune.clip_sets.collator import ASTDataCollator, model_inputs
from finetune.clip_sets.normalization import measure_normalization
from finetune.clip_sets.precomputed import PrecomputedDataset
from finetune.clip_sets.sampling import EpochSampler
from finetune.clip_sets.waveforms import ASTDataset
from finetune.sources.data_errors import DataError
from finetune.sources.splits import load_folds, load_splits
from modeling_ast import ASTFeatureExtractor
from modeling_ast.audio import AudioError

SETTINGS = {"max_length": 96, "lr_scheduler_type": "constant"}
AUGMENTED = ["--max_time_mask=24", "--max_frequency_mask=30", "--noise_strength=0.1", "--max_roll=10"]
PRECOMPUTED = ["--features_column_name", "mel"]


def log_mel(waveform: np.ndarray) -> np.ndarray:
    """What a user saves of a clip: `(frames, 128)`."""
    features, frames = ASTFeatureExtractor().log_mel(torch.from_numpy(waveform)[None], torch.tensor([len(waveform)]))
    return features[0, : frames[0]].numpy()


@pytest.fixture(scope="module")
def table(tmp_path_factory, few_rows):
    """A table of 24 training and 9 test clips of the drums, each as audio and as a .npy file of its features."""
    folder = tmp_path_factory.mktemp("clips")
    rows = []
    for number, row in enumerate(sorted(few_rows, key=lambda row: row["split"] == "test")):
        np.save(folder / f"{number}.npy", log_mel(soundfile.read(row["path"], dtype="float32")[0]))
        rows.append({"path": row["path"], "mel": f"{number}.npy", "fold": number % 2} | row)
    with open(folder / "clips.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, ["path", "mel", "label", "split", "fold", "source"], extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    return folder / "clips.csv"


@pytest.fixture(scope="module")
def train(table, tmp_path_factory):
    runs = tmp_path_factory.mktemp("runs")

    def run(name, *flags, source=table):
        """Train into a folder of that name; return the folder."""
        assert run_finetune.main([*training(source, runs / name, **SETTINGS), *flags]) == 0
        return runs / name

    return run


@pytest.fixture(scope="module")
def on_features(train, table):
    """A training on features, from a table that knows of no audio, with loader workers."""
    pd.read_csv(table).drop(columns="path").to_csv(table.parent / "features.csv", index=False)
    flags = [*PRECOMPUTED, *AUGMENTED, "--dataloader_num_workers", "2"]
    return train("features", *flags, source=table.parent / "features.csv")


def summary_of(folder):
    return json.loads((folder / "run_summary.json").read_text())


@pytest.fixture
def small_table(tmp_path):
    """Writes features of two classes, three clips each in two splits, and a table of them; some may be other arrays."""

    def write(arrays=(), name="clips.csv"):
        generator = np.random.default_rng(0)
        rows = []
        for number in range(12):
            features = generator.normal(-6, 5, (20 + number, 128)).clip(-15.9).astype(np.float32)
            if number < len(arrays):
                features = arrays[number]
            np.save(tmp_path / f"{number}.npy", features)
            split = "test" if number % 4 == 3 else "train"
            rows.append({"features": f"{number}.npy", "label": "ab"[number % 2], "split": split})
        rows[1]["split"] = "test"
        pd.DataFrame(rows).to_csv(tmp_path / name, index=False)
        return tmp_path / name

    return write


def checked(source, column="features", **fields):
    data = DataArguments(dataset_name=str(source), features_column_name=column, **fields)
    splits, method = load_splits(data, seed=0)
    splits, extractor = clip_sets(splits), ASTFeatureExtractor(max_length=96)
    found = splits["train"].check(splits, Checks(data, extractor, clip_reader(data, extractor), method))
    return {side: split.rows for side, split in found.splits.items()}, "; ".join([method, *found.notes])


def assert_same_results(on_features, on_audio):
    """Statistics, losses and scores of two run summaries are the same."""
    assert on_features["features"] == on_audio["features"] | {
        name: pytest.approx(on_audio["features"][name], rel=1e-9) for name in ("mean", "std")
    }
    losses = [[row["loss"] for row in summary["history"]] for summary in (on_audio, on_features)]
    np.testing.assert_allclose(losses[1], losses[0], atol=1e-6)
    for name in ("metrics", "metrics_padding_longest"):
        scores = on_audio["evaluation"].get(name, {})
        assert on_features["evaluation"].get(name, {}) == pytest.approx(scores, abs=1e-6)


@pytest.mark.pictures
def test_a_training_on_features_is_that_on_their_audio(train, on_features):
    on_audio = train("audio", *AUGMENTED, "--clip_windows", "beginning")
    assert_same_results(summary_of(on_features), summary_of(on_audio))
    data = summary_of(on_features)["data"]
    assert data["features_column"] == "mel"
    assert "audio_column" not in data
    told = "read no audio but log-mel features that were computed before it, from the column `mel`"
    assert told in (on_features / "README.md").read_text()
    assert told not in (on_audio / "README.md").read_text()
    assert (on_features / "spectrogram.png").read_bytes() == (on_audio / "spectrogram.png").read_bytes()


def test_a_training_padded_to_the_longest_likewise(train):
    flags = ["--padding", "longest", *AUGMENTED, "--num_train_epochs", "1"]
    on_audio = summary_of(train("long audio", *flags, "--clip_windows", "beginning"))
    on_features = summary_of(train("long", *flags, *PRECOMPUTED))
    assert_same_results(on_features, on_audio)
    scores = on_features["evaluation"]
    assert scores["metrics_padding_longest"]["loss"] != scores["metrics"]["loss"]


def test_a_resumed_training_ends_with_the_weights_of_the_uninterrupted_one(train, table, on_features):
    flags, table = [*PRECOMPUTED, *AUGMENTED], table.parent / "features.csv"
    resumed = train("halves", *flags, "--num_train_epochs", "1", source=table)
    train("halves", *flags, "--resume_from_checkpoint", "true", source=table)
    whole, halves = (load_file(folder / "model.safetensors") for folder in (on_features, resumed))
    assert all(torch.equal(whole[name], halves[name]) for name in whole)


@pytest.mark.parametrize("in_table", [True, False], ids=["in the table", "in files"])
def test_the_digest_of_a_run_tells_other_features_from_these(small_table, tmp_path, in_table):
    def digest(*arrays):
        path = small_table(arrays)
        if in_table:
            frame = pd.read_csv(path)
            frame["features"] = [list(np.load(tmp_path / name)) for name in frame["features"]]
            frame.to_parquet(path := tmp_path / "clips.parquet")
        return clip_sets(checked(path)[0])["train"].digest()

    assert digest() == digest()
    digests = {digest(), digest(GOOD), digest(GOOD[1:])}
    assert len(digests) == 3
    assert (digest(GOOD + 0.5) in digests) != in_table, "of files names and sizes count, as of audio"


def test_features_work_with_balance_groups_validation_and_folds(train):
    flags = [*PRECOMPUTED, "--num_train_epochs=1"]
    grouped = ["--padding=longest", "--train_sampling_strategy=group_by_length", "--validation_fraction=0.2"]
    summary = summary_of(train("grouped", *flags, *grouped))
    assert summary["evaluation"]["validation"]["clips"] == 5
    folds = train("folds", *flags, "--train_sampling_strategy=class_balanced", "--fold_column_name=fold")
    results = json.loads((folds / "cross_validation.json").read_text())
    assert [fold["clips"] for fold in results["folds"]] == [17, 16]


def test_a_checkpoint_is_evaluated_on_features_as_on_audio(on_features, tmp_path, table, capsys):
    flags = ["--model_name_or_path", str(on_features), "--dataset_name", str(table), "--predictions"]
    assert run_evaluate.main([*flags, str(tmp_path / "audio.csv"), "--score_windows", "beginning"]) == 0
    assert run_evaluate.main([*flags, str(tmp_path / "features.csv"), *PRECOMPUTED]) == 0
    audio, features = (pd.read_csv(tmp_path / f"{name}.csv") for name in ("audio", "features"))
    assert features["file"][0] == str(table.parent / "24.npy")
    assert features["truth"].tolist() == audio["truth"].tolist()
    np.testing.assert_allclose(features.iloc[:, 2:], audio.iloc[:, 2:], atol=1e-6)

    np.save(tmp_path / "wide.npy", np.zeros((50, 64), np.float32))
    (tmp_path / "wide.csv").write_text("mel,label\nwide.npy,bell\n")
    capsys.readouterr()
    flags = ["--model_name_or_path", str(on_features), "--dataset_name", str(tmp_path / "wide.csv"), *PRECOMPUTED]
    assert run_evaluate.main(flags) == 1
    message = capsys.readouterr().err
    assert message.startswith(f"ast-evaluate: {tmp_path / 'wide.npy'} has shape (50, 64), expected (frames, 128)")


@pytest.mark.parametrize("kind", ["parquet", "jsonl", "original"])
def test_features_within_a_table(small_table, tmp_path, kind):
    frame = pd.read_csv(small_table())
    arrays = [np.load(tmp_path / name) for name in frame["features"]]
    frame["features"] = [list(array) for array in arrays]
    if kind == "parquet":
        frame.to_parquet(path := tmp_path / "clips.parquet")
    elif kind == "jsonl":
        frame["features"] = [array.tolist() for array in arrays]
        frame.to_json(path := tmp_path / "clips.jsonl", orient="records", lines=True, double_precision=15)
    else:
        records = [
            {"wav": "none.wav", "labels": label, "split": split, "features": array.tolist()}
            for label, split, array in zip(frame["label"], frame["split"], arrays, strict=True)
        ]
        (path := tmp_path / "clips.json").write_text(json.dumps({"data": records}))
    splits, _ = checked(path)
    dataset = PrecomputedDataset(splits["eval"], ASTFeatureExtractor(max_length=25))
    held_out = [array for array, split in zip(arrays, frame["split"], strict=True) if split == "test"]
    assert len(dataset) == len(held_out) == 4
    for index, array in enumerate(held_out):
        np.testing.assert_array_equal(dataset[index]["features"], array[:25])
    assert dataset.name(1) == "row 4", "rows are counted in the table, from 1"


@pytest.mark.parametrize("kind", ["arrays of fixed sizes", "lists", "float64", "files", "float16 files"])
def test_features_of_a_data_set_on_the_hub(small_table, tmp_path, monkeypatch, kind):
    small_table()
    arrays = {
        "train": [np.load(tmp_path / f"{number}.npy")[:20] for number in range(6)],
        "test": [np.load(tmp_path / f"{number}.npy")[:15] for number in range(6, 12)],
    }
    splits = {}
    for name, of_split in arrays.items():
        value = datasets.Value("float64" if kind == "float64" else "float32")
        feature = datasets.List(datasets.List(value))
        content = [array.astype(value.dtype) for array in of_split]
        if kind == "arrays of fixed sizes":  # which differ between the splits
            feature = datasets.Array2D((len(of_split[0]), 128), "float32")
        elif "files" in kind:
            feature, content = datasets.Value("string"), []
            for number, array in enumerate(of_split):
                np.save(tmp_path / f"{name}{number}.npy", array.astype("float16" if "16" in kind else "float32"))
                content.append(str(tmp_path / f"{name}{number}.npy"))
        features = datasets.Features({"mel": feature, "label": datasets.ClassLabel(names=["a", "b"])})
        columns = {"mel": content, "label": [0, 1] * 3}
        splits[name] = datasets.Dataset.from_dict(columns, features).add_column("audio", [{"bytes": b""}] * 6)
    monkeypatch.setattr(datasets, "load_dataset", lambda name, config: datasets.DatasetDict(splits))
    loaded, _ = checked("someone/features", column="mel")
    assert set(loaded["train"].column_names) == {"features", "features_from", "label"}
    dataset = PrecomputedDataset(loaded["eval"], ASTFeatureExtractor())
    for index, array in enumerate(arrays["test"]):
        features = dataset[index]["features"]
        assert features.dtype == np.float32
        np.testing.assert_array_equal(features, array.astype("float16") if "16" in kind else array)
    assert dataset.lengths() == pytest.approx([0.025 + 14 * 0.010] * 6)  # Kaldi's window and shift, seconds


GOOD = np.random.default_rng(1).normal(-6, 5, (30, 128)).clip(-15.9).astype(np.float32)
WITH_NAN = GOOD.copy()
WITH_NAN[7, 3] = np.nan


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (GOOD.T, r"has shape \(128, 30\), expected \(frames, 128\): .* the other way round. Save features.T"),
        (GOOD[:, :64], r"has shape \(30, 64\), .* hears 128 mel bins.* --num_mel_bins 64"),
        (GOOD[None], r"has shape \(1, 30, 128\), expected \(frames, 128\). Save features.squeeze\(\)"),
        (np.stack([GOOD, GOOD]), r"has shape \(2, 30, 128\), .* Save one array for each clip"),
        (GOOD[0], r"has shape \(128,\), expected \(frames, 128\)"),
        (WITH_NAN, "holds NaN or infinite values, the first in frame 7"),
        (GOOD.astype(np.float64) * 1e300, "holds NaN or infinite values, the first in frame 0"),
        (GOOD[:0], r"is empty \(shape \(0, 128\)\), expected one frame or more"),
        (GOOD.astype(np.int16), "holds int16 values, expected floating-point numbers: the natural logarithm"),
        ((GOOD + 4.27) / (2 * 4.57), "values from -1.27 to 1.* which look normalised already.* before normalising"),
        (np.array([{"a": 1}]), "cannot be read as a .npy file of numbers"),
    ],
    ids=["flipped", "bins", "a batch", "3-D", "1-D", "NaN", "overflow", "empty", "integers", "normalised", "pickle"],
)
def test_what_cannot_be_features_is_refused_with_its_file(small_table, tmp_path, array, message):
    table = small_table([GOOD * 1.01, array])
    with pytest.raises(DataError, match=message) as caught:
        checked(table)
    assert f"1 of 12 clips looked at cannot be used:\n  {tmp_path / '1.npy'} " in str(caught.value)
    assert "0.npy" not in str(caught.value)


def test_a_file_that_is_an_archive_or_nothing_at_all(small_table, tmp_path):
    table = small_table()
    with open(tmp_path / "3.npy", "wb") as file:
        np.savez(file, GOOD)
    (tmp_path / "5.npy").write_bytes(b"")
    with pytest.raises(DataError) as caught:
        checked(table)
    message = str(caught.value)
    assert f"{tmp_path / '3.npy'} is an archive of arrays. Save one array a file, with numpy.save." in message
    assert f"{tmp_path / '5.npy'} cannot be read as a .npy file of numbers" in message


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([[1.0, 2.0], [3.0]], "row 2 of the column 'features' has frames of different lengths"),
        ([[[1.0, 2.0]]], r"row 2 of the column 'features' has shape \(1, 1, 2\), expected \(frames, mel bins\)"),
        ([], "row 2 of the column 'features' is empty"),
        ([["a", "b"]], "row 2 of the column 'features' holds <U1 values"),
        (7, "row 2 of the column 'features' holds 7, expected lists of frames, or paths of .npy files, in all rows"),
        ("1.npy", "row 2 of the column 'features' holds '1.npy', expected lists of frames"),
        (None, r"row\(s\) 2 have nothing in the column 'features'"),
    ],
)
def test_what_cannot_be_features_is_refused_with_its_row(tmp_path, value, message):
    rows = [{"features": GOOD.tolist(), "label": "ab"[number % 2]} for number in range(4)]
    rows[1]["features"] = value
    (tmp_path / "clips.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(DataError, match=message) as caught:
        checked(tmp_path / "clips.jsonl")
    assert str(tmp_path / "clips.jsonl") in str(caught.value)


def test_a_null_of_json_is_no_number(tmp_path):
    rows = [{"features": GOOD[number:].tolist(), "label": "ab"[number % 2]} for number in range(10)]
    rows[1]["features"][3] = [None] * 128
    (tmp_path / "clips.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(DataError, match="row 2 holds NaN or infinite values, the first in frame 3"):
        checked(tmp_path / "clips.jsonl")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [[GOOD[0].tolist()], [[1.0], [2.0, 3.0]]],
            "row 2 of the split 'train' has frames of 1 and of 2 values, expected as many in each",
        ),
        ([[GOOD[0].tolist()], None], "row 2 of the split 'train' has a cell without anything in it"),
        ([[[GOOD[0].tolist()]]] * 2, r"row 1 of the split 'train' has shape \(1, 1, 128\), expected \(frames, 128\)"),
        (
            [{"array": 1}] * 2,
            "row 1 of the split 'train' holds struct.*Name another column with --features_column_name",
        ),
        ([3.0, 4.0], "row 1 of the split 'train' holds double.*Name another column with --features_column_name"),
        ([str(Path("gone.npy"))] * 2, "gone.npy cannot be read as a .npy file .*No such file"),
        ([GOOD[:1].tolist(), [[float("nan")] * 128]], "row 2 of the split 'train' holds NaN"),
    ],
)
def test_what_a_data_set_on_the_hub_holds_in_place_of_features(monkeypatch, rows, message):
    loaded = datasets.DatasetDict(
        train=datasets.Dataset.from_dict({"features": rows, "label": ["a", "b"]}),
        test=datasets.Dataset.from_dict({"features": rows[:1], "label": ["a"]}),
    )
    monkeypatch.setattr(datasets, "load_dataset", lambda name, config: loaded)
    with pytest.raises(DataError, match=message):
        checked("someone/features")


def test_a_table_of_other_files_or_a_folder_without_a_table(small_table, tmp_path):
    (tmp_path / "other.csv").write_text("mel,label\na.wav,a\nb.npy,b\n")
    with pytest.raises(DataError, match=r"row\(s\) 1 of the column 'mel' are no paths of .npy files, such as 'a.wav'"):
        checked(tmp_path / "other.csv", column="mel")
    (tmp_path / "gone.csv").write_text("mel,label\na.npy,a\nb.npy,b\n")
    with pytest.raises(DataError, match="names 2 file.s. that are not there: .*a.npy"):
        checked(tmp_path / "gone.csv", column="mel")
    with pytest.raises(
        DataError, match="features_column_name='spectrogram' is not in the data set; it has 'features'"
    ):
        checked(small_table(), column="spectrogram")
    with pytest.raises(DataError, match="has no metadata.csv or .* with the column 'features' of features"):
        checked(tmp_path)


def test_what_is_odd_is_said(small_table):
    longer = np.concatenate([GOOD] * 4)
    _, words = checked(small_table([GOOD[:12], GOOD - 60, longer, GOOD[:9]]))
    assert "2 of 12 clips looked at have less than 16 frames, one patch of the model" in words
    assert "1 of 12 clips looked at have values below -15.94, the least that the feature extractor" in words
    assert "1 of 12 clips looked at have more than the 96 frames that the model hears" in words


@pytest.mark.parametrize("in_table", [True, False], ids=["in the table", "in files"])
def test_identical_features_in_two_splits_are_found(small_table, tmp_path, in_table):
    other = GOOD.copy()
    other[3] += 1  # of the same size, and with the same first and middle frame
    path = small_table([GOOD, GOOD, other, GOOD[:, ::-1]])  # 0 and 2 are trained on, 1 and 3 scored
    names = "0.npy = .*1.npy"
    if in_table:
        frame = pd.read_csv(path)
        frame["features"] = [list(np.load(tmp_path / name)) for name in frame["features"]]
        frame.to_parquet(path := tmp_path / "clips.parquet")
        names = "row 1 = row 2"
    with pytest.raises(DataError, match=rf"1 clip\(s\) are in the training and in the scored split: .*{names}\. "):
        checked(path)
    splits, words = checked(path, drop_duplicate_audio=True)
    assert "1 clip(s) also in the scored split were left out of training" in words
    assert len(splits["train"]) == 7


def test_statistics_are_those_of_the_audio(drum_clips):
    extractor = ASTFeatureExtractor(max_length=60)
    measured = measure_normalization((log_mel(clip)[:60] for clip in drum_clips * 2), extractor)
    assert vars(measured) == pytest.approx(vars(measure_normalization(drum_clips * 2, extractor)), rel=1e-9)


def test_items_carry_the_draws_of_their_epoch_and_are_cut(small_table):
    splits, _ = checked(small_table())
    augmentation = Augmentation(max_time_mask=5, max_roll=4)
    dataset = PrecomputedDataset(splits["train"], ASTFeatureExtractor(max_length=25), augmentation, seed=3)
    item = dataset[2, 4]
    expected = augmentation.draw(3, 2, 4, len(dataset))
    assert item["draws"]["noise_and_roll"] == expected["noise_and_roll"]
    assert item["draws"]["masks"]["spans"].tolist() == expected["masks"]["spans"].tolist()
    assert "draws" not in dataset[4]
    frames = [len(dataset[index]["features"]) for index in range(len(dataset))]
    assert dataset.lengths() == pytest.approx([0.025 + 0.010 * (number - 1) for number in frames])
    assert {20, 25} <= set(frames)
    assert list(EpochSampler(len(dataset), 0, dataset.lengths(), 2))
    binary = PrecomputedDataset(splits["train"], ASTFeatureExtractor(), binary_targets=True)
    assert binary[0]["label"].tolist() == [1, 0]


@pytest.mark.parametrize("padding", ["max_length", "longest"])
def test_batches_of_rows_for_a_plain_trainer_are_those_of_the_feature_extractor(drum_clips, padding):
    extractor = ASTFeatureExtractor(max_length=60, padding=padding)
    collator = ASTDataCollator(extractor, features_column_name="features")
    longest = max(drum_clips, key=len)
    both_longer = [longest, longest[:12_000]]  # than 60 frames
    for clips in (drum_clips[:6], both_longer, [drum_clips[0][:1000]]):  # the last has 4 frames
        rows = [{"features": log_mel(clip).tolist(), "label": 1, "audio": None} for clip in clips]
        batch = collator(rows)
        expected = extractor(clips, sampling_rate=16_000, return_tensors="pt")
        assert batch["labels"].tolist() == [1] * len(clips)
        torch.testing.assert_close(batch["input_values"], expected["input_values"], atol=1e-5, rtol=0)
        assert (
            ("attention_mask" in batch)
            == ("attention_mask" in expected)
            == (padding == "longest" and clips is not both_longer)
        )
        if "attention_mask" in batch:
            assert torch.equal(batch["attention_mask"].long(), expected["attention_mask"])
    with pytest.raises(AudioError, match=r"A row's 'features' has shape \(128, 30\).* other way round"):
        collator([{"features": GOOD.T, "label": 0}])


def test_a_user_column_called_features_beside_audio_is_only_carried_along(table, tmp_path):
    frame = pd.read_csv(table)
    frame["features"], frame["features_from"] = "mfcc", "elsewhere"
    frame.to_csv(table.parent / "more.csv", index=False)
    splits, _ = load_splits(DataArguments(dataset_name=str(table.parent / "more.csv")), seed=0)
    dataset = clip_dataset(splits["train"], ASTFeatureExtractor())
    assert type(dataset) is ASTDataset
    batch = ASTDataCollator(ASTFeatureExtractor(max_length=60), compute_features=False)([dataset[0], dataset[1]])
    assert model_inputs(batch, ASTFeatureExtractor(max_length=60))["input_values"].shape == (2, 60, 128)
    rows = [splits["train"][index] for index in range(2)]
    assert "waveforms" in ASTDataCollator(ASTFeatureExtractor(), compute_features=False)(rows)


def test_folds_hold_features(table):
    folds, _ = load_folds(DataArguments(dataset_name=str(table), features_column_name="mel", fold_column_name="fold"))
    assert [type(clip_dataset(splits["eval"], ASTFeatureExtractor())) for _, splits in folds] == [
        PrecomputedDataset
    ] * 2


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--mixup_probability 0.5", "mixup_probability change.* waveforms, .* Pass --mixup_probability 0; masks"),
        ("--max_speed_change 0.1 --max_gain_db 6", "Pass --max_speed_change 0 --max_gain_db 0"),
        ("--waveform_cache folder", "waveform_cache concern.* Leave out --waveform_cache"),
        ("--skip_bad_audio --check_audio", "Leave out --skip_bad_audio --check_audio"),
        ("--audio_column_name wav", "audio_column_name and features_column_name both say where the clips are"),
        ("--label_column_name mel", "features_column_name and label_column_name are both 'mel'"),
    ],
)
def test_what_needs_audio_is_refused(flags, message):
    with pytest.raises(ValueError, match=message):
        parse_arguments(["--dataset_name", "x.csv", "--output_dir", "run", *PRECOMPUTED, *flags.split()])


def test_what_needs_audio_is_refused_by_the_data_set_too(small_table):
    splits, _ = checked(small_table())
    with pytest.raises(ValueError, match="Pass --mixup_probability 0"):
        PrecomputedDataset(splits["train"], ASTFeatureExtractor(), Augmentation(mixup_probability=0.5))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_file_that_turns_bad_in_training_stops_it_with_its_name(small_table, tmp_path, monkeypatch, capsys, workers):
    table = small_table()
    # After the look at the clips up front, which in a larger data set misses some.
    monkeypatch.setattr(
        "finetune.runs.training_run.normalization_warning", lambda *_: np.save(tmp_path / "0.npy", WITH_NAN)
    )
    fields = {"features_column_name": "features", "dataloader_num_workers": workers}
    assert run_finetune.main(training(table, tmp_path / "run", **SETTINGS, **fields)) == 1
    error = capsys.readouterr().err
    assert f"training stopped. {tmp_path / '0.npy'} holds NaN or infinite values, the first in frame 7" in error
    assert "Traceback" not in error

"""Scores of checkpoints and ensembles against stock Transformers and scikit-learn, and `ast-evaluate` as a command."""

import csv
import json
import shutil
from pathlib import Path

import datasets
import numpy as np
import pytest
import soundfile
import torch
from sklearn.metrics import accuracy_score, average_precision_score, f1_score, roc_auc_score
from transformers import ASTFeatureExtractor as StockFeatureExtractor
from transformers import ASTForAudioClassification as StockModel

from finetune import run_evaluate
from finetune.arguments.groups import DataArguments
from finetune.clip_sets.audio_clips import AudioClips
from finetune.run_evaluate import main, print_evaluations, print_table, write_evaluations, write_predictions
from finetune.scores.scoring import (
    DivergedError,
    ScoringError,
    checkpoint_dataset,
    common_labels,
    ensemble_scores,
    evaluation_section,
    predict_scores,
    probabilities,
)
from finetune.sources.splits import load_splits
from modeling_ast import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification

LABELS = ["bell", "crash", "handdrum", "hat_closed", "hat_open", "kick", "ride", "snare", "tom"]
TOLERANCE = 2e-5  # float32 logits by two implementations of the features and of attention
SINGLE, MULTI = "single_label_classification", "multi_label_classification"


def save_checkpoint(folder, seed, sizes, labels=LABELS, problem_type=SINGLE, mean=-6.5, **settings):
    """A tiny model with random weights whose scores differ from clip to clip."""
    torch.manual_seed(seed)
    names = dict(enumerate(labels))
    model = ASTForAudioClassification(
        ASTConfig(
            **sizes | settings,
            id2label=names,
            label2id={name: index for index, name in names.items()},
            problem_type=problem_type,
        )
    )
    torch.nn.init.normal_(model.classifier.dense.weight, std=1.0)
    model.save_pretrained(folder)
    max_length = model.config.max_length
    ASTFeatureExtractor(max_length=max_length, mean=mean, std=5.5).save_pretrained(folder)
    return str(folder)


@pytest.fixture
def models(tmp_path, tiny_sizes):
    """An ensemble of the paper's kind: other strides, and here also another length, normalisation and label order."""
    settings = [
        {"frequency_stride": 10, "time_stride": 10},
        {"frequency_stride": 12, "time_stride": 12, "mean": -4.2, "labels": LABELS[::-1]},
        {"frequency_stride": 16, "time_stride": 16, "max_length": 64},
    ]
    return [save_checkpoint(tmp_path / f"m{seed}", seed, tiny_sizes, **given) for seed, given in enumerate(settings)]


@pytest.fixture(scope="session")
def rows(drum_rows) -> list[dict]:
    """22 drum clips, 8 of them of the test split; no bell among these."""
    training, test = ([row for row in drum_rows if row["split"] == split] for split in ("train", "test"))
    return training[::26] + [row for row in test[::9] if row["label"] != "bell"][:8]


@pytest.fixture
def clips(tmp_path, rows) -> str:
    """Those clips as a table."""
    return write_table(tmp_path / "clips.csv", rows)


def write_table(path, rows, columns=("path", "label", "split")) -> str:
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    return str(path)


def stock_probabilities(folder, rows, function=lambda logits: logits.softmax(dim=-1)) -> np.ndarray:
    """Probabilities of stock Transformers, clip by clip, in the order of `LABELS`."""
    model, extractor = StockModel.from_pretrained(folder), StockFeatureExtractor.from_pretrained(folder)
    place = {name: index for index, name in model.config.id2label.items()}
    scores = []
    for row in rows:
        waveform, sampling_rate = soundfile.read(row["path"], dtype="float32")
        inputs = extractor(waveform, sampling_rate=sampling_rate, return_tensors="pt")
        with torch.inference_mode():
            scores.append(function(model(**inputs).logits)[0].numpy()[[place[name] for name in LABELS]])
    return np.stack(scores)


def of_test_split(rows: list[dict]) -> list[dict]:
    return [row for row in rows if row["split"] == "test"]


def test_the_mean_of_models_with_other_strides_is_that_of_stock_transformers(models, rows, tmp_path, clips):
    assert main(["--model_name_or_path", *models, "--dataset_name", clips, "--device", "cpu", "--score_windows", "beginning",
                 "--output", f"{tmp_path}/scores.json", "--predictions", f"{tmp_path}/scores.csv"]) == 0  # fmt: skip
    test = of_test_split(rows)
    each = [stock_probabilities(model, test) for model in models]
    expected = np.mean(each, axis=0)
    with open(tmp_path / "scores.csv", newline="") as file:
        header, *lines = csv.reader(file)
    assert header == ["file", "truth", *LABELS]
    assert [line[:2] for line in lines] == [[row["path"], row["label"]] for row in test]
    np.testing.assert_allclose(np.array([line[2:] for line in lines], dtype=float), expected, atol=TOLERANCE, rtol=0)

    content = json.loads((tmp_path / "scores.json").read_text())
    assert content["labels"] == LABELS
    assert [section["model"] for section in content["evaluations"]] == [*models, "mean of 3 models"]
    truth = np.array([LABELS.index(row["label"]) for row in test])
    for section, scores in zip(content["evaluations"], [*each, expected], strict=True):
        assert section["clips"] == len(test)
        assert section["left_out"] == [name for name in LABELS if name not in {row["label"] for row in test}]
        assert "bell" in section["left_out"]
        assert section["metrics"]["accuracy"] == pytest.approx(accuracy_score(truth, scores.argmax(axis=1)))
        present = sorted(set(truth))
        one_hot = np.eye(len(LABELS))[truth]
        for name, score in (("mean_average_precision", average_precision_score), ("roc_auc_macro", roc_auc_score)):
            macro = score(one_hot[:, present], scores[:, present], average="macro")
            assert section["metrics"][name] == pytest.approx(macro, abs=1e-9)
        assert np.sum(section["confusion_matrix"]) == len(test)
        assert np.trace(section["confusion_matrix"]) == (truth == scores.argmax(axis=1)).sum()


def test_a_multi_label_model_is_scored_by_sigmoid_and_its_own_thresholds(tmp_path, tiny_sizes, rows):
    model = save_checkpoint(tmp_path / "model", 0, tiny_sizes, problem_type=MULTI)
    several = [row | {"label": f"{row['label']}|{LABELS[number % 7]}"} for number, row in enumerate(rows)]
    several[-1]["label"] = ""  # hears none of the labels
    table = write_table(tmp_path / "clips.csv", several)
    flags = ["--model_name_or_path", model, "--dataset_name", table, "--label_separator", "|", "--split", "all"]
    flags += ["--score_windows", "beginning"]  # as stock Transformers
    output = ["--output", f"{tmp_path}/scores.json", "--predictions", f"{tmp_path}/scores.csv", "--device", "cpu"]
    assert main([*flags, *output]) == 0

    scores = stock_probabilities(model, several, torch.sigmoid)
    truth = np.array([[name in row["label"].split("|") for name in LABELS] for row in several], dtype=int)
    present = truth.any(axis=0)
    (section,) = json.loads((tmp_path / "scores.json").read_text())["evaluations"]
    expected = average_precision_score(truth[:, present], scores[:, present], average="macro")
    assert section["metrics"]["mean_average_precision"] == pytest.approx(expected, abs=1e-9)
    macro = f1_score(truth[:, present], scores[:, present] >= 0.5, average="macro", zero_division=0)
    assert section["metrics"]["f1_macro"] == pytest.approx(macro)
    assert "confusion_matrix" not in section
    with open(tmp_path / "scores.csv", newline="") as file:
        lines = list(csv.reader(file))
    assert lines[1][1] == "bell;" + rows[0]["label"] if rows[0]["label"] != "bell" else "bell"
    assert lines[-1][1] == ""

    config = json.loads((tmp_path / "model" / "config.json").read_text())
    levels = dict(zip(LABELS, np.linspace(0.1, 0.9, 9).tolist(), strict=True))
    (tmp_path / "model" / "config.json").write_text(json.dumps(config | {"label_thresholds": levels}))
    assert main([*flags, *output]) == 0
    section = json.loads((tmp_path / "scores.json").read_text())["evaluations"][0]
    found = scores >= np.array(list(levels.values()))
    with_thresholds = f1_score(truth[:, present], found[:, present], average="macro", zero_division=0)
    assert with_thresholds != pytest.approx(macro)
    assert section["metrics"]["f1_macro"] == pytest.approx(with_thresholds)
    assert main([*flags, *output, "--function", "softmax"]) == 0  # they were chosen on other scores
    section = json.loads((tmp_path / "scores.json").read_text())["evaluations"][0]
    found = stock_probabilities(model, several) >= 0.5
    macro = f1_score(truth[:, present], found[:, present], average="macro", zero_division=0)
    assert section["metrics"]["f1_macro"] == pytest.approx(macro)


def test_exclusive_clips_are_scored_by_the_top_label_of_a_sigmoid_model(tmp_path, tiny_sizes, rows, clips):
    model = save_checkpoint(tmp_path / "model", 3, tiny_sizes, problem_type=MULTI)
    output = f"{tmp_path}/scores.json"
    assert main(["--model_name_or_path", model, "--dataset_name", clips, "--output", output]) == 0
    section = json.loads((tmp_path / "scores.json").read_text())["evaluations"][0]
    test = of_test_split(rows)
    top = stock_probabilities(model, test, torch.sigmoid).argmax(axis=1)
    assert section["metrics"]["accuracy"] == np.mean(
        [LABELS[best] == row["label"] for best, row in zip(top, test, strict=True)]
    )
    assert "confusion_matrix" in section


def test_which_clips_are_scored(tmp_path, models, rows, clips, capsys):
    def scored(*flags: str) -> str:
        assert main(["--model_name_or_path", models[2], *flags]) == 0
        return capsys.readouterr().out.splitlines()[0]

    assert scored("--dataset_name", clips) == "8 clips, the split 'test'"
    assert scored("--dataset_name", clips, "--eval_split_name", "train", "--train_split_name", "test").startswith(
        "14 clips"
    )
    assert scored("--dataset_name", clips, "--split", "train") == "14 clips, the split 'train'"
    assert scored("--dataset_name", clips, "--split", "all") == "22 clips, all there are"
    assert scored("--eval_file", clips) == "22 clips, all there are"
    unsplit = write_table(tmp_path / "unsplit.csv", rows[:5], ["path", "label"])
    assert scored("--dataset_name", unsplit).startswith(
        "5 clips, all there are, also those that a model was trained on"
    )
    assert scored("--eval_file", unsplit) == "5 clips, all there are"
    for row in rows:
        folder = tmp_path / "folder" / row["split"] / row["label"]
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(row["path"], folder)
    assert scored("--dataset_name", f"{tmp_path}/folder") == "8 clips, the split 'test'"
    assert scored("--dataset_name", f"{tmp_path}/folder/test").startswith("8 clips, all there are, also those")
    validation = write_table(tmp_path / "v.csv", [row | {"split": "validation"} for row in rows[:6]] + rows[6:])
    assert scored("--dataset_name", validation, "--split", "validation") == "6 clips, the split 'validation'"
    of_one = write_table(tmp_path / "one.csv", [row for row in rows if row["label"] == "kick"])
    assert scored("--dataset_name", of_one, "--split", "all").endswith("clips, all there are")


def test_the_printed_tables_name_every_model_and_what_was_left_out(models, clips, capsys):
    assert main(["--model_name_or_path", *models[::2], "--dataset_name", clips, "--per_class"]) == 0
    lines = capsys.readouterr().out.splitlines()
    head = next(number for number, line in enumerate(lines) if line.startswith("model "))
    assert lines[head].split() == ["model", "accuracy", "macro", "F1", "mAP", "AUC", "d-prime"]
    assert [line.split("  ")[0] for line in lines[head + 1 : head + 4]] == [models[0], models[2], "mean of 2 models"]
    assert any("classes have no clip in the scored split and no part in the means: bell" in line for line in lines)
    bell = next(line for line in lines if line.startswith("bell "))
    assert bell.split() == ["bell", "0", "0.0000", "0.0000", "0.0000", "-", "-"]
    accuracy = lines[head + 3].split()[4]
    assert lines[-1] == f"mean of 2 models, accuracy {accuracy} on 8 clips"


def test_the_folders_of_epochs_are_models_too(tmp_path, tiny_sizes, clips, capsys):
    epochs = [
        save_checkpoint(tmp_path / "run" / "epochs" / f"epoch-{number}", number, tiny_sizes) for number in (1, 2)
    ]
    assert main(["--model_name_or_path", *epochs, "--dataset_name", clips]) == 0
    assert "mean of 2 models" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--split", "validation"], "No clip is in the split 'validation'; the data has 'train' (14 clips), 'test' (8 clips)"),
        (["--eval_split_name", "dev"], "Pass --eval_split_name with one of these, or --split all."),
        (["--ignore_labels", "gong"], "ignore_labels names gong, which no clip has"),
        (["--eval_file", "x.csv"], "Both were given of dataset_name and eval_file"),
        (["--per_device_eval_batch_size", "0"], "per_device_eval_batch_size=0 is less than 1"),
        (["--dataloader_num_workers", "-1"], "dataloader_num_workers=-1 is negative"),
        (["--output", "no/such/folder.json"], "output='no/such/folder.json' is no file in a folder that is there"),
        (["--device", "abacus"], "There is no device 'abacus' here"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_the_flag_to_type(models, clips, capsys, flags, message):
    assert main(["--model_name_or_path", models[2], "--dataset_name", clips, *flags]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["--output", "--predictions"])
def test_nothing_is_written_over_what_scores_are_made_of(models, rows, tmp_path, capsys, monkeypatch, flag):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "audio").mkdir()
    copies = [row | {"path": f"audio/{Path(row['path']).name}"} for row in rows]
    for row, copy in zip(rows, copies, strict=True):
        shutil.copy(row["path"], copy["path"])
    table = write_table(tmp_path / "clips.csv", copies)
    inputs = [table, f"{models[2]}/config.json", f"{models[2]}/model.safetensors", of_test_split(copies)[0]["path"]]
    for kind, path in zip(("input", "input", "input", "clip"), inputs, strict=True):
        content = Path(path).read_bytes()
        assert main(["--model_name_or_path", models[2], "--dataset_name", table, flag, path]) == 2
        said = capsys.readouterr().err
        assert f"{flag} would write over the {kind}" in said
        assert "Pass another name." in said
        assert Path(path).read_bytes() == content
    scores = str(tmp_path / "scores")
    both = ["--output", scores, "--predictions", scores]
    assert main(["--model_name_or_path", models[2], "--dataset_name", table, *both]) == 2
    assert f"--predictions would write over {scores} of --output" in capsys.readouterr().err
    Path("README.md").write_text("lies where the command is typed, and is no input")
    flags = ["--eval_file", write_table(tmp_path / "scored.csv", of_test_split(copies)), flag, "README.md"]
    assert main(["--model_name_or_path", models[2], *flags]) == 0
    for _ in range(2):  # its own results of before are replaced, wherever they lie
        flags = ["--dataset_name", table, flag, f"{models[2]}/scores.json"]
        assert main(["--model_name_or_path", models[2], *flags]) == 0


@pytest.mark.parametrize(
    ("architecture", "words"),
    [
        ("ASTForMaskedSpectrogramModeling", "was pretrained without labels and has no classifier. Fine-tune it first"),
        ("ASTForAudioFrameClassification", "has a frame head, which tells labels of frames and not of clips"),
    ],
)
def test_a_model_without_a_classifier_is_told_before_its_labels_are_compared(
    models, clips, capsys, architecture, words
):
    config = Path(models[2], "config.json")
    names = {"id2label": {"0": "LABEL_0", "1": "LABEL_1"}, "label2id": {"LABEL_0": 0, "LABEL_1": 1}}
    names["architectures"] = [architecture]
    config.write_text(json.dumps(json.loads(config.read_text()) | names))
    assert main(["--model_name_or_path", models[2], "--dataset_name", clips]) == 2
    said = capsys.readouterr().err
    assert words in said
    assert "--ignore_labels" not in said


def test_scores_of_all_labels_together_are_told_of_a_model_of_several_sets(models, clips, capsys):
    main(["--model_name_or_path", models[2], "--dataset_name", clips])
    assert "several sets" not in capsys.readouterr().out
    Path(models[2], "run_summary.json").write_text(json.dumps({"evaluation": {"label_sets": {"drums": {}}}}))
    assert main(["--model_name_or_path", models[2], "--dataset_name", clips]) == 0
    assert f"{models[2]} was trained on several sets of labels, each apart" in capsys.readouterr().out


def test_a_model_folder_that_is_not_there_is_named(clips, capsys):
    """It could be the id of a model of the Hub, which is not asked here."""
    assert main(["--model_name_or_path", "runs/none", "--dataset_name", clips]) == 2
    said = capsys.readouterr().err
    assert "There is no folder runs/none here, and as a Hub id it cannot be loaded" in said
    assert "HF_HUB_OFFLINE" in said


def test_data_without_splits_has_no_split_to_choose(models, tmp_path, rows, capsys):
    unsplit = write_table(tmp_path / "unsplit.csv", rows[:5], ["path", "label"])
    assert main(["--model_name_or_path", models[2], "--dataset_name", unsplit, "--split", "eval"]) == 2
    assert "Leave out --split eval to score all clips" in capsys.readouterr().err
    assert main(["--model_name_or_path", models[2], "--eval_file", unsplit, "--split", "train"]) == 2
    assert "Leave out --split train" in capsys.readouterr().err
    assert main(["--model_name_or_path", models[2]]) == 2
    assert "Neither was given of dataset_name and eval_file" in capsys.readouterr().err


def test_labels_that_the_checkpoint_does_not_know_are_named_and_can_be_ignored(tmp_path, tiny_sizes, clips, capsys):
    model = save_checkpoint(tmp_path / "model", 0, tiny_sizes, labels=["Crash", *LABELS[2:]])
    assert main(["--model_name_or_path", model, "--dataset_name", clips, "--split", "all"]) == 2
    message = capsys.readouterr().err
    assert "The clips have bell, crash, which the checkpoint does not know; its labels are Crash, handdrum" in message
    assert "--ignore_labels bell crash" in message
    flags = ["--dataset_name", clips, "--split", "all", "--ignore_labels", "bell", "crash"]
    assert main(["--model_name_or_path", model, *flags]) == 0
    assert "no part in the means: Crash" in capsys.readouterr().out


def test_models_of_other_labels_are_no_ensemble(tmp_path, tiny_sizes, models, clips, capsys):
    other = save_checkpoint(tmp_path / "other", 0, tiny_sizes, labels=[*LABELS[1:], "gong"])
    assert main(["--model_name_or_path", models[0], other, "--dataset_name", clips]) == 2
    assert f"{other} has other labels than the rest: it alone has gong, it lacks bell" in capsys.readouterr().err
    with pytest.raises(ScoringError, match="it alone has gong"):  # before anything is scored
        common_labels([models[0], other])
    assert common_labels(models) == LABELS
    with pytest.raises(ScoringError, match="No model was given"):
        common_labels([])
    assert main(["--model_name_or_path", str(tmp_path / "nothing"), "--dataset_name", clips]) == 2
    assert "There is no model folder" in capsys.readouterr().err


def test_several_labels_a_clip_need_a_model_of_independent_ones(tmp_path, models, rows, capsys):
    several = [row | {"label": f"{row['label']};{LABELS[number % 7]}"} for number, row in enumerate(rows)]
    table = write_table(tmp_path / "several.csv", several)
    flags = ["--model_name_or_path", models[0], "--dataset_name", table, "--label_separator", ";", "--split", "all"]
    flags += ["--score_windows", "beginning"]  # as stock Transformers
    assert main(flags) == 2
    message = capsys.readouterr().err
    assert "takes its labels as exclusive (problem_type single_label_classification)" in message
    assert "--function sigmoid" in message
    assert main([*flags, "--function", "sigmoid", "--predictions", f"{tmp_path}/scores.csv"]) == 0
    with open(tmp_path / "scores.csv", newline="") as file:
        scores = np.array([line[2:] for line in list(csv.reader(file))[1:]], dtype=float)
    np.testing.assert_allclose(scores, stock_probabilities(models[0], several, torch.sigmoid), atol=TOLERANCE, rtol=0)


def test_a_clip_that_cannot_be_decoded_is_named(tmp_path, models, rows, capsys):
    (tmp_path / "broken.flac").write_bytes(b"no audio")
    table = write_table(tmp_path / "clips.csv", [*rows, {"path": "broken.flac", "label": "kick", "split": "test"}])
    for workers in ("0", "1"):
        flags = ["--dataset_name", table, "--dataloader_num_workers", workers, "--output", f"{tmp_path}/scores.json"]
        assert main(["--model_name_or_path", models[2], *flags]) == 1
        error = capsys.readouterr().err
        assert error.startswith("ast-evaluate: ")
        assert "broken.flac" in error
        assert "Traceback" not in error
        assert not (tmp_path / "scores.json").exists()


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory. Tried to\nallocate")])
def test_too_little_memory_is_told_with_what_takes_less(models, clips, capsys, monkeypatch, error):
    def fail(*_):
        raise error

    monkeypatch.setattr(run_evaluate, "evaluate_models", fail)
    assert main(["--model_name_or_path", models[2], "--dataset_name", clips]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "Pass a lower --per_device_eval_batch_size" in said
    assert ("(CUDA out of memory. Tried to)" in said) == bool(str(error))


def test_scores_that_are_not_numbers_are_refused():
    with pytest.raises(DivergedError, match="not numbers.*--max_grad_norm 1"):
        probabilities(np.array([[0.0, np.nan]]), SINGLE)
    with pytest.raises(DivergedError):
        probabilities(torch.tensor([[0.0, float("inf")]]), SINGLE)
    np.testing.assert_allclose(probabilities(np.zeros((2, 4)), SINGLE), 0.25)
    np.testing.assert_allclose(probabilities(np.zeros((2, 4)), MULTI), 0.5)


def test_batches_and_padding_change_no_score(models, clips):
    splits, _ = load_splits(DataArguments(dataset_name=clips), seed=0)
    extractor = ASTFeatureExtractor.from_pretrained(models[0])
    model = ASTForAudioClassification.from_pretrained(models[0]).train()
    dataset = checkpoint_dataset(splits["eval"], extractor)
    scores, references = predict_scores(model, extractor, dataset, batch_size=3)
    assert not model.training
    assert scores.dtype == np.float32
    np.testing.assert_array_equal(references, splits["eval"]["label"][:])
    alone, _ = predict_scores(model, extractor, dataset, batch_size=1, num_workers=1)
    np.testing.assert_allclose(scores, alone, atol=TOLERANCE, rtol=0)
    extractor.padding = "longest"
    longest, _ = predict_scores(model, extractor, dataset, batch_size=8)
    assert np.abs(longest - scores).max() > 1e-4, "the feature extractor's padding was not obeyed"
    alone, _ = predict_scores(model, extractor, dataset, batch_size=1)
    np.testing.assert_allclose(longest, alone, atol=TOLERANCE, rtol=0)
    with pytest.raises(ScoringError, match="function='relu' is not among softmax, sigmoid"):
        predict_scores(model, extractor, dataset, batch_size=8, function="relu")
    model.config.problem_type = "regression"
    with pytest.raises(ScoringError, match="problem_type is 'regression'"):
        predict_scores(model, extractor, dataset, batch_size=8)


def test_an_ensemble_of_one_model_has_its_scores(models, clips):
    splits, _ = load_splits(DataArguments(dataset_name=clips), seed=0)
    split = splits["eval"].cast_column("label", splits["eval"].features["label"])
    seen = []
    scores, _ = ensemble_scores(models[2:], split, 8, each=lambda name, own, _: seen.append((name, own)))
    assert [name for name, _ in seen] == models[2:]
    np.testing.assert_array_equal(scores, seen[0][1].astype(np.float64))
    assert scores.dtype == np.float64


def test_the_section_is_what_the_run_summary_holds():
    scores, references = np.array([[0.9, 0.1, 0.0], [0.2, 0.8, 0.0], [0.6, 0.4, 0.0]]), np.array([0, 1, 1])
    section = evaluation_section(scores, references, ["a", "b", "c"], "test", "scored once", {"accuracy": 0.5})
    assert list(section) == ["split", "clips", "protocol", "metrics", "left_out", "per_class", "confusion_matrix"]
    assert section["metrics"] == {"accuracy": 0.5}
    assert section["left_out"] == ["c"]
    assert section["confusion_matrix"] == [[1, 0, 0], [1, 1, 0], [0, 0, 0]]
    section = evaluation_section(scores, np.eye(3, dtype=int)[references], ["a", "b", "c"], "test")
    assert list(section) == ["split", "clips", "metrics", "left_out", "per_class"]
    low = dict.fromkeys("abc", 0.3)
    recall = {row["label"]: row["recall"] for row in section["per_class"]}
    with_thresholds = evaluation_section(scores, np.eye(3)[references], ["a", "b", "c"], "test", thresholds=low)
    assert recall["b"] == 0.5
    assert {row["label"]: row["recall"] for row in with_thresholds["per_class"]}["b"] == 1.0
    assert with_thresholds["metrics"]["f1_macro"] > section["metrics"]["f1_macro"]


def test_what_is_not_a_number_is_null_in_json_and_a_dash_in_the_table(tmp_path, capsys):
    scores, references = np.array([[0.9, 0.1], [0.2, 0.8]]), np.array([0, 1])  # without a fault: d-prime is infinite
    evaluations = {"a": evaluation_section(scores, references, ["a", "b"], "test")}
    evaluations["a"]["metrics"]["accuracy"] = float("nan")
    write_evaluations(str(tmp_path / "scores.json"), evaluations, ["a", "b"])
    (section,) = json.loads((tmp_path / "scores.json").read_text(), parse_constant=pytest.fail)["evaluations"]
    assert (section["metrics"]["accuracy"], section["metrics"]["d_prime"]) == (None, None)
    assert section["metrics"]["roc_auc_macro"] == 1.0
    print_evaluations(evaluations, per_class=False)
    assert capsys.readouterr().out.splitlines()[-1].split()[:2] == ["a", "-"]


def test_clips_without_labels_are_named_below_the_table(capsys):
    scores, references = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.5]]), np.array([[1, 0], [0, 1], [0, 0]])
    section = evaluation_section(scores, references, ["a", "b"], "test")
    assert section["metrics"]["accuracy"] == 1
    print_evaluations({"a": section}, per_class=False)
    assert capsys.readouterr().out.endswith("\n1 of 3 clips have no label and no part in the accuracy\n")


@pytest.mark.parametrize("make_safe", [False, True])
def test_names_in_predictions_are_read_back_or_made_harmless(tmp_path, make_safe):
    labels, files = ["=1+1", "a\rb", '"'], ["-1.wav", "a\nb.wav"]
    split = datasets.Dataset.from_dict({"audio": [{"path": name, "bytes": None} for name in files], "label": [0, 1]})
    split = split.cast_column("label", datasets.ClassLabel(names=labels))
    write_predictions(tmp_path / "scores.csv", AudioClips(split), labels, np.array([[-0.5, 1, 0]] * 2), make_safe)
    with open(tmp_path / "scores.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    mark = "'" if make_safe else ""
    assert rows == [
        ["file", "truth", mark + labels[0], *labels[1:]],
        [mark + files[0], mark + labels[0], "-0.5", "1", "0"],
        [files[1], labels[1], "-0.5", "1", "0"],
    ]


def test_harmless_names_are_those_of_predictions(capsys):
    assert main(["--model_name_or_path", "m", "--dataset_name", "d", "--spreadsheet_safe"]) == 2
    assert "spreadsheet_safe is about the CSV file of --predictions" in capsys.readouterr().err


def test_names_in_printed_tables_stay_in_their_line(capsys):
    print_table(["label", "F1"], [["a\nb\x1b[31m", 0.5]])
    assert capsys.readouterr().out.splitlines()[1].split() == [r"a\nb\x1b[31m", "0.5000"]

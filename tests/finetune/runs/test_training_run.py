"""What a training does beyond epochs: choices on a validation split, averaged epochs, several labels a clip, other losses."""

import json
import shutil

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file
from sklearn.metrics import average_precision_score, f1_score
from tiny_trainings import summary_in, write_recipe
from transformers import AutoConfig
from transformers.models.audio_spectrogram_transformer import modeling_audio_spectrogram_transformer as stock

from benchmarks.stock_start import compare, save_stock_checkpoint
from finetune.arguments.command_line import parse_arguments
from finetune.run_finetune import main
from finetune.runs.training_run import prepare_run
from finetune.scores.scoring import checkpoint_dataset, predict_scores
from finetune.sources.labels import label_names
from finetune.training.trainer import ASTTrainer
from modeling_ast import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification
from modeling_ast.scores import label_thresholds

BATCH = {"per_device_train_batch_size": 8}
MIDS = {"hat_closed": "/m/1", "kick": "/m/0", "snare": "/m/2", "whistle": "/m/3"}  # of the last there is no clip


@pytest.fixture(scope="module")
def layout(tmp_path_factory, drum_rows):
    """The original's JSON files and label CSV; every third clip is said to hold a kick too."""
    folder = tmp_path_factory.mktemp("original")
    rows = [row for row in drum_rows if row["label"] in MIDS]
    sides = {
        "train": [row for row in rows if row["split"] == "train"][::6],
        "valid": [row for row in rows if row["split"] == "train"][1::12],
        "eval": [row for row in rows if row["split"] == "test"][::4],
    }
    for name, chosen in sides.items():
        records = [
            {"wav": row["path"], "labels": ",".join({MIDS[row["label"]], *(["/m/0"] if number % 3 == 0 else [])})}
            for number, row in enumerate(chosen)
        ]
        (folder / f"{name}.json").write_text(json.dumps({"data": records}))
    lines = [
        "index,mid,display_name",
        *(f"{mid[-1]},{mid},{name}" for name, mid in sorted(MIDS.items(), key=lambda i: i[1])),
    ]
    (folder / "labels.csv").write_text("\n".join(lines))
    return folder


@pytest.fixture
def multi_label(layout, tmp_path):
    files = {
        "train_file": "train.json",
        "validation_file": "valid.json",
        "eval_file": "eval.json",
        "label_csv": "labels.csv",
    }
    return write_recipe(tmp_path, None, **BATCH, **{name: str(layout / file) for name, file in files.items()})


@pytest.fixture
def exclusive(tmp_path, drum_rows):
    """A folder of three classes, with a recipe that sets validation clips apart."""
    rows = [row for row in drum_rows if row["label"] in MIDS]
    for row in rows[::8]:
        (tmp_path / "clips" / row["label"]).mkdir(parents=True, exist_ok=True)
        shutil.copy(row["path"], tmp_path / "clips" / row["label"])
    return write_recipe(tmp_path, tmp_path / "clips", validation_fraction=0.2, **BATCH)


@pytest.mark.pictures
def test_clips_with_several_labels_from_the_originals_layout(multi_label, tmp_path, capsys):
    flags = [
        "--train_sampling_strategy",
        "class_balanced",
        "--mixup_probability",
        "0.5",
        "--clip_windows",
        "beginning",
    ]
    assert main([multi_label, *flags]) == 0
    folder = tmp_path / "run"
    summary = summary_in(folder)
    evaluation = summary["evaluation"]
    assert summary["labels"] == sorted(MIDS, key=MIDS.get)  # in the order of the label CSV
    assert summary["problem_type"] == "multi_label_classification"
    assert evaluation["left_out"] == ["whistle"]
    assert summary["data"]["name"].startswith("original")  # the folder of the files
    assert "confusion_matrix" not in evaluation
    assert "1 of 4 classes have no clip in the scored split" in capsys.readouterr().out

    argv = [
        multi_label,
        "--output_dir",
        str(tmp_path / "x"),
        "--keep_features",
        "false",
        "--clip_windows",
        "beginning",
    ]
    run = prepare_run(argv, parse_arguments(argv))
    clips = run.clips["eval"]
    model = stock.ASTForAudioClassification.from_pretrained(folder).eval()
    inputs = run.trainer.data_collator([clips[row] for row in range(len(clips))])
    extractor = ASTFeatureExtractor.from_pretrained(folder)
    waveforms = [wave[:length].numpy() for wave, length in zip(inputs["waveforms"], inputs["lengths"], strict=True)]
    with torch.inference_mode():
        logits = model(**extractor(waveforms, sampling_rate=16_000, return_tensors="pt")).logits
    truth = inputs["labels"].numpy()
    expected = [average_precision_score(truth[:, label], logits[:, label]) for label in range(3)]
    assert evaluation["metrics"]["mean_average_precision"] == pytest.approx(np.mean(expected), abs=1e-6)
    loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, inputs["labels"]).item()
    assert evaluation["metrics"]["loss"] == pytest.approx(loss, abs=1e-5)


def test_thresholds_are_chosen_on_the_validation_clips_and_saved_for_tagging(multi_label, tmp_path):
    assert main([multi_label]) == 0
    folder = tmp_path / "run"
    config = ASTConfig.from_pretrained(folder)
    evaluation = summary_in(folder)["evaluation"]
    assert config.label_thresholds == evaluation["thresholds"]
    assert set(config.label_thresholds) == set(MIDS)
    assert any(value != 0.5 for value in config.label_thresholds.values())
    assert label_thresholds(config).tolist() == [config.label_thresholds[config.id2label[index]] for index in range(4)]
    assert AutoConfig.from_pretrained(folder).num_labels == 4  # stock Transformers reads it all the same
    assert evaluation["validation"]["clips"] != evaluation["clips"]

    # Trained further, the new weights do not inherit the old thresholds unless new ones are chosen.
    again = yaml.safe_load((tmp_path / "recipe.yaml").read_text())
    for name in ("validation_file", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"):
        del again[name]
    again |= {"model_name_or_path": str(folder), "output_dir": str(tmp_path / "further"), "num_train_epochs": 1}
    (tmp_path / "again.yaml").write_text(yaml.safe_dump(again))
    assert main([str(tmp_path / "again.yaml")]) == 0
    assert ASTConfig.from_pretrained(tmp_path / "further").label_thresholds is None


def test_averaged_epochs_are_what_is_saved_and_scored(multi_label, tmp_path):
    assert (
        main(
            [multi_label, "--num_train_epochs", "4", "--average_epochs", "2", "4", "--ensemble_epochs", "3", "4"]
            + ["--clip_windows", "beginning"]
        )
        == 0
    )
    folder = tmp_path / "run"
    evaluation = summary_in(folder)["evaluation"]
    epochs = [load_file(folder / "epochs" / f"epoch-{number}" / "model.safetensors") for number in (2, 3, 4)]
    for name, saved in load_file(folder / "model.safetensors").items():
        mean = torch.stack([epoch[name].double() for epoch in epochs]).mean(dim=0)
        assert torch.equal(saved, mean.to(saved.dtype)), name

    run = prepare_run([multi_label], parse_arguments([multi_label, "--output_dir", str(tmp_path / "x")]))
    split = run.clips["eval"].split

    def scores_of(path):
        extractor = ASTFeatureExtractor.from_pretrained(path)
        return predict_scores(
            ASTForAudioClassification.from_pretrained(path), extractor, checkpoint_dataset(split, extractor), 8
        )

    def mean_average_precision(scores, truth):
        return np.mean([average_precision_score(truth[:, label], scores[:, label]) for label in range(3)])

    for path, section in ((folder, evaluation), (folder / "epochs" / "epoch-4", evaluation["last_epoch"])):
        scores, truth = scores_of(path)
        assert section["metrics"]["mean_average_precision"] == pytest.approx(mean_average_precision(scores, truth))
    mean = np.mean([scores_of(folder / "epochs" / f"epoch-{number}")[0] for number in (3, 4)], axis=0)
    ensemble = evaluation["ensemble"]["metrics"]["mean_average_precision"]
    assert ensemble == pytest.approx(mean_average_precision(mean, truth))
    assert label_names(split) == summary_in(folder)["labels"]


def test_an_ensemble_of_epochs_leaves_the_last_epochs_weights(multi_label, tmp_path):
    assert main([multi_label, "--ensemble_epochs", "1", "2", "--num_train_epochs", "3"]) == 0
    (last,) = (tmp_path / "run").glob("checkpoint-*")
    saved, trained = (load_file(folder / "model.safetensors") for folder in (tmp_path / "run", last))
    assert all(torch.equal(saved[name], trained[name]) for name in saved)


def test_epochs_kept_for_their_average_alone_are_removed(multi_label, tmp_path):
    assert main([multi_label, "--average_epochs", "1", "2"]) == 0
    assert not (tmp_path / "run" / "epochs").exists()


def test_the_best_epoch_is_chosen_on_the_validation_clips_and_training_stops_early(exclusive, tmp_path):
    flags = ["--eval_strategy", "epoch", "--load_best_model_at_end", "true", "--metric_for_best_model", "loss"]
    flags += ["--learning_rate", "0.05", "--num_train_epochs", "12", "--early_stopping_patience", "2"]
    assert main([exclusive, *flags]) == 0
    summary = summary_in(tmp_path / "run")
    losses = [row["eval_loss"] for row in summary["history"] if "eval_loss" in row]
    assert len(losses) < 12
    assert len(losses) == 1 + int(np.argmin(losses)) + 2
    validation = summary["evaluation"]["validation"]
    assert validation["metrics"]["loss"] == pytest.approx(min(losses), abs=1e-6)
    assert summary["evaluation"]["protocol"] == "the best checkpoint by loss on the validation split"
    assert summary["data"]["splits"]["validation"]["clips"] == validation["clips"]


def test_one_label_a_clip_is_trained_with_binary_cross_entropy_if_that_is_asked_for(exclusive, tmp_path):
    assert (
        main([exclusive, "--loss", "binary_cross_entropy", "--mixup_probability", "0.5", "--num_train_epochs", "1"])
        == 0
    )
    evaluation = summary_in(tmp_path / "run")["evaluation"]
    assert ASTConfig.from_pretrained(tmp_path / "run").problem_type == "multi_label_classification"
    matrix = np.array(evaluation["confusion_matrix"])
    assert evaluation["metrics"]["accuracy"] == pytest.approx(np.trace(matrix) / matrix.sum())


def test_independent_scores_of_class_folders_get_thresholds_too(exclusive, tmp_path, capsys):
    """Against a search with scikit-learn's F1 through the validation clips; the scores stay those of the top label."""
    flags = ["--loss", "binary_cross_entropy", "--num_train_epochs", "2"]
    assert main([exclusive, *flags]) == 0
    folder = tmp_path / "run"
    evaluation, config = summary_in(folder)["evaluation"], ASTConfig.from_pretrained(folder)
    assert config.label_thresholds == evaluation["thresholds"]
    assert "thresholds_not_chosen" not in evaluation
    argv = [exclusive, *flags, "--output_dir", str(tmp_path / "x")]
    clips = prepare_run(argv, parse_arguments(argv)).clips["validation"]
    extractor = ASTFeatureExtractor.from_pretrained(folder)
    scores, truth = predict_scores(ASTForAudioClassification.from_pretrained(folder), extractor, clips, 8)
    for label, threshold in enumerate(config.label_thresholds[name] for name in label_names(clips.split)):
        reached = f1_score(truth[:, label], scores[:, label] >= threshold)
        assert reached == max(f1_score(truth[:, label], scores[:, label] >= level) for level in scores[:, label])
    matrix = np.array(evaluation["confusion_matrix"])
    recall = [row["recall"] for row in evaluation["per_class"]]
    assert recall == pytest.approx(matrix.diagonal() / matrix.sum(axis=1)), "by the top label"
    card = (folder / "README.md").read_text()
    assert "precision, recall and F1 of each label and the macro F1 of the held-out clips are by the top label" in card
    assert "| Accuracy |" in card
    assert "Accuracy of the top label" not in card
    assert "chosen on the validation split for the best F1" in card


def test_what_accuracy_and_thresholds_leave_out_is_said(layout, multi_label, tmp_path, capsys):
    """Half of the scored clips and no validation clip but one with labels: in the output, the summary and the card."""
    for name, keep in (("eval", lambda number: number % 2), ("valid", lambda number: number == 0)):
        data = json.loads((layout / f"{name}.json").read_text())["data"]
        records = [record | {"labels": record["labels"] if keep(number) else ""} for number, record in enumerate(data)]
        (tmp_path / f"{name}.json").write_text(json.dumps({"data": records}))
    flags = ["--eval_file", str(tmp_path / "eval.json"), "--validation_file", str(tmp_path / "valid.json")]
    assert main([multi_label, *flags, "--num_train_epochs", "1"]) == 0
    evaluation = summary_in(tmp_path / "run")["evaluation"]
    without, clips = evaluation["clips_without_labels"], evaluation["clips"]
    assert without == (clips + 1) // 2
    first = set(json.loads((tmp_path / "valid.json").read_text())["data"][0]["labels"].split(","))
    undecided = [name for name in sorted(MIDS, key=MIDS.get) if MIDS[name] not in first]
    assert evaluation["thresholds_not_chosen"] == undecided
    assert all(evaluation["thresholds"][name] == 0.5 for name in undecided)
    printed, card = capsys.readouterr().out, (tmp_path / "run" / "README.md").read_text()
    assert f"{without} of {clips} clips have no label and no part in the accuracy" in printed
    assert f"thresholds of {', '.join(undecided)} stay at 0.5" in printed
    assert f"{without} of the clips have no label and no part in this accuracy." in card
    names = ", ".join(f"`{name}`" for name in undecided)
    assert f"No validation clip has, or all have, {names}: their thresholds stay at 0.5." in card


def test_the_loss_of_an_evaluation_is_that_of_the_labels_themselves(exclusive, tmp_path):
    flags = ["--label_smoothing_factor", "0.5", "--per_device_eval_batch_size", "3", "--num_train_epochs", "1"]
    assert main([exclusive, *flags]) == 0
    folder = tmp_path / "run"
    run = prepare_run([exclusive], parse_arguments([exclusive, "--output_dir", str(tmp_path / "x")]))
    extractor = ASTFeatureExtractor.from_pretrained(folder)
    model = ASTForAudioClassification.from_pretrained(folder)
    scores, truth = predict_scores(model, extractor, run.clips["eval"], 8)
    expected = torch.nn.functional.nll_loss(torch.from_numpy(scores).log(), torch.from_numpy(truth)).item()
    summary = summary_in(folder)
    assert summary["evaluation"]["metrics"]["loss"] == pytest.approx(expected, abs=1e-5)
    names = (summary["training"]["loss"], summary["evaluation"]["loss"])
    assert names == ("label_smoothed_cross_entropy", "cross_entropy")


def test_class_weights_weigh_the_training_loss_alone(exclusive, tmp_path):
    run = prepare_run([exclusive], parse_arguments([exclusive, "--class_weights", "balanced"]))
    counts = np.bincount(run.clips["train"].split["label"])
    assert run.trainer.loss.keywords["weights"].tolist() == pytest.approx((counts.sum() / (3 * counts)).tolist())


def test_several_labels_and_exclusive_classes_do_not_go_together(multi_label, capsys):
    assert main([multi_label, "--loss", "cross_entropy"]) == 2
    assert "clips have several labels each. Pass --loss binary_cross_entropy" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--normalization", "0.001", "0.08"], "are those of a waveform"),
        (["--early_stopping_patience", "2"], "Pass --validation_fraction 0.1"),
        (["--average_epochs", "2", "5"], "Pass epochs that are trained"),
        (["--average_epochs", "3"], "not a first and a last epoch"),
        (["--decay_after_epoch", "2", "--warmup_steps", "20"], "from warmup_stair=50 on"),
        (["--decay_after_epoch", "-1"], "is negative"),
        (["--decay_factor", "0.9"], "belongs to the original's schedule"),
        (["--decay_after_epoch", "2", "--lr_scheduler_type", "cosine"], "both say how the learning rate falls"),
        (["--optimizer", "adam", "--optim", "sgd"], "both name an optimiser"),
        (["--average_epochs", "1", "2", "--max_steps", "9"], "Pass --num_train_epochs instead"),
        (
            ["--ensemble_epochs", "1", "2", "--early_stopping_patience", "1", "--load_best_model_at_end", "true"]
            + ["--eval_strategy", "epoch"],
            "may end the training before the last of ensemble_epochs",
        ),
    ],
)
def test_what_does_not_fit_together_is_said_before_training(exclusive, tmp_path, capsys, flags, message):
    assert main([exclusive, *flags]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_labels_that_are_vectors_are_not_smoothed(exclusive, capsys):
    assert main([exclusive, "--loss", "binary_cross_entropy", "--label_smoothing_factor", "0.1"]) == 2
    assert "Trainer smooths exclusive labels only" in capsys.readouterr().err


def test_averaged_weights_are_scored_with_both_ways_of_padding(multi_label, tmp_path):
    assert main([multi_label, "--padding", "longest", "--average_epochs", "1", "2"]) == 0
    evaluation = summary_in(tmp_path / "run")["evaluation"]
    extractor = ASTFeatureExtractor.from_pretrained(tmp_path / "run")
    assert extractor.padding == "max_length"
    run = prepare_run([multi_label], parse_arguments([multi_label, "--output_dir", str(tmp_path / "x")]))
    model = ASTForAudioClassification.from_pretrained(tmp_path / "run")
    for padding, metrics in (
        ("max_length", evaluation["metrics"]),
        ("longest", evaluation["metrics_padding_longest"]),
    ):
        extractor.padding = padding
        scores, truth = predict_scores(model, extractor, run.clips["eval"], 8)
        expected = np.mean([average_precision_score(truth[:, label], scores[:, label]) for label in range(3)])
        assert metrics["mean_average_precision"] == pytest.approx(expected, abs=1e-6)


def test_a_resumed_run_is_as_patient_as_one_that_was_not_interrupted(exclusive, tmp_path, monkeypatch):
    flags = ["--eval_strategy", "epoch", "--load_best_model_at_end", "true", "--metric_for_best_model", "loss"]
    flags += ["--learning_rate", "0.05", "--num_train_epochs", "12", "--early_stopping_patience", "3"]
    flags += ["--save_total_limit", "20"]
    assert main([exclusive, *flags, "--output_dir", str(tmp_path / "whole")]) == 0
    whole = [row["epoch"] for row in summary_in(tmp_path / "whole")["history"]]
    save = ASTTrainer._save_checkpoint

    def save_and_stop(self, *args):
        save(self, *args)
        if self.state.epoch == whole[-1] - 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(ASTTrainer, "_save_checkpoint", save_and_stop)
    assert main([exclusive, *flags]) == 130  # as shells call it
    monkeypatch.undo()
    assert main([exclusive, *flags, "--resume_from_checkpoint", "true"]) == 0
    assert [row["epoch"] for row in summary_in(tmp_path / "run")["history"]] == whole


def test_more_frozen_layers_than_there_are_is_an_error(exclusive, capsys):
    assert main([exclusive, "--frozen_layers", "7"]) == 2
    assert "frozen_layers=7" in capsys.readouterr().err


def test_statistics_that_do_not_fit_the_clips_are_warned_of(exclusive, capsys):
    prepare_run([exclusive], parse_arguments([exclusive, "--normalization", "-4.27", "12"]))
    assert "do not fit these clips. Pass --normalization measured" in capsys.readouterr().out
    prepare_run([exclusive], parse_arguments([exclusive]))
    assert "do not fit" not in capsys.readouterr().out


def test_a_checkpoint_of_stock_transformers_starts_with_the_loss_it_has_there(tmp_path, exclusive, tiny_sizes, capsys):
    save_stock_checkpoint(tmp_path / "start", **(tiny_sizes | {"max_length": 1024}))
    assert "problem_type" not in json.loads((tmp_path / "start" / "config.json").read_text())
    difference = compare(tmp_path / "start", tmp_path / "clips", tmp_path, steps=2)
    output = capsys.readouterr().out
    assert difference < 1e-5
    assert "with a new classifier" in output
    assert "s a step" in output
    assert "GB at most" in output
    assert summary_in(tmp_path / "run")["training"]["learning_rate"] == 1e-5
    assert ASTConfig.from_pretrained(tmp_path / "run").max_length == 128


def test_the_validation_clips_are_a_part_of_what_a_resumed_run_must_have_in_common(exclusive, tmp_path, capsys):
    assert main([exclusive, "--num_train_epochs", "1"]) == 0
    assert main([exclusive, "--resume_from_checkpoint", "true", "--validation_fraction", "0.3"]) == 2
    assert "validation clips" in capsys.readouterr().err


def test_epochs_of_a_killed_run_are_not_removed_unasked(exclusive, tmp_path, capsys):
    (tmp_path / "run" / "epochs" / "epoch-1").mkdir(parents=True)
    assert main([exclusive]) == 2
    assert "already holds a run (epoch-1 is there)" in capsys.readouterr().err
    assert (tmp_path / "run" / "epochs" / "epoch-1").is_dir()


def test_the_summary_names_the_schedule_that_was_used(exclusive, tmp_path):
    def schedule(*flags):
        argv = [exclusive, "--output_dir", str(tmp_path / "x"), *flags]
        return prepare_run(argv, parse_arguments(argv)).summary["training"]["lr_scheduler_type"]

    assert schedule() == "linear"
    assert schedule("--lr_scheduler_type", "cosine") == "cosine"
    decay = ("--decay_after_epoch", "10", "--decay_every", "5", "--decay_factor", "0.5")
    assert schedule(*decay) == "constant, times 0.5 after epoch 10 and every 5 epoch(s) from there"


def test_a_balanced_draw_that_cannot_be_made_is_said_before_the_old_run_is_removed(
    exclusive, tmp_path, monkeypatch, capsys
):
    assert main([exclusive, "--num_train_epochs", "1"]) == 0
    monkeypatch.setattr("finetune.training.trainer.class_balanced_weights", lambda *_: np.zeros(1))
    assert main([exclusive, "--train_sampling_strategy", "class_balanced", "--overwrite_output_dir"]) == 2
    assert "ast-finetune: " in capsys.readouterr().err
    assert (tmp_path / "run" / "model.safetensors").is_file()

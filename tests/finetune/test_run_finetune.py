"""`ast-finetune` from the command line: what lands in the folder, and what is answered before training."""

import json
import os
from pathlib import Path

import forked_python
import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file
from tiny_trainings import SIZES, write_recipe, write_tones
from transformers import pipeline

from finetune import drums_demo
from finetune.arguments.groups import ModelArguments
from finetune.arguments.model_arguments import SIZE_FIELDS
from finetune.run_finetune import main
from finetune.runs.preparation import build_model
from modeling_ast import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification, register, unregister


def test_a_run_leaves_a_publishable_folder_that_stock_transformers_reads_alike(
    recipe, tmp_path, drum_rows, capsys, monkeypatch
):
    assert main([recipe]) == 0
    folder = tmp_path / "run"
    names = {path.name for path in folder.iterdir()}
    assert names == {
        "config.json", "model.safetensors", "preprocessor_config.json", "README.md", "run_summary.json", "recipe.yaml",
        "training_curve.png", "confusion_matrix.png", "spectrogram.png", "checkpoint-6",
    }  # fmt: skip
    modes = {path.stat().st_mode for path in folder.rglob("*") if path.suffix in (".safetensors", ".json")}
    assert len(modes) == 1, "who may read the settings may read the weights"
    summary = json.loads((folder / "run_summary.json").read_text())
    test_clips = summary["data"]["splits"]["test"]["clips"]
    last_line = capsys.readouterr().out.splitlines()[-1]
    assert (
        last_line
        == f"[6/6] {folder}: accuracy {summary['evaluation']['metrics']['accuracy']:.3f} on {test_clips} clips"
    )
    assert summary["evaluation"]["protocol"] == "scored once, after the last epoch"
    assert np.sum(summary["evaluation"]["confusion_matrix"]) == test_clips
    assert [row["epoch"] for row in summary["history"]] == [1, 2]
    assert summary["data"]["hub_id"] is None

    stored = ASTFeatureExtractor.from_pretrained(folder)
    assert (stored.mean, stored.std) == (summary["features"]["mean"], summary["features"]["std"])
    assert stored.padding == "max_length"

    paths = [row["path"] for row in drum_rows if row["split"] == "test"][:6:2]
    register()
    try:
        classifier = pipeline("audio-classification", model=str(folder))
        ours = [{one["label"]: one["score"] for one in classifier(path, top_k=None)} for path in paths]
    finally:
        unregister()
    monkeypatch.setattr(drums_demo, "subprocess", forked_python.StockSubprocess)
    for here, there in zip(ours, drums_demo.scores_of_stock_transformers(folder, paths), strict=True):
        assert here.keys() == there.keys()
        assert max(abs(here[label] - there[label]) for label in here) < 1e-5


def test_the_saved_recipe_gives_the_same_weights_again(recipe, tmp_path):
    assert main([recipe, "--seed", "3"]) == 0
    assert main([str(tmp_path / "run" / "recipe.yaml"), "--output_dir", str(tmp_path / "again")]) == 0
    first, second = (load_file(tmp_path / name / "model.safetensors") for name in ("run", "again"))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_folder_with_a_run_is_kept_unless_told_otherwise(recipe, ended, tmp_path, capsys):
    weights = (tmp_path / "run" / "model.safetensors").read_bytes()
    (tmp_path / "run" / "notes.txt").write_text("mine")

    assert main([recipe]) == 2
    assert "already holds a run" in (message := capsys.readouterr().err)
    assert "--overwrite_output_dir" in message
    assert "--resume_from_checkpoint" in message
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == weights

    assert main([recipe, "--resume_from_checkpoint", "true"]) == 0
    resumed = json.loads((tmp_path / "run" / "run_summary.json").read_text())
    assert [row["epoch"] for row in resumed["history"]] == [1, 2]
    assert "time" not in resumed
    assert resumed["command"] == "ast-finetune recipe.yaml"

    assert main([recipe, "--overwrite_output_dir", "--num_train_epochs", "1"]) == 0
    assert [path.name for path in (tmp_path / "run").glob("checkpoint-*")] == ["checkpoint-3"]
    assert (tmp_path / "run" / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--seed", "7"], "other seed"),
        (["--hidden_size", "64"], "other model sizes"),
        (["--ignore_labels", "bell"], "other labels, training clips"),
    ],
)
def test_a_resume_with_other_data_or_settings_is_refused(recipe, ended, capsys, flags, message):
    assert main([recipe, "--resume_from_checkpoint", "true", *flags]) == 2
    assert message in capsys.readouterr().err


def test_a_faulty_call_with_overwrite_removes_nothing(recipe, ended, tmp_path, few_drums, capsys):
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    assert main([recipe, "--overwrite_output_dir", "--label_column_name", "class"]) == 2
    moved = tmp_path / "run" / "clips.csv"
    moved.write_text(few_drums.read_text())
    assert main([recipe, "--overwrite_output_dir", "--dataset_name", str(moved)]) == 2
    assert "lies in the output folder" in capsys.readouterr().err
    assert all(path.read_bytes() == content for path, content in before.items())


def test_a_run_repeated_from_its_own_recipe_in_its_own_folder(recipe, tmp_path):
    flags = ["--num_train_epochs", "1", "--license", "[my] licence", "--hub_token", "hf_secret"]
    assert main([recipe, *flags]) == 0
    weights = load_file(tmp_path / "run" / "model.safetensors")
    assert main([str(tmp_path / "run" / "recipe.yaml"), "--overwrite_output_dir"]) == 0
    again = load_file(tmp_path / "run" / "model.safetensors")
    assert all(torch.equal(weights[name], again[name]) for name in weights)
    assert yaml.safe_load((tmp_path / "run" / "recipe.yaml").read_text())["license"] == "[my] licence"
    texts = [path.read_text() for path in (tmp_path / "run").iterdir() if path.suffix in (".yaml", ".json", ".md")]
    assert not any("hf_secret" in text for text in texts)


def test_resuming_into_another_folder_spares_what_it_holds(recipe, ended, tmp_path, capsys):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "README.md").write_text("mine")
    resume = ["--resume_from_checkpoint", str(tmp_path / "run" / "checkpoint-3"), "--output_dir"]
    assert main([recipe, *resume, str(tmp_path / "other")]) == 2
    assert "holds a README.md" in capsys.readouterr().err
    assert main([recipe, *resume, str(tmp_path / "new")]) == 0


def test_a_folder_that_holds_something_else_is_left_alone(recipe, tmp_path, capsys):
    (tmp_path / "run" / "checkpoint-notes").mkdir(parents=True)
    (tmp_path / "run" / "README.md").write_text("mine")
    assert main([recipe, "--overwrite_output_dir"]) == 2
    assert "holds a README.md that is not from a run of this kit" in capsys.readouterr().err
    (tmp_path / "run" / "README.md").unlink()
    os.utime(tmp_path / "run" / "checkpoint-notes", (0, 0))  # the oldest, if age decided what is removed
    assert main([recipe, "--overwrite_output_dir", "--num_train_epochs", "1"]) == 0
    assert (tmp_path / "run" / "checkpoint-notes").is_dir()


def test_a_training_that_diverged_says_so(recipe, capsys):
    assert main([recipe, "--learning_rate", "1e30", "--max_grad_norm", "0"]) == 1
    assert "Train with a lower --learning_rate (it is 1e+30) or --max_grad_norm 1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--resume_from_checkpoint", "true"], "There is nothing to resume from"),
        (["--label_column_name", "class"], "label_column_name='class' is not in the data set"),
        (["--dataset_name", "nowhere.csv"], "nowhere.csv is not there"),
        (["--audio_column_name", "wav"], "audio_column_name='wav' is not in the data set; it has 'path', 'label'"),
        (["--normalization", "checkpoint"], "without a checkpoint"),
        (["--mixup_probability", "2"], "share of the clips"),
        (["--num_attention_heads", "5"], "not a multiple of num_attention_heads=5"),
        (["--learning_rte", "1"], "Did you mean learning_rate"),
    ],
)
def test_wrong_input_is_answered_before_training_in_one_message(recipe, capsys, flags, message):
    assert main([recipe, *flags]) == 2
    output = capsys.readouterr()
    assert output.err.startswith("ast-finetune: ")
    assert message in output.err
    assert "training:" not in output.out


@pytest.mark.parametrize("workers", [0, 1])
def test_a_bad_file_met_in_training_stops_the_run_with_its_name(tmp_path, capsys, monkeypatch, workers):
    write_tones(tmp_path / "clips", "ab")
    victim = tmp_path / "clips" / "a" / "0.wav"
    # The look up front misses the file, as it may in a data set of more than 200 clips.
    monkeypatch.setattr(
        "finetune.runs.training_run.normalization_warning", lambda *_: victim.write_bytes(b"") and None
    )
    recipe = write_recipe(tmp_path, tmp_path / "clips", normalization=[0, 1], dataloader_num_workers=workers)
    assert main([recipe]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"ast-finetune: training stopped. {victim}")
    assert "Traceback" not in error


@pytest.mark.parametrize("same_labels", [True, False])
def test_a_checkpoint_keeps_its_classifier_only_for_the_same_labels(recipe, tmp_path, same_labels):
    labels = ["bell", "hat_closed", "kick"]
    names = dict(enumerate(labels if same_labels else labels[::-1]))
    config = ASTConfig(**SIZES | {"max_length": 96})
    config.id2label, config.label2id = names, {name: index for index, name in names.items()}
    ASTForAudioClassification(config).save_pretrained(tmp_path / "start")
    ASTFeatureExtractor(max_length=96, mean=-5.0, std=4.0).save_pretrained(tmp_path / "start")
    fields = yaml.safe_load(Path(recipe).read_text()) | {"learning_rate": 0.0, "normalization": "checkpoint"}
    fields = {name: value for name, value in fields.items() if name not in SIZE_FIELDS}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(fields | {"model_name_or_path": str(tmp_path / "start")}))
    assert main([str(tmp_path / "recipe.yaml"), "--num_train_epochs", "1"]) == 0
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("start", "run"))
    kept = {name for name in before if torch.equal(before[name], after[name])}
    new = set() if same_labels else {"classifier.dense.weight"}
    assert kept == before.keys() - new
    assert ASTFeatureExtractor.from_pretrained(tmp_path / "run").mean == -5.0
    assert "from the local checkpoint `./start`" in (tmp_path / "run" / "README.md").read_text()


def test_a_checkpoint_without_a_classifier_is_said_to_get_a_new_one(tiny_sizes, tmp_path):
    names = {0: "a", 1: "b"}
    whole = ASTForAudioClassification(ASTConfig(**tiny_sizes, id2label=names))
    whole.save_pretrained(tmp_path / "whole")
    whole.audio_spectrogram_transformer.save_pretrained(tmp_path / "bare")  # with the labels in its config.json
    for folder, classifier in (("whole", "its"), ("bare", "a new")):
        _, start = build_model(ModelArguments(model_name_or_path=str(tmp_path / folder)), list(names.values()))
        assert start == f"from {tmp_path / folder} with {classifier} classifier"


def test_a_checkpoint_is_trained_at_another_length(recipe, tmp_path, capsys):
    config = ASTConfig(**SIZES | {"max_length": 96})
    ASTForAudioClassification(config).save_pretrained(tmp_path / "start")
    ASTFeatureExtractor(max_length=96).save_pretrained(tmp_path / "start")
    fields = {
        name: value for name, value in yaml.safe_load(Path(recipe).read_text()).items() if name not in SIZE_FIELDS
    }
    fields |= {"learning_rate": 0.0, "model_name_or_path": str(tmp_path / "start"), "max_length": 64}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(fields))
    assert main([str(tmp_path / "recipe.yaml"), "--num_train_epochs", "1"]) == 0
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("start", "run"))
    positions = "audio_spectrogram_transformer.embeddings.position_embeddings"
    grids = [tensors[positions][0, 2:].unflatten(0, (8, -1)) for tensors in (before, after)]
    assert torch.equal(grids[1], grids[0][:, 1:5])  # the middle 4 of 6
    assert ASTFeatureExtractor.from_pretrained(tmp_path / "run").max_length == 64
    assert ASTForAudioClassification.from_pretrained(tmp_path / "run").config.max_length == 64


def test_training_with_longest_padding_is_scored_both_ways(recipe, tmp_path):
    assert main([recipe, "--padding", "longest"]) == 0
    evaluation = json.loads((tmp_path / "run" / "run_summary.json").read_text())["evaluation"]
    assert evaluation["metrics"]["loss"] != evaluation["metrics_padding_longest"]["loss"]
    assert ASTFeatureExtractor.from_pretrained(tmp_path / "run").padding == "max_length"

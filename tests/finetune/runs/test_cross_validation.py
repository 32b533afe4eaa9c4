"""Cross-validation: folds by a column, the epoch chosen on the mean curve, an interrupted one gone on with."""

import csv
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from safetensors.torch import load_file
from tiny_trainings import write_recipe

from finetune.run_finetune import main
from finetune.runs.cross_validation import markdown_table, summarize_folds
from finetune.training.trainer import ASTTrainer

IN_FOLDS = {
    "num_train_epochs": 3, "per_device_train_batch_size": 16, "fold_column_name": "kit", "eval_strategy": "epoch",
    "mixup_probability": 0.5,
}  # fmt: skip
KITS = ("BJA_Pacific", "SonicPi", "avl_Black_Pearl")
LABELS = ("hat_closed", "kick", "snare")


@pytest.fixture(scope="module")
def table(tmp_path_factory, drum_rows):
    """Clips of three kits with three labels, every kit with a fold of its own."""
    path = tmp_path_factory.mktemp("folds") / "clips.csv"
    rows = [row for row in drum_rows if row["source"] in KITS and row["label"] in LABELS]
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "kit"])
        writer.writerows([row["path"], row["label"], row["source"]] for row in rows[::3])
    return path


@pytest.fixture
def recipe(table, tmp_path):
    return write_recipe(tmp_path, table, output_dir=str(tmp_path / "folds"), **IN_FOLDS)


SHORT = ["--eval_strategy", "no", "--num_train_epochs", "1"]


@pytest.fixture(scope="module")
def one_epoch(table, tmp_path_factory) -> Path:
    """The folder of a cross-validation of an epoch without evaluations; to be copied, not to be changed."""
    place = tmp_path_factory.mktemp("ended")
    assert main([write_recipe(place, table, output_dir=str(place / "folds"), **IN_FOLDS), *SHORT]) == 0
    return place / "folds"


@pytest.fixture
def ended(one_epoch, tmp_path) -> Path:
    """A copy of it where `recipe` puts its own."""
    return Path(shutil.copytree(one_epoch, tmp_path / "folds"))


def results_in(folder) -> dict:
    return json.loads((folder / "cross_validation.json").read_text())


def without_seconds(results: dict) -> dict:
    return results | {"folds": [row | {"seconds": None} for row in results["folds"]]}


def test_every_fold_is_scored_by_a_model_that_never_heard_it_at_the_epoch_of_the_mean_curve(
    recipe, table, tmp_path, capsys
):
    assert main([recipe]) == 0
    results = results_in(tmp_path / "folds")
    with open(table, newline="") as file:
        kits = [row["kit"] for row in csv.DictReader(file)]
    curves = []
    for row in results["folds"]:
        summary = json.loads((tmp_path / "folds" / f"fold-{row['fold']}" / "run_summary.json").read_text())
        assert row["clips"] == summary["evaluation"]["clips"] == kits.count(row["fold"])
        assert summary["data"]["splits"]["train"]["clips"] == len(kits) - kits.count(row["fold"])
        curves.append([point["eval_accuracy"] for point in summary["history"]])
    mean_curve = np.mean(curves, axis=0)
    assert [value for _, value in results["mean_curve"]] == pytest.approx(mean_curve)
    chosen = int(mean_curve.argmax())
    assert results["epoch"] == chosen + 1
    scores = [curve[chosen] for curve in curves]
    assert [row["score"] for row in results["folds"]] == scores
    assert results["mean"] == pytest.approx(np.mean(scores))
    assert results["standard_deviation"] == pytest.approx(np.std(scores, ddof=1))
    assert (tmp_path / "folds" / "cross_validation.md").read_text() == markdown_table(results) + "\n"
    assert "fold SonicPi, 2 of 3" in capsys.readouterr().out


@pytest.mark.long  # two whole cross-validations
def test_an_interrupted_cross_validation_goes_on_to_the_same_result(recipe, tmp_path, capsys, monkeypatch):
    assert main([recipe, "--output_dir", str(tmp_path / "whole")]) == 0
    save, saves = ASTTrainer._save_checkpoint, []

    def save_and_stop(self, *args):
        save(self, *args)
        saves.append(self.state.global_step)
        if len(saves) == 5:  # after the second epoch of the second fold
            raise KeyboardInterrupt

    monkeypatch.setattr(ASTTrainer, "_save_checkpoint", save_and_stop)
    assert main([recipe]) == 130  # as shells call it
    monkeypatch.undo()
    first = tmp_path / "folds" / "fold-BJA_Pacific"
    finished = (first / "model.safetensors").stat().st_mtime_ns
    assert main([recipe]) == 2
    assert "already holds a run" in capsys.readouterr().err
    assert main([recipe, "--resume_from_checkpoint", "true", "--learning_rate", "1e-4"]) == 2
    assert "from a run with other recipe" in capsys.readouterr().err
    monkeypatch.setattr(ASTTrainer, "_save_checkpoint", lambda self, *args: (save(self, *args), saves.append("again")))
    assert main([recipe, "--resume_from_checkpoint", "true", "--dataloader_num_workers", "0"]) == 0
    assert saves.count("again") == 4  # the third epoch of the second fold, and the third fold
    assert "fold BJA_Pacific, 1 of 3: finished before" in capsys.readouterr().out
    assert (first / "model.safetensors").stat().st_mtime_ns == finished
    assert without_seconds(results_in(tmp_path / "folds")) == without_seconds(results_in(tmp_path / "whole"))
    for kit in KITS:
        ours, theirs = (load_file(tmp_path / run / f"fold-{kit}" / "model.safetensors") for run in ("folds", "whole"))
        assert all((ours[name] == theirs[name]).all() for name in theirs)


def test_it_goes_on_with_what_needs_less_memory_and_takes_the_same_updates(recipe, ended, capsys):
    short = [recipe, *SHORT]
    halved = ["--per_device_train_batch_size", "8", "--per_device_eval_batch_size", "4"]
    assert main([*short, *halved, "--resume_from_checkpoint", "true"]) == 2
    assert "from a run with other clips of an update;" in capsys.readouterr().err
    halved += ["--gradient_accumulation_steps", "2", "--activation_checkpointing", "true"]
    assert main([*short, *halved, "--resume_from_checkpoint", "true"]) == 0


def test_the_weights_of_a_fold_are_not_named_as_a_start_for_all_folds(recipe, tmp_path, capsys):
    diverging = ["--learning_rate", "1e30", "--max_grad_norm", "0", "--warmup_steps", "2", "--save_strategy", "steps"]
    assert main([recipe, *diverging, "--eval_strategy", "no", "--save_steps", "1"]) == 1
    message = capsys.readouterr().err
    assert "checkpoint is " in message
    assert "anew with --overwrite_output_dir." in message
    assert "--model_name_or_path" not in message


def test_without_evaluations_in_training_the_last_epoch_counts(one_epoch):
    results = results_in(one_epoch)
    assert results["epoch"] is None
    assert results["mean_curve"] == []
    for row in results["folds"]:
        summary = json.loads((one_epoch / f"fold-{row['fold']}" / "run_summary.json").read_text())
        assert row["score"] == summary["evaluation"]["metrics"]["accuracy"]


def test_overwriting_replaces_the_folds_and_spares_what_else_is_there(recipe, tmp_path, capsys):
    folder = tmp_path / "folds"
    (folder / "fold-old").mkdir(parents=True)
    (folder / "notes.txt").write_text("mine")
    assert main([recipe, "--num_train_epochs", "1"]) == 2
    assert "fold-old is there" in capsys.readouterr().err
    assert main([recipe, *SHORT, "--overwrite_output_dir"]) == 0
    assert sorted(path.name for path in folder.glob("fold-*")) == [f"fold-{kit}" for kit in KITS]
    assert (folder / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--fold_column_name", "speaker"], "fold_column_name='speaker' is not in the data set"),
        (["--resume_from_checkpoint", "true"], "There is nothing to resume from"),
        (["--resume_from_checkpoint", "runs/x/checkpoint-3"], "Pass --resume_from_checkpoint true"),
        (["--resume_from_checkpoint", "true", "--overwrite_output_dir"], "Pass only one of them"),
        (["--validation_fraction", "0.1"], "Leave out the validation split"),
        (["--load_best_model_at_end", "true"], "on the clips it is scored on"),
        (["--eval_strategy", "steps", "--eval_steps", "1"], "have whole epochs only in common"),
        (["--max_steps", "5"], "have whole epochs only in common"),
        (["--eval_fraction", "0.3"], "fold_column_name scores every fold"),
    ],
)
def test_wrong_input_is_answered_before_any_training(recipe, tmp_path, capsys, flags, message):
    assert main([recipe, *flags]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "folds").exists()


def test_a_cross_validation_whose_first_fold_is_refused_leaves_nothing(recipe, tmp_path, capsys):
    assert main([recipe, "--num_attention_heads", "3"]) == 2
    assert "num_attention_heads" in capsys.readouterr().err
    assert not (tmp_path / "folds").exists()


def test_a_cross_validation_whose_first_fold_is_refused_replaces_nothing(recipe, tmp_path, capsys):
    folder = tmp_path / "folds"
    for name in (f"fold-{KITS[0]}/run_summary.json", "fold-old/checkpoint-3/trainer_state.json", "run_identity.json"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"earlier {name}")
    (folder / "cross_validation.md").write_text("earlier")
    before = {path: path.is_file() and path.read_text() for path in folder.rglob("*")}
    assert main([recipe, "--overwrite_output_dir", "--num_attention_heads", "3"]) == 2
    assert {path: path.is_file() and path.read_text() for path in folder.rglob("*")} == before
    assert main([recipe, "--overwrite_output_dir", *SHORT]) == 0
    assert sorted(path.name for path in folder.glob("fold-*")) == [f"fold-{kit}" for kit in KITS]
    assert results_in(folder)["mean"] > 0
    assert "finished before" not in capsys.readouterr().out
    assert main([recipe, "--resume_from_checkpoint", "true", *SHORT]) == 0


def test_a_fold_goes_on_from_an_older_checkpoint_when_the_damaged_one_is_moved_away(
    recipe, tmp_path, capsys, monkeypatch
):
    save, fold = ASTTrainer._save_checkpoint, tmp_path / "folds" / f"fold-{KITS[0]}"
    flags = ["--save_total_limit", "9", "--eval_strategy", "no"]
    first_steps = []

    def save_and_stop(self, *args):
        save(self, *args)
        first_steps.append(self.state.global_step)
        if self.state.epoch == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(ASTTrainer, "_save_checkpoint", save_and_stop)
    assert main([recipe, *flags]) == 130
    assert "Type the same command with --resume_from_checkpoint true to go on." in capsys.readouterr().err
    assert main([recipe, *flags, "--overwrite_output_dir"]) == 130
    message = capsys.readouterr().err
    assert "with --resume_from_checkpoint true in place of --overwrite_output_dir to go on." in message
    del first_steps[:2]
    first, second = (fold / f"checkpoint-{step}" for step in first_steps)
    os.truncate(second / "optimizer.pt", 100)
    assert main([recipe, *flags, "--resume_from_checkpoint", "true"]) == 2
    message = capsys.readouterr().err
    assert f"{second} cannot be resumed from: its optimizer.pt is cut off or damaged (100 bytes)." in message
    assert f"Move {second} away, and the same command goes on from {first.name}." in message
    second.rename(tmp_path / "away")
    assert main([recipe, *flags, "--resume_from_checkpoint", "true"]) == 130
    assert first_steps == [step * int(first.name.split("-")[1]) for step in (1, 2, 2)]
    for path in (first, second):
        os.truncate(path / "optimizer.pt", 100)
    assert main([recipe, *flags, "--resume_from_checkpoint", "true"]) == 2
    assert f"Move {fold} away, and the same command trains this fold anew." in capsys.readouterr().err


def test_folds_that_would_share_a_folder_are_refused(recipe, table, tmp_path, capsys):
    with open(table, newline="") as file:
        rows = list(csv.DictReader(file))
    other = {KITS[0]: "kit 1", KITS[1]: "Kit/1", KITS[2]: "kit-2"}
    with open(tmp_path / "clips.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(row | {"kit": other[row["kit"]]} for row in rows)
    assert main([recipe, "--dataset_name", str(tmp_path / "clips.csv")]) == 2
    assert "The folds Kit/1, kit 1 would be written into one folder" in capsys.readouterr().err


def test_the_folder_of_a_run_and_of_a_cross_validation_are_not_mixed(recipe, one_epoch, tmp_path, capsys):
    folder = tmp_path / "folds"
    folder.mkdir()
    (folder / "run_summary.json").write_text("{}")
    assert main([recipe, "--overwrite_output_dir"]) == 2
    assert "is no cross-validation. Pass another --output_dir" in capsys.readouterr().err
    (folder / "run_summary.json").unlink()
    shutil.copytree(one_epoch, folder, dirs_exist_ok=True)
    single = yaml.safe_load(Path(recipe).read_text())
    del single["fold_column_name"]
    (tmp_path / "single.yaml").write_text(yaml.safe_dump(single))
    assert main([str(tmp_path / "single.yaml"), "--overwrite_output_dir"]) == 2
    assert "holds a cross-validation" in capsys.readouterr().err


def test_the_epoch_is_the_best_of_the_mean_curve_and_not_of_each_fold():
    def summary(*accuracies):
        history = [{"epoch": float(number), "eval_accuracy": value} for number, value in enumerate(accuracies, 1)]
        evaluation = {"clips": 10, "metrics": {"accuracy": accuracies[-1]}}
        return {"history": history, "training": {"padding": "longest"}, "evaluation": evaluation}

    results = summarize_folds(["a", "b"], [summary(0.9, 0.7, 0.2), summary(0.2, 0.7, 0.8)], "accuracy")
    assert results["epoch"] == 2
    assert [row["score"] for row in results["folds"]] == [0.7, 0.7]
    assert results["standard_deviation"] == 0
    assert "clips padded to the longest of a batch" in markdown_table(results)


def test_the_epoch_is_not_chosen_on_scored_clips_where_something_else_has_chosen():
    history = [{"epoch": 1.0, "eval_accuracy": 0.9}, {"epoch": 2.0, "eval_accuracy": 0.1}]
    summary = {
        "history": history,
        "training": {"padding": "longest"},
        "evaluation": {"clips": 10, "metrics": {"accuracy": 0.5}, "averaged_epochs": [1, 2]},
    }
    results = summarize_folds(["a", "b"], [summary, summary], "accuracy")
    assert results["epoch"] is None
    assert results["mean"] == 0.5

"""Recipes, flags over them, and what is refused."""

from pathlib import Path

import pytest
import torch
import yaml

from finetune.arguments.command_line import (
    NAMES_ELSEWHERE,
    fields_as_flags,
    known_fields,
    merged_recipe,
    parse_arguments,
)
from finetune.arguments.groups import FINE_TUNING, PRETRAINING, ASTTrainingArguments

RECIPES = sorted((Path(__file__).parents[3] / "finetune" / "recipes").glob("*.yaml"))


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(
        f"dataset_name: clips\noutput_dir: {tmp_path}/run\nlearning_rate: 3e-4\nnum_train_epochs: 7\n"
        "ignore_labels: [tom, 'hat open']\nnormalization: [-6.5, 5.5]\nlr_scheduler_kwargs: {min_lr: 1.0e-6}\n"
        "lr_scheduler_type: cosine_with_min_lr\n"
    )
    return str(path)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_shipped_recipes_parse_and_begin_with_their_command(path, tmp_path):
    command = PRETRAINING if path.stem == "pretrain_masked" else FINE_TUNING
    parse_arguments([str(path), "--output_dir", str(tmp_path)], command)
    assert path.read_text().splitlines()[0] == f"# {command.name} finetune/recipes/{path.name}"


def test_flags_override_the_recipe(recipe):
    arguments = parse_arguments([recipe, "--num_train_epochs", "3", "--ignore_labels", "bell"])
    data, training = arguments.data, arguments.training
    assert training.num_train_epochs == 3
    assert training.learning_rate == 3e-4  # YAML reads "3e-4" as a string
    assert data.ignore_labels == ["bell"]
    assert data.normalization_statistics() == (-6.5, 5.5)
    assert training.lr_scheduler_kwargs == {"min_lr": 1e-6}


def test_the_merged_recipe_runs_again_to_the_same_fields(recipe, tmp_path):
    argv = [recipe, "--max_time_mask", "12", "--overwrite_output_dir", "--report_to", "none", "--bf16", "false"]
    argv += ["--accelerator_config", '{"split_batches": false}', "--ignore_labels", "no", "off", "007", "True", "0.10"]
    first = parse_arguments(argv)
    (tmp_path / "again.yaml").write_text(yaml.safe_dump(merged_recipe(argv)))
    second = parse_arguments([str(tmp_path / "again.yaml")])
    assert first.given - second.given == {"overwrite_output_dir"}
    for group, again in zip(first.groups, second.groups, strict=True):
        differing = {name for name, value in vars(group).items() if value != vars(again)[name]}
        assert differing <= {"overwrite_output_dir", "distributed_state", "given"}


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--learning_rte", "1"], "Unknown field 'learning_rte' .* Did you mean learning_rate"),
        (["--epochs", "3"], r"Unknown field 'epochs' .* Did you mean num_train_epochs\?"),
        (["--dataset_name", "x"], "Pass --output_dir"),
        (["--output_dir", "x"], "Pass --dataset_name"),
        (["--output_dir", "x", "--dataset_name", "x", "--normalization", "measure"], "expected measured, checkpoint"),
        (["--output_dir", "x", "--dataset_name", "x", "--normalization", "1"], "expected measured, checkpoint"),
        (["--output_dir", "x", "--dataset_name", "x", "--eval_fraction", "2"], "not above 0 and up to 0.5"),
        (["--output_dir", "x", "--dataset_name", "x", "--normalization", "-4", "0"], "standard deviation 0"),
        (["--output_dir", "x", "--dataset_name", "x", "--time_stride", "0"], "time_stride=0 is less than 1"),
        (["--output_dir", "x", "--dataset_name", "x", "--label_separator", ""], "label_separator is empty.*in quotes"),
        (["--output_dir", "x", "--dataset_name", "x", "--load_best_model_at_end"], "Pass --eval_strategy epoch with"),
        (
            [
                "--output_dir",
                "x",
                "--dataset_name",
                "x",
                "--features_column_name",
                "f",
                "--noise_dir",
                "n",
                "--max_gain_db",
                "3",
            ]
            + ["--noise_probability", "0.5"],
            r"Pass --max_gain_db 0, and leave out --noise_dir and --noise_probability; masks",
        ),
        (["--output_dir", "x", "--dataset_name", "x", "--eval_split_name", "train"], "Pass two different splits"),
        (["--seed", "1", "recipe.yaml"], "Pass it first: ast-finetune recipe.yaml"),
        (
            [
                "--output_dir",
                "x",
                "--dataset_name",
                "x",
                "--mixup_probability",
                "1",
                "--label_smoothing_factor",
                "0.1",
            ],
            "Trainer smooths hard labels only",
        ),
        (
            ["--output_dir", "x", "--dataset_name", "x", "--train_sampling_strategy", "group_by_length"],
            "saves nothing.*--padding longest",
        ),
        (
            ["--output_dir", "x", "--dataset_name", "x", "--marks", "beside", "--max_quiet_seconds", "0.1"],
            "quiet would push what is marked out.*Leave out --max_quiet_seconds",
        ),
        (
            ["--output_dir", "x", "--dataset_name", "x", "--model_name_or_path", "m", "--hidden_size", "96"],
            "hidden_size describe a new model, but model_name_or_path='m'",
        ),
        (
            ["--output_dir", "x", "--dataset_name", "x", "--num_train_epochs", "three"],
            "--num_train_epochs: invalid float value: 'three'. See ast-finetune --help",
        ),
        (["--output_dir", "x", "--dataset_name", "x", "--padding"], "--padding: expected one argument"),
    ],
)
def test_wrong_fields_are_answered_in_words(argv, message):
    with pytest.raises(ValueError, match=message):
        parse_arguments(argv)


def test_values_in_python_or_yaml_may_be_tuples_or_begin_like_flags():
    fields = {
        "output_dir": "--x",
        "normalization": (-6, 5.5),
        "ignore_labels": ("hat_open",),
        "dataset_name": "runs/y.yaml",
    }
    fields |= {"group_file_pattern": "-x", "lr_scheduler_kwargs": {"power": 2}, "hidden_dropout_prob": -1e-07}
    argv = fields_as_flags(
        {"labels": ["a", "b"], **fields, "train_split_name": None, "lora_target_modules": ()}, "here"
    )
    parsed = parse_arguments(argv)
    data, model, training = parsed.data, parsed.model, parsed.training
    assert (training.output_dir, data.group_file_pattern, data.labels) == ("--x", "-x", ["a", "b"])
    assert (data.normalization_statistics(), data.ignore_labels) == ((-6, 5.5), ["hat_open"])
    assert (training.lr_scheduler_kwargs, model.hidden_dropout_prob) == ({"power": 2}, -1e-07)
    assert merged_recipe(argv)["group_file_pattern"] == "-x"


def test_what_the_user_gave_is_known_of_changed_arguments_too():
    data = parse_arguments(["--output_dir", "x", "--dataset_name", "y", "--eval_split_name", "test"]).data
    assert data.asked_splits(["train"])
    changed = data.with_changes(waveform_cache="cache")
    assert changed.waveform_cache == "cache"
    assert changed.asked_splits(["train"])


def test_a_list_may_be_empty(recipe):
    path = Path(recipe)
    path.write_text(path.read_text().replace("[tom, 'hat open']", "[]"))
    assert parse_arguments([recipe]).data.ignore_labels == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epochs: 3", "Unknown field 'epochs'"),
        ("labels: [--a, b, -x]", "labels holds '--a', '-x', .*begins with - is taken for a flag. Call it otherwise"),
        ("- a\n- b", "no 'field: value' lines"),
        ("a: [", "not valid YAML"),
    ],
)
def test_wrong_recipes_are_answered_in_words(tmp_path, text, message):
    (tmp_path / "recipe.yaml").write_text(text)
    with pytest.raises(ValueError, match=message):
        parse_arguments([str(tmp_path / "recipe.yaml")])


def test_a_missing_recipe_is_named():
    with pytest.raises(FileNotFoundError, match="nowhere.yaml is not there"):
        parse_arguments(["nowhere.yaml"])


def test_help_shows_this_kit_first_and_the_rest_on_request(capsys):
    texts = []
    for flag in ("--help", "--help_all"):
        with pytest.raises(SystemExit) as stop:
            parse_arguments([flag])
        assert stop.value.code == 0
        texts.append(capsys.readouterr().out)
    short, long = texts
    for flag in ("--dataset_name", "--mixup_probability", "--overwrite_output_dir", "--num_train_epochs"):
        assert flag in short
    assert "--ddp_bucket_cap_mb" not in short
    assert "--ddp_bucket_cap_mb" in long


def test_dashes_stand_for_underscores():
    parsed = parse_arguments(["--output-dir", "x", "--dataset-name", "y", "--num-train-epochs=2"])
    data, training = parsed.data, parsed.training
    assert (training.output_dir, data.dataset_name, training.num_train_epochs) == ("x", "y", 2)


@pytest.mark.parametrize("accelerator", [False, True])
def test_batches_are_copied_beside_the_computation_where_there_is_an_accelerator(accelerator, monkeypatch, tmp_path):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: accelerator)
    arguments = ASTTrainingArguments(output_dir=str(tmp_path))
    assert arguments.dataloader_pin_memory == arguments.accelerator_config.non_blocking == accelerator
    assert not arguments.logging_nan_inf_filter, "which would read every loss from the accelerator"


def test_what_was_asked_of_accelerate_is_obeyed_or_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    asked = ASTTrainingArguments(output_dir=str(tmp_path), accelerator_config={"non_blocking": False})
    assert not asked.accelerator_config.non_blocking
    with pytest.raises(ValueError, match="dispatch_batches, which cannot cut batches of waveforms"):
        ASTTrainingArguments(output_dir=str(tmp_path), accelerator_config={"dispatch_batches": True})


def test_names_of_other_trainers_lead_to_fields_that_are_there():
    assert set(NAMES_ELSEWHERE.values()) <= known_fields()
    assert not set(NAMES_ELSEWHERE) & known_fields()

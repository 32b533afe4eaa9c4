"""LoRA trainings from the command line: what learns, what is saved, what it is worth in PEFT and in stock Transformers."""

import contextlib
import functools
import io
import json
import re
import shutil
import sys
import warnings

import pytest
import torch
from safetensors.torch import load_file
from transformers.models.audio_spectrogram_transformer import modeling_audio_spectrogram_transformer as stock

from finetune.arguments.command_line import parse_arguments
from finetune.run_finetune import main
from finetune.runs.training_run import prepare_run
from finetune.training.lora import merge_into_trainer
from modeling_ast import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification
from modeling_ast.adapters import convert_adapter_for_stock
from modeling_ast.system.installation import install_command
from tests.finetune.runs.test_processes import launch_two

peft = pytest.importorskip("peft")

# What PEFT says when it looked for the base model on the Hub, which nobody asked for.
pytestmark = pytest.mark.filterwarnings("error:Could not find a config file")

LABELS = ["bell", "hat_closed", "kick"]
SETTINGS = {
    "num_train_epochs": 2, "per_device_train_batch_size": 4, "learning_rate": 0.02, "disable_tqdm": "true",
    "use_cpu": "true", "normalization": "checkpoint", "lora_rank": 4,
}  # fmt: skip
STEPS_PER_EPOCH = 6  # of 24 clips
LAYER = "audio_spectrogram_transformer.encoder.layer"
TARGETS = [f"{LAYER}.{layer}.attention.attention.{name}" for layer in (0, 1) for name in ("query", "value")]
ROUNDING = 1e-5  # of float32, in logits and weights around 1


@pytest.fixture(scope="module")
def start(tmp_path_factory, few_drums):
    """A checkpoint of 0.96 s with other labels than the drums', whose table lies beside it."""
    folder = tmp_path_factory.mktemp("secret_place") / "start"
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    config = ASTConfig(
        **sizes, frequency_stride=16, time_stride=16, max_length=96, num_labels=4, initializer_range=0.2
    )
    ASTForAudioClassification(config).save_pretrained(folder)
    ASTFeatureExtractor(max_length=96, mean=-7.2, std=5.4).save_pretrained(folder)
    (folder.parent / "clips.csv").write_text(few_drums.read_text())
    return folder


def flags(start, output_dir, **changes) -> list[str]:
    fields = SETTINGS | {"dataset_name": start.parent / "clips.csv"}
    fields |= {"model_name_or_path": start, "output_dir": output_dir} | changes
    words = {name: value if isinstance(value, list) else [value] for name, value in fields.items()}
    return [str(word) for name, values in words.items() for word in (f"--{name}", *values)]


def train(start, output_dir, **changes) -> dict:
    assert main(flags(start, output_dir, **changes)) == 0
    return json.loads((output_dir / "run_summary.json").read_text())


def adapter_weights(folder) -> dict:
    prefix = "base_model.model."
    return {
        name.removeprefix(prefix): tensor for name, tensor in load_file(folder / "adapter_model.safetensors").items()
    }


def merged_by_hand(start, adapter: dict, scale: float = 2.0) -> dict:
    """Weights of a checkpoint plus scale * B @ A, and whole modules in place of its own."""
    weights = load_file(start / "model.safetensors")
    for target in TARGETS:
        a, b = (adapter[f"{target}.lora_{matrix}.weight"] for matrix in "AB")
        weights[f"{target}.weight"] = weights[f"{target}.weight"] + scale * b @ a
    return weights | {name: tensor for name, tensor in adapter.items() if "lora_" not in name}


def assert_same_weights(found: dict, expected: dict, tolerance: float = ROUNDING):
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, atol=tolerance, rtol=tolerance, msg=name)


@pytest.fixture(scope="module")
def run_of_length(start, tmp_path_factory):
    """Trains at a length once; returns the folder, the summary, the length and what was printed."""

    @functools.cache
    def train_once(max_length: int):
        folder, printed = tmp_path_factory.mktemp("finished") / "run", io.StringIO()
        with contextlib.redirect_stdout(printed):
            summary = train(start, folder, max_length=max_length)
        return folder, summary, max_length, printed.getvalue()

    return train_once


@pytest.fixture(params=[96, 64], ids=["same_length", "other_length"])
def finished(request, run_of_length):
    return run_of_length(request.param)


def logits(model, max_length: int) -> torch.Tensor:
    with torch.inference_mode():
        return model.eval()(torch.randn(2, max_length, 128, generator=torch.Generator().manual_seed(0))).logits


def test_a_run_learns_and_leaves_an_ordinary_checkpoint_with_the_adapter_added(finished, start):
    folder, summary, max_length, _ = finished
    first, last = (row["loss"] for row in summary["history"])
    assert last < 0.9 * first
    merged = load_file(folder / "model.safetensors")
    assert_same_weights(merged, merged_by_hand(start, adapter_weights(folder / "adapter")))
    before = load_file(start / "model.safetensors")
    changed = {name for name in before if not torch.equal(before[name], merged[name])}
    full = ["classifier."] if max_length == 96 else ["classifier.", "audio_spectrogram_transformer.embeddings."]
    assert changed == {f"{name}.weight" for name in TARGETS} | {
        name for name in before if name.startswith(tuple(full))
    }


def test_merged_and_adapted_models_give_the_same_logits_here_and_in_stock_transformers(finished, start, tmp_path):
    folder, _, max_length, _ = finished
    expected = logits(ASTForAudioClassification.from_pretrained(folder), max_length)
    theirs, info = stock.ASTForAudioClassification.from_pretrained(folder, output_loading_info=True)
    assert not any(info.values()), info
    assert (logits(theirs, max_length) - expected).abs().max() < ROUNDING

    base = ASTForAudioClassification.from_pretrained(start, num_labels=3, max_length=max_length)
    assert not torch.allclose(logits(base, max_length), expected, atol=0.1)
    adapted = peft.PeftModel.from_pretrained(base, folder / "adapter")
    assert (logits(adapted, max_length) - expected).abs().max() < ROUNDING

    convert_adapter_for_stock(folder / "adapter", tmp_path / "stock")
    base = stock.ASTForAudioClassification.from_pretrained(
        start, num_labels=3, max_length=max_length, ignore_mismatched_sizes=True
    )
    adapted = peft.PeftModel.from_pretrained(base, tmp_path / "stock")
    assert (logits(adapted, max_length) - expected).abs().max() < ROUNDING


def test_the_note_beside_the_adapter_says_how_to_load_it(finished, start, monkeypatch):
    folder, _, max_length, _ = finished
    note = (folder / "adapter" / "README.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", note, flags=re.DOTALL)
    found = {}
    monkeypatch.chdir(folder)
    exec(code.replace('"./start"', repr(str(start))), found)
    assert found["labels"] == LABELS
    expected = logits(ASTForAudioClassification.from_pretrained(folder), max_length)
    assert (logits(found["model"], max_length) - expected).abs().max() < ROUNDING


def test_stage_summary_and_card_say_what_was_trained_and_no_file_of_the_adapter_names_a_place(finished, start):
    folder, summary, max_length, printed = finished
    lora = summary["training"]["lora"]
    learned = sum(tensor.numel() for tensor in adapter_weights(folder / "adapter").values())
    assert lora == {
        "rank": 4, "alpha": 8, "dropout": 0, "target_modules": ["query", "value"],
        "trained_in_full": ["classifier"] if max_length == 96 else ["classifier", "embeddings"],
        "trainable_parameters": learned,
    }  # fmt: skip
    saved = sum(tensor.numel() for tensor in load_file(folder / "model.safetensors").values())
    (line,) = [line for line in printed.splitlines() if line.startswith("[3/6]")]
    in_full = " and ".join(lora["trained_in_full"])
    share = f"{learned:,} trainable parameters, {learned / saved:.2%} of {saved:,}"
    assert f"LoRA of rank 4 on query, value, {in_full} in full: {share}; " in line
    assert summary["model"]["parameters"] == saved
    assert summary["environment"]["peft"] == peft.__version__
    card = (folder / "README.md").read_text()
    assert "LoRA adapters of rank 4 (alpha 8) on `query`, `value` and in full the classifier" in card
    assert f"{learned:,} trainable parameters beside the {saved:,} of the model" in card
    assert "`adapter/` holds them by themselves" in card
    config = json.loads((folder / "adapter" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "./start"
    (checkpoint,) = folder.glob("checkpoint-*")
    for path in (*(folder / "adapter").iterdir(), checkpoint / "adapter_config.json"):
        assert "secret_place" not in path.read_bytes().decode(errors="replace"), path
    assert not (checkpoint / "README.md").exists(), "PEFT's card, in which nothing is filled in"


def test_a_resumed_run_ends_bit_equal_from_a_small_checkpoint(start, tmp_path):
    settings = {
        "lora_dropout": 0.3, "mixup_probability": 0.5, "max_time_mask": 24, "noise_strength": 0.1, "save_strategy": "steps",
        "save_steps": 5, "save_total_limit": 9, "gradient_accumulation_steps": 2, "per_device_train_batch_size": 2,
    }  # fmt: skip
    train(start, tmp_path / "whole", **settings)
    middle = "checkpoint-10"
    assert STEPS_PER_EPOCH < 10 < 2 * STEPS_PER_EPOCH
    assert not list((tmp_path / "whole" / middle).glob("model*"))
    shutil.copytree(tmp_path / "whole" / middle, tmp_path / "resumed" / middle)
    train(start, tmp_path / "resumed", resume_from_checkpoint="true", **settings)
    for file in ("model.safetensors", "adapter/adapter_model.safetensors", "checkpoint-12/adapter_model.safetensors"):
        whole, resumed = (load_file(tmp_path / run / file) for run in ("whole", "resumed"))
        assert all(torch.equal(whole[name], resumed[name]) for name in whole), file
    whole, resumed = (
        torch.load(tmp_path / run / "checkpoint-12" / "optimizer.pt", weights_only=True)["state"]
        for run in ("whole", "resumed")
    )
    assert whole.keys() == resumed.keys()
    for parameter, state in whole.items():
        assert all(torch.equal(value, resumed[parameter][name]) for name, value in state.items())


def test_a_finished_run_is_resumed_with_its_own_weights_only_and_replaced_with_its_adapter(start, tmp_path, capsys):
    train(start, tmp_path / "run", num_train_epochs=1)
    first = adapter_weights(tmp_path / "run" / "adapter")
    shutil.copytree(start, tmp_path / "start")
    model = ASTForAudioClassification.from_pretrained(start)
    with torch.no_grad():
        model.audio_spectrogram_transformer.layernorm.bias[0] += 1
    model.save_pretrained(tmp_path / "start")
    settings = {
        "resume_from_checkpoint": "true",
        "normalization": [-7.2, 5.4],
        "dataset_name": start.parent / "clips.csv",
    }
    assert main(flags(tmp_path / "start", tmp_path / "run", **settings)) == 2
    assert "other features, starting weights" in capsys.readouterr().err
    assert main(flags(start, tmp_path / "run", resume_from_checkpoint="true", lora_rank=0)) == 2
    assert "is from a run with other training settings" in capsys.readouterr().err

    train(start, tmp_path / "run", resume_from_checkpoint="true")
    longer = adapter_weights(tmp_path / "run" / "adapter")
    assert any(not torch.equal(first[name], longer[name]) for name in first)
    assert main([*flags(start, tmp_path / "run", num_train_epochs=1, lora_rank=0), "--overwrite_output_dir"]) == 0
    assert not (tmp_path / "run" / "adapter").exists()
    card = (tmp_path / "run" / "README.md").read_text()
    assert "LoRA" not in card
    assert "lora rank" not in card


def test_the_frozen_weights_stay_bit_for_bit_and_a_batch_is_not_counted_by_labels(start, tmp_path):
    argv = flags(start, tmp_path / "run", num_train_epochs=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        trainer = prepare_run(argv, parse_arguments(argv)).trainer
    assert not trainer.model_accepts_loss_kwargs
    assert trainer.label_names == ["labels"]
    before = load_file(start / "model.safetensors")
    trainer.train()
    after = trainer.model.get_base_model().state_dict()
    for name, tensor in before.items():
        if name.startswith("classifier."):
            continue
        inner = ".base_layer.".join(name.rsplit(".", 1)) if name.rsplit(".", 1)[0] in TARGETS else name
        assert torch.equal(after[inner], tensor), name


def test_averaged_and_kept_epochs_are_whole_checkpoints_and_their_mean_is_that_of_the_products(
    start, tmp_path, run_of_length
):
    summary = train(start, tmp_path / "run", average_epochs=[1, 2], ensemble_epochs=[1, 2], save_total_limit=2)
    folders = [tmp_path / "run" / "epochs" / f"epoch-{number}" for number in (1, 2)]
    epochs = [load_file(folder / "model.safetensors") for folder in folders]
    for step, epoch in zip((6, 12), epochs, strict=True):
        adapter = adapter_weights(tmp_path / "run" / f"checkpoint-{step}")
        assert_same_weights(epoch, merged_by_hand(start, adapter))
    mean = {name: (epochs[0][name].double() + epochs[1][name]).div(2).float() for name in epochs[0]}
    assert_same_weights(load_file(tmp_path / "run" / "model.safetensors"), mean, tolerance=0)
    assert stock.ASTForAudioClassification.from_pretrained(folders[0]).config.id2label == dict(enumerate(LABELS))
    assert not (tmp_path / "run" / "adapter").exists()
    assert "`adapter/`" not in (tmp_path / "run" / "README.md").read_text()
    assert summary["evaluation"]["ensemble"]["epochs"] == [1, 2]
    _, plain, _, _ = run_of_length(96)
    assert summary["evaluation"]["last_epoch"]["metrics"] == pytest.approx(plain["evaluation"]["metrics"])


def test_the_best_checkpoint_is_the_one_that_is_merged_and_kept(start, tmp_path):
    choice = {"eval_strategy": "epoch", "load_best_model_at_end": "true", "metric_for_best_model": "loss"}
    # Of losses that fall the highest is the first, and the training stops as soon as the next one is lower.
    choice |= {"greater_is_better": "true", "early_stopping_patience": 1, "validation_fraction": 0.2}
    summary = train(start, tmp_path / "run", num_train_epochs=5, **choice)
    assert [row["epoch"] for row in summary["history"]] == [1, 2]
    best, kept = (adapter_weights(tmp_path / "run" / name) for name in ("checkpoint-5", "adapter"))
    assert all(torch.equal(best[name], kept[name]) for name in best)
    assert_same_weights(load_file(tmp_path / "run" / "model.safetensors"), merged_by_hand(start, best))


def test_rates_by_layer_frozen_layers_and_a_classifier_that_learns_first_hold_for_adapters(start, tmp_path):
    settings = {"frozen_layers": 1, "layer_decay": 0.5, "head_learning_rate_factor": 10, "head_only_epochs": 1}
    settings |= {"class_weights": "balanced", "save_total_limit": 2, "weight_decay": 0.01}
    summary = train(start, tmp_path / "run", **settings)
    first, second = (adapter_weights(tmp_path / "run" / f"checkpoint-{step}") for step in (6, 12))
    learned = {name for name in first if "lora_B" in name and first[name].any()}
    assert not learned, "they start as zeros"
    assert {name for name in second if "lora_B" in name and second[name].any()} == {
        f"{name}.lora_B.weight" for name in TARGETS[2:]
    }
    assert not torch.equal(first["classifier.dense.weight"], second["classifier.dense.weight"])
    assert summary["training"]["lora"]["trainable_parameters"] == sum(
        tensor.numel() for name, tensor in second.items() if ".layer.0." not in name
    )
    groups = torch.load(tmp_path / "run" / "checkpoint-6" / "optimizer.pt", weights_only=True)["param_groups"]
    assert {group["learning_rate_factor"] for group in groups} == {0.5, 10}


COMMON = {"optim": "sgd", "learning_rate": 0.5, "num_train_epochs": 1}


@pytest.fixture(scope="module")
def computed_plainly(start, tmp_path_factory):
    """The weights after an epoch of SGD, whose steps are as large as the gradients."""
    folder = tmp_path_factory.mktemp("plain") / "run"
    train(start, folder, **COMMON)
    return load_file(folder / "model.safetensors")


@pytest.mark.parametrize(
    "changes",
    [
        {"gradient_accumulation_steps": 4, "per_device_train_batch_size": 1},
        {"activation_checkpointing": "true"},
        pytest.param({"torch_compile": "true", "torch_compile_backend": "eager"}, marks=pytest.mark.long),
    ],
    ids=["accumulation", "checkpointing", "compile"],
)
def test_ways_of_computing_that_change_no_result_change_none_with_adapters(start, tmp_path, computed_plainly, changes):
    train(start, tmp_path / "other", **COMMON, **changes)
    other = load_file(tmp_path / "other" / "model.safetensors")
    assert_same_weights(other, computed_plainly, tolerance=1e-4)  # 6 steps of SGD with another order of sums
    moved = adapter_weights(tmp_path / "other" / "adapter")
    assert all(moved[f"{target}.lora_B.weight"].any() for target in TARGETS)


def test_every_layer_can_be_a_target_at_another_scale(start, tmp_path):
    targets = ["query", "key", "value", "output.dense", "intermediate.dense"]
    train(start, tmp_path / "run", num_train_epochs=1, lora_alpha=2, lora_target_modules=targets)
    adapter = adapter_weights(tmp_path / "run" / "adapter")
    name = f"{LAYER}.0.output.dense"
    before, after = (load_file(folder / "model.safetensors")[f"{name}.weight"] for folder in (start, tmp_path / "run"))
    product = adapter[f"{name}.lora_B.weight"] @ adapter[f"{name}.lora_A.weight"]
    torch.testing.assert_close(after - before, 2 / 4 * product, atol=ROUNDING, rtol=0)
    assert sum("lora_A" in name for name in adapter) == 2 * 6


def test_the_merged_model_is_scored_in_the_precision_of_the_training(start, tmp_path):
    argv = flags(start, tmp_path / "run", num_train_epochs=1, bf16="true")
    trainer = prepare_run(argv, parse_arguments(argv)).trainer
    trainer.train()
    assert merge_into_trainer(trainer) is not trainer.model
    assert type(trainer.model) is ASTForAudioClassification
    seen = []
    query = trainer.model.get_submodule(TARGETS[0])
    query.register_forward_hook(lambda _, inputs, output: seen.append(output.dtype))
    trainer.predict(trainer.eval_dataset)
    assert set(seen) == {torch.bfloat16}
    assert query.weight.dtype == torch.float32


def test_weights_that_lie_in_several_processes_get_no_adapters(start, tmp_path):
    argv = flags(start, tmp_path / "run")
    trainer = prepare_run(argv, parse_arguments(argv)).trainer
    trainer.is_fsdp_enabled = True  # as Trainer finds it where Accelerate says so
    with pytest.raises(ValueError, match=r"adapters are merged from a whole model.*Leave out --fsdp"):
        trainer._freeze()


@pytest.mark.long
def test_cross_validation_leaves_a_merged_checkpoint_and_an_adapter_of_every_fold(start, tmp_path, drum_rows):
    rows = [row for row in drum_rows if row["label"] in ("kick", "snare")][::8]
    lines = ["path,label,half", *(f"{row['path']},{row['label']},{number % 2}" for number, row in enumerate(rows))]
    (tmp_path / "clips.csv").write_text("\n".join(lines))
    changes = {"dataset_name": tmp_path / "clips.csv", "fold_column_name": "half"}
    argv = flags(start, tmp_path / "folds", num_train_epochs=1, **changes)
    assert main(argv) == 0
    for fold in ("fold-0", "fold-1"):
        folder = tmp_path / "folds" / fold
        assert_same_weights(
            load_file(folder / "model.safetensors"), merged_by_hand(start, adapter_weights(folder / "adapter"))
        )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lora_rank": -1}, "lora_rank=-1 is negative. Pass for example 8"),
        ({"lora_alpha": 0}, "lora_alpha=0.0 is not above 0. Pass for example twice the rank"),
        ({"lora_dropout": 1}, "lora_dropout=1.0 is not from 0 to below 1. Pass"),
        ({"lora_rank": 0, "lora_alpha": 8}, "lora_alpha belongs to LoRA adapters. Pass --lora_rank 8 too"),
        ({"lora_rank": 0, "lora_dropout": 0.1}, "lora_dropout belongs to LoRA adapters. Pass --lora_rank 8 too"),
        ({"lora_rank": 0, "lora_target_modules": "key"}, "lora_target_modules belongs to LoRA adapters. Pass --lora"),
        ({"lora_target_modules": "q_proj"}, "has 'q_proj', which is no linear layer of the model. Pass ends of layer"),
        (
            {"lora_target_modules": "dense"},
            "has 'dense', which is also the end of classifier.dense, which learns in full",
        ),
        ({"frozen_layers": 2}, "frozen_layers=2 freezes all 2. Leave out one of the two: --frozen_layers alone"),
        (
            {"activation_checkpointing": "true", "activation_checkpointing_kwargs": '{"use_reentrant": true}'},
            """Pass --activation_checkpointing_kwargs '{"use_reentrant": false}', or freeze nothing (lora_rank does, too)""",
        ),
    ],
)
def test_what_adapters_cannot_do_is_answered_before_training(start, tmp_path, capsys, changes, message):
    assert main(flags(start, tmp_path / "run", **changes)) == 2
    output = capsys.readouterr()
    assert message in output.err
    assert "training:" not in output.out


def test_random_weights_get_no_adapters(start, tmp_path, capsys):
    argv = flags(start, tmp_path / "run")
    where = argv.index("--model_name_or_path")
    assert main(argv[:where] + argv[where + 2 :]) == 2
    error = capsys.readouterr().err
    assert "lora_rank=4 adapts the weights of a checkpoint, and none was given" in error
    assert "Pass --model_name_or_path, or leave out --lora_rank" in error


def test_without_peft_the_error_says_how_to_install_it(start, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    assert main(flags(start, tmp_path / "run")) == 2
    output = capsys.readouterr()
    assert "lora_rank needs the package peft" in output.err
    assert f"Type {install_command('peft')}, or leave out" in output.err
    assert "[1/6]" not in output.out


@pytest.mark.long
def test_two_processes_train_one_adapter_and_resume_it_in_mid_epoch(start, tmp_path):
    settings = {"save_strategy": "steps", "save_steps": 2, "save_total_limit": 20, "average_epochs": [1, 2]}
    for name in ("averaged", "whole", "resumed"):
        if name == "whole":
            del settings["average_epochs"]
        if name == "resumed":
            shutil.copytree(tmp_path / "whole" / "checkpoint-4", tmp_path / "resumed" / "checkpoint-4")
            settings["resume_from_checkpoint"] = "true"
        launch_two("finetune.run_finetune", *flags(start, tmp_path / name, **settings))
    summary = json.loads((tmp_path / "whole" / "run_summary.json").read_text())
    assert summary["environment"]["processes"] == 2
    whole, resumed = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "resumed"))
    assert_same_weights(whole, merged_by_hand(start, adapter_weights(tmp_path / "whole" / "adapter")))
    assert_same_weights(resumed, whole, tolerance=0)
    assert load_file(tmp_path / "averaged" / "model.safetensors").keys() == whole.keys()

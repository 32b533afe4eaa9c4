"""`ast-convert --imagenet_start`: DeiT in both layouts and all four sizes; its numbers are in test_reference_models."""

import json
import os
import re
from pathlib import Path

import forked_python
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import DeiTConfig, DeiTForImageClassificationWithTeacher, DeiTModel, ViTConfig, ViTModel

from benchmarks.conversion_agreement import DEIT_TABLES, original_weights
from modeling_ast import ASTForAudioClassification

HEADS = ("head.weight", "head.bias", "head_dist.weight", "head_dist.bias")


@pytest.fixture(scope="module")
def timm_weights() -> dict[str, torch.Tensor]:
    return original_weights(DEIT_TABLES["tiny224"], seed=7)


def stock_names(timm: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """timm's DeiT by the names of Transformers 5 in memory, written out by hand."""
    named = {
        "deit.embeddings.cls_token": timm["cls_token"],
        "deit.embeddings.distillation_token": timm["dist_token"],
        "deit.embeddings.position_embeddings": timm["pos_embed"],
        "deit.embeddings.patch_embeddings.projection.weight": timm["patch_embed.proj.weight"],
        "deit.embeddings.patch_embeddings.projection.bias": timm["patch_embed.proj.bias"],
        "deit.layernorm.weight": timm["norm.weight"],
        "deit.layernorm.bias": timm["norm.bias"],
        "cls_classifier.weight": timm["head.weight"],
        "cls_classifier.bias": timm["head.bias"],
        "distillation_classifier.weight": timm["head_dist.weight"],
        "distillation_classifier.bias": timm["head_dist.bias"],
    }
    for layer in range(12):
        theirs, ours = f"blocks.{layer}.", f"deit.layers.{layer}."
        for kind in ("weight", "bias"):
            thirds = timm[f"{theirs}attn.qkv.{kind}"].chunk(3)
            for name, third in zip(("q_proj", "k_proj", "v_proj"), thirds, strict=True):
                named[f"{ours}attention.{name}.{kind}"] = third
            named[f"{ours}attention.o_proj.{kind}"] = timm[f"{theirs}attn.proj.{kind}"]
            named[f"{ours}layernorm_before.{kind}"] = timm[f"{theirs}norm1.{kind}"]
            named[f"{ours}layernorm_after.{kind}"] = timm[f"{theirs}norm2.{kind}"]
            named[f"{ours}mlp.fc1.{kind}"] = timm[f"{theirs}mlp.fc1.{kind}"]
            named[f"{ours}mlp.fc2.{kind}"] = timm[f"{theirs}mlp.fc2.{kind}"]
    return named


@pytest.fixture(scope="module")
def stock_deit(timm_weights):
    config = DeiTConfig(hidden_size=192, num_attention_heads=3, intermediate_size=768, num_labels=1000)
    model = DeiTForImageClassificationWithTeacher(config)
    model.load_state_dict(stock_names(timm_weights))
    return model


def bare_deit(model, folder):
    DeiTModel.save_pretrained(model.deit, folder)


LAYOUTS = {
    "transformers": lambda model, folder: model.save_pretrained(folder),
    "transformers, bare": bare_deit,
    "transformers, names in memory": lambda model, folder: model.save_pretrained(folder, save_original_format=False),
}


def start(convert, source, folder: Path, *flags) -> dict[str, torch.Tensor]:
    code, out, err = convert("--imagenet_start", source, folder, "--max_length", 128, "--num_labels", 35, *flags)
    assert (code, err) == (0, "")
    assert "verified: largest difference of the logits" in out
    return load_file(folder / "model.safetensors")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_both_layouts_give_the_same_checkpoint(timm_weights, stock_deit, convert, tmp_path, layout):
    torch.save({"model": timm_weights}, tmp_path / "deit.pth")  # as DeiT's release wraps it
    LAYOUTS[layout](stock_deit, tmp_path / "deit")
    from_timm = start(convert, tmp_path / "deit.pth", tmp_path / "a")
    from_stock = start(convert, tmp_path / "deit", tmp_path / "b")
    assert from_timm.keys() == from_stock.keys()
    assert all(torch.equal(from_timm[name], from_stock[name]) for name in from_timm)


def test_timm_s_safetensors_are_read_too(timm_weights, convert, tmp_path):
    save_file(timm_weights, tmp_path / "model.safetensors")
    torch.save(timm_weights, tmp_path / "deit.pth")
    a = start(convert, tmp_path / "model.safetensors", tmp_path / "a")
    b = start(convert, tmp_path / "deit.pth", tmp_path / "b")
    assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize(
    ("size", "width", "side"),
    [("tiny224", 192, 14), ("small224", 384, 14), ("base224", 768, 14), ("base384", 768, 24)],
)
def test_all_four_sizes_are_told_apart(convert, tmp_path, monkeypatch, size, width, side):
    monkeypatch.setattr("conversion.weight_map.NUM_LAYERS", 1)
    shapes = {
        "cls_token": (1, 1, width), "dist_token": (1, 1, width), "pos_embed": (1, side * side + 2, width),
        "patch_embed.proj.weight": (width, 3, 16, 16), "patch_embed.proj.bias": (width,),
        "norm.weight": (width,), "norm.bias": (width,),
    }  # fmt: skip
    for kind, shape in {
        "norm1.weight": (width,), "norm1.bias": (width,), "norm2.weight": (width,), "norm2.bias": (width,),
        "attn.qkv.weight": (3 * width, width), "attn.qkv.bias": (3 * width,),
        "attn.proj.weight": (width, width), "attn.proj.bias": (width,),
        "mlp.fc1.weight": (4 * width, width), "mlp.fc1.bias": (4 * width,),
        "mlp.fc2.weight": (width, 4 * width), "mlp.fc2.bias": (width,),
    }.items():  # fmt: skip
        shapes[f"blocks.0.{kind}"] = shape  # one layer is enough to tell
    generator = torch.Generator().manual_seed(0)
    torch.save(
        {name: torch.randn(shape, generator=generator) * 0.05 for name, shape in shapes.items()}, tmp_path / "d.pth"
    )
    start(convert, tmp_path / "d.pth", tmp_path / "ast", "--model_size", size)
    summary = json.loads((tmp_path / "ast" / "run_summary.json").read_text())
    config = json.loads((tmp_path / "ast" / "config.json").read_text())
    assert summary["model"]["size"] == size
    assert (config["hidden_size"], config["num_attention_heads"]) == (width, width // 64)
    wrong = "base384" if size != "base384" else "base224"
    code, _, err = convert("--imagenet_start", tmp_path / "d.pth", tmp_path / "b", "--max_length", 64, "--num_labels", 2,
                           "--model_size", wrong)  # fmt: skip
    assert code == 2
    assert f"--model_size {wrong} was typed, but {tmp_path / 'd.pth'} is {size}" in err


def test_the_classifier_is_new_and_a_function_of_the_seed(timm_weights, convert, tmp_path):
    torch.save(timm_weights, tmp_path / "deit.pth")
    runs = [
        start(convert, tmp_path / "deit.pth", tmp_path / name, *flags)
        for name, flags in {"a": (), "b": (), "c": ("--seed", 1)}.items()
    ]
    weight = "classifier.dense.weight"
    assert torch.equal(runs[0][weight], runs[1][weight])
    assert not torch.equal(runs[0][weight], runs[2][weight])
    assert abs(runs[0][weight].std().item() - 0.02) < 0.001
    assert torch.equal(runs[0]["classifier.layernorm.weight"], torch.ones(192))


def test_half_precision_is_kept(timm_weights, convert, tmp_path):
    torch.save({name: tensor.half() for name, tensor in timm_weights.items()}, tmp_path / "deit.pth")
    tensors = start(convert, tmp_path / "deit.pth", tmp_path / "ast", "--seed", 3)
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float16}
    assert json.loads((tmp_path / "ast" / "config.json").read_text())["dtype"] == "float16"
    assert json.loads((tmp_path / "ast" / "run_summary.json").read_text())["seed"] == 3


def test_strides_labels_and_the_card(timm_weights, convert, tmp_path):
    torch.save(timm_weights, tmp_path / "deit.pth")
    code, out, _ = convert(
        "--imagenet_start", tmp_path / "deit.pth", tmp_path / "ast", "--max_length", 1024, "--labels", "esc50",
        "--frequency_stride", 16, "--time_stride", 16,
    )  # fmt: skip
    assert code == 0
    assert "positions moved from 14 x 14 to 8 x 64 patches" in out
    model = ASTForAudioClassification.from_pretrained(tmp_path / "ast")
    assert model.config.id2label[0] == "dog"
    assert model.config.problem_type == "single_label_classification"
    card = (tmp_path / "ast" / "README.md").read_text()
    assert "license: apache-2.0" in card
    assert "the classifier is new and untrained" in card
    assert "It derives from the local checkpoint `./deit.pth`." in card
    assert str(tmp_path) not in card
    assert "## Training" not in card, "nothing was trained"


def without_distillation(weights):
    return {name: tensor for name, tensor in weights.items() if "dist" not in name}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without_distillation, "has no distillation token, and AST has two class tokens"),
        (lambda weights: {**weights, "extra": torch.zeros(1)}, r"unknown \(1\): v.extra"),
        (
            lambda weights: {**weights, "pos_embed": weights["pos_embed"][:, :-1]},
            r"position table of shape \(1, 197, 192\)",
        ),
        (
            lambda weights: {**weights, "patch_embed.proj.weight": weights["patch_embed.proj.weight"][:, :1]},
            r"patch filter of shape \(192, 1, 16, 16\)",
        ),
    ],
)
def test_other_image_models_are_refused_and_leave_nothing(timm_weights, convert, tmp_path, change, message):
    torch.save(change(timm_weights), tmp_path / "deit.pth")
    code, _, err = convert(
        "--imagenet_start", tmp_path / "deit.pth", tmp_path / "ast", "--max_length", 128, "--num_labels", 2
    )
    assert code == 2
    assert err.count("\n") == 1
    assert re.search(message, err), err
    assert [entry.name for entry in tmp_path.iterdir()] == ["deit.pth"]


@pytest.mark.parametrize("changes", [{"num_attention_heads": 12}, {"hidden_act": "relu"}])
def test_a_deit_that_computes_otherwise_is_refused(stock_deit, convert, tmp_path, changes):
    stock_deit.save_pretrained(tmp_path / "deit")
    config = json.loads((tmp_path / "deit" / "config.json").read_text())
    (tmp_path / "deit" / "config.json").write_text(json.dumps(config | changes))
    code, _, err = convert(
        "--imagenet_start", tmp_path / "deit", tmp_path / "ast", "--max_length", 64, "--num_labels", 2
    )
    assert code == 2
    assert "the original code has no such model" in err


def test_an_ast_is_no_image_model(make_original, convert, tmp_path):
    code, _, err = convert(
        "--imagenet_start", make_original(), tmp_path / "ast", "--max_length", 64, "--num_labels", 2
    )
    assert code == 2
    assert "is an AST already, not an image model" in err


@pytest.mark.parametrize(
    "flags",
    [
        ("--max_length", 5),
        ("--max_length", 128, "--time_stride", 0),
        ("--max_length", 128, "--frequency_stride", -3),
        ("--max_length", 128, "--num_mel_bins", 8),
    ],
)
def test_impossible_sizes_are_refused(timm_weights, convert, tmp_path, flags):
    torch.save(timm_weights, tmp_path / "deit.pth")
    code, _, err = convert("--imagenet_start", tmp_path / "deit.pth", tmp_path / "ast", "--num_labels", 2, *flags)
    assert code == 2
    assert re.search(r"^ast-convert: --\w+ -?\d+ is too small. Pass \d+ or more.$", err), err


def test_missing_tensors_are_named_as_in_the_file(stock_deit, convert, tmp_path):
    stock_deit.save_pretrained(tmp_path / "deit")
    weights = load_file(tmp_path / "deit" / "model.safetensors")
    del weights["deit.layernorm.bias"]
    save_file(weights, tmp_path / "deit" / "model.safetensors", metadata={"format": "pt"})
    code, _, err = convert(
        "--imagenet_start", tmp_path / "deit", tmp_path / "ast", "--max_length", 64, "--num_labels", 2
    )
    assert code == 2
    assert "not the tensors of a DeiT in the Transformers layout. missing (1): deit.layernorm.bias" in err


def test_a_vit_of_transformers_is_refused(convert, tmp_path):
    ViTModel(
        ViTConfig(hidden_size=192, num_hidden_layers=1, num_attention_heads=3, intermediate_size=768)
    ).save_pretrained(tmp_path / "vit")
    code, _, err = convert(
        "--imagenet_start", tmp_path / "vit", tmp_path / "ast", "--max_length", 128, "--num_labels", 2
    )
    assert code == 2
    assert "is a 'vit', expected 'deit'. Give one such as facebook/deit-base-distilled-patch16-384" in err


def test_a_hub_id_is_looked_up_in_the_cache_of_the_hub(timm_weights, stock_deit, convert, tmp_path):
    repository = tmp_path / "cache" / "models--facebook--deit-tiny-distilled-patch16-224"
    stock_deit.save_pretrained(repository / "snapshots" / "0123abcd")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0123abcd")
    command = [
        "-m", "conversion.run_conversion", "--imagenet_start", "facebook/deit-tiny-distilled-patch16-224",
        tmp_path / "ast", "--max_length", "128", "--num_labels", "35",
    ]  # fmt: skip
    environment = os.environ | {"HF_HUB_CACHE": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1"}
    run = forked_python.run(command, environment)
    assert run.returncode == 0, run.stderr
    torch.save(timm_weights, tmp_path / "deit.pth")
    expected, actual = (
        start(convert, tmp_path / "deit.pth", tmp_path / "b"),
        load_file(tmp_path / "ast/model.safetensors"),
    )
    assert all(torch.equal(expected[name], actual[name]) for name in expected)
    card = (tmp_path / "ast" / "README.md").read_text()
    assert "base_model: facebook/deit-tiny-distilled-patch16-224" in card

"""`ast-convert --to_original`: Hub checkpoints, of whatever age, to a `.pth` that the original code loads."""

import json
import re

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers.models.audio_spectrogram_transformer import modeling_audio_spectrogram_transformer as stock
from transformers.models.audio_spectrogram_transformer.configuration_audio_spectrogram_transformer import (
    ASTConfig as StockConfig,
)

from modeling_ast import ASTForAudioClassification, ASTModel

# Depth and ratios are those of the original's tiny224; the input is short to keep the position table small.
SIZES = {"hidden_size": 192, "num_attention_heads": 3, "intermediate_size": 768, "max_length": 64, "num_labels": 3}


@pytest.fixture(scope="module")
def stock_model():
    torch.manual_seed(0)
    model = stock.ASTForAudioClassification(StockConfig(**SIZES)).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    return model


def saved_as_old_bin(model, folder):
    model.save_pretrained(folder)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


SAVERS = {
    "safetensors": lambda model, folder: model.save_pretrained(folder),
    "pytorch_model.bin": saved_as_old_bin,
    "shards": lambda model, folder: model.save_pretrained(folder, max_shard_size="4MB"),
    "names in memory": lambda model, folder: model.save_pretrained(folder, save_original_format=False),
}


@pytest.mark.parametrize("saver", SAVERS)
def test_what_stock_transformers_saved_becomes_an_original(stock_model, convert, tmp_path, saver):
    SAVERS[saver](stock_model, tmp_path / "hub")
    code, out, err = convert("--to_original", tmp_path / "hub", tmp_path / "out" / "ast.pth")
    assert (code, err) == (0, "")
    assert "all 203 tensors are bit-equal" in out
    assert out.splitlines()[-1] == str(tmp_path / "out" / "ast.pth")
    original = torch.load(tmp_path / "out" / "ast.pth", weights_only=True)
    assert all(name.startswith("module.") for name in original)
    layer = stock_model.audio_spectrogram_transformer.layers[5]
    fused = [layer.attention.q_proj.weight, layer.attention.k_proj.weight, layer.attention.v_proj.weight]
    assert torch.equal(original["module.v.blocks.5.attn.qkv.weight"], torch.cat(fused))
    assert torch.equal(original["module.v.blocks.5.mlp.fc2.bias"], layer.mlp.fc2.bias)
    assert torch.equal(original["module.mlp_head.1.weight"], stock_model.classifier.dense.weight)
    payload = sum(tensor.numel() * 4 for tensor in original.values())
    assert (tmp_path / "out" / "ast.pth").stat().st_size < 1.05 * payload, "no storage is saved twice"


def test_stock_epsilons_are_reported_against_the_originals(stock_model, convert, tmp_path):
    stock_model.save_pretrained(tmp_path / "hub")
    _, out, _ = convert("--to_original", tmp_path / "hub", tmp_path / "ast.pth")
    assert "verified: largest difference of the logits" in out
    assert "With its own LayerNorm epsilons, 1e-12 and 1e-12, the checkpoint differs by" in out


def test_there_and_back_through_stock_transformers_is_bit_equal(make_original, convert, tmp_path):
    path = make_original(patches=144, labels=35)
    convert(path, tmp_path / "hub")
    stock.ASTForAudioClassification.from_pretrained(tmp_path / "hub").save_pretrained(tmp_path / "stock")
    # only two layers: the original code has no such depth, which is refused in words
    code, _, err = convert("--to_original", tmp_path / "stock", tmp_path / "back.pth")
    assert code == 2
    assert "num_hidden_layers=2 (not 12): the original code has no such model" in err
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["hub", "stock"]


def test_a_bare_model_goes_without_its_classifier(stock_model, convert, tmp_path):
    stock_model.save_pretrained(tmp_path / "hub")
    ASTModel.from_pretrained(tmp_path / "hub").save_pretrained(tmp_path / "bare")
    assert convert("--to_original", tmp_path / "bare", tmp_path / "ast.pth")[0] == 0
    original = torch.load(tmp_path / "ast.pth", weights_only=True)
    assert len(original) == 5 + 12 * 12 + 2


def test_half_precision_stays_bit_equal(stock_model, convert, tmp_path):
    stock_model.save_pretrained(tmp_path / "hub")
    half = ASTForAudioClassification.from_pretrained(tmp_path / "hub", dtype=torch.float16)
    half.save_pretrained(tmp_path / "half")
    assert convert("--to_original", tmp_path / "half", tmp_path / "ast.pth")[0] == 0
    original = torch.load(tmp_path / "ast.pth", weights_only=True)
    assert torch.equal(original["module.v.norm.weight"], half.audio_spectrogram_transformer.layernorm.weight)


def edit(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: edit(folder, model_type="vit"), "is a 'vit', expected 'audio-spectrogram-transformer'"),
        (lambda folder: edit(folder, hidden_act="relu"), r"hidden_act=relu \(not gelu\)"),
        (lambda folder: edit(folder, patch_size=8), r"patch_size=8 \(not 16\)"),
        (lambda folder: edit(folder, qkv_bias=False), r"qkv_bias=False \(not True\)"),
        (lambda folder: edit(folder, intermediate_size=700), r"intermediate_size=700 \(not 768\)"),
        (lambda folder: (folder / "config.json").unlink(), "has no config.json"),
        (lambda folder: (folder / "model.safetensors").unlink(), "has no weights, expected model.safetensors or"),
    ],
)
def test_what_is_no_original_ast_is_refused(stock_model, convert, tmp_path, change, message):
    stock_model.save_pretrained(tmp_path / "hub")
    change(tmp_path / "hub")
    code, _, err = convert("--to_original", tmp_path / "hub", tmp_path / "ast.pth")
    assert code == 2
    assert err.count("\n") == 1
    assert re.search(message, err), err
    assert [entry.name for entry in tmp_path.iterdir()] == ["hub"]


def test_a_file_that_does_not_read_back_is_not_kept(stock_model, convert, tmp_path, monkeypatch):
    from conversion import to_original

    stock_model.save_pretrained(tmp_path / "hub")
    read = to_original.read_state_dict

    def read_damaged(path):
        tensors = read(path)
        tensors["module.v.norm.bias"] = tensors["module.v.norm.bias"] + 1
        return tensors

    monkeypatch.setattr(to_original, "read_state_dict", read_damaged)
    code, _, err = convert("--to_original", tmp_path / "hub", tmp_path / "ast.pth")
    assert code == 2
    assert "audio_spectrogram_transformer.layernorm.bias did not survive the way there and back" in err
    assert [entry.name for entry in tmp_path.iterdir()] == ["hub"]


def test_a_file_of_pytorch_is_not_called_safetensors(stock_model, convert, tmp_path):
    stock_model.save_pretrained(tmp_path / "hub")
    code, _, err = convert("--to_original", tmp_path / "hub", tmp_path / "ast.safetensors")
    assert code == 2
    assert "Name one that ends with .pth" in err
    assert [entry.name for entry in tmp_path.iterdir()] == ["hub"]


def test_an_existing_file_is_left_alone(stock_model, convert, tmp_path):
    stock_model.save_pretrained(tmp_path / "hub")
    (tmp_path / "ast.pth").write_text("precious")
    code, _, err = convert("--to_original", tmp_path / "hub", tmp_path / "ast.pth")
    assert code == 2
    assert "already exists. Name another file, or remove it first." in err
    assert (tmp_path / "ast.pth").read_text() == "precious"


@pytest.mark.parametrize("number", [float("inf"), float("nan")])
def test_what_is_not_a_number_is_not_kept(stock_model, convert, tmp_path, number):
    stock_model.save_pretrained(tmp_path / "hub")
    weights = load_file(tmp_path / "hub" / "model.safetensors")
    weights["audio_spectrogram_transformer.layernorm.bias"][3] = number
    save_file(weights, tmp_path / "hub" / "model.safetensors", metadata={"format": "pt"})
    code, _, err = convert("--to_original", tmp_path / "hub", tmp_path / "new" / "ast.pth")
    assert code == 2
    assert "Weights are NaN or infinite: audio_spectrogram_transformer.layernorm.bias." in err
    assert [entry.name for entry in tmp_path.iterdir()] == ["hub"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_length": 200}, "position_embeddings has shape"),
        ({"id2label": {"0": "a"}, "label2id": {"a": 0}}, "classifier.dense.weight has shape"),
        ({"num_attention_heads": 5}, "faulty config.json: hidden_size=192 is not a multiple"),
        ({"hidden_size": "big"}, "faulty config.json: config.json: hidden_size='big' is not a whole number"),
        ({"time_stride": 0}, "faulty config.json: config.json: time_stride=0 is not a whole number"),
    ],
)
def test_a_configuration_that_does_not_fit_is_refused(stock_model, convert, tmp_path, changes, message):
    stock_model.save_pretrained(tmp_path / "hub")
    edit(tmp_path / "hub", **changes)
    code, _, err = convert("--to_original", tmp_path / "hub", tmp_path / "ast.pth")
    assert code == 2
    assert err.count("\n") == 1
    assert message in err
    assert [entry.name for entry in tmp_path.iterdir()] == ["hub"]


def test_a_full_disk_is_answered_in_one_line_and_leaves_nothing(stock_model, convert, tmp_path, small_disk):
    stock_model.save_pretrained(tmp_path / "hub")
    disk = small_disk(5)
    code, _, err = convert("--to_original", tmp_path / "hub", disk / "ast.pth")
    assert code == 1
    assert re.fullmatch(r"ast-convert: \S+ast.pth was not written: .*No space left on device.* Make room.*\n", err), (
        err
    )
    assert not list(disk.iterdir())

"""Checkpoints under the tensor names of other programs load as those of the Hub do, and are saved under the Hub's."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file
from transformers import AutoModelForAudioClassification
from transformers.models.audio_spectrogram_transformer import modeling_audio_spectrogram_transformer as stock

from modeling_ast import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification, ASTModel, register, unregister
from modeling_ast.checkpoints.tensor_names import hub_name, is_wrapped
from modeling_ast.tagging.tagger import AudioTagger

PREFIX = "audio_spectrogram_transformer."


@pytest.fixture
def folder(tiny_sizes, tmp_path):
    """A checkpoint under the names of the Hub."""
    torch.manual_seed(0)
    model = ASTForAudioClassification(ASTConfig(**tiny_sizes, num_labels=3))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(tmp_path / "hub")
    ASTFeatureExtractor(max_length=96).save_pretrained(tmp_path / "hub")
    return tmp_path / "hub"


@pytest.fixture
def theirs(folder):
    """Stock Transformers' model of that checkpoint."""
    return stock.ASTForAudioClassification.from_pretrained(folder).eval()


@pytest.fixture
def other(folder, tmp_path):
    """A folder without weights beside the same configuration."""
    shutil.copytree(folder, tmp_path / "other", ignore=shutil.ignore_patterns("*.safetensors"))
    return tmp_path / "other"


@torch.no_grad()
def logits(model) -> torch.Tensor:
    return model.eval()(torch.randn(2, 96, 128, generator=torch.Generator().manual_seed(1))).logits


def write(tensors: dict[str, torch.Tensor], folder: Path):
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def wrapped_in_parts(name: str) -> str:
    """As of a model compiled whole, and each layer and its attention by itself, in DDP."""
    name = name.replace("layer.1.", "layer.1._orig_mod.").replace(
        ".attention.attention.", ".attention._orig_mod.attention."
    )
    return "module._orig_mod." + name.replace(PREFIX, f"{PREFIX}_orig_mod.module.")


WRITERS = {
    "save_original_format=False": lambda model, folder: model.save_pretrained(folder, save_original_format=False),
    "shards": lambda model, folder: model.save_pretrained(folder, save_original_format=False, max_shard_size="30KB"),
    "Accelerator.save_model": lambda model, folder: Accelerator(cpu=True).save_model(model, folder),
    "Accelerator.save_model in shards": lambda model, folder: Accelerator(cpu=True).save_model(model, folder, "30KB"),
    "compiled": lambda model, folder: write(torch.compile(model).state_dict(), folder),
    "data parallel": lambda model, folder: write(torch.nn.DataParallel(model).state_dict(), folder),
    "torch.save of a compiled model": lambda model, folder: torch.save(
        torch.compile(model).state_dict(), folder / "pytorch_model.bin"
    ),
}  # fmt: skip


@pytest.mark.parametrize("writer", WRITERS)
def test_what_other_programs_save_loads_with_the_same_logits(folder, theirs, other, writer, tmp_path):
    WRITERS[writer](theirs, other)
    model = ASTForAudioClassification.from_pretrained(other)
    torch.testing.assert_close(logits(model), logits(theirs), atol=1e-6, rtol=0)
    model.save_pretrained(tmp_path / "again")
    again, expected = (load_file(path / "model.safetensors") for path in (tmp_path / "again", folder))
    assert again.keys() == expected.keys(), "saved again under the names of the Hub"
    assert all(torch.equal(again[name], expected[name]) for name in expected)


RENAMED = {
    "compiled": lambda name: f"_orig_mod.{name}",
    "compiled in DDP": lambda name: f"module._orig_mod.{name}",
    "DDP compiled": lambda name: f"_orig_mod.module.{name}",
    "wrapped in parts": wrapped_in_parts,
    "FSDP": lambda name: name.replace("layer.0.", "layer.0._fsdp_wrapped_module._checkpoint_wrapped_module."),
    "the bare transformer": lambda name: name.removeprefix(PREFIX),
}  # fmt: skip


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("renamed", RENAMED)
def test_wrapped_models_load(folder, theirs, other, renamed, mixed):
    ours, of_stock = load_file(folder / "model.safetensors"), theirs.state_dict()
    by_row = zip(sorted(ours), sorted(of_stock, key=hub_name), strict=True)
    names = {own: stocks if mixed and row % 2 else own for row, (own, stocks) in enumerate(by_row)}
    write({RENAMED[renamed](name): ours[own] for own, name in names.items()}, other)
    model = ASTForAudioClassification.from_pretrained(other)
    torch.testing.assert_close(logits(model), logits(theirs), atol=1e-6, rtol=0)


def test_all_that_reads_a_checkpoint_reads_these(folder, theirs, other):
    theirs.save_pretrained(other, save_original_format=False)
    expected = ASTForAudioClassification.from_pretrained(folder, max_length=150)
    found = ASTForAudioClassification.from_pretrained(other, max_length=150)
    assert all(torch.equal(tensor, found.state_dict()[name]) for name, tensor in expected.state_dict().items())
    bare = ASTModel.from_pretrained(other)
    assert torch.equal(bare.layernorm.weight, expected.audio_spectrogram_transformer.layernorm.weight)
    tagger = AudioTagger.from_pretrained(other, "cpu")
    torch.testing.assert_close(logits(tagger.model), logits(theirs), atol=1e-6, rtol=0)
    register()
    try:
        model = AutoModelForAudioClassification.from_pretrained(other)
    finally:
        unregister()
    assert isinstance(model, ASTForAudioClassification)
    torch.testing.assert_close(logits(model), logits(theirs), atol=1e-6, rtol=0)


def with_another(tensors: dict) -> dict:
    return tensors | {"_orig_mod.foo.weight": torch.zeros(1)}


def with_one_twice(tensors: dict) -> dict:
    return tensors | {f"{PREFIX}layernorm.bias": torch.zeros(32)}


def without_one(tensors: dict) -> dict:
    return {name: tensor for name, tensor in tensors.items() if not name.endswith("layers.1.mlp.fc1.bias")}


@pytest.mark.parametrize("sharded", [False, True])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (with_another, "does not fit the model: foo.weight is not part of the model"),
        (without_one, "encoder.layer.1.intermediate.dense.bias is missing"),
        (with_one_twice, "layernorm.bias twice, as .*layernorm.bias and as .*layernorm.bias"),
    ],
)
def test_strictness_is_as_with_the_names_of_the_hub(theirs, other, change, message, sharded):
    tensors = change({f"_orig_mod.{name}": tensor for name, tensor in theirs.state_dict().items()})
    write(tensors, other)
    if sharded:
        (other / "model.safetensors").rename(other / "part.safetensors")
        index = {"metadata": {}, "weight_map": dict.fromkeys(tensors, "part.safetensors")}
        (other / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match=message):
        ASTForAudioClassification.from_pretrained(other)


def test_names_are_renamed_at_their_boundaries_only():
    assert (
        hub_name("my_module.layers.x.attention.k_projection.weight")
        == "my_module.layers.x.attention.k_projection.weight"
    )
    assert hub_name("_orig_mod.module.layers.11.mlp.fc2.bias") == "encoder.layer.11.output.dense.bias"
    assert is_wrapped("a._orig_mod.b")
    assert not is_wrapped("my_module.b")

"""What the files of a checkpoint may hold: each field within its bounds, and weights of the shapes that the fields say."""

import json
import math
import time

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from modeling_ast import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification, register, unregister
from modeling_ast.checkpoints.fields import CheckpointError, PipelineCheckpointError, read_json, read_settings
from modeling_ast.checkpoints.weights import expected_shapes
from modeling_ast.loading import check_model_name, load_checkpoint


@pytest.fixture
def folder(tiny_sizes, tmp_path):
    ASTForAudioClassification(ASTConfig(**tiny_sizes, num_labels=3)).save_pretrained(tmp_path)
    ASTFeatureExtractor(max_length=96).save_pretrained(tmp_path)
    return tmp_path


def change(folder, name="config.json", **fields):
    content = json.loads((folder / name).read_text()) | fields
    (folder / name).write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("num_hidden_layers", 10**6), ("hidden_size", -32), ("hidden_size", True), ("max_length", 10**12),
        ("patch_size", 0), ("time_stride", 2.0), ("layer_norm_eps", math.nan), ("initializer_range", -math.inf),
        ("qkv_bias", "no"), ("num_labels", 10**8), ("num_labels", -1), ("id2label", {"0": "a", "2": "b"}),
        ("id2label", ["a"]), ("id2label", {"0": 5}), ("label2id", {"a": "one"}), ("label_thresholds", [0.5]),
        ("problem_type", "guess"), ("dtype", "load"), ("quantization_config", {"quant_method": "x"}),
        ("attn_implementation", "user/kernel"), ("_attn_implementation", "user/kernel"), ("model_type", ["bert"]),
    ],
)  # fmt: skip
def test_fields_of_the_configuration_are_checked_before_anything_is_built(folder, field, value):
    change(folder, **{field: value})
    begun = time.process_time()
    if field != "model_type":
        with pytest.raises(CheckpointError, match=f"config.json: {field}=.* is not "):
            read_settings(folder / "config.json")
    with pytest.raises(ValueError, match=field if field != "model_type" else "model of type"):
        load_checkpoint(folder)
    with pytest.raises(ValueError, match=field):
        ASTConfig.from_dict(json.loads((folder / "config.json").read_text()))
    assert time.process_time() - begun < 1


@pytest.mark.parametrize("field", ["to_dict", "patch_grid", "sub_configs", "__class__"])
def test_a_field_takes_the_place_of_no_method(folder, field):
    change(folder, **{field: 5})
    with pytest.raises(CheckpointError, match=f"'{field}' is no field but part of the program"):
        ASTConfig.from_pretrained(folder)


def test_an_activation_has_to_be_one(tiny_sizes):
    with pytest.raises(ValueError, match="hidden_act='boom' is no activation"):
        ASTConfig(**tiny_sizes, hidden_act="boom")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("sampling_rate", 0), ("sampling_rate", 16_000.0), ("sampling_rate", 10**12), ("max_length", -1), ("std", 0.0),
        ("mean", math.nan), ("padding_value", math.inf), ("padding", "sometimes"), ("do_normalize", "no"),
        ("feature_extractor_type", "Wav2Vec2FeatureExtractor"), ("channels", -1), ("audio_reader", 5),
    ],
)  # fmt: skip
def test_fields_of_the_feature_extractor_are_checked(folder, field, value):
    change(folder, "preprocessor_config.json", **{field: value})
    for load in (load_checkpoint, ASTFeatureExtractor.from_pretrained):
        with pytest.raises(CheckpointError, match=field):
            load(folder)


def test_stock_files_are_taken(tmp_path):
    transformers.ASTConfig().save_pretrained(tmp_path)
    transformers.ASTFeatureExtractor().save_pretrained(tmp_path)
    for name in ("config.json", "preprocessor_config.json"):
        read_settings(tmp_path / name)
    assert ASTConfig.from_pretrained(tmp_path).hidden_size == 768


@pytest.mark.parametrize("qkv_bias", [True, False])
def test_expected_shapes_are_those_of_stock_transformers(tiny_sizes, qkv_bias):
    config = transformers.ASTConfig(**tiny_sizes, qkv_bias=qkv_bias)
    ours = ASTConfig.from_dict(config.to_dict())
    stock = transformers.ASTModel(config)
    assert sorted(map(str, expected_shapes(ours).values())) == sorted(str(tuple(p.shape)) for p in stock.parameters())


@pytest.mark.parametrize("fields", [{"num_hidden_layers": 900}, {"hidden_size": 65_536}, {"max_length": 1024}])
def test_weights_of_another_size_are_refused_before_a_model_is_built(folder, fields, monkeypatch):
    change(folder, **fields)
    monkeypatch.setattr(ASTForAudioClassification, "__init__", lambda *_: pytest.fail("a model was built"))
    with pytest.raises(CheckpointError, match="does not fit the model"):
        ASTForAudioClassification.from_pretrained(folder)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_no_numbers_are_refused_by_name(folder, value):
    tensors = load_file(folder / "model.safetensors")
    tensors["classifier.dense.weight"][0, 0] = value
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="NaN or infinite: classifier.dense.weight"):
        load_checkpoint(folder)
    register()
    try:
        with pytest.raises(
            PipelineCheckpointError, match="classifier.dense.weight"
        ):  # and no stock class in its place
            transformers.pipeline("audio-classification", model=str(folder))
    finally:
        unregister()


@pytest.mark.parametrize("part", ["../model.safetensors", "/model.safetensors", "pytorch_model.bin", 5, ["a"]])
def test_an_index_names_files_beside_it(folder, part):
    (folder / "model.safetensors").rename(folder / "model-1.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": part}}))
    with pytest.raises(CheckpointError, match="expected .safetensors files that lie beside it"):
        ASTForAudioClassification.from_pretrained(folder)


def test_weights_are_floats(folder):
    tensors = {name: tensor.to(torch.int8) for name, tensor in load_file(folder / "model.safetensors").items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="as I8, expected floats"):
        load_checkpoint(folder)


def test_json_is_read_within_bounds(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("[" * 100_000 + "]" * 100_000)
    with pytest.raises(ValueError, match="nested too deep"):
        read_json(path)
    with path.open("wb") as file:
        file.truncate((64 << 20) + 1)
    with pytest.raises(ValueError, match="larger than 64 MiB"):
        read_json(path)


def test_a_part_of_the_weights_that_is_not_there_is_told_before_torch_is_needed(folder):
    parts = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    (folder / "model.safetensors").rename(folder / parts[0])
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": dict(zip("ab", parts, strict=True))})
    )
    with pytest.raises(CheckpointError, match=f"has no {parts[1]}, which model.safetensors.index.json names"):
        check_model_name(folder)

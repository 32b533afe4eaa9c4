"""LoRA adapters trained on this port, in stock Transformers."""

import json

import pytest
import torch
from safetensors.torch import load_file
from transformers.models.audio_spectrogram_transformer import modeling_audio_spectrogram_transformer as stock

from modeling_ast import ASTConfig, ASTForAudioClassification
from modeling_ast.adapters import LORA_TARGET_MODULES, convert_adapter_for_stock
from modeling_ast.checkpoints import fields

peft = pytest.importorskip("peft")


@pytest.fixture
def save_adapter(tiny_sizes, tmp_path):
    """Saves a model and an adapter with random weights; returns both folders, inputs and the adapted logits."""

    def save(targets, **settings):
        torch.manual_seed(0)
        model = ASTForAudioClassification(ASTConfig(**tiny_sizes, num_labels=3)).eval()
        model.save_pretrained(tmp_path / "model")
        config = peft.LoraConfig(
            r=4, target_modules=targets, modules_to_save=["classifier"], init_lora_weights=False, **settings
        )
        adapted = peft.get_peft_model(model, config).eval()
        torch.nn.init.normal_(adapted.base_model.model.classifier.modules_to_save["default"].dense.weight)
        adapted.save_pretrained(tmp_path / "adapter")
        inputs = torch.randn(2, 96, 128)
        with torch.no_grad():
            return tmp_path / "model", tmp_path / "adapter", inputs, adapted(inputs).logits

    return save


@pytest.mark.parametrize(
    "targets",
    [
        list(LORA_TARGET_MODULES),
        ["query", "key", "value", "attention.output.dense", "intermediate.dense"],
        ["output.dense"],  # of the attention and of the feed-forward layer
        ["audio_spectrogram_transformer.encoder.layer.1.attention.attention.key"],
    ],
)
@pytest.mark.parametrize("way", ["PeftModel", "load_adapter"])
def test_a_converted_adapter_gives_the_same_logits_on_stock_transformers(save_adapter, tmp_path, targets, way):
    model_dir, adapter_dir, inputs, expected = save_adapter(targets)
    convert_adapter_for_stock(adapter_dir, tmp_path / "stock")
    model = stock.ASTForAudioClassification.from_pretrained(model_dir)
    if way == "PeftModel":
        model = peft.PeftModel.from_pretrained(model, tmp_path / "stock")
    else:
        model.load_adapter(str(tmp_path / "stock"))
    with torch.no_grad():
        logits = model.eval()(inputs).logits
    assert (logits - expected).abs().max() < 1e-5  # float32 rounding


def test_the_adapter_is_renamed_and_nothing_else(save_adapter, tmp_path):
    _, adapter_dir, _, _ = save_adapter(list(LORA_TARGET_MODULES))
    convert_adapter_for_stock(adapter_dir, tmp_path / "stock")
    before, after = (load_file(folder / "adapter_model.safetensors") for folder in (adapter_dir, tmp_path / "stock"))
    assert [tuple(tensor.shape) for tensor in before.values()] == [tuple(tensor.shape) for tensor in after.values()]
    settings, renamed = (
        json.loads((folder / "adapter_config.json").read_text()) for folder in (adapter_dir, tmp_path / "stock")
    )
    assert renamed.pop("target_modules") == ["attention.q_proj", "attention.v_proj"]
    settings.pop("target_modules")
    assert renamed == settings


def test_what_cannot_be_converted_is_refused_in_words(save_adapter, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"has no adapter_config.json\. Pass the folder that PeftModel"):
        convert_adapter_for_stock(tmp_path, tmp_path / "stock")
    _, adapter_dir, _, _ = save_adapter(list(LORA_TARGET_MODULES), rank_pattern={"query": 2})
    with pytest.raises(ValueError, match=r"uses rank_pattern, which is not renamed here\. Merge"):
        convert_adapter_for_stock(adapter_dir, tmp_path / "stock")
    path = adapter_dir / "adapter_config.json"
    config = json.loads(path.read_text())
    for targets in (["query", "q_proj"], ".*query"):
        path.write_text(json.dumps(config | {"rank_pattern": {}, "target_modules": targets}))
        with pytest.raises(ValueError, match=r"target_modules has '.*', expected names that end like .* Merge"):
            convert_adapter_for_stock(adapter_dir, tmp_path / "stock")
    path.write_text(json.dumps(config | {"rank_pattern": {}, "peft_type": "IA3"}))
    with pytest.raises(ValueError, match="type 'IA3', expected LORA"):
        convert_adapter_for_stock(adapter_dir, tmp_path / "stock")
    path.write_text(json.dumps(config | {"rank_pattern": {}}))
    (tmp_path / "stock").mkdir()
    (tmp_path / "stock" / "mine").touch()
    with pytest.raises(FileExistsError):
        convert_adapter_for_stock(adapter_dir, tmp_path / "stock")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("[]", "is not a JSON object"),
        ("{", r"is not a valid JSON object \(Expecting"),
        ("[" * 100_000, "nested too deep"),
        (" " * 65, r"larger than 0 MiB\)\. Save the adapter again"),
    ],
)
def test_a_configuration_is_read_within_bounds(tmp_path, monkeypatch, content, words):
    monkeypatch.setattr(fields, "LARGEST_JSON", 64 if content.isspace() else fields.LARGEST_JSON)
    (tmp_path / "adapter_config.json").write_text(content)
    (tmp_path / "adapter_model.safetensors").touch()
    with pytest.raises(ValueError, match=words):
        convert_adapter_for_stock(tmp_path, tmp_path / "stock")


def test_an_adapted_classifier_is_refused(tiny_sizes, tmp_path):
    model = ASTForAudioClassification(ASTConfig(**tiny_sizes, num_labels=3))
    peft.get_peft_model(model, peft.LoraConfig(target_modules=["dense"])).save_pretrained(tmp_path / "adapter")
    with pytest.raises(ValueError, match=r"adapts .*classifier\.dense.*, which is no linear layer .* Merge"):
        convert_adapter_for_stock(tmp_path / "adapter", tmp_path / "stock")

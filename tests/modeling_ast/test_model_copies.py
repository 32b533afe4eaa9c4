"""Offloaded models, copies, and adapters of PEFT: the logits of the model that they are made of."""

import copy
import functools
import pickle

import pytest
import torch
from accelerate import cpu_offload, disk_offload, dispatch_model
from model_runs import ROUNDING, TRAINED_FRAMES, assert_close_gradients, gradients, make_inputs, run
from transformers.models.audio_spectrogram_transformer import modeling_audio_spectrogram_transformer as stock

from modeling_ast import ASTForAudioClassification
from modeling_ast.adapters import LORA_TARGET_MODULES

# Offloading and copies

# A layer with the hooks of offloading calls its modules, one without sums its products in another order.
IN_OTHER_ORDER = {"atol": 1e-5, "rtol": 0}


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("place", ["cpu", "disk"])
def test_an_offloaded_model_gives_the_same_logits(make_model, tmp_path, place, train):
    inputs = make_inputs(200, [200, 96, 40])
    expected = run(make_model().train(train), inputs).logits
    model = make_model().train(train)
    if place == "cpu":
        cpu_offload(model, execution_device=torch.device("cpu"))
    else:
        disk_offload(model, tmp_path, execution_device=torch.device("cpu"))
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}
    torch.testing.assert_close(run(model, inputs).logits, expected, **IN_OTHER_ORDER)


def test_a_model_spread_over_cpu_and_disk_by_layer_gives_the_same_logits(make_model, tmp_path):
    model, inputs = make_model(num_hidden_layers=3), make_inputs(200, [200, 96, 40])
    expected = run(model, inputs).logits
    base = "audio_spectrogram_transformer"
    device_map = {f"{base}.encoder.layer.{index}": "disk" if index else "cpu" for index in range(3)}
    device_map |= {f"{base}.embeddings": "disk", f"{base}.layernorm": "cpu", "classifier": "disk"}
    dispatched = dispatch_model(model, device_map, main_device="cpu", offload_dir=tmp_path / "dispatched")
    torch.testing.assert_close(run(dispatched, inputs).logits, expected, **IN_OTHER_ORDER)

    make_model(num_hidden_layers=3).save_pretrained(tmp_path / "checkpoint")
    loaded = ASTForAudioClassification.from_pretrained(
        tmp_path / "checkpoint", device_map=device_map, offload_folder=tmp_path / "loaded"
    )
    offloaded = {name for name, parameter in loaded.named_parameters() if parameter.is_meta}
    on_disk = tuple(name for name, device in device_map.items() if device == "disk")
    assert offloaded == {name for name in loaded.state_dict() if name.startswith(on_disk)}
    torch.testing.assert_close(run(loaded, inputs).logits, expected, **IN_OTHER_ORDER)


def through_torch_save(model, folder):
    torch.save(model, folder / "model.pt")
    return torch.load(folder / "model.pt", weights_only=False)


@pytest.mark.parametrize(
    "copied",
    [lambda model, _: copy.deepcopy(model), lambda model, _: pickle.loads(pickle.dumps(model)), through_torch_save],
    ids=["deepcopy", "pickle", "torch.save"],
)
def test_a_copy_is_equal_and_independent(make_model, tmp_path, copied):
    model, inputs = make_model(), make_inputs(200, [200, 96, 40])
    gradients(model, inputs)
    expected = run(model, inputs).logits
    other = copied(model, tmp_path)
    assert torch.equal(run(other, inputs).logits, expected)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(1)
    other.resize_patch_grid(max_length=50)
    assert torch.equal(run(model, inputs).logits, expected)
    assert model.config.max_length == TRAINED_FRAMES


# PEFT

TARGETS = list(LORA_TARGET_MODULES)
ignore_peft_warnings = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.*:FutureWarning")


@pytest.fixture
def peft():
    return pytest.importorskip("peft")


@pytest.fixture
def trained_adapter(peft, make_model, tmp_path):
    """Trains an adapter for the checkpoint in `tmp_path / "base"`, saves it, and returns it, its folder and its logits."""
    make_model().save_pretrained(tmp_path / "base")

    def train(targets):
        model = ASTForAudioClassification.from_pretrained(tmp_path / "base").train()
        torch.manual_seed(0)
        settings = peft.LoraConfig(r=4, target_modules=targets, modules_to_save=["classifier"])
        adapted = peft.get_peft_model(model, settings)
        optimizer = torch.optim.SGD([p for p in adapted.parameters() if p.requires_grad], lr=0.5)
        for _ in range(3):
            adapted(**make_inputs()).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        adapted.eval().save_pretrained(tmp_path / "adapter")
        return adapted, tmp_path / "adapter", run(adapted, make_inputs()).logits

    return train


def load_base(tmp_path, model_class=ASTForAudioClassification):
    return model_class.from_pretrained(tmp_path / "base")


@ignore_peft_warnings
def test_lora_trains_query_and_value_of_every_layer_and_the_classifier_and_nothing_else(trained_adapter, tmp_path):
    adapted, _, _ = trained_adapter(TARGETS)
    trained = {name for name, parameter in adapted.named_parameters() if parameter.requires_grad}
    layers = range(adapted.config.num_hidden_layers)
    prefix = "base_model.model.audio_spectrogram_transformer.encoder.layer"
    expected = {
        f"{prefix}.{layer}.attention.attention.{target}.lora_{matrix}.default.weight"
        for layer in layers
        for target in TARGETS
        for matrix in "AB"
    }
    assert {name for name in trained if "classifier" not in name} == expected
    changed = adapted.get_base_model().state_dict()
    for name, tensor in load_base(tmp_path).audio_spectrogram_transformer.state_dict().items():
        name = f"audio_spectrogram_transformer.{name}"
        if any(f".{target}." in name for target in TARGETS):
            name = ".base_layer.".join(name.rsplit(".", 1))
        assert torch.equal(changed[name], tensor), name
    lora_b = [parameter for name, parameter in adapted.named_parameters() if "lora_B" in name]
    assert all(parameter.any() for parameter in lora_b), "they start as zeros"


@ignore_peft_warnings
@pytest.mark.parametrize("way", ["PeftModel", "load_adapter", "from_pretrained"])
def test_a_saved_adapter_loads_with_the_same_logits(peft, trained_adapter, tmp_path, way):
    _, folder, expected = trained_adapter(TARGETS)
    model = load_base(tmp_path)
    assert not torch.allclose(run(model, make_inputs()).logits, expected, atol=0.1)
    if way == "PeftModel":
        model = peft.PeftModel.from_pretrained(model, folder)
    elif way == "load_adapter":
        model.load_adapter(folder)
    else:
        model = ASTForAudioClassification.from_pretrained(folder)
    assert torch.equal(run(model.eval(), make_inputs()).logits, expected)


@ignore_peft_warnings
def test_a_merged_adapter_gives_the_same_logits_here_and_saved_in_stock_transformers(trained_adapter, tmp_path):
    adapted, _, expected = trained_adapter(TARGETS)
    merged = adapted.merge_and_unload()
    assert type(merged) is ASTForAudioClassification
    torch.testing.assert_close(run(merged, make_inputs()).logits, expected, atol=ROUNDING, rtol=ROUNDING)
    merged.save_pretrained(tmp_path / "merged")
    theirs = stock.ASTForAudioClassification.from_pretrained(tmp_path / "merged").eval()
    torch.testing.assert_close(run(theirs, make_inputs()).logits, expected, atol=ROUNDING, rtol=ROUNDING)


@ignore_peft_warnings
@pytest.mark.parametrize("way", ["PeftModel", "load_adapter"])
def test_an_adapter_is_refused_by_the_stock_model_until_it_is_converted(peft, trained_adapter, tmp_path, way):
    _, folder, _ = trained_adapter(TARGETS)
    theirs = load_base(tmp_path, stock.ASTForAudioClassification)
    load = functools.partial(peft.PeftModel.from_pretrained, theirs) if way == "PeftModel" else theirs.load_adapter
    with pytest.raises(ValueError, match="No modules were targeted for adaptation.*check your `target_modules`"):
        load(folder)


@ignore_peft_warnings
def test_lora_trains_with_gradient_checkpointing(peft, make_model):
    found = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        settings = peft.LoraConfig(r=4, target_modules=TARGETS, init_lora_weights=False)
        model = peft.get_peft_model(make_model(), settings).train()
        if checkpointing:
            model.get_base_model().activation_checkpointing_enable()
        found.append(gradients(model, make_inputs()))
    assert len(found[0]) == 2 * len(TARGETS) * model.config.num_hidden_layers
    assert_close_gradients(found[1], found[0])

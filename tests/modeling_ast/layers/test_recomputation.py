"""Recomputation in the backward pass: the same gradients bit for bit, less memory."""

from contextlib import nullcontext

import numpy as np
import pytest
import torch
from model_runs import assert_close_gradients, assert_equal_gradients, gradients, make_inputs
from torch.func import functional_call, grad, vmap
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from modeling_ast import modeling_ast as implementation
from modeling_ast.layers import recomputation
from modeling_ast.modeling_ast import NUM_CLASS_TOKENS


@pytest.fixture(autouse=True)
def small_results_are_computed_again_too(monkeypatch):
    monkeypatch.setattr(recomputation, "KEPT_BYTES", 0)


def without_recomputation(monkeypatch):
    monkeypatch.setattr(implementation, "recomputed_in_backward", lambda *_: nullcontext())


class KeptBytes(TorchDispatchMode):
    """Bytes of the tensors made within it that still live."""

    def __init__(self):
        super().__init__()
        self.storages = {}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        outputs = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(outputs):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                reference = StorageWeakRef(storage)
                self.storages.setdefault(reference.cdata, (reference, storage.nbytes()))
        return outputs

    def __call__(self, model) -> int:
        weights = {StorageWeakRef(parameter.untyped_storage()).cdata for parameter in model.parameters()}
        return sum(
            size
            for reference, size in self.storages.values()
            if not reference.expired() and reference.cdata not in weights
        )


def bytes_kept(model, inputs: dict) -> int:
    model.zero_grad()
    with KeptBytes() as kept:
        loss = model(**inputs).loss
    kept_bytes = kept(model)
    loss.backward()  # not before: what it needs has to be alive until here
    return kept_bytes


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize(
    "circumstance", ["plain", "bfloat16", "autocast", "dropout", "checkpointing", "frozen below", "longer and masked"]
)
def test_recomputing_leaves_every_gradient_as_it_was_bit_for_bit(make_model, monkeypatch, attention, circumstance):
    dropout = 0.3 if circumstance == "dropout" else 0.0
    model = make_model(
        attn_implementation=attention, hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout
    ).train()
    inputs = make_inputs(200, [200, 96, 40]) if circumstance == "longer and masked" else make_inputs()
    if circumstance == "bfloat16":
        model.to(torch.bfloat16)
    if circumstance == "checkpointing":
        model.activation_checkpointing_enable()
    if circumstance == "frozen below":
        model.audio_spectrogram_transformer.embeddings.requires_grad_(False)
        model.audio_spectrogram_transformer.encoder.layer[0].requires_grad_(False)
    with torch.autocast("cpu", torch.bfloat16, enabled=circumstance == "autocast"):
        found = gradients(model, inputs)
        without_recomputation(monkeypatch)
        expected = gradients(model, inputs)
    assert len(expected) == sum(parameter.requires_grad for parameter in model.parameters())
    assert_equal_gradients(found, expected)


def test_what_is_recomputed_is_not_kept(make_model, monkeypatch):
    model, inputs = make_model().train(), make_inputs()
    results = []

    def observe(recomputed):
        def observed(result, *arguments):
            results.append(StorageWeakRef(result.untyped_storage()))
            return recomputed(result, *arguments)

        monkeypatch.setattr(implementation, "recomputed_in_backward", observed)

    def gone() -> list[bool]:
        results.clear()
        loss = model(**inputs).loss
        expired = [reference.expired() for reference in results]
        loss.backward()
        return expired

    per_layer = 3
    observe(implementation.recomputed_in_backward)
    assert gone() == [True] * per_layer * model.config.num_hidden_layers
    observe(lambda *_: nullcontext())
    assert gone() == [False] * per_layer * model.config.num_hidden_layers


@pytest.mark.parametrize("change", ["weights put in for one call", "a hook that changes the result"])
def test_what_is_recomputed_is_what_was_computed(make_model, monkeypatch, change):
    model, inputs = make_model().train(), make_inputs()
    weights = {name: weight.detach() * 1.5 for name, weight in model.named_parameters()}
    if change == "a hook that changes the result":
        for layer in model.audio_spectrogram_transformer.encoder.layer:
            for module in (layer.layernorm_before, layer.layernorm_after, layer.intermediate.activation):
                module.register_forward_hook(lambda _, __, output: output * 2)
        weights = {name: weight / 1.5 for name, weight in weights.items()}

    def found() -> tuple:
        leaves = {name: weight.clone().requires_grad_() for name, weight in weights.items()}
        loss = functional_call(model, leaves, kwargs=dict(inputs)).loss
        return torch.autograd.grad(loss, list(leaves.values()))

    gradients_found = found()
    without_recomputation(monkeypatch)
    assert all(torch.equal(ours, expected) for ours, expected in zip(gradients_found, found(), strict=True))


def test_recomputing_leaves_activations_alone_that_keep_their_own_result(make_model, monkeypatch):
    model, inputs = make_model(hidden_act="relu").train(), make_inputs()
    found = bytes_kept(model, inputs)
    monkeypatch.setattr(implementation, "recomputed_in_backward", lambda *_: nullcontext())
    assert found < bytes_kept(model, inputs)


def test_recomputing_saves_what_the_results_take(make_model, monkeypatch):
    model, inputs = make_model().train(), make_inputs()
    found = bytes_kept(model, inputs)
    without_recomputation(monkeypatch)
    config, tokens = model.config, NUM_CLASS_TOKENS + int(np.prod(model.config.patch_grid))
    per_token = 4 * (2 * config.hidden_size + config.intermediate_size)  # float32; two LayerNorms and the activation
    all_tokens = (
        config.num_hidden_layers - 1
    ) * tokens  # of the last layer only class tokens come to the feed-forward
    saved = all_tokens * per_token + 4 * tokens * config.hidden_size
    assert bytes_kept(model, inputs) - found >= len(inputs["labels"]) * saved


def test_small_results_are_kept(make_model, monkeypatch):
    model, inputs = make_model().train(), make_inputs()
    tokens = NUM_CLASS_TOKENS + int(np.prod(model.config.patch_grid))
    of_an_activation = 4 * len(inputs["labels"]) * tokens * model.config.intermediate_size  # float32
    without_activations = bytes_kept(model, inputs)
    monkeypatch.setattr(recomputation, "KEPT_BYTES", of_an_activation)
    assert bytes_kept(model, inputs) > without_activations, "the results of LayerNorms are smaller"
    monkeypatch.setattr(recomputation, "KEPT_BYTES", of_an_activation + 1)
    everything = bytes_kept(model, inputs)
    without_recomputation(monkeypatch)
    assert bytes_kept(model, inputs) == everything


def test_recomputing_costs_gradient_checkpointing_no_memory(make_model, monkeypatch):
    model, inputs = make_model(num_hidden_layers=4).train(), make_inputs()
    without_checkpointing = bytes_kept(model, inputs)
    model.activation_checkpointing_enable()
    found = bytes_kept(model, inputs)
    without_recomputation(monkeypatch)
    assert found == bytes_kept(model, inputs)
    assert found < without_checkpointing / 3, "a layer's input instead of all that is computed in it"


def test_recomputing_leaves_the_hooks_for_saved_tensors_to_whoever_set_them(make_model, monkeypatch):
    """As `torch.autograd.graph.save_on_cpu`, which would move nothing otherwise."""
    model, inputs = make_model().train(), make_inputs()

    def packed() -> list[torch.Size]:
        shapes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: shapes.append(t.shape) or t, lambda t: t):
            model(**inputs).loss.backward()
        return shapes

    found = packed()
    without_recomputation(monkeypatch)
    assert found == packed()


def test_a_graph_with_recomputation_can_be_walked_twice(make_model):
    model, inputs = make_model().train(), make_inputs()
    once = gradients(model, inputs)
    model.zero_grad()
    loss = model(**inputs).loss
    loss.backward(retain_graph=True)
    loss.backward()
    assert_equal_gradients({name: parameter.grad / 2 for name, parameter in model.named_parameters()}, once)


def test_gradients_of_gradients_pass_through_recomputation(make_model, monkeypatch):
    model, inputs = make_model(attn_implementation="eager").train(), make_inputs()

    def of_penalty() -> dict[str, torch.Tensor]:
        features = inputs["input_values"].clone().requires_grad_()
        loss = model(**inputs | {"input_values": features}).loss
        (slope,) = torch.autograd.grad(loss, features, create_graph=True)
        named = dict(model.named_parameters())
        found = torch.autograd.grad(slope.pow(2).sum(), named.values(), allow_unused=True)
        return {name: value for name, value in zip(named, found, strict=True) if value is not None}

    found = of_penalty()
    without_recomputation(monkeypatch)
    assert_close_gradients(found, of_penalty())
    assert "audio_spectrogram_transformer.encoder.layer.0.layernorm_before.weight" in found


def test_functional_gradients_equal_those_of_backward_also_clip_by_clip(make_model):
    model, inputs = make_model(attn_implementation="eager").train(), make_inputs()
    weights = {name: parameter.detach() for name, parameter in model.named_parameters()}

    def loss(weights, features, label):
        return functional_call(model, weights, (features[None],), {"labels": label[None]}).loss

    one_by_one = [
        gradients(model, {name: rows[clip : clip + 1] for name, rows in inputs.items()}) for clip in range(3)
    ]
    first = grad(loss)(weights, inputs["input_values"][0], inputs["labels"][0])
    assert_close_gradients(first, one_by_one[0])
    of_clips = vmap(grad(loss), in_dims=(None, 0, 0))(weights, inputs["input_values"], inputs["labels"])
    for clip, expected in enumerate(one_by_one):
        assert_close_gradients({name: rows[clip] for name, rows in of_clips.items()}, expected)

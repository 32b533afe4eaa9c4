"""Layers without gradients in fewer passes: the numbers of the modules, and who still has these called."""

import pytest
import torch
from model_runs import ROUNDING, make_inputs, run
from torch import nn

from modeling_ast import modeling_ast
from modeling_ast.layers import fused_layers, linear
from modeling_ast.layers.linear import Product

PLACES = {
    "attention": lambda layer: layer.attention,
    "output projection": lambda layer: layer.attention.output,
    "its linear layer": lambda layer: layer.attention.output.dense,
    "its dropout": lambda layer: layer.attention.output.dropout,
    "intermediate": lambda layer: layer.intermediate,
    "widening": lambda layer: layer.intermediate.dense,
    "activation": lambda layer: layer.intermediate.activation,
    "output": lambda layer: layer.output,
    "narrowing": lambda layer: layer.output.dense,
}


@pytest.fixture(autouse=True)
def operator():
    if not (torch.backends.mkldnn.is_available() and linear.has_operator()):
        pytest.skip("PyTorch has no such operator")


@pytest.fixture
def onednn(monkeypatch):
    """Let a processor be one for oneDNN, or not."""

    def choose(product: Product):
        for module in (linear, fused_layers):
            monkeypatch.setattr(module, "fastest_product", lambda: product)

    choose(Product.CONVOLUTION)
    return choose


@pytest.fixture
def fused(monkeypatch):
    """How often each of the two functions took the place of modules."""
    calls = {"linear_plus": 0, "feed_forward_plus": 0}

    def counted(name, function):
        def call(*args):
            calls[name] += 1
            return function(*args)

        return call

    for name in calls:
        monkeypatch.setattr(modeling_ast, name, counted(name, getattr(modeling_ast, name)))
    return calls


@pytest.mark.parametrize("case", ["whole", "masked", "several parts", "merged tokens", "attentions", "no bias"])
def test_a_model_of_fused_layers_equals_one_of_modules(make_model, monkeypatch, onednn, fused, case):
    model = make_model(num_hidden_layers=3, qkv_bias=case != "no bias")
    inputs = make_inputs(200, [200, 96, 40] if case == "masked" else None)
    if case == "several parts":
        monkeypatch.setattr(fused_layers, "ROWS_AT_ONCE", 50)
    if case == "merged tokens":
        model.merge_tokens(2)
    options = {"output_attentions": True} if case == "attentions" else {}
    if case != "merged tokens":
        options["output_hidden_states"] = True
    found = run(model, inputs, **options)
    assert fused == dict.fromkeys(fused, 3 if options else 2)  # class tokens alone are too few rows
    onednn(Product.BLAS)
    expected = run(model, inputs, **options)
    assert fused == dict.fromkeys(fused, 3 if options else 2)
    torch.testing.assert_close(found.logits, expected.logits, atol=ROUNDING, rtol=ROUNDING)
    for ours, theirs in zip(found.hidden_states or (), expected.hidden_states or (), strict=True):
        largest = theirs.abs().max()
        assert (ours - theirs).abs().max() <= ROUNDING * largest
    if case == "attentions":
        assert all(weights.sum(dim=-1).allclose(torch.ones(())) for weights in found.attentions)


@pytest.mark.parametrize("kind", ["hook", "hook before", "replaced forward", "training", "hook on every module"])
@pytest.mark.parametrize("place", PLACES)
def test_modules_that_somebody_changed_are_called(make_model, onednn, fused, place, kind):
    model, inputs = make_model(num_hidden_layers=3), make_inputs(200)
    part, calls = PLACES[place](model.audio_spectrogram_transformer.encoder.layer[0]), []
    handle = None
    if kind == "hook":
        part.register_forward_hook(lambda *args: calls.append(1))
    elif kind == "hook before":
        part.register_forward_pre_hook(lambda *args: calls.append(1))
    elif kind == "replaced forward":
        forward = part.forward
        part.forward = lambda *args: calls.append(1) or forward(*args)
    elif kind == "training":
        part.train()
        calls.append(1)
    else:
        handle = nn.modules.module.register_module_forward_hook(
            lambda module, *args: calls.append(1) if module is part else None
        )
    try:
        run(model, inputs)
    finally:
        if handle is not None:
            handle.remove()
    assert calls == [1]
    of_projection = place in ("attention", "output projection", "its linear layer", "its dropout")
    if kind == "hook on every module":
        assert not any(fused.values())
    elif kind != "training":  # which reaches the modules within
        assert fused == {"linear_plus": 2 - of_projection, "feed_forward_plus": 1 + of_projection}


def test_adapters_and_other_activations_are_obeyed(make_model, onednn, fused):
    class Doubled(modeling_ast.ASTLinear):
        def forward(self, rows):
            return 2 * super().forward(rows)

    model, inputs = make_model(num_hidden_layers=2), make_inputs(200)
    before = run(model, inputs).logits
    assert fused == {"linear_plus": 1, "feed_forward_plus": 1}
    layer = model.audio_spectrogram_transformer.encoder.layer[0]
    layer.output.dense.__class__ = Doubled
    assert not torch.allclose(run(model, inputs).logits, before)
    assert fused == {"linear_plus": 2, "feed_forward_plus": 1}
    layer.attention.output.dense.__class__ = Doubled
    run(model, inputs)
    assert fused == {"linear_plus": 2, "feed_forward_plus": 1}


@pytest.mark.parametrize("activation", ["relu", "silu", "gelu_new", "gelu_pytorch_tanh", "gelu"])
def test_only_gelu_by_the_error_function_is_applied_by_onednn(make_model, onednn, fused, activation):
    model, inputs = make_model(num_hidden_layers=2, hidden_act=activation), make_inputs(200)
    found = run(model, inputs).logits
    assert fused == {"linear_plus": 1, "feed_forward_plus": int(activation == "gelu")}
    onednn(Product.BLAS)
    torch.testing.assert_close(found, run(model, inputs).logits, atol=ROUNDING, rtol=ROUNDING)


@pytest.mark.parametrize("case", ["gradients", "autocast", "other numbers", "few rows", "switched off"])
@pytest.mark.filterwarnings("ignore:TF32 acceleration:UserWarning")
def test_what_the_operator_is_not_made_for_goes_through_modules(make_model, onednn, fused, case):
    model, inputs = make_model(num_hidden_layers=2), make_inputs(200)
    if case == "gradients":
        model(**inputs).loss.backward()
    elif case == "autocast":
        with torch.autocast("cpu", torch.bfloat16):
            run(model, inputs)
    elif case == "other numbers":
        run(model.to(torch.bfloat16), inputs)
    elif case == "few rows":
        run(model, make_inputs(16, batch=1))
    else:
        with torch.backends.mkldnn.flags(enabled=False):
            run(model, inputs)
    assert not any(fused.values())


@pytest.fixture
def matrix_products(monkeypatch):
    calls, function = [], modeling_ast.projected_patches
    monkeypatch.setattr(modeling_ast, "projected_patches", lambda *args: calls.append(1) or function(*args))
    return calls


@pytest.mark.parametrize("strides", [(10, 10), (16, 16), (7, 12)])
@pytest.mark.parametrize("frames", [96, 101])
def test_patches_of_one_product_equal_those_of_the_convolution(make_model, onednn, matrix_products, strides, frames):
    model = make_model(frequency_stride=strides[0], time_stride=strides[1], max_length=frames)
    patches = model.audio_spectrogram_transformer.embeddings.patch_embeddings
    inputs = torch.randn(3, frames, 2 * 48)[..., ::2]  # not contiguous
    with torch.no_grad():
        found = patches(inputs)
        assert matrix_products
        expected = nn.functional.conv2d(
            inputs.transpose(1, 2)[:, None].double(),
            patches.projection.weight.double(),
            patches.projection.bias.double(),
            stride=strides,
        )
    assert found.shape == expected.shape
    torch.testing.assert_close(found, expected.float(), atol=ROUNDING, rtol=ROUNDING)


class Counted(nn.Conv2d):
    """A projection of somebody's own kind."""

    def forward(self, images):
        self.calls.append(1)
        return super().forward(images)


@pytest.mark.parametrize("case", ["hook", "gradients", "another class", "float64"])
def test_a_projection_that_somebody_changed_is_called(make_model, onednn, matrix_products, case):
    model, inputs, calls = make_model(num_hidden_layers=1), make_inputs(96), []
    projection = model.audio_spectrogram_transformer.embeddings.patch_embeddings.projection
    if case == "hook":
        projection.register_forward_hook(lambda *args: calls.append(1))
    elif case == "another class":
        projection.__class__ = Counted
        projection.calls = calls
    elif case == "gradients":
        model(**inputs).loss.backward()
        assert projection.weight.grad is not None
        calls.append(1)
    else:
        model.double()
        calls.append(1)
    run(model, inputs)
    assert calls == [1]
    assert bool(matrix_products) == (case == "gradients")  # the pass after it has none

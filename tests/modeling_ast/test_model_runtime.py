"""What surrounds the model when it runs: compilers, mixed precision, memory savers, offloading, adapters, padded batches."""

import copy
import functools
import pickle
import shutil
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from accelerate import cpu_offload, disk_offload, dispatch_model
from torch import nn
from torch._dynamo.utils import counters
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily
from torch.autograd import forward_ad
from torch.func import functional_call, grad, vmap
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.flop_counter import FlopCounterMode
from transformers.models.audio_spectrogram_transformer import modeling_audio_spectrogram_transformer as stock

from finetune.clip_sets.augmentation import Augmentation
from finetune.clip_sets.collator import ASTDataCollator, model_inputs
from modeling_ast import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification, ASTModel
from modeling_ast import modeling_ast as implementation
from modeling_ast.adapters import LORA_TARGET_MODULES
from modeling_ast.features import log_mel
from modeling_ast.layers import linear
from modeling_ast.layers.linear import ASTLinear, Product
from modeling_ast.modeling_ast import NUM_CLASS_TOKENS

ROUNDING = 1e-5  # float32 sums in another order, of numbers around 1
SHORTCUT_TOLERANCE = 1e-6  # the same sums over the same numbers, perhaps by another kernel
NUM_LABELS = 5
MEL_BINS = 48  # four patches along frequency; the tests need no more
TRAINED_FRAMES = 96  # as in the fixture tiny_sizes

needs_compiler = pytest.mark.skipif(
    not any(shutil.which(name) for name in ("g++", "clang++", "c++")), reason="no C++ compiler for inductor"
)


@pytest.fixture
def make_model(tiny_sizes):
    """Models with the same random weights everywhere, large enough for every tensor to matter."""

    def make(model_class=ASTForAudioClassification, **changes):
        torch.manual_seed(0)
        sizes = tiny_sizes | {"num_mel_bins": MEL_BINS, "num_labels": NUM_LABELS}
        model = model_class(ASTConfig(**(sizes | changes)))
        with torch.no_grad():
            for parameter in model.parameters():
                nn.init.normal_(parameter, std=0.2)
        return model.eval()

    return make


def make_inputs(frames: int = TRAINED_FRAMES, lengths: list[int] | None = None, batch: int = 3) -> dict:
    """Features, labels, and with lengths a mask."""
    generator = torch.Generator().manual_seed(frames)
    inputs = {"input_values": torch.randn(batch, frames, MEL_BINS, generator=generator)}
    if lengths is not None:
        inputs["attention_mask"] = torch.arange(frames) < torch.tensor(lengths)[:, None]
    return inputs | {"labels": torch.arange(batch) % NUM_LABELS}


def run(model, inputs: dict, **kwargs):
    with torch.no_grad():
        return model(**inputs, **kwargs)


def gradients(model, inputs: dict, seed: int = 1) -> dict[str, torch.Tensor]:
    model.zero_grad()
    torch.manual_seed(seed)  # of dropout
    model(**inputs).loss.backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None}


def assert_close_gradients(found: dict, expected: dict, tolerance: float = ROUNDING):
    """Each tensor within a share of the largest gradient: what cancels to almost nothing is all rounding."""
    assert found.keys() == expected.keys()
    largest = max(gradient.abs().max() for gradient in expected.values())
    for name, gradient in expected.items():
        assert (found[name] - gradient).abs().max() <= tolerance * largest, name


def assert_equal_gradients(found: dict, expected: dict):
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        assert torch.equal(found[name], gradient), name


def same_weights(model, other) -> bool:
    weights = other.state_dict()
    return all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())


# torch.compile


@pytest.fixture
def graphs():
    """Counts the graphs compiled since."""
    torch._dynamo.reset()
    counters.clear()
    yield lambda: counters["stats"]["unique_graphs"]
    torch._dynamo.reset()


# Shorter than trained, as long, longer; (frames, lengths of the clips). An axis of one, be it clips or time patches, is
# for PyTorch always a graph of its own.
BATCHES = [(50, [50, 27, 9]), (96, [96, 50]), (200, [96, 200, 40]), (307, [306, 120, 50, 3])]


@pytest.mark.parametrize("masked", [False, True])
def test_one_compiled_graph_serves_clips_shorter_than_trained_as_long_and_longer(make_model, graphs, masked):
    model = make_model()
    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend="eager")
    for frames, lengths in BATCHES:
        inputs = make_inputs(frames, lengths if masked else None, batch=len(lengths))
        expected = run(model, inputs).logits
        torch.testing.assert_close(run(compiled, inputs).logits, expected, atol=ROUNDING, rtol=ROUNDING)
    assert graphs() == 1


def compiled_gradients(compiled, inputs: dict) -> dict[str, torch.Tensor]:
    return {name.removeprefix("_orig_mod."): value for name, value in gradients(compiled, inputs).items()}


@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_one_compiled_graph_trains_with_clips_of_all_these_lengths(make_model, graphs, masked, checkpointed):
    model = make_model().train()
    if checkpointed:
        model.activation_checkpointing_enable()
    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend="eager")
    for frames, lengths in BATCHES:
        inputs = make_inputs(frames, lengths if masked else None, batch=len(lengths))
        assert_close_gradients(compiled_gradients(compiled, inputs), gradients(model, inputs))
    assert graphs() == 1


@pytest.mark.parametrize("dynamic", [False, pytest.param(True, marks=pytest.mark.long)])  # ten seconds of tracing
def test_a_graph_compiled_with_its_backward_pass_gives_the_plain_gradients(make_model, graphs, dynamic):
    model = make_model(num_hidden_layers=1).train()
    compiled = torch.compile(model, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    for frames, lengths in BATCHES if dynamic else BATCHES[2:3]:
        inputs = make_inputs(frames, lengths, batch=len(lengths))
        assert_close_gradients(compiled_gradients(compiled, inputs), gradients(model, inputs))
    assert graphs() == 1


@pytest.mark.long  # half a minute of a C++ compiler
@needs_compiler
def test_the_default_compiler_gives_the_logits_of_the_plain_model(make_model, graphs, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    model = make_model(num_hidden_layers=1)
    compiled = torch.compile(model, fullgraph=True)
    inputs = make_inputs(200, [96, 200, 40])
    logits = run(compiled, inputs).logits
    torch.testing.assert_close(logits, run(model, inputs).logits, atol=ROUNDING, rtol=ROUNDING)
    assert graphs() == 1


# Mixed precision


def test_under_bfloat16_autocast_logits_stay_near_and_gradients_are_finite_float32(make_model):
    model = make_model().train()
    inputs = make_inputs(200, [200, 96, 40])
    expected = gradients(model, inputs)
    logits = run(model, inputs).logits
    with torch.autocast("cpu", torch.bfloat16):
        rounded = run(model, inputs).logits
        found = gradients(model, inputs)
    assert rounded.dtype is torch.bfloat16
    # Every product's factors are rounded to 8 bits: 0.4 % each, and these errors add up over the layers.
    assert (rounded - logits).norm() < 0.05 * logits.norm()
    assert all(gradient.dtype is torch.float32 and gradient.isfinite().all() for gradient in found.values())
    far = [name for name in expected if (found[name] - expected[name]).norm() > 0.2 * expected[name].norm()]
    # The same value added to all scores of a softmax changes nothing: these gradients are all rounding.
    assert all(name.endswith("key.bias") for name in far)


# Recomputation


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


# Linear layers


class Linears:
    """An `ASTLinear` beside a `torch.nn.Linear` with the same weights, and how often the first one calls oneDNN."""

    def __init__(self, monkeypatch, in_features=48, out_features=40, bias=True):
        torch.manual_seed(0)
        self.ours = ASTLinear(in_features, out_features, bias=bias)
        self.theirs = nn.Linear(in_features, out_features, bias=bias)
        self.theirs.load_state_dict(self.ours.state_dict())
        self.in_features, self.out_features = in_features, out_features
        self.calls_of_onednn = 0

        def counted(function):
            def call(*args, **kwargs):
                self.calls_of_onednn += 1
                return function(*args, **kwargs)

            return call

        monkeypatch.setattr(nn.functional, "conv2d", counted(nn.functional.conv2d))
        monkeypatch.setattr(linear._OneDNNLinear, "apply", counted(linear._OneDNNLinear.apply))

    def rows(self, above: bool) -> int:
        """So many that the threshold is passed, or a single one less."""
        least = linear.LEAST_ROWS
        if linear.fastest_product() is Product.CONVOLUTION:
            least = max(least, -(-linear.LEAST_MULTIPLICATIONS // (self.in_features * self.out_features)))
        return least if above else least - 1

    def check(self, inputs: torch.Tensor):
        """Results, with gradients and without, and the gradients equal those of `torch.nn.Linear`."""
        found, expected = (self.results(layer, inputs) for layer in (self.ours, self.theirs))
        # What a sum can lose is a share of the sum of its summands' sizes: here about the square root of their number,
        # some thousands at most, times the precision.
        magnitudes = self.results(self.sizes(), inputs.double().abs())
        for one, other, magnitude in zip(found, expected, magnitudes, strict=True):
            assert one.shape == other.shape
            assert one.dtype is other.dtype
            assert ((one - other).abs() <= 64 * torch.finfo(one.dtype).eps * magnitude).all()

    def sizes(self) -> nn.Linear:
        layer = copy.deepcopy(self.theirs).double()
        for parameter in layer.parameters():
            parameter.data.abs_()
        return layer

    def results(self, layer: nn.Linear, inputs: torch.Tensor) -> list[torch.Tensor]:
        layer.zero_grad()
        given = inputs.detach().requires_grad_()
        output = layer(given)
        output.backward(torch.linspace(0.5, 1.5, output.numel(), dtype=output.dtype).view(output.shape))
        with torch.no_grad():
            return [output, layer(inputs), given.grad, *(parameter.grad.clone() for parameter in layer.parameters())]


@pytest.fixture(params=[Product.CONVOLUTION, Product.ONEDNN], ids=lambda product: product.name)
def on_a_processor_for_onednn(request, monkeypatch):
    if not torch.backends.mkldnn.is_available():
        pytest.skip("PyTorch is built without oneDNN")
    if request.param is Product.ONEDNN and not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        pytest.skip("PyTorch has no such operator")
    monkeypatch.setattr(linear, "fastest_product", lambda: request.param)
    monkeypatch.setattr(linear, "LEAST_WEIGHTS", 48 * 40)
    return request.param


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("above", [True, False])
@pytest.mark.parametrize("threads", [1, 2])
def test_linear_layers_equal_those_of_pytorch_on_both_sides_of_the_threshold(
    on_a_processor_for_onednn, monkeypatch, threads, above, bias
):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)  # on which the way depends, the result does not
    layers = Linears(monkeypatch, bias=bias)
    inputs = torch.randn(layers.rows(above), layers.in_features)
    layers.check(inputs)
    assert bool(layers.calls_of_onednn) == above


def test_small_matrices_are_multiplied_by_blas(on_a_processor_for_onednn, monkeypatch):
    layers = Linears(monkeypatch, in_features=47)
    layers.check(torch.randn(linear.LEAST_ROWS, layers.in_features))
    assert not layers.calls_of_onednn


@pytest.mark.parametrize("layout", ["first tokens", "transposed", "strided features", "four axes", "expanded"])
def test_linear_layers_take_inputs_of_any_layout(on_a_processor_for_onednn, monkeypatch, layout):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    layers = Linears(monkeypatch)
    rows, features = layers.rows(above=True), layers.in_features
    inputs = {
        "first tokens": lambda: torch.randn(rows // 2 + 1, 7, features)[:, :2],
        "transposed": lambda: torch.randn(features, rows).T,
        "strided features": lambda: torch.randn(rows, 2 * features)[:, ::2],
        "four axes": lambda: torch.randn(2, rows // 4 + 1, 2, features).transpose(0, 1),
        "expanded": lambda: torch.randn(1, features).expand(rows, -1),
    }[layout]()
    assert layout == "four axes" or not inputs.is_contiguous()
    layers.check(inputs)
    assert layers.calls_of_onednn


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_linear_layers_of_other_dtypes_are_pytorchs(on_a_processor_for_onednn, monkeypatch, dtype):
    layers = Linears(monkeypatch)
    for layer in (layers.ours, layers.theirs):
        layer.to(dtype)
    layers.check(torch.randn(layers.rows(above=True), layers.in_features, dtype=dtype))
    assert not layers.calls_of_onednn


def test_linear_layers_obey_autocast(on_a_processor_for_onednn, monkeypatch):
    layers = Linears(monkeypatch)
    inputs = torch.randn(layers.rows(above=True), layers.in_features)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert layers.ours(inputs).dtype is torch.bfloat16
        assert torch.equal(layers.ours(inputs), layers.theirs(inputs))
    assert not layers.calls_of_onednn


@pytest.mark.filterwarnings("ignore:TF32 acceleration:UserWarning")
def test_linear_layers_do_without_onednn_where_it_is_switched_off(on_a_processor_for_onednn, monkeypatch):
    layers = Linears(monkeypatch)
    inputs = torch.randn(layers.rows(above=True), layers.in_features)
    with torch.backends.mkldnn.flags(enabled=False):
        layers.check(inputs)
    assert not layers.calls_of_onednn


@pytest.mark.parametrize(
    ("processor", "product"),
    [
        ({"cpu_name": "AMD EPYC 9654", "avx2": True, "avx512_f": True}, Product.CONVOLUTION),
        ({"cpu_name": "AMD EPYC 7763", "avx2": True, "avx512_f": False}, Product.ONEDNN),
        ({"cpu_name": "AMD Opteron 6386", "avx2": False, "avx512_f": False}, Product.BLAS),
        ({"cpu_name": "Intel(R) Xeon(R) Platinum 8480", "avx2": True, "avx512_f": True}, Product.BLAS),
        ({"avx2": True, "avx512_f": True}, Product.BLAS),  # who made it is not known
        ({"cpu_name": "Neoverse-V2", "architecture": "aarch64"}, Product.BLAS),
        ({}, Product.BLAS),
    ],
)
def test_the_processor_decides_how_matrices_are_multiplied(monkeypatch, processor, product):
    for backend in (torch.backends.mkl, torch.backends.mkldnn):
        monkeypatch.setattr(backend, "is_available", lambda: True)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: processor)
    assert linear.fastest_product.__wrapped__() is product
    if product is Product.BLAS:
        monkeypatch.setattr(linear, "fastest_product", linear.fastest_product.__wrapped__)
        monkeypatch.setattr(linear, "LEAST_WEIGHTS", 0)
        layers = Linears(monkeypatch)
        layers.check(torch.randn(200, 100, layers.in_features))
        assert not layers.calls_of_onednn


@pytest.mark.parametrize("backend", ["mkl", "mkldnn"])
def test_without_mkl_or_onednn_there_is_nothing_to_choose(monkeypatch, backend):
    monkeypatch.setattr(getattr(torch.backends, backend), "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"cpu_name": "AMD EPYC 9654", "avx512_f": True})
    assert linear.fastest_product.__wrapped__() is Product.BLAS


def test_without_onednns_operator_matrices_are_multiplied_by_blas(monkeypatch):
    for backend in (torch.backends.mkl, torch.backends.mkldnn):
        monkeypatch.setattr(backend, "is_available", lambda: True)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"cpu_name": "AMD EPYC 7763", "avx2": True})
    monkeypatch.setattr(torch.ops, "mkldnn", SimpleNamespace())
    assert linear.fastest_product.__wrapped__() is Product.BLAS


@pytest.mark.parametrize("trained", ["", "inputs", "weight", "bias", "inputs bias", "weight bias"])
def test_nothing_is_kept_for_gradients_that_nobody_wants(on_a_processor_for_onednn, monkeypatch, trained):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    layers = Linears(monkeypatch)
    inputs = torch.randn(layers.rows(above=True), layers.in_features, requires_grad="inputs" in trained)
    kept = {}
    for name, layer in (("ours", layers.ours), ("theirs", layers.theirs)):
        for parameter, tensor in layer.named_parameters():
            tensor.requires_grad_(parameter in trained)
        sizes = kept.setdefault(name, [])
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t, sizes=sizes: sizes.append(t.numel()) or t, lambda t: t
        ):
            output = layer(inputs)
        if trained:
            inputs.grad = None
            output.sum().backward()
        assert (inputs.grad is not None) == ("inputs" in trained)
    assert layers.calls_of_onednn
    if on_a_processor_for_onednn is Product.ONEDNN:
        assert sorted(kept["ours"]) == sorted(kept["theirs"])
    for ours, theirs in zip(layers.ours.parameters(), layers.theirs.parameters(), strict=True):
        assert (ours.grad is None) == (theirs.grad is None)


def test_gradients_of_several_losses_at_once_equal_those_of_pytorch(on_a_processor_for_onednn, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    layers = Linears(monkeypatch)
    inputs = torch.randn(2, layers.rows(above=True), layers.in_features, requires_grad=True)
    wanted = torch.randn(3, *inputs.shape[:2], layers.out_features)
    found = [
        torch.autograd.grad(layer(inputs), (inputs, layer.weight, layer.bias), wanted, is_grads_batched=True)
        for layer in (layers.ours, layers.theirs)
    ]
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-3)
    assert layers.calls_of_onednn


def test_a_head_alone_gets_gradients_sample_by_sample(on_a_processor_for_onednn, monkeypatch):
    layers = Linears(monkeypatch)
    inputs, head = torch.randn(layers.rows(above=True), layers.in_features), torch.randn(layers.out_features)
    found, expected = (
        grad(lambda head, layer=layer: (layer(inputs) @ head).sum())(head) for layer in (layers.ours, layers.theirs)
    )
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-3)
    scaled = vmap(lambda factor: layers.ours(inputs).sum() * factor)(torch.ones(3))
    torch.testing.assert_close(scaled, layers.theirs(inputs).sum().expand(3), rtol=1e-4, atol=1e-2)


def test_operations_of_linear_layers_are_counted(on_a_processor_for_onednn, monkeypatch):
    layers = Linears(monkeypatch)
    inputs = torch.randn(layers.rows(above=True), layers.in_features)
    counted = []
    for layer in (layers.ours, layers.theirs):
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            layer(inputs)
        counted.append(counter.get_total_flops())
    assert counted[0] == counted[1] > 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda inputs, layer: (inputs[:, :-1].contiguous(), layer.weight), "shapes cannot be multiplied|size"),
        (lambda inputs, layer: (inputs, layer.weight[0]), None),
        (lambda inputs, layer: (inputs, layer.weight, torch.ones(1)), None),
        (lambda inputs, layer: (inputs, layer.weight, layer.bias.double()), "dtype"),
        (lambda inputs, layer: (inputs.sum(), layer.weight), "0-?D|at least 1D|dim"),
    ],
)
def test_unusual_shapes_are_pytorchs_business(on_a_processor_for_onednn, monkeypatch, change, message):
    layers = Linears(monkeypatch)
    monkeypatch.setattr(linear, "LEAST_WEIGHTS", 1)
    monkeypatch.setattr(linear, "LEAST_MULTIPLICATIONS", 1)
    arguments = change(torch.randn(layers.rows(above=True), layers.in_features), layers.ours)
    if message:
        with pytest.raises(RuntimeError, match=message):
            linear.linear(*arguments)
    else:
        assert torch.equal(linear.linear(*arguments), nn.functional.linear(*arguments))
    assert not layers.calls_of_onednn


class Marked(torch.Tensor):
    """A tensor of somebody's own kind."""


def test_tensors_of_other_kinds_are_pytorchs_business(monkeypatch):
    monkeypatch.setattr(linear, "fastest_product", lambda: Product.ONEDNN)
    monkeypatch.setattr(linear, "LEAST_WEIGHTS", 1)
    layers = Linears(monkeypatch)
    inputs = torch.randn(layers.rows(above=True), layers.in_features)
    weight, bias = (tensor.detach() for tensor in (layers.ours.weight, layers.ours.bias))
    expected = nn.functional.linear(inputs, weight, bias)
    arguments = [inputs, weight, bias]
    for place, tensor in enumerate(arguments):
        found = linear.linear(*arguments[:place], tensor.as_subclass(Marked), *arguments[place + 1 :])
        assert type(found) is Marked
        assert torch.equal(found.as_subclass(torch.Tensor), expected)
    assert not layers.calls_of_onednn


@pytest.mark.parametrize("elsewhere", ["rows", "weight", "both"])
def test_tensors_that_are_not_on_the_processor_are_pytorchs_business(
    on_a_processor_for_onednn, monkeypatch, elsewhere
):
    layers = Linears(monkeypatch)
    inputs, weight = torch.randn(layers.rows(above=True), layers.in_features), layers.ours.weight.detach()
    inputs, weight = (
        tensor.to("meta") if elsewhere in (name, "both") else tensor
        for name, tensor in (("rows", inputs), ("weight", weight))
    )
    linear.linear(inputs, weight)
    assert not layers.calls_of_onednn


@pytest.mark.parametrize("other", ["rows", "weight"])
def test_tensors_of_two_dtypes_are_pytorchs_business(on_a_processor_for_onednn, monkeypatch, other):
    layers = Linears(monkeypatch)
    inputs, weight = torch.randn(layers.rows(above=True), layers.in_features), layers.ours.weight.detach()
    inputs, weight = (
        tensor.double() if other == name else tensor for name, tensor in (("rows", inputs), ("weight", weight))
    )
    with pytest.raises(RuntimeError, match="dtype"):
        linear.linear(inputs, weight)
    assert not layers.calls_of_onednn


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("trained", ["", "inputs", "weight"])
def test_convolutions_with_gradients_need_a_second_thread(monkeypatch, threads, trained):
    monkeypatch.setattr(linear, "fastest_product", lambda: Product.CONVOLUTION)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    layers = Linears(monkeypatch)
    strides = []
    counted = nn.functional.conv2d
    monkeypatch.setattr(nn.functional, "conv2d", lambda *a, **kw: strides.append(kw["stride"]) or counted(*a, **kw))
    inputs = torch.randn(layers.rows(above=True), layers.in_features, requires_grad=trained == "inputs")
    layers.ours.weight.requires_grad_(trained == "weight")
    layers.ours(inputs)
    assert bool(layers.calls_of_onednn) == (threads == 2 or not trained)
    # With one thread PyTorch gives a convolution to oneDNN only if it has a stride.
    assert strides == ([] if not layers.calls_of_onednn else [(2, 1) if threads == 1 else 1])


@pytest.mark.parametrize(("size", "product"), [(768, Product.ONEDNN), (384, Product.BLAS)])
def test_the_layers_of_ast_are_large_enough_for_onednns_matrix_product(monkeypatch, size, product):
    monkeypatch.setattr(linear, "fastest_product", lambda: Product.ONEDNN)
    assert linear._product_for(torch.randn(101, size), torch.randn(size, size), torch.randn(size)) is product


@pytest.mark.parametrize(("rows", "product"), [(101, Product.CONVOLUTION), (33, Product.BLAS)])
def test_the_layers_of_ast_are_large_enough_for_convolutions(monkeypatch, rows, product):
    monkeypatch.setattr(linear, "fastest_product", lambda: Product.CONVOLUTION)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(linear, "LEAST_ROWS", 1)
    assert linear._product_for(torch.randn(rows, 384), torch.randn(384, 384), None) is product


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_model_of_linear_layers_by_onednn_equals_one_by_blas(make_model, monkeypatch, checkpointing):
    if not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        pytest.skip("PyTorch has no such operator")
    model, inputs = make_model().train(), make_inputs(200, [200, 96, 40])
    expected = gradients(model, inputs)
    calls = []
    apply = linear._OneDNNLinear.apply
    monkeypatch.setattr(linear._OneDNNLinear, "apply", lambda *args: calls.append(1) or apply(*args))
    monkeypatch.setattr(linear, "LEAST_WEIGHTS", 1)
    monkeypatch.setattr(linear, "fastest_product", lambda: Product.ONEDNN)
    if checkpointing:
        model.gradient_checkpointing_enable()
    assert_close_gradients(gradients(model, inputs), expected)
    # Six layers in each but the last, which computes the class tokens alone.
    assert len(calls) >= 6 * (model.config.num_hidden_layers - 1)


def test_second_derivatives_and_tangents_equal_those_of_pytorch(on_a_processor_for_onednn, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    layers = Linears(monkeypatch)
    inputs, direction = torch.randn(2, layers.rows(above=True), layers.in_features)

    def curvature(layer):
        given = inputs.clone().requires_grad_()
        (slope,) = torch.autograd.grad(layer(given).pow(3).mean(), given, create_graph=True)
        return torch.autograd.grad(slope.pow(2).sum(), layer.weight)[0]

    torch.testing.assert_close(curvature(layers.ours), curvature(layers.theirs), rtol=1e-3, atol=1e-6)
    assert layers.calls_of_onednn
    with forward_ad.dual_level():
        given = forward_ad.make_dual(inputs, direction)
        tangents = [forward_ad.unpack_dual(layer(given)).tangent for layer in (layers.ours, layers.theirs)]
    torch.testing.assert_close(*tangents, rtol=1e-3, atol=1e-5)


@pytest.mark.filterwarnings("ignore:.*torch.jit.*is deprecated:DeprecationWarning")
def test_a_traced_linear_layer_stays_a_linear_layer(on_a_processor_for_onednn, monkeypatch):
    layers = Linears(monkeypatch)
    inputs = torch.randn(layers.rows(above=True), layers.in_features)
    assert "aten::linear" in str(torch.jit.trace(layers.ours, inputs, check_trace=False).graph)
    assert not layers.calls_of_onednn


def test_linear_layers_work_in_inference_mode(on_a_processor_for_onednn, monkeypatch):
    layers = Linears(monkeypatch)
    inputs = torch.randn(layers.rows(above=True), layers.in_features)
    with torch.inference_mode():
        torch.testing.assert_close(layers.ours(inputs), layers.theirs(inputs), atol=ROUNDING, rtol=ROUNDING)
    assert layers.calls_of_onednn


def test_linear_layers_give_gradients_sample_by_sample(on_a_processor_for_onednn, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    layers = Linears(monkeypatch)
    inputs = torch.randn(3, layers.rows(above=True), layers.in_features)

    def of_samples(layer):
        weights = {name: parameter.detach() for name, parameter in layer.named_parameters()}
        return vmap(grad(lambda w, sample: functional_call(layer, w, sample).pow(2).mean()), in_dims=(None, 0))(
            weights, inputs
        )

    found = of_samples(layers.ours)
    # The operator of oneDNN's matrix product does not know the tensors that these transforms hand around.
    assert bool(layers.calls_of_onednn) == (on_a_processor_for_onednn is Product.CONVOLUTION)
    assert_close_gradients(found, of_samples(layers.theirs))


def test_a_compiled_linear_layer_stays_a_matrix_product(on_a_processor_for_onednn, monkeypatch, graphs):
    layers = Linears(monkeypatch)
    compiled = torch.compile(layers.ours, fullgraph=True, backend="eager")
    inputs = torch.randn(layers.rows(above=True), layers.in_features)
    with torch.no_grad():
        assert torch.equal(compiled(inputs), layers.theirs(inputs))
    assert not layers.calls_of_onednn


# Offloading and copies


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
    assert torch.equal(run(model, inputs).logits, expected)


def test_a_model_spread_over_cpu_and_disk_by_layer_gives_the_same_logits(make_model, tmp_path):
    model, inputs = make_model(num_hidden_layers=3), make_inputs(200, [200, 96, 40])
    expected = run(model, inputs).logits
    base = "audio_spectrogram_transformer"
    device_map = {f"{base}.encoder.layer.{index}": "disk" if index else "cpu" for index in range(3)}
    device_map |= {f"{base}.embeddings": "disk", f"{base}.layernorm": "cpu", "classifier": "disk"}
    dispatched = dispatch_model(model, device_map, main_device="cpu", offload_dir=tmp_path / "dispatched")
    assert torch.equal(run(dispatched, inputs).logits, expected)

    make_model(num_hidden_layers=3).save_pretrained(tmp_path / "checkpoint")
    loaded = ASTForAudioClassification.from_pretrained(
        tmp_path / "checkpoint", device_map=device_map, offload_folder=tmp_path / "loaded"
    )
    offloaded = {name for name, parameter in loaded.named_parameters() if parameter.is_meta}
    on_disk = tuple(name for name, device in device_map.items() if device == "disk")
    assert offloaded == {name for name in loaded.state_dict() if name.startswith(on_disk)}
    assert torch.equal(run(loaded, inputs).logits, expected)


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


# Clips of many lengths in one batch


@pytest.fixture
def clips():
    """Waveforms longer than trained, shorter, and under the 16 frames of a patch."""
    generator = np.random.default_rng(0)
    return [
        generator.uniform(-0.5, 0.5, int(16_000 * seconds)).astype(np.float32) for seconds in (2.3, 0.6, 0.05, 1.4)
    ]


def extract(clips: list) -> dict:
    extractor = ASTFeatureExtractor(max_length=400, num_mel_bins=MEL_BINS, padding="longest")
    return dict(extractor(clips, sampling_rate=16_000, return_tensors="pt"))


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("way", ["eager", "sdpa", "compiled"])
def test_each_clip_of_a_mixed_batch_gets_the_logits_it_gets_alone(make_model, graphs, clips, way, train):
    model = make_model(attn_implementation="sdpa" if way == "compiled" else way).train(train)
    frames = extract(clips)["attention_mask"].sum(dim=1).tolist()
    assert max(frames) > TRAINED_FRAMES > min(frames)
    assert min(frames) < model.config.patch_size
    runner = torch.compile(model, fullgraph=True, dynamic=True, backend="eager") if way == "compiled" else model
    together = run(runner, extract(clips)).logits
    for row, clip in enumerate(clips):
        alone = extract([clip])
        assert ("attention_mask" in alone) == (frames[row] < model.config.patch_size)
        assert (together[row] - run(model, alone).logits[0]).abs().max() < ROUNDING


@pytest.mark.parametrize("patch_size", [8, 20])
def test_patches_of_another_size_than_the_released_ones_keep_to_that(make_model, clips, patch_size):
    model = make_model(patch_size=patch_size, frequency_stride=8, time_stride=8)
    short = [np.resize(clips[0], 400 + 160 * frames) for frames in (3, 6, 11, 25)]
    together = run(model, extract([*short, clips[0]])).logits
    for row, clip in enumerate(short):
        alone = extract([clip])
        frames = alone["input_values"].shape[1]
        if frames < patch_size:
            with pytest.raises(ValueError, match=rf"has {frames} frames, a patch needs {patch_size}\. Pad with"):
                run(model, alone)
        else:
            assert (together[row] - run(model, alone).logits[0]).abs().max() < ROUNDING


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_gradients_of_a_mixed_batch_are_the_mean_of_its_clips(make_model, clips, attention):
    model = make_model(attn_implementation=attention).train()
    labels = torch.arange(len(clips))
    together = gradients(model, extract(clips) | {"labels": labels})
    alone = [
        gradients(model, extract([clip]) | {"labels": label[None]}) for clip, label in zip(clips, labels, strict=True)
    ]
    mean = {name: torch.stack([found[name] for found in alone]).mean(dim=0) for name in together}
    assert_close_gradients(together, mean)


# The last layer


@pytest.fixture
def uncompiled_flex_attention():
    """Transformers compiles its kernels, seconds for each shape; test_modeling_ast.py has them do so."""
    with torch.compiler.set_stance("force_eager"):
        yield


def tokens_seen(model, inputs: dict, **kwargs) -> list[int]:
    """Tokens that come to the feed-forward layers, one number a layer."""
    body = model.base_model
    seen = []
    hooks = [
        layer.intermediate.register_forward_hook(lambda _, args, __: seen.append(args[0].shape[1]))
        for layer in body.encoder.layer
    ]
    run(model, inputs, **kwargs)
    for hook in hooks:
        hook.remove()
    return seen


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile:UserWarning")
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("attention", ["eager", "sdpa", "flex_attention"])
def test_the_last_layer_computes_class_tokens_only_and_they_are_equal(
    uncompiled_flex_attention, make_model, attention, masked
):
    model = make_model(attn_implementation=attention)
    inputs = make_inputs(200, [200, 96, 40] if masked else None)
    short, full = run(model, inputs).logits, run(model, inputs, output_hidden_states=True).logits
    assert (short - full).abs().max() < SHORTCUT_TOLERANCE
    tokens = run(model, inputs, output_hidden_states=True).hidden_states[0].shape[1]
    # The masks of flex attention are made for as many queries as keys: with one, all tokens are computed.
    last = tokens if attention == "flex_attention" and masked else NUM_CLASS_TOKENS
    assert tokens_seen(model, inputs) == [tokens, last]
    assert tokens_seen(model, inputs, output_hidden_states=True) == [tokens, tokens]


@pytest.mark.parametrize("masked", [False, True])
def test_gradients_through_the_class_tokens_equal_those_of_the_whole_last_layer(make_model, masked):
    model, inputs = make_model().train(), make_inputs(200, [200, 96, 40] if masked else None)
    found = gradients(model, inputs)
    assert_close_gradients(found, gradients(model, inputs | {"output_hidden_states": True}))


def test_outputs_of_all_tokens_stay_complete(make_model):
    model, inputs = make_model(), make_inputs()
    tokens = NUM_CLASS_TOKENS + int(np.prod(model.config.patch_grid))
    states = run(model, inputs, output_hidden_states=True).hidden_states
    assert [state.shape[1] for state in states] == [tokens] * (1 + model.config.num_hidden_layers)
    weights = run(model, inputs, output_attentions=True).attentions
    assert [weight.shape[2:] for weight in weights] == [(tokens, tokens)] * model.config.num_hidden_layers
    for setting in ("output_hidden_states", "output_attentions"):  # asked for by the configuration
        configured = make_model(attn_implementation="eager", **{setting: True})
        assert tokens_seen(configured, inputs) == [tokens] * model.config.num_hidden_layers


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile:UserWarning")
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("attention", ["eager", "sdpa", "flex_attention"])
def test_the_bare_model_returns_all_tokens_unless_asked_for_the_class_tokens(
    uncompiled_flex_attention, make_model, attention, masked
):
    model = make_model(ASTModel, attn_implementation=attention)
    inputs = make_inputs(200, [200, 96, 40] if masked else None)
    del inputs["labels"]
    everything, short = run(model, inputs), run(model, inputs, class_tokens_only=True)
    assert everything.last_hidden_state.shape[1] > NUM_CLASS_TOKENS
    assert short.last_hidden_state.shape[1] == NUM_CLASS_TOKENS
    difference = short.last_hidden_state - everything.last_hidden_state[:, :NUM_CLASS_TOKENS]
    # LayerNorm has brought the tokens to size 1: SHORTCUT_TOLERANCE is of the logits.
    assert difference.abs().max() < ROUNDING
    assert (short.pooler_output - everything.pooler_output).abs().max() < ROUNDING


@pytest.mark.parametrize("output", ["output_hidden_states", "output_attentions"])
def test_class_tokens_alone_exclude_outputs_of_all_tokens(make_model, output):
    with pytest.raises(ValueError, match="class_tokens_only=True leaves out .* Pass one or the other"):
        make_model(ASTModel)(make_inputs()["input_values"], class_tokens_only=True, **{output: True})


# A step on an accelerator

AUGMENTATION = Augmentation(max_frequency_mask=8, max_time_mask=20, max_roll=10)


@pytest.fixture
def constants_made_before(monkeypatch):
    """What `log_mel` computes once and keeps is made before a step, and is not what a step waits for."""

    def outside(function):
        def made(*args):
            device = next((arg for arg in args if isinstance(arg, torch.device)), torch.device("cpu"))
            on_cpu = [torch.device("cpu") if isinstance(arg, torch.device) else arg for arg in args]
            with unset_fake_temporarily():
                constants = function(*on_cpu)
            return tree_map_only(torch.Tensor, lambda t: torch.empty(t.shape, dtype=t.dtype, device=device), constants)

        return made

    for name, function in list(vars(log_mel).items()):
        if hasattr(function, "cache_clear"):
            monkeypatch.setattr(log_mel, name, outside(function))


@pytest.fixture
def on_an_accelerator(make_model):
    """A model whose tensors claim to be on a GPU, and the mode in which they do. In it, reading a tensor's value, for
    which the host would have to wait, raises."""

    def make(**changes):
        with torch.device("meta"):
            model = make_model(**changes).train()
        with FakeTensorMode(allow_non_fake_inputs=True) as mode:
            model.to_empty(device="cuda")
        return model, mode

    return make


@pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor:UserWarning")
@pytest.mark.parametrize("same_length", [False, True])
@pytest.mark.parametrize("padding", ["longest", "max_length"])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_features_forward_pass_and_loss_never_wait_for_the_device(
    on_an_accelerator, constants_made_before, clips, attention, padding, same_length
):
    extractor = ASTFeatureExtractor(max_length=TRAINED_FRAMES, num_mel_bins=MEL_BINS, padding=padding)
    augmentation = AUGMENTATION
    examples = [
        {
            "waveform": clips[0] if same_length else clip,
            "label": np.int64(index),
            "draws": augmentation.draw(seed=0, epoch=0, index=index, num_clips=len(clips)),
        }
        for index, clip in enumerate(clips)
    ]
    batch = ASTDataCollator(extractor, compute_features=False)(examples)
    model, mode = on_an_accelerator(attn_implementation=attention)
    with mode:
        batch = tree_map_only(
            torch.Tensor, lambda tensor: torch.empty(tensor.shape, dtype=tensor.dtype, device="cuda"), batch
        )
        inputs = model_inputs(batch, extractor, augmentation)
        assert ("attention_mask" in inputs) == (padding == "longest" and not same_length)
        loss = model(**inputs).loss
    assert loss.device.type == "cuda"
    assert loss.requires_grad


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_the_model_and_its_backward_pass_never_wait_for_the_device(make_model, attention):
    """On the device "meta", where there are no values: a backward pass on another one needs its driver. Transformers
    does not look at a mask that is fake, but it would at this one."""
    model = make_model(attn_implementation=attention).train().to("meta")
    inputs = {name: tensor.to("meta") for name, tensor in make_inputs(200, [200, 96, 40]).items()}
    model(**inputs).loss.backward()
    assert all(parameter.grad.shape == parameter.shape for parameter in model.parameters())

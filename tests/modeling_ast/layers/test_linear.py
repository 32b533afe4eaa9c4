"""Linear layers by oneDNN against those of PyTorch: results, gradients, and who computes what."""

import copy

import pytest
import torch
from model_runs import ROUNDING, assert_close_gradients, gradients, make_inputs
from torch import nn
from torch.autograd import forward_ad
from torch.func import functional_call, grad, vmap
from torch.utils.flop_counter import FlopCounterMode

from modeling_ast.layers import linear
from modeling_ast.layers.linear import ASTLinear, Product


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
        monkeypatch.setattr(linear, "_multiply", counted(linear._multiply))

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


@pytest.fixture(params=["matrix product", "convolution"])
def on_a_processor_for_onednn(request, monkeypatch):
    if not torch.backends.mkldnn.is_available():
        pytest.skip("PyTorch is built without oneDNN")
    monkeypatch.setattr(linear, "fastest_product", lambda: Product.CONVOLUTION)
    if request.param == "convolution":  # without gradients, too
        monkeypatch.setattr(linear, "MOST_ROWS", 0)


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
        ({"cpu_name": "AMD EPYC 7763", "avx2": True, "avx512_f": False}, Product.BLAS),
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
        layers = Linears(monkeypatch)
        layers.check(torch.randn(200, 100, layers.in_features))
        assert not layers.calls_of_onednn


@pytest.mark.parametrize("backend", ["mkl", "mkldnn"])
def test_without_mkl_or_onednn_there_is_nothing_to_choose(monkeypatch, backend):
    monkeypatch.setattr(getattr(torch.backends, backend), "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"cpu_name": "AMD EPYC 9654", "avx512_f": True})
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
    monkeypatch.setattr(linear, "fastest_product", lambda: Product.CONVOLUTION)
    layers = Linears(monkeypatch)
    inputs = torch.randn(layers.rows(above=True), layers.in_features)
    weight, bias = (tensor.detach() for tensor in (layers.ours.weight, layers.ours.bias))
    expected = nn.functional.linear(inputs, weight, bias)
    arguments = [inputs, weight, bias]
    for place, tensor in enumerate(arguments):
        found = linear.linear(*arguments[:place], tensor.as_subclass(Marked), *arguments[place + 1 :])
        assert type(found) is Marked
        torch.testing.assert_close(found.as_subclass(torch.Tensor), expected, rtol=1e-4, atol=1e-4)


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
    monkeypatch.setattr(linear, "MOST_ROWS", 0)  # or what has no gradients would go to the matrix product
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


@pytest.mark.parametrize(
    ("rows", "trained", "product"),
    [(4096, False, Product.ONEDNN), (4097, False, Product.CONVOLUTION), (4096, True, Product.CONVOLUTION)],
)
def test_few_rows_without_gradients_go_to_onednns_matrix_product(monkeypatch, rows, trained, product):
    monkeypatch.setattr(linear, "fastest_product", lambda: Product.CONVOLUTION)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    weight = torch.randn(128, 128, requires_grad=trained)
    found = linear._product_for(torch.randn(1, rows, 128), weight, None)
    if not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        product = Product.CONVOLUTION
    assert found is product


@pytest.mark.parametrize(("rows", "product"), [(101, Product.CONVOLUTION), (33, Product.BLAS)])
def test_the_layers_of_ast_are_large_enough_for_convolutions(monkeypatch, rows, product):
    monkeypatch.setattr(linear, "fastest_product", lambda: Product.CONVOLUTION)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(linear, "LEAST_ROWS", 1)
    weight = torch.randn(384, 384, requires_grad=True)
    assert linear._product_for(torch.randn(rows, 384), weight, None) is product


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_model_of_linear_layers_by_onednn_equals_one_by_blas(make_model, monkeypatch, checkpointing):
    model, inputs = make_model().train(), make_inputs(200, [200, 96, 40])
    expected = gradients(model, inputs)
    calls = []
    convolve = linear._convolve
    monkeypatch.setattr(linear, "_convolve", lambda *args: calls.append(1) or convolve(*args))
    monkeypatch.setattr(linear, "LEAST_MULTIPLICATIONS", 1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(linear, "fastest_product", lambda: Product.CONVOLUTION)
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
    assert (
        layers.calls_of_onednn
    )  # as convolutions: the operator does not know the tensors that these transforms hand around
    assert_close_gradients(found, of_samples(layers.theirs))


def test_a_compiled_linear_layer_stays_a_matrix_product(on_a_processor_for_onednn, monkeypatch, graphs):
    layers = Linears(monkeypatch)
    compiled = torch.compile(layers.ours, fullgraph=True, backend="eager")
    inputs = torch.randn(layers.rows(above=True), layers.in_features)
    with torch.no_grad():
        assert torch.equal(compiled(inputs), layers.theirs(inputs))
    assert not layers.calls_of_onednn

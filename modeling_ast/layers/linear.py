"""Linear layers that multiply with oneDNN where that is faster than the BLAS behind `torch.nn.functional.linear`.

PyTorch's x86 builds multiply float32 matrices with MKL, which leaves AVX-512 unused on processors that are not Intel's. There a
linear layer is computed by oneDNN, the library behind PyTorch's convolutions, as what it also is, a convolution of width 1, forwards
and backwards. Without gradients and for a few thousand rows the matrix product of oneDNN itself is faster still, which the
operator calls that PyTorch's compiler uses. Without AVX-512 both are slower than MKL: on an AMD EPYC a base model took a quarter more time.
"""

from enum import Enum
from functools import cache

import torch
from torch import nn
from torch.autograd import forward_ad
from torch.utils._python_dispatch import _get_current_dispatch_mode

# From so many rows and multiplications on the convolution's longer way to its kernel pays.
LEAST_ROWS = 64
LEAST_MULTIPLICATIONS = 5_000_000
MOST_ROWS = 4096  # up to which oneDNN's matrix product was measured to be no slower than its convolution, with AVX-512


class Product(Enum):
    """How matrices of float32 are multiplied."""

    BLAS = "BLAS"
    CONVOLUTION = "oneDNN's convolution"
    ONEDNN = "oneDNN's matrix product"


@cache
def fastest_product() -> Product:
    """Tell what was measured to be the fastest on processors of this kind.

    Returns:
        [`Product`]: `CONVOLUTION`, which stands for oneDNN, or `BLAS`; asked of the processor once.
    """
    if not (torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()):
        return Product.BLAS
    processor = torch.cpu.get_capabilities()
    if "intel" in processor.get("cpu_name", "intel").lower():
        return Product.BLAS
    return Product.CONVOLUTION if processor.get("avx512_f") else Product.BLAS


def has_operator() -> bool:
    """Tell whether PyTorch has the operator that calls oneDNN's matrix product, which is not public, and may go.

    Returns:
        `bool`.
    """
    return hasattr(torch.ops.mkldnn, "_linear_pointwise")


def linear(rows: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """`torch.nn.functional.linear`, on the fastest way.

    Args:
        rows (`torch.Tensor` of shape `(..., in_features)`): what is multiplied.
        weight (`torch.Tensor` of shape `(out_features, in_features)`): the matrix.
        bias (`torch.Tensor` of shape `(out_features,)`, *optional*): what is added.

    Returns:
        `torch.Tensor` of shape `(..., out_features)`; differs only in the order in which float32 products are summed.
    """
    product = _product_for(rows, weight, bias)
    if product is Product.CONVOLUTION:
        return _convolve(rows, weight, bias)
    if product is Product.ONEDNN:
        return _multiply(rows, weight, bias)
    return nn.functional.linear(rows, weight, bias)


def _product_for(rows: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> Product:
    # A compiled, exported or traced graph keeps the layer: its compiler knows better what to do with that.
    if torch.compiler.is_compiling() or torch.jit.is_tracing() or not torch.backends.mkldnn.enabled:
        return Product.BLAS
    if fastest_product() is Product.BLAS:  # by far the most frequent answer is given soon
        return Product.BLAS
    if not runs_in_float32(rows, weight) or not _fit(rows, weight, bias) or rows.numel() < LEAST_ROWS * rows.shape[-1]:
        return Product.BLAS
    if rows.numel() * len(weight) < LEAST_MULTIPLICATIONS:
        return Product.BLAS
    if torch.is_grad_enabled() and (rows.requires_grad or weight.requires_grad):
        # Backwards with one thread oneDNN is the slower of the two.
        return Product.CONVOLUTION if torch.get_num_threads() > 1 else Product.BLAS
    is_short = rows.numel() <= MOST_ROWS * rows.shape[-1]
    learns = torch.is_grad_enabled() and bias is not None and bias.requires_grad  # which the operator knows nothing of
    if is_short and not learns and has_operator() and is_for_operator(rows, weight, bias):
        return Product.ONEDNN
    return Product.CONVOLUTION


def runs_in_float32(rows: torch.Tensor, weight: torch.Tensor) -> bool:
    """Tell whether a product is one of float32 on the CPU.

    Args:
        rows (`torch.Tensor`): what is multiplied.
        weight (`torch.Tensor`): the matrix.

    Returns:
        `bool`.
    """
    in_float32 = rows.dtype == weight.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    return in_float32 and rows.device.type == weight.device.type == "cpu"


def _fit(rows: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> bool:
    """Whether these are a linear layer's shapes. Other ones PyTorch broadcasts, or refuses with its own words."""
    are_linear = rows.dim() > 0 and weight.dim() == 2 and rows.shape[-1] == weight.shape[1]
    return are_linear and (bias is None or (bias.shape == weight.shape[:1] and bias.dtype == weight.dtype))


def is_for_operator(rows: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> bool:
    """Tell whether oneDNN's operator can stand for a layer: it is made for plain numbers, and knows nothing of tangents, of the
    transforms of `torch.func`, and of who counts or records operations.

    Args:
        rows (`torch.Tensor`): what is multiplied.
        weight (`torch.Tensor`): the matrix.
        bias (`torch.Tensor`, *optional*): what is added.

    Returns:
        `bool`.
    """
    tensors = [rows, weight] if bias is None else [rows, weight, bias]
    are_plain = all(
        type(tensor) in (torch.Tensor, nn.Parameter) and tensor.layout is torch.strided for tensor in tensors
    )
    # PyTorch, which setup.cfg holds to the tried version, has no public way to ask these three.
    is_transformed = torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0
    return are_plain and not is_transformed and _get_current_dispatch_mode() is None


def _convolve(rows: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    # With one thread PyTorch computes convolutions of width 1 with BLAS, except those with a stride. Over an image of
    # one row a vertical stride changes nothing.
    stride = (2, 1) if torch.get_num_threads() == 1 else 1
    image = rows.reshape(1, 1, -1, rows.shape[-1]).permute(0, 3, 1, 2)  # (1, in_features, 1, rows)
    image = nn.functional.conv2d(image, weight[:, :, None, None], bias, stride=stride)  # (1, out_features, 1, rows)
    return image.permute(0, 2, 3, 1).reshape(*rows.shape[:-1], len(weight))


def _multiply(rows: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    return torch.ops.mkldnn._linear_pointwise(rows, weight, bias, "none", [], "")  # has no way back


class ASTLinear(nn.Linear):
    """`torch.nn.Linear`, computed by [`linear`].

    Eager dynamic quantization goes by the exact type: name both, `{nn.Linear, ASTLinear}`, or take `ast-export --int8`.
    """

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Multiply by the weights, as [`linear`] does.

        Args:
            hidden_states (`torch.Tensor` of shape `(..., in_features)`): the rows.

        Returns:
            `torch.Tensor` of shape `(..., out_features)`.
        """
        return linear(hidden_states, self.weight, self.bias)

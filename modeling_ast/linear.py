"""Linear layers that multiply with oneDNN where that is faster than the BLAS behind `torch.nn.functional.linear`.

PyTorch's x86 builds multiply float32 matrices with MKL, which leaves the 512-bit instructions of processors that are
not Intel's unused; oneDNN, which PyTorch uses for convolutions, does not. A linear layer is a convolution of width 1,
so that is how it reaches oneDNN, forwards and backwards, by public functions alone.
"""

from functools import cache

import torch
from torch import nn

# From so many rows and multiplications on the convolution's longer way to its kernel pays.
LEAST_ROWS = 64
LEAST_MULTIPLICATIONS = 5_000_000


@cache
def onednn_beats_blas() -> bool:
    """Whether this processor is of the kind on which oneDNN was measured to be faster: x86 with AVX-512, not Intel's."""
    if not (torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()):
        return False
    processor = torch.cpu.get_capabilities()
    return bool(processor.get("avx512_f")) and "intel" not in processor.get("cpu_name", "intel").lower()


def linear(rows: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """`torch.nn.functional.linear`, on the faster way.

    Args:
        rows (`torch.Tensor` of shape `(..., in_features)`): what is multiplied.
        weight (`torch.Tensor` of shape `(out_features, in_features)`): the matrix.
        bias (`torch.Tensor` of shape `(out_features,)`, *optional*): what is added.

    Returns:
        `torch.Tensor` of shape `(..., out_features)`; differs only in the order in which float32 products are summed.
    """
    if not _goes_to_onednn(rows, weight):
        return nn.functional.linear(rows, weight, bias)
    # With one thread PyTorch computes convolutions of width 1 with BLAS, except those with a stride. Over an image of
    # one row a vertical stride changes nothing.
    stride = (2, 1) if torch.get_num_threads() == 1 else 1
    image = rows.reshape(1, 1, -1, rows.shape[-1]).permute(0, 3, 1, 2)  # (1, in_features, 1, rows)
    image = nn.functional.conv2d(image, weight[:, :, None, None], bias, stride=stride)  # (1, out_features, 1, rows)
    return image.permute(0, 2, 3, 1).reshape(*rows.shape[:-1], len(weight))


def _goes_to_onednn(rows: torch.Tensor, weight: torch.Tensor) -> bool:
    # A compiled or exported graph keeps the matrix product: its compiler knows better what to do with that.
    if torch.compiler.is_compiling() or not onednn_beats_blas() or not torch.backends.mkldnn.enabled:
        return False
    if rows.numel() < LEAST_ROWS * rows.shape[-1] or rows.numel() * len(weight) < LEAST_MULTIPLICATIONS:
        return False
    in_float32 = rows.dtype == weight.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    on_cpu = rows.device.type == weight.device.type == "cpu"
    # Backwards with one thread oneDNN is the slower of the two.
    has_gradients = torch.is_grad_enabled() and (rows.requires_grad or weight.requires_grad)
    return in_float32 and on_cpu and (torch.get_num_threads() > 1 or not has_gradients)


class ASTLinear(nn.Linear):
    """`torch.nn.Linear`, computed by [`linear`].

    Eager dynamic quantization goes by the exact type: name both, `{nn.Linear, ASTLinear}`, or take `ast-export --int8`.
    """

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """`(..., in_features)` to `(..., out_features)`."""
        return linear(hidden_states, self.weight, self.bias)

"""Linear layers that multiply with oneDNN where that is faster than the BLAS behind `torch.nn.functional.linear`.

PyTorch's x86 builds multiply float32 matrices with MKL, which leaves the 512-bit instructions of processors that are
not Intel's unused; oneDNN, which PyTorch uses for convolutions, does not. A linear layer is a convolution of width 1,
so that is how it reaches oneDNN, forwards and backwards, by public functions alone.
"""

from functools import cache

import torch
from torch import nn

# Multiplications from which the convolution's longer way to its kernel pays.
LEAST_MULTIPLICATIONS = 10_000_000


@cache
def onednn_beats_blas() -> bool:
    """Whether this processor is of the kind on which oneDNN was measured to be faster: x86 with AVX-512, not Intel's."""
    if not (torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()):
        return False
    processor = torch.cpu.get_capabilities()
    return bool(processor.get("avx512_f")) and "intel" not in processor.get("cpu_name", "intel").lower()


class ASTLinear(nn.Linear):
    """`torch.nn.Linear`: the same parameters, the same result but for the order in which float32 products are summed."""

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """`(..., in_features)` to `(..., out_features)`."""
        if not self._goes_to_onednn(hidden_states):
            return super().forward(hidden_states)
        rows = hidden_states.reshape(1, 1, -1, self.in_features).permute(0, 3, 1, 2)  # (1, in_features, 1, rows)
        rows = nn.functional.conv2d(rows, self.weight[:, :, None, None], self.bias)  # (1, out_features, 1, rows)
        return rows.permute(0, 2, 3, 1).reshape(*hidden_states.shape[:-1], self.out_features)

    def _goes_to_onednn(self, hidden_states: torch.Tensor) -> bool:
        # A compiled or exported graph keeps the matrix product: its compiler knows better what to do with that.
        if torch.compiler.is_compiling() or not onednn_beats_blas() or not torch.backends.mkldnn.enabled:
            return False
        in_float32 = hidden_states.dtype == self.weight.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
        on_cpu = hidden_states.device.type == self.weight.device.type == "cpu"
        return on_cpu and in_float32 and hidden_states.numel() * self.out_features >= LEAST_MULTIPLICATIONS

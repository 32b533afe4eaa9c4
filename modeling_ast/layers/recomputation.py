"""Training memory: intermediate results that are cheap to compute are computed again in the backward pass.

What a linear layer keeps for its backward pass is its input. Where that input is the output of a LayerNorm or of a GELU or
SiLU, these keep their own input anyway, so that keeping the output too costs memory for a few percent of a step's
arithmetic. Small results are kept: they are little memory, and the same share of a step.
"""

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial

import torch
from torch import nn
from transformers.activations import GELUActivation, NewGELUActivation, SiLUActivation

# Of a result that is not computed again; that of a batch of 32 short clips of a small model has about half.
KEPT_BYTES = 8 * 2**20
_KEEP_THEIR_INPUT = (nn.GELU, nn.SiLU, GELUActivation, NewGELUActivation, SiLUActivation)


def recomputed_in_backward(result: torch.Tensor, module: nn.Module, source: torch.Tensor):
    """Context in which autograd does not keep `result`, but computes it again from `source` when needed.

    Args:
        result (`torch.Tensor`): what `module(source)` returned; freed once nothing else refers to it.
        module (`nn.Module`): a LayerNorm or an activation.
        source (`torch.Tensor`): its argument.

    Returns:
        A context manager for the operations that take `result`. It does nothing without gradients, for small results, for modules of other
        kinds or with hooks, which may change the result, in a compiled graph, whose compiler decides itself what to keep,
        under the transforms of `torch.func`, which do not allow it, and where somebody else already decides what is
        kept, as gradient checkpointing does.
    """
    if not result.requires_grad or torch.compiler.is_compiling() or not torch.is_grad_enabled():
        return nullcontext()
    if result.nbytes < KEPT_BYTES:
        return nullcontext()
    hooks = torch._C._autograd  # PyTorch has no public way to ask these two
    if not hooks._saved_tensors_hooks_is_enabled() or hooks._top_saved_tensors_default_hooks(False) is not None:
        return nullcontext()
    function = _function_of(module)
    place = _storage(result)
    if function is None or not place:  # a tensor without values could not be told from others
        return nullcontext()
    source = source.detach()

    def keep(tensor: torch.Tensor):
        return (tensor.shape, tensor.stride(), tensor.storage_offset()) if _storage(tensor) == place else tensor

    def give_back(kept) -> torch.Tensor:
        if isinstance(kept, torch.Tensor):
            return kept
        with torch.no_grad():
            again = function(source)
        return again.as_strided(*kept)

    return torch.autograd.graph.saved_tensors_hooks(keep, give_back)


def _function_of(module: nn.Module) -> Callable[[torch.Tensor], torch.Tensor] | None:
    """What the module computes now, whatever becomes of its parameters until the backward pass."""
    if module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module):  # Accelerate replaces the last
        return None
    if type(module) is nn.LayerNorm:
        weight, bias = (None if value is None else value.detach() for value in (module.weight, module.bias))
        return partial(
            nn.functional.layer_norm,
            normalized_shape=module.normalized_shape,
            weight=weight,
            bias=bias,
            eps=module.eps,
        )
    return module.forward if isinstance(module, _KEEP_THEIR_INPUT) else None


def _storage(tensor: torch.Tensor) -> int:
    """Address of the tensor's values; 0 where there are none of its own."""
    plain = isinstance(tensor, torch.Tensor) and tensor.layout is torch.strided and not tensor._is_zerotensor()
    return tensor.untyped_storage().data_ptr() if plain else 0

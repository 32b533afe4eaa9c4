"""Training memory: intermediate results that are cheap to compute are computed again in the backward pass.

What a linear layer keeps for its backward pass is its input. Where that input is a LayerNorm's or an activation's output,
the input of these is kept anyway, so that keeping the output too costs memory for a few percent of a step's arithmetic.
"""

from collections.abc import Callable
from contextlib import nullcontext

import torch


def recomputed_in_backward(
    result: torch.Tensor, function: Callable[[torch.Tensor], torch.Tensor], source: torch.Tensor
):
    """Context in which autograd does not keep `result`, but computes it again as `function(source)` when needed.

    Args:
        result (`torch.Tensor`): what `function(source)` returned; freed once nothing else refers to it.
        function (`Callable`): deterministic, of one tensor; what it refers to must not change before the backward pass.
        source (`torch.Tensor`): its argument.

    Returns:
        A context manager for the operations that take `result`; does nothing without gradients, in a compiled graph,
        whose compiler decides itself what to keep, under the transforms of `torch.func`, which do not allow it, and
        where somebody else already decides what is kept, as gradient checkpointing does.
    """
    if not result.requires_grad or torch.compiler.is_compiling() or not torch.is_grad_enabled():
        return nullcontext()
    hooks = torch._C._autograd  # PyTorch has no public way to ask these two
    if not hooks._saved_tensors_hooks_is_enabled() or hooks._top_saved_tensors_default_hooks(False) is not None:
        return nullcontext()
    source = source.detach()
    place = result.untyped_storage().data_ptr()
    if not place:  # a tensor without values, by which others could not be told apart
        return nullcontext()

    def keep(tensor: torch.Tensor):
        if tensor.untyped_storage().data_ptr() != place:
            return tensor
        return tensor.shape, tensor.stride(), tensor.storage_offset()

    def give_back(kept) -> torch.Tensor:
        if isinstance(kept, torch.Tensor):
            return kept
        with torch.no_grad():
            again = function(source)
        return again.as_strided(*kept)

    return torch.autograd.graph.saved_tensors_hooks(keep, give_back)

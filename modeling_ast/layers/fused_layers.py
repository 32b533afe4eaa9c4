"""A transformer layer without gradients on a processor, in fewer passes over memory than its modules make one by one.

oneDNN's matrix product adds the residual, or applies GELU, to results that are still in registers, and the widened tokens are
made for some hundred rows at a time, so that they stay in the processor's cache. The numbers are those of the modules, but for
the order in which float32 products are summed. Anything that is not as [`ASTLayer`] makes it, such as a hook, an adapter or
another activation, has the modules called as ever.
"""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn.modules import module as every_module
from transformers.activations import GELUActivation

from .linear import (
    LEAST_ROWS,
    ASTLinear,
    Product,
    fastest_product,
    has_operator,
    is_for_operator,
    runs_in_float32,
)

ROWS_AT_ONCE = 512  # whose widened tokens of 512 features take 1 MB: a second-level cache


def are_fused(rows: torch.Tensor, parts: Sequence[tuple[nn.Module, type]]) -> bool:
    """Tell whether the functions of this file may take the place of modules.

    Args:
        rows (`torch.Tensor` of shape `(..., features)`): what the modules are given, or what their result is added to.
        parts (sequence of `(nn.Module, type)`): the modules that would not be called, each with the class that it has to be of.

    Returns:
        `bool`: whether no gradient is wanted, the modules are of these classes, in evaluation and without hooks, and oneDNN's
        matrix product was measured to be the fastest for the linear layers among them.
    """
    if torch.compiler.is_compiling() or torch.jit.is_tracing() or torch.is_grad_enabled():
        return False
    if (
        fastest_product() is Product.BLAS
        or not (torch.backends.mkldnn.enabled and has_operator())
        or rows.numel() < LEAST_ROWS * rows.shape[-1]
    ):
        return False
    if every_module._global_forward_hooks or every_module._global_forward_pre_hooks:
        return False
    return all(
        type(part) is kind and _is_plain(part) and (kind not in (ASTLinear, nn.Conv2d) or _is_for_onednn(rows, part))
        for part, kind in parts
    )


def _is_plain(part: nn.Module) -> bool:
    """Whether calling a module is nothing but its class's `forward`, in evaluation."""
    return not (part.training or part._forward_hooks or part._forward_pre_hooks or "forward" in vars(part))


def _is_for_onednn(rows: torch.Tensor, layer: ASTLinear | nn.Conv2d) -> bool:
    return runs_in_float32(rows, layer.weight) and is_for_operator(rows, layer.weight, layer.bias)


def is_gelu(activation: nn.Module) -> bool:
    """Tell whether an activation is GELU by the error function, which oneDNN applies as well.

    Args:
        activation (`nn.Module`): of Transformers or PyTorch.

    Returns:
        `bool`.
    """
    if type(activation) is GELUActivation:
        return activation.act is nn.functional.gelu
    return type(activation) is nn.GELU and activation.approximate == "none"


def projected_patches(input_values: torch.Tensor, projection: nn.Conv2d) -> torch.Tensor:
    """Project each patch of spectrograms: the convolution as one matrix product.

    Args:
        input_values (`torch.Tensor` of shape `(batch, frames, mel bins)`): normalised log-mel features.
        projection (`nn.Conv2d`): of one channel, mel bins by frames, without padding.

    Returns:
        `torch.Tensor` of shape `(batch, hidden, frequency, time)`, in patches; its memory is in the order of tokens.
    """
    (height, width), (frequency_stride, time_stride) = projection.kernel_size, projection.stride
    # Mel bins lie side by side in memory: they run fastest in a patch, and in its weights.
    patches = input_values.unfold(1, width, time_stride).unfold(2, height, frequency_stride)
    patches = patches.transpose(1, 2)  # (batch, frequency, time, width, height)
    rows = patches.flatten(3).flatten(0, 2)  # (batch * frequency * time, width * height)
    weight = projection.weight[:, 0].transpose(1, 2).flatten(1)  # (hidden, width * height)
    tokens = torch.ops.mkldnn._linear_pointwise(rows, weight, projection.bias, "none", [], "")
    return tokens.view(*patches.shape[:3], -1).permute(0, 3, 1, 2)


def linear_plus(rows: torch.Tensor, layer: nn.Linear, added: torch.Tensor) -> torch.Tensor:
    """Multiply by a layer's weights and add its bias and something else.

    Args:
        rows (`torch.Tensor` of shape `(..., in_features)`): what is multiplied.
        layer (`nn.Linear`): the layer.
        added (`torch.Tensor` of shape `(..., out_features)`): what is added.

    Returns:
        `torch.Tensor` of shape `(..., out_features)`.
    """
    return torch.ops.mkldnn._linear_pointwise.binary(rows, added.contiguous(), layer.weight, layer.bias, "add")


def feed_forward_plus(normed: torch.Tensor, widen: nn.Linear, narrow: nn.Linear, added: torch.Tensor) -> torch.Tensor:
    """Compute a feed-forward layer with GELU between its halves, and add something.

    Args:
        normed (`torch.Tensor` of shape `(..., hidden)`): its input.
        widen (`nn.Linear`): the first half.
        narrow (`nn.Linear`): the second half.
        added (`torch.Tensor` of shape `(..., hidden)`): what is added.

    Returns:
        `torch.Tensor` of shape `(..., hidden)`.
    """
    rows, added_rows = (tensor.reshape(-1, tensor.shape[-1]) for tensor in (normed, added))
    parts = [
        linear_plus(_widened(of_rows, widen), narrow, residual)
        for of_rows, residual in zip(rows.split(ROWS_AT_ONCE), added_rows.split(ROWS_AT_ONCE), strict=True)
    ]
    return (parts[0] if len(parts) == 1 else torch.cat(parts)).view(added.shape)


def _widened(rows: torch.Tensor, layer: nn.Linear) -> torch.Tensor:
    return torch.ops.mkldnn._linear_pointwise(rows, layer.weight, layer.bias, "gelu", [], "none")

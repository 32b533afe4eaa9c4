"""The attention that ONNX files hold: products written out, in float32 or partly in integers.

Written out, attention is faster in ONNX Runtime than as what the exporter makes of PyTorch's fused one. Transformers knows the two by the
names `BY_PRODUCTS` and `IN_INTEGERS`; both leave the weights that they give as `None`.
"""

import torch
from torch import nn
from torch.onnx import ops
from transformers import AttentionInterface, AttentionMaskInterface

BY_PRODUCTS, IN_INTEGERS = "ast_onnx", "ast_onnx_integers"

# Of the 8-bit attention. Keys have 7 bits: sums of two products of 8 bits by 7 fit into the 16 that processors without VNNI have for them.
LARGEST_KEY = 63
MASK_ENTRIES = 4  # of each query and key; beside 64 others they cost next to nothing
LEAST_MASK = (
    8.0  # what an entry takes from a score at least: all together e^-32 of the weight of the key that fits best
)


def attention_by_products(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor,
    scaling: float,
    **kwargs,
) -> tuple[torch.Tensor, None]:
    """Attention written out for ONNX, with the mask as one more entry of each key, beside a one in each query.

    So nothing is added to the scores, of which there are as many as queries times keys: that took 5 % of the time of an 8-bit base
    model.

    Args:
        module (`nn.Module`): the attention it is computed for; not used.
        query (`torch.Tensor` of shape `(batch, heads, queries, head_dim)`): the projections of the tokens that attend.
        key (`torch.Tensor` of shape `(batch, heads, tokens, head_dim)`): what they are compared with.
        value (`torch.Tensor` of shape `(batch, heads, tokens, head_dim)`): what they are given.
        attention_mask (`torch.Tensor` of shape `(batch, 1, 1, tokens)`): from [`mask_for_products`].
        scaling (`float`): what scores are multiplied with before the softmax.
        kwargs: what other implementations of the attention interface take; not used.

    Returns:
        The output of shape `(batch, queries, heads, head_dim)`, and `None` in place of the weights.
    """
    queries = torch.cat((query * scaling, query.new_ones(*query.shape[:3], 1)), dim=-1)
    keys = torch.cat((key.transpose(2, 3), attention_mask.expand(-1, key.shape[1], -1, -1)), dim=2)
    weights = torch.matmul(queries, keys).softmax(dim=-1)
    return torch.matmul(weights, value).transpose(1, 2).contiguous(), None


def mask_for_products(attention_mask: torch.Tensor, dtype: torch.dtype, **kwargs) -> torch.Tensor:
    """Make the mask that [`attention_by_products`] takes, which is the same for every query.

    Args:
        attention_mask (`torch.Tensor` of shape `(batch, tokens)`): which tokens are attended to.
        dtype (`torch.dtype`): of the scores.
        kwargs: what other implementations of the interface of masks take; not used.

    Returns:
        `torch.Tensor` of shape `(batch, 1, 1, tokens)`: 0, or the lowest number of the dtype.
    """
    attended = torch.zeros((), dtype=dtype)
    return torch.where(attention_mask, attended, torch.finfo(dtype).min)[:, None, None]


def attention_in_integers(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor,
    scaling: float,
    **kwargs,
) -> tuple[torch.Tensor, None]:
    """Attention for ONNX whose scores are products of 8-bit queries and 7-bit keys; it cannot be run in PyTorch.

    Keys are rounded less without the mean over the clip's tokens, which adds the same to all scores of a query and so changes no weight
    (Zhang et al., SageAttention, ICLR 2025). The scale of the queries and that of the keys are each one for the whole batch. Keys of
    padding are zero and lose `MASK_ENTRIES` times the largest number of the queries: the mean score of a clip's own keys is zero, so
    that its best one is not below.

    Args:
        module (`nn.Module`): see [`attention_by_products`], as what follows.
        query (`torch.Tensor` of shape `(batch, heads, queries, head_dim)`): float32.
        key (`torch.Tensor` of shape `(batch, heads, tokens, head_dim)`): float32.
        value (`torch.Tensor` of shape `(batch, heads, tokens, head_dim)`): float32; their products with the weights stay so.
        attention_mask (`torch.Tensor` of shape `(batch, 1, 1, tokens)`): from [`mask_for_integers`].
        scaling (`float`): what scores are multiplied with before the softmax.
        kwargs: not used.

    Returns:
        The output of shape `(batch, queries, heads, head_dim)`, and `None` in place of the weights.
    """
    attended = attention_mask.transpose(2, 3)  # (batch, 1, tokens, 1)
    shares = attention_mask / attention_mask.sum(dim=-1, keepdim=True)
    key = (key - torch.matmul(shares.expand(-1, key.shape[1], -1, -1), key)) * attended
    largest = torch.maximum(key.max(), -key.min()).clamp(min=torch.finfo(key.dtype).tiny)
    queries = query * (scaling * largest)
    mask_entries = queries.max().clamp(min=LEAST_MASK).expand(*query.shape[:3], MASK_ENTRIES)
    queries = torch.cat((queries, mask_entries), dim=-1)
    keys = torch.cat((key / largest, (attended - 1).expand(*key.shape[:3], MASK_ENTRIES)), dim=-1)

    query_type = (torch.uint8, torch.float32, torch.uint8)
    queries, query_step, zero = ops.symbolic_multi_out(
        "DynamicQuantizeLinear", (queries,), dtypes=query_type, shapes=(queries.shape, (), ())
    )
    key_step = 1 / LARGEST_KEY
    rounding = (torch.tensor(key_step), torch.tensor(0, dtype=torch.int8))
    keys = ops.symbolic("QuantizeLinear", (keys, *rounding), dtype=torch.int8, shape=keys.shape)
    sums = ops.symbolic(
        "MatMulInteger",
        (queries, keys.transpose(2, 3), zero),
        dtype=torch.int32,
        shape=(*query.shape[:3], key.shape[2]),
    )
    weights = (sums.to(torch.float32) * (query_step * key_step)).softmax(dim=-1)
    return torch.matmul(weights, value).transpose(1, 2).contiguous(), None


def mask_for_integers(attention_mask: torch.Tensor, dtype: torch.dtype, **kwargs) -> torch.Tensor:
    """Make the mask that [`attention_in_integers`] takes, which is the same for every query.

    Args:
        attention_mask (`torch.Tensor` of shape `(batch, tokens)`): which tokens are attended to.
        dtype (`torch.dtype`): of queries and keys.
        kwargs: what other implementations of the interface of masks take; not used.

    Returns:
        `torch.Tensor` of shape `(batch, 1, 1, tokens)`: 1, or 0.
    """
    return attention_mask.to(dtype)[:, None, None]


for name, attention, mask in (
    (BY_PRODUCTS, attention_by_products, mask_for_products),
    (IN_INTEGERS, attention_in_integers, mask_for_integers),
):
    AttentionInterface.register(name, attention)
    AttentionMaskInterface.register(name, mask)

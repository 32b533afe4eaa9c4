"""The tensors of the original AST and their names on the Hub: one row each, read in both directions.

Left are the names of the released code (a timm DeiT under `v.`, the classifier as `mlp_head`), right those of the Hub's
`model.safetensors`, or for SSAST's pretraining heads of this port. A DeiT image model has the same rows without the classifier: timm's names lack the `v.`, the Hub's
have another prefix.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch

from modeling_ast.checkpoints.tensor_names import hub_name

from .errors import ConversionError
from .geometry import NUM_LAYERS

AST_PREFIX = "audio_spectrogram_transformer."
DATA_PARALLEL_PREFIX = "module."  # the original saves the model inside `torch.nn.DataParallel`


def split_qkv(fused: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Split timm's fused projection into query, key and value, in that order.

    Args:
        fused (`torch.Tensor` of shape `(3 * hidden_size, ...)`): weight or bias.

    Returns:
        Three tensors of shape `(hidden_size, ...)`, views of the fused one.

    Raises:
        ConversionError: if the first dimension is not a multiple of 3.

    Source: the `attn.qkv` layer of timm's ViT blocks, which AST is built on.
    """
    if fused.dim() == 0 or fused.shape[0] % 3:
        raise ConversionError(
            f"A fused query-key-value tensor has shape {tuple(fused.shape)}, expected (3 * hidden_size, ...). Give a "
            "checkpoint of the original AST."
        )
    return fused.chunk(3, dim=0)


def merge_qkv(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Fuse query, key and value into timm's projection; the inverse of [`split_qkv`].

    Args:
        query (`torch.Tensor` of shape `(hidden_size, ...)`): weight or bias.
        key (`torch.Tensor` of shape `(hidden_size, ...)`): likewise.
        value (`torch.Tensor` of shape `(hidden_size, ...)`): likewise.

    Returns:
        `torch.Tensor` of shape `(3 * hidden_size, ...)`.

    Raises:
        ConversionError: if their shapes or dtypes differ.
    """
    kinds = {(tuple(tensor.shape), tensor.dtype) for tensor in (query, key, value)}
    if len(kinds) > 1 or query.dim() == 0:
        raise ConversionError(f"Query, key and value of a layer differ: {kinds}. Give an unbroken checkpoint.")
    return torch.cat((query, key, value), dim=0)


def _keep(tensor: torch.Tensor) -> tuple[torch.Tensor]:
    return (tensor,)


def _same(tensor: torch.Tensor) -> torch.Tensor:
    return tensor


@dataclass(frozen=True)
class TensorRow:
    """One tensor of the original and what it is on the Hub.

    Args:
        original (`str`): its name in the original, perhaps with a `{layer}` in it.
        hub (`tuple[str, ...]`): its names on the Hub; several where it is split.
        split (`Callable`): makes the Hub's tensors of the original one.
        merge (`Callable`): the inverse of `split`.
    """

    original: str
    hub: tuple[str, ...]
    split: Callable[[torch.Tensor], tuple[torch.Tensor, ...]] = _keep
    merge: Callable[..., torch.Tensor] = _same

    def of_layer(self, layer: int) -> "TensorRow":
        """Put the number of a layer into the row's names.

        Args:
            layer (`int`): counted from 0.

        Returns:
            [`TensorRow`].
        """
        hub = tuple(name.format(layer=layer) for name in self.hub)
        return TensorRow(self.original.format(layer=layer), hub, self.split, self.merge)


def _as_vector(tensor: torch.Tensor) -> tuple[torch.Tensor]:
    return (tensor.flatten(),)


def _as_token(vector: torch.Tensor) -> torch.Tensor:
    return vector[None, None]


def _row(original: str, hub: str) -> TensorRow:
    return TensorRow(original, (AST_PREFIX + hub,))


def _qkv_row(kind: str) -> TensorRow:
    attention = AST_PREFIX + "encoder.layer.{layer}.attention.attention."
    hub = tuple(f"{attention}{name}.{kind}" for name in ("query", "key", "value"))
    return TensorRow(f"v.blocks.{{layer}}.attn.qkv.{kind}", hub, split_qkv, merge_qkv)


EMBEDDING_ROWS = (
    _row("v.cls_token", "embeddings.cls_token"),
    _row("v.dist_token", "embeddings.distillation_token"),
    _row("v.pos_embed", "embeddings.position_embeddings"),
    _row("v.patch_embed.proj.weight", "embeddings.patch_embeddings.projection.weight"),
    _row("v.patch_embed.proj.bias", "embeddings.patch_embeddings.projection.bias"),
)
LAYER = (
    _row("v.blocks.{layer}.norm1.weight", "encoder.layer.{layer}.layernorm_before.weight"),
    _row("v.blocks.{layer}.norm1.bias", "encoder.layer.{layer}.layernorm_before.bias"),
    _qkv_row("weight"),
    _qkv_row("bias"),
    _row("v.blocks.{layer}.attn.proj.weight", "encoder.layer.{layer}.attention.output.dense.weight"),
    _row("v.blocks.{layer}.attn.proj.bias", "encoder.layer.{layer}.attention.output.dense.bias"),
    _row("v.blocks.{layer}.norm2.weight", "encoder.layer.{layer}.layernorm_after.weight"),
    _row("v.blocks.{layer}.norm2.bias", "encoder.layer.{layer}.layernorm_after.bias"),
    _row("v.blocks.{layer}.mlp.fc1.weight", "encoder.layer.{layer}.intermediate.dense.weight"),
    _row("v.blocks.{layer}.mlp.fc1.bias", "encoder.layer.{layer}.intermediate.dense.bias"),
    _row("v.blocks.{layer}.mlp.fc2.weight", "encoder.layer.{layer}.output.dense.weight"),
    _row("v.blocks.{layer}.mlp.fc2.bias", "encoder.layer.{layer}.output.dense.bias"),
)
FINAL_NORM = (
    _row("v.norm.weight", "layernorm.weight"),
    _row("v.norm.bias", "layernorm.bias"),
)
CLASSIFIER_ROWS = (
    TensorRow("mlp_head.0.weight", ("classifier.layernorm.weight",)),
    TensorRow("mlp_head.0.bias", ("classifier.layernorm.bias",)),
    TensorRow("mlp_head.1.weight", ("classifier.dense.weight",)),
    TensorRow("mlp_head.1.bias", ("classifier.dense.bias",)),
)
# What SSAST's pretraining adds (Gong et al., AAAI 2022); `c` is its classification of patches, `g` their generation.
PRETRAINING_ROWS = (
    TensorRow("mask_embed", ("mask_embedding",), _as_vector, _as_token),
    *(
        TensorRow(f"{original}.{number}.{kind}", (f"{hub}.{layer}.{kind}",))
        for original, hub in (("cpredlayer", "matching_head"), ("gpredlayer", "reconstruction_head"))
        for number, layer in ((0, "dense"), (2, "output"))
        for kind in ("weight", "bias")
    ),
)
PRETRAINING_NAMES = frozenset(name for row in PRETRAINING_ROWS for name in (row.original, *row.hub))  # on both sides
# The classifiers of the ImageNet model that AST starts from; it carries them along and never uses them.
IMAGENET_HEADS = ("v.head.weight", "v.head.bias", "v.head_dist.weight", "v.head_dist.bias")


def has_pretraining_heads(tensors: Iterable[str]) -> bool:
    """Tell whether a model has the heads of SSAST's pretraining, or a part of them.

    Args:
        tensors (iterable of `str`): names of its tensors, of the original or of the Hub.

    Returns:
        `True` if so.
    """
    return not PRETRAINING_NAMES.isdisjoint(tensors)


def rows(num_layers: int, classifier: bool = True, pretraining: bool = False) -> Iterator[TensorRow]:
    """The table with its layers numbered.

    Args:
        num_layers (`int`): transformer layers.
        classifier (`bool`, defaults to `True`): whether the model has AST's classifier.
        pretraining (`bool`, defaults to `False`): whether it has the heads of SSAST's pretraining.

    Yields:
        [`TensorRow`], one for each tensor of the original.
    """
    yield from EMBEDDING_ROWS
    for layer in range(num_layers):
        for row in LAYER:
            yield row.of_layer(layer)
    yield from FINAL_NORM
    if classifier:
        yield from CLASSIFIER_ROWS
    if pretraining:
        yield from PRETRAINING_ROWS


def original_to_hub(tensors: dict[str, torch.Tensor], classifier: bool = True) -> dict[str, torch.Tensor]:
    """Give the tensors of the original the names and the split of the Hub.

    Args:
        tensors (`dict[str, torch.Tensor]`): by the original's names, without `module.`; ImageNet heads are dropped.
        classifier (`bool`, defaults to `True`): whether AST's classifier must be among them. Without it, they may have the
            heads of SSAST's pretraining, all or none of them.

    Returns:
        `dict[str, torch.Tensor]` by the Hub's names; views of the given tensors.

    Raises:
        ConversionError: if a tensor is unknown or missing; all of them are named.
    """
    pretraining = not classifier and has_pretraining_heads(tensors)
    table = list(rows(_num_layers(tensors, r"^v\.blocks\.(\d+)\."), classifier, pretraining))
    _check_names(set(tensors) - set(IMAGENET_HEADS), {row.original for row in table}, "the original AST")
    return {
        name: tensor for row in table for name, tensor in zip(row.hub, row.split(tensors[row.original]), strict=True)
    }


def hub_to_original(
    tensors: dict[str, torch.Tensor],
    classifier: bool = True,
    prefix: str = AST_PREFIX,
    model: str = "AST on the Hub",
) -> dict[str, torch.Tensor]:
    """The inverse of [`original_to_hub`], bit for bit, from the same table.

    Args:
        tensors (`dict[str, torch.Tensor]`): by the Hub's names; see [`hub_names`] for those in other use.
        classifier (`bool`, defaults to `True`): as of [`original_to_hub`].
        prefix (`str`): what the names of the transformer begin with; a DeiT's differ, a bare model's have none.
        model (`str`): what the tensors should be of, for the message.

    Returns:
        `dict[str, torch.Tensor]` by the original's names, without `module.` and without the unused ImageNet heads.

    Raises:
        ConversionError: if a tensor is unknown or missing; all of them are named.
    """
    pretraining = not classifier and has_pretraining_heads(tensors)
    num_layers = _num_layers(tensors, r"(?:^|\.)encoder\.layer\.(\d+)\.")
    table = {
        row.original: (row, [name.replace(AST_PREFIX, prefix) for name in row.hub])
        for row in rows(num_layers, classifier, pretraining)
    }
    _check_names(set(tensors), {name for _, names in table.values() for name in names}, model)
    return {original: row.merge(*(tensors[name] for name in names)) for original, (row, names) in table.items()}


def hub_names(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Rename what Transformers 5 saved under its names in memory, or a wrapped model; the Hub's names stay as they are.

    Args:
        tensors (`dict[str, torch.Tensor]`): of an AST or a DeiT.

    Returns:
        `dict[str, torch.Tensor]` by the Hub's names, the same tensors.

    Raises:
        ConversionError: if a tensor is there under both names.
    """
    renamed = {}
    for name, tensor in tensors.items():
        new_name = hub_name(name)
        if new_name in renamed:
            raise ConversionError(f"{new_name} is there twice, also as {name}. Give an unbroken checkpoint.")
        renamed[new_name] = tensor
    return renamed


def _num_layers(tensors: dict[str, torch.Tensor], pattern: str) -> int:
    found = (re.search(pattern, name) for name in tensors)
    highest = max((int(match.group(1)) for match in found if match), default=0)
    return max(NUM_LAYERS, min(1 + highest, len(tensors)))  # one absurd number must not make millions of rows


def _check_names(given: set[str], expected: set[str], model: str) -> None:
    unknown, missing = sorted(given - expected), sorted(expected - given)
    if not unknown and not missing:
        return
    faults = [f"unknown ({len(unknown)}): {', '.join(unknown)}"] if unknown else []
    faults += [f"missing ({len(missing)}): {', '.join(missing)}"] if missing else []
    raise ConversionError(f"These are not the tensors of {model}. {'; '.join(faults)}. Give one of its checkpoints.")

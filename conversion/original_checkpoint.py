"""What a `.pth` of the original AST, or of SSAST, holds: its tensors and what can be told from their shapes."""

import hashlib
import os
from dataclasses import dataclass

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import PreTrainedConfig

from modeling_ast.modeling_ast import NUM_CLASS_TOKENS

from .errors import ConversionError
from .geometry import HEAD_DIM, HIDDEN_SIZES, NUM_LAYERS, PATCH_SIZE, PatchGeometry
from .tensor_files import read_state_dict
from .weight_map import DATA_PARALLEL_PREFIX, IMAGENET_HEADS

# Size of the input, mel bins and frames, that SSAST's pretraining (Gong et al., AAAI 2022) saves among its tensors.
SSAST_SIZES = ("p_input_fdim", "p_input_tdim")


@dataclass(frozen=True)
class OriginalCheckpoint:
    """The tensors of an original checkpoint.

    Args:
        tensors (`dict[str, torch.Tensor]`): by the original's names, without `module.`, what is left out, and the sizes
            of SSAST's input.
        left_out (`list[str]`): tensors of the file that AST does not use.
        pretraining_geometry ([`PatchGeometry`], *optional*): that of an SSAST pretraining, whose file says it.
    """

    tensors: dict[str, torch.Tensor]
    left_out: list[str]
    pretraining_geometry: PatchGeometry | None = None

    @property
    def hidden_size(self) -> int:
        """Width of the tokens."""
        return self.tensors["v.pos_embed"].shape[-1]

    @property
    def num_patches(self) -> int:
        """Length of the position table without its two class tokens."""
        return self.tensors["v.pos_embed"].shape[1] - NUM_CLASS_TOKENS

    @property
    def num_labels(self) -> int | None:
        """Outputs of the classifier, if there is one."""
        classifier = self.tensors.get("mlp_head.1.weight")
        return None if classifier is None else classifier.shape[0]

    @property
    def is_pretraining(self) -> bool:
        """Whether this is what SSAST's self-supervised pretraining saves."""
        return self.pretraining_geometry is not None

    @property
    def model_sizes(self) -> list[str]:
        """The original's names of this width; empty if it has none."""
        return [name for name, width in HIDDEN_SIZES.items() if width == self.hidden_size]


def read_original(path: str | os.PathLike) -> OriginalCheckpoint:
    """Read a checkpoint that the original AST code, or SSAST's, saved.

    Args:
        path (`str` or `os.PathLike`): `.pth` file, with or without `module.` before its names.

    Returns:
        [`OriginalCheckpoint`].

    Raises:
        ConversionError: if the file is none; see also [`read_state_dict`].
    """
    tensors = without_prefix(read_state_dict(path))
    if "patch_embed.proj.weight" in tensors:
        raise ConversionError(
            f"{path} is an image model in timm's layout, not an AST. To start an AST from it type ast-convert "
            f"--imagenet_start {path} OUTPUT_DIR --max_length 1024 --num_labels N."
        )
    table = tensors.get("v.pos_embed")
    if table is None:
        shown = ", ".join(list(tensors)[:5])
        raise ConversionError(
            f"{path} holds no AST: its tensors begin with {shown}; expected v.cls_token, v.pos_embed and so on. Give a "
            "checkpoint of the original AST code."
        )
    _refuse_other_ranks(path, tensors)
    _refuse_other_patches(path, tensors)
    geometry, unused = None, IMAGENET_HEADS
    if set(SSAST_SIZES) <= tensors.keys() and "mlp_head.0.weight" not in tensors:
        unused = (*IMAGENET_HEADS, *SSAST_SIZES)
        mel_bins, frames = (_number(path, tensors, name) for name in SSAST_SIZES)
        geometry = PatchGeometry(PATCH_SIZE, PATCH_SIZE, frames, mel_bins)  # pretraining allows no overlap
    ours = {name: tensor for name, tensor in tensors.items() if name not in unused}
    return OriginalCheckpoint(ours, [name for name in tensors if name in IMAGENET_HEADS], geometry)


def without_prefix(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Take `module.` from the names, which a model saved inside `torch.nn.DataParallel` has.

    Args:
        tensors (`dict[str, torch.Tensor]`): with it or without it.

    Returns:
        `dict[str, torch.Tensor]`, the same tensors.

    Raises:
        ConversionError: if a tensor is there both with and without it.
    """
    doubled = [name for name in tensors if DATA_PARALLEL_PREFIX + name in tensors]
    if doubled:
        raise ConversionError(
            f"{', '.join(doubled[:5])} is there with and without {DATA_PARALLEL_PREFIX} before it. Give an unbroken "
            "checkpoint."
        )
    return {name.removeprefix(DATA_PARALLEL_PREFIX): tensor for name, tensor in tensors.items()}


def sha256_of(path: str | os.PathLike) -> str:
    """Compute the SHA-256 of a file.

    Args:
        path (`str` or `os.PathLike`): the file.

    Returns:
        64 hexadecimal digits.
    """
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _refuse_other_ranks(path: str | os.PathLike, tensors: dict[str, torch.Tensor]) -> None:
    """Refuse what cannot tell width, patches and labels; other shapes are compared with the model's later."""
    for name, expected in {
        "v.pos_embed": f"(1, {NUM_CLASS_TOKENS} + patches, width)",
        "v.patch_embed.proj.weight": f"(width, 1, {PATCH_SIZE}, {PATCH_SIZE})",
        "mlp_head.1.weight": "(labels, width)",
    }.items():
        shape = tuple(tensors[name].shape) if name in tensors else None
        empty = shape is not None and (0 in shape or (name == "v.pos_embed" and shape[1:2] <= (NUM_CLASS_TOKENS,)))
        if shape is not None and (len(shape) != expected.count(",") + 1 or empty):
            raise ConversionError(
                f"{path}: {name} has shape {shape}, expected {expected}. Give an unbroken checkpoint."
            )


def _number(path: str | os.PathLike, tensors: dict[str, torch.Tensor], name: str) -> int:
    value = tensors[name]
    if value.numel() != 1 or value.is_complex() or not torch.isfinite(value).all():
        raise ConversionError(
            f"{path}: {name} is {value.tolist()!r:.60}, expected one number. Give an unbroken checkpoint."
        )
    return int(value)


def read_architecture(
    name: str | os.PathLike, config_class: type[PreTrainedConfig], content: dict, example: str
) -> PreTrainedConfig:
    """The configuration of an AST or a DeiT, if the original code has a model like it.

    Args:
        name (`str` or `os.PathLike`): of the checkpoint, for messages.
        config_class (`type[PreTrainedConfig]`): of its configuration.
        content (`dict`): of its `config.json`.
        example (`str`): a checkpoint that would do, for messages.

    Returns:
        The configuration, of `config_class`.

    Raises:
        ConversionError: if the content is faulty, is of another kind of model, or of another architecture.
    """
    if content.get("model_type") != config_class.model_type:
        raise ConversionError(
            f"{name} is a {content.get('model_type')!r}, expected {config_class.model_type!r}. Give one such as {example}."
        )
    try:
        config = config_class.from_dict(content)
    except (ValueError, AttributeError, TypeError, ZeroDivisionError, StrictDataclassError) as error:
        raise ConversionError(
            f"{name} has a faulty config.json: {str(error).rstrip('.')}. Put an unbroken copy there."
        ) from None
    _refuse_other_architecture(name, config)
    return config


def _refuse_other_architecture(name: str | os.PathLike, config: PreTrainedConfig) -> None:
    needed = {
        "num_hidden_layers": NUM_LAYERS,
        "num_attention_heads": config.hidden_size // HEAD_DIM,
        "intermediate_size": 4 * config.hidden_size,
        "patch_size": PATCH_SIZE,
        "qkv_bias": True,
        "hidden_act": "gelu",
    }
    other = [
        f"{field}={getattr(config, field)} (not {value})"
        for field, value in needed.items()
        if getattr(config, field) != value
    ]
    if config.hidden_size not in HIDDEN_SIZES.values():
        widths = ", ".join(str(width) for width in sorted(set(HIDDEN_SIZES.values())))
        other.insert(0, f"hidden_size={config.hidden_size} (not {widths})")
    if other:
        raise ConversionError(
            f"{name} has {'; '.join(other)}: the original code has no such model, only {', '.join(HIDDEN_SIZES)}. Keep "
            "the checkpoint as it is."
        )


def _refuse_other_patches(path: str | os.PathLike, tensors: dict[str, torch.Tensor]) -> None:
    filters = tensors.get("v.patch_embed.proj.weight")
    patch = tuple(filters.shape[2:]) if filters is not None else None
    if patch not in (None, (PATCH_SIZE, PATCH_SIZE)):
        raise ConversionError(
            f"{path} has patches of {' x '.join(map(str, patch))} (mel bins x frames), a frame model of SSAST; AST has "
            f"{PATCH_SIZE} x {PATCH_SIZE} only, and neither this port nor Transformers can run others. Give a patch model, "
            "such as SSAST-Base-Patch-400.pth."
        )
    if "v.dist_token" not in tensors and "v.cls_token" in tensors:
        raise ConversionError(
            f"{path} has one class token (v.dist_token is missing), AST has two: it comes from an image model without "
            "distillation (base_nokd in SSAST). Give a checkpoint of the size tiny, small or base."
        )

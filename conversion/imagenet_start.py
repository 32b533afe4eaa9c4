"""An AST to be trained, from a DeiT that was trained on ImageNet: where the paper's trainings start (section 2.2).

The colour channels of the patch filter are summed, positions are moved from the square image grid to the spectrogram's,
and the classifier is new. Reads both layouts in which DeiT checkpoints are kept, Transformers' and timm's.
"""

import os
from collections.abc import Callable, Sequence
from math import isqrt
from pathlib import Path

import torch
from transformers import DeiTConfig

from model_card.licenses import license_note
from model_card.run_summary import origin_section, shown_word
from modeling_ast.layers.position_embeddings import move_position_table
from modeling_ast.modeling_ast import NUM_CLASS_TOKENS
from modeling_ast.system.atomic_files import refuse_existing

from .errors import ConversionError
from .geometry import HIDDEN_SIZES, PATCH_SIZE, PatchGeometry
from .label_files import dataset_of
from .original_checkpoint import read_architecture, sha256_of
from .original_datasets import AUDIOSET
from .output_checkpoint import CheckpointDescription, refuse_odd_numbers, write_checkpoint
from .tensor_files import read_hub_checkpoint, read_state_dict
from .weight_map import IMAGENET_HEADS, hub_names, hub_to_original, original_to_hub

DEIT_LICENSE = "apache-2.0"  # of the weights that Touvron et al. 2021 released
IMAGE_GRIDS = {"tiny224": 14, "small224": 14, "base224": 14, "base384": 24}  # patches along a side of the image
CLASSIFIER_STD = 0.02  # `initializer_range` of AST on the Hub
_HUB_HEADS = ("cls_classifier.", "distillation_classifier.", "classifier.", "pooler.")


def start_from_imagenet(
    source: str,
    output_dir: str | os.PathLike,
    geometry: PatchGeometry,
    labels: Sequence[str],
    model_size: str | None = None,
    problem_type: str | None = None,
    normalization: Sequence[float] | None = None,
    license: str | None = None,
    seed: int = 0,
    command: Sequence[str] = ("ast-convert",),
    report: Callable[[str], None] = print,
) -> None:
    """Make an AST checkpoint of an ImageNet DeiT, with a new classifier.

    Args:
        source (`str`): folder or Hub id of a distilled DeiT in the Transformers layout, or a `.pth` or `.safetensors`
            file in timm's.
        output_dir (`str` or `os.PathLike`): folder to make.
        geometry ([`PatchGeometry`]): strides, frames and mel bins of the AST.
        labels (`Sequence[str]`): names of its outputs in order.
        model_size (`str`, *optional*): one of `HIDDEN_SIZES`, to be sure of it; told from the shapes.
        problem_type (`str`, *optional*): as in a Transformers configuration.
        normalization (`Sequence[float]`, *optional*): mean and standard deviation of the log-mel features.
        license (`str`, *optional*): licence of the weights, a Hub licence id; DeiT's if not given.
        seed (`int`, defaults to 0): of the classifier's weights.
        command (`Sequence[str]`): the command line, for the card.
        report (`Callable`): takes lines for the user.

    Raises:
        ConversionError: if the source is no distilled DeiT of one of the four sizes; nothing is left behind then.
        FileExistsError: if the folder already holds something.
    """
    refuse_existing(output_dir)
    image_tensors, files = read_image_model(source)
    refuse_odd_numbers(image_tensors)
    name = shown_word(source)
    digests = {file.name: sha256_of(file) for file in files}
    report(f"[1/3] source: {name}")
    for file_name, digest in digests.items():
        report(f"      SHA-256 of {file_name}: {digest}")

    found = _model_size(source, image_tensors, model_size)
    side = isqrt(image_tensors["v.pos_embed"].shape[1] - NUM_CLASS_TOKENS)
    frequency, time = geometry.grid
    license_id = license or DEIT_LICENSE
    report(
        f"[2/3] {found}; positions moved from {side} x {side} to {frequency} x {time} patches (strides "
        f"{geometry.frequency_stride} x {geometry.time_stride}, {geometry.max_length} frames, {geometry.num_mel_bins} mel "
        f"bins), patch filter summed over colours, new classifier for {len(labels)} labels"
    )
    dataset = dataset_of(list(labels))
    problem_type = problem_type or (dataset.problem_type if dataset else None)
    mean, std = normalization or ((dataset or AUDIOSET).mean, (dataset or AUDIOSET).std)
    statistics = "as given"
    if not normalization:
        replaced = "" if dataset else ", to be replaced by those of the data it is trained on"
        statistics = f"those of {(dataset or AUDIOSET).title}, from the released code{replaced}"
    report(f"      mean {mean}, std {std} ({statistics}{'' if normalization else '; otherwise pass --normalization'})")
    if note := license_note(license):
        report(f"      {note}")
    if not license:
        report(f"      licence {license_id}, that of DeiT's weights; otherwise pass --license")
    description = CheckpointDescription(geometry, list(labels), problem_type, mean, std, statistics)
    description.summary = {
        **origin_section(command, base_model=source if not Path(source).exists() else f"./{name}"),
        "seed": seed,
        "license": license_id,
        "source": name,
        "sha256": digests,
        "model": {"size": found},
        "conversion": {
            "left_out": [],
            "notes": ["A start for training: the transformer knows images, and the classifier is new and untrained."],
        },
    }
    tensors = spectrogram_model(image_tensors, geometry) | new_classifier(image_tensors, len(labels), seed)
    del image_tensors
    agreement = write_checkpoint(output_dir, tensors, description)
    report(f"[3/3] verified: {agreement}")


def read_image_model(source: str) -> tuple[dict[str, torch.Tensor], list[Path]]:
    """Read a distilled DeiT.

    Args:
        source (`str`): see [`start_from_imagenet`].

    Returns:
        Its tensors by the names that AST's original gives them, without classifiers, and the files they are from.

    Raises:
        ConversionError: if it is none.
    """
    path = Path(source)
    if path.is_file():
        tensors = read_state_dict(path)
        if any(name.startswith(("v.", "module.v.")) for name in tensors):
            raise ConversionError(
                f"{source} is an AST already, not an image model. Type ast-convert {source} OUTPUT_DIR, and fine-tune that."
            )
        tensors = {f"v.{name}": tensor for name, tensor in tensors.items()}
        _refuse_without_distillation(source, "v.dist_token" in tensors)
        original_to_hub(tensors, classifier=False)  # names every unknown and missing tensor
        return {name: tensor for name, tensor in tensors.items() if name not in IMAGENET_HEADS}, [path]
    content, tensors, files = read_hub_checkpoint(source)
    read_architecture(source, DeiTConfig, content, "facebook/deit-base-distilled-patch16-384")
    prefix = "deit." if any(name.startswith("deit.") for name in tensors) else ""  # the bare model has none
    tensors = {
        name: tensor for name, tensor in tensors.items() if not name.removeprefix(prefix).startswith(_HUB_HEADS)
    }
    _refuse_without_distillation(source, f"{prefix}embeddings.distillation_token" in tensors)
    return hub_to_original(hub_names(tensors), False, prefix, "a DeiT in the Transformers layout"), files


def spectrogram_model(image_tensors: dict[str, torch.Tensor], geometry: PatchGeometry) -> dict[str, torch.Tensor]:
    """The transformer of an AST from that of an image model: one input channel, positions on the spectrogram's grid.

    Args:
        image_tensors (`dict[str, torch.Tensor]`): from [`read_image_model`].
        geometry ([`PatchGeometry`]): of the AST.

    Returns:
        `dict[str, torch.Tensor]` by the original's names, without a classifier.

    Source: section 2.2 of the paper; `ASTModel.__init__` of the released code.
    """
    table = image_tensors["v.pos_embed"]
    side = isqrt(table.shape[1] - NUM_CLASS_TOKENS)
    return image_tensors | {
        "v.patch_embed.proj.weight": image_tensors["v.patch_embed.proj.weight"].sum(dim=1, keepdim=True),
        "v.pos_embed": move_position_table(table, NUM_CLASS_TOKENS, (side, side), geometry.grid),
    }


def new_classifier(tensors: dict[str, torch.Tensor], num_labels: int, seed: int) -> dict[str, torch.Tensor]:
    """An untrained classifier, a function of its sizes and the seed alone.

    Args:
        tensors (`dict[str, torch.Tensor]`): of the transformer, whose width and dtype it takes.
        num_labels (`int`): its outputs.
        seed (`int`): of its weights.

    Returns:
        `dict[str, torch.Tensor]` by the original's names: LayerNorm of shape `(hidden,)`, linear layer of shape
        `(num_labels, hidden)`.
    """
    norm = tensors["v.norm.weight"]
    hidden_size = tensors["v.pos_embed"].shape[-1]
    weight = torch.empty(num_labels, hidden_size).normal_(
        0, CLASSIFIER_STD, generator=torch.Generator().manual_seed(seed)
    )
    return {
        "mlp_head.0.weight": torch.ones_like(norm),
        "mlp_head.0.bias": torch.zeros_like(norm),
        "mlp_head.1.weight": weight.to(norm.dtype),
        "mlp_head.1.bias": norm.new_zeros(num_labels),
    }


def _model_size(source: str, tensors: dict[str, torch.Tensor], wanted: str | None) -> str:
    table, filters = (tuple(tensors[name].shape) for name in ("v.pos_embed", "v.patch_embed.proj.weight"))
    hidden = table[-1] if table else 0
    found = None
    for size, side in IMAGE_GRIDS.items():
        if HIDDEN_SIZES[size] == hidden and table == (1, NUM_CLASS_TOKENS + side * side, hidden):
            found = size
    if found is None or filters != (hidden, 3, PATCH_SIZE, PATCH_SIZE):
        raise ConversionError(
            f"{source} has a position table of shape {table} and a patch filter of shape {filters}; AST starts from "
            f"{', '.join(HIDDEN_SIZES)}, with filters of shape (width, 3, {PATCH_SIZE}, {PATCH_SIZE}). Give such a DeiT."
        )
    if wanted not in (None, found):
        raise ConversionError(f"--model_size {wanted} was typed, but {source} is {found}. Leave the flag out.")
    return found


def _refuse_without_distillation(source: str, distilled: bool) -> None:
    if not distilled:
        raise ConversionError(
            f"{source} has no distillation token, and AST has two class tokens. Give a distilled DeiT such as "
            "facebook/deit-base-distilled-patch16-384 (in timm: deit_base_distilled_patch16_384)."
        )

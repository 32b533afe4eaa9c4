"""Hub checkpoints to the `.pth` that the original code saves: the way back, bit for bit."""

import os
from collections.abc import Callable
from pathlib import Path

import torch

from modeling_ast import ASTConfig, ASTForAudioClassification, ASTModel
from modeling_ast.system.atomic_files import make_parents, open_atomically

from .errors import ConversionError
from .geometry import PatchGeometry
from .original_checkpoint import SSAST_SIZES, read_architecture, without_prefix
from .output_checkpoint import refuse_misfits, refuse_odd_numbers
from .tensor_files import read_hub_checkpoint, read_state_dict
from .verification import (
    CLASSIFIER_EPS,
    TRANSFORMER_EPS,
    compare_outputs,
    expected_outputs,
    kind_of_outputs,
    outputs_of,
)
from .weight_map import (
    AST_PREFIX,
    DATA_PARALLEL_PREFIX,
    has_pretraining_heads,
    hub_names,
    hub_to_original,
    original_to_hub,
)


def convert_to_original(
    name_or_dir: str, output_path: str | os.PathLike, report: Callable[[str], None] = print
) -> None:
    """Write a Hub checkpoint as the `.pth` that the original code saves, with `module.` before its names.

    The four unused ImageNet-head tensors are left out; the original loads the file with `strict=False`. A pretrained model
    with its heads becomes a file of SSAST, which also says the size of its input.

    Args:
        name_or_dir (`str`): folder or Hub id, saved by this kit or by Transformers, old and new.
        output_path (`str` or `os.PathLike`): file to write.
        report (`Callable`): takes lines for the user.

    Raises:
        ConversionError: if it is no AST, or one of a size that the original code does not have; nothing is left behind
            then.
        FileExistsError: if the file already exists.
    """
    output_path = Path(output_path)
    if output_path.suffix == ".safetensors":
        raise ConversionError(
            f"{output_path} would be a file of PyTorch, whatever its name. Name one that ends with .pth."
        )
    if output_path.exists():
        raise FileExistsError(f"{output_path} already exists. Name another file, or remove it first.")
    content, tensors, _ = read_hub_checkpoint(name_or_dir)
    config = read_architecture(name_or_dir, ASTConfig, content, "MIT/ast-finetuned-audioset-10-10-0.4593")
    tensors = hub_names(tensors)
    if not any(name.startswith(AST_PREFIX) for name in tensors):  # the bare model saves itself without the prefix
        tensors = {AST_PREFIX + name: tensor for name, tensor in tensors.items()}
    classifier = any(name.startswith("classifier.") for name in tensors)
    original = hub_to_original(tensors, classifier)
    if has_pretraining_heads(tensors):
        _refuse_overlap(name_or_dir, config)
    refuse_odd_numbers(tensors)
    refuse_misfits(tensors, config)
    size = sum(tensor.numel() * tensor.element_size() for tensor in original.values())
    sizes = (config.num_mel_bins, config.max_length) if has_pretraining_heads(tensors) else ()
    saved = original | {name: torch.tensor(size) for name, size in zip(SSAST_SIZES, sizes, strict=False)}
    report(f"[1/3] source: {name_or_dir}, {len(tensors)} tensors, {size / 1e6:.1f} MB")

    with make_parents(output_path), open_atomically(output_path) as file:
        try:
            torch.save({DATA_PARALLEL_PREFIX + name: tensor for name, tensor in saved.items()}, file)
        except RuntimeError as error:
            if isinstance(error.__context__, OSError):  # a full disk, behind torch's failure to finish the archive
                raise error.__context__ from None
            raise
        file.flush()
        read = without_prefix(read_state_dict(file.name))
        again = original_to_hub({name: read[name] for name in read if name not in SSAST_SIZES}, classifier)
        changed = [name for name, tensor in tensors.items() if not _same_bits(again[name], tensor)]
        if changed:
            raise ConversionError(
                f"{', '.join(changed[:5])} did not survive the way there and back. Nothing was kept."
            )
        report(f"[2/3] written, read again and mapped back: all {len(tensors)} tensors are bit-equal")
        report(f"[3/3] {_agreement_of_original(config, tensors, original, classifier)}")


def _refuse_overlap(name: str, config: ASTConfig):
    """Refuse pretraining heads beside patches with which SSAST cannot be pretrained, and whose file could not say them."""
    if (config.frequency_stride, config.time_stride) != (config.patch_size, config.patch_size):
        raise ConversionError(
            f"{name} has the heads of SSAST's pretraining and patches at the strides {config.frequency_stride} x "
            f"{config.time_stride}, where SSAST has {config.patch_size} x {config.patch_size}. Convert it without its heads: load "
            "it as ASTModel, and save that."
        )


def _same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Equality of the bytes, under which NaN equals itself."""
    bits = [tensor.contiguous().view(torch.uint8) for tensor in (one, other)]
    return one.dtype == other.dtype and torch.equal(*bits)


@torch.no_grad()
def _agreement_of_original(
    config: ASTConfig, tensors: dict[str, torch.Tensor], original: dict[str, torch.Tensor], classifier: bool
) -> str:
    """Compare the original's forward pass on the written tensors with the port's on the checkpoint's, in words.

    Raises:
        ConversionError: if the two disagree although both compute with the original's epsilons.
    """
    geometry = PatchGeometry(config.frequency_stride, config.time_stride, config.max_length, config.num_mel_bins)
    expected = expected_outputs(original, geometry)
    epsilons = (config.layer_norm_eps, config.classifier_layer_norm_eps or config.layer_norm_eps)
    config.layer_norm_eps, config.classifier_layer_norm_eps = TRANSFORMER_EPS, CLASSIFIER_EPS
    with torch.device("meta"):  # no weights are drawn that the checkpoint's replace
        model = (ASTForAudioClassification if classifier else ASTModel)(config).eval()
    if not classifier:
        encoder = {name: tensor for name, tensor in tensors.items() if name.startswith(AST_PREFIX)}
        tensors = {name.removeprefix(AST_PREFIX): tensor for name, tensor in encoder.items()}
    model.load_state_dict({name: tensor.float() for name, tensor in tensors.items()}, assign=True)
    verified = f"verified: {compare_outputs(outputs_of(model, geometry), expected, kind_of_outputs(classifier))}"
    if epsilons == (TRANSFORMER_EPS, CLASSIFIER_EPS):
        return verified
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.LayerNorm):
            module.eps = epsilons[name.startswith("classifier.")]
    difference = (outputs_of(model, geometry) - expected).abs().max().item()
    return (
        f"{verified}. With its own LayerNorm epsilons, {epsilons[0]} and {epsilons[1]}, the checkpoint differs by "
        f"{difference:.1e} from the original's with {TRANSFORMER_EPS} and {CLASSIFIER_EPS}"
    )

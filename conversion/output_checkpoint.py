"""Writes a converted checkpoint: weights, settings, run summary and card, verified before anybody sees the folder."""

import functools
import os
from dataclasses import dataclass, field

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors.torch import save_file

from model_card.file_names import WEIGHTS_NAME
from model_card.render import write_model_card
from model_card.run_summary import features_section, versions, write_run_summary
from modeling_ast import (
    ASTConfig,
    ASTFeatureExtractor,
    ASTForAudioClassification,
    ASTForMaskedSpectrogramModeling,
    ASTModel,
)
from modeling_ast.audio import NEW_RESAMPLER
from modeling_ast.checkpoints.weights import all_finite
from modeling_ast.system.atomic_files import give_usual_mode, make_folder_atomically

from .errors import ConversionError
from .geometry import HEAD_DIM, PATCH_SIZE, PatchGeometry
from .verification import CLASSIFIER_EPS, TRANSFORMER_EPS, Agreement, expected_outputs, verify
from .weight_map import AST_PREFIX, has_pretraining_heads, original_to_hub

FLOAT_TYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
FAULTS_SHOWN = 5  # of the tensors that do not fit, in the message about them
REPORTED_PACKAGES = ("torch", "transformers", "safetensors")


@dataclass
class CheckpointDescription:
    """What is written beside the tensors.

    Args:
        geometry ([`PatchGeometry`]): strides, frames and mel bins.
        labels (`list[str]`, *optional*): names of the outputs in order; `None` without a classifier.
        problem_type (`str`, *optional*): as in a Transformers configuration.
        mean (`float`): mean of the log-mel features.
        std (`float`): their standard deviation.
        normalization (`str`): in words, where these two are from.
        summary (`dict`): sections of the run summary that only the caller knows.
    """

    geometry: PatchGeometry
    labels: list[str] | None
    problem_type: str | None
    mean: float
    std: float
    normalization: str
    summary: dict = field(default_factory=dict)


def write_checkpoint(
    output_dir: str | os.PathLike, tensors: dict[str, torch.Tensor], description: CheckpointDescription
) -> Agreement:
    """Write a checkpoint folder of the original's tensors, and prove it before it gets its name.

    Args:
        output_dir (`str` or `os.PathLike`): folder to make.
        tensors (`dict[str, torch.Tensor]`): by the original's names. Emptied, to give the memory back in time.
        description ([`CheckpointDescription`]): what is written beside them.

    Returns:
        [`Agreement`] of the written checkpoint with the original.

    Raises:
        ConversionError: if tensors are unknown, missing or misshapen, or the two do not agree.
        FileExistsError: if the folder already holds something.
    """
    classifier = description.labels is not None
    hub_tensors = original_to_hub(tensors, classifier)
    refuse_odd_numbers(tensors)
    config = config_of_tensors(tensors, description)
    refuse_misfits(hub_tensors, config)
    with make_folder_atomically(output_dir) as folder:
        if model_class_of(hub_tensors) is ASTModel:  # as the bare model saves itself
            hub_tensors = {name.removeprefix(AST_PREFIX): tensor for name, tensor in hub_tensors.items()}
        save_file(_for_safetensors(hub_tensors), folder / WEIGHTS_NAME, metadata={"format": "pt"})
        give_usual_mode(folder / WEIGHTS_NAME)
        config.save_pretrained(folder)
        geometry = description.geometry
        feature_extractor = ASTFeatureExtractor(
            num_mel_bins=geometry.num_mel_bins,
            max_length=geometry.max_length,
            mean=description.mean,
            std=description.std,
            resampler=NEW_RESAMPLER,  # the authors prepared their clips with SoX
        )
        feature_extractor.save_pretrained(folder)
        expected = expected_outputs(tensors, geometry)
        del hub_tensors
        tensors.clear()
        agreement = verify(folder, expected, geometry, classifier)
        summary = {
            **description.summary,
            "agreement": agreement.as_dict(),
            **({"labels": description.labels, "problem_type": description.problem_type} if classifier else {}),
            "features": features_section(feature_extractor, description.normalization),
            "environment": versions(REPORTED_PACKAGES),
        }
        write_run_summary(folder, summary)
        write_model_card(folder)
    return agreement


def config_of_tensors(tensors: dict[str, torch.Tensor], description: CheckpointDescription) -> ASTConfig:
    """The configuration of the original's tensors, with the original's two LayerNorm epsilons.

    Args:
        tensors (`dict[str, torch.Tensor]`): by the original's names, in floats.
        description ([`CheckpointDescription`]): what the tensors do not say.

    Returns:
        [`ASTConfig`].

    Raises:
        ConversionError: if labels and problem type make no model.
    """
    hidden_size = tensors["v.pos_embed"].shape[-1]
    geometry = description.geometry
    classifier = description.labels is not None
    settings = {}
    model_class = ASTForMaskedSpectrogramModeling if has_pretraining_heads(tensors) else ASTModel
    if classifier:
        model_class = ASTForAudioClassification
        id2label = dict(enumerate(description.labels))
        label2id = {label: index for index, label in id2label.items()}
        settings = {"id2label": id2label, "label2id": label2id, "problem_type": description.problem_type}
    try:
        return ASTConfig(
            architectures=[model_class.__name__],
            hidden_size=hidden_size,
            num_hidden_layers=sum(name.endswith(".norm1.weight") for name in tensors),
            num_attention_heads=hidden_size // HEAD_DIM,
            intermediate_size=4 * hidden_size,
            patch_size=PATCH_SIZE,
            frequency_stride=geometry.frequency_stride,
            time_stride=geometry.time_stride,
            max_length=geometry.max_length,
            num_mel_bins=geometry.num_mel_bins,
            layer_norm_eps=TRANSFORMER_EPS,
            classifier_layer_norm_eps=CLASSIFIER_EPS,
            dtype=functools.reduce(torch.promote_types, (tensor.dtype for tensor in tensors.values())),
            **settings,
        )
    except (ValueError, StrictDataclassError) as error:
        raise ConversionError(str(error)) from None


def model_class_of(
    hub_tensors: dict[str, torch.Tensor],
) -> type[ASTForAudioClassification | ASTForMaskedSpectrogramModeling | ASTModel]:
    """Tell the class of a model from its heads.

    Args:
        hub_tensors (`dict[str, torch.Tensor]`): by the Hub's names.

    Returns:
        The class whose tensors these are.
    """
    if any(name.startswith("classifier.") for name in hub_tensors):
        return ASTForAudioClassification
    return ASTForMaskedSpectrogramModeling if has_pretraining_heads(hub_tensors) else ASTModel


def refuse_misfits(hub_tensors: dict[str, torch.Tensor], config: ASTConfig) -> None:
    """Compare shapes with those of the configuration's model.

    Args:
        hub_tensors (`dict[str, torch.Tensor]`): by the Hub's names, exactly those of the model.
        config ([`ASTConfig`]): of the model.

    Raises:
        ConversionError: if shapes differ; the first of them are named.
    """
    model_class = model_class_of(hub_tensors)
    with torch.device("meta"):
        expected = model_class(config)
    prefix = AST_PREFIX if model_class is ASTModel else ""
    shapes = {prefix + name: tuple(tensor.shape) for name, tensor in expected.state_dict().items()}
    faults = [
        f"{name} has shape {tuple(tensor.shape)}, expected {shapes[name]}"
        for name, tensor in hub_tensors.items()
        if tuple(tensor.shape) != shapes[name]
    ]
    _raise_faults("The tensors do not fit the model", faults, "Give an unbroken checkpoint.")


def refuse_odd_numbers(tensors: dict[str, torch.Tensor]) -> None:
    """Compare dtypes with those that a model can be loaded with, and look for weights that are no numbers.

    Args:
        tensors (`dict[str, torch.Tensor]`): by any names.

    Raises:
        ConversionError: if one holds no such floats, or NaN or infinite ones; the first of them are named.
    """
    faults = [f"{name} is {tensor.dtype}" for name, tensor in tensors.items() if tensor.dtype not in FLOAT_TYPES]
    _raise_faults(
        "Not every tensor holds floats", faults, "Give a checkpoint in float16, bfloat16, float32 or float64."
    )
    broken = [name for name, tensor in tensors.items() if not all_finite(tensor)]
    _raise_faults("Weights are NaN or infinite", broken, "Give a checkpoint of a training that did not diverge.")


def _raise_faults(what: str, faults: list[str], advice: str) -> None:
    if faults:
        more = f" and {len(faults) - FAULTS_SHOWN} more" if len(faults) > FAULTS_SHOWN else ""
        raise ConversionError(f"{what}: {'; '.join(faults[:FAULTS_SHOWN])}{more}. {advice}")


def _for_safetensors(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Dense in memory, and none the same memory as another."""
    seen, owned = set(), {}
    for name, tensor in tensors.items():
        owned[name] = tensor.clone() if tensor.data_ptr() in seen else tensor.contiguous()
        seen.add(tensor.data_ptr())
    return owned

"""Writes a converted checkpoint: weights, settings, run summary and card, verified before anybody sees the folder."""

import os
from dataclasses import dataclass, field

import torch
from safetensors.torch import save_file

from model_card.render import write_model_card
from model_card.run_summary import features_section, versions, write_run_summary
from modeling_ast import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification
from modeling_ast.atomic_files import make_folder_atomically

from .errors import ConversionError
from .geometry import HEAD_DIM, PATCH_SIZE, PatchGeometry
from .verification import CLASSIFIER_EPS, TRANSFORMER_EPS, Agreement, expected_outputs, verify
from .weight_map import AST_PREFIX, original_to_hub

WEIGHTS_NAME = "model.safetensors"
PACKAGES = ("torch", "transformers", "safetensors")


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
    config = build_config(tensors, description)
    _refuse_misshapen(hub_tensors, config)
    with make_folder_atomically(output_dir) as folder:
        if not classifier:  # as the bare model saves itself
            hub_tensors = {name.removeprefix(AST_PREFIX): tensor for name, tensor in hub_tensors.items()}
        hub_tensors = {name: tensor.contiguous() for name, tensor in hub_tensors.items()}
        save_file(hub_tensors, folder / WEIGHTS_NAME, metadata={"format": "pt"})
        config.save_pretrained(folder)
        geometry = description.geometry
        feature_extractor = ASTFeatureExtractor(
            num_mel_bins=geometry.num_mel_bins,
            max_length=geometry.max_length,
            mean=description.mean,
            std=description.std,
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
            "environment": versions(PACKAGES),
        }
        write_run_summary(folder, summary)
        write_model_card(folder)
    return agreement


def build_config(tensors: dict[str, torch.Tensor], description: CheckpointDescription) -> ASTConfig:
    """The configuration of the original's tensors, with the original's two LayerNorm epsilons."""
    hidden_size = tensors["v.pos_embed"].shape[-1]
    geometry = description.geometry
    classifier = description.labels is not None
    settings = {}
    if classifier:
        id2label = dict(enumerate(description.labels))
        label2id = {label: index for index, label in id2label.items()}
        settings = {"id2label": id2label, "label2id": label2id, "problem_type": description.problem_type}
    return ASTConfig(
        architectures=["ASTForAudioClassification" if classifier else "ASTModel"],
        hidden_size=hidden_size,
        num_hidden_layers=sum(name.endswith(".norm1.weight") for name in tensors),
        num_attention_heads=hidden_size // HEAD_DIM,
        intermediate_size=tensors["v.blocks.0.mlp.fc1.weight"].shape[0],
        patch_size=PATCH_SIZE,
        frequency_stride=geometry.frequency_stride,
        time_stride=geometry.time_stride,
        max_length=geometry.max_length,
        num_mel_bins=geometry.num_mel_bins,
        layer_norm_eps=TRANSFORMER_EPS,
        classifier_layer_norm_eps=CLASSIFIER_EPS,
        dtype=tensors["v.pos_embed"].dtype,
        **settings,
    )


def _refuse_misshapen(hub_tensors: dict[str, torch.Tensor], config: ASTConfig) -> None:
    with torch.device("meta"):
        expected = ASTForAudioClassification(config)
    shapes = {name: tuple(tensor.shape) for name, tensor in expected.state_dict().items()}
    faults = [
        f"{name} has shape {tuple(tensor.shape)}, expected {shapes[name]}"
        for name, tensor in hub_tensors.items()
        if tuple(tensor.shape) != shapes[name]
    ]
    if faults:
        more = f" and {len(faults) - 5} more" if len(faults) > 5 else ""
        raise ConversionError(
            f"Shapes do not fit each other: {'; '.join(faults[:5])}{more}. Give an unbroken checkpoint."
        )

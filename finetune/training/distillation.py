"""The loss of a student that learns from a teacher's scores, and from the outputs of its layers, beside the labels.

Follows Gong et al. 2022, "CMKD: CNN/Transformer-Based Cross-Model Knowledge Distillation for Audio Classification": a share of
the loss is that of the labels, the rest compares with the teacher. Differs from it in that the student's logits are softened
too and the term is multiplied by the squared temperature, as in Hinton et al. 2015, "Distilling the Knowledge in a Neural
Network": so the temperature does not change how much the teacher weighs. Layers are compared after Romero et al. 2015,
"FitNets", by a linear map that is thrown away.
"""

from collections.abc import Sequence
from functools import partial

import torch
from torch import nn
from transformers.utils import ModelOutput

from modeling_ast.modeling_ast import classification_loss

from .losses import TrainingLoss

MULTI_LABEL = "multi_label_classification"
# What a teacher puts beside the inputs of the student.
TEACHER_SCORES, TEACHER_STATES, TEACHER_TOKENS = "teacher_scores", "teacher_states", "teacher_tokens"


def soft_scores(logits: torch.Tensor, temperature: float, problem_type: str) -> torch.Tensor:
    """Soften scores, so that those of labels that are unlikely count too.

    Args:
        logits (`torch.Tensor` of shape `(batch, num_labels)`): of a teacher, in the order of the student's labels.
        temperature (`float`): by what they are divided.
        problem_type (`str`): of the student: sigmoids of independent labels, a softmax of exclusive ones.

    Returns:
        `torch.Tensor` of shape `(batch, num_labels)`, float32.
    """
    softened = logits.float() / temperature
    return softened.sigmoid() if problem_type == MULTI_LABEL else softened.softmax(dim=-1)


def distillation_loss(
    outputs: ModelOutput,
    inputs: dict,
    *,
    problem_type: str,
    temperature: float,
    weight: float,
    label_loss: TrainingLoss | None = None,
    layers: Sequence[int] = (),
    layer_maps: nn.ModuleList | None = None,
    layer_weight: float = 1.0,
) -> torch.Tensor:
    """Mean over the clips of a batch: `(1 - weight) * labels + weight * teacher + layer_weight * layers`.

    The teacher's term is the Kullback-Leibler divergence of its softened scores from the student's for exclusive labels, the
    binary cross-entropy of softened sigmoids, mean over the labels, for independent ones; times the squared temperature. That of
    the layers is a mean squared error over tokens, values and pairs.

    Args:
        outputs (`ModelOutput`): with `logits`, and with `hidden_states` where layers are compared.
        inputs (`dict`): with `labels`, and what a [`Teacher`](finetune.training.teacher.Teacher) has put there:
            `teacher_scores` of shape `(batch, num_labels)`, from [`soft_scores`]; for layers `teacher_states`, for each pair a
            tensor of shape `(batch, tokens, teacher's width)`, and perhaps `teacher_tokens` of shape `(batch, tokens)`, bool,
            which of them are no padding.
        problem_type (`str`): of the student.
        temperature (`float`): by which the teacher's scores were softened.
        weight (`float`): share of the teacher's scores, from 0 to 1.
        label_loss ([`TrainingLoss`], *optional*): of the labels; the model's own if not given.
        layers (`Sequence[int]`): layers of the student that are compared, from 1.
        layer_maps (`nn.ModuleList`, *optional*): for each of them what maps its width to the teacher's.
        layer_weight (`float`, defaults to 1): factor of the layers' term.

    Returns:
        `torch.Tensor`: a scalar, float32.
    """
    logits = outputs.logits.float()
    loss = logits.new_zeros(())
    if weight < 1:
        own = partial(_model_loss, problem_type=problem_type) if label_loss is None else label_loss
        loss = loss + (1 - weight) * own(outputs, inputs)
    if weight:
        taught = inputs[TEACHER_SCORES].to(logits.device)
        if problem_type == MULTI_LABEL:
            compared = nn.functional.binary_cross_entropy_with_logits(logits / temperature, taught)
        else:
            softened = (logits / temperature).log_softmax(dim=-1)
            compared = nn.functional.kl_div(softened, taught, reduction="batchmean")
        loss = loss + weight * temperature**2 * compared
    if layers:
        errors = [
            _layer_error(layer_map(outputs.hidden_states[layer]), states, inputs.get(TEACHER_TOKENS))
            for layer, layer_map, states in zip(layers, layer_maps, inputs[TEACHER_STATES], strict=True)
        ]
        loss = loss + layer_weight * torch.stack(errors).mean()
    return loss


def _model_loss(outputs: ModelOutput, inputs: dict, problem_type: str) -> torch.Tensor:
    return classification_loss(outputs.logits, inputs["labels"], problem_type)


def _layer_error(mapped: torch.Tensor, states: torch.Tensor, real: torch.Tensor | None) -> torch.Tensor:
    """Mean squared error over the tokens that are no padding; each clip of a batch counts alike."""
    per_token = (mapped.float() - states.float()).square().mean(dim=-1)  # (batch, tokens)
    if real is None:
        return per_token.mean()
    return ((per_token * real).sum(dim=1) / real.sum(dim=1)).mean()


def new_layer_maps(pairs: int, student_width: int, teacher_width: int, seed: int) -> nn.ModuleList:
    """Make a linear map for each pair of layers; no global generator is asked.

    Args:
        pairs (`int`): how many.
        student_width (`int`): hidden size of the student.
        teacher_width (`int`): hidden size of the teacher.
        seed (`int`): of their first weights, which are those of LeCun et al.'s initialisation.

    Returns:
        `nn.ModuleList` of `nn.Linear`.
    """
    generator = torch.Generator().manual_seed(seed)
    maps = nn.ModuleList(nn.utils.skip_init(nn.Linear, student_width, teacher_width) for _ in range(pairs))
    for layer_map in maps:
        with torch.no_grad():
            layer_map.weight.normal_(0.0, student_width**-0.5, generator=generator)
            layer_map.bias.zero_()
    return maps

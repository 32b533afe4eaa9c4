"""Proof of a conversion: the original's tensors run by a forward pass of their own, the saved checkpoint by the port.

The forward pass is written from the paper and the released code's description, on tensors, and shares nothing with the
port but torch: it knows the original's tensor names, its two LayerNorm epsilons and its attention written out.
"""

import os
from dataclasses import asdict, dataclass

import torch
from torch.nn.functional import conv2d, gelu, layer_norm, linear

from modeling_ast import ASTForAudioClassification, ASTModel

from .errors import ConversionError
from .geometry import HEAD_DIM, PatchGeometry

TRANSFORMER_EPS = 1e-6  # timm's ViT, inside which the original runs
CLASSIFIER_EPS = 1e-5  # torch's default, in the original's `mlp_head`
# Float32 rounding through twelve layers, for outputs of magnitude up to 5; in proportion for larger ones.
TOLERANCE = 2e-5
USUAL_MAGNITUDE = 5
INPUT_SEED = 0


@dataclass(frozen=True)
class Agreement:
    """How far the saved checkpoint is from the original's tensors, on one random spectrogram.

    Args:
        largest_difference (`float`): of any output.
        tolerance (`float`): what it may be.
        largest_output (`float`): magnitude of the outputs.
        outputs (`str`): what was compared: `"logits"`, or `"pooled output"` where there is no classifier.
    """

    largest_difference: float
    tolerance: float
    largest_output: float
    outputs: str

    def __str__(self):
        return (
            f"largest difference of the {self.outputs} {self.largest_difference:.1e}, tolerance {self.tolerance:.1e}, "
            f"values up to {self.largest_output:.2f}"
        )

    def as_dict(self) -> dict:
        """Give the fields for the run summary.

        Returns:
            Numbers and words by name.
        """
        return asdict(self)


@torch.no_grad()
def original_forward(
    tensors: dict[str, torch.Tensor], input_values: torch.Tensor, frequency_stride: int, time_stride: int
) -> torch.Tensor:
    """Run the original AST on its own tensors.

    Args:
        tensors (`dict[str, torch.Tensor]`): by the original's names, without `module.`.
        input_values (`torch.Tensor` of shape `(batch, frames, mel bins)`): normalised features.
        frequency_stride (`int`): distance of two patches in mel bins.
        time_stride (`int`): distance of two patches in frames.

    Returns:
        Logits of shape `(batch, num_labels)`; without `mlp_head` the pooled output of shape `(batch, hidden)`.

    Source: section 2 of the paper (Gong et al. 2021); DeiT (Touvron et al. 2021) for the transformer.
    """
    named = {name: tensor.float() for name, tensor in tensors.items()}

    def norm(tokens, name, eps=TRANSFORMER_EPS):
        return layer_norm(tokens, tokens.shape[-1:], named[f"{name}.weight"], named[f"{name}.bias"], eps)

    def dense(tokens, name):
        return linear(tokens, named[f"{name}.weight"], named[f"{name}.bias"])

    images = input_values.transpose(1, 2)[:, None]  # (batch, 1, mel bins, frames)
    filters, bias = named["v.patch_embed.proj.weight"], named["v.patch_embed.proj.bias"]
    patches = conv2d(images, filters, bias, stride=(frequency_stride, time_stride)).flatten(2).transpose(1, 2)
    batch = patches.shape[0]
    class_tokens = [named[name].expand(batch, -1, -1) for name in ("v.cls_token", "v.dist_token")]
    tokens = torch.cat((*class_tokens, patches), dim=1) + named["v.pos_embed"]  # (batch, 2 + patches, hidden)

    num_layers = sum(name.endswith("norm1.weight") for name in named)
    for layer in range(num_layers):
        block = f"v.blocks.{layer}"
        fused = dense(norm(tokens, f"{block}.norm1"), f"{block}.attn.qkv")
        heads = fused.unflatten(2, (3, -1, HEAD_DIM)).permute(2, 0, 3, 1, 4)  # (3, batch, heads, tokens, head_dim)
        query, key, value = heads
        weights = ((query @ key.transpose(2, 3)) / HEAD_DIM**0.5).softmax(dim=-1)  # (batch, heads, tokens, tokens)
        context = (weights @ value).transpose(1, 2).flatten(2)  # (batch, tokens, hidden)
        tokens = tokens + dense(context, f"{block}.attn.proj")
        hidden = gelu(dense(norm(tokens, f"{block}.norm2"), f"{block}.mlp.fc1"))
        tokens = tokens + dense(hidden, f"{block}.mlp.fc2")

    tokens = norm(tokens, "v.norm")
    pooled = (tokens[:, 0] + tokens[:, 1]) / 2
    if "mlp_head.0.weight" not in named:
        return pooled
    return dense(norm(pooled, "mlp_head.0", CLASSIFIER_EPS), "mlp_head.1")


def expected_outputs(tensors: dict[str, torch.Tensor], geometry: PatchGeometry) -> torch.Tensor:
    """What the original makes of the spectrogram that [`verify`] shows the port.

    Args:
        tensors (`dict[str, torch.Tensor]`): by the original's names.
        geometry ([`PatchGeometry`]): strides and size of the spectrogram.

    Returns:
        `torch.Tensor` of shape `(1, outputs)`, see [`original_forward`].
    """
    return original_forward(tensors, _spectrogram(geometry), geometry.frequency_stride, geometry.time_stride)


@torch.no_grad()
def verify(
    checkpoint_dir: str | os.PathLike, expected: torch.Tensor, geometry: PatchGeometry, classifier: bool = True
) -> Agreement:
    """Compare a saved checkpoint with the original, whose tensors are no longer needed then.

    Args:
        checkpoint_dir (`str` or `os.PathLike`): folder to load, as a user would.
        expected (`torch.Tensor` of shape `(1, outputs)`): from [`expected_outputs`].
        geometry ([`PatchGeometry`]): strides and size of the spectrogram.
        classifier (`bool`, defaults to `True`): whether the checkpoint has one.

    Returns:
        [`Agreement`].

    Raises:
        ConversionError: if the two disagree, or the outputs are not numbers.
    """
    model_class = ASTForAudioClassification if classifier else ASTModel
    model = model_class.from_pretrained(checkpoint_dir, dtype=torch.float32, local_files_only=True).eval()
    return compare_outputs(outputs_of(model, geometry), expected, kind_of_outputs(classifier))


def outputs_of(model: ASTForAudioClassification | ASTModel, geometry: PatchGeometry) -> torch.Tensor:
    """What the port makes of the spectrogram that [`expected_outputs`] shows the original.

    Args:
        model ([`ASTForAudioClassification`] or [`ASTModel`]): in evaluation mode.
        geometry ([`PatchGeometry`]): size of the spectrogram.

    Returns:
        `torch.Tensor` of shape `(1, num_labels)`; without a classifier the pooled output of shape `(1, hidden)`.
    """
    outputs = model(_spectrogram(geometry))
    return outputs.logits if isinstance(model, ASTForAudioClassification) else outputs.pooler_output


def kind_of_outputs(classifier: bool) -> str:
    """Name what is compared.

    Args:
        classifier (`bool`): whether the model has one.

    Returns:
        `"logits"` or `"pooled output"`.
    """
    return "logits" if classifier else "pooled output"


def compare_outputs(actual: torch.Tensor, expected: torch.Tensor, outputs: str) -> Agreement:
    """Measure how far two outputs are apart.

    Args:
        actual (`torch.Tensor` of shape `(1, outputs)`): the port's.
        expected (`torch.Tensor` of shape `(1, outputs)`): the original's.
        outputs (`str`): what they are, in words.

    Returns:
        [`Agreement`].

    Raises:
        ConversionError: if that is too far, or one of them is not a number.
    """
    largest_output = expected.abs().max().item()
    tolerance = TOLERANCE * max(1.0, largest_output / USUAL_MAGNITUDE)
    agreement = Agreement((actual - expected).abs().max().item(), tolerance, largest_output, outputs)
    if not agreement.largest_difference <= tolerance:  # also if it is NaN
        raise ConversionError(
            f"The converted checkpoint does not agree with the original: {agreement}. Nothing was kept. Check the tensors "
            "for NaN and huge values; if they are sound this is a fault of the kit, please report it."
        )
    return agreement


def _spectrogram(geometry: PatchGeometry) -> torch.Tensor:
    """Random normalised features with the statistics that AST was trained on, mean 0 and standard deviation 0.5."""
    generator = torch.Generator().manual_seed(INPUT_SEED)
    return torch.randn(1, geometry.max_length, geometry.num_mel_bins, generator=generator) * 0.5

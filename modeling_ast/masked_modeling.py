"""Self-supervised pretraining of an AST: masked patches are reconstructed, and found again among each other.

Follows SSAST (Gong et al., "SSAST: Self-Supervised Audio Spectrogram Transformer", AAAI 2022): two heads of two layers on
the tokens of masked patches, patches without overlap, the sum of both losses. Differs from the released code in that
each prediction is compared with all masked patches of its clip, as the paper's formula (1) says, where that compares each
patch with all predictions; and in that both heads have the same masked patches, in one pass, where that draws two masks and
makes two passes.
"""

from dataclasses import dataclass

import torch
from torch import nn
from transformers import initialization as init
from transformers.utils import ModelOutput, can_return_tuple, logging

from .configuration_ast import ASTConfig
from .modeling_ast import CLIP_HEAD, FRAME_HEAD, ASTModel, ASTPreTrainedModel

logger = logging.get_logger(__name__)

RECONSTRUCTION_WEIGHT = 10.0  # the paper's lambda, of the reconstruction beside the matching
HEADS = ("mask_embedding", "matching_head.", "reconstruction_head.")  # what only the pretraining needs


@dataclass
class ASTMaskedSpectrogramOutput(ModelOutput):
    """What [`ASTForMaskedSpectrogramModeling`] returns.

    Args:
        loss (`torch.Tensor`): scalar, the mean over the clips of matching loss + 10 * reconstruction error.
        reconstruction_errors (`torch.Tensor` of shape `(batch,)`): each clip's mean squared error over the values of its
            masked patches; 0 for a clip without masked patches, as the two below.
        matching_losses (`torch.Tensor` of shape `(batch,)`): each clip's InfoNCE.
        matching_accuracies (`torch.Tensor` of shape `(batch,)`): share of its masked patches that were found.
        reconstruction (`torch.Tensor` of shape `(batch, patches, patch_size ** 2)`): the values that the model gives
            every patch, mel bins first; only those of masked patches were learned.
    """

    loss: torch.Tensor | None = None
    reconstruction_errors: torch.Tensor | None = None
    matching_losses: torch.Tensor | None = None
    matching_accuracies: torch.Tensor | None = None
    reconstruction: torch.Tensor | None = None


class ASTPatchHead(nn.Module):
    """Two layers from a token to the values of its patch."""

    def __init__(self, config: ASTConfig):
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.output = nn.Linear(config.hidden_size, config.patch_size**2)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Predict the values of patches.

        Args:
            hidden_states (`torch.Tensor` of shape `(batch, patches, hidden)`): their tokens, after the last LayerNorm.

        Returns:
            `torch.Tensor` of shape `(batch, patches, patch_size ** 2)`.
        """
        return self.output(nn.functional.relu(self.dense(hidden_states)))


def patch_values(input_values: torch.Tensor, patch_size: int) -> torch.Tensor:
    """Cut spectrograms into patches without overlap.

    Args:
        input_values (`torch.Tensor` of shape `(batch, frames, mel bins)`): normalised log-mel features.
        patch_size (`int`): side of a patch; what remains of both axes is left out.

    Returns:
        `torch.Tensor` of shape `(batch, patches, patch_size ** 2)`: patches with time running fastest, of each the values
        of its lowest mel bin first.
    """
    images = input_values.transpose(1, 2)[:, None]  # (batch, 1, mel bins, frames)
    return nn.functional.unfold(images, patch_size, stride=patch_size).transpose(1, 2)


def matching_scores(
    predictions: torch.Tensor, values: torch.Tensor, masked: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """InfoNCE of masked patches among the masked patches of their clip, and how many were found, in float32.

    Args:
        predictions (`torch.Tensor` of shape `(batch, patches, values)`): of the matching head.
        values (`torch.Tensor` of shape `(batch, patches, values)`): from [`patch_values`].
        masked (`torch.Tensor` of shape `(batch, patches)`, bool): which patches are masked.

    Returns:
        The mean loss of each clip's masked patches and the share of them whose own patch has the highest product with its
        prediction, both of shape `(batch,)`; 0 for a clip without masked patches.

    Source: SSAST, formula (1).
    """
    with torch.autocast(predictions.device.type, enabled=False):
        products = predictions.float() @ values.float().transpose(1, 2)  # (batch, predictions, patches)
        # Rows of patches that are not masked are no part of the loss, but must not become NaN.
        products = products.masked_fill(~masked[:, None, :], torch.finfo(products.dtype).min)
        losses = -products.log_softmax(dim=2).diagonal(dim1=1, dim2=2)  # (batch, patches)
    found = products.argmax(dim=2) == torch.arange(masked.shape[1], device=masked.device)
    return _mean_of_masked(losses, masked), _mean_of_masked(found.float(), masked)


def reconstruction_errors(reconstruction: torch.Tensor, values: torch.Tensor, masked: torch.Tensor) -> torch.Tensor:
    """Mean squared error of each clip's masked patches, in float32.

    Args:
        reconstruction (`torch.Tensor` of shape `(batch, patches, values)`): of the reconstruction head.
        values (`torch.Tensor` of shape `(batch, patches, values)`): from [`patch_values`].
        masked (`torch.Tensor` of shape `(batch, patches)`, bool): which patches are masked.

    Returns:
        `torch.Tensor` of shape `(batch,)`; 0 for a clip without masked patches.

    Source: SSAST, formula (2).
    """
    return _mean_of_masked((reconstruction.float() - values.float()).square().mean(dim=2), masked)


def _mean_of_masked(of_patches: torch.Tensor, masked: torch.Tensor) -> torch.Tensor:
    return of_patches.masked_fill(~masked, 0).sum(dim=1) / masked.sum(dim=1).clamp(min=1)


class ASTForMaskedSpectrogramModeling(ASTPreTrainedModel):
    """AST with the two heads of a self-supervised pretraining. Its patches must not overlap."""

    _keys_to_ignore_on_load_unexpected = [CLIP_HEAD, FRAME_HEAD]

    def __init__(self, config: ASTConfig):
        super().__init__(config)
        self.audio_spectrogram_transformer = ASTModel(config)
        self.mask_embedding = nn.Parameter(torch.zeros(config.hidden_size))
        self.matching_head = ASTPatchHead(config)
        self.reconstruction_head = ASTPatchHead(config)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module):
        super()._init_weights(module)
        if module is self:
            init.trunc_normal_(self.mask_embedding, std=self.config.initializer_range)

    def _refuse_unfit_checkpoint(self, name, loading_info: dict, new_classifier_allowed: bool):
        heads = {key for key in self.state_dict() if key.startswith(HEADS)}
        if heads <= set(loading_info["missing_keys"]):  # of a model that was not pretrained so, or fine-tuned since
            loading_info = loading_info | {"missing_keys": set(loading_info["missing_keys"]) - heads}
            logger.warning("The mask embedding and the two heads of the pretraining are new; %s has none.", name)
        super()._refuse_unfit_checkpoint(name, loading_info, new_classifier_allowed)

    @can_return_tuple
    def forward(
        self,
        input_values: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        *,
        patches_masked: torch.Tensor,
    ) -> ASTMaskedSpectrogramOutput:
        r"""
        Args:
            input_values (`torch.Tensor` of shape `(batch, frames, mel bins)`): see [`ASTModel.forward`].
            attention_mask (`torch.Tensor` of shape `(batch, frames)`, *optional*): see [`ASTModel.forward`]. Masked patches of
                padding are not scored.
            patches_masked (`torch.Tensor` of shape `(batch, patches)`, bool): the patches that are hidden and predicted,
                with time running fastest; [`draw_patch_mask`] draws those of a clip.

        Returns:
            [`ASTMaskedSpectrogramOutput`].

        Raises:
            TypeError: if `patches_masked` is no tensor.
            ValueError: if patches overlap, or as [`ASTModel.forward`].
        """
        config = self.config
        strides = (config.frequency_stride, config.time_stride)
        if strides != (config.patch_size, config.patch_size):
            raise ValueError(
                f"frequency_stride={strides[0]} and time_stride={strides[1]} do not both equal patch_size={config.patch_size}: "
                "a masked patch could be copied from those that it shares values with, or values are in none. Set both to "
                f"{config.patch_size}; a fine-tuning may have others."
            )
        encoder = self.audio_spectrogram_transformer
        seam = {"patches_masked": patches_masked, "mask_embedding": self.mask_embedding}
        layout = encoder.patch_layout(input_values, attention_mask, **seam)
        tokens = encoder(input_values, attention_mask=attention_mask, return_dict=True, **seam).last_hidden_state
        masked, token_mask = layout.masked, layout.token_mask()
        patches = tokens[:, -masked.shape[1] :]  # (batch, patches, hidden)
        if token_mask is not None:
            masked = masked & token_mask[:, -masked.shape[1] :]
        values = patch_values(input_values, config.patch_size)
        reconstruction = self.reconstruction_head(patches)
        errors = reconstruction_errors(reconstruction, values, masked)
        losses, accuracies = matching_scores(self.matching_head(patches), values, masked)
        return ASTMaskedSpectrogramOutput(
            loss=(losses + RECONSTRUCTION_WEIGHT * errors).mean(),
            reconstruction_errors=errors,
            matching_losses=losses,
            matching_accuracies=accuracies,
            reconstruction=reconstruction,
        )

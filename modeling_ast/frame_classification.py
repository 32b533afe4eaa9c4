"""AST with a frame head: which labels sound when, for each column of the patch grid.

Transformers calls the task `AutoModelForAudioFrameClassification` and has no AST for it. As in its other models the labels of a
frame come from the encoder's own output for it, here from the mean of the patches in a column over frequency, after the
last LayerNorm. Differs from them in the loss: binary cross-entropy, as of several sounds each may be there or not, where
they take cross-entropy over exclusive labels such as speakers.

How long a frame is follows from the configuration: `time_stride` frames of 10 ms, that is 100 ms with the paper's stride
of 10; [`FrameColumns`](modeling_ast.frame_columns.FrameColumns) tells where each lies.
"""

from dataclasses import dataclass

import torch
from torch import nn
from transformers.utils import ModelOutput, can_return_tuple, logging

from .configuration_ast import ASTConfig
from .modeling_ast import CLIP_HEAD, PRETRAINING_HEADS, ASTMLPHead, ASTModel, ASTPreTrainedModel

logger = logging.get_logger(__name__)

MULTI_LABEL = "multi_label_classification"
NOT_SCORED = -100  # a label of a frame that counts nothing, as elsewhere in Transformers


@dataclass
class ASTFrameClassifierOutput(ModelOutput):
    """What [`ASTForAudioFrameClassification`] returns.

    Args:
        loss (`torch.Tensor`, *optional*): scalar, if labels were given; see [`frame_loss`].
        logits (`torch.Tensor` of shape `(batch, frames, num_labels)`): one row for each column of the patch grid; without
            meaning where `frame_mask` is `False`.
        frame_mask (`torch.Tensor` of shape `(batch, frames)`, bool): which columns belong to the clip and have a patch that
            was not left out.
        hidden_states (`tuple[torch.Tensor]`, *optional*): see [`ASTModel.forward`].
        attentions (`tuple[torch.Tensor]`, *optional*): see [`ASTModel.forward`].
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    frame_mask: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


def frame_loss(logits: torch.Tensor, labels: torch.Tensor, frame_mask: torch.Tensor) -> torch.Tensor:
    """Mean binary cross-entropy over all labels of all frames that count, in float32.

    A frame counts if `frame_mask` says so. A label counts nothing in a frame where it is negative, such as -100.

    Args:
        logits (`torch.Tensor` of shape `(batch, frames, num_labels)`): the model's output.
        labels (`torch.Tensor`): of the shape of the logits, in any dtype: 1 or a share where a label sounds, 0 where it does
            not; or of shape `(batch, frames)` and an integer dtype, the index of the one label of each frame.
        frame_mask (`torch.Tensor` of shape `(batch, frames)`, bool): see [`ASTFrameClassifierOutput`].

    Returns:
        `torch.Tensor` without dimensions, float32; 0 if nothing counts.

    Raises:
        ValueError: if the labels are of another shape.
    """
    labels = labels.to(logits.device)
    if labels.shape == logits.shape[:2] and not labels.is_floating_point():
        indices = labels[:, :, None]
        classes = torch.arange(logits.shape[2], device=labels.device)
        labels = torch.where(indices < 0, indices, (indices == classes).to(labels.dtype))
    if labels.shape != logits.shape:
        raise ValueError(
            f"labels of shape {tuple(labels.shape)} and dtype {labels.dtype} do not fit logits of shape {tuple(logits.shape)}, "
            f"expected that shape, or integer indices of shape {tuple(logits.shape[:2])}: a row for each column of the patch "
            "grid. FrameColumns.of(config).targets(...) makes them of stretches; those of padding are -100."
        )
    counts = frame_mask[:, :, None] & (labels >= 0)
    with torch.autocast(logits.device.type, enabled=False):
        losses = nn.functional.binary_cross_entropy_with_logits(
            logits.float(), labels.float().clamp(min=0), reduction="none"
        )
        # Numbers of padding are without meaning and need not be finite.
        return losses.masked_fill(~counts, 0).sum() / counts.sum().clamp(min=1)


class ASTForAudioFrameClassification(ASTPreTrainedModel):
    """AST with a classifier on each column of its patches.

    A checkpoint with a clip head, or with none, gives its encoder; the frame head is new then, which is logged. Labels are
    independent of each other, whatever they were in the checkpoint it starts from: `problem_type` becomes
    `"multi_label_classification"`.
    """

    head_name = "frame_classifier"  # another name than the clip head's, so that none is taken for the other
    _keys_to_ignore_on_load_unexpected = [CLIP_HEAD, *PRETRAINING_HEADS]

    def __init__(self, config: ASTConfig):
        super().__init__(config)
        self.num_labels = config.num_labels
        config.problem_type = MULTI_LABEL
        self.audio_spectrogram_transformer = ASTModel(config)
        self.frame_classifier = ASTMLPHead(config)
        self.post_init()

    def reset_classifier(self):
        """Give the model a new frame head with initial weights, for labels other than those it was trained on."""
        self.num_labels = self.config.num_labels
        self.frame_classifier = ASTMLPHead(self.config).to(self.device, self.dtype)
        self.frame_classifier.apply(self._init_weights)
        self.frame_classifier.train(self.training)

    def _replace_labels(self, id2label: dict[int, str], had_classifier: bool):
        before = len(self.config.id2label)
        super()._replace_labels(id2label, had_classifier)
        self.config.problem_type = MULTI_LABEL
        self.reset_classifier()
        if had_classifier:
            logger.warning(
                "The frame head is new, for %d labels in place of the checkpoint's %d; train it before you rely on it. To only "
                "rename the labels of a trained one set config.id2label after loading.",
                len(id2label),
                before,
            )

    def _say_new_head(self, name):
        self.config.forget_choices()  # those of the head that is left out
        logger.warning(
            "The frame head is new, %s has none: its encoder is taken, a classifier of clips is not. Train it before you rely on "
            "it.",
            name,
        )

    @can_return_tuple
    def forward(
        self,
        input_values: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        *,
        patches_kept: torch.Tensor | None = None,
        patches_masked: torch.Tensor | None = None,
        mask_embedding: torch.Tensor | None = None,
    ) -> ASTFrameClassifierOutput:
        r"""
        Args:
            input_values (`torch.Tensor` of shape `(batch, frames of 10 ms, mel bins)`): see [`ASTModel.forward`].
            attention_mask (`torch.Tensor` of shape `(batch, frames of 10 ms)`, *optional*): see [`ASTModel.forward`]. A column
                with padding in it counts nothing; the first always counts.
            labels (`torch.Tensor`, *optional*): see [`frame_loss`].
            output_attentions (`bool`, *optional*): see [`ASTModel.forward`].
            output_hidden_states (`bool`, *optional*): see [`ASTModel.forward`].
            patches_kept (`torch.Tensor` of shape `(batch, kept)`, *optional*): see [`ASTModel.forward`]. A column is the mean of
                those of its patches that are kept; one without any counts nothing.
            patches_masked (`torch.Tensor` of shape `(batch, patches)`, *optional*): see [`ASTModel.forward`].
            mask_embedding (`torch.Tensor` of shape `(hidden,)`, *optional*): see [`ASTModel.forward`].

        Returns:
            [`ASTFrameClassifierOutput`].

        Raises:
            TypeError: as [`ASTModel.forward`].
            ValueError: as [`ASTModel.forward`], and if the labels do not fit.
        """
        config = self.config
        seam = {"patches_kept": patches_kept, "patches_masked": patches_masked, "mask_embedding": mask_embedding}
        encoder = self.audio_spectrogram_transformer
        layout = encoder.patch_layout(input_values, attention_mask, **seam)
        outputs = encoder(
            input_values,
            attention_mask=attention_mask,
            output_attentions=config.output_attentions if output_attentions is None else output_attentions,
            output_hidden_states=config.output_hidden_states if output_hidden_states is None else output_hidden_states,
            return_dict=True,
            **seam,
        )
        tokens, token_mask = outputs.last_hidden_state, layout.token_mask()
        if token_mask is None:
            token_mask = torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
        heard = layout.on_grid(token_mask)  # (batch, frequency, time)
        logits = self.frame_classifier(column_means(layout.on_grid(tokens), heard))  # (batch, time, labels)
        frame_mask = heard.any(dim=1)
        return ASTFrameClassifierOutput(
            loss=None if labels is None else frame_loss(logits, labels, frame_mask),
            logits=logits,
            frame_mask=frame_mask,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )


def column_means(grid: torch.Tensor, heard: torch.Tensor) -> torch.Tensor:
    """Pool the patches of each column over frequency.

    Args:
        grid (`torch.Tensor` of shape `(batch, frequency, time, hidden)`): vectors of the patches.
        heard (`torch.Tensor` of shape `(batch, frequency, time)`, bool): which of them count.

    Returns:
        `torch.Tensor` of shape `(batch, time, hidden)`: the mean of those that count; 0 for a column without any.
    """
    sums = grid.masked_fill(~heard[..., None], 0).sum(dim=1)
    return sums / heard.sum(dim=1).clamp(min=1)[..., None].to(grid.dtype)

"""Audio Spectrogram Transformer (Gong, Chung and Glass, Interspeech 2021) for Transformers 5.

Follows the checkpoints on the Hub: parameter names in memory are the names in their `model.safetensors`. Differs from
the class inside Transformers in that inputs of any length are taken, padding can be masked, a checkpoint that does not
fit is an error instead of a warning, and class tokens and positions of a new model start as in timm's ViT.
"""

import copy
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.masking_utils import create_bidirectional_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutput, BaseModelOutputWithPooling, SequenceClassifierOutput
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.utils import (
    ModelOutput,
    cached_file,
    can_return_tuple,
    logging,
)

from .checkpoints.fields import FRAME_ARCHITECTURE, CheckpointError
from .checkpoints.shipped import folder_of
from .checkpoints.tensor_names import HUB_KEY_MAPPING, hub_name
from .checkpoints.weights import (
    WEIGHTS,
    WEIGHTS_INDEX,
    parts_of_index,
    refuse_broken,
    refuse_faults,
    refuse_other_weights,
    shapes_in,
)
from .configuration_ast import LABEL_FIELDS, ASTConfig, wanted_id2label
from .features.kaldi import FRAME_SHIFT_MS
from .layers.fused_layers import are_fused, feed_forward_plus, is_gelu, linear_plus, projected_patches
from .layers.linear import ASTLinear
from .layers.patch_grid import GEOMETRY_FIELDS, NUM_CLASS_TOKENS, patch_grid_of, patches_along
from .layers.patch_layout import PatchLayout
from .layers.position_embeddings import move_position_table, positions_for_grid
from .layers.recomputation import recomputed_in_backward
from .layers.token_merging import ATTENTION_WITH_SIZES, TokenMerging
from .system.regular_files import refuse_special_in

logger = logging.get_logger(__name__)

# What only one of the models with heads has, as patterns of names.
CLIP_HEAD, FRAME_HEAD = r"^classifier\.", r"^frame_classifier\."
PRETRAINING_HEADS = (r"^mask_embedding$", r"^matching_head\.", r"^reconstruction_head\.")
# What says where a checkpoint lies, among the arguments of `from_pretrained`.
_PLACE_ARGUMENTS = ("cache_dir", "force_download", "local_files_only", "token", "revision", "subfolder")


class ASTPatchEmbeddings(nn.Module):
    """Cuts a spectrogram into (overlapping) square patches and projects each to a token."""

    def __init__(self, config: ASTConfig):
        super().__init__()
        self.projection = nn.Conv2d(
            1,
            config.hidden_size,
            kernel_size=config.patch_size,
            stride=(config.frequency_stride, config.time_stride),
        )

    def forward(self, input_values: torch.Tensor) -> torch.Tensor:
        """Project each patch.

        Args:
            input_values (`torch.Tensor` of shape `(batch, frames, mel bins)`): normalised log-mel features.

        Returns:
            `torch.Tensor` of shape `(batch, hidden, frequency, time)`, in patches.
        """
        if are_fused(input_values, ((self, ASTPatchEmbeddings), (self.projection, nn.Conv2d))):
            return projected_patches(input_values, self.projection)
        images = input_values.transpose(1, 2).unsqueeze(1)  # (batch, 1, mel bins, frames)
        return self.projection(images)  # (batch, hidden, frequency, time)


class ASTEmbeddings(nn.Module):
    """Class tokens and patches, with the positions of a learned frequency x time grid."""

    def __init__(self, config: ASTConfig):
        super().__init__()
        self.config = config
        frequency, time = config.patch_grid
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.hidden_size))
        self.distillation_token = nn.Parameter(torch.zeros(1, 1, config.hidden_size))
        self.position_embeddings = nn.Parameter(
            torch.zeros(1, frequency * time + NUM_CLASS_TOKENS, config.hidden_size)
        )
        self.patch_embeddings = ASTPatchEmbeddings(config)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, input_values: torch.Tensor, layout: PatchLayout | None = None) -> torch.Tensor:
        """Make tokens of class tokens and patches.

        Args:
            input_values (`torch.Tensor` of shape `(batch, frames, mel bins)`): normalised log-mel features.
            layout ([`PatchLayout`], *optional*): which patches are kept, masked and real, as [`ASTModel.patch_layout`] gives
                it; if not given, all are kept and real.

        Returns:
            `torch.Tensor` of shape `(batch, 2 + kept, hidden)`; positions are those of [`positions_for_grid`].
        """
        patches = self.patch_embeddings(input_values)
        if layout is None:
            layout = PatchLayout(grid=tuple(patches.shape[2:]))
        class_positions = self.position_embeddings[:, :NUM_CLASS_TOKENS]
        position_grid = self.position_embeddings[0, NUM_CLASS_TOKENS:].unflatten(0, self.config.patch_grid)
        grid_positions = positions_for_grid(position_grid, patches.shape[-1], layout.real_time_patches)

        tokens = layout.patch_tokens(patches.permute(0, 2, 3, 1), grid_positions)  # (batch, kept, hidden)
        class_tokens = torch.cat((self.cls_token, self.distillation_token), dim=1) + class_positions
        embeddings = torch.cat((class_tokens.expand(tokens.shape[0], -1, -1), tokens), dim=1)
        return self.dropout(embeddings)  # (batch, 2 + kept, hidden)


def eager_attention_forward(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention written out, the only implementation that returns its weights.

    Args:
        module (`nn.Module`): the attention it is computed for; its `training` says whether weights are dropped.
        query (`torch.Tensor` of shape `(batch, heads, queries, head_dim)`): the projections of the tokens that attend.
        key (`torch.Tensor` of shape `(batch, heads, tokens, head_dim)`): what they are compared with.
        value (`torch.Tensor` of shape `(batch, heads, tokens, head_dim)`): what they are given.
        attention_mask (`torch.Tensor` broadcastable to `(batch, heads, queries, tokens)`, *optional*): added to scores.
        scaling (`float`): what scores are multiplied with before the softmax.
        dropout (`float`, defaults to 0.0): share of the weights that are dropped in training.
        kwargs: what other implementations of the attention interface take; not used.

    Returns:
        The output of shape `(batch, queries, heads, head_dim)` and the weights of shape `(batch, heads, queries, tokens)`.
    """
    scores = torch.matmul(query, key.transpose(2, 3)) * scaling
    if attention_mask is not None:
        scores = scores + attention_mask
    weights = nn.functional.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
    weights = nn.functional.dropout(weights, p=dropout, training=module.training)
    return torch.matmul(weights, value).transpose(1, 2).contiguous(), weights


class ASTSelfAttention(nn.Module):
    """Multi-head self-attention without its output projection."""

    def __init__(self, config: ASTConfig):
        super().__init__()
        self.config = config
        self.head_dim = config.hidden_size // config.num_attention_heads
        self.scaling = self.head_dim**-0.5
        # Read from the configuration in each call it would be an input of the graph that a compiler makes, which PyTorch 2.14
        # does not bring into checkpointed layers.
        self.attention_dropout = config.attention_probs_dropout_prob
        self.is_causal = False
        self.query = ASTLinear(config.hidden_size, config.hidden_size, bias=config.qkv_bias)
        self.key = ASTLinear(config.hidden_size, config.hidden_size, bias=config.qkv_bias)
        self.value = ASTLinear(config.hidden_size, config.hidden_size, bias=config.qkv_bias)

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None,
        attn_implementation: str,
        num_queries: int | None = None,
        merging: TokenMerging | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Let tokens attend to each other.

        Args:
            hidden_states (`torch.Tensor` of shape `(batch, tokens, hidden)`): the tokens, after the layer's first LayerNorm.
            attention_mask (`torch.Tensor`, *optional*): which tokens are attended to, in the form that the implementation
                takes.
            attn_implementation (`str`): name of the implementation, as Transformers has it.
            num_queries (`int`, *optional*): only so many tokens attend, the first ones; all if not given. All are attended
                to.
            merging ([`TokenMerging`], *optional*): what is given the keys, by which it merges tokens.

        Returns:
            The tokens' contexts, a `torch.Tensor` of shape `(batch, queries, hidden)`, and the attention weights of shape
            `(batch, heads, queries, tokens)`, or `None` where the implementation does not return them.
        """
        asking = hidden_states if num_queries is None else hidden_states[:, :num_queries]
        query, key, value = (
            projection(tokens).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)  # (batch, heads, tokens, head_dim)
            for projection, tokens in ((self.query, asking), (self.key, hidden_states), (self.value, hidden_states))
        )
        if merging is not None:
            merging.keys = key
        if num_queries is not None and attention_mask is not None:
            attention_mask = attention_mask[:, :, :num_queries]
        attention: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(attn_implementation, eager_attention_forward)
        context, weights = attention(
            self,
            query,
            key,
            value,
            attention_mask,
            dropout=self.attention_dropout if self.training else 0.0,
            scaling=self.scaling,
        )
        return context.flatten(2), weights  # (batch, queries, hidden)


class ASTSelfOutput(nn.Module):
    """Output projection of the attention; the residual is added in `ASTLayer`."""

    def __init__(self, config: ASTConfig):
        super().__init__()
        self.dense = ASTLinear(config.hidden_size, config.hidden_size)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Project the contexts of the heads.

        Args:
            hidden_states (`torch.Tensor` of shape `(batch, tokens, hidden)`): what [`ASTSelfAttention`] returns.

        Returns:
            `torch.Tensor` of shape `(batch, tokens, hidden)`.
        """
        return self.dropout(self.dense(hidden_states))


class ASTAttention(nn.Module):
    """Self-attention and its output projection, nested as in the Hub's tensor names."""

    def __init__(self, config: ASTConfig):
        super().__init__()
        self.attention = ASTSelfAttention(config)
        self.output = ASTSelfOutput(config)

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None,
        attn_implementation: str,
        num_queries: int | None = None,
        merging: TokenMerging | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Let tokens attend to each other, and project what they get.

        Args:
            hidden_states (`torch.Tensor` of shape `(batch, tokens, hidden)`): see [`ASTSelfAttention.forward`].
            attention_mask (`torch.Tensor`, *optional*): see [`ASTSelfAttention.forward`].
            attn_implementation (`str`): see [`ASTSelfAttention.forward`].
            num_queries (`int`, *optional*): see [`ASTSelfAttention.forward`].
            merging ([`TokenMerging`], *optional*): see [`ASTSelfAttention.forward`].

        Returns:
            `torch.Tensor` of shape `(batch, queries, hidden)`, and the weights, see [`ASTSelfAttention.forward`].
        """
        context, weights = self.attention(hidden_states, attention_mask, attn_implementation, num_queries, merging)
        return self.output(context), weights


class ASTIntermediate(nn.Module):
    """First half of the feed-forward layer; the activation between the halves is applied in `ASTLayer`."""

    def __init__(self, config: ASTConfig):
        super().__init__()
        self.dense = ASTLinear(config.hidden_size, config.intermediate_size)
        self.activation = ACT2FN[config.hidden_act]

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Widen the tokens.

        Args:
            hidden_states (`torch.Tensor` of shape `(batch, tokens, hidden)`): the tokens, after the layer's second LayerNorm.

        Returns:
            `torch.Tensor` of shape `(batch, tokens, intermediate)`, before the activation.
        """
        return self.dense(hidden_states)


class ASTOutput(nn.Module):
    """Second half of the feed-forward layer; the residual is added in `ASTLayer`."""

    def __init__(self, config: ASTConfig):
        super().__init__()
        self.dense = ASTLinear(config.intermediate_size, config.hidden_size)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Narrow the tokens again.

        Args:
            hidden_states (`torch.Tensor` of shape `(batch, tokens, intermediate)`): the widened tokens, after the activation.

        Returns:
            `torch.Tensor` of shape `(batch, tokens, hidden)`.
        """
        return self.dropout(self.dense(hidden_states))


class ASTLayer(GradientCheckpointingLayer):
    """One pre-norm transformer layer."""

    def __init__(self, config: ASTConfig):
        super().__init__()
        self.attention = ASTAttention(config)
        self.intermediate = ASTIntermediate(config)
        self.output = ASTOutput(config)
        self.layernorm_before = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.layernorm_after = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None,
        attn_implementation: str,
        num_queries: int | None = None,
        merging: TokenMerging | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Compute attention and the feed-forward layer, each added to its input.

        Args:
            hidden_states (`torch.Tensor` of shape `(batch, tokens, hidden)`): the embeddings, or what the layer before
                returned.
            attention_mask (`torch.Tensor`, *optional*): see [`ASTSelfAttention.forward`].
            attn_implementation (`str`): see [`ASTSelfAttention.forward`].
            num_queries (`int`, *optional*): only the first so many tokens are computed and returned; all if not given.
            merging ([`TokenMerging`], *optional*): what merges tokens between the two; none are merged if not given.

        Returns:
            `torch.Tensor` of shape `(batch, queries, hidden)`, with fewer tokens where some were merged, and the weights, see [`ASTSelfAttention.forward`].
        """
        attention, residual = self.attention, hidden_states if num_queries is None else hidden_states[:, :num_queries]
        normed = self.layernorm_before(hidden_states)
        if are_fused(residual, self._parts_of_projection()):
            context, weights = attention.attention(normed, attention_mask, attn_implementation, num_queries, merging)
            hidden_states = linear_plus(context, attention.output.dense, residual)
        else:
            with recomputed_in_backward(normed, self.layernorm_before, hidden_states):
                attended, weights = attention(normed, attention_mask, attn_implementation, num_queries, merging)
            hidden_states = residual + attended
        if merging is not None:
            hidden_states = merging.merge(hidden_states)

        normed = self.layernorm_after(hidden_states)
        activation = self.intermediate.activation
        if is_gelu(activation) and are_fused(hidden_states, self._parts_of_feed_forward()):
            return feed_forward_plus(normed, self.intermediate.dense, self.output.dense, hidden_states), weights
        with recomputed_in_backward(normed, self.layernorm_after, hidden_states):
            widened = self.intermediate(normed)
        activated = activation(widened)
        with recomputed_in_backward(activated, activation, widened):
            narrowed = self.output(activated)
        return hidden_states + narrowed, weights

    def _parts_of_projection(self) -> tuple[tuple[nn.Module, type], ...]:
        output = self.attention.output
        return (
            (self.attention, ASTAttention),
            (output, ASTSelfOutput),
            (output.dense, ASTLinear),
            (output.dropout, nn.Dropout),
        )

    def _parts_of_feed_forward(self) -> tuple[tuple[nn.Module, type], ...]:
        intermediate, output = self.intermediate, self.output
        return (
            (intermediate, ASTIntermediate),
            (intermediate.dense, ASTLinear),
            (intermediate.activation, type(intermediate.activation)),
            (output, ASTOutput),
            (output.dense, ASTLinear),
            (output.dropout, nn.Dropout),
        )


class ASTEncoder(nn.Module):
    """The stack of transformer layers."""

    def __init__(self, config: ASTConfig):
        super().__init__()
        self.layer = nn.ModuleList([ASTLayer(config) for _ in range(config.num_hidden_layers)])

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None,
        attn_implementation: str,
        output_attentions: bool,
        output_hidden_states: bool,
        num_queries: int | None = None,
        merging: TokenMerging | None = None,
    ) -> BaseModelOutput:
        """Take tokens through all layers.

        Args:
            hidden_states (`torch.Tensor` of shape `(batch, tokens, hidden)`): the embeddings.
            attention_mask (`torch.Tensor`, *optional*): see [`ASTSelfAttention.forward`].
            attn_implementation (`str`): see [`ASTSelfAttention.forward`].
            output_attentions (`bool`): whether to return every layer's weights.
            output_hidden_states (`bool`): whether to return the embeddings and every layer's output.
            num_queries (`int`, *optional*): of the last layer only the first so many tokens are computed; all if not given.
            merging ([`TokenMerging`], *optional*): what merges tokens in every layer but the last, after which there is no
                attention that would be spared; none are merged if not given.

        Returns:
            [`BaseModelOutput`] with `last_hidden_state` of shape `(batch, queries, hidden)`, before the last LayerNorm, and
            the tuples `attentions` and `hidden_states` if they were asked for.
        """
        all_hidden_states = (hidden_states,)
        all_attentions = ()
        if merging is not None:
            hidden_states = merging.begin(hidden_states)
        for layer in self.layer:
            is_last = layer is self.layer[-1]
            if merging is not None:
                attention_mask = merging.attention_mask(hidden_states.dtype)
            hidden_states, weights = layer(
                hidden_states,
                attention_mask,
                attn_implementation,
                num_queries if is_last else None,
                None if is_last else merging,
            )
            if output_hidden_states:
                all_hidden_states += (hidden_states if merging is None else merging.spread(hidden_states),)
            if output_attentions:
                all_attentions += (weights,)
        if merging is not None and num_queries is None:
            hidden_states = merging.spread(hidden_states)
        return BaseModelOutput(
            last_hidden_state=hidden_states,
            hidden_states=all_hidden_states if output_hidden_states else None,
            attentions=all_attentions if output_attentions else None,
        )


class ASTPreTrainedModel(PreTrainedModel):
    """Initial weights, and loading that never leaves a tensor out silently."""

    config: ASTConfig
    base_model_prefix = "audio_spectrogram_transformer"
    main_input_name = "input_values"
    _input_embed_layer = "patch_embeddings"  # for `get_input_embeddings` and `set_input_embeddings`
    head_name = "classifier"  # of the part that tells labels, where a model has one
    input_modalities = ("audio",)
    supports_gradient_checkpointing = True
    # The loss is a mean over the clips of a batch. Without this, `Trainer` would take it for a sum over the whole
    # accumulated batch and scale the gradients of accumulation and of several processes wrongly.
    accepts_loss_kwargs = False
    _no_split_modules = ["ASTEmbeddings", "ASTLayer"]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True

    def post_init(self):
        """As the stock method, but what the encoder alone may leave out of a checkpoint is no concern of a model with a head."""
        super().post_init()
        self._keys_to_ignore_on_load_unexpected = {*(type(self)._keys_to_ignore_on_load_unexpected or ())}

    @torch.no_grad()
    def _init_weights(self, module: nn.Module):
        super()._init_weights(module)
        if isinstance(module, ASTEmbeddings):
            # As in timm. Zeros would leave the two class tokens identical for ever: same value, same gradient.
            std = self.config.initializer_range
            for parameter in (module.cls_token, module.distillation_token, module.position_embeddings):
                init.trunc_normal_(parameter, std=std)

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path,
        *model_args,
        config: ASTConfig | str | os.PathLike | None = None,
        ignore_mismatched_sizes: bool = False,
        output_loading_info: bool = False,
        tokens_merged_per_layer: int = 0,
        **kwargs,
    ):
        r"""
        As `PreTrainedModel.from_pretrained`, but a checkpoint is loaded as it is or not at all, and changed afterwards:
        positions are moved to another geometry by the paper's rule, and other labels get a new classifier. Both are
        logged. Nothing else is ever initialised anew. Tensors may have the names of stock Transformers 5 or of a wrapped
        model (`torch.compile`, DDP), see [`hub_name`]; what is saved again has those of the Hub.

        Args:
            pretrained_model_name_or_path (`str` or `os.PathLike`): a folder, a Hub id such as `user/name`, or `ast-small`, the
                checkpoint that the kit ships.
            model_args: further arguments of the model's class.
            config ([`ASTConfig`] or path, *optional*): the wanted configuration, where it is not the checkpoint's own.
                It may differ from that in geometry and labels as the arguments below may.
            ignore_mismatched_sizes (`bool`, defaults to `False`): also allow a new classifier where the weights of the
                checkpoint's do not fit its `config.json`. Other mismatched tensors stay an error.
            output_loading_info (`bool`, defaults to `False`): also return the lists of missing, unexpected and
                mismatched tensors.
            tokens_merged_per_layer (`int`, defaults to 0): see [`merge_tokens`].
            max_length, num_mel_bins, frequency_stride, time_stride (`int`, *optional*): another geometry than the
                checkpoint's; see [`resize_patch_grid`].
            num_labels, id2label, label2id (*optional*): other labels than the checkpoint's. Its classifier is kept if
                they are the same names in the same order, otherwise the model gets a new one.
            kwargs: as the stock method; fields of the configuration override the checkpoint's. A `key_mapping` is applied
                to the tensors' names first.

        Returns:
            The model, in evaluation mode; with `output_loading_info` also the `dict` of these lists.

        Raises:
            ValueError: if `config.json` holds what it may not, or a tensor other than the classifier's is missing, unexpected, of
                another shape, NaN or infinite. What its files say is checked before anything is built.
        """
        shipped, pretrained_model_name_or_path = (
            pretrained_model_name_or_path,
            folder_of(pretrained_model_name_or_path),
        )
        wanted = {name: kwargs.pop(name) for name in (*GEOMETRY_FIELDS, *LABEL_FIELDS) if name in kwargs}
        labels_given = any(name in wanted for name in LABEL_FIELDS)
        refuse_special_in(pretrained_model_name_or_path or "")  # a shard that an index names would be waited for
        own = _own_config_dict(pretrained_model_name_or_path, kwargs)
        labels_decide_problem_type = config is None and not own.get("problem_type") and "problem_type" not in kwargs
        if isinstance(config, (str, os.PathLike)):
            config = ASTConfig.from_pretrained(config)
        elif config is not None and not isinstance(config, ASTConfig):  # that of stock Transformers
            config = ASTConfig.from_dict(config.to_dict())
        if config is not None and own:
            own_config = ASTConfig.from_dict(dict(own))
            wanted = {name: getattr(config, name) for name in GEOMETRY_FIELDS} | wanted
            if not labels_given and config.id2label != own_config.id2label:
                wanted["id2label"], labels_given = config.id2label, True
            config = _with_geometry_and_labels(config, own_config)
        key_mapping = kwargs.pop("key_mapping", None) or {}
        if own:
            shapes = shapes_in(_weight_files(pretrained_model_name_or_path, kwargs))
            if shapes and not key_mapping:
                _refuse_doubled_tensors(pretrained_model_name_or_path, shapes)
                refuse_other_weights(pretrained_model_name_or_path, ASTConfig.from_dict(dict(own)), shapes)
        model, loading_info = super().from_pretrained(
            pretrained_model_name_or_path,
            *model_args,
            config=config,
            ignore_mismatched_sizes=True,  # so that the message below can name them all
            output_loading_info=True,
            key_mapping=key_mapping | HUB_KEY_MAPPING,
            **kwargs,
        )
        if pretrained_model_name_or_path is not shipped:  # where the kit is installed is nobody's business
            model.name_or_path = model.config.name_or_path = shipped
        model._weight_conversions = None  # by which `save_pretrained` would write the names of the file that was read
        model.merge_tokens(tokens_merged_per_layer)
        model._refuse_unfit_checkpoint(
            pretrained_model_name_or_path, loading_info, ignore_mismatched_sizes or labels_given
        )
        refuse_broken(pretrained_model_name_or_path, model.state_dict().items())
        has_classifier = f"{cls.head_name}.dense.weight" not in loading_info["missing_keys"]
        if not has_classifier:
            model._say_new_head(pretrained_model_name_or_path)
        model.resize_patch_grid(**{name: wanted.get(name) for name in GEOMETRY_FIELDS})
        id2label = wanted_id2label(wanted, model.config.id2label)
        if id2label != model.config.id2label:
            if labels_decide_problem_type:  # what was concluded from the old labels is not true of the new ones
                model.config.problem_type = None
            model._replace_labels(id2label, has_classifier)
        return (model, loading_info) if output_loading_info else model

    @property
    def tokens_merged_per_layer(self) -> int:
        """How many tokens every layer merges into others outside training; see [`merge_tokens`]."""
        return getattr(self, self.base_model_prefix, self)._tokens_merged_per_layer

    def merge_tokens(self, tokens_merged_per_layer: int):
        """Let layers merge tokens that are much alike, which makes inference faster and scores a little different.

        In training nothing is merged. It is no part of the checkpoint: what `save_pretrained` writes does not say it. Hidden
        states and embeddings keep their shapes, patches that were merged have the same numbers.

        Args:
            tokens_merged_per_layer (`int`): tokens that every layer but the last merges into others, of a clip at most half
                of those that it has; 0 turns it off.

        Raises:
            ValueError: if it is no whole number from 0 on.

        Source: Bolya et al., ICLR 2023; see [`TokenMerging`].
        """
        is_whole = isinstance(tokens_merged_per_layer, Integral) and not isinstance(tokens_merged_per_layer, bool)
        if not is_whole or tokens_merged_per_layer < 0:
            raise ValueError(
                f"tokens_merged_per_layer={tokens_merged_per_layer!r} is no number of tokens. Pass a whole number from 0 on, "
                "where 0 merges none."
            )
        getattr(self, self.base_model_prefix, self)._tokens_merged_per_layer = int(tokens_merged_per_layer)

    @torch.no_grad()
    def resize_patch_grid(
        self,
        max_length: int | None = None,
        num_mel_bins: int | None = None,
        frequency_stride: int | None = None,
        time_stride: int | None = None,
    ):
        """Make this a checkpoint for inputs of another length, mel-bin count or patch stride, to be trained further.

        Positions are moved by the paper's rule, or as `config.position_cut` says, see [`move_position_table`]; all other weights
        stay as they are. The feature extractor needs the same `max_length` and `num_mel_bins`.

        Args:
            max_length (`int`, *optional*): frames; the present value if not given, as with the others.
            num_mel_bins (`int`, *optional*): mel bins.
            frequency_stride (`int`, *optional*): distance of two patches in mel bins.
            time_stride (`int`, *optional*): distance of two patches in frames.

        Raises:
            ValueError: if an input would be smaller than one patch, a stride below 1, or the positions are offloaded.
        """
        changes = {
            "max_length": max_length,
            "num_mel_bins": num_mel_bins,
            "frequency_stride": frequency_stride,
            "time_stride": time_stride,
        }
        changes = {name: value for name, value in changes.items() if value not in (None, getattr(self.config, name))}
        if not changes:
            return
        resized = ASTConfig.from_dict(self.config.to_dict() | changes)  # checks the values
        embeddings = getattr(self, self.base_model_prefix, self).embeddings
        old_grid, new_grid = self.config.patch_grid, resized.patch_grid
        table = embeddings.position_embeddings
        if new_grid != old_grid:
            if table.is_meta:
                raise ValueError(
                    "The position table is offloaded, so it cannot be moved to another patch grid. Load the checkpoint "
                    "without device_map, call resize_patch_grid and save it."
                )
            moved = move_position_table(table, NUM_CLASS_TOKENS, old_grid, new_grid, self.config.position_cut)
            embeddings.position_embeddings = nn.Parameter(moved, requires_grad=table.requires_grad)
        for name, value in changes.items():
            setattr(self.config, name, value)
        embeddings.patch_embeddings.projection.stride = (resized.frequency_stride, resized.time_stride)
        if new_grid != old_grid or {"frequency_stride", "time_stride"} & changes.keys():
            logger.warning(
                "The patch grid is %d x %d (frequency x time) in place of %d x %d, positions moved, for %s; "
                "train the model before you rely on it.",
                *new_grid,
                *old_grid,
                ", ".join(f"{name}={value}" for name, value in changes.items()),
            )

    def _replace_labels(self, id2label: dict[int, str], had_classifier: bool):
        """Take other labels; a model with a classifier overrides this to get a new one."""
        self.config.id2label = id2label
        self.config.label2id = {label: index for index, label in id2label.items()}

    def _say_new_head(self, name):
        """Say that a checkpoint has no head of this kind, where that is not said otherwise."""

    def _refuse_unfit_checkpoint(self, name, loading_info: dict, new_classifier_allowed: bool):
        missing = set(loading_info["missing_keys"])
        classifier = {key for key in self.state_dict() if key.startswith(f"{self.head_name}.")}
        if classifier <= missing:  # a checkpoint of the bare model: the whole classifier is new
            missing -= classifier
        mismatched = {key: (tuple(found), tuple(needed)) for key, found, needed in loading_info["mismatched_keys"]}
        resized_classifier = classifier & set(mismatched)
        faults = [f"{key} is missing" for key in sorted(missing)]
        faults += [f"{key} is not part of the model" for key in sorted(loading_info["unexpected_keys"])]
        faults += [
            f"{key} has shape {found}, the configuration needs {needed}"
            for key, (found, needed) in sorted(mismatched.items())
            if key not in resized_classifier or not new_classifier_allowed
        ]
        hint = {}
        if resized_classifier and not new_classifier_allowed and set(mismatched) == resized_classifier:
            hint = {"hint": "For a new classifier pass num_labels=... or ignore_mismatched_sizes=True."}
        refuse_faults(name, faults, **hint)


def _own_config_dict(name_or_path, kwargs: dict) -> dict:
    """What the `config.json` beside the weights says; empty where there is none, as with an adapter."""
    if name_or_path is None:
        return {}
    place = {name: kwargs[name] for name in _PLACE_ARGUMENTS if name in kwargs}
    try:
        return ASTConfig.get_config_dict(name_or_path, **place)[0]
    except OSError:
        return {}


def _weight_files(name_or_path, kwargs: dict) -> list[Path]:
    """The safetensors files of a checkpoint, in a folder or in the cache; none where it has no such files."""
    if (
        name_or_path is None
        or kwargs.keys() & {"state_dict", "gguf_file", "variant"}
        or kwargs.get("use_safetensors") is False
    ):
        return []
    place = {name: kwargs[name] for name in _PLACE_ARGUMENTS if name in kwargs}
    place["_raise_exceptions_for_missing_entries"] = False

    def find(name: str) -> Path | None:
        path = cached_file(name_or_path, name, **place)
        return None if path is None else Path(path)

    weights = find(WEIGHTS)
    if weights is not None:
        return [weights]
    index = find(WEIGHTS_INDEX)
    if index is None:
        return []
    files = {part: find(part) for part in parts_of_index(index)}
    missing = [part for part, file in files.items() if file is None]
    if missing:
        raise CheckpointError(
            f"{name_or_path} has no {missing[0]}, which {WEIGHTS_INDEX} names. Put all {len(files)} files of the weights there."
        )
    return list(files.values())


def _refuse_doubled_tensors(name_or_path, names: Iterable[str]):
    """Refuse a checkpoint that holds a tensor under two of the names that it may have: which one is meant?"""
    first: dict[str, str] = {}
    for name in names:
        other = first.setdefault(hub_name(name), name)
        if other != name:
            raise CheckpointError(
                f"{name_or_path} holds {hub_name(name)} twice, as {other} and as {name}. Take those out that do not belong to "
                "the model, or save it again."
            )


def _with_geometry_and_labels(config: ASTConfig, own: ASTConfig) -> ASTConfig:
    """A copy of `config` under which a checkpoint whose configuration is `own` can be loaded as it is."""
    config = copy.deepcopy(config)
    for name in (*GEOMETRY_FIELDS, "id2label", "label2id"):
        setattr(config, name, getattr(own, name))
    return config


@dataclass
class ASTEmbeddingOutput(ModelOutput):
    """What [`ASTModel.embed`] returns.

    Args:
        class_token_mean (`torch.Tensor` of shape `(batch, hidden)`): the mean of the two class tokens, what a classifier
            is given.
        patch_grid (`torch.Tensor` of shape `(batch, frequency, time, hidden)`): the patches; zero where a clip is padded
            or a patch was dropped.
        time_mask (`torch.Tensor` of shape `(batch, time)`, bool): which columns of the grid belong to the clip.
        per_second (`torch.Tensor` of shape `(batch, seconds, hidden)`): the mean of the kept patches whose middle lies in
            the first, second ... second; zero where a clip has none.
        second_mask (`torch.Tensor` of shape `(batch, seconds)`, bool): in which seconds the middle of a kept patch lies.
    """

    class_token_mean: torch.Tensor | None = None
    patch_grid: torch.Tensor | None = None
    time_mask: torch.Tensor | None = None
    per_second: torch.Tensor | None = None
    second_mask: torch.Tensor | None = None


class ASTModel(ASTPreTrainedModel):
    """The transformer without a head. Its pooled output is the mean of the two class tokens.

    Source: section 2.1 of the paper, and `ASTModel.forward` of the released code.
    """

    # A checkpoint with heads loads into the bare model; they are not needed then.
    _keys_to_ignore_on_load_unexpected = [CLIP_HEAD, FRAME_HEAD, *PRETRAINING_HEADS]

    def __init__(self, config: ASTConfig):
        super().__init__(config)
        self._tokens_merged_per_layer = 0
        self.embeddings = ASTEmbeddings(config)
        self.encoder = ASTEncoder(config)
        self.layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_values: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        class_tokens_only: bool = False,
        *,
        patches_kept: torch.Tensor | None = None,
        patches_masked: torch.Tensor | None = None,
        mask_embedding: torch.Tensor | None = None,
    ) -> BaseModelOutputWithPooling:
        r"""
        Args:
            input_values (`torch.Tensor` of shape `(batch, frames, mel bins)`): normalised log-mel features from
                [`ASTFeatureExtractor`], any number of frames from `patch_size` on.
            attention_mask (`torch.Tensor` of shape `(batch, frames)`, *optional*): 1 for frames of the clip, 0 for
                padding at its end. A patch takes part only if all its frames do.
            output_attentions (`bool`, *optional*): also return every layer's attention weights, computed eagerly.
            output_hidden_states (`bool`, *optional*): also return the embeddings and every layer's output.
            class_tokens_only (`bool`, defaults to `False`): compute only what the two class tokens need of the last
                layer. Cannot be had together with attentions or hidden states.
            patches_kept (`torch.Tensor` of shape `(batch, kept)`, int64, *optional*): the patches of each clip that are
                computed, in the order of the tokens; all if not given. They are numbered row by row from the lowest
                frequency on, with time running fastest, [`patch_grid_of`] tells how many there are. They keep their
                positions, class tokens are always kept. A clip's padding takes no part even if kept.
            patches_masked (`torch.Tensor` of shape `(batch, patches)`, bool, *optional*): the patches of the whole grid
                whose projection is replaced by `mask_embedding`; their positions stay.
            mask_embedding (`torch.Tensor` of shape `(hidden,)`, *optional*): what stands for masked patches; gradients flow
                to it. Needed with `patches_masked`, and only with it.

        Returns:
            [`BaseModelOutputWithPooling`] with `last_hidden_state` of shape `(batch, 2 + kept, hidden)`: the two
            class tokens, then the patches as in `patches_kept`, by default all with time running fastest, or only the class
            tokens if asked so; `pooler_output` of shape `(batch, hidden)`.

        Raises:
            TypeError: if one of the last three is given and no tensor.
            ValueError: if the shape of an argument does not fit, `patches_kept` names a patch twice or one that is not there,
                or what is asked for excludes each other.
        """
        config = self.config
        output_attentions = config.output_attentions if output_attentions is None else output_attentions
        output_hidden_states = config.output_hidden_states if output_hidden_states is None else output_hidden_states
        if class_tokens_only and (output_attentions or output_hidden_states):
            raise ValueError(
                "class_tokens_only=True leaves out what output_attentions and output_hidden_states return. Pass one or "
                "the other."
            )
        layout = self.patch_layout(input_values, attention_mask, patches_kept, patches_masked, mask_embedding)
        embeddings = self.embeddings(input_values.to(self.dtype), layout)

        # Only the eager implementation returns weights, and each implementation has its own kind of mask.
        attn_implementation = "eager" if output_attentions else config._attn_implementation
        token_mask = self._mask_for(attn_implementation, embeddings, layout.token_mask())
        # Flash and flex attention have masks of their own kind, made for as many queries as keys.
        mask_has_rows = token_mask is None or (isinstance(token_mask, torch.Tensor) and token_mask.dim() == 4)
        num_queries = NUM_CLASS_TOKENS if class_tokens_only and mask_has_rows else None
        merging = None
        if self._tokens_merged_per_layer and not self.training:
            self._check_merging(attn_implementation, output_attentions)
            merging = TokenMerging(self._tokens_merged_per_layer, layout.token_mask())
        encoded = self.encoder(
            embeddings, token_mask, attn_implementation, output_attentions, output_hidden_states, num_queries, merging
        )

        sequence = self.layernorm(encoded.last_hidden_state)
        if class_tokens_only:
            sequence = sequence[:, :NUM_CLASS_TOKENS]
        return BaseModelOutputWithPooling(
            last_hidden_state=sequence,
            pooler_output=sequence[:, :NUM_CLASS_TOKENS].mean(dim=1),
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
        )

    @torch.no_grad()
    def embed(
        self,
        input_values: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        *,
        patches_kept: torch.Tensor | None = None,
        patches_masked: torch.Tensor | None = None,
        mask_embedding: torch.Tensor | None = None,
    ) -> ASTEmbeddingOutput:
        r"""
        Vectors of clips, of their patches and of their seconds, for search, clustering or a classifier of one's own.

        Args:
            input_values (`torch.Tensor` of shape `(batch, frames, mel bins)`): see [`ASTModel.forward`].
            attention_mask (`torch.Tensor` of shape `(batch, frames)`, *optional*): see [`ASTModel.forward`].
            patches_kept (`torch.Tensor` of shape `(batch, kept)`, *optional*): see [`ASTModel.forward`].
            patches_masked (`torch.Tensor` of shape `(batch, patches)`, *optional*): see [`ASTModel.forward`].
            mask_embedding (`torch.Tensor` of shape `(hidden,)`, *optional*): see [`ASTModel.forward`].

        Returns:
            [`ASTEmbeddingOutput`]; every vector is after the last LayerNorm. No gradient flows, so that `.numpy()` may follow:
            to train through the transformer call the model and take its `last_hidden_state` and `pooler_output`.

        Raises:
            TypeError, ValueError: as [`ASTModel.forward`].
        """
        layout = self.patch_layout(input_values, attention_mask, patches_kept, patches_masked, mask_embedding)
        outputs = self(
            input_values,
            attention_mask=attention_mask,
            return_dict=True,
            patches_kept=patches_kept,
            patches_masked=patches_masked,
            mask_embedding=mask_embedding,
        )
        tokens, token_mask = outputs.last_hidden_state, layout.token_mask()
        if token_mask is None:
            token_mask = torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
        heard = layout.on_grid(token_mask)  # (batch, frequency, time)
        grid = layout.on_grid(tokens) * heard[..., None]
        num_rows, num_steps = layout.grid
        steps = torch.arange(num_steps, device=grid.device)
        time_mask = steps.expand(len(grid), -1) < self._real_time_patches(input_values, attention_mask)[:, None]

        stride, half_patch = self.config.time_stride, self.config.patch_size // 2
        last_second = ((num_steps - 1) * stride + half_patch) * FRAME_SHIFT_MS // 1000
        seconds = (steps * stride + half_patch) * FRAME_SHIFT_MS // 1000  # in which the middle of a patch lies
        in_second = seconds[:, None] == torch.arange(last_second + 1, device=grid.device)  # (time, seconds)
        with torch.autocast(grid.device.type, enabled=False):
            counts = (heard.sum(dim=1) / num_rows) @ in_second.float()  # (batch, seconds), in columns of the grid
            sums = torch.einsum("btd,ts->bsd", grid.float().mean(dim=1), in_second.float())
            per_second = (sums / counts.clamp(min=1 / num_rows)[:, :, None]).to(grid.dtype)
        return ASTEmbeddingOutput(
            class_token_mean=outputs.pooler_output,
            patch_grid=grid,
            time_mask=time_mask,
            per_second=per_second,
            second_mask=counts > 0,
        )

    def patch_layout(
        self,
        input_values: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        patches_kept: torch.Tensor | None = None,
        patches_masked: torch.Tensor | None = None,
        mask_embedding: torch.Tensor | None = None,
    ) -> PatchLayout:
        r"""
        Check an input, and tell which patch each of its tokens stands for.

        Args:
            input_values (`torch.Tensor` of shape `(batch, frames, mel bins)`): see [`ASTModel.forward`].
            attention_mask (`torch.Tensor` of shape `(batch, frames)`, *optional*): see [`ASTModel.forward`].
            patches_kept (`torch.Tensor` of shape `(batch, kept)`, *optional*): see [`ASTModel.forward`].
            patches_masked (`torch.Tensor` of shape `(batch, patches)`, *optional*): see [`ASTModel.forward`].
            mask_embedding (`torch.Tensor` of shape `(hidden,)`, *optional*): see [`ASTModel.forward`].

        Returns:
            [`PatchLayout`], on the device of the input; its `on_grid` puts what the model returns for the tokens back onto
            the grid of patches.

        Raises:
            TypeError: if one of the last three is given and no tensor.
            ValueError: if the shape of an argument does not fit, or `patches_kept` names a patch twice or one that is not
                there.
        """
        self._check_input(input_values, attention_mask)
        layout = PatchLayout(
            grid=patch_grid_of(self.config, input_values.shape[1]),
            real_time_patches=None
            if attention_mask is None
            else self._real_time_patches(input_values, attention_mask),
            kept=patches_kept,
            masked=patches_masked,
            mask_embedding=mask_embedding,
        )
        if patches_kept is None and patches_masked is None and mask_embedding is None:
            return layout
        layout.check(input_values.shape[0], self.config.hidden_size)
        return layout.to(input_values.device)

    def _real_time_patches(self, input_values: torch.Tensor, attention_mask: torch.Tensor | None) -> torch.Tensor:
        """Time patches of each clip without padding, at least one, `(batch,)`."""
        if attention_mask is None:
            frames = torch.full((len(input_values),), input_values.shape[1], device=input_values.device)
        else:
            frames = attention_mask.sum(dim=1)
        return patches_along(frames, self.config.patch_size, self.config.time_stride).clamp(min=1)

    def _check_input(self, input_values: torch.Tensor, attention_mask: torch.Tensor | None):
        config = self.config
        if input_values.dim() != 3 or input_values.shape[2] != config.num_mel_bins:
            raise ValueError(
                f"input_values has shape {tuple(input_values.shape)}, expected (batch, frames, {config.num_mel_bins}). "
                "Make it with the checkpoint's own ASTFeatureExtractor."
            )
        if input_values.shape[1] < config.patch_size:
            raise ValueError(
                f"input_values has {input_values.shape[1]} frames, a patch needs {config.patch_size}. Pad with zero "
                "frames before normalising, as ASTFeatureExtractor does up to 16 frames, or up to its max_length with "
                "padding='max_length'."
            )
        if attention_mask is not None and attention_mask.shape != input_values.shape[:2]:
            raise ValueError(
                f"attention_mask has shape {tuple(attention_mask.shape)}, expected one entry per frame: "
                f"{tuple(input_values.shape[:2])}. Take it from ASTFeatureExtractor with return_attention_mask=True."
            )

    def _check_merging(self, attn_implementation: str, output_attentions: bool):
        merged = f"tokens_merged_per_layer={self._tokens_merged_per_layer}"
        if output_attentions:
            raise ValueError(
                f"output_attentions=True was given with {merged}: merged tokens have no weights of their own. Call "
                "merge_tokens(0) first."
            )
        if attn_implementation not in ATTENTION_WITH_SIZES:
            raise ValueError(
                f"{merged} was given with {attn_implementation} attention, which cannot count a token by its size. Call "
                "set_attn_implementation('sdpa'), or merge_tokens(0)."
            )

    def _mask_for(self, attn_implementation: str, embeddings: torch.Tensor, token_mask: torch.Tensor | None):
        if token_mask is None:
            return None
        if attn_implementation == "eager" and self.config._attn_implementation != "eager":
            lowest = torch.finfo(embeddings.dtype).min
            return torch.zeros_like(token_mask, dtype=embeddings.dtype).masked_fill(~token_mask, lowest)[:, None, None]
        # Whether the mask can be left out is told by its values, for which an accelerator would have to be waited for.
        may_leave_out = token_mask.device.type == "cpu"
        return create_bidirectional_mask(
            self.config, embeddings, token_mask, allow_is_bidirectional_skip=may_leave_out
        )


class ASTMLPHead(nn.Module):
    """LayerNorm and a linear layer on the pooled output."""

    def __init__(self, config: ASTConfig):
        super().__init__()
        eps = config.layer_norm_eps if config.classifier_layer_norm_eps is None else config.classifier_layer_norm_eps
        self.layernorm = nn.LayerNorm(config.hidden_size, eps=eps)
        self.dense = nn.Linear(config.hidden_size, config.num_labels)

    def forward(self, pooled: torch.Tensor) -> torch.Tensor:
        """Classify clips.

        Args:
            pooled (`torch.Tensor` of shape `(batch, hidden)`): the mean of each clip's class tokens.

        Returns:
            The logits, `torch.Tensor` of shape `(batch, num_labels)`.
        """
        return self.dense(self.layernorm(pooled))


def classification_loss(logits: torch.Tensor, labels: torch.Tensor, problem_type: str | None) -> torch.Tensor:
    """Mean loss of a batch, in float32, by the kind of problem.

    Args:
        logits (`torch.Tensor` of shape `(batch, num_labels)`): the model's output.
        labels (`torch.Tensor`): for `"single_label_classification"` indices of shape `(batch,)` or the probabilities
            of shape `(batch, num_labels)` that mixup makes; for `"multi_label_classification"` multi-hot of shape
            `(batch, num_labels)` in any dtype; for `"regression"` values of the shape of the logits, or `(batch,)` if
            there is one.
        problem_type (`str`, *optional*): if `None`, told from labels as stock Transformers does: one logit is a
            regression, integer labels are single-label, others multi-label.

    Returns:
        `torch.Tensor` without dimensions, float32.

    Raises:
        ValueError: if the labels' shape or dtype does not fit the problem type.
    """
    labels = labels.to(logits.device)
    integer_labels = not labels.is_floating_point()
    if problem_type is None:
        if logits.shape[1] == 1:
            problem_type = "regression"
        else:
            problem_type = "single_label_classification" if integer_labels else "multi_label_classification"

    logits = logits.float()
    if problem_type == "single_label_classification":
        if integer_labels and labels.shape == logits.shape[:1]:
            return nn.functional.cross_entropy(logits, labels.long())
        if not integer_labels and labels.shape == logits.shape:
            return nn.functional.cross_entropy(logits, labels.float())
        expected = (
            f"integer indices of shape ({logits.shape[0]},) or float probabilities of shape {tuple(logits.shape)}"
        )
    elif problem_type == "multi_label_classification":
        if labels.shape == logits.shape:
            return nn.functional.binary_cross_entropy_with_logits(logits, labels.float())
        expected = f"multi-hot of shape {tuple(logits.shape)}"
    else:
        if labels.shape == logits.shape or (logits.shape[1] == 1 and labels.shape == logits.shape[:1]):
            return nn.functional.mse_loss(logits, labels.float().view_as(logits))
        expected = f"values of shape {tuple(logits.shape)}"
    raise ValueError(
        f"labels of shape {tuple(labels.shape)} and dtype {labels.dtype} do not fit problem_type={problem_type!r}, "
        f"expected {expected}. Set config.problem_type, or shape the labels so."
    )


class ASTForAudioClassification(ASTPreTrainedModel):
    """AST with a classifier on the mean of its two class tokens."""

    # Of a checkpoint of masked pretraining or with a frame head the encoder is taken.
    _keys_to_ignore_on_load_unexpected = [FRAME_HEAD, *PRETRAINING_HEADS]

    def __init__(self, config: ASTConfig):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.audio_spectrogram_transformer = ASTModel(config)
        self.classifier = ASTMLPHead(config)
        self.post_init()

    def _say_new_head(self, name):
        if FRAME_ARCHITECTURE in (self.config.architectures or ()):
            self.config.forget_choices()  # those of the head that is left out
            logger.warning(
                "%s has a frame head, which is left out, and no classifier of clips: that is new. Train it before you rely on "
                "it, or load the checkpoint with ASTForAudioFrameClassification.",
                name,
            )

    def reset_classifier(self):
        """Give the model a new classifier with initial weights, for labels other than those it was trained on."""
        self.num_labels = self.config.num_labels
        self.classifier = ASTMLPHead(self.config).to(self.device, self.dtype)
        self.classifier.apply(self._init_weights)
        self.classifier.train(self.training)

    def _replace_labels(self, id2label: dict[int, str], had_classifier: bool):
        before = (
            f"in place of the checkpoint's {self.config.num_labels}" if had_classifier else "the checkpoint has none"
        )
        super()._replace_labels(id2label, had_classifier)
        self.reset_classifier()
        rename = " To only rename the labels of a trained classifier set config.id2label after loading."
        logger.warning(
            "The classifier is new, for %d labels (%s), problem_type=%s; train it before you rely on it.%s",
            len(id2label),
            before,
            self.config.problem_type,
            rename if had_classifier else "",
        )

    def embed(
        self,
        input_values: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        *,
        patches_kept: torch.Tensor | None = None,
        patches_masked: torch.Tensor | None = None,
        mask_embedding: torch.Tensor | None = None,
    ) -> ASTEmbeddingOutput:
        r"""
        Vectors of clips, of their patches and of their seconds, as [`ASTModel.embed`] gives them.

        Args:
            input_values (`torch.Tensor` of shape `(batch, frames, mel bins)`): see [`ASTModel.forward`].
            attention_mask (`torch.Tensor` of shape `(batch, frames)`, *optional*): see [`ASTModel.forward`].
            patches_kept (`torch.Tensor` of shape `(batch, kept)`, *optional*): see [`ASTModel.forward`].
            patches_masked (`torch.Tensor` of shape `(batch, patches)`, *optional*): see [`ASTModel.forward`].
            mask_embedding (`torch.Tensor` of shape `(hidden,)`, *optional*): see [`ASTModel.forward`].

        Returns:
            [`ASTEmbeddingOutput`], see [`ASTModel.embed`].

        Raises:
            TypeError, ValueError: as [`ASTModel.forward`].
        """
        return self.audio_spectrogram_transformer.embed(
            input_values,
            attention_mask,
            patches_kept=patches_kept,
            patches_masked=patches_masked,
            mask_embedding=mask_embedding,
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
    ) -> SequenceClassifierOutput:
        r"""
        Args:
            input_values (`torch.Tensor` of shape `(batch, frames, mel bins)`): see [`ASTModel.forward`].
            attention_mask (`torch.Tensor` of shape `(batch, frames)`, *optional*): see [`ASTModel.forward`].
            labels (`torch.Tensor`, *optional*): see [`classification_loss`].
            output_attentions (`bool`, *optional*): see [`ASTModel.forward`].
            output_hidden_states (`bool`, *optional*): see [`ASTModel.forward`].
            patches_kept (`torch.Tensor` of shape `(batch, kept)`, *optional*): see [`ASTModel.forward`].
            patches_masked (`torch.Tensor` of shape `(batch, patches)`, *optional*): see [`ASTModel.forward`].
            mask_embedding (`torch.Tensor` of shape `(hidden,)`, *optional*): see [`ASTModel.forward`].

        Returns:
            [`SequenceClassifierOutput`] with `logits` of shape `(batch, num_labels)` and, if labels were given, the
            mean `loss` of the batch.

        Raises:
            TypeError: as [`ASTModel.forward`].
            ValueError: as [`ASTModel.forward`], and if the labels do not fit.
        """
        config = self.config
        output_attentions = config.output_attentions if output_attentions is None else output_attentions
        output_hidden_states = config.output_hidden_states if output_hidden_states is None else output_hidden_states
        outputs = self.audio_spectrogram_transformer(
            input_values,
            attention_mask=attention_mask,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            class_tokens_only=not (output_attentions or output_hidden_states),
            return_dict=True,
            patches_kept=patches_kept,
            patches_masked=patches_masked,
            mask_embedding=mask_embedding,
        )
        logits = self.classifier(outputs.pooler_output)
        loss = None if labels is None else classification_loss(logits, labels, self.config.problem_type)
        return SequenceClassifierOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )

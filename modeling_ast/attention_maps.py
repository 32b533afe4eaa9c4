"""Where a model looks: the attention of its class tokens to the patches of a spectrogram.

Two kinds of map: attention rollout through all layers (Abnar and Zuidema 2020, "Quantifying Attention Flow in
Transformers") and the attention of one layer or one head. Differs from the paper's code in that the product of the layers'
matrices is never formed: what is wanted of it are the class tokens' rows, and these are taken through the layers from the
last to the first, a vector times a matrix each. A layer's matrix is computed when it is its turn, from the hidden states, so
that the attention weights of one layer are there at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from .features.kaldi import frame_length, frame_shift, mel_edges
from .features.log_mel_figure import draw_log_mel, save_figure
from .modeling_ast import NUM_CLASS_TOKENS, ASTLayer, ASTModel

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from .feature_extraction_ast import ASTFeatureExtractor

MOST_OPAQUE = 0.8  # of the map over the spectrogram, where it is highest; it is clear where it is lowest
LEAST_CONTRAST = 0.05  # of the highest value; what differs by less is not drawn as if it differed much


@dataclass(frozen=True)
class AttentionMaps:
    """What [`attention_maps`] returns, on the CPU.

    Args:
        weights (`torch.Tensor` of shape `(batch, frequency patches, time patches)`, float32): how much the class tokens
            attend to each patch; not negative, 1 in sum over a clip, 0 where a clip is padded or a patch was dropped.
        frequency_ranges (`torch.Tensor` of shape `(frequency patches, 2)`): lower and upper end of what a patch hears, in
            Hz: the outer edges of its mel filters. Neighbours overlap.
        time_ranges (`torch.Tensor` of shape `(time patches, 2)`): start and end of what a patch hears, in seconds: the
            outer edges of its frames' windows. Neighbours overlap.
        num_time_patches (`torch.Tensor` of shape `(batch,)`): time patches of each clip without padding, at least one.
        bin_ranges (`torch.Tensor` of shape `(frequency patches, 2)`): first mel bin of a patch, and the one after its
            last.
        frame_ranges (`torch.Tensor` of shape `(time patches, 2)`): first frame of a patch, and the one after its last.
        sampling_rate (`int`): of the waveform, in Hz.
    """

    weights: torch.Tensor
    frequency_ranges: torch.Tensor
    time_ranges: torch.Tensor
    num_time_patches: torch.Tensor
    bin_ranges: torch.Tensor
    frame_ranges: torch.Tensor
    sampling_rate: int


@torch.no_grad()
def attention_maps(
    model: nn.Module,
    feature_extractor: ASTFeatureExtractor,
    input_values: torch.Tensor,
    attention_mask: torch.Tensor | None = None,
    layer: int | None = None,
    head: int | None = None,
    *,
    patches_kept: torch.Tensor | None = None,
    patches_masked: torch.Tensor | None = None,
    mask_embedding: torch.Tensor | None = None,
) -> AttentionMaps:
    """Maps of the patches that the class tokens attend to, one a clip.

    Args:
        model (`nn.Module`): a model of this package, or one that holds it, such as PEFT's with an adapter. It is left as
            it was, in training or not, with whichever attention implementation.
        feature_extractor ([`ASTFeatureExtractor`]): the checkpoint's own, for sampling rate and mel bins.
        input_values (`torch.Tensor` of shape `(batch, frames, mel bins)`): what the extractor made, of any length.
        attention_mask (`torch.Tensor` of shape `(batch, frames)`, *optional*): what it made beside them; 1 for frames of
            the clip, 0 for padding.
        layer (`int`, *optional*): the layer whose attention is wanted, negative from the end; if not given, and no head
            either, attention rollout through all of them.
        head (`int`, *optional*): a single head of that layer, or of the last one; the mean of the heads if not given.
        patches_kept (`torch.Tensor` of shape `(batch, kept)`, *optional*): see [`ASTModel.forward`]. The map is of the whole
            grid, with 0 for patches that are dropped, as for padding.
        patches_masked (`torch.Tensor` of shape `(batch, patches)`, *optional*): see [`ASTModel.forward`].
        mask_embedding (`torch.Tensor` of shape `(hidden,)`, *optional*): see [`ASTModel.forward`].

    Returns:
        [`AttentionMaps`], of the mean of the two class tokens. Where these attend to nothing but themselves, the map is
        even over the patches that they could attend to.

    Raises:
        ValueError: if there is no such layer or head, the model is of another package, the extractor does not fit it, a
            shape does not, of a clip nothing but padding is kept, or the model merges tokens.

    Source: Abnar and Zuidema 2020, section 3: the mean over heads and the identity for the residual, half each, multiplied
    over the layers.
    """
    transformer = _transformer_of(model)
    config, layers = transformer.config, transformer.encoder.layer
    if transformer.tokens_merged_per_layer:
        raise ValueError(
            f"The model merges {transformer.tokens_merged_per_layer} tokens a layer, and a map is of single patches. Call its "
            "merge_tokens(0) first."
        )
    if feature_extractor.num_mel_bins != config.num_mel_bins:
        raise ValueError(
            f"The feature extractor makes {feature_extractor.num_mel_bins} mel bins, the model hears "
            f"{config.num_mel_bins}. Load both from the same checkpoint."
        )
    if head is not None:
        head = _checked_index("head", head, config.num_attention_heads)
        layer = -1 if layer is None else layer
    if layer is not None:
        layer = _checked_index("layer", layer, len(layers))

    input_values = input_values.to(transformer.device)
    attention_mask = None if attention_mask is None else attention_mask.to(transformer.device)
    with _evaluating(transformer), torch.autocast(transformer.device.type, enabled=False):
        of_grid = {"patches_kept": patches_kept, "patches_masked": patches_masked, "mask_embedding": mask_embedding}
        layout = transformer.patch_layout(input_values, attention_mask, **of_grid)
        hidden_states = transformer(
            input_values,
            attention_mask,
            output_attentions=False,
            output_hidden_states=True,
            return_dict=True,
            **of_grid,
        ).hidden_states
        real_tokens = layout.token_mask()
        token_mask = transformer._mask_for("eager", hidden_states[0], real_tokens)
        if layer is None:
            to_tokens = _rollout(layers, hidden_states, token_mask)  # (batch, tokens)
        else:
            weights = _attention_weights(layers[layer], hidden_states[layer], token_mask, NUM_CLASS_TOKENS).float()
            to_tokens = weights.mean(dim=2).mean(dim=1) if head is None else weights[:, head].mean(dim=1)

    if real_tokens is None:
        real_tokens = torch.ones_like(to_tokens, dtype=torch.bool)
    to_patches, real = layout.on_grid(to_tokens).cpu(), layout.on_grid(real_tokens).cpu()  # (batch, frequency, time)
    _refuse_padding_alone(real)
    all_to_class_tokens = to_patches.sum(dim=(1, 2), keepdim=True) == 0
    to_patches = torch.where(all_to_class_tokens, real.to(to_patches.dtype), to_patches)

    bin_ranges = _patch_ranges(to_patches.shape[1], config.frequency_stride, config.patch_size)
    frame_ranges = _patch_ranges(to_patches.shape[2], config.time_stride, config.patch_size)
    sampling_rate = feature_extractor.sampling_rate
    edges = mel_edges(config.num_mel_bins, sampling_rate).float()
    first_sample, last_frame = frame_ranges[:, 0] * frame_shift(sampling_rate), frame_ranges[:, 1] - 1
    end_sample = last_frame * frame_shift(sampling_rate) + frame_length(sampling_rate)
    return AttentionMaps(
        weights=to_patches / to_patches.sum(dim=(1, 2), keepdim=True),
        # Filter b reaches from edge b to edge b + 2.
        frequency_ranges=torch.stack((edges[bin_ranges[:, 0]], edges[bin_ranges[:, 1] + 1]), dim=1),
        time_ranges=torch.stack((first_sample, end_sample), dim=1) / sampling_rate,
        num_time_patches=transformer._real_time_patches(input_values, attention_mask).cpu(),
        bin_ranges=bin_ranges,
        frame_ranges=frame_ranges,
        sampling_rate=sampling_rate,
    )


def plot_attention(
    log_mel: np.ndarray | torch.Tensor,
    maps: AttentionMaps,
    clip: int = 0,
    path: str | Path | None = None,
    title: str | None = None,
) -> Figure:
    """Draw a clip's log-mel spectrogram in grey with its attention map over it in colour.

    Where patches overlap, a point of the picture has the mean of the patches it lies in. The lower the value, the clearer
    the colour: an even map has none, nor has what no patch reaches.

    Args:
        log_mel (`np.ndarray` or `torch.Tensor` of shape `(frames, mel bins)`): the clip's features, normalised or not; with
            or without the padding that the map was computed with.
        maps ([`AttentionMaps`]): from [`attention_maps`].
        clip (`int`, defaults to 0): which of them.
        path (`str` or `Path`, *optional*): PNG file to write.
        title (`str`, *optional*): what stands above the picture, as it is: a `$` starts no formula.

    Returns:
        `Figure`: what was drawn.

    Raises:
        ValueError: if there is no such clip, or the features are not those of the map.
    """
    from matplotlib.figure import Figure

    log_mel = torch.as_tensor(log_mel).detach().float().cpu().numpy()
    clip = _checked_index("clip", clip, len(maps.weights))
    heat = _spread_over_points(maps, clip, log_mel.shape)

    figure = Figure(figsize=(9.6, 3.6), layout="constrained")
    axes = figure.subplots()
    spectrogram = draw_log_mel(axes, log_mel, maps.sampling_rate, cmap="gray")
    lowest, highest = heat.min(), heat.max()
    contrast = max(highest - lowest, LEAST_CONTRAST * highest)  # above zero: the weights' sum is 1
    overlay = axes.imshow(
        heat.T,
        origin="lower",
        aspect="auto",
        cmap="plasma",
        interpolation="nearest",
        extent=spectrogram.get_extent(),
        vmin=lowest,
        vmax=lowest + contrast,
        alpha=MOST_OPAQUE * (heat.filled(lowest).T - lowest) / contrast,
    )
    axes.set(xlabel="time in s", ylabel=f"frequency in Hz ({log_mel.shape[1]} mel bins)")
    if title is not None:
        axes.set_title(title, parse_math=False)
    figure.colorbar(overlay, ax=axes, label="share of the attention, per patch")
    return figure if path is None else save_figure(figure, path)


def _transformer_of(model: nn.Module) -> ASTModel:
    for module in model.modules():
        if isinstance(module, ASTModel):
            return module
    raise ValueError(
        f"model is a {type(model).__module__}.{type(model).__qualname__}, expected one of this package. Load the checkpoint "
        "with modeling_ast.ASTForAudioClassification.from_pretrained(...)."
    )


def _checked_index(name: str, index: int, count: int) -> int:
    """The index from 0 on, also of one that counts from the end."""
    if not -count <= index < count:
        raise ValueError(
            f"{name}={index}, but there are {count}. Pass a {name} from 0 to {count - 1}, or from -{count} to -1."
        )
    return index % count


def _refuse_padding_alone(real: torch.Tensor) -> None:
    without = (~real.flatten(1).any(dim=1)).nonzero()
    if len(without):
        raise ValueError(
            f"patches_kept keeps nothing but padding of clip {without[0].item()}, which has no map. Keep a patch of each clip "
            "that its attention_mask does not leave out."
        )


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """No dropout within the block; afterwards every module is in training or not as it was."""
    training = [module for module in model.modules() if module.training]
    try:
        model.eval()
        yield
    finally:
        for module in training:
            module.training = True


def _rollout(
    layers: nn.ModuleList, hidden_states: tuple[torch.Tensor, ...], token_mask: torch.Tensor | None
) -> torch.Tensor:
    """The class tokens' row of the product of all layers' matrices.

    Args:
        layers (`nn.ModuleList` of [`ASTLayer`]): the layers.
        hidden_states (tuple of `torch.Tensor` of shape `(batch, tokens, hidden)`): the input of each layer, and the last
            one's output.
        token_mask (`torch.Tensor`, *optional*): as eager attention takes it.

    Returns:
        `torch.Tensor` of shape `(batch, tokens)`, float32.
    """
    batch, tokens, _ = hidden_states[0].shape
    row = torch.zeros(batch, 1, tokens, device=hidden_states[0].device)
    row[:, :, :NUM_CLASS_TOKENS] = 1 / NUM_CLASS_TOKENS
    for index in reversed(range(len(layers))):
        # Of the last layer only the class tokens' rows are needed. A row that reaches no padding never will.
        num_queries = NUM_CLASS_TOKENS if index == len(layers) - 1 else None
        weights = _attention_weights(layers[index], hidden_states[index], token_mask, num_queries)
        matrix = weights.mean(dim=1, dtype=torch.float32)  # (batch, queries, tokens)
        row = (row + row[:, :, : matrix.shape[1]] @ matrix) / 2
    return row[:, 0]


def _attention_weights(
    layer: ASTLayer, hidden_states: torch.Tensor, token_mask: torch.Tensor | None, num_queries: int | None
) -> torch.Tensor:
    """Weights of shape `(batch, heads, queries, tokens)`, from the layer's input."""
    return layer.attention.attention(layer.layernorm_before(hidden_states), token_mask, "eager", num_queries)[1]


def _patch_ranges(count: int, stride: int, patch_size: int) -> torch.Tensor:
    first = torch.arange(count) * stride
    return torch.stack((first, first + patch_size), dim=1)


def _spread_over_points(maps: AttentionMaps, clip: int, shape: tuple[int, ...]) -> np.ma.MaskedArray:
    """The map at each frame and mel bin, `shape`; masked where there is no patch.

    Raises:
        ValueError: if features of this shape cannot be those of the map.
    """
    frame_ranges = maps.frame_ranges[: maps.num_time_patches[clip]]
    needed = int(frame_ranges[-1, 1]) if len(frame_ranges) > 1 else 1  # the only patch of a short clip may be padded
    bins = int(maps.bin_ranges[-1, 1])
    if len(shape) != 2 or shape[0] < needed or shape[1] < bins:
        raise ValueError(
            f"log_mel has shape {tuple(shape)}, expected (frames, mel bins) with at least {needed} frames and {bins} bins "
            f"for the map of clip {clip}. Pass the features of that one clip."
        )
    in_time, in_frequency = (
        _lies_in(ranges, size) for ranges, size in zip((frame_ranges, maps.bin_ranges), shape, strict=True)
    )
    weights = maps.weights[clip, :, : len(frame_ranges)].double()
    total = in_time.T @ weights.T @ in_frequency  # (frames, bins)
    count = in_time.sum(dim=0)[:, None] * in_frequency.sum(dim=0)
    return np.ma.masked_array(total / count.clamp(min=1), mask=count == 0)


def _lies_in(ranges: torch.Tensor, size: int) -> torch.Tensor:
    """1 where a patch covers a point of an axis, `(patches, size)`."""
    points = torch.arange(size)
    return ((ranges[:, :1] <= points) & (points < ranges[:, 1:])).double()

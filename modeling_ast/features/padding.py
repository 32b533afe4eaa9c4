"""Padding, written once: waveforms to a batch, and log-mel features to a number of frames.

The rule: frames beyond a clip's own hold the padding value, and no input has fewer frames than one patch of the model.
"""

from collections.abc import Sequence

import torch

MIN_FRAMES = 16  # one patch of the released models


def padded_length(frames: int, pad_to: int | None = None) -> int:
    """Tell how many frames an input has after padding.

    Args:
        frames (`int`): real frames of the longest clip.
        pad_to (`int`, *optional*): frames to pad to; those of the longest clip if not given or fewer.

    Returns:
        Frames, at least one patch.
    """
    return max(frames, pad_to or 0, MIN_FRAMES)


def frame_mask(frames: torch.Tensor, num_frames: int) -> torch.Tensor:
    """Tell which frames are real.

    Args:
        frames (`torch.Tensor` of shape `(batch,)`): real frames of each clip.
        num_frames (`int`): frames of the padded input.

    Returns:
        Boolean `torch.Tensor` of shape `(batch, num_frames)`, true for real frames.
    """
    return torch.arange(num_frames, device=frames.device) < frames[:, None]


def pad_clips(clips: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Join clips to one batch, with zeros after the end of each.

    Args:
        clips (sequence of `torch.Tensor`): waveforms of shapes `(samples,)`, or features of shapes `(frames, mel bins)`; at
            least one.

    Returns:
        The batch, of shape `(batch, samples)` or `(batch, frames, mel bins)`, and the length of each clip in samples or
        frames, int64 of shape `(batch,)`.
    """
    batch = torch.nn.utils.rnn.pad_sequence(list(clips), batch_first=True)
    return batch, torch.tensor([len(clip) for clip in clips])


def pad_frames(
    features: torch.Tensor, frames: torch.Tensor, padding_value: float, pad_to: int | None = None
) -> torch.Tensor:
    """Pad a batch whose lengths are known on its device; nothing is waited for, so that it can go into a graph.

    Args:
        features (`torch.Tensor` of shape `(batch, frames, mel bins)`): whatever they hold beyond a clip's own frames.
        frames (`torch.Tensor` of shape `(batch,)`): real frames of each clip.
        padding_value (`float`): value of padding frames.
        pad_to (`int`, *optional*): see [`padded_length`].

    Returns:
        `torch.Tensor` of shape `(batch, padded frames, mel bins)`.
    """
    length = features.shape[1]
    features = features.masked_fill(~frame_mask(frames, length)[:, :, None], padding_value)
    missing = padded_length(length, pad_to) - length
    return torch.nn.functional.pad(features, (0, 0, 0, missing), value=padding_value) if missing > 0 else features


def fill_padding(features: torch.Tensor | Sequence[torch.Tensor], frames: Sequence[int], padding_value: float) -> None:
    """Write the padding of features in place, whose lengths are known to the processor: faster than [`pad_frames`].

    Args:
        features (`torch.Tensor` of shape `(batch, frames, mel bins)`, or sequence of `(frames, mel bins)`): written to.
        frames (sequence of `int`): real frames of each clip.
        padding_value (`float`): value of padding frames.
    """
    if isinstance(features, torch.Tensor) and len(set(frames)) == 1:
        features[:, frames[0] :] = padding_value
        return
    for row, count in zip(features, frames, strict=True):
        row[count:] = padding_value

"""Positions of AST's patch grid (frequency x time) at run time, for clips of any length.

A shorter clip uses the prefix of the trained time axis, where the model saw short clips in training (they were padded
at the end); a longer one stretches it linearly. Each clip of a batch is treated by its own length with tensor
operations only, so that a clip gets the positions it would get alone.
"""

import torch


def time_patches(frames, patch_size: int, stride: int):
    """Number of patches that lie completely within `frames` frames; works on integers and on integer tensors."""
    return (frames - patch_size) // stride + 1


def positions_for_grid(
    position_grid: torch.Tensor, num_time_patches: int, real_time_patches: torch.Tensor | None = None
) -> torch.Tensor:
    """Positions for an input of another length than the trained one.

    Args:
        position_grid (`torch.Tensor` of shape `(frequency, time, hidden)`): the trained positions of the patches.
        num_time_patches (`int`): time patches of the (padded) input.
        real_time_patches (`torch.Tensor` of shape `(batch,)`, *optional*): time patches of each clip that hold no
            padding; all of them if not given.

    Returns:
        `torch.Tensor` of shape `(1 or batch, frequency, num_time_patches, hidden)`. What stands at padding patches is
        arbitrary: attention masks them.
    """
    trained = position_grid.shape[1]
    if real_time_patches is None:
        if num_time_patches <= trained:
            return position_grid[None, :, :num_time_patches]
        real_time_patches = torch.full((1,), num_time_patches, device=position_grid.device)

    steps = torch.arange(num_time_patches, device=position_grid.device, dtype=torch.float32)
    # Half-pixel centres, as in bilinear interpolation without aligned corners; scale 1 leaves every index in place.
    scale = trained / real_time_patches.clamp(min=trained).to(torch.float32)  # (batch,)
    coordinates = ((steps + 0.5) * scale[:, None] - 0.5).clamp(0, trained - 1)  # (batch, time)
    lower = coordinates.floor().long()
    upper = (lower + 1).clamp(max=trained - 1)
    weight = (coordinates - lower)[None, :, :, None].to(position_grid.dtype)
    stretched = torch.lerp(
        position_grid[:, lower], position_grid[:, upper], weight
    )  # (frequency, batch, time, hidden)
    return stretched.transpose(0, 1)

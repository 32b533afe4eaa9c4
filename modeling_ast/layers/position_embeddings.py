"""Positions of AST's patch grid (frequency x time), by two rules on purpose.

At run time ([`positions_for_grid`]) a shorter clip uses the prefix of the trained time axis, where the model saw short
clips in training (they were padded at the end); a longer one stretches it linearly. Each clip of a batch is treated by
its own length with tensor operations only, so that a clip gets the positions it would get alone.

A new checkpoint of another geometry ([`move_position_table`]) follows the paper: the middle is cut out of an axis that
gets shorter, an axis that gets longer is stretched. Of a model that was trained on unpadded clips, most of them short, the
beginning of the time axis is what was trained: there the configuration says so, and it is kept.
"""

import torch
from torch import nn


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
        # One compiled graph is for shorter and longer clips: there not even the comparison may be made.
        if not torch.compiler.is_compiling() and num_time_patches <= trained:
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


def move_position_grid(
    position_grid: torch.Tensor, new_grid: tuple[int, int], time_cut: str = "middle"
) -> torch.Tensor:
    """Positions for a checkpoint with another grid of patches, to be trained further there.

    Args:
        position_grid (`torch.Tensor` of shape `(frequency, time, hidden)`): the trained positions of the patches.
        new_grid (`tuple[int, int]`): patches along frequency and along time of the new checkpoint.
        time_cut (`str`, defaults to `"middle"`): what stays of a time axis that gets shorter, `"middle"` or `"beginning"`.

    Returns:
        `torch.Tensor` of shape `(*new_grid, hidden)`, in the dtype of the given one.

    Source: section 2.2 of the paper and `ASTModel.__init__` of the released code: time first, then frequency; an axis
    is cut from its middle where the new one is not longer, else stretched bilinearly. `"beginning"` is not the paper's.
    """
    frequency, time = new_grid
    precise = torch.promote_types(position_grid.dtype, torch.float32)
    grid = position_grid.permute(2, 0, 1)[None].to(precise)  # (1, hidden, frequency, time)
    grid = grid[..., :time] if time_cut == "beginning" else grid
    grid = _cut_or_stretch(grid, dim=3, size=time)
    grid = _cut_or_stretch(grid, dim=2, size=frequency)
    return grid[0].permute(1, 2, 0).to(position_grid.dtype)


def move_position_table(
    table: torch.Tensor,
    num_class_tokens: int,
    old_grid: tuple[int, int],
    new_grid: tuple[int, int],
    time_cut: str = "middle",
) -> torch.Tensor:
    """The position table of a model for another patch grid; class tokens keep their positions.

    Args:
        table (`torch.Tensor` of shape `(1, class tokens + patches, hidden)`): the trained positions.
        num_class_tokens (`int`): tokens before the patches.
        old_grid (`tuple[int, int]`): patches along frequency and along time that the table was made for.
        new_grid (`tuple[int, int]`): the same of the new table.
        time_cut (`str`, defaults to `"middle"`): see [`move_position_grid`].

    Returns:
        `torch.Tensor` of shape `(1, class tokens + new patches, hidden)`, see [`move_position_grid`].
    """
    class_positions, patches = table[0, :num_class_tokens], table[0, num_class_tokens:]
    grid = move_position_grid(patches.unflatten(0, old_grid), new_grid, time_cut)
    return torch.cat((class_positions, grid.flatten(0, 1)))[None]


def _cut_or_stretch(grid: torch.Tensor, dim: int, size: int) -> torch.Tensor:
    trained = grid.shape[dim]
    if size <= trained:
        return grid.narrow(dim, trained // 2 - size // 2, size)
    new_size = [size if axis == dim else grid.shape[axis] for axis in (2, 3)]
    return nn.functional.interpolate(grid, size=new_size, mode="bilinear", align_corners=False)

"""How a spectrogram is cut into patches; light, for everything that has to know."""

# Fields of the configuration that say it, and for which the position table was made.
GEOMETRY_FIELDS = ("frequency_stride", "time_stride", "max_length", "num_mel_bins")
NUM_CLASS_TOKENS = 2  # class and distillation token, as in DeiT; they precede the patches


def patches_along(size, patch_size: int, stride: int):
    """Patches that lie completely within an axis.

    Args:
        size (`int` or integer `torch.Tensor`): mel bins or frames.
        patch_size (`int`): side of a patch, in the same unit.
        stride (`int`): distance of two patches, in the same unit.

    Returns:
        Their number, of the kind and shape of `size`.
    """
    return (size - patch_size) // stride + 1


def patch_grid_of(config, frames) -> tuple:
    """Patches along both axes of an input.

    Args:
        config ([`ASTConfig`]): the model's configuration.
        frames (`int` or integer `torch.Tensor`): frames of the input, padding included.

    Returns:
        Patches along frequency, an `int`, and along time, of the kind and shape of `frames`.
    """
    return (
        patches_along(config.num_mel_bins, config.patch_size, config.frequency_stride),
        patches_along(frames, config.patch_size, config.time_stride),
    )

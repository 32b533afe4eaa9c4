"""How a spectrogram is cut into patches; light, for everything that has to know."""

# Fields of the configuration that say it, and for which the position table was made.
GEOMETRY_FIELDS = ("frequency_stride", "time_stride", "max_length", "num_mel_bins")


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

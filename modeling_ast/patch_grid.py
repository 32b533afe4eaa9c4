"""How a spectrogram is cut into patches; light, for everything that has to know."""

# Fields of the configuration that say it, and for which the position table was made.
GEOMETRY_FIELDS = ("frequency_stride", "time_stride", "max_length", "num_mel_bins")


def patches_along(size, patch_size: int, stride: int):
    """Patches that lie completely within `size` mel bins or frames; works on integers and on integer tensors."""
    return (size - patch_size) // stride + 1

"""How many patches lie along an axis of a spectrogram; light, for everything that has to know."""


def patches_along(size, patch_size: int, stride: int):
    """Patches that lie completely within `size` mel bins or frames; works on integers and on integer tensors."""
    return (size - patch_size) // stride + 1

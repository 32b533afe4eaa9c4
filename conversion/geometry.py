"""Sizes of the original's models, and how they cut patches: what their files do not say, found from shapes or flags.

Read for `--help`, so nothing heavy is imported.
"""

from dataclasses import dataclass, fields
from itertools import product

from modeling_ast.layers.patch_grid import patches_along

from .errors import ConversionError

# Widths of the DeiT models that AST starts from (Touvron et al. 2021, table 1); the two of 768 differ in the image size,
# and so in the grid of their positions, which AST's own tensors no longer show.
HIDDEN_SIZES = {"tiny224": 192, "small224": 384, "base224": 768, "base384": 768}
NUM_LAYERS = 12  # of all of them
HEAD_DIM = 64  # of all of them
PATCH_SIZE = 16
NUM_MEL_BINS = 128  # of all released models
PAPER_STRIDES = (10, 12, 14, 16)  # of the released checkpoints
SQUARE_STRIDES = (*PAPER_STRIDES, *(stride for stride in range(PATCH_SIZE, 0, -1) if stride not in PAPER_STRIDES))
USUAL_LENGTHS = (1024, 512, 128)  # frames: the recipes for AudioSet, ESC-50 and Speech Commands
LARGEST_NUMBER = 100_000  # of anything typed: a quarter of an hour in frames
ANSWERS_SHOWN = 3


@dataclass(frozen=True)
class PatchGeometry:
    """How a spectrogram is cut into patches.

    Args:
        frequency_stride (`int`): distance of two patches in mel bins.
        time_stride (`int`): distance of two patches in frames.
        max_length (`int`): frames.
        num_mel_bins (`int`): mel bins.

    Raises:
        ConversionError: if a stride is below 1, an input smaller than one patch, or one of them beyond all reason.
    """

    frequency_stride: int
    time_stride: int
    max_length: int
    num_mel_bins: int = NUM_MEL_BINS

    def __post_init__(self):
        for item in fields(self):
            value = getattr(self, item.name)
            smallest = PATCH_SIZE if item.name in ("max_length", "num_mel_bins") else 1
            if value < smallest:
                raise ConversionError(f"--{item.name} {value} is too small. Pass {smallest} or more.")
            if value > LARGEST_NUMBER:
                raise ConversionError(f"--{item.name} {value} is too large. Pass {LARGEST_NUMBER} or less.")

    @property
    def grid(self) -> tuple[int, int]:
        """Patches along frequency and along time."""
        return (
            patches_along(self.num_mel_bins, PATCH_SIZE, self.frequency_stride),
            patches_along(self.max_length, PATCH_SIZE, self.time_stride),
        )

    @property
    def num_patches(self) -> int:
        """Patches of a clip."""
        frequency, time = self.grid
        return frequency * time

    def as_flags(self) -> str:
        """Write the flags that say the same.

        Returns:
            Words of a command line.
        """
        shown = [field for field in fields(self) if getattr(self, field.name) != field.default]
        return " ".join(f"--{field.name} {getattr(self, field.name)}" for field in shown)


def infer_geometry(
    num_patches: int,
    frequency_stride: int | None = None,
    time_stride: int | None = None,
    max_length: int | None = None,
    num_mel_bins: int = NUM_MEL_BINS,
) -> PatchGeometry:
    """Find strides and length that make this number of patches.

    What is given is kept. Of the rest, the first fit is taken of the square strides, the paper's first, with the
    recipes' usual lengths.

    Args:
        num_patches (`int`): length of the position table without its class tokens.
        frequency_stride (`int`, *optional*): distance of two patches in mel bins.
        time_stride (`int`, *optional*): distance of two patches in frames.
        max_length (`int`, *optional*): frames.
        num_mel_bins (`int`, defaults to 128): mel bins.

    Returns:
        [`PatchGeometry`].

    Raises:
        ConversionError: if none fits; the message names the three nearest answers and their flags.
    """
    given = {"frequency_stride": frequency_stride, "time_stride": time_stride, "max_length": max_length}
    PatchGeometry(*(PATCH_SIZE if value is None else value for value in given.values()), num_mel_bins)  # checks them
    strides = (
        [(frequency_stride or stride, time_stride or stride) for stride in SQUARE_STRIDES]
        if frequency_stride is None or time_stride is None
        else [(frequency_stride, time_stride)]
    )
    strides = sorted(dict.fromkeys(strides), key=lambda pair: pair[0] != pair[1])
    for pair, length in product(strides, [max_length] if max_length else USUAL_LENGTHS):
        geometry = PatchGeometry(*pair, length, num_mel_bins)
        if geometry.num_patches == num_patches:
            return geometry
    asked = " ".join(f"--{name} {value}" for name, value in given.items() if value is not None)
    usual = " or ".join(map(str, sorted(USUAL_LENGTHS)))
    all_typed = all(value is not None for value in given.values())
    nearest = _nearest(num_patches, num_mel_bins, **dict.fromkeys(given) if all_typed else given)
    answers = "; ".join(f"{answer.as_flags()} ({answer.num_patches} patches)" for answer in nearest)
    raise ConversionError(
        f"The position table has {num_patches} patches, which at {num_mel_bins} mel bins "
        f"{asked or f'no square stride with {usual} frames'} "
        f"{'does not make' if asked else 'makes'}. Pass the flags the model was trained with. Nearest: {answers}."
    )


def _nearest(
    num_patches: int, num_mel_bins: int, frequency_stride: int | None, time_stride: int | None, max_length: int | None
) -> list[PatchGeometry]:
    """Geometries near a number of patches: exact before inexact, square before oblong, usual before odd lengths."""
    answers = {}  # one for each grid at given strides: its usual length where there is one
    for pair in product(
        [frequency_stride] if frequency_stride else PAPER_STRIDES, [time_stride] if time_stride else PAPER_STRIDES
    ):
        frequency, _ = PatchGeometry(*pair, PATCH_SIZE, num_mel_bins).grid
        steps = max(1, round(num_patches / frequency))
        for length in [max_length] if max_length else [*USUAL_LENGTHS, PATCH_SIZE + (steps - 1) * pair[1]]:
            answer = PatchGeometry(*pair, length, num_mel_bins)
            answers.setdefault((pair, answer.grid), answer)

    def distance(answer: PatchGeometry) -> tuple:
        return (
            abs(answer.num_patches - num_patches),
            answer.frequency_stride != answer.time_stride,
            min(abs(answer.max_length - length) for length in USUAL_LENGTHS),
            answer.frequency_stride,
            answer.time_stride,
        )

    return sorted(answers.values(), key=distance)[:ANSWERS_SHOWN]

"""The eight checkpoints that the authors of AST released, and what their files do not say of themselves.

Names, addresses, strides and scores: README of the released code (YuanGongND/ast; Gong, Chung and Glass, Interspeech
2021). A released file is a bare state dict; geometry, normalisation and labels are known from here only. The table is
read for `--help`, so nothing heavy is imported.
"""

import difflib
from dataclasses import dataclass
from types import MappingProxyType

from .errors import ConversionError
from .geometry import HIDDEN_SIZES, NUM_LAYERS, PATCH_SIZE, PatchGeometry
from .original_datasets import AUDIOSET, SPEECH_COMMANDS, OriginalDataset

IMAGENET_CLASSES = 1000  # of each of the two heads that the files carry along unused
BYTES_OF_FLOAT32 = 4
LARGEST_OVERHEAD = 1.1  # tensor names, alignment and the zip directory need far less


@dataclass(frozen=True)
class ReleasedCheckpoint:
    """One released checkpoint.

    Args:
        name (`str`): name of the file without `.pth`.
        address (`str`): where the authors' README says the file is.
        hub_id (`str`): repository on the Hub that holds the same weights, converted.
        model_size (`str`): a key of `HIDDEN_SIZES`.
        frequency_stride (`int`): distance of two patches in mel bins.
        time_stride (`int`): distance of two patches in frames.
        dataset ([`OriginalDataset`]): what it was trained on; labels, problem type, frames and statistics are its.
        metric (`str`): what `published_score` is.
        published_score (`float`): the authors' result as a fraction of 1.
        license (`str`): license of the weights, spelled as the Hub does.
        weight_averaged (`bool`): whether the weights are the mean of several epochs'.
    """

    name: str
    address: str
    hub_id: str
    model_size: str
    frequency_stride: int
    time_stride: int
    dataset: OriginalDataset
    metric: str
    published_score: float
    license: str = "bsd-3-clause"
    weight_averaged: bool = False

    @property
    def geometry(self) -> PatchGeometry:
        """How it cuts its patches."""
        return PatchGeometry(self.frequency_stride, self.time_stride, self.dataset.max_length)

    @property
    def smallest_bytes(self) -> int:
        """Bytes of the tensors without the unused ImageNet heads; a smaller file is not this checkpoint."""
        return BYTES_OF_FLOAT32 * self._num_parameters()

    @property
    def largest_bytes(self) -> int:
        """A tenth more than the bytes of the tensors with the ImageNet heads; a larger file is not this checkpoint."""
        heads = 2 * IMAGENET_CLASSES * (HIDDEN_SIZES[self.model_size] + 1)
        return int(LARGEST_OVERHEAD * BYTES_OF_FLOAT32 * (self._num_parameters() + heads))

    def _num_parameters(self) -> int:
        hidden = HIDDEN_SIZES[self.model_size]
        tokens = 2 + (2 + self.geometry.num_patches)  # class and distillation token, then the position table
        patch_filter = PATCH_SIZE * PATCH_SIZE + 1
        layer = 12 * hidden + 13  # per channel: qkv 3, projection 1, MLP 4 + 4; 9 biases and two LayerNorms' 4
        norms = 2 + 2  # after the last layer and in the classifier
        classifier = self.dataset.num_labels * (hidden + 1)
        return hidden * (tokens + patch_filter + NUM_LAYERS * layer + norms) + classifier


def _row(
    name: str,
    dropbox_key: str,
    hub_name: str,
    stride: int,
    dataset: OriginalDataset,
    score: float,
    averaged: bool = False,
) -> ReleasedCheckpoint:
    return ReleasedCheckpoint(
        name=name,
        address=f"https://www.dropbox.com/s/{dropbox_key}/{name}.pth?dl=1",  # dl=1: the file, not a page about it
        hub_id=f"MIT/{hub_name}",
        model_size="base384",
        frequency_stride=stride,
        time_stride=stride,
        dataset=dataset,
        metric="mean_average_precision" if dataset is AUDIOSET else "accuracy",
        published_score=score,
        weight_averaged=averaged,
    )


_ROWS = (
    _row(
        "audioset_10_10_0.4593", "ca0b1v2nlxzyeb4", "ast-finetuned-audioset-10-10-0.4593", 10, AUDIOSET, 0.4593, True
    ),
    _row("audioset_10_10_0.4495", "1tv0hovue1bxupk", "ast-finetuned-audioset-10-10-0.450", 10, AUDIOSET, 0.4495),
    _row("audioset_10_10_0.4483", "6u5sikl4b9wo4u5", "ast-finetuned-audioset-10-10-0.448", 10, AUDIOSET, 0.4483),
    _row("audioset_10_10_0.4475", "kt6i0v9fvfm1mbq", "ast-finetuned-audioset-10-10-0.448-v2", 10, AUDIOSET, 0.4475),
    _row("audioset_12_12_0.4467", "snfhx3tizr4nuc8", "ast-finetuned-audioset-12-12-0.447", 12, AUDIOSET, 0.4467),
    _row("audioset_14_14_0.4431", "z18s6pemtnxm4k7", "ast-finetuned-audioset-14-14-0.443", 14, AUDIOSET, 0.4431),
    _row("audioset_16_16_0.4422", "mdsa4t1xmcimia6", "ast-finetuned-audioset-16-16-0.442", 16, AUDIOSET, 0.4422),
    _row(
        "speechcommands_10_10_0.9812",
        "q0tbqpwv44pquwy",
        "ast-finetuned-speech-commands-v2",
        10,
        SPEECH_COMMANDS,
        0.9812,
    ),
)
RELEASED = MappingProxyType({row.name: row for row in _ROWS})


def released_checkpoint(name: str) -> ReleasedCheckpoint:
    """Look up a released checkpoint.

    Args:
        name (`str`): its name, such as `"audioset_10_10_0.4593"`.

    Returns:
        Its [`ReleasedCheckpoint`].

    Raises:
        ConversionError: if none has this name; the message lists all.
    """
    if name in RELEASED:
        return RELEASED[name]
    closest = difflib.get_close_matches(name, RELEASED, n=1)
    hint = f" Did you mean {closest[0]}?" if closest else ""
    raise ConversionError(
        f"{name!r} is not the name of a released checkpoint.{hint} Type one of {', '.join(RELEASED)}."
    )

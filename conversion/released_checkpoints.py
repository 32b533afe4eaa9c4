"""The eight checkpoints that the authors of AST released, and what their files do not say of themselves.

Names, addresses, strides and scores: README of the released code (YuanGongND/ast; Gong, Chung and Glass, Interspeech
2021). A released file is a bare state dict; geometry, normalisation and labels are known from here only. The table is
read for `--help`, so nothing heavy is imported.
"""

import difflib
from dataclasses import dataclass
from types import MappingProxyType

from .errors import ConversionError

# Widths of the DeiT models that AST starts from (Touvron et al. 2021, tables 1 and 5); depth is always 12.
HIDDEN_SIZES = {"tiny224": 192, "small224": 384, "base224": 768, "base384": 768}
NUM_LAYERS = 12
PATCH_SIZE = 16
NUM_MEL_BINS = 128
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
        max_length (`int`): frames (10 ms each) that the position table was made for.
        labels (`str`): name of the built-in label table.
        num_labels (`int`): outputs of the classifier.
        problem_type (`str`): as in a Transformers configuration.
        mean (`float`): mean of the training set's log-mel features.
        std (`float`): their standard deviation; features are `(x - mean) / (2 * std)`.
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
    max_length: int
    labels: str
    num_labels: int
    problem_type: str
    mean: float
    std: float
    metric: str
    published_score: float
    license: str
    weight_averaged: bool

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
        frequency_patches = (NUM_MEL_BINS - PATCH_SIZE) // self.frequency_stride + 1
        time_patches = (self.max_length - PATCH_SIZE) // self.time_stride + 1
        tokens = 2 + (2 + frequency_patches * time_patches)  # class and distillation token, then the position table
        patch_filter = PATCH_SIZE * PATCH_SIZE + 1
        layer = 12 * hidden + 13  # per channel: qkv 3, projection 1, MLP 4 + 4; 9 biases and two LayerNorms' 4
        norms = 2 + 2  # after the last layer and in the classifier
        classifier = self.num_labels * (hidden + 1)
        return hidden * (tokens + patch_filter + NUM_LAYERS * layer + norms) + classifier


def _audioset(
    name: str, dropbox_key: str, hub_id: str, stride: int, score: float, weight_averaged: bool = False
) -> ReleasedCheckpoint:
    return ReleasedCheckpoint(
        name=name,
        address=_dropbox_address(dropbox_key, name),
        hub_id=hub_id,
        model_size="base384",
        frequency_stride=stride,
        time_stride=stride,
        max_length=1024,
        labels="audioset",
        num_labels=527,
        problem_type="multi_label_classification",
        mean=-4.2677393,  # Gong et al. 2021, released code
        std=4.5689974,
        metric="mean_average_precision",  # on the AudioSet evaluation set
        published_score=score,
        license="bsd-3-clause",
        weight_averaged=weight_averaged,
    )


def _speech_commands(name: str, dropbox_key: str, hub_id: str, stride: int, score: float) -> ReleasedCheckpoint:
    return ReleasedCheckpoint(
        name=name,
        address=_dropbox_address(dropbox_key, name),
        hub_id=hub_id,
        model_size="base384",
        frequency_stride=stride,
        time_stride=stride,
        max_length=128,
        labels="speech_commands_v2",
        num_labels=35,
        problem_type="single_label_classification",
        mean=-6.845978,  # Gong et al. 2021, released code
        std=5.5654526,
        metric="accuracy",  # on the 35-word test set
        published_score=score,
        license="bsd-3-clause",
        weight_averaged=False,
    )


def _dropbox_address(key: str, name: str) -> str:
    return f"https://www.dropbox.com/s/{key}/{name}.pth?dl=1"  # dl=1: the file itself, not a page about it


_ROWS = (
    _audioset(
        "audioset_10_10_0.4593",
        "ca0b1v2nlxzyeb4",
        "MIT/ast-finetuned-audioset-10-10-0.4593",
        stride=10,
        score=0.4593,
        weight_averaged=True,
    ),
    _audioset(
        "audioset_10_10_0.4495", "1tv0hovue1bxupk", "MIT/ast-finetuned-audioset-10-10-0.450", stride=10, score=0.4495
    ),
    _audioset(
        "audioset_10_10_0.4483", "6u5sikl4b9wo4u5", "MIT/ast-finetuned-audioset-10-10-0.448", stride=10, score=0.4483
    ),
    _audioset(
        "audioset_10_10_0.4475",
        "kt6i0v9fvfm1mbq",
        "MIT/ast-finetuned-audioset-10-10-0.448-v2",
        stride=10,
        score=0.4475,
    ),
    _audioset(
        "audioset_12_12_0.4467", "snfhx3tizr4nuc8", "MIT/ast-finetuned-audioset-12-12-0.447", stride=12, score=0.4467
    ),
    _audioset(
        "audioset_14_14_0.4431", "z18s6pemtnxm4k7", "MIT/ast-finetuned-audioset-14-14-0.443", stride=14, score=0.4431
    ),
    _audioset(
        "audioset_16_16_0.4422", "mdsa4t1xmcimia6", "MIT/ast-finetuned-audioset-16-16-0.442", stride=16, score=0.4422
    ),
    _speech_commands(
        "speechcommands_10_10_0.9812",
        "q0tbqpwv44pquwy",
        "MIT/ast-finetuned-speech-commands-v2",
        stride=10,
        score=0.9812,
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
        ConversionError: if none has this name.
    """
    if name in RELEASED:
        return RELEASED[name]
    closest = difflib.get_close_matches(name, RELEASED, n=1)
    hint = f" Did you mean {closest[0]}?" if closest else ""
    raise ConversionError(
        f"{name!r} is not the name of a released checkpoint.{hint} Type one of {', '.join(RELEASED)}."
    )

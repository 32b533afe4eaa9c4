"""Which model: the first group of fields."""

from dataclasses import dataclass, field

from modeling_ast.layers.patch_grid import GEOMETRY_FIELDS

from .given import ArgumentGroup

WIDTH_FIELDS = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
CLIP_HEAD, FRAME_HEAD = "clip", "frame"
SIZE_FIELDS = (*WIDTH_FIELDS, *GEOMETRY_FIELDS)


@dataclass
class ModelArguments(ArgumentGroup):
    """Which model: a checkpoint, or the sizes of a new one."""

    model_name_or_path: str | None = field(
        default=None,
        metadata={
            "help": "Checkpoint to start from: folder, Hub id, or ast-small, which the kit ships. A new model with random weights if not "
            "given."
        },
    )
    head: str = field(
        default=CLIP_HEAD,
        metadata={
            "help": "What is told: labels of a 'clip', or of every 'frame' of 100 ms (the time_stride), where stretches of time are "
            "marked with labels.",
            "choices": [CLIP_HEAD, FRAME_HEAD],
        },
    )
    hidden_size: int | None = field(default=None, metadata={"help": "Width of a new model (768 if not given)."})
    num_hidden_layers: int | None = field(default=None, metadata={"help": "Layers of a new model (12)."})
    num_attention_heads: int | None = field(default=None, metadata={"help": "Attention heads of a new model (12)."})
    intermediate_size: int | None = field(default=None, metadata={"help": "Feed-forward width of a new model (3072)."})
    frequency_stride: int | None = field(
        default=None, metadata={"help": "Patch stride in mel bins (10, or the checkpoint's)."}
    )
    time_stride: int | None = field(
        default=None, metadata={"help": "Patch stride in frames (10, or the checkpoint's)."}
    )
    max_length: int | None = field(
        default=None,
        metadata={
            "help": "Input length in frames of 10 ms (1024, which is 10.24 s, or the checkpoint's). A checkpoint of another "
            "length has its positions cut or stretched by the paper's rule."
        },
    )
    num_mel_bins: int | None = field(default=None, metadata={"help": "Mel bins (128, or the checkpoint's)."})
    hidden_dropout_prob: float = field(default=0.0, metadata={"help": "Dropout on embeddings and layer outputs."})
    attention_probs_dropout_prob: float = field(default=0.0, metadata={"help": "Dropout on attention weights."})
    attn_implementation: str = field(
        default="sdpa", metadata={"help": "Attention: sdpa, eager, flex_attention, flash_attention_2, ..."}
    )

    def __post_init__(self):
        given = self.sizes()
        widths = [name for name in WIDTH_FIELDS if name in given]
        if self.model_name_or_path and widths:
            raise ValueError(
                f"{', '.join(widths)} describe a new model, but model_name_or_path={self.model_name_or_path!r} has "
                "sizes of its own. Leave out either these or --model_name_or_path."
            )

        too_small = [name for name, size in given.items() if size < 1]
        if too_small:
            raise ValueError(
                f"{too_small[0]}={getattr(self, too_small[0])} is less than 1. Pass a whole number from 1."
            )

    def sizes(self) -> dict[str, int]:
        """Collect the sizes that were given, for a new model or to change those of the checkpoint.

        Returns:
            Sizes by the name of their field.
        """
        return {name: getattr(self, name) for name in SIZE_FIELDS if getattr(self, name) is not None}

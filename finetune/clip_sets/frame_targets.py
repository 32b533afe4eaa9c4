"""Batches of clips whose labels are those of frames: a row for each column of the patch grid."""

import numpy as np
import torch

from modeling_ast import ASTFeatureExtractor
from modeling_ast.features.kaldi import num_frames
from modeling_ast.features.padding import MIN_FRAMES
from modeling_ast.frame_classification import NOT_SCORED
from modeling_ast.frame_columns import FrameColumns

from .collator import ASTDataCollator


class FrameCollator(ASTDataCollator):
    """Collates items whose `"label"` has a row for each of the clip's own columns; see [`ASTDataCollator`].

    Args:
        feature_extractor ([`ASTFeatureExtractor`]): that of the model.
        columns ([`FrameColumns`]): of the model.
    """

    def __init__(self, feature_extractor: ASTFeatureExtractor, columns: FrameColumns):
        super().__init__(feature_extractor, compute_features=False)
        self.columns = columns

    def __call__(self, examples: list[dict]) -> dict[str, torch.Tensor | list[int] | bool | dict]:
        """Make a batch.

        Args:
            examples (`list[dict]`): items with `"waveform"` or `"features"`, and as `"label"` a float32 array of shape
                `(columns, labels)`: of the columns without padding, from [`FrameColumns.targets`].

        Returns:
            As [`ASTDataCollator`], with `labels` of shape `(batch, columns, labels)`, of the columns of the padded batch; those
            of padding are -100 and count nothing.

        Raises:
            ValueError: if an item has labels of more columns than it has in the batch.
        """
        most = self.feature_extractor.max_length
        frames = [min(_frames_of(example, self.feature_extractor.sampling_rate), most) for example in examples]
        to_longest = self.feature_extractor.padding == "longest"
        width = self.columns.number(max(*frames, MIN_FRAMES) if to_longest else most)
        padded = []
        for example, of_clip in zip(examples, frames, strict=True):
            label, own = example["label"], self.columns.number(of_clip)
            if len(label) != own:
                raise ValueError(
                    f"A clip of {of_clip} frames of 10 ms has labels of {len(label)} columns, expected {own}. Make them with "
                    "FrameColumns.targets of its own frames."
                )
            rows = np.full((width, label.shape[1]), NOT_SCORED, dtype=np.float32)
            rows[:own] = label
            padded.append(example | {"label": rows})
        return super().__call__(padded)


def _frames_of(example: dict, sampling_rate: int) -> int:
    if "features" in example:
        return len(example["features"])
    return num_frames(len(example["waveform"]), sampling_rate)

"""Batches of clips: padded waveforms for `ASTTrainer`, finished features for a plain `Trainer`."""

import numpy as np
import torch

from modeling_ast import ASTFeatureExtractor
from modeling_ast.feature_extraction_ast import frame_mask
from modeling_ast.log_mel import num_samples

from .augmentation import Augmentation
from .data import read_clip


class ASTDataCollator:
    """Collates items of [`ASTDataset`], or rows of any data set with an undecoded audio column.

    Args:
        feature_extractor ([`ASTFeatureExtractor`]): the checkpoint's own.
        compute_features (`bool`, defaults to `True`): return `input_values`, as a plain `Trainer` needs them (with
            `remove_unused_columns=False`). `False` leaves the features to [`ASTTrainer`], which computes them on the
            training device.
        audio_column_name (`str`, defaults to `"audio"`): column of `datasets.Audio(decode=False)` values, in rows.
        label_column_name (`str`, defaults to `"label"`): column of label indices, or of lists of them, in rows.
        num_labels (`int`, *optional*): how many labels there are, needed for rows with lists of label indices.
    """

    def __init__(
        self,
        feature_extractor: ASTFeatureExtractor,
        compute_features: bool = True,
        audio_column_name: str = "audio",
        label_column_name: str = "label",
        num_labels: int | None = None,
    ):
        self.feature_extractor = feature_extractor
        self.compute_features = compute_features
        self.audio_column_name = audio_column_name
        self.label_column_name = label_column_name
        self.num_labels = num_labels

    def __call__(self, examples: list[dict]) -> dict[str, torch.Tensor | list[int] | bool]:
        """
        Args:
            examples (`list[dict]`): items `{"waveform", "label"[, "draws"]}`, or rows of a data set.

        Returns:
            `labels`, indices of shape `(batch,)` or vectors of shape `(batch, labels)`, with either `input_values` (and
            perhaps `attention_mask`), or `waveforms` of shape `(batch, samples)`, `lengths` of shape `(batch,)`, whether
            these are all the same, and the scalars drawn for augmentation.

        Raises:
            AudioError: if a row's audio cannot be decoded; it names the file.
            ValueError: if rows have lists of labels and `num_labels` was not given.
        """
        if "waveform" not in examples[0]:
            examples = [self._read_row(row) for row in examples]
        waveforms = [torch.from_numpy(example["waveform"]) for example in examples]
        batch = {
            "waveforms": torch.nn.utils.rnn.pad_sequence(waveforms, batch_first=True),
            "lengths": torch.tensor([len(waveform) for waveform in waveforms]),
            "labels": torch.from_numpy(np.stack([example["label"] for example in examples])),
            "same_length": len({len(waveform) for waveform in waveforms})
            == 1,  # known here without a look at a device
        }
        if "draws" in examples[0]:
            draws = [example["draws"] for example in examples]
            batch["masks"] = torch.from_numpy(np.stack([draw.masks for draw in draws]))
            batch["noise_strengths"] = torch.tensor([draw.noise_strength for draw in draws])
            batch["noise_seeds"] = [
                draw.noise_seed for draw in draws
            ]  # read by the host: a tensor would be waited for
            batch["rolls"] = torch.tensor([draw.roll for draw in draws])
        return model_inputs(batch, self.feature_extractor) if self.compute_features else batch

    def _read_row(self, row: dict) -> dict:
        waveform = read_clip(row[self.audio_column_name], self.feature_extractor.sampling_rate)
        longest = num_samples(self.feature_extractor.max_length, self.feature_extractor.sampling_rate)
        return {"waveform": waveform[:longest], "label": self._target(row[self.label_column_name])}

    def _target(self, label: int | list[int]) -> int | np.ndarray:
        """A label index as it is, a list of them as a multi-hot vector."""
        if not isinstance(label, list):
            return label
        if self.num_labels is None:
            raise ValueError(
                f"The column {self.label_column_name!r} holds lists of label indices, which a batch needs as vectors of one "
                "length. Pass num_labels=model.config.num_labels to ASTDataCollator."
            )
        vector = np.zeros(self.num_labels, dtype=np.float32)
        vector[label] = 1
        return vector


def model_inputs(
    batch: dict[str, torch.Tensor], feature_extractor: ASTFeatureExtractor, augmentation: Augmentation | None = None
) -> dict[str, torch.Tensor]:
    """A batch of waveforms as the model takes it, on the device the waveforms are on.

    Args:
        batch (`dict`): from [`ASTDataCollator`] with `compute_features=False`.
        feature_extractor ([`ASTFeatureExtractor`]): its padding, length and statistics are obeyed.
        augmentation ([`Augmentation`], *optional*): applied to batches that carry draws.

    Returns:
        `input_values` of shape `(batch, frames, mel bins)`, `labels`, and with `padding="longest"`, if lengths differ,
        the `attention_mask` of shape `(batch, frames)`.
    """
    max_length = feature_extractor.max_length
    to_longest = feature_extractor.padding == "longest"
    features, frames = feature_extractor.log_mel(
        batch["waveforms"], batch["lengths"], max_length, None if to_longest else max_length
    )
    augmented = augmentation is not None and "masks" in batch
    # The original masks and rolls the padded clip; without a common length only a clip's own frames are its own.
    augmented_frames = frames if to_longest else torch.full_like(frames, features.shape[1])
    if augmented:
        features = augmentation.mask(features, augmented_frames, batch["masks"])
    features = feature_extractor.normalize(features)
    if augmented:
        features = augmentation.disturb(
            features, augmented_frames, batch["noise_strengths"], batch["noise_seeds"], batch["rolls"]
        )
    inputs = {"input_values": features, "labels": batch["labels"]}
    if to_longest and not batch["same_length"]:
        inputs["attention_mask"] = frame_mask(frames, features.shape[1])
    return inputs

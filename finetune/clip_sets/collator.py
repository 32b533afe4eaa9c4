"""Batches of clips: padded waveforms for `ASTTrainer`, finished features for a plain `Trainer`."""

import numpy as np
import torch

from modeling_ast import ASTConfig, ASTFeatureExtractor
from modeling_ast.features.kaldi import num_frames
from modeling_ast.features.padding import MIN_FRAMES, frame_mask, pad_clips, pad_frames

from ..augmentations.augmentation import Augmentation, collate_draws
from ..sources.labels import SHARES_COLUMN, label_of
from ..sources.stored_features import refuse_shape
from .clip_notes import NotesSaid
from .waveforms import hear_clip


class ASTDataCollator:
    """Collates items of [`ASTDataset`], or rows of any data set with an undecoded audio column.

    Args:
        feature_extractor ([`ASTFeatureExtractor`]): the checkpoint's own.
        compute_features (`bool`, defaults to `True`): return `input_values`, as a plain `Trainer` needs them (with
            `remove_unused_columns=False`). `False` leaves the features to [`ASTTrainer`], which computes them on the
            training device.
        audio_column_name (`str`, defaults to `"audio"`): column of `datasets.Audio(decode=False)` values, in rows.
        features_column_name (`str`, *optional*): column of finished log-mel features of shape `(frames, mel bins)`, not
            normalised, in rows that are read in place of audio.
        label_column_name (`str`, defaults to `"label"`): column of label indices, or of lists of them, in rows; of rows with
            soft labels, as [`load_splits`] returns them, the shares are taken.
        num_labels (`int`, *optional*): how many labels there are, needed for rows with lists of label indices.
    """

    def __init__(
        self,
        feature_extractor: ASTFeatureExtractor,
        compute_features: bool = True,
        audio_column_name: str = "audio",
        label_column_name: str = "label",
        num_labels: int | None = None,
        features_column_name: str | None = None,
    ):
        self.feature_extractor = feature_extractor
        self.compute_features = compute_features
        self.audio_column_name = audio_column_name
        self.label_column_name = label_column_name
        self.num_labels = num_labels
        self.features_column_name = features_column_name
        self.said = NotesSaid()

    def __call__(self, examples: list[dict]) -> dict[str, torch.Tensor | list[int] | bool]:
        """Make a batch.

        Args:
            examples (`list[dict]`): items `{"waveform", "label"[, "draws"]}`, with `"features"` of shape `(frames, mel
                bins)` in place of `"waveform"` if these were computed beforehand, or rows of a data set.

        Returns:
            `labels`, indices of shape `(batch,)` or vectors of shape `(batch, labels)`, with either `input_values` (and
            perhaps `attention_mask`), or `waveforms` of shape `(batch, samples)`, `lengths` of shape `(batch,)`, whether
            `padding="longest"` pads one of them, and the draws of augmentation. Of finished features, `features`
            of shape `(batch, frames, mel bins)` stand in place of `waveforms`, and `lengths` are frames.

        Raises:
            AudioError: if a row's audio cannot be decoded; it names the file.
            ValueError: if rows have lists of labels and `num_labels` was not given.
        """
        if self._is_row(examples[0]):
            examples = [self._read_row(row) for row in examples]
        precomputed = "features" in examples[0]
        clips = [torch.from_numpy(example["features" if precomputed else "waveform"]) for example in examples]
        padded, clip_lengths = pad_clips(clips)
        batch = {
            "features" if precomputed else "waveforms": padded,
            "lengths": clip_lengths,
            "labels": torch.from_numpy(np.stack([example["label"] for example in examples])),
        }
        lengths = {len(clip) for clip in clips}
        if not precomputed:
            lengths = {num_frames(length, self.feature_extractor.sampling_rate) for length in lengths}
        frames = {min(length, self.feature_extractor.max_length) for length in lengths}
        batch["is_padded"] = len(frames) > 1 or min(frames) < MIN_FRAMES  # known here without a look at a device
        if "draws" in examples[0]:
            draws = [example["draws"] for example in examples]
            batch["draws"] = collate_draws(draws)
            batch["keys"] = [draw.key for draw in draws]  # by which a batch at fault is read again
        return model_inputs(batch, self.feature_extractor) if self.compute_features else batch

    def _is_row(self, example: dict) -> bool:
        if self.features_column_name is not None:
            return True
        return "waveform" not in example and (self.audio_column_name in example or "features" not in example)

    def _read_row(self, row: dict) -> dict:
        if self.features_column_name is not None:
            features = np.asarray(row[self.features_column_name])
            refuse_shape(features, f"A row's {self.features_column_name!r}", self.feature_extractor.num_mel_bins)
            features = features[: self.feature_extractor.max_length].astype(np.float32)
            return {"features": features, "label": self._target(row)}
        longest = self.feature_extractor.max_samples
        heard = hear_clip(row[self.audio_column_name], self.feature_extractor.audio_reader(), longest)
        self.said.log(heard.notes)
        return {"waveform": heard.waveform[:longest], "label": self._target(row)}

    def _target(self, row: dict) -> int | np.ndarray:
        """A label index as it is, a list of them as a multi-hot vector, soft labels as the vector of their shares."""
        label = row[self.label_column_name]
        if self.label_column_name == "label" and SHARES_COLUMN in row:
            label = label_of(row)
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
    batch: dict[str, torch.Tensor],
    feature_extractor: ASTFeatureExtractor,
    augmentation: Augmentation | None = None,
    config: ASTConfig | None = None,
) -> dict[str, torch.Tensor]:
    """Turn a batch of waveforms, or of finished features, into what the model takes, on the device that they are on.

    Args:
        batch (`dict`): from [`ASTDataCollator`] with `compute_features=False`.
        feature_extractor ([`ASTFeatureExtractor`]): its padding, length and statistics are obeyed.
        augmentation ([`Augmentation`], *optional*): applied to batches that carry draws.
        config ([`ASTConfig`], *optional*): of the model that is trained; without it no patches are left out.

    Returns:
        `input_values` of shape `(batch, frames, mel bins)`, `labels`, and with `padding="longest"`, if a clip is padded,
        the `attention_mask` of shape `(batch, frames)`.
    """
    max_length = feature_extractor.max_length
    to_longest = feature_extractor.padding == "longest"
    features, frames = raw_features(batch, feature_extractor, None if to_longest else max_length)
    augmented = augmentation is not None and "draws" in batch
    padding_is_heard = augmented and to_longest and augmentation.hears_padding
    if padding_is_heard:
        heard = augmentation.frames_heard(frames, max_length, batch["draws"])
        width = max(int(heard.max()), features.shape[1])  # waits for the device, as nothing else here does
        features, frames = pad_frames(features, frames, feature_extractor.padding_value, width), heard
    # The original masks and rolls the padded clip; without a common length only a clip's own frames are its own.
    augmented_frames = frames if to_longest else torch.full_like(frames, features.shape[1])
    if augmented:
        features = augmentation.change_log_mel(features, augmented_frames, batch["draws"])
    features = feature_extractor.normalize(features)
    if augmented:
        features = augmentation.change_normalized(features, augmented_frames, batch["draws"])
    inputs = {"input_values": features, "labels": batch["labels"]}
    if to_longest and (batch["is_padded"] or padding_is_heard):
        inputs["attention_mask"] = frame_mask(frames, features.shape[1])
    if augmented:
        inputs |= augmentation.extra_inputs(features, augmented_frames, batch["draws"], config)
    return inputs


def raw_features(
    batch: dict[str, torch.Tensor], feature_extractor: ASTFeatureExtractor, pad_to: int | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute the log-mel features of a batch from its waveforms, or take them as they came, before normalising.

    Args:
        batch (`dict`): see [`model_inputs`].
        feature_extractor ([`ASTFeatureExtractor`]): cuts to its `max_length`.
        pad_to (`int`, *optional*): frames to pad to; those of the longest clip, at least one patch, if not given.

    Returns:
        Features of shape `(batch, frames, mel bins)` in which padding frames are `padding_value`, and the number of real
        frames of each clip, shape `(batch,)`.
    """
    max_length = feature_extractor.max_length
    if "waveforms" in batch:
        return feature_extractor.log_mel(batch["waveforms"], batch["lengths"], max_length, pad_to)
    features = batch["features"][:, :max_length]
    frames = batch["lengths"].clamp(max=max_length)
    return pad_frames(features, frames, feature_extractor.padding_value, pad_to), frames

"""Vectors of recordings, of their windows and of their seconds, from the passes of the model that score them.

They are those of [`ASTModel.embed`], after the last LayerNorm, of windows that are put together: a window's vector is the
mean of its two class tokens, a file's the mean of its windows' vectors, and a second's the mean of the patches, of whatever
windows, whose middle lies in it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .errors import TaggingError

EMBEDDINGS = ("file", "window", "second")


@dataclass(frozen=True)
class WindowVectors:
    """What the model makes of one window: `class_token_mean` of shape `(hidden,)`, and `columns` of shape `(time, hidden)`,
    the means of its patches over frequency."""

    class_token_mean: np.ndarray
    columns: np.ndarray


@dataclass(frozen=True)
class FileEmbeddings:
    """Vectors of a file: float32 `vectors` of shape `(rows, hidden)`, and `times` of shape `(rows, 2)`, start and end of what
    each is of, in seconds."""

    vectors: np.ndarray
    times: np.ndarray


def logits_and_vectors(model, inputs) -> tuple:
    """Score windows and take their vectors in one pass of the model.

    Args:
        model ([`ASTForAudioClassification`]): in evaluation.
        inputs (mapping): what the feature extractor made of the windows, on the model's device.

    Returns:
        The logits, a `torch.Tensor` of shape `(batch, labels)`, and a list of [`WindowVectors`], one a window.
    """
    embedded = model.embed(**inputs)
    logits = model.classifier(embedded.class_token_mean)
    class_token_means = embedded.class_token_mean.float().cpu().numpy()
    columns = embedded.patch_grid.float().mean(dim=1).cpu().numpy()  # (batch, time, hidden)
    ends = embedded.time_mask.sum(dim=1).tolist()
    vectors = [
        WindowVectors(mean, of_window[:end])
        for mean, of_window, end in zip(class_token_means, columns, ends, strict=True)
    ]
    return logits, vectors


def file_embeddings(
    kind: str,
    windows: Sequence[WindowVectors],
    starts: Sequence[int],
    window_samples: int,
    num_samples: int,
    sampling_rate: int,
    middles: np.ndarray,
) -> FileEmbeddings:
    """Put the vectors of a file's windows together.

    Args:
        kind (`str`): one of `EMBEDDINGS`.
        windows (sequence of [`WindowVectors`]): of each window.
        starts (sequence of `int`): first samples of the windows, ascending.
        window_samples (`int`): length of a window.
        num_samples (`int`): length of the recording.
        sampling_rate (`int`): in Hz.
        middles (`np.ndarray` of shape `(time,)`): where in a window the middles of its columns of patches lie, in samples, from
            [`column_middles`].

    Returns:
        [`FileEmbeddings`], with one row for `"file"`, one for each window, or one for each second from the first to the last in
        which the middle of a patch lies.
    """
    means = np.stack([window.class_token_mean for window in windows])
    if kind == "window":
        ends = np.minimum(np.asarray(starts) + window_samples, num_samples)
        return FileEmbeddings(means, np.stack([starts, ends], axis=1) / sampling_rate)
    if kind == "file":
        return FileEmbeddings(means.mean(axis=0, keepdims=True), np.array([[0, num_samples / sampling_rate]]))
    seconds = [(start + middles[: len(window.columns)]) for start, window in zip(starts, windows, strict=True)]
    columns, at = np.concatenate([window.columns for window in windows]), np.concatenate(seconds)
    heard = at < num_samples  # what is behind is padding
    heard[0] = True  # of a recording that is shorter than half a patch
    second = at[heard] // sampling_rate
    sums = np.zeros((second.max() + 1, columns.shape[1]))
    np.add.at(sums, second, columns[heard])
    vectors = sums / np.bincount(second)[:, None]
    begins = np.arange(len(vectors))
    ends = np.minimum(begins + 1, num_samples / sampling_rate)
    return FileEmbeddings(vectors.astype(np.float32), np.stack([begins, ends], axis=1))


def column_middles(config, sampling_rate: int, columns: int) -> np.ndarray:
    """Tell where the middles of a window's columns of patches lie.

    Args:
        config ([`ASTConfig`]): the model's, for patch size and stride in frames.
        sampling_rate (`int`): in Hz.
        columns (`int`): how many.

    Returns:
        Samples from the window's start, `np.ndarray` of shape `(columns,)`.
    """
    from ..features.kaldi import frame_shift

    return (np.arange(columns) * config.time_stride + config.patch_size // 2) * frame_shift(sampling_rate)


def check_embeddings(kind: str | None):
    """Refuse what is no kind of embeddings.

    Args:
        kind (`str`, *optional*): as a user gave it.

    Raises:
        TaggingError: if it is none of `EMBEDDINGS`.
    """
    if kind is not None and kind not in EMBEDDINGS:
        raise TaggingError(f"embeddings={kind!r} is none of {', '.join(EMBEDDINGS)}. Pass one of them.")

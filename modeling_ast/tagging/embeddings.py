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
    """What the model makes of one window: `class_token_mean` of shape `(hidden,)`. Where vectors of seconds are wanted, also
    `sums` of shape `(seconds, hidden)` over the columns of patches (each their mean over frequency) whose middles lie in a
    second, from the recording's second `first` on, and `counts` of shape `(seconds,)` of these columns."""

    class_token_mean: np.ndarray
    first: int = 0
    sums: np.ndarray | None = None
    counts: np.ndarray | None = None


@dataclass(frozen=True)
class FileEmbeddings:
    """Vectors of a file: float32 `vectors` of shape `(rows, hidden)`, and `times` of shape `(rows, 2)`, start and end of what
    each is of, in seconds."""

    vectors: np.ndarray
    times: np.ndarray


def logits_and_pooled(model, inputs) -> tuple:
    """Score windows, and give what the classifier reads of each, in one pass of the model.

    Args:
        model ([`ASTForAudioClassification`]): in evaluation.
        inputs (mapping): what the feature extractor made of the windows, on the model's device.

    Returns:
        The logits, a `torch.Tensor` of shape `(batch, labels)`, the same as the model's own, and the vectors, of shape
        `(batch, hidden)`.
    """
    pooled = model.audio_spectrogram_transformer(**inputs, class_tokens_only=True, return_dict=True).pooler_output
    return model.classifier(pooled), pooled


def logits_and_vectors(model, inputs, kind: str, places: Sequence[tuple[int, int]], sampling_rate: int) -> tuple:
    """Score windows and take their vectors in one pass of the model.

    Args:
        model ([`ASTForAudioClassification`] or [`ASTForAudioFrameClassification`]): in evaluation.
        inputs (mapping): what the feature extractor made of the windows, on the model's device.
        kind (`str`): one of `EMBEDDINGS`.
        places (sequence of `(int, int)`): of each window its first sample in the recording, and how many it has.
        sampling_rate (`int`): in Hz.

    Returns:
        The logits, a `torch.Tensor` of shape `(batch, labels)`, or `(batch, columns, labels)` of a frame head, and a list of [`WindowVectors`], one a window.
    """
    embedded = model.audio_spectrogram_transformer.embed(**inputs)
    if model.head_name == "classifier":
        logits = model.classifier(embedded.class_token_mean)
    else:
        logits = model.frame_classifier(embedded.patch_grid.mean(dim=1))  # no patch is left out here
    means = embedded.class_token_mean.float().cpu().numpy()
    if kind != "second":
        return logits, [WindowVectors(mean) for mean in means]
    columns = embedded.patch_grid.float().mean(dim=1).cpu().numpy()  # (batch, time, hidden)
    middles = column_middles(model.config, sampling_rate, columns.shape[1])
    unmasked = embedded.time_mask.sum(dim=1).tolist()
    vectors = []
    for mean, of_window, (start, samples), most in zip(means, columns, places, unmasked, strict=True):
        # Behind are padded ones. The first is also of a window that is shorter than half a patch.
        heard = max(min(int(np.searchsorted(middles, samples)), most), 1)
        seconds = (start + middles[:heard]) // sampling_rate
        sums = np.zeros((seconds[-1] - seconds[0] + 1, of_window.shape[1]), np.float32)
        np.add.at(sums, seconds - seconds[0], of_window[:heard])
        vectors.append(WindowVectors(mean, int(seconds[0]), sums, np.bincount(seconds - seconds[0])))
    return logits, vectors


def file_embeddings(
    kind: str,
    windows: Sequence[WindowVectors],
    places: Sequence[tuple[int, int]],
    num_samples: int,
    sampling_rate: int,
) -> FileEmbeddings:
    """Put the vectors of a file's windows together.

    Args:
        kind (`str`): one of `EMBEDDINGS`.
        windows (sequence of [`WindowVectors`]): of each window that was scored, at least one.
        places (sequence of `(int, int)`): of each window its first sample in the recording, and how many it has, ascending.
        num_samples (`int`): length of the recording.
        sampling_rate (`int`): in Hz.

    Returns:
        [`FileEmbeddings`], with one row for `"file"`, one for each window, or one for each second in which the middle of a patch
        lies.
    """
    if kind != "second":
        means = np.stack([window.class_token_mean for window in windows])
        if kind == "file":
            return FileEmbeddings(
                means.mean(axis=0, keepdims=True, dtype=np.float64).astype(np.float32),
                np.array([[0, num_samples / sampling_rate]]),
            )
        times = [[start / sampling_rate, (start + samples) / sampling_rate] for start, samples in places]
        return FileEmbeddings(means, np.array(times))
    after = max(window.first + len(window.counts) for window in windows)
    sums, counts = np.zeros((after, windows[0].sums.shape[1])), np.zeros(after, int)
    for window in windows:
        of_window = slice(window.first, window.first + len(window.counts))
        sums[of_window] += window.sums
        counts[of_window] += window.counts
    begins = np.flatnonzero(counts)
    ends = np.minimum(begins + 1, num_samples / sampling_rate)
    vectors = (sums[begins] / counts[begins, None]).astype(np.float32)
    return FileEmbeddings(vectors, np.stack([begins, ends], axis=1).astype(float))


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

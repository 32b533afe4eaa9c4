"""Running a file of `ast-export` in ONNX Runtime, and what is known of a model that is nothing but such a file.

Importing this imports neither torch nor transformers, and of other packages NumPy alone.
"""

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path

import numpy as np

from .audio import DEFAULT_RESAMPLER, AudioReader, checked_resampler, parse_channels
from .audio.resampling import WITHOUT_TORCH
from .checkpoints.fields import check_choices
from .features.kaldi import num_samples

FRAME_HEAD = "frames"  # in the metadata of a model that tells labels of frames, under "head"
WAVEFORM = "waveform"  # in the metadata of a graph that takes samples, under "input"


@dataclass
class ExportedConfig:
    """What the engine asks of a model's configuration, with the names and the meaning that it has in [`ASTConfig`].

    Raises:
        ValueError: if a threshold or a rule of events cannot be, or is of no label.
    """

    id2label: dict[int, str]
    max_length: int
    num_mel_bins: int
    patch_size: int
    frequency_stride: int
    time_stride: int
    problem_type: str
    label_thresholds: dict | None = None
    event_rules: dict | None = None
    hidden_size: int | None = None

    def __post_init__(self):
        self.id2label = {int(index): label for index, label in self.id2label.items()}
        check_choices(self)

    @property
    def num_labels(self) -> int:
        """How many labels there are."""
        return len(self.id2label)

    def forget_choices(self):
        """Drop what was chosen for the labels of these weights."""
        self.label_thresholds = self.event_rules = None

    def to_dict(self) -> dict:
        """Give the fields by name."""
        return asdict(self)


@dataclass(frozen=True)
class ExportedHearing:
    """What the engine asks of a feature extractor, of a model whose graph computes features itself.

    Names and meaning are those of [`ASTFeatureExtractor`].

    Raises:
        ValueError: if there is no such choice of channels, or no such resampler.
    """

    sampling_rate: int
    num_mel_bins: int
    max_length: int
    channels: str | int = "mean"
    resampler: str = DEFAULT_RESAMPLER

    def __post_init__(self):
        object.__setattr__(self, "channels", parse_channels(self.channels))
        checked_resampler(self.resampler)

    @property
    def max_samples(self) -> int:
        """Samples of a window: the fewest that give `max_length` frames."""
        return num_samples(self.max_length, self.sampling_rate)

    def audio_reader(self, **settings) -> AudioReader:
        """Make the reader by which audio files become what the model hears.

        Args:
            settings: of [`AudioReader`], in place of the file's own.

        Returns:
            [`AudioReader`].
        """
        own = {"sampling_rate": self.sampling_rate, "channels": self.channels, "resampler": self.resampler}
        own["resampler"] = WITHOUT_TORCH.get(self.resampler, self.resampler)
        return AudioReader(**own | settings)

    def to_dict(self) -> dict:
        """Give the fields by name."""
        return asdict(self)


def threads_wanted() -> int:
    """Tell how many threads a session has: those of `OMP_NUM_THREADS`, as PyTorch's.

    Returns:
        Threads; 0 leaves it to ONNX Runtime, which takes one for each core.
    """
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    return int(wanted) if wanted.isascii() and wanted.isdigit() else 0


def open_file(model: bytes | str | Path, threads: int | None = None):
    """Open an ONNX Runtime session on the CPU.

    Args:
        model (`bytes`, `str` or `Path`): the file, or its content.
        threads (`int`, *optional*): for it; those of [`threads_wanted`] if not given.

    Returns:
        `onnxruntime.InferenceSession`.
    """
    onnxruntime = import_module("onnxruntime")  # which a Space, whose model is a folder, does without
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads_wanted() if threads is None else threads
    options.log_severity_level = 3  # errors
    given = model if isinstance(model, bytes) else str(model)
    return onnxruntime.InferenceSession(given, options, providers=["CPUExecutionProvider"])


def joined_waveforms(clips: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """Make a batch of clips for a graph that takes samples.

    Args:
        clips (sequence of `np.ndarray` of shapes `(samples,)`): float32.

    Returns:
        `waveform` of shape `(clips, samples)` and `lengths` of shape `(clips,)`.
    """
    lengths = np.array([len(clip) for clip in clips], np.int64)
    batch = np.zeros((len(clips), lengths.max()), np.float32)
    for row, clip in zip(batch, clips, strict=True):
        row[: len(clip)] = clip
    return {"waveform": batch, "lengths": lengths}


def run_session(session, inputs: dict[str, np.ndarray]) -> np.ndarray:
    """Run a graph.

    Args:
        session (`onnxruntime.InferenceSession`): from [`open_file`].
        inputs (`dict[str, np.ndarray]`): `input_values` of shape `(batch, frames, mel bins)`, float32, and
            `attention_mask` of shape `(batch, frames)`, int64; or what [`joined_waveforms`] gives.

    Returns:
        The logits or scores, `np.ndarray` of shape `(batch, labels)`, or `(batch, columns, labels)` of a frame head.
    """
    return session.run(None, inputs)[0]

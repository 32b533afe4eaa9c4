"""A model without PyTorch: files of `ast-export --waveform` in ONNX Runtime, with the engine of `ast-tag`.

Importing this and tagging with it imports neither torch nor transformers: `pip install onnxruntime numpy soundfile soxr` is all.
"""

import os

from .checkpoints.fields import CheckpointError
from .tagging.backends import OnnxBackend, is_onnx
from .tagging.tagger import AudioTagger, TaggingError

__all__ = ["CheckpointError", "OnnxTagger", "TaggingError"]


class OnnxTagger(AudioTagger):
    """An [`AudioTagger`] of a file that takes samples.

    Its `tag_files` and `tag_stream` are those of [`AudioTagger`]: windows, events and results are the same.

    Args:
        path (`str` or `os.PathLike`): a file of `ast-export --waveform`, with a head of clips or of frames.
        channels (`str` or `int`, *optional*): which channels of files are heard, if not those of the file; see [`AudioReader`].

    Raises:
        CheckpointError: if there is no such file, it is none that `ast-export` wrote, or one that takes features.
        TaggingError: if ONNX Runtime is not installed.
    """

    def __init__(self, path: str | os.PathLike, channels: str | int | None = None):
        if not is_onnx(path):
            raise CheckpointError(f"{path} does not end in .onnx. Pass a file of ast-export --waveform.")
        backend = OnnxBackend(path)
        if not backend.takes_waveforms:
            raise CheckpointError(
                f"{path} takes features, which PyTorch computes. Export it again with ast-export --waveform, or use "
                "modeling_ast.tagging.AudioTagger."
            )
        super().__init__(backend, backend.feature_extractor(channels))

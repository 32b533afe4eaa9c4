"""A model without PyTorch: files of `ast-export --waveform` in ONNX Runtime, with the engine of `ast-tag`.

Importing this and tagging with it imports neither torch nor transformers: `pip install onnxruntime numpy soundfile soxr` is all.
"""

import os

from .checkpoints.fields import CheckpointError
from .loading import FRAMES_REFUSED
from .tagging.backends import OnnxBackend, is_onnx, refuse_pytorch_settings
from .tagging.tagger import AudioTagger, TaggingError

__all__ = ["CheckpointError", "OnnxTagger", "TaggingError"]


class OnnxTagger(AudioTagger):
    """An [`AudioTagger`] of a file that takes samples.

    Its `tag_files` and `tag_stream` are those of [`AudioTagger`]: windows, events and results are the same.

    Args:
        path (`str` or `os.PathLike`): a file of `ast-export --waveform`, with a head of clips or of frames.
        channels (`str` or `int`, *optional*): which channels of files are heard, if not those of the file: `"mean"`, `"left"`,
            `"right"`, or the number of one, counted from 1.
        refused (`frozenset[str]`, *optional*): kinds of notes that are errors; see [`AudioReader`].

    Raises:
        CheckpointError: if there is no such file, it is none that `ast-export` wrote, or one that takes features.
        TaggingError: if ONNX Runtime is not installed.
        ValueError: if there is no such choice of channels; the message says which there are.
    """

    def __init__(
        self, path: str | os.PathLike, channels: str | int | None = None, refused: frozenset[str] = frozenset()
    ):
        if not is_onnx(path):
            raise CheckpointError(
                f"{path} does not end in .onnx. Pass a file of ast-export --waveform, or load a model folder with "
                "modeling_ast.tagging.AudioTagger.from_pretrained."
            )
        backend = OnnxBackend(path)
        if not backend.takes_waveforms:
            raise CheckpointError(
                f"{path} takes features, which PyTorch computes. Export it again with ast-export --waveform, or use "
                "modeling_ast.tagging.AudioTagger."
            )
        feature_extractor = backend.feature_extractor(channels)
        super().__init__(backend, feature_extractor, reader=feature_extractor.audio_reader(refused=refused))

    @classmethod
    def from_pretrained(
        cls,
        model_name_or_path: str | os.PathLike,
        device: str = "auto",
        channels: str | int | None = None,
        refused: frozenset[str] = frozenset(),
        tokens_merged_per_layer: int = 0,
        compiled: bool = False,
        frame_heads: bool = True,
    ) -> "OnnxTagger":
        """As the class itself, with the arguments of [`AudioTagger.from_pretrained`].

        Args:
            model_name_or_path (`str` or `os.PathLike`): see the class.
            device (`str`, *optional*, defaults to `"auto"`): that or `"cpu"`.
            channels (`str` or `int`, *optional*): see the class.
            refused (`frozenset[str]`, *optional*): see the class.
            tokens_merged_per_layer (`int`, defaults to 0): of models in PyTorch; nothing else is taken.
            compiled (`bool`, *optional*, defaults to `False`): of models in PyTorch; nothing else is taken.
            frame_heads (`bool`, *optional*, defaults to `True`): whether a file with a head of frames is taken.

        Returns:
            [`OnnxTagger`].

        Raises:
            CheckpointError, TaggingError, ValueError: see the class; also a `TaggingError` for what only PyTorch can.
        """
        tagger = cls(model_name_or_path, channels, refused)
        refuse_pytorch_settings(model_name_or_path, device, tokens_merged_per_layer, compiled)
        if tagger.backend.tells_frames and not frame_heads:
            raise CheckpointError(f"{model_name_or_path} cannot be used: {FRAMES_REFUSED}")
        return tagger

"""The export of a checkpoint folder: loaded and checked once, for a file as for a page, and written with the weights that are wanted."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .quantization import QuantizationReport


@dataclass(frozen=True)
class ExportSettings:
    """What is made of a checkpoint.

    Args:
        waveform (`bool`, *optional*, defaults to `False`): see [`export_onnx`].
        float16 (`bool`, *optional*, defaults to `False`): see [`export_onnx`]; not with `int8`.
        int8 (`bool`, *optional*, defaults to `False`): whether weights are 8-bit, see [`export_quantized_onnx`].
        clips (sequence of `Path`, *optional*): files on which `int8` is compared with float32; synthetic sounds if there are none.
        channels (`str` or `int`, *optional*): which channels of `clips` are heard, if not those of the checkpoint. What is
            exported goes on hearing those of the checkpoint.
        with_figures (`bool`, *optional*, defaults to `True`): whether the card's figures, and the data sets that they name, are told
            by a file that takes samples.
    """

    waveform: bool = False
    float16: bool = False
    int8: bool = False
    clips: Sequence[Path] = ()
    channels: str | int | None = None
    with_figures: bool = True


def export_checkpoint(
    checkpoint_dir: str | os.PathLike, path: str | os.PathLike, settings: ExportSettings
) -> "float | QuantizationReport":
    """Write a checkpoint folder as an ONNX file.

    Args:
        checkpoint_dir (`str` or `os.PathLike`): folder of a fine-tuned model, with a head of clips or of frames.
        path (`str` or `os.PathLike`): file to write or replace.
        settings ([`ExportSettings`]): what is made of it.

    Returns:
        What [`export_onnx`] gives, or with `int8` what [`export_quantized_onnx`] gives.

    Raises:
        ValueError: if the model cannot be loaded or exported, or a clip cannot be used.
    """
    from .export_onnx import card_facts, export_onnx, import_packages
    from .quantization import export_quantized_onnx, read_clips
    from .tagging.tagger import AudioTagger

    import_packages()
    # Checks that model and extractor fit.
    loaded = AudioTagger.from_pretrained(checkpoint_dir, "cpu", frame_heads=True)
    model, feature_extractor, waveform = loaded.model, loaded.feature_extractor, settings.waveform
    facts = card_facts(checkpoint_dir) if waveform else {}
    if not settings.with_figures:
        facts.pop("figures", None)
    if not settings.int8:
        return export_onnx(model, feature_extractor, path, waveform, settings.float16, facts)
    clips = read_clips(settings.clips, feature_extractor, waveform, settings.channels) if settings.clips else None
    return export_quantized_onnx(model, feature_extractor, path, clips, waveform, facts)

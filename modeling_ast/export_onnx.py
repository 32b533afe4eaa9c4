"""ONNX export of AST, checked against PyTorch.

The graph takes `input_values` of shape `(batch, frames, mel bins)` and `attention_mask` of shape `(batch, frames)` with
any batch and any number of frames from one patch on, and returns `logits`. Positions and masks are part of the graph, so
each clip of a padded batch gets the logits that it gets alone. Logits are of clips, `(batch, labels)`, or of the columns of the patch
grid, `(batch, columns, labels)`, by the model's head. The mask is int64, as the feature extractor returns it
and as the ONNX files on the Hub take it: what the extractor gives goes in unchanged. What is needed beside the graph
(how features are computed, normalised and padded, how logits become scores, labels and their thresholds) is in the file's
`metadata_props`, see [`describe`].

With `waveform` the graph takes samples and gives scores: see [`modeling_ast.waveform_graph`]. What a protobuf message cannot hold
goes into a file of weights beside the graph.
"""

import copy
import json
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import torch
from torch import nn
from transformers.utils import PaddingStrategy

from .checkpoints.folder import weights_beside, weights_of
from .feature_extraction_ast import ASTFeatureExtractor
from .features.kaldi import (
    FRAME_LENGTH_MS,
    FRAME_SHIFT_MS,
    SMALLEST_ENERGY,
    fft_length,
    frame_length,
    frame_shift,
    kaldi_arguments,
    num_frames,
    num_samples,
)
from .features.padding import frame_mask
from .frame_classification import ASTForAudioFrameClassification
from .frame_columns import FrameColumns
from .modeling_ast import ASTForAudioClassification
from .onnx_attention import BY_PRODUCTS, IN_INTEGERS
from .onnx_sessions import FRAME_HEAD, WAVEFORM, joined_waveforms, open_file, run_session
from .scores import label_thresholds, problem_type_of, scores_from_logits
from .system.atomic_files import give_usual_mode, sync, temporary_folder
from .system.installation import install_command
from .waveform_graph import SCORES, heard_padding, with_waveform

OPSET = 20  # the exporter's own default, the first with Gelu; ONNX Runtime reads it from 1.17 on
IR_VERSION = (
    9  # of the file, as it came with that opset; the exporter writes 10, which ONNX Runtime reads from 1.18 on
)
TOLERANCE = 1e-4  # of the logits, in proportion where they are beyond 1: float32, summed in another order
LARGEST_FILE = 2**31 - 2**24  # bytes of weights beside which the graph has room in a protobuf message of 2 GB
TRACED_FRAMES_IN_PATCHES = 2  # of the example that the exporter traces; the graph is the same for any number

SCORES_IN_WORDS = {
    "multi_label_classification": "sigmoid of each logit; a label counts from its threshold in label_thresholds on",
    "single_label_classification": "softmax over the logits; the label with the highest one counts",
    "regression": "the logits themselves",
}
ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
FRAMES_IN_WORDS = (
    "{what} are (batch, columns, labels): of n frames of features there are (n - min_length) // time_stride + 1 columns; the "
    "first stands for the time up to first_frame_end, each next one for frame_seconds more, the last one for all up to the end; "
    "columns that reach into padding mean nothing"
)
Model = ASTForAudioClassification | ASTForAudioFrameClassification


class ExportError(ValueError):
    """A model that cannot be exported, or packages that are not there; the message says what to do about it."""


def export_onnx(
    model: Model,
    feature_extractor: ASTFeatureExtractor,
    path: str | Path,
    waveform: bool = False,
    float16: bool = False,
    facts: dict[str, str] | None = None,
) -> float:
    """Write a model as an ONNX file, after comparing it with PyTorch.

    Args:
        model ([`ASTForAudioClassification`] or [`ASTForAudioFrameClassification`]): of any dtype, on any device; it is left
            as it is.
        feature_extractor ([`ASTFeatureExtractor`]): the one that was saved with it; described in the file.
        path (`str` or `Path`): file to write or replace, complete or not at all. Weights beyond 2 GB lie beside it in one that
            ends in `.data`.
        waveform (`bool`, *optional*, defaults to `False`): whether the file takes samples and gives scores, in place of features
            and logits.
        float16 (`bool`, *optional*, defaults to `False`): whether the transformer's weights and values are float16; what goes in
            and comes out stays float32, and features are computed in it.
        facts (`dict[str, str]`, *optional*): more texts for the metadata, such as those of [`card_facts`].

    Returns:
        The largest difference between ONNX Runtime and PyTorch: of a logit, see [`check_against_pytorch`], or with `waveform` of
        a score, see [`check_scores_against_pytorch`].

    Raises:
        ExportError: if the ONNX packages are missing, the model is of another class, or ONNX Runtime gives other numbers; in
            float16 only if these are not finite.
    """
    exported, difference = checked_onnx(model, feature_extractor)
    plain = exported
    if float16:
        exported = to_float16(exported)
    if waveform:
        exported = waveform_onnx(exported, model, feature_extractor)
    add_metadata(exported, facts or {})
    if waveform:
        difference = check_scores_against_pytorch(exported, model, feature_extractor, exact=not float16)
    elif float16:
        difference = _difference_in_float16(exported, plain, model.config)
    save_onnx(exported, path)
    return difference


def waveform_onnx(exported, model: Model, feature_extractor: ASTFeatureExtractor):
    """Make of an exported transformer the graph from samples to scores.

    Args:
        exported (`onnx.ModelProto`): what [`checked_onnx`] gives, quantized or not.
        model ([`ASTForAudioClassification`]): see [`export_onnx`].
        feature_extractor ([`ASTFeatureExtractor`]): see [`export_onnx`].

    Returns:
        `onnx.ModelProto`, see [`with_waveform`].
    """
    entries = {entry.key: entry.value for entry in exported.metadata_props}
    entries |= describe_waveform(model, feature_extractor)
    return with_waveform(exported, model.config, feature_extractor, entries["problem_type"], entries)


def add_metadata(exported, entries: dict[str, str]):
    """Add to what a file says of itself.

    Args:
        exported (`onnx.ModelProto`): changed in place.
        entries (`dict[str, str]`): texts by name; those that are there already are replaced.
    """
    import onnx

    before = {entry.key: entry.value for entry in exported.metadata_props}
    onnx.helper.set_model_props(exported, before | entries)


def weight_bytes(exported) -> int:
    """Count the bytes of a graph's weights.

    Args:
        exported (`onnx.ModelProto`): the graph.

    Returns:
        Bytes. The message itself cannot be asked: it fails where it would be larger than 2 GB.
    """
    return sum(len(tensor.raw_data) for tensor in exported.graph.initializer)


def save_onnx(exported, path: str | Path):
    """Write a graph, with the weights beside it if one file does not hold them.

    Weights that are there already keep their place until the graph is replaced, so that at every moment a graph has its own.

    Args:
        exported (`onnx.ModelProto`): the graph.
        path (`str` or `Path`): file to write or replace, complete or not at all.
    """
    import onnx

    path = Path(path)
    before = [file for file in weights_beside(path) if os.path.lexists(file)]
    with temporary_folder(path.name, path.parent) as folder:
        new = folder / path.name
        if weight_bytes(exported) <= LARGEST_FILE:
            new.write_bytes(exported.SerializeToString())
        else:
            copied = onnx.ModelProto()
            copied.CopyFrom(exported)  # as saving takes the weights out of it
            onnx.save_model(copied, new, save_as_external_data=True, location=_place_for_weights(path).name)
        for file in sorted(folder.iterdir(), reverse=True):  # the weights first: with the graph they are what is used
            if file.name.startswith(path.name):
                sync(file)
                give_usual_mode(file)
                os.replace(file, path.parent / file.name)
        kept = {path.parent / name for name in _names_of_weights(path)}
    for file in before:  # of what was replaced
        if file not in kept:
            file.unlink(missing_ok=True)


def _place_for_weights(path: Path) -> Path:
    """Where new weights of a graph go: to a place that the graph which is there does not name."""
    places = weights_beside(path)
    taken = [place for place in places if os.path.lexists(place)]
    if len(taken) == len(places):  # an earlier run was killed
        named = _names_of_weights(path)
        taken = [place for place in places if place.name in named]
    return next(place for place in places if place not in taken)


def _names_of_weights(path: Path) -> set[str]:
    """The files beside it that a graph names for its weights."""
    if not any(map(os.path.lexists, weights_beside(path))):
        return set()
    try:
        return {file.name for file in weights_of(path)}
    except OSError:
        return set()


def to_float16(exported):
    """Convert a transformer to float16, but for what goes in and comes out.

    Args:
        exported (`onnx.ModelProto`): what [`checked_onnx`] gives; it is left as it is.

    Returns:
        `onnx.ModelProto`.
    """
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    copied = onnx.ModelProto()
    copied.CopyFrom(exported)
    with quiet_exporters():
        converted = convert_float_to_float16(copied, keep_io_types=True, disable_shape_infer=True)
        OnnxModel(converted).topological_sort(
            is_deterministic=True
        )  # casts stand at the end, which the standard does not allow
    add_metadata(converted, {"precision": "float16"})
    return converted


def _difference_in_float16(converted, plain, config) -> float:
    """The largest difference of a logit to that of the float32 file, in proportion where it is beyond 1."""
    generator = np.random.default_rng(0)
    values = generator.normal(0, 0.5, (2, config.max_length, config.num_mel_bins)).astype(np.float32)
    inputs = {"input_values": values, "attention_mask": np.ones(values.shape[:2], np.int64)}
    found, expected = (run_session(open_session(each), inputs) for each in (converted, plain))
    _refuse_infinite(found)
    return float((np.abs(found - expected) / np.maximum(1, np.abs(expected))).max())


def _refuse_infinite(found: np.ndarray):
    if not np.isfinite(found).all():
        raise ExportError(
            "In float16 the model gives numbers that are not finite: its values are beyond 65504. Nothing was written. Leave "
            "--float16 out."
        )


def check_scores_against_pytorch(
    exported, model: Model, feature_extractor: ASTFeatureExtractor, exact: bool = True
) -> float:
    """Compare a graph from samples to scores with feature extractor and model in PyTorch.

    Batches of one and three, of less than a patch up to more than the model's length, of odd numbers of samples. Each clip of a
    batch is compared with what it gets alone. Of longer ones than the model was trained on all is heard, as in
    `feature_extractor(..., truncation=False)`.

    Args:
        exported (`onnx.ModelProto`): the graph.
        model ([`ASTForAudioClassification`]): see [`export_onnx`].
        feature_extractor ([`ASTFeatureExtractor`]): see [`export_onnx`].
        exact (`bool`, *optional*, defaults to `True`): whether a difference beyond `TOLERANCE` is an error.

    Returns:
        The largest difference of a score.

    Raises:
        ExportError: if that exceeds `TOLERANCE`.
    """
    session, generator, largest = open_session(exported), np.random.default_rng(0), 0.0
    model = copy.deepcopy(model).to("cpu", torch.float32).eval()
    full, window = feature_extractor.max_samples, frame_length(feature_extractor.sampling_rate)
    for lengths in ((window + 1,), (full,), (full // 3 * 2 + 7, window * 8 + 5, full + full // 4 + 3)):
        clips = [
            (generator.normal(size=length) / 10 ** generator.uniform(1, 3)).astype(np.float32) for length in lengths
        ]
        found = run_session(session, joined_waveforms(clips))
        if not exact:
            _refuse_infinite(found)
        for clip, row in zip(clips, found, strict=True):
            expected = scores_in_pytorch(clip, model, feature_extractor)
            row = row if expected.ndim == 1 else row[: len(expected)]
            difference = float((np.abs(row - expected) / np.maximum(1, np.abs(expected))).max())
            if exact and not difference <= TOLERANCE:
                raise ExportError(
                    f"From samples ONNX Runtime {version('onnxruntime')} and PyTorch differ by {difference:.2g}, allowed is "
                    f"{TOLERANCE}: a clip of {len(clip)} samples in a batch of {len(lengths)}. Nothing was written. Try other "
                    f"versions: pip install --upgrade {' '.join(ONNX_PACKAGES)}"
                )
            largest = max(largest, difference)
    return largest


def scores_in_pytorch(clip: np.ndarray, model: Model, feature_extractor: ASTFeatureExtractor) -> np.ndarray:
    """Score a clip, all of it, by feature extractor and model.

    Args:
        clip (`np.ndarray` of shape `(samples,)`): at the extractor's sampling rate.
        model ([`ASTForAudioClassification`]): in float32, on the CPU, in evaluation mode.
        feature_extractor ([`ASTFeatureExtractor`]): its own.

    Returns:
        `np.ndarray` of shape `(labels,)`, or `(columns, labels)` of those columns that hold no padding, where that is masked.
    """
    inputs = feature_extractor(
        clip, sampling_rate=feature_extractor.sampling_rate, truncation=False, return_tensors="pt"
    )
    if not heard_padding(feature_extractor):
        real = num_frames(len(clip), feature_extractor.sampling_rate)
        inputs = {"input_values": inputs["input_values"][:, : max(real, model.config.patch_size)]}
    with torch.inference_mode():
        return scores_from_logits(model(**inputs).logits, problem_type_of(model.config))[0].numpy()


def check_against_pytorch(content, model: Model) -> float:
    """Compare an exported model with PyTorch: batches of one and three, short, of the trained length, and longer.

    Each clip of a padded batch is compared with what PyTorch gives for that clip alone, without a mask, unpadded but for
    a clip shorter than a patch.

    Args:
        content (`bytes` or `onnx.ModelProto`): the ONNX file.
        model ([`ASTForAudioClassification`]): in float32, on the CPU, in evaluation mode.

    Returns:
        The largest difference of a logit, in proportion to it where it is beyond 1.

    Raises:
        ExportError: if that exceeds `TOLERANCE`; it names batch, clip and both logits. Also if the model's logits are not
            finite.
    """
    session = open_session(content)
    config = model.config
    patch, trained = config.patch_size, config.max_length
    longer, shorter = trained * 3 // 2, max(98, patch)
    batches = [(patch,), (trained,), (shorter, shorter // 2, 1), (longer, trained, 10)]  # real frames of each clip
    generator = torch.Generator().manual_seed(0)
    largest = 0.0
    for lengths in batches:
        values = torch.randn(len(lengths), max(lengths), config.num_mel_bins, generator=generator) / 2
        mask = frame_mask(torch.tensor(lengths), max(lengths)).to(torch.int64)
        found = run_session(session, {"input_values": values.numpy(), "attention_mask": mask.numpy()})
        for clip, frames in enumerate(lengths):
            alone = slice(clip, clip + 1), slice(max(frames, patch))
            with torch.inference_mode():
                expected = model(values[alone]).logits[0]
            expected = expected.numpy()
            if not np.isfinite(expected).all():
                raise ExportError(
                    f"The model itself gives logits that are no numbers ({expected[~np.isfinite(expected)][0]}): its weights "
                    "are at fault. Nothing was written. Pass an earlier checkpoint, or train again with a lower learning "
                    "rate."
                )
            of_clip = (
                found[clip] if expected.ndim == 1 else found[clip, : len(expected)]
            )  # behind are columns of padding
            of_clip, expected = of_clip.ravel(), expected.ravel()
            differences = np.abs(of_clip - expected) / np.maximum(1, np.abs(expected))
            worst = differences.argmax()
            if not differences[worst] <= TOLERANCE:
                raise ExportError(
                    f"ONNX Runtime {version('onnxruntime')} and PyTorch differ by {differences[worst]:.2g}, allowed is "
                    f"{TOLERANCE}: logit {worst} of clip {clip} ({frames} of {max(lengths)} frames, batch of "
                    f"{len(lengths)}) is {of_clip[worst]:.6g} in place of {expected[worst]:.6g}. Nothing was "
                    f"written. Try other versions: pip install --upgrade {' '.join(ONNX_PACKAGES)}"
                )
            largest = max(largest, float(differences[worst]))
    return largest


def describe(model: Model, feature_extractor: ASTFeatureExtractor) -> dict[str, str]:
    """Describe what a user of the file needs beside the graph, as its `metadata_props`: strings, JSON where it is a
    table.

    With them alone the features can be computed: `filter_bank` holds the arguments of
    `torchaudio.compliance.kaldi.fbank`, `normalization` the formula, `padding_rule` what is done before it and what the
    mask says.

    Args:
        model ([`ASTForAudioClassification`]): see [`export_onnx`].
        feature_extractor ([`ASTFeatureExtractor`]): see [`export_onnx`].

    Returns:
        Texts by name.
    """
    config = model.config
    problem_type, sampling_rate = problem_type_of(config), feature_extractor.sampling_rate
    filter_bank = kaldi_arguments(sampling_rate, config.num_mel_bins)
    entries = {
        "model_type": config.model_type,
        "id2label": json.dumps(config.id2label, ensure_ascii=False),
        "problem_type": problem_type,
        "scores": SCORES_IN_WORDS[problem_type],
        "waveform": "one channel, float32 in [-1, 1] (16-bit samples / 32768), not normalized",
        "channels": json.dumps(feature_extractor.channels),
        "sampling_rate": str(sampling_rate),
        "resampler": feature_extractor.audio_reader().resampler,
        "features": "log-mel energies (natural logarithm) of Kaldi: torchaudio.compliance.kaldi.fbank(waveform, **filter_bank)",
        "filter_bank": json.dumps(filter_bank),
        "window_ms": str(FRAME_LENGTH_MS),
        "window_samples": str(frame_length(sampling_rate)),
        "hop_ms": str(FRAME_SHIFT_MS),
        "hop_samples": str(frame_shift(sampling_rate)),
        "fft_length": str(fft_length(sampling_rate)),
        "smallest_energy": str(SMALLEST_ENERGY),
        "num_mel_bins": str(config.num_mel_bins),
        "max_length": str(config.max_length),
        "max_length_unit": "frames",
        "max_length_samples": str(num_samples(config.max_length, sampling_rate)),
        "min_length": str(config.patch_size),
        "frequency_stride": str(config.frequency_stride),
        "time_stride": str(config.time_stride),
        "padding": str(feature_extractor.padding),
        "padding_value": str(feature_extractor.padding_value),
        "return_attention_mask": json.dumps(feature_extractor.return_attention_mask),
        "padding_rule": _padding_in_words(feature_extractor, config.patch_size),
        "do_normalize": json.dumps(feature_extractor.do_normalize),
        "mean": str(feature_extractor.mean),
        "std": str(feature_extractor.std),
        "normalization": "(x - mean) / (2 * std)" if feature_extractor.do_normalize else "x",
        "versions": json.dumps(producing_versions()),
    }
    if isinstance(model, ASTForAudioFrameClassification):
        columns = FrameColumns.of(config)
        entries |= {
            "head": FRAME_HEAD,
            "frame_seconds": str(columns.seconds),
            "first_frame_end": str(columns.first_edge + columns.seconds),
            "frames": FRAMES_IN_WORDS.format(what="logits"),
        }
    if problem_type == "multi_label_classification":
        thresholds = zip(config.id2label.values(), label_thresholds(config).tolist(), strict=True)
        entries["label_thresholds"] = json.dumps(dict(thresholds), ensure_ascii=False)
    if config.event_rules:
        entries["event_rules"] = json.dumps(config.event_rules, ensure_ascii=False)
    return entries


def describe_waveform(model: Model, feature_extractor: ASTFeatureExtractor) -> dict[str, str]:
    """Describe what a file that takes samples says otherwise, or besides: see [`describe`].

    Args:
        model ([`ASTForAudioClassification`]): see [`export_onnx`].
        feature_extractor ([`ASTFeatureExtractor`]): see [`export_onnx`].

    Returns:
        Texts by name. `window_seconds` and `hop_seconds` are those of `ast-tag`'s time line: what is scored at once, and how far
        apart such windows begin.
    """
    rate, config = feature_extractor.sampling_rate, model.config
    samples = feature_extractor.max_samples
    is_of_frames = isinstance(model, ASTForAudioFrameClassification)
    step = frame_shift(rate) * (config.time_stride if is_of_frames else 1)
    hop = max(samples // 2 // step, 1) * step  # as modeling_ast.tagging's
    entries = {
        "input": WAVEFORM,
        "inputs": "waveform is (batch, samples), float32; lengths is (batch,), int64: how many samples of each row are the clip's. "
        "Nothing is cut: what is longer than max_length_samples is heard as a whole, with positions stretched to it; cut it into "
        "windows of max_length_samples to have what ast-tag gives",
        "output": SCORES,
        "scores": {
            "multi_label_classification": "sigmoid of each logit; a label counts from its threshold in label_thresholds on",
            "single_label_classification": "softmax; the label with the highest one counts",
            "regression": "the outputs themselves",
        }[problem_type_of(config)],
        "window_seconds": str(samples / rate),
        "hop_seconds": str(hop / rate),
    }
    if is_of_frames:
        entries["frames"] = FRAMES_IN_WORDS.format(what="scores")
    return entries


def card_facts(checkpoint_dir: str | Path) -> dict[str, str]:
    """Read licence and figures of a checkpoint folder's model card, as far as it has one.

    Args:
        checkpoint_dir (`str` or `Path`): the folder.

    Returns:
        `license` and `figures`, the latter a JSON list of `{"dataset", "split", "metric", "value"}`; what is unknown is left out.
    """
    import yaml
    from huggingface_hub import ModelCard

    try:
        data = ModelCard((Path(checkpoint_dir) / "README.md").read_text(encoding="utf-8")).data
    except (OSError, ValueError, yaml.YAMLError):  # none, or none that can be read: the file says nothing of it then
        return {}
    facts = {"license": data.license} if isinstance(data.license, str) else {}
    figures = [
        {
            "dataset": result.dataset_name,
            "split": result.dataset_split,
            "metric": result.metric_name or result.metric_type,
            "value": result.metric_value,
        }
        for result in data.eval_results or ()
    ]
    return facts | ({"figures": json.dumps(figures, ensure_ascii=False, default=str)} if figures else {})


def _padding_in_words(feature_extractor: ASTFeatureExtractor, patch_size: int) -> str:
    """What [`clip_inputs`] does with a clip, told without this project."""
    to_the_longest = feature_extractor.padding != PaddingStrategy.MAX_LENGTH.value
    length = f"those of the longest clip of a batch, at least {patch_size}" if to_the_longest else "max_length"
    mask = "1 for frames of the clip, 0 for padding"
    if not (to_the_longest or feature_extractor.return_attention_mask):
        mask = "1 for all frames, as in training those of the padding were heard too"
    return (
        f"clips are cut to max_length frames, then frames of padding_value are appended up to {length}, then all are "
        f"normalized; attention_mask is {mask}"
    )


def producing_versions() -> dict[str, str]:
    """Look up the versions of the packages that make the file; without this project where it runs from a checkout.

    Returns:
        Versions by package.
    """
    versions = {}
    for package in ("ast-kit", "torch", "transformers", *ONNX_PACKAGES):
        with suppress(PackageNotFoundError):
            versions[package] = version(package)
    return versions


def clip_inputs(waveform: np.ndarray, feature_extractor: ASTFeatureExtractor) -> dict[str, np.ndarray]:
    """Inputs of the graph for one waveform, padded or not as the feature extractor is set.

    Args:
        waveform (`np.ndarray` of shape `(samples,)`): at the extractor's sampling rate.
        feature_extractor ([`ASTFeatureExtractor`]): the model's own.

    Returns:
        `input_values` of shape `(1, frames, mel bins)` and `attention_mask` of shape `(1, frames)`: all ones if the
        extractor returns none, because then the model was trained on its padding.

    Raises:
        ValueError: if the waveform is shorter than one analysis window.
    """
    features = feature_extractor(waveform, sampling_rate=feature_extractor.sampling_rate, return_tensors="np")
    values = features["input_values"]
    mask = features.get("attention_mask", np.ones(values.shape[:2], dtype=np.int64))
    return {"input_values": values, "attention_mask": mask}


def import_packages() -> None:
    """Make sure that the packages are there that the rest of this project does without.

    Raises:
        ExportError: if one cannot be imported.
    """
    for package in ONNX_PACKAGES:
        try:
            import_module(package)
        except ImportError as error:
            raise ExportError(
                f"The ONNX export needs {package}, which cannot be imported ({error}). Type: {install_command('onnx')}"
            ) from error


class _LogitsOnly(nn.Module):
    """The graph's signature: two tensors in, one out."""

    def __init__(self, model: Model):
        super().__init__()
        self.model = model

    def forward(self, input_values: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """`(batch, frames, mel bins)` and `(batch, frames)` to `(batch, labels)` or `(batch, columns, labels)`."""
        return self.model(input_values, attention_mask=attention_mask).logits


def checked_onnx(model, feature_extractor: ASTFeatureExtractor) -> tuple:
    """Export a model into memory and compare what ONNX Runtime makes of it with PyTorch.

    Args:
        model ([`ASTForAudioClassification`]): of any dtype, on any device; it is left as it is.
        feature_extractor ([`ASTFeatureExtractor`]): the one that was saved with it; described in the file.

    Returns:
        The float32 graph, `onnx.ModelProto`, and the largest difference of a logit, see [`check_against_pytorch`].

    Raises:
        ExportError: as [`export_onnx`].
    """
    import_packages()
    if not isinstance(model, Model):
        raise ExportError(
            f"The model is a {type(model).__module__}.{type(model).__name__}, expected this project's "
            "ASTForAudioClassification. Load it with modeling_ast.ASTForAudioClassification.from_pretrained."
        )
    if model.tokens_merged_per_layer:
        raise ExportError(
            f"The model merges {model.tokens_merged_per_layer} tokens a layer, which a graph for any number of frames cannot "
            "hold. Call its merge_tokens(0) first."
        )
    model = copy.deepcopy(model).to("cpu", torch.float32).eval()
    exported = _to_onnx(model, describe(model, feature_extractor), BY_PRODUCTS)
    model.set_attn_implementation("sdpa")  # as everywhere else, not what was exported
    return exported, check_against_pytorch(exported, model)


def onnx_with_integer_scores(model: Model, feature_extractor: ASTFeatureExtractor):
    """Export a model whose attention scores are products of 8-bit integers, see [`attention_in_integers`].

    Args:
        model ([`ASTForAudioClassification`]): that [`checked_onnx`] has taken; it is left as it is.
        feature_extractor ([`ASTFeatureExtractor`]): the one that was saved with it; described in the file.

    Returns:
        `onnx.ModelProto`, rounded and so not compared with PyTorch.
    """
    model = copy.deepcopy(model).to("cpu", torch.float32).eval()
    return _to_onnx(model, describe(model, feature_extractor), IN_INTEGERS)


def _to_onnx(model: Model, metadata: dict[str, str], attention: str):
    import onnx

    config = model.config
    model.set_attn_implementation(attention)
    values = torch.zeros(2, TRACED_FRAMES_IN_PATCHES * config.patch_size, config.num_mel_bins)
    mask = torch.ones(values.shape[:2], dtype=torch.int64)
    any_size = {0: torch.export.Dim("batch", min=1), 1: torch.export.Dim("frames", min=config.patch_size)}
    with quiet_exporters():
        program = torch.onnx.export(
            _LogitsOnly(model),
            (values, mask),
            input_names=["input_values", "attention_mask"],
            output_names=["logits"],
            dynamic_shapes={"input_values": any_size, "attention_mask": any_size},
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    exported = program.model_proto
    exported.ir_version = IR_VERSION
    # The exporter notes for each node which lines of which files of this machine it comes from.
    graph = exported.graph
    for item in (graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        item.ClearField("metadata_props")
    onnx.helper.set_model_props(exported, metadata)
    return exported


def open_session(model):
    """Open an ONNX Runtime session on the CPU with as many threads as PyTorch has.

    Args:
        model (`bytes`, `Path` or `onnx.ModelProto`): the file's content, the file, or the graph.

    Returns:
        `onnxruntime.InferenceSession`.
    """
    threads = torch.get_num_threads()
    if isinstance(model, bytes | str | Path):
        return open_file(model, threads)
    if weight_bytes(model) <= LARGEST_FILE:
        return open_file(model.SerializeToString(), threads)
    with temporary_folder("model.onnx") as folder:
        save_onnx(model, folder / "model.onnx")
        return open_file(folder / "model.onnx", threads)


@contextmanager
def quiet_exporters() -> Iterator[None]:
    """Keep exporter and quantizer from warning of things that the check settles; through loggers of several names.

    Returns:
        A context manager; afterwards warnings and loggers are as before.
    """
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)

"""What scores windows: features in, probabilities out. PyTorch, plain or compiled, and ONNX Runtime do it, each by a class here.

The engine knows of a model its configuration (labels, kind of problem, thresholds, geometry), the device that features are
computed on, and [`TorchBackend.probabilities`]; a further runtime is a class with these.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from ..audio import parse_channels
from ..checkpoints.fields import CHOICES, CONFIG_FILE_FIELDS, EXTRACTOR_FIELDS, LABELS, CheckpointError, check_fields
from ..checkpoints.folder import weights_of
from ..features.kaldi import num_samples
from ..onnx_sessions import (
    FRAME_HEAD,
    ExportedConfig,
    ExportedHearing,
    joined_waveforms,
    open_file,
    run_session,
)
from ..scores import problem_type_of, scores_from_logits
from ..system.installation import install_command
from ..system.regular_files import SpecialFileError, only_files
from .embeddings import WindowVectors, logits_and_pooled, logits_and_vectors
from .errors import TaggingError

ONNX_SUFFIX = ".onnx"
# Fields of a configuration and of a feature extractor by their names in the metadata that `ast-export` writes, which are
# texts or, where so marked, JSON.
_OF_CONFIG = {
    "id2label": "id2label",
    "max_length": "max_length",
    "num_mel_bins": "num_mel_bins",
    "min_length": "patch_size",
    "frequency_stride": "frequency_stride",
    "time_stride": "time_stride",
}
_OF_EXTRACTOR = (
    "sampling_rate",
    "num_mel_bins",
    "max_length",
    "padding_value",
    "do_normalize",
    "mean",
    "std",
    "return_attention_mask",
)
_TEXTS_OF_EXTRACTOR = ("padding", "resampler")


class TorchBackend:
    """A model in PyTorch.

    Args:
        model ([`ASTForAudioClassification`]): with a trained classifier.
        device (`str`, *optional*, defaults to `"auto"`): see [`choose_device`].
        compiled (`bool`, *optional*, defaults to `False`): whether what `torch.compile` makes of it scores.

    Attributes:
        config ([`ASTConfig`]): what is known of the model.
        device (`torch.device`): where features are computed.
        problem_type (`str`): see [`problem_type_of`].
        tells_frames (`bool`): whether probabilities are of columns of the patch grid, not of windows.
        takes_waveforms (`bool`): whether windows come as samples, not as features.
        without_vectors (`str`, *optional*): why it gives no vectors beside probabilities, if that is so.

    Raises:
        TaggingError: if the device is not there, or the model cannot be compiled.
    """

    takes_waveforms = False

    def __init__(self, model, device: str = "auto", compiled: bool = False):
        from ..frame_classification import ASTForAudioFrameClassification

        self.device = choose_device(device)
        self.model = model.to(self.device).eval()
        self.config = model.config
        self.problem_type = problem_type_of(model.config)
        self.tells_frames = isinstance(model, ASTForAudioFrameClassification)
        self.without_vectors = "What --compile makes gives scores alone. Leave it out." if compiled else None
        self._call = _compiled(self.model) if compiled else self.model

    def probabilities(self, inputs) -> np.ndarray:
        """Score windows.

        Args:
            inputs ([`BatchFeature`]): what the feature extractor made of them: `input_values` of shape
                `(windows, frames, mel bins)` and perhaps `attention_mask`.

        Returns:
            `np.ndarray` of shape `(windows, labels)`, float32; of a frame head `(windows, columns, labels)`.
        """
        import torch

        with torch.inference_mode():
            logits = self._call(**inputs.to(self.device)).logits
        return scores_from_logits(logits, self.problem_type).cpu().numpy()

    def probabilities_and_pooled(self, inputs) -> tuple[np.ndarray, np.ndarray]:
        """Score windows, and give what the classifier reads of each.

        Args:
            inputs ([`BatchFeature`]): see [`TorchBackend.probabilities`].

        Returns:
            `np.ndarray` of shape `(windows, labels)`, and one of shape `(windows, hidden)`; float32.
        """
        import torch

        with torch.inference_mode():
            logits, pooled = logits_and_pooled(self.model, inputs.to(self.device))
        return scores_from_logits(logits, self.problem_type).cpu().numpy(), pooled.float().cpu().numpy()

    def probabilities_and_vectors(
        self, inputs, kind: str, places: Sequence[tuple[int, int]], sampling_rate: int
    ) -> tuple[np.ndarray, list[WindowVectors]]:
        """Score windows and take their vectors in the same pass.

        Args:
            inputs ([`BatchFeature`]): see [`TorchBackend.probabilities`].
            kind (`str`): see [`logits_and_vectors`].
            places (sequence of `(int, int)`): see [`logits_and_vectors`].
            sampling_rate (`int`): in Hz.

        Returns:
            `np.ndarray` of shape `(windows, labels)`, float32, and a list of [`WindowVectors`].
        """
        import torch

        with torch.inference_mode():
            logits, vectors = logits_and_vectors(self.model, inputs.to(self.device), kind, places, sampling_rate)
        return scores_from_logits(logits, self.problem_type).cpu().numpy(), vectors

    def contents(self) -> Iterator[tuple[str, memoryview | bytes]]:
        """Give what tells this model from all others, besides its configuration.

        Yields:
            Names and bytes of its weights.
        """
        for name, tensor in sorted(self.model.state_dict().items()):
            yield name, tensor.cpu().contiguous().numpy().data


class OnnxBackend:
    """A file of `ast-export` in ONNX Runtime, on the CPU; attributes as of [`TorchBackend`].

    Args:
        path (`str` or `os.PathLike`): the file, whose metadata say how it is to be used.
        device (`str`, *optional*, defaults to `"auto"`): that or `"cpu"`.

    Attributes:
        extractor_fields (`dict`): arguments of the [`ASTFeatureExtractor`] that computes its features.
        takes_waveforms (`bool`): whether the graph computes them itself, so that neither torch nor transformers is imported.

    Raises:
        CheckpointError: if there is no such file, it is no ONNX file, none that `ast-export` wrote, or what it says of itself
            contradicts itself or its graph.
        TaggingError: if ONNX Runtime is not installed, or for another device.
    """

    model = None
    without_vectors = (
        "An ONNX file gives scores alone. Pass --model_name_or_path with the folder that it was exported from."
    )

    def __init__(self, path: str | os.PathLike, device: str = "auto"):
        self._content_digest = _digest_of(path)
        refuse_pytorch_settings(path, device)
        self._session = _session_of(path)
        entries = self._session.get_modelmeta().custom_metadata_map
        self.takes_waveforms = _takes_waveforms(self._session, path)
        config, self.extractor_fields = _fields_of(entries, path)
        if not self.takes_waveforms and find_spec("torch") is None:
            raise TaggingError(
                f"{path} takes features, which PyTorch computes, and that is not installed here. Export it again with "
                "ast-export --waveform."
            )
        self.tells_frames = entries.get("head") == FRAME_HEAD
        self._path = path
        with _errors_of_metadata(path):
            self.config = self._config_of(config)
            self.feature_extractor()
            _check_against_graph(self._session, self.config, self.tells_frames, self.takes_waveforms)
            if self.tells_frames:
                self._check_columns()
        self.device = "cpu" if self.takes_waveforms else choose_device("cpu")
        self.problem_type = problem_type_of(self.config)

    def _config_of(self, fields: dict):
        if self.takes_waveforms:
            return ExportedConfig(**fields)
        from huggingface_hub.errors import StrictDataclassError

        from ..configuration_ast import ASTConfig

        try:
            return ASTConfig(**fields)
        except StrictDataclassError as error:
            raise ValueError(str(error)) from error

    def _check_columns(self):
        """Refuse another patch grid than the graph's, with which columns would lie at wrong times."""
        config, sampling_rate = self.config, self.extractor_fields["sampling_rate"]
        frames = config.patch_size + config.time_stride
        if self.takes_waveforms and self.extractor_fields["padding"] == "max_length":
            frames = max(frames, config.max_length)  # to which the graph pads
        expected = (frames - config.patch_size) // config.time_stride + 1
        if self.takes_waveforms:
            inputs = joined_waveforms([np.zeros(num_samples(frames, sampling_rate), np.float32)])
        else:
            values = np.zeros((1, frames, config.num_mel_bins), np.float32)
            inputs = {"input_values": values, "attention_mask": np.ones(values.shape[:2], np.int64)}
        try:
            columns = self._run(inputs).shape[1]
        except RuntimeError as error:
            raise ValueError(f"The graph does not take {frames} frames.") from error
        if columns != expected:
            raise ValueError(
                f"min_length={config.patch_size} and time_stride={config.time_stride} make {expected} columns of {frames} frames, "
                f"the graph makes {columns}."
            )

    def feature_extractor(self, channels: str | int | None = None):
        """Make what says how files are heard, and computes features where the graph does not.

        Args:
            channels (`str` or `int`, *optional*): which channels of files are heard, if not those of the file.

        Returns:
            [`ExportedHearing`] of a graph that takes samples, else [`ASTFeatureExtractor`].

        Raises:
            ValueError: if there is no such choice of channels; the message says which there are.
        """
        changes = {} if channels is None else {"channels": parse_channels(channels)}
        if self.takes_waveforms:
            names = ("sampling_rate", "num_mel_bins", "max_length", "channels", "resampler")
            return ExportedHearing(**{name: self.extractor_fields[name] for name in names} | changes)
        from ..feature_extraction_ast import ASTFeatureExtractor

        return ASTFeatureExtractor(**self.extractor_fields | changes)

    def probabilities(self, inputs) -> np.ndarray:
        """Score windows; see [`TorchBackend.probabilities`].

        Args:
            inputs ([`BatchFeature`], or list of `np.ndarray` of shapes `(samples,)`): see there; samples of each window for a graph
                that takes them.

        Returns:
            `np.ndarray` of shape `(windows, labels)`, float32.

        Raises:
            RuntimeError: if ONNX Runtime cannot.
        """
        if self.takes_waveforms:
            return self._run(joined_waveforms(inputs))
        import torch

        values = inputs["input_values"].cpu().numpy()
        # Without a mask all frames are heard, those of padding too, as in training.
        mask = inputs.get("attention_mask")
        mask = np.ones(values.shape[:2], np.int64) if mask is None else mask.cpu().numpy()
        logits = self._run({"input_values": values, "attention_mask": mask})
        return scores_from_logits(torch.from_numpy(logits), self.problem_type).numpy()

    def _run(self, inputs: dict[str, np.ndarray]) -> np.ndarray:
        try:
            return run_session(self._session, inputs)
        except Exception as error:  # ONNX Runtime's errors have no base of their own
            raise RuntimeError(f"ONNX Runtime: {error}") from error

    def contents(self) -> Iterator[tuple[str, bytes]]:
        """See [`TorchBackend.contents`].

        Yields:
            A name, and a digest of the file.
        """
        yield "onnx", self._content_digest


def is_onnx(model_name_or_path: str | os.PathLike) -> bool:
    """Tell whether a name is that of an ONNX file.

    Args:
        model_name_or_path (`str` or `os.PathLike`): as a user gave it.

    Returns:
        `bool`.
    """
    return Path(model_name_or_path).suffix == ONNX_SUFFIX


def refuse_pytorch_settings(
    path: str | os.PathLike, device: str = "auto", tokens_merged_per_layer: int = 0, compiled: bool = False
) -> None:
    """Refuse for an ONNX file what only models in PyTorch can.

    Args:
        path (`str` or `os.PathLike`): the file.
        device (`str`, *optional*, defaults to `"auto"`): where it shall run.
        tokens_merged_per_layer (`int`, defaults to 0): see [`ASTPreTrainedModel.merge_tokens`].
        compiled (`bool`, *optional*, defaults to `False`): see [`TorchBackend`].

    Raises:
        TaggingError: if one of them is given.
    """
    given = {"compile": compiled, "tokens_merged_per_layer": tokens_merged_per_layer}
    for option in filter(given.get, given):
        raise TaggingError(
            f"--{option} is about models in PyTorch, and {path} runs in ONNX Runtime. Leave it out, or pass the folder that it "
            "was exported from."
        )
    if device not in ("auto", "cpu"):
        raise TaggingError(
            f"{path} runs in ONNX Runtime on the CPU, not on {device!r}. Pass --device cpu, or the folder that it was "
            "exported from."
        )


def choose_device(device: str):
    """Find the torch device for a name.

    Args:
        device (`str`): `"cpu"`, `"cuda"`, `"mps"`, or `"auto"` for the fastest of them that is there.

    Returns:
        `torch.device`.

    Raises:
        TaggingError: if the device is not there.
    """
    import torch

    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if device == "auto":
        device = next(name for name, available in there.items() if available)
    if not there.get(device):
        available = ", ".join(name for name, is_there in there.items() if is_there)
        raise TaggingError(
            f"There is no device {device!r} here; torch finds: {available}. Pass one of these or 'auto'."
        )
    return torch.device(device)


def _compiled(model):
    """The model by `torch.compile`, tried out, so that what is missing for it is said before any file is heard."""
    import torch

    compiled = torch.compile(model, fullgraph=True, dynamic=True)
    config = model.config
    values = torch.zeros(2, config.max_length, config.num_mel_bins, device=model.device)
    try:
        with torch.inference_mode():
            compiled(input_values=values)
    except (RuntimeError, ImportError, OSError) as error:
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise TaggingError(
            f"--compile does not work here: {said} On a CPU torch.compile needs a C++ compiler such as g++. Install one, or "
            "leave it out."
        ) from error
    return compiled


def _digest_of(path: str | os.PathLike) -> bytes:
    """Of the file and of the weights beside it that it names, if it does."""
    digest = hashlib.sha256()
    try:
        for content in _contents_of(path):
            digest.update(content)
        for each in filter(Path.is_file, weights_of(path)):
            for content in _contents_of(each):
                digest.update(content)
    except SpecialFileError as error:
        raise CheckpointError(str(error)) from None
    except OSError as error:
        raise CheckpointError(
            f"{path} cannot be read: {error.strerror}. Pass --model_name_or_path with an ONNX file, as ast-export writes it, or "
            "with a model folder."
        ) from None
    return digest.digest()


def _contents_of(path: str | os.PathLike) -> Iterator[bytes]:
    with open(path, "rb", opener=only_files) as file:
        while content := file.read(1 << 20):
            yield content


def _session_of(path: str | os.PathLike):
    try:
        return open_file(path)
    except ImportError as error:
        raise TaggingError(
            f"{path} needs onnxruntime, which cannot be imported ({error}). Type: {install_command('onnx')}"
        ) from error
    except Exception as error:  # ONNX Runtime's errors have no base of their own
        raise CheckpointError(
            f"{path} cannot be opened by ONNX Runtime: {str(error).splitlines()[0]} Export the model again with ast-export."
        ) from error


def _takes_waveforms(session, path: str | os.PathLike) -> bool:
    inputs, outputs = ([item.name for item in items] for items in (session.get_inputs(), session.get_outputs()))
    if (sorted(inputs), outputs) == (["lengths", "waveform"], ["scores"]):
        return True
    if (sorted(inputs), outputs) != (["attention_mask", "input_values"], ["logits"]):
        raise CheckpointError(
            f"{path} takes {', '.join(inputs)} and gives {', '.join(outputs)}, expected input_values, attention_mask and "
            "logits, or waveform, lengths and scores. Pass a file that ast-export wrote."
        )
    return False


@contextmanager
def _errors_of_metadata(path: str | os.PathLike) -> Iterator[None]:
    """What is wrong with what a file says of itself is told with its name."""
    try:
        yield
    except ValueError as error:
        said = getattr(error, "fact", str(error))  # what else to type is no advice for what a file says
        raise CheckpointError(
            f"{path}: {' '.join(said.split())} That is in its metadata: export the model again with ast-export."
        ) from error


def _check_against_graph(session, config, tells_frames: bool, takes_waveforms: bool) -> None:
    """Refuse metadata of another graph, as far as its shapes tell."""
    shape = session.get_outputs()[0].shape
    if len(shape) != 2 + tells_frames:
        raise ValueError(
            f"head={FRAME_HEAD!r} is there and the scores are of clips."
            if tells_frames
            else f"head={FRAME_HEAD!r} is missing and the scores are of frames."
        )
    if isinstance(shape[-1], int) and shape[-1] != config.num_labels:
        raise ValueError(f"id2label has {config.num_labels} labels and the graph gives scores of {shape[-1]}.")
    if takes_waveforms:
        return
    bins = next(item.shape[-1] for item in session.get_inputs() if item.name == "input_values")
    if isinstance(bins, int) and bins != config.num_mel_bins:
        raise ValueError(f"num_mel_bins is {config.num_mel_bins} and the graph takes {bins}.")


def _fields_of(entries: dict[str, str], path: str | os.PathLike) -> tuple:
    """The fields of the configuration of an exported model, and the arguments of its feature extractor, by its metadata."""
    missing = [
        name
        for name in (*_OF_CONFIG, "problem_type", *_OF_EXTRACTOR, *_TEXTS_OF_EXTRACTOR, "channels")
        if name not in entries
    ]
    if missing:
        raise CheckpointError(
            f"{path} has no {', no '.join(missing)} in its metadata. Export the model again with ast-export."
        )

    def read(name: str):
        try:
            return json.loads(entries[name])
        except (ValueError, RecursionError):
            raise CheckpointError(
                f"{path}: {name}={entries[name]!r:.60} in its metadata is no JSON. Export the model again with ast-export."
            ) from None

    config = {field: read(name) for name, field in _OF_CONFIG.items()} | {"problem_type": entries["problem_type"]}
    config |= {name: read(name) for name in CHOICES if name in entries}
    extractor = {name: read(name) for name in (*_OF_EXTRACTOR, "channels")}
    extractor |= {name: entries[name] for name in _TEXTS_OF_EXTRACTOR}
    for fields, rows in ((config, CONFIG_FILE_FIELDS | {"id2label": LABELS}), (extractor, EXTRACTOR_FIELDS)):
        with _errors_of_metadata(path):
            check_fields(fields, rows)
    return config, extractor

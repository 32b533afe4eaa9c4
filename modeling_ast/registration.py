"""Makes the Auto classes and `pipeline("audio-classification")` of Transformers return this port, and undoes it.

Nothing happens on import. Other models' classes and pipelines are left as they are.
"""

import os
import sys
from collections.abc import Mapping, Sequence

import numpy as np
import torch
import transformers
from transformers import (
    AudioClassificationPipeline,
    AutoConfig,
    AutoFeatureExtractor,
    AutoModel,
    AutoModelForAudioClassification,
    AutoModelForAudioFrameClassification,
)
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.feature_extraction_auto import FEATURE_EXTRACTOR_MAPPING, FEATURE_EXTRACTOR_MAPPING_NAMES
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING,
    MODEL_FOR_AUDIO_FRAME_CLASSIFICATION_MAPPING,
    MODEL_MAPPING,
)
from transformers.pipelines import PIPELINE_REGISTRY
from transformers.utils import PaddingStrategy, logging

from .audio import AudioError, AudioReader
from .audio.arrays import ARRAY_KEYS, FILE_KEYS, hear_array
from .checkpoints.fields import FRAME_ARCHITECTURE, CheckpointError, PipelineCheckpointError
from .configuration_ast import ASTConfig
from .feature_extraction_ast import ASTFeatureExtractor
from .frame_classification import ASTForAudioFrameClassification
from .modeling_ast import ASTForAudioClassification, ASTModel

logger = logging.get_logger(__name__)

TASK = "audio-classification"
# evaluate 0.4.6 asks whether a pipeline is a model of this class, which Transformers 5 no longer has.
MISSING_CLASS = "TFPreTrainedModel"
LEAST_DECODED = 0.9  # of the length in a header, which may be an estimate
NAME = "The audio"  # in messages about what has no name
_before: dict = {}  # what `register` replaced, for `unregister` to put back


class ASTAudioClassificationPipeline(AudioClassificationPipeline):
    """The stock pipeline, except that audio is heard as `ast-tag` hears it, in whatever form `datasets` gives it.

    Files are decoded without spawning the `ffmpeg` program. Arrays of any number type are scaled to [-1, 1] and converted
    to the checkpoint's sampling rate.
    """

    def __call__(self, inputs, **kwargs):
        """As the stock method; each of the inputs may be what [`ASTAudioClassificationPipeline.preprocess`] takes, and
        several may also be a column of a data set, `dataset["audio"]`, or another sequence than a list.
        """
        if isinstance(inputs, Sequence) and not isinstance(inputs, (str, bytes, bytearray, memoryview, list)):
            inputs = [*inputs]
        return super().__call__(inputs, **kwargs)

    def preprocess(self, inputs):
        """Features of one clip.

        Args:
            inputs: an audio file, as a path, address, bytes or file object, or `{"bytes": ..., "path": ...}`; an array or
                tensor of shape `(samples,)` or `(1, samples)` at the checkpoint's sampling rate, floats in [-1, 1] or
                integers of 8, 16 or 32 bits; such an array with its rate, `{"array" or "raw": ..., "sampling_rate": ...}`;
                an `AudioDecoder` of `datasets` or torchcodec or what that decodes, whose channels are averaged.

        What of a file is not heard is logged as a warning.

        Returns:
            [`BatchFeature`] with `input_values` of shape `(1, frames, mel bins)` and, where batches are padded to their longest
            clip, `attention_mask` of shape `(1, frames)`.

        Raises:
            AudioError: if it cannot be decoded, has several channels that nobody averaged, or is something else.
        """
        features = super().preprocess(self._waveform(inputs))
        if getattr(self.feature_extractor, "padding", None) == PaddingStrategy.LONGEST.value:
            # A clip alone is not padded and has no mask; in a batch the pipeline pads it, to frames that are not of the clip.
            features.setdefault("attention_mask", torch.ones(features["input_values"].shape[:2], dtype=torch.int64))
        return features

    def _waveform(self, inputs) -> np.ndarray:
        extractor = self.feature_extractor
        is_ours = isinstance(extractor, ASTFeatureExtractor)
        reader = extractor.audio_reader() if is_ours else AudioReader(extractor.sampling_rate)
        if isinstance(inputs, Mapping):
            key = next((key for key in ARRAY_KEYS if inputs.get(key) is not None), None)
            if key is None:
                return reader.read(_refuse_other_keys(inputs))
            if inputs.get("sampling_rate") is None:
                raise AudioError(
                    f"{NAME} is a dictionary with {key!r} and without 'sampling_rate'. Pass "
                    f"{{{key!r}: ..., 'sampling_rate': 16000}} with the rate of the array in Hz."
                )
            return _heard(inputs[key], inputs["sampling_rate"], reader)
        if isinstance(inputs, str) and inputs.startswith(("http://", "https://")):
            import httpx  # what the stock pipeline fetches with

            return reader.read(httpx.get(inputs, follow_redirects=True).raise_for_status().content, name=inputs)
        if isinstance(inputs, (str, os.PathLike, bytes, bytearray, memoryview)) or hasattr(inputs, "read"):
            return reader.read(inputs)
        if isinstance(inputs, (np.ndarray, torch.Tensor)):
            return _heard(inputs, reader.sampling_rate, reader)
        torchcodec = sys.modules.get("torchcodec")  # where one of its objects comes from, it is there
        if torchcodec and isinstance(inputs, torchcodec.decoders.AudioDecoder):
            inputs = _decoded(inputs)
        if torchcodec and isinstance(inputs, torchcodec.AudioSamples):
            return _heard(inputs.data.mean(dim=0), inputs.sample_rate, reader)
        raise AudioError(
            f"{NAME} is a {type(inputs).__name__}, expected a path, bytes, an array or tensor, a value of a data set's audio "
            "column, or a list of these. Of a data set pass dataset['audio'], of a row row['audio']; numbers as one array."
        )


def _heard(array, array_rate: int, reader: AudioReader) -> np.ndarray:
    """An array, tensor or list of samples as the model hears it."""
    if isinstance(array, torch.Tensor):
        array = array.detach().cpu()
        array = (array.float() if array.dtype == torch.bfloat16 else array).numpy()
    elif not isinstance(array, np.ndarray):
        try:
            array = np.asarray(array)
        except ValueError as error:  # lists of different lengths
            raise AudioError(f"{NAME} is no array of numbers ({error}). Pass samples of one channel.") from error
    return hear_array(array, array_rate, reader.sampling_rate, NAME, reader.resampler)


def _decoded(decoder):
    """All that a decoder of torchcodec gives, with a warning if it is much less than its file's header says."""
    samples, announced = decoder.get_all_samples(), decoder.metadata.duration_seconds_from_header
    if announced is not None and samples.duration_seconds < LEAST_DECODED * announced:
        # Of some formats torchcodec decodes one block of each packet.
        logger.warning(
            f"The decoder gives {samples.duration_seconds:.2f} s of audio, of {announced:.2f} s by the file's header. If that is "
            "right, pass the file: its path, or a column cast to Audio(decode=False)."
        )
    return samples


def _refuse_other_keys(audio: Mapping) -> dict:
    """What says of a dictionary where the file is."""
    files = {key: audio.get(key) for key in FILE_KEYS}
    if all(value is None for value in files.values()):
        raise AudioError(
            f"{NAME} is a dictionary with the keys {[*audio]}, expected 'array' (or 'raw') with 'sampling_rate', or 'bytes' or "
            "'path'. Of a data set's row pass its audio, row['audio']."
        )
    return files


class _PipelineOfModel(AudioClassificationPipeline):
    """Stands in the task table: builds this port's pipeline for its models and the stock one for all others."""

    def __new__(cls, *args, model=None, **kwargs):
        if isinstance(model, ASTForAudioClassification):
            chosen = ASTAudioClassificationPipeline
        else:  # the table names its classes, or holds the class that somebody else put there
            chosen = AudioClassificationPipeline if isinstance(_before["impl"], str) else _before["impl"]
        return chosen(*args, model=model, **kwargs)


class _AutoModelOrNothing(AutoModelForAudioClassification):
    """`pipeline` goes on with the stock class where the Auto class raises one of the usual errors, such as a `ValueError`."""

    @classmethod
    def from_pretrained(cls, *args, **kwargs):
        try:
            model = super().from_pretrained(*args, **kwargs)
        except CheckpointError as error:
            raise PipelineCheckpointError(str(error)) from error
        if FRAME_ARCHITECTURE in (model.config.architectures or ()):
            raise PipelineCheckpointError(
                f"{args[0] if args else model.name_or_path} has a frame head, which no pipeline has a use for: its labels are of "
                "frames, not of clips. Load it with AutoModelForAudioFrameClassification, or hear with it by ast-tag --timeline."
            )
        return model


def register() -> None:
    """Let the Auto classes and `pipeline("audio-classification", model=...)` return this port for AST checkpoints.

    May be called again; [`unregister`] restores what was there before the first call.
    """
    if _before:
        return
    model_type = ASTConfig.model_type
    # `AutoFeatureExtractor` looks the class name up in this table of the library's own classes before it considers
    # registered ones, so the entry has to step aside.
    _before["feature_extractor"] = FEATURE_EXTRACTOR_MAPPING_NAMES.pop(model_type)
    task = PIPELINE_REGISTRY.supported_tasks[TASK]
    _before["impl"] = task["impl"]
    task["impl"] = _PipelineOfModel
    _before["pt"], task["pt"] = task["pt"], (_AutoModelOrNothing,)
    if not hasattr(transformers, MISSING_CLASS):
        setattr(transformers, MISSING_CLASS, type(MISSING_CLASS, (), {"__module__": __name__}))
        _before["missing_class"] = MISSING_CLASS
    AutoConfig.register(model_type, ASTConfig, exist_ok=True)
    AutoFeatureExtractor.register(ASTConfig, ASTFeatureExtractor, exist_ok=True)
    AutoModel.register(ASTConfig, ASTModel, exist_ok=True)
    AutoModelForAudioClassification.register(ASTConfig, ASTForAudioClassification, exist_ok=True)
    AutoModelForAudioFrameClassification.register(ASTConfig, ASTForAudioFrameClassification, exist_ok=True)


def unregister() -> None:
    """Undo [`register`]; does nothing if it was not called."""
    if not _before:
        return
    for mapping, key in (
        (CONFIG_MAPPING, ASTConfig.model_type),
        (FEATURE_EXTRACTOR_MAPPING, ASTConfig),
        (MODEL_MAPPING, ASTConfig),
        (MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING, ASTConfig),
        (MODEL_FOR_AUDIO_FRAME_CLASSIFICATION_MAPPING, ASTConfig),
    ):
        mapping._extra_content.pop(key, None)  # the library has no call that takes a registration back
    for name in ("impl", "pt"):
        PIPELINE_REGISTRY.supported_tasks[TASK][name] = _before.pop(name)
    FEATURE_EXTRACTOR_MAPPING_NAMES[ASTConfig.model_type] = _before.pop("feature_extractor")
    if "missing_class" in _before:
        delattr(transformers, _before.pop("missing_class"))

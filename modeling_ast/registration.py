"""Makes the Auto classes and `pipeline("audio-classification")` of Transformers return this port, and undoes it.

Nothing happens on import. Other models' classes and pipelines are left as they are.
"""

import os

from transformers import (
    AudioClassificationPipeline,
    AutoConfig,
    AutoFeatureExtractor,
    AutoModel,
    AutoModelForAudioClassification,
)
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.feature_extraction_auto import FEATURE_EXTRACTOR_MAPPING, FEATURE_EXTRACTOR_MAPPING_NAMES
from transformers.models.auto.modeling_auto import MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING, MODEL_MAPPING
from transformers.pipelines import PIPELINE_REGISTRY

from .audio import AudioReader
from .configuration_ast import ASTConfig
from .feature_extraction_ast import ASTFeatureExtractor
from .modeling_ast import ASTForAudioClassification, ASTModel

TASK = "audio-classification"
_before: dict = {}  # what `register` replaced, for `unregister` to put back


class ASTAudioClassificationPipeline(AudioClassificationPipeline):
    """The stock pipeline, except that paths and bytes are decoded without spawning the `ffmpeg` program."""

    def preprocess(self, inputs):
        """As the stock method; `inputs` may also be any path, or the bytes of an audio file.

        What of a file is not heard is logged as a warning.

        Raises:
            AudioError: if the file cannot be decoded; it names the file and what to install.
        """
        if isinstance(inputs, os.PathLike):
            inputs = os.fspath(inputs)
        is_address = isinstance(inputs, str) and inputs.startswith(("http://", "https://"))
        if is_address:
            import httpx  # what the stock pipeline fetches with

            inputs = httpx.get(inputs, follow_redirects=True).raise_for_status().content
        if isinstance(inputs, (str, bytes)):
            extractor = self.feature_extractor  # perhaps the stock one, loaded before it was registered
            ours = isinstance(extractor, ASTFeatureExtractor)
            reader = extractor.audio_reader() if ours else AudioReader(extractor.sampling_rate)
            inputs = reader.read(inputs)
        return super().preprocess(inputs)


class _PipelineOfModel(AudioClassificationPipeline):
    """Stands in the task table: builds this port's pipeline for its models and the stock one for all others."""

    def __new__(cls, *args, model=None, **kwargs):
        if isinstance(model, ASTForAudioClassification):
            chosen = ASTAudioClassificationPipeline
        else:  # the table names its classes, or holds the class that somebody else put there
            chosen = AudioClassificationPipeline if isinstance(_before["impl"], str) else _before["impl"]
        return chosen(*args, model=model, **kwargs)


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
    AutoConfig.register(model_type, ASTConfig, exist_ok=True)
    AutoFeatureExtractor.register(ASTConfig, ASTFeatureExtractor, exist_ok=True)
    AutoModel.register(ASTConfig, ASTModel, exist_ok=True)
    AutoModelForAudioClassification.register(ASTConfig, ASTForAudioClassification, exist_ok=True)


def unregister() -> None:
    """Undo [`register`]; does nothing if it was not called."""
    if not _before:
        return
    for mapping, key in (
        (CONFIG_MAPPING, ASTConfig.model_type),
        (FEATURE_EXTRACTOR_MAPPING, ASTConfig),
        (MODEL_MAPPING, ASTConfig),
        (MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING, ASTConfig),
    ):
        mapping._extra_content.pop(key, None)  # the library has no call that takes a registration back
    PIPELINE_REGISTRY.supported_tasks[TASK]["impl"] = _before.pop("impl")
    FEATURE_EXTRACTOR_MAPPING_NAMES[ASTConfig.model_type] = _before.pop("feature_extractor")

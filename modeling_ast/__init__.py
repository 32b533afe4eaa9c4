"""Audio Spectrogram Transformer (Gong, Chung and Glass, Interspeech 2021) for Hugging Face Transformers.

Importing this package imports neither torch nor transformers and changes nothing anywhere: names resolve when they
are first used (PEP 562), and the Auto classes know this port only after [`register`] was called.
"""

from importlib import import_module

_HOMES = {
    "ASTConfig": "configuration_ast",
    "ASTFeatureExtractor": "feature_extraction_ast",
    "ASTForAudioClassification": "modeling_ast",
    "ASTForAudioFrameClassification": "frame_classification",
    "ASTForMaskedSpectrogramModeling": "masked_modeling",
    "ASTModel": "modeling_ast",
    "ASTPreTrainedModel": "modeling_ast",
    "register": "registration",
    "unregister": "registration",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])

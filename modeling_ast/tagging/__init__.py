"""Labels of recordings: windows, their scores, stretches of time, and the formats these are written in.

Importing this package imports no library: names resolve when they are first used (PEP 562).
"""

from importlib import import_module

_MODULES = {"AudioTagger": ".tagger", "EnsembleTagger": ".ensemble", "TaggingError": ".tagger"}
__all__ = list(_MODULES)


def __getattr__(name: str):
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(_MODULES[name], __name__), name)

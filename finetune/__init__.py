"""Fine-tuning AST with `Trainer` on `datasets` audio columns: data, augmentation, metrics, recipes.

Importing this package imports no library: names resolve when they are first used (PEP 562).
"""

from importlib import import_module

_HOMES = {
    "InputError": "failures.input_errors",
    "TrainingStoppedError": "failures.stopped_trainings",
    "fine_tune": "fine_tuning",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])

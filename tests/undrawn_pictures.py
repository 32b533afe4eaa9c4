"""Runs without the drawing of their pictures, half the time of a tiny one: an empty one stands where a picture would."""

import base64
import os
import sys
from functools import partial

import pytest
from matplotlib.figure import Figure

PIXEL = base64.b64decode(
    b"iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="
)  # a PNG of one grey pixel
PLACES_OF_PATHS = {  # among the arguments of what draws a run's pictures
    "finetune.results.publishing.plot_training_curve": 1,
    "finetune.results.publishing.plot_confusion_matrix": 2,
    "finetune.dry_runs.dry_run.plot_spectrogram_pairs": 1,
}
TOLD = "UNDRAWN_PICTURES"  # in the environment: children of `forked_python` do without them too


def leave_out_pictures(patch: pytest.MonkeyPatch):
    """Replace what draws: any figure is saved as one grey pixel, and of a training's not even what they show is computed.

    Args:
        patch (`pytest.MonkeyPatch`): what can take it back.
    """
    patch.setenv(TOLD, "1")
    patch.setattr(Figure, "savefig", lambda figure, file, **settings: file.write(PIXEL))
    for name, place in PLACES_OF_PATHS.items():
        module, _, function = name.rpartition(".")
        if module in sys.modules:
            patch.setattr(sys.modules[module], function, partial(_save_an_empty_one, place))
    if publishing := sys.modules.get("finetune.results.publishing"):  # it loads the saved model to picture an example
        from model_card.file_names import SPECTROGRAM_NAME

        patch.setattr(publishing, "_plot_example", lambda *given: _save_an_empty_one(0, given[-1] / SPECTROGRAM_NAME))


def leave_out_pictures_if_told():
    """Do so for the rest of this process where its environment says so."""
    if os.environ.get(TOLD):
        leave_out_pictures(pytest.MonkeyPatch())


def _save_an_empty_one(place: int, *given):
    from modeling_ast.features.log_mel_figure import save_figure  # which processes with stock Transformers have not

    save_figure(Figure(), given[place])

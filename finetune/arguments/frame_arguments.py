"""A training of a frame head: what of the fields it cannot obey, and why."""

from .groups import RunArguments

_OF_WEIGHTS = "the last weights are scored and saved"
NOT_WITH_FRAMES = {
    "loss": "frames are trained with binary cross-entropy",
    "class_weights": "the labels of frames have no weights",
    "label_smoothing_factor": "the labels of frames are vectors",
    "teacher": "a teacher's scores are of clips",
    "lora_rank": "adapters are of a model with a classifier of clips",
    "features_column_name": "stretches are marked in audio",
    "streaming": "the clips have to be at hand",
    "background_label": "a frame in which nothing is marked has no label",
    "head_start": "a frame head is not fitted before the first step",
    "none_of_these": "what is kept is what a classifier of clips reads",
    **dict.fromkeys(("average_epochs", "ensemble_epochs"), _OF_WEIGHTS),
    "max_roll": "sounds would be rolled away from where they are marked",
    "heard_padding_share": "padding has no labels",
    **dict.fromkeys(("max_speed_change", "max_quiet_seconds"), "sounds would be moved from where they are marked"),
}


def refuse_with_frames(arguments: RunArguments):
    """Refuse what a training of a frame head cannot obey.

    Args:
        arguments ([`RunArguments`]): all that it was told.

    Raises:
        ValueError: for the first such field; it says why.
    """
    for group in arguments.groups:
        for name in sorted(NOT_WITH_FRAMES.keys() & group.given):
            value = getattr(group, name)
            if value and value not in (group.__dataclass_fields__[name].default, "binary_cross_entropy"):
                raise ValueError(
                    f"{name}={value!r} was given, but with --head frame {NOT_WITH_FRAMES[name]}. Leave out one of "
                    "them."
                )

"""The fields of a checkpoint's JSON files, a row each: of what type, within what bounds. Checked before anything is built.

Fields that are in no row are taken as they are, as Transformers takes them, but for those that would take the place of a
method. Importing this takes neither torch nor Transformers.
"""

import inspect
import json
import os
from collections.abc import Callable, Mapping
from numbers import Integral, Real
from pathlib import Path
from typing import Any, NamedTuple

from ..system.regular_files import only_files

MODEL_TYPE = "audio-spectrogram-transformer"
CONFIG, EXTRACTOR = "config.json", "preprocessor_config.json"
FRAME_ARCHITECTURE = "ASTForAudioFrameClassification"  # in config.json of a checkpoint with a frame head
LARGEST_JSON = 64 << 20  # bytes; the names of a hundred thousand labels are a tenth of that
WIDEST = 65_536  # of a layer; the widest vision transformers have a tenth of that
DEEPEST = 1_000  # layers, as of DeepNet
MOST_LABELS = 100_000
LONGEST = 100_000  # frames of 10 ms, a quarter of an hour
MOST_MEL_BINS = 4_096
WIDEST_STEP = 4_096  # side and stride of patches
FASTEST = 1_000_000  # Hz, beyond the fastest ultrasound recorders
BEYOND_ANY_LEVEL = 1e6  # of log-mel values, which are logarithms
DTYPES = ("float32", "float16", "bfloat16", "float64")
# What computes attention without fetching code: the names of Transformers' own functions.
ATTENTION = ("eager", "sdpa", "flash_attention_2", "flash_attention_3", "flash_attention_4", "flex_attention")


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message says what is wrong with it and what to do."""


class PipelineCheckpointError(Exception):
    """A [`CheckpointError`] where `pipeline` loads the checkpoint; it would take a `ValueError` as advice to try stock classes."""


class Row(NamedTuple):
    """What a field may hold: a test of the value, and the same in words."""

    fits: Callable[[Any], bool]
    expected: str


def whole(lowest: int, highest: int) -> Row:
    """A row of whole numbers.

    Args:
        lowest (`int`): the lowest that fits.
        highest (`int`): the highest that fits.

    Returns:
        [`Row`] that no truth value fits.
    """
    return Row(
        lambda value: isinstance(value, Integral) and not isinstance(value, bool) and lowest <= value <= highest,
        f"a whole number from {lowest:,} to {highest:,}",
    )


def number(lowest: float, highest: float) -> Row:
    """A row of finite numbers.

    Args:
        lowest (`float`): the lowest that fits.
        highest (`float`): the highest that fits.

    Returns:
        [`Row`] that no truth value fits.
    """
    return Row(  # which NaN and infinities fail
        lambda value: isinstance(value, Real) and not isinstance(value, bool) and lowest <= value <= highest,
        f"a number from {lowest:g} to {highest:g}",
    )


def one_of(*names: str) -> Row:
    """A row of texts.

    Args:
        names (`str`): the texts that fit.

    Returns:
        [`Row`] of them.
    """
    return Row(lambda value: isinstance(value, str) and value in names, f"one of {', '.join(names)}")


def or_none(row: Row) -> Row:
    """A row that takes `None` as well.

    Args:
        row ([`Row`]): what else fits.

    Returns:
        [`Row`] of both.
    """
    return Row(lambda value: value is None or row.fits(value), f"{row.expected}, or null")


def _is_index(value: Any) -> bool:
    if isinstance(value, str):
        return value.isascii() and value.isdigit() and len(value) <= len(str(MOST_LABELS))
    return isinstance(value, Integral) and not isinstance(value, bool)


def _are_labels(value: Any) -> bool:
    if not isinstance(value, Mapping) or len(value) > MOST_LABELS or not all(map(_is_index, value)):
        return False
    return sorted(map(int, value)) == list(range(len(value))) and all(isinstance(name, str) for name in value.values())


def _are_indices(value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(name, str) and _is_index(value[name]) for name in value)


def _are_thresholds(value: Any) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(name, str) and isinstance(score, Real) and not isinstance(score, bool)
        for name, score in value.items()
    )


def _are_event_rules(value: Any) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(name, str) and _are_thresholds(rules) and EVENT_RULES.issuperset(rules)
        for name, rules in value.items()
    )


# What may be said of the events of a label: two scores, and seconds.
EVENT_SCORES = ("on", "off")
CHOICES = ("label_thresholds", "event_rules")  # of a configuration, chosen for the labels of its weights
LONGEST_RULE = 3600  # seconds that a rule of events may say
EVENT_RULES = frozenset((*EVENT_SCORES, "min_duration", "close_gaps", "median_filter"))
TRUTH = Row(lambda value: isinstance(value, bool), "true or false")
TEXT = Row(lambda value: isinstance(value, str), "a text")
TEXTS = Row(lambda value: isinstance(value, list) and all(isinstance(item, str) for item in value), "a list of texts")
NOTHING = Row(lambda value: value is None, "null: weights here are plain floats of one model")

LABELS = Row(_are_labels, f"an object of the indices 0, 1, 2 ..., each once, up to {MOST_LABELS:,}, and texts")

# Of the model itself; also of the arguments of its configuration.
CONFIG_FIELDS = {
    "hidden_size": whole(1, WIDEST),
    "num_hidden_layers": whole(1, DEEPEST),
    "num_attention_heads": whole(1, WIDEST),
    "intermediate_size": whole(1, WIDEST),
    "hidden_act": TEXT,
    "hidden_dropout_prob": number(0, 1),
    "attention_probs_dropout_prob": number(0, 1),
    "initializer_range": number(0, 1_000),
    "layer_norm_eps": number(0, 1),
    "patch_size": whole(1, WIDEST_STEP),
    "qkv_bias": TRUTH,
    "frequency_stride": whole(1, WIDEST_STEP),
    "time_stride": whole(1, WIDEST_STEP),
    "max_length": whole(1, LONGEST),
    "num_mel_bins": whole(1, MOST_MEL_BINS),
    "classifier_layer_norm_eps": or_none(number(0, 1)),
    "label_thresholds": or_none(Row(_are_thresholds, "an object of labels and scores")),
    "event_rules": or_none(
        Row(_are_event_rules, f"an object of labels and objects of {', '.join(sorted(EVENT_RULES))} and numbers")
    ),
    "position_cut": one_of("middle", "beginning"),
}
# Of every configuration of Transformers.
CONFIG_FILE_FIELDS = CONFIG_FIELDS | {
    "model_type": one_of(MODEL_TYPE),
    "num_labels": or_none(whole(0, MOST_LABELS)),
    "id2label": or_none(LABELS),
    "label2id": or_none(Row(_are_indices, "an object of texts and indices")),
    "problem_type": or_none(one_of("regression", "single_label_classification", "multi_label_classification")),
    "architectures": or_none(TEXTS),
    "dtype": or_none(one_of(*DTYPES)),
    "torch_dtype": or_none(one_of(*DTYPES)),
    "output_attentions": or_none(TRUTH),
    "output_hidden_states": or_none(TRUTH),
    "return_dict": or_none(TRUTH),
    "is_encoder_decoder": or_none(TRUTH),
    "chunk_size_feed_forward": or_none(whole(0, WIDEST)),
    "transformers_version": or_none(TEXT),
    "attn_implementation": or_none(one_of(*ATTENTION)),
    "_attn_implementation": or_none(one_of(*ATTENTION)),
    "_attn_implementation_internal": or_none(one_of(*ATTENTION)),
    "quantization_config": NOTHING,
    "per_layer_config": NOTHING,
}  # fmt: skip
EXTRACTOR_FIELDS = {
    "feature_size": whole(1, WIDEST),
    "sampling_rate": whole(1_000, FASTEST),
    "num_mel_bins": whole(1, MOST_MEL_BINS),
    "max_length": whole(1, LONGEST),
    "padding_value": number(-BEYOND_ANY_LEVEL, BEYOND_ANY_LEVEL),
    "do_normalize": TRUTH,
    "mean": number(-BEYOND_ANY_LEVEL, BEYOND_ANY_LEVEL),
    "std": number(1 / BEYOND_ANY_LEVEL, BEYOND_ANY_LEVEL),
    "return_attention_mask": TRUTH,
    "padding": one_of("max_length", "longest", "do_not_pad"),
    "padding_side": one_of("left", "right"),
    "resampler": or_none(TEXT),
    "channels": Row(lambda value: isinstance(value, str) or (_is_index(value) and value >= 0), "a text or an index"),
}
EXTRACTOR_FILE_FIELDS = EXTRACTOR_FIELDS | {
    # Of an AST of older Transformers too; another one computes other features.
    "feature_extractor_type": or_none(one_of("ASTFeatureExtractor", "AudioSpectrogramTransformerFeatureExtractor")),
}


def check_fields(
    fields: Mapping[str, Any],
    rows: Mapping[str, Row],
    place: str | os.PathLike | None = None,
    owner: type | None = None,
) -> None:
    """Check values against their rows.

    Args:
        fields (`Mapping`): by name; what has no row is not looked at.
        rows (`Mapping`): one of the tables here.
        place (`str` or `os.PathLike`, *optional*): the file that they are from.
        owner (`type`, *optional*): class whose attributes they become; its methods have to stay what they are.

    Raises:
        CheckpointError: if a value is of another type or beyond its bounds; the message names field, value and bounds.
    """
    where, advice = (f"{place}: ", " Put back the file that was saved with the weights.") if place else ("", "")
    for name, value in fields.items():
        if name in rows and not rows[name].fits(value):
            raise CheckpointError(f"{where}{name}={_shown(value)} is not {rows[name].expected}.{advice}")
        if name not in rows and owner is not None and _is_of_class(owner, name):
            raise CheckpointError(f"{where}{name!r} is no field but part of the program. Take it out.")


def check_choices(config) -> None:
    """Check what a configuration says was chosen for its labels.

    Args:
        config ([`ASTConfig`] or [`ExportedConfig`]): with `id2label`, `label_thresholds` and `event_rules`.

    Raises:
        ValueError: if a threshold or a rule of events cannot be, or is of no label.
    """
    labels = set(config.id2label.values())
    for label, rules in (config.event_rules or {}).items():
        if label not in labels:
            raise ValueError(
                f"event_rules has some for {label!r}, which is not among the {len(labels)} labels. Name labels of id2label."
            )
        _check_event_rules(label, rules)
    for label, threshold in (config.label_thresholds or {}).items():
        if label not in labels:
            raise ValueError(
                f"label_thresholds has one for {label!r}, which is not among the {len(labels)} labels. Name labels of id2label."
            )
        if not 0 <= threshold <= 1:
            raise ValueError(f"label_thresholds has {threshold} for {label!r}, expected a score. Set it from 0 to 1.")


def _check_event_rules(label: str, rules: Mapping[str, float]) -> None:
    if "on" not in rules:
        raise ValueError(
            f"event_rules has no score 'on' for {label!r}, with which an event begins. Set it from 0 to 1."
        )
    for name, value in rules.items():
        is_score = name in EVENT_SCORES
        if not (0 <= value <= 1 if is_score else 0 < value <= LONGEST_RULE):
            raise ValueError(
                f"event_rules has {name}={value} for {label!r}, expected {'a score from 0 to 1' if is_score else f'seconds above 0, up to {LONGEST_RULE}'}."
            )
    if rules.get("off", 0) > rules["on"]:
        raise ValueError(
            f"event_rules has off={rules['off']} above on={rules['on']} for {label!r}, so that no event could go on. Lower it."
        )


def _shown(value: Any) -> str:
    return f"{value!r:.60}" if not isinstance(value, int) or abs(value) < 10**60 else "a number of more than 60 digits"


def _is_of_class(owner: type, name: str) -> bool:
    attribute = inspect.getattr_static(owner, name, None)
    settable = getattr(attribute, "fset", None) is not None
    return (
        name.startswith("__")
        or callable(getattr(owner, name, None))
        or (hasattr(attribute, "__get__") and not settable)
    )


def read_json(path: str | os.PathLike) -> Any:
    """Read a JSON file of a bounded size.

    Args:
        path (`str` or `os.PathLike`): the file.

    Returns:
        What it holds.

    Raises:
        OSError: if it cannot be read.
        ValueError: if it is larger than `LARGEST_JSON`, nested too deep, in another encoding than UTF-8, or no JSON.
    """
    with open(path, "rb", opener=only_files) as file:
        content = file.read(LARGEST_JSON + 1)
    if len(content) > LARGEST_JSON:
        raise ValueError(f"larger than {LARGEST_JSON >> 20} MiB")
    try:
        return json.loads(content.decode())
    except RecursionError:
        raise ValueError("nested too deep") from None


def read_settings(path: str | os.PathLike) -> dict[str, Any]:
    """Read `config.json` or `preprocessor_config.json`, and check its fields.

    Args:
        path (`str` or `os.PathLike`): the file, by whose name it is known which of the two it is.

    Returns:
        `dict[str, Any]`: its fields.

    Raises:
        CheckpointError: if it cannot be read, is no JSON object, or a field of it is not what it may be.
    """
    path = Path(path)
    try:
        fields = read_json(path)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} is not a valid JSON object ({error}). Copy or save the model again.") from error
    if not isinstance(fields, dict):
        raise CheckpointError(f"{path} is not a JSON object. Copy or save the model again.")
    model_type = fields.get("model_type")
    if path.name == CONFIG and model_type != MODEL_TYPE:
        raise CheckpointError(
            f"{path.parent} holds a model of type {model_type!r:.60}; this kit takes {MODEL_TYPE!r}. Pass the folder of an AST "
            "model."
        )
    check_fields(fields, CONFIG_FILE_FIELDS if path.name == CONFIG else EXTRACTOR_FILE_FIELDS, path)
    return fields

"""What the sections of `run_summary.json` may hold, a row each, as far as cards and pages read them."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from modeling_ast.checkpoints.fields import (
    EXTRACTOR_FIELDS,
    TEXT,
    TEXTS,
    Row,
    check_fields,
    number,
    one_of,
    or_none,
    whole,
)

LARGEST_COUNT = 1 << 63
LARGEST_NUMBER = 1e308
COUNT = whole(0, LARGEST_COUNT)
NUMBER = or_none(number(-LARGEST_NUMBER, LARGEST_NUMBER))
OBJECT = Row(lambda value: isinstance(value, Mapping), "a JSON object")
OBJECTS = Row(lambda value: isinstance(value, list) and all(map(OBJECT.fits, value)), "a JSON array of objects")
NUMBERS = Row(
    lambda value: isinstance(value, Mapping) and all(map(NUMBER.fits, value.values())), "an object of numbers"
)
COUNTS = Row(lambda value: isinstance(value, list) and all(map(COUNT.fits, value)), "a JSON array of whole numbers")
TEXT_OR_TEXTS = Row(lambda value: TEXT.fits(value) or TEXTS.fits(value), "a text or a list of texts")
DIGESTS = Row(
    lambda value: TEXT.fits(value) or (OBJECT.fits(value) and all(map(or_none(TEXT).fits, value.values()))),
    "a text or an object of texts",
)
# A dot goes into an object, a star into each item of an array or of an object; what is outside comes first.
SUMMARY_FIELDS = {
    "license": TEXT, "base_model": TEXT, "seed": whole(-LARGEST_COUNT, LARGEST_COUNT), "command": TEXT, "created": TEXT, "kit_version": TEXT,
    "problem_type": one_of("regression", "single_label_classification", "multi_label_classification"),
    "source": TEXT, "source_address": TEXT, "sha256": DIGESTS, "labels": TEXTS,
    "data.name": TEXT, "data.hub_id": TEXT, "data.license": TEXT_OR_TEXTS, "data.features_column": TEXT,
    "data.split_method": TEXT, "data.share_that_counts": NUMBER,
    "data.hard_negatives": TEXT, "data.windows": OBJECT, "data.windows.in_words": TEXT,
    "data.skipped_clips": Row(lambda value: isinstance(value, list), "a JSON array"),
    "data.splits": OBJECT, "data.splits.*": OBJECT, "data.splits.*.clips": COUNT, "data.splits.*.seconds": number(0, 1e15),
    "data.splits.*.label_counts": NUMBERS,
    **{f"features.{name}": row for name, row in EXTRACTOR_FIELDS.items()}, "features.normalization": TEXT,
    "model.size": TEXT, "model.parameters": COUNT,
    "training.loss": TEXT, "training.pretraining": OBJECT, "training.pretraining.masked_share": NUMBER,
    "training.pretraining.cluster_sides": COUNTS, "training.pretraining.reconstruction_weight": NUMBER,
    "training.lora": OBJECT, "training.lora.rank": COUNT, "training.lora.alpha": NUMBER,
    "training.lora.target_modules": TEXTS, "training.lora.trained_in_full": TEXTS,
    "training.lora.trainable_parameters": COUNT,
    "training.teacher": OBJECT, "training.teacher.name": TEXT, "training.teacher.kind": TEXT, "training.teacher.sha256": TEXT,
    "training.teacher.revision": TEXT, "training.teacher.weight": NUMBER, "training.teacher.temperature": NUMBER,
    "training.teacher.layers": TEXTS, "training.teacher.layer_weight": NUMBER, "training.teacher.parameters": COUNT,
    "training.fitted_head": OBJECT, "training.fitted_head.clips": COUNT, "training.fitted_head.windows": COUNT,
    "training.fitted_head.accuracy": NUMBER, "training.fitted_head.mean_average_precision": NUMBER,
    "history": OBJECTS, "history.*.loss": NUMBER, "history.*.epoch": NUMBER,
    "evaluation.split": TEXT, "evaluation.clips": COUNT, "evaluation.protocol": TEXT, "evaluation.loss": TEXT,
    "evaluation.metrics": NUMBERS, "evaluation.chance": NUMBER,
    "evaluation.label_sets": OBJECT, "evaluation.label_sets.*": OBJECT, "evaluation.label_sets.*.labels": COUNT,
    "evaluation.label_sets.*.clips": COUNT, "evaluation.label_sets.*.accuracy": NUMBER,
    "evaluation.metrics_padding_longest": NUMBERS, "evaluation.ensemble": OBJECT,
    "evaluation.ensemble.epochs": COUNTS, "evaluation.ensemble.metrics": NUMBERS, "evaluation.averaged_epochs": COUNTS,
    "evaluation.last_epoch": OBJECT, "evaluation.last_epoch.metrics": NUMBERS, "evaluation.validation": OBJECT,
    "evaluation.validation.split": TEXT, "evaluation.validation.clips": COUNT, "evaluation.validation.metrics": NUMBERS,
    "evaluation.thresholds": NUMBERS, "evaluation.thresholds_not_chosen": TEXTS, "evaluation.left_out": TEXTS,
    "evaluation.events": OBJECT, "evaluation.events.recordings": COUNT, "evaluation.events.not_scored": TEXT,
    "evaluation.events.hours": NUMBER, "evaluation.events.false_alarms_per_hour": NUMBER,
    "evaluation.events.rule": NUMBERS, "evaluation.events.psds": OBJECT, "evaluation.events.per_label": OBJECT,
    "evaluation.events.per_recording": OBJECTS, "evaluation.events.per_recording.*.file": TEXT, "evaluation.events.event_based": OBJECT,
    "evaluation.events.segment_based": OBJECT, "evaluation.events.rules": OBJECT,
    "evaluation.label_doubts": OBJECT, "evaluation.label_doubts.clips": COUNT, "evaluation.label_doubts.likely_errors": COUNT,
    "evaluation.none_of_these": OBJECT, "evaluation.none_of_these.threshold": NUMBER, "evaluation.none_of_these.chosen_on": TEXT,
    **{f"evaluation.none_of_these.{name}": COUNT for name in ("clips", "windows", "neighbours", "scored", "beyond")},
    "evaluation.clips_without_labels": COUNT, "evaluation.per_class": OBJECTS, "evaluation.per_class.*.label": TEXT,
    "time.training_seconds": number(0, 1e15), "time.train_samples_per_second": number(0, 1e15),
    "license_notice.work": TEXT, "license_notice.address": TEXT, "license_notice.copyright": TEXT,
    "agreement.largest_difference": NUMBER, "agreement.tolerance": NUMBER, "agreement.outputs": TEXT,
    "published.by": TEXT, "published.on_the_hub": TEXT,
    **{f"published.{name}": NUMBER for name in ("accuracy", "f1_macro", "mean_average_precision", "roc_auc_macro", "d_prime")},
    "conversion.left_out": TEXTS, "conversion.notes": TEXTS,
}  # fmt: skip


def check_summary(summary: Mapping[str, Any], path: Path) -> None:
    """Check what a run summary holds.

    Args:
        summary (`Mapping`): whose sections are objects and arrays where they should be, without what is not known.
        path (`Path`): where it is from, for the message.

    Raises:
        CheckpointError: if a field is of another type; the message names it.
    """
    for pattern, row in SUMMARY_FIELDS.items():
        found = dict(_values_at(summary, pattern.split(".")))
        check_fields(found, dict.fromkeys(found, row), path)


def _values_at(content: Any, parts: list[str], place: str = "") -> Iterator[tuple[str, Any]]:
    if not parts:
        yield place.removeprefix("."), content
    elif parts[0] == "*":
        items = content.items() if isinstance(content, Mapping) else enumerate(content)
        for key, item in items:
            yield from _values_at(item, parts[1:], f"{place}.{key}")
    elif parts[0] in content:
        yield from _values_at(content[parts[0]], parts[1:], f"{place}.{parts[0]}")

"""Original AST checkpoints to Hub checkpoints.

What the tensors do not say (strides, frames, labels, statistics) is taken from what the user typed, else from the table
of released checkpoints, else concluded from shapes, and then reported with the flag that overrides it.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from model_card.licenses import BSD_3_CLAUSE, license_note
from model_card.run_summary import origin_section
from modeling_ast.layers.patch_grid import GEOMETRY_FIELDS
from modeling_ast.system.atomic_files import refuse_existing

from .errors import ConversionError
from .geometry import HIDDEN_SIZES, PatchGeometry, infer_geometry
from .label_files import dataset_of, read_labels
from .original_checkpoint import OriginalCheckpoint, read_original, sha256_of
from .original_datasets import AUDIOSET, ORIGINAL_DATASETS, OriginalDataset
from .output_checkpoint import CheckpointDescription, write_checkpoint
from .released_checkpoints import RELEASED, ReleasedCheckpoint
from .weight_map import has_pretraining_heads

ORIGINAL_LICENSE = BSD_3_CLAUSE  # of the released code and weights, AST's and SSAST's


@dataclass(frozen=True)
class Overrides:
    """What the user typed; whatever is `None` is found out.

    Args:
        model_size (`str`, *optional*): one of `HIDDEN_SIZES`.
        frequency_stride, time_stride (`int`, *optional*): distance of two patches in mel bins and in frames.
        max_length (`int`, *optional*): frames.
        num_mel_bins (`int`, *optional*): mel bins.
        labels (`str`, *optional*): see [`read_labels`].
        problem_type (`str`, *optional*): as in a Transformers configuration.
        normalization (`Sequence[float]`, *optional*): mean and standard deviation of the log-mel features.
        license (`str`, *optional*): licence of the weights, a Hub licence id.
    """

    model_size: str | None = None
    frequency_stride: int | None = None
    time_stride: int | None = None
    max_length: int | None = None
    num_mel_bins: int | None = None
    labels: str | None = None
    problem_type: str | None = None
    normalization: Sequence[float] | None = None
    license: str | None = None

    def geometry_flags(self) -> dict[str, int]:
        """Take the strides and sizes that were typed.

        Returns:
            Numbers by the name of their flag.
        """
        return {name: getattr(self, name) for name in GEOMETRY_FIELDS if getattr(self, name) is not None}


def convert_checkpoint(
    path: str | os.PathLike,
    output_dir: str | os.PathLike,
    overrides: Overrides = Overrides(),
    released: ReleasedCheckpoint | None = None,
    command: Sequence[str] = ("ast-convert",),
    report: Callable[[str], None] = print,
) -> None:
    """Convert a `.pth` of the original AST code, or an SSAST patch model, to a verified Hub checkpoint.

    Args:
        path (`str` or `os.PathLike`): the file.
        output_dir (`str` or `os.PathLike`): folder to make.
        overrides ([`Overrides`]): what the user typed.
        released ([`ReleasedCheckpoint`], *optional*): which released checkpoint it is; found by the file's name if not
            given.
        command (`Sequence[str]`): the command line, for the card.
        report (`Callable`): takes lines for the user.

    Raises:
        ConversionError: if the file cannot be converted; nothing is left behind then.
        FileExistsError: if the folder already holds something.
    """
    path = Path(path)
    refuse_existing(output_dir)
    source = read_original(path)
    digest = sha256_of(path)
    report(f"[1/3] source: {path.name}, {path.stat().st_size / 1e6:.1f} MB, SHA-256 {digest}")
    if source.left_out:
        report(f"      left out, unused by AST: {', '.join(source.left_out)}")
    released = released or RELEASED.get(path.stem)
    if released:
        _refuse_other_than_released(path, source, released)

    model_size = _model_size(path, source, overrides, released)
    geometry, how = _geometry(source, overrides, released)
    frequency, time = geometry.grid
    report(
        f"[2/3] {model_size}; strides {geometry.frequency_stride} x {geometry.time_stride}, {geometry.max_length} frames, "
        f"{geometry.num_mel_bins} mel bins, {frequency} x {time} patches ({how})"
    )
    description = _describe(source, geometry, overrides, released, report)
    license_id = overrides.license or (released.license if released else ORIGINAL_LICENSE)
    if note := license_note(overrides.license):
        report(f"      {note}")
    if not overrides.license:
        report(f"      licence {license_id}, that of the original code and weights; otherwise pass --license")
    description.summary = {
        **origin_section(command, base_model=None),
        "license": license_id,
        **({"license_notice": _notice(source)} if released or license_id == BSD_3_CLAUSE else {}),
        "source": path.name,
        "sha256": digest,
        **({"source_address": released.address, "published": _published(released)} if released else {}),
        "model": {"size": model_size},
        "conversion": {"left_out": source.left_out, "notes": _notes(source)},
    }
    agreement = write_checkpoint(output_dir, source.tensors, description)
    unverified = (
        " (against this kit's reading of SSAST's code; not against its outputs)" if source.is_pretraining else ""
    )
    report(f"[3/3] verified: {agreement}{unverified}")


def _refuse_other_than_released(path: Path, source: OriginalCheckpoint, released: ReleasedCheckpoint) -> None:
    found = (source.num_labels, source.num_patches, source.hidden_size)
    expected = (released.dataset.num_labels, released.geometry.num_patches, HIDDEN_SIZES[released.model_size])
    if found != expected:
        raise ConversionError(
            f"{path} is taken for the released {released.name}, but has {found[0]} labels, {found[1]} patches and width "
            f"{found[2]} where that has {expected[0]}, {expected[1]} and {expected[2]}. If it is another checkpoint, give "
            "it another file name."
        )


def _model_size(
    path: Path, source: OriginalCheckpoint, overrides: Overrides, released: ReleasedCheckpoint | None
) -> str:
    if not source.model_sizes:
        widths = ", ".join(f"{name} {width}" for name, width in HIDDEN_SIZES.items())
        raise ConversionError(
            f"{path} is {source.hidden_size} wide; the original's models are {widths}. Give one of its checkpoints."
        )
    if overrides.model_size and overrides.model_size not in source.model_sizes:
        raise ConversionError(
            f"--model_size {overrides.model_size} is {HIDDEN_SIZES[overrides.model_size]} wide, {path} is "
            f"{source.hidden_size}: {' or '.join(source.model_sizes)}. Leave the flag out."
        )
    return overrides.model_size or (released.model_size if released else " or ".join(source.model_sizes))


def _geometry(
    source: OriginalCheckpoint, overrides: Overrides, released: ReleasedCheckpoint | None
) -> tuple[PatchGeometry, str]:
    """The geometry, and in words how it was found."""
    flags = overrides.geometry_flags()
    known = released.geometry if released else source.pretraining_geometry
    if known and replace(known, **flags).num_patches == source.num_patches:
        how = f"as released as {released.name}" if released else "as the file says"
        return replace(known, **flags), f"{how}, and as typed" if flags else how
    if known and not flags:
        raise ConversionError(
            f"The file says {known.as_flags()}, which makes {known.num_patches} patches, but its position table has "
            f"{source.num_patches}. Give an unbroken checkpoint."
        )
    geometry = infer_geometry(source.num_patches, **flags)
    if {"frequency_stride", "time_stride", "max_length"} <= flags.keys():
        return geometry, "as typed"
    return (
        geometry,
        f"found from {source.num_patches} patches; otherwise pass --frequency_stride --time_stride --max_length",
    )


def _describe(
    source: OriginalCheckpoint,
    geometry: PatchGeometry,
    overrides: Overrides,
    released: ReleasedCheckpoint | None,
    report: Callable[[str], None],
) -> CheckpointDescription:
    """Labels, problem type and statistics, each reported with what it was concluded from."""
    given_labels = None if overrides.labels is None else read_labels(overrides.labels)
    dataset = _dataset(source, geometry, given_labels, released)
    labels = problem_type = None
    if source.num_labels is None:
        if given_labels or overrides.problem_type:
            raise ConversionError(
                "The checkpoint has no classifier, so --labels and --problem_type have no meaning. Leave them out; "
                "fine-tuning gives it one."
            )
        report("      no classifier: fine-tune it, or load it as ASTModel")
        if has_pretraining_heads(source.tensors):
            report("      with the heads of its pretraining: ASTForMaskedSpectrogramModeling has them")
    else:
        labels, how = _labels(source.num_labels, overrides.labels, given_labels, dataset, released)
        report(f"      {len(labels)} labels ({how})")
        problem_type, how = _problem_type(source.num_labels, overrides, dataset)
        report(f"      {problem_type} ({how})")
    mean, std, how = _normalization(source, overrides, dataset)
    report(
        f"      mean {mean}, std {std} ({how}{'' if overrides.normalization else '; otherwise pass --normalization'})"
    )
    return CheckpointDescription(geometry, labels, problem_type, mean, std, how)


def _dataset(
    source: OriginalCheckpoint,
    geometry: PatchGeometry,
    given_labels: list[str] | None,
    released: ReleasedCheckpoint | None,
) -> OriginalDataset | None:
    """Which of the authors' data sets the checkpoint was trained on, where that can be told."""
    if released:
        return released.dataset
    if given_labels and source.num_labels != AUDIOSET.num_labels:  # own names speak against another's data set
        return dataset_of(given_labels)
    for dataset in ORIGINAL_DATASETS.values():
        # 527 labels are AudioSet's at any length; 35 or 50 may be anybody's unless the recipe's length fits, too.
        usual_length = dataset is AUDIOSET or geometry.max_length == dataset.max_length
        if source.num_labels == dataset.num_labels and usual_length:
            return dataset
    return None


def _labels(
    num_labels: int,
    given: str | None,
    given_labels: list[str] | None,
    dataset: OriginalDataset | None,
    released: ReleasedCheckpoint | None,
) -> tuple[list[str], str]:
    """The labels, and in words where they are from."""
    if given_labels:
        if len(given_labels) != num_labels:
            raise ConversionError(
                f"--labels {given} has {len(given_labels)} names, the classifier {num_labels} outputs. Give a table of "
                f"{num_labels}."
            )
        return given_labels, Path(given).name
    if dataset is None:
        return [f"LABEL_{index}" for index in range(num_labels)], "numbered: the file has no names; pass --labels FILE"
    labels = read_labels(dataset.name)
    return labels, dataset.title if released else f"{dataset.title}, by their number; otherwise pass --labels FILE"


def _problem_type(num_labels: int, overrides: Overrides, dataset: OriginalDataset | None) -> tuple[str, str]:
    """The problem type, and in words why."""
    if overrides.problem_type:
        return overrides.problem_type, "as typed"
    if dataset:
        return dataset.problem_type, f"as {dataset.title} is; otherwise pass --problem_type"
    if num_labels == 1:  # one logit can only be a yes or no
        return "multi_label_classification", "of one output; otherwise pass --problem_type"
    return "single_label_classification", "assumed; otherwise pass --problem_type"


def _normalization(
    source: OriginalCheckpoint, overrides: Overrides, dataset: OriginalDataset | None
) -> tuple[float, float, str]:
    """Mean and standard deviation of the features, and in words where they are from."""
    if overrides.normalization:
        return *overrides.normalization, "as given when it was converted"
    if dataset or source.is_pretraining:
        known = dataset or AUDIOSET
        return known.mean, known.std, f"those of {known.title}, from the released code"
    return AUDIOSET.mean, AUDIOSET.std, "those of AudioSet, assumed when it was converted, as the file says none"


def _notice(source: OriginalCheckpoint) -> dict[str, str]:
    """Whose work it is that BSD-3-Clause asks to be named."""
    if source.is_pretraining:
        work = "the code and weights of SSAST, released by Yuan Gong, Cheng-I Lai, Yu-An Chung and James Glass"
        return {
            "work": work,
            "address": "https://github.com/YuanGongND/ssast",
            "copyright": "Copyright (c) 2022, Yuan Gong. All rights reserved.",
        }
    work = (
        "the code and weights of the Audio Spectrogram Transformer, released by Yuan Gong, Yu-An Chung and James Glass"
    )
    return {
        "work": work,
        "address": "https://github.com/YuanGongND/ast",
        "copyright": "Copyright (c) 2021, Yuan Gong. All rights reserved.",
    }


def _published(released: ReleasedCheckpoint) -> dict:
    return {
        released.metric: released.published_score,
        "by": "the authors (Gong et al. 2021)",
        "weight_averaged": released.weight_averaged,
        "on_the_hub": released.hub_id,
    }


def _notes(source: OriginalCheckpoint) -> list[str]:
    if not source.is_pretraining:
        return []
    return [
        "SSAST's self-supervised pretraining (Gong et al., AAAI 2022): there is no classifier yet, fine-tune it.",
        "Unverified against SSAST's own outputs: tensors and forward pass are AST's as far as its code tells.",
    ]

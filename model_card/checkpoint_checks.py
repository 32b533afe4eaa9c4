"""Whether a checkpoint folder can be published: its files are there and whole, and say the same of the labels.

Nothing here needs a network, and nothing is changed.
"""

import shlex
from collections import Counter
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import ModelCard, metadata_load

from modeling_ast import ASTConfig
from modeling_ast.checkpoints.fields import read_settings
from modeling_ast.checkpoints.folder import check_checkpoint_dir
from modeling_ast.checkpoints.tensor_names import is_wrapped
from modeling_ast.checkpoints.weights import (
    open_weights,
    refuse_broken,
    refuse_faults,
    refuse_other_weights,
    shapes_in,
    weight_files,
)
from modeling_ast.loading import check_model_name, has_frame_head

from .file_names import (
    CARD_NAME,
    CONFIG_NAME,
    FEATURE_EXTRACTOR_NAME,
    OPTIONAL,
    RECIPE_NAME,
    REQUIRED,
    WEIGHTS_INDEX_NAME,
    WEIGHTS_NAME,
)
from .licenses import license_note
from .render import is_rendered
from .run_summary import RUN_SUMMARY_NAME
from .yaml_files import check_front_matter

CLASSIFIER_WEIGHT, FRAME_CLASSIFIER_WEIGHT = "classifier.dense.weight", "frame_classifier.dense.weight"
DEFAULT_LABELS = ["LABEL_0", "LABEL_1"]  # of Transformers, which does not write them into config.json


def files_to_publish(checkpoint_dir: str | Path) -> dict[str, Path]:
    """Choose what is published of a checkpoint folder: weights, settings, card, and what trainings write beside them.

    Args:
        checkpoint_dir (`str` or `Path`): folder of a finished training or conversion, or another AST checkpoint.

    Returns:
        `dict[str, Path]`: path in the repository (with `/`) to the file; nothing that a user put there by chance.

    Raises:
        FileNotFoundError: if the folder, or a file that a checkpoint cannot do without, is not there.
        ValueError: if the list of the files of weights cannot be read, the training ended before its result was whole, or a
            file is a link that leads out of the folder.
    """
    folder = Path(checkpoint_dir)
    check_checkpoint_dir(folder)
    if any(folder.glob("checkpoint-*")) and not (folder / CONFIG_NAME).is_file():
        raise ValueError(
            f"{folder} has no {CONFIG_NAME}: its training is not finished. Type its command again with "
            "--resume_from_checkpoint true."
        )
    check_model_name(folder)
    if (folder / RECIPE_NAME).is_file() and not (folder / RUN_SUMMARY_NAME).is_file():
        raise ValueError(
            f"{folder} has a {RECIPE_NAME} but no {RUN_SUMMARY_NAME}, which a training writes last, so it ended before its "
            "result was whole. Type the training's command again with --resume_from_checkpoint true."
        )
    if not (folder / CARD_NAME).is_file():
        how = f"Type ast-model-card {folder} to have it written."
        if not (folder / RUN_SUMMARY_NAME).is_file():
            how = "Write one with a metadata block at its top; ast-finetune and ast-convert do."
        raise FileNotFoundError(f"{folder} has no {CARD_NAME}, the model card. {how}")
    weights = [path.name for path in weight_files(folder)]
    if weights != [WEIGHTS_NAME]:
        weights.append(WEIGHTS_INDEX_NAME)
    names = [*REQUIRED, *weights, *(name for name in OPTIONAL if (folder / name).is_file())]
    files = {name: folder / name for name in sorted(names)}
    for path in files.values():
        _refuse_link(path, folder)
    return files


def _refuse_link(path: Path, folder: Path):
    """Refuse a file that is elsewhere: what a link leads to may be anything that this user can read."""
    target, inside = path.resolve(), folder.resolve()
    inside = inside.parents[1] if inside.parent.name == "snapshots" else inside  # in the cache of the Hub's client
    if not target.is_relative_to(inside):
        raise ValueError(
            f"{path} is a link to {target}, outside {folder}, and only what lies in that folder is published. If it belongs "
            f"there, put the file itself in its place: {shlex.join(['cp', '--remove-destination', str(target), str(path)])}"
        )


def check_checkpoint(checkpoint_dir: str | Path) -> list[str]:
    """Refuse a checkpoint that nobody could use, or whose files contradict each other.

    Args:
        checkpoint_dir (`str` or `Path`): a folder for which [`files_to_publish`] finds its files.

    Returns:
        `list[str]`: what the user should know, a line each.

    Raises:
        ValueError: if a file cannot be read; if labels, classifier and run summary disagree; if weights are not numbers;
            if the card has no metadata that the Hub could read.
    """
    folder = Path(checkpoint_dir)
    config = read_settings(folder / CONFIG_NAME)
    read_settings(folder / FEATURE_EXTRACTOR_NAME)
    weights = weight_files(folder)
    _refuse_wrapped_names(weights)
    shapes = shapes_in(weights)
    refuse_other_weights(folder, ASTConfig.from_dict(dict(config)), shapes)
    name = FRAME_CLASSIFIER_WEIGHT if has_frame_head(config) else CLASSIFIER_WEIGHT
    classifier = shapes.get(name)
    if classifier is not None and len(classifier) != 2:
        refuse_faults(folder, [f"{name} has shape {classifier}, expected (labels, width)"])
    check_labels(config, None if classifier is None else classifier[0], folder)
    _refuse_broken_weights(weights)
    return check_card(folder)


def check_labels(config: dict[str, Any], rows: int | None, folder: Path):
    """Compare the labels of a configuration with each other and with the classifier.

    Args:
        config (`dict`): what `config.json` holds.
        rows (`int`, *optional*): labels of the classifier in the weights; `None` if there is no classifier.
        folder (`Path`): where these are, for messages.

    Raises:
        ValueError: if they disagree.
    """
    place = folder / CONFIG_NAME
    id2label = config.get("id2label")
    labels = list(DEFAULT_LABELS if id2label is None else id2label.values())
    if rows is None:
        if id2label is not None:
            raise ValueError(
                f"{place} names {len(labels)} labels, but the weights have no {CLASSIFIER_WEIGHT}. Save the model with its "
                "classifier, or take id2label and label2id out."
            )
        return
    if id2label is not None and sorted(id2label) != sorted(map(str, range(len(labels)))):
        raise ValueError(
            f"{place}: the keys of id2label are {sorted(id2label)!r:.200}, expected 0 to {len(labels) - 1}."
        )
    if len(labels) != rows:
        raise ValueError(
            f"{place} names {len(labels)} labels, but the classifier in the weights has {rows}. Put the config.json of these "
            "weights there."
        )
    doubled = [label for label, count in Counter(labels).items() if count > 1]
    if doubled:
        raise ValueError(f"{place} has the label {doubled[0]!r} more than once. Give every label a name of its own.")
    if config.get("num_labels", rows) != rows:
        raise ValueError(
            f"{place} says num_labels={config['num_labels']}, but has {rows} labels. Take num_labels out."
        )
    label2id = config.get("label2id")
    expected = {label: int(index) for index, label in (id2label or {}).items()}
    if id2label is not None and label2id is not None and label2id != expected:
        wrong = min(label for label in expected | label2id if expected.get(label) != label2id.get(label))
        raise ValueError(
            f"{place}: id2label and label2id disagree on {wrong!r} ({expected.get(wrong)} and {label2id.get(wrong)}). Make "
            "label2id the inverse of id2label."
        )


def _refuse_wrapped_names(weights: list[Path]):
    for path in weights:
        with open_weights(path) as tensors:
            wrapped = next(filter(is_wrapped, tensors.keys()), None)
        if wrapped:
            raise ValueError(
                f"{path} has the tensor {wrapped}, as saved from a compiled or distributed model. This kit reads it, but stock "
                f"Transformers would not: save it again with ASTForAudioClassification.from_pretrained({str(path.parent)!r})"
                ".save_pretrained(FOLDER)."
            )


def _refuse_broken_weights(weights: list[Path]):
    for path in weights:
        with open_weights(path, "pt") as tensors:
            refuse_broken(path, ((name, tensors.get_tensor(name)) for name in tensors.keys()))  # noqa: SIM118 - no mapping


def check_card(folder: Path) -> list[str]:
    """Read the card as the Hub would, and compare it with the one that the run summary makes.

    Args:
        folder (`Path`): with a `README.md`; without a run summary there is nothing to compare it with.

    Returns:
        `list[str]`: what the user should know, a line each.

    Raises:
        ValueError: if its metadata block is missing or cannot be read, or the run summary is of another checkpoint.
    """
    path = folder / CARD_NAME
    summary = (folder / RUN_SUMMARY_NAME).is_file()
    mend = (
        f"Type ast-model-card {folder} to write it anew." if summary else "Mend the block between the two lines ---."
    )
    try:
        check_front_matter(path.read_text(encoding="utf-8"), CARD_NAME)
        metadata = metadata_load(path)
        if metadata:
            ModelCard.load(path)  # its model index too
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(f"The metadata of {path} cannot be read: {' '.join(str(error).split())}. {mend}") from error
    if not metadata:
        raise ValueError(f"{path} has no metadata block at its top. {mend}")
    note = license_note(str(metadata["license"])) if metadata.get("license") else None
    notes = [f"{CARD_NAME}: {note}"] if note else []
    if not summary or is_rendered(folder):
        return notes
    return [
        *notes,
        f"{CARD_NAME} is not what {RUN_SUMMARY_NAME} gives today: it was edited, or the folder has another name, or it is of "
        f"an older version. It is published as it is; type ast-model-card {folder} to write it anew.",
    ]


def has_classifier(folder: Path) -> bool:
    """Tell whether the weights of a checkpoint hold a classifier, of clips or of frames.

    Args:
        folder (`Path`): with weights and configuration.

    Returns:
        `bool`.
    """
    name = FRAME_CLASSIFIER_WEIGHT if has_frame_head(read_settings(folder / CONFIG_NAME)) else CLASSIFIER_WEIGHT
    return name in shapes_in(weight_files(folder))

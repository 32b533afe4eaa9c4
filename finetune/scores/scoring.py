"""Scores of finished checkpoints on a split, alone and as an ensemble, and the section that reports them.

An ensemble is the mean of its models' probabilities, as in Gong et al. 2021: models of one geometry and other seeds or
epochs, or models of other patch strides. Each model hears the clips through the feature extractor saved with it.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import datasets
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from modeling_ast import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification, ASTForMaskedSpectrogramModeling
from modeling_ast.audio import AudioError, AudioNote, AudioReader
from modeling_ast.loading import FRAMES_REFUSED, check_model_name, has_frame_head, hub_errors_in_words
from modeling_ast.scores import problem_type_of, scores_from_logits
from modeling_ast.tagging.embeddings import logits_and_pooled
from modeling_ast.tagging.tagger import AudioTagger

from ..clip_sets.clip_datasets import clip_dataset
from ..clip_sets.clip_oddities import waveform_oddities
from ..clip_sets.clip_set import ClipSet
from ..clip_sets.collator import ASTDataCollator, model_inputs
from ..clip_sets.loader_errors import loader_errors
from ..clip_sets.waveform_cache import WaveformCache
from ..clip_sets.waveforms import WHOLE, ASTDataset, ClipDataset
from ..sources.data_errors import names_in_short
from ..sources.labels import is_multi_label, label_names, that_count
from .clip_scores import means_of_clips, references_of_clips, scores_of_clips
from .metrics import classification_scores, clips_without_labels, confusion, left_out, per_class_table

PROBLEM_TYPES = {"softmax": "single_label_classification", "sigmoid": "multi_label_classification"}


class ScoringError(ValueError):
    """Models or data that cannot be scored together; the message says what to pass instead."""


class DivergedError(RuntimeError):
    """A model whose scores are not numbers."""


@dataclass(frozen=True)
class Hearing:
    """How the clips of an evaluation are heard, and what is said of them.

    Args:
        channels (`str` or `int`, *optional*): which channels, if not those of the checkpoints.
        refused (`frozenset[str]`, *optional*): kinds of notes that are errors.
        noted (`dict[tuple[AudioNote, ...], None]`, *optional*): the notes of each clip that has some, once, in the order in
            which they were found.
        novelty (`dict[str, UnlikeClips]`, *optional*): of each model that keeps its training clips how many of the clips are unlike
            these.
    """

    channels: str | int | None = None
    refused: frozenset[str] = frozenset()
    noted: dict[tuple[AudioNote, ...], None] = field(default_factory=dict)
    novelty: dict[str, "UnlikeClips"] = field(default_factory=dict)


@dataclass(frozen=True)
class UnlikeClips:
    """How many of so many clips are farther from a model's training clips than its threshold."""

    beyond: int
    scored: int
    threshold: float


class ClipScoresError(AudioError):
    """Clips whose scores are not numbers, where the model gives numbers for others; the message names their files."""


def probabilities(
    logits: torch.Tensor | np.ndarray, problem_type: str, dataset: ClipDataset | None = None
) -> np.ndarray:
    """Probabilities of every label: softmax for exclusive labels, sigmoid for independent ones.

    Args:
        logits (`torch.Tensor` or `np.ndarray` of shape `(clips, labels)`): the model's output.
        problem_type (`str`): `"single_label_classification"` or `"multi_label_classification"`.
        dataset ([`ClipDataset`], *optional*): the clips, to name those that are at fault.

    Returns:
        `np.ndarray` of shape `(clips, labels)`, float32.

    Raises:
        DivergedError: if the scores of all clips are NaN or infinite.
        ClipScoresError: if those of some clips are.
    """
    scores = scores_from_logits(torch.as_tensor(logits), problem_type).cpu().numpy()
    faulty = np.flatnonzero(~np.isfinite(scores).all(axis=1))
    if len(faulty) == len(scores) > 0:
        raise DivergedError(
            "The model's scores are not numbers: its training diverged. Train it with a lower --learning_rate or with "
            "--max_grad_norm 1."
        )
    if len(faulty):
        number = len(scores)
        if getattr(dataset, "clip_of_item", None) is not None:  # of a clip one window is named
            faulty, number = faulty[np.unique(dataset.clip_of_item[faulty], return_index=True)[1]], dataset.num_clips
        names = [f"clip {index + 1}" if dataset is None else _described(dataset, index) for index in faulty.tolist()]
        raise ClipScoresError(
            f"The model gives scores that are not numbers for {len(faulty)} of {number} clips, and numbers for the "
            f"others: {names_in_short(names)}. Repair or leave out what is named here."
        )
    return scores


def _described(dataset: ClipDataset, index: int) -> str:
    """A clip's name and what is unusual about its waveform, if it has one."""
    item = dataset[index]
    if "waveform" not in item and dataset.hears_audio:  # its features are kept
        item = {"waveform": next(iter(dataset.waveforms([index])))}
    odd = waveform_oddities(item["waveform"]) if "waveform" in item else []
    return f"{dataset.name(index)} ({'; '.join(odd)})" if odd else dataset.name(index)


def predict_scores(
    model: ASTForAudioClassification,
    feature_extractor: ASTFeatureExtractor,
    dataset: ASTDataset,
    batch_size: int,
    device: str | torch.device | None = None,
    num_workers: int = 0,
    function: str | None = None,
    description: str | None = None,
    noted: list[tuple[AudioNote, ...]] | None = None,
    pooled: list[np.ndarray] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of a model on a data set, with features computed on its device as in training.

    Nothing is augmented, and clips are padded as the feature extractor says. Of a clip that is heard in several windows, the
    scores are the data set's `reduction` of theirs.

    Args:
        model ([`ASTForAudioClassification`]): the model; it is moved to the device and left in evaluation mode.
        feature_extractor ([`ASTFeatureExtractor`]): the one that belongs to it.
        dataset ([`ASTDataset`]): clips at its sampling rate; see [`checkpoint_dataset`].
        batch_size (`int`): clips in one pass of the model.
        device (`str` or `torch.device`, *optional*): where to compute; where the model is if not given.
        num_workers (`int`, defaults to 0): processes that decode.
        function (`str`, *optional*): `"softmax"` or `"sigmoid"`; what the configuration's `problem_type` asks for if not
            given.
        description (`str`, *optional*): what a progress bar is headed with; no bar if not given, or away from a terminal.
        noted (`list[tuple[AudioNote, ...]]`, *optional*): to which is added what is to be said of clips that are decoded,
            by clip.
        pooled (`list[np.ndarray]`, *optional*): to which is added what the classifier reads of each item, batch by batch, of
            shape `(batch, hidden)`.

    Returns:
        Scores of shape `(clips, labels)`, float32, and references as the data set has them: label indices of shape
        `(clips,)` or multi-hot of shape `(clips, labels)`; see [`that_count`] for soft labels.

    Raises:
        ScoringError: for another `function`, or a regression.
        DivergedError: if the scores are not numbers.
        AudioError: if a clip cannot be decoded, or its scores are not numbers.
    """
    problem_type = _problem_type(model.config, function)
    logits, references = [], []
    loading = (batch_size, model.device if device is None else torch.device(device), num_workers, description)
    for labels, of_batch, vectors, notes in _passes(model, feature_extractor, dataset, *loading):
        references.append(that_count(labels) if labels.ndim == 2 else labels)
        logits.append(of_batch)
        if noted is not None:
            noted += notes
        if pooled is not None:
            pooled.append(vectors)
    scores = scores_of_clips(probabilities(torch.cat(logits), problem_type, dataset), dataset)
    return scores, references_of_clips(np.concatenate(references), dataset)


def pooled_vectors(
    model: ASTForAudioClassification,
    feature_extractor: ASTFeatureExtractor,
    items: Dataset,
    batch_size: int,
    device: str | torch.device,
    num_workers: int = 0,
) -> np.ndarray:
    """What a model's classifier reads of clips, as [`predict_scores`] has them heard.

    Args:
        model ([`ASTForAudioClassification`]): see [`predict_scores`].
        feature_extractor ([`ASTFeatureExtractor`]): see [`predict_scores`].
        items (`Dataset`): of an [`ASTDataset`], or some of its items.
        batch_size (`int`): items in one pass of the model.
        device (`str` or `torch.device`): where to compute.
        num_workers (`int`, defaults to 0): processes that decode.

    Returns:
        `np.ndarray` of shape `(items, hidden)`, float32.

    Raises:
        AudioError: if a clip cannot be decoded.
    """
    return vectors_and_targets(model, feature_extractor, items, batch_size, device, num_workers)[0]


def vectors_and_targets(
    model: ASTForAudioClassification,
    feature_extractor: ASTFeatureExtractor,
    items: Dataset,
    batch_size: int,
    device: str | torch.device,
    num_workers: int = 0,
    description: str | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """What a model's classifier reads of clips, and what it is trained to make of them.

    Args:
        model ([`ASTForAudioClassification`]): see [`predict_scores`].
        feature_extractor ([`ASTFeatureExtractor`]): see [`predict_scores`].
        items (`Dataset`): see [`pooled_vectors`].
        batch_size (`int`): items in one pass of the model.
        device (`str` or `torch.device`): where to compute.
        num_workers (`int`, defaults to 0): processes that decode.
        description (`str`, *optional*): see [`predict_scores`].

    Returns:
        Vectors of shape `(items, hidden)`, float32; and the items' label indices of shape `(items,)`, or float32 vectors of
        shape `(items, labels)`.

    Raises:
        AudioError: if a clip cannot be decoded.
    """
    passes = _passes(model, feature_extractor, items, batch_size, torch.device(device), num_workers, description)
    found = [(vectors, targets) for targets, _, vectors, _ in passes]
    vectors, targets = zip(*found, strict=True)
    return np.concatenate(vectors), np.concatenate(targets)


def _passes(
    model: ASTForAudioClassification,
    feature_extractor: ASTFeatureExtractor,
    items: Dataset,
    batch_size: int,
    device: torch.device,
    num_workers: int,
    description: str | None = None,
) -> Iterator[tuple[np.ndarray, torch.Tensor, np.ndarray, list[tuple[AudioNote, ...]]]]:
    """Labels, logits, what the classifier reads, and notes of clips, batch by batch."""
    model = model.to(device).eval()
    batches = DataLoader(
        items,
        batch_size=batch_size,
        num_workers=num_workers,
        collate_fn=_CollatorWithNotes(feature_extractor),
    )
    hide = True if description is None else None  # None: shown on a terminal
    with loader_errors():
        for batch, notes in tqdm(batches, desc=description, unit="batch", disable=hide):
            batch = {
                name: value.to(device) if isinstance(value, torch.Tensor) else value for name, value in batch.items()
            }
            with torch.inference_mode():
                inputs = model_inputs(batch, feature_extractor)
                labels = inputs.pop("labels").cpu().numpy()
                logits, pooled = logits_and_pooled(model, inputs)
            yield labels, logits.float().cpu(), pooled.float().cpu().numpy(), notes


class _CollatorWithNotes:
    """A batch, and what is to be said of its clips."""

    def __init__(self, feature_extractor: ASTFeatureExtractor):
        self.collator = ASTDataCollator(feature_extractor, compute_features=False)

    def __call__(self, items: list[dict]) -> tuple[dict, list[tuple[AudioNote, ...]]]:
        return self.collator(items), [item["notes"] for item in items if "notes" in item]


def checkpoint_dataset(
    split: ClipSet | datasets.Dataset, feature_extractor: ASTFeatureExtractor, reader: AudioReader | None = None
) -> ClipDataset:
    """Make a data set of the clips as a checkpoint hears them: at its sampling rate, cut to its length.

    Args:
        split ([`ClipSet`] or `datasets.Dataset`): the clips.
        feature_extractor ([`ASTFeatureExtractor`]): that of the checkpoint.
        reader ([`AudioReader`], *optional*): how audio files are heard; as the feature extractor says if not given.

    Returns:
        [`ClipDataset`].
    """
    return clip_dataset(split, feature_extractor, reader=reader)


def label_order(config: ASTConfig) -> list[str]:
    """A checkpoint's labels in output order.

    Args:
        config ([`ASTConfig`]): of the checkpoint.

    Returns:
        `list[str]`: names.
    """
    return [config.id2label[index] for index in range(config.num_labels)]


def common_labels(models: Sequence[str]) -> list[str]:
    """The labels of several checkpoints in the first one's order, from their configurations alone.

    Args:
        models (sequence of `str`): checkpoint folders or Hub ids.

    Returns:
        `list[str]`: names.

    Raises:
        ScoringError: if no model was given, one has no classifier of clips, or they have not all the same labels.
        CheckpointError: if one is no checkpoint of this kind of model.
    """
    if not models:
        raise ScoringError("No model was given. Pass --model_name_or_path with one or several.")
    orders = []
    for model in models:
        check_model_name(model)
        with hub_errors_in_words(model):
            config = ASTConfig.from_pretrained(model)
        _refuse_other_heads(model, config)
        orders.append(label_order(config))
    for model, order in zip(models[1:], orders[1:], strict=True):
        _refuse_other_labels(model, order, orders[0])
    return orders[0]


def _refuse_other_heads(model: str, config: ASTConfig):
    """Refuse what tells no labels of clips, before its labels are compared with theirs."""
    if has_frame_head(config.to_dict()):
        raise ScoringError(f"{model} cannot be scored: {FRAMES_REFUSED}")
    if ASTForMaskedSpectrogramModeling.__name__ in (config.architectures or ()):
        raise ScoringError(
            f"{model} was pretrained without labels and has no classifier. Fine-tune it first (ast-finetune --model_name_or_path "
            f"{model}) and pass the folder which that writes."
        )


def _refuse_other_labels(model: str, own: list[str], labels: list[str]):
    only, lacking = sorted(set(own) - set(labels)), sorted(set(labels) - set(own))
    if only or lacking:
        differences = [f"it alone has {names_in_short(only)}"] if only else []
        differences += [f"it lacks {names_in_short(lacking)}"] if lacking else []
        raise ScoringError(
            f"{model} has other labels than the rest: {', '.join(differences)}. The mean of scores needs the same labels. Pass "
            "--model_name_or_path with models that were trained on the same ones."
        )


def checkpoint_scores(
    model_name_or_path: str,
    split: ClipSet | datasets.Dataset,
    batch_size: int,
    device: str = "auto",
    num_workers: int | None = 0,
    function: str | None = None,
    description: str | None = None,
    waveform_cache: str | None = None,
    hearing: Hearing | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Load a checkpoint, score a split with it, and let go of it.

    Args:
        model_name_or_path (`str`): checkpoint folder or Hub id.
        split ([`ClipSet`] or `datasets.Dataset`): clips whose labels are those of the checkpoint, in any order.
        batch_size (`int`): clips that are scored at once.
        device (`str`, defaults to `"auto"`): `"cpu"`, `"cuda"`, `"mps"`, or `"auto"` for the fastest that is there.
        num_workers (`int`, *optional*, defaults to 0): processes that decode; if not given, none but for a cache; see [`read_in_turn`].
        function (`str`, *optional*): see [`predict_scores`].
        description (`str`, *optional*): what the progress bar is called.
        waveform_cache (`str`, *optional*): folder of decoded clips; see [`WaveformCache`].
        hearing ([`Hearing`], *optional*): how clips are heard, if not as the checkpoint says, and what is said of them.

    Returns:
        Scores of shape `(clips, labels)`, float32, columns in the order of the *split's* labels, and references.

    Raises:
        ScoringError: if the checkpoint's labels are not those of the split, or its scores are of another kind than the
            split's labels.
        CheckpointError: if it cannot be loaded.
    """
    hearing = hearing or Hearing()
    # Refuses what has no trained classifier.
    tagger = AudioTagger.from_pretrained(model_name_or_path, device, hearing.channels, hearing.refused)
    model, feature_extractor = tagger.model, tagger.feature_extractor
    labels, own = label_names(split), label_order(model.config)
    _refuse_other_labels(model_name_or_path, own, labels)
    if function is None and is_multi_label(split) and tagger.problem_type == PROBLEM_TYPES["softmax"]:
        raise ScoringError(
            f"The clips have any number of labels, but {model_name_or_path} takes its labels as exclusive "
            f"(problem_type {tagger.problem_type}), so that its scores add up to 1. Pass a multi-label model, or --function "
            "sigmoid to take each output for itself."
        )
    dataset = checkpoint_dataset(split, feature_extractor, tagger.reader)
    # Of the models before this one.
    dataset.said.add(note.text for of_clip in hearing.noted for note in of_clip)
    noted: list[tuple[AudioNote, ...]] = []
    if waveform_cache:
        noted += _read_from_cache(dataset, waveform_cache, num_workers)
    pooled: list[np.ndarray] | None = [] if tagger.known_clips is not None else None
    scores, references = predict_scores(
        model,
        feature_extractor,
        dataset,
        batch_size,
        tagger.device,
        num_workers or 0,
        function,
        description,
        noted,
        pooled,
    )
    hearing.noted.update(dict.fromkeys(noted))
    if pooled is not None:
        distances = means_of_clips(tagger.known_clips.distances(np.concatenate(pooled)), dataset.clip_of_item)
        threshold = tagger.known_clips.threshold
        hearing.novelty[model_name_or_path] = UnlikeClips(
            int((distances > threshold).sum()), len(distances), threshold
        )
    return scores[:, [own.index(label) for label in labels]], references


def _read_from_cache(dataset: ASTDataset, folder: str, num_workers: int | None) -> list[tuple[AudioNote, ...]]:
    """Let a data set take its clips from a cache, which is filled; what is to be said of them is logged and returned."""
    needed = dataset.max_samples if dataset.clip_of_item is None else WHOLE
    cache = WaveformCache(folder, dataset.reader, needed)
    filled = cache.fill(dataset.split, num_workers)
    if filled.faults:
        raise AudioError(filled.faults[min(filled.faults)])
    dataset.read_from(cache.waveforms(dataset.split))
    notes = [filled.notes[row] for row in sorted(filled.notes)]
    dataset.said.log(note for of_clip in notes for note in of_clip)
    return notes


def ensemble_scores(
    models: Sequence[str],
    split: ClipSet | datasets.Dataset,
    batch_size: int,
    device: str = "auto",
    num_workers: int | None = 0,
    function: str | None = None,
    each: Callable[[str, np.ndarray, np.ndarray], None] | None = None,
    waveform_cache: str | None = None,
    hearing: Hearing | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The mean of several checkpoints' probabilities; one of them is in memory at a time.

    They may differ in strides, length, normalisation, padding and sampling rate, and in the order of their labels.

    Args:
        models (sequence of `str`): checkpoint folders or Hub ids.
        split ([`ClipSet`] or `datasets.Dataset`): clips whose labels are those of the checkpoints.
        batch_size (`int`): clips that are scored at once.
        device (`str`, defaults to `"auto"`): see [`checkpoint_scores`].
        num_workers (`int`, *optional*, defaults to 0): processes that decode; if not given, none but for a cache; see [`read_in_turn`].
        function (`str`, *optional*): see [`predict_scores`].
        each (`callable`, *optional*): called with a model's name, its scores and the references, as soon as it is scored.
        waveform_cache (`str`, *optional*): folder of decoded clips; see [`WaveformCache`].
        hearing ([`Hearing`], *optional*): see [`checkpoint_scores`].

    Returns:
        Scores of shape `(clips, labels)`, float64, and references. Of a single model the scores are its own.

    Raises:
        ScoringError: if no model was given; see also [`checkpoint_scores`].
    """
    common_labels(models)  # found out before hours are spent on the first
    total = 0.0
    for number, model in enumerate(models, 1):
        description = f"model {number} of {len(models)}"
        scores, references = checkpoint_scores(
            model, split, batch_size, device, num_workers, function, description, waveform_cache, hearing
        )
        if each is not None:
            each(model, scores, references)
        total = total + scores.astype(np.float64)
    return total / len(models), references


def evaluation_section(
    scores: np.ndarray,
    references: np.ndarray,
    labels: Sequence[str],
    split: str,
    protocol: str | None = None,
    metrics: dict[str, float] | None = None,
    thresholds: dict[str, float] | None = None,
) -> dict:
    """The section `evaluation` of the run summary, which the model card reads.

    Args:
        scores (`np.ndarray` of shape `(clips, labels)`): probabilities.
        references (`np.ndarray`): label indices of shape `(clips,)`, or multi-hot of shape `(clips, labels)`.
        labels (sequence of `str`): names in output order.
        split (`str`): what the scored clips are called.
        protocol (`str`, *optional*): in words, which weights were scored and how they were chosen.
        metrics (`dict[str, float]`, *optional*): if they were computed already, perhaps with a loss.
        thresholds (`dict[str, float]`, *optional*): of multi-hot references, the score from which each label counts as
            found in precision, recall and F1; 0.5 if not given.

    Returns:
        A dictionary of plain values; `left_out` names the labels without clips, which no mean includes;
        `clips_without_labels` says how many clips the accuracy does not include, if there are any. `confusion_matrix` is
        there for exclusive labels only.
    """
    multi_label = references.ndim == 2
    thresholds = thresholds if multi_label else None
    if metrics is None:
        levels = [thresholds[label] for label in labels] if thresholds else None
        metrics = classification_scores(scores, references, multi_label, levels)
    table = per_class_table(scores, references, list(labels), thresholds or None)
    section = {
        "split": split,
        "clips": len(scores),
        **({"protocol": protocol} if protocol else {}),
        "metrics": metrics,
        "left_out": left_out(references, list(labels)),
        "per_class": table,
    }
    unlabelled = clips_without_labels(references)
    if unlabelled:
        section["clips_without_labels"] = unlabelled
    if not multi_label:
        section["confusion_matrix"] = confusion(scores, references, len(labels))
    return section


def _problem_type(config, function: str | None) -> str:
    if function is not None and function not in PROBLEM_TYPES:
        raise ScoringError(f"function={function!r} is not among {', '.join(PROBLEM_TYPES)}. Pass one of these.")
    problem_type = PROBLEM_TYPES[function] if function else problem_type_of(config)
    if problem_type not in PROBLEM_TYPES.values():
        raise ScoringError(
            f"The model's problem_type is {problem_type!r}: it has no labels to score. Pass a model that classifies."
        )
    return problem_type

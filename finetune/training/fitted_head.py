"""A classifier that is fitted to the training clips before the first step, in place of a random one: `--head_start fitted`.

Linear probing, then fine-tuning (Kumar et al., "Fine-Tuning can Distort Pretrained Features and Underperform Out-of-Distribution",
ICLR 2022): the gradients of a random classifier change the encoder before the classifier is of use. The paper trains the
classifier by gradient descent; here it is scikit-learn's logistic regression, which finds the optimum in one go, of vectors
that are computed once, without augmentation. Its LayerNorm is left with ones and zeros.
"""

import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import nn
from torch.utils.data import Subset

from modeling_ast import ASTFeatureExtractor
from modeling_ast.modeling_ast import ASTMLPHead
from modeling_ast.scores import scores_from_logits

from ..clip_sets.waveforms import ClipDataset
from ..scores.metrics import classification_scores
from ..scores.scoring import PROBLEM_TYPES, ClipScoresError, DivergedError, vectors_and_targets
from ..sources.data_errors import names_in_short
from ..sources.labels import that_count

FITTED_HEAD = "fitted_head"  # what is recorded of it, in the log of a training and in the run summary
COUNTS = ("clips", "windows")  # of it; what else there is are scores
MOST_WINDOWS = 10_000  # that a classifier is fitted to; of more, so many are drawn
LEAST_SPREAD = 1e-4  # of a feature, whose values are about 1: what is less is rounding of float32 for the most part
DRAW_STREAM = 105  # sets these random numbers apart from others of the seed
MOST_ITERATIONS = (
    1_000  # of the solver, ten times scikit-learn's own; where they do not suffice, it is a start all the same
)
UNSEEN = 0.5  # clips of a kind that a label has none of, so that its probability is neither 0 nor 1


class LinearHead(NamedTuple):
    """A linear classifier of vectors that are layer-normalised.

    Attributes:
        weight (`np.ndarray` of shape `(labels, hidden)`): float64.
        bias (`np.ndarray` of shape `(labels,)`): float64.
    """

    weight: np.ndarray
    bias: np.ndarray


def heads_of(model: nn.Module) -> list[ASTMLPHead]:
    """Find the classifiers of a model.

    Args:
        model (`torch.nn.Module`): perhaps with adapters, which train a copy of the classifier.

    Returns:
        `list[ASTMLPHead]`: all of them.
    """
    return [module for module in model.modules() if isinstance(module, ASTMLPHead)]


def layer_normalised(vectors: np.ndarray, eps: float) -> np.ndarray:
    """Normalise vectors as the classifier's LayerNorm does with ones and zeros.

    Args:
        vectors (`np.ndarray` of shape `(windows, hidden)`): the pooled output.
        eps (`float`): of the LayerNorm.

    Returns:
        `np.ndarray` of shape `(windows, hidden)`, float64.
    """
    given = torch.from_numpy(vectors).double()
    return nn.functional.layer_norm(given, given.shape[-1:], eps=eps).numpy()


def fit_linear_head(
    vectors: np.ndarray, targets: np.ndarray, num_labels: int, problem_type: str, balanced: bool = False
) -> LinearHead:
    """Fit a linear classifier by scikit-learn's logistic regression (C = 1) of standardised vectors.

    The standardisation is part of what is given back. Exclusive labels are fitted together (multinomial), independent ones each by
    itself. A share between 0 and 1 counts as a clip that has the label and one that has it not, weighted by it. A label that no
    window has, or every one, has no weights, and the bias of its frequency.

    Args:
        vectors (`np.ndarray` of shape `(windows, hidden)`): finite.
        targets (`np.ndarray`): label indices of shape `(windows,)`, or shares of the labels of shape `(windows, labels)`.
        num_labels (`int`): labels of the model.
        problem_type (`str`): `"single_label_classification"` or `"multi_label_classification"`.
        balanced (`bool`, defaults to `False`): whether rare labels weigh more, as scikit-learn's `class_weight="balanced"`.

    Returns:
        [`LinearHead`]: for vectors as they were given.

    Raises:
        ValueError: if the labels are exclusive and all windows have the same.
    """
    shares = np.eye(num_labels)[targets] if targets.ndim == 1 else targets.astype(np.float64)
    scaler = StandardScaler().fit(vectors)
    spread = np.maximum(scaler.scale_, LEAST_SPREAD)
    standardised = (vectors - scaler.mean_) / spread
    fit = _exclusive if problem_type == PROBLEM_TYPES["softmax"] else _independent
    weight, bias = fit(standardised, shares, "balanced" if balanced else None)
    weight = weight / spread
    return LinearHead(weight, bias - weight @ scaler.mean_)


def _exclusive(vectors: np.ndarray, shares: np.ndarray, class_weight: str | None) -> LinearHead:
    windows, labels = np.nonzero(shares)
    if len(np.unique(labels)) < 2:
        raise ValueError(
            f"head_start='fitted' needs clips of two labels to tell apart, and all {len(vectors)} have the same. Add clips, or "
            "pass --head_start loaded."
        )
    fitted = _fitted(vectors[windows], labels, shares[windows, labels], class_weight)
    coefficients, intercepts = fitted.coef_, fitted.intercept_
    if len(coefficients) == 1:  # of two labels the second against the first, whose difference counts
        coefficients, intercepts = (np.concatenate([-value, value]) / 2 for value in (coefficients, intercepts))
    head = LinearHead(
        np.zeros((shares.shape[1], vectors.shape[1])), np.full(shares.shape[1], np.log(UNSEEN / len(vectors)))
    )
    head.weight[fitted.classes_], head.bias[fitted.classes_] = coefficients, intercepts
    return head


def _independent(vectors: np.ndarray, shares: np.ndarray, class_weight: str | None) -> LinearHead:
    head = LinearHead(np.zeros((shares.shape[1], vectors.shape[1])), np.zeros(shares.shape[1]))
    for label, of_label in enumerate(shares.T):
        having, lacking = np.flatnonzero(of_label > 0), np.flatnonzero(of_label < 1)
        if not len(having) or not len(lacking):
            head.bias[label] = np.log((of_label.sum() + UNSEEN) / ((1 - of_label).sum() + UNSEEN))
            continue
        windows = np.concatenate([having, lacking])
        has_it = np.arange(len(windows)) < len(having)
        weights = np.where(has_it, of_label[windows], 1 - of_label[windows])
        fitted = _fitted(vectors[windows], has_it, weights, class_weight)
        head.weight[label], head.bias[label] = fitted.coef_[0], fitted.intercept_[0]
    return head


def _fitted(vectors, labels, weights, class_weight) -> LogisticRegression:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return LogisticRegression(max_iter=MOST_ITERATIONS, class_weight=class_weight).fit(vectors, labels, weights)


def drawn_windows(labels_of_windows: Sequence[Sequence[int]], most: int, seed: int) -> np.ndarray:
    """Draw windows, each as likely as any other, so that labels keep their frequencies; and one of each label that got none.

    Args:
        labels_of_windows (sequence of sequences of `int`): label indices of each window.
        most (`int`): how many are drawn.
        seed (`int`): of the draw.

    Returns:
        `np.ndarray`: places, ascending.
    """
    order = np.random.default_rng((DRAW_STREAM, seed)).permutation(len(labels_of_windows))
    drawn, seen = order[:most].tolist(), set()
    for window in drawn:
        seen.update(labels_of_windows[window])
    for window in order[most:].tolist():
        if not seen.issuperset(labels_of_windows[window]):
            seen.update(labels_of_windows[window])
            drawn.append(window)
    return np.sort(drawn)


def fit_to_clips(
    model: nn.Module,
    feature_extractor: ASTFeatureExtractor,
    clips: ClipDataset,
    balanced: bool,
    batch_size: int,
    num_workers: int,
    seed: int,
) -> tuple[LinearHead, dict]:
    """Fit a classifier to what a model makes of clips as they are, without augmentation.

    Windows are those of the training; of windows that are drawn anew in each epoch, those of the first. The model and the
    random numbers of the training stay as they are.

    Args:
        model (`torch.nn.Module`): whose classifier it is for.
        feature_extractor ([`ASTFeatureExtractor`]): pads the clips as in the training.
        clips ([`ClipDataset`]): the training clips. Of more than 10,000 windows as many are drawn, and one of each label
            that has none among these.
        balanced (`bool`): see [`fit_linear_head`].
        batch_size (`int`): windows in one pass of the model.
        num_workers (`int`): processes that decode.
        seed (`int`): of the draw.

    Returns:
        The classifier; and `clips`, `windows`, and of these the `accuracy`, or the `mean_average_precision` where some have not
        exactly one label.

    Raises:
        DivergedError: if the model makes of no clip numbers.
        ClipScoresError: if it makes numbers of some clips and not of others.
        AudioError: if a clip cannot be decoded.
        ValueError: see [`fit_linear_head`].
    """
    items = np.arange(len(clips))
    if len(items) > MOST_WINDOWS:
        items = drawn_windows(clips.label_lists(), MOST_WINDOWS, seed)
    was_training, device = model.training, next(model.parameters()).device
    with torch.random.fork_rng(devices=[]):  # a loader draws from it
        vectors, targets = vectors_and_targets(
            model, feature_extractor, Subset(clips, items.tolist()), batch_size, device, num_workers, "fitting"
        )
    model.train(was_training)
    _refuse_not_numbers(vectors, items, clips)
    config = model.config
    normalised = layer_normalised(vectors, heads_of(model)[0].layernorm.eps)
    head = fit_linear_head(normalised, targets, config.num_labels, config.problem_type, balanced)
    scores = scores_from_logits(torch.from_numpy(normalised @ head.weight.T + head.bias), config.problem_type)
    references = targets if targets.ndim == 1 else that_count(targets)
    is_exclusive = targets.ndim == 1 or (references.sum(axis=1) == 1).all()
    name = "accuracy" if is_exclusive else "mean_average_precision"
    found = classification_scores(scores.numpy(), references, references.ndim == 2)[name]
    of_item = np.arange(len(clips)) if clips.clip_of_item is None else clips.clip_of_item
    section = {"clips": len(np.unique(of_item[items])), "windows": len(items)}
    return head, section | ({name: float(found)} if np.isfinite(found) else {})


def _refuse_not_numbers(vectors: np.ndarray, items: np.ndarray, clips: ClipDataset):
    faulty = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(faulty) == len(vectors):
        raise DivergedError(
            "What the checkpoint makes of the training clips are not numbers, so that no classifier can be fitted to these: its own "
            "training diverged. Pass another --model_name_or_path."
        )
    if len(faulty):
        names = names_in_short([clips.name(int(item)) for item in items[faulty]])
        raise ClipScoresError(
            f"What the model makes of {len(faulty)} of {len(vectors)} training clips are not numbers, so that no classifier can be "
            f"fitted to these: {names}. Repair or leave out what is named here."
        )


def put_into(model: nn.Module, head: LinearHead):
    """Give a model a classifier, whose LayerNorm gets ones and zeros.

    Args:
        model (`torch.nn.Module`): changed in place.
        head ([`LinearHead`]): of its labels and hidden size.
    """
    with torch.no_grad():
        for own in heads_of(model):
            own.layernorm.weight.fill_(1)
            own.layernorm.bias.fill_(0)
            own.dense.weight.copy_(torch.from_numpy(head.weight))
            own.dense.bias.copy_(torch.from_numpy(head.bias))


def fitted_section(log_history: list[dict]) -> dict | None:
    """Find in the log of a training to what its classifier was fitted, also where it was resumed.

    Args:
        log_history (`list[dict]`): of the state of a `Trainer`.

    Returns:
        `dict`: as of [`fit_to_clips`]; `None` if it was not.
    """
    return next((entry[FITTED_HEAD] for entry in log_history if FITTED_HEAD in entry), None)


def fitted_in_words(section: dict, seconds: str) -> str:
    """Say what a classifier was fitted to.

    Args:
        section (`dict`): from [`fit_to_clips`].
        seconds (`str`): how long that took, in words.

    Returns:
        `str`: a line.
    """
    windows = f" in {section['windows']} windows" if section["windows"] != section["clips"] else ""
    scores = [
        f"{name.replace('_', ' ')} {value:.3f} on these" for name, value in section.items() if name not in COUNTS
    ]
    return ", ".join([f"classifier fitted to {section['clips']} training clips{windows}", *scores, seconds])

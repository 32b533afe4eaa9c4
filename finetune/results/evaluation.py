"""What is done with a trained model before it is saved: weights averaged, thresholds chosen, the held-out split scored.

Thresholds are chosen on the validation split and only there. Without one, nothing here is chosen.
"""

import shutil
from pathlib import Path

import numpy as np
from accelerate import PartialState
from safetensors.torch import load_file
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict
from torch.distributed.fsdp import FSDPModule

from modeling_ast.scores import label_thresholds

from ..arguments.conflicts import wrong_way_round
from ..arguments.groups import DataArguments, OptimizationArguments
from ..arguments.training_fields import SCORES
from ..clip_sets.waveforms import ClipDataset
from ..scores.clip_scores import references_of_clips, scores_of_clips
from ..scores.metrics import as_multi_hot, classification_scores, macro_f1
from ..scores.scoring import PROBLEM_TYPES, evaluation_section, probabilities
from ..scores.thresholds import choose_thresholds, not_chosen
from ..sources.labels import is_multi_label, label_names, that_count
from ..training.losses import loss_name
from ..training.run_folder import UNFINISHED, step_of
from ..training.trainer import ASTTrainer
from ..training.weight_averaging import average_weights, epochs_between, weights_file

AVERAGED_NAME = "averaged.safetensors"


def evaluate(
    trainer: ASTTrainer, clips: dict[str, ClipDataset], data_args: DataArguments, optimization: OptimizationArguments
) -> dict:
    """Score the held-out split, padded as the saved checkpoint pads.

    The trainer's model is left with the weights that were scored, its configuration with the thresholds that were chosen,
    and its feature extractor padding as it will be saved.

    Args:
        trainer ([`ASTTrainer`]): after its training.
        clips (`dict[str, ClipDataset]`): with `"eval"`, and `"validation"` if there is such a split.
        data_args ([`DataArguments`]): names of the splits, padding of the training.
        optimization ([`OptimizationArguments`]): epochs to average and to take the mean scores of.

    Returns:
        The section `evaluation` of the run summary. After a training with `padding="longest"` it also has the metrics
        of that way of padding, as the two differ.

    Raises:
        DivergedError: if scores are not numbers.
        ClipScoresError: if those of some clips are not.
    """
    exclusive = not is_multi_label(clips["eval"].split)
    labels = label_names(clips["eval"].split)
    section = {"loss": loss_name(None, trainer.model.config.problem_type)} | best_section(trainer)
    trainer.feature_extractor.padding = "max_length"
    if optimization.ensemble_epochs:
        metrics = _epoch_ensemble(trainer, clips["eval"], exclusive, *optimization.ensemble_epochs)
        section["ensemble"] = {"epochs": optimization.ensemble_epochs, "metrics": metrics}
    if optimization.average_epochs:
        section["last_epoch"] = {"metrics": _predict(trainer, clips["eval"], exclusive)[2]}
        section["averaged_epochs"] = optimization.average_epochs
        _load_averaged_weights(trainer, *optimization.average_epochs)
    if data_args.padding == "longest":
        trainer.feature_extractor.padding = "longest"
        section["metrics_padding_longest"] = _predict(trainer, clips["eval"], exclusive)[2]
        trainer.feature_extractor.padding = "max_length"
    if "validation" in clips:
        section |= _choices_on_validation(trainer, clips["validation"], exclusive, labels)
        section["validation"]["split"] = data_args.validation_split_name or "validation"
    scores, references, metrics = _predict(trainer, clips["eval"], exclusive)
    thresholds = trainer.model.config.label_thresholds
    if thresholds:
        metrics["f1_macro"] = macro_f1(scores, references, label_thresholds(trainer.model.config))
    split = data_args.eval_split_name
    protocol = protocol_in_words(trainer, optimization, "validation" in clips)
    return evaluation_section(scores, references, labels, split, protocol, metrics, thresholds) | section


def as_references(label_ids: np.ndarray, exclusive: bool) -> np.ndarray:
    """Label indices of shape `(clips,)` of exclusive labels, also where they were trained on as one-hot; else multi-hot.

    Of soft labels, a clip is scored as one that has those whose share is `SHARE_THAT_COUNTS` or more.

    Args:
        label_ids (`np.ndarray`): indices of shape `(clips,)`, or vectors of shape `(clips, labels)`.
        exclusive (`bool`): whether a clip has exactly one label.

    Returns:
        `np.ndarray`: the references.
    """
    if exclusive:
        return label_ids.argmax(axis=1) if label_ids.ndim == 2 else label_ids
    return that_count(label_ids)


def protocol_in_words(trainer: ASTTrainer, optimization: OptimizationArguments, has_validation: bool) -> str:
    """Which weights were scored, and whether the scored split had a part in choosing them.

    Args:
        trainer ([`ASTTrainer`]): the trainer of the run.
        optimization ([`OptimizationArguments`]): what is optimised how.
        has_validation (`bool`): whether a split of its own was there to choose on.

    Returns:
        `str`: a part of a line.
    """
    args = trainer.args
    watched = getattr(args.eval_strategy, "value", args.eval_strategy) != "no" and not has_validation
    if optimization.average_epochs:
        first, last = optimization.average_epochs
        words = f"the mean of the weights of epochs {first} to {last}"
    elif args.load_best_model_at_end and trainer.state.best_model_checkpoint is not None:
        where = "the validation split" if has_validation else "this same split, which makes the score optimistic"
        return f"{wrong_way_round(args) or f'the best checkpoint by {args.metric_for_best_model}'} on {where}"
    elif args.load_best_model_at_end:
        words = f"the last weights, not the best checkpoint by {args.metric_for_best_model}: {why_no_best(trainer)}"
    else:
        words = "the last epoch's weights" if watched else "scored once, after the last epoch"
    return f"{words}; the split was also scored in training, but chose nothing" if watched else words


def why_no_best(trainer: ASTTrainer) -> str:
    """Why a training whose best checkpoint was asked for has none, in words.

    Args:
        trainer ([`ASTTrainer`]): the trainer of the run.

    Returns:
        `str`: a part of a line.
    """
    if trainer.lost_best:
        return trainer.lost_best
    name = f"eval_{trainer.args.metric_for_best_model.removeprefix('eval_')}"
    if any(name in entry for entry in trainer.state.log_history):
        return "it was no number in any evaluation"
    return "nothing was scored in training"


def best_section(trainer: ASTTrainer) -> dict:
    """Which checkpoint was chosen as the best, or why none was; empty where that was not asked for.

    Args:
        trainer ([`ASTTrainer`]): the trainer of the run.

    Returns:
        `best_checkpoint` with the `metric` it is chosen by, and `step` and `value`, or `not_chosen` in words.
    """
    args, state = trainer.args, trainer.state
    if not args.load_best_model_at_end:
        return {}
    if state.best_model_checkpoint is None:
        chosen = {"not_chosen": why_no_best(trainer)}
    else:
        chosen = {"step": step_of(Path(state.best_model_checkpoint)), "value": state.best_metric}
    return {"best_checkpoint": {"metric": args.metric_for_best_model} | chosen}


def _predict(
    trainer: ASTTrainer, clips: ClipDataset, exclusive: bool
) -> tuple[np.ndarray, np.ndarray, dict[str, float]]:
    """Scores `(clips, labels)`, references, loss and scores, without times and memory."""
    prediction = trainer.scores_of(clips)
    scores = scores_of_clips(probabilities(prediction.predictions, trainer.model.config.problem_type), clips)
    metrics = {name: prediction.metrics[f"eval_{name}"] for name in ("loss", *SCORES)}
    return scores, as_references(references_of_clips(prediction.label_ids, clips), exclusive), metrics


def _epoch_ensemble(
    trainer: ASTTrainer, clips: ClipDataset, exclusive: bool, first: int, last: int
) -> dict[str, float]:
    """Metrics of the mean scores of these epochs' weights; the trainer's weights are put back."""
    weights = {name: tensor.detach().clone() for name, tensor in trainer.model.state_dict().items()}
    folders, total = epochs_between(trainer.args.output_dir, first, last), 0.0
    for folder in folders:
        _load_weights(trainer, weights_file(folder))
        scores, references, _ = _predict(trainer, clips, exclusive)
        total = total + scores.astype(np.float64)
    trainer.model.load_state_dict(weights)
    return classification_scores(total / len(folders), references, not exclusive)


def _load_averaged_weights(trainer: ASTTrainer, first: int, last: int):
    folder = Path(trainer.args.output_dir)
    averaged = folder / UNFINISHED / AVERAGED_NAME
    if PartialState().is_main_process:
        averaged.parent.mkdir(exist_ok=True)
        average_weights([weights_file(epoch) for epoch in epochs_between(folder, first, last)], averaged)
    PartialState().wait_for_everyone()
    _load_weights(trainer, averaged)
    PartialState().wait_for_everyone()
    if PartialState().is_main_process:
        shutil.rmtree(averaged.parent)


def _load_weights(trainer: ASTTrainer, file: Path):
    # With FSDP every process takes its part of them, and the outermost module stays whole after a pass; without it they
    # are simply loaded.
    for module in trainer.model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()
    set_model_state_dict(trainer.model, load_file(file), options=StateDictOptions(full_state_dict=True))


def _choices_on_validation(trainer: ASTTrainer, clips: ClipDataset, exclusive: bool, labels: list[str]) -> dict:
    """Metrics of the validation split and, for independent scores, thresholds chosen there."""
    scores, references, metrics = _predict(trainer, clips, exclusive)
    section = {"validation": {"clips": clips.num_clips, "metrics": metrics}}
    if trainer.model.config.problem_type == PROBLEM_TYPES["sigmoid"]:
        truth = as_multi_hot(references, len(labels))
        trainer.model.config.label_thresholds = choose_thresholds(scores, truth, labels)
        section["thresholds"] = trainer.model.config.label_thresholds
        if names := not_chosen(truth, labels):
            section["thresholds_not_chosen"] = names
    return section

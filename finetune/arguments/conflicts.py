"""What fields of a fine-tuning run say against each other across their groups: refused before anything is loaded."""

import difflib
from collections.abc import Collection

from transformers import TrainingArguments

from ..scores.metrics import SCORES
from .groups import ASTTrainingArguments, AugmentationArguments, DataArguments, ModelArguments, OptimizationArguments
from .training_fields import is_given, refuse_fields

LOSS = "loss"  # among what an epoch is chosen by, beside the scores


def check_together(
    model: ModelArguments,
    data: DataArguments,
    augmentation: AugmentationArguments,
    optimization: OptimizationArguments,
    training: ASTTrainingArguments,
    given: Collection[str],
):
    """Refuse what does not go together, and what a run cannot obey.

    Args:
        model, data, augmentation, optimization, training: the groups of fields.
        given (collection of `str`): names of the fields that the user gave; `TrainingArguments` makes up values of others.

    Raises:
        ValueError: for fields of which one contradicts another or leaves it without effect; it says what to type.
    """
    refuse_fields(training, given)
    if data.features_column_name:
        augmentation.augmentation().refuse_without_waveforms()
    mixing = augmentation.augmentation().label_mixing_strengths
    if mixing and training.label_smoothing_factor:
        raise ValueError(
            f"Both {' and '.join(mixing)} and label_smoothing_factor were given; Trainer smooths hard labels only. Pass one."
        )
    if training.train_sampling_strategy == "group_by_length" and data.padding != "longest":
        raise ValueError(
            "train_sampling_strategy='group_by_length' saves nothing where every clip is padded to max_length. Pass "
            "--padding longest too."
        )
    refuse_adapters_of_nothing(model, optimization)
    check_choices(data, optimization, training)
    check_best_checkpoint(training)


def check_best_checkpoint(training: ASTTrainingArguments):
    """Refuse a choice of the best checkpoint that cannot be made: by an unknown score, or of weights that are not kept.

    Raises:
        ValueError: it says what to type.
    """
    if training.load_best_model_at_end and (training.eval_strategy == "no" or training.save_strategy == "no"):
        raise ValueError(
            "load_best_model_at_end chooses among checkpoints that were scored in training, and there would be none. Pass "
            "--eval_strategy epoch with --save_strategy epoch, or leave it out."
        )
    if (
        training.load_best_model_at_end
        and training.eval_strategy == training.save_strategy == "steps"
        and training.eval_steps != training.save_steps
    ):
        raise ValueError(
            f"load_best_model_at_end chooses the best of all evaluations, and with --eval_steps {training.eval_steps:g} and "
            f"--save_steps {training.save_steps:g} the best one may have no checkpoint. Pass the same number of steps for both, "
            "or --save_strategy best."
        )
    metric = training.metric_for_best_model
    if metric is None:
        if training.save_strategy == "best":
            raise ValueError(
                "save_strategy='best' needs to know by which score. Pass --metric_for_best_model accuracy."
            )
        return
    name = metric.removeprefix("eval_")
    if name not in (LOSS, *SCORES):
        near = [score for score in SCORES if name.lower() in score] or difflib.get_close_matches(
            name.lower(), SCORES, n=1
        )
        hint = f" Did you mean {near[0]}?" if near else ""
        raise ValueError(
            f"metric_for_best_model={metric!r} is no score of an evaluation, expected {LOSS}, {', '.join(SCORES)}.{hint} "
            "Correct --metric_for_best_model."
        )


def wrong_way_round(training: TrainingArguments) -> str | None:
    """What is chosen as the best checkpoint where `greater_is_better` says the contrary of its score; else `None`."""
    name = (training.metric_for_best_model or "").removeprefix("eval_")
    if name not in (LOSS, *SCORES) or training.greater_is_better == (name != LOSS):
        return None
    return f"the checkpoint with the {'highest' if name == LOSS else 'lowest'} {name.replace('_', ' ')}"


def refuse_adapters_of_nothing(model: ModelArguments, optimization: OptimizationArguments):
    """Raise a `ValueError` for LoRA adapters of random weights."""
    if optimization.lora_rank and not model.model_name_or_path:
        raise ValueError(
            f"lora_rank={optimization.lora_rank} adapts the weights of a checkpoint, and none was given: random weights that "
            "do not learn are of no use. Pass --model_name_or_path, or leave out --lora_rank to train a new model in full."
        )


def check_choices(data: DataArguments, optimization: OptimizationArguments, training: ASTTrainingArguments):
    """What is chosen in a training is chosen on clips that are not scored, and what is averaged is trained."""
    if optimization.early_stopping_patience and not (data.has_validation_split() and training.load_best_model_at_end):
        raise ValueError(
            "early_stopping_patience needs clips to stop by that are not scored afterwards. Pass --validation_fraction 0.1 "
            "(or the split that is there), --eval_strategy epoch and --load_best_model_at_end true."
        )
    if optimization.ensemble_epochs and optimization.early_stopping_patience:
        raise ValueError(
            "early_stopping_patience may end the training before the last of ensemble_epochs. Pass one of them."
        )
    if (optimization.average_epochs or optimization.ensemble_epochs) and training.max_steps > 0:
        raise ValueError(
            "average_epochs and ensemble_epochs count whole epochs, max_steps does not. Pass --num_train_epochs instead."
        )
    refuse_ignored(data, optimization, training)
    warmup, stair = training.warmup_steps or 0, optimization.warmup_stair
    if optimization.decay_after_epoch is not None and warmup and (warmup != int(warmup) or warmup < stair):
        raise ValueError(
            f"warmup_steps={warmup:g} is not a number of steps from warmup_stair={stair} on, which the original's schedule "
            "needs. Pass for example --warmup_steps 1000, 0 for no warm-up, or a smaller --warmup_stair."
        )
    for name in ("average_epochs", "ensemble_epochs"):
        epochs = getattr(optimization, name)
        if epochs and epochs[1] > training.num_train_epochs:
            raise ValueError(
                f"{name}={epochs} goes beyond num_train_epochs={training.num_train_epochs:g}. Pass epochs that are trained."
            )
    if optimization.average_epochs and training.load_best_model_at_end:
        raise ValueError(
            "average_epochs and load_best_model_at_end both say which weights are kept. Pass one of them."
        )


def refuse_ignored(data: DataArguments, optimization: OptimizationArguments, training: ASTTrainingArguments):
    """Raise a `ValueError` for a field that another one leaves without effect."""
    for name in ("decay_every", "decay_factor", "warmup_stair"):
        if optimization.decay_after_epoch is None and is_given(optimization, name):
            raise ValueError(
                f"{name} belongs to the original's schedule. Pass --decay_after_epoch too, or leave it out."
            )
    for name in ("lora_alpha", "lora_dropout", "lora_target_modules"):
        if not optimization.lora_rank and getattr(optimization, name) not in (None, 0, []):
            raise ValueError(f"{name} belongs to LoRA adapters. Pass --lora_rank 8 too, or leave it out.")
    for name in ("lr_scheduler_type", "lr_scheduler_kwargs"):
        if optimization.decay_after_epoch is not None and is_given(training, name):
            raise ValueError(f"{name} and decay_after_epoch both say how the learning rate falls. Pass one of them.")
    for name in ("optim", "optim_args", "optim_target_modules"):
        if optimization.optimizer != "trainer" and is_given(training, name):
            raise ValueError(
                f"{name} and optimizer={optimization.optimizer} both name an optimiser. Pass one of them."
            )
    if data.streaming:
        refuse_in_a_stream(data, training)
    elif is_given(data, "shuffle_buffer"):
        raise ValueError("shuffle_buffer belongs to clips that are streamed. Pass --streaming too, or leave it out.")
    if data.fold_column_name and training.push_to_hub:
        raise ValueError(
            "push_to_hub publishes one model, fold_column_name trains one for every fold. Leave it out, and publish the "
            "fold that you want with ast-push."
        )
    if data.fold_column_name and is_given(data, "eval_fraction"):
        raise ValueError("eval_fraction holds clips out, fold_column_name scores every fold. Pass one of them.")


def refuse_in_a_stream(data: DataArguments, training: ASTTrainingArguments):
    """Raise a `ValueError` for what needs all clips at hand."""
    reasons = {
        "fold_column_name": "makes splits, which a stream has to have",
        "validation_fraction": "makes a split, which a stream has to have: name it as --validation_split_name or "
        "--validation_file",
        "eval_fraction": "makes a split, which a stream has to have: name it as --eval_split_name or --eval_file",
        "group_column_name": "concerns splits that are made, and a stream has to have its own",
        "group_file_pattern": "concerns splits that are made, and a stream has to have its own",
        "waveform_cache": "keeps all clips decoded",
        "features_column_name": "is for features that are at hand",
        "drop_duplicate_audio": "compares all clips",
        "join_annotations": "compares all rows",
    }
    for name, reason in reasons.items():
        if is_given(data, name):
            raise ValueError(f"{name} {reason}. Leave out --{name}, or --streaming.")
    if training.train_sampling_strategy != "random":
        raise ValueError(
            f"train_sampling_strategy={training.train_sampling_strategy!r} chooses among all clips, of which a stream holds only "
            "the next ones. Pass --train_sampling_strategy random, or leave out --streaming."
        )

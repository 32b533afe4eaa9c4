"""What fields of a fine-tuning run say against each other across their groups: refused before anything is loaded."""

import difflib

from transformers import TrainingArguments

from .frame_arguments import refuse_with_frames
from .groups import (
    ASTTrainingArguments,
    DataArguments,
    ModelArguments,
    OptimizationArguments,
    RunArguments,
)
from .model_arguments import FRAME_HEAD
from .optimization_arguments import FITTED, LABEL_SETS
from .pretraining_arguments import NOT_IN_PRETRAINING
from .training_arguments import BALANCED_STRATEGIES
from .training_fields import LOSS, SCORES, refuse_fields, shares_by_set
from .void_fields import is_off, refuse_void_fields

# Fields that a training on several sets of labels cannot obey, and why.
NOT_WITH_LABEL_SETS = {
    "class_weights": "the labels of a set have no weights",
    "head_start": "the heads of the sets begin with random weights",
    "label_smoothing_factor": "labels would be smoothed over those of other sets",
    "teacher": "a teacher's scores are not those of sets",
    **dict.fromkeys(
        ("validation_fraction", "validation_split_name", "validation_file", "early_stopping_patience"),
        "nothing is chosen on a validation split",
    ),
    **dict.fromkeys(("average_epochs", "ensemble_epochs"), "the last weights are scored and saved"),
    "fold_column_name": "there are no folds",
    "streaming": "the clips have to be at hand",
    "score_windows": "a clip is scored by its beginning",
    "none_of_these": "a clip is looked for among those of its own set alone",
    "marks": "a window has no label of each set",
}


def check_together(arguments: RunArguments):
    """Refuse what does not go together, and what a run cannot obey.

    Args:
        arguments ([`RunArguments`]): all that the run was told.

    Raises:
        ValueError: for fields of which one contradicts another or leaves it without effect; it says what to type.
    """
    model, data, augmentation = arguments.model, arguments.data, arguments.augmentation
    optimization, training = arguments.optimization, arguments.training
    if arguments.pretraining is not None:
        refuse_in_pretraining(arguments)
    if model.head == FRAME_HEAD:
        refuse_with_frames(arguments)
    if optimization.loss == LABEL_SETS:
        refuse_with_label_sets(arguments)
    elif training.train_sampling_strategy == "set_balanced":
        raise ValueError(
            "train_sampling_strategy='set_balanced' was given, but without --loss label_sets there is one set of labels. Pass it "
            "too, or --train_sampling_strategy class_balanced."
        )
    shares_by_set(training.set_shares)
    refuse_fields(training)
    refuse_void_fields(arguments)
    if data.features_column_name:
        augmentation.augmentation().refuse_without_waveforms()
    if data.marks and augmentation.max_quiet_seconds:
        raise ValueError(
            f"max_quiet_seconds={augmentation.max_quiet_seconds} was given with marks={data.marks!r}, but windows of recordings begin "
            "anywhere, and quiet would push what is marked out of them. Leave out --max_quiet_seconds."
        )
    mixing = augmentation.augmentation().label_mixing_strengths
    if mixing and training.label_smoothing_factor:
        raise ValueError(
            f"Both {' and '.join(mixing)} and label_smoothing_factor were given; Trainer smooths hard labels only. Pass one."
        )
    if optimization.teacher and training.label_smoothing_factor:
        raise ValueError(
            "Both teacher and label_smoothing_factor were given; the teacher's scores are the soft labels. Pass one of them."
        )
    if training.train_sampling_strategy == "group_by_length" and data.padding != "longest":
        raise ValueError(
            "train_sampling_strategy='group_by_length' saves nothing where every clip is padded to max_length. Pass "
            "--padding longest too."
        )
    refuse_adapters_of_nothing(model, optimization)
    refuse_fit_to_nothing(model, optimization)
    check_choices(data, optimization, training)
    check_best_checkpoint(training)


def refuse_in_pretraining(arguments: RunArguments):
    """Refuse what a pretraining cannot obey.

    Args:
        arguments ([`RunArguments`]): all that it was told.

    Raises:
        ValueError: for the first such field; it says why, and what to type.
    """
    given = {
        name: getattr(group, name)
        for group in arguments.groups
        for name in group.given & NOT_IN_PRETRAINING.keys()
        if not is_off(group, name)
    }
    for name, why in NOT_IN_PRETRAINING.items():
        if name in given:
            raise ValueError(f"{name}={given[name]!r} was given, but {why}. Leave it out, or train with ast-finetune.")
    training = arguments.training
    if training.train_sampling_strategy in BALANCED_STRATEGIES:
        raise ValueError(
            f"train_sampling_strategy={training.train_sampling_strategy!r} was given, but ast-pretrain reads no labels. Leave it out."
        )
    metric = training.metric_for_best_model
    if metric is not None and metric.removeprefix("eval_") != LOSS:
        raise ValueError(
            f"metric_for_best_model={metric!r} was given, but the best checkpoint of a pretraining is chosen by its {LOSS}. Pass "
            f"--metric_for_best_model {LOSS}, or leave it out."
        )


def refuse_with_label_sets(arguments: RunArguments):
    """Refuse what a training on several sets of labels cannot obey.

    Args:
        arguments ([`RunArguments`]): all that it was told.

    Raises:
        ValueError: for the first such field; it says why, and what to type.
    """
    for group in arguments.groups:
        for name in NOT_WITH_LABEL_SETS.keys() & group.given:
            if not is_off(group, name):
                raise ValueError(
                    f"{name}={getattr(group, name)!r} was given, but with --loss label_sets {NOT_WITH_LABEL_SETS[name]}. Leave out "
                    "one of them."
                )
    if arguments.training.metric_for_best_model not in (None, LOSS, f"eval_{LOSS}", "accuracy", "eval_accuracy"):
        raise ValueError(
            f"metric_for_best_model={arguments.training.metric_for_best_model!r} was given, but the scores of --loss label_sets are "
            f"{LOSS} and accuracy. Pass one of these."
        )


def check_best_checkpoint(training: ASTTrainingArguments):
    """Refuse a choice of the best checkpoint that cannot be made: by an unknown score, or of weights that are not kept.

    That there is one to choose among [`ASTTrainingArguments`] sees to, before Transformers does.

    Args:
        training ([`ASTTrainingArguments`]): what is scored, saved and chosen when.

    Raises:
        ValueError: it says what to type.
    """
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
    """Say what is chosen as the best checkpoint where `greater_is_better` says the contrary of its score.

    Args:
        training (`TrainingArguments`): by which score the checkpoint is chosen, and which way round.

    Returns:
        What is chosen, in words; `None` where it is the right way round.
    """
    name = (training.metric_for_best_model or "").removeprefix("eval_")
    if name not in (LOSS, *SCORES) or training.greater_is_better == (name != LOSS):
        return None
    return f"the checkpoint with the {'highest' if name == LOSS else 'lowest'} {name.replace('_', ' ')}"


def refuse_adapters_of_nothing(model: ModelArguments, optimization: OptimizationArguments):
    """Refuse LoRA adapters of random weights.

    Args:
        model ([`ModelArguments`]): whether there is a checkpoint to start from.
        optimization ([`OptimizationArguments`]): whether there are adapters.

    Raises:
        ValueError: if there are adapters and no checkpoint.
    """
    if optimization.lora_rank and not model.model_name_or_path:
        raise ValueError(
            f"lora_rank={optimization.lora_rank} adapts the weights of a checkpoint, and none was given: random weights that "
            "do not learn are of no use. Pass --model_name_or_path, or leave out --lora_rank to train a new model in full."
        )


def refuse_fit_to_nothing(model: ModelArguments, optimization: OptimizationArguments):
    """Refuse a classifier that is fitted to what random weights make of clips.

    Args:
        model ([`ModelArguments`]): whether there is a checkpoint to start from.
        optimization ([`OptimizationArguments`]): whether the classifier is fitted.

    Raises:
        ValueError: if it is and there is no checkpoint.
    """
    if optimization.head_start == FITTED and not model.model_name_or_path:
        raise ValueError(
            "head_start='fitted' fits the classifier to what a checkpoint makes of the training clips, and none was given: random "
            "weights know nothing of sounds. Pass --model_name_or_path, or --head_start loaded."
        )


def check_choices(data: DataArguments, optimization: OptimizationArguments, training: ASTTrainingArguments):
    """Refuse choices on clips that are scored, averages of what is not trained, and what streams and folds cannot do.

    Args:
        data ([`DataArguments`]): which splits there are.
        optimization ([`OptimizationArguments`]): what is stopped, averaged and decayed when.
        training ([`ASTTrainingArguments`]): length of the training, and what is chosen in it.

    Raises:
        ValueError: for the first of them; it says what to type.
    """
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
    if data.streaming:
        refuse_in_a_stream(data, training)
        if optimization.head_start == FITTED:
            raise ValueError(
                "head_start='fitted' hears training clips of each label before the first step, and a stream is read from its "
                "beginning. Pass --head_start loaded, or leave out --streaming."
            )
        if optimization.none_of_these:
            raise ValueError(
                "none_of_these hears the training clips once more, some of each label, and a stream is read from its beginning. "
                "Leave out --none_of_these, or --streaming."
            )
    refuse_push_of_folds(data, training)
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


def refuse_push_of_folds(data: DataArguments, training: ASTTrainingArguments):
    """Refuse to publish one model where every fold has one.

    Args:
        data ([`DataArguments`]): whether there are folds.
        training ([`ASTTrainingArguments`]): whether the run is to be pushed.

    Raises:
        ValueError: if both are so.
    """
    if data.fold_column_name and training.push_to_hub:
        raise ValueError(
            "push_to_hub publishes one model, fold_column_name trains one for every fold. Leave it out, and publish the "
            "fold that you want with ast-push."
        )


def refuse_in_a_stream(data: DataArguments, training: ASTTrainingArguments):
    """Refuse what needs all clips at hand.

    Args:
        data ([`DataArguments`]): of clips that are streamed.
        training ([`ASTTrainingArguments`]): its `train_sampling_strategy` is looked at.

    Raises:
        ValueError: for the first such field.
    """
    reasons = {
        "fold_column_name": "makes splits, which a stream has to have",
        "validation_fraction": "makes a split, which a stream has to have: name it as --validation_split_name or "
        "--validation_file",
        "group_column_name": "concerns splits that are made, and a stream has to have its own",
        "group_file_pattern": "concerns splits that are made, and a stream has to have its own",
        "waveform_cache": "keeps all clips decoded",
        "features_column_name": "is for features that are at hand",
        "drop_duplicate_audio": "compares all clips",
        "join_annotations": "compares all rows",
        **dict.fromkeys(
            ("clip_windows", "score_windows"), "is for clips at hand, and of a stream's the beginning is heard"
        ),
    }
    for name, reason in reasons.items():
        if getattr(data, name):
            raise ValueError(f"{name} {reason}. Leave out --{name}, or --streaming.")
    if training.train_sampling_strategy != "random":
        raise ValueError(
            f"train_sampling_strategy={training.train_sampling_strategy!r} chooses among all clips, of which a stream holds only "
            "the next ones. Pass --train_sampling_strategy random, or leave out --streaming."
        )

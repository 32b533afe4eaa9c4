"""What fields of a fine-tuning run say against each other across their groups: refused before anything is loaded."""

import dataclasses

from .arguments import (
    HUB_FIELDS,
    ASTTrainingArguments,
    AugmentationArguments,
    DataArguments,
    ModelArguments,
    OptimizationArguments,
)
from .augmentation import refuse_without_waveforms


def check_together(
    model: ModelArguments,
    data: DataArguments,
    augmentation: AugmentationArguments,
    optimization: OptimizationArguments,
    training: ASTTrainingArguments,
):
    """Refuse what does not go together.

    Raises:
        ValueError: for fields of which one contradicts another or leaves it without effect; it says what to type.
    """
    if data.features_column_name:
        refuse_without_waveforms(augmentation)
    if augmentation.mixup_probability and training.label_smoothing_factor:
        raise ValueError(
            "Both mixup_probability and label_smoothing_factor were given; Trainer smooths hard labels only. Pass one."
        )
    if training.train_sampling_strategy == "group_by_length" and data.padding != "longest":
        raise ValueError(
            "train_sampling_strategy='group_by_length' saves nothing where every clip is padded to max_length. Pass "
            "--padding longest too."
        )
    refuse_adapters_of_nothing(model, optimization)
    check_choices(data, optimization, training)


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
        if optimization.decay_after_epoch is None and _is_given(optimization, name):
            raise ValueError(
                f"{name} belongs to the original's schedule. Pass --decay_after_epoch too, or leave it out."
            )
    for name in ("lora_alpha", "lora_dropout", "lora_target_modules"):
        if not optimization.lora_rank and getattr(optimization, name) not in (None, 0, []):
            raise ValueError(f"{name} belongs to LoRA adapters. Pass --lora_rank 8 too, or leave it out.")
    if optimization.decay_after_epoch is not None and _is_given(training, "lr_scheduler_type"):
        raise ValueError(
            "lr_scheduler_type and decay_after_epoch both say how the learning rate falls. Pass one of them."
        )
    if optimization.optimizer != "trainer" and _is_given(training, "optim"):
        raise ValueError(f"optim and optimizer={optimization.optimizer} both name an optimiser. Pass one of them.")
    if data.streaming:
        refuse_in_a_stream(data, training)
    elif _is_given(data, "shuffle_buffer"):
        raise ValueError("shuffle_buffer belongs to clips that are streamed. Pass --streaming too, or leave it out.")
    hub_fields = [name for name in HUB_FIELDS if _is_given(training, name)]
    if hub_fields and not training.push_to_hub:
        raise ValueError(f"{hub_fields[0]} says how a run is pushed. Pass --push_to_hub too, or leave it out.")
    if data.fold_column_name and training.push_to_hub:
        raise ValueError(
            "push_to_hub publishes one model, fold_column_name trains one for every fold. Leave it out, and publish the "
            "fold that you want with ast-push."
        )
    if data.fold_column_name and _is_given(data, "eval_fraction"):
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
        if _is_given(data, name):
            raise ValueError(f"{name} {reason}. Leave out --{name}, or --streaming.")
    if training.train_sampling_strategy != "random":
        raise ValueError(
            f"train_sampling_strategy={training.train_sampling_strategy!r} chooses among all clips, of which a stream holds only "
            "the next ones. Pass --train_sampling_strategy random, or leave out --streaming."
        )


def _is_given(group: DataArguments | OptimizationArguments | ASTTrainingArguments, name: str) -> bool:
    """Whether a field has another value than its default."""
    (item,) = (item for item in dataclasses.fields(group) if item.name == name)
    return getattr(group, name) != item.default

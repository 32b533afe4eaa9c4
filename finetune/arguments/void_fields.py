"""Under which condition a field has an effect, told from all that a run was told: one table, a row for each condition.

A field that was given and that the others leave without effect is refused by name. Two kinds are said instead: a field of
a recipe whose ground a flag takes away, as no flag can take it out of the recipe; and one of a recipe that an earlier run
saved, which ran. A value that switches something off is obeyed anyway. Fields that are not in the table, in `REFUSED` or in
`WITHOUT_EFFECT` of `training_fields.py` have an effect in every run, or one that data, machine or launcher decide on.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from types import SimpleNamespace

from transformers.trainer_utils import SchedulerType

from .given import ArgumentGroup
from .groups import RunArguments
from .pretraining_arguments import NOT_IN_PRETRAINING
from .training_fields import LOW_RANK_OPTIMIZERS, OTHER_OPTIMIZERS, WITHOUT_EFFECT


@dataclass(frozen=True)
class Effect:
    """When a field has an effect.

    Args:
        words (`str`): what it does or belongs to, to stand after its name.
        way (`str`): what to type, as a sentence without its full stop.
        by (`tuple[str, ...]`): names of the fields that leave it without effect.
        counts (`Callable`): whether it has one, told from a namespace of all fields.
    """

    words: str
    way: str
    by: tuple[str, ...]
    counts: Callable[[SimpleNamespace], bool]


ONE_OF_THEM = "Pass one of them"


def _with(name: str, flags: str, words: str, counts: Callable[[SimpleNamespace], bool] | None = None) -> Effect:
    """The effect of a field that counts beside another one: where that is set, unless `counts` says it."""
    return Effect(
        words, f"Pass {flags} too, or leave it out", (name,), counts or (lambda run: bool(getattr(run, name)))
    )


def _without(name: str, words: str, way: str = ONE_OF_THEM) -> Effect:
    """The effect of a field that counts where another one is not set."""
    return Effect(words, way, (name,), lambda run: not getattr(run, name))


def _stays_a_layer(run: SimpleNamespace) -> bool:
    return not (0 < run.num_train_epochs <= run.head_only_epochs and run.max_steps <= 0)


_OF_FILES = "and the files of the splits are named"
_PUSHING = _with("push_to_hub", "--push_to_hub", "says how a run is pushed")
_WORKERS = _with("dataloader_num_workers", "--dataloader_num_workers 1 or more", "is about processes that read clips")
_RECOMPUTING = Effect(
    "says how activations are recomputed",
    "Pass --activation_checkpointing true too, or leave it out",
    ("activation_checkpointing", "gradient_checkpointing"),
    lambda run: run.activation_checkpointing or run.gradient_checkpointing,
)
_TRACKIO = _with("report_to", "--report_to trackio", "is Trackio's", lambda run: "trackio" in run.report_to)
_MOMENTS = Effect(
    "is not read by this optimiser",
    "Pass an --optim with the moments of Adam, or leave it out",
    ("optim",),
    lambda run: run.optim not in OTHER_OPTIMIZERS,
)
_SCORING = _with(
    "eval_strategy",
    "--eval_strategy epoch (or steps)",
    "is about the scores in training",
    lambda run: run.eval_strategy != "no",
)
_SAVING = _with(
    "save_strategy",
    "--save_strategy epoch",
    "is about the checkpoints of a training",
    lambda run: run.save_strategy != "no",
)
_KEPT = (
    _without("streaming", "is about clips that are at hand, and streaming reads them anew"),
    _without("marks", "is about clips, and windows of marked recordings are others in every epoch"),
    _without("features_column_name", "is about decoded clips, and features_column_name names finished features"),
)
_ADAPTERS = _with("lora_rank", "--lora_rank 8", "belongs to LoRA adapters")
_NOISES = _with("noise_dir", "--noise_dir DIR", "says how loud noises are")
_TEACHER = _with("teacher", "--teacher", "belongs to a teacher")
_GROUPING = Effect(
    "says which clips a split that is made keeps together",
    "Pass --dataset_name in place of the files, --validation_fraction too, or leave it out",
    ("train_file",),
    lambda run: not run.train_file or bool(run.validation_fraction),
)
_ORIGINAL_DECAY = Effect(
    "belongs to the original's schedule",
    "Pass --decay_after_epoch too, or leave it out",
    ("decay_after_epoch",),
    lambda run: bool(run.decay_after_epoch),
)
_OPTIMIZER = Effect(
    "and optimizer both name an optimiser", ONE_OF_THEM, ("optimizer",), lambda run: run.optimizer == "trainer"
)
_SCHEDULE = Effect(
    "and decay_after_epoch both say how the learning rate falls",
    ONE_OF_THEM,
    ("decay_after_epoch",),
    lambda run: run.decay_after_epoch is None,
)
_LAYERS = Effect(
    "is about layers, and only the classifier learns in all epochs",
    "Pass fewer --head_only_epochs, or leave it out",
    ("head_only_epochs", "num_train_epochs"),
    _stays_a_layer,
)

EFFECTS: Mapping[str, tuple[Effect, ...]] = {
    # Which clips
    "dataset_config_name": (
        _without(
            "train_file",
            f"names a configuration of --dataset_name, {_OF_FILES}",
            "Pass --dataset_name in their place, or leave it out",
        ),
    ),
    "validation_split_name": (
        Effect(
            f"names a split of --dataset_name, {_OF_FILES}",
            "Pass --validation_file TABLE, or leave it out",
            ("train_file",),
            lambda run: not run.train_file or bool(run.validation_file),
        ),
    ),
    "split_column_name": (
        _without(
            "train_file",
            f"names a column that says the split, {_OF_FILES}",
            "Pass --dataset_name in their place, or leave it out",
        ),
    ),
    "audio_column_name": (_without("features_column_name", "and features_column_name both say where the clips are"),),
    "label_column_name": (_without("label_columns", "and label_columns both say where the labels are"),),
    "group_column_name": (_GROUPING,),
    "group_file_pattern": (_GROUPING,),
    "eval_fraction": (
        _without("train_file", f"makes a split, {_OF_FILES}"),
        _without(
            "streaming",
            "makes a split, which a stream has to have: name it as --eval_split_name or --eval_file",
            "Leave out --eval_fraction, or --streaming",
        ),
        _without("fold_column_name", "holds clips out, fold_column_name scores every fold"),
    ),
    "memory_for_clips": _KEPT,
    "keep_features": (
        *_KEPT,
        _with("memory_for_clips", "--memory_for_clips 0.25", "says what stays in memory"),
    ),
    "shuffle_buffer": (_with("streaming", "--streaming", "belongs to clips that are streamed"),),
    "normalization_clips": (
        _with(
            "normalization",
            "--normalization measured",
            "says how many clips are measured",
            lambda run: run.normalization == ["measured"],
        ),
    ),
    **dict.fromkeys(
        (
            "mark_label_column",
            "mark_overlap",
            "background_share",
            "background_label",
            "unmarked",
            "hard_negatives",
        ),
        (_with("marks", "--marks beside", "is about marked stretches of recordings"),),
    ),
    # Augmentation
    "mixup_alpha": (_with("mixup_probability", "--mixup_probability 0.5", "says how clips are mixed"),),
    "noise_dir": (_with("noise_probability", "--noise_probability 0.5", "holds noises for a share of the clips"),),
    "noise_probability": (
        _with(
            "noise_dir",
            "--noise_dir DIR",
            "says how many clips get a noise",
            lambda run: bool(run.noise_dir) or not run.noise_probability,
        ),
    ),
    **dict.fromkeys(("min_snr_db", "max_snr_db"), (_NOISES,)),
    "impulse_response_dir": (
        _with(
            "impulse_response_probability",
            "--impulse_response_probability 0.5",
            "holds rooms for a share of the clips",
        ),
    ),
    "impulse_response_probability": (
        _with(
            "impulse_response_dir",
            "--impulse_response_dir DIR",
            "says how many clips get a room",
            lambda run: bool(run.impulse_response_dir) or not run.impulse_response_probability,
        ),
    ),
    "heard_padding_share": (
        _with(
            "padding",
            "--padding longest",
            "is about padding that is masked, and every clip's is heard",
            lambda run: run.padding == "longest",
        ),
    ),
    # Optimisation
    "decay_every": (_ORIGINAL_DECAY,),
    "decay_factor": (_ORIGINAL_DECAY,),
    "warmup_stair": (
        _with(
            "decay_after_epoch",
            "--decay_after_epoch",
            "belongs to the original's schedule",
            lambda run: run.decay_after_epoch is not None,
        ),
        _with("warmup_steps", "--warmup_steps 1000", "is a stair of the warm-up"),
    ),
    # 1 is no decay, and asks for nothing.
    "layer_decay": (replace(_LAYERS, counts=lambda run: run.layer_decay == 1 or _stays_a_layer(run)),),
    **dict.fromkeys(("frozen_layers", "lora_rank"), (_LAYERS,)),
    **dict.fromkeys(("lora_alpha", "lora_dropout", "lora_target_modules"), (_ADAPTERS,)),
    **dict.fromkeys(("teacher_revision", "teacher_sha256", "teacher_weight", "teacher_layers"), (_TEACHER,)),
    "teacher_temperature": (
        _TEACHER,
        _with("teacher_weight", "--teacher_weight 0.5", "softens the scores of the teacher, which have no part"),
    ),
    "teacher_layer_weight": (_with("teacher_layers", "--teacher_layers", "is the factor of compared layers"),),
    # Balanced weights ask for something, "none" does not.
    "class_weights": (
        Effect(
            "weights the labels, which have no part in the loss",
            "Pass a --teacher_weight below 1, or leave it out",
            ("teacher_weight",),
            lambda run: not (run.teacher and run.teacher_weight == 1 and run.class_weights != "none"),
        ),
    ),
    # TrainingArguments
    "num_train_epochs": (
        Effect(
            "and max_steps both say how long the training is",
            "Pass one of them, or --max_steps -1",
            ("max_steps",),
            lambda run: run.max_steps <= 0,
        ),
    ),
    **dict.fromkeys(
        ("hub_model_id", "hub_private_repo", "hub_revision", "hub_strategy", "hub_always_push"), (_PUSHING,)
    ),
    **dict.fromkeys(("dataloader_persistent_workers", "dataloader_multiprocessing_context"), (_WORKERS,)),
    **dict.fromkeys(("activation_checkpointing_kwargs", "gradient_checkpointing_kwargs"), (_RECOMPUTING,)),
    **dict.fromkeys(("project", "trackio_space_id", "trackio_bucket_id", "trackio_static_space_id"), (_TRACKIO,)),
    **dict.fromkeys(("eval_delay", "metric_for_best_model"), (_SCORING,)),
    "greater_is_better": (
        _SCORING,
        _with("metric_for_best_model", "--metric_for_best_model accuracy", "says which way a score is better"),
    ),
    "eval_steps": (
        _with(
            "eval_strategy", "--eval_strategy steps", "says when to score", lambda run: run.eval_strategy == "steps"
        ),
    ),
    "save_steps": (
        _with("save_strategy", "--save_strategy steps", "says when to save", lambda run: run.save_strategy == "steps"),
    ),
    **dict.fromkeys(("save_total_limit", "save_only_model", "save_in_background"), (_SAVING,)),
    **dict.fromkeys(("adam_beta1", "adam_beta2", "adam_epsilon"), (_MOMENTS,)),
    "optim": (_OPTIMIZER,),
    "optim_args": (_OPTIMIZER,),
    "optim_target_modules": (
        _OPTIMIZER,
        Effect(
            "is for GaLore and APOLLO",
            "Pass one of these as --optim, or leave it out",
            ("optim",),
            lambda run: run.optim in LOW_RANK_OPTIMIZERS,
        ),
    ),
    "lr_scheduler_type": (_SCHEDULE,),
    "set_shares": (
        _with(
            "train_sampling_strategy",
            "--train_sampling_strategy set_balanced",
            "says how often sets of labels are drawn",
            lambda run: run.train_sampling_strategy == "set_balanced",
        ),
    ),
    "lr_scheduler_kwargs": (
        _SCHEDULE,
        Effect(
            "is not read by this schedule",
            "Pass an --lr_scheduler_type that has settings, or leave it out",
            ("lr_scheduler_type",),
            lambda run: run.lr_scheduler_type not in (SchedulerType.CONSTANT, SchedulerType.CONSTANT_WITH_WARMUP),
        ),
    ),
    "warmup_steps": (
        Effect(
            "is not read by this schedule",
            "Pass --lr_scheduler_type constant_with_warmup, linear or another that warms up, or leave it out",
            ("lr_scheduler_type",),
            lambda run: (
                run.decay_after_epoch is not None
                or run.lr_scheduler_type
                not in (SchedulerType.CONSTANT, SchedulerType.REDUCE_ON_PLATEAU, SchedulerType.GREEDY)
            ),
        ),
    ),
    "run_name": (_with("report_to", "--report_to", "is what services call a run"),),
    "fsdp_config": (_with("fsdp", "--fsdp", "is about FSDP"),),
}


@dataclass(frozen=True)
class VoidField:
    """A field that was given and that others leave without effect; as a text, the message that refuses it.

    Args:
        name (`str`): of the field.
        effect ([`Effect`]): the first of its conditions that does not hold.
        states (`str`): in words, what the fields say by which it does not.
    """

    name: str
    effect: Effect
    states: str

    def __str__(self) -> str:
        return f"{self.name} {self.effect.words}. {self.effect.way}: {self.states}."

    def note(self) -> str:
        """What to say where it is not refused, without a full stop."""
        return f"--{self.name} has no effect: it {self.effect.words} ({self.states})"


def void_fields(
    groups: Iterable[ArgumentGroup], effects: Mapping[str, tuple[Effect, ...]] = EFFECTS
) -> list[VoidField]:
    """Find the fields that were given and that the others leave without effect.

    Args:
        groups (iterable of [`ArgumentGroup`]): all fields.
        effects (`Mapping`, defaults to `EFFECTS`): the conditions of each field, all of which have to hold.

    Returns:
        The fields, in the order of the table.
    """
    groups = list(groups)
    run = SimpleNamespace(**{name: value for group in groups for name, value in vars(group).items()})
    given = {name for group in groups for name in group.given if not is_off(group, name)}
    found = []
    for name in (name for name in effects if name in given):
        effect = next((effect for effect in effects[name] if not effect.counts(run)), None)
        if effect is not None:
            states = " and ".join(f"{other} is {_shown(getattr(run, other))}" for other in effect.by)
            found.append(VoidField(name, effect, states))
    return found


def refuse_void_fields(arguments: RunArguments):
    """Refuse fields that were given and have no effect, but for those of [`void_notes`].

    Args:
        arguments ([`RunArguments`]): all that the run was told.

    Raises:
        ValueError: for the first of them, with what leaves it without effect and what to type.
    """
    for void in void_fields(arguments.groups):
        if _yields(arguments, void):
            continue
        if arguments.pretraining is not None:
            for name in void.effect.by:
                if name in NOT_IN_PRETRAINING:  # what would give it an effect is refused
                    raise ValueError(
                        f"{void.name} is about {name}, which ast-pretrain does not do: {NOT_IN_PRETRAINING[name]}. Leave it out."
                    )
        raise ValueError(str(void))


def void_notes(arguments: RunArguments) -> list[str]:
    """What to say of fields that were given, have no effect, and are not refused.

    Args:
        arguments ([`RunArguments`]): all that the run was told.

    Returns:
        A sentence without its full stop for each: those that no run looks at, then those of a recipe that flags leave
        without effect, or that an earlier run saved.
    """
    notes = [f"--{name} has no effect: {why}" for name, why in WITHOUT_EFFECT.items() if name in arguments.given]
    return notes + [void.note() for void in void_fields(arguments.groups) if _yields(arguments, void)]


def _yields(arguments: RunArguments, void: VoidField) -> bool:
    """Whether a field without effect is said and not refused."""
    typed = arguments.given - arguments.from_recipe
    overridden = not typed.isdisjoint(void.effect.by)
    return void.name in arguments.from_recipe and (arguments.saved_by_a_run or overridden)


def is_off(group: ArgumentGroup, name: str) -> bool:
    """Tell whether a field is false, 0 or nothing, as it is by default: nothing is asked for that would not come about.

    Args:
        group ([`ArgumentGroup`]): whose it is.
        name (`str`): of the field.

    Returns:
        `True` if so.
    """
    value, item = getattr(group, name), group.__dataclass_fields__[name]
    return not value and value == item.default


def _shown(value) -> str:
    """A value of a field within a sentence."""
    if value is None or value in ("", []):
        return "not given"
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, list):
        return " ".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)

"""What is optimised how: the fourth group of fields."""

from dataclasses import dataclass, field

from .teacher_arguments import TeacherArguments

LABEL_SETS = "label_sets"  # a loss
LOADED, FITTED = "loaded", "fitted"  # of a classifier


@dataclass
class OptimizationArguments(TeacherArguments):
    """The original's optimiser and schedule beside those of `TrainingArguments`, and what is fine-tuned how fast."""

    optimizer: str = field(
        default="trainer",
        metadata={
            "help": "'trainer' for the one that --optim names (AdamW), 'adam' for the original's: Adam with the weight "
            "decay in the gradients of all parameters.",
            "choices": ["trainer", "adam"],
        },
    )
    decay_after_epoch: int | None = field(
        default=None,
        metadata={
            "help": "The original's schedule in place of --lr_scheduler_type: a constant rate, multiplied by decay_factor "
            "after this epoch and every decay_every epochs from there; 0 for never."
        },
    )
    decay_every: int = field(default=1, metadata={"help": "Epochs between two decays of the original's schedule."})
    decay_factor: float = field(default=0.5, metadata={"help": "Factor of each of these decays."})
    warmup_stair: int = field(
        default=50,
        metadata={"help": "In the original's schedule the rate rises every so many steps, for --warmup_steps steps."},
    )
    layer_decay: float = field(
        default=1.0, metadata={"help": "Factor of the learning rate from each layer to the one below it."}
    )
    head_learning_rate_factor: float = field(
        default=1.0, metadata={"help": "How many times the learning rate the classifier has."}
    )
    head_start: str = field(
        default=LOADED,
        metadata={
            "help": "What the classifier begins with: as it is 'loaded', the checkpoint's own if it has the same labels and random "
            "weights if not, or 'fitted' to the training clips before the first step, as the checkpoint hears them.",
            "choices": [LOADED, FITTED],
        },
    )
    head_only_epochs: int = field(default=0, metadata={"help": "First epochs in which only the classifier learns."})
    frozen_layers: int = field(
        default=0, metadata={"help": "Lowest layers that, with the embeddings below them, do not learn at all."}
    )
    class_weights: str = field(
        default="none",
        metadata={
            "help": "Weight rare labels more in the loss: 'balanced' or 'none'.",
            "choices": ["none", "balanced"],
        },
    )
    lora_rank: int = field(
        default=0,
        metadata={
            "help": "Train LoRA adapters of this rank (PEFT) and the classifier in place of all weights; 0 for none."
        },
    )
    lora_alpha: float | None = field(default=None, metadata={"help": "Scale of the adapters (twice the rank)."})
    lora_dropout: float = field(default=0.0, metadata={"help": "Dropout on the adapters' inputs."})
    lora_target_modules: list[str] = field(
        default_factory=list, metadata={"help": "Linear layers that get an adapter (query value)."}
    )
    loss: str | None = field(
        default=None,
        metadata={
            "help": "'cross_entropy' for one label a clip, 'binary_cross_entropy' for independent ones; as the labels are "
            "if not given. 'label_sets' for labels of several sets, written set/label, with a head for each.",
            "choices": ["cross_entropy", "binary_cross_entropy", LABEL_SETS],
        },
    )
    early_stopping_patience: int | None = field(
        default=None,
        metadata={"help": "Evaluations without a better score on the validation split after which to stop."},
    )
    average_epochs: list[int] = field(
        default_factory=list,
        metadata={"help": "First and last epoch, from 1, whose weights are averaged; the average is what is scored."},
    )
    ensemble_epochs: list[int] = field(
        default_factory=list,
        metadata={"help": "First and last epoch whose mean scores are reported beside; their folders are kept."},
    )

    none_of_these: bool = field(
        default=False,
        metadata={
            "help": "Keep vectors of the training clips with the checkpoint, by which ast-tag and the page tell clips that are "
            "none of the labels (out-of-distribution detection)."
        },
    )

    def __post_init__(self):
        super().__post_init__()
        for name in ("decay_every", "warmup_stair"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} is less than 1. Pass a whole number from 1.")
        if self.decay_after_epoch is not None and self.decay_after_epoch < 0:
            raise ValueError(
                f"decay_after_epoch={self.decay_after_epoch} is negative. Pass 0 for a rate that never decays."
            )
        if self.lora_rank < 0:
            raise ValueError(f"lora_rank={self.lora_rank} is negative. Pass for example 8, or 0 to train all weights.")
        if self.lora_alpha is not None and self.lora_alpha <= 0:
            raise ValueError(f"lora_alpha={self.lora_alpha} is not above 0. Pass for example twice the rank.")
        if not 0 <= self.lora_dropout < 1:
            raise ValueError(f"lora_dropout={self.lora_dropout} is not from 0 to below 1. Pass for example 0.1.")
        if self.head_start not in (LOADED, FITTED):
            raise ValueError(f"head_start={self.head_start!r} is unknown. Pass {LOADED!r} or {FITTED!r}.")
        for name in ("head_only_epochs", "frozen_layers"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)} is negative. Pass 0 to let everything learn.")
        for name in ("decay_factor", "layer_decay"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)} is not above 0 and up to 1. Pass for example 0.75.")
        if self.head_learning_rate_factor <= 0:
            raise ValueError(
                f"head_learning_rate_factor={self.head_learning_rate_factor} is not above 0. Pass for example 10."
            )
        if self.early_stopping_patience is not None and self.early_stopping_patience < 1:
            raise ValueError(
                f"early_stopping_patience={self.early_stopping_patience} is less than 1. Pass a whole number from 1."
            )
        for name in ("average_epochs", "ensemble_epochs"):
            epochs = getattr(self, name)
            if epochs and not (len(epochs) == 2 and 1 <= epochs[0] <= epochs[1]):
                raise ValueError(
                    f"{name}={epochs} is not a first and a last epoch, counted from 1. Pass for example --{name} 6 25."
                )

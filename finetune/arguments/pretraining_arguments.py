"""Self-supervised pretraining: what is masked, and what of the other groups is another by default or not read."""

from dataclasses import dataclass, field
from typing import ClassVar

from modeling_ast.layers.patch_masks import CLUSTER_SIDES, MASKED_SHARE
from modeling_ast.masked_modeling import RECONSTRUCTION_WEIGHT

from .data_arguments import DataArguments
from .given import ArgumentGroup
from .training_arguments import ASTTrainingArguments

_OF_LABELS = "ast-pretrain reads no labels"
_OF_A_CLASSIFIER = "it is about a classifier, and a pretraining has none"
_OF_CHOICES = "it is about what is chosen on a validation split, and a pretraining chooses nothing there"
# Fields of the other groups that a pretraining cannot obey, and why.
NOT_IN_PRETRAINING = {
    **dict.fromkeys(("label_column_name", "label_columns", "label_separator", "label_csv", "labels"), _OF_LABELS),
    **dict.fromkeys(("ignore_labels", "join_annotations"), _OF_LABELS),
    **dict.fromkeys(("loss", "class_weights", "label_smoothing_factor"), _OF_A_CLASSIFIER),
    **dict.fromkeys(("head_start", "head_only_epochs", "head_learning_rate_factor"), _OF_A_CLASSIFIER),
    **dict.fromkeys(("validation_fraction", "validation_split_name", "validation_file"), _OF_CHOICES),
    "early_stopping_patience": _OF_CHOICES,
    **dict.fromkeys(("none_of_these", "set_shares"), _OF_LABELS),
    **dict.fromkeys(("average_epochs", "ensemble_epochs"), "the last weights are scored and saved"),
    "fold_column_name": "a pretraining has no folds",
    "features_column_name": "a pretraining reads audio",
    "streaming": "a pretraining needs its clips at hand",
    "mixup_probability": "a mixed clip is two clips, of which neither could be found again",
    **dict.fromkeys(
        ("patchout_frequency", "patchout_time", "patchout_share"), "every masked patch has to be computed"
    ),
    "heard_padding_share": "padding is no part of what is to be found",
    "teacher": "a teacher knows labels, and ast-pretrain reads none",
    "head": _OF_A_CLASSIFIER,
    "lora_rank": "a pretraining trains all weights",
    "marks": _OF_LABELS,
    **dict.fromkeys(("clip_windows", "score_windows"), "a pretraining hears the beginning of a longer clip"),
    "dry_run": "it looks at labels and trains a classifier for some steps",
}


@dataclass
class UnlabelledDataArguments(DataArguments):
    """Which clips, of which no labels are read."""

    labelled: ClassVar[bool] = False


@dataclass
class PretrainingTrainingArguments(ASTTrainingArguments):
    """[`ASTTrainingArguments`] with the defaults of a pretraining."""

    learning_rate: float = field(
        default=1e-4, metadata={"help": "Peak learning rate; SSAST pretrains with 1e-4 (Gong et al. 2022)."}
    )
    eval_strategy: str = field(
        default="epoch", metadata={"help": "When to score the held-out clips: epoch, steps or no (once, at the end)."}
    )


@dataclass
class PretrainingArguments(ArgumentGroup):
    """What a pretraining masks and how it weighs its two tasks."""

    masked_share: float = field(
        default=MASKED_SHARE,
        metadata={"help": "Share of each clip's patches that are hidden and predicted; SSAST hides 400 of 512."},
    )
    cluster_sides: list[int] = field(
        default_factory=lambda: list(CLUSTER_SIDES),
        metadata={
            "help": "Least and largest side of the squares of patches that are hidden together; 1 1 hides patches one by one."
        },
    )
    reconstruction_weight: float = field(
        default=RECONSTRUCTION_WEIGHT,
        metadata={
            "help": "Weight of the reconstruction beside the matching in what is trained on; 0 for matching alone."
        },
    )

    def __post_init__(self):
        if not 0 < self.masked_share < 1:
            raise ValueError(
                f"masked_share={self.masked_share:g} is not between 0 and 1: some patches have to be hidden, and some heard. "
                "Pass for example --masked_share 0.75."
            )
        if len(self.cluster_sides) != 2 or not 1 <= self.cluster_sides[0] <= self.cluster_sides[1]:
            raise ValueError(
                f"cluster_sides={self.cluster_sides} is not a least and a largest side, from 1 on. Pass for example "
                "--cluster_sides 3 5."
            )
        if self.reconstruction_weight < 0:
            raise ValueError(
                f"reconstruction_weight={self.reconstruction_weight:g} is negative. Pass for example "
                f"{RECONSTRUCTION_WEIGHT:g}, or 0 for matching alone."
            )

"""What a run can be told: five groups of fields, a sixth for a pretraining, and what of them was given.

A group refuses by itself what is wrong in it; see `conflicts.py` for what is wrong between groups, and `command_line.py` for
how fields are given.
"""

from dataclasses import dataclass

from .augmentation_arguments import AugmentationArguments
from .data_arguments import DataArguments
from .given import ArgumentGroup
from .model_arguments import ModelArguments
from .optimization_arguments import OptimizationArguments
from .pretraining_arguments import PretrainingArguments, PretrainingTrainingArguments, UnlabelledDataArguments
from .training_arguments import ASTTrainingArguments

ARGUMENT_GROUPS = (ModelArguments, DataArguments, AugmentationArguments, OptimizationArguments, ASTTrainingArguments)
PRETRAINING_GROUPS = (
    ModelArguments,
    UnlabelledDataArguments,
    AugmentationArguments,
    OptimizationArguments,
    PretrainingTrainingArguments,
    PretrainingArguments,
)


@dataclass(frozen=True)
class Command:
    """A command that trains.

    Args:
        name (`str`): as it is typed.
        groups (`tuple`): classes of the fields that it takes: the five of a run in their order, and its own.
        purpose (`str`): what it does, for its help.
        example (`str`): what is typed after it, for its help.
    """

    name: str
    groups: tuple[type[ArgumentGroup], ...]
    purpose: str
    example: str


FINE_TUNING = Command(
    "ast-finetune",
    ARGUMENT_GROUPS,
    "Fine-tune an Audio Spectrogram Transformer on your own clips.",
    "--dataset_name clips --output_dir runs/mine --model_name_or_path user/checkpoint",
)
PRETRAINING = Command(
    "ast-pretrain",
    PRETRAINING_GROUPS,
    "Pretrain an Audio Spectrogram Transformer on clips without labels, by masked patches (SSAST).",
    "--dataset_name recordings --output_dir runs/pretrained --max_length 512",
)
COMMANDS = (FINE_TUNING, PRETRAINING)


@dataclass(frozen=True)
class RunArguments:
    """All that a run was told.

    Args:
        model ([`ModelArguments`]): which model.
        data ([`DataArguments`]): which clips.
        augmentation ([`AugmentationArguments`]): how training clips are changed.
        optimization ([`OptimizationArguments`]): what learns how fast.
        training ([`ASTTrainingArguments`]): the fields of `TrainingArguments`.
        from_recipe (`frozenset[str]`, defaults to none): names of the fields that a recipe gives and no flag.
        saved_by_a_run (`bool`, defaults to `False`): whether an earlier run has saved that recipe.
        pretraining ([`PretrainingArguments`], *optional*): what is masked, of a pretraining.
    """

    model: ModelArguments
    data: DataArguments
    augmentation: AugmentationArguments
    optimization: OptimizationArguments
    training: ASTTrainingArguments
    from_recipe: frozenset[str] = frozenset()
    saved_by_a_run: bool = False
    pretraining: PretrainingArguments | None = None

    @property
    def groups(self) -> tuple[ArgumentGroup, ...]:
        """All groups, in the order of the command's."""
        of_every_run = (self.model, self.data, self.augmentation, self.optimization, self.training)
        return of_every_run if self.pretraining is None else (*of_every_run, self.pretraining)

    @property
    def command(self) -> Command:
        """The command that was told this."""
        return FINE_TUNING if self.pretraining is None else PRETRAINING

    @property
    def given(self) -> frozenset[str]:
        """Names of the fields that the user wrote in a recipe, as flags or in Python, whatever they say."""
        return frozenset().union(*(group.given for group in self.groups))

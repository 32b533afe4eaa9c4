"""What a fine-tuning run can be told: five groups of fields, and what of them was given.

A group refuses by itself what is wrong in it; see `conflicts.py` for what is wrong between groups, and `command_line.py` for
how fields are given.
"""

from dataclasses import dataclass

from .augmentation_arguments import AugmentationArguments
from .data_arguments import DataArguments
from .given import ArgumentGroup
from .model_arguments import ModelArguments
from .optimization_arguments import OptimizationArguments
from .training_arguments import ASTTrainingArguments

ARGUMENT_GROUPS = (ModelArguments, DataArguments, AugmentationArguments, OptimizationArguments, ASTTrainingArguments)


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
    """

    model: ModelArguments
    data: DataArguments
    augmentation: AugmentationArguments
    optimization: OptimizationArguments
    training: ASTTrainingArguments
    from_recipe: frozenset[str] = frozenset()
    saved_by_a_run: bool = False

    @property
    def groups(self) -> tuple[ArgumentGroup, ...]:
        """The five groups, in the order of `ARGUMENT_GROUPS`."""
        return self.model, self.data, self.augmentation, self.optimization, self.training

    @property
    def given(self) -> frozenset[str]:
        """Names of the fields that the user wrote in a recipe, as flags or in Python, whatever they say."""
        return frozenset().union(*(group.given for group in self.groups))

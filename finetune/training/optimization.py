"""Optimiser, schedule, learning rates by layer and frozen parts of a fine-tuning run.

The optimiser, the staircase warm-up and the decay by epochs are those of the released training code of AST (Gong et al.,
Interspeech 2021). Learning rates that fall from layer to layer follow ELECTRA (Clark et al. 2020) and BEiT (Bao et al.
2021), a classifier that learns alone at first follows Kumar et al. 2022; the original has neither of these.
"""

import re
from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import nn
from torch.optim.lr_scheduler import LRScheduler
from transformers import TrainerCallback, TrainingArguments

from modeling_ast.modeling_ast import ASTPreTrainedModel

# Key of a parameter group: how many times the run's learning rate the group has.
RATE_FACTOR = "learning_rate_factor"


def original_optimizer(parameters: Iterable[nn.Parameter], args: TrainingArguments) -> torch.optim.Adam:
    """The original's optimiser: Adam with the weight decay in the gradients (L2) of all parameters, biases too.

    Args:
        parameters (`Iterable[nn.Parameter]`): those with `requires_grad` are optimised.
        args (`TrainingArguments`): its `learning_rate`, `weight_decay`, `adam_beta1`, `adam_beta2`, `adam_epsilon`.

    Returns:
        `torch.optim.Adam`: over the parameters that learn.

    Source: `traintest.py` of the released code.
    """
    return torch.optim.Adam(
        [parameter for parameter in parameters if parameter.requires_grad],
        lr=args.learning_rate,
        betas=(args.adam_beta1, args.adam_beta2),
        eps=args.adam_epsilon,
        weight_decay=args.weight_decay,
    )


class EpochDecay(LRScheduler):
    """The original's schedule: a constant rate that is multiplied at the ends of some epochs, after a staircase warm-up.

    It is stepped once per optimiser step. The rate of a step is a function of the step alone: the last stair before it,
    times the decays since then, multiplied one after the other as `torch.optim.lr_scheduler.MultiStepLR` does.

    Args:
        optimizer (`torch.optim.Optimizer`): every parameter group keeps its ratio to the others.
        steps_per_epoch (`int`): optimiser steps of an epoch.
        decay_after_epoch (`int`): epoch, counted from 1, after which the rate is first multiplied; 0 for never.
        decay_every (`int`, defaults to 1): epochs between two decays.
        decay_factor (`float`, defaults to 0.5): what the rate is multiplied by.
        warmup_steps (`int`, defaults to 0): step at which the warm-up reaches the full rate; 0 for no warm-up.
        warmup_stair (`int`, defaults to 50): steps for which the rate stays the same in the warm-up, which starts at 0.

    Raises:
        ValueError: if the warm-up is shorter than one stair, and so would train nothing at all.

    Source: `traintest.py` of the released code. As there, a stair sets the rate, whatever decays came before it. Different
    only where `warmup_steps` is no multiple of `warmup_stair`: the full rate is reached at `warmup_steps` all the same.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        steps_per_epoch: int,
        decay_after_epoch: int,
        decay_every: int = 1,
        decay_factor: float = 0.5,
        warmup_steps: int = 0,
        warmup_stair: int = 50,
    ):
        if 0 < warmup_steps < warmup_stair:
            raise ValueError(
                f"A warm-up of {warmup_steps} steps with a new rate every {warmup_stair} has the rate 0 throughout. Pass "
                f"--warmup_stair {max(warmup_steps // 10, 1)}, or --warmup_steps 0."
            )
        self.steps_per_epoch = steps_per_epoch
        self.decay_after_epoch = decay_after_epoch
        self.decay_every = decay_every
        self.decay_factor = decay_factor
        self.warmup_steps = warmup_steps
        self.warmup_stair = warmup_stair
        super().__init__(optimizer)

    def get_lr(self) -> list[float]:
        """The rate of each parameter group in the step that comes next.

        Returns:
            `list[float]`: in the order of the groups.
        """
        return [self._rate(self.last_epoch, base) for base in self.base_lrs]

    def _rate(self, step: int, rate: float) -> float:
        last_stair = 0
        if self.warmup_steps:
            warm = step >= self.warmup_steps
            last_stair = self.warmup_steps if warm else step - step % self.warmup_stair
            rate = (last_stair / self.warmup_steps) * rate
        for _ in range(self._decays(step) - self._decays(last_stair)):
            rate = rate * self.decay_factor
        return rate

    def _decays(self, step: int) -> int:
        """Decays at the ends of epochs up to this step, those included that come right before it."""
        epochs_done = step // self.steps_per_epoch
        if not self.decay_after_epoch or epochs_done < self.decay_after_epoch:
            return 0
        return (epochs_done - self.decay_after_epoch) // self.decay_every + 1


def depth_of(name: str, num_layers: int) -> int:
    """How far up in the model a parameter is.

    Args:
        name (`str`): of the parameter, perhaps below the prefixes of a wrapper such as PEFT's.
        num_layers (`int`): layers of the transformer.

    Returns:
        0 for the embeddings, 1 for the first layer ... `num_layers` for the last one and the LayerNorm after it, one
        more for what is not part of the transformer, such as the classifier.
    """
    _, found, below = name.rpartition(f"{ASTPreTrainedModel.base_model_prefix}.")
    if not found:
        return num_layers + 1
    if below.startswith("embeddings."):
        return 0
    layer = re.search(r"\blayer\.(\d+)\.", below)
    return int(layer.group(1)) + 1 if layer else num_layers


def scale_learning_rates(
    optimizer: torch.optim.Optimizer,
    model: nn.Module,
    num_layers: int,
    layer_decay: float = 1.0,
    head_learning_rate_factor: float = 1.0,
):
    """Split the groups of an optimiser that has not stepped yet, so that each layer has a learning rate of its own.

    The classifier has `head_learning_rate_factor` times the learning rate, the last layer `layer_decay` times it, each
    layer below `layer_decay` times that of the one above, the embeddings the lowest. With both factors 1 the groups stay
    as they are, so that older checkpoints can be resumed from. A group's factor is kept in it as `learning_rate_factor`.

    Args:
        optimizer (`torch.optim.Optimizer`): of any kind; what else its groups hold, such as the weight decay, stays.
        model (`nn.Module`): whose parameters it has.
        num_layers (`int`): layers of the transformer.
        layer_decay (`float`, defaults to 1): factor from each layer to the one below.
        head_learning_rate_factor (`float`, defaults to 1): factor of the classifier.
    """
    if layer_decay == 1 and head_learning_rate_factor == 1:
        return
    depths = {id(parameter): depth_of(name, num_layers) for name, parameter in model.named_parameters()}
    head = num_layers + 1
    split_groups = []
    for group in optimizer.param_groups:
        by_factor = defaultdict(list)
        for parameter in group["params"]:
            depth = depths[id(parameter)]
            factor = head_learning_rate_factor if depth == head else layer_decay ** (head - depth)
            by_factor[factor].append(parameter)
        split_groups += [
            {**group, "params": parameters, "lr": group["lr"] * factor, RATE_FACTOR: factor}
            for factor, parameters in by_factor.items()
        ]
    optimizer.param_groups[:] = split_groups


def freeze_lowest_layers(model: nn.Module, num_layers: int, frozen_layers: int):
    """Exclude the embeddings and the lowest layers of a model from training.

    Args:
        model (`nn.Module`): changed in place.
        num_layers (`int`): layers of its transformer.
        frozen_layers (`int`): how many of them do not learn; with 0 the embeddings learn too.

    Raises:
        ValueError: if the model has fewer layers.
    """
    if frozen_layers > num_layers:
        raise ValueError(
            f"frozen_layers={frozen_layers} was given, but the model has {num_layers} layers. Pass --frozen_layers "
            f"{num_layers} to train the classifier only."
        )
    if frozen_layers:
        for name, parameter in model.named_parameters():
            if depth_of(name, num_layers) <= frozen_layers:
                parameter.requires_grad_(False)


class HeadOnlyEpochs(TrainerCallback):
    """Lets only the classifier learn in the first epochs of a training.

    What is below the classifier is switched off with `requires_grad` when an epoch begins, as a function of the epoch
    alone, so that a resumed run does the same, in the middle of an epoch too. What the optimiser does not hold stays
    frozen. It was made before, with all that is to learn; parameters without a gradient get no state in it and no weight
    decay, and its state is saved and loaded as ever. Gradient checkpointing has to be the non-reentrant kind, which is
    the default, and with several processes `DistributedDataParallel` has to look for unused parameters: [`ASTTrainer`]
    sees to both.

    Args:
        num_epochs (`int`): how many epochs.
    """

    def __init__(self, num_epochs: int):
        self.num_epochs = num_epochs
        self.below_head: list[nn.Parameter] = []

    def on_train_begin(self, args, state, control, model=None, optimizer=None, **kwargs):
        """See `TrainerCallback.on_train_begin`: lists the parameters below the classifier that are to learn later."""
        learning = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
        num_layers = model.config.num_hidden_layers
        self.below_head = [
            parameter
            for name, parameter in model.named_parameters()
            if id(parameter) in learning and depth_of(name, num_layers) <= num_layers
        ]

    def on_epoch_begin(self, args, state, control, **kwargs):
        """See `TrainerCallback.on_epoch_begin`: freezes them in the first epochs, and lets them learn from then on."""
        self._let_learn(int(state.epoch) >= self.num_epochs)

    def on_train_end(self, args, state, control, **kwargs):
        """See `TrainerCallback.on_train_end`: lets them learn, as they did before the training."""
        self._let_learn(True)

    def _let_learn(self, learns: bool):
        for parameter in self.below_head:
            parameter.requires_grad_(learns)

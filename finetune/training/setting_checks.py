"""What would end a training, or leave it without what was asked for, found out before it begins."""

import copy

import torch
from transformers import Trainer
from transformers.optimization import get_scheduler

from ..arguments.training_arguments import BALANCED_STRATEGIES
from ..arguments.training_fields import LOW_RANK_OPTIMIZERS


def check_settings(trainer: Trainer):
    """Find out what would end the training, or leave it without what was asked for, once the clips are known.

    Args:
        trainer ([`ASTTrainer`]): with its clips and model.

    Raises:
        ValueError: for a balanced draw of too few clips, less than one whole batch where others are dropped,
            scoring that would begin after the end, and an optimiser or a schedule that cannot be made.
        ImportError: for an optimiser whose package is not installed.
    """
    args = trainer.args
    if args.train_sampling_strategy in BALANCED_STRATEGIES:
        trainer._get_train_sampler()
    num_clips, batch_size = len(trainer.train_dataset), args.train_batch_size * args.world_size
    if args.dataloader_drop_last and num_clips < batch_size:
        raise ValueError(
            f"dataloader_drop_last leaves nothing of {num_clips} training clips in batches of {batch_size}. Leave it out, or "
            "pass a smaller --per_device_train_batch_size."
        )
    _check_eval_delay(trainer)
    _check_optimizer(trainer)
    if trainer.optimization.decay_after_epoch is None:
        _check_schedule(trainer)


def _check_optimizer(trainer: Trainer):
    args = trainer.args
    try:
        made = trainer.get_optimizer_cls_and_kwargs(args, trainer.model)
    except ValueError as error:
        raise ValueError(
            f"optim={args.optim.value}, optim_args={args.optim_args!r}, optim_target_modules={args.optim_target_modules!r} "
            f"make no optimiser: {error}. Correct them; optim_args is name=value,name=value."
        ) from error
    if not args.optim_args or args.optim in LOW_RANK_OPTIMIZERS:  # whose settings are in groups of parameters
        return
    pairs = args.optim_args.split(",")
    for place, pair in enumerate(pairs):
        without = copy.copy(args)
        without.optim_args = ",".join(pairs[:place] + pairs[place + 1 :])
        if trainer.get_optimizer_cls_and_kwargs(without, trainer.model) == made:
            raise ValueError(
                f"optim_args has {pair.strip()}, which changes nothing of optim={args.optim.value}. Correct it, or leave it out."
            )


def _check_eval_delay(trainer: Trainer):
    args = trainer.args
    if args.eval_strategy == "no":
        return
    _, steps_per_epoch, *_, max_steps = trainer.set_initial_training_values(args, trainer.get_train_dataloader())
    by_steps = args.eval_strategy == "steps"
    end = max_steps if by_steps else max_steps / steps_per_epoch
    if args.eval_delay > end:
        raise ValueError(
            f"eval_delay={args.eval_delay:g} is beyond the end of the training at {end:g} {'steps' if by_steps else 'epochs'}, "
            "so that nothing would be scored in it. Pass a smaller --eval_delay, or --eval_strategy no."
        )


def _check_schedule(trainer: Trainer):
    args, unused = trainer.args, torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    try:
        get_scheduler(args.lr_scheduler_type, unused, 0, 1, args.lr_scheduler_kwargs)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"lr_scheduler_type={args.lr_scheduler_type.value}, lr_scheduler_kwargs={args.lr_scheduler_kwargs} make no "
            f"schedule: {error}. Correct --lr_scheduler_kwargs."
        ) from error

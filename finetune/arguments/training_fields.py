"""Fields of `transformers.TrainingArguments` that a run of this kit does not simply obey, one row each.

`docs/training_arguments.md` has a row for every field that there is; a test compares the two.
"""

import inspect
import json
import math
import os
from collections.abc import Sequence
from dataclasses import MISSING, dataclass

import torch
from transformers import TrainingArguments
from transformers.debug_utils import DebugOption
from transformers.training_args import OptimizerNames

# What an epoch can be chosen by: the loss, and scores (`ASTMetrics` gives them), of which more is better.
LOSS = "loss"
SCORES = ("accuracy", "f1_macro", "mean_average_precision", "roc_auc_macro", "d_prime")
INFINITY = math.inf
LARGEST_SEED = 2**32 - 1  # of NumPy


@dataclass(frozen=True)
class Range:
    """Numbers that a field may hold.

    Args:
        lowest (`float`): the least of them.
        highest (`float`, defaults to infinity): the largest of them, or with `below` what they are below.
        below (`bool`, defaults to `True`): whether `highest` itself is no such number.
        above (`bool`, defaults to `False`): whether `lowest` itself is none.
    """

    lowest: float
    highest: float = INFINITY
    below: bool = True
    above: bool = False

    def holds(self, value: float) -> bool:
        """Tell whether a number is one of them.

        Args:
            value (`float`): the number.

        Returns:
            `True` if so; never for NaN.
        """
        high_enough = value > self.lowest if self.above else value >= self.lowest
        return high_enough and (value < self.highest if self.below else value <= self.highest)

    def __str__(self) -> str:
        words = f"{'above' if self.above else 'from'} {self.lowest:g}"
        if self.highest == INFINITY:
            return words if self.above else f"{words} on"
        return f"{words} {'to below' if self.below else 'to'} {self.highest:.10g}"


RANGES = {
    **dict.fromkeys(("per_device_train_batch_size", "per_device_eval_batch_size"), Range(1)),
    **dict.fromkeys(("gradient_accumulation_steps", "dataloader_prefetch_factor"), Range(1)),
    **dict.fromkeys(("eval_accumulation_steps", "torch_empty_cache_steps"), Range(1)),
    **dict.fromkeys(("ddp_timeout", "ddp_bucket_cap_mb"), Range(1)),
    **dict.fromkeys(("learning_rate", "weight_decay", "adam_epsilon", "max_grad_norm", "warmup_steps"), Range(0)),
    **dict.fromkeys(("dataloader_num_workers", "save_total_limit", "eval_delay"), Range(0)),
    **dict.fromkeys(("logging_steps", "eval_steps", "save_steps"), Range(0, above=True)),
    **dict.fromkeys(("adam_beta1", "adam_beta2", "label_smoothing_factor"), Range(0, 1)),
    **dict.fromkeys(("seed", "data_seed"), Range(0, LARGEST_SEED, below=False)),
}

# What is refused unless it is the default of the kit, and why.
REFUSED = {
    "prediction_loss_only": "a run is scored, and the loss alone has no scores",
    "eval_do_concat_batches": "scores are computed of all batches of a split together",
    "include_for_metrics": "the scores are computed of outputs and labels alone",
    "batch_eval_metrics": "mean average precision and the like need all clips of a split at once",
    "eval_use_gather_object": "the outputs of several processes are tensors, which are gathered as such",
    "label_names": "the collator calls the labels 'labels'",
    "remove_unused_columns": "the model's own inputs are computed from what this would remove",
    "use_liger_kernel": "Liger has no kernels for this model",
    "liger_kernel_config": "Liger has no kernels for this model",
    "neftune_noise_alpha": "it disturbs embeddings of words, by draws that a resumed run would not repeat; noise on the "
    "features is --noise_strength",
    "auto_find_batch_size": "another batch size is another training, which would not be recorded; where memory is full, the "
    "message says which batch size and accumulation give the same result",
    "include_num_input_tokens_seen": "clips have no tokens",
    "bf16_full_eval": "it turns the weights themselves to bfloat16, and they would be published so; --bf16 computes in it",
    "fp16_full_eval": "it turns the weights themselves to float16, and they would be published so; --fp16 computes in it",
    "save_on_each_node": "a checkpoint is written once, into a folder that all nodes see",
    "enable_jit_checkpoint": "at SIGTERM a run of this kit ends with the last checkpoint and says how to go on",
    "dataloader_in_order": "clips would come in another order than that of the seed, and a resumed run would differ",
    "parallelism_config": "tensor, context and sequence parallelism are for larger models than this one",
}

# Values of accelerator_config that are refused in several processes, and why.
REFUSED_IN_PROCESSES = {
    "even_batches": (False, "one would wait in vain for the last batch of another"),
    "split_batches": (
        True,
        "each would read a part of a batch, and another batch size would be recorded than was trained",
    ),
}

# What a run of this kit does not look at, and why; it is said if it was given.
WITHOUT_EFFECT = {
    "do_train": "ast-finetune always trains",
    "do_eval": "--eval_strategy says whether there is scoring in training, and the held-out split is scored in the end",
    "do_predict": "the held-out split is always scored in the end",
    "local_rank": "the launcher says it in the environment",
    "length_column_name": "the lengths of clips are read from their files",
    "use_cache": "this model has no cache of keys and values",
    "average_tokens_across_devices": "every clip counts the same, and processes have equally many",
}

# Optimisers without the moments of Adam.
OTHER_OPTIMIZERS = {
    OptimizerNames.SGD,
    OptimizerNames.ADAGRAD,
    OptimizerNames.RMSPROP,
    OptimizerNames.ADAFACTOR,
    OptimizerNames.LOMO,
    OptimizerNames.ADALOMO,
}
LOW_RANK_OPTIMIZERS = {name for name in OptimizerNames if name.value.startswith(("galore_", "apollo_"))}


HUB_FIELDS = ("hub_model_id", "hub_private_repo", "hub_revision")

# What `torch.utils.checkpoint` and Transformers take of activation_checkpointing_kwargs, of what JSON can say.
CHECKPOINTING_OPTIONS = {
    *inspect.signature(torch.utils.checkpoint.checkpoint).parameters.keys()
    - {"function", "args", "context_fn", "kwargs"},
    "preserve_rng_state",
    "every_n_layers",
    "offload",
}


def refuse_numbers(args: TrainingArguments):
    """Refuse a number that its field cannot hold; called before `TrainingArguments` looks at it.

    Args:
        args (`TrainingArguments`): the fields.

    Raises:
        ValueError: for the first such number, with those that the field can hold.
    """
    for name, numbers in RANGES.items():
        value = getattr(args, name)
        if isinstance(value, int | float) and not numbers.holds(value):
            raise ValueError(f"{name}={value:g} was given, expected a number {numbers}. Correct --{name}.")
    if args.max_steps != -1 and args.max_steps < 1:
        raise ValueError(
            f"max_steps={args.max_steps} was given, expected a number from 1 on. Leave it out to count epochs."
        )
    if args.max_steps == -1 and not 0 < args.num_train_epochs < INFINITY:
        raise ValueError(
            f"num_train_epochs={args.num_train_epochs:g} was given, which trains nothing or never ends. Pass a number above 0."
        )


def refuse_unreadable(args: TrainingArguments):
    """Refuse a mapping that is no JSON, and what needs several processes and has one.

    Args:
        args (`TrainingArguments`): the fields.

    Raises:
        ValueError: for the first of them.
    """
    for name in args._VALID_DICT_FIELDS:
        value = getattr(args, name)
        if isinstance(value, str) and value.startswith("{"):
            try:
                json.loads(value)
            except ValueError as error:
                raise ValueError(f"{name}={value!r} is no JSON: {error}. Correct --{name}.") from error
    if args.ddp_backend and int(os.environ.get("WORLD_SIZE", "1")) < 2:
        raise ValueError(
            f"ddp_backend={args.ddp_backend!r} is about several processes, and this is one. Run it with accelerate launch, or "
            "leave it out."
        )


def refuse_mappings(args: TrainingArguments):
    """Refuse a path where only a mapping is read, and options that no one knows.

    Args:
        args (`TrainingArguments`): the fields.

    Raises:
        ValueError: for the first of them.
    """
    for name in ("lr_scheduler_kwargs", "activation_checkpointing_kwargs"):
        value = getattr(args, name)
        if value is not None and not isinstance(value, dict):
            raise ValueError(
                f"""{name}={value!r} is no mapping. Pass JSON, for example --{name} '{{"name": 1}}'; files are not read here."""
            )
    unknown = sorted((args.activation_checkpointing_kwargs or {}).keys() - CHECKPOINTING_OPTIONS)
    if unknown:
        raise ValueError(
            f"activation_checkpointing_kwargs has {', '.join(unknown)}, expected {', '.join(sorted(CHECKPOINTING_OPTIONS))}. "
            "Correct --activation_checkpointing_kwargs."
        )


def shares_by_set(words: Sequence[str]) -> dict[str, float]:
    """Read how often sets are drawn.

    Args:
        words (sequence of `str`): `set=share` each, as in `drums=4`.

    Returns:
        `dict[str, float]`.

    Raises:
        ValueError: for a word that is none, a share that is not above 0, or a set named twice.
    """
    shares: dict[str, float] = {}
    for word in words:
        name, _, text = word.rpartition("=")
        try:
            share = float(text)
        except ValueError:
            share = math.nan
        if not name or not 0 < share < math.inf or name in shares:
            raise ValueError(
                f"set_shares has {word!r}, expected each set once, with a number above 0: set=share. Pass for example "
                "--set_shares drums=4 words=2."
            )
        shares[name] = share
    return shares


def refuse_fields(args: TrainingArguments):
    """Refuse what a run of this kit cannot obey.

    Args:
        args (`TrainingArguments`): the fields.

    Raises:
        ValueError: for the first such field; it says why, and what to type.
    """
    for name, why in REFUSED.items():
        item = args.__dataclass_fields__[name]
        default = item.default if item.default_factory is MISSING else item.default_factory()
        if getattr(args, name) != default:
            raise ValueError(f"{name}={getattr(args, name)!r} was given, but {why}. Leave it out.")
    if DebugOption.TPU_METRICS_DEBUG in args.debug:
        raise ValueError("debug=tpu_metrics_debug was given, but this kit has no TPU code. Leave it out.")
    if "num_steps" in (args.accelerator_config.gradient_accumulation_kwargs or {}):
        raise ValueError(
            "accelerator_config has num_steps, which would not be recorded. Pass --gradient_accumulation_steps in its place."
        )
    for name, (value, why) in REFUSED_IN_PROCESSES.items():
        if getattr(args.accelerator_config, name) is value and args.world_size > 1:
            raise ValueError(f"accelerator_config has {name}={value}, but of several processes {why}. Leave it out.")

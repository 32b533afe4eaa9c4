"""What to say when a training ends early: what happened, the last checkpoint, and what to type to go on."""

import errno
import re
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError

from modeling_ast.audio import CHECK_SPELLING, AudioError, MissingAudioError
from modeling_ast.system.interruption import signal_of

from ..arguments.groups import ASTTrainingArguments, DataArguments
from ..arguments.model_arguments import WIDTH_FIELDS
from ..results.output_folder import remove_unfinished, run_in
from ..scores.scoring import ClipScoresError, DivergedError
from ..sources.data_errors import own_message
from ..training.divergence import NotANumberError
from ..training.lora import is_adapted
from ..training.memory_errors import is_out_of_memory, reader_killed, reader_terminated
from ..training.run_folder import last_checkpoint
from ..training.trainer import ASTTrainer
from ..training.weight_averaging import AveragingError

FLAGS_NAMED = 3
SMALLEST_LENGTH = 64  # frames; a shorter input is no longer the same task
# What the writers of weights and optimiser states say of a full disk, each in its own words.
_DISK_WORDS = (
    "No space left on device", "os error 28", "Disk quota exceeded", "PytorchStreamWriter failed", "unexpected pos",
    "iostream error",
)  # fmt: skip
# What gloo and NCCL say when a process waits for one that is gone.
_GONE_WORDS = (
    "Connection closed by peer", "Connection reset by peer", "Broken pipe", "ncclRemoteError", "remote process exited"
)  # fmt: skip


class TrainingStoppedError(RuntimeError):
    """The training ended early; the message says why, what is left of it, and what to type.

    Args:
        message (`str`): in words.
        exit_code (`int`, defaults to 1): of the program.
        in_all_processes (`bool`, defaults to `False`): whether each process of the training ends with this message.
    """

    def __init__(self, message: str, exit_code: int = 1, in_all_processes: bool = False):
        super().__init__(message)
        self.exit_code = exit_code
        self.in_all_processes = in_all_processes


@contextmanager
def failures_in_words(trainer: ASTTrainer, data_args: DataArguments, recipe: dict | None = None) -> Iterator[None]:
    """Turn what may end a training or its publishing early into a [`TrainingStoppedError`], and tidy up.

    What was being written is removed, so that it takes no room on a full disk; checkpoints stay as they are.

    Args:
        trainer ([`ASTTrainer`]): whose training it is.
        data_args ([`DataArguments`]): for what is said about memory and about folds.
        recipe (`dict`, *optional*): what the run was asked for, to say which of it does not go with a checkpoint.

    Raises:
        TrainingStoppedError: for a file that is gone or cannot be decoded, a training that diverged, memory or a disk that
            is full, kept epochs that are not there, and an interruption. Other errors pass.
    """
    try:
        yield
    except DivergedError as error:
        stopped = TrainingStoppedError(
            diverged_message(error, trainer, data_args, recipe or {}), in_all_processes=True
        )
        cause = error
    except AveragingError as error:
        stopped, cause = TrainingStoppedError(str(error)), error
    except AudioError as error:
        words = own_message(error)
        if isinstance(error, MissingAudioError):
            words = f"{words.removesuffix(CHECK_SPELLING)}It was there before the training: put it back."
        words = f"{words} {way_on(trainer.args, data_args)}"
        # All processes have the scores of all clips, but each reads its own.
        stopped, cause = TrainingStoppedError(words, in_all_processes=isinstance(error, ClipScoresError)), error
    except (KeyboardInterrupt, RuntimeError, MemoryError, OSError, SafetensorError) as error:
        number = signal_of(error)
        words = _interruption_in_words(number, trainer, data_args) or _cause_in_words(error, trainer, data_args)
        if words is None:
            raise
        # 128 + number is what shells and schedulers take for the end by a signal.
        stopped = TrainingStoppedError(words, 128 + number, True) if number else TrainingStoppedError(words)
        cause = error
    else:
        return
    finally:  # also where the error is not known
        if trainer.is_world_process_zero():
            remove_unfinished(Path(trainer.args.output_dir))
    trainer.epoch_lines.close()
    try:
        raise stopped from cause
    finally:  # a frame that keeps its error would leave what both hold, as a loader's iterator, to the garbage collector
        del stopped, cause


def way_on(args: ASTTrainingArguments, data_args: DataArguments) -> str:
    """How to go on from the last checkpoint, or that there is none.

    Args:
        args ([`ASTTrainingArguments`]): of the training.
        data_args ([`DataArguments`]): where the clips are and how they are heard.

    Returns:
        `str`: sentences.
    """
    if last_checkpoint(args.output_dir) is None and not data_args.fold_column_name:
        return f"No checkpoint had been saved; type the same command again{_overwriting(args)} to start anew."
    without = " in place of --overwrite_output_dir" if args.overwrite_output_dir else ""
    kept = _what_is_kept(args, data_args)
    return f"{kept} Type the same command with --resume_from_checkpoint true{without} to go on."


def _overwriting(args: ASTTrainingArguments) -> str:
    """What the same command needs besides: kept epochs alone are a run too, and no run is replaced unasked."""
    if args.overwrite_output_dir or not run_in(Path(args.output_dir)):
        return ""
    return " with --overwrite_output_dir" + (
        " in place of --resume_from_checkpoint" if args.resume_from_checkpoint else ""
    )


def _what_is_kept(args: ASTTrainingArguments, data_args: DataArguments) -> str:
    checkpoint = last_checkpoint(args.output_dir)
    if checkpoint is not None:
        return f"The last checkpoint is {checkpoint}."
    return "This fold has no checkpoint yet." if data_args.fold_column_name else "No checkpoint had been saved."


def diverged_message(error: DivergedError, trainer: ASTTrainer, data_args: DataArguments, recipe: dict) -> str:
    """What to type after a training that diverged: what was done before is no use where its weights are at fault.

    Args:
        error ([`DivergedError`]): what happened.
        trainer ([`ASTTrainer`]): whose training it is.
        data_args ([`DataArguments`]): whether it is one of several folds.
        recipe (`dict`): what the run was asked for.

    Returns:
        `str`: sentences.
    """
    args = trainer.args
    if not isinstance(error, NotANumberError):  # of a training that came to its end
        return f"{error} {_what_is_kept(args, data_args)} Start anew with --overwrite_output_dir."
    watch = trainer.divergence_watch
    last, good = last_checkpoint(args.output_dir), watch.good_checkpoint()
    why = watch.fault_of(last) if last is not None else None
    words = [str(error)]
    if last is None:
        words.append("No checkpoint had been saved, and nothing was saved after it.")
    elif good is None:
        words.append(f"Nothing was saved after it, and no checkpoint is good: {why}.")
    else:
        earlier = "" if good == last else f" ({why})"
        words.append(f"Nothing was saved after it; the last good checkpoint is {good}{earlier}.")
    ways = [f"a lower --learning_rate (it is {args.learning_rate:g})"]
    if args.max_grad_norm != 1:
        ways.append(f"--max_grad_norm 1 (it is {args.max_grad_norm:g})")
    if args.fp16:
        ways.append("--bf16 true in place of --fp16")
    starts = ["anew with --overwrite_output_dir"]
    # An adapter alone is no model to start from, and the weights of one fold have heard the clips that others score.
    if good is not None and not is_adapted(trainer.model) and not data_args.fold_column_name:
        sizes = [name for name in WIDTH_FIELDS if name in recipe]
        without = f", without {', '.join(sizes)}" if sizes else ""
        starts.append(f"from the good weights with --model_name_or_path {good} and another --output_dir{without}")
    first = "Repair or remove what is named here; if it is sound, train" if error.by_files else "Train"
    words.append(f"{first} with {' or '.join(ways)}: {', or '.join(starts)}.")
    return " ".join(words)


def _interruption_in_words(number: signal.Signals | None, trainer: ASTTrainer, data_args: DataArguments) -> str | None:
    if number is None:
        return None
    words = f"It was interrupted ({number.name}) at step {trainer.state.global_step}."
    return f"{words} {way_on(trainer.args, data_args)}"


def _cause_in_words(error: Exception, trainer: ASTTrainer, data_args: DataArguments) -> str | None:
    """The whole message for an error, `None` for one that is not known."""
    args = trainer.args
    text = str(error)
    if is_out_of_memory(error):
        return out_of_memory_message(
            args, data_args, trainer.feature_extractor.max_length, trainer.model.training, halving_is_exact(trainer)
        )
    if args.world_size > 1 and isinstance(error, RuntimeError) and any(words in text for words in _GONE_WORDS):
        return "Another process of this training ended first; its message says why."
    if reader_terminated(error):
        return f"A worker that reads clips was terminated from outside. {way_on(args, data_args)}"
    if reader_killed(error):
        fewer = args.dataloader_num_workers // 2
        return (
            "A worker that reads clips was killed, most likely because the memory of this machine was full. Pass "
            f"--dataloader_num_workers {fewer} (it is {args.dataloader_num_workers}). {way_on(args, data_args)}"
        )
    if _is_disk_full(error):
        return (
            f"The disk of {args.output_dir} is full: {_free_space(args.output_dir)}. What was being written is "
            f"removed. Make room. {way_on(args, data_args)}"
        )
    if isinstance(error, OSError):
        return f"{_last_line(text)}. {way_on(args, data_args)}"
    return None


def _is_disk_full(error: BaseException | None) -> bool:
    """Whether an error says so, or one in whose handling it came up."""
    if error is None:
        return False
    if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or any(
        words in str(error) for words in _DISK_WORDS
    ):
        return True
    return _is_disk_full(error.__cause__ or error.__context__)


def _free_space(folder: str) -> str:
    return f"{shutil.disk_usage(folder).free / 1e6:.0f} MB were free when it ended"


def _last_line(text: str) -> str:
    """The error itself, of a text that may hold the traceback of a loader's worker."""
    line = text.strip().splitlines()[-1] if text.strip() else "An input or output failed"
    return re.sub(r"^\w+(Error|Exception): ", "", line).rstrip(".")


def out_of_memory_message(
    args: ASTTrainingArguments, data_args: DataArguments, max_length: int, in_training: bool, exact: bool = False
) -> str:
    """What to type where there is not enough memory.

    Args:
        args ([`ASTTrainingArguments`]): of the run; what they have set already is not named.
        data_args ([`DataArguments`]): likewise.
        max_length (`int`): frames of the model's input.
        in_training (`bool`): `False` if it was an evaluation that needed too much.
        exact (`bool`, defaults to `False`): whether two halves of a batch have the result of the whole; see
            [`halving_is_exact`].

    Returns:
        `str`: sentences.
    """
    where = "this machine" if args.device.type == "cpu" else f"the accelerator ({args.device})"
    flags = memory_flags(args, data_args, max_length, in_training, exact)
    what = "training" if in_training else "evaluating"
    help_ = f"What helps, in this order: {'; '.join(flags)}." if flags else "Train a smaller model."
    kept = _what_is_kept(args, data_args)
    if last_checkpoint(args.output_dir) is not None or data_args.fold_column_name:
        kept += (
            " Go on with --resume_from_checkpoint true after a change that keeps the result, or start anew with "
            "--overwrite_output_dir."
        )
    elif _overwriting(args):
        kept += f" Start anew{_overwriting(args)}."
    return f"The memory of {where} is full in {what}. {help_} {kept}"


def halving_is_exact(trainer: ASTTrainer) -> bool:
    """Whether a training takes the same steps with batches of half the size and twice as many in an update.

    The mean over halves of an incomplete batch is another, and dropout is drawn by the batch.

    Args:
        trainer ([`ASTTrainer`]): the trainer of the run.

    Returns:
        `bool`: whether it does.
    """
    args, config = trainer.args, trainer.model.config
    dropout = [config.hidden_dropout_prob, config.attention_probs_dropout_prob]
    dropout += [module.p for module in trainer.model.modules() if isinstance(module, torch.nn.Dropout)]  # of adapters
    left = len(trainer.train_dataset) % (args.train_batch_size * args.world_size)
    return not any(dropout) and (args.dataloader_drop_last or not left)


def memory_flags(
    args: ASTTrainingArguments, data_args: DataArguments, max_length: int, in_training: bool, exact: bool = False
) -> list[str]:
    """The flags that need less memory, those that cost least first; at most three.

    Args:
        args ([`ASTTrainingArguments`]): of the training.
        data_args ([`DataArguments`]): how clips are padded.
        max_length (`int`): frames that the model hears.
        in_training (`bool`): whether memory ran out in a step, and not while clips were scored.
        exact (`bool`, defaults to `False`): whether accumulating smaller batches gives the same result.

    Returns:
        `list[str]`: each with what it costs, in brackets.
    """
    flags = []
    if in_training:
        batch_size = args.per_device_train_batch_size
        if batch_size > 1:
            smaller = next(size for size in range(batch_size // 2, 0, -1) if batch_size % size == 0)
            accumulated = args.gradient_accumulation_steps * (batch_size // smaller)
            result = "the same result" if exact else "nearly the same result"
            flags.append(
                f"--per_device_train_batch_size {smaller} --gradient_accumulation_steps {accumulated} ({result})"
            )
        if not args.activation_checkpointing:
            flags.append("--activation_checkpointing true (the same result, slower)")
    elif args.per_device_eval_batch_size > 1:
        flags.append(f"--per_device_eval_batch_size {args.per_device_eval_batch_size // 2} (the same result)")
    if data_args.padding == "max_length":
        flags.append("--padding longest (if most clips are shorter than the input)")
    if args.device.type != "cpu" and not (args.bf16 or args.fp16):
        flags.append("--bf16 true")
    if max_length // 2 >= SMALLEST_LENGTH:
        flags.append(f"--max_length {max_length // 2} (hears half as much of a clip)")
    return flags[:FLAGS_NAMED]

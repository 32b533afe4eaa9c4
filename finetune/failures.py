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

from modeling_ast.audio import AudioError

from .arguments import ASTTrainingArguments, DataArguments
from .data_errors import own_message
from .divergence import NotANumberError, last_checkpoint
from .interruption import signal_of
from .scoring import DivergedError
from .trainer import UNFINISHED, ASTTrainer
from .weight_averaging import EPOCHS_DIR, AveragingError

FLAGS_NAMED = 3
SMALLEST_LENGTH = 64  # frames; a shorter input is no longer the same task
# What the writers of weights and optimiser states say of a full disk, each in its own words.
_DISK_WORDS = ("No space left on device", "os error 28", "Disk quota exceeded", "PytorchStreamWriter failed")
_MEMORY_WORDS = ("can't allocate memory", "out of memory", "OutOfMemoryError", "std::bad_alloc")
_WORKER_TERMINATED = "is killed by signal: Terminated"
_WORKER_KILLED = re.compile(r"DataLoader worker \(pid\(?s?\)? [\d, ]+\) .*(killed by signal|exited unexpectedly)")


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
def failures_in_words(trainer: ASTTrainer, data_args: DataArguments) -> Iterator[None]:
    """Turn what may end a training or its publishing early into a [`TrainingStoppedError`], and tidy up.

    What was being written is removed, so that it takes no room on a full disk; checkpoints stay as they are.

    Args:
        trainer ([`ASTTrainer`]): whose training it is.
        data_args ([`DataArguments`]): for what is said about memory.

    Raises:
        TrainingStoppedError: for a file that is gone or cannot be decoded, a training that diverged, memory or a disk that
            is full, kept epochs that are not there, and an interruption. Other errors pass.
    """
    try:
        yield
    except NotANumberError as error:
        stopped = TrainingStoppedError(str(error), in_all_processes=True)
        cause = error
    except (AudioError, AveragingError, DivergedError) as error:
        ways = "" if isinstance(error, (AveragingError, DivergedError)) else f" {way_on(trainer.args, data_args)}"
        stopped, cause = TrainingStoppedError(own_message(error) + ways), error
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
    trainer.epoch_lines.close()
    remove_unfinished(trainer)
    raise stopped from cause


def remove_unfinished(trainer: ASTTrainer):
    """Remove what was being written when the training ended."""
    folder = Path(trainer.args.output_dir)
    if trainer.is_world_process_zero():
        for path in (folder / UNFINISHED, folder / EPOCHS_DIR / UNFINISHED):
            shutil.rmtree(path, ignore_errors=True)


def way_on(args: ASTTrainingArguments, data_args: DataArguments) -> str:
    """How to go on from the last checkpoint, or that there is none."""
    checkpoint = last_checkpoint(args.output_dir)
    if checkpoint is None and not data_args.fold_column_name:
        return "No checkpoint had been saved; type the same command again to start anew."
    last = f"The last checkpoint is {checkpoint}." if checkpoint else "This fold has no checkpoint yet."
    without = " in place of --overwrite_output_dir" if args.overwrite_output_dir else ""
    return f"{last} Type the same command with --resume_from_checkpoint true{without} to go on."


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that there is not enough memory, on an accelerator, the host, or in a loader's worker."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _MEMORY_WORDS)


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
        return out_of_memory_message(args, data_args, trainer.feature_extractor.max_length, trainer.model.training)
    if isinstance(error, RuntimeError) and _WORKER_TERMINATED in text:
        return f"A worker that reads clips was terminated from outside. {way_on(args, data_args)}"
    if isinstance(error, RuntimeError) and _WORKER_KILLED.search(text):
        fewer = args.dataloader_num_workers // 2
        return (
            "A worker that reads clips was killed, most likely because the memory of this machine was full. Pass "
            f"--dataloader_num_workers {fewer} (it is {args.dataloader_num_workers}). {way_on(args, data_args)}"
        )
    if any(words in text for words in _DISK_WORDS) or getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
        return (
            f"The disk of {args.output_dir} is full: {_free_space(args.output_dir)}. What was being written is "
            f"removed. Make room. {way_on(args, data_args)}"
        )
    if isinstance(error, OSError):
        return f"{_last_line(text)}. {way_on(args, data_args)}"
    return None


def _free_space(folder: str) -> str:
    return f"{shutil.disk_usage(folder).free / 1e6:.0f} MB were free when it ended"


def _last_line(text: str) -> str:
    """The error itself, of a text that may hold the traceback of a loader's worker."""
    line = text.strip().splitlines()[-1] if text.strip() else "An input or output failed"
    return re.sub(r"^\w+(Error|Exception): ", "", line).rstrip(".")


def out_of_memory_message(
    args: ASTTrainingArguments, data_args: DataArguments, max_length: int, in_training: bool
) -> str:
    """What to type where there is not enough memory.

    Args:
        args ([`ASTTrainingArguments`]): of the run; what they have set already is not named.
        data_args ([`DataArguments`]): likewise.
        max_length (`int`): frames of the model's input.
        in_training (`bool`): `False` if it was an evaluation that needed too much.
    """
    where = "this machine" if args.device.type == "cpu" else f"the accelerator ({args.device})"
    flags = memory_flags(args, data_args, max_length, in_training)
    what = "training" if in_training else "evaluating"
    help_ = f"What helps, in this order: {'; '.join(flags)}." if flags else "Train a smaller model."
    checkpoint = last_checkpoint(args.output_dir)
    if checkpoint is None:
        kept = "No checkpoint had been saved."
    else:
        kept = (
            f"The last checkpoint is {checkpoint}: go on from it with --resume_from_checkpoint true after a change that keeps "
            "the result, or start anew with --overwrite_output_dir."
        )
    return f"The memory of {where} is full in {what}. {help_} {kept}"


def memory_flags(
    args: ASTTrainingArguments, data_args: DataArguments, max_length: int, in_training: bool
) -> list[str]:
    """The flags that need less memory, those that cost least first; at most three.

    Args: see [`out_of_memory_message`].
    """
    flags = []
    if in_training:
        batch_size = args.per_device_train_batch_size
        if batch_size > 1:
            smaller = next(size for size in range(batch_size // 2, 0, -1) if batch_size % size == 0)
            accumulated = args.gradient_accumulation_steps * (batch_size // smaller)
            flags.append(
                f"--per_device_train_batch_size {smaller} --gradient_accumulation_steps {accumulated} (the same result)"
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

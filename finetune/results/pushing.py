"""Publishing at the end of a training: whether it will be possible is found out before, and a finished run is not lost.

What is pushed, and how, is `model_card.push_to_hub`'s, as for `ast-push`. Plain `Trainer` would push unfinished weights at
each save, with its own draft of a card and a pickle of all arguments.
"""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from transformers import TrainingArguments
from transformers.trainer_utils import HubStrategy

from model_card.push_to_hub import PushError, Repository, check_access, check_names, with_owner
from model_card.render import write_model_card
from model_card.run_summary import features_section, origin_section, write_run_summary
from modeling_ast.system.interruption import signal_of

from . import summary_sections

if TYPE_CHECKING:  # which imports this
    from ..training.trainer import ASTTrainer

NOT_PUSHED = 3  # exit code of a training whose result is whole but not on the Hub
# What flags of `ast-push` are called in a training.
FLAGS = {
    "--repo_id": "--hub_model_id",
    "--revision": "--hub_revision",
    "--private": "--hub_private_repo",
    "private=False": "--hub_private_repo false",
}


class NotPushedError(Exception):
    """The run is whole in its folder, but not on the Hub; the message says why, and what to type.

    Args:
        message (`str`): in words.
        exit_code (`int`, defaults to `NOT_PUSHED`): of the program.
    """

    def __init__(self, message: str, exit_code: int = NOT_PUSHED):
        super().__init__(message)
        self.exit_code = exit_code


def check_push(args: TrainingArguments, token: str | None = None, private: bool | None = None) -> str:
    """Find out whether a run can be pushed when it is finished. Nothing is made on the Hub yet.

    Called by all processes: the main one asks the Hub, and all go on or end alike.

    Args:
        args (`TrainingArguments`): its fields `hub_...`; the repository is called as the output folder if none is named.
        token (`str`, *optional*): in place of `hub_token`.
        private (`bool`, *optional*): in place of `hub_private_repo`.

    Returns:
        `str`: `user/name` of the repository that it goes to.

    Raises:
        PushError: if unfinished weights are to be pushed, or for what [`check_names`] and [`check_access`] refuse.
    """
    outcome = [None]
    if PartialState().is_main_process:
        try:
            outcome = [_repository_to_push_to(args, token, private)]
        except PushError as error:
            outcome = [error]
    (outcome,) = broadcast_object_list(outcome)
    if isinstance(outcome, PushError):
        raise outcome
    return outcome


def _repository_to_push_to(args: TrainingArguments, token: str | None, private: bool | None) -> str:
    if args.hub_strategy != HubStrategy.END or args.hub_always_push:
        raise PushError(
            f"hub_strategy={args.hub_strategy.value!r}, hub_always_push={args.hub_always_push} push weights while they are "
            "trained, without scores and card. Pass --hub_strategy end without --hub_always_push: the finished run is pushed."
        )
    token = token or args.hub_token
    try:
        repo_id = with_owner(args.hub_model_id or Path(args.output_dir).resolve().name, token)
        check_names(repo_id, args.hub_revision)
        private = args.hub_private_repo if private is None else private
        check_access(Repository(repo_id, private=private, token=token))
    except PushError as error:
        words = str(error)
        for flag, in_training in FLAGS.items():
            words = words.replace(flag, in_training)
        raise PushError(f"{words} Without --push_to_hub nothing is pushed.") from error
    return repo_id


def push_finished_run(trainer: "ASTTrainer"):
    """Push the run that lies in the output folder, and say where it is.

    Args:
        trainer ([`ASTTrainer`]): whose run was published in its folder.

    Raises:
        NotPushedError: if that failed or was interrupted.
    """
    try:
        commit = trainer.push_to_hub()
    except (OSError, ValueError, KeyboardInterrupt) as error:
        number = signal_of(error)
        said = str(error) if number is None else f"The push was interrupted ({number.name})."
        words = f"{said} The run is whole in {trainer.args.output_dir}; to push it, type {push_command(trainer)}"
        raise NotPushedError(words, NOT_PUSHED if number is None else 128 + number) from error
    if commit is not None:  # in the main process
        print(f"published: {commit.commit_url}", flush=True)


def push_command(trainer: "ASTTrainer") -> str:
    """The `ast-push` that does what the end of a training would have done."""
    args = trainer.args
    words = ["ast-push", args.output_dir, "--repo_id", trainer.hub_model_id]
    words += ["--private"] if args.hub_private_repo else []
    words += ["--revision", args.hub_revision] if args.hub_revision else []
    return shlex.join(words)


def write_trainer_card(trainer: "ASTTrainer"):
    """Write run summary and card of a trainer that was built by hand, with what it knows: nothing of data and scores.

    Args:
        trainer ([`ASTTrainer`]): whose model lies in its output folder.
    """
    config = trainer.model.config
    start = config.name_or_path
    summary = {
        **origin_section([], summary_sections.shown_checkpoint(start) if start else None),
        "command": None,
        **summary_sections.license_section(None, start),
        "labels": [config.id2label[index] for index in range(config.num_labels)],
        "problem_type": config.problem_type,
        "features": features_section(trainer.feature_extractor, None),
        "model": summary_sections.model_section(trainer.model),
        "history": summary_sections.history_section(trainer.state.log_history),
        "environment": summary_sections.environment_section(trainer.args),
    }
    write_run_summary(trainer.args.output_dir, summary)
    write_model_card(trainer.args.output_dir)

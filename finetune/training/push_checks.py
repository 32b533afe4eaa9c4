"""Whether a run can be pushed to the Hub when it is finished; found out before it is trained.

What is pushed, and how, is `model_card.push_to_hub`'s, as for `ast-push`. Plain `Trainer` would push unfinished weights at
each save, with its own draft of a card and a pickle of all arguments.
"""

from pathlib import Path

from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from transformers import TrainingArguments
from transformers.trainer_utils import HubStrategy

from model_card.push_to_hub import PushError, Repository, check_access, check_names, with_owner

# What flags of `ast-push` are called in a training.
FLAGS = {
    "--repo_id": "--hub_model_id",
    "--revision": "--hub_revision",
    "--private": "--hub_private_repo",
    "private=False": "--hub_private_repo false",
}


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

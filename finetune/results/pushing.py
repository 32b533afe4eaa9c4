"""Pushing at the end of a training: a finished run is not lost, whatever becomes of the push.

Whether it will be possible is found out before the training; see [`check_push`](finetune.training.push_checks.check_push).
"""

import shlex

from modeling_ast.system.interruption import signal_of

from ..training.trainer import ASTTrainer

NOT_PUSHED = 3  # exit code of a training whose result is whole but not on the Hub


class NotPushedError(Exception):
    """The run is whole in its folder, but not on the Hub; the message says why, and what to type.

    Args:
        message (`str`): in words.
        exit_code (`int`, defaults to `NOT_PUSHED`): of the program.
    """

    def __init__(self, message: str, exit_code: int = NOT_PUSHED):
        super().__init__(message)
        self.exit_code = exit_code


def push_finished_run(trainer: ASTTrainer):
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


def push_command(trainer: ASTTrainer) -> str:
    """The `ast-push` that does what the end of a training would have done.

    Args:
        trainer ([`ASTTrainer`]): of the finished run.

    Returns:
        `str`: a line for a shell.
    """
    args = trainer.args
    words = ["ast-push", args.output_dir, "--repo_id", trainer.hub_model_id]
    words += ["--private"] if args.hub_private_repo else []
    words += ["--revision", args.hub_revision] if args.hub_revision else []
    return shlex.join(words)

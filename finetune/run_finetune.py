"""`ast-finetune`: audio files in, a publishable AST checkpoint out."""

import sys

from modeling_ast.system.terminal import command_imports, shell_command

with command_imports("ast-finetune"):
    from .arguments.groups import FINE_TUNING, RunArguments
    from .dry_runs.dry_run import dry_run
    from .failures.held_folder import held_output_dir
    from .runs.cross_validation import cross_validate
    from .runs.training_command import run_training_command
    from .runs.training_run import prepare_run, train_run


@shell_command("ast-finetune", "It was before a training began: type the same command again.")
def main(argv: list[str] | None = None) -> int:
    """Run from the command line; see `ast-finetune --help`.

    Args:
        argv (`list[str]`, *optional*): arguments after the program's name, by default those of the process.

    Returns:
        `int`: see [`run_training_command`].
    """
    return run_training_command(FINE_TUNING, argv, _run)


def _run(argv: list[str], arguments: RunArguments):
    if arguments.training.dry_run:
        dry_run(argv, arguments)
        return
    with held_output_dir(arguments.training.output_dir):
        if arguments.data.fold_column_name:
            cross_validate(argv, arguments)
        else:
            train_run(prepare_run(argv, arguments))


if __name__ == "__main__":
    sys.exit(main())

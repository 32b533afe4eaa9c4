"""`ast-pretrain`: audio files without labels in, an AST to fine-tune out; self-supervised, by masked patches (SSAST)."""

import sys

from modeling_ast.system.terminal import command_imports, shell_command

with command_imports("ast-pretrain"):
    from .arguments.groups import PRETRAINING, RunArguments
    from .failures.held_folder import held_output_dir
    from .runs.training_command import run_training_command
    from .runs.training_run import prepare_run, train_run


@shell_command("ast-pretrain", "It was before a training began: type the same command again.")
def main(argv: list[str] | None = None) -> int:
    """Run from the command line; see `ast-pretrain --help`.

    Args:
        argv (`list[str]`, *optional*): arguments after the program's name, by default those of the process.

    Returns:
        `int`: see [`run_training_command`].
    """
    return run_training_command(PRETRAINING, argv, _run)


def _run(argv: list[str], arguments: RunArguments):
    with held_output_dir(arguments.training.output_dir, PRETRAINING.name):
        train_run(prepare_run(argv, arguments))


if __name__ == "__main__":
    sys.exit(main())

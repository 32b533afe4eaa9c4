"""`ast-finetune`: audio files in, a publishable AST checkpoint out."""

import sys

from modeling_ast.system.terminal import command_imports, ended_by, shell_command

with command_imports("ast-finetune"):
    import datasets
    from accelerate import PartialState
    from transformers.utils import logging

    from .arguments.command_line import parse_arguments
    from .dry_runs.dry_run import dry_run
    from .failures.held_folder import held_output_dir
    from .failures.input_errors import InputError, input_errors_in_words
    from .failures.stopped_trainings import TrainingStoppedError
    from .results.pushing import NotPushedError
    from .runs.cross_validation import cross_validate
    from .runs.training_run import prepare_run, train_run
    from .training.checkpoint_files import ResumeError


@shell_command("ast-finetune", "It was before a training began: type the same command again.")
def main(argv: list[str] | None = None) -> int:
    """Run from the command line; see `ast-finetune --help`.

    Args:
        argv (`list[str]`, *optional*): arguments after the program's name, by default those of the process.

    Returns:
        `int`: 0; 2 for wrong input; 1 if a training, or what comes before it, failed; 3 if a run is whole but was not pushed;
        128 + the signal's number if interrupted.
    """
    argv = sys.argv[1:] if argv is None else argv
    logging.set_verbosity_error()
    logging.disable_progress_bar()  # of loading and saving; training has its own
    datasets.disable_progress_bars()
    try:
        _run(argv)
    except (InputError, ResumeError) as error:
        return ended_by("ast-finetune", error)
    except TrainingStoppedError as error:
        if not error.in_all_processes or PartialState().is_main_process:
            print(f"ast-finetune: training stopped. {error}", file=sys.stderr)
        return error.exit_code
    except NotPushedError as error:
        print(f"ast-finetune: the run was not pushed. {error}", file=sys.stderr)
        return error.exit_code
    return 0


def _run(argv: list[str]):
    with input_errors_in_words():
        arguments = parse_arguments(argv)
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

"""`ast-model-card CHECKPOINT_DIR`: write the model card of a checkpoint folder as its `README.md`.

Rendered from the folder and its `run_summary.json` alone, so it can be done again at any time, without a network.
"""

import argparse
import sys

from modeling_ast.system.flags import FlagParser
from modeling_ast.system.names_as_text import in_one_line
from modeling_ast.system.terminal import ended_by, shell_command


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line.

    Args:
        argv (`list[str]`, *optional*): arguments after the program's name, by default those of the process.

    Returns:
        `argparse.Namespace` with `checkpoint_dir` (`str`) and `print` (`bool`).
    """
    parser = FlagParser(
        prog="ast-model-card",
        description="Write the model card of a checkpoint folder as its README.md, from the files in the folder alone.",
        epilog="Example: ast-model-card runs/drums",
    )
    parser.add_argument("checkpoint_dir", metavar="CHECKPOINT_DIR", help="a folder that ast-finetune wrote")
    parser.add_argument("--print", action="store_true", help="print the card and leave the folder as it is")
    return parser.parse_args(argv)


@shell_command("ast-model-card")
def main(argv: list[str] | None = None) -> int:
    """Run the command.

    Args:
        argv (`list[str]`, *optional*): arguments after the program's name, by default those of the process.

    Returns:
        `int`: 0; 2 for wrong input and 1 if the card could not be written, both of which are answered on the error stream.
    """
    arguments = parse_arguments(argv)
    from .render import keep_own_card, render_model_card, write_model_card

    try:
        if arguments.print:
            print(render_model_card(arguments.checkpoint_dir), end="")
        else:
            kept = keep_own_card(arguments.checkpoint_dir)
            print(f"Model card: {write_model_card(arguments.checkpoint_dir)}")
            if kept is not None:
                print(
                    f"The card that was there is not what the run summary gives, and is kept as {in_one_line(str(kept))}"
                )
    except (OSError, ValueError) as error:
        return ended_by("ast-model-card", error)
    return 0


if __name__ == "__main__":
    sys.exit(main())

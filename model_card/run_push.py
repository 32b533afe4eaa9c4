"""`ast-push CHECKPOINT_DIR --repo_id user/name`: publish a checkpoint folder on the Hugging Face Hub, after checking it."""

import argparse
import sys

from modeling_ast.system.flags import FlagParser
from modeling_ast.system.run_lock import refuse_locked
from modeling_ast.system.terminal import ended_by, shell_command

GRADIO, STATIC = SPACES = ("gradio", "static")  # kinds of Spaces, by the Hub's names
WAY_ON = (
    "Type the same command again to go on: what has arrived is not sent again, and on the Hub is the whole commit or nothing "
    "of it."
)


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line.

    Args:
        argv (`list[str]`, *optional*): arguments after the program's name, by default those of the process.

    Returns:
        `argparse.Namespace` with `checkpoint_dir` and `repo_id` (`str`), `private` (`True` or `None`), `revision`, `space`,
        `runtime_package` and `commit_message` (`str` or `None`), `dry_run` and `hide_names` (`bool`).
    """
    parser = FlagParser(
        prog="ast-push",
        description="Publish a checkpoint folder on the Hugging Face Hub: weights, settings, card and figures in one "
        "commit. The token is that of `hf auth login`, or HF_TOKEN.",
        epilog="Example: ast-push runs/drums --repo_id user/drums --dry_run",
    )
    parser.add_argument("checkpoint_dir", metavar="CHECKPOINT_DIR", help="folder of a finished training or conversion")
    parser.add_argument("--repo_id", required=True, metavar="user/name", help="repository; made if it is not there")
    # None leaves it to the Hub, where an organisation may have private repositories by default.
    parser.add_argument("--private", action="store_true", default=None, help="make a new repository a private one")
    parser.add_argument("--revision", metavar="BRANCH", help="branch to push to, main if not given; made if needed")
    parser.add_argument("--dry_run", action="store_true", help="only check and list; works without network and token")
    parser.add_argument(
        "--space",
        nargs="?",
        const=GRADIO,
        choices=SPACES,
        help="also publish a page as a Space of the same id: the demo page, or with static one without a server, which "
        "computes in the visitor's browser",
    )
    parser.add_argument(
        "--runtime_package",
        metavar="PATH",
        help="folder or .tgz of ONNX Runtime's npm package for --space static (default: npm fetches it)",
    )
    parser.add_argument(
        "--hide_names", action="store_true", help="publish no names of your files and folders; --dry_run lists them"
    )
    parser.add_argument("--commit_message", metavar="TEXT", help="title of the commit")
    arguments = parser.parse_args(argv)
    if arguments.runtime_package is not None and arguments.space != STATIC:
        parser.error("--runtime_package is about a static page. Add --space static, or leave it out.")
    return arguments


@shell_command("ast-push", WAY_ON)
def main(argv: list[str] | None = None) -> int:
    """Run the command.

    Args:
        argv (`list[str]`, *optional*): arguments after the program's name, by default those of the process.

    Returns:
        `int`: 0; 2 if what was asked for cannot be published and 1 if that failed, both of which are answered on the error
        stream; 128 + the signal's number if interrupted.
    """
    arguments = parse_arguments(argv)
    from .push_to_hub import push_to_hub

    try:
        # By a training that has not published its result there yet.
        refuse_locked(arguments.checkpoint_dir, inside=True)
        push_to_hub(**vars(arguments))
    except (OSError, ValueError) as error:
        return ended_by("ast-push", error, str(error))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The parser of commands whose flags argparse reads: an unknown flag is refused with the one that may be meant."""

import argparse
import difflib
from collections.abc import Sequence
from typing import NoReturn

UNKNOWN = "unrecognized arguments: "  # how argparse begins its message


class FlagParser(argparse.ArgumentParser):
    """`argparse.ArgumentParser` that names the nearest of its flags where one is not known."""

    def error(self, message: str) -> NoReturn:
        """End the program with 2, as [`argparse.ArgumentParser.error`] does.

        Args:
            message (`str`): what is wrong.
        """
        if message.startswith(UNKNOWN):
            message += "".join(f". {hint}" for hint in nearest_flags(message.removeprefix(UNKNOWN).split(), self))
        super().error(message)


def positive_int(text: str) -> int:
    """Read a whole number of a command line.

    Args:
        text (`str`): as it was typed.

    Returns:
        `int`, from 1 on.

    Raises:
        argparse.ArgumentTypeError: if it is none.
    """
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 on")
    return int(text)


def nearest_flags(words: Sequence[str], parser: argparse.ArgumentParser) -> list[str]:
    """Tell which flags may be meant by words that a parser does not know.

    Args:
        words (sequence of `str`): of a command line; those that are no flags, such as values, are passed over.
        parser (`argparse.ArgumentParser`): whose flags are known.

    Returns:
        `list[str]`: a question for each flag that is near to one of the parser's.
    """
    known = {_letters(flag): flag for action in parser._actions for flag in action.option_strings}
    flags = [word.partition("=")[0] for word in words if word.startswith("-")]
    nearest = {flag: difflib.get_close_matches(_letters(flag), known, n=1) for flag in flags}
    return [f"Did you mean {known[name]} for {flag}?" for flag, names in nearest.items() for name in names]


def _letters(flag: str) -> str:
    """A flag without what is easily forgotten in it: --topk is near to --top_k."""
    return flag.lstrip("-").replace("-", "").replace("_", "").lower()

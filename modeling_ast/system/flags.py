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
            message += "".join(f". {hint}" for hint in self._hints(message.removeprefix(UNKNOWN).split()))
        super().error(message)

    def _hints(self, words: Sequence[str]) -> list[str]:
        known = {_letters(flag): flag for action in self._actions for flag in action.option_strings}
        flags = [word.partition("=")[0] for word in words if word.startswith("-")]
        nearest = {flag: difflib.get_close_matches(_letters(flag), known, n=1) for flag in flags}
        return [f"Did you mean {known[name]} for {flag}?" for flag, names in nearest.items() for name in names]


def _letters(flag: str) -> str:
    """A flag without what is easily forgotten in it: --topk is near to --top_k."""
    return flag.lstrip("-").replace("-", "").replace("_", "").lower()

"""Flags about how audio files are heard, which several commands have; importing nothing but the standard library."""

import argparse

CHANNELS_HELP = (
    "which channel of files with several is heard: mean (of all), left, right, or a number counted from 1 (default: the "
    "checkpoint's own choice, which is mean if it names none)"
)
STRICT_HELP = "refuse files of which less is heard than they hold or once held: cut off, damaged, joined, or with channels that cancel"


EACH_HELP = "; each: every channel by itself, with results of its own"


def add_channels_flag(parser: argparse.ArgumentParser, or_each: bool = False) -> None:
    """Add `--channels`, which is `None` if it is not given.

    Args:
        parser (`argparse.ArgumentParser`): of a command.
        or_each (`bool`, defaults to `False`): whether the command can hear each channel by itself.
    """
    kind = _channels_or_each if or_each else _channels
    parser.add_argument("--channels", type=kind, metavar="C", help=CHANNELS_HELP + EACH_HELP * or_each)


def add_strict_flag(parser: argparse.ArgumentParser) -> None:
    """Add `--strict_audio`.

    Args:
        parser (`argparse.ArgumentParser`): of a command.
    """
    parser.add_argument("--strict_audio", action="store_true", help=STRICT_HELP)


def _channels_or_each(text: str) -> str | int:
    return text if text == "each" else _channels(text)


def _channels(text: str) -> str | int:
    from .audio import parse_channels

    try:
        return parse_channels(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None

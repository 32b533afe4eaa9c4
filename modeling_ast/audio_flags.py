"""Flags about how audio files are heard, which several commands have; importing nothing but the standard library."""

import argparse

CHANNELS_HELP = (
    "which channel of files with several is heard: mean (of all), left, right, or a number counted from 1 (default: the "
    "checkpoint's own choice, which is mean if it names none)"
)
STRICT_HELP = "refuse files of which less is heard than they hold or once held: cut off, damaged, joined, or with channels that cancel"


def add_channels_flag(parser: argparse.ArgumentParser) -> None:
    """Add `--channels`, which is `None` if it is not given.

    Args:
        parser (`argparse.ArgumentParser`): of a command.
    """
    parser.add_argument("--channels", type=_channels, metavar="C", help=CHANNELS_HELP)


def add_strict_flag(parser: argparse.ArgumentParser) -> None:
    """Add `--strict_audio`.

    Args:
        parser (`argparse.ArgumentParser`): of a command.
    """
    parser.add_argument("--strict_audio", action="store_true", help=STRICT_HELP)


def _channels(text: str) -> str | int:
    from .audio import parse_channels

    try:
        return parse_channels(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None

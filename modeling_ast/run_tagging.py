"""Command line of [`modeling_ast.tagging`]: `ast-tag AUDIO_OR_FOLDER ... --model_name_or_path DIR`.

Results go to standard output or a file, errors to standard error. Label tracks follow Audacity's text import (start, end
and label, tab-separated, in seconds), selection tables the column names of Raven.
"""

import argparse
import csv
import dataclasses
import io
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from .atomic_files import open_atomically
from .audio_flags import add_channels_flag, add_strict_flag

FORMATS = ("text", "jsonl", "csv", "audacity", "raven")
# Formats with one file for each audio file.
LABEL_FILE_SUFFIXES = {"audacity": ".txt", "raven": ".Table.1.selections.txt"}

RAVEN_COLUMNS = (
    "Selection",
    "View",
    "Channel",
    "Begin Time (s)",
    "End Time (s)",
    "Low Freq (Hz)",
    "High Freq (Hz)",
    "Label",
    "Score",
)

EPILOG = """\
Files longer than the model's input are scored window by window and the scores averaged; --timeline says when each label
was heard. What of a file was not heard is said on standard error, and under "notes" in jsonl. audacity and raven imply --timeline and hold one audio file each: for several, --output is a folder. The exit
code is 1 if a file could not be tagged; the others are tagged all the same."""


def main(argv: list[str] | None = None) -> int:
    """Tag the files named on the command line.

    Returns:
        0, or 1 if a file could not be tagged; wrong arguments end the program with 2.
    """
    parser = make_parser()
    args = parse_arguments(parser, argv)

    from tqdm import tqdm

    from .audio import HEARD_LESS, AudioError, find_audio_files
    from .tagging import AudioTagger, TaggingError

    failed = []
    try:
        files = find_audio_files(args.audio)
        destinations = plan_output(args.output, args.format, files)
        refused = HEARD_LESS if args.strict_audio else frozenset()
        tagger = AudioTagger.from_pretrained(args.model_name_or_path, args.device, args.channels, refused)
        results = tagger.tag_files(files, args.top_k, args.batch_size, args.timeline, args.hop, args.threshold)
        # Results that are printed show the progress themselves; disable=None shows a bar only on a terminal.
        progress = tqdm(results, total=len(files), unit="file", disable=None if args.output else True)
        tagged = leave_out_failed(progress, failed)
        layout = (args.format, args.timeline, tagger.sampling_rate)
        if destinations is not None:
            for result in tagged:
                write_lines(format_results([result], *layout), destinations[result.file])
        elif args.output is not None:
            write_lines(format_results(tagged, *layout), args.output)
        else:
            for line in format_results(tagged, *layout):
                print(line)
    except (AudioError, TaggingError, OutputError) as error:
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
    args.timeline = args.timeline or args.format in LABEL_FILE_SUFFIXES
    for option in ("hop", "threshold"):
        if getattr(args, option) is not None and not args.timeline:
            parser.error(f"--{option} is about segments. Add --timeline, or leave it out.")
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
    suffix = LABEL_FILE_SUFFIXES.get(output_format)
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


def format_results(results: Iterable, output_format: str, timeline: bool, sampling_rate: int) -> Iterator[str]:
    """Turn results into the lines of a format.

    Args:
        results (iterable of [`FileTags`]): tagged files.
        output_format (`str`): one of `FORMATS`.
        timeline (`bool`): whether the results have segments.
        sampling_rate (`int`): of the model's input in Hz; half of it is the highest frequency of a selection.

    Yields:
        Lines without line end.
    """
    if output_format == "csv":
        yield "file,start,end,label,score" if timeline else "file,label,score"
    elif output_format == "raven":
        yield "\t".join(RAVEN_COLUMNS)
    for result in results:
        if output_format == "raven":
            yield from raven_lines(result, sampling_rate / 2)
        else:
            yield from LINES[output_format](result)


def text_lines(result) -> Iterator[str]:
    """A file's name, then a line for each label or segment."""
    yield result.file
    if result.segments is None:
        for tag in result.labels:
            yield f"  {tag.score:7.4f}  {tag.label}"
    else:
        for segment in result.segments:
            yield f"  {segment.start:9.2f} - {segment.end:9.2f} s  {segment.score:7.4f}  {segment.label}"


def jsonl_lines(result) -> Iterator[str]:
    """One JSON object."""
    row = {"file": result.file, "labels": [dataclasses.asdict(tag) for tag in result.labels]}
    if result.segments is not None:
        keys = ("start", "end", "label", "score")
        row["segments"] = [{key: getattr(segment, key) for key in keys} for segment in result.segments]
    if result.notes:
        row["notes"] = [dataclasses.asdict(note) for note in result.notes]
    yield json.dumps(row)


def csv_lines(result) -> Iterator[str]:
    """A row for each label, or for each segment."""
    if result.segments is None:
        rows = [(tag.label, f"{tag.score:.6f}") for tag in result.labels]
    else:
        rows = [
            (f"{segment.start:.3f}", f"{segment.end:.3f}", segment.label, f"{segment.score:.6f}")
            for segment in result.segments
        ]
    for row in rows:
        line = io.StringIO()
        csv.writer(line, lineterminator="").writerow((result.file, *row))
        yield line.getvalue()


def audacity_lines(result) -> Iterator[str]:
    """A line of Audacity's label track for each segment."""
    for segment in result.segments:
        yield f"{segment.start:.6f}\t{segment.end:.6f}\t{segment.label}"


def raven_lines(result, highest_frequency: float) -> Iterator[str]:
    """A row of Raven's selection table for each segment, over all frequencies up to `highest_frequency` in Hz."""
    for number, segment in enumerate(result.segments, start=1):
        yield (
            f"{number}\tSpectrogram 1\t1\t{segment.start:.6f}\t{segment.end:.6f}\t0.0\t{highest_frequency:.1f}\t"
            f"{segment.label}\t{segment.score:.4f}"
        )


LINES = {"text": text_lines, "jsonl": jsonl_lines, "csv": csv_lines, "audacity": audacity_lines}

if __name__ == "__main__":
    sys.exit(main())

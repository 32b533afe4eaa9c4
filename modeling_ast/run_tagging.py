"""Command line of [`modeling_ast.tagging`]: `ast-tag AUDIO_OR_FOLDER ... --model_name_or_path DIR`.

Results go to standard output or a file, errors to standard error. Label tracks follow Audacity's text import (start, end
and label, tab-separated, in seconds), selection tables the column names of Raven.
"""

import argparse
import csv
import io
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

LABEL_FILE_SUFFIXES = {"audacity": ".txt", "raven": ".Table.1.selections.txt"}  # formats with one file for each audio file

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
was heard. audacity and raven imply --timeline and hold one audio file each: for several, --output is a folder. The exit
code is 1 if a file could not be tagged; the others are tagged all the same."""


def main(argv: list[str] | None = None) -> int:
    """Tag the files named on the command line.

    Returns:
        0, or 1 if a file could not be tagged; wrong arguments end the program with 2.
    """
    parser = make_parser()
    args = parse_arguments(parser, argv)

    from .audio import AudioError, find_audio_files
    from .tagging import AudioTagger, TaggingError, check_model_name

    failed = []
    try:
        files = find_audio_files(args.audio)
        destinations = plan_output(args.output, args.format, files)
        check_model_name(args.model_name_or_path)
        tagger = AudioTagger.from_pretrained(args.model_name_or_path, args.device)
        options = (args.top_k, args.batch_size, args.timeline, args.hop, args.threshold)
        tagged = leave_out_failed(tagger.tag_files(files, *options), failed)
        if destinations is not None:
            for result in tagged:
                write_lines(format_results([result], args, tagger.sampling_rate), destinations[result.file])
        elif args.output is not None:
            write_lines(format_results(tagged, args, tagger.sampling_rate), args.output)
        else:
            for line in format_results(tagged, args, tagger.sampling_rate):
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
    parser.add_argument("audio", nargs="+", metavar="AUDIO_OR_FOLDER", help="audio files, or folders of them at any depth")
    parser.add_argument("--model_name_or_path", required=True, metavar="DIR", help="model folder, or Hub id user/name")
    parser.add_argument("--top_k", type=_positive_int, default=5, help="labels for each file (default: %(default)s)")
    parser.add_argument("--format", choices=FORMATS, default="text", help="what is written (default: %(default)s)")
    parser.add_argument("--timeline", action="store_true", help="give segments with start and end in seconds")
    parser.add_argument("--hop", type=float, metavar="S", help="seconds between windows (default: half a window)")
    parser.add_argument(
        "--threshold",
        type=float,
        metavar="P",
        help="score from which a label counts in a segment (default: 0.5 if labels are independent, otherwise the best "
        "label of each window counts)",
    )
    parser.add_argument("--batch_size", type=_positive_int, default=8, help="windows at a time (default: %(default)s)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda", "mps"), default="auto", help="(default: %(default)s)")
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
        OutputError: if several label files have no folder to go to or the same name, or `output` cannot be made.
    """
    suffix = LABEL_FILE_SUFFIXES.get(output_format)
    is_folder = output is not None and output.is_dir()
    if suffix is None or (len(files) == 1 and not is_folder):
        if is_folder:
            raise OutputError(f"--output {output} is a folder. Pass the name of a file in it.")
        if output is not None and not output.parent.is_dir():
            raise OutputError(f"--output {output}: there is no folder {output.parent}. Make it first, or pass another.")
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
            raise OutputError(f"Two audio files are called {file.stem} and would both be written to {destination}. Tag them apart.")
        destinations[str(file)] = destination
    output.mkdir(parents=True, exist_ok=True)
    return destinations


def leave_out_failed(results: Iterable, failed: list) -> Iterator:
    """Pass results on; those of files that could not be decoded go to standard error and to `failed`."""
    for result in results:
        if result.error is None:
            yield result
        else:
            print(f"ast-tag: {result.error}", file=sys.stderr)
            failed.append(result)


def write_lines(lines: Iterable[str], destination: Path) -> None:
    """Write a text file that appears under its name only when it is complete."""
    temporary = destination.with_name(f".{destination.name}.{os.getpid()}.tmp")
    try:
        # File names that are not valid UTF-8 are written back as the bytes they are.
        with open(temporary, "w", encoding="utf-8", errors="surrogateescape", newline="\n") as file:
            file.writelines(f"{line}\n" for line in lines)
        os.replace(temporary, destination)
    finally:
        temporary.unlink(missing_ok=True)


def format_results(results: Iterable, args: argparse.Namespace, sampling_rate: int) -> Iterator[str]:
    """Turn results into the lines of `args.format`.

    Args:
        results (iterable of [`FileTags`]): tagged files.
        args (`argparse.Namespace`): the parsed command line.
        sampling_rate (`int`): of the model's input in Hz; half of it is the highest frequency of a selection.

    Yields:
        Lines without line end.
    """
    yield from FORMATS[args.format](results, args.timeline, sampling_rate)


def text_lines(results: Iterable, timeline: bool, _sampling_rate: int) -> Iterator[str]:
    """A block for each file: its name, then a line for each label or segment."""
    for result in results:
        yield result.file
        if timeline:
            for segment in result.segments:
                yield f"  {segment.start:9.2f} - {segment.end:9.2f} s  {segment.score:7.4f}  {segment.label}"
        else:
            for tag in result.labels:
                yield f"  {tag.score:7.4f}  {tag.label}"


def jsonl_lines(results: Iterable, timeline: bool, _sampling_rate: int) -> Iterator[str]:
    """One JSON object for each file."""
    for result in results:
        row = {"file": result.file, "labels": [{"label": tag.label, "score": tag.score} for tag in result.labels]}
        if timeline:
            row["segments"] = [
                {"start": segment.start, "end": segment.end, "label": segment.label, "score": segment.score}
                for segment in result.segments
            ]
        yield json.dumps(row)


def csv_lines(results: Iterable, timeline: bool, _sampling_rate: int) -> Iterator[str]:
    """A header, then a row for each file and label, or for each segment."""
    yield "file,start,end,label,score" if timeline else "file,label,score"
    for result in results:
        if timeline:
            for segment in result.segments:
                yield _csv_row(
                    (result.file, f"{segment.start:.3f}", f"{segment.end:.3f}", segment.label, f"{segment.score:.6f}")
                )
        else:
            for tag in result.labels:
                yield _csv_row((result.file, tag.label, f"{tag.score:.6f}"))


def _csv_row(values: tuple) -> str:
    row = io.StringIO()
    csv.writer(row, lineterminator="").writerow(values)
    return row.getvalue()


def audacity_lines(results: Iterable, _timeline: bool, _sampling_rate: int) -> Iterator[str]:
    """Audacity's label track: start, end and label."""
    for result in results:
        for segment in result.segments:
            yield f"{segment.start:.6f}\t{segment.end:.6f}\t{segment.label}"


def raven_lines(results: Iterable, _timeline: bool, sampling_rate: int) -> Iterator[str]:
    """Raven's selection table, each selection over all frequencies the model hears."""
    yield "\t".join(RAVEN_COLUMNS)
    for result in results:
        for number, segment in enumerate(result.segments, start=1):
            yield (
                f"{number}\tSpectrogram 1\t1\t{segment.start:.6f}\t{segment.end:.6f}\t0.0\t{sampling_rate / 2:.1f}\t"
                f"{segment.label}\t{segment.score:.4f}"
            )


FORMATS: dict[str, Callable[[Iterable, bool, int], Iterator[str]]] = {
    "text": text_lines,
    "jsonl": jsonl_lines,
    "csv": csv_lines,
    "audacity": audacity_lines,
    "raven": raven_lines,
}

if __name__ == "__main__":
    sys.exit(main())

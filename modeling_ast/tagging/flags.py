"""Flags of `ast-tag`: what there is, and what does not go together. Importing this takes neither torch nor Transformers."""

import argparse
import os
import re
from pathlib import Path

from ..audio_flags import add_channels_flag, add_strict_flag
from ..checkpoints.fields import CONFIG
from ..system.flags import FlagParser
from ..system.flags import positive_int as _positive_int
from .clock_time import START_TIMES
from .embedding_files import DTYPES, SUFFIXES
from .embeddings import EMBEDDINGS
from .formats import FORMATS
from .none_of_these import OFF, parse_none_of_these
from .reductions import REDUCTIONS
from .segments import SEGMENT_READINGS

LIVE = "-"  # in place of a file: a WAV from standard input
PER_LABEL = 20  # clips of --review
BLOCK_SIZE = 1000  # files, by default
_SEPARATORS = (os.sep, os.altsep or os.sep)  # of folders in a path
EPILOG = """\
Files longer than the model's input are scored window by window and the scores averaged; --timeline says when each label
was heard. What of a file was not heard is said on standard error, and under "notes" in jsonl. {of_segments} imply
--timeline. {of_one_file} hold one audio file each: for several, --output is a folder; with a / at
its end it is one for a single file, too. The exit code is 1 if a file could
not be tagged; the others are tagged all the same."""


def make_parser() -> FlagParser:
    """Describe the command line; neither torch nor Transformers is imported for it.

    Returns:
        [`FlagParser`].
    """
    parser = FlagParser(
        prog="ast-tag",
        description="Say what is heard in audio files, with a fine-tuned Audio Spectrogram Transformer.",
        epilog=EPILOG.format(
            of_segments=" and ".join(_formats_with("needs_timeline")),
            of_one_file=" and ".join(_formats_with("label_file_suffix")),
        ),
    )
    add_sources(
        parser,
        "audio files, folders of them at any depth, or patterns such as '*.wav'; - is a WAV from standard input, which is tagged as "
        "it comes",
    )
    add_data_set_flags(parser)
    parser.add_argument(
        "--microphone",
        nargs="?",
        const="",
        metavar="DEVICE",
        help="tag what a microphone hears, as it comes, until Ctrl-C: the system's own choice of a device, or one by its number "
        "or a part of its name",
    )
    parser.add_argument(
        "--model_name_or_path",
        required=True,
        nargs="+",
        metavar="DIR",
        help="model folder, Hub id user/name, or a file of ast-export: OUT.onnx; of several models the mean of their "
        "probabilities counts",
    )
    parser.add_argument("--top_k", type=_positive_int, default=5, help="labels for each file (default: %(default)s)")
    parser.add_argument("--format", choices=FORMATS, default="text", help="what is written (default: %(default)s)")
    parser.add_argument(
        "--combine",
        action="store_true",
        help=f"with --format {' or '.join(_formats_with('combined'))}: one file for all audio files, which are taken as lying end "
        "to end, with their names and where each begins",
    )
    parser.add_argument(
        "--start_time",
        choices=START_TIMES,
        default="none",
        help=f"with --format {' or '.join(_formats_with('clock_time'))}: also give date and time, where the name or the header of a "
        "recorder's file says when it began, with the time zone that is written there (default: %(default)s)",
    )
    parser.add_argument(
        "--reduce",
        choices=REDUCTIONS,
        default=REDUCTIONS[0],
        help="what the scores of a file are: of its windows the mean or the max, or the share of its time in which a label "
        "counts (default: %(default)s)",
    )
    add_window_flags(parser)
    parser.add_argument(
        "--none_of_these",
        type=_none_of_these,
        metavar="on|off|D",
        help="say which clips are none of the labels, as they are far from the clips that the model was trained on: on, off, or "
        "the largest distance of clips that are like them, from 0 to 2 (default: where the checkpoint was trained with "
        "--none_of_these, by its own threshold)",
    )
    parser.add_argument("--timeline", action="store_true", help="give segments with start and end in seconds")
    parser.add_argument("--hop", type=float, metavar="S", help="seconds between windows (default: half a window)")
    parser.add_argument(
        "--threshold",
        type=float,
        metavar="P",
        help="score from which a label counts in a segment (default: what the checkpoint has for the events of each label, or if labels are independent, each one's threshold "
        "in the checkpoint, or 0.5; otherwise the best label of each window counts)",
    )
    parser.add_argument("--on", type=float, metavar="P", help="another name of --threshold, beside --off")
    parser.add_argument(
        "--off",
        type=float,
        metavar="P",
        help="score down to which a segment that has begun goes on, also where another label is the best (default: it ends "
        "where it could not begin)",
    )
    parser.add_argument(
        "--close_gaps",
        type=float,
        metavar="S",
        help="make one of segments of a label with no more than so many seconds between them (default: as the checkpoint has it, or none)",
    )
    parser.add_argument(
        "--min_duration",
        type=float,
        metavar="S",
        help="leave out segments that are shorter, in seconds, after gaps are closed (default: as the checkpoint has it, or "
        "none)",
    )
    parser.add_argument(
        "--median_filter",
        type=float,
        metavar="S",
        help="smooth the scores by their median over so many seconds, an odd number of columns of a frame head or of windows, before "
        "segments are found (default: as the checkpoint has it, or none)",
    )
    parser.add_argument(
        "--segments",
        choices=SEGMENT_READINGS,
        help="what a segment is. hop (default): a stretch in which the mean score of the windows that cover it reaches the "
        "threshold, drawn in at its ends to where that mean is near its highest; score: this mean. window: all that "
        "neighbouring windows which have the label cover, never less than a window; score: the mean of these windows. "
        "A smaller --hop places segments of hop more exactly",
    )
    parser.add_argument(
        "--embeddings",
        choices=EMBEDDINGS,
        help="also give vectors: one for each file, each window, or each second; see --embeddings_output",
    )
    parser.add_argument(
        "--embeddings_output",
        type=Path,
        metavar="PATH",
        help="where --embeddings are written: PATH.npy, of shape (rows, hidden), with PATH.npy.csv, which says of what "
        "each row is; or PATH.parquet, a table with both",
    )
    parser.add_argument(
        "--embeddings_dtype",
        choices=DTYPES,
        default=DTYPES[0],
        help="in which numbers --embeddings are stored (default: %(default)s); float16 takes half the room and keeps three digits",
    )
    parser.add_argument(
        "--picture",
        type=Path,
        metavar="PATH",
        help="also draw time lines, the spectrogram above and the segments below: a PNG file, or for several audio files a folder "
        "with one for each",
    )
    parser.add_argument(
        "--review",
        type=Path,
        metavar="DIR",
        help="write short clips to judge, around the events of which the model is least and most sure, into a new folder with a "
        "metadata.csv; corrected there, they are training clips of ast-finetune --dataset_name DIR. Implies --timeline",
    )
    parser.add_argument(
        "--per_label",
        type=_positive_int,
        metavar="N",
        help=f"with --review: clips of each label at most, half of them of unsure events (default: {PER_LABEL})",
    )
    add_computing_flags(parser)
    parser.add_argument(
        "--tokens_merged_per_layer",
        type=_positive_int,
        default=0,
        metavar="N",
        help="tag faster and a little less exactly: so many tokens that are much alike are merged in each layer, at most half "
        "of those that are left (default: none)",
    )
    parser.add_argument(
        "--compile",
        action="store_true",
        help="have torch.compile make a program of the model first, which takes up to minutes, and on a CPU a C++ compiler; "
        "whether scoring is faster then depends on model and machine",
    )
    add_channels_flag(parser, or_each=True)
    add_strict_flag(parser)
    parser.add_argument(
        "--spreadsheet_safe",
        action="store_true",
        help=f"with --format {' or '.join(_formats_with('opens_in_spreadsheets'))}: put an apostrophe before names that "
        "begin with = + - @, a tab or a carriage return, which a spreadsheet would run as a formula. Programs that read the "
        "file then find other names than those of files and labels",
    )
    parser.add_argument(
        "--blocks",
        type=Path,
        metavar="DIR",
        help="for many files: write into a folder, block by block of the list. Whatever ends the run, the same command goes on at "
        "the first block that is missing, also by accelerate launch in several processes; see docs/million_clips.md",
    )
    parser.add_argument(
        "--block_size",
        type=_positive_int,
        metavar="N",
        help=f"with --blocks: files of a block (default: {BLOCK_SIZE})",
    )
    parser.add_argument(
        "--workers",
        type=_positive_int,
        metavar="N",
        help="with --blocks: processes, each of which tags blocks by itself with one thread (default: on a CPU one for each of its "
        "cores, elsewhere 1)",
    )
    parser.add_argument(
        "--output",
        metavar="FILE",
        help="write there instead of printing. FILE appears when it is complete; until then results are kept in "
        "FILE.unfinished, and after an interruption the same command goes on there",
    )
    return parser


def add_sources(parser: argparse.ArgumentParser, words: str) -> None:
    """Add what names audio files: `audio` and `--files_from`.

    Args:
        parser (`argparse.ArgumentParser`): of a command.
        words (`str`): what may be named.
    """
    parser.add_argument("audio", nargs="*", metavar="AUDIO_OR_FOLDER", help=words)
    parser.add_argument(
        "--files_from", metavar="LIST", help="a file with a path on each line, or - for standard input"
    )


def add_data_set_flags(parser: argparse.ArgumentParser) -> None:
    """Add what names the recordings of a `datasets` data set.

    Args:
        parser (`argparse.ArgumentParser`): of a command.
    """
    parser.add_argument(
        "--dataset_name",
        metavar="NAME",
        help="a data set in place of files: an id on the Hub, a folder laid out like one, or what save_to_disk of datasets has "
        "written; a recording is called by its file, or by the name that is stored with it",
    )
    parser.add_argument("--dataset_config_name", metavar="NAME", help="its configuration, if it has several")
    parser.add_argument("--split_name", metavar="SPLIT", help="its split, if it has several")
    parser.add_argument("--audio_column_name", metavar="COLUMN", help="its column of audio, if it has several")


def add_window_flags(parser: argparse.ArgumentParser) -> None:
    """Add `--window` and `--silence_db`.

    Args:
        parser (`argparse.ArgumentParser`): of a command.
    """
    parser.add_argument(
        "--window", type=float, metavar="S", help="seconds scored at once (default: as many as the model hears)"
    )
    parser.add_argument(
        "--silence_db",
        type=float,
        metavar="DB",
        help="decibels of full scale that a window's samples reach at most if it is silent and not scored (default: -80)",
    )


def add_computing_flags(parser: argparse.ArgumentParser) -> None:
    """Add `--batch_size` and `--device`.

    Args:
        parser (`argparse.ArgumentParser`): of a command.
    """
    parser.add_argument(
        "--batch_size",
        type=_positive_int,
        help="windows at a time (default: 8 of the published sizes, up to 64 of smaller models)",
    )
    parser.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda", "mps"),
        default="auto",
        help="where to compute (default: %(default)s)",
    )


def parse_arguments(parser: FlagParser, argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line, and let formats of segments imply `--timeline`.

    Args:
        parser ([`FlagParser`]): from [`make_parser`].
        argv (`list[str]`, *optional*): those after the program's name; of the process by default.

    Returns:
        `argparse.Namespace`; flags that do not go together end the program with 2.
    """
    args = parser.parse_args(argv)
    args.data_set = None  # which is loaded later, if one is named
    if not args.audio:
        args.model_name_or_path, args.audio = _models_and_audio(args.model_name_or_path)
    is_live = LIVE in args.audio or args.microphone is not None
    if is_live:
        if len(args.audio) + (args.microphone is not None) > 1 or args.files_from is not None:
            live = "--microphone" if args.microphone is not None else LIVE
            source = "a microphone" if args.microphone is not None else "standard input"
            parser.error(f"{live} is sound from {source}, and is tagged alone. Leave the others out.")
        given = {"channels each": args.channels == "each", "start_time": args.start_time != "none"}
        given |= {name: getattr(args, name) is not None for name in ("picture", "embeddings", "output", "batch_size")}
        given |= {"review": args.review is not None, "blocks": args.blocks is not None}
        given |= {"strict_audio": args.strict_audio, "format parquet": args.format == "parquet"}
        for option in filter(given.get, given):
            parser.error(f"--{option} is about files. Leave it out, or tag a file.")
    if args.dataset_name is not None:
        _check_data_set(parser, args, is_live)
    elif not args.audio and args.files_from is None and not is_live:
        parser.error(
            "Nothing to tag was named. Name audio files or folders, or pass --files_from LIST or --dataset_name NAME."
        )
    for option in ("dataset_config_name", "split_name", "audio_column_name"):
        if args.dataset_name is None and getattr(args, option) is not None:
            parser.error(f"--{option} is about a data set. Add --dataset_name NAME, or leave it out.")
    if args.per_label is not None and args.review is None:
        parser.error("--per_label is about the clips of --review. Add --review DIR, or leave it out.")
    if args.review is not None:
        _check_review(parser, args)
    for option in ("block_size", "workers"):
        if args.blocks is None and getattr(args, option) is not None:
            parser.error(f"--{option} is about the blocks of --blocks. Add --blocks DIR, or leave it out.")
    if args.blocks is not None:
        _check_blocks(parser, args)
    args.timeline = args.timeline or FORMATS[args.format].needs_timeline or args.review is not None
    if args.channels == "each":
        for option in ("embeddings", "picture"):
            if getattr(args, option) is not None:
                parser.error(f"--{option} is of one channel. Pass another --channels than each, or leave it out.")
    of_segments = (
        "hop",
        "threshold",
        "on",
        "off",
        "median_filter",
        "close_gaps",
        "min_duration",
        "segments",
        "picture",
    )
    for option in of_segments:
        has_use = args.timeline or (option in ("threshold", "on", "median_filter") and args.reduce == "share")
        if getattr(args, option) is not None and not has_use:
            parser.error(f"--{option} is about segments. Add --timeline, or leave it out.")
    if args.timeline and args.reduce != REDUCTIONS[0] and not FORMATS[args.format].labels_beside_segments:
        names = _formats_with("labels_beside_segments")
        parser.error(
            f"--reduce is about the scores of a whole recording, and --format {args.format} has segments alone with --timeline. Pass "
            f"--format {' or '.join(names)}, or leave it out."
        )
    if args.on is not None and args.threshold is not None:
        parser.error("--on and --threshold are two names of one score. Leave one of them out.")
    args.threshold = args.on if args.threshold is None else args.threshold
    if args.spreadsheet_safe and not FORMATS[args.format].opens_in_spreadsheets:
        names = _formats_with("opens_in_spreadsheets")
        files = " and ".join(name.upper() for name in names)
        parser.error(f"--spreadsheet_safe is about {files} files. Add --format {' or '.join(names)}, or leave it out.")
    if args.combine and FORMATS[args.format].combined is None:
        names = " or ".join(_formats_with("combined"))
        parser.error(f"--combine makes one file of those of each audio file. Add --format {names}, or leave it out.")
    if args.start_time != "none" and not FORMATS[args.format].clock_time:
        names = " or ".join(_formats_with("clock_time"))
        parser.error(f"--start_time: {args.format} has no place for it. Pass --format {names}, or leave it out.")
    if args.output is None and args.blocks is None and FORMATS[args.format].write is not None:
        parser.error(f"--format {args.format} is no text to print. Add --output with the name of a file.")
    if args.embeddings is None and args.embeddings_dtype != DTYPES[0]:
        parser.error(f"--embeddings_dtype is about vectors. Add --embeddings {'|'.join(EMBEDDINGS)}, or leave it out.")
    if args.blocks is None and (args.embeddings is None) != (args.embeddings_output is None):
        given = "embeddings_output" if args.embeddings is None else "embeddings"
        words = {
            "embeddings": "--embeddings_output with a path",
            "embeddings_output": f"--embeddings {'|'.join(EMBEDDINGS)}",
        }
        parser.error(f"--{given} alone gives nothing. Add {words[given]}, or leave it out.")
    if args.compile and args.embeddings is not None:
        parser.error("--compile makes a program for scores alone, not for --embeddings. Leave one of them out.")
    if args.embeddings_output is not None and args.embeddings_output.suffix not in SUFFIXES:
        parser.error(
            f"--embeddings_output {args.embeddings_output} ends in neither {' nor '.join(SUFFIXES)}. Name it so."
        )
    args.names_folder = args.output is not None and args.output.endswith(_SEPARATORS)
    args.output = None if args.output is None else Path(args.output)
    return args


def _check_data_set(parser: FlagParser, args: argparse.Namespace, is_live: bool):
    """Refuse other sources beside a data set, and what reads the files themselves."""
    if args.audio or args.files_from is not None or is_live:
        parser.error(f"--dataset_name {args.dataset_name} is tagged alone. Leave the other sources out.")
    given = {name: getattr(args, name) is not None for name in ("blocks", "review", "picture")}
    given |= {"start_time from_file": args.start_time == "from_file"}
    for option in filter(given.get, given):
        parser.error(f"--{option} is about files, not a data set. Leave one of them out.")


def _check_blocks(parser: FlagParser, args: argparse.Namespace):
    """Refuse what has another place than the folder of blocks, or needs all files at once."""
    for option in ("output", "embeddings_output", "picture", "review"):
        if getattr(args, option) is not None:
            parser.error(f"--{option}: --blocks {args.blocks} is where everything goes. Leave one of them out.")
    if args.combine or FORMATS[args.format].label_file_suffix is not None:
        names = [name for name, row in FORMATS.items() if row.label_file_suffix is None]
        parser.error(
            f"--format {args.format} has a file for each recording, --blocks one for each block of them. Pass --format "
            f"{' or '.join(names)}."
        )
    args.block_size = args.block_size or BLOCK_SIZE


def _check_review(parser: FlagParser, args: argparse.Namespace):
    """Refuse what is about results, where clips are written in their place."""
    given = {
        name: getattr(args, name) is not None for name in ("output", "embeddings", "embeddings_output", "picture")
    }
    given |= {"combine": args.combine, "spreadsheet_safe": args.spreadsheet_safe}
    given |= {f"none_of_these {args.none_of_these}": args.none_of_these not in (None, OFF)}
    given |= {f"format {args.format}": args.format != parser.get_default("format")}
    given |= {f"start_time {args.start_time}": args.start_time != parser.get_default("start_time")}
    given |= {f"reduce {args.reduce}": args.reduce != parser.get_default("reduce")}
    given |= {f"top_k {args.top_k}": args.top_k != parser.get_default("top_k")}
    for option in filter(given.get, given):
        parser.error(f"--{option} is about results, and --review writes clips in their place. Leave one of them out.")
    if args.channels == "each":
        parser.error(
            "--review cuts clips with all their channels. Pass another --channels than each, or leave it out."
        )
    args.per_label = args.per_label or PER_LABEL


def _none_of_these(text: str) -> str | float:
    try:
        return parse_none_of_these(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _models_and_audio(names: list[str]) -> tuple[list[str], list[str]]:
    """What stands behind --model_name_or_path, if nothing stands before it: models first, then what is to be tagged."""
    from ..audio.files import AUDIO_SUFFIXES

    for number, name in enumerate(names):
        path = Path(name)
        is_model = (path / CONFIG).is_file() or path.suffix == ".onnx"
        is_audio = path.exists() or path.suffix.lower() in AUDIO_SUFFIXES
        if number and not is_model and (is_audio or not re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", name)):
            return names[:number], names[number:]
    return names, []


def _formats_with(field: str) -> list[str]:
    return [name for name, row in FORMATS.items() if getattr(row, field)]

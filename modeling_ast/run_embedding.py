"""Command line of [`modeling_ast.similar.library`]: `ast-embed AUDIO_OR_FOLDER ... --output DIR`.

It is the engine of `ast-tag` with another last step: vectors are added to a folder, which `ast-similar` searches.
"""

import argparse
import os
import sys
from collections.abc import Iterable
from pathlib import Path

from .audio_flags import add_channels_flag, add_strict_flag
from .checkpoints.shipped import AST_SMALL
from .run_tagging import SHORT_FILES, check_pytorch, groups_of
from .similar.index import INDEX, INDEX_FROM, IndexMissingError, build_index
from .similar.library import COMMIT_SECONDS, Description, Library, LibraryError, LibraryWriter
from .system.flags import FlagParser
from .system.names_as_text import in_one_line, in_short
from .system.run_lock import LockedError
from .system.terminal import FAILED, ended_by, exit_code_of, shell_command
from .tagging.embedding_files import DTYPES
from .tagging.embeddings import EMBEDDINGS
from .tagging.flags import add_computing_flags, add_sources, add_window_flags
from .tagging.none_of_these import OFF
from .tagging.progress import TaggingProgress
from .tagging.unfinished import OutputError, model_digest, states_of

ABOUT_FILES = (
    "model_name_or_path",
    "embeddings",
    "dtype",
    "hop",
    "window",
    "silence_db",
    "channels",
    "strict_audio",
    "batch_size",
    "device",
)
EPILOG = """\
A folder that stands is continued: files that are in it are not embedded again, those that could not be embedded are tried once more, and
after an interruption the same command goes on. The exit code is 1 if a file could not be embedded; the others are all the same."""


@shell_command("ast-embed")
def main(argv: list[str] | None = None) -> int:
    """Embed the files named on the command line.

    Args:
        argv (`list[str]`, *optional*): arguments after the program's name, by default those of the process.

    Returns:
        0; 1 if a file could not be embedded, or nothing could for a failure; wrong arguments end the program with 2.
    """
    parser = make_parser()
    args = parse_arguments(parser, argv)

    from .audio import AudioError
    from .checkpoints.fields import CheckpointError
    from .tagging.tagger import TaggingError

    try:
        files = named_files(args)
        failed = embed_files(args, files) if files else 0
        library = Library(args.output)
        index_library(args.index, library)
    except (AudioError, CheckpointError, TaggingError, OutputError, LibraryError, LockedError) as error:
        if exit_code_of(error) == FAILED:
            return ended_by("ast-embed", error, in_one_line(str(error)))
        parser.error(in_one_line(str(error)))
    held = f"{in_one_line(str(args.output))} holds {len(library)} vectors of {library.description.files} files"
    print(f"{len(files) - failed} of {len(files)} files are embedded; {held}" if files else held)
    return 1 if failed else 0


def make_parser() -> FlagParser:
    """Describe the command line; neither torch nor Transformers is imported for it.

    Returns:
        [`FlagParser`].
    """
    parser = FlagParser(
        prog="ast-embed",
        description="Keep vectors of audio files in a folder, in which ast-similar finds what sounds alike.",
        epilog=EPILOG,
    )
    add_sources(parser, "audio files, folders of them at any depth, or patterns such as '*.wav'")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder of the vectors")
    parser.add_argument(
        "--model_name_or_path",
        default=AST_SMALL,
        metavar="DIR",
        help="model folder or Hub id user/name (default: %(default)s, which the kit ships)",
    )
    parser.add_argument(
        "--embeddings",
        choices=EMBEDDINGS,
        default="window",
        help="what a vector is of: a file, a window of the model's length, or a second (default: %(default)s)",
    )
    parser.add_argument(
        "--dtype",
        choices=DTYPES,
        default=DTYPES[0],
        help="how vectors are kept; float16 takes half the room (default: %(default)s)",
    )
    parser.add_argument(
        "--hop", type=float, metavar="S", help="seconds between windows (default: they lie side by side)"
    )
    add_window_flags(parser)
    add_channels_flag(parser)
    add_strict_flag(parser)
    parser.add_argument(
        "--index",
        choices=("auto", "on", "off"),
        default="auto",
        help=f"whether an index for fast searches is kept up to date: auto, from {INDEX_FROM} vectors on where the extra search is "
        "installed; with on, FILES may be left out (default: %(default)s)",
    )
    add_computing_flags(parser)
    return parser


def parse_arguments(parser: FlagParser, argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line.

    Args:
        parser ([`FlagParser`]): from [`make_parser`].
        argv (`list[str]`, *optional*): those after the program's name; of the process by default.

    Returns:
        `argparse.Namespace`; what does not go together ends the program with 2.
    """
    args = parser.parse_args(argv)
    if not args.audio and args.files_from is None:
        if args.index != "on":
            parser.error("Nothing to embed was named. Name audio files or folders, or pass --files_from LIST.")
        for name in given_flags(parser, args, ABOUT_FILES):
            parser.error(
                f"--{name} is about files, and none were named. Name audio files or folders, or leave it out."
            )
    return args


def given_flags(parser: FlagParser, args: argparse.Namespace, names: Iterable[str]) -> list[str]:
    """Tell which flags were given another value than their default.

    Args:
        parser ([`FlagParser`]): of a command.
        args (`argparse.Namespace`): what it parsed.
        names (iterable of `str`): of the flags, without dashes.

    Returns:
        `list[str]`: those of `names`, in their order.
    """
    return [name for name in names if getattr(args, name) != parser.get_default(name)]


def named_files(args: argparse.Namespace) -> list[Path]:
    """List what was named.

    Args:
        args (`argparse.Namespace`): what was asked for.

    Returns:
        `list[Path]`: each audio file once, whatever it was called; none if none were named.

    Raises:
        AudioError: see [`tagged_files`].
    """
    from .tagging.sources import tagged_files

    if not args.audio and args.files_from is None:
        return []
    left_out = []
    files = tagged_files(args.audio, args.files_from, left_out, lines_may_lack=True)
    for words in left_out:
        say(words)
    return list({os.path.abspath(file): file for file in files}.values())


def embed_files(args: argparse.Namespace, files: list[Path]) -> int:
    """Add files to the folder, but for those that are in it.

    Args:
        args (`argparse.Namespace`): what was asked for.
        files (`list[Path]`): the audio files.

    Returns:
        How many could not be embedded.

    Raises:
        OutputError, LibraryError, LockedError: see [`LibraryWriter`]; also if a file is in the folder as it was earlier.
    """
    tagger = load_tagger(args)
    description = describe(args, tagger)
    tagger.tag_files([], **description.settings)  # what does not fit the model is refused before a folder is made
    failed = 0
    with LibraryWriter(args.output, description) as library:
        new, again = divide(library, files)
        done = len(files) - len(new) - len(again)
        if done:
            print(f"{done} of {len(files)} files are in {in_one_line(str(args.output))} already", flush=True)
        at_once = tagger.windows_at_once(args.batch_size)
        # Each by itself: whoever goes on after an interruption gets the same batches, and so the same vectors.
        groups = [
            group for files in (again, new) for group in groups_of(files, at_once, args.batch_size or SHORT_FILES)
        ]
        sizes = [size for _, size, _ in states_of(again + new)]
        try:
            with TaggingProgress(again + new, sizes) as progress:
                for group in groups:
                    failed += embed_group(args, tagger, group, library, progress)
                    library.commit(COMMIT_SECONDS)
        except KeyboardInterrupt as error:
            error.add_note(
                f"What was embedded is kept in {in_one_line(str(args.output))}; the same command goes on there."
            )
            raise
    return failed


def embed_group(args: argparse.Namespace, tagger, group: list[Path], library: LibraryWriter, progress) -> int:
    """Embed files that are heard together, and add them all.

    Args:
        args (`argparse.Namespace`): what was asked for.
        tagger ([`AudioTagger`]): the model.
        group (`list[Path]`): the files.
        library ([`LibraryWriter`]): to which they are added.
        progress ([`TaggingProgress`]): is told of them.

    Returns:
        How many could not be embedded.
    """
    states = states_of(group)
    settings = library.description.settings | {"top_k": 1, "none_of_these": OFF, "batch_size": args.batch_size}
    results = list(tagger.tag_files(group, **settings, progress=progress.heard))
    for (file, size, changed), result in zip(states, results, strict=True):
        for note in result.notes:
            say(note.text)
        if result.error is not None:
            say(result.error)
        library.add([os.path.abspath(file), size, changed], result.embeddings, result.error)
    progress.tagged(len(group))
    return sum(result.error is not None for result in results)


def divide(library: LibraryWriter, files: list[Path]) -> tuple[list[Path], list[Path]]:
    """Tell what is to be done with files.

    Args:
        library ([`LibraryWriter`]): which may hold some of them.
        files (`list[Path]`): the audio files.

    Returns:
        Those that are new, and those that could not be embedded earlier.

    Raises:
        OutputError: if the folder has vectors of a file that was changed since.
    """
    names = {file: os.path.abspath(file) for file in files}
    listed = library.listed(names.values())
    new, again, changed = [], [], []
    for file, (_, size, at) in zip(files, states_of(files), strict=True):
        row = listed.get(names[file])
        if row is None:
            new.append(file)
        elif "error" in row:
            again.append(file)
        elif (row["size"], row["changed"]) != (size, at):
            changed.append(str(file))
    if changed:
        raise OutputError(
            f"{in_short(changed)}: changed since {library.folder} got vectors of it, and vectors are not replaced. Leave it out, or "
            "embed all files into another --output."
        )
    return new, again


def load_tagger(args: argparse.Namespace):
    """Load the model that was asked for.

    Args:
        args (`argparse.Namespace`): with `model_name_or_path`, `device`, `channels` and `strict_audio`.

    Returns:
        [`AudioTagger`].

    Raises:
        CheckpointError, TaggingError: see [`AudioTagger.from_pretrained`].
    """
    check_pytorch([args.model_name_or_path], pictures=False)
    from .audio import HEARD_LESS
    from .tagging.tagger import AudioTagger

    refused = HEARD_LESS if args.strict_audio else frozenset()
    return AudioTagger.from_pretrained(args.model_name_or_path, args.device, args.channels, refused, frame_heads=True)


def describe(args: argparse.Namespace, tagger) -> Description:
    """Say what makes the vectors.

    Args:
        args (`argparse.Namespace`): what was asked for.
        tagger ([`AudioTagger`]): the model.

    Returns:
        [`Description`].
    """
    model = args.model_name_or_path
    return Description(
        model=os.path.abspath(model) if os.path.isdir(model) else model,
        digest=model_digest(tagger),
        hidden_size=tagger.config.hidden_size,
        **{name: getattr(args, name) for name in ("embeddings", "dtype", "window", "hop", "silence_db", "channels")},
    )


def index_library(wanted: str, library: Library) -> None:
    """Bring the index up to date, if one is wanted.

    Args:
        wanted (`str`): `"on"`, `"off"`, or `"auto"`, if there are many vectors or there is one already, and it can be made.
        library ([`Library`]): the folder.

    Raises:
        IndexMissingError: if it is wanted and what makes it is not installed.
    """
    has_use = len(library) >= INDEX_FROM or (library.folder / INDEX).is_file()
    if wanted == "off" or (wanted == "auto" and not has_use):
        return
    try:
        build_index(library, say)
    except IndexMissingError as error:
        if wanted == "on":
            raise
        say(str(error))


def say(words: str) -> None:
    """Write a line to the error stream.

    Args:
        words (`str`): what it says.
    """
    print(f"ast-embed: {in_one_line(words)}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())

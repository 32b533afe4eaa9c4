"""Command line that searches what `ast-embed` kept: `ast-similar CLIP ... --in DIR`.

With `--examples` a few marked clips are a classifier of clips or of what is kept, with `--map` it is drawn.
"""

import argparse
import os
import shlex
import sys
from collections.abc import Iterable, Iterator
from itertools import chain, groupby
from pathlib import Path

from .audio_flags import add_strict_flag
from .run_embedding import given_flags, load_tagger
from .similar.library import Library, LibraryError
from .similar.prototypes import MATCHES, Prototypes, example_files, without_label
from .similar.results import CSV_HEADER, FORMATS, Hit, hit_lines
from .system.flags import FlagParser, positive_int
from .system.names_as_text import in_one_line, in_short, spreadsheet_safe
from .system.terminal import FAILED, ended_by, exit_code_of, shell_command
from .tagging.flags import add_computing_flags
from .tagging.formats import FORMATS as TAG_FORMATS
from .tagging.formats import with_safe_names
from .tagging.label_files import check_side_output, refuse_to_overwrite
from .tagging.results import FileTags, Segment, Tag
from .tagging.unfinished import OutputError, model_digest
from .tagging.written_lines import print_lines, write_lines

MAPS = ("tsne", "pca")
ROWS_AT_ONCE = 16_384  # that are labelled
EPILOG = """\
CLIP is a file, or with '#t=12.5,14' behind its name what lies between these seconds of it. --examples FOLDER holds a folder of clips
for each label: CLIP ... --examples FOLDER --in DIR gives labels of the clips, --examples FOLDER --in DIR labels of what is kept in DIR.
A score is a cosine similarity, from -1 to 1. The exit code is 1 if a clip could not be used; the others are all the same."""


@shell_command("ast-similar")
def main(argv: list[str] | None = None) -> int:
    """Search, label or draw what is kept in a folder.

    Args:
        argv (`list[str]`, *optional*): arguments after the program's name, by default those of the process.

    Returns:
        0; 1 if a clip could not be used, or nothing could for a failure; wrong arguments end the program with 2.
    """
    parser = make_parser()
    args = parse_arguments(parser, argv)

    from .audio import AudioError
    from .checkpoints.fields import CheckpointError
    from .similar.clips import parse_clip
    from .tagging.tagger import TaggingError

    search = None
    try:
        check_side_output("output", args.output, None)
        check_side_output("map", args.map, args.output)
        clips = [parse_clip(text) for text in args.clips]
        search = Search(args)
        check_places(args, [clip.file for clip in clips])
        if args.map is not None:
            search.draw_map()
        elif args.examples is None:
            search.write(search.found_lines(clips), CSV_HEADER)
        else:
            results = search.labelled_clips(clips) if clips else search.labelled_stretches()
            row = TAG_FORMATS[args.format]
            results = map(with_safe_names, results) if args.spreadsheet_safe else results
            header = row.header(not clips) if row.header else None
            search.write((line for result in results for line in row.lines(result)), header)
    except (AudioError, CheckpointError, TaggingError, OutputError, LibraryError) as error:
        if exit_code_of(error) == FAILED:
            return ended_by("ast-similar", error, in_one_line(str(error)))
        parser.error(in_one_line(str(error)))
    return 1 if search.failed else 0


def make_parser() -> FlagParser:
    """Describe the command line; neither torch nor Transformers is imported for it.

    Returns:
        [`FlagParser`].
    """
    parser = FlagParser(
        prog="ast-similar",
        description="Find what sounds like a clip in what ast-embed kept; label it by a few marked clips; draw it.",
        epilog=EPILOG,
    )
    parser.add_argument("clips", nargs="*", metavar="CLIP", help="what is searched for, or labelled by --examples")
    parser.add_argument("--in", type=Path, dest="library", metavar="DIR", help="folder of ast-embed")
    parser.add_argument(
        "--top",
        type=positive_int,
        metavar="N",
        help="nearest stretches of each clip (default: 10), or labels with --examples (default: 5 of a clip, 1 of a stretch)",
    )
    parser.add_argument(
        "--exact", action="store_true", help="look at every vector, where an index would pass over some"
    )
    parser.add_argument(
        "--examples", type=Path, metavar="FOLDER", help="marked clips: a folder for each label, with its clips in it"
    )
    parser.add_argument(
        "--match",
        choices=MATCHES,
        help="what a label of --examples is: the mean of its clips, or the nearest of them (default: mean)",
    )
    parser.add_argument(
        "--map",
        type=Path,
        metavar="FILE.png",
        help="draw what is in DIR as points in a plane, coloured by --examples, or by the folders of the files",
    )
    parser.add_argument(
        "--map_method",
        choices=MAPS,
        help="how: neighbours stay neighbours, or the two main directions (default: tsne)",
    )
    parser.add_argument("--format", choices=FORMATS, default="text", help="what is written (default: %(default)s)")
    parser.add_argument(
        "--spreadsheet_safe",
        action="store_true",
        help="with --format csv: put an apostrophe before names that a spreadsheet would run as a formula",
    )
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="write there, when all is found, instead of printing"
    )
    parser.add_argument(
        "--model_name_or_path",
        metavar="DIR",
        help="the model, where DIR was made by one that lies elsewhere now, or there is no --in",
    )
    add_strict_flag(parser)
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
    if args.library is None and not (args.clips and args.examples is not None and args.model_name_or_path):
        parser.error(
            "Nothing is searched. Add --in DIR, a folder of ast-embed; CLIP ... --examples FOLDER also goes with --model_name_or_path."
        )
    if not args.clips and args.examples is None and args.map is None:
        parser.error("Nothing to search for was named. Name a CLIP, or pass --examples FOLDER or --map FILE.png.")
    if args.map is not None:
        given = {
            "CLIP": args.clips,
            "--output": args.output,
            "--top": args.top,
            "--spreadsheet_safe": args.spreadsheet_safe,
        }
        given |= {f"--format {args.format}": args.format != parser.get_default("format")}
        for name in filter(given.get, given):
            parser.error(f"{name} is not about --map. Leave one of them out.")
        if args.map.suffix.lower() != ".png":
            parser.error(f"--map {args.map} is no name of a PNG. Pass one that ends in .png.")
        if args.examples is None:
            names = ("model_name_or_path", "strict_audio", "batch_size", "device")
            for name in given_flags(parser, args, names):
                parser.error(
                    f"--{name} is about hearing, and --map hears nothing without --examples. Add --examples FOLDER, or leave it out."
                )
    if args.match is not None and args.examples is None:
        parser.error("--match is about --examples. Add --examples FOLDER, or leave it out.")
    if args.map_method is not None and args.map is None:
        parser.error("--map_method is about --map. Add --map FILE.png, or leave it out.")
    if args.exact and (args.examples is not None or args.map is not None):
        parser.error("--exact is about searches for a CLIP. Leave it out.")
    if args.spreadsheet_safe and args.format != "csv":
        parser.error("--spreadsheet_safe is about CSV files. Add --format csv, or leave it out.")
    return args


def check_places(args: argparse.Namespace, clips: list[Path]) -> None:
    """Make sure that nothing is written over a clip or another recording, or into the folder that is searched.

    Args:
        args (`argparse.Namespace`): what was asked for.
        clips (`list[Path]`): files of the clips.

    Raises:
        OutputError: if it would be.
        AudioError: see [`example_files`].
    """
    written = {flag: [path] for flag, path in (("output", args.output), ("map", args.map)) if path is not None}
    if not written:
        return
    marked = [] if args.examples is None else [file for _, file in example_files(args.examples)]
    refuse_to_overwrite([*clips, *marked], written)
    from .audio import AUDIO_SUFFIXES

    for flag, (path,) in written.items():
        if path.exists() and path.suffix.lower() in AUDIO_SUFFIXES:
            raise OutputError(f"--{flag} {path} would write over a recording. Pass another name.")
    if args.library is None:
        return
    folder = Path(os.path.realpath(args.library))
    for flag, (path,) in written.items():
        places = (path, path.parent)  # a link, and where it points to
        if any(Path(os.path.realpath(place)).is_relative_to(folder) for place in places):
            raise OutputError(
                f"--{flag} {path} lies in {args.library}, where ast-embed keeps its files. Pass a name outside of it, such as --{flag} "
                f"{folder.parent / path.name}"
            )


class Search:
    """What is searched, and by which model: loaded where it is needed.

    Args:
        args (`argparse.Namespace`): what was asked for.

    Attributes:
        failed (`int`): how many clips could not be used.

    Raises:
        LibraryError: if the folder is none of `ast-embed`, or damaged.
    """

    def __init__(self, args: argparse.Namespace):
        self.args, self.failed = args, 0
        self.library = None if args.library is None else Library(args.library)
        self._tagger = None
        self._said_channels = False  # that the folder decides which are heard

    def write(self, lines: Iterable[str], header: str | None):
        """Print lines or write them to `--output`.

        Args:
            lines (iterable of `str`): without line ends.
            header (`str`, *optional*): of CSV.
        """
        whole = chain([header] if header and self.args.format == "csv" else [], lines)
        if self.args.output is None:
            print_lines(whole)
        else:
            write_lines(whole, self.args.output)

    def tagger(self):
        """Load the model, once.

        Returns:
            [`AudioTagger`].

        Raises:
            LibraryError: if the folder's vectors are of another model.
        """
        if self._tagger is None:
            described = None if self.library is None else self.library.description
            self.args.channels = None if described is None else described.channels
            self.args.model_name_or_path = self.args.model_name_or_path or described.model
            self._tagger = load_tagger(self.args)
            if described is not None and model_digest(self._tagger) != described.digest:
                if self.args.model_name_or_path == described.model:
                    raise LibraryError(
                        f"{self.library.folder} holds vectors of {described.model} as it was then: its files, or this kit's version, were "
                        "changed since. Put the earlier ones back, or embed the files into another folder: ast-embed FILES "
                        f"--model_name_or_path {shlex.quote(described.model)} --output NEW_DIR"
                    )
                raise LibraryError(
                    f"{self.args.model_name_or_path} is another model than the one that made the vectors of {self.library.folder}, "
                    f"{described.model} as it was then. Pass --model_name_or_path with that one, or embed the files by this one into "
                    f"another folder: ast-embed FILES --model_name_or_path {shlex.quote(str(self.args.model_name_or_path))} "
                    "--output NEW_DIR"
                )
        return self._tagger

    def embedded(self, clips: Iterable) -> Iterator:
        """Embed clips; what cannot be used is said and counted.

        Args:
            clips (iterable of [`Clip`]): of the command line or of `--examples`.

        Yields:
            [`EmbeddedClip`] of those that have a vector.
        """
        from .similar.clips import embed_clips

        settings = {"embeddings": "file"} if self.library is None else self.library.description.settings
        settings = settings | {"batch_size": self.args.batch_size}
        for clip in embed_clips(self.tagger(), list(clips), settings):
            for words in filter(None, (*clip.said, clip.error)):
                say(words)
            asks_for_channel = self.library is not None and any("--channels" in words for words in clip.said)
            if asks_for_channel and self.args.channels is not None and not self._said_channels:
                self._said_channels = True
                say(
                    f"{self.library.folder} was made with --channels {self.args.channels}, and so clips are heard. To hear another, "
                    "embed the files by that into another folder."
                )
            if clip.error is None:
                yield clip
            else:
                self.failed += 1

    def found_lines(self, clips: Iterable) -> Iterator[str]:
        """Find what is nearest to clips.

        Args:
            clips (iterable of [`Clip`]): what is searched for.

        Yields:
            Lines of `--format`.
        """
        from .similar.index import INDEX_FROM, IndexMissingError, open_index
        from .similar.nearest import nearest

        index = None
        if not self.args.exact:
            try:
                index = open_index(self.library)
            except IndexMissingError as error:
                say(str(error))
            else:
                if index is None and len(self.library) >= INDEX_FROM:
                    folder = self.args.library
                    say(
                        f"{folder} has no index. For faster searches type: ast-embed --output {shlex.quote(str(folder))} --index on"
                    )
        safe = spreadsheet_safe if self.args.spreadsheet_safe else str
        for embedded in self.embedded(clips):
            (rows,), (scores,) = nearest(self.library, embedded.vector[None], self.args.top or 10, index)
            places = zip(self.library.places(rows), scores.tolist(), strict=True)
            hits = [Hit(safe(file), start, end, score) for (file, start, end), score in places]
            yield from hit_lines(safe(embedded.clip.name), hits, self.args.format)

    def prototypes(self) -> Prototypes:
        """Make a classifier of `--examples`.

        Returns:
            [`Prototypes`].

        Raises:
            AudioError: see [`example_files`]; also if no clip of a label can be used.
        """
        from .audio import AudioError
        from .similar.clips import Clip

        marked = [Clip(str(file), file, label=label) for label, file in example_files(self.args.examples)]
        unused = without_label(self.args.examples)
        if unused:
            say(
                f"{in_short(path.name for path in unused)} in {self.args.examples} itself: of no label, and not used. Put clips into the "
                "folder of their label."
            )
        embedded = list(self.embedded(marked))
        labels = [each.clip.label for each in embedded]
        missing = {clip.label for clip in marked} - set(labels)
        if missing:
            raise AudioError(
                f"--examples {self.args.examples}: no clip of {sorted(missing)[0]!r} can be used. Add one, or remove its folder."
            )
        import numpy as np

        return Prototypes(labels, np.stack([each.vector for each in embedded]), self.args.match or MATCHES[0])

    def labelled_clips(self, clips: Iterable) -> Iterator[FileTags]:
        """Label clips by the examples.

        Args:
            clips (iterable of [`Clip`]): of the command line.

        Yields:
            [`FileTags`] with labels.
        """
        from .similar.library import of_length_one

        prototypes = self.prototypes()
        for embedded in self.embedded(clips):
            scores = prototypes.scores(of_length_one(embedded.vector)[None] @ prototypes.vectors.T)[0]
            yield FileTags(embedded.clip.name, best_labels(prototypes.labels, scores, self.args.top or 5))

    def labelled_rows(self, prototypes: Prototypes, rows) -> Iterator[tuple[tuple[str, float, float], list[Tag]]]:
        """Label embedded stretches by the examples.

        Args:
            prototypes ([`Prototypes`]): of the examples.
            rows (`np.ndarray` of `int`): which.

        Yields:
            File, start and end of each, and its best labels.
        """
        from .similar.nearest import cosines

        for begin in range(0, len(rows), ROWS_AT_ONCE):
            part = rows[begin : begin + ROWS_AT_ONCE]
            scores = prototypes.scores(cosines(self.library, part, prototypes.vectors))
            for place, of_row in zip(self.library.places(part), scores, strict=True):
                yield place, best_labels(prototypes.labels, of_row, self.args.top or 1)

    def labelled_stretches(self) -> Iterator[FileTags]:
        """Label all that is kept by the examples.

        Yields:
            [`FileTags`] of each file, with a segment for each label of a stretch.
        """
        import numpy as np

        labelled = self.labelled_rows(self.prototypes(), np.arange(len(self.library)))
        for file, of_file in groupby(labelled, key=lambda each: each[0][0]):
            segments = [Segment(*place, tag.label, tag.score) for place, tags in of_file for tag in tags]
            yield FileTags(file, [], segments)

    def draw_map(self):
        """Draw what is kept, and say where the picture is.

        Raises:
            LibraryError: if there is too little.
        """
        from .similar.maps import draw_map, map_points, map_rows

        method = self.args.map_method or MAPS[0]
        rows = map_rows(self.library, method)
        if self.args.examples is None:
            groups = [Path(file).parent.name for file, _, _ in self.library.places(rows)]
        else:
            groups = [tags[0].label for _, tags in self.labelled_rows(self.prototypes(), rows)]
        points = map_points(self.library.vectors[rows], method)
        title = f"{Path(os.path.abspath(self.args.library)).name}: {len(rows)} of {len(self.library)} vectors"
        draw_map(points, groups, self.args.map, title)
        print(f"{in_one_line(str(self.args.map))} shows {len(rows)} of {len(self.library)} vectors")


def say(words: str) -> None:
    """Write a line to the error stream.

    Args:
        words (`str`): what it says.
    """
    print(f"ast-similar: {in_one_line(words)}", file=sys.stderr, flush=True)


def best_labels(labels: list[str], scores, top: int) -> list[Tag]:
    """Take the labels with the highest scores.

    Args:
        labels (`list[str]`): all.
        scores (`np.ndarray` of shape `(labels,)`): theirs.
        top (`int`): how many.

    Returns:
        `list[Tag]`, best first.
    """
    return [Tag(labels[number], float(scores[number])) for number in (-scores).argsort(kind="stable")[:top]]


if __name__ == "__main__":
    sys.exit(main())

"""Command line of [`modeling_ast.tagging.tagger`]: `ast-tag AUDIO_OR_FOLDER ... --model_name_or_path DIR`.

Results go to standard output or a file, errors to standard error; [`modeling_ast.tagging.formats`] has the formats.
"""

import argparse
import json
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from itertools import chain, islice
from pathlib import Path

from .system.installation import DISTRIBUTION, install_command, package_version
from .system.names_as_text import in_one_line
from .system.regular_files import what_is_special
from .system.run_lock import LockedError, hold_lock
from .system.terminal import FAILED, ended_by, exit_code_of, shell_command
from .tagging.clock_time import start_time
from .tagging.embedding_files import as_text, index_file, writing_embeddings
from .tagging.flags import LIVE, make_parser, parse_arguments
from .tagging.formats import FORMATS, TagFormat, with_safe_names
from .tagging.label_files import check_side_output, label_file_names, plan_pictures, refuse_to_overwrite
from .tagging.progress import TaggingProgress
from .tagging.unfinished import Outcome, OutputError, UnfinishedTags, model_digest, states_of, unfinished_path
from .tagging.written_lines import print_lines, write_lines

LARGE_FILE = 1 << 24  # bytes, as of a quarter of an hour of MP3 or three minutes of FLAC
# Short files whose results are kept together, so that few batches are left half empty: so many, or so many bytes.
SHORT_FILES, SHORT_BYTES = 256, 1 << 22


@shell_command("ast-tag")
def main(argv: list[str] | None = None) -> int:
    """Tag the files named on the command line.

    Args:
        argv (`list[str]`, *optional*): arguments after the program's name, by default those of the process.

    Returns:
        0; 1 if a file could not be tagged, or nothing could for a failure; wrong arguments end the program with 2.
    """
    parser = make_parser()
    args = parse_arguments(parser, argv)

    from .audio import AudioError
    from .checkpoints.fields import CheckpointError
    from .tagging.tagger import TaggingError

    try:
        if args.audio == [LIVE] or args.microphone is not None:
            return print_live(args)
        if args.blocks is not None:
            return write_blocks(args, sys.argv[1:] if argv is None else argv)
        files = files_of(args)
        if args.review is not None:
            return review_files(args, files)
        destinations = plan_output(args.output, args.format, files, args.combine, args.names_folder)
        check_side_output("embeddings_output", args.embeddings_output, args.output)
        args.pictures = plan_pictures(args.picture, files, args.output)
        vectors = args.embeddings_output
        written = {
            "output": [args.output] * (args.output is not None) if destinations is None else [*destinations.values()],
            "embeddings_output": [] if vectors is None else [vectors, index_file(vectors)],
            "picture": [*args.pictures.values()],
        }
        refuse_to_overwrite(files, written)
        to_file = args.output is not None
        failed = write_results(args, files, destinations) if to_file else print_results(args, files)
    except (AudioError, CheckpointError, TaggingError, OutputError, LockedError) as error:
        if exit_code_of(error) == FAILED:
            return ended_by("ast-tag", error, in_one_line(str(error)))
        parser.error(in_one_line(str(error)))
    if to_file:
        print(f"Tagged {len(files) - failed} of {len(files)} files; the tags are in {in_one_line(str(args.output))}")
    return 1 if failed else 0


def files_of(args: argparse.Namespace) -> list[Path]:
    """List what was asked for, and load the data set if it is one.

    Args:
        args (`argparse.Namespace`): what was asked for; `data_set` is set.

    Returns:
        `list[Path]`: files, or what the recordings of the data set are called.

    Raises:
        AudioError: see [`tagged_files`] and [`load_data_set`].
    """
    if args.dataset_name is not None:
        from .tagging.data_sets import load_data_set

        args.data_set = load_data_set(
            args.dataset_name, args.dataset_config_name, args.split_name, args.audio_column_name
        )
        return args.data_set.files
    from .tagging.sources import tagged_files

    left_out = []
    files = tagged_files(args.audio, args.files_from, left_out)
    for words in left_out:
        print(f"ast-tag: {in_one_line(words)}", file=sys.stderr)
    return files


def format_of(args: argparse.Namespace) -> TagFormat:
    """Look up how results are written.

    Args:
        args (`argparse.Namespace`): what was asked for.

    Returns:
        [`TagFormat`]: the row of `FORMATS`, or what `--combine` makes of it.
    """
    row = FORMATS[args.format]
    return row.combined if args.combine else row


def plan_output(
    output: Path | None, output_format: str, files: list[Path], combine: bool = False, names_folder: bool = False
) -> dict[str, Path] | None:
    """Decide where a format with one label file for each audio file writes, before any work is done.

    Args:
        output (`Path`, *optional*): what was passed as `--output`.
        output_format (`str`): one of `FORMATS`.
        files (`list[Path]`): the audio files.
        combine (`bool`, defaults to `False`): whether one file is made for all of them.
        names_folder (`bool`, defaults to `False`): whether `output` is a folder, made if it is not there: it was typed with a
            separator at its end.

    Returns:
        The label file of each audio file, or `None` if all results go to one place.

    Raises:
        OutputError: if several label files have no folder to go to or the same name, or `output` is in no folder.
    """
    if output is not None and what_is_special(output):
        raise OutputError(
            f"--output {output} is no file but a device, a pipe, a socket or a link in a circle. Pass the name of a file, or "
            "leave it out to print."
        )
    suffix = None if combine else FORMATS[output_format].label_file_suffix
    if names_folder and (output.is_file() or (suffix is None and not output.is_dir())):
        raise OutputError(
            f"--output {output}{os.sep} names a folder, but {f'{output} is a file' if output.is_file() else 'everything goes to one file'}. "
            f"Type --output {output}, or pass another name."
        )
    is_folder = output is not None and (names_folder or output.is_dir())
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
            f"--output with the name of a folder{', or --combine' * (FORMATS[output_format].combined is not None)}."
        )
    destinations = {}
    for file, name in label_file_names(files, suffix).items():
        if output / name in destinations.values():
            raise OutputError(
                f"Two audio files, {file} among them, would be written to {output / name}. Tag them apart."
            )
        destinations[file] = output / name
    output.mkdir(parents=True, exist_ok=True)
    return destinations


def print_results(args: argparse.Namespace, files: list[Path]) -> int:
    """Tag files and print what is found.

    Args:
        args (`argparse.Namespace`): what was asked for.
        files (`list[Path]`): the audio files.

    Returns:
        How many files could not be tagged.
    """
    tagger = load_tagger(args)
    # On a terminal that shows the results a bar would stand between them.
    states = (states_of if args.data_set is None else args.data_set.states)(files)
    progress = TaggingProgress(files, [size for _, size, _ in states], hidden=sys.stdout.isatty())
    outcomes = tag(args, tagger, files, progress)
    failed = 0

    def found() -> Iterator[str]:
        nonlocal failed
        for outcome in outcomes:
            print_lines(outcome.said, sys.stderr)
            failed += outcome.failed
            add_embeddings(outcome.embeddings)
            progress.tagged(1)
            yield from outcome.lines

    with (
        progress,
        writing_embeddings(args.embeddings_output, tagger.config.hidden_size, args.embeddings_dtype) as add_embeddings,
    ):
        print_lines(header_lines(args))
        print_lines(finished(args, found()))
    return failed


def print_live(args: argparse.Namespace) -> int:
    """Tag sound from standard input or a microphone: windows as they come on standard error, the results at its end.

    Args:
        args (`argparse.Namespace`): what was asked for.

    Returns:
        The exit code.

    Raises:
        KeyboardInterrupt: again, if that ended it, when the results are printed.
    """
    from .tagging.live import tag_microphone, tag_standard_input
    from .tagging.results import with_novel_segments

    def say(line: str):
        print(f"ast-tag: {line}", file=sys.stderr, flush=True)

    tagger, settings = load_tagger(args), settings_of(args)
    if args.microphone is None:
        result, interruption = tag_standard_input(tagger, say, **settings)
    else:
        result, interruption = tag_microphone(tagger, args.microphone or None, say, **settings)
    outcome = outcome_of(with_novel_segments(result), args)
    print_lines(outcome.said, sys.stderr)
    print_lines(chain(header_lines(args), finished(args, outcome.lines)))
    if interruption is not None:
        raise interruption
    return 1 if outcome.failed else 0


def review_files(args: argparse.Namespace, files: list[Path]) -> int:
    """Tag files, and write clips of them for a person to judge.

    Args:
        args (`argparse.Namespace`): what was asked for.
        files (`list[Path]`): the audio files.

    Returns:
        The exit code.

    Raises:
        OutputError, TaggingError: see [`check_review_folder`] and [`write_review`].
    """
    from .tagging.review import check_review_folder, review_of, words_of_review, write_review

    check_review_folder(args.review)
    tagger = load_tagger(args)
    settings = settings_of(args)
    review, failed = review_of(tagger, args.per_label, **settings), 0
    with TaggingProgress(files, [size for _, size, _ in states_of(files)]) as progress:
        for result in tagger.tag_files(files, **settings, faint=True, progress=progress.heard):
            outcome = outcome_of(result, args)
            print_lines(outcome.said, sys.stderr)
            failed += outcome.failed
            review.add(result)
            progress.tagged(1)
    clips, said = write_review(review, args.review)
    print_lines((f"ast-tag: {in_one_line(words)}" for words in said), sys.stderr)
    print(in_one_line(words_of_review(review, clips, args.review)))
    return 1 if failed or said else 0


def write_results(args: argparse.Namespace, files: list[Path], destinations: dict[str, Path] | None) -> int:
    """Tag files into `--output`, where an interrupted run of the same command ended.

    Args:
        args (`argparse.Namespace`): what was asked for.
        files (`list[Path]`): the audio files.
        destinations (`dict[str, Path]`, *optional*): their label files, if each has one.

    Returns:
        How many files could not be tagged.

    Raises:
        LockedError: if another process writes there.
        OSError: if something cannot be written; what was tagged before is kept.
    """
    inside = args.output.is_dir()
    with hold_lock(args.output, "ast-tag", inside), UnfinishedTags(unfinished_path(args.output)) as unfinished:
        tagger = load_tagger(args)
        tag(args, tagger, [])  # arguments that are refused do not make an earlier run void
        changed = unfinished.begin(identity_of(args, tagger))
        if changed:
            words = f"{unfinished.path} is of a run with another {', '.join(changed)}; starting anew."
            print(f"ast-tag: {in_one_line(words)}", file=sys.stderr)
        look = states_of if args.data_set is None else args.data_set.states
        groups = groups_of(files, tagger.windows_at_once(args.batch_size), args.batch_size or SHORT_FILES, look)
        states = [look(group) for group in groups]
        kept = [unfinished.outcomes(state) is not None for state in states]
        done = sum(len(group) for group, is_kept in zip(groups, kept, strict=True) if is_kept)
        if done:
            print(f"{done} of {len(files)} files were tagged already by an interrupted run", flush=True)
        sizes = [size for state in states for _, size, _ in state]
        done_bytes = sum(size for state, is_kept in zip(states, kept, strict=True) if is_kept for _, size, _ in state)
        failed = 0
        try:
            with (
                writing_embeddings(
                    args.embeddings_output, tagger.config.hidden_size, args.embeddings_dtype
                ) as add_embeddings,
                TaggingProgress(files, sizes, done, done_bytes) as progress,
            ):
                for group, state, is_kept in zip(groups, states, kept, strict=True):
                    # Each by itself: whoever goes on after an interruption gets the same batches.
                    outcomes = unfinished.outcomes(state) if is_kept else list(tag(args, tagger, group, progress))
                    for outcome in outcomes:
                        print_lines(outcome.said, sys.stderr)
                        failed += outcome.failed
                        add_embeddings(outcome.embeddings)
                    if destinations is not None:
                        write_label_files(args, group, outcomes, destinations, keep=is_kept)
                    if not is_kept:
                        unfinished.add(state, outcomes)
                        done += len(group)
                        progress.tagged(len(group))
            if destinations is None:
                found = (line for state in states for outcome in unfinished.outcomes(state) for line in outcome.lines)
                write_found(args, found, args.output)
        except BaseException as error:
            words = f"{done} of {len(files)} files are tagged, in {unfinished.path}; the same command goes on there."
            if done and isinstance(error, KeyboardInterrupt):
                error.add_note(in_one_line(words))  # which is told with the signal
            elif done:
                print(f"ast-tag: {in_one_line(words)}", file=sys.stderr)
            raise
        unfinished.is_complete = True
    return failed


def groups_of(
    files: list[Path], at_once: int, at_most: int, look: Callable[[Sequence[Path]], list] = states_of
) -> list[list[Path]]:
    """Divide files into groups whose results are kept together.

    Args:
        files (`list[Path]`): the audio files.
        at_once (`int`): files of a group, if they are not short.
        at_most (`int`): files of a group of short ones.
        look (callable, *optional*): what looks at them, [`states_of`] or another like it.

    Returns:
        `list[list[Path]]`: in their order; a large file ends its group, so that its results do not wait for others.
    """
    groups: list[list[Path]] = [[]]
    held = 0
    for file, (_, size, _) in zip(files, look(files), strict=True):
        groups[-1].append(file)
        held += size
        count = len(groups[-1])
        if size > LARGE_FILE or count >= at_most or (count >= at_once and held > SHORT_BYTES):
            groups.append([])
            held = 0
    return groups[:-1] if not groups[-1] else groups


def write_blocks(args: argparse.Namespace, command: list[str]) -> int:
    """Tag files into `--blocks`, block by block, in one process or several, where an interrupted run ended.

    Args:
        args (`argparse.Namespace`): what was asked for.
        command (`list[str]`): the command's arguments.

    Returns:
        The exit code.

    Raises:
        OutputError: if the folder is of another run, or of none.
        TaggingError: see [`place_of_process`] and [`workers_of`].
        OSError: if something cannot be written; blocks that are there are kept.
    """
    from .tagging.ahead import threads_beside
    from .tagging.block_lists import rows_of
    from .tagging.block_processes import end_without, in_processes, is_launched, place_of_process
    from .tagging.block_runs import FAILED, TAGS, BlockFolder, BlockProgress, tag_missing
    from .tagging.errors import TaggingError

    place = place_of_process(args.device)
    if place.world > 1 and args.files_from == LIVE:
        raise TaggingError(
            "--files_from -: several processes cannot read one standard input. Pass the name of a file."
        )
    workers = workers_of(args, place.world)
    tagger = load_tagger(args)
    on_cpu = getattr(tagger.device, "type", tagger.device) == "cpu"
    tagger.decoding_threads = threads_beside(place.of_machine * workers, on_cpu)
    args.pictures = {}
    tag(args, tagger, [])  # arguments that are refused make no folder
    row = FORMATS[args.format]
    has_header = row.header is not None and row.write is None
    folder = BlockFolder(args.blocks, f".{row.suffix}", has_header, args.embeddings is not None)
    run = identity_of(args, tagger) | {"device": getattr(tagger.device, "type", tagger.device)}

    def say(words: str):
        if place.rank == 0:
            print(f"ast-tag: {in_one_line(words)}", file=sys.stderr)

    listed = folder.begin(run, partial(rows_of, args.audio, args.files_from, say), args.block_size, command)
    parent = os.getpid()

    def work(number: int):
        progress = BlockProgress(folder, listed, is_shown=place.rank == number == 0)

        def tag_block(block: int):
            def outcomes() -> Iterator[Outcome]:
                for outcome in tag(args, tagger, listed.rows(block)):
                    end_without(parent)
                    progress.file()
                    yield outcome

            write_block(args, tagger, folder, block, listed, outcomes())
            progress.block()

        with progress:
            tag_missing(folder, len(listed), tag_block, place.rank * workers + number, place.world * workers)

    try:
        in_processes(work, workers)
    except KeyboardInterrupt as error:
        words = f"{args.blocks} has what is tagged, and the same command goes on there."
        error.add_note(in_one_line(words))
        raise
    missing = len(folder.missing(len(listed)))
    if missing or not folder.merge(len(listed)):
        words = (
            f"{missing} of {len(listed)} blocks are with other processes"
            if missing
            else "Another process ends the run"
        )
        print(f"{words}; if they are ended, the same command goes on in {in_one_line(str(args.blocks))}")
        return 0
    failed = folder.number_failed()
    where = f"the tags are in {folder.merged(TAGS)}"
    if failed:
        where += f", and why {failed} could not be tagged in {folder.merged(FAILED)}"
    print(in_one_line(f"Tagged {listed.number - failed} of {listed.number} files; {where}"))
    return 1 if failed and not is_launched() else 0  # which a launcher would take for a process that broke down


def workers_of(args: argparse.Namespace, world: int) -> int:
    """Tell how many processes this one is to be, and have each of several keep to one thread.

    What a block's scores are depends in the last digits on the number of threads: it is one on a CPU, however many processes there
    are.

    Args:
        args (`argparse.Namespace`): what was asked for.
        world (`int`): how many processes a launcher started.

    Returns:
        `int`.

    Raises:
        TaggingError: if several were asked for and cannot be.
    """
    from .tagging.ahead import processors
    from .tagging.backends import choose_device, is_onnx
    from .tagging.errors import TaggingError

    check_pytorch(args.model_name_or_path, False)
    why = None
    if world > 1:
        why = "accelerate launch starts the processes (--num_processes)"
    elif any(map(is_onnx, args.model_name_or_path)):
        why = "ONNX Runtime has its own threads"
    elif args.compile:
        why = "--compile makes a program for one process"
    elif choose_device(args.device).type != "cpu":
        why = "processes would share the device; accelerate launch gives each its own"
    elif "fork" not in multiprocessing.get_all_start_methods():
        why = "this system cannot fork processes"
    if why is not None and (args.workers or 1) > 1:
        raise TaggingError(f"--workers {args.workers}: {why}. Leave it out.")
    if find_spec("torch") is not None:
        import torch

        if choose_device(args.device).type == "cpu":
            torch.set_num_threads(1)
    return (args.workers or processors()) if why is None else 1


def write_block(args: argparse.Namespace, tagger, folder, block: int, listed, outcomes: Iterable[Outcome]) -> None:
    """Write the parts of a block: vectors, if any, notes, what could not be tagged, and last the tags.

    Args:
        args (`argparse.Namespace`): what was asked for.
        tagger ([`AudioTagger`]): the model.
        folder ([`BlockFolder`]): of the run.
        block (`int`): its number.
        listed ([`BlockList`]): the list of files.
        outcomes (iterable of [`Outcome`]): one for each of the block's files.
    """
    from .tagging.block_runs import EMBEDDINGS, FAILED, NOTES, TAGS

    lines, notes, failed = [], [], []
    vectors = folder.part(EMBEDDINGS, block) if folder.has_embeddings else None
    hidden_size = tagger.config.hidden_size if folder.has_embeddings else 0
    with writing_embeddings(vectors, hidden_size, args.embeddings_dtype) as add_embeddings:
        first = block * listed.block_size
        for row, (file, outcome) in enumerate(zip(listed.rows(block), outcomes, strict=True), first):
            lines += outcome.lines
            add_embeddings(outcome.embeddings)
            about = {"row": row, "file": file}
            for words in outcome.said:
                kind, found = ("error", failed) if words == outcome.error else ("note", notes)
                found.append(json.dumps(about | {kind: words.removeprefix("ast-tag: ")}))
    write_lines(notes, folder.part(NOTES, block))
    write_lines(failed, folder.part(FAILED, block))
    write_found(args, lines, folder.part(TAGS, block))


def write_label_files(
    args: argparse.Namespace, files: list[Path], outcomes: list[Outcome], destinations: dict[str, Path], keep: bool
) -> None:
    """Write the label files of a group of audio files, but for those that could not be tagged.

    Args:
        args (`argparse.Namespace`): what was asked for.
        files (`list[Path]`): the audio files.
        outcomes (`list[Outcome]`): what was found in each.
        destinations (`dict[str, Path]`): label files by audio file.
        keep (`bool`): whether those that are there are this run's own and stay.
    """
    for file, outcome in zip(files, outcomes, strict=True):
        destination = destinations[str(file)]
        if not outcome.failed and not (keep and destination.exists()):
            write_found(args, outcome.lines, destination)


def load_tagger(args: argparse.Namespace):
    """Load the models that were asked for.

    Args:
        args (`argparse.Namespace`): what was asked for.

    Returns:
        [`AudioTagger`], or an [`EnsembleTagger`] of several.
    """
    from .audio import HEARD_LESS
    from .tagging.ensemble import EnsembleTagger
    from .tagging.tagger import AudioTagger

    refused = HEARD_LESS if args.strict_audio else frozenset()
    chosen = (None if args.channels == "each" else args.channels, refused, args.tokens_merged_per_layer, args.compile)
    models = args.model_name_or_path
    check_pytorch(models, args.picture is not None)
    if len(models) > 1:
        tagger = EnsembleTagger.from_pretrained(models, args.device, *chosen, frame_heads=True)
    else:
        tagger = AudioTagger.from_pretrained(models[0], args.device, *chosen, frame_heads=True)
    args.tells_novelty = tagger.farthest_known(args.none_of_these) is not None
    return tagger


def check_pytorch(models: Iterable[str | Path], pictures: bool) -> None:
    """Say what to do where PyTorch is wanted in an environment that was made without it.

    Args:
        models (iterable of `str` or `Path`): folders, names and files as they were given.
        pictures (`bool`): whether pictures are to be drawn.

    Raises:
        TaggingError: if it is wanted and not installed.
    """
    from .tagging.backends import is_onnx
    from .tagging.errors import TaggingError

    if find_spec("torch") is not None:
        return
    folders = [model for model in models if not is_onnx(model)]
    if folders:
        raise TaggingError(
            f"{folders[0]} runs in PyTorch, which is not installed here. Pass a file that ast-export --waveform made of it, or "
            f"type: {install_command()}"
        )
    if pictures:
        raise TaggingError(
            f"--picture needs PyTorch and Matplotlib, which are not installed here. Leave it out, or type: {install_command()}"
        )


def tag(
    args: argparse.Namespace, tagger, files: list[Path], progress: TaggingProgress | None = None
) -> Iterator[Outcome]:
    """Tag files; arguments that do not fit the model are refused at once.

    Args:
        args (`argparse.Namespace`): what was asked for.
        tagger ([`AudioTagger`]): the model.
        files (`list[Path]`): the audio files, or what recordings of the data set are called.
        progress ([`TaggingProgress`], *optional*): is told what is heard.

    Returns:
        An iterator over an [`Outcome`] for each file.
    """
    from .tagging.results import with_novel_segments

    results = tagger.tag_files(
        files if args.data_set is None else args.data_set.sources(files),
        **settings_of(args),
        each_channel=args.channels == "each",
        progress=None if progress is None else progress.heard,
    )
    results = map(with_novel_segments, results)
    if args.channels != "each":
        return (outcome_of(with_picture(result, args, tagger), args) for result in results)
    by_file = ([first, *islice(results, first.results_of_file - 1)] for first in results)
    return (outcome_of_channels(of_file, args) for of_file in by_file)


def outcome_of_channels(results: list, args: argparse.Namespace) -> Outcome:
    """Lay out what was found in each channel of a file.

    Args:
        results (`list[FileTags]`): one for each channel.
        args (`argparse.Namespace`): what was asked for.

    Returns:
        [`Outcome`] of the file.
    """
    from .tagging.results import with_channels_together

    if args.combine or FORMATS[args.format].label_file_suffix is not None:  # which hold a file, not a channel
        return outcome_of(with_channels_together(results), args)
    outcomes = [outcome_of(result, args) for result in results]
    lines, said = ([line for outcome in outcomes for line in getattr(outcome, name)] for name in ("lines", "said"))
    error = next((outcome.error for outcome in outcomes if outcome.failed), None)
    return Outcome(lines, list(dict.fromkeys(said)), error is not None, error=error)


def settings_of(args: argparse.Namespace) -> dict:
    """Name what was asked for as [`AudioTagger.tag_files`] and [`AudioTagger.tag_stream`] take it.

    Args:
        args (`argparse.Namespace`): what was asked for.

    Returns:
        Keyword arguments.
    """
    same = ("top_k", "batch_size", "timeline", "hop", "threshold", "segments", "off", "min_duration", "close_gaps")
    settings = {
        name: getattr(args, name)
        for name in (*same, "median_filter", "embeddings", "window", "silence_db", "none_of_these")
    }
    return settings | {"reduction": args.reduce}


def with_picture(result, args: argparse.Namespace, tagger):
    """Draw the picture of a tagged file, if one was asked for.

    Args:
        result ([`FileTags`]): what was found in the file.
        args (`argparse.Namespace`): what was asked for.
        tagger ([`AudioTagger`]): the model.

    Returns:
        [`FileTags`]: the same, or with an error if the file is gone meanwhile.
    """
    if result.error is not None or not args.pictures:
        return result
    from .audio import AudioError
    from .tagging.timeline_pictures import picture_of

    try:
        picture_of(tagger, result, args.pictures[result.file])
    except AudioError as error:
        return replace(result, error=str(error))
    return result


def outcome_of(result, args: argparse.Namespace) -> Outcome:
    """Lay out what was found in a file; notes on what was heard of it go to standard error, whatever the format.

    Args:
        result ([`FileTags`]): what was found in the file.
        args (`argparse.Namespace`): what was asked for.

    Returns:
        [`Outcome`].
    """
    said = [f"ast-tag: {in_one_line(note.text)}" for note in result.notes]
    failed = result.error is not None
    error = f"ast-tag: {in_one_line(result.error)}" if failed else None
    if failed:
        said.append(error)
        if not result.labels:
            return Outcome(said=said, failed=True, error=error)
    named = with_safe_names(result) if args.spreadsheet_safe else result
    if args.start_time != "none":
        named = replace(named, began=start_time(result.file, args.start_time))
        if named.began.at is None:
            place = "name" if args.start_time == "from_name" else "header"
            words = f"{result.file} has no date and time of a recorder in its {place}; its rows have none."
            said.append(f"ast-tag: {in_one_line(words)}")
    embeddings = None if result.embeddings is None else as_text(result.file, result.embeddings)
    return Outcome(list(format_of(args).lines(named)), said, failed, embeddings, error)


def identity_of(args: argparse.Namespace, tagger) -> dict:
    """Name all that results depend on besides the files, as it is told where it changed.

    Args:
        args (`argparse.Namespace`): what was asked for.
        tagger ([`AudioTagger`]): the model.

    Returns:
        Texts and numbers by name.
    """
    options = (
        "format",
        "combine",
        "start_time",
        "timeline",
        "top_k",
        "batch_size",
        "hop",
        "threshold",
        "segments",
        "strict_audio",
        "channels",
        "reduce",
        "window",
        "silence_db",
    )
    more = (
        "embeddings",
        "off",
        "min_duration",
        "close_gaps",
        "median_filter",
        "spreadsheet_safe",
        "tokens_merged_per_layer",
        "compile",
        "picture",
        "none_of_these",
        "embeddings_dtype",
        "dataset_name",
        "dataset_config_name",
        "split_name",
        "audio_column_name",
    )
    flags = {f"--{name}": getattr(args, name) for name in (*options, *more)}
    flags["--picture"] = None if args.picture is None else str(args.picture)
    versions = {f"version of {name}": package_version(name) for name in (DISTRIBUTION, "torch", "transformers")}
    return {"model": model_digest(tagger), "device": str(tagger.device)} | flags | versions


def header_lines(args: argparse.Namespace) -> list[str]:
    """Lay out what a file of results begins with.

    Args:
        args (`argparse.Namespace`): what was asked for.

    Returns:
        A line, or none.
    """
    header = format_of(args).header
    if header is None:
        return []
    clock_time = (args.start_time != "none",) if format_of(args).clock_time else ()
    channel = (args.channels == "each",) if format_of(args).channel_column else ()
    novelty = (args.tells_novelty,) if format_of(args).novelty_columns else ()
    return [header(args.timeline, *clock_time, *channel, *novelty)]


def finished(args: argparse.Namespace, lines: Iterable[str]) -> Iterable[str]:
    """Make what is written of the lines of all files, as they come.

    Args:
        args (`argparse.Namespace`): what was asked for.
        lines (iterable of `str`): of the files, in their order, without line ends.

    Returns:
        Lines without line ends and without a header.
    """
    finish = format_of(args).finish
    return lines if finish is None else finish(lines)


def write_found(args: argparse.Namespace, lines: Iterable[str], destination: Path) -> None:
    """Write a file of results, which appears under its name only when it is complete.

    Args:
        args (`argparse.Namespace`): what was asked for.
        lines (iterable of `str`): of the files whose results it holds, without line ends.
        destination (`Path`): the file.
    """
    whole = chain(header_lines(args), finished(args, lines))
    write = format_of(args).write or write_lines
    write(whole, destination)


if __name__ == "__main__":
    sys.exit(main())

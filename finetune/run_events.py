"""`ast-events PREDICTED --reference MARKED`: how well the events of recordings were found."""

import argparse
import json
import sys

from modeling_ast.system.atomic_files import open_atomically
from modeling_ast.system.flags import FlagParser
from modeling_ast.system.terminal import ended_by, shell_command
from modeling_ast.tagging.none_of_these import NONE_OF_THESE

PROGRAM = "ast-events"
HEADER = ("", "marked", "found", "event F1", "precision", "recall", "segment F1", "false/h")


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line.

    Args:
        argv (`list[str]`, *optional*): arguments after the program's name, by default those of the process.

    Returns:
        `argparse.Namespace`.
    """
    parser = FlagParser(
        prog=PROGRAM,
        description="Score the events that ast-tag --timeline, or anything else, found in recordings: F1 by events and by segments, "
        "false alarms per hour, per label and per recording.",
        epilog="Example: ast-events tags.csv --reference marked.csv --audio_dir recordings",
    )
    parser.add_argument("predicted", metavar="PREDICTED", help="table of what was found: file, start, end, label")
    parser.add_argument(
        "--reference",
        required=True,
        metavar="MARKED",
        help="table of what is marked, likewise; a row with a file alone is a recording in which nothing is. Or a folder of "
        "recordings with files of marks beside them",
    )
    parser.add_argument(
        "--collar", type=float, default=0.2, help="seconds by which start and end may be off (default 0.2)"
    )
    parser.add_argument(
        "--length_share",
        type=float,
        default=0.2,
        help="share of the marked event's length by which the end may be off, where that is more (default 0.2)",
    )
    parser.add_argument(
        "--segment", type=float, default=1.0, help="seconds of a segment of the F1 by segments (default 1)"
    )
    parser.add_argument("--labels", nargs="+", help="score these labels alone")
    parser.add_argument(
        "--audio_dir",
        help="folder of the recordings, for their lengths, where no table has a column duration and the paths lead nowhere",
    )
    parser.add_argument(
        "--scores",
        help="table of the scores of windows, for PSDS: file, start, end, label, score, a row for each label",
    )
    parser.add_argument("--output", metavar="FILE.json", help="write all scores to this file, too")
    return parser.parse_args(argv)


@shell_command(PROGRAM)
def main(argv: list[str] | None = None) -> int:
    """Run the command.

    Args:
        argv (`list[str]`, *optional*): arguments after the program's name, by default those of the process.

    Returns:
        `int`: 0; 2 for wrong input and 1 for a failure, both of which are answered on the error stream.
    """
    arguments = parse_arguments(argv)
    try:
        results = score_tables(arguments)
    except (OSError, ValueError, ImportError) as error:
        return ended_by(PROGRAM, error, reading=True)
    print("\n".join(lines_of(results)))
    if arguments.output:
        try:
            with open_atomically(arguments.output) as file:
                file.write(
                    f"{json.dumps(results, indent=1, ensure_ascii=False)}\n".encode("utf-8", "backslashreplace")
                )
        except OSError as error:
            return ended_by(PROGRAM, error)
        print(f"Scores: {arguments.output}")
    return 0


def score_tables(arguments: argparse.Namespace) -> dict:
    """Read the tables and score them.

    Args:
        arguments (`argparse.Namespace`): from [`parse_arguments`].

    Returns:
        `dict`: see [`score_events`]; with `psds` where there are scores.

    Raises:
        EventTableError: for tables that cannot be scored as they are.
        DataError: for a folder whose marks cannot be taken as they are.
    """
    from .scores.event_scores import EventRule, psds, score_events
    from .scores.event_tables import EventTable, durations_of, matched, read_events, read_scores, refuse_beyond_end

    rule = EventRule(arguments.collar, arguments.length_share, arguments.segment)
    reference, predicted = read_events(arguments.reference), read_events(arguments.predicted)
    names = matched(reference.events, predicted.events, predicted.name)
    # What ast-tag says of sounds that are none of the labels is about none that is marked.
    no_label = {NONE_OF_THESE} - set(reference.labels)
    predicted = EventTable(
        predicted.name,
        {
            names[file]: [event for event in events if event.label not in no_label]
            for file, events in predicted.events.items()
        },
        {names[file]: seconds for file, seconds in predicted.durations.items()},
    )
    durations = durations_of(reference.events, predicted.durations | reference.durations, arguments.audio_dir)
    for table in (reference, predicted):
        refuse_beyond_end(table, durations)
    results = score_events(reference, predicted, durations, rule, arguments.labels)
    if arguments.scores:
        scores = read_scores(arguments.scores)
        names = matched(reference.events, scores, arguments.scores)
        results["psds"] = psds(reference, {names[file]: table for file, table in scores.items()}, durations)
    return results


def lines_of(results: dict) -> list[str]:
    """Write scores as a table.

    Args:
        results (`dict`): from [`score_tables`].

    Returns:
        `list[str]`: lines.
    """
    rows = [(label, row) for label, row in results["per_label"].items()]
    if len(results["per_recording"]) > 1:
        rows += [(file, row) for file, row in results["per_recording"].items()]
    table = [HEADER, *(_cells(name, row) for name, row in rows)]
    widths = [max(len(row[place]) for row in table) for place in range(len(HEADER))]
    lines = [
        f"{row[0]:<{widths[0]}}  "
        + "  ".join(f"{cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=True))
        for row in table
    ]
    for kind in ("event", "segment"):
        scores = results[f"{kind}_based"]
        lines.append(
            f"{kind}-based: F1 {_shown(scores['micro']['f1'])} of all together (micro), {_shown(scores['macro_f1'])} as the mean of "
            f"{scores['labels_in_macro']} labels (macro)"
        )
    if results["neither"]:
        lines.append(f"neither marked nor found, and not in the mean: {', '.join(results['neither'])}")
    if results["hours"] is None:
        lines.append("false alarms per hour: unknown, as not all recordings have a known length (--audio_dir)")
    else:
        lines.append(f"false alarms per hour: {results['false_alarms_per_hour']:.2f} in {results['hours']:.2f} h")
    if "psds" in results:
        lines.append(f"PSDS: {results['psds']['psds1']:.3f} (scenario 1), {results['psds']['psds2']:.3f} (scenario 2)")
    return lines


def _cells(name: str, row: dict) -> tuple[str, ...]:
    events = row["event_based"]
    values = (events["f1"], events["precision"], events["recall"], row["segment_based"]["f1"])
    alarms = row["false_alarms_per_hour"]
    shown = "-" if alarms is None else f"{alarms:.2f}"
    return (name, str(row["marked"]), str(row["found"]), *map(_shown, values), shown)


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


if __name__ == "__main__":
    sys.exit(main())

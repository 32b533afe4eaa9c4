"""Reads every format of `ast-tag` with readers that others wrote, and prints what each of them finds.

    python -m benchmarks.tag_formats_readers

The readers are crowsetta, sed_eval, praat-parselmouth, praatio, textgrid, pandas, fastparquet and duckdb, in whatever
Python has them; those that are not installed are left out by name. It needs nothing of this kit that imports torch. What
a reader finds otherwise than it was written ends the run with 1.
"""

import importlib
import json
import math
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

from modeling_ast.tagging.formats import FORMATS

SECONDS = 10.2375
# Start, end, label and score: an ordinary name, a quote, a comma, letters beyond ASCII, segments that overlap.
SEGMENTS = [
    (0.0, 1.5, "kick", 0.875),
    (0.5, 2.25, 'tom "floor"', 0.75),
    (2.0, 3.0, "clap, hands", 0.5),
    (2.5, 3.5, "dob és őr", 0.5),
    (4.0, SECONDS, "kick", 0.625),
]
PLACES = [(start, end, label) for start, end, label, _ in SEGMENTS]


@dataclass(frozen=True)
class Segment:
    """The fields of a segment that `AudioTagger` gives."""

    start: float
    end: float
    label: str
    score: float
    channel: int | None = None


def tagged(file: str) -> SimpleNamespace:
    """What a file of 10 s holds, with the fields that `AudioTagger` gives."""
    segments = [Segment(*row) for row in SEGMENTS]
    more = {"channel": None, "of_each_channel": False, "began": None, "notes": (), "novelty": None}
    return SimpleNamespace(file=file, labels=[], segments=segments, seconds=SECONDS, highest_frequency=8000.0, **more)


def write(folder: Path) -> dict[str, Path]:
    """A file in each format, and of two recordings where a format can be combined."""
    paths = {}
    for name, row in FORMATS.items():
        for kind, some in ((name, row), (f"{name} combined", row.combined)):
            if some is None:
                continue
            path = folder / f"{kind.replace(' ', '_')}{row.label_file_suffix or '.' + name}"
            files = ["a.wav", "b.wav"] if some is row.combined else ["a.wav"]
            lines = [line for file in files for line in some.lines(tagged(file))]
            lines = [*([some.header(True)] if some.header else []), *(some.finish(lines) if some.finish else lines)]
            if some.write:
                some.write(lines, path)
            else:
                path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
            paths[kind] = path
    return paths


def rows_of_pandas(table, start="start", end="end", label="label") -> list[tuple]:
    return list(zip(table[start], table[end], table[label], strict=True))


def by_crowsetta(path: Path) -> list[tuple]:
    import crowsetta

    table = crowsetta.formats.bbox.Raven.from_file(path).df
    assert set(table["low_freq_hz"]) == {0.0}
    assert set(table["high_freq_hz"]) == {8000.0}
    return rows_of_pandas(table, "begin_time_s", "end_time_s", "annotation")


def grid_by_crowsetta(path: Path) -> list[tuple]:
    import crowsetta

    found = []
    for sequence in crowsetta.formats.seq.TextGrid.from_file(path).to_seq(round_times=False):
        found += zip(sequence.onsets_s, sequence.offsets_s, sequence.labels, strict=True)
    # It leaves a quote doubled, as the file has it.
    return [(start, end, label.replace('""', '"')) for start, end, label in found if label]


def by_sed_eval(path: Path) -> list[tuple]:
    import sed_eval

    # It takes a label with a quote or a comma in it for a list.
    plain = path.with_name("plain.txt")
    lines = path.read_text(encoding="utf-8").splitlines()
    plain.write_text("".join(f"{line}\n" for line in lines if not set(line) & set('",')), encoding="utf-8")
    events = sed_eval.io.load_event_list(str(plain))
    # Its own figures, of these events against themselves.
    metrics = sed_eval.sound_event.EventBasedMetrics(event_label_list=events.unique_event_labels)
    metrics.evaluate(reference_event_list=events, estimated_event_list=events)
    assert metrics.results_overall_metrics()["f_measure"]["f_measure"] == 1
    return [(event.onset, event.offset, event.event_label) for event in events]


def by_parselmouth(path: Path) -> list[tuple]:
    import parselmouth
    from parselmouth.praat import call

    grid = parselmouth.read(str(path))
    found = []
    for tier in range(1, call(grid, "Get number of tiers") + 1):
        for interval in range(1, call(grid, "Get number of intervals", tier) + 1):
            asked = ("Get start time of interval", "Get end time of interval", "Get label of interval")
            found.append(tuple(call(grid, words, tier, interval) for words in asked))
    return [row for row in found if row[2]]


def by_praatio(path: Path) -> list[tuple]:
    from praatio import textgrid

    grid = textgrid.openTextgrid(str(path), includeEmptyIntervals=False, reportingMode="error")
    return [tuple(interval) for tier in grid.tiers for interval in tier.entries]


def by_textgrid(path: Path) -> list[tuple]:
    import textgrid

    grid = textgrid.TextGrid.fromFile(str(path))
    return [(cell.minTime, cell.maxTime, cell.mark) for tier in grid for cell in tier if cell.mark]


def raven_by_pandas(path: Path) -> list[tuple]:
    import pandas

    table = pandas.read_csv(path, sep="\t")
    assert [*table["Begin File"]] == ["a.wav"] * len(SEGMENTS) + ["b.wav"] * len(SEGMENTS)
    times = table["File Offset (s)"]
    return list(zip(times, times + table["End Time (s)"] - table["Begin Time (s)"], table["Annotation"], strict=True))


def by_pandas(path: Path) -> list[tuple]:
    import pandas

    return rows_of_pandas(pandas.read_csv(path))


def json_by_pandas(path: Path) -> list[tuple]:
    import pandas

    table = pandas.read_json(path, lines=True)
    return rows_of_pandas(pandas.DataFrame(table["segments"][0]))


def by_fastparquet(path: Path) -> list[tuple]:
    import fastparquet

    return rows_of_pandas(fastparquet.ParquetFile(str(path)).to_pandas())


def by_duckdb(path: Path) -> list[tuple]:
    import duckdb

    return duckdb.sql(f"select start, \"end\", label from '{path}'").fetchall()


READERS: list[tuple[str, str, Callable[[Path], list[tuple]], list[tuple]]] = [
    ("raven", "crowsetta", by_crowsetta, PLACES),
    ("raven combined", "pandas", raven_by_pandas, PLACES * 2),
    ("audacity", "sed_eval", by_sed_eval, [place for place in PLACES if not set(place[2]) & set('",')]),
    ("textgrid", "crowsetta", grid_by_crowsetta, PLACES),
    ("textgrid", "parselmouth", by_parselmouth, PLACES),
    ("textgrid", "praatio", by_praatio, PLACES),
    ("textgrid", "textgrid", by_textgrid, PLACES),
    ("csv", "pandas", by_pandas, PLACES),
    ("csv", "duckdb", by_duckdb, PLACES),
    ("jsonl", "pandas", json_by_pandas, PLACES),
    ("parquet", "fastparquet", by_fastparquet, PLACES),
    ("parquet", "duckdb", by_duckdb, PLACES),
]


def same(found: list[tuple], expected: list[tuple], tolerance: float) -> bool:
    """Whether the same labels are at the same times, to the microsecond, or millisecond of CSV, in whatever order."""
    pairs = list(zip(sorted(found), sorted(expected), strict=False))
    return len(found) == len(expected) and all(
        one[2] == other[2] and all(math.isclose(one[n], other[n], abs_tol=tolerance) for n in (0, 1))
        for one, other in pairs
    )


def main() -> int:
    """Read every format with each reader that is there.

    Returns:
        1 if one finds something else than was written.
    """
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        paths = write(Path(folder))
        for name, reader, read, expected in READERS:
            try:
                importlib.import_module(reader)
            except ImportError:
                print(f"{name:15} {reader:12} left out: it is not installed")
                continue
            found = read(paths[name])
            is_same = same(found, expected, 5.1e-4 if name == "csv" else 1e-6)
            failed += not is_same
            print(f"{name:15} {reader:12} {'as written' if is_same else 'OTHERWISE: ' + json.dumps(found)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

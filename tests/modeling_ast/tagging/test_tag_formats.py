"""Results in each format, read back by Python's csv, pandas and splitting: names and labels with whatever a text can hold."""

import csv
import dataclasses
import io
import json
import os
import re

import pandas
import pytest

from benchmarks import tag_formats_readers
from modeling_ast.system.names_as_text import in_one_line
from modeling_ast.tagging.formats import FORMATS
from modeling_ast.tagging.tagger import FileTags, Segment, Tag

STRANGE = (
    "a\nb",
    "a\r\nb",
    "a\rb",
    "a\tb",
    "a,b",
    'a "b"',
    '"a" b',
    '"',
    "a;b",
    "  a",
    "őr",
    "a\x1b[31mb",
    "a\u2028b",
    "#a",
    "-a",
)


def results(label, timeline=True, file=None, highest_frequency=8000.0):
    segments = [Segment("", 0.25, 1.5, label, 0.5), Segment("", 2.0, 3.0, "plain", 0.75)] if timeline else None
    tags = [Tag(label, 0.5), Tag("plain", 0.25)]
    return [FileTags(file or f"{label}.wav", tags, segments, highest_frequency=highest_frequency, seconds=4.0)]


def written(output_format, *arguments, timeline=True, **keywords):
    row = FORMATS[output_format]
    lines = [row.header(timeline)] if row.header else []
    for result in results(*arguments, timeline=timeline, **keywords):
        lines += row.lines(result)
    return "".join(f"{line}\n" for line in lines)


@pytest.mark.parametrize("timeline", [True, False])
@pytest.mark.parametrize("label", STRANGE)
def test_csv_is_read_back(label, timeline):
    text = written("csv", label, timeline=timeline)
    header, *rows = csv.reader(io.StringIO(text, newline=""))
    assert header == (["file", "start", "end", "label", "score"] if timeline else ["file", "label", "score"])
    assert [(row[0], row[-2]) for row in rows] == [(f"{label}.wav", label), (f"{label}.wav", "plain")]
    table = pandas.read_csv(io.StringIO(text, newline=""))
    assert [*table["label"]] == [label, "plain"]
    assert [*table["file"]] == [f"{label}.wav"] * 2
    assert table["score"].sum() == (1.25 if timeline else 0.75)


@pytest.mark.parametrize("label", STRANGE)
def test_jsonl_is_an_object_in_a_line(label):
    (line,) = written("jsonl", label).splitlines()
    assert json.loads(line)["segments"][0]["label"] == json.loads(line)["labels"][0]["label"] == label


@pytest.mark.parametrize("label", STRANGE)
def test_text_has_a_line_for_each_label(label):
    name, *lines = written("text", label, timeline=False).splitlines()
    assert (name, len(lines)) == (in_one_line(label) + ".wav", 2)
    assert lines[0].endswith(f"  0.5000  {in_one_line(label)}")
    assert len(written("text", label).splitlines()) == 3
    assert "\x1b" not in written("text", label)


@pytest.mark.parametrize("label", STRANGE)
def test_audacity_has_three_columns(label):
    rows = [line.split("\t") for line in written("audacity", label).splitlines()]
    assert rows == [["0.250000", "1.500000", in_one_line(label)], ["2.000000", "3.000000", "plain"]]


@pytest.mark.parametrize("label", STRANGE)
def test_raven_table_is_read_as_its_readers_do(label):
    text = written("raven", label)
    table = pandas.read_csv(io.StringIO(text), sep="\t")  # as crowsetta and opensoundscape do
    assert [*table.columns] == [
        "Selection", "View", "Channel", "Begin Time (s)", "End Time (s)", "Low Freq (Hz)", "High Freq (Hz)", "Annotation",
        "Score",
    ]  # fmt: skip
    assert [*table["Annotation"]] == [in_one_line(label), "plain"]
    assert [*table["Begin Time (s)"]] == [0.25, 2.0]
    # Raven itself knows no quotes.
    assert all(line.count("\t") == 8 for line in text.splitlines())


def test_raven_table_ends_where_the_recording_does():
    table = pandas.read_csv(io.StringIO(written("raven", "a", highest_frequency=4000.0)), sep="\t")
    assert [*table["High Freq (Hz)"]] == [4000.0] * 2


def test_names_keep_what_breaks_no_line():
    assert in_one_line("a\nb\tc\x1bd\x85\u2029") == r"a\nb\tc\x1bd\x85\u2029"
    assert in_one_line("őr \\n \udcf6 \u00a0") == "őr \\n \udcf6 \u00a0"


def test_raven_table_names_the_channel_that_was_heard():
    (result,) = results("a")
    for channel, expected in ((None, "1"), (1, "1"), (2, "2")):
        rows = list(FORMATS["raven"].lines(dataclasses.replace(result, channel=channel)))
        assert {row.split("\t")[2] for row in rows} == {expected}


@pytest.mark.parametrize("timeline", [True, False])
@pytest.mark.parametrize("label", ["a\nb", 'a, "b"', "őr", "=1+1"])
def test_parquet_has_the_rows_of_csv_and_types_of_its_own(tmp_path, label, timeline):
    lines = written("parquet", label, timeline=timeline).splitlines()
    FORMATS["parquet"].write(lines, tmp_path / "tags.parquet")
    table = pandas.read_parquet(tmp_path / "tags.parquet")
    csv_table = pandas.read_csv(io.StringIO(written("csv", label, timeline=timeline), newline=""))
    pandas.testing.assert_frame_equal(table, csv_table)
    assert str(table.dtypes["score"]) == "float64"
    assert os.listdir(tmp_path) == ["tags.parquet"]


def test_parquet_without_a_row_has_its_columns(tmp_path):
    FORMATS["parquet"].write([FORMATS["parquet"].header(True)], tmp_path / "tags.parquet")
    table = pandas.read_parquet(tmp_path / "tags.parquet")
    assert (len(table), [*table.columns]) == (0, ["file", "start", "end", "label", "score"])


def test_parquet_of_many_rows_and_of_names_that_are_no_text(tmp_path, monkeypatch):
    monkeypatch.setattr("modeling_ast.tagging.parquet_tables.ROWS_AT_A_TIME", 3)
    (result,) = results("a", file="t\udcf6ne.wav")
    lines = [FORMATS["parquet"].header(True), *FORMATS["parquet"].lines(result)] + [
        *FORMATS["parquet"].lines(result)
    ] * 3
    FORMATS["parquet"].write(lines, tmp_path / "tags.parquet")
    table = pandas.read_parquet(tmp_path / "tags.parquet")
    assert [*table["label"]] == ["a", "plain"] * 4
    assert {*table["file"]} == {r"t\udcf6ne.wav"}


def tiers_of(text):
    """Tiers of a TextGrid by the grammar of Praat's manual: numbers and quoted texts count, all else is decoration."""
    tokens = re.findall(r'"(?:[^"]|"")*"|(?<![\w[])-?\d+(?:\.\d+)?(?![\w\]])|<exists>', text)
    values = [token[1:-1].replace('""', '"') if token.startswith('"') else token for token in tokens]
    assert values[:2] == ["ooTextFile", "TextGrid"]
    (start, end, exists, size), values = values[2:6], values[6:]
    assert (start, exists) == ("0", "<exists>")
    tiers = []
    for _ in range(int(size)):
        (kind, name, *times, count), values = values[:5], values[5:]
        assert (kind, times) == ("IntervalTier", [start, end])
        cells, values = values[: 3 * int(count)], values[3 * int(count) :]
        intervals = [(float(cells[n]), float(cells[n + 1]), cells[n + 2]) for n in range(0, len(cells), 3)]
        assert [0.0, *(end for _, end, _ in intervals)] == [*(start for start, _, _ in intervals), float(end)]
        tiers.append((name, intervals))
    assert not values
    return tiers


@pytest.mark.parametrize("label", STRANGE)
def test_textgrid_has_a_tier_for_each_label(label):
    assert tiers_of(written("textgrid", label)) == [
        (in_one_line(label), [(0, 0.25, ""), (0.25, 1.5, in_one_line(label)), (1.5, 4.0, "")]),
        ("plain", [(0, 2.0, ""), (2.0, 3.0, "plain"), (3.0, 4.0, "")]),
    ]


def textgrid_of(*segments):
    segments = [Segment("", start, end, label, 0.5) for start, end, label in segments]
    return tiers_of("\n".join(FORMATS["textgrid"].lines(FileTags("a.wav", [], segments, seconds=4.0))))


def test_segments_of_a_label_that_overlap_get_tiers():
    found = textgrid_of((0, 2, "a"), (0, 1, "a (2)"), (1, 3, "a"), (1.5, 4, "a"), (2, 4, "a"))
    assert [(name, [row for row in intervals if row[2]]) for name, intervals in found] == [
        ("a", [(0, 2, "a"), (2, 4, "a")]),
        ("a (2)", [(0, 1, "a (2)")]),
        ("a (3)", [(1, 3, "a")]),
        ("a (4)", [(1.5, 4, "a")]),
    ]


def test_textgrid_of_nothing_and_of_all():
    assert textgrid_of() == [("segments", [(0, 4, "")])]
    assert textgrid_of((0, 4, "a")) == [("a", [(0, 4, "a")])]


def test_readers_of_others_find_what_was_written(capsys):
    """Those that are installed; `docs/tag_formats.md` says what the others find."""
    assert tag_formats_readers.main() == 0
    said = {tuple(line[:28].split()): line[28:].strip() for line in capsys.readouterr().out.splitlines()}
    assert {words for reader, words in said.items() if reader[-1] == "pandas"} == {"as written"}
    assert {name.split()[0] for name, *_ in tag_formats_readers.READERS} == FORMATS.keys() - {"text"}


def test_formats_with_a_file_each_hold_segments():
    assert {name for name, row in FORMATS.items() if row.label_file_suffix} == {"audacity", "raven", "textgrid"}
    assert {name for name, row in FORMATS.items() if row.needs_timeline} == {"audacity", "raven", "textgrid"}

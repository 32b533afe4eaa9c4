"""Results in each format, read back by Python's csv, pandas and splitting: names and labels with whatever a text can hold."""

import csv
import io
import json

import pandas
import pytest

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
    return [FileTags(file or f"{label}.wav", tags, segments, highest_frequency=highest_frequency)]


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


def test_formats_with_a_file_each_hold_segments():
    assert {name for name, row in FORMATS.items() if row.label_file_suffix} == {"audacity", "raven"}
    assert {name for name, row in FORMATS.items() if row.needs_timeline} == {"audacity", "raven"}

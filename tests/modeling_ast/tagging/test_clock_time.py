"""When recordings began, of names and headers that were put together from the published formats."""

import csv
import dataclasses
import io
import json
import struct
from datetime import UTC, datetime, timedelta, timezone

import pandas
import pytest
import soundfile

from modeling_ast import run_tagging
from modeling_ast.tagging.clock_time import StartTime, start_from_file, start_from_name
from modeling_ast.tagging.formats import FORMATS
from modeling_ast.tagging.tagger import FileTags, Segment, Tag

MOMENT = datetime(2023, 5, 14, 4, 30, 0)


def zone(hours=0, minutes=0):
    return timezone(timedelta(hours=hours, minutes=minutes))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("20230514_043000.WAV", MOMENT),
        ("card/2023/20230514_043000.wav", MOMENT),
        ("20230514_043000T.WAV", MOMENT),
        ("24E144085F256A2C_20230514_043000.WAV", MOMENT),
        ("SMM01234_20230514_043000.wav", MOMENT),
        ("my_site_0+1_20230514_043000.wav", MOMENT),
        ("SITE_0+1_20230514$043000.wav", MOMENT),
        ("6460630C.WAV", datetime(2023, 5, 14, 4, 26, 52, tzinfo=UTC)),
        ("5EC5A158.WAV", datetime(2020, 5, 20, 21, 30, 0, tzinfo=UTC)),
        ("5ec5a158.wav", None),
        ("20230514.wav", None),  # hexadecimal for a day of 1987
        ("5EC5A158_2.WAV", None),
        ("20231314_043000.WAV", None),
        ("20230514_253000.WAV", None),
        ("120230514_043000.wav", None),
        ("20230514_0430001.wav", None),
        ("20230514-043000.wav", None),
        ("kick.wav", None),
    ],
)
def test_names(name, expected):
    assert start_from_name(name) == expected
    assert (start_from_name(name) or MOMENT).tzinfo == (expected or MOMENT).tzinfo


# Headers


def chunk(name, content, size=None):
    return name + struct.pack("<I", len(content) if size is None else size) + content + b"\0" * (len(content) % 2)


FORMAT = chunk(b"fmt ", struct.pack("<HHIIHH", 1, 1, 8000, 16000, 2, 16))
SOUND = chunk(b"data", b"\0\x20\0\xe0" * 1000)


def wave(*chunks, name=b"RIFF"):
    content = b"WAVE" + b"".join(chunks)
    return name + struct.pack("<I", len(content)) + content


def audiomoth(comment):
    """Its comment has a fixed length, filled up with zeros, and the artist behind it."""
    icmt = chunk(b"ICMT", comment.encode().ljust(384, b"\0"))
    return chunk(b"LIST", b"INFO" + icmt + chunk(b"IART", b"AudioMoth 24E144085F256A2C".ljust(32, b"\0")))


def bext(date, time):
    description, originator, reference = b"a site".ljust(256, b"\0"), b"Recorder".ljust(32, b"\0"), bytes(32)
    head = description + originator + reference + date.encode() + time.encode()
    return chunk(b"bext", head + struct.pack("<QH", 0, 1) + bytes(254))


def guano(*lines):
    return chunk(b"guan", "\n".join(["GUANO|Version: 1.0", *lines, "Note: 22:15 a bat"]).encode())


AUDIOMOTH = (
    "Recorded at 04:30:00 14/05/2023 (UTC{}) by AudioMoth 24E144085F256A2C at medium gain while battery was 4.5V."
)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (wave(FORMAT, audiomoth(AUDIOMOTH.format("")), SOUND), MOMENT.replace(tzinfo=UTC)),
        (wave(FORMAT, audiomoth(AUDIOMOTH.format("+1")), SOUND), MOMENT.replace(tzinfo=zone(1))),
        (wave(FORMAT, audiomoth(AUDIOMOTH.format("-10")), SOUND), MOMENT.replace(tzinfo=zone(-10))),
        (wave(FORMAT, audiomoth(AUDIOMOTH.format("+5:30")), SOUND), MOMENT.replace(tzinfo=zone(5, 30))),
        (wave(FORMAT, audiomoth(AUDIOMOTH.format("-3:30")), SOUND), MOMENT.replace(tzinfo=zone(-3, -30))),
        (wave(FORMAT, audiomoth(AUDIOMOTH.format("-0:30")), SOUND), MOMENT.replace(tzinfo=zone(0, -30))),
        (wave(FORMAT, audiomoth("Recorded at 04:30:00 14/05/2023 by AudioMoth 24E1 at gain setting 2"), SOUND), MOMENT),
        (
            wave(FORMAT, audiomoth("Recorded at 04:30:00.125 14/05/2023 (UTC) by AudioMoth Live"), SOUND),
            MOMENT.replace(microsecond=125_000, tzinfo=UTC),
        ),
        (wave(FORMAT, audiomoth("Recorded at 04:30:00 31/02/2023 (UTC) by AudioMoth"), SOUND), None),
        (wave(FORMAT, audiomoth(AUDIOMOTH.format("+24")), SOUND), None),
        (wave(FORMAT, audiomoth("Recorded with care"), SOUND), None),
        (wave(bext("2023-05-14", "04:30:00"), FORMAT, SOUND), MOMENT),
        (wave(bext("2023:05:14", "04-30-00"), FORMAT, SOUND), MOMENT),
        (wave(bext("0000-00-00", "00:00:00"), FORMAT, SOUND), None),
        (wave(bext("\0" * 10, "\0" * 8), FORMAT, SOUND), None),
        (wave(FORMAT, SOUND, guano("Timestamp: 2023-05-14T04:30:00+02:00")), MOMENT.replace(tzinfo=zone(2))),
        (wave(FORMAT, SOUND, guano("Timestamp:2023-05-14T04:30:00Z")), MOMENT.replace(tzinfo=UTC)),
        (wave(FORMAT, guano("Timestamp: 2023-05-14 04:30:00"), SOUND), MOMENT),
        (wave(FORMAT, SOUND, guano("Timestamp: yesterday")), None),
        (wave(FORMAT, *(guano(f"Timestamp: {year}-05-14T04:30:00") for year in (2023, 2022)), SOUND), MOMENT),
        (wave(FORMAT, SOUND, guano("WA|Timestamp: 2023-05-14T04:30:00")), None),
        # Odd sizes have a byte behind them; GUANO is believed before Broadcast Wave, wherever it is.
        (
            wave(bext("2022-01-01", "00:00:00"), FORMAT, chunk(b"junk", b"odd"), SOUND, guano("Timestamp: 2023-05-14T04:30:00")),
            MOMENT,
        ),
        (wave(FORMAT, chunk(b"LIST", b"adtl" + chunk(b"ICMT", AUDIOMOTH.format("").encode())), SOUND), None),
        (wave(FORMAT, SOUND), None),
        (wave(FORMAT, chunk(b"data", b"", 4000)), None),
        (
            wave(
                chunk(b"ds64", struct.pack("<QQQI", 0, 4000, 2000, 0)), FORMAT, chunk(b"data", b"\1\0" * 2000, 0xFFFFFFFF),
                guano("Timestamp: 2023-05-14T04:30:00"), name=b"RF64",
            ),
            MOMENT,
        ),
        (b"", None),
        (b"fLaC" + bytes(100), None),
        (wave(FORMAT, audiomoth(AUDIOMOTH.format("")))[:60], None),
        (wave(FORMAT, b"bext\xff\xff\xff\xff"), None),
        (wave(FORMAT, chunk(b"LIST", b"INFO" + b"ICMT\xff\xff\xff\xff" + AUDIOMOTH.format("+1").encode())), MOMENT.replace(tzinfo=zone(1))),
        (wave(*[chunk(b"junk", b"")] * 2000, guano("Timestamp: 2023-05-14T04:30:00")), None),
    ],
)  # fmt: skip
def test_headers(tmp_path, content, expected):
    (tmp_path / "a.wav").write_bytes(content)
    found = start_from_file(tmp_path / "a.wav")
    assert found == expected
    assert (found or MOMENT).utcoffset() == (expected or MOMENT).utcoffset()


def test_what_cannot_be_read_tells_no_time(tmp_path):
    assert start_from_file(tmp_path) is start_from_file(tmp_path / "gone.wav") is None


def test_headers_are_those_of_files_that_are_heard(tmp_path):
    (tmp_path / "a.wav").write_bytes(
        wave(bext("2023-05-14", "04:30:00"), FORMAT, SOUND, guano("Timestamp: 2023-05-14"))
    )
    assert soundfile.info(tmp_path / "a.wav").frames == 2000


# Rows


def test_a_place_in_a_recording_has_a_clock_time():
    assert StartTime(MOMENT).after() == "2023-05-14T04:30:00.000"
    assert StartTime(MOMENT.replace(tzinfo=zone(-3, -30))).after(86_400.5) == "2023-05-15T04:30:00.500-03:30"
    assert StartTime(None).after(1.0) is None
    assert StartTime(datetime(9999, 12, 31, 23, 59)).after(3600.0) is None


def written(output_format, began, timeline=True, combined=False):
    row = FORMATS[output_format].combined if combined else FORMATS[output_format]
    segments = [Segment("", 0.25, 1.5, "kick", 0.5), Segment("", 3600.0, 3601.0, "tom", 0.5)] if timeline else None
    result = FileTags("a.wav", [Tag("kick", 0.5)], segments, highest_frequency=8000.0, seconds=7200.0)
    lines = list(row.lines(dataclasses.replace(result, began=StartTime(began))))
    header = [row.header(timeline, True)] if row.header else []
    return [*header, *(row.finish(lines) if row.finish else lines)]


BERLIN = MOMENT.replace(tzinfo=zone(2))
STARTS = ["2023-05-14T04:30:00.250+02:00", "2023-05-14T05:30:00.000+02:00"]
ENDS = ["2023-05-14T04:30:01.500+02:00", "2023-05-14T05:30:01.000+02:00"]


def test_tables_have_columns_of_clock_times(tmp_path):
    FORMATS["parquet"].write(written("parquet", BERLIN), tmp_path / "a.parquet")
    FORMATS["parquet"].write(written("parquet", None), tmp_path / "none.parquet")
    texts = ["\n".join(written("csv", began)) for began in (BERLIN, None)]
    for known, unknown in (
        [pandas.read_csv(io.StringIO(text)) for text in texts],
        [pandas.read_parquet(tmp_path / name) for name in ("a.parquet", "none.parquet")],
    ):
        assert [*known.columns] == ["file", "start", "end", "label", "score", "start_time", "end_time"]
        assert [*known["start_time"]] == STARTS
        assert [*known["end_time"]] == ENDS
        assert unknown[["start_time", "end_time"]].isna().all(axis=None)
    (row,) = csv.DictReader(written("csv", BERLIN, timeline=False))
    assert row == {
        "file": "a.wav",
        "label": "kick",
        "score": "0.500000",
        "start_time": "2023-05-14T04:30:00.000+02:00",
    }


@pytest.mark.parametrize("combined", [False, True])
def test_raven_tables_have_a_column(combined):
    known = pandas.read_csv(io.StringIO("\n".join(written("raven", BERLIN, combined=combined))), sep="\t")
    assert [*known["Begin Date Time"]] == STARTS
    lines = written("raven", None, combined=combined)
    assert {line.count("\t") for line in lines} == {12 if combined else 9}
    assert pandas.read_csv(io.StringIO("\n".join(lines)), sep="\t")["Begin Date Time"].isna().all()


def test_json_and_text():
    (line,) = written("jsonl", BERLIN)
    row = json.loads(line)
    assert row["start_time"] == "2023-05-14T04:30:00.000+02:00"
    assert [segment["start_time"] for segment in row["segments"]] == STARTS
    assert [segment["end_time"] for segment in row["segments"]] == ENDS
    (line,) = written("jsonl", None)
    assert json.loads(line)["start_time"] is json.loads(line)["segments"][0]["end_time"] is None
    name, first, _ = written("text", BERLIN)
    assert name == "a.wav  2023-05-14T04:30:00.000+02:00"
    assert first.split() == ["0.25", "-", "1.50", "s", STARTS[0], "0.5000", "kick"]
    assert written("text", None)[:2] == ["a.wav", "       0.25 -      1.50 s   0.5000  kick"]


def test_the_flag(single_label, tmp_path, capsys):
    (tmp_path / "20230514_043000.wav").write_bytes(wave(bext("2023-05-14", "06:30:00"), FORMAT, SOUND))
    (tmp_path / "other.wav").write_bytes(wave(FORMAT, SOUND))

    def run(*flags):
        command = (
            tmp_path,
            "--model_name_or_path",
            single_label,
            "--device",
            "cpu",
            "--format",
            "jsonl",
            "--top_k",
            1,
            *flags,
        )
        assert run_tagging.main([str(word) for word in command]) == 0
        shown = capsys.readouterr()
        said = [line for line in shown.err.splitlines() if line.startswith("ast-tag: ")]
        return [json.loads(line).get("start_time", "none") for line in shown.out.splitlines()], said

    place = f"ast-tag: {tmp_path}/other.wav has no date and time of a recorder in its {{}}; its rows have none."
    assert run("--start_time", "from_name") == (["2023-05-14T04:30:00.000", None], [place.format("name")])
    assert run("--start_time", "from_file") == (["2023-05-14T06:30:00.000", None], [place.format("header")])
    assert run("--start_time", "none") == (["none", "none"], [])


@pytest.mark.parametrize("output_format", ["audacity", "textgrid"])
def test_formats_without_a_place_for_it_refuse_the_flag(capsys, output_format):
    with pytest.raises(SystemExit):
        run_tagging.main(
            ["x.wav", "--model_name_or_path", "m", "--format", output_format, "--start_time", "from_name"]
        )
    words = (
        f"--start_time: {output_format} has no place for it. Pass --format text or jsonl or csv or raven or parquet"
    )
    assert words in capsys.readouterr().err

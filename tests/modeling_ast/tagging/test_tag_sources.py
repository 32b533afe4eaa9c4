"""Where recordings come from, channels by themselves in every format, and how far a tagging has come."""

import csv
import io
import json
import os
import subprocess
import sys

import numpy as np
import pandas
import pytest
import soundfile
from tagged_models import SCORE_TOLERANCE, WINDOW, noise, write

from modeling_ast import run_tagging
from modeling_ast.audio import AudioError
from modeling_ast.tagging.progress import TaggingProgress
from modeling_ast.tagging.sources import tagged_files
from modeling_ast.tagging.tagger import AudioTagger


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("b.wav", "a.wav", "deep/c.wav", "deep/[1].wav"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        write(path, noise(WINDOW // 2))
    return tmp_path


@pytest.fixture
def two_channels(tmp_path):
    path = tmp_path / "two.wav"
    soundfile.write(path, np.stack([noise(2 * WINDOW, seed) for seed in (1, 2)], axis=1), 16_000, subtype="FLOAT")
    return path


@pytest.fixture
def tag(capsys, multi_label):
    def tag(*arguments):
        arguments = [*map(str, arguments), "--model_name_or_path", str(multi_label), "--device", "cpu"]
        code = run_tagging.main(arguments)
        shown = capsys.readouterr()
        assert code == 0, shown.err
        return shown.out

    return tag


def names(files):
    return [str(file) for file in files]


def test_patterns_lists_and_folders(folder, monkeypatch):
    assert names(tagged_files(["*.wav"], None)) == ["a.wav", "b.wav"]
    assert names(tagged_files(["**/*.wav"], None)) == ["a.wav", "b.wav", "deep/[1].wav", "deep/c.wav"]
    assert names(tagged_files(["deep/[1].wav", "deep"], None)) == [
        "deep/[1].wav",
        "deep/c.wav",
    ]  # there under its name
    (folder / "list.txt").write_bytes(b"\xef\xbb\xbfb.wav\r\n\r\ndeep/*.wav\na.wav\n")
    with pytest.raises(AudioError, match=r"There is no file or folder deep/\*\.wav"):  # names, not patterns
        tagged_files([], "list.txt")
    (folder / "list.txt").write_bytes(b"\xef\xbb\xbfb.wav\r\n\r\ndeep\na.wav\n")
    assert names(tagged_files(["a.wav"], "list.txt")) == ["a.wav", "b.wav", "deep/[1].wav", "deep/c.wav"]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"b.wav\n")))
    assert names(tagged_files([], "-")) == ["b.wav"]


@pytest.mark.parametrize(
    ("paths", "content", "words"),
    [
        (["*.mp3"], None, r"The pattern \*\.mp3 fits no file or folder"),
        ([], b"\n \n", "list.txt names no file. Write a path on each line"),
        ([], b"RIFF\0\0", "list.txt is no text. Pass a file with a path on each line"),
        ([], b"gone.wav", "There is no file or folder gone.wav"),
    ],
)
def test_sources_that_are_none_are_explained(folder, paths, content, words):
    if content is not None:
        (folder / "list.txt").write_bytes(content)
    with pytest.raises(AudioError, match=words):
        tagged_files(paths, None if content is None else "list.txt")


def test_a_list_that_is_not_there(folder):
    with pytest.raises(AudioError, match="--files_from none.txt cannot be read: No such file"):
        tagged_files([], "none.txt")
    os.mkfifo(folder / "pipe")
    with pytest.raises(AudioError, match="--files_from: pipe is a pipe, not a file"):
        tagged_files([], "pipe")


def test_a_typing_error_in_a_path_is_no_name_of_a_model(folder, capsys, multi_label):
    for behind in (["day/missing.wav"], ["day/missing.WAV", "a.wav"]):
        with pytest.raises(SystemExit):
            run_tagging.main(["--model_name_or_path", str(multi_label), *behind])
        assert f"There is no file or folder {behind[0]}" in capsys.readouterr().err


def test_files_from_standard_input_are_tagged(folder, tag, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"b.wav\na.wav\n")))
    out = tag("--files_from", "-", "--format", "jsonl")
    assert [json.loads(line)["file"] for line in out.splitlines()] == ["b.wav", "a.wav"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            [],
            "Nothing to tag was named. Name audio files or folders, or pass --files_from LIST or --dataset_name NAME.",
        ),
        (["a.wav", "--threshold", "0.3", "--reduce", "max"], "--threshold is about segments"),
        (["a.wav", "--window", "9"], "window=9.0 s is nothing that this model hears at once"),
        (["a.wav", "--silence_db", "3"], "silence_db=3.0 is not below full scale"),
        (["a.wav", "--channels", "every"], "channels='every' is none of mean, left, right"),
        (
            ["a.wav", "--channels", "each", "--embeddings", "file", "--embeddings_output", "x.npy"],
            "--embeddings is of one",
        ),
        (["a.wav", "--channels", "each", "--timeline", "--picture", "x.png"], "--picture is of one channel"),
    ],
)
def test_flags_that_do_not_go_together_are_explained(folder, capsys, multi_label, arguments, words):
    with pytest.raises(SystemExit) as ended:
        run_tagging.main([*arguments, "--model_name_or_path", str(multi_label), "--device", "cpu"])
    assert ended.value.code == 2
    assert words in capsys.readouterr().err


def test_reductions_and_windows_are_flags(tag, multi_label, tmp_path):
    waveform = noise(5 * WINDOW)
    waveform[:WINDOW] *= 0.01
    path = write(tmp_path / "long.wav", waveform)
    tagger = AudioTagger.from_pretrained(multi_label, "cpu")
    for flags, settings in (
        (("--reduce", "max"), {"reduction": "max"}),
        (("--reduce", "share", "--threshold", "0.4"), {"reduction": "share", "threshold": 0.4}),
        (("--window", "0.505"), {"window": 0.505}),
        (("--silence_db", "-30"), {"silence_db": -30}),
    ):
        (row,) = map(json.loads, tag(path, "--format", "jsonl", *flags).splitlines())
        (expected,) = tagger.tag_files([path], **settings)
        assert row["labels"] == [{"label": each.label, "score": each.score} for each in expected.labels]
        (plain,) = tagger.tag_files([path])
        assert plain.labels != expected.labels


def expected_segments(tagger, path):
    """(channel, start, end, label) of each channel that is tagged as a file of its own."""
    rows, samples = [], soundfile.read(path, dtype="float32")[0]
    for number in (1, 2):
        alone = write(path.with_name(f"channel{number}.wav"), samples[:, number - 1])
        (tags,) = tagger.tag_files([alone], timeline=True)
        rows += [(number, round(s.start, 3), round(s.end, 3), s.label) for s in tags.segments]
    return sorted(rows)


def test_each_channel_has_its_number_in_every_format(tag, multi_label, two_channels, tmp_path):
    tagger = AudioTagger.from_pretrained(multi_label, "cpu")
    expected = expected_segments(tagger, two_channels)
    assert {number for number, *_ in expected} == {1, 2}
    flags = ("--channels", "each", "--timeline")

    rows = [json.loads(line) for line in tag(two_channels, *flags, "--format", "jsonl").splitlines()]
    assert [(row["file"], row["channel"]) for row in rows] == [(str(two_channels), 1), (str(two_channels), 2)]
    found = [
        (row["channel"], round(s["start"], 3), round(s["end"], 3), s["label"]) for row in rows for s in row["segments"]
    ]
    assert sorted(found) == expected
    for row, number in zip(rows, (1, 2), strict=True):
        (alone,) = tagger.tag_files([tmp_path / f"channel{number}.wav"], timeline=True)
        scores = {each["label"]: each["score"] for each in row["labels"]}
        for each in alone.labels:
            assert scores[each.label] == pytest.approx(each.score, abs=SCORE_TOLERANCE)

    assert [line for line in tag(two_channels, *flags).splitlines() if not line.startswith(" ")] == [
        f"{two_channels}  channel 1",
        f"{two_channels}  channel 2",
    ]

    table = list(csv.DictReader(tag(two_channels, *flags, "--format", "csv").splitlines()))
    found = [(int(row["channel"]), float(row["start"]), float(row["end"]), row["label"]) for row in table]
    assert sorted(found) == expected
    assert list(table[0]) == ["file", "channel", "start", "end", "label", "score"]

    tag(two_channels, *flags, "--format", "parquet", "--output", tmp_path / "tags.parquet")
    frame = pandas.read_parquet(tmp_path / "tags.parquet")
    found = [(row.channel, round(row.start, 3), round(row.end, 3), row.label) for row in frame.itertuples()]
    assert sorted(found) == expected

    raven = pandas.read_csv(io.StringIO(tag(two_channels, *flags, "--format", "raven")), sep="\t")
    assert list(raven["Selection"]) == list(range(1, len(expected) + 1))
    columns = raven[["Channel", "Begin Time (s)", "End Time (s)", "Annotation"]]
    assert sorted((row[0], round(row[1], 3), round(row[2], 3), row[3]) for row in columns.values) == expected
    combined = tag(two_channels, *flags, "--format", "raven", "--combine")
    assert sorted(pandas.read_csv(io.StringIO(combined), sep="\t")["Channel"]) == sorted(raven["Channel"])

    labels = [line.split("\t") for line in tag(two_channels, *flags, "--format", "audacity").splitlines()]
    found = [(round(float(start), 3), round(float(end), 3), label) for start, end, label in labels]
    assert sorted(found) == sorted(
        (start, end, f"{label} (channel {number})") for number, start, end, label in expected
    )

    tiers = tag(two_channels, *flags, "--format", "textgrid")
    assert tiers.count('"ooTextFile"') == 1
    assert all(f'name = "{label} (channel {number})"' in tiers for number, _, _, label in expected)


def test_an_interrupted_run_keeps_the_channels(tag, two_channels, multi_label, tmp_path, capsys):
    mono = write(tmp_path / "mono.wav", noise(WINDOW))
    flags = ("--channels", "each", "--format", "jsonl", "--batch_size", "1", "--output", tmp_path / "tags.jsonl")
    whole = tag(two_channels, mono, *flags) and (tmp_path / "tags.jsonl").read_text()
    assert [json.loads(line)["channel"] for line in whole.splitlines()] == [1, 2, 1]
    (tmp_path / "tags.jsonl").unlink()
    arguments = [two_channels, mono, *flags, "--model_name_or_path", multi_label, "--device", "cpu"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_tagging.UnfinishedTags, "add", interrupted_after(run_tagging.UnfinishedTags.add))
        with pytest.raises(KeyboardInterrupt):
            run_tagging.main.__wrapped__(list(map(str, arguments)))
    assert "1 of 2 files were tagged already" in tag(two_channels, mono, *flags)
    assert (tmp_path / "tags.jsonl").read_text() == whole


def test_a_large_file_is_kept_when_it_ends(folder, tag, multi_label, capsys, monkeypatch):
    monkeypatch.setattr(run_tagging, "LARGE_FILE", (folder / "a.wav").stat().st_size - 1)
    tag("*.wav", "deep", "--format", "jsonl", "--output", "whole.jsonl")
    flags = ["*.wav", "deep", "--format", "jsonl", "--output", "tags.jsonl"]
    with monkeypatch.context() as context:
        context.setattr(run_tagging.UnfinishedTags, "add", interrupted_after(run_tagging.UnfinishedTags.add))
        command = [*flags, "--model_name_or_path", str(multi_label), "--device", "cpu"]
        with pytest.raises(KeyboardInterrupt):
            run_tagging.main.__wrapped__(command)
    assert "1 of 4 files were tagged already" in tag(*flags)
    assert (folder / "tags.jsonl").read_text() == (folder / "whole.jsonl").read_text()


def interrupted_after(add):
    def added(unfinished, *arguments):
        add(unfinished, *arguments)
        raise KeyboardInterrupt

    return added


def test_progress_tells_files_and_seconds_of_audio_a_second(tmp_path, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("modeling_ast.tagging.progress.time.perf_counter", lambda: clock[0])
    with TaggingProgress([tmp_path / "a", tmp_path / "b"], [100, 300], hidden=True) as progress:
        clock[0] = 2.0
        progress.heard(str(tmp_path / "a"), 8.0, 16.0)
        progress.heard(str(tmp_path / "a"), 16.0, 16.0)
        progress.tagged(1)
        progress.heard(str(tmp_path / "b"), 24.0, 48.0)
        assert progress.words() == "1 of 2 files, 20 s of audio a second"


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="needs a terminal that is made here")
def test_a_terminal_shows_how_far_it_is(folder, tag, monkeypatch):
    import termios

    ours, theirs = os.openpty()
    termios.tcsetwinsize(theirs, (24, 120))
    with open(theirs, "w", buffering=1) as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        out = tag("a.wav", "b.wav")
        assert out.startswith("a.wav")
    shown = b""
    while piece := _read(ours):
        shown += piece
    assert b"2 of 2 files, " in shown
    assert b" s of audio a second" in shown
    assert b" left]" in shown


def _read(terminal):
    try:
        return os.read(terminal, 1 << 16)
    except OSError:  # nobody writes to it any more
        return b""


@pytest.mark.long
def test_a_closed_pipe_is_no_traceback(folder, multi_label):
    command = [sys.executable, "-m", "modeling_ast.run_tagging", *["a.wav", "b.wav", "deep"], "--batch_size", "1"]
    command += ["--model_name_or_path", str(multi_label), "--device", "cpu", "--top_k", "3"]
    line = f"{subprocess.list2cmdline(command)} | head -n 1; exit ${{PIPESTATUS[0]}}"
    child = subprocess.run(
        ["bash", "-c", line.replace("[1]", "'[1]'")],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert child.stdout == "a.wav\n"
    assert "Traceback" not in child.stderr

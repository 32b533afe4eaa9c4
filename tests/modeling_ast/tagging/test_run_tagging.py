"""The command line of tagging: its formats, what it refuses, and what it leaves as it was."""

import csv
import io
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import soundfile
from special_paths import make_special, never_waits
from tagged_models import LABELS, SCORE_TOLERANCE, WINDOW, noise, stock_scores, windows_of

from modeling_ast import run_tagging
from modeling_ast.tagging.tagger import AudioTagger


def run(capsys, *arguments):
    code = run_tagging.main([str(argument) for argument in (*arguments, "--device", "cpu")])
    return code, capsys.readouterr()


def test_jsonl(capsys, single_label, clips):
    code, shown = run(capsys, clips[0].parent, "--model_name_or_path", single_label, "--format", "jsonl", "--top_k", 2)
    rows = [json.loads(line) for line in shown.out.splitlines()]
    assert code == 0
    assert [row["file"] for row in rows] == [str(clip) for clip in clips]
    assert all(list(row) == ["file", "labels"] for row in rows)
    assert all(list(tag) == ["label", "score"] for row in rows for tag in row["labels"])
    expected = sorted(stock_scores(single_label, windows_of(clips[0], [0]))[0], reverse=True)[:2]
    np.testing.assert_allclose([tag["score"] for tag in rows[0]["labels"]], expected, atol=SCORE_TOLERANCE)


def test_jsonl_with_timeline(capsys, single_label, clips):
    _, shown = run(capsys, clips[0], "--model_name_or_path", single_label, "--format", "jsonl", "--timeline")
    (row,) = [json.loads(line) for line in shown.out.splitlines()]
    assert list(row) == ["file", "labels", "segments"]
    (segment,) = row["segments"]
    assert segment == {"start": 0.0, "end": 0.5, **row["labels"][0]}


def test_csv(capsys, single_label, clips, tmp_path):
    clip = shutil.copy(clips[0], tmp_path / 'a, "b".wav')
    _, shown = run(capsys, clip, "--model_name_or_path", single_label, "--format", "csv")
    header, *rows = csv.reader(shown.out.splitlines())
    assert header == ["file", "label", "score"]
    assert [row[0] for row in rows] == [str(clip)] * 3
    assert {row[1] for row in rows} == set(LABELS)
    _, shown = run(capsys, clip, "--model_name_or_path", single_label, "--format", "csv", "--timeline")
    header, row = csv.reader(shown.out.splitlines())
    assert header == ["file", "start", "end", "label", "score"]
    assert row[1:3] == ["0.000", "0.500"]


def test_text(capsys, single_label, clips):
    _, shown = run(capsys, clips[0], "--model_name_or_path", single_label)
    name, *lines = shown.out.splitlines()
    assert name == str(clips[0])
    assert {line.split()[1] for line in lines} == set(LABELS)
    _, shown = run(capsys, clips[0], "--model_name_or_path", single_label, "--timeline")
    assert shown.out.splitlines()[1].split()[:4] == ["0.00", "-", "0.50", "s"]


def test_audacity_label_track(capsys, single_label, clips):
    _, shown = run(capsys, clips[2], "--model_name_or_path", single_label, "--format", "audacity")
    rows = [line.split("\t") for line in shown.out.splitlines()]
    assert all(len(row) == 3 and float(row[0]) < float(row[1]) and row[2] in LABELS for row in rows)
    assert float(rows[0][0]) == 0
    assert float(rows[-1][1]) == pytest.approx((3 * WINDOW + 5_000) / 16_000, abs=1e-6)


def test_raven_selection_tables_in_a_folder(capsys, single_label, clips, tmp_path):
    output = tmp_path / "tables"
    arguments = ("--model_name_or_path", single_label, "--format", "raven", "--output", output)
    code, shown = run(capsys, *clips, *arguments)
    assert code == 0
    assert shown.out.splitlines()[-1] == f"Tagged 4 of 4 files; the tags are in {output}"
    assert sorted(os.listdir(output)) == [f"{clip.stem}.Table.1.selections.txt" for clip in clips]
    header, row = (output / "a_short.Table.1.selections.txt").read_text().splitlines()
    fields = dict(zip(header.split("\t"), row.split("\t"), strict=True))
    frequencies = {"Low Freq (Hz)": "0.0", "High Freq (Hz)": "8000.0"}
    places = {"Selection": "1", "View": "Spectrogram 1", "Channel": "1"}
    times = {"Begin Time (s)": "0.000000", "End Time (s)": "0.500000"}
    assert fields.items() >= (frequencies | places | times).items()
    assert list(fields)[:7] == [*places, *times, *frequencies]


@pytest.mark.parametrize(("rate", "highest"), [(8_000, 4000.0), (11_025, 5512.5), (16_000, 8000.0), (44_100, 8000.0)])
def test_raven_selections_end_at_what_was_recorded_and_heard(capsys, single_label, tmp_path, rate, highest):
    soundfile.write(tmp_path / "clip.wav", noise(rate), rate)
    _, shown = run(capsys, tmp_path / "clip.wav", "--model_name_or_path", single_label, "--format", "raven")
    rows = list(csv.DictReader(shown.out.splitlines(), delimiter="\t"))
    assert {float(row["High Freq (Hz)"]) for row in rows} == {highest}
    assert {row["Annotation"] for row in rows} <= set(LABELS)


def test_failed_file_is_told_and_the_code_is_1(capsys, single_label, clips, tmp_path):
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"")
    output = tmp_path / "tags.jsonl"
    arguments = ("--model_name_or_path", single_label, "--format", "jsonl", "--output", output)
    code, shown = run(capsys, broken, clips[0], *arguments)
    assert code == 1
    assert "ast-tag: " in shown.err
    assert "broken.wav is empty" in shown.err
    assert [json.loads(line)["file"] for line in output.read_text().splitlines()] == [str(clips[0])]
    assert "Tagged 1 of 2 files" in shown.out


def test_output_is_written_whole_or_not_at_all(tmp_path):
    output = tmp_path / "tags.txt"
    output.write_text("before")

    def lines():
        yield "first"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_tagging.write_lines(lines(), output)
    assert output.read_text() == "before"
    assert os.listdir(tmp_path) == ["tags.txt"]
    run_tagging.write_lines(["new"], output)
    assert output.read_text() == "new\n"
    assert os.listdir(tmp_path) == ["tags.txt"]


def test_file_names_that_are_not_utf8_are_written_as_they_are(tmp_path):
    run_tagging.write_lines([os.fsdecode(b"t\xf6ne.wav")], tmp_path / "tags.txt")
    assert (tmp_path / "tags.txt").read_bytes() == b"t\xf6ne.wav\n"


def test_names_that_the_terminal_cannot_encode_end_nothing(single_label, clips, tmp_path, monkeypatch):
    names = ["\u0151.wav".encode(), b"t\xf6ne.wav"]
    for name in names:
        shutil.copy(clips[0], os.path.join(os.fsencode(tmp_path), name))
    content = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(content, encoding="ascii"))  # as of PYTHONIOENCODING=ascii
    assert run_tagging.main([str(tmp_path), "--model_name_or_path", str(single_label), "--device", "cpu"]) == 0
    names = [line.rpartition(b"/")[2] for line in content.getvalue().splitlines() if not line.startswith(b" ")]
    assert sorted(names) == [rb"\u0151.wav", b"t\xf6ne.wav"]


def test_what_is_no_file_is_left_out_of_a_folder_and_refused_by_its_name(capsys, single_label, clips, tmp_path):
    shutil.copy(clips[0], tmp_path / "a.wav")
    pipe = make_special(tmp_path / "b.wav", "pipe")
    make_special(tmp_path / "b\n\x1b[2J.wav", "pipe")
    (tmp_path / "round").symlink_to(tmp_path)
    model = ("--model_name_or_path", single_label, "--format", "jsonl")
    with never_waits():
        code, shown = run(capsys, tmp_path, *model)
        assert code == 0
        assert [json.loads(line)["file"] for line in shown.out.splitlines()] == [str(tmp_path / "a.wav")]
        assert f"ast-tag: {pipe} is left out: it is a pipe, not a file." in shown.err
        assert f"ast-tag: {tmp_path}/b\\n\\x1b[2J.wav is left out: it is a pipe" in shown.err
        assert f"ast-tag: {tmp_path / 'round'} is left out: it leads to a folder whose files are taken" in shown.err
        code, shown = run(capsys, pipe, tmp_path / "a.wav", *model)
        assert code == 1
        assert [json.loads(line)["file"] for line in shown.out.splitlines()] == [str(tmp_path / "a.wav")]
        assert f"ast-tag: {pipe} is a pipe, not a file. Save what comes out of it to a file" in shown.err


def test_a_device_is_not_replaced_by_the_output(capsys, single_label, clips, tmp_path):
    device = make_special(tmp_path / "null", "device")
    with pytest.raises(SystemExit):
        run(capsys, clips[0], "--model_name_or_path", single_label, "--output", device)
    said = capsys.readouterr().err
    assert f"--output {device} is no file but a device, a pipe, a socket or a link in a circle. Pass the name" in said
    assert device.is_symlink()


def test_reading_of_segments_is_a_flag(capsys, multi_label, clips):
    def segments(*flags):
        arguments = ("--model_name_or_path", multi_label, "--format", "jsonl", "--timeline", *flags)
        return json.loads(run(capsys, clips[2], *arguments)[1].out)["segments"]

    assert segments() == segments("--segments", "hop") != segments("--segments", "window")
    tagger = AudioTagger.from_pretrained(multi_label, "cpu")
    (expected,) = tagger.tag_files(clips[2:3], timeline=True, segments="window")
    assert [segment["end"] for segment in segments("--segments", "window")] == [s.end for s in expected.segments]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["{clips}/gone.wav"], "no file or folder"),
        (["{clips}", "--hop", "0.1"], "--hop is about segments. Add --timeline"),
        (["{clips}", "--threshold", "0.1"], "--threshold is about segments. Add --timeline"),
        (["{clips}", "--segments", "window"], "--segments is about segments. Add --timeline"),
        (["{clips}", "--top_k", "0"], "'0' is not a whole number from 1 on"),
        (["{clips}", "--timeline", "--hop", "30"], "hop=30.0 s does not fit"),
        (["{clips}", "--timeline", "--threshold", "50"], "threshold=50.0 is not a score"),
        (["{clips}", "--timeline", "--threshold", "-1"], "threshold=-1.0 is not a score"),
        (["{clips}", "--format", "audacity"], "one file for each audio file and there are 4"),
        (
            ["{clips}", "--format", "csv", "--combine"],
            "--combine makes one file of those of each audio file. Add --format",
        ),
        (
            ["{clips}", "--format", "parquet"],
            "--format parquet is no text to print. Add --output with the name of a file",
        ),
        (["{clips}", "--format", "raven"], "Pass --output with the name of a folder, or --combine."),
        (["{clips}", "--format", "textgrid"], "Pass --output with the name of a folder."),
        (["{clips}", "--output", "{clips}"], "is a folder. Pass the name of a file in it"),
        (["{clips}", "--output", "{clips}/none/tags.txt"], "there is no folder"),
        (["{clips}", "--format", "raven", "--output", "{clips}/a_short.wav"], "the name of a folder"),
    ],
)
def test_wrong_arguments_are_explained(capsys, single_label, clips, arguments, words):
    arguments = [argument.format(clips=clips[0].parent) for argument in arguments]
    with pytest.raises(SystemExit) as ended:
        run_tagging.main([*arguments, "--model_name_or_path", str(single_label), "--device", "cpu"])
    assert ended.value.code == 2
    shown = capsys.readouterr()
    assert words in shown.err
    assert shown.out == ""


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--help"], 0),
        (["x.wav"], 2),
        (["x.wav", "--model_name_or_path", "m", "--format", "xml"], 2),
        ([__file__, "--model_name_or_path", "no_such_model"], 2),
    ],
)
def test_help_and_wrong_arguments_import_nothing_heavy(arguments, code):
    script = (
        "import sys\n"
        "from modeling_ast.run_tagging import main\n"
        "try:\n    main(sys.argv[1:])\n"
        "except SystemExit as ended:\n"
        "    heavy = {'torch', 'transformers', 'datasets', 'torchaudio', 'soundfile'} & set(sys.modules)\n"
        "    print(ended.code, sorted(heavy))\n"
    )
    child = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True)
    assert child.stdout.splitlines()[-1] == f"{code} []"


def test_module_runs_as_a_program():
    child = subprocess.run(
        [sys.executable, "-m", "modeling_ast.run_tagging", "gone.wav", "--model_name_or_path", "m"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert child.returncode == 2
    assert "no file or folder gone.wav" in child.stderr

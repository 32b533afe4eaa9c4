"""`ast-tag --output`: interrupted and gone on with, two at once, and places that cannot be written to."""

import csv
import errno
import os
import shutil

import pytest
import soundfile
from safetensors.torch import load_file, save_file
from special_paths import WORDS, make_special, never_waits
from tagged_models import LABELS, noise, save_checkpoint

from modeling_ast import run_tagging
from modeling_ast.system.run_lock import hold_lock
from modeling_ast.tagging import formats
from modeling_ast.tagging.formats import TagFormat
from modeling_ast.tagging.tagger import AudioTagger
from modeling_ast.tagging.unfinished import states_of, unfinished_path

MODEL_FLAGS = ("--device", "cpu", "--batch_size", "3")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_checkpoint(tmp_path_factory.mktemp("model"), "multi_label_classification")


@pytest.fixture
def clips(tmp_path):
    """Ten recordings of different lengths, one of them empty and one with a header that promises more than there is."""
    folder = tmp_path / "clips"
    folder.mkdir()
    for number in range(10):
        soundfile.write(folder / f"{number}.wav", noise(9_000 + 3_000 * number, number), 16_000)
    (folder / "4.wav").write_bytes(b"")
    (folder / "5.wav").write_bytes((folder / "5.wav").read_bytes()[:-8_000])
    return folder


@pytest.fixture
def tag(model, capsys):
    def run(*arguments):
        code = run_tagging.main(
            [str(argument) for argument in (*arguments, "--model_name_or_path", model, *MODEL_FLAGS)]
        )
        return code, capsys.readouterr()

    return run


@pytest.fixture
def interrupt_after(monkeypatch):
    """Ctrl-C when so many files were tagged; the recordings that are heard are counted."""
    original = AudioTagger.tag_files
    heard = []

    def patch(number):
        heard.clear()

        def tag_files(self, files, *arguments, **keywords):
            def results():
                for file, result in zip(files, original(self, files, *arguments, **keywords), strict=True):
                    if number is not None and len(heard) == number:
                        raise KeyboardInterrupt
                    heard.append(file.name)
                    yield result

            # What is refused is refused at once.
            original(self, [], *arguments, **keywords)
            return results()

        monkeypatch.setattr(AudioTagger, "tag_files", tag_files)
        return heard

    return patch


def said(shown):
    """What is said on the error stream, without bars of progress."""
    return [line for line in shown.err.splitlines() if line.startswith("ast-tag: ")]


FORMATS = [("text",), ("jsonl",), ("csv", "--timeline")]


@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("stop", [3, 5, 8, 9])
def test_an_interrupted_run_is_completed_to_the_same_bytes(
    tag, clips, tmp_path, interrupt_after, capsys, layout, stop
):
    arguments = (clips, "--format", *layout, "--output")
    code, whole = tag(*arguments, tmp_path / "whole")
    assert code == 1
    output = tmp_path / "tags"
    output.write_text("before")
    interrupt_after(stop)
    code, shown = tag(*arguments, output)
    assert code == 130
    kept = stop // 3 * 3  # whole groups
    words = (
        f"interrupted (SIGINT). {kept} of 10 files are tagged, in {output}.unfinished; the same command goes on there."
    )
    assert shown.err.splitlines()[-1] == f"ast-tag: {words}"
    assert output.read_text() == "before"
    heard = interrupt_after(None)
    code, shown = tag(*arguments, output)
    assert code == 1
    assert heard == [f"{number}.wav" for number in range(kept, 10)]
    assert output.read_bytes() == (tmp_path / "whole").read_bytes()
    assert said(shown) == said(whole)
    assert "4.wav is empty" in shown.err
    assert "5.wav" in shown.err
    assert shown.out.splitlines() == [
        f"{kept} of 10 files were tagged already by an interrupted run",
        f"Tagged 9 of 10 files; the tags are in {output}",
    ]
    assert sorted(os.listdir(tmp_path)) == ["clips", "tags", "whole"]


def test_an_interruption_before_the_first_result_leaves_nothing(tag, clips, tmp_path, interrupt_after):
    interrupt_after(2)
    code, shown = tag(clips, "--output", tmp_path / "tags")
    assert code == 130
    assert os.listdir(tmp_path) == ["clips"]
    assert "goes on" not in shown.err


@pytest.fixture
def interrupted(tag, clips, tmp_path, interrupt_after):
    """A run of three groups of which the last one is not whole, and the output of an earlier one."""
    output = tmp_path / "tags"
    output.write_text("before")
    interrupt_after(8)
    assert tag(clips, "--output", output)[0] == 130
    return output


@pytest.mark.parametrize("cut", [1, 30, 2000])
@pytest.mark.parametrize("end", [b"", b'{"files": [["', b"\0\0\0\n", b'{"files": [], "outco\n'])
def test_a_row_that_was_half_written_is_cut_off(tag, clips, tmp_path, interrupted, interrupt_after, cut, end):
    unfinished = unfinished_path(interrupted)
    content = unfinished.read_bytes()
    last = content[:-1].rfind(b"\n") + 1
    assert len(content) - last > 300
    unfinished.write_bytes(content[: max(len(content) - cut, last)] + end)
    heard = interrupt_after(None)
    tag(clips, "--output", interrupted)
    assert heard[0] == "3.wav"
    tag(clips, "--output", tmp_path / "whole")
    assert interrupted.read_bytes() == (tmp_path / "whole").read_bytes()


def test_what_follows_a_half_written_row_counts_as_well(tag, clips, interrupted, interrupt_after):
    with open(unfinished_path(interrupted), "ab") as file:
        file.write(b'{"files": [["')
    interrupt_after(3)
    assert tag(clips, "--output", interrupted)[0] == 130
    heard = interrupt_after(None)
    _, shown = tag(clips, "--output", interrupted)
    assert heard == ["9.wav"]
    assert "9 of 10 files were tagged already" in shown.out


def test_a_header_that_was_half_written_is_an_empty_run(tag, clips, tmp_path, interrupted, interrupt_after):
    unfinished = unfinished_path(interrupted)
    unfinished.write_bytes(unfinished.read_bytes()[:40])
    heard = interrupt_after(None)
    tag(clips, "--output", interrupted)
    assert len(heard) == 10
    assert not unfinished.exists()


def test_only_groups_with_a_changed_file_are_tagged_again(tag, clips, tmp_path, interrupted, interrupt_after):
    soundfile.write(clips / "1.wav", noise(20_000, 30), 16_000)
    heard = interrupt_after(None)
    _, shown = tag(clips, "--output", interrupted)
    assert heard == [f"{number}.wav" for number in (0, 1, 2, 6, 7, 8, 9)]
    assert "3 of 10 files were tagged already" in shown.out
    tag(clips, "--output", tmp_path / "whole")
    assert interrupted.read_bytes() == (tmp_path / "whole").read_bytes()


def test_a_file_that_was_touched_counts_as_changed(clips):
    before = states_of([clips / "1.wav"])
    os.utime(clips / "1.wav", ns=(1, 1))
    assert states_of([clips / "1.wav"]) != before


@pytest.mark.parametrize(
    ("flags", "words"),
    [(("--top_k", "2"), "--top_k"), (("--format", "csv", "--spreadsheet_safe"), "--format, --spreadsheet_safe")],
)
def test_other_arguments_start_anew_and_say_so(tag, clips, interrupted, interrupt_after, flags, words):
    heard = interrupt_after(None)
    _, shown = tag(clips, *flags, "--output", interrupted)
    assert f"{interrupted}.unfinished is of a run with another {words}; starting anew" in shown.err
    assert len(heard) == 10
    assert "already" not in shown.out


@pytest.mark.parametrize("changed", ["weights", "config.json", "preprocessor_config.json"])
def test_another_model_starts_anew_and_says_so(clips, interrupted, interrupt_after, model, tmp_path, capsys, changed):
    other = shutil.copytree(model, tmp_path / "other")
    if changed == "weights":
        tensors = load_file(other / "model.safetensors")
        tensors["classifier.dense.bias"][0] += 1e-3
        save_file(tensors, other / "model.safetensors", {"format": "pt"})
    elif changed == "config.json":
        text = (other / changed).read_text()
        (other / changed).write_text(text.replace(LABELS[0], "applause"))
    else:
        text = (other / changed).read_text()
        (other / changed).write_text(text.replace("-4.26", "-4.36"))
        assert (other / changed).read_text() != text
    heard = interrupt_after(None)
    arguments = [str(clips), "--output", str(interrupted), "--model_name_or_path", str(other), *MODEL_FLAGS]
    run_tagging.main(arguments)
    assert "is of a run with another model; starting anew" in capsys.readouterr().err
    assert len(heard) == 10


def test_a_copy_of_the_model_is_the_same_one(clips, interrupted, interrupt_after, model, tmp_path):
    other = shutil.copytree(model, tmp_path / "other")
    heard = interrupt_after(None)
    run_tagging.main([str(clips), "--output", str(interrupted), "--model_name_or_path", str(other), *MODEL_FLAGS])
    assert len(heard) == 4


def test_refused_arguments_do_not_make_an_interrupted_run_void(tag, clips, interrupted):
    content = unfinished_path(interrupted).read_bytes()
    with pytest.raises(SystemExit):
        tag(clips, "--timeline", "--hop", "100", "--output", interrupted)
    assert unfinished_path(interrupted).read_bytes() == content


def test_a_file_of_somebody_else_is_left_alone(tag, clips, tmp_path, capsys):
    (tmp_path / "tags.unfinished").write_text("a novel")
    with pytest.raises(SystemExit):
        tag(clips, "--output", tmp_path / "tags")
    assert "is no unfinished run of ast-tag. Move it away" in capsys.readouterr().err
    assert (tmp_path / "tags.unfinished").read_text() == "a novel"


@pytest.mark.parametrize("kind", WORDS)
def test_what_is_no_file_is_no_unfinished_run(tag, clips, tmp_path, capsys, kind):
    make_special(tmp_path / "tags.unfinished", kind)
    with never_waits(), pytest.raises(SystemExit):
        tag(clips, "--output", tmp_path / "tags")
    assert "is no unfinished run of ast-tag. Move it away" in capsys.readouterr().err
    assert os.path.lexists(tmp_path / "tags.unfinished")


def test_two_at_once_into_one_file(tag, clips, interrupted, capsys):
    content = unfinished_path(interrupted).read_bytes()
    with hold_lock(interrupted, "another program"), pytest.raises(SystemExit) as ended:
        tag(clips, "--output", interrupted)
    assert ended.value.code == 2
    assert f"{interrupted} is being written by another program" in capsys.readouterr().err
    assert unfinished_path(interrupted).read_bytes() == content


def test_two_at_once_into_one_folder(tag, clips, tmp_path, capsys):
    (tmp_path / "labels").mkdir()
    with hold_lock(tmp_path / "labels", "another program", inside=True), pytest.raises(SystemExit):
        tag(clips, "--format", "raven", "--output", tmp_path / "labels")
    assert "is being written by another program" in capsys.readouterr().err
    assert os.listdir(tmp_path / "labels") == []


@pytest.mark.parametrize("output_format", ["audacity", "raven"])
def test_label_files_of_an_interrupted_run_stay(tag, clips, tmp_path, interrupt_after, output_format):
    arguments = (clips, "--format", output_format, "--output")
    tag(*arguments, tmp_path / "whole")
    output = tmp_path / "labels"
    tag(*arguments, output, "--threshold", "0.9")  # finished, with other arguments
    interrupt_after(7)
    assert tag(*arguments, output)[0] == 130
    names = sorted(os.listdir(tmp_path / "whole"))
    first = output / names[0]
    first.write_text("corrected by hand")
    (output / names[1]).unlink()
    heard = interrupt_after(None)
    tag(*arguments, output)
    assert heard == ["6.wav", "7.wav", "8.wav", "9.wav"]
    assert sorted(os.listdir(output)) == names
    assert first.read_text() == "corrected by hand"
    assert [(output / name).read_bytes() for name in names[1:]] == [
        (tmp_path / "whole" / name).read_bytes() for name in names[1:]
    ]


# Formats from outside


def rttm_lines(result):
    """Rich Transcription Time Marked files: a line for each segment, of all recordings in one file."""
    for segment in result.segments:
        length = segment.end - segment.start
        yield f"SPEAKER {result.file} 1 {segment.start:.2f} {length:.2f} <NA> <NA> {segment.label} {segment.score:.2f} <NA>"


def tsv_lines(result):
    for tag in result.labels:
        yield f"{tag.label}\t{tag.score:.4f}"


@pytest.mark.parametrize(
    ("row", "timeline"),
    [
        (TagFormat(rttm_lines, needs_timeline=True), True),
        (TagFormat(tsv_lines, lambda timeline: f"label\tscore {timeline}", ".tsv", opens_in_spreadsheets=True), False),
    ],
    ids=["all in one file", "a file each"],
)
def test_a_format_is_one_row_of_the_table(tag, clips, tmp_path, interrupt_after, monkeypatch, capsys, row, timeline):
    monkeypatch.setitem(formats.FORMATS, "mine", row)
    arguments = (clips, "--format", "mine", "--output")
    assert tag(*arguments, tmp_path / "whole")[0] == 1, "as one of the clips is empty"
    interrupt_after(5)
    assert tag(*arguments, tmp_path / "tags")[0] == 130
    heard = interrupt_after(None)
    tag(*arguments, tmp_path / "tags")
    assert heard == [f"{number}.wav" for number in range(3, 10)], "all but the first whole group"

    whole, resumed = (
        sorted(path.rglob("*")) if path.is_dir() else [path] for path in (tmp_path / "whole", tmp_path / "tags")
    )
    assert [path.read_bytes() for path in whole] == [path.read_bytes() for path in resumed]
    lines = [path.read_text().splitlines() for path in whole]
    if timeline:
        assert {line.split()[1] for line in lines[0]} <= {str(clip) for clip in clips.iterdir()}
        assert {line.split()[7] for line in lines[0]} <= set(LABELS)
    else:
        assert [path.name for path in whole] == [f"{number}.tsv" for number in range(10) if number != 4]
        assert {len(of_file) for of_file in lines} == {4}, "the header and three labels"
        assert {of_file[0] for of_file in lines} == {"label\tscore False"}

    safe = (*arguments, tmp_path / "safe", "--spreadsheet_safe")
    if row.opens_in_spreadsheets:
        assert tag(*safe)[0] == 1
    else:
        with pytest.raises(SystemExit):
            tag(*safe)
        assert "--spreadsheet_safe is about CSV files. Add --format csv, or leave it out." in capsys.readouterr().err


# Places that cannot be written to


def test_a_full_disk_keeps_what_was_tagged(tag, clips, small_disk, tmp_path):
    disk = small_disk(8 / 1024)
    output = disk / "tags"
    filler = disk / "filler"
    filler.write_bytes(bytes(4096))  # a page is left, too small for all groups and their result
    code, shown = tag(clips, "--timeline", "--hop", "0.05", "--format", "jsonl", "--output", output)
    assert code == 1
    assert "No space left on device. Make room" in shown.err.splitlines()[-1]
    assert "Traceback" not in shown.err
    filler.unlink()
    shutil.copytree(disk, tmp_path / "copy")
    output = tmp_path / "copy" / "tags"
    tag(clips, "--timeline", "--hop", "0.05", "--format", "jsonl", "--output", output)
    tag(clips, "--timeline", "--hop", "0.05", "--format", "jsonl", "--output", tmp_path / "whole")
    assert output.read_bytes() == (tmp_path / "whole").read_bytes()
    assert os.listdir(tmp_path / "copy") == ["tags"]


def test_a_name_that_is_too_long(tag, clips, tmp_path):
    code, shown = tag(clips, "--output", tmp_path / ("n" * 256))
    assert (code, len(shown.err.splitlines())) == (1, 1)
    assert "File name too long. Most disks take names of up to 255 bytes" in shown.err
    assert os.listdir(tmp_path) == ["clips"]


@pytest.mark.parametrize("name", ["n" * 255, "é" * 127, "n" * 246, "n" * 244, "a" + "é" * 127])
def test_the_longest_name_gets_one_beside_it(tmp_path, name):
    path = unfinished_path(tmp_path / name)
    path.write_text("")
    assert path.name.endswith(".unfinished")
    assert unfinished_path(tmp_path / (name[:-1] + "z")) != path


def test_a_folder_that_is_gone_before_the_end(tag, clips, tmp_path, interrupt_after, monkeypatch):
    folder = tmp_path / "folder"
    folder.mkdir()
    write_lines = run_tagging.write_lines

    def gone(*arguments):
        shutil.rmtree(folder)
        write_lines(*arguments)

    monkeypatch.setattr(run_tagging, "write_lines", gone)
    code, shown = tag(clips, "--output", folder / "tags")
    assert code == 1
    assert "No such file or directory" in shown.err.splitlines()[-1]
    assert "Traceback" not in shown.err


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.EDQUOT])
def test_a_place_where_nothing_may_be_written(tag, clips, tmp_path, monkeypatch, number):
    def refuse(path, *arguments):
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr("modeling_ast.system.run_lock.open_to_lock", refuse)
    code, shown = tag(clips, "--output", tmp_path / "tags")
    assert code == 1
    (line,) = shown.err.splitlines()
    assert line.startswith(f"ast-tag: {tmp_path}/tags: {os.strerror(number)}. ")


# Cells that a spreadsheet would run


def test_names_that_a_spreadsheet_would_run_are_made_harmless(clips, tmp_path, capsys, monkeypatch):
    labels = ("=1+1", "@SUM(A1)", "kick")
    model = save_checkpoint(tmp_path / "model", "multi_label_classification", labels)
    monkeypatch.chdir(clips)
    shutil.copy("1.wav", "-1.wav")
    arguments = ["./", "--format", "csv", "--model_name_or_path", str(model), *MODEL_FLAGS]
    run_tagging.main(arguments)
    plain = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    run_tagging.main([*arguments, "--spreadsheet_safe"])
    safe = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    shown = {"=1+1": "'=1+1", "@SUM(A1)": "'@SUM(A1)", "-1.wav": "'-1.wav"}
    assert set(labels) | {"-1.wav"} <= {row[column] for row in plain for column in ("file", "label")}
    assert safe == [{key: shown.get(value, value) for key, value in row.items()} for row in plain]


def test_spreadsheets_read_no_other_format(tag, clips, capsys):
    with pytest.raises(SystemExit):
        tag(clips, "--spreadsheet_safe")
    assert "--spreadsheet_safe is about CSV files. Add --format csv" in capsys.readouterr().err

"""Label files of many recordings: a file each with a name of its own, or one table of all."""

import csv
import os
import shutil
from pathlib import Path

import numpy as np
import pandas
import pytest
import soundfile
from tagged_models import noise

from modeling_ast import run_tagging
from modeling_ast.tagging.label_files import label_file_names
from modeling_ast.tagging.tagger import AudioTagger


@pytest.fixture
def tag(multi_label, capsys):
    def run(*arguments, code=0):
        arguments = (*arguments, "--model_name_or_path", multi_label, "--device", "cpu")
        assert run_tagging.main([str(argument) for argument in arguments]) == code
        return capsys.readouterr()

    return run


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (["/r/a.wav", "/r/b.wav"], ["a", "b"]),
        (["/r/x/a.wav", "/r/y/a.wav", "/r/y/b.wav"], ["x_a", "y_a", "b"]),
        (["/r/x/1/a.wav", "/r/y/1/a.wav", "/r/y/2/a.wav"], ["x_1_a", "y_1_a", "y_2_a"]),
        (["/r/a.wav", "/r/x/a.wav", "/a.wav"], ["r_a", "x_a", "a"]),
        (["/r/a.wav", "/r/a.flac"], ["a.wav", "a.flac"]),
        (["/r/x/a.wav", "/r/x/a.flac", "/r/y/a.wav"], ["x_a.wav", "x_a.flac", "y_a"]),
        (["/r/x/a.wav", "/r/y/../z/a.wav"], ["x_a", "z_a"]),
    ],
)
def test_recordings_of_one_name_keep_their_folders(files, expected):
    assert [*label_file_names([Path(file) for file in files], ".txt").values()] == [f"{name}.txt" for name in expected]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--timeline", "--picture", "a.png"], "--picture would write over the recording"),
        (["--output", "a.png"], "--output would write over the recording"),
        (
            ["--embeddings", "file", "--embeddings_output", "e.npy", "--output", "e.npy.csv"],
            "would write over e.npy.csv",
        ),
        (["--timeline", "--picture", "p.jpg"], "--picture p.jpg is no name of a PNG"),
    ],
)
def test_nothing_is_written_over_a_recording_or_another_result(tag, tmp_path, monkeypatch, capsys, flags, words):
    monkeypatch.chdir(tmp_path)
    soundfile.write("a.wav", noise(16_000), 16_000)
    os.rename("a.wav", "a.png")  # a name tells nothing of the content
    content = Path("a.png").read_bytes()
    with pytest.raises(SystemExit) as ended:
        tag("a.png", *flags)
    assert ended.value.code == 2
    assert words in capsys.readouterr().err
    assert Path("a.png").read_bytes() == content
    assert os.listdir() == ["a.png"]


def test_relative_names_are_of_the_folder_they_are_in(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert [*label_file_names([Path("a.wav"), Path("../a.wav")], "").values()] == ["here_a", f"{tmp_path.name}_a"]


def test_label_files_of_one_name_do_not_overwrite_each_other(tag, clips, tmp_path):
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        shutil.copy(clips[folder == "y"], tmp_path / folder / "a.wav")
    tag(tmp_path, "--format", "audacity", "--output", tmp_path / "out")
    assert sorted(os.listdir(tmp_path / "out")) == ["x_a.txt", "y_a.txt"]
    alone = tag(tmp_path / "y" / "a.wav", "--format", "audacity").out
    assert (tmp_path / "out" / "y_a.txt").read_text() == alone != (tmp_path / "out" / "x_a.txt").read_text()


def test_a_separator_at_its_end_makes_output_a_folder_for_one_recording_too(tag, clips, tmp_path):
    alone = tag(clips[0], "--format", "audacity").out
    tag(clips[0], "--format", "audacity", "--output", f"{tmp_path / 'labels'}{os.sep}")
    (made,) = (tmp_path / "labels").iterdir()
    assert made.name == f"{clips[0].stem}.txt"
    assert made.read_text() == alone
    tag(clips[0], "--format", "audacity", "--output", tmp_path / "label")
    assert (tmp_path / "label").read_text() == alone


@pytest.mark.parametrize("output_format", ["csv", "audacity"])
def test_a_name_with_a_separator_at_its_end_is_no_file(tag, clips, tmp_path, capsys, output_format):
    place = tmp_path / "tags"
    if output_format == "audacity":
        place.write_text("mine")
    with pytest.raises(SystemExit, match="2"):
        tag(clips[0], "--format", output_format, "--output", f"{place}{os.sep}")
    why = f"{place} is a file" if output_format == "audacity" else "everything goes to one file"
    assert f"--output {place}{os.sep} names a folder, but {why}. Type --output {place}" in capsys.readouterr().err
    assert [path.name for path in tmp_path.glob("tags*")] == ["tags"] * place.is_file()


def test_names_that_are_made_like_those_of_others_are_refused(tmp_path):
    files = [Path("/r/x/a.wav"), Path("/r/y/a.wav"), Path("/r/x_a.wav")]
    with pytest.raises(run_tagging.OutputError, match="Two audio files, /r/x_a.wav among them, would be written to"):
        run_tagging.plan_output(tmp_path / "out", "audacity", files)
    assert not (tmp_path / "out").exists()


@pytest.fixture
def folder(clips, tmp_path):
    """Three recordings, of several rates, of which one cannot be read."""
    folder = tmp_path / "recordings"
    (folder / "b").mkdir(parents=True)
    shutil.copy(clips[2], folder / "a.wav")
    (folder / "b" / "broken.wav").write_bytes(b"")
    soundfile.write(folder / "b" / "c.wav", np.repeat(noise(12_000, seed=9)[:, None], 2, axis=1), 8_000)
    return folder


SECONDS = {"a.wav": 51_800 / 16_000, "c.wav": 1.5}  # of those that are tagged, in their order


def expected_rows(multi_label, folder):
    """Of each segment its file, its place in that, and the seconds of the files before it."""
    files = [folder / "a.wav", folder / "b" / "c.wav"]
    before = dict(zip(map(str, files), [0.0, SECONDS["a.wav"]], strict=True))
    tagged = AudioTagger.from_pretrained(multi_label, "cpu").tag_files(files, timeline=True)
    return [(segment.file, segment, before[segment.file]) for tags in tagged for segment in tags.segments]


def test_a_combined_raven_table_counts_from_the_begin_of_the_first_file(tag, multi_label, folder, tmp_path):
    printed = tag(folder, "--format", "raven", "--combine", code=1)
    assert "broken.wav is empty" in printed.err
    tag(folder, "--format", "raven", "--combine", "--output", tmp_path / "all.txt", code=1)
    assert (tmp_path / "all.txt").read_text() == printed.out
    table = pandas.read_csv(tmp_path / "all.txt", sep="\t")
    expected = expected_rows(multi_label, folder)
    assert [*table["Selection"]] == [*range(1, len(expected) + 1)]
    assert [*table["Begin Path"]] == [file for file, _, _ in expected]
    assert [*table["Begin File"]] == [Path(file).name for file, _, _ in expected]
    assert {*table["Begin File"]} == SECONDS.keys()
    np.testing.assert_allclose(table["File Offset (s)"], [segment.start for _, segment, _ in expected], atol=1e-6)
    np.testing.assert_allclose(table["Begin Time (s)"], [s.start + before for _, s, before in expected], atol=1e-6)
    np.testing.assert_allclose(table["End Time (s)"], [s.end + before for _, s, before in expected], atol=1e-6)
    assert [*table["High Freq (Hz)"]] == [8000.0 if file.endswith("a.wav") else 4000.0 for file, _, _ in expected]
    assert [*table["Annotation"]] == [segment.label for _, segment, _ in expected]


def test_a_combined_label_track_names_the_files_where_they_begin(tag, multi_label, folder):
    rows = list(csv.reader(tag(folder, "--format", "audacity", "--combine", code=1).out.splitlines(), delimiter="\t"))
    names = [row for row in rows if row[2] in SECONDS]
    ends = [f"{end:.6f}" for end in np.cumsum([*SECONDS.values()])]
    assert names == [["0.000000", ends[0], "a.wav"], [ends[0], ends[1], "c.wav"]]
    assert [row for row in rows if row[2] not in SECONDS] == [
        [f"{segment.start + before:.6f}", f"{segment.end + before:.6f}", segment.label]
        for _, segment, before in expected_rows(multi_label, folder)
    ]


@pytest.mark.parametrize("output_format", ["raven", "audacity", "parquet"])
def test_one_file_of_all_is_gone_on_with(tag, folder, tmp_path, monkeypatch, output_format):
    command = (folder, "--format", output_format, "--timeline", "--batch_size", 1)
    command += ("--combine",) * (output_format != "parquet")
    tag(*command, "--output", tmp_path / "whole", code=1)
    tag_files = AudioTagger.tag_files

    groups = []

    def interrupted(self, files, *arguments, **settings):
        groups.extend([files] if files else [])
        if len(groups) == 2:
            raise KeyboardInterrupt
        return tag_files(self, files, *arguments, **settings)

    with monkeypatch.context() as patch:
        patch.setattr(AudioTagger, "tag_files", interrupted)
        tag(*command, "--output", tmp_path / "tags", code=130)
    assert not (tmp_path / "tags").exists()
    assert "1 of 3 files were tagged already" in tag(*command, "--output", tmp_path / "tags", code=1).out
    assert (tmp_path / "tags").read_bytes() == (tmp_path / "whole").read_bytes()


def test_a_parquet_table_of_a_folder(tag, folder, tmp_path):
    tag(folder, "--format", "parquet", "--output", tmp_path / "tags.parquet", code=1)
    printed = tag(folder, "--format", "csv", code=1).out
    (tmp_path / "tags.csv").write_text(printed)
    table, expected = pandas.read_parquet(tmp_path / "tags.parquet"), pandas.read_csv(tmp_path / "tags.csv")
    assert len(table) == 6
    pandas.testing.assert_frame_equal(table, expected, check_exact=False, atol=1e-6)


def test_a_textgrid_lasts_as_long_as_its_recording(tag, clips):
    lines = tag(clips[2], "--format", "textgrid").out.splitlines()
    assert lines[3:5] == ["xmin = 0", f"xmax = {51_800 / 16_000}"]

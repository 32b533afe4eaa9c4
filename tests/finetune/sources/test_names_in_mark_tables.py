"""Recordings that a table of marks names by their paths."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from finetune.arguments.groups import DataArguments
from finetune.sources.data_errors import DataError
from finetune.sources.mark_owners import Owners
from finetune.sources.marked_recordings import load_marked


@pytest.mark.parametrize("order", [(1, 2), (2, 1)])
def test_marks_of_an_absent_recording_do_not_go_to_one_of_its_name(tmp_path, order):
    (tmp_path / "site1").mkdir()
    soundfile.write(tmp_path / "site1" / "0600.wav", np.zeros(16_000), 16_000)
    table = tmp_path / "marks.csv"
    rows = [f"site{site}/0600.wav,0.1,0.{site + 2},owl" for site in order]
    table.write_text("\n".join(["file,start,end,label", *rows]))
    with pytest.raises(DataError, match=r"about a recording that is not there: site\d/0600.wav"):
        load_marked(DataArguments(dataset_name=str(tmp_path), marks=str(table)), 0)


def test_a_table_that_names_no_recording_is_told_so(tmp_path):
    soundfile.write(tmp_path / "0600.wav", np.zeros(16_000), 16_000)
    table = tmp_path / "marks.csv"
    table.write_text("start,end,label\n0.1,0.2,owl\n")
    with pytest.raises(DataError, match=r"marks\.csv has no column that names the recording.* Add a column file"):
        load_marked(DataArguments(dataset_name=str(tmp_path), marks=str(table)), 0)


def recordings(folder: Path, *names: str) -> Path:
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / name, np.full(16_000, number / 100), 16_000)
    return folder


@pytest.mark.parametrize(
    ("there", "named", "meant"),
    [
        # As it is from the folder of recordings on, however deep.
        (["a.wav", "b.wav"], "a.wav", ["a.wav"]),
        (["a/x.wav", "b/x.wav"], "b/x.wav", ["b/x.wav"]),
        (["2023/s/x.wav", "2024/s/x.wav"], "2024/s/x.wav", ["2024/s/x.wav"]),
        (["s/x.wav", "t/s/x.wav"], "s/x.wav", ["s/x.wav"]),
        (["s/x.wav", "t/s/x.wav"], "t\\s\\x.wav", ["t/s/x.wav"]),
        # Parts, not letters.
        (["siteA/x.wav", "xsiteA/x.wav"], "siteA/x.wav", ["siteA/x.wav"]),
        (["xsiteA/x.wav", "y.wav"], "siteA/x.wav", []),
        # Paths of this and of other machines.
        (["2023/s/x.wav", "2024/s/x.wav"], "{folder}/2023/s/x.wav", ["2023/s/x.wav"]),
        (["2023/s/x.wav", "2024/s/x.wav"], "C:\\card\\2024\\s\\x.wav", ["2024/s/x.wav"]),
        (["x.wav", "y.wav"], "C:\\card\\2024\\x.wav", ["x.wav"]),
        (["x.wav", "y.wav"], "../sounds/./x.wav", ["x.wav"]),
        # Of one that is absent to none.
        (["A/x.wav", "b.wav"], "C/x.wav", []),
        (["A/x.wav", "b.wav"], "/card/C/x.wav", []),
        (["2023/s/x.wav"], "2024/s/x.wav", []),
        (["A/x.wav"], "..", []),
        # By the name alone, if there is one; also where it went into a split after it was marked.
        (["A/x.wav", "b.wav"], "x.wav", ["A/x.wav"]),
        (["A/x.wav", "B/x.wav"], "x.wav", ["A/x.wav", "B/x.wav"]),
        (["train/x.wav", "test/y.wav"], "C:\\card\\x.wav", ["train/x.wav"]),
        (["train/A/x.wav", "test/B/x.wav"], "B/x.wav", ["test/B/x.wav"]),
        (["test/x.wav"], "train/x.wav", []),
        (["train/x.wav", "test/x.wav"], "card/x.wav", ["train/x.wav", "test/x.wav"]),
        (["one/x.wav", "two/y.wav"], "card/x.wav", ["one/x.wav"]),
    ],
)
def test_which_recording_a_path_means(tmp_path, there, named, meant):
    files = [tmp_path / "recs" / name for name in there]
    found = Owners(files, tmp_path / "recs", ["one"]).of_path(named.format(folder=tmp_path / "recs"))
    assert [path.relative_to(tmp_path / "recs").as_posix() for path in found] == meant


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_absolute_paths_tell_folders_of_one_name_apart(tmp_path, order):
    folder = recordings(tmp_path / "recs", "2023/s/x.wav", "2024/s/x.wav")
    rows = [f"{folder}/{2023 + one}/s/x.wav,0.1,0.{one + 2},owl" for one in order]
    (tmp_path / "marks.csv").write_text("\n".join(["file,start,end,label", *rows]))
    sides = load_marked(DataArguments(dataset_name=str(folder), marks=str(tmp_path / "marks.csv")), 0).sides
    found = {
        Path(item.name).parts[-3]: [mark.end for mark in item.marks] for items in sides.values() for item in items
    }
    assert found == {"2023": [0.2], "2024": [0.3]}


@pytest.mark.parametrize("name", ["C/x.wav", "/card/C/x.wav"])
def test_the_message_names_what_is_there_instead(tmp_path, name):
    folder = recordings(tmp_path / "recs", "A/x.wav", "b.wav")
    (tmp_path / "marks.csv").write_text(f"file,start,end,label\n{name},0.1,0.2,x\nb.wav,0.1,0.2,x\n")
    said = rf"not there: {name} \(in .*marks.csv, not .*A/x.wav\)\. .*correct the path, or write its name alone"
    with pytest.raises(DataError, match=said):
        load_marked(DataArguments(dataset_name=str(folder), marks=str(tmp_path / "marks.csv")), 0)


RAVEN = (
    "Selection\tView\tBegin Time (s)\tEnd Time (s)\tBegin Path\tAnnotation\n1\tS 1\t0.1\t0.2\tD:\\card\\x.wav\towl\n"
)


def test_a_selection_table_beside_a_recording_is_about_it_wherever_that_lay(tmp_path):
    folder = recordings(tmp_path / "recs", "A/x.wav", "B/x.wav")
    for site in "AB":
        (folder / site / "x.Table.1.selections.txt").write_text(RAVEN)
    sides = load_marked(DataArguments(dataset_name=str(folder), marks="beside"), 0).sides
    assert [len(item.marks) for items in sides.values() for item in items] == [1, 1]


@pytest.mark.parametrize(
    ("there", "files", "marks", "said"),
    [
        # A file of marks in a folder of recordings is about one that lies there.
        (["A/x.wav", "C/y.wav"], ["C/x.txt", "C/y.txt"], "beside", r"C/x.txt \(not .*A/x.wav\)"),
        (["A/x.wav", "A/y.wav"], ["C/x.txt", "A/y.txt"], "beside", r"C/x.txt \(not .*A/x.wav\)"),
        # A folder of files of marks is laid out like that of the recordings, or is flat.
        (["A/x.wav", "A/y.wav"], ["marks/C/x.txt", "marks/A/y.txt"], "marks", r"C/x.txt \(not .*A/x.wav\)"),
        (["A/x.wav", "B/x.wav"], ["marks/A/x.txt", "marks/B/x.txt"], "marks", None),
        (["A/x.wav", "B/y.wav"], ["marks/x.txt", "marks/y.txt"], "marks", None),
        (["train/x.wav", "test/y.wav"], ["marks/x.txt", "marks/y.txt"], "marks", None),
        (["audio/x.wav", "audio/y.wav"], ["labels/x.txt", "labels/y.txt"], "beside", None),
    ],
)
def test_files_of_marks_are_about_recordings_of_their_folder(tmp_path, there, files, marks, said):
    folder = recordings(tmp_path / "recs", *there)
    base = folder if marks == "beside" else tmp_path
    for number, name in enumerate(files):
        (base / name).parent.mkdir(parents=True, exist_ok=True)
        (base / name).write_text(f"0.1\t0.{number + 2}\towl\n")
    data = DataArguments(dataset_name=str(folder), marks=marks if marks == "beside" else str(base / marks))
    if said:
        with pytest.raises(DataError, match=said):
            load_marked(data, 0)
        return
    found = {
        item.name: [mark.end for mark in item.marks] for items in load_marked(data, 0).sides.values() for item in items
    }
    assert found == {str(folder / name): [(number + 2) / 10] for number, name in enumerate(there)}


def test_recordings_of_one_name_are_not_all_compared_with_each_path(tmp_path, monkeypatch):
    """A folder for each day with a recording for each hour, and files of marks laid out likewise."""
    days, hours = 30, 4
    names = [f"day{day}/{hour}.wav" for day in range(days) for hour in range(hours)]
    owners, compared = Owners([tmp_path / name for name in names], tmp_path), []
    count = Owners._in_common
    monkeypatch.setattr(Owners, "_in_common", lambda *each: compared.append(each) or count(*each))
    for form in ("{}", "/card/2024/{}", "{folder}/{}"):
        for name in names:
            assert owners.of_path(form.format(name, folder=tmp_path)) == [tmp_path / name]
    assert len(compared) == 3 * len(names)
    assert owners.beside(tmp_path / "day7", "2") == [tmp_path / "day7" / "2.wav"]


def test_of_two_recordings_beside_marks_the_whole_name_tells(tmp_path):
    folder = recordings(tmp_path / "recs", "A/x.wav", "A/x.wav.flac", "B/y.wav")
    (folder / "A" / "x.wav.txt").write_text("0.1\t0.2\towl\n")
    sides = load_marked(DataArguments(dataset_name=str(folder), marks="beside", unmarked="background"), 0).sides
    assert {Path(item.name).name for items in sides.values() for item in items if item.marks} == {"x.wav"}

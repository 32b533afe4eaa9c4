"""Files of marked stretches: Audacity's, Raven's and tables, and what is said of those that are wrong."""

from pathlib import Path

import datasets
import pandas as pd
import pytest
from marked_sounds import RAVEN, SECONDS, TIMES, TONES, audacity, raven, write_marked, write_recordings

from finetune.arguments.data_arguments import DataArguments
from finetune.sources.data_errors import DataError
from finetune.sources.mark_files import read_mark_file
from finetune.sources.marked_recordings import load_marked
from finetune.sources.marks import Mark, joined_marks
from modeling_ast.tagging.results import FileTags, Segment
from modeling_ast.tagging.text_grids import textgrid_lines


def tuples(marks) -> list[tuple]:
    return [(round(mark.start, 6), round(mark.end, 6), mark.label) for mark in marks]


def frequencies(marks) -> list[tuple]:
    return [(mark.low_hz, mark.high_hz) for mark in marks]


@pytest.mark.parametrize("comma", [False, True])
@pytest.mark.parametrize("with_frequencies", [False, True])
def test_label_tracks(tmp_path, with_frequencies, comma):
    path = tmp_path / "a.txt"
    path.write_text(audacity(TIMES[0], with_frequencies, comma))
    (marks,) = read_mark_file(path).values()
    assert tuples(marks) == TIMES[0]
    expected = (
        (lambda label: (TONES[label] - 100, TONES[label] + 100)) if with_frequencies else (lambda label: (None, None))
    )
    assert frequencies(marks) == [expected(label) for *_, label in TIMES[0]]


def test_an_empty_label_track_marks_nothing(tmp_path):
    (tmp_path / "a.txt").write_text("")
    assert read_mark_file(tmp_path / "a.txt") == {None: []}


@pytest.mark.parametrize("column", ["Annotation", "Label", "Species"])
def test_selection_tables_count_a_selection_once(tmp_path, column):
    path = tmp_path / "a.Table.1.selections.txt"
    path.write_text(raven(TIMES[0], column))
    assert len(path.read_text().splitlines()) == 1 + 2 * len(TIMES[0])
    found = read_mark_file(path, None if column != "Species" else column)
    assert tuples(found[None]) == TIMES[0]
    # As pandas reads the rows of one view, by which crowsetta and opensoundscape read Raven's tables.
    frame = pd.read_csv(path, sep="\t")
    frame = frame[frame["View"] == "Spectrogram 1"]
    assert list(zip(frame["Low Freq (Hz)"], frame["High Freq (Hz)"], strict=True)) == frequencies(found[None])


def test_selection_tables_of_several_files_count_from_the_begin_of_each(tmp_path):
    path = tmp_path / "all.txt"
    header = "\t".join((*RAVEN, "Begin Path", "File Offset (s)", "Annotation"))
    rows = [
        "1\tSpectrogram 1\t1\t1.0\t2.0\t0\t8000\tC:\\sounds\\a.wav\t1.0\tlow",
        "2\tSpectrogram 1\t1\t9.0\t9.5\t0\t8000\tC:\\sounds\\b.wav\t1.0\thigh",
    ]
    path.write_text("\n".join([header, *rows]))
    found = read_mark_file(path)
    assert {name: tuples(marks) for name, marks in found.items()} == {
        "C:\\sounds\\a.wav": [(1.0, 2.0, "low")],
        "C:\\sounds\\b.wav": [(1.0, 1.5, "high")],
    }


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "file,start,end,label\nrec0.wav,1.5,2,low\n"),
        ("a.csv", "filename;onset;offset;label\nrec0.wav;1,5;2;low\n"),
        ("a.csv", 'path,start,duration,label\nrec0.wav,"1,5","0,5",low\n'),
        ("a.tsv", "file\tstart\tend\tlabel\nrec0.wav\t1.5\t2\tlow\n"),
    ],
)
def test_tables(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    assert tuples(read_mark_file(tmp_path / name)["rec0.wav"]) == [(1.5, 2.0, "low")]


def test_parquet(tmp_path):
    frame = pd.DataFrame({"file": ["b.wav"], "start": [1.5], "end": [2.0], "label": ["low"], "low_hz": [400.0]})
    frame.to_parquet(tmp_path / "a.parquet")
    (marks,) = read_mark_file(tmp_path / "a.parquet").values()
    assert (tuples(marks), frequencies(marks)) == ([(1.5, 2.0, "low")], [(400.0, None)])


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.txt", "0.5\tx\tlow\n", r"a\.txt, line 1: 'x' is no number"),
        ("a.txt", "0:05\t0:07\tlow\n", r"a\.txt, line 1: '0:05' is no number of seconds"),
        ("a.txt", "1,234.5\t1,235\tlow\n", r"a\.txt, line 1: '1,234\.5' is no number of seconds"),
        ("a.txt", "0.5\t1.0\t\n", r"a\.txt, line 1 marks a stretch without a label"),
        ("a.txt", "\\\t100\t200\n", "expected|neither a label track|without"),
        ("a.txt", "some words", "neither a label track of Audacity"),
        (
            "a.txt",
            "Selektion\tAnsicht\tBeginn (s)\tEnde (s)\tLabel\n1\tW\t1\t2\tx\n",
            r"without 'Begin Time \(s\)' and 'End Time \(s\)'",
        ),
        ("a.txt", raven(TIMES[0], "Art"), "neither 'Annotation' nor 'Label'; .* --mark_label_column"),
        ("a.csv", "file,start,end,label\na.wav,0,5,1,0,low\n", "row 1: 6 cells under 4 columns.*decimal comma"),
        ("a.csv", "file,begin,label\na.wav,0,low\n", r"expected file, start, end \(in seconds\) and label"),
        ("a.csv", "file,start,end,label\na.wav,0:05,0:07,low\n", "'0:05' is no number of start"),
    ],
)
def test_wrong_files(tmp_path, name, content, said):
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=said):
        read_mark_file(tmp_path / name)


def test_views_that_differ_are_refused(tmp_path):
    lines = raven(TIMES[0]).replace("low", "hum", 1)
    (tmp_path / "a.txt").write_text(lines)
    with pytest.raises(DataError, match="selection 1 is 'low' in one view and 'hum' in another"):
        read_mark_file(tmp_path / "a.txt")


def test_overlapping_stretches_of_a_label_are_one():
    marks = [Mark(0, 2, "a"), Mark(1, 3, "a"), Mark(1, 2, "b"), Mark(3, 4, "a"), Mark(2.5, 2.7, "a")]
    found, absorbed = joined_marks(marks)
    assert (tuples(found), absorbed) == ([(0, 3, "a"), (1, 2, "b"), (3, 4, "a")], 2)


def loaded(folder, **fields):
    return load_marked(DataArguments(dataset_name=str(folder), **{"marks": "beside"} | fields), 0)


def all_marks(found) -> dict[str, list[tuple]]:
    return {Path(item.name).stem: tuples(item.marks) for items in found.sides.values() for item in items}


EXPECTED = {f"rec{number}": sorted(times) for number, times in enumerate(TIMES)}


def test_the_same_marks_wherever_they_are(tmp_path):
    folder = write_marked(tmp_path / "beside")
    assert all_marks(loaded(folder)) == EXPECTED
    apart, tables = tmp_path / "apart", tmp_path / "tables"
    write_recordings(apart)
    tables.mkdir()
    for number, times in enumerate(TIMES):
        (tables / f"rec{number}.Table.1.selections.txt").write_text(raven(times))
    assert all_marks(loaded(apart, marks=str(tables))) == EXPECTED
    rows = [(f"rec{number}.wav", *mark) for number, times in enumerate(TIMES) for mark in times]
    frame = pd.DataFrame(rows, columns=["file", "start", "end", "label"])
    frame.to_csv(tmp_path / "all.csv", index=False)
    with pytest.raises(DataError, match=r"1 of 6 recordings have no marks: .*rec5\.wav\. Pass --unmarked background"):
        loaded(apart, marks=str(tmp_path / "all.csv"))
    assert all_marks(loaded(apart, marks=str(tmp_path / "all.csv"), unmarked="background")) == EXPECTED
    marked = {name: marks for name, marks in EXPECTED.items() if marks}
    assert all_marks(loaded(apart, marks=str(tmp_path / "all.csv"), unmarked="ignore")) == marked
    # As columns of a table beside the recordings, and of a saved data set.
    frame.to_csv(apart / "rows.csv", index=False)
    assert all_marks(loaded(apart / "rows.csv", marks="columns")) == marked
    audio = [str(apart / file) for file in frame["file"]]
    rows = datasets.Dataset.from_dict(
        {"audio": audio, "start": frame["start"], "end": frame["end"], "label": frame["label"]}
    )
    rows.cast_column("audio", datasets.Audio(decode=False)).save_to_disk(tmp_path / "saved")
    assert all_marks(loaded(tmp_path / "saved", marks="columns")) == marked


def test_splits_go_by_recording(tmp_path):
    folder = write_marked(tmp_path / "all")
    found = loaded(folder, eval_fraction=0.4, validation_fraction=0.25)
    names = [{item.name for item in items} for items in found.sides.values()]
    assert [len(of_side) for of_side in names] == [3, 2, 1]
    assert len(set.union(*names)) == 6
    assert "2 of 6 recordings held out at random by recording" in found.words
    for side, numbers in {"train": range(4), "test": (4, 5)}.items():
        (folder / side).mkdir()
        for number in numbers:
            for path in folder.glob(f"rec{number}.*"):
                path.rename(folder / side / path.name)
    found = loaded(folder)
    assert [len(items) for items in found.sides.values()] == [4, 2]
    assert "as the data says" in found.words


def with_file(folder, name, text):
    (folder / name).write_text(text)


WRONG = {
    "a stretch past the end": (
        lambda folder: with_file(folder, "rec0.txt", "7.0\t9.5\tlow\n"),
        rf"rec0\.txt, line 1: 'low' is marked from 7 to 9\.5 s, but .*rec0\.wav lasts {SECONDS:.2f} s\. Correct the times",
    ),
    "end before start": (
        lambda folder: with_file(folder, "rec0.txt", "3\t2\tlow\n"),
        "ends before it begins. Correct",
    ),
    "before the beginning": (
        lambda folder: with_file(folder, "rec0.txt", "-1\t2\tlow\n"),
        "begins before the recording",
    ),
    "a label file without audio": (
        lambda folder: with_file(folder, "gone.txt", "1\t2\tlow\n"),
        r"1 file\(s\) of marks are about a recording that is not there: .*gone\.txt\. Put the recordings there",
    ),
    "audio without a label file": (
        lambda folder: (folder / "rec2.txt").unlink(),
        r"1 of 6 recordings have no marks: .*rec2\.wav",
    ),
    "two files for one recording": (
        lambda folder: with_file(folder, "rec1.selections.txt", raven(TIMES[1])),
        r"1 recording\(s\) have two files of marks: .*rec1\.wav \(rec1\.selections\.txt and rec1\.txt\)",
    ),
    "nothing marked at all": (
        lambda folder: [path.write_text("") for path in folder.glob("*.txt")],
        "Nothing is marked in any recording",
    ),
    "no audio": (lambda folder: [path.unlink() for path in folder.glob("*.wav")], "hold no audio file"),
    "audio that is none": (
        lambda folder: (folder / "rec3.wav").write_text("x"),
        r"1 of 6 recordings cannot be used:\n.*rec3\.wav",
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_recordings(tmp_path, wrong):
    folder = write_marked(tmp_path / "all")
    spoil, said = WRONG[wrong]
    spoil(folder)
    with pytest.raises(DataError, match=said):
        loaded(folder)


def test_one_recording_cannot_be_split(tmp_path):
    folder = tmp_path / "one"
    write_recordings(folder, TIMES[:1])
    with_file(folder, "rec0.txt", audacity(TIMES[0]))
    with pytest.raises(DataError, match=r"1 recording\(s\) cannot be split"):
        loaded(folder)


def test_labels_that_are_left_out_are_no_background(tmp_path):
    found = loaded(write_marked(tmp_path / "all"), ignore_labels=["low"])
    assert found.labels == ["high"]
    kept = [item for items in found.sides.values() for item in items]
    assert sum(len(item.unknown) for item in kept) == sum(label == "low" for times in TIMES for *_, label in times)
    with pytest.raises(DataError, match="background_label='high' is marked in recordings too"):
        loaded(tmp_path / "all", background_label="high")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"mark_overlap": "1.5"}, "neither a share above 0 and up to 1 nor seconds"),
        ({"background_share": 1.0}, "background_share=1 is not from 0"),
        ({"background_share": 0.0, "background_label": "noise"}, "background_share=0 asks for none. Pass one of them"),
        ({"streaming": True}, "streaming=True was given with marks, but recordings have to be at hand"),
        ({"unmarked": "maybe"}, "unmarked='maybe' is not among background, ignore"),
        ({"clip_windows": "all"}, "each window is a clip of its own"),
    ],
)
def test_flags_that_do_not_go_together(fields, said):
    with pytest.raises(ValueError, match=said):
        DataArguments(dataset_name="x", marks="beside", **fields)


# As crowsetta 5.1.2 writes its formats aud-seq, aud-bbox, simple-seq and generic-seq.
OF_CROWSETTA = {
    "aud-seq.txt": "0.5\t1.0\towl\n1.25\t2.0\tfox\n",
    "aud-bbox.txt": "0.5\t1.0\towl\n\\\t100.0\t900.0\n1.25\t2.0\tfox\n\\\t100.0\t900.0\n",
    "simple-seq.csv": "onset_s,offset_s,label\n0.5,1.0,owl\n1.25,2.0,fox\n",
    "generic-seq.csv": "label,onset_s,offset_s,notated_path,annot_path,sequence,annotation\n"
    "owl,0.5,1.0,rec0.wav,x.csv,0,0\nfox,1.25,2.0,rec0.wav,x.csv,0,0\n",
}


@pytest.mark.parametrize("name", OF_CROWSETTA)
def test_tables_of_crowsetta_are_read(tmp_path, name):
    (tmp_path / name).write_text(OF_CROWSETTA[name])
    ((file, marks),) = read_mark_file(tmp_path / name).items()
    assert file == ("rec0.wav" if name.startswith("generic") else None)
    assert [(mark.start, mark.end, mark.label) for mark in marks] == [(0.5, 1.0, "owl"), (1.25, 2.0, "fox")]
    assert {mark.low_hz for mark in marks} == ({100.0} if name == "aud-bbox.txt" else {None})


def test_rows_with_a_file_alone_say_that_nothing_is_marked_in_it(tmp_path):
    (tmp_path / "marks.csv").write_text("filename,onset,offset,event_label\na.wav,1,2,owl\nb.wav,,,\n")
    marks = read_mark_file(tmp_path / "marks.csv")
    assert (len(marks["a.wav"]), marks["b.wav"]) == (1, [])


def test_a_quote_that_is_not_closed_is_told_and_odd_spaces_stay_in_labels(tmp_path):
    (tmp_path / "quote.csv").write_text('file,start,end,label\na.wav,1,2,"owl\na.wav,3,4,fox\n')
    with pytest.raises(DataError, match="cannot be read as a table.*Close each quote"):
        read_mark_file(tmp_path / "quote.csv")
    (tmp_path / "line.txt").write_text("1\t2\tcaf\u2028e\n3\t4\tfox\n", encoding="utf-8")
    assert [mark.label for mark in read_mark_file(tmp_path / "line.txt")[None]] == ["caf\u2028e", "fox"]


# As Praat 6.4 writes "Down to Table" and "Save as tab-separated file", of a TextGrid of `ast-tag`.
OF_PRAAT = 'tmin\ttier\ttext\ttmax\n0.500000\tcalls\tcall\t1.250000\n1.000000\tothers\ta "b"\t2.000000\n'


def test_tables_of_praat_are_read(tmp_path):
    (tmp_path / "dawn.tsv").write_text(OF_PRAAT)
    marks = read_mark_file(tmp_path / "dawn.tsv")[None]
    assert [(mark.start, mark.end, mark.label) for mark in marks] == [(0.5, 1.25, "call"), (1.0, 2.0, 'a "b"')]
    assert [mark.label for mark in read_mark_file(tmp_path / "dawn.tsv", "tier")[None]] == ["calls", "others"]


@pytest.mark.parametrize("name", ["dawn.TextGrid", "dawn.txt"])
def test_a_textgrid_is_told_how_to_become_a_table(tmp_path, name):
    segments = [Segment("dawn.wav", 0.5, 1.25, "call", 0.9)]
    lines = textgrid_lines(FileTags("dawn.wav", [], segments, seconds=4.0))
    (tmp_path / name).write_text("\n".join(lines))
    words = "is a TextGrid of Praat, which is not read; .* Down to Table, .* name that dawn.tsv"
    with pytest.raises(DataError, match=words):
        read_mark_file(tmp_path / name)


@pytest.mark.parametrize("unmarked", [None, "background", "ignore"])
def test_a_textgrid_beside_a_recording_is_not_passed_over(tmp_path, unmarked):
    folder = write_marked(tmp_path / "recordings")
    (folder / "rec1.txt").rename(folder / "rec1.TextGrid")
    (folder / "rec2.TextGrid").write_text("")  # which has a label track, too
    data = DataArguments(dataset_name=str(folder), marks="beside", unmarked=unmarked)
    if unmarked == "ignore":
        sides = load_marked(data, 0).sides
        assert sum(map(len, sides.values())) == 5
        return
    with pytest.raises(DataError, match=r"rec1.TextGrid is a TextGrid of Praat, which is not read"):
        load_marked(data, 0)

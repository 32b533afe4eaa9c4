"""Scores of events: counted by hand, equal to sed_eval over random events, PSDS computed by hand, and what sed_eval leaves out."""

import json
import re
import sys

import numpy as np
import pytest
import soundfile

from finetune.run_events import main
from finetune.scores.event_scores import EventRule, joined, psds, score_events
from finetune.scores.event_tables import Event, EventTable, EventTableError, ScoreTable, read_events
from finetune.sources.mark_files import read_mark_file

sed_eval = pytest.importorskip("sed_eval")
from dcase_util.containers import MetaDataContainer  # noqa: E402


def table(**events) -> EventTable:
    return EventTable("table", {file: [Event(*event) for event in of_file] for file, of_file in events.items()})


MARKED = table(a=[(0.0, 1.0, "cat"), (5.0, 7.0, "dog"), (20.0, 30.0, "cat")], b=[], c=[(3.0, 3.5, "owl")])
FOUND = table(
    a=[
        (0.19, 1.0, "cat"),  # a hit
        (5.21, 7.0, "dog"),  # starts 10 ms too late
        (20.0, 28.1, "cat"),  # a hit: the end may be off by a fifth of ten seconds
        (20.1, 30.0, "cat"),  # could be that one too, which is taken
    ],
    b=[(1.0, 2.0, "dog")],
    c=[],
)
DURATIONS = {"a": 1800.0, "b": 3600.0, "c": 1800.0}


def test_events_are_counted_as_by_hand():
    scores = score_events(MARKED, FOUND, DURATIONS)
    assert scores["event_based"]["micro"] == {"f1": 4 / 9, "precision": 2 / 5, "recall": 2 / 4}
    assert scores["hours"] == 2
    assert scores["false_alarms_per_hour"] == 1.5
    cat, dog, owl = (scores["per_label"][label] for label in ("cat", "dog", "owl"))
    assert (cat["marked"], cat["found"], cat["hits"], cat["false_alarms_per_hour"]) == (2, 3, 2, 0.5)
    assert cat["event_based"] == {"f1": 4 / 5, "precision": 2 / 3, "recall": 1}
    assert dog["event_based"] == {"f1": 0, "precision": 0, "recall": 0}
    assert owl["event_based"] == {"f1": 0, "precision": None, "recall": 0}
    assert scores["event_based"]["macro_f1"] == pytest.approx(4 / 15)
    assert scores["per_recording"]["b"]["false_alarms_per_hour"] == 1
    assert scores["per_recording"]["b"]["event_based"] == {"f1": 0, "precision": 0, "recall": None}
    # Seconds of a: cat 0 and 20 to 29, dog 5 and 6; all of them found, besides one of b. Of c one is missed.
    assert scores["segment_based"]["micro"] == {
        "f1": pytest.approx(2 * 13 / 28), "precision": 13 / 14, "recall": 13 / 14
    }  # fmt: skip
    wide = score_events(MARKED, FOUND, {}, EventRule(collar=0.25), ["dog", "cow"])
    assert (wide["event_based"]["micro"]["f1"], wide["hours"]) == (2 / 3, None)
    assert (wide["neither"], wide["event_based"]["labels_in_macro"]) == (["cow"], 1)


def random_tables(seed: int) -> list[EventTable]:
    generator = np.random.default_rng(seed)
    marked, found = {}, {}
    for file in "wxyz":
        starts, lengths = generator.uniform(0, 50, 12), generator.uniform(0.1, 6, 12)
        labels = generator.choice(["none", " cow", "pig/hen", "dog"], 12)
        marked[file] = [
            (start, start + length, label) for start, length, label in zip(starts, lengths, labels, strict=True)
        ]
        found[file] = [
            (start + generator.normal(0, 0.15), start + length + generator.normal(0, 0.3), label)
            for start, length, label in marked[file][:9]
        ] + [(generator.uniform(0, 55), 56.0, "dog")]
    return [table(**events) for events in (marked, found)]


@pytest.mark.parametrize("seed", range(3))
def test_they_are_those_of_sed_eval(seed):
    marked, found = random_tables(seed)
    rule = EventRule(collar=0.25, length_share=0.1, segment=0.5)
    scores = score_events(marked, found, dict.fromkeys("wxyz", 60.0), rule)
    # dcase_util drops the label "none" and strips spaces: its own names here.
    names = {"none": "nothing", " cow": "cow", "pig/hen": "pig", "dog": "dog"}
    events = sed_eval.sound_event.EventBasedMetrics(sorted(names.values()), t_collar=0.25, percentage_of_length=0.1)
    segments = sed_eval.sound_event.SegmentBasedMetrics(sorted(names.values()), time_resolution=0.5)
    for file in "wxyz":
        lists = [
            MetaDataContainer(
                [
                    {"file": file, "onset": start, "offset": end, "event_label": names[label]}
                    for start, end, label in each.events[file]
                ]
            )
            for each in (marked, found)
        ]
        events.evaluate(*lists)
        segments.evaluate(*lists, evaluated_length_seconds=60)
    for kind, metrics in (("event_based", events), ("segment_based", segments)):
        overall = metrics.results_overall_metrics()["f_measure"]
        assert scores[kind]["micro"]["f1"] == pytest.approx(overall["f_measure"], abs=1e-12)
        assert scores[kind]["micro"]["recall"] == pytest.approx(overall["recall"], abs=1e-12)
        of_labels = metrics.results_class_wise_metrics()
        for label, name in names.items():
            expected = of_labels[name]["f_measure"]
            assert scores["per_label"][label][kind]["f1"] == pytest.approx(expected["f_measure"], abs=1e-12)
            assert scores["per_label"][label][kind]["precision"] == pytest.approx(expected["precision"], abs=1e-12)


def test_a_label_that_is_never_found_counts_in_the_mean_where_sed_eval_leaves_it_out():
    marked, found = table(a=[(0, 1, "cat"), (5, 6, "dog")]), table(a=[(0, 1, "cat")])
    metrics = sed_eval.sound_event.EventBasedMetrics(["cat", "dog"])
    metrics.evaluate(
        *(
            MetaDataContainer(
                [{"file": "a", "onset": s, "offset": e, "event_label": label} for s, e, label in each.events["a"]]
            )
            for each in (marked, found)
        )
    )
    assert metrics.results_class_wise_average_metrics()["f_measure"]["f_measure"] == 1
    assert score_events(marked, found, {})["event_based"]["macro_f1"] == 0.5


def scores_of(times, **columns) -> ScoreTable:
    return ScoreTable(np.array(times, float), np.stack([*map(np.asarray, columns.values())], axis=1), list(columns))


def test_psds_is_that_computed_by_hand():
    pytest.importorskip("sed_scores_eval")
    marked = table(a=[(10, 15, "cat"), (15, 20, "cat")])
    assert joined(marked.events["a"]) == [(10, 20, "cat")]
    # One false alarm scores higher: found from one false alarm an hour on, of a hundred. Lower scores join it to the rest, and a
    # third of what is found then is enough for the second scenario.
    scores = {"a": scores_of([0, 10, 20, 30, 40], cat=[0.1, 0.9, 0.2, 0.95], cow=[1.0, 1.0, 1.0, 1.0])}
    found = psds(marked, scores, {"a": 3600.0})
    assert found == {
        "psds1": pytest.approx(0.99), "psds2": 1, "per_label": {"cat": {"psds1": pytest.approx(0.99), "psds2": 1}}
    }  # fmt: skip
    # Mean less deviation of two labels: 0 while one of them is not found, which takes half of the false alarms.
    times = np.arange(0, 201)
    alarms = np.zeros(200)
    alarms[2:101:2], alarms[150] = 0.9, 0.5  # 50 of them
    cat = np.zeros(200)
    cat[120] = 0.9
    marked = table(a=[(150, 151, "dog"), (120, 121, "cat")])
    found = psds(marked, {"a": scores_of(times, cat=cat, dog=alarms)}, {"a": 3600.0})
    assert (found["psds1"], found["per_label"]["dog"]["psds1"]) == (pytest.approx(0.5), pytest.approx(0.5))
    # Where there is no score nothing is found, however low the threshold.
    gaps = {"a": scores_of([0, 150, 151, 200], cat=[-np.inf, -np.inf, -np.inf], dog=[-np.inf, 0.0, -np.inf])}
    found = psds(marked, gaps, {"a": 3600.0})
    assert found["per_label"] == {"cat": {"psds1": 0, "psds2": 0}, "dog": {"psds1": 1, "psds2": 1}}
    with pytest.raises(EventTableError, match="1 have no scores, such as a"):
        psds(marked, {}, {"a": 3600.0})
    with pytest.raises(EventTableError, match="1 have no known length, such as a"):
        psds(marked, gaps, {})


def test_the_command_reads_what_ast_tag_writes_and_other_tables(tmp_path, capsys):
    (tmp_path / "recordings").mkdir()
    for name, seconds in (("a.wav", 36), ("b.wav", 72)):
        soundfile.write(tmp_path / "recordings" / name, np.zeros(seconds * 1000), 1000)
    tags, marked = tmp_path / "tags.csv", tmp_path / "marked.tsv"
    tags.write_text("file,start,end,label,score\nrecordings/a.wav,1.000,2.000,NA,0.9\nrecordings/b.wav,5,6,NA,0.8\n")
    marked.write_text("filename\tonset\toffset\tevent_label\na.wav\t1.1\t2.05\tNA\nb.wav\t\t\t\n")
    output = tmp_path / "events.json"
    windows = tmp_path / "windows.csv"
    windows.write_text("file,start,end,label,score\na.wav,0,1.1,NA,0.1\na.wav,1.1,2.05,NA,0.9\nb.wav,0,72,NA,0\n")
    argv = [tags, "--reference", marked, "--audio_dir", tmp_path / "recordings", "--output", output]
    assert main([*map(str, argv)]) == 0
    said = capsys.readouterr().out
    assert "event-based: F1 0.667 of all together (micro), 0.667 as the mean of 1 labels (macro)" in said
    assert "false alarms per hour: 33.33 in 0.03 h" in said
    assert json.loads(output.read_text())["per_recording"]["b.wav"]["false_alarms_per_hour"] == pytest.approx(50)
    pytest.importorskip("sed_scores_eval")
    assert main([*map(str, argv), "--scores", str(windows)]) == 0
    assert "PSDS: 1.000 (scenario 1), 1.000 (scenario 2)" in capsys.readouterr().out


def test_a_folder_of_recordings_with_marks_beside_them_is_a_reference(tmp_path, capsys):
    folder, tags = tmp_path / "recordings", tmp_path / "tags.csv"
    folder.mkdir()
    for name in ("a", "b", "unmarked"):
        soundfile.write(folder / f"{name}.wav", np.zeros(36_000), 1000)
    (folder / "a.txt").write_text("1.1\t2.05\towl\n")
    (folder / "b.txt").write_text("")
    tags.write_text(f"file,start,end,label,score\n{folder}/a.wav,1,2,owl,0.9\n{folder}/b.wav,5,6,owl,0.8\n")
    assert main([str(tags), "--reference", str(folder)]) == 0
    said = capsys.readouterr().out
    assert "event-based: F1 0.667 of all together (micro)" in said
    assert "false alarms per hour: 50.00 in 0.02 h" in said
    (folder / "stray.txt").write_text("1\t2\towl\n")
    assert main([str(tags), "--reference", str(folder)]) == 2
    assert "about a recording that is not there" in capsys.readouterr().err


def test_without_the_libraries_it_says_what_to_install(tmp_path, capsys, monkeypatch):
    marked = tmp_path / "marked.csv"
    marked.write_text("file,start,end,label,duration,score\na,1,2,x,9,0.5\n")
    argv = [str(marked), "--reference", str(marked)]
    for module, extra, more in (
        ("sed_scores_eval.intersection_based", "psds", ["--scores", str(marked)]),
        ("sed_eval", "events", []),
    ):
        monkeypatch.setitem(sys.modules, module, None)
        assert main([*argv, *more]) == 2
        said = capsys.readouterr().err
        assert module.split(".")[0] in said
        assert extra in said.partition("Type ")[2]


@pytest.mark.parametrize("suffix", [".txt", ".csv"])
def test_event_lists_of_dcase_util_are_read(tmp_path, capsys, suffix):
    rows = [
        {"filename": "a.wav", "onset": 0.5, "offset": 1.0, "event_label": "owl"},
        {"filename": "b.wav", "onset": 1.25, "offset": 2.0, "event_label": "fox"},
    ]
    path = tmp_path / f"events{suffix}"
    MetaDataContainer(rows).save(str(path))
    events = read_events(path).events
    assert events == {"a.wav": [Event(0.5, 1.0, "owl")], "b.wav": [Event(1.25, 2.0, "fox")]}
    marks = read_mark_file(path)
    assert {file: [(mark.start, mark.end, mark.label) for mark in found] for file, found in marks.items()} == events
    (tmp_path / "semicolons.csv").write_text("file;start;end;label\na.wav;0.5;1.0;owl\nb.wav;1.25;2.0;fox\n")
    assert read_events(tmp_path / "semicolons.csv").events == events


def test_how_long_a_stretch_lasts_is_not_taken_for_the_recording(tmp_path, capsys):
    marked = tmp_path / "marked.csv"
    marked.write_text("file,start,end,label,duration\na,1,2,x,1.0\na,3,4.504,x,1.5\nb,,,,\n")
    assert main([str(marked), "--reference", str(marked)]) == 0
    said = capsys.readouterr().out
    assert "event-based: F1 1.000" in said
    assert "false alarms per hour: unknown" in said
    marked.write_text("file,start,end,label,duration\na,1,2,x,1\nb,,,,60\n")
    assert read_events(marked).durations == {"b": 60.0}
    marked.write_text("file,start,end,label,duration\na,0,60,x,60\nb,0,30,y,30\n")
    assert read_events(marked).durations == {"a": 60.0, "b": 30.0}
    marked.write_text("file,start,end,label,duration\na,1,2,x,10\na,3,4.5,x,10\nb,,,,20\n")
    assert main([str(marked), "--reference", str(marked)]) == 0
    assert "false alarms per hour: 0.00 in 0.01 h" in capsys.readouterr().out


WRONG = {
    "file,start,end\na,1,2\n": r"has no column label; it has file, start, end\. The first line names",
    "file,start,end,label\na,1,2\nb,1,2,x,5\n": r"row 2: 5 cells under 4 columns",
    "file,start,end,label\na,1,2,x\na,3,2,x\n": "row 2: the stretch ends at 2 s before it starts, at 3 s",
    "file,start,end,label\na,-1,2,x\n": "row 1: start is -1 s, before the recording begins",
    'file,start,end,label\na,"1,5",2,x\n': r"row 1: start is '1,5', expected a number\. Write a decimal point",
    "file,start,end,label\na,1,nan,x\n": "row 1: end is 'nan', expected a number",
    "file,start,end,label\na,1,2,\n": r"row 1 has no label\. Fill it in",
    "file,start,end,label,duration\na,1,2,x,10\na,3,4,x,11\n": "row 2: a lasts 11 s here and 10 s above",
    "file,start,end,label,duration\na,1,12,x,10\n": "a stretch of a ends at 12 s, and the recording lasts 10 s",
    "file,start,end,label\nb/z,1,2,x\n": "predicted.csv names a, which the reference does not",
}


@pytest.mark.parametrize("text", WRONG, ids=lambda text: WRONG[text][:30])
def test_tables_that_cannot_be_scored_are_refused_in_words(tmp_path, capsys, text):
    reference, predicted = tmp_path / "reference.csv", tmp_path / "predicted.csv"
    reference.write_text(text)
    predicted.write_text("file,start,end,label\na,1,2,x\n")
    assert main([str(predicted), "--reference", str(reference)]) == 2
    said = capsys.readouterr().err
    assert re.search(WRONG[text], said), said


def test_other_wrong_input(tmp_path, capsys):
    reference = tmp_path / "reference.csv"
    reference.write_text("file,start,end,label\nx/a.wav,1,2,x\ny/a.wav,1,2,x\n")
    assert read_events(reference).labels == ["x"]
    for text, words in (
        ("file,start,end,label\na.wav,1,2,x\n", "names a.wav, which the reference does not, or not by one name"),
        ("file,start,end,label\nx/a.wav,1,2,x\n", None),
    ):
        (tmp_path / "predicted.csv").write_text(text)
        code = main([str(tmp_path / "predicted.csv"), "--reference", str(reference)])
        said = capsys.readouterr()
        assert code == (2 if words else 0)
        assert words is None or words in said.err
    argv = [str(reference), "--reference", str(reference)]
    for more, words in (
        (["--collar", "-1"], "collar=-1.0 is no tolerance"),
        (["--segment", "0"], "segment=0.0 is no tolerance"),
        (["--audio_dir", str(tmp_path)], "has no x/a.wav. Put it there"),
        (["--scores", str(tmp_path / "gone.csv")], "There is no file"),
        (["--scores", str(reference)], "has no column score"),
    ):
        assert main([*argv, *more]) == 2
        assert words in capsys.readouterr().err
    overlapping = tmp_path / "windows.csv"
    overlapping.write_text("file,start,end,label,score\nx/a.wav,0,2,x,1\nx/a.wav,1,3,x,1\n")
    assert main([*argv, "--scores", str(overlapping)]) == 2
    assert "starts at 1 s within another, which ends at 2 s. Write the mean" in capsys.readouterr().err

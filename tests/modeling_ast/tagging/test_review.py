"""`ast-tag --review`: which events are asked about, that clips are the recordings' own samples, and what is refused."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from tagged_models import LABELS, WINDOW, noise, save_checkpoint, write

from modeling_ast.run_tagging import main
from modeling_ast.tagging.events import EventRules
from modeling_ast.tagging.results import FileTags, Segment
from modeling_ast.tagging.review import CONFIDENT, UNCERTAIN, Review

SECONDS = WINDOW / 16_000


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    """A long recording in stereo at another rate, one of 16 bits, and one that is shorter than a window."""
    folder = tmp_path_factory.mktemp("recordings")
    stereo = np.stack([noise(22_050 * 12, 1), noise(22_050 * 12, 2)], axis=1)
    soundfile.write(folder / "a.flac", stereo, 22_050)
    soundfile.write(folder / "b, long.wav", noise(16_000 * 7, 3), 16_000)
    write(folder / "c.wav", noise(6_000, 4))
    return folder


def reviewed(recordings, model, folder, *flags) -> list[dict]:
    command = [str(recordings), "--model_name_or_path", str(model), "--review", str(folder), *flags]
    assert main(command) == 0
    with open(folder / "metadata.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def segments_of(recordings, model, capsys, *flags) -> list[dict]:
    capsys.readouterr()
    assert main([str(recordings), "--model_name_or_path", str(model), "--timeline", "--format", "jsonl", *flags]) == 0
    files = map(json.loads, capsys.readouterr().out.splitlines())
    return [segment | {"file": found["file"]} for found in files for segment in found["segments"]]


@pytest.mark.parametrize("kind", ["single_label", "multi_label"])
def test_clips_are_the_recordings_own_samples_around_events(kind, recordings, tmp_path, capsys, request):
    model = request.getfixturevalue(kind)
    rows = reviewed(recordings, model, tmp_path / "review", "--per_label", "6")
    said = capsys.readouterr().out
    assert f"{len(rows)} clips to judge are in {tmp_path / 'review'}: correct the column label" in said
    events = segments_of(recordings, model, capsys)
    names = sorted(path.name for path in (tmp_path / "review").iterdir())
    assert names == sorted([row["file_name"] for row in rows] + ["metadata.csv"])
    for row in rows:
        start, end = float(row["recording_start"]), float(row["recording_end"])
        whole, rate = soundfile.read(row["recording"], dtype="float32", always_2d=True)
        clip, clip_rate = soundfile.read(tmp_path / "review" / row["file_name"], dtype="float32", always_2d=True)
        length = len(whole) / rate
        assert clip_rate == rate
        assert end - start == pytest.approx(min(SECONDS, length), abs=0.002)
        found = round(start * rate)
        places = [place for place in range(found - 30, found + 31) if place >= 0]  # the table has milliseconds
        assert any(np.array_equal(whole[place : place + len(clip)], clip) for place in places)
        event = min(
            (event for event in events if (event["file"], event["label"]) == (row["recording"], row["asked"])),
            key=lambda event: abs(event["score"] - float(row["score"])),
            default={"score": None},
        )
        if event["score"] == pytest.approx(float(row["score"]), abs=1e-6):  # else one that does not count
            middle = min(max((event["start"] + event["end"]) / 2, SECONDS / 2), max(length - SECONDS / 2, 0))
            assert (start + end) / 2 == pytest.approx(middle if length > SECONDS else length / 2, abs=0.002)
        else:
            assert kind == "multi_label"
            assert (row["reason"], row["asked"] in row["label"].split(";")) == (UNCERTAIN, False)
    assert len({row["asked"] for row in rows}) > 1
    assert {row["reason"] for row in rows} == {UNCERTAIN, CONFIDENT}


def test_the_sure_and_the_unsure_ones_are_asked_about(recordings, single_label, tmp_path, capsys):
    rows = reviewed(recordings, single_label, tmp_path / "review", "--per_label", "2", "--hop", "0.9")
    events = segments_of(recordings, single_label, capsys, "--hop", "0.9")
    assert len({event["label"] for event in events}) > 1
    for label in {event["label"] for event in events}:
        scores = sorted(event["score"] for event in events if event["label"] == label)
        asked = {row["reason"]: float(row["score"]) for row in rows if row["asked"] == label}
        assert asked == {
            UNCERTAIN: pytest.approx(scores[0], abs=1e-6),
            CONFIDENT: pytest.approx(scores[-1], abs=1e-6),
        }


def test_events_that_just_do_not_count_are_asked_about_too(recordings, tmp_path, capsys):
    thresholds = {"clap": 0.95, "kick": 0.7, "tom-tom": 0.6}
    model = save_checkpoint(tmp_path / "model", "multi_label_classification")
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"label_thresholds": thresholds}))
    rows = reviewed(recordings, model, tmp_path / "review", "--per_label", "6")
    counting = segments_of(recordings, model, capsys)
    faint = [row for row in rows if row["asked"] not in row["label"].split(";") and row["reason"] == UNCERTAIN]
    assert faint
    for row in faint:
        assert thresholds[row["asked"]] / 2 <= float(row["score"])
        assert row["label"] == ";".join(label for label in LABELS if label in row["label"].split(";"))
    for label in LABELS:
        highest = [event["score"] for event in counting if event["label"] == label]
        sure = [float(row["score"]) for row in rows if (row["asked"], row["reason"]) == (label, CONFIDENT)]
        assert sure == sorted(sure, reverse=True)
        assert all(score <= max(highest) + 1e-6 and score >= thresholds[label] - 1e-6 for score in sure)


def test_the_same_recordings_give_the_same_clips_byte_for_byte(recordings, multi_label, tmp_path):
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        reviewed(recordings, multi_label, folder)
    one, two = ({path.name: path.read_bytes() for path in folder.iterdir()} for folder in folders)
    assert one == two


def event(label: str, score: float, start: float, length: float = 0.2, file: str = "x.wav") -> Segment:
    return Segment(file, start, start + length, label, score)


def test_the_least_sure_and_the_surest_of_many_recordings_are_held_and_no_more():
    review = Review(["a"], EventRules(0.5), seconds=1.0, per_label=4)
    scores = np.random.default_rng(0).permutation(np.linspace(0.26, 0.99, 300))
    for number, three in enumerate(scores.reshape(100, 3)):
        placed = [event("a", score, 3.0 * place, file=f"{number}.wav") for place, score in enumerate(three, 1)]
        counting = [segment for segment in placed if segment.score >= 0.5]
        review.add(FileTags(f"{number}.wav", [], counting, seconds=20.0, faint=placed))
        assert len(review._doubtful["a"]) <= 8
    found = [(candidate.score, reason) for candidate, reason in review.chosen()]
    nearest = sorted(scores, key=lambda score: abs(score - 0.5))[:2]
    assert found == [(score, UNCERTAIN) for score in nearest] + [
        (score, CONFIDENT) for score in sorted(scores)[:-3:-1]
    ]


def test_where_one_kind_is_too_few_the_other_fills_up():
    rules = EventRules(0.0, exclusive=True)
    few = Review(["a", "b"], rules, seconds=1.0, per_label=20)
    few.add(FileTags("x.wav", [], [event("a", 0.9, 0), event("a", 0.5, 5), event("b", 0.7, 8)], seconds=10.0))
    rows = [(candidate.asked, candidate.score) for candidate, _ in few.chosen()]
    assert rows == [("a", 0.5), ("a", 0.9), ("b", 0.7)]
    faint_only = Review(["a"], EventRules(0.5), seconds=1.0, per_label=2)
    faint_only.add(
        FileTags("x.wav", [], [], seconds=10.0, faint=[event("a", 0.4, 0), event("a", 0.3, 5), event("a", 0.26, 8)])
    )
    assert [(candidate.score, reason) for candidate, reason in faint_only.chosen()] == [
        (0.4, UNCERTAIN),
        (0.3, UNCERTAIN),
    ]


def test_no_stretch_is_asked_about_twice():
    review = Review(["a", "b"], EventRules(0.5), seconds=2.0, per_label=4)
    near = [event("a", 0.9, 4.0), event("a", 0.8, 4.3), event("a", 0.7, 5.5), event("b", 0.9, 4.0)]
    review.add(FileTags("x.wav", [], near, seconds=10.0, faint=near))
    rows = [(candidate.asked, candidate.start, candidate.labels) for candidate, _ in review.chosen()]
    # The clip of the second event is nearly that of the first one, which is the surest; "b" is heard in the clip that "a" is asked about.
    assert rows == [("a", pytest.approx(4.6), ("a",)), ("a", pytest.approx(3.1), ("a", "b"))]


def test_a_file_that_cannot_be_tagged_or_cut_is_said_and_the_others_are_written(
    recordings, single_label, tmp_path, capsys, monkeypatch
):
    from modeling_ast.audio import AudioError
    from modeling_ast.tagging import review

    (tmp_path / "text.wav").write_text("no audio")
    read = review.read_excerpts

    def gone(path, spans):
        if path.endswith("a.flac"):
            raise AudioError(f"{path} is gone.")
        return read(path, spans)

    monkeypatch.setattr(review, "read_excerpts", gone)
    command = [str(recordings), str(tmp_path / "text.wav"), "--model_name_or_path", str(single_label)]
    assert main([*command, "--review", str(tmp_path / "review")]) == 1
    said = capsys.readouterr().err
    assert "text.wav" in said
    assert "a.flac is gone." in said
    with open(tmp_path / "review" / "metadata.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {Path(row["recording"]).name for row in rows} == {"b, long.wav", "c.wav"}
    assert all((tmp_path / "review" / row["file_name"]).exists() for row in rows)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--output", "tags.csv"], "--output is about results, and --review writes clips in their place"),
        (["--format", "csv"], "--format csv is about results"),
        (["--picture", "p.png"], "--picture is about results"),
        (["--top_k", "3"], "--top_k 3 is about results"),
        (["--channels", "each"], "--review cuts clips with all their channels"),
        (["--per_label", "0"], "'0' is not a whole number from 1 on"),
        (["--threshold", "2"], "threshold=2.0 is not a score"),
    ],
)
def test_what_does_not_go_together_is_refused(flags, message, recordings, single_label, tmp_path, capsys):
    command = [str(recordings), "--model_name_or_path", str(single_label), "--review", str(tmp_path / "review")]
    with pytest.raises(SystemExit) as ended:
        main([*command, *flags])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "review").exists()


def test_nothing_is_written_over(recordings, single_label, tmp_path, capsys):
    (tmp_path / "review").mkdir()
    (tmp_path / "review" / "metadata.csv").write_text("corrected")
    command = [str(recordings), "--model_name_or_path", str(single_label)]
    with pytest.raises(SystemExit):
        main([*command, "--review", str(tmp_path / "review")])
    assert "review already exists. Name another one, or remove it first." in capsys.readouterr().err
    assert (tmp_path / "review" / "metadata.csv").read_text() == "corrected"
    with pytest.raises(SystemExit):
        main([*command, "--per_label", "3"])
    assert "--per_label is about the clips of --review. Add --review DIR" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["-", "--model_name_or_path", str(single_label), "--review", str(tmp_path / "other")])
    assert "--review is about files" in capsys.readouterr().err


def test_without_any_event_there_is_no_folder(recordings, multi_label, tmp_path, capsys):
    command = [str(recordings), "--model_name_or_path", str(multi_label), "--review", str(tmp_path / "review")]
    with pytest.raises(SystemExit):
        main([*command, "--min_duration", "1000"])
    assert "No event was found in any recording, of which clips could be made." in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_names_of_labels_that_no_file_could_have_are_told_in_the_table(recordings, tmp_path):
    labels = ("a/b", "=1+1", "鼓")
    model = save_checkpoint(tmp_path / "model", "multi_label_classification", labels)
    rows = reviewed(recordings, model, tmp_path / "review", "--threshold", "0.6", "--per_label", "3")
    assert {row["asked"] for row in rows} == set(labels)
    ends = {row["asked"]: row["file_name"][5:] for row in rows}
    assert ends == {"a/b": "a-b.wav", "=1+1": "1-1.wav", "鼓": "label.wav"}


def test_a_faint_event_around_one_that_counts_is_no_event_of_its_own():
    review = Review(["a"], EventRules(0.5), seconds=1.0, per_label=4)
    faint = [event("a", 0.45, 2.0, length=6.0), event("a", 0.3, 12.0)]
    review.add(FileTags("x.wav", [], [event("a", 0.9, 2.5)], seconds=20.0, faint=faint))
    assert sorted(candidate.score for candidate, _ in review.chosen()) == [0.3, 0.9]

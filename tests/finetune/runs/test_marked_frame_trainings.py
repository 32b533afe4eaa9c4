"""A frame head trained on stretches that are marked in long recordings: targets by a NumPy formula, and the whole way to events."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml
from marked_sounds import RATE, TONES, write_marked
from tiny_trainings import summary_in

from finetune.arguments.data_arguments import DataArguments
from finetune.augmentations.augmentation import Augmentation
from finetune.augmentations.augmentation_step import TrainingClip
from finetune.augmentations.mixup import Mixup
from finetune.clip_sets.marked_windows import marked_clip_sets
from finetune.run_events import main as score
from finetune.run_finetune import main
from finetune.sources.marked_recordings import load_marked
from modeling_ast import ASTFeatureExtractor
from modeling_ast.audio import AudioError
from modeling_ast.frame_columns import FrameColumns
from modeling_ast.run_tagging import main as tag
from modeling_ast.tagging import AudioTagger

FRAMES = 96
WINDOW = (FRAMES * 160 + 240) / RATE
TINY = {
    "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32, "max_length": FRAMES,
    "num_train_epochs": 30, "per_device_train_batch_size": 5, "learning_rate": 3.0e-3, "mixup_probability": 0.2,
    "use_cpu": True, "disable_tqdm": True, "head": "frame", "marks": "beside",
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_marked(tmp_path_factory.mktemp("marked") / "recordings")


def frame_clips(folder, **fields):
    data = DataArguments(dataset_name=str(folder), **{"marks": "beside"} | fields)
    sets = marked_clip_sets(load_marked(data, 0), data)
    return {side: split.with_frames(FrameColumns()).of_length(WINDOW) for side, split in sets.items()}


def marked_share(item, start, labels, edges):
    """Of each column the share of its time that is marked with each label, counted in steps of 0.1 ms of the recording."""
    moments = np.arange(0, 9, 1e-4) + 5e-5
    marked = np.zeros((len(labels), len(moments)))
    for mark in [*item.marks, *item.unknown]:
        if mark.label in labels:
            marked[labels.index(mark.label), (moments >= mark.start) & (moments < mark.end)] = 1
    column = np.searchsorted(start + edges, moments, side="right") - 1
    inside = (column >= 0) & (column < len(edges) - 1)
    return np.stack(
        [np.bincount(column[inside], row[inside], len(edges) - 1) * 1e-4 / np.diff(edges) for row in marked], axis=1
    )


def edges_of(frames):
    """Columns of 16 frames, 10 apart, of 10 ms and 25 ms long: each stands for the 100 ms around its middle."""
    middles = (np.arange((frames - 16) // 10 + 1) * 10 + 7.5) * 0.01 + 0.0125
    return np.concatenate([[0], middles[1:] - 0.05, [0.025 + 0.01 * (frames - 1)]])


def test_targets_of_training_windows_are_the_marked_time(folder):
    train = frame_clips(folder)["train"]
    items = train.dataset(ASTFeatureExtractor(max_length=FRAMES), Augmentation(), seed=3)
    seen = 0
    for epoch in range(4):
        for index in range(len(items)):
            placed = train.window(index, 3, epoch)
            shares = marked_share(
                train.recordings[placed.recording],
                round(placed.start * RATE) / RATE,
                ["high", "low"],
                edges_of(FRAMES),
            )
            label = items[epoch, index]["label"]
            assert label.shape == (9, 2)
            clear = np.abs(shares - 0.5) > 0.01
            np.testing.assert_array_equal(label[clear], (shares > 0.5)[clear])
            assert (index < train.num_stretches) == label.any()
            seen += int(label.sum())
    assert seen > 100


def test_scored_windows_tell_each_moment_once(folder):
    """All of the grid is scored, windows that hold a splinter of a stretch too."""
    (scored,) = [split for side, split in frame_clips(folder).items() if side != "train"]
    items = scored.dataset(ASTFeatureExtractor(max_length=FRAMES))
    edges, told = edges_of(FRAMES), {}
    for index, placed in enumerate(scored.scored_windows()):
        item = scored.recordings[placed.recording]
        label, shares = items[index]["label"], marked_share(item, placed.start, ["high", "low"], edges)
        counts = (label >= 0).all(axis=1)
        clear = (np.abs(shares - 0.5) > 0.01) & counts[:, None]
        np.testing.assert_array_equal(label[clear], (shares > 0.5)[clear])
        middles = placed.start + (edges[:-1] + edges[1:]) / 2
        told.setdefault(placed.recording, []).append(np.stack([middles, np.diff(edges)], axis=1)[counts])
    assert len(told) == len(scored.recordings)
    for parts in told.values():
        middles, lengths = np.concatenate(parts).T
        assert (np.diff(middles) > 0.04).all(), "no moment is scored twice"
        assert np.diff(middles).max() < 0.16, "none is left out"
        assert (middles[0], 8.0 - middles[-1]) < (0.1, 0.1)
        assert lengths.sum() == pytest.approx(8.0, abs=0.1)


def test_a_splinter_at_the_edge_of_a_window_counts_in_no_frame(folder):
    """A long stretch of which a window holds 10 ms is no click of 10 ms."""
    train = frame_clips(folder)["train"]
    number = next(place for place, item in enumerate(train.recordings) if item.marks)
    mark = train.recordings[number].marks[0]
    for start in (mark.end - 0.01, mark.start + 0.01 - WINDOW):
        placed = train.placed(number, max(start, 0.0))
        targets = train.frame_targets(placed, start, FRAMES)
        label = train.labels.index(mark.label)
        assert not targets[0 if start > mark.start else -1, label].any()
    assert train.frame_targets(placed, mark.start - 0.01, FRAMES)[1, label] == 1


def test_frames_of_left_out_labels_do_not_count(folder):
    (scored,) = [split for side, split in frame_clips(folder, ignore_labels=["low"]).items() if side != "train"]
    items = scored.dataset(ASTFeatureExtractor(max_length=FRAMES))
    hidden = 0
    for index, placed in enumerate(scored.scored_windows()):
        label, item = items[index]["label"], scored.recordings[placed.recording]
        shares = marked_share(item, placed.start, ["low"], edges_of(FRAMES))[:, 0]
        assert (label[shares > 0] == -100).all()
        hidden += int((shares > 0).sum())
        if placed.start + WINDOW < 7.9:
            assert (label[shares == 0] >= 0).all()
    assert hidden >= 5


def test_frames_of_which_nothing_is_known_are_not_known_after_mixing():
    known, unknown = np.eye(4, 2, dtype=np.float32), np.eye(4, 2, dtype=np.float32)
    unknown[2] = -100
    clips = [TrainingClip(np.ones(8_000, np.float32), labels, RATE) for labels in (known, unknown)]
    for clip, partner in (clips, clips[::-1]):
        label = Mixup(mixup_probability=1.0).change_waveform(clip, {"weight": 0.999}, partner).label
        np.testing.assert_array_equal(label[2], -100)
        np.testing.assert_allclose(label[[0, 1, 3]], known[[0, 1, 3]])


def test_a_place_without_a_length_counts_in_the_frame_that_holds_it(tmp_path):
    folder = write_marked(tmp_path / "places", [[(2.0, 2.0, "low")], [(3.0, 3.0, "low")], []])
    train = frame_clips(folder)["train"]
    number, place = next((number, item.marks[0].start) for number, item in enumerate(train.recordings) if item.marks)
    placed = train.placed(number, place - 0.41)
    targets = train.frame_targets(placed, placed.start, FRAMES)
    assert np.flatnonzero(targets[:, train.labels.index("low")]).tolist() == [int((0.41 - 0.0375) / 0.1)]
    assert not train.frame_targets(placed, place + 0.1, FRAMES).any()


def test_from_marked_recordings_to_events(folder, tmp_path, capsys):
    """Trained, scored, with a card, and its events begin and end where tones of an unheard recording do."""
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(TINY | {"dataset_name": str(folder), "output_dir": str(tmp_path / "run")}))
    assert main([str(recipe)]) == 0, capsys.readouterr().err
    said = capsys.readouterr().out
    assert "windows of 0.97 s: 10 around marked stretches and 10 of background in every epoch" in said
    assert "have no part" not in said
    run = tmp_path / "run"
    summary = summary_in(run)
    # Eight seconds of a recording in columns of 100 ms; the first and the last of a window are longer.
    (recordings,) = [of["recordings"] for side, of in summary["data"]["splits"].items() if side != "train"]
    assert 8 * 9 * recordings <= summary["evaluation"]["frames"] <= 80 * recordings
    assert summary["evaluation"]["clips"] == 9 * recordings
    assert summary["evaluation"]["metrics"]["mean_average_precision"] > 0.8
    card = (run / "README.md").read_text()
    assert "gives each 100 ms" in card
    assert "by recording" in card

    seconds = np.arange(4 * RATE) / RATE
    times = [(0.8, 1.4, "low"), (1.9, 2.4, "high"), (3.0, 3.5, "low")]
    sound = 0.01 * np.random.default_rng(9).standard_normal(len(seconds))
    for start, end, label in times:
        sound += 0.3 * np.sin(2 * np.pi * TONES[label] * seconds) * ((seconds >= start) & (seconds < end))
    soundfile.write(tmp_path / "new.wav", sound.astype(np.float32), RATE)
    assert tag([str(tmp_path / "new.wav"), "--model_name_or_path", str(run), "--timeline", "--format", "jsonl"]) == 0
    events = json.loads(capsys.readouterr().out)["segments"]
    assert [each["label"] for each in sorted(events, key=lambda each: each["start"])] == [label for *_, label in times]
    for each, (start, end, _) in zip(sorted(events, key=lambda each: each["start"]), times, strict=True):
        assert (each["start"], each["end"]) == pytest.approx((start, end), abs=0.16)

    second = ["--hard_negatives", str(run), "--output_dir", str(tmp_path / "second")]
    assert main([str(recipe), *second]) == 2
    assert "run cannot be loaded: it has a frame head" in capsys.readouterr().err


@pytest.mark.parametrize("head", ["frame", "clip"])
def test_rules_of_events_are_chosen_on_validation_recordings_and_found_events_scored(tmp_path, capsys, head):
    generator, data = np.random.default_rng(0), tmp_path / "data"
    for side, number in (("train", 4), ("validation", 2), ("test", 2)):
        times = []
        for _ in range(number):
            starts = np.cumsum(generator.uniform(0.8, 1.6, 5)) - 0.6
            times.append(
                [(round(s, 2), round(s + 0.5, 2), ["low", "high"][int(generator.integers(2))]) for s in starts]
            )
        write_marked(data / side, times)
    run = tmp_path / "run"
    settings = TINY | {"dataset_name": str(data), "output_dir": str(run), "validation_split_name": "validation"}
    settings |= {"max_length": 48, "num_train_epochs": 12} if head == "clip" else {}
    if head == "clip":
        settings.pop("head")
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(settings))
    assert main([str(tmp_path / "recipe.yaml")]) == 0, capsys.readouterr().err
    said = capsys.readouterr().out
    events = summary_in(run)["evaluation"]["events"]
    assert f"events of 2 recordings: F1 {events['event_based']['micro']['f1']:.3f}" in said
    rules = json.loads((run / "config.json").read_text())["event_rules"]
    assert set(rules) == {"low", "high"}
    assert rules == events["rules"]
    assert [Path(row["file"]).name for row in events["per_recording"]] == ["rec0.wav", "rec1.wav"]
    # What ast-tag finds with that checkpoint and nothing else given has these scores by ast-events.
    found, scores = tmp_path / "found.csv", tmp_path / "scores.json"
    common = ["--model_name_or_path", str(run), "--device", "cpu", "--timeline", "--format", "csv"]
    assert tag([str(data / "test"), *common, "--output", str(found)]) == 0
    assert score([str(found), "--reference", str(data / "test"), "--output", str(scores)]) == 0
    again = json.loads(scores.read_text())
    for name in ("event_based", "segment_based", "false_alarms_per_hour"):
        assert again[name] == pytest.approx(events[name]) if name.startswith("false") else again[name] == events[name]
    card = (run / "README.md").read_text()
    assert "Events, as `ast-tag --timeline` finds them in 2 held-out recordings of 0.3 minutes together" in card
    assert "chosen for each label on the validation recordings" in card
    f1 = events["per_label"]["low"]["event_based"]["f1"]
    assert f"| `low` | {events['per_label']['low']['marked']} |" in card
    assert f"| {f1:.3f} |" in card
    for row in events["per_recording"]:
        assert f"| `{row['file']}` | {row['marked']} | {row['found']} | {row['hits']} |" in card
    assert "![Spectrogram of a scored recording" in card
    assert (run / "timeline.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_a_recording_that_cannot_be_heard_to_its_end_costs_no_training(folder, tmp_path, capsys, monkeypatch):
    def cannot(self, sources, names=None):
        raise AudioError("rec0.wav contains NaN or infinite samples.")

    monkeypatch.setattr(AudioTagger, "score_tracks", cannot)
    settings = TINY | {"dataset_name": str(folder), "output_dir": str(tmp_path / "run"), "num_train_epochs": 1}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(settings))
    assert main([str(tmp_path / "recipe.yaml")]) == 0
    assert "events not scored: rec0.wav contains NaN or infinite samples." in capsys.readouterr().out
    assert "recording: not scored, rec0.wav contains NaN" in (tmp_path / "run" / "README.md").read_text()
    assert not (tmp_path / "run" / "timeline.png").exists()


def test_a_label_of_background_is_refused(folder, tmp_path, capsys):
    flags = [
        "--dataset_name",
        str(folder),
        "--output_dir",
        str(tmp_path / "run"),
        "--marks",
        "beside",
        "--head",
        "frame",
    ]
    assert main([*flags, "--background_label", "noise"]) == 2
    assert (
        "background_label='noise' was given, but with --head frame a frame in which nothing" in capsys.readouterr().err
    )

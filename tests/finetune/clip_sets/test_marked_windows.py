"""Windows around and between marked stretches: what counts in them, where they may lie, what is decoded for them."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from marked_sounds import RATE, SECONDS, TIMES, write_marked
from safetensors.torch import load_file
from tiny_trainings import summary_in, write_recipe

from finetune.arguments.data_arguments import DataArguments
from finetune.augmentations.augmentation import Augmentation
from finetune.clip_sets.collator import ASTDataCollator
from finetune.clip_sets.marked_windows import marked_clip_sets
from finetune.run_finetune import main
from finetune.scores.hard_negatives import find_hard_negatives
from finetune.sources.marked_recordings import load_marked
from finetune.sources.marks import Overlap, parse_overlap
from modeling_ast import ASTFeatureExtractor

HEARD = 48 * 160 + 240
WINDOW = HEARD / RATE


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_marked(tmp_path_factory.mktemp("marked") / "recordings")


@pytest.fixture
def extractor() -> ASTFeatureExtractor:
    return ASTFeatureExtractor(max_length=48)


def clips(folder, **fields):
    data = DataArguments(dataset_name=str(folder), **{"marks": "beside"} | fields)
    return {side: split.of_length(WINDOW) for side, split in marked_clip_sets(load_marked(data, 0), data).items()}


def times_of(item) -> list[tuple]:
    return [(mark.start, mark.end, mark.label) for mark in item.marks]


@pytest.mark.parametrize(
    ("text", "share", "seconds"), [("0.5", 0.5, None), ("1", 1.0, None), ("0.2s", None, 0.2), (".1 s", None, 0.1)]
)
def test_what_counts_is_as_much_as_was_asked_for(text, share, seconds):
    overlap = parse_overlap(text)
    assert (overlap.share, overlap.seconds) == (share, seconds)
    generator = np.random.default_rng(0)
    starts = generator.uniform(0, 9, 200)
    ends = starts + generator.exponential(0.6, 200)
    for start in generator.uniform(0, 9, 50):
        inside = np.clip(np.minimum(ends, start + 1) - np.maximum(starts, start), 0, None)
        longest = np.minimum(ends - starts, 1.0)
        needed = share * longest if seconds is None else np.minimum(longest, seconds)
        expected = (inside >= needed - 1e-9) & (inside > 0)  # what is all of it may round to less
        np.testing.assert_array_equal(overlap.counts(starts, ends, start, start + 1.0), expected)


def test_a_place_without_a_length_counts_in_windows_that_hold_it():
    counts = Overlap().counts(np.array([1.0, 2.0, 3.0]), np.array([1.0, 2.0, 3.0]), 1.0, 3.0)
    assert counts.tolist() == [True, True, False]


@pytest.mark.parametrize("overlap", ["0.5", "1", "0.1s"])
def test_each_stretch_has_a_window_in_which_it_counts_and_background_holds_none(folder, overlap):
    train = clips(folder, mark_overlap=overlap)["train"]
    assert len(train) == 2 * train.num_stretches, "half are background"
    rule, around, background = parse_overlap(overlap), [], []
    for epoch in range(4):
        for index in range(len(train)):
            placed = train.window(index, 5, epoch)
            item = train.recordings[placed.recording]
            assert 0 <= placed.start <= SECONDS - WINDOW + 1e-9
            inside = {
                number: min(mark.end, placed.start + WINDOW) - max(mark.start, placed.start)
                for number, mark in enumerate(item.marks)
            }
            if index < train.num_stretches:
                number, mark = train._marks[index]
                assert number == placed.recording
                own = item.marks[mark]
                length = min(own.end - own.start, WINDOW)
                needed = rule.share * length if rule.seconds is None else min(length, rule.seconds)
                assert inside[mark] >= needed - 1e-6
                assert train.labels.index(own.label) in placed.labels
                around.append(placed.start - own.start)
            else:
                assert max(inside.values(), default=-1) <= 0
                assert placed.labels == placed.stretches == ()
                background.append((placed.recording, placed.start))
    assert len(set(around)) > len(around) / 2, "another place in every epoch"
    assert len(set(background)) == len(background)


def test_stretches_of_a_window_are_where_they_sound(folder, extractor):
    train = clips(folder)["train"]
    dataset = train.dataset(extractor, Augmentation(), 5)
    looked_at = 0
    for index in range(train.num_stretches):
        item = dataset[2, index]
        loud = np.abs(item["waveform"]) > 0.1
        assert len(item["waveform"]) == HEARD
        heard = np.zeros(HEARD, bool)
        for start, end, label in item["stretches"]:
            assert 0 <= start < end <= WINDOW + 1e-9
            assert 0 <= label < 2
            heard[round(start * RATE) : round(end * RATE)] = True
        near = np.convolve(heard, np.ones(401), "same") > 0  # a sine is small at times
        assert not (loud & ~near).any()
        assert loud[heard].mean() > 0.5
        looked_at += 1
    assert looked_at == train.num_stretches
    assert "stretches" not in ASTDataCollator(extractor, compute_features=False)([dataset[0, 0], dataset[0, 1]])


def test_windows_that_are_scored_lie_side_by_side_and_hold_enough_or_nothing(folder):
    scored = clips(folder, eval_fraction=0.5)["eval"]
    windows = scored.scored_windows()
    for placed in windows:
        marks = scored.recordings[placed.recording].marks
        inside = [min(mark.end, placed.start + WINDOW) - max(mark.start, placed.start) for mark in marks]
        counting = {
            mark.label
            for mark, seconds in zip(marks, inside, strict=True)
            if seconds >= 0.5 * min(mark.end - mark.start, WINDOW) - 1e-3
        }
        assert {scored.labels[label] for label in placed.labels} == counting
        assert all(seconds <= 1e-3 or mark.label in counting for mark, seconds in zip(marks, inside, strict=True))
    of_one = [placed.start for placed in windows if placed.recording == 0]
    assert all(
        abs(start / WINDOW - round(start / WINDOW)) < 0.02 or start > SECONDS - WINDOW - 0.01 for start in of_one
    )
    assert len(windows) + scored.num_unclear == len(scored.recordings) * int(np.ceil(SECONDS / WINDOW))


def test_nothing_but_the_window_is_decoded(folder, extractor, monkeypatch):
    dataset = clips(folder)["train"].dataset(extractor, Augmentation(), 1)
    read, into = [], soundfile.SoundFile.buffer_read_into

    def counted(self, buffer, dtype):
        read.append(len(buffer))
        return into(self, buffer, dtype)

    monkeypatch.setattr(soundfile.SoundFile, "buffer_read_into", counted)
    for index in range(len(dataset)):
        dataset[0, index]
    assert read == [HEARD] * len(dataset)


@pytest.mark.parametrize("share", [0.0, 0.25, 0.8])
def test_the_share_of_background(folder, share):
    train = clips(folder, background_share=share)["train"]
    assert abs(train.num_background / len(train) - share) < 0.05
    if not share:
        return
    without = clips(folder, background_share=share, background_label="none")["train"]
    assert without.labels[-1] == "none"
    assert [labels for labels in without.label_lists() if labels == [2]] == [[2]] * without.num_background
    assert all(len(labels) == 1 for labels in without.label_lists())


def test_hard_negatives_are_half_of_the_background(folder):
    train = clips(folder, background_share=0.9)["train"].with_hard_negatives(np.array([[0.0, 1.7]]))
    places = [
        train.window(index, 0, epoch).start == 1.7
        for epoch in range(3)
        for index in range(train.num_stretches, len(train))
    ]
    assert 0.35 < np.mean(places) < 0.65


def test_a_change_of_speed_brings_no_stretch_into_background_and_takes_none_out_of_its_window(folder, extractor):
    train = clips(folder)["train"]
    spans = train.free
    hard = np.concatenate([spans[:, :2], spans[:, [0, 2]]])  # which end and begin right beside a stretch
    train = train.with_hard_negatives(hard).dataset(extractor, Augmentation(max_speed_change=0.5), 5).split
    assert 0.5 < train.speed_change < 0.53, "some samples more, for the filter"
    slowest, fastest = WINDOW * (1 - train.speed_change), WINDOW * 1.5
    assert len(train) == 2 * train.num_stretches
    for epoch in range(10):
        for index in range(len(train)):
            placed = train.window(index, 5, epoch)
            marks = train.recordings[placed.recording].marks
            if index >= train.num_stretches:
                assert all(mark.end < placed.start or mark.start >= placed.start + fastest for mark in marks)
                continue
            own = marks[train._marks[index][1]]
            inside = min(own.end, placed.start + slowest) - max(own.start, placed.start)
            assert inside >= min(0.5 * (own.end - own.start), slowest / 2) - 1e-6


def test_a_checkpoint_that_hears_longer_is_given_no_more_than_the_background_window(folder, tmp_path, monkeypatch):
    recipe = write_recipe(tmp_path, folder, marks="beside", num_train_epochs=1, max_length=96)
    assert main([recipe]) == 0
    heard = []

    def scores(model, feature_extractor, windows, *args):
        heard.extend(len(windows[index]["waveform"]) for index in range(len(windows)))
        return np.zeros((len(windows), 2), np.float32), None

    monkeypatch.setattr("finetune.scores.hard_negatives.predict_scores", scores)
    find_hard_negatives(str(tmp_path / "run"), clips(folder)["train"], 8, "cpu")
    assert len(heard) > 40
    assert set(heard) == {HEARD}


def test_everything_that_can_be_told_apart_is_told_by_the_digest(folder):
    digests = {
        clips(folder, **fields)["train"].digest()
        for fields in (
            {},
            {"mark_overlap": "0.2s"},
            {"background_share": 0.3},
            {"background_label": "none"},
            {"ignore_labels": ["low"]},
        )
    }
    assert len(digests) == 5


def test_a_training_is_the_same_with_workers_and_when_resumed(folder, tmp_path, capsys):
    weights = {}
    for name, flags in {"one": [], "workers": ["--dataloader_num_workers", "2"]}.items():
        (tmp_path / name).mkdir()
        recipe = write_recipe(tmp_path / name, folder, marks="beside", mixup_probability=0.3, save_total_limit=2)
        assert main([recipe, *flags]) == 0
        weights[name] = load_file(tmp_path / name / "run" / "model.safetensors")
    said = capsys.readouterr().out
    assert "windows of 0.49 s: 10 around marked stretches and 10 of background in every epoch" in said
    run = tmp_path / "one" / "run"
    summary = summary_in(run)
    assert summary["data"]["splits"]["train"]["stretches"] == 10
    assert summary["problem_type"] == "multi_label_classification"
    assert "by recording" in (run / "README.md").read_text()
    last = run / "checkpoint-6"
    for path in (*last.iterdir(), run / "model.safetensors", run / "run_summary.json"):
        path.unlink()
    last.rmdir()
    recipe = str(tmp_path / "one" / "recipe.yaml")
    assert main([recipe, "--mark_overlap", "0.1s", "--resume_from_checkpoint", "true"]) == 2
    assert main([recipe, "--resume_from_checkpoint", "true"]) == 0
    weights["resumed"] = load_file(run / "model.safetensors")
    for name, tensors in weights.items():
        assert all(torch.equal(tensors[key], weights["one"][key]) for key in tensors), name


def test_hard_negatives_of_a_checkpoint(folder, tmp_path, capsys):
    """A checkpoint that takes everything for heard finds all of the background, and one of other labels is refused."""
    recipe = write_recipe(tmp_path, folder, marks="beside", num_train_epochs=1)
    assert main([recipe]) == 0
    checkpoint = tmp_path / "run"
    weights = load_file(checkpoint / "model.safetensors")
    weights["classifier.dense.bias"] += 50
    from safetensors.torch import save_file

    save_file(weights, checkpoint / "model.safetensors", metadata={"format": "pt"})
    capsys.readouterr()
    flags = ["--hard_negatives", str(checkpoint), "--output_dir", str(tmp_path / "second")]
    assert main([recipe, *flags, "--background_label", "none"]) == 0
    (found,) = [words for words in capsys.readouterr().out.split("; ") if words.startswith("hard negatives")]
    number, of_all = found.split(" background")[0].split(": ")[1].split(" of ")
    assert number == of_all
    assert int(number) > 40
    assert summary_in(tmp_path / "second")["data"]["hard_negatives"] == "./run"
    assert main([recipe, *flags[:2], "--output_dir", str(tmp_path / "third"), "--ignore_labels", "low", "high"]) == 2


def test_recordings_in_two_splits_are_refused(folder, tmp_path, capsys):
    for side in ("train", "test"):
        (tmp_path / "data" / side).mkdir(parents=True)
        for path in folder.glob("rec[01].*"):
            (tmp_path / "data" / side / path.name).write_bytes(path.read_bytes())
    assert main([write_recipe(tmp_path, tmp_path / "data", marks="beside")]) == 2
    assert "The score would be too good" in " ".join(capsys.readouterr().err.split())


def test_the_times_that_are_tested_are_those_of_the_recordings(folder):
    found = [
        item
        for items in load_marked(DataArguments(dataset_name=str(folder), marks="beside"), 0).sides.values()
        for item in items
    ]
    assert {item.name[-8:-4]: times_of(item) for item in found} == {
        f"rec{number}": times for number, times in enumerate(TIMES)
    }


@pytest.fixture
def faulty(tmp_path, monkeypatch):
    """Recordings of which one has a place that cannot be heard, and none of whose windows is looked at before a training."""
    monkeypatch.setattr("finetune.clip_sets.marked_windows.WINDOWS_CHECKED", 0)
    folder = write_marked(tmp_path / "faulty")

    def spoil(spoiled: np.ndarray):
        for path in folder.glob("*.wav"):
            samples = np.stack([soundfile.read(path, dtype="float32")[0]] * 2, axis=1)
            samples = spoiled(samples) if path.stem == "rec2" else samples
            soundfile.write(path, samples, RATE, subtype="FLOAT")
        return folder

    return spoil


def not_a_number(samples):
    samples[round(5.75 * RATE)] = np.nan
    return samples


def opposite(samples):
    samples[round(6.7 * RATE) : round(7.9 * RATE), 1] *= -1
    return samples


def said_of_failure(capsys):
    return " ".join(capsys.readouterr().err.split())


def test_a_run_that_a_window_ends_says_which_one_and_what_helps(faulty, tmp_path, capsys):
    assert main([write_recipe(tmp_path, faulty(not_a_number), marks="beside")]) == 2  # where the features are measured
    said = said_of_failure(capsys)
    assert "rec2.wav, window from " in said
    assert "Or remove the recording and its marks." in said
    assert "skip_bad_audio" not in said


def test_all_of_the_recordings_is_checked_where_that_is_asked_for(faulty, folder, tmp_path, capsys):
    flags = ["--check_audio", "true"]
    assert main([write_recipe(tmp_path, faulty(not_a_number), marks="beside"), *flags]) == 2
    said = said_of_failure(capsys)
    assert "1 of 6 recordings cannot be used" in said
    assert "rec2.wav" in said
    assert "remove them together with their marks." in said
    assert "skip_bad_audio" not in said
    assert main([write_recipe(tmp_path, folder, marks="beside", num_train_epochs=1), *flags]) == 0
    assert "all of 6 recordings was decoded" in capsys.readouterr().out


def test_what_is_to_be_said_of_a_recording_that_was_checked_is_said(faulty, tmp_path, capsys):
    def cancelled(samples):
        samples[:, 1] = -samples[:, 0]
        return samples

    recipe = write_recipe(tmp_path, faulty(cancelled), marks="beside", num_train_epochs=1)
    assert main([recipe, "--check_audio", "true"]) == 0
    assert "1 of 6 clips" in capsys.readouterr().out
    (note,) = json.loads((tmp_path / "run" / "run_summary.json").read_text())["data"]["audio_notes"]
    assert Path(note["file"]).name == "rec2.wav"
    assert "cancel" in note["text"]


def test_with_strict_audio_the_check_hears_each_window_by_itself(faulty, tmp_path, capsys):
    recipe = write_recipe(tmp_path, faulty(opposite), marks="beside", num_train_epochs=1)
    assert main([recipe, "--check_audio", "true", "--strict_audio", "true"]) == 2
    said = said_of_failure(capsys)
    assert "rec2.wav, window from " in said
    assert "its channels cancel" in said
    assert "or leave out --strict_audio" in said
    assert main([recipe, "--check_audio", "true"]) == 0


def test_windows_that_are_looked_at_and_cannot_be_heard_are_told(faulty, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("finetune.clip_sets.marked_windows.WINDOWS_CHECKED", 500)
    assert main([write_recipe(tmp_path, faulty(not_a_number), marks="beside")]) == 2
    said = said_of_failure(capsys)
    assert "rec2.wav, window from " in said
    assert "--check_audio looks at all of every recording" in said
    assert "skip_bad_audio" not in said

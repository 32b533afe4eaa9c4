"""`ast-finetune --dry_run`: what it tells is true, and it leaves no trace but its own folder."""

import csv
import itertools
import json
import math
from collections import Counter

import numpy as np
import pytest
import soundfile
import torch
import yaml
from matplotlib.image import imread
from tiny_trainings import write_recipe
from torchaudio.compliance import kaldi
from transformers import Trainer

from finetune.arguments.command_line import parse_arguments
from finetune.clip_sets import audio_clips, split_checks
from finetune.clip_sets.row_clips import drawn_places
from finetune.dry_runs import cost_estimate, dry_run, proposals, time_limit
from finetune.dry_runs.clip_statistics import (
    describe_band,
    describe_frames,
    length_histogram,
    look_at_clip,
    share_above,
)
from finetune.dry_runs.cost_estimate import StepClock, count_evaluations, count_steps
from finetune.dry_runs.dry_run import label_in_words
from finetune.dry_runs.dry_run_report import bars, duration, frame_lines
from finetune.dry_runs.time_limit import Deadline
from finetune.run_finetune import main
from finetune.runs.training_run import prepare_run
from model_card.figures import plot_spectrogram_pairs
from modeling_ast import ASTFeatureExtractor
from modeling_ast.audio import AudioReader, decode_audio
from modeling_ast.features.kaldi import is_cut, num_samples

pytestmark = pytest.mark.usefixtures("hasty_estimates")

RATE = 16_000

TRAINED, SCORED, BATCH = 30, 12, 8
ALL = TRAINED + SCORED  # clips
AUGMENTED = {"max_length": 96, "per_device_train_batch_size": BATCH, "mixup_probability": 0.5, "max_time_mask": 24}


@pytest.fixture
def table(tmp_path, drum_rows):
    """A table of 30 training and 12 test clips of the drums, with all labels and three folds."""
    training, test = ([row for row in drum_rows if row["split"] == split] for split in ("train", "test"))
    rows = [row | {"fold": place % 3} for place, row in enumerate(training[::12] + test[::7])]
    return write_table(tmp_path / "drums.csv", rows)


@pytest.fixture
def recipe(table, tmp_path):
    return write_recipe(tmp_path, table, **AUGMENTED)


def write_table(path, rows):
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, ["path", "label", "split", "fold"], extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    return path


def read_table(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def read_report(tmp_path):
    return json.loads((tmp_path / "run" / "dry_run" / "dry_run.json").read_text())


def files_of(folder):
    files = (path for path in folder.rglob("*") if path.is_file() and "dry_run" not in path.parts)
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


@pytest.mark.pictures
def test_a_dry_run_tells_what_the_clips_are_like_and_writes_nothing_else(recipe, table, tmp_path, monkeypatch, capsys):
    def refuse(*args, **kwargs):
        raise AssertionError("something was saved")

    for name in ("save_model", "_save_checkpoint"):
        monkeypatch.setattr(Trainer, name, refuse)
    learning, training_step = [], Trainer.training_step

    def look(self, model, *args, **kwargs):
        learning.append(sum(parameter.requires_grad for parameter in model.parameters()))
        return training_step(self, model, *args, **kwargs)

    monkeypatch.setattr(Trainer, "training_step", look)
    flags = ["--average_epochs", "1", "2", "--head_only_epochs", "1", "--per_device_train_batch_size", "32"]
    assert main([recipe, "--dry_run", *flags]) == 0
    assert min(learning) > 10  # what is measured are the steps in which everything learns
    written = {str(path.relative_to(tmp_path / "run")) for path in (tmp_path / "run").rglob("*")}
    assert written == {"dry_run", "dry_run/dry_run.json", "dry_run/spectrograms.png"}

    report, rows = read_report(tmp_path), read_table(table)
    assert report["clips"] == {"train": TRAINED, "eval": SCORED}
    for side, split in (("train", "train"), ("eval", "test")):
        expected = Counter(row["label"] for row in rows if row["split"] == split)
        assert {name: counts[side] for name, counts in report["labels"].items() if counts[side]} == expected
    lengths = [soundfile.info(row["path"]).duration for row in rows]
    assert report["lengths"]["total_seconds"] == pytest.approx(sum(lengths))
    assert report["lengths"]["median"] == pytest.approx(np.median(lengths))
    assert report["recordings"]["sampling_rates"] == {"16000": ALL}
    assert report["band"]["share"] == 0
    assert report["refused"] == []
    assert report["looked_at"] == {"clips": ALL, "of": ALL, "seed": 42, "out_of_time": False}
    assert imread(tmp_path / "run" / "dry_run" / "spectrograms.png").shape[0] > 200

    output = capsys.readouterr().out
    told = [line for line in output.splitlines() if not line.startswith("[")]  # those are the training's own
    assert max(map(len, told[:-1])) <= 80
    for words in ("all clips", "training", "Length in seconds", "max_length 96", "whole run", "Nothing was trained"):
        assert words in output


def test_a_run_into_the_same_folder_stays_as_it_is_and_can_be_resumed(recipe, tmp_path, capsys):
    assert main([recipe, "--dry_run"]) == 0
    assert main([recipe, "--num_train_epochs", "1"]) == 0
    assert "dry_run" not in yaml.safe_load((tmp_path / "run" / "recipe.yaml").read_text())
    before = files_of(tmp_path / "run")
    assert main([recipe, "--dry_run"]) == 0
    assert "already holds a run" in (told := read_report(tmp_path)["refused"][0])
    assert "--overwrite_output_dir" in told
    assert main([recipe, "--dry_run", "--resume_from_checkpoint", "true"]) == 0
    assert read_report(tmp_path)["refused"] == []
    assert main([recipe, "--dry_run", "--resume_from_checkpoint", "true", "--seed", "7"]) == 0
    assert "other seed" in read_report(tmp_path)["refused"][0]
    assert "would not go through" in capsys.readouterr().out
    assert files_of(tmp_path / "run") == before
    assert main([recipe, "--resume_from_checkpoint", "true"]) == 0


@pytest.mark.parametrize(
    "flags",
    [
        ["--dataset_name", "nowhere.csv"],
        ["--label_column_name", "class"],
        ["--num_attention_heads", "5"],
        ["--normalization", "checkpoint"],
        ["--mixup_probability", "2"],
        ["--fold_column_name", "fold", "--load_best_model_at_end", "--eval_strategy", "epoch"],
        ["--learning_rte", "1"],
    ],
)
def test_input_that_cannot_be_used_is_answered_as_by_the_training(recipe, tmp_path, capsys, flags):
    assert main([recipe, *flags]) == 2
    training = capsys.readouterr().err
    assert main([recipe, "--dry_run", *flags]) == 2
    assert capsys.readouterr().err == training
    assert not (tmp_path / "run").exists()


def test_everything_that_would_be_refused_is_told_at_once(recipe, table, tmp_path, capsys):
    (tmp_path / "broken.wav").write_bytes(b"RIFF, but no more than that")
    soundfile.write(tmp_path / "short.wav", np.zeros(100), 16_000)
    rows = read_table(table)
    twin = next(row for row in rows if row["split"] == "test") | {"split": "train"}
    bad = [{"path": str(tmp_path / name), "label": "tom", "split": "train"} for name in ("broken.wav", "short.wav")]
    write_table(table, [*rows, twin, *bad])
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "README.md").write_text("mine")

    assert main([recipe, "--dry_run"]) == 0
    report, output = read_report(tmp_path), capsys.readouterr().out
    occupied, unreadable, shared = report["refused"]
    assert "holds a README.md that is not from a run of this kit" in occupied
    assert f"2 of {ALL + 3} clips looked at cannot be used" in unreadable
    assert "--skip_bad_audio" in unreadable
    assert "1 clip(s) are in the training and in the scored split" in shared
    reasons = {clip["clip"]: clip["reason"] for clip in report["bad_clips"]}
    assert "broken.wav holds text, not audio" in reasons[str(tmp_path / "broken.wav")]
    assert "lasts 6 ms" in reasons[str(tmp_path / "short.wav")]
    assert sum(report["recordings"]["sampling_rates"].values()) == ALL + 1
    assert f"2 of {ALL + 3} clips looked at cannot be used" in output
    assert "A training with these flags would not go through" in output
    assert report["cost"]["measured_steps"] >= 2


def test_a_label_that_cannot_be_learned_ends_it_after_the_data_are_told(recipe, table, capsys):
    rows = read_table(table)
    write_table(table, [row for row in rows if not (row["label"] == "bell" and row["split"] == "train")])
    assert main([recipe]) == 2
    training = capsys.readouterr().err
    assert main([recipe, "--dry_run"]) == 2
    output = capsys.readouterr()
    assert output.err == training
    assert "--ignore_labels bell" in output.err
    assert "Length in seconds" in output.out


def test_a_split_of_which_nothing_can_be_decoded_is_answered_as_by_the_training(recipe, table, tmp_path, capsys):
    (tmp_path / "broken.wav").write_bytes(b"no audio")
    rows = [row for row in read_table(table) if row["split"] == "train"]
    write_table(table, [*rows, {"path": str(tmp_path / "broken.wav"), "label": "tom", "split": "test"}])
    assert main([recipe, "--dry_run"]) == 2
    assert "broken.wav holds text, not audio" in capsys.readouterr().err


def test_a_clip_met_only_in_the_steps_leaves_the_rest_of_the_report(recipe, table, tmp_path, monkeypatch):
    victim = tmp_path / "later.flac"
    rows = read_table(table)
    victim.write_bytes((tmp_path / rows[0]["path"]).read_bytes())
    rows[0]["path"] = str(victim)
    write_table(table, rows)
    monkeypatch.setattr(dry_run, "draw_training_clips", lambda *_: victim.write_bytes(b""))
    assert main([recipe, "--dry_run"]) == 0
    report = read_report(tmp_path)
    assert report["cost"] is None
    assert f"could not be measured. {victim} is empty" in report["refused"][0]


def test_folds_are_counted_and_the_first_is_measured(recipe, tmp_path, capsys):
    flags = ["--fold_column_name", "fold", "--eval_strategy", "epoch", "--dataloader_num_workers", "1"]
    assert main([recipe, "--dry_run", *flags]) == 0
    report = read_report(tmp_path)
    assert report["folds"] == ["0", "1", "2"]
    assert report["clips"] == {"train": 28, "eval": 14}
    assert report["cost"]["evaluation_passes"] == 2  # after each epoch; the last of them is that of the result
    assert "3 such runs" in capsys.readouterr().out


def test_the_folds_of_another_run_and_an_unknown_reporter_are_told_of(recipe, tmp_path, capsys):
    flags = ["--fold_column_name", "fold", "--eval_strategy", "epoch"]
    (tmp_path / "run" / "fold-2").mkdir(parents=True)
    (tmp_path / "run" / "fold-2" / "run_summary.json").write_text("{}")
    before = files_of(tmp_path / "run")
    assert main([recipe, *flags]) == 2
    training = capsys.readouterr().err
    assert main([recipe, *flags, "--dry_run", "--report_to", "nosuchthing"]) == 0
    occupied, reporter = read_report(tmp_path)["refused"]
    assert "already holds a run (fold-2 is there)" in occupied
    assert occupied in training
    assert "nosuchthing is not supported" in reporter
    assert main([recipe, *flags, "--dry_run", "--resume_from_checkpoint", "true"]) == 0
    assert "holds no cross-validation. Leave out --resume_from_checkpoint" in read_report(tmp_path)["refused"][0]
    assert main([recipe, *flags, "--dry_run", "--overwrite_output_dir"]) == 0
    assert read_report(tmp_path)["refused"] == []
    assert files_of(tmp_path / "run") == before


def decoded_in_preparing(monkeypatch):
    """Clips that a preparation looks at one by one are added to this list."""
    seen, decode = [], audio_clips.decoded_clips

    def decode_and_note(audio, rows, *args, **kwargs):
        seen.extend(rows)
        return decode(audio, rows, *args, **kwargs)

    monkeypatch.setattr(audio_clips, "decoded_clips", decode_and_note)
    return seen


def test_what_the_waveform_cache_needs_is_told_and_it_is_not_made(recipe, table, tmp_path, monkeypatch, capsys):
    seen, cache = decoded_in_preparing(monkeypatch), tmp_path / "cache"
    flags = ["--waveform_cache", str(cache), "--skip_bad_audio", "--clip_windows", "beginning"]
    assert main([recipe, "--dry_run", *flags]) == 0
    # 96 frames of 25 ms, one each 10 ms; clips of the drums have another rate.
    heard = 16_000 * (95 * 10 + 25) // 1000
    needed = sum(min(math.ceil(soundfile.info(row["path"]).duration * 16_000), heard) for row in read_table(table))
    assert read_report(tmp_path)["waveform_cache_bytes"] == pytest.approx(4 * needed, rel=1e-3)
    told = " ".join(capsys.readouterr().out.split())
    assert f"without the waveform cache, which needs {4 * needed / 1e6:.1f} MB at most" in told
    assert not cache.exists()
    assert seen == [], "all clips were looked at and are sound"


@pytest.mark.parametrize("found_early", [True, False])
def test_bad_clips_that_were_not_looked_at_are_left_out_as_in_the_training(
    recipe, table, tmp_path, monkeypatch, found_early
):
    (tmp_path / "broken.wav").write_bytes(b"no audio")
    rows = [*read_table(table), *2 * [{"path": "broken.wav", "label": "tom", "split": "train"}]]
    write_table(table, rows)
    looked_at = [("train", row) for row in range(TRAINED + found_early)]
    monkeypatch.setattr(audio_clips, "drawn_places", lambda *_: [*looked_at, ("eval", 0)])
    if found_early:
        monkeypatch.setattr(split_checks, "CLIPS_CHECKED", 1)  # which would miss the other one
    seen = decoded_in_preparing(monkeypatch)
    assert main([recipe, "--dry_run", "--skip_bad_audio"]) == 0
    report = read_report(tmp_path)
    assert (len(report["bad_clips"]), report["refused"]) == (int(found_early), [])
    assert report["cost"]["steps_per_epoch"] == TRAINED / BATCH
    assert len(set(seen)) == ALL + 2 - int(found_early)


def test_multi_label_clips_with_a_validation_split(table, tmp_path):
    rows = read_table(table)
    for place, row in enumerate(rows):
        row["label"] += ";loud" if place % 2 else ""
    write_table(table, rows)
    fields = AUGMENTED | {"label_separator": ";", "early_stopping_patience": 1}
    fields |= {"validation_fraction": 0.2, "load_best_model_at_end": True, "eval_strategy": "epoch"}
    assert main([write_recipe(tmp_path, table, **fields), "--dry_run"]) == 0
    report = read_report(tmp_path)
    assert set(report["clips"]) == {"train", "eval", "validation"}
    assert sum(report["labels"]["loud"].values()) == ALL // 2


def test_of_many_clips_a_sample_is_drawn_by_the_seed(recipe, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(dry_run, "CLIPS_LOOKED_AT", 16)
    assert main([recipe, "--dry_run", "--seed", "2"]) == 0
    report = read_report(tmp_path)
    assert report["looked_at"] == {"clips": 16, "of": ALL, "seed": 2, "out_of_time": False}
    assert sum(count for *_, count in report["lengths"]["histogram"]) == 16
    assert f"16 of {ALL} clips, drawn with seed 2" in capsys.readouterr().out
    splits = {"train": range(TRAINED), "eval": range(SCORED)}
    drawn = drawn_places(splits, 16, 2)
    assert drawn == drawn_places(splits, 16, 2) != drawn_places(splits, 16, 1)
    assert len(set(drawn)) == 16
    assert {side for side, _ in drawn} == {"train", "eval"}


def test_of_a_stream_the_first_clips_are_looked_at(recipe, table, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(dry_run, "CLIPS_LOOKED_AT", 16)
    (tmp_path / "broken.wav").write_bytes(b"no audio")
    write_table(table, [{"path": "broken.wav", "label": "tom", "split": "train"}, *read_table(table)])
    assert main([recipe, "--dry_run", "--streaming"]) == 0
    report = read_report(tmp_path)
    assert report["looked_at"] == {"clips": 16, "of": ALL + 1, "seed": None, "out_of_time": False}
    assert report["clips"] == {"train": TRAINED + 1, "eval": SCORED}
    assert sum(counts["train"] for counts in report["labels"].values()) == TRAINED + 1
    lengths = [soundfile.info(row["path"]).duration for row in read_table(table)[1:]]
    assert report["lengths"]["total_seconds"] == pytest.approx(sum(lengths[:7]) + sum(lengths[TRAINED : TRAINED + 8]))
    assert "1 of 16 clips looked at cannot be used" in report["refused"][0]
    assert report["cost"]["steps_per_epoch"] == TRAINED / BATCH
    assert f"16 of {ALL + 1} clips, the first of each split" in capsys.readouterr().out


def test_finished_features_are_measured_without_audio(table, tmp_path):
    extractor = ASTFeatureExtractor(max_length=96)
    rows = read_table(table)
    for place, row in enumerate(rows):
        waveform = torch.from_numpy(soundfile.read(row["path"], dtype="float32")[0])
        features, frames = extractor.log_mel(waveform[None], torch.tensor([len(waveform)]), 96)
        np.save(tmp_path / f"{place}.npy", features[0, : frames[0]].numpy())
        row["path"] = f"{place}.npy"
    write_table(table, rows)
    fields = AUGMENTED | {"mixup_probability": 0.0, "features_column_name": "path"}
    assert main([write_recipe(tmp_path, table, **fields), "--dry_run"]) == 0
    report = read_report(tmp_path)
    assert report["looked_at"]["clips"] == 0
    assert "lengths" not in report
    assert report["labels"]["tom"] == {"train": 5, "eval": 2}
    assert report["cost"]["steps_per_epoch"] == TRAINED / BATCH


def test_too_little_memory_is_told_with_what_to_type(recipe, tmp_path, monkeypatch):
    def exhaust(*args, **kwargs):
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(Trainer, "training_step", exhaust)
    assert main([recipe, "--dry_run"]) == 0
    assert f"--per_device_train_batch_size {BATCH // 2}" in read_report(tmp_path)["refused"][0]


def test_it_measures_one_process_only(recipe, monkeypatch, capsys):
    monkeypatch.setattr(dry_run, "PartialState", lambda: type("State", (), {"num_processes": 2}))
    assert main([recipe, "--dry_run"]) == 2
    assert "without accelerate launch" in capsys.readouterr().err


@pytest.mark.parametrize(
    "flags",
    [
        ["--eval_strategy", "epoch", "--validation_fraction", "0.3", "--average_epochs", "1", "2"],
        ["--eval_strategy", "steps", "--eval_steps", "3", "--padding", "longest"],
        ["--ensemble_epochs", "1", "2", "--gradient_accumulation_steps", "2"],
    ],
)
def test_steps_and_evaluations_are_those_of_the_real_run(recipe, tmp_path, monkeypatch, flags):
    argv = [recipe, *flags, "--output_dir", str(tmp_path / "counted")]
    arguments = parse_arguments(argv)
    run = prepare_run(argv, arguments)
    steps_expected = count_steps(run.trainer)
    counted = sum(count_evaluations(run.trainer, run.clips, run.data_args, run.optimization), [])

    run_clips, accumulated = len(run.clips["train"]), run.trainer.args.gradient_accumulation_steps
    scored, steps = [], []
    evaluation_loop, training_step = Trainer.evaluation_loop, Trainer.training_step

    def count_loop(self, dataloader, *args, **kwargs):
        scored.append(len(dataloader.dataset))
        return evaluation_loop(self, dataloader, *args, **kwargs)

    def count_step(self, *args, **kwargs):
        steps.append(self.state.global_step)
        return training_step(self, *args, **kwargs)

    monkeypatch.setattr("finetune.runs.training_run.publish", lambda *_: None)
    monkeypatch.setattr(Trainer, "evaluation_loop", count_loop)
    monkeypatch.setattr(Trainer, "training_step", count_step)
    assert main([recipe, *flags]) == 0
    assert sorted(counted) == sorted(scored)
    assert steps_expected.whole == steps[-1] + 1
    assert steps_expected.total == pytest.approx(2 * run_clips / (BATCH * accumulated))


def test_steps_after_the_warm_up_are_timed_until_there_are_enough(monkeypatch):
    seconds = iter([0, 9, 10, 12, 13])
    monkeypatch.setattr(cost_estimate.time, "perf_counter", lambda: next(seconds))
    clock = StepClock(1, torch.device("cpu"), Deadline(60))
    control = type("Control", (), {"should_training_stop": False})()
    clock.on_train_begin(None, None, control)
    stopped = []
    for _ in range(4):
        clock.on_step_end(None, None, control)
        stopped.append(control.should_training_stop)
    assert stopped == [False, False, True, True]
    assert clock.times().seconds == [1, 2, 1]


def test_of_what_cannot_be_used_one_thing_is_said(recipe, table, tmp_path, capsys):
    rows = read_table(table)
    by_label = {row["label"]: row for row in rows if row["split"] == "train"}
    few = [by_label["kick"], by_label["snare"]] * 3 + [row for row in rows if row["split"] == "test"][:2]
    broken = [{"path": str(tmp_path / f"{name}.wav"), "label": "kick", "split": "train"} for name in "ab"]
    for row in broken:
        (tmp_path / row["path"]).write_bytes(b"no audio")
    write_table(table, [row | {"label": "kick"} if row["split"] == "test" else row for row in few] + broken)
    assert main([recipe, "--dry_run"]) == 0
    told = capsys.readouterr().out
    assert "Looked at all 10 clips: 8 can be used, 2 cannot\n" in told
    assert "2 of 10 clips looked at cannot be used" in told
    assert "all of them can be used" not in told
    assert "Decoded" not in told


@pytest.mark.parametrize("streaming", [False, True])
def test_each_stage_looks_at_as_much_as_there_is_time_for_and_says_so(
    recipe, tmp_path, monkeypatch, capsys, streaming
):
    for name in ("LOOKING", "PREPARING", "PICTURE"):
        monkeypatch.setattr(dry_run, name, 0.0)
    monkeypatch.setattr(time_limit, "LEAST", 0.0)
    monkeypatch.setattr(dry_run, "FEWEST_MEASURED", 3)
    monkeypatch.setattr(dry_run, "seconds_to_read", lambda *_: 1.0)
    seen = decoded_in_preparing(monkeypatch)
    assert main([recipe, "--dry_run", "--skip_bad_audio", "--streaming", str(streaming)]) == 0
    seed = None if streaming else 42
    assert read_report(tmp_path)["looked_at"] == {"clips": 1, "of": ALL, "seed": seed, "out_of_time": True}
    told = " ".join(capsys.readouterr().out.split())
    which, shuffled = (
        ("the first of each split", f"the first 3 of {TRAINED} shuffled")
        if streaming
        else ("drawn with seed 42", f"3 of {TRAINED}")
    )
    assert f"Looked at 1 of {ALL} clips, {which}, as many as there was time for: all of them can" in told
    assert f"measured on {shuffled} training clips" in told
    assert seen == []


def test_a_clip_that_cannot_be_used_is_stood_in_for_where_there_is_no_time_to_find_all(
    recipe, table, tmp_path, monkeypatch
):
    (tmp_path / "broken.wav").write_bytes(b"no audio")
    write_table(table, [*read_table(table), *2 * [{"path": "broken.wav", "label": "tom", "split": "train"}]])
    monkeypatch.setattr(audio_clips, "drawn_places", lambda *_: [("train", 0), ("train", TRAINED + 1), ("eval", 0)])
    monkeypatch.setattr(dry_run, "seconds_to_read", lambda *_: 1.0)
    seen = decoded_in_preparing(monkeypatch)
    assert main([recipe, "--dry_run", "--skip_bad_audio", "--normalization_clips", "0"]) == 0
    report = read_report(tmp_path)
    assert (report["refused"], len(report["bad_clips"]), seen) == ([], 1, [])
    assert report["cost"]["steps_per_epoch"] == (TRAINED + 1) / BATCH


def test_steps_that_would_take_too_long_are_extrapolated_from_passes(recipe, tmp_path, monkeypatch, capsys):
    def refuse(*args, **kwargs):
        raise AssertionError("a whole step was taken")

    monkeypatch.setattr(Trainer, "training_step", refuse)
    monkeypatch.setattr(Trainer, "predict", refuse)
    monkeypatch.setattr(cost_estimate, "FEWEST_STEPS", 1e9)
    monkeypatch.setattr(cost_estimate, "SCORING", 0.0)
    monkeypatch.setattr(time_limit, "LEAST", 0.0)
    monkeypatch.setattr(cost_estimate, "STEPS", 0.5)
    monkeypatch.setattr(proposals, "WORTH_IT", 0.0)
    monkeypatch.setattr(proposals, "MINUTES", (1e-9, 1e-4))
    assert main([recipe, "--dry_run", "--num_train_epochs", "100"]) == 0
    report, told = read_report(tmp_path), " ".join(capsys.readouterr().out.split())
    cost = report["cost"]
    assert cost["measured_steps"] == 0
    assert cost["timed_passes"][0][:2] == [1, 96]
    assert f"estimated: steps of {BATCH} clips of 96 frames take longer than a dry run may" in told
    whole = cost["seconds_per_step"]["mean"] * 100 * TRAINED / BATCH + cost["evaluation_seconds"]
    assert cost["run_seconds"]["expected"] == pytest.approx(whole)
    rounding = 1 + 1e-9
    assert cost["run_seconds"]["fast"] <= whole * rounding
    assert whole <= cost["run_seconds"]["slow"] * rounding
    for row in report["proposals"]:
        parse_arguments([recipe, *row["flags"].split()])
        assert row["fits"] == (row["seconds"] <= 60 * row["minutes"])
        assert row["seconds"] < whole
        assert row["flags"] in told
    assert "nothing; the least: " in told


def test_passes_that_cost_less_than_a_second_are_no_reason_for_proposals(recipe, tmp_path, capsys):
    assert main([recipe, "--dry_run"]) == 0
    assert read_report(tmp_path)["proposals"] == []
    assert "For less time" not in capsys.readouterr().out


def test_share_above_a_frequency_is_that_of_noise_and_of_tones():
    noise = np.random.default_rng(0).standard_normal(300_000)
    assert share_above(noise, 48_000, 8000) == pytest.approx(2 / 3, abs=0.01)
    time = np.arange(100_000) / 48_000
    low, high = np.sin(2 * np.pi * 1000 * time), np.sin(2 * np.pi * 10_000 * time)
    assert share_above(low, 48_000, 8000) < 1e-4
    assert share_above(high, 48_000, 8000) > 1 - 1e-4
    assert share_above(2 * low + high, 48_000, 8000) == pytest.approx(1 / 5, abs=1e-3)
    assert share_above(high + 3, 48_000, 8000) > 1 - 1e-4  # a constant offset is no sound
    assert share_above(noise, 16_000, 8000) == 0
    assert share_above(np.zeros(1000), 48_000, 8000) == 0


def test_a_clip_is_measured_at_its_own_rate_before_its_channels_and_rate_are_changed(tmp_path):
    time = np.arange(44_100) / 44_100
    left = 0.5 * np.sin(2 * np.pi * 1000 * time)
    right = 0.5 * np.sin(2 * np.pi * 12_000 * time)
    soundfile.write(tmp_path / "stereo.wav", np.stack([left, right], axis=1), 44_100, subtype="FLOAT")
    clip = look_at_clip({"path": str(tmp_path / "stereo.wav"), "bytes": None}, AudioReader(), RATE, [3])
    assert (clip.seconds, clip.sampling_rate, clip.channels, clip.labels) == (1, 44_100, 2, [3])
    assert clip.above_band == pytest.approx(0.5, abs=1e-3)
    assert clip.level == pytest.approx(20 * math.log10(0.25), abs=1e-3)  # two tones of amplitude 1/4
    assert not clip.clipped

    soundfile.write(tmp_path / "loud.wav", np.clip(3 * left, -1, 1), 44_100)
    assert look_at_clip({"path": str(tmp_path / "loud.wav"), "bytes": None}, AudioReader(), RATE).clipped
    soundfile.write(tmp_path / "silent.wav", np.zeros(2000), 44_100)
    assert look_at_clip({"path": str(tmp_path / "silent.wav"), "bytes": None}, AudioReader(), RATE).peak == 0


def test_what_is_said_of_a_clip_is_what_a_training_says_of_the_beginning_that_it_hears(tmp_path):
    time = np.arange(2 * 44_100) / 44_100
    late = np.where(time < 1, 0, 0.5 * np.sin(2 * np.pi * 1000 * time))
    soundfile.write(tmp_path / "late.wav", late, 44_100)
    tone = 0.5 * np.sin(2 * np.pi * 500 * time)
    soundfile.write(tmp_path / "cancelled.wav", np.stack([tone, np.where(time < 1, tone, -tone)], axis=1), 44_100)
    rise = np.sin(np.pi * time / 2) ** 8  # so slow that none of it is heard at 8 kHz
    soundfile.write(tmp_path / "ultrasound.wav", 0.5 * rise * np.sin(2 * np.pi * 15_000 * time), 44_100)
    for name, number in (("late", 1), ("cancelled", 0), ("ultrasound", 1)):
        for max_samples in (RATE, 2 * RATE):
            audio, reader = {"path": str(tmp_path / f"{name}.wav"), "bytes": None}, AudioReader(resampler="soxr")
            said = look_at_clip(audio, reader, max_samples).notes
            assert said == reader.hear(audio, max_samples=max_samples).notes
            assert len(said) == (number if max_samples == RATE or name == "ultrasound" else 1 - number), (name, said)


def test_of_a_very_long_file_the_beginning_is_measured(tmp_path, monkeypatch):
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 8000 * 90)
    soundfile.write(tmp_path / "long.wav", noise, 8000)
    monkeypatch.setattr("finetune.dry_runs.clip_statistics.LONGEST_MEASURED", 1.0)

    decoded = []
    monkeypatch.setattr(
        "modeling_ast.audio.reading.decode_audio",
        lambda *args, **settings: decoded.append(decode_audio(*args, **settings)) or decoded[-1],
    )
    clip = look_at_clip({"path": str(tmp_path / "long.wav"), "bytes": None}, AudioReader(), RATE)
    assert (clip.seconds, clip.sampling_rate) == (90, 8000)
    assert [len(audio.samples) for audio in decoded] == [61 * 8000]


def test_labels_that_sound_above_the_band_are_named(tmp_path):
    time = np.arange(22_050) / 44_100
    facts = []
    for label, frequency in ((0, 500), (0, 900), (0, 700), (1, 11_000)):
        soundfile.write(tmp_path / "tone.wav", 0.5 * np.sin(2 * np.pi * frequency * time), 44_100)
        facts.append(look_at_clip({"path": str(tmp_path / "tone.wav"), "bytes": None}, AudioReader(), RATE, [label]))
    band = describe_band(facts, ["kick", "whistle"], 16_000)
    assert band["share"] == pytest.approx(0.25, abs=1e-3)
    assert list(band["worst_labels"]) == ["whistle"]
    assert band["worst_labels"]["whistle"] == pytest.approx(1, abs=1e-3)
    assert band["clips_sampled_higher"] == 4


def test_what_a_length_cuts_and_pads_and_which_would_fit():
    def seconds(frames):
        return num_samples(frames, 16_000) / 16_000

    clips = [seconds(frames) for frames in (50, 100, 150, 300)]
    effect = describe_frames(clips, 100, 16_000, 16, 10)
    assert effect["clips_cut"] == 2
    assert effect["share_cut"] == pytest.approx(250 / 600)
    assert effect["share_padding"] == pytest.approx(50 / 400)
    # 306 frames would cut nothing and pad 51 %; 156 cut 144 of 300 frames of a quarter of the clips, and pad 27 %.
    assert effect["fitting"]["max_length"] == 156
    assert effect["fitting"]["share_padding"] == pytest.approx((106 + 56 + 6) / 4 / 156)
    assert effect["whole"]["max_length"] == 306
    assert describe_frames(clips, 160, 16_000, 16, 10)["fitting"] is None
    # Nineteen of twenty clips are whole, the one that is an hour long does not make the input an hour long.
    clips = [seconds(100)] * 19 + [seconds(360_000)]
    assert describe_frames(clips, 1024, 16_000, 16, 10)["fitting"]["max_length"] == 106


def test_most_clips_decide_which_length_fits_and_not_the_longest():
    clips = [5.0] * 64 + [36.1] * 16
    effect = describe_frames(clips, 1024, 16_000, 16, 10, batch_size=8)
    assert effect["fitting"]["max_length"] == 506  # 5 s are 498 frames
    assert effect["fitting"]["clips_cut"] == 16
    assert effect["fitting"]["share_cut"] == pytest.approx(16 * (3608 - 506) / (64 * 498 + 16 * 3608))
    assert effect["fitting"]["share_padding"] == pytest.approx(64 * 8 / (80 * 506))
    assert effect["whole"]["max_length"] == 3616
    assert effect["whole"]["clips_cut"] == 0
    told = " ".join(" ".join(frame_lines(effect | {"padding": "max_length", "beginnings": True})).split())
    assert "A better fit: --max_length 506 (5.08 s): cuts 16 of 80 clips, 55.4% of all seconds; 1% of the" in told
    assert "To leave 80 of 80 clips whole: --max_length 3616 --padding longest --train_sampling_strategy group" in told
    # Padded to the longest of a batch, long clips cost only where they are.
    padded = describe_frames(clips, 1024, 16_000, 16, 10, "longest", 8)
    assert padded["fitting"]["max_length"] == 3616
    hours = describe_frames([3600.0] * 5, 1024, 16_000, 16, 10)
    assert (hours["fitting"], hours["whole"], hours["too_long"]) == (None, None, True)  # no model has such an input
    told = " ".join(" ".join(frame_lines(hours | {"padding": "max_length", "beginnings": True})).split())
    assert "it hears their beginning only. Cut them into pieces" in told
    told = " ".join(" ".join(frame_lines(hours | {"padding": "max_length", "beginnings": False})).split())
    assert "is a window of 5 of 5 clips, and 99.7% of all seconds lie beyond one" in told
    assert "it learns from windows of them" in told
    assert "beginning" not in told


@pytest.mark.parametrize(("samples", "cut"), [(31_800, 0), (31_920, 0), (32_079, 0), (32_080, 1)])
def test_a_clip_is_cut_only_if_whole_frames_are_lost(samples, cut):
    frames = kaldi.fbank(torch.randn(1, samples), sample_frequency=16_000).shape[0]  # with a shift of 10 ms
    assert int(frames > 198) == cut
    assert describe_frames([samples / 16_000], 198, 16_000, 16, 10)["clips_cut"] == cut
    assert is_cut(samples, num_samples(198, 16_000), 16_000) == bool(cut)


def test_histograms_hold_every_clip_at_round_numbers_within_80_columns():
    even = length_histogram(np.linspace(1.1, 4.9, 50))
    assert sum(count for *_, count in even) == 50
    assert all(high == after for (_, high, _), (after, *_) in itertools.pairwise(even))
    assert {round(high - low, 6) for low, high, _ in even} == {0.5}
    uneven = np.array([0.3, 0.9, 1.0, 1.1, 10_800])
    rows = length_histogram(uneven)
    assert rows[0] == pytest.approx([0.2, 0.5, 1])
    assert rows[-1] == pytest.approx([10_000, 20_000, 1])
    assert [count for low, _, count in rows if low == pytest.approx(0.5)] == [2]
    assert length_histogram(np.array([2.0, 2.0])) == [[2.0, 2.0, 2]]
    lines = list(bars(["8000", "44100"], [1, 100_000]))
    assert lines[0] == "   8000       1  #"
    assert len(lines[1]) == 80


def test_durations_are_told_in_units_one_can_imagine():
    told = [duration(seconds) for seconds in (0.0123, 1.234, 59.94, 3599, 7300, 90_000, 900_000)]
    assert told == ["12.3 ms", "1.23 s", "59.9 s", "59 min 59 s", "2 h 2 min", "25 h 0 min", "10.4 days"]


def test_mixtures_are_named_with_their_shares():
    names = ["bell", "kick", "tom"]
    assert label_in_words(1, names) == "kick"
    assert label_in_words(np.array([0.0, 1.0, 0.0]), names) == "kick"
    assert label_in_words(np.array([0.25, 0.0, 0.75]), names) == "0.75 tom + 0.25 bell"
    assert label_in_words(np.zeros(3), names) == "no label"


def test_the_picture_shows_clips_as_they_are_and_as_they_are_trained_on(recipe, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(dry_run, "CLIPS_PICTURED", 8)
    monkeypatch.setattr(dry_run, "plot_spectrogram_pairs", lambda pairs, *rest: drawn.append(pairs))
    off = ["--mixup_probability", "0", "--max_time_mask", "0"]
    for flags in (off, ["--mixup_probability", "1", "--max_time_mask", "90"]):
        assert main([recipe, "--dry_run", *flags]) == 0
    plain, augmented = drawn
    assert len(plain) == len(augmented) == 8
    for (left, right), (same, mixed) in zip(plain, augmented, strict=True):
        assert left[1].shape == (96, 128)
        np.testing.assert_array_equal(left[1], right[1])
        np.testing.assert_array_equal(left[1], same[1])
        assert left[0] == right[0] == same[0]
        assert not np.array_equal(same[1], mixed[1])
    assert any(" + " in mixed[0] for _, mixed in augmented)

    figure = plot_spectrogram_pairs(plain[:3], tmp_path / "pairs.png", "three clips")
    panels = [axes for axes in figure.axes if axes.get_visible()]
    assert len(panels) == 6
    assert panels[0].images[0].get_extent() == [0, 0.96, -0.5, 127.5]
    assert panels[0].get_ylabel() == "frequency in Hz"

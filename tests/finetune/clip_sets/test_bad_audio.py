"""`--skip_bad_audio`: what cannot be used is left out, counted and listed; without it, it is said which flag does that."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
from tiny_trainings import write_recipe

from finetune.arguments.groups import DataArguments
from finetune.clip_sets.audio_clips import check_splits, look_at_every_clip
from finetune.clip_sets.clip_datasets import clip_sets, with_windows
from finetune.clip_sets.collator import ASTDataCollator
from finetune.clip_sets.split_checks import CLIPS_CHECKED
from finetune.clip_sets.streaming import check_streams, load_streams
from finetune.run_finetune import main
from finetune.sources.data_errors import DataError
from finetune.sources.splits import load_splits
from modeling_ast import ASTFeatureExtractor
from modeling_ast.audio import AudioReader

BAD = ("empty.wav", "short.wav", "nan.wav", "text.wav")


@pytest.fixture
def clips(tmp_path, drum_rows):
    """A folder of two classes and two splits, with four bad clips in training and one to score."""
    folder = tmp_path / "my clips"
    for split in ("train", "test"):
        for label in ("hat_closed", "snare"):
            (folder / split / label).mkdir(parents=True)
            for row in [row for row in drum_rows if row["label"] == label and row["split"] == split][:6]:
                shutil.copy(row["path"], folder / split / label)
    bad = folder / "train" / "snare"
    (bad / "empty.wav").write_bytes(b"")
    (bad / "text.wav").write_text("<html>not found</html>")
    soundfile.write(bad / "short.wav", np.zeros(160), 16_000)
    soundfile.write(bad / "nan.wav", np.full(8_000, np.nan), 16_000, subtype="FLOAT")
    (folder / "test" / "hat_closed" / "empty.wav").write_bytes(b"")  # twice the same, which is no clip in two splits
    return folder


@pytest.fixture
def recipe(clips, tmp_path):
    return write_recipe(tmp_path, clips, num_train_epochs=1, mixup_probability=0.5)


@pytest.mark.parametrize("flags", [[], ["--waveform_cache", "CACHE"], ["--dataloader_num_workers", "2"]])
def test_bad_clips_are_left_out_counted_and_listed(recipe, tmp_path, capsys, flags):
    flags = [flag.replace("CACHE", str(tmp_path / "cache")) for flag in flags]
    assert main([recipe, "--skip_bad_audio", "true", *flags]) == 0
    output = capsys.readouterr().out
    assert "5 clip(s) that cannot be used left out (training 4, scored 1), listed in the run summary" in output
    summary = json.loads((tmp_path / "run" / "run_summary.json").read_text())
    skipped = summary["data"]["skipped_clips"]
    assert sorted((clip["split"], clip["file"]) for clip in skipped) == sorted(
        [("test", "test/hat_closed/empty.wav"), *(("train", f"train/snare/{name}") for name in BAD)]
    )
    reasons = {clip["file"].removeprefix("train/snare/"): clip["reason"] for clip in skipped}
    assert "lasts 10 ms, a frame needs 25 ms" in reasons["short.wav"]
    assert "NaN" in reasons["nan.wav"]
    assert "holds text" in reasons["text.wav"]
    assert str(tmp_path) not in json.dumps(skipped)
    assert all(clip["file"] in clip["reason"] for clip in skipped)
    splits = summary["data"]["splits"]
    assert (splits["train"]["clips"], splits["test"]["clips"]) == (12, summary["evaluation"]["clips"])
    assert sum(map(sum, summary["evaluation"]["confusion_matrix"])) == splits["test"]["clips"]
    card = (tmp_path / "run" / "README.md").read_text()
    assert "Left out: 5 clips that could not be decoded" in card


@pytest.mark.parametrize("level", [1e38, 32_768.0])
def test_samples_far_from_audio_are_a_fault_of_their_clip(recipe, clips, tmp_path, level):
    loud = clips / "train" / "snare" / "loud.wav"
    soundfile.write(loud, np.tile([level, -level], 4_000), 16_000, subtype="FLOAT")
    assert main([recipe, "--skip_bad_audio"]) == 0
    skipped = json.loads((tmp_path / "run" / "run_summary.json").read_text())["data"]["skipped_clips"]
    assert sorted(Path(clip["file"]).name for clip in skipped) == sorted([*BAD, "empty.wav", "loud.wav"])
    (reason,) = (clip["reason"] for clip in skipped if clip["file"].endswith("/loud.wav"))
    assert reason.startswith(f"train/snare/loud.wav has samples up to {level:.4g} times full scale")


def test_a_scored_clip_that_makes_no_numbers_is_named(recipe, clips, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("modeling_ast.audio.limits.LOUDEST", np.inf)  # as in a cache of an earlier version
    loud = clips / "test" / "snare" / "loud.wav"  # larger than its features can be
    soundfile.write(loud, np.tile([1e30, -1e30], 4_000), 16_000, subtype="FLOAT")
    assert main([recipe, "--skip_bad_audio"]) == 1
    error = capsys.readouterr().err
    assert "scores that are not numbers for 1 of 10 clips, and numbers for the others" in error
    assert f"{loud} (samples up to 1e+30, expected from -1 to 1)" in error
    assert not (tmp_path / "run" / "model.safetensors").exists()


def test_a_run_without_bad_clips_lists_none_and_its_card_is_silent(recipe, clips, tmp_path):
    for path in [*(clips / "train" / "snare" / name for name in BAD), clips / "test" / "hat_closed" / "empty.wav"]:
        path.unlink()
    assert main([recipe, "--skip_bad_audio"]) == 0
    assert json.loads((tmp_path / "run" / "run_summary.json").read_text())["data"]["skipped_clips"] == []
    assert "Left out" not in (tmp_path / "run" / "README.md").read_text()


def test_a_resumed_run_leaves_out_the_same_clips_and_refuses_others(recipe, clips, tmp_path, capsys):
    flags = ["--skip_bad_audio", "--save_strategy", "epoch"]
    assert main([recipe, *flags]) == 0
    assert main([recipe, *flags, "--resume_from_checkpoint", "true", "--num_train_epochs", "2"]) == 0
    assert len(json.loads((tmp_path / "run" / "run_summary.json").read_text())["data"]["skipped_clips"]) == 5
    soundfile.write(clips / "train" / "snare" / "short.wav", np.linspace(-0.5, 0.5, 8_000), 16_000)  # mended
    assert main([recipe, *flags, "--resume_from_checkpoint", "true"]) == 2
    assert "from a run with other training clips" in capsys.readouterr().err


@pytest.mark.parametrize("cached", [True, False])
def test_without_the_flag_the_error_names_it(recipe, tmp_path, capsys, cached):
    cache = ["--waveform_cache", str(tmp_path / "cache")] if cached else []
    if not cached:  # found before the identical bad files are compared only where every clip is looked at
        (tmp_path / "my clips" / "test" / "hat_closed" / "empty.wav").unlink()
    assert main([recipe, *cache]) == 2
    error = capsys.readouterr().err
    assert "clips looked at cannot be used:" in error
    assert all(name in error for name in BAD)
    assert "--skip_bad_audio to leave them out" in error
    assert not (tmp_path / "run").exists()


def test_every_clip_is_looked_at_also_beyond_the_usual_sample(tmp_path):
    rows = ["path,label,split"]
    for number in range(CLIPS_CHECKED + 100):
        path = tmp_path / f"{number}.wav"
        soundfile.write(path, np.random.default_rng(number).uniform(-0.5, 0.5, 800), 16_000)
        rows.append(f"{path},{'ab'[number % 2]},{'train' if number % 3 else 'test'}")
    for number in range(0, CLIPS_CHECKED + 100, 50):
        (tmp_path / f"{number}.wav").write_bytes(b"")
    (tmp_path / "clips.csv").write_text("\n".join(rows))
    data = DataArguments(dataset_name=str(tmp_path / "clips.csv"), skip_bad_audio=True)
    splits, _ = load_splits(data, seed=0)
    with pytest.raises(
        DataError, match=r"6 of 300 clips looked at cannot be used:(\n  .* is empty.*){5}\n  and 1 more\n"
    ):
        look_at_every_clip(clip_sets(splits), data.with_changes(skip_bad_audio=False), AudioReader(), 700)
    splits, skipped, notes = look_at_every_clip(clip_sets(splits), data, AudioReader(), 700)
    assert sorted(clip["file"] for clip in skipped) == sorted(f"{number}.wav" for number in range(0, 300, 50))
    kept = [row["audio"]["path"] for split in splits.values() for row in split.rows]
    assert len(kept) == 294
    assert not any(path.endswith(f"/{number}.wav") for path in kept for number in range(0, 300, 50))
    assert "294 of 300 clips looked at are longer" in notes[-1]


def test_a_split_or_class_that_loses_all_its_clips(recipe, clips, capsys):
    for path in (clips / "train" / "snare").iterdir():
        path.write_bytes(b"x" * 44)
    assert main([recipe, "--skip_bad_audio"]) == 2
    assert "All training clips have the label hat_closed" in capsys.readouterr().err
    for path in (clips / "test").rglob("*.*"):
        path.write_bytes(b"")
    assert main([recipe, "--skip_bad_audio"]) == 2
    error = capsys.readouterr().err
    assert "of the scored split can be used, so that --skip_bad_audio leaves no clip" in error
    assert "empty.wav" in error


def test_each_fold_is_trained_and_scored_without_bad_clips(clips, tmp_path):
    rows = ["path,label,fold", *(
        f"{path},{path.parent.name},{number % 2}" for number, path in enumerate(sorted(clips.rglob("*.*")))
    )]  # fmt: skip
    (tmp_path / "clips.csv").write_text("\n".join(rows))
    settings = {"fold_column_name": "fold", "skip_bad_audio": True, "num_train_epochs": 1}
    settings |= {"waveform_cache": str(tmp_path / "cache"), "output_dir": str(tmp_path / "folds")}
    assert main([write_recipe(tmp_path, tmp_path / "clips.csv", **settings)]) == 0
    results = json.loads((tmp_path / "folds" / "cross_validation.json").read_text())
    assert sum(fold["clips"] for fold in results["folds"]) == len(rows) - 1 - 5


def test_a_reason_in_the_summary_names_no_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a message about a relative path has the absolute one as well
    (tmp_path / "deep" / "cat").mkdir(parents=True)
    for number in range(3):
        soundfile.write(tmp_path / "deep" / "cat" / f"{number}.wav", np.ones(800) * 0.1 * (number + 1), 16_000)
    rows = [f"deep/cat/{number}.wav,{'ab'[number % 2]},{'test' if number == 2 else 'train'}" for number in range(3)]
    (tmp_path / "clips.csv").write_text("\n".join(["path,label,split", *rows, "deep/../deep/cat/gone.wav,a,train"]))
    gone = tmp_path / "deep" / "cat" / "gone.wav"
    gone.write_bytes(b"")
    data = DataArguments(dataset_name="clips.csv", skip_bad_audio=True)
    splits, _ = load_splits(data, seed=0)
    gone.unlink()
    _, skipped, _ = look_at_every_clip(clip_sets(splits), data, AudioReader(), 16_000)
    assert skipped[0]["reason"] == "There is no file deep/cat/gone.wav. Check the spelling."
    with pytest.raises(DataError, match=str(tmp_path)):  # whoever runs it wants to know where
        look_at_every_clip(clip_sets(splits), DataArguments(dataset_name="clips.csv"), AudioReader(), 16_000)


@pytest.mark.parametrize("check_audio", [False, True])
def test_bad_streamed_clips_are_refused_and_all_are_looked_at_where_that_is_asked_for(tmp_path, clips, check_audio):
    rows = [f"{path},{path.parent.name},{path.parts[-3]}" for path in sorted(clips.rglob("*.*"))]
    (tmp_path / "clips.csv").write_text("\n".join(["path,label,split", *rows]))
    data = DataArguments(dataset_name=str(tmp_path / "clips.csv"), streaming=True, check_audio=check_audio)
    with pytest.raises(DataError, match="5 of 26 clips looked at cannot be used") as caught:
        check_streams(load_streams(data)[0], data, AudioReader(), 16_000)
    assert str(caught.value).endswith(
        "to leave them out" + ("." if check_audio else "; --check_audio looks at every clip.")
    )


def test_a_stream_of_which_the_buffer_holds_all_that_is_left_is_mixed_whatever_its_order(tmp_path):
    generator = np.random.default_rng(0)
    lines = ["path,label,split"]
    for number, label in enumerate("aaaaaabbaabb"):
        soundfile.write(tmp_path / f"{number}.wav", generator.uniform(-0.5, 0.5, 8_000), 16_000)
        lines.append(f"{number}.wav,{label},{'train' if number < 8 else 'test'}")
    (tmp_path / "clips.csv").write_text("\n".join(lines))
    fields = {"dataset_name": str(tmp_path / "clips.csv"), "streaming": True, "skip_bad_audio": True}
    data = DataArguments(**fields, shuffle_buffer=5)
    *_, notes = check_streams(load_streams(data)[0], data, AudioReader(), 16_000)
    assert "6 clips with the label(s) a come one after the other, more than --shuffle_buffer 5" in notes[-1]
    for number in range(3):
        (tmp_path / f"{number}.wav").write_bytes(b"")
    *_, notes = check_streams(load_streams(data)[0], data, AudioReader(), 16_000)
    assert not [note for note in notes if "one after the other" in note]


def test_of_a_file_of_minutes_only_the_beginning_is_decoded_wherever_clips_are_looked_at(tmp_path, monkeypatch):
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, 200 * 16_000)
    lines = ["path,label,split"]
    for number in range(4):
        soundfile.write(tmp_path / f"{number}.wav", samples[number:], 16_000)
        lines.append(f"{number}.wav,{'ab'[number % 2]},{'train' if number < 2 else 'test'}")
    (tmp_path / "clips.csv").write_text("\n".join(lines))
    decoded, hear = [], AudioReader.hear

    def recorded(*args):
        heard = hear(*args)
        decoded.append(len(heard.waveform))
        return heard

    monkeypatch.setattr(AudioReader, "hear", recorded)
    data = DataArguments(dataset_name=str(tmp_path / "clips.csv"), streaming=True, skip_bad_audio=True)
    streams, _, notes = check_streams(load_streams(data)[0], data, AudioReader(), 16_000)
    assert "4 of 4 clips looked at are longer than the 1.00 s that the model hears" in notes[0]
    splits, _ = load_splits(DataArguments(dataset_name=str(tmp_path / "clips.csv"), skip_bad_audio=True), seed=0)
    look_at_every_clip(clip_sets(splits), data, AudioReader(), 16_000)
    ASTDataCollator(ASTFeatureExtractor(max_length=96))([splits["train"][0]])
    assert len(decoded) == 9
    assert max(decoded) < 70 * 16_000


@pytest.mark.parametrize(("windows", "left_out"), [("random", 1), ("beginning", 0)])
def test_what_is_wrong_with_the_rest_of_a_long_clip_counts_where_the_rest_is_heard(tmp_path, windows, left_out):
    sound = np.random.default_rng(0).uniform(-0.5, 0.5, (8, 100 * 16_000)).astype(np.float32)
    sound[0, -20_000] = np.nan
    for number, samples in enumerate(sound):
        (tmp_path / "ab"[number % 2]).mkdir(exist_ok=True)
        soundfile.write(tmp_path / "ab"[number % 2] / f"{number}.wav", samples, 16_000, "FLOAT")
    fields = {"dataset_name": str(tmp_path), "eval_fraction": 0.25}
    data = DataArguments(**fields, skip_bad_audio=True)
    splits = with_windows(clip_sets(load_splits(data, seed=0)[0]), windows, windows.replace("random", "mean"))
    left, skipped, notes = look_at_every_clip(splits, data, AudioReader(), 16_000)
    assert [clip["file"][-5:] for clip in skipped] == ["0.wav"] * left_out
    assert sum(map(len, left.values())) == 8 - left_out
    data = DataArguments(**fields, check_audio=True)
    if left_out:
        with pytest.raises(DataError, match="0.wav contains NaN"):
            check_splits(splits, data, AudioReader(), 16_000)
    else:
        check_splits(splits, data, AudioReader(), 16_000)

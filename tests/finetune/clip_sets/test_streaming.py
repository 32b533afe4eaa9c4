"""Clips that are streamed: trained on, scored, left out and refused as clips that are at hand.

Run by the launcher, as one of its processes, this file trains on a stream and writes down which files each process opened.
"""

import json
import random
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file
from sklearn.utils.class_weight import compute_class_weight

from benchmarks.streaming_memory import write_table
from finetune.arguments.command_line import parse_arguments
from finetune.arguments.groups import DataArguments
from finetune.clip_sets import waveforms as clip_reading
from finetune.clip_sets.normalization import measure_normalization
from finetune.clip_sets.streaming import StreamError, load_streams
from finetune.run_evaluate import main as evaluate
from finetune.run_finetune import main
from finetune.runs.preparation import prepare_data
from finetune.runs.training_run import prepare_run, train_run
from finetune.sources.splits import load_splits
from finetune.training.trainer import ASTTrainer
from modeling_ast import ASTFeatureExtractor
from modeling_ast.audio import AudioError, AudioReader
from tests.finetune.clip_sets.streamed_clips import TINY, arguments, content, streamed, write
from tests.finetune.runs.test_processes import launch_two


def run(recipe_folder: Path, name: str, *flags, **settings) -> dict:
    folder = recipe_folder / name
    recipe = recipe_folder / f"{name}.yaml"
    recipe.write_text(yaml.safe_dump(TINY | settings | {"output_dir": str(folder)}))
    assert main([str(recipe), *flags]) == 0
    return json.loads((folder / "run_summary.json").read_text())


def test_clips_left_out_twice_are_those_left_out_at_once(table):
    streams, _ = load_streams(arguments(dataset_name=str(table)))
    stream = streams["train"]
    whole = list(stream)

    def clips(places, among):
        return {place: [whole[of_all]["label"]] for place, of_all in zip(places, among, strict=True)}

    draw = random.Random(0)
    for _ in range(5):
        first = draw.sample(range(len(whole)), 6)
        left = [place for place in range(len(whole)) if place not in first]
        second = draw.sample(range(len(left)), 7)
        among_all = [left[place] for place in second]
        twice = stream.without(clips(first, first)).without(clips(second, among_all))
        once = stream.without(clips(first + among_all, first + among_all))
        assert list(twice) == list(once) == [row for place, row in enumerate(whole) if place not in first + among_all]
        assert len(twice) == 24
        assert twice.label_counts().tolist() == np.bincount([row["label"] for row in twice], minlength=9).tolist()
        assert twice.digest() == once.digest() != stream.digest()


def test_classes_are_counted_anew_where_clips_are_left_out(tmp_path, rows):
    labels = 4 * ["kick"] + 3 * ["snare"]
    of_train = [row for row in rows if row["split"] == "train"][:7]
    of_test = [row for row in rows if row["split"] == "test"][:2]
    relabelled = [
        row | {"label": label} for row, label in zip(of_train + of_test, [*labels, "kick", "snare"], strict=True)
    ]
    streams, _ = load_streams(arguments(dataset_name=str(write(tmp_path, "csv", relabelled))))
    stream = streams["train"]
    assert stream.label_sets() == {(0,), (1,)}
    assert stream.without({0: [0], 4: [1], 5: [1]}).label_sets() == {(0,), (1,)}  # 4 are left, as in the longest run
    assert stream.without({4: [1], 5: [1], 6: [1]}).label_sets() == {(0,)}


@pytest.fixture(scope="module")
def trained(tmp_path_factory, table):
    folder = tmp_path_factory.mktemp("trained")
    flags = {"save_strategy": "steps", "save_steps": 3, "save_total_limit": 20, "dataset_name": str(table)}
    return folder, run(folder, "whole", **flags), flags


def test_a_run_says_what_it_was_trained_on_and_scores_like_ast_evaluate(trained, table, rows, tmp_path):
    folder, summary, _ = trained
    training = [row for row in rows if row["split"] == "train"]
    counts = Counter(row["label"] for row in training)
    assert summary["data"]["splits"]["train"]["clips"] == len(training) == 37
    assert {name: n for name, n in summary["data"]["splits"]["train"]["label_counts"].items() if n} == counts
    assert summary["data"]["license"] == sorted({row["license"] for row in rows})
    assert "streamed without looking for clips" in summary["data"]["split_method"]
    assert "streamed without looking for clips" in (folder / "whole" / "README.md").read_text()
    assert summary["training"]["shuffle_buffer"] == 12
    assert [row["epoch"] for row in summary["history"]] == [1, 2]
    assert (folder / "whole" / "checkpoint-10").is_dir()  # five steps an epoch

    flags = ["--model_name_or_path", str(folder / "whole"), "--dataset_name", str(table)]
    assert evaluate([*flags, "--output", str(tmp_path / "scores.json")]) == 0
    (scored,) = json.loads((tmp_path / "scores.json").read_text())["evaluations"]
    assert scored["clips"] == summary["evaluation"]["clips"] == 13
    assert scored["confusion_matrix"] == summary["evaluation"]["confusion_matrix"]
    for name in ("accuracy", "mean_average_precision", "roc_auc_macro"):
        assert scored["metrics"][name] == pytest.approx(summary["evaluation"]["metrics"][name], abs=1e-6)


def test_a_resumed_stream_ends_with_the_same_weights(trained, tmp_path, capsys):
    folder, _, flags = trained
    step = "checkpoint-6"  # the first update of the second epoch was made
    shutil.copytree(folder / "whole" / step, tmp_path / "resumed" / step)
    run(tmp_path, "resumed", "--resume_from_checkpoint", "true", "--dataloader_num_workers", "2", **flags)
    whole, resumed = (load_file(path / "model.safetensors") for path in (folder / "whole", tmp_path / "resumed"))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)

    recipe = str(tmp_path / "resumed.yaml")
    assert main([recipe, "--resume_from_checkpoint", "true", "--shuffle_buffer", "13"]) == 2
    assert re.search("from a run with other .*training settings", capsys.readouterr().err)


def test_a_stream_of_other_clips_is_not_gone_on_with(trained, tmp_path, rows, capsys):
    folder, _, flags = trained
    shutil.copytree(folder / "whole" / "checkpoint-6", tmp_path / "other" / "checkpoint-6")
    moved = str(write(tmp_path, "csv", [*rows[1:], rows[0]]))
    recipe = tmp_path / "other.yaml"
    recipe.write_text(yaml.safe_dump(TINY | flags | {"dataset_name": moved, "output_dir": str(tmp_path / "other")}))
    assert main([str(recipe), "--resume_from_checkpoint", "true"]) == 2
    assert "with other training clips" in capsys.readouterr().err


def test_statistics_of_all_streamed_clips_are_those_of_the_clips_at_hand(table):
    extractor = ASTFeatureExtractor(max_length=96)
    clips = streamed(table, buffer=12)
    splits, _ = load_splits(DataArguments(dataset_name=str(table)), seed=0)
    expected = clip_reading.ASTDataset(splits["train"], AudioReader(), clips.max_samples).waveforms(range(37))
    streamed_all = measure_normalization(clips.sample(0, seed=0), extractor)
    at_hand = measure_normalization(expected, extractor)
    assert (streamed_all.clips, streamed_all.frames) == (37, at_hand.frames)
    assert (streamed_all.mean, streamed_all.std) == pytest.approx((at_hand.mean, at_hand.std), abs=1e-5)
    assert measure_normalization(clips.sample(5, seed=0), extractor).clips == 5


def test_clips_that_cannot_be_used_are_left_out_and_listed(tmp_path, rows, capsys):
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"RIFF no audio")
    with_faults = [row | {"path": str(broken)} if place in (3, 40) else row for place, row in enumerate(rows)]
    table = str(write(tmp_path, "csv", with_faults))
    summary = run(tmp_path, "skipped", "--skip_bad_audio", "--num_train_epochs", "1", dataset_name=table)
    assert "2 clip(s) that cannot be used left out (training 1, scored 1)" in capsys.readouterr().out
    assert [(clip["split"], clip["file"]) for clip in summary["data"]["skipped_clips"]] == [
        ("train", "broken.wav"),
        ("test", "broken.wav"),
    ]
    assert str(tmp_path) not in json.dumps(summary["data"])
    assert [summary["data"]["splits"][split]["clips"] for split in ("train", "test")] == [36, 12]
    assert sum(summary["data"]["splits"]["train"]["label_counts"].values()) == 36
    assert np.sum(summary["evaluation"]["confusion_matrix"]) == 12
    assert main([str(tmp_path / "skipped.yaml"), "--overwrite_output_dir"]) == 2
    assert "broken.wav" in (message := capsys.readouterr().err)
    assert "--skip_bad_audio" in message


def test_a_dry_run_of_a_stream_leaves_out_what_a_training_leaves_out(tmp_path, rows, capsys):
    """A clip that cannot be decoded, and one that lies elsewhere and is not there."""
    broken, gone = tmp_path / "broken.wav", f"file://{tmp_path}/gone.wav"
    broken.write_bytes(b"RIFF no audio")
    bad = {3: str(broken), 40: gone}
    table = str(write(tmp_path, "csv", [row | {"path": bad.get(at, row["path"])} for at, row in enumerate(rows)]))
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(TINY | {"dataset_name": table, "output_dir": str(tmp_path / "run")}))
    assert main([str(recipe), "--skip_bad_audio", "--dry_run"]) == 0
    printed = capsys.readouterr().out
    assert "Nothing was trained" in printed
    assert "36 training clips, 12 to score" in printed
    report = json.loads((tmp_path / "run" / "dry_run" / "dry_run.json").read_text())
    assert [(clip["split"], clip["clip"]) for clip in report["bad_clips"]] == [("train", str(broken)), ("eval", gone)]
    assert report["bad_clips"][1]["reason"] == f"There is no file {gone}. Put it there."
    assert report["looked_at"] == {"clips": 50, "of": 50, "seed": None, "out_of_time": False}
    assert report["refused"] == []
    assert report["cost"] is not None, "a training could begin"
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["dry_run"]


def with_a_bad_clip(folder: Path, rows: list[dict], labels: list[list[str]]) -> str:
    """A table of four training clips with these labels, of which the last cannot be used, and two to score."""
    broken = folder / "broken.wav"
    broken.write_bytes(b"RIFF no audio")
    paths = [row["path"] for row in rows[:3]] + [str(broken), rows[3]["path"], rows[4]["path"]]
    splits = ["train"] * 4 + ["test"] * 2
    lines = [
        {"path": path, "label": label, "split": split}
        for path, label, split in zip(paths, [*labels, ["a"], ["b"]], splits, strict=True)
    ]
    (folder / "clips.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return str(folder / "clips.jsonl")


@pytest.mark.parametrize("streaming", [True, False])
@pytest.mark.parametrize(
    ("labels", "left"), [([["a"], ["b"], ["a", "b"], ["c"]], "c"), ([["a"], ["a"], [], ["b", "c"]], "b, c")]
)
def test_labels_whose_only_clip_cannot_be_used_are_named_as_at_hand(tmp_path, rows, labels, left, streaming):
    table = with_a_bad_clip(tmp_path, rows, labels)
    data = DataArguments(dataset_name=table, streaming=streaming, skip_bad_audio=True)
    _, _, notes, skipped = prepare_data(data, ASTFeatureExtractor(max_length=96), seed=0)
    assert f"{len(left.split(', '))} label(s) have no training clip: {left}" in notes
    assert [clip["file"] for clip in skipped] == ["broken.wav"]


@pytest.mark.parametrize("streaming", [True, False])
@pytest.mark.parametrize(
    ("labels", "left"),
    [
        ([["a"], ["a"], ["a"], ["a", "b"]], "a"),
        ([[], [], [], ["a", "b"]], "none"),
        ([["a", "b"], ["b", "a"], ["a", "b"], ["a"]], "a, b"),
    ],
)
def test_clips_that_are_left_with_the_same_labels_are_refused_as_at_hand(tmp_path, rows, labels, left, streaming):
    table = with_a_bad_clip(tmp_path, rows, labels)
    data = DataArguments(dataset_name=table, streaming=streaming, skip_bad_audio=True)
    with pytest.raises(ValueError, match=rf"All training clips have the same labels \({left}\)\."):
        prepare_data(data, ASTFeatureExtractor(max_length=96), seed=0)


def test_clips_in_order_of_their_classes_are_warned_of_and_their_weights_balanced(tmp_path, rows, capsys):
    by_class = sorted(rows, key=lambda row: (row["split"], row["label"]))
    settings = {"dataset_name": str(write(tmp_path, "csv", by_class)), "class_weights": "balanced"}
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(TINY | settings | {"output_dir": str(tmp_path / "run"), "shuffle_buffer": 2}))
    prepared = prepare_run([str(recipe)], parse_arguments([str(recipe)]))
    assert "come one after the other, more than --shuffle_buffer 2 mixes" in capsys.readouterr().out
    splits, _ = load_splits(DataArguments(dataset_name=settings["dataset_name"]), seed=0)
    expected = compute_class_weight("balanced", classes=np.arange(9), y=np.array(splits["train"]["label"]))
    assert prepared.trainer.loss.keywords["weights"].numpy() == pytest.approx(expected, abs=1e-6)
    scored = [clip.row for clip in prepared.trainer._get_eval_sampler(prepared.clips["eval"])]
    assert scored == list(prepared.clips["eval"].split)  # in their order


def test_data_that_changes_after_the_first_pass_ends_the_stream_in_words(tmp_path, rows):
    path = write(tmp_path, "csv", rows)
    streams, _ = load_streams(arguments(dataset_name=str(path)))
    write(tmp_path, "csv", rows[1:])
    with pytest.raises(StreamError, match=r"has 36 clips of this split, but had 37 .* Do not change the data"):
        list(streams["train"])
    write(tmp_path, "csv", rows[:29] + [row | {"label": "gong"} for row in rows[29:]])
    with pytest.raises(StreamError, match="Row 30 of .* has the label 'gong', which no clip had"):
        list(streams["train"])


@pytest.mark.parametrize(("where", "workers"), [("elsewhere", 1), ("here", 0), ("table", 0)])
def test_a_file_that_vanishes_in_a_stream_is_named_and_gone_on_with(
    tmp_path, rows, capsys, monkeypatch, where, workers
):
    path = tmp_path / "clip.wav"
    shutil.copy(rows[2]["path"], path)
    name = f"file://{path}" if where == "elsewhere" else str(path)
    table = write(tmp_path, "csv", [row | {"path": name} if row is rows[2] else row for row in rows])
    victim = table if where == "table" else path
    for picture in (
        "plot_training_curve",
        "plot_confusion_matrix",
        "_plot_example",
    ):  # which take longer than the training
        monkeypatch.setattr(f"finetune.results.publishing.{picture}", lambda *_: None)
    recipe = tmp_path / "recipe.yaml"
    settings = {"dataset_name": str(table), "save_strategy": "epoch", "dataloader_num_workers": workers}
    recipe.write_text(yaml.safe_dump(TINY | settings | {"output_dir": str(tmp_path / "run")}))
    save = ASTTrainer._save_checkpoint

    def save_and_remove(self, *args):
        save(self, *args)
        victim.rename(tmp_path / "away")

    with monkeypatch.context() as context:
        context.setattr(ASTTrainer, "_save_checkpoint", save_and_remove)
        assert main([str(recipe)]) == 1
    message = capsys.readouterr().err
    words = {
        "elsewhere": f"There is no file {name}. Put it there.",
        "here": f"There is no file {name}. It was there before the training: put it back.",
        "table": f"{table} is no longer there. Put it back as it was.",
    }[where]
    goes_on = f"The last checkpoint is {tmp_path / 'run' / 'checkpoint-5'}. Type the same command with --resume_from_checkpoint true"
    assert message.startswith(f"ast-finetune: training stopped. {words} {goes_on}")
    assert message.count("\n") == 1
    (tmp_path / "away").rename(victim)
    assert main([str(recipe), "--resume_from_checkpoint", "true"]) == 0


def test_a_table_that_changes_its_form_ends_the_stream_in_words(tmp_path, rows):
    path = write(tmp_path, "csv", rows)
    streams, _ = load_streams(arguments(dataset_name=str(path)))
    path.write_text("file,class\n")
    with pytest.raises(StreamError, match=r"clips.csv can no longer be read \(.*Put it back as it was\."):
        list(streams["train"])
    path.unlink()
    path.mkdir()
    with pytest.raises(StreamError, match=r"clips.csv can no longer be read \(.*Is a directory"):
        list(streams["train"])


def test_a_file_that_cannot_be_fetched_is_named_with_the_reason():
    with pytest.raises(AudioError, match=r"nowhere://a.wav cannot be read: .*nowhere.*\. Check the connection"):
        clip_reading.fetched({"bytes": None, "path": "nowhere://a.wav"})


def test_a_file_that_lies_elsewhere_is_fetched(tmp_path, rows):
    assert clip_reading.fetched({"bytes": None, "path": f"file://{rows[0]['path']}"})["bytes"] == content(rows[0])
    of_machine = {"bytes": None, "path": rows[0]["path"]}
    assert clip_reading.fetched(of_machine) is of_machine
    remote = [row | {"path": f"file://{row['path']}"} for row in rows]
    clips = streamed(write(tmp_path, "csv", remote))
    assert len(clips[0]["waveform"])


@pytest.mark.parametrize(
    ("change", "flags", "message"),
    [
        (lambda rows: [row | {"split": "train"} for row in rows], [], r"No clip is in the split 'test'; .*--eval_split_name"),
        (lambda rows: rows[:1] + [row | {"split": ""} for row in rows[1:2]] + rows[2:], [], "Row 2 of .*nothing in .*'split'"),
        (lambda rows: rows[:1] + [row | {"label": ""} for row in rows[1:2]] + rows[2:], [], "2 of .*nothing in .*'label'"),
        (lambda rows: [row | {"label": "kick"} for row in rows], [], "training clips have the label kick"),
        (lambda rows: [rows[0], rows[1] | {"path": ""}, *rows[2:]], [], r"csv: row\(s\) 2 have nothing in the column 'path'"),
        (
            lambda rows: [rows[0], *(row | {"path": "gone.wav"} for row in rows[1:3]), *rows[3:]], ["--skip_bad_audio"],
            r"csv names 1 file\(s\) that are not there, .*gone.wav \(row 2\)\. Paths are taken .*Correct or remove",
        ),
        (None, ["--split_column_name", "part"], "has no column 'part' .*--train_file and --eval_file"),
        (None, ["--label_column_name", "class"], "label_column_name='class' is not in the data set"),
        (None, ["--ignore_labels", "gong"], "ignore_labels names gong"),
        (None, ["--labels", "kick", "snare"], "are not among those of .*--labels"),
        (None, ["--train_sampling_strategy", "class_balanced"], "train_sampling_strategy random, or leave out --streaming"),
        (None, ["--train_sampling_strategy", "group_by_length", "--padding", "longest"], "or leave out --streaming"),
        (None, ["--validation_fraction", "0.1"], "validation_fraction .*--validation_split_name"),
        (None, ["--eval_fraction", "0.3"], "eval_fraction .*--eval_split_name"),
        (None, ["--group_column_name", "kit"], "Leave out --group_column_name, or --streaming"),
        (None, ["--fold_column_name", "kit"], "Leave out --fold_column_name, or --streaming"),
        (None, ["--waveform_cache", "cache"], "Leave out --waveform_cache, or --streaming"),
        (None, ["--drop_duplicate_audio"], "Leave out --drop_duplicate_audio, or --streaming"),
        (None, ["--features_column_name", "mel", "--mixup_probability", "0"], "--features_column_name, or --streaming"),
        (None, ["--shuffle_buffer", "0"], "shuffle_buffer=0 is less than 1. Pass for example 1000"),
        (None, ["--streaming", "false", "--shuffle_buffer", "8"], "shuffle_buffer belongs to .* Pass --streaming"),
    ],
)  # fmt: skip
def test_what_a_stream_cannot_do_is_refused_with_what_to_type(tmp_path, rows, capsys, change, flags, message):
    table = write(tmp_path, "csv", change(rows) if change else rows)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(TINY | {"dataset_name": str(table), "output_dir": str(tmp_path / "run")}))
    assert main([str(recipe), *flags]) == 2
    assert re.search(message, capsys.readouterr().err, re.DOTALL)
    assert not (tmp_path / "run").exists()


MEMORY = (
    "import sys; from benchmarks.streaming_memory import train_in_this_process; train_in_this_process(*sys.argv[1:])"
)


@pytest.mark.long
def test_memory_does_not_grow_with_the_data(tmp_path):
    """Held undecoded, the 117 MB of the larger table would be a tenth of what the process takes anyway."""
    peaks = []
    for clips in (900, 9000):
        table = write_table(tmp_path / f"{clips}.parquet", clips)
        command = [sys.executable, "-c", MEMORY, str(table), str(tmp_path / f"run{clips}")]
        output = subprocess.run(command, check=True, capture_output=True, text=True, timeout=500).stdout
        peaks.append(float(output.splitlines()[-1]))
    assert peaks[1] < 1.05 * peaks[0], peaks


OPENED = "opened_{rank}.json"


def train_and_record(recipe: str, folder: str):
    """Train, and write down which audio files this process opened in training."""
    prepared = prepare_run([recipe], parse_arguments([recipe]))
    opened, hear = [], AudioReader.hear

    def recorded(reader, audio, *args):
        opened.append(audio["path"])
        return hear(reader, audio, *args)

    AudioReader.hear = recorded
    train_run(prepared)
    Path(folder, OPENED.format(rank=prepared.trainer.args.process_index)).write_text(json.dumps(opened))


@pytest.mark.long
def test_two_processes_share_a_stream_and_learn_what_one_learns(tmp_path, table, rows):
    settings = {
        "dataset_name": str(table), "mixup_probability": 0.0, "hidden_dropout_prob": 0.0, "max_grad_norm": 0,
        "num_train_epochs": 1, "per_device_train_batch_size": 4, "per_device_eval_batch_size": 4,
        "logging_strategy": "steps", "logging_steps": 1, "normalization": [-6.4, 5.7],
    }  # fmt: skip
    recipe = tmp_path / "two.yaml"
    recipe.write_text(yaml.safe_dump(TINY | settings | {"output_dir": str(tmp_path / "two")}))
    launch_two("tests.finetune.clip_sets.test_streaming", str(recipe), str(tmp_path))
    opened = [json.loads((tmp_path / OPENED.format(rank=rank)).read_text()) for rank in (0, 1)]
    training, test = ([row["path"] for row in rows if row["split"] == split] for split in ("train", "test"))
    in_training = [[path for path in paths if path in training] for paths in opened]
    # 37 clips in batches of 8 over both are filled up to 40 with the first three of the epoch.
    assert [len(paths) for paths in in_training] == [20, 20]
    assert set(in_training[0]) | set(in_training[1]) == set(training)
    assert sum(Counter(in_training[0] + in_training[1]).values()) - len(set(training)) == 3

    summary = json.loads((tmp_path / "two" / "run_summary.json").read_text())
    assert summary["environment"]["processes"] == 2
    assert np.sum(summary["evaluation"]["confusion_matrix"]) == len(test) == 13
    alone = run(tmp_path, "one", **(settings | {"per_device_train_batch_size": 8}))
    losses = [[row["loss"] for row in of_run["history"][:4]] for of_run in (summary, alone)]  # the fifth is filled up
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


if __name__ == "__main__":
    train_and_record(*sys.argv[1:])

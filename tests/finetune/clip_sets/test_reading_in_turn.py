"""Passes over many clips: who reads them where nobody said it, and that it changes nothing."""

import gc
import json
import math
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
from multiprocessing import active_children
from multiprocessing.process import BaseProcess

import datasets
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny_trainings import SIZES, write_recipe, write_tones

from finetune import run_evaluate
from finetune.clip_sets import decoding, split_checks
from finetune.clip_sets.decoding import decoded_clips, decoded_rows, workers_that_read
from finetune.clip_sets.waveforms import WHOLE
from finetune.run_finetune import main
from modeling_ast.audio import AudioReader


@pytest.fixture
def readers(monkeypatch, tmp_path):
    """Two processes take over after two clips; gives what tells how many clips this process and others read."""
    if multiprocessing.get_all_start_methods()[0] != "fork":
        pytest.skip("what is changed here is not changed in processes that are not forked")
    monkeypatch.setattr(decoding, "READ_ALONE", 0.0)
    monkeypatch.setattr(decoding, "WORTH_WORKERS", 0.0)
    monkeypatch.setattr(decoding, "workers_that_read", lambda: 2)
    noted, hear = tmp_path / "readers", AudioReader.hear
    noted.touch()

    def hear_and_note(*arguments, **more):
        with open(noted, "a") as file:
            file.write(f"{os.getpid()}\n")
        return hear(*arguments, **more)

    monkeypatch.setattr(AudioReader, "hear", hear_and_note)

    def told():
        found = noted.read_text().splitlines()
        noted.write_text("")
        here = found.count(str(os.getpid()))
        return here, len(found) - here

    return told


@pytest.fixture(scope="module")
def audio(tones):
    """Undecoded clips, two of which cannot be used."""
    paths = [str(path) for path in sorted(tones.rglob("*.wav"))]
    bad = [{"bytes": b"no audio", "path": "bad.wav"}, {"bytes": b"", "path": "empty.wav"}]
    clips = [{"bytes": None, "path": path} for path in paths]
    values = {"audio": [*clips[:7], *bad, *clips[7:]]}
    return datasets.Dataset.from_dict(values).cast_column("audio", datasets.Audio(decode=False))


@pytest.fixture(scope="module")
def tones(tmp_path_factory):
    return write_tones(tmp_path_factory.mktemp("tones"), count=4)


def decoded(audio, num_workers, rows=range(2, 13)):
    found = list(decoded_clips(audio, rows, AudioReader(), 4_000, num_workers, "looking"))
    return [(clip.row, clip.length, clip.fault, clip.notes, clip.waveform) for clip in found]


def assert_alike(found, expected):
    assert [clip[:-1] for clip in found] == [clip[:-1] for clip in expected]
    for (*_, own), (*_, other) in zip(found, expected, strict=True):
        assert (own is None) == (other is None)
        assert own is None or np.array_equal(own, other)


def test_others_take_over_and_nothing_changes(audio, readers):
    alone = decoded(audio, 0)
    assert readers() == (11, 0)
    assert [clip[0] for clip in alone] == list(range(2, 13))
    assert sum(clip[2] is not None for clip in alone) == 2
    torch.manual_seed(3)
    before = torch.get_rng_state()
    assert_alike(decoded(audio, None), alone)
    assert readers() == (2, 9)
    assert torch.equal(torch.get_rng_state(), before)
    assert active_children() == []


def test_rows_of_a_stream_may_be_fewer_than_it_was_thought_to_have(audio, readers):
    for number in (3, 13, 20):
        rows = ((place, audio[place]) for place in range(13))
        found = list(decoded_rows(rows, number, AudioReader(), 4_000, None, "looking"))
        assert [clip.row for clip, _ in found] == list(range(13))
        assert readers() == (2, 11)


@pytest.mark.parametrize("name", ["READ_ALONE", "WORTH_WORKERS"])
def test_what_takes_little_time_is_read_here(audio, readers, monkeypatch, name):
    monkeypatch.setattr(decoding, name, math.inf)
    decoded(audio, None)
    assert readers() == (11, 0)


def test_what_is_left_is_told_by_what_was_read(audio, readers, monkeypatch):
    """After three clips six are left. The first took long, as things were loaded; at ten seconds each they take a minute."""
    clock = [0.0]
    look = decoding.look_at_clip
    monkeypatch.setattr(decoding.time, "perf_counter", lambda: clock[0])

    def look_for_ten_seconds(*arguments):
        clock[0] += 10.0 if clock[0] else 1_000.0
        return look(*arguments)

    monkeypatch.setattr(decoding, "look_at_clip", look_for_ten_seconds)
    monkeypatch.setattr(decoding, "READ_ALONE", 15.0)
    good = [2, 3, 4, 5, 6, 9, 10, 11, 12]
    for worth, here in ((61.0, 9), (59.0, 3)):
        clock[0] = 0.0
        monkeypatch.setattr(decoding, "WORTH_WORKERS", worth)
        list(decoded_clips(audio, good, AudioReader(), 4_000, None, "looking", keep=False))
        assert readers() == (here, 9 - here)


def test_a_number_that_was_given_is_obeyed(audio, readers):
    assert_alike(decoded(audio, 1), decoded(audio, 0))
    assert readers() == (11, 11)


@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)  # of torch's iterator, with some processes alone
@pytest.mark.parametrize("there", [0, 1])
def test_without_processes_it_goes_on_here(audio, readers, monkeypatch, there):
    alone = decoded(audio, 0)
    readers()
    started, start = [], BaseProcess.start

    def start_some(process):
        if len(started) == there:
            raise OSError(12, "Cannot allocate memory")
        started.append(process)
        start(process)

    monkeypatch.setattr(BaseProcess, "start", start_some)
    assert_alike(decoded(audio, None), alone)
    assert readers() == (11, 0)
    assert len(started) == there
    assert active_children() == []


def test_an_error_of_the_rows_is_not_taken_for_one_of_the_processes(audio, readers):
    """Rows of a stream come through the network. The third is asked for when processes are there."""

    def rows():
        yield from ((place, audio[place]) for place in range(3))
        raise ConnectionError("of the stream")

    with pytest.raises(ConnectionError, match="of the stream"):
        list(decoded_rows(rows(), 13, AudioReader(), 4_000, None, "looking"))
    assert active_children() == []


def test_whole_clips_that_are_kept_are_decoded_here_if_nobody_said_how_many(audio, readers):
    """They may last hours, and all that a process has ready lie in memory."""

    def look(num_workers, keep):
        return list(decoded_clips(audio, range(13), AudioReader(), WHOLE, num_workers, "looking", keep=keep))

    assert len(look(None, True)) == 13
    assert readers() == (13, 0)
    assert len(look(1, True)) == 13
    assert readers() == (0, 13)


def test_each_process_has_one_clip_at_a_time(audio, readers):
    asked = []

    def rows():
        for place in range(13):
            asked.append(place)
            yield place, audio[place]

    read = decoded_rows(rows(), 13, AudioReader(), 4_000, None, "looking")
    for _ in range(3):
        next(read)
    assert len(asked) == 2 + 2 + 1, "two here, one for each of two processes, and one for the first that is through"
    read.close()


def test_a_process_that_may_have_no_children_reads_by_itself(audio, readers, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setattr(decoding, "READ_ALONE", 0.0)
    monkeypatch.setattr(decoding, "WORTH_WORKERS", 0.0)
    monkeypatch.setattr(decoding, "processors", lambda: 2)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    assert workers_that_read() == 2
    context = multiprocessing.get_context("fork")
    found = context.SimpleQueue()
    process = context.Process(target=lambda: found.put(len(decoded(audio, None))), daemon=True)
    process.start()
    process.join()
    assert process.exitcode == 0
    assert found.get() == 11


def test_the_start_method_is_left_to_the_session():
    code = """
import multiprocessing
from finetune.clip_sets import decoding
decoding.processors = lambda: 2
print(decoding.workers_that_read())
multiprocessing.set_start_method("spawn")
print(decoding.workers_that_read())
"""
    usual = 2 if multiprocessing.get_all_start_methods()[0] == "fork" else 0
    left = {name: value for name, value in os.environ.items() if name not in ("OMP_NUM_THREADS", "LOCAL_WORLD_SIZE")}
    done = subprocess.run([sys.executable, "-c", code], env=left, capture_output=True, text=True)
    assert done.stdout.split() == [str(usual), "0"], done.stderr


def test_an_error_of_a_process_that_took_over_leaves_none_behind(audio, readers, monkeypatch):
    def fail(*_):
        raise TypeError("of a clip")

    read = decoded_clips(audio, range(13), AudioReader(), 4_000, None, "looking")
    for _ in range(2):
        next(read)
    monkeypatch.setattr(decoding, "hear_clip", fail)
    gc.disable()
    try:
        with pytest.raises(TypeError, match="in DataLoader worker process (?s:.*)of a clip") as caught:
            list(read)
        del caught
        assert active_children() == []
    finally:
        gc.enable()


def test_a_pass_that_nobody_ends_leaves_no_process_behind(audio, readers):
    read = decoded_clips(audio, range(13), AudioReader(), 4_000, None, "looking")
    for _ in range(4):
        next(read)
    assert len(active_children()) == 2
    read.close()
    assert active_children() == []


@pytest.mark.parametrize(
    ("processors", "processes", "number"), [(1, 1, 0), (2, 1, 2), (6, 1, 6), (64, 1, 8), (8, 4, 2), (4, 4, 0)]
)
def test_how_many_read(monkeypatch, processors, processes, number):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    monkeypatch.setattr(decoding, "processors", lambda: processors)
    monkeypatch.setattr(multiprocessing, "get_start_method", lambda allow_none: "fork")
    assert workers_that_read() == number
    with monkeypatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        assert workers_that_read() == 0
    monkeypatch.setattr(multiprocessing, "get_start_method", lambda allow_none: "spawn")
    assert workers_that_read() == 0


@pytest.fixture(scope="module")
def start(tones, tmp_path_factory):
    """A checkpoint of the tones."""
    folder = tmp_path_factory.mktemp("start")
    assert main([write_recipe(folder, tones)]) == 0
    return str(folder / "run")


FLAGS = ["--head_start", "fitted"]
PASSES = {
    "sample": ["--check_audio", "true"],
    "all": ["--skip_bad_audio", "true"],
    "cache": ["--waveform_cache", "CACHE", "--score_windows", "beginning"],
}


@pytest.mark.parametrize("name", PASSES)
def test_a_training_has_the_same_weights(tones, start, readers, tmp_path, name):
    weights, summaries = [], []
    for folder, flags in ((tmp_path / "alone", ["--dataloader_num_workers", "0"]), (tmp_path / "helped", [])):
        folder.mkdir()
        sizes = dict.fromkeys(SIZES) | {"max_length": 48}
        recipe = write_recipe(folder, tones, **sizes, model_name_or_path=start, normalization="measured")
        given = [str(folder / "cache") if flag == "CACHE" else flag for flag in PASSES[name]]
        beginnings = ["--clip_windows", "beginning"] if name == "cache" else []  # whole clips are kept here
        assert main([recipe, *FLAGS, *given, *beginnings, *flags]) == 0
        assert (readers()[1] > 0) == (not flags)
        weights.append(load_file(folder / "run" / "model.safetensors"))
        summaries.append(json.loads((folder / "run" / "run_summary.json").read_text()))
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    assert summaries[0]["evaluation"] == summaries[1]["evaluation"]
    assert summaries[0]["features"] == summaries[1]["features"]


@pytest.mark.parametrize("name", ["all", "cache"])
def test_scores_are_the_same(tones, start, readers, tmp_path, name):
    found = []
    for folder, flags in ((tmp_path / "alone", ["--dataloader_num_workers", "0"]), (tmp_path / "helped", [])):
        folder.mkdir()
        given = [str(folder / "cache") if flag == "CACHE" else flag for flag in PASSES[name]]
        command = ["--model_name_or_path", start, "--dataset_name", str(tones), *given, *flags]
        assert run_evaluate.main([*command, "--predictions", f"{folder}/scores.csv"]) == 0
        found.append((folder / "scores.csv").read_bytes())
        while_scoring = 12 * (name == "all")
        assert readers() == ((12 + while_scoring, 0) if flags else (2 + while_scoring, 10))
    assert found[0] == found[1]


def test_what_is_measured_in_other_processes_stays_in_memory(tones, readers, tmp_path):
    assert main([write_recipe(tmp_path, tones, num_train_epochs=3)]) == 0
    here, there = readers()
    assert here + there == 2 * 12, "a look at each clip, and once for all epochs and scores"
    assert there > 12


def test_a_clip_that_cannot_be_used_is_named_alike(tones, readers, tmp_path, capsys):
    said = []
    for flags in (["--dataloader_num_workers", "0"], []):
        (tmp_path / "clips" / "a").mkdir(parents=True, exist_ok=True)
        for path in sorted(tones.rglob("*.wav")):
            (tmp_path / "clips" / path.parent.name).mkdir(exist_ok=True)
            (tmp_path / "clips" / path.parent.name / path.name).write_bytes(path.read_bytes())
        (tmp_path / "clips" / "a" / "bad.wav").write_bytes(b"no audio")
        assert main([write_recipe(tmp_path, tmp_path / "clips"), *flags]) == 2
        said.append(capsys.readouterr().err)
        assert (readers()[1] > 0) == (not flags)
    assert said[0] == said[1]
    assert "bad.wav" in said[0]


@pytest.mark.parametrize("flags", [[], ["--dataloader_num_workers", "2"]])
def test_a_clip_that_cannot_be_measured_is_named_in_one_line(tones, readers, tmp_path, capsys, monkeypatch, flags):
    monkeypatch.setattr(split_checks, "CLIPS_CHECKED", 1)
    shutil.copytree(tones, tmp_path / "clips" / "train")
    write_tones(tmp_path / "clips" / "test", count=4, seed=1)
    bad = tmp_path / "clips" / "train" / "c" / "3.wav"
    bad.write_bytes(b"no audio")
    assert main([write_recipe(tmp_path, tmp_path / "clips"), *flags]) == 2
    said = capsys.readouterr().err
    assert readers()[1] > 0, said
    assert said.count("\n") == 1, said
    assert said.startswith(f"ast-finetune: {bad}")


def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("program", ["ast-finetune", "ast-evaluate"])
def test_a_process_that_is_killed_is_told_with_what_to_type(
    tones, start, readers, tmp_path, capsys, monkeypatch, program
):
    """As the system does where memory is full."""
    look, parent = decoding.look_at_clip, os.getpid()
    monkeypatch.setattr(decoding, "look_at_clip", lambda *given: look(*given) if os.getpid() == parent else die())
    if program == "ast-finetune":
        assert main([write_recipe(tmp_path, tones)]) == 1
    else:
        command = ["--model_name_or_path", start, "--dataset_name", str(tones), "--skip_bad_audio", "true"]
        assert run_evaluate.main(command) == 1
    said = capsys.readouterr().err
    assert said == (
        f"{program}: A worker that reads clips was killed, most likely because the memory of this machine was full. Pass "
        "--dataloader_num_workers 0.\n"
    )
    assert active_children() == []

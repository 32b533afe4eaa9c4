"""The waveform cache: equal to decoding, never decoded twice, never half, and told what it needs."""

import errno
import json
import os
import pickle
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import datasets
import forked_python
import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file
from tiny_trainings import write_recipe

import finetune.clip_sets.decoding
import finetune.clip_sets.waveform_cache
from finetune.augmentations.augmentation import Augmentation
from finetune.augmentations.speed_change import SPEED_STEPS, SpeedChange, change_speed
from finetune.clip_sets.waveform_cache import INDEX_NAME, RECORD, WAVEFORMS_NAME, WaveformCache
from finetune.clip_sets.waveforms import ASTDataset
from finetune.run_evaluate import main as evaluate
from finetune.run_finetune import main
from finetune.sources.data_errors import DataError
from modeling_ast.audio import AudioError, AudioReader, read_audio

RATE = 16_000
AUGMENTED = {"mixup_probability": 0.5, "max_speed_change": 0.2, "max_gain_db": 3.0, "max_time_mask": 8}


def audio_of(paths) -> datasets.Dataset:
    values = [path if isinstance(path, dict) else str(path) for path in paths]
    features = datasets.Features({"audio": datasets.Audio(decode=False)})
    return datasets.Dataset.from_dict({"audio": values}, features)


@pytest.fixture
def clips(tmp_path) -> list[Path]:
    """Six clips of other lengths, rates and channels."""
    generator = np.random.default_rng(0)
    paths = []
    for number, (rate, channels) in enumerate(
        [(16_000, 1), (44_100, 2), (8_000, 1), (22_050, 1), (48_000, 2), (16_000, 1)]
    ):
        paths.append(tmp_path / f"clip {number}.wav")
        soundfile.write(paths[-1], generator.uniform(-0.5, 0.5, (rate // 2 + 1000 * number, channels)), rate)
    return paths


@pytest.fixture
def decoded(monkeypatch) -> list[str]:
    """Paths of the files that are decoded in this process to fill a cache, as they come."""
    seen, hear_clip = [], finetune.clip_sets.decoding.hear_clip

    def read_and_note(audio, *args):
        seen.append(audio["path"])
        return hear_clip(audio, *args)

    monkeypatch.setattr(finetune.clip_sets.decoding, "hear_clip", read_and_note)
    return seen


@pytest.fixture
def recipe(tmp_path, few_drums):
    (tmp_path / "drums.csv").write_text(few_drums.read_text())
    return write_recipe(tmp_path, tmp_path / "drums.csv", output_dir=None, num_train_epochs=1, **AUGMENTED)


def test_training_with_the_cache_gives_the_same_weights_and_the_second_run_decodes_nothing(
    recipe, tmp_path, monkeypatch, capsys
):
    assert main([recipe, "--output_dir", str(tmp_path / "plain")]) == 0
    cache = ["--waveform_cache", str(tmp_path / "cache")]
    capsys.readouterr()
    assert main([recipe, "--output_dir", str(tmp_path / "first"), *cache]) == 0
    output = capsys.readouterr().out
    assert "waveform cache: decoding 33 clips" in output
    assert " GB free" in output
    assert "33 decoded now" in output

    def refuse(*_):
        raise AssertionError("a file was decoded")

    for module in ("clip_sets.waveforms", "clip_sets.decoding"):
        monkeypatch.setattr(f"finetune.{module}.hear_clip", refuse)
    workers = ["--dataloader_num_workers", "2"]
    assert main([recipe, "--output_dir", str(tmp_path / "second"), *cache, *workers]) == 0
    assert ", 0 decoded now" in capsys.readouterr().out
    data = ["--dataset_name", str(tmp_path / "drums.csv"), "--model_name_or_path", str(tmp_path / "first")]
    assert evaluate([*data, *cache, "--device", "cpu", "--output", str(tmp_path / "scores.json")]) == 0
    monkeypatch.undo()

    plain, *others = (load_file(tmp_path / run / "model.safetensors") for run in ("plain", "first", "second"))
    for other in others:
        assert all(torch.equal(plain[name], other[name]) for name in plain)
    recorded = json.loads((tmp_path / "plain" / "run_summary.json").read_text())["evaluation"]["metrics"]
    scored = json.loads((tmp_path / "scores.json").read_text())["evaluations"][0]["metrics"]
    assert scored["accuracy"] == recorded["accuracy"]


def test_every_clip_is_what_decoding_gives_whether_its_bytes_or_its_path_are_there(clips, tmp_path):
    values = [*clips, *({"bytes": path.read_bytes(), "path": None} for path in clips[:2])]
    cache = WaveformCache(tmp_path / "cache", AudioReader(RATE), 100_000)
    filled = cache.fill(audio_of(values), num_workers=2)
    waveforms = cache.waveforms(audio_of(values[::-1]))
    for waveform, path in zip(waveforms, [*clips[1::-1], *clips[::-1]], strict=True):
        assert waveform.dtype == np.float32
        np.testing.assert_array_equal(waveform, read_audio(path, RATE))
    assert filled.lengths.tolist() == [len(read_audio(path, RATE)) for path in [*clips, *clips[:2]]]
    assert filled.kept_bytes == 4 * filled.lengths.sum() == (tmp_path / "cache" / WAVEFORMS_NAME).stat().st_size
    assert not np.array_equal(cache.waveforms(audio_of(clips))[0], waveforms[0])


def test_only_what_is_not_in_the_cache_is_decoded_each_file_once(clips, tmp_path, decoded):
    cache = WaveformCache(tmp_path / "cache", AudioReader(RATE), 100_000)
    cache.fill(audio_of(clips[:3] * 4))
    assert sorted(decoded) == sorted(map(str, clips[:3]))
    decoded.clear()
    assert WaveformCache(tmp_path / "cache", AudioReader(RATE), 100_000).fill(audio_of(clips)).decoded == 3
    assert sorted(decoded) == sorted(map(str, clips[3:]))
    decoded.clear()
    cache.fill(audio_of(clips))
    assert decoded == []
    WaveformCache(tmp_path / "cache", AudioReader(8_000), 100_000).fill(audio_of(clips[:1]))
    assert decoded == [str(clips[0])]  # at another rate
    assert (
        len(WaveformCache(tmp_path / "cache", AudioReader(8_000), 100_000).waveforms(audio_of(clips[:1]))[0]) == 4_000
    )


@pytest.mark.parametrize("same_size", [True, False])
def test_a_file_that_was_changed_is_decoded_anew(clips, tmp_path, decoded, same_size):
    cache = WaveformCache(tmp_path / "cache", AudioReader(RATE), 100_000)
    cache.fill(audio_of(clips))
    decoded.clear()
    status = clips[0].stat()
    soundfile.write(clips[0], np.zeros(8_000 if same_size else 9_000), RATE)
    os.utime(clips[0], ns=(0, status.st_mtime_ns + 1) if same_size else (0, status.st_mtime_ns))
    with pytest.raises(DataError, match="clip 0.wav is not in the waveform cache .* Run again"):
        cache.waveforms(audio_of(clips))
    cache.fill(audio_of(clips))
    assert decoded == [str(clips[0])]
    assert not cache.waveforms(audio_of(clips))[0].any()
    np.testing.assert_array_equal(cache.waveforms(audio_of(clips))[1], read_audio(clips[1], RATE))


def test_of_a_long_clip_only_what_can_be_heard_is_kept(tmp_path, decoded):
    waveform = np.random.default_rng(0).uniform(-0.5, 0.5, 60 * RATE).astype(np.float32)
    soundfile.write(tmp_path / "long.wav", waveform, RATE, subtype="FLOAT")
    long = audio_of([tmp_path / "long.wav"])
    short = WaveformCache(tmp_path / "cache", AudioReader(RATE), 20_000)
    filled = short.fill(long)
    assert filled.lengths.tolist() == [60 * RATE]
    assert filled.kept_bytes == 80_000 == (tmp_path / "cache" / WAVEFORMS_NAME).stat().st_size
    # A run that hears more decodes it again, one that hears less does not, also after that.
    longer = WaveformCache(tmp_path / "cache", AudioReader(RATE), 50_000)
    longer.fill(long)
    WaveformCache(tmp_path / "cache", AudioReader(RATE), 10_000).fill(long)
    short.fill(long)
    assert len(decoded) == 2
    np.testing.assert_array_equal(longer.waveforms(long)[0], waveform[:50_000])


def test_flac_that_was_written_to_a_pipe_and_tells_no_length_is_kept(tmp_path):
    waveform = np.random.default_rng(0).integers(-9000, 9000, 3 * RATE).astype(np.int16)
    soundfile.write(tmp_path / "a.flac", waveform, RATE)
    content = bytearray((tmp_path / "a.flac").read_bytes())
    content[21] &= 0xF0  # the number of samples, 36 bits of the first block
    content[22:26] = bytes(4)
    (tmp_path / "a.flac").write_bytes(content)
    assert soundfile.info(tmp_path / "a.flac").frames > 1 << 60
    cache = WaveformCache(tmp_path / "cache", AudioReader(RATE), 20_000)
    filled = cache.fill(audio_of([tmp_path / "a.flac"]))
    assert filled.kept_bytes == 80_000
    np.testing.assert_array_equal(
        cache.waveforms(audio_of([tmp_path / "a.flac"]))[0], waveform[:20_000] / np.float32(32768)
    )


def test_what_is_said_of_a_beginning_is_not_said_by_a_run_that_hears_more(tmp_path):
    """As of a call after a second of silence, by models of one second and of three."""
    samples = np.concatenate([np.zeros(2 * RATE), 0.5 * np.sin(np.arange(RATE) * 0.3)])
    soundfile.write(tmp_path / "late.wav", samples, RATE)
    audio = audio_of([tmp_path / "late.wav"])
    for seconds, kinds in ((1, ["silent"]), (3, [])):
        reader, heard = AudioReader(), seconds * RATE
        found = WaveformCache(tmp_path / "cache", reader, heard).fill(audio)
        assert [note.kind for note in found.notes.get(0, ())] == kinds
        assert [note.kind for note in reader.hear(tmp_path / "late.wav", max_samples=heard).notes] == kinds


@pytest.mark.parametrize("speed", [0.5, 0.51, 0.97, 1.01, 1.03, 1.1, 1.33, 1.49, 1.5])
@pytest.mark.parametrize("max_samples", [400, 16_000])
def test_the_kept_samples_are_all_that_a_change_of_speed_can_bring_to_be_heard(speed, max_samples):
    waveform = np.random.default_rng(0).uniform(-0.5, 0.5, 3 * max_samples).astype(np.float32)
    kept = waveform[: SpeedChange(max(speed - 1, 1 / SPEED_STEPS)).samples_needed(max_samples)]
    whole = change_speed(waveform, speed)[:max_samples]
    np.testing.assert_allclose(change_speed(kept, speed)[: len(whole)], whole, atol=1e-6)


def test_clips_at_another_speed_are_the_same_to_the_bit(tmp_path, drum_rows):
    paths = [row["path"] for row in drum_rows[::60]]
    rows = audio_of(paths).add_column("label", [0, 1] * (len(paths) // 2))
    rows = rows.cast_column("label", datasets.ClassLabel(names=["a", "b"]))
    augmentation = Augmentation(max_speed_change=0.3, mixup_probability=0.5)
    plain, cached = (ASTDataset(rows, AudioReader(RATE), 3_000, augmentation, seed=1) for _ in range(2))
    cache = WaveformCache(tmp_path / "cache", AudioReader(RATE), cached.samples_needed)
    cache.fill(rows)
    cached.read_from(cache.waveforms(rows))
    for epoch in range(3):
        for index in range(len(rows)):
            one, other = plain[epoch, index]["waveform"], cached[epoch, index]["waveform"]
            np.testing.assert_array_equal(one, other)


def test_of_a_long_clip_no_more_is_played_at_another_speed_than_the_cache_would_hold(tmp_path, monkeypatch):
    soundfile.write(tmp_path / "long.wav", np.random.default_rng(0).uniform(-0.5, 0.5, 10 * RATE), RATE)
    rows = audio_of([tmp_path / "long.wav"]).add_column("label", [0])
    rows = rows.cast_column("label", datasets.ClassLabel(names=["a", "b"]))
    dataset, played = ASTDataset(rows, AudioReader(RATE), 3_000, Augmentation(max_speed_change=0.3), seed=1), []
    monkeypatch.setattr(
        "finetune.augmentations.speed_change.change_speed",
        lambda waveform, speed: played.append(len(waveform)) or waveform,
    )
    for epoch in range(4):
        assert len(dataset[epoch, 0]["waveform"]) == 3_000
    assert set(played) == {SpeedChange(0.3).samples_needed(3_000)}


def test_clips_that_cannot_be_used_are_told_every_time_and_take_no_room(clips, tmp_path):
    (tmp_path / "empty.wav").write_bytes(b"")
    rows = audio_of([tmp_path / "gone.wav", clips[0], tmp_path / "empty.wav", tmp_path / "empty.wav"])
    for _ in range(2):
        filled = WaveformCache(tmp_path / "cache", AudioReader(RATE), 100_000).fill(rows)
        assert sorted(filled.faults) == [0, 2, 3]
        assert "gone.wav" in filled.faults[0]
        assert "empty.wav" in filled.faults[3]
        assert filled.lengths.tolist() == [0, 8_000, 0, 0]
    assert (tmp_path / "cache" / WAVEFORMS_NAME).stat().st_size == 4 * 8_000


def test_a_clip_that_cannot_be_used_is_announced_once_and_tried_again(clips, tmp_path, capsys, decoded):
    (tmp_path / "bad.wav").write_bytes(b"no audio")
    rows = audio_of([clips[0], tmp_path / "bad.wav"])
    WaveformCache(tmp_path / "cache", AudioReader(RATE), 100_000).fill(rows)
    assert "decoding 2 clips" in capsys.readouterr().out
    decoded.clear()
    assert list(WaveformCache(tmp_path / "cache", AudioReader(RATE), 100_000).fill(rows).faults) == [1]
    assert decoded == [str(tmp_path / "bad.wav")]
    assert capsys.readouterr().out == ""
    WaveformCache(tmp_path / "cache", AudioReader(RATE), 100_000).fill(audio_of([tmp_path / "bad.wav", clips[1]]))
    assert "decoding 1 clips" in capsys.readouterr().out


def test_of_many_rows_each_file_is_looked_up_once(clips, tmp_path, monkeypatch):
    rows, cache = audio_of(20 * clips[:2]), WaveformCache(tmp_path / "cache", AudioReader(RATE), 100_000)
    cache.fill(rows)
    looked_up, stat = [], os.stat

    def stat_and_note(path, *args, **kwargs):
        looked_up.append(path)
        return stat(path, *args, **kwargs)

    monkeypatch.setattr(finetune.clip_sets.waveform_cache.os, "stat", stat_and_note)
    assert len(cache.waveforms(rows)) == 40
    assert [looked_up.count(str(path)) for path in clips[:2]] == [1, 1]


@pytest.mark.parametrize("torn", [WAVEFORMS_NAME, INDEX_NAME])
def test_what_was_torn_off_is_decoded_again_and_never_read(clips, tmp_path, decoded, torn):
    cache = WaveformCache(tmp_path / "cache", AudioReader(RATE), 100_000)
    cache.fill(audio_of(clips))
    expected = [read_audio(path, RATE) for path in clips]
    path = tmp_path / "cache" / torn
    os.truncate(path, path.stat().st_size - 7)
    decoded.clear()
    cache.fill(audio_of(clips))
    assert len(decoded) == 1
    for waveform, whole in zip(cache.waveforms(audio_of(clips)), expected, strict=True):
        np.testing.assert_array_equal(waveform, whole)
    assert (tmp_path / "cache" / INDEX_NAME).stat().st_size == len(clips) * RECORD.itemsize


def test_samples_without_a_record_are_written_over(clips, tmp_path):
    cache = WaveformCache(tmp_path / "cache", AudioReader(RATE), 100_000)
    cache.fill(audio_of(clips[:2]))
    with open(tmp_path / "cache" / WAVEFORMS_NAME, "ab") as file:
        file.write(b"of a build that was killed")
    filled = cache.fill(audio_of(clips))
    assert (tmp_path / "cache" / WAVEFORMS_NAME).stat().st_size == filled.kept_bytes
    np.testing.assert_array_equal(cache.waveforms(audio_of(clips))[5], read_audio(clips[5], RATE))


KILLED = """
import sys, time
import datasets
import finetune.clip_sets.decoding, finetune.clip_sets.waveform_cache as module
from modeling_ast.audio import AudioReader
module.COMMIT_BYTES = 1
hear_clip = finetune.clip_sets.decoding.hear_clip
def slowly(*args):
    time.sleep(0.1)
    return hear_clip(*args)
finetune.clip_sets.decoding.hear_clip = slowly
features = datasets.Features({"audio": datasets.Audio(decode=False)})
rows = datasets.Dataset.from_dict({"audio": sys.argv[2:]}, features)
module.WaveformCache(sys.argv[1], AudioReader(16_000), 100_000).fill(rows)
"""


def test_a_build_that_was_killed_goes_on_where_it_was(clips, tmp_path, decoded):
    many = clips * 2
    for number in range(6, 12):
        many[number] = tmp_path / f"clip {number}.wav"
        many[number].write_bytes(clips[number - 6].read_bytes())
    index = tmp_path / "cache" / INDEX_NAME
    deadline = time.monotonic() + 60
    with forked_python.Child(["-c", KILLED, tmp_path / "cache", *many], sys.__stdout__, sys.__stderr__) as child:
        while not (index.exists() and index.stat().st_size >= 3 * RECORD.itemsize):
            assert child.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        child.send_signal(signal.SIGKILL)  # nothing is tidied up, and the lock must not stay
        child.wait()
    cache = WaveformCache(tmp_path / "cache", AudioReader(RATE), 100_000)
    cache.fill(audio_of(many))
    assert 0 < len(decoded) <= len(many) - 3
    for waveform, path in zip(cache.waveforms(audio_of(many)), many, strict=True):
        np.testing.assert_array_equal(waveform, read_audio(path, RATE))


def test_a_disk_that_is_too_small_is_told_of_before_anything_is_decoded(clips, tmp_path, monkeypatch, decoded):
    usage = type("Usage", (), {"free": 100_000})
    monkeypatch.setattr(finetune.clip_sets.waveform_cache.shutil, "disk_usage", lambda _: usage)
    values = [*clips, {"bytes": clips[0].read_bytes(), "path": None}]
    needed = 4 * sum(len(read_audio(path, RATE)) for path in [*clips, clips[0]])
    with pytest.raises(DataError) as error:
        WaveformCache(tmp_path / "cache", AudioReader(RATE), 100_000).fill(audio_of(values))
    assert f"needs {needed / 1e6:.1f} MB for 7 clips, but only 0.1 MB are free" in str(error.value)
    assert "--waveform_cache" in str(error.value)
    assert decoded == []
    # Of what the model does not hear nothing is counted.
    WaveformCache(tmp_path / "cache", AudioReader(RATE), 3_000).fill(audio_of(values))


def test_a_disk_that_fills_while_the_cache_is_made_leaves_it_as_it_was(clips, tmp_path, monkeypatch, capsys):
    cache = WaveformCache(tmp_path / "cache", AudioReader(RATE), 100_000)
    cache.fill(audio_of(clips[:2]))
    before = {path.name: path.read_bytes() for path in (tmp_path / "cache").iterdir()}
    commit = finetune.clip_sets.waveform_cache._Appender.commit

    def fail(self):
        if self.pending:
            raise OSError(errno.ENOSPC, "No space left on device")
        commit(self)

    monkeypatch.setattr(finetune.clip_sets.waveform_cache._Appender, "commit", fail)
    with pytest.raises(DataError, match=r"No space left on device.* 4 new clips need 0.2 MB.*Free some space"):
        cache.fill(audio_of(clips))
    monkeypatch.undo()
    assert {path.name: path.read_bytes() for path in (tmp_path / "cache").iterdir()} == before
    assert cache.fill(audio_of(clips)).decoded == 4


def test_a_disk_that_others_fill_meanwhile(clips, tmp_path, small_disk, monkeypatch):
    disk = small_disk(1)
    cache = WaveformCache(disk / "cache", AudioReader(RATE), 100_000)
    cache.fill(audio_of(clips[:2]))
    before = {path.name: path.read_bytes() for path in (disk / "cache").iterdir()}
    filler = disk / "of somebody else"
    filler.write_bytes(bytes(finetune.clip_sets.waveform_cache.shutil.disk_usage(disk).free - 50_000))
    usage = type("Usage", (), {"free": 10**9})  # what there was when it was looked at
    monkeypatch.setattr(finetune.clip_sets.waveform_cache.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(DataError, match=r"No space left on device.* 4 new clips need 0.2 MB.*Free some space"):
        cache.fill(audio_of(clips))
    assert {path.name: path.read_bytes() for path in (disk / "cache").iterdir()} == before
    filler.unlink()
    assert cache.fill(audio_of(clips)).decoded == 4
    for waveform, path in zip(cache.waveforms(audio_of(clips)), clips, strict=True):
        np.testing.assert_array_equal(waveform, read_audio(path, RATE))


def test_a_folder_that_cannot_be_made_is_answered_before_training(recipe, tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    flags = ["--output_dir", str(tmp_path / "run"), "--waveform_cache", str(tmp_path / "file")]
    assert main([recipe, *flags]) == 2
    error = capsys.readouterr().err
    assert f"The waveform cache {tmp_path / 'file'} cannot be opened" in error
    assert "--waveform_cache with another folder" in error


def test_the_map_does_not_travel_to_another_process(clips, tmp_path):
    cache = WaveformCache(tmp_path / "cache", AudioReader(RATE), 100_000)
    cache.fill(audio_of(clips))
    waveforms = cache.waveforms(audio_of(clips))
    first = waveforms[0]
    content = pickle.dumps(waveforms)
    assert len(content) < first.nbytes
    again = pickle.loads(content)
    np.testing.assert_array_equal(again[0], first)
    again[0][:] = 0  # a copy, which torch does not warn of
    np.testing.assert_array_equal(again[0], first)


def test_a_cache_that_is_removed_in_training_is_named(clips, tmp_path):
    cache = WaveformCache(tmp_path / "cache", AudioReader(RATE), 100_000)
    cache.fill(audio_of(clips))
    waveforms = cache.waveforms(audio_of(clips))
    (tmp_path / "cache" / WAVEFORMS_NAME).unlink()
    with pytest.raises(AudioError, match="was removed or cut while it was in use .* Run again"):
        waveforms[0]


def test_two_builders_at_once_decode_each_clip_once(clips, tmp_path, monkeypatch):
    hear_clip, decoded = finetune.clip_sets.decoding.hear_clip, []

    def slowly(audio, *args):
        decoded.append(audio["path"])
        time.sleep(0.05)
        return hear_clip(audio, *args)

    monkeypatch.setattr(finetune.clip_sets.decoding, "hear_clip", slowly)
    with ThreadPoolExecutor(2) as pool:  # a lock keeps threads apart as it does processes
        caches = [WaveformCache(tmp_path / "cache", AudioReader(RATE), 100_000) for _ in range(2)]
        counts = [filled.decoded for filled in pool.map(lambda cache: cache.fill(audio_of(clips)), caches)]
    assert sorted(counts) == [0, len(clips)]
    assert len(decoded) == len(clips)
    np.testing.assert_array_equal(caches[0].waveforms(audio_of(clips))[5], read_audio(clips[5], RATE))


def test_a_wave_file_in_bytes_is_found_by_its_content_alone(clips, tmp_path, decoded):
    buffer = BytesIO(clips[0].read_bytes())
    cache = WaveformCache(tmp_path / "cache", AudioReader(RATE), 100_000)
    cache.fill(audio_of([{"bytes": buffer.getvalue(), "path": "one.wav"}]))
    cache.fill(audio_of([{"bytes": buffer.getvalue(), "path": "other.wav"}]))
    assert decoded == ["one.wav"]


@pytest.mark.long
def test_two_processes_share_a_cache_and_leave_out_the_same_clips(recipe, tmp_path):
    (tmp_path / "bad.wav").write_bytes(b"")
    with open(tmp_path / "drums.csv", "a") as file:
        file.write(f"\n{tmp_path / 'bad.wav'},snare,train\n")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command += ["-m", "finetune.run_finetune", recipe, "--skip_bad_audio"]
    outputs = {}
    for run, flags in (("plain", []), ("cached", ["--waveform_cache", str(tmp_path / "cache")])):
        call = [*command, "--output_dir", str(tmp_path / run), *flags]
        outputs[run] = subprocess.run(call, check=True, capture_output=True, text=True, timeout=300).stdout
    assert outputs["cached"].count("waveform cache: decoding 34 clips") == 1
    assert "waveform cache of 33 clips" in outputs["cached"]
    for output in outputs.values():
        assert "1 clip(s) that cannot be used left out (training 1)" in output
    plain, cached = (load_file(tmp_path / run / "model.safetensors") for run in ("plain", "cached"))
    assert all(torch.equal(plain[name], cached[name]) for name in plain)
    assert (tmp_path / "cache" / INDEX_NAME).stat().st_size == 33 * RECORD.itemsize

"""Clips and features that stay in memory: the same weights, each clip decoded once, room that is not passed."""

import os
import pickle
import shutil
from collections import Counter

import numpy as np
import pytest
from tiny_trainings import write_recipe

from finetune.clip_sets import waveforms
from finetune.clip_sets.clip_memory import ClipMemory, divided
from finetune.clip_sets.free_memory import free_memory
from finetune.run_finetune import main
from modeling_ast.audio import AudioNote, Heard

OFF = ["--memory_for_clips", "0", "--save_in_background", "false"]
NUM_CLIPS = 33  # of `few_drums`, each of which is at most 0.48 s to the model


@pytest.fixture
def heard(monkeypatch) -> Counter:
    """How often the data sets decode each file."""
    counts, hear_clip = Counter(), waveforms.hear_clip

    def counted(audio, reader, max_samples=None):
        counts[audio["path"]] += 1
        return hear_clip(audio, reader, max_samples)

    monkeypatch.setattr(waveforms, "hear_clip", counted)
    return counts


@pytest.mark.parametrize(
    "fields",
    [
        {"max_time_mask": 8, "noise_strength": 0.1},  # features stay
        {"mixup_probability": 0.5, "max_speed_change": 0.1, "padding": "longest"},  # waveforms stay
    ],
    ids=["features", "waveforms"],
)
def test_weights_are_the_same_as_without_and_each_clip_is_decoded_once(few_drums, tmp_path, heard, fields):
    settings = {"eval_strategy": "epoch", "save_total_limit": 2, "clip_windows": "beginning"} | fields
    recipe = write_recipe(tmp_path, few_drums, **settings)
    without, resumed = tmp_path / "without", tmp_path / "run"
    assert main([recipe, *OFF, "--output_dir", str(without)]) == 0
    assert max(heard.values()) >= 3
    heard.clear()
    # The first epoch as that run left it; here the second follows, with all on.
    shutil.copytree(without / "checkpoint-3", resumed / "checkpoint-3")
    assert main([recipe, "--resume_from_checkpoint", "true"]) == 0
    assert set(heard.values()) == {1}
    assert len(heard) == NUM_CLIPS
    for name in ("model.safetensors", "checkpoint-6/optimizer.pt", "checkpoint-6/model.safetensors"):
        assert (without / name).read_bytes() == (resumed / name).read_bytes()


def test_what_does_not_fit_is_said_and_decoded_again(few_drums, tmp_path, heard, capsys, monkeypatch):
    clip_bytes = 48 * 128 * 4  # of features, as nothing changes waveforms
    monkeypatch.setattr("finetune.runs.preparation.free_memory", lambda: 40 * clip_bytes)
    recipe = write_recipe(tmp_path, few_drums, num_train_epochs=1, save_strategy="no", clip_windows="beginning")
    assert main([recipe, "--memory_for_clips", "0.5"]) == 0
    said = capsys.readouterr().out
    assert "decoded clips stay in memory as far as 0.5 MB (0.5 of what is free) hold them" in said
    assert "all would take up to 0.8 MB; the others are decoded in every epoch" in said
    assert 1 in heard.values()
    assert max(heard.values()) > 1


def test_rows_end_with_their_own_clip():
    memory = ClipMemory(2, 80)
    for place in range(2):
        memory.keep(place, np.full((5, 2), place + 1, np.float32))
    np.testing.assert_array_equal(memory.rows(0, 3, 9), np.ones((2, 2), np.float32))
    np.testing.assert_array_equal(memory.rows(1, 0, 2), np.full((2, 2), 2, np.float32))


def test_a_forked_process_leaves_what_it_keeps_to_the_others():
    memory = ClipMemory(3, 400)
    sound, features = np.arange(60, dtype=np.float32), np.ones((2, 15), np.float32)
    process = os.fork()
    if process == 0:
        memory.keep(1, sound)
        memory.keep(2, features)
        memory.keep_heard(0, Heard(sound[:5], (AudioNote("odd", "is odd"),)), 5)  # its note would be lost
        os._exit(0)
    assert os.waitpid(process, 0)[1] == 0
    np.testing.assert_array_equal(memory.get(1), sound)
    np.testing.assert_array_equal(memory.get(2), features)
    assert memory.get(0) is None
    memory.get(1)[:] = 7  # a copy
    np.testing.assert_array_equal(memory.get(1), sound)
    memory.keep(0, sound[:11])  # there is room for ten more
    assert memory.get(0) is None
    memory.keep_heard(0, Heard(sound, (AudioNote("odd", "is odd"),)), 10)
    assert memory.heard(0).notes == (AudioNote("odd", "is odd"),)
    np.testing.assert_array_equal(memory.heard(0).waveform, sound[:10])
    assert pickle.loads(pickle.dumps(memory)).get(1) is None


def test_room_is_divided_by_what_is_wanted():
    assert divided(100, [30, 60]) == [30, 60]
    assert divided(100, [300, 100]) == [75, 25]


def test_the_limit_of_a_container_counts_as_free_memory(tmp_path):
    process, root = tmp_path / "cgroup", tmp_path / "groups"
    group = root / "a" / "b"
    group.mkdir(parents=True)
    process.write_text("0::/a/b\n")
    names = (("memory.max", "memory.current", "inactive_file", root),)
    before = free_memory(names, process)
    assert before > 2**20
    for folder, limit, used in ((group, "max", 50), (root / "a", "1000", 300)):
        (folder / "memory.max").write_text(f"{limit}\n")
        (folder / "memory.current").write_text(f"{used}\n")
    (root / "a" / "memory.stat").write_text("anon 200\ninactive_file 40\nfile 60\n")
    assert free_memory(names, process) == 1000 - 300 + 40
    (root / "a" / "memory.current").write_text("2000\n")
    assert free_memory(names, process) == 0

"""Clips as a training hears them: mixed, faster or slower, louder or softer, by (seed, epoch, clip) alone."""

from operator import itemgetter

import numpy as np
import pytest
import soundfile
import torch
from torch.utils.data import DataLoader

from finetune.arguments.groups import DataArguments
from finetune.augmentations.augmentation import Augmentation
from finetune.augmentations.mixup import mix_waveforms
from finetune.augmentations.speed_change import change_speed
from finetune.clip_sets.waveforms import ASTDataset, one_thread
from finetune.sources.splits import load_splits
from modeling_ast.audio import AudioReader


def test_mixed_items_carry_soft_labels_and_depend_only_on_seed_epoch_and_index():
    splits, _ = load_splits(DataArguments(dataset_name="finetune/sample_data/drums"), seed=0)
    always = Augmentation(mixup_probability=1.0)
    dataset = ASTDataset(splits["train"], AudioReader(), 16_000, always, seed=1)
    first, again, later = dataset[0, 3], dataset[0, 3], dataset[1, 3]
    np.testing.assert_array_equal(first["waveform"], again["waveform"])
    assert not np.array_equal(first["waveform"], later["waveform"])
    assert first["label"].sum() == pytest.approx(1)
    assert first["label"].dtype == np.float32
    assert dataset[3]["label"] == splits["train"]["label"][3], "without an epoch nothing is augmented"


@one_thread()
def test_the_speed_of_a_training_clip_changes_and_that_of_its_mixup_partner_does_not(tmp_path):
    for name, samples in (("a", 16_000), ("b", 420)):
        tone = np.sin(2 * np.pi * 440 * np.arange(samples) / 16_000)
        soundfile.write(tmp_path / f"{name}.wav", tone / 2, 16_000, subtype="FLOAT")
    (tmp_path / "clips.csv").write_text("file_name,label,split\na.wav,x,train\nb.wav,y,train\na.wav,x,test\n")
    splits, _ = load_splits(DataArguments(dataset_name=str(tmp_path / "clips.csv")), seed=0)
    augmentation = Augmentation(max_speed_change=0.3)
    dataset = ASTDataset(splits["train"], AudioReader(), 32_000, augmentation, seed=0)
    plain, _ = soundfile.read(tmp_path / "a.wav", dtype="float32")
    lengths = set()
    for epoch in range(20):
        speed = augmentation.draw(0, epoch, 0, 2)["speed_change"]["factor"]
        waveform = dataset[(epoch, 0)]["waveform"]
        expected = plain if speed == 1 else change_speed(plain, speed)
        np.testing.assert_array_equal(waveform, expected)
        assert len(waveform) == pytest.approx(16_000 / speed, abs=2)
        lengths.add(len(waveform))
        assert len(dataset[(epoch, 1)]["waveform"]) >= 400  # one frame, also of a clip that became shorter
    assert len(lengths) > 10

    louder = Augmentation(max_gain_db=12)
    loud = ASTDataset(splits["train"], AudioReader(), 32_000, louder, seed=0)
    levels = [20 * np.log10(np.abs(loud[(epoch, 0)]["waveform"]).max() / np.abs(plain).max()) for epoch in range(50)]
    assert min(levels) < -8
    assert max(levels) > 8
    assert np.abs(levels).max() <= 12
    assert levels[3] == pytest.approx(20 * np.log10(louder.draw(0, 3, 0, 2)["gain"]["factor"]), abs=1e-4)

    mixed = ASTDataset(
        splits["train"], AudioReader(), 32_000, Augmentation(mixup_probability=1, max_speed_change=0.3), seed=0
    )
    for epoch in range(10):
        draws = mixed.augmentation.draw(0, epoch, 0, 2)
        speed, mixed_in = draws["speed_change"]["factor"], draws["mixup"]
        own = change_speed(plain, speed) if speed != 1 else plain
        partner, _ = soundfile.read(tmp_path / f"{'ab'[mixed_in['partner']]}.wav", dtype="float32")
        expected = mix_waveforms(own, partner, mixed_in["weight"])
        np.testing.assert_array_equal(mixed[(epoch, 0)]["waveform"], expected)


def test_a_clip_is_the_same_in_the_main_process_with_several_threads_as_in_a_worker(tmp_path):
    generator = np.random.default_rng(0)
    for name, samples, rate in (("a", 16_000, 44_100), ("b", 8_000, 22_050), ("c", 16_000, 16_000)):
        soundfile.write(tmp_path / f"{name}.wav", generator.uniform(-0.5, 0.5, samples), rate)
    (tmp_path / "clips.csv").write_text(
        "path,label,split\na.wav,x,train\nb.wav,y,train\nc.wav,x,train\na.wav,x,test\n"
    )
    splits, _ = load_splits(DataArguments(dataset_name=str(tmp_path / "clips.csv")), seed=0)
    reader = AudioReader(resampler="torchaudio")
    augmented = ASTDataset(splits["train"], reader, 16_000, Augmentation(max_speed_change=0.5), seed=0)
    keys = [*range(3), *np.ndindex(10, 3)]
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        here = [augmented[key]["waveform"] for key in keys]
        assert torch.get_num_threads() == 4
    finally:
        torch.set_num_threads(before)
    worker = DataLoader(augmented, batch_size=None, sampler=keys, num_workers=1, collate_fn=itemgetter("waveform"))
    for key, ours, of_worker in zip(keys, here, worker, strict=True):
        np.testing.assert_array_equal(ours, of_worker, str(key))

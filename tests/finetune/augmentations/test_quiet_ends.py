"""Quiet around clips: where it is, how loud, of which spectrum, and that clips of one length with it are batched together."""

import numpy as np
import pytest
from scipy import signal

from finetune.arguments.groups import ASTTrainingArguments, DataArguments
from finetune.augmentations.augmentation import Augmentation
from finetune.augmentations.augmentation_step import TrainingClip
from finetune.augmentations.quiet_ends import QuietEnds, noise_like
from finetune.clip_sets.collator import ASTDataCollator
from finetune.clip_sets.waveforms import ASTDataset
from finetune.sources.splits import load_splits
from finetune.training.trainer import ASTTrainer
from modeling_ast import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification
from modeling_ast.audio import AudioReader

RATE = 16_000


def telephone(seconds: float = 1.0) -> np.ndarray:
    """Noise between 300 and 3400 Hz, on a constant offset."""
    band = signal.butter(8, (300, 3400), "bandpass", fs=RATE, output="sos")
    noise = np.random.default_rng(0).standard_normal(round(seconds * RATE))
    return (signal.sosfilt(band, noise) * 0.1 + 0.3).astype(np.float32)


def drawn_for(count: int, seconds: float = 0.2) -> list[dict]:
    augmentation = Augmentation(max_quiet_seconds=seconds)
    return [augmentation.draw(0, 0, index, count)["quiet_ends"] for index in range(count)]


def test_half_of_the_clips_get_quiet_before_and_half_after_of_any_length_up_to_the_longest():
    drawn = drawn_for(2000)
    before, after = (np.array([values[end] for values in drawn]) for end in ("before", "after"))
    for end in (before, after):
        assert (end > 0).mean() == pytest.approx(0.5, abs=0.05)
        assert np.quantile(end[end > 0], [0, 0.5, 1]) == pytest.approx([0, 0.1, 0.2], abs=0.01)
    assert ((before > 0) & (after > 0)).mean() == pytest.approx(0.25, abs=0.05)
    assert len({values["seed"] for values in drawn}) == 2000


@pytest.mark.parametrize(("before", "after"), [(0.1, 0.0), (0.0, 0.05), (0.15, 0.02)])
def test_the_clip_lies_as_it_is_between_noises_of_the_drawn_level(before, after):
    clip = TrainingClip(telephone(), 3, RATE)
    drawn = {"before": before, "after": after, "db": -40.0, "seed": 5}
    made = QuietEnds(0.2).change_heard(clip, drawn)
    first, last = round(before * RATE), round(before * RATE) + RATE
    assert len(made.waveform) == round((before + after) * RATE) + RATE
    assert made.waveform.dtype == np.float32
    np.testing.assert_array_equal(made.waveform[first:last], clip.waveform)
    quiet = np.concatenate([made.waveform[:first], made.waveform[last:]])
    level = 20 * np.log10(quiet.std() / clip.waveform.std())
    assert level == pytest.approx(-40, abs=1)  # of a thousand samples
    assert abs(quiet.mean()) < quiet.std(), "the offset of the clip is none of the noise"
    assert made.label == 3


def test_the_noise_has_the_bandwidth_of_the_recording():
    clip = telephone()
    noise = noise_like(clip, RATE, np.random.default_rng(1))
    (frequencies, of_clip), (_, of_noise) = (signal.welch(one, RATE, nperseg=512) for one in (clip, noise))
    heard = (frequencies > 350) & (frequencies < 3300)
    assert np.abs(10 * np.log10(of_noise[heard] / of_clip[heard])).mean() < 1.5
    assert of_noise[frequencies > 5000].max() < of_noise[heard].min() / 1000
    assert np.abs(np.corrcoef(clip, noise)[0, 1]) < 0.05


def test_noise_of_a_short_clip_is_repeated_and_silence_stays_silent():
    short = noise_like(telephone(0.05), 2000, np.random.default_rng(0))
    np.testing.assert_array_equal(short[:800], short[800:1600])
    silent = TrainingClip(np.zeros(500, np.float32), 0, RATE)
    made = QuietEnds(0.2).change_heard(silent, {"before": 0.1, "after": 0.1, "db": -30.0, "seed": 0})
    assert len(made.waveform) == 3700
    assert not made.waveform.any()
    empty = silent._replace(waveform=silent.waveform[:0])
    assert QuietEnds(0.2).change_heard(empty, {"before": 0.1, "after": 0.1, "db": -30.0, "seed": 0}) is empty


@pytest.fixture
def clips():
    splits, _ = load_splits(DataArguments(dataset_name="finetune/sample_data/drums"), seed=0)
    return splits["train"].select(range(0, 353, 3))


def test_the_model_hears_the_beginning_of_what_is_made_and_scored_clips_as_they_are(clips):
    longest, augmentation = 4_000, Augmentation(max_quiet_seconds=0.2)
    plain = ASTDataset(clips, AudioReader(), RATE * 2)
    changed = ASTDataset(clips, AudioReader(), longest, augmentation, seed=0)
    changed.set_epoch(0) if hasattr(changed, "set_epoch") else None
    moved = 0
    for index in range(20):
        start = round(augmentation.draw(0, 0, index, len(clips))["quiet_ends"]["before"] * RATE)
        own, heard = plain[index]["waveform"][: longest - start], changed[(0, index, 0)]["waveform"]
        assert len(heard) <= longest
        np.testing.assert_array_equal(heard[start : start + len(own)], own)
        moved += start > 0
    assert 4 < moved < 16


def test_clips_that_are_as_long_with_their_quiet_come_together(clips, tiny_sizes, tmp_path):
    extractor, padding = ASTFeatureExtractor(max_length=256, padding="longest"), {}
    augmentation = Augmentation(max_quiet_seconds=0.5)
    for strategy in ("random", "group_by_length"):
        trainer = ASTTrainer(
            model=ASTForAudioClassification(ASTConfig(**tiny_sizes | {"max_length": 256}, num_labels=9)),
            args=ASTTrainingArguments(
                output_dir=str(tmp_path), per_device_train_batch_size=8, train_sampling_strategy=strategy, use_cpu=True
            ),
            train_dataset=ASTDataset(clips, AudioReader(), extractor.max_samples, augmentation),
            data_collator=ASTDataCollator(extractor, compute_features=False),
            feature_extractor=extractor,
            augmentation=augmentation,
        )
        lengths = [batch["lengths"] for batch in trainer.get_train_dataloader()]
        padding[strategy] = sum(int((of_batch.max() - of_batch).sum()) for of_batch in lengths)
    # Grouped by their own lengths alone they have 0.7 of the padding of a random order.
    assert padding["group_by_length"] < 0.3 * padding["random"]


def test_lengths_that_are_told_beforehand_are_those_that_are_made():
    augmentation = Augmentation(max_quiet_seconds=0.3)
    clip = TrainingClip(telephone(0.4), 0, RATE)
    keys = [(1, index, 0) for index in range(30)]
    told = augmentation.frames_of_visits(7, keys, 30, np.full(30, len(clip.waveform)), 90, RATE)
    made = [len(augmentation.change_heard(clip, augmentation.draw(7, 1, index, 30)).waveform) for index in range(30)]
    expected = [min(90, 1 + (length - 400) // 160) for length in made]
    assert told.tolist() == expected
    assert len(set(expected)) > 10


def test_what_has_no_waveforms_or_was_scored_before_refuses_it():
    augmentation = Augmentation(max_quiet_seconds=0.2)
    with pytest.raises(ValueError, match="max_quiet_seconds change.*Pass --max_quiet_seconds 0"):
        augmentation.refuse_without_waveforms()
    with pytest.raises(ValueError, match="max_quiet_seconds change.*Pass --max_quiet_seconds 0"):
        augmentation.refuse_stored_scores()
    with pytest.raises(ValueError, match=r"max_quiet_seconds=-0.1 is negative"):
        Augmentation(max_quiet_seconds=-0.1)

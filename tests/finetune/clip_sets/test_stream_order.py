"""The order of a stream: by seed and epoch alone, with draws of the clip's place and partners from the buffer."""

import itertools
import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from accelerate.data_loader import skip_first_batches
from torch.utils.data import DataLoader

from finetune.arguments.command_line import parse_arguments
from finetune.arguments.groups import DataArguments
from finetune.augmentations.augmentation import Augmentation
from finetune.clip_sets import waveforms as clip_reading
from finetune.clip_sets.stream_order import StreamSampler, shuffled
from finetune.runs.training_run import prepare_run
from finetune.scores.scoring import ClipScoresError, probabilities
from finetune.sources.splits import load_splits
from modeling_ast.audio import AudioReader
from tests.finetune.clip_sets.streamed_clips import TINY, streamed


def test_an_epoch_has_every_clip_once_in_an_order_of_seed_and_epoch(table, rows):
    def epoch_of(seed, epoch, buffer=12):
        sampler = StreamSampler(streamed(table, buffer=buffer), seed)
        sampler.set_epoch(epoch)
        return [Path(clip.row["audio"]["path"]).name for clip in sampler]

    in_order = [Path(row["path"]).name for row in rows if row["split"] == "train"]
    first = epoch_of(0, 0)
    assert sorted(first) == sorted(in_order)
    assert first != in_order
    assert epoch_of(0, 0) == first
    assert epoch_of(0, 1) != first
    assert epoch_of(1, 0) != first
    assert epoch_of(0, 0, buffer=1) == in_order


def test_the_buffer_mixes_no_farther_than_it_reaches_and_mixes_well():
    read = []

    def stream():
        for number in range(1000):
            read.append(number)
            yield {"number": number}

    order = []
    for place, row, buffer in shuffled(stream(), 50, seed=0, epoch=0):
        assert len(read) <= len(order) + 51  # no more is held than the buffer takes, and the clip that arrives
        assert len(buffer) == 50
        assert (place, row) in buffer
        order.append(place)
    assert sorted(order) == list(range(1000))
    lag = np.array(order) - np.arange(1000)
    assert lag.max() < 50
    assert np.abs(lag).mean() > 20
    whole = [place for place, *_ in shuffled(({} for _ in range(40)), 50, seed=0, epoch=0)]
    assert sorted(whole) == list(range(40))
    assert whole != list(range(40))


def test_draws_are_those_of_the_clips_place_and_partners_come_from_the_buffer(table):
    augmentation = Augmentation(mixup_probability=0.6, noise_strength=0.1, max_roll=5)
    clips = streamed(table, augmentation, buffer=12)
    all_rows = list(clips.split)
    sampler = clips.training_sampler(seed=9)
    sampler.set_epoch(3)
    held = [{place for place, _ in buffer} for *_, buffer in shuffled(clips.split, 12, 9, 3)]
    partners = 0
    for clip, in_buffer in zip(sampler, held, strict=True):
        epoch, place, _ = clip.draws.key
        expected = augmentation.draw(5, 3, place, 12)
        assert (epoch, clip.row) == (3, all_rows[place])
        assert clip.draws["noise_and_roll"] == expected["noise_and_roll"]
        assert clip.draws["mixup"]["weight"] == expected["mixup"]["weight"]
        assert clip.partners.keys() == clip.draws.partners.keys() == expected.partners.keys()
        if clip.partners:
            assert clip.draws.partners["mixup"] in in_buffer
            assert clip.partners["mixup"] == all_rows[clip.draws.partners["mixup"]]
            partners += 1
    assert 10 < partners < 33


def test_a_streamed_item_is_the_item_of_the_same_clip_at_hand(table):
    """With a buffer for all clips, the only difference is which clip a partner is."""
    augmentation = Augmentation(max_speed_change=0.1, max_gain_db=6, noise_strength=0.1)
    clips = streamed(table, augmentation)
    splits, _ = load_splits(DataArguments(dataset_name=str(table)), seed=0)
    at_hand = clip_reading.ASTDataset(splits["train"], AudioReader(), clips.max_samples, augmentation, seed=5)
    sampler = clips.training_sampler(seed=1)
    sampler.set_epoch(2)
    for clip in list(sampler)[:6]:
        item, other = clips[clip], at_hand[2, clip.draws.key[1]]
        assert np.array_equal(item["waveform"], other["waveform"])
        assert item["label"] == other["label"]


def test_batches_are_asked_for_again_as_they_were_with_a_seed_of_the_data(tmp_path, table):
    recipe = tmp_path / "recipe.yaml"
    settings = {
        "dataset_name": str(table),
        "mixup_probability": 1.0,
        "data_seed": 7,
        "output_dir": str(tmp_path / "run"),
    }
    recipe.write_text(yaml.safe_dump(TINY | settings))
    trainer = prepare_run([str(recipe)], parse_arguments([str(recipe)])).trainer
    asked = list(trainer._get_train_sampler())
    again = list(trainer.train_dataset.replay([clip.draws.key for clip in asked[5:9]]))
    assert [clip.draws.key for clip, *_ in again] == [clip.draws.key for clip in asked[5:9]]
    assert [rows for _, rows, _ in again] == [[clip.row, clip.partners["mixup"]] for clip in asked[5:9]]
    assert [names for *_, names in again] == [[row["audio"]["path"] for row in rows] for _, rows, _ in again]


def test_a_streamed_clip_whose_scores_are_not_numbers_is_named(table):
    clips = streamed(table)
    logits = np.zeros((len(clips), 9))
    logits[2, 4] = np.nan
    row = list(clips.split)[2]
    with pytest.raises(ClipScoresError, match=rf"for 1 of 37 clips.*: {re.escape(row['audio']['path'])}"):
        probabilities(logits, "single_label_classification", clips)


def test_keys_of_the_first_epoch_are_those_of_the_training(table):
    augmentation = Augmentation(mixup_probability=0.5, noise_strength=0.1)
    clips = streamed(table, augmentation, buffer=12)
    (plain, first), (_, second) = clips.keys_of_first_epoch(2, seed=9)
    assert [clip.draws.key for clip in (first, second)] == [
        clip.draws.key for clip in itertools.islice(clips.training_sampler(9), 2)
    ]
    assert (plain.row, plain.draws, plain.partners) == (first.row, None, {})
    assert [clip.row for clip in clips.first_keys(3)] == list(itertools.islice(clips.split, 3))


def test_a_stream_offers_nothing_that_only_clips_at_hand_can_tell(table):
    clips = streamed(table)
    assert not [name for name in ("label_lists", "labels_alone", "read_from") if hasattr(clips, name)]
    assert (clips.at_hand, clips.lengths()) == (False, None)


def test_batches_do_not_depend_on_the_number_of_workers_and_skipped_ones_are_not_decoded(table, monkeypatch):
    clips = streamed(table, Augmentation(mixup_probability=0.5, max_gain_db=3), buffer=12)

    def loader(workers):
        return DataLoader(
            clips, batch_size=8, sampler=clips.training_sampler(seed=0), num_workers=workers, collate_fn=list
        )

    alone, with_one, with_two = (
        [item["waveform"] for batch in loader(workers) for item in batch] for workers in (0, 1, 2)
    )
    assert len(alone) == 37
    for one, two, three in zip(alone, with_one, with_two, strict=True):
        assert np.array_equal(one, two)
        assert np.array_equal(one, three)

    decoded = []
    hear = AudioReader.hear
    monkeypatch.setattr(AudioReader, "hear", lambda *args: decoded.append(args[1]) or hear(*args))
    rest = [item for batch in skip_first_batches(loader(0), 3) for item in batch]
    assert [np.array_equal(one["waveform"], two) for one, two in zip(rest, alone[24:], strict=True)] == [True] * 13
    assert 13 <= len(decoded) <= 26

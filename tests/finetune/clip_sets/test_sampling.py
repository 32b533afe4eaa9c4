"""The order of training clips: by seed and epoch, by length, or class-balanced with the original's weights."""

import numpy as np
import pytest
import torch
from accelerate.data_loader import BatchSamplerShard
from scipy.stats import chi2
from torch.utils.data import BatchSampler

from finetune.arguments.groups import ASTTrainingArguments
from finetune.clip_sets.sampling import EpochSampler, class_balanced_weights
from finetune.training.trainer import ASTTrainer
from modeling_ast import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification

LABEL_LISTS = [[0], [0], [0, 1], [0], [0, 2], [1], [0], []] * 25  # 200 clips: counts 150, 50, 25


def order_of(sampler, epoch=0):
    sampler.set_epoch(epoch)
    return [item[1] for item in sampler]


def balanced(num_clips=200, seed=0, **options):
    weights = class_balanced_weights(LABEL_LISTS[:num_clips], 3)
    return EpochSampler(num_clips, seed, weights=weights, **options)


def test_the_epoch_sampler_visits_every_clip_once_in_an_order_of_seed_and_epoch():
    sampler = EpochSampler(50, seed=1)
    sampler.set_epoch(2)
    order = list(sampler)
    assert {epoch for epoch, _ in order} == {2}
    assert sorted(index for _, index in order) == list(range(50))
    assert list(sampler) == order
    sampler.set_epoch(3)
    assert [index for _, index in sampler] != [index for _, index in order]


def test_clips_of_similar_length_are_visited_together_in_groups_of_random_order():
    lengths = np.random.default_rng(0).integers(1, 1000, size=397)
    sampler = EpochSampler(397, seed=1, lengths=lengths, group_size=8)
    order = [index for _, index in sampler]
    assert sorted(order) == list(range(397))
    groups = [lengths[order[start : start + 8]] for start in range(0, 392, 8)]  # all of them sorted together
    assert max(np.ptp(group) for group in groups) < 100
    longest = [group.max() for group in groups]
    assert longest != sorted(longest)
    assert [index for _, index in sampler] == order
    sampler.set_epoch(1)
    assert [index for _, index in sampler] != order


def test_weights_are_those_of_the_original():
    by_hand = {0: 1000 / 150.01, 1: 1000 / 50.01, 2: 1000 / 25.01}
    expected = [sum(by_hand[label] for label in labels) for labels in LABEL_LISTS]
    np.testing.assert_allclose(class_balanced_weights(LABEL_LISTS, 3), expected, rtol=1e-12)


@pytest.mark.parametrize("label", [3, -1])
def test_a_label_that_there_is_not_is_refused(label):
    with pytest.raises(ValueError, match=f"has the label {label}, expected an index from 0 to 2"):
        class_balanced_weights([[0], [label]], 3)


def test_labels_come_as_often_as_their_weights_say():
    weights = class_balanced_weights(LABEL_LISTS, 3)
    counts = sum(np.bincount(order_of(balanced(), epoch), minlength=200) for epoch in range(200))
    expected = 200 * 200 * weights / weights.sum()
    assert counts[weights == 0].sum() == 0
    drawable = weights > 0
    statistic = ((counts - expected)[drawable] ** 2 / expected[drawable]).sum()
    assert statistic < chi2.ppf(0.9999, drawable.sum() - 1)
    # every label has the same expectation where a clip has one label; here clips of two labels count for both
    indicators = np.array([[label in labels for label in range(3)] for labels in LABEL_LISTS])
    shares = (weights[:, None] * indicators).sum(axis=0) / weights.sum()
    np.testing.assert_allclose(counts @ indicators / counts.sum(), shares, atol=0.01)  # 4 standard deviations


def test_one_process_draws_with_replacement_as_many_as_there_are_clips():
    sampler = balanced(group_size=8)
    order = order_of(sampler)
    assert len(order) == len(sampler) == 200
    assert any(len(set(order[start : start + 8])) < 8 for start in range(0, 200, 8))


def test_the_order_is_a_function_of_seed_and_epoch():
    for options in ({}, {"group_size": 8, "distinct": True}):
        np.random.seed(1)
        order = order_of(balanced(**options), 3)
        np.random.seed(2)
        assert order_of(balanced(**options), 3) == order
        assert order_of(balanced(**options), 4) != order
        assert order_of(balanced(seed=1, **options), 3) != order


def test_visits_count_how_often_a_clip_came_before():
    seen = {}
    for epoch, index, visit in balanced():
        assert epoch == 0
        assert visit == seen.get(index, 0)
        seen[index] = visit + 1
    assert max(seen.values()) > 2


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("even_batches", [True, False])
@pytest.mark.parametrize(("num_clips", "processes", "batch"), [(200, 2, 8), (197, 2, 8), (195, 3, 5), (33, 2, 8)])
def test_no_clip_goes_to_two_processes_in_a_step(num_clips, processes, batch, even_batches, drop_last):
    sampler = balanced(num_clips, group_size=processes * batch, distinct=True)
    for epoch in range(20):
        order = order_of(sampler, epoch)
        shards = [
            list(BatchSamplerShard(BatchSampler(sampler, batch, drop_last), processes, rank, False, even_batches))
            for rank in range(processes)
        ]
        visited = []
        for step in range(max(map(len, shards))):
            together = [item for shard in shards if step < len(shard) for item in shard[step]]
            assert len({index for _, index, _ in together}) == len(together), f"epoch {epoch}, step {step}"
            visited += [index for _, index, _ in together]
        assert visited[:num_clips] == order[: len(visited)], "the union of the processes is the order of one"


def test_clips_of_an_update_differ_over_accumulated_batches_too():
    order = order_of(balanced(group_size=32, distinct=True))
    assert all(len(set(order[start : start + 32])) == 32 for start in range(0, 192, 32))


def test_a_group_is_a_draw_without_replacement():
    weights = np.array([8.0, 4, 2, 2, 1, 1])
    sampler = EpochSampler(6, 0, weights=weights, group_size=3, distinct=True)
    groups = np.array([order_of(sampler, epoch) for epoch in range(10_000)]).reshape(-1, 3)
    generator = torch.Generator().manual_seed(0)
    by_torch = torch.multinomial(torch.tensor(weights).expand(100_000, 6), 3, generator=generator).numpy()
    shares, expected = (np.bincount(drawn.ravel(), minlength=6) / len(drawn) for drawn in (groups, by_torch))
    np.testing.assert_allclose(shares, expected, atol=0.015)  # 4 standard deviations of 20,000 groups


def test_clips_that_are_almost_never_drawn_still_fill_a_group():
    weights = np.array([1.0, 1e-9, 1e-9, 1e-12, 0.0])
    order = order_of(EpochSampler(5, 0, weights=weights, group_size=4, distinct=True))
    assert sorted(order[:4]) == [0, 1, 2, 3]


def test_too_few_clips_with_a_label_are_refused():
    with pytest.raises(ValueError, match=r"needs 8 clips.*only 7 of 8 have one.*--per_device_train_batch_size"):
        balanced(8, group_size=8, distinct=True)
    balanced(8, group_size=8)
    with pytest.raises(ValueError, match="needs 1 clips with a label.*only 0 of 2"):
        EpochSampler(2, 0, weights=class_balanced_weights([[], []], 3))


def test_weights_of_another_number_of_clips_are_refused():
    with pytest.raises(ValueError, match="3 weights were given for 4 clips"):
        EpochSampler(4, 0, weights=np.ones(3))


class LabelledClips(torch.utils.data.Dataset):
    num_labels = 3

    def __len__(self):
        return len(LABEL_LISTS)

    def label_lists(self):
        return LABEL_LISTS


@pytest.fixture
def trainer_of(tiny_sizes, tmp_path):
    def build(train_dataset, **arguments):
        settings = {"train_sampling_strategy": "class_balanced", "use_cpu": True, "disable_tqdm": True}
        return ASTTrainer(
            model=ASTForAudioClassification(ASTConfig(**tiny_sizes, num_labels=3)),
            args=ASTTrainingArguments(output_dir=str(tmp_path), **settings | arguments),
            train_dataset=train_dataset,
            feature_extractor=ASTFeatureExtractor(max_length=96),
        )

    return build


@pytest.mark.parametrize("world_size", [1, 2])
def test_the_trainer_weighs_the_clips_and_sets_processes_apart(trainer_of, monkeypatch, world_size):
    monkeypatch.setattr(ASTTrainingArguments, "world_size", world_size)
    trainer = trainer_of(LabelledClips(), seed=5, per_device_train_batch_size=4, gradient_accumulation_steps=3)
    expected = balanced(seed=5, group_size=12 * world_size, distinct=world_size > 1)
    assert list(trainer._get_train_sampler()) == list(expected)


def test_a_data_set_that_does_not_know_its_labels_is_refused(trainer_of):
    with pytest.raises(ValueError, match=r"list does not tell which labels.*label_lists\(\) and num_labels"):
        trainer_of(LabelledClips())._get_train_sampler([1, 2])


def test_a_balanced_draw_is_grouped_by_length_too():
    lengths, weights = np.random.default_rng(0).uniform(0.1, 10, 400), np.ones(400)
    by_length, as_drawn = (
        [index for _, index, _ in EpochSampler(400, 0, lengths=given, group_size=8, weights=weights)]
        for given in (lengths, None)
    )
    assert sorted(by_length) == sorted(as_drawn)
    spreads = [np.ptp(lengths[np.reshape(order, (-1, 8))], axis=1).mean() for order in (by_length, as_drawn)]
    assert spreads[0] < spreads[1] / 10

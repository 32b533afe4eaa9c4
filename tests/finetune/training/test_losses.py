"""Losses of a training: class weights against torch and scikit-learn, and one that comes from outside."""

from functools import partial

import numpy as np
import pytest
import torch
from finished_features import Clips, build_trainer
from sklearn.utils.class_weight import compute_class_weight
from transformers import default_data_collator
from transformers.modeling_outputs import SequenceClassifierOutput

from finetune.training.losses import (
    class_weights,
    loss_name,
    weighted_binary_cross_entropy,
    weighted_cross_entropy,
    weighted_loss,
)

SINGLE_LABEL = "single_label_classification"


@pytest.fixture
def build(tmp_path):
    return partial(build_trainer, tmp_path)


def outputs_of(logits: torch.Tensor) -> SequenceClassifierOutput:
    return SequenceClassifierOutput(logits=logits)


def test_balanced_weights_are_scikit_learns():
    labels = np.random.RandomState(0).choice(5, size=200, p=[0.5, 0.3, 0.1, 0.07, 0.03])
    expected = compute_class_weight("balanced", classes=np.arange(5), y=labels)
    weights = class_weights(np.bincount(labels), 200, "cross_entropy")
    np.testing.assert_allclose(weights.numpy(), expected, rtol=1e-6)
    assert weights.dtype == torch.float32
    assert weights[labels].mean() == pytest.approx(1, abs=1e-6)


def test_a_class_without_clips_does_not_change_the_weights_of_the_others():
    weights = class_weights(np.array([3, 0, 1, 0]), 4, "cross_entropy")
    present = compute_class_weight("balanced", classes=np.array([0, 2]), y=np.array([0, 0, 0, 2]))
    np.testing.assert_allclose(weights.numpy(), [present[0], 1, present[1], 1], rtol=1e-6)


def test_the_binary_weight_of_a_positive_makes_both_sides_of_a_class_equal():
    label_lists = [[0], [0, 1], [0], [0, 1, 2], [0], [], [0], [0]]
    truth = np.array([[label in clip for label in range(5)] for clip in label_lists])
    weights = class_weights(truth.sum(axis=0), 8, "binary_cross_entropy")
    assert weights.tolist() == pytest.approx([1 / 7, 3, 7, 1, 1])
    for label in range(3):
        assert weights[label] * truth[:, label].sum() == pytest.approx((~truth[:, label]).sum())
    of_all = class_weights(np.array([2, 1]), 2, "binary_cross_entropy")
    assert of_all.tolist() == [1, 1], "what all clips have"


@pytest.mark.parametrize("counts", [[2, 1], [1, 0]], ids=["several", "none"])
def test_cross_entropy_weights_of_several_labels_a_clip_are_refused(counts):
    with pytest.raises(
        ValueError, match=r"exactly one label a clip, and 2 clips have \d\..*--loss binary_cross_entropy"
    ):
        class_weights(np.array(counts), 2, "cross_entropy")


def test_a_weight_of_two_counts_a_clip_twice():
    torch.manual_seed(0)
    logits, labels = torch.randn(6, 3), torch.tensor([0, 1, 2, 1, 0, 0])
    weights = torch.tensor([1.0, 2.0, 3.0])
    repeats = weights[labels].long()
    total = torch.nn.functional.cross_entropy(
        logits.repeat_interleave(repeats, 0), labels.repeat_interleave(repeats), reduction="sum"
    )
    for given in (labels, torch.nn.functional.one_hot(labels, 3).double()):
        loss = weighted_cross_entropy(outputs_of(logits), {"labels": given}, weights)
        torch.testing.assert_close(loss, total / 6)  # clips, and not their weights


def test_a_soft_label_weighs_as_its_classes_do():
    torch.manual_seed(0)
    logits, labels = torch.randn(5, 3), torch.rand(5, 3).softmax(dim=1)
    weights = torch.tensor([0.5, 1.5, 4.0])
    # Each clip as three clips, one of every class, with weights that are shares of it.
    expected = -(labels.double() * weights.double() * logits.double().log_softmax(dim=1)).sum() / 5
    loss = weighted_cross_entropy(outputs_of(logits), {"labels": labels}, weights)
    torch.testing.assert_close(loss, expected.float())


CLASSES = torch.tensor([0] * 14 + [1] * 2)[torch.randperm(16, generator=torch.Generator().manual_seed(2))]


@pytest.mark.parametrize("kind", ["indices", "soft", "multi_label"])
@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_a_rare_class_has_its_share_of_the_gradient_in_batches_of_any_size(kind, batch_size):
    """The mean over batches, as accumulation and several processes take it, against the sum over all clips by hand."""
    generator = torch.Generator().manual_seed(1)
    inputs, head = torch.randn(16, 5, generator=generator), torch.zeros(5, 2, requires_grad=True)
    hot = torch.nn.functional.one_hot(CLASSES, 2).float()
    labels = {"indices": CLASSES, "soft": 0.7 * hot + 0.3 * hot.flip(0), "multi_label": hot}[kind]
    truth = hot if kind == "indices" else labels
    if kind == "multi_label":
        problem_type, weights = (
            "multi_label_classification",
            class_weights(hot.sum(0).numpy(), 16, "binary_cross_entropy"),
        )
        per_clip = truth * weights * 0.5 - (1 - truth) * 0.5  # of a score of 1/2
        slopes, num_terms = -per_clip, 32
    else:
        problem_type, weights = "single_label_classification", class_weights(np.array([14, 2]), 16, "cross_entropy")
        assert weights.tolist() == pytest.approx([4 / 7, 4])
        slopes, num_terms = (truth * weights).sum(dim=1, keepdim=True) * 0.5 - truth * weights, 16
    expected = inputs.T @ slopes / num_terms
    for start in range(0, 16, batch_size):
        part = slice(start, start + batch_size)
        loss = weighted_loss(weights, problem_type, 2)(outputs_of(inputs[part] @ head), {"labels": labels[part]})
        (loss * batch_size / 16).backward()
    torch.testing.assert_close(head.grad, expected)


@pytest.mark.parametrize(("batch_size", "accumulated"), [(1, 4), (2, 4), (8, 1), (4, 2)])
def test_the_trainers_weighted_gradients_are_those_of_torch_over_all_clips_of_an_update(
    build, batch_size, accumulated
):
    weights, clips, kept = torch.tensor([0.25, 0.75, 2.0]), Clips(), {}
    settings = {"per_device_train_batch_size": batch_size, "gradient_accumulation_steps": accumulated, "max_steps": 1}
    trainer = build(loss=weighted_loss(weights, SINGLE_LABEL, 3), max_grad_norm=0.0, **settings)
    model, step = build().model, trainer.create_optimizer().step

    def keep(*args, **kwargs):
        kept.update({name: parameter.grad.clone() for name, parameter in trainer.model.named_parameters()})
        return step(*args, **kwargs)

    trainer.optimizer.step = keep
    sampler = trainer._get_train_sampler()
    sampler.set_epoch(0)
    order = [key[1] for key in sampler][: batch_size * accumulated]
    trainer.train()
    labels = torch.tensor([clips[index]["labels"] for index in order])
    log_probabilities = model(torch.stack([clips[index]["input_values"] for index in order])).logits.log_softmax(dim=1)
    loss = -(weights[labels] * log_probabilities[torch.arange(len(order)), labels]).mean()
    loss.backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(kept[name], parameter.grad, atol=1e-6, rtol=1e-4, msg=name)


def test_the_weighted_binary_loss_is_that_of_repeated_positives():
    torch.manual_seed(0)
    logits, labels, weights = torch.randn(4, 3), (torch.rand(4, 3) < 0.5).long(), torch.tensor([1.0, 2.0, 5.0])
    probabilities = logits.double().sigmoid()
    expected = -(labels * weights * probabilities.log() + (1 - labels) * (1 - probabilities).log()).mean()
    loss = weighted_binary_cross_entropy(outputs_of(logits), {"labels": labels}, weights)
    torch.testing.assert_close(loss, expected.float())


def test_the_weighted_loss_is_computed_in_float32():
    logits, labels, weights = torch.randn(4, 3).bfloat16(), torch.tensor([0, 1, 2, 0]), torch.ones(3)
    loss = weighted_cross_entropy(outputs_of(logits), {"labels": labels}, weights)
    assert loss.dtype == torch.float32


def test_weights_for_a_regression_are_refused():
    with pytest.raises(ValueError, match="not problem_type='regression'"):
        weighted_loss(torch.ones(3), "regression", 3)


def test_weights_are_in_the_training_loss_and_not_in_the_evaluations(build):
    weights = torch.tensor([1.0, 2.0, 6.0])
    plain, weighted = build(), build(loss=weighted_loss(weights, SINGLE_LABEL, 3))
    batch = {"input_values": Clips().features, "labels": torch.arange(12) % 3}
    logits = plain.model.eval()(batch["input_values"]).logits
    expected = torch.nn.functional.cross_entropy(logits, batch["labels"], weight=weights, reduction="sum") / 12
    weighted.model.train()  # there is no dropout
    loss, outputs = weighted.compute_loss(weighted.model, dict(batch), return_outputs=True)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(outputs.logits, logits)
    assert weighted.compute_loss(weighted.model, dict(batch)) == loss
    assert plain.evaluate()["eval_loss"] == weighted.evaluate()["eval_loss"]
    assert plain.evaluate()["eval_loss"] != pytest.approx(loss.item(), abs=1e-4)


def test_weights_that_do_not_fit_the_labels_are_refused():
    with pytest.raises(ValueError, match=r"weights have shape \(4,\).*\(3,\)"):
        weighted_loss(torch.ones(4), SINGLE_LABEL, 3)


def test_a_loss_and_smoothed_labels_are_refused_together(build):
    with pytest.raises(ValueError, match="weighted_cross_entropy.*--label_smoothing_factor 0"):
        build(loss=weighted_loss(torch.ones(3), SINGLE_LABEL, 3), label_smoothing_factor=0.1)


class TaughtClips(Clips):
    """With the scores of a teacher for each clip."""

    def __init__(self):
        super().__init__()
        self.teacher_scores = torch.rand(12, 3, generator=torch.Generator().manual_seed(3)).softmax(dim=1)

    def __getitem__(self, key):
        index = key[1] if isinstance(key, tuple) else key
        return super().__getitem__(index) | {"teacher_scores": self.teacher_scores[index]}


def collate_taught(items):
    batch = default_data_collator(items)
    return batch | {"targets": {"teacher_scores": batch.pop("teacher_scores")}}


def distance_to_teacher(outputs, inputs):
    """The divergence from the teacher's scores, a loud clip counting more: of inputs, outputs and what is no label."""
    log_scores, teacher = outputs.logits.log_softmax(dim=1), inputs["teacher_scores"]
    loudness = inputs["input_values"].abs().mean(dim=(1, 2))
    return (torch.nn.functional.kl_div(log_scores, teacher, reduction="none").sum(dim=1) * loudness).mean()


@pytest.mark.parametrize(("batch_size", "accumulated"), [(4, 1), (2, 2)])
def test_a_loss_from_outside_is_what_is_trained(build, batch_size, accumulated):
    settings = {"per_device_train_batch_size": batch_size, "gradient_accumulation_steps": accumulated}
    settings |= {"num_train_epochs": 1, "optim": "sgd", "max_grad_norm": 0, "lr_scheduler_type": "constant"}
    trainer, clips, by_hand = build(loss=distance_to_teacher, **settings), TaughtClips(), build().model
    trainer.train_dataset, trainer.eval_dataset, trainer.data_collator = clips, clips, collate_taught
    sampler = trainer._get_train_sampler()
    sampler.set_epoch(0)
    optimizer = torch.optim.SGD(by_hand.parameters(), lr=1e-3)
    for rows in torch.tensor([key[1] for key in sampler]).split(4):
        inputs = {"input_values": clips.features[rows], "teacher_scores": clips.teacher_scores[rows]}
        distance_to_teacher(by_hand(inputs["input_values"]), inputs).backward()
        optimizer.step()
        optimizer.zero_grad()
    trainer.train()
    for name, expected in by_hand.named_parameters():
        torch.testing.assert_close(trainer.model.get_parameter(name), expected, atol=1e-7, rtol=1e-5, msg=name)
    assert trainer.loss_name == "distance_to_teacher"
    own = torch.nn.functional.cross_entropy(by_hand.eval()(clips.features).logits, torch.arange(12) % 3)
    assert trainer.evaluate()["eval_loss"] == pytest.approx(own.item(), abs=1e-5), "evaluations keep the model's own"


def test_losses_are_named():
    weights = torch.ones(3)
    assert loss_name(None, SINGLE_LABEL) == "cross_entropy"
    assert loss_name(None, SINGLE_LABEL, 0.1) == "label_smoothed_cross_entropy"
    assert loss_name(weighted_loss(weights, "multi_label_classification", 3), None) == "weighted_binary_cross_entropy"

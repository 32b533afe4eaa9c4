"""The loss of a distillation against its formula in NumPy, and in a training of tiny layers."""

from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from finished_features import build_trainer
from scipy.special import expit, log_softmax, softmax
from transformers.modeling_outputs import SequenceClassifierOutput

from finetune.training.distillation import distillation_loss, new_layer_maps, soft_scores

GENERATOR = np.random.default_rng(0)
STUDENT, TEACHER = GENERATOR.normal(size=(2, 5, 3)) * 2
HOT = np.eye(3)[[0, 2, 1, 1, 0]]
TEMPERATURE, WEIGHT = 3.0, 0.3


def loss_of(problem_type: str, weight: float = WEIGHT, **inputs) -> float:
    taught = soft_scores(torch.tensor(TEACHER), TEMPERATURE, problem_type)
    outputs = SequenceClassifierOutput(logits=torch.tensor(STUDENT))
    inputs = {"labels": torch.tensor(HOT), "teacher_scores": taught} | inputs
    return distillation_loss(outputs, inputs, problem_type=problem_type, temperature=TEMPERATURE, weight=weight).item()


def test_exclusive_labels_have_the_divergence_of_softened_scores():
    taught, own = softmax(TEACHER / TEMPERATURE, axis=1), log_softmax(STUDENT / TEMPERATURE, axis=1)
    divergence = (taught * (np.log(taught) - own)).sum(axis=1).mean()
    labels = -(HOT * log_softmax(STUDENT, axis=1)).sum(axis=1).mean()
    expected = (1 - WEIGHT) * labels + WEIGHT * TEMPERATURE**2 * divergence
    assert loss_of("single_label_classification") == pytest.approx(expected, rel=1e-5)
    assert loss_of("single_label_classification", labels=torch.tensor([0, 2, 1, 1, 0])) == pytest.approx(
        expected, rel=1e-5
    )
    assert loss_of("single_label_classification", weight=1.0) == pytest.approx(TEMPERATURE**2 * divergence, rel=1e-5)


def test_independent_labels_have_the_binary_cross_entropy_of_softened_sigmoids():
    def binary(targets, logits):
        return -(targets * np.log(expit(logits)) + (1 - targets) * np.log(expit(-logits))).mean()

    taught = binary(expit(TEACHER / TEMPERATURE), STUDENT / TEMPERATURE)
    expected = (1 - WEIGHT) * binary(HOT, STUDENT) + WEIGHT * TEMPERATURE**2 * taught
    assert loss_of("multi_label_classification") == pytest.approx(expected, rel=1e-5)


def test_layers_are_compared_by_a_linear_map_without_padding():
    states, taught = GENERATOR.normal(size=(2, 4, 6)), GENERATOR.normal(size=(2, 4, 5))
    real = np.array([[1, 1, 1, 1], [1, 1, 0, 0]], dtype=bool)
    maps = new_layer_maps(1, 6, 5, seed=0)
    weight, bias = (tensor.detach().double().numpy() for tensor in (maps[0].weight, maps[0].bias))
    squares = ((states @ weight.T + bias - taught) ** 2).mean(axis=2)
    expected = np.mean([clip[mask].mean() for clip, mask in zip(squares, real, strict=True)])
    outputs = SequenceClassifierOutput(
        logits=torch.zeros(2, 3), hidden_states=(None, torch.tensor(states, dtype=torch.float32))
    )
    inputs = {
        "labels": torch.tensor([0, 1]),
        "teacher_scores": torch.full((2, 3), 1 / 3),
        "teacher_states": [torch.tensor(taught)],
        "teacher_tokens": torch.tensor(real),
    }
    loss = distillation_loss(
        outputs, inputs, problem_type="single_label_classification", temperature=1.0, weight=1.0, layers=[1],
        layer_maps=maps, layer_weight=2.0,
    )  # fmt: skip
    assert loss.item() == pytest.approx(2 * expected, rel=1e-5)
    assert not torch.equal(new_layer_maps(1, 6, 5, seed=1)[0].weight, maps[0].weight)


class Zeros:
    """A teacher of layers that gives zeros."""

    layers = (2,)

    def __init__(self):
        self.layer_maps, self.seen = new_layer_maps(1, 16, 8, seed=0), []

    def to(self, device):
        return self

    def targets(self, batch, inputs):
        self.seen.append(len(inputs["labels"]))
        return {"teacher_states": [torch.zeros(len(inputs["labels"]), 26, 8)]}


def test_maps_learn_with_the_model_and_evaluations_have_no_teacher(tmp_path):
    teacher = Zeros()
    loss = partial(
        distillation_loss, problem_type="single_label_classification", temperature=1.0, weight=0.0, layers=teacher.layers,
        layer_maps=teacher.layer_maps, layer_weight=1.0,
    )  # fmt: skip
    trainer = build_trainer(tmp_path, loss=loss, num_train_epochs=1, weight_decay=0.01)
    trainer.teacher = teacher
    before = teacher.layer_maps[0].weight.clone()
    trainer.train()
    assert teacher.seen == [4, 4, 4]
    assert not torch.equal(teacher.layer_maps[0].weight, before)
    assert trainer.optimizer.param_groups[-1]["weight_decay"] == 0.01
    assert trainer.loss_name == "distillation_loss"
    trainer.evaluate()
    assert teacher.seen == [4, 4, 4]


@pytest.mark.parametrize("plugin", ["is_fsdp_enabled", "is_deepspeed_enabled"])
def test_maps_beside_a_model_that_is_split_are_refused(tmp_path, plugin):
    trainer = build_trainer(tmp_path)
    trainer.teacher = SimpleNamespace(to=lambda device: None, layer_maps=new_layer_maps(1, 16, 8, seed=0))
    setattr(trainer, plugin, True)
    with pytest.raises(ValueError, match=r"FSDP and DeepSpeed do not take\. Leave out .* --teacher_layers"):
        trainer._set_teacher()

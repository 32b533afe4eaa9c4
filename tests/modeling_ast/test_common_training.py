"""The common training tests of Transformers, by the library's names, on a tiny configuration, as those in test_common_model.py."""

import warnings
from unittest import mock

import pytest
import torch
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

from modeling_ast import ASTForAudioClassification


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.*is deprecated:FutureWarning")
class TestASTTraining:
    def test_training(self, tester, model_class):
        model, inputs = tester.model(model_class).train(), tester.inputs(model_class, labels=True)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        before = tester.loss(model.eval(), inputs).item()
        for _ in range(3):
            gradients = tester.gradients(model.train(), inputs)
            assert all(gradient.isfinite().all() and gradient.any() for gradient in gradients.values())
            optimizer.step()
        assert tester.loss(model.eval(), inputs).item() < before

    def test_training_overfit(self, tester, model_class):
        """The library knows only texts here; for it, loss and gradient have to lose nine tenths."""
        model, inputs = tester.model(model_class).train(), tester.inputs(model_class, labels=True)
        optimizer = torch.optim.Adam(model.parameters(), lr=4e-3)
        losses, norms = [], []
        for _ in range(150):
            optimizer.zero_grad()
            loss = tester.loss(model, inputs)
            loss.backward()
            norms.append(nn.utils.get_total_norm(parameter.grad for parameter in model.parameters()).item())
            losses.append(loss.item())
            optimizer.step()
        assert max(losses[-5:]) < 0.1 * losses[0]
        if model_class is ASTForAudioClassification:  # the other loss does not end at a minimum
            assert max(norms[-5:]) < 0.1 * norms[0]

    def check_checkpointed_training(self, tester, model_class, kwargs):
        model, inputs = tester.model(model_class).train(), tester.inputs(model_class, labels=True)
        expected = tester.gradients(model, inputs)
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=kwargs)
        layer = next(module for module in model.modules() if isinstance(module, GradientCheckpointingLayer))
        with mock.patch.object(layer.attention, "forward", wraps=layer.attention.forward) as forward:
            gradients = tester.gradients(model, inputs)
        assert forward.call_count == 2, "once in the forward pass, once again in the backward pass"
        for name, gradient in expected.items():
            assert torch.equal(gradients[name], gradient), name

    def test_training_gradient_checkpointing(self, tester, model_class):
        self.check_checkpointed_training(tester, model_class, None)

    def test_training_gradient_checkpointing_use_reentrant_false(self, tester, model_class):
        self.check_checkpointed_training(tester, model_class, {"use_reentrant": False})

    def test_training_gradient_checkpointing_use_reentrant_true(self, tester, model_class):
        self.check_checkpointed_training(tester, model_class, {"use_reentrant": True})

    def test_gradient_checkpointing_backward_compatibility(self, tester, model_class):
        assert model_class(tester.config(gradient_checkpointing=True)).is_gradient_checkpointing

    def test_gradient_checkpointing_enable_disable(self, tester, model_class):
        model = model_class(tester.config())
        layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
        assert len(layers) == model.config.num_hidden_layers
        assert not model.is_gradient_checkpointing
        model.gradient_checkpointing_enable()
        assert model.is_gradient_checkpointing
        assert all(layer.gradient_checkpointing for layer in layers)
        model.gradient_checkpointing_disable()
        assert not model.is_gradient_checkpointing
        assert not any(layer.gradient_checkpointing for layer in layers)

    def test_peft_gradient_checkpointing_enable_disable(self, tester, model_class):
        """With an adapter loaded, it is the input that has to ask for gradients: the weights are frozen."""
        model = model_class(tester.config()).requires_grad_(False)
        model._hf_peft_config_loaded = True
        model.gradient_checkpointing_enable()
        assert model.is_gradient_checkpointing
        assert model(**tester.inputs())[0].requires_grad
        model.gradient_checkpointing_disable()
        assert not model.is_gradient_checkpointing
        assert not model(**tester.inputs())[0].requires_grad

    def test_enable_input_require_grads(self, tester, model_class):
        model = model_class(tester.config()).requires_grad_(False)
        assert not model(**tester.inputs())[0].requires_grad
        model.enable_input_require_grads()
        assert model(**tester.inputs())[0].requires_grad
        model.disable_input_require_grads()
        assert not model(**tester.inputs())[0].requires_grad

    def test_enable_input_require_grads_with_gradient_checkpointing(self, tester, model_class):
        model, inputs = tester.model(model_class).train(), tester.inputs(model_class, labels=True)
        expected = tester.gradients(model, inputs)
        model.gradient_checkpointing_enable()
        model.enable_input_require_grads()
        gradients = tester.gradients(model, inputs)
        name = next(name for name in expected if name.endswith("patch_embeddings.projection.weight"))
        assert torch.equal(gradients[name], expected[name])

    @pytest.mark.parametrize(
        ("problem_type", "num_labels", "labels"),
        [
            ("multi_label_classification", 2, torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0]])),
            ("single_label_classification", 4, torch.tensor([3, 0, 2])),
            ("regression", 1, torch.tensor([0.5, -1.0, 2.0])),
        ],
    )
    def test_problem_types(self, tester, problem_type, num_labels, labels):
        model = tester.model(ASTForAudioClassification, problem_type=problem_type, num_labels=num_labels).train()
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # a target of another size than the logits is only warned about
            loss = model(**tester.inputs(), labels=labels).loss
        loss.backward()
        assert loss.isfinite()
        assert all(parameter.grad is not None for parameter in model.parameters())

"""A tiny model for the common tests of Transformers: its configuration, inputs, and what follows from them."""

import types

import torch
from torch import nn

from modeling_ast import ASTConfig, ASTForAudioClassification
from modeling_ast.modeling_ast import NUM_CLASS_TOKENS


class ASTModelTester:
    """A tiny configuration with odd sizes, inputs for it, and what follows from it."""

    batch_size = 3
    num_labels = 5
    sizes = types.MappingProxyType(
        {
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "intermediate_size": 40,
            "patch_size": 4,
            "frequency_stride": 3,
            "time_stride": 2,
            "num_mel_bins": 19,
            "max_length": 23,
            "hidden_dropout_prob": 0.1,
            "attention_probs_dropout_prob": 0.1,
        }
    )

    def config(self, **changes) -> ASTConfig:
        return ASTConfig(**{**self.sizes, "num_labels": self.num_labels, **changes})

    def num_tokens(self, config: ASTConfig) -> int:
        along_frequency = (config.num_mel_bins - config.patch_size) // config.frequency_stride + 1
        along_time = (config.max_length - config.patch_size) // config.time_stride + 1
        return NUM_CLASS_TOKENS + along_frequency * along_time

    def model(self, model_class, **changes):
        """A model in which every tensor matters: the initial ones are close to zero, the biases zero."""
        torch.manual_seed(0)
        model = model_class(self.config(**changes))
        with torch.no_grad():
            for parameter in model.parameters():
                nn.init.normal_(parameter, std=0.2)
        return model.eval()

    def inputs(self, model_class=None, labels: bool = False) -> dict[str, torch.Tensor]:
        generator = torch.Generator().manual_seed(1)
        shape = (self.batch_size, self.sizes["max_length"], self.sizes["num_mel_bins"])
        inputs = {"input_values": torch.randn(shape, generator=generator)}
        if labels and model_class is ASTForAudioClassification:
            inputs["labels"] = torch.arange(self.batch_size) % self.num_labels
        return inputs

    def loss(self, model, inputs) -> torch.Tensor:
        """The classifier's own loss; any number that needs every token for the bare model."""
        outputs = model(**inputs)
        return outputs.loss if "loss" in outputs else outputs.last_hidden_state.pow(2).mean()

    def gradients(self, model, inputs) -> dict[str, torch.Tensor]:
        model.zero_grad()
        torch.manual_seed(2)  # of dropout
        self.loss(model, inputs).backward()
        return {name: parameter.grad for name, parameter in model.named_parameters()}


def run(model, inputs, **kwargs):
    with torch.no_grad():
        return model(**inputs, **kwargs)

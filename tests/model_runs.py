"""Inputs for the small models of `make_model`, and what their passes give."""

import torch

ROUNDING = 1e-5  # float32 sums in another order, of numbers around 1
SHORTCUT_TOLERANCE = 1e-6  # the same sums over the same numbers, perhaps by another kernel
NUM_LABELS = 5
MEL_BINS = 48  # four patches along frequency; the tests need no more
TRAINED_FRAMES = 96  # as in the fixture tiny_sizes


def make_inputs(frames: int = TRAINED_FRAMES, lengths: list[int] | None = None, batch: int = 3) -> dict:
    """Features, labels, and with lengths a mask."""
    generator = torch.Generator().manual_seed(frames)
    inputs = {"input_values": torch.randn(batch, frames, MEL_BINS, generator=generator)}
    if lengths is not None:
        inputs["attention_mask"] = torch.arange(frames) < torch.tensor(lengths)[:, None]
    return inputs | {"labels": torch.arange(batch) % NUM_LABELS}


def run(model, inputs: dict, **kwargs):
    with torch.no_grad():
        return model(**inputs, **kwargs)


def gradients(model, inputs: dict, seed: int = 1) -> dict[str, torch.Tensor]:
    model.zero_grad()
    torch.manual_seed(seed)  # of dropout
    model(**inputs).loss.backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None}


def assert_close_gradients(found: dict, expected: dict, tolerance: float = ROUNDING):
    """Each tensor within a share of the largest gradient: what cancels to almost nothing is all rounding."""
    assert found.keys() == expected.keys()
    largest = max(gradient.abs().max() for gradient in expected.values())
    for name, gradient in expected.items():
        assert (found[name] - gradient).abs().max() <= tolerance * largest, name


def assert_equal_gradients(found: dict, expected: dict):
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        assert torch.equal(found[name], gradient), name


def same_weights(model, other) -> bool:
    weights = other.state_dict()
    return all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())

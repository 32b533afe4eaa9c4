"""Weights that are NaN or infinite are found in every dtype, wherever they are."""

import pytest
import torch

from modeling_ast.checkpoints.weights import all_finite

FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("place", [0, 1, 77, 1000, 4094])
def test_one_broken_number_is_found(dtype, number, place):
    values = torch.linspace(-3, 3, 4095).to(dtype)
    assert all_finite(values)
    assert all_finite(values.reshape(63, 65).T)
    values[place] = number
    assert not all_finite(values)
    assert not all_finite(values.reshape(63, 65).T)


def test_largest_numbers_whole_numbers_and_nothing_are_finite():
    assert all(all_finite(torch.full((3,), torch.finfo(dtype).max, dtype=dtype)) for dtype in FLOATS)
    assert all_finite(torch.nn.Parameter(torch.ones(3)))
    assert all_finite(torch.arange(3))
    assert all_finite(torch.empty(0, 3))

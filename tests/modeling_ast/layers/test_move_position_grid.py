"""Positions of a new geometry by the paper's rule: against the original code's tables, torch's interpolation, and by hand."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate

from modeling_ast.layers.position_embeddings import move_position_grid

REFERENCE = Path(__file__).parents[2] / "reference"
CASES = json.loads((REFERENCE / "cases.json").read_text())
STARTS = [case for case in CASES["cases"] if case["kind"] != "checkpoint"]


def numbered(frequency, time):
    """A grid whose two channels say which row and which column a position is from."""
    rows, columns = torch.meshgrid(torch.arange(frequency), torch.arange(time), indexing="ij")
    return torch.stack((rows, columns), dim=-1).float()


def random_grid(frequency, time, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(frequency, time, 5, generator=generator, dtype=torch.float64).to(dtype)


def stretched(grid, frequency, time):
    """torch's bilinear interpolation to a grid of `frequency` x `time`."""
    channels_first = grid.permute(2, 0, 1)[None]
    return interpolate(channels_first, size=(frequency, time), mode="bilinear")[0].permute(1, 2, 0)


# Cut


@pytest.mark.parametrize(
    ("old", "new", "first"),
    [
        (101, 50, 25),
        (101, 51, 25),
        (101, 12, 44),
        (101, 100, 0),
        (101, 1, 50),
        (24, 12, 6),
        (24, 11, 7),
        (14, 12, 1),
        (14, 13, 1),
        (12, 1, 6),
        (3, 2, 0),
        (2, 1, 1),
        (1, 1, 0),
    ],
)
def test_a_shorter_axis_is_cut_from_its_middle(old, new, first):
    assert first == old // 2 - new // 2
    along_time = move_position_grid(numbered(3, old), (3, new))
    assert along_time[..., 1].tolist() == [list(range(first, first + new))] * 3
    assert along_time[..., 0].tolist() == [[row] * new for row in range(3)]
    along_frequency = move_position_grid(numbered(old, 3), (new, 3))
    assert along_frequency[..., 0].tolist() == [[row] * 3 for row in range(first, first + new)]
    assert along_frequency[..., 1].tolist() == [[0, 1, 2]] * new


def test_both_axes_are_cut():
    moved = move_position_grid(numbered(14, 14), (9, 6))
    assert moved[..., 0].tolist() == [[row] * 6 for row in range(3, 12)]
    assert moved[..., 1].tolist() == [list(range(4, 10))] * 9


@pytest.mark.parametrize(("old", "new"), [((12, 101), (12, 50)), ((24, 24), (12, 12)), ((14, 14), (9, 6))])
def test_what_is_cut_is_bit_equal(old, new):
    grid = random_grid(*old)
    start = [was // 2 - now // 2 for was, now in zip(old, new, strict=True)]
    kept = grid[start[0] : start[0] + new[0], start[1] : start[1] + new[1]]
    assert torch.equal(move_position_grid(grid, new), kept)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("size", [(12, 101), (14, 14), (1, 1)])
def test_an_unchanged_grid_is_bit_equal(size, dtype):
    grid = random_grid(*size, dtype)
    moved = move_position_grid(grid, size)
    assert moved.dtype == dtype
    assert torch.equal(moved, grid)


def test_the_beginning_of_the_time_axis_is_kept_where_the_model_says_so():
    grid = numbered(4, 64)
    assert move_position_grid(grid, (4, 6), "beginning").equal(grid[:, :6])
    assert move_position_grid(grid, (2, 6), "beginning").equal(grid[1:3, :6])  # mel bins are cut as in the paper
    assert move_position_grid(grid, (4, 80), "beginning").equal(move_position_grid(grid, (4, 80)))


# Stretch


def test_stretched_positions_by_hand():
    """Half-pixel centres: four points over two lie at -0.25, 0.25, 0.75 and 1.25, clamped at the ends."""
    row = torch.tensor([[[0.0], [1.0]]])
    assert move_position_grid(row, (1, 4)).flatten().tolist() == [0, 0.25, 0.75, 1]
    assert move_position_grid(row.transpose(0, 1), (4, 1)).flatten().tolist() == [0, 0.25, 0.75, 1]
    assert move_position_grid(torch.tensor([[[7.0]]]), (2, 3)).flatten().tolist() == [7] * 6


@pytest.mark.parametrize("time", [102, 204, 408])
def test_a_longer_time_axis_is_torchs_interpolation(time):
    grid = random_grid(12, 101)
    assert torch.equal(move_position_grid(grid, (12, time)), stretched(grid, 12, time))


@pytest.mark.parametrize("frequency", [13, 24, 100])
def test_a_longer_frequency_axis_is_torchs_interpolation(frequency):
    grid = random_grid(12, 9)
    assert torch.equal(move_position_grid(grid, (frequency, 9)), stretched(grid, frequency, 9))


@pytest.mark.parametrize(("old", "new"), [((14, 14), (23, 101)), ((5, 7), (6, 8)), ((3, 3), (31, 37))])
def test_both_longer_axes_are_stretched_time_first(old, new):
    grid = random_grid(*old)
    time_first = stretched(stretched(grid, old[0], new[1]), *new)
    frequency_first = stretched(stretched(grid, new[0], old[1]), *new)
    assert not torch.equal(time_first, frequency_first), "rounding does not show the order here"
    assert torch.equal(move_position_grid(grid, new), time_first)


@pytest.mark.parametrize("new_time", [20, 101])
def test_frequency_is_cut_where_time_is_stretched(new_time):
    grid = random_grid(14, 14)
    assert torch.equal(move_position_grid(grid, (12, new_time)), stretched(grid, 14, new_time)[1:13])


def test_frequency_is_stretched_where_time_is_cut():
    grid = random_grid(5, 101)
    assert torch.equal(move_position_grid(grid, (12, 50)), stretched(grid[:, 25:75], 12, 50))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("new", [(12, 204), (24, 101), (24, 204)])
def test_half_precision_is_computed_in_float32_and_given_back(dtype, new):
    grid = random_grid(12, 101, dtype)
    moved = move_position_grid(grid, new)
    assert moved.dtype == dtype
    assert torch.equal(moved, stretched(stretched(grid.float(), 12, new[1]), *new).to(dtype))


# Shape and side effects


@pytest.mark.parametrize("new", [(12, 101), (9, 73), (12, 204), (24, 50), (24, 204)])
def test_the_result_has_the_new_shape_and_the_given_grid_is_left_alone(new):
    grid = random_grid(12, 101)
    before = grid.clone()
    moved = move_position_grid(grid, new)
    assert moved.shape == (*new, 5)
    assert torch.equal(grid, before)


# The original code's tables


@pytest.mark.parametrize("case", STARTS, ids=lambda case: case["name"])
def test_the_original_s_position_tables(case):
    """Weights and results of the reference, whose README describes both; the table is the second tensor of either file."""
    if case["kind"] == "imagenet_start":
        deit = {"tiny224": "deit_tiny_distilled_patch16_224", "base384": "deit_base_distilled_patch16_384"}
        tensors, seed = CASES["tensors"][f"deit/{deit[case['model_size']]}"], case["deit_seed"]
        side = {"tiny224": 14, "base384": 24}[case["model_size"]]
        old = (side, side)
    else:
        tensors, seed = CASES["tensors"]["checkpoint/base384_f10_t10_T1024_n527"], case["seed"]
        old = (12, 101)
    generator = np.random.RandomState(seed)
    for name, shape in tensors.items():
        table = torch.from_numpy((generator.standard_normal(size=shape) * 0.05).astype(np.float32))
        if name.endswith("pos_embed"):
            break
    new = ((128 - 16) // case["fstride"] + 1, (case["input_tdim"] - 16) // case["tstride"] + 1)
    moved = move_position_grid(table[0, 2:].unflatten(0, old), new)
    expected = np.load(REFERENCE / "logits.npz")[f"{case['name']}.pos_embed_slice"]
    np.testing.assert_array_equal(moved.flatten(0, 1)[:, :4].numpy(), expected[2:])

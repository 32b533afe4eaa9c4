"""Where columns lie and which labels they have, against the formula of a moment's nearest column and against hand-made cases."""

import numpy as np
import pytest

from modeling_ast import ASTConfig
from modeling_ast.frame_columns import FrameColumns

PAPER = FrameColumns()


@pytest.mark.parametrize(
    ("patch_size", "time_stride", "frames"), [(16, 10, 1024), (16, 16, 500), (16, 4, 100), (8, 10, 77)]
)
def test_a_moment_belongs_to_the_column_whose_middle_is_nearest(patch_size, time_stride, frames):
    columns = FrameColumns(patch_size, time_stride)
    # Of all windows of 25 ms, 10 ms apart, that are in the patches of a column the mean of their middles.
    middles = [
        np.mean([0.01 * frame + 0.0125 for frame in range(begin, begin + patch_size)])
        for begin in range(0, frames - patch_size + 1, time_stride)
    ]
    end = 0.01 * (frames - 1) + 0.025
    moments = np.random.default_rng(0).uniform(0, end, 500)
    edges = columns.edges(frames)
    nearest = np.abs(moments[:, None] - np.array(middles)).argmin(axis=1)
    assert (edges[0], edges[-1]) == pytest.approx((0, end))
    np.testing.assert_array_equal(np.searchsorted(edges, moments, side="right") - 1, nearest)
    assert columns.number(frames) == len(middles)


def test_the_stride_of_the_paper_makes_frames_of_100_ms():
    columns = FrameColumns.of(ASTConfig())
    assert columns == PAPER
    assert (columns.seconds, columns.number(1024)) == (0.1, 101)
    np.testing.assert_allclose(np.diff(columns.edges(1024))[1:-1], 0.1)
    assert [PAPER.number(frames) for frames in (1, 16, 25, 26)] == [1, 1, 1, 2]


def test_a_column_has_a_label_that_covers_half_of_its_time():
    edges = PAPER.edges(96)  # nine columns; the second from 0.1375 to 0.2375 s
    for share, expected in ((0.49, 0), (0.5, 1), (0.51, 1)):
        found = PAPER.targets([(edges[1] + 0.1 * (1 - share), edges[4], 1)], 2, 96)
        np.testing.assert_array_equal(found[:, 0], np.zeros(9))
        np.testing.assert_array_equal(found[:, 1], [0, expected, 1, 1, 0, 0, 0, 0, 0])
    assert PAPER.targets([(edges[1] + 0.02, edges[4], 0)], 1, 96, least_share=0.9)[1] == 0


def test_targets_are_those_of_many_moments():
    """What share of a column a label covers, counted on a grid of half a millisecond instead of by overlaps."""
    generator = np.random.default_rng(1)
    for _ in range(20):
        starts = generator.uniform(-0.5, 2.5, 6)
        stretches = [(start, start + generator.uniform(0.2, 1), int(generator.integers(3))) for start in starts]
        moments = np.arange(0, 2.015, 0.0005)
        marked = np.zeros((len(moments), 3), bool)
        for start, end, label in stretches:
            marked[(moments >= start) & (moments < end), label] = True
        column = np.searchsorted(PAPER.edges(200), moments, side="right") - 1
        shares = np.stack([marked[column == number].mean(axis=0) for number in range(19)])
        found = PAPER.targets(stretches, 3, 200)
        clear = np.abs(shares - 0.5) > 0.02
        np.testing.assert_array_equal(found[clear], (shares > 0.5)[clear])


def test_the_shortest_sound_counts_somewhere_and_what_is_cut_off_does_not():
    edges = PAPER.edges(96)
    click = PAPER.targets([(edges[3] - 0.001, edges[3] + 0.004, 0)], 1, 96)
    assert click.ravel().tolist() == [0, 0, 0, 1, 0, 0, 0, 0, 0]
    assert not PAPER.targets([(-1.0, 0.02, 0), (edges[-1] - 0.02, 9.0, 0), (5.0, 6.0, 0)], 1, 96).any()
    assert PAPER.targets([(-1.0, 9.0, 0)], 1, 96).all()
    touching = [(edges[2], edges[2] + 0.03, 0), (edges[2] + 0.02, edges[2] + 0.055, 0)]
    assert PAPER.targets([*touching, (edges[5], edges[5], 0)], 1, 96).ravel().tolist() == [0, 0, 1, 0, 0, 0, 0, 0, 0]


@pytest.mark.parametrize("stretch", [(0.5, 0.4, 0), (0.1, 0.2, 2), (0.1, 0.2, -1), (0.1, float("nan"), 0)])
def test_stretches_that_cannot_be_are_refused(stretch):
    with pytest.raises(ValueError, match=r"Pass \(start, end, label index\) with a label from 0 to 1"):
        PAPER.targets([stretch], 2, 96)
    with pytest.raises(ValueError, match="least_share=0 is no share"):
        PAPER.targets([], 2, 96, least_share=0)

"""Which patches a masked pretraining hides, drawn in clusters as in SSAST (Gong et al., AAAI 2022), section 2.2.

A cluster is a square of patches whose side is drawn once a clip: large clusters ask for the global structure of a sound,
single patches only for what lies beside them. Differs from the released code in that a cluster ends at the edge of the
grid, where that goes on in the next row; that every patch can be masked, the first too; and that of the last cluster
those that are too many are drawn, where that takes the highest numbers of the whole mask away.
"""

import numpy as np

MASKED_SHARE = 400 / 512  # of the patches of a clip: the model that the paper releases
CLUSTER_SIDES = (3, 5)  # least and largest side of a cluster, in patches; the paper's C


def num_masked(grid: tuple[int, int], masked_share: float = MASKED_SHARE) -> int:
    """Count the patches of a clip that are masked.

    Args:
        grid (`tuple[int, int]`): patches of the clip along frequency and time, without those of padding.
        masked_share (`float`, defaults to 400/512): share of the patches to mask.

    Returns:
        The share of them, rounded. One patch at least is masked, and one stays, where there are two or more; of a single
        patch none is masked.
    """
    patches = grid[0] * grid[1]
    return min(max(round(masked_share * patches), 1), patches - 1)


def draw_patch_mask(
    generator: np.random.Generator,
    grid: tuple[int, int],
    masked_share: float = MASKED_SHARE,
    cluster_sides: tuple[int, int] = CLUSTER_SIDES,
) -> np.ndarray:
    """Draw the masked patches of a clip.

    Args:
        generator (`np.random.Generator`): that of the clip; nothing else decides.
        grid (`tuple[int, int]`): patches of the clip along frequency and time, without those of padding.
        masked_share (`float`, defaults to 400/512): share of the patches to mask; see [`num_masked`].
        cluster_sides (`tuple[int, int]`, defaults to `(3, 5)`): least and largest side of a cluster, in patches; with
            `(1, 1)` patches are drawn one by one, as the paper does for patches that are whole frames.

    Returns:
        `np.ndarray` of shape `grid`, bool: `True` for masked patches.

    Raises:
        ValueError: if the grid is empty, the share is not between 0 and 1, or the sides are not in order from 1 on.
    """
    frequency, time = grid
    least, largest = cluster_sides
    if frequency < 1 or time < 1:
        raise ValueError(f"The grid {grid} has no patches. Pass how many the clip has along frequency and time.")
    if not 0 < masked_share < 1:
        raise ValueError(f"masked_share={masked_share} is not between 0 and 1. Pass for example 0.78.")
    if not 1 <= least <= largest:
        raise ValueError(f"cluster_sides={cluster_sides} are not in order from 1 on. Pass for example (3, 5).")
    side = int(generator.integers(least, largest + 1))
    masked = np.zeros(grid, dtype=bool)
    missing = num_masked(grid, masked_share)
    while missing > 0:
        row, column = int(generator.integers(frequency)), int(generator.integers(time))
        cluster = np.zeros(grid, dtype=bool)
        cluster[row : row + side, column : column + side] = True
        added = np.flatnonzero(cluster & ~masked)
        if len(added) > missing:
            added = generator.choice(added, missing, replace=False)
        masked.flat[added] = True
        missing -= len(added)
    return masked

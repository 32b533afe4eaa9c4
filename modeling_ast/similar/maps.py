"""A picture of a folder's vectors in two dimensions, by scikit-learn: what sounds alike lies together.

Drawn with Matplotlib's `Figure`; both are imported when a picture is drawn.
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..system.names_as_text import storable
from .library import Library, LibraryError, of_length_one

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_POINTS = {"tsne": 5_000, "pca": 50_000}  # half a minute on two cores, and as many as can be told apart
MOST_GROUPS = 19  # with a colour of their own, of 20
LONGEST_NAME = 28  # characters
FEWEST_POINTS = 4
PERPLEXITY = 30.0  # scikit-learn's own, for sets that are not small


def map_rows(library: Library, method: str, seed: int = 0) -> np.ndarray:
    """Choose the vectors that are drawn: all, or so many of a large folder by chance.

    Args:
        library ([`Library`]): the folder.
        method (`str`): one of `MOST_POINTS`.
        seed (`int`, defaults to 0): of the choice.

    Returns:
        `np.ndarray` of shape `(points,)`: rows, ascending.

    Raises:
        LibraryError: if there are too few.
    """
    if len(library) < FEWEST_POINTS:
        raise LibraryError(
            f"{library.folder} has {len(library)} vectors, and a map takes {FEWEST_POINTS}. Add files: ast-embed FILES --output "
            f"{shlex.quote(str(library.folder))}"
        )
    if len(library) <= MOST_POINTS[method]:
        return np.arange(len(library))
    return np.sort(np.random.default_rng(seed).choice(len(library), MOST_POINTS[method], replace=False))


def map_points(vectors: np.ndarray, method: str, seed: int = 0) -> np.ndarray:
    """Lay vectors out in a plane.

    Args:
        vectors (`np.ndarray` of shape `(points, hidden)`): of any length; their directions count.
        method (`str`): `"tsne"`, in which neighbours stay neighbours (van der Maaten and Hinton 2008), or `"pca"`, the two directions
            in which they differ most.
        seed (`int`, defaults to 0): of what is drawn by chance.

    Returns:
        `np.ndarray` of shape `(points, 2)`.
    """
    vectors = of_length_one(vectors)
    if method == "pca":
        from sklearn.decomposition import PCA

        return PCA(2, random_state=seed).fit_transform(vectors)
    from sklearn.manifold import TSNE

    perplexity = min(PERPLEXITY, (len(vectors) - 1) / 3)
    return TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(vectors)


def draw_map(points: np.ndarray, groups: Sequence[str], path: str | Path, title: str) -> Figure:
    """Draw points in the colours of their groups.

    Args:
        points (`np.ndarray` of shape `(points, 2)`): from [`map_points`].
        groups (sequence of `str`): labels or folders; beside the 19 that have most points all are grey.
        path (`str` or `Path`): PNG file to write.
        title (`str`): what stands above.

    Returns:
        `Figure`: what was written.
    """
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    from ..features.log_mel_figure import save_figure

    figure = Figure(figsize=(10, 7.5), layout="constrained")
    axes = figure.subplots()
    counts, groups = Counter(groups), np.asarray(groups, dtype=object)
    shown = sorted(group for group, _ in counts.most_common(MOST_GROUPS))
    rest = ~np.isin(groups, shown)
    size = 60 / max(len(points) / 250, 1) ** 0.5 + 2
    if rest.any():
        words = f"{len(counts) - len(shown)} others"
        axes.scatter(*points[rest].T, s=size, color="#bbbbbb", linewidths=0, label=words)
    for group, colour in zip(shown, colormaps["tab20"].colors, strict=False):
        name = storable(group)
        name = name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"
        axes.scatter(*points[groups == group].T, s=size, color=colour, linewidths=0, label=f"\u200a{name}")
    axes.set_title(storable(title), parse_math=False)
    axes.set_xticks([])
    axes.set_yticks([])
    legend = figure.legend(loc="outside right upper", frameon=False, markerscale=max(6 / size**0.5, 1))
    for text in legend.get_texts():
        text.set_parse_math(False)
    return save_figure(figure, path)

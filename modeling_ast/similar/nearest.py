"""The vectors of a folder that are nearest to others by cosine similarity."""

import numpy as np

from .index import candidates
from .library import Library, of_length_one

AT_ONCE = 16_384  # vectors that are read at a time


def cosines(library: Library, rows, queries: np.ndarray) -> np.ndarray:
    """Compare vectors of a folder with others.

    Args:
        library ([`Library`]): the folder.
        rows (`slice` or `np.ndarray` of `int`): which of its vectors.
        queries (`np.ndarray` of shape `(queries, hidden)`): float32, of length one.

    Returns:
        `np.ndarray` of shape `(rows, queries)`, float32.
    """
    vectors = np.asarray(library.vectors[rows], np.float32)
    return vectors @ queries.T / library.stretches["norm"][rows, None]


def nearest(library: Library, queries: np.ndarray, top: int, index=None) -> tuple[np.ndarray, np.ndarray]:
    """Find the vectors that are nearest to others.

    Args:
        library ([`Library`]): the folder.
        queries (`np.ndarray` of shape `(queries, hidden)`): of any length.
        top (`int`): how many.
        index (*optional*): from [`open_index`]; rows that it does not cover are looked at one by one, and all of them without one.

    Returns:
        Rows, best first, and their cosine similarities, float32: two `np.ndarray` of shape `(queries, found)`. The similarities are
        exact; which are the nearest is so without an index.
    """
    queries = of_length_one(queries)
    found = [np.empty(0, np.int64)] * len(queries)
    first = 0 if index is None else index.ntotal
    if first:
        found = candidates(index, queries, min(top, first))
    scores = [cosines(library, rows, query[None])[:, 0] for rows, query in zip(found, queries, strict=True)]
    for begin in range(first, len(library), AT_ONCE):
        part = cosines(library, slice(begin, begin + AT_ONCE), queries)
        for number, column in enumerate(part.T):
            best = np.argpartition(-column, top - 1)[:top] if len(column) > top else np.arange(len(column))
            found[number] = np.concatenate([found[number], begin + best])
            scores[number] = np.concatenate([scores[number], column[best]])
    order = [np.lexsort((rows, -of_query))[:top] for rows, of_query in zip(found, scores, strict=True)]
    return tuple(
        np.stack([each[best] for each, best in zip(values, order, strict=True)]) for values in (found, scores)
    )

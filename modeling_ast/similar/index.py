"""An index of a folder's vectors, with which a search looks at some thousands of them in place of all.

It is an inverted file of the library `faiss` (Jegou, Douze and Schmid 2011): k-means makes lists of vectors that lie together, and a search
reads the lists that are nearest. Vectors are float16 there, in one file that is mapped into memory, numbered by their rows. The index
covers the first rows of the folder; those that were added since are looked at one by one, so that an index that is behind costs
time and no hit. Why this library: docs/similar_sounds.md.
"""

import os
import shlex
from collections.abc import Callable

import numpy as np

from ..system.atomic_files import sync, temporary_folder
from ..system.installation import install_command
from .library import Library, LibraryError, of_length_one

INDEX = "index.faiss"
INDEX_FROM = 100_000  # vectors, which take 10 ms without one
AT_ONCE = 50_000  # vectors that are read to be added
LISTS_OF_ROOT = 2  # lists for each of the square root of the vectors: with more, k-means takes most of the time
OF_A_LIST, ROUNDS = 40, 10  # vectors a list that k-means reads, and how often
PROBES = 32  # lists that a search reads


class IndexMissingError(LibraryError):
    """What makes and reads indexes is not installed; the message says what to type."""


def build_index(library: Library, say: Callable[[str], None] = print) -> None:
    """Write the index of a folder, or add to it what is new in the folder.

    Args:
        library ([`Library`]): the folder.
        say (callable): is told what takes time.

    Raises:
        IndexMissingError: if `faiss` is not installed.
        LibraryError: if there is an index that is damaged or of other vectors.
    """
    faiss, path = _faiss(library), library.folder / INDEX
    index = _opened(library, faiss) if path.is_file() else None
    if len(library) == (0 if index is None else index.ntotal):
        return
    lists = max(min(int(LISTS_OF_ROOT * len(library) ** 0.5), len(library) // OF_A_LIST), 1)
    if index is None or 2 * index.nlist < lists:  # whose lists have grown long
        say(f"Making the index {path} of {len(library)} vectors")
        index = _trained(library, faiss, lists)
    else:
        say(f"Adding {len(library) - index.ntotal} vectors to the index {path}")
    for begin in range(index.ntotal, len(library), AT_ONCE):
        index.add(of_length_one(library.vectors[begin : begin + AT_ONCE]))
    with temporary_folder(INDEX, library.folder) as folder:
        faiss.write_index(index, os.fspath(folder / INDEX))
        sync(folder / INDEX)
        os.replace(folder / INDEX, path)


def open_index(library: Library):
    """Map the index of a folder into memory.

    Args:
        library ([`Library`]): the folder.

    Returns:
        `faiss.IndexIVF`, or `None` if there is none.

    Raises:
        IndexMissingError: if there is one, and `faiss` is not installed.
        LibraryError: if it is damaged or of other vectors.
    """
    if not (library.folder / INDEX).is_file():
        return None
    faiss = _faiss(library)
    return _opened(library, faiss, faiss.IO_FLAG_MMAP)


def candidates(index, queries: np.ndarray, top: int) -> list[np.ndarray]:
    """Find rows that are near.

    Args:
        index (`faiss.IndexIVF`): from [`open_index`].
        queries (`np.ndarray` of shape `(queries, hidden)`): float32, of length one.
        top (`int`): how many.

    Returns:
        `list[np.ndarray]`: of each query the rows, `top` unless there are fewer.
    """
    index.nprobe = PROBES + top // OF_A_LIST
    _, rows = index.search(queries, top)
    while index.nprobe < index.nlist and (short := rows[:, min(top, index.ntotal) - 1] < 0).any():
        index.nprobe = min(2 * index.nprobe, index.nlist)
        _, rows[short] = index.search(queries[short], top)
    return [of_query[of_query >= 0] for of_query in rows]


def _trained(library: Library, faiss, lists: int):
    hidden = library.description.hidden_size
    index = faiss.IndexIVFScalarQuantizer(
        faiss.IndexFlatIP(hidden), hidden, lists, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT
    )
    index.cp.niter, index.cp.max_points_per_centroid, index.cp.min_points_per_centroid = ROUNDS, OF_A_LIST, 1
    some = np.random.default_rng(0).choice(len(library), min(lists * OF_A_LIST, len(library)), replace=False)
    index.train(of_length_one(library.vectors[np.sort(some)]))
    return index


def _opened(library: Library, faiss, flags: int = 0):
    path = library.folder / INDEX
    try:
        index = faiss.read_index(os.fspath(path), flags)
        if not isinstance(index, faiss.IndexIVF) or index.d != library.description.hidden_size:
            raise ValueError
        if index.ntotal > len(library):
            raise ValueError
    except (RuntimeError, ValueError) as error:
        raise LibraryError(
            f"{path} is damaged or of other vectors. Remove it, and type: ast-embed --output {shlex.quote(str(library.folder))} --index on"
        ) from error
    return index


def _faiss(library: Library):
    try:
        import faiss
    except ImportError as error:
        raise IndexMissingError(
            f"{library.folder} has {len(library)} vectors, which are looked at one by one, as faiss cannot be imported ({error}). For "
            f"faster searches type: {install_command('search')}"
        ) from error
    return faiss

"""Files of vectors: NumPy's `.npy` with a table of its rows, and Parquet; and as text in what a run has done so far."""

from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ..system.atomic_files import open_atomically
from ..system.names_as_text import csv_row
from .embeddings import FileEmbeddings

SUFFIXES = (".npy", ".parquet")
DTYPES = ("float32", "float16")
ROWS_AT_A_TIME = 1_000  # in a row group


def index_file(path: Path) -> Path:
    """Name the table that says the file, start and end of each row of a `.npy` file of vectors.

    Args:
        path (`Path`): the `.npy` file.

    Returns:
        `Path`: beside it.
    """
    return path.with_name(f"{path.name}.csv")


def write_npy_head(file: BinaryIO, dtype: np.dtype | str, shape: tuple[int, ...]):
    """Write what a `.npy` file begins with; NumPy leaves room in it for a longer first axis, so that it can be written again.

    Args:
        file (binary file): at its beginning.
        dtype (`np.dtype` or `str`): of the array.
        shape (`tuple[int, ...]`): of the array, in C order.
    """
    head = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, head)


class EmbeddingsFile:
    """A file of vectors that is written row by row and appears when it is complete: a context.

    A `.npy` file is of shape `(rows, hidden)`, and beside it `NAME.npy.csv` has the file, start and end of each row. A
    Parquet file has columns `file`, `start`, `end` and `embedding`, a list of fixed size.

    Args:
        path (`Path`): where, with one of `SUFFIXES`.
        hidden_size (`int`): length of a vector.
        dtype (`str`, *optional*, defaults to `"float32"`): one of `DTYPES`, in which vectors are stored.
    """

    def __init__(self, path: Path, hidden_size: int, dtype: str = DTYPES[0]):
        self.path, self.hidden_size, self.rows = path, hidden_size, 0
        self._dtype = np.dtype(dtype).newbyteorder("<")
        self._held: list[tuple[str, np.ndarray, np.ndarray]] = []  # name, times and vectors, for one row group

    def __enter__(self) -> "EmbeddingsFile":
        with ExitStack() as stack:
            self._file = stack.enter_context(open_atomically(self.path))
            if self.path.suffix == ".parquet":
                import pyarrow
                from pyarrow import parquet

                vector = pyarrow.list_(pyarrow.from_numpy_dtype(self._dtype), self.hidden_size)
                columns = {"file": pyarrow.string(), "start": pyarrow.float64(), "end": pyarrow.float64()}
                self._schema = pyarrow.schema([*columns.items(), ("embedding", vector)])
                self._writer = stack.enter_context(parquet.ParquetWriter(self._file, self._schema))
            else:
                index = index_file(self.path)
                settings = {"encoding": "utf-8", "errors": "surrogateescape", "newline": "\n"}
                self._index = stack.enter_context(open_atomically(index, "w", **settings))
                self._index.write("file,start,end\n")
                self._write_head()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind, error, traceback):
        if kind is not None:
            return self._stack.__exit__(kind, error, traceback)
        with self._stack:  # which ends as after a failure where the last of it cannot be written
            if self.path.suffix == ".npy":
                self._file.seek(0)
                self._write_head()
            else:
                self._write_rows()
        return None

    def _write_head(self):
        write_npy_head(self._file, self._dtype.str, (self.rows, self.hidden_size))

    def add(self, file: str, embeddings: FileEmbeddings):
        """Write the vectors of a file.

        Args:
            file (`str`): its name.
            embeddings ([`FileEmbeddings`]): of the file.
        """
        vectors = np.ascontiguousarray(embeddings.vectors, dtype=self._dtype)
        self.rows += len(vectors)
        if self.path.suffix == ".parquet":
            self._held.append((file, embeddings.times, vectors))
            if sum(len(vectors) for _, _, vectors in self._held) >= ROWS_AT_A_TIME:
                self._write_rows()
        else:
            self._file.write(vectors.data)
            for start, end in embeddings.times:
                self._index.write(csv_row((file, f"{start:.6f}", f"{end:.6f}")) + "\n")

    def _write_rows(self):
        if not self._held:
            return
        import pyarrow

        names, times, vectors = zip(*self._held, strict=True)
        self._held = []
        names = [name.encode("utf-8", "backslashreplace").decode("utf-8") for name in names]
        rows = np.repeat(np.array(names, dtype=object), [len(of_file) for of_file in vectors])
        column = pyarrow.FixedSizeListArray.from_arrays(np.concatenate(vectors).reshape(-1), self.hidden_size)
        columns = [rows, *np.concatenate(times).T, column]
        table = pyarrow.table(dict(zip(self._schema.names, columns, strict=True)), self._schema)
        self._writer.write_table(table)


def as_text(file: str, embeddings: FileEmbeddings) -> dict:
    """Make of embeddings what JSON holds, exactly.

    Args:
        file (`str`): whose they are.
        embeddings ([`FileEmbeddings`]): of the file.

    Returns:
        Text and numbers by name, for [`writing_embeddings`].
    """
    vectors = np.ascontiguousarray(embeddings.vectors, dtype="<f4")
    return {"file": file, "times": embeddings.times.tolist(), "vectors": b64encode(vectors.tobytes()).decode("ascii")}


@contextmanager
def writing_embeddings(
    path: Path | None, hidden_size: int, dtype: str = DTYPES[0]
) -> Iterator[Callable[[dict | None], None]]:
    """Write a file of vectors, if one is wanted.

    Args:
        path (`Path`, *optional*): where, see [`EmbeddingsFile`].
        hidden_size (`int`): length of a vector.
        dtype (`str`, *optional*, defaults to `"float32"`): see [`EmbeddingsFile`].

    Yields:
        A function that writes what [`as_text`] made of a file, or does nothing with `None`.
    """
    if path is None:
        yield lambda text: None
        return
    with EmbeddingsFile(path, hidden_size, dtype) as file:

        def add(text: dict | None):
            if text is not None:
                vectors = np.frombuffer(b64decode(text["vectors"]), dtype="<f4").reshape(-1, hidden_size)
                file.add(text["file"], FileEmbeddings(vectors, np.array(text["times"])))

        yield add

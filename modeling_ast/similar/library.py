"""A folder of embedded sounds: their vectors, of which stretch of which file each is, and by which model.

    embeddings.json   what made the vectors, and how many there are: what is behind that in the other files was not finished
    vectors.npy       float32 or float16 of shape (rows, hidden), as `ast-tag --embeddings` gives them
    stretches.npy     of each row where its file's line begins in files.jsonl, start and end in seconds, and the vector's length
    files.jsonl       a line of JSON for each file: name, size, when it was changed, rows, and why it could not be embedded
    index.faiss       perhaps: see [`modeling_ast.similar.index`]

The arrays are read by mapping them into memory, and other programs open them with `np.load(..., mmap_mode="r")`. Rows are only
added. What was added counts when `embeddings.json` says so, which is written last and as a whole.
"""

import json
import os
import shlex
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import numpy as np

from ..system.atomic_files import open_atomically
from ..system.names_as_text import in_short
from ..system.regular_files import SpecialFileError, refuse_special_in
from ..system.run_lock import hold_lock
from ..tagging.embedding_files import DTYPES, write_npy_head
from ..tagging.embeddings import EMBEDDINGS, FileEmbeddings
from ..tagging.unfinished import OutputError

DESCRIPTION, VECTORS, STRETCHES, FILES = "embeddings.json", "vectors.npy", "stretches.npy", "files.jsonl"
STRETCH = np.dtype([("file", "<i8"), ("start", "<f8"), ("end", "<f8"), ("norm", "<f4")])
COMMIT_SECONDS = 5.0  # a killed run may lose these and the group of files that it was at
SHORTEST = np.finfo(np.float32).tiny  # length of a vector, by which others can be divided


class LibraryError(ValueError):
    """A folder that cannot be searched; the message says what to type instead."""


@dataclass(frozen=True)
class Description:
    """What made the vectors of a folder, and how many there are.

    `model` is how it was named, `digest` what tells it from all others; see [`model_digest`]. `embeddings` is one of `EMBEDDINGS`,
    `dtype` one of `DTYPES`; `window`, `hop`, `silence_db` and `channels` are as [`AudioTagger`] takes them. `files` counts those
    that were embedded, and `listed` is how many bytes of `files.jsonl` count.
    """

    model: str
    digest: str
    hidden_size: int
    embeddings: str = "window"
    dtype: str = "float32"
    window: float | None = None
    hop: float | None = None
    silence_db: float | None = None
    channels: str | int | None = None
    rows: int = 0
    files: int = 0
    listed: int = 0

    def differences(self, other: "Description") -> dict[str, tuple]:
        """Compare what makes vectors.

        Args:
            other ([`Description`]): of another run.

        Returns:
            This one's and the other's value of each field that is not the same.
        """
        counted = ("model", "rows", "files", "listed")
        names = [field.name for field in fields(self) if field.name not in counted]
        pairs = {name: (getattr(self, name), getattr(other, name)) for name in names}
        return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}

    @property
    def settings(self) -> dict:
        """What [`AudioTagger.tag_files`] and [`AudioTagger.tag_stream`] are given for vectors of this kind."""
        hop = {} if self.hop is None else {"timeline": True, "hop": self.hop}
        return {"embeddings": self.embeddings, "window": self.window, "silence_db": self.silence_db} | hop


def read_description(folder: Path) -> Description:
    """Read what made the vectors of a folder.

    Args:
        folder (`Path`): of `ast-embed`.

    Returns:
        [`Description`].

    Raises:
        LibraryError: if it is no such folder, or damaged.
    """
    path = Path(folder) / DESCRIPTION
    try:
        refuse_special_in(folder)
        found = json.loads(path.read_bytes())
        description = Description(**found)
    except SpecialFileError as error:
        raise LibraryError(str(error)) from None
    except OSError as error:
        raise LibraryError(
            f"{folder} holds no embedded sounds: {DESCRIPTION} in it cannot be read ({error.strerror}). Type: ast-embed FILES "
            f"--output {shlex.quote(str(folder))}"
        ) from None
    except (ValueError, TypeError, RecursionError):
        raise LibraryError(f"{path} is damaged. {_anew(folder)}") from None
    numbers = (description.hidden_size, description.rows, description.files, description.listed)
    is_right = (
        all(isinstance(number, int) and 0 <= number < 1 << 50 for number in numbers)
        and 0 < description.hidden_size < 1 << 20
        and description.embeddings in EMBEDDINGS
        and description.dtype in DTYPES
        and isinstance(description.model, str)
    )
    if not is_right:
        raise LibraryError(f"{path} is damaged. {_anew(folder)}")
    return description


class Library:
    """The embedded sounds of a folder, mapped into memory.

    Args:
        folder (`str` or `os.PathLike`): of `ast-embed`.

    Attributes:
        description ([`Description`]): what made them.
        vectors (`np.ndarray` of shape `(rows, hidden)`): float32 or float16.
        stretches (`np.ndarray` of shape `(rows,)`): see `STRETCH`.

    Raises:
        LibraryError: if it is no such folder, or damaged.
    """

    def __init__(self, folder: str | os.PathLike):
        self.folder = Path(folder)
        self.description = read_description(self.folder)
        rows, hidden = self.description.rows, self.description.hidden_size
        self.vectors = _mapped(self.folder / VECTORS, np.dtype(self.description.dtype), (rows, hidden))
        self.stretches = _mapped(self.folder / STRETCHES, STRETCH, (rows,))

    def __len__(self) -> int:
        return self.description.rows

    def places(self, rows: Iterable[int]) -> list[tuple[str, float, float]]:
        """Tell what vectors are of.

        Args:
            rows (iterable of `int`): which.

        Returns:
            File, start and end in seconds of each.

        Raises:
            LibraryError: if the folder is damaged.
        """
        found, before, name = [], None, ""
        try:
            with open(self.folder / FILES, "rb") as files:
                for row in rows:
                    line, start, end, _ = self.stretches[row].tolist()
                    if line != before:  # stretches of a file are neighbours
                        files.seek(line)
                        before, name = line, _row_of(files.readline())["file"]
                    found.append((name, start, end))
        except (OSError, ValueError):
            raise LibraryError(f"{self.folder / FILES} is damaged. {_anew(self.folder)}") from None
        return found


class LibraryWriter:
    """A folder to which embedded files are added: a context, which holds the folder's lock.

    Args:
        folder (`Path`): a new or empty one, or one that such a run left.
        description ([`Description`]): what makes the vectors; without counts.

    Attributes:
        description ([`Description`]): with what counts so far.

    Raises:
        OutputError: if there is something else in the folder, or it is of another model or other settings.
        LibraryError: if it is damaged.
        LockedError: if another run writes there.
    """

    def __init__(self, folder: Path, description: Description):
        self.folder, self.description = Path(folder), description

    def __enter__(self) -> "LibraryWriter":
        if self.folder.exists() and not self.folder.is_dir():
            raise OutputError(f"--output {self.folder} is a file. Pass the name of a folder.")
        self.folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            stack.enter_context(hold_lock(self.folder, "ast-embed", inside=True))
            self._take_up()
            self._files = {}
            for name, end in self._ends().items():
                file = self._files[name] = stack.enter_context(open(self.folder / name, "r+b"))
                file.truncate(end)
                file.seek(end)
            self._committed = time.monotonic()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind, error, traceback):
        with self._stack:
            self.commit()

    def _take_up(self):
        if (self.folder / DESCRIPTION).exists():
            found = read_description(self.folder)
            differences = found.differences(self.description)
            if differences:
                raise OutputError(_in_words(self.folder, found, self.description, differences))
            self.description = found
        else:
            foreign = [name for name in sorted(os.listdir(self.folder)) if not name.startswith(".")]
            if foreign:
                raise OutputError(
                    f"--output {self.folder} holds {in_short(foreign)} and no embedded sounds. Pass a new folder."
                )
            self._write_description()
        if self.description.listed:
            Library(self.folder)  # which is refused if something of it is missing
            path = self.folder / FILES
            if not path.is_file() or path.stat().st_size < self.description.listed:
                raise LibraryError(f"{path} is damaged. {_anew(self.folder)}")
            return
        (self.folder / FILES).write_bytes(b"")
        for name, dtype, shape in self._arrays():
            with open(self.folder / name, "wb") as file:
                write_npy_head(file, dtype, shape)

    def _arrays(self) -> Iterator[tuple[str, np.dtype, tuple[int, ...]]]:
        rows = self.description.rows
        yield VECTORS, np.dtype(self.description.dtype), (rows, self.description.hidden_size)
        yield STRETCHES, STRETCH, (rows,)

    def _ends(self) -> dict[str, int]:
        """Where what counts ends in each file."""
        ends = {FILES: self.description.listed}
        for name, dtype, shape in self._arrays():
            ends[name] = _begin_of(self.folder / name) + int(np.prod(shape)) * dtype.itemsize
        return ends

    def listed(self, names: Iterable[str]) -> dict[str, dict]:
        """Look up files.

        Args:
            names (iterable of `str`): as they were added.

        Returns:
            Of those that were added before the last line of each.

        Raises:
            LibraryError: if the folder is damaged.
        """
        wanted, found, path = set(names), {}, self.folder / FILES
        try:
            with open(path, "rb") as file:
                while file.tell() < self.description.listed:
                    row = _row_of(file.readline())
                    if row["file"] in wanted:
                        found[row["file"]] = row
        except (OSError, ValueError):
            raise LibraryError(f"{path} is damaged. {_anew(self.folder)}") from None
        return found

    def add(self, state: list, embeddings: FileEmbeddings | None, error: str | None = None):
        """Add a file.

        Args:
            state (`list`): its name, size and time, from [`states_of`], from before it was read.
            embeddings ([`FileEmbeddings`], *optional*): its vectors, if it has any: a silent file has none.
            error (`str`, *optional*): why it could not be embedded.
        """
        rows = 0 if embeddings is None else len(embeddings.vectors)
        name, size, changed = state
        line = {"file": name, "size": size, "changed": changed, "rows": rows} | ({"error": error} if error else {})
        place = self._files[FILES].tell()
        self._files[FILES].write(json.dumps(line).encode("ascii") + b"\n")
        if rows:
            vectors = np.ascontiguousarray(embeddings.vectors, dtype=self.description.dtype)
            stretches = np.empty(rows, STRETCH)
            stretches["file"] = place
            stretches["start"], stretches["end"] = embeddings.times.T
            stretches["norm"] = np.maximum(np.linalg.norm(vectors.astype(np.float32), axis=1), SHORTEST)
            self._files[VECTORS].write(vectors.data)
            self._files[STRETCHES].write(stretches.data)
        self.description = replace(
            self.description,
            rows=self.description.rows + rows,
            files=self.description.files + (not error),
            listed=self._files[FILES].tell(),
        )

    def commit(self, due: float = 0.0):
        """Have all that was added count, also after a power cut.

        Args:
            due (`float`, defaults to 0): seconds since the last time, before which nothing is done.
        """
        if time.monotonic() - self._committed < due:
            return
        for name, dtype, shape in self._arrays():
            end = self._files[name].tell()
            self._files[name].seek(0)
            write_npy_head(self._files[name], dtype, shape)
            self._files[name].seek(end)
        for file in self._files.values():
            file.flush()
            os.fsync(file.fileno())
        self._write_description()
        self._committed = time.monotonic()

    def _write_description(self):
        with open_atomically(self.folder / DESCRIPTION, "w", encoding="utf-8") as file:
            json.dump(asdict(self.description), file, indent=1)
            file.write("\n")


def of_length_one(vectors: np.ndarray) -> np.ndarray:
    """Divide vectors by their lengths.

    Args:
        vectors (`np.ndarray` of shape `(..., hidden)`): of any length.

    Returns:
        `np.ndarray` of the same shape, float32; of zeros if they are.
    """
    vectors = np.asarray(vectors, np.float32)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), SHORTEST)


def _row_of(line: bytes) -> dict:
    """A line of `files.jsonl`; a `ValueError` if it is none."""
    try:
        row = json.loads(line)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    kinds = {"file": str, "size": int, "changed": int}
    if not isinstance(row, dict) or not all(isinstance(row.get(name), kind) for name, kind in kinds.items()):
        raise ValueError("no row of a file")
    return row


def _mapped(path: Path, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    """A `.npy` file up to a row; what is behind that does not count."""
    with suppress(OSError, ValueError):
        begin = _begin_of(path)
        if begin and os.stat(path).st_size >= begin + int(np.prod(shape)) * dtype.itemsize:
            return np.memmap(path, dtype, "r", begin, shape) if shape[0] else np.empty(shape, dtype)
    raise LibraryError(f"{path} is damaged. {_anew(path.parent)}")


def _begin_of(path: Path) -> int:
    """Where the array begins in a `.npy` file."""
    with open(path, "rb") as file:
        np.lib.format.read_magic(file)
        np.lib.format.read_array_header_1_0(file)
        return file.tell()


def _anew(folder: Path) -> str:
    return f"Embed the files anew: ast-embed FILES --output, with another folder than {folder}."


def _in_words(folder: Path, found: Description, wanted: Description, differences: dict[str, tuple]) -> str:
    """What to type where a folder is not of this run's model or settings."""
    if "digest" in differences and found.model == wanted.model:
        return (
            f"{folder} holds vectors of {found.model} as it was then: its files, or this kit's version, were changed since. Put the earlier "
            "ones back, or pass another --output."
        )
    if "digest" in differences:
        return (
            f"{folder} holds vectors of another model than {wanted.model}: of {found.model} as it was then. Pass --model_name_or_path "
            f"{shlex.quote(found.model)}, or another --output."
        )
    given = ", ".join(f"--{name} {_shown(value)}" for name, (_, value) in differences.items())
    kept = ", ".join(f"--{name} {_shown(value)}" for name, (value, _) in differences.items())
    return f"{folder} holds vectors made with {kept}, not {given}. Pass what it was made with, or another --output."


def _shown(value) -> str:
    return "(not given)" if value is None else str(value)

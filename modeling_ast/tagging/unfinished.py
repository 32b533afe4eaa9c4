"""What a run of `ast-tag` has done so far, in a file beside its `--output`, with which the same command goes on.

The file has a line of JSON for the run, its model and arguments, and then one for each group of files that were scored
together, with what is written of them. A group counts again only as a whole, with all its files as they were: scores depend
in their last digits on what else was in the batch, and so the output is, byte for byte, that of a run without interruption.
"""

import hashlib
import json
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

SUFFIX = ".unfinished"
LONGEST_NAME = 255  # bytes, on all common file systems
SYNC_SECONDS = 5.0  # what a power cut may lose
_RUN = "unfinished run of ast-tag"  # the key of the first line
_MARK = f'{{"{_RUN}": '.encode()


class OutputError(ValueError):
    """An `--output` that cannot be written to; the message says what to pass instead."""


@dataclass(frozen=True)
class Outcome:
    """What is written of a file, what is said of it on the error stream, and whether it could not be tagged; its name and
    vectors, if there are any, as text; why it could not be tagged, as it is said."""

    lines: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    failed: bool = False
    embeddings: dict | None = None
    error: str | None = None


class UnfinishedTags:
    """The file of an unfinished run, open: a context that removes it if it is of no more use.

    Whoever opens it holds the output's lock, see [`modeling_ast.system.run_lock`].

    Args:
        path (`Path`): the file, from [`unfinished_path`].

    Raises:
        OutputError: if it is some other file.
        OSError: if it cannot be written.
    """

    def __init__(self, path: Path):
        self.path = path
        self.is_complete = False
        self._groups: dict[str, int] = {}  # by their files, where their lines begin
        self._file = None

    def __enter__(self) -> "UnfinishedTags":
        if os.path.lexists(self.path) and not self.path.is_file():
            raise self._another()
        self._file = open(self.path, "a+b")
        try:
            self._read()
        except BaseException:
            self._file.close()
            raise
        return self

    def __exit__(self, kind, error, traceback):
        if self.is_complete or not self._groups:
            with suppress(OSError):
                self.path.unlink()
        with suppress(OSError):  # the disk is full, which was said before
            self._file.close()

    def _read(self):
        self._file.seek(0)
        line = self._file.readline()
        if not line.startswith(_MARK[: len(line)]):
            raise self._another()
        first = _whole_row(line)
        self._run_before = first and first[_RUN]
        self._end = len(line) if first else 0
        while first and (row := _whole_row(line := self._file.readline())):
            self._groups[_key(row["files"])] = self._end
            self._end += len(line)

    def _another(self) -> OutputError:
        return OutputError(f"{self.path} is no unfinished run of ast-tag. Move it away, or pass another --output.")

    def begin(self, run: dict) -> list[str]:
        """Keep what an interrupted run did, if it was the same one, and cut off what it did not finish writing.

        Args:
            run (`dict`): what results depend on besides the files, by name; texts and numbers.

        Returns:
            `list[str]`: the names of what was different in an interrupted run, whose results are dropped.
        """
        if self._run_before != run:
            self._groups, self._end = {}, 0
        self._file.truncate(self._end)
        if not self._groups:
            self._file.truncate(0)
            self._append({_RUN: run})
        self._synced = time.monotonic()
        return [name for name in run if self._run_before.get(name) != run[name]] if self._run_before else []

    def outcomes(self, states: list) -> list[Outcome] | None:
        """Read what was found in a group of files, by an interrupted run or this one, if they are as they were then.

        Args:
            states (`list`): from [`states_of`].

        Returns:
            An [`Outcome`] for each file; `None` if the group has to be tagged.
        """
        start = self._groups.get(_key(states))
        if start is None:
            return None
        self._file.seek(start)
        return [Outcome(**outcome) for outcome in json.loads(self._file.readline())["outcomes"]]

    def add(self, states: list, outcomes: Sequence[Outcome]):
        """Write down what was found in a group of files.

        Args:
            states (`list`): from [`states_of`], before they were read.
            outcomes (sequence of [`Outcome`]): one for each.
        """
        start = self._append({"files": states, "outcomes": [asdict(outcome) for outcome in outcomes]})
        self._groups[_key(states)] = start
        if time.monotonic() - self._synced > SYNC_SECONDS:
            os.fsync(self._file.fileno())
            self._synced = time.monotonic()

    def _append(self, row: dict) -> int:
        start = self._file.seek(0, os.SEEK_END)
        self._file.write(json.dumps(row).encode("ascii") + b"\n")
        self._file.flush()
        return start


def unfinished_path(output: Path) -> Path:
    """Name the file of an output's unfinished run: beside the file, or in the folder of label files.

    Args:
        output (`Path`): a file that need not be there, or a folder.

    Returns:
        `Path`, with a name that is none too long for a disk.
    """
    if output.is_dir():
        return output / f"ast-tag{SUFFIX}"
    name = os.fsencode(output.name)
    if LONGEST_NAME - len(SUFFIX) < len(name) <= LONGEST_NAME:  # longer ones cannot be written in any case
        digest = hashlib.sha256(name).hexdigest()[:8]
        name = name[: LONGEST_NAME - len(SUFFIX) - 9].decode("utf-8", "ignore").encode() + f"-{digest}".encode()
    return output.with_name(os.fsdecode(name) + SUFFIX)


def states_of(files: Sequence[Path]) -> list:
    """Look at files, so that a change of them is noticed.

    Args:
        files (sequence of `Path`): audio files.

    Returns:
        Of each file its name, its size in bytes and when it was changed, in nanoseconds; two times 0 if it is gone.
    """
    states = []
    for file in files:
        try:
            state = os.stat(file)
            states.append([str(file), state.st_size, state.st_mtime_ns])
        except OSError:
            states.append([str(file), 0, 0])
    return states


# What `to_dict` says of where settings came from, and of the library that reads them, which is no setting.
_NO_SETTINGS = ("_name_or_path", "transformers_version")


def model_digest(tagger) -> str:
    """What tells models and their feature extractors from all others: a digest of all weights and settings.

    Args:
        tagger ([`AudioTagger`]): which holds them.

    Returns:
        `str`: 64 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for member in tagger.members:
        for settings in (member.config, member.feature_extractor):
            fields = {name: value for name, value in settings.to_dict().items() if name not in _NO_SETTINGS}
            digest.update(json.dumps(fields, sort_keys=True, default=str).encode())
        for name, content in member.backend.contents():
            digest.update(name.encode())
            digest.update(content)
        if member.known_clips is not None:
            digest.update(member.known_clips.vectors.data)
            digest.update(repr((member.known_clips.neighbours, member.known_clips.threshold)).encode())
    return digest.hexdigest()


def _key(states: list) -> str:
    return json.dumps(states)


def _whole_row(line: bytes) -> dict | None:
    """A line that was written to its end, also to a disk that lost its power."""
    if not line.endswith(b"\n"):
        return None
    try:
        return json.loads(line)
    except ValueError:
        return None

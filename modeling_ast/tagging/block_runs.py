"""A run of `ast-tag` in blocks of list rows: its folder, who writes which block when, and what is made of all of them.

A block counts when its last part is there, and parts appear when they are complete. What a block holds depends on nothing but its
rows and the run's settings, so that whoever was killed is followed by whoever comes next, another process or one of another
machine that sees the folder, and two who tag one block write the same bytes.
"""

import json
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from ..system.atomic_files import open_atomically
from ..system.run_lock import LockedError, hold_lock
from .block_lists import BlockList, digest_list, write_list
from .parquet_tables import join_parquet
from .progress import bar
from .unfinished import OutputError
from .written_lines import write_lines

RUN, LIST = "run.json", "files.jsonl"
TAGS, EMBEDDINGS, FAILED, NOTES = "tags", "embeddings", "failed", "notes"
LOOK_AGAIN = 60.0  # seconds between two lines of progress where there is no terminal
_RUN_KEY = "run of ast-tag in blocks"


def _typed(command: Sequence[str]) -> str:
    return shlex.join(("ast-tag", *command))


@dataclass(frozen=True)
class BlockFolder:
    """The folder of a run in blocks.

    Args:
        path (`Path`): the folder.
        suffix (`str`): of files of tags.
        has_header (`bool`): whether these begin with a line that is none of the tags.
        has_embeddings (`bool`): whether blocks have vectors, too.
    """

    path: Path
    suffix: str
    has_header: bool = False
    has_embeddings: bool = False

    @property
    def kinds(self) -> dict[str, str]:
        """Suffixes of the parts of a block by their kinds, in the order in which they are written: the tags make it count."""
        own = {EMBEDDINGS: ".parquet"} if self.has_embeddings else {}
        return {**own, NOTES: ".jsonl", FAILED: ".jsonl", TAGS: self.suffix}

    def part(self, kind: str, block: int) -> Path:
        """Name a part of a block.

        Args:
            kind (`str`): `TAGS`, `EMBEDDINGS`, `FAILED` or `NOTES`.
            block (`int`): its number.

        Returns:
            `Path`.
        """
        return self.path / kind / f"block-{block:06}{self.kinds[kind]}"

    def merged(self, kind: str) -> Path:
        """Name the file that all parts of a kind are put together in.

        Args:
            kind (`str`): `TAGS`, `FAILED` or `NOTES`.

        Returns:
            `Path`.
        """
        return self.path / f"{kind}{self.kinds[kind]}"

    def is_done(self, block: int) -> bool:
        """Tell whether a block counts.

        Args:
            block (`int`): its number.

        Returns:
            `bool`.
        """
        return self.part(TAGS, block).is_file()

    def missing(self, blocks: int) -> list[int]:
        """List the blocks that are not there.

        Args:
            blocks (`int`): how many there are.

        Returns:
            `list[int]`: their numbers.
        """
        there = {path.name for path in (self.path / TAGS).iterdir()}
        return [block for block in range(blocks) if self.part(TAGS, block).name not in there]

    def begin(
        self, run: dict, rows: Callable[[], Iterable[str]], block_size: int, command: Sequence[str]
    ) -> BlockList:
        """Make the folder, or make sure that it is one of this very run.

        Args:
            run (`dict`): what results depend on besides the list, by name; texts and numbers.
            rows (callable): gives the names of files.
            block_size (`int`): rows of a block.
            command (sequence of `str`): what was typed, behind `ast-tag`.

        Returns:
            [`BlockList`] of the rows.

        Raises:
            OutputError: if the folder is of another run, or of none; the message says what to type.
            AudioError: see [`rows_of`].
        """
        if self.path.exists() and not self.path.is_dir():
            raise OutputError(f"--blocks {self.path} is no folder. Pass the name of one.")
        self.path.mkdir(parents=True, exist_ok=True)
        while True:
            try:
                with hold_lock(self.path / RUN, "ast-tag"):
                    self._begin(run | {"--block_size": block_size}, rows, command)
                return BlockList(self.path / LIST, block_size)
            except LockedError:
                time.sleep(0.1)  # another process of this run lists the files

    def _begin(self, run: dict, rows: Callable[[], Iterable[str]], command: Sequence[str]):
        stated = self._stated()
        if stated is None:
            others = [path.name for path in self.path.iterdir()]
            # A run that was killed before it had begun may have left these.
            others = [
                name
                for name in others
                if name not in (LIST, TAGS, EMBEDDINGS, FAILED, NOTES) and not name.startswith(".")
            ]
            if others:
                raise OutputError(
                    f"--blocks {self.path} holds {others[0]} and is no folder of a run in blocks. Pass the name of a new one."
                )
            for kind in self.kinds:
                (self.path / kind).mkdir(exist_ok=True)
            digest = write_list(rows(), self.path / LIST)
        else:
            digest = digest_list(rows())
        run = run | {"number of files": digest.number, "list of files": digest.digest}
        run |= {"working directory": str(Path.cwd())} if digest.has_relative else {}
        if stated is None:
            words = {_RUN_KEY: run, "command": _typed(command), "typed in": str(Path.cwd())}
            write_lines([json.dumps(words, indent=1)], self.path / RUN)
        elif stated[_RUN_KEY] != run:
            before = stated[_RUN_KEY]
            changed = [name for name in {**before, **run} if before.get(name) != run.get(name)]
            raise OutputError(
                f"--blocks {self.path} holds a run with another {', '.join(changed)}. {self._way_back(stated, changed, command)} "
                "For this one, pass a new folder as --blocks, or remove that one first."
            )

    def _way_back(self, stated: dict, changed: Sequence[str], command: Sequence[str]) -> str:
        """How to go on with the run that is there, whose command may be the one that was typed now."""
        folder = stated.get("typed in", str(Path.cwd()))
        there = "" if folder == str(Path.cwd()) else f"cd {shlex.quote(folder)} && "
        is_elsewhere = bool(there) and "working directory" in changed  # where the same words mean other files
        if is_elsewhere or stated["command"] != _typed(command):
            return f"To go on with that one, type: {there}{stated['command']}."
        its_list = f" Its files are listed in {self.path / LIST}." if "list of files" in changed else ""
        return f"It was begun by this very command: to go on with it, put back what was changed since.{its_list}"

    def _stated(self) -> dict | None:
        try:
            stated = json.loads((self.path / RUN).read_text(encoding="utf-8"))
            return stated if isinstance(stated[_RUN_KEY], dict) and isinstance(stated["command"], str) else None
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError):
            raise OutputError(
                f"--blocks {self.path}: its {RUN} is none that ast-tag wrote. Pass the name of a new folder."
            ) from None

    def merge(self, blocks: int) -> bool:
        """Put the parts of all blocks together, once: by whoever is first.

        Args:
            blocks (`int`): how many there are, all of which are there.

        Returns:
            Whether that is done; if not, another process is at it.

        Raises:
            OSError: if something cannot be written.
        """
        try:
            with hold_lock(self.merged(TAGS), "ast-tag"):
                for kind in (NOTES, FAILED, TAGS):
                    if self.merged(kind).exists():
                        continue
                    parts = [self.part(kind, block) for block in range(blocks)]
                    if self.kinds[kind] == ".parquet":
                        join_parquet(parts, self.merged(kind))
                    else:
                        _join(parts, self.merged(kind), kind == TAGS and self.has_header)
        except LockedError:
            return False
        return True

    def number_failed(self) -> int:
        """Count the files that could not be tagged, once they are merged.

        Returns:
            `int`.
        """
        with open(self.merged(FAILED), "rb") as file:
            return sum(1 for _ in file)


def _join(parts: Iterable[Path], destination: Path, has_header: bool):
    with open_atomically(destination) as whole:
        for number, path in enumerate(parts):
            with open(path, "rb") as part:
                if has_header and number:
                    part.readline()
                shutil.copyfileobj(part, whole)


def blocks_in_turn(blocks: int, rank: int = 0, world: int = 1) -> Iterator[int]:
    """Give the order in which a process looks for blocks that are missing: its own ones, then those of others from the end on.

    Args:
        blocks (`int`): how many there are.
        rank (`int`): number of the process, from 0 on.
        world (`int`): how many there are.

    Yields:
        Each block once.
    """
    yield from range(rank, blocks, world)
    yield from (block for block in reversed(range(blocks)) if block % world != rank)


def tag_missing(
    folder: BlockFolder, blocks: int, tag_block: Callable[[int], None], rank: int = 0, world: int = 1
) -> None:
    """Tag the blocks that are missing and that nobody else is at.

    Args:
        folder ([`BlockFolder`]): of the run.
        blocks (`int`): how many there are.
        tag_block (callable): writes the parts of a block, the tags last.
        rank (`int`): see [`blocks_in_turn`].
        world (`int`): see [`blocks_in_turn`].

    Raises:
        OSError: if something cannot be written.
    """
    for block in blocks_in_turn(blocks, rank, world):
        if folder.is_done(block):
            continue
        try:
            with hold_lock(folder.part(TAGS, block), "ast-tag"):
                if not folder.is_done(block):
                    tag_block(block)
        except LockedError:
            continue


class BlockProgress:
    """Files that are done, files a second and time left: a bar on a terminal, else a line a minute; a context.

    Args:
        folder ([`BlockFolder`]): whose blocks count, whoever tagged them.
        listed ([`BlockList`]): its rows.
        is_shown (`bool`): whether anything is shown.
    """

    def __init__(self, folder: BlockFolder, listed: BlockList, is_shown: bool = True):
        self.folder, self.listed, self.is_shown = folder, listed, is_shown
        self._began = self._said = time.monotonic()
        self._done = self._before = self._of_blocks()
        self._own = 0
        hidden = not (is_shown and sys.stderr.isatty())
        self._bar = bar(listed.number, self._before, unit="file", disable=hidden, smoothing=0)

    def __enter__(self) -> "BlockProgress":
        return self

    def __exit__(self, kind, error, traceback):
        self._bar.close()

    def _of_blocks(self) -> int:
        missing = self.folder.missing(len(self.listed))
        is_last = bool(missing) and missing[-1] == len(self.listed) - 1
        short = len(self.listed) * self.listed.block_size - self.listed.number  # rows that the last block lacks
        return self.listed.number - len(missing) * self.listed.block_size + short * is_last

    def file(self):
        """Tell that a file of the block at hand is tagged."""
        self._own += 1
        self._show()

    def block(self):
        """Tell that a block is done."""
        self._own, self._done = 0, self._of_blocks()
        self._show()

    def words(self) -> str:
        """Say how many files are done, how fast, and how long the rest will take.

        Returns:
            `str`: such as `"12000 of 1000000 files, 210.4 files a second, 1:18:15 left"`.
        """
        done = self._done + self._own
        rate = (done - self._before) / max(time.monotonic() - self._began, 1e-9)
        left = timedelta(seconds=round((self.listed.number - done) / rate)) if rate else "?"
        return f"{done} of {self.listed.number} files, {rate:.1f} files a second, {left} left"

    def _show(self):
        self._bar.update(self._done + self._own - self._bar.n)
        if self.is_shown and self._bar.disable and time.monotonic() - self._said > LOOK_AGAIN:
            self._said = time.monotonic()
            print(f"ast-tag: {self.words()}", file=sys.stderr, flush=True)

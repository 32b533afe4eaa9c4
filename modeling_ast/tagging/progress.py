"""How far a tagging has come, on a terminal: share of the bytes, seconds of audio per second, time left."""

import time
from collections.abc import Sequence
from pathlib import Path


class _NoBar:
    """What stands in place of a bar where tqdm is not installed, as without PyTorch: nothing is shown."""

    disable = True

    def __init__(self, total: int, initial: int):
        self.total, self.n = total, initial

    def refresh(self):
        """Show nothing."""

    def update(self, number: int):
        """Show nothing.

        Args:
            number (`int`): by which it has gone on.
        """

    def close(self):
        """Close nothing."""


def bar(total: int, initial: int, **settings):
    """Make a bar of tqdm, or what stands in its place.

    Args:
        total (`int`): at which it ends.
        initial (`int`): at which it begins.
        settings: of `tqdm`.

    Returns:
        `tqdm`, or something of which nothing is seen.
    """
    try:
        from tqdm import tqdm
    except ImportError:
        return _NoBar(total, initial)
    return tqdm(total=total, initial=initial, **settings)


class TaggingProgress:
    """A bar on the error stream, if that is a terminal; a context.

    Args:
        files (sequence of `Path`): what is tagged.
        sizes (sequence of `int`): bytes of each.
        done (`int`, defaults to 0): how many of the files an earlier run has tagged.
        done_bytes (`int`, defaults to 0): their bytes.
        hidden (`bool`, defaults to `False`): whether nothing is shown on a terminal either.
    """

    def __init__(
        self,
        files: Sequence[Path],
        sizes: Sequence[int],
        done: int = 0,
        done_bytes: int = 0,
        hidden: bool = False,
    ):
        self.sizes = dict(zip(map(str, files), sizes, strict=True))
        self.number, self.done, self.seconds = len(files), done, 0.0
        self._file, self._heard, self._finished_bytes = None, 0.0, done_bytes
        self._began = time.perf_counter()
        self._bar = bar(
            total=max(sum(sizes), 1),
            initial=done_bytes,
            disable=hidden or None,  # None shows a bar only on a terminal
            bar_format="{percentage:3.0f}%|{bar}| {postfix} [{elapsed}, {remaining} left]",
        )

    def __enter__(self) -> "TaggingProgress":
        return self

    def __exit__(self, kind, error, traceback):
        self._bar.close()

    def heard(self, file: str, seconds: float, announced: float | None):
        """Tell how much of a file was heard; see [`AudioTagger.tag_files`].

        Args:
            file (`str`): which one.
            seconds (`float`): of it, so far.
            announced (`float`, *optional*): how many it should last.
        """
        if file != self._file:
            self._finish_file()
            self._file = file
        self.seconds += max(seconds - self._heard, 0.0)
        self._heard = seconds
        share = min(seconds / announced, 1.0) if announced else 0.0
        self._show(self._finished_bytes + share * self.sizes.get(file, 0))

    def tagged(self, number: int):
        """Tell that results of files were given.

        Args:
            number (`int`): how many more.
        """
        self.done += number
        is_all = self.done == self.number
        self._show(self._bar.total if is_all else self._bar.n)
        if is_all:
            self._bar.refresh()

    def words(self) -> str:
        """Say how many files are done, and how fast.

        Returns:
            `str`: such as `"12 of 200 files, 350 s of audio a second"`.
        """
        rate = self.seconds / max(time.perf_counter() - self._began, 1e-9)
        return f"{self.done} of {self.number} files, {rate:.0f} s of audio a second"

    def _finish_file(self):
        if self._file is not None:
            self._finished_bytes += self.sizes.get(self._file, 0)
        self._heard = 0.0

    def _show(self, place: float):
        if self._bar.disable:
            return
        self._bar.set_postfix_str(self.words(), refresh=False)
        self._bar.update(min(max(place, self._bar.n), self._bar.total) - self._bar.n)

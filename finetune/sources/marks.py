"""A marked stretch of a recording, and which label counts in a window that is cut there.

One notion for all formats: a beginning, an end, a label, and perhaps frequencies, as Audacity's label tracks, Raven's selection
tables and plain tables have them.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from ..arguments.data_arguments import OVERLAP
from .data_errors import DataError


@dataclass(frozen=True)
class Mark:
    """A marked stretch.

    Args:
        start (`float`): in seconds of its recording.
        end (`float`): likewise; where it equals the start, a place is marked.
        label (`str`): what is heard there.
        low_hz (`float`, *optional*): lowest frequency, if the mark has one.
        high_hz (`float`, *optional*): highest one.
        place (`str`): where it was read, for messages.
    """

    start: float
    end: float
    label: str
    low_hz: float | None = None
    high_hz: float | None = None
    place: str = field(default="", compare=False)


@dataclass(frozen=True)
class Overlap:
    """How much of a stretch has to be in a window for its label to count there.

    Of what is longer than the window, or than the seconds that are asked for, as much as there can be.

    Args:
        share (`float`, *optional*): of the stretch, above 0 and up to 1.
        seconds (`float`, *optional*): in place of a share.
    """

    share: float | None = 0.5
    seconds: float | None = None

    def needed(self, lengths: np.ndarray, window: float) -> np.ndarray:
        """Tell how much of stretches has to be in a window.

        Args:
            lengths (`np.ndarray` of shape `(stretches,)`): seconds.
            window (`float`): seconds of the window.

        Returns:
            `np.ndarray` of shape `(stretches,)`: seconds.
        """
        most = np.minimum(lengths, window)
        return np.minimum(most, self.seconds) if self.share is None else self.share * most

    def counts(self, starts: np.ndarray, ends: np.ndarray, start: float, end: float) -> np.ndarray:
        """Tell which stretches count in a window.

        Args:
            starts (`np.ndarray` of shape `(stretches,)`): seconds.
            ends (`np.ndarray` of shape `(stretches,)`): seconds.
            start (`float`): of the window.
            end (`float`): of it.

        Returns:
            `np.ndarray` of shape `(stretches,)`, bool.
        """
        inside = np.minimum(ends, end) - np.maximum(starts, start)
        # A place without a length counts where it is in the window; a billionth of a second is rounding.
        return (
            (inside >= self.needed(ends - starts, end - start) - 1e-9)
            & (inside >= 0)
            & touching(starts, ends, start, end)
        )


def touching(starts: np.ndarray, ends: np.ndarray, start: float, end: float) -> np.ndarray:
    """Tell which stretches a window holds anything of.

    Args:
        starts (`np.ndarray` of shape `(stretches,)`): seconds.
        ends (`np.ndarray` of shape `(stretches,)`): seconds.
        start (`float`): of the window.
        end (`float`): of it.

    Returns:
        `np.ndarray` of shape `(stretches,)`, bool.
    """
    return (starts < end) & ((ends > start) | ((ends == starts) & (starts >= start)))


def parse_overlap(text: str) -> Overlap:
    """Read what `--mark_overlap` says.

    Args:
        text (`str`): a share such as `"0.5"`, or seconds such as `"0.2s"`, as `DataArguments` lets it pass.

    Returns:
        [`Overlap`].
    """
    match = OVERLAP.fullmatch(text.strip())
    return Overlap(None, float(match[1])) if match[2] else Overlap(float(match[1]))


def joined_marks(marks: Iterable[Mark]) -> tuple[list[Mark], int]:
    """Join stretches of one label that overlap: they are one sound that was marked twice, or goes on.

    Args:
        marks (iterable of [`Mark`]): of one recording.

    Returns:
        The stretches in the order of time, and how many of them went into others.
    """
    joined: list[Mark] = []
    last: dict[str, int] = {}
    absorbed = 0
    for mark in sorted(marks, key=lambda mark: (mark.start, mark.end)):
        before = last.get(mark.label)
        if before is not None and mark.start < joined[before].end:
            first = joined[before]
            lows, highs = [first.low_hz, mark.low_hz], [first.high_hz, mark.high_hz]
            joined[before] = Mark(
                first.start,
                max(first.end, mark.end),
                mark.label,
                None if None in lows else min(lows),
                None if None in highs else max(highs),
                first.place,
            )
            absorbed += 1
            continue
        last[mark.label] = len(joined)
        joined.append(mark)
    return joined, absorbed


def refuse_wrong_marks(marks: Iterable[Mark], seconds: float, name: str, tolerance: float = 0.05) -> list[Mark]:
    """Refuse stretches that cannot be in a recording; what ends a little behind it, as rounded, ends with it.

    Args:
        marks (iterable of [`Mark`]): of the recording.
        seconds (`float`): how long it lasts.
        name (`str`): what messages call it.
        tolerance (`float`, defaults to 0.05): seconds that a stretch may reach beyond the end.

    Returns:
        The stretches within the recording.

    Raises:
        DataError: for the first stretch that ends before it begins, begins before the recording, or lies past its end.
    """
    found = []
    for mark in marks:
        where = f"{mark.place}: {mark.label!r} is marked from {mark.start:g} to {mark.end:g} s"
        if not np.isfinite([mark.start, mark.end]).all() or mark.end < mark.start:
            raise DataError(f"{where}, and ends before it begins. Correct the times there, or remove the line.")
        if mark.start < 0:
            raise DataError(
                f"{where}, and begins before the recording does. Correct the times there, or remove the line."
            )
        if mark.end > seconds + tolerance or mark.start > seconds:
            raise DataError(
                f"{where}, but {name} lasts {seconds:.2f} s. Correct the times there (seconds from the beginning of this file), remove "
                "the line, or put the whole recording in the file's place."
            )
        found.append(Mark(mark.start, min(mark.end, seconds), mark.label, mark.low_hz, mark.high_hz, mark.place))
    return found

"""The scores of a recording along time, of which events can be made by any rules without scoring it again."""

from dataclasses import dataclass

import numpy as np

from ..frame_columns import FrameColumns
from .events import EventRules, events_of_means
from .frames import Places, smoothed
from .segments import Stretch, of_label


@dataclass(frozen=True)
class ScoreTrack:
    """Scores along time, as the time line of `ast-tag` is made of.

    Args:
        name (`str`): of the recording.
        num_samples (`int`): how long it is.
        sampling_rate (`int`): in Hz.
        places (list): of each run of places with scores their edges, `np.ndarray` of shape `(places + 1,)` in samples, and the
            scores, float32 of shape `(places, labels)`. Silence has none.
        reach (`float`, *optional*): samples from an event's end within which it is drawn in; of a model that tells of windows.
        columns ([`FrameColumns`], *optional*): of a model with a frame head.
    """

    name: str
    num_samples: int
    sampling_rate: int
    places: Places
    reach: float | None = None
    columns: FrameColumns | None = None

    @property
    def seconds(self) -> float:
        """How long the recording is."""
        return self.num_samples / self.sampling_rate

    def events(
        self, rules: EventRules, median: int | np.ndarray = 1, label: int | None = None, averaged: bool = True
    ) -> list[Stretch]:
        """Find events.

        Args:
            rules ([`EventRules`]): what makes one.
            median (`int` or `np.ndarray` of shape `(labels,)`, defaults to 1): columns over which the scores of a frame head are
                smoothed, an odd number, of all labels or of each.
            label (`int`, *optional*): the only label that is looked for.
            averaged (`bool`, defaults to `True`): whether events have their mean score, or NaN, which is faster.

        Returns:
            `list[Stretch]`: label by label, in the order of time.
        """
        places = self.places
        if label is not None and not rules.exclusive:  # which have nothing to do with the others
            places = [(edges, means[:, label : label + 1]) for edges, means in places]
            rules, median = rules.of_label(label), of_label(median, label)
            alone = 0
        else:
            alone = label
        found = events_of_means(smoothed(places, median), self.reach, rules, alone, averaged)
        if label is None or rules.exclusive:
            return found
        return [Stretch(one.start, one.end, label, one.score) for one in found]

"""The time that a dry run takes at most, and how its stages share it."""

import time
from collections.abc import Iterable

# Seconds of a dry run, of which imports, loading of the data and of a checkpoint take what the stages below leave.
WHOLE = 48.0
LOOKING = 12.0  # decoding clips and measuring them
PREPARING = 8.0  # what a training decodes before it begins: files that it checks, mean and standard deviation
PICTURE = 3.0
STEPS, STEPS_AT_LEAST = 26.0, 12.0  # of the training: at most, and what the stages before leave for them
SCORING = 4.0
PROPOSALS = 6.0
COST = STEPS_AT_LEAST + SCORING + PROPOSALS  # what is left for all that tells the cost
CLIPS_READ, READING_SECONDS = 16, 1.5  # at most, to tell how long reading one takes
LEAST = 2.0  # that a stage gets even when the ones before it took longer than they should


class TimeLimit:
    """Hands out the time of a dry run.

    Args:
        seconds (`float`, defaults to 48): from now on.
    """

    def __init__(self, seconds: float = WHOLE):
        self.end = time.monotonic() + seconds

    def share(self, seconds: float, later: float = 0.0) -> "Deadline":
        """The time of a stage that may take so many seconds, less where the stages after it need it.

        Args:
            seconds (`float`): at most.
            later (`float`, defaults to 0): seconds that the stages after it may take.

        Returns:
            [`Deadline`]: of this stage.
        """
        return Deadline(max(LEAST, min(seconds, self.end - time.monotonic() - later)))

    @property
    def rest(self) -> "Deadline":
        """The time that is left for the last stage."""
        return self.share(PROPOSALS)


class Deadline:
    """When a stage has to be done.

    Args:
        seconds (`float`): from now on.
    """

    def __init__(self, seconds: float):
        self.end = time.monotonic() + seconds

    @property
    def left(self) -> float:
        """Seconds until then; none once it has passed."""
        return max(0.0, self.end - time.monotonic())


def seconds_to_read(clips: Iterable) -> float:
    """Tell how long reading a clip takes.

    Args:
        clips (iterable): reads a clip for each item that it gives; some are taken, in 1.5 s or so.

    Returns:
        Seconds of a clip, as the mean; those of finding out that there is none where there is none.
    """
    deadline, start, number = Deadline(READING_SECONDS), time.perf_counter(), 0
    for _ in clips:
        number += 1
        if not deadline.left:
            break
    return (time.perf_counter() - start) / max(1, number)

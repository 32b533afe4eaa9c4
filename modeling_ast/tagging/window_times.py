"""Times in seconds, as a user gives them, as what windows of a model can have: whole frames, or whole columns of a frame head."""

import logging
import math

import numpy as np

from ..frame_columns import FrameColumns
from .errors import TaggingError
from .frames import chosen_medians, median_width

FRAMES_IN_WORDS = "a whole number of frames of 10 ms"
logger = logging.getLogger(__name__)


class RoundedTimes:
    """What a tagger knows of the times of its model's windows; what is rounded is said once.

    Attributes:
        sampling_rate (`int`): of the model's input, in Hz.
        window_samples (`int`): that the model hears at once.
        config ([`ASTConfig`]): of the model.
        columns ([`FrameColumns`], *optional*): that its scores are of, if it has a frame head.
    """

    sampling_rate: int
    window_samples: int
    columns: FrameColumns | None = None
    _said: set[str]

    def _window_samples(self, window: float | None) -> int:
        from ..features.kaldi import frame_length, num_frames, num_samples

        if window is None:
            return self.window_samples
        own = self.window_samples / self.sampling_rate
        samples = round(window * self.sampling_rate) if math.isfinite(window) else 0
        if not frame_length(self.sampling_rate) <= samples <= self.window_samples:
            raise TaggingError(
                f"window={window} s is nothing that this model hears at once: it hears up to {own:g} s. Pass --window between "
                f"0.025 and {own:g}, or leave it out."
            )
        rounded = num_samples(num_frames(samples, self.sampling_rate), self.sampling_rate)
        if rounded != samples:
            self._say_rounding("--window", window, rounded, FRAMES_IN_WORDS)
        return rounded

    @property
    def _step_samples(self) -> int:
        """What the starts of windows that overlap are multiples of: frames, or columns of a frame head."""
        from ..features.kaldi import frame_shift

        shift = frame_shift(self.sampling_rate)
        return shift if self.columns is None else shift * self.columns.time_stride

    def _hop_samples(
        self, hop: float | None, window_samples: int, overlapping: bool = True, window: float | None = None
    ) -> int:
        shift = self._step_samples
        most = max(window_samples // shift, 1)  # frames
        if self.columns is not None:
            most = self._columns_of(window_samples)  # with more, there would be columns in no window
        if hop is None and not overlapping:
            return most * shift
        if hop is None:
            # overlapping by half or a little more
            return min(max(window_samples // 2 // shift, 1), most) * shift
        hop_samples = round(hop * self.sampling_rate) if math.isfinite(hop) else 0
        frames = min(round(hop_samples / shift), most)
        # Who asks for windows of half a second, half a second apart, has both rounded alike.
        asked = window_samples if window is None else max(round(window * self.sampling_rate), window_samples)
        if frames < 1 or hop_samples > asked:
            raise TaggingError(
                f"hop={hop} s does not fit windows of {window_samples / self.sampling_rate:g} s: larger hops would "
                f"leave audio out. Pass --hop between {shift / self.sampling_rate:g} and a window, for example half a window."
            )
        if frames * shift != hop_samples:
            self._say_rounding("--hop", hop, frames * shift, self._steps_in_words)
        return frames * shift

    def _columns_of(self, window_samples: int) -> int:
        from ..features.kaldi import num_frames

        if window_samples < self._step_samples:
            raise TaggingError(
                f"A window of {window_samples / self.sampling_rate:g} s is shorter than a frame of this model, which is "
                f"{self.columns.seconds:g} s. Pass a longer --window, or leave it out."
            )
        return self.columns.number(num_frames(window_samples, self.sampling_rate))

    @property
    def _steps_in_words(self) -> str:
        if self.columns is None:
            return FRAMES_IN_WORDS
        return f"a whole number of the {1000 * self.columns.seconds:g} ms that this model has scores of"

    def _say_rounding(self, flag: str, asked: float, samples: int, whole: str):
        words = f"{flag} {asked:g} is rounded to {samples / self.sampling_rate:g} s, which is {whole}."
        self._warn_once(words)

    def _warn_once(self, words: str):
        if words not in self._said:
            self._said.add(words)
            logger.warning(words)

    def _median_width(self, seconds: float | None, hop_samples: int) -> int | np.ndarray:
        """How many columns or windows are smoothed: by what a user gives, or for each label by what the checkpoint has of columns."""
        if seconds is None:
            return chosen_medians(self.config, self.columns)
        spacing = hop_samples / self.sampling_rate if self.columns is None else self.columns.seconds
        width, rounded = median_width(seconds, spacing)
        if width == 1 and self.columns is None:
            raise TaggingError(
                f"median_filter={seconds:g} s is nearer to one window than to three, which lie {spacing:g} s apart, so that nothing would be "
                f"smoothed. Pass --median_filter {3 * spacing:g} or more, or a smaller --hop."
            )
        if abs(rounded - seconds) > 1e-9:
            steps = f"an odd number of the {spacing:g} s of --hop"
            if self.columns is not None:
                steps = self._steps_in_words.replace("a whole", "an odd")
            self._say_rounding("--median_filter", seconds, round(rounded * self.sampling_rate), steps)
        return width

"""Windows of a waveform that comes block by block, and their features, each frame of which is computed once.

Windows that overlap share frames where they lie a whole number of frames apart. Windows that do not, the last one, which ends
with the waveform, and short recordings are kept as samples, whose features are computed when they are scored.
"""

from dataclasses import dataclass

import numpy as np

from ..audio.silence import SILENT_PEAK


@dataclass(frozen=True)
class Window:
    """A stretch of a waveform that is scored at once.

    Args:
        start (`int`): its first sample.
        samples (`int`): how many it has.
        is_silent (`bool`): whether it holds nothing but silence.
        waveform (`np.ndarray` of shape `(samples,)`, *optional*): what is heard, if its features are not computed yet.
        features (`torch.Tensor` of shape `(frames, mel bins)`, *optional*): normalised features, if they are.
    """

    start: int
    samples: int
    is_silent: bool
    waveform: np.ndarray | None = None
    features: object = None


class WindowCutter:
    """Cuts a waveform that comes block by block into windows, as [`window_starts`] places them.

    Args:
        feature_extractor ([`ASTFeatureExtractor`]): of the model.
        device (`torch.device`): where features are computed.
        window_samples (`int`): of a window: the fewest that give a number of frames.
        hop_samples (`int`): between the starts of two windows.
        silent_peak (`float`, *optional*, defaults to `SILENT_PEAK`): amplitude up to which a window is silent, a constant
            offset aside.
    """

    def __init__(
        self, feature_extractor, device, window_samples: int, hop_samples: int, silent_peak: float = SILENT_PEAK
    ):
        from ..features.kaldi import frame_length, frame_shift, num_frames

        self.feature_extractor, self.device = feature_extractor, device
        self.window_samples, self.hop_samples, self.silent_peak = window_samples, hop_samples, silent_peak
        self.num_samples = 0  # that have come
        self._shift = frame_shift(feature_extractor.sampling_rate)
        self._frame_length = frame_length(feature_extractor.sampling_rate)
        self._window_frames = num_frames(window_samples, feature_extractor.sampling_rate)
        self._shares_frames = hop_samples % self._shift == 0 and hop_samples < window_samples
        self._next = 0  # start of the next window
        self._held, self._begin = (
            np.empty(0, np.float32),
            0,
        )  # samples that are still needed, and the number of the first
        self._frames, self._first_frame, self._num_frames = None, 0, 0  # likewise, and how many were computed

    def add(self, block: np.ndarray) -> list[Window]:
        """Take the next samples.

        Args:
            block (`np.ndarray` of shape `(samples,)`): float32.

        Returns:
            `list[Window]`: those that are complete and not the last.
        """
        self._held = np.concatenate([self._held, block]) if len(self._held) else block
        self.num_samples += len(block)
        windows = []
        if self._goes_beyond_a_window() and self._next + self.window_samples < self.num_samples:
            if self._shares_frames:
                self._compute_frames()
            while self._next + self.window_samples < self.num_samples:
                windows.append(self._window(self._next, self._shares_frames))
                self._next += self.hop_samples
        # What the next window, the last one and the next frame may need.
        needed = min(self._next, max(self.num_samples - self.window_samples, 0))
        if self._shares_frames:
            needed = min(needed, self._num_frames * self._shift)
        if needed > self._begin:
            self._held, self._begin = self._held[needed - self._begin :].copy(), needed
        return windows

    def finish(self) -> list[Window]:
        """Give the last window, which ends with the waveform.

        Returns:
            `list[Window]`: one window.
        """
        last = self.num_samples - self.window_samples if self._goes_beyond_a_window() else 0
        return [self._window(last, has_frames=False)]

    def _goes_beyond_a_window(self) -> bool:
        from ..features.kaldi import is_cut

        # A second window would hear the same frames once more.
        return is_cut(self.num_samples, self.window_samples, self.feature_extractor.sampling_rate)

    def _window(self, start: int, has_frames: bool) -> Window:
        waveform = self._held[start - self._begin :][: self.window_samples]
        is_silent = float(waveform.max()) - float(waveform.min()) <= 2 * self.silent_peak
        if not has_frames or is_silent:
            return Window(start, len(waveform), is_silent, None if is_silent else waveform)
        first = start // self._shift - self._first_frame
        return Window(start, len(waveform), False, features=self._frames[first : first + self._window_frames])

    def _compute_frames(self):
        """Features of all whole frames that have come."""
        import torch

        start = self._num_frames * self._shift
        if self.num_samples - start < self._frame_length:
            return
        new = self.feature_extractor.frames(self._held[start - self._begin :], self.device)
        earliest = self._next // self._shift
        kept = [] if self._frames is None else [self._frames[earliest - self._first_frame :]]
        if self._frames is not None:
            self._first_frame = earliest
        self._frames = torch.cat([*kept, new]) if kept else new
        self._num_frames += len(new)

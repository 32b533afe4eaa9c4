"""Windows of a waveform that comes block by block, and their features, each frame of which is computed once.

Windows that overlap share frames where they lie a whole number of frames apart. Windows that do not, the last one, which ends
with the waveform, and short recordings are kept as samples, whose features are computed when they are scored.
"""

from dataclasses import dataclass, field
from weakref import WeakValueDictionary

import numpy as np

from ..audio.silence import SILENT_PEAK
from .segments import least_rest


@dataclass(frozen=True)
class Window:
    """A stretch of a waveform that is scored at once.

    Args:
        start (`int`): its first sample.
        samples (`int`): how many it has.
        is_silent (`bool`): whether it holds nothing but silence.
        waveform (`np.ndarray` of shape `(samples,)`, *optional*): what is heard, if its features are not computed yet.
        features (`torch.Tensor` of shape `(frames, mel bins)`, *optional*): normalised features, if they are.
        log_mel ([`LogMel`], *optional*): what they are made of, in place of the waveform, where several models share it.
    """

    start: int
    samples: int
    is_silent: bool
    waveform: np.ndarray | None = None
    features: object = None
    log_mel: "LogMel | None" = None


class LogMel:
    """Log-mel features of a stretch of a waveform before normalising, computed when they are first asked for.

    Args:
        waveform (`np.ndarray` of shape `(samples,)`): the stretch.
        feature_extractor ([`ASTFeatureExtractor`]): one that does not normalise.
        device (`torch.device`): where to compute.
    """

    def __init__(self, waveform: np.ndarray, feature_extractor, device):
        self._waveform, self._feature_extractor, self._device = waveform, feature_extractor, device
        self._values = None

    def values(self):
        """Compute them.

        Returns:
            `torch.Tensor` of shape `(frames, mel bins)`, which nobody may write to.
        """
        if self._values is None:
            self._values = self._feature_extractor.frames(self._waveform, self._device)
            self._waveform = None
        return self._values


@dataclass
class SharedLogMel:
    """Log-mel features of one waveform for several models: of each stretch they are computed once.

    Args:
        feature_extractor ([`ASTFeatureExtractor`]): one that does not normalise.
        device (`torch.device`): where to compute.
    """

    feature_extractor: object
    device: object
    _known: WeakValueDictionary = field(default_factory=WeakValueDictionary)
    _last: LogMel | None = None

    def of(self, start: int, waveform: np.ndarray) -> LogMel:
        """Give the features of a stretch.

        Args:
            start (`int`): its first sample.
            waveform (`np.ndarray` of shape `(samples,)`): the stretch.

        Returns:
            [`LogMel`]: the same for each model that asks, as long as one of them keeps it; the last is kept here.
        """
        key = (start, len(waveform))
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = LogMel(waveform, self.feature_extractor, self.device)
        self._last = found
        return found


class WindowCutter:
    """Cuts a waveform that comes block by block into windows: one every hop from its start on, and a last one that ends with it,
    or a single one if the waveform is not longer than that. Windows side by side leave out a rest below [`least_rest`].

    Args:
        feature_extractor ([`ASTFeatureExtractor`]): of the model.
        device (`torch.device`): where features are computed.
        window_samples (`int`): of a window: the fewest that give a number of frames.
        hop_samples (`int`): between the starts of two windows.
        silent_peak (`float`, *optional*, defaults to `SILENT_PEAK`): amplitude up to which a window is silent, a constant
            offset aside.
        shared ([`SharedLogMel`], *optional*): of the waveform, if several models share it.
        step_samples (`int`, *optional*, defaults to 1): what the start of the last window is a multiple of; that window is
            shorter than others by less than this.
        keeps_samples (`bool`, *optional*, defaults to `False`): whether windows are given as samples, features being another's part.
    """

    def __init__(
        self,
        feature_extractor,
        device,
        window_samples: int,
        hop_samples: int,
        silent_peak: float = SILENT_PEAK,
        shared: SharedLogMel | None = None,
        step_samples: int = 1,
        keeps_samples: bool = False,
    ):
        from ..features.kaldi import frame_length, frame_shift, num_frames

        self.feature_extractor, self.device = feature_extractor, device
        self.window_samples, self.hop_samples, self.silent_peak = window_samples, hop_samples, silent_peak
        self.shared, self.step_samples = shared, step_samples
        self.num_samples = 0  # that have come
        self._shift = frame_shift(feature_extractor.sampling_rate)
        self._frame_length = frame_length(feature_extractor.sampling_rate)
        self._window_frames = num_frames(window_samples, feature_extractor.sampling_rate)
        self._shares_frames = not keeps_samples and hop_samples % self._shift == 0 and hop_samples < window_samples
        self._least_rest = least_rest(feature_extractor.sampling_rate) if hop_samples >= window_samples else 1
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
        if self._shares_frames and self.shared is not None:
            self._compute_frames()  # at once, so that models with windows of other lengths ask for the same ones
        if self._goes_beyond_a_window() and self._next + self.window_samples < self.num_samples:
            if self._shares_frames and self.shared is None:
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
            `list[Window]`: one window, or none where too little is left for one.
        """
        if self._goes_beyond_a_window():
            if self.num_samples - (self._next - self.hop_samples + self.window_samples) < self._least_rest:
                return []
            steps = -(-(self.num_samples - self.window_samples) // self.step_samples)
            return [self._window(steps * self.step_samples, has_frames=False)]
        return [self._window(0, has_frames=self._frames is not None)]

    def _goes_beyond_a_window(self) -> bool:
        from ..features.kaldi import is_cut

        # A second window would hear the same frames once more.
        return is_cut(self.num_samples, self.window_samples, self.feature_extractor.sampling_rate)

    def _window(self, start: int, has_frames: bool) -> Window:
        waveform = self._held[start - self._begin :][: self.window_samples]
        is_silent = float(waveform.max()) - float(waveform.min()) <= 2 * self.silent_peak
        if is_silent:
            return Window(start, len(waveform), is_silent)
        if not has_frames and self.shared is not None:
            return Window(start, len(waveform), False, log_mel=self.shared.of(start, waveform))
        if not has_frames:
            return Window(start, len(waveform), False, waveform)
        first = start // self._shift - self._first_frame
        return Window(start, len(waveform), False, features=self._frames[first : first + self._window_frames])

    def _compute_frames(self):
        """Features of all whole frames that have come."""
        import torch

        start = self._num_frames * self._shift
        if self.num_samples - start < self._frame_length:
            return
        waveform = self._held[start - self._begin :]
        if self.shared is None:
            new = self.feature_extractor.frames(waveform, self.device)
        else:
            new = self.feature_extractor.normalize(self.shared.of(start, waveform).values())
        earliest = self._next // self._shift
        kept = [] if self._frames is None else [self._frames[earliest - self._first_frame :]]
        if self._frames is not None:
            self._first_frame = earliest
        self._frames = torch.cat([*kept, new]) if kept else new
        self._num_frames += len(new)

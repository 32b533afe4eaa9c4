"""The log-mel filter bank on a processor: loops compiled by Numba around PyTorch's Fourier transform, in threads.

Computes what `log_mel.py` writes down as one expression. Before the transform every number is rounded as Kaldi and
torchaudio round it, and the transform is the one they call: mel bins that are almost empty hold rounding errors, and
come out alike only so. After it, where rounding does no harm, sums and logarithms go over many frames at once.

The loops stand in place of `torchaudio.compliance.kaldi.fbank`, which takes one clip at a time and seven times as long.
"""

import math
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from threading import Condition, Lock, local

import numpy as np
import torch
from numba import njit

from .kaldi import (
    PRE_EMPHASIS,
    SMALLEST_ENERGY,
    fft_length,
    frame_length,
    frame_shift,
    mel_filter_bank,
    num_frames,
    symmetric_hann_window,
)

FRAMES_PER_GROUP = 64  # that the loops over mel bins go through side by side, within the second-level cache
FRAMES_PER_BLOCK = 256  # that a thread takes at a time, with their spectra in its cache
FRAMES_OF_LONG_CLIP = 256  # from which on a clip is not copied to be joined with others

# Constants of the compiled loops. Only this file may hold such: a change elsewhere would not compile them anew.
ONE, LN_2, INFINITY = np.float32(1), np.float32(math.log(2)), np.float32(math.inf)
BITS_OF_SQRT_HALF = np.float32(math.sqrt(0.5)).view(np.int32)
MANTISSA_BITS = np.int32(23)  # of float32
# 2 artanh(x) = 2 x + 2/3 x^3 + 2/5 x^5 + ...; what follows these is below 1e-8 for the x that occur, up to 0.172.
C1, C3, C5, C7, C9 = (np.float32(2 / power) for power in (1, 3, 5, 7, 9))


def _compiled(signature: str, **options) -> Callable:
    """Decorator that compiles a loop now, or takes it from the files that an earlier process left.

    They lie in `__pycache__` or the user's cache folder; where neither can be written to, each process compiles, which
    takes seconds.
    """

    def compile_loop(loop: Callable) -> Callable:
        # With Python's checks for a division by zero a loop would go through one number at a time.
        options.update(nogil=True, error_model="numpy")
        try:
            return njit(signature, cache=True, **options)(loop)
        except Exception:  # no folder to write to, a full disk, a damaged file: each raises an error of its own kind
            return njit(signature, **options)(loop)

    return compile_loop


# Without permission to contract or reorder: each operation is rounded by itself, as in Kaldi.
@_compiled("void(float32[::1], float32[::1], float32[::1], float32, int64, int64, float32[:, ::1])")
def _cut_frames(waveform, means, window, pre_emphasis, first, shift, frames):
    """Write frames `first` and following of a waveform into `frames`, without their mean, emphasized and windowed.

    The window is zero at a frame's first sample, whose predecessor need not be known therefore; `frames` holds zeros there.
    """
    length = window.shape[0]
    for row in range(frames.shape[0]):
        start = (first + row) * shift
        samples, mean, frame = waveform[start : start + length], means[first + row], frames[row]
        for n in range(1, length):
            frame[n] = ((samples[n] - mean) - (samples[n - 1] - mean) * pre_emphasis) * window[n]


@_compiled(
    "void(float32[:, ::1], int64[::1], int64[::1], float32[::1], float32[:, ::1], float32[:, ::1], float32[:, ::1], "
    "float32, float32, float32, float32[:, ::1])",
    fastmath={"contract", "nsz"},
)
def _write_features(
    spectra, first_bins, weight_starts, weights, powers, by_bin, energies, smallest, scale, offset, features
):
    """Write `scale * log(mel energy) + offset` of each frame into `features`, with energies of at least `smallest`.

    Args:
        spectra (`(frames, 2 * (FFT bins + 1))`): real and imaginary parts in turn.
        first_bins (`(mel bins,)`): FFT bin at which a filter starts.
        weight_starts (`(mel bins + 1,)`): where its weights start in `weights`, and where the last ones end.
        weights (`(all weights,)`): the filters without their zeros, one after the other.
        powers (`(FRAMES_PER_GROUP, FFT bins + 1)`): memory to work in.
        by_bin (`(FFT bins, FRAMES_PER_GROUP)`): memory to work in.
        energies (`(mel bins, FRAMES_PER_GROUP)`): memory to work in.
        smallest (`float`): energies below it are taken for it.
        scale (`float`): what logarithms are multiplied with.
        offset (`float`): what is added to them then.
        features (`(frames, mel bins)`): written to.
    """
    num_bins = by_bin.shape[0]
    flat_powers = powers.reshape(-1)
    for group in range(0, spectra.shape[0], by_bin.shape[1]):
        count = min(by_bin.shape[1], spectra.shape[0] - group)
        parts = spectra[group : group + count].reshape(-1)
        for n in range(parts.shape[0] // 2):
            flat_powers[n] = parts[2 * n] * parts[2 * n] + parts[2 * n + 1] * parts[2 * n + 1]
        for k in range(num_bins):
            same_bin = by_bin[k]
            for row in range(count):
                same_bin[row] = powers[row, k]
        for mel_bin in range(energies.shape[0]):
            energy = energies[mel_bin]
            for row in range(count):
                energy[row] = 0
            k = first_bins[mel_bin]
            for n in range(weight_starts[mel_bin], weight_starts[mel_bin + 1]):
                weight, same_bin = weights[n], by_bin[k]
                for row in range(count):
                    energy[row] += weight * same_bin[row]
                k += 1
            for row in range(count):
                # log(m 2^e) = e log 2 + 2 artanh((m - 1) / (m + 1)), with m from the square root of 1/2 to that of 2.
                bits = np.float32(max(energy[row], smallest)).view(np.int32)
                exponent = np.int32(np.int32(bits - BITS_OF_SQRT_HALF) >> MANTISSA_BITS)
                mantissa = np.int32(bits - np.int32(exponent << MANTISSA_BITS)).view(np.float32)
                x = (mantissa - ONE) / (mantissa + ONE)
                square = x * x
                series = (((C9 * square + C7) * square + C5) * square + C3) * square + C1
                logarithm = x * series + np.float32(exponent) * LN_2
                # NaN and infinity stay what they are.
                energy[row] = (logarithm if energy[row] < INFINITY else energy[row]) * scale + offset
        for row in range(count):
            frame = features[group + row]
            for mel_bin in range(energies.shape[0]):
                frame[mel_bin] = energies[mel_bin, row]


@lru_cache(maxsize=8)
def _packed_filters(num_mel_bins: int, sampling_rate: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The mel filters as [`_write_features`] takes them: `first_bins`, `weight_starts` and `weights`."""
    first_bins, weight_starts, weights = [], [0], []
    for triangle in mel_filter_bank(num_mel_bins, sampling_rate).numpy().T:
        covered = triangle.nonzero()[0]
        first, end = (covered[0], covered[-1] + 1) if len(covered) else (0, 0)
        first_bins.append(first)
        weights.append(triangle[first:end])
        weight_starts.append(weight_starts[-1] + end - first)
    return np.array(first_bins, np.int64), np.array(weight_starts, np.int64), np.concatenate(weights)


@lru_cache(maxsize=8)
def _window(sampling_rate: int) -> np.ndarray:
    return symmetric_hann_window(sampling_rate, torch.device("cpu"), torch.float32).numpy()


class _Workspace:
    """A thread's memory, written to again and again: fresh pages would cost more than the arithmetic."""

    def __init__(self, num_mel_bins: int, sampling_rate: int):
        points = fft_length(sampling_rate)
        # A frame's first sample and all after its last one is zero and stays so.
        self.frames = torch.zeros(FRAMES_PER_BLOCK, points, device="cpu", dtype=torch.float32)
        self.powers, self.by_bin, self.energies = (
            np.empty(shape, np.float32)
            for shape in (
                (FRAMES_PER_GROUP, points // 2 + 1),
                (points // 2, FRAMES_PER_GROUP),
                (num_mel_bins, FRAMES_PER_GROUP),
            )
        )


_of_thread = local()


def _workspace(*sizes: int) -> _Workspace:
    """The workspace of this thread, made anew if it is of another size."""
    if getattr(_of_thread, "made_for", None) != sizes:
        _of_thread.space, _of_thread.made_for = _Workspace(*sizes), sizes
    return _of_thread.space


_pool: ThreadPoolExecutor | None = None
_pool_lock = Lock()


def _kept_pool() -> ThreadPoolExecutor:
    """Threads beside the calling one. They are kept, as MKL may hang in a process forked while one of them ends."""
    global _pool
    with _pool_lock:
        if _pool is None:
            _pool = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="log_mel")
        return _pool


def _forget_pool():
    """In a forked process, in which the threads are not, and another one may have held the lock."""
    global _pool, _pool_lock
    _pool, _pool_lock = None, Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)


def write_by_loops(
    waveforms: Sequence[torch.Tensor],
    places: Sequence[torch.Tensor],
    sampling_rate: int,
    scale: float,
    offset: float,
):
    """Write log-mel features as [`modeling_ast.features.log_mel.write_log_mel`] does, in as many threads as PyTorch's.

    Waveforms are float32 on the CPU and have as many frames as their places. What a clip's features are depends neither on
    its neighbours nor on the threads.

    Args:
        waveforms (sequence of `torch.Tensor` of shapes `(samples,)`): float32 on the CPU.
        places (sequence of `torch.Tensor` of shapes `(frames, mel bins)`): contiguous float32 on the CPU, written to.
        sampling_rate (`int`): in Hz.
        scale (`float`): factor of the features.
        offset (`float`): added to them.
    """
    num_mel_bins, shift = places[0].shape[1], frame_shift(sampling_rate)
    window, filters = _window(sampling_rate), _packed_filters(num_mel_bins, sampling_rate)
    features = [place.numpy() for place in places]

    def write(blocks: Iterator[_Block]):
        space = _workspace(num_mel_bins, sampling_rate)
        for block in blocks:
            frames = space.frames[: block.count]
            samples, means = block.stretch.samples, block.stretch.means
            _cut_frames(samples, means, window, PRE_EMPHASIS, block.first, shift, frames.numpy())
            spectra = torch.fft.rfft(frames).numpy().view(np.float32)  # real and imaginary parts in turn
            for clip, rows, first in block.parts:
                place = features[clip][first : first + rows.stop - rows.start]
                memory = (space.powers, space.by_bin, space.energies)
                _write_features(spectra[rows], *filters, *memory, SMALLEST_ENERGY, scale, offset, place)

    long = [[clip] for clip, place in enumerate(features) if len(place) >= FRAMES_OF_LONG_CLIP]
    short = [clip for clip, place in enumerate(features) if len(place) < FRAMES_OF_LONG_CLIP]
    stretches = [_Stretch(waveforms, clips, sampling_rate) for clips in [*long, *([short] if short else [])]]
    _in_threads(write, [block for stretch in stretches for block in stretch.blocks()])


def _in_threads(work: Callable[[Iterator], None], pieces: list):
    """Have as many threads as PyTorch's, the calling one among them, take pieces from one iterator until none is left.

    Calls at the same time share the helping threads, of which there are as many as processors.
    """
    remaining = iter(pieces)
    errors: list[BaseException] = []
    helping, is_over, changed = 0, False, Condition()

    def help_out():
        nonlocal helping
        with changed:
            # The pool keeps what it could start no thread for, until one is free, which may be after this call.
            if is_over:
                return
            helping += 1
        try:
            work(remaining)
        except BaseException as error:
            errors.append(error)
            for _ in remaining:  # nobody goes on
                pass
        finally:
            with changed:
                helping -= 1
                changed.notify()

    helpers: list[Future] = []
    try:
        for _ in range(min(torch.get_num_threads(), len(pieces)) - 1):
            try:
                helpers.append(_kept_pool().submit(help_out))
            except RuntimeError:  # no thread can be started, because of a limit or as the interpreter shuts down
                break
        work(remaining)
    finally:
        with changed:
            is_over = True  # for helpers that have not begun
        for _ in remaining:  # if that failed: nobody goes on
            pass
        for helper in helpers:
            helper.cancel()
        with changed:
            changed.wait_for(lambda: helping == 0)
            work = remaining = None  # what the pool still keeps holds no waveforms and features
    if errors:
        raise errors.pop()


class _Stretch:
    """One long clip, or short ones one after the other, so that their frames can be cut as those of one.

    Attributes:
        samples (`(samples,)`): each clip starts where a frame does.
        means (`(frames,)`): of the samples of each frame, also of those that reach from one clip into the next.
        clips: for each clip its number, first frame and number of frames.
    """

    def __init__(self, waveforms: Sequence[torch.Tensor], clips: list[int], sampling_rate: int):
        length, shift = frame_length(sampling_rate), frame_shift(sampling_rate)
        self.clips, pieces, end = [], [], 0
        for clip in clips:
            waveform = waveforms[clip].detach()
            gap = waveform.new_zeros(-len(waveform) % shift)
            self.clips.append((clip, end // shift, num_frames(len(waveform), sampling_rate)))
            pieces += [waveform, gap]
            end += len(waveform) + len(gap)
        joined = torch.cat(pieces) if len(clips) > 1 else pieces[0].contiguous()
        self.samples = joined.numpy()
        # By PyTorch, whose order of summation is that of torchaudio.
        self.means = joined.unfold(0, length, shift).mean(dim=1).numpy()

    def blocks(self) -> "Iterator[_Block]":
        """Cut the frames into blocks of `FRAMES_PER_BLOCK`."""
        earliest = 0  # of the clips that the block may hold
        for first in range(0, len(self.means), FRAMES_PER_BLOCK):
            count = min(FRAMES_PER_BLOCK, len(self.means) - first)
            parts = []
            for clip, start, frames in islice(self.clips, earliest, None):
                if start >= first + count:
                    break
                begin, end = max(start, first), min(start + frames, first + count)
                if begin < end:
                    parts.append((clip, slice(begin - first, end - first), begin - start))
                if start + frames <= first + count:
                    earliest += 1
            yield _Block(self, first, count, parts)


@dataclass(frozen=True)
class _Block:
    """Neighbouring frames of a stretch.

    Attributes:
        stretch (`_Stretch`): where they are cut from.
        first (`int`): the first one's number.
        count (`int`): how many they are.
        parts: for each clip that has some of them: which clip, which rows of the block, and its frame in the first row.
    """

    stretch: _Stretch
    first: int
    count: int
    parts: list[tuple[int, slice, int]]

"""Kaldi's log-mel filter bank for a batch of waveforms, on any device.

Equal to `torchaudio.compliance.kaldi.fbank(waveform, window_type="hanning", num_mel_bins=128)` at its defaults, which
the original AST code and stock Transformers call clip by clip: 25 ms Hann window, 10 ms shift, mean of each frame
removed, pre-emphasis 0.97, power spectrum, triangles on the mel scale from 20 Hz to half the sampling rate, natural
logarithm, no dither. `fbank` itself is not called, as it takes one clip at a time: here a batch is computed together, on a
CPU in float32 by compiled loops (`log_mel_kernels.py`); on accelerators, in graphs, in float64 and where Numba is missing
by one expression over all frames.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from functools import cache, lru_cache

import torch
from transformers.utils import logging

from .kaldi import (
    FRAME_LENGTH_MS,
    PRE_EMPHASIS,
    SMALLEST_ENERGY,
    frame_length,
    frame_shift,
    mel_filter_bank,
    num_frames,
    num_samples,
    symmetric_hann_window,
)
from .padding import pad_clips

logger = logging.get_logger(__name__)

# For the expression: frames at once over the whole batch, which keeps the working memory small, on a CPU within its cache,
# whatever the recordings' length; and how unequal clips of a batch may be, so that little padding is computed.
FRAMES_PER_EXPRESSION = 1024
FRAMES_PER_EXPRESSION_ON_ACCELERATOR = 65_536
FRAMES_PER_ROUND = 65_536  # of which converted and joined copies may be held at a time
LONGEST_OVER_SHORTEST = 1.25


def log_mel_spectrogram(waveforms: torch.Tensor, sampling_rate: int = 16_000, num_mel_bins: int = 128) -> torch.Tensor:
    """Log-mel features of waveforms of one (padded) length.

    Args:
        waveforms (`torch.Tensor` of shape `(batch, samples)`): float32 or float64, amplitude in [-1, 1].
        sampling_rate (`int`, defaults to 16000): in Hz.
        num_mel_bins (`int`, defaults to 128): mel bins.

    Returns:
        `torch.Tensor` of shape `(batch, frames, num_mel_bins)`, natural logarithm of the energy, without gradients (a
        compiled, exported or traced graph has them).
        Frames that reach into a clip's padding are the caller's to cut: see [`num_frames`].

    Raises:
        ValueError: if there is no clip, or fewer samples than one window.

    Source: Kaldi's `compute-fbank-feats`, as `torchaudio.compliance.kaldi.fbank` computes it.
    """
    length = frame_length(sampling_rate)
    if waveforms.dim() != 2 or len(waveforms) < 1 or waveforms.shape[1] < length:
        raise ValueError(
            f"waveforms have shape {tuple(waveforms.shape)}, expected (batch, samples) with at least one clip and "
            f"{length} samples ({FRAME_LENGTH_MS} ms at {sampling_rate} Hz). Pad shorter clips with zeros."
        )
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        # Nothing is written to, no constant kept from outside or for later.
        window = symmetric_hann_window.__wrapped__(sampling_rate, waveforms.device, waveforms.dtype)
        filters = mel_filter_bank.__wrapped__(num_mel_bins, sampling_rate).to(waveforms.device, waveforms.dtype)
        return _log_mel_of_frames(waveforms.unfold(1, length, frame_shift(sampling_rate)), window, filters)
    if _has_kernels_for(waveforms):
        shape = (len(waveforms), num_frames(waveforms.shape[1], sampling_rate), num_mel_bins)
        features = torch.empty(shape, device=waveforms.device, dtype=waveforms.dtype)
        write_log_mel(list(waveforms), list(features), sampling_rate)
        return features
    blocks = [block for _, block in _log_mel_blocks(waveforms, sampling_rate, num_mel_bins)]
    return blocks[0] if len(blocks) == 1 else torch.cat(blocks, dim=1)


def is_alike_in_any_batch() -> bool:
    """Tell whether float32 features of a clip on the CPU are the same to the last bit whatever it is batched with.

    Returns:
        `True` where the compiled loops compute them, each frame by itself; the expression's products depend on the batch.
    """
    return _kernels() is not None


def write_log_mel(
    waveforms: Sequence[torch.Tensor],
    places: Sequence[torch.Tensor],
    sampling_rate: int,
    scale: float = 1.0,
    offset: float = 0.0,
):
    """Write log-mel features of waveforms of any lengths to where they are wanted.

    What has to be converted or joined is copied for at most `FRAMES_PER_ROUND` frames at a time.

    Args:
        waveforms (sequence of `torch.Tensor` of shapes `(samples,)`): at least one window each; floats of any dtype, or
            int16, which is scaled to [-1, 1]; on any devices.
        places (sequence of `torch.Tensor` of shapes `(frames, mel bins)`): contiguous, float32 or float64, of one dtype on
            one device, where the work is done; `scale * features + offset` is written to them, with features as
            [`log_mel_spectrogram`] gives them. May hold fewer frames than the waveform has.
        sampling_rate (`int`): in Hz.
        scale (`float`, defaults to 1.0): factor of the features.
        offset (`float`, defaults to 0.0): added to them.

    Raises:
        ValueError: if there is no waveform, or not a place for each, or a place has no frames or more than its waveform has,
            or is not contiguous or not like the others.
    """
    if not places:
        raise ValueError("No waveform was given, expected at least one.")
    kind = _kind(places[0])
    # Lengths by `shape`: the `len` of a tensor is a call of Python, of which clips of a second take thousands.
    for waveform, place in zip(waveforms, places, strict=True):
        if _kind(place) != kind or not place.is_contiguous():
            raise ValueError(
                f"A place has shape {tuple(place.shape)}, {place.dtype} on {place.device}, the first one "
                f"{tuple(places[0].shape)}, {places[0].dtype} on {places[0].device}. Give contiguous places for equally many "
                "mel bins, of one dtype and on one device."
            )
        if not 0 < place.shape[0] <= num_frames(waveform.shape[0], sampling_rate):
            raise ValueError(
                f"A waveform of {len(waveform)} samples has {num_frames(len(waveform), sampling_rate)} frames at "
                f"{sampling_rate} Hz, its place has {len(place)}. Give a place for as many or fewer, but at least one."
            )
    write = _kernels() if _has_kernels_for(places[0]) else _write_by_expression
    shift = frame_shift(sampling_rate)
    for pieces in _rounds([place.shape[0] for place in places]):
        parts, parts_of_places = [], []
        for clip, first, count in pieces:
            start = first * shift
            part = waveforms[clip][start : start + num_samples(count, sampling_rate)]
            parts.append(_converted(part, places[clip]))
            parts_of_places.append(places[clip][first : first + count])
        write(parts, parts_of_places, sampling_rate, scale, offset)


def _kind(place: torch.Tensor) -> tuple:
    return place.shape[1], place.dtype, place.device


def _rounds(counts: Sequence[int]) -> Iterator[list[tuple[int, int, int]]]:
    """Divide clips of `counts` frames among rounds of `FRAMES_PER_ROUND` at most; long ones are cut.

    Yields:
        For each piece the number of its clip, its first frame and how many frames it has.
    """
    pieces, room = [], FRAMES_PER_ROUND
    for clip, count in enumerate(counts):
        first = 0
        while first < count:
            taken = min(count - first, room)
            pieces.append((clip, first, taken))
            first += taken
            room -= taken
            if room == 0:
                yield pieces
                pieces, room = [], FRAMES_PER_ROUND
    if pieces:
        yield pieces


def _converted(waveform: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
    """The waveform in [-1, 1], of the place's dtype and on its device; not copied if it is that already."""
    converted = waveform.detach().to(place.device, place.dtype)
    return converted.div_(2**15) if waveform.dtype == torch.int16 else converted


def _write_by_expression(
    waveforms: Sequence[torch.Tensor],
    places: Sequence[torch.Tensor],
    sampling_rate: int,
    scale: float,
    offset: float,
):
    """[`write_log_mel`] for waveforms of one dtype on one device."""
    at_once = _frames_at_once(waveforms[0].device) * frame_shift(sampling_rate)
    for group in _similar_lengths([len(waveform) for waveform in waveforms], at_once):
        clips = [waveforms[clip] for clip in group]
        batch = clips[0][None] if len(clips) == 1 else pad_clips(clips)[0]
        for first, block in _log_mel_blocks(batch, sampling_rate, places[0].shape[1]):
            for clip, features in zip(group, block.mul_(scale).add_(offset), strict=True):
                place = places[clip][first : first + len(features)]
                place.copy_(features[: len(place)])


def _has_kernels_for(tensor: torch.Tensor) -> bool:
    return tensor.device.type == "cpu" and tensor.dtype == torch.float32 and _kernels() is not None


@cache
def _kernels() -> Callable | None:
    """[`write_log_mel`] by compiled loops, or `None` where Numba does not import, as beside a NumPy that it does not know."""
    try:
        from .log_mel_kernels import write_by_loops
    except (ImportError, OSError) as error:
        logger.warning(
            "Features are computed more slowly than possible, as Numba does not import: %s. `ast-doctor` says "
            "what to install.",
            error,
        )
        return None
    return write_by_loops


def _log_mel_blocks(
    waveforms: torch.Tensor, sampling_rate: int, num_mel_bins: int
) -> Iterator[tuple[int, torch.Tensor]]:
    """As [`log_mel_spectrogram`], one stretch of frames after the other, so that a recording's features need not all be
    there at once.

    Yields:
        The first frame's number, and features of shape `(batch, frames of the block, num_mel_bins)`.
    """
    device, dtype = waveforms.device, waveforms.dtype
    window = symmetric_hann_window(sampling_rate, device, dtype)
    filters = _filters(num_mel_bins, sampling_rate, device, dtype)
    frames = waveforms.detach().unfold(1, len(window), frame_shift(sampling_rate))  # (batch, frames, samples), a view
    step = max(1, _frames_at_once(device) // len(waveforms))
    has_autocast = torch.amp.is_autocast_available(device.type)
    for first in range(0, frames.shape[1], step):
        with torch.autocast(device.type, enabled=False) if has_autocast else nullcontext():
            block = _log_mel_of_frames(frames[:, first : first + step], window, filters)
        yield first, block


def _log_mel_of_frames(frames: torch.Tensor, window: torch.Tensor, filters: torch.Tensor) -> torch.Tensor:
    """The formula.

    Args:
        frames (`torch.Tensor` of shape `(..., window length)`): overlapping stretches of the waveform.
        window (`torch.Tensor` of shape `(window length,)`): starts with zero, so that the predecessor of a frame's
            first sample need not be known.
        filters (`torch.Tensor` of shape `(FFT bins + 1, mel bins)`): see [`mel_filter_bank`].

    Returns:
        `torch.Tensor` of shape `(..., mel bins)`.
    """
    centered = frames - frames.mean(dim=-1, keepdim=True)
    emphasized = (centered[..., 1:] - centered[..., :-1] * PRE_EMPHASIS) * window[1:]
    points = 2 * (len(filters) - 1)
    padded = torch.nn.functional.pad(emphasized, (1, points - len(window)))
    spectrum = torch.view_as_real(torch.fft.rfft(padded))
    return (spectrum.square().sum(dim=-1) @ filters).clamp(min=SMALLEST_ENERGY).log()


def _frames_at_once(device: torch.device) -> int:
    return FRAMES_PER_EXPRESSION if device.type == "cpu" else FRAMES_PER_EXPRESSION_ON_ACCELERATOR


def _similar_lengths(lengths: list[int], most: int) -> list[list[int]]:
    """Put the clips into groups, to be padded to their longest, in which little padding and no huge tensor arises.

    Args:
        lengths (`list[int]`): samples of each clip.
        most (`int`): samples of a group with padding, unless a single clip has more.

    Returns:
        Lists of indices into `lengths`, each ascending; clips of one length stay in their order.
    """
    groups: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda index: lengths[index]):
        group = groups[-1] if groups else []
        fits = group and lengths[index] <= LONGEST_OVER_SHORTEST * lengths[group[0]]
        if fits and lengths[index] * (len(group) + 1) <= most:
            group.append(index)
        else:
            groups.append([index])
    return [sorted(group) for group in groups]


@lru_cache(maxsize=8)
def _filters(num_mel_bins: int, sampling_rate: int, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    return mel_filter_bank(num_mel_bins, sampling_rate).to(device, dtype)

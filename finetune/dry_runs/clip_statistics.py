"""What the clips of a data set are like: lengths, sampling rates, channels, levels, and energy that the model cannot hear.

Measured on the decoded files at their own sampling rate, before they are resampled for the model.
"""

import bisect
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.ticker import MaxNLocator

from modeling_ast.audio import AudioError, audio_duration, decode_audio
from modeling_ast.log_mel import frame_length, num_frames, num_samples

from ..data import clip_name, fetched, read_clip

SAMPLES_PER_SPECTRUM = 65_536  # long enough that a tone leaks 1e-5 of its energy across the edge of the band
LONGEST_MEASURED = 300.0  # seconds of a clip that is measured, so that one of hours costs little
SILENT_PEAK = 1e-3  # -60 dB of full scale
FULL_SCALE = 0.9999  # just below the largest value of 16 bits
FEWEST_CLIPPED_SAMPLES = 10
HEARD_IN_FULL = 0.95  # share of the clips that a length that fits does not cut
LITTLE_CUT = 0.02  # that may be cut off the clips on average
FITTING = 1.1  # a length within this factor of the one that fits is left alone
TELLING_SHARE = 0.01  # of energy above the band, under which a label is not worth a line
TELLING_RATIO = 2.0  # to the mean over all clips
WORST_LABELS = 5
HISTOGRAM_ROWS = 8
WIDEST_LINEAR_RANGE = 8.0  # ratio of longest to shortest up to which rows are equally wide


@dataclass(frozen=True)
class ClipFacts:
    """What one decoded clip is like.

    Args:
        seconds (`float`): its length.
        sampling_rate (`int`): of its file, in Hz.
        channels (`int`): of its file.
        peak (`float`): largest absolute value of the mean of its channels; full scale is 1.
        level (`float`): root mean square of that mean, in dB of full scale; `-inf` for digital silence.
        clipped (`bool`): whether ten samples or more of its channels are at full scale.
        above_band (`float`): share of its energy at frequencies above half the model's sampling rate.
        labels (`list[int]`): its labels.
    """

    seconds: float
    sampling_rate: int
    channels: int
    peak: float
    level: float
    clipped: bool
    above_band: float
    labels: list[int]


def look_at_clip(audio: dict, sampling_rate: int, labels: Sequence[int] = ()) -> ClipFacts:
    """Decode a clip and measure it; of a file of more than five minutes little more than these.

    Args:
        audio (`dict`): a value of an undecoded audio column.
        sampling_rate (`int`): what the model hears, in Hz.
        labels (`Sequence[int]`): its labels, which are passed on.

    Raises:
        AudioError: as [`read_clip`], in the same words.
    """
    decoded = decode_audio(audio, seconds=LONGEST_MEASURED)
    samples, file_rate = decoded.samples, decoded.sampling_rate
    waveform = samples.mean(axis=1)
    if len(waveform) / file_rate <= frame_length(sampling_rate) / sampling_rate or not np.isfinite(waveform).all():
        read_clip(audio, sampling_rate)  # raises what a training would, if it would
    power = float(np.mean(np.square(waveform, dtype=np.float64)))
    seconds = len(waveform) / file_rate
    return ClipFacts(
        seconds=seconds if seconds < LONGEST_MEASURED else audio_duration(audio),
        sampling_rate=file_rate,
        channels=samples.shape[1],
        peak=float(np.abs(waveform).max()),
        level=10 * math.log10(power) if power else -math.inf,
        clipped=bool(np.count_nonzero(np.abs(samples) >= FULL_SCALE) >= FEWEST_CLIPPED_SAMPLES),
        above_band=share_above(waveform, file_rate, sampling_rate / 2),
        labels=list(labels),
    )


def look_at_clips(
    rows: Iterable[tuple[dict, list[int]]], sampling_rate: int, fetch: bool = False
) -> tuple[list[ClipFacts], list[tuple[int, str, str]]]:
    """Decode clips one after the other.

    Args:
        rows (iterable of `(audio, labels)`): undecoded audio values and the labels of each.
        sampling_rate (`int`): what the model hears, in Hz.
        fetch (`bool`, defaults to `False`): whether files that lie elsewhere are fetched, as those of streams are.

    Returns:
        What the readable ones are like; and of each that cannot be trained on its place among `rows`, its name and the
        reason.
    """
    facts, bad = [], []
    for place, (audio, labels) in enumerate(rows):
        try:
            facts.append(look_at_clip(fetched(audio) if fetch else audio, sampling_rate, labels))
        except AudioError as error:
            bad.append((place, clip_name(audio), str(error)))
    return facts, bad


def share_above(waveform: np.ndarray, sampling_rate: int, frequency: float) -> float:
    """Share of a waveform's energy, a constant offset aside, above a frequency; 0 for silence.

    Args:
        waveform (`np.ndarray` of shape `(samples,)`).
        sampling_rate (`int`): of the waveform, in Hz.
        frequency (`float`): in Hz.
    """
    if frequency >= sampling_rate / 2:
        return 0.0
    waveform = waveform - waveform.mean()  # a constant offset is no sound
    length = min(len(waveform), SAMPLES_PER_SPECTRUM)
    above = np.fft.rfftfreq(length, 1 / sampling_rate) > frequency
    total = energy_above = 0.0
    for start in range(0, len(waveform), length):
        spectrum = np.fft.rfft(waveform[start : start + length], n=length)
        energy = np.square(np.abs(spectrum))
        total += energy.sum()
        energy_above += energy[above].sum()
    return float(energy_above / total) if total else 0.0


def describe_lengths(seconds: Sequence[float]) -> dict:
    """Seconds of the clips: in total, shortest, median and longest, and a histogram of `[from, to, clips]` rows."""
    seconds = np.array(seconds)
    return {
        "total_seconds": float(seconds.sum()),
        "shortest": float(seconds.min()),
        "median": float(np.median(seconds)),
        "longest": float(seconds.max()),
        "histogram": length_histogram(seconds),
    }


def length_histogram(seconds: np.ndarray) -> list[list[float]]:
    """Rows `[from, to, clips]` at round numbers; equally wide, or in steps of 1, 2, 5, 10 where lengths differ a lot.

    The first includes its lower edge, each its upper one.
    """
    shortest, longest = float(seconds.min()), float(seconds.max())
    if shortest == longest:
        return [[shortest, longest, len(seconds)]]
    if longest / shortest <= WIDEST_LINEAR_RANGE:
        locator = MaxNLocator(nbins=HISTOGRAM_ROWS, steps=[1, 2, 2.5, 5, 10])
        edges = np.array(locator.tick_values(shortest, longest))
    else:
        powers = range(math.floor(math.log10(shortest)), math.ceil(math.log10(longest)) + 1)
        edges = np.array([digit * 10.0**power for power in powers for digit in (1, 2, 5)])
    row_of = np.maximum(np.searchsorted(edges, seconds, side="left") - 1, 0)
    counts = np.bincount(row_of, minlength=len(edges) - 1)
    used = np.flatnonzero(counts)
    return [[float(edges[row]), float(edges[row + 1]), int(counts[row])] for row in range(used[0], used[-1] + 1)]


def describe_recordings(facts: Sequence[ClipFacts]) -> dict:
    """How the clips were recorded: sampling rates, channels, levels, silence and clipping."""
    heard = [clip.level for clip in facts if clip.peak >= SILENT_PEAK]
    quiet, middle, loud = np.percentile(heard, [5, 50, 95]).tolist() if heard else (None, None, None)
    rates = Counter(clip.sampling_rate for clip in facts)
    return {
        "sampling_rates": {str(rate): rates[rate] for rate in sorted(rates)},
        "channels": {str(number): count for number, count in sorted(Counter(clip.channels for clip in facts).items())},
        "silent": len(facts) - len(heard),
        "clipped": sum(clip.clipped for clip in facts),
        "level_db": {"5%": quiet, "50%": middle, "95%": loud},
    }


def describe_band(facts: Sequence[ClipFacts], names: Sequence[str], sampling_rate: int) -> dict:
    """Energy above the model's band: the share, as the mean over clips, and labels in which it is much larger.

    Args:
        facts: of the clips.
        names (`Sequence[str]`): of the labels.
        sampling_rate (`int`): what the model hears, in Hz.

    Returns:
        `edge_hz`, `share`, `clips_sampled_higher`, and `worst_labels`: up to five with their shares.
    """
    of_label: dict[int, list[float]] = defaultdict(list)
    for clip in facts:
        for label in clip.labels:
            of_label[label].append(clip.above_band)
    share = float(np.mean([clip.above_band for clip in facts]))
    means = {names[label]: float(np.mean(shares)) for label, shares in of_label.items()}
    telling = {name: mean for name, mean in means.items() if mean >= TELLING_SHARE and mean >= TELLING_RATIO * share}
    worst = sorted(telling, key=telling.get, reverse=True)[:WORST_LABELS]
    return {
        "edge_hz": sampling_rate / 2,
        "share": share,
        "clips_sampled_higher": sum(clip.sampling_rate > sampling_rate for clip in facts),
        "worst_labels": {name: telling[name] for name in worst},
    }


def describe_frames(
    seconds: Sequence[float], max_length: int, sampling_rate: int, patch_size: int, time_stride: int
) -> dict:
    """What an input length cuts and how much of it is padding, and which length would fit.

    Args:
        seconds (`Sequence[float]`): lengths of the clips.
        max_length (`int`): input length in frames.
        sampling_rate (`int`): what the model hears, in Hz.
        patch_size (`int`): frames of a patch.
        time_stride (`int`): frames from one patch to the next.

    Returns:
        `max_length`, `seconds` that it holds; `clips_cut`; `share_cut`, of all seconds; `share_padding`, of the input;
        and under `fitting` the same of a length that fits, or `None` if that is not worth a change. A length fits if it is
        the shortest of whole patches that leaves 95 % of the clips whole, or cuts 2 % off them on average.
    """
    frames = num_frames(np.round(np.array(seconds) * sampling_rate).astype(np.int64), sampling_rate)
    current = _effect_of_length(frames, max_length, sampling_rate)
    most = int(np.quantile(frames, HEARD_IN_FULL, method="inverted_cdf"))
    lengths = range(patch_size, max(most, patch_size) + time_stride, time_stride)  # the last holds `most` frames
    fitting = lengths[
        bisect.bisect_left(lengths, True, key=lambda length: length >= most or _mean_cut(frames, length) <= LITTLE_CUT)
    ]
    worth_it = max(fitting / max_length, max_length / fitting) > FITTING
    return current | {"fitting": _effect_of_length(frames, fitting, sampling_rate) if worth_it else None}


def _mean_cut(frames: np.ndarray, max_length: int) -> float:
    """Share of a clip that is cut, as the mean over clips: a single long one does not decide it."""
    return float((np.maximum(frames - max_length, 0) / frames).mean())


def _effect_of_length(frames: np.ndarray, max_length: int, sampling_rate: int) -> dict:
    return {
        "max_length": max_length,
        "seconds": num_samples(max_length, sampling_rate) / sampling_rate,
        "clips_cut": int(np.count_nonzero(frames > max_length)),
        "share_cut": float(np.maximum(frames - max_length, 0).sum() / frames.sum()),
        "share_padding": float(np.maximum(max_length - frames, 0).mean() / max_length),
    }

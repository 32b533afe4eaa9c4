"""What the clips of a data set are like: lengths, sampling rates, channels, levels, and energy that the model cannot hear.

Measured on the decoded files at their own sampling rate, before they are resampled for the model.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.ticker import MaxNLocator

from modeling_ast.audio import AudioError, AudioNote, AudioReader, audio_duration, is_silent
from modeling_ast.features.kaldi import frame_length, num_frames, num_samples

from ..clip_sets.waveforms import clip_name, fetched, hear_clip
from .time_limit import Deadline

SAMPLES_PER_SPECTRUM = 65_536  # long enough that a tone leaks 1e-5 of its energy across the edge of the band
LONGEST_MEASURED = 300.0  # seconds of a clip that is measured, so that one of hours costs little
CONVERTED_BEYOND = 1.0  # seconds, after which an end that is cut leaves no trace in what is heard
FULL_SCALE = 0.9999  # just below the largest value of 16 bits
FEWEST_CLIPPED_SAMPLES = 10
HEARD_IN_FULL = 0.95  # share of the clips that a length leaves whole, for which a longer one is named
LITTLE_CUT = 0.02  # of a clip on average, for which no longer input is named
LONGEST_PROPOSED = 4096  # frames; attention over more costs more than any clip is worth, which is better cut in pieces
BATCHES_DRAWN = 200  # to tell how long the longest clip of a batch is
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
        peak (`float`): largest absolute value of the channel that is heard, by default the mean of its channels; full
            scale is 1.
        silent (`bool`): whether that is silence.
        level (`float`): its root mean square, in dB of full scale; `-inf` for digital silence.
        clipped (`bool`): whether ten samples or more of its channels are at full scale.
        above_band (`float`): share of its energy at frequencies above half the model's sampling rate.
        labels (`list[int]`): its labels.
        notes (`tuple[AudioNote, ...]`): what is to be said of it.
    """

    seconds: float
    sampling_rate: int
    channels: int
    peak: float
    silent: bool
    level: float
    clipped: bool
    above_band: float
    labels: list[int]
    notes: tuple[AudioNote, ...]


def look_at_clip(audio: dict, reader: AudioReader, max_samples: int, labels: Sequence[int] = ()) -> ClipFacts:
    """Decode a clip and measure it; of a file of more than five minutes little more than these.

    Args:
        audio (`dict`): a value of an undecoded audio column.
        reader ([`AudioReader`]): how it is heard.
        max_samples (`int`): samples that the model hears of it, of which silence and channels that cancel are told.
        labels (`Sequence[int]`): its labels, which are passed on.

    Returns:
        [`ClipFacts`]: what was measured.

    Raises:
        AudioError: as [`hear_clip`], in the same words.
    """
    name, sampling_rate = clip_name(audio), reader.sampling_rate
    heard_seconds = max_samples / sampling_rate
    decoded, waveform = reader.decode(audio, name, LONGEST_MEASURED, heard_seconds)
    samples, file_rate = decoded.samples, decoded.sampling_rate
    beginning = waveform[: math.ceil((heard_seconds + CONVERTED_BEYOND) * file_rate)]
    heard = reader.convert(decoded, beginning, name, max_samples)
    if len(waveform) / file_rate <= frame_length(sampling_rate) / sampling_rate:
        hear_clip(audio, reader)  # raises what a training would, if it would
    power = float(np.mean(np.square(waveform, dtype=np.float64)))
    seconds = len(waveform) / file_rate
    return ClipFacts(
        seconds=seconds if seconds < LONGEST_MEASURED else audio_duration(audio),
        sampling_rate=file_rate,
        channels=samples.shape[1],
        peak=float(np.abs(waveform).max()),
        silent=is_silent(waveform),
        level=10 * math.log10(power) if power else -math.inf,
        clipped=bool(np.count_nonzero(np.abs(samples) >= FULL_SCALE) >= FEWEST_CLIPPED_SAMPLES),
        above_band=share_above(waveform, file_rate, sampling_rate / 2),
        labels=list(labels),
        notes=heard.notes,
    )


def look_at_clips(
    rows: Iterable[tuple[dict, list[int]]],
    reader: AudioReader,
    max_samples: int,
    fetch: bool = False,
    deadline: Deadline | None = None,
) -> tuple[list[ClipFacts], list[tuple[int, str, str]]]:
    """Decode clips one after the other, as long as there is time.

    Args:
        rows (iterable of `(audio, labels)`): undecoded audio values and the labels of each.
        reader ([`AudioReader`]): how they are heard.
        max_samples (`int`): samples that the model hears of a clip.
        fetch (`bool`, defaults to `False`): whether files that lie elsewhere are fetched, as those of streams are.
        deadline ([`Deadline`], *optional*): after which no further clip is taken.

    Returns:
        What the readable ones are like; and of each that cannot be trained on its place among `rows`, its name and the
        reason.
    """
    facts, bad = [], []
    for place, (audio, labels) in enumerate(rows):
        try:
            facts.append(look_at_clip(fetched(audio) if fetch else audio, reader, max_samples, labels))
        except AudioError as error:
            bad.append((place, clip_name(audio), str(error)))
        if deadline is not None and not deadline.left:
            break
    return facts, bad


def share_above(waveform: np.ndarray, sampling_rate: int, frequency: float) -> float:
    """Share of a waveform's energy, a constant offset aside, above a frequency; 0 for silence.

    Args:
        waveform (`np.ndarray` of shape `(samples,)`): one channel of a clip.
        sampling_rate (`int`): of the waveform, in Hz.
        frequency (`float`): in Hz.

    Returns:
        `float`: from 0 to 1.
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
    """Seconds of the clips: in total, shortest, median, some percentiles, longest, and a histogram of `[from, to, clips]`.

    Args:
        seconds (`Sequence[float]`): lengths of the clips in seconds.

    Returns:
        `dict`: a section of the report.
    """
    seconds = np.array(seconds)
    return {
        "total_seconds": float(seconds.sum()),
        "shortest": float(seconds.min()),
        "median": float(np.median(seconds)),
        "75%": float(np.quantile(seconds, 0.75)),
        "95%": float(np.quantile(seconds, 0.95)),
        "longest": float(seconds.max()),
        "histogram": length_histogram(seconds),
    }


def length_histogram(seconds: np.ndarray) -> list[list[float]]:
    """Rows `[from, to, clips]` at round numbers; equally wide, or in steps of 1, 2, 5, 10 where lengths differ a lot.

    The first includes its lower edge, each its upper one.

    Args:
        seconds (`np.ndarray` of shape `(clips,)`): lengths of the clips in seconds.

    Returns:
        `list[list[float]]`: the rows.
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
    """How the clips were recorded: sampling rates, channels, levels, silence and clipping.

    Args:
        facts (`Sequence[ClipFacts]`): of the clips that were decoded; see [`look_at_clip`].

    Returns:
        `dict`: a section of the report.
    """
    heard = [clip.level for clip in facts if not clip.silent]
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
        facts (`Sequence[ClipFacts]`): of the clips that were decoded; see [`look_at_clip`].
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
    seconds: Sequence[float],
    max_length: int,
    sampling_rate: int,
    patch_size: int,
    time_stride: int,
    padding: str = "max_length",
    batch_size: int = 1,
    grouped: bool = True,
) -> dict:
    """What an input length cuts and how much of it is padding, and which length would fit.

    Args:
        seconds (`Sequence[float]`): lengths of the clips.
        max_length (`int`): input length in frames.
        sampling_rate (`int`): what the model hears, in Hz.
        patch_size (`int`): frames of a patch.
        time_stride (`int`): frames from one patch to the next.
        padding (`str`, defaults to `"max_length"`): in training, or `"longest"`.
        batch_size (`int`, defaults to 1): clips of a batch in training.
        grouped (`bool`, defaults to `True`): whether clips of similar length can share a batch.

    Returns:
        `clips`; `too_long`, whether most last longer than any input that is proposed; `max_length`, `seconds` that it
        holds; `clips_cut`; `share_cut`, of all seconds; `share_padding`, of the input; under `fitting` the same of a
        length that fits, or `None` if that is not worth a change; and under `whole` the same of a length that leaves
        95 % of the clips whole, where much is cut otherwise, with `share_padding_longest`, in training with batches
        padded to their longest clip, and whether these are `grouped`. The length that fits is the one of whole patches
        that holds some clips exactly and for which the share of a clip that is cut, as the mean over clips and counted
        twice, and the share of the input that is padding are least together: neither a single long clip nor a few
        decide it. Where clips are padded to the longest of their batch, whose padding costs little, it is that which
        leaves 95 % whole.
    """
    frames = num_frames(np.round(np.array(seconds) * sampling_rate).astype(np.int64), sampling_rate)
    current = _effect_of_length(frames, max_length, sampling_rate)
    steps = np.maximum(np.ceil((np.unique(frames) - patch_size) / time_stride), 0).astype(np.int64)
    lengths = np.unique(patch_size + steps * time_stride)  # of whole patches, each the shortest for some of the clips
    most = int(np.quantile(frames, HEARD_IN_FULL, method="inverted_cdf"))
    holding = int(lengths[min(np.searchsorted(lengths, most), len(lengths) - 1)])
    candidates = [int(length) for length in lengths if length <= LONGEST_PROPOSED]
    fitting = whole = None
    if candidates:
        best = min(candidates, key=lambda length: _loss_of_length(frames, length))
        if padding == "longest" and holding <= LONGEST_PROPOSED:
            best = holding
        if max(best / max_length, max_length / best) > FITTING:
            fitting = _effect_of_length(frames, best, sampling_rate)
    chosen = fitting["max_length"] if fitting else max_length
    if _mean_cut(frames, chosen) > LITTLE_CUT and chosen * FITTING < holding <= LONGEST_PROPOSED:
        batches = longest_of_batches(np.minimum(frames, holding), batch_size, grouped)
        padded = max(0.0, float(1 - np.minimum(frames, holding).mean() / batches.mean()))
        whole = _effect_of_length(frames, holding, sampling_rate)
        whole |= {"share_padding_longest": padded, "grouped": grouped}
    too_long = bool(np.median(frames) > LONGEST_PROPOSED)
    return current | {"clips": len(frames), "fitting": fitting, "whole": whole, "too_long": too_long}


def _loss_of_length(frames: np.ndarray, max_length: int) -> float:
    """What is cut of a clip on average, counted twice as it is lost, and how much of the input is padding."""
    return float(2 * _mean_cut(frames, max_length) + np.maximum(max_length - frames, 0).mean() / max_length)


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


def longest_of_batches(frames: np.ndarray, batch_size: int, grouped: bool, seed: int = 0) -> np.ndarray:
    """Frames of the longest clip of each of some batches.

    Args:
        frames (`np.ndarray` of shape `(clips,)`): lengths of clips.
        batch_size (`int`): clips of a batch.
        grouped (`bool`): whether clips of similar length share a batch.
        seed (`int`, defaults to 0): of the draw.

    Returns:
        `np.ndarray` of shape `(batches,)`: frames.
    """
    generator = np.random.default_rng(seed)
    drawn = generator.choice(frames, BATCHES_DRAWN * batch_size)
    return (np.sort(drawn) if grouped else drawn).reshape(BATCHES_DRAWN, batch_size).max(axis=1)

"""Several models that tag together: the mean of their probabilities, as in Gong et al. 2021, whatever their lengths and strides.

Each model scores windows of its own length along the same recording. A file is decoded once and resampled once for each
sampling rate; log-mel features before normalising are computed once for models that hear the same samples with as many mel
bins.

How scores of windows of other lengths are put together:

- a file's scores, by the mean or the maximum of windows, are the mean of what each model gives by itself;
- along the time line each model has, at any time, the mean of its own windows over it, and the models the mean of these.
  Segments, and the share of time, are read off that.
"""

import copy
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..audio import AudioReader
from ..system.names_as_text import in_short
from .errors import TaggingError
from .events import events_of_means
from .frames import share_of_time
from .reductions import reduced
from .results import Segment
from .scoring import Recording, WindowScorer
from .segments import REACH, parts_with_sound, runs_of_true
from .tagger import AudioTagger
from .windows import SharedLogMel

KINDS_IN_WORDS = {
    "multi_label_classification": "as independent (sigmoid)",
    "single_label_classification": "as exclusive (softmax)",
}
_RULES_IN_SECONDS = ("min_duration", "close_gaps")


@dataclass(frozen=True)
class _Windows:
    """Of a model's windows their length, and the samples of the first model in one of its own."""

    samples: int
    scale: float


class EnsembleTagger(AudioTagger):
    """Several models as one: scores are the mean of their probabilities. Methods are those of [`AudioTagger`].

    Settings in seconds hold for all models. Without `hop`, windows of a time line start half a window of the shortest model
    apart. The thresholds of the checkpoints, chosen for each model's own scores, do not count.

    Args:
        taggers (sequence of [`AudioTagger`]): one model each, of the same labels in any order.
        names (sequence of `str`, *optional*): what messages call them.

    Attributes:
        members (`tuple[AudioTagger, ...]`): the models, those with shorter windows first.
        config ([`ASTConfig`]): that of the model which was given first, without thresholds and rules of events.

    Raises:
        TaggingError: if the mean of their scores means nothing: other labels, exclusive and independent ones, a regression; or
            they hear other channels of files.
    """

    members: tuple[AudioTagger, ...] = ()

    def __init__(self, taggers: Sequence[AudioTagger], names: Sequence[str] | None = None):
        names = [f"Model {number}" for number in range(1, len(taggers) + 1)] if names is None else names
        if not taggers:
            raise TaggingError("No model was given. Pass one or several.")
        self._check(taggers, names)
        self.config = copy.deepcopy(taggers[0].config)
        self._has_thresholds = any(tagger.config.label_thresholds or tagger.config.event_rules for tagger in taggers)
        self.config.forget_choices()
        self.problem_type = taggers[0].problem_type
        self.members = tuple(sorted(taggers, key=lambda tagger: tagger.window_samples / tagger.sampling_rate))
        first = self.members[0]
        self.device, self.model, self.backend, self.known_clips = first.device, None, None, None
        self.feature_extractor, self.reader, self.window_samples = (
            first.feature_extractor,
            first.reader,
            first.window_samples,
        )
        labels = _labels(self)
        self._orders = [[_labels(member).index(label) for label in labels] for member in self.members]
        self._readers = {member.reader.key: member.reader for member in self.members}
        self._said = first._said
        self.decoding_threads = first.decoding_threads
        for member in self.members:
            member._said = self._said  # what is rounded is said once

    @classmethod
    def from_pretrained(cls, models: Sequence[str | os.PathLike], *settings, **more) -> "EnsembleTagger":
        """Load several models, all of which stay in memory.

        Args:
            models (sequence of `str` or `os.PathLike`): folders, Hub ids, or files of `ast-export`; one alone may be without a list.
            settings: of [`AudioTagger.from_pretrained`].
            more: of [`AudioTagger.from_pretrained`].

        Returns:
            [`EnsembleTagger`].

        Raises:
            CheckpointError: if one of them cannot be used.
            TaggingError: see the class.
        """
        models = [models] if isinstance(models, str | os.PathLike) else models
        return cls([AudioTagger.from_pretrained(model, *settings, **more) for model in models], list(map(str, models)))

    @staticmethod
    def _check(taggers: Sequence[AudioTagger], names: Sequence[str]):
        first, labels = taggers[0], _labels(taggers[0])
        for tagger, name in zip(taggers, names, strict=True):
            if tagger.backend.tells_frames:
                raise TaggingError(
                    f"{name} has a frame head, whose scores are of frames: with others no mean is made of them. Pass it alone, or "
                    "leave it out."
                )
            if tagger.problem_type == "regression":
                raise TaggingError(f"{name} is a regression: it gives no probabilities to average. Leave it out.")
            if Counter(_labels(tagger)) != Counter(labels):
                only, lacking = set(_labels(tagger)) - set(labels), set(labels) - set(_labels(tagger))
                differences = [f"it alone has {in_short(sorted(only))}"] if only else []
                differences += [f"it lacks {in_short(sorted(lacking))}"] if lacking else []
                raise TaggingError(
                    f"{name} has other labels than {names[0]}: {', '.join(differences)}. The mean of scores needs the same labels. "
                    "Pass models that were trained on the same ones."
                )
            if tagger.problem_type != first.problem_type:
                kinds = [KINDS_IN_WORDS[each.problem_type] for each in (tagger, first)]
                raise TaggingError(
                    f"{name} takes its labels {kinds[0]}, {names[0]} {kinds[1]}: the mean of such scores means nothing. Pass models "
                    "of one kind."
                )
            if tagger.reader.channels != first.reader.channels:
                raise TaggingError(
                    f"{name} hears channel {tagger.reader.channels!r} of files, {names[0]} {first.reader.channels!r}. Pass "
                    "--channels with what all of them shall hear."
                )

    def windows_at_once(self, batch_size: int | None = None) -> int:
        """Tell how many windows go through a model in one pass: of the models that choose for themselves the fewest.

        Args:
            batch_size (`int`, *optional*): what somebody chose.

        Returns:
            `int`.
        """
        return min(member.windows_at_once(batch_size) for member in self.members)

    def _checked_plan(self, top_k: int, timeline: bool, **settings):
        if settings.get("embeddings") is not None:
            raise TaggingError(
                f"embeddings={settings['embeddings']!r}: vectors are of one model, and there are {len(self.members)}. Pass one, or "
                "leave embeddings out."
            )
        plan = super()._checked_plan(top_k, timeline, **settings)
        shift, window = plan.hop_samples / self.sampling_rate, settings.get("window")
        members = []
        for member in self.members:
            samples = member._window_samples(window)
            members.append((samples, member._hop_samples(shift, samples) if timeline else samples))
        plan = replace(plan, of_members=tuple(members))
        if plan.segments == "window":
            self._check_same_windows(plan, "segments='window' needs")
        if settings.get("threshold") is None and self._has_thresholds and (timeline or plan.reduction == "share"):
            self._warn_once(
                "The thresholds of the checkpoints are of each model's own scores; their mean counts from 0.5 on. Pass --threshold for "
                "another."
            )
        left_out = [
            name for name in _RULES_IN_SECONDS if timeline and settings.get(name) is None and self._chosen(name)
        ]
        if left_out:
            flags = " and ".join(f"--{name}" for name in left_out)
            self._warn_once(
                f"{' and '.join(left_out)} of the checkpoints' event_rules are of each model's own scores and do not count for their mean. "
                f"Pass {flags} in seconds."
            )
        return plan

    def _chosen(self, name: str) -> bool:
        """Whether a checkpoint has a rule of events for some label."""
        return any(name in rules for member in self.members for rules in (member.config.event_rules or {}).values())

    def _check_window_lines(self, plan):
        self._check_same_windows(plan, "To tell windows as they come needs")

    def _check_same_windows(self, plan, what: str):
        lengths = {
            samples / each.sampling_rate for each, (samples, _) in zip(self.members, plan.of_members, strict=True)
        }
        if len(lengths) > 1:
            seconds = sorted(f"{length:g}" for length in lengths)
            raise TaggingError(
                f"{what} models with windows of one length, and these have {', '.join(seconds)} s. Pass --window {min(lengths):g}."
            )

    def _why_no_novelty(self) -> str:
        return f"what tells it is of one model, and there are {len(self.members)}. Pass one of them"

    @property
    def _keeps_known_clips(self) -> bool:
        return any(member.known_clips is not None for member in self.members)

    @property
    def _other_readers(self) -> tuple[AudioReader, ...]:
        return tuple(self._readers.values())[1:]

    @property
    def _highest_rate(self) -> int:
        return max(member.sampling_rate for member in self.members)

    def _blocks_of_models(self, of_readers: list[np.ndarray]) -> list[np.ndarray]:
        places = list(self._readers)
        return [of_readers[places.index(member.reader.key)] for member in self.members]

    def _recordings(self, name: str, plan, channel: int | None = None) -> list[Recording]:
        keys = [(each.reader.key, each.feature_extractor.num_mel_bins, str(each.device)) for each in self.members]
        shared = {}
        for key, member in zip(keys, self.members, strict=True):
            if keys.count(key) > 1 and key not in shared and not member.backend.takes_waveforms:
                raw = copy.copy(member.feature_extractor)
                raw.do_normalize = False
                shared[key] = SharedLogMel(raw, member.device)
        recordings = []
        for key, member, (window, hop) in zip(keys, self.members, plan.of_members, strict=True):
            own = replace(plan, window_samples=window, hop_samples=hop)
            recordings.append(
                member._recording(name, own, channel, None if member.backend.takes_waveforms else shared.get(key))
            )
        return recordings

    def _scorers(self, batch_size: int, plan) -> list[WindowScorer]:
        return [
            WindowScorer(_InOrder(member, order), batch_size, member._batches_sorted(batch_size))
            for member, order in zip(self.members, self._orders, strict=True)
        ]

    def _found(self, recordings: list[Recording], plan) -> tuple[np.ndarray | None, list[Segment] | None]:
        rules, name, num_samples = plan.rules, recordings[0].name, recordings[0].num_samples
        windows = [
            _Windows(samples, self.sampling_rate / member.sampling_rate)
            for member, (samples, _) in zip(self.members, plan.of_members, strict=True)
        ]
        by_time = None
        if plan.segments == "hop" or plan.reduction == "share":
            by_time = means_of_models(recordings, windows, num_samples)
        if plan.reduction == "share":
            scores = None
            if by_time:
                scores = (share_of_time(by_time, rules.find_active) / num_samples).astype(np.float32)
        else:
            own = [reduced(recording, plan.reduction, rules.find_active) for recording in recordings]
            own = [of_model for of_model in own if of_model is not None]
            scores = np.mean(own, axis=0) if own else None
        if plan.segments is None:
            return scores, None
        if plan.segments == "window":
            return scores, self._segments(name, num_samples, _window_means(recordings), plan)
        reach = REACH * max(each.samples * each.scale for each in windows)
        return scores, self._as_segments(name, events_of_means(by_time, reach, rules))


class _InOrder:
    """Scores of a model's windows with its labels in the order of the first model."""

    def __init__(self, tagger: AudioTagger, order: list[int]):
        self.tagger, self.order = tagger, order

    def __call__(self, windows: list) -> tuple[np.ndarray, None, None]:
        return self.tagger._score(windows)[0][:, self.order], None, None


def means_of_models(
    recordings: Sequence[Recording], windows: Sequence[_Windows], num_samples: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Put the scores of models with windows of any lengths together along a recording.

    Between two neighbouring starts or ends of any windows each model has the mean of its windows over that place, and the place
    the mean of the models. Silent windows have no scores, and no place within one has, if it is of a model that hears up to the
    highest frequency: what another calls silent may sound above what it hears. A model has none where all of its windows are
    silent.

    Args:
        recordings (sequence of [`Recording`]): the same sound, scored by each model.
        windows (sequence): of each model the length of its windows, and what makes its samples those of the first.
        num_samples (`int`): length of the recording for the first model.

    Returns:
        For each stretch in which some model has scores the edges of its places, in samples of the first model, and the means,
        float32 of shape `(places, labels)`.
    """
    spans, silent, of_highest_rate = [], [], min(of_model.scale for of_model in windows)
    for recording, of_model in zip(recordings, windows, strict=True):
        starts = np.frombuffer(recording.starts, np.int64)
        ends = (starts + of_model.samples) * of_model.scale
        ends[-1] = num_samples  # with which the last window ends, whatever resampling rounded
        scored = np.frombuffer(recording.scored, bool)
        begins, ends = starts * of_model.scale, np.minimum(ends, num_samples)
        spans.append((begins[scored], ends[scored]))
        if of_model.scale == of_highest_rate:
            silent.append((begins[~scored], ends[~scored]))
    edges = np.unique(np.concatenate([ends for of_model in spans for ends in of_model]))
    if len(edges) < 2:
        return []
    total, models = 0.0, np.zeros(len(edges) - 1)
    for recording, (begins, ends) in zip(recordings, spans, strict=True):
        if not len(begins):
            continue
        scores = recording.scores[np.flatnonzero(np.frombuffer(recording.scored, bool))]
        # Of windows of one length those over a place are neighbours.
        first = np.searchsorted(ends, edges[:-1], side="right")
        after = np.searchsorted(begins, edges[:-1], side="right")
        sums = np.zeros((len(scores) + 1, scores.shape[1]))
        np.cumsum(scores, axis=0, out=sums[1:])
        count = after - first
        means = (sums[after] - sums[first]) / np.maximum(count, 1)[:, None]
        total, models = total + means, models + (count > 0)
    means = (total / np.maximum(models, 1)[:, None]).astype(np.float32)
    places = [(edges[first : last + 2], means[first : last + 1]) for first, last in runs_of_true(models > 0)]
    for of_model in silent:
        places = [part for of_run in places for part in parts_with_sound(*of_run, *of_model)]
    return places


def _window_means(recordings: Sequence[Recording]) -> list[tuple[list[int], np.ndarray]]:
    """Runs as of [`Recording.runs`], of models whose windows lie at the same times: of each window the mean of the models."""
    count = min(len(recording.starts) for recording in recordings)
    scored = np.stack([np.frombuffer(recording.scored, bool)[:count] for recording in recordings])
    total = 0.0
    for recording, of_model in zip(recordings, scored, strict=True):
        if of_model.any():
            own = np.zeros((count, recording.scores.shape[1]))
            own[of_model] = recording.scores[np.flatnonzero(of_model)]
            total = total + own
    if not scored.any():
        return []
    means = (total / np.maximum(scored.sum(axis=0), 1)[:, None]).astype(np.float32)
    starts = recordings[0].starts.tolist()
    return [(starts[first : last + 1], means[first : last + 1]) for first, last in runs_of_true(scored.any(axis=0))]


def _labels(tagger: AudioTagger) -> list[str]:
    return [tagger.config.id2label[index] for index in range(tagger.config.num_labels)]

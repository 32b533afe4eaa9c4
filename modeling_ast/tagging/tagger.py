"""Tag audio files of any length with a fine-tuned AST: scores for each file, and segments along its time line.

A model sees one window of `max_length` frames. Longer files are scored window by window; how the windows lie and how
their scores are put together is said in [`AudioTagger.tag_files`]. Files are heard block by block, so that memory does not grow
with their length.
"""

import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from numbers import Real

import numpy as np

from ..audio import CANCELLED, SILENT, AudioError, AudioNote, AudioReader, SoundStream, errors_of_file
from ..audio.arrays import full_scale_waveform, whole_rate
from ..audio.channels import ChunkLevels, channel_number, one_channel
from ..audio.limits import checked_level
from ..audio.resampling import StreamResampler
from ..audio.silence import SILENT_PEAK
from ..checkpoints.fields import CheckpointError
from ..checkpoints.shipped import folder_of
from ..frame_columns import FrameColumns
from ..layers.patch_grid import NUM_CLASS_TOKENS, patch_grid_of
from ..system.names_as_text import in_short
from .ahead import ahead, decoding_threads
from .backends import OnnxBackend, TorchBackend, choose_device, is_onnx, refuse_pytorch_settings
from .embeddings import FileEmbeddings, WindowVectors, check_embeddings, file_embeddings
from .errors import TaggingError
from .events import EventRules, event_rules, events_of_means, events_of_runs
from .frames import FrameRecording, reduced_places, refuse_for_frames, smoothed
from .none_of_these import FARTHEST, OFF, ON, KnownClips, load_known_clips
from .novelty import novelty_of
from .reductions import REDUCTIONS, reduced
from .results import FileTags, Segment, Tag, WindowTags
from .score_tracks import ScoreTrack
from .scoring import Recording, WindowScorer
from .segments import REACH, SEGMENT_READINGS, Stretch, hop_places
from .window_times import RoundedTimes
from .windows import SharedLogMel, Window, WindowCutter

__all__ = ["AudioTagger", "FileTags", "Segment", "Tag", "TaggingError", "choose_device"]

LONG_FILE = 600  # seconds, from which on a file's results are given before another is decoded
# Tokens of a batch, of the sizes that are published: small models take more windows at a time, or calls would cost more than
# the arithmetic.
TOKENS_AT_ONCE, FEWEST_WINDOWS, MOST_WINDOWS = 9712, 8, 64
BATCHES_SORTED = 8


@dataclass(frozen=True)
class _Plan:
    """What is done with each file, checked."""

    top_k: int
    window_samples: int
    hop_samples: int
    silent_peak: float
    each_channel: bool
    reduction: str
    rules: EventRules
    segments: str | None  # how they are read, if there are any
    embeddings: str | None
    progress: Callable[[str, float, float | None], None] | None = None
    faint: EventRules | None = None  # by which segments are given besides
    farthest: float | None = None  # distance of windows like the training clips, where others are told
    median_width: int | np.ndarray = 1  # columns of a frame head, or windows, over which scores are smoothed
    of_members: tuple[tuple[int, int], ...] = ()  # of each of several models the samples of its windows and hops


class AudioTagger(RoundedTimes):
    """A model and its feature extractor, loaded once, ready to tag files.

    Args:
        model ([`ASTForAudioClassification`], [`ASTForAudioFrameClassification`] or [`OnnxBackend`]): a model with a trained
            head.
        feature_extractor ([`ASTFeatureExtractor`]): the one that was saved with it.
        device (`str`, *optional*, defaults to `"auto"`):
            `"cpu"`, `"cuda"`, `"mps"`, or `"auto"` for the fastest of them that is there.
        reader ([`AudioReader`], *optional*): how files are heard; as the feature extractor says if not given.
        compiled (`bool`, *optional*, defaults to `False`): see [`TorchBackend`].
        known_clips ([`KnownClips`], *optional*): the model's training clips, by which clips unlike them are told.

    Attributes:
        model ([`ASTForAudioClassification`], *optional*): the model, if it runs in PyTorch.
        backend ([`TorchBackend`] or [`OnnxBackend`]): what scores windows.
        config ([`ASTConfig`]): the model's.
        decoding_threads (`int`): by how many threads files are decoded ahead; 0 where there is but one processor for all.
        columns ([`FrameColumns`], *optional*): those that its scores are of, if it has a frame head.

    Raises:
        TaggingError: if the device is not there, model and feature extractor are of different sizes, or the model cannot be
            compiled.
    """

    def __init__(
        self,
        model,
        feature_extractor,
        device: str = "auto",
        reader: AudioReader | None = None,
        compiled: bool = False,
        known_clips: KnownClips | None = None,
    ):
        for name in ("max_length", "num_mel_bins"):
            expected, given = getattr(model.config, name), getattr(feature_extractor, name)
            if expected != given:
                raise TaggingError(
                    f"{name} is {expected} in the model's config.json and {given} in preprocessor_config.json. Use the "
                    "feature extractor that was saved with the model."
                )
        self.backend = model if isinstance(model, OnnxBackend) else TorchBackend(model, device, compiled)
        self.device, self.model, self.config = self.backend.device, self.backend.model, self.backend.config
        self.problem_type = self.backend.problem_type
        self.columns = FrameColumns.of(self.config) if self.backend.tells_frames else None
        self.feature_extractor = feature_extractor
        self.reader = feature_extractor.audio_reader() if reader is None else reader
        self.window_samples = feature_extractor.max_samples
        self.known_clips = known_clips
        self._said: set[str] = set()
        self.decoding_threads = decoding_threads()

    @classmethod
    def from_pretrained(
        cls,
        model_name_or_path: str | os.PathLike,
        device: str = "auto",
        channels: str | int | None = None,
        refused: frozenset[str] = frozenset(),
        tokens_merged_per_layer: int = 0,
        compiled: bool = False,
        frame_heads: bool = False,
    ) -> "AudioTagger":
        """Load a checkpoint folder, a model of the Hub, or a file of `ast-export`.

        Args:
            model_name_or_path (`str` or `os.PathLike`): a folder, a Hub id such as `user/name`, `ast-small`, or an ONNX
                file.
            device (`str`, *optional*, defaults to `"auto"`): see the class.
            channels (`str` or `int`, *optional*): which channels of files are heard, if not those of the checkpoint.
            refused (`frozenset[str]`, *optional*): kinds of notes that are errors; see [`AudioReader`].
            tokens_merged_per_layer (`int`, defaults to 0): tokens that a layer merges into others, for speed; see
                [`ASTPreTrainedModel.merge_tokens`].
            compiled (`bool`, *optional*, defaults to `False`): see [`TorchBackend`].
            frame_heads (`bool`, *optional*, defaults to `False`): see [`load_checkpoint`].

        Returns:
            [`AudioTagger`].

        Raises:
            CheckpointError: if it cannot be used; see [`load_checkpoint`] and [`OnnxBackend`].
            ValueError: if there is no such choice of channels; the message says which there are.
            TaggingError: see the class; also for an ONNX file with what only PyTorch can.
        """
        known_clips = None
        if is_onnx(model_name_or_path):
            model = OnnxBackend(model_name_or_path, device)
            refuse_pytorch_settings(model_name_or_path, device, tokens_merged_per_layer, compiled)
            if model.tells_frames and not frame_heads:
                from ..loading import FRAMES_REFUSED

                raise CheckpointError(f"{model_name_or_path} cannot be used: {FRAMES_REFUSED}")
            feature_extractor = model.feature_extractor(channels)
        else:
            from ..loading import load_checkpoint

            model, feature_extractor = load_checkpoint(
                model_name_or_path, channels, tokens_merged_per_layer, frame_heads=frame_heads
            )
            if model.head_name == "classifier":
                known_clips = load_known_clips(folder_of(model_name_or_path), model.config.hidden_size)
        reader = feature_extractor.audio_reader(refused=refused)
        return cls(model, feature_extractor, device, reader, compiled, known_clips)

    @property
    def members(self) -> tuple["AudioTagger", ...]:
        """The taggers of one model each that this one is made of: itself."""
        return (self,)

    @property
    def sampling_rate(self) -> int:
        """Sampling rate of the model's input in Hz."""
        return self.feature_extractor.sampling_rate

    def tag_files(
        self,
        files: Iterable[str | os.PathLike | dict],
        top_k: int = 5,
        batch_size: int | None = None,
        timeline: bool = False,
        hop: float | None = None,
        threshold: float | None = None,
        segments: str | None = None,
        off: float | None = None,
        min_duration: float | None = None,
        close_gaps: float | None = None,
        embeddings: str | None = None,
        *,
        median_filter: float | None = None,
        window: float | None = None,
        reduction: str = "mean",
        silence_db: float | None = None,
        none_of_these: str | float | None = None,
        each_channel: bool = False,
        faint: bool = False,
        progress: Callable[[str, float, float | None], None] | None = None,
    ) -> Iterator[FileTags]:
        """Tag files one after the other, several at a time in the model.

        A file is scored in windows of the model's length; a file shorter than a window is one window, padded by the feature
        extractor. A file's labels are those with the highest mean over its windows. Without a time line the windows lie side
        by side, and a last one ends with the file if enough is left for it, see [`least_rest`]; with one they are `hop`
        seconds apart and the last one ends with the file, so that the means can differ a little. Segments of
        different labels may overlap. Silent windows are not scored, and no segment of the reading `"hop"` is where one lies.

        Args:
            files (iterable of `str`, `os.PathLike` or `dict`): audio files of any length, or `{"bytes", "path"}` as of an undecoded
                column. Some are heard ahead of their results.
            top_k (`int`, *optional*, defaults to 5): labels given for each file, best first.
            batch_size (`int`, *optional*):
                Windows in one pass of the model; see [`AudioTagger.windows_at_once`].
            timeline (`bool`, *optional*, defaults to `False`): whether to give segments.
            hop (`float`, *optional*):
                Seconds between the starts of two windows of a time line; half a window, rounded down to frames of 10 ms, by
                default. It is rounded to whole frames, as each is computed once; what that changes is logged.
            threshold (`float`, *optional*):
                Score from which a label is active, in a window or in the mean of several. By default, if the model is
                multi-label, each label has the score that the checkpoint's `event_rules` or else its `label_thresholds`
                name, or 0.5. If the model is single-label, only the best label can be active, and it always is by default.
            segments (`str`, *optional*):
                What a segment of a model with a clip head is, `"hop"` by default: `"hop"`, a stretch that the windows which cover it have the label for in their mean, as
                exact as `hop` is short; `"window"`, all that a run of neighbouring windows with the label covers, which is
                never less than a window. See [`label_stretches`].
            off (`float`, *optional*):
                Score down to which a label that became active stays so, also where in a single-label model another one is
                the best; by default what the checkpoint's `event_rules` have; if there is nothing, it ends where it could not become
                active.
            min_duration (`float`, *optional*):
                Seconds; shorter segments are left out. By default what the checkpoint's `event_rules` have, or nothing.
            close_gaps (`float`, *optional*):
                Seconds; segments of a label with no more than that between them become one, before short ones are left out. By
                default what the checkpoint's `event_rules` have, or nothing.
            embeddings (`str`, *optional*):
                `"file"`, `"window"` or `"second"`, to give vectors of each of these, from the same windows and the same pass of
                the model; see [`file_embeddings`]. Silent windows have none.
            median_filter (`float`, *optional*):
                Seconds over which scores are smoothed by their median, before events are found in them; rounded to an odd number of
                columns of a frame head, or of windows of one model. By default what the checkpoint's `event_rules` have, or nothing.
            window (`float`, *optional*):
                Seconds that are scored at once, if not the model's own length. Shorter windows are padded as short clips are.
            reduction (`str`, *optional*, defaults to `"mean"`): what a file's scores are, see [`reduced`].
            silence_db (`float`, *optional*):
                Decibels of full scale up to which a window's samples are silence, -80 by default; silent windows are not
                scored.
            none_of_these (`str` or `float`, *optional*):
                Whether to tell clips unlike the training clips: `"on"`, `"off"`, or the largest distance of those that are like
                them, if not the checkpoint's. Where the checkpoint can tell them if not given; see [`KnownClips`].
            each_channel (`bool`, *optional*, defaults to `False`):
                Whether each channel of a file is tagged by itself, in place of the reader's choice.
            faint (`bool`, *optional*, defaults to `False`):
                Whether the segments by half the thresholds are given too, with a time line; see [`EventRules.fainter`].
            progress (callable, *optional*):
                Called with a file, the seconds of it that were heard so far, and how many it should last, if it says so.

        Returns:
            An iterator over a [`FileTags`] for each file, in the order given, or one for each channel. A file that cannot be
            decoded or scored has `error` set, and the files after it are tagged all the same. Labels are none if all is
            silent.

        Raises:
            TaggingError: if `window` is none that the model hears, `hop` is no part of a window, `threshold` or `off` is not
                between 0 and 1, `off` is above `threshold`, a time is not above 0, there is no such reading of `segments`, kind
                of `embeddings` or reduction, `silence_db` is not below 0, `batch_size` is below 1, the model has no labels, or clips
                unlike the training clips are to be told and cannot.
        """
        plan = self._checked_plan(
            top_k,
            timeline,
            hop=hop,
            threshold=threshold,
            segments=segments,
            off=off,
            min_duration=min_duration,
            close_gaps=close_gaps,
            embeddings=embeddings,
            median_filter=median_filter,
            window=window,
            reduction=reduction,
            silence_db=silence_db,
            none_of_these=none_of_these,
        )
        fainter = plan.rules.fainter() if faint and timeline else None
        plan = replace(plan, each_channel=each_channel, faint=fainter, progress=progress)
        return self._tag_in_turn(files, self.windows_at_once(batch_size), plan)

    def score_tracks(
        self, sources: Iterable[str | os.PathLike | dict], names: Sequence[str] | None = None
    ) -> Iterator[ScoreTrack]:
        """Score recordings along time, as a time line does, and make no events of the scores yet.

        Args:
            sources (iterable of `str`, `os.PathLike` or `dict`): audio files, or `{"bytes", "path"}` as of an undecoded column.
            names (sequence of `str`, *optional*): what messages call them.

        Yields:
            [`ScoreTrack`].

        Raises:
            AudioError: for one that cannot be heard or scored.
            TaggingError: if the model has no labels.
        """
        if len(self.members) > 1:
            raise TaggingError("Scores along time are of one model. Pass one.")
        plan = self._checked_plan(1, True, none_of_these=OFF)
        for number, source in enumerate(sources):
            scorers = self._scorers(self.windows_at_once(), plan)
            stream = self.reader.stream(source, None if names is None else names[number])
            waveforms, error = self._hear(stream, scorers, plan)
            for scorer in scorers:
                scorer.flush()
            error = error or _error_of(waveforms[0])
            if error is not None:
                raise AudioError(error)
            yield self._track(waveforms[0], plan)

    def _track(self, recordings: list[Recording], plan: _Plan) -> ScoreTrack:
        (recording,) = recordings
        about = (recording.name, recording.num_samples, self.sampling_rate)
        if self.columns is not None:
            return ScoreTrack(*about, recording.places(), None, self.columns)
        silent = recording.silent_spans()
        places = hop_places(recording.runs(), plan.window_samples, recording.num_samples, silent)
        return ScoreTrack(*about, places, REACH * plan.window_samples)

    def tag_stream(
        self,
        chunks: Iterable[np.ndarray],
        sampling_rate: int,
        name: str = "The stream",
        on_window: Callable[[WindowTags], None] | None = None,
        top_k: int = 5,
        timeline: bool = False,
        **settings,
    ) -> FileTags:
        """Tag sound that comes in chunks, in real time or not.

        Args:
            chunks (iterable of `np.ndarray` of shape `(samples,)` or `(samples, channels)`):
                Of any lengths, floats in [-1, 1] or integers at their full scale.
            sampling_rate (`int`): of the chunks, in Hz.
            name (`str`, *optional*): what results and messages call it.
            on_window (callable, *optional*):
                Called with a [`WindowTags`] for each window as soon as it is heard; windows are then scored one by one.
            top_k (`int`, *optional*, defaults to 5): labels that are given, best first.
            timeline (`bool`, *optional*, defaults to `False`): whether to give segments.
            settings: of [`AudioTagger.tag_files`], but for `each_channel`, `faint` and `progress`.

        Returns:
            [`FileTags`]: what was found, when the chunks have come to their end; of chunks that cannot be used the error, beside
            what was found before them.

        Raises:
            TaggingError: see [`AudioTagger.tag_files`].
        """
        batch_size = self.windows_at_once(settings.pop("batch_size", None)) if on_window is None else 1
        settings.pop("batch_size", None)
        plan = self._checked_plan(top_k, timeline, **settings)
        if on_window is not None:
            self._check_window_lines(plan)
        recordings, scorers = self._recordings(name, plan), self._scorers(batch_size, plan)
        levels = ChunkLevels(self.reader.channels)
        told = 0

        def take(blocks: list[np.ndarray] | None):
            nonlocal told
            self._take(scorers, recordings, blocks)
            complete = min(len(recording.starts) for recording in recordings)
            while on_window is not None and told < complete and _error_of(recordings) is None:
                on_window(self._window_tags(recordings, told, plan))
                told += 1

        failure = None
        try:
            for blocks in self._blocks_of_chunks(chunks, sampling_rate, name, on_window is not None, levels):
                take(blocks)
        except AudioError as error:
            failure = str(error)
        too_short = self._too_short(name, min(recording.num_samples for recording in recordings))
        if too_short is not None:
            return FileTags(name, [], error=failure or too_short)
        take(None)
        for scorer in scorers:
            scorer.flush()
        error = _error_of(recordings)
        if error is not None:
            return FileTags(name, [], error=error)
        notes = levels.notes(name)
        is_said = any(note.kind in (CANCELLED, SILENT) for note in notes)
        return replace(self._result(recordings, plan, notes, sampling_rate, is_said), error=failure)

    def _blocks_of_chunks(
        self, chunks: Iterable[np.ndarray], sampling_rate: int, name: str, soon: bool, levels: ChunkLevels
    ) -> Iterator[list[np.ndarray]]:
        """Resample chunks for each reader; what goes wrong here, and not where they are taken, is the chunks' error."""
        with errors_of_file(name, "heard"):
            file_rate = whole_rate(sampling_rate, name)
            resamplers = [
                StreamResampler(file_rate, reader.sampling_rate, reader.resampler, soon)
                for reader in (self.reader, *self._other_readers)
            ]
            for chunk in chunks:
                samples, waveform = self._heard_chunk(chunk, name)
                levels.add(samples, waveform, file_rate)
                yield [resampler.add(waveform) for resampler in resamplers]
            yield [resampler.finish() for resampler in resamplers]

    def _heard_chunk(self, chunk: np.ndarray, name: str) -> tuple[np.ndarray, np.ndarray]:
        """A chunk's samples of shape `(samples, channels)`, and what is heard of them."""
        samples = full_scale_waveform(np.asarray(chunk), name)
        samples = samples[:, None] if samples.ndim == 1 else samples
        if samples.ndim != 2:
            raise AudioError(
                f"{name} has a chunk of shape {samples.shape}, expected (samples,) or (samples, channels)."
            )
        samples = samples.astype(np.float32, copy=False)
        waveform = one_channel(samples, self.reader.channels, name)
        if len(waveform):
            checked_level(float(waveform.min()), float(waveform.max()), name)
        return samples, waveform

    def _window_tags(self, recordings: list[Recording], number: int, plan: _Plan) -> WindowTags:
        start = recordings[0].starts[number]
        end = min(start + plan.window_samples, recordings[0].num_samples)
        scores = [recording.scores[number] for recording in recordings if recording.scored[number]]
        labels = self._best_labels(np.mean(scores, axis=0), plan.top_k) if scores else []
        beyond = plan.farthest is not None and recordings[0].distances[number] > plan.farthest  # NaN is not
        return WindowTags(start / self.sampling_rate, end / self.sampling_rate, labels, beyond)

    def windows_at_once(self, batch_size: int | None = None) -> int:
        """Tell how many windows go through the model in one pass; results of so many files are given together.

        Args:
            batch_size (`int`, *optional*): what somebody chose.

        Returns:
            `int`: that; if not given, 8 of the published sizes and up to 64 of smaller models, which take less time for a
            window then.

        Raises:
            TaggingError: if it is below 1.
        """
        if batch_size is not None:
            if batch_size < 1:
                raise TaggingError(f"batch_size={batch_size} is no number of windows. Pass --batch_size 1 or more.")
            return batch_size
        frequency, time = patch_grid_of(self.config, self.config.max_length)
        tokens = frequency * time + NUM_CLASS_TOKENS
        return min(max(TOKENS_AT_ONCE // tokens, FEWEST_WINDOWS), MOST_WINDOWS)

    def _checked_plan(
        self,
        top_k: int,
        timeline: bool,
        hop: float | None = None,
        threshold: float | None = None,
        segments: str | None = None,
        off: float | None = None,
        min_duration: float | None = None,
        close_gaps: float | None = None,
        embeddings: str | None = None,
        median_filter: float | None = None,
        window: float | None = None,
        reduction: str = "mean",
        silence_db: float | None = None,
        none_of_these: str | float | None = None,
    ) -> _Plan:
        rules = event_rules(self.config, self.sampling_rate, threshold, off, min_duration, close_gaps, timeline)
        if off is not None:
            self._say_what_off_does_not(rules, off)
        check_embeddings(embeddings)
        if embeddings is not None and self.backend.without_vectors is not None:
            raise TaggingError(f"embeddings={embeddings!r}: {self.backend.without_vectors}")
        refuse_for_frames(segments, self.columns is not None, SEGMENT_READINGS)
        if median_filter is not None and len(self.members) > 1:
            raise TaggingError(
                "median_filter is of the windows of one model. Leave --median_filter out, or pass one model."
            )
        if median_filter is not None and self.columns is None and not timeline:
            raise TaggingError(
                "median_filter smooths the windows of a time line. Add --timeline, or leave --median_filter out."
            )
        if reduction not in REDUCTIONS:
            raise TaggingError(f"reduction={reduction!r} is none of {', '.join(REDUCTIONS)}. Pass one of them.")
        window_samples = self._window_samples(window)
        hop_samples = window_samples
        if timeline or self.columns is not None:
            hop_samples = self._hop_samples(hop, window_samples, timeline, window)
        width = self._median_width(median_filter, hop_samples) if timeline or median_filter is not None else 1
        if self.problem_type == "regression":
            if timeline:
                raise TaggingError("This model is a regression: it has no labels to place on a time line.")
            if reduction == "share":
                raise TaggingError(
                    "This model is a regression: it has no threshold for a share of time. Pass mean or max."
                )
        if silence_db is not None and not -math.inf < silence_db < 0:
            raise TaggingError(f"silence_db={silence_db} is not below full scale. Pass for example --silence_db -60.")
        silent_peak = SILENT_PEAK if silence_db is None else 10 ** (silence_db / 20)
        reading = (segments or SEGMENT_READINGS[0]) if timeline else None
        plan = _Plan(top_k, window_samples, hop_samples, silent_peak, False, reduction, rules, reading, embeddings)
        return replace(plan, median_width=width, farthest=self.farthest_known(none_of_these))

    def _say_what_off_does_not(self, rules: EventRules, off: float):
        idle = np.broadcast_to(rules.without_use_of_off(), self.config.num_labels)
        if not idle.any():
            return
        names = in_short(self.config.id2label[int(label)] for label in np.flatnonzero(idle))
        which = "any label" if idle.all() else names
        on = np.broadcast_to(rules.on, idle.shape)[idle]
        scores = f"{on.min():g}" if on.min() == on.max() else f"{on.min():g} to {on.max():g}"
        self._warn_once(
            f"off={off:g} is above the score with which events of {which} begin here, {scores}, so that they go on nowhere else. Pass "
            "a lower --off, or a higher --on beside it."
        )

    def farthest_known(self, none_of_these: str | float | None = None) -> float | None:
        """Tell from which distance on a clip is told to be unlike the training clips.

        Args:
            none_of_these (`str` or `float`, *optional*): see [`AudioTagger.tag_files`].

        Returns:
            The largest distance of clips that are like them; `None` if others are not told.

        Raises:
            TaggingError: if it is asked for and cannot be told, or is no distance.
        """
        if none_of_these == OFF:
            return None
        if none_of_these not in (None, ON) and not (
            isinstance(none_of_these, Real) and not isinstance(none_of_these, bool) and 0 <= none_of_these <= FARTHEST
        ):
            raise TaggingError(
                f"none_of_these={none_of_these!r} is neither {ON} nor {OFF} nor a distance from 0 to {FARTHEST:g}. Pass one of these."
            )
        why = self._why_no_novelty()
        if why is None:
            return self.known_clips.threshold if none_of_these in (None, ON) else float(none_of_these)
        if none_of_these is not None:
            raise TaggingError(f"none_of_these={none_of_these!r}: {why}, or leave it out.")
        words = f"Clips that are none of the labels are not told: {why}."
        if self._keeps_known_clips:
            self._warn_once(words)
        return None

    def _why_no_novelty(self) -> str | None:
        """Why clips unlike the training clips cannot be told, and what to do about it; `None` if they can."""
        if self.backend.without_vectors is not None:
            return self.backend.without_vectors.rstrip(".")
        if self.known_clips is None:
            return "the model keeps nothing of its training clips. Train it with ast-finetune --none_of_these true"
        return None

    @property
    def _keeps_known_clips(self) -> bool:
        return self.known_clips is not None

    def _tag_in_turn(
        self, files: Iterable[str | os.PathLike | dict], batch_size: int, plan: _Plan
    ) -> Iterator[FileTags]:
        """Hear files one after the other, score their windows in common batches, and give results as soon as they are there.

        A long file's results do not wait for others.
        """
        scorers = self._scorers(batch_size, plan)
        most_held = 2 * batch_size * self._batches_sorted(batch_size)
        heard: deque[tuple[SoundStream, list[list[Recording]], str | None]] = deque()
        for stream in ahead(self._streams(files, plan), self.decoding_threads):
            waveforms, error = self._hear(stream, scorers, plan)
            heard.append((stream, waveforms, error))
            is_long = any(each[0].num_samples > LONG_FILE * self.sampling_rate for each in waveforms)
            # Files without a window that is scored, or with windows of another kind, fill no batch for those before them.
            if is_long or len(heard) >= most_held:
                for scorer in scorers:
                    scorer.flush()
            while heard and not any(each.waiting for recordings in heard[0][1] for each in recordings):
                yield from self._results(*heard.popleft(), plan)
        for scorer in scorers:
            scorer.flush()
        for each in heard:
            yield from self._results(*each, plan)

    def _streams(self, files: Iterable[str | os.PathLike | dict], plan: _Plan) -> Iterator[SoundStream]:
        for file in files:
            source = file if isinstance(file, dict) else str(file)
            yield self.reader.stream(source, each_channel=plan.each_channel, others=self._other_readers)

    def _hear(
        self, stream: SoundStream, scorers: list[WindowScorer], plan: _Plan
    ) -> tuple[list[list[Recording]], str | None]:
        """Hear a file and have its windows scored, by and by.

        Returns:
            For what is heard of it, each channel by itself if that was asked for, the recordings of the models; and why it
            cannot be heard, if that is so.
        """
        waveforms: list[list[Recording]] = []

        def forget() -> list[list[Recording]]:
            for scorer in scorers:
                scorer.forget([recording for recordings in waveforms for recording in recordings])
            waveforms.clear()
            return waveforms

        def take(_, of_readers: list[np.ndarray]):
            if not waveforms:
                numbers = range(1, len(of_readers[0]) + 1)
                each = plan.each_channel
                waveforms.extend(self._recordings(stream.name, plan, number if each else None) for number in numbers)
            for channel, recordings in enumerate(waveforms):
                self._take(scorers, recordings, [blocks[channel] for blocks in of_readers])
            if plan.progress is not None:
                plan.progress(stream.name, waveforms[0][0].num_samples / self.sampling_rate, stream.announced)

        try:
            stream.heard_by(forget, take, of_all=True)
        except AudioError as error:
            forget()
            return [], str(error)
        for recordings in waveforms:
            error = self._too_short(stream.name, recordings[0].num_samples)
            if error is not None:
                return [], error
            self._take(scorers, recordings, None)
        return waveforms, None

    @property
    def _other_readers(self) -> tuple[AudioReader, ...]:
        """Readers besides `reader` for which sound is resampled; [`EnsembleTagger`] has some."""
        return ()

    def _recordings(self, name: str, plan: _Plan, channel: int | None = None) -> list[Recording]:
        """What is made of one waveform: a recording for each model that hears it."""
        return [self._recording(name, plan, channel)]

    def _recording(
        self, name: str, plan: _Plan, channel: int | None = None, shared: SharedLogMel | None = None
    ) -> Recording:
        cutter = WindowCutter(
            self.feature_extractor,
            self.device,
            plan.window_samples,
            plan.hop_samples,
            plan.silent_peak,
            shared,
            self._step_samples if self.columns is not None else 1,
            self.backend.takes_waveforms,
        )
        if self.columns is not None:
            return FrameRecording(name, cutter, channel, self.columns, self.sampling_rate)
        return Recording(name, cutter, channel)

    def _scorers(self, batch_size: int, plan: _Plan) -> list[WindowScorer]:
        """What scores the windows of each of the [`_recordings`]."""
        score = partial(self._score, embeddings=plan.embeddings, with_distances=plan.farthest is not None)
        return [WindowScorer(score, batch_size, self._batches_sorted(batch_size))]

    def _batches_sorted(self, batch_size: int) -> int:
        """Of how many batches windows are sorted by length: of a stream each is scored as it comes, and a fixed length needs it not."""
        fields = getattr(self.backend, "extractor_fields", None) or vars(self.feature_extractor)
        return BATCHES_SORTED if batch_size > 1 and fields.get("padding") != "max_length" else 1

    def _check_window_lines(self, plan: _Plan):
        """Refuse windows that are told one by one where there are no such; see [`EnsembleTagger`]."""

    def _blocks_of_models(self, of_readers: list[np.ndarray]) -> list[np.ndarray]:
        """The block of each of the [`_recordings`], of those of the readers."""
        return of_readers

    def _take(self, scorers: list[WindowScorer], recordings: list[Recording], of_readers: list[np.ndarray] | None):
        """Have windows scored of what comes next, of each reader, or of the end; what goes wrong over the features of a
        recording is its own error."""
        blocks = [None] * len(recordings) if of_readers is None else self._blocks_of_models(of_readers)
        for scorer, recording, block in zip(scorers, recordings, blocks, strict=True):
            if recording.error is not None or (block is not None and not len(block)):
                continue
            try:
                with errors_of_file(recording.name, "scored"):
                    cutter = recording.cutter
                    windows = cutter.finish() if block is None else cutter.add(block)
            except AudioError as error:
                recording.error = str(error)
                continue
            scorer.add(recording, windows)

    def _too_short(self, file: str, num_samples: int) -> str | None:
        from ..features.kaldi import FRAME_LENGTH_MS, frame_length

        if num_samples >= frame_length(self.sampling_rate):
            return None
        return (
            f"{file} lasts {1000 * num_samples / self.sampling_rate:.1f} ms; the model needs {FRAME_LENGTH_MS} ms. Leave it "
            "out."
        )

    def _results(
        self, stream: SoundStream, waveforms: list[list[Recording]], error: str | None, plan: _Plan
    ) -> Iterator[FileTags]:
        """What was found in a file whose windows are scored."""
        if error is not None:
            yield FileTags(stream.name, [], error=error, notes=stream.notes)
            return
        notes = stream.notes  # which are said once
        is_said = any(note.kind in (CANCELLED, SILENT) for note in notes)
        for recordings in waveforms:
            error = _error_of(recordings)
            if error is None:
                result = self._result(recordings, plan, notes, stream.file_rate, is_said)
            else:
                channel = recordings[0].channel
                result = FileTags(
                    stream.name, [], error=error, notes=notes, channel=channel, of_each_channel=plan.each_channel
                )
            notes = ()
            yield replace(result, results_of_file=len(waveforms))

    def _result(
        self,
        recordings: list[Recording],
        plan: _Plan,
        notes: tuple[AudioNote, ...],
        file_rate: int | None,
        is_said: bool = False,
    ) -> FileTags:
        """Put together what was found in one waveform; `is_said` tells whether it has been said where it is silent."""
        recording = recordings[0]
        num_scored = recording.num_scored
        if num_scored < len(recording.starts) and not (is_said and not num_scored):
            notes = (*notes, self._silent_windows_note(recording, plan))
        scores, segments = self._found(recordings, plan)
        faint = None if plan.faint is None else self._found(recordings, replace(plan, rules=plan.faint))[1]
        embeddings = None
        if plan.embeddings is not None and num_scored:
            embeddings = self._embeddings(recording, plan)
        novelty = None
        if plan.farthest is not None and num_scored:
            shown = (plan.window_samples, self.sampling_rate, plan.rules, plan.segments)
            novelty = novelty_of(recording, plan.farthest, *shown)
        channel = channel_number(self.reader.channels) if recording.channel is None else recording.channel
        highest_rate = self._highest_rate
        return FileTags(
            recording.name,
            [] if scores is None else self._best_labels(scores, plan.top_k),
            segments,
            highest_frequency=min(file_rate or highest_rate, highest_rate) / 2,
            notes=notes,
            seconds=recording.num_samples / self.sampling_rate,
            channel=channel,
            embeddings=embeddings,
            of_each_channel=plan.each_channel,
            faint=faint,
            novelty=novelty,
        )

    @property
    def _highest_rate(self) -> int:
        return self.sampling_rate

    def _found(self, recordings: list[Recording], plan: _Plan) -> tuple[np.ndarray | None, list[Segment] | None]:
        """The scores of a waveform, if there are any, and its segments, if they were asked for."""
        (recording,) = recordings
        if self.columns is not None:
            return self._found_in_frames(recording, plan)
        scores = reduced(recording, plan.reduction, plan.rules.find_active)
        if plan.segments is None:
            return scores, None
        runs = smoothed(recording.runs(), plan.median_width)
        return scores, self._segments(recording.name, recording.num_samples, runs, plan, recording.silent_spans())

    def _found_in_frames(
        self, recording: FrameRecording, plan: _Plan
    ) -> tuple[np.ndarray | None, list[Segment] | None]:
        places = recording.places()
        smooth = smoothed(places, plan.median_width)
        of_file = smooth if plan.reduction == "share" else places
        scores = reduced_places(of_file, plan.reduction, recording.num_samples, plan.rules.find_active)
        if plan.segments is None:
            return scores, None
        return scores, self._as_segments(recording.name, events_of_means(smooth, None, plan.rules))

    @staticmethod
    def _silent_windows_note(recording: Recording, plan: _Plan) -> AudioNote:
        name = recording.name if recording.channel is None else f"{recording.name}, channel {recording.channel}"
        level = 20 * math.log10(plan.silent_peak)
        number = len(recording.starts)
        which = f"{number - recording.num_scored} of its {number} windows are" if number > 1 else "its only window is"
        return AudioNote(SILENT, f"{name}: {which} silent (no sample beyond {level:.4g} dB) and not scored.")

    def _score(
        self, windows: list[Window], embeddings: str | None = None, with_distances: bool = False
    ) -> tuple[np.ndarray, list[WindowVectors] | None, np.ndarray | None]:
        """Score windows, of which all or none have features: float32 of shape `(windows, labels)`, and their vectors and
        distances, if wanted."""
        if self.backend.takes_waveforms:
            return self.backend.probabilities([window.waveform for window in windows]), None, None
        if windows[0].features is not None:
            inputs = self.feature_extractor.batch_of_frames([window.features for window in windows])
        elif windows[0].log_mel is not None:
            rows = [self.feature_extractor.normalize(window.log_mel.values()) for window in windows]
            inputs = self.feature_extractor.batch_of_frames(rows)
        else:
            inputs = self.feature_extractor(
                [window.waveform for window in windows],
                sampling_rate=self.sampling_rate,
                return_tensors="pt",
                device=self.device,
            )
        if embeddings is not None:
            places = [(window.start, window.samples) for window in windows]
            scores, vectors = self.backend.probabilities_and_vectors(inputs, embeddings, places, self.sampling_rate)
            pooled = np.stack([of_window.class_token_mean for of_window in vectors])
        elif with_distances:
            vectors, (scores, pooled) = None, self.backend.probabilities_and_pooled(inputs)
        else:
            vectors, scores = None, self.backend.probabilities(inputs)
        return scores, vectors, self.known_clips.distances(pooled) if with_distances else None

    def _embeddings(self, recording: Recording, plan: _Plan) -> FileEmbeddings:
        numbers = sorted(recording.vectors)
        vectors = [recording.vectors[number] for number in numbers]
        starts = [recording.starts[number] for number in numbers]
        places = [(start, min(plan.window_samples, recording.num_samples - start)) for start in starts]
        return file_embeddings(plan.embeddings, vectors, places, recording.num_samples, self.sampling_rate)

    def _best_labels(self, scores: np.ndarray, top_k: int) -> list[Tag]:
        best = np.argsort(-scores, kind="stable")[:top_k]
        labels = self.config.id2label  # which takes the configuration longer than the rest takes
        return [Tag(labels[index], score) for index, score in zip(best.tolist(), scores[best].tolist(), strict=True)]

    def _segments(
        self,
        file: str,
        num_samples: int,
        runs: list[tuple[list[int], np.ndarray]],
        plan: _Plan,
        silent: tuple[np.ndarray, np.ndarray] | None = None,
    ) -> list[Segment]:
        stretches = events_of_runs(runs, plan.window_samples, num_samples, plan.rules, plan.segments, silent)
        return self._as_segments(file, stretches)

    def _as_segments(self, file: str, stretches: list[Stretch]) -> list[Segment]:
        segments = [
            Segment(
                file=file,
                start=stretch.start / self.sampling_rate,
                end=stretch.end / self.sampling_rate,
                label=self.config.id2label[stretch.label],
                score=stretch.score,
            )
            for stretch in stretches
        ]
        return sorted(segments, key=lambda segment: (segment.start, segment.end))


def _error_of(recordings: list[Recording]) -> str | None:
    return next((recording.error for recording in recordings if recording.error is not None), None)

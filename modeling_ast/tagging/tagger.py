"""Tag audio files of any length with a fine-tuned AST: scores for each file, and segments along its time line.

A model sees one window of `max_length` frames. Longer files are scored window by window; how the windows lie and how
their scores are put together is said in [`AudioTagger.tag_files`].
"""

import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice

import numpy as np

from ..audio import AudioError, AudioNote, AudioReader, Heard, errors_of_file
from ..audio.channels import channel_number
from ..audio.errors import ERRORS_OF_A_FILE
from ..loading import load_checkpoint
from ..scores import problem_type_of, scores_from_logits
from .clock_time import StartTime
from .embeddings import (
    FileEmbeddings,
    WindowVectors,
    check_embeddings,
    column_middles,
    file_embeddings,
    logits_and_vectors,
)
from .errors import TaggingError
from .events import EventRules, event_rules
from .segments import SEGMENT_READINGS, label_stretches, window_starts

LONG_FILE = 600  # seconds, from which on a file's waveform is scored before another is decoded


@dataclass(frozen=True)
class Tag:
    """A label and its score: a probability, or the model's raw output if it is a regression."""

    label: str
    score: float


@dataclass(frozen=True)
class Segment:
    """A stretch of a file, in seconds, in which a label was heard; [`label_stretches`] says where, and what its score is."""

    file: str
    start: float
    end: float
    label: str
    score: float


@dataclass(frozen=True)
class FileTags:
    """What was found in one file: its best labels, its segments if a time line was asked for, or why it failed.

    `highest_frequency` is the one in Hz up to which the model heard the file: half the lower of their sampling rates.
    `seconds` is its length, `channel` the number of the channel that was heard, counted from 1, if it was one alone.
    `began` is for whoever writes clock times, see [`start_time`]. The notes are what was not heard of it, and what else the
    user should know.
    """

    file: str
    labels: list[Tag]
    segments: list[Segment] | None = None
    error: str | None = None
    highest_frequency: float | None = None
    notes: tuple[AudioNote, ...] = ()
    seconds: float | None = None
    channel: int | None = None
    embeddings: FileEmbeddings | None = None
    began: StartTime | None = None


class AudioTagger:
    """A model and its feature extractor, loaded once, ready to tag files.

    Args:
        model ([`ASTForAudioClassification`]): a model with a trained classifier.
        feature_extractor ([`ASTFeatureExtractor`]): the one that was saved with it.
        device (`str`, *optional*, defaults to `"auto"`):
            `"cpu"`, `"cuda"`, `"mps"`, or `"auto"` for the fastest of them that is there.
        reader ([`AudioReader`], *optional*): how files are heard; as the feature extractor says if not given.

    Raises:
        TaggingError: if the device is not there, or model and feature extractor are of different sizes.
    """

    def __init__(self, model, feature_extractor, device: str = "auto", reader: AudioReader | None = None):
        for name in ("max_length", "num_mel_bins"):
            expected, given = getattr(model.config, name), getattr(feature_extractor, name)
            if expected != given:
                raise TaggingError(
                    f"{name} is {expected} in the model's config.json and {given} in preprocessor_config.json. Use the "
                    "feature extractor that was saved with the model."
                )
        self.device = choose_device(device)
        self.model = model.to(self.device).eval()
        self.feature_extractor = feature_extractor
        self.reader = feature_extractor.audio_reader() if reader is None else reader
        self.problem_type = problem_type_of(model.config)
        self.window_samples = feature_extractor.max_samples

    @classmethod
    def from_pretrained(
        cls,
        model_name_or_path: str | os.PathLike,
        device: str = "auto",
        channels: str | int | None = None,
        refused: frozenset[str] = frozenset(),
        tokens_merged_per_layer: int = 0,
    ) -> "AudioTagger":
        """Load a checkpoint folder or a model of the Hub.

        Args:
            model_name_or_path (`str` or `os.PathLike`): a folder, or a Hub id such as `user/name`.
            device (`str`, *optional*, defaults to `"auto"`): see the class.
            channels (`str` or `int`, *optional*): which channels of files are heard, if not those of the checkpoint.
            refused (`frozenset[str]`, *optional*): kinds of notes that are errors; see [`AudioReader`].
            tokens_merged_per_layer (`int`, defaults to 0): tokens that a layer merges into others, for speed; see
                [`ASTPreTrainedModel.merge_tokens`].

        Returns:
            [`AudioTagger`].

        Raises:
            CheckpointError: if it cannot be used; see [`load_checkpoint`].
            TaggingError: see the class.
        """
        model, feature_extractor = load_checkpoint(model_name_or_path, channels, tokens_merged_per_layer)
        return cls(model, feature_extractor, device, feature_extractor.audio_reader(refused=refused))

    @property
    def sampling_rate(self) -> int:
        """Sampling rate of the model's input in Hz."""
        return self.feature_extractor.sampling_rate

    def tag_files(
        self,
        files: Sequence[str | os.PathLike],
        top_k: int = 5,
        batch_size: int = 8,
        timeline: bool = False,
        hop: float | None = None,
        threshold: float | None = None,
        segments: str = "hop",
        off: float | None = None,
        min_duration: float | None = None,
        close_gaps: float | None = None,
        embeddings: str | None = None,
    ) -> Iterator[FileTags]:
        """Tag files one after the other, several at a time in the model.

        A file is scored in windows of the model's length, the last of which ends with the file; a file shorter than a
        window is one window, padded by the feature extractor. A file's labels are those with the highest mean over its
        windows. Without a time line the windows lie side by side, with one they are `hop` seconds apart, so that the
        means can differ a little. Segments of different labels may overlap.

        Args:
            files (sequence of `str` or `os.PathLike`): audio files of any length.
            top_k (`int`, *optional*, defaults to 5): labels given for each file, best first.
            batch_size (`int`, *optional*, defaults to 8): windows in one pass of the model.
            timeline (`bool`, *optional*, defaults to `False`): whether to give segments.
            hop (`float`, *optional*): seconds between the starts of two windows of a time line; half a window by default.
            threshold (`float`, *optional*):
                Score from which a label is active, in a window or in the mean of several. By default, if the model is
                multi-label, each label has the threshold that the checkpoint's `label_thresholds` name, or 0.5. If the
                model is single-label, only the best label can be active, and it always is by default.
            segments (`str`, *optional*, defaults to `"hop"`):
                What a segment is: `"hop"`, a stretch that the windows which cover it have the label for in their mean, as
                exact as `hop` is short; `"window"`, all that a run of neighbouring windows with the label covers, which is
                never less than a window. See [`label_stretches`].
            off (`float`, *optional*):
                Score down to which a label that became active stays so, also where in a single-label model another one is
                the best; if not given, it ends where it could not become active.
            min_duration (`float`, *optional*): seconds; shorter segments are left out.
            close_gaps (`float`, *optional*):
                Seconds; segments of a label with no more than that between them become one, before short ones are left out.
            embeddings (`str`, *optional*):
                `"file"`, `"window"` or `"second"`, to give vectors of each of these, from the same windows and the same pass of
                the model; see [`file_embeddings`].

        Returns:
            An iterator over a [`FileTags`] for each file, in the order given. A file that cannot be decoded or scored has
            `error` set, and the files after it are tagged all the same.

        Raises:
            TaggingError: if `hop` is no part of a window, `threshold` or `off` is not between 0 and 1, `off` is above
                `threshold`, a time is not above 0, there is no such reading of `segments` or kind of `embeddings`, or the model has no labels.
        """
        if segments not in SEGMENT_READINGS:
            raise TaggingError(f"segments={segments!r} is none of {', '.join(SEGMENT_READINGS)}. Pass one of them.")
        check_embeddings(embeddings)
        hop_samples = self._hop_samples(hop) if timeline else self.window_samples
        if timeline and self.problem_type == "regression":
            raise TaggingError("This model is a regression: it has no labels to place on a time line.")
        rules = event_rules(self.model.config, self.sampling_rate, threshold, off, min_duration, close_gaps)
        place = partial(self._segments, rules=rules, reading=segments) if timeline else None
        return self._tag_in_groups(files, top_k, batch_size, hop_samples, place, embeddings)

    def _tag_in_groups(
        self,
        files: Sequence[str | os.PathLike],
        top_k: int,
        batch_size: int,
        hop_samples: int,
        place_segments: Callable[[str, int, list[int], np.ndarray], list[Segment]] | None,
        embeddings: str | None,
    ) -> Iterator[FileTags]:
        """Decode `batch_size` files, score all their windows, go on; segments if there is something that places them.

        After a long one the group ends, so that no two of them are held. The groups after it are of the same files as without
        it: whoever goes on after an interruption gets the same batches.
        """
        names: list[str] = []
        group: dict[str, Heard | AudioError] = {}
        for number, file in enumerate(map(str, files), 1):
            names.append(file)
            if file not in group:
                group[file] = self._hear(file)
            is_long = isinstance(group[file], Heard) and group[file].waveform.size > LONG_FILE * self.sampling_rate
            if number % batch_size and number < len(files) and not is_long:
                continue
            heard = {file: found for file, found in group.items() if isinstance(found, Heard)}
            starts = {file: self._window_starts(found.waveform.size, hop_samples) for file, found in heard.items()}
            vectors = None if embeddings is None else {}
            waveforms = {file: found.waveform for file, found in heard.items()}
            scores = self._score_files(waveforms, starts, batch_size, vectors)
            for file in names:
                found = group[file] if file not in heard else scores[file]
                if isinstance(found, AudioError):
                    yield FileTags(file, [], error=str(found))
                    continue
                segments = None
                if place_segments is not None:
                    segments = place_segments(file, heard[file].waveform.size, starts[file], found)
                labels = self._best_labels(found.mean(axis=0), top_k)
                highest_frequency = min(heard[file].file_rate, self.sampling_rate) / 2
                yield FileTags(
                    file,
                    labels,
                    segments,
                    highest_frequency=highest_frequency,
                    notes=heard[file].notes,
                    seconds=heard[file].waveform.size / self.sampling_rate,
                    channel=channel_number(self.reader.channels),
                    embeddings=None
                    if vectors is None
                    else self._embeddings(embeddings, vectors[file], starts[file], heard[file].waveform.size),
                )
            names, group, heard = [], {}, {}

    def _window_starts(self, num_samples: int, hop_samples: int) -> list[int]:
        from ..features.kaldi import is_cut

        if not is_cut(num_samples, self.window_samples, self.sampling_rate):
            return [0]  # a second window would hear the same frames once more
        return window_starts(num_samples, self.window_samples, hop_samples)

    def _hop_samples(self, hop: float | None) -> int:
        if hop is None:
            return self.window_samples // 2
        hop_samples = round(hop * self.sampling_rate) if math.isfinite(hop) else 0
        if not 0 < hop_samples <= self.window_samples:
            raise TaggingError(
                f"hop={hop} s does not fit windows of {self.window_samples / self.sampling_rate:g} s: larger hops would "
                "leave audio out. Pass --hop between one sample and a window, for example half a window."
            )
        return hop_samples

    def _hear(self, file: str) -> Heard | AudioError:
        from ..features.kaldi import FRAME_LENGTH_MS, frame_length

        try:
            heard = self.reader.hear(file)
        except AudioError as error:
            return error
        size = heard.waveform.size
        if size < frame_length(self.sampling_rate):
            return AudioError(
                f"{file} lasts {1000 * size / self.sampling_rate:.1f} ms; the model needs {FRAME_LENGTH_MS} ms. Leave it out."
            )
        return heard

    def _score_files(
        self,
        waveforms: dict[str, np.ndarray],
        starts: dict[str, list[int]],
        batch_size: int,
        vectors: dict[str, list[WindowVectors]] | None,
    ) -> dict[str, np.ndarray | AudioError]:
        """Score the windows of several files in common batches, or each file alone if one of them cannot be scored. Where
        vectors are wanted, those of the windows are put into them by file.

        Returns:
            By file its scores of shape `(windows, labels)`, or why there are none.
        """
        windows = {
            file: [waveform[start : start + self.window_samples] for start in starts[file]]
            for file, waveform in waveforms.items()
        }
        try:
            of_windows = None if vectors is None else []
            scores = self._score(
                [window for of_file in windows.values() for window in of_file], batch_size, of_windows
            )
            ends = np.cumsum([len(of_file) for of_file in windows.values()])
            found = dict(zip(windows, np.split(scores, ends[:-1]), strict=True)) if windows else {}
            if vectors is not None:
                taken = iter(of_windows)
                vectors |= {file: list(islice(taken, len(of_file))) for file, of_file in windows.items()}
        except ERRORS_OF_A_FILE:
            if vectors is not None:
                vectors |= {file: [] for file in windows}
            found = {
                file: self._score_alone(file, of_file, batch_size, None if vectors is None else vectors[file])
                for file, of_file in windows.items()
            }
        for file, scores in found.items():
            if not isinstance(scores, AudioError) and not np.isfinite(scores).all():
                found[file] = AudioError(
                    f"{file} gets scores that are not numbers. Its samples may be far beyond full scale: export it again, for "
                    "example as 16-bit WAV, or leave it out."
                )
        return found

    def _score_alone(
        self, file: str, windows: list[np.ndarray], batch_size: int, vectors: list[WindowVectors] | None
    ) -> np.ndarray | AudioError:
        try:
            with errors_of_file(file, "scored"):
                return self._score(windows, batch_size, vectors)
        except AudioError as error:
            return error

    def _score(
        self, windows: list[np.ndarray], batch_size: int, vectors: list[WindowVectors] | None = None
    ) -> np.ndarray:
        """Score windows of up to `window_samples` samples: float32 of shape `(windows, labels)`; their vectors are added to a
        list that is given."""
        import torch

        scores = [np.empty((0, self.model.config.num_labels), dtype=np.float32)]
        for first in range(0, len(windows), batch_size):
            batch = windows[first : first + batch_size]
            features = self.feature_extractor(
                batch, sampling_rate=self.sampling_rate, return_tensors="pt", device=self.device
            )
            with torch.inference_mode():
                if vectors is None:
                    logits = self.model(**features.to(self.device)).logits
                else:
                    logits, found = logits_and_vectors(self.model, features.to(self.device))
                    vectors += found
            scores.append(scores_from_logits(logits, self.problem_type).cpu().numpy())
        return np.concatenate(scores)

    def _embeddings(
        self, kind: str, vectors: list[WindowVectors], starts: list[int], num_samples: int
    ) -> FileEmbeddings:
        columns = max(len(window.columns) for window in vectors)
        middles = column_middles(self.model.config, self.sampling_rate, columns)
        return file_embeddings(kind, vectors, starts, self.window_samples, num_samples, self.sampling_rate, middles)

    def _best_labels(self, scores: np.ndarray, top_k: int) -> list[Tag]:
        best = np.argsort(-scores, kind="stable")[:top_k]
        return [Tag(self.model.config.id2label[int(index)], float(scores[index])) for index in best]

    def _segments(
        self,
        file: str,
        num_samples: int,
        starts: list[int],
        scores: np.ndarray,
        rules: EventRules,
        reading: str,
    ) -> list[Segment]:
        stretches = label_stretches(
            scores,
            starts,
            self.window_samples,
            num_samples,
            rules.find_active,
            reading,
            rules.find_held,
            rules.min_samples,
            rules.gap_samples,
        )
        segments = [
            Segment(
                file=file,
                start=stretch.start / self.sampling_rate,
                end=stretch.end / self.sampling_rate,
                label=self.model.config.id2label[stretch.label],
                score=stretch.score,
            )
            for stretch in stretches
        ]
        return sorted(segments, key=lambda segment: (segment.start, segment.end))


def choose_device(device: str):
    """Find the torch device for a name.

    Args:
        device (`str`): `"cpu"`, `"cuda"`, `"mps"`, or `"auto"` for the fastest of them that is there.

    Returns:
        `torch.device`.

    Raises:
        TaggingError: if the device is not there.
    """
    import torch

    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if device == "auto":
        device = next(name for name, available in there.items() if available)
    if not there.get(device):
        available = ", ".join(name for name, is_there in there.items() if is_there)
        raise TaggingError(
            f"There is no device {device!r} here; torch finds: {available}. Pass one of these or 'auto'."
        )
    return torch.device(device)

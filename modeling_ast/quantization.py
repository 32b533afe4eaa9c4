"""8-bit weights for an ONNX file, chosen by measurement.

Four ways to make them are compared with the float32 file on clips: which keeps the labels, and which is the fastest here.
8-bit files hold the matrices of the transformer as integers; the activations are rounded while it runs, with one range
for a whole batch, so there a clip's logits depend a little on its neighbours. For a model that hears long clips a fifth way is
compared with the best of the four: the scores of its attention as integer products, too.
"""

import itertools
import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from .checkpoints.folder import weights_of
from .export_onnx import (
    LARGEST_FILE,
    ExportError,
    add_metadata,
    check_scores_against_pytorch,
    checked_onnx,
    clip_inputs,
    onnx_with_integer_scores,
    open_session,
    producing_versions,
    quiet_exporters,
    save_onnx,
    waveform_onnx,
)
from .feature_extraction_ast import ASTFeatureExtractor
from .layers.patch_grid import patch_grid_of
from .modeling_ast import ASTForAudioClassification
from .onnx_sessions import joined_waveforms, run_session
from .scores import problem_type_of
from .system.atomic_files import open_atomically, temporary_folder
from .system.processor import processor_name

WEIGHT_TYPES = ("QInt8", "QUInt8")
# The patch projection is left in float32: its 0.2 million weights are 0.2 % of a base model, their rounding made half of
# the logits' error, and ONNX Runtime's integer convolution is slower than the float one.
QUANTIZED_OPERATORS = ["MatMul"]
TIMED_ROUNDS = 7
SAME_SPEED = 0.1  # differences up to this part are noise on a machine that also does other things
SAME_LABELS = 0.005  # likewise, of the number of clips
# Integer scores of the attention are 5 % of a base model's time at 1214 tokens, and cost 8 % of a small one's at 46.
PATCHES_FOR_INTEGER_SCORES = 500
WORTH_ROUNDING = 0.02  # of the time; two files in turns are told apart better than five

SYNTHETIC_CLIPS = 64


@dataclass(frozen=True)
class Candidate:
    """One way to make the weights 8-bit, and what was measured of it.

    `seconds` are those of a forward pass of one clip of `max_length` frames, `speedup` and `size_ratio` compare with the
    float32 file, `largest_difference` is of a logit to the float32 file's over all clips. `labels_kept` is on how many
    clips the label with the highest logit stayed the same; `None` if the model is a regression. `integer_scores` is whether
    the attention's scores are integer products.
    """

    name: str
    weight_type: str
    reduce_range: bool
    num_bytes: int
    size_ratio: float
    seconds: float
    speedup: float
    largest_difference: float
    labels_kept: int | None
    integer_scores: bool = False


@dataclass(frozen=True)
class QuantizationReport:
    """What all candidates gave, on which clips and which machine; `chosen` is the name of the one that was written."""

    chosen: str
    candidates: list[Candidate]
    num_clips: int
    synthetic_clips: bool
    float32_bytes: int
    float32_seconds: float
    float32_difference_to_pytorch: float
    threads: int
    processor: str
    versions: dict[str, str]

    @property
    def chosen_candidate(self) -> Candidate:
        """The candidate that was written."""
        return next(candidate for candidate in self.candidates if candidate.name == self.chosen)


def export_quantized_onnx(
    model: ASTForAudioClassification,
    feature_extractor: ASTFeatureExtractor,
    path: str | Path,
    clips: Sequence[dict[str, np.ndarray]] | None = None,
    waveform: bool = False,
    facts: dict[str, str] | None = None,
) -> QuantizationReport:
    """Write a model as an ONNX file with 8-bit weights: the best of four, by the rule of [`choose_candidate`].

    The four are signed and unsigned weights, each over the full range and over half of it. Which is best depends on the
    processor: one without 8-bit dot products (VNNI) may overflow where the full range is used, so export on the kind of
    machine that the file is for. Scales are per output channel, which costs no time and rounds less. If the model hears
    `PATCHES_FOR_INTEGER_SCORES` or more at once, the best is made once more with integer scores in its attention, and that is
    written if [`are_worth_it`] says so.

    Args:
        model ([`ASTForAudioClassification`]): see [`export_onnx`].
        feature_extractor ([`ASTFeatureExtractor`]): see [`export_onnx`].
        path (`str` or `Path`): file to write or replace, together with the report at [`report_path`].
        clips (sequence of `dict`, *optional*): what the candidates are compared on, from [`clip_inputs`] or
            [`read_clips`]; by default the sounds of [`synthetic_clips`].
        waveform (`bool`, *optional*, defaults to `False`): see [`export_onnx`]; then clips are from [`joined_waveforms`], and
            what is compared are scores. Features stay float32.
        facts (`dict[str, str]`, *optional*): see [`export_onnx`].

    Returns:
        [`QuantizationReport`] of all candidates.

    Raises:
        ExportError: as [`export_onnx`].
        ValueError: if `clips` is empty.
    """
    if not isinstance(model, ASTForAudioClassification):
        raise ExportError(
            f"int8 is chosen by what the best label of clips is, and {type(model).__name__} is none that tells it. Export it in "
            "float32: leave --int8 out."
        )
    synthetic = clips is None
    if synthetic:
        sounds = synthetic_clips(feature_extractor.sampling_rate)
        clips = [joined_waveforms([sound]) if waveform else clip_inputs(sound, feature_extractor) for sound in sounds]
    if not clips:
        raise ValueError("clips is empty, expected at least one. Leave it out to compare on synthetic sounds.")

    path = Path(path)
    exported, difference = checked_onnx(model, feature_extractor)
    with temporary_folder(path.name, path.parent) as folder:
        float32 = folder / "float32.onnx"
        add_metadata(exported, facts or {})
        save_onnx(exported, float32)
        ways = [_quantize(float32, *setting) for setting in itertools.product(WEIGHT_TYPES, (False, True))]
        if waveform:
            for file in (float32, *(way.file for way in ways)):
                save_onnx(waveform_onnx(load_whole(file), model, feature_extractor), file)
            difference = check_scores_against_pytorch(load_whole(float32), model, feature_extractor)
        samples = feature_extractor.max_samples if waveform else None
        comparison = _Comparison(float32, clips, model.config, samples)
        candidates = comparison.of(ways)
        chosen = choose_candidate(candidates, len(clips))
        if math.prod(patch_grid_of(model.config, model.config.max_length)) >= PATCHES_FOR_INTEGER_SCORES:
            plain = ways[candidates.index(chosen)]
            ways.append(_with_integer_scores(plain, model, feature_extractor, facts or {}, waveform))
            again, rounded = comparison.of([plain, ways[-1]])
            chosen = rounded if are_worth_it(rounded, again, len(clips)) else again
            candidates[ways.index(plain)] = again  # what was measured in turns stands side by side
            candidates.append(rounded)
        report = QuantizationReport(
            chosen=chosen.name,
            candidates=candidates,
            num_clips=len(clips),
            synthetic_clips=synthetic,
            float32_bytes=size_of(float32),
            float32_seconds=comparison.seconds,
            float32_difference_to_pytorch=difference,
            threads=torch.get_num_threads(),
            processor=f"{processor_name()}, {torch.backends.cpu.get_cpu_capability()}",
            versions=producing_versions(),
        )
        with open_atomically(report_path(path), "w", encoding="utf-8") as report_file:
            json.dump(asdict(report), report_file, indent=2)
            save_onnx(load_whole(ways[candidates.index(chosen)].file), path)
    return report


def choose_candidate(candidates: Sequence[Candidate], num_clips: int) -> Candidate:
    """Choose the candidate that keeps the most top labels; among equals the fastest; among equally fast ones the closest.

    Equal is what differs by no more than noise: half a percent of the clips, a tenth of the time. Regressions have no
    labels, so speed comes first for them.

    Args:
        candidates (sequence of [`Candidate`]): measured on the same clips, at least one.
        num_clips (`int`): how many clips that were.

    Returns:
        One of the candidates.
    """
    most = max(candidate.labels_kept or 0 for candidate in candidates)
    faithful = [item for item in candidates if (item.labels_kept or 0) >= most - SAME_LABELS * num_clips]
    least = min(candidate.seconds for candidate in faithful)
    fast = [candidate for candidate in faithful if candidate.seconds <= least * (1 + SAME_SPEED)]
    return min(fast, key=lambda candidate: candidate.largest_difference)


def are_worth_it(rounded: Candidate, plain: Candidate, num_clips: int) -> bool:
    """Tell whether integer scores in the attention gain more than they cost.

    Args:
        rounded ([`Candidate`]): with integer scores.
        plain ([`Candidate`]): without, but otherwise made alike and measured in turns with it.
        num_clips (`int`): on how many clips.

    Returns:
        Whether they save `WORTH_ROUNDING` of the time, keep as many labels but for what `SAME_LABELS` allows, and differ from
        float32 by no more than twice as much.
    """
    faster = rounded.seconds <= plain.seconds * (1 - WORTH_ROUNDING)
    faithful = (rounded.labels_kept or 0) >= (plain.labels_kept or 0) - SAME_LABELS * num_clips
    return faster and faithful and rounded.largest_difference <= 2 * plain.largest_difference


def report_path(path: str | Path) -> Path:
    """Name the file of the report about a quantized file: `drums.quantization.json` beside `drums.onnx`.

    Args:
        path (`str` or `Path`): the quantized file.

    Returns:
        `Path` of the report.
    """
    return Path(path).with_suffix(".quantization.json")


def load_whole(path: Path):
    """Read a graph with all its weights.

    Args:
        path (`Path`): the file; its weights may lie beside it.

    Returns:
        `onnx.ModelProto`.
    """
    import onnx

    return onnx.load(path)


def size_of(path: Path) -> int:
    """Count the bytes of a graph and of the weights beside it that it names.

    Args:
        path (`Path`): the file.

    Returns:
        Bytes.
    """
    return sum(file.stat().st_size for file in (path, *weights_of(path)))


def read_clips(
    files: Sequence[Path],
    feature_extractor: ASTFeatureExtractor,
    waveform: bool = False,
    channels: str | int | None = None,
) -> list[dict[str, np.ndarray]]:
    """Decode audio files for [`export_quantized_onnx`]; of a file longer than the model's input, its beginning.

    What of a file is not heard is logged as a warning.

    Args:
        files (sequence of `Path`): from [`find_audio_files`].
        feature_extractor ([`ASTFeatureExtractor`]): the model's own.
        waveform (`bool`, *optional*, defaults to `False`): whether the graph takes samples.
        channels (`str` or `int`, *optional*): which channels of the files are heard, if not those of the model; see
            [`AudioReader`].

    Returns:
        The inputs of the graph for each file, see [`clip_inputs`] and [`joined_waveforms`].

    Raises:
        AudioError: if a file cannot be decoded, or has no such channel.
        ExportError: if a file is shorter than one analysis window.
    """
    from tqdm import tqdm

    clips = []
    reader = feature_extractor.audio_reader(**{} if channels is None else {"channels": channels})
    for file in tqdm(files, desc="Reading clips", unit="file", disable=None):
        samples = reader.read(file)
        try:
            inputs = clip_inputs(samples, feature_extractor)  # which refuses what is too short
            clips.append(joined_waveforms([samples[: feature_extractor.max_samples]]) if waveform else inputs)
        except ValueError as error:
            raise ExportError(f"{file} cannot be used for the comparison: {error}") from error
    return clips


def synthetic_clips(sampling_rate: int, count: int = SYNTHETIC_CLIPS, seed: int = 0) -> list[np.ndarray]:
    """Noise bursts, tones, sweeps and clicks in turn: sounds to compare on where there are no recordings.

    Args:
        sampling_rate (`int`): in Hz.
        count (`int`): how many.
        seed (`int`): with its position, what a sound is made from.

    Returns:
        Waveforms of shape `(samples,)`, float32, 0.3 to 3 s long and of various levels.
    """
    clips = []
    for position in range(count):
        generator = np.random.default_rng((seed, position))
        seconds = 0.3 * 10 ** generator.uniform()
        times = np.arange(round(seconds * sampling_rate)) / sampling_rate
        pitch = 100 * 30 ** generator.uniform()  # Hz, up to 3000
        if position % 4 == 0:
            sound = generator.normal(size=times.size) * np.exp(-times * generator.uniform(1, 20))
        elif position % 4 == 1:
            sound = sum(np.sin(2 * np.pi * pitch * harmonic * times) / harmonic for harmonic in (1, 2, 3))
        elif position % 4 == 2:
            rise = generator.uniform(500, 4000)  # Hz, from the first to the last sample
            sound = np.sin(2 * np.pi * (pitch + rise * times / (2 * seconds)) * times)
        else:
            sound = np.exp(-500 * (times % (1 / generator.uniform(2, 20)))) * generator.normal(size=times.size)
        level = 10 ** generator.uniform(-1.5, 0)
        clips.append((level * sound / np.abs(sound).max()).astype(np.float32))
    return clips


@dataclass(frozen=True)
class _Way:
    """How a candidate was made, and the file that is named as in the report."""

    weight_type: str
    reduce_range: bool
    integer_scores: bool
    file: Path


def _with_integer_scores(
    plain: _Way,
    model: ASTForAudioClassification,
    extractor: ASTFeatureExtractor,
    facts: dict[str, str],
    waveform: bool,
) -> _Way:
    """Make a candidate once more, with integer scores in its attention."""
    exported = onnx_with_integer_scores(model, extractor)
    add_metadata(exported, facts)
    unrounded = plain.file.with_name("unrounded.onnx")
    save_onnx(exported, unrounded)
    way = _quantize(unrounded, plain.weight_type, plain.reduce_range, integer_scores=True)
    if waveform:
        save_onnx(waveform_onnx(load_whole(way.file), model, extractor), way.file)
    return way


def _quantize(unrounded: Path, weight_type: str, reduce_range: bool, integer_scores: bool = False) -> _Way:
    """Write a candidate beside the file whose weights it rounds."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    name = weight_type + " reduced range" * reduce_range + ", integer scores" * integer_scores
    file = unrounded.with_name(f"{name}.onnx")
    # Its advice to run ONNX Runtime's pre-processing first is not followed: the exporter has inferred shapes and folded
    # constants already, and with it neither size nor speed changed.
    with quiet_exporters():
        quantize_dynamic(
            unrounded,
            file,
            op_types_to_quantize=QUANTIZED_OPERATORS,
            per_channel=True,
            reduce_range=reduce_range,
            weight_type=QuantType[weight_type],
            use_external_data_format=size_of(unrounded) > LARGEST_FILE,
        )
    quantized = onnx.load(file)
    add_metadata(quantized, {"quantization": file.stem})
    save_onnx(quantized, file)
    return _Way(weight_type, reduce_range, integer_scores, file)


class _Comparison:
    """Times and logits of files beside those of the float32 file.

    Args:
        float32 (`Path`): that file.
        clips (sequence of `dict`): what logits are compared on.
        config ([`ASTConfig`]): of the model.
        samples (`int`, *optional*): of a whole input, where the files take samples.
    """

    def __init__(self, float32: Path, clips: Sequence[dict[str, np.ndarray]], config, samples: int | None):
        self.clips, self.config, self.samples = clips, config, samples
        self.num_bytes, self.session = size_of(float32), open_session(float32)
        self.seconds = self.logits = None  # of the float32 file, beside the candidates that are measured first

    def of(self, ways: Sequence[_Way]) -> list[Candidate]:
        """Measure candidates in turns with each other and with the float32 file."""
        sessions = [open_session(way.file) for way in ways]
        float32_seconds, *seconds = _time_sessions([self.session, *sessions], self.config, self.samples)
        if self.logits is None:
            self.seconds = float32_seconds
            self.logits, *logits = _logits_of_clips([self.session, *sessions], self.clips)  # (clips, labels) each
        else:
            logits = _logits_of_clips(sessions, self.clips)
        labels = self.logits.argmax(axis=1)
        is_regression = problem_type_of(self.config) == "regression"
        return [
            Candidate(
                name=way.file.stem,
                weight_type=way.weight_type,
                reduce_range=way.reduce_range,
                integer_scores=way.integer_scores,
                num_bytes=size_of(way.file),
                size_ratio=size_of(way.file) / self.num_bytes,
                seconds=seconds[place],
                speedup=float32_seconds / seconds[place],
                largest_difference=float(np.abs(logits[place] - self.logits).max()),
                labels_kept=None if is_regression else int((logits[place].argmax(axis=1) == labels).sum()),
            )
            for place, way in enumerate(ways)
        ]


def _time_sessions(sessions: Sequence, config, samples: int | None = None) -> list[float]:
    """Seconds of a forward pass in each session: the best of several rounds, as all else only makes it slower.

    The sessions take turns, so that what the machine does beside hits all alike.
    """
    generator = np.random.default_rng(0)
    values = generator.normal(0, 0.5, (1, config.max_length, config.num_mel_bins)).astype(np.float32)
    inputs = {"input_values": values, "attention_mask": np.ones(values.shape[:2], dtype=np.int64)}
    if samples is not None:
        inputs = joined_waveforms([generator.normal(0, 0.1, samples).astype(np.float32)])
    best = [float("inf")] * len(sessions)
    for _ in range(TIMED_ROUNDS):
        for index, session in enumerate(sessions):
            start = time.perf_counter()
            run_session(session, inputs)
            best[index] = min(best[index], time.perf_counter() - start)
    return best


def _logits_of_clips(sessions: Sequence, clips: Sequence[dict[str, np.ndarray]]) -> np.ndarray:
    """Each clip alone through each session: shape `(sessions, clips, labels)`."""
    from tqdm import tqdm

    progress = tqdm(clips, desc="Comparing", unit="clip", disable=None)
    return np.stack([[run_session(session, clip)[0] for session in sessions] for clip in progress], axis=1)

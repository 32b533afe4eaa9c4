"""`ast-finetune ... --dry_run`: what the clips are like, what a training would cost and hear, and what it would refuse.

A few steps are trained in memory to measure them and are thrown away; all that is written is the folder `dry_run` in the
output folder, which no run touches. It takes a minute at most, whatever the size of data and model: each stage has a share
of it ([`TimeLimit`]) and says how much it looked at.
"""

import contextlib
import copy
import dataclasses
import io
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import datasets
import numpy as np
from accelerate import PartialState
from tqdm import tqdm
from transformers.integrations import get_reporting_integration_callbacks

from model_card.figures import plot_spectrogram_pairs
from modeling_ast import ASTConfig, ASTFeatureExtractor
from modeling_ast.audio import AudioError, AudioReader
from modeling_ast.features.kaldi import num_frames
from modeling_ast.system.atomic_files import open_atomically, temporary_folder

from ..arguments.groups import ASTTrainingArguments, DataArguments, ModelArguments, RunArguments
from ..arguments.optimization_arguments import FITTED
from ..arguments.training_arguments import BALANCED_STRATEGIES
from ..clip_sets.audio_clips import audio_of_all
from ..clip_sets.clip_datasets import clip_reader, clip_sets, load_clip_sets
from ..clip_sets.clip_set import ClipSet, UndecodedClip
from ..clip_sets.collator import model_inputs
from ..clip_sets.split_checks import CLIPS_CHECKED
from ..clip_sets.waveform_cache import WaveformCache
from ..clip_sets.waveforms import fetched, hear_clip
from ..failures.input_errors import InputError, input_errors_in_words
from ..failures.stopped_trainings import TrainingStoppedError, failures_in_words
from ..results.output_folder import check_output_dir, refuse_another_run, refuse_file
from ..runs.cross_validation import check_fold_choices, check_folds_dir
from ..runs.preparation import CLIPS_LOOKED_AT as CLIPS_COMPARED
from ..runs.preparation import build_feature_extractor, waveform_cache
from ..runs.tasks import task_of
from ..runs.training_run import Looks, PreparedRun, prepare_run
from ..sources.data_errors import names_in_short
from ..sources.labels import label_names
from ..sources.splits import load_folds
from ..training.progress import require_reporters
from .clip_statistics import (
    ClipFacts,
    describe_band,
    describe_frames,
    describe_lengths,
    describe_recordings,
    look_at_clips,
)
from .cost_estimate import estimate_cost
from .dry_run_report import (
    REPORT_NAME,
    cost_lines,
    data_lines,
    not_estimated_lines,
    proposal_lines,
    refused_lines,
)
from .proposals import propose
from .time_limit import CLIPS_READ, COST, LOOKING, PICTURE, PREPARING, Deadline, TimeLimit, seconds_to_read

DRY_RUN_NAME, PICTURE_NAME = "dry_run", "spectrograms.png"
CLIPS_LOOKED_AT = 2000
CLIPS_PICTURED, FEWEST_PICTURED = 8, 2
FEWEST_MEASURED = 12  # clips for mean and standard deviation


@dataclasses.dataclass(frozen=True)
class LoadedData:
    """Splits as they were loaded, and what they are for.

    Args:
        splits (`dict[str, ClipSet]`): of the run, or of the first of several folds.
        method (`str`): how they were made, in words.
        folds (`list[tuple[str, datasets.DatasetDict]]`): name and splits of each fold; none without cross-validation.
    """

    splits: dict[str, ClipSet]
    method: str
    folds: list[tuple[str, datasets.DatasetDict]]


def dry_run(argv: list[str], arguments: RunArguments) -> dict:
    """Look at the clips, measure a few steps, draw a picture; print all of it and write it down.

    Args:
        argv (`list[str]`): the command line.
        arguments ([`RunArguments`]): what [`parse_arguments`] makes of it.

    Returns:
        What `dry_run.json` holds.

    Raises:
        InputError: if a training could not begin with what can be read of the data, in the words of the training.
    """
    model_args, data_args, augmentation_args = arguments.model, arguments.data, arguments.augmentation
    training_args = arguments.training
    limit = TimeLimit()
    folder = Path(training_args.output_dir) / DRY_RUN_NAME
    with input_errors_in_words(model_args):
        refuse_several_processes()
        refuse_file(folder.parent)
        refuse_file(folder)
        feature_extractor, config = build_feature_extractor(model_args, data_args), build_config(model_args)
        data = load_data(data_args, training_args)
        seconds = feature_extractor.max_samples / feature_extractor.sampling_rate
        splits = {side: split.of_length(seconds) for side, split in data.splits.items()}
        splits = task_of(arguments).clips(splits, model_args)
        data = dataclasses.replace(data, splits=splits)
        deadline = limit.share(LOOKING, later=PREPARING + PICTURE + COST)
        looked = describe_clips(data, feature_extractor, config, data_args, training_args, deadline)
        report = looked.report
        cache = waveform_cache(data_args, feature_extractor, augmentation_args.augmentation())
        if cache is not None:
            report["waveform_cache_bytes"] = cache_space(cache, data.splits, training_args.seed)
        print(*data_lines(report), sep="\n", flush=True)
        report["refused"] = refused_up_front(argv, arguments, data, report)
        with temporary_folder("ast-dry-run") as scratch:
            apart, looks = apart_from_the_run(
                arguments, scratch, looked, limit.share(PREPARING, later=PICTURE + COST).left
            )
            run = prepare(argv, apart, looked.usable, report["refused"], data_args.skip_bad_audio, looks)
            report["refused"] += refused_resume(arguments, run)
            folder.mkdir(parents=True, exist_ok=True)
            # Each is read as it is and as in training, there perhaps with a partner.
            number = int(limit.share(PICTURE, later=COST).left / (3 * looked.reading + 1e-9))
            draw_training_clips(run, folder / PICTURE_NAME, max(FEWEST_PICTURED, min(CLIPS_PICTURED, number)))
            report["cost"], report["proposals"] = None, []
            with failures_noted(run, report["refused"]):
                report["cost"], cost = estimate_cost(
                    run.trainer, run.clips, run.data_args, run.optimization, looked.frames, limit
                )
                report["proposals"] = propose(run.trainer, run.clips, arguments, cost, report, limit)
        report["not_estimated"] = not_estimated(arguments)
        with open_atomically(folder / REPORT_NAME) as file:
            file.write(f"{json.dumps(report, indent=1, ensure_ascii=False)}\n".encode("utf-8", "backslashreplace"))
    lines = [cost_lines, not_estimated_lines, proposal_lines, refused_lines]
    print(*(line for lines_of in lines for line in lines_of(report)), sep="\n")
    print(f"\nNothing was trained. {folder}: {PICTURE_NAME}, {REPORT_NAME}", flush=True)
    return report


def not_estimated(arguments: RunArguments) -> list[str]:
    """What of a training is not looked at, and comes on top of what is estimated.

    Args:
        arguments ([`RunArguments`]): of the training.

    Returns:
        `list[str]`: in words.
    """
    data_args, words = arguments.data, []
    if data_args.marks:
        chosen = (
            ", and the validation recordings to choose what makes an event" if data_args.has_validation_split() else ""
        )
        words += [
            "what the recordings are like, as no more than windows of them is decoded here",
            f"the time in which all of the scored recordings is heard once more for their events{chosen}",
        ]
    if data_args.check_audio and data_args.marks:
        words.append("the time in which --check_audio decodes all of every recording")
    if data_args.hard_negatives:
        words.append("hard negatives, for which all background is scored before a training")
    if arguments.optimization.head_start == FITTED:
        words.append(
            "the time in which training clips are heard once more for --head_start fitted, and the fit itself"
        )
    if arguments.optimization.none_of_these:
        words.append("the time in which training clips are heard once more for --none_of_these")
    return words


def refuse_several_processes():
    """Raise a `ValueError` where several processes were launched."""
    number = PartialState().num_processes
    if number > 1:
        raise ValueError(
            f"dry_run measures one process, and {number} were launched. Run ast-finetune with the same flags, without "
            "accelerate launch."
        )


def build_config(args: ModelArguments) -> ASTConfig:
    """The configuration of the model, as far as it is known before the labels are.

    Args:
        args ([`ModelArguments`]): which model.

    Returns:
        [`ASTConfig`]: of a new model, or of the checkpoint at these sizes.
    """
    if args.model_name_or_path:
        return ASTConfig.from_pretrained(args.model_name_or_path, **args.sizes())
    return ASTConfig(**args.sizes())


def load_data(data_args: DataArguments, training_args: ASTTrainingArguments) -> LoadedData:
    """Load the clips as the training does; of several folds the first stands for all.

    Args:
        data_args ([`DataArguments`]): where the clips are and how they are heard.
        training_args ([`ASTTrainingArguments`]): of the training.

    Returns:
        [`LoadedData`]: the splits, and how they were made.

    Raises:
        ValueError: see [`load_clip_sets`] and [`load_folds`].
    """
    if not data_args.fold_column_name:
        return LoadedData(*load_clip_sets(data_args, training_args.seed), folds=[])
    check_fold_choices(training_args)
    folds, method = load_folds(data_args)
    name, splits = folds[0]
    return LoadedData(clip_sets(splits), f"{method}; fold {name} is scored", folds)


@dataclasses.dataclass(frozen=True)
class LookedAt:
    """What looking at the clips has told.

    Args:
        report (`dict`): the sections of the report that are about the data. Where no clip can be decoded, or clips are
            finished features, it has no `lengths`, `recordings`, `band` and `frames`.
        usable ([`LoadedData`]): the data without the clips that cannot be decoded.
        frames (`np.ndarray`, *optional*): lengths of the clips.
        reading (`float`): seconds in which a clip is read for training; 0 if that was not measured.
    """

    report: dict
    usable: LoadedData
    frames: np.ndarray | None = None
    reading: float = 0.0


def describe_clips(
    data: LoadedData,
    feature_extractor: ASTFeatureExtractor,
    config: ASTConfig,
    data_args: DataArguments,
    training_args: ASTTrainingArguments,
    deadline: Deadline,
) -> LookedAt:
    """Count the labels and decode the clips.

    Args:
        data ([`LoadedData`]): the splits.
        feature_extractor ([`ASTFeatureExtractor`]): what the model hears of a clip.
        config ([`ASTConfig`]): its patches.
        data_args ([`DataArguments`]): whether clips are streamed, and how they are padded in training.
        training_args ([`ASTTrainingArguments`]): the seed that draws the clips to decode, and how many are in a batch.
        deadline ([`Deadline`]): when no further clip is decoded.

    Returns:
        [`LookedAt`]: what was found.
    """
    splits, seed = data.splits, training_args.seed
    train = splits["train"]
    names, sizes = label_names(train), {side: len(split) for side, split in splits.items()}
    counts = {side: split.counts_by_label() for side, split in splits.items()}
    report = {
        "clips": sizes,
        "split_method": data.method,
        "folds": [name for name, _ in data.folds],
        "labels": {name: {side: counts[side][name] for side in splits} for name in names},
        "looked_at": {"clips": 0, "of": sum(sizes.values()), "seed": seed if train.at_hand else None},
        "bad_clips": [],
        "audio_notes": [],
    }
    seen: list[UndecodedClip] = []  # what was decoded
    read = train.undecoded(splits, CLIPS_LOOKED_AT, seed)
    shown = tqdm(read, desc="decoding", unit="clip", disable=None, leave=False)  # on a terminal only
    reader = clip_reader(data_args, feature_extractor)
    longest = feature_extractor.max_samples
    facts, bad = look_at_clips(noted(shown, seen), reader, longest, fetch=not train.at_hand, deadline=deadline)
    if not seen:
        return LookedAt(report, data)
    report["looked_at"]["clips"] = len(seen)
    report["looked_at"]["out_of_time"] = not deadline.left
    bad.sort(key=lambda clip: (list(splits).index(seen[clip[0]].side), seen[clip[0]].place))
    report["bad_clips"] = [{"split": seen[place].side, "clip": clip, "reason": reason} for place, clip, reason in bad]
    bad_places = {place for place, *_ in bad}
    read_places = (place for place in range(len(seen)) if place not in bad_places)
    report["audio_notes"] = [
        {"split": seen[place].side, "row": seen[place].place + 1, "kind": note.kind, "text": note.text}
        for place, clip in zip(read_places, facts, strict=True)
        for note in clip.notes
    ]
    usable, frames = without_bad(data, [seen[place] for place, _, _ in bad]), None
    if facts:
        report |= describe_audio(facts, names, feature_extractor, config, data_args, training_args, train.at_hand)
        samples = np.round([clip.seconds * feature_extractor.sampling_rate for clip in facts]).astype(np.int64)
        frames = num_frames(samples, feature_extractor.sampling_rate)
    sample = [clip.audio for clip in seen[:CLIPS_READ]]
    rate = feature_extractor.sampling_rate
    feature_extractor(np.zeros(rate, dtype=np.float32), sampling_rate=rate)  # what is compiled only once
    return LookedAt(report, usable, frames, seconds_to_read(_read(sample, feature_extractor, reader)))


def noted(clips: Iterable[UndecodedClip], seen: list[UndecodedClip]) -> Iterator[tuple[dict, list[int]]]:
    """Hand on clips one after the other.

    Args:
        clips (iterable of [`UndecodedClip`]): what is going to be decoded.
        seen (`list[UndecodedClip]`): to which each of them is added, without its bytes unless it is among the first few.

    Yields:
        Audio and labels of a clip.
    """
    for clip in clips:
        kept = clip if len(seen) < CLIPS_READ else clip._replace(audio={"bytes": None, "path": clip.audio["path"]})
        seen.append(kept)
        yield clip.audio, clip.labels


def _read(sample: list[dict], feature_extractor: ASTFeatureExtractor, reader: AudioReader) -> Iterator[None]:
    """Read clips and compute their features, one at a time."""
    rate = feature_extractor.sampling_rate
    for audio in sample:
        with contextlib.suppress(AudioError):  # which was said of it
            waveform = hear_clip(fetched(audio), reader, feature_extractor.max_samples).waveform
            feature_extractor(waveform, sampling_rate=rate)
        yield


def cache_space(cache: WaveformCache, splits: dict[str, ClipSet], seed: int) -> int:
    """Tell how much space the waveform cache needs.

    Args:
        cache ([`WaveformCache`]): the cache.
        splits (`dict[str, ClipSet]`): audio files at hand, by side.
        seed (`int`): draws the clips whose headers are read where there are many.

    Returns:
        Bytes.
    """
    audio = audio_of_all(splits)
    if len(audio) <= CLIPS_LOOKED_AT:
        return cache.space_needed(audio)
    chosen = np.random.default_rng(seed).permutation(len(audio))[:CLIPS_LOOKED_AT]
    return cache.space_needed(audio.select(chosen)) * len(audio) // CLIPS_LOOKED_AT


def describe_audio(
    facts: list[ClipFacts],
    names: list[str],
    feature_extractor: ASTFeatureExtractor,
    config: ASTConfig,
    data_args: DataArguments,
    training_args: ASTTrainingArguments,
    at_hand: bool,
) -> dict:
    """The sections of the report that are about decoded clips; see [`describe_clips`].

    Args:
        facts (`list[ClipFacts]`): of the clips that could be decoded.
        names (`list[str]`): names of the labels in output order.
        feature_extractor ([`ASTFeatureExtractor`]): of the model.
        config ([`ASTConfig`]): of the model.
        data_args ([`DataArguments`]): where the clips are and how they are heard.
        training_args ([`ASTTrainingArguments`]): of the training.
        at_hand (`bool`): see [`ClipSet`].

    Returns:
        `dict`: these sections.
    """
    rate, seconds = feature_extractor.sampling_rate, [clip.seconds for clip in facts]
    frames = describe_frames(
        seconds,
        feature_extractor.max_length,
        rate,
        config.patch_size,
        config.time_stride,
        data_args.padding,
        training_args.train_batch_size,
        grouped=training_args.train_sampling_strategy not in BALANCED_STRATEGIES and at_hand,
    )
    return {
        "lengths": describe_lengths(seconds),
        "recordings": describe_recordings(facts) | {"heard_channels": feature_extractor.channels},
        "band": describe_band(facts, names, rate),
        "frames": {
            "padding": data_args.padding,
            "beginnings": data_args.windows_trained() == data_args.windows_scored() == "beginning",
        }
        | frames,
    }


def without_bad(data: LoadedData, bad: list[UndecodedClip]) -> LoadedData:
    """Leave out clips, unless a split would be left empty, which the training then says.

    Args:
        data ([`LoadedData`]): the splits.
        bad (`list[UndecodedClip]`): the clips.

    Returns:
        [`LoadedData`] without them, or as it was.
    """
    splits = {}
    for side, split in data.splits.items():
        left_out = {clip.place: clip.labels for clip in bad if clip.side == side}
        if len(left_out) == len(split):
            return data
        splits[side] = split.without(left_out)
    return dataclasses.replace(data, splits=splits)


def refused_up_front(argv: list[str], arguments: RunArguments, data: LoadedData, report: dict) -> list[str]:
    """What the training would say of the output folder, of where it reports to, and of clips that cannot be decoded.

    Args:
        argv (`list[str]`): the command line.
        arguments ([`RunArguments`]): what [`parse_arguments`] makes of it.
        data ([`LoadedData`]): the splits, and those of the folds.
        report (`dict`): the sections about the data.

    Returns:
        `list[str]`: messages.
    """
    model_args, data_args, training_args = arguments.model, arguments.data, arguments.training
    refused = []
    try:
        if data_args.fold_column_name:
            check_folds_dir(argv, arguments, data.folds)
        else:
            check_output_dir(training_args, model_args, data_args)
    except ValueError as error:
        refused.append(str(error))
    try:
        require_reporters(training_args)
        get_reporting_integration_callbacks(training_args.report_to)  # which knows all their names
    except (ValueError, ImportError) as error:
        refused.append(str(error))
    bad = [clip["clip"] for clip in report["bad_clips"]]
    if bad and not data_args.skip_bad_audio:
        refused.append(
            f"{len(bad)} of {report['looked_at']['clips']} clips looked at cannot be used: {names_in_short(bad)}. Repair or remove "
            "them, or pass --skip_bad_audio to leave them out."
        )
    return refused


def apart_from_the_run(
    arguments: RunArguments, folder: str, looked: LookedAt, seconds: float
) -> tuple[RunArguments, Looks]:
    """The arguments of the same training in another folder, where it reports to nobody and fills no cache.

    Clips that were looked at are not all decoded again, unless some of them cannot be used: then others may be like them,
    and all are decoded if there is time, else stood in for where they cannot be used.

    Args:
        arguments ([`RunArguments`]): of the training.
        folder (`str`): where it would write.
        looked ([`LookedAt`]): what is known of the clips.
        seconds (`float`): in which clips may be decoded before it begins.

    Returns:
        The arguments, and what of the clips is decoded.
    """
    report, data_args = looked.report, arguments.data
    seen, every = report["looked_at"]["clips"], report["looked_at"]["of"]
    sound = not report["bad_clips"] or seen == every
    at_leisure = (every - seen) * looked.reading <= seconds / 2
    number = max(FEWEST_MEASURED, int(seconds / 2 / looked.reading)) if looked.reading else every
    known = seen == every or CLIPS_CHECKED * looked.reading > seconds / 2
    left_out = sum(report["clips"].values()) - sum(map(len, looked.usable.splits.values()))
    looks = Looks(
        # Where nothing of a split can be used, nothing was left out, and the training says so.
        files_known=bool(seen) and left_out == len(report["bad_clips"]) and (known if sound else not at_leisure),
        compared=max(1, min(CLIPS_COMPARED, number // 2)),
        stand_ins=data_args.skip_bad_audio and not at_leisure and looked.usable.splits["train"].at_hand,
    )
    changes = {"waveform_cache": None, "memory_for_clips": 0.0, "check_audio": False, "hard_negatives": None}
    if sound or not at_leisure:
        changes["skip_bad_audio"] = False
    if number < (data_args.normalization_clips or report["clips"]["train"]):
        changes["normalization_clips"] = number
    training_args = copy.copy(arguments.training)
    training_args.output_dir, training_args.disable_tqdm, training_args.report_to = folder, True, []
    training_args.overwrite_output_dir = training_args.push_to_hub = False
    training_args.resume_from_checkpoint = None
    return dataclasses.replace(arguments, data=data_args.with_changes(**changes), training=training_args), looks


def prepare(
    argv: list[str],
    arguments: RunArguments,
    data: LoadedData,
    refused: list[str],
    skip_bad_audio: bool,
    looks: Looks,
) -> PreparedRun:
    """Prepare the training; where it refuses clips that are in two splits, note that and go on as its message says.

    Args:
        argv (`list[str]`): the command line.
        arguments ([`RunArguments`]): from [`apart_from_the_run`].
        data ([`LoadedData`]): the clips that could be decoded.
        refused (`list[str]`): what was refused so far; what is refused now is added.
        skip_bad_audio (`bool`): whether clips that are found now and cannot be used are left out, as the training does.
        looks ([`Looks`]): what is decoded.

    Returns:
        [`PreparedRun`]: the training.

    Raises:
        InputError: if it refuses more than that, with all that was refused.
    """
    found, data_args = [], arguments.data
    while True:
        stages = io.StringIO()
        try:
            with contextlib.redirect_stdout(stages):
                changed = dataclasses.replace(arguments, data=data_args)
                run = prepare_run(argv, changed, (data.splits, data.method), looks)
        except InputError as error:
            if skip_bad_audio and not data_args.skip_bad_audio and "--skip_bad_audio" in str(error):
                data_args = data_args.with_changes(skip_bad_audio=True)
                continue
            found.append(str(error))
            if data_args.drop_duplicate_audio or "--drop_duplicate_audio" not in str(error):
                raise InputError("\n".join([*refused, *found])) from error
            data_args = data_args.with_changes(drop_duplicate_audio=True)
            continue
        refused += found
        print("", "What a training says before it begins", stages.getvalue().rstrip(), sep="\n", flush=True)
        return run


def refused_resume(arguments: RunArguments, run: PreparedRun) -> list[str]:
    """What the training would say of the checkpoint to resume from.

    Args:
        arguments ([`RunArguments`]): of the training.
        run ([`PreparedRun`]): the training in another folder.

    Returns:
        `list[str]`: one message, or none.
    """
    model_args, data_args, training_args = arguments.model, arguments.data, arguments.training
    if data_args.fold_column_name:
        return []
    with contextlib.suppress(ValueError):  # that there is none was said before
        resume_from = check_output_dir(training_args, model_args, data_args)
        if resume_from:
            try:
                refuse_another_run(Path(resume_from), run.trainer.identity)
            except ValueError as error:
                return [str(error)]
    return []


def draw_training_clips(run: PreparedRun, path: Path, number: int):
    """Draw a few training clips without augmentation, and as the first epoch would have them.

    Args:
        run ([`PreparedRun`]): the training.
        path (`Path`): PNG file to write.
        number (`int`): of clips.

    Raises:
        AudioError: for a clip that cannot be decoded.
    """
    trainer, clips = run.trainer, run.clips["train"]
    names = label_names(clips.split)
    forms = []
    for keys in zip(*clips.keys_of_first_epoch(number, trainer.args.seed), strict=True):
        examples = [clips[key] for key in keys]
        batch = model_inputs(trainer.data_collator(examples), trainer.feature_extractor, trainer.augmentation)
        titles = [label_in_words(example["label"], names) for example in examples]
        forms.append(list(zip(titles, batch["input_values"].numpy(), strict=True)))
    title = "each clip as it is (left) and in training (right); blocks of one colour are masks and padding"
    plot_spectrogram_pairs(list(zip(*forms, strict=True)), path, title, trainer.feature_extractor.sampling_rate)


def label_in_words(label: int | np.ndarray, names: list[str]) -> str:
    """A label index or vector by name; of a mixture with the share of each.

    Args:
        label (`int` or `np.ndarray` of shape `(num_labels,)`, or `(columns, num_labels)` with frames): of one clip.
        names (`list[str]`): in output order.

    Returns:
        `str`: a part of a line.
    """
    if np.ndim(label) == 0:
        return names[label]
    if np.ndim(label) == 2:  # of frames: what any of them has; of some nothing is known
        label = np.maximum(np.max(label, axis=0), 0)
    parts = [
        names[place] if label[place] == 1 else f"{label[place]:.2f} {names[place]}"
        for place in np.argsort(-label, kind="stable")
        if label[place]
    ]
    return " + ".join(parts) or "no label"


@contextlib.contextmanager
def failures_noted(run: PreparedRun, refused: list[str]) -> Iterator[None]:
    """Add to `refused` why the training stops in its first steps, if it does.

    Args:
        run ([`PreparedRun`]): that takes its first steps in the block.
        refused (`list[str]`): to which the message is added.
    """
    try:
        with failures_in_words(run.trainer, run.data_args):
            yield
    except TrainingStoppedError as error:
        if isinstance(error.__cause__, KeyboardInterrupt):
            raise error.__cause__ from None
        refused.append(f"Time and memory could not be measured. {error}")

"""One training, from what was asked for to a publishable checkpoint folder.

[`prepare_run`] finds everything that is wrong with the input and changes nothing but the output folder; [`train_run`] does
the rest. Their stages stand below them in the order in which they are called; each can be imported and used alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import datasets
import torch
from accelerate import PartialState
from transformers import EarlyStoppingCallback, EvalPrediction, set_seed

from model_card.licenses import license_note
from model_card.run_summary import features_section, versions
from modeling_ast import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification
from modeling_ast.audio import NEW_RESAMPLER, AudioReader
from modeling_ast.configuration_ast import LOGITS_ALONE
from modeling_ast.features.kaldi import num_frames
from modeling_ast.loading import check_model_name

from ..arguments.command_line import merged_recipe
from ..arguments.conflicts import wrong_way_round
from ..arguments.groups import (
    ASTTrainingArguments,
    DataArguments,
    ModelArguments,
    OptimizationArguments,
    RunArguments,
)
from ..arguments.void_fields import void_fields, void_notes
from ..augmentations.augmentation import Augmentation
from ..clip_sets.clip_datasets import clip_reader, clip_sets, load_clip_sets
from ..clip_sets.clip_notes import NotedClip
from ..clip_sets.clip_set import Checks, ClipSet
from ..clip_sets.collator import ASTDataCollator, model_inputs
from ..clip_sets.normalization import measure_normalization, normalized_batch_warning, refuse_waveform_statistics
from ..clip_sets.waveform_cache import WaveformCache
from ..clip_sets.waveforms import ClipDataset, UsableWaveforms
from ..failures.input_errors import input_errors_in_words
from ..failures.stopped_trainings import failures_in_words
from ..results import summary_sections
from ..results.evaluation import as_references, evaluate
from ..results.output_folder import check_output_dir, clear_output_dir, make_output_dir, refuse_another_run
from ..results.publishing import publish
from ..results.pushing import push_finished_run
from ..scores.metrics import ASTMetrics, left_out_note, mean_loss, without_labels_note
from ..scores.scoring import PROBLEM_TYPES, probabilities
from ..scores.thresholds import not_chosen_note
from ..sources.labels import is_multi_label, label_names
from ..training import trainer_card
from ..training.lora import (
    add_adapters,
    frozen_weights_digest,
    lora_in_words,
    lora_section,
    merge_into_trainer,
    require_peft,
)
from ..training.losses import BINARY_CROSS_ENTROPY, CROSS_ENTROPY, TrainingLoss, class_weights, weighted_loss
from ..training.progress import require_reporters
from ..training.push_checks import check_push
from ..training.setting_checks import check_settings
from ..training.trainer import ASTTrainer
from ..training.weight_averaging import EpochFolders, remove_epochs

CLIPS_LOOKED_AT = 64  # whose normalised features are compared with what the model expects
SINGLE_LABEL, MULTI_LABEL = PROBLEM_TYPES["softmax"], PROBLEM_TYPES["sigmoid"]


@dataclass(frozen=True)
class Looks:
    """What is decoded of the clips before a training, beside what its normalisation is measured on.

    Args:
        files_known (`bool`, defaults to `False`): whether enough of the clips were decoded already to check their files.
        compared (`int`, defaults to 64): clips whose normalised features are compared with what the model expects.
        stand_ins (`bool`, defaults to `False`): whether the next clip is read in place of one that cannot be used.
    """

    files_known: bool = False
    compared: int = CLIPS_LOOKED_AT
    stand_ins: bool = False


@dataclass(frozen=True)
class PreparedRun:
    """A training that only has to be started."""

    trainer: ASTTrainer
    clips: dict[str, ClipDataset]
    data_args: DataArguments
    optimization: OptimizationArguments
    recipe: dict
    summary: dict
    resume_from: str | None


def prepare_run(
    argv: list[str],
    arguments: RunArguments,
    loaded: tuple[Mapping[str, ClipSet | datasets.Dataset], str] | None = None,
    looks: Looks | None = None,
) -> PreparedRun:
    """Check the input, load the clips, build the model and its trainer, make the output folder.

    Args:
        argv (`list[str]`): the command line, for the saved recipe and the summary.
        arguments ([`RunArguments`]): what [`parse_arguments`] makes of it.
        loaded (`tuple`, *optional*): splits by side, of any kind (see [`clip_set`]), and how they were made in words, if
            they are not to be loaded here.
        looks ([`Looks`], *optional*): what is decoded before the training, other than usual.

    Returns:
        [`PreparedRun`]: what [`train_run`] takes.

    Raises:
        InputError: for whatever is wrong with the input; the message says what to type.
    """
    model_args, data_args, optimization_args = arguments.model, arguments.data, arguments.optimization
    training_args = arguments.training
    with input_errors_in_words(model_args):
        recipe = merged_recipe(argv, [void.name for void in void_fields(arguments.groups)])
        set_seed(training_args.seed)
        if optimization_args.lora_rank:
            require_peft()  # before anything takes time
        require_reporters(training_args)
        if training_args.push_to_hub:
            check_push(training_args)
        resume_from = check_output_dir(training_args, model_args, data_args)
        with make_output_dir(Path(training_args.output_dir)):
            trainer, clips, summary = _prepare_trainer(argv, arguments, loaded, looks or Looks())
            if resume_from:
                refuse_another_run(Path(resume_from), trainer.identity)
            else:
                clear_output_dir(Path(training_args.output_dir))
    return PreparedRun(trainer, clips, data_args, optimization_args, recipe, summary, resume_from)


def _prepare_trainer(
    argv: list[str], arguments: RunArguments, loaded: tuple[Mapping, str] | None, looks: Looks
) -> tuple[ASTTrainer, dict[str, ClipDataset], dict]:
    """The first three stages: trainer, data sets, and what is known of the run before it is trained."""
    model_args, data_args, augmentation_args = arguments.model, arguments.data, arguments.augmentation
    optimization_args, training_args = arguments.optimization, arguments.training
    feature_extractor = build_feature_extractor(model_args, data_args)
    reader = clip_reader(data_args, feature_extractor)
    augmentation = augmentation_args.augmentation()
    cache = waveform_cache(data_args, feature_extractor, augmentation)
    noted: list[NotedClip] = []
    num_workers = training_args.dataloader_num_workers
    splits, split_method, notes, skipped = prepare_data(
        data_args, feature_extractor, training_args.seed, loaded, cache, num_workers, looks.files_known, noted
    )
    sizes = f"{len(splits['train'])} training clips, {len(splits['eval'])} to score"
    if "validation" in splits:
        sizes += f", {len(splits['validation'])} to choose on"
    notes += void_notes(arguments)
    if wrong_way_round(training_args):
        notes.append(f"--greater_is_better {training_args.greater_is_better} chooses {wrong_way_round(training_args)}")
    in_line, lists = ([words for words in notes if ("\n" in words) == is_list] for is_list in (False, True))
    print_stage(1, "\n  ".join(["; ".join([f"data: {sizes}, split {split_method}", *in_line]), *lists]))

    problem_type = problem_type_of_labels(splits["train"], optimization_args.loss)
    clips = build_datasets(splits, feature_extractor, augmentation, training_args.seed, problem_type, reader)
    for dataset in clips.values():
        dataset.said.add(note.text for clip in noted for note in clip.notes)
    if cache is not None:
        for dataset in clips.values():
            dataset.read_from(cache.waveforms(dataset.split))
    elif looks.stand_ins:
        for dataset in clips.values():
            dataset.read_from(UsableWaveforms(dataset.split, reader, dataset.samples_needed))
    normalization = set_normalization(feature_extractor, clips["train"], model_args, data_args, training_args.seed)
    warning = normalization_warning(feature_extractor, clips["train"], training_args.seed, looks.compared)
    words = f"features: mean {feature_extractor.mean:.4f}, std {feature_extractor.std:.4f}, {normalization}"
    print_stage(2, f"{words}; {warning}" if warning else words)

    labels = label_names(splits["train"])
    model, origin = build_model(model_args, labels, problem_type)
    in_words = f"model: {model.num_parameters():,} parameters, {len(labels)} labels, {origin}"
    feature_extractor.padding = data_args.padding
    summary = describe_run(argv, arguments, splits, split_method, feature_extractor, normalization, model)
    if optimization_args.lora_rank:
        num_parameters = model.num_parameters()
        model = add_adapters(model, optimization_args, model_args.model_name_or_path)
        summary["training"]["lora"] = lora_section(model)
        summary["environment"] |= versions(["peft"])
        in_words += f"; {lora_in_words(summary['training']['lora'], num_parameters)}"
    if model_args.model_name_or_path and not data_args.license:
        in_words += f"; {trainer_card.license_in_words(summary['license'], model_args.model_name_or_path)}"
    note = license_note(data_args.license)
    print_stage(3, f"{in_words}; {note}" if note else in_words)
    if data_args.skip_bad_audio:
        summary["data"]["skipped_clips"] = summary_sections.skipped_section(data_args, skipped)
    if noted:
        summary["data"]["audio_notes"] = summary_sections.audio_notes_section(data_args, noted)
    identity = summary_sections.identity(summary, splits)
    if optimization_args.lora_rank:
        identity["starting weights"] = frozen_weights_digest(model)
    refuse_smoothed_vectors(training_args, problem_type)
    trainer = build_trainer(model, feature_extractor, clips, augmentation, optimization_args, training_args, identity)
    check_settings(trainer)
    summary["training"]["loss"] = trainer.loss_name
    return trainer, clips, summary


def train_run(run: PreparedRun) -> dict:
    """Train, score, write the checkpoint folder, and push it to the Hub if that was asked for.

    Args:
        run ([`PreparedRun`]): from [`prepare_run`].

    Returns:
        The run summary.

    Raises:
        TrainingStoppedError: see [`failures_in_words`].
        ResumeError: if the checkpoint to go on from is whole, but of another training.
        NotPushedError: if the run is whole in its folder, but could not be pushed.
    """
    with failures_in_words(run.trainer, run.data_args, run.recipe):
        summary = _train_and_publish(run)
    if run.trainer.args.push_to_hub:
        push_finished_run(run.trainer)
    return summary


def _train_and_publish(run: PreparedRun) -> dict:
    trainer, args = run.trainer, run.trainer.args
    length = f"{args.max_steps} steps" if args.max_steps > 0 else f"{args.num_train_epochs:g} epochs"
    print_stage(4, f"training: {length} on {args.device}")
    outcome = trainer.train(resume_from_checkpoint=run.resume_from)
    adapted = merge_into_trainer(trainer)
    evaluation = evaluate(trainer, run.clips, run.data_args, run.optimization)
    scores = "  ".join(f"{name} {value:.3f}" for name, value in evaluation["metrics"].items())
    words = [f"score: {scores}", *evaluation_notes(evaluation)]
    summary = run.summary | {
        "history": trainer_card.history_section(trainer.state.log_history),
        "evaluation": evaluation,
    }
    if not run.resume_from:  # a resumed run knows only its own share of the time
        summary["time"] = summary_sections.cost_section(outcome, args)
        words.append(summary_sections.cost_in_words(summary["time"]))
    print_stage(5, "; ".join(words))
    averaged = run.optimization.average_epochs  # into weights that are no longer those of one adapter
    publish(trainer, run.clips["eval"], run.recipe, summary, None if averaged else adapted)
    if not run.optimization.ensemble_epochs and PartialState().is_main_process:
        remove_epochs(args.output_dir)  # those that were kept for their average
    name = "mean_average_precision" if is_multi_label(run.clips["eval"].split) else "accuracy"
    score = f"{name.replace('_', ' ')} {evaluation['metrics'][name]:.3f} on {evaluation['clips']} clips"
    print_stage(6, f"{args.output_dir}: {score}")
    return summary


def evaluation_notes(evaluation: dict) -> list[str]:
    """What to say of an evaluation beside its scores: what they leave out, and what was not chosen although it was to be.

    Args:
        evaluation (`dict`): from [`evaluate`].

    Returns:
        `list[str]`: notes in words.
    """
    notes = [
        left_out_note(evaluation["left_out"], len(evaluation["per_class"])),
        without_labels_note(evaluation.get("clips_without_labels", 0), evaluation["clips"]),
        not_chosen_note(evaluation.get("thresholds_not_chosen", [])),
    ]
    if "not_chosen" in evaluation.get("best_checkpoint", {}):
        notes.append(f"published are {evaluation['protocol']}")
    return [note for note in notes if note]


def print_stage(number: int, message: str):
    """One numbered line per stage, printed by the main process only.

    Args:
        number (`int`): of the stage, from 1 to 6.
        message (`str`): one line or several.
    """
    if PartialState().is_main_process:
        print(f"[{number}/6] {message}", flush=True)


def prepare_data(
    data_args: DataArguments,
    feature_extractor: ASTFeatureExtractor,
    seed: int,
    loaded: tuple[Mapping[str, ClipSet | datasets.Dataset], str] | None = None,
    cache: WaveformCache | None = None,
    num_workers: int = 0,
    files_known: bool = False,
    noted: list[NotedClip] | None = None,
) -> tuple[dict[str, ClipSet], str, list[str], list[dict]]:
    """Load, split and check the clips, and fill the waveform cache if there is one.

    Args:
        data_args ([`DataArguments`]): where the clips are, and which checks are asked for.
        feature_extractor ([`ASTFeatureExtractor`]): what the model hears of a clip.
        seed (`int`): seed of a split that has to be made.
        loaded (`tuple`, *optional*): as of [`prepare_run`].
        cache ([`WaveformCache`], *optional*): where decoded clips are kept.
        num_workers (`int`, defaults to 0): processes that decode.
        files_known (`bool`, defaults to `False`): see [`Looks`].
        noted (`list[NotedClip]`, *optional*): to which clips are added of which there is something to be said.

    Returns:
        The splits, in words how they were made, what else the user should know, and which clips were left out because
        they cannot be used; see [`Checked`].

    Raises:
        DataError: see [`load_clip_sets`] and [`ClipSet.check`].
    """
    if loaded is None:
        splits, split_method = load_clip_sets(data_args, seed)
    else:
        splits, split_method = clip_sets(loaded[0]), loaded[1]
    checks = Checks(
        data_args,
        feature_extractor,
        clip_reader(data_args, feature_extractor),
        split_method,
        num_workers,
        cache,
        files_known,
        [] if noted is None else noted,
    )
    checked = splits["train"].check(splits, checks)
    return checked.splits, split_method, checked.notes, checked.skipped


def waveform_cache(
    data_args: DataArguments, feature_extractor: ASTFeatureExtractor, augmentation: Augmentation
) -> WaveformCache | None:
    """The cache that was asked for, for as much of each clip as can be heard in training; `None` if there is none.

    Args:
        data_args ([`DataArguments`]): where the clips are and how they are heard.
        feature_extractor ([`ASTFeatureExtractor`]): of the model.
        augmentation ([`Augmentation`]): for which more of a clip may be needed.

    Returns:
        [`WaveformCache`], *optional*: not filled yet.
    """
    if not data_args.waveform_cache:
        return None
    reader = clip_reader(data_args, feature_extractor)
    return WaveformCache(data_args.waveform_cache, reader, augmentation.samples_needed(feature_extractor.max_samples))


def build_feature_extractor(args: ModelArguments, data_args: DataArguments) -> ASTFeatureExtractor:
    """The checkpoint's feature extractor, or one of a new model, for the sizes of inputs and the channels that were given.

    What is trained is a new checkpoint, which names its resampler even where the one that it starts from names none.

    Args:
        args ([`ModelArguments`]): which model.
        data_args ([`DataArguments`]): where the clips are and how they are heard.

    Returns:
        [`ASTFeatureExtractor`]: whose statistics are not those of these clips yet.
    """
    sizes = {name: size for name, size in args.sizes().items() if name in ("max_length", "num_mel_bins")}
    if data_args.channels is not None:
        sizes["channels"] = data_args.channels
    if args.model_name_or_path:
        check_model_name(args.model_name_or_path)
        extractor = ASTFeatureExtractor.from_pretrained(args.model_name_or_path, **sizes)
    else:
        extractor = ASTFeatureExtractor(**sizes)
    extractor.resampler = data_args.resampler or extractor.resampler or NEW_RESAMPLER
    return extractor


def problem_type_of_labels(split: ClipSet, loss: str | None) -> str:
    """The kind of problem that labels and loss make.

    Args:
        split ([`ClipSet`]): the training clips.
        loss (`str`, *optional*): the loss that was asked for.

    Returns:
        `str`: for the configuration of the model.

    Raises:
        ValueError: if clips have several labels and the loss is for exclusive ones.
    """
    multi_label = is_multi_label(split)
    if multi_label and loss == CROSS_ENTROPY:
        raise ValueError(
            "loss='cross_entropy' was given, but clips have several labels each. Pass --loss binary_cross_entropy, or "
            "leave it out."
        )
    return MULTI_LABEL if multi_label or loss == BINARY_CROSS_ENTROPY else SINGLE_LABEL


def refuse_smoothed_vectors(args: ASTTrainingArguments, problem_type: str):
    """Raise a `ValueError` for label smoothing of labels that are vectors.

    Args:
        args ([`ASTTrainingArguments`]): of the training.
        problem_type (`str`): of the model.
    """
    if args.label_smoothing_factor and problem_type == MULTI_LABEL:
        raise ValueError(
            f"label_smoothing_factor={args.label_smoothing_factor} was given, but Trainer smooths exclusive labels only, and "
            "these are trained with binary cross-entropy. Leave it out."
        )


def build_datasets(
    splits: dict[str, ClipSet],
    feature_extractor: ASTFeatureExtractor,
    augmentation: Augmentation,
    seed: int,
    problem_type: str,
    reader: AudioReader,
) -> dict[str, ClipDataset]:
    """A data set for each split; that of the training clips is augmented.

    Args:
        splits (`dict[str, ClipSet]`): the clips, by side.
        feature_extractor ([`ASTFeatureExtractor`]): of the model.
        augmentation ([`Augmentation`]): of the training clips.
        seed (`int`): of its draws.
        problem_type (`str`): of the model, which decides what its targets are.
        reader ([`AudioReader`]): how files are heard.

    Returns:
        `dict[str, ClipDataset]`: by the name of the split.
    """
    return {
        name: split.dataset(
            feature_extractor,
            augmentation if name == "train" else None,
            seed,
            binary_targets=problem_type == MULTI_LABEL,
            reader=reader,
        )
        for name, split in splits.items()
    }


def set_normalization(
    feature_extractor: ASTFeatureExtractor,
    train_dataset: ClipDataset,
    model_args: ModelArguments,
    data_args: DataArguments,
    seed: int,
) -> str:
    """Set mean and standard deviation of the feature extractor as asked for; say in words how they were got.

    Args:
        feature_extractor ([`ASTFeatureExtractor`]): changed in place.
        train_dataset ([`ClipDataset`]): the clips that may be measured.
        model_args ([`ModelArguments`]): which model.
        data_args ([`DataArguments`]): where the clips are and how they are heard.
        seed (`int`): by which clips are drawn.

    Returns:
        `str`: a part of a line.

    Raises:
        ValueError: if those of a checkpoint are wanted and there is none, if they are those of waveforms instead of
            features, or the clips are all silent.
    """
    given = data_args.normalization_statistics()
    if given:
        feature_extractor.mean, feature_extractor.std = given
        words, origin = "as given", "--normalization"
    elif data_args.normalization == ["checkpoint"]:
        if not model_args.model_name_or_path:
            raise ValueError(
                "normalization='checkpoint' was given without a checkpoint. Pass --model_name_or_path, or "
                "--normalization measured."
            )
        origin = model_args.model_name_or_path
        words = f"taken from {trainer_card.shown_checkpoint(origin)}"
    else:
        measured = measure_normalization(train_dataset.sample(data_args.normalization_clips, seed), feature_extractor)
        feature_extractor.mean, feature_extractor.std = measured.mean, measured.std
        of_all = f"{measured.clips} of {len(train_dataset)} training clips"
        if not train_dataset.at_hand and measured.clips < len(train_dataset):
            of_all = f"the first {measured.clips} of {len(train_dataset)} shuffled training clips"
        words, origin = f"measured on {of_all} ({measured.frames} unpadded frames)", "the training clips"
    refuse_waveform_statistics(feature_extractor.mean, feature_extractor.std, origin)
    return words


def normalization_warning(
    feature_extractor: ASTFeatureExtractor, train_dataset: ClipDataset, seed: int, count: int = CLIPS_LOOKED_AT
) -> str | None:
    """What to say if so many normalised training clips are far from mean 0 and standard deviation 0.5.

    Args:
        feature_extractor ([`ASTFeatureExtractor`]): of the model.
        train_dataset ([`ClipDataset`]): the training clips.
        seed (`int`): by which clips are drawn.
        count (`int`, defaults to 64): clips to look at.

    Returns:
        `str`, *optional*: the words.
    """
    sample = train_dataset.sample(count, seed)
    clips = [{"features" if clip.ndim == 2 else "waveform": clip, "label": 0} for clip in sample]
    batch = ASTDataCollator(feature_extractor, compute_features=False)(clips)
    features = model_inputs(batch, feature_extractor)["input_values"]
    frames = batch["lengths"]
    if "waveforms" in batch:
        frames = num_frames(frames, feature_extractor.sampling_rate).clamp(max=feature_extractor.max_length)
    return normalized_batch_warning(features, frames)


def build_model(
    args: ModelArguments, labels: list[str], problem_type: str = SINGLE_LABEL
) -> tuple[ASTForAudioClassification, str]:
    """A new model, or a checkpoint, with a new classifier unless its labels are these in this order.

    Args:
        args ([`ModelArguments`]): which model.
        labels (`list[str]`): names in output order.
        problem_type (`str`): of the labels.

    Returns:
        The model, and in words where it comes from.
    """
    names = dict(enumerate(labels))
    settings = {
        "id2label": names,
        "label2id": {name: index for index, name in names.items()},
        "problem_type": problem_type,
        "hidden_dropout_prob": args.hidden_dropout_prob,
        "attention_probs_dropout_prob": args.attention_probs_dropout_prob,
        "attn_implementation": args.attn_implementation,
        **LOGITS_ALONE,
    }
    start = args.model_name_or_path
    if not start:
        return ASTForAudioClassification(ASTConfig(**args.sizes(), **settings)), "random weights"
    trained_labels = ASTConfig.from_pretrained(start).id2label
    model, loading_info = ASTForAudioClassification.from_pretrained(
        start, dtype=torch.float32, output_loading_info=True, **settings, **args.sizes()
    )
    model.config.label_thresholds = None  # those of the weights it starts from
    kept = trained_labels == names and "classifier.dense.weight" not in loading_info["missing_keys"]
    return model, f"from {start} with {'its' if kept else 'a new'} classifier"


def describe_run(
    argv: list[str],
    arguments: RunArguments,
    splits: dict[str, ClipSet],
    split_method: str,
    feature_extractor: ASTFeatureExtractor,
    normalization: str,
    model: ASTForAudioClassification,
) -> dict:
    """What is known of a run before it is trained, as sections of the run summary.

    Args:
        argv (`list[str]`): the command line.
        arguments ([`RunArguments`]): what [`parse_arguments`] makes of it.
        splits (`dict[str, ClipSet]`): the clips, by side.
        split_method (`str`): how they were split, in words.
        feature_extractor ([`ASTFeatureExtractor`]): of the model, with the statistics it is trained with.
        normalization (`str`): how these were got, from [`set_normalization`].
        model ([`ASTForAudioClassification`]): before adapters are added.

    Returns:
        `dict`: sections by their names.
    """
    model_args, data_args, augmentation_args = arguments.model, arguments.data, arguments.augmentation
    optimization_args, training_args = arguments.optimization, arguments.training
    return summary_sections.origin_section(argv, model_args.model_name_or_path) | {
        "seed": training_args.seed,
        **trainer_card.license_section(data_args.license, model_args.model_name_or_path),
        "data": summary_sections.data_section(data_args, splits, split_method),
        "labels": label_names(splits["train"]),
        "problem_type": model.config.problem_type,
        "features": features_section(feature_extractor, normalization),
        "model": trainer_card.model_section(model),
        "training": summary_sections.training_section(
            training_args, augmentation_args, optimization_args, data_args, model
        ),
        "environment": trainer_card.environment_section(training_args),
    }


def training_loss(config: ASTConfig, clips: ClipDataset, optimization: OptimizationArguments) -> TrainingLoss | None:
    """The loss that was asked for.

    Args:
        config ([`ASTConfig`]): of the model.
        clips ([`ClipDataset`]): the training clips, whose labels are counted for balanced weights.
        optimization ([`OptimizationArguments`]): whether the classes have weights.

    Returns:
        [`TrainingLoss`], or `None` for the model's own.

    Raises:
        ValueError: see [`class_weights`].
    """
    if optimization.class_weights != "balanced":
        return None
    binary = config.problem_type == MULTI_LABEL
    weights = class_weights(clips.label_counts(), len(clips), BINARY_CROSS_ENTROPY if binary else CROSS_ENTROPY)
    return weighted_loss(weights, config.problem_type, config.num_labels)


def build_trainer(
    model: ASTForAudioClassification,
    feature_extractor: ASTFeatureExtractor,
    clips: dict[str, ClipDataset],
    augmentation: Augmentation,
    optimization: OptimizationArguments,
    args: ASTTrainingArguments,
    identity: dict,
) -> ASTTrainer:
    """The trainer, with the kit's metrics for evaluations in training, on the validation split if there is one.

    See [`ASTTrainer`] for `identity`.

    Args:
        model ([`ASTForAudioClassification`]): to train, perhaps with adapters.
        feature_extractor ([`ASTFeatureExtractor`]): of the model.
        clips (`dict[str, ClipDataset]`): from [`build_datasets`].
        augmentation ([`Augmentation`]): of the training clips.
        optimization ([`OptimizationArguments`]): what is optimised how.
        args ([`ASTTrainingArguments`]): of the training.
        identity (`dict`): what a resumed run must have in common with this one.

    Returns:
        [`ASTTrainer`]: with its callbacks.
    """
    exclusive = not is_multi_label(clips["train"].split)
    metrics = ASTMetrics(multi_label=not exclusive)

    def compute_metrics(prediction: EvalPrediction) -> dict[str, float]:
        scores = probabilities(prediction.predictions, model.config.problem_type, trainer.scored_dataset)
        references = as_references(prediction.label_ids, exclusive)
        # `Trainer` takes the mean over batches, in which clips that fill up the last one of several processes count too.
        loss = mean_loss(prediction.predictions, prediction.label_ids, model.config.problem_type)
        return {"loss": loss} | metrics.compute(predictions=scores, references=references)

    trainer = ASTTrainer(
        model=model,
        args=args,
        train_dataset=clips["train"],
        eval_dataset=clips.get("validation", clips["eval"]),
        data_collator=ASTDataCollator(feature_extractor, compute_features=False),
        compute_metrics=compute_metrics,
        feature_extractor=feature_extractor,
        augmentation=augmentation,
        optimization=optimization,
        loss=training_loss(model.config, clips["train"], optimization),
        identity=identity,
    )
    if optimization.early_stopping_patience:
        args.restore_callback_states_from_checkpoint = True  # or a resumed run would be patient for longer
        trainer.add_callback(EarlyStoppingCallback(optimization.early_stopping_patience))
    kept_epochs = [*optimization.average_epochs, *optimization.ensemble_epochs]
    if kept_epochs:
        trainer.add_callback(EpochFolders(trainer, min(kept_epochs), max(kept_epochs)))
    return trainer

"""What a training is made of, one function each: feature extractor, clips, data sets, normalisation, model, loss, trainer.

They stand in the order in which [`~finetune.runs.training_run.prepare_run`] calls them; each can be imported and used alone.
"""

import os
from collections.abc import Callable, Mapping
from functools import partial

import datasets
import torch
from transformers import EarlyStoppingCallback, EvalPrediction

from model_card.run_summary import features_section
from modeling_ast import (
    ASTConfig,
    ASTFeatureExtractor,
    ASTForAudioClassification,
    ASTForAudioFrameClassification,
    ASTForMaskedSpectrogramModeling,
)
from modeling_ast.audio import NEW_RESAMPLER, AudioReader
from modeling_ast.configuration_ast import LOGITS_ALONE
from modeling_ast.features.kaldi import num_frames
from modeling_ast.loading import check_model_name, hub_errors_in_words

from ..arguments.groups import (
    ASTTrainingArguments,
    DataArguments,
    ModelArguments,
    OptimizationArguments,
    RunArguments,
)
from ..augmentations.augmentation import Augmentation
from ..clip_sets.clip_datasets import clip_reader, clip_sets, load_clip_sets, with_windows
from ..clip_sets.clip_memory import divided
from ..clip_sets.clip_notes import NotedClip
from ..clip_sets.clip_set import Checks, ClipSet
from ..clip_sets.clip_windows import DrawnWindows
from ..clip_sets.collator import ASTDataCollator, model_inputs
from ..clip_sets.decoding import sampled_clips
from ..clip_sets.free_memory import free_memory
from ..clip_sets.marked_windows import MarkedClips
from ..clip_sets.normalization import measure_normalization, normalized_batch_warning, refuse_waveform_statistics
from ..clip_sets.waveform_cache import WaveformCache, in_bytes
from ..clip_sets.waveforms import WHOLE, ClipDataset
from ..results import summary_sections
from ..results.evaluation import as_references
from ..scores.clip_scores import loss_of_clips, references_of_clips, scores_of_clips
from ..scores.hard_negatives import find_hard_negatives
from ..scores.metrics import classification_scores
from ..scores.scoring import PROBLEM_TYPES, probabilities
from ..sources.labels import is_multi_label, label_names
from ..training import trainer_card
from ..training.distillation import distillation_loss
from ..training.losses import BINARY_CROSS_ENTROPY, CROSS_ENTROPY, TrainingLoss, class_weights, weighted_loss
from ..training.teacher import Teacher
from ..training.trainer import ASTTrainer
from ..training.weight_averaging import EpochFolders

CLIPS_LOOKED_AT = 64  # whose normalised features are compared with what the model expects
SINGLE_LABEL, MULTI_LABEL = PROBLEM_TYPES["softmax"], PROBLEM_TYPES["sigmoid"]


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
        with hub_errors_in_words(args.model_name_or_path):
            extractor = ASTFeatureExtractor.from_pretrained(args.model_name_or_path, **sizes)
    else:
        extractor = ASTFeatureExtractor(**sizes)
    extractor.resampler = data_args.resampler or extractor.resampler or NEW_RESAMPLER
    return extractor


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
    needed = augmentation.samples_needed(feature_extractor.max_samples)
    if not data_args.windows_trained() == data_args.windows_scored() == "beginning":
        needed = WHOLE  # windows may lie anywhere
    return WaveformCache(data_args.waveform_cache, reader, needed)


def prepare_data(
    data_args: DataArguments,
    feature_extractor: ASTFeatureExtractor,
    seed: int,
    loaded: tuple[Mapping[str, ClipSet | datasets.Dataset], str] | None = None,
    cache: WaveformCache | None = None,
    num_workers: int | None = 0,
    files_known: bool = False,
    noted: list[NotedClip] | None = None,
    score_windows: bool = True,
    carried: Callable[[dict[str, ClipSet]], dict[str, ClipSet]] | None = None,
) -> tuple[dict[str, ClipSet], str, list[str], list[dict]]:
    """Load, split and check the clips, and fill the waveform cache if there is one.

    Args:
        data_args ([`DataArguments`]): where the clips are, and which checks are asked for.
        feature_extractor ([`ASTFeatureExtractor`]): what the model hears of a clip.
        seed (`int`): seed of a split that has to be made.
        loaded (`tuple`, *optional*): as of [`prepare_run`].
        cache ([`WaveformCache`], *optional*): where decoded clips are kept.
        num_workers (`int`, *optional*, defaults to 0): processes that decode; see [`read_in_turn`](finetune.clip_sets.decoding.read_in_turn).
        files_known (`bool`, defaults to `False`): see [`Looks`].
        noted (`list[NotedClip]`, *optional*): to which clips are added of which there is something to be said.
        score_windows (`bool`, defaults to `True`): whether the scores of several windows of a clip can be put together.
        carried (callable, *optional*): has the splits carry what is trained for, before they are checked for it.

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
    scored = data_args.windows_scored() if score_windows else "beginning"
    splits = splits if carried is None else carried(splits)
    splits = with_windows(splits, data_args.windows_trained(), scored)
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


def with_hard_negatives(
    split: MarkedClips, data_args: DataArguments, training_args: ASTTrainingArguments
) -> tuple[MarkedClips, str]:
    """Find the background windows that a checkpoint takes for a label, to train on them more often.

    Args:
        split ([`MarkedClips`]): the training recordings.
        data_args ([`DataArguments`]): its `hard_negatives` names the checkpoint.
        training_args ([`ASTTrainingArguments`]): batch size and workers.

    Returns:
        The recordings, and in words how many windows were found.

    Raises:
        ScoringError: see [`find_hard_negatives`].
    """
    windows, number = find_hard_negatives(
        data_args.hard_negatives,
        split,
        training_args.per_device_eval_batch_size,
        training_args.device.type,
        training_args.dataloader_num_workers,
    )
    words = f"hard negatives: {len(windows)} of {number} background windows, which {data_args.hard_negatives} takes for a label"
    return split.with_hard_negatives(windows), words


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


def keep_clips_in_memory(
    clips: dict[str, ClipDataset],
    data_args: DataArguments,
    feature_extractor: ASTFeatureExtractor,
    features_too: bool,
    epochs: float,
) -> str | None:
    """Have the data sets keep what they decode, within the share of the free memory that was asked for.

    Args:
        clips (`dict[str, ClipDataset]`): by side.
        data_args ([`DataArguments`]): its `memory_for_clips` and `keep_features` are obeyed.
        feature_extractor ([`ASTFeatureExtractor`]): of the model.
        features_too (`bool`): whether nothing but the trainer, on this CPU, computes features of the clips, so that these can
            be kept in their place.
        epochs (`float`): that are trained.

    Returns:
        `str`, *optional*: in words that the memory may not hold all of them.
    """
    keeping = [dataset for dataset in clips.values() if dataset.keeps_clips]
    share = data_args.memory_for_clips
    if not share or not keeping:
        return None
    by = {
        dataset: feature_extractor
        if features_too and data_args.keep_features and dataset.has_lasting_features()
        else None
        for dataset in keeping
    }
    room = int(share * free_memory()) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    wanted = [dataset.bytes_to_keep(by[dataset]) for dataset in keeping]
    for dataset, num_bytes in zip(keeping, divided(room, wanted), strict=True):
        dataset.keep_in_memory(num_bytes, by[dataset])
    if sum(wanted) <= room:
        for dataset in keeping:  # one, that of training, has windows that are drawn
            if isinstance(dataset, DrawnWindows):
                dataset.keep_whole_clips(room - sum(wanted), epochs)
        return None
    return (
        f"decoded clips stay in memory as far as {in_bytes(room)} ({share:g} of what is free) hold them, all would take up to "
        f"{in_bytes(sum(wanted))}; the others are decoded in every epoch"
    )


def set_normalization(
    feature_extractor: ASTFeatureExtractor,
    train_dataset: ClipDataset,
    model_args: ModelArguments,
    data_args: DataArguments,
    seed: int,
    num_workers: int | None = 0,
) -> str:
    """Set mean and standard deviation of the feature extractor as asked for; say in words how they were got.

    Args:
        feature_extractor ([`ASTFeatureExtractor`]): changed in place.
        train_dataset ([`ClipDataset`]): the clips that may be measured.
        model_args ([`ModelArguments`]): which model.
        data_args ([`DataArguments`]): where the clips are and how they are heard.
        seed (`int`): by which clips are drawn.
        num_workers (`int`, *optional*, defaults to 0): processes that decode; see [`sampled_clips`].

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
        sample = sampled_clips(train_dataset, data_args.normalization_clips, seed, num_workers)
        measured = measure_normalization(sample, feature_extractor)
        feature_extractor.mean, feature_extractor.std = measured.mean, measured.std
        windows = "" if train_dataset.clip_of_item is None else "windows of "
        of_all = f"{measured.clips} of {len(train_dataset)} {windows}training clips"
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


def build_frame_model(args: ModelArguments, labels: list[str]) -> tuple[ASTForAudioFrameClassification, str]:
    """A new model with a frame head, or a checkpoint, whose frame head is new unless it has one for these labels in this order.

    Args:
        args ([`ModelArguments`]): which model.
        labels (`list[str]`): names in output order.

    Returns:
        The model, and in words where it comes from.
    """
    settings, start = model_settings(args, labels), args.model_name_or_path
    if not start:
        return ASTForAudioFrameClassification(ASTConfig(**args.sizes(), **settings)), "random weights"
    trained_labels = ASTConfig.from_pretrained(start).id2label
    model, loading_info = ASTForAudioFrameClassification.from_pretrained(
        start, dtype=torch.float32, output_loading_info=True, **settings, **args.sizes()
    )
    model.config.forget_choices()  # those of the weights it starts from
    missing = f"{model.head_name}.dense.weight" in loading_info["missing_keys"]
    kept = trained_labels == settings["id2label"] and not missing
    return model, f"from {start} with {'its' if kept else 'a new'} frame head"


def model_settings(args: ModelArguments, labels: list[str]) -> dict:
    """Tell what of a configuration is chosen for a training, but for the sizes.

    Args:
        args ([`ModelArguments`]): which model.
        labels (`list[str]`): names in output order.

    Returns:
        `dict`: fields of [`ASTConfig`].
    """
    names = dict(enumerate(labels))
    return {
        "id2label": names,
        "label2id": {name: index for index, name in names.items()},
        "hidden_dropout_prob": args.hidden_dropout_prob,
        "attention_probs_dropout_prob": args.attention_probs_dropout_prob,
        "attn_implementation": args.attn_implementation,
        **LOGITS_ALONE,
    }


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
    settings = model_settings(args, labels) | {"problem_type": problem_type}
    start = args.model_name_or_path
    if not start:
        return ASTForAudioClassification(ASTConfig(**args.sizes(), **settings)), "random weights"
    start_config = ASTConfig.from_pretrained(start)
    trained_labels = start_config.id2label
    model, loading_info = ASTForAudioClassification.from_pretrained(
        start, dtype=torch.float32, output_loading_info=True, **settings, **args.sizes()
    )
    model.config.forget_choices()  # those of the weights it starts from
    kept = trained_labels == names and "classifier.dense.weight" not in loading_info["missing_keys"]
    origin = f"from {start} with {'its' if kept else 'a new'} classifier"
    if ASTForMaskedSpectrogramModeling.__name__ in (start_config.architectures or ()):
        origin += ", without the heads of its pretraining"
    return model, origin


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
    return summary_sections.origin_section(argv, model_args.model_name_or_path, arguments.command.name) | {
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


def training_loss(
    config: ASTConfig, clips: ClipDataset, optimization: OptimizationArguments, teacher: Teacher | None = None
) -> TrainingLoss | None:
    """The loss that was asked for.

    Args:
        config ([`ASTConfig`]): of the model.
        clips ([`ClipDataset`]): the training clips, whose labels are counted for balanced weights.
        optimization ([`OptimizationArguments`]): whether the classes have weights, and which part the teacher has.
        teacher ([`Teacher`], *optional*): with which the model is compared too.

    Returns:
        [`TrainingLoss`], or `None` for the model's own.

    Raises:
        ValueError: see [`class_weights`].
    """
    loss = None
    if optimization.class_weights == "balanced":
        binary = config.problem_type == MULTI_LABEL
        weights = class_weights(clips.label_counts(), len(clips), BINARY_CROSS_ENTROPY if binary else CROSS_ENTROPY)
        loss = weighted_loss(weights, config.problem_type, config.num_labels)
    if teacher is None:
        return loss
    return partial(
        distillation_loss,
        problem_type=config.problem_type,
        temperature=optimization.teacher_temperature,
        weight=optimization.teacher_weight,
        label_loss=loss,
        layers=teacher.layers,
        layer_maps=teacher.layer_maps,
        layer_weight=optimization.teacher_layer_weight,
    )


def build_trainer(
    model: ASTForAudioClassification,
    feature_extractor: ASTFeatureExtractor,
    clips: dict[str, ClipDataset],
    augmentation: Augmentation,
    optimization: OptimizationArguments,
    args: ASTTrainingArguments,
    identity: dict,
    teacher: Teacher | None = None,
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
        teacher ([`Teacher`], *optional*): with which the model is compared too.

    Returns:
        [`ASTTrainer`]: with its callbacks.
    """
    exclusive = not is_multi_label(clips["train"].split)

    def compute_metrics(prediction: EvalPrediction) -> dict[str, float]:
        dataset, problem_type = trainer.scored_dataset, model.config.problem_type
        scores = scores_of_clips(probabilities(prediction.predictions, problem_type, dataset), dataset)
        references = as_references(references_of_clips(prediction.label_ids, dataset), exclusive)
        # `Trainer` takes the mean over batches, in which clips that fill up the last one of several processes count too.
        loss = loss_of_clips(prediction.predictions, prediction.label_ids, problem_type, dataset)
        return {"loss": loss} | classification_scores(scores, references, not exclusive)

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
        loss=training_loss(model.config, clips["train"], optimization, teacher),
        teacher=teacher,
        identity=identity,
    )
    if optimization.early_stopping_patience:
        args.restore_callback_states_from_checkpoint = True  # or a resumed run would be patient for longer
        trainer.add_callback(EarlyStoppingCallback(optimization.early_stopping_patience))
    kept_epochs = [*optimization.average_epochs, *optimization.ensemble_epochs]
    if kept_epochs:
        trainer.add_callback(EpochFolders(trainer, min(kept_epochs), max(kept_epochs)))
    return trainer

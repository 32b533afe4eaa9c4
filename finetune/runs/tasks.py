"""What a run trains for: labels, labels of several sets, or hidden patches. One class each, of which everything is asked that differs between them.

Clips, features, normalisation, output folder, resuming, failures and card are those of every run.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import ClassVar

import datasets
import torch
from transformers import EarlyStoppingCallback, EvalPrediction

from modeling_ast import ASTConfig, ASTFeatureExtractor, ASTForMaskedSpectrogramModeling
from modeling_ast.configuration_ast import LOGITS_ALONE
from modeling_ast.frame_columns import FrameColumns
from modeling_ast.layers.patch_grid import patch_grid_of
from modeling_ast.modeling_ast import ASTPreTrainedModel

from ..arguments.groups import (
    ASTTrainingArguments,
    DataArguments,
    ModelArguments,
    OptimizationArguments,
    RunArguments,
)
from ..arguments.model_arguments import FRAME_HEAD
from ..arguments.optimization_arguments import LABEL_SETS
from ..arguments.pretraining_arguments import PretrainingArguments
from ..augmentations.augmentation import Augmentation
from ..clip_sets.clip_set import ClipSet
from ..clip_sets.collator import ASTDataCollator
from ..clip_sets.frame_targets import FrameCollator
from ..clip_sets.unlabelled import MaskedCollator, Masking, UnlabelledClips
from ..clip_sets.waveforms import ClipDataset
from ..results.evaluation import evaluate
from ..results.frame_evaluation import evaluate_frames
from ..results.label_set_evaluation import evaluate_label_sets, label_set_scores
from ..results.pretext_evaluation import evaluate_pretext
from ..scores.frame_scores import frame_scores
from ..sources.label_sets import label_sets
from ..sources.labels import is_multi_label, label_names
from ..sources.splits import load_splits
from ..training.losses import label_sets_loss
from ..training.masked_trainer import MaskedTrainer
from ..training.teacher import Teacher
from ..training.trainer import ASTTrainer
from .preparation import (
    MULTI_LABEL,
    SINGLE_LABEL,
    build_frame_model,
    build_model,
    build_trainer,
    problem_type_of_labels,
)


class Task(ABC):
    """What a run trains for.

    Attributes:
        scores_windows (`bool`): whether the scores of several windows of a clip can be put together.
    """

    scores_windows: ClassVar[bool] = True

    def load(
        self, model: ModelArguments, data: DataArguments, seed: int
    ) -> tuple[Mapping[str, ClipSet | datasets.Dataset], str] | None:
        """Load the clips where that is not done as for labels.

        Args:
            model ([`ModelArguments`]): which model.
            data ([`DataArguments`]): where the clips are.
            seed (`int`): of a split that has to be made.

        Returns:
            The splits by side and in words how they were made; `None` for the usual way.
        """
        return None

    def clips(self, splits: dict[str, ClipSet], model: ModelArguments) -> dict[str, ClipSet]:
        """Have the clips carry what is trained for, where that is not a label of each.

        Args:
            splits (`dict[str, ClipSet]`): by side, before they are checked.
            model ([`ModelArguments`]): which model.

        Returns:
            The splits.

        Raises:
            DataError: if they do not tell it.
        """
        return splits

    @abstractmethod
    def problem_type(self, split: ClipSet, optimization: OptimizationArguments) -> str | None:
        """Tell the kind of problem.

        Args:
            split ([`ClipSet`]): the training clips.
            optimization ([`OptimizationArguments`]): the loss that was asked for.

        Returns:
            One of Transformers' problem types; `None` where there are no labels.
        """

    @abstractmethod
    def build_model(
        self, args: ModelArguments, labels: list[str], problem_type: str | None
    ) -> tuple[ASTPreTrainedModel, str, str]:
        """Make the model.

        Args:
            args ([`ModelArguments`]): which model.
            labels (`list[str]`): names in output order.
            problem_type (`str`, *optional*): of the labels.

        Returns:
            The model, in words what it tells, and where it comes from.
        """

    @abstractmethod
    def build_trainer(
        self,
        model: ASTPreTrainedModel,
        feature_extractor: ASTFeatureExtractor,
        clips: dict[str, ClipDataset],
        augmentation: Augmentation,
        optimization: OptimizationArguments,
        args: ASTTrainingArguments,
        identity: dict,
        teacher: Teacher | None = None,
    ) -> ASTTrainer:
        """Make the trainer.

        Args:
            model ([`ASTPreTrainedModel`]): to train.
            feature_extractor ([`ASTFeatureExtractor`]): of the model.
            clips (`dict[str, ClipDataset]`): by side.
            augmentation ([`Augmentation`]): of the training clips.
            optimization ([`OptimizationArguments`]): what is optimised how.
            args ([`ASTTrainingArguments`]): of the training.
            identity (`dict`): what a resumed run must have in common with this one.
            teacher ([`Teacher`], *optional*): of the labels.

        Returns:
            [`ASTTrainer`].
        """

    @abstractmethod
    def evaluate(
        self,
        trainer: ASTTrainer,
        clips: dict[str, ClipDataset],
        data: DataArguments,
        optimization: OptimizationArguments,
    ) -> dict:
        """Score the held-out clips after the training.

        Args:
            trainer ([`ASTTrainer`]): after its training.
            clips (`dict[str, ClipDataset]`): by side.
            data ([`DataArguments`]): names of the splits, padding of the training.
            optimization ([`OptimizationArguments`]): what was optimised how.

        Returns:
            The section `evaluation` of the run summary.
        """

    @abstractmethod
    def headline(self, scored: ClipSet) -> str:
        """Tell the score that the last line of a run has.

        Args:
            scored ([`ClipSet`]): the held-out clips.

        Returns:
            Its name among the metrics.
        """

    def settings(self) -> dict:
        """Tell the settings of its own that decide what is learned.

        Returns:
            `dict`: of the section `training` of the run summary.
        """
        return {}


class Classification(Task):
    """Labels, as `ast-finetune` trains them."""

    def problem_type(self, split: ClipSet, optimization: OptimizationArguments) -> str:
        """See [`Task.problem_type`]."""
        return problem_type_of_labels(split, optimization.loss)

    def build_model(
        self, args: ModelArguments, labels: list[str], problem_type: str | None
    ) -> tuple[ASTPreTrainedModel, str, str]:
        """See [`Task.build_model`]."""
        model, origin = build_model(args, labels, problem_type)
        return model, f"{len(labels)} labels", origin

    def build_trainer(self, *args) -> ASTTrainer:
        """See [`Task.build_trainer`]."""
        return build_trainer(*args)

    def evaluate(self, *args) -> dict:
        """See [`Task.evaluate`]."""
        return evaluate(*args)

    def headline(self, scored: ClipSet) -> str:
        """See [`Task.headline`]."""
        return "mean_average_precision" if is_multi_label(scored) else "accuracy"


class LabelSets(Classification):
    """Labels of several sets at once: one encoder, and for each set a head that tells its own labels apart."""

    scores_windows = False

    def problem_type(self, split: ClipSet, optimization: OptimizationArguments) -> str:
        """See [`Task.problem_type`]: exclusive labels, each of a set.

        Args:
            split ([`ClipSet`]): the training clips.
            optimization ([`OptimizationArguments`]): not asked.

        Returns:
            The problem type.

        Raises:
            DataError: see [`label_sets`].
            ValueError: if clips have several labels.
        """
        if is_multi_label(split):
            raise ValueError(
                "loss='label_sets' was given, but clips have several labels each, and a head tells exclusive ones apart. Pass --loss "
                "binary_cross_entropy, or one label a clip."
            )
        label_sets(label_names(split))
        return SINGLE_LABEL

    def build_model(
        self, args: ModelArguments, labels: list[str], problem_type: str | None
    ) -> tuple[ASTPreTrainedModel, str, str]:
        """See [`Task.build_model`]."""
        model, tells, origin = super().build_model(args, labels, problem_type)
        return model, f"{tells} in {len(label_sets(labels))} sets", origin

    def build_trainer(
        self,
        model: ASTPreTrainedModel,
        feature_extractor: ASTFeatureExtractor,
        clips: dict[str, ClipDataset],
        augmentation: Augmentation,
        optimization: OptimizationArguments,
        args: ASTTrainingArguments,
        identity: dict,
        teacher: Teacher | None = None,
    ) -> ASTTrainer:
        """See [`Task.build_trainer`]."""
        labels = label_names(clips["train"].split)
        return ASTTrainer(
            model=model,
            args=args,
            train_dataset=clips["train"],
            eval_dataset=clips["eval"],
            data_collator=ASTDataCollator(feature_extractor, compute_features=False),
            compute_metrics=partial(label_set_scores, labels=labels),
            feature_extractor=feature_extractor,
            augmentation=augmentation,
            optimization=optimization,
            loss=partial(label_sets_loss, sets=[places.tolist() for places in label_sets(labels).values()]),
            identity=identity,
        )

    def evaluate(self, *args) -> dict:
        """See [`Task.evaluate`]."""
        return evaluate_label_sets(*args)

    def headline(self, scored: ClipSet) -> str:
        """See [`Task.headline`]."""
        return "accuracy"


class Frames(Classification):
    """Labels of frames: which of them sound in each column of the patch grid, where stretches of time are marked."""

    def clips(self, splits: dict[str, ClipSet], model: ModelArguments) -> dict[str, ClipSet]:
        """See [`Task.clips`].

        Args:
            splits (`dict[str, ClipSet]`): by side.
            model ([`ModelArguments`]): whose columns are told of.

        Returns:
            The splits, whose labels are those of frames.

        Raises:
            DataError: see [`ClipSet.with_frames`].
        """
        start, strides = model.model_name_or_path, model.sizes()
        config = ASTConfig.from_pretrained(start, **strides) if start else ASTConfig(**strides)
        columns = FrameColumns.of(config)
        return {side: split.with_frames(columns) for side, split in splits.items()}

    def problem_type(self, split: ClipSet, optimization: OptimizationArguments) -> str:
        """See [`Task.problem_type`]: independent labels, whatever the clips have."""
        return MULTI_LABEL

    def build_model(
        self, args: ModelArguments, labels: list[str], problem_type: str | None
    ) -> tuple[ASTPreTrainedModel, str, str]:
        """See [`Task.build_model`]: new, or with the encoder of a checkpoint, and its frame head if that tells the same labels."""
        model, origin = build_frame_model(args, labels)
        columns = FrameColumns.of(model.config)
        return model, f"{len(labels)} labels of frames of {1000 * columns.seconds:g} ms", origin

    def build_trainer(
        self,
        model: ASTPreTrainedModel,
        feature_extractor: ASTFeatureExtractor,
        clips: dict[str, ClipDataset],
        augmentation: Augmentation,
        optimization: OptimizationArguments,
        args: ASTTrainingArguments,
        identity: dict,
        teacher: Teacher | None = None,
    ) -> ASTTrainer:
        """See [`Task.build_trainer`]."""

        def compute_metrics(prediction: EvalPrediction) -> dict[str, float]:
            return frame_scores(prediction.predictions, prediction.label_ids)

        trainer = ASTTrainer(
            model=model,
            args=args,
            train_dataset=clips["train"],
            eval_dataset=clips.get("validation", clips["eval"]),
            data_collator=FrameCollator(feature_extractor, FrameColumns.of(model.config)),
            compute_metrics=compute_metrics,
            feature_extractor=feature_extractor,
            augmentation=augmentation,
            optimization=optimization,
            identity=identity,
        )
        if optimization.early_stopping_patience:
            args.restore_callback_states_from_checkpoint = True  # or a resumed run would be patient for longer
            trainer.add_callback(EarlyStoppingCallback(optimization.early_stopping_patience))
        return trainer

    def evaluate(self, *args) -> dict:
        """See [`Task.evaluate`]."""
        return evaluate_frames(*args)

    def headline(self, scored: ClipSet) -> str:
        """See [`Task.headline`]."""
        return "mean_average_precision"

    def settings(self) -> dict:
        """See [`Task.settings`]."""
        return {"head": FRAME_HEAD}


class MaskedModeling(Task):
    """Hidden patches, as `ast-pretrain` has them found and reconstructed.

    Args:
        pretraining ([`PretrainingArguments`]): what is hidden.
    """

    def __init__(self, pretraining: PretrainingArguments):
        self.pretraining = pretraining

    def load(
        self, model: ModelArguments, data: DataArguments, seed: int
    ) -> tuple[Mapping[str, ClipSet | datasets.Dataset], str]:
        """See [`Task.load`]: clips whose labels are not read.

        Args:
            model ([`ModelArguments`]): whose patches are hidden.
            data ([`DataArguments`]): where the clips are.
            seed (`int`): of a split that has to be made.

        Returns:
            The splits by side, and in words how they were made.

        Raises:
            DataError: see [`load_splits`].
            ValueError: if the model's patches overlap, or the share hides none or all of them.
        """
        masking = self._masking(pretraining_config(model))
        splits, method = load_splits(data, seed)
        return {side: UnlabelledClips(rows, masking) for side, rows in splits.items()}, method

    def _masking(self, config: ASTConfig) -> Masking:
        """How clips are masked, once it is known that whole ones can be."""
        share, grid = self.pretraining.masked_share, patch_grid_of(config, config.max_length)
        patches = grid[0] * grid[1]
        hidden = round(share * patches)
        if not 1 <= hidden <= patches - 1:
            raise ValueError(
                f"masked_share={share:g} hides {'none' if hidden < 1 else 'all'} of the {patches} patches ({grid[0]} along "
                f"frequency, {grid[1]} along time) of {config.max_length} frames: some have to be hidden, and some heard. Pass "
                "for example --masked_share 0.75" + ("." if patches > 1 else ", and a longer --max_length.")
            )
        return Masking(share, tuple(self.pretraining.cluster_sides), config.patch_size)

    def problem_type(self, split: ClipSet, optimization: OptimizationArguments) -> None:
        """See [`Task.problem_type`]."""
        return None

    def build_model(
        self, args: ModelArguments, labels: list[str], problem_type: str | None
    ) -> tuple[ASTPreTrainedModel, str, str]:
        """See [`Task.build_model`]: new, or with the encoder of a checkpoint, and its heads if it was pretrained so."""
        config = pretraining_config(args)
        grid = patch_grid_of(config, config.max_length)
        hidden = self._masking(config)
        words = f"hides {hidden.num_masked(grid)} of {grid[0] * grid[1]} patches of {config.max_length} frames"
        start = args.model_name_or_path
        if not start:
            return ASTForMaskedSpectrogramModeling(config), words, "random weights"
        model, loading_info = ASTForMaskedSpectrogramModeling.from_pretrained(
            start,
            dtype=torch.float32,
            output_loading_info=True,
            hidden_dropout_prob=args.hidden_dropout_prob,
            attention_probs_dropout_prob=args.attention_probs_dropout_prob,
            attn_implementation=args.attn_implementation,
            **LOGITS_ALONE,
            **args.sizes(),
        )
        unlabelled = ASTConfig()  # the labels of a checkpoint that was fine-tuned go with its classifier
        for name in ("id2label", "label2id", "problem_type", "label_thresholds", "event_rules"):
            setattr(model.config, name, getattr(unlabelled, name))
        kept = "mask_embedding" not in loading_info["missing_keys"]
        return model, words, f"from {start} with {'its' if kept else 'new'} pretraining heads"

    def build_trainer(
        self,
        model: ASTPreTrainedModel,
        feature_extractor: ASTFeatureExtractor,
        clips: dict[str, ClipDataset],
        augmentation: Augmentation,
        optimization: OptimizationArguments,
        args: ASTTrainingArguments,
        identity: dict,
        teacher: Teacher | None = None,
    ) -> MaskedTrainer:
        """See [`Task.build_trainer`]."""
        return MaskedTrainer(
            model=model,
            args=args,
            train_dataset=clips["train"],
            eval_dataset=clips["eval"],
            data_collator=MaskedCollator(feature_extractor, model.config.patch_size),
            feature_extractor=feature_extractor,
            augmentation=augmentation,
            optimization=optimization,
            identity=identity,
            reconstruction_weight=self.pretraining.reconstruction_weight,
        )

    def evaluate(self, *args) -> dict:
        """See [`Task.evaluate`]."""
        return evaluate_pretext(*args)

    def headline(self, scored: ClipSet) -> str:
        """See [`Task.headline`]."""
        return "matching_accuracy"

    def settings(self) -> dict:
        """See [`Task.settings`]."""
        return {"pretraining": asdict(self.pretraining)}


def task_of(arguments: RunArguments) -> Task:
    """Tell what a run trains for.

    Args:
        arguments ([`RunArguments`]): what it was told.

    Returns:
        [`Task`].
    """
    if arguments.pretraining is not None:
        return MaskedModeling(arguments.pretraining)
    if arguments.model.head == FRAME_HEAD:
        return Frames()
    return LabelSets() if arguments.optimization.loss == LABEL_SETS else Classification()


def pretraining_config(args: ModelArguments) -> ASTConfig:
    """The configuration of the model of a pretraining.

    Args:
        args ([`ModelArguments`]): which model; the patches of a new one lie side by side if no stride is given.

    Returns:
        [`ASTConfig`].

    Raises:
        ValueError: if patches overlap or leave out what is between them.
    """
    start = args.model_name_or_path
    if start:
        config = ASTConfig.from_pretrained(start, **args.sizes())
    else:
        side = ASTConfig().patch_size
        sizes = {"frequency_stride": side, "time_stride": side} | args.sizes()
        config = ASTConfig(
            **sizes,
            hidden_dropout_prob=args.hidden_dropout_prob,
            attention_probs_dropout_prob=args.attention_probs_dropout_prob,
            attn_implementation=args.attn_implementation,
        )
    strides, side = (config.frequency_stride, config.time_stride), config.patch_size
    if strides != (side, side):
        of_start = f" {Path(start).name}" if start else " the model"
        raise ValueError(
            f"frequency_stride={strides[0]} and time_stride={strides[1]} of{of_start} are not both {side}, the side of a patch: "
            "what is hidden could be copied from patches that overlap it, or is in none. Pass --frequency_stride "
            f"{side} --time_stride {side}; a fine-tuning may have others."
        )
    return config

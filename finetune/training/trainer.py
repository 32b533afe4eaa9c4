"""`Trainer` for AST: features and augmentation on the training device, draws that survive a resume, whole checkpoints."""

import json
import logging
import operator
import os
import shutil
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from accelerate.utils import broadcast_object_list
from huggingface_hub import CommitInfo, HfApi
from torch.distributed.tensor import DTensor
from torch.utils.data import Dataset, Sampler, SequentialSampler
from transformers import Trainer, TrainerCallback
from transformers.integrations import TensorBoardCallback
from transformers.trainer import DEFAULT_PROGRESS_CALLBACK, TRAINER_STATE_NAME
from transformers.trainer_callback import PrinterCallback
from transformers.trainer_utils import (
    PREFIX_CHECKPOINT_DIR,
    EvalLoopOutput,
    PredictionOutput,
    TrainOutput,
    rotate_checkpoints,
)

from model_card.push_to_hub import push_to_hub
from modeling_ast import ASTFeatureExtractor
from modeling_ast.system.atomic_files import give_usual_mode, sync

from ..arguments.groups import OptimizationArguments
from ..arguments.optimization_arguments import FITTED
from ..arguments.training_arguments import BALANCED_STRATEGIES, SAMPLING_STRATEGIES
from ..arguments.training_fields import shares_by_set
from ..augmentations.augmentation import Augmentation
from ..clip_sets.collator import model_inputs
from ..clip_sets.loader_errors import loader_errors
from ..clip_sets.sampling import EpochSampler, class_balanced_weights, set_balanced_weights
from ..clip_sets.waveforms import ClipDataset
from ..scores.scoring import PROBLEM_TYPES
from ..sources.label_sets import set_of_each_label, share_of_each_set
from .checkpoint_files import best_checkpoint, fault_of_weights, states_of_this_training
from .divergence import DivergenceWatch
from .fitted_head import FITTED_HEAD, fit_to_clips, fitted_in_words, heads_of, put_into
from .interruption_check import InterruptionCheck
from .lora import is_adapted
from .losses import TrainingLoss, loss_name
from .optimization import (
    RATE_FACTOR,
    EpochDecay,
    HeadOnlyEpochs,
    freeze_lowest_layers,
    original_optimizer,
    scale_learning_rates,
)
from .progress import EpochLines, duration_in_words
from .push_checks import check_push
from .run_folder import IDENTITY_NAME, UNFINISHED, events_dir
from .teacher import Teacher
from .trainer_card import write_trainer_card

logger = logging.getLogger(__name__)

LAYER_MAPS_NAME = "teacher_maps.pt"  # in a checkpoint of a training whose teacher's layers are compared


class Scored(NamedTuple):
    """An evaluation: the clips, the tensors of the model and in what state they were, and what came out."""

    clips: Dataset
    tensors: list[torch.Tensor]
    state: tuple
    output: EvalLoopOutput


class ASTTrainer(Trainer):
    """`Trainer` whose batches are waveforms, or features that are not normalised yet.

    Args:
        feature_extractor ([`ASTFeatureExtractor`]): computes the features; saved with every checkpoint.
        augmentation ([`Augmentation`], *optional*): applied to training batches.
        identity (`dict`, *optional*): what a resumed run has to have in common with this one; written into every
            checkpoint as `run_identity.json`.
        optimization ([`OptimizationArguments`], *optional*): optimiser, schedule, learning rates by layer and frozen
            parts; those of `Trainer` if not given. The learning rate that is logged is the one before the factors of
            layers. With `head_start="fitted"` a training that is not resumed begins with a classifier that is fitted to the
            training clips, a [`ClipDataset`] at hand; the time that this takes is part of the training's.
        loss ([`TrainingLoss`], *optional*): what the training minimises; the model's own loss if not given. The loss of
            evaluations stays the model's own, to be comparable between runs.
        teacher ([`Teacher`], *optional*): looks at every training batch too and puts into the inputs what the loss compares
            with. Its maps between layers, if it has any, learn with the model; they are kept in the checkpoints of the
            training, and nothing else of it is.
        kwargs: as [`~transformers.Trainer`]. The training set has to take the (epoch, index) items of
            [`EpochSampler`], as [`ASTDataset`] does, for `train_sampling_strategy="group_by_length"` to have its
            method `lengths`, and for the balanced strategies (whose items are (epoch, index, visit)) its method
            `label_lists` and `num_labels`; or its own `training_sampler(seed)`, as [`StreamedClips`] has. A scored set
            may have its own `evaluation_sampler()`.

    Differs from `Trainer` also in that a checkpoint is written under another name, synced and renamed, so that a
    half-written one is never resumed from; in that all scored clips are scored, whatever `dataloader_drop_last` says of
    training; in that the best checkpoint is found again in a run's folder that was moved, and that it is known when it is
    lost; and in what is pushed to the Hub: never unfinished weights, and what and how `ast-push` does.

    Attributes:
        lost_best (`str`, *optional*): after a training, in words what is wrong with the best checkpoint where its weights
            could not be loaded; the last ones stand then.
        fits_head (`bool`): whether the next training that is not resumed fits its classifier first.
    """

    def __init__(
        self,
        *args,
        feature_extractor: ASTFeatureExtractor,
        augmentation: Augmentation | None = None,
        identity: dict | None = None,
        optimization: OptimizationArguments | None = None,
        loss: TrainingLoss | None = None,
        teacher: Teacher | None = None,
        **kwargs,
    ):
        super().__init__(*args, processing_class=feature_extractor, **kwargs)
        strategy = self.args.train_sampling_strategy
        if strategy not in SAMPLING_STRATEGIES:
            raise ValueError(
                f"train_sampling_strategy={strategy!r} is not among {', '.join(SAMPLING_STRATEGIES)}. Pass one of these."
            )
        self.feature_extractor = feature_extractor
        self.augmentation = augmentation
        self.identity = identity
        self.optimization = OptimizationArguments() if optimization is None else optimization
        self.loss = loss
        self.teacher = teacher
        self.scored_dataset = None  # that of the evaluation that is going on
        self._last_scored: Scored | None = None
        self._steps_per_epoch: int | None = None
        self._refuse_smoothing()
        if augmentation is not None:
            augmentation.check_model(self.model.config)
        self._refuse_sharded_weights()
        self._freeze()
        self.fits_head = self.optimization.head_start == FITTED
        self._seconds_of_fit = 0.0
        self._refuse_fit()
        self._set_teacher()
        self._saving_into: str | None = None
        self._background = ThreadPoolExecutor(max_workers=1)
        self._finishing: Future | None = None  # of the checkpoint that is on its way to the disk
        self.published = False  # whether the output folder holds the result of the last training
        self.lost_best: str | None = None
        self.remove_callback(PrinterCallback if self.args.disable_tqdm else DEFAULT_PROGRESS_CALLBACK)
        for callback in self.callback_handler.callbacks:
            if isinstance(callback, TensorBoardCallback) and callback.logging_dir is None:
                callback.logging_dir = events_dir(self.args.output_dir)
        self.epoch_lines = EpochLines(self)
        self.add_callback(self.epoch_lines)
        self.add_callback(InterruptionCheck)
        self.divergence_watch = DivergenceWatch(self)
        self.add_callback(self.divergence_watch)

    def train(self, *args, **kwargs) -> TrainOutput:
        """Train; see [`~transformers.Trainer.train`]. What was saved is whole when this ends, whatever ends it.

        Args:
            *args: passed on.
            **kwargs: passed on.

        Returns:
            `TrainOutput`: steps, mean loss and time.
        """
        try:
            return super().train(*args, **kwargs)
        except BaseException:
            with suppress(OSError):  # what ended the training is told
                self.wait_for_checkpoint()
            raise

    def _get_dataloader(
        self, dataset, description, batch_size, sampler_fn=None, is_training=False, dataloader_key=None
    ):
        drop_last = self.args.dataloader_drop_last
        self.args.dataloader_drop_last = drop_last and is_training
        try:
            return super()._get_dataloader(dataset, description, batch_size, sampler_fn, is_training, dataloader_key)
        finally:
            self.args.dataloader_drop_last = drop_last

    def _get_train_sampler(self, train_dataset=None) -> Sampler:
        dataset = self.train_dataset if train_dataset is None else train_dataset
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        if hasattr(dataset, "training_sampler"):  # it has an order of its own
            return self._told_of_epochs(dataset.training_sampler(seed))
        grouped = self.args.train_sampling_strategy == "group_by_length"
        lengths = dataset.lengths() if grouped and hasattr(dataset, "lengths") else None
        if grouped and lengths is None:
            raise ValueError(
                f"train_sampling_strategy='group_by_length' was given, but {type(dataset).__name__} does not tell how long "
                "its clips are. Pass an ASTDataset, or a data set with a method lengths()."
            )
        strategy = self.args.train_sampling_strategy
        balanced = strategy in BALANCED_STRATEGIES
        if balanced and not (hasattr(dataset, "label_lists") and hasattr(dataset, "num_labels")):
            raise ValueError(
                f"train_sampling_strategy={strategy!r} was given, but {type(dataset).__name__} does not tell which "
                "labels its clips have. Pass an ASTDataset, or a data set with a method label_lists() and num_labels."
            )
        weights = None
        if balanced:
            label_lists = dataset.label_lists()
            if strategy == "set_balanced":
                labels = [self.model.config.id2label[place] for place in range(self.model.config.num_labels)]
                weights = set_balanced_weights(
                    label_lists,
                    set_of_each_label(labels),
                    share_of_each_set(labels, shares_by_set(self.args.set_shares)),
                )
                if self.feature_extractor.padding == "longest" and hasattr(dataset, "lengths"):
                    lengths = dataset.lengths()
            else:
                weights = class_balanced_weights(label_lists, dataset.num_labels)
        sampler = EpochSampler(
            len(dataset),
            seed,
            lengths=lengths,
            group_size=self.args.train_batch_size * self.args.gradient_accumulation_steps * self.args.world_size,
            weights=weights,
            distinct=self.args.world_size > 1,  # one process draws with replacement, as in the original
            heard_lengths=getattr(dataset, "heard_lengths", None),
        )
        return self._told_of_epochs(sampler)

    def _told_of_epochs(self, sampler):
        self.remove_callback(_SetEpoch)  # of a sampler made before
        # Accelerate passes the epoch on to samplers, but not through every nesting of its own wrappers.
        self.add_callback(_SetEpoch(sampler))
        return sampler

    def _get_eval_sampler(self, eval_dataset):
        if hasattr(eval_dataset, "evaluation_sampler"):
            return eval_dataset.evaluation_sampler()
        if self.args.train_sampling_strategy == "group_by_length":
            # Scored in their order: `Trainer` would look for lengths in the items, which have none.
            return SequentialSampler(eval_dataset) if self.args.world_size <= 1 else None
        return super()._get_eval_sampler(eval_dataset)

    def _refuse_smoothing(self):
        """`Trainer` smooths the labels in a loss of its own, which would not be the one that was given."""
        if self.loss is not None and self.args.label_smoothing_factor:
            raise ValueError(
                f"Both a loss ({self.loss_name}) and label_smoothing_factor={self.args.label_smoothing_factor} were given; "
                "Trainer's smoothed loss is another one. Pass --label_smoothing_factor 0, or no loss (--class_weights none)."
            )

    @property
    def loss_name(self) -> str:
        """What the training minimises, as [`~finetune.training.losses.loss_name`] calls it."""
        return loss_name(self.loss, self.model.config.problem_type, self.args.label_smoothing_factor)

    def _refuse_sharded_weights(self):
        """A checkpoint has one whole file of weights; with the other setting `Trainer` writes none of them."""
        plugin = self.accelerator.state.fsdp_plugin if self.is_fsdp_enabled else None
        if plugin is not None and "FULL_STATE_DICT" not in str(plugin.state_dict_type):
            raise ValueError(
                f"FSDP's state_dict_type is {getattr(plugin.state_dict_type, 'name', plugin.state_dict_type)}, which saves no "
                "whole model.safetensors. Pass --fsdp_state_dict_type FULL_STATE_DICT to accelerate launch, or set it in its "
                "configuration."
            )

    def _freeze(self):
        optimization, args = self.optimization, self.args
        freeze_lowest_layers(self.model, self.model.config.num_hidden_layers, optimization.frozen_layers)
        adapted = is_adapted(self.model)
        if adapted and (self.is_fsdp_enabled or self.is_deepspeed_enabled):
            raise ValueError(
                "LoRA adapters are merged from a whole model, which FSDP and DeepSpeed do not leave in one process. Leave out "
                "--fsdp or --deepspeed, or --lora_rank."
            )
        if self.accelerator.ddp_handler is not None and args.ddp_find_unused_parameters is None:
            # Only while the classifier learns alone are there any; Trainer would look for them in every step.
            self.accelerator.ddp_handler.find_unused_parameters = bool(optimization.head_only_epochs)
        if not (optimization.frozen_layers or optimization.head_only_epochs or adapted):
            return
        if args.activation_checkpointing and (args.activation_checkpointing_kwargs or {}).get("use_reentrant"):
            raise ValueError(
                "Reentrant activation checkpointing computes no gradients above frozen layers. Pass "
                """--activation_checkpointing_kwargs '{"use_reentrant": false}', or freeze nothing (lora_rank does, too)."""
            )
        if optimization.head_only_epochs:
            if args.ddp_find_unused_parameters is False:
                raise ValueError(
                    "head_only_epochs needs ddp_find_unused_parameters, as not all parameters learn in every epoch. Leave "
                    "--ddp_find_unused_parameters false out."
                )
            self.add_callback(HeadOnlyEpochs(optimization.head_only_epochs))

    def _refuse_fit(self):
        if not self.fits_head or self.train_dataset is None:
            return
        dataset, config = self.train_dataset, self.model.config
        if not (isinstance(dataset, ClipDataset) and dataset.at_hand):
            raise ValueError(
                f"head_start='fitted' was given, but {type(dataset).__name__} does not give each clip as it is. Pass an ASTDataset, or "
                "head_start='loaded'."
            )
        if not heads_of(self.model) or config.problem_type not in PROBLEM_TYPES.values():
            raise ValueError(
                f"head_start='fitted' was given, but {type(self.model).__name__} with the problem_type {config.problem_type!r} has no "
                f"classifier of clips, expected one with {' or '.join(PROBLEM_TYPES.values())}. Pass head_start='loaded'."
            )
        if self.is_deepspeed_enabled:
            raise ValueError(
                "head_start='fitted' needs the whole model in one process, which DeepSpeed does not leave there. Pass "
                "--head_start loaded, or leave out --deepspeed."
            )

    def _fit_head(self):
        """Give the model, in all processes, the classifier that the main one fits."""
        if any(isinstance(parameter, DTensor) for parameter in self.model.parameters()):
            raise ValueError(
                "head_start='fitted' needs the whole model in one process, and FSDP has shared it out already, for an evaluation or a "
                "training before this one. Train first, or pass head_start='loaded'."
            )
        began = time.perf_counter()
        fitted = [None]
        if self.is_world_process_zero():
            fitted = [
                fit_to_clips(
                    self.model,
                    self.feature_extractor,
                    self.train_dataset,
                    self.optimization.class_weights == "balanced",
                    self.args.per_device_eval_batch_size,
                    self.args.dataloader_num_workers,
                    self.args.seed,
                )
            ]
        head, section = broadcast_object_list(fitted)[0]
        put_into(self.model, head)
        self.state.log_history.append({FITTED_HEAD: section, "epoch": 0.0, "step": 0})
        self._seconds_of_fit = time.perf_counter() - began
        self.epoch_lines.say(fitted_in_words(section, duration_in_words(self._seconds_of_fit)))

    def _set_teacher(self):
        if self.teacher is None:
            return
        self.teacher.to(self.args.device)
        self.teacher.autocast = self.accelerator.autocast
        maps = self._layer_maps
        if maps is None:
            return
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            raise ValueError(
                "teacher_layers trains maps between layers beside the model, which FSDP and DeepSpeed do not take. Leave out --fsdp "
                "or --deepspeed, or --teacher_layers."
            )
        self.add_callback(_ForgetGradients(maps))
        for parameter in maps.parameters() if self.args.world_size > 1 else ():
            # The model is wrapped to share its gradients; these are not in it.
            parameter.register_post_accumulate_grad_hook(_mean_over_processes)

    @property
    def _layer_maps(self) -> torch.nn.ModuleList | None:
        return None if self.teacher is None else self.teacher.layer_maps

    def set_initial_training_values(self, args, dataloader) -> tuple:
        """Count epochs and steps, as [`~transformers.Trainer`] does, and keep the steps of an epoch for the schedule.

        Args:
            args ([`ASTTrainingArguments`]): of the training.
            dataloader (`DataLoader`): of the training clips.

        Returns:
            `tuple`: as `Trainer`'s, with the optimiser steps of an epoch at place 1.
        """
        values = super().set_initial_training_values(args, dataloader)
        self._steps_per_epoch = values[1]
        return values

    def _init_training_state(
        self, max_steps, steps_per_epoch, num_train_epochs, resume_from_checkpoint, trial
    ) -> tuple:
        begun = super()._init_training_state(
            max_steps, steps_per_epoch, num_train_epochs, resume_from_checkpoint, trial
        )
        if resume_from_checkpoint is not None:
            best, run_dir = best_checkpoint(Path(resume_from_checkpoint)), Path(self.args.output_dir)
            if best is not None and best.parent.resolve() == run_dir.resolve():
                best = run_dir / best.name  # spelled as those among which `Trainer` looks for it
            self.state.best_model_checkpoint = str(best) if best is not None and best.is_dir() else None
        return begun

    def _load_optimizer_and_scheduler(self, checkpoint):
        with states_of_this_training(checkpoint, "optimiser and schedule"):
            super()._load_optimizer_and_scheduler(checkpoint)

    def _load_from_checkpoint(self, resume_from_checkpoint, model=None):
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        if self._layer_maps is not None:
            with states_of_this_training(resume_from_checkpoint, "maps between layers"):
                path = Path(resume_from_checkpoint) / LAYER_MAPS_NAME
                if not path.is_file():
                    raise ValueError(f"{LAYER_MAPS_NAME} is missing")
                self._layer_maps.load_state_dict(torch.load(path, map_location=self.args.device, weights_only=True))

    def _load_rng_state(self, checkpoint):
        with states_of_this_training(checkpoint, "random states"):
            super()._load_rng_state(checkpoint)

    def _finalize_training(self, trial, num_train_samples, start_time):
        self.wait_for_checkpoint()
        best = self.state.best_model_checkpoint
        fault = None if best is None else fault_of_weights(Path(best), not self.is_deepspeed_enabled)
        self.lost_best = fault and f"{Path(best).name} was the best, but {fault}"
        if fault:
            self.state.best_model_checkpoint = None
        return super()._finalize_training(trial, num_train_samples, start_time - self._seconds_of_fit)

    def _prepare_for_training(self, max_steps, train_dataloader, resume_from_checkpoint):
        self.published = False
        evaluated = vars(self.model).get("_is_accelerate_prepared") and self.model_wrapped is self.model
        if evaluated and self.args.world_size > 1 and not self.is_fsdp_enabled:
            # An evaluation before the training has marked the model as prepared, though not for training: Accelerate would
            # leave it as it is, and every process would train a model of its own.
            del self.model._is_accelerate_prepared
        self._seconds_of_fit = 0.0
        if self.fits_head and resume_from_checkpoint is None:
            self._fit_head()
        return super()._prepare_for_training(max_steps, train_dataloader, resume_from_checkpoint)

    def create_optimizer(self, model=None) -> torch.optim.Optimizer:
        """Make the optimiser that was asked for, once.

        Args:
            model (`torch.nn.Module`, *optional*): perhaps wrapped; the trainer's own if not given.

        Returns:
            `torch.optim.Optimizer`: over what learns, with a group for each learning rate.
        """
        if self.optimizer is None:
            model = self.model if model is None else model
            num_layers, optimization = self.model.config.num_hidden_layers, self.optimization
            freeze_lowest_layers(model, num_layers, optimization.frozen_layers)  # a model_init makes new models
            if optimization.optimizer == "adam":
                self.optimizer = original_optimizer(model.parameters(), self.args)
            optimizer = super().create_optimizer(model)
            factors = (optimization.layer_decay, optimization.head_learning_rate_factor)
            scale_learning_rates(optimizer, model, num_layers, *factors)
            if self._layer_maps is not None:
                rates = {"lr": self.args.learning_rate, "weight_decay": self.args.weight_decay}
                optimizer.add_param_group({"params": list(self._layer_maps.parameters()), **rates})
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None):
        """Make the schedule of the learning rate that was asked for, once.

        Args:
            num_training_steps (`int`): optimiser steps of the whole training.
            optimizer (`torch.optim.Optimizer`, *optional*): the trainer's own if not given.

        Returns:
            `LRScheduler`: the original's decay by epochs if that was asked for, else that of [`~transformers.Trainer`].
        """
        optimization = self.optimization
        if self.lr_scheduler is None and optimization.decay_after_epoch is not None:
            if self._steps_per_epoch is None:  # called before training
                self.set_initial_training_values(self.args, self.get_train_dataloader())
            self.lr_scheduler = EpochDecay(
                self.optimizer if optimizer is None else optimizer,
                self._steps_per_epoch,
                optimization.decay_after_epoch,
                optimization.decay_every,
                optimization.decay_factor,
                self.args.get_warmup_steps(num_training_steps),
                optimization.warmup_stair,
            )
            self._created_lr_scheduler = True
        return super().create_scheduler(num_training_steps, optimizer)

    def _get_learning_rate(self) -> float:
        return super()._get_learning_rate() / self.optimizer.param_groups[0].get(RATE_FACTOR, 1.0)

    def get_batch_samples(self, epoch_iterator, num_batches, device) -> tuple[list, torch.Tensor | int | None]:
        """Take the batches of an update; see [`~transformers.Trainer.get_batch_samples`].

        Args:
            epoch_iterator (`Iterator`): over the batches of an epoch.
            num_batches (`int`): how many are wanted.
            device (`torch.device`): where the loss is computed.

        Returns:
            `tuple`: the batches, fewer at the end of an epoch, and by how many items `Trainer` divides the loss, if it does.
        """
        with loader_errors():
            return super().get_batch_samples(epoch_iterator, num_batches, device)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """Compute the loss of a batch; see [`~transformers.Trainer.compute_loss`].

        Args:
            model (`torch.nn.Module`): the model, perhaps wrapped; in training mode it is trained on the loss.
            inputs (`dict[str, torch.Tensor]`): the batch; the model gets what its `forward` takes, the loss all of it.
            return_outputs (`bool`, defaults to `False`): whether the outputs are wanted too.
            num_items_in_batch (`int`, *optional*): see [`~transformers.Trainer.compute_loss`].

        Returns:
            `torch.Tensor`: a scalar; with `return_outputs` it and the model's outputs.
        """
        self._set_signature_columns_if_needed()
        taken = {name: value for name, value in inputs.items() if name in self._signature_columns}
        if self.loss is None or not model.training:
            return super().compute_loss(model, taken, return_outputs, num_items_in_batch)
        if self.teacher is not None and self.teacher.layers:
            taken["output_hidden_states"] = True
        outputs = model(**{name: value for name, value in taken.items() if name not in self.label_names})
        loss = self.loss(outputs, inputs)
        return (loss, outputs) if return_outputs else loss

    def training_step(self, model, inputs, num_items_in_batch=None) -> torch.Tensor:
        """Pass a batch forward and backward, and let the watch see its loss.

        Args:
            model (`torch.nn.Module`): the model, perhaps wrapped.
            inputs (`dict`): a batch as the collator made it.
            num_items_in_batch (`int`, *optional*): see [`~transformers.Trainer.training_step`].

        Returns:
            `torch.Tensor`: a scalar, the batch's share of the loss of the update.
        """
        loss = super().training_step(model, inputs, num_items_in_batch)
        self.divergence_watch.add_loss(inputs, loss)
        return loss

    def _get_grad_norm(self, model, grad_norm=None):
        grad_norm = super()._get_grad_norm(model, grad_norm)
        if isinstance(grad_norm, DTensor):  # of FSDP, a part of it in every process
            grad_norm = grad_norm.full_tensor()
        self.divergence_watch.add_gradient_norm(grad_norm)
        return grad_norm

    def evaluation_loop(self, dataloader, *args, **kwargs):
        """Score clips, and keep in `scored_dataset` which they are.

        Args:
            dataloader (`DataLoader`): of the scored clips.
            *args: passed on.
            **kwargs: passed on.

        Returns:
            `EvalLoopOutput`: see [`~transformers.Trainer.evaluation_loop`].
        """
        self.scored_dataset = dataloader.dataset
        with loader_errors():
            output = super().evaluation_loop(dataloader, *args, **kwargs)
        self._last_scored = None
        if kwargs.get("metric_key_prefix", "eval") == "eval" and self.gives_scores_again:
            self._last_scored = Scored(dataloader.dataset, *self._scored_with(), output)
        return output

    @property
    def gives_scores_again(self) -> bool:
        """Whether [`ASTTrainer.scores_of`] may give what was scored before: where a process has all weights, and all clips."""
        return self.args.world_size == 1 and not (self.is_deepspeed_enabled or self.is_fsdp_enabled)

    def scores_of(self, clips: Dataset) -> PredictionOutput:
        """Score clips with the weights as they are. What the last evaluation scored of them with the same weights and padding
        is not scored again.

        Args:
            clips (`Dataset`): to score.

        Returns:
            `PredictionOutput`: the names of its metrics begin with `eval_`.
        """
        last = self._last_scored
        if last is not None and last.clips is clips and last.output.predictions is not None:
            tensors, state = self._scored_with()
            is_same = len(tensors) == len(last.tensors) and all(map(operator.is_, tensors, last.tensors))
            if is_same and state == last.state:
                return PredictionOutput(last.output.predictions, last.output.label_ids, last.output.metrics)
        return self.predict(clips, metric_key_prefix="eval")

    def _scored_with(self) -> tuple[list[torch.Tensor], tuple]:
        """The tensors of the model; updates so far, how clips are padded, and how often each tensor was written to."""
        tensors = list(self.model.parameters())
        versions = (tensor._version for tensor in tensors)  # which loading and merging raise, and not every optimiser
        return tensors, (self.state.global_step, self.feature_extractor.padding, *versions)

    def _prepare_inputs(self, inputs: dict) -> dict:
        inputs = super()._prepare_inputs(inputs)
        batch = dict(inputs)
        inputs.pop("keys", None)  # of no use to the model
        targets = inputs.pop("targets", {})
        if "waveforms" in inputs or "features" in inputs:
            inputs = model_inputs(inputs, self.feature_extractor, self.augmentation, self.model.config)
        if self.teacher is not None and self.model.training:
            targets = {**targets, **self.teacher.targets(batch, inputs)}
        return {**inputs, **targets}

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False):
        """Save model and feature extractor; unlike `Trainer`'s this never pushes. Called by all processes.

        Args:
            output_dir (`str`, *optional*): folder, `args.output_dir` if not given.
            _internal_call (`bool`): of no effect.
        """
        super().save_model(output_dir, _internal_call=True)

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None):
        token, self.args.hub_token = self.args.hub_token, None  # all arguments are saved too, in a pickle
        try:
            super()._save(output_dir, state_dict)
            for file in Path(output_dir or self.args.output_dir).glob("*.safetensors"):
                give_usual_mode(file)
        finally:
            self.args.hub_token = token

    def init_hf_repo(self, token: str | None = None, private: bool | None = None):
        """Find out whether the run can be pushed when it is finished; the repository is made when it is.

        Called by all processes.

        Args:
            token (`str`, *optional*): of the Hub, in place of `args.hub_token`.
            private (`bool`, *optional*): whether the repository is private, in place of `args.hub_private_repo`.

        Raises:
            ValueError: see [`check_push`], also for what else it raises.
        """
        self.hub_model_id = check_push(self.args, token, private)
        self.push_in_progress = None

    def create_model_card(self):
        """Write the card of a model that is saved in the output folder, unless its run has written one."""
        if self.is_world_process_zero() and not self.published:
            write_trainer_card(self)

    def push_to_hub(
        self,
        commit_message: str = "End of training",
        blocking: bool = True,
        token: str | None = None,
        revision: str | None = None,
        private: bool | None = None,
    ) -> CommitInfo | Future | None:
        """Push the finished run, or the model as it is, as `ast-push` does. Called by all processes.

        Args:
            commit_message (`str`): title of the commit.
            blocking (`bool`, defaults to `True`): whether to wait for it.
            token (`str`, *optional*): in place of `args.hub_token`.
            revision (`str`, *optional*): branch in place of `args.hub_revision`.
            private (`bool`, *optional*): in place of `args.hub_private_repo`.

        Returns:
            `huggingface_hub.CommitInfo`, or a `Future` of it; `None` in all processes but the main one.

        Raises: see [`push_to_hub`](model_card.push_to_hub.push_to_hub).
        """
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        if self.hub_model_id is None:
            self.init_hf_repo(token, private)
        if not self.published:
            self.save_model()
            self.create_model_card()
        if not self.is_world_process_zero():
            return None
        push = partial(
            push_to_hub,
            self.args.output_dir,
            self.hub_model_id,
            private=self.args.hub_private_repo if private is None else private,
            revision=revision or self.args.hub_revision,
            token=token or self.args.hub_token,
            commit_message=commit_message,
            report=logger.info,
        )
        return push() if blocking else HfApi().run_as_future(push)

    def _get_output_dir(self, trial) -> str:
        return self._saving_into or super()._get_output_dir(trial)

    def _save_checkpoint(self, model, trial):
        run_dir = Path(super()._get_output_dir(trial))
        unfinished = run_dir / UNFINISHED
        name = f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        best = self.state.best_model_checkpoint
        self.wait_for_checkpoint()
        if self.is_world_process_zero():
            shutil.rmtree(unfinished, ignore_errors=True)
        self.accelerator.wait_for_everyone()
        self._saving_into = str(unfinished)
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self._saving_into = None
        self.accelerator.wait_for_everyone()
        # super() records the temporary place, and an evaluation without a checkpoint of its step may have been the best.
        is_best = self.state.best_global_step == self.state.global_step
        self.state.best_model_checkpoint = str(run_dir / name) if is_best else best
        if self.is_world_process_zero():
            self.state.save_to_json(str(unfinished / name / TRAINER_STATE_NAME))
            if self.identity is not None:
                (unfinished / name / IDENTITY_NAME).write_text(json.dumps(self.identity, indent=1), encoding="utf-8")
            if self._layer_maps is not None:
                torch.save(self._layer_maps.state_dict(), unfinished / name / LAYER_MAPS_NAME)
            if is_adapted(self.model):
                (unfinished / name / "README.md").unlink()  # PEFT's card, in which nothing is filled in
        finish = partial(self._finish_checkpoint, run_dir, name, self.state.best_model_checkpoint)
        if self._saves_in_background():
            self._finishing = self._background.submit(finish)
        else:
            finish()

    def _finish_checkpoint(self, run_dir: Path, name: str, best: str | None):
        """Get the files of a checkpoint onto the disk, give it its name, and remove those that are too many."""
        unfinished = run_dir / UNFINISHED
        if self.is_world_process_zero():
            for path in (*(unfinished / name).rglob("*"), unfinished / name):
                sync(path)
            shutil.rmtree(run_dir / name, ignore_errors=True)
            os.replace(unfinished / name, run_dir / name)
            sync(run_dir)
            unfinished.rmdir()
        if self.args.should_save:
            rotate_checkpoints(
                output_dir=str(run_dir),
                save_total_limit=self.args.save_total_limit,
                best_model_checkpoint=best,
                use_mtime=False,  # by step; by time any folder named checkpoint-... would count
            )

    def _saves_in_background(self) -> bool:
        """Whether training goes on meanwhile: not where other processes, or callbacks of others, look for the checkpoint."""
        looking = (
            callback
            for callback in self.callback_handler.callbacks
            if type(callback).on_save is not TrainerCallback.on_save and not isinstance(callback, InterruptionCheck)
        )
        alone = self.args.world_size <= 1 and next(looking, None) is None
        return alone and getattr(self.args, "save_in_background", False)

    def wait_for_checkpoint(self):
        """Wait until the last checkpoint is whole under its name.

        Raises:
            OSError: if it could not be written, as on a full disk.
        """
        finishing, self._finishing = self._finishing, None
        if finishing is not None:
            finishing.result()


class _ForgetGradients(TrainerCallback):
    """Clears the gradients of modules beside the model after each update; `Trainer` clears those of the model alone."""

    def __init__(self, modules: torch.nn.Module):
        self.modules = modules

    def on_optimizer_step(self, args, state, control, **kwargs):
        self.modules.zero_grad()


def _mean_over_processes(parameter: torch.nn.Parameter):
    """Share what a process has accumulated; of micro-batches that were shared before, the mean is what it is."""
    torch.distributed.all_reduce(parameter.grad)
    parameter.grad /= torch.distributed.get_world_size()


class _SetEpoch(TrainerCallback):
    def __init__(self, sampler: Sampler):
        self.sampler = sampler

    def on_epoch_begin(self, args, state, control, **kwargs):
        self.sampler.set_epoch(int(state.epoch))

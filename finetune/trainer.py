"""`Trainer` for AST: features and augmentation on the training device, draws that survive a resume, whole checkpoints."""

import json
import math
import os
import shutil
from pathlib import Path

from transformers import Trainer, TrainerCallback
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_callback import ProgressCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, rotate_checkpoints

from modeling_ast import ASTFeatureExtractor
from modeling_ast.atomic_files import sync

from .augmentation import Augmentation
from .collator import model_inputs
from .sampling import SAMPLING_STRATEGIES, EpochSampler

# Folder in the output folder for what is being written; its name never looks like a checkpoint's.
UNFINISHED = ".unfinished"
IDENTITY_NAME = "run_identity.json"


class ASTTrainer(Trainer):
    """`Trainer` whose batches are waveforms.

    Args:
        feature_extractor ([`ASTFeatureExtractor`]): computes the features; saved with every checkpoint.
        augmentation ([`Augmentation`], *optional*): applied to training batches.
        identity (`dict`, *optional*): what a resumed run has to have in common with this one; written into every
            checkpoint as `run_identity.json`.
        kwargs: as [`~transformers.Trainer`]. The training set has to take the (epoch, index) items of
            [`EpochSampler`], as [`ASTDataset`] does, and for `train_sampling_strategy="group_by_length"` to have its
            method `lengths`.

    Differs from `Trainer` also in that a checkpoint is written under another name, synced and renamed, so that a
    half-written one is never resumed from.
    """

    def __init__(
        self,
        *args,
        feature_extractor: ASTFeatureExtractor,
        augmentation: Augmentation | None = None,
        identity: dict | None = None,
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
        self._saving_into: str | None = None
        self.remove_callback(ProgressCallback)
        if not self.args.disable_tqdm:
            self.add_callback(EpochLines)

    def _get_train_sampler(self, train_dataset=None) -> EpochSampler:
        dataset = self.train_dataset if train_dataset is None else train_dataset
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        grouped = self.args.train_sampling_strategy == "group_by_length"
        if grouped and not hasattr(dataset, "lengths"):
            raise ValueError(
                f"train_sampling_strategy='group_by_length' was given, but {type(dataset).__name__} does not tell how long "
                "its clips are. Pass an ASTDataset, or a data set with a method lengths()."
            )
        sampler = EpochSampler(
            len(dataset),
            seed,
            lengths=dataset.lengths() if grouped else None,
            group_size=self.args.train_batch_size * self.args.gradient_accumulation_steps * self.args.world_size,
        )
        # Accelerate passes the epoch on to samplers, but not through every nesting of its own wrappers.
        self.add_callback(_SetEpoch(sampler))
        return sampler

    def _prepare_inputs(self, inputs: dict) -> dict:
        inputs = super()._prepare_inputs(inputs)
        if "waveforms" in inputs:
            inputs = model_inputs(inputs, self.feature_extractor, self.augmentation)
        return inputs

    def _get_output_dir(self, trial) -> str:
        return self._saving_into or super()._get_output_dir(trial)

    def _save_checkpoint(self, model, trial):
        run_dir = Path(super()._get_output_dir(trial))
        unfinished = run_dir / UNFINISHED
        name = f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        if self.is_world_process_zero():
            shutil.rmtree(unfinished, ignore_errors=True)
        self.accelerator.wait_for_everyone()
        self._saving_into = str(unfinished)
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self._saving_into = None
        self.accelerator.wait_for_everyone()
        if self.state.best_global_step:  # super() recorded the temporary place
            self.state.best_model_checkpoint = str(run_dir / f"{PREFIX_CHECKPOINT_DIR}-{self.state.best_global_step}")
        if self.is_world_process_zero():
            self.state.save_to_json(str(unfinished / name / TRAINER_STATE_NAME))
            if self.identity is not None:
                (unfinished / name / IDENTITY_NAME).write_text(json.dumps(self.identity, indent=1), encoding="utf-8")
            for path in (unfinished / name).rglob("*"):
                sync(path)
            shutil.rmtree(run_dir / name, ignore_errors=True)
            os.replace(unfinished / name, run_dir / name)
            sync(run_dir)
            unfinished.rmdir()
        if self.args.should_save:
            rotate_checkpoints(
                output_dir=str(run_dir),
                save_total_limit=self.args.save_total_limit,
                best_model_checkpoint=self.state.best_model_checkpoint,
                use_mtime=False,  # by step; by time any folder named checkpoint-... would count
            )


class EpochLines(ProgressCallback):
    """The stock progress bar, with one readable line per log instead of a printed dictionary."""

    def on_log(self, args, state, control, logs=None, **kwargs):
        if self.training_bar is None or not logs:
            return
        shown = {name: value for name, value in logs.items() if name in ("loss", "learning_rate") or "eval_" in name}
        if shown:
            values = "  ".join(f"{name} {value:.4g}" for name, value in shown.items() if isinstance(value, float))
            self.training_bar.write(f"epoch {state.epoch:g}/{math.ceil(args.num_train_epochs)}  {values}")


class _SetEpoch(TrainerCallback):
    def __init__(self, sampler: EpochSampler):
        self.sampler = sampler

    def on_epoch_begin(self, args, state, control, **kwargs):
        self.sampler.set_epoch(int(state.epoch))

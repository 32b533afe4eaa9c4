"""Whole trainings beside stock Transformers: `ASTTrainer` and plain `Trainer` with the same small model on the same clips.

The peer is set up as its users do, with `ASTFeatureExtractor` in the collator, but a whole batch at a time and waveforms
that are decoded already; both read the same arrays, with the same batch size, optimiser and learning rate.
"""

import csv
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import yaml
from torch.utils.data import Dataset
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments
from transformers.models.audio_spectrogram_transformer import modeling_audio_spectrogram_transformer as stock
from transformers.models.audio_spectrogram_transformer.feature_extraction_audio_spectrogram_transformer import (
    ASTFeatureExtractor as StockFeatureExtractor,
)

from finetune.arguments.groups import ASTTrainingArguments
from finetune.arguments.model_arguments import SIZE_FIELDS
from finetune.clip_sets.collator import ASTDataCollator
from finetune.clip_sets.normalization import measure_normalization
from finetune.clip_sets.sampling import EpochSampler
from finetune.training.trainer import ASTTrainer
from modeling_ast import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification
from modeling_ast.audio import read_audio

SAMPLING_RATE = 16_000
DIGITS_RECIPE = Path(__file__).parent / "spoken_digits.yaml"
FIRST_TRAINING_TAKE = 5  # the official split of the digits: takes 0 to 4 of each speaker and digit are for testing
TARGET_ACCURACY = 0.8  # where the curve is steep; above, chance decides which score passes it
MOST_EPOCHS = 10
STEPS_BETWEEN_SCORES = 20


class Waveforms(Dataset):
    """Decoded clips, for either trainer."""

    def __init__(self, waveforms: Sequence[np.ndarray], labels: Sequence[int]):
        self.waveforms, self.labels = waveforms, labels

    def __len__(self) -> int:
        return len(self.waveforms)

    def __getitem__(self, key: int | tuple[int, int]) -> dict:
        index = key[1] if isinstance(key, tuple) else key
        return {"waveform": self.waveforms[index], "label": self.labels[index]}


@dataclass(frozen=True)
class SmallModel:
    """What both trainings start from: sizes, normalisation and first weights."""

    folder: Path
    extractor: ASTFeatureExtractor

    @classmethod
    def for_clips(cls, folder: Path, recipe: Path, waveforms: Sequence[np.ndarray], num_labels: int, seed: int = 0):
        """A new model of a recipe's sizes, normalised by these clips."""
        fields = yaml.safe_load(recipe.read_text(encoding="utf-8"))
        config = ASTConfig(num_labels=num_labels, **{name: fields[name] for name in SIZE_FIELDS if name in fields})
        extractor = ASTFeatureExtractor(max_length=config.max_length, num_mel_bins=config.num_mel_bins)
        measured = measure_normalization(waveforms, extractor)
        extractor.mean, extractor.std = measured.mean, measured.std
        torch.manual_seed(seed)
        ASTForAudioClassification(config).save_pretrained(folder)
        extractor.save_pretrained(folder)
        return cls(folder, extractor)

    def trainers(self, clips: Waveforms, **settings) -> tuple[Trainer, ASTTrainer]:
        """The stock trainer and this project's."""
        common = {"report_to": "none", "save_strategy": "no", "logging_strategy": "no", "disable_tqdm": True}
        common |= {"output_dir": str(self.folder / "run"), "remove_unused_columns": False} | settings
        features = StockFeatureExtractor.from_pretrained(self.folder)

        def stock_batch(items: list[dict]) -> dict:
            waveforms = [item["waveform"] for item in items]
            inputs = features(waveforms, sampling_rate=SAMPLING_RATE, return_tensors="pt")
            return {"input_values": inputs.input_values, "labels": torch.tensor([item["label"] for item in items])}

        theirs = InTheSameOrder(
            model=stock.ASTForAudioClassification.from_pretrained(self.folder, attn_implementation="sdpa"),
            args=TrainingArguments(**common),
            train_dataset=clips,
            data_collator=stock_batch,
        )
        ours = ASTTrainer(
            model=ASTForAudioClassification.from_pretrained(self.folder),
            args=ASTTrainingArguments(**common),
            train_dataset=clips,
            data_collator=ASTDataCollator(self.extractor, compute_features=False),
            feature_extractor=self.extractor,
        )
        theirs.remove_callback(PrinterCallback)  # the table is on the same output
        ours.remove_callback(ours.epoch_lines)
        return theirs, ours


class InTheSameOrder(Trainer):
    """Plain `Trainer`, with the clips in the order that `ASTTrainer` takes them: two curves of one training."""

    def _get_train_sampler(self, train_dataset=None) -> EpochSampler:
        return EpochSampler(len(self.train_dataset), self.args.seed)


class AccuracyByTime(TrainerCallback):
    """Scores a held-out set every few steps and stops at the target; the time of scoring does not count."""

    def __init__(self, features: torch.Tensor, labels: torch.Tensor, target: float):
        self.features, self.labels, self.target = features, labels, target
        self.seconds, self.reached, self.accuracy, self.steps = 0.0, False, 0.0, 0
        self._started = 0.0

    def on_train_begin(self, args, state, control, **kwargs):
        self._started = time.perf_counter()

    def on_step_end(self, args, state, control, model=None, **kwargs):
        if state.global_step % STEPS_BETWEEN_SCORES:
            return
        self.seconds += time.perf_counter() - self._started
        self.steps = state.global_step
        model.eval()
        with torch.inference_mode():
            found = torch.cat([model(batch).logits.argmax(dim=1) for batch in self.features.split(100)])
        model.train()
        self.accuracy = (found == self.labels).float().mean().item()
        if self.accuracy >= self.target:
            self.reached = control.should_training_stop = True
        self._started = time.perf_counter()


def seconds_to_accuracy(digits: Path, seeds: Sequence[int]) -> tuple[list[tuple[AccuracyByTime, AccuracyByTime]], str]:
    """Time until Free Spoken Digits are understood, by stock Transformers and by this project.

    Args:
        digits (`Path`): folder with `metadata.csv` (columns file_name, label, take).
        seeds (sequence of `int`): a pair of trainings for each, with the same first weights, one after the other.

    Returns:
        The two measurements of each seed, and in words what was trained.

    Raises:
        RuntimeError: if one did not come to the accuracy.
    """
    with open(digits / "metadata.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    sides: dict[bool, tuple[list, list]] = {True: ([], []), False: ([], [])}
    for row in rows:
        waveforms, labels = sides[int(row["take"]) < FIRST_TRAINING_TAKE]
        waveforms.append(read_audio(digits / row["file_name"], SAMPLING_RATE))
        labels.append(int(row["label"]))
    (held_out, truth), (waveforms, labels) = sides[True], sides[False]
    recipe = yaml.safe_load(DIGITS_RECIPE.read_text(encoding="utf-8"))
    settings = {name: recipe[name] for name in ("per_device_train_batch_size", "learning_rate", "weight_decay")}
    pairs = []
    for seed in seeds:
        with tempfile.TemporaryDirectory() as folder:
            start = SmallModel.for_clips(Path(folder), DIGITS_RECIPE, waveforms, num_labels=10, seed=seed)
            features = start.extractor(held_out, sampling_rate=SAMPLING_RATE, return_tensors="pt").input_values
            pair = []
            trainers = start.trainers(
                Waveforms(waveforms, labels),
                seed=seed,
                num_train_epochs=MOST_EPOCHS,
                lr_scheduler_type="constant_with_warmup",
                warmup_steps=100,
                **settings,
            )
            for trainer in trainers:
                scored = AccuracyByTime(features, torch.tensor(truth), TARGET_ACCURACY)
                trainer.add_callback(scored)
                trainer.train()
                if not scored.reached:
                    raise RuntimeError(
                        f"{type(trainer).__name__} with seed {seed} came to {scored.accuracy:.2f} in {scored.steps} steps, "
                        f"not to {TARGET_ACCURACY}."
                    )
                pair.append(scored)
        pairs.append(tuple(pair))
    words = f"{len(labels)} clips, accuracy {TARGET_ACCURACY} on {len(truth)} others, same order of clips, {len(seeds)} seeds"
    return pairs, words

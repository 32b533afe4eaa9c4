"""Augmentations that only this file knows: flags, draws, every stage, resuming, evaluation, and two models that see the same."""

from dataclasses import dataclass, field, make_dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch
from transformers import HfArgumentParser

from finetune.arguments.groups import ASTTrainingArguments, DataArguments
from finetune.augmentations.augmentation import AUGMENTATIONS, Augmentation, argument_fields
from finetune.augmentations.augmentation_step import AugmentationStep, TrainingClip
from finetune.clip_sets.collator import ASTDataCollator, model_inputs
from finetune.clip_sets.waveforms import ASTDataset
from finetune.sources.splits import load_splits
from finetune.training.trainer import ASTTrainer
from modeling_ast import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification
from modeling_ast.audio import AudioReader


@dataclass(frozen=True)
class PolarityFlip(AugmentationStep):
    """Turn the sign of a share of the clips."""

    name: ClassVar[str] = "polarity_flip"
    stream: ClassVar[int] = 101
    strengths: ClassVar[tuple[str, ...]] = ("flip_probability",)

    flip_probability: float = field(default=0.0, metadata={"help": "Share of clips with the other sign."})

    def draw(self, generator, num_clips):
        return {"sign": -1.0 if generator.random() < self.flip_probability else 1.0}

    def change_waveform(self, clip: TrainingClip, drawn, partner):
        return clip._replace(waveform=clip.waveform * np.float32(drawn["sign"]))


@dataclass(frozen=True)
class HiddenPatches(AugmentationStep):
    """Silence below a mel bin, and patches that are hidden from the model, as masked pretraining has them."""

    name: ClassVar[str] = "hidden_patches"
    stream: ClassVar[int] = 102
    strengths: ClassVar[tuple[str, ...]] = ("hidden_share",)

    hidden_share: float = 0.0

    def draw(self, generator, num_clips):
        return {"bin": generator.integers(1, 64), "shares": generator.random(6, dtype=np.float32)}

    def change_log_mel(self, features, frames, drawn):
        low = torch.arange(features.shape[2], device=features.device) < drawn["bin"][:, None]  # (batch, mel bins)
        return features.masked_fill(low[:, None], -10.0)

    def extra_inputs(self, features, frames, drawn):
        return {"bool_masked_pos": drawn["shares"] < self.hidden_share}


EXTRACTOR = ASTFeatureExtractor(max_length=32, mean=-6.5, std=5.5)
SEED = 3


@pytest.fixture(scope="module")
def split():
    loaded, _ = load_splits(DataArguments(dataset_name="finetune/sample_data/drums"), seed=0)
    return loaded["train"].select(range(0, 353, 44))


def clips_of(split, augmentation) -> ASTDataset:
    return ASTDataset(split, AudioReader(), 5_200, augmentation, SEED)


@pytest.fixture
def build(split, tiny_sizes, tmp_path):
    def build_trainer(augmentation, folder="run", **arguments):
        torch.manual_seed(0)
        config = ASTConfig(**tiny_sizes | {"max_length": 32}, num_labels=9, problem_type="single_label_classification")
        return ASTTrainer(
            model=ASTForAudioClassification(config),
            args=ASTTrainingArguments(
                output_dir=str(tmp_path / folder), disable_tqdm=True, use_cpu=True, num_train_epochs=2,
                per_device_train_batch_size=4, learning_rate=1e-3, **arguments,
            ),
            train_dataset=clips_of(split, augmentation),
            eval_dataset=clips_of(split, None),
            data_collator=ASTDataCollator(EXTRACTOR, compute_features=False),
            feature_extractor=EXTRACTOR,
            augmentation=augmentation,
        )  # fmt: skip

    return build_trainer


def test_its_flags_come_of_its_fields():
    group = make_dataclass("Arguments", argument_fields((*AUGMENTATIONS, PolarityFlip)))
    parser = HfArgumentParser(group)
    (given,) = parser.parse_args_into_dataclasses(["--flip_probability", "0.5", "--max_time_mask", "8"])
    assert (given.flip_probability, given.max_time_mask, given.mixup_probability) == (0.5, 8, 0.0)
    assert "Share of clips with the other sign." in parser.format_help()
    with pytest.raises(ValueError, match=r"flip_probability=-1 is negative\. Pass 0"):
        PolarityFlip(flip_probability=-1)


def test_it_is_drawn_by_seed_epoch_and_clip_and_leaves_the_draws_of_others(split):
    strengths = {"max_speed_change": 0.1, "mixup_probability": 0.5, "max_gain_db": 3}
    clips, without = clips_of(split, Augmentation(PolarityFlip(0.5), **strengths)), Augmentation(**strengths)
    plain, signs = clips_of(split, without), set()
    for epoch, index in np.ndindex(2, len(split)):
        item, other = clips[epoch, index], plain[epoch, index]
        sign = np.random.default_rng((101, SEED, epoch, index)).random() < 0.5
        np.testing.assert_array_equal(item["waveform"], -other["waveform"] if sign else other["waveform"])
        signs.add((epoch, index, bool(sign)))
        drawn = item["draws"].values
        assert drawn.keys() - other["draws"].values.keys() == {"polarity_flip"}
        assert drawn["mixup"] == other["draws"]["mixup"]
    flipped = [{index for of_epoch, index, sign in signs if of_epoch == epoch and sign} for epoch in (0, 1)]
    assert flipped[0] != flipped[1]


def test_it_goes_through_the_trainer_in_training_and_never_in_evaluation(build):
    trainer = build(Augmentation(HiddenPatches(0.5), max_frequency_mask=8))
    plain = build(None)
    batch = next(iter(trainer.get_train_dataloader()))
    drawn = batch["draws"]["hidden_patches"]
    for row, (epoch, index, visit) in enumerate(batch["keys"]):
        generator = np.random.default_rng((102, SEED, epoch, index))
        assert (drawn["bin"][row], visit) == (generator.integers(1, 64), 0)
        np.testing.assert_array_equal(drawn["shares"][row], generator.random(6, dtype=np.float32))
    inputs = trainer._prepare_inputs(batch)
    normalized = (-10 + 6.5) / (2 * 5.5)
    silent = ((inputs["input_values"] - normalized).abs() < 1e-6).all(dim=1)  # (batch, mel bins)
    assert torch.equal(silent.sum(dim=1), drawn["bin"])
    assert torch.equal(inputs["bool_masked_pos"], drawn["shares"] < 0.5)

    with pytest.raises(ValueError, match="hidden_patches was not drawn for this batch, .* the same Augmentation"):
        model_inputs(batch | {"draws": {"masks": batch["draws"]["masks"]}}, EXTRACTOR, trainer.augmentation)

    first, second = (one._prepare_inputs(next(iter(one.get_eval_dataloader()))) for one in (trainer, plain))
    assert first.keys() == second.keys() == {"input_values", "labels"}
    assert torch.equal(first["input_values"], second["input_values"])


def test_a_run_with_it_resumes_as_if_it_had_not_been_interrupted(build, tmp_path):
    settings = {"save_strategy": "steps", "save_steps": 2, "save_total_limit": None}
    augmentation = Augmentation(PolarityFlip(0.5), mixup_probability=0.5)
    whole, resumed = (build(augmentation, folder, **settings) for folder in ("whole", "resumed"))
    whole.train()
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-2"))
    assert whole.state.global_step == resumed.state.global_step == 6
    for name, value in whole.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], value), name


@pytest.mark.parametrize("padding", ["max_length", "longest"])
def test_one_set_of_draws_serves_two_feature_extractors(split, padding):
    """A teacher and a student hear the same stretch and mixture and see the same masks, rolls and noise."""
    strengths = {"max_frequency_mask": 40, "max_time_mask": 16, "noise_strength": 0.5, "max_roll": 6}
    augmentation = Augmentation(HiddenPatches(0.5), **strengths, mixup_probability=0.5, max_speed_change=0.2)
    clips = clips_of(split, augmentation)
    batch = ASTDataCollator(EXTRACTOR, compute_features=False)([clips[1, index] for index in range(4)])
    student, teacher = (
        ASTFeatureExtractor(max_length=32, mean=mean, std=std, padding=padding)
        for mean, std in ((-6.5, 5.5), (-4.27, 4.57))
    )
    of_student = model_inputs(batch, student, augmentation)
    of_teacher = model_inputs(batch, teacher, augmentation)
    again = model_inputs(batch, student, augmentation)
    assert torch.equal(again["input_values"], of_student["input_values"]), "the batch is left as it was"
    assert torch.equal(of_student["bool_masked_pos"], of_teacher["bool_masked_pos"])
    # Without the noise, which comes after normalising, both are to be the same raw values, and the noise the same, too.
    no_noise = Augmentation(HiddenPatches(0.5), **strengths | {"noise_strength": 0.0})
    raws, noises = [], []
    for extractor, inputs in ((student, of_student), (teacher, of_teacher)):
        quiet = model_inputs(batch, extractor, no_noise)["input_values"]
        raws.append(quiet * 2 * extractor.std + extractor.mean)
        noises.append(inputs["input_values"] - quiet)
    torch.testing.assert_close(*raws, atol=1e-4, rtol=0)
    torch.testing.assert_close(*noises, atol=1e-5, rtol=0)
    masked = [raw.abs() < 1e-4 for raw in raws]
    assert torch.equal(*masked)
    assert masked[0].any()
    assert noises[0].abs().max() > 0.01


def test_what_needs_waveforms_is_known_by_its_stage():
    with pytest.raises(ValueError, match=r"max_gain_db, flip_probability change.* Pass --max_gain_db 0 --flip_prob"):
        Augmentation(PolarityFlip(0.1), max_gain_db=3, max_time_mask=4).refuse_without_waveforms()
    Augmentation(HiddenPatches(0.5), PolarityFlip()).refuse_without_waveforms()


def test_two_of_one_name_or_one_stream_are_refused():
    with pytest.raises(ValueError, match="PolarityFlip and PolarityFlip are both called 'polarity_flip'"):
        Augmentation(PolarityFlip(), PolarityFlip())
    for stream, other in ((2, "NoiseAndRoll"), (3, "SpeedChange")):
        taken = type("Taken", (PolarityFlip,), {"stream": stream})
        with pytest.raises(ValueError, match=f"{other} and Taken both draw from stream {stream}.* its own: 13"):
            Augmentation(taken())

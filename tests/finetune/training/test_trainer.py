"""The trainer: gradients under accumulation, resuming, whole checkpoints, and the collator in a plain `Trainer`."""

import json
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import Trainer, TrainingArguments

from finetune.arguments.groups import ASTTrainingArguments, DataArguments
from finetune.augmentations.augmentation import Augmentation
from finetune.clip_sets.collator import ASTDataCollator, model_inputs
from finetune.clip_sets.waveforms import ASTDataset
from finetune.sources.splits import load_splits
from finetune.training.run_folder import UNFINISHED
from finetune.training.trainer import ASTTrainer
from modeling_ast import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification
from modeling_ast.audio import AudioReader

AUGMENTATION = Augmentation(
    mixup_probability=0.5, max_frequency_mask=24, max_time_mask=24, noise_strength=0.1, max_roll=10
)


@pytest.fixture(scope="module")
def splits():
    loaded, _ = load_splits(DataArguments(dataset_name="finetune/sample_data/drums"), seed=0)
    return {"train": loaded["train"].select(range(0, 353, 15)), "eval": loaded["eval"].select(range(0, 84, 12))}


@pytest.fixture
def build(splits, tiny_sizes, tmp_path):
    """A trainer on 24 drum clips; every call starts from the same weights."""

    def build_trainer(augmentation=None, folder="run", hidden_dropout_prob=0.0, **arguments):
        torch.manual_seed(0)
        config = ASTConfig(**tiny_sizes, num_labels=9, problem_type="single_label_classification")
        config.hidden_dropout_prob = hidden_dropout_prob
        extractor = ASTFeatureExtractor(max_length=96, mean=-6.5, std=5.5)
        defaults = {"num_train_epochs": 2, "per_device_train_batch_size": 4, "learning_rate": 1e-3, "use_cpu": True}
        return ASTTrainer(
            model=ASTForAudioClassification(config),
            args=ASTTrainingArguments(output_dir=str(tmp_path / folder), disable_tqdm=True, **defaults | arguments),
            train_dataset=ASTDataset(splits["train"], AudioReader(), 16_000, augmentation, seed=0),
            eval_dataset=ASTDataset(splits["eval"], AudioReader(), 16_000),
            data_collator=ASTDataCollator(extractor, compute_features=False),
            feature_extractor=extractor,
            augmentation=augmentation,
        )

    return build_trainer


def gradients_of_the_first_step(trainer) -> dict[str, torch.Tensor]:
    kept = {}
    step = trainer.create_optimizer().step

    def keep(*args, **kwargs):
        kept.update({name: parameter.grad.clone() for name, parameter in trainer.model.named_parameters()})
        return step(*args, **kwargs)

    trainer.optimizer.step = keep
    trainer.train()
    return kept


def test_two_accumulated_batches_give_the_gradients_of_the_double_batch(build):
    common = {"max_steps": 1, "max_grad_norm": 0.0, "save_strategy": "no"}
    double = gradients_of_the_first_step(build(per_device_train_batch_size=8, **common))
    accumulated = gradients_of_the_first_step(
        build(per_device_train_batch_size=4, gradient_accumulation_steps=2, **common)
    )
    assert double
    for name, gradient in double.items():
        torch.testing.assert_close(accumulated[name], gradient, atol=1e-7, rtol=1e-4, msg=name)


SAVED_OFTEN = {
    "hidden_dropout_prob": 0.1, "save_strategy": "steps", "save_steps": 3, "save_total_limit": None,
    "dataloader_num_workers": 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def trained_before() -> dict:
    """Where a trainer of this module is kept."""
    return {}


@pytest.fixture
def whole(build, trained_before, tmp_path_factory) -> ASTTrainer:
    """A trainer after a training that nothing interrupted, with its checkpoints."""
    if not trained_before:
        trainer = build(AUGMENTATION, tmp_path_factory.mktemp("whole"), **SAVED_OFTEN)
        trainer.train()
        trained_before["whole"] = trainer
    return trained_before["whole"]


@pytest.mark.parametrize("stop_at", [3, 6], ids=["in an epoch", "between epochs"])
def test_a_resumed_run_ends_with_the_weights_of_the_uninterrupted_one(build, whole, stop_at):
    resumed = build(AUGMENTATION, "resumed", **SAVED_OFTEN)
    resumed.train(resume_from_checkpoint=f"{whole.args.output_dir}/checkpoint-{stop_at}")
    assert resumed.state.global_step == whole.state.global_step == 12
    for name, value in whole.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], value), name


def test_worker_count_changes_nothing(build):
    alone, helped = build(AUGMENTATION, "a"), build(AUGMENTATION, "b", dataloader_num_workers=2)
    alone.train()
    helped.train()
    for name, value in alone.model.state_dict().items():
        assert torch.equal(helped.model.state_dict()[name], value), name


def test_only_training_batches_are_augmented(build):
    trainer = build(AUGMENTATION)
    plain = build()
    training = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
    assert training["labels"].shape == (4, 9), "mixup makes soft labels"
    first = trainer._prepare_inputs(next(iter(trainer.get_eval_dataloader())))
    second = plain._prepare_inputs(next(iter(plain.get_eval_dataloader())))
    assert torch.equal(first["input_values"], second["input_values"])
    assert not first["labels"].is_floating_point()


def test_masks_are_raw_zeros_before_normalising(build):
    trainer = build(Augmentation(max_frequency_mask=128))
    inputs = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
    masked = (0 + 6.5) / (2 * 5.5)
    columns = (inputs["input_values"] - masked).abs().amax(dim=1) < 1e-6  # (batch, mel bins)
    assert columns.any()


def test_a_checkpoint_gets_its_name_only_when_it_is_whole(build, tmp_path, monkeypatch):
    trainer = build(num_train_epochs=1)
    monkeypatch.setattr(trainer, "_save_rng_state", lambda folder: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        trainer.train()
    assert (tmp_path / "run" / UNFINISHED / "checkpoint-6" / "model.safetensors").exists()
    assert not list((tmp_path / "run").glob("checkpoint-*"))
    whole = build(num_train_epochs=2)
    whole.train()
    assert [path.name for path in (tmp_path / "run").glob("*")] == ["checkpoint-12"]
    kept = {path.name for path in (tmp_path / "run" / "checkpoint-12").iterdir()}
    assert {"model.safetensors", "optimizer.pt", "trainer_state.json", "preprocessor_config.json"} <= kept


def test_the_best_checkpoint_is_found_under_its_final_name(build, tmp_path):
    trainer = build(
        eval_strategy="epoch",
        save_total_limit=2,
        load_best_model_at_end=True,
        metric_for_best_model="loss",
        greater_is_better=False,
    )
    trainer.train()
    best = trainer.state.best_model_checkpoint
    assert best == str(tmp_path / "run" / f"checkpoint-{trainer.state.best_global_step}")
    state = json.loads(Path(best, "trainer_state.json").read_text())  # written while it had its temporary name
    assert state["best_model_checkpoint"] == best
    weights = load_file(f"{best}/model.safetensors")
    assert all(torch.equal(trainer.model.state_dict()[name], value) for name, value in weights.items())


def test_the_collator_serves_a_plain_trainer(splits, tiny_sizes, tmp_path):
    torch.manual_seed(0)
    extractor = ASTFeatureExtractor(max_length=96, mean=-6.5, std=5.5)
    trainer = Trainer(
        model=ASTForAudioClassification(ASTConfig(**tiny_sizes, num_labels=9)),
        args=TrainingArguments(
            str(tmp_path), remove_unused_columns=False, num_train_epochs=4, per_device_train_batch_size=8,
            learning_rate=3e-3, report_to="none", use_cpu=True, save_strategy="no", logging_strategy="epoch",
            disable_tqdm=True,
        ),
        train_dataset=splits["train"],
        eval_dataset=splits["eval"],
        data_collator=ASTDataCollator(extractor),
    )  # fmt: skip
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[-1] < losses[0]
    prediction = trainer.predict(splits["eval"])
    assert prediction.predictions.shape == (7, 9)
    np.testing.assert_array_equal(prediction.label_ids, splits["eval"]["label"][:])


def test_the_collator_computes_what_the_feature_extractor_does(splits):
    extractor = ASTFeatureExtractor(max_length=64, mean=-6.5, std=5.5)
    rows = [splits["train"][index] for index in range(6)]
    waveforms = [ASTDataset(splits["train"], AudioReader(), 10**6)[index]["waveform"] for index in range(6)]
    for padding in ("max_length", "longest"):
        extractor.padding = padding
        expected = extractor(waveforms, sampling_rate=16_000, return_tensors="pt")
        batch = ASTDataCollator(extractor)(rows)
        torch.testing.assert_close(batch["input_values"], expected.input_values)
    assert torch.equal(batch["attention_mask"], expected.attention_mask.bool())


@pytest.mark.parametrize(
    ("samples", "max_length"),
    [
        ((16_000, 16_010), 100),
        ((16_000, 32_000), 50),
        ((16_000, 16_000), 10),
        ((1000, 1000), 100),
        ((900, 16_000), 100),
    ],
    ids=["as many frames", "both cut", "cut to less than a patch", "shorter than a patch", "unequal"],
)
def test_there_is_a_mask_where_the_feature_extractor_has_one(samples, max_length):
    extractor = ASTFeatureExtractor(max_length=max_length, padding="longest")
    waveforms = [np.ones(count, np.float32) for count in samples]
    batch = ASTDataCollator(extractor)([{"waveform": waveform, "label": 0} for waveform in waveforms])
    expected = extractor(waveforms, sampling_rate=16_000, return_tensors="pt")
    assert batch.keys() - {"labels"} == expected.keys()
    for name, values in expected.items():
        torch.testing.assert_close(batch[name].to(values.dtype), values)


def test_the_original_length_is_rolled_and_masked_as_a_whole(splits):
    clip = ASTDataset(splits["train"], AudioReader(), 3200)[0]["waveform"]  # 18 frames
    batch = {
        "waveforms": torch.from_numpy(clip)[None],
        "lengths": torch.tensor([len(clip)]),
        "labels": torch.tensor([0]),
        "draws": {"noise_and_roll": {"roll": torch.tensor([5])}},
        "is_padded": False,
    }
    extractor = ASTFeatureExtractor(max_length=40)
    plain = model_inputs(batch, extractor)["input_values"][0]
    rolled = model_inputs(batch, extractor, Augmentation(max_roll=10))["input_values"][0]
    assert torch.equal(rolled, plain.roll(5, dims=0))
    extractor.padding = "longest"
    rolled = model_inputs(batch, extractor, Augmentation(max_roll=10))["input_values"][0]
    assert torch.equal(rolled[:18], plain[:18].roll(5, dims=0))


def test_batches_of_one_length_need_no_mask(splits):
    extractor = ASTFeatureExtractor(max_length=64, padding="longest")
    collate = ASTDataCollator(extractor)
    clips = [{"waveform": np.ones(size, np.float32), "label": 0} for size in (8000, 8000, 9000)]
    assert "attention_mask" not in collate(clips[:2])
    assert "attention_mask" in collate(clips)


@pytest.mark.parametrize("strategy", ["random", "group_by_length"])
def test_grouping_by_length_pads_less_and_visits_every_clip(build, splits, strategy):
    trainer = build(train_sampling_strategy=strategy)
    lengths = 16_000 * trainer.train_dataset.lengths()
    assert lengths.tolist() == [len(trainer.train_dataset[index]["waveform"]) for index in range(len(lengths))]
    order = [index for _, index in trainer._get_train_sampler()]
    assert sorted(order) == list(range(len(lengths)))
    padded = sum(4 * max(lengths[order[start : start + 4]]) for start in range(0, len(order), 4))
    waste = padded / lengths.sum() - 1
    assert (waste < 0.2) == (strategy == "group_by_length")


def test_clips_of_one_update_are_grouped_over_accumulation_and_processes(build, monkeypatch):
    monkeypatch.setattr(ASTTrainingArguments, "world_size", 3)
    trainer = build(train_sampling_strategy="group_by_length", gradient_accumulation_steps=2)
    assert trainer._get_train_sampler().group_size == 4 * 2 * 3


def test_a_data_set_that_does_not_know_its_lengths_is_refused(build):
    with pytest.raises(ValueError, match=r"list does not tell how long.*lengths\(\)"):
        build(train_sampling_strategy="group_by_length")._get_train_sampler([1, 2])


def test_an_unknown_order_of_clips_is_refused(build):
    with pytest.raises(ValueError, match="'sequential' is not among random, group_by_length"):
        build(train_sampling_strategy="sequential")


def test_scores_are_given_again_for_the_same_tensors_alone(build):
    trainer = build()
    trainer.evaluate()
    clips = trainer.eval_dataset
    first = trainer.scores_of(clips).predictions
    assert trainer.scores_of(clips).predictions is first
    trainer.predict(clips)  # whose metrics have other names
    assert "eval_loss" in trainer.scores_of(clips).metrics
    with torch.no_grad():
        trainer.model.classifier.dense.bias[0] += 1
    second = trainer.scores_of(clips).predictions
    assert not np.array_equal(second, first)
    # Another model, whose tensors were written to as often.
    counts = [tensor._version for tensor in trainer.model.parameters()]
    trainer.model = deepcopy(trainer.model)
    for tensor, count in zip(trainer.model.parameters(), counts, strict=True):
        for _ in range(count - tensor._version):
            tensor.detach().add_(1)
    assert [tensor._version for tensor in trainer.model.parameters()] == counts
    assert not np.array_equal(trainer.scores_of(clips).predictions, second)

"""Two short trainings of the original code, step by step through `ASTTrainer`.

The outside truth is `tests/reference/training.*`, outputs of YuanGongND/ast on drum clips and seeded weights.
"""

import json
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.utils.data import SequentialSampler

from benchmarks.conversion_agreement import random_weights
from conversion.weight_map import original_to_hub
from finetune.arguments.groups import ASTTrainingArguments, OptimizationArguments
from finetune.clip_sets.collator import ASTDataCollator
from finetune.clip_sets.waveforms import ASTDataset
from finetune.scores.metrics import ASTMetrics
from finetune.training.trainer import ASTTrainer
from finetune.training.weight_averaging import average_weights
from modeling_ast import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification
from modeling_ast.audio import AudioReader
from modeling_ast.features.kaldi import num_samples

REFERENCE = Path(__file__).parents[2] / "reference"
DRUMS = Path(__file__).parents[3] / "finetune" / "sample_data" / "drums"
TRAINING = json.loads((REFERENCE / "training.json").read_text())
OUTPUTS = np.load(REFERENCE / "training.npz")
RUNS = {run["name"]: run for run in TRAINING["runs"]}
TABLE = "checkpoint/tiny224_f10_t10_T1024_n527"
OPTIMIZER = {"optim": "adamw_torch", "weight_decay": 5e-7, "adam_beta1": 0.95, "adam_beta2": 0.999}
LOSS_TOLERANCE = 1e-4  # what the reference says that two float32 implementations may differ by
# Rounding that moves a score past another one's changes the mean area under the curve of 9 classes by 1 / (9 * 7 * 57),
# d-prime by four times that: a few such pairs.
SCORE_TOLERANCE = 2e-3
PROBABILITY_TOLERANCE = 1e-4  # the losses' tolerance, as these are what the losses are computed from
FEATURE_TOLERANCE, FEATURE_TOLERANCE_ON_AVERAGE = 2e-3, 1e-5  # float32 rounding in near-empty bins, and elsewhere


class FileOrderTrainer(ASTTrainer):
    """Visits the clips in the order of the reference's list, as its original run did."""

    def _get_train_sampler(self, train_dataset=None):
        return SequentialSampler(self.train_dataset)


class StillTrainer(FileOrderTrainer):
    """Remembers loss and gradients of each batch while the rate is 0: the weights stay, so every epoch repeats them."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.remembered = {}

    def training_step(self, model, inputs, num_items_in_batch=None):
        if self._get_learning_rate():
            return super().training_step(model, inputs, num_items_in_batch)
        batch = self.state.global_step % self._steps_per_epoch
        if batch not in self.remembered:
            loss = super().training_step(model, inputs, num_items_in_batch)
            self.remembered[batch] = loss, [parameter.grad.clone() for parameter in model.parameters()]
        loss, gradients = self.remembered[batch]
        for parameter, gradient in zip(model.parameters(), gradients, strict=True):
            parameter.grad = gradient.clone()
        return loss


class MultiHotCollator(ASTDataCollator):
    def __call__(self, examples):
        batch = super().__call__(examples)
        batch["labels"] = torch.nn.functional.one_hot(batch["labels"], len(TRAINING["labels"])).float()
        return batch


def clips(files: list[str]) -> ASTDataset:
    features = datasets.Features(
        {"audio": datasets.Audio(decode=False), "label": datasets.ClassLabel(names=TRAINING["labels"])}
    )
    audio = [{"path": str(DRUMS / name), "bytes": None} for name in files]
    rows = {"audio": audio, "label": [name.split("/")[0] for name in files]}
    return ASTDataset(datasets.Dataset.from_dict(rows, features), AudioReader(), num_samples(96, 16_000))


def reference_model(run: dict) -> ASTForAudioClassification:
    """The original's tiny224 for 96 frames and 9 labels, filled with the reference's weights."""
    num_labels = len(TRAINING["labels"])
    config = ASTConfig(
        hidden_size=192, num_attention_heads=3, intermediate_size=768, max_length=run["model"]["input_tdim"],
        num_labels=num_labels, layer_norm_eps=1e-6, classifier_layer_norm_eps=1e-5,
        problem_type="single_label_classification" if run["loss"] == "CE" else "multi_label_classification",
    )  # fmt: skip
    frequency, time = config.patch_grid
    table = dict(json.loads((REFERENCE / "cases.json").read_text())["tensors"][TABLE])
    table["v.pos_embed"] = [1, 2 + frequency * time, 192]
    table |= {"mlp_head.1.weight": [num_labels, 192], "mlp_head.1.bias": [num_labels]}
    weights = random_weights(table, run["model"]["weights_seed"], run["model"]["weights_scale"])
    model = ASTForAudioClassification(config)
    used = {name: tensor for name, tensor in weights.items() if not name.startswith("v.head")}
    model.load_state_dict(original_to_hub(used))
    return model


class ReferenceRun:
    """A run of the reference, done again; `scores` are the sigmoid outputs on the scored clips, one array an epoch."""

    def __init__(self, name: str, folder: Path, trainer_class=FileOrderTrainer, **arguments):
        self.reference = RUNS[name]
        self.scores: list[np.ndarray] = []
        cross_entropy = self.reference["loss"] == "CE"
        extractor = ASTFeatureExtractor(max_length=96, mean=self.reference["mean"], std=self.reference["std"])
        collator = ASTDataCollator if cross_entropy else MultiHotCollator
        arguments = {"eval_strategy": "epoch", "save_total_limit": None} | arguments
        self.trainer = trainer_class(
            model=reference_model(self.reference),
            args=ASTTrainingArguments(
                output_dir=str(folder), use_cpu=True, disable_tqdm=True, max_grad_norm=0, **OPTIMIZER,
                learning_rate=self.reference["lr"], num_train_epochs=self.reference["epochs"],
                per_device_train_batch_size=self.reference["batch_size"], per_device_eval_batch_size=16,
                warmup_steps=1000 if self.reference["warmup"] else 0, logging_strategy="steps", logging_steps=1,
                save_only_model=True, **arguments,
            ),
            train_dataset=clips(TRAINING["train_files"]),
            eval_dataset=clips(TRAINING["eval_files"]),
            data_collator=collator(extractor, compute_features=False),
            compute_metrics=self.compute_metrics,
            feature_extractor=extractor,
            optimization=OptimizationArguments(
                optimizer="adam",
                decay_after_epoch=self.reference["lrscheduler_start"],
                decay_every=self.reference["lrscheduler_step"],
                decay_factor=self.reference["lrscheduler_decay"],
            ),
        )  # fmt: skip
        self.trainer.train()

    def compute_metrics(self, prediction) -> dict[str, float]:
        self.scores.append(torch.from_numpy(prediction.predictions).sigmoid().numpy())
        return self.metrics(self.scores[-1])

    def metrics(self, scores: np.ndarray) -> dict[str, float]:
        """In the names of the reference's columns."""
        measured = ASTMetrics().compute(predictions=scores, references=OUTPUTS["targets"].argmax(axis=1))
        names = {
            "acc": "accuracy",
            "mAP": "mean_average_precision",
            "mAUC": "roc_auc_macro",
            "d_prime": "d_prime",
        }
        return {name: measured[ours] for name, ours in names.items()}

    def logged(self, name: str) -> list[float]:
        return [entry[name] for entry in self.trainer.state.log_history if name in entry]

    def columns(self) -> dict[str, np.ndarray]:
        """The reference's results of the epochs by name."""
        return dict(zip(self.reference["per_epoch_columns"], np.array(self.reference["per_epoch"]).T, strict=True))


def check_steps(run: ReferenceRun):
    steps = run.trainer.state.max_steps
    assert run.logged("learning_rate") == run.reference["step_learning_rates"][:steps]
    np.testing.assert_allclose(run.logged("loss"), run.reference["step_losses"][:steps], rtol=0, atol=LOSS_TOLERANCE)


def check_epochs(run: ReferenceRun):
    expected = run.columns()
    shared = sorted({"acc", "mAP", "mAUC", "d_prime"} & expected.keys())
    assert len(shared) == 3
    for name in shared:
        np.testing.assert_allclose(run.logged(f"eval_{name}"), expected[name], atol=SCORE_TOLERANCE, err_msg=name)
    epochs = run.reference["epochs"]
    train_losses = np.reshape(run.logged("loss"), (epochs, -1)).mean(axis=1)
    np.testing.assert_allclose(train_losses, expected["train_loss"], rtol=0, atol=LOSS_TOLERANCE)
    cumulative = np.mean(run.scores, axis=0)
    probabilities = OUTPUTS[f"{run.reference['name']}.cumulative_probabilities"]
    np.testing.assert_allclose(cumulative, probabilities, rtol=0, atol=PROBABILITY_TOLERANCE)
    for name, value in run.metrics(cumulative).items():
        if f"cumulative_{name}" in expected:
            assert value == pytest.approx(expected[f"cumulative_{name}"][-1], abs=SCORE_TOLERANCE), name


def test_features_are_the_originals():
    extractor = ASTFeatureExtractor(max_length=96)
    dataset = clips(TRAINING["feature_files"])
    batch = ASTDataCollator(extractor, compute_features=False)([dataset[index] for index in range(len(dataset))])
    log_mel, _ = extractor.log_mel(batch["waveforms"], batch["lengths"], 96, 96)
    difference = np.abs(log_mel.numpy() - OUTPUTS["features"])
    assert difference.max() < FEATURE_TOLERANCE
    assert difference.mean() < FEATURE_TOLERANCE_ON_AVERAGE


def test_the_cross_entropy_run_is_the_originals_in_every_step_and_epoch(tmp_path):
    run = ReferenceRun("ce", tmp_path, save_strategy="no")
    check_steps(run)
    check_epochs(run)


def test_the_warm_up_of_the_binary_run_is_the_originals_past_its_first_stair(tmp_path):
    settings = {"max_steps": 53, "eval_strategy": "no", "save_strategy": "no"}
    run = ReferenceRun("bce_warmup", tmp_path, StillTrainer, **settings)
    assert len(run.trainer.remembered) == 6
    assert len(set(run.logged("learning_rate"))) == 2
    check_steps(run)


@pytest.mark.long
def test_the_binary_run_is_the_originals_and_so_is_the_average_of_its_epochs(tmp_path):
    run = ReferenceRun("bce_warmup", tmp_path)
    check_steps(run)
    check_epochs(run)
    first, last = run.reference["weight_averaged_epochs"]
    steps = [epoch * len(run.reference["step_losses"]) // run.reference["epochs"] for epoch in range(first, last + 1)]
    files = [tmp_path / f"checkpoint-{step}" / "model.safetensors" for step in steps]
    average_weights(files, tmp_path / "average.safetensors")
    run.trainer.model.load_state_dict(load_file(tmp_path / "average.safetensors"))
    averaged = run.trainer.evaluate()
    expected = dict(zip(run.reference["per_epoch_columns"], run.reference["weight_averaged"], strict=False))
    for name in ("mAP", "mAUC", "d_prime"):
        assert averaged[f"eval_{name}"] == pytest.approx(expected[name], abs=SCORE_TOLERANCE), name

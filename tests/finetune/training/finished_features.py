"""Trainings of a fraction of a second: a model of three tiny layers on twelve clips of finished features."""

from pathlib import Path

import torch

from finetune.arguments.groups import ASTTrainingArguments, OptimizationArguments
from finetune.training.trainer import ASTTrainer
from modeling_ast import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification

SIZES = {
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_length": 32,
}


class Clips(torch.utils.data.Dataset):
    """Twelve seeded clips of three classes as finished features."""

    def __init__(self):
        self.features = torch.randn(12, 32, 128, generator=torch.Generator().manual_seed(1))

    def __len__(self) -> int:
        return len(self.features)

    def __getitem__(self, key):
        index = key[1] if isinstance(key, tuple) else key
        return {"input_values": self.features[index], "labels": index % 3}


def build_trainer(
    folder: Path, optimization: dict | None = None, name: str = "run", loss=None, dropout: float = 0.0, **arguments
) -> ASTTrainer:
    """A trainer on these clips, three steps an epoch; every call starts from the same weights."""
    torch.manual_seed(0)
    config = ASTConfig(**SIZES, num_labels=3, hidden_dropout_prob=dropout)
    config.problem_type = "single_label_classification"
    defaults = {"num_train_epochs": 2, "per_device_train_batch_size": 4, "learning_rate": 1e-3, "use_cpu": True}
    defaults |= {"disable_tqdm": True, "save_strategy": "no"}
    return ASTTrainer(
        model=ASTForAudioClassification(config),
        args=ASTTrainingArguments(output_dir=str(folder / name), **defaults | arguments),
        train_dataset=Clips(),
        eval_dataset=Clips(),
        feature_extractor=ASTFeatureExtractor(max_length=32),
        optimization=None if optimization is None else OptimizationArguments(**optimization),
        loss=loss,
    )

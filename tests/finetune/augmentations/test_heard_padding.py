"""Padding that is heard: which clips' it is, and that the model then hears what it hears of a clip padded beforehand."""

import numpy as np
import pytest
import torch

from finetune.arguments.groups import ASTTrainingArguments, DataArguments
from finetune.augmentations.augmentation import Augmentation, collate_draws
from finetune.clip_sets.collator import ASTDataCollator, model_inputs
from finetune.clip_sets.waveforms import ASTDataset
from finetune.sources.splits import load_splits
from finetune.training.trainer import ASTTrainer
from modeling_ast import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification
from modeling_ast.audio import AudioReader
from modeling_ast.features.kaldi import num_frames

CLIPS, BINS = 40, 128


def batch_of(augmentation: Augmentation) -> dict:
    lengths = torch.tensor([64] + [20] * (CLIPS - 1))
    features = torch.randn(CLIPS, 64, BINS, generator=torch.Generator().manual_seed(0))
    return {
        "features": features * (torch.arange(64) < lengths[:, None])[:, :, None], "lengths": lengths, "is_padded": True,
        "labels": torch.zeros(CLIPS), "draws": collate_draws([augmentation.draw(0, 0, index, CLIPS) for index in range(CLIPS)]),
    }  # fmt: skip


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_the_padding_of_so_many_clips_is_heard_up_to_a_drawn_length(share):
    augmentation = Augmentation(heard_padding_share=share)
    inputs = model_inputs(batch_of(augmentation), ASTFeatureExtractor(max_length=96, padding="longest"), augmentation)
    heard = inputs["attention_mask"].sum(dim=1).numpy()
    assert inputs["input_values"].shape[1] == heard.max()
    padded = heard[1:] > 20
    # Of 39 draws with one half: within five standard deviations, and one clip for those whose draw is of no frame.
    assert padded.mean() == pytest.approx(share, abs=5 * np.sqrt(share * (1 - share) / (CLIPS - 1)) + 2 / CLIPS)
    assert heard.min() >= 20
    if share:
        assert len(np.unique(heard[1:][padded])) > 10, "another length each time"
        assert 85 < heard[1:].max() <= 96, "beyond the longest clip of the batch"


def test_a_model_hears_it_as_stock_transformers_pads():
    torch.manual_seed(0)
    config = ASTConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, max_length=96,
        frequency_stride=16, time_stride=16,
    )  # fmt: skip
    model, augmentation = ASTForAudioClassification(config).eval(), Augmentation(heard_padding_share=1.0)
    batch = batch_of(augmentation)
    batch["draws"]["heard_padding"]["way"].fill_(1.0)  # all of it
    inputs = model_inputs(batch, ASTFeatureExtractor(max_length=96, padding="longest"), augmentation)
    padded = ASTFeatureExtractor(max_length=96).normalize(torch.nn.functional.pad(batch["features"], (0, 0, 0, 32)))
    with torch.no_grad():
        heard = model(**{name: inputs[name] for name in ("input_values", "attention_mask")}).logits
        masked = model(padded, attention_mask=(torch.arange(96) < batch["lengths"][:, None]).long()).logits
        torch.testing.assert_close(heard, model(padded).logits)
    assert (heard - masked).abs().max() > 1e-3


@pytest.mark.parametrize("strategy", ["random", "group_by_length"])
def test_padding_is_heard_in_batches_of_one_length_too(tiny_sizes, tmp_path, strategy):
    """Grouped by how long they are, clips would have no padding that could be heard; they are grouped by what is heard."""
    splits, _ = load_splits(DataArguments(dataset_name="finetune/sample_data/drums"), seed=0)
    clips, augmentation = splits["train"].select(range(0, 353, 5)), Augmentation(heard_padding_share=0.5)
    extractor = ASTFeatureExtractor(max_length=256, padding="longest")
    trainer = ASTTrainer(
        model=ASTForAudioClassification(ASTConfig(**tiny_sizes | {"max_length": 256}, num_labels=9)),
        args=ASTTrainingArguments(
            output_dir=str(tmp_path), per_device_train_batch_size=8, train_sampling_strategy=strategy, use_cpu=True
        ),
        train_dataset=ASTDataset(clips, AudioReader(), extractor.max_samples, augmentation),
        data_collator=ASTDataCollator(extractor, compute_features=False),
        feature_extractor=extractor,
        augmentation=augmentation,
    )
    heard, own, widths = [], [], []
    for batch in trainer.get_train_dataloader():
        inputs = model_inputs(batch, extractor, augmentation)
        heard += inputs["attention_mask"].sum(dim=1).tolist()
        own += num_frames(batch["lengths"], 16_000).tolist()
        widths.append(len(batch["lengths"]) * inputs["input_values"].shape[1])
    assert len(heard) == len(clips)
    longer = np.array(heard) > np.array(own)
    assert 0.3 < longer.mean() < 0.7
    assert np.mean(np.array(heard)[longer] / np.array(own)[longer]) > 1.5
    assert (sum(widths) / sum(heard) < 1.25) == (strategy == "group_by_length")


def test_a_share_of_more_than_all_clips_is_refused():
    with pytest.raises(ValueError, match="heard_padding_share=1.5 is more than all clips. Pass a share up to 1"):
        Augmentation(heard_padding_share=1.5)

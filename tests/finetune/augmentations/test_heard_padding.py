"""Padding that is heard: which clips' it is, and that the model then hears what it hears of a clip padded beforehand."""

import numpy as np
import pytest
import torch

from finetune.augmentations.augmentation import Augmentation, collate_draws
from finetune.clip_sets.collator import model_inputs
from modeling_ast import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification

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
    extractor = ASTFeatureExtractor(max_length=96, padding="longest")
    heard = model_inputs(batch_of(augmentation), extractor, augmentation)["attention_mask"].sum(dim=1).numpy()
    assert heard[0] == 64
    padded = heard[1:] > 20
    # Of 39 draws with one half: within five standard deviations, and one clip for those whose draw is of no frame.
    assert padded.mean() == pytest.approx(share, abs=5 * np.sqrt(share * (1 - share) / (CLIPS - 1)) + 2 / CLIPS)
    assert heard.min() >= 20
    if share:
        assert len(np.unique(heard[1:][padded])) > 10, "another length each time"
        assert heard[1:].max() > 55


def test_a_model_hears_it_as_stock_transformers_pads():
    torch.manual_seed(0)
    config = ASTConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, max_length=64,
        frequency_stride=16, time_stride=16,
    )  # fmt: skip
    model, augmentation = ASTForAudioClassification(config).eval(), Augmentation(heard_padding_share=1.0)
    batch = batch_of(augmentation)
    batch["draws"]["heard_padding"]["times"].fill_(4.0)  # all of it
    inputs = model_inputs(batch, ASTFeatureExtractor(max_length=64, padding="longest"), augmentation)
    padded = ASTFeatureExtractor(max_length=64).normalize(batch["features"])
    with torch.no_grad():
        heard = model(**{name: inputs[name] for name in ("input_values", "attention_mask")}).logits
        masked = model(padded, attention_mask=(torch.arange(64) < batch["lengths"][:, None]).long()).logits
        torch.testing.assert_close(heard, model(padded).logits)
    assert (heard - masked)[1:].abs().max() > 1e-3


def test_a_share_of_more_than_all_clips_is_refused():
    with pytest.raises(ValueError, match="heard_padding_share=1.5 is more than all clips. Pass a share up to 1"):
        Augmentation(heard_padding_share=1.5)

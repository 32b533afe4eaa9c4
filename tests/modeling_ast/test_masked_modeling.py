"""Masked pretraining against SSAST's formulas in NumPy, and against stock Transformers for what it leaves behind."""

import numpy as np
import pytest
import torch
from transformers.models.audio_spectrogram_transformer import modeling_audio_spectrogram_transformer as stock

from modeling_ast import ASTConfig, ASTForAudioClassification, ASTForMaskedSpectrogramModeling, ASTModel
from modeling_ast.layers.patch_masks import draw_patch_mask

SIZES = {"frequency_stride": 16, "time_stride": 16, "num_mel_bins": 48}
GRID = (3, 6)  # of 48 mel bins and 96 frames


@pytest.fixture
def model(tiny_sizes):
    torch.manual_seed(0)
    return ASTForMaskedSpectrogramModeling(ASTConfig(**tiny_sizes | SIZES)).eval()


def batch() -> dict[str, torch.Tensor]:
    """Three clips, of which the second is padded after 40 of 96 frames and so has two columns of patches."""
    generator = torch.Generator().manual_seed(1)
    mask = torch.ones(3, 96, dtype=torch.long)
    mask[1, 40:] = 0
    masked = torch.from_numpy(np.stack([draw_patch_mask(np.random.default_rng(seed), GRID) for seed in range(3)]))
    masked[:, 0, 0] = True  # of the padded clip one patch at least is real and masked
    values = torch.randn(3, 96, 48, generator=generator) * 0.5
    return {"input_values": values, "attention_mask": mask, "patches_masked": masked.flatten(1)}


def test_both_losses_are_those_of_the_paper(model):
    inputs = batch()
    with torch.no_grad():
        outputs = model(**inputs)
        encoder = model.audio_spectrogram_transformer
        seam = {"patches_masked": inputs["patches_masked"], "mask_embedding": model.mask_embedding}
        tokens = encoder(inputs["input_values"], inputs["attention_mask"], **seam).last_hidden_state[:, 2:].numpy()
    weights = {name: tensor.double().numpy() for name, tensor in model.state_dict().items()}

    def head(name, of_tokens):
        hidden = of_tokens @ weights[f"{name}.dense.weight"].T + weights[f"{name}.dense.bias"]
        return np.maximum(hidden, 0) @ weights[f"{name}.output.weight"].T + weights[f"{name}.output.bias"]

    for clip in range(3):
        columns = (6, 2, 6)[clip]
        spectrogram = inputs["input_values"][clip].numpy()
        rows, values = [], []
        for row in range(3):
            for column in range(columns):
                if inputs["patches_masked"][clip, row * 6 + column]:
                    rows.append(tokens[clip, row * 6 + column])
                    values.append(spectrogram[16 * column :][:16, 16 * row :][:, :16].T.ravel())
        rows, values = np.stack(rows), np.stack(values)
        error = np.mean((head("reconstruction_head", rows) - values) ** 2)
        products = head("matching_head", rows) @ values.T
        matched = -np.mean(np.diag(products - np.log(np.exp(products).sum(axis=1, keepdims=True))))
        accuracy = np.mean(products.argmax(axis=1) == np.arange(len(rows)))
        assert outputs.reconstruction_errors[clip].item() == pytest.approx(error, rel=1e-5)
        assert outputs.matching_losses[clip].item() == pytest.approx(matched, rel=1e-5)
        assert outputs.matching_accuracies[clip].item() == pytest.approx(accuracy)
    together = outputs.matching_losses + 10 * outputs.reconstruction_errors
    assert outputs.loss.item() == pytest.approx(together.mean().item(), rel=1e-6)


def test_what_is_hidden_is_not_seen(model):
    inputs = batch()
    hidden = inputs["patches_masked"].view(3, *GRID).repeat_interleave(16, 1).repeat_interleave(16, 2).transpose(1, 2)
    other = inputs | {"input_values": torch.where(hidden, 7.0, inputs["input_values"])}
    with torch.no_grad():
        assert torch.equal(model(**inputs).reconstruction, model(**other).reconstruction)


def test_a_clip_without_masked_patches_adds_nothing_and_all_parts_learn(model):
    inputs = batch()
    inputs["patches_masked"][0] = False
    outputs = model(**inputs)
    assert (outputs.matching_losses[0], outputs.reconstruction_errors[0], outputs.matching_accuracies[0]) == (0, 0, 0)
    outputs.loss.backward()
    unused = {name for name, parameter in model.named_parameters() if parameter.grad is None}
    assert not unused
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
    assert model.mask_embedding.grad.abs().sum() > 0


def test_overlapping_patches_are_refused(tiny_sizes):
    model = ASTForMaskedSpectrogramModeling(ASTConfig(**tiny_sizes | {"num_mel_bins": 48}))
    with pytest.raises(ValueError, match="frequency_stride=10 and time_stride=10 do not both equal patch_size=16"):
        model(torch.zeros(1, 96, 48), patches_masked=torch.zeros(1, 36, dtype=torch.bool))


def test_its_encoder_is_taken_by_other_models_and_by_stock_transformers(model, tmp_path):
    model.save_pretrained(tmp_path)
    assert model.mask_embedding.std() > 0.005
    spectrogram = batch()["input_values"]
    expected = model.audio_spectrogram_transformer(spectrogram).pooler_output
    again = ASTForMaskedSpectrogramModeling.from_pretrained(tmp_path).state_dict()
    assert all(torch.equal(tensor, again[name]) for name, tensor in model.state_dict().items())
    classifier = ASTForAudioClassification.from_pretrained(tmp_path, num_labels=3)
    for encoder in (
        ASTModel.from_pretrained(tmp_path),
        classifier.audio_spectrogram_transformer,
        stock.ASTModel.from_pretrained(tmp_path),
    ):
        torch.testing.assert_close(encoder.eval()(spectrogram).pooler_output, expected, atol=1e-5, rtol=0)
    classifier.save_pretrained(tmp_path / "tuned")
    heads_anew = ASTForMaskedSpectrogramModeling.from_pretrained(tmp_path / "tuned")
    assert torch.equal(heads_anew.audio_spectrogram_transformer(spectrogram).pooler_output, expected)


@pytest.mark.parametrize(("grid", "share", "count"), [((8, 64), 400 / 512, 400), ((8, 5), 0.5, 20), ((1, 1), 0.5, 0), ((1, 2), 0.9, 1)])  # fmt: skip
def test_as_many_patches_as_asked_are_masked(grid, share, count):
    masks = [draw_patch_mask(np.random.default_rng(seed), grid, share) for seed in range(5)]
    assert {int(mask.sum()) for mask in masks} == {count}
    assert np.array_equal(masks[0], draw_patch_mask(np.random.default_rng(0), grid, share))


def test_masked_patches_lie_in_squares_that_end_at_the_edge():
    for seed in range(20):
        generator = np.random.default_rng(seed)
        side = 3 + generator.integers(3)  # what the mask draws first
        mask = draw_patch_mask(np.random.default_rng(seed), (20, 40), 0.02, (3, 5))  # 16 patches
        row, column = generator.integers(20), generator.integers(40)
        square = mask[row : row + side, column : column + side]
        assert square.all() or square.sum() == mask.sum()
    every = np.mean([draw_patch_mask(np.random.default_rng(seed), (8, 16), 0.5) for seed in range(200)], axis=0)
    assert every[0, 0] > 0.05  # the released code never masks it


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((0, 4),), "has no patches"),
        (((4, 4), 1.0), "masked_share=1.0 is not between"),
        (((4, 4), 0.5, (3, 2)), "not in order"),
    ],
)
def test_masks_that_cannot_be_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        draw_patch_mask(np.random.default_rng(0), *arguments)

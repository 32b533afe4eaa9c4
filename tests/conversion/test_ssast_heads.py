"""The heads of SSAST's pretraining, by its own tensor names, there and back, and what they compute."""

import pytest
import torch

from modeling_ast import ASTForMaskedSpectrogramModeling, ASTModel

FRAMES, PATCHES = 64, 8 * 4


def ssast(weights: dict[str, torch.Tensor]):
    """What `torch.save(audio_model.state_dict())` of SSAST's pretraining holds, with seeded heads."""
    for kind in ("0.weight", "0.bias", "1.weight", "1.bias"):
        weights.pop(f"mlp_head.{kind}")
    generator = torch.Generator().manual_seed(3)
    shapes = {"0.weight": (192, 192), "0.bias": (192,), "2.weight": (256, 192), "2.bias": (256,)}
    for head in ("cpredlayer", "gpredlayer"):
        weights |= {f"{head}.{name}": torch.randn(shape, generator=generator) * 0.1 for name, shape in shapes.items()}
    weights["mask_embed"] = torch.randn(1, 1, 192, generator=generator)
    weights["p_input_fdim"], weights["p_input_tdim"] = torch.tensor(128), torch.tensor(FRAMES)


@pytest.fixture
def original(make_original):
    return make_original("SSAST-Tiny-Patch-400.pth", patches=PATCHES, change=ssast)


def test_heads_come_back_bit_equal(original, convert, tmp_path, monkeypatch):
    monkeypatch.setattr("conversion.original_checkpoint.NUM_LAYERS", 2)
    assert convert(original, tmp_path / "hub")[0] == 0
    code, out, err = convert("--to_original", tmp_path / "hub", tmp_path / "back.pth")
    assert (code, err) == (0, "")
    assert "verified: largest difference of the pooled output" in out
    given, back = (torch.load(path, weights_only=True) for path in (original, tmp_path / "back.pth"))
    assert {"module.mask_embed", "module.p_input_tdim", "module.gpredlayer.2.bias"} < back.keys()
    assert back.keys() == {name for name in given if "v.head" not in name}
    for name, tensor in back.items():
        assert tensor.dtype == given[name].dtype, name
        assert torch.equal(tensor, given[name]), name

    bare = ASTModel.from_pretrained(tmp_path / "hub")
    bare.save_pretrained(tmp_path / "bare")
    assert convert("--to_original", tmp_path / "bare", tmp_path / "bare.pth")[0] == 0
    assert not [name for name in torch.load(tmp_path / "bare.pth", weights_only=True) if "pred" in name]


@torch.no_grad()
def test_each_head_does_what_ssast_does_with_it(original, convert, tmp_path):
    convert(original, tmp_path / "hub")
    model = ASTForMaskedSpectrogramModeling.from_pretrained(tmp_path / "hub").eval()
    weights = {
        name.removeprefix("module."): tensor for name, tensor in torch.load(original, weights_only=True).items()
    }
    spectrogram = torch.randn(1, FRAMES, 128, generator=torch.Generator().manual_seed(0)) * 0.5
    masked = torch.zeros(1, PATCHES, dtype=torch.bool)
    masked[0, [3, 4, 9, 30]] = True
    seam = {"patches_masked": masked, "mask_embedding": weights["mask_embed"].flatten()}
    tokens = model.audio_spectrogram_transformer(spectrogram, **seam).last_hidden_state[0, 2:][masked[0]]
    heads = {}
    for name in ("cpredlayer", "gpredlayer"):
        heads[name] = torch.nn.Sequential(torch.nn.Linear(192, 192), torch.nn.ReLU(), torch.nn.Linear(192, 256))
        heads[name].load_state_dict({key[11:]: value for key, value in weights.items() if key.startswith(name)})
    patches = torch.nn.Unfold((16, 16), stride=(16, 16))(spectrogram.transpose(1, 2)[None])[0].T[masked[0]]
    outputs = model(spectrogram, patches_masked=masked)
    error = torch.nn.functional.mse_loss(heads["gpredlayer"](tokens), patches)
    matched = torch.nn.functional.cross_entropy(heads["cpredlayer"](tokens) @ patches.T, torch.arange(4))
    torch.testing.assert_close(outputs.reconstruction_errors[0], error)
    torch.testing.assert_close(outputs.matching_losses[0], matched)


def test_a_part_of_the_heads_is_refused(make_original, convert, tmp_path):
    def torn(weights):
        ssast(weights)
        del weights["gpredlayer.2.bias"]

    code, _, err = convert(make_original(patches=PATCHES, change=torn), tmp_path / "hub")
    assert code == 2
    assert "missing (1): gpredlayer.2.bias" in err


def test_heads_beside_overlapping_patches_do_not_go_back(original, convert, tmp_path, monkeypatch):
    monkeypatch.setattr("conversion.original_checkpoint.NUM_LAYERS", 2)
    convert(original, tmp_path / "hub")
    strided = {"frequency_stride": 10, "time_stride": 10}
    ASTForMaskedSpectrogramModeling.from_pretrained(tmp_path / "hub", **strided).save_pretrained(tmp_path / "overlap")
    code, _, err = convert("--to_original", tmp_path / "overlap", tmp_path / "back.pth")
    assert code == 2
    assert "patches at the strides 10 x 10, where SSAST has 16 x 16" in err

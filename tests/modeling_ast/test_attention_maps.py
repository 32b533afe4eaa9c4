"""Attention maps against attention written out in NumPy, torchaudio's filter bank, and the pixels of the picture."""

import warnings
from functools import partial

import forked_python
import numpy as np
import pytest
import torch
from matplotlib import image
from scipy.special import erf
from torch import nn
from torchaudio.compliance import kaldi
from transformers.models.audio_spectrogram_transformer import modeling_audio_spectrogram_transformer as stock

from modeling_ast import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification, ASTModel
from modeling_ast.adapters import LORA_TARGET_MODULES
from modeling_ast.attention_maps import AttentionMaps, attention_maps, plot_attention

pytestmark = pytest.mark.pictures

ROUNDING = 1e-5  # float32 here, float64 there
BFLOAT16_ROUNDING = 0.03  # of the largest weight: 8 bits, through three layers
MEL_BINS = 48  # four patches along frequency
FRAMES = 96  # nine along time
LAYERS, HEADS = 3, 2
EXTRACTOR = ASTFeatureExtractor(num_mel_bins=MEL_BINS)


@pytest.fixture
def make_model(tiny_sizes):
    """Models with the same random weights everywhere, large enough for some patches to get far more than others."""

    def make(model_class=ASTForAudioClassification, attn_implementation="sdpa", **changes):
        torch.manual_seed(0)
        sizes = tiny_sizes | {"num_mel_bins": MEL_BINS, "num_hidden_layers": LAYERS}
        model = model_class(ASTConfig(**(sizes | changes), attn_implementation=attn_implementation))
        with torch.no_grad():
            for parameter in model.parameters():
                nn.init.normal_(parameter, std=0.4)
        return model.eval()

    return make


def make_input(frames: int = FRAMES, batch: int = 3) -> torch.Tensor:
    return torch.randn(batch, frames, MEL_BINS, generator=torch.Generator().manual_seed(frames))


def make_mask(frames: int, lengths: list[int]) -> torch.Tensor:
    return (torch.arange(frames) < torch.tensor(lengths)[:, None]).long()


def made_maps(weights: torch.Tensor, real: list[int]) -> AttentionMaps:
    """Maps with given weights, of patches of 16 every 10."""
    starts = [torch.arange(size) * 10 for size in weights.shape[1:]]
    bins, frames = (torch.stack((start, start + 16), dim=1) for start in starts)
    return AttentionMaps(weights, bins * 50.0, frames * 0.01, torch.tensor(real), bins, frames, 16_000)


# by hand


def in_numpy(module) -> dict[str, np.ndarray]:
    return {name: tensor.detach().double().numpy() for name, tensor in module.named_parameters()}


def layer_norm(x, weights, name, epsilon=1e-12):
    centered = x - x.mean(-1, keepdims=True)
    normed = centered / np.sqrt(centered.var(-1, keepdims=True) + epsilon)
    return normed * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def project(x, weights, name):
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def attention_by_hand(model, clip: torch.Tensor) -> np.ndarray:
    """Softmax of the scaled products of queries and keys, `(layers, heads, tokens, tokens)`, for one clip."""
    transformer = model.audio_spectrogram_transformer
    with torch.no_grad():
        x = transformer.embeddings(clip[None])[0].double().numpy()
    found = []
    for layer in transformer.encoder.layer:
        weights = in_numpy(layer)
        normed = layer_norm(x, weights, "layernorm_before")
        query, key, value = (
            project(normed, weights, f"attention.attention.{name}").reshape(len(x), HEADS, -1).transpose(1, 0, 2)
            for name in ("query", "key", "value")
        )
        scores = query @ key.transpose(0, 2, 1) / np.sqrt(query.shape[-1])
        exponentials = np.exp(scores - scores.max(-1, keepdims=True))
        attention = exponentials / exponentials.sum(-1, keepdims=True)
        context = (attention @ value).transpose(1, 0, 2).reshape(x.shape)
        x = x + project(context, weights, "attention.output.dense")
        widened = project(layer_norm(x, weights, "layernorm_after"), weights, "intermediate.dense")
        x = x + project(widened * (1 + erf(widened / np.sqrt(2))) / 2, weights, "output.dense")
        found.append(attention)
    return np.stack(found)


def patch_map(rows_of_class_tokens: np.ndarray) -> np.ndarray:
    """Rows `(2, tokens)` as a map `(frequency, time)` that sums to 1."""
    patches = rows_of_class_tokens.mean(0)[2:].reshape(4, -1)
    return patches / patches.sum()


def rollout_by_hand(attention: np.ndarray) -> np.ndarray:
    """The product of all layers' whole matrices."""
    product = np.eye(attention.shape[-1])
    for layer in attention.mean(axis=1):
        with_residual = layer + np.eye(len(layer))
        product = with_residual / with_residual.sum(-1, keepdims=True) @ product
    return patch_map(product[:2])


# maps


@pytest.mark.parametrize("frames", [50, FRAMES, 200])  # shorter than trained, as long, longer
@pytest.mark.parametrize("batch", [1, 3])
def test_rollout_equals_the_product_of_whole_matrices_by_hand(make_model, frames, batch):
    model, clips = make_model(), make_input(frames, batch)
    maps = attention_maps(model, EXTRACTOR, clips)
    expected = np.stack([rollout_by_hand(attention_by_hand(model, clip)) for clip in clips])
    assert expected.max() > 3 * expected.min()  # or an even map would pass
    np.testing.assert_allclose(maps.weights, expected, atol=ROUNDING)
    assert maps.weights.dtype == torch.float32
    assert maps.num_time_patches.tolist() == [(frames - 16) // 10 + 1] * batch


@pytest.mark.parametrize("layer", range(-LAYERS, LAYERS))
def test_the_maps_of_a_layer_and_of_its_heads_equal_attention_by_hand(make_model, layer):
    model, clips = make_model(), make_input()
    attention = [attention_by_hand(model, clip)[layer] for clip in clips]
    of_layer = attention_maps(model, EXTRACTOR, clips, layer=layer).weights
    np.testing.assert_allclose(of_layer, [patch_map(heads.mean(0)[:2]) for heads in attention], atol=ROUNDING)
    for head in range(-HEADS, HEADS):
        of_head = attention_maps(model, EXTRACTOR, clips, layer=layer, head=head).weights
        np.testing.assert_allclose(of_head, [patch_map(heads[head, :2]) for heads in attention], atol=ROUNDING)
        assert (of_head - of_layer).abs().max() > 100 * ROUNDING


def test_a_head_alone_is_one_of_the_last_layer(make_model):
    model, clips = make_model(), make_input()
    alone = attention_maps(model, EXTRACTOR, clips, head=1).weights
    assert torch.equal(alone, attention_maps(model, EXTRACTOR, clips, layer=LAYERS - 1, head=1).weights)


CHOICES = [{}, {"layer": 0}, {"layer": -1, "head": 1}]


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("attn_implementation", ["eager", "sdpa"])
def test_a_clip_in_a_mixed_batch_has_the_map_it_has_alone(make_model, choice, attn_implementation):
    model, lengths = make_model(attn_implementation=attn_implementation), [200, 9, 47, 130]
    clips = make_input(200, len(lengths))
    maps = attention_maps(model, EXTRACTOR, clips, make_mask(200, lengths), **choice)
    assert maps.num_time_patches.tolist() == [19, 1, 4, 12]
    assert maps.weights.min() >= 0
    for clip, weights, length, steps in zip(clips, maps.weights, lengths, maps.num_time_patches, strict=True):
        alone = attention_maps(model, EXTRACTOR, clip[None, : max(length, 16)], **choice).weights[0]
        assert alone.shape == (4, steps)
        torch.testing.assert_close(weights[:, :steps], alone, atol=ROUNDING, rtol=0)
        assert weights.sum().item() == pytest.approx(1)
        assert not weights[:, steps:].any()


@pytest.mark.parametrize("choice", CHOICES)
def test_the_attention_implementation_makes_no_difference(make_model, choice):
    clips, mask = make_input(), make_mask(FRAMES, [96, 70, 40])
    ours, theirs = (
        attention_maps(make_model(attn_implementation=name), EXTRACTOR, clips, mask, **choice)
        for name in ("sdpa", "eager")
    )
    torch.testing.assert_close(ours.weights, theirs.weights, atol=ROUNDING, rtol=0)


@pytest.mark.parametrize("choice", CHOICES)
def test_a_model_in_bfloat16(make_model, choice):
    clips, mask = make_input(), make_mask(FRAMES, [96, 70, 40])
    exact = attention_maps(make_model(), EXTRACTOR, clips, mask, **choice).weights
    rounded = attention_maps(make_model().to(torch.bfloat16), EXTRACTOR, clips, mask, **choice).weights
    assert rounded.dtype == torch.float32
    torch.testing.assert_close(rounded.sum(dim=(1, 2)), torch.ones(3))
    assert (rounded - exact).abs().max() < BFLOAT16_ROUNDING * exact.max()


@pytest.mark.parametrize("choice", CHOICES)
def test_autocast_around_it_does_not_round(make_model, choice):
    model, clips = make_model(), make_input()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        maps = attention_maps(model, EXTRACTOR, clips, **choice)
    assert torch.equal(maps.weights, attention_maps(model, EXTRACTOR, clips, **choice).weights)


def test_what_comes_back_holds_no_graph(make_model):
    assert not attention_maps(make_model(), EXTRACTOR, make_input()).weights.requires_grad


@pytest.mark.parametrize("error", [False, True])
@pytest.mark.parametrize("attn_implementation", ["eager", "sdpa"])
def test_the_model_is_left_as_it_was_and_heard_without_dropout(make_model, error, attn_implementation):
    changes = {"hidden_dropout_prob": 0.5, "attention_probs_dropout_prob": 0.5}
    model, clips = make_model(attn_implementation=attn_implementation, **changes), make_input()
    expected = attention_maps(model, EXTRACTOR, clips).weights
    model.train()
    model.audio_spectrogram_transformer.encoder.layer[0].eval()  # as where a part is frozen
    before = {name: module.training for name, module in model.named_modules()}
    if error:
        with pytest.raises(ValueError, match="attention_mask has shape"):
            attention_maps(model, EXTRACTOR, clips, make_mask(7, [7, 7, 7]))
    else:
        assert torch.equal(attention_maps(model, EXTRACTOR, clips).weights, expected)
    assert {name: module.training for name, module in model.named_modules()} == before
    assert model.config._attn_implementation == attn_implementation
    assert not model.config.output_attentions
    assert not model.config.output_hidden_states


def test_a_bare_model_has_the_same_maps(make_model):
    model, clips = make_model(), make_input()
    bare = ASTModel(model.config)
    bare.load_state_dict(model.audio_spectrogram_transformer.state_dict())
    ours = attention_maps(bare, EXTRACTOR, clips).weights
    assert torch.equal(ours, attention_maps(model, EXTRACTOR, clips).weights)


def test_a_model_with_an_adapter_has_the_maps_of_the_merged_model(make_model):
    peft = pytest.importorskip("peft")
    model, clips = make_model(), make_input()
    without = attention_maps(model, EXTRACTOR, clips).weights
    adapted = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=list(LORA_TARGET_MODULES)))
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.fill_(0.05)
    adapted.eval()
    ours = attention_maps(adapted, EXTRACTOR, clips).weights
    merged = attention_maps(adapted.merge_and_unload(), EXTRACTOR, clips).weights
    torch.testing.assert_close(ours, merged, atol=ROUNDING, rtol=0)
    assert (ours - without).abs().max() > 100 * ROUNDING


def test_attention_that_is_equal_everywhere_makes_an_even_map(make_model):
    model = make_model()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    maps = attention_maps(model, EXTRACTOR, torch.zeros(2, FRAMES, MEL_BINS), make_mask(FRAMES, [96, 40]))
    torch.testing.assert_close(maps.weights[0], torch.full((4, 9), 1 / 36))
    torch.testing.assert_close(maps.weights[1, :, :3], torch.full((4, 3), 1 / 12))
    assert not maps.weights[1, :, 3:].any()


@pytest.mark.parametrize("choice", CHOICES)
def test_class_tokens_that_attend_to_nothing_but_themselves_make_an_even_map(make_model, choice):
    model, clips = make_model(), make_input()
    embeddings = model.audio_spectrogram_transformer.embeddings
    with torch.no_grad():
        # The first hidden channel, where the class tokens lie and nothing else does, is the only one that is asked for.
        for layer in model.audio_spectrogram_transformer.encoder.layer:
            for parameter in layer.parameters():
                parameter.zero_()
            layer.layernorm_before.weight.fill_(1)
            attention = layer.attention.attention
            for first in range(0, 32, attention.head_dim):
                attention.key.weight[first, 0] = 1
                attention.query.bias[first] = 1000
        for token in (embeddings.cls_token, embeddings.distillation_token):
            token[..., 0] = 1000
    attentions = model(clips, output_attentions=True).attentions
    assert not any(weights[:, :, :2, 2:].any() for weights in attentions)
    maps = attention_maps(model, EXTRACTOR, clips, **choice)
    torch.testing.assert_close(maps.weights, torch.full((3, 4, 9), 1 / 36))


# ranges


@pytest.mark.parametrize(("sampling_rate", "mel_bins"), [(16_000, 128), (16_000, MEL_BINS), (8_000, 64)])
def test_frequencies_are_those_of_the_filter_bank(make_model, sampling_rate, mel_bins):
    """Against torchaudio's own mel banks: where the neighbouring filters peak a patch's filters are zero."""
    points = 512 if sampling_rate == 16_000 else 256
    bank, centers = kaldi.get_mel_banks(mel_bins, points, sampling_rate, 20.0, 0.0, 100.0, -500.0, 1.0)
    extractor = ASTFeatureExtractor(num_mel_bins=mel_bins, sampling_rate=sampling_rate)
    model = make_model(num_mel_bins=mel_bins, frequency_stride=7)
    ranges = attention_maps(model, extractor, torch.zeros(1, 20, mel_bins)).frequency_ranges
    edges = np.concatenate(([20.0], centers.flatten().numpy(), [sampling_rate / 2]))
    starts = np.arange(0, mel_bins - 15, 7)
    np.testing.assert_allclose(ranges, np.stack((edges[starts], edges[starts + 17]), axis=1), rtol=1e-4)
    frequencies = torch.arange(points // 2) * sampling_rate / points
    for start, (low, high) in zip(starts, ranges, strict=True):
        heard = frequencies[bank[start : start + 16].sum(dim=0) > 1e-3]
        assert low <= heard.min()
        assert heard.max() <= high


def test_a_patch_hears_its_time_range_and_nothing_else(make_model):
    model = make_model(time_stride=12)
    ranges = attention_maps(model, EXTRACTOR, make_input(70)).time_ranges
    waveform = torch.randn(1, 400 + 69 * 160, generator=torch.Generator().manual_seed(0))
    assert ranges[-1, 1] <= waveform.shape[1] / 16_000

    def features(samples, patch):
        log_mel = kaldi.fbank(samples, window_type="hanning", num_mel_bins=MEL_BINS)
        return log_mel[12 * patch : 12 * patch + 16]

    for patch, (start, end) in enumerate((ranges * 16_000).round().int().tolist()):
        outside = torch.zeros_like(waveform)
        outside[:, start:end] = waveform[:, start:end]
        assert torch.equal(features(outside, patch), features(waveform, patch))
        for sample in (start, end - 1):
            inside = waveform.clone()
            inside[:, sample] += 10
            assert not torch.equal(features(inside, patch), features(waveform, patch))


# what is refused


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"layer": 3}, "layer=3, but there are 3. Pass a layer from 0 to 2, or from -3 to -1"),
        ({"layer": -4}, "layer=-4, but there are 3"),
        ({"head": 2}, "head=2, but there are 2. Pass a head from 0 to 1, or from -2 to -1"),
        ({"layer": 0, "head": -3}, "head=-3, but there are 2"),
    ],
)
def test_a_layer_or_head_that_is_not_there(make_model, choice, message):
    with pytest.raises(ValueError, match=message):
        attention_maps(make_model(), EXTRACTOR, make_input(), **choice)


def test_a_model_of_another_package(tiny_sizes):
    model = stock.ASTForAudioClassification(stock.ASTConfig(**tiny_sizes))
    with pytest.raises(ValueError, match="modeling_ast.ASTForAudioClassification.from_pretrained"):
        attention_maps(model, ASTFeatureExtractor(), torch.zeros(1, 96, 128))


def test_a_feature_extractor_of_another_checkpoint(make_model):
    with pytest.raises(ValueError, match="extractor makes 128 mel bins, the model hears 48. Load both"):
        attention_maps(make_model(), ASTFeatureExtractor(), make_input())


# the picture


@pytest.mark.parametrize(
    "kind", [partial(torch.tensor, dtype=torch.bfloat16, requires_grad=True), np.array], ids=["tensor", "array"]
)
def test_the_picture_shows_the_map_over_the_spectrogram_in_seconds_and_hz(make_model, kind):
    clips = make_input(200).to(torch.bfloat16).float()  # values that bfloat16 holds exactly
    maps = attention_maps(make_model(), EXTRACTOR, clips, make_mask(200, [200, 200, 120]))
    figure = plot_attention(kind(clips[1].tolist()), maps, clip=1, title="half of $5 $6")
    axes = figure.axes[0]
    spectrogram, overlay = axes.images
    np.testing.assert_allclose(spectrogram.get_array(), clips[1].T, rtol=1e-6)
    assert spectrogram.get_extent() == overlay.get_extent() == pytest.approx((0, 2.0, -0.5, MEL_BINS - 0.5))
    assert spectrogram.origin == overlay.origin == "lower"
    assert axes.get_xlim() == (0, pytest.approx(2.0))
    assert axes.get_xlabel() == "time in s"
    assert axes.get_ylabel() == "frequency in Hz (48 mel bins)"
    assert [tick.get_text() for tick in axes.get_yticklabels()] == [
        "125",
        "250",
        "500",
        "1000",
        "2000",
        "4000",
        "8000",
    ]
    assert axes.get_title() == "half of $5 $6"
    assert not axes.title.get_parse_math()
    assert "attention" in figure.axes[1].get_ylabel()


def test_where_patches_overlap_the_picture_has_their_mean():
    weights = torch.rand(2, 3, 5, generator=torch.Generator().manual_seed(0))
    weights[1, :, 4:] = 0  # padding, which takes no part in the mean
    frames, bins, steps = 70, 40, 4
    figure = plot_attention(np.zeros((frames, bins)), made_maps(weights, [5, steps]), clip=-1)
    overlay = figure.axes[0].images[1]
    drawn, opacity = overlay.get_array(), overlay.get_alpha()
    for frame in range(frames):
        for mel_bin in range(bins):
            over_it = [
                weights[1, row, step].item()
                for row in range(3)
                for step in range(steps)
                if 0 <= mel_bin - 10 * row < 16 and 0 <= frame - 10 * step < 16
            ]
            if over_it:
                assert drawn[mel_bin, frame] == pytest.approx(np.mean(over_it))
            else:
                assert drawn.mask[mel_bin, frame]
                assert opacity[mel_bin, frame] == 0
    assert drawn.mask[:, 46:].all()
    assert overlay.get_clim() == (pytest.approx(drawn.min()), pytest.approx(drawn.max()))
    assert opacity[drawn == drawn.max()].min() == opacity.max() < 1  # the spectrogram is still to be seen
    assert opacity[drawn == drawn.min()].max() == opacity.min() == 0


def test_silence_under_an_even_map_is_drawn_without_colour_or_warning(tmp_path):
    maps = made_maps(torch.full((1, 3, 4), 1 / 12), [4])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = plot_attention(np.zeros((46, 36)), maps, path=tmp_path / "a.png")
    assert figure.axes[0].images[1].get_alpha().max() == pytest.approx(0)


def test_a_map_that_is_almost_even_is_not_drawn_as_if_it_were_not():
    weights = torch.full((1, 3, 4), 1 / 12)
    weights[0, 1, 1] *= 1.001
    overlay = plot_attention(np.zeros((46, 36)), made_maps(weights, [4])).axes[0].images[1]
    assert 0 < overlay.get_alpha().max() < 0.05


def test_a_clip_shorter_than_its_only_patch_can_be_drawn():
    figure = plot_attention(np.zeros((9, 16)), made_maps(torch.ones(1, 1, 1), [1]))
    assert figure.axes[0].images[1].get_array().tolist() == np.ones((16, 9)).tolist()


def test_the_file_appears_whole_and_replaces_an_older_one(tmp_path):
    path = tmp_path / "map.png"
    path.write_text("an older picture")
    plot_attention(np.random.default_rng(0).normal(size=(56, 36)), made_maps(torch.rand(1, 3, 5), [5]), path=path)
    pixels = image.imread(path)
    assert pixels.shape[0] > 300
    assert len(np.unique(pixels.reshape(-1, pixels.shape[-1]), axis=0)) > 100  # neither blank nor one colour
    assert [found.name for found in tmp_path.iterdir()] == ["map.png"]


def test_a_file_that_cannot_be_written_leaves_the_older_one(tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    def half(self, file, **kwargs):
        file.write(b"half a picture")
        raise OSError("No space left on device")

    monkeypatch.setattr(Figure, "savefig", half)
    (tmp_path / "map.png").write_text("an older picture")
    with pytest.raises(OSError, match="No space left"):
        plot_attention(np.zeros((56, 36)), made_maps(torch.rand(1, 3, 5), [5]), path=str(tmp_path / "map.png"))
    assert (tmp_path / "map.png").read_text() == "an older picture"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("shape", [(45, 36), (46, 35), (1, 46, 36), (46,)])
def test_features_that_are_not_those_of_the_map(shape):
    message = r"log_mel has shape \(.*\), expected \(frames, mel bins\) with at least 46 frames and 36 bins"
    with pytest.raises(ValueError, match=message):
        plot_attention(np.zeros(shape), made_maps(torch.rand(1, 3, 5), [4]))


def test_a_clip_that_is_not_there():
    with pytest.raises(ValueError, match="clip=2, but there are 2. Pass a clip from 0 to 1"):
        plot_attention(np.zeros((56, 36)), made_maps(torch.rand(2, 3, 5), [5, 5]), clip=2)


def test_neither_pyplot_nor_before_drawing_matplotlib_is_imported():
    script = (
        "import sys, numpy, torch\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
        "drawing = [name for name in sys.modules if name.partition('.')[0] in ('modeling_ast', 'matplotlib')]\n"
        "taken = {name: sys.modules.pop(name) for name in drawing}\n"
        "from modeling_ast.attention_maps import AttentionMaps, plot_attention\n"
        "assert not any(name.startswith('matplotlib') for name in sys.modules)\n"
        "sys.modules |= {name: module for name, module in taken.items() if name.startswith('matplotlib')}\n"
        "ranges = torch.tensor([[0, 16]])\n"
        "maps = AttentionMaps(torch.ones(1, 1, 1), ranges, ranges, torch.tensor([1]), ranges, ranges, 16000)\n"
        "plot_attention(numpy.zeros((16, 16)), maps)\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    child = forked_python.run(["-c", script])
    assert child.returncode == 0, child.stderr

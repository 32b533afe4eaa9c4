"""Token merging against the paper's formulas written out with NumPy, and where it may not be."""

import json

import numpy as np
import pytest
import torch
from scipy.special import erf, softmax

from modeling_ast import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification, run_tagging
from modeling_ast.attention_maps import attention_maps
from modeling_ast.export_onnx import ExportError, checked_onnx

HEADS = 2


@pytest.fixture
def model(tiny_sizes) -> ASTForAudioClassification:
    """Of four layers, whose weights are large enough that its tokens differ."""
    torch.manual_seed(0)
    config = ASTConfig(**tiny_sizes | {"num_hidden_layers": 4, "initializer_range": 0.2}, num_labels=5)
    return ASTForAudioClassification(config).eval()


@pytest.fixture
def inputs() -> torch.Tensor:
    """96 frames: 12 x 9 patches and two class tokens."""
    return torch.from_numpy(np.random.default_rng(1).standard_normal((2, 96, 128), dtype=np.float32))


def match(keys: np.ndarray, r: int) -> dict[int, int]:
    """Bipartite soft matching, section 3 of the paper and its algorithm 1: by the tokens of set A that merge, those of B."""
    edges = []
    for a in range(2, len(keys), 2):  # 0 and 1 are the class tokens
        cosines = {
            b: keys[a] @ keys[b] / np.linalg.norm(keys[a]) / np.linalg.norm(keys[b]) for b in range(3, len(keys), 2)
        }
        if cosines:
            closest = max(cosines, key=cosines.get)
            edges.append((cosines[closest], a, closest))
    edges.sort(reverse=True)
    return {a: b for _, a, b in edges[: min(r, (len(keys) - 2) // 2)]}


def merged(tokens: np.ndarray, sizes: np.ndarray, members: list[list[int]], pairs: dict[int, int]):
    """Tokens of A that are left, then B, each with what was merged into it; class tokens first."""
    order = [0, 1, *(a for a in range(2, len(tokens), 2) if a not in pairs), *range(3, len(tokens), 2)]
    new = []
    for place in order:
        group = [place, *(a for a, b in pairs.items() if b == place)]
        size = sum(sizes[member] for member in group)
        mean = sum(sizes[member] * tokens[member] for member in group) / size
        new.append((mean, size, sum((members[member] for member in group), [])))
    means, sizes, members = zip(*new, strict=True)
    return np.array(means), np.array(sizes), list(members)


def written_out(model: ASTForAudioClassification, embeddings: torch.Tensor, r: int):
    """Logits of a clip, and its patches' vectors after the last layer, from the embeddings of its tokens."""
    weights = {name: value.double().numpy() for name, value in model.state_dict().items()}

    def linear(rows, name):
        return rows @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def norm(rows, name, eps):
        rows = (rows - rows.mean(-1, keepdims=True)) / np.sqrt(rows.var(-1, keepdims=True) + eps)
        return rows * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    tokens, eps = embeddings.double().numpy(), model.config.layer_norm_eps
    sizes, members = np.ones(len(tokens)), [[place] for place in range(len(tokens))]
    for number in range(model.config.num_hidden_layers):
        layer = f"audio_spectrogram_transformer.encoder.layer.{number}"
        normed = norm(tokens, f"{layer}.layernorm_before", eps)
        query, key, value = (
            linear(normed, f"{layer}.attention.attention.{name}").reshape(len(tokens), HEADS, -1).transpose(1, 0, 2)
            for name in ("query", "key", "value")
        )
        scores = query @ key.transpose(0, 2, 1) / np.sqrt(key.shape[-1]) + np.log(sizes)  # proportional attention
        context = (softmax(scores, axis=-1) @ value).transpose(1, 0, 2).reshape(len(tokens), -1)
        tokens = tokens + linear(context, f"{layer}.attention.output.dense")
        if number < model.config.num_hidden_layers - 1:
            tokens, sizes, members = merged(tokens, sizes, members, match(key.mean(axis=0), r))
        wide = linear(norm(tokens, f"{layer}.layernorm_after", eps), f"{layer}.intermediate.dense")
        tokens = tokens + linear(wide * (1 + erf(wide / np.sqrt(2))) / 2, f"{layer}.output.dense")
    tokens = norm(tokens, "audio_spectrogram_transformer.layernorm", eps)
    logits = linear(norm(tokens[:2].mean(axis=0), "classifier.layernorm", eps), "classifier.dense")
    spread = np.empty((len(embeddings), tokens.shape[1]))
    for token, group in zip(tokens, members, strict=True):
        spread[group] = token
    return logits, spread, len(tokens)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("r", [7, 40])
def test_it_is_the_papers(model, inputs, r, attention):
    """40 is more than half of what is left after a layer."""
    model.set_attn_implementation(attention)
    counts = []
    model.audio_spectrogram_transformer.encoder.layer[-1].register_forward_pre_hook(
        lambda module, given: counts.append(given[0].shape[1])
    )
    with torch.no_grad():
        plain, states = model(inputs).logits, model(inputs, output_hidden_states=True).hidden_states
        model.merge_tokens(r)
        found = model(inputs).logits
        whole = model.audio_spectrogram_transformer(inputs, output_hidden_states=True)
    assert len(whole.hidden_states) == len(states)
    assert {tokens.shape for tokens in whole.hidden_states} == {(2, 110, 32)}
    for clip in range(2):
        logits, patches, count = written_out(model, states[0][clip], r)
        # float32 against float64, through four layers of large weights
        np.testing.assert_allclose(found[clip], logits, atol=2e-4)
        np.testing.assert_allclose(whole.last_hidden_state[clip], patches, atol=2e-4)
        assert counts[-1] == count < 110
    assert (found - plain).abs().max() > 1e-3
    model.merge_tokens(0)
    with torch.no_grad():
        assert torch.equal(model(inputs).logits, plain)


def test_a_padded_clip_merges_what_it_would_alone(model, inputs):
    """Of one column, of an odd number of tokens and of few: none is merged with padding, nor others in its stead."""
    model.merge_tokens(13)
    lengths = [96, 16, 37, 75]
    batch = torch.from_numpy(np.random.default_rng(2).standard_normal((4, 96, 128), dtype=np.float32))
    mask = (torch.arange(96) < torch.tensor(lengths)[:, None]).long()
    # Patches that are kept make numbers of tokens odd, and the padding among them comes in between.
    kept = torch.stack([torch.arange(108)[torch.randperm(108, generator=torch.Generator().manual_seed(1))[:71]]] * 4)
    with torch.no_grad():
        for choice in (None, kept):
            together = model(batch, attention_mask=mask, patches_kept=choice).logits
            for row, length in enumerate(lengths):
                columns = (length - 16) // 10 + 1
                alone = None
                if choice is not None:
                    real = choice[row][choice[row] % 9 < columns]
                    alone = (real // 9 * columns + real % 9)[None]
                expected = model(batch[row : row + 1, :length], patches_kept=alone).logits[0]
                torch.testing.assert_close(together[row], expected, atol=2e-5, rtol=0)


def test_nothing_is_merged_in_training_or_saved(model, inputs, tmp_path):
    model.save_pretrained(tmp_path / "plain")
    loaded = ASTForAudioClassification.from_pretrained(tmp_path / "plain", tokens_merged_per_layer=9)
    assert (model.tokens_merged_per_layer, loaded.tokens_merged_per_layer) == (0, 9)
    assert torch.equal(loaded.train()(inputs).logits, model(inputs).logits)
    loaded.save_pretrained(tmp_path / "merging")
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / "merging" / name).read_bytes() == (tmp_path / "plain" / name).read_bytes()
    assert ASTForAudioClassification.from_pretrained(tmp_path / "merging").tokens_merged_per_layer == 0


def test_what_cannot_be_with_it_says_so(model, inputs):
    extractor = ASTFeatureExtractor(max_length=96)
    model.merge_tokens(4)
    with pytest.raises(ValueError, match=r"merged tokens have no weights of their own\. Call merge_tokens\(0\)"):
        model(inputs, output_attentions=True)
    with pytest.raises(ValueError, match="merges 4 tokens a layer, and a map is of single patches"):
        attention_maps(model, extractor, inputs)
    model.config._attn_implementation = "flex_attention"
    with pytest.raises(ValueError, match="flex_attention attention, which cannot count a token by its size"):
        model(inputs)
    model.config._attn_implementation = "sdpa"
    with pytest.raises(ExportError, match="merges 4 tokens a layer, which a graph"):
        checked_onnx(model, extractor)
    for wrong in (-1, 1.5, True, "4"):
        with pytest.raises(ValueError, match=r"is no number of tokens\. Pass a whole number from 0 on"):
            model.merge_tokens(wrong)
    assert model.embed(inputs).patch_grid.shape == (2, 12, 9, 32)


def test_ast_tag_merges(model, tmp_path, drum_rows, capsys):
    extractor = ASTFeatureExtractor(max_length=96)
    for part in (model, extractor):
        part.save_pretrained(tmp_path / "model")
    command = [
        drum_rows[0]["path"],
        "--model_name_or_path",
        str(tmp_path / "model"),
        "--format",
        "jsonl",
        "--device",
        "cpu",
    ]
    scores = []
    for flags in ([], ["--tokens_merged_per_layer", "20"]):
        assert run_tagging.main([*command, *flags]) == 0
        scores.append([row["score"] for row in json.loads(capsys.readouterr().out)["labels"]])
    assert np.abs(np.subtract(*scores)).max() > 1e-4

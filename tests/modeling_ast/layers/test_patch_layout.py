"""A part of the patches, and masked patches, against stock Transformers told to leave the other patches out of attention."""

import pytest
import torch
from model_runs import MEL_BINS, ROUNDING, assert_equal_gradients, gradients, make_inputs, run
from torch import nn
from transformers.models.audio_spectrogram_transformer import modeling_audio_spectrogram_transformer as stock

from modeling_ast import ASTFeatureExtractor, ASTModel
from modeling_ast.attention_maps import attention_maps
from modeling_ast.layers.patch_grid import patch_grid_of

GRID = (4, 9)  # of 48 mel bins and 96 frames
PATCHES = 36


def draw_kept(batch: int = 3, patches: int = PATCHES, kept: int = 7, seed: int = 0) -> torch.Tensor:
    """Other patches for each clip, in no order."""
    generator = torch.Generator().manual_seed(seed)
    return torch.stack([torch.randperm(patches, generator=generator)[:kept] for _ in range(batch)])


def draw_masked(batch: int = 3, patches: int = PATCHES) -> torch.Tensor:
    return torch.rand(batch, patches, generator=torch.Generator().manual_seed(5)) < 0.4


def draw_mask_embedding() -> torch.Tensor:
    return torch.randn(32, generator=torch.Generator().manual_seed(6))


def of_kept(tokens: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
    """The class tokens and the kept patches of all tokens."""
    return torch.stack([torch.cat((row[:2], row[2:][of_row])) for row, of_row in zip(tokens, kept, strict=True)])


@pytest.fixture
def theirs(make_model, tmp_path):
    make_model().save_pretrained(tmp_path)
    return stock.ASTForAudioClassification.from_pretrained(tmp_path, attn_implementation="eager").eval()


def test_the_grid_of_an_input(make_model):
    config = make_model().config
    assert patch_grid_of(config, 96) == config.patch_grid == GRID
    assert patch_grid_of(config, 200) == (4, 19)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_kept_patches_get_what_stock_transformers_gives_them_with_the_others_out_of_attention(
    make_model, theirs, attention
):
    model, inputs, kept = make_model(attn_implementation=attention), make_inputs(), draw_kept()
    attended = torch.zeros(3, 2 + PATCHES, dtype=torch.long)
    attended[:, :2] = 1
    attended[:, 2:].scatter_(1, kept, 1)
    with torch.no_grad():
        bare = theirs.audio_spectrogram_transformer(inputs["input_values"], attention_mask=attended)
        expected = theirs.classifier(bare.pooler_output)
        found = model.audio_spectrogram_transformer(inputs["input_values"], patches_kept=kept)
    assert found.last_hidden_state.shape == (3, 2 + 7, 32)
    torch.testing.assert_close(
        found.last_hidden_state, of_kept(bare.last_hidden_state, kept), atol=ROUNDING, rtol=ROUNDING
    )
    logits = run(model, inputs, patches_kept=kept).logits
    torch.testing.assert_close(logits, expected, atol=ROUNDING, rtol=ROUNDING)
    assert (logits - run(model, inputs).logits).abs().max() > 1e3 * ROUNDING, "the others would have mattered"


def test_masked_patches_get_what_stock_transformers_gives_embeddings_with_another_vector_in_their_place(
    make_model, theirs
):
    model, inputs, masked, vector = make_model(), make_inputs(), draw_masked(), draw_mask_embedding()
    bare = theirs.audio_spectrogram_transformer
    with torch.no_grad():
        expected = bare.embeddings(inputs["input_values"])
        positions = bare.embeddings.position_embeddings
        expected[:, 2:] = torch.where(masked[..., None], vector + positions[:, 2:], expected[:, 2:])
        for layer in bare.layers:
            expected = layer(expected)
        expected = theirs.classifier(bare.layernorm(expected)[:, :2].mean(dim=1))
    found = run(model, inputs, patches_masked=masked, mask_embedding=vector).logits
    torch.testing.assert_close(found, expected, atol=ROUNDING, rtol=ROUNDING)
    kept = draw_kept()
    both = run(
        model, inputs, patches_masked=masked, mask_embedding=vector, patches_kept=kept, output_hidden_states=True
    )
    whole = run(model, inputs, patches_masked=masked, mask_embedding=vector, output_hidden_states=True)
    assert torch.equal(both.hidden_states[0], of_kept(whole.hidden_states[0], kept)), "masked before they are dropped"


def test_a_patch_masked_with_its_own_projection_changes_nothing(make_model):
    model, values = make_model(ASTModel), make_inputs(batch=1)["input_values"]
    with torch.no_grad():
        own = model.embeddings.patch_embeddings(values).flatten(2)[0, :, 13]
    masked = torch.arange(PATCHES)[None] == 13
    expected = run(model, {"input_values": values}).last_hidden_state
    found = run(model, {"input_values": values}, patches_masked=masked, mask_embedding=own).last_hidden_state
    assert torch.equal(found, expected)


@pytest.mark.parametrize("lengths", [None, [200, 90, 31]])
def test_all_patches_kept_in_their_order_and_none_masked_change_no_bit(make_model, lengths):
    model, inputs = make_model(), make_inputs(200, lengths)
    patches = 4 * 19
    whole = {
        "patches_kept": torch.arange(patches).expand(3, -1),
        "patches_masked": torch.zeros(3, patches, dtype=torch.bool),
        "mask_embedding": draw_mask_embedding(),
    }
    assert_equal_gradients(gradients(model, inputs | whole), gradients(model, inputs))
    given = {name: value for name, value in inputs.items() if name != "labels"}
    for name, expected in model.embed(**given).items():
        assert torch.equal(model.embed(**given, **whole)[name], expected), name


def test_each_clip_of_a_padded_batch_gets_with_its_kept_patches_what_it_gets_alone(make_model):
    model, lengths, steps = make_model(), [200, 90, 31], 19
    inputs = make_inputs(200, lengths)
    kept = draw_kept(patches=4 * steps, kept=40)
    together = run(model, inputs, patches_kept=kept).logits
    for clip, length in enumerate(lengths):
        frequency, time = kept[clip] // steps, kept[clip] % steps
        own_steps = (length - 16) // 10 + 1
        own = (frequency * own_steps + time)[time < own_steps]  # the others are of its padding
        assert 0 < len(own) <= 40
        assert (len(own) == 40) == (clip == 0)
        alone = run(model, {"input_values": inputs["input_values"][clip : clip + 1, :length]}, patches_kept=own[None])
        assert (together[clip] - alone.logits[0]).abs().max() < ROUNDING


def test_dropped_patches_are_not_computed(make_model):
    model, tokens = make_model(ASTModel).train(), []
    for linear in (module for module in model.encoder.modules() if isinstance(module, nn.Linear)):
        linear.register_forward_pre_hook(lambda _, given: tokens.append(given[0].shape[1]))
    run(model, {"input_values": make_inputs()["input_values"]}, patches_kept=draw_kept())
    assert tokens == [2 + 7] * 6 * model.config.num_hidden_layers


def test_gradients_reach_the_mask_embedding_and_are_those_of_gradient_checkpointing(make_model):
    found = []
    for checkpointed in (False, True):
        model, vector = make_model(hidden_dropout_prob=0.1).train(), draw_mask_embedding().requires_grad_()
        if checkpointed:
            model.activation_checkpointing_enable()
        part = {"patches_kept": draw_kept(), "patches_masked": draw_masked(), "mask_embedding": vector}
        found.append(gradients(model, make_inputs(96, [96, 50, 40]) | part) | {"mask_embedding": vector.grad})
    assert_equal_gradients(found[1], found[0])
    assert found[0]["mask_embedding"].all()


def test_a_mask_embedding_is_taken_in_the_dtype_of_the_model(make_model):
    model = make_model().bfloat16()
    found = run(model, make_inputs(), patches_masked=draw_masked(), mask_embedding=draw_mask_embedding()).logits
    assert found.dtype is torch.bfloat16


def test_embeddings_of_seconds_are_means_of_the_kept_patches_of_a_clip(make_model):
    model, inputs = make_model(), make_inputs(250, [250, 250, 170])
    del inputs["labels"]
    steps = 24
    kept = draw_kept(patches=4 * steps, kept=6)  # in no second as many as the grid has rows
    later = torch.tensor([row * steps + step for row in range(4) for step in range(10, steps)])
    kept[1] = later[kept[1].argsort()]  # nothing of the first second
    embedding = model.embed(**inputs, patches_kept=kept)
    tokens = run(model.audio_spectrogram_transformer, inputs, patches_kept=kept).last_hidden_state
    assert embedding.patch_grid.shape == (3, 4, steps, 32)
    for clip in range(3):
        seen = set()
        for token, patch in zip(tokens[clip, 2:], kept[clip].tolist(), strict=True):
            row, step = divmod(patch, steps)
            if clip == 2 and step > 15:  # 16 time patches have no padding
                continue
            seen.add((row, step))
            torch.testing.assert_close(embedding.patch_grid[clip, row, step], token)
        assert embedding.patch_grid[clip].abs().sum(dim=-1).count_nonzero() == len(seen)
        for second in range(3):  # middles lie at 8, 18, 28 ... frames of 10 ms
            patches = [embedding.patch_grid[clip, row, step] for row, step in seen if step // 10 == second]
            assert embedding.second_mask[clip, second] == bool(patches)
            mean = torch.stack(patches).mean(dim=0) if patches else torch.zeros(32)
            torch.testing.assert_close(embedding.per_second[clip, second], mean, atol=ROUNDING, rtol=ROUNDING)
    assert not embedding.second_mask[1, 0]
    assert not embedding.second_mask[2, 2]


@pytest.mark.parametrize("layer", [None, 0])
def test_attention_maps_of_a_part_lie_on_the_whole_grid(make_model, layer):
    model, inputs, kept = make_model(), make_inputs(96, [96, 96, 60]), draw_kept(kept=16)
    del inputs["labels"]
    part = {"patches_kept": kept, "patches_masked": draw_masked(), "mask_embedding": draw_mask_embedding()}
    weights = attention_maps(model, ASTFeatureExtractor(num_mel_bins=MEL_BINS), **inputs, **part, layer=layer).weights
    attentions = [of_layer.mean(dim=1) for of_layer in run(model, inputs, **part, output_attentions=True).attentions]
    rollout = torch.eye(2 + 16)
    for attention in attentions:
        rollout = (attention + torch.eye(2 + 16)) / 2 @ rollout
    expected = (attentions[0] if layer == 0 else rollout)[:, :2, 2:].mean(dim=1)
    expected = expected / expected.sum(dim=1, keepdim=True)
    assert weights.shape == (3, *GRID)
    for clip in range(3):
        torch.testing.assert_close(weights[clip].flatten()[kept[clip]], expected[clip], atol=ROUNDING, rtol=ROUNDING)
        assert weights[clip].count_nonzero() <= 16
    assert not weights[2, :, 5:].any(), "padding"


def test_there_is_no_map_of_padding(make_model):
    inputs = make_inputs(96, [96, 96, 40])
    kept = torch.tensor([[0], [1], [8]])
    with pytest.raises(ValueError, match="nothing but padding of clip 2.*Keep a patch of each clip"):
        attention_maps(
            make_model(),
            ASTFeatureExtractor(num_mel_bins=MEL_BINS),
            inputs["input_values"],
            inputs["attention_mask"],
            patches_kept=kept,
        )


def test_one_compiled_graph_serves_any_part_of_clips_of_any_length(make_model, graphs):
    model = make_model()
    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend="eager")
    for frames, lengths, kept in ((96, [96, 50], 5), (307, [306, 120, 50], 60)):
        inputs, patches = make_inputs(frames, lengths, batch=len(lengths)), 4 * ((frames - 16) // 10 + 1)
        part = {
            "patches_kept": draw_kept(len(lengths), patches, kept),
            "patches_masked": draw_masked(len(lengths), patches),
            "mask_embedding": draw_mask_embedding(),
        }
        found, expected = (run(runner, inputs, **part).logits for runner in (compiled, model))
        torch.testing.assert_close(found, expected, atol=ROUNDING, rtol=ROUNDING)
    assert graphs() == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"patches_kept": torch.zeros(3, 1)},
            r"shape \(3, 1\) and dtype torch.float32, expected \(3, kept\) and torch.int64",
        ),
        ({"patches_kept": torch.arange(4)}, r"patches_kept has shape \(4,\)"),
        ({"patches_kept": draw_kept(2)}, r"patches_kept has shape \(2, 7\).*expected \(3, kept\)"),
        ({"patches_kept": draw_kept(kept=0)}, "patches_kept has 0 patches for each clip, expected 1 to 36"),
        ({"patches_kept": draw_kept(patches=40, kept=40)}, "has 40 patches.*the input has 4 x 9 = 36 patches"),
        ({"patches_kept": draw_kept() + 30}, "names patch 3[6-9], but.*Pass numbers from 0 to 35"),
        ({"patches_kept": draw_kept() - 36}, "names patch -"),
        ({"patches_kept": torch.tensor([[1, 2, 3], [4, 5, 4], [7, 8, 9]])}, "names patch 4 of clip 1 twice"),
        ({"patches_masked": draw_masked()}, "patches_masked is given without mask_embedding"),
        ({"mask_embedding": draw_mask_embedding()}, "mask_embedding is given without patches_masked"),
        (
            {"patches_masked": draw_masked().long(), "mask_embedding": draw_mask_embedding()},
            r"dtype torch.int64, expected \(3, 36\) and torch.bool",
        ),
        (
            {"patches_masked": draw_masked(patches=35), "mask_embedding": draw_mask_embedding()},
            r"patches_masked has shape \(3, 35\)",
        ),
        (
            {"patches_masked": draw_masked(), "mask_embedding": torch.zeros(1, 32)},
            r"mask_embedding has shape \(1, 32\), expected \(32,\)",
        ),
    ],
)
def test_patches_that_do_not_fit_are_refused_in_words(make_model, change, message):
    with pytest.raises(ValueError, match=message):
        run(make_model(), make_inputs(), **change)


def test_numbers_that_are_no_tensor_are_refused_in_words(make_model):
    with pytest.raises(
        TypeError, match=r"patches_kept is a list, expected a torch.Tensor. Pass torch.as_tensor of it"
    ):
        run(make_model(), make_inputs(), patches_kept=draw_kept().tolist())

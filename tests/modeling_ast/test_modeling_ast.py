"""The model against stock Transformers: same logits, same files, and errors where the stock class only warns."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers.models.audio_spectrogram_transformer import modeling_audio_spectrogram_transformer as stock
from transformers.models.audio_spectrogram_transformer.configuration_audio_spectrogram_transformer import (
    ASTConfig as StockConfig,
)

from modeling_ast import ASTConfig, ASTForAudioClassification, ASTModel
from modeling_ast.modeling_ast import classification_loss

LOGITS_TOLERANCE = 1e-5  # float32 rounding; both compute the same operations


@pytest.fixture
def stock_folder(tiny_sizes, tmp_path):
    torch.manual_seed(0)
    stock.ASTForAudioClassification(StockConfig(**tiny_sizes, num_labels=5)).save_pretrained(tmp_path / "stock")
    # The stock class starts tokens and positions as zeros, which would hide a mix-up between them.
    weights = load_file(tmp_path / "stock" / "model.safetensors")
    generator = torch.Generator().manual_seed(1)
    weights = {name: torch.randn(value.shape, generator=generator) * 0.2 for name, value in weights.items()}
    save_file(weights, tmp_path / "stock" / "model.safetensors", metadata={"format": "pt"})
    return tmp_path / "stock"


@pytest.fixture
def inputs():
    return torch.randn(3, 96, 128, generator=torch.Generator().manual_seed(2))


# Transformers compiles it, for many seconds.
FLEX_ATTENTION = pytest.param("flex_attention", marks=pytest.mark.long)


@pytest.mark.parametrize("implementation", ["eager", "sdpa", FLEX_ATTENTION])
def test_logits_equal_stock_transformers(stock_folder, inputs, implementation):
    theirs = stock.ASTForAudioClassification.from_pretrained(stock_folder, attn_implementation="eager").eval()
    ours = ASTForAudioClassification.from_pretrained(stock_folder, attn_implementation=implementation).eval()
    with torch.no_grad():
        difference = (ours(inputs).logits - theirs(inputs).logits).abs().max()
    assert difference < LOGITS_TOLERANCE


def test_flash_attention_is_declared():
    assert ASTModel._supports_flash_attn


def test_what_is_saved_here_loads_in_stock_transformers(stock_folder, inputs, tmp_path):
    ours = ASTForAudioClassification.from_pretrained(stock_folder).eval()
    ours.save_pretrained(tmp_path / "ours")
    theirs, loading_info = stock.ASTForAudioClassification.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not loading_info["missing_keys"]
    assert not loading_info["unexpected_keys"]
    with torch.no_grad():
        assert (ours(inputs).logits - theirs.eval()(inputs).logits).abs().max() < LOGITS_TOLERANCE


def test_every_tensor_survives_saving_and_loading_bit_for_bit(stock_folder, tmp_path):
    before = load_file(stock_folder / "model.safetensors")
    ASTForAudioClassification.from_pretrained(stock_folder).save_pretrained(tmp_path / "again")
    after = load_file(tmp_path / "again" / "model.safetensors")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    loaded = ASTForAudioClassification.from_pretrained(tmp_path / "again").state_dict()
    assert loaded.keys() == before.keys(), "parameter names in memory are the Hub's"
    assert all(torch.equal(before[name], loaded[name]) for name in before)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda weights: weights.pop("audio_spectrogram_transformer.layernorm.bias"), "layernorm.bias is missing"),
        (lambda weights: weights.pop("classifier.dense.bias"), "classifier.dense.bias is missing"),
        (lambda weights: weights.update(extra=torch.zeros(2)), "extra is not part of the model"),
        (
            lambda weights: weights.update({"audio_spectrogram_transformer.layernorm.bias": torch.zeros(7)}),
            r"layernorm.bias has shape \(7,\), the configuration needs \(32,\)",
        ),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_an_error(stock_folder, change, message):
    weights = load_file(stock_folder / "model.safetensors")
    change(weights)
    save_file(weights, stock_folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=message):
        ASTForAudioClassification.from_pretrained(stock_folder)


def test_positions_that_do_not_fit_the_configuration_are_an_error_even_if_mismatches_are_ignored(stock_folder):
    config = json.loads((stock_folder / "config.json").read_text())
    (stock_folder / "config.json").write_text(json.dumps(config | {"max_length": 200}))
    with pytest.raises(ValueError, match="position_embeddings has shape.*config.json and the weights belong together"):
        ASTForAudioClassification.from_pretrained(stock_folder, ignore_mismatched_sizes=True)


def test_a_new_classifier_has_to_be_asked_for(stock_folder):
    config = json.loads((stock_folder / "config.json").read_text())
    config["id2label"], config["label2id"] = {"0": "a", "1": "b"}, {"a": 0, "b": 1}
    (stock_folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="pass num_labels"):
        ASTForAudioClassification.from_pretrained(stock_folder)
    model = ASTForAudioClassification.from_pretrained(stock_folder, num_labels=2)
    kept = load_file(stock_folder / "model.safetensors")
    assert model.classifier.dense.weight.shape == (2, 32)
    body = model.audio_spectrogram_transformer.state_dict(prefix="audio_spectrogram_transformer.")
    assert all(torch.equal(kept[name], value) for name, value in body.items())


def test_the_bare_model_loads_from_a_classification_checkpoint_and_back(stock_folder, inputs, tmp_path):
    bare = ASTModel.from_pretrained(stock_folder).eval()
    whole = ASTForAudioClassification.from_pretrained(stock_folder).eval()
    with torch.no_grad():
        pooled = bare(inputs).pooler_output
        assert torch.equal(pooled, whole.audio_spectrogram_transformer(inputs).pooler_output)
    bare.save_pretrained(tmp_path / "bare")
    _, loading_info = ASTForAudioClassification.from_pretrained(tmp_path / "bare", output_loading_info=True)
    assert all(name.startswith("classifier.") for name in loading_info["missing_keys"])


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_attentions_and_hidden_states_equal_stock_transformers(stock_folder, inputs, implementation):
    theirs = stock.ASTForAudioClassification.from_pretrained(stock_folder, attn_implementation="eager").eval()
    ours = ASTForAudioClassification.from_pretrained(stock_folder, attn_implementation=implementation).eval()
    with torch.no_grad():
        expected = theirs(inputs, output_attentions=True, output_hidden_states=True)
        outputs = ours(inputs, output_attentions=True, output_hidden_states=True)
    for kind in ("attentions", "hidden_states"):
        assert len(outputs[kind]) == len(expected[kind])
        for ours_of_layer, theirs_of_layer in zip(outputs[kind], expected[kind], strict=True):
            torch.testing.assert_close(ours_of_layer, theirs_of_layer, atol=LOGITS_TOLERANCE, rtol=1e-4)
    assert isinstance(ours(inputs, return_dict=False), tuple)


@torch.no_grad()
def test_a_configuration_that_asks_for_tuples(stock_folder, inputs):
    expected = ASTForAudioClassification.from_pretrained(stock_folder).eval()(inputs).logits
    model = ASTForAudioClassification.from_pretrained(stock_folder, return_dict=False).eval()
    (logits,) = model(inputs)
    assert torch.equal(logits, expected)
    assert len(model.embed(inputs).class_token_mean) == len(inputs)


def test_gradient_checkpointing_changes_memory_and_not_gradients(stock_folder, inputs):
    gradients = []
    for checkpointing in (False, True):
        model = ASTForAudioClassification.from_pretrained(stock_folder).train()
        if checkpointing:
            model.gradient_checkpointing_enable()
            assert all(layer.gradient_checkpointing for layer in model.audio_spectrogram_transformer.encoder.layer)
        model(inputs, labels=torch.tensor([0, 1, 2])).loss.backward()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, msg=name)


@pytest.mark.parametrize("implementation", ["eager", "sdpa", FLEX_ATTENTION])
@pytest.mark.parametrize("output_attentions", [False, True])
def test_a_padded_clip_in_a_batch_gets_the_logits_it_gets_alone(
    stock_folder, inputs, implementation, output_attentions
):
    model = ASTForAudioClassification.from_pretrained(stock_folder, attn_implementation=implementation).eval()
    longer = torch.cat((inputs, inputs), dim=1)  # 192 frames, twice what the model was trained for
    lengths = [192, 50, 7]  # 7 frames are padded to one patch
    mask = torch.arange(192) < torch.tensor(lengths)[:, None]
    with torch.no_grad():
        together = model(longer, attention_mask=mask, output_attentions=output_attentions).logits
        for row, length in enumerate(lengths):
            alone = model(longer[row : row + 1, : max(length, 16)]).logits
            assert (together[row] - alone[0]).abs().max() < LOGITS_TOLERANCE


@pytest.mark.parametrize(
    ("shape", "mask_shape", "message"),
    [
        ((2, 96, 64), None, r"expected \(batch, frames, 128\)"),
        ((2, 15, 128), None, "a patch needs 16"),
        ((2, 96, 128), (2, 74), "one entry per frame"),
    ],
)
def test_wrong_shapes_are_refused_in_words(tiny_sizes, shape, mask_shape, message):
    model = ASTModel(ASTConfig(**tiny_sizes))
    mask = None if mask_shape is None else torch.ones(mask_shape)
    with pytest.raises(ValueError, match=message):
        model(torch.zeros(shape), attention_mask=mask)


def test_a_model_in_half_precision_takes_float32_features(tiny_sizes, inputs):
    model = ASTForAudioClassification(ASTConfig(**tiny_sizes)).to(torch.bfloat16)
    assert model(inputs).logits.dtype is torch.bfloat16


def test_initial_class_tokens_differ_and_positions_are_not_zero(tiny_sizes):
    embeddings = ASTModel(ASTConfig(**tiny_sizes)).embeddings
    assert not torch.equal(embeddings.cls_token, embeddings.distillation_token)
    # 0.02 is timm's; 110 x 32 draws of it, so within 5 % of it
    assert embeddings.position_embeddings.std().item() == pytest.approx(0.02, rel=0.05)


@pytest.mark.parametrize(
    ("problem_type", "labels"),
    [
        ("single_label_classification", torch.tensor([1, 0, 4])),
        ("multi_label_classification", torch.tensor([[1.0, 0, 1, 0, 0], [0, 0, 0, 0, 0], [0, 1, 0, 0, 0]])),
        ("regression", torch.randn(3, 5, generator=torch.Generator().manual_seed(3))),
    ],
)
def test_losses_equal_stock_transformers(stock_folder, inputs, problem_type, labels):
    theirs = stock.ASTForAudioClassification.from_pretrained(stock_folder, problem_type=problem_type).eval()
    ours = ASTForAudioClassification.from_pretrained(stock_folder, problem_type=problem_type).eval()
    loss = ours(inputs, labels=labels).loss
    assert loss.item() == pytest.approx(theirs(inputs, labels=labels).loss.item(), abs=1e-6)
    if problem_type == "multi_label_classification":  # integer multi-hot, over which the stock loss fails
        assert torch.equal(ours(inputs, labels=labels.long()).loss, loss)


def test_mixed_labels_give_soft_cross_entropy():
    logits = torch.randn(2, 3, generator=torch.Generator().manual_seed(4))
    mixed = torch.tensor([[0.6, 0.4, 0.0], [0.0, 0.0, 1.0]])
    by_hand = -(mixed * logits.log_softmax(dim=1)).sum(dim=1).mean()
    torch.testing.assert_close(classification_loss(logits, mixed, "single_label_classification"), by_hand)


@pytest.mark.parametrize(
    ("problem_type", "labels"),
    [
        ("single_label_classification", torch.zeros(2, 3, dtype=torch.long)),
        ("single_label_classification", torch.zeros(2)),
        ("multi_label_classification", torch.zeros(2, dtype=torch.long)),
        ("regression", torch.zeros(2)),
    ],
)
def test_labels_of_the_wrong_kind_are_refused(problem_type, labels):
    with pytest.raises(ValueError, match=f"do not fit problem_type='{problem_type}', expected"):
        classification_loss(torch.zeros(2, 3), labels, problem_type)


def test_the_loss_of_half_precision_logits_is_computed_in_float32():
    logits = torch.randn(2, 3, generator=torch.Generator().manual_seed(6)).bfloat16()
    loss = classification_loss(logits, torch.tensor([1, 2]), "single_label_classification")
    assert loss.dtype is torch.float32


@pytest.mark.parametrize(
    ("labels", "problem_type"),
    [
        (torch.tensor([1, 2]), "single_label_classification"),
        (torch.eye(2, 3), "multi_label_classification"),
    ],
)
def test_without_a_problem_type_it_is_told_from_the_labels(labels, problem_type):
    logits = torch.randn(2, 3, generator=torch.Generator().manual_seed(5))
    assert torch.equal(classification_loss(logits, labels, None), classification_loss(logits, labels, problem_type))


def test_audioset_labels_without_a_problem_type_are_multi_label():
    names = {index: f"sound {index}" for index in range(527)}
    audioset = names | {0: "Speech", 526: "Field recording"}
    assert ASTConfig(id2label=audioset).problem_type == "multi_label_classification"
    assert ASTConfig(id2label=audioset, problem_type="regression").problem_type == "regression"
    assert ASTConfig(id2label=names).problem_type is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"num_attention_heads": 5}, "not a multiple"), ({"max_length": 10}, "less than one patch")],
)
def test_a_configuration_that_makes_no_model_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        ASTConfig(**settings)


def test_the_classifier_may_have_an_epsilon_of_its_own(tiny_sizes):
    model = ASTForAudioClassification(ASTConfig(**tiny_sizes, classifier_layer_norm_eps=1e-5, layer_norm_eps=1e-6))
    assert model.classifier.layernorm.eps == 1e-5
    assert model.audio_spectrogram_transformer.layernorm.eps == 1e-6


def test_reset_classifier_leaves_the_transformer_alone(tiny_sizes):
    model = ASTForAudioClassification(ASTConfig(**tiny_sizes, num_labels=3))
    torch.nn.init.constant_(model.classifier.dense.bias, 1.0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.reset_classifier()
    changed = {name for name, value in model.state_dict().items() if not torch.equal(before[name], value)}
    assert changed == {"classifier.dense.weight", "classifier.dense.bias"}


def test_embeddings_of_a_mixed_batch(tiny_sizes):
    model = ASTForAudioClassification(ASTConfig(**tiny_sizes | {"max_length": 200})).eval()
    generator = torch.Generator().manual_seed(3)
    inputs = torch.randn(2, 350, 128, generator=generator)
    mask = torch.arange(350) < torch.tensor([350, 140])[:, None]
    with torch.no_grad():
        embedding = model.embed(inputs, attention_mask=mask)
        alone = model.embed(inputs[1:, :140])
        tokens = model.audio_spectrogram_transformer(inputs, attention_mask=mask).last_hidden_state
    torch.testing.assert_close(embedding.class_token_mean, tokens[:, :2].mean(dim=1))
    frequency, time = 12, 34  # (128 - 16) / 10 + 1 and (350 - 16) / 10 + 1
    assert embedding.patch_grid.shape == (2, frequency, time, 32)
    torch.testing.assert_close(embedding.patch_grid[0], tokens[0, 2:].view(frequency, time, 32))
    assert embedding.time_mask.sum(dim=1).tolist() == [34, 13]
    assert not embedding.patch_grid[1, :, 13:].any()
    # Middles of the patches lie at 8, 18, 28 ... frames of 10 ms: ten in each second, of the last second four.
    assert embedding.per_second.shape == (2, 4, 32)
    assert embedding.second_mask.tolist() == [[True] * 4, [True, True, False, False]]
    for second, patches in enumerate((slice(0, 10), slice(10, 20), slice(20, 30), slice(30, 34))):
        torch.testing.assert_close(
            embedding.per_second[0, second], embedding.patch_grid[0, :, patches].mean(dim=(0, 1))
        )
    torch.testing.assert_close(embedding.per_second[1, 1], embedding.patch_grid[1, :, 10:13].mean(dim=(0, 1)))
    assert not embedding.per_second[1, 2:].any()
    for name in ("class_token_mean", "per_second"):  # the seconds after the clip's end aside
        torch.testing.assert_close(embedding[name][1:, : alone[name].shape[1]], alone[name], atol=1e-5, rtol=1e-4)


def test_embeddings_become_arrays_without_ado(tiny_sizes):
    model = ASTForAudioClassification(ASTConfig(**tiny_sizes))
    embedding = model.embed(torch.randn(2, 350, 128))
    assert [vectors.numpy().shape[0] for vectors in embedding.values()] == [2] * 5
    assert torch.nn.Linear(32, 1)(embedding.class_token_mean).requires_grad, (
        "a classifier of one's own may be trained on them"
    )

"""The frame head against stock Transformers' encoder and NumPy: logits, loss, loading from and as other checkpoints."""

import logging

import numpy as np
import pytest
import torch
from model_runs import MEL_BINS, NUM_LABELS, ROUNDING, make_inputs, run, same_weights
from safetensors.torch import save_file
from transformers import ASTForAudioClassification as StockClassifier
from transformers import ASTModel as StockModel
from transformers import AutoModelForAudioFrameClassification, pipeline

from modeling_ast import (
    ASTFeatureExtractor,
    ASTForAudioClassification,
    ASTForAudioFrameClassification,
    ASTForMaskedSpectrogramModeling,
    ASTModel,
    register,
    unregister,
)
from modeling_ast.checkpoints.fields import PipelineCheckpointError

ROWS, COLUMNS = 4, 9  # patches of 48 mel bins and 96 frames


@pytest.fixture
def model(make_model):
    return make_model(ASTForAudioFrameClassification)


@pytest.fixture
def checkpoint(model, tmp_path):
    model.save_pretrained(tmp_path)
    return tmp_path


def in_numpy(model, tokens: np.ndarray, kept: list[int] | None = None) -> np.ndarray:
    """Logits of `(columns, labels)` of the hidden states of one clip, written down anew."""
    weights = {name: tensor.double().numpy() for name, tensor in model.frame_classifier.state_dict().items()}
    places = range(ROWS * COLUMNS) if kept is None else kept
    logits = []
    for column in range(COLUMNS):
        of_column = [tokens[2 + number] for number, place in enumerate(places) if place % COLUMNS == column]
        pooled = np.mean(of_column, axis=0) if of_column else np.zeros(tokens.shape[1])
        normed = (pooled - pooled.mean()) / np.sqrt(pooled.var() + model.config.layer_norm_eps)
        normed = normed * weights["layernorm.weight"] + weights["layernorm.bias"]
        logits.append(normed @ weights["dense.weight"].T + weights["dense.bias"])
    return np.stack(logits)


def bce(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    probabilities = 1 / (1 + np.exp(-logits))
    return -(labels * np.log(probabilities) + (1 - labels) * np.log(1 - probabilities))


def test_logits_are_those_of_the_mean_over_frequency_of_stock_hidden_states(model, checkpoint):
    inputs = make_inputs()["input_values"]
    outputs = run(model, {"input_values": inputs})
    with torch.no_grad():
        tokens = StockModel.from_pretrained(checkpoint)(inputs).last_hidden_state.double().numpy()
    expected = np.stack([in_numpy(model, of_clip) for of_clip in tokens])
    assert outputs.logits.shape == (3, COLUMNS, NUM_LABELS)
    assert outputs.frame_mask.all()
    np.testing.assert_allclose(outputs.logits.numpy(), expected, atol=ROUNDING * np.abs(expected).max())


def test_a_padded_clip_gets_the_logits_that_it_gets_alone(model):
    lengths = [96, 51, 7]  # 9, 4 and 1 columns
    inputs = make_inputs(lengths=lengths)
    outputs = run(model, {name: inputs[name] for name in ("input_values", "attention_mask")})
    assert outputs.frame_mask.sum(dim=1).tolist() == [9, 4, 1]
    for clip, frames in enumerate(lengths):
        alone = run(model, {"input_values": inputs["input_values"][clip : clip + 1, : max(frames, 16)]}).logits[0]
        torch.testing.assert_close(outputs.logits[clip, : len(alone)], alone, atol=2e-5, rtol=1e-5)
    of_padding = outputs.logits[~outputs.frame_mask]
    of_nothing = model.frame_classifier(torch.zeros(1, model.config.hidden_size)).detach()
    torch.testing.assert_close(of_padding, of_nothing.expand(len(of_padding), -1))


def test_left_out_patches_are_in_no_mean_and_empty_columns_do_not_count(model):
    kept = [3, 20, 12, 0, 35, 8, 17]  # none of columns 1, 4, 5, 6 and 7
    inputs = {"input_values": make_inputs(batch=1)["input_values"], "patches_kept": torch.tensor([kept])}
    outputs = run(model, inputs)
    with torch.no_grad():
        tokens = model.audio_spectrogram_transformer(**inputs).last_hidden_state[0].double().numpy()
    expected = in_numpy(model, tokens, kept)
    there = sorted({place % COLUMNS for place in kept})
    assert outputs.frame_mask[0].nonzero().ravel().tolist() == there
    np.testing.assert_allclose(outputs.logits[0].numpy()[there], expected[there], atol=1e-4)
    labels = torch.ones(1, COLUMNS, NUM_LABELS)
    loss = run(model, inputs | {"labels": labels}).loss.item()
    assert loss == pytest.approx(bce(expected[there], 1.0).mean(), rel=1e-5)


def test_the_loss_is_binary_cross_entropy_of_what_counts(model):
    inputs = make_inputs(lengths=[96, 51, 30])
    inputs["labels"] = torch.rand(3, COLUMNS, NUM_LABELS, generator=torch.Generator().manual_seed(2))
    inputs["labels"][0, 2] = -100
    inputs["labels"][1, 1, 3] = -100
    outputs = run(model, inputs)
    logits, labels = outputs.logits.double().numpy(), inputs["labels"].double().numpy()
    terms = [
        bce(logits[clip, column, label], labels[clip, column, label])
        for clip, columns in enumerate((9, 4, 2))
        for column in range(columns)
        for label in range(NUM_LABELS)
        if labels[clip, column, label] >= 0
    ]
    assert len(terms) == 15 * NUM_LABELS - NUM_LABELS - 1
    assert outputs.loss.item() == pytest.approx(np.mean(terms), rel=1e-5)
    nothing = inputs | {"labels": torch.full((3, COLUMNS, NUM_LABELS), -100)}
    assert run(model, nothing).loss == 0


def test_class_ids_and_integer_vectors_are_taken_as_in_the_library(model):
    inputs = {"input_values": make_inputs()["input_values"]}
    ids = torch.randint(NUM_LABELS, (3, COLUMNS), generator=torch.Generator().manual_seed(3))
    one_hot = torch.nn.functional.one_hot(ids, NUM_LABELS)
    of_vectors = run(model, inputs | {"labels": one_hot}).loss
    assert torch.equal(run(model, inputs | {"labels": ids}).loss, of_vectors)
    assert torch.equal(run(model, inputs | {"labels": one_hot.float()}).loss, of_vectors)
    ids[:, 4] = -100
    masked = one_hot.float()
    masked[:, 4] = -100
    assert torch.equal(run(model, inputs | {"labels": ids}).loss, run(model, inputs | {"labels": masked}).loss)


@pytest.mark.parametrize("shape", [(3,), (3, 8, NUM_LABELS), (3, COLUMNS, 2)])
def test_labels_of_other_shapes_are_refused(model, shape):
    inputs = make_inputs() | {"labels": torch.zeros(shape)}
    with pytest.raises(ValueError, match=r"expected that shape, or integer indices of shape \(3, 9\)"):
        model(**inputs)


def test_every_weight_learns(model):
    inputs = make_inputs(lengths=[96, 51, 30])
    inputs["labels"] = torch.zeros(3, COLUMNS, NUM_LABELS)
    model(**inputs).loss.backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
    assert not [name for name, parameter in model.named_parameters() if not parameter.grad.abs().sum()]


def test_merged_tokens_keep_the_shape_and_nearly_the_logits(model):
    inputs = {"input_values": make_inputs()["input_values"]}
    plain = run(model, inputs).logits
    model.merge_tokens(4)
    merged = run(model, inputs).logits
    assert merged.shape == plain.shape
    assert not torch.equal(merged, plain)
    # All patches of all columns merged into few: still far nearer to their own columns than to others.
    assert torch.nn.functional.cosine_similarity(merged, plain, dim=-1).median() > 0.9


def test_it_is_saved_and_loaded_as_it_is(model, checkpoint):
    again, info = ASTForAudioFrameClassification.from_pretrained(checkpoint, output_loading_info=True)
    assert same_weights(model, again)
    assert not any(info.values())
    assert again.config.architectures == ["ASTForAudioFrameClassification"]
    assert again.config.problem_type == "multi_label_classification"
    assert sorted(path.name for path in checkpoint.iterdir()) == ["config.json", "model.safetensors"]


def test_other_models_take_its_encoder_and_stock_transformers_too(model, checkpoint, caplog):
    inputs = {"input_values": make_inputs()["input_values"]}
    expected = run(model.audio_spectrogram_transformer, inputs).pooler_output
    heads = [ASTModel, ASTForAudioClassification, ASTForMaskedSpectrogramModeling, StockModel, StockClassifier]
    for model_class in heads:
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            loaded = model_class.from_pretrained(checkpoint).eval()
        encoder = getattr(loaded, "audio_spectrogram_transformer", loaded)
        torch.testing.assert_close(run(encoder, inputs).pooler_output, expected, atol=1e-5, rtol=0)
        if model_class is ASTForAudioClassification:
            assert "has a frame head, which is left out, and no classifier of clips: that is new" in caplog.text


def test_a_clip_checkpoint_gives_its_encoder_and_says_that_the_head_is_new(make_model, tmp_path, caplog):
    clips = make_model(problem_type="single_label_classification")
    clips.config.label_thresholds = {"LABEL_1": 0.2}
    clips.save_pretrained(tmp_path)
    with caplog.at_level(logging.WARNING):
        model = ASTForAudioFrameClassification.from_pretrained(tmp_path)
    assert f"The frame head is new, {tmp_path} has none" in caplog.text
    assert same_weights(clips.audio_spectrogram_transformer, model.audio_spectrogram_transformer)
    assert not torch.equal(model.frame_classifier.dense.weight, clips.classifier.dense.weight)
    assert model.config.id2label == clips.config.id2label
    assert (model.config.problem_type, model.config.label_thresholds) == ("multi_label_classification", None)
    two = ASTForAudioFrameClassification.from_pretrained(tmp_path, id2label={0: "a", 1: "b"}, max_length=60)
    assert run(two, {"input_values": torch.zeros(1, 60, MEL_BINS)}).logits.shape == (1, 5, 2)
    assert two.config.problem_type == "multi_label_classification"


def test_other_labels_get_a_new_head_and_the_same_ones_keep_it(model, checkpoint, caplog):
    with caplog.at_level(logging.WARNING):
        other = ASTForAudioFrameClassification.from_pretrained(checkpoint, num_labels=2)
    assert "The frame head is new, for 2 labels in place of the checkpoint's 5" in caplog.text
    assert run(other, {"input_values": make_inputs()["input_values"]}).logits.shape == (3, COLUMNS, 2)
    assert same_weights(model, ASTForAudioFrameClassification.from_pretrained(checkpoint, num_labels=NUM_LABELS))


@pytest.mark.parametrize("model_class", [ASTForAudioFrameClassification, ASTForAudioClassification])
def test_a_checkpoint_whose_head_does_not_fit_is_refused(make_model, model_class, tmp_path):
    model = make_model(model_class)
    model.save_pretrained(tmp_path)
    head = model_class.head_name
    for change, message in (
        ({f"{head}.dense.bias": None}, f"{head}.dense.bias is missing"),
        ({f"{head}.other": torch.ones(2)}, f"{head}.other is not part of the model"),
        ({f"{head}.dense.weight": torch.ones(2, 32)}, r"has shape \(2, 32\), the configuration needs \(5, 32\)"),
    ):
        changed = {name: tensor for name, tensor in (model.state_dict() | change).items() if tensor is not None}
        save_file(changed, tmp_path / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(ValueError, match=message):
            model_class.from_pretrained(tmp_path)


def test_the_auto_class_knows_it_only_while_registered(model, checkpoint):
    with pytest.raises(ValueError, match="Unrecognized configuration class"):
        AutoModelForAudioFrameClassification.from_pretrained(checkpoint)
    register()
    try:
        loaded = AutoModelForAudioFrameClassification.from_pretrained(checkpoint)
        assert type(loaded) is ASTForAudioFrameClassification
        assert same_weights(model, loaded)
    finally:
        unregister()
    with pytest.raises(ValueError, match="Unrecognized configuration class"):
        AutoModelForAudioFrameClassification.from_pretrained(checkpoint)


def test_a_plain_trainer_gets_logits_alone(model):
    outputs = run(model, make_inputs() | {"labels": torch.zeros(3, COLUMNS, NUM_LABELS)})
    ignored = [*model.config.keys_to_ignore_at_inference, "loss"]
    assert [name for name in outputs if name not in ignored] == ["logits"]
    assert "keys_to_ignore_at_inference" not in model.config.to_dict()


def test_no_pipeline_takes_frames_for_clips(checkpoint):
    ASTFeatureExtractor(max_length=96, num_mel_bins=MEL_BINS).save_pretrained(checkpoint)
    register()
    try:
        with pytest.raises(PipelineCheckpointError, match="has a frame head, which no pipeline has a use for"):
            pipeline("audio-classification", model=str(checkpoint))
    finally:
        unregister()

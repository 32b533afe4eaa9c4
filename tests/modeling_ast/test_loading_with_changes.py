"""`from_pretrained` with another geometry or other labels: positions by the paper's rule, only the classifier new."""

import json
import logging

import pytest
import torch
from torch.nn.functional import interpolate
from transformers import AutoModel, AutoModelForAudioClassification
from transformers.models.audio_spectrogram_transformer.configuration_audio_spectrogram_transformer import (
    ASTConfig as StockConfig,
)

from modeling_ast import ASTConfig, ASTForAudioClassification, ASTModel, register, unregister

LABELS = ("bell", "crash", "tom")


@pytest.fixture
def folder(tiny_sizes, tmp_path):
    """A checkpoint with random weights everywhere, three labels and a 12 x 9 grid."""
    torch.manual_seed(0)
    labels = {"id2label": dict(enumerate(LABELS)), "label2id": {label: index for index, label in enumerate(LABELS)}}
    model = ASTForAudioClassification(ASTConfig(**tiny_sizes, **labels))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


@pytest.fixture
def registered():
    register()
    yield
    unregister()


@pytest.fixture
def log(caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    caplog.set_level(logging.WARNING)
    return caplog


def positions(model) -> torch.Tensor:
    """The patches' positions, shape (hidden, frequency, time)."""
    table = getattr(model, "audio_spectrogram_transformer", model).embeddings.position_embeddings
    return table[0, 2:].detach().T.unflatten(1, model.config.patch_grid)


def everything_else(model) -> dict[str, torch.Tensor]:
    return {
        name: tensor
        for name, tensor in model.state_dict().items()
        if "position_embeddings" not in name and not name.startswith("classifier.")
    }


def test_a_shorter_input_takes_the_beginning_where_the_checkpoint_says_so(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"position_cut": "beginning"}))
    clip = torch.randn(1, 40, config["num_mel_bins"])
    whole, shorter = ASTModel.from_pretrained(folder).eval(), ASTModel.from_pretrained(folder, max_length=40).eval()
    columns = shorter.config.patch_grid[1]
    assert positions(shorter).equal(positions(whole)[:, :, :columns])
    with torch.no_grad():  # so that it hears a clip as before
        torch.testing.assert_close(shorter(clip).last_hidden_state, whole(clip).last_hidden_state)


@pytest.mark.parametrize("loader", [ASTForAudioClassification, AutoModelForAudioClassification, ASTModel, AutoModel])
def test_a_shorter_input_takes_the_middle_of_the_positions(folder, registered, loader):
    before = ASTForAudioClassification.from_pretrained(folder)
    after = loader.from_pretrained(folder, max_length=60)  # 5 of 9 time patches
    assert after.config.max_length == 60
    assert torch.equal(positions(after), positions(before)[:, :, 2:7])
    bodies = [getattr(model, "audio_spectrogram_transformer", model) for model in (before, after)]
    assert torch.equal(*(body.embeddings.position_embeddings[:, :2] for body in bodies)), "class tokens keep theirs"
    kept, loaded = (everything_else(body) for body in bodies)
    assert kept.keys() == loaded.keys()
    assert all(torch.equal(kept[name], loaded[name]) for name in kept)
    assert after(torch.zeros(1, 60, 128)) is not None


def test_a_longer_input_and_more_mel_bins_stretch_the_positions_time_first(folder):
    before = ASTForAudioClassification.from_pretrained(folder)
    after = ASTForAudioClassification.from_pretrained(folder, max_length=200, num_mel_bins=160)  # 9 -> 19, 12 -> 15
    stretched = interpolate(positions(before)[None], size=(12, 19), mode="bilinear", align_corners=False)
    stretched = interpolate(stretched, size=(15, 19), mode="bilinear", align_corners=False)
    torch.testing.assert_close(positions(after), stretched[0], atol=1e-6, rtol=0)
    assert after(torch.zeros(1, 200, 160)).logits.shape == (1, 3)


def test_other_strides_change_the_grid_and_the_convolution(folder):
    before = ASTForAudioClassification.from_pretrained(folder)
    after = ASTForAudioClassification.from_pretrained(folder, frequency_stride=16, time_stride=8)  # 12 x 9 -> 8 x 11
    assert positions(after).shape == (32, 8, 11)
    expected = interpolate(positions(before)[None], size=(12, 11), mode="bilinear", align_corners=False)[0, :, 2:10]
    torch.testing.assert_close(positions(after), expected, atol=1e-6, rtol=0)
    output = after(torch.zeros(1, 96, 128), output_hidden_states=True)
    assert output.hidden_states[0].shape == (1, 2 + 8 * 11, 32)


@pytest.mark.parametrize("loader", [ASTForAudioClassification, AutoModelForAudioClassification])
def test_a_changed_model_is_saved_and_loaded_as_it_is(folder, registered, tmp_path, loader):
    changed = loader.from_pretrained(folder, max_length=200, time_stride=16, num_labels=4)
    changed.save_pretrained(tmp_path / "changed")
    again, loading_info = ASTForAudioClassification.from_pretrained(tmp_path / "changed", output_loading_info=True)
    assert not any(loading_info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert (again.config.max_length, again.config.time_stride, again.config.num_labels) == (200, 16, 4)
    before, after = changed.state_dict(), again.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    inputs = torch.randn(2, 200, 128, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.equal(changed.eval()(inputs).logits, again.eval()(inputs).logits)


@pytest.mark.parametrize("loader", [ASTForAudioClassification, AutoModelForAudioClassification])
@pytest.mark.parametrize(
    "labels",
    [
        {},
        {"num_labels": 3},
        {"id2label": {0: "bell", 1: "crash", 2: "tom"}},
        {"id2label": {"0": "bell", "1": "crash", "2": "tom"}, "label2id": {"bell": 0, "crash": 1, "tom": 2}},
    ],
)
def test_the_trained_classifier_is_kept_for_the_same_labels_in_the_same_order(folder, registered, loader, labels):
    before = ASTForAudioClassification.from_pretrained(folder).classifier.state_dict()
    model = loader.from_pretrained(folder, max_length=60, **labels)
    after = model.classifier.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert model.config.id2label == dict(enumerate(LABELS))


@pytest.mark.parametrize("loader", [ASTForAudioClassification, AutoModelForAudioClassification])
@pytest.mark.parametrize(
    ("labels", "names"),
    [
        ({"num_labels": 2}, ["LABEL_0", "LABEL_1"]),
        ({"id2label": {0: "crash", 1: "bell", 2: "tom"}}, ["crash", "bell", "tom"]),
        ({"id2label": {0: "a", 1: "b", 2: "c"}, "num_labels": 3}, ["a", "b", "c"]),
    ],
)
def test_other_labels_get_a_classifier_that_is_new_as_a_whole(folder, registered, loader, labels, names, log):
    before = ASTForAudioClassification.from_pretrained(folder)
    after = loader.from_pretrained(folder, **labels)
    assert list(after.config.id2label.values()) == names
    assert after.config.label2id == {name: index for index, name in enumerate(names)}
    assert after.num_labels == len(names)
    assert after(torch.zeros(1, 96, 128)).logits.shape == (1, len(names))
    assert torch.equal(after.classifier.layernorm.weight, torch.ones(32)), "its LayerNorm is new, too"
    assert after.classifier.dense.weight.std() < 0.1, "initial weights, not the checkpoint's"
    kept, loaded = everything_else(before), everything_else(after)
    assert all(torch.equal(kept[name], loaded[name]) for name in kept)
    assert f"The classifier is new, for {len(names)} labels (in place of the checkpoint's 3)" in log.text
    assert not after.classifier.training, "as the rest of a loaded model"


@pytest.mark.parametrize("loader", [ASTForAudioClassification, AutoModelForAudioClassification])
def test_label2id_alone_says_the_labels(folder, registered, loader):
    model = loader.from_pretrained(folder, label2id={"low": 0, "high": 1})
    assert model.config.id2label == {0: "low", 1: "high"}


@pytest.mark.parametrize(
    "labels",
    [
        {"num_labels": 4, "id2label": {0: "a", 1: "b"}},
        {"id2label": {0: "a", 2: "b"}},
        {"id2label": {}},
        {"id2label": {}, "num_labels": 3},
        {"num_labels": 0},
        {"id2label": {0: "a", 1: "b"}, "label2id": {"a": 1, "b": 0}},
        {"label2id": {"a": 0, "b": 0}},
    ],
)
def test_labels_that_contradict_themselves_are_refused(folder, labels):
    with pytest.raises(
        ValueError, match="do not name labels with the indices 0, 1, 2 ..., each once. Pass num_labels"
    ):
        ASTForAudioClassification.from_pretrained(folder, **labels)


@pytest.mark.parametrize("labels", [{"num_labels": 2}, {"label2id": {"a": 0, "b": 1}}, {"id2label": {0: "a", 1: "b"}}])
@pytest.mark.parametrize("loader", [ASTForAudioClassification, AutoModelForAudioClassification])
def test_labels_beside_a_configuration_win(folder, registered, loader, labels):
    model = loader.from_pretrained(folder, config=ASTConfig.from_pretrained(folder), **labels)
    assert model(torch.zeros(1, 96, 128)).logits.shape == (1, 2)
    assert len(model.config.id2label) == len(model.config.label2id) == 2


def test_a_stock_configuration_is_taken(folder):
    config = StockConfig.from_pretrained(folder, max_length=60)
    model = ASTForAudioClassification.from_pretrained(folder, config=config)
    assert positions(model).shape == (32, 12, 5)


def test_the_log_says_what_was_moved(folder, log):
    ASTForAudioClassification.from_pretrained(folder, max_length=200)
    assert "The patch grid is 12 x 19 (frequency x time) in place of 12 x 9, positions moved" in log.text
    assert "for max_length=200;" in log.text
    log.clear()
    ASTForAudioClassification.from_pretrained(folder, max_length=96)  # its own
    model = ASTForAudioClassification.from_pretrained(folder, max_length=97)  # no other patches
    assert model.config.max_length == 97
    model.resize_patch_grid()
    assert "patch grid" not in log.text
    assert "classifier" not in log.text


def test_an_explicit_configuration_changes_the_checkpoint_alike(folder):
    config = ASTConfig.from_pretrained(folder, max_length=200, num_labels=2)
    model = ASTForAudioClassification.from_pretrained(folder, config=config)
    assert positions(model).shape == (32, 12, 19)
    assert model.config.num_labels == 2
    assert config.max_length == 200, "the caller's object is not touched"


def test_through_the_auto_class_a_broken_checkpoint_is_still_an_error(folder, registered):
    config = json.loads((folder / "config.json").read_text())
    config["id2label"], config["label2id"] = {"0": "a", "1": "b"}, {"a": 0, "b": 1}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="classifier.dense.bias has shape"):
        AutoModelForAudioClassification.from_pretrained(folder)
    model = AutoModelForAudioClassification.from_pretrained(folder, num_labels=4)  # unless a new one is asked for
    assert model(torch.zeros(1, 96, 128)).logits.shape == (1, 4)


def test_what_is_concluded_from_audioset_labels_is_not_kept_for_other_labels(tiny_sizes, tmp_path, registered):
    names = ["Speech", *(f"label {index}" for index in range(1, 526)), "Field recording"]
    torch.manual_seed(0)
    model = ASTForAudioClassification(ASTConfig(**tiny_sizes, id2label=dict(enumerate(names))))
    model.config.problem_type = None  # as the checkpoints on the Hub are
    model.save_pretrained(tmp_path)
    assert ASTForAudioClassification.from_pretrained(tmp_path).config.problem_type == "multi_label_classification"
    for loader in (ASTForAudioClassification, AutoModelForAudioClassification):
        assert loader.from_pretrained(tmp_path, num_labels=5).config.problem_type is None
        assert loader.from_pretrained(tmp_path, id2label={0: "a", 1: "b"}).config.problem_type is None
        chosen = loader.from_pretrained(tmp_path, num_labels=5, problem_type="single_label_classification")
        assert chosen.config.problem_type == "single_label_classification"


def test_half_precision_positions_stay_in_half_precision(folder):
    model = ASTForAudioClassification.from_pretrained(folder, max_length=200, num_labels=2, dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize(
    ("geometry", "message"),
    [({"max_length": 10}, "max_length=10 is less than one patch"), ({"time_stride": 0}, "time_stride=0")],
)
def test_impossible_geometries_are_refused(folder, geometry, message):
    with pytest.raises(ValueError, match=message):
        ASTForAudioClassification.from_pretrained(folder, **geometry)


def test_a_bare_checkpoint_gets_a_classifier_for_the_labels_asked_for(folder, tmp_path, log):
    ASTModel.from_pretrained(folder).save_pretrained(tmp_path / "bare")
    model = ASTForAudioClassification.from_pretrained(tmp_path / "bare", id2label={0: "a", 1: "b", 2: "c", 3: "d"})
    assert model(torch.zeros(1, 96, 128)).logits.shape == (1, 4)
    assert "The classifier is new, for 4 labels (the checkpoint has none)" in log.text


def test_offloaded_positions_are_refused_in_words(folder):
    model = ASTForAudioClassification.from_pretrained(folder).to("meta")
    with pytest.raises(ValueError, match="position table is offloaded.*without device_map"):
        model.resize_patch_grid(max_length=200)


def test_frozen_positions_stay_frozen(folder):
    model = ASTForAudioClassification.from_pretrained(folder).requires_grad_(False)
    model.resize_patch_grid(max_length=200)
    assert not model.audio_spectrogram_transformer.embeddings.position_embeddings.requires_grad


def test_a_checkpoint_in_a_subfolder_is_changed_through_the_auto_class(folder, registered):
    model = AutoModelForAudioClassification.from_pretrained(folder.parent, subfolder=folder.name, max_length=60)
    assert positions(model).shape == (32, 12, 5)
    assert list(model.config.id2label.values()) == list(LABELS)


def test_the_configuration_may_be_a_path(folder, tmp_path):
    ASTConfig.from_pretrained(folder, max_length=60).save_pretrained(tmp_path / "config")
    model = ASTForAudioClassification.from_pretrained(folder, config=str(tmp_path / "config"))
    assert positions(model).shape == (32, 12, 5)


def test_labels_are_kept_in_the_order_of_their_indices(folder):
    model = ASTForAudioClassification.from_pretrained(folder, id2label={"1": "high", "0": "low"})
    assert list(model.config.id2label.items()) == [(0, "low"), (1, "high")]

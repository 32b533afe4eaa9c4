"""ONNX export: what ONNX Runtime makes of the float32 file is compared with stock Transformers and with PyTorch, clip by clip."""

import importlib.util
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import torchaudio.compliance.kaldi as kaldi
import transformers
from onnx_files import LABELS, MAX_LENGTH, metadata, noise, run

from modeling_ast import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification, export_onnx, quantization
from modeling_ast.export_onnx import ExportError
from modeling_ast.scores import label_thresholds

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


TOLERANCE = 2e-5  # float32 through two layers, the logits of these models are around 1


@pytest.mark.parametrize("batch", [1, 3])
def test_logits_are_those_of_stock_transformers(checkpoint, exported, batch):
    values = np.concatenate([noise(MAX_LENGTH, seed) for seed in range(batch)])
    stock = transformers.ASTForAudioClassification.from_pretrained(checkpoint).eval()
    with torch.no_grad():
        expected = stock(torch.from_numpy(values)).logits.numpy()
    found = run(exported, values, np.ones(values.shape[:2], dtype=np.int64))
    np.testing.assert_allclose(found, expected, atol=TOLERANCE)


@pytest.mark.parametrize(
    "lengths", [(7,), (16,), (150,), (96, 95, 40), (150, 100, 96, 30, 16, 7)], ids=lambda lengths: str(lengths)
)
def test_each_clip_of_a_padded_batch_gets_what_it_gets_alone(exported, model, lengths):
    values = np.concatenate([noise(max(*lengths, 16), seed) for seed in range(len(lengths))])
    mask = (np.arange(values.shape[1]) < np.array(lengths)[:, None]).astype(np.int64)
    found = run(exported, values, mask)
    for clip, frames in enumerate(lengths):
        alone = slice(clip, clip + 1), slice(max(frames, 16))
        with torch.no_grad():
            expected = model(torch.from_numpy(values[alone])).logits.numpy()
        np.testing.assert_allclose(found[clip : clip + 1], expected, atol=TOLERANCE)


def test_what_the_feature_extractor_returns_goes_in_unchanged(exported, extractor, model):
    sounds = [np.random.default_rng(length).normal(size=length) / 9 for length in (9_000, 4_000, 1_000)]
    features = extractor(sounds, sampling_rate=16_000, padding="longest", return_tensors="np")
    session = onnxruntime.InferenceSession(str(exported), providers=["CPUExecutionProvider"])
    found = session.run(["logits"], dict(features))[0]
    with torch.no_grad():
        expected = model(**{name: torch.from_numpy(array) for name, array in features.items()}).logits.numpy()
    np.testing.assert_allclose(found, expected, atol=TOLERANCE)


def test_metadata_says_what_a_user_of_the_file_needs(exported):
    found = metadata(exported)
    assert json.loads(found["id2label"]) == {str(index): label for index, label in enumerate(LABELS)}
    assert found["problem_type"] == "multi_label_classification"
    assert (found["max_length"], found["num_mel_bins"], found["sampling_rate"]) == ("96", "128", "16000")
    assert (float(found["mean"]), float(found["std"])) == (-5.5, 3.25)
    assert (found["do_normalize"], found["padding"], float(found["padding_value"])) == ("true", "max_length", 0)
    assert json.loads(found["versions"])["onnxruntime"] == onnxruntime.__version__


def features_of_a_stranger(waveform, rate, entries):
    """Features and mask of a clip, made of what the metadata say and of nothing of this project."""
    assert rate == int(entries["sampling_rate"])
    assert entries["features"].endswith("torchaudio.compliance.kaldi.fbank(waveform, **filter_bank)")
    arguments = json.loads(entries["filter_bank"])
    features = kaldi.fbank(torch.from_numpy(waveform[None]), **arguments)[: int(entries["max_length"])]
    clip_frames = len(features)
    assert (
        "appended up to max_length" in entries["padding_rule"]
        or "those of the longest clip" in entries["padding_rule"]
    )
    length = int(entries["max_length" if "up to max_length" in entries["padding_rule"] else "min_length"])
    missing = max(0, length - clip_frames)
    x = torch.nn.functional.pad(features, (0, 0, 0, missing), value=float(entries["padding_value"])).numpy()
    names = {"x": x, "mean": float(entries["mean"]), "std": float(entries["std"])}
    normalized = eval(entries["normalization"], {}, names)
    mask = np.ones((1, len(x)), np.int64)
    if "0 for padding" in entries["padding_rule"]:
        mask[:, clip_frames:] = 0
    return normalized[None], mask


@pytest.mark.parametrize(
    "settings", [{}, {"padding": "longest"}, {"return_attention_mask": True}, {"do_normalize": False}]
)
def test_from_the_metadata_alone_come_the_scores_and_labels_of_pytorch(exported, checkpoint, drum_rows, settings):
    model = ASTForAudioClassification.from_pretrained(checkpoint).eval()
    model.config.label_thresholds = {"clap": 0.25, "tom-tom": 0.75}
    extractor = ASTFeatureExtractor.from_pretrained(checkpoint, **settings)
    entries = export_onnx.describe(model, extractor)
    session = onnxruntime.InferenceSession(str(exported), providers=["CPUExecutionProvider"])
    labels, thresholds = json.loads(entries["id2label"]), json.loads(entries["label_thresholds"])
    assert thresholds == {"clap": 0.25, "Überschlag": 0.5, "tom-tom": 0.75}
    for row in drum_rows[::40]:
        waveform, rate = soundfile.read(row["path"], dtype="float32")
        with torch.no_grad():
            expected = (
                model(**extractor(waveform, sampling_rate=rate, return_tensors="pt")).logits[0].sigmoid().numpy()
            )
        values, mask = features_of_a_stranger(waveform, rate, entries)
        (logits,) = session.run(["logits"], {"input_values": values, "attention_mask": mask})
        assert entries["scores"].startswith("sigmoid")
        scores = 1 / (1 + np.exp(-logits[0]))
        np.testing.assert_allclose(scores, expected, atol=1e-5)
        found = [labels[str(index)] for index, score in enumerate(scores) if score >= thresholds[labels[str(index)]]]
        chosen = label_thresholds(model.config)
        assert found == [LABELS[index] for index in np.flatnonzero(expected >= chosen)]


def test_metadata_say_windows_in_samples_and_milliseconds(exported, extractor):
    entries = metadata(exported)
    assert (entries["window_ms"], entries["window_samples"]) == ("25", "400")
    assert (entries["hop_ms"], entries["hop_samples"], entries["fft_length"]) == ("10", "160", "512")
    assert (entries["max_length_unit"], entries["max_length_samples"]) == ("frames", str(400 + 95 * 160))
    bank = json.loads(entries["filter_bank"])
    assert (bank["low_freq"], bank["high_freq"], bank["dither"], bank["preemphasis_coefficient"]) == (
        20,
        8000,
        0,
        0.97,
    )
    assert entries["resampler"] == extractor.audio_reader().resampler


@pytest.mark.parametrize(
    ("problem_type", "words"),
    [("single_label_classification", "softmax over the logits"), ("regression", "the logits themselves")],
)
def test_only_labels_that_do_not_exclude_each_other_have_thresholds(
    model, extractor, problem_type, words, monkeypatch
):
    monkeypatch.setattr(model.config, "problem_type", problem_type)
    entries = export_onnx.describe(model, extractor)
    assert entries["scores"].startswith(words)
    assert "label_thresholds" not in entries


def test_file_is_one_and_knows_nothing_of_this_machine(exported, quantized):
    assert os.listdir(exported.parent) == ["tiny.onnx"]
    for path in (exported, quantized):
        content = path.read_bytes()
        assert not [place for place in (Path(__file__).parents[3], "site-packages") if str(place).encode() in content]
        onnx.checker.check_model(path)


def test_sizes_are_named_and_free(exported):
    session = onnxruntime.InferenceSession(str(exported), providers=["CPUExecutionProvider"])
    assert {item.name: (item.shape, item.type) for item in (*session.get_inputs(), *session.get_outputs())} == {
        "input_values": (["batch", "frames", 128], "tensor(float)"),
        "attention_mask": (["batch", "frames"], "tensor(int64)"),
        "logits": (["batch", 3], "tensor(float)"),
    }


def test_attention_is_exported_as_what_runs_fastest(exported):
    graph = onnx.load(exported).graph
    made_by = {name: node.op_type for node in graph.node for name in node.output}
    assert not [node for node in graph.node if "Attention" in node.op_type]
    # The mask is not added to scores, of which there are as many as queries times keys.
    assert [made_by[node.input[0]] for node in graph.node if node.op_type == "Softmax"] == ["MatMul"] * 2


def test_model_is_left_as_it_is(checkpoint, extractor, tmp_path):
    config = ASTConfig.from_pretrained(checkpoint, hidden_dropout_prob=0.5, num_hidden_layers=1)
    model = ASTForAudioClassification(config).to(torch.bfloat16).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    difference = export_onnx.export_onnx(model, extractor, tmp_path / "model.onnx")
    assert 0 < difference < TOLERANCE
    assert model.training
    assert model.config._attn_implementation == "sdpa"
    for name, tensor in model.state_dict().items():
        assert tensor.dtype == torch.bfloat16
        assert torch.equal(tensor, before[name])
    values = noise(MAX_LENGTH, 0)
    with torch.no_grad():
        expected = model.float().eval()(torch.from_numpy(values)).logits.numpy()
    found = run(tmp_path / "model.onnx", values, np.ones((1, MAX_LENGTH), dtype=np.int64))
    np.testing.assert_allclose(found, expected, atol=TOLERANCE)


def test_file_of_other_weights_is_refused_and_not_written(monkeypatch, checkpoint, exported, extractor, tmp_path):
    model = ASTForAudioClassification.from_pretrained(checkpoint)
    with torch.no_grad():
        model.classifier.dense.bias[1] += 1e-3
    used = []

    def to_onnx(model, _metadata, _attention):
        model.set_attn_implementation("eager")
        model.register_forward_hook(lambda *_: used.append(model.config._attn_implementation))
        return exported.read_bytes()

    monkeypatch.setattr(export_onnx, "_to_onnx", to_onnx)
    with pytest.raises(
        ExportError, match=r"differ by 0.00\d+, allowed is 0.0001: logit 1 of clip 0 \(16 of 16 frames"
    ):
        export_onnx.export_onnx(model, extractor, tmp_path / "model.onnx")
    assert set(used) == {"sdpa"}  # the truth is not computed with what was exported
    assert os.listdir(tmp_path) == []


def fake_runtime(monkeypatch, model, change):
    """ONNX Runtime replaced by PyTorch, whose logits `change(logits, batch, frames)` may spoil."""

    def infer(_session, inputs):
        inputs = {name: torch.from_numpy(array) for name, array in inputs.items()}
        with torch.no_grad():
            return change(model(**inputs).logits, *inputs["attention_mask"].shape).numpy()

    monkeypatch.setattr(export_onnx, "open_session", lambda content: content)
    monkeypatch.setattr(export_onnx, "run_session", infer)


def test_check_covers_batches_and_lengths(monkeypatch, model):
    shapes = []
    fake_runtime(monkeypatch, model, lambda logits, *shape: shapes.append(shape) or logits)
    assert export_onnx.check_against_pytorch(b"", model) < TOLERANCE
    assert {(1, 16), (1, 96), (3, 98), (3, 144)} <= set(shapes)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda logits, batch, frames: logits + 2e-4 * (frames > MAX_LENGTH),
            r"clip 0 \(98 of 98 frames, batch of 3\)",
        ),
        (lambda logits, batch, frames: logits + 2e-4 * (torch.arange(batch) == 2)[:, None], r"\(1 of 98 frames"),
        (lambda logits, batch, frames: logits * float("nan"), "differ by nan"),
    ],
    ids=["long", "short", "nan"],
)
def test_check_finds_single_faults(monkeypatch, model, change, words):
    fake_runtime(monkeypatch, model, change)
    with pytest.raises(ExportError, match=words):
        export_onnx.check_against_pytorch(b"", model)


def test_weights_that_are_no_numbers_are_not_blamed_on_the_runtime(monkeypatch, checkpoint):
    model = ASTForAudioClassification.from_pretrained(checkpoint).eval()
    with torch.no_grad():
        model.classifier.dense.bias[1] = float("nan")
    fake_runtime(monkeypatch, model, lambda logits, *_shape: logits)
    with pytest.raises(ExportError, match=r"logits that are no numbers \(nan\): its weights are at fault.*earlier"):
        export_onnx.check_against_pytorch(b"", model)


def test_check_is_in_proportion_for_large_logits(monkeypatch, checkpoint):
    model = ASTForAudioClassification.from_pretrained(checkpoint).eval()
    with torch.no_grad():
        model.classifier.dense.bias += 1e4
    fake_runtime(monkeypatch, model, lambda logits, *_shape: logits + 0.5)
    assert 4e-5 < export_onnx.check_against_pytorch(b"", model) < 6e-5
    fake_runtime(monkeypatch, model, lambda logits, *_shape: logits + 5)
    with pytest.raises(ExportError, match="differ by 0.0005"):
        export_onnx.check_against_pytorch(b"", model)


def test_models_that_cannot_be_exported(monkeypatch, checkpoint, model, extractor, tmp_path):
    stock = transformers.ASTForAudioClassification.from_pretrained(checkpoint)
    with pytest.raises(ExportError, match="is a transformers.*ASTForAudioClassification, expected this project's"):
        export_onnx.export_onnx(stock, extractor, tmp_path / "model.onnx")
    with pytest.raises(ValueError, match="clips is empty"):
        quantization.export_quantized_onnx(model, extractor, tmp_path / "model.onnx", [])
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ExportError, match="needs onnxscript"):
        export_onnx.export_onnx(model, extractor, tmp_path / "model.onnx")


def test_sessions_have_as_many_threads_as_torch(monkeypatch, exported):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    assert export_onnx.open_session(exported).get_session_options().intra_op_num_threads == 3


@pytest.mark.parametrize("masked", [False, True])
def test_clips_are_padded_and_masked_as_the_extractor_is_set(checkpoint, masked):
    extractor = ASTFeatureExtractor.from_pretrained(checkpoint, return_attention_mask=masked)
    inputs = export_onnx.clip_inputs(np.ones(400 + 29 * 160, dtype=np.float32), extractor)  # 30 frames
    assert inputs["input_values"].shape == (1, MAX_LENGTH, 128)
    assert inputs["attention_mask"].dtype == np.int64
    assert inputs["attention_mask"].shape == (1, MAX_LENGTH)
    assert inputs["attention_mask"].sum() == (30 if masked else MAX_LENGTH)


@pytest.mark.parametrize("of", [export_onnx, quantization])
def test_module_imports_without_the_onnx_packages(monkeypatch, of):
    for package in ("onnx", "onnxscript", "onnxruntime"):
        monkeypatch.setitem(sys.modules, package, None)
    spec = importlib.util.spec_from_file_location("modeling_ast.second_copy", of.__file__)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)

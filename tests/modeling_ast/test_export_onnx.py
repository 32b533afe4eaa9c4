"""ONNX export: what ONNX Runtime makes of the files is compared with stock Transformers and with PyTorch, clip by clip."""

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import torchaudio.compliance.kaldi as kaldi
import transformers
from varied_model import vary_scores

from modeling_ast import ASTFeatureExtractor, ASTForAudioClassification, export_onnx, run_export
from modeling_ast.export_onnx import Candidate, ExportError, QuantizationReport
from modeling_ast.system.installation import install_command

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

LABELS = ("clap", "Überschlag", "tom-tom")
MAX_LENGTH = 96
CANDIDATES = ["QInt8", "QInt8 reduced range", "QUInt8", "QUInt8 reduced range"]
TOLERANCE = 2e-5  # float32 through two layers, the logits of these models are around 1


def noise(frames, seed):
    """Features of the scale that normalising gives, in long waves so that neighbouring frames are alike."""
    generator = np.random.default_rng(seed)
    return (generator.normal(size=(1, frames, 128)) / 2 + generator.normal(size=(1, 1, 128))).astype(np.float32)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A checkpoint that stock Transformers made, with logits that differ from clip to clip."""
    folder = tmp_path_factory.mktemp("stock")
    config = transformers.ASTConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_length=MAX_LENGTH,
        id2label=dict(enumerate(LABELS)),
        label2id={label: index for index, label in enumerate(LABELS)},
        problem_type="multi_label_classification",
    )
    model = transformers.ASTForAudioClassification(config).eval()
    sounds = [torch.from_numpy(noise(MAX_LENGTH, seed)) for seed in range(16)]
    vary_scores(model, 3, lambda: torch.cat([model(sound).logits for sound in sounds]))
    model.save_pretrained(folder)
    transformers.ASTFeatureExtractor(max_length=MAX_LENGTH, mean=-5.5, std=3.25).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def model(checkpoint):
    return ASTForAudioClassification.from_pretrained(checkpoint).eval()


@pytest.fixture(scope="module")
def extractor(checkpoint):
    return ASTFeatureExtractor.from_pretrained(checkpoint)


@pytest.fixture(scope="module")
def exported(checkpoint, tmp_path_factory):
    """The float32 file, from the command line."""
    path = tmp_path_factory.mktemp("float32") / "tiny.onnx"
    assert run_export.main([str(checkpoint), str(path)]) == 0
    return path


@pytest.fixture(scope="module")
def recordings(tmp_path_factory, drum_rows):
    folder = tmp_path_factory.mktemp("recordings")
    for row in drum_rows[::20]:
        shutil.copy(row["path"], folder)
    return folder


@pytest.fixture(scope="module")
def quantized(checkpoint, recordings, tmp_path_factory):
    """The 8-bit file, from the command line."""
    path = tmp_path_factory.mktemp("int8") / "tiny.onnx"
    assert run_export.main([str(checkpoint), str(path), "--int8", "--clips", str(recordings)]) == 0
    return path


@pytest.fixture
def without_export(monkeypatch, exported):
    """Leave out the slow way to the float32 file, which is there already."""
    content = exported.read_bytes()
    monkeypatch.setattr(export_onnx, "_checked_onnx", lambda _model, _extractor: (content, 0.0))


def run(path, values, mask):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {"input_values": values, "attention_mask": mask})[0]


def metadata(path):
    return {entry.key: entry.value for entry in onnx.load(path).metadata_props}


# The float32 file


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
        chosen = export_onnx.label_thresholds(model.config)
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
        assert not [place for place in (Path(__file__).parents[2], "site-packages") if str(place).encode() in content]
        onnx.checker.check_model(path)


def test_sizes_are_named_and_free(exported):
    session = onnxruntime.InferenceSession(str(exported), providers=["CPUExecutionProvider"])
    assert {item.name: (item.shape, item.type) for item in (*session.get_inputs(), *session.get_outputs())} == {
        "input_values": (["batch", "frames", 128], "tensor(float)"),
        "attention_mask": (["batch", "frames"], "tensor(int64)"),
        "logits": (["batch", 3], "tensor(float)"),
    }


def test_attention_is_exported_as_what_runs_fastest(exported):
    operators = {node.op_type for node in onnx.load(exported).graph.node}
    assert "Softmax" in operators
    assert "IsNaN" not in operators  # of the fused attention's decomposition, a fifth slower


def test_model_is_left_as_it_is(checkpoint, extractor, tmp_path):
    model = ASTForAudioClassification.from_pretrained(
        checkpoint, dtype=torch.bfloat16, hidden_dropout_prob=0.5
    ).train()
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


# The check


def test_file_of_other_weights_is_refused_and_not_written(monkeypatch, checkpoint, exported, extractor, tmp_path):
    model = ASTForAudioClassification.from_pretrained(checkpoint)
    with torch.no_grad():
        model.classifier.dense.bias[1] += 1e-3
    used = []

    def to_onnx(model, _metadata):
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
    monkeypatch.setattr(export_onnx, "_run", infer)


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
    monkeypatch.setattr(export_onnx, "LARGEST_FILE", 100_000)
    with pytest.raises(ExportError, match="one ONNX file holds 2 GB at most"):
        export_onnx.export_onnx(model, extractor, tmp_path / "model.onnx")
    with pytest.raises(ValueError, match="clips is empty"):
        export_onnx.export_quantized_onnx(model, extractor, tmp_path / "model.onnx", [])
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ExportError, match="needs onnxscript"):
        export_onnx.export_onnx(model, extractor, tmp_path / "model.onnx")


def test_sessions_have_as_many_threads_as_torch(monkeypatch, exported):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    assert export_onnx.open_session(exported).get_session_options().intra_op_num_threads == 3


# 8-bit weights


def test_8_bit_weights_are_the_matrices_of_the_transformer(exported, quantized):
    before, after = onnx.load(exported).graph, onnx.load(quantized).graph
    matrices = {(32, 32), (32, 64), (64, 32)}
    assert sum(tuple(item.dims) in matrices for item in before.initializer) == 12
    kinds = [item.data_type for item in after.initializer if tuple(item.dims) in matrices]
    assert len(kinds) == 12
    assert set(kinds) <= {onnx.TensorProto.INT8, onnx.TensorProto.UINT8}
    scales = [item for item in after.initializer if item.name.endswith("_scale") and list(item.dims) in ([32], [64])]
    assert len(scales) == 12  # one for each output channel
    assert [node.op_type for node in after.node if "Conv" in node.op_type] == ["Conv"]


def test_report_holds_every_candidate_and_the_written_one(exported, quantized):
    report = json.loads((quantized.parent / "tiny.quantization.json").read_text(encoding="utf-8"))
    assert sorted(os.listdir(quantized.parent)) == ["tiny.onnx", "tiny.quantization.json"]
    assert [item["name"] for item in report["candidates"]] == CANDIDATES
    assert [(item["weight_type"], item["reduce_range"]) for item in report["candidates"]] == [
        ("QInt8", False),
        ("QInt8", True),
        ("QUInt8", False),
        ("QUInt8", True),
    ]
    assert report["float32_bytes"] == exported.stat().st_size
    for item in report["candidates"]:
        assert item["size_ratio"] == item["num_bytes"] / report["float32_bytes"]
        assert item["speedup"] == pytest.approx(report["float32_seconds"] / item["seconds"])
        assert 0 < item["seconds"] < 1
    assert metadata(quantized) == metadata(exported) | {
        "quantization": report["chosen"],
        "onnx.infer": "onnxruntime.quant",
    }
    assert len({item["largest_difference"] for item in report["candidates"]}) == 4  # each was rounded in its own way
    (chosen,) = [item for item in report["candidates"] if item["name"] == report["chosen"]]
    assert quantized.stat().st_size == chosen["num_bytes"] < report["float32_bytes"]
    assert (report["num_clips"], report["synthetic_clips"]) == (22, False)
    assert report["threads"] == torch.get_num_threads()


def test_8_bit_file_keeps_the_labels_that_stock_transformers_gives(checkpoint, quantized, recordings):
    report = json.loads((quantized.parent / "tiny.quantization.json").read_text(encoding="utf-8"))
    (chosen,) = [item for item in report["candidates"] if item["name"] == report["chosen"]]
    stock = transformers.ASTForAudioClassification.from_pretrained(checkpoint).eval()
    features = transformers.ASTFeatureExtractor.from_pretrained(checkpoint)
    sounds = [soundfile.read(file)[0] for file in sorted(recordings.iterdir())]
    inputs = [features(sound, sampling_rate=16_000, return_tensors="pt")["input_values"] for sound in sounds]
    with torch.no_grad():
        expected = np.concatenate([stock(values).logits.numpy() for values in inputs])
    assert len(set(expected.argmax(axis=1))) > 1
    mask = np.ones((1, MAX_LENGTH), dtype=np.int64)
    found = np.concatenate([run(quantized, values.numpy(), mask) for values in inputs])
    kept = int((found.argmax(axis=1) == expected.argmax(axis=1)).sum())
    assert kept == chosen["labels_kept"]
    assert kept >= 0.9 * len(sounds)
    assert np.abs(found - expected).max() == pytest.approx(chosen["largest_difference"], abs=1e-3)
    assert chosen["largest_difference"] > 1e-3  # otherwise nothing would have been rounded


def test_8_bit_file_takes_any_batch_and_length(quantized, exported):
    values = np.concatenate([noise(150, seed) for seed in range(3)])
    mask = (np.arange(150) < np.array([150, 96, 7])[:, None]).astype(np.int64)
    np.testing.assert_allclose(run(quantized, values, mask), run(exported, values, mask), atol=0.3)


def test_without_recordings_synthetic_sounds_are_used_and_said(
    capsys, monkeypatch, without_export, checkpoint, tmp_path
):
    compared = []
    compare = export_onnx._logits_of_clips
    monkeypatch.setattr(
        export_onnx, "_logits_of_clips", lambda sessions, clips: compared.extend(clips) or compare(sessions, clips)
    )
    assert run_export.main([str(checkpoint), str(tmp_path / "m.onnx"), "--int8"]) == 0
    shown = capsys.readouterr().out
    assert "Compared on 64 synthetic clips" in shown
    assert "Pass --clips FOLDER" in shown
    for name in CANDIDATES:
        assert sum(line.startswith((f"{name}  ", f"{name} *")) for line in shown.splitlines()) == 1
    last = shown.splitlines()[-1]
    assert last.startswith(f"{tmp_path / 'm.onnx'}: 0.")
    assert "of 64 synthetic clips" in last
    assert len(compared) == 64
    assert json.loads((tmp_path / "m.quantization.json").read_text())["synthetic_clips"] is True


def test_synthetic_clips_are_seeded_and_of_all_sorts():
    clips = export_onnx.synthetic_clips(16_000)
    assert len(clips) == 64
    assert all(clip.dtype == np.float32 and 4_800 <= clip.size <= 48_000 for clip in clips)
    assert all(0.03 < np.abs(clip).max() <= 1 for clip in clips)
    assert min(clip.size for clip in clips) < 8_000
    assert max(clip.size for clip in clips) > 32_000
    again = export_onnx.synthetic_clips(16_000, count=5)
    assert all(np.array_equal(*pair) for pair in zip(again, clips, strict=False))
    assert not np.array_equal(again[0], export_onnx.synthetic_clips(16_000, count=1, seed=1)[0])
    flatness = []  # 1 for white noise, near 0 for a tone
    for clip in clips[:4]:
        power = np.abs(np.fft.rfft(clip)) ** 2 + 1e-12
        flatness.append(np.exp(np.log(power).mean()) / power.mean())
    assert flatness[0] > 0.1 > flatness[1]


@pytest.mark.parametrize("masked", [False, True])
def test_clips_are_padded_and_masked_as_the_extractor_is_set(checkpoint, masked):
    extractor = ASTFeatureExtractor.from_pretrained(checkpoint, return_attention_mask=masked)
    inputs = export_onnx.clip_inputs(np.ones(400 + 29 * 160, dtype=np.float32), extractor)  # 30 frames
    assert inputs["input_values"].shape == (1, MAX_LENGTH, 128)
    assert inputs["attention_mask"].dtype == np.int64
    assert inputs["attention_mask"].shape == (1, MAX_LENGTH)
    assert inputs["attention_mask"].sum() == (30 if masked else MAX_LENGTH)


def candidate(name="QInt8", **changes):
    values = {"weight_type": "QInt8", "reduce_range": False, "num_bytes": 26, "size_ratio": 0.26, "seconds": 1.0}
    values |= {"speedup": 2.0, "largest_difference": 0.1, "labels_kept": 1000}
    return Candidate(name=name, **values | changes)


@pytest.mark.parametrize(
    ("other", "best"),
    [
        ({"labels_kept": 994, "seconds": 0.1, "largest_difference": 0.01}, "first"),
        ({"labels_kept": 996, "seconds": 0.85}, "other"),
        ({"labels_kept": 996, "seconds": 0.95, "largest_difference": 0.2}, "first"),
        ({"seconds": 1.05, "largest_difference": 0.09}, "other"),
        ({"seconds": 1.15, "largest_difference": 0.01}, "first"),
    ],
    ids=["labels first", "then speed", "a little speed is noise", "then closeness", "speed before closeness"],
)
def test_the_rule_of_the_choice(other, best):
    candidates = [candidate("first"), candidate("other", **other)]
    assert export_onnx.choose_candidate(candidates, 1000).name == best
    assert export_onnx.choose_candidate(candidates[::-1], 1000).name == best


def test_regression_has_no_labels_to_keep(monkeypatch, without_export, checkpoint, extractor, tmp_path):
    model = ASTForAudioClassification.from_pretrained(checkpoint, problem_type="regression")
    clips = [export_onnx.clip_inputs(sound, extractor) for sound in export_onnx.synthetic_clips(16_000, count=2)]
    report = export_onnx.export_quantized_onnx(model, extractor, tmp_path / "m.onnx", clips)
    assert {item.labels_kept for item in report.candidates} == {None}
    lines = list(run_export.format_report(report, Path("m.onnx")))
    assert "labels kept" in lines[1]
    assert "top label" not in lines[-1]
    assert "largest difference to float32's logits" in lines[-1]


def quantization_report(**of_candidate) -> QuantizationReport:
    return QuantizationReport(
        chosen="QInt8",
        candidates=[candidate(**of_candidate)],
        num_clips=100,
        synthetic_clips=False,
        float32_bytes=100,
        float32_seconds=2.0,
        float32_difference_to_pytorch=1e-6,
        threads=1,
        processor="any",
        versions={},
    )


@pytest.mark.parametrize(("speedup", "told"), [(0.98, True), (1.0, False)])
def test_8_bit_weights_that_gain_no_time_are_told(speedup, told):
    report = quantization_report(labels_kept=100, speedup=speedup)
    lines = list(run_export.format_report(report, Path("m.onnx")))
    assert any("no faster for this model here" in line for line in lines) == told


@pytest.mark.parametrize(("kept", "warned"), [(98, True), (99, False)])
def test_labels_that_are_lost_are_told(kept, warned):
    report = quantization_report(labels_kept=kept)
    lines = list(run_export.format_report(report, Path("m.onnx")))
    assert any("without --int8" in line for line in lines) == warned
    assert not any("synthetic" in line for line in lines)
    assert lines[-1].endswith(f"2.00 times as fast, top label kept on {kept} of 100 clips")
    assert json.loads(json.dumps(asdict(report)))["candidates"][0]["labels_kept"] == kept
    assert replace(report, chosen="QInt8").chosen_candidate.name == "QInt8"


# The command line


def test_last_line_of_the_float32_export(capsys, monkeypatch, without_export, checkpoint, tmp_path):
    assert run_export.main([str(checkpoint), str(tmp_path / "m.onnx")]) == 0
    megabytes = (tmp_path / "m.onnx").stat().st_size / 1e6
    expected = f"{tmp_path / 'm.onnx'}: {megabytes:.1f} MB, largest difference to PyTorch's logits 0.0e+00"
    assert capsys.readouterr().out.splitlines()[-1] == expected


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["{folder}/gone", "{folder}/m.onnx"], "There is no folder {folder}/gone. Pass one that ast-finetune"),
        (["user/name", "{folder}/m.onnx"], "hf download user/name --local-dir CHECKPOINT_DIR"),
        (["{folder}", "{folder}/m.onnx"], "has no config.json and no preprocessor_config.json"),
        (["{checkpoint}", "{folder}/m.pt"], "{folder}/m.pt does not end in .onnx. Pass for example {folder}/m.onnx"),
        (["{checkpoint}", "{folder}/no/m.onnx"], "Type: mkdir -p {folder}/no"),
        (["{checkpoint}", "{folder}/folder.onnx"], "is a folder. Pass the name of a file"),
        (
            ["{checkpoint}", "{folder}/folder.onnx/null.onnx", "--overwrite"],
            "null.onnx is no file but a device, a pipe",
        ),
        (["{checkpoint}", "{folder}/there.onnx"], "there.onnx already exists. Pass --overwrite"),
        (
            ["{checkpoint}", "{folder}/other.onnx", "--int8"],
            "other.quantization.json already exists. Pass --overwrite",
        ),
        (
            ["{checkpoint}", "{folder}/m.onnx", "--int8", "--clips", "{folder}/no.wav"],
            "no file or folder {folder}/no.wav",
        ),
        (["{checkpoint}", "{folder}/m.onnx", "--int8", "--clips", "{folder}/text.wav"], "text.wav holds text"),
        (["{checkpoint}", "{folder}/m.onnx", "--int8", "--clips", "{folder}/brief.wav"], "brief.wav cannot be used"),
    ],
)
def test_what_cannot_be_used_is_explained_in_one_line(capsys, checkpoint, tmp_path, arguments, words):
    (tmp_path / "folder.onnx").mkdir()
    (tmp_path / "there.onnx").write_text("before")
    (tmp_path / "folder.onnx" / "null.onnx").symlink_to(os.devnull)
    (tmp_path / "other.quantization.json").write_text("before")
    (tmp_path / "text.wav").write_text("not audio")
    soundfile.write(tmp_path / "brief.wav", np.zeros(399), 16_000)
    before = sorted(os.listdir(tmp_path))
    places = {"folder": tmp_path, "checkpoint": checkpoint}
    assert run_export.main([argument.format(**places) for argument in arguments]) == 2
    shown = capsys.readouterr()
    (line,) = [line for line in shown.err.splitlines() if line.startswith("ast-export: ")]
    assert words.format(**places) in line
    assert shown.out == ""
    assert sorted(os.listdir(tmp_path)) == before
    assert (tmp_path / "there.onnx").read_text() == "before"


def test_clips_without_int8_are_refused(capsys, checkpoint, tmp_path):
    with pytest.raises(SystemExit) as ended:
        run_export.main([str(checkpoint), str(tmp_path / "m.onnx"), "--clips", str(tmp_path)])
    assert ended.value.code == 2
    assert "--clips is what --int8 is compared on. Add --int8" in capsys.readouterr().err


def test_overwrite_replaces_files(without_export, checkpoint, exported, recordings, tmp_path):
    for name in ("m.onnx", "m.quantization.json"):
        (tmp_path / name).write_text("before")
    arguments = [str(checkpoint), str(tmp_path / "m.onnx"), "--overwrite"]
    assert run_export.main(arguments) == 0
    assert (tmp_path / "m.onnx").read_bytes() == exported.read_bytes()
    clip = next(recordings.iterdir())
    assert run_export.main([*arguments, "--int8", "--clips", str(clip)]) == 0
    assert "quantization" in metadata(tmp_path / "m.onnx")
    assert json.loads((tmp_path / "m.quantization.json").read_text())["num_clips"] == 1


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_missing_packages_are_named(capsys, monkeypatch, checkpoint, tmp_path, package):
    monkeypatch.setitem(sys.modules, package, None)
    clips = ["--int8", "--clips", str(tmp_path / "gone.wav")]  # about which is complained only after that
    assert run_export.main([str(checkpoint), str(tmp_path / "m.onnx"), *clips]) == 2
    shown = capsys.readouterr().err
    assert f"needs {package}, " in shown
    assert f"Type: {install_command('onnx')}" in shown


def test_module_imports_without_the_onnx_packages(monkeypatch):
    for package in ("onnx", "onnxscript", "onnxruntime"):
        monkeypatch.setitem(sys.modules, package, None)
    spec = importlib.util.spec_from_file_location("modeling_ast.second_copy", export_onnx.__file__)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("moment", ["choose_candidate", "report_path"])
def test_interrupted_export_leaves_what_was_there(
    capsys, monkeypatch, without_export, checkpoint, recordings, tmp_path, number, moment
):
    def interrupt(*_args):
        os.kill(os.getpid(), number)
        time.sleep(10)

    monkeypatch.setattr(export_onnx, moment, interrupt)
    # Ignored where tests run in the background.
    previous = {name: signal.signal(name, signal.SIG_DFL) for name in (signal.SIGTERM, signal.SIGINT)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    (tmp_path / "m.onnx").write_text("before")
    clip = str(next(recordings.iterdir()))
    try:
        code = run_export.main([str(checkpoint), str(tmp_path / "m.onnx"), "--int8", "--overwrite", "--clips", clip])
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    finally:
        for name, handler in previous.items():
            signal.signal(name, handler)
    assert code == 128 + number
    assert "ast-export: interrupted" in capsys.readouterr().err
    assert os.listdir(tmp_path) == ["m.onnx"]
    assert (tmp_path / "m.onnx").read_text() == "before"


@pytest.mark.parametrize("flags", [[], ["--int8"]])
def test_full_disk_leaves_what_was_there(capsys, monkeypatch, without_export, checkpoint, tmp_path, flags):
    def fail(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    (tmp_path / "m.onnx").write_text("before")
    assert run_export.main([str(checkpoint), str(tmp_path / "m.onnx"), "--overwrite", *flags]) == 1
    assert "m.onnx was not written: [Errno 28] No space left on device. Name a place" in capsys.readouterr().err
    assert os.listdir(tmp_path) == ["m.onnx"]
    assert (tmp_path / "m.onnx").read_text() == "before"


def test_quantizing_warns_of_nothing_and_logging_is_as_before(caplog, capfd, without_export, checkpoint, tmp_path):
    import logging

    assert run_export.main([str(checkpoint), str(tmp_path / "m.onnx"), "--int8"]) == 0
    assert not [record for record in caplog.records if "pre-processing" in record.message]
    assert logging.root.manager.disable == logging.NOTSET


@pytest.mark.parametrize(("arguments", "code"), [(["--help"], 0), (["gone", "m.onnx"], 2), (["gone"], 2)])
def test_help_and_wrong_arguments_import_nothing_heavy(arguments, code):
    script = (
        "import sys\n"
        "from modeling_ast.run_export import main\n"
        "try:\n    code = main(sys.argv[1:])\n"
        "except SystemExit as ended:\n    code = ended.code\n"
        "print(code, sorted({'torch', 'transformers', 'numpy', 'onnx', 'onnxruntime'} & set(sys.modules)))\n"
    )
    child = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True)
    assert child.stdout.splitlines()[-1] == f"{code} []"


def test_module_runs_as_a_program():
    child = subprocess.run(
        [sys.executable, "-m", "modeling_ast.run_export", "gone", "m.onnx"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert child.returncode == 2
    assert child.stderr.startswith("ast-export: There is no folder gone.")

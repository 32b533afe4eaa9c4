"""8-bit weights: what is measured of the four ways to make them, which is chosen, and what ONNX Runtime makes of the file."""

import json
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import transformers
from onnx_files import CANDIDATES, MAX_LENGTH, candidate, metadata, noise, run

from modeling_ast import ASTForAudioClassification, export_onnx, onnx_attention, quantization, run_export

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


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


def test_synthetic_clips_are_seeded_and_of_all_sorts():
    clips = quantization.synthetic_clips(16_000)
    assert len(clips) == 64
    assert all(clip.dtype == np.float32 and 4_800 <= clip.size <= 48_000 for clip in clips)
    assert all(0.03 < np.abs(clip).max() <= 1 for clip in clips)
    assert min(clip.size for clip in clips) < 8_000
    assert max(clip.size for clip in clips) > 32_000
    again = quantization.synthetic_clips(16_000, count=5)
    assert all(np.array_equal(*pair) for pair in zip(again, clips, strict=False))
    assert not np.array_equal(again[0], quantization.synthetic_clips(16_000, count=1, seed=1)[0])
    flatness = []  # 1 for white noise, near 0 for a tone
    for clip in clips[:4]:
        power = np.abs(np.fft.rfft(clip)) ** 2 + 1e-12
        flatness.append(np.exp(np.log(power).mean()) / power.mean())
    assert flatness[0] > 0.1 > flatness[1]


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
    assert quantization.choose_candidate(candidates, 1000).name == best
    assert quantization.choose_candidate(candidates[::-1], 1000).name == best


def test_regression_has_no_labels_to_keep(monkeypatch, without_export, checkpoint, extractor, tmp_path):
    model = ASTForAudioClassification.from_pretrained(checkpoint, problem_type="regression")
    clips = [export_onnx.clip_inputs(sound, extractor) for sound in quantization.synthetic_clips(16_000, count=2)]
    report = quantization.export_quantized_onnx(model, extractor, tmp_path / "m.onnx", clips)
    assert {item.labels_kept for item in report.candidates} == {None}
    lines = list(run_export.format_report(report, Path("m.onnx")))
    assert "labels kept" in lines[1]
    assert "top label" not in lines[-1]
    assert "largest difference to float32's logits" in lines[-1]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("moment", ["choose_candidate", "report_path"])
def test_interrupted_export_leaves_what_was_there(
    capsys, monkeypatch, without_export, checkpoint, recordings, tmp_path, number, moment
):
    def interrupt(*_args):
        os.kill(os.getpid(), number)
        time.sleep(10)

    monkeypatch.setattr(quantization, moment, interrupt)
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


def test_quantizing_warns_of_nothing_and_logging_is_as_before(caplog, capfd, without_export, checkpoint, tmp_path):
    import logging

    assert run_export.main([str(checkpoint), str(tmp_path / "m.onnx"), "--int8"]) == 0
    assert not [record for record in caplog.records if "pre-processing" in record.message]
    assert logging.root.manager.disable == logging.NOTSET


@pytest.fixture(scope="module")
def with_integer_scores(model, extractor, tmp_path_factory):
    """The graph whose attention scores are integer products, its weights float32."""
    path = tmp_path_factory.mktemp("integers") / "tiny.onnx"
    export_onnx.save_onnx(export_onnx.onnx_with_integer_scores(model, extractor), path)
    return path


def test_integer_scores_are_near_those_of_stock_transformers(checkpoint, with_integer_scores):
    graph = onnx.load(with_integer_scores)
    onnx.checker.check_model(graph, full_check=True)
    made_by = {name: node for node in graph.graph.node for name in node.output}
    scaled = [made_by[node.input[0]] for node in graph.graph.node if node.op_type == "Softmax"]
    assert [made_by[made_by[node.input[0]].input[0]].op_type for node in scaled] == ["MatMulInteger"] * 2
    stock = transformers.ASTForAudioClassification.from_pretrained(checkpoint).eval()
    values = np.concatenate([noise(MAX_LENGTH, seed) for seed in range(8)])
    with torch.no_grad():
        expected = stock(torch.from_numpy(values)).logits.numpy()
    found = run(with_integer_scores, values, np.ones(values.shape[:2], dtype=np.int64))
    assert np.abs(found - expected).max() < 0.05 * np.abs(expected).max()
    assert (
        1e-6 < np.abs(found - expected).mean() < 0.01 * np.abs(expected).max()
    )  # the queries and keys alone are rounded


def test_integer_scores_do_not_hear_padding(with_integer_scores):
    values, clip = noise(300, 0), noise(40, 1)
    values = np.concatenate([values, np.concatenate([clip, 9 * noise(260, 2)], axis=1)])  # loud where it is not heard
    mask = (np.arange(300) < np.array([300, 40])[:, None]).astype(np.int64)
    alone = run(with_integer_scores, clip, mask[1:, :40])
    found = run(with_integer_scores, values, mask)[1:]
    heard = run(with_integer_scores, values[1:], np.ones((1, 300), dtype=np.int64))
    assert np.abs(heard - alone).max() > 0.1
    np.testing.assert_allclose(found, alone, atol=0.02)  # the range of the queries is one for all


class IntegerAttention(torch.nn.Module):
    def forward(self, query, key, value, mask):
        return onnx_attention.attention_in_integers(self, query, key, value, mask, scaling=0.25)[0]


def test_keys_of_padding_do_not_matter_whatever_they_are(tmp_path):
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(2, 2, 12, 16, generator=generator) for _ in range(3))
    key = key + 5  # which moves all scores of a query alike
    mask = torch.ones(2, 1, 1, 12)
    mask[1, ..., 7:] = 0
    key[1, :, 7:] = 1000 * query[1, :, 7:]
    program = torch.onnx.export(IntegerAttention().eval(), (query, key, value, mask), dynamo=True, verbose=False)
    program.save(tmp_path / "attention.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "attention.onnx", providers=["CPUExecutionProvider"])
    inputs = [each.numpy() for each in (query, key, value, mask)]
    (found,) = session.run(None, dict(zip([item.name for item in session.get_inputs()], inputs, strict=True)))
    expected = torch.nn.functional.scaled_dot_product_attention(query, key, value, mask.bool()).transpose(1, 2)
    np.testing.assert_allclose(found, expected.numpy(), atol=0.05)


@pytest.mark.parametrize(
    ("rounded", "worth"),
    [
        ({"seconds": 0.97}, True),
        ({"seconds": 0.99}, False),
        ({"seconds": 0.9, "labels_kept": 996}, True),
        ({"seconds": 0.9, "labels_kept": 994}, False),
        ({"seconds": 0.9, "largest_difference": 0.19}, True),
        ({"seconds": 0.9, "largest_difference": 0.21}, False),
    ],
)
def test_integer_scores_have_to_be_worth_it(rounded, worth):
    assert quantization.are_worth_it(candidate("rounded", **rounded), candidate("plain"), 1000) == worth


@pytest.mark.parametrize("waveform", [False, True])
@pytest.mark.parametrize("worth", [False, True])
def test_a_model_of_many_patches_may_have_integer_scores(
    monkeypatch, without_export, with_integer_scores, model, extractor, tmp_path, waveform, worth
):
    monkeypatch.setattr(quantization, "PATCHES_FOR_INTEGER_SCORES", 1)
    monkeypatch.setattr(quantization, "are_worth_it", lambda *_: worth)
    monkeypatch.setattr(quantization, "onnx_with_integer_scores", lambda *_: onnx.load(with_integer_scores))
    path, facts = tmp_path / "m.onnx", {"license": "mit"}
    report = quantization.export_quantized_onnx(model, extractor, path, waveform=waveform, facts=facts)
    *four, rounded = report.candidates
    assert [item.name for item in four] == CANDIDATES
    assert not any(item.integer_scores for item in four)
    assert rounded.integer_scores
    assert rounded.name.removesuffix(", integer scores") in CANDIDATES
    assert (report.chosen == rounded.name) == worth
    assert metadata(path) == metadata(path) | {"quantization": report.chosen, **facts}
    operators = [node.op_type for node in onnx.load(path).graph.node]
    weights, scores = operators.count("MatMulInteger"), 2 * worth
    assert weights == 13 + scores  # six matrices of each of two layers, and the classifier
    assert path.stat().st_size == report.chosen_candidate.num_bytes


def test_few_patches_are_not_tried_with_integer_scores(quantized):
    report = json.loads((quantized.parent / "tiny.quantization.json").read_text(encoding="utf-8"))
    assert not any(item["integer_scores"] for item in report["candidates"])

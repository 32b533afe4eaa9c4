"""`ast-tag` with a file of `ast-export`: the scores of stock Transformers, and files that cannot be used."""

import json
import sys

import numpy as np
import pytest
import soundfile
import torch
import transformers
from onnx_files import LABELS, MAX_LENGTH, metadata

from modeling_ast import run_tagging
from modeling_ast.checkpoints.fields import CheckpointError
from modeling_ast.tagging.backends import OnnxBackend
from modeling_ast.tagging.tagger import AudioTagger, TaggingError

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

WINDOW = 400 + (MAX_LENGTH - 1) * 160
TOLERANCE = 1e-4  # of scores: float32 of another runtime


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder, generator = tmp_path_factory.mktemp("clips"), np.random.default_rng(0)
    for name, samples in {"short": 8_000, "long": 3 * WINDOW + 5_000}.items():
        waveform = np.cumsum(generator.normal(size=samples), dtype=np.float32) / 100
        soundfile.write(folder / f"{name}.wav", np.tanh(waveform - waveform.mean()), 16_000, subtype="FLOAT")
    return sorted(folder.iterdir())


def stock_scores(checkpoint, path, starts):
    waveform = soundfile.read(path, dtype="float32")[0]
    windows = [waveform[start : start + WINDOW] for start in starts]
    extractor = transformers.ASTFeatureExtractor.from_pretrained(checkpoint)
    model = transformers.ASTForAudioClassification.from_pretrained(checkpoint).eval()
    with torch.no_grad():
        return model(**extractor(windows, sampling_rate=16_000, return_tensors="pt")).logits.sigmoid().numpy()


def as_vector(labels):
    scores = {tag["label"]: tag["score"] for tag in labels}
    return np.array([scores[label] for label in LABELS])


def test_scores_are_those_of_stock_transformers(checkpoint, exported, clips, capsys):
    command = [*map(str, clips), "--model_name_or_path", str(exported), "--format", "jsonl"]
    assert run_tagging.main(command) == 0
    long, short = map(json.loads, capsys.readouterr().out.splitlines())
    starts = [0, WINDOW, 2 * WINDOW, 2 * WINDOW + 5_000]
    of_windows = stock_scores(checkpoint, clips[0], starts)
    assert np.ptp(of_windows, axis=0).max() > 0.01  # otherwise any window would do
    np.testing.assert_allclose(as_vector(long["labels"]), of_windows.mean(axis=0), atol=TOLERANCE)
    np.testing.assert_allclose(as_vector(short["labels"]), stock_scores(checkpoint, clips[1], [0])[0], atol=TOLERANCE)


def with_metadata(path, source, **changes):
    """A copy of the file with other metadata; what is `None` is left out."""
    model = onnx.load(source)
    entries = {name: value for name, value in (metadata(source) | changes).items() if value is not None}
    onnx.helper.set_model_props(model, entries)
    onnx.save(model, path)
    return path


@pytest.mark.parametrize(("padding", "masks"), [("max_length", "true"), ("longest", "false"), ("longest", "true")])
def test_padding_is_masked_as_the_file_says(checkpoint, exported, clips, tmp_path, padding, masks):
    path = with_metadata(tmp_path / "a.onnx", exported, padding=padding, return_attention_mask=masks)
    tagger = AudioTagger.from_pretrained(checkpoint, "cpu")
    tagger.feature_extractor.padding = padding
    tagger.feature_extractor.return_attention_mask = masks == "true"
    (plain,) = AudioTagger.from_pretrained(checkpoint, "cpu").tag_files(clips[1:])
    (expected,), (found,) = tagger.tag_files(clips[1:]), AudioTagger.from_pretrained(path).tag_files(clips[1:])
    assert {tag.label: tag.score for tag in found.labels} == pytest.approx(
        {tag.label: tag.score for tag in expected.labels}, abs=TOLERANCE
    )
    assert {tag.label: tag.score for tag in plain.labels} != pytest.approx(
        {tag.label: tag.score for tag in expected.labels}, abs=TOLERANCE
    )


def test_thresholds_channels_and_rate_are_those_of_the_file(exported, tmp_path):
    thresholds = dict.fromkeys(LABELS, 0.25)
    changes = {"label_thresholds": json.dumps(thresholds), "channels": '"left"', "sampling_rate": "32000"}
    tagger = AudioTagger.from_pretrained(with_metadata(tmp_path / "a.onnx", exported, **changes))
    assert tagger.config.label_thresholds == thresholds
    assert (tagger.reader.channels, tagger.reader.sampling_rate, tagger.sampling_rate) == ("left", 32_000, 32_000)
    assert tagger.window_samples == 2 * WINDOW
    assert tagger.problem_type == "multi_label_classification"
    assert AudioTagger.from_pretrained(exported, channels=2).reader.channels == 2


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"id2label": None, "mean": None}, "a.onnx has no id2label, no mean in its metadata. Export the model again"),
        ({"id2label": "{"}, "a.onnx: id2label='{' in its metadata is no JSON"),
        ({"max_length": "-3"}, "a.onnx: max_length=-3 is not a whole number from 1"),
        ({"problem_type": "other"}, "a.onnx: problem_type='other' is not one of regression"),
        ({"id2label": "null"}, "a.onnx: id2label=None is not an object of the indices"),
        (
            {"id2label": json.dumps(dict(enumerate([*LABELS, "x"])))},
            "a.onnx: id2label has 4 labels and the graph gives scores of 3",
        ),
        ({"max_length": "7"}, "a.onnx: max_length=7 is less than one patch of 16"),
        ({"num_mel_bins": "64"}, "a.onnx: num_mel_bins is 64 and the graph takes 128"),
        ({"channels": '"foo"'}, "a.onnx: channels='foo' is none of mean, left, right"),
        ({"resampler": "foo"}, "a.onnx: resampler='foo' is not known here"),
        ({"label_thresholds": '{"z": 0.5}'}, "a.onnx: label_thresholds has one for 'z'"),
        ({"event_rules": '{"clap": {"on": 2}}'}, "a.onnx: event_rules has on=2 for 'clap'"),
        ({"head": "frames"}, "a.onnx: head='frames' is there and the scores are of clips"),
    ],
)
def test_metadata_that_do_not_do_are_told(exported, tmp_path, changes, words):
    with pytest.raises(CheckpointError, match=words) as told:
        OnnxBackend(with_metadata(tmp_path / "a.onnx", exported, **changes))
    assert "xport the model again with ast-export" in str(told.value)


def test_a_file_of_before_there_were_waveforms_is_used_as_it_was(exported, clips, tmp_path, capsys):
    since = ("input", "hop_seconds", "window_seconds", "head", "event_rules", "license", "figures")
    old = with_metadata(tmp_path / "old.onnx", exported, **dict.fromkeys(since))
    assert not metadata(old).keys() & set(since)
    printed = []
    for path in (exported, old):
        flags = ["--model_name_or_path", str(path), "--format", "jsonl", "--timeline"]
        assert run_tagging.main([*map(str, clips), *flags]) == 0
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1]
    assert printed[0].count("labels") == len(clips)


@pytest.mark.parametrize("content", [b"", b"no model" * 9, None])
def test_what_is_no_exported_file_is_refused(tmp_path, capsys, content):
    path = tmp_path / "a.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SystemExit) as ended:
        run_tagging.main(["/dev/null", "--model_name_or_path", str(path)])
    assert ended.value.code == 2
    words = "cannot be opened by ONNX Runtime" if content is not None else "cannot be read: No such file or directory"
    assert f"{path} {words}" in capsys.readouterr().err


def test_a_model_of_others_is_refused(tmp_path):
    float_type = onnx.TensorProto.FLOAT
    ends = [onnx.helper.make_tensor_value_info(name, float_type, [1]) for name in ("x", "y")]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "g", ends[:1], ends[1:])
    onnx.save(
        onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=9),
        tmp_path / "a.onnx",
    )
    with pytest.raises(CheckpointError, match="takes x and gives y, expected input_values, attention_mask and logits"):
        OnnxBackend(tmp_path / "a.onnx")


def test_without_onnxruntime_it_is_told_what_to_type(exported, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(
        TaggingError, match=r"tiny.onnx needs onnxruntime, which cannot be imported .* Type: pip install"
    ):
        AudioTagger.from_pretrained(exported)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--compile"], "--compile is about models in PyTorch"),
        (["--tokens_merged_per_layer", "2"], "--tokens_merged_per_layer is about models in PyTorch"),
        (["--device", "cuda"], "runs in ONNX Runtime on the CPU, not on 'cuda'"),
        (["--embeddings", "file", "--embeddings_output", "x.npy"], "An ONNX file gives scores alone"),
    ],
)
def test_what_only_pytorch_can_is_refused(exported, clips, capsys, flags, words):
    with pytest.raises(SystemExit) as ended:
        run_tagging.main([str(clips[1]), "--model_name_or_path", str(exported), *flags])
    assert ended.value.code == 2
    assert words in capsys.readouterr().err

"""A tiny checkpoint that stock Transformers made, and the files that `ast-export` makes of it, once for all tests here."""

import shutil

import pytest
import torch
import transformers
from filelock import FileLock
from onnx_files import LABELS, MAX_LENGTH, noise
from varied_model import vary_scores

from modeling_ast import ASTFeatureExtractor, ASTForAudioClassification, export_onnx, quantization, run_export

onnx = pytest.importorskip("onnx")


@pytest.fixture(scope="session")
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


@pytest.fixture(scope="session")
def model(checkpoint):
    return ASTForAudioClassification.from_pretrained(checkpoint).eval()


@pytest.fixture(scope="session")
def extractor(checkpoint):
    return ASTFeatureExtractor.from_pretrained(checkpoint)


@pytest.fixture(scope="session")
def exported(checkpoint, tmp_path_factory, worker_id):
    """The float32 file, from the command line; one process of the tests makes it for all of them."""
    base = tmp_path_factory.getbasetemp()
    path = (base if worker_id == "master" else base.parent) / "exported" / "tiny.onnx"
    with FileLock(path.parent.with_suffix(".lock")):
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            assert run_export.main([str(checkpoint), str(path)]) == 0
    return path


@pytest.fixture(scope="session")
def heard(checkpoint, exported, tmp_path_factory):
    """The float32 file from samples to scores, of the transformer that is there already."""
    path = tmp_path_factory.mktemp("waveform") / "heard.onnx"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export_onnx, "checked_onnx", lambda _model, _extractor: (onnx.load(exported), 0.0))
        assert run_export.main([str(checkpoint), str(path), "--waveform"]) == 0
    return path


@pytest.fixture(scope="session")
def recordings(tmp_path_factory, drum_rows):
    folder = tmp_path_factory.mktemp("recordings")
    for row in drum_rows[::20]:
        shutil.copy(row["path"], folder)
    return folder


@pytest.fixture(scope="session")
def quantized(checkpoint, exported, recordings, tmp_path_factory):
    """The 8-bit file, from the command line, of the float32 file that is there already."""
    path = tmp_path_factory.mktemp("int8") / "tiny.onnx"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quantization, "checked_onnx", lambda _model, _extractor: (onnx.load(exported), 0.0))
        assert run_export.main([str(checkpoint), str(path), "--int8", "--clips", str(recordings)]) == 0
    return path


@pytest.fixture
def without_export(monkeypatch, exported):
    """Leave out the slow way to the float32 file, which is there already."""
    for module in (export_onnx, quantization):
        monkeypatch.setattr(module, "checked_onnx", lambda _model, _extractor: (onnx.load(exported), 0.0))

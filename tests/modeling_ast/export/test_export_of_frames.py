"""A frame head in ONNX Runtime against PyTorch's logits of each clip alone, and what the file says of its frames."""

import json

import numpy as np
import pytest
import torch
from onnx_files import LABELS, MAX_LENGTH, metadata, noise, run

from modeling_ast import ASTConfig, ASTFeatureExtractor, ASTForAudioFrameClassification, run_export
from modeling_ast.loading import CheckpointError, load_checkpoint
from modeling_ast.tagging.tagger import AudioTagger

pytestmark = pytest.mark.long  # one more graph is exported
pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


RULES = {LABELS[1]: {"on": 0.2, "min_duration": 0.2}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    torch.manual_seed(0)
    labels = dict(enumerate(LABELS))
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    model = ASTForAudioFrameClassification(ASTConfig(**sizes, max_length=MAX_LENGTH, id2label=labels))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    model.config.label_thresholds = {LABELS[0]: 0.3}
    model.config.event_rules = RULES
    path = tmp_path_factory.mktemp("frames")
    model.save_pretrained(path)
    ASTFeatureExtractor(max_length=MAX_LENGTH, mean=-5.5, std=3.25).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def exported(folder):
    path = folder / "frames.onnx"
    assert run_export.main([str(folder), str(path)]) == 0
    return path


def test_frames_of_each_clip_of_a_batch_are_those_of_pytorch(folder, exported):
    model, _ = load_checkpoint(folder, frame_heads=True)
    assert type(model) is ASTForAudioFrameClassification
    for lengths in ((16,), (96,), (150, 100, 7), (96, 40, 26)):
        values = np.concatenate([noise(max(lengths), seed) for seed in range(len(lengths))])
        mask = (np.arange(values.shape[1]) < np.array(lengths)[:, None]).astype(np.int64)
        found = run(exported, values, mask)
        assert found.shape == (len(lengths), (max(lengths) - 16) // 10 + 1, len(LABELS))
        for clip, frames in enumerate(lengths):
            with torch.no_grad():
                alone = model.eval()(torch.from_numpy(values[clip : clip + 1, : max(frames, 16)])).logits[0].numpy()
            np.testing.assert_allclose(found[clip, : len(alone)], alone, atol=1e-4, rtol=1e-4)


def test_the_file_says_what_its_rows_are(exported):
    entries = metadata(exported)
    assert (entries["head"], entries["frame_seconds"], entries["time_stride"]) == ("frames", "0.1", "10")
    assert float(entries["first_frame_end"]) == pytest.approx(0.1375)
    assert entries["problem_type"] == "multi_label_classification"
    assert json.loads(entries["event_rules"]) == RULES
    assert AudioTagger.from_pretrained(exported, frame_heads=True).config.event_rules == RULES
    assert json.loads(entries["label_thresholds"]) == {"clap": 0.3, "Überschlag": 0.5, "tom-tom": 0.5}


def test_what_needs_clips_refuses_frames_by_name(folder, exported, tmp_path, capsys):
    for given in (folder, exported):
        with pytest.raises(CheckpointError, match="has a frame head, which tells labels of frames and not of clips"):
            AudioTagger.from_pretrained(given)
    assert run_export.main([str(folder), str(tmp_path / "frames.onnx"), "--int8"]) == 2
    assert "leave --int8 out" in capsys.readouterr().err


def test_the_file_tags_as_the_folder_does(folder, exported, drum_rows):
    files = [row["path"] for row in drum_rows[:400:80]]
    of_folder, of_file = (
        list(
            AudioTagger.from_pretrained(given, "cpu", frame_heads=True).tag_files(files, timeline=True, threshold=0.2)
        )
        for given in (folder, exported)
    )
    assert sum(len(tags.segments) for tags in of_folder) > 5
    for expected, found in zip(of_folder, of_file, strict=True):
        assert [(each.start, each.end, each.label) for each in found.segments] == [
            (each.start, each.end, each.label) for each in expected.segments
        ]
        scores = [each.score for each in expected.segments]
        assert [each.score for each in found.segments] == pytest.approx(scores, abs=1e-4)

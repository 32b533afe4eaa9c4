"""`register()` and `unregister()`: whose classes the Auto classes and the pipeline return."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    AudioClassificationPipeline,
    AutoConfig,
    AutoFeatureExtractor,
    AutoModel,
    AutoModelForAudioClassification,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForSequenceClassification,
    pipeline,
)

from modeling_ast import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification, register, unregister

AUTO_CLASSES = (AutoConfig, AutoFeatureExtractor, AutoModel, AutoModelForAudioClassification)


@pytest.fixture
def checkpoint(tiny_sizes, tmp_path):
    torch.manual_seed(0)
    model = ASTForAudioClassification(
        ASTConfig(**tiny_sizes, num_labels=3, problem_type="single_label_classification")
    )
    model.save_pretrained(tmp_path)
    ASTFeatureExtractor(max_length=96).save_pretrained(tmp_path)
    return str(tmp_path)


@pytest.fixture(autouse=True)
def _restore():
    yield
    unregister()


def packages(checkpoint: str) -> set[str]:
    return {type(auto.from_pretrained(checkpoint)).__module__.split(".")[0] for auto in AUTO_CLASSES}


def test_registering_twice_and_back_twice(checkpoint):
    assert packages(checkpoint) == {"transformers"}
    for _ in range(2):
        register()
        assert packages(checkpoint) == {"modeling_ast"}
    for _ in range(2):
        unregister()
        assert packages(checkpoint) == {"transformers"}
    assert type(pipeline("audio-classification", model=checkpoint)) is AudioClassificationPipeline


def test_the_pipeline_decodes_paths_and_bytes_without_the_ffmpeg_program(
    checkpoint, drum_rows, drum_clips, monkeypatch
):
    path = drum_rows[0]["path"]
    expected = pipeline("audio-classification", model=checkpoint)(drum_clips[0], top_k=None)
    monkeypatch.setenv("PATH", "")
    register()
    classifier = pipeline("audio-classification", model=checkpoint)
    with open(path, "rb") as file:
        content = file.read()
    for given in (path, Path(path), content, drum_clips[0], {"array": drum_clips[0], "sampling_rate": 16_000}):
        answers = classifier(given, top_k=None)
        assert [answer["label"] for answer in answers] == [answer["label"] for answer in expected]
        for answer, wanted in zip(answers, expected, strict=True):
            assert answer["score"] == pytest.approx(wanted["score"], abs=1e-5)


def test_other_models_keep_the_stock_pipeline(tmp_path):
    config = Wav2Vec2Config(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, conv_dim=(8,),
        conv_kernel=(10,), conv_stride=(160,), num_feat_extract_layers=1, num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2, classifier_proj_size=8,
    )  # fmt: skip
    Wav2Vec2ForSequenceClassification(config).save_pretrained(tmp_path)
    Wav2Vec2FeatureExtractor().save_pretrained(tmp_path)
    register()
    classifier = pipeline("audio-classification", model=str(tmp_path))
    assert type(classifier) is AudioClassificationPipeline
    assert len(classifier(np.zeros(16_000, np.float32))) == 2

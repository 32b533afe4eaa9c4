"""`register()` and `unregister()`: whose classes the Auto classes and the pipeline return."""

import io
import shutil
from collections import deque
from pathlib import Path

import datasets
import evaluate
import numpy as np
import pytest
import soundfile
import torch
import torchaudio
import torchcodec
import transformers
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
from transformers.pipelines.pt_utils import KeyDataset

from modeling_ast import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification, register, registration, unregister

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


@pytest.fixture
def classifier(checkpoint):
    register()
    return pipeline("audio-classification", model=checkpoint, top_k=None)


@pytest.fixture
def paths(drum_rows):
    return [row["path"] for row in drum_rows[:100:20]]


def scores(answers: list[dict]) -> list[float]:
    return [answer["score"] for answer in sorted(answers, key=lambda answer: answer["label"])]


def in_integers(path: str) -> np.ndarray:
    return soundfile.read(path, dtype="int16")[0]


def with_rate(array, rate: int = 16_000) -> dict:
    return {"raw": array, "sampling_rate": rate}


needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="torchcodec decodes with FFmpeg's libraries")
FORMS = {
    "path": lambda path: path,
    "undecoded path": lambda path: {"bytes": None, "path": path},
    "undecoded bytes": lambda path: {"bytes": Path(path).read_bytes(), "path": None},
    "file object": lambda path: io.BytesIO(Path(path).read_bytes()),
    "decoder": lambda path: torchcodec.decoders.AudioDecoder(path),
    "decoded": lambda path: torchcodec.decoders.AudioDecoder(path).get_all_samples(),
    "int16": in_integers,
    "int16 tensor": lambda path: torch.from_numpy(in_integers(path)),
    "one channel": lambda path: in_integers(path)[None] / 2**15,
    "raw int16": lambda path: with_rate(in_integers(path)),
    "raw int16 tensor": lambda path: with_rate(torch.from_numpy(in_integers(path))),
    "raw int32": lambda path: with_rate(in_integers(path).astype(np.int32) * 2**16),
    "raw float64": lambda path: with_rate(in_integers(path) / 2**15),
    "raw float tensor of one channel": lambda path: with_rate(torch.from_numpy(in_integers(path) / 2**15)[None]),
    "list of floats": lambda path: with_rate((in_integers(path) / 2**15).tolist(), np.int64(16_000)),
    "array and path": lambda path: {"array": in_integers(path), "path": "", "bytes": None, "sampling_rate": 16_000},
}  # fmt: skip


@pytest.mark.parametrize(
    "form", [pytest.param(form, marks=[needs_ffmpeg] if form.startswith("decode") else []) for form in FORMS]
)
def test_audio_of_any_form_scores_as_its_file(checkpoint, classifier, paths, form):
    unregister()
    stock = pipeline("audio-classification", model=checkpoint, top_k=None)
    for path in paths[:2]:
        expected = scores(stock(soundfile.read(path, dtype="float32")[0]))
        assert scores(classifier(FORMS[form](path))) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("padding", ["max_length", "longest"])
@pytest.mark.parametrize(
    "several",
    [
        lambda dataset: dataset["audio"],
        lambda dataset: [row["audio"] for row in dataset],
        lambda dataset: deque(row["audio"] for row in dataset),
        lambda dataset: KeyDataset(dataset, "audio"),
        lambda dataset: (row["audio"] for row in dataset),
    ],
    ids=["column", "list", "sequence", "KeyDataset", "generator"],
)
@pytest.mark.parametrize("decode", [pytest.param(True, marks=needs_ffmpeg), False])
def test_columns_of_data_sets_in_batches_score_as_their_files(checkpoint, paths, several, decode, padding):
    ASTFeatureExtractor(max_length=96, padding=padding).save_pretrained(checkpoint)
    register()
    classifier = pipeline("audio-classification", model=checkpoint, top_k=None)
    dataset = datasets.Dataset.from_dict({"audio": paths}).cast_column("audio", datasets.Audio(decode=decode))
    expected = [scores(classifier(path)) for path in paths]
    found = [scores(answer) for answer in classifier(several(dataset), batch_size=3)]
    assert found == [pytest.approx(clip, abs=1e-5) for clip in expected]


def test_integers_of_another_rate_are_scaled_and_resampled(classifier, paths):
    samples = in_integers(paths[0])
    wanted = torchaudio.functional.resample(torch.from_numpy(samples / np.float32(2**15)), 32_000, 16_000).numpy()
    assert scores(classifier(with_rate(samples, 32_000))) == pytest.approx(scores(classifier(wanted)), abs=1e-6)
    content = io.BytesIO()
    soundfile.write(content, samples, 32_000, format="WAV")
    assert scores(classifier(content.getvalue())) == pytest.approx(scores(classifier(wanted)), abs=1e-6)


@needs_ffmpeg
def test_the_channels_of_a_decoder_are_averaged(classifier, paths):
    left, right = in_integers(paths[0])[:2400], in_integers(paths[1])[:2400]
    content = io.BytesIO()
    soundfile.write(content, np.stack([left, right], axis=1), 16_000, format="WAV")
    expected = scores(classifier((left / 2**15 + right / 2**15) / 2))
    assert scores(classifier(torchcodec.decoders.AudioDecoder(content.getvalue()))) == pytest.approx(
        expected, abs=1e-5
    )


@needs_ffmpeg
def test_a_decoder_that_gives_less_than_its_file_is_said(classifier, paths, monkeypatch, caplog):
    monkeypatch.setattr(registration.logger, "propagate", True)
    decoder = torchcodec.decoders.AudioDecoder(paths[0])
    classifier(decoder)
    assert not caplog.text
    whole = decoder.get_all_samples()
    half = torchcodec.AudioSamples(whole.data[:, ::2], 0.0, whole.duration_seconds / 2, whole.sample_rate)
    monkeypatch.setattr(decoder, "get_all_samples", lambda: half)
    classifier(decoder)
    assert f"gives {half.duration_seconds:.2f} s of audio, of {whole.duration_seconds:.2f} s by" in caplog.text


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (np.zeros((2, 8000), np.float32), r"shape \(2, 8000\), expected a single channel.*audio\.mean\(axis=0\)"),
        (with_rate(torch.zeros(8000, 2)), r"shape \(8000, 2\), expected a single channel.*audio\.mean\(axis=1\)"),
        ({"array": np.zeros(8000)}, "dictionary with 'array' and without 'sampling_rate'"),
        ({"audio": None, "label": 0}, r"keys \['audio', 'label'\], expected 'array'.*row\['audio'\]"),
        (with_rate([1, 2, 3] * 400), r"dtype int64, expected floats in \[-1, 1\]"),
        (with_rate(np.arange(8000, dtype=np.int32)), "dtype int32 and no sample beyond 7999.*astype"),
        (with_rate(np.zeros(8000), 0), "sampling rate 0, expected a whole number"),
        (with_rate([[0.0], [0.0, 0.0]]), "no array of numbers"),
        ([0.0, 0.1], "The audio is a float, expected a path"),
        (None, "The audio is a NoneType, expected a path"),
    ],
)
def test_what_is_no_clip_is_refused_in_words(classifier, given, message):
    with pytest.raises(ValueError, match=message):
        classifier(given)


class Accuracy(evaluate.Metric):
    """As `evaluate.load("accuracy")`, which needs the Hub."""

    def _info(self):
        features = datasets.Features({name: datasets.Value("int32") for name in ("predictions", "references")})
        return evaluate.MetricInfo(description="", citation="", features=features)

    def _compute(self, predictions, references):
        return {"accuracy": float(np.mean(np.array(predictions) == references))}


@pytest.mark.parametrize("decode", [pytest.param(True, marks=needs_ffmpeg), False])
@pytest.mark.parametrize("given", ["checkpoint", "pipeline"])
def test_evaluators_take_an_audio_column(checkpoint, classifier, paths, given, decode):
    best = [max(classifier(path), key=lambda answer: answer["score"])["label"] for path in paths]
    labels = [int(label.removeprefix("LABEL_")) for label in best]
    labels[0] += 1  # so that one of five is wrong
    dataset = datasets.Dataset.from_dict({"audio": paths, "label": labels})
    result = evaluate.evaluator("audio-classification").compute(
        checkpoint if given == "checkpoint" else classifier,
        dataset.cast_column("audio", datasets.Audio(decode=decode)),
        metric=Accuracy(),
        input_column="audio",
        label_mapping={f"LABEL_{index}": index for index in range(3)},
    )
    assert result["accuracy"] == 0.8
    unregister()
    assert not hasattr(transformers, "TFPreTrainedModel")

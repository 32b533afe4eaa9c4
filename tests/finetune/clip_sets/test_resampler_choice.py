"""Which resampler a new checkpoint names."""

import dataclasses
from types import SimpleNamespace

import pytest

from finetune.arguments.groups import DataArguments, ModelArguments
from finetune.results import summary_sections
from finetune.runs.preparation import build_feature_extractor
from modeling_ast import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification


@pytest.mark.parametrize(
    ("start", "flag", "expected"),
    [
        (None, None, "soxr"),
        (None, "torchaudio", "torchaudio"),
        ("unnamed", None, "soxr"),  # a fine-tune of a checkpoint of the Hub is a new checkpoint
        ("unnamed", "torchaudio", "torchaudio"),
        ("torchaudio", None, "torchaudio"),
        ("torchaudio", "soxr", "soxr"),
        ("soxr", None, "soxr"),
    ],
)
def test_the_resampler_of_a_training(tmp_path, start, flag, expected):
    model = ModelArguments()
    if start:
        ASTFeatureExtractor(resampler=None if start == "unnamed" else start).save_pretrained(tmp_path)
        sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
        ASTForAudioClassification(ASTConfig(**sizes, max_length=32)).save_pretrained(tmp_path)
        model = dataclasses.replace(model, model_name_or_path=str(tmp_path))
    extractor = build_feature_extractor(model, DataArguments(dataset_name="clips", resampler=flag))
    assert extractor.resampler == expected
    assert extractor.audio_reader().resampler == expected


def test_an_unknown_resampler_is_refused():
    with pytest.raises(ValueError, match=r"resampler='sinc' is not known here, expected 'soxr' or 'torchaudio'"):
        DataArguments(dataset_name="clips", resampler="sinc")


def test_a_resampler_without_audio_is_refused():
    with pytest.raises(ValueError, match=r"resampler concern\(s\) audio.*Leave out --resampler"):
        DataArguments(dataset_name="clips", features_column_name="features", resampler="soxr")


def test_a_run_from_before_resamplers_were_named_goes_on_with_torchaudio_only():
    clips = SimpleNamespace(digest=lambda: "", windows="beginning")

    def features_of(**resampler):
        summary = {"training": {}, "seed": 0, "labels": [], "model": {}, "features": {"mean": 0.0} | resampler}
        return summary_sections.identity(summary, {"train": clips, "eval": clips})["features"]

    assert features_of(resampler="torchaudio") == features_of()
    assert features_of(resampler="soxr") != features_of()

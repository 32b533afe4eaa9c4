"""A checkpoint, recordings of noise, and a folder of what was embedded of them, which no test here changes."""

import shutil

import numpy as np
import pytest
import soundfile
import torch

from modeling_ast import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification, run_embedding

SECONDS = (0.4, 0.97, 3.3, 1.3, 5.1, 0.7)  # of recordings; the model hears 0.975 s


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory, make_checkpoint):
    return make_checkpoint(tmp_path_factory.mktemp("model"), 0)


@pytest.fixture(scope="session")
def make_checkpoint():
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}

    def make(folder, seed):
        torch.manual_seed(seed)
        ASTForAudioClassification(ASTConfig(**sizes, max_length=96, num_labels=3)).save_pretrained(folder)
        ASTFeatureExtractor(max_length=96).save_pretrained(folder)
        return folder

    return make


@pytest.fixture(scope="session")
def recordings(tmp_path_factory):
    """Two folders of noise, each recording of its own colour, which changes every half second."""
    folder = tmp_path_factory.mktemp("recordings")
    files = []
    for number, seconds in enumerate(SECONDS):
        draw = np.random.default_rng(number)
        parts = [
            np.convolve(draw.normal(size=8_000), draw.normal(size=12), mode="same")
            for _ in range(int(2 * seconds) + 1)
        ]
        waveform = np.concatenate(parts)[: round(seconds * 16_000)] / 30
        file = folder / ("even" if number % 2 == 0 else "odd") / f"{number}.wav"
        file.parent.mkdir(exist_ok=True)
        soundfile.write(file, waveform, 16_000, subtype="FLOAT")
        files.append(file)
    return files


@pytest.fixture(scope="session")
def embed(checkpoint):
    def call(output, *words):
        flags = ("--output", output, "--model_name_or_path", checkpoint, "--device", "cpu")
        return run_embedding.main([str(word) for word in (*words, *flags)])

    return call


@pytest.fixture(scope="session")
def library(tmp_path_factory, recordings, embed):
    folder = tmp_path_factory.mktemp("kept") / "library"
    assert embed(folder, *recordings) == 0
    return folder


@pytest.fixture
def copied(library, tmp_path):
    return shutil.copytree(library, tmp_path / "copied")

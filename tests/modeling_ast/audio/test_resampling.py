"""Resampling: expectations come from torchaudio in float32 and float64, from soxr, from the program sox, and from tones."""

import io
import json
import math
import shutil
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import soxr
import torch
import torchaudio
from transformers import ASTFeatureExtractor as StockFeatureExtractor

from modeling_ast import ASTFeatureExtractor
from modeling_ast.audio import RESAMPLERS, AudioError, AudioReader, read_audio
from modeling_ast.audio import resampling as resampling_module
from modeling_ast.audio.resampling import resample

USUAL_RATES = (
    8_000,
    11_025,
    12_000,
    22_050,
    24_000,
    32_000,
    44_100,
    48_000,
    88_200,
    96_000,
    192_000,
    384_000,
    500_000,
)
ODD_RATES = (1_001, 11_127, 24_414, 44_117, 96_001, 192_013, 499_979)
KERNEL_OF_44100 = 160 * (441 + 2 * 17)  # values


def noise(samples):
    return np.random.default_rng(0).standard_normal(samples, np.float32) / 4


def wav(waveform, rate):
    encoded = io.BytesIO()
    soundfile.write(encoded, waveform, rate, format="WAV", subtype="FLOAT")
    return encoded.getvalue()


def formula(waveform, old, new, places):
    """Samples of the result at some places by torchaudio's documentation: sinc and Hann window of 6 zeros, in float64."""
    base = 0.99 * min(old, new)
    crossings = base * (np.arange(len(waveform)) / old - np.array(places)[:, None] / new)
    window = np.where(np.abs(crossings) < 6, np.cos(np.pi * crossings / 12) ** 2, 0)
    return (np.sinc(crossings) * window * base / old) @ waveform.astype(np.float64)


@pytest.mark.parametrize("rate", USUAL_RATES)
def test_usual_rates_are_torchaudios_bit_for_bit(rate):
    waveform = noise(rate // 4 + 17)
    expected = torchaudio.functional.resample(torch.from_numpy(waveform), rate, 16_000).numpy()
    np.testing.assert_array_equal(resample(waveform, rate, 16_000, "torchaudio"), expected)
    np.testing.assert_array_equal(resample(waveform, rate, 16_000), expected)  # where a checkpoint names none


@pytest.mark.parametrize("rate", [8_000, 44_100])
@pytest.mark.parametrize("rows", [2, 2.0001, 3.5])  # blocks of the result
def test_long_waveforms_are_torchaudios_bit_for_bit(rate, rows):
    waveform = noise(int(rows * resampling_module.BLOCK_VALUES * rate / 16_000))
    expected = torchaudio.functional.resample(torch.from_numpy(waveform), rate, 16_000).numpy()
    np.testing.assert_array_equal(resample(waveform, rate, 16_000), expected)


@pytest.mark.parametrize(("old", "new"), [(1201, 1600), (2441, 1600), (3001, 1003), (1001, 1600), (16_001, 1000)])
def test_other_rates_are_torchaudios_formula(old, new, monkeypatch):
    """In float64 torchaudio computes its kernel exactly; in float32 it is itself 1e-5 to 4e-4 away from that."""
    monkeypatch.setattr(resampling_module, "LARGEST_KERNEL", 0)
    waveform = noise(3 * old + 5)
    expected = torchaudio.functional.resample(torch.from_numpy(waveform).double(), old, new).numpy()
    np.testing.assert_allclose(resample(waveform, old, new, "torchaudio"), expected, rtol=0, atol=1e-6)  # float32


@pytest.mark.parametrize("rate", ODD_RATES)
def test_other_rates_to_16_khz_at_some_places(rate):
    waveform = noise(rate // 2)
    heard = resample(waveform, rate, 16_000, "torchaudio")
    assert len(heard) == math.ceil(len(waveform) * 16_000 / rate)
    places = [0, 1, 2, 3, 4, 5, 1234, 4321, len(heard) - 3, len(heard) - 1]
    np.testing.assert_allclose(heard[places], formula(waveform, rate, 16_000, places), rtol=0, atol=1e-6)  # float32


@pytest.mark.parametrize("rate", [44_100, 96_000, *ODD_RATES])
def test_soxr_is_its_high_quality(rate):
    waveform = noise(rate)
    np.testing.assert_array_equal(
        resample(waveform, rate, 16_000, "soxr"), soxr.resample(waveform, rate, 16_000, quality="HQ")
    )


@pytest.mark.skipif(shutil.which("sox") is None, reason="the program sox is not installed")
@pytest.mark.parametrize("rate", [11_127, 44_100, 48_000])
def test_soxr_is_near_the_program_sox(tmp_path, rate):
    (tmp_path / "given.wav").write_bytes(wav(noise(rate), rate))
    command = ["sox", "-V1", "given.wav", "-e", "float", "-b", "32", "made.wav", "rate", "-h", "16000"]
    subprocess.run(command, check=True, cwd=tmp_path)
    expected, _ = soundfile.read(tmp_path / "made.wav", dtype="float32")
    heard = resample(noise(rate), rate, 16_000, "soxr")
    assert len(heard) == len(expected)
    inner = slice(500, -500)  # the two differ in what is before and after the waveform
    difference = np.sqrt(np.square(heard - expected)[inner].mean() / np.square(expected).mean())
    assert difference < 0.02  # of noise of all frequencies; torchaudio's is 0.27 at 44.1 kHz


@pytest.mark.parametrize("rate", [44_100, 48_000, 44_117])
@pytest.mark.parametrize(("resampler", "least", "most"), [("soxr", -1000, -100), ("torchaudio", -11.5, -10)])
def test_a_tone_above_half_the_rate(resampler, least, most, rate):
    """8.5 kHz cannot be heard at 16 kHz; what is left of it sounds at 7.5 kHz."""
    tone = (np.sin(2 * np.pi * 8_500 * np.arange(rate) / rate) / 2).astype(np.float32)
    heard = resample(tone, rate, 16_000, resampler)[2000:-2000]
    turns = np.exp(-2j * np.pi * 7_500 * np.arange(len(heard)) / 16_000) * np.hanning(len(heard))
    level = 20 * np.log10(2 * abs((heard * turns).sum()) / np.hanning(len(heard)).sum() / 0.5)
    assert least < level < most


@pytest.mark.parametrize("rate", ODD_RATES)
def test_memory_of_torchaudios_formula_is_bounded(rate, monkeypatch):
    """Counted in values: the kernel at most twice that of 44.1 kHz, and never more than a block of windows at a time."""
    divisor = math.gcd(rate, 16_000)
    kernel = resampling_module._piecewise_kernel(rate // divisor, 16_000 // divisor)
    assert kernel.coefficients.numel() <= 2 * KERNEL_OF_44100
    largest, plain = [], torch.Tensor.index_select

    def counted(windows, *args):
        largest.append(plain(windows, *args).numel())
        return plain(windows, *args)

    monkeypatch.setattr(torch.Tensor, "index_select", counted)
    resample(noise(rate), rate, 16_000, "torchaudio")
    assert 0 < max(largest) <= resampling_module.BLOCK_VALUES


@pytest.mark.parametrize("rate", ODD_RATES)
def test_work_of_torchaudios_formula_is_bounded(rate):
    """Counted in products for a sample: at most twice those of 44.1 kHz, of which torchaudio's kernel needs 475."""
    divisor = math.gcd(rate, 16_000)
    kernel = resampling_module._piecewise_kernel(rate // divisor, 16_000 // divisor)
    products = kernel.coefficients.numel() / resampling_module.OUTPUTS_PER_ROW  # for a sample of the result
    assert products / max(1, rate / 44_100) <= 2 * 475


def test_the_table_of_torchaudio_is_not_made_where_it_is_large(monkeypatch):
    monkeypatch.setattr(resampling_module, "_torchaudio_kernel", None)
    for rate in ODD_RATES:
        assert len(resample(noise(100), rate, 16_000, "torchaudio"))


@pytest.mark.parametrize("resampler", RESAMPLERS)
@pytest.mark.parametrize("rate", [1_001, 11_025, 44_100, 44_117, 499_979])
@pytest.mark.parametrize("samples", [1, 2, 3, 7])
def test_few_samples_give_at_least_one(resampler, rate, samples):
    heard = resample(noise(samples), rate, 16_000, resampler)
    assert heard.dtype == np.float32
    assert len(heard) == pytest.approx(samples * 16_000 / rate, abs=1)
    assert len(heard) >= 1
    assert np.isfinite(heard).all()
    assert not len(resample(noise(0), rate, 16_000, resampler))


@pytest.mark.parametrize("resampler", RESAMPLERS)
@pytest.mark.parametrize("rate", [8_000, 11_127, 44_100, 44_117])
def test_the_beginning_of_a_long_file_is_that_of_the_whole(tmp_path, resampler, rate):
    path = tmp_path / "long.wav"
    soundfile.write(path, noise(70 * rate), rate)
    reader = AudioReader(resampler=resampler)
    beginning = reader.read(path, max_samples=48_000)
    assert len(beginning) < 65 * 16_000
    np.testing.assert_array_equal(beginning[:48_000], reader.read(path)[:48_000])


@pytest.mark.parametrize("resampler", RESAMPLERS)
def test_arrays_of_any_layout(resampler):
    stereo = np.stack([noise(4410), noise(4410)], axis=1)
    expected = resample(noise(4410), 44_100, 16_000, resampler)
    np.testing.assert_array_equal(resample(stereo[:, 1], 44_100, 16_000, resampler), expected)
    np.testing.assert_array_equal(resample(noise(4410)[::-1].copy()[::-1], 44_100, 16_000, resampler), expected)


@pytest.mark.parametrize("rate", [0, -16_000, 999, 500_001, 44_100.5, float("nan"), float("inf"), True, "44100", None])
def test_rates_that_are_none(rate):
    with pytest.raises(ValueError, match=r"has a sampling rate of .* Hz, expected a whole number from 1000 to 500000"):
        resample(noise(10), rate, 16_000)
    with pytest.raises(ValueError, match="The result has a sampling rate"):
        resample(noise(10), 16_000, rate)


def test_rates_of_other_types():
    expected = resample(noise(441), 44_100, 16_000)
    np.testing.assert_array_equal(resample(noise(441), np.int64(44_100), 16_000.0), expected)
    np.testing.assert_array_equal(resample(noise(441), 44_100.0, np.int32(16_000)), expected)


@pytest.mark.parametrize("rate", [800, 600_000])
def test_a_file_of_such_a_rate_is_named(tmp_path, rate):
    path = tmp_path / "clip.wav"
    path.write_bytes(wav(noise(1000), rate))
    with pytest.raises(
        AudioError, match=rf"clip.wav has a sampling rate of {rate} Hz, expected .* 500000\. Convert it"
    ):
        read_audio(path)


@pytest.mark.parametrize("name", ["sox", "", "SOXR", 1, ["soxr"]])
def test_unknown_resamplers(tmp_path, name):
    words = r"resampler=.* is not known here, expected 'soxr' or 'torchaudio'\."
    with pytest.raises(ValueError, match=words):
        resample(noise(10), 44_100, 16_000, name)
    with pytest.raises(ValueError, match=words):
        AudioReader(resampler=name)
    with pytest.raises(ValueError, match=words):
        ASTFeatureExtractor(resampler=name)
    ASTFeatureExtractor().save_pretrained(tmp_path)
    path = tmp_path / "preprocessor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"resampler": name}))
    with pytest.raises(
        ValueError, match=r"field resampler in .* preprocessor_config\.json|preprocessor_config\.json: resampler="
    ):
        ASTFeatureExtractor.from_pretrained(tmp_path)


def test_a_missing_soxr_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "soxr", None)
    with pytest.raises(ImportError, match=r"The resampler soxr is not installed .*\. Type pip install soxr\."):
        resample(noise(441), 44_100, 16_000, "soxr")


def test_what_a_checkpoint_names(tmp_path):
    """A checkpoint that names none is heard as before, and saved as before; stock Transformers loads one that does."""
    StockFeatureExtractor().save_pretrained(tmp_path)
    unnamed = ASTFeatureExtractor.from_pretrained(tmp_path)
    assert unnamed.audio_reader() == AudioReader(resampler="torchaudio")
    unnamed.save_pretrained(tmp_path)
    assert "resampler" not in json.loads((tmp_path / "preprocessor_config.json").read_text())

    ASTFeatureExtractor(resampler="soxr").save_pretrained(tmp_path)
    assert json.loads((tmp_path / "preprocessor_config.json").read_text())["resampler"] == "soxr"
    named = ASTFeatureExtractor.from_pretrained(tmp_path)
    assert named.audio_reader() == AudioReader(resampler="soxr")
    assert named.audio_reader(resampler="torchaudio") == AudioReader(resampler="torchaudio")
    clip = noise(16_000)
    np.testing.assert_allclose(
        StockFeatureExtractor.from_pretrained(tmp_path)(clip, 16_000, return_tensors="np")["input_values"],
        named(clip, 16_000, return_tensors="np")["input_values"],
        atol=1e-4,  # two float32 filter banks
    )


def test_the_reader_resamples_by_its_name():
    content = wav(noise(44_100), 44_100)
    for resampler in RESAMPLERS:
        expected = resample(noise(44_100), 44_100, 16_000, resampler)
        np.testing.assert_array_equal(AudioReader(resampler=resampler).read(content), expected)

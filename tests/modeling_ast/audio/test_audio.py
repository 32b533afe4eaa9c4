"""Decoding: expectations come from soundfile's writer, torchaudio's resampler and the ffmpeg program."""

import io
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
import torchaudio
from datasets import Audio, Dataset

from modeling_ast.audio import AudioError, audio_duration, find_audio_files, read_audio

DRUMS = Path(__file__).parents[3] / "finetune" / "sample_data" / "drums"
LOADING_FAILS = "Could not load libtorchcodec. Likely causes:\n 1. FFmpeg is not properly installed"

needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="the ffmpeg program is not installed")


def tone(seconds=0.5, rate=16_000, frequency=440):
    return (np.sin(2 * np.pi * frequency * np.arange(int(seconds * rate)) / rate) / 2).astype(np.float32)


def encode(samples, rate=16_000, audio_format="WAV", subtype=None):
    encoded = io.BytesIO()
    soundfile.write(encoded, samples, rate, format=audio_format, subtype=subtype)
    return encoded.getvalue()


def make_torchcodec_fail(monkeypatch, words=LOADING_FAILS):
    monkeypatch.setattr("modeling_ast.audio.ffmpeg.has_program", lambda: False)

    class FailingDecoder:
        def __init__(self, content):
            raise RuntimeError(words)

    monkeypatch.setattr("torchcodec.decoders.AudioDecoder", FailingDecoder)


@pytest.mark.parametrize(
    ("audio_format", "subtype", "tolerance"),
    [
        ("WAV", "PCM_16", 1 / 2**15),  # one quantisation step
        ("WAV", "FLOAT", 0),
        ("FLAC", "PCM_16", 1 / 2**15),
        ("AIFF", "PCM_24", 1 / 2**23),
        ("OGG", "VORBIS", 0.05),  # lossy
    ],
)
def test_formats_of_soundfile(tmp_path, audio_format, subtype, tolerance):
    path = tmp_path / f"tone.{audio_format.lower()}"
    path.write_bytes(encode(tone(), audio_format=audio_format, subtype=subtype))
    waveform = read_audio(path)
    assert waveform.dtype == np.float32
    assert waveform.shape == tone().shape
    np.testing.assert_allclose(waveform, tone(), atol=tolerance, rtol=0)


def test_mp3_keeps_the_tone():
    waveform = read_audio(encode(tone(1.0), audio_format="MP3"))
    spectrum = np.abs(np.fft.rfft(waveform))
    assert spectrum.argmax() * 16_000 / len(waveform) == pytest.approx(440, abs=5)


def test_every_kind_of_source_gives_the_same_samples(tmp_path):
    path = tmp_path / "tone.wav"
    path.write_bytes(encode(tone()))
    expected = read_audio(path)
    with open(path, "rb") as file:
        sources = [str(path), path.read_bytes(), file, {"bytes": path.read_bytes(), "path": "gone.wav"}]
        sources.append({"bytes": None, "path": str(path)})
        for source in sources:
            np.testing.assert_array_equal(read_audio(source), expected)


def test_undecoded_column_of_a_data_set(tmp_path):
    path = tmp_path / "tone.wav"
    path.write_bytes(encode(tone()))
    column = Dataset.from_dict({"audio": [str(path)]}).cast_column("audio", Audio(decode=False))["audio"]
    np.testing.assert_array_equal(read_audio(column[0]), read_audio(path))


def test_channels_are_averaged():
    left, right = tone(frequency=440), tone(frequency=880)
    stereo = np.stack([left, right], axis=1)
    waveform = read_audio(encode(stereo, subtype="FLOAT"))
    np.testing.assert_allclose(waveform, (left + right) / 2, atol=1e-7)  # float32 rounding


@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 48_000])
def test_resampling_is_torchaudios(rate):
    samples = tone(rate=rate)
    expected = torchaudio.functional.resample(torch.from_numpy(samples), rate, 16_000).numpy()
    waveform = read_audio(encode(samples, rate, subtype="FLOAT"))
    assert waveform.dtype == np.float32
    np.testing.assert_array_equal(waveform, expected)


def test_another_target_rate():
    samples = tone(rate=16_000)
    expected = torchaudio.functional.resample(torch.from_numpy(samples), 16_000, 32_000).numpy()
    np.testing.assert_array_equal(read_audio(encode(samples, subtype="FLOAT"), sampling_rate=32_000), expected)


def test_content_counts_and_not_the_suffix(tmp_path):
    path = tmp_path / "flac_called.raw"
    path.write_bytes(encode(tone(), audio_format="FLAC"))
    assert read_audio(path).shape == tone().shape


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "broken.wav is empty .0 bytes.*again"),
        (
            b"version https://git-lfs.github.com/spec/v1\n",
            r"broken.wav holds text \(a Git LFS pointer; git lfs pull gets the file\), not audio.*download",
        ),
        (encode(np.zeros(0, np.float32)), "broken.wav is an audio file without a single sample"),
        (encode(np.array([0.1, np.nan], np.float32), subtype="FLOAT"), "broken.wav contains NaN or infinite samples"),
        (encode(np.array([0.1, np.inf], np.float32), subtype="FLOAT"), "broken.wav contains NaN or infinite samples"),
    ],
    ids=["nothing", "text", "no sample", "NaN", "infinite"],  # libsndfile writes the time into the content
)
def test_unusable_files_are_named(tmp_path, content, words):
    path = tmp_path / "broken.wav"
    path.write_bytes(content)
    with pytest.raises(AudioError, match=words):
        read_audio(path)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(AudioError, match=rf"^There is no file {tmp_path}/gone.wav. Check the spelling.$"):
        read_audio(tmp_path / "gone.wav")
    with pytest.raises(AudioError, match=rf"^There is no file gone.wav, looked for as {Path.cwd()}/gone.wav. Check"):
        read_audio("gone.wav")
    with pytest.raises(AudioError, match="is a folder"):
        read_audio(tmp_path)
    with pytest.raises(AudioError, match="neither 'bytes' nor 'path' is set"):
        read_audio({"bytes": None, "path": None})
    with pytest.raises(TypeError, match=r"ndarray; pass a path"):
        read_audio(tone())


def test_name_is_used_in_errors():
    with pytest.raises(AudioError, match="row 7 is empty"):
        read_audio(b"", name="row 7")
    with pytest.raises(AudioError, match="row 8 is empty"):
        read_audio({"bytes": b"", "path": "a.wav"}, name="row 8")
    with pytest.raises(AudioError, match=r"a\.wav is empty"):
        read_audio({"bytes": b"", "path": "a.wav"})


def test_missing_ffmpeg_is_one_error_that_says_what_to_install(monkeypatch, tmp_path):
    make_torchcodec_fail(monkeypatch)
    path = tmp_path / "song.m4a"
    path.write_bytes(b"\0\0\0\x20ftypM4A \0\0\0\0" + bytes(100))
    words = r"song.m4a \(MP4/M4A\).*FFmpeg.*apt-get install ffmpeg.*brew install ffmpeg.*conda install"
    with pytest.raises(AudioError, match=words) as raised:
        read_audio(path)
    assert "\n" not in str(raised.value)


def test_torchcodec_that_does_not_import(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", None)
    monkeypatch.setattr("modeling_ast.audio.ffmpeg.has_program", lambda: False)
    with pytest.raises(AudioError, match="WebM/Matroska.*Install FFmpeg"):
        read_audio(b"\x1a\x45\xdf\xa3" + bytes(100))


def test_damaged_file_where_ffmpeg_is_there(monkeypatch):
    make_torchcodec_fail(monkeypatch, "Failed to open input buffer: Invalid data\nsecond line")
    with pytest.raises(
        AudioError, match="soundfile says 'Format not recognised', torchcodec says 'Failed to open"
    ) as raised:
        read_audio(bytes(1000), name="noise.m4a")
    assert "noise.m4a (unknown format, suffix '.m4a')" in str(raised.value)
    assert "apt-get" not in str(raised.value)
    assert "second line" not in str(raised.value)


def test_torchcodec_samples_are_averaged_and_resampled(monkeypatch):
    channels = torch.stack([torch.from_numpy(tone(rate=44_100)), torch.zeros(22_050)])  # (channels, samples)

    class Decoder:
        metadata = SimpleNamespace(
            duration_seconds_from_header=None,
            begin_stream_seconds_from_header=None,
            num_channels=2,
            sample_rate=44_100,
        )

        def __init__(self, content):
            assert content.startswith(b"\0\0\0\x20ftyp")

        def get_samples_played_in_range(self, stop_seconds):
            return type("Samples", (), {"data": channels, "sample_rate": 44_100})

    monkeypatch.setattr("torchcodec.decoders.AudioDecoder", Decoder)
    expected = torchaudio.functional.resample(channels.mean(dim=0), 44_100, 16_000).numpy()
    np.testing.assert_array_equal(read_audio(b"\0\0\0\x20ftypM4A " + bytes(50)), expected)


@needs_ffmpeg
def test_m4a_with_torchcodec(tmp_path):
    source, path = tmp_path / "tone.wav", tmp_path / "tone.m4a"
    source.write_bytes(encode(tone(1.0, 44_100), 44_100))
    subprocess.run(["ffmpeg", "-v", "error", "-i", source, "-c:a", "aac", path], check=True)
    waveform = read_audio(path)
    assert len(waveform) == pytest.approx(16_000, abs=2048)  # AAC pads to whole frames of 1024 at 44.1 kHz
    assert np.abs(np.fft.rfft(waveform)).argmax() * 16_000 / len(waveform) == pytest.approx(440, abs=5)


def test_find_audio_files(tmp_path):
    names = ("b.WAV", "a.flac", "deep/er/c.m4a", "notes.txt", ".hidden.wav", ".cache/d.wav", "odd.xyz")
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = find_audio_files([tmp_path / "odd.xyz", tmp_path, tmp_path / "a.flac"])
    assert [file.relative_to(tmp_path).as_posix() for file in found] == ["odd.xyz", "a.flac", "b.WAV", "deep/er/c.m4a"]
    assert find_audio_files(str(tmp_path / "a.flac")) == [tmp_path / "a.flac"]


def test_find_audio_files_in_a_hidden_folder(tmp_path):
    folder = tmp_path / ".data"
    folder.mkdir()
    (folder / "a.wav").touch()
    assert find_audio_files(folder) == [folder / "a.wav"]


def test_find_audio_files_says_what_it_looked_for(tmp_path):
    with pytest.raises(AudioError, match=r"hold no audio file.*\.wav.*\.flac"):
        find_audio_files([tmp_path])
    with pytest.raises(AudioError, match=r"no file or folder .*gone"):
        find_audio_files([tmp_path / "gone"])


def test_shipped_clips_decode():
    files = find_audio_files(DRUMS)
    assert files
    for file in files[:3]:
        np.testing.assert_array_equal(read_audio(file), soundfile.read(file, dtype="float32")[0])


def test_importing_the_module_is_light():
    code = "import sys, modeling_ast.audio; print(sorted({'torch', 'transformers', 'soundfile'} & set(sys.modules)))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


@pytest.mark.parametrize("kind", ["path", "column of paths", "column of bytes", "text", "nothing"])
def test_the_duration_of_a_file_is_told_from_its_header(tmp_path, kind):
    path = tmp_path / "clip.flac"
    soundfile.write(path, np.zeros((11_025, 2), np.float32), 22_050)
    source = {
        "path": str(path),
        "column of paths": {"bytes": None, "path": str(path)},
        "column of bytes": {"bytes": path.read_bytes(), "path": "elsewhere.flac"},
        "text": b"no audio at all",
        "nothing": b"",
    }[kind]
    faults = {"text": "holds text, not audio", "nothing": r"is empty \(0 bytes\)"}
    if kind in faults:
        with pytest.raises(AudioError, match=faults[kind]):
            audio_duration(source)
    else:
        assert audio_duration(source) == pytest.approx(0.5)


@pytest.mark.parametrize(("audio_format", "rate"), [("WAV", 16_000), ("FLAC", 44_100), ("OGG", 8_000)])
def test_the_beginning_of_a_long_file_is_what_it_is_in_the_whole(tmp_path, audio_format, rate):
    path = tmp_path / f"long.{audio_format.lower()}"
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, 65 * rate).astype(np.float32)
    soundfile.write(path, samples, rate, format=audio_format)
    whole, beginning = read_audio(path), read_audio(path, max_samples=16_000)
    assert 16_000 < len(beginning) < len(whole)
    np.testing.assert_array_equal(beginning[:16_000], whole[:16_000])
    np.testing.assert_array_equal(read_audio({"path": str(path), "bytes": None}, max_samples=16_000), beginning)
    assert len(read_audio(path, max_samples=6 * 16_000)) == len(whole), "so little more is decoded at once"


def test_the_beginning_of_a_long_file_is_checked_too(tmp_path):
    samples = np.zeros(65 * 1000, dtype=np.float32)
    samples[10] = np.nan
    soundfile.write(tmp_path / "nan.wav", samples, 1000, subtype="FLOAT")
    with pytest.raises(AudioError, match=r"nan\.wav contains NaN"):
        read_audio(tmp_path / "nan.wav", 1000, max_samples=1000)

"""Stretches of audio files: the samples of the whole decode, without decoding the whole."""

import numpy as np
import pytest
import soundfile

from modeling_ast.audio import AudioError, decode_audio, excerpt_files
from modeling_ast.audio.excerpt_files import read_excerpts, write_excerpt
from modeling_ast.audio.excerpts import MP3_SECONDS, OGG_SECONDS

RATE = 22_050
SPANS = [(0, 0.5), (3.21, 4), (1.5, 1.6), (7.75, 9)]  # in any order, and beyond the end of eight seconds
FORMATS = {
    "a.wav": ("PCM_16", "int16"),
    "b.wav": ("PCM_24", "int32"),
    "c.wav": ("FLOAT", "float32"),
    "d.wav": ("PCM_U8", "float32"),
    "e.flac": ("PCM_16", "int16"),
    "f.flac": ("PCM_24", "int32"),
    "g.ogg": (None, "float32"),
    "h.mp3": (None, "float32"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Eight seconds of noise below a sweep in two channels, in every format."""
    place = tmp_path_factory.mktemp("excerpts")
    seconds = np.arange(8 * RATE) / RATE
    noise = np.random.default_rng(0).normal(size=(len(seconds), 2)) / 20
    for name, (subtype, _) in FORMATS.items():
        sound = 0.4 * np.sin(2 * np.pi * (200 + 100 * seconds) * seconds)[:, None] + noise
        soundfile.write(place / name, sound, RATE, subtype=subtype)
    return place


def as_floats(samples: np.ndarray) -> np.ndarray:
    return samples / -float(np.iinfo(samples.dtype).min) if samples.dtype.kind == "i" else samples


@pytest.mark.parametrize("name", FORMATS)
def test_a_stretch_is_that_of_the_whole_decode_and_only_it_is_decoded(folder, name, monkeypatch):
    whole, rate = soundfile.read(folder / name, dtype="float32", always_2d=True)
    decoded = []
    read = soundfile.SoundFile.read
    monkeypatch.setattr(
        soundfile.SoundFile, "read", lambda self, count, **kwargs: decoded.append(count) or read(self, count, **kwargs)
    )
    monkeypatch.delattr(excerpt_files, "decode_audio")
    for (start, end), excerpt in zip(SPANS, read_excerpts(folder / name, SPANS), strict=True):
        assert excerpt.sampling_rate == rate == RATE
        assert excerpt.samples.dtype == FORMATS[name][1]
        expected = whole[round(start * rate) : round(end * rate)]
        rounding = 1.2e-7 if name.endswith("mp3") else 0  # its decoder rounds another way when it was moved backwards
        np.testing.assert_allclose(as_floats(excerpt.samples), expected, rtol=0, atol=rounding)
    # Before each stretch of MP3, and of the last seconds of Ogg, where libsndfile goes to a wrong place, more is decoded.
    before = {"mp3": MP3_SECONDS, "ogg": OGG_SECONDS}.get(name[2:], 0)
    asked = sum(round(min(end, 8) * rate) - round(start * rate) for start, end in SPANS)
    assert asked <= sum(decoded) <= asked + len(SPANS) * (before * rate + 1)


def test_the_last_page_of_ogg_is_read_where_it_is(folder):
    """libsndfile 1.2.2 itself goes to a wrong place there."""
    whole = soundfile.read(folder / "g.ogg", dtype="float32", always_2d=True)[0]
    for start in (7.8, 7.97, 7.99, 7.999):
        (excerpt,) = read_excerpts(folder / "g.ogg", [(start, 8.2)])
        np.testing.assert_array_equal(excerpt.samples, whole[round(start * RATE) :])


@pytest.mark.parametrize("name", ["a.wav", "f.flac", "h.mp3"])
def test_what_is_written_is_the_same_again(folder, name, tmp_path):
    (excerpt,) = read_excerpts(folder / name, [(2, 3)])
    write_excerpt(tmp_path / "clip.wav", excerpt)
    whole = soundfile.read(folder / name, dtype="float32", always_2d=True)[0]
    found = soundfile.read(tmp_path / "clip.wav", dtype="float32", always_2d=True)[0]
    np.testing.assert_array_equal(found, whole[2 * RATE : 3 * RATE])


def test_of_joined_and_damaged_files_it_is_what_the_kit_hears(folder, tmp_path):
    joined = tmp_path / "joined.flac"
    joined.write_bytes((folder / "e.flac").read_bytes() * 2)
    damaged = tmp_path / "damaged.ogg"
    content = (folder / "g.ogg").read_bytes()
    damaged.write_bytes(content[:20_000] + bytes(5_000) + content[25_000:])
    for path, span in ((joined, (9, 10)), (damaged, (6, 7))):
        (excerpt,) = read_excerpts(path, [span])
        decoded = decode_audio(path)
        expected = decoded.samples[round(span[0] * RATE) : round(span[1] * RATE)]
        np.testing.assert_array_equal(excerpt.samples, expected)


def test_what_is_not_there_is_said(folder, tmp_path):
    with pytest.raises(AudioError, match=r"a\.wav ends before 8\.50 s, of which a stretch was asked for"):
        read_excerpts(folder / "a.wav", [(0, 1), (8.5, 9)])
    with pytest.raises(AudioError, match="There is no file"):
        read_excerpts(tmp_path / "none.wav", [(0, 1)])
    assert read_excerpts(tmp_path / "none.wav", []) == []


def test_floats_are_written_without_the_time_of_writing(folder, tmp_path):
    (excerpt,) = read_excerpts(folder / "c.wav", [(2, 3)])
    write_excerpt(tmp_path / "clip.wav", excerpt)
    content = (tmp_path / "clip.wav").read_bytes()
    peak = content.index(b"PEAK")  # its size, its version, and when it was written
    assert content[peak + 12 : peak + 16] == bytes(4)

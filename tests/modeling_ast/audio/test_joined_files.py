"""Files in which one recording stands behind another."""

import io
import struct
import subprocess

import numpy as np
import pytest
import soundfile
from encoded_audio import ID3V1, RATE, assert_length_is_told, encode, kinds, needs_ffmpeg, noise

from modeling_ast.audio import CUT_OFF, LEFT_OUT, decode_audio


@pytest.mark.parametrize(
    "audio_format", ["WAV", "RF64", "W64", "AIFF", "AU", "CAF", "FLAC", "OGG", "OGG/OPUS", "MP3", "MP3/VARIABLE"]
)
def test_joined_recordings_are_heard_one_after_the_other(audio_format):
    audio_format, _, kind = audio_format.partition("/")
    settings = {"OPUS": {"subtype": "OPUS"}, "VARIABLE": {"bitrate_mode": "VARIABLE"}}.get(kind, {})
    first, second = (encode(noise(seconds), audio_format, **settings) for seconds in (2.0, 1.0))
    expected = np.concatenate(
        [soundfile.read(io.BytesIO(part), dtype="float32")[0] for part in (first, second, first)]
    )
    decoded = decode_audio(first + second + first)
    assert decoded.notes == ()
    np.testing.assert_array_equal(decoded.samples[:, 0], expected)
    assert_length_is_told(first + second + first, decoded)


def test_joined_mp3s_with_tags_in_front_are_recordings_of_their_own():
    tag = b"ID3\x04\0\0\0\0\0\x23" + bytes(35)
    first, second = (encode(noise(seconds), "MP3") for seconds in (2.0, 1.0))
    decoded = decode_audio(tag + first + tag + second)
    assert (len(decoded.samples), decoded.notes) == (3 * RATE, ())


@needs_ffmpeg
@pytest.mark.parametrize("suffix", ["avi", "mka", "webm"])
def test_joined_containers_are_not_taken_for_several_tracks(tmp_path, suffix):
    (tmp_path / "clip.wav").write_bytes(encode(noise()))
    subprocess.run(["ffmpeg", "-v", "error", "-i", tmp_path / "clip.wav", tmp_path / f"a.{suffix}"], check=True)
    assert kinds(decode_audio(2 * (tmp_path / f"a.{suffix}").read_bytes())) == []


@pytest.mark.parametrize("audio_format", ["WAV", "FLAC", "OGG", "MP3"])
def test_joined_recordings_of_other_rates_and_channels_become_the_firsts(audio_format):
    second = encode(noise(1.0, 44_100, channels=2), audio_format, rate=44_100)
    decoded = decode_audio(encode(noise(), audio_format) + second)
    assert (decoded.sampling_rate, decoded.samples.shape[1]) == (RATE, 1)
    assert len(decoded.samples) / RATE == pytest.approx(3.0, abs=0.05)


def test_a_joined_recording_that_cannot_be_decoded_is_named():
    content = encode(noise(), "FLAC") + encode(noise(), "FLAC")[:60]
    decoded = decode_audio(content, "radio.flac")
    assert (len(decoded.samples), kinds(decoded)) == (2 * RATE, [LEFT_OUT])
    assert "radio.flac: recording 2 of the 2 that are joined in it is not heard" in decoded.notes[0].text


def test_recordings_beyond_a_number_are_said_to_be_left_out(monkeypatch):
    for module in ("formats", "reading"):
        monkeypatch.setattr(f"modeling_ast.audio.{module}.MOST_RECORDINGS", 3)
    part = encode(noise(0.1), "OGG")
    decoded = decode_audio(5 * part, "radio.ogg")
    assert len(decoded.samples) == 3 * len(decode_audio(part).samples)
    assert [note.text for note in decoded.notes] == [
        "radio.ogg holds more than 3 recordings, joined one behind the other; those beyond are not heard."
    ]
    assert decode_audio(3 * part).notes == ()
    assert_length_is_told(5 * part, decoded)


def test_joined_streams_are_not_searched_beyond_what_is_wanted():
    part = encode(noise(70.0, 4000), "FLAC", rate=4000)
    assert len(decode_audio(part + part, seconds=5.0).samples) == 65 * 4000


@needs_ffmpeg
@pytest.mark.parametrize("suffix", ["m4a", "wma", "tta", "wv", "aac", "webm"])
def test_joined_files_that_only_ffmpeg_reads(tmp_path, suffix):
    (tmp_path / "clip.wav").write_bytes(encode(noise()))
    subprocess.run(["ffmpeg", "-v", "error", "-i", tmp_path / "clip.wav", tmp_path / f"clip.{suffix}"], check=True)
    content = (tmp_path / f"clip.{suffix}").read_bytes()
    one, two = (decode_audio(content * count) for count in (1, 2))
    assert len(two.samples) == pytest.approx(2 * len(one.samples), abs=0.02 * one.sampling_rate)


@needs_ffmpeg
def test_joined_flv(tmp_path):
    (tmp_path / "clip.wav").write_bytes(encode(noise()))
    subprocess.run(
        ["ffmpeg", "-v", "error", "-i", tmp_path / "clip.wav", "-ar", "22050", tmp_path / "a.flv"], check=True
    )
    content = (tmp_path / "a.flv").read_bytes()
    assert len(decode_audio(content + content).samples) == 2 * len(decode_audio(content).samples)


@pytest.mark.parametrize("chunk", [b"iXML", b"_PMX", b"minf"])
def test_joined_wavs_that_begin_with_any_chunk(chunk):
    whole = encode(noise())
    content = whole[:12] + chunk + struct.pack("<I", 4) + bytes(4) + whole[12:]
    assert len(decode_audio(content + content).samples) == 4 * RATE


def test_joined_aiffs_that_begin_with_a_comment():
    whole = encode(noise(), "AIFF")
    content = whole[:12] + b"COMT" + struct.pack(">I", 4) + bytes(4) + whole[12:]
    assert len(decode_audio(content + content).samples) == 4 * RATE


@pytest.mark.parametrize("between", [b"", bytes(1000), ID3V1])
@pytest.mark.parametrize("share", [1.0, 0.7])
def test_joined_aus_of_which_the_first_is_cut_off_or_tagged(between, share):
    whole = encode(noise(), "AU")
    decoded = decode_audio(whole[: int(share * len(whole))] + between + whole)
    assert len(decoded.samples) == pytest.approx((2 + 2 * share) * RATE, abs=600)
    assert kinds(decoded) == [CUT_OFF] * (share < 1)

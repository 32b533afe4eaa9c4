"""MPEG audio of layers 2 and 3: frames, tags and what stands between them."""

import io
import shutil
import struct
import subprocess

import numpy as np
import pytest
import soundfile
from encoded_audio import (
    APE,
    ID3,
    ID3V1,
    RATE,
    assert_length_is_told,
    encode,
    ffmpeg_file,
    kinds,
    mp2,
    needs_ffmpeg,
    noise,
    patch,
)

from modeling_ast.audio import CUT_OFF, DAMAGED, HEADER, decode_audio
from modeling_ast.audio.content import BytesContent
from modeling_ast.audio.mp3 import FRAME_HEADER, frame_header, mp3_streams


def without_tag(content):
    """Without its first frame, which holds the Xing or Info header."""
    (stream,) = mp3_streams(BytesContent(content))
    return content[stream.start + stream.header.size :]


def ffmpeg_samples(content):
    command = ["ffmpeg", "-v", "error", "-i", "-", "-f", "f32le", "-"]
    raw = subprocess.run(command, input=content, capture_output=True, check=True).stdout
    return np.frombuffer(raw, np.float32)


def loud_then_quiet():
    return np.concatenate([noise(1.0), noise(5.0) * 1e-3])


def test_mp3_without_a_header_of_variable_bit_rate_is_heard_to_its_end():
    content = without_tag(encode(loud_then_quiet(), "MP3", bitrate_mode="VARIABLE"))
    assert soundfile.info(io.BytesIO(content)).duration < 4  # what libsndfile guesses
    decoded = decode_audio(content)
    assert len(decoded.samples) / RATE == pytest.approx(6.0, abs=0.15)  # with an encoder's delay and padding
    assert decoded.notes == ()
    assert_length_is_told(content, decoded)
    if shutil.which("ffmpeg"):
        expected = ffmpeg_samples(content)
        assert len(decoded.samples) == len(expected)
        np.testing.assert_allclose(decoded.samples[:, 0], expected, atol=1e-4)  # two decoders


@pytest.mark.parametrize("before", [b"", b"ID3\x04\0\0\0\0\x01\0" + bytes(128), bytes(500)], ids=["", "ID3", "zeros"])
@pytest.mark.parametrize("mode", ["CONSTANT", "VARIABLE"])
def test_whole_mp3s_are_what_libsndfile_makes_of_them(mode, before):
    content = encode(noise(), "MP3", bitrate_mode=mode)
    expected = soundfile.read(io.BytesIO(content), dtype="float32", always_2d=True)[0]
    np.testing.assert_array_equal(decode_audio(before + content + b"TAG" + bytes(125)).samples, expected)


def test_a_broadcast_that_begins_within_a_frame():
    content = without_tag(encode(noise(), "MP3"))
    assert len(decode_audio(content[100:]).samples) / RATE == pytest.approx(2.0, abs=0.15)


def test_an_mp3_that_is_cut_off_says_how_much_is_missing():
    content = encode(noise(4.0), "MP3")
    decoded = decode_audio(content[: len(content) // 2], "half.mp3")
    assert kinds(decoded) == [CUT_OFF]
    # Its bit rate varies, so that half of the bytes are not half of the time.
    assert len(decoded.samples) / RATE == pytest.approx(2.0, abs=0.2)
    assert f"half.mp3 is cut off: {len(decoded.samples) / RATE:.2f} of the " in decoded.notes[0].text
    assert_length_is_told(content[: len(content) // 2], decoded)
    # Also where only its beginning is wanted, and not where it ends beyond that.
    assert kinds(decode_audio(content[: len(content) // 2], seconds=1.0)) == [CUT_OFF]


@pytest.mark.parametrize("frames", [0xFFFF_FFFF, 0x8000_0000, 250, 20])
def test_an_mp3_of_as_many_bytes_as_its_tag_says_is_whole_whatever_frames_that_counts(frames):
    whole = encode(noise(4.0), "MP3", bitrate_mode="VARIABLE")
    place = max(whole.find(b"Xing"), whole.find(b"Info")) + 8
    content = patch(whole, place, struct.pack(">I", frames))
    decoded = decode_audio(content, "clip.mp3")
    assert kinds(decoded) == [HEADER]
    assert "clip.mp3 has a wrong header: it announces" in decoded.notes[0].text
    assert len(decoded.samples) / RATE == pytest.approx(4.0, abs=0.1)
    assert kinds(decode_audio(content[: len(content) * 3 // 4])) == ([CUT_OFF] if frames > 150 else [HEADER])


@needs_ffmpeg
@pytest.mark.parametrize("codec", ["mp2", "libmp3lame"])
def test_mpeg_streams_are_no_mp3s(tmp_path, codec):
    (tmp_path / "clip.wav").write_bytes(encode(noise(6.0), rate=48_000))
    sound = ["-i", tmp_path / "clip.wav", "-c:a", codec, "-b:a", "32k"]
    for name in ("a.mpg", "a.ts"):  # whose packets hold several frames each
        decoded = decode_audio(ffmpeg_file(tmp_path / name, *sound))
        assert kinds(decoded) == []
        assert len(decoded.samples) / 48_000 == pytest.approx(2.0, abs=0.1)


@pytest.mark.parametrize("around", [(b"", b""), (ID3 * 50, b""), (b"", APE + ID3V1), (b"", b"\xaa" * 7000)])
@pytest.mark.parametrize("indices", [[8] * 50, [4] * 5 + [12] * 45, [14] * 5 + [4] * 45])
def test_frames_of_layer_2_are_counted(around, indices):
    content = around[0] + mp2(*indices) + around[1]
    decoded = decode_audio(content)
    assert (len(decoded.samples), decoded.notes) == (50 * 1152, ())
    assert_length_is_told(content, decoded)


def test_a_damaged_spot_in_layer_2():
    content = patch(mp2(*[8] * 50), 10_000, b"\xaa" * 1000)
    decoded = decode_audio(content)
    assert kinds(decoded) == [DAMAGED]
    assert len(decoded.samples) == pytest.approx(50 * 1152, abs=2 * 1152)
    assert_length_is_told(content, decoded)


def test_zeros_before_the_tag_of_a_second_mp3_are_no_damage():
    whole = encode(noise(), "MP3")
    decoded = decode_audio(whole + bytes(1000) + ID3 + whole)
    assert (len(decoded.samples), decoded.notes) == (4 * RATE, ())
    without = without_tag(whole)
    decoded = decode_audio(without + bytes(1000) + ID3 + without)
    assert (len(decoded.samples), decoded.notes) == (2 * len(decode_audio(without).samples), ())
    assert kinds(decode_audio(patch(whole, 2000, bytes(6000)))) == [DAMAGED]  # a hole, of more than a piece


def test_zeros_between_an_id3_tag_and_the_first_frame(tmp_path, monkeypatch):
    whole = encode(noise(), "MP3")
    (tmp_path / "clip.mp3").write_bytes(ID3 + bytes(3000) + whole)
    for held_whole in (1 << 26, 0):
        monkeypatch.setattr("modeling_ast.audio.reading.HELD_WHOLE", held_whole)
        np.testing.assert_array_equal(decode_audio(tmp_path / "clip.mp3").samples, decode_audio(whole).samples)


def test_frame_headers_are_found_by_their_first_bytes():
    for second in range(256):
        for third in range(256):
            head = bytes([0xFF, second, third, 0])
            assert (FRAME_HEADER.match(head) is None) == (frame_header(head) is None)


def test_zeros_between_the_frames_of_an_mp3_change_no_sample():
    whole = encode(noise(), "MP3", bitrate_mode="CONSTANT")
    (stream,) = mp3_streams(BytesContent(whole))
    middle = stream.start
    for _ in range(30):
        middle += frame_header(whole[middle : middle + 4]).size
    decoded = decode_audio(whole[:middle] + bytes(500) + whole[middle:])
    expected = soundfile.read(io.BytesIO(whole), dtype="float32")[0]
    np.testing.assert_array_equal(decoded.samples[: len(expected), 0], expected)
    assert decoded.notes == ()

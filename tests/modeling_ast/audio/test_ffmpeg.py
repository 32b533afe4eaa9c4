"""What FFmpeg decodes: through torchcodec or its program, as much as it gives itself, and without it said so."""

import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from encoded_audio import (
    APE,
    ID3V1,
    RATE,
    assert_length_is_told,
    damaged,
    encode,
    ffmpeg_file,
    kinds,
    needs_ffmpeg,
    noise,
    patch,
)

from modeling_ast.audio import CUT_OFF, DAMAGED, LEFT_OUT, AudioError, audio_length, decode_audio, read_audio
from modeling_ast.audio.content import BytesContent
from modeling_ast.audio.flac import StreamInfo, _silence, stream_info


class Torchcodec:
    """Decodes a second, of as many as its container announces."""

    def __init__(self, announced):
        self.metadata = SimpleNamespace(
            duration_seconds_from_header=announced,
            begin_stream_seconds_from_header=None,
            num_channels=1,
            sample_rate=RATE,
        )

    def get_samples_played_in_range(self, stop_seconds):
        return SimpleNamespace(data=torch.zeros(1, RATE), sample_rate=RATE)


@pytest.mark.parametrize(
    ("announced", "words"), [(8.0, "of which torchcodec decodes 1.00 s"), (None, None), (1.01, None)]
)
def test_scrambled_pieces_are_refused_without_the_ffmpeg_program(monkeypatch, announced, words):
    monkeypatch.setattr("torchcodec.decoders.AudioDecoder", lambda content: Torchcodec(announced))
    monkeypatch.setattr("modeling_ast.audio.ffmpeg.has_program", lambda: False)
    content = b"\x30\x26\xb2\x75\x8e\x66\xcf\x11" + bytes(500)
    if words is None:
        assert len(read_audio(content)) == RATE
    else:
        with pytest.raises(
            AudioError, match=f"song.wma .WMA. lasts 8.00 s by its header, {words}.*Install the ffmpeg"
        ):
            read_audio(content, name="song.wma")


@pytest.mark.parametrize(
    ("content", "codec"),
    [
        (patch(encode(np.zeros(99)), 20, b"\x61\x01"), "WMA 2"),
        (patch(encode(np.zeros(99)), 20, b"\x34\x12"), "codec number 0x1234"),
        (patch(encode(np.zeros(99), "CAF"), 28, b"alac"), "alac"),
        (patch(encode(np.zeros(99), "OGG"), 28, b"\x7fFLAC"), "FLAC"),
    ],
)
def test_codecs_within_known_containers_are_not_called_damage_without_ffmpeg(monkeypatch, content, codec):
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", None)
    monkeypatch.setattr("modeling_ast.audio.ffmpeg.has_program", lambda: False)
    with pytest.raises(AudioError, match=rf"holds {codec} and cannot be decoded.*Install FFmpeg"):
        read_audio(content)


@needs_ffmpeg
@pytest.mark.parametrize(
    ("codec", "name"),
    [
        ("wmav2", "a.wav"),
        ("wmav2", "a.wma"),
        ("adpcm_ms", "a.avi"),
        ("alac", "a.caf"),
        ("aac", "a.m4a"),
        ("ac3", "a.wav"),
    ],
)
def test_as_much_is_heard_as_the_ffmpeg_program_decodes(tmp_path, codec, name):
    (tmp_path / "clip.wav").write_bytes(encode(noise(4.0)))
    command = [
        "ffmpeg",
        "-v",
        "error",
        "-i",
        tmp_path / "clip.wav",
        "-c:a",
        codec,
        *(["-ar", "48000"] * (codec == "ac3")),
    ]
    path = tmp_path / ("coded_" + name)
    subprocess.run([*command, path], check=True)
    expected = (
        len(subprocess.run(["ffmpeg", "-v", "error", "-i", path, "-f", "f32le", "-"], capture_output=True).stdout) // 4
    )
    decoded = decode_audio(path)
    assert len(decoded.samples) == pytest.approx(expected, abs=0.02 * decoded.sampling_rate)
    assert expected > 3.9 * RATE


@needs_ffmpeg
def test_a_damaged_or_cut_off_m4a_is_said(tmp_path):
    (tmp_path / "clip.wav").write_bytes(encode(noise(6.0)))
    for name, settings in (("index_last.m4a", []), ("index_first.m4a", ["-movflags", "faststart"])):
        subprocess.run(["ffmpeg", "-v", "error", "-i", tmp_path / "clip.wav", *settings, tmp_path / name], check=True)
    first, last = ((tmp_path / name).read_bytes() for name in ("index_first.m4a", "index_last.m4a"))
    decoded = decode_audio(first[: len(first) // 2], "half.m4a")
    assert kinds(decoded) == [CUT_OFF]
    assert "of the 6.00 s that its header announces are there" in decoded.notes[0].text
    with pytest.raises(AudioError, match=r"half\.m4a .* is cut off: its index, which stands at the end, is missing"):
        decode_audio(last[: len(last) // 2], "half.m4a")
    decoded = decode_audio(damaged(last, 0.4, 2000), "spot.m4a")
    assert kinds(decoded) == [DAMAGED]
    assert "ffmpeg says" in decoded.notes[0].text


@needs_ffmpeg
@pytest.mark.parametrize(
    ("name", "video", "audio"),
    [("a.mkv", "mpeg4", "aac"), ("a.webm", "libvpx", "libopus"), ("a.wmv", "wmv2", "wmav2")],
)
@pytest.mark.parametrize("begin", [0, 2])
def test_a_video_whose_audio_is_shorter_is_whole(tmp_path, name, video, audio, begin):
    (tmp_path / "clip.wav").write_bytes(encode(noise(2.0)))
    pictures = ["-f", "lavfi", "-i", "testsrc=s=64x48:r=5:d=6"]
    sound = ["-itsoffset", begin, "-i", tmp_path / "clip.wav", "-map", "0", "-map", "1", "-c:a", audio]
    path = ffmpeg_file(tmp_path / name, *pictures, *sound, "-c:v", video)
    decoded = decode_audio(path)
    assert kinds(decoded) == []
    assert len(decoded.samples) / decoded.sampling_rate == pytest.approx(2.0, abs=0.13)  # padding of whole frames
    assert audio_length(path).seconds == pytest.approx(len(decoded.samples) / decoded.sampling_rate, abs=0.01)


@needs_ffmpeg
@pytest.mark.parametrize("name", ["a.mkv", "a.mka", "a.mp4", "a.m4a", "a.wma", "a.avi"])
def test_other_audio_tracks_than_the_one_that_is_heard_are_counted(tmp_path, name):
    (tmp_path / "clip.wav").write_bytes(encode(noise(1.0)))
    clip = ["-i", tmp_path / "clip.wav"]
    for number, expected in ((1, []), (3, [LEFT_OUT])):
        path = ffmpeg_file(tmp_path / f"{number}{name}", *clip, *(["-map", "0:a"] * number))
        decoded = decode_audio(path)
        assert kinds(decoded) == expected
        assert len(decoded.samples) / decoded.sampling_rate == pytest.approx(1.0, abs=0.15)
    assert "holds 3 audio tracks, of which one is heard" in decoded.notes[0].text


@needs_ffmpeg
def test_a_recording_whose_time_does_not_begin_at_zero_is_whole_and_its_half_is_not(tmp_path):
    (tmp_path / "clip.wav").write_bytes(encode(noise(4.0)))
    path = ffmpeg_file(
        tmp_path / "live.mka", "-itsoffset", 50, "-i", tmp_path / "clip.wav", "-copyts", "-c:a", "libvorbis"
    )
    assert kinds(decode_audio(path)) == []
    content = path.read_bytes()
    assert kinds(decode_audio(content[: len(content) // 2])) == [CUT_OFF]


@needs_ffmpeg
@pytest.mark.parametrize(("name", "codec"), [("a.aac", "aac"), ("a.ac3", "ac3")])
def test_what_has_no_header_is_as_long_as_its_frames(tmp_path, name, codec):
    quiet, loud = np.zeros((20 * RATE, 1)), noise(5.0)
    (tmp_path / "clip.wav").write_bytes(encode(np.concatenate([quiet, loud])))
    path = ffmpeg_file(tmp_path / name, "-i", tmp_path / "clip.wav", "-c:a", codec, "-ar", 48_000, "-b:a", "64k")
    more = ffmpeg_file(tmp_path / f"more_{name}", "-i", tmp_path / "clip.wav", "-c:a", codec, "-ar", 48_000)
    joined = path.read_bytes() + more.read_bytes()
    for content, seconds in ((path, 25), (joined, 50)):
        decoded = decode_audio(content)
        assert kinds(decoded) == []
        assert len(decoded.samples) / 48_000 == pytest.approx(seconds, abs=0.2)
        assert_length_is_told(content, decoded)


@needs_ffmpeg
def test_aac_streams_of_other_rates_that_are_joined_are_heard_whole(tmp_path):
    (tmp_path / "clip.wav").write_bytes(encode(noise(4.0)))
    parts = [
        ffmpeg_file(tmp_path / f"{rate}.aac", "-i", tmp_path / "clip.wav", "-ar", rate) for rate in (32_000, 16_000)
    ]
    decoded = decode_audio(b"".join(part.read_bytes() for part in parts))
    assert len(decoded.samples) / decoded.sampling_rate == pytest.approx(8.0, abs=0.3)


@needs_ffmpeg
@pytest.mark.parametrize("is_of_camcorder", [0, 1])
def test_time_stamps_of_a_broadcast_may_jump(tmp_path, is_of_camcorder):
    (tmp_path / "clip.wav").write_bytes(encode(noise(2.0)))
    sound = ["-i", tmp_path / "clip.wav", "-c:a", "mp2", "-mpegts_m2ts_mode", is_of_camcorder]
    parts = [ffmpeg_file(tmp_path / f"{at}.ts", *sound, "-output_ts_offset", at) for at in (0, 1000)]
    content = b"".join(part.read_bytes() for part in parts)
    decoded = decode_audio(content)
    assert kinds(decoded) == []
    assert len(decoded.samples) / RATE == pytest.approx(4.0, abs=0.2)
    assert_length_is_told(content, decoded)


@needs_ffmpeg
@pytest.mark.parametrize(("suffix", "tag"), [("wv", APE), ("wv", ID3V1), ("m4a", ID3V1), ("m4a", b"\0junk" * 40)])
def test_tags_behind_files_of_ffmpeg_are_no_damage(tmp_path, suffix, tag):
    (tmp_path / "clip.wav").write_bytes(encode(noise()))
    subprocess.run(["ffmpeg", "-v", "error", "-i", tmp_path / "clip.wav", tmp_path / f"clip.{suffix}"], check=True)
    content = (tmp_path / f"clip.{suffix}").read_bytes()
    decoded = decode_audio(content + tag)
    assert decoded.notes == ()
    np.testing.assert_array_equal(decoded.samples, decode_audio(content).samples)
    if suffix == "m4a":  # a second one behind what is no box
        assert len(decode_audio(content + tag + content).samples) == 2 * len(decoded.samples)


@needs_ffmpeg
@pytest.mark.parametrize("suffix", ["mkv", "wmv"])
def test_pictures_that_go_on_longer_than_the_sound_are_no_damage(tmp_path, suffix):
    (tmp_path / "clip.wav").write_bytes(encode(noise()))
    command = ["ffmpeg", "-v", "error", "-f", "lavfi", "-i", "testsrc=d=4:s=64x64:r=5", "-i", tmp_path / "clip.wav"]
    subprocess.run([*command, tmp_path / f"film.{suffix}"], check=True)
    decoded = decode_audio(tmp_path / f"film.{suffix}")
    assert len(decoded.samples) / decoded.sampling_rate == pytest.approx(2.0, abs=0.1)
    assert kinds(decoded) == []


def test_a_flac_of_32_bits_is_left_to_ffmpeg(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", None)
    monkeypatch.setattr("modeling_ast.audio.ffmpeg.has_program", lambda: False)
    block = bytearray(stream_info(BytesContent(encode(noise(), "FLAC"))).block)
    block[12], block[13] = block[12] | 1, block[13] | 0xF0  # the sample size less one: 31
    info = StreamInfo(frames_offset=42, block=bytes(block))
    content = info.with_samples(2 * info.largest_block) + _silence(info, 0, 2 * info.largest_block, b"\xff\xf8")
    with pytest.raises(AudioError, match=r"^a\.flac \(FLAC\) cannot be decoded: soundfile says"):
        decode_audio(content, "a.flac")

"""Files that are cut off, joined, damaged or have wrong headers: lengths are FFmpeg's, samples those of the whole file.

Most files are written by soundfile and then changed byte by byte, as dying programs, pipes and broken downloads do; those
of formats that soundfile does not write come from the ffmpeg program.
"""

import io
import re
import shutil
import struct
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch

from modeling_ast.audio import CUT_OFF, DAMAGED, HEADER, LEFT_OUT, AudioError, audio_length, decode_audio, read_audio
from modeling_ast.audio.checksums import checksum, checksums
from modeling_ast.audio.content import BytesContent, FileContent, SplicedContent
from modeling_ast.audio.flac import StreamInfo, _silence, stream_info
from modeling_ast.audio.formats import recordings, sniff_format
from modeling_ast.audio.mp3 import HEADER as HEADER_PATTERN
from modeling_ast.audio.mp3 import frame_header, mp3_streams
from modeling_ast.audio.sample_regions import patched, sample_region

RATE = 16_000
needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="the ffmpeg program is not installed")


def noise(seconds=2.0, rate=RATE, channels=1):
    """Noise whose loudness rises and falls, so that variable bit rates vary."""
    samples = np.random.default_rng(0).normal(size=(int(seconds * rate), channels)) * 0.1
    return samples * (1 + np.sin(np.arange(len(samples)) * 6 / rate))[:, None]


def encode(samples, audio_format="WAV", rate=RATE, **settings):
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=audio_format, **settings)
    return file.getvalue()


def patch(content, place, value):
    return content[:place] + value + content[place + len(value) :]


def kinds(decoded):
    return [note.kind for note in decoded.notes]


def assert_length_is_told(content, decoded):
    length = audio_length(content)
    assert length.seconds == pytest.approx(len(decoded.samples) / decoded.sampling_rate, abs=1e-4)
    assert not length.is_estimate


# WAV and its relatives: what the header says and what is there


@pytest.mark.parametrize("size", [0, 0xFFFF_FFFF, 0x7FFF_F000, 64_000 + 44, 64_000 + 36])
def test_wav_sizes_of_pipes_and_of_headers_counted_in(size):
    whole = encode(noise())
    content = patch(whole, whole.index(b"data") + 4, struct.pack("<I", size))
    decoded = decode_audio(content, "clip.wav")
    np.testing.assert_array_equal(
        decoded.samples, soundfile.read(io.BytesIO(whole), dtype="float32", always_2d=True)[0]
    )
    assert kinds(decoded) == ([HEADER] if size == 0 else [])
    assert_length_is_told(content, decoded)


def test_wav_whose_sizes_are_older_than_its_samples():
    whole = encode(noise())
    content = patch(whole, whole.index(b"data") + 4, struct.pack("<I", 16_000))
    decoded = decode_audio(content, "clip.wav")
    assert len(decoded.samples) == 2 * RATE
    assert [note.text for note in decoded.notes] == [
        "clip.wav has a wrong header: it announces 0.50 s of samples; 2.00 s are there, which are heard."
    ]
    assert_length_is_told(content, decoded)


@pytest.mark.parametrize(
    "trailer",
    [b"LIST\x04\0\0\0INFO", b"TAG" + bytes(125), b"\0" * 99, b"\x07", b"id3 \x02\0\0\0xy"],
    ids=["chunk", "ID3v1", "zeros", "a byte", "ID3 chunk"],
)
def test_what_stands_behind_the_samples_is_not_heard(trailer):
    decoded = decode_audio(encode(noise()) + trailer)
    assert (len(decoded.samples), decoded.notes) == (2 * RATE, ())


def test_a_wav_without_samples_stays_empty():
    content = encode(np.zeros(0)) + b"LIST\x04\0\0\0INFO"
    with pytest.raises(AudioError, match="empty.wav is an audio file without a single sample"):
        read_audio(content, name="empty.wav")


class HugeWav(BytesContent):
    """A WAV of more than 4 GiB of which only the header is there."""

    def __init__(self, header: bytes, size: int):
        super().__init__(header)
        self.size = size

    def read(self, offset, count):
        return self.content[offset : offset + count].ljust(min(count, self.size - offset), b"\x55")


@pytest.mark.parametrize("trailer", [0, 8])
def test_wav_sizes_that_wrapped_beyond_4_gib(trailer):
    header = encode(np.zeros(1))[:44]
    size = (5 << 30) + 6
    header = patch(header, 40, struct.pack("<I", size % (1 << 32)))
    content = HugeWav(header, 44 + size + trailer)
    region = sample_region(content)
    assert (region.size, region.said, region.must_be_patched) == (size, size % (1 << 32), True)
    mended = patched(content, region)
    assert mended.size > size
    with soundfile.SoundFile(mended.file()) as file:  # libsndfile reads sizes of RF64
        assert (file.frames, file.format) == (size // 2, "RF64")
        assert file.read(3, dtype="int16").tolist() == [0x5555] * 3


@pytest.mark.parametrize("audio_format", ["WAV", "RF64", "W64", "AIFF", "AU", "CAF"])
@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT"])
def test_cut_off_files_are_heard_as_far_as_they_go(audio_format, subtype):
    whole = encode(noise(channels=2), audio_format, subtype=subtype)
    expected = soundfile.read(io.BytesIO(whole), dtype="float32")[0]
    content = whole[: len(whole) // 2]
    decoded = decode_audio(content, "half.x")
    assert kinds(decoded) == [CUT_OFF]
    number = len(decoded.samples)
    assert 0.9 * RATE < number < 1.01 * RATE
    np.testing.assert_array_equal(decoded.samples, expected[:number])
    assert f"half.x is cut off: {number / RATE:.2f} of the 2.00 s" in decoded.notes[0].text
    assert_length_is_told(content, decoded)
    assert decode_audio(whole).notes == ()


@pytest.mark.parametrize("subtype", ["IMA_ADPCM", "MS_ADPCM", "GSM610", "ALAW"])
def test_cut_off_wavs_of_other_codecs_name_seconds(subtype):
    whole = encode(noise(), subtype=subtype)
    decoded = decode_audio(whole[: len(whole) // 2], "half.wav")
    assert kinds(decoded) == [CUT_OFF]
    assert "of the 2." in decoded.notes[0].text or "of the 1.9" in decoded.notes[0].text
    assert_length_is_told(whole, decode_audio(whole))


@pytest.mark.parametrize("from_pipe", ["W64", "CAF", "AU", "WAV", "AIFF"])
@needs_ffmpeg
def test_what_was_written_to_a_pipe_is_heard_from_bytes_and_paths(tmp_path, from_pipe):
    (tmp_path / "clip.wav").write_bytes(encode(noise()))
    command = ["ffmpeg", "-v", "error", "-i", tmp_path / "clip.wav", "-f", from_pipe.lower(), "-"]
    content = subprocess.run(command, capture_output=True, check=True).stdout
    (tmp_path / "piped").write_bytes(content)
    for source in (content, tmp_path / "piped"):
        decoded = decode_audio(source)
        assert (len(decoded.samples), decoded.notes) == (2 * RATE, ())
        assert_length_is_told(source, decoded)


# Joined files


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


# MP3


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


# Damaged spots


def damaged(content, share=0.5, number=400):
    spot = int(len(content) * share)
    return patch(content, spot, np.random.default_rng(1).bytes(number))


@pytest.mark.parametrize("audio_format", ["FLAC", "MP3", "OGG", "OGG/OPUS"])
def test_a_damaged_spot_costs_itself_and_what_follows_keeps_its_time(audio_format):
    audio_format, _, subtype = audio_format.partition("/")
    settings = {"subtype": subtype} if subtype else {}
    whole = encode(noise(10.0), audio_format, **settings)
    expected = soundfile.read(io.BytesIO(whole), dtype="float32")[0]
    decoded = decode_audio(damaged(whole), "spot.x")
    assert kinds(decoded) == [DAMAGED]
    assert decoded.notes[0].text.startswith("spot.x is damaged: ")
    assert len(decoded.samples) == pytest.approx(len(expected), abs=0.02 * RATE)
    same = np.abs(decoded.samples[:, 0][: len(expected)] - expected[: len(decoded.samples)]) < 1e-3
    assert same[: 3 * RATE].mean() > 0.99, "before it"
    assert same[-2 * RATE :].mean() > 0.99 or audio_format == "MP3", "behind it"
    assert_length_is_told(damaged(whole), decoded)


def test_the_place_of_a_damaged_flac_frame_is_named():
    whole = encode(noise(10.0), "FLAC")
    decoded = decode_audio(damaged(whole, number=5), "spot.flac")
    samples, expected = decoded.samples[:, 0], soundfile.read(io.BytesIO(whole), dtype="float32")[0]
    lost = np.flatnonzero(samples != expected)
    assert not samples[lost].any()
    (begin, end) = map(float, re.search(r"damaged: ([\d.]+) to ([\d.]+) s", decoded.notes[0].text).groups())
    assert (begin, end) == pytest.approx((lost[0] / RATE, (lost[-1] + 1) / RATE), abs=0.01)
    assert end - begin == pytest.approx(4096 / RATE, abs=0.01)  # one frame as libFLAC writes it


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "PCM_S8"])
def test_flac_of_unknown_length_is_decoded(channels, subtype):
    whole = encode(noise(channels=channels), "FLAC", subtype=subtype)
    at = whole.index(b"fLaC") + 8 + 13
    content = patch(whole, at, bytes([whole[at] & 0xF0, 0, 0, 0, 0]))
    expected = soundfile.read(io.BytesIO(whole), dtype="float32", always_2d=True)[0]
    for source in (content, content + b"TAG" + bytes(125)):
        decoded = decode_audio(source)
        np.testing.assert_array_equal(decoded.samples, expected)
        assert decoded.notes == ()
        assert_length_is_told(source, decoded)
    assert kinds(decode_audio(content[: len(content) // 2])) == [CUT_OFF]


def test_a_flac_that_is_cut_off():
    whole = encode(noise(10.0), "FLAC")
    decoded = decode_audio(whole[: len(whole) // 2], "half.flac")
    number = len(decoded.samples)
    assert kinds(decoded) == [CUT_OFF]
    assert f"half.flac is cut off: {number / RATE:.2f} of the 10.00 s" in decoded.notes[0].text
    expected = soundfile.read(io.BytesIO(whole), dtype="float32", always_2d=True)[0]
    np.testing.assert_array_equal(decoded.samples, expected[:number])
    assert number > 4.5 * RATE
    assert_length_is_told(whole[: len(whole) // 2], decoded)


def test_an_ogg_that_is_cut_off_says_so():
    whole = encode(noise(10.0), "OGG")
    decoded = decode_audio(whole[: len(whole) // 2], "half.ogg")
    assert kinds(decoded) == [CUT_OFF]
    assert "it does not say how long that was" in decoded.notes[0].text


# FFmpeg


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


def ffmpeg_file(path, *arguments):
    subprocess.run(["ffmpeg", "-v", "error", *map(str, arguments), path], check=True)
    return path


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
@pytest.mark.parametrize("codec", ["mp2", "libmp3lame"])
def test_mpeg_streams_are_no_mp3s(tmp_path, codec):
    (tmp_path / "clip.wav").write_bytes(encode(noise(6.0), rate=48_000))
    sound = ["-i", tmp_path / "clip.wav", "-c:a", codec, "-b:a", "32k"]
    for name in ("a.mpg", "a.ts"):  # whose packets hold several frames each
        decoded = decode_audio(ffmpeg_file(tmp_path / name, *sound))
        assert kinds(decoded) == []
        assert len(decoded.samples) / 48_000 == pytest.approx(2.0, abs=0.1)


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


# Errors, and the bytes beneath


@pytest.mark.parametrize(
    "error", [ValueError, MemoryError, SystemError, RuntimeError, OverflowError, struct.error, OSError]
)
def test_whatever_a_decoder_raises_names_the_file(monkeypatch, error):
    def fail(*args, **settings):
        raise error("array is too big")

    monkeypatch.setattr("soundfile.SoundFile.buffer_read_into", fail)
    with pytest.raises(AudioError, match="clip.wav cannot be decoded: array is too big") as raised:
        read_audio(encode(noise()), name="clip.wav")
    assert ("not enough memory" in str(raised.value)) == (error is MemoryError)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\xff" * 5000, "is probably damaged or not audio"),
        ("<html>seite nicht gefunden \u00fc</html>".encode() * 50, r"holds text \(a web page\), not audio"),
        (bytes(5000), "is probably damaged or not audio"),
    ],
)
def test_only_text_is_called_text(monkeypatch, content, words):
    with pytest.raises(AudioError, match=words):
        read_audio(content, name="clip.mp3")


def test_checksums_are_those_of_the_formats():
    # The polynomials' check values for the nine digits, from the catalogue of parametrised CRC algorithms.
    digits = b"123456789"
    assert checksum(digits, (8, 0x07)) == 0xF4
    assert checksum(digits, (16, 0x8005)) == 0xFEE8
    both = checksums(digits + digits[:4], [0, 9], [9, 13], (16, 0x8005))
    assert both.tolist() == [0xFEE8, checksum(digits[:4], (16, 0x8005))]


def test_contents_are_read_alike_from_memory_files_and_parts(tmp_path):
    data = np.random.default_rng(0).bytes(10_000)
    (tmp_path / "file").write_bytes(data)
    whole = BytesContent(data)
    opened = FileContent(str(tmp_path / "file"))
    spliced = SplicedContent([data[:100], (opened, 100, 4000), (whole, 4000, 10_000)])
    for content in (whole, opened, spliced, opened.part(0, 10_000)):
        assert content.size == 10_000
        assert content.read(90, 5000) == data[90:5090]
        assert content.read(9_990, 100) == data[9_990:]
        assert content.find(data[3990:4010], 5) == 3990
        assert list(content.find_all(data[:2])) == [at for at in range(9_999) if data[at : at + 2] == data[:2]]
    file = spliced.file()
    assert file.seek(-10, 2) == 9_990
    assert file.read() == data[-10:]
    opened.close()


def test_formats_are_told_by_their_first_bytes():
    for audio_format, name in (
        ("WAV", "WAV"),
        ("RF64", "RF64"),
        ("W64", "W64"),
        ("OGG", "OGG"),
        ("MP3", "MP3"),
        ("CAF", "CAF"),
    ):
        content = BytesContent(encode(noise(0.5), audio_format))
        assert sniff_format(content) == name
        assert len(recordings(content, name)) == 1


@pytest.mark.parametrize("audio_format", ["CAF", "W64", "WAV"])
def test_a_tenth_of_a_second_less_is_said_whatever_room_the_header_takes(audio_format):
    whole = encode(noise(), audio_format)
    assert kinds(decode_audio(whole[:-3200])) == [CUT_OFF]
    assert kinds(decode_audio(whole[:-40])) == []


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_an_ogg_whose_last_pages_are_overwritten(subtype):
    whole = encode(noise(10.0), "OGG", subtype=subtype)
    number = whole.rfind(b"OggS") - 10
    content = whole[:number] + np.random.default_rng(0).bytes(len(whole) - number)
    assert kinds(decode_audio(content)) == [CUT_OFF]


# Tags and other writers


ID3 = b"ID3\x04\0\0\0\0\x03\0" + bytes(384)
ID3V1 = b"TAG" + bytes(125)
APE_ITEM = struct.pack("<II", 300, 0) + b"Title\0" + b"x" * 300
APE = APE_ITEM + b"APETAGEX" + struct.pack("<IIII", 2000, len(APE_ITEM) + 32, 1, 0) + bytes(8)  # without a header


@pytest.mark.parametrize("audio_format", ["WAV", "FLAC", "AIFF", "AU", "OGG"])
def test_an_id3_tag_before_formats_that_have_none(tmp_path, monkeypatch, audio_format):
    whole = encode(noise(), audio_format)
    (tmp_path / "clip").write_bytes(ID3 + ID3 + whole)
    expected = soundfile.read(io.BytesIO(whole), dtype="float32", always_2d=True)[0]
    for held_whole in (1 << 26, 0):
        monkeypatch.setattr("modeling_ast.audio.reading.HELD_WHOLE", held_whole)
        for seconds in (None, 1.0):
            decoded = decode_audio(tmp_path / "clip", seconds=seconds)
            np.testing.assert_array_equal(decoded.samples, expected)
            assert decoded.notes == ()
    assert_length_is_told(ID3 + whole, decoded)


@pytest.mark.parametrize("tags", [APE, APE + ID3V1, ID3V1, b"x" * 5 + b"000005LYRICS200" + ID3V1])
def test_a_flac_of_unknown_length_with_tags_behind_it_is_whole(tags):
    whole = encode(noise(), "FLAC")
    content = patch(whole, whole.index(b"fLaC") + 8 + 13, bytes([whole[21] & 0xF0, 0, 0, 0, 0])) + tags
    decoded = decode_audio(content)
    assert (len(decoded.samples), decoded.notes) == (2 * RATE, ())


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
def test_joined_flv(tmp_path):
    (tmp_path / "clip.wav").write_bytes(encode(noise()))
    subprocess.run(
        ["ffmpeg", "-v", "error", "-i", tmp_path / "clip.wav", "-ar", "22050", tmp_path / "a.flv"], check=True
    )
    content = (tmp_path / "a.flv").read_bytes()
    assert len(decode_audio(content + content).samples) == 2 * len(decode_audio(content).samples)


@needs_ffmpeg
@pytest.mark.parametrize("suffix", ["mkv", "wmv"])
def test_pictures_that_go_on_longer_than_the_sound_are_no_damage(tmp_path, suffix):
    (tmp_path / "clip.wav").write_bytes(encode(noise()))
    command = ["ffmpeg", "-v", "error", "-f", "lavfi", "-i", "testsrc=d=4:s=64x64:r=5", "-i", tmp_path / "clip.wav"]
    subprocess.run([*command, tmp_path / f"film.{suffix}"], check=True)
    decoded = decode_audio(tmp_path / f"film.{suffix}")
    assert len(decoded.samples) / decoded.sampling_rate == pytest.approx(2.0, abs=0.1)
    assert kinds(decoded) == []


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


@pytest.mark.parametrize("audio_format", ["AIFF", "AU", "W64", "CAF"])
def test_sizes_older_than_the_samples(audio_format):
    whole = encode(noise(), audio_format)
    offset = len(whole) - 4 * RATE
    place, value = {
        "AIFF": (offset - 12, struct.pack(">I", RATE + 8)),
        "AU": (8, struct.pack(">I", RATE)),
        "W64": (offset - 8, struct.pack("<Q", RATE + 24)),
        "CAF": (offset - 12, struct.pack(">q", RATE + 4)),
    }[audio_format]
    content = patch(whole, place, value)
    decoded = decode_audio(content, "clip.x")
    np.testing.assert_array_equal(decoded.samples, decode_audio(whole).samples)
    assert [note.text for note in decoded.notes] == [
        "clip.x has a wrong header: it announces 0.50 s of samples; 2.00 s are there, which are heard."
    ]
    assert_length_is_told(content, decoded)
    assert decode_audio(whole + ID3V1).notes == ()


def test_a_flac_header_older_than_its_samples():
    whole = encode(noise(), "FLAC")
    content = patch(whole, 8 + 13, bytes([whole[21] & 0xF0]) + struct.pack(">I", RATE))
    decoded = decode_audio(content)
    assert (len(decoded.samples), kinds(decoded)) == (2 * RATE, [HEADER])
    assert_length_is_told(content, decoded)


def test_a_flac_header_that_announces_years():
    whole = encode(noise(), "FLAC")
    content = patch(whole, 8 + 13, bytes([whole[21] | 0x0F]) + b"\xff\xff\xff\xf0")
    decoded = decode_audio(content)
    assert (len(decoded.samples), kinds(decoded)) == (2 * RATE, [CUT_OFF])


def test_a_long_hole_in_a_flac_takes_no_long_time():
    whole = encode(noise(10.0), "FLAC")
    content = whole[: len(whole) // 2] + bytes(3 << 20) + whole[len(whole) // 2 :]
    started = time.perf_counter()
    assert kinds(decode_audio(content)) == [DAMAGED]
    assert time.perf_counter() - started < 2


@pytest.mark.parametrize(("rest", "number"), [(b"\xff" * 5000, 0), (bytes(5000) + b"\1\2" * 500, 3000)])
def test_only_one_and_the_same_byte_behind_the_samples_of_a_wav_is_no_sound(rest, number):
    decoded = decode_audio(encode(noise()) + rest)
    assert (len(decoded.samples), kinds(decoded)) == (2 * RATE + number, [HEADER] * (number > 0))


def test_a_chunk_of_odd_size_without_padding_behind_the_samples():
    tail = b"LIST" + struct.pack("<I", 101) + b"INFO" + b"x" * 97 + b"cue \x04\0\0\0" + bytes(4)
    decoded = decode_audio(encode(noise()) + tail)
    assert (len(decoded.samples), decoded.notes) == (2 * RATE, ())


@pytest.mark.parametrize("subtype", ["PCM_16", "ULAW"])
def test_a_sphere_file_that_is_cut_off(subtype):
    whole = encode(noise(), "NIST", subtype=subtype)
    assert decode_audio(whole).notes == ()
    decoded = decode_audio(whole[: len(whole) // 2])
    assert kinds(decoded) == [CUT_OFF]
    assert "of the 2.00 s that its header announces" in decoded.notes[0].text


# MPEG audio


MP2_FRAME = bytes([0xFF, 0xFD, 0x84, 0xC0])  # 44.1 kHz, mono, 128 kbit/s; libsndfile writes layer III only


def mp2(*bitrate_indices):
    """Silence of layer II: no sub-band has bits."""
    frames = []
    for index in bitrate_indices:
        head = MP2_FRAME[:2] + bytes([index << 4, 0xC0])
        frames.append(head + bytes(frame_header(head).size - 4))
    return b"".join(frames)


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
            assert (HEADER_PATTERN.match(head) is None) == (frame_header(head) is None)


def test_large_files_are_not_told_by_their_suffix(tmp_path, monkeypatch):
    (tmp_path / "clip.vox").write_bytes(np.random.default_rng(0).bytes(5000))
    monkeypatch.setattr("modeling_ast.audio.reading.HELD_WHOLE", 0)
    with pytest.raises(AudioError):
        decode_audio(tmp_path / "clip.vox")


def test_a_flac_within_a_block_of_a_flac_is_no_second_one():
    whole = encode(noise(), "FLAC")
    inner = b"abcd" + whole[:200]  # in an APPLICATION block behind STREAMINFO
    content = whole[:4] + b"\0" + whole[5:42] + b"\2" + len(inner).to_bytes(3, "big") + inner + whole[42:]
    decoded = decode_audio(content)
    assert (len(decoded.samples), decoded.notes) == (2 * RATE, ())


def test_rf64_of_unknown_size():
    whole = encode(noise(), "RF64")
    decoded = decode_audio(patch(whole, whole.index(b"ds64") + 16, b"\xff" * 8))
    assert (len(decoded.samples), decoded.notes) == (2 * RATE, ())


def test_a_wav_that_says_it_is_all_may_hold_the_header_of_another():
    samples = np.zeros(RATE, dtype=np.int16)
    samples[1000:1010] = np.frombuffer(b"RIFF\x24\0\0\0WAVEfmt \0\0\0\0", dtype=np.int16)
    assert len(decode_audio(encode(samples)).samples) == RATE


@pytest.mark.parametrize("audio_format", ["WAV", "CAF"])
def test_a_header_that_is_a_little_older_than_the_samples_is_said_whatever_room_it_takes(audio_format):
    whole = encode(noise(), audio_format)
    at = whole.index(b"data") + 4
    size = struct.pack("<I", 61_000) if audio_format == "WAV" else struct.pack(">q", 61_000 + 4)
    decoded = decode_audio(patch(whole, at, size))
    assert len(decoded.samples) == 2 * RATE
    assert kinds(decoded) == [HEADER]


def test_a_flac_of_32_bits_is_left_to_ffmpeg(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", None)
    monkeypatch.setattr("modeling_ast.audio.ffmpeg.has_program", lambda: False)
    block = bytearray(stream_info(BytesContent(encode(noise(), "FLAC"))).block)
    block[12], block[13] = block[12] | 1, block[13] | 0xF0  # the sample size less one: 31
    info = StreamInfo(frames_offset=42, block=bytes(block))
    content = info.with_samples(2 * info.largest_block) + _silence(info, 0, 2 * info.largest_block, b"\xff\xf8")
    with pytest.raises(AudioError, match=r"^a\.flac \(FLAC\) cannot be decoded: soundfile says"):
        decode_audio(content, "a.flac")


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

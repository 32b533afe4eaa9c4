"""What a file may become: headers that claim more than is there, few bytes that hold much, and programs that stand still."""

import contextlib
import io
import os
import resource
import struct
import time
import tracemalloc

import numpy as np
import pytest
import soundfile
from encoded_audio import kinds

from modeling_ast.audio import (
    CUT_OFF,
    DAMAGED,
    LEFT_OUT,
    AudioError,
    audio_length,
    decode_audio,
    decoders,
    ffmpeg,
    formats,
    limits,
    ogg,
    read_audio,
    reading,
    tags,
)
from modeling_ast.audio.content import BytesContent
from tests.attack.damaged_audio import (
    encode,
    flac_frame,
    flac_of_silence,
    mp3_frames,
    ogg_checksum,
    patch,
    with_last_granule,
)

RATE = 16_000
NOISE = np.random.default_rng(0).uniform(-0.3, 0.3, 4 * RATE).astype(np.float32)
SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff", ".au", ".caf", ".w64")


def pages(content):
    return [at for at in range(len(content)) if content.startswith(b"OggS", at)]


@pytest.mark.parametrize("suffix", [".ogg", ".opus"])
@pytest.mark.parametrize("granule", [1 << 36, (1 << 62) - 1])
def test_a_header_that_claims_years_costs_nothing(suffix, granule):
    content = with_last_granule(encode(NOISE, suffix), granule)
    expected = read_audio(encode(NOISE, suffix))
    tracemalloc.start()
    decoded = decode_audio(content)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 50e6
    assert len(decoded.samples) >= len(expected)
    assert kinds(decoded) == [CUT_OFF]
    assert audio_length(content).seconds == pytest.approx(len(decoded.samples) / RATE)


@pytest.mark.parametrize("suffix", [suffix for suffix in SUFFIXES if suffix != ".mp3"])
def test_reading_in_pieces_changes_no_sample(monkeypatch, suffix):
    content = encode(NOISE, suffix)
    expected = decode_audio(content)
    monkeypatch.setattr(decoders, "READ_AT_ONCE", 1000)
    monkeypatch.setattr(decoders, "READ_PER_BYTE", 0)
    decoded = decode_audio(content)
    np.testing.assert_array_equal(decoded.samples, expected.samples)
    assert decoded.notes == expected.notes


def test_an_mp3_is_never_read_in_pieces():
    """Which would change the last bit of its samples: no frame has more of them for a byte."""
    assert limits.READ_PER_BYTE > 2 * 576 / 24


@pytest.mark.parametrize("limit", ["the header's word", "none"])
def test_silence_beyond_what_the_bytes_can_hold_is_refused(limit):
    content = flac_of_silence(65_535 * 200, channels=8)  # 105 million numbers in 7 kB
    if limit == "none":  # where the header does not say how much it is
        content = patch(content, 21, bytes([content[21] & 0xF0, 0, 0, 0, 0]))
    tracemalloc.start()
    with pytest.raises(AudioError, match=r"clip becomes more than 524 s of 8 channel\(s\) at 16000 Hz, and has only"):
        decode_audio(content, "clip")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4.1 * limits.ALWAYS_ALLOWED
    assert len(decode_audio(content, seconds=1.0).samples) == 61 * RATE  # where only its beginning is wanted


def test_a_frame_of_flac_that_says_it_lies_years_ahead():
    whole = flac_of_silence(65_535 * 3)
    decoded = decode_audio(patch(whole + flac_frame(60_000), 21, bytes([whole[21] & 0xF0, 0, 0, 0, 0])))
    assert len(decoded.samples) == 65_535 * 3


def test_joined_recordings_share_what_the_file_may_become(monkeypatch):
    few = encode(NOISE[:10], ".wav", rate=500_000)
    many = encode(NOISE[:8_000], ".wav", rate=1_000)  # at 500 kHz five hundred times as much
    monkeypatch.setattr(limits, "ALWAYS_ALLOWED", 1 << 20)
    assert len(decode_audio(many).samples) == 8_000
    with pytest.raises(AudioError, match="clip becomes more than"):
        decode_audio(few + many, "clip")
    channels = encode(np.zeros((10, 1000), np.float32), ".wav")
    with pytest.raises(AudioError, match="clip becomes more than"):
        decode_audio(channels + encode(NOISE, ".wav"), "clip")
    too_fast = patch(few, 24, struct.pack("<I", 600_000))
    with pytest.raises(AudioError, match="clip has a sampling rate of 600000 Hz"):
        decode_audio(too_fast + many, "clip")


def test_after_some_joined_recordings_that_cannot_be_decoded_no_other_is_tried(monkeypatch):
    bad = patch(encode(NOISE[:800], ".wav"), 16, bytes(4))
    monkeypatch.setattr(reading, "MOST_FAILED", 3)
    decode, tried = reading.decode_recording, []
    monkeypatch.setattr(reading, "decode_recording", lambda *args: tried.append(1) or decode(*args))
    decoded = decode_audio(encode(NOISE, ".wav") + 40 * bad, "clip")
    assert len(tried) == 1 + 3
    assert len(decoded.samples) == len(NOISE)
    assert decoded.notes[-1].text == "clip: the 37 recordings behind that were not tried, as 3 could not be decoded."


def test_streams_of_four_frames_beyond_a_number_are_left_out(monkeypatch):
    monkeypatch.setattr(formats, "MOST_RECORDINGS", 5)
    decoded = decode_audio(mp3_frames(400, alternating=True), "clip")
    assert len(decoded.samples) == 5 * 4 * 576
    assert decoded.notes[-1].text.startswith("clip holds more than 5 recordings")
    assert decoded.notes[-1].kind == LEFT_OUT


def test_frames_that_an_mp3_says_it_has_lost_in_a_spot_too_small_for_them():
    whole = encode(NOISE, ".mp3")
    at = max(whole.find(b"Info"), whole.find(b"Xing"))
    content = patch(patch(whole, at + 8, struct.pack(">I", 1 << 27)), len(whole) // 2, bytes(1500))
    decoded = decode_audio(content)
    assert kinds(decoded) == [DAMAGED]
    assert len(decoded.samples) == pytest.approx(len(NOISE), abs=RATE // 5)


@pytest.mark.parametrize(("place", "expected"), [(2, [DAMAGED]), (-1, [CUT_OFF])])
def test_the_first_and_the_last_page_of_an_ogg(place, expected):
    content = encode(NOISE, ".ogg")
    start = pages(content)[place]
    decoded = decode_audio(patch(content, start + 400, bytes(64)))
    assert kinds(decoded) == expected
    if place == 2:  # what follows keeps its time
        whole = decode_audio(content).samples
        assert len(decoded.samples) == len(whole)
        np.testing.assert_array_equal(decoded.samples[-RATE:], whole[-RATE:])


def test_the_checksum_of_an_ogg_page():
    content = encode(NOISE, ".ogg")
    for start in pages(content):
        page = content[start : ogg.page_at(BytesContent(content), start).stop]
        assert ogg.page_checksum(page) == ogg_checksum(page) == struct.unpack_from("<I", page, 22)[0]


def test_an_au_whose_size_libsndfile_takes_for_a_negative_one():
    decoded = decode_audio(patch(encode(NOISE, ".au"), 8, struct.pack(">I", 0xFFFF_FFF0)))
    np.testing.assert_array_equal(decoded.samples, decode_audio(encode(NOISE, ".au")).samples)
    assert kinds(decoded) == [CUT_OFF]


@pytest.mark.parametrize(
    "content",
    [
        b"ID3\x04\0\0\0\0\0\0" * 50_000,
        (b"TAG" + bytes(125)) * 20_000,
        b"RIFF\xff\xff\xff\xffWAVE" + b"junk\0\0\0\0" * 50_000,
        b"fLaC\0\0\0\x22" + bytes(34) + b"\x01\0\0\0" * 50_000,
    ],
    ids=["ID3", "TAG", "WAV", "FLAC"],
)
def test_tags_and_chunks_without_end_are_not_all_looked_at(monkeypatch, content):
    read, reads = BytesContent.read, []
    monkeypatch.setattr(BytesContent, "read", lambda *args: reads.append(1) or read(*args))
    with pytest.raises(AudioError):
        decode_audio(content)
    tags.trailing_tags(BytesContent(content))
    assert len(reads) < 10_000


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Put a shell script in the place of the ffmpeg program."""

    def write(script):
        path = tmp_path / "ffmpeg"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
        return limits.Allowance("clip", 100)

    return write


def test_an_ffmpeg_program_that_stands_still_or_never_ends(program, tmp_path, monkeypatch):
    monkeypatch.setattr(ffmpeg, "LONGEST_PAUSE", 0.2)
    started = time.perf_counter()
    with pytest.raises(ffmpeg.FFmpegError, match="ffmpeg gave nothing for 0 s"):
        ffmpeg.decode_with_program(BytesContent(b"x"), program("exec sleep 30"))
    head = io.BytesIO()
    soundfile.write(head, NOISE[:10], RATE, format="WAV", subtype="FLOAT")
    (tmp_path / "head").write_bytes(head.getvalue())
    monkeypatch.setattr(limits, "ALWAYS_ALLOWED", 1 << 20)
    with pytest.raises(limits.TooMuchError, match="clip becomes more than 66 s of 1 channel"):
        ffmpeg.decode_with_program(BytesContent(b"x"), program(f"cat {tmp_path}/head /dev/zero"))
    assert time.perf_counter() - started < 5


def test_an_ffmpeg_program_is_heard_where_a_thousand_files_are_open(program, tmp_path, request):
    soundfile.write(tmp_path / "head", NOISE, RATE, format="WAV", subtype="FLOAT")
    limit, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= most < 2048:
        pytest.skip("a process may not open as many files here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (2048, most))
    request.addfinalizer(lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (limit, most)))
    with contextlib.ExitStack() as stack:
        for _ in range(1024):
            stack.enter_context(open(os.devnull))
        decoded = ffmpeg.decode_with_program(BytesContent(b"x"), program(f"cat {tmp_path}/head"))
    np.testing.assert_array_equal(decoded.samples[:, 0], NOISE)


def test_torchcodec_decodes_no_more_than_a_file_may_become(tmp_path, monkeypatch):
    path = tmp_path / "clip.m4a"
    try:
        path.write_bytes(encode(NOISE, ".m4a"))
    except FileNotFoundError:
        pytest.skip("the ffmpeg program is not installed")
    whole = decode_audio(path)
    allowance = limits.Allowance("clip", 100)
    decoded = ffmpeg.decode_with_torchcodec(BytesContent(path.read_bytes()), allowance, by_time=True, seconds=1.0)
    assert len(decoded.samples) == RATE
    np.testing.assert_array_equal(decoded.samples, whole.samples[:RATE])
    monkeypatch.setattr(limits, "ALWAYS_ALLOWED", 20_000)
    monkeypatch.setattr(limits, "ALLOWED_PER_BYTE", 0)
    with pytest.raises(limits.TooMuchError, match="becomes more than 1 s of 1 channel"):
        ffmpeg.decode_with_torchcodec(BytesContent(path.read_bytes()), limits.Allowance("clip", 100), True, None)
    with pytest.raises(AudioError, match="becomes more than 1 s of 1 channel"):
        decode_audio(path)


def test_limits_are_kept_whatever_times_a_container_gives(tmp_path, monkeypatch):
    torchcodec = pytest.importorskip("torchcodec.decoders")
    path = tmp_path / "clip.m4a"
    try:
        path.write_bytes(encode(NOISE, ".m4a"))
    except FileNotFoundError:
        pytest.skip("the ffmpeg program is not installed")
    content = bytearray(path.read_bytes())
    scale = content.index(b"mdhd") + 16  # units of a second; ISO/IEC 14496-12, 8.4.2
    content[scale : scale + 4] = struct.pack(">I", 1000 * struct.unpack(">I", content[scale : scale + 4])[0])
    edits = content.index(b"edts")
    content[edits : edits + 4] = b"free"
    path.write_bytes(content)
    decoded = []
    decode = torchcodec.AudioDecoder.get_samples_played_in_range
    monkeypatch.setattr(
        torchcodec.AudioDecoder,
        "get_samples_played_in_range",
        lambda *args, **kwargs: (decoded.append(1), decode(*args, **kwargs))[1],
    )
    for source in (path, bytes(content)):
        with pytest.raises(limits.TooMuchError, match="lasts longer than the 0.05 minutes"):
            decode_audio(source, "clip", limits=limits.AudioLimits(3.0, 1 << 20))
        assert not decoded
    assert len(decode_audio(path, "clip", limits=limits.AudioLimits(5.0, 1 << 20)).samples) >= len(NOISE)

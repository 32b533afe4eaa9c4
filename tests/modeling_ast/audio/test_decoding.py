"""Files that are cut off, joined, damaged or have wrong headers: lengths are FFmpeg's, samples those of the whole file.

Most files are written by soundfile and then changed byte by byte, as dying programs, pipes and broken downloads do; those
of formats that soundfile does not write come from the ffmpeg program.
"""

import io
import re
import struct
import subprocess
import time

import numpy as np
import pytest
import soundfile
from encoded_audio import (
    APE,
    ID3,
    ID3V1,
    RATE,
    assert_length_is_told,
    damaged,
    encode,
    kinds,
    needs_ffmpeg,
    noise,
    patch,
)

from modeling_ast.audio import CUT_OFF, DAMAGED, HEADER, AudioError, decode_audio, read_audio
from modeling_ast.audio.checksums import checksum, checksums
from modeling_ast.audio.content import BytesContent, FileContent, SplicedContent
from modeling_ast.audio.formats import recordings, sniff_format
from modeling_ast.audio.sample_regions import patched, sample_region


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
    expected = [0xFEE8, checksum(digits[:4], (16, 0x8005))]
    for times in (1, 100):  # few one after the other, many all together
        starts = [13 * time + start for time in range(times) for start in (0, 9)]
        stops = [13 * time + stop for time in range(times) for stop in (9, 13)]
        found = checksums(times * (digits + digits[:4]), starts, stops, (16, 0x8005))
        assert found.tolist() == times * expected


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

"""Which files of a folder are audio, beside what libsndfile writes and datasets looks for; and what is text under such a name."""

import numpy as np
import pytest
import soundfile
from datasets.packaged_modules.audiofolder.audiofolder import AudioFolder

from modeling_ast.audio import AUDIO_SUFFIXES, AudioError, find_audio_files, read_audio
from modeling_ast.audio.content import BytesContent
from modeling_ast.audio.formats import looks_like_text

# libsndfile's formats, by the suffixes that such files have.
SUFFIXES = {
    "AIFF": (".aif", ".aiff", ".aifc"), "AU": (".au", ".snd"), "AVR": (".avr",), "CAF": (".caf",), "FLAC": (".flac",),
    "HTK": (".htk",), "IRCAM": (".sf", ".ircam"), "MAT4": (".mat4",), "MAT5": (".mat5",), "MP3": (".mp3",),
    "MPC2K": (".mpc", ".mpc2k"), "NIST": (".sph", ".nist"), "OGG": (".ogg", ".oga"), "PAF": (".paf", ".fap"),
    "PVF": (".pvf",), "RF64": (".rf64",), "SDS": (".sds",), "SVX": (".8svx", ".16svx", ".svx"), "VOC": (".voc",),
    "W64": (".w64",), "WAV": (".wav", ".wave", ".bwf"), "WAVEX": (".wav",), "WVE": (".wve",), "XI": (".xi",),
}  # fmt: skip
NOT_BY_CONTENT = {"RAW", "SD2"}  # without a header; with its header in another file
NOT_IN_FOLDERS = {".raw", ".sd2"}


def test_all_formats_of_libsndfile_are_looked_for():
    assert set(SUFFIXES) == set(soundfile.available_formats()) - NOT_BY_CONTENT


@pytest.mark.parametrize(
    ("audio_format", "suffix"), [(name, suffix) for name, row in SUFFIXES.items() for suffix in row]
)
def test_what_is_decoded_is_found_in_a_folder(tmp_path, audio_format, suffix):
    rate = 8_000 if audio_format == "WVE" else 16_000
    subtype = {"WVE": "ALAW", "XI": "DPCM_16"}.get(audio_format)
    path = tmp_path / f"clip{suffix.upper()}"
    soundfile.write(path, np.sin(np.arange(rate) * 0.2) / 2, rate, format=audio_format, subtype=subtype)
    assert find_audio_files(tmp_path) == [path]
    assert np.abs(read_audio(path)).max() > 0.3


def test_what_datasets_takes_from_a_folder_is_found_too():
    assert set(AudioFolder.EXTENSIONS) - NOT_IN_FOLDERS <= AUDIO_SUFFIXES


@pytest.mark.parametrize("suffix", [".raw", ".pcm", ".mat", ".ts", ".txt", ".csv", ""])
def test_what_no_decoder_can_tell_is_not_taken_from_a_folder(tmp_path, suffix):
    (tmp_path / f"clip{suffix}").write_bytes(bytes(100))
    with pytest.raises(AudioError, match=r"no audio file. Looked for names ending in .wav, .* or one of \d+ others"):
        find_audio_files(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        b"<!DOCTYPE html>\n<html>",
        b"\n <HTML><title>\xe9</title>",  # in Latin-1
        "\ufeff<html>ő".encode(),
        "<html>ő".encode("utf-16"),
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
        b'{"error": "not found"}',
        "ő".encode() * 300,  # a character is cut in two after 512 bytes
        b"a" + "ő".encode() * 300,
        "a zero-width\u200bspace".encode(),
    ],
)
def test_text_is_told(content):
    assert looks_like_text(BytesContent(content))


@pytest.mark.parametrize("count", [1, 2, 3, 4, 511, 512, 513, 4000])
@pytest.mark.parametrize("byte", [b"\xff", b"\x00", b"\x80", b"\xfe", b"\x1b", b"\xc5"])
def test_bytes_that_are_no_characters_are_no_text(byte, count):
    assert not looks_like_text(BytesContent(byte * count))


def test_noise_is_no_text():
    generator = np.random.default_rng(0)
    assert not any(looks_like_text(BytesContent(generator.bytes(512))) for _ in range(200))
    assert not looks_like_text(BytesContent(b"\xff\xfe" + generator.bytes(510)))


def test_a_file_of_one_byte_over_and_over_is_no_web_page(tmp_path):
    (tmp_path / "clip.wav").write_bytes(b"\xff" * 3)
    with pytest.raises(AudioError, match="cannot be decoded") as raised:
        read_audio(tmp_path / "clip.wav")
    assert "web page" not in str(raised.value)

"""Stretches of a file are what the whole decode gives there, wherever they lie, and what cannot be sought is decoded whole."""

import numpy as np
import pytest
import soundfile
from encoded_audio import ffmpeg_file, needs_ffmpeg

from modeling_ast.audio import (
    CANCELLED,
    AudioError,
    AudioReader,
    ExcerptReader,
    decode_audio,
    ffmpeg_places,
    file_layout,
    reading,
)
from modeling_ast.audio.content import FileContent

RATE = 44_100
FORMATS = {
    "a.wav": ("WAV", "PCM_16"),
    "a.flac": ("FLAC", "PCM_16"),
    "a.ogg": ("OGG", "VORBIS"),
    "a.mp3": ("MP3", "MPEG_LAYER_III"),
}


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    """Fourteen seconds of noise under a slow tone in two channels, in files of every kind."""
    folder = tmp_path_factory.mktemp("sounds")
    noise = 0.1 * np.random.default_rng(0).standard_normal((14 * RATE, 2))
    tone = 0.3 * np.sin(2 * np.pi * 3 * np.arange(len(noise)) / RATE)
    for name, (kind, subtype) in FORMATS.items():
        soundfile.write(folder / name, (noise + tone[:, None]).astype(np.float32), RATE, subtype, format=kind)
    return folder


@pytest.mark.parametrize("resampler", ["soxr", "torchaudio"])
@pytest.mark.parametrize("name", FORMATS)
def test_a_stretch_is_that_of_the_whole(sounds, name, resampler):
    for rate, tolerance in (
        (RATE, 1e-7),
        (16_000, 2e-7),
    ):  # MP3 rounds otherwise from where it begins; so do resamplers
        reader = AudioReader(rate, resampler=resampler)
        whole = reader.hear(sounds / name).waveform
        excerpts = ExcerptReader(reader)
        length = excerpts.num_samples(sounds / name)
        assert abs(length - len(whole)) <= 1
        for start in (0, 1, 777, length // 3 + 5, length - rate, length - 300, length - 100):
            found = excerpts.hear(sounds / name, start, rate).waveform
            expected = whole[start : start + rate]
            assert abs(len(found) - len(expected)) <= 1
            size = min(len(found), len(expected))
            np.testing.assert_allclose(found[:size], expected[:size], atol=tolerance, rtol=0)


MP3_KINDS = {  # what a later frame takes from earlier ones is a byte, or many frames
    "44.1 kHz stereo": (44_100, 2, ["-b:a", "128k"]),
    "without a tag": (44_100, 2, ["-q:a", "3", "-write_xing", "0"]),
    "small frames": (16_000, 1, ["-b:a", "8k"]),
    "frames of all sizes": (22_050, 1, ["-q:a", "4"]),
    "small frames of MPEG-1": (44_100, 1, ["-b:a", "32k"]),
    "frames of three bytes": (24_000, 2, ["-b:a", "8k"]),
    "frames of five bytes in silence": (22_050, 2, ["-q:a", "4"]),
}


@needs_ffmpeg
@pytest.mark.parametrize("kind", MP3_KINDS)
def test_a_stretch_of_an_mp3_is_decoded_from_its_own_frames(kind, tmp_path, monkeypatch, capfd):
    rate, channels, flags = MP3_KINDS[kind]
    generator = np.random.default_rng(0)
    sound = 0.1 * generator.standard_normal((40 * rate, channels))
    sound[4 * rate : 9 * rate] = 0  # the sizes of frames change
    soundfile.write(tmp_path / "a.wav", sound, rate, "FLOAT")
    path = ffmpeg_file(tmp_path / "a.mp3", "-i", tmp_path / "a.wav", "-c:a", "libmp3lame", *flags)
    reader = AudioReader(rate)
    whole = reader.hear(path).waveform
    excerpts = ExcerptReader(reader)
    length = excerpts.num_samples(path)
    assert length == len(whole)
    read = []
    monkeypatch.setattr(FileContent, "read", _counted(FileContent.read, read))
    starts = [0, 1, 528, 1105, 1152, *generator.integers(0, length, 12), length - 700, length - 1]
    for start in starts:
        heard = excerpts.hear(path, start, rate).waveform
        np.testing.assert_allclose(heard, whole[start : start + rate], atol=2e-7, rtol=0)
        assert len(heard) == min(rate, length - start)
    assert max(read) < path.stat().st_size / 4
    assert capfd.readouterr().err == "", "the decoder finds what it looks for"


@needs_ffmpeg
def test_bytes_before_an_mp3_and_a_file_that_is_another_by_now(tmp_path):
    soundfile.write(tmp_path / "a.wav", 0.1 * np.random.default_rng(0).standard_normal(20 * RATE), RATE)
    path = ffmpeg_file(tmp_path / "a.mp3", "-i", tmp_path / "a.wav", "-c:a", "libmp3lame", "-b:a", "64k")
    content = bytearray(path.read_bytes())
    tag = content.index(b"Info")
    content[tag + 120 : tag + 129] = bytes(9)  # without the encoder's name its delay is not read
    reader = AudioReader(RATE)
    for written in (bytes(300) + content, bytes(content), bytes(300) + path.read_bytes()):
        (tmp_path / "b.mp3").write_bytes(written)
        whole, excerpts = reader.hear(tmp_path / "b.mp3").waveform, ExcerptReader(reader)
        for start in (0, 3 * RATE + 5, 11 * RATE):
            heard = excerpts.hear(tmp_path / "b.mp3", start, RATE).waveform
            np.testing.assert_allclose(heard, whole[start : start + RATE], atol=2e-7, rtol=0)
    excerpts = ExcerptReader(reader)
    excerpts.hear(path, 0, RATE)
    path.write_bytes(b"ID3\x04\0\0\0\0\x03\0" + bytes(384) + path.read_bytes())
    expected = reader.hear(path).waveform[5 * RATE : 6 * RATE]
    np.testing.assert_allclose(excerpts.hear(path, 5 * RATE, RATE).waveform, expected, atol=2e-7, rtol=0)
    excerpts = ExcerptReader(reader)
    excerpts.hear(path, 0, RATE)
    path.write_bytes(path.read_bytes()[: 1 << 16])
    assert len(excerpts.hear(path, 15 * RATE, RATE).waveform) == 0, "nothing is left there"


@needs_ffmpeg
def test_an_mp3_of_another_rate_by_now_is_decoded_anew(tmp_path):
    """Frames at 16 kHz and 64 kbit/s are as long as those at 24 kHz and 96 kbit/s."""
    for rate, flag in ((16_000, "64k"), (24_000, "96k")):
        sound = 0.1 * np.sin(2 * np.pi * np.cumsum(np.linspace(200, 3_000, 20 * rate)) / rate)
        soundfile.write(tmp_path / f"{rate}.wav", sound, rate)
        ffmpeg_file(tmp_path / f"{rate}.mp3", "-i", tmp_path / f"{rate}.wav", "-c:a", "libmp3lame", "-b:a", flag)
    reader, path = AudioReader(16_000), tmp_path / "16000.mp3"
    excerpts = ExcerptReader(reader)
    excerpts.hear(path, 0, 16_000)
    (tmp_path / "24000.mp3").replace(path)
    expected = reader.hear(path).waveform[80_000:96_000]
    np.testing.assert_allclose(excerpts.hear(path, 80_000, 16_000).waveform, expected, atol=2e-7, rtol=0)


def _counted(method, counts):
    def counted(*args):
        found = method(*args)
        counts.append(len(found))
        return found

    return counted


def test_wav_and_flac_at_their_own_rate_are_the_same_bits(sounds):
    reader = AudioReader(RATE, channels="right")
    for name in ("a.wav", "a.flac"):
        whole = soundfile.read(sounds / name, dtype="float32")[0][:, 1]
        found = ExcerptReader(reader).hear(sounds / name, 12_345, 20_000).waveform
        np.testing.assert_array_equal(found, whole[12_345:32_345])


FFMPEG_KINDS = {  # kinds of files that FFmpeg alone reads, and whether it decodes their blocks by themselves as in the whole
    "aac.m4a": (["-c:a", "aac", "-aac_pns", "0"], True),
    "noise.m4a": (["-c:a", "aac", "-b:a", "64k"], False),  # of random numbers that run on
    "alac.m4a": (["-c:a", "alac"], True),
    "wma.wma": (["-c:a", "wmav2", "-b:a", "64k"], True),  # times in whole milliseconds
    "opus.webm": (["-c:a", "libopus"], True),
    "aac.mkv": (["-c:a", "aac", "-aac_pns", "0"], True),
    "pcm.mov": (["-c:a", "pcm_s16be"], True),
    "ac3.ac3": (["-c:a", "ac3"], False),
}


@needs_ffmpeg
@pytest.mark.parametrize("name", FFMPEG_KINDS)
def test_blocks_that_ffmpeg_decodes_alike_are_decoded_by_themselves(sounds, tmp_path, monkeypatch, name):
    flags, alike = FFMPEG_KINDS[name]
    path = ffmpeg_file(tmp_path / name, "-i", sounds / "a.wav", *flags)
    other = ffmpeg_file(tmp_path / f"other {name}", "-t", 2, "-i", sounds / "a.wav", *flags)
    monkeypatch.setattr(ffmpeg_places, "BLOCK_SECONDS", 3.0)
    own_rate = decode_audio(path).sampling_rate
    for rate, tolerance in ((own_rate, 0), (16_000, 2e-7)):
        reader = AudioReader(rate)
        whole, excerpts = reader.hear(path).waveform, ExcerptReader(reader)
        excerpts.hear(path, 0, rate)
        excerpts.hear(path, 10 * rate, rate)  # of the whole that is there already
        assert excerpts._of_ffmpeg[str(path)] is True
        excerpts.hear(other, 0, rate)
        found = excerpts.hear(path, 1, rate).waveform
        assert bool(excerpts._of_ffmpeg[str(path)]) == alike
        with monkeypatch.context() as patch:
            if alike:  # nothing is decoded as a whole from here on
                patch.setattr(reading, "decode_recording", None)
            for start in (rate // 4, 3 * rate - 5, len(whole) // 3, len(whole) - rate - rate // 4):
                found = excerpts.hear(path, start, rate).waveform
                np.testing.assert_allclose(found, whole[start : start + rate], atol=tolerance, rtol=0)
        for start in (0, 1, len(whole) - 300):  # of which some have frames that come of the whole alone
            found, expected = excerpts.hear(path, start, rate).waveform, whole[start : start + rate]
            assert len(expected) - 1 <= len(found) <= len(expected)
            np.testing.assert_allclose(found, expected[: len(found)], atol=tolerance, rtol=0)
    excerpts.forget_whole()
    path.write_bytes(other.read_bytes())
    found = excerpts.hear(path, 0, 100).waveform  # not of the blocks of what was there
    np.testing.assert_array_equal(found, reader.hear(path).waveform[:100])


@needs_ffmpeg
def test_what_is_refused_of_a_file_of_ffmpeg_alone_does_not_depend_on_the_order(tmp_path, monkeypatch):
    """Its channels cancel for half a second of fourteen; as a whole it passes, and so do its parts, whenever they are asked for."""
    sound = np.repeat(0.1 * np.random.default_rng(0).standard_normal((14 * RATE, 1)), 2, axis=1)
    sound[7 * RATE : 7 * RATE + RATE // 2, 1] *= -1
    soundfile.write(tmp_path / "a.wav", sound, RATE)
    path = ffmpeg_file(tmp_path / "a.m4a", "-i", tmp_path / "a.wav", "-c:a", "alac")
    other = ffmpeg_file(tmp_path / "b.m4a", "-t", 2, "-i", tmp_path / "a.wav", "-c:a", "alac")
    monkeypatch.setattr(ffmpeg_places, "BLOCK_SECONDS", 3.0)
    excerpts = ExcerptReader(AudioReader(RATE, refused=frozenset({CANCELLED})))
    for _ in range(3):
        assert excerpts.hear(path, 7 * RATE, RATE // 2).notes == ()
        excerpts.hear(other, 0, RATE)
    assert excerpts._of_ffmpeg[str(path)]


def test_bytes_and_a_file_are_the_same(sounds):
    excerpts = ExcerptReader(AudioReader())
    content = {"bytes": (sounds / "a.flac").read_bytes(), "path": "x.flac"}
    of_bytes, of_file = (excerpts.hear(source, 5_000, 800).waveform for source in (content, sounds / "a.flac"))
    np.testing.assert_array_equal(of_bytes, of_file)


def test_what_is_joined_or_damaged_is_decoded_whole(sounds, tmp_path):
    joined, damaged = tmp_path / "joined.flac", tmp_path / "damaged.flac"
    content = (sounds / "a.flac").read_bytes()
    assert len(content) > 1 << 21, "so large that it is not looked through for a second recording"
    assert file_layout(sounds / "a.flac").goes_there
    joined.write_bytes(content * 2)
    assert not file_layout(joined).goes_there
    hurt = bytearray(content)
    hurt[len(content) // 2 : len(content) // 2 + 60_000] = bytes(60_000)
    damaged.write_bytes(hurt)
    reader = AudioReader()
    for path in (joined, damaged):
        whole = reader.hear(path)
        excerpts = ExcerptReader(reader)
        start = len(whole.waveform) // 2 - 2_000
        heard = excerpts.hear(path, start, 9_000)
        np.testing.assert_allclose(heard.waveform, whole.waveform[start : start + 9_000], atol=2e-7)
        assert heard.notes == whole.notes
    assert heard.notes, "damage is said"


def test_wrong_files_are_named(tmp_path):
    excerpts = ExcerptReader(AudioReader())
    (tmp_path / "text.wav").write_text("no audio")
    with pytest.raises(AudioError, match="nowhere.wav"):
        excerpts.num_samples(tmp_path / "nowhere.wav")
    with pytest.raises(AudioError, match="text.wav"):
        excerpts.num_samples(tmp_path / "text.wav")
    soundfile.write(tmp_path / "mono.wav", np.zeros(8_000), 16_000)
    with pytest.raises(AudioError, match="mono.wav is mono"):
        ExcerptReader(AudioReader(channels=2)).hear(tmp_path / "mono.wav", 10, 100)


def test_nothing_else_is_read_of_a_long_file(tmp_path, monkeypatch):
    """Ten minutes, of which a window of two seconds is asked for."""
    soundfile.write(tmp_path / "long.wav", np.zeros(600 * 16_000, np.int16), 16_000)
    read, into = [], soundfile.SoundFile.buffer_read_into

    def counted(self, buffer, dtype):
        read.append(len(buffer))
        return into(self, buffer, dtype)

    monkeypatch.setattr(soundfile.SoundFile, "buffer_read_into", counted)
    ExcerptReader(AudioReader()).hear(tmp_path / "long.wav", 300 * 16_000, 32_000)
    assert read == [32_000]


def test_of_a_stretch_whose_channels_cancel_is_told_what_strict_reading_refuses(tmp_path):
    noise = 0.1 * np.random.default_rng(0).standard_normal((20 * RATE, 1))
    opposite = noise * [1, -1]
    opposite[: 8 * RATE] = noise[: 8 * RATE]
    soundfile.write(tmp_path / "a.wav", opposite, RATE, "FLOAT")
    excerpts = ExcerptReader(AudioReader())
    assert excerpts.hear(tmp_path / "a.wav", 16_000, 32_000).notes == ()
    (note,) = excerpts.hear(tmp_path / "a.wav", 160_000, 32_000).notes
    (again,) = excerpts.hear(tmp_path / "a.wav", 240_000, 16_000).notes
    assert note == again, "said once of a file"
    assert note.kind == CANCELLED
    assert "Pass --channels" in note.text
    strict = ExcerptReader(AudioReader(refused=frozenset({CANCELLED})))
    assert len(strict.hear(tmp_path / "a.wav", 16_000, 32_000).waveform) == 32_000
    with pytest.raises(AudioError, match="its channels cancel"):
        strict.hear(tmp_path / "a.wav", 160_000, 32_000)

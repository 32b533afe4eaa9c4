"""Recordings heard block by block: the samples, notes and errors of the whole decode, and no more memory for longer ones."""

from collections import Counter

import numpy as np
import pytest
import soundfile
import soxr
import torch
import torchaudio
from encoded_audio import ID3V1, damaged, encode, ffmpeg_file, needs_ffmpeg, noise
from flawed_audio import write_flawed

from modeling_ast.audio import CANCELLED, CUT_OFF, SILENT, AudioError, AudioReader, Heard, HeardAnewError, reading
from modeling_ast.audio.content import PIECE, BytesContent
from modeling_ast.audio.resampling import StreamResampler, resample
from tests.attack.damaged_audio import damaged_files

MP3_ROUNDING = (
    1e-7  # libmpg123 rounds otherwise after a damaged frame, where what is read at a time is of another size
)


@pytest.fixture(autouse=True)
def in_small_blocks(monkeypatch):
    """Files of any size come in blocks of a second."""
    monkeypatch.setattr(reading, "HEARD_WHOLE", 0)
    monkeypatch.setattr(reading, "BLOCK_SECONDS", 1.0)


def heard_in_blocks(reader, path, **settings):
    """The whole waveforms, how many blocks they were, whether it began anew, and the stream."""
    stream, is_anew = reader.stream(path, **settings), False
    while True:
        blocks = []
        try:
            for block in stream.blocks():
                blocks.append(block)
        except HeardAnewError:
            is_anew = True
            continue
        return np.concatenate(blocks, axis=1), len(blocks), is_anew, stream


def assert_like_the_whole(reader, path):
    expected = reader.hear(path)
    waveforms, count, is_anew, stream = heard_in_blocks(reader, path)
    np.testing.assert_array_equal(waveforms, expected.waveform[None])
    assert (stream.notes, stream.file_rate) == (expected.notes, expected.file_rate)
    return count, is_anew


@pytest.mark.parametrize("resampler", ["torchaudio", "soxr"])
@pytest.mark.parametrize(
    ("audio_format", "subtype", "rate", "channels"),
    [
        ("WAV", "PCM_16", 16_000, 1),
        ("WAV", "FLOAT", 44_100, 2),
        ("WAV", "PCM_24", 22_051, 1),  # a rate for which torchaudio's table would be large
        ("AIFF", "PCM_16", 48_000, 9),
        ("FLAC", "PCM_16", 44_100, 2),
        ("OGG", "VORBIS", 44_100, 2),
        ("OGG", "OPUS", 48_000, 1),
        ("MP3", "MPEG_LAYER_III", 44_100, 2),
        ("MP3", "MPEG_LAYER_III", 16_000, 1),
    ],
)
def test_blocks_are_the_whole(tmp_path, audio_format, subtype, rate, channels, resampler):
    path = tmp_path / f"clip.{audio_format.lower()}"
    path.write_bytes(encode(noise(5.3, rate, channels), audio_format, rate, subtype=subtype))
    count, is_anew = assert_like_the_whole(AudioReader(resampler=resampler), path)
    assert not is_anew
    # torchaudio's convolution is given blocks of eight seconds, or its sums are made in another order.
    assert count >= (5 if resampler == "soxr" or rate in (16_000, 22_051) else 1)


@pytest.mark.parametrize("rates", [(44_100, 16_000), (8_000, 16_000), (44_101, 16_000), (16_000, 16_000)])
@pytest.mark.parametrize("resampler", ["torchaudio", "soxr"])
def test_resampled_blocks_are_the_whole(rates, resampler):
    waveform = np.random.default_rng(0).normal(size=26 * rates[0] + 123).astype(np.float32)
    stream, blocks = StreamResampler(*rates, resampler), []
    for start in range(0, len(waveform), 70_001):
        blocks.append(stream.add(waveform[start : start + 70_001]))
    assert sum(len(block) > 0 for block in blocks) > 1
    found = np.concatenate([*blocks, stream.finish()])
    if resampler == "soxr":
        expected = soxr.resample(waveform, *rates, "HQ")
    elif rates[0] == 44_101:  # of which torchaudio's kernel holds 706 million values
        expected = resample(waveform, *rates)
    else:
        expected = torchaudio.functional.resample(torch.from_numpy(waveform), *rates).numpy()
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("length", [1, 2])
@pytest.mark.parametrize("resampler", ["torchaudio", "soxr"])
def test_a_sample_or_two_become_one(length, resampler):
    stream = StreamResampler(48_000, 16_000, resampler)
    assert len(stream.add(np.ones(length, np.float32))) + len(stream.finish()) == 1


def test_notes_are_those_of_the_whole(tmp_path):
    for path in write_flawed(tmp_path).values():
        assert_like_the_whole(AudioReader(), path)


def test_channels_and_silence_are_compared_over_all_blocks(tmp_path):
    sound, path = noise(6.2, 44_100)[:, 0], tmp_path / "a.wav"
    half = np.where(np.arange(len(sound)) < len(sound) / 2, 1.0, -1.0)
    late = np.where(np.arange(len(sound)) < 0.9 * len(sound), 0.0, sound)
    for kind, channels in (
        (CANCELLED, (sound, half * sound)),
        (None, (sound, late)),
        (SILENT, (0 * sound, 0 * sound)),
        (None, (late,)),
    ):
        soundfile.write(path, np.stack(channels, axis=1), 44_100)
        assert_like_the_whole(AudioReader(), path)
        assert [note.kind for note in AudioReader().hear(path).notes] == [kind] * (kind is not None)
    soundfile.write(path, np.stack((0 * sound, sound), axis=1), 44_100)
    assert_like_the_whole(AudioReader(channels="left"), path)
    soundfile.write(path, np.hanning(6 * 96_000) * np.sin(np.arange(6 * 96_000) * 2.4) * 0.3, 96_000)  # 37 kHz
    assert_like_the_whole(AudioReader(), path)
    with pytest.raises(AudioError, match="is silent below 8000 Hz"):
        list(AudioReader(refused=frozenset({SILENT})).stream(path).blocks())


def test_each_channel_by_itself(tmp_path):
    path = tmp_path / "a.wav"
    samples = noise(4.1, 44_100, 3).astype(np.float32)
    samples[:, 1] = 0
    soundfile.write(path, samples, 44_100, subtype="FLOAT")
    found, _, _, stream = heard_in_blocks(AudioReader(), path, each_channel=True)
    for number in (1, 2, 3):
        np.testing.assert_array_equal(found[number - 1], AudioReader(channels=number).hear(path).waveform)
    assert stream.num_channels == 3
    assert [(note.kind, note.text.split(" is ")[0]) for note in stream.notes] == [(SILENT, f"{path}, channel 2,")]


def test_damage_shows_when_blocks_were_given(tmp_path):
    path, content = tmp_path / "a.flac", encode(noise(8), "FLAC")
    path.write_bytes(damaged(content, 0.7))
    assert assert_like_the_whole(AudioReader(), path)[1]
    path.write_bytes(content[: len(content) // 2])
    assert_like_the_whole(AudioReader(), path)
    assert [note.kind for note in AudioReader().hear(path).notes] == [CUT_OFF]


@pytest.mark.parametrize("of_all", [False, True])
def test_what_takes_the_blocks_of_a_damaged_file_is_made_anew(tmp_path, of_all):
    path, begun = tmp_path / "a.flac", []
    path.write_bytes(damaged(encode(noise(8), "FLAC"), 0.7))

    def begin() -> list:
        begun.append([])
        return begun[-1]

    def take(taken: list, block):
        taken.append(block[0][0] if of_all else block[0])

    taken = AudioReader().stream(path).heard_by(begin, take, of_all)
    assert taken is begun[1]
    assert begun[0]
    np.testing.assert_array_equal(np.concatenate(taken), AudioReader().hear(path).waveform)


def test_what_has_enough_gets_no_more_blocks(tmp_path):
    soundfile.write(tmp_path / "a.wav", noise(8), 16_000)

    def take(taken: list, block) -> bool:
        taken.append(block)
        return len(taken) == 2

    assert len(AudioReader().stream(tmp_path / "a.wav").heard_by(list, take)) == 2


@pytest.mark.parametrize("audio_format", ["MP3", "OGG"])
def test_what_is_damaged_or_joined_is_heard_as_a_whole(tmp_path, audio_format):
    path, content = tmp_path / "a", encode(noise(8, 44_100), audio_format, 44_100)
    for changed in (damaged(content, 0.4), content + content, content[: len(content) // 2], content + ID3V1):
        path.write_bytes(changed)
        assert_like_the_whole(AudioReader(), path)


@pytest.mark.parametrize("number", [np.nan, np.inf, 40_000.0])
def test_what_is_no_sound_is_refused_as_of_the_whole(tmp_path, number):
    samples = noise(6)
    samples[70_000] = number
    samples[75_000] = 2 * number  # in the same block of a second, and others follow
    path = tmp_path / "a.wav"
    soundfile.write(path, samples, 16_000, subtype="FLOAT")
    with pytest.raises(AudioError) as expected:
        AudioReader().hear(path)
    with pytest.raises(AudioError) as found:
        list(AudioReader().stream(path).blocks())
    assert str(found.value) == str(expected.value)


def test_errors_are_those_of_the_whole(tmp_path):
    (tmp_path / "empty.wav").write_bytes(b"")
    (tmp_path / "text.wav").write_text("not audio")
    soundfile.write(tmp_path / "none.wav", np.empty(0), 16_000)
    soundfile.write(tmp_path / "mono.wav", noise(3), 16_000)
    for name in ("empty.wav", "text.wav", "none.wav", "gone.wav", "mono.wav"):
        reader, path = AudioReader(channels="right"), tmp_path / name
        expected = outcome(reader.hear, path)
        assert isinstance(expected, str)
        assert outcome(lambda path, reader=reader: heard_in_blocks(reader, path)[3], path) == expected


def outcome(hear, path):
    """What is said of a file, or its error."""
    try:
        return hear(path).notes
    except AudioError as error:
        return str(error)


@needs_ffmpeg
@pytest.mark.parametrize(
    ("suffix", "settings"),
    [
        ("m4a", ()),
        ("webm", ()),
        pytest.param("wma", (), marks=pytest.mark.long),
        pytest.param("mkv", ("-c:a", "libvorbis"), marks=pytest.mark.long),
        pytest.param("aac", (), marks=pytest.mark.long),
    ],
)
def test_what_only_ffmpeg_reads(tmp_path, suffix, settings):
    soundfile.write(tmp_path / "a.wav", noise(25, 16_000), 16_000)
    path = ffmpeg_file(tmp_path / f"a.{suffix}", "-i", tmp_path / "a.wav", *settings)
    monkey = pytest.MonkeyPatch()
    with monkey.context() as patch:
        patch.setattr(reading, "BLOCK_SECONDS", 7.5)
        count, is_anew = assert_like_the_whole(AudioReader(resampler="soxr"), path)
        # Vorbis has frames that are hardly longer than the milliseconds in which Matroska counts.
        assert (count >= 4 and not is_anew) or suffix in ("mkv", "wma")
    short = tmp_path / f"short.{suffix}"
    short.write_bytes(path.read_bytes()[:60_000])
    assert outcome(AudioReader().hear, short) == outcome(lambda path: heard_in_blocks(AudioReader(), path)[3], short)


def test_patterns_are_found_in_pieces():
    pattern = b"OggS\0"
    content = BytesContent(b"OggS" + pattern + bytes(PIECE - 12) + pattern + pattern + bytes(7) + pattern + b"Og")
    assert content.size > PIECE
    found, at = [], -1
    while (at := content.content.find(pattern, at + 1)) >= 0:
        found.append(at)
    assert list(content.find_all(pattern)) == found
    assert list(BytesContent(b"aaaaa").find_all(b"aa")) == [0, 2]


@pytest.mark.parametrize("audio_format", ["WAV", "FLAC", "MP3", "OGG"])
def test_no_block_and_nothing_held_grows_with_the_recording(tmp_path, audio_format, monkeypatch):
    """The largest array that is made while a file is heard, and the bytes that are read at a time."""
    monkeypatch.setattr(reading, "BLOCK_SECONDS", 8.0)
    reader, sizes = AudioReader(), {}
    for seconds in (25, 45):
        path = tmp_path / f"{seconds}.{audio_format}"
        path.write_bytes(encode(noise(seconds, 22_050), audio_format, 22_050))
        stream = reader.stream(path)
        sizes[seconds] = max(block.size for block in stream.blocks())
        assert not stream._needs_whole
    assert max(sizes.values()) < 17 * 16_000  # two blocks of torchaudio's convolution


@pytest.mark.long
@pytest.mark.parametrize("resampler", ["torchaudio", "soxr"])
def test_two_hundred_damaged_files_are_heard_as_the_whole(tmp_path, monkeypatch, resampler):
    """Ten kinds of damage, twenty variants of each: the same samples, notes and words, and no error of another kind."""
    monkeypatch.setattr(reading, "BLOCK_SECONDS", 0.5)
    reader, kinds_of_outcome, unlike = AudioReader(resampler=resampler), Counter(), []
    for number, file in enumerate(damaged_files()):
        path = tmp_path / f"{number}_{file.kind}{file.suffix}"
        path.write_bytes(file.content)
        whole, blocks = (outcome_and_samples(hear, path) for hear in (reader.hear, lambda p: _joined(reader, p)))
        kinds_of_outcome[type(whole[0]).__name__] += 1
        if whole[0] != blocks[0] or not np.array_equal(whole[1], blocks[1]):
            unlike.append(path.name)
        path.unlink()
    assert not unlike
    assert sum(kinds_of_outcome.values()) == 200
    assert min(kinds_of_outcome["str"], kinds_of_outcome["tuple"]) > 40  # refused, and heard


def _joined(reader, path):
    waveforms, _, _, stream = heard_in_blocks(reader, path)
    return Heard(waveforms[0], stream.notes, stream.file_rate)


def outcome_and_samples(hear, path):
    try:
        heard = hear(path)
    except AudioError as error:
        return str(error), None
    return heard.notes, heard.waveform

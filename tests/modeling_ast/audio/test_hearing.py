"""What the reader says of files whose samples are all there, and what becomes of whatever goes wrong over one file."""

import logging
import pickle

import numpy as np
import pytest
import soundfile
from flawed_audio import WORDS, write_flawed

from modeling_ast import ASTFeatureExtractor
from modeling_ast.audio import (
    CANCELLED,
    CUT_OFF,
    HEARD_LESS,
    SILENT,
    AudioError,
    AudioReader,
    audio_duration,
    is_silent,
    parse_channels,
    reading,
)

RATE = 16_000
X, Y = np.random.default_rng(0).uniform(-0.5, 0.5, (2, 2 * RATE)).astype(np.float32)
ZERO = np.zeros_like(X)
QUIET_FIRST = np.where(np.arange(len(X)) < RATE // 2, 0.3 * X, X)  # its first half second has 3 % of the energy
PART = np.where(np.arange(len(X)) < RATE, X, -X)  # the second half is turned over


@pytest.fixture
def write(tmp_path):
    def write(*channels, rate=RATE, subtype="FLOAT"):
        soundfile.write(tmp_path / "a.wav", np.stack(channels, axis=1), rate, subtype=subtype)
        return tmp_path / "a.wav"

    return write


def test_every_kind_of_note_names_its_file(tmp_path):
    for kind, path in write_flawed(tmp_path).items():
        heard = AudioReader().hear(path)
        assert [note.kind for note in heard.notes] == [kind]
        assert heard.notes[0].text.startswith(str(tmp_path / WORDS[kind])), heard.notes
        if kind in HEARD_LESS:
            with pytest.raises(AudioError, match=path.name):
                AudioReader(refused=HEARD_LESS).hear(path)


@pytest.mark.parametrize(
    ("channels", "words"),
    [
        ((X, -X), "its 2 channels cancel, and their mean, which is what is heard, is silent. Pass --channels left."),
        ((X, -X / 2, -X / 2), "its 3 channels cancel, and their mean, which is what is heard, is silent. Pass --channels 1."),
        ((X, -0.7 * X), "its 2 channels cancel, and their mean, which is what is heard, is 16 dB quieter than the loudest"),
        ((-0.7 * X + 0.2, X - 0.1), "is 16 dB quieter than the loudest of them. Pass --channels right."),
        ((X, PART), "its 2 channels cancel, and their mean, which is what is heard, is silent for 1.0 of 2.0 s."),
        ((*[ZERO] * 5, X, ZERO, ZERO), "7 of its 8 channels are silent or nearly so, and their mean, which is what is heard, is 18"),
        ((ZERO, ZERO, X, ZERO), "3 of its 4 channels are silent or nearly so, and their mean, which is what is heard, is 12 dB"),
        ((*[Y / 1000] * 5, X), "5 of its 6 channels are silent or nearly so"),
    ],
)  # fmt: skip
def test_channels_that_cancel_or_drown_each_other_are_said_with_the_flag(write, channels, words):
    path = write(*channels)
    (note,) = AudioReader().hear(path).notes
    assert note.kind == CANCELLED
    assert note.text.startswith(f"{path}: ")
    assert words in note.text
    named = note.text.rpartition("--channels ")[2].rstrip(".")
    heard = AudioReader(channels=named).hear(path)
    assert not heard.notes
    loudest = max(channels, key=np.ptp)
    np.testing.assert_array_equal(heard.waveform, loudest.astype(np.float32), "the flag that is named helps")


@pytest.mark.parametrize(
    "channels",
    [
        (X,),
        (X, X),
        (X, Y),  # 3 dB
        (X, ZERO),  # 6 dB
        (X, 0.3 * X),
        (X, np.roll(X, 40)),  # a microphone one metre away
        tuple(np.random.default_rng(1).uniform(-0.5, 0.5, (8, RATE))),  # 9 dB, as of eight microphones in noise
        (X, np.where(np.arange(len(X)) < 2000, -X, X)),  # a click
        (QUIET_FIRST, np.where(np.arange(len(X)) < RATE // 2, -QUIET_FIRST, QUIET_FIRST)),
    ],
)
def test_other_channels_are_averaged_without_a_word(write, channels):
    heard = AudioReader().hear(write(*channels))
    assert heard.notes == ()
    np.testing.assert_allclose(heard.waveform, np.mean(channels, axis=0), atol=1e-6)


def test_silent_channels_that_cancel_are_silence(write):
    (note,) = AudioReader().hear(write(X * 1e-5, -X * 1e-5)).notes
    assert note.kind == SILENT


@pytest.mark.parametrize(
    ("channels", "expected"), [("left", X), ("1", X), (1, X), ("right", Y), (2, Y), ("mean", (X + Y) / 2)]
)
def test_the_channel_that_was_chosen_is_heard(write, channels, expected):
    heard = AudioReader(channels=channels).hear(write(X, Y))
    np.testing.assert_array_equal(heard.waveform, expected)
    assert heard.notes == ()


def test_a_channel_that_is_not_there_is_an_error_of_that_file(write):
    mono = write(X)
    np.testing.assert_array_equal(AudioReader(channels="left").hear(mono).waveform, X)
    with pytest.raises(AudioError, match=r"a\.wav is mono, so there is no right channel in it\. Pass --channels left"):
        AudioReader(channels="right").hear(mono)
    with pytest.raises(
        AudioError, match=r"a\.wav has 2 channels, so there is no channel 3 in it\. Pass --channels mean"
    ):
        AudioReader(channels=3).hear(write(X, Y))


@pytest.mark.parametrize("channels", ["middle", "", "0", 0, -1, "1.5", 1.0, True, None, "²"])
def test_other_words_for_channels_are_refused(channels):
    with pytest.raises(ValueError, match="is none of mean, left, right, or the number of a channel"):
        parse_channels(channels)
    with pytest.raises(ValueError, match="--channels left"):
        AudioReader(channels=channels)
    with pytest.raises(ValueError, match="--channels left"):
        ASTFeatureExtractor(channels=channels)


def test_a_checkpoint_keeps_its_channels_and_is_stock_without(tmp_path):
    import transformers

    plain, left = ASTFeatureExtractor(), ASTFeatureExtractor(channels="left")
    assert "channels" not in plain.to_dict()
    assert left.audio_reader(refused=HEARD_LESS) == AudioReader(channels="left", refused=HEARD_LESS)
    assert left.audio_reader(channels=2).channels == 2
    left.save_pretrained(tmp_path)
    assert ASTFeatureExtractor.from_pretrained(tmp_path).channels == "left"
    assert ASTFeatureExtractor.from_pretrained(tmp_path, channels="mean").channels == "mean"
    stock = transformers.ASTFeatureExtractor.from_pretrained(tmp_path)(X, sampling_rate=RATE, return_tensors="np")
    np.testing.assert_allclose(stock["input_values"], left(X, RATE, "np")["input_values"], atol=1e-4)
    plain.save_pretrained(tmp_path)
    assert ASTFeatureExtractor.from_pretrained(tmp_path, channels="right").channels == "right"
    transformers.ASTFeatureExtractor().save_pretrained(tmp_path)  # which names fewer fields
    extractor = ASTFeatureExtractor.from_pretrained(tmp_path, channels=2, padding="longest")
    assert (extractor.channels, extractor.padding) == (2, "longest")


@pytest.mark.parametrize(
    ("waveform", "silent"),
    [
        (ZERO, True),
        (ZERO + 0.1, True),  # an offset is taken off frame by frame
        (np.random.default_rng(0).integers(-1, 2, RATE) / 2**15, True),  # dither
        (np.sin(np.arange(RATE)) / 1000, False),  # -60 dB
        (np.where(np.arange(RATE) == 700, 0.01, 0), False),
    ],
)
def test_silence_is_what_16_bits_make_of_it(write, waveform, silent):
    assert is_silent(waveform) == silent
    for channels in ([waveform], [waveform, waveform]):
        assert [note.kind for note in AudioReader().hear(write(*channels)).notes] == [SILENT] * silent


def test_silence_in_what_is_heard_of_a_file(write):
    path = write(ZERO, X)
    (note,) = AudioReader(channels="left").hear(path).notes
    assert note.text.endswith(
        "is silent in the channel that --channels left chose, and not in others. Pass --channels right."
    )
    path = write(np.where(np.arange(len(X)) < RATE, 0, X))
    assert AudioReader().hear(path).notes == ()
    (note,) = AudioReader().hear(path, max_samples=RATE).notes
    assert "is silent in its first 1.00 s, which is all that is heard of it" in note.text
    (note,) = AudioReader().hear(write(ZERO), max_samples=RATE).notes
    assert note.text.startswith(f"{path} is silent. Check the microphone")
    ultrasound = np.sin(2 * np.pi * 30_000 / 96_000 * np.arange(96_000)) * np.hanning(96_000)
    (note,) = AudioReader().hear(write(ultrasound, rate=96_000)).notes
    assert (note.kind, "is silent below 8000 Hz" in note.text) == (SILENT, True)
    with pytest.raises(AudioError, match="below 8000 Hz"):
        AudioReader(refused=frozenset({SILENT})).hear(path)


@pytest.mark.parametrize(
    "error", [ValueError, MemoryError, SystemError, RuntimeError, OverflowError, IndexError, OSError, AssertionError]
)
@pytest.mark.parametrize("place", ["decode_recording", "resample", "sound_notes"])
def test_whatever_is_raised_over_a_file_is_an_error_that_names_it(write, monkeypatch, error, place):
    def fail(*_, **__):
        raise error("array is too big")

    monkeypatch.setattr(reading, place, fail)
    path = write(X, Y)
    with pytest.raises(AudioError, match=rf"^{path} cannot be \w+: .*array is too big"):
        AudioReader(8_000).hear(path)
    with pytest.raises(AudioError, match=r"^The audio given as bytes cannot be \w+: "):
        AudioReader(8_000).hear(path.read_bytes())


def test_what_is_raised_over_a_header_names_the_file(write, monkeypatch):
    path = write(X)
    monkeypatch.setattr(reading, "streams_of", lambda *_: [][0])
    with pytest.raises(AudioError, match=rf"^{path} cannot be decoded: "):
        audio_duration(path)


def test_an_interruption_and_a_wrong_type_are_no_errors_of_a_file(write, monkeypatch):
    with pytest.raises(TypeError, match="cannot read audio from"):
        AudioReader().hear(X)

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(reading, "decode_recording", interrupt)
    with pytest.raises(KeyboardInterrupt):
        AudioReader().hear(write(X))


def test_a_reader_logs_what_it_says_and_goes_to_other_processes(tmp_path, caplog):
    path = write_flawed(tmp_path, ["silent"])["silent"]
    reader = pickle.loads(pickle.dumps(AudioReader(8_000, channels="1", refused=frozenset({CUT_OFF}))))
    assert reader == AudioReader(8_000, channels=1, refused=frozenset({CUT_OFF}))
    with caplog.at_level(logging.WARNING):
        assert len(reader.read(path)) == 6_400
    assert caplog.messages == [reader.hear(path).notes[0].text]


@pytest.mark.parametrize(
    ("peak", "words"),
    [
        (1e38, "samples up to 1e\\+38 times full scale, .* It is damaged"),
        (2.0**15, "of 16 bits that were written as floats, divide them: ffmpeg .*volume=1/32768 "),
        (2.0**31, "of 32 bits that were written as floats, divide them: ffmpeg .*volume=1/2147483648 "),
        (129.0, "of 16 bits"),
        (np.nan, "contains NaN or infinite samples"),
        (np.inf, "contains NaN or infinite samples"),
    ],
)
def test_samples_that_are_no_sound_are_refused(write, recwarn, peak, words):
    for samples in (X / np.abs(X).max() * peak, np.where(np.arange(len(X)) == 777, peak, X)):
        for channels in ((samples,), (samples, samples)):
            path = write(*channels)
            with pytest.raises(AudioError, match=rf"^{path} .*{words}" if len(channels) == 1 else f"^{path} "):
                AudioReader().hear(path)
    assert not recwarn.list


def test_a_mix_that_is_not_mastered_is_heard_as_it_is(write):
    loud = (100 * X / np.abs(X).max()).astype(np.float32)
    np.testing.assert_array_equal(AudioReader().hear(write(loud)).waveform, loud)

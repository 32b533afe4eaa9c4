"""Sound that comes in chunks, from Python or as a WAV through a pipe: what is found in the file of it, as it comes."""

import io
import json
import os
import signal
import sys
import threading
import time

import numpy as np
import pytest
import soundfile
from tagged_models import HOP, SCORE_TOLERANCE, WINDOW, as_vector, noise, write

from modeling_ast import run_tagging
from modeling_ast.audio import AudioError, WavPipe
from modeling_ast.audio.channels import ChunkLevels
from modeling_ast.run_tagging import outcome_of
from modeling_ast.tagging.flags import make_parser, parse_arguments
from modeling_ast.tagging.live import LiveWindows
from modeling_ast.tagging.results import WindowTags
from modeling_ast.tagging.tagger import AudioTagger, FileTags, Tag

LENGTH = 5 * WINDOW + 1_000


@pytest.fixture(scope="module")
def tagger(multi_label):
    return AudioTagger.from_pretrained(multi_label, "cpu")


def spans(tags):
    return [(segment.start, segment.end, segment.label) for segment in tags.segments]


@pytest.mark.parametrize("size", [160, 1_001, LENGTH])
@pytest.mark.parametrize("live", [False, True])
def test_chunks_give_what_their_file_gives(tagger, tmp_path, size, live):
    waveform = noise(LENGTH)
    (expected,) = tagger.tag_files([write(tmp_path / "a.wav", waveform)], timeline=True)
    chunks, windows = (waveform[start : start + size] for start in range(0, LENGTH, size)), []
    tags = tagger.tag_stream(chunks, 16_000, timeline=True, on_window=windows.append if live else None)
    np.testing.assert_allclose(as_vector(tags.labels), as_vector(expected.labels), atol=SCORE_TOLERANCE)
    assert spans(tags) == spans(expected)
    assert (tags.file, tags.seconds) == ("The stream", LENGTH / 16_000)
    if live:
        starts = [*range(0, LENGTH - WINDOW, HOP), LENGTH - WINDOW]
        assert [(w.start, w.end) for w in windows] == [(s / 16_000, (s + WINDOW) / 16_000) for s in starts]
        (alone,) = tagger.tag_files([write(tmp_path / "b.wav", waveform[HOP : HOP + WINDOW])])
        np.testing.assert_allclose(as_vector(windows[1].labels), as_vector(alone.labels), atol=SCORE_TOLERANCE)


@pytest.mark.parametrize("size", [1_000, 7_999, LENGTH])
@pytest.mark.parametrize("case", ["channels cancel", "one channel lives", "silence", "a mean that is sound"])
def test_chunks_are_told_what_their_file_is_told(tagger, tmp_path, case, size):
    waveform = noise(LENGTH)
    others = {
        "channels cancel": [-waveform],
        "one channel lives": [np.zeros(LENGTH)] * 5,
        "silence": [],
        "a mean that is sound": [noise(LENGTH, 2)],
    }[case]
    samples = np.stack([0 * waveform if case == "silence" else waveform, *others], axis=1).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", samples, 16_000, subtype="FLOAT")
    (of_file,) = tagger.tag_files([tmp_path / "a.wav"])
    chunks = (samples[start : start + size] for start in range(0, LENGTH, size))
    tags = tagger.tag_stream(chunks, 16_000, name=str(tmp_path / "a.wav"))
    assert tags.notes == of_file.notes
    assert len(tags.notes) == (case != "a mean that is sound")


def test_chunks_whose_number_of_channels_changes_are_heard(tagger):
    waveform = noise(LENGTH).astype(np.float32)
    chunks = [waveform[:20_000], np.stack([waveform[20_000:]] * 2, axis=1), waveform]
    tags = tagger.tag_stream(chunks, 16_000)
    assert (tags.error, tags.notes) == (None, ())


def test_levels_of_chunks_hold_less_than_a_block_and_copies():
    levels, chunk = ChunkLevels("mean"), np.zeros((160, 2), np.float32)
    for number in range(200):
        chunk[:] = noise(160, number)[:, None] * [[1, -1]]
        levels.add(chunk, chunk.mean(axis=1), 16_000)
        assert sum(len(waveform) for _, waveform in levels._held) < 8_000
    (note,) = levels.notes("x")
    assert "its 2 channels cancel" in note.text
    levels = ChunkLevels("mean")
    levels.add(chunk, chunk.mean(axis=1), 16_000)
    chunk[:] = 0  # as whoever fills it again does
    (note,) = levels.notes("x")
    assert "its 2 channels cancel" in note.text
    levels = ChunkLevels("mean")
    for channels in (1, 2, 1, 2):
        levels.add(np.ones((160, channels), np.float32), np.ones(160, np.float32), 16_000)
    assert (levels.notes("x"), levels._held) == ((), [])


@pytest.mark.parametrize(("share", "words"), [(1.0, None), (0.6, "0.60 of the 1.00 s")])
def test_a_pipe_that_ends_before_its_header_says_is_cut_off(share, words):
    content = io.BytesIO()
    soundfile.write(content, noise(16_000), 16_000, format="WAV", subtype="PCM_16")
    whole = content.getvalue()
    pipe = WavPipe(io.BytesIO(whole[: 44 + round(32_000 * share)]), "Standard input")
    samples = np.concatenate(list(pipe.chunks()))
    assert len(samples) == 16_000 * share
    said = [note.text for note in pipe.notes("-")]
    expected = f"- is cut off: {words} that its header announces have come. Send it again."
    assert said == ([] if words is None else [expected])


def test_the_command_says_that_its_pipe_was_cut_off(multi_label, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(wav(noise(LENGTH))[:-LENGTH])))
    assert (
        run_tagging.main(["-", "--model_name_or_path", str(multi_label), "--device", "cpu", "--format", "jsonl"]) == 0
    )
    shown = capsys.readouterr()
    assert "ast-tag: - is cut off: " in shown.err
    (note,) = json.loads(shown.out)["notes"]
    assert "is cut off" in str(note)


def test_a_pipe_that_is_not_heard_to_its_end_is_not_cut_off():
    content = io.BytesIO()
    soundfile.write(content, noise(64_000), 16_000, format="WAV", subtype="PCM_16")
    pipe = WavPipe(io.BytesIO(content.getvalue()), "Standard input")
    next(pipe.chunks())
    assert pipe.notes("-") == ()


@pytest.mark.parametrize("resampler", ["torchaudio", "soxr"])
def test_windows_are_told_as_soon_as_they_are_heard(multi_label, tmp_path, resampler):
    """Of sound at another rate, within a tenth of a second of sound after a window's end."""
    tagger = AudioTagger.from_pretrained(multi_label, "cpu")
    tagger.reader = tagger.feature_extractor.audio_reader(resampler=resampler)
    waveform, came, told = noise(4 * 44_100), [0], []
    soundfile.write(tmp_path / "a.wav", waveform, 44_100, subtype="FLOAT")

    def chunks():
        for start in range(0, len(waveform), 441):
            came[0] = start + 441
            yield waveform[start : start + 441]

    tags = tagger.tag_stream(
        chunks(), 44_100, on_window=lambda w: told.append((w.end, came[0] / 44_100)), timeline=True
    )
    assert len(told) > 5
    assert all(end <= heard < end + 0.1 for end, heard in told[:-1])
    (expected,) = tagger.tag_files([tmp_path / "a.wav"], timeline=True)
    np.testing.assert_allclose(as_vector(tags.labels), as_vector(expected.labels), atol=SCORE_TOLERANCE)
    assert spans(tags) == spans(expected)


def test_integers_and_channels_are_heard_as_of_files(tagger, tmp_path):
    samples = (np.stack([noise(LENGTH, 1), noise(LENGTH, 2)], axis=1) * 2**13).astype(np.int16)
    soundfile.write(tmp_path / "a.wav", samples, 16_000, subtype="PCM_16")
    (expected,) = tagger.tag_files([tmp_path / "a.wav"])
    tags = tagger.tag_stream(np.array_split(samples, 7), 16_000)
    np.testing.assert_allclose(as_vector(tags.labels), as_vector(expected.labels), atol=SCORE_TOLERANCE)


@pytest.mark.parametrize(
    ("chunks", "rate", "words"),
    [
        ([np.zeros((2, 3, 4))], 16_000, r"has a chunk of shape \(2, 3, 4\), expected \(samples,\)"),
        ([np.full(100, np.nan)], 16_000, "The stream contains NaN or infinite samples"),
        ([noise(100)], 16_000, "The stream lasts 6.2 ms; the model needs 25 ms"),
        ([], 16_000, "The stream lasts 0.0 ms"),
        ([noise(100)], 1.5, "The stream has the sampling rate 1.5"),
    ],
)
def test_chunks_that_cannot_be_used_are_the_stream_s_error(tagger, chunks, rate, words):
    with pytest.raises(AudioError, match=words):
        raise AudioError(tagger.tag_stream(chunks, rate).error)


@pytest.mark.parametrize("timeline", [False, True])
def test_what_was_found_before_a_stream_failed_is_kept(tagger, timeline):
    def chunks():
        yield from np.array_split(noise(50_000, 3), 9)
        yield np.full(100, np.nan)
        raise RuntimeError("is not asked for")

    tags = tagger.tag_stream(chunks(), 16_000, timeline=timeline)
    expected = tagger.tag_stream([noise(50_000, 3)], 16_000, timeline=timeline)
    assert "NaN" in tags.error
    assert expected.error is None
    np.testing.assert_allclose(as_vector(tags.labels), as_vector(expected.labels), atol=SCORE_TOLERANCE)
    spans = [[(s.start, s.end, s.label) for s in each.segments or []] for each in (tags, expected)]
    assert spans[0] == spans[1]
    assert bool(spans[0]) == timeline
    assert tags.seconds == 50_000 / 16_000


def test_a_failed_stream_is_printed_as_far_as_it_came():
    args = parse_arguments(make_parser(), ["-", "--model_name_or_path", "x"])
    outcome = outcome_of(FileTags("-", [Tag("kick", 0.75)], error="is damaged"), args)
    assert outcome.failed
    assert outcome.said == ["ast-tag: is damaged"]
    assert any("kick" in line for line in outcome.lines)
    assert outcome_of(FileTags("-", [], error="is damaged"), args).lines == []


def wav(samples, rate=16_000, subtype="PCM_16", **settings):
    content = io.BytesIO()
    soundfile.write(content, samples, rate, format="WAV", subtype=subtype, **settings)
    return content.getvalue()


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ALAW", "ULAW"])
def test_a_wav_from_a_pipe_is_heard_as_the_file(subtype):
    content = wav(np.stack([noise(5_000, 1), noise(5_000, 2)], axis=1), 44_100, subtype)
    expected, _ = soundfile.read(io.BytesIO(content), dtype="float32")
    pipe = WavPipe(io.BytesIO(content), "a")
    assert (pipe.sampling_rate, pipe.channels) == (44_100, 2)
    np.testing.assert_array_equal(np.concatenate(list(pipe.chunks())), expected)


@pytest.mark.parametrize("size", [0, 0x7FFFFFFF, 0xFFFFFFFF])
def test_samples_end_where_the_header_says_or_with_the_pipe_if_it_cannot_know(size):
    content = wav(noise(5_000))
    place = content.index(b"data")
    told = content + b"guan" + (4_000).to_bytes(4, "little") + bytes(4_000)
    assert sum(map(len, WavPipe(io.BytesIO(told), "a").chunks())) == 5_000
    untold = content[: place + 4] + size.to_bytes(4, "little") + content[place + 8 :] + bytes(2_000)
    assert sum(map(len, WavPipe(io.BytesIO(untold), "a").chunks())) == 6_000


def test_what_a_listener_raises_is_no_fault_of_the_sound(tagger):
    def listener(window):
        raise ValueError("of the listener")

    with pytest.raises(ValueError, match="^of the listener$"):
        tagger.tag_stream([noise(LENGTH)], 16_000, on_window=listener)


def test_a_signal_while_a_window_is_scored_gives_what_was_found_so_far(multi_label, monkeypatch, capsys):
    score, scored = AudioTagger._score, []

    def interrupted(self, *args, **kwargs):
        scored.append(args)
        if len(scored) == 3:
            signal.raise_signal(signal.SIGTERM)  # SIGINT is ignored where the tests run behind others
        return score(self, *args, **kwargs)

    monkeypatch.setattr(AudioTagger, "_score", interrupted)
    content = wav(noise(LENGTH))
    pieces = [content[start : start + 2 * WINDOW] for start in range(0, len(content), 2 * WINDOW)]  # a window each
    monkeypatch.setattr(WavPipe, "_some", lambda self: pieces.pop(0) if pieces else b"")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(pieces.pop(0)[:44])))
    with pytest.raises(SystemExit) as ended:
        sys.exit(
            run_tagging.main(["-", "--model_name_or_path", str(multi_label), "--device", "cpu", "--format", "jsonl"])
        )
    assert ended.value.code == 128 + signal.SIGTERM
    (row,) = map(json.loads, capsys.readouterr().out.splitlines())
    assert len(row["labels"]) == 3
    assert 3 <= len(scored) <= 4


@pytest.mark.parametrize(
    "content", [b"", b"RIFF", b"fLaC" + bytes(100), wav(noise(10))[:30], b"RIFF\0\0\0\0WAVEdata" + bytes(99)]
)
def test_what_is_no_wav_is_refused(content):
    with pytest.raises(AudioError, match="a is no WAV, or ends within its header. Send one"):
        WavPipe(io.BytesIO(content), "a")
    with pytest.raises(AudioError, match="a is a WAV with codec 2, 16 bits"):
        WavPipe(io.BytesIO(wav(noise(10))[:20] + b"\2" + wav(noise(10))[21:]), "a")


def play(content, speed):
    """A pipe into which a WAV is written in pieces of 20 ms, at the speed at which it sounds if that is 1, or at once."""
    ours, theirs = os.pipe()

    def write_all():
        with open(theirs, "wb", buffering=0) as pipe:
            pipe.write(content[:44])
            for start in range(44, len(content), 640):
                pipe.write(content[start : start + 640])
                time.sleep(0.02 / speed if speed else 0)

    threading.Thread(target=write_all, daemon=True).start()
    return open(ours, "rb", buffering=0)


@pytest.mark.parametrize("speed", [0, pytest.param(1.0, marks=pytest.mark.long)])
def test_a_wav_through_a_pipe_gives_the_segments_of_the_file(
    tagger, multi_label, tmp_path, monkeypatch, capsys, speed
):
    path = tmp_path / "a.wav"
    path.write_bytes(wav(noise(LENGTH)))
    flags = ["--model_name_or_path", str(multi_label), "--device", "cpu", "--format", "jsonl", "--timeline"]
    assert run_tagging.main([str(path), *flags]) == 0
    (expected,) = map(json.loads, capsys.readouterr().out.splitlines())
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(play(path.read_bytes(), speed=speed))))
    assert run_tagging.main(["-", *flags]) == 0
    shown = capsys.readouterr()
    (row,) = map(json.loads, shown.out.splitlines())
    assert row["file"] == "-"
    assert [[s[key] for key in ("start", "end", "label")] for s in row["segments"]] == [
        [s[key] for key in ("start", "end", "label")] for s in expected["segments"]
    ]
    lines = shown.err.splitlines()
    starts = [*range(0, LENGTH - WINDOW, HOP), LENGTH - WINDOW]
    assert len([line for line in lines if " s  " in line]) == len(starts)
    assert lines[-1].startswith(f"ast-tag: {len(starts)} windows, told ")
    if speed:
        latency = float(lines[-1].split(" s after their end in the middle")[0].rsplit(" ", 1)[1])
        assert latency < 0.5


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-", "a.wav"], "- is sound from standard input, and is tagged alone"),
        (["-", "--files_from", "-"], "- is sound from standard input, and is tagged alone"),
        (["-", "--channels", "each"], "--channels each is about files"),
        (["-", "--timeline", "--picture", "x.png"], "--picture is about files"),
        (["-", "--start_time", "from_name", "--timeline"], "--start_time is about files"),
    ],
)
def test_what_needs_a_file_is_refused_of_a_pipe(capsys, multi_label, arguments, words):
    with pytest.raises(SystemExit) as ended:
        run_tagging.main([*arguments, "--model_name_or_path", str(multi_label), "--device", "cpu"])
    assert ended.value.code == 2
    assert words in capsys.readouterr().err


def test_standard_input_without_a_wav(capsys, multi_label, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"no sound")))
    with pytest.raises(SystemExit):
        run_tagging.main(["-", "--model_name_or_path", str(multi_label), "--device", "cpu"])
    assert "Standard input is no WAV, or ends within its header." in capsys.readouterr().err


def test_an_interruption_gives_what_was_found_so_far(multi_label, monkeypatch, capsys):
    class Interrupted(io.BytesIO):
        def read(self, count=-1):
            found = super().read(count)
            if self.tell() > 140_000:
                raise KeyboardInterrupt
            return found

    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(Interrupted(wav(noise(LENGTH)))))
    with pytest.raises(KeyboardInterrupt):
        run_tagging.main.__wrapped__(
            ["-", "--model_name_or_path", str(multi_label), "--device", "cpu", "--format", "jsonl"]
        )
    (row,) = map(json.loads, capsys.readouterr().out.splitlines())
    assert len(row["labels"]) == 3


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


def latencies_of(taken, window_ends, cost=0.25):
    """What is told of windows by a model that takes `cost` seconds for each; chunks of a second, taken at these times."""
    clock = Clock()
    live = LiveWindows(lambda _line: None, clock)
    left = list(window_ends)

    def chunks():
        for time_of_chunk in taken:
            clock.now = max(clock.now, 100 + time_of_chunk)
            yield np.zeros((1000, 1), np.float32)

    for number, _ in enumerate(live.heard(chunks(), 1000), start=1):
        while left and left[0] <= number:
            clock.now += cost
            live.tell(WindowTags(left.pop(0) - 1, number, [], False))
    return live.latencies


def test_latency_counts_sound_that_waits_for_the_model():
    keeps_up = latencies_of([1, 2.3, 3, 4.2, 5], range(1, 6))  # a device that is late now and then
    assert keeps_up == pytest.approx([0.25] * 5)
    too_slow = latencies_of([1, 2, 3, 4, 5], range(1, 6), cost=1.5)
    assert too_slow == pytest.approx([1.5, 2.0, 2.5, 3.0, 3.5])


def test_latency_is_right_again_after_a_pause_and_with_a_slow_clock():
    assert latencies_of([1, 2, 8, 9, 10], range(1, 6)) == pytest.approx([0.25] * 5)
    catching_up = latencies_of([1, 2, 3, 4, 20, 21], range(1, 7), cost=1.5)
    assert catching_up == pytest.approx([1.5, 2.0, 2.5, 3.0, 1.5, 2.0])
    assert latencies_of([1.01 * number for number in range(1, 6)], range(1, 6)) == pytest.approx([0.25] * 5)


def test_latency_of_sound_from_a_file_counts_from_when_it_is_taken():
    assert latencies_of([0, 0, 0, 0, 0], range(1, 6)) == pytest.approx([0.25] * 5)

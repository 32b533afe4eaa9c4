"""Files that are decoded ahead of the model, and batches of windows of like lengths: the results stay what they are."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import soundfile
from tagged_models import SCORE_TOLERANCE, WINDOW, noise, write

from modeling_ast.audio import reading
from modeling_ast.audio.reading import SoundStream
from modeling_ast.tagging import ahead as module
from modeling_ast.tagging.ahead import ahead, decoding_threads, threads_beside
from modeling_ast.tagging.tagger import AudioTagger


@pytest.fixture
def files(tmp_path):
    """Twelve of several lengths, damaged ones among them, and one long enough to come in blocks."""
    paths = [write(tmp_path / f"{number:02}.wav", noise(3_000 + 2_500 * number, number)) for number in range(11)]
    paths[4].write_bytes(b"")
    paths[7].unlink()
    soundfile.write(tmp_path / "11.wav", noise(400_000), 16_000)
    return [*paths, tmp_path / "11.wav"]


def test_decoding_ahead_changes_nothing(single_label, files):
    tagger = AudioTagger.from_pretrained(single_label, "cpu")
    results, heard_in = [], set()
    original = SoundStream._decoded
    for threads in (0, 1, 3):
        tagger.decoding_threads = threads

        def decoded(self):
            heard_in.add(threading.current_thread().name.partition("_")[0])
            return original(self)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(SoundStream, "_decoded", decoded)
            results.append(list(tagger.tag_files(files, timeline=True, batch_size=3)))
        assert heard_in == ({"ast-decoding"} if threads else {"MainThread"})
        heard_in.clear()
    assert results[0] == results[1] == results[2]
    assert [result.error is None for result in results[0]] == [number not in (4, 7) for number in range(12)]


class Stream:
    """Stands for a file of so many bytes."""

    def __init__(self, size, log):
        self.source, self.log = {"bytes": b"0" * size}, log

    def hear_ahead(self, threads):
        self.log.append("ahead")


def test_so_many_bytes_and_files_are_ahead_at_most(monkeypatch):
    monkeypatch.setattr(module, "BYTES_AHEAD", 100)
    monkeypatch.setattr(module, "LARGEST_AHEAD", 50)
    monkeypatch.setattr(module, "MOST_AHEAD", 5)
    log = []
    streams = [Stream(size, log) for size in (40, 40, 40, 80, 1, 1, 1, 1, 1, 1, 1)]
    begun = []
    for stream in ahead(streams, 1):
        begun.append(len(log))
        log.append("taken")
        assert stream is streams[len(begun) - 1]
    # Two of 40 bytes are ahead, then all that are small; that of 80 is not decoded ahead, and holds nothing.
    before = [entries - number for number, entries in enumerate(begun)]
    assert before[0] == 2
    assert log.count("ahead") == 10
    assert max(entries - number for number, entries in enumerate(before)) <= 5


def test_who_takes_no_more_ends_the_threads(single_label, files):
    tagger = AudioTagger.from_pretrained(single_label, "cpu")
    tagger.decoding_threads = 2
    results = tagger.tag_files(files, batch_size=1)
    next(results)
    results.close()
    assert not any(thread.name.startswith("ast-decoding") for thread in threading.enumerate())


def test_threads_are_those_that_a_process_was_given(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert decoding_threads() == 0
    monkeypatch.delenv("OMP_NUM_THREADS")
    for processors, threads in ((1, 0), (2, 1), (64, 4)):
        monkeypatch.setattr(module.os, "sched_getaffinity", lambda _, count=processors: range(count), raising=False)
        assert decoding_threads() == threads


def test_processes_of_a_machine_share_its_processors(monkeypatch):
    monkeypatch.setattr(module.os, "sched_getaffinity", lambda _: range(8), raising=False)
    assert [threads_beside(processes, on_cpu=True) for processes in (1, 2, 4, 8, 16)] == [4, 3, 1, 0, 0]
    assert [threads_beside(processes, on_cpu=False) for processes in (1, 2, 4, 8, 16)] == [4, 3, 1, 1, 1]


@pytest.mark.parametrize("padding", ["longest", "max_length"])
def test_batches_are_of_like_lengths_where_they_are_padded_to_the_longest(single_label, tmp_path, padding):
    lengths = [WINDOW, 4_000, WINDOW - 160, 4_160, WINDOW - 320, 4_320]
    clips = [write(tmp_path / f"{number}.wav", noise(length, number)) for number, length in enumerate(lengths)]
    tagger = AudioTagger.from_pretrained(single_label, "cpu")
    tagger.feature_extractor.padding = padding
    alone = [next(tagger.tag_files([clip])) for clip in clips]
    batches, score = [], tagger._score
    tagger._score = lambda windows, **more: (
        batches.append([each.samples for each in windows]) or score(windows, **more)
    )
    found = list(tagger.tag_files(clips, batch_size=2))
    expected = sorted(lengths) if padding == "longest" else lengths
    assert batches == [expected[first : first + 2] for first in (0, 2, 4)]
    assert [result.file for result in found] == list(map(str, clips))
    for result, other in zip(found, alone, strict=True):
        assert [tag.label for tag in result.labels] == [tag.label for tag in other.labels]
        assert [tag.score for tag in result.labels] == pytest.approx(
            [tag.score for tag in other.labels], abs=SCORE_TOLERANCE
        )


def test_results_come_as_soon_as_their_windows_are_scored(single_label, tmp_path):
    clips = [write(tmp_path / f"{number}.wav", noise(WINDOW, number)) for number in range(7)]
    tagger = AudioTagger.from_pretrained(single_label, "cpu")
    tagger.decoding_threads = 0
    heard, hear = [], tagger._hear
    tagger._hear = lambda stream, *more: heard.append(stream.name) or hear(stream, *more)
    assert [len(heard) for _ in tagger.tag_files(clips, batch_size=3)] == [3, 3, 3, 6, 6, 6, 7]


def test_results_do_not_pile_up_behind_windows_that_fill_no_batch(single_label, tmp_path):
    """A clip, and behind it files of which no window is scored."""
    clips = [write(tmp_path / "clip.wav", noise(WINDOW, 0))]
    clips += [write(tmp_path / f"{number}.wav", np.zeros(WINDOW, np.float32)) for number in range(20)]
    tagger = AudioTagger.from_pretrained(single_label, "cpu")
    tagger.decoding_threads = 0
    heard, hear = [], tagger._hear
    tagger._hear = lambda stream, *more: heard.append(stream.name) or hear(stream, *more)
    most = 2 * 2 * tagger._batches_sorted(2)
    assert most < len(clips)
    assert [len(heard) for _ in tagger.tag_files(clips, batch_size=2)] == [
        *[most] * most,
        *range(most + 1, len(clips) + 1),
    ]


def test_of_a_file_ahead_no_more_is_held_than_a_few_blocks(single_label, tmp_path, monkeypatch):
    path = write(tmp_path / "long.wav", noise(16_000 * 40, 0))
    tagger = AudioTagger.from_pretrained(single_label, "cpu")
    expected = np.concatenate([block[0] for block in tagger.reader.stream(path).blocks()])
    monkeypatch.setattr(reading, "DECODED_AHEAD", 16_000 * 4)
    stream = tagger.reader.stream(path)
    given, decoded = [], stream._decoded
    stream._decoded = lambda: (given.append(0) or block for block in decoded())
    with ThreadPoolExecutor(1) as threads:
        stream.hear_ahead(threads)
        stream._ahead.result()
        assert len(given) == 1
        np.testing.assert_array_equal(np.concatenate([block[0] for block in stream.blocks()]), expected)
    assert len(given) > 2

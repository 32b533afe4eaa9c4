"""Recordings tagged as they are heard: the same scores whatever the blocks, batches and neighbours, and as of cut-out windows."""

import io
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
from tagged_models import HOP, SCORE_TOLERANCE, WINDOW, as_vector, noise, stock_scores, windows_of, write

from modeling_ast.audio import reading
from modeling_ast.run_tagging import tag
from modeling_ast.tagging.ensemble import EnsembleTagger
from modeling_ast.tagging.flags import make_parser, parse_arguments
from modeling_ast.tagging.reductions import reduced
from modeling_ast.tagging.tagger import AudioTagger, FileTags, Tag, TaggingError
from modeling_ast.tagging.windows import WindowCutter

LONG = 9 * WINDOW + 5_000


@pytest.fixture(scope="module")
def tagger(multi_label):
    return AudioTagger.from_pretrained(multi_label, "cpu")


@pytest.fixture
def in_blocks(monkeypatch):
    """Files of any size come in blocks of so many seconds."""

    def set_seconds(seconds):
        monkeypatch.setattr(reading, "HEARD_WHOLE", 0)
        monkeypatch.setattr(reading, "BLOCK_SECONDS", seconds)

    return set_seconds


def scores_of_windows(tagger, path, **settings):
    """The scores of each window of a timeline, as segments of one window tell them: shape `(windows, labels)`."""
    rows, place = [], tagger._segments

    def kept(file, num_samples, runs, plan, silent):
        rows.extend(runs)
        return place(file, num_samples, runs, plan, silent)

    tagger._segments = kept
    try:
        list(tagger.tag_files([path], timeline=True, **settings))
    finally:
        del tagger._segments
    ((starts, scores),) = rows
    return starts, scores


@pytest.mark.parametrize("hop", [None, 0.24, 0.01, 0.97])
def test_windows_of_a_stream_are_scored_as_if_they_were_files(tagger, multi_label, tmp_path, in_blocks, hop):
    path = write(tmp_path / "long.wav", noise(LONG if hop != 0.01 else 2 * WINDOW + 7))
    in_blocks(1.0)
    starts, scores = scores_of_windows(tagger, path, hop=hop)
    last, step = soundfile.info(path).frames - WINDOW, HOP if hop is None else round(hop * 16_000)
    assert starts == [*range(0, last, step), last]
    expected = stock_scores(multi_label, windows_of(path, starts), "sigmoid")
    np.testing.assert_allclose(scores, expected, atol=SCORE_TOLERANCE)
    assert np.ptp(expected, axis=0).max() > 0.1  # otherwise any window would do
    cut = [
        write(tmp_path / f"{start}.wav", window)
        for start, window in zip(starts, windows_of(path, starts), strict=True)
    ]
    found = np.stack([as_vector(tags.labels) for tags in tagger.tag_files(cut)])
    np.testing.assert_allclose(scores, found, atol=SCORE_TOLERANCE)


@pytest.mark.parametrize("share", [False, True])
@pytest.mark.parametrize(("windows", "rest"), [(1, 0), (1, 1_599), (1, 1_600), (2, 400), (2, 1_599), (2, 1_601)])
def test_less_than_a_tenth_of_a_second_has_no_window_of_its_own(
    tagger, multi_label, tmp_path, in_blocks, windows, rest, share
):
    path = write(tmp_path / "clip.wav", noise(windows * WINDOW + rest))
    starts = [number * WINDOW for number in range(windows)] + (
        [(windows - 1) * WINDOW + rest] if rest >= 1_600 else []
    )
    expected = stock_scores(multi_label, windows_of(path, starts), "sigmoid")
    for seconds in (0.3, 8.0):
        in_blocks(seconds)
        (tags,) = tagger.tag_files([path], reduction="share" if share else "mean", threshold=0.0 if share else None)
        # At a threshold of 0 each label counts to the end.
        np.testing.assert_allclose(
            as_vector(tags.labels), 1.0 if share else expected.mean(axis=0), atol=0 if share else SCORE_TOLERANCE
        )
    starts, _ = scores_of_windows(tagger, path, hop=0.24)
    assert starts[-1] == windows * WINDOW + rest - WINDOW or rest < 160  # a time line reaches to the end


def test_of_short_windows_hardly_less_is_left_out(tagger, tmp_path, in_blocks):
    in_blocks(8.0)
    short, seen = 400 + 9 * 160, []
    hook = tagger.model.register_forward_hook(lambda _module, _inputs, output: seen.append(len(output.logits)))
    for rest in (short // 8 - 1, short // 8):
        list(tagger.tag_files([write(tmp_path / "clip.wav", noise(3 * short + rest))], window=short / 16_000))
    hook.remove()
    assert seen == [3, 4]


@pytest.mark.parametrize("rest", [0, 1_599])
def test_a_rest_counts_with_the_window_before_it_only_if_that_is_heard(tagger, tmp_path, in_blocks, rest):
    in_blocks(8.0)
    waveform = noise(2 * WINDOW + rest)
    waveform[WINDOW:] = 0
    (tags,) = tagger.tag_files([write(tmp_path / "clip.wav", waveform)], reduction="share", threshold=0.0)
    np.testing.assert_allclose(as_vector(tags.labels), WINDOW / len(waveform), atol=1e-6)


def test_several_models_leave_out_the_same_rest(tagger, multi_label, tmp_path, in_blocks):
    in_blocks(8.0)
    both = EnsembleTagger.from_pretrained([multi_label, multi_label], "cpu")
    for rest in (1_599, 1_600):
        path = write(tmp_path / "clip.wav", noise(WINDOW + rest))
        for settings in ({}, {"reduction": "share", "threshold": 0.5}):
            (found,), (alone,) = (each.tag_files([path], **settings) for each in (both, tagger))
            np.testing.assert_allclose(as_vector(found.labels), as_vector(alone.labels), atol=SCORE_TOLERANCE)


@pytest.mark.parametrize("timeline", [False, True])
def test_neither_blocks_nor_batches_nor_neighbours_change_results(tagger, tmp_path, in_blocks, timeline):
    lengths = (LONG, WINDOW - 3_000, 2 * WINDOW + 1, 500, 4 * WINDOW)
    files = [write(tmp_path / f"{number}.wav", noise(length, number)) for number, length in enumerate(lengths)]
    in_blocks(8.0)
    expected = list(tagger.tag_files(files, timeline=timeline))
    for seconds, batch_size in ((0.5, 1), (1.0, 3), (1.5, 64), (8.0, 7)):
        in_blocks(seconds)
        found = list(tagger.tag_files(files, batch_size=batch_size, timeline=timeline))
        alone = [next(tagger.tag_files([file], batch_size=batch_size, timeline=timeline)) for file in files]
        for results in (found, alone):
            for tags, other in zip(results, expected, strict=True):
                np.testing.assert_allclose(as_vector(tags.labels), as_vector(other.labels), atol=SCORE_TOLERANCE)
                spans = [[(s.start, s.end, s.label) for s in each.segments or []] for each in (tags, other)]
                assert spans[0] == spans[1]


def test_frames_are_computed_once(tagger):
    extractor, counted = tagger.feature_extractor, []

    class Counting:
        sampling_rate = extractor.sampling_rate

        def frames(self, waveform, device):
            features = extractor.frames(waveform, device)
            counted.append(len(features))
            return features

    waveform, windows = noise(LONG), []
    cutter = WindowCutter(Counting(), tagger.device, WINDOW, 24 * 160)
    largest_held = 0
    for start in range(0, LONG, 1_234):
        windows += cutter.add(waveform[start : start + 1_234])
        largest_held = max(largest_held, len(cutter._held))
    assert sum(counted) <= 1 + (LONG - 400) // 160
    assert largest_held < 2 * WINDOW
    whole = extractor.frames(waveform, tagger.device)
    for window in windows:
        first = window.start // 160
        np.testing.assert_array_equal(window.features.numpy(), whole[first : first + 96].numpy())
    (last,) = cutter.finish()
    np.testing.assert_array_equal(last.waveform, waveform[-WINDOW:])


def test_hop_in_other_than_whole_frames_is_rounded_and_said(tagger, tmp_path, caplog):
    path = write(tmp_path / "long.wav", noise(3 * WINDOW))
    assert scores_of_windows(tagger, path, hop=0.243)[0][1] == 24 * 160
    assert "--hop 0.243 is rounded to 0.24 s" in caplog.text
    caplog.clear()
    assert scores_of_windows(tagger, path, hop=0.25)[0][1] == 25 * 160
    assert scores_of_windows(tagger, path, hop=0.243)[0][1] == 24 * 160
    assert not caplog.text  # it is said once
    assert scores_of_windows(tagger, path, hop=WINDOW / 16_000)[0][1] == 97 * 160  # no sample is left out


def test_windows_side_by_side_may_be_asked_for_in_round_numbers(tagger, tmp_path, caplog):
    path = write(tmp_path / "long.wav", noise(3 * WINDOW))
    starts, _ = scores_of_windows(tagger, path, hop=0.5, window=0.5)
    assert starts[1] == 49 * 160  # frames of a window of 0.495 s, whose last one lasts 25 ms
    assert "--window 0.5 is rounded to 0.495 s" in caplog.text
    assert "--hop 0.5 is rounded to 0.49 s" in caplog.text
    with pytest.raises(TaggingError, match=r"hop=0.51 s does not fit windows of 0.495 s"):
        tagger.tag_files([path], hop=0.51, window=0.5, timeline=True)


def test_shorter_windows_are_padded_as_short_clips(tagger, multi_label, tmp_path):
    path, short = write(tmp_path / "long.wav", noise(3 * WINDOW)), 400 + 49 * 160
    starts, scores = scores_of_windows(tagger, path, window=0.515, hop=0.24)
    assert starts == [*range(0, 3 * WINDOW - short, 3840), 3 * WINDOW - short]
    waveform = soundfile.read(path, dtype="float32")[0]
    expected = stock_scores(multi_label, [waveform[start : start + short] for start in starts], "sigmoid")
    np.testing.assert_allclose(scores, expected, atol=SCORE_TOLERANCE)
    for window in (0.01, 0.98, 0, -1, np.nan):
        with pytest.raises(TaggingError, match="is nothing that this model hears at once: it hears up to 0.975 s"):
            tagger.tag_files([path], window=window)


def test_the_mean_of_very_many_windows_is_exact():
    scores = np.full((150_000, 2), 0.9, np.float32)
    recording = SimpleNamespace(runs=lambda: [(range(len(scores)), scores)])
    np.testing.assert_allclose(reduced(recording, "mean", None), scores[0], rtol=1e-6)


@pytest.mark.parametrize("hop", [None, 0.24])
def test_the_share_of_time_around_a_silent_window_is_no_more_than_all(tagger, tmp_path, hop):
    waveform = noise(4 * WINDOW)
    waveform[WINDOW : 2 * WINDOW + HOP] = 0
    path = write(tmp_path / "gap.wav", waveform)
    (tags,) = tagger.tag_files([path], timeline=True, hop=hop, reduction="share", threshold=0.0)
    shares = as_vector(tags.labels)
    assert (shares == shares[0]).all()
    assert 0.5 < shares[0] <= 1
    with pytest.raises(TaggingError, match="batch_size=0 is no number of windows"):
        tagger.tag_files([path], batch_size=0)


def test_a_file_has_the_mean_the_maximum_or_the_share_of_its_time(tagger, multi_label, tmp_path):
    path = write(tmp_path / "long.wav", noise(LONG))
    starts = [*range(0, LONG - WINDOW, WINDOW), LONG - WINDOW]
    windows = stock_scores(multi_label, windows_of(path, starts), "sigmoid")
    by_sample = np.zeros((LONG, 3))
    covered = np.zeros((LONG, 1))
    for start, scores in zip(starts, windows, strict=True):
        by_sample[start : start + WINDOW] += scores
        covered[start : start + WINDOW] += 1
    expected = {
        "mean": windows.mean(axis=0),
        "max": windows.max(axis=0),
        "share": (by_sample / covered >= 0.5).mean(axis=0),
    }
    assert expected["share"].max() > 0
    assert expected["share"].min() < 1
    for reduction, scores in expected.items():
        (tags,) = tagger.tag_files([path], reduction=reduction)
        np.testing.assert_allclose(as_vector(tags.labels), scores, atol=SCORE_TOLERANCE)
    (tags,) = tagger.tag_files([path], reduction="share", threshold=0.0)
    assert set(as_vector(tags.labels)) == {1.0}
    with pytest.raises(TaggingError, match="reduction='median' is none of mean, max, share"):
        tagger.tag_files([path], reduction="median")


def test_silent_windows_are_not_scored_and_said(tagger, multi_label, tmp_path):
    waveform = noise(6 * WINDOW)
    waveform[2 * WINDOW : 4 * WINDOW] = 0.25  # an offset is no sound
    path = write(tmp_path / "gap.wav", waveform)
    sounding = [0, WINDOW, 4 * WINDOW, 5 * WINDOW]
    expected = stock_scores(multi_label, windows_of(path, sounding), "sigmoid")
    (tags,) = tagger.tag_files([path])
    np.testing.assert_allclose(as_vector(tags.labels), expected.mean(axis=0), atol=SCORE_TOLERANCE)
    (note,) = tags.notes
    assert note.text == f"{path}: 2 of its 6 windows are silent (no sample beyond -80 dB) and not scored."
    (tags,) = tagger.tag_files([path], timeline=True, threshold=0.0, hop=0.96)
    assert {(s.start, s.end) for s in tags.segments} == {(0.0, 0.96 * 3), (0.96 * 3 + 0.975, 6 * 0.975)}
    (tags,) = tagger.tag_files([path], reduction="share", threshold=0.0)
    np.testing.assert_allclose(as_vector(tags.labels), 4 / 6, atol=1e-6)
    quiet = write(tmp_path / "quiet.wav", 1e-3 * waveform / np.abs(waveform).max())
    assert [len(next(tagger.tag_files([quiet], silence_db=level)).labels) for level in (-70, -50)] == [3, 0]
    silent = write(tmp_path / "silent.wav", np.zeros(WINDOW))
    (tags,) = tagger.tag_files([silent], timeline=True)
    assert (tags.labels, tags.segments, [note.text[-20:] for note in tags.notes]) == (
        [],
        [],
        ["silence means nothing."[-20:]],
    )
    with pytest.raises(TaggingError, match="silence_db=6 is not below full scale"):
        tagger.tag_files([quiet], silence_db=6)


@pytest.mark.parametrize("settings", [{}, {"median_filter": 0.72}, {"close_gaps": 0.05, "min_duration": 0.1}])
def test_no_event_is_where_a_window_is_silent(tagger, tmp_path, settings):
    """Though a window that reaches beyond may have a high score: what it has heard is at its rim."""
    waveform, hop = np.zeros(12 * WINDOW, np.float32), 3_840
    for start in (2 * WINDOW, 6 * WINDOW + 1_000, 11 * WINDOW):
        waveform[start : start + 4_000] = noise(4_000, start)
    path = write(tmp_path / "beats.wav", waveform)
    loud = np.flatnonzero(waveform)
    starts = [*range(0, len(waveform) - WINDOW, hop), len(waveform) - WINDOW]
    silent = np.zeros(len(waveform), bool)
    for start in starts:
        silent[start : start + WINDOW] |= not waveform[start : start + WINDOW].any()
    (tags,) = tagger.tag_files([path], timeline=True, hop=hop / 16_000, threshold=0.0, **settings)
    chunks = tagger.tag_stream(
        np.array_split(waveform, 7), 16_000, timeline=True, hop=hop / 16_000, threshold=0.0, **settings
    )
    spans = [[(each.start, each.end, each.label) for each in found.segments] for found in (tags, chunks)]
    assert spans[0] == spans[1]
    heard = np.zeros(len(waveform), bool)
    for start, end, _ in spans[0]:
        heard[round(start * 16_000) : round(end * 16_000)] = True
    np.testing.assert_array_equal(heard, ~silent)
    assert heard[loud].all()
    (share,) = tagger.tag_files([path], reduction="share", threshold=0.0, hop=hop / 16_000, timeline=True)
    assert as_vector(share.labels) == pytest.approx(np.full(3, (~silent).mean()), abs=1e-6)


def test_where_silent_windows_cover_all_that_sounds_the_share_is_nothing(tagger, tmp_path):
    """As where the offset moves between two silent halves: the window between them is no silence, and both reach over it."""
    waveform = np.repeat(np.float32([0, 0.01]), WINDOW)
    path = write(tmp_path / "step.wav", waveform)
    (tags,) = tagger.tag_files([path], timeline=True, hop=0.48, reduction="share", threshold=0.0)
    assert as_vector(tags.labels).tolist() == [0, 0, 0]
    assert tags.segments == []


def test_tracks_of_scores_have_none_where_a_window_is_silent(tagger, tmp_path):
    waveform = noise(6 * WINDOW)
    waveform[2 * WINDOW : 4 * WINDOW] = 0
    path = write(tmp_path / "gap.wav", waveform)
    (track,) = tagger.score_tracks([path])
    # Windows begin 0.48 s apart, and the sixth and seventh lie in the silence.
    assert [(edges[0] / 16_000, edges[-1] / 16_000) for edges, _ in track.places] == [(0.0, 2.4), (3.855, 5.85)]


def test_each_channel_has_results_of_its_own(tagger, tmp_path):
    channels = np.stack([noise(3 * WINDOW, seed) for seed in (1, 2)], axis=1)
    soundfile.write(tmp_path / "two.wav", channels, 16_000, subtype="FLOAT")
    alone = [write(tmp_path / f"{number}.wav", channels[:, number]) for number in (0, 1)]
    mono = write(tmp_path / "mono.wav", noise(WINDOW))
    found = list(tagger.tag_files([tmp_path / "two.wav", mono], timeline=True, each_channel=True))
    assert [(tags.file, tags.channel) for tags in found] == [
        (str(tmp_path / "two.wav"), 1),
        (str(tmp_path / "two.wav"), 2),
        (str(mono), 1),
    ]
    for tags, other in zip(found, tagger.tag_files(alone, timeline=True), strict=False):
        np.testing.assert_allclose(as_vector(tags.labels), as_vector(other.labels), atol=SCORE_TOLERANCE)
        assert [(s.start, s.end, s.label) for s in tags.segments] == [
            (s.start, s.end, s.label) for s in other.segments
        ]


def test_of_each_channel_silence_is_said_once(tagger, tmp_path):
    channels = np.stack([noise(2 * WINDOW), np.zeros(2 * WINDOW), np.zeros(2 * WINDOW)], axis=1)
    soundfile.write(tmp_path / "one_lives.wav", channels, 16_000, subtype="FLOAT")
    said = [
        note.text for tags in tagger.tag_files([tmp_path / "one_lives.wav"], each_channel=True) for note in tags.notes
    ]
    assert all(sum(f"channel {number}" in words for words in said) == 1 for number in (2, 3)), said


def test_of_a_file_that_was_cut_off_too_early_that_is_said(tagger, tmp_path):
    content = io.BytesIO()
    soundfile.write(content, noise(16_000), 16_000, format="WAV", subtype="PCM_16")
    (tmp_path / "cut.wav").write_bytes(content.getvalue()[: 44 + 300])
    (tags,) = tagger.tag_files([tmp_path / "cut.wav"])
    assert "lasts 9.4 ms; the model needs 25 ms" in tags.error
    (note,) = tags.notes
    assert "is cut off: 0.01 of the 1.00 s" in note.text


def test_a_file_of_channels_is_printed_before_the_next_is_heard(tagger, tmp_path, monkeypatch):
    heard = []

    def results(files, **settings):
        for file in files:
            heard.append(file)
            for channel in (1, 2):
                yield FileTags(file, [Tag("a", 1.0)], channel=channel, of_each_channel=True, results_of_file=2)

    monkeypatch.setattr(tagger, "tag_files", results)
    args = parse_arguments(make_parser(), ["x", "--model_name_or_path", "y", "--channels", "each"])
    outcomes = tag(args, tagger, ["a.wav", "b.wav"])
    assert len(next(outcomes).lines) == 4
    assert heard == ["a.wav"]
    assert [len(outcome.lines) for outcome in outcomes] == [4]


def test_notes_of_a_file_stand_with_its_first_channel_though_that_fails(tagger, tmp_path, monkeypatch):
    channels = np.stack([noise(WINDOW, seed) for seed in (1, 2)], axis=1)
    path = tmp_path / "cut.wav"
    soundfile.write(path, channels, 16_000, subtype="FLOAT")
    path.write_bytes(path.read_bytes()[:-20_000])
    score, first = tagger._score, channels[0, 0]

    def fail(windows, **kwargs):
        if any(window.waveform[0] == first for window in windows):
            raise RuntimeError("out of luck")
        return score(windows, **kwargs)

    monkeypatch.setattr(tagger, "_score", fail)
    one, two = tagger.tag_files([path], each_channel=True)
    assert "out of luck" in one.error
    assert two.error is None
    assert [len(tags.notes) for tags in (one, two)] == [1, 0]
    assert [tags.results_of_file for tags in (one, two)] == [2, 2]


def test_a_file_that_turns_out_damaged_is_tagged_as_its_whole_decode(tagger, tmp_path, in_blocks):
    path = tmp_path / "damaged.flac"
    soundfile.write(path, noise(LONG), 16_000, subtype="PCM_24")
    content = bytearray(path.read_bytes())
    spot = int(0.8 * len(content))
    content[spot : spot + 50] = bytes(50)
    path.write_bytes(content)
    (expected,) = tagger.tag_files([path], timeline=True)
    in_blocks(1.0)
    found = list(tagger.tag_files([path, write(tmp_path / "other.wav", noise(WINDOW))], timeline=True))
    np.testing.assert_allclose(as_vector(found[0].labels), as_vector(expected.labels), atol=SCORE_TOLERANCE)
    assert found[0].notes == expected.notes != ()
    assert [(s.start, s.end, s.label) for s in found[0].segments] == [
        (s.start, s.end, s.label) for s in expected.segments
    ]


def test_an_error_in_the_middle_is_that_file_s_own(tagger, tmp_path, in_blocks, monkeypatch):
    files = [write(tmp_path / f"{number}.wav", noise(LONG, number)) for number in range(3)]
    (expected,) = tagger.tag_files(files[2:])
    samples = noise(LONG)
    samples[100_000] = np.nan
    write(files[1], samples)
    in_blocks(1.0)
    found = list(tagger.tag_files(files))
    assert [tags.error is None for tags in found] == [True, False, True]
    assert "contains NaN or infinite samples" in found[1].error
    np.testing.assert_allclose(as_vector(found[2].labels), as_vector(expected.labels), atol=SCORE_TOLERANCE)
    add = WindowCutter.add

    def fail(cutter, block):
        if cutter.num_samples > 60_000 and np.array_equal(block[:10], noise(LONG, 2)[cutter.num_samples :][:10]):
            raise ValueError("no features")
        return add(cutter, block)

    monkeypatch.setattr(WindowCutter, "add", fail)
    found = list(tagger.tag_files([files[0], files[2], files[0]]))
    assert [tags.error for tags in found][::2] == [None, None]
    assert found[1].error.startswith(f"{files[2]} cannot be scored: no features")


def test_progress_is_told_as_a_file_is_heard(tagger, tmp_path, in_blocks):
    path, told = write(tmp_path / "long.wav", noise(LONG)), []
    in_blocks(1.0)
    list(tagger.tag_files([path], progress=lambda *what: told.append(what)))
    assert [file for file, *_ in told] == [str(path)] * len(told)
    assert len(told) > 5
    assert [seconds for _, seconds, _ in told] == sorted(seconds for _, seconds, _ in told)
    assert told[-1][1:] == (LONG / 16_000, LONG / 16_000)


def test_small_models_take_more_windows_at_a_time(tagger):
    assert tagger.windows_at_once(5) == 5
    tokens = 2 + ((128 - 16) // 10 + 1) * ((96 - 16) // 10 + 1)
    assert tagger.windows_at_once() == min(9712 // tokens, 64)

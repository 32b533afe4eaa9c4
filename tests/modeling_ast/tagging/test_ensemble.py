"""Several models as one: the mean of what stock Transformers gives for each, along windows of each one's own length."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import soundfile
import torch
import transformers
from tagged_models import LABELS, SCORE_TOLERANCE, as_vector, noise, write
from varied_model import vary_scores

from modeling_ast import run_tagging
from modeling_ast.features import log_mel
from modeling_ast.tagging.ensemble import EnsembleTagger
from modeling_ast.tagging.tagger import AudioTagger, TaggingError

LENGTH = 52_345  # samples at 16 kHz
BINS = 128
LENGTHS = {"short": 48, "long": 96}  # frames
HOP = 0.1


def samples_of(frames, rate=16_000):
    return rate * 25 // 1000 + (frames - 1) * rate // 100


def save_model(
    folder, frames, rate=16_000, labels=LABELS, mean=-4.0, seed=0, problem_type="multi_label_classification"
):
    torch.manual_seed(seed)
    config = transformers.ASTConfig(
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        max_length=frames,
        num_mel_bins=BINS,
        time_stride=8 if frames == 48 else 10,
        problem_type=problem_type,
        id2label=dict(enumerate(labels)),
        label2id={label: index for index, label in enumerate(labels)},
    )
    model = transformers.ASTForAudioClassification(config).eval()
    extractor = transformers.ASTFeatureExtractor(max_length=frames, sampling_rate=rate, mean=mean)
    windows = np.split(noise(8 * samples_of(frames, rate), seed=9), 8)
    features = extractor(windows, sampling_rate=rate, return_tensors="pt")
    vary_scores(model, 3, lambda: model(**features).logits)
    model.save_pretrained(folder)
    extractor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {
        "short": save_model(folder / "short", 48, mean=-5.0, seed=1),
        "long": save_model(folder / "long", 96, labels=LABELS[::-1], seed=2),
        "fast": save_model(folder / "fast", 96, rate=32_000, seed=3),
    }


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    return write(tmp_path_factory.mktemp("recording") / "a.wav", noise(LENGTH, seed=4))


def stock(folder, waveform, rate, starts, window):
    """Scores of stock Transformers in the order of `LABELS`, one row a window."""
    model = transformers.ASTForAudioClassification.from_pretrained(folder).eval()
    extractor = transformers.ASTFeatureExtractor.from_pretrained(folder)
    windows = [waveform[start : start + window] for start in starts]
    with torch.no_grad():
        logits = model(**extractor(windows, sampling_rate=rate, return_tensors="pt")).logits
    order = [model.config.label2id[label] for label in LABELS]
    multi_label = model.config.problem_type == "multi_label_classification"
    return (logits.sigmoid() if multi_label else logits.softmax(-1)).numpy()[:, order]


def side_by_side(length, window):
    return [*range(0, length - window, window), length - window]


def test_file_scores_are_the_mean_of_what_each_model_gives(models, recording):
    waveform = soundfile.read(recording, dtype="float32")[0]
    for reduction, reduce in (("mean", np.mean), ("max", np.max)):
        of_models = []
        for name, frames in LENGTHS.items():
            window = samples_of(frames)
            rows = stock(models[name], waveform, 16_000, side_by_side(LENGTH, window), window)
            of_models.append(reduce(rows, axis=0))
        assert np.abs(of_models[0] - of_models[1]).max() > 0.01  # otherwise one model would do
        tagger = EnsembleTagger.from_pretrained([models["long"], models["short"]], "cpu")
        (tags,) = tagger.tag_files([recording], reduction=reduction)
        np.testing.assert_allclose(as_vector(tags.labels), np.mean(of_models, axis=0), atol=SCORE_TOLERANCE)


def scores_at(rows, starts, window, rate, times):
    """The mean of the windows over each of some times, by their definition."""
    begins = np.asarray(starts) / rate
    return np.stack([rows[(begins <= time) & (time < begins + window / rate)].mean(axis=0) for time in times])


@pytest.mark.parametrize("names", [("short", "long"), ("long", "fast")])
def test_segments_and_shares_are_read_off_the_mean_along_the_time_line(models, recording, names, monkeypatch):
    """At every tenth of a millisecond, of windows of both lengths, at both sampling rates."""
    waveform, of_models = soundfile.read(recording, dtype="float32")[0], []
    times = np.arange(0, LENGTH / 16_000, 1e-4) + 5e-5
    for name in names:
        rate = 32_000 if name == "fast" else 16_000
        window = samples_of(LENGTHS.get(name, 96), rate)
        heard = waveform
        if rate != 16_000:
            import torchaudio

            heard = torchaudio.functional.resample(torch.from_numpy(waveform), 16_000, rate).numpy()
        starts = [*range(0, len(heard) - window, int(HOP * rate)), len(heard) - window]
        of_models.append(scores_at(stock(models[name], heard, rate, starts, window), starts, window, rate, times))
    expected = np.mean(of_models, axis=0)
    values = np.unique(expected.round(6))
    threshold = float(values[len(values) // 2 :][:2].mean())  # which no place has
    monkeypatch.setattr("modeling_ast.tagging.segments.DROP", 0.0)  # segments as wide as the means are high enough
    tagger = EnsembleTagger.from_pretrained([models[name] for name in names], "cpu")
    (tags,) = tagger.tag_files([recording], timeline=True, hop=HOP, threshold=threshold, reduction="share")
    np.testing.assert_allclose(as_vector(tags.labels), (expected >= threshold).mean(axis=0), atol=1e-3)
    assert 0 < (expected >= threshold).mean() < 1
    active = np.zeros_like(expected, dtype=bool)
    for segment in tags.segments:
        inside = (segment.start <= times) & (times < segment.end)
        active[inside, LABELS.index(segment.label)] = True
        found = expected[inside, LABELS.index(segment.label)].mean()
        assert segment.score == pytest.approx(found, abs=2e-3)  # of a sum over times
    unclear = np.abs(expected - threshold) < 1e-5
    assert ((active == (expected >= threshold)) | unclear).mean() > 0.9995  # edges between two times


def test_models_of_one_length_are_one_model_with_the_mean_of_their_scores(models, tmp_path, recording):
    """Also where windows are silent, by the same segments as of the windows' mean scores, and as they come."""
    other = save_model(tmp_path / "other", 96, seed=7)
    waveform = noise(LENGTH, seed=4)
    waveform[20_000:40_000] = 0
    path, window, hop = write(tmp_path / "a.wav", waveform), samples_of(96), 8_000
    tagger = EnsembleTagger.from_pretrained([models["long"], other], "cpu")
    told = []
    tags = tagger.tag_stream(
        np.array_split(waveform, 9),
        16_000,
        on_window=told.append,
        timeline=True,
        hop=0.5,
        threshold=0.0,
        segments="window",
    )
    starts = [*range(0, LENGTH - window, hop), LENGTH - window]
    loud = [start for start in starts if np.ptp(waveform[start : start + window]) > 0]
    assert len(loud) < len(starts)
    rows = np.mean([stock(folder, waveform, 16_000, loud, window) for folder in (models["long"], other)], axis=0)
    found = np.stack([as_vector(each.labels) for each in told if each.labels])
    np.testing.assert_allclose(found, rows, atol=SCORE_TOLERANCE)
    assert [each.start for each in told] == [start / 16_000 for start in starts]
    np.testing.assert_allclose(as_vector(tags.labels), rows.mean(axis=0), atol=SCORE_TOLERANCE)
    (of_file,) = tagger.tag_files([path], timeline=True, hop=0.5, threshold=0.0, segments="window")
    assert of_file.segments == [
        dataclasses.replace(segment, file=str(path), score=pytest.approx(segment.score, abs=SCORE_TOLERANCE))
        for segment in tags.segments
    ]
    first = sum(start < 20_000 for start in loud)
    scores = {label: [row[:first].mean(), row[first:].mean()] for label, row in zip(LABELS, rows.T, strict=True)}
    for label in LABELS:
        of_label = [segment for segment in tags.segments if segment.label == label]
        spans = [(segment.start, segment.end) for segment in of_label]
        assert spans == [(0.0, (loud[first - 1] + window) / 16_000), (loud[first] / 16_000, LENGTH / 16_000)]
        assert [segment.score for segment in of_label] == pytest.approx(scores[label], abs=SCORE_TOLERANCE)


def test_no_event_is_where_a_window_of_any_model_is_silent(models, tmp_path):
    waveform, windows = np.zeros(60_000, np.float32), (samples_of(48), samples_of(96))
    waveform[25_000:31_000] = noise(6_000, seed=4)
    path = write(tmp_path / "a.wav", waveform)
    tagger = EnsembleTagger.from_pretrained([models["short"], models["long"]], "cpu")
    (tags,) = tagger.tag_files([path], timeline=True, hop=HOP, threshold=0.0)
    silent, hop = np.zeros(len(waveform), bool), round(HOP * 16_000)
    for window in windows:
        for start in (*range(0, len(waveform) - window, hop), len(waveform) - window):
            silent[start : start + window] |= not waveform[start : start + window].any()
    heard = np.zeros(len(waveform), bool)
    for segment in tags.segments:
        heard[round(segment.start * 16_000) : round(segment.end * 16_000)] = True
    np.testing.assert_array_equal(heard, ~silent)
    (share,) = tagger.tag_files([path], timeline=True, hop=HOP, threshold=0.0, reduction="share")
    assert as_vector(share.labels) == pytest.approx(np.full(len(LABELS), (~silent).mean()), abs=1e-6)


def test_what_only_the_model_of_the_highest_rate_hears_is_no_silence(models, tmp_path):
    """A tone of 12 kHz, which one of 16 kHz calls silent."""
    tone = 0.03 * np.sin(2 * np.pi * 12_000 * np.arange(2 * 32_000) / 32_000)
    soundfile.write(tmp_path / "high.wav", tone, 32_000, subtype="FLOAT")
    tagger = EnsembleTagger.from_pretrained([models["fast"], models["long"]], "cpu")
    (tags,) = tagger.tag_files([tmp_path / "high.wav"], timeline=True, hop=HOP, threshold=0.0)
    assert {(segment.start, segment.end) for segment in tags.segments} == {(0.0, 2.0)}


@pytest.mark.parametrize("timeline", [False, True])
def test_each_frame_is_computed_once_for_models_that_hear_alike(models, tmp_path, recording, monkeypatch, timeline):
    twin = save_model(tmp_path / "twin", 96, mean=-2.0, seed=8)
    computed, write_log_mel = [], log_mel.write_log_mel

    def counted(waveforms, places, *settings):
        computed.extend(map(len, places))
        return write_log_mel(waveforms, places, *settings)

    monkeypatch.setattr("modeling_ast.feature_extraction_ast.write_log_mel", counted)
    settings = {"timeline": timeline, "hop": HOP if timeline else None}
    list(AudioTagger.from_pretrained(models["long"], "cpu").tag_files([recording], **settings))
    alone = sum(computed)
    computed.clear()
    list(EnsembleTagger.from_pretrained([models["long"], twin], "cpu").tag_files([recording], **settings))
    assert sum(computed) == alone
    if timeline:  # of another length only the last window, which ends with the recording, is new
        computed.clear()
        list(
            EnsembleTagger.from_pretrained([models["long"], models["short"]], "cpu").tag_files([recording], **settings)
        )
        assert sum(computed) == alone + LENGTHS["short"]


def test_a_file_is_decoded_once(models, recording, monkeypatch):
    from modeling_ast.audio import reading

    decoded, decode_audio = [], reading.decode_audio
    monkeypatch.setattr(
        reading, "decode_audio", lambda *args, **more: decoded.append(1) or decode_audio(*args, **more)
    )
    (tags,) = EnsembleTagger.from_pretrained(models.values(), "cpu").tag_files([recording])
    assert len(decoded) == 1
    assert tags.highest_frequency == 8_000  # of the file


def test_results_do_not_depend_on_blocks_batches_and_channels(models, tmp_path):
    """A recording that is heard block by block, at two sampling rates, each of its channels by itself."""
    sound = np.stack([noise(16_000 * 12, seed=1), noise(16_000 * 12, seed=2)], axis=1)
    path = tmp_path / "a.wav"
    soundfile.write(path, sound, 16_000, subtype="FLOAT")
    tagger = EnsembleTagger.from_pretrained([models["short"], models["fast"]], "cpu")
    results = list(tagger.tag_files([path], each_channel=True, batch_size=3, timeline=True))
    for number, tags in enumerate(results):
        assert tags.channel == number + 1
        alone = tagger.tag_stream([sound[:, number]], 16_000, timeline=True)
        np.testing.assert_allclose(as_vector(tags.labels), as_vector(alone.labels), atol=SCORE_TOLERANCE)
        assert [(s.start, s.end, s.label) for s in tags.segments] == [
            (s.start, s.end, s.label) for s in alone.segments
        ]


def changed(folder, source, **fields):
    shutil.copytree(source, folder)
    for name in ("config.json", "preprocessor_config.json"):
        path = folder / name
        path.write_text(json.dumps(json.loads(path.read_text()) | fields))
    return folder


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"labels": ("clap", "kick", "bell")},
            "other has other labels than .*short: it alone has 'bell', it lacks 'tom-tom'",
        ),
        (
            {"problem_type": "single_label_classification"},
            r"other takes its labels as exclusive \(softmax\), .*short as independent \(sigmoid\): the mean of such scores",
        ),
        ({"problem_type": "regression"}, "other is a regression: it gives no probabilities to average. Leave it out."),
    ],
)
def test_what_cannot_be_averaged_is_refused(models, tmp_path, changes, words):
    other = save_model(tmp_path / "other", 48, **changes)
    with pytest.raises(TaggingError, match=words):
        EnsembleTagger.from_pretrained([models["short"], other], "cpu")


def test_other_channels_are_refused_unless_they_are_chosen(models, tmp_path):
    other = changed(tmp_path / "other", models["short"], channels="left")
    with pytest.raises(TaggingError, match="other hears channel 'left' of files, .*short 'mean'. Pass --channels"):
        EnsembleTagger.from_pretrained([models["short"], other], "cpu")
    assert EnsembleTagger.from_pretrained([models["short"], other], "cpu", "right").reader.channels == "right"


def test_thresholds_of_the_checkpoints_do_not_count_and_that_is_said(models, tmp_path, recording, caplog):
    other = changed(tmp_path / "other", models["short"], label_thresholds=dict.fromkeys(LABELS, 0.0))
    tagger = EnsembleTagger.from_pretrained([other, models["long"]], "cpu")
    (tags,), (expected,) = (tagger.tag_files([recording], timeline=True, threshold=each) for each in (None, 0.5))
    assert tags.segments == expected.segments
    assert "The thresholds of the checkpoints are of each model's own scores" in caplog.text


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            {"threshold": 0.5},
            "min_duration and close_gaps of the checkpoints' event_rules are of each model's own scores",
        ),
        ({"threshold": 0.5, "min_duration": 0.1}, "Pass --close_gaps in seconds"),
        ({"threshold": 0.5, "min_duration": 0.1, "close_gaps": 0.1}, None),
    ],
)
def test_rules_of_events_of_the_checkpoints_do_not_count_and_that_is_said(
    models, tmp_path, recording, caplog, settings, words
):
    rules = {label: {"on": 0.1, "min_duration": 9.0, "close_gaps": 0.5} for label in LABELS}
    other = changed(tmp_path / "other", models["short"], event_rules=rules)
    tagger = EnsembleTagger.from_pretrained([other, models["long"]], "cpu")
    plain = EnsembleTagger.from_pretrained([models["short"], models["long"]], "cpu")
    (tags,), (expected,) = (each.tag_files([recording], timeline=True, **settings) for each in (tagger, plain))
    assert tags.segments == expected.segments
    said = [record.getMessage() for record in caplog.records if "event_rules" in record.getMessage()]
    assert len(said) == (words is not None)
    assert all(words in each for each in said)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (
            ["--timeline", "--segments", "window"],
            "segments='window' needs models with windows of one length, and these have",
        ),
        (["--timeline", "--hop", "0.6"], "hop=0.6 s does not fit windows of 0.495 s"),
        (["--window", "0.9"], "window=0.9 s is nothing that this model hears at once: it hears up to 0.495 s"),
        (["--embeddings", "file", "--embeddings_output", "x.npy"], "vectors are of one model, and there are 2"),
    ],
)
def test_settings_that_do_not_fit_all_models_are_refused(models, recording, capsys, flags, words):
    with pytest.raises(SystemExit) as ended:
        run_tagging.main([str(recording), "--model_name_or_path", *map(str, list(models.values())[:2]), *flags])
    assert ended.value.code == 2
    assert words in capsys.readouterr().err


def test_windows_are_told_only_where_they_are_of_one_length(models):
    tagger = EnsembleTagger.from_pretrained([models["short"], models["long"]], "cpu")
    with pytest.raises(
        TaggingError, match="To tell windows as they come needs models .* have 0.495, 0.975 s. Pass --window 0.495"
    ):
        tagger.tag_stream([], 16_000, on_window=print)
    told = []
    tagger.tag_stream([noise(20_000)], 16_000, on_window=told.append, window=0.495)
    assert len(told) == 3


def test_models_may_stand_before_what_is_tagged(models, recording, tmp_path, capsys):
    """As before there were several, whatever stands behind them: files, folders, nothing but a list."""
    folders = [str(models[name]) for name in ("short", "long")]
    flags = ["--device", "cpu", "--format", "jsonl"]
    listed = tmp_path / "list.txt"
    listed.write_text(f"{recording}\n")
    lines = []
    for words in (
        [str(recording), "--model_name_or_path", *folders],
        ["--model_name_or_path", *folders, str(recording)],
        ["--model_name_or_path", *folders, str(recording.parent)],
        ["--model_name_or_path", *folders, "--files_from", str(listed)],
    ):
        assert run_tagging.main([*words, *flags]) == 0
        lines.append(capsys.readouterr().out)
    assert len(set(lines)) == 1
    output = tmp_path / "tags.jsonl"
    assert run_tagging.main([str(recording), "--model_name_or_path", *folders, *flags, "--output", str(output)]) == 0
    assert output.read_text() == lines[0]

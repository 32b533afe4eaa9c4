"""Tagging: scores are compared with stock Transformers on tiny random checkpoints, windows with counts made by hand."""

import csv
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import transformers
from special_paths import make_special, never_waits
from varied_model import vary_scores

from modeling_ast import ASTConfig, run_tagging
from modeling_ast.loading import CheckpointError, check_model_name
from modeling_ast.scores import problem_type_of
from modeling_ast.tagging.tagger import AudioTagger, TaggingError, choose_device

MAX_LENGTH = 96
WINDOW = 400 + 95 * 160  # samples of 96 frames: one of 25 ms, and 95 shifts of 10 ms, at 16 kHz
LABELS = ("clap", "kick", "tom-tom")
SCORE_TOLERANCE = 1e-5  # float32 through two layers, filter banks of two implementations


def save_checkpoint(folder, problem_type=None, labels=LABELS, **changes):
    config = transformers.ASTConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_length=MAX_LENGTH,
        num_mel_bins=128,
        problem_type=problem_type,
        id2label=dict(enumerate(labels)),
        label2id={label: index for index, label in enumerate(labels)},
        **changes,
    )
    model = transformers.ASTForAudioClassification(config).eval()
    extractor = transformers.ASTFeatureExtractor(max_length=MAX_LENGTH)
    windows = np.split(noise(8 * WINDOW, seed=2), 8)
    features = extractor(windows, sampling_rate=16_000, return_tensors="pt")
    vary_scores(model, 3, lambda: model(**features).logits)
    model.save_pretrained(folder)
    extractor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def single_label(tmp_path_factory):
    return save_checkpoint(tmp_path_factory.mktemp("single"), "single_label_classification")


@pytest.fixture(scope="module")
def multi_label(tmp_path_factory):
    return save_checkpoint(tmp_path_factory.mktemp("multi"), "multi_label_classification")


def noise(samples, seed=0):
    """Noise whose colour changes each tenth of a second, so that windows differ."""
    generator = np.random.default_rng(seed)
    waveform = generator.normal(size=samples).astype(np.float32) / 20
    for start in range(0, samples, 1600):
        taps = generator.normal(size=8).astype(np.float32)
        waveform[start : start + 1600] = np.convolve(waveform[start : start + 1600], taps, mode="same")
    return waveform


def test_no_two_long_files_are_held(single_label, tmp_path, monkeypatch):
    files = [write(tmp_path / f"{number}.wav", noise(WINDOW * (1 + 4 * (number in (1, 2))))) for number in range(5)]
    tagger, groups = AudioTagger.from_pretrained(single_label, device="cpu"), []
    expected = list(tagger.tag_files(files))
    score = tagger._score_files
    monkeypatch.setattr(tagger, "_score_files", lambda heard, *args: groups.append(len(heard)) or score(heard, *args))
    monkeypatch.setattr("modeling_ast.tagging.tagger.LONG_FILE", 2)  # seconds
    found = list(tagger.tag_files(files))
    assert groups == [2, 1, 2]
    groups.clear()
    for begin in (0, 2):  # a run that goes on behind the first two has the same groups
        assert [tags.file for tags in tagger.tag_files(files[begin:], batch_size=2)] == list(map(str, files[begin:]))
    assert groups == [2, 1, 1, 1, 1, 1, 1]
    for tags, other in zip(found, expected, strict=True):
        assert (tags.file, [tag.label for tag in tags.labels]) == (other.file, [tag.label for tag in other.labels])
        assert [tag.score for tag in tags.labels] == pytest.approx([tag.score for tag in other.labels], abs=1e-6)


def test_scores_that_are_no_numbers_are_an_error_of_that_file(single_label, tmp_path, monkeypatch):
    files = [write(tmp_path / f"{number}.wav", noise(WINDOW)) for number in range(2)]
    tagger = AudioTagger.from_pretrained(single_label, device="cpu")
    score = tagger._score
    monkeypatch.setattr(tagger, "_score", lambda *args: score(*args) * [[np.nan], [1]])
    first, second = tagger.tag_files(files)
    assert first.error.startswith(f"{files[0]} gets scores that are not numbers.")
    assert second.error is None


def write(path, waveform):
    soundfile.write(path, waveform, 16_000, subtype="FLOAT")
    return path


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    lengths = {"a_short": 8_000, "b_exact": WINDOW, "c_long": 3 * WINDOW + 5_000, "d_other": 20_000}
    return [write(folder / f"{name}.wav", noise(length, seed)) for seed, (name, length) in enumerate(lengths.items())]


def stock_scores(folder, windows, score="softmax"):
    """Scores of stock Transformers, one window at a time: shape `(windows, labels)`."""
    model = transformers.ASTForAudioClassification.from_pretrained(folder).eval()
    extractor = transformers.ASTFeatureExtractor.from_pretrained(folder)
    rows = []
    for window in windows:
        features = extractor(window, sampling_rate=16_000, return_tensors="pt")
        with torch.no_grad():
            logits = model(**features).logits[0]
        rows.append({"softmax": logits.softmax(-1), "sigmoid": logits.sigmoid(), "none": logits}[score].numpy())
    return np.stack(rows)


def as_vector(tags):
    scores = {tag.label: tag.score for tag in tags}
    return np.array([scores[label] for label in LABELS])


def windows_of(path, starts):
    waveform = soundfile.read(path, dtype="float32")[0]
    return [waveform[start : start + WINDOW] for start in starts]


# Scores


@pytest.mark.parametrize(
    ("problem_type", "score"),
    [
        ("single_label_classification", "softmax"),
        (None, "softmax"),
        ("multi_label_classification", "sigmoid"),
        ("regression", "none"),
    ],
)
def test_scores_are_those_of_stock_transformers(tmp_path, clips, problem_type, score):
    folder = save_checkpoint(tmp_path, problem_type)
    (result,) = AudioTagger.from_pretrained(folder, "cpu").tag_files(clips[1:2])
    expected = stock_scores(folder, windows_of(clips[1], [0]), score)[0]
    np.testing.assert_allclose(as_vector(result.labels), expected, atol=SCORE_TOLERANCE)
    assert [tag.label for tag in result.labels] == [LABELS[index] for index in np.argsort(-expected)]


def test_long_file_is_the_mean_of_windows_side_by_side(single_label, clips):
    starts = [0, WINDOW, 2 * WINDOW, 2 * WINDOW + 5_000]  # the last ends with the file
    windows = windows_of(clips[2], starts)
    assert [len(window) for window in windows] == [WINDOW] * 4
    expected = stock_scores(single_label, windows)
    assert np.ptp(expected, axis=0).max() > 0.1  # otherwise any window would do
    (result,) = AudioTagger.from_pretrained(single_label, "cpu").tag_files(clips[2:3])
    np.testing.assert_allclose(as_vector(result.labels), expected.mean(axis=0), atol=SCORE_TOLERANCE)


def test_window_is_as_long_as_the_feature_extractor_looks(single_label):
    assert AudioTagger.from_pretrained(single_label, "cpu").window_samples == WINDOW


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_batches_change_neither_order_nor_scores(single_label, clips, batch_size):
    tagger = AudioTagger.from_pretrained(single_label, "cpu")
    results = list(tagger.tag_files(clips, batch_size=batch_size))
    assert [result.file for result in results] == [str(clip) for clip in clips]
    for clip, result in zip(clips, results, strict=True):
        (alone,) = tagger.tag_files([clip])
        np.testing.assert_allclose(as_vector(result.labels), as_vector(alone.labels), atol=SCORE_TOLERANCE)


def test_model_sees_no_more_than_batch_size_windows(single_label, clips):
    tagger = AudioTagger.from_pretrained(single_label, "cpu")
    seen = []
    tagger.model.register_forward_hook(lambda _module, _inputs, output: seen.append(len(output.logits)))
    list(tagger.tag_files(clips, batch_size=3))
    assert max(seen) == 3
    assert sum(seen) == 1 + 1 + 4 + 2


def test_top_k(single_label, clips):
    tagger = AudioTagger.from_pretrained(single_label, "cpu")
    best, all_three = (next(tagger.tag_files(clips[:1], top_k=k)).labels for k in (1, 99))
    assert len(all_three) == 3
    assert best == all_three[:1]


def test_model_in_training_mode_is_used_without_dropout(tmp_path, clips):
    folder = save_checkpoint(tmp_path, "single_label_classification", hidden_dropout_prob=0.5)
    expected = AudioTagger.from_pretrained(folder, "cpu")
    training = AudioTagger.from_pretrained(folder, "cpu").model.train()
    found = AudioTagger(training, expected.feature_extractor, "cpu").tag_files(clips[:1])
    assert list(found) == list(expected.tag_files(clips[:1]))


def test_half_precision_checkpoint_is_computed_in_single(tmp_path, clips):
    folder = save_checkpoint(tmp_path, "single_label_classification")
    transformers.ASTForAudioClassification.from_pretrained(folder).to(torch.bfloat16).save_pretrained(folder)
    tagger = AudioTagger.from_pretrained(folder, "cpu")
    assert tagger.model.dtype == torch.float32
    assert next(tagger.tag_files(clips[:1])).error is None


def test_unreadable_files_do_not_stop_the_others(single_label, clips, tmp_path):
    broken, brief = tmp_path / "broken.wav", write(tmp_path / "brief.wav", noise(399))
    broken.write_text("not audio")
    results = list(AudioTagger.from_pretrained(single_label, "cpu").tag_files([broken, clips[0], brief, clips[1]]))
    assert [bool(result.labels) for result in results] == [False, True, False, True]
    assert "broken.wav holds text" in results[0].error
    assert "brief.wav lasts 24.9 ms; the model needs 25 ms" in results[2].error
    expected = stock_scores(single_label, windows_of(clips[1], [0]))[0]
    np.testing.assert_allclose(as_vector(results[3].labels), expected, atol=SCORE_TOLERANCE)


def test_only_unreadable_files(single_label, tmp_path):
    (result,) = AudioTagger.from_pretrained(single_label, "cpu").tag_files([tmp_path / "gone.wav"])
    assert "There is no file" in result.error


# Windows and segments


@pytest.mark.parametrize(("beyond", "windows"), [(0, 1), (159, 1), (160, 2)])
def test_a_second_window_is_there_for_whole_frames_only(single_label, beyond, windows):
    tagger = AudioTagger.from_pretrained(single_label, "cpu")
    assert len(tagger._window_starts(tagger.window_samples + beyond, tagger.window_samples)) == windows


def timeline_by_hand(scores, active, starts, num_samples):
    """Segments of whole windows by walking through them, as (label, start, end, score)."""
    segments = []
    for column, label in enumerate(LABELS):
        run = []
        for window in range(len(starts) + 1):
            if window < len(starts) and active[window, column]:
                run.append(window)
            elif run:
                end = min(starts[run[-1]] + WINDOW, num_samples)
                score = np.mean([scores[member, column] for member in run])
                segments.append((label, starts[run[0]] / 16_000, end / 16_000, score))
                run = []
    return sorted(segments)


@pytest.mark.parametrize("threshold", [None, 0.3])
def test_timeline_of_a_multi_label_model(multi_label, clips, threshold):
    samples = 3 * WINDOW + 5_000
    starts = [*range(0, samples - WINDOW, WINDOW // 2), samples - WINDOW]
    scores = stock_scores(multi_label, windows_of(clips[2], starts), "sigmoid")
    active = scores >= (threshold or 0.5)
    assert 0 < active.sum() < active.size
    expected = timeline_by_hand(scores, active, starts, samples)

    tagger = AudioTagger.from_pretrained(multi_label, "cpu")
    (result,) = tagger.tag_files(clips[2:3], timeline=True, threshold=threshold, segments="window")
    found = sorted((segment.label, segment.start, segment.end, segment.score) for segment in result.segments)
    assert [segment[:3] for segment in found] == [segment[:3] for segment in expected]
    np.testing.assert_allclose([s[3] for s in found], [s[3] for s in expected], atol=SCORE_TOLERANCE)
    assert all(segment.file == str(clips[2]) for segment in result.segments)
    np.testing.assert_allclose(as_vector(result.labels), scores.mean(axis=0), atol=SCORE_TOLERANCE)


@pytest.mark.parametrize("threshold", [None, 0.6])
def test_timeline_of_a_single_label_model(single_label, clips, threshold):
    samples, hop = 3 * WINDOW + 5_000, 800
    starts = [*range(0, samples - WINDOW, hop), samples - WINDOW]
    scores = stock_scores(single_label, windows_of(clips[2], starts))
    active = (scores == scores.max(axis=1, keepdims=True)) & (scores >= (threshold or 0))
    expected = timeline_by_hand(scores, active, starts, samples)
    assert len({segment[0] for segment in expected}) > 1
    assert scores.max(axis=1).min() < 0.5  # the best label counts by default, however low

    tagger = AudioTagger.from_pretrained(single_label, "cpu")
    (result,) = tagger.tag_files(clips[2:3], timeline=True, hop=0.05, threshold=threshold, segments="window")
    found = sorted((segment.label, segment.start, segment.end, segment.score) for segment in result.segments)
    assert [segment[:3] for segment in found] == [segment[:3] for segment in expected]
    np.testing.assert_allclose([s[3] for s in found], [s[3] for s in expected], atol=SCORE_TOLERANCE)
    assert [segment.start for segment in result.segments] == sorted(segment.start for segment in result.segments)


def stretches_by_hand(scores, starts, num_samples, is_active):
    """Segments by walking through halves of windows, as (label, start, end, score); each lasts longer than a window."""
    edges = sorted({*starts, *(start + WINDOW for start in starts)})
    means = []
    for begin in edges[:-1]:
        over = [score for start, score in zip(starts, scores, strict=True) if start <= begin < start + WINDOW]
        means.append(np.mean(over, axis=0))
    active = is_active(np.array(means))
    segments = []
    for column, label in enumerate(LABELS):
        run = []
        for place in range(len(means) + 1):
            if place < len(means) and active[place, column]:
                run.append(place)
            elif run:
                lengths = [edges[member + 1] - edges[member] for member in run]
                score = np.average([means[member][column] for member in run], weights=lengths)
                segments.append((label, edges[run[0]] / 16_000, edges[run[-1] + 1] / 16_000, score))
                run = []
    return sorted(segments)


@pytest.mark.parametrize("kind", ["single_label", "multi_label"])
def test_segments_are_where_the_mean_over_windows_is_high(kind, clips, request):
    folder = request.getfixturevalue(kind)
    samples = 3 * WINDOW + 5_000
    starts = [
        *range(0, samples - WINDOW, WINDOW // 2),
        samples - WINDOW,
    ]  # the last is not half a window from its neighbour
    assert samples % (WINDOW // 2)
    if kind == "single_label":
        scores = stock_scores(folder, windows_of(clips[2], starts))
        expected = stretches_by_hand(scores, starts, samples, lambda means: means == means.max(axis=1, keepdims=True))
    else:
        scores = stock_scores(folder, windows_of(clips[2], starts), "sigmoid")
        expected = stretches_by_hand(scores, starts, samples, lambda means: means >= 0.5)
    tagger = AudioTagger.from_pretrained(folder, "cpu")
    (result,) = tagger.tag_files(clips[2:3], timeline=True)
    found = sorted((segment.label, segment.start, segment.end, segment.score) for segment in result.segments)
    assert [segment[:3] for segment in found] == [segment[:3] for segment in expected]
    np.testing.assert_allclose([s[3] for s in found], [s[3] for s in expected], atol=SCORE_TOLERANCE)
    assert [segment.start for segment in result.segments] == sorted(segment.start for segment in result.segments)
    (whole,) = tagger.tag_files(clips[2:3], timeline=True, segments="window")
    assert whole.segments != result.segments


def test_unknown_reading_of_segments_is_refused(single_label, clips):
    with pytest.raises(TaggingError, match="segments='hops' is none of hop, window"):
        AudioTagger.from_pretrained(single_label, "cpu").tag_files(clips, timeline=True, segments="hops")


THRESHOLDS = {"clap": 0.3, "tom-tom": 0.7}  # the kick keeps 0.5


@pytest.fixture(scope="module")
def with_thresholds(multi_label, tmp_path_factory):
    """The multi-label checkpoint, saved anew by this port with thresholds for two of three labels."""
    folder = tmp_path_factory.mktemp("thresholds")
    tagger = AudioTagger.from_pretrained(multi_label, "cpu")
    tagger.model.config.label_thresholds = THRESHOLDS
    tagger.model.save_pretrained(folder)
    tagger.feature_extractor.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("threshold", [None, 0.4])
def test_timeline_by_the_thresholds_of_the_checkpoint_unless_one_is_given(with_thresholds, clips, threshold):
    samples = 3 * WINDOW + 5_000
    starts = [*range(0, samples - WINDOW, WINDOW // 2), samples - WINDOW]
    scores = stock_scores(with_thresholds, windows_of(clips[2], starts), "sigmoid")
    active = scores >= (threshold or np.array([0.3, 0.5, 0.7]))
    assert (active != (scores >= 0.5)).any(axis=0)[[0, 2] if threshold is None else [0]].all()
    expected = timeline_by_hand(scores, active, starts, samples)
    tagger = AudioTagger.from_pretrained(with_thresholds, "cpu")
    (result,) = tagger.tag_files(clips[2:3], timeline=True, threshold=threshold, segments="window")
    found = sorted((segment.label, segment.start, segment.end) for segment in result.segments)
    assert found == [segment[:3] for segment in expected]


def test_thresholds_of_a_single_label_model_are_not_obeyed(single_label, clips, tmp_path):
    tagger = AudioTagger.from_pretrained(single_label, "cpu")
    (before,) = tagger.tag_files(clips[2:3], timeline=True)
    tagger.model.config.label_thresholds = dict.fromkeys(LABELS, 1.0)
    assert list(tagger.tag_files(clips[2:3], timeline=True)) == [before]
    assert before.segments


def test_thresholds_are_in_the_configuration_and_leave_stock_transformers_alone(with_thresholds, multi_label, clips):
    assert ASTConfig.from_pretrained(with_thresholds).label_thresholds == THRESHOLDS
    assert json.loads((with_thresholds / "config.json").read_text())["label_thresholds"] == THRESHOLDS
    windows = windows_of(clips[1], [0])
    assert np.array_equal(stock_scores(with_thresholds, windows), stock_scores(multi_label, windows))
    assert ASTConfig.from_pretrained(multi_label).label_thresholds is None


def test_thresholds_of_other_labels_are_not_kept(with_thresholds):
    def load(**labels):
        return ASTConfig.from_pretrained(with_thresholds, **labels).label_thresholds

    assert load(id2label=dict(enumerate(LABELS))) == load(num_labels=3) == load(max_length=64) == THRESHOLDS
    assert load(num_labels=2) is load(id2label=dict(enumerate(reversed(LABELS)))) is None
    assert load(id2label={0: "a", 1: "b"}, label_thresholds={"b": 0.2}) == {"b": 0.2}


@pytest.mark.parametrize(
    ("thresholds", "message"),
    [({"clip": 0.3}, "'clip', which is not among the 3 labels"), ({"clap": 30}, "30 for 'clap'.* from 0 to 1")],
)
def test_thresholds_that_cannot_be_meant_are_refused(with_thresholds, thresholds, message):
    with pytest.raises(ValueError, match=message):
        ASTConfig(id2label=dict(enumerate(LABELS)), label_thresholds=thresholds)
    with pytest.raises(ValueError, match=message):
        ASTConfig.from_pretrained(with_thresholds, label_thresholds=thresholds)


def test_segment_of_a_short_file_ends_with_the_file(single_label, clips):
    (result,) = AudioTagger.from_pretrained(single_label, "cpu").tag_files(clips[:1], timeline=True)
    assert [(segment.start, segment.end) for segment in result.segments] == [(0.0, 0.5)]


@pytest.mark.parametrize("hop", [0, -1, 0.00001, (WINDOW + 1) / 16_000])
def test_hop_that_leaves_audio_out_is_refused(single_label, clips, hop):
    with pytest.raises(TaggingError, match=r"hop=.* does not fit windows of 0.975 s"):
        AudioTagger.from_pretrained(single_label, "cpu").tag_files(clips, timeline=True, hop=hop)


def test_regression_has_no_timeline(tmp_path, clips):
    tagger = AudioTagger.from_pretrained(save_checkpoint(tmp_path, labels=("loudness",)), "cpu")
    assert problem_type_of(tagger.model.config) == "regression"
    with pytest.raises(TaggingError, match="regression"):
        tagger.tag_files(clips, timeline=True)


# Models that cannot be used


def test_model_folder_is_checked(single_label, tmp_path):
    with pytest.raises(
        CheckpointError,
        match=r"no model folder no_such_model\. .*config.json, preprocessor_config.json and model.safe",
    ):
        check_model_name("no_such_model")
    with pytest.raises(
        CheckpointError, match="no config.json and no preprocessor_config.json and no model.safetensors"
    ):
        check_model_name(tmp_path)
    check_model_name("user/name")  # a Hub id, which is not asked for here
    check_model_name(single_label)
    other = shutil.copytree(single_label, tmp_path / "other")
    config = json.loads((other / "config.json").read_text()) | {"model_type": "wav2vec2"}
    (other / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="model of type 'wav2vec2'"):
        check_model_name(other)


def test_hub_id_that_cannot_be_loaded(monkeypatch):
    def fail(*_args, **_kwargs):
        raise OSError("We couldn't connect.\nMore words.")

    monkeypatch.setattr("modeling_ast.feature_extraction_ast.ASTFeatureExtractor.from_pretrained", fail)
    with pytest.raises(
        CheckpointError, match="no folder user/name here, and as a Hub id it cannot be loaded: We couldn't connect."
    ):
        AudioTagger.from_pretrained("user/name")


def test_folder_whose_weights_do_not_open(single_label, tmp_path):
    folder = shutil.copytree(single_label, tmp_path / "broken")
    (folder / "preprocessor_config.json").write_text("{")
    with pytest.raises(
        CheckpointError, match=r"preprocessor_config\.json is not a valid JSON object .*save the model again"
    ):
        AudioTagger.from_pretrained(folder)
    (folder / "preprocessor_config.json").write_bytes((single_label / "preprocessor_config.json").read_bytes())
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(
        CheckpointError, match=r"weights \(\.safetensors\) are damaged or cut off .*Copy or save the model"
    ):
        AudioTagger.from_pretrained(folder)


def test_untrained_classifier_is_refused(single_label, tmp_path):
    folder = shutil.copytree(single_label, tmp_path / "encoder")
    transformers.ASTForAudioClassification.from_pretrained(folder).audio_spectrogram_transformer.save_pretrained(
        folder
    )
    with pytest.raises(CheckpointError, match="no trained classifier"):
        AudioTagger.from_pretrained(folder)


def test_feature_extractor_of_another_length_is_refused(single_label, tmp_path):
    folder = shutil.copytree(single_label, tmp_path / "mixed")
    transformers.ASTFeatureExtractor(max_length=1024).save_pretrained(folder)
    with pytest.raises(TaggingError, match="max_length is 96 in the model's config.json and 1024"):
        AudioTagger.from_pretrained(folder)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_device(capsys, single_label, clips):
    with pytest.raises(TaggingError, match="no device 'cuda' here; torch finds: .*cpu"):
        choose_device("cuda")
    assert choose_device("cpu").type == "cpu"
    with pytest.raises(SystemExit):
        run_tagging.main([str(clips[0]), "--model_name_or_path", str(single_label), "--device", "cuda"])
    assert "no device 'cuda' here" in capsys.readouterr().err


# The command line


def run(capsys, *arguments):
    code = run_tagging.main([str(argument) for argument in (*arguments, "--device", "cpu")])
    return code, capsys.readouterr()


def test_jsonl(capsys, single_label, clips):
    code, shown = run(capsys, clips[0].parent, "--model_name_or_path", single_label, "--format", "jsonl", "--top_k", 2)
    rows = [json.loads(line) for line in shown.out.splitlines()]
    assert code == 0
    assert [row["file"] for row in rows] == [str(clip) for clip in clips]
    assert all(list(row) == ["file", "labels"] for row in rows)
    assert all(list(tag) == ["label", "score"] for row in rows for tag in row["labels"])
    expected = sorted(stock_scores(single_label, windows_of(clips[0], [0]))[0], reverse=True)[:2]
    np.testing.assert_allclose([tag["score"] for tag in rows[0]["labels"]], expected, atol=SCORE_TOLERANCE)


def test_jsonl_with_timeline(capsys, single_label, clips):
    _, shown = run(capsys, clips[0], "--model_name_or_path", single_label, "--format", "jsonl", "--timeline")
    (row,) = [json.loads(line) for line in shown.out.splitlines()]
    assert list(row) == ["file", "labels", "segments"]
    (segment,) = row["segments"]
    assert segment == {"start": 0.0, "end": 0.5, **row["labels"][0]}


def test_csv(capsys, single_label, clips, tmp_path):
    clip = shutil.copy(clips[0], tmp_path / 'a, "b".wav')
    _, shown = run(capsys, clip, "--model_name_or_path", single_label, "--format", "csv")
    header, *rows = csv.reader(shown.out.splitlines())
    assert header == ["file", "label", "score"]
    assert [row[0] for row in rows] == [str(clip)] * 3
    assert {row[1] for row in rows} == set(LABELS)
    _, shown = run(capsys, clip, "--model_name_or_path", single_label, "--format", "csv", "--timeline")
    header, row = csv.reader(shown.out.splitlines())
    assert header == ["file", "start", "end", "label", "score"]
    assert row[1:3] == ["0.000", "0.500"]


def test_text(capsys, single_label, clips):
    _, shown = run(capsys, clips[0], "--model_name_or_path", single_label)
    name, *lines = shown.out.splitlines()
    assert name == str(clips[0])
    assert {line.split()[1] for line in lines} == set(LABELS)
    _, shown = run(capsys, clips[0], "--model_name_or_path", single_label, "--timeline")
    assert shown.out.splitlines()[1].split()[:4] == ["0.00", "-", "0.50", "s"]


def test_audacity_label_track(capsys, single_label, clips):
    _, shown = run(capsys, clips[2], "--model_name_or_path", single_label, "--format", "audacity")
    rows = [line.split("\t") for line in shown.out.splitlines()]
    assert all(len(row) == 3 and float(row[0]) < float(row[1]) and row[2] in LABELS for row in rows)
    assert float(rows[0][0]) == 0
    assert float(rows[-1][1]) == pytest.approx((3 * WINDOW + 5_000) / 16_000, abs=1e-6)


def test_raven_selection_tables_in_a_folder(capsys, single_label, clips, tmp_path):
    output = tmp_path / "tables"
    arguments = ("--model_name_or_path", single_label, "--format", "raven", "--output", output)
    code, shown = run(capsys, *clips, *arguments)
    assert code == 0
    assert shown.out.splitlines()[-1] == f"Tagged 4 of 4 files; the tags are in {output}"
    assert sorted(os.listdir(output)) == [f"{clip.stem}.Table.1.selections.txt" for clip in clips]
    header, row = (output / "a_short.Table.1.selections.txt").read_text().splitlines()
    fields = dict(zip(header.split("\t"), row.split("\t"), strict=True))
    frequencies = {"Low Freq (Hz)": "0.0", "High Freq (Hz)": "8000.0"}
    places = {"Selection": "1", "View": "Spectrogram 1", "Channel": "1"}
    times = {"Begin Time (s)": "0.000000", "End Time (s)": "0.500000"}
    assert fields.items() >= (frequencies | places | times).items()
    assert list(fields)[:7] == [*places, *times, *frequencies]


@pytest.mark.parametrize(("rate", "highest"), [(8_000, 4000.0), (11_025, 5512.5), (16_000, 8000.0), (44_100, 8000.0)])
def test_raven_selections_end_at_what_was_recorded_and_heard(capsys, single_label, tmp_path, rate, highest):
    soundfile.write(tmp_path / "clip.wav", noise(rate), rate)
    _, shown = run(capsys, tmp_path / "clip.wav", "--model_name_or_path", single_label, "--format", "raven")
    rows = list(csv.DictReader(shown.out.splitlines(), delimiter="\t"))
    assert {float(row["High Freq (Hz)"]) for row in rows} == {highest}
    assert {row["Annotation"] for row in rows} <= set(LABELS)


def test_failed_file_is_told_and_the_code_is_1(capsys, single_label, clips, tmp_path):
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"")
    output = tmp_path / "tags.jsonl"
    arguments = ("--model_name_or_path", single_label, "--format", "jsonl", "--output", output)
    code, shown = run(capsys, broken, clips[0], *arguments)
    assert code == 1
    assert "ast-tag: " in shown.err
    assert "broken.wav is empty" in shown.err
    assert [json.loads(line)["file"] for line in output.read_text().splitlines()] == [str(clips[0])]
    assert "Tagged 1 of 2 files" in shown.out


def test_output_is_written_whole_or_not_at_all(tmp_path):
    output = tmp_path / "tags.txt"
    output.write_text("before")

    def lines():
        yield "first"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_tagging.write_lines(lines(), output)
    assert output.read_text() == "before"
    assert os.listdir(tmp_path) == ["tags.txt"]
    run_tagging.write_lines(["new"], output)
    assert output.read_text() == "new\n"
    assert os.listdir(tmp_path) == ["tags.txt"]


def test_file_names_that_are_not_utf8_are_written_as_they_are(tmp_path):
    run_tagging.write_lines([os.fsdecode(b"t\xf6ne.wav")], tmp_path / "tags.txt")
    assert (tmp_path / "tags.txt").read_bytes() == b"t\xf6ne.wav\n"


def test_names_that_the_terminal_cannot_encode_end_nothing(single_label, clips, tmp_path, monkeypatch):
    names = ["\u0151.wav".encode(), b"t\xf6ne.wav"]
    for name in names:
        shutil.copy(clips[0], os.path.join(os.fsencode(tmp_path), name))
    content = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(content, encoding="ascii"))  # as of PYTHONIOENCODING=ascii
    assert run_tagging.main([str(tmp_path), "--model_name_or_path", str(single_label), "--device", "cpu"]) == 0
    names = [line.rpartition(b"/")[2] for line in content.getvalue().splitlines() if not line.startswith(b" ")]
    assert sorted(names) == [rb"\u0151.wav", b"t\xf6ne.wav"]


def test_what_is_no_file_is_left_out_of_a_folder_and_refused_by_its_name(capsys, single_label, clips, tmp_path):
    shutil.copy(clips[0], tmp_path / "a.wav")
    pipe = make_special(tmp_path / "b.wav", "pipe")
    make_special(tmp_path / "b\n\x1b[2J.wav", "pipe")
    (tmp_path / "round").symlink_to(tmp_path)
    model = ("--model_name_or_path", single_label, "--format", "jsonl")
    with never_waits():
        code, shown = run(capsys, tmp_path, *model)
        assert code == 0
        assert [json.loads(line)["file"] for line in shown.out.splitlines()] == [str(tmp_path / "a.wav")]
        assert f"ast-tag: {pipe} is left out: it is a pipe, not a file." in shown.err
        assert f"ast-tag: {tmp_path}/b\\n\\x1b[2J.wav is left out: it is a pipe" in shown.err
        assert f"ast-tag: {tmp_path / 'round'} is left out: it leads to a folder whose files are taken" in shown.err
        code, shown = run(capsys, pipe, tmp_path / "a.wav", *model)
        assert code == 1
        assert [json.loads(line)["file"] for line in shown.out.splitlines()] == [str(tmp_path / "a.wav")]
        assert f"ast-tag: {pipe} is a pipe, not a file. Save what comes out of it to a file" in shown.err


def test_a_device_is_not_replaced_by_the_output(capsys, single_label, clips, tmp_path):
    device = make_special(tmp_path / "null", "device")
    with pytest.raises(SystemExit):
        run(capsys, clips[0], "--model_name_or_path", single_label, "--output", device)
    said = capsys.readouterr().err
    assert f"--output {device} is no file but a device, a pipe, a socket or a link in a circle. Pass the name" in said
    assert device.is_symlink()


def test_reading_of_segments_is_a_flag(capsys, multi_label, clips):
    def segments(*flags):
        arguments = ("--model_name_or_path", multi_label, "--format", "jsonl", "--timeline", *flags)
        return json.loads(run(capsys, clips[2], *arguments)[1].out)["segments"]

    assert segments() == segments("--segments", "hop") != segments("--segments", "window")
    tagger = AudioTagger.from_pretrained(multi_label, "cpu")
    (expected,) = tagger.tag_files(clips[2:3], timeline=True, segments="window")
    assert [segment["end"] for segment in segments("--segments", "window")] == [s.end for s in expected.segments]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["{clips}/gone.wav"], "no file or folder"),
        (["{clips}", "--hop", "0.1"], "--hop is about segments. Add --timeline"),
        (["{clips}", "--threshold", "0.1"], "--threshold is about segments. Add --timeline"),
        (["{clips}", "--segments", "window"], "--segments is about segments. Add --timeline"),
        (["{clips}", "--top_k", "0"], "'0' is not a whole number from 1 on"),
        (["{clips}", "--timeline", "--hop", "30"], "hop=30.0 s does not fit"),
        (["{clips}", "--timeline", "--threshold", "50"], "threshold=50.0 is not a score"),
        (["{clips}", "--timeline", "--threshold", "-1"], "threshold=-1.0 is not a score"),
        (["{clips}", "--format", "audacity"], "one file for each audio file and there are 4"),
        (["{clips}", "--output", "{clips}"], "is a folder. Pass the name of a file in it"),
        (["{clips}", "--output", "{clips}/none/tags.txt"], "there is no folder"),
        (["{clips}", "--format", "raven", "--output", "{clips}/a_short.wav"], "the name of a folder"),
    ],
)
def test_wrong_arguments_are_explained(capsys, single_label, clips, arguments, words):
    arguments = [argument.format(clips=clips[0].parent) for argument in arguments]
    with pytest.raises(SystemExit) as ended:
        run_tagging.main([*arguments, "--model_name_or_path", str(single_label), "--device", "cpu"])
    assert ended.value.code == 2
    shown = capsys.readouterr()
    assert words in shown.err
    assert shown.out == ""


def test_two_files_of_one_name_do_not_overwrite_each_other(single_label, clips, tmp_path):
    (tmp_path / "more").mkdir()
    twin = shutil.copy(clips[0], tmp_path / "more")
    with pytest.raises(run_tagging.OutputError, match="Two audio files are called a_short"):
        run_tagging.plan_output(tmp_path / "out", "audacity", [clips[0], Path(twin)])


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--help"], 0),
        (["x.wav"], 2),
        (["x.wav", "--model_name_or_path", "m", "--format", "xml"], 2),
        ([__file__, "--model_name_or_path", "no_such_model"], 2),
    ],
)
def test_help_and_wrong_arguments_import_nothing_heavy(arguments, code):
    script = (
        "import sys\n"
        "from modeling_ast.run_tagging import main\n"
        "try:\n    main(sys.argv[1:])\n"
        "except SystemExit as ended:\n"
        "    heavy = {'torch', 'transformers', 'datasets', 'torchaudio', 'soundfile'} & set(sys.modules)\n"
        "    print(ended.code, sorted(heavy))\n"
    )
    child = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True)
    assert child.stdout.splitlines()[-1] == f"{code} []"


def test_module_runs_as_a_program():
    child = subprocess.run(
        [sys.executable, "-m", "modeling_ast.run_tagging", "gone.wav", "--model_name_or_path", "m"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert child.returncode == 2
    assert "no file or folder gone.wav" in child.stderr

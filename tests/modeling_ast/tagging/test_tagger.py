"""Tags against stock Transformers: scores, windows, segments and thresholds, and models that cannot be used."""

import json
import shutil

import numpy as np
import pytest
import torch
import transformers
from scipy.ndimage import median_filter
from tagged_models import (
    HOP,
    LABELS,
    SCORE_TOLERANCE,
    WINDOW,
    as_vector,
    noise,
    save_checkpoint,
    stock_scores,
    windows_of,
    write,
)

from modeling_ast import ASTConfig, run_tagging
from modeling_ast.loading import CheckpointError, check_model_name
from modeling_ast.scores import problem_type_of
from modeling_ast.tagging.ensemble import EnsembleTagger
from modeling_ast.tagging.segments import label_stretches, window_starts
from modeling_ast.tagging.tagger import AudioTagger, TaggingError, choose_device


def test_results_of_a_long_file_do_not_wait(single_label, tmp_path, monkeypatch):
    files = [write(tmp_path / f"{number}.wav", noise(WINDOW * (1 + 4 * (number in (1, 2))))) for number in range(5)]
    tagger, scored = AudioTagger.from_pretrained(single_label, device="cpu"), []
    expected = list(tagger.tag_files(files))
    score = tagger._score
    monkeypatch.setattr(
        tagger, "_score", lambda windows, **more: scored.append(len(windows)) or score(windows, **more)
    )
    monkeypatch.setattr("modeling_ast.tagging.tagger.LONG_FILE", 2)  # seconds
    found = []
    for tags in tagger.tag_files(files, batch_size=4):
        found.append((tags, sum(scored)))
    assert [windows for _, windows in found] == [6, 6, 11, 13, 13]
    assert scored == [4, 2, 4, 1, 2]  # no batch is left half empty but behind a long file and at the end
    for (tags, _), other in zip(found, expected, strict=True):
        assert (tags.file, [tag.label for tag in tags.labels]) == (other.file, [tag.label for tag in other.labels])
        assert [tag.score for tag in tags.labels] == pytest.approx([tag.score for tag in other.labels], abs=1e-6)


def test_scores_that_are_no_numbers_are_an_error_of_that_file(single_label, tmp_path, monkeypatch):
    files = [write(tmp_path / f"{number}.wav", noise(WINDOW)) for number in range(2)]
    tagger = AudioTagger.from_pretrained(single_label, device="cpu")
    score = tagger._score
    monkeypatch.setattr(
        tagger, "_score", lambda *args, **more: (score(*args, **more)[0] * [[np.nan], [1]], None, None)
    )
    first, second = tagger.tag_files(files)
    assert first.error.startswith(f"{files[0]} gets scores that are not numbers.")
    assert second.error is None


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


@pytest.mark.parametrize(("beyond", "windows"), [(0, 1), (159, 1), (160, 2)])
def test_a_second_window_of_a_time_line_is_there_for_whole_frames_only(single_label, tmp_path, beyond, windows):
    tagger, seen = AudioTagger.from_pretrained(single_label, "cpu"), []
    tagger.model.register_forward_hook(lambda _module, _inputs, output: seen.append(len(output.logits)))
    list(tagger.tag_files([write(tmp_path / "clip.wav", noise(WINDOW + beyond))], timeline=True))
    assert sum(seen) == windows  # one with features of its stretch, the other with those of frames


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
    starts = [*range(0, samples - WINDOW, HOP), samples - WINDOW]
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
        *range(0, samples - WINDOW, HOP),
        samples - WINDOW,
    ]  # the last is not half a window from its neighbour
    assert samples % (HOP)
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
    starts = [*range(0, samples - WINDOW, HOP), samples - WINDOW]
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


def test_rules_of_events_are_kept_with_their_labels(multi_label, tmp_path):
    rules = {"clap": {"on": 0.4, "off": 0.2, "min_duration": 0.5}}
    config = ASTConfig.from_pretrained(multi_label, event_rules=rules)
    config.save_pretrained(tmp_path)
    assert ASTConfig.from_pretrained(tmp_path).event_rules == rules
    assert ASTConfig.from_pretrained(tmp_path, num_labels=2).event_rules is None
    assert ASTConfig.from_pretrained(tmp_path, max_length=64).event_rules == rules
    assert transformers.ASTConfig.from_pretrained(tmp_path).num_labels == 3
    config.forget_choices()
    assert config.event_rules is None


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"clip": {"on": 0.3}}, "'clip', which is not among the 3 labels"),
        ({"clap": {"off": 0.3}}, "no score 'on' for 'clap'"),
        ({"clap": {"on": 30}}, "on=30 for 'clap', expected a score from 0 to 1"),
        ({"clap": {"on": 0.3, "off": 0.4}}, "off=0.4 above on=0.3 for 'clap'"),
        ({"clap": {"on": 0.3, "close_gaps": 0}}, "close_gaps=0 for 'clap', expected seconds above 0"),
        (
            {"clap": {"on": 0.3, "gap": 1}},
            "is not an object of labels and objects of close_gaps, median_filter, min_duration",
        ),
    ],
)
def test_rules_of_events_that_cannot_be_meant_are_refused(multi_label, rules, message):
    with pytest.raises(ValueError, match=message):
        ASTConfig(id2label=dict(enumerate(LABELS)), event_rules=rules)
    with pytest.raises(ValueError, match=message):
        ASTConfig.from_pretrained(multi_label, event_rules=rules)


def test_events_of_windows_are_by_the_rules_of_the_checkpoint(multi_label, tmp_path):
    """As by flags, where all labels have the same rules."""
    tagger = AudioTagger.from_pretrained(multi_label, "cpu")
    path = write(tmp_path / "long.wav", noise(6 * WINDOW, seed=5))
    flags = {"threshold": 0.4, "off": 0.2, "min_duration": 0.3, "close_gaps": 0.2}
    (by_flags,) = tagger.tag_files([path], timeline=True, hop=0.1, **flags)
    (plain,) = tagger.tag_files([path], timeline=True, hop=0.1)
    tagger.config.event_rules = {
        label: {"on": 0.4, "off": 0.2, "min_duration": 0.3, "close_gaps": 0.2} for label in LABELS
    }
    (by_rules,) = tagger.tag_files([path], timeline=True, hop=0.1)
    assert by_rules.segments == by_flags.segments != plain.segments


@pytest.mark.parametrize(
    ("rules", "off", "words"),
    [
        (None, 0.7, "off=0.7 is above the score with which events of any label begin here, 0.5, so that"),
        (
            {"clap": {"on": 0.3, "off": 0.1}},
            0.4,
            "off=0.4 is above the score with which events of 'clap' begin here, 0.3,",
        ),
        (
            {label: {"on": 0.1 + 0.1 * place} for place, label in enumerate(LABELS)},
            0.4,
            "of any label begin here, 0.1 to 0.3,",
        ),
        ({"clap": {"on": 0.3, "off": 0.1}}, 0.2, None),
    ],
)
def test_an_off_above_the_checkpoints_own_on_is_said_to_be_of_no_use(multi_label, clips, caplog, rules, off, words):
    tagger = AudioTagger.from_pretrained(multi_label, "cpu")
    tagger.config.event_rules = rules
    for _ in range(2):
        list(tagger.tag_files(clips[:1], timeline=True, off=off))
    said = [record.getMessage() for record in caplog.records if "off=" in record.getMessage()]
    assert len(said) == (words is not None)  # once
    assert all(words in each and "Pass a lower --off" in each for each in said)


@pytest.mark.parametrize(("off", "is_said"), [(0.4, False), (0.6, True)])
def test_an_off_of_exclusive_labels_holds_events_where_another_label_is_the_best(
    single_label, tmp_path, caplog, off, is_said
):
    tagger = AudioTagger.from_pretrained(single_label, "cpu")
    path = write(tmp_path / "long.wav", noise(6 * WINDOW, seed=5))
    with_off, without = (list(tagger.tag_files([path], timeline=True, hop=0.1, off=each)) for each in (off, None))
    assert ("is above the score with which events of any label begin here, 0," in caplog.text) == is_said
    assert with_off == without or not is_said


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


def run(capsys, *arguments):
    code = run_tagging.main([str(argument) for argument in (*arguments, "--device", "cpu")])
    return code, capsys.readouterr()


def test_windows_are_smoothed_by_their_median(multi_label, tmp_path, caplog):
    hop = 2_400
    waveform = noise(20 * hop + WINDOW, seed=5)
    path = write(tmp_path / "long.wav", waveform)
    starts = window_starts(len(waveform), WINDOW, hop)
    scores = stock_scores(multi_label, [waveform[start : start + WINDOW] for start in starts], "sigmoid")
    threshold = float(np.median(scores))
    tagger = AudioTagger.from_pretrained(multi_label, "cpu")

    def stretches(scores):
        found = label_stretches(scores, starts, WINDOW, len(waveform), lambda means: means >= threshold)
        return [(LABELS[each.label], round(each.start / 16_000, 6), round(each.end / 16_000, 6)) for each in found]

    def segments(**settings):
        (tags,) = tagger.tag_files([path], timeline=True, hop=hop / 16_000, threshold=threshold, **settings)
        return [(each.label, round(each.start, 6), round(each.end, 6)) for each in tags.segments]

    smooth = median_filter(scores, size=(5, 1), mode="nearest")
    assert sorted(segments()) == sorted(stretches(scores))
    assert sorted(stretches(scores)) != sorted(stretches(smooth))
    assert sorted(segments(median_filter=0.75)) == sorted(stretches(smooth))
    assert not caplog.records
    segments(median_filter=0.8)
    assert "--median_filter 0.8 is rounded to 0.75 s, which is an odd number of the 0.15 s of --hop" in caplog.text


def test_what_a_median_of_windows_is_not_for(multi_label):
    with pytest.raises(
        TaggingError, match=r"nothing would be smoothed. Pass --median_filter 0.9 or more, or a smaller"
    ):
        AudioTagger.from_pretrained(multi_label, "cpu").tag_files([], timeline=True, hop=0.3, median_filter=0.5)
    with pytest.raises(TaggingError, match="Add --timeline, or leave --median_filter out"):
        AudioTagger.from_pretrained(multi_label, "cpu").tag_files([], median_filter=0.3)
    with pytest.raises(TaggingError, match="of the windows of one model"):
        EnsembleTagger.from_pretrained([multi_label, multi_label], "cpu").tag_files([], timeline=True, median_filter=1)

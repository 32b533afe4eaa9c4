"""Clips unlike the training clips: distances against scikit-learn over stock Transformers' vectors, and what is said of them."""

import csv
import json
import logging
import shutil
import stat

import huggingface_hub
import numpy as np
import pandas
import pytest
import soundfile
import torch
import transformers
from safetensors import safe_open
from safetensors.numpy import save_file
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import normalize
from tagged_models import WINDOW, noise, save_checkpoint, windows_of, write

from modeling_ast.checkpoints.fields import CheckpointError
from modeling_ast.run_tagging import main
from modeling_ast.tagging import AudioTagger, EnsembleTagger, TaggingError
from modeling_ast.tagging.none_of_these import KNOWN_CLIPS_NAME, NONE_OF_THESE, KnownClips, load_known_clips
from modeling_ast.tagging.unfinished import model_digest

HALF_PRECISION = 2e-3  # of vectors of 32 numbers whose length is 1, and of the distance between two of them
HIDDEN = 32


def stock_vectors(folder, windows):
    """What the classifier of stock Transformers reads of windows."""
    model = transformers.ASTForAudioClassification.from_pretrained(folder).audio_spectrogram_transformer.eval()
    extractor = transformers.ASTFeatureExtractor.from_pretrained(folder)
    with torch.no_grad():
        rows = [
            model(**extractor(window, sampling_rate=16_000, return_tensors="pt")).pooler_output[0]
            for window in windows
        ]
    return torch.stack(rows).numpy()


def nearest(known, vectors, count):
    """Distances to the `count`-th nearest by scikit-learn, as in Sun et al. 2022."""
    fitted = NearestNeighbors(n_neighbors=count, algorithm="brute").fit(normalize(known))
    return fitted.kneighbors(normalize(vectors))[0][:, -1]


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    """Six clips of a window that are known, and one of three windows: the first known, the others a tone."""
    folder = tmp_path_factory.mktemp("sounds")
    known = [write(folder / f"known_{seed}.wav", noise(WINDOW, seed)) for seed in range(6)]
    tone = 0.5 * np.sign(np.sin(2 * np.pi * 3000 * np.arange(2 * WINDOW) / 16_000)).astype(np.float32)
    mixed = write(folder / "mixed.wav", np.concatenate([noise(WINDOW, 0), tone]))
    return known, mixed, write(folder / "tone.wav", tone[:WINDOW])


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, sounds):
    """A checkpoint that keeps the known clips, with a threshold between their distances and that of the tone."""
    folder = save_checkpoint(tmp_path_factory.mktemp("known") / "model")
    known = stock_vectors(folder, [windows_of(path, [0])[0] for path in sounds[0]])
    tone = stock_vectors(folder, windows_of(sounds[2], [0]))
    threshold = 1.1 * float(nearest(known, known, 2).max())
    assert nearest(known, tone, 2)[0] > 1.1 * threshold
    KnownClips(known, 2, threshold).save(folder)
    return folder


@pytest.fixture(scope="module")
def tagger(checkpoint):
    return AudioTagger.from_pretrained(checkpoint, "cpu")


def test_distances_are_those_of_scikit_learn():
    generator = np.random.default_rng(0)
    known, vectors = (
        generator.normal(size=(50, 8)),
        generator.normal(size=(1_200, 8)),
    )  # more than are computed at once
    for count in (1, 3, 50):
        found = KnownClips(known, count, 0.0).distances(vectors)
        np.testing.assert_allclose(found, nearest(known, vectors, count), atol=1e-7)
    own = np.eye(50, dtype=bool)
    left_out = KnownClips(known, 1, 0.0).distances(known, own)
    np.testing.assert_allclose(left_out, nearest(known, known, 2), atol=1e-7)
    assert np.isnan(KnownClips(known, 1, 0.0).distances(np.full((1, 8), np.nan))).all()


def test_what_is_kept_is_small_and_read_again(tmp_path):
    known = KnownClips(np.random.default_rng(0).normal(size=(100, HIDDEN)), 5, 0.123456789)
    path = known.save(tmp_path)
    assert path.stat().st_size < 100 * HIDDEN * 2 + 200
    (tmp_path / "other").touch()
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE((tmp_path / "other").stat().st_mode)
    with safe_open(path, "np") as file:
        assert file.get_tensor("vectors").dtype == np.float16
    again = load_known_clips(tmp_path, HIDDEN)
    assert (again.neighbours, again.threshold) == (5, 0.123456789)
    np.testing.assert_allclose(again.vectors, known.vectors, atol=1e-3)
    assert load_known_clips(tmp_path.parent, HIDDEN) is None


@pytest.mark.parametrize(
    ("tensors", "settings", "words"),
    [
        ({"other": np.ones((2, HIDDEN), np.float16)}, {}, "holds 'other' in place of 'vectors'"),
        ({"vectors": np.ones((2, HIDDEN), np.float32)}, {}, "holds F32 of shape"),
        ({"vectors": np.ones(HIDDEN, np.float16)}, {}, "expected up to 5000 rows"),
        ({"vectors": np.ones((5001, HIDDEN), np.float16)}, {}, "expected up to 5000 rows"),
        ({"vectors": np.ones((2, 8), np.float16)}, {}, "vectors of 8 numbers, and those of the model have 32"),
        ({"vectors": np.full((2, HIDDEN), np.nan, np.float16)}, {}, "not numbers"),
        ({"vectors": np.ones((2, HIDDEN), np.float16)}, {"neighbours": "3"}, "neighbours='3', expected 1 to 2"),
        ({"vectors": np.ones((2, HIDDEN), np.float16)}, {"neighbours": "9" * 5000}, "expected 1 to 2"),
        ({"vectors": np.ones((2, HIDDEN), np.float16)}, {"threshold": "nan"}, "threshold='nan', expected 0 to 2"),
        ({"vectors": np.ones((2, HIDDEN), np.float16)}, {"threshold": ""}, "threshold='', expected 0 to 2"),
    ],
)
def test_a_file_that_is_none_is_refused_in_words(tmp_path, tensors, settings, words):
    save_file(tensors, tmp_path / KNOWN_CLIPS_NAME, {"neighbours": "1", "threshold": "0.5"} | settings)
    with pytest.raises(CheckpointError) as refused:
        load_known_clips(tmp_path, HIDDEN)
    assert words in str(refused.value)
    assert "Train again with ast-finetune --none_of_these true" in str(refused.value)


def test_a_damaged_file_is_refused_in_words(tmp_path):
    path = KnownClips(np.ones((9, HIDDEN)), 1, 0.5).save(tmp_path)
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(CheckpointError, match="damaged or cut off"):
        load_known_clips(tmp_path, HIDDEN)


def test_stock_transformers_loads_the_checkpoint_as_without_it(checkpoint):
    _, loading = transformers.ASTForAudioClassification.from_pretrained(checkpoint, output_loading_info=True)
    assert not loading["missing_keys"]
    assert not loading["unexpected_keys"]


def test_the_distance_of_a_file_is_the_mean_over_its_windows(tagger, checkpoint, sounds):
    known, mixed, tone = sounds
    kept = stock_vectors(checkpoint, [windows_of(path, [0])[0] for path in known])
    found = list(tagger.tag_files([*known, mixed, tone]))
    expected = nearest(kept, kept, 2).tolist()
    expected.append(nearest(kept, stock_vectors(checkpoint, windows_of(mixed, [0, WINDOW, 2 * WINDOW])), 2).mean())
    expected.append(nearest(kept, stock_vectors(checkpoint, windows_of(tone, [0])), 2)[0])
    np.testing.assert_allclose([tags.novelty.distance for tags in found], expected, atol=HALF_PRECISION)
    assert [tags.novelty.is_beyond for tags in found] == [False] * 6 + [
        expected[6] > tagger.known_clips.threshold,
        True,
    ]
    assert all(tags.novelty.segments is None for tags in found)


def test_scores_are_the_same_whether_or_not_it_is_told(tagger, sounds):
    told, not_told = (list(tagger.tag_files([*sounds[0], sounds[1]], none_of_these=how)) for how in ("on", "off"))
    assert [tags.labels for tags in told] == [tags.labels for tags in not_told]
    assert not any(tags.novelty for tags in not_told)


@pytest.mark.parametrize("reading", ["hop", "window"])
def test_stretches_beyond_are_told_along_the_time_line(tagger, sounds, reading):
    (tags,) = tagger.tag_files([sounds[1]], timeline=True, segments=reading)
    (segment,) = tags.novelty.segments
    assert segment.label == NONE_OF_THESE
    assert segment.end == pytest.approx(3 * WINDOW / 16_000)
    window = WINDOW / 16_000
    assert 0.5 * window <= segment.start <= 1.25 * window
    assert segment.score > tagger.known_clips.threshold
    assert NONE_OF_THESE not in {each.label for each in tags.segments}
    (short,) = tagger.tag_files([sounds[1]], timeline=True, segments=reading, min_duration=4.0)
    assert short.novelty.segments == []


def test_a_threshold_of_ones_own(tagger, sounds):
    (all_beyond,) = tagger.tag_files([sounds[0][0]], none_of_these=0.0)
    (none_beyond,) = tagger.tag_files([sounds[2]], none_of_these=2.0)
    assert all_beyond.novelty.is_beyond
    assert not none_beyond.novelty.is_beyond


@pytest.mark.parametrize("given", [-0.1, 2.5, "yes", float("nan"), True, False])
def test_what_is_no_distance_is_refused(tagger, sounds, given):
    with pytest.raises(TaggingError, match="is neither on nor off nor a distance from 0 to 2"):
        list(tagger.tag_files([sounds[2]], none_of_these=given))


def test_vectors_are_given_from_the_same_pass(tagger, sounds):
    (alone,) = tagger.tag_files([sounds[1]])
    (both,) = tagger.tag_files([sounds[1]], embeddings="second")
    assert both.embeddings is not None
    assert both.novelty.distance == pytest.approx(alone.novelty.distance, abs=1e-5)


def test_a_silent_file_has_no_distance(tagger, tmp_path):
    (tags,) = tagger.tag_files([write(tmp_path / "silent.wav", np.zeros(WINDOW, np.float32))])
    assert tags.novelty is None
    assert tags.labels == []


def test_windows_of_a_stream_are_told_as_they_come(tagger, sounds):
    waveform, windows = soundfile.read(sounds[1], dtype="float32")[0], []
    tags = tagger.tag_stream(np.split(waveform, 3), 16_000, on_window=windows.append)
    assert [window.none_of_these for window in windows] == [False, True, True]
    (of_file,) = tagger.tag_files([sounds[1]])
    assert tags.novelty.distance == pytest.approx(of_file.novelty.distance, abs=1e-5)


def test_without_what_is_kept_it_is_not_told_and_cannot_be_asked_for(single_label, sounds):
    tagger = AudioTagger.from_pretrained(single_label, "cpu")
    (tags,) = tagger.tag_files([sounds[2]])
    assert tags.novelty is None
    with pytest.raises(
        TaggingError, match="keeps nothing of its training clips. Train it with ast-finetune --none_of"
    ):
        list(tagger.tag_files([sounds[2]], none_of_these="on"))


def test_of_several_models_it_is_said_that_it_is_not_told(checkpoint, tagger, sounds, caplog):
    several = EnsembleTagger([tagger, AudioTagger.from_pretrained(checkpoint, "cpu")])
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            (tags,) = several.tag_files([sounds[2]])
    assert tags.novelty is None
    said = [record.message for record in caplog.records if "none of the labels" in record.message]
    assert said == [
        "Clips that are none of the labels are not told: what tells it is of one model, and there are 2. Pass one of them."
    ]
    with pytest.raises(TaggingError, match="there are 2. Pass one of them, or leave it out"):
        list(several.tag_files([sounds[2]], none_of_these=0.3))


def test_nothing_is_unlike_the_training_clips_where_a_window_is_silent(tagger, tmp_path):
    window, hop = tagger.window_samples, 3_840
    waveform = np.random.default_rng(0).normal(size=8 * window).astype(np.float32) * 0.1
    waveform[2 * window : 6 * window] = 0
    soundfile.write(tmp_path / "gap.wav", waveform, 16_000, subtype="FLOAT")
    silent = np.zeros(len(waveform), bool)
    for start in (*range(0, len(waveform) - window, hop), len(waveform) - window):
        silent[start : start + window] |= not waveform[start : start + window].any()
    (tags,) = tagger.tag_files([tmp_path / "gap.wav"], timeline=True, hop=hop / 16_000, none_of_these=0.0)
    beyond = np.zeros(len(waveform), bool)
    for segment in tags.novelty.segments:
        beyond[round(segment.start * 16_000) : round(segment.end * 16_000)] = True
    np.testing.assert_array_equal(beyond, ~silent)


def test_an_onnx_file_cannot_tell(checkpoint, tmp_path, sounds):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    from modeling_ast.run_export import main as export

    assert export([str(checkpoint), str(tmp_path / "model.onnx")]) == 0
    tagger = AudioTagger.from_pretrained(tmp_path / "model.onnx")
    (tags,) = tagger.tag_files([sounds[2]])
    assert tags.novelty is None
    with pytest.raises(
        TaggingError, match="An ONNX file gives scores alone. Pass --model_name_or_path with the folder"
    ):
        list(tagger.tag_files([sounds[2]], none_of_these="on"))


def test_what_a_run_goes_on_with_has_the_same_known_clips(checkpoint, tagger, tmp_path):
    other = shutil.copytree(checkpoint, tmp_path / "other")
    assert model_digest(AudioTagger.from_pretrained(other, "cpu")) == model_digest(tagger)
    KnownClips(tagger.known_clips.vectors, 2, 0.9).save(other)
    assert model_digest(AudioTagger.from_pretrained(other, "cpu")) != model_digest(tagger)


def test_a_model_is_the_same_with_another_version_of_transformers(checkpoint, tagger, monkeypatch):
    monkeypatch.setattr("transformers.configuration_utils.__version__", "99.0.0")
    monkeypatch.setattr("transformers.feature_extraction_utils.__version__", "99.0.0", raising=False)
    assert "99.0.0" in str(tagger.config.to_dict())
    before = model_digest(tagger)
    monkeypatch.undo()
    assert model_digest(tagger) == before


def tagged(checkpoint, capsys, *words):
    assert main([*map(str, words), "--model_name_or_path", str(checkpoint), "--device", "cpu"]) == 0
    return capsys.readouterr().out


def test_text_says_it_of_a_file(checkpoint, sounds, capsys):
    lines = tagged(checkpoint, capsys, sounds[0][0], sounds[2], "--top_k", 1).splitlines()
    assert len(lines) == 5
    assert lines[3].startswith(f"  {NONE_OF_THESE}: distance ")
    assert ", threshold " in lines[3]
    assert NONE_OF_THESE not in tagged(checkpoint, capsys, sounds[2], "--none_of_these", "off")
    assert NONE_OF_THESE not in tagged(checkpoint, capsys, sounds[2], "--none_of_these", "2")


def test_tables_have_the_distance_in_columns(checkpoint, sounds, capsys, tmp_path):
    rows = list(csv.DictReader(tagged(checkpoint, capsys, sounds[0][0], sounds[2], "--format", "csv").splitlines()))
    assert list(rows[0]) == ["file", "label", "score", "distance", "none_of_these"]
    assert [row["none_of_these"] for row in rows] == ["no"] * 3 + ["yes"] * 3
    tagged(checkpoint, capsys, sounds[0][0], sounds[2], "--format", "parquet", "--output", tmp_path / "tags.parquet")
    table = pandas.read_parquet(tmp_path / "tags.parquet")
    assert table["none_of_these"].tolist() == [False] * 3 + [True] * 3
    assert table["none_of_these"].dtype == bool
    np.testing.assert_allclose(table["distance"], [float(row["distance"]) for row in rows], atol=1e-6)
    without = tagged(checkpoint, capsys, sounds[2], "--format", "csv", "--none_of_these", "off")
    assert without.splitlines()[0] == "file,label,score"
    silent = write(tmp_path / "silent.wav", np.zeros(WINDOW, np.float32))
    assert len(tagged(checkpoint, capsys, silent, "--format", "csv").splitlines()) == 1


def test_json_has_the_distance_and_the_threshold(checkpoint, tagger, sounds, capsys):
    found = [
        json.loads(line)
        for line in tagged(checkpoint, capsys, *sounds[0], sounds[2], "--format", "jsonl").splitlines()
    ]
    assert [row["none_of_these"] for row in found] == [False] * 6 + [True]
    assert found[-1]["distance"] > found[-1]["distance_threshold"] == tagger.known_clips.threshold


def test_time_lines_have_it_among_the_segments(checkpoint, sounds, capsys):
    long = (sounds[1], "--timeline", "--format")
    (row,) = map(json.loads, tagged(checkpoint, capsys, *long, "jsonl").splitlines())
    (segment,) = (each for each in row["segments"] if each["label"] == NONE_OF_THESE)
    rows = list(csv.DictReader(tagged(checkpoint, capsys, *long, "csv").splitlines()))
    assert list(rows[0]) == ["file", "start", "end", "label", "score"]
    (of_csv,) = (each for each in rows if each["label"] == NONE_OF_THESE)
    assert float(of_csv["score"]) == pytest.approx(segment["score"], abs=1e-6)
    track = tagged(checkpoint, capsys, *long, "audacity").splitlines()
    assert [line.split("\t")[2] for line in track].count(NONE_OF_THESE) == 1
    table = tagged(checkpoint, capsys, *long, "raven").splitlines()
    columns = table[0].split("\t")
    (of_raven,) = (
        cells
        for line in table[1:]
        if NONE_OF_THESE in (cells := dict(zip(columns, line.split("\t"), strict=True))).values()
    )
    assert float(of_raven["Begin Time (s)"]) == pytest.approx(segment["start"], abs=1e-6)
    assert f'name = "{NONE_OF_THESE}"' in tagged(checkpoint, capsys, *long, "textgrid")
    assert f"  {NONE_OF_THESE}\n" in tagged(checkpoint, capsys, *long, "text")


def test_each_channel_is_told_by_itself(checkpoint, sounds, capsys, tmp_path):
    channels = np.stack([soundfile.read(path, dtype="float32")[0] for path in (sounds[0][0], sounds[2])], axis=1)
    stereo = write(tmp_path / "stereo.wav", channels)
    lines = tagged(checkpoint, capsys, stereo, "--channels", "each", "--format", "csv", "--top_k", 1).splitlines()
    assert [row["none_of_these"] for row in csv.DictReader(lines)] == ["no", "yes"]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--none_of_these", "3"], "'3' is neither on nor off nor a distance from 0 to 2"),
        (["--none_of_these", "on", "--review", "new"], "is about results, and --review writes clips"),
    ],
)
def test_flags_that_cannot_be_obeyed_are_refused(checkpoint, sounds, capsys, flags, words):
    with pytest.raises(SystemExit, match="2"):
        main([str(sounds[2]), "--model_name_or_path", str(checkpoint), *flags])
    assert words in capsys.readouterr().err


def test_a_review_has_no_clips_of_it(checkpoint, sounds, tmp_path, capsys):
    tagged(checkpoint, capsys, sounds[1], "--review", tmp_path / "review")
    assert NONE_OF_THESE not in (tmp_path / "review" / "metadata.csv").read_text()


def test_what_a_model_of_the_hub_keeps_is_found_in_the_cache_without_a_network(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    snapshot = tmp_path / "models--user--model" / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    (tmp_path / "models--user--model" / "refs").mkdir()
    (tmp_path / "models--user--model" / "refs" / "main").write_text("a" * 40)
    assert load_known_clips("user/model", HIDDEN) is None
    assert load_known_clips("user/other", HIDDEN) is None
    KnownClips(np.eye(HIDDEN), 1, 0.5).save(snapshot)
    assert load_known_clips("user/model", HIDDEN).threshold == 0.5

"""Time lines of a frame head: PyTorch's logits of each window, put together and read by NumPy, beside what is tagged."""

import csv
import json
import logging
import shutil

import numpy as np
import pytest
import torch
from tagged_models import LABELS, MAX_LENGTH, WINDOW, as_vector, noise, windows_of, write

from modeling_ast import ASTConfig, ASTFeatureExtractor, ASTForAudioFrameClassification
from modeling_ast.audio import AudioError
from modeling_ast.run_tagging import main
from modeling_ast.tagging import AudioTagger, EnsembleTagger, TaggingError

COLUMN = 1600  # samples of 100 ms
FIRST = 600  # samples from a window's beginning to the 100 ms around the middle of its first column
HOP = 4 * COLUMN  # half a window of 9 columns, in whole ones
SAMPLES = 5 * WINDOW + 7_777


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A checkpoint whose scores spread between 0 and 1 from frame to frame."""
    torch.manual_seed(1)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    model = ASTForAudioFrameClassification(
        ASTConfig(**sizes, max_length=MAX_LENGTH, id2label=dict(enumerate(LABELS)))
    ).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    extractor = ASTFeatureExtractor(max_length=MAX_LENGTH)
    features = extractor(np.split(noise(8 * WINDOW, seed=2), 8), sampling_rate=16_000, return_tensors="pt")
    with torch.no_grad():
        logits = model(**features).logits.flatten(0, 1)
        head = model.frame_classifier.dense
        head.weight *= 3 / logits.std(dim=0)[:, None]
        head.bias.copy_((head.bias - logits.mean(dim=0)) * 3 / logits.std(dim=0))
    model.config.label_thresholds = {LABELS[1]: 0.7}
    path = tmp_path_factory.mktemp("frames")
    model.save_pretrained(path)
    extractor.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def tagger(folder):
    return AudioTagger.from_pretrained(folder, device="cpu", frame_heads=True)


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    return write(tmp_path_factory.mktemp("sound") / "long.wav", noise(SAMPLES, seed=4))


def starts_of(samples: int, hop: int = HOP) -> list[int]:
    """Windows side by side or overlapping, and a last one that begins on a column and ends with the recording."""
    last = -(-(samples - WINDOW) // COLUMN) * COLUMN
    return [*range(0, samples - WINDOW, hop), last]


def scores_of(folder, path, hop: int = HOP) -> np.ndarray:
    """The mean of the windows over each 100 ms of a recording: a row for each."""
    model = ASTForAudioFrameClassification.from_pretrained(folder).eval()
    extractor = ASTFeatureExtractor.from_pretrained(folder)
    starts = starts_of(SAMPLES, hop)
    found: dict[int, list[np.ndarray]] = {}
    for start, window in zip(starts, windows_of(path, starts), strict=True):
        with torch.no_grad():
            logits = model(**extractor(window, sampling_rate=16_000, return_tensors="pt")).logits[0].double().numpy()
        frames = (len(window) - 400) // 160 + 1
        for column in range((frames - 16) // 10 + 1):
            found.setdefault(start // COLUMN + column, []).append(1 / (1 + np.exp(-logits[column])))
    assert sorted(found) == list(range(len(found)))
    return np.stack([np.mean(found[place], axis=0) for place in range(len(found))])


def edges_of(places: int) -> np.ndarray:
    edges = (FIRST + COLUMN * np.arange(places + 1)) / 16_000
    edges[0], edges[-1] = 0, SAMPLES / 16_000
    return edges


def segments_of(scores, on, off=None, gap=None, least=0.0) -> list[tuple]:
    """Events by a walk along each label, written anew: two thresholds, then gaps, then lengths."""
    edges, found = edges_of(len(scores)), []
    for label, threshold in zip(range(3), on, strict=True):
        runs, begun = [], None
        for place, score in enumerate([*scores[:, label], -1]):
            if begun is not None and score < threshold and (off is None or score < off):
                runs.append([begun, place])
                begun = None
            elif begun is None and score >= threshold:
                begun = place
        joined = []
        for run in runs:
            if gap is not None and joined and edges[run[0]] - edges[joined[-1][1]] <= gap + 1e-9:
                joined[-1][1] = run[1]
            else:
                joined.append(run)
        for first, after in joined:
            if edges[after] - edges[first] >= least:
                mean = np.average(scores[first:after, label], weights=np.diff(edges[first : after + 1]))
                found.append((edges[first], edges[after], LABELS[label], mean))
    return sorted(found)


def assert_same(segments, expected):
    assert [segment.label for segment in segments] == [row[2] for row in expected]
    found = [(segment.start, segment.end, segment.score) for segment in segments]
    np.testing.assert_allclose(found, [(row[0], row[1], row[3]) for row in expected], atol=2e-5)


def test_a_time_line_is_the_mean_of_the_windows_over_each_frame(tagger, folder, recording):
    (tags,) = tagger.tag_files([recording], top_k=3, timeline=True)
    scores = scores_of(folder, recording)
    assert len(tags.segments) > 20
    assert_same(
        sorted(tags.segments, key=lambda each: (each.start, each.end, each.label)),
        segments_of(scores, (0.5, 0.7, 0.5)),
    )
    expected = np.average(scores, axis=0, weights=np.diff(edges_of(len(scores))))
    np.testing.assert_allclose(as_vector(tags.labels), expected, atol=1e-5)


def test_median_two_thresholds_gaps_and_lengths(tagger, folder, recording):
    scores = scores_of(folder, recording, hop=2 * COLUMN)
    padded = np.pad(scores, ((1, 1), (0, 0)), mode="edge")
    median = np.median([padded[:-2], padded[1:-1], padded[2:]], axis=0)
    settings = {"threshold": 0.6, "off": 0.4, "close_gaps": 0.2, "min_duration": 0.25, "median_filter": 0.3}
    (tags,) = tagger.tag_files([recording], timeline=True, hop=0.2, **settings)
    expected = segments_of(median, (0.6,) * 3, off=0.4, gap=0.2, least=0.25)
    assert expected not in ([], segments_of(scores, (0.6,) * 3, off=0.4, gap=0.2, least=0.25))
    assert_same(sorted(tags.segments, key=lambda each: (each.start, each.end, each.label)), expected)


EVENT_RULES = {
    LABELS[0]: {"on": 0.6, "off": 0.4, "close_gaps": 0.2, "median_filter": 0.3},
    LABELS[2]: {"on": 0.8, "min_duration": 0.25},
}


def test_the_checkpoint_says_for_each_label_what_makes_its_events(folder, tmp_path, recording):
    own = tmp_path / "own"
    shutil.copytree(folder, own)
    config = json.loads((own / "config.json").read_text())
    (own / "config.json").write_text(json.dumps(config | {"event_rules": EVENT_RULES}))
    tagger = AudioTagger.from_pretrained(own, device="cpu", frame_heads=True)
    scores = scores_of(folder, recording)
    padded = np.pad(scores, ((1, 1), (0, 0)), mode="edge")
    median = np.median([padded[:-2], padded[1:-1], padded[2:]], axis=0)
    of_labels = [
        segments_of(median, (0.6,) * 3, off=0.4, gap=0.2),
        segments_of(scores, (0.7,) * 3),  # its threshold
        segments_of(scores, (0.8,) * 3, least=0.25),
    ]
    expected = sorted(row for label, rows in zip(LABELS, of_labels, strict=True) for row in rows if row[2] == label)
    (tags,) = tagger.tag_files([recording], timeline=True)
    assert_same(sorted(tags.segments, key=lambda each: (each.start, each.end, each.label)), expected)
    # What a user gives counts for all labels, in place of what the checkpoint has for the same.
    (given,) = tagger.tag_files([recording], timeline=True, threshold=0.5, median_filter=0.1)
    by_flags = [
        segments_of(scores, (0.5,) * 3, gap=0.2),
        segments_of(scores, (0.5,) * 3),
        segments_of(scores, (0.5,) * 3, least=0.25),
    ]
    expected = sorted(row for label, rows in zip(LABELS, by_flags, strict=True) for row in rows if row[2] == label)
    assert_same(sorted(given.segments, key=lambda each: (each.start, each.end, each.label)), expected)
    (track,) = tagger.score_tracks([recording])
    np.testing.assert_allclose(np.concatenate([means for _, means in track.places]), scores, atol=1e-5)
    assert track.seconds == SAMPLES / 16_000
    with pytest.raises(AudioError, match=r"gone\.wav"):
        list(tagger.score_tracks([tmp_path / "gone.wav"]))


@pytest.mark.parametrize("reduction", ["mean", "max", "share"])
def test_labels_of_a_file_are_of_its_frames(tagger, folder, recording, reduction):
    (tags,) = tagger.tag_files([recording], top_k=3, reduction=reduction)
    scores = scores_of(folder, recording, hop=9 * COLUMN)  # each column once, but where the last window overlaps
    lengths = np.diff(edges_of(len(scores)))
    expected = {
        "mean": np.average(scores, axis=0, weights=lengths),
        "max": scores.max(axis=0),
        "share": lengths @ (scores >= [0.5, 0.7, 0.5]) / lengths.sum(),
    }
    np.testing.assert_allclose(as_vector(tags.labels), expected[reduction], atol=1e-5)


def test_a_stream_finds_what_the_file_gives_and_tells_windows(tagger, recording):
    (of_file,) = tagger.tag_files([recording], top_k=3, timeline=True)
    heard = []
    chunks = np.array_split(noise(SAMPLES, seed=4), 61)
    tags = tagger.tag_stream(chunks, 16_000, on_window=heard.append, top_k=3, timeline=True)
    assert [segment.label for segment in tags.segments] == [segment.label for segment in of_file.segments]
    np.testing.assert_allclose(
        [(each.start, each.end, each.score) for each in tags.segments],
        [(each.start, each.end, each.score) for each in of_file.segments],
        atol=1e-5,
    )
    assert [round(window.start * 16_000) for window in heard] == starts_of(SAMPLES)
    assert all(window.labels for window in heard)


def test_silence_splits_the_time_line_and_short_files_have_one_frame(tagger, tmp_path):
    sound = noise(6 * WINDOW, seed=3)
    sound[2 * WINDOW : 4 * WINDOW] = 0
    (tags,) = tagger.tag_files([write(tmp_path / "gap.wav", sound)], timeline=True, threshold=0.0001)
    assert any("windows are silent" in note.text or "are silent" in note.text for note in tags.notes)
    of_label = [(each.start, each.end) for each in tags.segments if each.label == LABELS[0]]
    assert len(of_label) >= 2
    assert all(end <= 3.2 * WINDOW / 16_000 or start >= 2.8 * WINDOW / 16_000 for start, end in of_label)
    # Nothing is heard in a window that is silent, whatever another that reaches into the silence says of it.
    (tags,) = tagger.tag_files([tmp_path / "gap.wav"], timeline=True, hop=0.1, threshold=0.0)
    gap = (2 * WINDOW / 16_000, 4 * WINDOW / 16_000)
    assert all(
        end <= gap[0] + 0.15 or start >= gap[1] - 0.15
        for start, end in ((each.start, each.end) for each in tags.segments if each.label == LABELS[0])
    )
    (short,) = tagger.tag_files([write(tmp_path / "short.wav", noise(800))], timeline=True, threshold=0.0001)
    assert {(each.start, each.end) for each in short.segments} == {(0.0, 0.05)}


@pytest.mark.parametrize("sounding", [200, 500, 800, 1_600])
def test_sound_at_the_end_of_silence_is_heard(tagger, tmp_path, sounding):
    sound = np.zeros(WINDOW + 1_500, np.float32)
    sound[-sounding:] = noise(sounding)
    (tags,) = tagger.tag_files([write(tmp_path / "end.wav", sound)], timeline=True, threshold=0.0)
    assert tags.labels
    assert max(segment.end for segment in tags.segments) == len(sound) / 16_000


def test_vectors_come_with_the_same_scores(tagger, recording):
    (plain,) = tagger.tag_files([recording], top_k=3, timeline=True)
    (with_vectors,) = tagger.tag_files([recording], top_k=3, timeline=True, embeddings="second")
    np.testing.assert_allclose(as_vector(with_vectors.labels), as_vector(plain.labels), atol=1e-5)
    assert len(with_vectors.embeddings.vectors) == -(-SAMPLES // 16_000)


def test_what_says_nothing_of_frames_is_refused_and_the_reverse(tagger, folder, multi_label, clips):
    with pytest.raises(TaggingError, match="segments='hop' is about where in a window"):
        tagger.tag_files([], timeline=True, segments="hop")
    with pytest.raises(TaggingError, match="median_filter=0 is no time"):
        tagger.tag_files([], timeline=True, median_filter=0)
    with pytest.raises(TaggingError, match=r"shorter than a frame of this model, which is 0.1 s"):
        tagger.tag_files([], window=0.08)
    with pytest.raises(TaggingError, match="has a frame head, whose scores are of frames"):
        EnsembleTagger.from_pretrained([folder, multi_label], frame_heads=True)


def test_times_are_rounded_to_frames_of_100_ms_and_said(tagger, recording, caplog):
    with caplog.at_level(logging.WARNING):
        tagger.tag_files([], timeline=True, hop=0.27, median_filter=0.4)
    assert "--hop 0.27 is rounded to 0.3 s, which is a whole number of the 100 ms" in caplog.text
    assert "which is an odd number of the 100 ms that this model has scores of" in caplog.text


def test_the_command_writes_all_formats(folder, recording, tmp_path, capsys):
    common = [
        str(recording),
        "--model_name_or_path",
        str(folder),
        "--device",
        "cpu",
        "--timeline",
        "--median_filter",
        "0.3",
    ]
    assert main([*common, "--format", "jsonl"]) == 0
    segments = json.loads(capsys.readouterr().out)["segments"]
    assert main([*common, "--format", "csv", "--output", str(tmp_path / "tags.csv")]) == 0
    with open(tmp_path / "tags.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["label"] for row in rows] == [segment["label"] for segment in segments]
    assert main([*common, "--format", "audacity", "--output", str(tmp_path / "tags.txt")]) == 0
    lines = (tmp_path / "tags.txt").read_text().splitlines()
    assert [float(line.split("\t")[0]) for line in lines if not line.startswith("\\")] == pytest.approx(
        [segment["start"] for segment in segments], abs=1e-3
    )
    with pytest.raises(SystemExit):
        main([*common[:-3], "--median_filter", "0.3"])
    assert "--median_filter is about segments. Add --timeline" in capsys.readouterr().err

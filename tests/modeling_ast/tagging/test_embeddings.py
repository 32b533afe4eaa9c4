"""Vectors of files, windows and seconds, against calls of the model itself, and the files that they are written to."""

import csv
import os

import numpy as np
import pandas
import pytest
import soundfile
import torch
from tagged_models import WINDOW, noise, windows_of

from modeling_ast import ASTFeatureExtractor, ASTForAudioClassification, ASTModel, run_tagging
from modeling_ast.tagging.embedding_files import EmbeddingsFile
from modeling_ast.tagging.tagger import AudioTagger, TaggingError

TOLERANCE = 1e-5  # float32 through two layers, in batches of other sizes
STARTS = [0, WINDOW, 2 * WINDOW, 51_800 - WINDOW]  # of the windows of clips[2], side by side


@pytest.fixture(scope="module")
def tagger(multi_label):
    return AudioTagger.from_pretrained(multi_label, "cpu")


@pytest.fixture(scope="module")
def direct(multi_label):
    """The transformer alone on one window: last hidden state, and the mean of the class tokens."""
    model = ASTModel.from_pretrained(multi_label).eval()
    extractor = ASTFeatureExtractor.from_pretrained(multi_label)

    def call(window):
        with torch.no_grad():
            outputs = model(**extractor(window, sampling_rate=16_000, return_tensors="pt"))
        return outputs.last_hidden_state[0].numpy(), outputs.pooler_output[0].numpy()

    return call


def embeddings(tagger, files, kind, **options):
    results = list(tagger.tag_files(files, embeddings=kind, **options))
    assert all(result.error is None for result in results)
    return [result.embeddings for result in results]


def test_windows_and_files_have_the_means_of_the_class_tokens(tagger, direct, clips):
    tokens = np.stack([direct(window)[0][:2].mean(axis=0) for window in windows_of(clips[2], STARTS)])
    pooled = np.stack([direct(window)[1] for window in windows_of(clips[2], STARTS)])
    (found,) = embeddings(tagger, clips[2:3], "window")
    np.testing.assert_allclose(found.vectors, tokens, atol=TOLERANCE)
    np.testing.assert_allclose(found.vectors, pooled, atol=TOLERANCE)
    assert found.vectors.dtype == np.float32
    np.testing.assert_allclose(found.times, [[start / 16_000, (start + WINDOW) / 16_000] for start in STARTS])
    (found,) = embeddings(tagger, clips[2:3], "file")
    np.testing.assert_allclose(found.vectors, pooled.mean(axis=0, keepdims=True), atol=TOLERANCE)
    np.testing.assert_allclose(found.times, [[0, 51_800 / 16_000]])


@pytest.mark.parametrize("hop", [None, 0.3])
def test_seconds_have_the_means_of_the_patches_in_them(tagger, direct, clips, hop):
    """Patches of 16 x 16, a new one every 10 frames of 160 samples: 12 rows of 8 columns behind two class tokens."""
    starts = STARTS if hop is None else [*range(0, 51_800 - WINDOW, 4_800), 51_800 - WINDOW]
    options = {} if hop is None else {"timeline": True, "hop": hop}
    in_second = {}
    for start, window in zip(starts, windows_of(clips[2], starts), strict=True):
        grid = direct(window)[0][2:].reshape(12, 9, -1)
        for column in range(9):
            middle = start + (10 * column + 8) * 160
            in_second.setdefault(middle // 16_000, []).extend(grid[:, column])
    (found,) = embeddings(tagger, clips[2:3], "second", **options)
    expected = np.stack([np.mean(in_second[second], axis=0) for second in range(4)])
    np.testing.assert_allclose(found.vectors, expected, atol=TOLERANCE)
    assert found.times.tolist() == [[0, 1], [1, 2], [2, 3], [3, 51_800 / 16_000]]


def test_padding_is_in_no_second(tagger, direct, clips):
    """Half a second, padded to a window: 5 columns have their middle before its end."""
    (found,) = embeddings(tagger, clips[:1], "second")
    grid = direct(windows_of(clips[0], [0])[0])[0][2:].reshape(12, 9, -1)
    np.testing.assert_allclose(found.vectors, grid[:, :5].mean(axis=(0, 1))[None], atol=TOLERANCE)
    assert found.times.tolist() == [[0, 0.5]]


def test_patches_that_are_masked_are_in_no_second(multi_label, clips):
    """Padded only to the longest of a batch, a patch counts whose 16 frames are all there: 4 columns of 48 frames."""
    extractor = ASTFeatureExtractor.from_pretrained(multi_label, padding="longest")
    tagger = AudioTagger(ASTForAudioClassification.from_pretrained(multi_label), extractor, "cpu")
    found, _ = embeddings(tagger, clips[:2], "second")
    inputs = extractor(soundfile.read(clips[0], dtype="float32")[0], sampling_rate=16_000, return_tensors="pt")
    with torch.no_grad():
        tokens = ASTModel.from_pretrained(multi_label).eval()(**inputs).last_hidden_state[0]
    assert tokens.shape[0] == 2 + 12 * 4
    np.testing.assert_allclose(found.vectors, tokens[2:].mean(dim=0)[None], atol=TOLERANCE)


@pytest.mark.parametrize("kind", ["window", "second"])
def test_silence_has_no_vector(tagger, tmp_path, kind):
    waveform = np.concatenate([noise(WINDOW), np.zeros(4 * WINDOW, np.float32), noise(WINDOW, 1)])
    soundfile.write(tmp_path / "a.wav", waveform, 16_000, subtype="FLOAT")
    (found,) = embeddings(tagger, [tmp_path / "a.wav"], kind)
    last = [5 * WINDOW / 16_000, 6 * WINDOW / 16_000]
    expected = [[0, WINDOW / 16_000], last] if kind == "window" else [[0, 1], [4, 5], [5, last[1]]]
    assert found.times.tolist() == expected
    assert np.isfinite(found.vectors).all()


def test_a_recording_shorter_than_half_a_patch_has_a_vector(tagger, tmp_path):
    soundfile.write(tmp_path / "brief.wav", np.tile([0.5, -0.5], 400), 16_000)
    (found,) = embeddings(tagger, [tmp_path / "brief.wav"], "second")
    assert found.vectors.shape == (1, 32)
    assert found.times.tolist() == [[0, 0.05]]


def test_scores_and_vectors_are_of_each_file_alone(tagger, clips, tmp_path):
    (tmp_path / "broken.wav").write_bytes(b"")
    files = [*clips, tmp_path / "broken.wav", clips[0]]
    results = list(tagger.tag_files(files, embeddings="window", batch_size=3))
    plain = list(tagger.tag_files(files, batch_size=3))
    for result, of_plain in zip(results, plain, strict=True):  # whose last layer computes the class tokens alone
        assert [tag.label for tag in result.labels] == [tag.label for tag in of_plain.labels]
        scores = [tag.score for tag in of_plain.labels]
        np.testing.assert_allclose([tag.score for tag in result.labels], scores, atol=TOLERANCE)
    assert results[4].embeddings is None is plain[0].embeddings
    for file, result in zip(files, results, strict=True):
        if result.error is None:
            (alone,) = embeddings(tagger, [file], "window")
            np.testing.assert_allclose(result.embeddings.vectors, alone.vectors, atol=TOLERANCE)


def test_where_a_batch_fails_files_keep_their_vectors(tagger, clips, monkeypatch):
    score, calls = AudioTagger._score, []

    def fails_once(self, windows, **settings):
        calls.append(len(windows))
        if len(calls) == 1:
            raise RuntimeError("not enough memory")
        return score(self, windows, **settings)

    expected = embeddings(tagger, clips, "file")
    monkeypatch.setattr(AudioTagger, "_score", fails_once)
    found = embeddings(tagger, clips, "file")
    assert len(calls) == 5
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one.vectors, other.vectors, atol=TOLERANCE)


def test_unknown_kind_is_refused(tagger, clips):
    with pytest.raises(TaggingError, match="embeddings='clip' is none of file, window, second"):
        tagger.tag_files(clips, embeddings="clip")


def command(model, clips, kind, path, *flags):
    words = (
        *clips,
        "--model_name_or_path",
        model,
        "--device",
        "cpu",
        "--embeddings",
        kind,
        "--embeddings_output",
        path,
    )
    return run_tagging.main([str(word) for word in (*words, *flags)])


def test_the_files_hold_the_vectors(tagger, multi_label, clips, tmp_path, capsys):
    expected = embeddings(tagger, clips, "second")
    assert command(multi_label, clips, "second", tmp_path / "seconds.npy") == 0
    vectors = np.load(tmp_path / "seconds.npy")
    assert vectors.dtype == np.float32
    assert np.array_equal(vectors, np.concatenate([of_file.vectors for of_file in expected]))
    rows = list(csv.DictReader((tmp_path / "seconds.npy.csv").open(newline="")))
    times = np.concatenate([of_file.times for of_file in expected])
    names = [str(clip) for clip, of_file in zip(clips, expected, strict=True) for _ in of_file.times]
    assert [row["file"] for row in rows] == names
    np.testing.assert_allclose([[float(row["start"]), float(row["end"])] for row in rows], times, atol=1e-6)

    tags = tmp_path / "tags.csv"
    assert command(multi_label, clips, "second", tmp_path / "seconds.parquet", "--output", tags) == 0
    table = pandas.read_parquet(tmp_path / "seconds.parquet")
    assert [*table.columns] == ["file", "start", "end", "embedding"]
    assert np.array_equal(np.stack(table["embedding"]), vectors)
    assert [*table["file"]] == names
    assert np.array_equal(table[["start", "end"]], times)
    assert sorted(os.listdir(tmp_path)) == ["seconds.npy", "seconds.npy.csv", "seconds.parquet", "tags.csv"]


def test_an_interrupted_run_keeps_its_vectors(multi_label, clips, tmp_path, monkeypatch, capsys):
    flags = ("--batch_size", 2, "--output", tmp_path / "tags")
    command(multi_label, clips, "window", tmp_path / "whole.npy", "--batch_size", 2, "--output", tmp_path / "other")
    tag_files = AudioTagger.tag_files

    groups = []

    def interrupted(self, files, *arguments, **settings):
        groups.extend([files] if files else [])
        if len(groups) == 2:
            raise KeyboardInterrupt
        return tag_files(self, files, *arguments, **settings)

    with monkeypatch.context() as patch:
        patch.setattr(AudioTagger, "tag_files", interrupted)
        assert command(multi_label, clips, "window", tmp_path / "tags.npy", *flags) == 130
    assert not (tmp_path / "tags.npy").exists()
    assert not (tmp_path / "tags.npy.csv").exists()
    assert command(multi_label, clips, "window", tmp_path / "tags.npy", *flags) == 0
    assert "2 of 4 files were tagged already" in capsys.readouterr().out
    assert (tmp_path / "tags.npy").read_bytes() == (tmp_path / "whole.npy").read_bytes()
    assert (tmp_path / "tags.npy.csv").read_bytes() == (tmp_path / "whole.npy.csv").read_bytes()


@pytest.mark.parametrize(("suffix", "step"), [(".npy", "_write_head"), (".parquet", "_write_rows")])
def test_a_disk_that_is_full_at_the_end_leaves_nothing(tmp_path, monkeypatch, suffix, step):
    file = EmbeddingsFile(tmp_path / f"a{suffix}", 2)

    def full(self):
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"), file:
        monkeypatch.setattr(EmbeddingsFile, step, full)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--embeddings", "file"], "--embeddings alone gives nothing. Add --embeddings_output with a path"),
        (["--embeddings_output", "a.npy"], "--embeddings_output alone gives nothing. Add --embeddings file|window|second"),
        (["--embeddings", "file", "--embeddings_output", "a.npz"], "a.npz ends in neither .npy nor .parquet. Name it so."),
        (["--embeddings", "file", "--embeddings_output", "none/a.npy"], "none/a.npy: there is no folder none."),
        (["--embeddings", "file", "--embeddings_output", "a.npy", "--output", "a.npy"], "a.npy is the --output itself."),
    ],
)  # fmt: skip
def test_flags_without_effect_are_refused(multi_label, clips, capsys, flags, words):
    with pytest.raises(SystemExit) as ended:
        run_tagging.main([str(clips[0]), "--model_name_or_path", str(multi_label), *flags])
    assert ended.value.code == 2
    assert words in capsys.readouterr().err

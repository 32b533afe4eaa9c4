"""What is found in a folder, against scikit-learn's exact search, with and without an index."""

import shutil
import sys

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from modeling_ast import run_embedding, run_similar
from modeling_ast.similar import index as index_module
from modeling_ast.similar import nearest as nearest_module
from modeling_ast.similar.index import INDEX, IndexMissingError, build_index, open_index
from modeling_ast.similar.library import Description, Library, LibraryError, LibraryWriter
from modeling_ast.similar.nearest import nearest
from modeling_ast.tagging.embeddings import FileEmbeddings


def vectors_of(number, hidden=24, seed=0):
    """Of forty sounds, each of its own length."""
    draw = np.random.default_rng(seed)
    base = np.random.default_rng(9).normal(size=(40, hidden))
    vectors = base[np.arange(number) % 40] + draw.normal(size=(number, hidden)) / 3
    return (vectors * draw.uniform(0.5, 2, size=(number, 1))).astype(np.float32)


def add(folder, vectors, name="a.wav", dtype="float32"):
    times = np.stack([np.arange(len(vectors)), np.arange(len(vectors)) + 1], axis=1).astype(float)
    with LibraryWriter(folder, Description("model", "", vectors.shape[1], dtype=dtype)) as library:
        library.add([name, 1, 1], FileEmbeddings(vectors, times))
    return Library(folder)


def expected(vectors, queries, top):
    search = NearestNeighbors(n_neighbors=top, metric="cosine", algorithm="brute").fit(vectors)
    distances, rows = search.kneighbors(queries)
    return rows, 1 - distances


def recall(found, wanted):
    return np.mean([len(set(a) & set(b)) / len(b) for a, b in zip(found, wanted, strict=True)])


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("at_once", [64, 500, 16_384])
def test_all_vectors_are_compared(tmp_path, monkeypatch, dtype, at_once):
    monkeypatch.setattr(nearest_module, "AT_ONCE", at_once)
    vectors, queries = vectors_of(1_000), vectors_of(30, seed=1)
    library = add(tmp_path, vectors, dtype=dtype)
    rows, scores = nearest(library, queries, 10)
    wanted, similarities = expected(vectors.astype(dtype).astype(np.float32), queries, 10)
    assert np.array_equal(rows, wanted)
    np.testing.assert_allclose(scores, similarities, atol=1e-5)
    assert scores.dtype == np.float32


def test_a_small_folder_gives_all_it_has(tmp_path):
    library = add(tmp_path, vectors_of(3))
    rows, scores = nearest(library, vectors_of(2, seed=1), 10)
    assert sorted(rows[0]) == [0, 1, 2]
    assert (np.diff(scores) <= 0).all()


def test_an_index_finds_the_same_and_what_was_added_since(tmp_path):
    pytest.importorskip("faiss")
    vectors, queries = vectors_of(3_000), vectors_of(50, seed=1)
    library = add(tmp_path, vectors[:2_000])
    build_index(library, lambda _: None)
    library = add(tmp_path, vectors[2_000:], "b.wav")
    index = open_index(library)
    assert index.ntotal == 2_000
    rows, scores = nearest(library, queries, 10, index)
    wanted, similarities = expected(vectors, queries, 10)
    assert recall(rows, wanted) >= 0.98
    same = rows == wanted
    np.testing.assert_allclose(scores[same], similarities[same], atol=1e-5)  # not those of the index, of float16
    assert {row for row in wanted.ravel() if row >= 2_000} <= set(rows.ravel())
    build_index(library, lambda _: None)
    assert open_index(library).ntotal == 3_000
    assert recall(nearest(library, queries, 10, open_index(library))[0], wanted) >= 0.98
    assert [path.name for path in tmp_path.glob("*tmp*")] == []


@pytest.mark.parametrize("number", [1, 50])
def test_as_many_are_found_as_are_wanted_where_lists_are_short(tmp_path, monkeypatch, number):
    """In the three lists of 50 that are read at first there are about 120 vectors: for some queries enough, for some too few."""
    pytest.importorskip("faiss")
    monkeypatch.setattr(index_module, "PROBES", 1)
    vectors, queries = vectors_of(2_000), vectors_of(50, seed=1)
    library = add(tmp_path, vectors)
    build_index(library, lambda _: None)
    index = open_index(library)
    index.nprobe = 3
    found = (index.search(queries / np.linalg.norm(queries, axis=1, keepdims=True), 100)[1] >= 0).sum(axis=1)
    assert found.min() < 100 == found.max()
    queries = queries[[found.argmin()]] if number == 1 else queries
    for top, wanted in ((100, 100), (5_000, 2_000)):
        rows, scores = nearest(library, queries, top, index)
        assert rows.shape == scores.shape == (number, wanted)
        assert all(len(set(row)) == wanted for row in rows.tolist())
        assert (np.diff(scores) <= 0).all()
    assert np.array_equal(np.sort(rows), np.broadcast_to(np.arange(2_000), rows.shape))


def test_a_foreign_index_is_refused(tmp_path):
    pytest.importorskip("faiss")
    few = add(tmp_path / "few", vectors_of(10))
    for name, number, hidden in (("many", 50, 24), ("wide", 5, 32)):
        build_index(add(tmp_path / name, vectors_of(number, hidden)), lambda _: None)
        (few.folder / INDEX).write_bytes((tmp_path / name / INDEX).read_bytes())
        with pytest.raises(
            LibraryError, match="is damaged or of other vectors. Remove it, and type: ast-embed --output"
        ):
            open_index(few)
    (few.folder / INDEX).write_bytes(b"no index")
    with pytest.raises(LibraryError, match="is damaged or of other vectors"):
        open_index(few)


def test_commands_keep_and_use_an_index(copied, recordings, embed, monkeypatch, capsys):
    pytest.importorskip("faiss")
    for module in (run_embedding, index_module):
        monkeypatch.setattr(module, "INDEX_FROM", 10)
    words = [str(recordings[0]), "--in", str(copied), "--device", "cpu", "--format", "csv"]
    assert run_similar.main([*words, "--exact"]) == 0
    exact = capsys.readouterr()
    assert run_similar.main(words) == 0
    plain = capsys.readouterr()
    assert f"no index. For faster searches type: ast-embed --output {copied} --index on" in plain.err
    assert run_embedding.main(["--output", str(copied), "--index", "on"]) == 0
    assert f"holds {len(Library(copied))} vectors of 6 files" in capsys.readouterr().out
    (copied / INDEX).unlink()
    assert embed(copied, recordings[0]) == 0
    assert open_index(Library(copied)).ntotal == len(Library(copied))
    capsys.readouterr()
    assert run_similar.main(words) == 0
    indexed = capsys.readouterr()
    assert "no index" not in indexed.err
    assert indexed.out == plain.out == exact.out


def test_an_index_that_was_asked_for_grows_with_its_library(copied, recordings, embed, tmp_path):
    pytest.importorskip("faiss")
    assert run_embedding.main(["--output", str(copied), "--index", "on"]) == 0
    before = open_index(Library(copied)).ntotal
    assert embed(copied, shutil.copy(recordings[2], tmp_path / "another.wav")) == 0
    assert open_index(Library(copied)).ntotal == len(Library(copied)) > before


def test_where_faiss_is_missing_it_is_said_what_to_type(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    library = add(tmp_path, vectors_of(10))
    assert open_index(library) is None
    (tmp_path / INDEX).write_bytes(b"")
    for call in (open_index, build_index):
        with pytest.raises(IndexMissingError, match=r"looked at one by one.*\[search\]"):
            call(library)


@pytest.mark.long
def test_a_million(tmp_path):
    """Recall at 10 of at least 0.98; build and query are timed by benchmarks/similar_sounds.py."""
    pytest.importorskip("faiss")
    from benchmarks.similar_sounds import write_million

    queries = write_million(tmp_path / "million", 1_000_000, "float32")
    library = Library(tmp_path / "million")
    build_index(library)
    wanted = nearest(library, queries, 10)[0]
    found = nearest(library, queries, 10, open_index(library))[0]
    assert recall(found, wanted) >= 0.98

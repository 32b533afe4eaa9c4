"""Batches as Ray Data gives them, and where Ray is installed, a data set that two workers tag, one of which is killed."""

import os
import signal
from pathlib import Path

import fsspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tagged_models import SCORE_TOLERANCE, noise, save_checkpoint, write

from modeling_ast.ray_tagging import TagClips, tag_on_ray
from modeling_ast.tagging.errors import TaggingError
from modeling_ast.tagging.tagger import AudioTagger


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_checkpoint(tmp_path_factory.mktemp("model"), "multi_label_classification")


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    return [str(write(folder / f"{number}.wav", noise(6_000 + 1_000 * number, number))) for number in range(8)]


def expected(model, clips, **settings):
    return list(AudioTagger.from_pretrained(model, "cpu").tag_files(clips, **settings))


def test_a_batch_of_paths_and_one_of_bytes_give_what_the_tagger_gives(model, clips):
    results = expected(model, clips, top_k=2, embeddings="file", timeline=True)
    settings = {"top_k": 2, "embeddings": "file", "timeline": True}
    tag = TagClips(model, "cpu", float16=True, **settings)
    contents = np.array([Path(clip).read_bytes() for clip in clips], dtype=object)
    for batch in ({"path": np.array(clips)}, {"bytes": contents, "number": np.arange(8)}):
        table = tag(batch)
        assert table.schema.field("embeddings").type == pa.list_(pa.list_(pa.float16()))
        columns = table.to_pydict()
        assert columns["labels"] == [[label.label for label in result.labels] for result in results]
        assert columns["scores"] == [[label.score for label in result.labels] for result in results]
        assert columns["error"] == [None] * 8
        assert [len(rows) for rows in columns["segments"]] == [len(result.segments) for result in results]
        vectors = [rows[0] for rows in columns["embeddings"]]
        np.testing.assert_array_equal(
            vectors, np.concatenate([result.embeddings.vectors for result in results]).astype(np.float16)
        )
        assert "bytes" not in columns
    assert columns["number"] == list(range(8))


def test_files_of_other_storages_are_read_and_what_fails_is_told_in_its_row(model, clips, tmp_path):
    with fsspec.open("memory://clips/a.wav", "wb") as file:
        file.write(Path(clips[0]).read_bytes())
    (tmp_path / "bad.wav").write_bytes(b"")
    paths = [
        "memory://clips/none.wav",
        "memory://clips/a.wav",
        str(tmp_path / "bad.wav"),
        "no-storage://a.wav",
        clips[1],
    ]
    columns = TagClips(model, "cpu")({"path": np.array(paths)}).to_pydict()
    (first, second) = expected(model, clips[:2])
    assert columns["path"] == paths
    assert columns["scores"][1] == pytest.approx([label.score for label in first.labels], abs=SCORE_TOLERANCE)
    assert columns["scores"][4] == pytest.approx([label.score for label in second.labels], abs=SCORE_TOLERANCE)
    assert [error is None for error in columns["error"]] == [False, True, False, False, True]
    assert columns["error"][0].startswith("memory://clips/none.wav cannot be read: ")
    assert "is empty (0 bytes)" in columns["error"][2]
    assert "no-storage" in columns["error"][3]
    assert columns["labels"][0] == []


@pytest.mark.parametrize("settings", [{}, {"timeline": True, "embeddings": "window"}])
def test_batches_with_and_without_bad_files_have_one_schema(model, clips, tmp_path, settings):
    tag, kinds = (
        TagClips(model, "cpu", **settings),
        {"good": clips[:2], "bad": ["none.wav"], "both": [clips[0], "none.wav"]},
    )
    for kind, names in kinds.items():
        batch = {"path": np.array(names), "place": np.array([[1.5, 2.5]] * len(names)), "row": np.arange(len(names))}
        pq.write_table(tag(batch), tmp_path / f"{kind}.parquet")
    batch |= {"when": np.array(["2026-11-30"] * 2, "datetime64[s]"), "level": np.float32([1, 2])}
    batch["image"] = np.empty(2, object)
    batch["image"][:] = [np.eye(2), np.eye(3)]
    passed = tag(batch)
    assert passed.schema.field("when").type == pa.timestamp("s")
    assert passed.schema.field("level").type == pa.float32()
    assert passed["image"].to_pylist()[1] == np.eye(3).tolist()
    (schema,) = {str(pq.read_schema(file)) for file in tmp_path.glob("*.parquet")}
    assert "null" not in schema.replace("not null", "")
    rows = pd.read_parquet(tmp_path)
    assert rows["error"].isna().sum() == 3
    assert set(rows["path"]) == {*clips[:2], "none.wav"}


def test_a_batch_without_clips_is_refused(model):
    with pytest.raises(TaggingError, match="has columns file, expected 'path' or 'bytes'. Rename one: rename_columns"):
        TagClips(model, "cpu")({"file": np.array(["a.wav"])})


def test_columns_of_the_data_are_not_lost_under_results(model, clips):
    with pytest.raises(TaggingError, match="has a column labels, where results go. Rename it first"):
        TagClips(model, "cpu")({"path": np.array(clips[:1]), "labels": np.array(["drum"])})


def test_a_row_without_bytes_and_a_storage_that_fails_have_their_own_errors(model, clips, monkeypatch):
    contents = np.array([None, Path(clips[0]).read_bytes()], dtype=object)
    found = TagClips(model, "cpu")({"bytes": contents}).to_pydict()
    assert found["error"] == ["clip 0 cannot be read: there are no bytes", None]

    def forbidden(*arguments, **settings):
        raise RuntimeError("403")

    monkeypatch.setattr(fsspec, "open", forbidden)
    found = TagClips(model, "cpu")({"path": np.array(["memory://a.wav", clips[0]])}).to_pydict()
    assert found["error"] == ["memory://a.wav cannot be read: RuntimeError: 403", None]


class DiesOnce(TagClips):
    """Ends its process in the midst of the first batch that any worker gets."""

    def __call__(self, batch):
        mark = os.environ["DIES_ONCE"]
        try:
            os.close(os.open(mark, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return super().__call__(batch)
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.long
def test_two_workers_one_of_which_is_killed_give_the_rows_of_a_plain_run(model, clips, tmp_path, monkeypatch):
    ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'ast-kit[ray]'")
    from modeling_ast import ray_tagging

    here = Path(__file__).resolve()
    folders = (here.parent, here.parents[2], here.parents[3])  # of this file, of what it imports, and of the kit
    environment = {"DIES_ONCE": str(tmp_path / "died"), "PYTHONPATH": os.pathsep.join(map(str, folders))}
    ray.init(num_cpus=2, include_dashboard=False, runtime_env={"env_vars": environment})
    try:
        monkeypatch.setattr(ray_tagging, "TagClips", DiesOnce)
        rows = [{"number": number, "path": clips[number % 8]} for number in range(500)]
        tagged = tag_on_ray(ray.data.from_items(rows), model, workers=2, batch_size=50)
        tagged.write_parquet(f"local://{tmp_path}/tags")
        found = sorted(ray.data.read_parquet(f"{tmp_path}/tags").take_all(), key=lambda row: row["number"])
    finally:
        ray.shutdown()
    assert (tmp_path / "died").exists()
    assert [row["number"] for row in found] == list(range(500))
    results = expected(model, clips)
    for row, result in zip(found, results * 63, strict=False):
        assert list(row["labels"]) == [label.label for label in result.labels]
        assert list(row["scores"]) == pytest.approx([label.score for label in result.labels], abs=SCORE_TOLERANCE)
        assert row["error"] is None

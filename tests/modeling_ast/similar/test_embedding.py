"""What `ast-embed` keeps, against what `ast-tag --embeddings` writes, and how a folder that stands is continued."""

import json
import os
from contextlib import contextmanager

import numpy as np
import pandas
import pytest
import soundfile

from modeling_ast import run_embedding, run_tagging
from modeling_ast.similar.library import Library, LibraryError, LibraryWriter
from modeling_ast.tagging.tagger import AudioTagger


def tagged(checkpoint, files, folder, *flags, kind="window"):
    """What `ast-tag` writes of the same files: names, times and vectors."""
    path = folder / "tagged.parquet"
    words = [*files, "--model_name_or_path", checkpoint, "--device", "cpu", "--embeddings", kind, *flags]
    run_tagging.main([str(word) for word in (*words, "--embeddings_output", path)])
    table = pandas.read_parquet(path)
    return [*table["file"]], table[["start", "end"]].to_numpy(), np.stack(table["embedding"])


def files_in(folder):
    return {name: (folder / name).read_bytes() for name in sorted(os.listdir(folder))}


@pytest.mark.parametrize("kind", ["file", "window", "second"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_folder_holds_what_tagging_gives(checkpoint, recordings, embed, tmp_path, kind, dtype, capsys):
    folder = tmp_path / "library"
    assert embed(folder, *recordings, "--embeddings", kind, "--dtype", dtype) == 0
    names, times, vectors = tagged(checkpoint, recordings, tmp_path, kind=kind)
    found = np.load(folder / "vectors.npy", mmap_mode="r")  # by NumPy alone
    assert np.array_equal(found, vectors.astype(dtype))
    stretches = np.load(folder / "stretches.npy", mmap_mode="r")
    np.testing.assert_array_equal(np.stack([stretches["start"], stretches["end"]], axis=1), times)
    norms = np.linalg.norm(vectors.astype(dtype).astype(np.float64), axis=1)
    np.testing.assert_allclose(stretches["norm"], norms, rtol=1e-6)
    places = Library(folder).places(range(len(found)))
    assert [place[0] for place in places] == [os.path.abspath(name) for name in names]
    assert f"holds {len(found)} vectors of {len(recordings)} files" in capsys.readouterr().out


def test_windows_lie_as_tagging_lays_them(checkpoint, recordings, embed, tmp_path):
    flags = ("--hop", 0.3, "--window", 0.5)
    assert embed(tmp_path / "library", *recordings, *flags) == 0
    _, times, vectors = tagged(checkpoint, recordings, tmp_path, "--timeline", *flags)
    library = Library(tmp_path / "library")
    assert np.array_equal(library.vectors, vectors)
    assert np.array_equal(library.stretches["start"], times[:, 0])


def test_files_are_added_and_none_twice(recordings, embed, library, tmp_path, capsys):
    folder = tmp_path / "library"
    assert embed(folder, *recordings[:2]) == 0
    assert embed(folder, recordings[1].parent / ".." / "odd" / recordings[1].name, *recordings[1:]) == 0
    assert "1 of 5 files are in" in capsys.readouterr().out
    added, whole = Library(folder), Library(library)
    assert added.places(range(len(added))) == whole.places(range(len(whole)))
    np.testing.assert_allclose(added.vectors, whole.vectors, atol=1e-5)  # in batches of other sizes
    before = files_in(folder)
    assert embed(folder, *recordings) == 0
    assert files_in(folder) == before


def test_bad_files_are_told_and_tried_again(recordings, embed, tmp_path, capsys):
    bad, folder = tmp_path / "bad.wav", tmp_path / "library"
    bad.write_bytes(b"RIFF")
    soundfile.write(tmp_path / "silent.wav", np.zeros(16_000), 16_000)
    assert embed(folder, recordings[0], bad, tmp_path / "silent.wav", recordings[1]) == 1
    printed = capsys.readouterr()
    assert f"ast-embed: {bad}" in printed.err
    assert "3 of 4 files are embedded" in printed.out
    rows = [json.loads(line) for line in (folder / "files.jsonl").read_text().splitlines()]
    assert [row["rows"] for row in rows] == [1, 0, 0, 1]
    assert [bool(row.get("error")) for row in rows] == [False, True, False, False]
    assert embed(folder, bad) == 1
    bad.write_bytes(recordings[3].read_bytes())
    assert embed(folder, bad) == 0
    library = Library(folder)
    assert library.places([-1])[0][0] == str(bad)
    assert library.description.files == 4


@contextmanager
def stopped_at_the_third_group(monkeypatch):
    """Ctrl-C when the third group of files is to be embedded."""
    tag_files, groups = AudioTagger.tag_files, []

    def interrupted(self, files, *arguments, **settings):
        groups.extend([files] if files else [])
        if len(groups) == 3:
            raise KeyboardInterrupt
        return tag_files(self, files, *arguments, **settings)

    with monkeypatch.context() as patch:
        patch.setattr(AudioTagger, "tag_files", interrupted)
        yield


def test_an_interrupted_run_goes_on_to_the_same_bytes(recordings, embed, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(run_embedding, "COMMIT_SECONDS", 0.0)
    assert embed(tmp_path / "whole", *recordings, "--batch_size", 2) == 0
    with stopped_at_the_third_group(monkeypatch):
        assert embed(tmp_path / "stopped", *recordings, "--batch_size", 2) == 130
    assert "the same command goes on there" in capsys.readouterr().err
    assert embed(tmp_path / "stopped", *recordings, "--batch_size", 2) == 0
    assert "4 of 6 files are in" in capsys.readouterr().out
    assert files_in(tmp_path / "stopped") == files_in(tmp_path / "whole")


def test_an_interrupted_run_lists_bad_files_anew(recordings, embed, tmp_path, monkeypatch):
    bad = tmp_path / "bad.wav"
    bad.write_bytes(b"RIFF")
    assert embed(tmp_path / "whole", bad, *recordings, "--batch_size", 2) == 1
    with stopped_at_the_third_group(monkeypatch):
        assert embed(tmp_path / "stopped", bad, *recordings, "--batch_size", 2) == 130
    assert embed(tmp_path / "stopped", bad, *recordings, "--batch_size", 2) == 1
    whole, stopped = (Library(tmp_path / name) for name in ("whole", "stopped"))
    assert np.array_equal(stopped.vectors, whole.vectors)
    assert stopped.places(range(len(stopped))) == whole.places(range(len(whole)))
    names = [json.loads(line)["file"] for line in (stopped.folder / "files.jsonl").read_text().splitlines()]
    assert names == [str(file) for file in (bad, *recordings[:3], bad, *recordings[3:])]


def test_what_a_killed_run_did_not_finish_does_not_count(copied, library, recordings, embed, tmp_path):
    """It was killed when rows were written, and the head of one array, but not the description."""
    for name in ("vectors.npy", "stretches.npy", "files.jsonl"):
        with open(copied / name, "ab") as file:
            file.write(b"\x01" * 1000)
    rows = len(Library(library))
    with open(copied / "vectors.npy", "r+b") as file:
        file.seek(0)
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (rows + 7, 32)})
    assert np.array_equal(Library(copied).vectors, Library(library).vectors)
    assert embed(copied, *recordings) == 0
    assert files_in(copied) == files_in(library)


def test_what_does_not_fit_a_folder_is_refused(make_checkpoint, copied, recordings, embed, tmp_path, capsys):
    def refused(*words):
        with pytest.raises(SystemExit) as ended:
            embed(*words)
        assert ended.value.code == 2
        return capsys.readouterr().err

    before = files_in(copied)
    said = refused(copied, *recordings, "--dtype", "float16", "--hop", 0.5)
    assert "made with --dtype float32, --hop (not given), not --dtype float16, --hop 0.5" in said
    other = make_checkpoint(tmp_path / "other", 1)
    with pytest.raises(SystemExit):
        run_embedding.main([str(recordings[0]), "--output", str(copied), "--model_name_or_path", str(other)])
    assert "vectors of another model than" in capsys.readouterr().err
    assert files_in(copied) == before
    assert "window=-1.0" in refused(tmp_path / "new", recordings[0], "--window=-1")
    assert not (tmp_path / "new").exists()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("dear")
    assert "holds 'letter.txt' and no embedded sounds" in refused(tmp_path / "full", *recordings)
    assert "is a file. Pass the name of a folder" in refused(tmp_path / "full" / "letter.txt", *recordings)
    (copied / "vectors.npy").write_bytes(b"")
    assert "vectors.npy is damaged. Embed the files anew" in refused(copied, *recordings)
    with pytest.raises(LibraryError, match="vectors.npy is damaged"):
        Library(copied)


@pytest.mark.parametrize(
    "words",
    [
        "--model_name_or_path x", "--embeddings file", "--dtype float16", "--hop 0.5", "--window 0.5", "--silence_db -60", "--channels left",
        "--strict_audio", "--batch_size 2", "--device cpu",
    ],
)  # fmt: skip
def test_flags_about_files_are_refused_without_any(copied, words, capsys):
    with pytest.raises(SystemExit) as ended:
        run_embedding.main(["--output", str(copied), "--index", "on", *words.split()])
    assert ended.value.code == 2
    assert f"{words.split()[0]} is about files, and none were named" in capsys.readouterr().err


def test_a_model_that_was_changed_at_its_place_is_not_asked_for_again(
    make_checkpoint, recordings, embed, tmp_path, capsys
):
    model, words = make_checkpoint(tmp_path / "model", 0), [str(recordings[0]), "--output", str(tmp_path / "kept")]
    words += ["--model_name_or_path", str(model), "--device", "cpu"]
    assert run_embedding.main(words) == 0
    make_checkpoint(model, 1)
    with pytest.raises(SystemExit):
        run_embedding.main(words)
    said = capsys.readouterr().err
    assert (
        f"holds vectors of {model} as it was then: its files, or this kit's version, were changed since. Put the"
        in said
    )


def test_a_file_of_a_list_that_is_gone_stands_with_its_reason(recordings, embed, tmp_path, capsys):
    listed, gone = tmp_path / "list.txt", tmp_path / "gone.wav"
    listed.write_text(f"{gone}\n{recordings[0]}\n{recordings[1].parent}\n")
    assert embed(tmp_path / "library", "--files_from", listed) == 1
    assert f"{gone}" in capsys.readouterr().err
    rows = [json.loads(line) for line in (tmp_path / "library" / "files.jsonl").read_text().splitlines()]
    assert {row["file"] for row in rows if row.get("error")} == {str(gone)}
    assert Library(tmp_path / "library").description.files == 1 + sum(
        each.parent == recordings[1].parent for each in recordings
    )
    listed.write_text(f"{gone}\n")
    with pytest.raises(SystemExit):
        embed(tmp_path / "another", "--files_from", listed)
    assert f"There is no file or folder {gone}" in capsys.readouterr().err


def test_a_file_that_was_changed_is_refused(recordings, embed, tmp_path, capsys):
    file = tmp_path / "a.wav"
    file.write_bytes(recordings[0].read_bytes())
    assert embed(tmp_path / "library", file) == 0
    file.write_bytes(recordings[1].read_bytes())
    with pytest.raises(SystemExit):
        embed(tmp_path / "library", file, recordings[2])
    assert "a.wav': changed since" in capsys.readouterr().err
    assert Library(tmp_path / "library").description.files == 1


def test_two_runs_do_not_write_into_one_folder(copied, recordings, embed, capsys):
    description = Library(copied).description
    with LibraryWriter(copied, description), pytest.raises(SystemExit):
        embed(copied, *recordings)
    assert "is being written by ast-embed" in capsys.readouterr().err


def test_a_list_of_files_that_was_cut_is_refused(copied, recordings, embed, capsys):
    path = copied / "files.jsonl"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    before = files_in(copied)
    with pytest.raises(SystemExit) as ended:
        embed(copied, *recordings)
    assert ended.value.code == 2
    assert "files.jsonl is damaged. Embed the files anew: ast-embed FILES --output" in capsys.readouterr().err
    after = files_in(copied)
    assert {name: after[name] for name in before} == before
    path.unlink()
    with pytest.raises(SystemExit):
        embed(copied, *recordings)
    assert "files.jsonl is damaged" in capsys.readouterr().err


@pytest.mark.parametrize(
    "row", ["\0" * 9, "[1]", '{"rows": 1}', '{"file": "a.wav", "size": 1}', '{"file": 1', "[" * 9_999]
)
def test_rows_that_are_none_are_refused(copied, recordings, embed, row, capsys):
    path = copied / "files.jsonl"
    size = path.stat().st_size
    path.write_text(f"{row}\n" + "\n" * size)
    with pytest.raises(SystemExit) as ended:
        embed(copied, *recordings)
    assert ended.value.code == 2
    assert "files.jsonl is damaged. Embed the files anew" in capsys.readouterr().err
    with pytest.raises(LibraryError, match=r"files\.jsonl is damaged"):
        Library(copied).places([0])


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"model": 1}', "null", '{"rows": "x"}'])
def test_a_damaged_description_is_refused(copied, text):
    (copied / "embeddings.json").write_text(text)
    with pytest.raises(LibraryError, match=r"embeddings\.json is damaged"):
        Library(copied)

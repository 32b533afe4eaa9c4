"""Files and folders that appear whole or not at all."""

import os

import pytest

from modeling_ast.atomic_files import make_folder_atomically, open_atomically, refuse_existing


def test_a_folder_appears_when_its_files_are_on_the_disk(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_ino))
    with make_folder_atomically(tmp_path / "parent" / "new") as folder:
        assert folder.name == "new"
        (folder / "weights").write_text("1")
        inode = (folder / "weights").stat().st_ino
        assert not (tmp_path / "parent" / "new").exists()
    assert (tmp_path / "parent" / "new" / "weights").read_text() == "1"
    assert inode in synced
    assert [path.name for path in (tmp_path / "parent").iterdir()] == ["new"]


def test_a_folder_whose_filling_fails_leaves_nothing(tmp_path):
    with pytest.raises(FileNotFoundError), make_folder_atomically(tmp_path / "new") as folder:
        (folder / "missing" / "weights").write_text("1")
    with pytest.raises(FileNotFoundError), make_folder_atomically(tmp_path / "parent" / "of" / "new") as folder:
        (folder / "missing" / "weights").write_text("1")
    assert not list(tmp_path.iterdir())


def test_an_empty_folder_is_replaced_also_through_a_link(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    with make_folder_atomically(tmp_path / "link") as folder:
        (folder / "weights").write_text("1")
    assert (tmp_path / "empty" / "weights").read_text() == "1"
    assert (tmp_path / "link").is_symlink()


def test_a_mount_point_is_refused_in_words(tmp_path, monkeypatch):
    monkeypatch.setattr(os.path, "ismount", lambda path: True)
    with pytest.raises(FileExistsError, match="is a mount point, which cannot be replaced. Name a folder in it"):
        refuse_existing(tmp_path)


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_is_there_is_not_replaced(tmp_path, kind):
    place = tmp_path / "place"
    if kind == "folder":
        place.mkdir()
        (place / "mine").write_text("1")
    else:
        place.write_text("1")
    with pytest.raises(FileExistsError, match="already exists"), make_folder_atomically(place):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["place"]


def test_a_file_keeps_its_old_content_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(TypeError), open_atomically(path, "w") as file:
        file.write(b"bytes into a text file")
    assert path.read_text() == "old"
    with open_atomically(path, "w") as file:
        file.write("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]

"""Files and folders that appear whole or not at all."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from modeling_ast.system import atomic_files, run_lock
from modeling_ast.system.atomic_files import make_folder_atomically, open_atomically, refuse_existing, temporary_folder

# Writers that say that they are at work, and then wait; forks would have this process's threads.
WRITERS = {
    "file": "open_atomically(place)",
    "folder": "make_folder_atomically(place)",
    "scratch": "temporary_folder('ast-test', os.path.dirname(place))",
}


def start_writer(kind: str, place: Path) -> subprocess.Popen:
    code = (
        "import os, sys, time\nfrom modeling_ast.system.atomic_files import *\n"
        f"place = sys.argv[1]\nwith {WRITERS[kind]}:\n    print('at work', flush=True); time.sleep(60)"
    )
    child = subprocess.Popen([sys.executable, "-c", code, place], stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline() == "at work\n"
    return child


def write(kind: str, place: Path):
    """What is done next in the same folder."""
    atomic_files._looked.clear()  # as a new process
    if kind == "folder":
        with make_folder_atomically(place):
            pass
    else:
        with open_atomically(place):
            pass


@pytest.mark.parametrize("kind", WRITERS)
def test_what_a_killed_run_left_is_removed_by_the_next_one_and_a_live_run_keeps_its_own(tmp_path, kind):
    dead, alive = start_writer(kind, tmp_path / "place"), start_writer(kind, tmp_path / "place")
    dead.send_signal(signal.SIGKILL)
    dead.wait()
    assert len(list(tmp_path.iterdir())) == 2
    write(kind, tmp_path / "place")
    names = [path.name for path in tmp_path.iterdir() if path.name != "place"]
    assert len(names) == 1
    assert names[0].endswith(".ast-tmp")
    alive.send_signal(signal.SIGKILL)
    alive.wait()
    write(kind, tmp_path / "next")
    assert {path.name for path in tmp_path.iterdir()} == {"place", "next"}


def test_a_forked_process_does_not_keep_a_lock(tmp_path):
    with open_atomically(tmp_path / "file") as file:
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.write(writing, b"x")
            signal.pause()
        os.read(reading, 1)  # it has begun
        locked = run_lock.open_to_lock(file.name)
        assert not run_lock.lock(locked)
        run_lock.unlock(locked)
    taken = run_lock.open_to_lock(tmp_path / "file")
    try:
        assert run_lock.lock(taken)
    finally:
        run_lock.unlock(taken)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_a_file_that_is_taken_for_a_leftover_before_it_is_locked_is_made_anew(tmp_path, monkeypatch):
    def lock_late(descriptor):
        monkeypatch.setattr(atomic_files, "lock", run_lock.lock)
        for path in tmp_path.iterdir():
            path.unlink()
        return run_lock.lock(descriptor)

    monkeypatch.setattr(atomic_files, "lock", lock_late)
    with open_atomically(tmp_path / "file") as file:
        locked = run_lock.open_to_lock(file.name)
        assert not run_lock.lock(locked)
        run_lock.unlock(locked)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_what_another_user_left_stays(tmp_path, monkeypatch):
    left = tmp_path / f".x.{16 * '0'}.ast-tmp"
    left.touch()
    monkeypatch.setattr(os, "getuid", lambda: left.stat().st_uid + 1)
    write("file", tmp_path / "place")
    assert left.exists()


def test_where_there_are_no_locks_only_what_is_old_was_left(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(run_lock.fcntl, "flock", refuse)
    for name, age in (("young", 0), ("old", 2 * atomic_files.OLDEST_ALIVE)):
        path = tmp_path / f".{name}.{16 * '0'}.ast-tmp"
        path.touch()
        os.utime(path, times=(path.stat().st_mtime - age,) * 2)
    write("file", tmp_path / "place")
    assert {path.name for path in tmp_path.iterdir()} == {"place", f".young.{16 * '0'}.ast-tmp"}


def test_other_files_stay(tmp_path):
    names = {".mine.tmp", "mine.ast-tmp", "notes.ast-tmp.txt", ".part"}
    for name in names:
        (tmp_path / name).touch()
    write("file", tmp_path / "place")
    assert {path.name for path in tmp_path.iterdir()} == names | {"place"}


def test_a_link_is_no_leftover_and_what_it_leads_to_stays(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis").touch()
    (tmp_path / "mine" / ".in-use").touch()
    (tmp_path / f".x.{16 * '0'}.ast-tmp").symlink_to(tmp_path / "mine")
    write("file", tmp_path / "place")
    assert (tmp_path / "mine" / "thesis").exists()


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_the_longest_name_can_be_written(tmp_path, kind):
    place = tmp_path / ("é" * 127)  # 254 bytes
    write(kind, place)
    assert os.listdir(tmp_path) == [place.name]


def test_what_cannot_be_written_in_the_end_is_told_at_the_beginning(tmp_path):
    with pytest.raises(IsADirectoryError, match=str(tmp_path)), open_atomically(tmp_path):
        pytest.fail("begun")
    with pytest.raises(OSError, match="too long"), open_atomically(tmp_path / ("x" * 256)):
        pytest.fail("begun")
    with pytest.raises(FileNotFoundError, match="gone/file'$"), open_atomically(tmp_path / "gone" / "file"):
        pytest.fail("begun")


def test_a_file_has_the_permissions_of_any_other(tmp_path):
    before = os.umask(0o027)
    try:
        write("file", tmp_path / "place")
    finally:
        os.umask(before)
    assert (tmp_path / "place").stat().st_mode & 0o777 == 0o640


def test_a_folder_that_somebody_made_meanwhile_is_kept(tmp_path):
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "thesis").touch()
    with (
        pytest.raises(FileExistsError, match="was made by somebody else meanwhile, and is kept"),
        make_folder_atomically(tmp_path / "new"),
    ):
        (tmp_path / "theirs").rename(tmp_path / "new")
    assert [path.name for path in tmp_path.rglob("*")] == ["new", "thesis"]


def test_a_temporary_folder_is_for_this_user_alone(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with temporary_folder("ast-test") as folder:
        assert folder.parent == tmp_path
        assert folder.stat().st_mode & 0o777 == 0o700
        (folder / "some").mkdir()
    assert not list(tmp_path.iterdir())


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

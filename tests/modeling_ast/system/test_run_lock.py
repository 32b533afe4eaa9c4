"""Two runs that write to one place: the second is told by whom it is written."""

import errno
import json
import os
import signal
import socket
import subprocess
import sys

import pytest

from modeling_ast.system import run_lock
from modeling_ast.system.run_lock import LockedError, hold_lock, lock_path, refuse_locked

HOLD = (
    "import sys, time\nfrom modeling_ast.system.run_lock import hold_lock\n"
    "with hold_lock(sys.argv[1], 'ast-test', inside=sys.argv[2] == 'True'):\n    print('held', flush=True); time.sleep(60)"
)


@pytest.mark.parametrize("inside", [False, True])
def test_the_second_run_is_told_of_the_first_until_that_is_dead(tmp_path, inside):
    child = subprocess.Popen([sys.executable, "-c", HOLD, tmp_path, str(inside)], stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout.readline() == "held\n"
        words = rf"^{tmp_path} is being written by ast-test, process {child.pid} on {socket.gethostname()}, since 20"
        with pytest.raises(LockedError, match=words), hold_lock(tmp_path, "ast-test", inside):
            pytest.fail("two hold it")
        with pytest.raises(LockedError, match=words):
            refuse_locked(tmp_path, inside)
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert lock_path(tmp_path, inside).exists()
    refuse_locked(tmp_path, inside)
    with hold_lock(tmp_path, "ast-test", inside):
        assert json.loads(lock_path(tmp_path, inside).read_text())["process"] == os.getpid()
    assert not lock_path(tmp_path, inside).exists()


def test_two_names_of_one_place_have_one_lock(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("folder")
    with (
        hold_lock(tmp_path / "link" / "file", "ast-test"),
        pytest.raises(LockedError),
        hold_lock(tmp_path / "folder" / "file", "ast-test"),
    ):
        pytest.fail("two hold it")


def test_a_lock_is_free_after_an_error(tmp_path):
    with pytest.raises(KeyError), hold_lock(tmp_path / "file", "ast-test"):
        raise KeyError
    with hold_lock(tmp_path / "file", "ast-test"):
        pass
    assert not list(tmp_path.iterdir())


def test_without_locks_it_goes_on_and_says_so_once(tmp_path, monkeypatch, capsys):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(run_lock.fcntl, "flock", refuse)
    for _ in range(2):
        with hold_lock(tmp_path / "file", "ast-test"), hold_lock(tmp_path / "file", "ast-test"):
            pass
    assert capsys.readouterr().err == (
        f"ast-test: the file system of {tmp_path} has no locks: another run that writes there at the same time is not "
        "noticed.\n"
    )
    assert not list(tmp_path.iterdir())


def test_a_place_where_nothing_can_be_written_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="gone/file'$"), hold_lock(tmp_path / "gone" / "file", "ast-test"):
        pytest.fail("held")


def test_a_name_of_the_longest_kind_can_be_locked(tmp_path):
    with hold_lock(tmp_path / ("é" * 127), "ast-test"):
        pass


def test_a_lock_that_its_holder_removes_just_now_is_made_anew(tmp_path, monkeypatch):
    path, lock = lock_path(tmp_path / "file"), run_lock.lock

    def lock_late(descriptor):
        monkeypatch.setattr(run_lock, "lock", lock)
        path.unlink()
        return lock(descriptor)

    monkeypatch.setattr(run_lock, "lock", lock_late)
    with hold_lock(tmp_path / "file", "ast-test"), pytest.raises(LockedError):
        refuse_locked(tmp_path / "file")

"""Commands that are interrupted: one line, 128 + the signal's number, and nothing swallowed."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from modeling_ast.system.atomic_files import open_atomically
from modeling_ast.system.interruption import DELIVER_AGAIN, Interrupted, interruptions, put_off, raise_if_interrupted
from modeling_ast.system.terminal import shell_command

pytestmark = pytest.mark.usefixtures("interruptible")
SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


def send(number):
    os.kill(os.getpid(), number)
    time.sleep(5)
    pytest.fail("not interrupted")


@pytest.mark.parametrize("number", SIGNALS)
def test_a_command_cleans_up_and_says_how_to_go_on(tmp_path, capsys, number):
    before = signal.getsignal(number)

    @shell_command("ast-test", "Type it again.")
    def main():
        with open_atomically(tmp_path / "file") as file:
            file.write(b"half")
            send(number)

    assert main() == 128 + number
    assert capsys.readouterr().err == f"ast-test: interrupted ({number.name}). Type it again.\n"
    assert not list(tmp_path.iterdir())
    assert signal.getsignal(number) is before


def test_a_signal_before_the_command_itself_begins_is_told_as_well(capsys, monkeypatch):
    monkeypatch.setattr("modeling_ast.system.terminal.prepare_process", lambda program: send(signal.SIGINT))
    assert shell_command("ast-test", "Type it again.")(lambda: 0)() == 130
    assert capsys.readouterr().err == "ast-test: interrupted (SIGINT). Type it again.\n"


def test_what_a_command_knows_better_is_said_instead(capsys):
    @shell_command("ast-test", "Type it again.")
    def main():
        try:
            send(signal.SIGTERM)
        except KeyboardInterrupt as error:
            error.add_note("Three of five files were written.")
            raise

    assert main() == 143
    assert capsys.readouterr().err == "ast-test: interrupted (SIGTERM). Three of five files were written.\n"


@pytest.mark.parametrize("made_of_it", [ImportError("partially initialized"), SystemError(), SystemExit(2)])
def test_what_a_library_makes_of_an_interruption_is_one(capsys, made_of_it):
    @shell_command("ast-test")
    def main():
        try:
            send(signal.SIGTERM)
        except KeyboardInterrupt:
            raise made_of_it from None

    assert main() == 143
    assert "interrupted (SIGTERM)" in capsys.readouterr().err


def test_a_failure_that_was_told_is_an_interruption_too():
    @shell_command("ast-test")
    def main():
        try:
            send(signal.SIGTERM)
        except KeyboardInterrupt:
            return 1

    assert main() == 143


def test_errors_without_a_signal_stay_what_they_are():
    @shell_command("ast-test")
    def main(error):
        raise error

    for error in (ValueError("x"), SystemExit(2)):
        with pytest.raises(type(error)):
            main(error)


def test_an_interruption_that_python_drops_comes_again(capsys):
    class Swallowing:
        def __del__(self):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.01)

    @shell_command("ast-test")
    def main():
        Swallowing()
        for _ in range(100):
            time.sleep(0.05)

    assert main() == 143
    assert "Exception ignored" not in capsys.readouterr().err


def test_an_interruption_that_was_asked_for_does_not_come_again_when_all_is_over(monkeypatch):
    sent = []
    monkeypatch.setattr(os, "kill", lambda _, number: sent.append(number))

    class Dropped:
        def __del__(self):
            signal.raise_signal(signal.SIGTERM)

    with interruptions():
        Dropped()
        with pytest.raises(Interrupted):
            raise_if_interrupted()
    time.sleep(3 * DELIVER_AGAIN)
    assert not sent


def test_other_errors_that_python_drops_are_reported(monkeypatch):
    class Broken:
        def __del__(self):
            raise ValueError

    dropped = []
    monkeypatch.setattr(sys, "unraisablehook", lambda error: dropped.append(error.exc_type))
    with interruptions():
        Broken()
    assert dropped == [ValueError]


def test_a_second_signal_does_not_wait():
    with interruptions():
        put_off(True)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)
        with pytest.raises(Interrupted):
            send(signal.SIGINT)


def test_what_is_put_off_comes_when_it_is_asked_for():
    with interruptions():
        put_off(True)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)
        with pytest.raises(Interrupted) as caught:
            raise_if_interrupted()
    assert caught.value.number == signal.SIGTERM
    raise_if_interrupted()  # it is forgotten


def test_an_ignored_signal_stays_ignored():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with interruptions():
        os.kill(os.getpid(), signal.SIGHUP)
        time.sleep(0.01)


def test_a_command_in_another_thread_leaves_the_signals_alone():
    codes = []

    @shell_command("ast-test")
    def main():
        return 7

    thread = threading.Thread(target=lambda: codes.append(main()))
    thread.start()
    thread.join()
    assert codes == [7]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_a_command_imports_what_it_needs(number, tmp_path):
    code = (
        "import os, signal, sys\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from modeling_ast import run_tagging\n"
        "class Finder:\n"
        "    def find_spec(self, name, *_):\n"
        f"        if name == 'modeling_ast.audio.reading': os.kill(os.getpid(), {int(number)})\n"
        "sys.meta_path.insert(0, Finder())\n"
        "sys.exit(run_tagging.main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, tmp_path, "--model_name_or_path", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 128 + number, done.stderr
    assert done.stderr.startswith(f"ast-tag: interrupted ({number.name}). ")
    assert done.stderr.count("\n") == 1

"""What the commands print: into pipes that are closed, on full disks, and in encodings without the characters that a name has."""

import configparser
import errno
import importlib
import io
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from modeling_ast.system.terminal import shell_command

HOUSE = Path(__file__).parents[3]
LINES = 40_000  # more than a pipe or a buffer holds
LATIN_1 = os.fsdecode(b"t\xf6ne")  # a file's name that is not valid UTF-8


def commands():
    setup = configparser.ConfigParser()
    setup.read(HOUSE / "setup.cfg")
    lines = setup["options.entry_points"]["console_scripts"].strip().splitlines()
    return [tuple(line.replace(":main", "").split(" = ")) for line in lines]


def closed_pipe():
    reading, writing = os.pipe()
    os.close(reading)
    return os.fdopen(writing, "w")


@shell_command("ast-test")
def print_lines():
    for number in range(LINES):
        print(number)
    return 0


@shell_command("ast-test")
def print_little():
    print("a line that waits in the buffer")
    return 0


@shell_command("ast-test")
def print_within_handlers():
    try:
        print("line", flush=True)
    except OSError as error:
        print(f"ast-test: {error}", file=sys.stderr)
        return 1
    return 0


@shell_command("ast-test")
def print_errors():
    print("an error", file=sys.stderr, flush=True)
    return 0


@shell_command("ast-test")
def print_in_a_thread():
    thread = threading.Thread(target=print, args=("line",), kwargs={"flush": True})
    thread.start()
    thread.join()
    return 0


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize(
    ("command", "stream"),
    [
        (print_lines, "stdout"),
        (print_little, "stdout"),
        (print_within_handlers, "stdout"),
        (print_in_a_thread, "stdout"),
        (print_errors, "stderr"),
    ],
)
def test_a_pipe_that_nobody_reads_ends_the_command_without_a_word(monkeypatch, command, stream):
    other = io.StringIO()
    with closed_pipe() as pipe:
        monkeypatch.setattr(sys, "stdout", other)
        monkeypatch.setattr(sys, "stderr", other)
        monkeypatch.setattr(sys, stream, pipe)
        with pytest.raises(SystemExit) as ended:
            command()
        assert getattr(sys, stream) is pipe
    assert ended.value.code == 141  # as of `seq 100000 | head -1` in a shell with pipefail
    assert other.getvalue() == ""


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize("command", [print_lines, print_little])
def test_a_full_disk_is_told_in_a_line(monkeypatch, command):
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        with pytest.raises(SystemExit) as ended:
            command()
    assert ended.value.code == "ast-test: what it prints cannot be written: No space left on device."


@pytest.mark.parametrize(
    ("encoding", "errors", "written"),
    [
        ("ascii", "strict", b"\\u0151r t\xf6ne"),
        ("ascii", "surrogateescape", b"\\u0151r t\xf6ne"),  # what Python chooses in the C locale
        ("latin-1", "strict", b"\\u0151r t\xf6ne"),
        ("utf-8", "strict", "őr ".encode() + b"t\xf6ne"),
        ("ascii", "replace", b"?r t?ne"),
    ],
)
def test_names_are_printed_whatever_the_encoding(monkeypatch, encoding, errors, written):
    content = io.BytesIO()
    stream = io.TextIOWrapper(content, encoding=encoding, errors=errors)
    monkeypatch.setattr(sys, "stdout", stream)

    @shell_command("ast-test")
    def print_names():
        print("őr", LATIN_1)
        return 0

    assert print_names() == 0
    assert content.getvalue() == written + b"\n"
    assert (sys.stdout, stream.errors) == (stream, errors)


def test_a_closed_output_is_no_error(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)  # as Python has it after `>&-`
    assert print_little() == 0


def test_other_ends_of_a_command_are_left_alone(capsys):
    @shell_command("ast-test")
    def fail():
        print("before")
        raise SystemExit(2)

    with pytest.raises(SystemExit) as ended:
        fail()
    assert ended.value.code == 2
    assert capsys.readouterr().out == "before\n"
    with (
        closed_pipe() as pipe,
        pytest.raises(BrokenPipeError),
    ):  # of a connection, say, which is the command's to handle
        shell_command("ast-test")(lambda: os.write(pipe.fileno(), b"x"))()


@pytest.mark.parametrize("program", ["ast-tag", "ast-push"])
def test_python_adds_nothing_when_it_ends(program):
    module = dict(commands())[program]
    with closed_pipe() as pipe:
        ended = subprocess.run(
            [sys.executable, "-m", module, "--help"], stdout=pipe, stderr=subprocess.PIPE, check=False, cwd=HOUSE
        )
    assert (ended.returncode, ended.stderr) == (141, b"")


@pytest.mark.parametrize(("program", "module"), commands())
def test_every_command_prints_so(program, module, monkeypatch):
    main = importlib.import_module(module).main
    with closed_pipe() as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        with pytest.raises(SystemExit) as ended:
            main(["--help"])
    assert ended.value.code == 141


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, "full"), "No space left on device. Make room"),
        (
            OSError(errno.EROFS, "read", "a\nb"),
            r"a\nb: Read-only file system. Name a place on a disk that is not read-only",
        ),
        (OSError(errno.EACCES, "no", ".x.ast-tmp", None, "x"), "x: Permission denied. Name a place where you may"),
        (OSError(errno.ENAMETOOLONG, "long", "n"), "n: File name too long. Most disks take names of up to 255 bytes"),
    ],
)
def test_a_place_that_cannot_be_written_to_is_told_in_a_line(capsys, error, words):
    @shell_command("ast-something")
    def main():
        raise error

    assert main() == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"ast-something: {words}")


def test_errors_about_something_else_are_not_hidden():
    @shell_command("ast-something")
    def main():
        raise TimeoutError(errno.ETIMEDOUT, "too late")

    with pytest.raises(TimeoutError):
        main()

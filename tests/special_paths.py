"""What is no file, made harmlessly: a pipe that nobody writes into, a link to a device that is empty, links in circles."""

import os
import signal
import socket
from contextlib import contextmanager
from pathlib import Path

WORDS = {
    "pipe": "is a pipe, not a file. Save what comes out of it to a file, and pass that.",
    "device": "is a device, not a file.",
    "socket": "is a socket, not a file.",
    "circle": "is a link that leads in a circle.",
}


def make_special(path: Path, kind: str) -> Path:
    """Put something there that is no file: one of `WORDS`."""
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to(os.devnull)
    elif kind == "circle":
        path.symlink_to(path.name)
    else:
        here = os.getcwd()
        os.chdir(path.parent)  # a socket's name may have 108 characters
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path.name)
        os.chdir(here)
    return path


@contextmanager
def never_waits(seconds: int = 20):
    """Fail where something waits for a pipe: a guard that is missing must not hang the tests."""

    def fail(*_):
        raise AssertionError(f"waited {seconds} s")

    before = signal.signal(signal.SIGALRM, fail)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)

"""What the commands print, into pipes whose reader goes away and onto terminals that cannot show every character, and how
they end: with 0, 2 for wrong input, 1 for a failure while they work, 128 + its number for a signal.
"""

import codecs
import errno
import functools
import io
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .interruption import interruptions, last_signal, signal_of
from .names_as_text import in_one_line
from .surroundings import prepare_process

START_ANEW = "Nothing half written was left, and what was there is as it was: type the same command again."

FAILED, WRONG_INPUT = 1, 2  # exit codes; argparse ends with the second
CLOSED_PIPE_CODE = 141  # 128 + SIGPIPE: what a shell tells of a program that ends because nobody reads on
ENCODING_ERRORS = "ast_kit_terminal"

# What to do about a file that cannot be written.
STORAGE_ADVICE = {
    errno.ENOSPC: "Make room, or name a place on another disk, and type the same command again.",
    errno.EROFS: "Name a place on a disk that is not read-only.",
    errno.ENAMETOOLONG: "Most disks take names of up to 255 bytes: pass a shorter one.",
    errno.EACCES: "Name a place where you may read and write, or have the rights changed.",
    errno.EPERM: "Name a place where you may write, or have the rights changed.",
    errno.EFBIG: "Name a place on a disk that takes larger files.",
    errno.EIO: "The disk may be failing: name a place on another one.",
    errno.ENOENT: "It, or the folder it is in, is no longer there: make the folder again.",
    errno.ENOTDIR: "A part of it is a file where a folder was expected. Check the spelling.",
}
if hasattr(errno, "EDQUOT"):  # not on Windows
    STORAGE_ADVICE[errno.EDQUOT] = "Your share of the disk is full: make room, or name a place on another disk."


# What the system says where the machine is at fault, and no name or right of a file that was given.
MACHINE_FAILED = (errno.ENOSPC, errno.EFBIG, errno.EIO, errno.ENOMEM, errno.EMFILE, errno.ENFILE)
if hasattr(errno, "EDQUOT"):
    MACHINE_FAILED += (errno.EDQUOT,)


class OutputEnded(SystemExit):
    """Nothing more can be printed; no `OSError`, which is handled as one of the files that a command works on."""


def shell_command(program: str, after_interruption: str | None = START_ANEW) -> Callable:
    """Decorate the `main` of a command.

    What it prints may be read only in part (`| head`): the command then ends, without a word, as other programs do. A full
    disk is told in one line, and so is every other place that cannot be written to. A name that the terminal's encoding does
    not have is written with escapes (`\\u0151`), and one of a file that is not valid in that encoding as the bytes it is.

    Ctrl-C, SIGTERM and SIGHUP end it with its clean-up, in one line, and with 128 + the signal's number, as shells and
    schedulers take it. A second one does not wait.

    Args:
        program (`str`): the command's name, for messages.
        after_interruption (`str`): sentence that says what is there then and how to go on; notes that `main` adds to the
            `KeyboardInterrupt` (`add_note`) stand in its place. `None` for a server, which is ended this way: without a word, and
            with 0.

    Returns:
        A decorator.
    """

    def decorate(main: Callable[..., int]) -> Callable[..., int]:
        @functools.wraps(main)
        def command(*args, **kwargs) -> int:
            def prepared() -> int:
                prepare_process(program)
                return main(*args, **kwargs)

            with guarded_output(program):
                return _ended_in_words(prepared, program, after_interruption)

        return command

    return decorate


def ended_by(program: str, error: Exception, words: str | None = None, reading: bool = False) -> int:
    """Say on the error stream why a command ends.

    Args:
        program (`str`): the command's name.
        error (`Exception`): by which it ends.
        words (`str`, *optional*): what is said, if not what the error says.
        reading (`bool`, defaults to `False`): see [`exit_code_of`].

    Returns:
        `int`: the exit code; see [`exit_code_of`].
    """
    if words is None:
        words = (storage_failure_in_words(error) if isinstance(error, OSError) else None) or str(error)
    print(f"{program}: {words}", file=sys.stderr)
    return exit_code_of(error, reading)


def exit_code_of(error: BaseException, reading: bool = False) -> int:
    """Tell wrong input from a failure while a command works.

    An error of this kit, and one of a library that is in words, is about what was given. A failure is what an error, or one
    that it was raised from, says of a machine that is full or broken; what the system says of a file (an `OSError` with its
    number), unless nothing but input was read so far; and what has an attribute `exit_code` that says so, such as that of a
    Hub which does not answer.

    Args:
        error (`BaseException`): one that a command expects.
        reading (`bool`, defaults to `False`): whether the command has only read what it was given.

    Returns:
        `int`: 2 for wrong input, 1 for a failure.
    """
    links = [error]
    while links[-1].__cause__ is not None:
        links.append(links[-1].__cause__)
    declared = [link.exit_code for link in links if getattr(link, "exit_code", None) is not None]
    if declared:
        return declared[0]
    if any(_is_of_the_machine(link) for link in links):
        return FAILED
    is_of_the_system = isinstance(error, OSError) and error.errno is not None
    return FAILED if is_of_the_system and not reading else WRONG_INPUT


def _is_of_the_machine(error: BaseException) -> bool:
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in MACHINE_FAILED
    # The writers of weights have only the words of the system's error.
    return isinstance(error, MemoryError) or any(os.strerror(number) in str(error) for number in MACHINE_FAILED)


def storage_failure_in_words(error: OSError) -> str | None:
    """Say of a file that cannot be written or read what to do.

    Args:
        error (`OSError`): of a full or read-only disk, a name that is too long, or a place where the user may not write.

    Returns:
        A sentence; `None` for errors that are about something else.
    """
    advice = STORAGE_ADVICE.get(error.errno)
    if advice is None:
        return None
    # `os.replace` knows two names, of which the second one is the user's.
    name = error.filename2 or error.filename
    name = os.fsdecode(name) if isinstance(name, str | bytes | os.PathLike) else ""
    return f"{in_one_line(name)}{': ' if name else ''}{os.strerror(error.errno)}. {advice}"


@contextmanager
def command_imports(program: str) -> Iterator[None]:
    """Import at the head of a command's module what takes seconds: an interruption then ends the command in one line.

    Args:
        program (`str`): `ast-NAME`, of the module `run_NAME`; where that is imported by another program, nothing is changed.

    Returns:
        A context manager.
    """
    if Path(sys.argv[0]).stem not in (program, program.replace("ast-", "run_")):
        yield
        return
    prepare_process(program)
    number = None
    with interruptions():
        try:
            yield
        except (Exception, KeyboardInterrupt) as error:
            number = signal_of(error) or last_signal()
            if number is None:
                raise
    if number is not None:
        print(f"{program}: interrupted ({number.name}). {START_ANEW}", file=sys.stderr)
        sys.exit(128 + number)


def _ended_in_words(main: Callable[[], int], program: str, after: str | None) -> int:
    number, notes = None, []
    with interruptions():
        try:
            code = main()
            # What a signal raised may have become an error of a library, which `main` took for one of the input.
            if not code or code == 128 + (last_signal() or 0):
                return code
            number = last_signal()
        except KeyboardInterrupt as error:
            number, notes = signal_of(error), getattr(error, "__notes__", [])
        except OutputEnded:
            raise
        except (Exception, SystemExit) as error:
            number = last_signal()
            if number is None:
                words = storage_failure_in_words(error) if isinstance(error, OSError) else None
                if words is None:
                    raise
                return ended_by(program, error, words)
    if number is None:
        return code
    if after is None:
        return 0
    print(f"{program}: interrupted ({number.name}). {' '.join(notes) or after}", file=sys.stderr)
    return 128 + number


@contextmanager
def guarded_output(program: str) -> Iterator[None]:
    """Print as [`shell_command`] says; afterwards both streams are as they were.

    Args:
        program (`str`): the command's name, for messages.

    Returns:
        A context manager.

    Raises:
        OutputEnded: if what is printed can no longer be written.
    """
    before = {name: getattr(sys, name) for name in ("stdout", "stderr")}
    streams = {name: _GuardedStream(stream, program) for name, stream in before.items() if stream is not None}
    for name, stream in streams.items():
        setattr(sys, name, stream)
    try:
        yield
    finally:
        for name, stream in before.items():
            setattr(sys, name, stream)
        ended = [stream.leave() for stream in streams.values()]
        for end in filter(None, ended):
            raise end from None


class _GuardedStream:
    """A text stream whose failures end the program."""

    def __init__(self, stream, program: str):
        self._stream = stream
        self._program = program
        self._ended: OutputEnded | None = None
        # What somebody chose otherwise, such as `replace`, stays.
        self._errors = getattr(stream, "errors", None)
        self._is_reconfigured = self._errors in ("strict", "surrogateescape") and hasattr(stream, "reconfigure")
        if self._is_reconfigured:
            stream.reconfigure(errors=ENCODING_ERRORS)

    def __getattr__(self, name: str):
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with self._ending():
            return self._stream.write(text)

    def writelines(self, lines):
        for line in lines:
            self.write(line)

    def flush(self):
        with self._ending():
            self._stream.flush()

    def leave(self) -> OutputEnded | None:
        """Write what is still waiting and make the stream what it was; tell of an end, also of one in another thread."""
        with suppress(OutputEnded):
            self.flush()
        if self._is_reconfigured:
            self._stream.reconfigure(errors=self._errors)
        return self._ended

    @contextmanager
    def _ending(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._discard_the_rest()
            # Windows tells of a closed pipe as EINVAL.
            is_closed = isinstance(error, BrokenPipeError) or (os.name == "nt" and error.errno == errno.EINVAL)
            words = f"{self._program}: what it prints cannot be written: {error.strerror}."
            self._ended = OutputEnded(CLOSED_PIPE_CODE if is_closed else words)
            raise self._ended from None

    def _discard_the_rest(self):
        """Let the file behind the stream swallow everything, or Python itself would fail when it flushes at its end."""
        try:
            number = self._stream.fileno()
        except (AttributeError, io.UnsupportedOperation):  # a stream in memory
            return
        sink = os.open(os.devnull, os.O_WRONLY)
        os.dup2(sink, number)
        os.close(sink)


def _encode_anyway(error: UnicodeError) -> tuple[str | bytes, int]:
    """An error handler for encoding: what was never text as the byte that it is, any other character as an escape."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    character = error.object[error.start]
    if "\udc80" <= character <= "\udcff":  # Python's stand-in for such a byte of a file's name
        return bytes([ord(character) - 0xDC00]), error.start + 1
    return character.encode("ascii", "backslashreplace").decode("ascii"), error.start + 1


codecs.register_error(ENCODING_ERRORS, _encode_anyway)

"""Python in a child process without its imports: forked off a process that has imported everything.

A command of the kit imports torch, transformers and datasets for three to four seconds of processor time before it does
anything. Tests that want a process of its own, not a fresh import, ask here: each process that runs tests forks two parents
off itself, one when it has imported stock Transformers and nothing of the kit, one before its first test, when the tests'
imports are done. A parent forks a child for every call, gives it environment, folder, arguments and streams, and lets what
reads the environment while it is imported read it again.
"""

import atexit
import contextlib
import faulthandler
import gc
import importlib
import json
import logging
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from pathlib import Path
from typing import IO

from undrawn_pictures import leave_out_pictures_if_told

IMPORTED = (
    "torch",
    "transformers",
    "transformers.pipelines.audio_classification",
    "transformers.models.audio_spectrogram_transformer",
    "datasets",
    "huggingface_hub",
    "matplotlib.backends.backend_agg",
    "finetune.run_finetune",
    "finetune.dry_runs.dry_run",
    "finetune.run_evaluate",
    "finetune.results.publishing",
    "finetune.results.pushing",
    "model_card.push_to_hub",
    "model_card.render",
    "modeling_ast.run_tagging",
    "modeling_ast.tagging.tagger",
    "modeling_ast.registration",
    "conversion.run_conversion",
    "conversion.convert_ast_checkpoint",
)
# What these read in the environment they read while they are imported.
READ_AGAIN = ("huggingface_hub.constants", "datasets.config")
COPIES = {  # names that other modules took from there
    "huggingface_hub.utils.tqdm": ("HF_HUB_DISABLE_PROGRESS_BARS",),
    "huggingface_hub.utils._cache_manager": ("HF_HUB_CACHE",),
    "huggingface_hub.utils._cache_assets": ("HF_ASSETS_CACHE",),
    "huggingface_hub.utils._git_credential": ("ENDPOINT",),
}
STOCK = (
    "torch",
    "transformers.pipelines.audio_classification",
    "transformers.models.audio_spectrogram_transformer",
    "transformers.models.auto.modeling_auto",
)
_parents: dict[str, socket.socket] = {}
_asking = threading.Lock()


def run(
    arguments: list,
    env: dict[str, str] | None = None,
    cwd: Path | None = None,
    timeout: float = 300,
    given: str = "",
    stock: bool = False,
) -> subprocess.CompletedProcess:
    """Do what `subprocess.run([sys.executable, *arguments], capture_output=True, text=True)` does.

    Args:
        arguments (`list`): `["-c", code, ...]`, `["-m", module, ...]` or `[script, ...]`, as `python` takes them.
        env (`dict`, *optional*): the child's environment, by default this process's.
        cwd (`Path`, *optional*): the child's folder.
        timeout (`float`): seconds after which it is killed.
        given (`str`): what it can read from its standard input.
        stock (`bool`): it has imported stock Transformers and nothing of the kit.

    Returns:
        `subprocess.CompletedProcess`: with `stdout` and `stderr` as text; a signal that ended it as a negative code.

    Raises:
        subprocess.TimeoutExpired: if it took longer.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err, tempfile.TemporaryFile() as standard_input:
        standard_input.write(given.encode())
        standard_input.seek(0)
        with Child(arguments, out, err, env, cwd, standard_input=standard_input, stock=stock) as child:
            try:
                code = child.wait(timeout)
            except TimeoutError:
                child.send_signal(signal.SIGKILL)
                raise subprocess.TimeoutExpired(child.arguments, timeout) from None
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode())
    return subprocess.CompletedProcess([sys.executable, *child.arguments], code, *texts)


class StockSubprocess:
    """Stands for the module `subprocess` where a script runs with stock Transformers alone, in an isolated interpreter.

    Where pytest was given the files of some rooms, whose `conftest.py` it imports first, it is such an interpreter.
    """

    PIPE = subprocess.PIPE

    @staticmethod
    def run(command: list, input: str, check: bool = False, **_) -> subprocess.CompletedProcess:
        """Run the script in a process that has imported stock Transformers already.

        Args:
            command (`list`): `[sys.executable, "-I", script, ...]`.
            input (`str`): what the script can read from its standard input.
            check (`bool`): raise an error where it fails.

        Returns:
            `subprocess.CompletedProcess`: as [`run`] returns it.

        Raises:
            subprocess.CalledProcessError: if it fails and `check` is true.
        """
        assert command[:2] == [sys.executable, "-I"]
        if "stock" not in _parents:
            return subprocess.run(command, input=input, check=check, capture_output=True, text=True)
        done = run(command[2:], given=input, stock=True)
        if check:
            done.check_returncode()
        return done


class Child:
    """What `subprocess.Popen([sys.executable, *arguments])` is: a child that runs beside the test, until it is waited for.

    Args:
        arguments (`list`): `["-c", code, ...]`, `["-m", module, ...]` or `[script, ...]`, as `python` takes them.
        out, err (`IO`): open files for what it prints.
        env (`dict`, *optional*): the child's environment, by default this process's.
        cwd (`Path`, *optional*): the child's folder.
        session (`bool`): gives it a process group of its own, of its number.
        standard_input (`IO`, *optional*): an open file; nothing if not given.
        stock (`bool`): it has imported stock Transformers and nothing of the kit.
    """

    def __init__(
        self,
        arguments: list,
        out: IO,
        err: IO,
        env: dict[str, str] | None = None,
        cwd: Path | None = None,
        session: bool = False,
        standard_input: IO | None = None,
        stock: bool = False,
    ):
        self.arguments, self.code = [str(argument) for argument in arguments], None
        asked = {
            "arguments": self.arguments,
            "env": dict(os.environ if env is None else env),
            "cwd": str(cwd or Path.cwd()),
            "session": session,
        }
        content = json.dumps(asked).encode()
        self._ours, theirs = socket.socketpair()
        with theirs, open(os.devnull) as nothing:
            descriptors = [theirs.fileno(), (standard_input or nothing).fileno(), out.fileno(), err.fileno()]
            with _asking:
                socket.send_fds(
                    _parents["stock" if stock else "kit"], [len(content).to_bytes(4, "big") + content], descriptors
                )
        self._answers = self._ours.makefile("r")
        self.pid = int(self._answers.readline())
        while session and os.getsid(self.pid) != self.pid:  # a signal to its group would be one to that of pytest
            time.sleep(0.001)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._answers.close()
        self._ours.close()

    def poll(self) -> int | None:
        """Ask whether it has ended.

        Returns:
            Its exit code, that of a signal being negative; `None` while it runs.
        """
        if self.code is None and select.select([self._ours], [], [], 0)[0]:
            self.code = int(self._answers.readline())
        return self.code

    def wait(self, timeout: float = 300) -> int:
        """Wait for its end.

        Args:
            timeout (`float`): seconds.

        Returns:
            Its exit code, that of a signal being negative.

        Raises:
            TimeoutError: if it took longer.
        """
        if self.code is None and not select.select([self._ours], [], [], timeout)[0]:
            raise TimeoutError
        return self.poll()

    def send_signal(self, number: int):
        """Send it a signal, if it has not ended.

        Args:
            number (`int`): of the signal.
        """
        if self.poll() is None:
            os.kill(self.pid, number)


def begin(stock: bool = False):
    """Fork the parent of children off this process, as it is before any test has changed it.

    Args:
        stock (`bool`): it is the parent of those that have imported stock Transformers and nothing of the kit.
    """
    imported = STOCK if stock else (*IMPORTED, *READ_AGAIN, *COPIES)
    if stock and "modeling_ast" in sys.modules:
        return
    if stock:  # what this process needs anyway; the rest is imported when it is first needed
        for name in imported:
            importlib.import_module(name)
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if not pid:
        try:
            _forget_pytest(theirs)
            _serve(theirs, imported, stock)
        finally:
            os._exit(0)
    theirs.close()
    atexit.register(_end, os.getpid(), ours, pid)
    _parents["stock" if stock else "kit"] = ours


def _end(of_process: int, asked: socket.socket, pid: int):
    """End a parent, and wait for it, so that its processor time is that of the tests; its children have no part in that."""
    if os.getpid() == of_process:
        asked.close()
        os.waitpid(pid, 0)


def _forget_pytest(asked: socket.socket):
    """Undo what a process that runs tests has of pytest, and hold none of its pipes open."""
    sys.stdin, sys.stdout, sys.stderr = sys.__stdin__, sys.__stdout__, sys.__stderr__
    sys.unraisablehook, threading.excepthook = sys.__unraisablehook__, threading.__excepthook__
    sys.meta_path[:] = [finder for finder in sys.meta_path if not type(finder).__module__.startswith("_pytest")]
    logging.getLogger().handlers.clear()
    faulthandler.disable()
    with open(os.devnull, "r+") as nothing:
        for descriptor in map(int, os.listdir("/proc/self/fd")):
            if descriptor not in (nothing.fileno(), asked.fileno()):
                with contextlib.suppress(OSError):  # that of the listing
                    os.fstat(descriptor)
                    os.dup2(nothing.fileno(), descriptor, inheritable=descriptor < 3)


def _serve(asked: socket.socket, imported: tuple[str, ...], stock: bool):
    """Fork a child for every call."""
    children = {}
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, lambda *_: _tell_of_the_dead(children))
    everything_is_imported = False
    while True:
        start, descriptors, _, _ = socket.recv_fds(asked, 4, 4)
        if not start:
            return
        content = b""
        while len(content) < int.from_bytes(start, "big"):
            content += asked.recv(int.from_bytes(start, "big") - len(content))
        if not everything_is_imported:
            _import(imported)
            everything_is_imported = True
        answers, *streams = descriptors
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
        pid = os.fork()
        if not pid:
            asked.close()
            os.close(answers)
            for other in children.values():
                os.close(other)
            for number, descriptor in enumerate(streams):
                os.dup2(descriptor, number)
                os.close(descriptor)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
            _be_python(**json.loads(content), stock=stock)
        for descriptor in streams:
            os.close(descriptor)
        os.write(answers, f"{pid}\n".encode())
        children[pid] = answers
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])


def _import(names: tuple[str, ...]):
    for name in names:
        importlib.import_module(name)
    sys.modules["torch"].set_num_threads(1)  # a thread pool would not be there in a child
    gc.collect()
    gc.freeze()  # children would copy the pages that a collection writes to


def _tell_of_the_dead(children: dict[int, int]):
    while children:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        answers = children.pop(pid)
        with contextlib.suppress(BrokenPipeError):
            os.write(answers, f"{os.waitstatus_to_exitcode(status)}\n".encode())
        os.close(answers)


def _be_python(arguments: list[str], env: dict[str, str], cwd: str, session: bool, stock: bool):
    """Run the code or the module as a fresh interpreter would, and end like one."""
    if session:
        os.setsid()
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    tempfile.tempdir = None
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
    for logger in logging.root.manager.loggerDict.values():
        for handler in getattr(logger, "handlers", ()):
            if type(handler) is logging.StreamHandler:
                handler.setStream(sys.stderr)  # in place of the one that pytest captured with while it was made
    if not stock:
        _read_the_environment_again()
        leave_out_pictures_if_told()
    kind, what, *rest = arguments if arguments[0] in ("-c", "-m") else ("script", *arguments)
    main = type(sys)("__main__")
    sys.modules["__main__"] = main
    sys.argv = [kind if kind == "-c" else what, *rest]
    code = 0
    try:
        if kind == "-m":
            runpy.run_module(what, run_name="__main__", alter_sys=True)
        elif kind == "script":
            runpy.run_path(what, run_name="__main__")
        else:
            exec(compile(what, "<string>", "exec"), main.__dict__)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        code = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def _read_the_environment_again():
    for name in READ_AGAIN:
        importlib.reload(sys.modules[name])
    for name, copied in COPIES.items():
        for constant in copied:
            setattr(sys.modules[name], constant, getattr(sys.modules["huggingface_hub.constants"], constant))
    # Functions of `huggingface_hub` are methods of this one.
    sys.modules["huggingface_hub.hf_api"].api.endpoint = sys.modules["huggingface_hub.constants"].ENDPOINT

"""How long an answer of the Hub is waited for, and how a wait for it is ended.

The timeouts of `huggingface_hub` do not do: most of its calls wait for an answer without end, or try again for minutes.
Here its HTTP client is watched: whoever connects, takes a request and answers it is given `ANSWER_SECONDS` for each of
these, also where a byte comes now and then; an upload may take as long as it likes as long as it moves. Requests run in
threads that nothing waits for at the end of the program, so that a signal ends it at once.
"""

import contextvars
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager, suppress
from typing import TypeVar
from urllib.request import getproxies, proxy_bypass

from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled
from huggingface_hub.utils import _http, set_client_factory

ANSWER_SECONDS = 20.0  # without a sign of the other side; with the client's own pauses this stays under 30 s
POLL_SECONDS = 0.1
END_SECONDS = 2.0  # that threads are waited for after an interruption
# A slow line takes a piece, and what lies unsent in the kernel, in less than `ANSWER_SECONDS`, down to 4 kB a second.
PIECE = 1 << 14  # bytes of a request
UNSENT = 1 << 16  # bytes
_Result = TypeVar("_Result")


class HubSilentError(OfflineModeIsEnabled):
    """A server does not answer; the message says which, and after how long that was said.

    As one of being offline it has clients take what is in their cache, and not ask again and again.
    """

    exit_code = 1  # of a command that ends by it: nothing is wrong with what was given


@contextmanager
def hub_answers(seconds: float | None = None, remember: bool = True) -> Iterator[None]:
    """Watch over the requests of `huggingface_hub` in a `with` block, and of what is built on it.

    Args:
        seconds (`float`, *optional*): in place of `ANSWER_SECONDS`.
        remember (`bool`, defaults to `True`): whether a server that did not answer is not asked again for as long, as a
            model of several files would be.

    Returns:
        A context manager.

    Raises:
        HubSilentError: in place of an error that came of one, so that its words are not lost; other errors pass.
    """
    if _active:
        yield
        return
    # There is no other way to learn of a factory that somebody has set, as for a proxy's certificates.
    before, watch = _http._GLOBAL_CLIENT_FACTORY, _Watch(seconds or ANSWER_SECONDS, remember)
    set_client_factory(lambda: watch.over(before()))
    _active.append(watch)
    try:
        yield
    except Exception as error:
        if watch.silence is None or isinstance(error, HubSilentError) or not _is_of_the_hub(error):
            raise
        raise HubSilentError(str(watch.silence)) from error
    finally:
        watch.ended.set()
        _active.clear()
        set_client_factory(before)


def interruptibly(step: Callable[[], _Result]) -> _Result:
    """Take a step that makes requests, within [`hub_answers`], and end it with all its threads where a signal comes.

    Args:
        step (callable without arguments): what makes the requests.

    Returns:
        What the step returned.
    """
    (watch,) = _active
    outcome = _begin(step)
    try:
        # Now and then, as the kernel may give a signal to another thread, which does not end this one's wait.
        while not wait([outcome], POLL_SECONDS).done:
            pass
    except BaseException:
        watch.ended.set()
        with suppress(Exception):  # the client for Xet storage, which has threads of its own
            from huggingface_hub.utils._xet import abort_xet_session

            abort_xet_session()
        wait([outcome], END_SECONDS)
        raise
    return outcome.result()


_active: list["_Watch"] = []  # the one over the process's HTTP client, if there is one


def _begin(call: Callable[[], _Result]) -> "Future[_Result]":
    """Call it in a thread that the end of the program does not wait for."""
    outcome, context = Future(), contextvars.copy_context()

    def run():
        try:
            outcome.set_result(context.run(call))
        except BaseException as error:
            outcome.set_exception(error)

    threading.Thread(target=run, name="hub", daemon=True).start()
    return outcome


def _is_of_the_hub(error: BaseException | None) -> bool:
    """Whether an error says of something that it could not be had from the Hub, as Transformers and Datasets put it."""
    while error is not None:
        # Transformers raises a mere OSError, without the error that it had itself.
        if isinstance(error, (ConnectionError, LocalEntryNotFoundError)) or type(error) is OSError:
            return True
        error = error.__cause__ or error.__context__
    return False


class _Watch:
    """Over the requests of HTTP clients, of whichever library `huggingface_hub` is built on (httpx, httpx2)."""

    def __init__(self, seconds: float, remember: bool):
        self.seconds, self.remember = seconds, remember
        self.ended = threading.Event()
        self.silence: HubSilentError | None = None  # the last one
        self._silent: dict[str, float] = {}  # host to the time up to which it is not asked again

    def over(self, client):
        """Have all requests of a client go through [`_Watch._send`]."""
        library, send = sys.modules[type(client).__module__.partition(".")[0]], client.send
        client.send = lambda request, **kwargs: self._send(library, send, request, **kwargs)
        return client

    def _send(self, library, send: Callable, request, **kwargs):
        host = request.url.netloc.decode("ascii", "replace")
        if self.ended.is_set():
            raise SystemExit  # of a thread, which nothing takes for an error to be tried again
        if time.monotonic() < self._silent.get(host, 0.0):
            raise self._silence(host)
        heard = time.monotonic()

        def hear(event: str = "", info: dict | None = None):
            nonlocal heard
            heard = time.monotonic()
            if event == "connection.connect_tcp.complete":
                _keep_little_unsent(info["return_value"])

        request.extensions = {**request.extensions, "trace": hear}
        request.stream = _in_pieces(request.stream, hear)
        outcome = _begin(lambda: send(request, **kwargs))
        while not wait([outcome], POLL_SECONDS).done:
            if self.ended.is_set():
                raise SystemExit
            if time.monotonic() - heard > self.seconds:
                raise self._fell_silent(host)
        try:
            return outcome.result()
        except library.TimeoutException as error:  # of a limit that the client has set itself
            raise self._fell_silent(host) from error

    def _fell_silent(self, host: str) -> HubSilentError:
        if self.remember:
            self._silent[host] = time.monotonic() + self.seconds
        return self._silence(host)

    def _silence(self, host: str) -> HubSilentError:
        named = [] if proxy_bypass(host) else [name for name in ("https", "http", "all") if name in getproxies()]
        through = f", asked through the proxy that {named[0]}_proxy names" if named else ""
        words = f"{host} does not answer{through}: nothing came for up to {self.seconds:g} s. Check the connection."
        self.silence = HubSilentError(words)
        return self.silence


def _keep_little_unsent(stream):
    """Have the kernel take no more of an upload than a slow line carries away soon, or its moving could not be seen."""
    connection, option = stream.get_extra_info("socket"), getattr(socket, "TCP_NOTSENT_LOWAT", None)
    if option is not None:
        with suppress(OSError):
            connection.setsockopt(socket.IPPROTO_TCP, option, UNSENT)


def _in_pieces(stream, moved: Callable[[], None]):
    """A request's body that tells of each piece that was taken."""

    class Pieces(type(stream)):
        def __init__(self):
            """It has nothing of its own."""

        def __iter__(self):
            for part in stream:
                for start in range(0, len(part), PIECE):
                    yield part[start : start + PIECE]
                    moved()

        def close(self):
            stream.close()

    return Pieces()

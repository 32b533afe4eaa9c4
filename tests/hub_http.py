"""The HTTP side of the loopback Hub (`hub_server.py`): requests, replies, refusals, ranges, and faults on demand."""

import json
import re
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl


@dataclass
class Reply:
    body: bytes | dict | list = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


class HubError(Exception):
    """A refusal: the HTTP status, the Hub's message and, where it has one, its `X-Error-Code`."""

    def __init__(self, status: int, message: str, code: str | None = None, **headers: str):
        super().__init__(message)
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        headers |= {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})
        self.reply = Reply({"error": message}, status, headers)


@dataclass
class Request:
    method: str
    path: str  # percent-encoded, without the query; with scheme and host if it came through the proxy
    query: dict[str, str]
    headers: Message
    body: bytes = b""
    user: str | None = None
    role: str | None = None
    status: int | None = None  # of the answer; None if the connection was cut before it
    came: float = field(default_factory=time.monotonic)

    def json(self) -> dict:
        return json.loads(self.body)

    def content(self, content: bytes, headers: dict[str, str]) -> Reply:
        """A file, or the part of it that the `Range` header asks for."""
        size = len(content)
        asked = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        if not asked or not any(asked.groups()):
            return Reply(content, headers=headers)
        first, last = asked.groups()
        start = int(first) if first else max(0, size - int(last))
        end = min(int(last), size - 1) if first and last else size - 1
        if start > end:
            raise HubError(416, "Requested range not satisfiable", Content_Range=f"bytes */{size}")
        return Reply(content[start : end + 1], 206, headers | {"Content-Range": f"bytes {start}-{end}/{size}"})


@dataclass
class Fault:
    """See `HubServer.fail`, `cut`, `lose_answer` and `fall_silent`."""

    method: str
    path: str
    times: int
    status: int | None = None
    after: int | None = None
    lost: bool = False
    drip: float | None = None
    pace: float | None = None

    def is_due(self, request: Request) -> bool:
        return bool(self.times and self.method == request.method and re.search(self.path, request.path))


class LoopbackServer(ThreadingHTTPServer):
    """Serves on a free port of 127.0.0.1 until it is closed.

    Args:
        answer (`Callable`): from a request to its reply; may raise [`HubError`].
        log (`Log`): the requests, faults and bytes of all servers of a Hub.
    """

    daemon_threads = True

    def __init__(self, answer: Callable[[Request], Reply], log: "Log"):
        super().__init__(("127.0.0.1", 0), _Handler)
        # Some kernels take 33 MB for a server that reads slowly, so that its pace could not be felt.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 18)
        self.answer = answer
        self.log = log
        self.url = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def close(self) -> None:
        self.log.closed.set()
        self.shutdown()
        self.server_close()


@dataclass
class Log:
    requests: list[Request] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    lock: threading.RLock = field(default_factory=threading.RLock)
    closed: threading.Event = field(default_factory=threading.Event)

    def fall_silent(self, method: str, path: str = "", after: int = 0, times: int = 1, drip: float = 0.0) -> None:
        """See `HubServer.fall_silent`."""
        self.faults.append(Fault(method, path, times, after=after, drip=drip))

    def take(self, method: str, path: str = "", bytes_a_second: float = 1e6, times: int = 1) -> None:
        """Read the bodies of the next such requests no faster than that."""
        self.faults.append(Fault(method, path, times, pace=bytes_a_second))

    def fault_of(self, request: Request) -> Fault:
        """The fault that is due for a request, now used up once more, or one that does nothing."""
        with self.lock:
            self.requests.append(request)
            fault = next((fault for fault in self.faults if fault.is_due(request)), Fault("", "", 1))
            fault.times -= 1
            return fault


class _CutError(Exception):
    """Nothing more is to be read or answered here."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *arguments) -> None:
        """Requests are kept in the server's log."""

    def _handle(self) -> None:
        path, _, query = self.path.partition("?")
        request = Request(self.command, path, dict(parse_qsl(query)), self.headers)
        fault = self.server.log.fault_of(request)
        try:
            for piece in self._pieces(fault.after):
                request.body += piece
                time.sleep(len(piece) / fault.pace if fault.pace else 0)
            reply = self._reply(request, fault.status)
            left = None if fault.after is None else fault.after - len(request.body)
            if left == 0 or fault.lost:
                raise _CutError
            request.status = reply.status
            self._send(reply, left)
        except (_CutError, ConnectionError):
            self.close_connection = True
            if fault.drip is not None:
                self._keep_silent(fault.drip)

    def _keep_silent(self, drip: float) -> None:
        """Hold the connection, and send a byte of an answer that never comes every so many seconds."""
        answer = iter(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        with suppress(ConnectionError):
            while not self.server.log.closed.wait(drip or None):
                self.wfile.write(bytes([next(answer, ord("."))]))

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_CONNECT = _handle  # noqa: N815

    def _pieces(self, after: int | None) -> Iterator[bytes]:
        """The request's body, in pieces, up to the byte at which the connection is to be cut."""
        read = 0
        for size in self._sizes():
            allowed = size if after is None else min(size, after - read)
            yield self.rfile.read(allowed)
            if allowed < size:
                raise _CutError
            read += size

    def _sizes(self) -> Iterator[int]:
        """Sizes of the body's pieces, each to be read before the next is asked for."""
        if self.headers.get("Transfer-Encoding") != "chunked":
            length = int(self.headers.get("Content-Length", 0))
            yield from (min(1 << 20, length - start) for start in range(0, length, 1 << 20))
            return
        while size := int(self.rfile.readline(), 16):
            yield size
            self.rfile.readline()
        self.rfile.readline()

    def _reply(self, request: Request, status: int | None) -> Reply:
        try:
            if status is not None:
                raise HubError(status, f"The test asked for {status}", Retry_After="0")
            return self.server.answer(request)
        except HubError as error:
            return error.reply
        except Exception:
            self.server.log.unexpected.append(f"{request.method} {request.path}\n{traceback.format_exc()}")
            return HubError(500, "The loopback Hub failed, see hub.unexpected").reply

    def _send(self, reply: Reply, after: int | None) -> None:
        raw = isinstance(reply.body, bytes)
        body = reply.body if raw else json.dumps(reply.body).encode()
        headers = {"Content-Type": "application/octet-stream" if raw else "application/json; charset=utf-8"}
        self.send_response(reply.status)
        for name, value in (headers | {"Content-Length": str(len(body))} | reply.headers).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[:after])
        if after is not None and after < len(body):
            raise _CutError

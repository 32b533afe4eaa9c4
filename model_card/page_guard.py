"""What the demo page's server lets in: calls of its own page, under its own names, of bounded size, onto a bounded disk.

Gradio keeps other web pages from *reading* what it answers (`strict_cors`), but stores what they send and computes it, and
takes any `Host`, under which a name that was bound anew to this machine (DNS rebinding) makes another page its own. The
rule here is that of browsers' Fetch Metadata (https://www.w3.org/TR/fetch-metadata/), with `Origin` where a browser sends
none of it; programs send neither and are let in.
"""

import ctypes
from collections.abc import Iterable
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from gradio.utils import get_upload_folder
from starlette.datastructures import Headers
from starlette.formparsers import MultiPartException
from starlette.middleware import Middleware
from starlette.responses import JSONResponse, PlainTextResponse, Response

API = "/gradio_api"
READING = ("GET", "HEAD", "OPTIONS")
LARGEST_CALL = 1_000_000  # bytes of what is no upload; a page sends some hundreds
ROUND_A_FILE = 10_000  # bytes of a form around its file
MOST_FILES_KEPT = 100  # of the largest size, or more smaller ones
_M_ARENA_MAX, _HEAPS = -8, 2  # of glibc's malloc.h


def keep_few_heaps():
    """Let all threads take memory from two heaps. With one for each, as glibc has it, what uploads leave behind adds up.

    To be called before there are threads; elsewhere than with glibc it does nothing.
    """
    with suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, _HEAPS)


class PageGuard:
    """ASGI middleware before the page.

    Args:
        app: what it stands before.
        max_bytes (`int`): of an uploaded file.
        folder (`Path`): where uploads are stored.
        most_waiting (`int`): requests that the page's queue takes.
        hosts (iterable of `str`, *optional*): names that the page is served at; any if not given, as on a server that
            everybody may reach. An address needs no leave: no name was bound to it anew.
        proxied (iterable of `str`, *optional*): names under which a proxy shows it, which may pass on another `Host`.
    """

    def __init__(
        self,
        app,
        max_bytes: int,
        folder: Path,
        most_waiting: int,
        hosts: Iterable[str] | None = None,
        proxied: Iterable[str] = (),
    ):
        self.app = app
        self.max_bytes = max_bytes
        self.folder = folder
        self.most_waiting = most_waiting
        self.proxied = {name.lower() for name in proxied}
        self.hosts = None if hosts is None else {host.lower() for host in hosts} | self.proxied
        self.arriving = 0  # bytes of uploads that are still to come

    async def __call__(self, scope, receive, send):
        """Answer a request or hand it on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        refused = self._refused(scope, headers)
        if refused is not None:
            await refused(scope, receive, send)
        elif scope["path"].rstrip("/") == f"{API}/upload":
            await self._upload(scope, headers, receive, send)
        else:
            await self.app(scope, _bounded(receive, LARGEST_CALL), self._telling(send))

    def _refused(self, scope, headers: Headers) -> Response | None:
        """What a request is refused with, before any of its body is read."""
        host = _name(headers.get("host", ""))
        if self.hosts is not None and not _is_address(host) and host not in self.hosts:
            words = (
                f"This page is not served under the name {host!r}. If you reach it through a proxy, start it with "
                f"--allowed_host {host or 'NAME'}."
            )
            return PlainTextResponse(words, 400)
        if scope["method"] in READING and not scope["path"].startswith(API):
            return None
        if not self._is_own(headers):
            return PlainTextResponse("Only this page itself may call here, not another web page.", 403)
        return None

    async def _upload(self, scope, headers: Headers, receive, send):
        """Let a file in if there is room for it, and what is there of it go if its sender leaves."""
        most = self.max_bytes + ROUND_A_FILE
        announced = headers.get("content-length", "")
        size = int(announced) if announced.isdecimal() else most
        if size > most:
            await _read_away(receive, most)
            words = f"The file exceeds the maximum allowed size of {self.max_bytes / 1e6:g} MB."
            await PlainTextResponse(words, 413)(scope, receive, send)
            return
        if self.arriving + size + _stored(self.folder) > MOST_FILES_KEPT * self.max_bytes:
            await _read_away(receive, most)
            words = (
                f"The page is busy: it keeps up to {MOST_FILES_KEPT * self.max_bytes / 1e6:g} MB of recordings, each for an "
                "hour, and has no room for another. Try again later."
            )
            await PlainTextResponse(words, 507)(scope, receive, send)
            return
        self.arriving += size
        left = size  # what came is counted in the folder

        async def counted():
            nonlocal left
            message = await receive()
            came = min(left, len(message.get("body", b"")))
            left -= came
            self.arriving -= came
            return message

        try:
            await self.app(scope, _bounded(counted, most), send)
        finally:
            self.arriving -= left

    def _is_own(self, headers: Headers) -> bool:
        """Whether a request is one of the page itself, or of a program that is no browser."""
        site = headers.get("sec-fetch-site")
        if site is not None:
            return site in ("same-origin", "none")
        origin = headers.get("origin")
        if origin is None:
            return True
        own = urlsplit(origin).netloc.lower() == headers.get("host", "").lower()
        return own or _name(urlsplit(origin).netloc) in self.proxied

    def _telling(self, send):
        """Send on, but in place of "queue full" how many are waiting: of a 503 Gradio's page shows no word, of a 429 it does."""
        held = None

        async def telling(message):
            nonlocal held
            if message["type"] == "http.response.start" and message["status"] == 503:
                held = message
                return
            if held is not None:
                start, held = held, None
                if b"Queue is full" in message["body"]:
                    words = f"The page is busy: {self.most_waiting} requests are waiting, as many as it takes. Try again in a minute."
                    await JSONResponse({"detail": words}, 429)({"type": "http"}, None, send)
                    return
                await send(start)
            await send(message)

        return telling


def guarded(
    max_megabytes: float, most_waiting: int, hosts: Iterable[str] | None, proxied: Iterable[str]
) -> Middleware:
    """Make what an app with the page is given as one of its `middleware`.

    Args:
        max_megabytes (`float`): of an uploaded file.
        most_waiting (`int`): see [`PageGuard`].
        hosts (iterable of `str`, *optional*): see [`PageGuard`].
        proxied (iterable of `str`): see [`PageGuard`].

    Returns:
        `starlette.middleware.Middleware`.
    """
    return Middleware(
        PageGuard,
        max_bytes=round(max_megabytes * 1e6),
        folder=Path(get_upload_folder()),
        most_waiting=most_waiting,
        hosts=hosts,
        proxied=proxied,
    )


def _name(host: str) -> str:
    """A `Host` without its port: `[::1]:7860` is `::1`."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _stored(folder: Path) -> int:
    """Bytes of all files in a folder, some of which may be going away."""
    sizes = 0
    for path in folder.rglob("*"):
        with suppress(OSError):
            sizes += path.stat().st_size
    return sizes


async def _read_away(receive, most: int):
    """Take what is sent, of which no more than `most` bytes: who still sends reads no answer."""
    more = True
    while more and most > 0:
        message = await receive()
        most -= len(message.get("body", b""))
        more = message.get("more_body", False)


def _bounded(receive, most: int):
    """Receive up to `most` bytes of a body; more of it, and a sender who leaves, end as errors that remove what is stored."""
    is_whole = False

    async def receiving():
        nonlocal most, is_whole
        message = await receive()
        if message["type"] == "http.request":
            most -= len(message.get("body", b""))
            is_whole = not message.get("more_body", False)
            if most < 0:
                raise MultiPartException("What is sent exceeds the maximum allowed size.")
        elif not is_whole:
            raise MultiPartException("The sender left.")
        return message

    return receiving

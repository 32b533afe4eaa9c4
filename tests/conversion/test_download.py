"""Downloads from a server on this machine that misbehaves in every way asked of it."""

import dataclasses
import gzip
import http.server
import io
import json
import os
import re
import socket
import struct
import sys
import threading
import time
import zipfile
from functools import partial
from pathlib import Path

import pytest
from huggingface_hub import close_session, constants

from conversion import download, released_checkpoints
from conversion.download import download_checkpoint
from conversion.errors import ConversionError
from conversion.released_checkpoints import RELEASED

NAME = "audioset_10_10_0.4593"
PIECE = 16_384  # bytes that the server sends at a time


class Server(http.server.ThreadingHTTPServer):
    """Serves `body`; the attributes say how badly, the lists what happened."""

    daemon_threads = True

    def __init__(self, body: bytes):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.body = body
        self.statuses = []  # one per request, until used up: answer with this and nothing else
        self.cuts = []  # one per request, until used up: bytes of the body to send before the connection ends
        self.always_cut_at = None  # never send this byte of the file or a later one
        self.reset = False  # whether a cut resets the connection, which loses what is under way
        self.stall_at = None  # send nothing more from this byte on, and keep the connection
        self.serves_ranges = True
        self.tells_length = True
        self.etag = None
        self.content_type = "application/binary"
        self.shift_of_pieces = 0  # a faulty server sends another piece than was asked for
        self.requests = []  # (method, path, headers)
        self.body_bytes_sent = 0
        self.released = threading.Event()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/s/key/{NAME}.pth?dl=1"

    @property
    def ranges(self) -> list:
        return [headers.get("Range") for _, path, headers in self.requests if path.startswith("/content")]

    def handle_error(self, request, client_address):
        if not isinstance(sys.exception(), OSError):  # a client that hangs up is what some tests are about
            super().handle_error(request, client_address)


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_arguments):
        pass

    def do_GET(self):  # noqa: N802
        server = self.server
        server.requests.append((self.command, self.path, self.headers))
        if len(server.requests) > 200:  # a download that never ends fails its test instead of hanging it
            self.send_error(404)
            return
        if not self.path.startswith("/content"):  # as Dropbox does: every address is a redirect
            self.send_response(302)
            self.send_header("Location", "/content/once")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if server.statuses:
            self.send_error(server.statuses.pop(0))
            return
        start, body = self._range_start(), server.body
        if start is not None and start >= len(body):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(body)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(200 if start is None else 206)
        self.send_header("Content-Type", server.content_type)
        if server.etag:
            self.send_header("ETag", server.etag)
        if start is not None:
            start += server.shift_of_pieces
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        start = start or 0
        if "gzip" in self.headers.get("Accept-Encoding", ""):
            self.send_header("Content-Encoding", "gzip")
            body, start = gzip.compress(body), 0
        if server.tells_length:
            self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        self._send_body(body, start)

    def _range_start(self) -> int | None:
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if asked is None or not self.server.serves_ranges:
            return None
        if self.headers.get("If-Range") not in (None, self.server.etag):
            return None
        return int(asked[1])

    def _send_body(self, body: bytes, start: int):
        server, end = self.server, len(body)
        if server.cuts:
            end = min(end, start + server.cuts.pop(0))
        if server.always_cut_at is not None:
            end = min(end, server.always_cut_at)
        if server.stall_at is not None:
            end = min(end, server.stall_at)
        for position in range(start, end, PIECE):
            piece = body[position : min(position + PIECE, end)]
            self.wfile.write(piece)
            server.body_bytes_sent += len(piece)
        self.close_connection = True
        if server.stall_at is not None:
            server.released.wait(30)
        elif server.reset and end < len(body):
            time.sleep(0.05)  # let what was sent arrive
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            os.close(self.connection.detach())


def make_archive(seed: bytes, size: int = 800_000) -> bytes:
    """A zip archive with one file of `size` bytes, which the small row allows."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("archive/data.pkl", (seed * size)[:size])
    return content.getvalue()


ARCHIVE = make_archive(b"first version of the file ")
OTHER_ARCHIVE = make_archive(b"another version of the same length ")
ENDS = (1, len(ARCHIVE) // 2, len(ARCHIVE) - 1)


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)  # read from the environment when it was imported
    monkeypatch.setattr(download, "PAUSE", 0.0)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1,localhost")
    close_session()  # a client remembers the proxies it was made with
    server = Server(ARCHIVE)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.released.set()
    server.shutdown()
    thread.join()
    server.server_close()
    close_session()


@pytest.fixture
def row(server, monkeypatch):
    monkeypatch.setitem(released_checkpoints.HIDDEN_SIZES, "mini", 32)
    dataset = dataclasses.replace(RELEASED[NAME].dataset, max_length=96, num_labels=9)
    row = dataclasses.replace(RELEASED[NAME], address=server.address, model_size="mini", dataset=dataset)
    assert row.smallest_bytes < len(ARCHIVE) == len(OTHER_ARCHIVE) < row.largest_bytes
    return row


def read_only_file(folder: Path) -> bytes:
    """The finished file's content, after making sure that nothing else is left."""
    assert [path.name for path in folder.iterdir()] == [f"{NAME}.pth"]
    return (folder / f"{NAME}.pth").read_bytes()


def leave_part(row, server, folder: Path, size: int) -> Path:
    """Let a first call fail after `size` bytes."""
    server.always_cut_at = size
    with pytest.raises(ConversionError):
        download_checkpoint(row, folder)
    server.always_cut_at = None
    server.requests.clear()
    part = folder / f"{NAME}.pth.part"
    assert part.stat().st_size == size
    return part


def test_whole_file_through_a_redirect(row, server, tmp_path):
    folder = tmp_path / "new" / "folder"
    assert download_checkpoint(row, folder) == folder / f"{NAME}.pth"
    assert read_only_file(folder) == ARCHIVE
    assert [path for _, path, _ in server.requests] == [f"/s/key/{NAME}.pth?dl=1", "/content/once"]


def test_no_token_is_sent(row, server, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("HUGGING_FACE_HUB_TOKEN", "hf_secret")
    download_checkpoint(row, tmp_path)
    for _, path, headers in server.requests:
        assert "hf_secret" not in f"{path} {headers}"
        assert "Authorization" not in headers


def test_a_file_that_is_there_is_used(row, server, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    (tmp_path / f"{NAME}.pth").write_bytes(ARCHIVE)
    assert download_checkpoint(row, tmp_path) == tmp_path / f"{NAME}.pth"
    assert "is already there and is used as it is" in capsys.readouterr().out
    assert not server.requests


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", "it begins with b''"),
        (b"<!DOCTYPE html>" + bytes(800_000), "it begins with b'<!DO'"),
        (ARCHIVE[:1000], "it has 1,000 bytes, and the checkpoint has"),
        (ARCHIVE[:-1000], "it is a broken zip archive"),
        (ARCHIVE[:5000] + b"?" + ARCHIVE[5001:], "its checksum of archive/data.pkl is wrong"),
        (b"\x80\x02" + bytes(2_000_000), "it has 2,000,002 bytes"),
    ],
)
def test_file_that_is_there_but_not_whole_is_replaced(row, tmp_path, capsys, content, fault):
    (tmp_path / f"{NAME}.pth").write_bytes(content)
    download_checkpoint(row, tmp_path)
    assert f"is there, but {fault}" in capsys.readouterr().out
    assert read_only_file(tmp_path) == ARCHIVE


def test_faulty_file_stays_until_the_new_one_is_whole(row, server, tmp_path):
    (tmp_path / f"{NAME}.pth").write_bytes(b"old")
    server.always_cut_at = 1000
    with pytest.raises(ConversionError):
        download_checkpoint(row, tmp_path)
    assert (tmp_path / f"{NAME}.pth").read_bytes() == b"old"


def test_old_format_is_accepted(row, server, tmp_path):
    server.body = b"\x80\x02" + bytes(800_000)
    download_checkpoint(row, tmp_path)
    assert read_only_file(tmp_path) == server.body


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("end", ENDS)
def test_cut_connection_is_continued(row, server, tmp_path, end, reset):
    server.cuts, server.reset = [end], reset
    download_checkpoint(row, tmp_path)
    assert read_only_file(tmp_path) == ARCHIVE
    assert server.ranges == [None, f"bytes={end}-"]


def test_connection_that_is_cut_again_and_again(row, server, tmp_path):
    server.cuts = [80_000] * 9
    download_checkpoint(row, tmp_path)
    assert read_only_file(tmp_path) == ARCHIVE
    assert server.ranges == [None, *(f"bytes={count * 80_000}-" for count in range(1, 10))]


def test_a_silent_connection_is_given_up_and_continued(row, server, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "TIMEOUT", 0.2)
    server.stall_at = 300_000
    with pytest.raises(ConversionError, match=r"the connection to 127.0.0.1 failed \(.*timed out.*300,000 bytes"):
        download_checkpoint(row, tmp_path)
    server.stall_at = None
    download_checkpoint(row, tmp_path)
    assert read_only_file(tmp_path) == ARCHIVE


@pytest.mark.parametrize("end", ENDS)
def test_second_call_continues(row, server, tmp_path, end):
    leave_part(row, server, tmp_path, end)
    download_checkpoint(row, tmp_path)
    assert read_only_file(tmp_path) == ARCHIVE
    assert server.ranges == [f"bytes={end}-"]


class Terminal(io.StringIO):
    """What a progress bar draws itself on."""

    def isatty(self) -> bool:
        return True


def test_progress_bar_counts_what_is_there(row, server, tmp_path, monkeypatch):
    leave_part(row, server, tmp_path, 400_065)
    terminal = Terminal()
    monkeypatch.setattr(download, "tqdm", partial(download.tqdm, file=terminal))
    download_checkpoint(row, tmp_path)
    drawn = terminal.getvalue()
    assert f"{NAME}:  50%" in drawn
    assert f"{NAME}: 100%" in drawn.split("\r")[-1]
    assert "800k/800k" in drawn


def test_a_whole_part_of_a_killed_call_is_taken(row, server, tmp_path):
    (tmp_path / f"{NAME}.pth.part").write_bytes(ARCHIVE)
    download_checkpoint(row, tmp_path)
    assert read_only_file(tmp_path) == ARCHIVE
    assert server.ranges == [f"bytes={len(ARCHIVE)}-"]
    assert server.body_bytes_sent == 0


def test_a_body_that_always_ends_early(row, server, tmp_path):
    server.always_cut_at = 500_000
    with pytest.raises(ConversionError) as caught:
        download_checkpoint(row, tmp_path)
    message = str(caught.value)
    assert "\n" not in message
    assert "The same command continues with the 500,000 bytes that are here." in message
    assert f"You can also download {row.address} in a browser and type ast-convert FILE.pth OUTPUT_DIR." in message
    assert len(server.ranges) == 1 + download.FUTILE_REQUESTS
    server.always_cut_at = None
    download_checkpoint(row, tmp_path)
    assert read_only_file(tmp_path) == ARCHIVE


def test_a_server_without_ranges_starts_over(row, server, tmp_path):
    server.serves_ranges = False
    server.cuts = [500_000]
    download_checkpoint(row, tmp_path)
    assert read_only_file(tmp_path) == ARCHIVE
    assert server.ranges == [None, "bytes=500000-"]
    (tmp_path / f"{NAME}.pth").unlink()
    server.always_cut_at = 500_000
    with pytest.raises(ConversionError, match="could not be downloaded"):
        download_checkpoint(row, tmp_path)


def test_a_server_without_length(row, server, tmp_path):
    server.tells_length = False
    server.cuts = [500_000]  # less than any checkpoint has: must be taken as cut
    download_checkpoint(row, tmp_path)
    assert read_only_file(tmp_path) == ARCHIVE
    assert server.ranges == [None, "bytes=500000-"]


def test_a_server_without_length_that_stops_near_the_end(row, server, tmp_path):
    server.tells_length = False
    server.cuts = [len(ARCHIVE) - 10]
    with pytest.raises(ConversionError, match="but it is a broken zip archive.*It was removed; try again"):
        download_checkpoint(row, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_server_without_length_that_never_stops(row, server, tmp_path):
    server.tells_length, server.body = False, b"\x80" + bytes(64_000_000)
    with pytest.raises(ConversionError, match="was downloaded, but it has .* bytes, and the checkpoint has"):
        download_checkpoint(row, tmp_path)
    assert server.body_bytes_sent < 32_000_000  # what sockets buffer
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("surplus", [b"", b"more"])
def test_a_part_of_another_version_is_not_taken(row, server, tmp_path, surplus):
    (tmp_path / f"{NAME}.pth.part").write_bytes(OTHER_ARCHIVE[:300_000] if not surplus else ARCHIVE + surplus)
    if not surplus:  # joined, it has the right length, and the archive's checksum tells
        with pytest.raises(ConversionError, match="its checksum of archive/data.pkl is wrong. It was removed"):
            download_checkpoint(row, tmp_path)
    download_checkpoint(row, tmp_path)
    assert read_only_file(tmp_path) == ARCHIVE


def test_a_piece_from_another_place_is_not_joined(row, server, tmp_path):
    leave_part(row, server, tmp_path, 300_000)
    server.shift_of_pieces = 1000
    download_checkpoint(row, tmp_path)
    assert read_only_file(tmp_path) == ARCHIVE
    assert server.ranges == ["bytes=300000-", None]


def test_web_page_is_refused_before_it_is_fetched(row, server, tmp_path):
    server.content_type, server.body, server.tells_length = "text/html; charset=utf-8", bytes(64_000_000), False
    with pytest.raises(ConversionError) as caught:
        download_checkpoint(row, tmp_path)
    assert "127.0.0.1 answers with a page (text/html; charset=utf-8) instead of the file" in str(caught.value)
    assert "type ast-convert FILE.pth OUTPUT_DIR" in str(caught.value)
    assert server.body_bytes_sent < 32_000_000  # what sockets buffer
    assert list(tmp_path.iterdir()) == []


def test_web_page_leaves_the_part_alone(row, server, tmp_path):
    part = leave_part(row, server, tmp_path, 300_000)
    server.content_type = "text/html"
    with pytest.raises(ConversionError, match="answers with a page"):
        download_checkpoint(row, tmp_path)
    assert part.stat().st_size == 300_000


@pytest.mark.parametrize("length", [1000, 64_000_000])
def test_wrong_length_is_refused_before_it_is_fetched(row, server, tmp_path, length):
    server.body = b"\x80" + bytes(length - 1)
    with pytest.raises(ConversionError) as caught:
        download_checkpoint(row, tmp_path)
    expected = f"127.0.0.1 offers has {length:,} bytes, and the checkpoint has {row.smallest_bytes:,} to "
    assert expected in str(caught.value)
    assert server.body_bytes_sent < 32_000_000
    assert list(tmp_path.iterdir()) == []


def test_neither_zip_nor_pickle_is_refused(row, server, tmp_path):
    server.body = b"\x1f\x8b" + bytes(800_000)
    with pytest.raises(ConversionError) as caught:
        download_checkpoint(row, tmp_path)
    assert "was downloaded, but it begins with b'\\x1f\\x8b" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_missing_file(row, server, tmp_path):
    server.statuses = [404]
    with pytest.raises(ConversionError, match=f"127.0.0.1 answers HTTP 404 to {re.escape(row.address)}"):
        download_checkpoint(row, tmp_path)
    assert len(server.ranges) == 1


def test_a_broken_server(row, server, tmp_path):
    server.statuses = [500] * 9
    with pytest.raises(
        ConversionError, match="127.0.0.1 answers HTTP 500. The same command continues with the 0 bytes"
    ):
        download_checkpoint(row, tmp_path)
    assert len(server.ranges) == download.FUTILE_REQUESTS


@pytest.mark.parametrize("status", [408, 429, 503])
def test_busy_server_is_asked_again_after_a_pause(row, server, tmp_path, monkeypatch, status):
    pauses = []
    monkeypatch.setattr(download.time, "sleep", pauses.append)
    server.statuses = [status]
    download_checkpoint(row, tmp_path)
    assert read_only_file(tmp_path) == ARCHIVE
    assert pauses == [download.PAUSE]


def test_refused_connection(row, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: a connection is refused
        address = f"http://127.0.0.1:{taken.getsockname()[1]}/file"
        with pytest.raises(ConversionError) as caught:
            download_checkpoint(dataclasses.replace(row, address=address), tmp_path)
    assert "the connection to 127.0.0.1 failed (" in str(caught.value)
    assert f"You can also download {address} in a browser and type ast-convert FILE.pth OUTPUT_DIR" in str(
        caught.value
    )


def test_unknown_host(row, tmp_path, monkeypatch):
    def fail(*_arguments, **_options):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    row = dataclasses.replace(row, address="http://host.invalid/file")
    with pytest.raises(
        ConversionError, match=r"the connection to host.invalid failed \(.*Name or service not known\)"
    ):
        download_checkpoint(row, tmp_path)


def test_host_that_says_nothing(row, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/file"
        started = time.monotonic()
        with pytest.raises(ConversionError, match=r"127.0.0.1:\d+ does not answer: nothing came"):
            download_checkpoint(dataclasses.replace(row, address=address), tmp_path)
    assert time.monotonic() - started < 2


def test_offline_mode_is_explained(row, server, tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ConversionError, match="HF_HUB_OFFLINE is set.*Type unset HF_HUB_OFFLINE"):
        download_checkpoint(row, tmp_path)
    assert not server.requests


def test_a_full_disk_is_named_and_keeps_what_fits(row, server, tmp_path, small_disk):
    disk = small_disk(0.5)
    with pytest.raises(
        ConversionError, match=f"{disk} is full: .* Make room, or name another folder with --download_dir"
    ):
        download_checkpoint(row, disk)
    part = disk / f"{NAME}.pth.part"
    assert ARCHIVE.startswith(part.read_bytes())
    (tmp_path / part.name).write_bytes(part.read_bytes())
    download_checkpoint(row, tmp_path)
    assert (tmp_path / f"{NAME}.pth").read_bytes() == ARCHIVE


def test_another_version_of_an_old_file_is_not_joined(row, server, tmp_path):
    server.body, server.etag = b"\x80" + b"a" * 800_000, '"first"'
    leave_part(row, server, tmp_path, 400_000)
    server.body, server.etag = b"\x80" + b"b" * 800_000, '"second"'
    download_checkpoint(row, tmp_path)
    assert read_only_file(tmp_path) == server.body


@pytest.mark.parametrize(
    "server_is",
    [
        {"always_cut_at": 400_000, "shift_of_pieces": 1},
        {"serves_ranges": False, "cuts": [200_000, 400_000] * 20},
        {"body": b'{"error": "gone"}' * 10, "tells_length": False},
    ],
    ids=["wrong pieces", "no ranges", "an error message"],
)
def test_a_download_that_gets_nowhere_ends(row, server, tmp_path, server_is):
    for name, value in server_is.items():
        setattr(server, name, value)
    with pytest.raises(ConversionError):
        download_checkpoint(row, tmp_path)
    assert len(server.ranges) < 10


def test_a_released_name_is_downloaded_converted_and_published(server, convert, tmp_path, monkeypatch, make_original):
    row = dataclasses.replace(RELEASED["audioset_12_12_0.4467"], address=server.address, model_size="tiny224")
    server.body = make_original(patches=850).read_bytes()
    server.cuts = [1, 3_000_000]
    monkeypatch.setattr(type(row), "smallest_bytes", len(server.body) - 1000)  # two layers in place of twelve
    monkeypatch.setattr(released_checkpoints, "RELEASED", {row.name: row})
    terminal = Terminal()
    monkeypatch.setattr(download, "tqdm", partial(download.tqdm, file=terminal))
    code, out, _ = convert("--released", row.name, tmp_path / "ast", "--download_dir", tmp_path / "downloads")
    assert code == 0
    assert (tmp_path / "downloads" / f"{row.name}.pth").read_bytes() == server.body
    assert server.ranges == [None, "bytes=1-", "bytes=3000001-"]
    assert f"downloading {row.address} to" in out
    assert f"{row.name}: 100%" in terminal.getvalue(), "the bar is drawn though those of other libraries are off"
    assert "10 x 85 patches (as released as audioset_12_12_0.4467)" in out
    summary = json.loads((tmp_path / "ast" / "run_summary.json").read_text())
    assert summary["source_address"] == row.address
    assert summary["published"]["mean_average_precision"] == 0.4467

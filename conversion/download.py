"""Fetches a released checkpoint, and continues where an earlier attempt stopped.

The bytes go to `NAME.pth.part`, which gets its name when it is whole. `huggingface_hub`'s HTTP session is used, so that
proxies and certificates are those of every other download; it sends no token by itself. Its `http_get` is not: it hands
bytes on 10 MB at a time, so that a connection which is cut sooner never gets anywhere, gives up when a connection is
reset, and does not judge an answer before fetching it.
"""

import errno
import os
import re
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from huggingface_hub import is_offline_mode
from huggingface_hub.errors import HTTPError  # of whichever HTTP client huggingface_hub is built on
from huggingface_hub.utils import get_session
from tqdm.auto import tqdm

from modeling_ast.system.atomic_files import sync
from modeling_ast.system.hub_answers import HubSilentError, hub_answers
from modeling_ast.system.run_lock import LockedError, hold_lock
from modeling_ast.system.surroundings import OFFLINE, offline_variable

from .errors import ConversionError
from .released_checkpoints import ReleasedCheckpoint

SIGNATURES = (b"PK\x03\x04", b"\x80")  # what torch.save writes: a zip archive, or a pickle before torch 1.6
TIMEOUT = 8.0  # seconds, three times of which are less than the 30 within which silence is said; for the connection and between two pieces of the answer
PAUSE = 1.0  # seconds between two requests
FUTILE_REQUESTS = 3  # in a row that bring the file no further than it was, after which a call gives up
RETRIED_STATUS = (408, 416, 429, 500, 502, 503, 504)


class _CutOffError(Exception):
    """A request did not bring the rest of the file; the next one may."""


def download_checkpoint(row: ReleasedCheckpoint, folder: Path, report: Callable[[str], None] = print) -> Path:
    """Download a released checkpoint unless it is there already.

    Args:
        row ([`ReleasedCheckpoint`]): which one.
        folder (`Path`): where the file goes; made if there is none.
        report (`Callable`): takes lines for the user.

    Returns:
        `Path` of the whole file, `folder/NAME.pth`.

    Raises:
        ConversionError: if there is no connection, the disk is full, or the server has something else than the
            checkpoint. What arrived of it is kept, and the next call continues it.
        OSError: if the file cannot be written for another reason.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path, part = folder / f"{row.name}.pth", folder / f"{row.name}.pth.part"
    if path.exists():
        fault = _fault_of(path, row)
        if not fault:
            report(f"      {path} is already there and is used as it is")
            return path
        report(f"      {path} is there, but {fault}; it is downloaded again")
    if is_offline_mode():
        raise ConversionError(
            f"{row.name} is to be downloaded, but {offline_variable()} is set and forbids every connection. Type unset "
            f"{' '.join(OFFLINE)} and try again. {_by_hand(row)}"
        )
    report(f"      downloading {row.address} to {path}")
    try:
        # Two would write into each other's pieces.
        with hold_lock(part, "ast-convert --released"):
            with hub_answers(TIMEOUT, remember=False):
                _fill(part, row)
            fault = _fault_of(part, row)
            if not fault:
                sync(part)
                os.replace(part, path)
            _discard(part)
    except LockedError as error:
        raise ConversionError(str(error)) from None
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise ConversionError(
            f"{folder} is full: {row.name} needs up to {row.largest_bytes:,} bytes there, {_size(part):,} are written and "
            "will be continued. Make room, or name another folder with --download_dir."
        ) from None
    if fault:
        raise ConversionError(f"{row.name} was downloaded, but {fault}. It was removed; try again. {_by_hand(row)}")
    return path


def _fill(part: Path, row: ReleasedCheckpoint) -> None:
    """Make requests until the file is whole, or nothing comes any more."""
    furthest = futile = 0
    with tqdm(desc=row.name, unit="B", unit_scale=True, disable=None) as bar:
        while True:
            furthest = max(furthest, _size(part))
            try:
                return _fetch_rest(part, row, bar)
            except _CutOffError as error:
                problem = str(error)
            except HubSilentError as error:
                problem = str(error).rstrip(".")
            except HTTPError as error:
                problem = f"the connection to {urlsplit(row.address).hostname} failed ({error})"
            futile = 0 if _size(part) > furthest else futile + 1
            if futile == FUTILE_REQUESTS:
                raise ConversionError(
                    f"{row.name} could not be downloaded: {problem}. The same command continues with the "
                    f"{_size(part):,} bytes that are here. {_by_hand(row)}"
                )
            time.sleep(PAUSE)


def _fetch_rest(part: Path, row: ReleasedCheckpoint, bar: tqdm) -> None:
    """Make one request for what the part file lacks.

    Raises:
        _CutOffError: if the file is not whole after it.
        ConversionError: if the server has something else than the checkpoint.
    """
    start = _size(part)
    headers = {"Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
        if _version_of(part).exists():  # another version of the file is then sent from its beginning
            headers["If-Range"] = _version_of(part).read_text(encoding="ascii")
    with get_session().stream("GET", row.address, headers=headers, timeout=TIMEOUT, follow_redirects=True) as response:
        if response.status_code == 416 and start:  # it is as long as the file, or longer: of another version, or whole
            if not _fault_of(part, row) and response.headers.get("Content-Range") == f"bytes */{start}":
                return
            _discard(part)
        continued = response.status_code == 206
        if continued:
            piece = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", response.headers.get("Content-Range", ""))
            if piece is None or int(piece[1]) != start:
                _discard(part)
                raise _CutOffError(f"{response.url.host} answered with another piece than was asked for")
            length = int(piece[2])
        else:
            length = int(response.headers.get("Content-Length", 0)) or None
        _refuse_wrong_answer(response, row, length)
        if not continued:
            _discard(part)
            version = response.headers.get("ETag", "")
            if version.isascii() and version.startswith('"'):  # a weak one may not be used here (RFC 9110)
                _version_of(part).write_text(version, encoding="ascii")
        bar.reset(total=length)
        bar.n = start if continued else 0
        bar.refresh()
        with open(part, "ab" if continued else "wb") as file:
            for chunk in response.iter_raw():
                file.write(chunk)
                bar.update(len(chunk))
                if file.tell() > row.largest_bytes:
                    break
    if _size(part) < (length or row.smallest_bytes):
        of_all = f" of {length:,}" if length else ""
        raise _CutOffError(f"{response.url.host} ended the file after {_size(part):,}{of_all} bytes")


def _refuse_wrong_answer(response, row: ReleasedCheckpoint, length: int | None) -> None:
    """Judge an answer by its head, before its body is fetched."""
    host, status = response.url.host, f"HTTP {response.status_code}"
    if response.status_code in RETRIED_STATUS:
        raise _CutOffError(f"{host} answers {status}")
    if response.status_code not in (200, 206):
        raise ConversionError(
            f"{row.name} cannot be downloaded: {host} answers {status} to {row.address}. {_by_hand(row)}"
        )
    kind = response.headers.get("Content-Type", "")
    if kind.lower().startswith("text/"):
        raise ConversionError(
            f"{row.name} cannot be downloaded: {host} answers with a page ({kind}) instead of the file. The address may "
            f"have moved, or the network asks for a log-in first. {_by_hand(row)}"
        )
    if length is not None and not row.smallest_bytes <= length <= row.largest_bytes:
        raise ConversionError(
            f"{row.name} cannot be downloaded: what {host} offers has {length:,} bytes, and the checkpoint has "
            f"{row.smallest_bytes:,} to {row.largest_bytes:,}. {_by_hand(row)}"
        )


def _fault_of(path: Path, row: ReleasedCheckpoint) -> str:
    """Why a file cannot be the whole checkpoint; empty if it can."""
    size = _size(path)
    with open(path, "rb") as file:
        first = file.read(4)
    if not first.startswith(SIGNATURES):
        return f"it begins with {first!r}, which nothing that torch.save writes does"
    if not row.smallest_bytes <= size <= row.largest_bytes:
        return f"it has {size:,} bytes, and the checkpoint has {row.smallest_bytes:,} to {row.largest_bytes:,}"
    if first.startswith(b"PK"):
        try:
            with zipfile.ZipFile(path) as archive:
                damaged = archive.testzip()
        except zipfile.BadZipFile as error:
            return f"it is a broken zip archive ({error})"
        if damaged:
            return f"its checksum of {damaged} is wrong"
    return ""


def _version_of(part: Path) -> Path:
    """Where it is noted which version of the file, by its ETag, a part belongs to."""
    return part.with_name(f"{part.name}.etag")


def _discard(part: Path) -> None:
    part.unlink(missing_ok=True)
    _version_of(part).unlink(missing_ok=True)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _by_hand(row: ReleasedCheckpoint) -> str:
    return f"You can also download {row.address} in a browser and type ast-convert FILE.pth OUTPUT_DIR."

"""Files behind http:// and https:// addresses, as temporary files that all readers of files can read."""

from __future__ import annotations

import base64
import contextlib
import http.client
import os
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from http.client import HTTPMessage, HTTPResponse
from pathlib import Path
from typing import IO, TypeVar
from urllib.parse import unquote, urlsplit, urlunsplit

from facevox.addresses import WEB_SCHEMES, Address, masked
from facevox.errors import UserError
from facevox.files import scratch_folder
from facevox.signs import report_progress

MAX_FILE_BYTES = 4_000_000_000  # more than an hour at 8 Mbit/s
ANSWER_S = 10.0  # a server that sends nothing for this time is dead
UNKNOWN_LENGTH_S = 60.0  # a file of unknown length that takes longer is taken for a live stream
MAX_FETCH_S = 3600.0
_BLOCK_BYTES = 1 << 16
# Of these a part is no use, so that they are files even where a server does not say how long they are.
_FILE_SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".avi", ".wav"})
_E = TypeVar("_E", bound=UserError)


class FetchError(UserError):
    """A file that could not be fetched from its address."""


class _WebRedirects(urllib.request.HTTPRedirectHandler):
    """Follows redirections to http and https only."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        if urlsplit(newurl).scheme.lower() not in WEB_SCHEMES:
            raise urllib.error.URLError("redirected to something else than http and https")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


@contextlib.contextmanager
def local_file(source: Path | Address) -> Iterator[Path]:
    """The path of a file: of the one itself, or of a copy of what its address has, which the end removes.

    Messages of UserErrors inside name the address.

    Args:
        source: A file, or an http(s) address of one.

    Raises:
        FetchError: A live address, an error of the server, nothing for `ANSWER_S`, more than
            `MAX_FILE_BYTES`, or no end.
    """
    if isinstance(source, Path):
        yield source
        return
    with fetched_file(source) as file:
        if file is None:
            raise FetchError(f"{source}: a live stream; realtime.py scores those")
        yield file


@contextlib.contextmanager
def fetched_file(address: Address) -> Iterator[Path | None]:
    """A copy of the file that an address has, as `local_file`; None for a live stream."""
    if not address.is_web:
        yield None
        return
    with contextlib.ExitStack() as stack:
        with _answered(address) as response:
            file = None
            if _is_file(address, response):
                file = stack.enter_context(scratch_folder()) / f"fetched{Path(address.name).suffix[:8]}"
                _copy(address, response, file)
        if file is not None:
            stack.enter_context(named_as(address, file))
        yield file


@contextlib.contextmanager
def named_as(source: Address, file: Path) -> Iterator[None]:
    """Names the address instead of the file in the text of a UserError."""
    try:
        yield
    except UserError as error:
        raise _renamed(error, str(file), str(source)) from None


def _renamed(error: _E, name: str, new_name: str) -> _E:
    error.args = tuple(part.replace(name, new_name) if isinstance(part, str) else part for part in error.args)
    return error


@contextlib.contextmanager
def _answered(address: Address) -> Iterator[HTTPResponse]:
    """The answer of the server to a request for the whole file, before its content is read.

    Raises:
        FetchError: No answer within `ANSWER_S`, or an error.
    """
    try:
        with contextlib.closing(_in_time(lambda: _request(address))) as response:
            yield response
    except urllib.error.HTTPError as error:
        reason = http.client.responses.get(error.code, "")
        raise FetchError(f"{address}: the server answers {error.code} {reason}") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        if isinstance(error, UserError) or getattr(error, "filename", None):  # of the disk
            raise
        raise FetchError(f"{address}: cannot be fetched: {_reason(error)}") from None


def _is_file(address: Address, response: HTTPResponse) -> bool:
    """True if the answer has an end: the server states its length, or its kind cannot be read in parts."""
    has_length = response.headers.get("Content-Length") is not None
    return has_length or Path(address.name).suffix.lower() in _FILE_SUFFIXES


def _request(address: Address) -> HTTPResponse:
    parts = urlsplit(address.url)
    host = parts.netloc.rpartition("@")[2]
    url = urlunsplit((parts.scheme, host, parts.path, parts.query, ""))
    request = urllib.request.Request(url, headers={"User-Agent": "facevox"})  # noqa: S310 - http(s) only
    if parts.username is not None:
        login = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
        # Not for another host, to which the server may redirect.
        request.add_unredirected_header("Authorization", f"Basic {base64.b64encode(login).decode()}")
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        _WebRedirects(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    response: HTTPResponse = opener.open(request, timeout=ANSWER_S)
    return response


def _in_time(ask: Callable[[], HTTPResponse]) -> HTTPResponse:
    """The answer of `ask`, which works in a separate thread: looking up a name has no time limit."""
    answers: list[HTTPResponse | Exception] = []

    def work() -> None:
        try:
            answers.append(ask())
        except Exception as error:  # raised again by the thread that waits
            answers.append(error)

    thread = threading.Thread(target=work, name="request", daemon=True)
    thread.start()
    thread.join(ANSWER_S + 1.0)  # a signal ends this wait
    if not answers:
        raise TimeoutError(f"no answer for {ANSWER_S:.0f} s")
    if isinstance(answers[0], Exception):
        raise answers[0]
    return answers[0]


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.URLError) and isinstance(error.reason, Exception):
        error = error.reason
    if isinstance(error, TimeoutError) and error.errno is None:
        return f"no answer for {ANSWER_S:.0f} s"
    return masked(getattr(error, "strerror", None) or str(error) or type(error).__name__)


def _copy(address: Address, response: HTTPResponse, file: Path) -> None:
    """Writes the content into `file`."""
    stated = response.headers.get("Content-Length", "")
    length = int(stated) if stated.isdecimal() else None
    too_much = f"{address}: more than {MAX_FILE_BYTES} bytes; download it, and name the file"
    if length is not None and length > MAX_FILE_BYTES:
        raise FetchError(too_much)
    most_s = UNKNOWN_LENGTH_S if length is None else MAX_FETCH_S
    start_s, count = time.monotonic(), 0
    with file.open("wb") as opened:
        while block := response.read1(_BLOCK_BYTES):
            count += len(block)
            if count > MAX_FILE_BYTES:
                raise FetchError(too_much)
            if time.monotonic() - start_s > most_s:
                raise FetchError(
                    f"{address}: has not ended after {most_s:.0f} s; realtime.py scores live streams, and a "
                    "file that takes longer is to be downloaded first"
                )
            try:
                opened.write(block)
            except OSError as error:
                raise OSError(error.errno, os.strerror(error.errno or 0), str(file)) from None
            report_progress()
    if length is not None and count < length:
        raise FetchError(f"{address}: the connection broke after {count} of {length} bytes; try again")

"""The hosts, origins and tokens that may use the server, and the rights of its pages in browsers."""

import ipaddress
import socket
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import JSONResponse

from emotion.logger_config import get_logger
from emotion.serving.access import Access
from emotion.serving.config import ServerConfig
from emotion.serving.refusals import Refusal
from facevox.errors import printable

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

LOOPBACK = ("localhost", "127.0.0.1", "::1")
# The page is static files of this server; blob: and data: are the pictures that it makes itself.
SECURITY_HEADERS = {
    "content-security-policy": "default-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; "
    "object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "permissions-policy": "camera=(self), microphone=(), geolocation=()",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}
_ENCODED = [(name.encode(), value.encode()) for name, value in SECURITY_HEADERS.items()]
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
REPORT_S = 60.0  # between two lines of the log about names that were refused


def host_of(header: str) -> str:
    """The name or address in a Host header, without its port, in lower case."""
    try:
        return (urlsplit(f"//{header}").hostname or "").lower()
    except ValueError:
        return ""


def is_host_known(host_header: str, config: ServerConfig) -> bool:
    """True if the client used a name of the server.

    Those are its loopback names and the ones in ALLOWED_ORIGINS; where it listens on the network, also every
    address and the machine's own name. Any other name is that of a foreign page, made to point here (DNS
    rebinding); an address cannot be.
    """
    host = host_of(host_header)
    if host in {urlsplit(origin).hostname for origin in config.allowed_origins}.union(LOOPBACK):
        return True
    if config.host in LOOPBACK:
        return False
    machine = socket.gethostname().lower()
    return host in {config.host.lower(), machine, machine.partition(".")[0]} - {""} or _is_address(host)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def is_origin_allowed(origin: str | None, host_header: str, config: ServerConfig) -> bool:
    """True if a page of this origin may use the server: its own, or one in ALLOWED_ORIGINS.

    Programs other than browsers send no Origin; they could send any.
    """
    if origin is None:
        return True
    own_origins = {f"http://{host_header}".lower(), f"https://{host_header}".lower()}
    return origin.lower() in own_origins.union(name.lower() for name in config.allowed_origins)


class Guard:
    """Checks host, origin and token before a request reaches the application, and adds the security headers.

    CORS does not protect a WebSocket: a browser opens one to any server and only sends the origin.

    Args:
        app: The application.
        config: Host, allowed origins and token.
    """

    def __init__(self, app: Callable[[Scope, Receive, Send], Awaitable[None]], config: ServerConfig) -> None:
        self._app = app
        self._config = config
        self._access = Access(config.server_token)
        self._report_s = 0.0  # earliest time of the next line

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuses, or calls the application."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        code = self._fault(scope)
        if scope["type"] == "websocket":
            if code:
                await _refuse_handshake(Refusal(code), receive, send)
            else:
                await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                existing = {name for name, _ in message["headers"]}
                message["headers"] = [*message["headers"], *(h for h in _ENCODED if h[0] not in existing)]
            await send(message)

        page = self._access.page(scope) if code in ("", "unauthorized") else None
        if page is not None:
            await page(scope, receive, send_with_headers)
        elif code:
            refusal = Refusal(code)
            headers = {"WWW-Authenticate": "Bearer"} if code == "unauthorized" else {}
            response = JSONResponse(refusal.as_http(), refusal.status, headers)
            await response(scope, receive, send_with_headers)
        else:
            await self._app(scope, receive, send_with_headers)

    def _fault(self, scope: Scope) -> str:
        """Code of the refusal, or ""."""
        headers = Headers(raw=scope["headers"])
        host = headers.get("host", "")
        if not is_host_known(host, self._config):
            self._report_host(host)
            return "foreign_host"
        # Reading is free: browsers keep the answers from foreign pages.
        is_safe = scope["type"] == "http" and scope["method"] in SAFE_METHODS
        if not is_safe and not is_origin_allowed(headers.get("origin"), host, self._config):
            return "foreign_origin"
        # A browser asks for leave without any token; the CORS middleware answers.
        is_preflight = (
            scope["type"] == "http"
            and scope["method"] == "OPTIONS"
            and headers.get("origin") in self._config.allowed_origins
        )
        if not is_preflight and not self._access.is_granted(scope, headers):
            return "unauthorized"
        return ""

    def _report_host(self, host_header: str) -> None:
        """Says in the log how a name is allowed; a line a minute, because anybody may send many."""
        now_s = time.monotonic()
        if now_s < self._report_s:
            return
        self._report_s = now_s + REPORT_S
        get_logger("server").warning(
            "a request to the name %r was refused; if the server has this name, add its address to "
            "ALLOWED_ORIGINS (http://NAME:PORT)",
            printable(host_header[:100]),
        )


async def _refuse_handshake(refusal: Refusal, receive: Receive, send: Send) -> None:
    """Answers the handshake of a WebSocket with the status of the refusal."""
    await receive()
    response = JSONResponse(refusal.as_http(), refusal.status)
    await send(
        {"type": "websocket.http.response.start", "status": refusal.status, "headers": response.raw_headers}
    )
    await send({"type": "websocket.http.response.body", "body": response.body})

"""The hosts and origins that may use the server, and the rights of its pages in browsers."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import JSONResponse

from emotion.serving.config import ServerConfig
from emotion.serving.refusals import Refusal

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


def host_of(header: str) -> str:
    """The name or address in a Host header, without its port, in lower case."""
    try:
        return (urlsplit(f"//{header}").hostname or "").lower()
    except ValueError:
        return ""


def is_host_known(host_header: str, config: ServerConfig) -> bool:
    """True if the client used a name of the server.

    A server that listens on this machine alone has its loopback names and those in ALLOWED_ORIGINS; any
    other name is that of a foreign page, made to point here (DNS rebinding). A server that listens on the
    network cannot know its names.
    """
    if config.host not in LOOPBACK:
        return True
    allowed = {urlsplit(origin).hostname for origin in config.allowed_origins}
    return host_of(host_header) in allowed.union(LOOPBACK)


def is_origin_allowed(origin: str | None, host_header: str, config: ServerConfig) -> bool:
    """True if a page of this origin may use the server: its own, or one in ALLOWED_ORIGINS.

    Programs other than browsers send no Origin; they could send any.
    """
    if origin is None:
        return True
    own_origins = {f"http://{host_header}".lower(), f"https://{host_header}".lower()}
    return origin.lower() in own_origins.union(name.lower() for name in config.allowed_origins)


class Guard:
    """Checks host and origin before a request reaches the application, and adds the security headers.

    CORS does not protect a WebSocket: a browser opens one to any server and only sends the origin.

    Args:
        app: The application.
        config: Host and allowed origins.
    """

    def __init__(self, app: Callable[[Scope, Receive, Send], Awaitable[None]], config: ServerConfig) -> None:
        self._app = app
        self._config = config

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuses, or calls the application."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        code = self._fault(scope)
        if scope["type"] == "websocket":
            if code:
                await receive()
                await send({"type": "websocket.close", "code": 1008})  # before acceptance: 403
            else:
                await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                existing = {name for name, _ in message["headers"]}
                message["headers"] = [*message["headers"], *(h for h in _ENCODED if h[0] not in existing)]
            await send(message)

        if code:
            refusal = Refusal(code)
            await JSONResponse(refusal.as_http(), refusal.status)(scope, receive, send_with_headers)
        else:
            await self._app(scope, receive, send_with_headers)

    def _fault(self, scope: Scope) -> str:
        """Code of the refusal, or ""."""
        headers = Headers(raw=scope["headers"])
        host = headers.get("host", "")
        if not is_host_known(host, self._config):
            return "foreign_host"
        # Reading is free: browsers keep the answers from foreign pages.
        is_safe = scope["type"] == "http" and scope["method"] in SAFE_METHODS
        if not is_safe and not is_origin_allowed(headers.get("origin"), host, self._config):
            return "foreign_origin"
        return ""

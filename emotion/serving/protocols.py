"""uvicorn's connections, ended for good where a stranger does not let them end."""

import asyncio
import socket

from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

FAREWELL_S = 2.0  # for the close message and its answer
UNREAD_BYTES = 32_768  # in our buffer and in the system's: some fifty results
SILENCE_S = 10.0  # within which a new connection must have sent a request


class FrameProtocol(WebSocketsSansIOProtocol):
    """A WebSocket whose transport is cut off after its farewell.

    Closing alone waits for ever for a client that reads nothing: what was written must go out first.
    """

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection has become a WebSocket."""
        super().connection_made(transport)
        # A slow reader shall wait for its next result, not be sent megabytes of results that are old.
        self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, UNREAD_BYTES)
        self.transport.set_write_buffer_limits(high=UNREAD_BYTES)

    def on_task_complete(self, task: asyncio.Task[None]) -> None:
        """The application is done with the connection."""
        super().on_task_complete(task)
        self.loop.call_later(FAREWELL_S, self.transport.abort)

    def keepalive_timeout(self) -> None:
        """The client answers no ping."""
        super().keepalive_timeout()
        self.loop.call_later(FAREWELL_S, self.transport.abort)

    def shutdown(self) -> None:
        """The server goes down: the client hears 1012."""
        super().shutdown()
        self.loop.call_later(FAREWELL_S, self.transport.abort)


class RequestProtocol(H11Protocol):
    """HTTP that ends a connection on which no request comes."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client connected."""
        super().connection_made(transport)
        self.loop.call_later(SILENCE_S, self._end_silent, transport)

    def _end_silent(self, transport: asyncio.Transport) -> None:
        has_request = self.cycle is not None
        if not has_request and transport.get_protocol() is self:  # another protocol: it became a WebSocket
            transport.abort()

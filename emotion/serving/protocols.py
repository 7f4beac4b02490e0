"""uvicorn's connections, which end even if a stranger does not close his side."""

import asyncio
import socket

from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import CloseCode, Frame

FAREWELL_S = 2.0  # for the close message and its answer
UNREAD_BYTES = 32_768  # in our buffer and in the system's: some fifty results
MOST_FRAGMENTS = 1000  # of a message; a client that sends pictures needs none
SILENCE_S = 10.0  # within which a new connection must have sent a request


class FrameProtocol(WebSocketsSansIOProtocol):
    """A WebSocket whose close message arrives, and whose transport is cut off after it.

    uvicorn closes at once where it fails a connection or goes down. If bytes of the client are unread then,
    the system sends a reset, and the client may lose the close message that came before. And a mere close
    waits for ever for a client that reads nothing, because written bytes are sent first.
    """

    _num_fragments = 0  # of the present message
    _is_leaving = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection has become a WebSocket."""
        super().connection_made(transport)
        # A slow reader should wait for its next result, not get megabytes of old ones.
        self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, UNREAD_BYTES)
        self.transport.set_write_buffer_limits(high=UNREAD_BYTES)

    def data_received(self, data: bytes) -> None:
        """The client sent something; after our close message it is dropped."""
        if not self._is_leaving:
            super().data_received(data)

    def handle_text(self, event: Frame) -> None:
        """The first part of a text."""
        self._num_fragments = 1
        super().handle_text(event)

    def handle_bytes(self, event: Frame) -> None:
        """The first part of a picture."""
        self._num_fragments = 1
        super().handle_bytes(event)

    def handle_cont(self, event: Frame) -> None:
        """A further part: the byte limit does not count empty ones, which take memory all the same."""
        if self._is_leaving:
            return
        self._num_fragments += 1
        if self._num_fragments > MOST_FRAGMENTS:
            self.conn.fail(CloseCode.POLICY_VIOLATION, "too many fragments")
            self.handle_parser_exception()
        else:
            super().handle_cont(event)

    def handle_ping(self) -> None:
        """A ping; in the same bytes as what ended the connection it gets no answer."""
        if not self._is_leaving:
            super().handle_ping()

    def handle_close(self, event: Frame) -> None:
        """The client's close message."""
        if not self._is_leaving:
            super().handle_close(event)

    def handle_parser_exception(self) -> None:
        """The client broke the protocol or a limit."""
        close = self.conn.close_sent
        if close is None:  # before the handshake was answered the client understands no close message
            self.transport.abort()
        else:
            self._leave(close.code, close.reason)

    def on_task_complete(self, task: asyncio.Task[None]) -> None:
        """The application is done with the connection."""
        super().on_task_complete(task)
        self.loop.call_later(FAREWELL_S, self.transport.abort)

    def keepalive_timeout(self) -> None:
        """The client answers no ping."""
        super().keepalive_timeout()
        self.loop.call_later(FAREWELL_S, self.transport.abort)

    def shutdown(self) -> None:
        """The server goes down: the client gets 1012."""
        if self._is_leaving or self.transport.is_closing():
            return
        if not self.handshake_complete:
            super().shutdown()
            self.loop.call_later(FAREWELL_S, self.transport.abort)
            return
        if not self.close_sent:
            self.conn.send_close(CloseCode.SERVICE_RESTART)
        self._leave(CloseCode.SERVICE_RESTART, "")

    def _leave(self, code: int, reason: str) -> None:
        """Sends the close message, then drops whatever comes until the client closes, or for FAREWELL_S."""
        if self._is_leaving:
            return
        self._is_leaving = self.close_sent = True
        self.frames = []
        self.stop_keepalive()
        self.queue.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})
        if self.transport.is_closing():
            return
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.transport.write_eof()
        self.transport.resume_reading()
        if self.close_timer is not None:
            self.close_timer.cancel()
        # While it is set, uvicorn does not close when the application is done.
        self.close_timer = self.loop.call_later(FAREWELL_S, self.transport.abort)


class RequestProtocol(H11Protocol):
    """An HTTP connection that ends when no request comes."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client connected."""
        super().connection_made(transport)
        self.loop.call_later(SILENCE_S, self._end_silent, transport)

    def _end_silent(self, transport: asyncio.Transport) -> None:
        has_request = self.cycle is not None
        if (
            not has_request and transport.get_protocol() is self
        ):  # with another protocol it became a WebSocket
            transport.abort()

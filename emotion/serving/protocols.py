"""uvicorn's connections, which end even if a stranger does not close his side."""

import asyncio
import contextlib
import json
import socket
import time
from typing import TYPE_CHECKING

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.utils import get_remote_addr
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import CloseCode, Frame

from emotion.serving.connections import Connections, address_key
from emotion.serving.intake import Intake
from emotion.serving.loop_time import LoopTime
from emotion.serving.refusals import Refusal

if TYPE_CHECKING:
    from uvicorn._types import ASGISendEvent

FAREWELL_S = 2.0  # for the close message and its answer, and for the rest of a request that was answered
UNREAD_BYTES = 32_768  # in our buffer and in the system's: some fifty results
MOST_FRAGMENTS = 1000  # of a message; a client that sends pictures needs none
HEAD_S = 10.0  # from the connection or the last answer until the head of the next request is there
UNREAD_S = 10.0  # a client that reads nothing of a long answer is cut off
MESSAGE_S = 1.5e-4  # of the loop's time for a message that has bytes, of which clients send a limited number
HEAD_PARSE_S = 3e-4  # of it for the head of a request
REQUEST_S = 1e-3  # what its answer takes of it; this is counted, and so is a connection:
CONNECTION_S = 3e-4


def _too_many() -> bytes:
    body = json.dumps(Refusal("too_many_connections").as_http()).encode()
    head = (
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 5\r\n"
        f"connection: close\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


_TOO_MANY = _too_many()
_NO_HANDSHAKE = b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


class FrameProtocol(WebSocketsSansIOProtocol):
    """A WebSocket whose close message arrives, and whose transport is cut off after it.

    uvicorn closes at once where it fails a connection or goes down. If bytes of the client are unread then,
    the system sends a reset, and the client may lose the close message that came before. And a mere close
    waits for ever for a client that reads nothing, because written bytes are sent first.
    """

    _num_fragments = 0  # of the present message
    _start_s = 0.0
    _is_leaving = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection has become a WebSocket."""
        super().connection_made(transport)
        self._intake: Intake = self.transport  # type: ignore[assignment]
        self._intake.become_camera(super().data_received, self._end_waste)
        self._start_s = time.monotonic()
        # A slow reader should wait for its next result, not get megabytes of old ones.
        self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, UNREAD_BYTES)
        self.transport.set_write_buffer_limits(high=UNREAD_BYTES)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection ended."""
        connections: Connections = self.app_state["connections"]
        connections.remove(self._intake.transport)
        self._intake.drop()
        super().connection_lost(exc)

    @property
    def idle_since_s(self) -> float | None:
        """Time of its start once the close message was sent; None: `CameraSession` serves it."""
        return self._start_s if self.close_sent else None

    def data_received(self, data: bytes) -> None:
        """The client sent something; after our close message it is dropped."""
        if self._is_leaving:
            return
        if self.handshake_initiated:
            self._intake.put(data)
        else:  # the head, which RequestProtocol has parsed already
            super().data_received(data)

    def send_receive_event_to_app(self) -> None:
        """A message is whole; after our close message it goes nowhere."""
        if any(self.frames) and not self.close_sent:
            self._intake.add_credit(MESSAGE_S)
        super().send_receive_event_to_app()

    def _end_waste(self) -> None:
        """The client wastes time."""
        self.conn.fail(CloseCode.POLICY_VIOLATION, "too many small or empty frames")
        self.handle_parser_exception()

    async def send(self, message: "ASGISendEvent") -> None:
        """Sends a message of the application."""
        await super().send(message)
        if message["type"] == "websocket.http.response.body":
            # The handshake was refused with that; otherwise uvicorn takes it for an error of the application.
            self.handshake_complete = True

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
        self._intake.drop()
        self.stop_keepalive()
        self.queue.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})
        if self.transport.is_closing():
            return
        self.transport.write(b"".join(self.conn.data_to_send()))
        with contextlib.suppress(OSError):  # a client that is gone, which a paused reader has not noticed
            self.transport.write_eof()
        self.transport.resume_reading()
        if self.close_timer is not None:
            self.close_timer.cancel()
        # While it is set, uvicorn does not close when the application is done.
        self.close_timer = self.loop.call_later(FAREWELL_S, self.transport.abort)


class RequestProtocol(H11Protocol):
    """An HTTP connection that is counted by its address and has a deadline unless a request is in progress.

    What the application reads of a request has deadlines there; here are those of everything before and
    after: a request's head, a body that still comes after its answer, an answer that nobody reads.
    """

    _intake: Intake
    _deadline: asyncio.TimerHandle | None = None
    _idle_since_s = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client connected."""
        self._connections: Connections = self.app_state["connections"]
        address, _ = get_remote_addr(transport) or ("", 0)
        loop_time: LoopTime = self.app_state["loop_time"]
        account = loop_time.of_address(address_key(address))
        is_proxy = self._connections.is_proxy(address)
        parse = super().data_received
        self._intake = Intake(transport, loop_time, None if is_proxy else account, parse, transport.abort)
        self._intake.add_work(CONNECTION_S)
        if not self._connections.admit(transport, address):
            self.transport = transport
            transport.write(_TOO_MANY)
            transport.close()
            return
        super().connection_made(self._intake)  # type: ignore[arg-type]
        self._idle_since_s = time.monotonic()
        self._set_deadline(HEAD_S)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection ended."""
        self._connections.remove(self._intake.transport)
        self._intake.drop()
        self._clear_deadline()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """The client sent something."""
        self._intake.put(data)

    @property
    def idle_since_s(self) -> float | None:
        """Time since which it waits for a request, or for its client to read; None: it is busy."""
        is_deaf = self.flow is not None and self.flow.write_paused
        return self._idle_since_s if is_deaf or not self._is_in_progress else None

    @property
    def _is_in_progress(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def handle_events(self) -> None:
        """Handles what the client sent; the head of a request may have become whole."""
        former = self.scope
        super().handle_events()
        if self.scope is not former:
            self._intake.add_credit(HEAD_PARSE_S)
            self._intake.add_work(REQUEST_S)
        if self._is_in_progress:
            self._clear_deadline()

    def send_400_response(self, msg: str) -> None:
        """Refuses what is not HTTP; after an answer, which cannot be followed by another, just ends."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            super().send_400_response(msg)
        else:
            self.transport.abort()

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        """The connection becomes a WebSocket."""
        self._intake.add_work(REQUEST_S)  # twice as much as an ordinary request
        self._clear_deadline()
        super().handle_websocket_upgrade(event)
        # The other parser takes fewer heads than h11 (none with a body, long lines, control characters): of
        # the others it waits for more, for ever.
        protocol = self.transport.get_protocol()
        if isinstance(protocol, FrameProtocol) and not protocol.handshake_initiated:
            self.transport.write(_NO_HANDSHAKE)
            self.transport.close()
            self.loop.call_later(FAREWELL_S, self.transport.abort)

    def on_response_complete(self) -> None:
        """The answer was written; the next request may come, and the rest of this one must."""
        self._idle_since_s = time.monotonic()
        is_body_missing = self.conn.their_state is h11.SEND_BODY
        self._set_deadline(FAREWELL_S if is_body_missing else HEAD_S)
        # Hundreds of requests in one packet would have the server to themselves. Browsers send the next one
        # after the answer, and others may do so after a close, too (RFC 9112, 9.3.2).
        if self.conn.their_state is h11.DONE and (self.conn.trailing_data[0] or self._intake.has_rest):
            self.transport.close()
        super().on_response_complete()

    def pause_writing(self) -> None:
        """The client does not read its answer."""
        super().pause_writing()
        self._set_deadline(UNREAD_S)

    def resume_writing(self) -> None:
        """The client reads on."""
        super().resume_writing()
        if self._is_in_progress:
            self._clear_deadline()

    def _set_deadline(self, seconds: float) -> None:
        self._clear_deadline()
        self._deadline = self.loop.call_later(seconds, self.transport.abort)

    def _clear_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

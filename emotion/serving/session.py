"""One client of the live analysis: binary frames in, JSON out, the newest frame wins."""

import asyncio
import contextlib
import json
import time
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from starlette.websockets import WebSocket, WebSocketDisconnect

from emotion.live.face_tracks import FaceTracks
from emotion.serving.connections import ARRIVAL_S, address_key
from emotion.serving.probation import Address
from emotion.serving.refusals import Refusal
from emotion.serving.service import Service
from emotion.serving.workers import AnalysedFrame

# Close codes (RFC 6455 and its registry). 1009 (too large a message) and 1012 (going down) are uvicorn's.
UNSUPPORTED, POLICY, TRY_LATER, GONE = 1003, 1008, 1013, 1006
SEND_TIMEOUT_S = 10.0  # a client that reads nothing for this long is disconnected
IDLE_S = 30.0  # a client that sent nothing for this long makes room where there are too many
AT_ONCE = 2  # frames of one client being analysed: one client alone keeps two cores busy
# A client whose frames take longer to decode has its next turn later: its share of the time is that of each
# other client that sent something within this time.
SLOW_S, BUSY_S = 0.1, 2.0
MOST_COSTLY = 2  # frames of a client that take too long to decode, without a result between them
KEPT_TIMES = 2000  # durations for the percentiles of the log


class TokenBucket:
    """Fills at a steady rate up to its size; each use takes one token.

    Args:
        rate_per_s: Tokens that come each second.
        size: Its capacity; it is full at first, so that this many may be taken at once.
        now_s: Time of its start, on time.monotonic's clock; None: now.
    """

    def __init__(self, rate_per_s: float, size: float, now_s: float | None = None) -> None:
        self._rate_per_s = rate_per_s
        self._size = self._level = size
        self._seen_s = time.monotonic() if now_s is None else now_s

    def take(self, now_s: float | None = None) -> float:
        """Takes a token; returns the seconds until it is there, 0.0 where it is already."""
        now_s = time.monotonic() if now_s is None else now_s
        self._level = min(self._level + (now_s - self._seen_s) * self._rate_per_s, self._size) - 1
        self._seen_s = now_s
        return max(-self._level / self._rate_per_s, 0.0)


@dataclass(frozen=True)
class _Frame:
    number: int  # from 1, of all frames of the connection
    data: bytes
    arrival_s: float  # time.perf_counter


class CameraSession:
    """A connection from its handshake to its end.

    The receiver keeps one frame, the newest; an analyser takes it when its turn comes and sends the result
    before it asks for the next turn. So a client has at most one frame waiting and two being analysed,
    however fast it sends and however slowly it reads.
    """

    def __init__(self, websocket: WebSocket, service: Service) -> None:
        self._websocket = websocket
        self._service = service
        self._metrics = service.metrics
        self._tracks = FaceTracks()
        self._slot: _Frame | None = None
        self._is_filled = asyncio.Event()
        self._asking = asyncio.Lock()
        self._is_last_sent = asyncio.Event()
        self._is_last_sent.set()
        self._is_evicted = asyncio.Event()
        rate = service.config.max_frames_per_s
        self._rate = TokenBucket(rate, rate)
        self._has_result = False  # since its last frame that took too long
        self._num_costly = 0  # since its last result
        self._next_turn_s = 0.0  # time.monotonic
        self._num_received = self._num_dropped = self._num_analysed = self._num_faces = 0
        self._totals_s: deque[float] = deque(maxlen=KEPT_TIMES)
        self._start_s = self.heard_s = time.monotonic()
        self.address = address_key(websocket.client.host) if websocket.client else ""
        self._probation: Address

    async def run(self) -> None:
        """Serves the client until one side ends it."""
        await self._websocket.accept()
        if not self._make_room():
            self._metrics.count("connections_refused_total")
            await self._close(TRY_LATER, "too many connections")
            return
        self._service.sessions.add(self)
        self._metrics.count("connections_total")
        self._service.logger.info("client connected, %d now", len(self._service.sessions))
        code, reason = GONE, ""
        try:
            await self._send(self._service.hello())
            with self._service.addresses.client(self.address) as self._probation:
                code, reason = await self._serve()
        except TimeoutError:
            reason = "reads nothing"
        except WebSocketDisconnect as gone:
            code = gone.code
        finally:
            self._service.sessions.discard(self)
            self._metrics.count("closes_total", label=f'code="{code}"')
            self._log_end(code, reason)
        if reason:
            await self._close(code, reason)

    def _make_room(self) -> bool:
        """True if there is room, if need be after another client is ended.

        That one is silent, or comes from elsewhere and has sent no frame yet; where there is none, its
        address has more clients than this one's will have. Of several it is one of the address with most
        clients, and silent longest; one whose first frame may be on its way only where there is no other.
        """
        sessions, config = self._service.sessions, self._service.config
        counts = Counter(session.address for session in sessions)
        present = counts[self.address]
        if present >= config.max_connections_per_address:
            return False
        if len(sessions) < config.max_connections:
            return True
        now_s = time.monotonic()
        endable = [
            session
            for session in sessions
            if now_s - session.heard_s >= IDLE_S or not (session.has_sent or session.address == self.address)
        ] or [session for session in sessions if counts[session.address] > present + 1]
        if not endable:
            return False
        longest = max(
            endable,
            key=lambda session: (
                now_s - session.heard_s > ARRIVAL_S,
                counts[session.address],
                -session.heard_s,
            ),
        )
        sessions.discard(longest)
        longest.evict()
        return True

    @property
    def has_sent(self) -> bool:
        """True after the first frame."""
        return self._num_received > 0

    def evict(self) -> None:
        """Ends the connection soon, to make room for another client."""
        self._is_evicted.set()

    async def _serve(self) -> tuple[int, str]:
        """Runs receiver and analyser; returns the close code, and the reason where the server closes."""
        parts = [self._receive(), self._await_eviction(), *(self._analyse() for _ in range(AT_ONCE))]
        tasks = [asyncio.create_task(part) for part in parts]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            # The receiver knows why the connection ended; a sender that failed then only that it did.
            first = tasks[0] if tasks[0] in done else next(iter(done))
            return first.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _await_eviction(self) -> tuple[int, str]:
        await self._is_evicted.wait()
        return TRY_LATER, "room for others"

    async def _receive(self) -> tuple[int, str]:
        while True:
            message = await self._websocket.receive()
            if message["type"] == "websocket.disconnect":
                return int(message.get("code") or GONE), ""
            data = message.get("bytes")
            if data is None:
                return UNSUPPORTED, "frames are binary messages"
            self.heard_s = time.monotonic()
            self._num_received += 1
            self._metrics.count("frames_received_total")
            # A client that waits for its answers is slowed down, never refused; what others send meanwhile
            # stays in the system's buffers.
            await asyncio.sleep(self._rate.take())
            if not self._service.has_model:
                await self._refuse(Refusal("no_model"), self._num_received)
            else:
                self._keep(_Frame(self._num_received, data, time.perf_counter()))

    def _keep(self, frame: _Frame) -> None:
        if self._slot is not None:
            self._num_dropped += 1
            self._metrics.count("frames_dropped_total")
        self._slot = frame
        self._is_filled.set()

    async def _analyse(self) -> tuple[int, str]:
        """One of the tasks that analyse; answers go out in the order of the frames."""
        workers = self._service.workers
        while True:
            async with contextlib.AsyncExitStack() as turn:
                async with self._asking:  # one request for a turn at a time, like every other client
                    await self._is_filled.wait()
                    await asyncio.sleep(max(self._next_turn_s - time.monotonic(), 0))
                    if not self._has_result:
                        await turn.enter_async_context(self._probation.turn())
                    await turn.enter_async_context(workers.turns)
                    frame, self._slot = self._slot, None
                    self._is_filled.clear()
                    assert frame is not None, "the slot is emptied under this lock alone"
                    is_former_sent, is_sent = self._is_last_sent, asyncio.Event()
                    self._is_last_sent = is_sent
                outcome = await self._outcome(frame.data)
            # Others have their turns while this client reads its answer.
            await is_former_sent.wait()
            if isinstance(outcome, Refusal):
                await self._refuse(outcome, frame.number)
                if self._num_costly >= MOST_COSTLY:
                    return POLICY, "frames that take too long to decode"
            else:
                await self._send(self._result(frame, outcome))
            is_sent.set()

    async def _outcome(self, data: bytes) -> AnalysedFrame | Refusal:
        """The findings, or why there are none. A client that leaves meanwhile has its turn to the end."""
        start_s = time.perf_counter()
        work = asyncio.ensure_future(self._service.workers.frame(data))
        try:
            await asyncio.wait((work,))
        finally:
            while not work.done():
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.wait((work,))
            refusal = work.exception()
            if isinstance(refusal, Refusal):
                self._count_cost(time.perf_counter() - start_s, refusal.code)
            elif refusal is None:
                self._count_cost(work.result().decode_s)
        return refusal if isinstance(refusal, Refusal) else work.result()

    def _count_cost(self, seconds: float, code: str = "") -> None:
        """Puts the client's next turn off by the time that others may have for as long a turn of theirs."""
        if seconds > SLOW_S:
            now_s = time.monotonic()
            num_busy = sum(now_s - session.heard_s < BUSY_S for session in self._service.sessions)
            share = num_busy / self._service.config.num_workers
            self._next_turn_s = max(self._next_turn_s, now_s) + seconds * share
        if code == "too_costly":
            self._num_costly += 1
            self._has_result = False
            self._probation.add_costly()
        elif not code:
            self._num_costly = 0
            self._has_result = True

    def _result(self, frame: _Frame, analysed: AnalysedFrame) -> dict[str, object]:
        findings = analysed.findings
        faces = self._tracks.update(findings.sightings, frame.arrival_s)
        stages_s = {
            "wait": analysed.start_s - frame.arrival_s,
            "decode": analysed.decode_s,
            "detect": findings.detect_s,
            "classify": findings.classify_s,
            "total": time.perf_counter() - frame.arrival_s,
        }
        for stage, seconds in stages_s.items():
            self._metrics.observe(stage, seconds)
        self._num_analysed += 1
        self._num_faces += len(faces)
        self._totals_s.append(stages_s["total"])
        self._metrics.count("frames_analysed_total")
        self._metrics.count("faces_total", len(faces))
        return {
            "type": "result",
            "frame": frame.number,
            "dropped": self._num_dropped,
            "width": analysed.width,
            "height": analysed.height,
            "faces": self._service.describe_faces(faces),
            "ms": {stage: round(1000 * seconds, 2) for stage, seconds in stages_s.items()},
        }

    async def _refuse(self, refusal: Refusal, number: int) -> None:
        self._metrics.count("frames_refused_total", label=f'code="{refusal.code}"')
        await self._send(refusal.as_event(number))

    async def _send(self, message: Mapping[str, object]) -> None:
        text = json.dumps(message, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        try:
            async with asyncio.timeout(SEND_TIMEOUT_S):
                await self._websocket.send_text(text)
        except RuntimeError:
            # uvicorn had closed the connection (1009, or no answer to a ping), which we did not know yet.
            raise WebSocketDisconnect(GONE) from None

    async def _close(self, code: int, reason: str) -> None:
        # A client that is gone, or reads nothing, gets no close message; FrameProtocol cuts it off later.
        with contextlib.suppress(Exception):
            async with asyncio.timeout(1):
                await self._websocket.close(POLICY if code == GONE else code, reason)

    def _log_end(self, code: int, reason: str) -> None:
        times_ms = 1000 * np.percentile(self._totals_s, (50, 95)) if self._totals_s else (0.0, 0.0)
        self._service.logger.info(
            "client gone (%d%s) after %.0f s: %d frames, %d analysed, %d replaced by newer ones, %d faces, "
            "p50 %.0f ms, p95 %.0f ms",
            *(code, f", {reason}" if reason else "", time.monotonic() - self._start_s),
            *(self._num_received, self._num_analysed, self._num_dropped, self._num_faces, *times_ms),
        )

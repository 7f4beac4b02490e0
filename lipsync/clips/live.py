"""Live streams of a network address, as stretches of pictures and sound without a break.

A thread reads packets as they come; who iterates decodes them, and waits for nothing longer than a moment, so
that a signal ends it at any time. Pictures and sound share the clock of the stream's own time stamps. After a
broken connection, stamps that jump and material that is left out, a new stretch begins.
"""

from __future__ import annotations

import errno
import logging
import math
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import av
import numpy as np
from av.error import FFmpegError
from av.video.stream import VideoStream

from facevox.addresses import Address
from facevox.errors import UserError
from facevox.media import GAP_S, MAX_FRAME_PIXELS, MediaError, checked_rate, played_stream
from facevox.media.display import PictureMaker
from lipsync.clips.clock import FRAME_HZ
from lipsync.clips.sounds import SAMPLE_RATE_HZ
from lipsync.clips.sources import Piece

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import InputContainer
    from av.packet import Packet
    from numpy.typing import NDArray

logger = logging.getLogger(__name__)
DEAD_S = 10.0  # a server that sends nothing for this time is dead
ANALYSIS_S = 3.0  # of the stream, to learn its codecs; FFmpeg's 5 delay the first verdict
FIRST_WAIT_S, MOST_WAIT_S = 1.0, 30.0  # before it connects again
HEALTHY_S = 1.0  # of material make a connection one that worked: the waits begin again
POLL_S = 0.1
BACK_S, AHEAD_S = 1.0, 2.0  # stamps that jump by more begin a new stretch; shorter gaps are filled
APART_S = 3.0  # pictures may come this much before their sound, as in broadcasts
# More than a window of `lipsync.sync.streaming` with its look-ahead and a step: each stretch has verdicts.
LEAST_STRETCH_S = 6.0
MAX_BEHIND_S = 5.0  # then what waits is left out
MAX_WAITING_BYTES = 64_000_000  # of packets; 64 s at 8 Mbit/s
MAX_WAITING = 20_000
# Formats that can be read from the middle on. An mp4 has an index, which could ask for gigabytes.
LIVE_FORMATS = ("mpegts", "mpeg", "flv", "live_flv", "matroska", "webm", "ogg", "asf", "nut")
# A redirection goes to these protocols and no others, and no protocol opens files.
_PROTOCOLS = {
    "http": "http,https,httpproxy,tls,tcp",
    "https": "http,https,httpproxy,tls,tcp",
    "rtsp": "rtp,srtp,udp,tcp",
    "rtsps": "rtp,srtp,udp,tcp,tls",
    "rtmp": "rtmp,tcp",
    "rtmps": "rtmps,tls,tcp",
    "srt": "srt",
    "udp": "udp",
    "tcp": "tcp",
}


class GaveUpError(UserError):
    """A live address that could not be connected again."""


class _RefusedError(UserError):
    """A connection that another try would not make better."""


@dataclass(frozen=True)
class _Arrived:
    """A packet; its stamps plus `offset_s` are the time of its material, which does not jump."""

    is_picture: bool
    packet: Packet[Any]
    offset_s: float


class _Connection:
    """A connection: its thread opens the address and queues packets, until it ends or `stop` is called."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self.video: VideoStream | None = None
        self.audio: AudioStream | None = None
        self.fault: UserError | None = None  # why it ended
        self.newest_s = 0.0  # material
        self.num_lost = 0  # times that packets were left out
        self._waiting: deque[_Arrived] = deque()
        self._num_bytes = 0
        self._lock = threading.Condition()
        self._is_over = False
        self._stopped = threading.Event()
        self._last_s: dict[bool, float] = {}  # stamps, of sound and pictures
        self._offset_s = 0.0
        threading.Thread(target=self._read, name="live", daemon=True).start()

    def stop(self) -> None:
        """Asks the thread to end; it does within `DEAD_S`, and nothing waits for it.

        Not before the last use of `video` and `audio`, whose memory is the container's.
        """
        self._stopped.set()

    def _read(self) -> None:
        try:
            container = _opened(self.address)
        except (FFmpegError, OSError, ValueError) as error:
            self._end(_connection_fault(self.address, error))
            return
        with container:
            self._end(self._read_packets(container))
            self._stopped.wait()  # the decoder may still use the streams

    def _read_packets(self, container: InputContainer) -> UserError:
        """Queues the packets; returns why there are no more."""
        try:
            self.video, self.audio = _streams(container, self.address)
            for packet in container.demux([self.video, self.audio]):
                if self._stopped.is_set():
                    break
                if packet.size and not packet.is_corrupt:
                    self._add(packet)
            return UserError("the stream ended")
        except UserError as error:
            return error
        except (FFmpegError, OSError, ValueError) as error:
            return _connection_fault(self.address, error)
        except Exception as error:  # of any kind: else the decoder would wait for ever
            return UserError(f"{type(error).__name__} while it was read")

    def _end(self, fault: UserError) -> None:
        with self._lock:
            self.fault, self._is_over = fault, True
            self._lock.notify()

    def _add(self, packet: Packet[Any]) -> None:
        stamp = packet.pts if packet.pts is not None else packet.dts
        if stamp is None or not packet.time_base:
            return
        is_picture = isinstance(packet.stream, VideoStream)
        stamp_s = float(stamp * packet.time_base)
        last_s = self._last_s.get(is_picture)
        if last_s is None and not self._last_s:
            self._offset_s = -stamp_s
        if is_picture and last_s is not None and not -BACK_S <= stamp_s - last_s <= AHEAD_S:
            self._offset_s += last_s - stamp_s
        self._last_s[is_picture] = stamp_s
        with self._lock:
            if is_picture:
                self.newest_s = max(self.newest_s, stamp_s + self._offset_s)
            if self._num_bytes > MAX_WAITING_BYTES or len(self._waiting) > MAX_WAITING:
                self._clear()
            self._waiting.append(_Arrived(is_picture, packet, self._offset_s))
            self._num_bytes += packet.size
            self._lock.notify()

    def _clear(self) -> None:
        self._waiting.clear()
        self._num_bytes = 0
        self.num_lost += 1

    def next_packet(self, timeout_s: float) -> _Arrived | None:
        """The next packet; None if there is none within `timeout_s`.

        Raises:
            UserError: Why the connection ended, after its last packet.
        """
        with self._lock:
            if not self._waiting and not self._is_over:
                self._lock.wait(timeout_s)
            if self._waiting:
                arrived = self._waiting.popleft()
                self._num_bytes -= arrived.packet.size
                return arrived
            if self.fault is not None:
                raise self.fault
            return None

    def skip_to_newest(self) -> None:
        """Leaves out all that waits before the newest picture that can be decoded alone."""
        with self._lock:
            keys = [n for n, one in enumerate(self._waiting) if one.is_picture and one.packet.is_keyframe]
            rest = list(self._waiting)[keys[-1] :] if keys else []
            self._clear()
            self._waiting.extend(rest)
            self._num_bytes = sum(one.packet.size for one in rest)


def _opened(address: Address) -> InputContainer:
    formats = ("rtsp",) if address.scheme in ("rtsp", "rtsps") else LIVE_FORMATS
    options = {
        "protocol_whitelist": _PROTOCOLS[address.scheme],
        "format_whitelist": ",".join(formats),
        "analyzeduration": str(round(ANALYSIS_S * 1e6)),
        "rtsp_flags": "prefer_tcp",  # nothing is lost, and firewalls let it pass
        "overrun_nonfatal": "1",  # of UDP: what is lost is lost
        "tls_verify": "1",
    }
    if authorities := ssl.get_default_verify_paths().cafile:
        options["ca_file"] = authorities
    # The scheme in lower case: FFmpeg chooses by its spelling.
    url = address.scheme + address.url[len(address.scheme) :]
    return av.open(url, options=options, metadata_errors="ignore", timeout=(DEAD_S, DEAD_S))


def _streams(container: InputContainer, address: Address) -> tuple[VideoStream, AudioStream]:
    """The largest pictures and the sound that a player plays with them."""
    films = [film for film in container.streams.video if film.codec_context is not None]
    if not films or not container.streams.audio:
        missing = " and no ".join(
            name for name, some in (("pictures", films), ("sound", container.streams.audio)) if not some
        )
        raise _RefusedError(f"{address}: the stream has no {missing}; lip-sync needs both")
    try:
        return max(films, key=lambda film: film.width * film.height), played_stream(
            container, "audio", str(address)
        )
    except MediaError as error:
        raise _RefusedError(str(error)) from None


def _connection_fault(address: Address, error: Exception) -> UserError:
    """The reason in words, without the address, which FFmpeg's own text has in full."""
    if isinstance(error, av.error.ProtocolNotFoundError):
        return _RefusedError(
            f"{address}: FFmpeg in this PyAV has no {address.scheme}; use rtsp, rtmp, http or udp"
        )
    if isinstance(error, (av.error.HTTPClientError, av.error.HTTPUnauthorizedError)):
        return _RefusedError(f"{address}: the server refuses: {error.strerror}")
    if isinstance(error, (av.error.InvalidDataError, av.error.ArgumentError)):
        return _RefusedError(f"{address}: no live stream that can be read ({', '.join(LIVE_FORMATS)})")
    if isinstance(error, av.error.ExitError):
        return UserError(f"nothing came for {DEAD_S:.0f} s")
    host = urlsplit(address.url).hostname or ""
    if getattr(error, "errno", None) == errno.EIO:  # FFmpeg's for several things
        try:
            socket.getaddrinfo(host, None)
        except OSError:
            return UserError(f"no host {host} is known")
        return UserError("the connection broke")
    return UserError(getattr(error, "strerror", None) or type(error).__name__)


class Stretch:
    """Material without a break.

    Attributes:
        start_s: When it begins, in seconds after the first material of the program.
        num_frames: Pictures so far, at 25 a second.
        fault: Why the connection ended, if it did.
    """

    def __init__(self, connection: _Connection, decoder: _Decoder, base_s: float, start: _Start) -> None:
        self._connection, self._decoder = connection, decoder
        self._start, self._sound_end_s = start, start.time_s
        self._previous = (start.time_s, start.picture)
        self.start_s = base_s + start.material_s
        self.num_frames = 0
        self.fault: UserError | None = None

    def delay_s(self, end_s: float) -> float:
        """Seconds from the moment `end_s` of the stretch to the newest picture that has come."""
        return max(self._connection.newest_s - self._start.material_s - end_s, 0.0)

    def pieces(self) -> Iterator[Piece]:
        """Pictures at 25 a second and blocks of sound, until the material has a break."""
        try:
            yield from self._pieces()
        except UserError as error:
            self.fault = error

    def _pieces(self) -> Iterator[Piece]:
        for time_s, samples in self._start.sounds:
            yield from self._sound(time_s, samples)
        for event in self._decoder.events():
            if event.is_break or self._jumps(event):
                self._decoder.put_back(event)
                return
            if event.samples is not None:
                yield from self._sound(event.time_s, event.samples)
                continue
            yield from self._picture(event)
            behind_s = self._connection.newest_s - event.material_s
            if self.num_frames >= LEAST_STRETCH_S * FRAME_HZ and behind_s > MAX_BEHIND_S:
                self._connection.skip_to_newest()
                self._decoder.restart()
                return

    def _jumps(self, event: _Event) -> bool:
        is_sound, previous_s = event.samples is not None, self._previous[0]
        last_s, back_s = (self._sound_end_s if is_sound else previous_s), BACK_S
        if is_sound and last_s == self._start.time_s:  # pictures were ahead of it
            back_s += APART_S
        if not -back_s <= event.time_s - last_s <= AHEAD_S:
            return True
        if is_sound and event.time_s - previous_s > DEAD_S:
            raise UserError(f"sound without pictures for {DEAD_S:.0f} s")
        if not is_sound and event.time_s - self._sound_end_s > DEAD_S:
            raise UserError(f"pictures without sound for {DEAD_S:.0f} s")
        return False

    def _picture(self, event: _Event) -> Iterator[Piece]:
        """Each moment of the grid up to half way to this picture shows the one before it."""
        middle_s = (self._previous[0] + event.time_s) / 2
        image: NDArray[np.uint8] | None = None
        while self._start.time_s + self.num_frames / FRAME_HZ < middle_s - 1e-9:
            if image is None:
                image = self._decoder.picture(self._previous[1])
            self.num_frames += 1
            yield "frame", image
        if event.frame is not None:
            self._previous = (max(event.time_s, self._previous[0]), event.frame)

    def _sound(self, time_s: float, samples: NDArray[np.float32]) -> Iterator[Piece]:
        """The samples where they belong: gaps become silence, overlaps are cut."""
        missing = round((time_s - self._sound_end_s) * SAMPLE_RATE_HZ)
        if abs(missing) > GAP_S * SAMPLE_RATE_HZ or self._sound_end_s == self._start.time_s:
            if missing > 0:
                yield "sound", np.zeros(missing, np.float32)
                self._sound_end_s += missing / SAMPLE_RATE_HZ
            elif missing < 0:
                samples = samples[-missing:]
        if len(samples):
            yield "sound", samples
            self._sound_end_s += len(samples) / SAMPLE_RATE_HZ


@dataclass(frozen=True)
class _Event:
    """A decoded picture or a block of sound; or neither, a break."""

    time_s: float = 0.0
    material_s: float = 0.0
    frame: av.VideoFrame | None = None
    samples: NDArray[np.float32] | None = None

    @property
    def is_break(self) -> bool:
        return self.frame is None and self.samples is None


@dataclass(frozen=True)
class _Start:
    """The first moment that pictures and sound both have, on the clock of the stamps."""

    time_s: float
    material_s: float
    picture: av.VideoFrame
    sounds: list[tuple[float, NDArray[np.float32]]]


class _Decoder:
    """Decodes the packets of a connection."""

    def __init__(self, connection: _Connection, is_stopped: Callable[[], bool]) -> None:
        self._connection, self._is_stopped = connection, is_stopped
        self._events: deque[_Event] = deque()
        self._maker: PictureMaker | None = None
        self._resampler: av.AudioResampler | None = None
        self._form: tuple[object, ...] = ()
        self._needs_key = True
        self._num_lost = 0

    def put_back(self, event: _Event) -> None:
        """Makes `events` begin with the event again."""
        if not event.is_break:
            self._events.appendleft(event)

    def restart(self) -> None:
        """Forgets all that was decoded, after packets were left out."""
        self._events.clear()
        self._num_lost = self._connection.num_lost
        for stream in (self._connection.video, self._connection.audio):
            if stream is not None:
                stream.codec_context.flush_buffers()
        self._resampler, self._form, self._needs_key = None, (), True

    def events(self) -> Iterator[_Event]:
        """Decoded pictures and blocks of sound, in the order of arrival, until a signal.

        Raises:
            UserError: The connection ended, or sends nothing.
        """
        silent_since_s = time.monotonic()
        while not self._is_stopped():
            if self._events:
                yield self._events.popleft()
                continue
            arrived = self._connection.next_packet(POLL_S)
            if arrived is None:
                # Twice as long: opening takes some of it, and the thread reports it itself if it can.
                if time.monotonic() - silent_since_s > 2 * DEAD_S:
                    raise UserError(f"nothing came for {2 * DEAD_S:.0f} s")
                continue
            silent_since_s = time.monotonic()
            if self._connection.num_lost != self._num_lost:  # by the thread: too much was waiting
                self.restart()
                yield _Event()
            self._events.extend(self._decoded(arrived))

    def _decoded(self, arrived: _Arrived) -> Iterator[_Event]:
        stream = self._connection.video if arrived.is_picture else self._connection.audio
        if stream is None:
            return
        if arrived.is_picture and self._needs_key:
            if not arrived.packet.is_keyframe:
                return
            self._needs_key = False
        try:
            frames: list[Any] = list(stream.codec_context.decode(arrived.packet))
        except FFmpegError:
            return  # a damaged packet
        for frame in frames:
            if frame.time is None:
                continue
            if arrived.is_picture:
                if frame.width * frame.height > MAX_FRAME_PIXELS:
                    raise UserError(f"pictures of {frame.width} x {frame.height} pixels are too large")
                yield _Event(frame.time, frame.time + arrived.offset_s, frame=frame)
            else:
                time_s = frame.time
                samples = self._resampled(frame)
                if len(samples):
                    yield _Event(time_s, time_s + arrived.offset_s, samples=samples)

    def _resampled(self, frame: av.AudioFrame) -> NDArray[np.float32]:
        form = (frame.sample_rate, frame.layout.name, frame.format.name)
        if self._resampler is None or form != self._form:
            checked_rate(frame.sample_rate, str(self._connection.address))
            self._resampler = av.AudioResampler(format="fltp", layout="mono", rate=SAMPLE_RATE_HZ)
            self._form = form
        frame.pts = None  # the stamps are followed here
        parts = [part.to_ndarray()[0] for part in self._resampler.resample(frame)]
        samples: NDArray[np.float32] = np.concatenate([np.zeros(0, np.float32), *parts])
        return np.nan_to_num(samples, nan=0.0, posinf=0.0, neginf=0.0)

    def picture(self, frame: av.VideoFrame) -> NDArray[np.uint8]:
        """(H, W, 3) RGB as a player shows it."""
        if self._maker is None:
            if self._connection.video is None:
                raise RuntimeError("pictures come after the streams are known")
            self._maker = PictureMaker(self._connection.video, "rgb")
        return self._maker.picture(frame)

    def next_start(self) -> _Start | None:
        """The start of the next stretch; None after a signal.

        Raises:
            UserError: The connection ended, or pictures and sound have no moment in common.
        """
        sounds: deque[tuple[float, NDArray[np.float32]]] = deque()
        sound_end_s = math.nan
        since_s = time.monotonic()
        for event in self.events():
            if event.is_break:
                sounds.clear()
            elif event.samples is not None:
                if not -BACK_S <= event.time_s - sound_end_s <= AHEAD_S:
                    sounds.clear()
                sounds.append((event.time_s, event.samples))
                sound_end_s = event.time_s + len(event.samples) / SAMPLE_RATE_HZ
                while sound_end_s - sounds[0][0] > DEAD_S:
                    sounds.popleft()
            elif event.frame is not None and sounds:
                first_s = sounds[0][0]
                if first_s - 0.5 / FRAME_HZ <= event.time_s <= sound_end_s + APART_S:
                    return _Start(event.time_s, event.material_s, event.frame, list(sounds))
            if time.monotonic() - since_s > 2 * DEAD_S:
                raise UserError(f"pictures and sound had no moment in common for {2 * DEAD_S:.0f} s")
        return None


class LiveAddress:
    """A live stream, connected again when it breaks.

    Args:
        address: Of the stream.
        max_retries: Tries in a row to connect again, before it gives up.
        is_stopped: Asked at least ten times a second; True ends all waits.
    """

    def __init__(self, address: Address, max_retries: int, is_stopped: Callable[[], bool]) -> None:
        self._address, self._max_retries, self._is_stopped = address, max_retries, is_stopped
        self._first_s: float | None = None
        self._end_s = 0.0  # of the material so far
        self.left_out_s = 0.0  # of material, because the scorer did not keep up

    def stretches(self) -> Iterator[Stretch]:
        """Stretches of material, each to be read to its end, until a signal.

        Raises:
            GaveUpError: It could not be connected again.
            UserError: The address cannot be read at all.
        """
        num_failed, has_worked = 0, False
        while not self._is_stopped():
            connection = _Connection(self._address)
            try:
                for stretch in self._connected(connection):
                    yield stretch
                    self._end_s = stretch.start_s + stretch.num_frames / FRAME_HZ
                    if stretch.num_frames >= HEALTHY_S * FRAME_HZ:
                        num_failed, has_worked = 0, True
                    if stretch.fault is not None:
                        raise stretch.fault
                return  # a signal
            except _RefusedError as error:
                if not has_worked:
                    raise
                reason = str(error).removeprefix(f"{self._address}: ")
            except UserError as error:
                reason = str(error).removeprefix(f"{self._address}: ")
            finally:
                connection.stop()
            if num_failed >= self._max_retries:
                raise GaveUpError(
                    f"{self._address}: {reason}; given up after {num_failed} tries to reconnect"
                )
            wait_s = min(FIRST_WAIT_S * 2**num_failed, MOST_WAIT_S)
            num_failed += 1
            logger.warning(
                f"{self._address}: {reason}; connecting again in {wait_s:g} s "
                f"(try {num_failed} of {self._max_retries})"
            )
            self._wait(wait_s)

    def _wait(self, seconds: float) -> None:
        end_s = time.monotonic() + seconds
        while not self._is_stopped() and (rest_s := end_s - time.monotonic()) > 0:
            time.sleep(min(rest_s, POLL_S))

    def _connected(self, connection: _Connection) -> Iterator[Stretch]:
        decoder = _Decoder(connection, self._is_stopped)
        stretch: Stretch | None = None
        base_s, num_lost = 0.0, 0
        while (start := decoder.next_start()) is not None:
            if stretch is None:
                # By the clock of this machine, for no material says how long the connection was broken.
                now_s = time.monotonic()
                self._first_s = now_s if self._first_s is None else self._first_s
                base_s = max(now_s - self._first_s, self._end_s) - start.material_s
            else:
                self._report_break(base_s + start.material_s, connection.num_lost - num_lost)
            num_lost = connection.num_lost
            stretch = Stretch(connection, decoder, base_s, start)
            yield stretch

    def _report_break(self, start_s: float, num_lost: int) -> None:
        if not num_lost:
            logger.warning(f"{self._address}: its time stamps jump; a new window begins")
            return
        left_out_s = max(start_s - self._end_s, 0.0)
        self.left_out_s += left_out_s
        logger.warning(
            f"{self._address}: the scorer does not keep up: {left_out_s:.1f} s are left out "
            f"({self.left_out_s:.1f} s in all)"
        )

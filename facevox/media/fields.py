"""Interlaced video: whole pictures of frames that are two half pictures, taken one after the other."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import av
from av.error import FFmpegError
from av.filter import Graph

if TYPE_CHECKING:
    from av.video.stream import VideoStream

# Better than yadif at the same cost. One picture for each frame, from its first field, at the frame's time.
_FILTER, _SETTINGS = "bwdif", "mode=send_frame:deint=all:parity="
# Codecs whose frames do not say what they are, and the file's word for it (FFmpeg's AVFieldOrder).
_SILENT_CODECS = frozenset({"huffyuv", "ffvhuff", "utvideo", "magicyuv", "rawvideo"})
_ORDERS = {2: "tff", 3: "bff", 4: "bff", 5: "tff"}


def stated_order(stream: "VideoStream") -> str:
    """The first field, tff or bff, where only the file says that its frames are interlaced; "" elsewhere."""
    if stream.codec_context.name not in _SILENT_CODECS:
        return ""
    return _ORDERS.get(stream.codec_context.field_order, "")


def deinterlaced(frames: Iterable[av.VideoFrame], order: str = "") -> Iterator[av.VideoFrame]:
    """The frames, those that say that they are interlaced without their combs; times stay.

    One or two frames come later than they would, as the filter looks at the next one.

    Args:
        frames: Of a stream, in order.
        order: As `stated_order` gives it; then all of them are interlaced.
    """
    graph: _Graph | None = None
    for frame in frames:
        is_interlaced = bool(order) or frame.interlaced_frame
        if graph is not None and not (is_interlaced and graph.takes(frame)):
            yield from graph.rest()
            graph = None
        if not is_interlaced:
            yield frame
            continue
        if graph is None:
            graph = _Graph(frame, order or "auto")
        yield from graph.filtered(frame)
    if graph is not None:
        yield from graph.rest()


class _Graph:
    """The filter for frames of one form."""

    def __init__(self, frame: av.VideoFrame, order: str) -> None:
        self._form = _form(frame)
        self._graph: Any = Graph()
        source = self._graph.add_buffer(
            width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base
        )
        self._graph.link_nodes(
            source, self._graph.add(_FILTER, _SETTINGS + order), self._graph.add("buffersink")
        ).configure()

    def takes(self, frame: av.VideoFrame) -> bool:
        """True if the frame has the form of those before it."""
        return _form(frame) == self._form

    def filtered(self, frame: av.VideoFrame) -> Iterator[av.VideoFrame]:
        """The frames that are ready after one more."""
        self._graph.push(frame)
        yield from self._ready()

    def rest(self) -> Iterator[av.VideoFrame]:
        """The frames that are left at the end."""
        self._graph.push(None)
        yield from self._ready()

    def _ready(self) -> Iterator[av.VideoFrame]:
        while True:
            try:
                yield self._graph.pull()
            except (BlockingIOError, EOFError, FFmpegError):
                return


def _form(frame: av.VideoFrame) -> tuple[int, int, str]:
    return frame.width, frame.height, frame.format.name

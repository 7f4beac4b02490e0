"""Interlaced video: whole pictures of frames that are two half pictures, taken one after the other."""

from collections.abc import Iterable, Iterator
from typing import Any

import av
from av.error import FFmpegError
from av.filter import Graph

# Better than yadif at the same cost. One picture for each frame, from its first field, at the frame's time.
_FILTER, _SETTINGS = "bwdif", "mode=send_frame:parity=auto:deint=all"


def deinterlaced(frames: Iterable[av.VideoFrame]) -> Iterator[av.VideoFrame]:
    """The frames, those that say that they are interlaced without their combs; times stay.

    One or two frames come later than they would, as the filter looks at the next one.
    """
    graph: _Graph | None = None
    for frame in frames:
        if graph is not None and not (frame.interlaced_frame and graph.takes(frame)):
            yield from graph.rest()
            graph = None
        if not frame.interlaced_frame:
            yield frame
            continue
        if graph is None:
            graph = _Graph(frame)
        yield from graph.filtered(frame)
    if graph is not None:
        yield from graph.rest()


class _Graph:
    """The filter for frames of one form."""

    def __init__(self, frame: av.VideoFrame) -> None:
        self._form = _form(frame)
        self._graph: Any = Graph()
        source = self._graph.add_buffer(
            width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base
        )
        self._graph.link_nodes(
            source, self._graph.add(_FILTER, _SETTINGS), self._graph.add("buffersink")
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

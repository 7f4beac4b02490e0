"""Sound played at another rate, and with places where some of it is missing or too much.

Both work on (channels, n) float32 blocks of any length, and remember no more than one block.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import av
import numpy as np
from av.error import BlockingIOError, EOFError
from av.filter import Graph

from facevox.media import packed_samples

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lipsync.sync.timing import Cut

    Blocks = Iterable[NDArray[np.float32]]

# FFmpeg's resampler takes whole rates; of rates a thousand times as high, their ratio is right to 0.01 ppm.
FINENESS = 1000
FILTER_SIZE = 64  # taps: what it adds is 100 dB below the sound
FADE_S = 0.005  # at both sides of a cut, so that it does not click


def at_rate(blocks: Blocks, rate_hz: int, layout: str, drift_ppm: float) -> Iterator[NDArray[np.float32]]:
    """Blocks that last 1 / (1 - drift_ppm / 1e6) times as long; a tone becomes lower by as much.

    Args:
        blocks: Of a sound.
        rate_hz: Of its samples.
        layout: Of its channels, as FFmpeg names it.
        drift_ppm: Positive: the sound runs ahead of the pictures more and more.
    """
    if drift_ppm == 0:
        yield from blocks
        return
    graph = Graph()
    chain = [
        graph.add(
            "abuffer", f"sample_rate={rate_hz}:sample_fmt=flt:channel_layout={layout}:time_base=1/{rate_hz}"
        ),
        graph.add("asetrate", str(round(rate_hz * FINENESS * (1 - drift_ppm / 1e6)))),
        graph.add("aresample", f"{rate_hz * FINENESS}:filter_size={FILTER_SIZE}:linear_interp=1"),
        graph.add("asetrate", str(rate_hz)),
        graph.add("aformat", f"sample_fmts=flt:channel_layouts={layout}"),
        graph.add("abuffersink"),
    ]
    for first, second in itertools.pairwise(chain):
        first.link_to(second)
    graph.configure()
    position = 0
    for block in blocks:
        packed = np.ascontiguousarray(block.T).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(packed, format="flt", layout=layout)
        frame.sample_rate, frame.pts = rate_hz, position
        position += block.shape[1]
        graph.push(frame)
        yield from _ready(graph)
    graph.push(None)
    yield from _ready(graph)


def _ready(graph: Graph) -> Iterator[NDArray[np.float32]]:
    while True:
        try:
            frame = graph.pull()
        except (BlockingIOError, EOFError):
            return
        assert isinstance(frame, av.AudioFrame), "the graph carries sound"
        yield packed_samples(frame).T


def with_cuts(
    blocks: Blocks, rate_hz: int, first_s: float, cuts: Sequence[Cut]
) -> Iterator[NDArray[np.float32]]:
    """Blocks with silence put in and sound taken out at the cuts, faded on both sides of each.

    Args:
        blocks: Of a sound.
        rate_hz: Of its samples.
        first_s: Time of their first sample, on the clock of the sound's file.
        cuts: In the order of their times. Those before `first_s` count there.
    """
    marks = [
        (max(round((cut.at_s - first_s) * rate_hz), 0), round(cut.by_ms / 1000 * rate_hz)) for cut in cuts
    ]
    fade = max(round(FADE_S * rate_hz), 1)
    ends = [at for at, _ in marks]
    begins = [at + max(-count, 0) for at, count in marks]
    waiting = deque(marks)
    position, num_skipped = 0, 0  # of the next sample in the sound; samples still to be taken out
    for block in blocks:
        gains = _gains(position, position + block.shape[1], ends, begins, fade)
        rest = block if gains is None else block * gains
        while True:
            dropped = min(num_skipped, rest.shape[1])
            rest, num_skipped, position = rest[:, dropped:], num_skipped - dropped, position + dropped
            if not waiting or waiting[0][0] >= position + rest.shape[1]:
                break
            place, count = waiting.popleft()
            before = max(place - position, 0)
            yield rest[:, :before]
            rest, position = rest[:, before:], position + before
            if count > 0:
                yield np.zeros((len(block), count), np.float32)
            num_skipped += max(-count, 0)
        yield rest
        position += rest.shape[1]


def _gains(
    first: int, after: int, ends: Sequence[int], begins: Sequence[int], fade: int
) -> NDArray[np.float32] | None:
    """(n,) factors of the samples `first` to before `after`; None: all are 1."""
    near = [at for at in (*ends, *begins) if first - fade <= at <= after + fade]
    if not near:
        return None
    numbers = np.arange(first, after)
    gains = np.ones(len(numbers), np.float32)
    for at in ends:
        falling = (at - numbers) / fade
        gains = np.where(numbers < at, np.minimum(gains, falling), gains)
    for at in begins:
        rising = (numbers - at + 1) / fade
        gains = np.where(numbers >= at, np.minimum(gains, rising), gains)
    return np.clip(gains, 0, 1).astype(np.float32)
